"""The conditional distribution of a discrete node some of whose parents are numbers."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, chosen
from ppl_gen.engines.base import RandomSource

Array = Any
Parameters = dict[str, Any]
Statistics = dict[str, Any]

#: Prior precision of coefficients of a softmax, of standardised parents.
SOFTMAX_PRECISION = 0.16  # deviation 2.5: Gelman et al., Annals of Applied Statistics 2, 2008


@dataclasses.dataclass(frozen=True, eq=False)
class Softmax:
    """A discrete node with numbers among its parents: a logistic regression of several classes.

    Parameters
    ----------
    node : int
    parents : tuple of int
        Discrete ones: each configuration has coefficients of its own.
    sizes : tuple of int
        Of the discrete parents, and of the node.
    regressors : tuple of int
        Parents that are numbers.
    origin, scale : (C,)
        Means and variances of the regressors in the training rows.
    reach : (C,)
        How far from its mean each regressor gets there.
    """

    kind: ClassVar[str] = "softmax"
    one_pass: ClassVar[bool] = False

    node: int
    parents: tuple[int, ...]
    sizes: tuple[int, ...]
    regressors: tuple[int, ...]
    origin: Array
    scale: Array
    reach: Array

    @property
    def scope(self) -> tuple[int, ...]:
        """Discrete nodes that the density depends on."""
        return (*self.parents, self.node)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Columns of numbers that the density depends on."""
        return self.regressors

    @property
    def prior_deviation(self) -> Array:
        """Of the normal priors of intercept at the origin and coefficients: (C + 1,)."""
        spread = np.sqrt(self.scale)
        return SOFTMAX_PRECISION**-0.5 / np.concatenate([[1.0], spread])

    def with_prior(self) -> "Softmax":
        """Return the conditional itself: without its prior, separable rows have no estimate."""
        return self

    def log_table(self, parameters: Parameters, x: Array) -> Array:
        """Log probability of each state of each row, for each configuration: (n, *sizes)."""
        xp = array_namespace(parameters["intercept"], x)
        coefficients = parameters["coefficients"]
        shape = (-1, coefficients.shape[-2], coefficients.shape[-1])
        flat = xp.reshape(coefficients, shape)  # (Q, C, K)
        logits = xp.reshape(parameters["intercept"], (1, -1, self.sizes[-1]))
        for place, regressor in enumerate(self.regressors):
            logits = logits + x[:, regressor, None, None] * flat[:, place]
        top = xp.max(logits, axis=-1, keepdims=True)
        total = xp.log(xp.sum(xp.exp(logits - top), axis=-1, keepdims=True)) + top
        return xp.reshape(logits - total, (x.shape[0], *self.sizes))

    def statistics(self, parameters: Parameters, x: Array, shares: Array) -> Statistics:
        """Gradient and curvature, and where both were taken; all add over rows."""
        u = np.concatenate([np.ones((len(x), 1)), x[:, self.regressors] - self.origin], axis=1)
        by_row = shares.reshape(len(x), -1, self.sizes[-1])  # (n, Q, K)
        weight = by_row.sum(axis=-1)  # (n, Q)
        probs = np.exp(self.log_table(parameters, x)).reshape(by_row.shape)
        weighed = weight[:, :, None] * probs
        n_states, width = self.sizes[-1], u.shape[1]
        curvature = np.empty((weight.shape[1], width, n_states, width, n_states))
        for k in range(n_states):
            for j in range(k, n_states):
                share = weighed[:, :, k] * ((k == j) - probs[:, :, j])
                block = np.swapaxes(share.T[:, :, None] * u, 1, 2) @ u  # (Q, C + 1, C + 1)
                curvature[:, :, k, :, j] = curvature[:, :, j, :, k] = block
        total = weight.sum()
        return {
            "gradient": np.moveaxis(np.tensordot(u.T, by_row - weighed, axes=1), 1, 0),
            "curvature": curvature,
            "weight": total,
            "anchor": total * self._at_origin(parameters),
        }

    def _at_origin(self, parameters: Parameters) -> Array:
        """Coefficients about the origin, with the intercept first: (Q, C + 1, K)."""
        n_states = self.sizes[-1]
        coefficients = parameters["coefficients"].reshape(-1, len(self.regressors), n_states)
        shift = np.einsum("c,qck->qk", self.origin, coefficients)
        intercept = parameters["intercept"].reshape(-1, n_states) + shift
        return np.concatenate([intercept[:, None], coefficients], axis=1)

    def estimate(self, statistics: Statistics) -> Parameters:
        """Take one step of Newton's method, no longer than is sure to climb.

        Along any direction, the third derivative of a row's log likelihood is at most the second
        times the range of what the states' logits change by. Where that is at most R in all rows,
        a step of length t gains at least ``t g'p - (exp(R t) - R t - 1) / R^2 p'Hp``, which is
        largest at ``t = log(1 + R) / R``: nothing is lost near the mode, where Newton's method
        converges quadratically (Bach, Electronic Journal of Statistics 4, 2010, proposition 1;
        Sun & Tran-Dinh, Mathematical Programming 178, 2019, section 4).
        """
        n_states = self.sizes[-1]
        anchor = statistics["anchor"] / statistics["weight"]
        precision = self.prior_deviation**-2.0  # (C + 1,)
        pull = statistics["gradient"] - precision[:, None] * anchor
        cells = anchor[0].size
        curvature = statistics["curvature"].reshape(-1, cells, cells)
        curvature = curvature + np.diag(np.repeat(precision, n_states))
        step = np.linalg.solve(curvature, pull.reshape(-1, cells, 1)).reshape(anchor.shape)
        apart = np.abs(step[:, :, :, None] - step[:, :, None, :])  # (Q, C + 1, K, K)
        largest = apart[:, 0] + np.tensordot(apart[:, 1:], self.reach, axes=(1, 0))
        top = np.maximum(largest.max(axis=(1, 2)), 1e-12)
        step *= (np.log1p(top) / top)[:, None, None]
        found = anchor + step
        coefficients = found[:, 1:]
        intercept = found[:, 0] - np.einsum("c,qck->qk", self.origin, coefficients)
        lead = self.sizes[:-1]
        return {
            "intercept": intercept.reshape(*lead, n_states),
            "coefficients": coefficients.reshape(*lead, len(self.regressors), n_states),
        }

    def penalty(self, parameters: Parameters) -> float:
        """Negative log prior, up to its constant."""
        scaled = self._at_origin(parameters) / self.prior_deviation[:, None]
        return 0.5 * float((scaled**2).sum())

    def start(self, rng: np.random.Generator) -> Parameters:
        """Parameters to start from: all states alike, but for a little noise."""
        lead, n_states = self.sizes[:-1], self.sizes[-1]
        noise = 0.1 * rng.standard_normal((*lead, n_states))
        return {
            "intercept": noise,
            "coefficients": np.zeros((*lead, len(self.regressors), n_states)),
        }

    def sample(self, parameters: Parameters, x: list[Array], random: RandomSource) -> Array:
        """Draw the node given the columns of its parents: (n,) codes."""
        xp = array_namespace(parameters["intercept"])
        intercept, coefficients = parameters["intercept"], parameters["coefficients"]
        if self.parents:
            codes = xp.stack([x[p] for p in self.parents], axis=1)
            intercept, coefficients = chosen(intercept, codes), chosen(coefficients, codes)
        else:
            intercept, coefficients = intercept[None], coefficients[None]
        logits = intercept
        for place, regressor in enumerate(self.regressors):
            logits = logits + x[regressor][:, None] * coefficients[:, place]
        shares = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
        return random.categorical(shares / xp.sum(shares, axis=-1, keepdims=True))

    @property
    def n_free(self) -> int:
        """Number of free parameters."""
        configurations = int(np.prod(self.sizes[:-1], dtype=int))
        return configurations * (len(self.regressors) + 1) * (self.sizes[-1] - 1)
