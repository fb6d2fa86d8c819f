"""Learners of graphs: settings that find the graph of a Bayesian network in a table."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from ppl_gen.algorithms.networks import structure_scores
from ppl_gen.algorithms.networks.structure_exact import exact_search
from ppl_gen.algorithms.networks.structure_scores import LocalScores, Score
from ppl_gen.algorithms.networks.structure_search import Constraints, Found, hill_climb
from ppl_gen.data import is_frame, read_frame
from ppl_gen.models.bayesian_network.limits import (
    edge_array,
    limits_of,
    named_edges,
    place_among,
    refuse_circle,
)
from ppl_gen.models.bayesian_network.reading import (
    declared_schema,
    declared_states,
    states_of_column,
)

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["BDeu", "ExactSearch", "GraphLearner", "HillClimb", "read_codes"]

Array = Any
Edge = tuple[Any, Any]


class BDeu(BaseEstimator):  # type: ignore[misc]
    """Score of a graph, and prior of its tables: Dirichlet, of one equivalent sample size.

    Parameters
    ----------
    equivalent_sample_size : float
        Rows that the prior is worth: each cell of a table has this over their number.

    References
    ----------
    Heckerman, Geiger & Chickering (1995), Learning Bayesian networks: the combination of knowledge
    and statistical data, Machine Learning 20, 197-243.

    Examples
    --------
    >>> from ppl_gen import BDeu, HillClimb
    >>> HillClimb(score=BDeu(1.0))
    HillClimb(score=BDeu(equivalent_sample_size=1.0))
    """

    def __init__(self, equivalent_sample_size: float = 10.0) -> None:
        self.equivalent_sample_size = equivalent_sample_size


class GraphLearner(BaseEstimator, ABC):  # type: ignore[misc]
    """Settings by which a graph is found; finding one never changes them."""

    def learn(self, frame: Any, states: Mapping[Any, Any] | None = None) -> "nx.DiGraph":
        """Find a graph for the columns of a table.

        Parameters
        ----------
        frame : pandas or polars DataFrame
            Complete: no value is missing. Categories, strings and booleans are discrete; numbers
            are continuous, unless their states are declared.
        states : dict of name to sequence (or a number of states), optional
            States of columns of numbers that are codes; and the order of any.

        Returns
        -------
        networkx.DiGraph
            Its nodes are the columns, in their order; ``graph.graph["score"]`` is its score.

        Raises
        ------
        TypeError
            If it is no DataFrame.
        ValueError
            If values are missing, or there are fewer than two columns.
        """
        names, values, sizes = read_codes(frame, states, f"{type(self).__name__}.learn")
        return self.learn_codes(values, names, sizes)

    @abstractmethod
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
        """Find a graph for rows of codes.

        Parameters
        ----------
        values : (n, V)
            Codes of discrete nodes, numbers of continuous ones.
        names : sequence of V
        sizes : sequence of V int
            States of each node; 0 for a continuous one.
        weights : (n,), optional
            How many times each row counts.
        rng : numpy.random.Generator, optional
            For a search that draws; its `random_state`, where it has one, comes first.
        interactive : bool
            Whether a bar shows the progress, and Ctrl-C ends a search with the best so far.

        Returns
        -------
        networkx.DiGraph
        """

    def limits(self, names: Sequence[Any], sizes: Sequence[int]) -> Constraints:
        """Which graphs it finds, by what was known beforehand.

        Parameters
        ----------
        names : sequence of V
        sizes : sequence of V int

        Raises
        ------
        ValueError
            If what is known does not fit the nodes, or itself.
        """
        return Constraints.none(len(names))

    def scores(
        self, values: Array, names: Sequence[Any], sizes: Sequence[int], weights: Any, score: Score
    ) -> LocalScores:
        """Return the local scores of a table that has two columns or more."""
        who = f"{type(self).__name__}.learn"
        if len(names) < 2:
            raise ValueError(f"{who}: the table has {len(names)} column; a graph needs two or more")
        values = np.asarray(values, np.float64)
        return LocalScores(values, sizes, score, weights, names, who)


class _Search(GraphLearner):
    """What searches by score have in common: the score, and what is known beforehand."""

    score: Any
    max_parents: int | None
    required: Collection[Edge]
    forbidden: Collection[Edge]
    tiers: Sequence[Sequence[Any]] | None

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
        """Find a graph for rows of codes; see :meth:`GraphLearner.learn_codes`."""
        import networkx as nx

        scores = self.scores(values, names, sizes, weights, self._resolved_score())
        limits = self.limits(names, sizes)
        _refuse_few_rows(scores, limits)
        found = self._find(scores, limits, rng, interactive)
        graph = nx.DiGraph(score=found.score)
        if found.history:
            graph.graph["history"] = found.history
        graph.add_nodes_from(names)
        graph.add_edges_from(named_edges(found.edges, names))
        return graph

    def limits(self, names: Sequence[Any], sizes: Sequence[int]) -> Constraints:
        """What is required, forbidden, and in tiers; see :meth:`GraphLearner.limits`."""
        return limits_of(
            f"{type(self).__name__}.learn",
            names,
            sizes,
            max_parents=self.max_parents,
            required=self.required,
            forbidden=self.forbidden,
            tiers=self.tiers,
        )

    @abstractmethod
    def _find(
        self,
        scores: LocalScores,
        limits: Constraints,
        rng: np.random.Generator | None,
        interactive: bool,
    ) -> Found: ...

    def _resolved_score(self) -> Score:
        named: dict[str, Score] = {
            "bic": structure_scores.BIC(),
            "aic": structure_scores.AIC(),
            "bdeu": structure_scores.BDeu(),
            "k2": structure_scores.K2(),
        }
        if isinstance(self.score, str) and self.score.lower() in named:
            return named[self.score.lower()]
        who = type(self).__name__
        if isinstance(self.score, BDeu):
            size = self.score.equivalent_sample_size
            if isinstance(size, bool) or not isinstance(size, int | float | np.number):
                size = math.nan
            if not 0.0 < size < math.inf:
                raise ValueError(
                    f"{who}: BDeu's equivalent_sample_size is "
                    f"{self.score.equivalent_sample_size!r}; expected a positive number"
                )
            return structure_scores.BDeu(float(size))
        raise ValueError(
            f"{who}: score is {self.score!r}; expected 'bic', 'aic', 'bdeu', 'k2' or an object "
            "such as BDeu(equivalent_sample_size=1.0)"
        )


class HillClimb(_Search):
    """Climb from graph to graph by adding, dropping and turning edges, past local maxima.

    Parameters
    ----------
    score : str or BDeu
        "bic", "aic", "bdeu" (equivalent sample size 10), "k2", or an object. Numbers are scored by
        "bic" or "aic".
    max_parents : int, optional
        The most parents that a node may have; by default any number.
    tabu : int
        How many of the last graphs are not entered again, and after how many moves without a better
        graph a climb ends; with 0 it ends at the first local maximum.
    restarts : int
        Further climbs, each from the best graph so far with edges dropped and turned at random.
    required, forbidden : list of (parent, child), or networkx.DiGraph
        Edges that the graph must have, or may not have.
    tiers : sequence of lists of names, optional
        A node of a later tier is never a parent of one in an earlier tier; those in none are free.
    start : networkx.DiGraph or list of (parent, child), optional
        Where the first climb starts; by default with the required edges alone.
    random_state : int, RandomState or None
        For the restarts; in a `BayesianNetwork` by default the network's own.

    Notes
    -----
    The scores, in nats, the greater the better: :mod:`ppl_gen.algorithms.networks.structure_scores`
    defines them. A discrete node has no continuous parents: such edges are not searched. Rows must
    be complete, and more than the parents that are numbers. Many directions cannot be told from
    data; :func:`~ppl_gen.edge_confidence` says which. ``graph.graph["history"]`` has the score
    after every move. Moves are of one edge at a time: parents that tell of a node only together,
    as in a parity, are mostly missed, which `ExactSearch` finds.

    References
    ----------
    Glover (1989), Tabu search, ORSA Journal on Computing 1, 190-206; Heckerman, Geiger & Chickering
    (1995), Machine Learning 20, 197-243.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from ppl_gen import HillClimb
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.integers(0, 2, (2, 500))
    >>> frame = pd.DataFrame({"a": a, "b": b, "both": a & b}).astype("category")
    >>> sorted(HillClimb("bdeu").learn(frame).edges)
    [('a', 'both'), ('b', 'both')]
    """

    def __init__(
        self,
        score: Any = "bic",
        max_parents: int | None = None,
        *,
        tabu: int = 10,
        restarts: int = 20,
        required: Collection[Edge] = (),
        forbidden: Collection[Edge] = (),
        tiers: Sequence[Sequence[Any]] | None = None,
        start: Any = None,
        random_state: Any = None,
    ) -> None:
        self.score = score
        self.max_parents = max_parents
        self.tabu = tabu
        self.restarts = restarts
        self.required = required
        self.forbidden = forbidden
        self.tiers = tiers
        self.start = start
        self.random_state = random_state

    def _find(
        self,
        scores: LocalScores,
        limits: Constraints,
        rng: np.random.Generator | None,
        interactive: bool,
    ) -> Found:
        for name in "tabu", "restarts":
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
                raise ValueError(
                    f"HillClimb: {name} is {value!r}; expected a whole number, 0 or more"
                )
        if rng is None or self.random_state is not None:
            state = check_random_state(self.random_state)
            rng = np.random.default_rng(state.randint(2**31, size=4))
        return hill_climb(
            scores,
            limits,
            self._start(scores, limits),
            tabu=int(self.tabu),
            restarts=int(self.restarts),
            rng=rng,
            interactive=interactive,
        )

    def _start(self, scores: LocalScores, limits: Constraints) -> npt.NDArray[np.bool_]:
        if self.start is None:
            return limits.required
        start = edge_array(self.start, scores.names, scores.who, "start")
        barred = named_edges(start & ~limits.allowed, scores.names)
        if barred:
            raise ValueError(
                f"{scores.who}: start has the edge {barred[0]}, which is not allowed (it is "
                "forbidden, against the tiers, or leads from a number to a category); take it out"
            )
        start |= limits.required
        refuse_circle(start, scores.names, f"{scores.who}: start, with what is required, goes")
        if start.sum(axis=0).max() > limits.max_parents:
            child = scores.names[int(start.sum(axis=0).argmax())]
            raise ValueError(
                f"{scores.who}: start gives {child!r} more than max_parents="
                f"{limits.max_parents} parents; take edges out, or raise it"
            )
        return start


class ExactSearch(_Search):
    """The graph of greatest score of all, for up to about 20 columns.

    Parameters
    ----------
    score : str or BDeu
        As in :class:`~ppl_gen.HillClimb`.
    max_parents : int, optional
        The most parents that a node may have; by default any number. A limit of 3 or 4 makes the
        search faster by far, and allows 22 columns.
    required, forbidden : list of (parent, child), or networkx.DiGraph
        Edges that the graph must have, or may not have.
    tiers : sequence of lists of names, optional
        A node of a later tier is never a parent of one in an earlier tier; those in none are free.

    Notes
    -----
    Dynamic programming over the 2^V sets of columns, each counted once; what it takes is worked out
    beforehand, and refused past 512 MiB or 1,048,576 tables. 15 columns take seconds and 18 a
    minute at the most, with 10,000 rows. Columns of both kinds take a table for each column and set
    of the others, V times as many. Ctrl-C gives up: there is no graph before the end.

    References
    ----------
    Silander & Myllymäki (2006), A simple approach for finding the globally optimal Bayesian network
    structure, Uncertainty in Artificial Intelligence 22, 445-452.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from ppl_gen import ExactSearch
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.integers(0, 2, (2, 500))
    >>> frame = pd.DataFrame({"a": a, "b": b, "both": a & b}).astype("category")
    >>> sorted(ExactSearch("bdeu").learn(frame).edges)
    [('a', 'both'), ('b', 'both')]
    """

    def __init__(
        self,
        score: Any = "bic",
        max_parents: int | None = None,
        *,
        required: Collection[Edge] = (),
        forbidden: Collection[Edge] = (),
        tiers: Sequence[Sequence[Any]] | None = None,
    ) -> None:
        self.score = score
        self.max_parents = max_parents
        self.required = required
        self.forbidden = forbidden
        self.tiers = tiers

    def _find(
        self,
        scores: LocalScores,
        limits: Constraints,
        rng: np.random.Generator | None,
        interactive: bool,
    ) -> Found:
        return exact_search(scores, limits, progress=interactive)


def _refuse_few_rows(scores: LocalScores, limits: Constraints) -> None:
    """Raise ValueError where a regression could go through every row: no end to its likelihood."""
    n_numbers, n_rows = scores.sizes.count(0), scores.columns.shape[1]
    k = min(limits.max_parents, n_numbers - 1)
    if n_numbers and n_rows < k + 3:
        raise ValueError(
            f"{scores.who}: {n_rows} rows are too few for regressions on up to {k} columns of "
            f"numbers, which need {k + 3}; give more rows, or set max_parents lower"
        )


def read_codes(
    frame: Any, states: Mapping[Any, Any] | None, who: str
) -> tuple[list[Any], Array, list[int]]:
    """Names, codes (n, V) and sizes of the columns of a table.

    Raises
    ------
    TypeError
        If it is no DataFrame.
    ValueError
        If states are declared of what is no column.
    """
    if not is_frame(frame):
        raise TypeError(
            f"{who}: got a {type(frame).__name__}; expected a pandas or polars DataFrame, whose "
            "columns are the nodes"
        )
    values, schema = read_frame(frame, who)
    names = list(schema.names)
    declared = declared_states(states)
    for name in declared:
        place_among(name, names, who, "states")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{who}: two columns are called {twice!r}; rename one")
    schema, values = declared_schema(schema, values, declared)
    columns = zip(names, schema.columns, strict=True)
    own = [declared.get(name, states_of_column(column)) for name, column in columns]
    return names, values, [0 if listed is None else len(listed) for listed in own]
