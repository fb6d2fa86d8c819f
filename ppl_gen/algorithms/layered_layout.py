"""Drawing directed acyclic graphs in layers: where nodes stand, and how edges go between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Sweeps down and up that look for an order with fewer crossings.
SWEEPS = 12
#: How much an edge wants to be upright, by how many of its ends are nodes: 0, 1 or 2. Long edges
#: are held straight (Gansner et al. 1993, section 4).
STRAIGHTNESS = (8.0, 2.0, 1.0)


@dataclass(frozen=True)
class Layout:
    """Places of nodes and routes of edges, in the unit of the widths; y is the number of the layer.

    Attributes
    ----------
    x : (V,)
        Centres.
    layer : (V,) int
        0 at the top; parents are above their children.
    routes : dict of (parent, child) to (K, 2)
        Points that an edge goes through, from centre to centre, one in each layer.
    """

    x: Array
    layer: npt.NDArray[np.int64]
    routes: dict[tuple[int, int], Array]


def layered_layout(
    parents: Sequence[Sequence[int]], widths: Sequence[float], gap: float = 0.3
) -> Layout:
    """Lay a graph out in layers.

    Parameters
    ----------
    parents : sequence of V sequences of int
        Parents of each node, of a graph without cycles.
    widths : (V,)
        Of the nodes.
    gap : float
        Between neighbours.

    Returns
    -------
    Layout

    Raises
    ------
    ValueError
        If the graph has a cycle.

    Notes
    -----
    Layers make the edges short in sum, which is a linear program with whole solutions; each edge
    over several layers gets a point in each; orders within the layers come from sweeps of
    barycentres; and places make the edges upright by least squares, where neighbours keep apart.

    References
    ----------
    Sugiyama, Tagawa & Toda (1981), IEEE Transactions on Systems, Man, and Cybernetics 11, 109-125;
    Gansner, Koutsofios, North & Vo (1993), A technique for drawing directed graphs, IEEE
    Transactions on Software Engineering 19, 214-230, section 2 for the layers.

    Examples
    --------
    >>> layout = layered_layout([(), (0,), (0,), (1, 2)], [1.0, 1.0, 1.0, 1.0])
    >>> layout.layer
    array([0, 1, 1, 2])
    >>> layout.x.round(2) - layout.x[0].round(2)
    array([ 0.  , -0.65,  0.65,  0.  ])
    """
    edges = [(p, v) for v, own in enumerate(parents) for p in own]
    layer = _layers(len(parents), edges)
    level, wide = list(layer), list(widths)
    chains = {}
    for p, v in edges:
        points = list(range(len(level), len(level) + layer[v] - layer[p] - 1))
        level += range(layer[p] + 1, layer[v])
        wide += [0.0] * len(points)
        chains[p, v] = [p, *points, v]
    links = np.array([pair for c in chains.values() for pair in pairwise(c)], int)
    links = links.reshape(-1, 2)
    order = _order(np.array(level, dtype=np.int64), links)
    x = _places(order, np.array(wide, dtype=np.float64), links, len(parents), gap)
    routes = {
        edge: np.array([(x[u], float(level[u])) for u in chain]) for edge, chain in chains.items()
    }
    return Layout(x[: len(parents)], layer, routes)


def _layers(n_nodes: int, edges: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """Return the layer of each node: every child below its parents, the edges short in sum."""
    from scipy.optimize import linprog

    if not edges:
        return np.zeros(n_nodes, np.int64)
    tails, heads = np.array(edges).T
    rows = np.arange(len(edges))
    below = np.zeros((len(edges), n_nodes))
    below[rows, tails], below[rows, heads] = 1.0, -1.0
    # The sum of the edges' lengths; what has no edge goes to the top.
    cost = below.sum(axis=0) * -1.0 + ~below.any(axis=0)
    found = linprog(cost, A_ub=below, b_ub=np.full(len(edges), -1.0))
    if found.x is None:
        raise ValueError(
            "layered_layout: the graph goes round in a circle; expected one without cycles"
        )
    layers: npt.NDArray[np.int64] = np.rint(found.x).astype(np.int64)
    return layers - int(layers.min())


def _order(level: npt.NDArray[np.int64], links: npt.NDArray[np.int64]) -> list[list[int]]:
    """Return the layers, each in an order that lets few links cross."""
    above: list[list[int]] = [[] for _ in level]
    below: list[list[int]] = [[] for _ in level]
    for u, v in links:
        below[u].append(int(v))
        above[v].append(int(u))
    order: list[list[int]] = [[] for _ in range(int(level.max(initial=-1)) + 1)]
    seen: set[int] = set()
    for root in range(len(level)):  # neighbours start side by side
        stack = [root]
        while stack:
            u = stack.pop()
            if u not in seen:
                seen.add(u)
                order[level[u]].append(u)
                stack += [*below[u][::-1], *above[u][::-1]]
    place = np.empty(len(level))
    best, least = [list(row) for row in order], np.inf
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in order:
            place[row] = np.arange(len(row)) - 0.5 * len(row)
        for row in order[1:] if down else order[-2::-1]:
            near = above if down else below
            row.sort(key=lambda u: _mean(place, near[u], u))
            place[row] = np.arange(len(row)) - 0.5 * len(row)
        _swap(order, place, above, below)
        crossings = sum(_crossings(place, row, below) for row in order)
        if crossings < least:
            best, least = [list(row) for row in order], crossings
    return best


def _mean(place: Array, near: list[int], u: int) -> float:
    return float(place[near].mean()) if near else float(place[u])


def _swap(
    order: list[list[int]], place: Array, above: list[list[int]], below: list[list[int]]
) -> None:
    """Swap neighbours in a layer while that leaves fewer crossings."""
    better = True
    while better:
        better = False
        for row in order:
            for i in range(len(row) - 1):
                u, v = row[i], row[i + 1]
                now = then = 0
                for near in (above, below):
                    if near[u] and near[v]:
                        gaps = np.subtract.outer(place[near[u]], place[near[v]])
                        now, then = now + (gaps > 0.0).sum(), then + (gaps < 0.0).sum()
                if then < now:
                    row[i], row[i + 1] = v, u
                    place[u], place[v] = place[v], place[u]
                    better = True


def _crossings(place: Array, row: list[int], below: list[list[int]]) -> int:
    """Count the links out of a layer that cross each other."""
    ends = [(place[u], place[v]) for u in row for v in below[u]]
    if not ends:
        return 0
    tail, head = np.array(ends).T
    return int((np.subtract.outer(tail, tail) * np.subtract.outer(head, head) < 0.0).sum()) // 2


def _places(
    order: list[list[int]], widths: Array, links: npt.NDArray[np.int64], n_nodes: int, gap: float
) -> Array:
    """Return centres that make the links upright, with neighbours apart and in their order.

    Written in the free space between neighbours, which is at least 0, and the place of the first
    of each layer, this is least squares with bounds.
    """
    from scipy.optimize import lsq_linear

    size = len(widths)
    spread, least = np.zeros((size, size)), np.zeros(size)
    lower = np.zeros(size)
    for row in order:
        lower[row[0]] = -np.inf
        reach = 0.0
        for i, u in enumerate(row):
            if i:
                reach += 0.5 * (widths[row[i - 1]] + widths[u]) + gap
            least[u] = reach
            spread[u, row[: i + 1]] = 1.0
    real = (links < n_nodes).sum(axis=1)
    pulls = np.zeros((len(links), size))
    pulls[np.arange(len(links)), links[:, 1]] = 1.0
    pulls[np.arange(len(links)), links[:, 0]] -= 1.0
    pulls *= np.sqrt(np.array(STRAIGHTNESS)[real])[:, None]
    # A weak pull to the middle holds what no edge holds.
    system = np.concatenate([pulls, 0.03 * np.eye(size)])
    free = lsq_linear(
        system @ spread,
        -system @ least,
        bounds=(lower, np.inf),
        method="bvls",
        max_iter=50 * size,
    ).x
    x: Array = least + spread @ free
    return x
