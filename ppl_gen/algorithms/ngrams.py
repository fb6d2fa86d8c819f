"""N-grams: which runs of symbols occur, how often, and what follows them.

Symbols are codes 0, ..., K - 1; the code K stands before the first symbol of a sequence, as often
as a context needs. An m-gram is numbered by the number of its first m - 1 symbols and its last
symbol, so that only what occurs takes room, and numbers never grow beyond what occurred.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Array = Any


def previous(grams: Array, starts: Array, first: int) -> Array:
    """Shift (N,) numbers by one step within their sequences; `first` comes before each start."""
    shifted = np.empty_like(grams)
    shifted[1:] = grams[:-1]
    shifted[starts] = first
    return shifted


@dataclass(frozen=True, eq=False)
class NGramIndex:
    """The m-grams that occur, for m = 1, ..., order + 1, in numerical order.

    Parameters
    ----------
    n_symbols : int
        K.
    keys : tuple of (G_m,) integer arrays
        The number of an m-gram is its place in ``keys[m - 1]``, which has
        ``number of its first m - 1 symbols * (K + 1) + last symbol``. The last one is that of m
        marks before a sequence.
    """

    n_symbols: int
    keys: tuple[Array, ...]

    @classmethod
    def of(cls, codes: Array, starts: Array, order: int, n_symbols: int) -> "NGramIndex":
        """Index all m-grams of some sequences.

        Parameters
        ----------
        codes : (N,)
            Symbols of all sequences, one after another.
        starts : (n,)
            Where each begins.
        order : int
        n_symbols : int

        Examples
        --------
        >>> index = NGramIndex.of(np.array([0, 1, 0, 1]), np.array([0]), order=1, n_symbols=2)
        >>> index.keys[1].tolist()  # 0 after 1, 1 after 0, 0 after the mark, the marks
        [1, 3, 6, 8]
        """
        keys = [np.arange(n_symbols + 1)]
        grams = codes
        for _ in range(order):
            last = len(keys[-1]) - 1
            found = previous(grams, starts, last) * (n_symbols + 1) + codes
            known, grams = np.unique(found, return_inverse=True)
            keys.append(np.append(known, last * (n_symbols + 1) + n_symbols))
        return cls(n_symbols, tuple(keys))

    @property
    def order(self) -> int:
        """Symbols of the longest context."""
        return len(self.keys) - 1

    def n_contexts(self, level: int) -> int:
        """Contexts of so many symbols."""
        return 1 if level == 0 else len(self.keys[level - 1])

    def prefix(self, level: int) -> Array:
        """Context, of `level` symbols, of each (level + 1)-gram."""
        return self.keys[level] // (self.n_symbols + 1) if level else np.zeros_like(self.keys[0])

    def symbol(self, level: int) -> Array:
        """Last symbol of each (level + 1)-gram."""
        return self.keys[level] % (self.n_symbols + 1)

    @cached_property
    def suffix(self) -> tuple[Array, ...]:
        """Number of each (level + 1)-gram without its first symbol, by level from 1 on."""
        found = [np.zeros_like(self.keys[0])]
        for level in range(1, len(self.keys)):
            shorter = found[-1][self.prefix(level)]
            found.append(self.extend(level - 1, shorter, self.symbol(level)))
        return tuple(found[1:])

    @cached_property
    def begins(self) -> tuple[Array, ...]:
        """Which (level + 1)-grams start before the first symbol of a sequence, by level."""
        found = [np.arange(self.n_symbols + 1) == self.n_symbols]
        for level in range(1, len(self.keys)):
            found.append(found[-1][self.prefix(level)])
        return tuple(found)

    def extend(self, level: int, contexts: Array, symbols: Array) -> Array:
        """Number of the (level + 1)-gram of a context and a symbol; -1 for what did not occur."""
        if level == 0:
            return np.asarray(symbols)
        keys = self.keys[level]
        wanted = np.asarray(contexts) * (self.n_symbols + 1) + symbols
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where((keys[places] == wanted) & (np.asarray(contexts) >= 0), places, -1)

    def before(self, n: int) -> list[Array]:
        """Contexts of each level before the first symbol of n sequences."""
        return [np.full(n, self.n_contexts(level) - 1) for level in range(self.order + 1)]

    def advance(self, contexts: list[Array], symbols: Array) -> list[Array]:
        """Contexts of each level after one more symbol."""
        longer = [
            self.extend(level, contexts[level], symbols) for level in range(len(contexts) - 1)
        ]
        return [np.zeros_like(contexts[0]), *longer]

    def locate(self, codes: Array, starts: Array) -> tuple[list[Array], list[Array]]:
        """Number the context and the gram of every step of some sequences, at each level.

        Returns
        -------
        contexts, cells : lists of (N,) integer arrays
            One a level, -1 for what did not occur: ``cells[level]`` numbers the (level + 1)-grams
            that end at a step, ``contexts[level]`` their first `level` symbols.
        """
        contexts, cells = [np.zeros_like(codes)], [codes]
        for level in range(1, self.order + 1):
            contexts.append(previous(cells[-1], starts, len(self.keys[level - 1]) - 1))
            cells.append(self.extend(level, contexts[-1], codes))
        return contexts, cells

    def completed(self) -> "NGramIndex":
        """Return the index with every symbol after every longest context."""
        after = np.arange(self.n_contexts(self.order))[:, None] * (self.n_symbols + 1)
        every = (after + np.arange(self.n_symbols)).ravel()
        return NGramIndex(self.n_symbols, (*self.keys[:-1], np.append(every, every[-1] + 1)))

    def lower_counts(self, counts: Array) -> list[Array]:
        """Counts of the grams of all levels from those of the longest ones."""
        found = [counts]
        for level in range(self.order, 0, -1):
            size = len(self.keys[level - 1])
            found.insert(0, np.bincount(self.suffix[level - 1], found[0], minlength=size))
        return found

    def context_sums(self, level: int, values: Array) -> Array:
        """Sum over the grams of each context: (cells,) -> (contexts,)."""
        return np.bincount(self.prefix(level), values, minlength=self.n_contexts(level))
