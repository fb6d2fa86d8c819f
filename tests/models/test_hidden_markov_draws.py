"""What fitted hidden Markov models draw and fill in, and how they are kept."""

import numpy as np
import pytest
from hidden_markov_cases import EMISSIONS, em, model_of, rows_of, with_holes
from sklearn.base import clone

import ppl_gen
from ppl_gen import HiddenMarkovModel, MarkovChain

# -- drawing, filling, keeping ---------------------------------------------------------------------


def test_draws_have_the_moments_of_the_model():
    rows = rows_of("gaussian-full", 300)
    model = model_of("gaussian-full").fit(rows)
    drawn, states = model.sample(20_000, random_state=1)
    shares = np.bincount(states, minlength=3) / 20_000
    np.testing.assert_allclose(shares, model.stationary_distribution(), atol=0.03)
    moves = np.zeros((3, 3))
    np.add.at(moves, (states[:-1], states[1:]), 1.0)
    np.testing.assert_allclose(moves / moves.sum(axis=1, keepdims=True), model.transmat_, atol=0.03)
    for k in range(3):
        own = drawn[states == k]
        error = np.sqrt(np.diagonal(model.covars_[k]) / len(own))
        assert (np.abs(own.mean(axis=0) - model.means_[k]) < 5.0 * error).all()
        # Five standard errors of a variance: sqrt(2 / n) of it.
        np.testing.assert_allclose(
            np.cov(own.T), model.covars_[k], atol=5.0 * np.sqrt(2.0 / len(own)) * 2.0
        )


def test_seeds_and_first_states_of_draws():
    model = model_of("poisson", inference=em(5)).fit(rows_of("poisson"))
    drawn, states = model.sample(10, random_state=3)
    again, _ = model.sample(10, random_state=3)
    np.testing.assert_array_equal(drawn, again)
    for state in range(3):
        assert model.sample(4, random_state=0, currstate=state)[1][0] == state
    alone = model.sample(10, random_state=3, return_latent=False)
    np.testing.assert_array_equal(alone, drawn)
    assert states.dtype.kind == "i"


def test_what_is_missing_is_filled_with_its_expectation():
    rows = rows_of("gaussian-full", 200)
    holed = with_holes(rows, "gaussian-full")
    model = model_of("gaussian-full").fit(holed)
    filled = model.impute(holed)
    known = ~np.isnan(holed)
    np.testing.assert_array_equal(filled[known], holed[known])
    # E[x_m | x_o] = sum_k p(k | all) (mean + the regression of what is missing on what is not).
    shares = model.predict_proba(holed)
    for t in np.flatnonzero(~known.all(axis=1)):
        m, o = np.flatnonzero(~known[t]), np.flatnonzero(known[t])
        expected = 0.0
        for k in range(3):
            c = model.covars_[k]
            there = model.means_[k][m]
            if len(o):
                slope = np.linalg.solve(c[np.ix_(o, o)], c[np.ix_(o, m)])
                there = there + (holed[t, o] - model.means_[k][o]) @ slope
            expected = expected + shares[t, k] * there
        np.testing.assert_allclose(filled[t, m], expected, rtol=1e-8, atol=1e-10)
    draws = np.stack(model.impute(holed, n_draws=400, random_state=0))
    assert (draws[:, known] == holed[known]).all()
    spread = draws.std(axis=0)
    error = np.abs(draws.mean(axis=0) - filled)[~known] / spread[~known] * np.sqrt(400)
    assert error.max() < 5.0
    # Filling by the neighbours in time does better than by the mean of the column.
    plain = np.abs(np.nanmean(holed, axis=0) - rows)[~known].mean()
    assert np.abs(filled - rows)[~known].mean() < 0.8 * plain


def test_states_that_follow():
    rows = rows_of("poisson", 60)
    model = model_of("poisson", inference=em(10)).fit(rows, [40, 20])
    ahead = model.forecast_states(3)
    assert ahead.shape == (2, 3, 3)
    now = model.filter(rows, [40, 20])[[39, 59]]
    for step in range(3):
        onward = np.linalg.matrix_power(model.transmat_, step + 1)
        np.testing.assert_allclose(ahead[:, step], now @ onward, atol=1e-12)
    np.testing.assert_array_equal(model.forecast_states(3, rows, [40, 20]), ahead)
    forecast = model.forecast(3, random_state=0, n_draws=4000)
    expected = ahead @ model.lambdas_
    # Five standard errors of the mean of 4,000 draws, whose variance is about the mean.
    error = 5.0 * np.sqrt(4.0 * expected / 4000)
    assert (np.abs(forecast.draws.mean(axis=0) - expected) < error).all()
    np.testing.assert_allclose(forecast.mean, expected, rtol=1e-10)
    with pytest.raises(ValueError, match="steps is 0"):
        model.forecast_states(0)


def test_paths_are_drawn_from_their_posterior():
    rows = with_holes(rows_of("gaussian-diag", 60), "gaussian-diag")
    model = model_of("gaussian-diag").fit(rows)
    paths = np.stack(model.sample_states(rows, n_draws=2000, random_state=0))
    shares = (paths[:, :, None] == np.arange(3)).mean(axis=0)
    expected = model.predict_proba(rows).clip(0.0, 1.0)  # rounding may leave more than one
    error = np.sqrt(expected * (1.0 - expected) / 2000)
    assert (np.abs(shares - expected) < 5.0 * error + 1e-3).all()


@pytest.mark.parametrize("emission", EMISSIONS)
def test_saved_models_come_back(emission, tmp_path):
    rows = with_holes(rows_of(emission), emission)
    model = model_of(emission, inference=em(3)).fit(rows, [40, 20])
    model.save(tmp_path / "model")
    again = ppl_gen.load(tmp_path / "model")
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(again.log_prob(rows, [40, 20]), model.log_prob(rows, [40, 20]))
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))
    np.testing.assert_array_equal(again.impute(rows), model.impute(rows))
    for name in ("startprob_", "transmat_", "history_"):
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
    assert again.aic(rows) == model.aic(rows)


def test_settings_are_kept_as_they_were_given():
    mask = np.ones((2, 2))
    model = HiddenMarkovModel(2, "poisson", transmat_mask=mask, stickiness=3.0, algorithm="map")
    copied = clone(model)
    assert copied.get_params()["stickiness"] == 3.0
    assert copied.transmat_mask is not mask
    assert repr(copied) == repr(model)
    fitted = copied.fit(rows_of("poisson"))
    assert clone(fitted).get_params().keys() == model.get_params().keys()
    assert not hasattr(clone(fitted), "transmat_")


def test_fits_do_not_touch_what_was_given():
    rows, labels = rows_of("gaussian-diag"), np.full(60, -1)
    labels[3] = 1
    before = rows.copy(), labels.copy()
    model = model_of("gaussian-diag", inference=em(3)).fit(rows, [30, 30], y=labels)
    model.predict_proba(rows), model.impute(rows)
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(labels, before[1])


# -- what goes with a fit --------------------------------------------------------------------------


def test_loaded_models_know_where_their_sequences_ended(tmp_path):
    rows = rows_of("poisson", 60)
    model = model_of("poisson", inference=em(5)).fit(rows, [40, 20])
    model.save(tmp_path / "model")
    again = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(again.forecast_states(3), model.forecast_states(3))
    np.testing.assert_array_equal(
        again.forecast(2, random_state=0).draws, model.forecast(2, random_state=0).draws
    )
    ahead = model.forecast_states(3, rows, [40, 20])
    np.testing.assert_allclose(again.forecast_states(3), ahead, atol=1e-14)


def test_models_made_of_parameters_need_sequences_to_forecast():
    model = HiddenMarkovModel(2, "poisson")
    model.startprob_, model.transmat_ = np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.2, 0.8]])
    model.lambdas_ = np.array([[1.0], [9.0]])
    with pytest.raises(ValueError, match="made of parameters; give X"):
        model.forecast(2)
    assert model.forecast(2, [[1], [8]]).mean.shape == (2, 1)


@pytest.mark.parametrize(
    "model", [model_of("poisson", inference=em(3)), MarkovChain(random_state=0)], ids=type
)
def test_as_many_sequences_are_predicted_as_were_observed(model):
    rows = [part[:, 0].astype(int) for part in np.split(rows_of("poisson"), [30, 50])]
    posterior = model.fit(rows).posterior_
    assert posterior.predictive(n=4)["x"].shape[:3] == (4, 3, 30)
    fewer = posterior.predictive(n=4, x=None, n_sequences=2, length=5)
    assert fewer["x"].shape[:3] == (4, 2, 5)


def very_unequal():
    rng = np.random.default_rng(0)
    return rng.poisson(3.0, size=(1_001_100, 1)).astype(np.float64), [1] * 1100 + [1_000_000]


@pytest.mark.parametrize("method", ["svi", "nuts"])
def test_padding_without_room_is_refused_before_any_work(method):
    rows, lengths = very_unequal()
    with pytest.raises(ValueError, match=r"1,101 sequences .* 1,000,000 steps .* 8\.8 GB.* by EM"):
        HiddenMarkovModel(2, "poisson", inference=method).fit(rows, lengths)


def test_em_fits_and_keeps_what_programs_have_no_room_for(monkeypatch, tmp_path):
    monkeypatch.setattr("ppl_gen.sequence_estimator.MAX_PADDED_BYTES", 100)
    monkeypatch.setattr("ppl_gen.sequences.MAX_PADDED_BYTES", 100)
    model = model_of("poisson", inference=em(3)).fit(rows_of("poisson"), [59, 1])
    model.save(tmp_path / "model")
    again = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(again.forecast_states(2), model.forecast_states(2))
    assert again.posterior_.draws["start"].shape == (1, 1, 3)
