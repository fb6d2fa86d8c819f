"""Factors at evidence, and their products in plain numbers and in logarithms."""

import numpy as np
import pytest
from network_problems import brute_force_product

from ppl_gen.algorithms.networks.factors import (
    LogMaxima,
    LogSums,
    Products,
    Sums,
    as_logs,
    batch_last,
    condition,
    log_product,
    log_sum_exp,
    restrict,
)

SIZES = [2, 3, 4]


@pytest.fixture
def table():
    return np.random.default_rng(0).random((4, 2, 3))  # of the scope (2, 0, 1)


def test_one_code_for_all_rows_slices(table):
    scopes, tables = condition([(2, 0, 1), (0,)], [table, np.ones(2)], {2: 3, 1: np.int64(1)})
    assert scopes == [(0,), (0,)]
    np.testing.assert_array_equal(tables[0], table[3, :, 1])
    scopes, tables = condition([(2, 0, 1)], [np.stack([table, 2 * table])], {0: 1})
    assert scopes == [(2, 1)]
    np.testing.assert_array_equal(tables[0], [table[:, 1], 2 * table[:, 1]])


@pytest.mark.parametrize("n", [5, 1, 0])
def test_a_code_a_row_gives_a_batch(table, n):
    rng = np.random.default_rng(1)
    codes = {2: rng.integers(4, size=n), 1: rng.integers(3, size=n)}
    [scope], [rows] = condition([(2, 0, 1)], [table], codes)
    assert scope == (0,)
    np.testing.assert_array_equal(rows, table[codes[2], :, codes[1]])
    # With a batch of its own, and a code for all rows beside those of each.
    several = rng.random((n, 4, 2, 3))
    [scope], [rows] = condition([(2, 0, 1)], [several], {2: codes[2], 0: 1})
    assert scope == (1,)
    np.testing.assert_array_equal(rows, several[np.arange(n), codes[2], 1])
    [scope], [rows] = condition([(2, 0, 1)], [table], {2: codes[2], 0: 1, 1: codes[1]})
    assert scope == ()
    np.testing.assert_array_equal(rows, table[codes[2], 1, codes[1]])


@pytest.mark.parametrize("n", [5, 1, 0])
def test_restricted_tables_are_the_slices_with_their_axes(table, n):
    rng = np.random.default_rng(3)
    scopes, tables = [(2, 0, 1), (1,)], [table, rng.random((n, 3))]
    for evidence in (
        {2: 3, 1: 1},
        {2: rng.integers(4, size=n), 0: 1},
        {0: rng.integers(2, size=n), 1: rng.integers(3, size=n)},
    ):
        _, sliced = condition(scopes, tables, evidence)
        for scope, whole, one in zip(
            scopes, restrict(scopes, tables, evidence), sliced, strict=True
        ):
            batch = whole.shape[: whole.ndim - len(scope)]
            assert whole.shape == (*batch, *(1 if v in evidence else SIZES[v] for v in scope))
            np.testing.assert_array_equal(whole.reshape(one.shape), one)
    assert restrict(scopes, tables, {5: 0})[0] is table


def test_what_is_not_mentioned_stays_as_it_is(table):
    scopes, tables = condition([(2, 0, 1)], [table], {5: np.array([1, 0])})
    assert scopes == [(2, 0, 1)]
    assert tables[0] is table


def test_codes_in_a_list_are_taken(table):
    [_], [rows] = condition([(2, 0, 1)], [table], {2: [0, 3]})
    np.testing.assert_array_equal(rows, table[[0, 3]])


def test_the_batch_comes_last_and_lies_there(table):
    rows = batch_last((0, 1), table)
    assert rows.shape == (2, 3, 4)
    assert rows.flags.c_contiguous
    # What was sliced a row at a time needs no copy.
    [scope], [sliced] = condition([(2, 0, 1)], [table], {2: np.array([1, 2, 3])})
    assert batch_last(scope, sliced).base is not None


def test_products_are_the_same_in_all_kernels():
    rng = np.random.default_rng(2)
    scopes = ((0, 1), (2, 1), (0,), (), (2, 0))
    tables = [rng.random([SIZES[v] for v in scope]) for scope in scopes]
    tables[0][0, 1] = 0.0
    product = brute_force_product(scopes, SIZES, tables)
    logs = [as_logs(scope, t) for scope, t in zip(scopes, tables, strict=True)]
    for out, summed in [((), (0, 1, 2)), ((1,), (0, 2)), ((2, 0), (1,)), ((2, 1, 0), ())]:
        order = np.argsort(np.argsort(out)) if out else ()
        total, peak = product.sum(axis=summed), product.max(axis=summed) if summed else product
        expected = total.transpose(order) if out else total
        # Sums of 24 products of five doubles.
        np.testing.assert_allclose(Sums(SIZES).contract(scopes, tables, out), expected, rtol=1e-14)
        found = np.exp(LogSums().contract(scopes, logs, out)[..., 0])
        np.testing.assert_allclose(found, expected, rtol=1e-14)
        found = np.exp(LogMaxima().contract(scopes, logs, out)[..., 0])
        np.testing.assert_allclose(found, peak.transpose(order) if out else peak, rtol=1e-14)


def test_division_takes_a_factor_out_again():
    product, factor = np.array([[0.0, 0.0], [0.2, 0.6]]), np.array([[0.0, 0.0], [0.5, 2.0]])
    expected = [[0.0, 0.0], [0.4, 0.3]]
    np.testing.assert_allclose(Sums([2]).divide(product, factor), expected, rtol=1e-15)
    np.testing.assert_allclose(Sums([2]).divide(product, factor[:, 1])[1], [0.1, 0.3], rtol=1e-15)
    logs = LogSums.divide(as_logs((0, 1), product), as_logs((0, 1), factor))
    np.testing.assert_allclose(np.exp(logs[..., 0]), expected, rtol=1e-15)


def test_logarithms_of_nothing():
    assert log_product([], [], (0, 1)).shape == (1, 1, 1)
    impossible = log_sum_exp(np.full((3, 2), -np.inf), (0,))
    np.testing.assert_array_equal(impossible, [-np.inf, -np.inf])
    # Far below the smallest double.
    np.testing.assert_allclose(log_sum_exp(np.full((4, 1), -5000.0), (0,)), np.log(4) - 5000)


def test_products_of_more_variables_than_letters_are_refused():
    products = Products([(v,) for v in range(60)], [1] * 60, [False] * 60)
    with pytest.raises(ValueError, match="a product over 60 variables"):
        products.append(range(60), tuple(range(60)))
