"""Paths of hidden Markov models: the likeliest one, and draws from the posterior over them.

The likeliest path (Viterbi, IEEE TIT 13, 1967) is found in logarithms, where nothing underflows,
and only the best scores are kept: which state came before is worked out again along the path,
for K sums a step in place of K squared kept indices. Long sequences are cut into pieces that start
from anywhere and are put right where it matters, which is soon forgotten.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from ppl_gen.algorithms.hidden_markov import Emissions, log_filter_steps
from ppl_gen.algorithms.side_by_side import Layout

Array = Any

#: Rounds in which pieces may start again, before sequences are taken whole.
ROUNDS = 4
#: Rounding of a score, relative to its size.
ROUNDING = 1e-13
LOWEST = np.finfo(np.float64).min


def viterbi(start: Array, transition: Array, emissions: Emissions) -> tuple[Array, Array]:
    """Return the likeliest path of each sequence, and its log density with the observations.

    Parameters
    ----------
    start : (K,)
    transition : (K, K)
    emissions : Emissions

    Returns
    -------
    log_prob : (n,)
        ``max_z log p(x, z)``, in nats.
    path : (N,)
        States by row; ties go to the lowest state.
    """
    with np.errstate(divide="ignore"):
        log_start, log_transition = np.log(start), np.log(transition)
    return viterbi_in_logs(log_start, log_transition, emissions)


def viterbi_in_logs(
    log_start: Array, log_transition: Array, emissions: Emissions
) -> tuple[Array, Array]:
    """Return :func:`viterbi` for log weights that need not be normalised."""
    layout, logs = emissions.layout, emissions.logs_by_state()
    best = _best_scores(log_start, log_transition, logs, layout)
    if best is None:
        whole = layout.whole
        by_row = np.empty(logs.shape)
        by_row[:, layout.rows] = logs
        layout, logs = whole, by_row[:, whole.rows]
        best = _best_scores(log_start, log_transition, logs, layout)
        assert best is not None
    traced = _trace_back(log_transition, best, layout)
    path = np.empty_like(traced)
    path[layout.rows] = traced
    # The sum along the path, since pieces know their scores up to a constant only.
    ends = np.cumsum(layout.sequence_lengths)
    firsts = ends - layout.sequence_lengths
    terms = np.empty(len(path))
    terms[1:] = log_transition[path[:-1], path[1:]]
    terms[firsts] = log_start[path[firsts]]
    terms[layout.rows] += logs[traced, np.arange(len(traced))]
    return np.add.reduceat(terms, firsts), path


def _best_scores(
    log_start: Array, log_transition: Array, logs: Array, layout: Layout
) -> Array | None:
    """Score of the best path that ends in each state at each step, (K, N).

    Of a piece that continues a sequence, up to a constant for each step. Pieces all start at once
    from anywhere; then each starts again from where the one before it has ended, until what it
    finds is what it had found: after some steps all best paths come from one state, and scores
    no longer tell where they started. None, if in some piece they always do.
    """
    best = np.empty_like(logs)
    starts, before = layout.starts, 0
    n_states, widest = len(log_transition), starts[1]
    work = np.empty((n_states, n_states, widest))
    step_to = log_transition[:, :, None]
    entry = np.where(layout.place == 0, log_start[:, None], 0.0)
    for begin, end in pairwise(starts):
        width, now = end - begin, best[:, begin:end]
        if begin == 0:
            np.add(entry, logs[:, :end], out=now)
        else:
            ways = work if width == widest else work[:, :, :width]
            np.add(best[:, None, before : before + width], step_to, out=ways)
            np.maximum.reduce(ways, axis=0, out=now)
            now += logs[:, begin:end]
        before = begin
    if not layout.is_cut:
        return best
    pieces, previous = follows, followed = layout.follows
    for _ in range(ROUNDS):
        open_ = _start_again(best, log_transition, logs, layout, pieces, previous)
        if not open_.any():
            return best
        # Those that follow a piece that has changed to its end.
        again = np.isin(followed, pieces[open_])
        pieces, previous = follows[again], followed[again]
        if not len(pieces):
            return best
    return None


def _start_again(
    best: Array,
    log_transition: Array,
    logs: Array,
    layout: Layout,
    pieces: Array,
    previous: Array,
) -> Array:
    """Start pieces from the ends of the previous ones; tell which have changed to their ends."""
    ends = best[:, layout.last[previous]]
    scores = (ends[:, None] + log_transition[:, :, None]).max(axis=0)
    scores -= np.maximum(scores.max(axis=0), LOWEST)
    running = np.arange(len(pieces))
    changed = np.zeros(len(pieces), dtype=bool)
    starts = np.array(layout.starts)
    for step in range(len(starts) - 1):
        inside = layout.lengths[pieces[running]] > step
        changed[running[~inside]] = True
        running, scores = running[inside], scores[:, inside]
        if not len(running):
            break
        columns = starts[step] + pieces[running]
        if step:
            scores = (scores[:, None] + log_transition[:, :, None]).max(axis=0)
        scores = scores + logs[:, columns]
        same = _agree(scores, best[:, columns])
        best[:, columns] = scores
        running, scores = running[~same], scores[:, ~same]
    changed[running] = True
    return changed


def _agree(scores: Array, found: Array) -> Array:
    """Whether the scores of all states (K, P) differ by one constant from those found before."""
    excluded = (scores == -np.inf) & (found == -np.inf)
    with np.errstate(invalid="ignore"):  # of what is excluded
        apart = scores - found
        largest = np.where(excluded, -np.inf, apart).max(axis=0)
        spread = largest - np.where(excluded, np.inf, apart).min(axis=0)
    size = np.where(scores > -np.inf, np.abs(scores), 0.0).max(axis=0)
    return (spread <= ROUNDING * (1.0 + size)) | excluded.all(axis=0)


def _trace_back(log_transition: Array, best: Array, layout: Layout) -> Array:
    """Follow best scores back from the ends of the sequences: states by column (N,).

    Pieces are traced at once from their best last states; those that the following piece does
    not come from are traced again, until they meet the trace that is there.
    """
    starts = layout.starts
    trace = np.empty(len(layout.rows), dtype=np.intp)
    now = best[:, layout.last].argmax(axis=0)
    into = np.ascontiguousarray(log_transition.T)  # scores of all states before one
    for step in range(len(starts) - 2, -1, -1):
        begin, end = starts[step], starts[step + 1]
        if step + 2 < len(starts):
            width = starts[step + 2] - end
            now[:width] = (into[now[:width]] + best[:, begin : begin + width].T).argmax(axis=1)
        trace[begin:end] = now[: end - begin]
    pieces, previous = layout.follows if layout.is_cut else (now[:0], now[:0])
    last = layout.last[previous]
    while len(pieces):
        # A piece's first column is its number.
        ends = (into[trace[pieces]] + best[:, last].T).argmax(axis=1)
        wrong = ends != trace[last]
        if not wrong.any():
            break
        _trace_again(trace, into, best, layout, previous[wrong], ends[wrong])
    return trace


def _trace_again(
    trace: Array, into: Array, best: Array, layout: Layout, pieces: Array, ends: Array
) -> None:
    """Trace pieces back from other last states, until they meet the trace that is there."""
    starts = np.array(layout.starts)
    steps, states = layout.lengths[pieces] - 1, ends
    while len(pieces):
        columns = starts[steps] + pieces
        trace[columns] = states
        going = steps > 0
        pieces, steps, states = pieces[going], steps[going] - 1, states[going]
        columns = starts[steps] + pieces
        states = (into[states] + best[:, columns].T).argmax(axis=1)
        other = states != trace[columns]
        pieces, steps, states = pieces[other], steps[other], states[other]


def draw_paths(
    start: Array,
    transition: Array,
    emissions: Emissions,
    rng: np.random.Generator,
    n_draws: int = 1,
) -> Array:
    """Draw paths from their posterior: filter forward, sample backward.

    Fruhwirth-Schnatter, Journal of Time Series Analysis 15 (1994). Each step has a uniform number
    of its own, given which a state is a function of the next one: so pieces are traced at once
    from last states that may be wrong, and again where they were, as the likeliest path is.

    Parameters
    ----------
    start : (K,)
    transition : (K, K)
    emissions : Emissions
    rng : numpy.random.Generator
    n_draws : int

    Returns
    -------
    (n_draws, N) array
        States by row.
    """
    layout = emissions.layout
    draws = _Draws(start, transition, emissions, rng, n_draws)
    starts, trace = layout.starts, draws.trace
    now = draws.states(slice(None), layout.last)
    for step in range(len(starts) - 2, -1, -1):
        begin, end = starts[step], starts[step + 1]
        width = starts[step + 2] - end if step + 2 < len(starts) else 0
        now[:, :width] = draws.states(slice(None), slice(begin, begin + width), now[:, :width])
        trace[:, begin:end] = now[:, : end - begin]
    pieces, previous = layout.follows if layout.is_cut else (now[0, :0], now[0, :0])
    last = layout.last[previous]
    while len(pieces):
        # A piece's first column is its number.
        ends = draws.states(slice(None), last, trace[:, pieces])
        draw, wrong = np.nonzero(ends != trace[:, last])
        if not len(wrong):
            break
        draws.trace_again(draw, previous[wrong], ends[draw, wrong])
    paths = np.empty_like(trace)
    paths[:, layout.rows] = trace
    return paths


class _Draws:
    """Paths that are drawn backward: `trace` (n, N) has the states by column."""

    def __init__(
        self,
        start: Array,
        transition: Array,
        emissions: Emissions,
        rng: np.random.Generator,
        n_draws: int,
    ) -> None:
        self.layout = emissions.layout
        rows = self.layout.rows
        self.shares = log_filter_steps(start, transition, emissions)[rows]  # (N, K) by column
        # By row, so that a path does not depend on where sequences are cut.
        self.heights = rng.random((n_draws, len(rows)))[:, rows]
        with np.errstate(divide="ignore"):
            self.into = np.ascontiguousarray(np.log(transition).T)
        self.trace = np.empty(self.heights.shape, dtype=np.intp)

    def states(self, draws: Any, columns: Any, later: Array | None = None) -> Array:
        """Draw the states of columns, given the next ones, or as if there were none."""
        heights, logs = self.heights[draws, columns], self.shares[columns]
        logs = logs if later is None else logs + self.into[later]
        with np.errstate(invalid="ignore"):  # of an impossible sequence, any path is as good
            total = np.exp(logs - logs.max(axis=-1, keepdims=True))
            np.cumsum(total, axis=-1, out=total)
        below = total <= (heights * total[..., -1])[..., None]
        return np.minimum(below.sum(axis=-1), len(self.into) - 1)

    def trace_again(self, draws: Array, pieces: Array, ends: Array) -> None:
        """Trace pieces back from other last states, until they meet the trace that is there."""
        starts, trace = np.array(self.layout.starts), self.trace
        steps, states = self.layout.lengths[pieces] - 1, ends
        while len(pieces):
            trace[draws, starts[steps] + pieces] = states
            going = steps > 0
            draws, pieces, steps, states = (
                draws[going],
                pieces[going],
                steps[going] - 1,
                states[going],
            )
            columns = starts[steps] + pieces
            states = self.states(draws, columns, states)
            other = states != trace[draws, columns]
            draws, pieces, steps, states = draws[other], pieces[other], steps[other], states[other]


def draw_ahead(shares: Array, transition: Array, steps: int, rng: np.random.Generator) -> Array:
    """Draw the states that follow states of probability `shares` (..., K): (..., steps).

    One search finds all next states of a step: a path's next state is where its state plus a
    uniform number falls among the cumulative probabilities of all states, one row after another.
    """
    n_states = len(transition)
    cumulative = np.cumsum(transition, axis=1)
    cumulative /= cumulative[:, -1:]
    ladder = (cumulative + np.arange(n_states)[:, None]).ravel()
    first = np.cumsum(shares @ transition, axis=-1)
    states = np.empty((steps, *shares.shape[:-1]), dtype=np.intp)
    height = rng.random(shares.shape[:-1]) * first[..., -1]
    now = np.zeros(height.shape, dtype=np.intp)
    for k in range(n_states - 1):
        now += first[..., k] <= height
    states[0] = now
    # A number next to 1 must not be rounded up into the row of the next state.
    below = 1.0 - n_states * np.finfo(np.float64).eps
    for t in range(1, steps):
        height = rng.random(now.shape)
        height *= below
        height += now
        now = np.searchsorted(ladder, height, side="right") - now * n_states
        states[t] = now
    return np.moveaxis(states, 0, -1)
