"""What rows of evidence say of the nodes that they leave open: a network, exactly.

Every conditional is a factor over discrete nodes, cut at the codes that a row has: of a tabular
node its table; of others their density at the row's numbers. Numbers that are missing are
integrated out of their group first (see ``gaussian_groups``). What is left open meets in a
junction tree.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.algorithms.arrays import chosen
from ppl_gen.algorithms.networks.elimination import Elimination
from ppl_gen.algorithms.networks.junction_tree import LIKELY, Beliefs, JunctionTree
from ppl_gen.algorithms.normal import conditional
from ppl_gen.engines.random_source import NumPyRandom
from ppl_gen.structures.bayesian_network.conditionals import (
    LinearGaussian,
    NodeConditional,
    Tabular,
    set_number,
)
from ppl_gen.structures.bayesian_network.gaussian_groups import GaussianGroup, GroupEvidence

if TYPE_CHECKING:
    from ppl_gen.structures.bayesian_network.network import Network

Array = Any
Parameters = dict[str, Any]
Statistics = dict[str, Any]


class NetworkEvidence:
    """Rows whose numbers are missing in the same groups, under one set of parameters.

    Parameters
    ----------
    network : Network
    parameters : dict or None
        None of complete rows that are only to be counted.
    x : (n, V)
        Codes and numbers, NaN where missing.
    likelihoods : dict of int to (size,) or (n, size), optional
        Soft evidence on discrete nodes.

    Attributes
    ----------
    log_evidence : (n,)
        Log density of what is observed, in nats.
    open : tuple of int
        Discrete nodes that are missing in some row.
    """

    def __init__(
        self,
        network: "Network",
        parameters: Parameters | None,
        x: Array,
        likelihoods: dict[int, Array] | None = None,
    ) -> None:
        self.network, self.x = network, x
        self.tree: JunctionTree | None = None
        self.beliefs: Beliefs | None = None
        self.open: tuple[int, ...] = ()
        self.gaps: tuple[int, ...] = ()
        whole = np.asarray(network.whole)
        if parameters is None and whole.all() and not np.isnan(x.sum()):
            self.codes = x.astype(np.int64)
            return
        missing = np.isnan(x)
        lacking = missing.any(axis=0)
        # Numbers may be past what integers hold.
        self.codes = np.where(whole & ~missing, x, 0.0).astype(np.int64)
        self.open = tuple(v for v in network.discrete if lacking[v])
        self.gaps = tuple(
            g for g, group in enumerate(network.groups) if lacking[list(group.nodes)].any()
        )
        if parameters is None:  # complete rows are counted as they are
            return
        self.parameters = parameters
        self._groups = {g: self._group_evidence(network.groups[g]) for g in self.gaps}
        scopes: list[tuple[int, ...]] = []
        tables: list[Array] = []
        self._log_scale = np.zeros(len(x))
        for v, own in enumerate(network.conditionals):
            if isinstance(own, Tabular):
                left, cut = self._cut(own.scope, parameters[str(v)]["table"])
                if left:
                    scopes.append(left)
                    tables.append(cut)
                else:
                    with np.errstate(divide="ignore"):
                        self._log_scale += np.log(cut)
        allowed: dict[int, Array] = {}
        for v in self.open:
            seen = ~missing[:, v]
            if seen.any():
                allowed[v] = np.ones((len(x), network.sizes[v]), dtype=bool)
                allowed[v][seen] = self.codes[seen, v, None] == np.arange(network.sizes[v])
                scopes.append((v,))
                tables.append(allowed[v].astype(np.float64))
        #: Logarithms of tables whose entries may underflow, by their places.
        self._logs: dict[int, Array] = {}
        for left, logs in self._densities().items():
            top = self._top(left, logs, allowed)
            self._log_scale += top.reshape(-1)
            top = np.where(np.isneginf(top), 0.0, top)
            if left:
                self._logs[len(tables)] = logs - top
                scopes.append(left)
                tables.append(np.exp(np.minimum(logs - top, 0.0)))
        for v, likelihood in (likelihoods or {}).items():
            if v in self.open:
                scopes.append((v,))
                tables.append(np.asarray(likelihood))
            else:
                weights = np.broadcast_to(likelihood, (len(x), network.sizes[v]))
                with np.errstate(divide="ignore"):
                    self._log_scale += np.log(weights[np.arange(len(x)), self.codes[:, v]])
        self._tables = tables
        self.log_evidence = self._log_scale
        if self.open:
            self.tree = network.tree(tuple(scopes))
            self.beliefs = self.tree.propagate(tables, self._logs)
            self.log_evidence = self._log_scale + self.beliefs.log_evidence

    def _open_of(self, group: GaussianGroup) -> list[int]:
        return [axis for axis, v in enumerate(group.boundary) if v in self.open]

    def _group_evidence(self, group: GaussianGroup) -> GroupEvidence:
        codes, x = self.codes[:, group.boundary], self.x[:, group.nodes]
        joint = group.joint(self.parameters)
        with np.errstate(over="ignore"):  # so far off, there is no density
            return GroupEvidence(group, joint, x, codes, self._open_of(group))

    def _densities(self) -> dict[tuple[int, ...], Array]:
        """Log densities (n, *sizes) that the numbers give the open nodes, by these."""
        network = self.network
        inside = {v for g in self.gaps for v in network.groups[g].nodes}
        found: dict[tuple[int, ...], Array] = {}

        def add(left: tuple[int, ...], cut: Array) -> None:
            found[left] = found[left] + cut if left in found else cut

        for v, own in enumerate(network.conditionals):
            if not isinstance(own, Tabular) and (v not in inside or set_number(own) is not None):
                x, known = self.numbers_of(own)
                if isinstance(own, LinearGaussian) and not set(own.scope) & set(self.open):
                    place = self.place(own.scope)
                    add((), own.log_density_at(self.parameters[str(v)], x, place))
                    continue
                log_table = own.log_table(self.parameters[str(v)], x)
                if not known.all():  # nothing is known below: any distribution sums to one
                    log_table[~known] = -np.log(log_table.shape[-1])
                add(*self._cut(own.scope, log_table))
        for g, evidence in self._groups.items():
            boundary = network.groups[g].boundary
            add(tuple(v for v in boundary if v in self.open), evidence.log_prob)
        return found

    def numbers_of(self, own: NodeConditional) -> tuple[Array, Array]:
        """Rows without gaps, and which of them show the numbers of a conditional: (n, V), (n,)."""
        gaps = np.isnan(self.x[:, own.numbers])
        if not gaps.any():
            return self.x, np.ones(len(self.x), dtype=bool)
        return np.where(np.isnan(self.x), 0.0, self.x), ~gaps.any(axis=1)

    def _top(self, left: tuple[int, ...], logs: Array, allowed: dict[int, Array]) -> Array:
        """Largest log density of each row, of the states that it allows: (n, 1, ..)."""
        for axis, v in enumerate(left):
            if v in allowed:
                shape = [len(self.x)] + [1] * len(left)
                shape[axis + 1] = -1
                logs = np.where(allowed[v].reshape(shape), logs, -np.inf)
        top: Array = logs.max(axis=tuple(range(1, logs.ndim)), keepdims=True) if left else logs
        return top

    def _cut(self, scope: tuple[int, ...], table: Array) -> tuple[tuple[int, ...], Array]:
        """Cut a factor at the observed codes: the scope left, and its table (n, *sizes)."""
        left = tuple(v for v in scope if v in self.open)
        seen = [axis for axis, v in enumerate(scope) if v not in self.open]
        if not seen:
            return left, table
        codes = self.codes[:, [scope[axis] for axis in seen]]
        if table.ndim == len(scope):
            return left, chosen(np.moveaxis(table, seen, range(len(seen))), codes)
        moved = np.moveaxis(table, [axis + 1 for axis in seen], range(1, len(seen) + 1))
        return left, moved[(np.arange(len(table)), *codes.T)]

    # -- what is left open -----------------------------------------------------------------------

    def marginal(self, nodes: Sequence[int]) -> Array:
        """Probabilities of the states of nodes that meet in a factor: (n, *sizes)."""
        left = tuple(v for v in nodes if v in self.open)
        inner = np.ones(len(self.x))
        if left:
            assert self.beliefs is not None
            inner = self.beliefs.marginal(left)
            if inner.ndim == len(left):  # the same in all rows
                inner = np.broadcast_to(inner, (len(self.x), *inner.shape))
        seen = [axis for axis, v in enumerate(nodes) if v not in self.open]
        if not seen:
            return inner
        shares = np.zeros((len(self.x), *(self.network.sizes[v] for v in nodes)))
        moved = np.moveaxis(shares, [axis + 1 for axis in seen], range(1, len(seen) + 1))
        moved[(np.arange(len(self.x)), *self.codes[:, [nodes[axis] for axis in seen]].T)] = inner
        return shares

    def marginals(self, nodes: Sequence[int]) -> list[Array]:
        """Probabilities of the states of each of some nodes, (n, size), in one go."""
        inner = [v for v in nodes if v in self.open]
        found: dict[int, Array] = {}
        if inner:
            assert self.beliefs is not None
            tables = self.beliefs.marginals([(v,) for v in inner])
            shapes = [(len(self.x), self.network.sizes[v]) for v in inner]
            found = dict(zip(inner, map(np.broadcast_to, tables, shapes), strict=True))
        return [found[v] if v in found else self.marginal((v,)) for v in nodes]

    def counts(self, scopes: Sequence[tuple[int, ...]], weights: Array | None) -> list[Array]:
        """Expected counts of the joint states of nodes that meet in a factor, each (*sizes)."""
        total = np.ones(len(self.x)) if weights is None else weights
        open_ = [scope for scope in scopes if set(scope) <= set(self.open)]
        found: dict[tuple[int, ...], Array] = {}
        if open_:
            assert self.beliefs is not None
            same = np.ndim(self.beliefs.log_evidence) == 0
            by_row = total.sum(keepdims=True) if same else total
            counted = self.beliefs.expected_counts(open_, by_row)
            found.update(zip(open_, counted, strict=True))
        lefts = {scope: tuple(v for v in scope if v in self.open) for scope in scopes}
        some = [scope for scope in scopes if scope not in found and lefts[scope]]
        if some:
            assert self.beliefs is not None
            inside = list({lefts[scope]: None for scope in some})
            shares = dict(zip(inside, self.beliefs.marginals(inside), strict=True))
            found |= {scope: self._summed(scope, shares[lefts[scope]], total) for scope in some}
        rest = [scope for scope in scopes if scope not in found]
        found |= {scope: self._counted(scope, weights) for scope in rest}
        return [found[scope] for scope in scopes]

    def _summed(self, scope: tuple[int, ...], inner: Array, weights: Array) -> Array:
        """Sum the shares (n, ..) of a scope's open nodes by the states of the others."""
        sizes, left = self.network.sizes, [v for v in scope if v in self.open]
        seen = [v for v in scope if v not in self.open]
        inner = np.broadcast_to(inner, (len(self.x), *(sizes[v] for v in left)))
        place, cells = self.place(seen), math.prod(sizes[v] for v in seen)
        by_cell = inner.reshape(len(self.x), -1).T * weights
        counts = np.stack([np.bincount(place, own, cells) for own in by_cell])
        table = counts.reshape([sizes[v] for v in (*left, *seen)])
        return table.transpose([(*left, *seen).index(v) for v in scope])

    def _counted(self, scope: tuple[int, ...], weights: Array | None) -> Array:
        sizes = [self.network.sizes[v] for v in scope]
        cells = int(np.prod(sizes, dtype=int))
        counted = np.bincount(self.place(scope), weights, cells)
        return counted.astype(np.float64).reshape(sizes)

    def place(self, scope: Sequence[int]) -> Array:
        """Number of the joint state of nodes that are observed: (n,)."""
        place = np.zeros(len(self.x), dtype=np.int64)
        for v in scope:
            place = place * self.network.sizes[v] + self.codes[:, v]
        return place

    def _shares(self, group: GaussianGroup) -> Array:
        """Probabilities of the open configurations of a group's boundary: (n, ..)."""
        left = tuple(group.boundary[axis] for axis in self._open_of(group))
        return self.marginal(left).reshape(len(self.x), -1)

    def group_moments(self, g: int, weights: Array | None) -> dict[str, Array]:
        """Expected moments of the numbers of a group with gaps, by configuration."""
        shares = self._shares(self.network.groups[g])
        if weights is not None:
            shares = shares * weights[:, None]
        return self._groups[g].moments(shares)

    def expected_numbers(self, g: int) -> Array:
        """Conditional means of the numbers of a group with gaps: (n, C)."""
        return self._groups[g].expected(self._shares(self.network.groups[g]))

    @property
    def factors(self) -> tuple[list[tuple[int, ...]], list[Array]]:
        """Scopes and tables (n, *sizes) whose product is what is left open, up to a constant."""
        if self.tree is None or self.beliefs is None:
            return [], []
        if np.min(self.beliefs.log_evidence) < np.log(LIKELY):
            return self._conditionals()
        batched = [
            t if t.ndim > len(s) else np.broadcast_to(t, (len(self.x), *t.shape))
            for s, t in zip(self.tree.scopes, self._tables, strict=True)
        ]
        return list(self.tree.scopes), batched

    def _conditionals(self) -> tuple[list[tuple[int, ...]], list[Array]]:
        """Each clique's conditional distribution given its separator, which does not underflow."""
        assert self.tree is not None
        assert self.beliefs is not None
        pairs = zip(self.tree.cliques, self.tree.separators, strict=True)
        cliques = [pair for pair in pairs if set(pair[0]) <= set(self.open)]
        tables = []
        for scope, separator in cliques:
            joint = self.marginal(scope)
            away = tuple(axis + 1 for axis, v in enumerate(scope) if v not in separator)
            total = joint.sum(axis=away, keepdims=True)
            tables.append(joint / np.where(total > 0.0, total, 1.0))
        return [scope for scope, _ in cliques], tables

    def moments(self, nodes: Sequence[int]) -> tuple[Array, Array]:
        """Mean (C,) and covariance (C, C) of numbers, of the first row."""
        network = self.network
        involved = [g for g in self.gaps if set(network.groups[g].nodes) & set(nodes)]
        around = tuple(sorted({v for g in involved for v in network.groups[g].boundary}))
        inner = tuple(v for v in around if v in self.open)
        scopes, tables = self.factors
        plan = Elimination(scopes, network.sizes, inner)
        network.refuse_past_bound(plan.cost)
        weights = np.reshape(plan.run([t[0] for t in tables]), -1)
        codes = np.tile(self.codes[0], (len(weights), 1))
        grid = np.indices([network.sizes[v] for v in inner]).reshape(len(inner), len(weights))
        codes[:, inner] = grid.T
        mean = np.tile(self.x[0, list(nodes)], (len(weights), 1))
        spread = np.zeros((len(weights), len(nodes), len(nodes)))
        for g in involved:
            group, joint = network.groups[g], self._groups[g].joint
            row = self.x[:1, group.nodes]
            given = conditional(row, joint["mean"], joint["precision_cholesky"])
            missing = np.flatnonzero(np.isnan(row[0]))
            covariance = np.zeros((group.n_configurations, len(group.nodes), len(group.nodes)))
            block = given.blocks[0][2][..., 0]  # (m, m, K)
            covariance[:, missing[:, None], missing] = np.moveaxis(block, 2, 0)
            own = np.zeros(len(weights), dtype=np.int64)
            for v, size in zip(group.boundary, group.sizes, strict=True):
                own = own * size + codes[:, v]
            inside = [i for i, v in enumerate(nodes) if v in group.nodes]
            places = [group.nodes.index(nodes[i]) for i in inside]
            expected = given.deviation[:, 0] + joint["mean"]
            mean[:, inside] = expected[own][:, places]
            spread[:, np.array(inside)[:, None], inside] = covariance[own][:, places][:, :, places]
        return mixed_moments(weights / weights.sum(), mean, spread)

    def draw(self, rng: np.random.Generator) -> Array:
        """Complete the rows by a joint draw of all that is missing: (n, V)."""
        completed = self.x.copy()
        if self.tree is not None:
            size = None if self._batched else len(self.x)
            drawn = self.tree.draw(self._tables, rng, size, self._logs)
            completed[:, self.open] = drawn[:, self.open]
        for g, evidence in self._groups.items():
            group = self.network.groups[g]
            labels = np.zeros(len(completed), dtype=np.int64)
            for v, size in zip(group.boundary, group.sizes, strict=True):
                labels = labels * size + completed[:, v].astype(np.int64)
            x = completed[:, group.nodes]
            completed[:, group.nodes] = group.family.draw_missing(
                evidence.joint, x, labels, NumPyRandom(rng)
            )
        return completed

    @property
    def _batched(self) -> bool:
        assert self.tree is not None
        return any(t.ndim > len(s) for s, t in zip(self.tree.scopes, self._tables, strict=True))

    def mode(self) -> tuple[Array, Array]:
        """Likeliest joint states of the open nodes, and the log probability of each row with it.

        Numbers must be complete: their gaps are integrated out, not maximised.
        """
        completed = self.codes.copy()
        if self.tree is None:
            return completed, self.log_evidence
        codes, log_prob = self.tree.mode(self._tables, self._logs)
        completed[:, self.open] = np.atleast_2d(codes)[:, self.open]  # one for all, without a batch
        return completed, self._log_scale + log_prob


def mixed_moments(weights: Array, mean: Array, covariance: Array) -> tuple[Array, Array]:
    """Mean (C,) and covariance (C, C) of a mixture, from those of its parts.

    By the law of total covariance, about the mixture's own mean: far from zero, digits are kept.

    Parameters
    ----------
    weights : (K,)
        They sum to one.
    mean : (K, C)
    covariance : (K, C, C)
    """
    total = weights @ mean
    away = mean - total
    return total, np.tensordot(weights, covariance, axes=1) + (away.T * weights) @ away


def own_statistics(
    conditional: NodeConditional,
    parameters: Parameters,
    part: NetworkEvidence,
    weights: Array | None,
) -> Statistics:
    """Statistics of one conditional, whose numbers are complete."""
    if isinstance(conditional, Tabular):
        return {"count": part.counts([conditional.scope], weights)[0]}
    weights = np.ones(len(part.x)) if weights is None else weights
    x, known = part.numbers_of(conditional)
    weights = weights * known
    if isinstance(conditional, LinearGaussian) and not set(conditional.scope) & set(part.open):
        return conditional.counted(x, part.place(conditional.scope), weights)
    shares = part.marginal(conditional.scope)
    shares = shares * weights.reshape(-1, *(1,) * (shares.ndim - 1))
    return conditional.statistics(parameters, x, shares)
