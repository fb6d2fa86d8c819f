"""Adjustment sets against all subsets of small graphs, and all paths of these."""

import networkx as nx
import numpy as np
import pytest
from random_graphs import digraph, is_causal, is_open, minimal, random_graph, subsets

from ppl_gen.algorithms.networks.adjustment import (
    adjustment_set,
    back_door_sets,
    descendants,
    is_adjustment_set,
    is_back_door,
    open_path,
    proper_back_door_graph,
    without_edges,
)

#: Pearl (2009), figure 3.4: the sets {x3, x4} and {x4, x5} are admissible.
PEARL = {
    "x1": (),
    "x2": (),
    "x3": ("x1",),
    "x4": ("x1", "x2"),
    "x5": ("x2",),
    "xi": ("x3", "x4"),
    "x6": ("xi",),
    "xj": ("x4", "x5", "x6"),
}


def numbered(graph):
    names = list(graph)
    return names, [tuple(names.index(p) for p in above) for above in graph.values()]


def problems(n, n_nodes=6, seed=0):
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        parents = random_graph(rng, n_nodes, rng.uniform(0.2, 0.7))
        order = [int(v) for v in rng.permutation(n_nodes)]
        yield rng, parents, order


def test_cutting_edges_and_descendants():
    for rng, parents, order in problems(20):
        graph = digraph(parents)
        below = set(order[:2]).union(*(nx.descendants(graph, v) for v in order[:2]))
        assert descendants(parents, order[:2]) == below
        into, out_of = order[:2], order[3 : 3 + int(rng.integers(3))]
        graph.remove_edges_from([*graph.in_edges(into), *graph.out_edges(out_of)])
        assert nx.utils.edges_equal(
            digraph(without_edges(parents, into, out_of)).edges, graph.edges, directed=True
        )


def test_open_paths_are_shortest_and_open():
    for rng, parents, order in problems(150):
        x, y, *others = order
        given = others[: int(rng.integers(4))]
        graph = digraph(parents)
        path = open_path(parents, [x], [y], given)
        every = nx.all_simple_paths(graph.to_undirected(as_view=True), x, y)
        lengths = [len(p) for p in every if is_open(graph, p, given)]
        if path is None:
            assert nx.is_d_separator(graph, {x}, {y}, set(given))
            assert not lengths
        else:
            assert path[0] == x
            assert path[-1] == y
            assert len(set(path)) == len(path) == min(lengths)
            assert is_open(graph, path, given)


def test_back_door_by_its_definition():
    for _, parents, (x, y, *others) in problems(40):
        graph = digraph(parents)
        cut = graph.copy()
        cut.remove_edges_from(graph.out_edges(x))
        for z in subsets(others):
            expected = not nx.descendants(graph, x) & set(z) and nx.is_d_separator(
                cut, {x}, {y}, set(z)
            )
            assert is_back_door(parents, x, y, z) == expected


def is_valid(graph, xs, ys, z):
    """The adjustment criterion by all paths (Shpitser et al. 2010)."""
    incoming = graph.copy()
    incoming.remove_edges_from(list(graph.in_edges(xs)))
    undirected = graph.to_undirected()
    for x in xs:
        for y in ys:
            for path in nx.all_simple_paths(undirected, x, y):
                if set(path[1:]) & set(xs):
                    continue  # not proper
                if is_causal(graph, path):
                    below = set(path[1:]).union(*(nx.descendants(incoming, v) for v in path[1:]))
                    if below & set(z):
                        return False
                elif is_open(graph, path, z):
                    return False
    return True


@pytest.mark.parametrize(("n_x", "n_y"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_minimal_sets_are_those_of_all_subsets(n_x, n_y):
    for rng, parents, order in problems(30, seed=1):
        xs, ys, others = order[:n_x], order[n_x : n_x + n_y], order[n_x + n_y :]
        observed = others if rng.random() < 0.5 else others[:-1]
        graph = digraph(parents)
        valid = [z for z in subsets(observed) if is_valid(graph, xs, ys, z)]
        for z in subsets(observed):
            assert is_adjustment_set(parents, xs, ys, z) == (z in valid)
        found = list(back_door_sets(parents, xs, ys, observed))
        assert set(found) == minimal(valid)
        assert len(found) == len(set(found))
        assert sorted(map(len, found)) == [len(z) for z in found]
        canonical = adjustment_set(parents, xs, ys, observed)
        if valid:
            assert tuple(sorted(canonical)) in valid
        else:
            assert canonical is None


def test_with_one_treatment_minimal_sets_are_those_of_the_back_door():
    for _, parents, (x, y, *others) in problems(60, seed=2):
        back_door = [z for z in subsets(others) if is_back_door(parents, x, y, z)]
        assert set(back_door_sets(parents, [x], [y])) == minimal(back_door)


def test_pearls_example():
    names, parents = numbered(PEARL)
    xi, xj = names.index("xi"), names.index("xj")
    found = {frozenset(names[v] for v in z) for z in back_door_sets(parents, [xi], [xj])}
    others = ({"x3", "x4"}, {"x1", "x4"}, {"x2", "x4"}, {"x4", "x5"})
    assert found == {frozenset(z) for z in others}
    one = [names.index(v) for v in ("x4",)]
    assert not is_back_door(parents, xi, xj, one)
    assert [names[v] for v in open_path(without_edges(parents, out_of=[xi]), [xi], [xj], one)] == [
        "xi", "x3", "x1", "x4", "x2", "x5", "xj",
    ]  # fmt: skip


def test_m_bias_needs_nothing_and_its_collider_does_harm():
    # x <- a -> m <- b -> y, x -> y
    parents = [(), (), (0, 1), (0,), (1, 3)]
    assert list(back_door_sets(parents, [3], [4])) == [frozenset()]
    assert not is_back_door(parents, 3, 4, [2])
    assert is_back_door(parents, 3, 4, [2, 0])


def test_the_bow_has_no_set():
    parents = [(), (0,), (0, 1)]  # u -> x, u -> y, x -> y
    assert list(back_door_sets(parents, [1], [2], observed=[])) == []
    assert adjustment_set(parents, [1], [2], observed=[]) is None
    cut, forbidden = proper_back_door_graph(parents, [1], [2])
    assert (cut, forbidden) == ([(), (0,), (0,)], {2})
    assert open_path(cut, [1], [2], []) == [1, 0, 2]


def test_an_outcome_before_its_treatment_cannot_be_adjusted_for():
    assert list(back_door_sets([(), (0,)], [1], [0])) == []


def test_many_sets_come_lazily():
    # Forty back-door paths of four nodes each: 4^40 minimal sets of forty nodes.
    parents = [(), (0,)]
    for _ in range(40):
        root = len(parents)
        parents += [(), (root,), (root,), (root + 2,)]
        parents[0] = (*parents[0], root + 1)
        parents[1] = (*parents[1], root + 3)
    first = next(back_door_sets(parents, [0], [1]))
    assert len(first) == 40
    assert is_back_door(parents, 0, 1, first)
