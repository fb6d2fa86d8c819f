"""Normals with factors against dense normals, brute force and closed forms.

The contract of every family (`test_base`, `test_engines`) holds for three members of this one.
"""

import numpy as np
import pytest
from family_members import FACTORS, case, punched
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from ppl_gen import EM, FactorNormal, Mixture
from ppl_gen.algorithms.trees import tree_sum
from ppl_gen.engines.random_source import NumPyRandom

K, D, L = 2, 5, 2
RNG = np.random.default_rng(0)
PARAMETERS = {
    "mean": RNG.normal(size=(K, D)),
    "loadings": RNG.normal(size=(K, D, L)),
    "noise_variance": RNG.uniform(0.2, 2.0, size=(K, D)),
}
ROWS = RNG.normal(size=(30, D))
HOLED = np.where(RNG.random(ROWS.shape) < 0.3, np.nan, ROWS)
HOLED[0], HOLED[1] = ROWS[0], np.nan


def covariances(parameters):
    noise = parameters["noise_variance"]
    noise = noise if noise.ndim == 2 else np.repeat(noise[:, None], D, axis=1)
    loadings = parameters["loadings"]
    return loadings @ np.swapaxes(loadings, 1, 2) + noise[:, :, None] * np.eye(D)


def bound(x=ROWS, n_factors=L, n_classes=K, **more):
    return FactorNormal(n_factors, **more).bind(x, n_classes)


def posterior_of_factors(row, parameters, k):
    """Mean and covariance of the factors, from the joint normal of row and factors."""
    seen = ~np.isnan(row)
    loadings = parameters["loadings"][k][seen]
    covariance = covariances(parameters)[k][np.ix_(seen, seen)]
    gain = np.linalg.solve(covariance, loadings).T
    return gain @ (row - parameters["mean"][k])[seen], np.eye(L) - gain @ loadings


# -- density and factors ------------------------------------------------------------------------


@pytest.mark.parametrize("x", [ROWS, HOLED], ids=["complete", "holes"])
@pytest.mark.parametrize("noise", ["diag", "isotropic"])
def test_the_density_is_that_of_the_dense_normal(x, noise):
    parameters = dict(PARAMETERS)
    if noise == "isotropic":
        parameters["noise_variance"] = np.array([0.3, 1.7])
    found = bound(x, noise=noise).log_prob(parameters, x)
    for k, covariance in enumerate(covariances(parameters)):
        for row, value in zip(x, found[:, k], strict=True):
            seen = ~np.isnan(row)
            expected = 0.0
            if seen.any():
                mean = parameters["mean"][k][seen]
                dense = covariance[np.ix_(seen, seen)]
                expected = multivariate_normal(mean, dense).logpdf(row[seen])
            assert value == pytest.approx(expected, rel=0.0, abs=1e-10)  # the acceptance bound


def test_a_tiny_noise_costs_no_digits():
    # Loadings a million times the noise: expanding the squared distance would lose 12 digits.
    parameters = {**PARAMETERS, "noise_variance": np.full((K, D), 1e-12)}
    labels = np.zeros(20, dtype=int)
    rows = bound().sample(parameters, labels, NumPyRandom(0))
    found = bound().log_prob(parameters, rows)[:, 0]
    # In long double: log det by the (L, L) matrix, distance by the residual of least squares.
    scaled = (PARAMETERS["loadings"][0] * 1e6).astype(np.longdouble)
    z = ((rows - PARAMETERS["mean"][0]) * 1e6).astype(np.longdouble)
    a, b, c = (scaled[:, i] @ scaled[:, j] for i, j in ((0, 0), (0, 1), (1, 1)))
    a, c = a + 1, c + 1
    det = a * c - b * b
    u, v = z @ scaled[:, 0], z @ scaled[:, 1]
    factors = np.stack([c * u - b * v, a * v - b * u], axis=1) / det
    rest = z - factors @ scaled.T
    distance = (rest**2).sum(axis=1) + (factors**2).sum(axis=1)
    log_det = np.log(det) - 2 * D * np.log(np.longdouble(1e6))
    expected = -0.5 * (D * np.log(2 * np.pi) + log_det + distance)
    # Rows of the order of one, in units of 1e-6, are rounded to 1e-10 of them.
    np.testing.assert_allclose(found, expected.astype(float), rtol=1e-8)


def test_factors_are_those_of_the_joint_normal():
    given = bound(HOLED).given(PARAMETERS, HOLED)
    for k in range(K):
        for n, row in enumerate(HOLED):
            mean, covariance = posterior_of_factors(row, PARAMETERS, k)
            np.testing.assert_allclose(given.mean[k, n], mean, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(given.covariance[k, n], covariance, rtol=1e-10, atol=1e-12)


def test_factors_are_drawn_from_their_posterior():
    family = bound(HOLED)
    for row in (HOLED[0], HOLED[2]):
        x = np.repeat(row[None], 40_000, axis=0)
        drawn = family.draw_factors(PARAMETERS, x, np.ones(len(x), dtype=int), NumPyRandom(0))
        mean, covariance = posterior_of_factors(row, PARAMETERS, 1)
        # Five standard errors of 40,000 draws.
        error = np.sqrt(np.diag(covariance) / len(x))
        assert (np.abs(drawn.mean(axis=0) - mean) < 5.0 * error).all()
        found = np.cov(drawn.T, bias=True)
        size = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        assert (np.abs(found - covariance) < 5.0 * np.sqrt(2.0 / len(x)) * size).all()


# -- EM -------------------------------------------------------------------------------------------


def brute_force_statistics(parameters, x, r):
    """Sums of the factors' moments, one row and one entry at a time."""
    size = L + 1
    moments, cross = np.zeros((K, D, size, size)), np.zeros((K, D, size))
    factors, square = np.zeros((K, size, size)), np.zeros((K, D))
    for n, row in enumerate(x):
        for k in range(K):
            mean, covariance = posterior_of_factors(row, parameters, k)
            lifted = np.append(mean, 1.0)
            second = np.outer(lifted, lifted)
            second[:L, :L] += covariance
            factors[k] += r[n, k] * second
            for d in np.flatnonzero(~np.isnan(row)):
                moments[k, d] += r[n, k] * second
                cross[k, d] += r[n, k] * row[d] * lifted
                square[k, d] += r[n, k] * row[d] ** 2
    return {"moments": moments, "cross": cross, "square": square, "factors": factors}


@pytest.mark.parametrize("x", [ROWS, HOLED], ids=["complete", "holes"])
def test_statistics_are_the_factors_moments_by_column(x):
    family = bound(x)
    r = np.random.default_rng(1).dirichlet(np.ones(K), size=len(x))
    found = family.statistics(PARAMETERS, x, r)
    about = x - family.terms["mean"]
    shifted = {**PARAMETERS, "mean": PARAMETERS["mean"] - family.terms["mean"]}
    for name, expected in brute_force_statistics(shifted, about, r).items():
        value = np.broadcast_to(found[name], expected.shape)
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-10)


def test_the_step_is_the_regression_on_the_factors():
    """One step of EM by hand: Rubin & Thayer's equations for a table without holes."""
    family = bound(ROWS, n_classes=1)
    parameters = {name: leaf[:1] for name, leaf in PARAMETERS.items()}
    parameters["mean"] = ROWS.mean(axis=0)[None]  # where it stays, as they assume
    loadings, noise = parameters["loadings"][0], parameters["noise_variance"][0]
    gain = np.linalg.solve(loadings @ loadings.T + np.diag(noise), loadings).T
    covariance = np.cov(ROWS.T, bias=True)
    second = np.eye(L) - gain @ loadings + gain @ covariance @ gain.T
    regressed = covariance @ gain.T @ np.linalg.inv(second)
    rest = np.diag(covariance - regressed @ gain @ covariance)
    found = family.estimate(family.statistics(parameters, ROWS, np.ones((len(ROWS), 1))))
    np.testing.assert_allclose(found["noise_variance"][0], rest, rtol=1e-10)
    # The expanded step gives the factors the second moments they were found to have.
    expected = regressed @ second @ regressed.T
    np.testing.assert_allclose(
        found["loadings"][0] @ found["loadings"][0].T, expected, rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(found["mean"][0], ROWS.mean(axis=0), rtol=1e-10)


@pytest.mark.parametrize("prior", [None, "default"])
@pytest.mark.parametrize("name", FACTORS)
@given(seed=st.integers(0, 10_000), missing=st.booleans())
@settings(max_examples=10)
def test_a_step_of_em_never_lowers_the_objective(name, prior, seed, missing):
    c = case(name, seed, missing=missing, change=lambda part: part.replace(prior=prior))
    parameters, before = c.parameters, -np.inf
    for _ in range(5):
        log_prob, statistics_of = c.family.e_step(parameters, c.x)
        statistics = statistics_of(c.responsibilities)
        likelihood = float((c.responsibilities * log_prob).sum())
        assert likelihood >= before - 1e-9 * (abs(likelihood) + len(c.x))
        updated = c.family.estimate(statistics)
        rise = c.family.penalty(updated, statistics) - c.family.penalty(parameters, statistics)
        before, parameters = likelihood + rise, updated


@pytest.mark.parametrize("noise", ["diag", "isotropic"])
@pytest.mark.parametrize("prior", [None, "default"])
def test_where_em_ends_no_direction_rises(noise, prior):
    """The end of EM with missing entries is a maximum of the marginal likelihood (and prior)."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(150, 2)) @ rng.normal(size=(2, D)) + 0.7 * rng.normal(size=(150, D))
    x = punched(x, rng, 0.2)
    family = bound(x, 1 if noise == "diag" else 2, 1, noise=noise, prior=prior)
    parameters, r = family.initial_parameters(x, np.ones((150, 1)), rng), np.ones((150, 1))
    for _ in range(1500):
        parameters = family.estimate(family.statistics(parameters, x, r))

    def objective(parameters):
        penalty = family.penalty(parameters, {})
        return float(family.log_prob(parameters, x).sum()) - penalty

    top, step = objective(parameters), 1e-4
    for seed in range(20):
        draws = np.random.default_rng(seed)
        away = {name: draws.normal(size=leaf.shape) for name, leaf in parameters.items()}
        ends = []
        for sign in (step, -step):
            moved = {name: parameters[name] + sign * away[name] for name in parameters}
            moved["noise_variance"] = parameters["noise_variance"] * np.exp(
                sign * away["noise_variance"]
            )
            ends.append(objective(moved))
        # Steps of 1e-4 lower a maximum of about 1e3 nats by 1e-6 or so, far above its rounding,
        # 1e-13, which the slope has over 2e-4. Off the end by a step of EM it is of the order of 1.
        assert max(ends) < top
        assert abs(ends[0] - ends[1]) / (2.0 * step) < 1e-3


def test_one_class_of_complete_rows_starts_at_the_maximum():
    x = np.random.default_rng(0).normal(size=(200, 2)) @ RNG.normal(size=(2, D))
    x = x + RNG.normal(size=x.shape)
    for noise in ("diag", "isotropic"):
        model = Mixture(1, FactorNormal(2, noise), inference=EM(tol=1e-10)).fit(x)
        # Ten digits: closed form and quasi-Newton against the fixed point of EM.
        assert np.ptp(model.history_) < 1e-9


def test_weights_are_counts():
    x = np.random.default_rng(0).normal(size=(60, 3)) @ RNG.normal(size=(3, 3))
    counts = np.random.default_rng(1).integers(0, 4, size=60).astype(float)
    family = FactorNormal(1).bind(x, 1)
    once = family.initial_parameters(x, counts[:, None], np.random.default_rng(0))
    again = np.repeat(x, counts.astype(int), axis=0)
    twice = family.initial_parameters(again, np.ones((len(again), 1)), np.random.default_rng(0))
    totals = [(counts @ family.log_prob(found, x))[0] for found in (once, twice)]
    # One maximum, where the optimiser stops at a gradient of 1e-9 nats a row.
    assert totals[0] == pytest.approx(totals[1], abs=1e-5)


def test_statistics_of_complete_and_holed_chunks_add():
    family = bound(HOLED)
    r = np.ones((len(HOLED), K))
    whole = family.statistics(PARAMETERS, HOLED, r)
    complete = ~np.isnan(HOLED).any(axis=1)
    parts = [family.statistics(PARAMETERS, HOLED[m], r[m]) for m in (complete, ~complete)]
    for name, leaf in tree_sum(parts).items():
        np.testing.assert_allclose(leaf, whole[name], rtol=1e-11, atol=1e-11)


# -- edges ----------------------------------------------------------------------------------------


def test_a_class_without_rows_is_as_wide_as_the_data():
    family = bound()
    nothing = np.zeros((len(ROWS), K))
    nothing[:, 0] = 1.0
    found = family.estimate(family.statistics(PARAMETERS, ROWS, nothing))
    np.testing.assert_allclose(found["noise_variance"][1], ROWS.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["loadings"][1], 0.0, atol=1e-12)
    assert np.isfinite(family.log_prob(found, ROWS)).all()


def test_a_column_that_a_class_never_shows():
    x = HOLED.copy()
    x[:15, 0] = np.nan
    r = np.eye(K)[np.arange(30) // 15]
    family = bound(x)
    for _ in range(3):
        found = family.estimate(family.statistics(PARAMETERS, x, r))
    assert np.isfinite(family.log_prob(found, ROWS)).all()


def test_constant_columns_and_few_rows_reach_the_floor():
    x = np.random.default_rng(0).normal(size=(4, 6))
    x[:, 2] = 3.0
    for noise in ("diag", "isotropic"):
        family = FactorNormal(3, noise).bind(x, 1)
        found = family.initial_parameters(x, np.ones((4, 1)), RNG)
        assert np.isfinite(family.log_prob(found, x)).all()
        assert (found["noise_variance"] > 0.0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_factors": 0}, "n_factors is 0.*n_features=5.*fewer than the columns"),
        ({"n_factors": 5}, "n_factors is 5.*n_features=5.*fewer than the columns"),
        ({"n_factors": 1.5}, "n_factors is 1.5.*whole number"),
        ({"noise": "full"}, "noise is 'full'; expected 'diag' or 'isotropic'"),
        ({"prior": "flat"}, "prior is 'flat'; expected None or 'default'"),
        ({"noise_floor": 0.0}, "noise_floor is 0.0; expected a share"),
        ({"noise_floor": np.nan}, "noise_floor is nan; expected a share"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        bound(**change)


def test_an_unbound_family_says_so():
    with pytest.raises(ValueError, match="not bound to data"):
        FactorNormal(1).log_prob(PARAMETERS, ROWS)


def test_a_mixture_of_factor_analysers_finds_its_components():
    rng = np.random.default_rng(5)
    loadings = np.array([[2.0, 0, 2, 0, 0], [0, 2.0, 0, 2, 2]])
    z = rng.integers(2, size=400)
    f = rng.normal(size=(400, 1))
    # The same mean for both: only the factors tell the components apart.
    x = f * loadings[z] + 0.3 * rng.normal(size=(400, 5))
    x = np.where(rng.random(x.shape) < 0.1, np.nan, x)
    model = Mixture(2, FactorNormal(1), inference=EM(n_init=5), random_state=0).fit(x)
    found = model.predict(x)
    agreement = (found == z).mean()
    assert max(agreement, 1.0 - agreement) > 0.85  # most rows are far from the common mean
