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


def forward_in_logs(start: Array, transition: Array, logs: Array) -> tuple[Array, Array]:
    """Log probability of each state given the steps up to it, (T, K), and of each step, (T,).

    The second is the log density of a step given those before it. As all that is common to the
    states is taken off at each step, nothing grows along the sequence, nor the rounding with it.
    From where the steps are impossible, all is -inf.
    """
    with np.errstate(divide="ignore"):
        log_start, log_transition = np.log(start), np.log(transition)
    forward, steps = np.empty_like(logs), np.empty(len(logs))
    for t in range(len(logs)):
        before = logsumexp(forward[t - 1][:, None] + log_transition, 0) if t else log_start
        now, top = _lowered(logs[t])
        now = before + now
        total = logsumexp(now, 0)
        forward[t] = now - (total if total > -np.inf else 0.0)
        steps[t] = total + top
    return forward, steps


def smooth_in_logs(start: Array, transition: Array, logs: Array) -> tuple[float, Array, Array]:
    """Log evidence, marginals (T, K) and expected transitions of one sequence, without scaling."""
    forward, steps = forward_in_logs(start, transition, logs)
    if steps[-1] == -np.inf:
        return -np.inf, np.full_like(logs, np.nan), np.full_like(transition, np.nan)
    with np.errstate(divide="ignore"):
        log_transition = np.log(transition)
    message, counts = np.zeros_like(logs), np.zeros_like(transition)
    for t in range(len(logs) - 1, 0, -1):
        onward = log_transition + (_lowered(logs[t])[0] + message[t])
        message[t - 1] = _lowered(logsumexp(onward, 1))[0]
        moves = forward[t - 1][:, None] + onward
        moves = np.exp(moves - moves.max())
        counts += moves / moves.sum()
    joint = forward + message
    joint = np.exp(joint - joint.max(axis=1, keepdims=True))
    return float(steps.sum()), joint / joint.sum(axis=1, keepdims=True), counts


def _lowered(logs: Array) -> tuple[Array, float]:
    """Logarithms less the largest of them, and that; as they are where all are -inf."""
    top = float(logs.max())
    return (logs - top, top) if top > -np.inf else (logs, 0.0)


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
