"""Densities and completions of rows under an autoencoder, by importance sampling."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from ppl_gen.counts import check_count
from ppl_gen.models.vae.latents import Latents
from ppl_gen.neural.variational import AT_ONCE, N_DRAWS

Array = Any

__all__ = ["ImportanceSampled", "LogProbEstimate"]


class LogProbEstimate(NamedTuple):
    """Log densities of rows by importance sampling, and how far to trust them.

    Attributes
    ----------
    log_prob : (n,) array
        Nats; lower than the log density on average: by half its squared standard error where
        many draws count, by far more where `effective_size` is a few (of binary images of 784
        pixels by two nats with 500 draws, of which 4 counted; then take `n_newton`).
    standard_error : (n,) array
        Of `log_prob`, nats. Too small where `effective_size` is.
    effective_size : (n,) array
        Draws that carry the weight of all: ``(sum w)^2 / sum w^2``.
    """

    log_prob: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    effective_size: NDArray[np.float64]


class ImportanceSampled(Latents):
    """The part of `VAE` that weighs codes which its guide proposes."""

    @property
    def rows_at_a_time(self) -> int:  # type: ignore[override]
        """Rows that are scored or drawn together, which bounds the memory."""
        return max(1, min(4096, AT_ONCE // self._network.widest))

    # -- densities -----------------------------------------------------------------------------

    def log_prob(
        self, X: Any, context: Any = None, n_importance: int = N_DRAWS, n_newton: int = 0
    ) -> Array:
        """Log density of each row, in nats, by importance sampling: a lower bound on average.

        The guide proposes codes. One X gives the same numbers again; :meth:`log_prob_estimate`
        tells how far they may be off.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
            NaN is missing: the density is of what is observed.
        context : one of the fit's kind for all rows, or one a row; for conditional densities
        n_importance : int
            Codes of each row; the bound of Burda, Grosse and Salakhutdinov (2016), equation 8.
        n_newton : int
            Steps to better proposals, as of :meth:`log_prob_estimate`.

        Returns
        -------
        (n,) array
        """
        return self.log_prob_estimate(X, context, n_importance, n_newton).log_prob

    def log_prob_estimate(
        self, X: Any, context: Any = None, n_importance: int = 1000, n_newton: int = 0
    ) -> LogProbEstimate:
        """Log density of each row with its standard error and the effective number of draws.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
        context : one of the fit's kind for all rows, or one a row; for conditional densities
        n_importance : int
            Codes of each row.
        n_newton : int
            Steps of Newton's method to the mode of the codes of each row, where the normal
            distribution of the mode's curvature then proposes nine codes of ten, and the guide the
            rest; with 0 the guide proposes all. Three steps cost as much as some 300 codes, and
            are worth more than thousands where `effective_size` is small (of binary images of 784
            pixels, 100 codes were 1.6 nats nearer than 3000 of the guide). Not where codes of one
            row lie around several modes.

        Returns
        -------
        LogProbEstimate
        """
        log_weights = self._log_weights(X, context, n_importance, n_newton)
        most = log_weights.max(axis=1, keepdims=True)
        most = np.where(np.isfinite(most), most, 0.0)  # of rows so far out that all weights are 0
        weights = np.exp(log_weights - most)
        mean = weights.mean(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_mean = np.log(mean)
            # The delta method: the error of a logarithm is the relative error.
            relative = weights / mean[:, None]
        error = np.sqrt(((relative - 1.0) ** 2).sum(axis=1) / max(1, n_importance - 1))
        return LogProbEstimate(
            log_mean + most[:, 0],
            error / np.sqrt(n_importance) if n_importance > 1 else np.full(len(mean), np.nan),
            n_importance / (relative**2).mean(axis=1),
        )

    def elbo(self, X: Any, context: Any = None, n_importance: int = N_DRAWS) -> Array:
        """Evidence lower bound of each row, in nats, as a mean over draws of the guide.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
        context : one of the fit's kind for all rows, or one a row; for conditional densities
        n_importance : int
            Draws.

        Returns
        -------
        (n,) array
        """
        return self._log_weights(X, context, n_importance).mean(axis=1)

    def _log_weights(self, X: Any, context: Any, n_importance: int, n_newton: int = 0) -> Array:
        """Log importance weights of draws of the proposal: (n, n_importance)."""
        check_is_fitted(self)
        check_count(n_importance, "n_importance", self._who)
        if n_newton != 0:
            check_count(n_newton, "n_newton", self._who)
        network = self._network
        found: Array = self._by_chunk(
            lambda rows: (
                network.importance(rows["x"], rows.get("context"), n_importance, n_newton)[1].T
            ),
            self._scoring_data(X, context),
        )
        return found.astype(np.float64)

    # -- gaps ----------------------------------------------------------------------------------

    def impute(
        self,
        X: Any,
        n_draws: int | None = None,
        random_state: Any = None,
        *,
        context: Any = None,
        n_importance: int = N_DRAWS,
    ) -> Any:
        """Fill in what is missing, by importance sampling of the codes of what is observed.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
            NaN is filled; the rest stays.
        n_draws : int or None
            None fills with the conditional mean, of labels and of 0 and 1 the mode, of levels the
            nearest to the mean; a number gives as many completed tables, each a draw from the
            conditional (multiple imputation).
        random_state : int or None
            Of the draws.
        context : one of the fit's kind for all rows, or one a row; for conditional densities
        n_importance : int
            Codes of each row that the guide proposes: the imputations of Mattei and Frellsen
            (2019), single and multiple.

        Returns
        -------
        table of (n, D), or images; or a list of `n_draws` of them
        """
        check_is_fitted(self)
        check_count(n_importance, "n_importance", self._who)
        data = self._scoring_data(X, context)
        network = self._network
        if n_draws is None:
            filled = self._by_chunk(
                lambda rows: network.complete(rows["x"], rows.get("context"), n_importance), data
            )
            return self._completed(data["x"], filled)
        check_count(n_draws, "n_draws", f"{self._who}.impute")
        seeds = np.random.default_rng(self._seed(random_state)).integers(2**31, size=n_draws)
        return [
            self._completed(
                data["x"],
                self._by_chunk(
                    lambda rows: network.draw_missing(rows["x"], rows.get("context"), n_importance),
                    data,
                    int(seed),
                ),
            )
            for seed in seeds
        ]

    def _completed(self, values: Array, filled: Array) -> Any:
        # What was observed stays to the last digit, which the network's floats may not have.
        return self._table(np.where(np.isnan(values), filled, values), whole=True)

    def _table(self, values: Array, *, whole: bool) -> Any:
        """Give rows the form that was fitted; floats stay floats unless they are `whole`."""
        whole = whole and self._whole(self.structure_.facts)
        table = self.schema_.decode(values.astype(np.float64), (whole,) * values.shape[1])
        if len(self.row_shape_) > 1 and isinstance(table, np.ndarray):
            return table.reshape(-1, *self.row_shape_)
        return table
