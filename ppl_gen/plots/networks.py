"""Pictures of Bayesian networks: their graph, and what evidence says of each node."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ppl_gen.graph import draw_plates

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


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
        What `edge_confidence` gives: the wider an arrow, the larger its share of the bootstrap.
    ax : matplotlib.axes.Axes, optional

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
    import networkx as nx

    graph = getattr(model, "graph_", model)
    if evidence is not None and not hasattr(model, "query"):
        raise TypeError(
            f"plot_network: evidence needs a BayesianNetwork to ask, but model is a "
            f"{type(model).__name__}"
        )
    shares = {}
    if strength is not None:
        shares = dict(
            zip(
                zip(strength["source"], strength["target"], strict=True),
                strength["strength"],
                strict=True,
            )
        )
    drawn: nx.DiGraph[str] = nx.DiGraph()
    for node in nx.lexicographical_topological_sort(graph, key=list(graph).index):
        seen = evidence is not None and node in evidence
        note = "" if evidence is None else _note(model, node, evidence)
        drawn.add_node(str(node), kind="sample", observed=seen, plates=(), note=note)
    for parent, child in graph.edges:
        share = shares.get((parent, child), 1.0 if strength is None else 0.0)
        drawn.add_edge(
            str(parent), str(child), width=1.0 if strength is None else 0.3 + 2.7 * share
        )
    return draw_plates(drawn, ax=ax)


def _note(model: Any, node: Any, evidence: Mapping[Any, Any]) -> str:
    if node in evidence:
        return f"{evidence[node]}"
    found = model.query(node, evidence)
    if hasattr(found, "columns"):
        return f"{found['mean'].iloc[0]:.3g} ± {found['sd'].iloc[0]:.2g}"
    return f"{found.idxmax()} {found.max():.0%}"
