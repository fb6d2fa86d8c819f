"""The linear autoregression: regressions on lagged values, statistics, estimates, forecasts."""

import dataclasses
import math
from typing import Any

import numpy as np

from ppl_gen.algorithms import matrix_normal
from ppl_gen.algorithms.arrays import array_namespace, beside
from ppl_gen.algorithms.companion import companion_form
from ppl_gen.algorithms.kalman import (
    LinearGaussian,
    kalman_filter,
    kalman_smoother,
    predict,
    times,
)
from ppl_gen.algorithms.kalman_paths import simulate
from ppl_gen.algorithms.trees import tree_sum
from ppl_gen.language import Program
from ppl_gen.sequences import Padded, Sequences
from ppl_gen.structures.autoregression_program import make_program
from ppl_gen.structures.linear_gaussian_start import interpolated

Array = Any
Parameters = dict[str, Any]
Statistics = dict[str, Any]

LOG_2PI = math.log(2.0 * math.pi)
#: Regressors besides the lags, by trend.
TRENDS = {"n": 0, "c": 1, "ct": 2}
#: Share of a column's variance that noise keeps, however well a series is predicted.
FLOOR = 1e-12
#: Beginnings that are kept, for drawing new sequences.
STARTS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Autoregression:
    """Rows that are a linear map of the rows before them, plus normal noise.

    Parameters
    ----------
    order : int
        Lags p.
    n_columns : int
        Columns D.
    trend : {"n", "c", "ct"}
        Nothing, an intercept, or an intercept and a slope over the steps of a sequence.
    centre, spread : (D,)
        Mean and standard deviation of the columns, in which regressions are done.
    span : float
        Steps that make one unit of time there.
    prior : dict or None
        ``shrinkage``, ``dof``, and ``scale`` (D, D) in units of `spread`; None is flat.
    starts : (n, p, D)
        First steps of some sequences.

    Notes
    -----
    Parameters are ``{"coefficients": (p, D, D), "intercept": (D,), "slope": (D,),
    "noise_covariance": (D, D)}``, less what the trend leaves out; the coefficient of lag k + 1 is
    ``coefficients[k]``. The density of a sequence is that of its steps after the first p, given
    these, which must be complete; later entries may be missing, and are marginalised exactly by
    the Kalman filter of the companion form.
    """

    order: int
    n_columns: int
    trend: str = "c"
    centre: Array = None
    spread: Array = None
    span: float = 1.0
    prior: dict[str, Any] | None = None
    starts: Array = None

    @property
    def whole(self) -> tuple[bool, ...]:
        """Which columns hold whole numbers: none."""
        return (False,) * self.n_columns

    @property
    def n_regressors(self) -> int:
        """Lagged values, and what the trend adds: M."""
        return self.order * self.n_columns + TRENDS[self.trend]

    def with_prior(self) -> "Autoregression":
        """Return the structure itself: EM maximises the likelihood."""
        return self

    def to_tree(self) -> dict[str, Any]:
        """Return the structure as plain data, for an artefact."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "Autoregression":
        """Return the structure that :meth:`to_tree` gave."""
        return cls(**tree)

    def bind(self, data: Sequences) -> "Autoregression":
        """Return the structure with the units of the sequences, and a prior in them.

        The prior of the noise is on the scale that regressions of each column on its own past
        leave (Kadiyala & Karlsson, Journal of Applied Econometrics 12, 1997), times M + 1: for
        the coefficients, whose prior is as wide as the noise, count as M rows without any.
        """
        deviation = np.nanstd(data.values, axis=0)
        spread = np.where(deviation > 0.0, deviation, 1.0)
        # A model without an intercept is one about zero.
        centre = np.nanmean(data.values, axis=0) if self.trend != "n" else 0.0 * spread
        firsts = (data.ends - data.lengths)[:, None] + np.arange(self.order)
        kept = np.linspace(0, len(data) - 1, min(len(data), STARTS)).astype(int)
        bound = dataclasses.replace(
            self,
            centre=centre,
            spread=spread,
            span=float(data.lengths.max()),
            starts=data.values[firsts[kept]],
        )
        if self.prior is None:
            return bound
        left = np.empty(self.n_columns)
        complete = Sequences(interpolated(data), data.lengths)
        for column in range(self.n_columns):
            alone = Autoregression(
                self.order, 1, self.trend, centre[[column]], spread[[column]], bound.span
            )
            own = Sequences(complete.values[:, [column]], data.lengths)
            u, y = alone.regression(own)
            found = matrix_normal.posterior(u, y, 1e-6, np.zeros((1, 1)), 0.0)
            left[column] = max(float(found.scale[0, 0]) / len(y), 1e-8)
        default = {
            "shrinkage": 0.01,
            "dof": self.n_columns + 2.0,
            "scale": (1.0 + self.n_regressors) * np.diag(left),
        }
        given = dict(self.prior)
        if "scale" in given:
            given["scale"] = given["scale"] / np.outer(spread, spread)
        return dataclasses.replace(bound, prior={**default, **given})

    def check(self, sequences: Sequences) -> None:
        """Raise ValueError if a sequence is too short, or its first steps have a hole."""
        short = np.flatnonzero(sequences.lengths <= self.order)
        if len(short):
            raise ValueError(
                f"LinearAutoregression: sequence {short[0]} has {sequences.lengths[short[0]]} "
                f"steps, but with order={self.order} the steps from {self.order + 1} on are "
                "regressed on those before; give longer sequences, or a lower order"
            )
        firsts = (sequences.ends - sequences.lengths)[:, None] + np.arange(self.order)
        holed = np.flatnonzero(np.isnan(sequences.values[firsts]).any(axis=(1, 2)))
        if len(holed):
            raise ValueError(
                f"LinearAutoregression: the first {self.order} steps of sequence {holed[0]} have "
                "missing values, but all that follows is given these; let the sequence begin "
                f"with its first {self.order} complete steps in a row"
            )

    # -- units -------------------------------------------------------------------------------

    def regression(self, data: Sequences) -> tuple[Array, Array]:
        """Regressors (N', M) and targets (N', D) of the steps after the first p, in our units."""
        rows = self._rows(data)
        values = (data.values - self.centre) / self.spread
        lags = [values[rows - k] for k in range(1, self.order + 1)]
        time = _times_of(data)[rows]
        trend = [np.ones(len(rows)), time / self.span][: TRENDS[self.trend]]
        return np.column_stack([*lags, *trend]).reshape(len(rows), -1), values[rows]

    def _rows(self, data: Sequences) -> Array:
        """Places of the steps after the first p of each sequence: (N',)."""
        return np.flatnonzero(_times_of(data) >= self.order)

    def from_units(self, weights: Array, noise: Array) -> Parameters:
        """Return the parameters from a regression in our units: (..., M, D), (..., D, D)."""
        xp = array_namespace(weights, noise)
        p, width = self.order, self.n_columns
        known = p * width
        spread, centre = beside(weights, self.spread), beside(weights, self.centre)
        lags = xp.reshape(weights[..., :known, :], (*weights.shape[:-2], p, width, width))
        parameters = {"coefficients": xp.matrix_transpose(lags) * (spread[:, None] / spread)}
        if self.trend != "n":
            moved = times(xp.sum(parameters["coefficients"], axis=-3), centre)
            parameters["intercept"] = centre + weights[..., known, :] * spread - moved
        if self.trend == "ct":
            parameters["slope"] = weights[..., known + 1, :] * spread / self.span
        parameters["noise_covariance"] = noise * (spread[:, None] * spread)
        return parameters

    def to_units(self, parameters: Parameters) -> tuple[Array, Array]:
        """Return the regression in our units from the parameters: (M, D), (D, D)."""
        ratio = self.spread / self.spread[:, None]
        lags = np.swapaxes(parameters["coefficients"] * ratio, -1, -2)
        weights = [lags.reshape(-1, self.n_columns)]
        if self.trend != "n":
            moved = parameters["coefficients"].sum(axis=0) @ self.centre
            weights.append(((parameters["intercept"] - self.centre + moved) / self.spread)[None])
        if self.trend == "ct":
            weights.append((parameters["slope"] * self.span / self.spread)[None])
        noise = parameters["noise_covariance"] / np.outer(self.spread, self.spread)
        return np.concatenate(weights), noise

    # -- the state space form ----------------------------------------------------------------

    def linear_gaussian(self, parameters: Parameters) -> LinearGaussian:
        """Return the companion form: the state is (x_t, ..., x_(t-p+1)), and t if it matters.

        Its first state is none of the model's: sequences begin where they begin.
        """
        coefficients = parameters["coefficients"]
        level = parameters.get("intercept", coefficients[0, :, 0] * 0.0)
        return companion_form(
            coefficients, level, parameters.get("slope"), parameters["noise_covariance"]
        )

    def _begun(self, model: LinearGaussian, x: Array) -> tuple[LinearGaussian, Array]:
        """Start sequences (n, T, D) after their first p steps; and the states (n, K) there."""
        xp = array_namespace(x)
        n, p = x.shape[0], self.order
        state = xp.reshape(xp.flip(x[:, :p], axis=1), (n, p * self.n_columns))
        if self.trend == "ct":
            clock = beside(x, np.full((n, 1), p - 1.0))
            state = xp.concat([state, clock], axis=1)
        nothing = xp.zeros_like(model.transition_covariance)
        mean, covariance = predict(model, state, nothing)
        return model._replace(initial_mean=mean, initial_covariance=covariance), state

    def last_states(self, parameters: Parameters, sequences: Sequences) -> tuple[Array, Array]:
        """Mean and covariance of the state at the end of each sequence: (n, K), (n, K, K)."""
        model = self.linear_gaussian(parameters)
        size = len(model.transition)
        means = np.empty((len(sequences), size))
        covariances = np.zeros((len(sequences), size, size))
        ends = sequences.ends
        last = ends[:, None] - 1 - np.arange(self.order)
        means[:, : self.order * self.n_columns] = sequences.values[last].reshape(len(means), -1)
        if self.trend == "ct":
            means[:, -1] = sequences.lengths - 1.0
        for number in np.flatnonzero(np.isnan(means).any(axis=1)):
            x = sequences[[number]].values[None]
            begun, _ = self._begun(model, x)
            filtered = kalman_filter(begun, x[:, self.order :])
            means[number] = filtered.mean[0, -1]
            covariances[number] = filtered.covariance[0, -1]
        return means, covariances

    def spectral_radius(self, parameters: Parameters) -> Array:
        """Largest modulus of the companion matrix's eigenvalues: below 1, it is stationary.

        Leading axes of the parameters are draws, (...), as are those of the result.
        """
        lags = np.moveaxis(parameters["coefficients"], -3, -2)
        known = self.order * self.n_columns
        top = lags.reshape(*lags.shape[:-3], self.n_columns, known)
        shift = np.eye(known)[: known - self.n_columns]
        shift = np.broadcast_to(shift, (*lags.shape[:-3], *shift.shape))
        return np.abs(np.linalg.eigvals(np.concatenate([top, shift], axis=-2))).max(axis=-1)

    # -- density and the EM protocol ---------------------------------------------------------

    def log_evidence(self, parameters: Parameters, sequences: Sequences) -> Array:
        """Log density of each sequence after its first p steps, in nats: (n,)."""
        if np.isnan(sequences.values).any():
            model = self.linear_gaussian(parameters)
            found = np.empty(len(sequences))
            for chosen, padded in sequences.numbered_blocks():
                begun, _ = self._begun(model, padded.values)
                rest = padded.values[:, self.order :]
                found[chosen] = kalman_filter(begun, rest).log_evidence
            return found
        each = self._row_log_prob(parameters, sequences)
        owner = np.repeat(np.arange(len(sequences)), sequences.lengths)[self._rows(sequences)]
        return np.bincount(owner, each, len(sequences))

    def _row_log_prob(self, parameters: Parameters, data: Sequences) -> Array:
        """Log density of each step of complete sequences, given those before it: (N',)."""
        u, y = self.regression(data)
        weights, noise = self.to_units(parameters)
        lower = np.linalg.cholesky(noise)
        z = np.linalg.solve(lower, (y - u @ weights).T)
        log_det = np.log(np.diagonal(lower)).sum() + np.log(self.spread).sum()
        log_prob: Array = -0.5 * (z * z).sum(axis=0) - log_det - 0.5 * self.n_columns * LOG_2PI
        return log_prob

    def e_step(self, parameters: Parameters, data: Any) -> tuple[Statistics, Array]:
        """Expected statistics and log likelihood; both add over sequences.

        Parameters
        ----------
        parameters : dict
        data : Sequences, or Padded of any library
        """
        if isinstance(data, Padded):
            return self._expected(parameters, data)
        if np.isnan(data.values).any():
            parts = [self._expected(parameters, padded) for _, padded in data.numbered_blocks()]
            return tree_sum([part[0] for part in parts]), sum(part[1] for part in parts)
        each = self._row_log_prob(parameters, data)
        weights = data.row_weights
        if weights is not None:
            each = each * weights[self._rows(data)]
        return self._complete(data), each.sum()

    def _complete(self, data: Sequences) -> Statistics:
        """Statistics of complete sequences."""
        u, y = self.regression(data)
        weights = data.row_weights
        weights = np.ones(len(u)) if weights is None else weights[self._rows(data)]
        weighed = u * weights[:, None]
        return {
            "count": weights.sum(),
            "gram": weighed.T @ u,
            "cross": weighed.T @ y,
            "square": (y * weights[:, None]).T @ y,
        }

    def _expected(self, parameters: Parameters, data: Padded) -> tuple[Statistics, Array]:
        """Statistics with what is missing completed by the smoother of the companion form."""
        xp = array_namespace(data.values)
        p, width = self.order, self.n_columns
        known = p * width
        begun, before = self._begun(self.linear_gaussian(parameters), data.values)
        x = data.values[:, p:]
        filtered = kalman_filter(begun, x)
        smoothed = kalman_smoother(begun, filtered)
        evidence = filtered.log_evidence
        # Steps after the last value of a sequence say nothing, and are left out.
        seen = xp.astype(xp.any(~xp.isnan(x), axis=2), smoothed.mean.dtype)
        rest = xp.flip(xp.cumulative_sum(xp.flip(seen, axis=1), axis=1), axis=1)
        inside = xp.astype(rest > 0.0, seen.dtype)
        if data.weights is not None:
            inside, evidence = inside * data.weights[:, None], evidence * data.weights
        units = xp.concat([beside(x, self.spread)] * p)
        centre = xp.concat([beside(x, self.centre)] * p)
        own = units[:width]
        y = (smoothed.mean[..., :width] - centre[:width]) / own
        lags = xp.concat([before[:, None], smoothed.mean[:, :-1]], axis=1)
        u = [(lags[..., :known] - centre) / units]
        steps = p + np.arange(x.shape[1])
        for row in (np.ones(len(steps)), steps / self.span)[: TRENDS[self.trend]]:
            u.append(xp.broadcast_to(beside(x, row)[None, :, None], (*inside.shape, 1)))
        u = xp.reshape(xp.concat(u, axis=2), (-1, self.n_regressors))
        y = xp.reshape(y, (-1, width))
        weighed = u * xp.reshape(inside, (-1, 1))
        # What the smoother leaves open of lags and values, which the means do not have.
        covariance = smoothed.covariance
        nothing = xp.zeros_like(covariance[:, :1])
        of_lags = xp.concat([nothing, covariance[:, :-1]], axis=1)[..., :known, :known]
        across = xp.concat([nothing, smoothed.lag_one], axis=1)[..., :width, :known]
        turned = xp.matrix_transpose(across)
        open_lags, open_cross, open_values = (
            xp.sum(part * inside[..., None, None], axis=(0, 1))
            for part in (of_lags, turned, covariance[..., :width, :width])
        )
        embed = beside(x, np.eye(self.n_regressors)[:, :known])
        statistics = {
            "count": xp.sum(inside),
            "gram": weighed.T @ u + embed @ (open_lags / (units[:, None] * units)) @ embed.T,
            "cross": weighed.T @ y + embed @ (open_cross / (units[:, None] * own)),
            "square": (y * xp.reshape(inside, (-1, 1))).T @ y + open_values / (own[:, None] * own),
        }
        return statistics, xp.sum(evidence)

    def m_step(self, statistics: Statistics) -> Parameters:
        """Least squares, with the floor of the noise."""
        count, gram, cross = (statistics[name] for name in ("count", "gram", "cross"))
        weights = np.linalg.lstsq(gram, cross, rcond=1e-13)[0]
        half = weights.T @ cross
        noise = (statistics["square"] - half - half.T + weights.T @ gram @ weights) / count
        noise = 0.5 * (noise + noise.T) + FLOOR * np.eye(self.n_columns)
        return self.from_units(weights, noise)

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        """Return what the floor of the noise takes from the expected log density."""
        _, noise = self.to_units(parameters)
        return 0.5 * FLOOR * float(statistics["count"] * np.trace(np.linalg.inv(noise)))

    def revive(
        self,
        parameters: Parameters,
        statistics: Statistics,
        data: Sequences,
        rng: np.random.Generator,
    ) -> tuple[Parameters, int]:
        """Return the parameters as they are: nothing dies here."""
        return parameters, 0

    def initialize(self, data: Sequences, rng: np.random.Generator, how: str) -> Parameters:
        """Start from least squares, with straight lines where values are missing."""
        filled = Sequences(interpolated(data), data.lengths, None, data.weights)
        return self.m_step(self._complete(filled))

    # -- the posterior and the program -------------------------------------------------------

    def draw_posterior(
        self, data: Sequences, n_draws: int, rng: np.random.Generator
    ) -> dict[str, Array]:
        """Return independent draws of the program's sites from the posterior."""
        found, _ = self._posterior(data)
        weights, noise = matrix_normal.draw(found, n_draws, rng)
        return self._named(weights, noise)

    def _posterior(self, data: Sequences) -> tuple[matrix_normal.MatrixNormal, Array]:
        u, y = self.regression(data)
        if self.prior is None:
            nothing = np.zeros((self.n_columns, self.n_columns))
            return matrix_normal.posterior(u, y, 0.0, nothing, -float(u.shape[1])), u
        return matrix_normal.posterior(u, y, **self.prior), u

    def log_marginal_likelihood(self, data: Sequences) -> float:
        """Log density of the steps after the first p, the parameters integrated out, in nats."""
        assert self.prior is not None
        found, u = self._posterior(data)
        jacobian = len(u) * np.log(self.spread).sum()
        return matrix_normal.log_evidence(found, **self.prior) - float(jacobian)

    def program(self) -> Program:
        """Return the model as a program, with its priors.

        It takes the steps after the first p as ``x`` (N', D), and ``regressors`` (N', M): lagged
        values, and what the trend adds, as :meth:`program_data` gives them.
        """
        return Program(make_program(self))

    def program_data(self, data: Sequences) -> dict[str, Array]:
        """Return sequences as the arguments of the program: steps complete with their lags."""
        u, y = self.regression(data)
        complete = ~np.isnan(np.hstack([u, y])).any(axis=1)
        return {"regressors": u[complete], "x": data.values[self._rows(data)[complete]]}

    def parameters(self, found: dict[str, Array]) -> Parameters:
        """Return the parameters from the sites of the program; leading axes are draws."""
        return {name: found[name] for name in self.from_units(*self._nothing())}

    def sites(self, parameters: Parameters) -> dict[str, Array]:
        """Name parameters as the sites of the program."""
        return self._named(*self.to_units(parameters))

    def _nothing(self) -> tuple[Array, Array]:
        width = self.n_columns
        return np.zeros((self.n_regressors, width)), np.eye(width)

    def _named(self, weights: Array, noise: Array) -> dict[str, Array]:
        """Sites from a regression in our units, (..., M, D) and (..., D, D)."""
        inverse = np.linalg.inv(self.prior_root)
        return {
            "precision_whitened": np.linalg.inv(inverse @ noise @ inverse.T),
            "weights_whitened": weights @ inverse.T,
            **self.from_units(weights, noise),
        }

    @property
    def prior_root(self) -> Array:
        """Lower triangular factor of the prior's scale, in which the prior is standard."""
        return (
            np.eye(self.n_columns)
            if self.prior is None
            else np.linalg.cholesky(self.prior["scale"])
        )

    def coords(self, names: list[Any]) -> dict[str, list[Any]]:
        """Labels of the axes of the program's sites."""
        lags = list(range(1, self.order + 1))
        return {"column": names, "column_": names, "lag": lags}

    # -- drawing -----------------------------------------------------------------------------

    def sample(
        self, parameters: Parameters, length: int, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Draw a sequence (T, D) that begins as one of those fitted; there is no latent."""
        start = self.starts[rng.integers(len(self.starts))]
        none = np.empty((length, 0))
        more = length - self.order
        if more <= 0:
            return start[:length], none
        begun, _ = self._begun(self.linear_gaussian(parameters), start[None])
        one = begun._replace(initial_mean=begun.initial_mean[0])
        size = len(begun.transition)
        _, x = simulate(one, rng.normal(size=(more, size)), np.zeros((more, self.n_columns)))
        return np.concatenate([start, x]), none


def _times_of(data: Sequences) -> Array:
    """Number of each step in its sequence, from 0: (N,)."""
    return np.arange(len(data.values)) - np.repeat(data.ends - data.lengths, data.lengths)
