"""Hidden Markov models on NumPy: filter, smoother, Viterbi, draws of paths, of many sequences.

Everything works on log densities of the observations under each state, ``log_emission``, and
knows no family. The recursions run on probabilities scaled at every step (Rabiner, Proc. IEEE
77, 1989, section V.A), with each step's emissions divided by their largest, and on all sequences
side by side (`side_by_side`). Long sequences are cut: the product of the transfer matrices
``diag(b_t) A`` of every piece is found for all pieces at once, one short recursion hands the
state on from piece to piece, and all pieces are then run at once from where they start (Sarkka &
Garcia-Fernandez, IEEE TAC 66, 2021, with blocks in place of a tree).

Scaling loses paths below the smallest double. Where one could matter, it is seen (`_unsafe`),
and the sequence is done again in logarithms.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ppl_gen.algorithms.side_by_side import Layout, lay_out

Array = Any

TINY = np.finfo(np.float64).tiny
#: Posterior odds of all lost paths together that would still be harmless.
HARMLESS = 1e-20
#: Steps of a piece between scalings of its transfer matrix.
STRIDE = 8


@dataclass(eq=False)
class Emissions:
    """Log densities of all steps under each state, laid out for the recursions.

    Attributes
    ----------
    layout : Layout
    logs : (K, N)
        In the order of the layout's columns; -inf where a state is excluded.
    """

    layout: Layout
    logs: Array

    @classmethod
    def of(cls, log_emission: Array, lengths: Array) -> "Emissions":
        """Lay out log densities by row, (N, K), of sequences one after another."""
        layout = lay_out(lengths, log_emission.shape[1])
        return cls(layout, np.ascontiguousarray(log_emission[layout.rows].T))

    def scaled(self) -> tuple[Array, Array]:
        """Densities over the largest of each step, (K, N), and the logarithms of those, (N,)."""
        top = self.logs.max(axis=0)
        top[top == -np.inf] = 0.0
        return np.exp(self.logs - top), top

    def of_sequence(self, number: int) -> tuple[Array, Array]:
        """Columns of a sequence in the order of time, (T,), and its log densities, (K, T)."""
        columns = np.flatnonzero(self.layout.column_sequence == number)
        columns = columns[np.argsort(self.layout.rows[columns])]
        return columns, self.logs[:, columns]


@dataclass(eq=False)
class Smoothed:
    """What a pass forward and backward says.

    Attributes
    ----------
    log_evidence : (n,)
        Log density of each sequence, in nats.
    marginals : (K, N)
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
    if transition.min() < HARMLESS:  # a pass back says whether lost paths matter
        return smooth(start, transition, emissions).log_evidence
    scaled, top = emissions.scaled()
    entry, _ = _hand_on(start, transition, scaled, emissions.layout, backward=False)
    _, scale = _forward(transition, entry, scaled, emissions.layout)
    evidence = _evidence(scale, top, emissions.layout)
    for number in _unsafe(scale, None, emissions.layout):
        evidence[number] = _smooth_in_logs(start, transition, emissions.of_sequence(number)[1])[0]
    return evidence


def filter_steps(start: Array, transition: Array, emissions: Emissions) -> Array:
    """Probability of each state given the steps up to it, by row: (N, K).

    Parameters
    ----------
    start : (K,)
    transition : (K, K)
    emissions : Emissions

    Notes
    -----
    NaN from where the steps of a sequence are impossible.
    """
    layout = emissions.layout
    scaled, _ = emissions.scaled()
    entry, exit_ = _hand_on(start, transition, scaled, layout, backward=True)
    filtered, scale = _forward(transition, entry, scaled, layout)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        largest = _backward(transition, exit_, scaled, filtered, scale, layout)[2]
    for number in _unsafe(scale, largest, layout):
        columns, logs = emissions.of_sequence(number)
        forward = _forward_in_logs(start, transition, logs)
        with np.errstate(invalid="ignore"):  # no state is possible
            filtered[:, columns] = np.exp(forward - _logsumexp(forward, 1)[:, None]).T
    by_row = np.empty(filtered.shape[::-1])
    by_row[layout.rows] = filtered.T
    return by_row


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
    scaled, top = emissions.scaled()
    entry, exit_ = _hand_on(start, transition, scaled, layout, backward=True)
    filtered, scale = _forward(transition, entry, scaled, layout)
    evidence = _evidence(scale, top, layout)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        marginals, ahead, largest = _backward(transition, exit_, scaled, filtered, scale, layout)
    unsafe = _unsafe(scale, largest, layout)
    redone = []
    for number in unsafe:
        columns, logs = emissions.of_sequence(number)
        evidence[number], marginals[:, columns], counts = _smooth_in_logs(start, transition, logs)
        redone.append(counts if weights is None else counts * weights[number])
        ahead[:, columns] = 0.0
    if weights is not None:
        by_column = weights[layout.column_sequence]
        marginals *= by_column
        ahead *= by_column
    firsts = np.flatnonzero(layout.place == 0)
    return Smoothed(
        log_evidence=evidence,
        marginals=marginals,
        start=marginals[:, firsts].sum(axis=1),
        transitions=_pairs(filtered, ahead, layout) * transition + sum(redone),
    )


def smooth_by_hmmlearn(
    start: Array, transition: Array, emissions: Emissions, weights: Array | None = None
) -> Smoothed:
    """Return :func:`smooth` by hmmlearn's recursions in C++, sequence by sequence."""
    from hmmlearn import _hmmc

    layout = emissions.layout
    evidence = np.empty(layout.n_sequences)
    marginals = np.empty_like(emissions.logs)
    first, moves = np.zeros_like(start), np.zeros_like(transition)
    for number in range(layout.n_sequences):
        columns, logs = emissions.of_sequence(number)
        logs = np.ascontiguousarray(logs.T)
        evidence[number], forward = _hmmc.forward_log(start, transition, logs)
        backward = _hmmc.backward_log(start, transition, logs)
        shares = np.exp(forward + backward - evidence[number])
        weight = 1.0 if weights is None else weights[number]
        marginals[:, columns] = weight * shares.T
        first += weight * shares[0]
        if len(logs) > 1:
            log_moves = _hmmc.compute_log_xi_sum(forward, transition, backward, logs)
            moves += weight * np.exp(log_moves)
    return Smoothed(evidence, marginals, first, moves)


def _evidence(scale: Array, top: Array, layout: Layout) -> Array:
    with np.errstate(divide="ignore"):
        logs = np.log(scale) + top
    return np.bincount(layout.column_sequence, logs, layout.n_sequences)


def _forward(transition: Array, entry: Array, scaled: Array, layout: Layout) -> tuple[Array, Array]:
    """Filtered probabilities (K, N), and what each step scales by (N,), given entries (K, P)."""
    filtered, scale = np.empty_like(scaled), np.empty(scaled.shape[1])
    into = np.ascontiguousarray(transition.T)
    starts, before = layout.starts, 0
    for begin, end in pairwise(starts):
        now, total = filtered[:, begin:end], scale[begin:end]
        if begin == 0:
            np.multiply(entry, scaled[:, :end], out=now)
        else:
            np.matmul(into, filtered[:, before : before + end - begin], out=now)
            now *= scaled[:, begin:end]
        np.add.reduce(now, axis=0, out=total)
        # A sequence that has become impossible stays so, and gives no NaN.
        now /= np.maximum(total, TINY)
        before = begin
    return filtered, scale


def _backward(
    transition: Array,
    exit_: Array | None,
    scaled: Array,
    filtered: Array,
    scale: Array,
    layout: Layout,
) -> tuple[Array, Array, Array]:
    """Marginals, what lies ahead of each step (in the place of `scaled`), largest message.

    ``ahead[:, t] = b_t beta_t / scale_t``, so that ``filtered[:, t - 1]' A ahead[:, t] = 1``.
    """
    marginals = np.empty_like(scaled)
    largest = np.empty(scaled.shape[1])
    message = np.ones((len(transition), len(layout.lengths)))
    if exit_ is not None:
        message = exit_ / np.sum(exit_ * filtered[:, layout.last], axis=0)
    starts = layout.starts
    for step in range(len(starts) - 2, -1, -1):
        begin, end = starts[step], starts[step + 1]
        width = end - begin
        if step + 2 < len(starts):
            later = scaled[:, end : starts[step + 2]]
            message[:, : later.shape[1]] = transition @ later
        here = message[:, :width]
        np.multiply(filtered[:, begin:end], here, out=marginals[:, begin:end])
        np.maximum.reduce(here, axis=0, out=largest[begin:end])
        ahead = scaled[:, begin:end]
        ahead *= here
        ahead /= scale[begin:end]
    return marginals, scaled, largest


def _pairs(filtered: Array, ahead: Array, layout: Layout) -> Array:
    """Sum of ``filtered[:, t - 1] ahead[:, t]'`` over all steps that have one before: (K, K)."""
    total = np.zeros((len(filtered), len(filtered)))
    starts = layout.starts
    for first, stop, width in layout.runs:
        begin, end = starts[first], starts[stop]
        total += filtered[:, begin : end - width] @ ahead[:, begin + width : end].T
        if first > 0:
            before = starts[first - 1]
            total += filtered[:, before : before + width] @ ahead[:, begin : begin + width].T
    if layout.is_cut:
        pieces, before = layout.follows
        total += filtered[:, layout.last[before]] @ ahead[:, pieces].T
    return total


def _unsafe(scale: Array, largest: Array | None, layout: Layout) -> Array:
    """Sequences in which paths may have been lost that matter.

    A path is lost where its share of a step falls below the smallest double, so a share of at
    most ``TINY / scale`` of all paths; what comes later raises it by at most the largest
    backward message. The transition matrix alone bounds that message where it has no zeros.
    """
    with np.errstate(over="ignore", divide="ignore"):
        lost = TINY / np.maximum(scale, TINY)
    if largest is None:
        bad = lost > HARMLESS**2
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            bad = ~(lost * largest < HARMLESS)
    return np.unique(layout.column_sequence[bad])


# -- from piece to piece ---------------------------------------------------------------------------


def _hand_on(
    start: Array, transition: Array, scaled: Array, layout: Layout, *, backward: bool
) -> tuple[Array, Array | None]:
    """Probabilities before the first step of each piece, messages after its last: (K, P)."""
    entry = np.repeat(start[:, None], len(layout.lengths), axis=1)
    if not layout.is_cut:
        return entry, None
    transfer, chain = _transfers(transition, scaled, layout), layout.chain
    into = np.ascontiguousarray(np.moveaxis(transfer, 2, 0)[chain.rows])  # (P, out, in)
    ahead, starts = transition.T @ into, chain.starts
    carried = np.repeat(start[None, :, None], starts[1], axis=0)
    for begin, end in pairwise(starts):
        entry[:, chain.rows[begin:end]] = carried[: end - begin, :, 0].T
        carried = ahead[begin:end] @ carried[: end - begin]
        carried /= np.maximum(carried.sum(axis=1, keepdims=True), TINY)
    if not backward:
        return entry, None
    behind = transition @ np.swapaxes(into, 1, 2)
    exit_ = np.ones_like(entry)
    message = np.ones((starts[1], len(start), 1))
    for begin, end in zip(starts[-2::-1], starts[:0:-1], strict=True):
        exit_[:, chain.rows[begin:end]] = message[: end - begin, :, 0].T
        message[: end - begin] = behind[begin:end] @ message[: end - begin]
        message /= np.maximum(message.max(axis=1, keepdims=True), TINY)
    return entry, exit_


def _transfers(transition: Array, scaled: Array, layout: Layout) -> Array:
    """Products of ``diag(b_t) A'`` over each piece, each up to a factor: (K out, K in, P)."""
    n_states, widths = len(transition), layout.widths
    found = np.empty((n_states, n_states, int(widths[0])))
    into = np.ascontiguousarray(transition.T)
    now = np.eye(n_states)[:, :, None] * scaled[:, None, : widths[0]]
    logs = np.zeros((n_states, int(widths[0])))
    # Where every state can follow every other, no share falls far in a few steps.
    stride = STRIDE if transition.min() > HARMLESS else 1
    for step in range(1, len(widths)):
        begin, end = layout.starts[step], layout.starts[step + 1]
        width = end - begin
        if width < now.shape[2]:
            found[:, :, width : now.shape[2]] = now[:, :, width:]
            now = np.ascontiguousarray(now[:, :, :width])
        now = (into @ now.reshape(n_states, -1)).reshape(now.shape)
        now *= scaled[:, None, begin:end]
        if step % stride == 0:
            total = now.sum(axis=0)
            now /= np.maximum(total, TINY)
            with np.errstate(divide="ignore"):
                logs[:, :width] += np.log(total)
    found[:, :, : now.shape[2]] = now
    largest = logs.max(axis=0)
    shares: Array = np.exp(logs - np.where(largest > -np.inf, largest, 0.0))
    found *= shares
    found /= np.maximum(found.max(axis=(0, 1)), TINY)
    return found


# -- in logarithms ---------------------------------------------------------------------------------


def _logsumexp(terms: Array, axis: int) -> Array:
    top = terms.max(axis=axis, keepdims=True)
    top = np.where(top > -np.inf, top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(terms - top).sum(axis=axis)) + np.squeeze(top, axis)


def _forward_in_logs(start: Array, transition: Array, logs: Array) -> Array:
    """Log density of each state with the steps up to it: (K, T) -> (T, K)."""
    with np.errstate(divide="ignore"):
        log_start, log_transition = np.log(start), np.log(transition)
    forward = np.empty(logs.shape[::-1])
    forward[0] = log_start + logs[:, 0]
    for t in range(1, len(forward)):
        forward[t] = _logsumexp(forward[t - 1][:, None] + log_transition, 0) + logs[:, t]
    return forward


def _smooth_in_logs(start: Array, transition: Array, logs: Array) -> tuple[float, Array, Array]:
    """Log evidence, marginals (K, T) and expected transitions of one sequence, without scaling."""
    with np.errstate(divide="ignore"):
        log_transition = np.log(transition)
    n_states, n_steps = logs.shape
    forward, message = _forward_in_logs(start, transition, logs), np.zeros((n_steps, n_states))
    for t in range(n_steps - 1, 0, -1):
        message[t - 1] = _logsumexp(log_transition + (logs[:, t] + message[t]), 1)
    evidence = _logsumexp(forward[-1], 0)
    if evidence == -np.inf:
        return -np.inf, np.full_like(logs, np.nan), np.full_like(transition, np.nan)
    marginals = np.exp(forward + message - evidence)
    counts = np.zeros_like(transition)
    for t in range(1, n_steps):
        ahead = logs[:, t] + message[t] - evidence
        counts += np.exp(forward[t - 1][:, None] + log_transition + ahead)
    return float(evidence), marginals.T, counts
