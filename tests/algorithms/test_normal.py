"""Distances and conditionals of several normals, against brute force on one row at a time."""

import array_api_compat.torch as torch_namespace
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from ppl_gen import engines
from ppl_gen.algorithms.normal import (
    _expansion_is_safe,
    conditional,
    diagonal_distance,
    sweep,
    whitened_distance,
)

LOG_2PI = np.log(2.0 * np.pi)
# Double precision through a few products and one factorisation of well-conditioned matrices.
ROUNDING = {"rtol": 1e-11, "atol": 1e-11}


def normals(seed, n_classes=3, n_columns=4, n_rows=20, shared=False):
    """Rows, means, covariances, and the factors U of the precisions, P = U U'."""
    rng = np.random.default_rng(seed)
    shape = (n_columns, n_columns) if shared else (n_classes, n_columns, n_columns)
    root = rng.normal(size=shape)
    covariance = root @ np.swapaxes(root, -1, -2) + np.eye(n_columns)
    factor = np.swapaxes(np.linalg.inv(np.linalg.cholesky(covariance)), -1, -2)
    return (
        rng.normal(size=(n_rows, n_columns)),
        rng.normal(size=(n_classes, n_columns)),
        (
            covariance,
            factor,
        ),
    )


def holes(x, seed, share=0.4):
    """Rows with entries missing, the first of them complete and the second all missing."""
    holed = np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)
    holed[0], holed[1] = x[0], np.nan
    return holed


def brute_force(x, mean, covariance):
    """Conditional means and covariances of one row's missing entries, embedded in (D, D)."""
    absent = np.isnan(x)
    o, m = np.flatnonzero(~absent), np.flatnonzero(absent)
    gain = covariance[np.ix_(m, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
    filled, spread = x.copy(), np.zeros_like(covariance)
    filled[m] = mean[m] + gain @ (x[o] - mean[o])
    spread[np.ix_(m, m)] = covariance[np.ix_(m, m)] - gain @ covariance[np.ix_(o, m)]
    return filled, spread


def in_library(library):
    """The engine's own array maker, and the context in which it computes in float64."""
    engine = engines.get({"jax": "numpyro", "torch": "pyro"}[library])
    return engine.asarray, engine.precision(device="cpu"), engine.to_numpy


@pytest.mark.parametrize("shared", [False, True], ids=["full", "tied"])
def test_whitened_distance_is_mahalanobis(shared):
    x, mean, (covariance, factor) = normals(0, shared=shared)
    each = np.broadcast_to(covariance, (3, 4, 4))
    deviation = x[:, None] - mean
    expected = np.einsum("nkd,kde,nke->nk", deviation, np.linalg.inv(each), deviation)
    np.testing.assert_allclose(whitened_distance(x, mean, factor), expected, **ROUNDING)


@pytest.mark.parametrize("library", ["jax", "torch"])
@pytest.mark.parametrize("shared", [False, True], ids=["full", "tied"])
def test_whitened_distance_is_the_same_in_every_library(library, shared):
    x, mean, (_, factor) = normals(1, shared=shared)
    asarray, precision, to_numpy = in_library(library)
    with precision:
        other = to_numpy(whitened_distance(asarray(x), asarray(mean), asarray(factor)))
    np.testing.assert_allclose(other, whitened_distance(x, mean, factor), **ROUNDING)


def test_whitened_distance_leaves_its_arguments_as_they_were():
    # The NumPy route works in place on its own products.
    x, mean, (_, factor) = normals(2)
    copies = x.copy(), mean.copy(), factor.copy()
    whitened_distance(x, mean, factor)
    for array, copy in zip((x, mean, factor), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def diagonal(x, mean, scale):
    z = (x[:, None, :] - mean) * scale
    return np.nansum(z * z, axis=2)


@pytest.mark.parametrize("missing", [False, True])
def test_diagonal_distance_is_the_sum_over_what_is_observed(missing):
    rng = np.random.default_rng(3)
    x, mean = rng.normal(size=(30, 5)), rng.normal(size=(3, 5))
    scale = rng.uniform(0.5, 2.0, size=(3, 5))
    holed = holes(x, 4) if missing else x
    observed = (~np.isnan(holed)).astype(float) if missing else None
    values = np.nan_to_num(holed)
    expected = diagonal(holed, mean, scale)
    found = diagonal_distance(values, observed, mean, scale)
    np.testing.assert_allclose(found, expected, **ROUNDING)
    for library in ("jax", "torch"):
        asarray, precision, to_numpy = in_library(library)
        with precision:
            mask = None if observed is None else asarray(observed)
            other = to_numpy(
                diagonal_distance(asarray(values), mask, asarray(mean), asarray(scale))
            )
        np.testing.assert_allclose(other, expected, **ROUNDING)


@given(st.floats(0.0, 12.0), st.integers(0, 100))
def test_products_are_taken_only_where_they_lose_nothing(log_offset, seed):
    # Far from the origin x^2 p - 2 x m p + m^2 p cancels; there the difference is squared.
    rng = np.random.default_rng(seed)
    offset = 10.0**log_offset
    # What differences keep is the spacing of doubles at the offset: compare from there.
    x = offset + rng.normal(size=(20, 3))
    mean, scale = offset + rng.normal(size=(2, 3)), rng.uniform(0.5, 2.0, size=(2, 3))
    found = diagonal_distance(x, None, mean, scale)
    # The module allows 1e-10 nats of rounding a row, in the expansion's every term; the sum
    # has three terms of that size.
    np.testing.assert_allclose(found, diagonal(x, mean, scale), rtol=1e-12, atol=3e-10)


def test_expansion_switch():
    near, far = np.ones((4, 2)), np.full((4, 2), 1e6)
    unit = np.ones((1, 2))
    assert _expansion_is_safe(near, unit, unit)
    assert not _expansion_is_safe(far, 1e6 * unit, unit)
    assert _expansion_is_safe(np.empty((0, 2)), unit, unit)
    # A tight class makes the same data unsafe: what matters is the distance in deviations.
    assert not _expansion_is_safe(near, unit, 1e12 * unit)


@pytest.mark.parametrize("shared", [False, True], ids=["full", "tied"])
def test_conditional_is_brute_force(shared):
    x, mean, (covariance, factor) = normals(5, shared=shared)
    covariance = np.broadcast_to(covariance, (3, 4, 4))
    holed = holes(x, 6)
    found = conditional(holed, mean, factor)
    embedded = np.zeros((3, len(x), 4, 4))
    for rows, places, spread in found.blocks:
        for r, row in enumerate(rows):
            for k in range(3):
                embedded[k, row][np.ix_(places[r], places[r])] = spread[:, :, k, r]
    for k in range(3):
        for row in range(len(x)):
            filled, spread = brute_force(holed[row], mean[k], covariance[k])
            np.testing.assert_allclose(found.deviation[k, row], filled - mean[k], **ROUNDING)
            np.testing.assert_allclose(embedded[k, row], spread, **ROUNDING)
            m = np.isnan(holed[row])
            precision = np.linalg.inv(covariance[k])[np.ix_(m, m)]
            expected = np.linalg.slogdet(precision)[1] if m.any() else 0.0
            assert found.log_det[row, k] == pytest.approx(expected, abs=1e-11)


def test_conditional_gives_the_marginal_density():
    x, mean, (covariance, factor) = normals(7)
    holed = holes(x, 8)
    given_ = conditional(holed, mean, factor)
    z = given_.deviation @ factor
    distance = (z * z).sum(axis=-1).T
    log_det = 2.0 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    n_observed = (~np.isnan(holed)).sum(axis=1)[:, None]
    found = 0.5 * (log_det - given_.log_det - n_observed * LOG_2PI - distance)
    for row in range(len(x)):
        o = np.flatnonzero(~np.isnan(holed[row]))
        for k in range(3):
            expected = (
                multivariate_normal.logpdf(holed[row, o], mean[k, o], covariance[k][np.ix_(o, o)])
                if len(o)
                else 0.0
            )
            # The acceptance bound for the likelihood of incomplete rows.
            assert found[row, k] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("library", ["jax", "torch"])
@pytest.mark.parametrize("shared", [False, True], ids=["full", "tied"])
def test_the_traced_route_is_the_grouped_one(library, shared):
    x, mean, (_, factor) = normals(9, shared=shared)
    holed = holes(x, 10)
    grouped = conditional(holed, mean, factor)
    asarray, precision, to_numpy = in_library(library)
    with precision:
        dense = conditional(asarray(holed), asarray(mean), asarray(factor))
        np.testing.assert_allclose(to_numpy(dense.deviation), grouped.deviation, **ROUNDING)
        np.testing.assert_allclose(to_numpy(dense.log_det), grouped.log_det, **ROUNDING)
        ((_, _, covariance),) = dense.blocks
        embedded = to_numpy(covariance)
    for rows, places, spread in grouped.blocks:
        for r, row in enumerate(rows):
            block = embedded[:, :, :, row][np.ix_(places[r], places[r])]
            np.testing.assert_allclose(block, spread[..., r], **ROUNDING)
    observed = ~np.isnan(holed)
    either = observed[:, :, None] | observed[:, None, :]  # (n, D, D)
    assert (np.moveaxis(embedded, (2, 3), (0, 1))[:, either] == 0.0).all()


def observed_log_density(x, mean, factor, xp):
    """Sum over rows and classes, up to constants: what a gradient goes through."""
    found = conditional(x, mean, factor)
    z = found.deviation @ factor
    log_det = 2.0 * xp.log(xp.linalg.diagonal(factor)).sum()
    return 0.5 * (log_det * x.shape[0] - found.log_det.sum() - (z * z).sum())


@pytest.mark.parametrize("library", ["jax", "torch"])
def test_gradients_with_missing_entries_are_those_of_finite_differences(library):
    x, mean, (_, factor) = normals(11, n_classes=2, n_columns=3, n_rows=6)
    holed = holes(x, 12)
    if library == "jax":
        asarray, precision, _ = in_library("jax")
        with precision:
            import jax
            import jax.numpy as jnp

            data = asarray(holed)
            gradient = jax.grad(lambda m, f: observed_log_density(data, m, f, jnp), (0, 1))
            found = [np.asarray(g) for g in gradient(asarray(mean), asarray(factor))]
    else:
        leaves = [torch_namespace.asarray(a).requires_grad_() for a in (mean, factor)]
        data = torch_namespace.asarray(holed)
        observed_log_density(data, *leaves, torch_namespace).backward()
        found = [leaf.grad.numpy() for leaf in leaves]

    def value(m, f):
        return observed_log_density(holed, m, f, np)

    step = 1e-5
    for which, gradient in enumerate(found):
        assert np.isfinite(gradient).all()
        for place in np.ndindex(gradient.shape):
            if which == 1 and place[1] > place[2]:
                continue  # below the triangle, where the factor has no entry
            ends = []
            for sign in (1.0, -1.0):
                moved = [mean.copy(), factor.copy()]
                moved[which][place] += sign * step
                ends.append(value(*moved))
            # Central differences at 1e-5: error of order step^2, and rounding 1e-16 / step.
            expected = (ends[0] - ends[1]) / (2.0 * step)
            assert gradient[place] == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.integers(1, 8), st.integers(0, 10_000))
def test_sweep_inverts(width, seed):
    root = np.random.default_rng(seed).normal(size=(5, width, width))
    matrices = root @ np.swapaxes(root, 1, 2) + np.eye(width)
    inverse, log_det = sweep(np.moveaxis(matrices, 0, 2).copy())
    # Condition numbers reach a thousand here; sixteen digits less three.
    np.testing.assert_allclose(
        np.moveaxis(inverse, 2, 0), np.linalg.inv(matrices), rtol=1e-10, atol=1e-11
    )
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrices)[1], rtol=1e-11, atol=1e-11)
