"""Hidden Markov models on NumPy: filter and smoother, of many sequences and of long ones.

Everything works on log densities of the observations under each state and knows no family. The
recursions run on probabilities that are scaled as they go (Rabiner, Proc. IEEE 77, 1989, section
V.A), with each step's emissions divided by their largest, and on all sequences side by side
(`side_by_side`). Long sequences are cut into pieces that are run at once, from where
`hidden_markov_passes` finds that they start.

Scaling loses paths below the smallest double. Where one could matter, it is seen (`_unsafe`),
and the sequence is done again in logarithms.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_gen.algorithms.hidden_markov_logs import (
    filter_in_logs,
    forward_in_logs,
    logsumexp,
    smooth_in_logs,
)
from ppl_gen.algorithms.hidden_markov_passes import Emissions, Pass
from ppl_gen.algorithms.hidden_markov_transfers import HARMLESS, TINY, mixes
from ppl_gen.algorithms.side_by_side import Layout

__all__ = [
    "Emissions",
    "Smoothed",
    "filter_steps",
    "forecast",
    "log_evidence",
    "log_filter_steps",
    "smooth",
    "smooth_by_hmmlearn",
]

Array = Any

#: Difference of posterior probabilities between two pieces that rounding explains.
AGREEMENT = 1e-10


@dataclass(eq=False)
class Smoothed:
    """What a pass forward and backward says.

    Attributes
    ----------
    log_evidence : (n,)
        Log density of each sequence, in nats.
    marginals : (N, K)
        Posterior probability of each state, in the order of the layout's columns.
    start : (K,)
        Expected number of sequences that start in each state.
    transitions : (K, K)
        Expected number of steps from each state to each.
    """

    log_evidence: Array
    marginals: Array
    start: Array
    transitions: Array


def log_evidence(start: Array, transition: Array, emissions: Emissions) -> Array:
    """Log density of each sequence, in nats: (n,).

    Parameters
    ----------
    start : (K,)
    transition : (K, K)
        Rows sum to one.
    emissions : Emissions
    """
    if not mixes(transition):  # a pass back says whether lost paths matter
        return smooth(start, transition, emissions).log_evidence
    run = Pass(start, transition, emissions, back=False)
    evidence = run.log_evidence()
    for number in _unsafe(run.scale, None, emissions.layout):
        evidence[number] = smooth_in_logs(start, transition, emissions.of_sequence(number)[1])[0]
    return evidence


def log_filter_steps(start: Array, transition: Array, emissions: Emissions) -> Array:
    """Log probability of each state given the steps up to it, by row: (N, K).

    Parameters
    ----------
    start : (K,)
    transition : (K, K)
    emissions : Emissions

    Notes
    -----
    NaN from where the steps of a sequence are impossible.
    """
    if not mixes(transition):
        layout = emissions.layout.whole
        by_row = np.empty((len(layout.rows), len(start)))
        by_row[emissions.layout.rows] = emissions.logs()
        by_row[layout.rows] = filter_in_logs(start, transition, by_row[layout.rows], layout)
        return by_row
    layout = emissions.layout
    run = Pass(start, transition, emissions, back=False)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(run.filtered) - np.log(run.filtered.sum(axis=1, keepdims=True))
        for number in _unsafe(run.scale, None, layout):
            columns, exact = emissions.of_sequence(number)
            forward, _ = forward_in_logs(start, transition, exact)
            logs[columns] = forward - logsumexp(forward, 1)[:, None]
    by_row = np.empty_like(logs)
    by_row[layout.rows] = logs
    return by_row


def filter_steps(start: Array, transition: Array, emissions: Emissions) -> Array:
    """Probability of each state given the steps up to it, by row: (N, K)."""
    probabilities: Array = np.exp(log_filter_steps(start, transition, emissions))
    return probabilities


def forecast(now: Array, transition: Array, steps: int) -> Array:
    """Probability of each state 1, 2, ... `steps` steps after ``now`` (..., K): (..., steps, K)."""
    ahead = []
    for _ in range(steps):
        now = now @ transition
        ahead.append(now)
    return np.stack(ahead, axis=-2)


def smooth(
    start: Array, transition: Array, emissions: Emissions, weights: Array | None = None
) -> Smoothed:
    """Posterior marginals of states and expected transitions, by forward and backward passes.

    Parameters
    ----------
    start : (K,)
    transition : (K, K)
        Rows sum to one.
    emissions : Emissions
    weights : (n,) or None
        Of the sequences, in all but `log_evidence`.

    Notes
    -----
    A sequence of probability zero has log evidence -inf, and marginals that are NaN.
    """
    layout = emissions.layout
    run = Pass(start, transition, emissions)
    evidence = run.log_evidence()
    marginals, largest = run.back()
    ahead = run.ahead
    unsafe, redone = np.empty(0, dtype=np.intp), []
    if largest is not None:
        unsafe = _unsafe(run.scale, largest, layout)
    if run.exit is not None:
        joins = _unsafe_joins(transition, run.entry, run.exit, run.filtered, ahead, layout)
        unsafe = np.union1d(unsafe, joins)
    for number in unsafe.tolist():
        columns, logs = emissions.of_sequence(number)
        evidence[number], marginals[columns], counts = smooth_in_logs(start, transition, logs)
        redone.append(counts if weights is None else counts * weights[number])
        ahead[columns] = run.filtered[columns] = 0.0
    if weights is not None:
        by_column = weights[layout.column_sequence][:, None]
        marginals *= by_column
        ahead *= by_column
    firsts = np.flatnonzero(layout.place == 0)
    return Smoothed(
        log_evidence=evidence,
        marginals=marginals,
        start=marginals[firsts].sum(axis=0),
        transitions=_pairs(run.filtered, ahead, layout) * transition + sum(redone),
    )


def smooth_by_hmmlearn(
    start: Array, transition: Array, emissions: Emissions, weights: Array | None = None
) -> Smoothed:
    """Return :func:`smooth` by hmmlearn's recursions in C++, sequence by sequence."""
    from hmmlearn import _hmmc

    layout = emissions.layout
    evidence = np.empty(layout.n_sequences)
    marginals = np.empty((len(layout.rows), len(start)))
    first, moves = np.zeros_like(start), np.zeros_like(transition)
    for number in range(layout.n_sequences):
        columns, logs = emissions.of_sequence(number)
        logs = np.ascontiguousarray(logs)
        evidence[number], forward = _hmmc.forward_log(start, transition, logs)
        backward = _hmmc.backward_log(start, transition, logs)
        weight = 1.0 if weights is None else weights[number]
        shares = weight * np.exp(forward + backward - evidence[number])
        marginals[columns] = shares
        first += shares[0]
        if len(logs) > 1:
            log_moves = _hmmc.compute_log_xi_sum(forward, transition, backward, logs)
            moves += weight * np.exp(log_moves)
    return Smoothed(evidence, marginals, first, moves)


def _pairs(filtered: Array, ahead: Array, layout: Layout) -> Array:
    """Sum of ``filtered[t - 1]' ahead[t]`` over all steps that have one before: (K, K)."""
    total = np.zeros((filtered.shape[1], filtered.shape[1]))
    starts = layout.starts
    for first, stop, width in layout.runs:
        begin, end = starts[first], starts[stop]
        total += filtered[begin : end - width].T @ ahead[begin + width : end]
        if first > 0:
            before = starts[first - 1]
            total += filtered[before : before + width].T @ ahead[begin : begin + width]
    if layout.is_cut:
        pieces, previous = layout.follows
        total += filtered[layout.last[previous]].T @ ahead[pieces]
    return total


def _unsafe(scale: Array, largest: Array | None, layout: Layout) -> Array:
    """Sequences in which paths may have been lost that matter.

    A path is lost where its share of a step falls below the smallest double, so a share of at
    most ``TINY / scale`` of all paths; what comes later raises it by at most the largest
    backward message. The transition matrix alone bounds that message where it has no zeros.
    """
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        lost = TINY / np.maximum(scale, TINY)
        bad = lost > HARMLESS**2 if largest is None else ~(lost * largest < HARMLESS)
    return np.unique(layout.column_sequence[bad])


def _unsafe_joins(
    transition: Array, entry: Array, exit_: Array, filtered: Array, ahead: Array, layout: Layout
) -> Array:
    """Sequences whose pieces disagree about the posterior where one follows another.

    Paths lost within a piece are seen by `_unsafe`, but those lost in its transfer matrix are
    not. What a piece was entered and left with must be what its neighbours found themselves.
    """
    pieces, before = layout.follows
    last = filtered[layout.last[before]]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        message = exit_[before] / np.sum(exit_[before] * last, axis=1, keepdims=True)
        entered = np.abs(entry[pieces] - last @ transition) * ahead[pieces]
        left = np.abs(message - ahead[pieces] @ transition.T) * last
        bad = ~((entered + left).sum(axis=1) < AGREEMENT)
    return np.unique(layout.sequence[pieces[bad]])
