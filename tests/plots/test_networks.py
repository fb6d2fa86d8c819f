"""Networks as pictures: every node and arrow, what they say, and where they end."""

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Ellipse, FancyArrowPatch
from sklearn.exceptions import NotFittedError

from ppl_gen import BayesianNetwork, LinearGaussianCPD, plots
from ppl_gen.datasets import load_alarm, load_asia


def parts(ax):
    arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    nodes = [patch for patch in ax.patches if isinstance(patch, Ellipse)]
    return arrows, nodes


def nearest(point, nodes):
    """The node whose border a point is closest to, and its distance in radii."""
    reach = [
        np.hypot(2 * (point[0] - n.center[0]) / n.width, 2 * (point[1] - n.center[1]) / n.height)
        for n in nodes
    ]
    return int(np.argmin(reach)), min(reach)


@pytest.mark.parametrize("make", [load_asia, load_alarm])
def test_every_edge_has_an_arrow_from_border_to_border(make):
    network = make()
    names = list(network.graph_)
    arrows, nodes = parts(plots.plot_network(network))
    found = set()
    for arrow in arrows:
        points = arrow._path_original.vertices
        ends = [nearest(points[end], nodes) for end in (0, -1)]
        # Drawn as a few hundred points, of which the first and last outside are taken.
        assert all(1.0 < reach < 1.2 for _, reach in ends)
        found.add(tuple(names[v] for v, _ in ends))
    assert len(nodes) == len(names)
    assert found == set(network.graph_.edges)


def test_names_fit_their_nodes():
    ax = plots.plot_network(load_alarm())
    ax.figure.draw_without_rendering()
    _, nodes = parts(ax)
    for text, node in zip(ax.texts, nodes, strict=True):
        written = text.get_window_extent().transformed(ax.transData.inverted())
        assert written.width < node.width


def test_evidence_is_grey_and_the_rest_says_what_is_likeliest():
    ax = plots.plot_network(load_asia(), {"xray": "yes"})
    _, nodes = parts(ax)
    written = [text.get_text() for text in ax.texts]
    assert len(written) == 16
    assert written[written.index("xray") + 1] == "yes"
    # As the query says: P(lung = yes | xray = yes) = 0.4887.
    assert written[written.index("lung") + 1] == "no 51%"
    grey = [tuple(node.get_facecolor())[:3] != (1.0, 1.0, 1.0) for node in nodes]
    assert grey == [name == "xray" for name in load_asia().graph_]


def test_numbers_say_their_mean_and_deviation():
    network = BayesianNetwork(
        cpds={
            "x": LinearGaussianCPD("x", 1.0, variance=4.0),
            "y": LinearGaussianCPD("y", 0.0, [2.0], 1.0, parents=["x"]),
        }
    )
    written = [text.get_text() for text in plots.plot_network(network, {"x": 3.0}).texts]
    assert written == ["x", "3.0", "y", "6 ± 1"]


def test_arrows_are_as_wide_as_they_are_sure():
    graph = nx.DiGraph([("a", "b"), ("a", "c"), ("b", "c")])
    sure = pd.DataFrame(
        {
            "source": ["a", "a", "c"],
            "target": ["b", "c", "b"],
            "strength": [1.0, 0.4, 0.7],
            "direction": [1.0, 1.0, 1.0],
        }
    )
    arrows, _ = parts(plots.plot_network(graph, strength=sure))
    widths = dict(zip(graph.edges, [arrow.get_linewidth() for arrow in arrows], strict=True))
    assert widths["a", "b"] > widths["a", "c"] > widths["b", "c"]


def test_letters_shrink_with_the_axes_that_are_given():
    _, axes = plt.subplots(1, 2, figsize=(10, 2), layout="constrained")
    ax = plots.plot_network(load_alarm(), ax=axes[0])
    assert ax is axes[0]
    assert ax.texts[0].get_fontsize() < 4.0


def test_graphs_without_edges_and_names_like_formulas():
    graph = nx.DiGraph()
    graph.add_nodes_from(["$cost", 3])
    ax = plots.plot_network(graph)
    assert [text.get_text() for text in ax.texts] == ["$cost", "3"]


def test_evidence_needs_a_network():
    with pytest.raises(TypeError, match="evidence needs a BayesianNetwork"):
        plots.plot_network(nx.DiGraph([("a", "b")]), {"a": 1})


def test_a_network_that_is_not_fitted_says_so():
    with pytest.raises(NotFittedError, match="not fitted"):
        plots.plot_network(BayesianNetwork([("a", "b")]))
