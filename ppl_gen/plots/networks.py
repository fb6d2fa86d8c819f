"""Pictures of Bayesian networks: their graph, and what evidence says of each node."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.algorithms.layered_layout import layered_layout

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Array = Any

# Lengths of the drawing, in inches; sizes of letters, in points.
HEIGHT, ROW = 0.5, 0.85
LETTERS, SMALL = 10.0, 7.5


def plot_network(
    model: Any,
    evidence: Mapping[Any, Any] | None = None,
    *,
    strength: "pd.DataFrame | None" = None,
    ax: Any = None,
) -> "Axes":
    """Draw the graph of a network, parents above their children.

    Parameters
    ----------
    model : BayesianNetwork or networkx.DiGraph
    evidence : dict of node to state (or number), optional
        Of a network: nodes with evidence are grey, and each node says what it has been seen to be,
        or what is likeliest, with its probability (of a number: its mean and deviation).
    strength : pandas.DataFrame, optional
        What `edge_confidence` gives: an arrow is as wide and dark as its share of the bootstrap.
    ax : matplotlib.axes.Axes, optional
        A new figure of fitting size by default; letters shrink to fit one that is given.

    Raises
    ------
    TypeError
        If there is evidence, but no network to ask.

    Examples
    --------
    >>> from ppl_gen import plots
    >>> from ppl_gen.datasets import load_asia
    >>> ax = plots.plot_network(load_asia(), {"xray": "yes"})
    >>> [text.get_text() for text in ax.texts if "lung" in text.get_text()]
    ['lung']
    """
    import matplotlib.pyplot as plt
    import networkx as nx
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse, FancyArrowPatch
    from matplotlib.path import Path

    graph = model if isinstance(model, nx.DiGraph) else model.graph_
    if evidence is not None and not hasattr(model, "query"):
        raise TypeError(
            f"plot_network: evidence needs a BayesianNetwork to ask, but model is a "
            f"{type(model).__name__}"
        )
    names = list(graph)
    notes = ["" if evidence is None else _note(model, name, evidence) for name in names]
    widths = [_width(str(name), note) for name, note in zip(names, notes, strict=True)]
    places = {name: v for v, name in enumerate(names)}
    layout = layered_layout(
        [[places[p] for p in graph.predecessors(name)] for name in names], widths
    )
    y = -ROW * layout.layer
    routes = {edge: _curve(route * (1.0, -ROW)) for edge, route in layout.routes.items()}
    reach = [route[:, 0] for route in routes.values()]
    half = 0.5 * np.array(widths)
    left = min([*(layout.x - half), *(r.min() for r in reach)], default=0.0) - 0.05
    right = max([*(layout.x + half), *(r.max() for r in reach)], default=1.0) + 0.05
    bottom, top = y.min(initial=0.0) - 0.5 * HEIGHT - 0.05, 0.5 * HEIGHT + 0.05
    if ax is None:
        figure = plt.figure(figsize=(right - left, top - bottom))
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    elif isinstance(ax.figure, Figure):
        ax.figure.draw_without_rendering()  # so that a layout knows its sizes
    box = ax.get_window_extent()
    room = min(box.width / (right - left), box.height / (top - bottom)) / ax.figure.dpi
    scale = min(room, 1.2)
    for v, name in enumerate(names):
        seen = evidence is not None and name in evidence
        centre = layout.x[v], y[v]
        face = "0.82" if seen else "white"
        ax.add_patch(Ellipse(centre, widths[v], HEIGHT, fc=face, ec="black", lw=scale, zorder=3))
        write = {"ha": "center", "va": "center", "zorder": 4}
        lift = 0.08 if notes[v] else 0.0
        ax.text(centre[0], centre[1] + lift, str(name), fontsize=LETTERS * scale, **write)
        if notes[v]:
            ax.text(
                centre[0], centre[1] - 0.1, notes[v], fontsize=SMALL * scale, color="0.3", **write
            )
    shares = _shares(strength)
    for (p, v), route in routes.items():
        share = 1.0 if strength is None else shares.get((names[p], names[v]), 0.0)
        ends = [
            np.hypot((route[:, 0] - layout.x[u]) / half[u], (route[:, 1] - y[u]) / (0.5 * HEIGHT))
            for u in (p, v)
        ]
        ax.add_patch(
            FancyArrowPatch(
                path=Path(route[(ends[0] > 1.0) & (ends[1] > 1.0)]),
                arrowstyle="-|>",
                mutation_scale=10.0 * scale,
                color="black" if strength is None else str(round(0.8 * (1.0 - share), 3)),
                lw=scale * (1.0 if strength is None else 0.5 + 1.7 * share),
                zorder=2,
            )
        )
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    ax.set_axis_off()
    return ax  # type: ignore[no-any-return]


def _note(model: Any, node: Any, evidence: Mapping[Any, Any]) -> str:
    if node in evidence:
        return f"{evidence[node]}"
    found = model.query(node, evidence)
    if hasattr(found, "columns"):
        return f"{found['mean'].iloc[0]:.3g} ± {found['sd'].iloc[0]:.2g}"
    return f"{found.idxmax()} {found.max():.0%}"


def _shares(strength: "pd.DataFrame | None") -> dict[tuple[Any, Any], float]:
    """Share of the bootstrap in which two nodes are joined."""
    if strength is None:
        return {}
    pairs = zip(strength["source"], strength["target"], strict=True)
    return dict(zip(pairs, strength["strength"], strict=True))


def _width(name: str, note: str) -> float:
    """Width of an ellipse that holds a name, and a note below it."""
    from matplotlib.textpath import TextPath

    widest = 0.0
    for text, size in ((name, LETTERS), (note, SMALL)):
        if text:
            plain = text.replace("$", "S")  # measured as letters, not as a formula
            widest = max(widest, TextPath((0, 0), plain, size=size).get_extents().width / 72.0)
    return max(0.6, 1.15 * widest + 0.2)


def _curve(points: Array) -> Array:
    """Points on a smooth curve through some: a straight line, or Hermite's cubics."""
    slopes = np.gradient(points, axis=0)
    if len(points) > 2:
        slopes[[0, -1]] = points[[1, -1]] - points[[0, -2]]
    t = np.linspace(0.0, 1.0, math.ceil(200 / (len(points) - 1)))[:, None]
    pieces = [
        (2 * t**3 - 3 * t**2 + 1) * a
        + (t**3 - 2 * t**2 + t) * da
        + (3 * t**2 - 2 * t**3) * b
        + (t**3 - t**2) * db
        for a, b, da, db in zip(points[:-1], points[1:], slopes[:-1], slopes[1:], strict=True)
    ]
    return np.concatenate(pieces)
