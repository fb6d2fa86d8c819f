"""Where the pieces of a cut sequence start and end, by the transfer matrices of all pieces.

The product of ``diag(b_t) A`` over a piece takes what enters it to what leaves it. All products
are found at once, and one short recursion hands the state on from piece to piece (Sarkka &
Garcia-Fernandez, IEEE TAC 66, 2021, with blocks in place of a tree).
"""

from itertools import pairwise
from typing import Any

import numpy as np

from ppl_gen.algorithms.side_by_side import Layout

Array = Any

TINY, LOWEST = np.finfo(np.float64).tiny, np.finfo(np.float64).min
#: Posterior odds of all lost paths together that would still be harmless.
HARMLESS = 1e-20
#: Steps between scalings, where every state may follow every other, so that no share falls far in
#: so few; and where that is not so.
STRIDE, SHORT_STRIDE = 8, 4


def mixes(transition: Array) -> bool:
    """Whether every state may follow every other, so that no share falls far in a few steps."""
    return bool(transition.min() > HARMLESS)


def scaled_steps(transition: Array, n_steps: int) -> list[bool]:
    """Which steps are scaled: those at the end of a stride."""
    stride = STRIDE if mixes(transition) else SHORT_STRIDE
    return [step % stride == stride - 1 for step in range(n_steps)]


def hand_on(
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
    every = scaled_steps(transition, len(widths))
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
