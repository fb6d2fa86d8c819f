"""What is asked of a hidden Markov model about the states of sequences."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ppl_gen.algorithms.hidden_markov import Emissions, filter_steps, forecast
from ppl_gen.algorithms.hidden_markov_paths import viterbi, viterbi_in_logs
from ppl_gen.algorithms.markov import stationary_distribution
from ppl_gen.algorithms.trees import tree_sum
from ppl_gen.forecasts import ForecastingModel, chosen_draws, covariances
from ppl_gen.sequence_estimator import SequenceModel
from ppl_gen.sequences import Sequences
from ppl_gen.structures.hidden_markov import HiddenMarkov

Array = Any
Parameters = dict[str, Any]

ALGORITHMS = ("viterbi", "map")
#: Rows that a thread decodes at once: steps compare all pairs of states, and are worth sharing.
VITERBI_ROWS = 50_000
#: Futures to draw at once.
FUTURES = 2**18


class StateModel(ForecastingModel):
    """A model of sequences whose steps have hidden states."""

    futures_are_normal: ClassVar[bool] = False

    structure_: HiddenMarkov
    transmat_: Array
    algorithm: str

    def predict_proba(self, X: Any, lengths: Any = None) -> Any:
        """Posterior probability of each state at each step, arranged as X: (N, K).

        After a Bayesian fit, averaged over the draws of the parameters: alike for each of the
        sequences that were fitted, which the draws are given already, and by its likelihood
        under each draw for each new one.
        """
        sequences, arrangement = self._read_checked(X, lengths, "predict_proba")
        return arrangement.restore(self._marginals(sequences))

    def _marginals(self, sequences: Sequences) -> Array:
        return self._averaged(lambda draw: self.structure_.marginals(draw, sequences), sequences)

    def _averaged(self, function: Callable[[Parameters], Array], sequences: Sequences) -> Array:
        """Average what a function says of each step over the draws of the parameters: (N, K)."""
        if self._n_draws == 1:
            return function(self._draw(0))
        total: Array = 0.0
        for s, weights in enumerate(self._draw_weights(sequences)):
            by_step = np.repeat(weights, sequences.lengths)[:, None]
            total = total + by_step * function(self._draw(s))
        return total

    def predict(self, X: Any, lengths: Any = None) -> Any:
        """State of each step, by `algorithm`, arranged as X: (N,)."""
        return self.decode(X, lengths)[1]

    def decode(
        self, X: Any, lengths: Any = None, algorithm: str | None = None
    ) -> tuple[float, Any]:
        """Find the states of each step.

        Parameters
        ----------
        X : sequences
        lengths : (n,) or None
        algorithm : {"viterbi", "map"} or None
            In place of the model's own.

        Returns
        -------
        log_prob : float
            Log density of the sequences together with the path, in nats; of "map", as in
            hmmlearn, the sum over steps of the probability of the state chosen.
        states : (N,), arranged as X

        Notes
        -----
        After a Bayesian fit the path is the one of largest expected log density, over the draws
        of the parameters: Viterbi on averaged logarithms.
        """
        algorithm = self.algorithm if algorithm is None else algorithm
        if algorithm not in ALGORITHMS:
            raise ValueError(
                f"{self._who}.decode: algorithm is {algorithm!r}; expected one of {ALGORITHMS}"
            )
        sequences, arrangement = self._read_checked(X, lengths, "decode")
        if algorithm == "map":
            marginals = self._marginals(sequences)
            states = marginals.argmax(axis=1)
            return float(marginals.max(axis=1).sum()), arrangement.restore(states)
        if self._n_draws == 1:
            log_prob, path = self._likeliest(sequences)
        else:
            by_sequence, path = viterbi_in_logs(*self._expected_logs(sequences))
            log_prob = float(by_sequence.sum())
        return log_prob, arrangement.restore(path)

    def _likeliest(self, sequences: Sequences) -> tuple[float, Array]:
        draw, scores = self._draw(0), []

        def decoded(some: Sequences) -> Array:
            emissions = self.structure_.emissions(draw, some)
            log_prob, path = viterbi(draw["start"], draw["transition"], emissions)
            scores.append(log_prob.sum())
            return path

        path = sequences.map(decoded, VITERBI_ROWS)
        return float(math.fsum(scores)), path

    def _expected_logs(self, sequences: Sequences) -> tuple[Array, Array, Emissions]:
        """Log probabilities of the chain and log densities of the steps, averaged over draws."""
        drawn = [self.structure_.emissions(self._draw(s), sequences) for s in range(self._n_draws)]
        total = drawn[0].logs()
        for emissions in drawn[1:]:
            total += emissions.logs()
        averaged = Emissions.laid_out(drawn[0].layout, total / self._n_draws)
        with np.errstate(divide="ignore"):
            start = np.log(self.parameters_["start"]).mean(axis=0)
            return start, np.log(self.parameters_["transition"]).mean(axis=0), averaged

    def filter(self, X: Any, lengths: Any = None) -> Any:
        """Probability of each state given the steps up to it, arranged as X: (N, K).

        After a Bayesian fit, averaged over the draws of the parameters as by
        :meth:`predict_proba`: the parameters are given whole sequences.
        """
        sequences, arrangement = self._read_checked(X, lengths, "filter")
        return arrangement.restore(self._filtered(sequences))

    def _filtered(self, sequences: Sequences) -> Array:
        def steps(draw: Parameters) -> Array:
            emissions = self.structure_.emissions(draw, sequences)
            return filter_steps(draw["start"], draw["transition"], emissions)

        return self._averaged(steps, sequences)

    def sample_states(
        self, X: Any, lengths: Any = None, n_draws: int = 1, random_state: Any = None
    ) -> list[Any]:
        """Draw paths of states from their posterior, each arranged as X: a list of `n_draws`."""
        sequences, arrangement = self._read_checked(X, lengths, "sample_states")
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        chosen = self._choose_draws(sequences, n_draws, rng)
        paths = np.empty((n_draws, len(sequences.values)), dtype=np.intp)
        for s in np.unique(chosen):
            rows = np.flatnonzero(chosen == s)
            paths[rows] = self.structure_.draw_states(self._draw(int(s)), sequences, rng, len(rows))
        return [arrangement.restore(path) for path in paths]

    def score_samples(self, X: Any, lengths: Any = None) -> tuple[float, Any]:
        """Return `score` and `predict_proba`, as hmmlearn does."""
        return self.score(X, lengths=lengths), self.predict_proba(X, lengths)

    # -- what follows ----------------------------------------------------------------------------

    def _keep_training(self, data: Sequences) -> None:
        SequenceModel._keep_training(self, data)
        # States at the ends are found when asked for, where the sequences are kept.
        if self._n_draws == 1 and self._training is None:
            self.last_states_ = self._last_states(data)

    def to_tree(self) -> dict[str, Any]:
        """Return the fitted model as plain data, a point fit with the states at the ends."""
        if self._n_draws == 1 and self._training is not None:
            self.last_states_ = self._fitted_states()
        return super().to_tree()

    def _fitted_states(self) -> dict[str, Array]:
        if hasattr(self, "last_states_"):
            return self.last_states_
        if self._training is None:
            raise ValueError(
                f"{self._who}.forecast: the states at the ends of the sequences that were fitted "
                "are kept after a point fit only, and the sequences do not come with a loaded "
                "model, or one made of parameters; give X"
            )
        # A copy, so that nothing is laid out and kept with those that are pickled.
        return self._last_states(dataclasses.replace(self._training))

    def _last_states(self, sequences: Sequences) -> dict[str, Array]:
        def at_the_end(draw: Parameters, some: Sequences) -> Array:
            emissions = self.structure_.emissions(draw, some)
            return filter_steps(draw["start"], draw["transition"], emissions)[some.ends - 1]

        def of_all(draw: Parameters) -> Array:
            return sequences.map(lambda some: at_the_end(draw, some))

        return {"probability": self._over_draws(of_all)}

    def forecast_states(self, steps: int, X: Any = None, lengths: Any = None) -> Array:
        """Probability of each state in the steps that follow: (n, steps, K).

        Parameters
        ----------
        steps : int
        X : sequences or None
            What came before; those that were fitted, if None.
        lengths : (n,) or None

        Returns
        -------
        (n, steps, K) array
            Averaged over the draws of the parameters, as by :meth:`predict_proba`.
        """
        check_is_fitted(self)
        if not (isinstance(steps, int | np.integer) and steps >= 1):
            raise ValueError(
                f"{self._who}.forecast_states: steps is {steps!r}; expected a whole number, at "
                "least 1"
            )
        if X is None:
            now = self._fitted_states()
            weights = np.full((self._n_draws, len(self.lengths_)), 1.0 / self._n_draws)
        else:
            sequences, _ = self._read_checked(X, lengths, "forecast_states")
            now, weights = self._last_states(sequences), self._draw_weights(sequences)
        ahead = self._states_ahead(now, int(steps))
        averaged: Array = np.einsum("sn,sntk->ntk", weights, ahead)
        return averaged

    def _states_ahead(self, states: dict[str, Array], steps: int) -> Array:
        """Probability of each state in the steps that follow, under each draw: (S, n, steps, K)."""
        now = states["probability"]
        return np.stack(
            [forecast(now[s], self._draw(s)["transition"], steps) for s in range(self._n_draws)]
        )

    def _moments(
        self, states: dict[str, Array], weights: Array, steps: int, draws: Array
    ) -> tuple[Array, Array]:
        """Means (modes, of categories), and the covariances of the draws: (n, steps, D, ...)."""
        shares = self._states_ahead(states, steps)
        n, n_states = shares.shape[1], shares.shape[-1]
        unknown = np.full((n * steps, len(self.schema_.columns)), np.nan)
        family, expected = self.structure_.family, []
        for s, share in enumerate(shares):
            rows = (share * weights[s][:, None, None]).reshape(-1, n_states)
            expected.append(family.expected(self._draw(s)["family"], unknown, rows))
        mean = family.settle(tree_sum(expected), unknown).reshape(n, steps, -1)
        return mean, covariances(draws)

    def _futures(
        self,
        states: dict[str, Array],
        weights: Array,
        steps: int,
        n_draws: int,
        rng: np.random.Generator,
    ) -> Array:
        now = states["probability"]
        futures = np.empty((n_draws, now.shape[1], steps, len(self.schema_.columns)))
        for s, future, sequence in chosen_draws(weights, n_draws, rng):
            draw = self._draw(s)
            for begin in range(0, len(sequence), FUTURES):
                some = slice(begin, begin + FUTURES)
                shares = now[s][sequence[some]]
                onward = self.structure_.draw_onward(draw, shares, steps, rng)
                futures[future[some], sequence[some]] = onward
        return futures

    def stationary_distribution(self) -> Array:
        """Long-run share of time in each state under ``transmat_``: (K,)."""
        check_is_fitted(self)
        return stationary_distribution(self.transmat_)

    # -- choosing among models -----------------------------------------------------------------

    def n_free_parameters(self) -> int:
        """Count the free parameters, as AIC and BIC do."""
        check_is_fitted(self)
        return self.structure_.n_free()

    def aic(self, X: Any, lengths: Any = None) -> float:
        """Akaike's information criterion on X: the lower the better; after EM."""
        self._refuse_draws("aic")
        return -2.0 * self.score(X, lengths=lengths) + 2.0 * self.n_free_parameters()

    def bic(self, X: Any, lengths: Any = None) -> float:
        """Schwarz's information criterion on X, with steps for observations; after EM."""
        self._refuse_draws("bic")
        sequences, _ = self._read_checked(X, lengths, "bic")
        steps = len(sequences.values)
        return -2.0 * self.score(X, lengths=lengths) + math.log(steps) * self.n_free_parameters()

    def _refuse_draws(self, method: str) -> None:
        check_is_fitted(self)
        if self._n_draws > 1:
            raise ValueError(
                f"{self._who}.{method}: AIC and BIC are of maximum likelihood, but the model has "
                "draws of its parameters; compare Bayesian fits by the log_prob of sequences that "
                "were held out, as compare_components(cv=5) and leave_future_out do"
            )
