"""Discrete networks are fitted by counts, by EM where something is missing, and by posteriors."""

import networkx as nx
import numpy as np
import pandas as pd
import polars as pl
import pytest
from network_problems import tables_of, with_gaps

from ppl_gen import (
    EM,
    BayesianNetwork,
    BDeu,
    Categorical,
    Conjugate,
    Mixture,
    TabularCPD,
    load,
)
from ppl_gen.datasets import load_asia

EDGES = list(load_asia().graph_.edges)


@pytest.fixture(scope="module")
def asia():
    return load_asia()


@pytest.fixture(scope="module")
def rows(asia):
    return asia.sample(400, random_state=0)


def counts_of(frame, model, node, weights=None):
    """Counts of a node's states for each combination of its parents', by pandas."""
    cpd = model.cpds_[node]
    family = [*cpd.parents, node]
    counts = np.zeros([len(model.states_[name]) for name in family])
    places = [frame[name].map({s: i for i, s in enumerate(model.states_[name])}) for name in family]
    places = [place.to_numpy().astype(int) for place in places]
    np.add.at(counts, tuple(places), 1.0 if weights is None else weights)
    return counts


# -- counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "cells"),
    [
        (None, lambda shape: 0.0),
        ("k2", lambda shape: 1.0),
        (2.5, lambda shape: 2.5),
        (3, lambda shape: 3.0),
        ("bdeu", lambda shape: 10.0 / np.prod(shape)),
        (BDeu(4.0), lambda shape: 4.0 / np.prod(shape)),
    ],
    ids=["none", "k2", "2.5", "3", "bdeu", "BDeu(4)"],
)
def test_tables_are_counts_and_prior_counts_in_shares(rows, prior, cells):
    model = BayesianNetwork(EDGES, prior=prior).fit(rows)
    for node, cpd in model.cpds_.items():
        counts = counts_of(rows, model, node)
        counts += cells(counts.shape)
        total = counts.sum(axis=-1, keepdims=True)
        shares = np.divide(counts, total, out=np.full(counts.shape, 0.5), where=total > 0.0)
        np.testing.assert_allclose(cpd.values, shares, rtol=1e-12)
    # What the fit reports is what the tables give.
    assert model.lower_bound_ == pytest.approx(model.log_prob(rows).mean(), rel=1e-12)
    assert model.converged_
    assert model.n_iter_ == 1


def test_parents_that_no_row_shows_leave_a_node_uniform():
    frame = pd.DataFrame({"a": [0, 0, 0], "b": [1, 1, 0]})
    model = BayesianNetwork([("a", "b")], states={"a": 2, "b": 3}).fit(frame)
    np.testing.assert_allclose(model.cpds_["b"].values, [[1 / 3, 2 / 3, 0.0], [1 / 3] * 3])


def test_weights_are_rows_that_repeat(rows):
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 4, len(rows))
    repeated = rows.loc[rows.index.repeat(weights)].reset_index(drop=True)
    for frame in (rows, with_gaps(rows, 0.2, 1)):
        weighted = BayesianNetwork(EDGES, prior="bdeu", inference=EM(tol=1e-10)).fit(
            frame, sample_weight=weights
        )
        again = frame.loc[rows.index.repeat(weights)].reset_index(drop=True)
        expected = BayesianNetwork(EDGES, prior="bdeu", inference=EM(tol=1e-10)).fit(again)
        for node, cpd in expected.cpds_.items():
            # The same sums in another order; EM stops at the same step.
            np.testing.assert_allclose(weighted.cpds_[node].values, cpd.values, atol=1e-10)
    assert len(repeated) == weights.sum()


# -- tables of any kind ----------------------------------------------------------------------------


def test_columns_of_any_kind_are_the_same_network(rows):
    expected = tables_of(BayesianNetwork(EDGES).fit(rows))
    graph = load_asia().graph_
    nodes = list(graph)
    codes = (rows == "yes").astype(int)
    two = dict.fromkeys(nodes, 2)
    text = {name: rows[name].astype(str).tolist() for name in nodes}
    ordered = rows.apply(lambda c: pd.Categorical(c, ["no", "yes"], ordered=True))
    enums = pl.DataFrame(text, schema=dict.fromkeys(nodes, pl.Enum(["yes", "no"])))
    for table, settings in (
        (rows[rows.columns[::-1]], {}),
        (rows.astype(str), {}),
        (rows.astype(object), {}),
        (ordered, {}),
        (rows == "yes", {}),
        (codes, {"states": two}),
        (codes.astype(float), {"states": two}),
        (codes.astype("int8"), {"states": dict.fromkeys(nodes, np.array([1, 0]))}),
        (codes[nodes].to_numpy(), {"states": two}),
        (codes[nodes].to_numpy(dtype=float), {"states": two}),
        (pl.DataFrame(text), {}),
        (enums, {}),
        (pl.DataFrame(text).select(nodes[::-1]), {}),
    ):
        model = BayesianNetwork(graph, **settings).fit(table)
        found = tables_of(model)
        for node in nodes:
            np.testing.assert_array_equal(found[node], expected[node])
        log_prob = model.log_prob(table)
        np.testing.assert_allclose(log_prob.mean(), model.lower_bound_, rtol=1e-12)
        drawn = model.sample(3, random_state=0)
        assert type(drawn) is type(table)
        assert drawn.shape == (3, 8)
        if hasattr(table, "columns"):
            assert list(drawn.columns) == list(table.columns)
            if "object" not in map(str, table.dtypes):  # strings have their own dtype now
                assert list(drawn.dtypes) == list(table.dtypes)
        else:
            assert drawn.dtype == table.dtype
        assert np.isfinite(model.log_prob(drawn)).all()


def test_arrays_whose_nodes_are_places_are_taken_by_place():
    array = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 1, 1]])
    model = BayesianNetwork([(2, 0), (0, 1)], states={0: 2, 1: 2, 2: 2}).fit(array)
    np.testing.assert_allclose(model.cpds_[2].values, [0.25, 0.75])
    np.testing.assert_allclose(model.cpds_[0].values, [[0.0, 1.0], [2 / 3, 1 / 3]])
    assert model.predict(array, 0).tolist() == [0, 1, 1, 0]


def test_the_order_of_states_is_the_categories_or_the_declared(rows):
    assert BayesianNetwork(EDGES).fit(rows).states_["lung"] == ("yes", "no")
    assert BayesianNetwork(EDGES).fit(rows.astype(str)).states_["lung"] == ("no", "yes")
    states = {"lung": ["maybe", "yes", "no"]}
    for frame in (rows, rows.astype(str)):
        model = BayesianNetwork(EDGES, states=states).fit(frame)
        assert model.states_["lung"] == ("maybe", "yes", "no")
        assert model.query("lung")["maybe"] == 0.0
        drawn = model.sample(5, random_state=0)
        assert set(drawn["lung"]) <= {"yes", "no"}
        assert (model.predict_proba(frame, "lung")[:, 0] == 0.0).all()


def test_categories_that_no_row_shows_have_their_prior(rows):
    frame = rows.assign(lung=pd.Categorical(rows["lung"].astype(str), ["unknown", "no", "yes"]))
    model = BayesianNetwork(EDGES, prior=1.0).fit(frame)
    counts = counts_of(frame, model, "lung")
    assert counts[:, 0].sum() == 0.0
    expected = 1.0 / (counts.sum(axis=1) + 3.0)
    np.testing.assert_allclose(model.cpds_["lung"].values[:, 0], expected)


@pytest.mark.parametrize("kept", [False, True], ids=["made", "loaded"])
def test_tables_have_their_axes_in_the_order_of_the_graphs_predecessors(kept, tmp_path):
    """Which need not be that of its nodes."""
    graph = nx.DiGraph()
    graph.add_nodes_from(["a", "b", "c"])
    graph.add_edges_from([("b", "c"), ("a", "c")])
    table = [[[1.0, 0.0], [0.0, 1.0]], [[0.25, 0.75], [0.75, 0.25]]]
    states = {"a": ["x", "y"], "b": ["u", "v"]}
    model = BayesianNetwork(graph, {"a": [0.5, 0.5], "b": [0.5, 0.5], "c": table}, states=states)
    if kept:
        model.save(tmp_path / "model")
        model = load(tmp_path / "model")
        assert list(model.graph.predecessors("c")) == ["b", "a"]
    assert model.cpds_["c"].parents == ("b", "a")
    assert list(model.graph_.predecessors("c")) == ["b", "a"]
    assert model.query("c", {"b": "u", "a": "y"})[1] == 1.0
    again = BayesianNetwork(model.graph_, {n: cpd.values for n, cpd in model.cpds_.items()})
    assert again.query("c", {"b": 0, "a": 1})[1] == 1.0


# -- posteriors ------------------------------------------------------------------------------------


def test_conjugate_draws_have_the_moments_of_the_dirichlet(rows):
    n_draws = 4000
    model = BayesianNetwork(
        EDGES, prior="bdeu", inference=Conjugate(draws=n_draws), random_state=0
    ).fit(rows)
    for node in model.graph_:
        counts = counts_of(rows, model, node)
        alpha = counts + 10.0 / counts.size
        total = alpha.sum(axis=-1, keepdims=True)
        mean = alpha / total
        variance = mean * (1.0 - mean) / (total + 1.0)
        draws = model.posterior_.draws[f"p_{node}"].reshape(n_draws, *alpha.shape)
        error = np.sqrt(variance / n_draws)
        # Four of its standard errors, for 36 cells at once five.
        assert (abs(draws.mean(axis=0) - mean) < 5.0 * error).all()
        # The square of a Dirichlet's cell may be skew: its own spread tells the error.
        squares = (draws - mean) ** 2
        error = squares.std(axis=0) / np.sqrt(n_draws)
        assert (abs(squares.mean(axis=0) - variance) < 6.0 * error + 1e-12).all()


def test_a_posterior_predicts_rows_by_its_mean_table(rows):
    """Each row takes one cell of each table, and tables are independent: means multiply."""
    model = BayesianNetwork(EDGES, inference="conjugate", random_state=0).fit(rows)
    expected = BayesianNetwork(EDGES, prior=1.0).fit(rows)
    found = model.log_prob(rows)
    draws = np.stack(
        [model.structure_.log_evidence(model._draw(s), model._encode(rows)) for s in range(1000)]
    )
    ratio = np.exp(draws - expected.log_prob(rows))
    error = ratio.std(axis=0) / np.sqrt(len(draws))
    # Rows share a few patterns, so that the largest error is that of a few dozen means.
    assert (abs(np.exp(found - expected.log_prob(rows)) - 1.0) < 5.0 * error).all()


def test_a_posterior_averages_queries_over_its_draws(rows):
    """Draws weigh by the evidence's probability: p(x | e) is a ratio of means."""
    model = BayesianNetwork(EDGES, inference=Conjugate(draws=50), random_state=0).fit(rows)
    evidence = {"xray": "yes", "smoke": "no"}
    joints, shares = [], []
    for s in range(50):
        draw = BayesianNetwork(
            model.graph_,
            {
                name: model.parameters_[str(v)]["table"][s]
                for v, name in enumerate(model.structure_.names)
            },
            states=model.states_,
        )
        shares.append(draw.query(["lung", "dysp"], evidence).to_numpy())
        joints.append(draw.probability(evidence))
    weights = np.array(joints) / np.sum(joints)
    shares = np.array(shares)
    np.testing.assert_allclose(
        model.query(["lung", "dysp"], evidence), weights @ shares, rtol=1e-10
    )
    assert model.probability(evidence) == pytest.approx(np.mean(joints), rel=1e-10)
    frame = pd.DataFrame([evidence])
    found = model.predict_proba(frame, "lung")[0]
    np.testing.assert_allclose(found, model.query("lung", evidence), rtol=1e-10)
    interval = model.query(["lung", "dysp"], evidence, interval=0.8)
    assert (interval["lower"] < interval["probability"]).all()
    assert (interval["probability"] < interval["upper"]).all()
    below = (shares < interval["lower"].to_numpy()) * weights[:, None]
    # A tenth of the weight is below the bound, up to half of what one draw weighs at most.
    np.testing.assert_allclose(below.sum(axis=0), 0.1, atol=weights.max())


def test_intervals_cover_what_they_say():
    """Of parameters that are drawn from the prior, intervals hold the share that they claim."""
    rng = np.random.default_rng(0)
    n_repeats, share, covered = 200, 0.8, 0
    for seed in range(n_repeats):
        tables = {"a": rng.dirichlet(np.ones(2)), "b": rng.dirichlet(np.ones(2), size=2)}
        states = {"a": 2, "b": 2}
        truth = BayesianNetwork([("a", "b")], tables, states=states)
        frame = truth.sample(30, random_state=seed).astype(int)
        model = BayesianNetwork(
            [("a", "b")], states=states, inference=Conjugate(draws=200), random_state=seed
        ).fit(frame)
        evidence = {"b": 1}
        interval = model.query("a", evidence, interval=share).loc[1]
        covered += interval["lower"] <= truth.query("a", evidence)[1] <= interval["upper"]
    # Four standard deviations of a binomial, and one more for the draws' own error.
    assert abs(covered / n_repeats - share) < 5.0 * np.sqrt(share * (1.0 - share) / n_repeats)


# -- EM --------------------------------------------------------------------------------------------


def test_em_recovers_the_tables_with_a_third_of_the_cells_missing(asia):
    """Within four standard errors, which those of the rows that show a family bound from above.

    Gaps fall at random. An estimate from the rows that show a node and all its parents is a
    function of what is observed, so that the maximum of the whole likelihood, which is efficient,
    spreads no further.
    """
    frame = with_gaps(asia.sample(20_000, random_state=0), 0.3, 1)
    model = BayesianNetwork(asia.graph_).fit(frame)
    assert model.converged_
    largest = 0.0
    for node, cpd in model.cpds_.items():
        truth = asia.cpds_[node].values
        shown = counts_of(frame[[*cpd.parents, node]].dropna(), model, node)
        n_rows = shown.sum(axis=-1, keepdims=True)
        error = np.sqrt(truth * (1.0 - truth) / np.maximum(n_rows, 1.0))
        # Where the truth is 0 or 1 nothing spreads; one row's worth is for EM's slow end there.
        largest = max(largest, (abs(cpd.values - truth) / (error + 0.25 / n_rows)).max())
    assert largest < 4.0


def hidden_class(states=3):
    return BayesianNetwork(
        [("z", name) for name in "abcd"], states={"z": states}, inference=EM(n_init=3, tol=1e-9)
    )


@pytest.fixture(scope="module")
def classes():
    """Rows of four columns that a hidden class of three states brings together."""
    rng = np.random.default_rng(0)
    z = rng.choice(3, 600, p=[0.5, 0.3, 0.2])
    p = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]])
    codes = np.stack([[rng.choice(3, p=p[k]) for k in z] for _ in range(4)], axis=1)
    return pd.DataFrame(np.array(["u", "v", "w"])[codes], columns=list("abcd")), z


def test_a_hidden_parent_is_a_mixture_of_categories(classes):
    """Both are EM for the same likelihood: the best of a few starts are the same maximum."""
    frame, z = classes
    model = hidden_class().set_params(random_state=0).fit(frame)
    mixture = Mixture(3, Categorical(alpha=0.0), inference=EM(n_init=5, tol=1e-9), random_state=0)
    mixture.fit(frame)
    # EM's last steps gain 1e-9 each; what they leave is more, since it is slow.
    assert model.log_prob(frame).mean() == pytest.approx(mixture.log_prob(frame).mean(), abs=1e-5)
    ours = model.predict_proba(frame, "z")
    table = pd.crosstab(ours.argmax(axis=1), z).to_numpy()
    assert table.max(axis=1).sum() > 0.85 * len(frame)
    drawn, hidden = model.sample(10, random_state=0, return_latent=True)
    assert drawn.shape == (10, 4)
    assert hidden.shape == (10,)
    assert set(hidden) <= {0, 1, 2}
    # The one node that rows do not show is the one to predict.
    np.testing.assert_array_equal(model.predict(frame), ours.argmax(axis=1))


@pytest.mark.parametrize("case", ["gaps", "hidden", "prior"])
def test_ems_objective_never_falls(asia, case):
    frame = with_gaps(asia.sample(300, random_state=3), 0.4, 4)
    settings = {"prior": "bdeu"} if case == "prior" else {}
    if case == "hidden":
        frame = frame.drop(columns=["either", "smoke"])
        settings["states"] = {"either": ["yes", "no"], "smoke": 3}
    model = BayesianNetwork(asia.graph_, random_state=0, **settings).fit(frame)
    assert len(model.history_) > 5
    # Sums of three hundred rows, in doubles.
    assert (np.diff(model.history_) > -1e-12 * abs(model.history_[-1])).all()


def test_em_starts_from_the_distributions_given(asia):
    """In their own order of states and parents, whatever the columns' is."""
    frame = with_gaps(asia.sample(300, random_state=3), 0.2, 4).astype(object)
    cpds = dict(asia.cpds_)
    dysp = cpds["dysp"]
    turned = TabularCPD(
        "dysp", dysp.values.swapaxes(0, 1), dysp.parents[::-1], dict(reversed(dysp.states.items()))
    )
    graph = nx.DiGraph(EDGES)
    assert tuple(graph.predecessors("dysp")) == dysp.parents
    settings = {"inference": EM(max_iter=2, tol=0.0)}
    model = BayesianNetwork(graph, cpds | {"dysp": turned}, **settings).fit(frame)
    assert model.states_["lung"] == ("yes", "no")
    expected = asia.log_prob(frame).mean()
    assert model.history_[0] == pytest.approx(expected, rel=1e-10)
    # A part of them will do.
    model = BayesianNetwork(graph, {"dysp": turned}, **settings).fit(frame)
    assert len(model.cpds_) == 8
    # Beside complete rows they say nothing but which states there are.
    rows = asia.sample(50, random_state=0).astype(object)
    model = BayesianNetwork(cpds=cpds).fit(rows)
    expected = BayesianNetwork(asia.graph_, states=asia.states_).fit(rows)
    assert model.cpds_ == expected.cpds_


def test_more_starts_find_no_worse_a_maximum(classes):
    frame, _ = classes
    ones = [
        hidden_class()
        .set_params(random_state=0, inference=EM(n_init=n_init, tol=1e-6))
        .fit(frame)
        .lower_bound_
        for n_init in (1, 8)
    ]
    assert ones[1] >= ones[0] - 1e-12


def test_one_pass_is_where_em_stays(rows):
    """A row that shows nothing makes EM iterate, and tells nothing."""
    frame = pd.concat([rows, rows.iloc[:1].mask(np.ones((1, 8), dtype=bool))], ignore_index=True)
    expected = BayesianNetwork(EDGES).fit(rows)
    found = BayesianNetwork(EDGES, inference=EM(tol=1e-14, max_iter=50)).fit(frame)
    assert found.n_iter_ > 1
    for node, cpd in expected.cpds_.items():
        # Each step divides what is left by four hundred rows.
        np.testing.assert_allclose(found.cpds_[node].values, cpd.values, atol=1e-6)
