r"""Scores of the graph of a Bayesian network that are sums of one local score a node.

With :math:`N_{ijk}` rows in state k of node i and configuration j of its parents,
:math:`N_{ij} = \sum_k N_{ijk}`, r states and q configurations (the product of the parents' sizes,
seen or not), the local score of a discrete node is

- BIC: :math:`\sum_{jk} N_{ijk} \log(N_{ijk} / N_{ij}) - \tfrac12 \log(n)\, q (r - 1)`, the log
  likelihood at its maximum less half a log n for each free parameter (Schwarz 1978); minus the
  description length (MDL). AIC: one for each parameter (Akaike 1974).
- BDeu: :math:`\sum_j \log\frac{\Gamma(a/q)}{\Gamma(N_{ij} + a/q)} + \sum_{jk} \log
  \frac{\Gamma(N_{ijk} + a/(qr))}{\Gamma(a/(qr))}`, the log marginal likelihood under Dirichlet
  priors of equivalent sample size a (the BDe score of Heckerman, Geiger & Chickering 1995, with a
  uniform prior over the joint states).
- K2: the same with every Dirichlet concentration one (Cooper & Herskovits 1992, theorem 1):
  :math:`\sum_j \log\frac{\Gamma(r)}{\Gamma(N_{ij} + r)} + \sum_{jk} \log \Gamma(N_{ijk} + 1)`.

Each is a sum over the counts of the whole family less a sum over the counts of the parents, and a
count of zero adds nothing: only what was seen is looked at, however large q is.

A continuous node has the regression on its continuous parents, one for each configuration of the
discrete ones (Lauritzen & Wermuth 1989), and BIC or AIC with q (k + 2) parameters for k continuous
parents. A discrete node has no continuous parents here.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, xlogy

__all__ = ["AIC", "BIC", "K2", "BDeu", "Likelihood", "LocalScores", "Score"]

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

#: Added to the variances of standardised columns, so that a collinear parent gains nothing and a
#: constant column has a finite density.
RIDGE = 1e-10


class Score(Protocol):
    """What a score makes of counts; both functions are elementwise and zero at a count of zero.

    `cells` is how many counts there are in all, seen or not, and `size` the number of states of the
    node. ``gaussian`` tells whether continuous nodes can be scored, and ``equivalent`` that the two
    functions are one, so that graphs with the same independences have the same score.
    """

    gaussian: bool
    equivalent: bool

    def family(self, counts: Floats, cells: Any) -> Floats:
        """Terms of the counts of a family."""
        ...

    def parents(self, counts: Floats, cells: Any, size: int) -> Floats:
        """Terms of the counts of the parents' configurations, which are taken off."""
        ...

    def price(self, n: float) -> float:
        """Cost of a free parameter."""
        ...


@dataclass(frozen=True)
class Likelihood:
    """Log likelihood at its maximum: what mutual information is made of."""

    gaussian = True
    equivalent = True

    def family(self, counts: Floats, cells: Any) -> Floats:
        """N log N."""
        return np.asarray(xlogy(counts, counts), np.float64)

    def parents(self, counts: Floats, cells: Any, size: int) -> Floats:
        """N log N."""
        return np.asarray(xlogy(counts, counts), np.float64)

    def price(self, n: float) -> float:
        """Nothing."""
        return 0.0


@dataclass(frozen=True)
class BIC(Likelihood):
    """Bayesian information criterion, in nats, larger being better (Schwarz 1978)."""

    def price(self, n: float) -> float:
        """Half a log n."""
        return 0.5 * math.log(n)


@dataclass(frozen=True)
class AIC(Likelihood):
    """Akaike's information criterion, in nats, larger being better (Akaike 1974)."""

    def price(self, n: float) -> float:
        """One."""
        return 1.0


@dataclass(frozen=True)
class BDeu:
    """Log marginal likelihood, Dirichlet priors of one equivalent sample size for every node.

    Parameters
    ----------
    equivalent_sample_size : float
        Rows that the uniform prior over the joint states is worth.
    """

    equivalent_sample_size: float = 10.0
    gaussian = False
    equivalent = True

    def family(self, counts: Floats, cells: Any) -> Floats:
        """Log rising factorial of a / cells."""
        a = self.equivalent_sample_size / cells
        return np.asarray(gammaln(counts + a) - gammaln(a), np.float64)

    def parents(self, counts: Floats, cells: Any, size: int) -> Floats:
        """Log rising factorial of a / cells."""
        return self.family(counts, cells)

    def price(self, n: float) -> float:
        """Nothing: the prior is price enough."""
        return 0.0


@dataclass(frozen=True)
class K2:
    """Log marginal likelihood, Dirichlet priors of concentration one."""

    gaussian = False
    equivalent = False

    def family(self, counts: Floats, cells: Any) -> Floats:
        """Log N!."""
        return np.asarray(gammaln(counts + 1.0), np.float64)

    def parents(self, counts: Floats, cells: Any, size: int) -> Floats:
        """Log rising factorial of the number of states."""
        return np.asarray(gammaln(counts + size) - gammaln(size), np.float64)

    def price(self, n: float) -> float:
        """Nothing: the prior is price enough."""
        return 0.0


class LocalScores:
    """Local scores of the nodes of one table, counted when first asked for and kept.

    Parameters
    ----------
    values : (n, V)
        Codes 0, 1, 2, ... of discrete nodes, numbers of continuous ones.
    sizes : sequence of int
        States of every node; 0 for a continuous one.
    score : Score
    weights : (n,), optional
        How many times each row counts.
    names : sequence, optional
        Names of the nodes, for messages.
    who : str
        Who asks, for messages.

    Attributes
    ----------
    columns : (V, m) int64
        Codes of the rows counted; equal rows are one row with a weight where that halves the work.
    weights : (m,) or None
    total : float
        Number of rows, each counted by its weight.

    Raises
    ------
    ValueError
        If a value is missing, a code is no state, there is no row, or continuous nodes meet a
        score for counts.

    Examples
    --------
    >>> values = np.array([[0, 1], [1, 0], [1, 1], [0, 0]], float)
    >>> scores = LocalScores(values, [2, 2], BDeu(10.0))
    >>> round(scores.local(0, [1]), 3), round(scores.local(0, []), 3)
    (-3.137, -2.948)
    """

    def __init__(
        self,
        values: Floats,
        sizes: Sequence[int],
        score: Score,
        weights: Floats | None = None,
        names: Sequence[Any] | None = None,
        who: str = "LocalScores",
    ) -> None:
        self.who = who
        self.sizes = tuple(int(size) for size in sizes)
        self.names = list(range(len(self.sizes))) if names is None else list(names)
        self.score = score
        if weights is not None:
            values, weights = values[weights > 0.0], weights[weights > 0.0]
        self._check(values)
        discrete = np.array(self.sizes) > 0
        self.columns = np.ascontiguousarray(np.where(discrete, values, 0.0).T.astype(np.int64))
        self.weights = None if weights is None else np.asarray(weights, np.float64)
        self.total = float(len(values)) if weights is None else float(weights.sum())
        if discrete.all():
            self._collapse()
        else:
            self._standardise(values, discrete)
        self.price = score.price(self.total)
        self._known: dict[tuple[int, int], float] = {}
        self._added: dict[tuple[int, int], Floats] = {}

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.sizes)

    def local(self, v: int, parents: Iterable[int]) -> float:
        """Score of node `v` with these parents, in any order."""
        parents = sorted(map(int, parents))
        key = v, sum(1 << u for u in parents)
        if key not in self._known:
            kind = self._discrete if self.sizes[v] else self._continuous
            self._known[key] = kind(v, parents)
        return self._known[key]

    def additions(self, v: int, parents: Iterable[int]) -> Floats:
        """Score of node `v` with each node in turn as one parent more: (V,).

        It is minus infinity for `v` itself, for a parent already there, and for a continuous
        parent of a discrete node.
        """
        parents = sorted(map(int, parents))
        mask = sum(1 << u for u in parents)
        if (v, mask) not in self._added:
            added = np.full(self.n_nodes, -np.inf)
            others = [u for u in range(self.n_nodes) if u != v and not mask >> u & 1]
            if self.sizes[v]:
                others = [u for u in others if self.sizes[u]]
                added[others] = self._discrete_additions(v, parents, others)
                self._known |= {(v, mask | 1 << u): float(added[u]) for u in others}
            else:
                added[others] = [self.local(v, [*parents, u]) for u in others]
            self._added[v, mask] = added
        return self._added[v, mask]

    def sum(self, parents: Sequence[Iterable[int]]) -> float:
        """Score of a graph, given the parents of each node."""
        return sum(self.local(v, above) for v, above in enumerate(parents))

    def counts(self, codes: Codes, cells: int) -> Floats:
        """Weight of the rows of each code below `cells`."""
        return np.bincount(codes, self.weights, cells).astype(np.float64, copy=False)

    def configurations(self, nodes: Iterable[int]) -> tuple[Codes, int]:
        """Number the rows by the states of some nodes: (m,) codes, and how many codes there are.

        The codes are mixed-radix numbers while these are no more than the rows; beyond, only the
        configurations that were seen have a code.
        """
        codes, cells = np.zeros(self.columns.shape[1], np.int64), 1
        for u in nodes:
            codes = codes * self.sizes[u] + self.columns[u]
            cells *= self.sizes[u]
            if cells > len(codes):
                codes, cells = relabel(codes, cells)
        return codes, cells

    def _discrete(self, v: int, parents: Sequence[int]) -> float:
        if any(self.sizes[u] == 0 for u in parents):
            raise ValueError(
                f"{self.who}: {self.names[v]!r} is discrete and has a continuous parent; "
                "structure is searched among graphs without such edges: forbid it, or cut the "
                "parent into classes"
            )
        size = self.sizes[v]
        q = math.prod(float(self.sizes[u]) for u in parents)
        codes, cells = self.configurations(parents)
        table = self.counts(codes * size + self.columns[v], cells * size)
        above = table.reshape(-1, size).sum(axis=1)
        gain = self.score.family(table[table > 0], q * size).sum()
        gain -= self.score.parents(above[above > 0], q, size).sum()
        return float(gain - self.price * q * (size - 1))

    def _discrete_additions(self, v: int, parents: Sequence[int], others: Sequence[int]) -> Floats:
        """Do the same for all others at once: what each function costs is mostly its call."""
        if not others:
            return np.empty(0)
        size = self.sizes[v]
        codes, cells = self.configurations(parents)
        codes, cells = codes * size + self.columns[v], cells * size
        tables, above = [], []
        for u in others:
            table = self.counts(self.columns[u] * cells + codes, self.sizes[u] * cells)
            rows = table.reshape(-1, size).sum(axis=1)
            tables.append(table[table > 0])
            above.append(rows[rows > 0])
        q = math.prod(float(self.sizes[u]) for u in parents) * np.array(self.sizes)[others]
        gain = _sums(self.score.family, tables, q * size)
        gain -= _sums(lambda n, cells: self.score.parents(n, cells, size), above, q)
        return np.asarray(gain - self.price * q * (size - 1), np.float64)

    def _continuous(self, v: int, parents: Sequence[int]) -> float:
        """Regression on the continuous parents, within each configuration of the discrete ones.

        A configuration with fewer rows than a regression and its variance need (k + 2) has no
        maximum of the likelihood: its rows have the regression over all configurations.
        """
        within = [u for u in parents if self.sizes[u]]
        family = [self._place[u] for u in parents if not self.sizes[u]] + [self._place[v]]
        price = self.price * math.prod(float(self.sizes[u]) for u in within) * (len(family) + 1)
        slopes, pooled = _regression(self.correlation[np.ix_(family, family)])
        jacobian = self.total * self.log_scale[self._place[v]]
        if not within:
            return float(_normal(self.total, pooled) - jacobian - price)
        codes, cells = self.configurations(within)
        z = self.standardised[family]  # (k + 1, m), the node last
        weights = np.ones(z.shape[1]) if self.weights is None else self.weights
        n = np.bincount(codes, weights, cells)
        safe = np.where(n > 0.0, n, 1.0)
        mean = np.stack([np.bincount(codes, weights * a, cells) for a in z]) / safe
        apart = z - mean[:, codes]
        covariance = np.zeros((cells, len(z), len(z)))
        for i, a in enumerate(apart):
            for j, b in enumerate(apart[: i + 1]):
                covariance[:, i, j] = np.bincount(codes, weights * a * b, cells) / safe
                covariance[:, j, i] = covariance[:, i, j]
        own = np.bincount(codes, minlength=cells) >= len(z) + 1
        covariance[~own] = 0.0
        _, variance = _regression(covariance + RIDGE * np.eye(len(z)))
        residual = z[-1] - slopes @ z[:-1]
        borrowed = -0.5 * (
            n * np.log(2.0 * np.pi * pooled)
            + np.bincount(codes, weights * residual**2, cells) / pooled
        )
        gain = np.where(own, _normal(n, np.where(own, variance, 1.0)), borrowed).sum()
        return float(gain - jacobian - price)

    def _collapse(self) -> None:
        """Count equal rows once, where there are two or more of most."""
        codes, n_distinct = relabel(*self.configurations(range(self.n_nodes)))
        if 2 * n_distinct <= len(codes):
            self.weights = self.counts(codes, n_distinct)
            row = np.empty(n_distinct, np.int64)
            row[codes] = np.arange(len(codes))
            self.columns = np.ascontiguousarray(self.columns[:, row])

    def _standardise(self, values: Floats, discrete: npt.NDArray[np.bool_]) -> None:
        self._place = {int(v): place for place, v in enumerate(np.flatnonzero(~discrete))}
        z = np.ascontiguousarray(values[:, ~discrete].T)
        share = self.weights / self.total if self.weights is not None else 1.0 / self.total
        constant = z.min(axis=1) == z.max(axis=1)
        z -= (z * share).sum(axis=1, keepdims=True)
        scale = np.sqrt((z**2 * share).sum(axis=1))
        constant |= scale == 0.0
        # What rounding of the mean leaves of constant columns would correlate them.
        z[constant], scale[constant] = 0.0, 1.0
        self.standardised: Floats = z / scale[:, None]
        self.log_scale: Floats = np.log(scale)
        self.correlation: Floats = (self.standardised * share) @ self.standardised.T
        self.correlation += RIDGE * np.eye(len(z))

    def _check(self, values: Floats) -> None:
        if len(values) == 0:
            raise ValueError(f"{self.who}: there is no row to score; give a table with rows")
        names = [self.names[v] for v in np.flatnonzero(np.isnan(values).any(axis=0))]
        if names:
            raise ValueError(
                f"{self.who}: missing values in {', '.join(map(repr, names))}; structure is "
                "scored on complete rows: impute them, drop them, or give the graph and fit by EM"
            )
        for v, size in enumerate(self.sizes):
            column = values[:, v]
            if size and not ((column >= 0) & (column < size) & (column == np.floor(column))).all():
                raise ValueError(
                    f"{self.who}: {self.names[v]!r} has values that are not codes 0 to {size - 1}"
                )
            if not size and not self.score.gaussian:
                raise ValueError(
                    f"{self.who}: {type(self.score).__name__} is a score for counts, and "
                    f"{self.names[v]!r} is continuous; use 'bic', or declare its states"
                )


def relabel(codes: Codes, cells: int) -> tuple[Codes, int]:
    """Number anew the codes that occur, in their order; return how many they are.

    Examples
    --------
    >>> relabel(np.array([7, 2, 7]), 9)
    (array([1, 0, 1]), 2)
    """
    seen = np.zeros(cells, bool)
    seen[codes] = True
    places = np.cumsum(seen) - 1
    return places[codes], int(places[-1]) + 1


def _sums(function: Any, counts: Sequence[Floats], cells: Floats) -> Floats:
    """Sum a function over each array of counts, with its number of cells."""
    lengths = np.array([len(each) for each in counts])
    terms = function(np.concatenate(counts), np.repeat(cells, lengths))
    return np.asarray(np.add.reduceat(terms, np.cumsum(lengths) - lengths), np.float64)


def _regression(covariance: Floats) -> tuple[Floats, Floats]:
    """Slopes of the last variable on the others, and what variance they leave: (..., k), (...)."""
    across = covariance[..., :-1, -1]
    solved = np.linalg.solve(covariance[..., :-1, :-1], across[..., None])
    slopes = np.asarray(solved[..., 0], np.float64)
    left = covariance[..., -1, -1] - (slopes * across).sum(axis=-1)
    return slopes, np.asarray(np.maximum(left, RIDGE), np.float64)


def _normal(n: Any, variance: Floats) -> Floats:
    """Log likelihood of n residuals at the variance that they have."""
    return np.asarray(-0.5 * n * (np.log(2.0 * np.pi * variance) + 1.0), np.float64)
