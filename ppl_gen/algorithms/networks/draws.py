"""Draws from discrete Bayesian networks: forward, weighted by evidence, and by Gibbs sampling.

A network of V nodes is given as `parents`, the numbers of each node's parents, and `tables`, an
array (*sizes of the parents, size) for each node whose last axis sums to one. Draws are codes,
integers (n, V). Evidence is a code of a node; a likelihood is a vector over a node's states
(virtual evidence of Pearl).

Use these where exact inference would need too large a table: what they return comes with the
Monte Carlo error of each number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from ppl_gen.algorithms.convergence import bulk_ess, rhat
from ppl_gen.algorithms.networks.scan import topological_order

__all__ = [
    "DrawnTable",
    "GibbsDraws",
    "chain_table",
    "effective_size",
    "gibbs",
    "likelihood_weighting",
    "weighted_table",
]

Array = NDArray[np.float64]
Codes = NDArray[np.int32]
Parents = Sequence[Sequence[int]]

#: Weighted draws among which the chains of `gibbs` look for their first states, and how often.
_STARTS = 4096
_ATTEMPTS = 16
#: States of a Markov blanket for which `gibbs` keeps the conditional distribution of its node.
_MERGED = 2**16


def likelihood_weighting(
    parents: Parents,
    tables: Sequence[Array],
    evidence: Mapping[int, int],
    likelihoods: Mapping[int, Array],
    n: int,
    rng: np.random.Generator,
) -> tuple[Codes, Array]:
    r"""Draw the nodes without evidence forward, and weight each draw by its evidence.

    A node with a likelihood is drawn from its table times the likelihood, with the sum of that
    product as its weight, so that only evidence on descendants makes the weights vary.

    Parameters
    ----------
    parents : sequence of V sequences of node numbers
    tables : sequence of V arrays, each (*sizes of the parents, size)
    evidence : dict of node to code
    likelihoods : dict of node to array, shape (size,)
        Not negative; on a node that has evidence too, its entry there is a constant factor.
    n : int
        Number of draws.
    rng : numpy Generator

    Returns
    -------
    codes : integer array, shape (n, V)
        Nodes with evidence hold it.
    log_weights : ndarray, shape (n,)
        Their mean in the linear scale is an unbiased estimate of the probability of the evidence.
        Minus infinity for a draw that the evidence excludes: if all are, the evidence has
        probability zero, or one too small for n draws to meet.

    References
    ----------
    Fung, R. and Chang, K.-C. (1990). Weighing and integrating evidence for stochastic simulation
    in Bayesian networks. Uncertainty in Artificial Intelligence 5.
    Shachter, R. and Peot, M. (1990). Simulation approaches to general probabilistic inference on
    belief networks. Uncertainty in Artificial Intelligence 5.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rain, wet = np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.0, 1.0]])
    >>> codes, log_weights = likelihood_weighting([(), (0,)], [rain, wet], {1: 1}, {}, 4000, rng)
    >>> weighted_table(codes, log_weights, [0], [2, 2]).probabilities.round(1)
    array([0.3, 0.7])
    """
    codes = np.zeros((n, len(parents)), dtype=np.int32)
    weights = np.zeros(n)
    # A draw excluded by its evidence has weight zero, whose log is minus infinity.
    with np.errstate(divide="ignore"):
        for v in topological_order([tuple(above) for above in parents]):
            table = np.asarray(tables[v], dtype=np.float64)
            if v in likelihoods:
                table = table * likelihoods[v]
            rows = _rows(codes, parents[v], table.shape[:-1])
            table = table.reshape(-1, table.shape[-1])
            if v in evidence:
                codes[:, v] = evidence[v]
                weights += np.log(table[:, evidence[v]])[rows]
            else:
                codes[:, v] = _draw(_cumulative(table), rows, rng.random(n))
                if v in likelihoods:
                    weights += np.log(table.sum(axis=1))[rows]
    return codes, weights


def _rows(codes: Codes, scope: Sequence[int], sizes: Sequence[int]) -> NDArray[np.intp]:
    """Return the row of a flattened table, axes of `sizes`, that the codes of `scope` choose."""
    rows = np.zeros(len(codes), dtype=np.intp)
    for v, size in zip(scope, sizes, strict=True):
        rows *= size
        rows += codes[:, v]
    return rows


def _cumulative(table: Array) -> Array:
    """Return the shares of each row of weights, summed up; rows of zeros are ones."""
    cumulative = np.cumsum(table, axis=1)
    total = cumulative[:, -1:]
    # Divided so that the last state of positive weight reaches exactly one: a uniform never does.
    return np.divide(cumulative, total, out=np.ones_like(table), where=total > 0)


def _draw(cumulative: Array, rows: NDArray[np.intp], uniform: Array) -> NDArray[np.intp]:
    """Return one state for each of the rows chosen; none that has no weight beside others."""
    states = np.zeros(len(rows), dtype=np.intp)
    for bound in cumulative.T[:-1]:
        states += uniform >= bound[rows]
    return states


def effective_size(log_weights: Array) -> float:
    """Kish's effective number of weighted draws, (sum w)^2 / sum w^2; zero if all weights are.

    Parameters
    ----------
    log_weights : ndarray, shape (n,)

    References
    ----------
    Kish, L. (1965). Survey Sampling, section 11.7. Wiley.

    Examples
    --------
    >>> round(effective_size(np.log([0.5, 0.5, 1e-9])), 3)
    2.0
    """
    if not len(log_weights) or np.max(log_weights) == -np.inf:
        return 0.0
    weights = np.exp(log_weights - np.max(log_weights))
    return float(weights.sum() ** 2 / (weights @ weights))


class DrawnTable(NamedTuple):
    """A table of probabilities estimated from draws.

    Attributes
    ----------
    probabilities : ndarray, one axis a target
        NaN where no draw has positive weight.
    errors : ndarray, of the same shape
        Monte Carlo standard error of each probability. It says nothing of a cell that no draw,
        or a handful of draws, is in: take such a probability to be known to about 3 / ess.
    ess : float
        Effective number of draws: Kish's, or the least over the cells of the chains.
    rhat : float
        Largest rank-normalised split R-hat over the cells of the chains; NaN for weighted draws.
    """

    probabilities: Array
    errors: Array
    ess: float
    rhat: float


def weighted_table(
    codes: Codes, log_weights: Array, targets: Sequence[int], sizes: Sequence[int]
) -> DrawnTable:
    r"""Estimate the joint distribution of some nodes from weighted draws.

    The error is that of a ratio of two means: :math:`\sum_i w_i^2 (1[x_i = c] - p_c)^2`, with
    weights that sum to one, is the variance of :math:`p_c`.

    Parameters
    ----------
    codes : integer array, shape (n, V)
    log_weights : ndarray, shape (n,)
    targets : sequence of node numbers
        The axes of the table, in this order.
    sizes : sequence of V integers

    Returns
    -------
    DrawnTable
        With an `ess` of zero and probabilities of NaN if all weights are zero.

    References
    ----------
    Owen, A. (2013). Monte Carlo Theory, Methods and Examples, equation 9.8.
    """
    shape = tuple(sizes[v] for v in targets)
    ess = effective_size(log_weights)
    if ess == 0.0:
        empty = np.full(shape, np.nan)
        return DrawnTable(empty, empty.copy(), 0.0, np.nan)
    weights = np.exp(log_weights - np.max(log_weights))
    cells, n_cells = _rows(codes, targets, shape), int(np.prod(shape))
    sums = np.asarray(np.bincount(cells, weights, n_cells), dtype=np.float64)
    squares = np.bincount(cells, weights**2, n_cells)
    total = sums.sum()  # over cells, so that all weight in one of them gives exactly one
    p = sums / total
    variance = ((1.0 - p) ** 2 * squares + p**2 * (squares.sum() - squares)) / total**2
    errors = np.sqrt(np.maximum(variance, 0.0))  # a difference of squares may round below zero
    return DrawnTable(p.reshape(shape), errors.reshape(shape), ess, np.nan)


class GibbsDraws(NamedTuple):
    """What `gibbs` returns.

    Attributes
    ----------
    codes : integer array, shape (chains, sweeps, V)
        No chain at all where no state of positive probability was met to start from: then the
        evidence has probability zero, or one too small to meet.
    bound : tuple of node numbers
        Nodes whose states exclude each other, given the evidence, other than one by one. Where
        there are some, single moves may never join parts of the distribution; where there is
        none, the chains are ergodic.
    """

    codes: Codes
    bound: tuple[int, ...]


def gibbs(
    parents: Parents,
    tables: Sequence[Array],
    evidence: Mapping[int, int],
    likelihoods: Mapping[int, Array],
    chains: int,
    sweeps: int,
    rng: np.random.Generator,
) -> GibbsDraws:
    """Draw by Gibbs sampling, all chains side by side.

    A sweep draws every node without evidence given its Markov blanket. Chains start at states
    drawn by weight from `likelihood_weighting`, so that a start has positive probability; half as
    many sweeps as are kept run before them and are dropped.

    Parameters
    ----------
    parents : sequence of V sequences of node numbers
    tables : sequence of V arrays, each (*sizes of the parents, size)
    evidence : dict of node to code
    likelihoods : dict of node to array, shape (size,)
    chains, sweeps : int
    rng : numpy Generator

    Returns
    -------
    GibbsDraws

    References
    ----------
    Pearl, J. (1987). Evidential reasoning using stochastic simulation of causal models.
    Artificial Intelligence 32.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rain, wet = np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> draws = gibbs([(), (0,)], [rain, wet], {1: 1}, {}, chains=8, sweeps=500, rng=rng)
    >>> chain_table(draws.codes, [0], [2, 2]).probabilities.round(1)
    array([0.3, 0.7])
    >>> draws.bound
    ()
    """
    bound = _bound(parents, tables, evidence, likelihoods)
    state = _start(parents, tables, evidence, likelihoods, chains, rng)
    kept = np.empty((sweeps, len(state), len(parents)), dtype=np.int32)
    blankets = {
        v: _blanket(v, parents, tables, likelihoods)
        for v in topological_order([tuple(above) for above in parents])
        if v not in evidence
    }
    each = np.arange(len(state))
    for sweep in range(-(sweeps // 2), sweeps):
        uniform = rng.random((len(parents), len(state)))
        for v, (factors, cumulative) in blankets.items():
            if cumulative is not None:
                (scope, sizes, _), own = factors[0], cumulative
                rows = _rows(state, scope, sizes)
            else:
                logs = sum(table[_rows(state, scope, sizes)] for scope, sizes, table in factors)
                own, rows = _cumulative(_weights(np.asarray(logs))), each
            state[:, v] = _draw(own, rows, uniform[v])
        if sweep >= 0:
            kept[sweep] = state
    return GibbsDraws(kept.transpose(1, 0, 2), bound)


#: Scope less the node, sizes of it, and log weights (cells, size of the node).
Factor = tuple[list[int], list[int], Array]


def _blanket(
    v: int,
    parents: Parents,
    tables: Sequence[Array],
    likelihoods: Mapping[int, Array],
) -> tuple[list[Factor], Array | None]:
    """Factors that hold a node; multiplied into one if that is small, with its sums by row."""
    factors: list[Factor] = []
    size: dict[int, int] = {}
    # A probability of zero has the log minus infinity, and excludes its state.
    with np.errstate(divide="ignore"):
        if v in likelihoods:
            factors.append(([], [], np.log(np.asarray(likelihoods[v], dtype=np.float64))[None]))
        for child, above in enumerate(parents):
            scope = [*above, child]
            if v in scope:
                table = np.moveaxis(np.asarray(tables[child]), scope.index(v), -1)
                scope.remove(v)
                sizes = list(table.shape[:-1])
                size.update(zip(scope, sizes, strict=True))
                factors.append((scope, sizes, np.log(table.reshape(-1, table.shape[-1]))))
    if math.prod(size.values()) > _MERGED:
        return factors, None
    merged = np.zeros((*size.values(), 1))
    for scope, sizes, logs in factors:
        order = sorted(range(len(scope)), key=lambda axis: list(size).index(scope[axis]))
        table = logs.reshape(*sizes, -1).transpose(*order, -1)
        shape = [n if u in scope else 1 for u, n in size.items()]
        merged = merged + table.reshape(*shape, -1)
    flat = merged.reshape(-1, merged.shape[-1])
    return [(list(size), list(size.values()), flat)], _cumulative(_weights(flat))


def _weights(logs: Array) -> Array:
    """Exponentials relative to the largest of each row, which is of no use if it is zero."""
    top = np.max(logs, axis=1, keepdims=True)
    return np.exp(logs - np.where(np.isfinite(top), top, 0.0))


def _start(
    parents: Parents,
    tables: Sequence[Array],
    evidence: Mapping[int, int],
    likelihoods: Mapping[int, Array],
    chains: int,
    rng: np.random.Generator,
) -> Codes:
    """Return states (chains, V) drawn by weight from weighted draws; none where all are zero."""
    for _ in range(_ATTEMPTS):
        n = max(_STARTS, 8 * chains)
        codes, logs = likelihood_weighting(parents, tables, evidence, likelihoods, n, rng)
        if np.max(logs) > -np.inf:
            # Systematic resampling: one uniform, so that equal weights give distinct starts.
            edges = np.cumsum(np.exp(logs - logsumexp(logs)))
            points = (np.arange(1, chains + 1) - rng.random()) / chains  # in (0, 1]
            chosen = rng.permutation(np.searchsorted(edges / edges[-1], points))
            starts: Codes = codes[chosen]
            return starts
    return np.zeros((0, len(parents)), dtype=np.int32)


def _bound(
    parents: Parents,
    tables: Sequence[Array],
    evidence: Mapping[int, int],
    likelihoods: Mapping[int, Array],
) -> tuple[int, ...]:
    """Return nodes of tables whose positive cells, given the evidence, are no product set.

    Where the positive cells of every table are a product of sets of states, so are those of the
    joint distribution, and moves of single nodes reach all of it.
    """
    found: set[int] = set()
    for child, above in enumerate(parents):
        scope = [*above, child]
        positive = np.asarray(tables[child]) > 0
        for axis, v in enumerate(scope):
            if v in likelihoods:
                mask = np.asarray(likelihoods[v]) > 0
                positive = positive & mask.reshape([-1] + [1] * (len(scope) - 1 - axis))
        positive = positive[tuple(evidence.get(v, slice(None)) for v in scope)]
        free = [v for v in scope if v not in evidence]
        product = np.ones((), dtype=bool)
        for axis in range(len(free)):
            others = tuple(a for a in range(len(free)) if a != axis)
            product = np.logical_and.outer(product, positive.any(axis=others))
        if not np.array_equal(positive, product):
            found.update(free)
    return tuple(sorted(found))


def chain_table(codes: Codes, targets: Sequence[int], sizes: Sequence[int]) -> DrawnTable:
    """Estimate the joint distribution of some nodes from chains.

    Parameters
    ----------
    codes : integer array, shape (chains, sweeps, V)
    targets : sequence of node numbers
        The axes of the table, in this order.
    sizes : sequence of V integers

    Returns
    -------
    DrawnTable
        The error of a cell is that of a mean of its effective number of draws (Vehtari et al.
        2021; ranks of an indicator are the indicator again, rescaled). With no chain,
        probabilities are NaN and `ess` is zero.
    """
    shape = tuple(sizes[v] for v in targets)
    chains, sweeps = codes.shape[:2]
    if chains == 0:
        empty = np.full(shape, np.nan)
        return DrawnTable(empty, empty.copy(), 0.0, np.nan)
    cells = _rows(codes.reshape(chains * sweeps, -1), targets, shape)
    p = np.bincount(cells, minlength=int(np.prod(shape))) / len(cells)
    met = np.flatnonzero((p > 0) & (p < 1))
    errors = np.zeros_like(p)
    ess, worst = float(len(cells)), np.nan
    if len(met):
        inside = (cells[:, None] == met).astype(np.float64).reshape(chains, sweeps, -1)
        sizes_met = bulk_ess(inside)
        errors[met] = np.sqrt(p[met] * (1.0 - p[met]) / sizes_met)
        ess, worst = float(np.min(sizes_met)), float(np.max(rhat(inside)))
    return DrawnTable(p.reshape(shape), errors.reshape(shape), ess, worst)
