import networkx
import numpy as np
import pytest
from network_problems import brute_force_joint, brute_force_product, cpd_scopes, random_network

from ppl_gen.algorithms.networks.d_separation import (
    ancestors,
    children_of,
    d_separated,
    reachable,
    requisite,
)


def _as_networkx(parents):
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(len(parents)))
    graph.add_edges_from((p, v) for v, above in enumerate(parents) for p in above)
    return graph


def _three_sets(rng, n_nodes):
    """Draw disjoint sets of nodes, the first two with a node at least."""
    shuffled = rng.permutation(n_nodes).tolist()
    n_x, n_y = rng.integers(1, 3, 2)
    n_given = int(rng.integers(0, n_nodes - n_x - n_y + 1))
    return shuffled[:n_x], shuffled[n_x : n_x + n_y], shuffled[n_x + n_y :][:n_given]


@pytest.mark.parametrize("seed", range(100))
def test_d_separation_is_that_of_networkx(seed):
    rng = np.random.default_rng(seed)
    parents, _, _ = random_network(rng, int(rng.integers(4, 12)))
    graph = _as_networkx(parents)
    for _ in range(5):
        xs, ys, given = _three_sets(rng, len(parents))
        expected = networkx.is_d_separator(graph, set(xs), set(ys), set(given))
        assert d_separated(parents, xs, ys, given) == expected
        assert d_separated(parents, ys, xs, given) == expected
        assert ancestors(parents, xs) == {*xs}.union(*(networkx.ancestors(graph, x) for x in xs))


@pytest.mark.parametrize("seed", range(30))
def test_the_reachable_are_those_not_separated(seed):
    rng = np.random.default_rng(seed)
    parents, _, _ = random_network(rng, 9)
    (source, *_), _, given = _three_sets(rng, 9)
    found = reachable(parents, [source], given)
    for v in set(range(9)) - {source, *given}:
        assert (v in found) == (not d_separated(parents, [source], [v], given))
    assert source in found
    assert found.isdisjoint(given)


def test_an_observed_source_reaches_nothing():
    assert reachable([(), (0,)], [0], given=[0]) == set()


@pytest.mark.parametrize("seed", range(60))
def test_the_requisite_tables_alone_give_the_posterior(seed):
    rng = np.random.default_rng(seed)
    parents, sizes, tables = random_network(rng, int(rng.integers(4, 9)), sizes=(2, 3))
    targets, _, evidence = _three_sets(rng, len(parents))
    codes = {v: int(rng.integers(sizes[v])) for v in evidence}
    needed, observed = requisite(parents, targets, evidence)

    def posterior(product, codes):
        index = tuple(codes.get(v, slice(None)) for v in range(len(sizes)))
        kept = [v for v in range(len(sizes)) if v not in codes]
        others = tuple(i for i, v in enumerate(kept) if v not in targets)
        table = product[index].sum(axis=others)
        return table / table.sum()

    scopes = cpd_scopes(parents)
    product = brute_force_product([scopes[v] for v in needed], sizes, [tables[v] for v in needed])
    expected = posterior(brute_force_joint(parents, sizes, tables), codes)
    # Sums of a few thousand positive terms: rounding alone differs.
    np.testing.assert_allclose(posterior(product, codes), expected, rtol=1e-11)
    mentioned = {v for u in needed for v in scopes[u]}
    assert mentioned & set(evidence) == set(observed)


def test_barren_and_separated_nodes_are_not_requisite():
    #      0 -> 1 -> 2 -> 3     4 -> 2     3 -> 5
    parents = [(), (0,), (1, 4), (2,), (), (3,)]
    assert requisite(parents, [2], evidence=[1]) == ([2, 4], [1])
    assert requisite(parents, [4], evidence=[1]) == ([4], [])
    assert requisite(parents, [4], evidence=[1, 5]) == ([2, 3, 4, 5], [1, 5])


def test_children_and_long_chains():
    n_nodes = 5000  # no recursion
    parents = [(), *((v,) for v in range(n_nodes - 1))]
    assert children_of(parents)[7] == [8]
    assert len(ancestors(parents, [n_nodes - 1])) == n_nodes
    assert d_separated(parents, [0], [n_nodes - 1], [2500])
    assert not d_separated(parents, [0], [n_nodes - 1])


def test_sets_that_share_a_node_are_refused():
    with pytest.raises(ValueError, match=r"d_separated: nodes \[1\] are in more than one"):
        d_separated([(), (0,)], [0, 1], [1])
    with pytest.raises(ValueError, match=r"nodes \[0\]"):
        d_separated([(), (0,)], [0], [1], given=[0])
