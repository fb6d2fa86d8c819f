"""What a discrete network cannot take is refused by name, and nothing is lost by it."""

import networkx as nx
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import NotFittedError

from ppl_gen import EM, BayesianNetwork, Conjugate, LinearGaussianCPD, TabularCPD
from ppl_gen.datasets import load_asia

EDGES = list(load_asia().graph_.edges)
NODES = ["asia", "tub", "smoke", "lung", "bronc", "either", "xray", "dysp"]
HALF = [0.5, 0.5]
ROWS = [[0.1, 0.9], [0.2, 0.8]]


@pytest.fixture(scope="module")
def asia():
    return load_asia()


@pytest.fixture(scope="module")
def rows(asia):
    return asia.sample(60, random_state=0)


# -- graphs and distributions ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "error", "message"),
    [
        ([("a", "b"), ("b", "c"), ("c", "a")], ValueError, "in a circle: a -> b -> c -> a; remove"),
        ([("a", "a")], ValueError, "in a circle: a -> a"),
        (nx.Graph([("a", "b")]), ValueError, "the graph is a Graph; expected a networkx.DiGraph"),
        (nx.MultiDiGraph([("a", "b")]), ValueError, "is a MultiDiGraph"),
        (nx.DiGraph(), ValueError, "the graph has no node"),
        ([], ValueError, "the graph has no node"),
        ("ab", ValueError, "graph is .ab.; expected .* one of the names .*hill_climb"),
        (["ab", "cd"], TypeError, "graph is a list; expected a networkx.DiGraph, a list of pairs"),
        ([("a", "b", "c")], TypeError, "list of pairs"),
        ([(None, "b")], ValueError, "the graph has the node None, which is no name"),
        (iter([("a", "b")]), TypeError, "graph is a list_iterator; expected a networkx.DiGraph"),
        (3, TypeError, "graph is a int"),
    ],
)
def test_graphs_that_are_none_are_refused(graph, error, message):
    with pytest.raises(error, match=message):
        BayesianNetwork(graph)


@pytest.mark.parametrize(
    ("cpds", "message"),
    [
        ({"a": HALF, "b": [[0.1, 0.9]]}, r"'b' has shape \(1, 2\); expected \(2, 2\) \(a: 2, b: 2"),
        ({"b": [[0.1, 0.9]], "a": HALF}, r"'b' has shape \(1, 2\)"),
        ({"a": [0.5, 0.3, 0.2], "b": ROWS}, r"'b' has shape \(2, 2\); expected \(3, 2\)"),
        ({"a": HALF, "b": [[0.1, 0.9], [0.2, 0.7]]}, r"row of 'b' given a=1 sums to 0.9"),
        ({"a": [0.7, 0.7], "b": ROWS}, r"row of 'a' sums to 1.4"),
        ({"a": HALF, "b": [[0.1, 0.9], [1.2, -0.2]]}, "probability of b=1 given a=1 is -0.2"),
        ({"a": HALF, "b": [[0.1, 0.9], [np.nan, 1.0]]}, "'b' given a=1 has the entry nan"),
        ({"c": HALF}, r"cpds has \['c'\], which are no nodes of the graph; it has \['a', 'b'\]"),
        (
            {"b": TabularCPD("b", HALF)},
            r"parents of 'b' are \[\] in its .*, but \['a'\] in the gra",
        ),
        ({"a": TabularCPD("b", HALF)}, r"cpds\['a'\] is that of 'b'"),
        (
            {
                "a": TabularCPD("a", HALF, states={"a": ["x", "y"]}),
                "b": TabularCPD("b", ROWS, ["a"], {"a": ["y", "x"]}),
            },
            r"states of 'a' are \['y', 'x'\] in the distribution of 'b', but \['x', 'y'\] in its",
        ),
        (
            [TabularCPD("a", HALF), TabularCPD("a", HALF)],
            "two distributions of one node",
        ),
    ],
)
def test_distributions_that_do_not_fit_are_refused(cpds, message):
    with pytest.raises(ValueError, match=message):
        BayesianNetwork([("a", "b")], cpds)


def test_distributions_alone_must_name_their_parents_and_run_down():
    with pytest.raises(ValueError, match="table of 'b' is an array, which does not name its par"):
        BayesianNetwork(cpds={"b": HALF})
    circle = [TabularCPD("b", ROWS, ["a"]), TabularCPD("a", ROWS, ["b"])]
    with pytest.raises(ValueError, match="in a circle"):
        BayesianNetwork(cpds=circle)
    with pytest.raises(ValueError, match="cpds is empty"):
        BayesianNetwork(cpds={})


def test_states_that_are_none_are_refused(rows):
    for states, message in (
        ({"lung": "yes"}, r"states\['lung'\] is 'yes'; expected a sequence"),
        ({"lung": ["yes", "yes"]}, "expected each state once"),
        ({"lung": []}, "expected each state once"),
        ({"lung": 0}, "expected each state once"),
        ({"lung": 2.0}, "expected a sequence of states, or how many"),
        ({"lung": {"yes", "no"}}, "expected a sequence of states"),
        ({"lung": ["yes", None]}, "None and NaN are no states"),
        ({"lung": ["yes", pd.NA]}, "None and NaN are no states"),
        ({"lung": [["no"], ["yes"]]}, "expected names of states, such as text"),
        ({"lung": ["yes", "maybe"]}, "column 'lung' has the value 'no', which is none of its sta"),
        ({"ling": ["yes", "no"]}, r"states has \['ling'\], which are no nodes of the graph"),
    ):
        with pytest.raises(ValueError, match=message):
            BayesianNetwork(EDGES, states=states).fit(rows)
    for given, error, message in (
        ("ny", TypeError, r"states is 'ny'; expected a dict from node to its states"),
        ([True, 1, 0], TypeError, r"states is \[True, 1, 0\]; expected a dict"),
        ({"lung": [True, 1, 0]}, ValueError, "expected each state once"),
        ({"ling": 2}, ValueError, r"states has \['ling'\], which are no nodes"),
    ):
        with pytest.raises(error, match=message):  # before any fit
            BayesianNetwork(EDGES, states=given)
    with pytest.raises(ValueError, match=r"states has \['c'\], which are no nodes"):
        BayesianNetwork([("a", "b")], {"a": HALF, "b": ROWS}, states={"c": 2})


def test_a_network_without_all_its_distributions_is_not_fitted(tmp_path):
    for model in (BayesianNetwork(EDGES), BayesianNetwork([("a", "b")], {"a": HALF})):
        for call in (
            lambda m: m.query("a"),
            lambda m: m.map_query(),
            lambda m: m.probability({}),
            lambda m: m.mutual_information("a", "b"),
            lambda m: m.sample(3),
            lambda m: m.log_prob(pd.DataFrame({"a": [0]})),
            lambda m: m.predict_proba(pd.DataFrame({"a": [0]})),
            lambda m: m.impute(pd.DataFrame({"a": [0]})),
            lambda m: m.graph_,
            lambda m: m.states_,
            lambda m: m.cpds_,
            lambda m: m.posterior_,
            lambda m: m.save(tmp_path / "model"),
        ):
            with pytest.raises(NotFittedError):
                call(model)


# -- fits ------------------------------------------------------------------------------------------


def gap(frame):
    return frame.mask(np.eye(len(frame), frame.shape[1], dtype=bool))


@pytest.mark.parametrize(
    ("settings", "table", "error", "message"),
    [
        ({}, lambda f: f.drop(columns="lung"), ValueError, "no column 'lung'.*declare its states"),
        ({}, lambda f: f.assign(zz="a"), ValueError, r"columns \['zz'\] that are no nodes"),
        ({}, lambda f: f.assign(lung=None), ValueError, "column 'lung' is all NaN"),
        ({}, lambda f: f.iloc[:0], ValueError, r"0 sample\(s\)"),
        ({}, lambda f: f.iloc[:1].assign(xray=1.5), ValueError, "n_samples=1, but"),
        ({}, lambda f: dict(f), TypeError, "X is a dict; give a DataFrame"),
        ({}, lambda f: pl.LazyFrame({"lung": ["yes"]}), TypeError, r"LazyFrame.*X.collect\(\)"),
        ({}, lambda f: pd.concat([f, f[["lung"]]], axis=1), ValueError, "'lung' twice"),
        ({}, lambda f: f.astype(str).to_numpy(), ValueError, "give a DataFrame"),
        ({}, lambda f: f.astype(str).to_numpy().tolist(), ValueError, "give a DataFrame, whose"),
        ({}, lambda f: f.astype(str).to_numpy(object), ValueError, "give a DataFrame, whose"),
        ({}, lambda f: np.zeros((9, 3)), ValueError, "array of 3 columns, and the graph has 8 no"),
        ({"prior": "x"}, None, ValueError, "prior is 'x'; expected None, 'bdeu', 'k2'"),
        ({"prior": 0.0}, None, ValueError, "prior is 0.0.*positive number"),
        ({"prior": -1}, None, ValueError, "prior is -1"),
        ({"prior": np.nan}, None, ValueError, "prior is nan"),
        ({"prior": np.inf}, None, ValueError, "prior is inf"),
        ({"prior": True}, None, ValueError, "prior is True"),
        ({"target": "x"}, None, ValueError, "target is 'x', no node; expected a node with states"),
        ({"inference": "mle"}, None, ValueError, r"BayesianNetwork: .*'mle'.*of 'em', "),
        ({"inference": EM(engine="jax")}, None, ValueError, "engine is 'jax'; networks have"),
        ({"inference": EM(tol=-1.0)}, None, ValueError, "tol is -1"),
        ({"inference": "conjugate"}, gap, ValueError, "'asia' is missing.*complete rows only"),
        ({"inference": Conjugate(draws=0)}, None, ValueError, "draws is 0"),
        ({"dtype": "int"}, None, ValueError, "dtype is 'int'"),
    ],
)
def test_fits_that_cannot_be_are_refused_and_leave_the_last_one(
    rows, settings, table, error, message
):
    model = BayesianNetwork(EDGES, prior=1.0).fit(rows)
    before = model.query(["lung", "dysp"])
    names = set(vars(model))
    model.set_params(**settings)
    with pytest.raises(error, match=message):
        model.fit(rows if table is None else table(rows))
    assert set(vars(model)) == names
    pd.testing.assert_series_equal(model.query(["lung", "dysp"]), before)
    assert model.sample(2).shape == (2, 8)
    assert np.isfinite(model.log_prob(rows)).all()


def test_weights_are_for_em(rows):
    model = BayesianNetwork(EDGES, inference="conjugate", random_state=0).fit(rows)
    before = model.query("lung")
    with pytest.raises(ValueError, match="sample_weight is for EM"):
        model.fit(rows, sample_weight=np.ones(60))
    pd.testing.assert_series_equal(model.query("lung"), before)
    with pytest.raises(ValueError, match="sample_weight"):
        BayesianNetwork(EDGES).fit(rows, sample_weight=-np.ones(60))


def test_a_target_need_not_be_named_by_text(rows):
    x = pd.DataFrame({1: rows["lung"], 2: rows["xray"]})
    model = BayesianNetwork([(("a", 0), 1), (("a", 0), 2)], target=("a", 0), prior=1.0)
    model.fit(x, rows["smoke"])
    assert model.states_[("a", 0)] == ("no", "yes")
    assert list(x.columns) == [1, 2]
    assert set(model.predict(x)) <= {"yes", "no"}


def test_y_is_refused_where_it_means_nothing(rows):
    x, y = rows.drop(columns="lung"), rows["lung"]
    model = BayesianNetwork(EDGES, target="lung")
    with pytest.raises(ValueError, match="'lung' is a column of X, and y is given too"):
        model.fit(rows, y)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[60, 20\]"):
        model.fit(x, y.iloc[:20])
    with pytest.raises(TypeError, match=r"y holds the states of 'lung'.*give a DataFrame"):
        model.fit(np.zeros((60, 7)), y)
    with pytest.raises(ValueError, match="X has no column 'lung'"):
        BayesianNetwork(EDGES).fit(x, y)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        model.fit(x, np.linspace(0.0, 1.0, 60))
    with pytest.raises(ValueError, match=r"target is 'lung', a column of numbers.*states="):
        model.fit(x.assign(lung=np.arange(60.0)))


@pytest.mark.parametrize("kind", ["int64", "Int64", "uint8", "object"])
def test_whole_numbers_that_may_be_codes_are_warned_of_once(kind):
    frame = pd.DataFrame({"a": [0, 1, 2] * 4, "b": [1, 0, 0, 1] * 3, "c": np.arange(12)})
    frame = frame.astype(kind)
    edges = [("a", "b"), ("b", "c")]
    shown = r"columns \['a', 'b'\] hold a few .*states=\{'a': \[0, 1, 2\]\}.*X.astype\(float\)"
    with pytest.warns(UserWarning, match=shown) as found:
        BayesianNetwork(edges).fit(frame)
    assert len(found) == 1
    assert found[0].filename == __file__
    # What is said to be one or the other is not (and warnings are errors here).
    BayesianNetwork(edges).fit(frame.astype(float))
    BayesianNetwork(edges, states={"a": 3, "b": 2}).fit(frame)
    BayesianNetwork(edges[1:], {"b": LinearGaussianCPD("b", 0.0, [], 1.0)}).fit(frame[["b", "c"]])
    BayesianNetwork([("a", "c")], target="a").fit(frame[["c"]], np.asarray(frame["a"], int))


def test_there_must_be_a_graph(rows):
    with pytest.raises(ValueError, match=r"there is no graph; give a networkx.DiGraph"):
        BayesianNetwork().fit(rows)


# -- questions -------------------------------------------------------------------------------------


LISTED = r"there is no node 'cough'; the nodes are \['asia', 'tub',"
STATES = r"'lung' has no state 'maybe'; its states are \['yes', 'no'\]"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.query("cough"), LISTED),
        (lambda m: m.query(["lung", "cough"]), LISTED),
        (lambda m: m.query("xray", {"cough": "yes"}), LISTED),
        (lambda m: m.query("xray", None, {"cough": [1, 2]}), LISTED),
        (lambda m: m.query("cough", method="gibbs"), LISTED),
        (lambda m: m.probability({"cough": "yes"}), LISTED),
        (lambda m: m.map_query(["cough"]), LISTED),
        (lambda m: m.map_query(evidence={"cough": "yes"}), LISTED),
        (lambda m: m.mutual_information("lung", "cough"), LISTED),
        (lambda m: m.mutual_information("lung", "xray", given="cough"), LISTED),
        (lambda m: m.predict_proba(pd.DataFrame({"lung": ["yes"]}), "cough"), LISTED),
        (lambda m: m.predict(pd.DataFrame({"lung": ["yes"]}), ["xray", "cough"]), LISTED),
        (lambda m: m.query([["lung"]]), r"there is no node \['lung'\]"),
        (lambda m: m.query("xray", {"lung": "maybe"}), STATES),
        (lambda m: m.query("xray", {"lung": None}), "'lung' has no state None; .* leave a node"),
        (lambda m: m.query("xray", {"lung": np.nan}), "'lung' has no state nan; .* leave a node"),
        (lambda m: m.query("xray", {"lung": pd.NA}), "'lung' has no state <NA>; .* leave a node"),
        (lambda m: m.query("xray", {"lung": np.array(["yes", "no"])}), "has no state array"),
        (lambda m: m.query(pd.NA), "there is no node <NA>"),
        (lambda m: m.predict(pd.DataFrame({"xray": ["yes"]}), ["lung", "lung"]), "each once"),
        (lambda m: m.predict(pd.DataFrame({"xray": ["yes"]}), []), "at least one"),
        (lambda m: m.query("xray", {"lung": ["yes"]}), r"'lung' has no state \['yes'\]"),
        (lambda m: m.query("xray", None, {"lung": {"yes": 1, "maybe": 2}}), STATES),
        (lambda m: m.probability({"lung": "maybe"}), STATES),
        (lambda m: m.map_query(["xray"], {"lung": "maybe"}), STATES),
        (lambda m: m.mutual_information("xray", "tub", {"lung": "maybe"}), STATES),
        (lambda m: m.log_prob(pd.DataFrame({"lung": ["maybe"]})), "'lung' has category 'maybe'"),
        (
            lambda m: m.predict_proba(pd.DataFrame({"lung": ["maybe"]}), "xray"),
            "'lung' has category 'maybe'.*known are 'yes', 'no'",
        ),
        (lambda m: m.impute(pd.DataFrame({"lung": ["maybe"]})), "'lung' has category 'maybe'"),
        (lambda m: m.log_prob(pd.DataFrame({"cough": ["yes"]})), "'cough', which is no node"),
        (lambda m: m.impute(pd.DataFrame({"cough": ["yes"]})), "'cough', which is no node"),
        (
            lambda m: m.log_prob(pd.DataFrame([["yes", "no"]], columns=["lung", "lung"])),
            "'lung' twice",
        ),
        (lambda m: m.log_prob(np.zeros((2, 8))), "column 'asia' has the value 0.0; its states"),
        (lambda m: m.query([]), r"nodes is \[\]; expected at least one"),
        (lambda m: m.query(["lung", "lung"]), "each once"),
        (lambda m: m.mutual_information("lung", "lung"), "in common"),
        (lambda m: m.query("lung", {"lung": "yes"}), "'lung' is asked for, and has evidence"),
        (lambda m: m.map_query(["lung"], {"lung": "yes"}), "'lung' has evidence; leave it out"),
        (
            lambda m: m.mutual_information("lung", "xray", {"lung": "yes"}),
            "'lung' is asked for, and has evidence",
        ),
        (lambda m: m.query("lung", None, {"xray": [1, 2, 3]}), "expected 2 likelihoods"),
        (lambda m: m.query("lung", None, {"xray": [1, -2]}), "at least 0 and not all 0"),
        (lambda m: m.query("lung", None, {"xray": [0, 0]}), "at least 0 and not all 0"),
        (lambda m: m.query("lung", None, {"xray": [np.nan, 1]}), "expected 2 likelihoods"),
        (lambda m: m.query("lung", None, {"xray": [np.inf, 1]}), "expected 2 likelihoods"),
        (lambda m: m.query("lung", None, {"xray": "yes"}), "expected 2 likelihoods"),
        (lambda m: m.query("lung", None, {"xray": 0.5}), "expected 2 likelihoods"),
        (lambda m: m.query("lung", None, {"xray": {"yes": 1}}), r"lacks its states \['no'\]"),
        (lambda m: m.query("lung", interval=0.9), "parameters are a point estimate; fit by 'conj"),
        (lambda m: m.query("lung", method="bp"), "method is 'bp'; expected 'exact', 'likelihood_"),
        (
            lambda m: m.query("lung", method="gibbs", n_samples=0),
            "n_samples is 0; expected a whole number",
        ),
        (lambda m: m.sample(0), "n_samples is 0; expected a whole number, at least 1"),
        (lambda m: m.sample(2.5), "n_samples is 2.5"),
        (lambda m: m.impute(pd.DataFrame({"lung": ["yes"]}), n_draws=0), "n_draws is 0"),
        (
            lambda m: m.predict_proba(pd.DataFrame({"lung": ["yes"]})),
            r"nodes \['asia', .* could be meant; say which is asked for by node=, or set target",
        ),
        (lambda m: m.predict(m.sample(2)), "X has all nodes with states; say which .* by nodes="),
    ],
)
def test_questions_that_mean_nothing_are_refused(asia, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(asia)


@pytest.mark.parametrize("evidence", ["lung", ["lung"], [("lung", "yes")], 3])
def test_evidence_is_a_mapping(asia, evidence):
    with pytest.raises(TypeError, match=r"evidence is a .*; expected a dict from node to state"):
        asia.query("xray", evidence)
    with pytest.raises(TypeError, match=r"soft_evidence is a .*; expected a dict from node to the"):
        asia.query("xray", None, evidence)
    with pytest.raises(TypeError, match=r"assignments is a .*; expected a dict from node to state"):
        asia.do(evidence)


def test_files_have_paths(asia):
    with pytest.raises(TypeError, match="path is a NoneType; expected a path or an open"):
        asia.to_bif(None)
    with pytest.raises(TypeError, match="source is a NoneType; expected a path, an open file"):
        BayesianNetwork.from_bif(None)


def test_text_in_an_array_needs_names(asia):
    with pytest.raises(TypeError, match="expected a DataFrame with nodes as columns"):
        asia.log_prob(np.array([["yes"] * 8]))
    with pytest.raises(TypeError, match=r"shape \(2, 3\)"):
        asia.log_prob(np.zeros((2, 3)))
    for ask in (asia.log_prob, asia.predict, asia.predict_proba, asia.impute):
        with pytest.raises(TypeError, match="X is a dict; give a DataFrame"):
            ask({"lung": ["yes"]})
        with pytest.raises(TypeError, match=r"LazyFrame.*give X.collect\(\)"):
            ask(pl.LazyFrame({"lung": ["yes"]}))


def test_intervals_are_shares_of_exact_answers(rows):
    model = BayesianNetwork(EDGES, inference=Conjugate(draws=20), random_state=0).fit(rows)
    for interval in (0.0, 1.0, 90, -0.5):
        with pytest.raises(ValueError, match="expected a share within"):
            model.query("lung", interval=interval)
    with pytest.raises(ValueError, match="method='gibbs' does not give"):
        model.query("lung", interval=0.9, method="gibbs")


IMPOSSIBLE = {"tub": "yes", "either": "no"}


@pytest.mark.parametrize("method", ["exact", "likelihood_weighting", "gibbs"])
@pytest.mark.parametrize("node", ["dysp", "smoke", "asia"])
def test_evidence_of_probability_zero_is_refused(asia, node, method):
    for _ in range(2):  # a question asked again has a plan of its own
        with pytest.raises(ValueError, match="probability zero"):
            asia.query(node, IMPOSSIBLE, method=method, n_samples=500, random_state=0)


def test_evidence_of_probability_zero_is_refused_elsewhere(asia):
    shown = r"the evidence \{'tub': 'yes', 'either': 'no'\} has probability zero.*prior='bdeu'"
    for call in (
        lambda: asia.map_query(["asia"], IMPOSSIBLE),
        lambda: asia.map_query(evidence=IMPOSSIBLE),
        lambda: asia.mutual_information("asia", "xray", IMPOSSIBLE),
    ):
        with pytest.raises(ValueError, match=shown):
            call()
    with pytest.raises(ValueError, match="probability zero"):
        asia.map_query(evidence=dict.fromkeys(NODES, "no") | IMPOSSIBLE)
    with pytest.raises(ValueError, match="probability zero"):
        asia.query("asia", {"tub": "yes"}, {"either": [0.0, 1.0]})
    assert asia.probability(IMPOSSIBLE) == 0.0


# -- past the bound --------------------------------------------------------------------------------


def grid(side, **settings):
    """A grid of noisy copies, whose width is its side."""
    rng = np.random.default_rng(0)
    cpds = {}
    for i in range(side):
        for j in range(side):
            parents = [f"{a},{b}" for a, b in ((i - 1, j), (i, j - 1)) if min(a, b) >= 0]
            p = rng.uniform(0.2, 0.8, size=(2,) * len(parents))
            cpds[f"{i},{j}"] = TabularCPD(f"{i},{j}", np.stack([p, 1.0 - p], axis=-1), parents)
    return BayesianNetwork(cpds=cpds, **settings)


def test_questions_past_the_bound_are_refused_with_the_figures_and_the_ways_out():
    side = 6
    small = grid(side, max_cells=32)
    corner, evidence = f"{side - 1},{side - 1}", {"0,0": 1}
    figures = (
        r"needs a table of [\d,]+ cells \([\d.]+ GiB, over \d+ nodes\), past the bound "
        r"max_cells=32; .*'likelihood_weighting' or 'gibbs'.*max_cells"
    )
    exact = grid(side).query(corner, evidence)
    table = pd.DataFrame({"0,0": [1, 0]})
    for ask in (
        lambda: small.query(corner, evidence),
        lambda: small.map_query([corner], evidence),
        lambda: small.map_query(evidence=evidence),
        lambda: small.predict_proba(table, corner),
        lambda: small.impute(table.assign(**{corner: [None, None]})),
    ):
        with pytest.raises(ValueError, match=figures):
            ask()
    # What is small enough is answered all the same, and draws are always to be had.
    np.testing.assert_allclose(
        small.query("0,1", evidence), grid(side).query("0,1", evidence), rtol=1e-12
    )
    for method in ("likelihood_weighting", "gibbs"):
        found = small.query(corner, evidence, method=method, n_samples=8000, random_state=0)
        error = np.array(found.attrs["standard_error"])
        assert (abs(found - exact) < 4.0 * error).all()
        assert found.attrs["ess"] > 100.0
    assert small.sample(5, random_state=0).shape == (5, side * side)
    raised = small.set_params(max_cells=2**20)
    np.testing.assert_allclose(raised.query(corner, evidence), exact, rtol=1e-12)
    with pytest.raises(ValueError, match="max_cells=16"):
        raised.set_params(max_cells=16).query(corner, evidence)


def test_a_joint_of_many_targets_is_refused():
    model = BayesianNetwork(cpds=[TabularCPD(v, HALF) for v in range(40)])
    with pytest.raises(ValueError, match=r"1,099,511,627,776 cells \(8,192.0 GiB"):
        model.query(range(40))


def test_tables_past_the_bound_are_refused_before_they_are_made():
    parents = [f"p{i}" for i in range(30)]
    frame = pd.DataFrame({name: [0, 1, 0, 1] for name in [*parents, "child"]})
    model = BayesianNetwork(
        [(parent, "child") for parent in parents], states=dict.fromkeys([*parents, "child"], 2)
    )
    with pytest.raises(
        ValueError, match=r"'child' given its 30 parents .* 2,147,483,648 cells \(16.0 GiB\)"
    ):
        model.fit(frame)


def test_twenty_parents_are_within_the_bound_and_past_a_smaller_one():
    parents = [f"p{i}" for i in range(12)]
    nodes = [*parents, "child"]
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 2, (200, 13)), columns=nodes)
    edges, states = [(parent, "child") for parent in parents], dict.fromkeys(nodes, 2)
    model = BayesianNetwork(edges, states=states).fit(frame)
    assert model.query("child").sum() == pytest.approx(1.0, abs=1e-12)
    with pytest.raises(ValueError, match=r"8,192 cells .* past the bound max_cells=8,000"):
        BayesianNetwork(edges, states=states, max_cells=8000).fit(frame)


def test_few_draws_and_moves_that_cannot_join_are_warned_of(asia):
    with pytest.warns(RuntimeWarning, match="effective draws of 50; raise n_samples"):
        asia.query("lung", {"asia": "yes"}, method="likelihood_weighting", n_samples=50)
    with pytest.warns(RuntimeWarning, match=r"exclude each other, so that moves of one node"):
        asia.query("bronc", method="gibbs", n_samples=4000, random_state=0)
