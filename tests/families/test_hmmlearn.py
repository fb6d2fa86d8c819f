"""Baum-Welch written out over our families takes the steps of hmmlearn."""

import numpy as np
import pytest
from family_members import assert_trees_close
from hmmlearn_cases import EMISSIONS, hmmlearn_case, parameters_of
from scipy.special import logsumexp

from ppl_gen.algorithms.trees import tree_sum


def forward_backward(start, transition, log_prob):
    """Log evidence, (T, K) marginals, and (K, K) expected transitions, in logs, step by step."""
    n_steps = len(log_prob)
    with np.errstate(divide="ignore"):
        start, transition = np.log(start), np.log(transition)
    forward, backward = np.empty_like(log_prob), np.zeros_like(log_prob)
    forward[0] = start + log_prob[0]
    for t in range(1, n_steps):
        forward[t] = logsumexp(forward[t - 1][:, None] + transition, axis=0) + log_prob[t]
    for t in range(n_steps - 2, -1, -1):
        backward[t] = logsumexp(transition + log_prob[t + 1] + backward[t + 1], axis=1)
    evidence = logsumexp(forward[-1])
    pairs = np.zeros((n_steps - 1, *transition.shape))
    for t in range(n_steps - 1):
        after = log_prob[t + 1] + backward[t + 1]
        pairs[t] = np.exp(forward[t][:, None] + transition + after - evidence)
    return evidence, np.exp(forward + backward - evidence), pairs.sum(axis=0)


def step(family, parameters, sequences):
    total, statistics = 0.0, []
    for sequence in sequences:
        log_prob, statistics_of = family.e_step(parameters["family"], sequence)
        evidence, marginals, pairs = forward_backward(
            parameters["start"], parameters["transition"], log_prob
        )
        total += evidence
        own = {"start": marginals[0], "transition": pairs, "family": statistics_of(marginals)}
        statistics.append(own)
    summed = tree_sum(statistics)
    updated = {
        "start": summed["start"] / summed["start"].sum(),
        "transition": summed["transition"] / summed["transition"].sum(axis=1, keepdims=True),
        "family": family.estimate(summed["family"]),
    }
    return total, updated


@pytest.mark.parametrize("name", EMISSIONS)
def test_twenty_steps_are_those_of_hmmlearn(name):
    case = hmmlearn_case(name)
    parameters, history = parameters_of(case.start), []
    for _ in case.history:
        sequences = [sequence.astype(np.float64) for sequence in case.sequences]
        value, parameters = step(case.family, parameters, sequences)
        history.append(value)
    # Rounding, grown by twenty steps.
    np.testing.assert_allclose(history, case.history, rtol=1e-11)
    expected = parameters_of(case.fitted)
    assert_trees_close(parameters, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_hmmlearns_own_mixtures_take_covariances_about_the_means_before(kind):
    case = hmmlearn_case(f"own-gmm-{kind}", n_iter=1)
    start = parameters_of(case.start)
    sequences = [sequence.astype(np.float64) for sequence in case.sequences]
    _, found = step(case.family, start, sequences)
    expected = parameters_of(case.fitted)
    components, theirs = found["family"]["components"], expected["family"]["components"]
    normal = case.family.family
    away = components["mean"] - start["family"]["components"]["mean"]
    rest = {
        "full": away[:, :, None] * away[:, None, :],
        "diag": away**2,
        "spherical": (away**2).mean(axis=1),
    }[kind]
    components["precision_cholesky"] = normal.factor(normal.covariances(components) + rest)
    assert_trees_close(components, theirs, rtol=1e-9, atol=1e-10)
    assert_trees_close(found, expected, rtol=1e-9, atol=1e-10)
