"""Queries and marginal maxima by variable elimination, beside brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_problems import (
    brute_force_joint,
    brute_force_product,
    cpd_scopes,
    grid,
    random_network,
)

from ppl_gen.algorithms.networks.elimination import Elimination, maximise
from ppl_gen.algorithms.networks.elimination_orders import HEURISTICS
from ppl_gen.algorithms.networks.factors import condition, restrict

#: Sums of at most 4**8 positive products of eight doubles: only rounding differs.
EXACT = {"rtol": 1e-12, "atol": 0}


def problem(seed, zeros=False, n_nodes=None):
    rng = np.random.default_rng(seed)
    network = random_network(rng, n_nodes or int(rng.integers(1, 9)), zeros=zeros)
    return rng, network, cpd_scopes(network[0])


def choose_evidence(rng, sizes, targets, n=None):
    """Draw codes of some variables that are no targets: one a row, where there are rows."""
    others = [v for v in range(len(sizes)) if v not in targets]
    chosen = rng.choice(others, int(rng.integers(0, len(others) + 1)), replace=False)
    return {int(v): rng.integers(sizes[v], size=n) for v in chosen}


def brute_force_query(joint, targets, evidence):
    """Return the joint at the evidence summed down to the targets, in their order."""
    index = tuple(evidence.get(v, slice(None)) for v in range(joint.ndim))
    kept = [v for v in range(joint.ndim) if v not in evidence]
    table = joint[index].sum(axis=tuple(i for i, v in enumerate(kept) if v not in targets))
    left = [v for v in kept if v in targets]
    return table.transpose([left.index(v) for v in targets])


def choose_targets(rng, n_nodes):
    return rng.permutation(n_nodes)[: int(rng.integers(0, min(n_nodes, 3) + 1))].tolist()


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("seed", range(100))
def test_queries_equal_enumeration(seed, zeros):
    rng, (parents, sizes, tables), scopes = problem(seed, zeros)
    joint = brute_force_joint(parents, sizes, tables)
    targets = choose_targets(rng, len(sizes))
    soft = {int(v): rng.random(sizes[v]) for v in rng.choice(len(sizes), 2)}
    for v, likelihood in soft.items():
        joint = joint * likelihood.reshape([-1 if u == v else 1 for u in range(len(sizes))])
    scopes, tables = scopes + [(v,) for v in soft], [*tables, *soft.values()]
    evidence = choose_evidence(rng, sizes, targets)
    expected = brute_force_query(joint, targets, evidence)
    for heuristic in HEURISTICS:
        plan = Elimination(_scopes_at(scopes, evidence), sizes, targets, heuristic)
        _, sliced = condition(scopes, tables, evidence)
        np.testing.assert_allclose(plan.run(sliced), expected, **EXACT)


def _scopes_at(scopes, evidence):
    return [tuple(v for v in scope if v not in evidence) for scope in scopes]


@pytest.mark.parametrize("seed", range(60))
def test_rows_of_evidence_at_once_equal_one_after_another(seed):
    rng, (_, sizes, tables), scopes = problem(seed)
    targets = choose_targets(rng, len(sizes))
    n = 5
    evidence = choose_evidence(rng, sizes, targets, n)
    evidence |= {v: int(codes[0]) for v, codes in list(evidence.items())[:1]}  # one for all rows
    soft = int(rng.integers(len(sizes)))
    likelihood = rng.random((n, sizes[soft]))
    scopes, tables = [*scopes, (soft,)], [*tables, likelihood]
    new_scopes, new_tables = condition(scopes, tables, evidence)
    batch = Elimination(new_scopes, sizes, targets).run(new_tables)
    assert batch.shape == (n, *(sizes[v] for v in targets))
    for row in range(n):
        codes = {v: int(np.broadcast_to(c, n)[row]) for v, c in evidence.items()}
        one_scopes, one_tables = condition(scopes, [*tables[:-1], likelihood[row]], codes)
        one = Elimination(one_scopes, sizes, targets).run(one_tables)
        np.testing.assert_allclose(batch[row], one, **EXACT)


@pytest.mark.parametrize("seed", range(20))
def test_draws_of_the_parameters_are_a_batch_too(seed):
    rng, (_, sizes, tables), scopes = problem(seed)
    draws = [rng.dirichlet(np.ones(t.shape[-1]), (4, *t.shape[:-1])) for t in tables]
    draws[0] = draws[0][0]  # one that is known
    targets = choose_targets(rng, len(sizes))
    plan = Elimination(scopes, sizes, targets)
    batch = plan.run(draws)
    for i in range(4) if len(draws) > 1 else ():
        one = [draws[0], *(draw[i] for draw in draws[1:])]
        expected = brute_force_query(brute_force_product(scopes, sizes, one), targets, {})
        np.testing.assert_allclose(batch[i], expected, **EXACT)


@pytest.mark.parametrize("n", [None, 3])
@pytest.mark.parametrize("seed", range(20))
def test_the_plan_of_the_whole_network_serves_any_evidence(seed, n):
    rng, (_, sizes, tables), scopes = problem(seed)
    targets = choose_targets(rng, len(sizes))
    plan = Elimination(scopes, sizes, targets)
    for _ in range(4):
        evidence = choose_evidence(rng, sizes, targets, n)
        new_scopes, new_tables = condition(scopes, tables, evidence)
        expected = Elimination(new_scopes, sizes, targets).run(new_tables)
        result = plan.run(restrict(scopes, tables, evidence))
        np.testing.assert_allclose(result, expected, **EXACT)
        codes, value = maximise(scopes, restrict(scopes, tables, evidence), sizes, targets)
        assert codes.shape == (*np.shape(value), len(targets))


def test_a_plan_runs_for_any_choice_of_batch_axes():
    _, (_, sizes, tables), scopes = problem(3, n_nodes=5)
    plan = Elimination(scopes, sizes, [0, 1])
    expected = plan.run(tables)
    for batched in itertools.product([False, True], repeat=5):
        some = [np.stack([t] * 3) if b else t for t, b in zip(tables, batched, strict=True)]
        result = plan.run(some)
        assert result.shape == ((3,) if any(batched) else ()) + expected.shape
        np.testing.assert_allclose(result, np.broadcast_to(expected, result.shape), **EXACT)


def test_many_rows_go_in_chunks():
    rng, (parents, sizes, tables), scopes = problem(11, n_nodes=7)
    codes = rng.integers(sizes[2], size=20_000)
    joint = brute_force_joint(parents, sizes, tables)
    new_scopes, new_tables = condition(scopes, tables, {2: codes})
    result = Elimination(new_scopes, sizes, [0, 5]).run(new_tables)
    expected = np.stack([brute_force_query(joint, [0, 5], {2: c}) for c in range(sizes[2])])
    np.testing.assert_allclose(result, expected[codes], **EXACT)


def test_products_of_many_factors_over_few_variables():
    # More operands than one einsum takes.
    rng = np.random.default_rng(0)
    scopes = [(0, 1), (1,), (0,), ()] * 40
    sizes = [2, 3]
    tables = [rng.random([sizes[v] for v in scope]) + 0.5 for scope in scopes]
    expected = brute_force_product(scopes, sizes, tables)
    np.testing.assert_allclose(Elimination(scopes, sizes, [1, 0]).run(tables), expected.T, **EXACT)
    tables[0] = np.stack([tables[0], 2 * tables[0]])
    batch = Elimination(scopes, sizes, [0, 1]).run(tables)
    np.testing.assert_allclose(batch, np.stack([expected, 2 * expected]), **EXACT)


def test_large_tables_are_multiplied_in_pairs():
    rng = np.random.default_rng(1)
    scopes = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3)]
    sizes = [9, 8, 7, 6]
    tables = [rng.random([sizes[v] for v in scope]) for scope in scopes]
    expected = brute_force_product(scopes, sizes, tables)
    for targets in ([3, 1], [], [0, 1, 2, 3]):
        result = Elimination(scopes, sizes, targets).run(tables)
        np.testing.assert_allclose(result, brute_force_query(expected, targets, {}), **EXACT)


def test_targets_without_a_factor_and_no_factors_at_all():
    np.testing.assert_array_equal(Elimination([], [2, 3], [1]).run([]), np.ones(3))
    assert Elimination([], [2, 3], []).run([]) == 1.0
    result = Elimination([(0,)], [2, 3], [1, 0]).run([np.array([0.2, 0.8])])
    np.testing.assert_array_equal(result, [[0.2, 0.8]] * 3)
    np.testing.assert_array_equal(
        Elimination([()], [2], [0]).run([np.array([2.0, 3.0])]), [[2.0, 2.0], [3.0, 3.0]]
    )


def test_results_are_never_views_of_the_tables():
    table = np.array([[0.2, 0.8], [0.5, 0.5]])
    for targets in ([0, 1], [1, 0]):
        Elimination([(0, 1)], [2, 2], targets).run([table])[:] = 7.0
        Elimination([(0, 1)], [2, 2], targets).run([np.stack([table] * 2)])[:] = 7.0
    assert table.max() < 1.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_the_probability_of_evidence_is_the_same_in_any_order(seed, shuffler):
    rng, (parents, sizes, tables), scopes = problem(seed)
    evidence = choose_evidence(rng, sizes, [])
    new_scopes, new_tables = condition(scopes, tables, evidence)
    plan = Elimination(new_scopes, sizes, [])
    order = list(range(len(sizes)))
    shuffler.shuffle(order)
    np.testing.assert_allclose(
        Elimination(new_scopes, sizes, [], order=order).run(new_tables),
        plan.run(new_tables),
        **EXACT,
    )
    live = list(zip(new_scopes, new_tables, strict=True))
    for v in order:  # one variable after another, by plans of their own
        met = [factor for factor in live if v in factor[0]]
        out = sorted({u for scope, _ in met for u in scope} - {v})
        product = Elimination([scope for scope, _ in met], sizes, out).run([t for _, t in met])
        live = [factor for factor in live if v not in factor[0]] + [(tuple(out), product)]
    value = math.prod(float(t) for _, t in live)
    np.testing.assert_allclose(plan.run(new_tables), value, **EXACT)
    joint = brute_force_joint(parents, sizes, tables)
    np.testing.assert_allclose(value, brute_force_query(joint, [], evidence), **EXACT)


def test_a_grid_is_summed_row_by_row_to_the_same_value():
    rng = np.random.default_rng(4)
    scopes = grid(6)
    tables = [rng.random((2, 2)) for _ in scopes]
    value = Elimination(scopes, [2] * 36, [0, 35]).run(tables)
    # The same with each row of the grid one variable of 2**6 states.
    states = np.array(list(itertools.product([0, 1], repeat=6)))

    def within(row):
        weights = np.ones(64)
        for (a, b), table in zip(scopes, tables, strict=True):
            if a // 6 == b // 6 == row:
                weights = weights * table[states[:, a % 6], states[:, b % 6]]
        return weights

    def between(row):
        weights = np.ones((64, 64))
        for (a, b), table in zip(scopes, tables, strict=True):
            if a // 6 == row and b // 6 == row + 1:
                weights = weights * table[states[:, None, a % 6], states[None, :, b % 6]]
        return weights

    first = np.stack([within(0) * (states[:, 0] == s) for s in (0, 1)])
    for row in range(5):
        first = first @ between(row) * within(row + 1)
    expected = np.stack([first[:, states[:, 5] == s].sum(axis=1) for s in (0, 1)], axis=1)
    # Sums of 2**36 terms, in another order.
    np.testing.assert_allclose(value, expected, rtol=1e-11)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_marginal_maxima_equal_enumeration(seed, zeros):
    rng, (parents, sizes, tables), scopes = problem(seed, zeros)
    joint = brute_force_joint(parents, sizes, tables)
    n = 4
    targets = choose_targets(rng, len(sizes))
    evidence = choose_evidence(rng, sizes, targets, n)
    codes, values = maximise(*condition(scopes, tables, evidence), sizes, targets)
    if not evidence:
        codes, values = np.stack([codes] * n), np.stack([values] * n)
    assert codes.shape == (n, len(targets))
    for row in range(n):
        table = brute_force_query(joint, targets, {v: c[row] for v, c in evidence.items()})
        with np.errstate(divide="ignore"):
            # Logs of the same numbers up to rounding: absolutely 1e-12.
            np.testing.assert_allclose(values[row], np.log(table.max()), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(table[tuple(codes[row])], table.max(), **EXACT)


def test_marginal_maxima_are_not_those_of_the_joint():
    # The likeliest state of the pair is (0, 0); that of the first alone is 1.
    table = np.array([[0.4, 0.0], [0.3, 0.3]])
    assert maximise([(0, 1)], [table], [2, 2], [0, 1])[0].tolist() == [0, 0]
    codes, value = maximise([(0, 1)], [table], [2, 2], [0])
    assert codes.tolist() == [1]
    np.testing.assert_allclose(np.exp(value), 0.6, rtol=1e-14)


def test_maxima_do_not_underflow():
    # A thousand witnesses who cannot be believed, half for each state.
    scopes = [(0,)] * 1000
    against = np.array([[1e-3, 1.0], [1.0, 1e-3]])
    tables = [against[i % 2] for i in range(999)] + [np.array([1.0, 0.5])]
    codes, value = maximise(scopes, tables, [2], [0])
    # 500 of the first kind against it, 499 against its rival, which the last makes half as likely.
    assert codes.tolist() == [1]
    np.testing.assert_allclose(value, 499 * np.log(1e-3) + np.log(0.5), rtol=1e-12)


def test_what_is_impossible_has_the_log_value_minus_infinity():
    codes, value = maximise([(0,), (0,)], [np.array([1.0, 0.0]), np.array([0.0, 1.0])], [2], [0])
    assert value == -np.inf
    assert codes.shape == (1,)


def test_maxima_over_targets_without_a_factor():
    codes, value = maximise([(0,)], [np.array([0.2, 0.8])], [2, 3], [1, 0])
    assert codes.tolist() == [0, 1]
    np.testing.assert_allclose(np.exp(value), 0.8)
    codes, value = maximise([(0,)], [np.full((3, 2), 0.5)], [2], [])
    assert codes.shape == (3, 0)
    np.testing.assert_allclose(value, np.zeros(3), atol=1e-15)


def test_an_impossible_batch_row_is_zero_and_the_others_are_not():
    table = np.array([[1.0, 0.0], [0.5, 0.5]])
    scopes, tables = condition([(0,), (0, 1)], [np.array([1.0, 0.0]), table], {1: np.array([0, 1])})
    np.testing.assert_array_equal(Elimination(scopes, [2, 2], [0]).run(tables), [[1, 0], [0, 0]])


def test_bad_input_is_told():
    with pytest.raises(ValueError, match=r"targets \(0, 0\) name a variable twice"):
        Elimination([(0,)], [2], [0, 0])
    with pytest.raises(
        ValueError, match=r"the order has 1 of the 2 variables to sum out, \[0, 1\]"
    ):
        Elimination([(0, 1)], [2, 2], [], order=[1, 5])
    plan = Elimination([(0,), (0, 1)], [2, 2], [0])
    with pytest.raises(ValueError, match=r"Elimination.run: the table of scope \(0, 1\) has shape"):
        plan.run([np.ones(2), np.ones((3, 2, 2, 2))])
    with pytest.raises(ValueError, match=r"has a batch of 4 rows where another has 3"):
        plan.run([np.ones((3, 2)), np.ones((4, 2, 2))])
    with pytest.raises(ValueError, match=r"maximise: 1 tables for 2 scopes"):
        maximise([(0,), (1,)], [np.ones(2)], [2, 2], [0])
