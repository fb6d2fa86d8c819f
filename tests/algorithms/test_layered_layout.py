"""Layers of drawings: parents above, neighbours apart, few crossings, against small exact cases."""

import itertools

import numpy as np
import pytest

from ppl_gen.algorithms.layered_layout import _crossings, _order, layered_layout


def random_dag(rng, n_nodes, share=0.3):
    joined = np.triu(rng.uniform(size=(n_nodes, n_nodes)) < share, 1)
    places = rng.permutation(n_nodes)
    parents = [() for _ in range(n_nodes)]
    for v in range(n_nodes):
        parents[places[v]] = tuple(places[np.flatnonzero(joined[:, v])].tolist())
    return parents


@pytest.mark.parametrize("seed", range(20))
def test_parents_are_above_and_neighbours_apart(seed):
    rng = np.random.default_rng(seed)
    parents = random_dag(rng, int(rng.integers(1, 12)))
    widths = rng.uniform(0.5, 2.0, size=len(parents))
    layout = layered_layout(parents, widths, gap=0.3)
    for v, own in enumerate(parents):
        for p in own:
            assert layout.layer[p] < layout.layer[v]
            route = layout.routes[p, v]
            np.testing.assert_array_equal(route[0], (layout.x[p], layout.layer[p]))
            np.testing.assert_array_equal(route[-1], (layout.x[v], layout.layer[v]))
            # One point in each layer between, outside of the nodes that are there.
            np.testing.assert_array_equal(route[:, 1], np.arange(route[0, 1], route[-1, 1] + 1))
            for x, y in route[1:-1]:
                there = layout.layer == y
                assert (abs(layout.x[there] - x) > 0.5 * widths[there]).all()
    for row in range(layout.layer.max() + 1):
        nodes = np.flatnonzero(layout.layer == row)
        nodes = nodes[np.argsort(layout.x[nodes])]
        apart = np.diff(layout.x[nodes])
        # Least squares with bounds stops within rounding of them.
        assert (apart >= 0.5 * (widths[nodes[:-1]] + widths[nodes[1:]]) + 0.3 - 1e-9).all()


def test_layers_make_edges_short():
    # 0 -> 1 -> 2 and 3 -> 2: 3 belongs just above 2, not at the top.
    assert layered_layout([(), (0,), (1, 3), ()], np.ones(4)).layer.tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize("seed", range(10))
def test_orders_cross_as_little_as_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    level = np.repeat([0, 1], 4)
    links = np.array([(u, v) for u in range(4) for v in range(4, 8) if rng.uniform() < 0.4])
    links = links.reshape(-1, 2)
    below = [links[links[:, 0] == u, 1].tolist() for u in range(8)]

    def count(upper, lower):
        place = np.empty(8)
        place[list(upper)], place[list(lower)] = np.arange(4), np.arange(4)
        return _crossings(place, list(upper), below)

    least = min(
        count(upper, lower)
        for upper in itertools.permutations(range(4))
        for lower in itertools.permutations(range(4, 8))
    )
    # Sweeps are a heuristic: on graphs as small as these they are off by one crossing at most.
    assert count(*_order(level, links)) <= least + 1


def test_a_diamond_is_symmetric():
    layout = layered_layout([(), (0,), (0,), (1, 2)], np.ones(4), gap=0.4)
    np.testing.assert_allclose(layout.x[[0, 3]], layout.x[[1, 2]].mean(), atol=1e-12)
    np.testing.assert_allclose(layout.x[2] - layout.x[1], 1.4, atol=1e-12)


def test_no_edges_and_one_node():
    assert layered_layout([()], [1.0]).x.shape == (1,)
    layout = layered_layout([(), ()], [1.0, 1.0], gap=0.5)
    assert layout.layer.tolist() == [0, 0]
    assert abs(layout.x[1] - layout.x[0]) >= 1.5 - 1e-9


def test_cycles_are_refused():
    with pytest.raises(ValueError, match="goes round in a circle"):
        layered_layout([(1,), (0,)], [1.0, 1.0])
