"""Paths of hidden Markov models: the likeliest one, and draws from the posterior over them.

The likeliest path (Viterbi, IEEE TIT 13, 1967) is found in logarithms, where nothing underflows,
and only the best scores are kept: which state came before is worked out again along the path,
for K sums a step in place of K squared kept indices. Long sequences are cut as `hidden_markov`
cuts them, with maxima for sums.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from ppl_gen.algorithms.hidden_markov import Emissions, log_filter_steps
from ppl_gen.algorithms.side_by_side import Layout

Array = Any


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
    layout, logs = emissions.layout, np.ascontiguousarray(emissions.logs().T)
    entry = _hand_on(log_start, log_transition, logs, layout)
    best = _best_scores(log_transition, entry, logs, layout)
    path = np.empty(len(layout.rows), dtype=np.intp)
    ends = layout.last
    if not layout.is_cut:
        states = best[:, ends].argmax(axis=0)
        path[layout.rows] = _trace_back(log_transition, best, states[None], layout)[0]
        log_prob = np.empty(layout.n_sequences)
        log_prob[layout.sequence] = best[:, ends].max(axis=0)
        return log_prob, path
    # Trace back from every state that a piece may end in, then choose from the last piece on.
    n_states = len(log_start)
    every = np.repeat(np.arange(n_states)[:, None], len(ends), axis=1)
    traces = _trace_back(log_transition, best, every, layout)  # (K, N)
    chosen = np.empty(len(ends), dtype=np.intp)
    chain = layout.chain
    counts = np.bincount(layout.sequence, minlength=layout.n_sequences)
    is_last = layout.place == counts[layout.sequence] - 1
    chosen[is_last] = best[:, ends[is_last]].argmax(axis=0)
    log_prob = np.empty(layout.n_sequences)
    log_prob[layout.sequence[is_last]] = best[:, ends[is_last]].max(axis=0)
    steps = list(zip(chain.starts[:-1], chain.starts[1:], strict=True))
    for round_ in range(len(steps) - 1, 0, -1):
        pieces = chain.rows[slice(*steps[round_])]
        before = chain.rows[steps[round_ - 1][0] :][: len(pieces)]
        first = traces[chosen[pieces], pieces]  # a piece's own first column is its number
        chosen[before] = (best[:, ends[before]] + log_transition[:, first]).argmax(axis=0)
    piece = np.arange(len(layout.rows)) - np.repeat(layout.starts[:-1], layout.widths)
    path[layout.rows] = traces[chosen[piece], np.arange(len(piece))]
    return log_prob, path


def _best_scores(log_transition: Array, entry: Array, logs: Array, layout: Layout) -> Array:
    """Score of the best path that ends in each state at each step: (K, N)."""
    best = np.empty_like(logs)
    starts, before = layout.starts, 0
    n_states, widest = len(log_transition), starts[1]
    work = np.empty((n_states, n_states, widest))
    step_to = log_transition[:, :, None]
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
    return best


def _trace_back(log_transition: Array, best: Array, states: Array, layout: Layout) -> Array:
    """Follow best scores back from several (L, P) last states at once: (L, N)."""
    starts = layout.starts
    traces = np.empty((len(states), len(layout.rows)), dtype=np.intp)
    now = states.copy()
    into = np.ascontiguousarray(log_transition.T)  # scores of all states before one
    for step in range(len(starts) - 2, -1, -1):
        begin, end = starts[step], starts[step + 1]
        if step + 2 < len(starts):
            width = starts[step + 2] - end
            scores = into[now[:, :width]] + best[:, begin : begin + width].T
            now[:, :width] = scores.argmax(axis=-1)
        traces[:, begin:end] = now[:, : end - begin]
    return traces


def _hand_on(log_start: Array, log_transition: Array, logs: Array, layout: Layout) -> Array:
    """Best scores before the first step of each piece: (K, P)."""
    entry = np.repeat(log_start[:, None], len(layout.lengths), axis=1)
    if not layout.is_cut:
        return entry
    transfer, chain = _transfers(log_transition, logs, layout), layout.chain
    starts = chain.starts
    ahead = np.moveaxis(transfer, 2, 0)[chain.rows]  # (P, out, in)
    carried = np.repeat(log_start[None], starts[1], axis=0)
    for begin, end in pairwise(starts):
        carried = carried[: end - begin]
        entry[:, chain.rows[begin:end]] = carried.T
        exits = (ahead[begin:end] + carried[:, None, :]).max(axis=2)
        carried = (exits[:, :, None] + log_transition).max(axis=1)
    return entry


def _transfers(log_transition: Array, logs: Array, layout: Layout) -> Array:
    """Score of the best way through each piece, by last and first state: (K out, K in, P)."""
    n_states, widths = len(log_transition), layout.widths
    found = np.empty((n_states, n_states, int(widths[0])))
    with np.errstate(divide="ignore"):
        now = np.log(np.eye(n_states))[:, :, None] + logs[:, None, : widths[0]]
    for step in range(1, len(widths)):
        begin, end = layout.starts[step], layout.starts[step + 1]
        width = end - begin
        if width < now.shape[2]:
            found[:, :, width : now.shape[2]] = now[:, :, width:]
            now = np.ascontiguousarray(now[:, :, :width])
        later = now[0] + log_transition[0][:, None, None]
        for state in range(1, n_states):
            np.maximum(later, now[state] + log_transition[state][:, None, None], out=later)
        later += logs[:, None, begin:end]
        now = later
    found[:, :, : now.shape[2]] = now
    return found


def draw_paths(
    start: Array,
    transition: Array,
    emissions: Emissions,
    rng: np.random.Generator,
    n_draws: int = 1,
) -> Array:
    """Draw paths from their posterior: filter forward, sample backward.

    Fruhwirth-Schnatter, Journal of Time Series Analysis 15 (1994).

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
    layout = emissions.layout.whole
    shares = log_filter_steps(start, transition, emissions)[layout.rows]  # (N, K) by column
    with np.errstate(divide="ignore"):
        into = np.ascontiguousarray(np.log(transition).T)
    paths = np.empty((n_draws, len(layout.rows)), dtype=np.intp)
    starts = layout.starts
    later: Array = None
    for step in range(len(starts) - 2, -1, -1):
        begin, end = starts[step], starts[step + 1]
        logs = np.repeat(shares[None, begin:end], n_draws, axis=0)
        if later is not None:
            logs[:, : later.shape[1]] += into[later]
        with np.errstate(invalid="ignore"):  # of an impossible sequence, any path is as good
            total = np.cumsum(np.exp(logs - logs.max(axis=2, keepdims=True)), axis=2)
        threshold = rng.random(total.shape[:2]) * total[:, :, -1]
        later = np.minimum((total <= threshold[:, :, None]).sum(axis=2), len(start) - 1)
        paths[:, layout.rows[begin:end]] = later
    return paths
