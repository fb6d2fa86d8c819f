r"""Sets of nodes that identify a causal effect by the front-door criterion.

A directed acyclic graph of V nodes is given as `parents`, the numbers of each node's parents.
Treatments `xs` and outcomes `ys` are disjoint collections of nodes, and `observed` the nodes that
may be used besides them, all where it is None. Where a set Z satisfies the criterion,

.. math:: p(y \mid do(x)) = \sum_z p(z \mid x) \sum_{x'} p(y \mid x', z)\, p(x').
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from itertools import count

from ppl_gen.algorithms.networks.adjustment import least_cut, open_path, without_edges
from ppl_gen.algorithms.networks.d_separation import children_of, d_separated, reachable

__all__ = ["front_door_sets", "is_front_door"]

Parents = Sequence[Sequence[int]]
Nodes = Collection[int]


def is_front_door(parents: Parents, xs: Nodes, ys: Nodes, z: Nodes) -> bool:
    """Tell whether a set satisfies the front-door criterion.

    It meets every directed path from xs to ys; no path with an arrow into xs joins it to xs; and
    xs blocks every path with an arrow into the set that joins it to ys.

    Parameters
    ----------
    parents : sequence of V sequences of node numbers
    xs, ys, z : collections of node numbers

    References
    ----------
    Pearl (2009), definition 3.3.3; for sets, Jeong, H., Tian, J. and Bareinboim, E. (2022).
    Finding and listing front-door adjustment sets. Advances in Neural Information Processing
    Systems 35, definition 2.

    Examples
    --------
    >>> is_front_door([(3,), (0,), (1, 3), ()], [0], [2], [1])  # 3 makes 0 and 2 dependent
    True
    """
    if set(z) & (set(xs) | set(ys)) or _around(parents, xs, ys, z) is not None:
        return False
    return d_separated(without_edges(parents, out_of=xs), xs, z, ()) and d_separated(
        without_edges(parents, out_of=z), z, ys, xs
    )


def _around(parents: Parents, xs: Nodes, ys: Nodes, z: Nodes) -> list[int] | None:
    """Return a shortest directed path from xs to ys that avoids z; None if there is none."""
    children, queue = children_of(parents), sorted(xs)
    before: dict[int, int | None] = dict.fromkeys(queue)
    for v in queue:
        if v in ys:
            path = [v]
            while (step := before[path[-1]]) is not None:
                path.append(step)
            return path[::-1]
        for child in children[v]:
            if child not in before and child not in z:
                before[child] = v
                queue.append(child)
    return None


def front_door_sets(
    parents: Parents, xs: Nodes, ys: Nodes, observed: Nodes | None = None
) -> Iterator[frozenset[int]]:
    """Yield all minimal sets of the front-door criterion, the smallest first.

    Parameters
    ----------
    parents : sequence of V sequences of node numbers
    xs, ys : collections of node numbers
    observed : collection of node numbers, optional

    Yields
    ------
    frozenset of node numbers
        The empty set where no directed path leads from xs to ys.

    References
    ----------
    Jeong et al. (2022), algorithm 1, for the largest set within given nodes.

    Examples
    --------
    >>> [sorted(z) for z in front_door_sets([(3,), (0,), (1, 3), ()], [0], [2])]
    [[1]]
    """
    usable = set(range(len(parents)) if observed is None else observed) - set(xs) - set(ys)
    usable -= reachable(without_edges(parents, out_of=xs), xs, ())
    links: dict[int, Collection[int]] = dict(enumerate(children_of(parents)))
    links |= {y: [-2] for y in ys} | {-1: xs, -2: ()}
    order = count(0, -1)  # of equal bounds the last one first, which is the nearest to its end
    heap: list[tuple[int, int, frozenset[int], set[int]]] = []

    def push(chosen: frozenset[int], within: set[int]) -> None:
        """Keep the sets that hold `chosen` and are `within`, if any can meet all paths."""
        beyond = {v: () if v in chosen else after for v, after in links.items()}
        size = least_cut(beyond, -1, -2, within)
        if size < len(links):
            heapq.heappush(heap, (len(chosen) + size, next(order), chosen, within))

    push(frozenset(), _largest(parents, xs, ys, usable))
    found: list[frozenset[int]] = []
    while heap:
        _, _, chosen, within = heapq.heappop(heap)
        if any(known <= chosen for known in found):
            continue
        lacking = _lacking(parents, xs, ys, chosen)
        if lacking is None:
            found.append(chosen)
            yield chosen
            continue
        # Every set that contains `chosen` has one of these: try each, without those tried before.
        for v in sorted((lacking & within) - chosen):
            if v in within and chosen <= within:
                push(chosen | {v}, within)
                within = _largest(parents, xs, ys, within - {v})


def _largest(parents: Parents, xs: Nodes, ys: Nodes, within: set[int]) -> set[int]:
    """Return the largest subset that xs parts from ys once its outgoing edges are cut.

    A node that is open to ys stays so in every smaller set, which cuts fewer edges: so those
    that fail are dropped until none does.
    """
    while True:
        cut = without_edges(parents, out_of=within)
        failing = within & reachable(cut, ys, xs)
        if not failing:
            return within
        within = within - failing


def _lacking(parents: Parents, xs: Nodes, ys: Nodes, z: frozenset[int]) -> set[int] | None:
    """Return nodes of which a front-door set that contains z has one; None if z is such a set."""
    around = _around(parents, xs, ys, z)
    if around is not None:
        return set(around)
    cut = without_edges(parents, out_of=z)
    path = open_path(cut, z, ys, xs)
    # Cutting the outgoing edges of a node breaks the path if one of them is on it. No two arrows
    # meet there above xs, which would open it: from there an arrow into xs would join it to z.
    return None if path is None else set(path)
