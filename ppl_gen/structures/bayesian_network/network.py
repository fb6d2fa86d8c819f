"""A Bayesian network over rows: its density, its EM protocol, its draws.

Discrete nodes that are missing are summed out by a junction tree, after each row's observed codes
have cut the tables. Numbers, given the discrete nodes, are jointly normal: those that are missing
are integrated out first, a connected group of them at a time, which leaves a factor over the
discrete parents of the group. That is the strong junction tree of Lauritzen (JASA 87, 1992): its
strong root is the discrete nodes.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace
from ppl_gen.algorithms.networks.junction_tree import JunctionTree
from ppl_gen.algorithms.networks.scan import topological_order
from ppl_gen.algorithms.row_chunks import CHUNK_ROWS, map_rows
from ppl_gen.algorithms.trees import tree_sum
from ppl_gen.data import Rows
from ppl_gen.engines.base import RandomSource
from ppl_gen.engines.random_source import NumPyRandom
from ppl_gen.language import Program
from ppl_gen.structures.bayesian_network.conditionals import (
    LinearGaussian,
    NodeConditional,
    Tabular,
)
from ppl_gen.structures.bayesian_network.density import log_density, refuse_huge, with_set_numbers
from ppl_gen.structures.bayesian_network.gaussian_groups import GaussianGroup, gaussian_groups
from ppl_gen.structures.bayesian_network.inference import NetworkEvidence, own_statistics
from ppl_gen.structures.bayesian_network.program import (
    network_coords,
    network_parameters,
    network_program,
    network_sites,
)
from ppl_gen.structures.bayesian_network.softmax import Softmax

Array = Any
Parameters = dict[str, Any]
Statistics = dict[str, Any]

#: Cells of the tables of numbers by row and joint state that are made at once.
PART_CELLS = 2**22
#: Cells of a table that inference makes, at most, unless the model says otherwise.
MAX_CELLS = 2**26
#: What to do where a query is past that.
DRAWS = "ask query for method='likelihood_weighting' or 'gibbs'"


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A directed acyclic graph with a conditional distribution at every node.

    Parameters
    ----------
    names : tuple of V
    states : tuple of V
        Names of the states of each discrete node; None for numbers.
    conditionals : tuple of V
        Of each node given its parents, whose places these hold.
    parents : tuple of V tuples of int
        In the order of the graph, discrete ones and numbers together.
    hidden : tuple of int
        Nodes that are missing in some of the training rows.
    latent_node : int, optional
        The discrete node that is asked for: hidden, or to be predicted.
    max_cells : int
        Cells of a table that inference makes, at most.

    Notes
    -----
    Parameters are ``{"<place>": {...}}``, those of each node as its conditional has them; they add
    a leading axis for draws. Rows (n, V) hold codes of states, and numbers; NaN is missing.
    """

    names: tuple[Any, ...]
    states: tuple[tuple[Any, ...] | None, ...]
    conditionals: tuple[NodeConditional, ...]
    parents: tuple[tuple[int, ...], ...]
    hidden: tuple[int, ...] = ()
    latent_node: int | None = None
    max_cells: int = MAX_CELLS
    _trees: dict[Any, JunctionTree] = dataclasses.field(default_factory=dict, repr=False)

    #: EM's steps and tolerance: hidden nodes make it slow.
    em_settings: ClassVar[dict[str, Any]] = {"max_iter": 1000, "tol": 1e-7}

    def __post_init__(self) -> None:
        for group in self.groups:
            if group.n_configurations > self.max_cells:
                raise ValueError(
                    f"BayesianNetwork: the numbers {[self.names[v] for v in group.nodes]} have "
                    f"{group.n_configurations:,} joint states of their discrete parents, past the "
                    f"bound max_cells={self.max_cells:,}; remove arcs, or raise max_cells"
                )

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of states of each node; 0 of numbers."""
        return tuple(0 if states is None else len(states) for states in self.states)

    @functools.cached_property
    def discrete(self) -> tuple[int, ...]:
        """Places of the discrete nodes."""
        return tuple(v for v, size in enumerate(self.sizes) if size)

    @functools.cached_property
    def groups(self) -> tuple[GaussianGroup, ...]:
        """Connected groups of numbers."""
        return gaussian_groups(self.conditionals)

    @functools.cached_property
    def order(self) -> tuple[int, ...]:
        """The nodes, parents before children."""
        return topological_order(self.parents)

    @property
    def whole(self) -> tuple[bool, ...]:
        """Which columns hold codes."""
        return tuple(bool(size) for size in self.sizes)

    @property
    def n_columns(self) -> int:
        """V."""
        return len(self.names)

    def tree(self, scopes: tuple[tuple[int, ...], ...]) -> JunctionTree:
        """Return the junction tree of some factors, made once.

        Raises
        ------
        ValueError
            If its largest table is past `max_cells`.
        """
        tree = self._trees.get(scopes)
        if tree is None:
            inside = {v for scope in scopes for v in scope}
            sizes = [size if v in inside else 1 for v, size in enumerate(self.sizes)]
            tree = JunctionTree(scopes, sizes)
            self.refuse_past_bound(tree.cost)
            self._trees[scopes] = tree
        return tree

    def refuse_past_bound(self, cost: Any, instead: str = DRAWS) -> None:
        """Raise ValueError if the largest table is past `max_cells`, with the figures.

        And with what to do `instead`.
        """
        if cost.largest > self.max_cells:
            raise ValueError(
                f"BayesianNetwork: exact inference needs a table of {cost.largest:,} cells "
                f"({8 * cost.largest / 2**30:,.1f} GiB, over {cost.width + 1} nodes), past the "
                f"bound max_cells={self.max_cells:,}; {instead}, give more evidence, or raise "
                "max_cells"
            )

    # -- as an artefact ------------------------------------------------------------------------

    def to_tree(self) -> dict[str, Any]:
        """Return the network as plain data, for an artefact."""
        kinds = [c.kind for c in self.conditionals]
        fields = [
            {f.name: getattr(c, f.name) for f in dataclasses.fields(c)} for c in self.conditionals
        ]
        return {
            "names": list(self.names),
            "states": [None if s is None else list(s) for s in self.states],
            "kinds": kinds,
            "conditionals": fields,
            "parents": [list(p) for p in self.parents],
            "hidden": list(self.hidden),
            "latent_node": self.latent_node,
            "max_cells": self.max_cells,
        }

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "Network":
        """Return the network that :meth:`to_tree` gave."""
        conditionals = []
        for kind, fields in zip(tree["kinds"], tree["conditionals"], strict=True):
            settings = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
            conditionals.append(CONDITIONALS[kind](**settings))
        return cls(
            names=tuple(tree["names"]),
            states=tuple(None if s is None else tuple(s) for s in tree["states"]),
            conditionals=tuple(conditionals),
            parents=tuple(tuple(p) for p in tree["parents"]),
            hidden=tuple(tree["hidden"]),
            latent_node=tree["latent_node"],
            max_cells=tree["max_cells"],
        )

    def with_prior(self) -> "Network":
        """Return the network with the default prior where it has none, for EM."""
        priors = tuple(c.with_prior() for c in self.conditionals)
        return dataclasses.replace(self, conditionals=priors, _trees=self._trees)

    def n_free(self) -> int:
        """Number of free parameters, as AIC and BIC count them."""
        return sum(c.n_free for c in self.conditionals)

    # -- density -------------------------------------------------------------------------------

    @functools.cached_property
    def below(self) -> tuple[tuple[Softmax, tuple[int, ...]], ...]:
        """Each softmax node with itself and its descendants."""
        found = []
        for conditional in self.conditionals:
            if isinstance(conditional, Softmax):
                below = {conditional.node}
                for v in self.order:
                    if below.intersection(self.parents[v]):
                        below.add(v)
                found.append((conditional, tuple(sorted(below))))
        return tuple(found)

    def check(self, x: Array, asked: Sequence[int] = (), instead: str = "") -> None:
        """Raise ValueError for rows (n, V) whose density is not to be had exactly.

        That is where a softmax depends on a number that is missing, and anything is known below
        it, or `asked` of, or has soft evidence, which `asked` then names too. The error says what
        to do `instead`. And for numbers so large that they have no density.
        """
        instead = instead or (
            "give its value, or ask query for method='likelihood_weighting' (impute for n_draws)"
        )
        refuse_huge(self, x)
        x = with_set_numbers(self, x)
        for conditional, below in self.below:
            missing = np.isnan(x[:, conditional.regressors])
            rows = missing.any(axis=1)
            known = ~np.isnan(x[rows][:, below]).all()
            if rows.any() and (known or set(below).intersection(asked)):
                parent = self.names[conditional.regressors[int(missing.any(axis=0).argmax())]]
                raise ValueError(
                    f"BayesianNetwork: {parent!r} is missing, a number on which the states of "
                    f"{self.names[conditional.node]!r} depend by a softmax, which has no exact "
                    f"integral over it; {instead}"
                )

    def evidence(
        self, parameters: Parameters, x: Array, likelihoods: dict[int, Array] | None = None
    ) -> list[tuple[Array, NetworkEvidence]]:
        """Return what rows say, in parts: places of the rows, and their evidence."""
        return list(self.evidence_by_part(parameters, x, likelihoods))

    def evidence_by_part(
        self, parameters: Parameters, x: Array, likelihoods: dict[int, Array] | None = None
    ) -> Iterator[tuple[Array, NetworkEvidence]]:
        """Yield what rows say, in parts of one pattern of gaps whose tables fit in memory."""
        x = with_set_numbers(self, x)
        for rows in self._parts(np.isnan(x)):
            own = {
                v: likelihood if np.ndim(likelihood) == 1 else likelihood[rows]
                for v, likelihood in (likelihoods or {}).items()
            }
            yield rows, NetworkEvidence(self, parameters, x[rows], own)

    def _parts(self, missing: Array) -> Iterator[Array]:
        """Yield the places of rows that lack numbers of the same groups."""
        if not self.groups:
            yield np.arange(len(missing))
            return
        gaps = np.stack([missing[:, g.nodes].any(axis=1) for g in self.groups], axis=1)
        patterns, which = np.unique(gaps, axis=0, return_inverse=True)
        for pattern, lacking in enumerate(patterns):
            rows = np.flatnonzero(which == pattern)
            opened = missing[rows].any(axis=0)
            # Of a group with gaps, each row meets the states that are open; of others all.
            cells = max(
                math.prod(
                    size
                    for v, size in zip(group.boundary, group.sizes, strict=True)
                    if opened[v] or not gap
                )
                * len(group.nodes)
                for group, gap in zip(self.groups, lacking, strict=True)
            )
            step = max(1, PART_CELLS // cells)
            for start in range(0, len(rows), step):
                yield rows[start : start + step]

    def log_evidence(self, parameters: Parameters, x: Array) -> Array:
        """Log density of what each row (n, V) shows, in nats: (n,)."""
        found = np.empty(len(x))

        def chunk(rows: slice) -> None:
            for places, part in self.evidence_by_part(parameters, x[rows]):
                found[rows][places] = part.log_evidence

        map_rows(chunk, len(x))
        return found

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        """Log density of what rows show, in nats, in any array library: (n, 1)."""
        return log_density(self, parameters, x)[:, None]

    @property
    def latent(self) -> str | None:
        """The name by which the program's `classify` asks for the latent node."""
        return None if self.latent_node is None else str(self.names[self.latent_node])

    def latent_log_joint(self, parameters: Parameters, x: Array) -> Array:
        """Log joint density of rows and each state of the latent node: (n, size)."""
        return log_density(self, parameters, x, self.latent_node)

    # -- the EM protocol -----------------------------------------------------------------------

    def is_one_pass(self, rows: Rows) -> bool:
        """Whether the statistics do not depend on the parameters: complete rows."""
        return all(c.one_pass for c in self.conditionals) and not np.isnan(rows.values.sum())

    def initialize(self, rows: Rows, rng: np.random.Generator, how: str) -> Parameters:
        """Start from the rows that show a node and all its parents, where there are any.

        Cells start with a prior count of one, since EM never leaves a probability of zero.
        Nodes that no row shows start at random.
        """
        x = rows.values
        missing = np.isnan(x)
        parameters = {}
        for v, conditional in enumerate(self.conditionals):
            family = (*conditional.scope, *conditional.numbers)
            shown = ~missing[:, family].any(axis=1)
            if not shown.any() or isinstance(conditional, Softmax):
                parameters[str(v)] = conditional.start(rng)
                continue
            weights = None if rows.weights is None else rows.weights[shown]
            part = NetworkEvidence(self, None, x[shown])
            found = own_statistics(conditional, {}, part, weights)
            parameters[str(v)] = conditional.with_prior().estimate(found)
        return parameters

    def e_step(self, parameters: Parameters, rows: Rows) -> tuple[Statistics, Array]:
        """Expected statistics and log likelihood; both add over rows."""
        summed: list[Statistics] = []
        log_likelihood = 0.0
        for places, part in self.evidence_by_part(parameters, rows.values):
            weights = None if rows.weights is None else rows.weights[places]
            evidence = part.log_evidence if weights is None else part.log_evidence * weights
            log_likelihood += float(evidence.sum())
            summed.append(self._statistics(parameters, part, weights))
        return tree_sum(summed), log_likelihood

    def _statistics(
        self, parameters: Parameters, part: NetworkEvidence, weights: Array | None
    ) -> Statistics:
        moments = {
            v: (self.groups[g], part.group_moments(g, weights))
            for g in part.gaps
            for v in self.groups[g].nodes
        }
        tabular = [v for v, c in enumerate(self.conditionals) if isinstance(c, Tabular)]
        counts = part.counts([self.conditionals[v].scope for v in tabular], weights)
        statistics: Statistics = {}
        for v, conditional in enumerate(self.conditionals):
            if v in tabular:
                statistics[str(v)] = {"count": counts[tabular.index(v)]}
            elif v in moments:
                assert isinstance(conditional, LinearGaussian)
                group, own = moments[v]
                statistics[str(v)] = group.statistics(own, conditional)
            else:
                given = parameters.get(str(v), {})
                statistics[str(v)] = own_statistics(conditional, given, part, weights)
        return statistics

    def complete_statistics(self, rows: Rows) -> Statistics:
        """Statistics of complete rows, which need no parameters: see :meth:`is_one_pass`."""

        def count(chunk: slice) -> Statistics:
            own = Rows(rows.values[chunk], rows.weights_of(chunk))
            return self._statistics({}, NetworkEvidence(self, None, own.values), own.weights)

        # Codes alone are counted in place; numbers make intermediates, which want the cache.
        tabular = all(isinstance(c, Tabular) for c in self.conditionals)
        total: Statistics = tree_sum(map_rows(count, len(rows), 2**16 if tabular else CHUNK_ROWS))
        return total

    def m_step(self, statistics: Statistics) -> Parameters:
        """Maximise the expected log joint density, less the penalty."""
        return {str(v): c.estimate(statistics[str(v)]) for v, c in enumerate(self.conditionals)}

    def log_likelihood(self, parameters: Parameters, statistics: Statistics) -> float:
        """Log likelihood of complete rows, from their statistics."""
        return sum(
            c.log_likelihood(parameters[str(v)], statistics[str(v)])
            for v, c in enumerate(self.conditionals)
            if not isinstance(c, Softmax)
        )

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        """Return the negative log prior of what the M-step estimates."""
        return sum(c.penalty(parameters[str(v)]) for v, c in enumerate(self.conditionals))

    def revive(
        self,
        parameters: Parameters,
        statistics: Statistics,
        rows: Rows,
        rng: np.random.Generator,
    ) -> tuple[Parameters, int]:
        """Return the parameters: there is nothing that dies."""
        return parameters, 0

    def probabilities(
        self, parameters: Parameters, x: Array, nodes: Sequence[int]
    ) -> tuple[list[Array], Array]:
        """Probabilities of nodes' states for each row (n, V), and the rows' log evidence.

        Returns
        -------
        probabilities : list of (n, size)
            Zeros, where the row has probability zero.
        log_evidence : (n,)
        """
        found = [np.empty((len(x), self.sizes[v])) for v in nodes]
        log_evidence = np.empty(len(x))

        def chunk(rows: slice) -> None:
            for places, part in self.evidence_by_part(parameters, x[rows]):
                possible = np.isfinite(part.log_evidence)[:, None]
                log_evidence[rows][places] = part.log_evidence
                for shares, own in zip(found, part.marginals(nodes), strict=True):
                    shares[rows][places] = np.where(possible, own, 0.0)

        map_rows(chunk, len(x))
        return found, log_evidence

    # -- drawing -------------------------------------------------------------------------------

    def sample(self, parameters: Parameters, labels: Array, random: RandomSource) -> Array:
        """Draw one row for each of the (n,) labels, which say nothing: (n, V)."""
        xp = array_namespace(labels)
        columns: list[Array] = [labels] * self.n_columns
        for v in self.order:
            columns[v] = self.conditionals[v].sample(parameters[str(v)], columns, random)
        dtype = parameters["0"][next(iter(parameters["0"]))].dtype
        return xp.stack([xp.astype(column, dtype) for column in columns], axis=1)

    def draw_rows(self, parameters: Parameters, n_rows: int, rng: np.random.Generator) -> Array:
        """Draw rows (n, V)."""
        return self.sample(parameters, np.zeros(n_rows, dtype=np.int64), NumPyRandom(rng))

    def draw_posterior(
        self, rows: Rows, n_draws: int, rng: np.random.Generator
    ) -> dict[str, Array]:
        """Return independent draws of the program's sites, given complete rows.

        Raises
        ------
        ValueError
            If something is missing, or a node has no conjugate prior.
        """
        statistics = self.complete_statistics(rows)
        parameters = {
            str(v): c.draw_posterior(statistics[str(v)], n_draws, rng)
            for v, c in enumerate(self.conditionals)
            if not isinstance(c, Softmax)
        }
        return self.sites(parameters)

    # -- the program -----------------------------------------------------------------------------

    def program(self) -> Program:
        """Return the network as a program, with its priors: see `network_program`."""
        return network_program(self, self.latent_node, self.latent or "z")

    def program_data(self, rows: Rows) -> dict[str, Array]:
        """Return the rows as the arguments of the program."""
        return {"x": rows.values}

    def parameters(self, sites: dict[str, Array]) -> Parameters:
        """Return the parameters from the sites of the program; leading axes are draws."""
        return network_parameters(self, sites)

    def sites(self, parameters: Parameters) -> dict[str, Array]:
        """Name parameters as the sites of the program."""
        return network_sites(self, parameters)

    def coords(self, names: list[Any]) -> dict[str, list[Any]]:
        """Labels of the axes of the program's sites."""
        return network_coords(self)


CONDITIONALS = {"tabular": Tabular, "linear_gaussian": LinearGaussian, "softmax": Softmax}
