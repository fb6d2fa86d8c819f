"""What a Markov chain does in the long run: recurrence, hitting times, its graph."""

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
from sklearn.utils.validation import check_is_fitted

from ppl_gen.algorithms import markov
from ppl_gen.structures.markov_chain import ContextChain

Array = Any
_MANY = (list, set, np.ndarray)


class LongRun:
    """Questions to the transition matrix of a `MarkovChain` of order 1."""

    structure_: ContextChain
    states_: Array
    _who: str
    _n_draws: int
    _draw: Callable[[int], Any]

    def _over_matrices(self, asker: str, function: Callable[[Array], Array]) -> Array:
        """Mean of what a function says of the transition matrix of each draw."""
        check_is_fitted(self)
        if self.structure_.order != 1:
            raise ValueError(
                f"{self._who}.{asker}: the chain has order {self.structure_.order}; expected order "
                "1, whose states have a transition matrix; use forecast or sample"
            )
        rows = (self.structure_.rows(self._draw(s))[:-1] for s in range(self._n_draws))
        return np.asarray(np.mean([function(matrix) for matrix in rows], axis=0))

    def _point(self, asker: str) -> Array:
        return self._over_matrices(asker, lambda matrix: matrix)

    def stationary_distribution(self) -> Array:
        """Share of time spent in each state in the long run, of a chain of order 1: (K,).

        The mean over draws, after a Bayesian fit.

        Raises
        ------
        ValueError
            If there are several recurrent classes, so that the start decides.
        """
        self._point("stationary_distribution")
        if len(classes := self.recurrent_classes()) > 1:
            raise ValueError(
                f"{self._who}.stationary_distribution: there are {len(classes)} recurrent classes, "
                f"{', '.join(map(str, classes[:5]))}, and where the chain starts decides in which "
                "it stays; ask for absorption_probabilities, or join them by pseudocount > 0"
            )
        return self._over_matrices("stationary_distribution", markov.stationary_distribution)

    def hitting_times(self, targets: Any) -> Array:
        """Expected number of steps from each state to the first of some states: (K,).

        Zero from the targets themselves, infinite where they may never be reached. The mean over
        draws, after a Bayesian fit.

        Parameters
        ----------
        targets : state, or list of states
        """
        check_is_fitted(self)
        known = self.states_.tolist()
        wanted: list[Any] = list(targets) if isinstance(targets, _MANY) else [targets]
        strange = [state for state in wanted if state not in known]
        if strange or not wanted:
            raise ValueError(
                f"{self._who}.hitting_times: {strange or 'nothing'} is none of the states, "
                f"{', '.join(map(repr, known[:8]))}; give one of them, or a list of them"
            )
        places = [known.index(state) for state in wanted]
        return self._over_matrices("hitting_times", lambda m: markov.hitting_times(m, places))

    def recurrent_classes(self) -> list[list[Any]]:
        """Sets of states that are never left once entered; states in none are transient."""
        classes = markov.recurrent_classes(self._point("recurrent_classes"))
        return [self.states_[members].tolist() for members in classes]

    def absorption_probabilities(self) -> Array:
        """Probability, from each state, of ending in each of :meth:`recurrent_classes`: (K, C).

        Of the mean transition matrix, after a Bayesian fit.
        """
        return markov.absorption_probabilities(self._point("absorption_probabilities"))

    def is_irreducible(self) -> bool:
        """Tell whether every state is reached from every other, in a chain of order 1."""
        return markov.is_irreducible(self._point("is_irreducible"))

    def period(self) -> int:
        """Greatest common divisor of the lengths of all cycles; 1 is an aperiodic chain.

        Raises
        ------
        ValueError
            If the chain is reducible.
        """
        return markov.period(self._point("period"))

    def graph(self) -> "nx.DiGraph[Any]":
        """Return the transitions of a chain of order 1 that have a chance.

        Returns
        -------
        networkx.DiGraph
            Nodes are states, and edges have the attribute ``probability``.
        """
        matrix, states = self._point("graph"), self.states_.tolist()
        graph: nx.DiGraph[Any] = nx.DiGraph()
        graph.add_nodes_from(states)
        for i, j in zip(*np.nonzero(matrix), strict=True):
            graph.add_edge(states[i], states[j], probability=float(matrix[i, j]))
        return graph
