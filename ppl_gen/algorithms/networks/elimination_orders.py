"""Orders in which to sum variables out of factors, and what they cost.

A sum over a product of factors costs as much as the largest product on the way, which the order of
the variables decides. The best order is NP-hard to find; greedy ones are good.

References
----------
Kjaerulff (1990), Triangulation of graphs: algorithms giving small total state space.
Koller and Friedman (2009), Probabilistic Graphical Models, section 9.4.3.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ppl_gen.algorithms.networks.factors import Scope, union

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
