"""Front-door sets against all subsets of small graphs."""

import networkx as nx
import numpy as np
import pytest
from random_graphs import digraph, minimal, random_graph, subsets

from ppl_gen.algorithms.networks.front_door import front_door_sets, is_front_door


def is_valid(graph, xs, ys, z):
    """The front-door criterion by networkx."""
    without = graph.copy()
    without.remove_nodes_from(z)
    if any(nx.has_path(without, x, y) for x in xs for y in ys):
        return False
    cut_x, cut_z = graph.copy(), graph.copy()
    cut_x.remove_edges_from(list(graph.out_edges(xs)))
    cut_z.remove_edges_from(list(graph.out_edges(z)))
    return nx.is_d_separator(cut_x, set(xs), set(z), set()) and nx.is_d_separator(
        cut_z, set(z), set(ys), set(xs)
    )


@pytest.mark.parametrize(("n_x", "n_y"), [(1, 1), (2, 1), (1, 2)])
def test_minimal_sets_are_those_of_all_subsets(n_x, n_y):
    several = 0
    for i in range(150):
        rng = np.random.default_rng([n_x, n_y, i])
        parents = random_graph(rng, 7, rng.uniform(0.15, 0.5))
        order = [int(v) for v in rng.permutation(7)]
        if i % 2:  # treatments at the top and outcomes at the bottom: then sets are large
            above = [len(nx.ancestors(digraph(parents), v)) for v in range(7)]
            order.sort(key=above.__getitem__)
        xs, ys, others = order[:n_x], order[-n_y:], order[n_x:-n_y]
        for y in ys:
            parents[y] = tuple(p for p in parents[y] if p not in xs)
        observed = others if i % 4 else others[1:]
        graph = digraph(parents)
        valid = [z for z in subsets(observed) if is_valid(graph, xs, ys, z)]
        if i < 40:
            for z in subsets(observed):
                assert is_front_door(parents, xs, ys, z) == (z in valid)
        found = list(front_door_sets(parents, xs, ys, observed))
        assert set(found) == minimal(valid)
        assert len(found) == len(set(found))
        assert sorted(map(len, found)) == [len(z) for z in found]
        several += any(len(z) > 1 for z in found)
    assert several > 10


def test_smoking_tar_and_cancer():
    parents = [(), (0,), (1,), (0, 2)]  # genotype, smoking, tar, cancer
    assert list(front_door_sets(parents, [1], [3], observed=[2])) == [{2}]
    assert is_front_door(parents, [1], [3], [2])
    # Tar that depends on the genotype too is no front door.
    assert list(front_door_sets([(), (0,), (0, 1), (0, 2)], [1], [3], observed=[2])) == []


def test_a_set_may_need_nodes_off_the_directed_paths():
    # x -> z -> y, and w -> z, w -> y: the path z <- w -> y is cut once w is in the set.
    parents = [(), (0, 3), (1, 3), ()]
    assert list(front_door_sets(parents, [0], [2])) == [{1, 3}]


def test_no_directed_path_needs_no_set():
    assert list(front_door_sets([(1,), (), (1,)], [0], [2])) == [set()]


def test_the_bow_has_no_set():
    assert list(front_door_sets([(), (0,), (0, 1)], [1], [2], observed=[])) == []


def test_many_sets_come_lazily():
    # Thirty directed paths through four nodes each: 4^30 minimal sets of thirty nodes.
    parents = [(), ()]
    for _ in range(30):
        first = len(parents)
        parents += [(0,), (first,), (first + 1,), (first + 2,)]
        parents[1] = (*parents[1], first + 3)
    z = next(front_door_sets(parents, [0], [1]))
    assert len(z) == 30
    assert is_front_door(parents, [0], [1], z)
