"""What the density of a network does not see: faint images are likelier than those it learned."""

import numpy as np
import pandas as pd
import polars
import pytest
from sklearn.utils import check_random_state

from ppl_gen import (
    MADE,
    CausalTransformer,
    HiddenMarkovModel,
    MarkovChain,
    MaximumLikelihood,
    Mixture,
    NormalizingFlow,
)
from ppl_gen.datasets import load_digits
from ppl_gen.evaluate.anomaly import AnomalyDetector


@pytest.fixture(scope="module")
def digits():
    """Pixels that vary: others have tails that are heavier than any sample shows."""
    X = load_digits().X.to_numpy()
    X = X[:, X.std(axis=0) > 3.0]
    return X[np.random.default_rng(0).permutation(len(X))]


@pytest.fixture(scope="module")
def detectors(digits):
    flow = NormalizingFlow(
        "realnvp",
        n_transforms=4,
        hidden_layer_sizes=(64,),
        noise=0.5,
        inference=MaximumLikelihood(15, 5e-3, 64),
        random_state=0,
    )
    density = AnomalyDetector(flow, calibration=0.4, random_state=0).fit(digits[:1500])
    held = digits[1500:1650]
    return density, AnomalyDetector(density.model_, "typicality", calibration="prefit").fit(held)


def test_faint_digits_are_likelier_than_digits(digits, detectors):
    density, typical = detectors
    fresh, mean = digits[1650:], digits[:1500].mean(axis=0)
    faint = mean + 0.5 * (fresh - mean)
    log_prob = density.model_.log_prob
    assert log_prob(faint).mean() > log_prob(fresh).mean() + 3.0
    # No row of them is improbable, and yet there are none such among the digits: together they are
    # too probable.
    assert np.mean(density.predict(faint) == -1) < 0.02
    assert density.typicality(faint, random_state=0).p_value < 0.001
    assert density.typicality(faint, random_state=0).statistic < 0.0
    assert typical.typicality(faint, random_state=0).p_value < 0.001
    assert density.typicality(fresh, random_state=0).p_value > 0.01
    assert np.mean(density.predict(fresh) == -1) == pytest.approx(0.05, abs=0.06)


def test_what_is_far_from_digits_is_an_outlier(digits, detectors):
    inverted = 16.0 - digits[1650:]
    for detector in detectors:
        assert np.mean(detector.predict(inverted) == -1) > 0.95


def held_alone():
    """Words of which only one has the letter z: one of those that are held out at seed 0."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("ab"), size=4)) for _ in range(80)]
    words[check_random_state(0).permutation(80)[-1]] = "abbz"
    return words


ONCE = MaximumLikelihood(epochs=1)


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        (CausalTransformer(1, 2, 8, inference=ONCE), list),
        (CausalTransformer(1, 2, 8, tokeniser="character", inference=ONCE), np.array),
        (MarkovChain(), list),
        (MADE((4,), inference=ONCE), lambda words: pd.DataFrame({"word": words})),
        (MADE((4,), inference=ONCE), lambda words: polars.DataFrame({"word": words})),
        (Mixture(1), lambda words: pd.DataFrame({"word": words, "one": 1.0 + np.arange(80)})),
        (Mixture(1, "categorical"), lambda words: [[ord(word[3]) - ord("a")] for word in words]),
        (HiddenMarkovModel(1), lambda words: [pd.DataFrame({"at": list(word)}) for word in words]),
    ],
    ids=["text", "array", "chain", "pandas", "polars", "mixture", "codes", "list of frames"],
)
def test_what_only_rows_held_out_have_is_known(model, rows):
    words = held_alone()
    X = rows(words)
    detector = AnomalyDetector(model, random_state=0).fit(X)
    assert len(detector.log_prob_) == 20
    p_values = detector.p_values(X)
    assert len(p_values) == 80
    assert np.isfinite(detector.log_prob_).all() or p_values[words.index("abbz")] < 0.1
