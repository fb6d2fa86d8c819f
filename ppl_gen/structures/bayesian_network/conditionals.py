"""Conditional distributions of the nodes of a network given their parents.

Each is settings only; parameters stand apart, as dicts of arrays:

========== ================================================================================
tabular    ``{"table": (*parent sizes, size)}``, whose last axis sums to one
linear     ``{"intercept": (*sizes), "coefficients": (*sizes, C), "variance": (*sizes)}`` of a
Gaussian   number on its C parents that are numbers, for each configuration of those that are not
softmax    ``{"intercept": (*sizes, K), "coefficients": (*sizes, C, K)}`` of a node of K states
========== ================================================================================

`scope` is the discrete nodes that the log density of a row depends on; :meth:`log_table` gives that
density for all their states. What is summed over rows is written once, in terms of shares
``(n, *sizes of the scope)``: the probability of each configuration in each row.
"""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside, chosen
from ppl_gen.engines.base import RandomSource
from ppl_gen.structures.bayesian_network.softmax import Softmax

Array = Any
Parameters = dict[str, Any]
Statistics = dict[str, Any]

LOG_2PI = math.log(2.0 * math.pi)
#: Least variance, as a share of the column's own.
VARIANCE_FLOOR = 1e-6
#: Squared share of a regressor that the others leave, below which it counts as theirs.
COLLINEAR = 1e-12
#: Prior rows behind intercepts and coefficients, once standardised.
SHRINKAGE = 0.01
#: Degrees of freedom of the prior of a variance: with the column's own variance as its scale, the
#: default of Fraley & Raftery (Journal of Classification 24, 2007, section 3.2) for one column.
PRIOR_DOF = 3.0


@dataclasses.dataclass(frozen=True, eq=False)
class Tabular:
    """A discrete node with discrete parents: a table.

    Parameters
    ----------
    node : int
    parents : tuple of int
    sizes : tuple of int
        Of the parents, and of the node.
    pseudocount : (*sizes) or None
        Prior count of each cell, added to those of the rows; None is maximum likelihood under EM
        and a uniform prior for posteriors.
    fixed : (*sizes) or None
        The table of a node that is set, which has no prior.
    """

    kind: ClassVar[str] = "tabular"
    one_pass: ClassVar[bool] = True

    node: int
    parents: tuple[int, ...]
    sizes: tuple[int, ...]
    pseudocount: Array | None = None
    fixed: Array | None = None

    @property
    def scope(self) -> tuple[int, ...]:
        """Discrete nodes that the density depends on."""
        return (*self.parents, self.node)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Columns of numbers that the density depends on."""
        return ()

    @property
    def concentration(self) -> Array:
        """Of the Dirichlet prior of each row: (*sizes)."""
        return np.ones(self.sizes) if self.pseudocount is None else self.pseudocount

    def with_prior(self) -> "Tabular":
        """Return the conditional with its prior in force under EM too."""
        return dataclasses.replace(self, pseudocount=self.concentration)

    def log_table(self, parameters: Parameters, x: Array) -> Array:
        """Log probability of each cell: (*sizes)."""
        table = parameters["table"]
        xp = array_namespace(table)
        if xp is np:
            with np.errstate(divide="ignore"):
                return np.log(table)
        empty = table == 0.0
        # No gradient flows where there is no probability.
        logs = xp.log(xp.where(empty, xp.ones_like(table), table))
        return xp.where(empty, xp.zeros_like(logs) - math.inf, logs)

    def statistics(self, parameters: Parameters, x: Array, shares: Array) -> Statistics:
        """Counts of the cells, from the shares (n, *sizes) times the rows' weights."""
        return {"count": shares.sum(axis=0)}

    def estimate(self, statistics: Statistics) -> Parameters:
        """Shares of the counts, and of the prior's; uniform where there is neither."""
        count = statistics["count"]
        if self.pseudocount is not None:
            count = count + self.pseudocount
        total = count.sum(axis=-1, keepdims=True)
        seen = total > 0.0
        table = np.where(seen, count / np.where(seen, total, 1.0), 1.0 / self.sizes[-1])
        return {"table": table}

    def log_likelihood(self, parameters: Parameters, statistics: Statistics) -> float:
        """Log likelihood of the rows that were counted."""
        seen = statistics["count"] > 0.0
        return float((statistics["count"][seen] * np.log(parameters["table"][seen])).sum())

    def penalty(self, parameters: Parameters) -> float:
        """Negative log prior: the mode in the softmax basis of Dirichlet(pseudocount)."""
        if self.pseudocount is None:
            return 0.0
        weighed = self.pseudocount > 0.0
        return -float((self.pseudocount[weighed] * np.log(parameters["table"][weighed])).sum())

    def start(self, rng: np.random.Generator) -> Parameters:
        """Parameters to start from where the rows say nothing."""
        return {"table": rng.dirichlet(np.full(self.sizes[-1], 2.0), size=self.sizes[:-1])}

    def sample(self, parameters: Parameters, x: list[Array], random: RandomSource) -> Array:
        """Draw the node given the columns of its parents: (n,) codes."""
        xp = array_namespace(parameters["table"])
        if not self.parents:
            n_rows = x[0].shape[0]
            table = parameters["table"]
            return random.categorical(xp.broadcast_to(table, (n_rows, *table.shape)))
        codes = xp.stack([x[p] for p in self.parents], axis=1)
        return random.categorical(chosen(parameters["table"], codes))

    def draw_posterior(
        self, statistics: Statistics, n_draws: int, rng: np.random.Generator
    ) -> Parameters:
        """Independent draws of the Dirichlet posteriors: (n_draws, *sizes)."""
        concentration = statistics["count"] + self.concentration
        # As logarithms: gamma draws of small concentrations underflow to zero, all of a row's.
        drawn = rng.gamma(concentration + 1.0, size=(n_draws, *self.sizes))
        logs = np.log(drawn) + np.log(rng.random(drawn.shape)) / concentration
        logs -= logs.max(axis=-1, keepdims=True)
        table = np.exp(logs)
        return {"table": table / table.sum(axis=-1, keepdims=True)}

    @property
    def n_free(self) -> int:
        """Number of free parameters."""
        if self.fixed is not None:
            return 0
        return int(np.prod(self.sizes[:-1], dtype=int)) * (self.sizes[-1] - 1)


@dataclasses.dataclass(frozen=True, eq=False)
class LinearGaussian:
    """A number with a normal distribution, linear in its parents that are numbers.

    Parameters
    ----------
    node : int
    parents : tuple of int
        Discrete ones: each configuration has coefficients of its own.
    sizes : tuple of int
        Of the discrete parents.
    regressors : tuple of int
        Parents that are numbers.
    origin : (C + 1,)
        Means of the regressors and of the node in the training rows, about which sums are taken.
    scale : (C + 1,)
        Their variances, which give the prior its units, and the variance its floor.
    proper : bool
        Whether EM maximises the posterior, too.
    fixed : (2,) or None
        Mean and variance of a number that is set, which has no parents and no prior. That it is
        this number is certain: the variance is only for those who ask for one.
    """

    kind: ClassVar[str] = "linear_gaussian"
    one_pass: ClassVar[bool] = True

    node: int
    parents: tuple[int, ...]
    sizes: tuple[int, ...]
    regressors: tuple[int, ...]
    origin: Array
    scale: Array
    proper: bool = False
    fixed: Array | None = None

    @property
    def scope(self) -> tuple[int, ...]:
        """Discrete nodes that the density depends on."""
        return self.parents

    @property
    def numbers(self) -> tuple[int, ...]:
        """Columns of numbers that the density depends on."""
        return (*self.regressors, self.node)

    def with_prior(self) -> "LinearGaussian":
        """Return the conditional with its prior in force under EM too."""
        return dataclasses.replace(self, proper=True)

    def log_table(self, parameters: Parameters, x: Array) -> Array:
        """Log density of the node of each row, for each configuration: (n, *sizes)."""
        xp = array_namespace(parameters["intercept"], x)
        flat = (math.prod(self.sizes), len(self.regressors))
        coefficients = xp.reshape(parameters["coefficients"], flat)
        intercept, variance = (
            xp.reshape(parameters[name], (-1,)) for name in ("intercept", "variance")
        )
        log_density = self._log_density(x, intercept, coefficients, variance)
        return xp.reshape(log_density, (x.shape[0], *self.sizes))

    def log_density_at(self, parameters: Parameters, x: Array, place: Array) -> Array:
        """Log density of the node of each row, of the configuration of this number: (n,)."""
        coefficients = np.reshape(
            parameters["coefficients"], (math.prod(self.sizes), 1, len(self.regressors))
        )[place]
        intercept, variance = (
            np.reshape(parameters[name], (-1, 1))[place] for name in ("intercept", "variance")
        )
        return self._log_density(x, intercept, coefficients, variance)[:, 0]

    def _log_density(
        self, x: Array, intercept: Array, coefficients: Array, variance: Array
    ) -> Array:
        xp, mean = array_namespace(intercept, x), intercept
        if self.fixed is not None:
            same = x[:, self.node, None] == beside(x, self.fixed[:1])
            zero = xp.zeros_like(x[:, self.node, None]) + xp.zeros_like(intercept)
            return xp.where(same, zero, zero - math.inf)
        for place, regressor in enumerate(self.regressors):
            mean = mean + x[:, regressor, None] * coefficients[..., place]
        away = x[:, self.node, None] - mean
        with np.errstate(over="ignore"):  # so far off, there is no density
            return -0.5 * (away * away / variance + xp.log(variance) + LOG_2PI)

    def statistics(self, parameters: Parameters, x: Array, shares: Array) -> Statistics:
        """Moments of (1, regressors, node) about the origin: (*sizes, C + 2, C + 2)."""
        z = np.concatenate([np.ones((len(x), 1)), x[:, self.numbers] - self.origin], axis=1)
        weighed = shares.reshape(len(x), -1).T[:, :, None] * z  # (Q, n, C + 2)
        return {"moment": self._shaped(np.swapaxes(weighed, 1, 2) @ z)}

    def counted(self, x: Array, place: Array, weights: Array) -> Statistics:
        """Return :meth:`statistics` of rows whose configurations (n,) are known, by number."""
        z = np.concatenate([np.ones((len(x), 1)), x[:, self.numbers] - self.origin], axis=1).T
        width, cells = len(z), math.prod(self.sizes)
        moment = np.empty((cells, width, width))
        for i in range(width):
            own = weights * z[i]
            for j in range(i, width):
                moment[:, i, j] = moment[:, j, i] = np.bincount(place, own * z[j], cells)
        return {"moment": self._shaped(moment)}

    def _shaped(self, moment: Array) -> Array:
        return moment.reshape(*self.sizes, *moment.shape[-2:])

    def moments(self, count: Array, total: Array, square: Array) -> Statistics:
        """Return :meth:`statistics` from moments of the columns `numbers` about the origin."""
        width = len(self.numbers)
        moment = np.empty((*count.shape, width + 1, width + 1))
        moment[..., 0, 0] = count
        moment[..., 0, 1:] = moment[..., 1:, 0] = total
        moment[..., 1:, 1:] = square
        return {"moment": moment}

    @property
    def _precision(self) -> Array:
        """Prior precision of the intercept at the origin and of the coefficients: (C + 1,)."""
        return SHRINKAGE * np.concatenate([[1.0], self.scale[:-1]])

    @property
    def prior(self) -> dict[str, Any]:
        """Of the variance, and given it of the coefficients and the intercept at the origin."""
        return {
            "shape": 0.5 * PRIOR_DOF,
            "rate": 0.5 * self.scale[-1],
            "precision": self._precision,
            "origin": self.origin,
        }

    def _solved(self, moment: Array) -> tuple[Array, Array, Array]:
        """Posterior means of the coefficients at the origin, residual sum, precision."""
        gram = moment[..., :-1, :-1].copy()
        cross, square = moment[..., :-1, -1], moment[..., -1, -1]
        diagonal = np.arange(gram.shape[-1])
        gram[..., diagonal, diagonal] += self._precision
        solution = np.linalg.solve(gram, cross[..., None])[..., 0]
        residual = square - (solution * cross).sum(axis=-1)
        return solution, np.maximum(residual, 0.0), gram

    def _least_squares(self, moment: Array) -> tuple[Array, Array]:
        """Coefficients at the origin (..., C + 1), residual sum (...).

        What the rows leave open, as where regressors are collinear, is at zero.
        """
        gram, cross = moment[..., :-1, :-1], moment[..., :-1, -1]
        length = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
        units = np.where(length > 0.0, length, 1.0)
        scaled = gram / (units[..., :, None] * units[..., None, :])
        inverse = np.linalg.pinv(scaled, rcond=COLLINEAR, hermitian=True)
        solution = (inverse @ (cross / units)[..., None])[..., 0] / units
        away = np.concatenate([-solution, np.ones((*solution.shape[:-1], 1))], axis=-1)
        residual = np.einsum("...i,...ij,...j->...", away, moment, away)
        return solution, np.maximum(residual, 0.0)

    def estimate(self, statistics: Statistics) -> Parameters:
        """Least squares, or the posterior mode of coefficients and variance."""
        moment = statistics["moment"]
        count = moment[..., 0, 0]
        if self.proper:
            solution, residual, _ = self._solved(moment)
            added = solution.shape[-1] + PRIOR_DOF + 2.0
            variance = (residual + self.scale[-1]) / (count + added)
        else:
            solution, residual = self._least_squares(moment)
            variance = np.where(count > 0.0, residual / np.where(count > 0.0, count, 1.0), np.inf)
            variance = np.where(np.isfinite(variance), variance, self.scale[-1])
        variance = np.maximum(variance, VARIANCE_FLOOR * self.scale[-1])
        return self._in_units(solution, variance)

    def _in_units(self, solution: Array, variance: Array) -> Parameters:
        coefficients = solution[..., 1:]
        shift = coefficients @ self.origin[:-1]
        intercept = self.origin[-1] + solution[..., 0] - shift
        return {"intercept": intercept, "coefficients": coefficients, "variance": variance}

    def _at_origin(self, parameters: Parameters) -> Array:
        """Intercept at the origin, and coefficients: (*sizes, C + 1)."""
        coefficients = parameters["coefficients"]
        intercept = parameters["intercept"] - self.origin[-1] + coefficients @ self.origin[:-1]
        return np.concatenate([intercept[..., None], coefficients], axis=-1)

    def log_likelihood(self, parameters: Parameters, statistics: Statistics) -> float:
        """Log likelihood of the rows whose moments were taken."""
        moment, variance = statistics["moment"], parameters["variance"]
        solution = self._at_origin(parameters)
        away = np.concatenate([-solution, np.ones((*self.sizes, 1))], axis=-1)
        residual = np.einsum("...i,...ij,...j->...", away, moment, away)
        count = moment[..., 0, 0]
        return -0.5 * float((count * (np.log(variance) + LOG_2PI) + residual / variance).sum())

    def penalty(self, parameters: Parameters) -> float:
        """Negative log prior, up to its constant."""
        if not self.proper:
            return 0.0
        variance, solution = parameters["variance"], self._at_origin(parameters)
        square = (solution**2 * self._precision).sum(axis=-1)
        half = 0.5 * (solution.shape[-1] + PRIOR_DOF + 2.0)
        return float((half * np.log(variance) + 0.5 * (square + self.scale[-1]) / variance).sum())

    def start(self, rng: np.random.Generator) -> Parameters:
        """Parameters to start from where the rows say nothing."""
        spread = np.sqrt(self.scale)
        # Not zero, from where a number that is hidden never comes to matter.
        slopes = 0.5 * rng.standard_normal((*self.sizes, len(self.regressors)))
        level = self.origin[-1] + spread[-1] * rng.standard_normal(self.sizes)
        slopes = slopes * (spread[-1] / spread[:-1])
        return {
            "intercept": level - slopes @ self.origin[:-1],
            "coefficients": slopes,
            "variance": np.full(self.sizes, self.scale[-1]),
        }

    def sample(self, parameters: Parameters, x: list[Array], random: RandomSource) -> Array:
        """Draw the node given the columns of its parents: (n,)."""
        xp = array_namespace(parameters["intercept"])
        n_rows = x[0].shape[0]
        if self.parents:
            codes = xp.stack([x[p] for p in self.parents], axis=1)
            intercept, coefficients, variance = (
                chosen(parameters[name], codes)
                for name in ("intercept", "coefficients", "variance")
            )
        else:
            intercept, variance = parameters["intercept"], parameters["variance"]
            coefficients = parameters["coefficients"][None]
        mean = intercept
        for place, regressor in enumerate(self.regressors):
            mean = mean + x[regressor] * coefficients[:, place]
        if self.fixed is not None:
            return xp.broadcast_to(mean, (n_rows,))
        return mean + xp.sqrt(variance) * random.normal((n_rows,))

    def draw_posterior(
        self, statistics: Statistics, n_draws: int, rng: np.random.Generator
    ) -> Parameters:
        """Independent draws of the normal-inverse-gamma posteriors (Gelman et al., 14.2)."""
        moment = statistics["moment"]
        solution, residual, gram = self._solved(moment)
        shape = 0.5 * (PRIOR_DOF + moment[..., 0, 0])
        rate = 0.5 * (self.scale[-1] + residual)
        variance = rate / rng.standard_gamma(shape, size=(n_draws, *self.sizes))
        factor = np.linalg.cholesky(gram)
        noise = rng.standard_normal((n_draws, *solution.shape, 1))
        spread = np.linalg.solve(np.swapaxes(factor, -1, -2), noise)[..., 0]
        return self._in_units(solution + np.sqrt(variance)[..., None] * spread, variance)

    @property
    def n_free(self) -> int:
        """Number of free parameters."""
        if self.fixed is not None:
            return 0
        return int(np.prod(self.sizes, dtype=int)) * (len(self.regressors) + 2)


NodeConditional = Tabular | LinearGaussian | Softmax


def set_number(conditional: NodeConditional) -> float | None:
    """Return the number that a node was set to, if it was."""
    if isinstance(conditional, LinearGaussian) and conditional.fixed is not None:
        return float(conditional.fixed[0])
    return None
