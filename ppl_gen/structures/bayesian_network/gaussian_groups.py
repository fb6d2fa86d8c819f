"""Connected groups of numbers in a network: jointly normal, given their discrete parents."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, integers_beside
from ppl_gen.families import Normal
from ppl_gen.structures.bayesian_network.conditionals import (
    LinearGaussian,
    NodeConditional,
    Statistics,
)

Array = Any
Parameters = dict[str, Any]

#: Cells (rows by configurations) that cost as much as one more call.
CELLS_A_CALL = 2048


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianGroup:
    """Numbers that arcs connect, with the discrete parents of any of them.

    Parameters
    ----------
    nodes : tuple of C
        Parents before children.
    boundary : tuple of int
        Discrete parents, in rising order.
    sizes : tuple of int
        Of these.
    conditionals : tuple of C
        Of the nodes.
    """

    nodes: tuple[int, ...]
    boundary: tuple[int, ...]
    sizes: tuple[int, ...]
    conditionals: tuple[LinearGaussian, ...]

    @property
    def n_configurations(self) -> int:
        """K, the number of joint states of the boundary."""
        return int(np.prod(self.sizes, dtype=np.float64))

    @property
    def family(self) -> Normal:
        """The normal of the nodes, one class a configuration of the boundary."""
        # Sums are taken about the nodes' origins, as theirs are: far from zero, digits are kept.
        origin = np.array([c.origin[-1] for c in self.conditionals])
        return Normal(reg_covar=0.0, n_columns=len(self.nodes), offset=origin, missing=True)

    def _configurations(self, conditional: LinearGaussian) -> Array:
        """Number of the node's own configuration in each of the boundary: (K,)."""
        codes = np.indices(self.sizes).reshape(len(self.sizes), self.n_configurations)
        own = np.zeros(self.n_configurations, dtype=np.int64)
        for parent, size in zip(conditional.parents, conditional.sizes, strict=True):
            own = own * size + codes[self.boundary.index(parent)]
        return own

    def joint(self, parameters: Parameters) -> Parameters:
        """Means and precision factors of the joint normal: (K, C), (K, C, C).

        A node's residual over its deviation is one whitened coordinate, so that the triangular
        factor of the precision is read off the coefficients, and nothing is inverted. A number that
        was set is to be given: that it is this number, and no other, is not told here.
        """
        xp = array_namespace(parameters[str(self.nodes[0])]["intercept"])
        means: list[Array] = []
        columns: list[Array] = []
        for place, (node, conditional) in enumerate(
            zip(self.nodes, self.conditionals, strict=True)
        ):
            own = parameters[str(node)]
            index = self._configurations(conditional)
            taken = {}
            for name in ("intercept", "variance"):
                taken[name] = _rows(xp, own[name], index, ())
            if conditional.fixed is not None:  # at its mean, its own density is then one
                taken["variance"] = xp.zeros_like(taken["variance"]) + 0.5 / math.pi
            coefficients = _rows(xp, own["coefficients"], index, (len(conditional.regressors),))
            mean = taken["intercept"]
            spread = xp.sqrt(taken["variance"])
            zero = xp.zeros_like(spread)
            column = [zero] * len(self.nodes)
            column[place] = 1.0 / spread
            for c, regressor in enumerate(conditional.regressors):
                other = self.nodes.index(regressor)
                mean = mean + coefficients[:, c] * means[other]
                column[other] = -coefficients[:, c] / spread
            means.append(mean)
            columns.append(xp.stack(column, axis=-1))
        return {
            "mean": xp.stack(means, axis=-1),
            "precision_cholesky": xp.stack(columns, axis=-1),
        }

    def statistics(self, moments: Statistics, conditional: LinearGaussian) -> Statistics:
        """Statistics of one of the nodes, from those of the joint normal."""
        places = [self.nodes.index(v) for v in conditional.numbers]
        count, total, square = moments["count"], moments["sum"], moments["square"]
        parts = (
            self._kept(count, conditional),
            self._kept(total[:, places], conditional),
            self._kept(square[:, places][:, :, places], conditional),
        )
        return conditional.moments(*parts)

    def _kept(self, by_boundary: Array, conditional: LinearGaussian) -> Array:
        """Sum over the boundary, but for the node's own discrete parents, in their order."""
        rest = by_boundary.shape[1:]
        table = by_boundary.reshape((*self.sizes, *rest))
        kept = [self.boundary.index(p) for p in conditional.parents]
        away = tuple(axis for axis in range(len(self.sizes)) if axis not in kept)
        order = [sorted(kept).index(axis) for axis in kept]
        order += range(len(kept), len(kept) + len(rest))
        return table.sum(axis=away).transpose(order)


class GroupEvidence:
    """What rows with gaps say of the numbers of a group, for each state that is open.

    Where it pays, rows are taken together by the states that they have in common: of a boundary
    of many configurations, each row then meets those only that it leaves open.

    Parameters
    ----------
    group : GaussianGroup
    joint : dict
        Of :meth:`GaussianGroup.joint`.
    x : (n, C)
    codes : (n, B)
        Of the boundary.
    unknown : tuple of int
        Places of the boundary's nodes that are open.

    Attributes
    ----------
    log_prob : (n, *sizes of the open nodes)
        Log density of the numbers that are observed.
    """

    def __init__(
        self,
        group: GaussianGroup,
        joint: Parameters,
        x: Array,
        codes: Array,
        unknown: Sequence[int],
    ) -> None:
        self.group, self.joint, self.x = group, joint, x
        seen = [axis for axis in range(len(group.sizes)) if axis not in unknown]
        table = np.arange(group.n_configurations).reshape(group.sizes)
        cells = math.prod(group.sizes[axis] for axis in unknown)
        table = np.moveaxis(table, seen, range(len(seen))).reshape(-1, cells)
        place = np.zeros(len(x), dtype=np.int64)
        for axis in seen:
            place = place * group.sizes[axis] + codes[:, axis]
        order = np.argsort(place, kind="stable")
        alike = np.split(order, np.flatnonzero(np.diff(place[order])) + 1)
        self._parts: list[tuple[Array, Array, Array | None, Any]] = []
        self.log_prob = np.empty((len(x), *(group.sizes[axis] for axis in unknown)))
        log_prob = self.log_prob.reshape(len(x), cells)
        if len(alike) * CELLS_A_CALL < len(x) * group.n_configurations:
            for rows in alike:
                own = table[place[rows[0]]]
                log_prob[rows], sums = group.family.e_step(self._of(own), x[rows])
                self._parts.append((rows, own, None, sums))
        else:
            every, columns = np.arange(group.n_configurations), table[place]
            found, sums = group.family.e_step(joint, x)
            log_prob[:] = np.take_along_axis(found, columns, axis=1)
            self._parts.append((np.arange(len(x)), every, columns, sums))

    def _of(self, configurations: Array) -> Parameters:
        return {name: value[configurations] for name, value in self.joint.items()}

    def moments(self, shares: Array) -> Statistics:
        """Expected moments by configuration, from the shares (n, open configurations)."""
        width = len(self.group.nodes)
        shapes = {"count": (), "sum": (width,), "square": (width, width)}
        total = {n: np.zeros((self.group.n_configurations, *s)) for n, s in shapes.items()}
        for rows, own, columns, sums in self._parts:
            for name, value in sums(_among(shares[rows], columns, len(own))).items():
                total[name][own] += value
        return total

    def expected(self, shares: Array) -> Array:
        """Conditional means of the numbers: (n, C)."""
        found = np.empty_like(self.x)
        for rows, own, columns, _ in self._parts:
            among = _among(shares[rows], columns, len(own))
            found[rows] = self.group.family.expected(self._of(own), self.x[rows], among)
        return found


def _among(shares: Array, columns: Array | None, n_configurations: int) -> Array:
    """Put shares (n, open configurations) in their columns among more, whose shares are zero."""
    if columns is None:
        return shares
    found = np.zeros((len(shares), n_configurations))
    np.put_along_axis(found, columns, shares, axis=1)
    return found


def _rows(xp: Any, table: Array, index: Array, rest: tuple[int, ...]) -> Array:
    """Rows of a table whose leading axes are flattened."""
    lead = table.shape[: table.ndim - len(rest)]
    flat = xp.reshape(table, (math.prod(lead), *rest))
    if xp is np:
        return flat[index]
    return xp.take(flat, integers_beside(flat, index), axis=0)


def gaussian_groups(conditionals: Sequence[NodeConditional]) -> tuple[GaussianGroup, ...]:
    """Find the connected groups of numbers of a network."""
    numbers = [c for c in conditionals if isinstance(c, LinearGaussian)]
    group_of = {c.node: {c.node} for c in numbers}
    for conditional in numbers:
        for regressor in conditional.regressors:
            joined = group_of[conditional.node] | group_of[regressor]
            for member in joined:
                group_of[member] = joined
    groups = []
    for members in {id(g): g for g in group_of.values()}.values():
        own = [c for c in numbers if c.node in members]
        ordered: list[LinearGaussian] = []
        while own:
            placed = {c.node for c in ordered}
            ready = [c for c in own if set(c.regressors) <= placed]
            ordered += ready
            own = [c for c in own if c not in ready]
        sizes = {p: s for c in ordered for p, s in zip(c.parents, c.sizes, strict=True)}
        boundary = tuple(sorted(sizes))
        groups.append(
            GaussianGroup(
                tuple(c.node for c in ordered),
                boundary,
                tuple(sizes[p] for p in boundary),
                tuple(ordered),
            )
        )
    return tuple(groups)
