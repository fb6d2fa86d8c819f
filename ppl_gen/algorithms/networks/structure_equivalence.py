"""What a graph says that data can tell: the directions that all equivalent graphs share."""

import numpy as np
import numpy.typing as npt

__all__ = ["essential_graph"]

Flags = npt.NDArray[np.bool_]


def essential_graph(edges: Flags, known: Flags | None = None) -> Flags:
    """Return which directions the edges have in some graph with the same independences.

    Parameters
    ----------
    edges : (V, V) bool
        A directed acyclic graph.
    known : (V, V) bool, optional
        Edges whose direction is known beforehand, and so the same in all.

    Returns
    -------
    (V, V) bool
        An edge that can point either way is true both ways.

    Notes
    -----
    Graphs are equivalent if they have the same edges, leaving directions aside, and the same pairs
    of parents of one child that are not joined (Verma & Pearl 1990). What follows from these and
    from what is known is found by the four rules of Meek (1995), Causal inference and causal
    explanation with background knowledge, Uncertainty in Artificial Intelligence 11, 403-410.

    Examples
    --------
    >>> chain = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    >>> essential_graph(chain).astype(int)
    array([[0, 1, 0],
           [1, 0, 1],
           [0, 1, 0]])
    """
    joined = edges | edges.T
    kept = np.zeros_like(edges) if known is None else edges & known
    for child in range(len(edges)):
        above = np.flatnonzero(edges[:, child])
        apart = (~joined[np.ix_(above, above)]).sum(axis=1) > 1  # each is apart from itself
        kept[above[apart], child] = True
    possible = joined & ~kept.T
    while True:
        before = possible.sum()
        possible &= ~_implied(possible, joined).T
        if possible.sum() == before:
            return possible


def _implied(possible: Flags, joined: Flags) -> Flags:
    """Directions of open edges that follow: no new unjoined parents, and no cycle."""
    directed, is_open = possible & ~possible.T, possible & possible.T
    # Rule 1: a -> b - c, a and c not joined, gives b -> c. Rule 2: a -> b -> c, a - c, a -> c.
    implied: Flags = is_open & (_matmul(directed.T, ~joined) | _matmul(directed, directed))
    for a, b in zip(*(is_open & ~implied).nonzero(), strict=True):
        # Rule 3: a - c -> b, a - d -> b, c and d not joined.
        middle = np.flatnonzero(is_open[a] & directed[:, b])
        if ((~joined[np.ix_(middle, middle)]).sum(axis=1) > 1).any():
            implied[a, b] = True
            continue
        # Rule 4: a - c -> d -> b, with d joined to a, and c not to b.
        first = is_open[a] & ~joined[b]
        second = joined[a] & directed[:, b]
        implied[a, b] = directed[np.ix_(first, second)].any()
    return implied


def _matmul(a: Flags, b: Flags) -> Flags:
    """Whether some middle has both."""
    return np.asarray(a.astype(np.float32) @ b.astype(np.float32) > 0.0)
