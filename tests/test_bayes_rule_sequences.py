"""Bayes' rule over sequences: one hidden Markov model a class."""

import numpy as np
import pandas as pd
import polars
import pytest
from scipy.special import logsumexp
from sklearn.model_selection import cross_val_predict, cross_val_score

import ppl_gen
from ppl_gen import EM, BayesClassifier, GaussianMixture, HiddenMarkovModel

FAST = np.array([[0.5, 0.5], [0.5, 0.5]])
SLOW = np.array([[0.95, 0.05], [0.05, 0.95]])


def walks(n=40, seed=0):
    """Sequences of unequal lengths whose steps have one distribution: only their order differs."""
    rng = np.random.default_rng(seed)
    found, labels = [], np.repeat(["fast", "slow"], n // 2)
    for label in labels:
        transition, length = (FAST if label == "fast" else SLOW), rng.integers(15, 40)
        states = [rng.integers(2)]
        for _ in range(length - 1):
            states.append(rng.choice(2, p=transition[states[-1]]))
        found.append(rng.normal(size=(length, 1)) + 4.0 * np.array(states)[:, None])
    order = rng.permutation(n)
    return [found[place] for place in order], labels[order]


def rule(n_states=2, **settings):
    model = HiddenMarkovModel(n_states, random_state=0, inference=EM(max_iter=15), **settings)
    return BayesClassifier(model)


def test_probabilities_are_bayes_rule():
    X, y = walks()
    classifier = rule().fit(X, y)
    assert classifier.classes_.tolist() == ["fast", "slow"]
    joint = np.stack([m.log_prob(X) for m in classifier.models_], axis=1) + np.log(0.5)
    expected = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    np.testing.assert_allclose(classifier.predict_proba(X), expected, rtol=1e-10, atol=1e-300)
    np.testing.assert_array_equal(classifier.predict(X), classifier.classes_[joint.argmax(axis=1)])
    np.testing.assert_allclose(classifier.log_prob(X), logsumexp(joint, axis=1), rtol=1e-12)
    assert classifier.score(X, y) > 0.9
    own = [x for x, label in zip(X, y, strict=True) if label == "slow"]
    alone = HiddenMarkovModel(2, random_state=0, inference=EM(max_iter=15)).fit(own)
    np.testing.assert_array_equal(classifier.models_[1].transmat_, alone.transmat_)


def test_the_order_of_steps_is_what_tells_them_apart():
    X, y = walks()
    scores = cross_val_score(rule(), X, y, cv=4)
    assert scores.mean() > 0.85
    # The same steps without their order say little.
    means = np.array([[x.mean(), x.std()] for x in X])
    assert cross_val_score(BayesClassifier(GaussianMixture(1)), means, y, cv=4).mean() < 0.8
    predicted = cross_val_predict(rule(), X, y, cv=4, method="predict_proba")
    assert predicted.shape == (40, 2)


def test_sequences_in_one_array():
    X, y = walks()
    stacked = np.stack([x[:15] for x in X])
    stacked[0, 10:] = np.nan  # a shorter one, filled up
    listed = rule().fit(list(stacked), y)
    classifier = rule().fit(stacked, y)
    np.testing.assert_array_equal(
        classifier.predict_proba(stacked), listed.predict_proba(list(stacked))
    )
    assert cross_val_score(rule(), stacked, y, cv=3).shape == (3,)


@pytest.mark.parametrize("frame", [pd.DataFrame, polars.DataFrame])
def test_tables_of_sequences(frame):
    X, y = walks()
    tables = [frame({"level": x[:, 0], "sign": np.where(x[:, 0] > 2, "up", "down")}) for x in X]
    # A name that one class never has.
    odd = np.flatnonzero(y == "fast")[0]
    steps = tables[odd]["level"].to_numpy()
    tables[odd] = frame({"level": steps, "sign": ["none"] + ["up"] * (len(steps) - 1)})
    classifier = rule(emission="auto").fit(tables, y)
    assert np.isfinite(classifier.log_prob(tables)).all()
    assert classifier.predict(tables[:3]).shape == (3,)
    drawn, _ = classifier.sample(3, random_state=0)
    assert all(isinstance(table, frame) for table in drawn)
    assert list(drawn[0].columns) == ["level", "sign"]


def test_codes_that_a_class_never_has():
    X, y = walks()
    codes = [(x > 2).astype(float) for x in X]
    odd = np.flatnonzero(y == "slow")[0]
    codes[odd][3] = 2.0
    classifier = rule(emission="categorical").fit(codes, y)
    probabilities = classifier.predict_proba(codes)
    assert probabilities[odd].round(6).tolist() == [0.0, 1.0]
    assert classifier.models_[0].emissionprob_.shape == (2, 3)
    assert classifier.model.emission == "categorical"  # the pattern is left alone


def test_draws_are_sequences_as_long_as_those_fitted():
    X, y = walks()
    classifier = rule().fit(X, y)
    drawn, labels = classifier.sample(30, random_state=1)
    assert len(drawn) == len(labels) == 30
    assert {len(x) for x in drawn} <= {len(x) for x in X}
    assert all(x.shape[1] == 1 for x in drawn)
    assert classifier.score(drawn, labels) > 0.85
    again, same = classifier.sample(30, random_state=1)
    np.testing.assert_array_equal(labels, same)
    np.testing.assert_array_equal(drawn[7], again[7])
    only, labels = classifier.sample(4, y="slow", random_state=0)
    assert set(labels) == {"slow"}
    assert len(only) == 4


def test_a_saved_classifier_of_sequences_is_the_same(tmp_path):
    X, y = walks()
    classifier = rule().fit(X, y)
    classifier.save(tmp_path / "rule")
    loaded = ppl_gen.load(tmp_path / "rule")
    np.testing.assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
    drawn, _ = loaded.sample(2, random_state=0)
    np.testing.assert_array_equal(drawn[0], classifier.sample(2, random_state=0)[0][0])


def test_missing_steps_are_marginalised():
    X, y = walks()
    holed = [x.copy() for x in X]
    for x in holed:
        x[::4] = np.nan
    classifier = rule().fit(holed, y)
    assert classifier.score(holed, y) > 0.8
    silent = [np.full((9, 1), np.nan)]
    np.testing.assert_allclose(classifier.predict_proba(silent), [[0.5, 0.5]], rtol=1e-10)


ROWS = np.random.default_rng(0).normal(size=(6, 2))


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([ROWS] * 4, ["a", "b"], "inconsistent numbers of samples"),
        ([ROWS[:, :1], ROWS] * 2, ["a", "b"] * 2, "sequences of 1 and of 2 columns"),
        ([ROWS, ROWS[:0]], ["a", "b"], r"'b' .*cannot be fitted.*length 0"),
        ([ROWS] * 2, ["a", "a"], "one class only"),
        ([ROWS] * 2, ["a", None], "missing labels"),
        ("abc", ["a", "b", "c"], "no sequences"),
        (pd.DataFrame({"a": [1.0, 2.0]}), ["a", "b"], "DataFrame of what are no sequences"),
    ],
)
def test_bad_input_is_named(X, y, message):
    with pytest.raises(ValueError, match=message):
        rule(1).fit(X, y)
