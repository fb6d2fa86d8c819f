import math

import numpy as np
import pytest
from scipy import stats

from ppl_gen.algorithms.pareto_smoothing import (
    generalized_pareto_fit,
    pareto_k,
    smoothed_log_weights,
)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("n", [30, 100, 1000, 4001])
def test_equals_arviz(n, scale, seed):
    from arviz import psislw

    log_weights = scale * np.random.default_rng(seed).standard_normal(n)
    # The same formula, in another order of the sums, without dropping negligible grid points.
    assert pareto_k(log_weights) == pytest.approx(float(psislw(log_weights.copy())[1]), abs=1e-8)


@pytest.mark.parametrize("k", [-0.3, 0.0, 0.5, 1.0])
def test_fit_recovers_the_shape_of_quantiles(k):
    n = 4000
    x = stats.genpareto.ppf((np.arange(n) + 0.5) / n, k, scale=3.0)
    estimate, sigma = generalized_pareto_fit(np.random.default_rng(0).permutation(x))
    # Standard error of k is (1 + k) / sqrt(n) = 0.03; quantiles have less noise than draws.
    assert estimate == pytest.approx(k, abs=0.03)
    assert sigma == pytest.approx(3.0, rel=0.03)


def test_known_tail_of_a_normal_proposal():
    """Target N(0, 1), proposal N(0, s): the weights' tail has k = 1 - s^2 for s < 1."""
    rng = np.random.default_rng(1)
    for s in (0.5, 0.9):
        x = s * rng.standard_normal(100_000)
        k = pareto_k(-(x**2) / 2 + (x / s) ** 2 / 2)
        # The tail is Pareto times a slow (logarithmic) factor, which biases k at any finite n.
        assert k == pytest.approx(1 - s**2, abs=0.15)


def test_constant_weights_are_a_perfect_proposal():
    assert pareto_k(np.full(100, -3.0)) == -math.inf
    assert pareto_k(-3.0 + 1e-13 * np.random.default_rng(0).standard_normal(100)) == -math.inf


def test_one_weight_carries_all():
    log_weights = np.full(100, -5000.0)
    log_weights[3] = 0.0
    assert pareto_k(log_weights) == math.inf


def test_zero_weights_are_allowed():
    log_weights = np.random.default_rng(0).standard_normal(1000)
    log_weights[:100] = -np.inf
    assert pareto_k(log_weights) < 0.7


@pytest.mark.parametrize("bad", [np.zeros((5, 50)), np.zeros(10), [np.nan] * 50, [np.inf] * 50])
def test_bad_weights_are_refused(bad):
    with pytest.raises(ValueError, match="pareto_k: log_weights"):
        pareto_k(bad)


@pytest.mark.parametrize("bad", [[1.0, 2.0], [0.0] * 9, [1.0, 2.0, np.nan, 3.0, 4.0]])
def test_bad_exceedances_are_refused(bad):
    with pytest.raises(ValueError, match="exceedances"):
        generalized_pareto_fit(bad)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("n", [30, 100, 1000, 4001])
def test_smoothed_weights_are_arvizs(n, scale, seed):
    from arviz import psislw

    log_weights = scale * np.random.default_rng(seed).standard_normal(n)
    theirs, k = psislw(log_weights.copy())
    ours, shape = smoothed_log_weights(log_weights)
    # As above: the same formulas, summed in another order.
    np.testing.assert_allclose(ours, theirs, atol=1e-7)
    assert shape == pytest.approx(float(k), abs=1e-8)
    assert np.exp(ours).sum() == pytest.approx(1.0, abs=1e-12)


def test_weights_without_a_tail_stay():
    equal, k = smoothed_log_weights(np.full(100, -3.0))
    np.testing.assert_allclose(equal, -np.log(100.0), rtol=1e-12)
    assert k == -math.inf
    one = np.full(100, -5000.0)
    one[3] = 0.0
    weights, k = smoothed_log_weights(one)
    assert k == math.inf
    assert np.exp(weights[3]) == pytest.approx(1.0, abs=1e-12)


def test_smoothing_keeps_the_order_and_impossible_draws():
    log_weights = 3.0 * np.random.default_rng(0).standard_normal(1000)
    log_weights[:100] = -np.inf
    smoothed, _ = smoothed_log_weights(log_weights)
    np.testing.assert_array_equal(np.argsort(smoothed[100:]), np.argsort(log_weights[100:]))
    assert (smoothed[:100] == -np.inf).all()


@pytest.mark.parametrize("bad", [np.zeros((5, 50)), np.zeros(10), [np.nan] * 50, [np.inf] * 50])
def test_bad_weights_are_not_smoothed(bad):
    with pytest.raises(ValueError, match="smoothed_log_weights: log_weights"):
        smoothed_log_weights(bad)
