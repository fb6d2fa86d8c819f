"""Hidden Markov models on NumPy: filter and smoother, of many sequences and of long ones.

Everything works on log densities of the observations under each state and knows no family. The
recursions run on probabilities that are scaled as they go (Rabiner, Proc. IEEE 77, 1989, section
V.A), with each step's emissions divided by their largest, and on all sequences side by side
(`side_by_side`). Long sequences are cut: the product of the transfer matrices ``diag(b_t) A`` of
every piece is found for all pieces at once, one short recursion hands the state on from piece to
piece, and all pieces are then run at once from where they start (Sarkka & Garcia-Fernandez, IEEE
TAC 66, 2021, with blocks in place of a tree).

Scaling loses paths below the smallest double. Where one could matter, it is seen (`_unsafe`),
and the sequence is done again in logarithms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ppl_gen.algorithms.hidden_markov_logs import (
    filter_in_logs,
    forward_in_logs,
    logsumexp,
    smooth_in_logs,
)
from ppl_gen.algorithms.row_chunks import map_rows
from ppl_gen.algorithms.side_by_side import Layout, lay_out

Array = Any

TINY, LOWEST = np.finfo(np.float64).tiny, np.finfo(np.float64).min
#: Posterior odds of all lost paths together that would still be harmless.
HARMLESS = 1e-20
#: Difference of posterior probabilities between two pieces that rounding explains.
AGREEMENT = 1e-10
#: Steps between scalings, where every state may follow every other: no share falls far in so few.
STRIDE = 8


@dataclass(eq=False)
class Emissions:
    """Log densities of all steps under each state, laid out for the recursions.

    Attributes
    ----------
    layout : Layout
    log_prob : callable
        From a slice, or the numbers, of columns of the layout to log densities (n, K) under each
        state; -inf where a state is excluded.
    n_states : int
    room : dict or None
        Arrays of an earlier pass over the same layout, to be written over: a step of EM after
        another then asks the system for no memory.
    """

    layout: Layout
    log_prob: Callable[[Any], Array]
    n_states: int
    room: dict[str, Array] | None = None

    @classmethod
    def of(cls, log_emission: Array, lengths: Array) -> "Emissions":
        """Lay out log densities by row, (N, K), of sequences one after another."""
        layout = lay_out(lengths, log_emission.shape[1])
        return cls.laid_out(layout, log_emission[layout.rows])

    @classmethod
    def laid_out(cls, layout: Layout, logs: Array) -> "Emissions":
        """Take log densities (N, K) that are in the order of the layout already."""
        return cls(layout, logs.__getitem__, logs.shape[1])

    def array(self, name: str) -> Array:
        """Return an array for each step and state, (N, K), that nothing else is in."""
        shape = (len(self.layout.rows), self.n_states)
        if self.room is None:
            return np.empty(shape)
        if name not in self.room:
            self.room[name] = np.empty(shape)
        return self.room[name]

    def logs(self) -> Array:
        """All log densities, in the order of the layout: (N, K)."""
        return np.concatenate(map_rows(self.log_prob, len(self.layout.rows)))

    def logs_by_state(self) -> Array:
        """All log densities, in the order of the layout, with states along rows: (K, N)."""
        logs = np.empty((self.n_states, len(self.layout.rows)))

        def fill(columns: slice) -> None:
            logs[:, columns] = self.log_prob(columns).T

        map_rows(fill, logs.shape[1])
        return logs

    def scaled(self) -> tuple[Array, Array]:
        """Densities over the largest of each step, (N, K), and the logarithms of those, (N,)."""
        n_steps = len(self.layout.rows)
        densities, largest = self.array("scaled"), np.empty(n_steps)

        def fill(columns: slice) -> None:
            logs = np.array(self.log_prob(columns).T, order="C")  # long rows are quick to scan
            top = largest[columns]
            np.maximum.reduce(logs, axis=0, out=top)
            top[top == -np.inf] = 0.0
            logs -= top
            np.exp(logs, out=logs)
            densities[columns] = logs.T

        map_rows(fill, n_steps)
        return densities, largest

    def of_sequence(self, number: int) -> tuple[Array, Array]:
        """Columns of a sequence in the order of time, (T,), and its log densities, (T, K)."""
        columns = np.flatnonzero(self.layout.column_sequence == number)
        columns = columns[np.argsort(self.layout.rows[columns])]
        return columns, self.log_prob(columns)


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
    if not _mixes(transition):  # a pass back says whether lost paths matter
        return smooth(start, transition, emissions).log_evidence
    run = _Pass(start, transition, emissions, back=False)
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
    if not _mixes(transition):
        layout = emissions.layout.whole
        by_row = np.empty((len(layout.rows), len(start)))
        by_row[emissions.layout.rows] = emissions.logs()
        by_row[layout.rows] = filter_in_logs(start, transition, by_row[layout.rows], layout)
        return by_row
    layout = emissions.layout
    run = _Pass(start, transition, emissions, back=False)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(run.filtered) - np.log(run.filtered.sum(axis=1, keepdims=True))
        for number in _unsafe(run.scale, None, layout):
            columns, exact = emissions.of_sequence(number)
            forward = forward_in_logs(start, transition, exact)
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
    run = _Pass(start, transition, emissions)
    evidence = run.log_evidence()
    marginals, largest = run.back()
    ahead = run.scaled  # the pass back leaves there what lies ahead
    unsafe, redone = _unsafe(run.scale, largest, layout), []
    if run.exit is not None and largest is not None:
        joins = _unsafe_joins(transition, run.entry, run.exit, run.filtered, ahead, layout)
        unsafe = np.union1d(unsafe, joins)
    for number in unsafe:
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


# -- the two passes --------------------------------------------------------------------------------


def _mixes(transition: Array) -> bool:
    """Whether every state may follow every other, so that no share falls far in a few steps."""
    return bool(transition.min() > HARMLESS)


def _scaled_steps(transition: Array, n_steps: int) -> list[bool]:
    """Which steps are scaled: those at the end of a stride."""
    stride = STRIDE if _mixes(transition) else 1
    return [step % stride == stride - 1 for step in range(n_steps)]


class _Pass:
    """A pass forward over all sequences, and the pass back.

    Attributes
    ----------
    scaled : (N, K)
        Densities over the largest of each step.
    filtered : (N, K)
        Filtered probabilities up to a factor: they sum to one where a stride or a piece ends.
    scale : (N,)
        What they were divided by there; 1 at other steps.
    """

    def __init__(
        self, start: Array, transition: Array, emissions: Emissions, *, back: bool = True
    ) -> None:
        self.transition, self.emissions, self.layout = transition, emissions, emissions.layout
        self.scaled, self.top = emissions.scaled()
        self.entry, self.exit = _hand_on(start, transition, self.scaled, self.layout, back=back)
        self.filtered, self.scale = emissions.array("filtered"), np.ones(len(self.scaled))
        self.every = _scaled_steps(transition, len(self.layout.starts) - 1)
        self._forward()

    def _forward(self) -> None:
        filtered, scaled, ones = self.filtered, self.scaled, np.ones(len(self.transition))
        widths = [*self.layout.widths.tolist(), 0]
        before = filtered[:0]
        for step, (begin, end) in enumerate(pairwise(self.layout.starts)):
            now = filtered[begin:end]
            if step == 0:
                np.multiply(self.entry, scaled[:end], out=now)
            else:
                np.matmul(before[: end - begin], self.transition, out=now)
                now *= scaled[begin:end]
            # All pieces where a stride ends, else those that end here.
            first = begin if self.every[step] else begin + widths[step + 1]
            if first < end:
                total = filtered[first:end] @ ones
                self.scale[first:end] = total
                # A sequence that has become impossible stays so, and gives no NaN.
                filtered[first:end] /= np.maximum(total, TINY)[:, None]
            before = now

    def log_evidence(self) -> Array:
        """Log density of each sequence: (n,)."""
        with np.errstate(divide="ignore"):
            logs = np.log(self.scale) + self.top
        return np.bincount(self.layout.column_sequence, logs, self.layout.n_sequences)

    def back(self) -> tuple[Array, Array | None]:
        """Marginals (N, K), and the largest message of each step (N,), where it may be large.

        In the place of `scaled` comes what lies ahead of each step, ``b_t beta_t / scale_t``, so
        that ``filtered[t - 1] A ahead[t]' = 1``.
        """
        filtered, scaled, scale = self.filtered, self.scaled, self.scale
        marginals = self.emissions.array("marginals")
        largest = None if _mixes(self.transition) else np.empty(len(scaled))
        onward = np.ascontiguousarray(self.transition.T)
        message = np.ones_like(self.entry)
        starts, ahead, n_later = self.layout.starts, scaled[:0], 0
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self.exit is not None:
                message = self.exit / (self.exit * filtered[self.layout.last]).sum(1, keepdims=True)
            for step in range(len(starts) - 2, -1, -1):
                begin, end = starts[step], starts[step + 1]
                np.matmul(ahead, onward, out=message[:n_later])
                here, ahead = message[: end - begin], scaled[begin:end]
                np.multiply(filtered[begin:end], here, out=marginals[begin:end])
                if largest is not None:
                    np.maximum.reduce(here, axis=1, out=largest[begin:end])
                ahead *= here
                first = 0 if self.every[step] else n_later
                if first < end - begin:
                    ahead[first:] /= scale[begin + first : end, None]
                n_later = end - begin
        return marginals, largest


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


# -- from piece to piece ---------------------------------------------------------------------------


def _hand_on(
    start: Array, transition: Array, scaled: Array, layout: Layout, *, back: bool
) -> tuple[Array, Array | None]:
    """Probabilities before the first step of each piece, messages after its last: (P, K)."""
    entry = np.repeat(start[None], len(layout.lengths), axis=0)
    if not layout.is_cut:
        return entry, None
    chain = layout.chain
    through, logs = _transfers(transition, scaled, layout)
    through, logs = through[chain.rows], logs[chain.rows, None]  # (P, in, out), (P, 1, in)
    starts = chain.starts
    carried = np.repeat(start[None, None], starts[1], axis=0)
    for begin, end in pairwise(starts):
        carried = carried[: end - begin]
        entry[chain.rows[begin:end]] = carried[:, 0]
        carried = _times(carried, logs[begin:end]) @ through[begin:end] @ transition
        carried /= np.maximum(carried.sum(axis=2, keepdims=True), TINY)
    if not back:
        return entry, None
    exit_ = np.ones_like(entry)
    message, onward = np.ones((starts[1], 1, len(start))), transition.T.copy()
    backward = through.transpose(0, 2, 1)
    for begin, end in zip(starts[-2::-1], starts[:0:-1], strict=True):
        now = message[: end - begin]
        exit_[chain.rows[begin:end]] = now[:, 0]
        now[...] = _times(now @ backward[begin:end], logs[begin:end]) @ onward
        now /= np.maximum(now.max(axis=2, keepdims=True), TINY)
    return entry, exit_


def _times(weights: Array, logs: Array) -> Array:
    """Weights times exponentials, (m, 1, K), over the largest product of each m."""
    with np.errstate(divide="ignore"):
        found = np.log(weights) + logs
    found -= np.maximum(found.max(axis=2, keepdims=True), LOWEST)
    return np.exp(found)


def _transfers(transition: Array, scaled: Array, layout: Layout) -> tuple[Array, Array]:
    """Products of ``diag(b_t) A`` over each piece, (P, K in, K out).

    Each row is over a factor of its own, whose logarithm comes too, (P, K in): where states have
    few ways on, rows may be too far apart for one.
    """
    n_states, widths = len(transition), layout.widths.tolist()
    n_pieces = widths[0]
    # One row of states for each state that a piece may be entered in: the work of K sequences.
    now = np.eye(n_states)[:, None, :] * scaled[None, :n_pieces]
    logs = np.zeros((n_states, n_pieces))
    every = _scaled_steps(transition, len(widths))
    for step in range(1, len(widths)):
        width = widths[step]
        active = now[:, :width]
        if width == n_pieces:
            now = (now.reshape(-1, n_states) @ transition).reshape(now.shape)
            active = now
        else:
            active[...] = active @ transition
        active *= scaled[layout.starts[step] : layout.starts[step + 1]]
        if every[step]:
            total = active.sum(axis=2)
            active /= np.maximum(total, TINY)[:, :, None]
            with np.errstate(divide="ignore"):
                logs[:, :width] += np.log(total)
    return np.ascontiguousarray(now.transpose(1, 0, 2)), np.ascontiguousarray(logs.T)
