"""Moments of numbers in a network, far from zero."""

import numpy as np
import pytest

from ppl_gen import BayesianNetwork, LinearGaussianCPD, TabularCPD
from ppl_gen.structures.bayesian_network.inference import mixed_moments


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


def test_counts_are_the_sums_of_the_marginals_of_rows():
    rng = np.random.default_rng(0)
    names, sizes = "abcd", (2, 3, 2, 4)
    parents = {"a": [], "b": ["a"], "c": ["b", "a"], "d": ["c", "a"]}
    states = {n: list(range(size)) for n, size in zip(names, sizes, strict=True)}
    cpds = []
    for n in names:
        shape = [len(states[p]) for p in parents[n]]
        table = rng.dirichlet(np.ones(len(states[n])), size=shape or None)
        cpds.append(TabularCPD(n, table, parents[n], {v: states[v] for v in (*parents[n], n)}))
    net = BayesianNetwork(cpds=cpds)
    network = net.structure_
    scopes = [conditional.scope for conditional in network.conditionals]
    for hidden in ((1,), (0, 2), (3,), (0, 1, 2, 3), ()):
        x = network.draw_rows(net._draw(0), 50, rng)
        x[:, hidden] = np.nan
        part = network.evidence(net._draw(0), x)[0][1]
        weights = rng.random(50)
        for given in (weights, None):
            by_row = np.ones(50) if given is None else given
            for scope, found in zip(scopes, part.counts(scopes, given), strict=True):
                expected = np.tensordot(by_row, part.marginal(scope), axes=1)
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
