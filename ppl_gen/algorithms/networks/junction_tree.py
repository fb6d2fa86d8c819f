"""Exact inference on a junction tree: all marginals, the likeliest state, draws, over rows at once.

The graph of the factors is triangulated by an elimination order; its cliques form a tree along
which messages pass once towards the root and once back (Lauritzen and Spiegelhalter, JRSS B 50,
1988). Messages are plain sums where the evidence is not too unlikely; rows for which they come
near the smallest double go in logarithms, where nothing underflows.

References
----------
Lauritzen and Spiegelhalter (1988), Local computations with probabilities on graphical structures.
Koller and Friedman (2009), Probabilistic Graphical Models, ch. 10 and 13.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from ppl_gen.algorithms.networks.clique_messages import (
    Messages,
    Rows,
    clique_tree,
    collect,
    descend,
)
from ppl_gen.algorithms.networks.elimination_orders import cost_of, elimination_order
from ppl_gen.algorithms.networks.factors import (
    LogMaxima,
    LogSums,
    Scope,
    Sums,
    as_logs,
    batch_last,
    batch_size,
    rows_at_once,
    union,
)
from ppl_gen.algorithms.row_chunks import map_rows

Array = Any
T = TypeVar("T")

#: Evidence within these is summed without logarithms. A term that underflows is below 1e-307, so
#: what is lost is less than 1e-100 of the whole, whatever the number of terms.
LIKELY, HUGE = 1e-200, 1e200
#: No factor has logarithms of its own.
NO_LOGS: Mapping[int, Array] = MappingProxyType({})


class JunctionTree:
    """The tree of cliques of some factors, made once and used for many tables.

    Parameters
    ----------
    scopes : sequence of tuple of int
        Of the factors, in the order in which the methods take their tables.
    sizes : sequence of int
        The number of states of every variable. One that no factor mentions is uniform, and
        changes neither the evidence nor the log probability of a state.
    heuristic : str
        See :func:`~ppl_gen.algorithms.networks.elimination_orders.elimination_order`.

    Attributes
    ----------
    cliques : list of tuple of int
        Children before parents; the last is the root.
    separators : list of tuple of int
        What each clique shares with its parent; empty for the root.
    parents : list of int
        The number of each clique's parent; the root's own for the root.
    cost : Cost
        Of the cliques, a row.

    Examples
    --------
    >>> rain, wet = np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.3, 0.7]])
    >>> tree = JunctionTree([(0,), (0, 1), (1,)], sizes=[2, 2])
    >>> tree.cliques, tree.cost
    ([(0, 1)], Cost(width=1, largest=4, total=4))
    >>> seen_wet = np.array([[0.0, 1.0], [1.0, 1.0]])  # in the first row; nothing in the second
    >>> beliefs = tree.propagate([rain, wet, seen_wet])
    >>> np.exp(beliefs.log_evidence).round(3), beliefs.marginal((0,)).round(3)
    (array([0.22, 1.  ]), array([[0.364, 0.636], [0.8  , 0.2  ]]))
    >>> codes, log_prob = tree.mode([rain, wet, seen_wet])
    >>> codes, np.exp(log_prob).round(2)
    (array([[1, 1], [0, 0]]), array([0.14, 0.72]))
    """

    def __init__(
        self, scopes: Sequence[Scope], sizes: Sequence[int], heuristic: str = "min_fill"
    ) -> None:
        self.scopes = [tuple(scope) for scope in scopes]
        self.sizes = [int(size) for size in sizes]
        mentioned = set(union(self.scopes))
        added: list[Scope] = [(v,) for v in range(len(self.sizes)) if v not in mentioned]
        if not self.scopes and not added:
            added = [()]  # the empty product is one
        self._uniform = [
            np.full([self.sizes[v] for v in scope], 1.0 / cost_of([scope], self.sizes).largest)
            for scope in added
        ]
        order = elimination_order(self.scopes + added, self.sizes, (), heuristic)
        self._tree = clique_tree(self.scopes + added, order)
        self.cliques = [clique.scope for clique in self._tree]
        self.separators = [clique.separator for clique in self._tree]
        self.parents = [clique.parent for clique in self._tree]
        self.cost = cost_of(self.cliques, self.sizes)
        self._sums = Sums(self.sizes)
        self._chunk = rows_at_once(self.cost.largest)
        self._smallest_first = sorted(
            range(len(self.cliques)), key=lambda i: cost_of([self.cliques[i]], self.sizes).largest
        )

    def clique_of(self, scope: Scope) -> int:
        """Return the number of the smallest clique that holds some variables.

        Raises
        ------
        LookupError
            Where none does.
        """
        wanted = set(scope)
        for i in self._smallest_first:
            if wanted.issubset(self.cliques[i]):
                return i
        raise LookupError(
            f"JunctionTree.clique_of: no clique holds the variables {tuple(scope)} together; "
            "query them by Elimination, or add a factor of ones over them before the tree is made"
        )

    def propagate(self, tables: Sequence[Array], logs: Mapping[int, Array] = NO_LOGS) -> "Beliefs":
        """Pass messages for all rows.

        Parameters
        ----------
        tables : sequence of ndarray
            Of the factors, non-negative; each with the axes of its scope, or a batch axis of n
            rows before them. Best with entries of order one, as probabilities have.
        logs : mapping of int to ndarray, optional
            Logarithms of some tables, by their numbers, where entries underflow: they are taken in
            the rows that go in logarithms.

        Returns
        -------
        Beliefs

        Raises
        ------
        ValueError
            Where a table has not the axes of its scope, or batches differ in length.
        """
        n = batch_size(self.scopes, tables, "JunctionTree.propagate")
        if n is None:
            return Beliefs(self, None, self._messages(tables, logs, None))
        parts = self._map(lambda rows: self._messages(tables, logs, rows), n)
        return Beliefs(self, n, [part for chunk in parts for part in chunk])

    def mode(
        self, tables: Sequence[Array], logs: Mapping[int, Array] = NO_LOGS
    ) -> tuple[Array, Array]:
        """Return the likeliest joint state of all variables, and its log value.

        Parameters
        ----------
        tables, logs
            See :meth:`propagate`.

        Returns
        -------
        codes : ndarray of int (n, V)
            (V,) where no table has a batch axis. One of the best where several are; zeros where
            no state is possible.
        log_prob : ndarray (n,)
            A float where no table has a batch axis. Not normalised by the evidence, and minus
            infinity where no state is possible.

        References
        ----------
        Koller and Friedman (2009), section 13.3.
        """
        n = batch_size(self.scopes, tables, "JunctionTree.mode")
        kernel = LogMaxima()
        constant = [np.zeros((*uniform.shape, 1)) for uniform in self._uniform]

        def part(rows: slice) -> tuple[Array, Array]:
            own = self._logs(rows, tables, logs) + constant
            up = collect(self._tree, kernel, own)
            codes = descend(self._tree, kernel, own, up, lambda values: values.argmax(axis=0))
            return self._columns(codes, len(up[-1])), up[-1]

        if n is None:
            codes, log_prob = part(slice(None))
            return codes[0], log_prob[0]
        parts = self._map(part, n)
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def draw(
        self,
        tables: Sequence[Array],
        rng: np.random.Generator,
        size: int | None = None,
        logs: Mapping[int, Array] = NO_LOGS,
    ) -> Array:
        """Draw joint states of all variables, exactly and independently.

        Parameters
        ----------
        tables, logs
            See :meth:`propagate`.
        rng : numpy.random.Generator
        size : int, optional
            The number of draws, where no table has a batch axis. With one, each row gets a draw.

        Returns
        -------
        ndarray of int (n, V) or (size, V)
            (V,) where there is neither a batch axis nor a size.

        Raises
        ------
        ValueError
            Where the evidence of a row has probability zero, or both a batch and a size are given.
        """
        n = batch_size(self.scopes, tables, "JunctionTree.draw")
        if n is not None and size is not None:
            raise ValueError(
                f"JunctionTree.draw: size is {size} and the tables have a batch of {n} rows, each "
                "of which gets one draw; repeat the rows to draw more, and leave size out"
            )
        n_draws = n if n is not None else 1 if size is None else size
        streams = rng.spawn(1 + n_draws // self._chunk)
        shared = self._messages(tables, logs, None) if n is None else None

        def part(rows: slice) -> Array:
            stream = streams[rows.start // self._chunk]
            drawn = np.empty((rows.stop - rows.start, len(self.sizes)), dtype=np.intp)
            for messages in shared or self._messages(tables, logs, rows):
                if np.any(messages.log_evidence == -np.inf):
                    raise ValueError(
                        "JunctionTree.draw: the evidence of a row has probability zero; leave out "
                        "the rows whose log_evidence is minus infinity"
                    )
                whole = messages.rows is None or isinstance(messages.rows, slice)
                mine = slice(None) if whole else messages.rows - rows.start
                m = len(drawn[mine])
                choose = partial(_draw_cells, stream, m, messages.in_logs)
                codes = descend(self._tree, messages.kernel, messages.tables, messages.up, choose)
                drawn[mine] = self._columns(codes, m)
            return drawn

        drawn = np.concatenate(self._map(part, n_draws))
        return drawn[0] if n is None and size is None else drawn

    def _map(self, function: Callable[[slice], T], n: int) -> list[T]:
        if n <= self._chunk:
            return [function(slice(0, n))]
        return map_rows(function, n, self._chunk)

    def _messages(
        self, tables: Sequence[Array], logs: Mapping[int, Array], rows: Rows
    ) -> list[Messages]:
        """Pass messages to the root for some rows: in logarithms where the evidence is unlikely."""
        factors = self._at(rows, tables)
        sums = Messages(
            self._tree,
            rows,
            self._sums,
            [batch_last(*factor) for factor in factors] + self._uniform,
        )
        likely = (sums.up[-1] > LIKELY) & (sums.up[-1] < HUGE)
        if np.all(likely):
            return [sums]
        if np.any(likely):
            numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
            return [
                *self._messages(tables, logs, numbers[likely]),
                *self._messages(tables, logs, numbers[~likely]),
            ]
        own = self._logs(rows, tables, logs)
        own += [np.log(uniform)[..., None] for uniform in self._uniform]
        return [Messages(self._tree, rows, LogSums(), own)]

    def _logs(self, rows: Rows, tables: Sequence[Array], logs: Mapping[int, Array]) -> list[Array]:
        """Return the logarithms of the factors at some rows, the rows last."""
        found = [as_logs(*factor) for factor in self._at(rows, tables)]
        for f, table in logs.items():
            batched = table.ndim > len(self.scopes[f])
            chosen = table if rows is None or not batched else table[rows]
            found[f] = np.moveaxis(chosen, 0, -1) if batched else chosen[..., None]
        return found

    def _at(self, rows: Rows, tables: Sequence[Array]) -> list[tuple[Scope, Array]]:
        """Return the factors at some rows, of those that have rows."""
        return [
            (scope, table if rows is None or table.ndim == len(scope) else table[rows])
            for scope, table in zip(self.scopes, tables, strict=True)
        ]

    def _columns(self, codes: Mapping[int, Array], n: int) -> Array:
        columns = np.empty((n, len(self.sizes)), dtype=np.intp)
        for v, column in codes.items():
            columns[:, v] = column
        return columns


def _draw_cells(rng: np.random.Generator, n: int, in_logs: bool, values: Array) -> Array:
    """Draw the number of a cell for every row, by the inverse of the distribution function."""
    weights = np.exp(values - values.max(axis=0)) if in_logs else values
    reached = weights.cumsum(axis=0)
    # Below the total whatever the rounding, so that a cell of weight zero is never drawn.
    level = np.minimum(rng.random(n) * reached[-1], np.nextafter(reached[-1], 0.0))
    if reached.shape[1] == 1:
        return np.searchsorted(reached[:, 0], level, side="right")
    return (reached <= level).sum(axis=0)


class Beliefs:
    """What the evidence says: its probability, and the marginals of every clique given it.

    Made by :meth:`JunctionTree.propagate`. Messages are kept, and no table of a clique: a
    marginal is computed when it is asked for.

    Attributes
    ----------
    log_evidence : ndarray (n,)
        The log of the sum over all states of the product of the factors, in nats; a float where
        no table has a batch axis. Minus infinity where all states are impossible.
    """

    def __init__(self, tree: JunctionTree, n: int | None, parts: Sequence[Messages]) -> None:
        self._tree, self._n, self._parts = tree, n, parts
        self.log_evidence = self._gather([part.log_evidence for part in parts])

    def marginal(self, scope: Sequence[int]) -> Array:
        """Return the probabilities of the joint states of some variables that share a clique.

        Parameters
        ----------
        scope : sequence of int

        Returns
        -------
        ndarray (n, *sizes of scope)
            In the order of ``scope``; without the first axis where no table has a batch axis.
            All zero where the evidence is impossible.

        Raises
        ------
        LookupError
            Where no clique holds them.
        """
        return self.marginals([scope])[0]

    def marginals(self, scopes: Sequence[Sequence[int]]) -> list[Array]:
        """Return :meth:`marginal` for many scopes in one go, which is faster."""
        wanted, by_clique = self._by_clique(scopes)

        def part(messages: Messages) -> dict[int, Array]:
            return {
                k: table
                for i, some in by_clique.items()
                for k, table in zip(
                    some, messages.marginals(i, [wanted[k] for k in some]), strict=True
                )
            }

        tables = self._map(part)
        return [self._gather([found[k] for found in tables]) for k in range(len(wanted))]

    def expected_counts(
        self, scopes: Sequence[Sequence[int]], weights: Array | None = None
    ) -> list[Array]:
        """Return the sums over rows of the marginals of scopes, each within a clique.

        What the E step of EM needs, without a table for every row.

        Parameters
        ----------
        scopes : sequence of sequence of int
        weights : ndarray (n,), optional
            Of the rows; one by default.

        Returns
        -------
        list of ndarray (*sizes of the scope)

        Raises
        ------
        LookupError
            Where no clique holds the variables of a scope.
        """
        wanted, by_clique = self._by_clique(scopes)
        rows = 1 if self._n is None else self._n
        weight = np.ones(rows) if weights is None else np.asarray(weights)
        if weight.shape != (rows,):
            raise ValueError(
                f"Beliefs.expected_counts: weights have shape {weight.shape}; expected ({rows},), "
                "one for each row of the batch"
            )

        def part(messages: Messages) -> dict[int, Array]:
            mine = weight if messages.rows is None else weight[messages.rows]
            return {
                k: table
                for i, some in by_clique.items()
                for k, table in zip(
                    some, messages.weighted_sums(i, [wanted[k] for k in some], mine), strict=True
                )
            }

        tables = self._map(part)
        return [sum([found[k] for found in tables[1:]], tables[0][k]) for k in range(len(wanted))]

    def _by_clique(
        self, scopes: Sequence[Sequence[int]]
    ) -> tuple[list[Scope], dict[int, list[int]]]:
        """Return the scopes as tuples, and which of them each clique gives."""
        wanted = [tuple(scope) for scope in scopes]
        by_clique: dict[int, list[int]] = {}
        for k, scope in enumerate(wanted):
            by_clique.setdefault(self._tree.clique_of(scope), []).append(k)
        return wanted, by_clique

    def _map(self, function: Callable[[Messages], T]) -> list[T]:
        parts = self._parts
        return map_rows(lambda one: function(parts[one.start]), len(parts), chunk_rows=1)

    def _gather(self, tables: Sequence[Array]) -> Array:
        """Put the tables (*sizes, rows) of the parts together, rows first."""
        if self._n is None:
            return tables[0][..., 0].copy()[()]
        joined = np.empty((self._n, *tables[0].shape[:-1]))
        for part, table in zip(self._parts, tables, strict=True):
            joined[part.rows] = np.moveaxis(table, -1, 0)
        return joined
