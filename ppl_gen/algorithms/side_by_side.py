"""Sequences of any lengths side by side, so that one call takes a step in all of them.

A recursion over time costs a call of the library a step, whatever the number of sequences. So
sequences are sorted by length and their steps laid out time-major, without padding: step t of
all sequences that are that long is one slice of columns. A long sequence is cut into pieces that
stand side by side too; what passes from piece to piece is found first (`hidden_markov` says how).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

Array = Any

#: Seconds that a step of a recursion costs in calls alone, and one that a multiply-add costs:
#: what cutting saves, and what it costs. Orders of magnitude are enough.
CALL_SECONDS, FLOP_SECONDS = 2e-5, 5e-10


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the steps of sequences stand.

    Attributes
    ----------
    rows : (N,)
        Row of each column: sequences one after another in rows, steps one after another in
        columns.
    starts : list of int
        First column of each step, and N: step t has the columns ``starts[t]:starts[t + 1]``.
    sequence : (P,)
        Sequence that each piece is of; pieces are sorted by length, the longest first.
    place : (P,)
        Place of the piece in its sequence.
    lengths : (P,)
        Steps of each piece.
    n_sequences : int
    """

    rows: Array
    starts: list[int]
    sequence: Array
    place: Array
    lengths: Array
    n_sequences: int

    @cached_property
    def is_cut(self) -> bool:
        """Whether any sequence is in several pieces."""
        return bool(self.place.any())

    @cached_property
    def whole(self) -> "Layout":
        """Layout of the same sequences, none of them cut."""
        if not self.is_cut:
            return self
        return lay_out(self.sequence_lengths, 0, cut=False)

    @cached_property
    def sequence_lengths(self) -> Array:
        """Steps of each sequence: (n,)."""
        return np.bincount(self.sequence, self.lengths, self.n_sequences).astype(np.intp)

    @cached_property
    def last(self) -> Array:
        """Column of the last step of each piece: (P,)."""
        return np.array(self.starts)[self.lengths - 1] + np.arange(len(self.lengths))

    @cached_property
    def chain(self) -> "Layout":
        """Layout of the pieces of cut sequences themselves: its rows are numbers of pieces."""
        number = np.lexsort((self.place, self.sequence))  # pieces as sequences have them
        counts = np.bincount(self.sequence, minlength=self.n_sequences)
        layout = lay_out(counts, 0, cut=False)
        return replace(layout, rows=number[layout.rows])

    @cached_property
    def follows(self) -> tuple[Array, Array]:
        """Pieces that continue a sequence, and those that they continue."""
        number = np.lexsort((self.place, self.sequence))
        goes_on = np.flatnonzero(self.place[number] > 0)
        return number[goes_on], number[goes_on - 1]

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Runs of steps of one width: first step, step after the last, width."""
        widths = np.diff(self.starts)
        edges = [0, *(np.flatnonzero(np.diff(widths)) + 1).tolist(), len(widths)]
        return [(a, b, int(widths[a])) for a, b in pairwise(edges)]

    @cached_property
    def column_sequence(self) -> Array:
        """Sequence of each column: (N,)."""
        return self.sequence[np.arange(len(self.rows)) - np.repeat(self.starts[:-1], self.widths)]

    @property
    def widths(self) -> Array:
        """Pieces that have each step: (S,)."""
        return np.diff(self.starts)


def lay_out(lengths: Array, n_states: int, *, cut: bool = True) -> Layout:
    """Lay out sequences for a recursion over `n_states` states.

    Parameters
    ----------
    lengths : (n,)
        Steps of each sequence, at least 1.
    n_states : int
        Cutting costs a factor of this many in arithmetic, and saves calls.
    cut : bool
        Whether long sequences may be cut.

    Examples
    --------
    >>> import numpy as np
    >>> layout = lay_out(np.array([2, 3]), n_states=2)
    >>> layout.rows.tolist(), layout.starts
    ([2, 0, 3, 1, 4], [0, 2, 4, 5])
    """
    lengths = np.asarray(lengths, dtype=np.intp)
    block = _block(lengths, n_states) if cut else int(lengths.max())
    counts = -(-lengths // block)  # pieces of each sequence, of near equal length
    sequence = np.repeat(np.arange(len(lengths)), counts)
    place = np.arange(len(sequence)) - np.repeat(np.cumsum(counts) - counts, counts)
    base, more = lengths // counts, lengths % counts
    pieces = base[sequence] + (place < more[sequence])
    firsts = np.cumsum(pieces) - pieces
    order = np.argsort(-pieces, kind="stable")
    pieces, firsts = pieces[order], firsts[order]
    steps = np.arange(pieces[0])
    widths = np.searchsorted(-pieces, -steps, side="left")  # pieces longer than t
    starts = np.concatenate([[0], np.cumsum(widths)])
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], widths)
    return Layout(
        rows=firsts[within] + np.repeat(steps, widths),
        starts=starts.tolist(),
        sequence=sequence[order],
        place=place[order],
        lengths=pieces,
        n_sequences=len(lengths),
    )


def _block(lengths: Array, n_states: int) -> int:
    """Steps at most of a piece."""
    longest, total = int(lengths.max()), int(lengths.sum())
    calls = 2.0 * CALL_SECONDS * longest
    arithmetic = 2.0 * FLOP_SECONDS * total * n_states**3
    if longest < 1000 or arithmetic > 0.5 * calls:
        return longest
    # Steps of three passes over a piece, against pieces that hand on one after another.
    return int(np.sqrt(0.5 * longest)) + 1
