"""Sequences in: lists, three axes, or rows with lengths, to one table of rows and back.

Inside, sequences are the rows of a table, one sequence after another, and their lengths. So
whatever reads tables reads sequences: frames, categories, NaN for what is missing.
"""

import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ppl_gen.algorithms.row_chunks import workers
from ppl_gen.data import DEVICE_ROWS, is_frame, to_numpy

Array = Any

#: Rows of sequences to work on at once: steps are too short to share among threads, and with more
#: sequences side by side they are fewer; but what is known of all states takes room.
SLICE_ROWS = 500_000
#: Sequences side by side, padded to the longest, may not take more memory than this.
MAX_PADDED_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Sequences:
    """Sequences of rows, one after another, with what EM wants to know of each.

    Attributes
    ----------
    values : (N, D)
        Rows of all sequences; NaN where missing.
    lengths : (n,)
        Steps of each sequence; they sum to N.
    labels : (N,) or None
        Known states, -1 where unknown.
    weights : (n,) or None
        Of whole sequences.
    first : int
        Number of the first one among those that these are a part of.
    """

    values: Array
    lengths: Array
    labels: Array | None = None
    weights: Array | None = None
    first: int = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, chosen: Any) -> "Sequences":
        """Return some of the sequences, by a slice or by their numbers."""
        if isinstance(chosen, slice):
            first, stop, step = chosen.indices(len(self))
            if step == 1:
                return self._run_of(first, max(first, stop))
            chosen = np.arange(len(self))[chosen]
        lengths = self.lengths[chosen]
        rows = spans(self.ends[chosen] - lengths, lengths)
        return Sequences(
            self.values[rows],
            lengths,
            None if self.labels is None else self.labels[rows],
            None if self.weights is None else self.weights[chosen],
        )

    def _run_of(self, first: int, stop: int) -> "Sequences":
        """Return sequences that follow one another, with the same rows, kept for the next time."""
        if (first, stop) == (0, len(self)):
            return self
        if (first, stop) not in self.kept:
            ends = np.concatenate([[0], self.ends])
            rows = slice(int(ends[first]), int(ends[stop]))
            self.kept[first, stop] = Sequences(
                self.values[rows],
                self.lengths[first:stop],
                None if self.labels is None else self.labels[rows],
                None if self.weights is None else self.weights[first:stop],
                self.first + first,
            )
        run: Sequences = self.kept[first, stop]
        return run

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """What models keep with the sequences, so as not to lay them out at every step of EM."""
        return {}

    @cached_property
    def ends(self) -> Array:
        """Row after the last one of each sequence: (n,)."""
        return np.cumsum(self.lengths)

    @property
    def row_weights(self) -> Array | None:
        """Weight of the sequence of each row, or None: (N,)."""
        return None if self.weights is None else np.repeat(self.weights, self.lengths)

    @property
    def total_weight(self) -> float:
        """Steps of all sequences, times their weights."""
        if self.weights is None:
            return float(len(self.values))
        return float(self.weights @ self.lengths)

    @property
    def slices(self) -> list[slice]:
        """Sequences to work on at once: many side by side, since steps follow one another."""
        return self.shares(SLICE_ROWS)

    def shares(self, n_rows: int) -> list[slice]:
        """Runs of sequences of about so many rows each."""
        count = min(len(self), -(-len(self.values) // n_rows))
        if count == 1:
            return [slice(None)]
        # Where each share of the rows ends, whatever the lengths.
        ends = np.searchsorted(self.ends, np.arange(1, count) * len(self.values) / count) + 1
        edges = np.unique([0, *ends.tolist(), len(self)]).tolist()
        return [slice(a, b) for a, b in pairwise(edges)]

    def head(self, n_rows: int) -> "Sequences":
        """Return the first sequences, of about so many rows, or the head of the first one."""
        count = int(np.searchsorted(self.ends, n_rows, side="right"))
        if count:
            return self[:count] if count < len(self) else self
        labels = None if self.labels is None else self.labels[:n_rows]
        weights = None if self.weights is None else self.weights[:1]
        return Sequences(self.values[:n_rows], np.array([n_rows]), labels, weights)

    def map(self, function: Callable[["Sequences"], Array], n_rows: int = SLICE_ROWS) -> Array:
        """Join what a function says of some of the sequences after others, on every core."""
        with workers(self.shares(n_rows)) as mapped:
            return np.concatenate(mapped(lambda chosen: function(self[chosen])))

    def blocks(self) -> Iterator["Padded"]:
        """Yield sequences of like length side by side, in pieces for the memory of a GPU."""
        return (padded for _, padded in self.numbered_blocks())

    def numbered_blocks(self) -> Iterator[tuple[Array, "Padded"]]:
        """Yield the numbers of the sequences of each of the `blocks`, and the block."""
        order = np.argsort(-self.lengths, kind="stable")
        done = 0
        while done < len(order):
            longest = int(self.lengths[order[done]])
            count = max(1, DEVICE_ROWS // longest)
            chosen = order[done : done + count]
            yield chosen, Padded.of(self[chosen])
            done += count


@dataclass(frozen=True)
class Padded:
    """Sequences side by side, the shorter ones ending in missing steps, which change nothing.

    Attributes
    ----------
    values : (n, T, D)
    lengths : (n,)
    labels : (n, T) or None
    weights : (n,) or None
    """

    values: Array
    lengths: Array
    labels: Array | None = None
    weights: Array | None = None

    @classmethod
    def of(cls, sequences: Sequences) -> "Padded":
        """Lay sequences side by side.

        Raises
        ------
        ValueError
            If they would take more than 8 GiB, for a few that are far longer than the others.
        """
        size = padded_bytes(sequences)
        if size > MAX_PADDED_BYTES:
            raise ValueError(
                f"{len(sequences):,} sequences side by side, padded to the "
                f"{sequences.lengths.max():,} steps of the longest, take {size / 1e9:.1f} GB; "
                f"expected at most {MAX_PADDED_BYTES / 1e9:.1f} GB; split the long sequences, or "
                "fit by EM, which does not pad"
            )
        inside = np.arange(sequences.lengths.max()) < sequences.lengths[:, None]
        values = np.full((*inside.shape, sequences.values.shape[1]), np.nan)
        values[inside] = sequences.values
        labels = None
        if sequences.labels is not None:
            labels = np.full(inside.shape, -1)
            labels[inside] = sequences.labels
        return cls(values, sequences.lengths, labels, sequences.weights)

    @property
    def arrays(self) -> tuple[Array | None, ...]:
        """The arrays from which this is rebuilt: ``Padded(*padded.arrays)``."""
        return self.values, self.lengths, self.labels, self.weights


def padded_bytes(sequences: Sequences) -> int:
    """Memory that sequences take side by side."""
    width = int(sequences.values.shape[1])
    return 8 * len(sequences) * int(sequences.lengths.max()) * width


def spans(starts: Array, lengths: Array) -> Array:
    """Numbers of the rows of several runs, one after another.

    Examples
    --------
    >>> import numpy as np
    >>> spans(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


@dataclass(frozen=True)
class Arrangement:
    """How the user laid out the sequences, so that results come back the same way.

    Attributes
    ----------
    kind : {"rows", "list", "stacked"}
        Rows with or without lengths; a list with one item a sequence; an (n, T, D) array.
    lengths : (n,)
    """

    kind: str
    lengths: Array

    def restore(self, rows: Array) -> Any:
        """Give values (or a frame) by row, (N, ...), the arrangement of their sequences."""
        if self.kind == "rows":
            return rows
        if self.kind == "stacked":
            return rows.reshape(len(self.lengths), -1, *rows.shape[1:])
        ends = np.cumsum(self.lengths)
        parts = [rows[end - length : end] for end, length in zip(ends, self.lengths, strict=True)]
        return [p.reset_index(drop=True) for p in parts] if hasattr(rows, "iloc") else parts


def arrange(X: Any, lengths: Any, who: str) -> tuple[Any, Arrangement]:
    """Lay sequences one after another, as one table.

    Parameters
    ----------
    X : list of (T, D) tables or (T,) series, (n, T, D) array, or rows (N, D) or (N,)
    lengths : (n,) or None
        Of the sequences in the rows; one sequence, if None.
    who : str
        Who asks, for errors.

    Returns
    -------
    table, Arrangement
        The table as a container that table readers take, with the rows of all sequences.

    Raises
    ------
    ValueError
        If there is no sequence, one is empty, their widths differ, or the lengths do not sum to
        the number of rows.
    TypeError
        If X is no table and no list of tables.
    """
    X = _known(to_numpy(X), who)
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1 and len(X) and np.ndim(X[0]):
        X = list(X)  # NumPy's way to hold sequences of unequal lengths
    if isinstance(X, list | tuple) and len(X) and not _is_row(X[0]):
        if lengths is not None:
            raise ValueError(
                f"{who}: X is a list of {len(X)} sequences, which have lengths of their own; "
                "leave lengths out, and give known states as y="
            )
        tables = [_columns(to_numpy(item)) for item in X]
        counts = np.array([len(table) for table in tables], dtype=np.intp)
        refuse_empty(counts, who)
        return _joined(tables, who), Arrangement("list", counts)
    if np.ndim(X) == 3:
        if lengths is not None:
            raise ValueError(
                f"{who}: X has shape {X.shape}, sequences by steps by columns, and lengths too; "
                "leave lengths out (steps after the end may be NaN)"
            )
        n, steps, width = X.shape
        counts = np.full(n, steps, dtype=np.intp)
        refuse_empty(counts, who)
        return X.reshape(n * steps, width), Arrangement("stacked", counts)
    X = _columns(X)
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    if lengths is None:
        counts = np.array([n_rows], dtype=np.intp)
    else:
        counts = np.atleast_1d(np.asarray(lengths))
        if counts.ndim != 1 or counts.dtype.kind not in "iu":
            raise ValueError(
                f"{who}: lengths is {reprlib.repr(lengths)}; expected whole numbers, one a "
                "sequence; known states are given as y="
            )
        counts = counts.astype(np.intp)
        if counts.sum() != n_rows:
            states = len(counts) == n_rows > 1
            raise ValueError(
                f"{who}: lengths sum to {counts.sum()}, but X has {n_rows} rows; expected the "
                "lengths of all sequences, in their order"
                + ("; one number a row looks like known states: give these as y=" if states else "")
            )
    refuse_empty(counts, who)
    return X, Arrangement("rows", counts)


def _known(X: Any, who: str) -> Any:
    """Refuse what is no table, by its name."""
    if X is None or isinstance(X, Mapping | Iterator | set | str | bytes):
        raise TypeError(
            f"{who}: X is {'None' if X is None else f'a {type(X).__name__}'}; expected a list of "
            "(T, D) tables, an (n, T, D) array, or the rows of all sequences with their lengths"
        )
    if isinstance(X, list | tuple) and not len(X):
        raise ValueError(f"{who}: X has no sequence; expected one or more")
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim > 1 and np.ndim(X.flat[0]):
        raise ValueError(
            f"{who}: X is an array of shape {X.shape} that holds arrays; expected a list of them, "
            "one a sequence: list(X.ravel())"
        )
    return X


def _is_row(item: Any) -> bool:
    """Tell whether an item of a list is a row of numbers, or a number, and no sequence."""
    if np.ndim(item) == 0:
        return not hasattr(item, "shape") or not is_frame(item)
    return isinstance(item, list | tuple) and np.ndim(item[0] if len(item) else 0) == 0


def _columns(item: Any) -> Any:
    """Make a series a table of one column."""
    if is_frame(item) or np.ndim(item) > 1:
        return item
    if hasattr(item, "to_frame"):
        return item.to_frame()
    return np.asarray(item).reshape(-1, 1)


def refuse_empty(counts: Array, who: str, least: int = 1) -> None:
    """Raise ValueError if there is no sequence, or one of fewer steps than the least."""
    if len(counts) == 0:
        raise ValueError(f"{who}: X has no sequence; expected one or more")
    short = np.flatnonzero(counts < least)
    if len(short):
        raise ValueError(
            f"{who}: sequence {short[0]} has length {counts[short[0]]}; leave empty sequences out"
        )


def _joined(tables: list[Any], who: str) -> Any:
    """Join the tables of a list, row after row."""
    if is_frame(tables[0]):
        other = next((place for place, t in enumerate(tables) if not is_frame(t)), None)
        if other is not None:
            raise ValueError(_two_kinds(tables, other, who))
        if len({tuple(table.columns) for table in tables}) > 1:
            raise ValueError(f"{who}: the sequences have different columns; give all the same")
        if type(tables[0]).__module__.startswith("polars"):
            import polars

            return polars.concat(tables)
        import pandas

        return pandas.concat(tables, ignore_index=True)
    other = next((place for place, table in enumerate(tables) if is_frame(table)), None)
    if other is not None:
        raise ValueError(_two_kinds(tables, other, who))
    widths = [np.shape(table)[1] for table in tables]
    other = next((place for place, width in enumerate(widths) if width != widths[0]), None)
    if other is not None:
        raise ValueError(
            f"{who}: sequence 0 has {widths[0]} columns, but sequence {other} has "
            f"{widths[other]}; expected one width"
        )
    return np.concatenate([np.asarray(table) for table in tables])


def _two_kinds(tables: list[Any], other: int, who: str) -> str:
    return (
        f"{who}: sequence 0 is a {type(tables[0]).__name__}, but sequence {other} a "
        f"{type(tables[other]).__name__}; expected all arrays, or all frames of the same columns"
    )


def arrange_labels(y: Any, arrangement: Arrangement, n_states: int, who: str) -> Array | None:
    """Read known states of steps, -1 where unknown, laid out as the sequences are: (N,).

    Raises
    ------
    ValueError
        If they are NaN or no whole numbers, of another length, or no state has their number.
    """
    if y is None:
        return None
    own, n_rows = _label_parts(y), int(arrangement.lengths.sum())
    counts = [len(part) for part in own]
    is_column = len(own) == sum(counts) == n_rows
    if len(own) > 1 and not is_column and counts != arrangement.lengths.tolist():
        raise ValueError(
            f"{who}: y has sequences of {counts} states, but X of "
            f"{arrangement.lengths.tolist()} steps; expected one a step, -1 where unknown"
        )
    given = np.concatenate(own)
    if given.dtype.kind not in "iu":
        try:
            if any(isinstance(value, str) for value in given):  # "1" would pass for a number
                raise TypeError("text")
            numbers = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{who}: y has values that are no states, such as {given[0]!r}; expected whole "
                "numbers, -1 where unknown"
            ) from error
        if np.isnan(numbers).any() or (numbers != np.floor(numbers)).any():
            raise ValueError(
                f"{who}: y has values that are no states (NaN, or no whole numbers); mark steps "
                "whose state is not known with -1"
            )
        given = numbers
    if len(given) != n_rows:
        raise ValueError(
            f"{who}: y has {len(given)} states, but X has {n_rows} steps; expected one a step, -1 "
            "where unknown"
        )
    given = given.astype(np.intp)
    if given.min() < -1 or given.max() >= n_states:
        raise ValueError(
            f"{who}: y has states from {given.min()} to {given.max()}; expected 0 to "
            f"{n_states - 1}, or -1 where unknown"
        )
    return given if (given >= 0).any() else None


def _label_parts(y: Any) -> list[Array]:
    """Known states of each sequence, or those of all in one array."""
    y = to_numpy(y)
    if isinstance(y, np.ndarray) and (y.ndim == 2 or (y.dtype == object and y.ndim == 1)):
        y = list(y)
    parts = y if isinstance(y, list | tuple) and len(y) and np.ndim(y[0]) == 1 else [y]
    return [np.asarray(to_numpy(part)).ravel() for part in parts]
