"""Draws of the parameters weigh alike for what was fitted, and by likelihood for what is new."""

import pickle

import numpy as np
import pytest

from ppl_gen import (
    EM,
    Conjugate,
    HiddenMarkovModel,
    LinearAutoregression,
    LinearGaussianStateSpace,
    MarkovChain,
    forecasts,
)


def series(seed, n=4):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(12, 1)) + 2.0 * (rng.random((12, 1)) < 0.5) for _ in range(n)]


def of_draws(X):
    """A model with several draws of its parameters, from parts of the sequences."""
    model = HiddenMarkovModel(2, random_state=0, inference=EM(max_iter=4, tol=0.0)).fit(X)
    parts = [
        HiddenMarkovModel(2, random_state=s, inference=EM(max_iter=4, tol=0.0)).fit(X[s : s + 2])
        for s in range(3)
    ]
    stacked = {
        name: np.concatenate([part.parameters_[name] for part in parts])
        for name in ("start", "transition")
    }
    first = parts[0].parameters_["family"]
    stacked["family"] = {
        name: np.concatenate([part.parameters_["family"][name] for part in parts]) for name in first
    }
    model.parameters_ = stacked
    model._keep_training(model._training)
    return model


@pytest.fixture(scope="module")
def model():
    return of_draws(series(0))


def test_each_fitted_sequence_is_known_alone(model):
    X, new = series(0), series(5, 1)
    together = model.predict_proba(X)
    for x, expected in zip(X, together, strict=True):
        np.testing.assert_allclose(model.predict_proba([x])[0], expected, atol=1e-12)
    mixed = model.predict_proba([X[2], *new, X[0]])
    np.testing.assert_allclose(mixed[0], together[2], atol=1e-12)
    np.testing.assert_allclose(mixed[1], model.predict_proba(new)[0], atol=1e-12)
    by_draw = model.log_prob_by_draw(new)[:, 0]
    weights = np.exp(by_draw - by_draw.max())
    assert np.ptp(weights) > 0.1  # or the test would say nothing
    sequences = model._read_checked(new, None)[0]
    each = [model.structure_.marginals(model._draw(s), sequences) for s in range(3)]
    expected = np.einsum("s,stk->tk", weights / weights.sum(), each)
    np.testing.assert_allclose(mixed[1], expected, atol=1e-12)


def test_one_rule_for_all_that_is_said_of_a_sequence(model):
    X, new = series(0), series(5, 2)
    np.testing.assert_allclose(model.forecast_states(3, X), model.forecast_states(3), atol=1e-12)
    np.testing.assert_allclose(model.filter([X[1]])[0], model.filter(X)[1], atol=1e-12)
    # One step ahead of the last filtered step, by the same weights.
    weights = model._draw_weights(model._read_checked(new, None)[0])
    last = model._last_states(model._read_checked(new, None)[0])["probability"]
    transitions = model.parameters_["transition"]
    ahead = np.einsum("sn,snk,skl->nl", weights, last, transitions)
    np.testing.assert_allclose(model.forecast_states(1, new)[:, 0], ahead, atol=1e-12)
    found = model.forecast(1, new, n_draws=20_000, random_state=0)
    means = model.parameters_["family"]["mean"][..., 0]
    expected = np.einsum("sn,snk,skl,sl->n", weights, last, transitions, means)
    np.testing.assert_allclose(found.mean[:, 0, 0], expected, atol=1e-10)
    # Five standard errors of 20,000 draws.
    error = 5.0 * np.sqrt(found.covariance[:, 0, 0, 0] / 20_000)
    assert (np.abs(found.draws.mean(axis=0)[:, 0, 0] - expected) < error).all()


def test_futures_come_from_the_draws_by_their_weights():
    weights = np.array([[0.5, 0.1, 0.5], [0.5, 0.0, 0.5], [0.0, 0.9, 0.0]])
    chosen = np.full((4000, 3), -1)
    for s, future, sequence in forecasts.chosen_draws(weights, 4000, np.random.default_rng(0)):
        assert (chosen[future, sequence] == -1).all()
        chosen[future, sequence] = s
    shares = (chosen[:, :, None] == np.arange(3)).mean(axis=0).T
    np.testing.assert_allclose(shares, weights, atol=5.0 * 0.5 / np.sqrt(4000))
    assert (shares[weights == 0.0] == 0.0).all()
    np.testing.assert_array_equal(chosen[:, 0], chosen[:, 2])  # alike, so by the same draws


@pytest.mark.parametrize("missing", [False, True])
def test_linear_models_follow_it_too(missing):
    rng = np.random.default_rng(3)
    X = [np.cumsum(rng.normal(size=(9, 1)), axis=0) for _ in range(3)]
    model = LinearAutoregression(1, inference=Conjugate(draws=50), random_state=0).fit(X)
    known = model.forecast(2, X[1:2], n_draws=5, random_state=0)
    np.testing.assert_allclose(known.mean[0], model.forecast(2, n_draws=5).mean[1], atol=1e-12)
    new = [np.cumsum(rng.normal(size=(9, 1)) + 3.0, axis=0)]
    if missing:
        new[0][5] = np.nan
    by_draw = model.log_prob_by_draw(new)[:, 0]
    weights = np.exp(by_draw - by_draw.max())
    each = model._last_states(model._read_checked(new, None)[0])
    expected = 0.0
    for s, weight in enumerate(weights / weights.sum()):
        linear = model.structure_.linear_gaussian(model._draw(s))
        ahead = forecasts.forecast(linear, each["mean"][s], each["covariance"][s], 2)
        expected = expected + weight * ahead.observation_mean
    found = model.forecast(2, new, n_draws=4000, random_state=0)
    np.testing.assert_allclose(found.mean, expected, rtol=1e-10)
    error = 5.0 * np.sqrt(np.diagonal(found.covariance, axis1=-2, axis2=-1) / 4000)
    assert (np.abs(found.draws.mean(axis=0) - expected) < error).all()


def test_markov_chains_know_each_of_theirs():
    X = ["abba", "aab", "bbbab"]
    model = MarkovChain(inference=Conjugate(draws=40), random_state=0).fit(X)
    np.testing.assert_allclose(model.forecast(2, X[1:2])[0], model.forecast(2)[1], atol=1e-12)
    together = model.forecast(1, ["bababa", "aab"])
    np.testing.assert_allclose(together[0], model.forecast(1, ["bababa"])[0], atol=1e-12)
    np.testing.assert_allclose(together[1], model.forecast(1)[1], atol=1e-12)


def test_futures_without_room_are_refused_before_any_work(model):
    with pytest.raises(ValueError, match=r"forecast: 1,000,000 futures of 1,000,000 .* GB"):
        model.forecast(1_000_000, n_draws=1_000_000)


def test_forecasts_keep_nothing_with_the_sequences(model):
    before = len(pickle.dumps(model))
    model.forecast(2)
    model.forecast_states(2)
    assert len(pickle.dumps(model)) == before


def test_moments_of_futures_are_those_of_all_blocks_at_once(monkeypatch):
    draws = np.random.default_rng(0).normal(size=(50, 5, 3, 2)) + 1e3
    monkeypatch.setattr(forecasts, "BLOCK_VALUES", 2 * 50 * 6)
    assert len(forecasts.blocks(draws)) == 3
    away = draws - draws.mean(axis=0)
    expected = np.einsum("mnti,mntj->ntij", away, away) / 50
    np.testing.assert_allclose(forecasts.covariances(draws), expected, atol=1e-10)
    levels = [0.1, 0.9]
    np.testing.assert_array_equal(
        forecasts.quantiles(draws, levels), np.quantile(draws, levels, axis=0)
    )


def test_completions_follow_the_weights_too():
    """One draw of the parameters explains the new sequence: no other may complete it."""
    rng = np.random.default_rng(4)
    X = [np.cumsum(rng.normal(size=(30, 1)), axis=0) for _ in range(2)]
    model = LinearGaussianStateSpace(1, inference=EM(max_iter=3)).fit(X)
    model.parameters_ = {
        name: np.concatenate([value, value]) for name, value in model.parameters_.items()
    }
    model.parameters_["observation_offset"] = np.array([[0.0], [1e3]])
    model._keep_training(model._training)
    new = [X[0] + 1e3]
    new[0][7] = np.nan
    filled = np.array([done[0][7, 0] for done in model.impute(new, n_draws=20, random_state=0)])
    weights = model._draw_weights(model._read_checked(new, None)[0])[:, 0]
    assert weights.max() > 1.0 - 1e-12
    assert (np.abs(filled - 1e3) < 100.0).all()
    with pytest.raises(ValueError, match="n_draws is 0"):
        model.impute(new, n_draws=0)


def test_as_many_sequences_are_drawn_as_were_observed_of_linear_models_too():
    X = [np.cumsum(np.random.default_rng(s).normal(size=(9, 1)), axis=0) for s in range(2)]
    posterior = LinearGaussianStateSpace(1, inference=EM(max_iter=3)).fit(X).posterior_
    assert posterior.predictive(n=5, x=None)["x"].shape == (5, 2, 9)
