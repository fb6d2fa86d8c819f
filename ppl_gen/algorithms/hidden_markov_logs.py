"""Hidden Markov models in logarithms: slower than scaled probabilities, and never underflowing."""

from itertools import pairwise
from typing import Any

import numpy as np

from ppl_gen.algorithms.side_by_side import Layout

Array = Any


def logsumexp(terms: Array, axis: int) -> Array:
    """Log of the sum of exponentials over an axis; -inf of nothing but -inf."""
    top = terms.max(axis=axis, keepdims=True)
    top = np.where(top > -np.inf, top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(terms - top).sum(axis=axis)) + np.squeeze(top, axis)


def forward_in_logs(start: Array, transition: Array, logs: Array) -> Array:
    """Log density of each state with the steps up to it: (T, K)."""
    with np.errstate(divide="ignore"):
        log_start, log_transition = np.log(start), np.log(transition)
    forward = np.empty_like(logs)
    forward[0] = log_start + logs[0]
    for t in range(1, len(forward)):
        forward[t] = logsumexp(forward[t - 1][:, None] + log_transition, 0) + logs[t]
    return forward


def smooth_in_logs(start: Array, transition: Array, logs: Array) -> tuple[float, Array, Array]:
    """Log evidence, marginals (T, K) and expected transitions of one sequence, without scaling."""
    with np.errstate(divide="ignore"):
        log_transition = np.log(transition)
    forward, message = forward_in_logs(start, transition, logs), np.zeros_like(logs)
    for t in range(len(logs) - 1, 0, -1):
        message[t - 1] = logsumexp(log_transition + (logs[t] + message[t]), 1)
    evidence = logsumexp(forward[-1], 0)
    if evidence == -np.inf:
        return -np.inf, np.full_like(logs, np.nan), np.full_like(transition, np.nan)
    marginals = np.exp(forward + message - evidence)
    counts = np.zeros_like(transition)
    for t in range(1, len(logs)):
        ahead = logs[t] + message[t] - evidence
        counts += np.exp(forward[t - 1][:, None] + log_transition + ahead)
    return float(evidence), marginals, counts


def filter_in_logs(start: Array, transition: Array, logs: Array, layout: Layout) -> Array:
    """Log probability of each state given the steps up to it, (N, K), whatever falls away.

    Where a state has few ways on, a share that is lost for now may be all that is left some
    steps later, even if what comes after leaves nothing of it in the end: a pass back, as in
    `smooth`, does not see it.

    Parameters
    ----------
    start, transition : (K,), (K, K)
    logs : (N, K)
        In the order of a layout without cuts; they are written over.
    layout : Layout
    """
    before = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        log_transition = np.log(transition)
        for begin, end in pairwise(layout.starts):
            now = logs[begin:end]
            if begin == 0:
                now += np.log(start)
            else:
                ways = logs[before : before + end - begin, :, None] + log_transition
                now += np.logaddexp.reduce(ways, axis=1)
            now -= np.logaddexp.reduce(now, axis=1, keepdims=True)
            before = begin
    return logs
