"""What the density of a network does not see: faint images are likelier than those it learned."""

import numpy as np
import pytest

from ppl_gen import MaximumLikelihood, NormalizingFlow
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
