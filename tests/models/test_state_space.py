"""LinearGaussianStateSpace: known answers, containers, keeping, and bad input."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from dense_gaussian import conditioned, random_model

import ppl_gen
from ppl_gen import EM, NUTS, LinearGaussianStateSpace, engines
from ppl_gen.algorithms.kalman_paths import simulate
from ppl_gen.datasets import load_nile
from ppl_gen.sequences import Sequences

LEVEL = {
    "transition": 1.0,
    "observation": 1.0,
    "observation_offset": 0.0,
    "initial_mean": 0.0,
    "initial_covariance": 1e7,
}


@pytest.fixture(scope="module")
def flow():
    return load_nile().frame["flow"].to_numpy()


@pytest.fixture(scope="module")
def level(flow):
    """The local level model of the Nile, by maximum likelihood."""
    return LinearGaussianStateSpace(1, **LEVEL, inference=EM(max_iter=2000, tol=1e-11)).fit(flow)


def three_series(seed=0, lengths=(40, 25, 30)):
    """Sequences of two states in three columns, with holes, and the model they are from."""
    rng = np.random.default_rng(seed)
    model = random_model(2, 3, seed)
    found = []
    for length in lengths:
        _, x = simulate(model, rng.normal(size=(length, 2)), rng.normal(size=(length, 3)))
        x[rng.random(x.shape) < 0.1] = np.nan
        found.append(x)
    return found, model


@pytest.fixture(scope="module")
def fitted():
    X, _ = three_series()
    return LinearGaussianStateSpace(2, inference=EM(max_iter=30), random_state=0).fit(X)


def given(model, **changes):
    """A model whose parameters are all given."""
    return LinearGaussianStateSpace(len(model.initial_mean), **{**model._asdict(), **changes})


# -- known answers -----------------------------------------------------------------------------


def test_the_nile_has_the_published_variances(level, flow):
    # Durbin & Koopman (2012), section 2.10.3, whose start is diffuse where ours is wide.
    assert level.observation_covariance_[0, 0] == pytest.approx(15099.0, rel=1e-3)
    assert level.transition_covariance_[0, 0] == pytest.approx(1469.1, rel=1e-3)
    # And no variances beside them are likelier.
    for noise, move in ((1.02, 1.0), (0.98, 1.0), (1.0, 1.02), (1.0, 0.98)):
        other = LinearGaussianStateSpace(
            1,
            **LEVEL,
            observation_covariance=noise * level.observation_covariance_,
            transition_covariance=move * level.transition_covariance_,
        )
        assert other.fit(flow).score(flow) < level.score(flow)


def test_the_nile_filtered_and_smoothed_is_the_scalar_recursion(level, flow):
    """Durbin & Koopman, equations 2.15 and 2.37 to 2.39, written out for one number."""
    noise, move = level.observation_covariance_[0, 0], level.transition_covariance_[0, 0]
    a, p, steps = 0.0, 1e7, []
    for y in flow:
        v, f = y - a, p + noise
        k = p / f
        steps.append((a, p, v, f, k))
        a, p = a + k * v, p * (1.0 - k) + move
    r, n, smooth = 0.0, 0.0, []
    for a, p, v, f, k in reversed(steps):
        r, n = v / f + (1.0 - k) * r, 1.0 / f + (1.0 - k) ** 2 * n
        smooth.append((a + p * r, p - p * p * n))
    expected = np.array(smooth[::-1])
    mean, covariance = level.smooth(flow, return_covariance=True)
    np.testing.assert_allclose(mean[:, 0], expected[:, 0], rtol=1e-8)
    # p - p p n subtracts numbers of 1e7: seven digits are lost to it, not to ours.
    np.testing.assert_allclose(covariance[:, 0, 0], expected[:, 1], rtol=1e-6)
    filtered, spread = level.filter(flow, return_covariance=True)
    np.testing.assert_allclose(filtered[:, 0], [a + k * v for a, p, v, f, k in steps], rtol=1e-10)
    np.testing.assert_allclose(spread[:, 0, 0], [p * noise / f for a, p, v, f, k in steps])
    log_prob = sum(-0.5 * (np.log(2 * np.pi * f) + v * v / f) for a, p, v, f, k in steps)
    assert level.score(flow) == pytest.approx(log_prob, rel=1e-10)
    np.testing.assert_array_equal(level.transform(flow), mean)


def test_the_nile_with_years_missing(level, flow):
    """Durbin & Koopman, section 2.7: years 21 to 40 and 61 to 80 left out."""
    holed = flow.copy()
    holed[20:40] = holed[60:80] = np.nan
    _, spread = level.filter(holed, return_covariance=True)
    move = level.transition_covariance_[0, 0]
    # While nothing is seen the level walks on: its variance grows by Q a year.
    np.testing.assert_allclose(np.diff(spread[19:40, 0, 0]), move, rtol=1e-10)
    filled = level.impute(holed)
    assert filled.shape == (100, 1)
    np.testing.assert_array_equal(filled[:20, 0], flow[:20])
    np.testing.assert_allclose(filled[20:40, 0], level.smooth(holed)[20:40, 0], rtol=1e-12)
    # Between two ends a walk is expected on the straight line.
    np.testing.assert_allclose(np.diff(filled[20:40, 0], 2), 0.0, atol=1e-6)


def test_forecasts_of_a_walk_stay_level_and_widen(level, flow):
    found = level.forecast(5, n_draws=4000, level=0.5, random_state=0)
    assert found.mean.shape == found.lower.shape == (5, 1)
    assert (found.covariance.shape, found.draws.shape) == ((5, 1, 1), (4000, 5, 1))
    np.testing.assert_allclose(found.mean[:, 0], level.filter(flow)[-1, 0], rtol=1e-10)
    move = level.transition_covariance_[0, 0]
    np.testing.assert_allclose(np.diff(found.covariance[:, 0, 0]), move, rtol=1e-9)
    inside = (found.draws > found.lower) & (found.draws < found.upper)
    # Half of 4,000 draws, within five standard errors.
    assert np.abs(inside.mean(axis=0) - 0.5).max() < 5.0 * 0.5 / np.sqrt(4000)
    again = level.forecast(5, flow, n_draws=1)
    np.testing.assert_array_equal(again.mean, found.mean)


def test_a_local_trend_finds_its_variances():
    """Structural models have diagonal noises."""
    rng = np.random.default_rng(3)
    slope = 0.2 + np.cumsum(rng.normal(0.0, 0.05, 400))
    x = np.cumsum(slope) + rng.normal(0.0, 1.0, 400)
    model = LinearGaussianStateSpace(
        2,
        transition=[[1.0, 1.0], [0.0, 1.0]],
        observation=[[1.0, 0.0]],
        observation_offset=0.0,
        initial_mean=0.0,
        initial_covariance=100.0,
        transition_covariance_type="diag",
        inference=EM(max_iter=500, tol=1e-6),
    ).fit(x)
    # Four hundred steps: a deviation of the noise is known to a few percent.
    assert np.sqrt(model.observation_covariance_[0, 0]) == pytest.approx(1.0, rel=0.15)
    assert model.transition_covariance_[0, 1] == 0.0
    assert model.transition_covariance_[0, 0] < 0.1
    assert np.corrcoef(model.smooth(x)[:, 1], slope)[0, 1] > 0.8


def test_learning_finds_what_is_identified():
    X, truth = three_series(seed=4, lengths=(200, 300))
    model = LinearGaussianStateSpace(2, inference=EM(max_iter=500, tol=1e-7), random_state=0).fit(X)
    assert model.score(X) > given(truth).fit(X).score(X)
    fresh, _ = three_series(seed=4, lengths=(200,))
    assert model.score(fresh) / 200 == pytest.approx(
        given(truth).fit(X).score(fresh) / 200, abs=0.1
    )
    found = np.sort_complex(np.linalg.eigvals(model.transition_))
    expected = np.sort_complex(np.linalg.eigvals(truth.transition))
    np.testing.assert_allclose(found, expected, atol=0.15)


def test_everything_given_is_left_alone():
    X, truth = three_series()
    model = given(truth).fit(X)
    for name, value in truth._asdict().items():
        np.testing.assert_array_equal(getattr(model, f"{name}_"), value)
    rows = X[1]
    mean, spread = conditioned(truth, rows, len(rows))
    np.testing.assert_allclose(model.smooth(rows).ravel(), mean[: 2 * len(rows)], atol=1e-8)
    found = model.forecast(2, rows[:-2])
    mean, spread = conditioned(truth, rows, len(rows) - 2)
    np.testing.assert_allclose(found.mean.ravel(), mean[-6:], atol=1e-8)
    np.testing.assert_allclose(found.covariance[1], spread[-3:, -3:], atol=1e-8)


@pytest.mark.parametrize(("size", "origin"), [(1e-7, 0.0), (1e6, 1e8)])
def test_units_do_not_matter(size, origin):
    X, _ = three_series()
    method = EM(max_iter=20, tol=0.0)
    plain, other = (
        LinearGaussianStateSpace(2, inference=method, random_state=0).fit(data)
        for data in (X, [size * x + origin for x in X])
    )
    # An origin a hundred deviations away costs sums of squares four digits of sixteen.
    np.testing.assert_allclose(other.transition_, plain.transition_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other.observation_, size * plain.observation_, rtol=1e-4)
    n_values = sum(np.isfinite(x).sum() for x in X)
    moved = other.score([size * x + origin for x in X]) + n_values * np.log(size)
    assert moved == pytest.approx(plain.score(X), abs=1e-3)


# -- manners -----------------------------------------------------------------------------------


def test_every_arrangement_says_the_same(fitted):
    X, _ = three_series()
    lengths = [len(x) for x in X]
    rows = np.concatenate(X)
    np.testing.assert_allclose(fitted.log_prob(rows, lengths), fitted.log_prob(X))
    assert fitted.score(rows, lengths) == pytest.approx(fitted.log_prob(X).sum())
    smooth = fitted.smooth(X)
    assert [s.shape for s in smooth] == [(40, 2), (25, 2), (30, 2)]
    np.testing.assert_allclose(fitted.smooth(rows, lengths), np.concatenate(smooth))
    padded = np.full((3, 40, 3), np.nan)
    for place, x in zip(padded, X, strict=True):
        place[: len(x)] = x
    np.testing.assert_allclose(fitted.log_prob(padded), fitted.log_prob(X))
    stacked = fitted.smooth(padded)
    assert stacked.shape == (3, 40, 2)
    np.testing.assert_allclose(stacked[1, :25], smooth[1], atol=1e-10)
    means, covariances = fitted.smooth(X, return_covariance=True)
    assert covariances[2].shape == (30, 2, 2)
    assert len(means) == 3


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_frames_come_back_as_frames(frame):
    X, _ = three_series()
    tables = [
        frame(x, **{"columns" if frame is pd.DataFrame else "schema": list("abc")}) for x in X
    ]
    model = LinearGaussianStateSpace(1, inference=EM(max_iter=3)).fit(tables)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    filled = model.impute(tables)
    assert [type(f) for f in filled] == [frame] * 3
    assert list(filled[0].columns) == ["a", "b", "c"]
    drawn = model.sample(4, random_state=0)
    assert isinstance(drawn, frame)
    assert drawn.shape == (4, 3)
    both = model.impute(tables, n_draws=2, random_state=0)
    assert len(both) == 2


def test_drawn_sequences(fitted):
    x, states = fitted.sample(5, random_state=0, return_latent=True)
    assert (x.shape, states.shape) == ((5, 3), (5, 2))
    np.testing.assert_array_equal(x, fitted.sample(5, random_state=0))
    assert fitted.sample().shape == (1, 3)


def test_forecasts_of_several_sequences(fitted):
    X, _ = three_series()
    found = fitted.forecast(4, n_draws=7, random_state=0)
    assert found.mean.shape == (3, 4, 3)
    assert found.draws.shape == (7, 3, 4, 3)
    one = fitted.forecast(4, X[1], n_draws=7)
    np.testing.assert_allclose(one.mean, found.mean[1], atol=1e-10)
    listed = fitted.forecast(4, X[1:2], n_draws=7)
    assert listed.mean.shape == (1, 4, 3)


def test_models_are_kept(fitted, tmp_path):
    X, _ = three_series()
    fitted.save(tmp_path / "model")
    again = ppl_gen.load(tmp_path / "model")
    np.testing.assert_allclose(again.log_prob(X), fitted.log_prob(X), rtol=1e-14)
    np.testing.assert_allclose(again.forecast(3).mean, fitted.forecast(3).mean, rtol=1e-12)
    np.testing.assert_array_equal(again.transition_, fitted.transition_)
    assert again.get_params()["n_states"] == 2


def test_point_posterior_has_named_axes(fitted):
    draws = fitted.posterior_.draws
    assert draws["transition"].shape == (1, 1, 2, 2)
    assert fitted.posterior_.axes["observation"] == ["column", "state"]
    assert "transition_offset" not in draws  # given, as zero


def test_both_engines_have_one_density():
    X, _ = three_series(lengths=(4, 3))
    model = LinearGaussianStateSpace(2, inference=EM(max_iter=2)).fit(X)
    program, arguments = model.program(), model.posterior_.kwargs
    values = {k: v[0] for k, v in model.posterior_.latent_draws().items()}
    pyro = engines.get("pyro")
    sites = pyro.trace(program.pyro, (), arguments, values=values)
    np.testing.assert_allclose(sites["x"].log_prob, model.log_prob(X), rtol=1e-10)
    total, gradient = pyro.log_joint_and_grad(program.pyro, (), arguments, values)
    numpyro = engines.get("numpyro")
    with numpyro.precision(device="cpu"):
        import jax
        from numpyro.infer.util import log_density

        # Compiled: operation by operation, JAX would compile each step of the gradient by itself.
        @jax.jit
        @jax.value_and_grad
        def both(free):
            return log_density(program.numpyro, (), arguments, free)[0]

        found, slopes = both(numpyro.to_native(values))
        assert float(found) == pytest.approx(total, rel=1e-9)
        for key, slope in slopes.items():
            np.testing.assert_allclose(numpyro.to_numpy(slope), gradient[key], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_nuts_finds_the_posterior_of_two_deviations(flow):
    """The states integrated out, the rest is two numbers: a grid integrates them too."""
    x = flow[:30]
    start = {**LEVEL, "initial_mean": 1000.0, "initial_covariance": 1e5}
    model = LinearGaussianStateSpace(
        1, **start, inference=NUTS(warmup=500, draws=1500, target_accept=0.95), random_state=0
    ).fit(x)
    prior = model.structure_.prior
    grid = np.linspace(0.01, 2.5, 60)
    noise, move = (a.ravel() for a in np.meshgrid(grid, grid))
    scales = [prior[f"{n}_covariance"]["scale"][0] for n in ("observation", "transition")]
    log_joint = -0.5 * (noise**2 + move**2)
    for place, (a, b) in enumerate(zip(noise * scales[0], move * scales[1], strict=True)):
        parameters = {k: v[0] for k, v in model.parameters_.items()}
        parameters["observation_covariance"] = np.array([[a * a]])
        parameters["transition_covariance"] = np.array([[b * b]])
        log_joint[place] += model.structure_.log_evidence(parameters, _one(x))[0]
    weights = np.exp(log_joint - log_joint.max())
    weights /= weights.sum()
    draws = model.posterior_.draws
    for name, values in (("observation", noise), ("transition", move)):
        found = draws[f"{name}_covariance_whitened"]
        mean = weights @ values
        deviation = np.sqrt(weights @ (values - mean) ** 2)
        # A thousand effective draws or so: five standard errors are a sixth of a deviation.
        assert found.mean() == pytest.approx(mean, abs=deviation / 6.0)
        assert found.std() == pytest.approx(deviation, rel=0.15)
    assert model.forecast(2, random_state=0).lower.shape == (2, 1)


def _one(x):
    return Sequences(x[:, None], np.array([len(x)]))


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"n_states": 0}, "n_states is 0; expected a whole number"),
        ({"n_states": 1.5}, "n_states is 1.5"),
        ({"var_smoothing": -1.0}, "var_smoothing is -1.0"),
        ({"transition": np.eye(3)}, r"transition has shape \(3, 3\); expected \(2, 2\)"),
        ({"observation": np.ones((2, 2))}, r"observation has shape \(2, 2\); expected \(3, 2\)"),
        ({"transition_covariance": [[1.0, 2.0], [2.0, 1.0]]}, "is no covariance"),
        ({"transition_covariance": [[1.0, 0.5], [0.0, 1.0]]}, "is no covariance"),
        ({"initial_mean": [np.nan, 0.0]}, "initial_mean has values that are not finite"),
        ({"transition_covariance_type": "tied"}, "transition_covariance_type is 'tied'"),
        ({"inference": "gibbs"}, "unknown"),
    ],
)
def test_wrong_settings_are_refused(settings, match):
    X, _ = three_series()
    with pytest.raises(ValueError, match=match):
        LinearGaussianStateSpace(**{"n_states": 2, **settings}).fit(X)


def test_one_step_says_nothing_of_dynamics():
    with pytest.raises(ValueError, match="every sequence has one step"):
        LinearGaussianStateSpace(1).fit(np.ones((1, 2)) * [1.0, 2.0])
    X = np.random.default_rng(0).normal(size=(20, 1, 1))
    static = {"transition": 0.0, "transition_covariance": 1.0}
    model = LinearGaussianStateSpace(1, **static, inference=EM(max_iter=5)).fit(X)
    assert np.isfinite(model.log_prob(X)).all()


def test_unreadable_sequences_are_refused(fitted):
    X, _ = three_series()
    with pytest.raises(ValueError, match="lengths sum to 7, but X has 95 rows"):
        fitted.log_prob(np.concatenate(X), [3, 4])
    with pytest.raises(ValueError, match="features"):
        fitted.smooth(X[0][:, :2])
    with pytest.raises(ValueError, match="infinity"):
        fitted.log_prob(np.full((3, 3), np.inf))
    with pytest.raises(ValueError, match="all NaN"):
        LinearGaussianStateSpace(1).fit(np.full((5, 1), np.nan))
    with pytest.raises(ValueError, match="length 0; leave empty sequences out"):
        fitted.log_prob([X[0], X[0][:0]])


def test_wrong_questions_are_refused(fitted):
    with pytest.raises(ValueError, match="steps is 0"):
        fitted.forecast(0)
    with pytest.raises(ValueError, match=r"level is 1\.0"):
        fitted.forecast(1, level=1.0)
    with pytest.raises(ValueError, match="n_draws is 0"):
        fitted.forecast(1, n_draws=0)
    for steps in (0, 2.5):
        with pytest.raises(ValueError, match="n_samples is"):
            fitted.sample(steps)


def test_a_sequence_that_is_all_missing_is_right(fitted):
    nothing = np.full((4, 3), np.nan)
    assert fitted.log_prob(nothing)[0] == 0.0
    mean = fitted.smooth(nothing)
    np.testing.assert_allclose(mean[0], fitted.initial_mean_)
    np.testing.assert_allclose(mean[1], fitted.transition_ @ mean[0] + fitted.transition_offset_)


def test_constant_columns_warn_and_have_the_floor():
    with pytest.warns(RuntimeWarning, match="constant column"):
        model = LinearGaussianStateSpace(1, inference=EM(max_iter=20)).fit(np.full(30, 3.0))
    assert np.isfinite(model.score(np.full(30, 3.0)))
    assert model.forecast(2).mean == pytest.approx(3.0, abs=0.1)
