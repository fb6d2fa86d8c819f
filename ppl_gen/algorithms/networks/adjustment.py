r"""Sets of nodes that identify a causal effect by adjustment: the back-door criterion.

A directed acyclic graph of V nodes is given as `parents`, the numbers of each node's parents.
Treatments `xs` and outcomes `ys` are disjoint collections of nodes, and `observed` the nodes that
may be used besides them, all where it is None. Where a set Z is valid,

.. math:: p(y \mid do(x)) = \sum_z p(y \mid x, z)\, p(z).
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, count

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from ppl_gen.algorithms.networks.d_separation import ancestors, children_of, d_separated

__all__ = [
    "adjustment_set",
    "back_door_sets",
    "descendants",
    "is_adjustment_set",
    "is_back_door",
    "least_cut",
    "open_path",
    "proper_back_door_graph",
    "without_edges",
]

Parents = Sequence[Sequence[int]]
Nodes = Collection[int]


def descendants(parents: Parents, nodes: Nodes) -> set[int]:
    """Return the nodes and all that directed paths from them reach.

    Examples
    --------
    >>> sorted(descendants([(), (0,), (1,), ()], [1]))
    [1, 2]
    """
    return ancestors(children_of(parents), nodes)


def without_edges(parents: Parents, into: Nodes = (), out_of: Nodes = ()) -> list[tuple[int, ...]]:
    """Cut the edges into some nodes and those out of others.

    Examples
    --------
    >>> without_edges([(), (0,), (0, 1)], into=[1])
    [(), (), (0, 1)]
    >>> without_edges([(), (0,), (0, 1)], out_of=[0])
    [(), (), (1,)]
    """
    return [
        () if v in into else tuple(p for p in above if p not in out_of)
        for v, above in enumerate(parents)
    ]


def open_path(parents: Parents, xs: Nodes, ys: Nodes, given: Nodes) -> list[int] | None:
    """Find a shortest path between two sets of nodes that `given` leaves open; None if none is.

    Parameters
    ----------
    parents : sequence of V sequences of node numbers
    xs, ys, given : collections of node numbers, disjoint

    Returns
    -------
    list of node numbers, or None
        From one of `xs` to one of `ys`. A node between that has both arrows into it is in
        `given`, or has a descendant there.

    Examples
    --------
    >>> open_path([(), (0,), (0,), (1, 2)], [1], [2], [])
    [1, 0, 2]
    >>> open_path([(), (0,), (0,), (1, 2)], [1], [2], [0]) is None
    True
    >>> open_path([(), (0,), (0,), (1, 2)], [1], [2], [0, 3])
    [1, 3, 2]
    """
    children, blocked = children_of(parents), set(given)
    opened = ancestors(parents, given)
    # A node is met with an arrow into it ("down") or not ("up"); a shortest walk is a path.
    queue = [(x, True) for x in sorted(xs)]
    before: dict[tuple[int, bool], tuple[int, bool] | None] = dict.fromkeys(queue)
    for state in queue:
        v, up = state
        if v in ys:
            steps = [state]
            while (step := before[steps[-1]]) is not None:
                steps.append(step)
            return [v for v, _ in reversed(steps)]
        following = []
        if v not in blocked:
            following += [(c, False) for c in children[v]]
        if v not in blocked if up else v in opened:
            following += [(p, True) for p in parents[v]]
        for reached in following:
            if reached not in before and reached[0] not in xs:
                before[reached] = state
                queue.append(reached)
    return None


def proper_back_door_graph(
    parents: Parents, xs: Nodes, ys: Nodes
) -> tuple[list[tuple[int, ...]], set[int]]:
    """Cut the first edge of each directed path from xs to ys that meets xs only at its start.

    Returns
    -------
    parents : list of V tuples of node numbers
        Of the graph that is left.
    forbidden : set of node numbers
        Those on the paths that were cut, and their descendants: adjusting for one would take
        away a part of the effect, or add a bias.

    References
    ----------
    van der Zander, B., Liśkiewicz, M. and Textor, J. (2019). Separators and adjustment sets in
    causal graphs: complete criteria and an algorithmic framework. Artificial Intelligence 270,
    definitions 4 and 5.
    """
    below = descendants(without_edges(parents, into=xs), xs) - set(xs)
    on_paths = below & ancestors(without_edges(parents, out_of=xs), ys)
    cut = [
        tuple(p for p in above if not (p in xs and v in on_paths))
        for v, above in enumerate(parents)
    ]
    return cut, descendants(parents, on_paths)


def is_back_door(parents: Parents, x: int, y: int, z: Nodes) -> bool:
    """Tell whether a set satisfies the back-door criterion: no descendant of x, all paths blocked.

    Parameters
    ----------
    parents : sequence of V sequences of node numbers
    x, y : int
    z : collection of node numbers

    References
    ----------
    Pearl, J. (2009). Causality, 2nd edition, definition 3.3.1. Cambridge University Press.

    Examples
    --------
    >>> is_back_door([(2,), (0, 2), ()], 0, 1, [2]), is_back_door([(2,), (0, 2), ()], 0, 1, [])
    (True, False)
    """
    if set(z) & (descendants(parents, [x]) | {y}):
        return False
    return d_separated(without_edges(parents, out_of=[x]), [x], [y], z)


def is_adjustment_set(parents: Parents, xs: Nodes, ys: Nodes, z: Nodes) -> bool:
    """Tell whether adjusting for a set gives the effect: the complete criterion.

    Every set of the back-door criterion is one; so is a set with a descendant of the treatment
    that is on no path to the outcome, and sets for several treatments.

    Parameters
    ----------
    parents : sequence of V sequences of node numbers
    xs, ys, z : collections of node numbers

    References
    ----------
    Shpitser, I., VanderWeele, T. and Robins, J. (2010). On the validity of covariate adjustment
    for estimating causal effects. Uncertainty in Artificial Intelligence 26.
    van der Zander et al. (2019), theorem 4.
    """
    cut, forbidden = proper_back_door_graph(parents, xs, ys)
    if set(z) & (forbidden | set(xs) | set(ys)):
        return False
    return d_separated(cut, xs, ys, z)


def adjustment_set(
    parents: Parents, xs: Nodes, ys: Nodes, observed: Nodes | None = None
) -> frozenset[int] | None:
    """Return one set that is valid for adjustment, in linear time; None where there is no such.

    Parameters
    ----------
    parents : sequence of V sequences of node numbers
    xs, ys : collections of node numbers
    observed : collection of node numbers, optional

    Returns
    -------
    frozenset of node numbers
        All observed ancestors of xs and ys that are not forbidden: if any set is valid, this is.

    References
    ----------
    van der Zander et al. (2019), theorem 5.

    Examples
    --------
    >>> sorted(adjustment_set([(2,), (0, 2), (), (1,)], [0], [1]))
    [2]
    >>> adjustment_set([(2,), (0, 2), (), (1,)], [0], [1], observed=[0, 1, 3]) is None
    True
    """
    cut, forbidden = proper_back_door_graph(parents, xs, ys)
    z = frozenset(_usable(parents, xs, ys, observed) - forbidden)
    return z if d_separated(cut, xs, ys, z) else None


def _usable(parents: Parents, xs: Nodes, ys: Nodes, observed: Nodes | None) -> set[int]:
    """Observed ancestors of xs and ys."""
    near = ancestors(parents, [*xs, *ys]) - set(xs) - set(ys)
    return near if observed is None else near & set(observed)


def back_door_sets(
    parents: Parents, xs: Nodes, ys: Nodes, observed: Nodes | None = None
) -> Iterator[frozenset[int]]:
    """Yield all minimal sets that are valid for adjustment, the smallest first.

    With one treatment these are the minimal sets of the back-door criterion too: a minimal set
    holds ancestors of xs and ys only, and a descendant of x among those is on a path to y.

    Parameters
    ----------
    parents : sequence of V sequences of node numbers
    xs, ys : collections of node numbers
    observed : collection of node numbers, optional

    Yields
    ------
    frozenset of node numbers
        There may be exponentially many: take what is needed.

    References
    ----------
    van der Zander et al. (2019), section 4.5, for the reduction to separators of the moral graph.
    Takata, K. (2010). Space-optimal, backtracking algorithms to list the minimal vertex
    separators of a graph. Discrete Applied Mathematics 158.

    Examples
    --------
    >>> parents = [(2,), (0, 3), (4,), (4,), ()]  # 0 <- 2 <- 4 -> 3 -> 1, 0 -> 1
    >>> [sorted(z) for z in back_door_sets(parents, [0], [1])]
    [[3], [4], [2]]
    """
    cut, forbidden = proper_back_door_graph(parents, xs, ys)
    usable = _usable(parents, xs, ys, observed) - forbidden
    near = ancestors(cut, [*xs, *ys])
    # xs becomes the node -1 and ys the node -2.
    merged = {v: -1 if v in xs else -2 if v in ys else v for v in near}
    graph: dict[int, set[int]] = {v: set() for v in (-1, -2, *near - set(xs) - set(ys))}
    for v in near:
        for a, b in combinations({merged[u] for u in (v, *cut[v])}, 2):
            graph[a].add(b)
            graph[b].add(a)
    # A path through a node that cannot be used is as good as an edge.
    for v in near - usable - set(xs) - set(ys):
        around = graph.pop(v)
        for u in around:
            graph[u] = (graph[u] | around) - {u, v}
    return _minimal_separators(graph, -1, -2)


def _minimal_separators(graph: Mapping[int, set[int]], a: int, b: int) -> Iterator[frozenset[int]]:
    """Yield the minimal sets whose removal parts a from b, the smallest first.

    A minimal separator is the border of the component of `a` that it leaves. The search splits
    these components: `inner` is in the component, `outer` is not; the least cut between the two
    bounds the size of the border.
    """
    if b in graph[a]:
        return
    order = count(0, -1)  # of equal bounds the last one first, which is the nearest to its end
    heap: list[tuple[int, int, set[int], set[int], set[int]]] = []

    def push(inner: set[int], outer: set[int]) -> None:
        """Keep what has `inner` inside, if there is any that leaves `outer` out."""
        border = _border(graph, inner)
        if b not in border:
            beyond = _component(graph, b, border)
            border = _border(graph, beyond)
            inner = _component(graph, a, border)
            if not inner & outer:
                links = {v: graph[v] | {b} if v in outer else graph[v] for v in graph}
                size = least_cut({**links, a: border}, a, b, graph.keys() - inner)
                heapq.heappush(heap, (size, next(order), inner, outer, border))

    push({a}, set())
    while heap:
        _, _, inner, outer, border = heapq.heappop(heap)
        # The others are in the border of every component that contains `inner`.
        free = [v for v in border if v not in outer and b not in graph[v]]
        if free:
            push(inner, outer | {min(free)})
            push(inner | {min(free)}, outer)
        else:
            yield frozenset(border)


def least_cut(
    links: Mapping[int, Collection[int]], source: int, sink: int, removable: Collection[int]
) -> int:
    """Return the least number of nodes whose removal leaves no path from source to sink.

    Parameters
    ----------
    links : dict of node to nodes
        Where each node leads to.
    source, sink : int
    removable : collection of node numbers
        What may be removed; source and sink may not.

    Returns
    -------
    int
        The number of nodes, at least, where no removal suffices.

    References
    ----------
    Menger's theorem, as a maximum flow through nodes of capacity one.

    Examples
    --------
    >>> links = {0: [1, 2], 1: [3], 2: [3], 3: [4], 4: []}
    >>> least_cut(links, 0, 4, [1, 2, 3]), least_cut(links, 0, 4, [1, 2])
    (1, 2)
    """
    places = {v: 2 * i for i, v in enumerate(links)}  # where a node begins; it ends at the next
    capacity = np.zeros((2 * len(links), 2 * len(links)), dtype=np.int32)
    for v, place in places.items():
        inside = v in removable and v not in (source, sink)
        capacity[place, place + 1] = 1 if inside else len(links)
        capacity[place + 1, [places[u] for u in links[v]]] = len(links)
    flow = maximum_flow(csr_array(capacity), places[source], places[sink] + 1)
    return min(int(flow.flow_value), len(links))


def _border(graph: Mapping[int, set[int]], nodes: set[int]) -> set[int]:
    return set().union(*(graph[v] for v in nodes)) - nodes


def _component(graph: Mapping[int, set[int]], start: int, removed: set[int]) -> set[int]:
    found, stack = {start}, [start]
    while stack:
        new = graph[stack.pop()] - removed - found
        found |= new
        stack += new
    return found
