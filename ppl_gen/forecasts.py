"""What follows the sequences: forecasts of linear Gaussian models, with their uncertainty."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.stats import norm
from sklearn.utils.validation import check_is_fitted

from ppl_gen.algorithms.kalman import predict
from ppl_gen.algorithms.kalman_paths import forecast, simulate
from ppl_gen.sequence_estimator import SequenceModel
from ppl_gen.sequences import Sequences

Array = Any
Parameters = dict[str, Any]


@dataclass(frozen=True)
class Forecast:
    """The steps that follow a sequence; of several sequences, with a leading axis for them.

    Attributes
    ----------
    mean : (steps, D)
        Exact given the parameters, and averaged over their draws after a Bayesian fit.
    covariance : (steps, D, D)
        Of the columns of each step.
    lower, upper : (steps, D)
        Bounds that each value lies between with probability `level`: exact for a point fit,
        quantiles of the draws after a Bayesian one.
    draws : (n_draws, steps, D)
        Whole futures: across steps and columns they vary together as the model has it.
    level : float
    """

    mean: Array
    covariance: Array
    lower: Array
    upper: Array
    draws: Array
    level: float


class ForecastingModel(SequenceModel):
    """A model of sequences that says what follows them.

    This one is of linear Gaussian state space models; others say in their own way what
    `_last_states`, `_moments` and `_futures` are. Its structure has
    ``linear_gaussian(parameters)``, the model as the algorithms take it, and
    ``last_states(parameters, sequences)``, the means (n, K) and covariances (n, K, K) of the
    states after the last step of each sequence.
    """

    #: Whether the steps that follow are normal, given the parameters.
    futures_are_normal: ClassVar[bool] = True

    last_states_: dict[str, Array]

    def _keep_training(self, data: Sequences) -> None:
        super()._keep_training(data)
        self.last_states_ = self._last_states(data)

    def _last_states(self, sequences: Sequences) -> dict[str, Array]:
        """States after the last steps under every draw of the parameters, (S, n, ...)."""
        found = [
            self.structure_.last_states(self._draw(s), sequences) for s in range(self._n_draws)
        ]
        means, covariances = (np.stack(parts) for parts in zip(*found, strict=True))
        return {"mean": means, "covariance": covariances}

    def forecast(
        self,
        steps: int,
        X: Any = None,
        lengths: Any = None,
        *,
        n_draws: int = 1000,
        level: float = 0.9,
        random_state: Any = None,
    ) -> Forecast:
        """Forecast the steps that follow sequences.

        Parameters
        ----------
        steps : int
            How many, at least 1.
        X : sequences or None
            What came before; those that were fitted, if None. The parameters stay those of the
            fit: X only says where each sequence has got to.
        lengths : (n,) or None
            Of the sequences, where X has the rows of all.
        n_draws : int
            Futures to draw, at least 1.
        level : float
            Probability of the intervals, between 0 and 1.
        random_state : int or None

        Returns
        -------
        Forecast
            Its arrays have a leading axis for the sequences (after that of the draws), unless
            there is one sequence, given as rows.

        Raises
        ------
        ValueError
            If a setting is out of range, or a sequence cannot be read.
        """
        check_is_fitted(self)
        for name, value in (("steps", steps), ("n_draws", n_draws)):
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(
                    f"{self._who}.forecast: {name} is {value!r}; expected a whole number, at "
                    "least 1"
                )
        if not 0.0 < level < 1.0:
            raise ValueError(
                f"{self._who}.forecast: level is {level!r}; expected a probability between 0 and 1"
            )
        if X is None:
            states, one = self._fitted_states(), len(self.lengths_) == 1
        else:
            sequences, arrangement = self._read_checked(X, lengths, "forecast")
            states = self._last_states(sequences)
            one = arrangement.kind == "rows" and len(sequences) == 1
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        draws = self._futures(states, int(steps), int(n_draws), rng)
        mean, covariance = self._moments(states, int(steps), draws)
        if self._n_draws == 1 and self.futures_are_normal:
            half = norm.ppf(0.5 + 0.5 * level) * np.sqrt(
                np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 0.0)
            )
            lower, upper = mean - half, mean + half
        else:
            lower, upper = np.quantile(draws, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)
        if one:
            mean, covariance, lower, upper = mean[0], covariance[0], lower[0], upper[0]
            draws = draws[:, 0]
        return Forecast(mean, covariance, lower, upper, draws, float(level))

    def _fitted_states(self) -> dict[str, Array]:
        """States after the last steps of the sequences that were fitted."""
        return self.last_states_

    def _moments(self, states: dict[str, Array], steps: int, draws: Array) -> tuple[Array, Array]:
        """Means and covariances of the steps that follow, over the draws: (n, steps, D, ...)."""
        means, covariances = [], []
        for s in range(self._n_draws):
            model = self.structure_.linear_gaussian(self._draw(s))
            found = forecast(model, states["mean"][s], states["covariance"][s], steps)
            means.append(found.observation_mean)
            covariances.append(found.observation_covariance)
        mean = np.mean(means, axis=0)
        away = np.stack(means) - mean
        between = np.einsum("snti,sntj->ntij", away, away) / len(means)
        return mean, np.mean(covariances, axis=0) + between

    def _futures(
        self, states: dict[str, Array], steps: int, n_draws: int, rng: np.random.Generator
    ) -> Array:
        """Draw futures, each under one draw of the parameters: (n_draws, n, steps, D)."""
        n = states["mean"].shape[1]
        width = len(self.schema_.columns)
        futures = np.empty((n_draws, n, steps, width))
        chosen = np.sort(rng.integers(self._n_draws, size=n_draws))
        for s in np.unique(chosen):
            places = np.flatnonzero(chosen == s)
            model = self.structure_.linear_gaussian(self._draw(int(s)))
            mean, covariance = predict(model, states["mean"][s], states["covariance"][s])
            after = model._replace(initial_mean=mean, initial_covariance=covariance)
            shape = (len(places), n, steps)
            noise = rng.normal(size=(*shape, mean.shape[-1])), rng.normal(size=(*shape, width))
            futures[places] = simulate(after, *noise)[1]
        return futures
