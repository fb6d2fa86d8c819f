"""Moments of numbers in a network, far from zero."""

import numpy as np
import pytest

from ppl_gen import BayesianNetwork, LinearGaussianCPD, TabularCPD
from ppl_gen.structures.network_inference import mixed_moments


def test_moments_of_a_mixture_are_those_of_its_draws():
    rng = np.random.default_rng(0)
    weights, mean = rng.dirichlet(np.ones(3)), rng.normal(size=(3, 2))
    root = rng.normal(size=(3, 2, 2))
    covariance = root @ np.swapaxes(root, 1, 2)
    total, spread = mixed_moments(weights, mean, covariance)
    square = covariance + mean[:, :, None] * mean[:, None, :]
    np.testing.assert_allclose(total, weights @ mean, rtol=1e-12)
    second = np.tensordot(weights, square, axes=1) - np.outer(total, total)
    np.testing.assert_allclose(spread, second, atol=1e-12)


@pytest.mark.parametrize("level", [0.0, 1e8, -1e8])
def test_deviations_far_from_zero_keep_their_digits(level):
    alone = BayesianNetwork(cpds=[LinearGaussianCPD("y", level, (), 1e-4)])
    assert alone.query("y").loc["y", "sd"] == pytest.approx(0.01, rel=1e-12)
    states = {"z": [0, 1]}
    mixed = BayesianNetwork(
        cpds=[
            TabularCPD("z", [0.25, 0.75], [], states),
            LinearGaussianCPD("y", [level, level + 1.0], (), [0.25, 1.0], ["z"], states),
        ]
    )
    # The mean is rounded at 1e-8, the square of which nothing feels.
    expected = np.sqrt(0.25 * 0.25 + 0.75 + 0.25 * 0.75)
    assert mixed.query("y").loc["y", "sd"] == pytest.approx(expected, rel=1e-7)
