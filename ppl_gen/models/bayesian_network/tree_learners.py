"""Learners of trees: the most likely tree, and naive Bayes with a tree among the features."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ppl_gen.algorithms.networks.structure_scores import Likelihood, LocalScores
from ppl_gen.algorithms.networks.structure_search import (
    Constraints,
    chow_liu,
    mutual_information,
    parents_of,
    tree_augmented,
)
from ppl_gen.models.bayesian_network.learners import GraphLearner
from ppl_gen.models.bayesian_network.limits import place_among

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["ChowLiu", "TreeAugmented"]

Array = Any


class ChowLiu(GraphLearner):
    """The tree of greatest likelihood.

    Parameters
    ----------
    root : name, optional
        The node from which the edges point away; by default the one that shares most information
        with the others. Every root gives the same distribution.

    Notes
    -----
    A maximum spanning tree of the mutual information of the columns, all of them discrete or all
    of them numbers, for which it is that of the normal distribution, -1/2 log(1 - rho^2).
    Columns that share nothing are joined as well. Edges carry ``mutual_information``, in nats; the
    score is the log likelihood.

    References
    ----------
    Chow & Liu (1968), Approximating discrete probability distributions with dependence trees, IEEE
    Transactions on Information Theory 14, 462-467.

    Examples
    --------
    >>> import pandas as pd
    >>> from ppl_gen import ChowLiu
    >>> frame = pd.DataFrame({"a": list("xxyyxy"), "b": list("uuvvuv"), "c": list("ststss")})
    >>> list(ChowLiu(root="a").learn(frame).edges)
    [('a', 'b'), ('a', 'c')]
    """

    def __init__(self, root: Any = None) -> None:
        self.root = root

    def learn_codes(
        self,
        values: Array,
        names: Sequence[Any],
        sizes: Sequence[int],
        weights: Array | None = None,
        rng: np.random.Generator | None = None,
        *,
        interactive: bool = True,
    ) -> "nx.DiGraph":
        """Find a tree for rows of codes; see :meth:`GraphLearner.learn_codes`."""
        scores = self.scores(values, names, sizes, weights, Likelihood())
        _refuse_mixed(scores, range(len(names)))
        root = None if self.root is None else place_among(self.root, names, scores.who, "root")
        information = mutual_information(scores)
        return _graph_of_tree(chow_liu(information, root), information, scores)


class TreeAugmented(GraphLearner):
    """Naive Bayes with a tree among the features: the one of greatest likelihood.

    Parameters
    ----------
    target : name, optional
        The class, the parent of all; in a `BayesianNetwork` by default the network's own target.

    Notes
    -----
    A maximum spanning tree of the information that features share given the target. The features
    are all discrete or all numbers. Edges carry ``mutual_information``, in nats, given the target
    where they are among features; the score is the log likelihood.

    References
    ----------
    Friedman, Geiger & Goldszmidt (1997), Bayesian network classifiers, Machine Learning 29,
    131-163, section 4.1.

    Examples
    --------
    >>> import pandas as pd
    >>> from ppl_gen import TreeAugmented
    >>> frame = pd.DataFrame({"y": list("xxyyxy"), "a": list("uuvvuv"), "b": list("ststss")})
    >>> sorted(TreeAugmented(target="y").learn(frame).edges)
    [('a', 'b'), ('y', 'a'), ('y', 'b')]
    """

    def __init__(self, target: Any = None) -> None:
        self.target = target

    def learn_codes(
        self,
        values: Array,
        names: Sequence[Any],
        sizes: Sequence[int],
        weights: Array | None = None,
        rng: np.random.Generator | None = None,
        *,
        interactive: bool = True,
        target: Any = None,
    ) -> "nx.DiGraph":
        """Find a tree for rows of codes; see :meth:`GraphLearner.learn_codes`.

        Parameters
        ----------
        values, names, sizes, weights, rng, interactive
            As there.
        target : name, optional
            The class, where the learner has none of its own.
        """
        place = self._target(names, target)
        scores = self.scores(values, names, sizes, weights, Likelihood())
        if not scores.sizes[place]:
            raise ValueError(
                f"{scores.who}: target {names[place]!r} is continuous; a class has states: declare "
                "them, or cut it into classes"
            )
        _refuse_mixed(scores, [v for v in range(len(names)) if v != place])
        information = mutual_information(scores, given=place)
        edges = tree_augmented(information, place)
        information[place] = mutual_information(scores)[place]
        return _graph_of_tree(edges, information, scores)

    def limits(self, names: Sequence[Any], sizes: Sequence[int]) -> Constraints:
        """The target is a parent of all; see :meth:`GraphLearner.limits`."""
        limits = Constraints.none(len(names))
        place = self._target(names, None)
        limits.required[place] = limits.allowed[place]
        limits.allowed[:, place] = False
        return limits

    def _target(self, names: Sequence[Any], given: Any) -> int:
        target = given if self.target is None else self.target
        if target is None:
            raise ValueError(
                "TreeAugmented.learn: there is no target; name the column that is the class, as in "
                "TreeAugmented(target='class')"
            )
        return place_among(target, names, "TreeAugmented.learn", "target")


def _refuse_mixed(scores: LocalScores, nodes: Iterable[int]) -> None:
    """Raise ValueError unless nodes are all discrete or all continuous.

    An edge from a number to a category has no place among the searched graphs, and most trees over
    both kinds would need one, whatever their root.
    """
    kinds: dict[bool, Any] = {scores.sizes[v] > 0: scores.names[v] for v in nodes}
    if len(kinds) > 1:
        raise ValueError(
            f"{scores.who}: {kinds[True]!r} is discrete and {kinds[False]!r} continuous, and a "
            "tree is over columns of one kind; cut the numbers into classes, or use HillClimb"
        )


def _graph_of_tree(
    edges: npt.NDArray[np.bool_], information: Array, scores: LocalScores
) -> "nx.DiGraph":
    import networkx as nx

    graph = nx.DiGraph(score=scores.sum(parents_of(edges)))
    graph.add_nodes_from(scores.names)
    for i, j in zip(*edges.nonzero(), strict=True):
        shared = float(information[i, j])
        graph.add_edge(scores.names[i], scores.names[j], mutual_information=shared)
    return graph
