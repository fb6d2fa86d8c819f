"""Variable elimination over factors of discrete variables: sums, and marginal maxima.

A query is the product of the factors with everything but its targets summed out. Distributing the
sums over the product costs as much as the largest table on the way, which the order of the
variables decides: the best order is NP-hard to find, greedy ones are good (Kjaerulff 1990, Koller
and Friedman 2009, ch. 9 and 13). The order, the cost and every contraction are worked out once.

References
----------
Kjaerulff (1990), Triangulation of graphs: algorithms giving small total state space.
Koller and Friedman (2009), Probabilistic Graphical Models, algorithms 9.1, 9.4 and 13.1.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ppl_gen.algorithms.factors import (
    MANY,
    SMALL,
    Products,
    Scope,
    as_logs,
    at_codes,
    batch_last,
    batch_size,
    log_product,
    log_sum_exp,
    rows_at_once,
    union,
)
from ppl_gen.algorithms.row_chunks import map_rows

Array = Any
Sizes = Sequence[int] | Mapping[int, int]
HEURISTICS = ("min_fill", "weighted_min_fill", "min_weight")


def elimination_order(
    scopes: Iterable[Scope],
    sizes: Sizes,
    keep: Collection[int] = (),
    heuristic: str = "min_fill",
) -> list[int]:
    """Return a greedy order in which to sum out the variables of some factors.

    Parameters
    ----------
    scopes : iterable of tuple of int
    sizes : sequence or mapping of int
        The number of states of every variable.
    keep : collection of int
        Variables that are not summed out.
    heuristic : str
        What each step makes smallest: ``"min_fill"``, the number of pairs of variables that it
        joins; ``"weighted_min_fill"``, the sum over these of the product of their sizes;
        ``"min_weight"``, the cells of the table that it sums. Ties go to the smaller table, then
        to the lower number.

    Returns
    -------
    list of int

    Examples
    --------
    >>> elimination_order([(0, 1), (1, 2), (2, 3)], sizes=[2, 2, 2, 2], keep=[3])
    [0, 1, 2]
    """
    if heuristic not in HEURISTICS:
        raise ValueError(
            f"elimination_order: heuristic is {heuristic!r}; expected one of {HEURISTICS}"
        )
    near = _neighbours(scopes)
    # Whole numbers of any length: products of NumPy's would overflow.
    price = _price(near, {v: int(sizes[v]) for v in near}, heuristic)
    kept = set(keep)
    prices = {v: price(v) for v in near if v not in kept}
    waiting = list(prices.values())
    heapq.heapify(waiting)
    order = []
    while waiting:
        cheapest = heapq.heappop(waiting)
        v = cheapest[-1]
        if prices.get(v) is not cheapest:
            continue  # gone, or since repriced
        order.append(v)
        del prices[v]
        around = changed = near[v]
        joins = cheapest[0] > 0 and heuristic != "min_weight"
        for u in _members(around):
            near[u] = (near[u] | around) & ~(1 << u | 1 << v)
            if joins:  # pairs that are neighbours of others too
                changed |= near[u]
        for u in _members(changed):
            if u in prices:
                prices[u] = price(u)
                heapq.heappush(waiting, prices[u])
    return order


def _neighbours(scopes: Iterable[Scope]) -> dict[int, int]:
    """Return for each variable those it shares a factor with, as the bits of an integer."""
    near: dict[int, int] = {}
    for scope in scopes:
        mask = 0
        for v in scope:
            mask |= 1 << v
        for v in scope:
            near[v] = near.get(v, 0) | mask
    return {v: near[v] & ~(1 << v) for v in sorted(near)}


def _members(mask: int) -> list[int]:
    members = []
    while mask:
        lowest = mask & -mask
        members.append(lowest.bit_length() - 1)
        mask ^= lowest
    return members


#: What summing out a variable makes larger, the cells of the table it sums, its number.
Price = tuple[int, int, int]


def _price(near: dict[int, int], sizes: dict[int, int], heuristic: str) -> Callable[[int], Price]:
    """Return the function that tells what it costs to sum out a variable."""

    def cells(v: int) -> int:
        return math.prod([sizes[u] for u in _members(near[v])]) * sizes[v]

    def fill(v: int) -> Price:
        around, joined, table = near[v], 0, sizes[v]
        for u in _members(around):
            joined += (around & ~near[u]).bit_count() - 1  # u is not its own neighbour
            table *= sizes[u]
        return joined // 2, table, v

    def weighted_fill(v: int) -> Price:
        around, joined = near[v], 0
        for u in _members(around):
            apart = _members(around & ~near[u] & ~(1 << u))
            joined += sizes[u] * sum([sizes[w] for w in apart])
        return joined // 2, cells(v), v

    def weight(v: int) -> Price:
        return 0, cells(v), v

    return {"min_fill": fill, "weighted_min_fill": weighted_fill, "min_weight": weight}[heuristic]


class Cost(NamedTuple):
    """What a plan costs a row, known before it is run.

    Attributes
    ----------
    width : int
        Variables of the largest product, less one: the induced width of the order.
    largest : int
        Cells of the largest product, before it is summed.
    total : int
        Cells of all products: proportional to the time.
    """

    width: int
    largest: int
    total: int

    @property
    def bytes(self) -> int:
        """Memory that holds all the tables in float64: a bound of what a row takes."""
        return 8 * self.total


def cost_of(cliques: Iterable[Scope], sizes: Sizes) -> Cost:
    """Return the cost of products over some sets of variables.

    Examples
    --------
    >>> cost_of([(0, 1), (1, 2)], sizes=[2, 3, 4])
    Cost(width=1, largest=12, total=18)
    """
    width, largest, total = 0, 1, 0
    for clique in cliques:
        cells = math.prod([int(sizes[v]) for v in clique])
        width, largest, total = max(width, len(clique) - 1), max(largest, cells), total + cells
    return Cost(width, largest, total)


class Step(NamedTuple):
    """One variable summed out: the slots of the factors that meet at it, and their variables."""

    variable: int
    slots: list[int]
    clique: Scope


def eliminate(
    scopes: Sequence[Scope], order: Sequence[int]
) -> tuple[list[Step], list[int], list[Scope]]:
    """Return the steps of an order, the slots left at its end, and the scopes of all slots.

    The product of each step takes the next slot after those of the factors given.
    """
    end = len(order)
    position = defaultdict(lambda: end, zip(order, range(end), strict=True))
    first = position.__getitem__
    met: list[list[int]] = [[] for _ in range(end + 1)]
    all_scopes = list(scopes)
    for slot, scope in enumerate(all_scopes):
        met[min(map(first, scope), default=end)].append(slot)
    steps = []
    for i, v in enumerate(order):
        if not met[i]:
            continue  # in no factor
        clique = union([all_scopes[slot] for slot in met[i]])
        steps.append(Step(v, met[i], clique))
        left = tuple([u for u in clique if u != v])
        met[min(map(first, left), default=end)].append(len(all_scopes))
        all_scopes.append(left)
    return steps, met[end], all_scopes


def elimination_cost(scopes: Sequence[Scope], sizes: Sizes, order: Sequence[int]) -> Cost:
    """Return what summing out variables in an order costs, the last product left included.

    Examples
    --------
    >>> elimination_cost([(0, 1), (1, 2)], sizes=[2, 3, 4], order=[0, 1])
    Cost(width=1, largest=12, total=22)
    """
    steps, left, all_scopes = eliminate(scopes, order)
    return cost_of([step.clique for step in steps] + [union(all_scopes[s] for s in left)], sizes)


class Elimination:
    """A query's plan, made once for given scopes and targets and run for many tables.

    Parameters
    ----------
    scopes : sequence of tuple of int
        Of the factors, in the order in which :meth:`run` takes their tables.
    sizes : sequence or mapping of int
        The number of states of every variable.
    targets : sequence of int
        The variables of the result, in the order of its axes. One that no factor mentions gets
        an axis along which the result is constant.
    heuristic : str
        See :func:`elimination_order`.
    order : sequence of int, optional
        The order to take in place of a greedy one, which saves half of the time to plan: that of
        a whole network serves all its queries well. What is not to be summed out is left out.

    Attributes
    ----------
    order : list of int
        The variables summed out, first to last.
    cost : Cost

    Raises
    ------
    ValueError
        Where a target is named twice, or the order lacks a variable.

    References
    ----------
    Koller and Friedman (2009), Probabilistic Graphical Models, algorithm 9.1.

    Examples
    --------
    >>> rain, wet = np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.3, 0.7]])
    >>> plan = Elimination([(0,), (0, 1)], sizes=[2, 2], targets=[1])
    >>> plan.cost, plan.run([rain, wet])
    (Cost(width=1, largest=4, total=6), array([0.78, 0.22]))
    """

    def __init__(
        self,
        scopes: Sequence[Scope],
        sizes: Sizes,
        targets: Sequence[int],
        heuristic: str = "min_fill",
        order: Sequence[int] | None = None,
    ) -> None:
        self.targets = tuple(targets)
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"Elimination: targets {self.targets} name a variable twice")
        self.scopes = list(scopes)
        self.ranks = [len(scope) for scope in scopes]
        mentioned = set(union(self.scopes))
        self.sizes = {v: int(sizes[v]) for v in mentioned.union(self.targets)}
        self.order = (
            self._checked(order, mentioned)
            if order is not None
            else (elimination_order(self.scopes, self.sizes, self.targets, heuristic))
        )
        added: list[Scope] = [(v,) for v in self.targets if v not in mentioned]
        if not self.scopes and not added:
            added = [()]  # the empty product is one
        self.constants = [np.ones([self.sizes[v] for v in scope]) for scope in added]
        self.all_scopes = self.scopes + added
        self.steps, self.left, scopes_met = eliminate(self.all_scopes, self.order)
        self._outs = scopes_met[len(self.all_scopes) :]
        self.cost = cost_of([*(step.clique for step in self.steps), self.targets], self.sizes)
        self._plans: dict[tuple[bool, ...], Products] = {}

    def run(self, tables: Sequence[Array]) -> Array:
        """Return the product of the factors, summed down to the targets and not normalised.

        Nothing is rescaled: what is smaller than the smallest double on the way is zero. A total
        above 1e-200 tells that this has not mattered, where tables are probabilities;
        :class:`~ppl_gen.algorithms.junction_tree.JunctionTree` gives the others.

        Parameters
        ----------
        tables : sequence of ndarray
            Each with the axes of its scope, or a batch axis before them.

        Returns
        -------
        ndarray (*sizes of targets) or (n, *sizes of targets)
            The latter where a table has a batch axis.

        Raises
        ------
        ValueError
            Where a table has not the axes of its scope, or batches differ in length.
        """
        batched = tuple([t.ndim > rank for t, rank in zip(tables, self.ranks, strict=True)])
        plan = self._plans.get(batched)
        if plan is None:
            batch_size(self.scopes, tables, "Elimination.run")
            plan = self._plans[batched] = self._compile(batched)
        if not any(batched):
            return plan.run([*tables, *self.constants])
        n = batch_size(self.scopes, tables, "Elimination.run")
        assert n is not None

        def part(rows: slice) -> Array:
            some = [
                t[rows] if with_rows else t for t, with_rows in zip(tables, batched, strict=True)
            ]
            lasts = [batch_last(scope, t) for scope, t in zip(self.scopes, some, strict=True)]
            return np.moveaxis(plan.run([*lasts, *self.constants]), -1, 0)

        chunk = rows_at_once(self.cost.largest)
        return part(slice(n)) if n <= chunk else np.concatenate(map_rows(part, n, chunk))

    def _checked(self, order: Sequence[int], mentioned: set[int]) -> list[int]:
        hidden = mentioned.difference(self.targets)
        taken = [v for v in order if v in hidden]
        if len(taken) != len(hidden):
            raise ValueError(
                f"Elimination: the order has {len(taken)} of the {len(hidden)} variables to sum "
                f"out, {sorted(hidden)}; name each of them once"
            )
        return taken

    def _compile(self, batched: Sequence[bool]) -> Products:
        """Write the steps as einsums, those over small tables several in one."""
        given = len(self.all_scopes)
        products = Products(self.all_scopes, self.sizes, [*batched, *[False] * len(self.constants)])
        # Over small tables a call costs more than its sums: a step is then left to the step that
        # takes up its product, while the variables of both have few cells together.
        merge = not any(batched)
        waiting: list[tuple[list[int], int, Scope]] = []

        def operands(slots: Sequence[int], clique: Scope) -> tuple[list[int], int]:
            """Return the factors of a step, and the cells of the variables summed before it."""
            found: list[int] = []
            before = 1
            cells = products.cells(clique) if merge else 0
            for slot in slots:
                if slot < given:
                    found.append(slot)
                    continue
                inner, inside, out = waiting[slot - given]
                count = len(found) + len(inner)
                if merge and count <= MANY and count * cells * before * inside <= SMALL:
                    found += inner
                    before *= inside
                else:
                    found.append(products.append(inner, out))
            return found, before

        for step, out in zip(self.steps, self._outs, strict=True):
            found, before = operands(step.slots, step.clique)
            waiting.append((found, before * self.sizes[step.variable], out))
        found, _ = operands(self.left, self.targets)
        products.append(found, self.targets)
        return products


def maximising_order(
    scopes: Sequence[Scope], sizes: Sizes, targets: Collection[int], heuristic: str = "min_fill"
) -> tuple[list[int], list[int]]:
    """Return the order of a marginal maximum: what to sum out, then what to maximise.

    A sum and a maximum do not commute, so the sums come first, and the products may be far larger
    than those of either alone: :func:`elimination_cost` of both orders together tells.

    Examples
    --------
    >>> maximising_order([(0, 1), (1, 2)], sizes=[2, 2, 2], targets=[0, 2])
    ([1], [0, 2])
    """
    sums = elimination_order(scopes, sizes, targets, heuristic)
    _, left, all_scopes = eliminate(scopes, sums)
    return sums, elimination_order([all_scopes[slot] for slot in left], sizes, (), heuristic)


def maximise(
    scopes: Sequence[Scope],
    tables: Sequence[Array],
    sizes: Sizes,
    targets: Sequence[int],
    heuristic: str = "min_fill",
) -> tuple[Array, Array]:
    """Return the likeliest joint state of the targets, all else summed out, and its log value.

    The marginal maximum a posteriori (MAP); with every variable a target, the most probable
    explanation. In logarithms throughout, so that nothing underflows.

    Parameters
    ----------
    scopes : sequence of tuple of int
    tables : sequence of ndarray
        Each with the axes of its scope, or a batch axis before them.
    sizes : sequence or mapping of int
    targets : sequence of int
    heuristic : str
        See :func:`elimination_order`.

    Returns
    -------
    codes : ndarray of int (len(targets),) or (n, len(targets))
        Zero for a target that no factor mentions; one of the best where several are.
    log_value : float or ndarray (n,)
        The log of the largest value, not normalised; minus infinity where all are zero.

    References
    ----------
    Koller and Friedman (2009), Probabilistic Graphical Models, section 13.2.3.

    Examples
    --------
    >>> rain, wet = np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.3, 0.7]])
    >>> codes, log_value = maximise([(0,), (0, 1)], [rain, wet], [2, 2], targets=[0, 1])
    >>> codes, np.exp(log_value).round(2)
    (array([0, 0]), np.float64(0.72))
    """
    n = batch_size(scopes, tables, "maximise")
    sums, maxima = maximising_order(scopes, sizes, targets, heuristic)
    steps, left, all_scopes = eliminate(scopes, sums + maxima)
    logs = [as_logs(scope, t) for scope, t in zip(scopes, tables, strict=True)]
    best: list[tuple[int, Scope, Array]] = []
    for step in steps:
        out = tuple(v for v in step.clique if v != step.variable)
        slots = step.slots
        table = log_product(
            [all_scopes[s] for s in slots], [logs[s] for s in slots], (step.variable, *out)
        )
        if step.variable in targets:
            best.append((step.variable, out, table.argmax(axis=0)))
            logs.append(table.max(axis=0))
        else:
            logs.append(log_sum_exp(table, (0,)))
    log_value = log_product([()] * len(left), [logs[s] for s in left], ())
    rows = 1 if n is None else n
    codes = {v: np.zeros(rows, dtype=np.intp) for v in targets}
    for v, out, table in reversed(best):
        table = np.broadcast_to(table, (*table.shape[:-1], rows))
        codes[v] = at_codes(out, table, codes)[1] if out else table
    chosen = np.stack([codes[v] for v in targets], axis=-1) if targets else np.empty((rows, 0), int)
    log_value = np.broadcast_to(log_value, (rows,))
    return (chosen[0], log_value[0]) if n is None else (chosen, log_value.copy())
