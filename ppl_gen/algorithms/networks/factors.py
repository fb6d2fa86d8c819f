"""Products of factors over discrete variables: sliced at evidence, multiplied, summed out.

A factor is a scope, a tuple of variables' numbers, and a table with an axis for each. A table may
have one more axis in front: the batch, rows of evidence or draws of parameters. Inside, the batch
comes last, where NumPy's innermost loops run along it whatever the order of the other axes.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from string import ascii_letters
from typing import Any

import numpy as np

Array = Any
Scope = tuple[int, ...]

#: The batch axis in the subscripts of an einsum, and the letters left for variables.
BATCH = "Z"
LETTERS = ascii_letters.replace(BATCH, "")
#: Operands to an einsum over large tables: NumPy has fast inner loops for up to three.
FEW = 3
#: Operands to an einsum over tables so small that calling it costs more than what it does.
MANY = 12
#: Multiplications that take about as long as a call of einsum.
SMALL = 2048
#: Cells of a chunk of rows of the largest table, so that it stays in the cache.
CHUNK_CELLS = 2**17


def condition(
    scopes: Sequence[Scope], tables: Sequence[Array], evidence: Mapping[int, Any]
) -> tuple[list[Scope], list[Array]]:
    """Return factors at observed values: without the axes of the observed variables.

    Parameters
    ----------
    scopes : sequence of tuple of int
    tables : sequence of ndarray
    evidence : mapping of int to int or ndarray (n,)
        The code of each observed variable: one for all rows, or one a row, which gives the tables
        that mention it a batch axis of n rows. Codes are not checked against the sizes.

    Returns
    -------
    scopes : list of tuple of int
    tables : list of ndarray

    Examples
    --------
    >>> rain, wet = np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.3, 0.7]])
    >>> condition([(0,), (0, 1)], [rain, wet], {1: 1})
    ([(0,), (0,)], [array([0.8, 0.2]), array([0.1, 0.7])])
    >>> condition([(0, 1)], [wet], {1: np.array([0, 1, 1])})[1][0].shape
    (3, 2)
    """
    by_row = {v for v, codes in evidence.items() if np.ndim(codes) > 0}
    new_scopes, new_tables = [], []
    everything = slice(None)
    for scope, table in zip(scopes, tables, strict=True):
        if not by_row.isdisjoint(scope):
            scope, table = _at_rows(scope, table, evidence)
        elif any([v in evidence for v in scope]):
            # The ellipsis stands for the batch axis, where there is one.
            table = table[(..., *[evidence.get(v, everything) for v in scope])]
            scope = tuple([v for v in scope if v not in evidence])
        new_scopes.append(scope)
        new_tables.append(table)
    return new_scopes, new_tables


def _at_rows(scope: Scope, table: Array, evidence: Mapping[int, Any]) -> tuple[Scope, Array]:
    """Slice one factor at codes that differ between rows."""
    kept, picked = at_codes(scope, batch_last(scope, table), evidence)
    return kept, np.moveaxis(picked, -1, 0)


def restrict(
    scopes: Sequence[Scope], tables: Sequence[Array], evidence: Mapping[int, Any]
) -> list[Array]:
    """Return the tables at observed values, along whose axes one state is left.

    The scopes stay as they are: a plan made once for the whole of a network serves any evidence,
    where :func:`condition` gives smaller problems that have to be planned anew.

    Parameters
    ----------
    scopes : sequence of tuple of int
    tables : sequence of ndarray
    evidence : mapping of int to int or ndarray (n,)
        See :func:`condition`.

    Returns
    -------
    list of ndarray
        An axis of length one for every observed variable.

    Examples
    --------
    >>> rain, wet = np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.3, 0.7]])
    >>> restrict([(0,), (0, 1)], [rain, wet], {1: 1})[1].round(1)
    array([[0.1],
           [0.7]])
    """
    by_row = {v for v, codes in evidence.items() if np.ndim(codes) > 0}
    ones = {v: slice(c, c + 1) for v, c in evidence.items() if v not in by_row}
    everything = slice(None)
    found = []
    for scope, table in zip(scopes, tables, strict=True):
        if not by_row.isdisjoint(scope):
            _, picked = at_codes(scope, batch_last(scope, table), evidence)
            axes = [None if v in evidence else everything for v in scope]
            table = np.moveaxis(picked[(*axes, everything)], -1, 0)
        elif not ones.keys().isdisjoint(scope):
            table = table[(..., *[ones.get(v, everything) for v in scope])]
        found.append(table)
    return found


def at_codes(scope: Scope, table: Array, codes: Mapping[int, Any]) -> tuple[Scope, Array]:
    """Return a factor at the codes (n,) of some variables, the batch axis last.

    Parameters
    ----------
    scope : tuple of int
    table : ndarray (*sizes) or (*sizes, n)
    codes : mapping of int to int or ndarray (n,)
        At least one is an array.

    Returns
    -------
    scope : tuple of int
        What is left of it.
    table : ndarray (*sizes of these, n)
    """
    axes = {v: axis for axis, v in enumerate(scope)}
    kept = [axis for v, axis in axes.items() if v not in codes]
    fixed = [axis for v, axis in axes.items() if v in codes]
    flat: Any = 0  # the number of the cell among those of the variables fixed
    for axis in fixed:
        flat = flat * table.shape[axis] + np.asarray(codes[scope[axis]])
    shape = [table.shape[axis] for axis in kept]
    cells = math.prod([table.shape[axis] for axis in fixed])
    if table.ndim == len(scope):
        picked = np.take(table.transpose(kept + fixed).reshape(*shape, cells), flat, axis=-1)
    else:
        n = table.shape[-1]
        ordered = table.transpose([*kept, *fixed, len(scope)]).reshape(*shape, cells, n)
        picked = ordered[..., flat, np.arange(n)]
    return tuple([scope[axis] for axis in kept]), picked


def batch_last(scope: Scope, table: Array) -> Array:
    """Return a table with its batch axis, where it has one, moved to the end and lying there.

    Examples
    --------
    >>> batch_last((5,), np.zeros((100, 3))).shape, batch_last((5,), np.zeros(3)).shape
    ((3, 100), (3,))
    """
    if table.ndim == len(scope):
        return table
    return np.ascontiguousarray(np.moveaxis(table, 0, -1))


def batch_size(scopes: Sequence[Scope], tables: Sequence[Array], where: str) -> int | None:
    """Return the rows of the tables that have a batch axis, None where none has.

    Raises
    ------
    ValueError
        Where a table has not the axes of its scope, or two have unequal numbers of rows.

    Examples
    --------
    >>> batch_size([(0,), (0, 1)], [np.ones((7, 2)), np.ones((2, 3))], "example")
    7
    """
    found: int | None = None
    if len(tables) != len(scopes):
        raise ValueError(
            f"{where}: {len(tables)} tables for {len(scopes)} scopes; give one table for each "
            "scope, in the same order"
        )
    for scope, table in zip(scopes, tables, strict=True):
        extra = table.ndim - len(scope)
        if extra not in (0, 1):
            raise ValueError(
                f"{where}: the table of scope {scope} has shape {table.shape}; expected "
                f"{len(scope)} axes, or one more in front for a batch"
            )
        if extra:
            if found is not None and len(table) != found:
                raise ValueError(
                    f"{where}: the table of scope {scope} has a batch of {len(table)} rows where "
                    f"another has {found}; give all the same"
                )
            found = len(table)
    return found


def rows_at_once(cells: int) -> int:
    """Return how many rows to work on at once, where the largest table has so many cells.

    Examples
    --------
    >>> rows_at_once(8), rows_at_once(2**10), rows_at_once(2**20)
    (4096, 128, 1)
    """
    return min(4096, max(1, CHUNK_CELLS // cells))


def union(scopes: Iterable[Scope]) -> Scope:
    """Return the variables of some scopes, in the order of their first appearance.

    Examples
    --------
    >>> union([(3, 1), (1, 2)])
    (3, 1, 2)
    """
    return tuple(dict.fromkeys([v for scope in scopes for v in scope]))


class Products:
    """Products of factors as a list of einsums, whose subscripts are made once.

    Factors have slots: those given the first ones, every product the next.

    Parameters
    ----------
    scopes : sequence of tuple of int
        Of the factors given.
    sizes : sequence or mapping of int
        The number of states of every variable.
    batched : sequence of bool
        Which of the tables have a batch axis, which is the last.

    Examples
    --------
    >>> products = Products([(0,), (0, 1)], sizes=[2, 2], batched=[False, False])
    >>> slot = products.append([0, 1], out=(1,))
    >>> products.run([np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.3, 0.7]])])
    array([0.78, 0.22])
    """

    def __init__(
        self,
        scopes: Sequence[Scope],
        sizes: Sequence[int] | Mapping[int, int],
        batched: Sequence[bool],
    ) -> None:
        self.scopes = list(scopes)
        self.sizes = sizes
        self.batched = list(batched)
        self.steps: list[tuple[str, list[int]]] = []

    def append(self, slots: Sequence[int], out: Scope) -> int:
        """Add the product of the factors in some slots, summed down to ``out``; return its slot."""
        if len(slots) > FEW and (
            len(slots) > MANY
            or any([self.batched[slot] for slot in slots])
            or len(slots) * self.cells(union([self.scopes[slot] for slot in slots])) > SMALL
        ):
            slots = self._until_few(slots, out)
        return self._einsum(slots, out)

    def cells(self, scope: Iterable[int]) -> int:
        """Return the number of cells of a table."""
        sizes = self.sizes
        return math.prod([sizes[v] for v in scope])

    def _until_few(self, slots: Sequence[int], out: Scope) -> list[int]:
        """Multiply the smallest tables, those without a batch first, until few are left."""
        uses = Counter(v for slot in slots for v in self.scopes[slot])
        uses.update(out)
        waiting = [self._size_of(slot) for slot in slots]
        heapq.heapify(waiting)
        while len(waiting) > FEW:
            group = [heapq.heappop(waiting)[-1] for _ in range(min(FEW, len(waiting) - FEW + 1))]
            for slot in group:
                uses.subtract(self.scopes[slot])
            scope = tuple([v for v in union([self.scopes[slot] for slot in group]) if uses[v] > 0])
            uses.update(scope)
            heapq.heappush(waiting, self._size_of(self._einsum(group, scope)))
        return [slot for _, _, slot in waiting]

    def _size_of(self, slot: int) -> tuple[bool, int, int]:
        return self.batched[slot], self.cells(self.scopes[slot]), slot

    def _einsum(self, slots: Sequence[int], out: Scope) -> int:
        variables = union([self.scopes[slot] for slot in slots])
        if len(variables) > len(LETTERS):
            raise ValueError(
                f"Products: a product over {len(variables)} variables; NumPy's einsum has letters "
                f"for {len(LETTERS)}; bound the cost of the plan before it is made"
            )
        letter = dict(zip(variables, LETTERS, strict=False))
        words = [
            "".join([letter[v] for v in self.scopes[slot]]) + BATCH * self.batched[slot]
            for slot in slots
        ]
        batched = any([self.batched[slot] for slot in slots])
        word = "".join([letter[v] for v in out]) + BATCH * batched
        self.steps.append((f"{','.join(words)}->{word}", list(slots)))
        self.scopes.append(out)
        self.batched.append(batched)
        return len(self.scopes) - 1

    def run(self, tables: Iterable[Array]) -> Array:
        """Return the last product, for tables with their batch axis last; never a view of one."""
        values = list(tables)
        for subscripts, slots in self.steps:
            values.append(np.einsum(subscripts, *[values[slot] for slot in slots]))
            for slot in slots:
                values[slot] = None  # used once: let its memory go
        # The einsum of one operand that sums nothing is a view of it.
        alone = len(slots) == 1
        return values[-1].copy() if alone and values[-1].base is not None else values[-1]


class Sums:
    """Products of factors summed down, each compiled when first asked for.

    Tables have their batch axis last, or none. :class:`LogSums` and :class:`LogMaxima` do the same
    in logarithms, where every table has the batch axis, of length one where it has no batch.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self.made: dict[tuple[Any, ...], Products] = {}

    def contract(self, scopes: tuple[Scope, ...], tables: Sequence[Array], out: Scope) -> Array:
        """Return the product of some factors, whose union holds ``out``, summed down to it."""
        batched = tuple([t.ndim > len(scope) for scope, t in zip(scopes, tables, strict=True)])
        key = (scopes, out, batched)
        products = self.made.get(key)
        if products is None:
            products = Products(scopes, self.sizes, batched)
            products.append(range(len(scopes)), out)
            self.made[key] = products
        return products.run(tables)

    @staticmethod
    def has_rows(scope: Scope, table: Array) -> bool:
        """Whether a table has a batch axis of more than one row."""
        return bool(table.ndim > len(scope))

    @staticmethod
    def divide(product: Array, factor: Array) -> Array:
        """Return the product without a factor of it; zero where the factor is."""
        nonzero = np.where(factor == 0.0, 1.0, factor)
        return product / (nonzero if nonzero.ndim == product.ndim else nonzero[..., None])


class LogSums:
    """:class:`Sums` in logarithms: nothing underflows."""

    def contract(self, scopes: tuple[Scope, ...], tables: Sequence[Array], out: Scope) -> Array:
        """Return the log of the product, summed down to ``out``."""
        summed = tuple(v for v in union(scopes) if v not in out)
        logs = log_product(scopes, tables, summed + out)
        return self._reduce(logs, tuple(range(len(summed)))) if summed else logs

    @staticmethod
    def _reduce(logs: Array, axes: tuple[int, ...]) -> Array:
        return log_sum_exp(logs, axes)

    @staticmethod
    def has_rows(scope: Scope, table: Array) -> bool:
        """Whether a table has a batch axis of more than one row."""
        return bool(table.shape[-1] > 1)

    @staticmethod
    def divide(product: Array, factor: Array) -> Array:
        """Return the log of the product without a factor of it; what is impossible stays so."""
        return product - np.where(factor == -np.inf, 0.0, factor)


class LogMaxima(LogSums):
    """Products of factors in logarithms, maximised over what is not in the result."""

    @staticmethod
    def _reduce(logs: Array, axes: tuple[int, ...]) -> Array:
        return logs.max(axis=axes)


def as_logs(scope: Scope, table: Array) -> Array:
    """Return the logarithms of a table, with the batch axis last: of length one where it has none.

    Examples
    --------
    >>> as_logs((0,), np.ones(3)).shape, as_logs((0,), np.ones((5, 3))).shape
    ((3, 1), (3, 5))
    """
    with np.errstate(divide="ignore"):
        logs = np.log(batch_last(scope, table))
    return logs if table.ndim > len(scope) else logs[..., None]


def log_product(scopes: Iterable[Scope], logs: Iterable[Array], out: Scope) -> Array:
    """Return the log of a product of factors, (*sizes of out, n), whose scopes are within ``out``.

    Axes of variables that no factor mentions have length one.

    Examples
    --------
    >>> log_product([(0,), (1, 0)], [np.zeros((2, 1)), np.zeros((3, 2, 7))], out=(0, 1)).shape
    (2, 3, 7)
    """
    total: Any = None
    for scope, table in zip(scopes, logs, strict=True):
        order, index = _alignment(scope, out)
        aligned = table.transpose(order)[index]
        total = aligned if total is None else total + aligned
    return np.zeros((1,) * (len(out) + 1)) if total is None else total


@lru_cache(maxsize=2**14)
def _alignment(scope: Scope, out: Scope) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Return how to reorder the axes of a factor, and where to put new ones, to fit ``out``."""
    order = sorted(range(len(scope)), key=lambda i: out.index(scope[i]))
    index = [slice(None) if v in scope else None for v in out]
    return (*order, len(scope)), (*index, slice(None))


def log_sum_exp(logs: Array, axes: tuple[int, ...]) -> Array:
    """Return ``log(sum(exp(logs)))`` over some axes; minus infinity where all summed are.

    Examples
    --------
    >>> log_sum_exp(np.array([[0.0, 0.0], [-np.inf, -np.inf]]), (1,))
    array([0.69314718,       -inf])
    """
    peak = logs.max(axis=axes, keepdims=True)
    peak = np.where(peak == -np.inf, 0.0, peak)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(logs - peak).sum(axis=axes)) + peak.squeeze(axes)
