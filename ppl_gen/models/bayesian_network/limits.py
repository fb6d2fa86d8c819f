"""What is known of a graph beforehand, in names, to the constraints of a search."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ppl_gen.algorithms.networks.structure_search import Constraints

__all__ = ["edge_array", "limits_of", "named_edges", "place_among", "refuse_circle"]

Flags = npt.NDArray[np.bool_]
Edge = tuple[Any, Any]


def limits_of(
    who: str,
    names: Sequence[Any],
    sizes: Sequence[int],
    *,
    max_parents: int | None,
    required: Collection[Edge],
    forbidden: Collection[Edge],
    tiers: Sequence[Sequence[Any]] | None,
) -> Constraints:
    """Return the constraints that a learner's settings mean.

    Parameters
    ----------
    who : str
        Whose settings they are, for messages.
    names : sequence of V
    sizes : sequence of V int
        States of each node; 0 for a continuous one, which is no parent of a discrete one.
    max_parents, required, forbidden, tiers
        As in :class:`~ppl_gen.HillClimb`.

    Raises
    ------
    ValueError
        If a name is no column, an edge is required and cannot be, or the required edges go round in
        a circle or give a node too many parents.
    """
    limits = Constraints.none(len(names))
    if max_parents is not None:
        whole = isinstance(max_parents, int | np.integer) and not isinstance(max_parents, bool)
        if not whole or max_parents < 1:
            raise ValueError(f"{who}: max_parents is {max_parents!r}; expected 1 or more, or None")
        limits = Constraints(limits.allowed, limits.required, min(int(max_parents), len(names) - 1))
    limits.required[:] = edge_array(required, names, who, "required")
    is_discrete = np.asarray(sizes) > 0
    reasons = {
        "is forbidden too": edge_array(forbidden, names, who, "forbidden"),
        "leads to an earlier tier": _against(tiers, names, who),
        "leads from a number to a category, which is not searched": (
            ~is_discrete[:, None] & is_discrete
        ),
    }
    for reason, barred in reasons.items():
        both = named_edges(limits.required & barred, names)
        if both:
            raise ValueError(f"{who}: the required edge {both[0]} {reason}; take one out")
        limits.allowed[barred] = False
    refuse_circle(limits.required, names, f"{who}: the required edges go")
    n_parents = limits.required.sum(axis=0)
    if n_parents.max() > limits.max_parents:
        raise ValueError(
            f"{who}: {names[int(n_parents.argmax())]!r} has {n_parents.max()} required parents, "
            f"and max_parents is {limits.max_parents}; raise it, or require fewer"
        )
    return limits


def edge_array(edges: Any, names: Sequence[Any], who: str, setting: str) -> Flags:
    """Turn pairs (parent, child), or a directed graph, into an array (V, V).

    Raises
    ------
    ValueError
        If they are no list, or an edge is no pair of two columns.
    """
    if hasattr(edges, "is_directed"):
        if not edges.is_directed():
            raise ValueError(
                f"{who}: {setting} is undirected; expected a networkx.DiGraph, or pairs "
                "(parent, child)"
            )
        for name in edges.nodes:
            place_among(name, names, who, setting)
        edges = edges.edges
    if isinstance(edges, str) or not isinstance(edges, Collection):
        raise ValueError(
            f"{who}: {setting} is {edges!r}; expected a list of pairs (parent, child), or a "
            "networkx.DiGraph"
        )
    flags = np.zeros((len(names), len(names)), bool)
    for edge in edges:
        if isinstance(edge, str) or not isinstance(edge, Sequence) or len(edge) != 2:
            raise ValueError(
                f"{who}: {setting} has {edge!r}; expected pairs (parent, child), as in "
                f"{setting}=[({names[0]!r}, {names[-1]!r})]"
            )
        i, j = (place_among(name, names, who, setting) for name in edge)
        if i == j:
            raise ValueError(f"{who}: {setting} has {edge!r}, an edge from a node to itself")
        flags[i, j] = True
    return flags


def place_among(name: Any, names: Sequence[Any], who: str, setting: str) -> int:
    """Place of a column.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    try:
        return list(names).index(name)
    except ValueError:
        raise ValueError(
            f"{who}: {setting} names {name!r}, which is no column; the columns are {list(names)}"
        ) from None


def named_edges(edges: Flags, names: Sequence[Any]) -> list[Edge]:
    """List the edges by the names of their ends."""
    return [(names[i], names[j]) for i, j in zip(*edges.nonzero(), strict=True)]


def refuse_circle(edges: Flags, names: Sequence[Any], what: str) -> None:
    """Raise ValueError if the edges go round in a circle."""
    import networkx as nx

    graph = nx.DiGraph(named_edges(edges, names))
    if not nx.is_directed_acyclic_graph(graph):
        circle = [edge[0] for edge in nx.find_cycle(graph)]
        shown = " -> ".join(map(str, [*circle, circle[0]]))
        raise ValueError(f"{what} round in a circle: {shown}; take an edge out")


def _against(tiers: Sequence[Sequence[Any]] | None, names: Sequence[Any], who: str) -> Flags:
    """Edges from a later tier to an earlier one."""
    tier = np.full(len(names), np.nan)  # neither before nor after any
    for level, members in enumerate(tiers or ()):
        if isinstance(members, str) or not isinstance(members, Sequence):
            raise ValueError(
                f"{who}: tiers has {members!r}; expected lists of names, the earliest first, as in "
                f"tiers=[[{names[0]!r}], [{names[-1]!r}]]"
            )
        for name in members:
            place = place_among(name, names, who, "tiers")
            if not np.isnan(tier[place]):
                raise ValueError(f"{who}: tiers has {name!r} twice; each node has one tier")
            tier[place] = level
    return np.asarray(tier[:, None] > tier)
