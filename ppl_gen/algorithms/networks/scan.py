"""Discrete Bayesian networks over rows, with arrays of any engine and differentiable.

A network is its ``parents``, a tuple of node numbers a node, and its ``tables``, an array
(*parent sizes, size) a node whose last axis sums to one. Rows are ``value`` (n, V), codes of the
states as numbers, NaN where they are missing. Which columns may be missing is static, ``hidden``:
the factors of other nodes are looked up, all in one gather, and sums run over hidden nodes only.

Messages are in log space, with the zeros of the tables at -1e30: no difference of infinities
arises in them or in their gradients, and no state is lost to underflow that later evidence may
need.

References
----------
Koller and Friedman (2009), Probabilistic Graphical Models, algorithm 9.1 (sum-product variable
elimination) and algorithm 12.1 (forward sampling).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_gen.algorithms.networks.elimination_orders import Step, eliminate, elimination_order

Array = Any
Scope = tuple[int, ...]
#: A table of logarithms (n or 1, *sizes of the scope).
Factor = tuple[Scope, Array]

#: Stands for log 0. Exponentials of it are zero, and sums of millions of it are finite.
IMPOSSIBLE = -1e30
#: Entries of the largest table of messages, over all rows, that are taken on: 2 GiB of float64.
MAX_ENTRIES = 2**28


def topological_order(parents: Sequence[Scope]) -> tuple[int, ...]:
    """Return the nodes with parents before children.

    Raises
    ------
    ValueError
        If the parents go round in a circle; it names the nodes.

    Examples
    --------
    >>> topological_order([(1,), (), (0, 1)])
    (1, 0, 2)
    """
    order: list[int] = []
    placed: set[int] = set()
    waiting = list(range(len(parents)))
    while waiting:
        ready = [v for v in waiting if placed.issuperset(parents[v])]
        if not ready:
            raise ValueError(
                f"the parents of nodes {', '.join(map(str, waiting))} go round in a circle; "
                "expected a directed graph without cycles; remove an edge of the circle"
            )
        order += ready
        placed.update(ready)
        waiting = [v for v in waiting if v not in placed]
    return tuple(order)


def log_evidence(
    ops: Any,
    parents: Sequence[Scope],
    tables: Sequence[Array],
    value: Array,
    hidden: Sequence[int] = (),
) -> Array:
    """Return the log probability of what is observed of each row.

    Parameters
    ----------
    ops : namespace
        The engine's arrays, as ``engine.ops``, or NumPy.
    parents : sequence of tuple of int
        Of each of the V nodes, in the order of its table's axes.
    tables : sequence of array (*parent sizes, size)
        Probabilities.
    value : array (n, V)
        Codes; NaN is missing.
    hidden : sequence of int
        Nodes that may be missing.

    Returns
    -------
    array (n,)
        In nats; -inf where a row is impossible or has a code that is none, NaN where a node is
        missing that is not among `hidden`.

    Raises
    ------
    ValueError
        If a sum over the hidden nodes takes more than `MAX_ENTRIES` numbers.

    Notes
    -----
    Its gradient with respect to a probability is that of the logarithm, 0 where it is zero.

    Examples
    --------
    >>> rain, wet = np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> rows = np.array([[1.0, 1.0], [np.nan, 1.0]])
    >>> np.exp(log_evidence(np, [(), (0,)], [rain, wet], rows, hidden=[0])).round(3)
    array([0.16, 0.24])
    """
    return _collect(ops, parents, tables, value, hidden, ())


def log_joint(
    ops: Any,
    parents: Sequence[Scope],
    tables: Sequence[Array],
    value: Array,
    node: int,
    hidden: Sequence[int] = (),
) -> Array:
    """Return ``log p(node = k, row)``, shape (n, size); see `log_evidence`.

    Where the row observes the node, it is -inf but at the value observed. The logsumexp over
    states is the log evidence.

    Examples
    --------
    >>> rain, wet = np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> rows = np.array([[np.nan, 1.0]])
    >>> np.exp(log_joint(np, [(), (0,)], [rain, wet], rows, 0)).round(3)
    array([[0.08, 0.16]])
    """
    return _collect(ops, parents, tables, value, {*hidden, node}, (node,))


def posterior(ops: Any, log_joint: Array) -> Array:
    """Return probabilities from a log joint (n, size); NaN where the row is impossible."""
    top = _stopped(ops, ops.max(log_joint, axis=-1, keepdims=True))
    shares = ops.exp(log_joint - top)
    return shares / ops.sum(shares, axis=-1, keepdims=True)


def draw_rows(
    ops: Any, parents: Sequence[Scope], tables: Sequence[Array], n_rows: int, random: Any
) -> Array:
    """Draw complete rows, each node given its parents.

    Parameters
    ----------
    random : RandomSource
        Of the same engine.

    Returns
    -------
    array (n, V)
        Codes as numbers, in the dtype of the tables.
    """
    sizes = _sizes(tables)
    drawn: dict[int, Array] = {}
    for v in topological_order(parents):
        rows = ops.reshape(tables[v], (-1, sizes[v]))
        if parents[v]:
            place = _place([drawn[p] for p in parents[v]], [sizes[p] for p in parents[v]])
            rows = ops.take(rows, place, axis=0)
        drawn[v] = random.categorical(ops.broadcast_to(rows, (n_rows, sizes[v])))
    columns = [ops.astype(drawn[v], tables[v].dtype) for v in range(len(parents))]
    return ops.stack(columns, axis=-1)


def _collect(
    ops: Any,
    parents: Sequence[Scope],
    tables: Sequence[Array],
    value: Array,
    hidden: Any,
    keep: Scope,
) -> Array:
    """Sum the hidden nodes out of all factors, but for `keep`: (n, *sizes of keep)."""
    sizes, hidden = _sizes(tables), tuple(sorted(hidden))
    scopes = tuple((*parents[v], v) for v in range(len(parents)))
    value = ops.astype(value, tables[0].dtype)
    missing = ops.isnan(value)
    filled = ops.where(missing, 0.0, value)
    last = ops.asarray(np.array(sizes) - 1.0)
    whole = ops.clip(ops.floor(filled), 0.0, last)
    codes = ops.astype(whole, ops.arange(1).dtype)
    logs = [_logarithm(ops, table) for table in tables]

    complete = [v for v in range(len(sizes)) if not set(hidden).intersection(scopes[v])]
    total = ops.zeros_like(value[:, 0])
    if complete:
        chosen = _gathered(ops, [scopes[v] for v in complete], sizes, logs, codes)
        total = total + ops.sum(chosen, axis=1)
    total = ops.where(ops.all(whole == filled, axis=1), total, IMPOSSIBLE)
    if always := [v for v in range(len(sizes)) if v not in hidden]:
        absent = ops.any(ops.take(missing, ops.asarray(np.array(always)), axis=1), axis=1)
        total = ops.where(absent, float("nan"), total)

    factors = [
        _reduced(ops, scopes[v], sizes, logs[v], codes, hidden)
        for v in range(len(sizes))
        if v not in complete
    ]
    for v in hidden:
        same = codes[:, v : v + 1] == ops.arange(sizes[v])
        told = ops.where(missing[:, v : v + 1] | same, 0.0, IMPOSSIBLE)
        factors.append(((v,), ops.astype(told, total.dtype)))
    total = ops.reshape(total, (-1, *(1 for _ in keep)))
    if factors:
        total = total + sum_out(ops, factors, sizes, keep)
    return ops.where(total < 0.1 * IMPOSSIBLE, -float("inf"), total)


def sum_out(ops: Any, factors: Sequence[Factor], sizes: Sequence[int], keep: Scope) -> Array:
    """Sum all nodes but `keep` out of a product of factors: logarithms (n, *sizes of keep).

    Parameters
    ----------
    ops : namespace
    factors : sequence of (scope, array (n or 1, *sizes of the scope))
        Logarithms, with `IMPOSSIBLE` for log 0.
    sizes : sequence of int
    keep : tuple of int

    Raises
    ------
    ValueError
        If a table takes more than `MAX_ENTRIES` numbers.
    """
    n_rows = max(table.shape[0] for _, table in factors)
    waiting = dict(enumerate(factors))  # memory is free again once a factor is summed
    end = len(factors)
    steps, left = _plan(tuple(scope for scope, _ in factors), tuple(sizes), keep)
    for v, slots, clique in steps:
        cells = math.prod(sizes[u] for u in clique)
        if n_rows * cells > MAX_ENTRIES:
            raise ValueError(
                f"BayesNet: to sum over node {v} takes a table of {cells:,} entries for each of "
                f"{n_rows:,} rows; expected at most {MAX_ENTRIES:,} in all; take fewer "
                "rows at a time (batch_size), or fewer hidden nodes"
            )
        rest = tuple(u for u in clique if u != v)
        joined = _sum_of(ops, [waiting.pop(slot) for slot in slots], (*rest, v), sizes)
        waiting[end] = rest, _log_sum(ops, joined)
        end += 1
    return _sum_of(ops, [waiting[slot] for slot in left], keep, sizes)


def _sizes(tables: Sequence[Array]) -> tuple[int, ...]:
    return tuple(int(table.shape[-1]) for table in tables)


def _logarithm(ops: Any, table: Array) -> Array:
    """Logarithms with no gradient at the zeros."""
    zero = table == 0
    return ops.where(zero, IMPOSSIBLE, ops.log(ops.where(zero, 1.0, table)))


def _stopped(ops: Any, x: Array) -> Array:
    """Without a gradient, where the library has gradients."""
    return ops.stop_gradient(x) if hasattr(ops, "stop_gradient") else x


def _place(codes: Sequence[Array], sizes: Sequence[int]) -> Array:
    """Return the row that codes stand for in a table whose axes are made one."""
    place = codes[0]
    for code, size in zip(codes[1:], sizes[1:], strict=True):
        place = place * size + code
    return place


def _gathered(
    ops: Any, scopes: Sequence[Scope], sizes: Scope, logs: Sequence[Array], codes: Array
) -> Array:
    """Return the entries of the tables of these scopes at the codes, (n, tables)."""
    width = max(len(scope) for scope in scopes)
    columns, strides = (np.zeros((len(scopes), width), dtype=np.int64) for _ in range(2))
    for row, scope in enumerate(scopes):
        columns[row, : len(scope)] = scope
        steps = np.cumprod([1, *(sizes[v] for v in scope[:0:-1])])[::-1]
        strides[row, : len(scope)] = steps
    lengths = [math.prod(sizes[v] for v in scope) for scope in scopes]
    first = np.cumsum([0, *lengths[:-1]])
    # One gather over all tables, whose gradient is one scatter.
    cells = ops.concat([ops.reshape(logs[scope[-1]], (-1,)) for scope in scopes], axis=0)
    taken = ops.reshape(ops.take(codes, ops.asarray(columns.ravel()), axis=1), (-1, *columns.shape))
    place = ops.sum(taken * ops.asarray(strides), axis=-1) + ops.asarray(first)
    return ops.reshape(ops.take(cells, ops.reshape(place, (-1,)), axis=0), place.shape)


def _reduced(
    ops: Any, scope: Scope, sizes: Scope, logs: Array, codes: Array, hidden: Scope
) -> Factor:
    """Return the factor at the codes of its observed nodes, over its hidden ones."""
    known = [axis for axis, v in enumerate(scope) if v not in hidden]
    left = [axis for axis, v in enumerate(scope) if v in hidden]
    table = ops.permute_dims(logs, (*known, *left))
    table = ops.reshape(table, (-1, *(sizes[scope[axis]] for axis in left)))
    if known:
        place = _place([codes[:, scope[k]] for k in known], [sizes[scope[k]] for k in known])
        table = ops.take(table, place, axis=0)
    return tuple(scope[axis] for axis in left), table


def _sum_of(ops: Any, factors: Sequence[Factor], scope: Scope, sizes: Sequence[int]) -> Array:
    """Add factors with their axes in the order of `scope`; (n or 1, *sizes) by broadcasting."""
    aligned = []
    for own, table in factors:
        order = sorted(range(len(own)), key=lambda axis: scope.index(own[axis]))
        table = ops.permute_dims(table, (0, *(axis + 1 for axis in order)))
        shape = (sizes[v] if v in own else 1 for v in scope)
        aligned.append(ops.reshape(table, (table.shape[0], *shape)))
    # The small ones first, so that few sums are over the whole table.
    return functools.reduce(lambda a, b: a + b, sorted(aligned, key=lambda t: math.prod(t.shape)))


def _log_sum(ops: Any, x: Array) -> Array:
    """Logsumexp of finite numbers over the last axis.

    The derivative with respect to the maximum is zero, so none is traced.
    """
    top = _stopped(ops, ops.max(x, axis=-1, keepdims=True))
    return ops.log(ops.sum(ops.exp(x - top), axis=-1)) + ops.squeeze(top, axis=-1)


@functools.lru_cache(maxsize=64)
def _plan(
    scopes: tuple[Scope, ...], sizes: Scope, keep: Scope
) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """Return the sums to take in turn, and the slots of the factors left in the end."""
    order = elimination_order(scopes, sizes, keep, "weighted_min_fill")
    steps, left, _ = eliminate(scopes, order)
    return tuple(steps), tuple(left)
