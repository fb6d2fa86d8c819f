"""How sure the edges of a learned graph are, by the bootstrap."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state
from tqdm.auto import tqdm

from ppl_gen.algorithms.networks.structure_equivalence import essential_graph
from ppl_gen.models.bayesian_network.learners import GraphLearner, read_codes

if TYPE_CHECKING:
    import networkx as nx
    import pandas as pd

__all__ = ["averaged_network", "edge_confidence"]

Flags = npt.NDArray[np.bool_]


def edge_confidence(
    frame: Any,
    learner: GraphLearner,
    n_bootstrap: int = 200,
    random_state: Any = None,
    *,
    states: Mapping[Any, Any] | None = None,
) -> "pd.DataFrame":
    """Return how often edges, and their directions, are found in rows drawn anew.

    Parameters
    ----------
    frame : pandas or polars DataFrame
        As for ``learner.learn``.
    learner : ChowLiu, TreeAugmented, HillClimb or ExactSearch
        Learns once for each bootstrap sample.
    n_bootstrap : int
        Number of samples.
    random_state : int, RandomState or None
    states : dict of name to sequence (or a number of states), optional
        As for ``learner.learn``.

    Returns
    -------
    pandas.DataFrame
        A row for each ordered pair of columns: ``source``, ``target``; ``strength``, the share of
        graphs in which the two are joined; ``direction``, the share of these in which the edge runs
        from source to target, 0 if there are none. An edge whose direction the data cannot tell
        counts one half each way: directions are those that every equivalent graph shares, and those
        that were required, forbidden, or in tiers.

    Warns
    -----
    RuntimeWarning
        If Ctrl-C ended it early: the shares are of the samples so far.

    Raises
    ------
    ValueError
        If `n_bootstrap` is no positive whole number, and as ``learner.learn`` does.
    TypeError
        If `learner` is none.

    References
    ----------
    Friedman, Goldszmidt & Wyner (1999), Data analysis with Bayesian networks: a bootstrap approach,
    Uncertainty in Artificial Intelligence 15, 196-205. The table is that of bnlearn's
    ``boot.strength`` (Scutari 2010, Journal of Statistical Software 35(3)).

    Examples
    --------
    >>> import pandas as pd
    >>> from ppl_gen import HillClimb, edge_confidence
    >>> a = list("xxxxxxyyyyyy") * 10
    >>> frame = pd.DataFrame({"a": a, "b": a, "c": list("uv") * 60})
    >>> edge_confidence(frame, HillClimb(), n_bootstrap=20, random_state=0).head(2)
      source target  strength  direction
    0      a      b       1.0        0.5
    1      a      c       0.0        0.0
    """
    import pandas as pd

    whole = isinstance(n_bootstrap, int | np.integer) and not isinstance(n_bootstrap, bool)
    if not whole or n_bootstrap < 1:
        raise ValueError(f"edge_confidence: n_bootstrap is {n_bootstrap!r}; expected 1 or more")
    if not isinstance(learner, GraphLearner):
        raise TypeError(
            f"edge_confidence: learner is {learner!r}; expected ChowLiu(), TreeAugmented(...), "
            "HillClimb() or ExactSearch()"
        )
    names, values, sizes = read_codes(frame, states, "edge_confidence")
    seed = check_random_state(random_state).randint(2**31, size=4)
    rng = np.random.default_rng(seed)
    known = _known(learner, names, sizes)
    joined, directed = np.zeros((2, len(names), len(names)))
    n_done = 0
    try:
        for _ in tqdm(range(n_bootstrap), desc="edge confidence", delay=1.0):
            # How often each row is drawn: rows are weighted, not copied.
            weights = rng.multinomial(len(values), np.full(len(values), 1.0 / len(values)))
            graph = learner.learn_codes(
                values, names, sizes, weights.astype(np.float64), rng, interactive=False
            )
            possible = essential_graph(_edges(graph, names), known)
            joined += possible | possible.T
            directed += np.where(possible & possible.T, 0.5, possible)
            n_done += 1
    except KeyboardInterrupt:
        if not n_done:
            raise
        warnings.warn(
            f"edge_confidence: stopped by Ctrl-C after {n_done} of {n_bootstrap} samples; the "
            "shares are of these",
            RuntimeWarning,
            stacklevel=2,
        )
    sources, targets = np.nonzero(~np.eye(len(names), dtype=bool))
    together = joined[sources, targets]
    return pd.DataFrame(
        {
            "source": [names[i] for i in sources],
            "target": [names[j] for j in targets],
            "strength": together / n_done,
            "direction": directed[sources, targets] / np.maximum(together, 1.0),
        }
    )


def averaged_network(confidence: "pd.DataFrame", threshold: float | None = None) -> "nx.DiGraph":
    """Return the graph of the edges that are sure enough.

    Parameters
    ----------
    confidence : pandas.DataFrame
        As :func:`edge_confidence` gives it.
    threshold : float, optional
        Edges are stronger than this, or have strength one. By default it parts the strengths best
        into those of edges and those of none: the distribution of the strengths is compared, by
        the area between the two, with one that has strengths of 0 and 1 only.

    Returns
    -------
    networkx.DiGraph
        With ``strength`` and ``direction`` on its edges, and ``graph.graph["threshold"]``. Edges
        point the way they did more often, from the earlier column where it was the same.

    Raises
    ------
    ValueError
        If a column is lacking, or `threshold` is not within 0 and 1.

    Warns
    -----
    RuntimeWarning
        If edges are left out because, beside stronger ones, they would go round in a circle.

    References
    ----------
    Scutari & Nagarajan (2013), Identifying significant edges in graphical models of molecular
    networks, Artificial Intelligence in Medicine 57, 207-217.

    Examples
    --------
    >>> import pandas as pd
    >>> from ppl_gen import averaged_network
    >>> confidence = pd.DataFrame({
    ...     "source": ["a", "a", "b", "b", "c", "c"],
    ...     "target": ["b", "c", "a", "c", "a", "b"],
    ...     "strength": [0.95, 0.1, 0.95, 0.9, 0.1, 0.9],
    ...     "direction": [0.2, 0.5, 0.8, 0.6, 0.5, 0.4],
    ... })
    >>> averaged_network(confidence).edges
    OutEdgeView([('b', 'a'), ('b', 'c')])
    """
    import networkx as nx

    columns = ["source", "target", "strength", "direction"]
    lacking = sorted(set(columns) - set(confidence))
    if lacking:
        raise ValueError(
            f"averaged_network: the table lacks {lacking}; give what edge_confidence returns"
        )
    if threshold is None:
        threshold = significance_threshold(confidence["strength"].to_numpy())
    elif not 0.0 <= threshold <= 1.0:
        raise ValueError(f"averaged_network: threshold is {threshold!r}; expected 0 to 1")
    graph = nx.DiGraph(threshold=float(threshold))
    graph.add_nodes_from(dict.fromkeys([*confidence["source"], *confidence["target"]]))
    chosen = confidence[
        ((confidence["strength"] > threshold) | (confidence["strength"] == 1.0))
        & (confidence["direction"] >= 0.5)
    ].sort_values("strength", ascending=False, kind="stable")
    left_out = []
    for source, target, strength, direction in chosen[columns].itertuples(index=False):
        if graph.has_edge(target, source):
            continue  # one half each way
        if nx.has_path(graph, target, source):
            left_out.append((source, target))
        else:
            graph.add_edge(source, target, strength=strength, direction=direction)
    if left_out:
        warnings.warn(
            f"averaged_network: left out {', '.join(map(str, left_out))}, which with stronger "
            "edges would go round in a circle",
            RuntimeWarning,
            stacklevel=2,
        )
    return graph


def significance_threshold(strengths: npt.NDArray[np.float64]) -> float:
    """Return the strength above which edges are significant.

    The area between the distribution function of the strengths, a step function on [0, 1], and a
    constant t is least for t a weighted median of its steps, with their lengths as weights; the
    threshold is the t-th quantile of the strengths.
    """
    ends = np.unique(np.concatenate([[0.0], strengths, [1.0]]))
    heights = np.searchsorted(np.sort(strengths), ends[:-1], side="right") / len(strengths)
    lengths = np.diff(ends)
    t = heights[int(np.searchsorted(np.cumsum(lengths), lengths.sum() / 2.0))]
    return float(np.quantile(strengths, t, method="inverted_cdf"))


def _edges(graph: "nx.DiGraph", names: Sequence[Any]) -> Flags:
    places = {name: place for place, name in enumerate(names)}
    edges = np.zeros((len(names), len(names)), bool)
    for source, target in graph.edges:
        edges[places[source], places[target]] = True
    return edges


def _known(learner: GraphLearner, names: Sequence[Any], sizes: Sequence[int]) -> Flags:
    """Edges that can have but one direction, if they are there."""
    limits = learner.limits(names, sizes)
    return np.asarray(limits.required | ~limits.allowed.T)
