"""What follows the sequences: forecasts of linear Gaussian models, with their uncertainty."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.stats import norm
from sklearn.utils.validation import check_is_fitted

from ppl_gen.algorithms.kalman import predict
from ppl_gen.algorithms.kalman_paths import forecast, root, simulate
from ppl_gen.sequence_estimator import SequenceModel
from ppl_gen.sequences import Sequences

Array = Any
Parameters = dict[str, Any]

#: Futures that are drawn may not take more memory than this.
MAX_FUTURES_BYTES = 4 * 2**30
#: Values of futures that are sorted and multiplied at once.
BLOCK_VALUES = 2**21


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
            fit: X says where each sequence has got to and, after a Bayesian fit, which of the
            draws of the parameters are likelier for it, unless it was fitted.
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
            If a setting is out of range, a sequence cannot be read, or the draws would take
            more than 4 GiB.
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
            n_sequences, one = len(self.lengths_), len(self.lengths_) == 1
            self._check_room(int(n_draws), n_sequences, int(steps))
            states = self._fitted_states()
            weights = np.full((self._n_draws, n_sequences), 1.0 / self._n_draws)
        else:
            sequences, arrangement = self._read_checked(X, lengths, "forecast")
            self._check_room(int(n_draws), len(sequences), int(steps))
            states, weights = self._last_states(sequences), self._draw_weights(sequences)
            one = arrangement.kind == "rows" and len(sequences) == 1
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        draws = self._futures(states, weights, int(steps), int(n_draws), rng)
        mean, covariance = self._moments(states, weights, int(steps), draws)
        if self._n_draws == 1 and self.futures_are_normal:
            half = norm.ppf(0.5 + 0.5 * level) * np.sqrt(
                np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 0.0)
            )
            lower, upper = mean - half, mean + half
        else:
            lower, upper = quantiles(draws, [0.5 - 0.5 * level, 0.5 + 0.5 * level])
        if one:
            mean, covariance, lower, upper = mean[0], covariance[0], lower[0], upper[0]
            draws = draws[:, 0]
        return Forecast(mean, covariance, lower, upper, draws, float(level))

    def _fitted_states(self) -> dict[str, Array]:
        """States after the last steps of the sequences that were fitted."""
        return self.last_states_

    def _check_room(self, n_draws: int, n_sequences: int, steps: int) -> None:
        """Refuse futures that would not fit in memory, before any work."""
        size = 8 * n_draws * n_sequences * steps * len(self.schema_.columns)
        if size > MAX_FUTURES_BYTES:
            raise ValueError(
                f"{self._who}.forecast: {n_draws:,} futures of {steps:,} steps of {n_sequences:,} "
                f"sequences take {size / 1e9:.1f} GB; expected at most "
                f"{MAX_FUTURES_BYTES / 1e9:.1f} GB; draw fewer (n_draws), or forecast some of the "
                "sequences at a time"
            )

    def _moments(
        self, states: dict[str, Array], weights: Array, steps: int, draws: Array
    ) -> tuple[Array, Array]:
        """Means and covariances of the steps that follow, over the draws: (n, steps, D, ...)."""
        means, covariances = [], []
        for s in range(self._n_draws):
            model = self.structure_.linear_gaussian(self._draw(s))
            found = forecast(model, states["mean"][s], states["covariance"][s], steps)
            means.append(found.observation_mean)
            covariances.append(found.observation_covariance)
        mean = np.einsum("sn,sntd->ntd", weights, means)
        away = np.stack(means) - mean
        between = np.einsum("sn,snti,sntj->ntij", weights, away, away)
        return mean, np.einsum("sn,sntij->ntij", weights, covariances) + between

    def _futures(
        self,
        states: dict[str, Array],
        weights: Array,
        steps: int,
        n_draws: int,
        rng: np.random.Generator,
    ) -> Array:
        """Draw futures, each under one draw of the parameters: (n_draws, n, steps, D)."""
        width = len(self.schema_.columns)
        futures = np.empty((n_draws, weights.shape[1], steps, width))
        for s, future, sequence in chosen_draws(weights, n_draws, rng):
            model = self.structure_.linear_gaussian(self._draw(s))
            mean, covariance = predict(model, states["mean"][s], states["covariance"][s])
            spread = root(covariance)[sequence]
            size = mean.shape[-1]
            first = rng.normal(size=(len(sequence), size, 1))
            after = model._replace(
                initial_mean=mean[sequence] + (spread @ first)[..., 0],
                initial_covariance=np.zeros((size, size)),
            )
            shape = (len(sequence), steps)
            noise = rng.normal(size=(*shape, size)), rng.normal(size=(*shape, width))
            futures[future, sequence] = simulate(after, *noise)[1]
        return futures


def chosen_draws(
    weights: Array, n_futures: int, rng: np.random.Generator
) -> Iterator[tuple[int, Array, Array]]:
    """Choose a draw of the parameters for each future of each sequence.

    Sequences that weigh the draws alike have the same draw in the same future: what is not known
    of the parameters is common to them.

    Parameters
    ----------
    weights : (S, n)
        Of each draw for each sequence.
    n_futures : int
    rng : numpy.random.Generator

    Yields
    ------
    s, future, sequence : int, (m,), (m,)
        A draw, and the futures and sequences that it is for.
    """
    n_draws, n = weights.shape
    sequences = np.arange(n)
    if n_draws == 1:
        yield 0, np.repeat(np.arange(n_futures), n), np.tile(sequences, n_futures)
        return
    heights = rng.random(n_futures)
    chosen = np.empty((n_futures, n), dtype=np.intp)
    kinds, kind = np.unique(weights, axis=1, return_inverse=True)
    for number, shares in enumerate(kinds.T):
        total = np.cumsum(shares)
        drawn = np.searchsorted(total, heights * total[-1], side="right")
        chosen[:, kind.ravel() == number] = np.minimum(drawn, n_draws - 1)[:, None]
    flat = chosen.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.cumsum(np.bincount(flat, minlength=n_draws))
    for s in np.unique(flat):
        own = order[ends[s - 1] if s else 0 : ends[s]]
        yield int(s), own // n, own % n


def quantiles(draws: Array, levels: list[float]) -> Array:
    """Quantiles over the first axis of draws (m, n, ...), some sequences at a time."""
    found = np.empty((len(levels), *draws.shape[1:]))
    for block in blocks(draws):
        beside = np.ascontiguousarray(np.moveaxis(draws[:, block], 0, -1))
        found[:, block] = np.quantile(beside, levels, axis=-1, overwrite_input=True)
    return found


def covariances(draws: Array) -> Array:
    """Covariances over the first axis of draws (m, n, steps, D): (n, steps, D, D)."""
    found = np.empty((*draws.shape[1:], draws.shape[-1]))
    for block in blocks(draws):
        beside = np.moveaxis(draws[:, block], 0, -1)
        away = beside - beside.mean(axis=-1, keepdims=True)
        found[block] = away @ away.swapaxes(-1, -2) / len(draws)
    return found


def blocks(draws: Array) -> list[slice]:
    """Sequences of draws (m, n, ...) to work on at once."""
    size = max(1, BLOCK_VALUES // max(1, draws[:, :1].size))
    return [slice(begin, begin + size) for begin in range(0, draws.shape[1], size)]
