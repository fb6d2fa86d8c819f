"""Programs as graphs: who depends on whom, and the drawing in plate notation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import networkx as nx

from ppl_gen import engines
from ppl_gen.engines.base import Engine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ppl_gen.language import Program

Plates = tuple[tuple[str, int], ...]

# Lengths of the drawing, in inches.
_NODE_HEIGHT = 0.62
_LETTER = 0.085
_GAP_X, _GAP_Y = 0.3, 0.5
_PAD, _LABEL = 0.18, 0.3

#: How much an arrow may bend, the least first, and the points at which we look for collisions.
_BENDS = (0.0, 0.15, -0.15, 0.3, -0.3, 0.45, -0.45, 0.6, -0.6)
_STEPS = 60


def program_engine(program: Program, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Engine:
    """Return the engine that a program runs on: NumPyro, or Pyro where NumPyro lacks a part."""
    numpyro = engines.get("numpyro")
    try:
        numpyro.outline(program.numpyro, args, kwargs)
    except AttributeError:
        # A distribution or function that only Pyro has; Pyro raises if it lacks it as well.
        return engines.get("pyro")
    return numpyro


def dependency_graph(
    program: Program, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> nx.DiGraph[str]:
    """Return the sites of a program and their direct dependencies; see `Program.graph`."""
    engine = program_engine(program, args, kwargs)
    model = program.native(engine.name)
    parents = engine.dependencies(model, args, kwargs)
    graph: nx.DiGraph[str] = nx.DiGraph(name=program.name)
    trace = engine.outline(model, args, kwargs)
    for name, site in trace.items():
        graph.add_node(
            name,
            kind=site.kind,
            observed=site.observed,
            latent=site.kind == "sample" and not site.observed,
            discrete=site.discrete,
            # A plate takes the next batch axis to the left, so the last axis is the outermost.
            plates=site.plates[::-1],
            distribution=site.distribution,
        )
    # Parents in the order of the program, so that the same program gives the same drawing.
    for name in trace:
        graph.add_edges_from((p, name) for p in trace if p in parents.get(name, ()))
    return graph


@dataclass
class _Box:
    """A site, or a plate with what is inside; the origin is the lower left corner."""

    name: str
    width: float = 0.0
    height: float = _NODE_HEIGHT
    x: float = 0.0
    y: float = 0.0
    plate: tuple[str, int] | None = None
    inside: list[_Box] = field(default_factory=list)

    def shift(self, x: float, y: float) -> None:
        """Move the box with what is inside."""
        self.x, self.y = self.x + x, self.y + y
        for box in self.inside:
            box.shift(x, y)


def _layout(graph: nx.DiGraph[str], names: Sequence[str], outer: Plates) -> _Box:
    """Lay out the sites of one plate: rows by depth, inner plates as single boxes.

    Boxes of different plates cannot overlap, because an inner plate is laid out first and takes
    its place in a row as a whole.
    """
    depth = len(outer)
    groups: dict[str, list[str]] = {}
    for name in names:
        plates = graph.nodes[name]["plates"]
        key = f"plate {plates[depth][0]}" if len(plates) > depth else name
        groups.setdefault(key, []).append(name)
    boxes = {}
    for key, members in groups.items():
        plates = graph.nodes[members[0]]["plates"]
        if len(plates) > depth:
            boxes[key] = _layout(graph, members, plates[: depth + 1])
        else:
            width = max(0.8, 0.35 + _LETTER * max(len(line) for line in _lines(graph, key)))
            boxes[key] = _Box(key, width)
    owner = {name: key for key, members in groups.items() for name in members}
    box = _Box(outer[-1][0] if outer else "", plate=outer[-1] if outer else None)
    box.inside = list(boxes.values())
    _stack_rows(box, _rows(graph, owner), boxes, graph, owner)
    return box


def _rows(graph: nx.DiGraph[str], owner: Mapping[str, str]) -> list[list[str]]:
    """Return the groups by depth; between groups that depend on each other, the first is above."""
    order = list(dict.fromkeys(owner.values()))
    depth = dict.fromkeys(order, 0)
    for key in order:
        for child, other in owner.items():
            if other != key and order.index(other) > order.index(key):
                linked = any(owner.get(p) == key for p in graph.predecessors(child))
                if linked:
                    depth[other] = max(depth[other], depth[key] + 1)
    # A root sits just above its first child rather than at the top.
    for key in reversed(order):
        children = {
            depth[owner[c]]
            for name in owner
            if owner[name] == key
            for c in graph.successors(name)
            if owner.get(c, key) != key and order.index(owner[c]) > order.index(key)
        }
        if children:
            depth[key] = max(depth[key], min(children) - 1)
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for key in order:
        rows[depth[key]].append(key)
    return rows


def _stack_rows(
    box: _Box,
    rows: list[list[str]],
    boxes: Mapping[str, _Box],
    graph: nx.DiGraph[str],
    owner: Mapping[str, str],
) -> None:
    """Place rows from the bottom up, each ordered by the places of its children, and centred."""
    pad, label = (_PAD, _LABEL) if box.plate is not None else (0.0, 0.0)
    title = 0.3 + _LETTER * len(_plate_label(box.plate)) if box.plate is not None else 0.0
    widths = [sum(boxes[k].width for k in row) + _GAP_X * (len(row) - 1) for row in rows]
    box.width = max([*widths, title]) + 2 * pad
    centre: dict[str, float] = {}
    y = pad + label
    for row, width in zip(reversed(rows), reversed(widths), strict=True):
        x = (box.width - width) / 2
        tallest = max(boxes[key].height for key in row)
        for key in sorted(row, key=lambda k: _barycentre(k, graph, owner, centre, box.width / 2)):
            boxes[key].shift(x, y + (tallest - boxes[key].height) / 2)
            for name, middle in _centres(boxes[key]):
                centre[name] = middle
            x += boxes[key].width + _GAP_X
        y += tallest + _GAP_Y
    box.height = y - _GAP_Y + pad


def _barycentre(
    key: str,
    graph: nx.DiGraph[str],
    owner: Mapping[str, str],
    centre: Mapping[str, float],
    default: float,
) -> float:
    members = [name for name, other in owner.items() if other == key]
    places = [centre[c] for name in members for c in graph.successors(name) if c in centre]
    return sum(places) / len(places) if places else default


def _centres(box: _Box) -> list[tuple[str, float]]:
    if box.plate is None:
        return [(box.name, box.x + box.width / 2)]
    return [pair for inner in box.inside for pair in _centres(inner)]


def _lines(graph: nx.DiGraph[str], name: str) -> list[str]:
    distribution = graph.nodes[name]["distribution"]
    return [name] if distribution is None else [name, f"~ {distribution}"]


def _plate_label(plate: tuple[str, int]) -> str:
    return f"{plate[0]}: {plate[1]}"


def draw_plates(graph: nx.DiGraph[str], *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw a graph of `Program.graph` in plate notation.

    Parameters
    ----------
    graph : networkx.DiGraph
    ax : matplotlib Axes, optional
        A new figure of fitting size by default.
    title : str
    """
    import matplotlib.pyplot as plt

    page = _layout(graph, list(graph), ())
    if ax is None:
        _, ax = plt.subplots(
            figsize=(max(page.width + 0.3, 2.0), page.height + 0.7), layout="constrained"
        )
    nodes: dict[str, _Box] = {}
    _draw_boxes(ax, page, graph, nodes, level=0)
    low, high = 0.0, page.width
    for parent, child in graph.edges:
        others = [box for name, box in nodes.items() if name not in (parent, child)]
        reach = _draw_edge(ax, nodes[parent], nodes[child], others)
        low, high = min(low, *reach), max(high, *reach)
    ax.set_xlim(low - 0.1, high + 0.1)
    ax.set_ylim(-0.1, page.height + 0.1)
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_title(title)
    return ax


def _draw_boxes(
    ax: Axes, box: _Box, graph: nx.DiGraph[str], nodes: dict[str, _Box], level: int
) -> None:
    from matplotlib.patches import FancyBboxPatch

    if box.plate is not None:
        rounding = "round,pad=0,rounding_size=0.12"
        ax.add_patch(
            FancyBboxPatch(
                (box.x, box.y), box.width, box.height, boxstyle=rounding, fc="none", ec="0.45"
            )
        )
        ax.text(
            box.x + box.width - 0.1,
            box.y + 0.09,
            _plate_label(box.plate),
            ha="right",
            va="bottom",
            fontsize=9,
            color="0.3",
        )
    for inner in box.inside:
        if inner.plate is None:
            nodes[inner.name] = inner
            _draw_node(ax, inner, graph)
        else:
            _draw_boxes(ax, inner, graph, nodes, level + 1)


def _draw_node(ax: Axes, box: _Box, graph: nx.DiGraph[str]) -> None:
    from matplotlib.patches import Ellipse, Rectangle

    site = graph.nodes[box.name]
    x, y = box.x + box.width / 2, box.y + box.height / 2
    face = "0.82" if site["observed"] else "white"
    dashed = "--" if site["kind"] == "deterministic" else "-"
    if site["kind"] in ("factor", "param"):
        size = box.height * 0.8
        ax.add_patch(
            Rectangle((box.x, y - size / 2), box.width, size, fc=face, ec="black", zorder=3)
        )
    else:
        ax.add_patch(
            Ellipse((x, y), box.width, box.height, fc=face, ec="black", ls=dashed, zorder=3)
        )
    name, *rest = _lines(graph, box.name)
    lift = 0.1 if rest else 0.0
    ax.text(x, y + lift, name, ha="center", va="center", fontsize=10, zorder=4)
    for line in rest:
        ax.text(x, y - 0.12, line, ha="center", va="center", fontsize=7, color="0.3", zorder=4)


def _draw_edge(ax: Axes, parent: _Box, child: _Box, others: Sequence[_Box]) -> tuple[float, ...]:
    """Draw an arrow between two nodes, bent around those in its way; return where it goes in x."""
    from matplotlib.patches import FancyArrowPatch

    bend = min(_BENDS, key=lambda b: sum(_hits(_curve(parent, child, b), o) for o in others))
    points = _curve(parent, child, bend)
    outside = [p for p in points if _reach(parent, p) > 1.0 and _reach(child, p) > 1.0]
    start, end = outside[0], outside[-1]
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=11,
            shrinkA=0,
            shrinkB=0,
            color="black",
            zorder=2,
        )
    )
    return tuple(x for x, _ in points)


def _curve(parent: _Box, child: _Box, bend: float) -> list[tuple[float, float]]:
    """Return points of matplotlib's arc3 between two centres: a quadratic Bezier curve."""
    (x0, y0), (x1, y1) = _centre(parent), _centre(child)
    cx = (x0 + x1) / 2 + bend * (y1 - y0)
    cy = (y0 + y1) / 2 - bend * (x1 - x0)
    points = []
    for step in range(1, _STEPS):
        t = step / _STEPS
        a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t**2
        points.append((a * x0 + b * cx + c * x1, a * y0 + b * cy + c * y1))
    return points


def _centre(box: _Box) -> tuple[float, float]:
    return box.x + box.width / 2, box.y + box.height / 2


def _reach(box: _Box, point: tuple[float, float]) -> float:
    """Return the distance from the centre of an ellipse; one on its border."""
    x, y = _centre(box)
    return math.hypot(2 * (point[0] - x) / box.width, 2 * (point[1] - y) / box.height)


def _hits(points: Sequence[tuple[float, float]], box: _Box) -> int:
    """Count the points within a node or close to it."""
    return sum(_reach(box, point) < 1.1 for point in points)
