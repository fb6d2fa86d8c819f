"""Attributes are the parameters: set before a fit, after it, or in place of it."""

import copy
import warnings

import numpy as np
import pandas as pd
import pytest
from hidden_markov_cases import em, model_of, rows_of
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import ppl_gen
from ppl_gen import NUTS, BayesClassifier, HiddenMarkovModel
from ppl_gen.evaluate.model_choice import compare_components

ROWS = rows_of("gaussian-diag", 40)
STICKY = np.full((3, 3), 0.05) + 0.85 * np.eye(3)


def fitted(**settings):
    return model_of("gaussian-diag", inference=em(3), **settings).fit(ROWS)


def test_what_is_set_after_a_fit_is_what_the_model_has():
    model = fitted()
    before = model.score(ROWS)
    draw = model.posterior_.draws["transition"][0, 0]
    model.transmat_ = STICKY
    model.means_ = model.means_ + 1.0
    by_hand = HiddenMarkovModel(3)
    for name in ("startprob_", "transmat_", "means_", "covars_"):
        setattr(by_hand, name, getattr(model, name))
    assert model.score(ROWS) == pytest.approx(by_hand.score(ROWS), rel=1e-12)
    assert model.score(ROWS) != pytest.approx(before)
    np.testing.assert_array_equal(model.predict(ROWS), by_hand.predict(ROWS))
    np.testing.assert_array_equal(model.sample(9, 0)[0], by_hand.sample(9, 0)[0])
    np.testing.assert_allclose(model.posterior_.draws["transition"][0, 0], STICKY)
    assert not np.allclose(draw, STICKY)


def test_what_is_set_twice_counts_the_second_time():
    model = HiddenMarkovModel(2)
    model.startprob_, model.transmat_ = np.array([0.5, 0.5]), np.full((2, 2), 0.5)
    model.means_, model.covars_ = np.array([[0.0], [5.0]]), np.ones((2, 1))
    assert model.predict([[0.0], [5.0]]).tolist() == [0, 1]
    model.means_ = np.array([[5.0], [0.0]])
    assert model.predict([[0.0], [5.0]]).tolist() == [1, 0]
    model.means_, model.covars_ = np.array([[5.0, 0.0], [0.0, 0.0]]), np.ones((2, 2))
    assert model.predict([[0.0, 0.0], [5.0, 0.0]]).tolist() == [1, 0]


def test_edits_in_place_are_not_lost():
    model = fitted()
    for name in ("startprob_", "transmat_", "means_", "covars_"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(model, name)[0] = 1.0
    other = copy.deepcopy(model)  # NumPy's copies can be written to
    other.means_ += 1.0
    assert other.score(ROWS + 1.0) == pytest.approx(model.score(ROWS), rel=1e-9)
    own = np.array([[0.0, 0.0], [4.0, 4.0], [9.0, 9.0]])
    model.means_ = own
    before = model.score(ROWS)
    own[0] = 100.0  # the model has taken a copy
    assert model.score(ROWS) == before


def test_what_is_set_is_checked_again():
    model = fitted()
    model.transmat_ = np.ones((3, 3))
    with pytest.raises(ValueError, match="transmat_ must be probabilities"):
        model.predict(ROWS)
    with pytest.raises(ValueError, match="transmat_ must be probabilities"):
        model.set_params(warm_start=True).fit(ROWS)
    model.transmat_ = np.eye(2)
    with pytest.raises(ValueError, match=r"transmat_ has shape \(2, 2\); expected \(3, 3\)"):
        model.predict(ROWS)


def test_frames_keep_their_columns_when_parameters_are_set():
    table = pd.DataFrame({"kind": pd.Categorical(list("abca") * 5)})
    model = HiddenMarkovModel(2, "categorical", random_state=0, inference=em(3)).fit(table)
    model.emissionprob_ = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    model.startprob_, model.transmat_ = np.array([1.0, 0.0]), np.array([[0.0, 1.0], [1.0, 0.0]])
    drawn, states = model.sample(6, random_state=0)
    assert (drawn["kind"].eq("a") == (states == 0)).all()


def test_a_warm_start_is_from_what_was_set():
    model = fitted()
    model.means_ = model.means_[::-1].copy()
    model.set_params(warm_start=True, inference=em(1))
    cold = model_of("gaussian-diag", inference=em(1), init_params="")
    for name in ("startprob_", "transmat_", "means_", "covars_"):
        setattr(cold, name, getattr(model, name))
    np.testing.assert_allclose(model.fit(ROWS).means_, cold.fit(ROWS).means_, rtol=1e-9)


def test_loaded_models_take_what_is_set(tmp_path):
    model = fitted()
    model.save(tmp_path / "model")
    again = ppl_gen.load(tmp_path / "model")
    assert again.score(ROWS) == model.score(ROWS)
    again.transmat_ = model.transmat_ = STICKY
    assert again.score(ROWS) == pytest.approx(model.score(ROWS), rel=1e-12)


def test_bayesian_fits_refuse_what_is_of_points():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three draws have not converged
        few = NUTS(chains=1, warmup=3, draws=3)
        model = HiddenMarkovModel(2, inference=few, random_state=0).fit(ROWS[:10])
    for criterion in (model.aic, model.bic):
        with pytest.raises(ValueError, match=r"draws of its parameters; .*leave_future_out"):
            criterion(ROWS[:10])
    model.transmat_ = np.eye(2)
    with pytest.raises(ValueError, match="transmat_ was set after a Bayesian fit"):
        model.predict(ROWS[:10])


def test_half_of_the_parameters_are_no_fit():
    model = HiddenMarkovModel(2)
    model.startprob_ = np.array([1.0, 0.0])
    with pytest.raises(NotFittedError, match="means_"):
        model.predict(ROWS)
    model.means_, model.covars_ = np.zeros((2, 2)), np.ones((2, 2))
    with pytest.raises(NotFittedError, match="transmat_ cannot be taken"):
        model.predict(ROWS)
    assert "HiddenMarkovModel" in model._repr_html_()


# -- what is set before a fit --------------------------------------------------------------------


def held():
    model = model_of("gaussian-diag", inference=em(2), init_params="smc", params="smc")
    model.transmat_ = STICKY
    return model


def test_clones_hold_what_is_held():
    for copied in (clone(held()), clone(held().fit(ROWS))):
        np.testing.assert_allclose(copied.fit(ROWS).transmat_, STICKY)
    with pytest.raises(NotFittedError):
        clone(fitted()).predict(ROWS)
    X = [ROWS[:10], ROWS[10:20], ROWS[20:30], ROWS[30:]]
    classifier = BayesClassifier(held()).fit(X, ["a", "a", "b", "b"])
    for model in classifier.models_:
        np.testing.assert_allclose(model.transmat_, STICKY)
    table = compare_components(held(), X, n_components=[2, 3], cv=2)
    alone = held().fit(X).log_prob(X).sum()
    assert table.loc[3, "log_likelihood"] == pytest.approx(alone)
    assert np.isfinite(table.loc[3, "held_out"])
    assert "transmat_ has shape (3, 3)" in table.loc[2, "failure"]


def test_nothing_is_made_up_to_be_held():
    model = model_of("gaussian-diag", inference=em(2), init_params="smc", params="smc")
    with pytest.raises(ValueError, match=r"neither init_params nor params .* transmat_"):
        model.fit(ROWS)
