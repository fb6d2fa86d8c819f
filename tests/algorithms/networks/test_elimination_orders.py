"""Orders of elimination and their costs, counted by sets."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_problems import cpd_scopes, grid, random_network

from ppl_gen.algorithms.networks.elimination import Elimination
from ppl_gen.algorithms.networks.elimination_orders import (
    HEURISTICS,
    Cost,
    elimination_cost,
    elimination_order,
    maximising_order,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(HEURISTICS), st.integers(0, 3))
def test_orders_hold_every_variable_once_and_cost_what_they_say(seed, heuristic, n_kept):
    rng = np.random.default_rng(seed)
    parents, sizes, _ = random_network(rng, int(rng.integers(1, 9)))
    scopes = cpd_scopes(parents)
    keep = list(range(min(n_kept, len(sizes))))
    order = elimination_order(scopes, sizes, keep, heuristic)
    assert sorted(order) == [v for v in range(len(sizes)) if v not in keep]
    assert order == elimination_order(scopes, sizes, keep, heuristic)
    assert elimination_cost(scopes, sizes, order) == _counted(scopes, sizes, order)
    assert Elimination(scopes, sizes, keep, heuristic).cost == _counted(scopes, sizes, order)


def _counted(scopes, sizes, order):
    """Count the cells of every product of an elimination by sets."""
    live, products = [set(scope) for scope in scopes], []
    for v in order:
        product = set().union(*(scope for scope in live if v in scope))
        products.append(product)
        live = [scope for scope in live if v not in scope] + [product - {v}]
    products.append(set().union(*live))
    cells = [math.prod(sizes[v] for v in product) for product in products]
    return Cost(max(len(p) for p in products) - 1, max(cells), sum(cells))


def test_orders_of_large_graphs_are_near_the_best_width():
    chain = [(v, v + 1) for v in range(999)]
    for heuristic in HEURISTICS:
        order = elimination_order(chain, [3] * 1000, (), heuristic)
        assert elimination_cost(chain, [3] * 1000, order).width == 1
    order = elimination_order(grid(10), [2] * 100)
    assert elimination_cost(grid(10), [2] * 100, order).width <= 13  # the treewidth is 10


def test_the_cost_of_what_cannot_be_run_is_known():
    # More cells than an int64 holds, from sizes that are NumPy's.
    sizes = np.full(80, 4)
    scopes = [(a, b) for a in range(80) for b in range(a)]
    for heuristic in HEURISTICS:
        order = elimination_order(scopes, sizes, (), heuristic)
        assert elimination_cost(scopes, sizes, order).largest == 4**80
    plan = Elimination(scopes, sizes, [0])
    assert (plan.cost.width, plan.cost.largest) == (79, 4**80)
    assert plan.cost.bytes > 8 * 4**80
    with pytest.raises(ValueError, match="a product over 80 variables"):
        plan.run([np.ones((4, 4))] * len(scopes))


def test_a_chain_is_eliminated_from_its_ends():
    chain = [(v, v + 1) for v in range(5)]
    assert elimination_order(chain, [2] * 6) == [0, 1, 2, 3, 4, 5]  # ties go to the lower number
    assert elimination_order(chain, [2] * 6, keep=[0]) == [5, 4, 3, 2, 1]
    # and to the smaller table
    assert elimination_order(chain, [9, 9, 2, 2, 2, 2])[0] == 5


def test_weights_tell_which_pairs_are_joined():
    # In a square each variable joins the two beside it: the weights say which pair is small.
    square, sizes = [(0, 1), (1, 2), (2, 3), (3, 0)], [5, 2, 5, 2]
    assert elimination_order(square, sizes, (), "weighted_min_fill")[0] in (0, 2)
    order = elimination_order(square, sizes, (), "weighted_min_fill")
    assert elimination_cost(square, sizes, order).largest == 20


def test_sums_come_before_maxima():
    assert maximising_order([(0, 1)], [2, 2], [0]) == ([1], [0])
    # A star whose leaves are the targets: summing its centre out first joins them all.
    star = [(0, v) for v in range(1, 9)]
    sums, maxima = maximising_order(star, [2] * 9, range(1, 9))
    assert sums == [0]
    assert sorted(maxima) == list(range(1, 9))
    assert elimination_cost(star, [2] * 9, sums + maxima).largest == 2**9
    assert elimination_cost(star, [2] * 9, elimination_order(star, [2] * 9)).largest == 4


def test_an_unknown_heuristic_is_told():
    with pytest.raises(ValueError, match=r"heuristic is 'best'; expected one of"):
        elimination_order([(0,)], [2], (), "best")
