"""Learners of graphs: what they find, what they refuse, and how sure they are."""

import itertools

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from structure_cases import sample_network

from ppl_gen import (
    BayesianNetwork,
    BDeu,
    ChowLiu,
    ExactSearch,
    HillClimb,
    TreeAugmented,
    averaged_network,
    edge_confidence,
    load,
)
from ppl_gen.algorithms.networks import structure_scores
from ppl_gen.algorithms.networks.structure_scores import LocalScores
from ppl_gen.algorithms.networks.structure_search import parents_of
from ppl_gen.models.bayesian_network.confidence import significance_threshold
from ppl_gen.models.bayesian_network.limits import edge_array

LEARNERS = [ChowLiu(), TreeAugmented("c"), HillClimb(random_state=0), ExactSearch()]


@pytest.fixture(scope="module")
def frame():
    """Codes with a -> c <- b, c -> d, and e by itself; states are words."""
    rng = np.random.default_rng(0)
    n = 2_000
    a, b, e = rng.integers(0, 2, (3, n))
    c = np.where(rng.random(n) < 0.9, a + b, rng.integers(0, 3, n))
    d = np.where(rng.random(n) < 0.8, c > 0, rng.integers(0, 2, n))
    table = pd.DataFrame({"a": a, "b": b, "c": c, "d": d, "e": e})
    return table.map(lambda code: ("none", "some", "many")[code])


@pytest.fixture(scope="module")
def numbers():
    """Numbers with a chain, and a class with two states that moves the first."""
    rng = np.random.default_rng(1)
    sex = rng.choice(["f", "m"], 500)
    x = np.where(sex == "m", 2.0, 0.0) + rng.normal(size=500)
    y = 3.0 * x + rng.normal(size=500)
    z = 100.0 - 5.0 * y + rng.normal(size=500) * 20.0
    return pd.DataFrame({"sex": sex, "x": x, "y": y, "z": z})


def seeded(learner):
    """Give a search that draws a seed of its own."""
    return learner.set_params(random_state=0) if isinstance(learner, HillClimb) else learner


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: type(learner).__name__)
def test_every_learner_gives_a_graph_of_the_columns(frame, learner):
    settings = learner.get_params()
    graph = learner.learn(frame)
    assert isinstance(graph, nx.DiGraph)
    assert list(graph.nodes) == list(frame.columns)
    assert nx.is_directed_acyclic_graph(graph)
    assert graph.graph["score"] < 0.0
    assert learner.get_params() == settings
    again = clone(learner).learn(frame)
    assert list(again.edges) == list(graph.edges)
    assert learner.learn(frame.sample(frac=1.0, random_state=0)).edges == graph.edges


@pytest.mark.parametrize("score", ["bic", "BDeu", "k2", "aic", BDeu(1.0)])
@pytest.mark.parametrize("kind", [HillClimb, ExactSearch])
def test_searches_find_the_collider(frame, kind, score):
    graph = seeded(kind(score, max_parents=3)).learn(frame)
    # Other edges are there by chance: AIC lets one in six through (chi-square of 1 above 2).
    assert set(graph.edges) >= {("a", "c"), ("b", "c"), ("c", "d")}
    if score == "bic":
        assert len(graph.edges) == 3


def test_hill_climbing_tells_its_history(frame):
    graph = HillClimb("bdeu", random_state=0).learn(frame)
    assert max(graph.graph["history"]) == graph.graph["score"]
    assert len(graph.graph["history"]) > len(graph.edges)
    assert graph.graph["score"] <= ExactSearch("bdeu").learn(frame).graph["score"] + 1e-6


def test_one_seed_gives_the_same_graph_again(frame):
    first, again = (HillClimb(random_state=3, restarts=5).learn(frame) for _ in range(2))
    assert first.graph == again.graph
    values = frame.apply(lambda column: column.astype("category").cat.codes).to_numpy(float)
    arguments = values, list(frame.columns), [2, 2, 3, 2, 2], None
    own, given = (
        HillClimb(random_state=seed).learn_codes(*arguments, np.random.default_rng(9))
        for seed in (0, None)
    )
    also = HillClimb(random_state=0).learn_codes(*arguments)
    assert own.graph == also.graph
    assert given.graph["score"] == own.graph["score"]


def test_settings_are_followed(frame):
    names = list(frame.columns)
    for kind in HillClimb, ExactSearch:
        free = seeded(kind()).learn(frame)
        learner = kind(
            max_parents=1,
            required=[("d", "e")],
            forbidden=nx.DiGraph([("a", "c")]),
            tiers=[["c"], ["a", "b"], names[3:]],
        )
        graph = seeded(learner).learn(frame)
        assert graph.has_edge("d", "e")
        assert not graph.has_edge("a", "c")
        assert max(dict(graph.in_degree).values()) == 1
        assert graph.has_edge("c", "a")
        assert graph.graph["score"] < free.graph["score"]


def test_columns_in_no_tier_are_free(frame):
    graph = ExactSearch(tiers=[["d"], ["c"]]).learn(frame)
    assert graph.has_edge("d", "c")
    assert set(graph.edges) & {("a", "c"), ("c", "a")}


def test_a_climb_may_start_anywhere(frame):
    start = nx.DiGraph([("e", "a"), ("d", "b")])
    graph = HillClimb(start=start, random_state=0).learn(frame)
    assert set(graph.edges) == {("a", "c"), ("b", "c"), ("c", "d")}
    short = HillClimb(tabu=0, restarts=0, start=[("a", "c"), ("b", "c"), ("c", "d")]).learn(frame)
    assert "history" not in short.graph  # nothing to climb
    assert len(short.edges) == 3


def test_chow_liu_has_its_root(frame):
    for root in frame.columns:
        graph = ChowLiu(root=root).learn(frame)
        assert nx.is_arborescence(graph)
        assert graph.in_degree(root) == 0
    default = ChowLiu().learn(frame)
    assert default.in_degree("c") == 0  # which shares most
    assert {frozenset(edge) for edge in default.edges} >= {frozenset("ac"), frozenset("cd")}
    scores = [ChowLiu(root=root).learn(frame).graph["score"] for root in "ae"]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-12)
    for u, v, shared in default.edges(data="mutual_information"):
        table = pd.crosstab(frame[u], frame[v], normalize=True).to_numpy()
        outer = table.sum(axis=1, keepdims=True) * table.sum(axis=0)
        expected = (table[table > 0] * np.log((table / outer)[table > 0])).sum()
        np.testing.assert_allclose(shared, expected, rtol=1e-8, atol=1e-12)


def test_chow_liu_of_numbers(numbers):
    graph = ChowLiu(root="x").learn(numbers[["z", "y", "x"]])
    assert set(graph.edges) == {("x", "y"), ("y", "z")}
    rho = numbers["x"].corr(numbers["y"])
    shared = graph.edges["x", "y"]["mutual_information"]
    np.testing.assert_allclose(shared, -0.5 * np.log(1.0 - rho**2), rtol=1e-6)


def test_tree_augmented(frame, numbers):
    graph = TreeAugmented("c").learn(frame)
    assert set(graph.successors("c")) == {"a", "b", "d", "e"}
    rest = graph.subgraph(["a", "b", "d", "e"])
    assert nx.is_arborescence(rest)
    assert all(data["mutual_information"] >= 0.0 for *_, data in graph.edges(data=True))
    graph = TreeAugmented("sex").learn(numbers)
    assert {frozenset(edge) for edge in graph.edges if "sex" not in edge} == {
        frozenset("xy"),
        frozenset("yz"),
    }
    values = np.column_stack([np.arange(20) % 2, np.arange(20) % 3, np.arange(20) % 5]).astype(
        float
    )
    graph = TreeAugmented().learn_codes(values, list("yab"), [2, 3, 5], target="y")
    assert set(graph.successors("y")) == {"a", "b"}


def test_mixed_columns_are_searched_without_edges_from_numbers_to_categories(numbers):
    for learner in HillClimb(random_state=0), ExactSearch():
        graph = learner.learn(numbers)
        assert graph.in_degree("sex") == 0
        assert {frozenset(edge) for edge in graph.edges} == {
            frozenset(("sex", "x")),
            frozenset("xy"),
            frozenset("yz"),
        }


def test_states_make_numbers_discrete(frame):
    codes = frame.apply(lambda column: column.astype("category").cat.codes)
    states = {"a": 2, "b": [0, 1], "c": range(3), "d": 2, "e": 2}
    graph = HillClimb("bdeu", random_state=0).learn(codes, states)
    assert set(graph.edges) == set(HillClimb("bdeu", random_state=0).learn(frame).edges)
    more = HillClimb("bdeu", random_state=0).learn(codes, states | {"c": 7})
    assert more.graph["score"] != graph.graph["score"]
    with pytest.raises(ValueError, match=r"HillClimb.learn: BDeu is a score for counts, and 'a'"):
        HillClimb("bdeu").learn(codes)


def test_polars_and_booleans(frame):
    polars = pytest.importorskip("polars")
    table = frame.assign(a=frame["a"] == "none")
    graph = HillClimb(random_state=0).learn(polars.DataFrame(table.to_dict("list")))
    assert graph.edges == HillClimb(random_state=0).learn(table).edges


def test_odd_names():
    rng = np.random.default_rng(4)
    a = rng.integers(0, 2, 300)
    table = pd.DataFrame({0: a, ("x", 1): a, "π with space": rng.integers(0, 2, 300)})
    table = table.astype("category")
    graph = ChowLiu().learn(table)
    assert list(graph.nodes) == [0, ("x", 1), "π with space"]
    graph = HillClimb(required=[(0, ("x", 1))], random_state=0).learn(table)
    assert graph.has_edge(0, ("x", 1))


def test_a_constant_column_shares_nothing(frame):
    table = frame.assign(e="none")
    for learner in HillClimb(random_state=0), HillClimb("bdeu", random_state=0), ExactSearch():
        assert learner.learn(table).degree("e") == 0
    shared = nx.get_edge_attributes(ChowLiu().learn(table), "mutual_information")
    assert [value for edge, value in shared.items() if "e" in edge] == pytest.approx([0.0])


def test_weights_count_rows(frame):
    values = frame.apply(lambda column: column.astype("category").cat.codes).to_numpy(float)
    weights = np.random.default_rng(5).integers(0, 3, len(values)).astype(float)
    names, sizes = list(frame.columns), [2, 2, 3, 2, 2]
    for learner in LEARNERS:
        weighted = learner.learn_codes(values, names, sizes, weights)
        repeated = learner.learn_codes(np.repeat(values, weights.astype(int), axis=0), names, sizes)
        assert weighted.edges == repeated.edges
        np.testing.assert_allclose(weighted.graph["score"], repeated.graph["score"], rtol=1e-10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(score="mdl"), "score is 'mdl'; expected 'bic', 'aic', 'bdeu', 'k2'"),
        (dict(score=BDeu(0.0)), "equivalent_sample_size is 0.0; expected a positive"),
        (dict(score=BDeu("ten")), "equivalent_sample_size is 'ten'"),
        (dict(max_parents=0), "max_parents is 0; expected 1 or more"),
        (dict(max_parents=2.5), "max_parents is 2.5"),
        (dict(required=[("a", "q")]), "required names 'q', which is no column; .*'a', 'b'"),
        (dict(forbidden=[("q", "a")]), "forbidden names 'q'"),
        (dict(required=["ab"]), "required has 'ab'; expected pairs"),
        (dict(required="ab"), "required is 'ab'; expected a list of pairs"),
        (dict(forbidden=None), "forbidden is None; expected a list of pairs"),
        (dict(forbidden=iter([("a", "b")])), "forbidden is <list_iterator"),
        (dict(required=[("a", "b", "c")]), "expected pairs"),
        (dict(required=[("a", "a")]), "from a node to itself"),
        (dict(required=[("a", "b")], forbidden=[("a", "b")]), "'a', 'b'.* is forbidden too"),
        (dict(required=list(itertools.pairwise("abca"))), "in a circle: a -> b -> c -> a"),
        (dict(required=[("a", "b")], tiers=[["b"], ["a"]]), "leads to an earlier tier"),
        (dict(required=[(u, "e") for u in "abc"], max_parents=2), "'e' has 3 required parents"),
        (dict(tiers=[["a", "q"]]), "tiers names 'q'"),
        (dict(tiers=[["a"], ["b", "a"]]), "tiers has 'a' twice"),
        (dict(tiers=["ab"]), "tiers has 'ab'; expected lists of names"),
    ],
)
@pytest.mark.parametrize("kind", [HillClimb, ExactSearch])
def test_settings_that_do_not_fit_are_refused(frame, kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings).learn(frame)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(tabu=-1), "tabu is -1; expected a whole number"),
        (dict(restarts=1.5), "restarts is 1.5"),
        (dict(start=[("a", "q")]), "start names 'q'"),
        (dict(start=nx.path_graph(["a", "b"])), "start is undirected"),
        (dict(start=[("a", "b"), ("b", "a")]), "start, with what is required, goes round"),
        (dict(start=[("a", "b")], required=[("b", "a")]), "in a circle: (a -> b|b -> a)"),
        (dict(start=[("a", "b")], forbidden=[("a", "b")]), "which is not allowed"),
        (dict(start=[("a", "c"), ("b", "c")], max_parents=1), "'c' more than max_parents=1"),
    ],
)
def test_starts_that_do_not_fit_are_refused(frame, settings, message):
    with pytest.raises(ValueError, match=message):
        HillClimb(**settings).learn(frame)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: type(learner).__name__)
def test_tables_that_cannot_be_learned_from_are_refused(frame, learner):
    who = f"{type(learner).__name__}.learn"
    with pytest.raises(TypeError, match=f"{who}: got a ndarray; expected a pandas"):
        learner.learn(np.zeros((3, 3)))
    with pytest.raises(ValueError, match=f"{who}: the table has 1 column"):
        learner.learn(frame[["c"]])
    with pytest.raises(ValueError, match=r"Found array with 0 sample"):
        learner.learn(frame[:0])
    with pytest.raises(ValueError, match=f"{who}: missing values in 'a', 'd'; .*EM"):
        learner.learn(frame.assign(a=frame["a"].where(frame.index > 3), d=[None, *frame["d"][1:]]))
    with pytest.raises(ValueError, match="column 'b' is all NaN"):
        learner.learn(frame.assign(b=np.nan))
    with pytest.raises(ValueError, match="two columns are called 'c'"):
        learner.learn(pd.concat([frame, frame[["c"]]], axis=1))
    with pytest.raises(ValueError, match="states names 'q', which is no column"):
        learner.learn(frame, states={"q": 3})


def test_trees_refuse_what_they_have_no_place_for(frame, numbers):
    with pytest.raises(ValueError, match=r"ChowLiu.learn: root names 'q', which is no column"):
        ChowLiu(root="q").learn(frame)
    with pytest.raises(ValueError, match=r"TreeAugmented.learn: target names 'q'"):
        TreeAugmented("q").learn(frame)
    with pytest.raises(ValueError, match=r"there is no target; .*target='class'"):
        TreeAugmented().learn(frame)
    with pytest.raises(ValueError, match="target 'x' is continuous"):
        TreeAugmented("x").learn(numbers)
    with pytest.raises(ValueError, match=r"'sex' is discrete and '[xyz]' continuous"):
        ChowLiu().learn(numbers)
    with pytest.raises(ValueError, match=r"cut the numbers into classes, or use HillClimb"):
        TreeAugmented("sex").learn(numbers.assign(hand=list("lr") * 250))


def test_numbers_are_no_parents_of_categories(numbers):
    with pytest.raises(ValueError, match=r"\('x', 'sex'\) leads from a number to a category"):
        HillClimb(required=[("x", "sex")]).learn(numbers)
    with pytest.raises(ValueError, match="which is not allowed"):
        HillClimb(start=[("x", "sex")]).learn(numbers)


@pytest.mark.parametrize("kind", [HillClimb, ExactSearch])
def test_regressions_need_rows(kind):
    few = pd.DataFrame(np.random.default_rng(6).normal(size=(6, 8)))
    with pytest.raises(
        ValueError, match=r"6 rows are too few .* up to 7 .* need 10; .*max_parents"
    ):
        kind().learn(few)
    assert np.isfinite(kind(max_parents=2).learn(few).graph["score"])


def test_exact_search_refuses_many_columns():
    table = pd.DataFrame(np.zeros((3, 25), int)).astype("category")
    with pytest.raises(ValueError, match=r"ExactSearch.learn: 25 nodes .* tables; the bounds are"):
        ExactSearch().learn(table)


def test_confidence_is_high_where_edges_are(frame):
    table = edge_confidence(frame, HillClimb(restarts=1), 40, random_state=0)
    assert list(table.columns) == ["source", "target", "strength", "direction"]
    assert len(table) == 20
    found = table.set_index(["source", "target"])
    for edge in [("a", "c"), ("b", "c"), ("c", "d")]:
        assert found.loc[edge, "strength"] == 1.0
        assert found.loc[edge, "direction"] > 0.9
    for edge in itertools.combinations("abcde", 2):
        there, back = found.loc[edge], found.loc[edge[::-1]]
        assert there["strength"] == back["strength"]
        assert there["direction"] + back["direction"] == float(there["strength"] > 0.0)
    graph = averaged_network(table)
    assert set(graph.edges) == {("a", "c"), ("b", "c"), ("c", "d")}
    assert list(graph.nodes) == list("abcde")
    assert graph.edges["a", "c"]["strength"] == 1.0
    again = edge_confidence(frame, HillClimb(restarts=1), 40, random_state=0)
    pd.testing.assert_frame_equal(table, again)


def test_confidence_knows_directions_that_were_given(frame):
    chain = frame[["c", "d"]]
    free = edge_confidence(chain, HillClimb(), 10, random_state=0)
    assert free["direction"].tolist() == [0.5, 0.5]
    for settings in dict(tiers=[["d"], ["c"]]), dict(required=[("d", "c")]):
        known = edge_confidence(chain, HillClimb(**settings), 10, random_state=0)
        assert known["direction"].tolist() == [0.0, 1.0]
    tree = edge_confidence(frame, TreeAugmented("c"), 5, random_state=0)
    assert (tree[tree["source"] == "c"][["strength", "direction"]] == 1.0).all(axis=None)
    assert (edge_confidence(frame, ChowLiu(), 5, random_state=0)["strength"] <= 1.0).all()


def test_confidence_is_that_of_rows_drawn_anew(frame):
    """Weights of the rows give what copies of the rows do."""
    small = frame[:60]
    table = edge_confidence(small, ExactSearch("bdeu"), 300, random_state=0)
    rng, joined = np.random.default_rng(1), {}
    for _ in range(300):
        # States are those of the whole table, whether drawn or not.
        rows = small.astype("category").iloc[rng.integers(0, 60, 60)]
        for edge in ExactSearch("bdeu").learn(rows).edges:
            joined[frozenset(edge)] = joined.get(frozenset(edge), 0.0) + 1.0 / 300.0
    expected = np.array(
        [joined.get(frozenset(e), 0.0) for e in zip(table["source"], table["target"], strict=True)]
    )
    # Two binomial shares of 300: a standard error of at most .041; four of them.
    assert abs(table["strength"] - expected).max() < 0.17


def test_an_interrupted_bootstrap_keeps_its_samples(frame, monkeypatch):
    learn, done = ChowLiu.learn_codes, []

    def interrupted(self, *args, **kwargs):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return learn(self, *args, **kwargs)

    monkeypatch.setattr(ChowLiu, "learn_codes", interrupted)
    with pytest.warns(RuntimeWarning, match="stopped by Ctrl-C after 3 of 50 samples"):
        table = edge_confidence(frame, ChowLiu(), 50, random_state=0)
    assert set((table["strength"] * 3).round(9)) <= {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("n_bootstrap", [0, 2.5, True])
def test_a_number_of_samples_that_is_none_is_refused(frame, n_bootstrap):
    with pytest.raises(ValueError, match=r"n_bootstrap is .*; expected 1 or more"):
        edge_confidence(frame, ChowLiu(), n_bootstrap)


def test_confidence_in_what_is_no_learner_is_refused(frame):
    with pytest.raises(TypeError, match=r"learner is .*HillClimb.*; expected ChowLiu\(\)"):
        edge_confidence(frame, HillClimb)
    with pytest.raises(ValueError, match=r"lacks \['direction', 'strength'\]"):
        averaged_network(pd.DataFrame({"source": ["a"], "target": ["b"]}))


def test_an_averaged_network_has_no_cycle():
    edges = {("a", "b"): 0.9, ("b", "c"): 0.8, ("c", "a"): 0.7}
    rows = [(u, v, s, 1.0) for (u, v), s in edges.items()]
    rows += [(v, u, s, 0.0) for (u, v), s in edges.items()]
    table = pd.DataFrame(rows, columns=["source", "target", "strength", "direction"])
    with pytest.warns(RuntimeWarning, match=r"left out \('c', 'a'\)"):
        graph = averaged_network(table, threshold=0.5)
    assert set(graph.edges) == {("a", "b"), ("b", "c")}
    assert not averaged_network(table, threshold=1.0).edges
    with pytest.raises(ValueError, match="threshold is 2; expected 0 to 1"):
        averaged_network(table, threshold=2)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30))
def test_the_threshold_is_where_the_area_is_least(counts):
    strengths = np.array(counts) / 20.0

    def area(t):
        """Integrate |F(x) - t| over a grid that has every step."""
        x = (np.arange(200) + 0.5) / 200.0
        return abs((strengths <= x[:, None]).mean(axis=1) - t).mean()

    # The area is linear between the heights of the steps.
    heights = np.unique([0.0, *((strengths <= s).mean() for s in strengths)])
    areas = np.array([area(t) for t in heights])
    best = heights[areas <= areas.min() + 1e-12]
    quantiles = np.quantile(strengths, best, method="inverted_cdf")
    assert np.isclose(significance_threshold(strengths), quantiles).any()


def test_the_graph_of_alarm_is_found_but_for_a_few_edges():
    """With 10,000 rows, a graph of no lower score than the one that the rows were drawn from."""
    values, names, states, edges = sample_network("alarm", 10_000, seed=1)
    sizes = [len(states[name]) for name in names]
    graph = HillClimb("bdeu", random_state=0).learn_codes(values, names, sizes, interactive=False)
    drawn_from = edge_array(edges, names, "test", "edges")
    scores = LocalScores(values, sizes, structure_scores.BDeu(10.0))
    assert graph.graph["score"] >= scores.sum(parents_of(drawn_from))
    found, true = ({frozenset(edge) for edge in listed} for listed in (graph.edges, edges))
    assert len(found & true) >= 43  # of 46; 45 with three seeds tried
    assert len(found - true) <= 15


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: type(learner).__name__)
def test_a_network_takes_the_graph_that_is_learned(frame, learner, tmp_path):
    network = BayesianNetwork(learner, random_state=0).fit(frame)
    assert set(network.graph_.edges) == set(learner.learn(frame).edges)
    assert list(network.graph_.nodes) == list(frame.columns)
    network.save(tmp_path / "network")
    again = load(tmp_path / "network")
    assert repr(again.graph) == repr(learner)
    np.testing.assert_allclose(again.log_prob(frame[:50]), network.log_prob(frame[:50]))


def test_a_network_lends_its_target_to_a_learner_without(frame):
    network = BayesianNetwork(TreeAugmented(), target="c").fit(frame)
    assert set(network.graph_.edges) == set(TreeAugmented("c").learn(frame).edges)
    # A guess by the commonest state is right in half of the rows.
    assert (network.predict(frame.drop(columns="c")) == frame["c"]).mean() > 0.8
    with pytest.raises(ValueError, match="there is no target"):
        BayesianNetwork(TreeAugmented()).fit(frame)


def test_settings_of_learners_can_be_searched(frame):
    network = clone(BayesianNetwork(HillClimb("bic")))
    network.set_params(graph__max_parents=1, graph__score=BDeu(1.0))
    network.set_params(graph__score__equivalent_sample_size=2.0)
    assert network.graph.score.equivalent_sample_size == 2.0
    assert max(dict(network.fit(frame).graph_.in_degree).values()) == 1
