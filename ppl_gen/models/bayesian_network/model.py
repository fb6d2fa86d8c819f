"""The Bayesian network as an estimator: fitted, asked, drawn from, kept."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ppl_gen.algorithms.trees import tree_map
from ppl_gen.data import Rows, is_frame
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.conjugate import Conjugate
from ppl_gen.inference.em import EM
from ppl_gen.models.bayesian_network import reading
from ppl_gen.models.bayesian_network.building import (
    as_graph,
    cpds_of,
    given_numbers,
    given_parameters,
    graph_of,
    network_of_cpds,
    network_of_rows,
    read_cpds,
    refuse_unknown_states,
)
from ppl_gen.models.bayesian_network.causal import CausalQueries
from ppl_gen.models.bayesian_network.cpd import ConditionalDistribution
from ppl_gen.models.bayesian_network.files import NetworkFiles
from ppl_gen.models.bayesian_network.learners import ExactSearch, GraphLearner, HillClimb
from ppl_gen.models.bayesian_network.queries import Queries
from ppl_gen.models.bayesian_network.rows import NetworkRows
from ppl_gen.models.bayesian_network.training import (
    as_table,
    check_conjugate,
    check_rows,
    check_target,
    classes_of,
    refuse_text,
    warn_of_codes,
    with_target,
)
from ppl_gen.models.bayesian_network.tree_learners import ChowLiu, TreeAugmented
from ppl_gen.structures.bayesian_network.network import MAX_CELLS, Network

if TYPE_CHECKING:
    import networkx as nx

Array = Any
Parameters = dict[str, Any]


#: Learners that may be asked for by name.
LEARNERS: dict[str, type[GraphLearner]] = {
    "chow_liu": ChowLiu,
    "tree_augmented": TreeAugmented,
    "hill_climb": HillClimb,
    "exact_search": ExactSearch,
}


class BayesianNetwork(NetworkRows, Queries, CausalQueries, NetworkFiles):
    """A Bayesian network: a directed acyclic graph, and each node's distribution given its parents.

    Nodes are categories, with a table, or a softmax where a parent is a number; or numbers, with a
    normal distribution that is linear in the parents that are numbers, for each state of those that
    are not.

    Parameters
    ----------
    graph : networkx.DiGraph, list of (parent, child), learner or None
        A learner (`ChowLiu`, `TreeAugmented`, `HillClimb`, `ExactSearch`), or its name
        ("chow_liu", "tree_augmented", "hill_climb", "exact_search"), finds the graph in
        :meth:`fit`. None takes that of `cpds`.
    cpds : dict of node to TabularCPD, LinearGaussianCPD, SoftmaxCPD or array, optional
        With one for each node the network needs no fit; in a fit they are where EM starts.
    states : dict of node to sequence (or a number of states), optional
        States of hidden nodes, which no column shows; of columns of numbers that are codes; and the
        order of any. Otherwise those of a column's categories. Numbers without are continuous.
    prior : None, "bdeu", "k2", BDeu or float
        Prior count of every cell of a table, of a Dirichlet: of a float or "k2" (one) the same for
        all, of "bdeu" such that each table has 10 (`BDeu` says another number). None is maximum
        likelihood under EM, and Dirichlet(1) for posteriors. Point estimates add the prior counts
        to the rows': the mean of the posterior.
    target : name, optional
        The node that :meth:`predict`, :meth:`predict_proba` and `y` are about. The states of a `y`
        are sorted, as scikit-learn's metrics expect; declare them in another order only where
        those are not used.
    inference : str, EM, Conjugate, SVI, NUTS or None
        By default EM, which for complete rows is one pass. "conjugate" draws from the posterior
        itself, of complete rows.
    max_cells : int
        Cells of the largest table that exact inference may make; past it, it is refused with the
        figure.
    random_state : int, RandomState or None
    device : str
        For SVI and NUTS: "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of SVI and NUTS; by default float64.

    Attributes
    ----------
    graph_ : networkx.DiGraph
    graph_score_ : float
        Where a learner found the graph, its score of it, in nats: the greater the better.
    cpds_ : dict of node to its distribution
        At the posterior means, after a Bayesian fit.
    states_ : dict of node to tuple, or None of numbers
    parameters_ : dict of arrays
        With a leading axis of draws: one, after EM.
    posterior_ : Posterior
    classes_ : (C,)
        States of the target.
    n_iter_, converged_, lower_bound_, history_
        Of the last EM fit.

    Notes
    -----
    Inference is exact: Lauritzen & Spiegelhalter (JRSS B 50, 1988) for states, Lauritzen (JASA 87,
    1992) with numbers among them.

    Examples
    --------
    >>> import pandas as pd
    >>> from ppl_gen import BayesianNetwork
    >>> frame = pd.DataFrame({
    ...     "rain": ["no", "no", "no", "yes", "no", "yes"],
    ...     "grass": ["dry", "dry", "wet", "wet", "dry", "wet"],
    ... })
    >>> network = BayesianNetwork([("rain", "grass")], prior=1.0).fit(frame)
    >>> network.query("rain", {"grass": "wet"})
    rain
    no     0.425532
    yes    0.574468
    Name: probability, dtype: float64
    """

    methods: ClassVar[tuple[str, ...]] = ("em", "conjugate", "svi", "nuts")
    columns_first: ClassVar[bool] = True
    min_rows: ClassVar[int] = 1
    structure_kind: ClassVar[Any] = Network

    structure_: Network

    def __init__(
        self,
        graph: Any = None,
        cpds: Mapping[Any, Any] | None = None,
        *,
        states: Mapping[Any, Any] | None = None,
        prior: Any = None,
        target: Any = None,
        inference: str | InferenceMethod | None = None,
        max_cells: int = MAX_CELLS,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.graph = graph
        self.cpds = cpds
        self.states = states
        self.prior = prior
        self.target = target
        self.inference = inference
        self.max_cells = max_cells
        self.random_state = random_state
        self.device = device
        self.dtype = dtype
        self._plans: dict[Any, Any] = {}
        if cpds is not None or not self._is_learner:
            self._take_cpds()

    @property
    def _learner(self) -> Any:
        """What finds the graph, an object or its name; None where the graph is given."""
        if not isinstance(self.graph, str):
            return self.graph if hasattr(self.graph, "learn_codes") else None
        if self.graph not in LEARNERS:
            raise ValueError(
                f"{self._who}: graph is {self.graph!r}; expected a networkx.DiGraph, a list of "
                f"(parent, child), a learner such as HillClimb(), or one of the names "
                f"{list(LEARNERS)}"
            )
        return LEARNERS[self.graph]()

    @property
    def _is_learner(self) -> bool:
        return self.graph is None or self._learner is not None

    def _take_cpds(self) -> None:
        """Check the graph and the distributions; those of all nodes are a fit."""
        graph = None if self._is_learner else as_graph(self.graph)
        declared = reading.declared_states(self.states)
        if self.cpds is None:
            assert graph is not None  # with neither, there is nothing to take
            refuse_unknown_states(declared, graph)
            return
        graph, cpds = read_cpds(self.cpds, graph, declared)
        if len(cpds) < len(graph):
            return
        network = network_of_cpds(graph, cpds, self.max_cells)
        self._set(network, {str(v): cpds[n].parameters for v, n in enumerate(network.names)})

    def _set(self, network: Network, parameters: Parameters) -> None:
        """Take a network with its one set of parameters as the fit, in the place of any other."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        self.structure_ = network
        self.parameters_ = tree_map(lambda leaf: np.asarray(leaf)[None], parameters)
        self.schema_ = reading.schema_of_network(network)
        self._posterior: Any = None
        self._training: Any = None
        self._publish()

    def _publish(self) -> None:
        self._plans = {}
        if self.target is not None:
            check_target(self.target, self.states_)
            self.classes_ = reading.array_of(self.states_[self.target])

    def _declared(self) -> dict[Any, tuple[Any, ...]]:
        """States that were said beforehand, by themselves or with a distribution."""
        declared = reading.declared_states(self.states)
        if self.cpds is not None:
            graph = None if self._is_learner else as_graph(self.graph)
            for cpd in read_cpds(self.cpds, graph, declared)[1].values():
                for name, own in cpd.states.items():
                    declared.setdefault(name, own)
        return declared

    def set_params(self, **params: Any) -> Self:
        """Set settings by name; a bound, `max_cells`, and distributions for all nodes hold at once.

        Raises
        ------
        ValueError
            If there is no such setting, or distributions do not fit the graph. All stays as it was.
        """
        before = dict(self.__dict__)
        try:
            super().set_params(**params)
            if params.get("cpds") is not None:
                self._take_cpds()
        except BaseException:
            self.__dict__ = before
            raise
        if "max_cells" in params and self.__sklearn_is_fitted__():
            network = dataclasses.replace(self.structure_, max_cells=self.max_cells, _trees={})
            self.structure_ = network
            self._plans = {}
        return self

    # -- what it is ----------------------------------------------------------------------------

    @property
    def graph_(self) -> "nx.DiGraph":
        """The graph, with nodes and parents in their order."""
        check_is_fitted(self)
        return graph_of(self.structure_)

    @property
    def states_(self) -> dict[Any, tuple[Any, ...] | None]:
        """States of each node; None of numbers."""
        check_is_fitted(self)
        return dict(zip(self.structure_.names, self.structure_.states, strict=True))

    @property
    def cpds_(self) -> dict[Any, ConditionalDistribution]:
        """Each node's distribution given its parents."""
        check_is_fitted(self)
        return cpds_of(self.structure_, self._means())

    # -- fitting -------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the distributions, and find the graph where a learner is asked to.

        Parameters
        ----------
        X : table of (n, D)
            Columns are nodes, by name; nodes of the graph that are no columns are hidden. Arrays
            have the nodes in the graph's order. NaN (None, of states) is missing.
        y : (n,), optional
            States of the `target`, where X does not have it.
        sample_weight : (n,) or None
            Weights of the rows, for EM.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If the table, the graph, the states and the method do not go together. An earlier fit
            stays as it was.

        Warns
        -----
        UserWarning
            If columns of integers hold few values, which may be codes: they are taken as numbers,
            unless `states` declares theirs.
        RuntimeWarning
            If a column of numbers is constant.

        Examples
        --------
        >>> from ppl_gen import BayesianNetwork
        >>> from ppl_gen.datasets import load_asia
        >>> patients = load_asia().sample(500, random_state=0)[["smoke", "lung", "xray"]]
        >>> network = BayesianNetwork([("smoke", "lung"), ("lung", "xray")], prior="bdeu")
        >>> round(float(network.fit(patients).query("lung", {"xray": "yes"})["yes"]), 3)
        0.527
        """
        before = dict(self.__dict__)
        try:
            return self._fit(X, y, sample_weight)
        except BaseException:
            self.__dict__ = before
            raise

    def _resolved_method(self) -> InferenceMethod:
        named = self.inference
        if isinstance(named, str) and named.lower() not in self.methods:
            raise ValueError(
                f"{self._who}: method: unknown {named!r}; expected one of "
                f"{', '.join(map(repr, self.methods))}, or an object such as EM(); maximum "
                "likelihood is 'em', without a prior"
            )
        return super()._resolved_method()

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        method = self._resolved_method()
        X = with_target(as_table(X), y, self.target)
        refuse_text(X)
        declared = self._declared()
        if y is not None and self.target is not None:
            classes = classes_of(y)
            if classes is not None:
                declared.setdefault(self.target, classes)
        if is_frame(X):
            reading.refuse_duplicates(X)
        rows = self._read_rows(X, sample_weight, None)
        if not is_frame(X) and not self._is_learner:
            self.schema_ = reading.named_by_place(self.schema_, list(as_graph(self.graph)))
        schema, values = reading.declared_schema(self.schema_, rows.values, declared)
        states = declared | {
            name: declared.get(name, reading.states_of_column(column))
            for name, column in zip(schema.names, schema.columns, strict=True)
        }
        rng = self._rng()
        graph = self._graph_of(schema.names, values, states, rows.weights, rng)
        refuse_unknown_states(declared, graph)
        unseen = [name for name in graph if name not in states]
        if unseen:
            raise ValueError(
                f"{self._who}.fit: X has no column {unseen[0]!r}; its columns are {schema.names}. "
                f"If the node is hidden, declare its states: states={{{unseen[0]!r}: [...]}}"
            )
        strange = [name for name in schema.names if name not in graph]
        if strange:
            raise ValueError(
                f"{self._who}.fit: X has columns {strange} that are no nodes of the graph "
                f"({list(graph)}); drop them, or add the nodes"
            )
        x = values
        if schema.names != list(graph):
            x = np.full((len(rows), len(graph)), np.nan, order="F")
            for v, name in enumerate(graph):
                if name in schema.names:
                    x[:, v] = values[:, schema.names.index(name)]
        check_target(self.target, states)
        warn_of_codes(schema, values, {*declared, *given_numbers(self.cpds)})
        network = network_of_rows(graph, states, x, self.prior, self.target, self.max_cells)
        data = Rows(x, rows.weights)
        check_rows(network, x)
        network.check(x)
        if isinstance(method, Conjugate):
            check_conjugate(network, x)
        self._warn_constant(x, ~np.asarray(network.whole))
        self.schema_ = schema
        self._fit_structure(network, data, method)
        if "score" in graph.graph and self._is_learner:
            self.graph_score_ = float(graph.graph["score"])
        return self

    def _graph_of(
        self,
        names: list[Any],
        values: Array,
        states: Mapping[Any, Any],
        weights: Array | None,
        rng: np.random.Generator,
    ) -> "nx.DiGraph":
        """Return the graph that was given, implied by the distributions, or is learned."""
        if not self._is_learner:
            return as_graph(self.graph)
        if self.graph is None:
            if self.cpds is None:
                raise ValueError(
                    f"{self._who}.fit: there is no graph; give a networkx.DiGraph, a list of "
                    "(parent, child), or a learner such as HillClimb()"
                )
            return read_cpds(self.cpds, None, reading.declared_states(self.states))[0]
        sizes = [0 if states[name] is None else len(states[name]) for name in names]
        settings = {}
        learner = self._learner
        if hasattr(learner, "target") and learner.target is None:
            settings["target"] = self.target
        learned = learner.learn_codes(values, names, sizes, weights, rng, **settings)
        graph = as_graph(learned)
        graph.graph.update(learned.graph)
        return graph

    def _fit_em(
        self,
        structure: Network,
        data: Rows,
        method: EM,
        rng: np.random.Generator,
        device: str,
        start: Any,
    ) -> None:
        if method.engine not in ("auto", "numpy"):
            raise ValueError(
                f"{self._who}.fit: EM's engine is {method.engine!r}; networks have 'numpy'"
            )
        if not structure.is_one_pass(data):
            # Tables differ in shape by node: small steps, which are quickest on the CPU.
            super()._fit_em(structure, data, method, rng, "cpu", start)
            return
        method.check()
        statistics = structure.complete_statistics(data)
        parameters = structure.m_step(statistics)
        self.parameters_ = tree_map(lambda leaf: np.asarray(leaf)[None], parameters)
        log_likelihood = structure.log_likelihood(parameters, statistics)
        penalty = structure.penalty(parameters, statistics)
        self.n_iter_, self.converged_ = 1, True
        self.lower_bound_ = log_likelihood / data.total_weight
        self.history_ = np.array([(log_likelihood - penalty) / data.total_weight])
        self._posterior = None

    def _start(self, structure: Network, data: Rows, rng: np.random.Generator) -> Any:
        if self.cpds is None or structure.is_one_pass(data):
            return None
        _, cpds = read_cpds(self.cpds, graph_of(structure), reading.declared_states(self.states))
        given = given_parameters(structure, cpds)

        def start(random: np.random.Generator) -> Parameters:
            parameters: Parameters = structure.initialize(data, random, "kmeans")
            return parameters | given

        return start(rng) if len(cpds) == len(structure.names) else start

    def _coords(self, structure: Network) -> dict[str, list[Any]]:
        return structure.coords(list(structure.names))

    def _mode(self, structure: Network, data: Rows, rng: np.random.Generator) -> dict[str, Array]:
        with_prior = structure.with_prior()
        if with_prior.is_one_pass(data):
            return with_prior.sites(with_prior.m_step(with_prior.complete_statistics(data)))
        return super()._mode(structure, data, rng)
