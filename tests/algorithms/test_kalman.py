"""Kalman recursions against the dense joint normal of all states and observations."""

import numpy as np
import pytest
from dense_gaussian import conditioned, data, joint, lagged_model, random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from ppl_gen import engines
from ppl_gen.algorithms.companion import companion_form
from ppl_gen.algorithms.kalman import LinearGaussian, kalman_filter, kalman_smoother
from ppl_gen.algorithms.kalman_paths import draw_states, forecast, root, simulate, stationary

# The acceptance bound of the project for both comparisons; well-conditioned problems stay at 1e-12.
BOUND = {"rtol": 1e-8, "atol": 1e-8}


def check_against_dense(model, x, filtered, smoothed):
    """Every mean, covariance, cross-covariance and density of every sequence."""
    n, n_steps, _ = x.shape
    states = len(model.initial_mean)
    for i in range(n):
        for t in range(n_steps):
            block = slice(t * states, (t + 1) * states)
            for known, mean, covariance in (
                (t, filtered.predicted_mean, filtered.predicted_covariance),
                (t + 1, filtered.mean, filtered.covariance),
                (n_steps, smoothed.mean, smoothed.covariance),
            ):
                expected, spread = conditioned(model, x[i], known)
                np.testing.assert_allclose(mean[i, t], expected[block], **BOUND)
                np.testing.assert_allclose(covariance[i, t], spread[block, block], **BOUND)
            if t > 0:
                before = slice((t - 1) * states, t * states)
                np.testing.assert_allclose(
                    smoothed.lag_one[i, t - 1], spread[block, before], **BOUND
                )
        mean, full = joint(model, n_steps)
        flat = x[i].ravel()
        seen = np.flatnonzero(~np.isnan(flat))
        places = n_steps * states + seen
        density = multivariate_normal(mean[places], full[np.ix_(places, places)])
        expected = density.logpdf(flat[seen]) if len(seen) else 0.0
        assert filtered.log_evidence[i] == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("parallel", [False, True], ids=["steps", "rounds"])
@pytest.mark.parametrize(("n_states", "n_columns"), [(1, 1), (2, 3), (3, 2), (4, 1)])
def test_filter_and_smoother_are_the_dense_conditional(n_states, n_columns, parallel):
    model = random_model(n_states, n_columns, seed=n_states)
    x = data(model)
    filtered = kalman_filter(model, x, parallel=parallel)
    check_against_dense(model, x, filtered, kalman_smoother(model, filtered, parallel=parallel))


@pytest.mark.parametrize("parallel", [False, True], ids=["steps", "rounds"])
def test_singular_covariances(parallel):
    model = lagged_model()
    x = data(model)
    filtered = kalman_filter(model, x, parallel=parallel)
    check_against_dense(model, x, filtered, kalman_smoother(model, filtered, parallel=parallel))


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 10_000))
def test_lags_seen_in_part(order, width, seed):
    """Autoregressions: sensors and most states have no noise; some columns are missing."""
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(size=(order, width, width))
    companion = companion_form(coefficients, np.zeros(width), None, np.eye(width)).transition
    coefficients *= 0.9 / np.abs(np.linalg.eigvals(companion)).max()
    square = rng.normal(size=(width, width))
    noise = square @ square.T + 0.3 * np.eye(width)
    model = companion_form(coefficients, rng.normal(size=width), None, noise)
    x = rng.normal(size=(1, 8, width))
    x[rng.random(x.shape) < 0.3] = np.nan
    for parallel in (False, True):
        filtered = kalman_filter(model, x, parallel=parallel)
        smoothed = kalman_smoother(model, filtered, parallel=parallel)
        check_against_dense(model, x, filtered, smoothed)


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000))
def test_both_routes_agree(n_steps, n_states, n_columns, seed):
    model = random_model(n_states, n_columns, seed)
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((2, n_steps, n_columns)) < 0.3, np.nan, 5.0)
    x = x * rng.normal(size=x.shape)
    steps, rounds = (kalman_filter(model, x, parallel=p) for p in (False, True))
    for a, b in zip(steps, rounds, strict=True):
        np.testing.assert_allclose(a, b, **BOUND)
    for a, b in zip(
        kalman_smoother(model, steps, parallel=False),
        kalman_smoother(model, rounds, parallel=True),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, **BOUND)


def test_both_routes_agree_on_a_long_sequence():
    model = random_model(3, 2, seed=5)
    x = data(model, n=2, n_steps=3000, share=0.1)
    steps, rounds = (kalman_filter(model, x, parallel=p) for p in (False, True))
    for a, b in zip(steps, rounds, strict=True):
        np.testing.assert_allclose(a, b, **BOUND)
    for a, b in zip(
        kalman_smoother(model, steps, parallel=False),
        kalman_smoother(model, steps, parallel=True),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, **BOUND)


@pytest.mark.parametrize("library", ["jax", "torch"])
def test_other_libraries_find_the_same(library):
    engine = engines.get({"jax": "numpyro", "torch": "pyro"}[library])
    model = random_model(2, 3, seed=1)
    x = data(model, n_steps=7)
    expected = kalman_filter(model, x)
    smoothed = kalman_smoother(model, expected)
    with engine.precision(device="cpu"):
        moved = LinearGaussian(*map(engine.asarray, model))

        def both_ways(model, x, parallel):
            found = kalman_filter(model, x, parallel=parallel)
            return found, kalman_smoother(model, found, parallel=parallel)

        if library == "jax":
            import jax

            both_ways = jax.jit(both_ways, static_argnums=2)
        for parallel in (None, True):
            found, both = both_ways(moved, engine.asarray(x), parallel)
            for a, b in zip((*found, *both), (*expected, *smoothed), strict=True):
                np.testing.assert_allclose(engine.to_numpy(a), b, rtol=1e-11, atol=1e-11)


def test_the_gradient_of_the_log_evidence_is_that_of_finite_differences():
    engine = engines.get("numpyro")
    model = random_model(2, 2, seed=2)
    x = data(model)
    with engine.precision(device="cpu"):
        import jax

        rows = engine.asarray(x)
        gradient = jax.jit(jax.grad(lambda m: kalman_filter(m, rows).log_evidence.sum()))
        found = [engine.to_numpy(g) for g in gradient(LinearGaussian(*map(engine.asarray, model)))]
    step = 1e-5
    for which, array in enumerate(model):
        for place in np.ndindex(array.shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = [np.array(a) for a in model]
                moved[which][place] += sign * step
                if array.shape == array.T.shape and "covariance" in model._fields[which]:
                    # The density takes covariances as symmetric: both halves move.
                    moved[which] = 0.5 * (moved[which] + moved[which].T)
                ends.append(kalman_filter(LinearGaussian(*moved), x).log_evidence.sum())
            expected = (ends[0] - ends[1]) / (2.0 * step)
            gained = found[which]
            if "covariance" in model._fields[which]:
                gained = 0.5 * (gained + gained.T)
            # Central differences at 1e-5: error of order step^2, and rounding 1e-14 / step.
            assert gained[place] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_padding_changes_nothing():
    model = random_model(2, 2, seed=3)
    x = data(model, n=1, n_steps=5, share=0.2)[:, :3]
    padded = np.concatenate([x, np.full((1, 4, 2), np.nan)], axis=1)
    for parallel in (False, True):
        short, long = (kalman_filter(model, rows, parallel=parallel) for rows in (x, padded))
        assert short.log_evidence == pytest.approx(long.log_evidence, rel=1e-13)
        for a, b in zip(
            kalman_smoother(model, short, parallel=parallel)[:2],
            kalman_smoother(model, long, parallel=parallel)[:2],
            strict=True,
        ):
            np.testing.assert_allclose(a, b[:, :3], rtol=1e-11, atol=1e-11)


def test_forecasts_are_the_dense_conditional():
    model = random_model(2, 3, seed=4)
    x = data(model, n=2, n_steps=4)
    filtered = kalman_filter(model, x)
    found = forecast(model, filtered.mean[:, -1], filtered.covariance[:, -1], 3)
    for i in range(2):
        longer = np.concatenate([x[i], np.full((3, 3), np.nan)])
        mean, full = conditioned(model, longer, 4)
        for h in range(3):
            states = slice((4 + h) * 2, (5 + h) * 2)
            columns = slice(14 + (4 + h) * 3, 14 + (5 + h) * 3)
            np.testing.assert_allclose(found.mean[i, h], mean[states], **BOUND)
            np.testing.assert_allclose(found.covariance[i, h], full[states, states], **BOUND)
            np.testing.assert_allclose(found.observation_mean[i, h], mean[columns], **BOUND)
            np.testing.assert_allclose(
                found.observation_covariance[i, h], full[columns, columns], **BOUND
            )


@pytest.mark.parametrize(
    "model", [random_model(2, 1, seed=6), lagged_model()], ids=["full", "lags"]
)
def test_draws_of_states_have_the_posterior_moments(model):
    x = data(model, n=2, n_steps=5)
    filtered = kalman_filter(model, x)
    smoothed = kalman_smoother(model, filtered)
    size = 20_000
    states = len(model.initial_mean)
    noise = np.random.default_rng(0).normal(size=(size, 2, 5, states))
    draws = draw_states(model, filtered, noise)
    assert draws.shape == noise.shape
    # Five standard errors of a mean, and of a covariance, over twenty thousand draws.
    deviation = np.sqrt(np.maximum(np.diagonal(smoothed.covariance, axis1=-2, axis2=-1), 0.0))
    error = 5.0 * size**-0.5
    assert (np.abs(draws.mean(axis=0) - smoothed.mean) <= error * deviation + 1e-7).all()
    away = draws - smoothed.mean
    spread = np.einsum("snti,sntj->ntij", away, away) / size
    lagged = np.einsum("snti,sntj->ntij", away[:, :, 1:], away[:, :, :-1]) / size
    size_of = deviation[..., :, None] * deviation[..., None, :]
    lagged_size = deviation[:, 1:, :, None] * deviation[:, :-1, None, :]
    assert (np.abs(spread - smoothed.covariance) <= 1.5 * error * size_of + 1e-7).all()
    assert (np.abs(lagged - smoothed.lag_one) <= 1.5 * error * lagged_size + 1e-7).all()


def test_simulated_sequences_have_the_moments_of_the_joint():
    model = random_model(2, 2, seed=7)
    rng = np.random.default_rng(0)
    size = 20_000
    states, x = simulate(model, rng.normal(size=(size, 3, 2)), rng.normal(size=(size, 3, 2)))
    flat = np.concatenate([states.reshape(size, -1), x.reshape(size, -1)], axis=1)
    mean, full = joint(model, 3)
    deviation = np.sqrt(np.diagonal(full))
    error = 5.0 * size**-0.5
    assert (np.abs(flat.mean(axis=0) - mean) < error * deviation).all()
    spread = np.cov(flat.T)
    assert (np.abs(spread - full) < 1.5 * error * np.outer(deviation, deviation)).all()


def test_one_step():
    model = random_model(2, 1, seed=8)
    for parallel in (False, True):
        filtered = kalman_filter(model, np.array([[[0.3]]]), parallel=parallel)
        smoothed = kalman_smoother(model, filtered, parallel=parallel)
        np.testing.assert_array_equal(smoothed.mean, filtered.mean)
        assert smoothed.lag_one.shape == (1, 0, 2, 2)
    states, x = simulate(model, np.ones((4, 1, 2)), np.zeros((4, 1, 1)))
    assert (states.shape, x.shape) == ((4, 1, 2), (4, 1, 1))


def test_covariances_stay_positive_over_a_long_precise_series():
    """Joseph's form: a nearly exact sensor and a vague start, where P - K H P turns negative."""
    one = np.eye(1)
    trend = LinearGaussian(
        np.zeros(2),
        1e7 * np.eye(2),
        np.array([[1.0, 1.0], [0.0, 1.0]]),
        np.zeros(2),
        np.diag([0.0, 1e-10]),
        np.array([[1.0, 0.0]]),
        np.zeros(1),
        1e-8 * one,
    )
    x = np.linspace(0.0, 5.0, 500)[None, :, None]
    for parallel in (False, True):
        filtered = kalman_filter(trend, x, parallel=parallel)
        smoothed = kalman_smoother(trend, filtered, parallel=parallel)
        for covariance in (filtered.covariance, smoothed.covariance):
            values = np.linalg.eigvalsh(covariance)
            assert (values[..., 0] >= -1e-12 * values[..., -1]).all()
        # The line itself: its steps are 5 / 499 wide.
        np.testing.assert_allclose(smoothed.mean[0, :, 1], 5.0 / 499.0, atol=1e-5)


def test_stationary_moments_are_fixed_points():
    model = random_model(3, 1, seed=9)
    transition, offset, noise = (
        model.transition,
        model.transition_offset,
        model.transition_covariance,
    )
    mean, covariance = stationary(transition, offset, noise)
    np.testing.assert_allclose(transition @ mean + offset, mean, atol=1e-12)
    np.testing.assert_allclose(
        transition @ covariance @ transition.T + noise, covariance, atol=1e-10
    )
    with pytest.raises(ValueError, match="spectral radius"):
        stationary(np.eye(1), np.zeros(1), np.eye(1))


def test_roots_of_singular_covariances():
    half = np.array([[1.0, 2.0], [0.5, 1.0]])
    covariance = half @ half.T
    np.testing.assert_allclose(root(covariance) @ root(covariance).T, covariance, atol=1e-14)
