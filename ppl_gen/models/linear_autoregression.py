"""Linear autoregressions: AR(p) of one column, vector AR(p) of several."""

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ppl_gen.counts import check_count
from ppl_gen.forecasts import ForecastingModel
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.em import EM
from ppl_gen.sequences import Sequences
from ppl_gen.structures.autoregression import TRENDS, Autoregression

Array = Any


class LinearAutoregression(ForecastingModel):
    """Each step is a linear map of the p steps before it, plus normal noise.

    The model of a sequence x of T steps in D columns, AR(p) or vector AR(p), is::

        x_t = intercept + slope t + coefficients[0] x_(t-1) + ... + coefficients[p-1] x_(t-p)
              + N(0, noise_covariance)

    with t = 0 at the first step. All is given the first p steps of each sequence: densities are
    of the steps after them.

    Parameters
    ----------
    order : int
        Lags p, at least 1.
    trend : {"n", "c", "ct"}
        Nothing, an intercept, or an intercept and a slope.
    prior : None, "flat" or dict
        The conjugate prior of "conjugate", "svi" and "nuts": the noise is inverse Wishart with
        ``dof`` degrees of freedom (D + 2) and ``scale`` (D, D), by default a multiple of the
        noise of each column regressed on its own past, which leaves the posterior mean of the
        noise about unbiased; given the noise, coefficients and trend, of columns in units of
        their standard deviations, are normal about zero with covariance noise / ``shrinkage``
        (0.01). A dict replaces some of these terms. "flat", for "conjugate", is constant in the
        coefficients, and ``|noise|^-(D + 1)/2``: means are then least squares. EM is maximum
        likelihood whatever the prior.
    inference : str, Conjugate, EM, SVI, NUTS or None
        By default, Conjugate: independent draws of the posterior itself.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of SVI and NUTS; by default float64.

    Attributes
    ----------
    coef_ : (p, D, D)
        ``coef_[k, i, j]`` is the effect of column j, k + 1 steps before, on column i.
    intercept_, slope_ : (D,)
        Zero, if the trend leaves them out.
    noise_covariance_ : (D, D)
        Means of the draws, after a Bayesian fit.
    residuals_ : list of (T - p, D)
        What the means leave of the steps after the first p of each sequence that was fitted, NaN
        where a value or a lag is missing.
    spectral_radius_ : float
        Of the companion matrix; mean over the draws. Below 1, the autoregression is stationary.
    stationary_probability_ : float
        Share of the draws that are stationary.
    is_stationary_ : bool
        Whether most are.
    log_marginal_likelihood_ : float
        After a Bayesian fit with a proper prior: log density of the steps after the first p, in
        nats, the parameters integrated out, by which orders can be compared over the same steps.
    posterior_ : Posterior
    n_iter_, converged_, lower_bound_, history_
        Of an EM fit.

    Notes
    -----
    Hamilton (1994), Time Series Analysis, chapters 5 and 11; Lutkepohl (2005), New Introduction
    to Multiple Time Series Analysis, chapters 3 and 5. Missing values after the first p steps
    are marginalised exactly, by the Kalman filter of the companion form, in densities and
    forecasts, and by EM; the Bayesian methods want complete sequences.

    Examples
    --------
    >>> from ppl_gen import LinearAutoregression
    >>> from ppl_gen.datasets import load_nile
    >>> flow = load_nile().frame[["flow"]]
    >>> model = LinearAutoregression(1, inference="em").fit(flow)
    >>> model.coef_.round(3).tolist(), model.intercept_.round(1).tolist()
    ([[[0.504]]], [452.8])
    >>> model.forecast(2).mean.round(1).tolist()
    [[826.0], [869.3]]
    """

    methods: ClassVar[tuple[str, ...]] = ("conjugate", "em", "svi", "nuts")
    structure_kind: ClassVar[Any] = Autoregression

    def __init__(
        self,
        order: int = 1,
        trend: str = "c",
        prior: Any = None,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.order = order
        self.trend = trend
        self.prior = prior
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # -- fitting -------------------------------------------------------------------------------

    def fit(self, X: Any, lengths: Any = None, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the model to one or more sequences.

        Parameters
        ----------
        X : list of (T, D) tables or (T,) series, (n, T, D) array, or rows (N, D) or (N,)
            NaN is missing; for EM, and not among the first p steps of a sequence.
        lengths : (n,) or None
            Of the sequences, where X has the rows of all.
        y : ignored
        sample_weight : (n,) or None
            Weights of the sequences, for EM.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a sequence is no longer than the order, there are fewer steps than parameters, or
            a value is missing where the method does not take that.
        """
        method = self._resolved_method()
        self._check_settings()
        sequences = self._read_training(X, lengths, sample_weight=sample_weight)
        structure = self._bound(sequences, method)
        self._warn_constant(sequences.values, np.ones(structure.n_columns, dtype=bool))
        self._fit_structure(structure, sequences, method)
        return self

    def _check_settings(self) -> None:
        if not (isinstance(self.order, int | np.integer) and self.order >= 1):
            raise ValueError(
                f"{self._who}: order is {self.order!r}; expected a whole number, at least 1"
            )
        if self.trend not in TRENDS:
            raise ValueError(
                f"{self._who}: trend is {self.trend!r}; expected one of "
                f"{', '.join(map(repr, TRENDS))}"
            )
        if not (self.prior is None or self.prior == "flat" or isinstance(self.prior, dict)):
            raise ValueError(
                f"{self._who}: prior is {self.prior!r}; expected None, 'flat' or a dict"
            )

    def _bound(self, sequences: Sequences, method: InferenceMethod) -> Autoregression:
        """Return the structure that the settings ask for, checked against the sequences."""
        width = int(sequences.values.shape[1])
        prior = None if isinstance(self.prior, str) else self._prior_terms(width)
        structure = Autoregression(int(self.order), width, self.trend, prior=prior)
        structure.check(sequences)
        if not isinstance(method, EM) and np.isnan(sequences.values).any():
            raise ValueError(
                f"{self._who}.fit: X has missing values, which {method.name!r} does not take; fit "
                "by inference='em', which marginalises them, or fill them in"
            )
        if prior is None and method.name in ("svi", "nuts"):
            raise ValueError(
                f"{self._who}: prior='flat' is improper, which {method.name!r} does not take; "
                "leave prior out, or fit by 'conjugate'"
            )
        rows = int((sequences.lengths - structure.order).sum())
        needed = structure.n_regressors + width
        if rows < needed and (isinstance(method, EM) or prior is None):
            raise ValueError(
                f"{self._who}.fit: {rows} steps come after the first {structure.order}, but "
                f"{structure.n_regressors} coefficients a column and {width} column(s) of noise "
                f"want {needed} or more; lower the order, or fit by 'conjugate' with a proper prior"
            )
        return structure.bind(sequences)

    def _prior_terms(self, width: int) -> dict[str, Any]:
        """Return the terms of the prior that were given, checked."""
        given = dict(self.prior or {})
        unknown = sorted(given.keys() - {"shrinkage", "dof", "scale"})
        if unknown:
            raise ValueError(
                f"{self._who}: prior has unknown terms {unknown}; it takes 'shrinkage', 'dof' and "
                "'scale'"
            )
        for name, least in (("shrinkage", 0.0), ("dof", width - 1.0)):
            if name in given and not float(given[name]) > least:
                raise ValueError(
                    f"{self._who}: prior[{name!r}] is {given[name]!r}; it must be over {least}"
                )
        if "scale" in given:
            scale = np.asarray(given["scale"], dtype=np.float64)
            good = scale.shape == (width, width) and np.allclose(scale, scale.T)
            if not good or not np.linalg.eigvalsh(scale)[0] > 0.0:
                raise ValueError(
                    f"{self._who}: prior['scale'] must be a symmetric positive definite matrix of "
                    f"shape {(width, width)}"
                )
            given["scale"] = scale
        return {name: v if name == "scale" else float(v) for name, v in given.items()}

    def _keep_training(self, data: Sequences) -> None:
        super()._keep_training(data)
        self.residuals_ = self._residuals(data)
        if self._resolved_method().name != "em" and self.structure_.prior is not None:
            self.log_marginal_likelihood_ = self.structure_.log_marginal_likelihood(data)

    def _residuals(self, data: Sequences) -> list[Array]:
        """What the mean parameters leave of the steps after the first p, by sequence."""
        mean = {name: np.mean(value, axis=0) for name, value in self.parameters_.items()}
        u, y = self.structure_.regression(data)
        weights, _ = self.structure_.to_units(mean)
        left = (y - u @ weights) * self.structure_.spread
        return np.split(left, np.cumsum(data.lengths - self.structure_.order)[:-1])

    def _publish(self) -> None:
        means = {name: np.mean(value, axis=0) for name, value in self.parameters_.items()}
        nothing = np.zeros(self.structure_.n_columns)
        self.coef_ = means["coefficients"]
        self.intercept_ = means.get("intercept", nothing)
        self.slope_ = means.get("slope", nothing)
        self.noise_covariance_ = means["noise_covariance"]
        radii = self.structure_.spectral_radius(self.parameters_)
        self.spectral_radius_ = float(radii.mean())
        self.stationary_probability_ = float((radii < 1.0).mean())
        self.is_stationary_ = self.stationary_probability_ > 0.5

    # -- drawing -------------------------------------------------------------------------------

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Draw a sequence, in the columns and dtypes of those that were fitted.

        Parameters
        ----------
        n_samples : int
            Its steps. The first p are those of a sequence that was fitted, chosen at random: the
            model says what follows them.
        random_state : int or None

        Returns
        -------
        table of (n_samples, D)
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", f"{self._who}.sample")
        return self._table(self._draw_sequences(np.array([n_samples]), random_state)[0])
