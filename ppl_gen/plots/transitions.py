"""Pictures of transitions between states."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.algorithms.markov import check_stochastic
from ppl_gen.plots.axes import axes_or_new, colour_of, names_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = Any


def plot_transitions(
    model: Any,
    *,
    names: Sequence[str] | None = None,
    at_least: float = 0.005,
    ax: Any = None,
) -> "Axes":
    """Draw the states and the probabilities of going from each to the next.

    The width of an arrow is the probability, which is written beside it; that of staying is at
    the loop. After a Bayesian fit it is the posterior mean.

    Parameters
    ----------
    model : HiddenMarkovModel, MarkovChain of order 1, or (K, K) array
        Fitted; or a transition matrix.
    names : K strings or None
        Of the states; by default those of the model, or their numbers.
    at_least : float
        Arrows of less are left out, by default those that would read 0.00.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    ValueError
        If the rows are no probabilities, or there are too many or too few names.

    Examples
    --------
    >>> from ppl_gen import plots
    >>> ax = plots.plot_transitions([[0.9, 0.1], [0.0, 1.0]], names=["alive", "dead"])
    >>> sorted(text.get_text() for text in ax.texts)
    ['0.10', '0.90', '1.00', 'alive', 'dead']
    """
    import networkx as nx
    from matplotlib.patches import Circle, FancyArrowPatch

    matrix = check_stochastic(getattr(model, "transmat_", model), "plot_transitions")
    if names is None and hasattr(model, "states_"):
        names = [str(state) for state in model.states_]
    labels = names_of(names, len(matrix), "plot_transitions")
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(matrix)))
    graph.add_edges_from(np.argwhere(matrix >= at_least).tolist())
    layout = _clockwise(nx.circular_layout(graph))

    ax = axes_or_new(ax, (5.0, 4.5))
    radius = min(0.33, 0.6 * np.sin(np.pi / max(len(matrix), 2)))
    for state, place in layout.items():
        ax.add_patch(Circle(tuple(place), radius, color=colour_of(state), alpha=0.5, lw=0.0))
        ax.text(*place, labels[state], ha="center", va="center")
    for source, target in graph.edges:
        a, b, bend, tag = _arrow(layout[source], layout[target], radius)
        share = matrix[source, target]
        ax.add_patch(
            FancyArrowPatch(
                a,
                b,
                arrowstyle="-|>",
                connectionstyle=f"arc3,rad={bend}",
                mutation_scale=8.0 + 6.0 * share,
                lw=0.5 + 2.5 * share,
                color="0.35",
                shrinkA=0.0,
                shrinkB=0.0,
            )
        )
        white = {"facecolor": "white", "alpha": 0.8, "lw": 0.0, "pad": 0.8}
        ax.text(*tag, f"{share:.2f}", ha="center", va="center", fontsize="small", bbox=white)
    places = np.array(list(layout.values()))
    low, high = places.min(axis=0), places.max(axis=0)
    ax.set(aspect="equal")
    ax.set_xlim(low[0] - 3.2 * radius, high[0] + 3.2 * radius)
    ax.set_ylim(low[1] - 3.2 * radius, high[1] + 3.2 * radius)
    ax.set_axis_off()
    return ax  # type: ignore[no-any-return]


def _clockwise(layout: dict[int, Array]) -> dict[int, Array]:
    """Lay states round a circle from its top; two side by side, and one in the middle."""
    if len(layout) == 1:
        return {0: np.zeros(2)}
    if len(layout) == 2:
        return {state: place * [-1.0, 1.0] for state, place in layout.items()}
    return {state: place[::-1] for state, place in layout.items()}


def _arrow(start: Array, end: Array, radius: float) -> tuple[Array, Array, float, Array]:
    """Where an arrow leaves one circle and meets the other, its bend, and the place of its label.

    A loop leaves away from the middle of the picture.
    """
    if np.array_equal(start, end):
        angle = np.arctan2(start[1], start[0]) if start.any() else 0.5 * np.pi
        a, b = (start + radius * _unit(angle + turn) for turn in (0.5, -0.5))
        return a, b, -2.6, start + 2.7 * radius * _unit(angle)
    angle = np.arctan2(*(end - start)[::-1])
    a = start + radius * _unit(angle - 0.35)
    b = end - radius * _unit(angle + 0.35)
    bend = 0.15
    # The curve is Bézier's, with one control point; a third of the way, labels of arrows that
    # cross in the middle of the picture stay apart.
    control = 0.5 * (a + b) + bend * np.array([b[1] - a[1], a[0] - b[0]])
    t = 0.32
    return a, b, bend, (1 - t) ** 2 * a + 2 * t * (1 - t) * control + t**2 * b


def _unit(angle: float) -> Array:
    return np.array([np.cos(angle), np.sin(angle)])
