"""Searches against networkx, brute force, and scores counted from scratch."""

import functools
import warnings

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structure_cases import (
    all_dags,
    edges_of,
    mixed_rows,
    random_codes,
    random_parents,
    sample_network,
)

from ppl_gen.algorithms.networks.structure_exact import exact_cost, exact_search
from ppl_gen.algorithms.networks.structure_scores import BIC, K2, BDeu, Likelihood, LocalScores
from ppl_gen.algorithms.networks.structure_search import (
    Climber,
    Constraints,
    chow_liu,
    hill_climb,
    mutual_information,
    parents_of,
    tree_augmented,
)

all_dags = functools.cache(all_dags)


def climb(scores, limits=None, start=None, tabu=10, restarts=3, seed=0, interactive=False):
    limits = limits or Constraints.none(scores.n_nodes)
    start = limits.required if start is None else start
    rng = np.random.default_rng(seed)
    return hill_climb(
        scores, limits, start, tabu=tabu, restarts=restarts, rng=rng, interactive=interactive
    )


def scores_of(kind, seed, n_nodes=5, n_rows=60):
    """Score rows that lean on each other, of every kind of column."""
    rng = np.random.default_rng(seed)
    if kind == "gaussian":
        values = rng.normal(size=(n_rows, n_nodes)) @ rng.normal(size=(n_nodes, n_nodes))
        return LocalScores(values, [0] * n_nodes, BIC())
    if kind == "mixed":
        values, sizes = mixed_rows(rng, n_rows)
        values = np.column_stack([values, random_codes(rng, n_rows, [2])])
        return LocalScores(values, [*sizes, 2], BIC())
    sizes = [int(size) for size in rng.integers(2, 4, n_nodes)]
    score = {"bic": BIC(), "bdeu": BDeu(4.0), "k2": K2()}[kind]
    return LocalScores(random_codes(rng, n_rows, sizes), sizes, score)


def kind_limits(scores, limits):
    """Take out the edges from continuous to discrete nodes."""
    sizes = np.array(scores.sizes)
    allowed = limits.allowed & ~((sizes[:, None] == 0) & (sizes > 0))
    return Constraints(allowed, limits.required, limits.max_parents)


def best_by_brute_force(scores, limits):
    """Score every graph within the limits."""
    best = -np.inf
    for parents in all_dags(scores.n_nodes):
        edges = edges_of(parents)
        if (
            (edges <= limits.allowed).all()
            and (edges >= limits.required).all()
            and max(map(len, parents)) <= limits.max_parents
        ):
            best = max(best, scores.sum(parents))
    return best


def some_limits(name, n_nodes=5):
    limits = Constraints.none(n_nodes)
    if name == "parents":
        return Constraints(limits.allowed, limits.required, 1)
    if name == "edges":
        limits.required[[0, 3], [4, 1]] = True
        limits.allowed[[4, 1, 2], [0, 3, 1]] = False
    if name == "tiers":
        tier = np.array([0, 0, 1, 1, 0])
        return Constraints(limits.allowed & (tier[:, None] <= tier), limits.required, 2)
    return limits


@pytest.mark.parametrize("constrained", ["none", "parents", "edges", "tiers"])
@pytest.mark.parametrize("kind", ["bic", "bdeu", "k2", "gaussian", "mixed"])
def test_exact_search_finds_the_best_of_all_graphs(kind, constrained):
    if kind == "mixed" and constrained == "edges":
        pytest.skip("the required edges run from a continuous node to a discrete one")
    scores = scores_of(kind, 1)
    limits = kind_limits(scores, some_limits(constrained))
    found = exact_search(scores, limits, progress=False)
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(found.edges, create_using=nx.DiGraph))
    assert (found.edges <= limits.allowed).all()
    assert (found.edges >= limits.required).all()
    assert found.edges.sum(axis=0).max() <= limits.max_parents
    # The same numbers in another order of summation.
    best = best_by_brute_force(scores, limits)
    np.testing.assert_allclose(found.score, best, rtol=1e-10)
    np.testing.assert_allclose(scores.sum(parents_of(found.edges)), found.score, rtol=1e-12)


def test_exact_search_takes_weights():
    rng = np.random.default_rng(2)
    values, weights = random_codes(rng, 80, [2, 3, 2, 2]), rng.uniform(0.0, 2.0, 80)
    scores = LocalScores(values, [2, 3, 2, 2], BDeu(2.0), weights)
    limits = Constraints.none(4)
    found = exact_search(scores, limits, progress=False)
    np.testing.assert_allclose(found.score, best_by_brute_force(scores, limits), rtol=1e-10)


def test_exact_search_counts_many_configurations():
    """Beyond as many configurations as rows, codes are those of the configurations seen."""
    rng = np.random.default_rng(3)
    sizes = [5, 4, 6, 3, 4, 5, 2]
    scores = LocalScores(random_codes(rng, 300, sizes), sizes, BDeu(1.0))
    found = exact_search(scores, Constraints.none(7), progress=False)
    np.testing.assert_allclose(scores.sum(parents_of(found.edges)), found.score, rtol=1e-12)
    assert climb(scores, restarts=20).score <= found.score + 1e-8 * abs(found.score)


def test_exact_search_tells_its_cost_and_refuses():
    scores = LocalScores(np.zeros((1, 24)), [2] * 24, BIC())
    assert exact_cost(scores, 23) == (8 * 24 * 2**23, 2**24)
    with pytest.raises(ValueError, match=r"24 nodes .* 1,536 MiB and 16,777,216 tables; .* 512"):
        exact_search(scores, Constraints.none(24))
    few = LocalScores(np.zeros((1, 21)), [2] * 21, BIC())
    assert exact_cost(few, 2)[1] == 1 + 21 + 210 + 1330
    with pytest.raises(ValueError, match="set max_parents lower"):
        exact_search(few, Constraints.none(21))


@given(st.integers(0, 10_000))
@settings(max_examples=30)
@pytest.mark.parametrize("kind", ["bic", "k2", "gaussian", "mixed"])
def test_every_move_gains_what_was_said(kind, seed):
    """After each of some random moves: score, reach and gains as if worked out anew."""
    scores = scores_of(kind, 4)
    rng = np.random.default_rng(seed)
    limits = kind_limits(scores, Constraints.none(5))
    limits = Constraints(limits.allowed, limits.required, int(rng.integers(1, 5)))
    climber = Climber(scores, limits, limits.required, rng)
    for _ in range(12):
        toggle, turn = climber.moves()
        before, graph = climber.score, nx.from_numpy_array(climber.edges, create_using=nx.DiGraph)
        for i in range(5):
            for j in range(5):
                legal = is_legal(graph, i, j, limits)
                assert np.isfinite([toggle[i, j], turn[i, j]]).tolist() == legal
        legal_moves = np.argwhere(np.isfinite([toggle, turn]))
        is_turn, i, j = (int(k) for k in legal_moves[rng.integers(len(legal_moves))])
        gain = (turn if is_turn else toggle)[i, j]
        climber.apply((i, j, bool(is_turn)))
        np.testing.assert_allclose(climber.score, before + gain, rtol=1e-9)
        fresh = Climber(scores, limits, climber.edges, np.random.default_rng(0))
        np.testing.assert_array_equal(climber.reach, fresh.reach)
        np.testing.assert_allclose(climber.toggles, fresh.toggles, rtol=1e-9, atol=1e-9)
        values = np.where(np.array(scores.sizes) > 0, scores.columns.T, 0.0)
        assert (scores.sizes.count(0) > 0) or np.isclose(
            LocalScores(values, scores.sizes, scores.score, scores.weights).sum(
                parents_of(climber.edges)
            ),
            climber.score,
            rtol=1e-10,
        )


def is_legal(graph, i, j, limits):
    """Tell by definition whether the edge may be toggled, and turned."""
    if i == j:
        return [False, False]
    has_room = graph.in_degree(j) < limits.max_parents

    def stays_acyclic(change):
        other = graph.copy()
        change(other)
        return nx.is_directed_acyclic_graph(other)

    if not graph.has_edge(i, j):
        add = limits.allowed[i, j] and has_room and not graph.has_edge(j, i)
        return [bool(add and stays_acyclic(lambda g: g.add_edge(i, j))), False]

    def turn(g):
        g.remove_edge(i, j)
        g.add_edge(j, i)

    room = graph.in_degree(i) < limits.max_parents
    free = not limits.required[i, j]
    return [free, bool(free and limits.allowed[j, i] and room and stays_acyclic(turn))]


@pytest.mark.parametrize("constrained", ["none", "parents", "edges", "tiers"])
@pytest.mark.parametrize("kind", ["bic", "bdeu", "k2", "gaussian", "mixed"])
def test_hill_climbing_keeps_the_limits_and_nears_the_best(kind, constrained):
    if kind == "mixed" and constrained == "edges":
        pytest.skip("the required edges run from a continuous node to a discrete one")
    scores = scores_of(kind, 5)
    limits = kind_limits(scores, some_limits(constrained))
    found = climb(scores, limits, restarts=10)
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(found.edges, create_using=nx.DiGraph))
    assert (found.edges <= limits.allowed).all()
    assert (found.edges >= limits.required).all()
    assert found.edges.sum(axis=0).max() <= limits.max_parents
    best = exact_search(scores, limits, progress=False).score
    # Five nodes and eleven climbs: the best graph, or one that differs by rounding.
    np.testing.assert_allclose(found.score, best, rtol=1e-9)
    np.testing.assert_allclose(scores.sum(parents_of(found.edges)), found.score, rtol=1e-12)


def test_a_plain_climb_only_rises_and_ends_at_a_local_maximum():
    scores = scores_of("bic", 6, n_nodes=8, n_rows=400)
    found = climb(scores, tabu=0, restarts=0)
    assert (np.diff(found.history) > 0.0).all()
    climber = Climber(scores, Constraints.none(8), found.edges, np.random.default_rng(0))
    assert climber.best()[0] <= 1e-10 * abs(found.score)
    assert climb(scores, tabu=20, restarts=0).score >= found.score


def test_graphs_in_the_tabu_list_are_not_entered_again():
    scores = scores_of("bic", 7)
    rng = np.random.default_rng(0)
    climber = Climber(scores, Constraints.none(5), np.zeros((5, 5), bool), rng)
    seen, keys = [climber.edges.tobytes()], [climber.key]
    for _ in range(60):
        climber.apply(climber.best(keys)[1])
        assert climber.edges.tobytes() not in seen
        seen.append(climber.edges.tobytes())
        keys.append(climber.key)


def test_a_climb_starts_where_it_is_told_and_repeats_with_its_seed():
    scores = scores_of("bdeu", 8, n_nodes=6)
    start = edges_of(random_parents(np.random.default_rng(9), 6))
    found = climb(scores, start=start, tabu=0, restarts=0)
    climber = Climber(scores, Constraints.none(6), start, np.random.default_rng(1))
    climber.apply(climber.best()[1])
    assert found.history[0] == climber.score
    first, again = climb(scores, seed=3), climb(scores, seed=3)
    assert first.history == again.history
    np.testing.assert_array_equal(first.edges, again.edges)


def test_two_nodes_and_constant_columns():
    values = np.column_stack([np.zeros(50), np.arange(50) % 2])
    for score in BIC(), BDeu(1.0), K2():
        scores = LocalScores(values, [1, 2], score)
        found = climb(scores)
        assert np.isfinite(found.score)
        np.testing.assert_allclose(
            found.score, exact_search(scores, Constraints.none(2), progress=False).score
        )
    assert not climb(LocalScores(values, [2, 2], BIC())).edges.any()


def test_an_interrupted_climb_keeps_the_best_graph(monkeypatch):
    scores = scores_of("bic", 10, n_nodes=8, n_rows=400)
    apply, made = Climber.apply, []

    def interrupted(self, move):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(move)
        apply(self, move)

    monkeypatch.setattr(Climber, "apply", interrupted)
    with pytest.warns(RuntimeWarning, match="stopped by Ctrl-C after 4 moves"):
        found = climb(scores, interactive=True)
    assert len(found.history) == 4
    np.testing.assert_allclose(scores.sum(parents_of(found.edges)), found.score)
    assert found.score == max(found.history)
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        climb(scores)


def test_mutual_information_is_its_definition():
    sizes = [2, 3, 4]
    values = random_codes(np.random.default_rng(11), 300, sizes)
    found = mutual_information(LocalScores(values, sizes, Likelihood()))
    for u in range(3):
        for v in range(3):
            if u != v:
                joint = np.histogram2d(values[:, u], values[:, v], [sizes[u], sizes[v]])[0] / 300
                outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
                seen = joint > 0.0
                expected = (joint[seen] * np.log(joint[seen] / outer[seen])).sum()
                np.testing.assert_allclose(found[u, v], expected, rtol=1e-9, atol=1e-14)
    assert (np.diag(found) == 0.0).all()


def test_conditional_mutual_information_is_the_mean_over_the_states():
    sizes = [3, 2, 3, 2]
    values = random_codes(np.random.default_rng(12), 400, sizes)
    found = mutual_information(LocalScores(values, sizes, Likelihood()), given=0)
    expected = np.zeros((4, 4))
    for state in range(3):
        rows = values[values[:, 0] == state]
        scores = LocalScores(rows, sizes, Likelihood())
        expected += mutual_information(scores) * len(rows) / 400
    np.testing.assert_allclose(found[1:, 1:], expected[1:, 1:], rtol=1e-9, atol=1e-14)
    assert not found[0].any()
    assert not found[:, 0].any()


def test_mutual_information_of_numbers_is_that_of_the_normal():
    values = np.random.default_rng(13).normal(size=(200, 3)) @ [[1, 1, 0], [0, 1, 2], [0, 0, 1]]
    found = mutual_information(LocalScores(values, [0] * 3, Likelihood()))
    expected = -0.5 * np.log1p(-np.minimum(np.corrcoef(values.T) ** 2, 1.0 - 1e-9))
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-10)  # the ridge of 1e-10


@given(st.integers(2, 12), st.integers(0, 10_000))
def test_chow_liu_is_the_maximum_spanning_tree(n_nodes, seed):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(size=(n_nodes, n_nodes))
    weights = np.triu(weights, 1) + np.triu(weights, 1).T
    root = int(rng.integers(n_nodes))
    edges = chow_liu(weights, root)
    tree = nx.maximum_spanning_tree(nx.from_numpy_array(weights))
    graph = nx.from_numpy_array(edges, create_using=nx.DiGraph)
    assert {frozenset(edge) for edge in graph.edges} == {frozenset(edge) for edge in tree.edges}
    assert nx.is_arborescence(graph)
    assert graph.in_degree(root) == 0
    default = chow_liu(weights)
    assert not default[:, weights.sum(axis=0).argmax()].any()
    np.testing.assert_array_equal(default | default.T, edges | edges.T)


def test_chow_liu_with_independent_columns_is_still_a_tree():
    assert chow_liu(np.zeros((4, 4))).sum() == 3


def test_chow_liu_has_the_greatest_likelihood_of_trees():
    """The theorem, by brute force over the trees of five nodes."""
    scores = scores_of("bic", 14)
    likelihood = LocalScores(scores.columns.T.astype(float), scores.sizes, Likelihood())
    found = likelihood.sum(parents_of(chow_liu(mutual_information(likelihood))))
    trees = [parents for parents in all_dags(5) if sorted(map(len, parents)) == [0, 1, 1, 1, 1]]
    assert len(trees) == 5**4  # Cayley: 5^3 trees, and five roots
    np.testing.assert_allclose(found, max(map(likelihood.sum, trees)), rtol=1e-10)


def test_tree_augmented_is_a_tree_under_the_target():
    weights = np.random.default_rng(15).uniform(size=(6, 6))
    weights = np.triu(weights, 1) + np.triu(weights, 1).T
    edges = tree_augmented(weights, target=2)
    assert edges[2].tolist() == [True, True, False, True, True, True]
    others = [0, 1, 3, 4, 5]
    rest = edges[np.ix_(others, others)]
    np.testing.assert_array_equal(rest, chow_liu(weights[np.ix_(others, others)]))


def test_trees_equal_pgmpy():
    pytest.importorskip("pgmpy", reason="pgmpy is in the group bench")
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pgmpy.estimators import TreeSearch
    sizes = [2, 3, 2, 4, 3, 2]
    values = random_codes(np.random.default_rng(16), 1_000, sizes)
    frame = pd.DataFrame(values.astype(int), columns=list("abcdef"))
    scores = LocalScores(values, sizes, Likelihood())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = TreeSearch(frame, root_node="b", n_jobs=1)
        tree = search.estimate("chow-liu", show_progress=False)
        augmented = search.estimate("tan", class_node="a", show_progress=False)
    ours = named(chow_liu(mutual_information(scores), root=1))
    assert ours == set(tree.edges)
    # The root of the tree among the features may differ, not its edges.
    ours = named(tree_augmented(mutual_information(scores, given=0), target=0))
    assert set(map(frozenset, ours)) == set(map(frozenset, augmented.edges))


def named(edges):
    return {("abcdef"[u], "abcdef"[v]) for u, v in zip(*edges.nonzero(), strict=True)}


@pytest.mark.parametrize("name", ["sachs", "asia"])
def test_hill_climbing_scores_at_least_what_pgmpy_does(name):
    compare_with_pgmpy(name)


@pytest.mark.slow
def test_hill_climbing_of_alarm_scores_at_least_what_pgmpy_does():
    compare_with_pgmpy("alarm")


def compare_with_pgmpy(name):
    pytest.importorskip("pgmpy", reason="pgmpy is in the group bench")
    import pandas as pd

    values, names, states, _ = sample_network(name, 10_000, seed=0)
    sizes = [len(states[node]) for node in names]
    scores = LocalScores(values, sizes, BDeu(10.0))
    found = climb(scores, restarts=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pgmpy.causal_discovery import HillClimbSearch
        from pgmpy.structure_score import BDeu as PeerScore

        frame = pd.DataFrame(
            {
                node: pd.Categorical.from_codes(values[:, v].astype(int), states[node])
                for v, node in enumerate(names)
            }
        )
        peer = PeerScore(frame, equivalent_sample_size=10, state_names=states)
        search = HillClimbSearch(scoring_method=peer, return_type="dag", show_progress=False)
        graph = search.fit(frame).causal_graph_
        parents = [[names.index(u) for u in graph.predecessors(node)] for node in names]
        np.testing.assert_allclose(scores.sum(parents), peer.score(graph), rtol=1e-9)
    assert found.score >= scores.sum(parents) - 1e-9 * abs(found.score)


def test_progress_is_shown_only_when_it_takes_long(capsys):
    scores = scores_of("bic", 17)
    limits = Constraints.none(5)
    rng = np.random.default_rng(0)
    hill_climb(scores, limits, limits.required, tabu=5, restarts=1, rng=rng)
    assert "structure search" not in capsys.readouterr().err
