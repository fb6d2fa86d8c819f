"""Rotations against peers, known structures and random rotations undone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from ppl_gen.algorithms.rotation import (
    ROTATIONS,
    align,
    largest_sign,
    orthomax,
    principal,
    procrustes,
    promax,
    simple_structure,
)

D, L = 12, 3
RNG = np.random.default_rng(0)
#: Each column loads on one factor.
SIMPLE = np.eye(L)[np.arange(D) % L] * RNG.uniform(0.5, 2.0, size=(D, 1))


def random_rotation(seed, size=L):
    return ortho_group.rvs(size, random_state=seed)


def criterion(loadings, gamma):
    squares = loadings**2
    return (squares**2).sum() - gamma / len(loadings) * (squares.sum(axis=0) ** 2).sum()


def assert_orthogonal(maps):
    unit = np.broadcast_to(np.eye(maps.shape[-1]), maps.shape)
    np.testing.assert_allclose(maps @ np.swapaxes(maps, -1, -2), unit, atol=1e-12)


# -- simple structure ------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "gamma"), [("varimax", 1.0), ("quartimax", 0.0)])
@pytest.mark.parametrize("seed", range(6))
def test_orthomax_is_scikit_learns(method, gamma, seed):
    from sklearn.decomposition._factor_analysis import _ortho_rotation

    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(D, 4)) * (rng.random((D, 4)) < 0.5) + 0.1 * rng.normal(size=(D, 4))
    rotation = orthomax(loadings, gamma)
    assert_orthogonal(rotation)
    theirs = _ortho_rotation(loadings, method=method, tol=1e-14, max_iter=10_000).T
    # One maximum; where either finds another, ours is to be no lower.
    found, expected = criterion(loadings @ rotation, gamma), criterion(theirs, gamma)
    assert found >= expected * (1.0 - 1e-9)


@pytest.mark.parametrize("gamma", [1.0, 0.0])
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-8, 1.0, 1e8]))
@settings(max_examples=20)
def test_simple_structure_is_found_again_from_any_rotation(gamma, seed, scale):
    turned = scale * SIMPLE @ random_rotation(seed)
    found = turned @ orthomax(turned, gamma)
    # Up to order and signs: each column has one loading, of the size it had.
    sizes = np.sort(np.abs(found), axis=1)
    np.testing.assert_allclose(sizes[:, -1], scale * SIMPLE.sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(sizes[:, :-1], 0.0, atol=1e-6 * scale)


def test_varimax_is_stationary_for_every_small_rotation():
    loadings = RNG.normal(size=(D, L))
    rotation = orthomax(loadings)
    best = criterion(loadings @ rotation, 1.0)
    for seed in range(30):
        skew = np.random.default_rng(seed).normal(size=(L, L))
        small = np.linalg.qr(np.eye(L) + 1e-4 * (skew - skew.T))[0]
        # A step of 1e-4 lowers a maximum by 1e-8 of it; a slope of 1e-6 would show.
        assert criterion(loadings @ rotation @ small, 1.0) <= best * (1.0 + 1e-10)


@pytest.mark.parametrize("loadings", [np.zeros((4, 2)), np.ones((4, 1)), np.ones((3, 2))])
def test_degenerate_loadings_are_rotated_too(loadings):
    assert_orthogonal(orthomax(loadings))


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_simple_structure_does_not_depend_on_the_units_of_columns(rotation):
    loadings = SIMPLE @ random_rotation(3) + 0.1 * RNG.normal(size=(D, L))
    units = 10.0 ** RNG.uniform(-3, 3, size=(D, 1))
    one, other = simple_structure(loadings, rotation), simple_structure(units * loadings, rotation)
    assert_orthogonal(one.orthogonal)
    np.testing.assert_allclose(one.orthogonal, other.orthogonal, atol=1e-6)
    np.testing.assert_allclose(one.oblique, other.oblique, atol=1e-6)


def test_promax_finds_correlated_factors():
    covariance = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
    loadings = SIMPLE @ np.linalg.cholesky(covariance)  # of orthogonal factors
    found = simple_structure(loadings, "promax")
    total = found.orthogonal @ found.oblique
    inverse = np.linalg.inv(total)
    correlated = inverse @ inverse.T
    np.testing.assert_allclose(np.diag(correlated), 1.0, rtol=1e-12)
    pattern = loadings @ total
    np.testing.assert_allclose(pattern @ correlated @ pattern.T, loadings @ loadings.T, atol=1e-12)
    # Promax at power 4 only leans towards the structure: varimax shows correlations of zero.
    sizes = np.sort(np.abs(correlated[np.triu_indices(L, 1)]))
    assert sizes[-1] > 0.3
    assert sizes[:2].max() < 0.15
    small = np.sort(np.abs(pattern), axis=1)[:, :-1]
    varimax = np.sort(np.abs(loadings @ found.orthogonal), axis=1)[:, :-1]
    assert small.max() < varimax.max()


def test_promax_of_simple_structure_leaves_it():
    np.testing.assert_allclose(promax(SIMPLE), np.eye(L), atol=1e-12)


@pytest.mark.parametrize("rank", [0, 1])
def test_promax_of_fewer_factors_than_there_are(rank):
    loadings = np.zeros((D, 2))
    loadings[:, :rank] = RNG.normal(size=(D, rank))
    found = simple_structure(loadings, "promax")
    np.testing.assert_array_equal(found.oblique, np.eye(2))


# -- one orientation -----------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_procrustes_undoes_a_rotation(seed):
    rotation = random_rotation(seed)
    np.testing.assert_allclose(procrustes(SIMPLE @ rotation, SIMPLE), rotation.T, atol=1e-10)


def test_procrustes_is_the_nearest_of_many():
    loadings, target = RNG.normal(size=(2, D, L))
    best = np.linalg.norm(loadings @ procrustes(loadings, target) - target)
    for seed in range(200):
        assert best <= np.linalg.norm(loadings @ random_rotation(seed) - target)


def turned_draws(spread, n_draws=300, seed=0):
    """Draws about common loadings, each turned by a rotation (or reflection) of its own."""
    rng = np.random.default_rng(seed)
    draws = SIMPLE + spread * rng.normal(size=(n_draws, D, L))
    turns = np.stack([random_rotation(s) for s in range(n_draws)])
    return draws, draws @ turns


@pytest.mark.parametrize("pivot", [0, 17])
def test_draws_are_turned_to_one_orientation(pivot):
    draws, turned = turned_draws(0.05)
    maps = align(turned, pivot=pivot)
    assert_orthogonal(maps)
    found = turned @ maps
    # As close to their mean as before they were turned: no less, for alignment is free to fit.
    spread = ((found - found.mean(axis=0)) ** 2).sum()
    assert spread <= ((draws - draws.mean(axis=0)) ** 2).sum() * (1.0 + 1e-9)
    assert spread >= 0.8 * ((draws - draws.mean(axis=0)) ** 2).sum()  # L (L-1)/2 of D L directions
    mean = found.mean(axis=0)
    np.testing.assert_allclose(mean @ mean.T, SIMPLE @ SIMPLE.T, atol=0.1)


def test_the_orientation_is_that_of_the_principal_axes_of_the_mean():
    _, turned = turned_draws(0.05)
    mean = (turned @ align(turned)).mean(axis=0)
    square = mean.T @ mean
    np.testing.assert_allclose(square, np.diag(np.diag(square)), atol=1e-6)
    assert (np.diff(np.diag(square)) <= 0.0).all()
    assert (largest_sign(mean) == 1.0).all()


def test_one_factor_has_signs_only():
    draws = RNG.normal(1.0, 0.1, size=(50, 4, 1)) * RNG.choice([-1.0, 1.0], size=(50, 1, 1))
    maps = align(draws)
    np.testing.assert_allclose(np.abs(maps), 1.0)
    assert (draws @ maps > 0.0).all()


def test_factors_without_loadings_do_no_harm():
    assert_orthogonal(align(np.zeros((3, D, L))))
    turned = turned_draws(0.05)[1]
    turned[:, :, 1:] = 0.0
    assert np.isfinite(align(turned)).all()


def test_more_factors_than_columns_are_turned():
    assert_orthogonal(principal(RNG.normal(size=(2, 4))))
