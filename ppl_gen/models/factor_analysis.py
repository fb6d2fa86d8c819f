"""Factor analysis and probabilistic PCA: a few hidden factors behind many columns."""

import warnings
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from ppl_gen.algorithms.factor_analysis import canonical
from ppl_gen.algorithms.rotation import ROTATIONS, largest_sign, simple_structure
from ppl_gen.algorithms.row_chunks import map_rows
from ppl_gen.data import Rows
from ppl_gen.engines.random_source import NumPyRandom
from ppl_gen.families import FactorNormal
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.em import EM
from ppl_gen.row_estimator import DensityModel
from ppl_gen.structures.latent_class import LatentClass
from ppl_gen.table_reader import constant_columns

Array = Any


class _FactorModel(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    DensityModel,
):
    """What models of rows by factors share: one class of `FactorNormal`, in one orientation."""

    methods: ClassVar[tuple[str, ...]] = ("em", "svi", "nuts")
    mode_starts: ClassVar[int] = 1

    n_components: int
    prior: str | None

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : table of (n, D)
            NaN is missing, and marginalised exactly.
        y : ignored
        sample_weight : (n,) or None
            Weights of the rows, for EM.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are as many factors as columns, or too few rows for them.

        Warns
        -----
        RuntimeWarning
            If columns are constant, or the noise of some went to its floor.
        """
        method = self._resolved_method()
        rows = self._read_rows(X, sample_weight, None)
        self._check(rows, method)
        self._fit_structure(self._bound(rows), rows, method)
        if isinstance(method, EM):
            self._warn_of_no_noise(rows)
        return self

    def _check(self, rows: Rows, method: InferenceMethod) -> None:
        width, count = rows.values.shape[1], self.n_components
        if not isinstance(count, int | np.integer) or not 1 <= count < width:
            raise ValueError(
                f"{self._who}.fit: n_components is {count!r}, but X has n_features={width}; "
                "expected a whole number of factors, at least 1 and fewer than the columns"
            )
        if isinstance(method, EM) and self.prior is None and len(rows) < count + 2:
            raise ValueError(
                f"{self._who}.fit: X has n_samples={len(rows)} rows, which {count} factors fit "
                f"without noise; give {count + 2} rows or more, or prior='default'"
            )

    def _structure(self, rows: Rows) -> LatentClass:
        family = self._family().bind(rows.values, 1)
        return LatentClass(family, 1, fixed_weights=np.ones(1))

    def _family(self) -> FactorNormal:
        raise NotImplementedError  # pragma: no cover

    @property
    def _bound_family(self) -> FactorNormal:
        family = self.structure_.family
        assert isinstance(family, FactorNormal)
        return family

    def _warn_of_no_noise(self, rows: Rows) -> None:
        family = self._bound_family
        noise = family.noise_by_column(self.parameters_["family"])[0, 0]
        low = (noise <= 1.001 * family.floor) & ~constant_columns(rows.values)
        if low.any():
            names = [str(self.schema_.names[place]) for place in np.flatnonzero(low)]
            warnings.warn(
                f"{self._who}.fit: the factors explain all of {len(names)} column(s) "
                f"({', '.join(names[:5])}), whose noise is at its floor (a Heywood case); use "
                "fewer factors, more rows, or prior='default'",
                RuntimeWarning,
                stacklevel=3,
            )

    # -- orientation -----------------------------------------------------------------------------

    def _orientation(self, loadings: Array, noise: Array) -> tuple[Array, Array]:
        """Maps of mean loadings (D, L): to orthogonal factors, and of these to oblique ones."""
        return canonical(loadings, noise), np.eye(loadings.shape[1])

    def _publish(self) -> None:
        parameters = self.parameters_["family"]
        noise = self._bound_family.noise_by_column(parameters)[:, 0].mean(axis=0)
        turn, self._oblique_ = self._orientation(parameters["loadings"][:, 0].mean(axis=0), noise)
        # The draws agree on an orientation already: one map is for all of them.
        parameters["loadings"] = parameters["loadings"] @ turn
        if self._posterior is not None:
            for site in ("loadings", "loadings_whitened"):
                self._posterior.draws[site] = self._posterior.draws[site] @ turn
        self.mean_ = parameters["mean"][:, 0].mean(axis=0)
        self.loadings_ = parameters["loadings"][:, 0].mean(axis=0) @ self._oblique_
        self.noise_variance_ = parameters["noise_variance"][:, 0].mean(axis=0)

    @property
    def _n_features_out(self) -> int:
        return int(self.loadings_.shape[1])

    # -- factors ---------------------------------------------------------------------------------

    def transform(self, X: Any, *, return_covariance: bool = False) -> Any:
        """Posterior mean of the factors of each row, given what is observed of it.

        Parameters
        ----------
        X : table of (n, D)
            NaN is missing: fewer entries say less, and the covariance tells.
        return_covariance : bool
            Return the covariances too.

        Returns
        -------
        (n, L) array
            And (n, L, L). After a Bayesian fit they average over the draws of the parameters,
            whose uncertainty is then in the covariances.
        """
        check_is_fitted(self)
        values = self._read_checked(X)
        parts = map_rows(lambda rows: self._factors(values[rows]), len(values))
        back = np.linalg.inv(self._oblique_)
        mean = np.concatenate([part[0] for part in parts]) @ back.T
        if not return_covariance:
            return mean
        return mean, back @ np.concatenate([part[1] for part in parts]) @ back.T

    def _factors(self, x: Array) -> tuple[Array, Array]:
        """Mean and covariance of the factors of rows; draws weigh by the density of the row."""
        total = np.full(len(x), -np.inf)
        mean: Array = 0.0
        second: Array = 0.0
        for s in range(self._n_draws):
            given = self._bound_family.given(self._draw(s)["family"], x)
            own, density = given.mean[0], given.log_prob[:, 0]
            before, total = total, np.logaddexp(total, density)
            kept, share = np.exp(before - total)[:, None], np.exp(density - total)[:, None]
            square = given.covariance[0] + own[:, :, None] * own[:, None, :]
            mean = kept * mean + share * own
            second = kept[..., None] * second + share[..., None] * square
        return mean, second - mean[:, :, None] * mean[:, None, :]

    def inverse_transform(self, X: Any) -> Array:
        """Mean of rows with given factors: (n, L) -> (n, D)."""
        check_is_fitted(self)
        factors = check_array(X, dtype=np.float64)
        if factors.shape[1] != self._n_features_out:
            raise ValueError(
                f"{self._who}.inverse_transform: X has {factors.shape[1]} columns; expected the "
                f"{self._n_features_out} factors that transform gives"
            )
        return factors @ self.loadings_.T + self.mean_

    def _latents(
        self, values: Array, labels: Array, draws: Array, rng: np.random.Generator
    ) -> Array:
        # Factors given rows: drawn so, both have their joint distribution.
        factors = np.empty((len(values), self._n_features_out))
        for s in np.unique(draws):
            rows = draws == s
            parameters = self._draw(int(s))["family"]
            factors[rows] = self._bound_family.draw_factors(
                parameters, values[rows], labels[rows], NumPyRandom(rng)
            )
        return factors @ np.linalg.inv(self._oblique_).T

    # -- columns ---------------------------------------------------------------------------------

    def get_covariance(self) -> Array:
        """Covariance of the columns, (D, D): that of the factors and the noise, as fitted.

        After a Bayesian fit, its posterior mean.
        """
        check_is_fitted(self)
        parameters = self.parameters_["family"]
        noise = self._bound_family.noise_by_column(parameters)[:, 0]
        total = np.diag(noise.sum(axis=0))
        for loadings in parameters["loadings"][:, 0]:
            total = total + loadings @ loadings.T
        return total / len(noise)

    def get_precision(self) -> Array:
        """Inverse of :meth:`get_covariance`: (D, D)."""
        from scipy.linalg import cho_factor, cho_solve

        covariance = self.get_covariance()
        return cho_solve(cho_factor(covariance, lower=True), np.eye(len(covariance)))


class FactorAnalysis(_FactorModel):
    """Factor analysis: a few independent factors, and noise of its own in each column.

    A row is ``mean + loadings f + e``, with L factors ``f ~ N(0, I)`` and ``e ~ N(0, noise)``, one
    variance a column.

    Parameters
    ----------
    n_components : int
        Factors L, fewer than the columns.
    rotation : None, "varimax", "quartimax" or "promax"
        Orientation of the factors, which the data leave open. None is the canonical form: factors
        that stay independent given a row, the best known first. Varimax and quartimax are
        orthogonal rotations to simple structure, in which every column weighs the same
        (Kaiser's normalisation); after promax factors are correlated.
    noise_floor : float
        Least variance of the noise, as a share of the column's own.
    prior : None or "default"
        None is maximum likelihood under EM; see `FactorNormal` for the default, which SVI and
        NUTS take in any case. It keeps noises away from zero (Heywood cases).
    inference : str, EM, SVI, NUTS or None
        By default, EM.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of SVI and NUTS; by default float64.

    Attributes
    ----------
    components_ : (L, D)
        Loadings by factor, as scikit-learn has them; `loadings_` is (D, L).
    noise_variance_ : (D,)
    mean_ : (D,)
    factor_covariance_ : (L, L)
        The identity, but for promax.
    posterior_ : Posterior
        Loadings there are of orthogonal factors, rotated to one orientation in all draws.
    n_iter_, converged_, lower_bound_, history_
        Of the last EM fit.

    Notes
    -----
    Complete tables are fitted at once, by the quasi-Newton method of `fit_diagonal` in
    `ppl_gen.algorithms.factor_analysis`, which two steps of EM confirm; with missing entries EM
    goes on from there. Loadings are identified up to rotation if the covariance of D columns has
    as many free entries as the model has parameters, (D - L)^2 >= D + L (Ledermann 1937).

    Under SVI and NUTS each draw has its own rotation; all are rotated to agree (generalised
    Procrustes) before summary and verdict, and then together to the orientation asked for.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from ppl_gen import FactorAnalysis
    >>> X = load_wine(as_frame=True).data[["flavanoids", "total_phenols", "hue", "proline"]]
    >>> model = FactorAnalysis(1).fit(X)
    >>> (model.components_ / X.std().to_numpy()).round(2).tolist()
    [[0.99, 0.87, 0.54, 0.5]]
    >>> model.transform(X).shape
    (178, 1)
    """

    def __init__(
        self,
        n_components: int = 1,
        rotation: str | None = None,
        noise_floor: float = 1e-8,
        prior: str | None = None,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.n_components = n_components
        self.rotation = rotation
        self.noise_floor = noise_floor
        self.prior = prior
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    def _family(self) -> FactorNormal:
        return FactorNormal(int(self.n_components), noise_floor=self.noise_floor, prior=self.prior)

    def _check(self, rows: Rows, method: InferenceMethod) -> None:
        if self.rotation is not None and self.rotation not in ROTATIONS:
            raise ValueError(
                f"{self._who}: rotation is {self.rotation!r}; expected None or one of "
                f"{', '.join(map(repr, ROTATIONS))}"
            )
        super()._check(rows, method)
        width, count = rows.values.shape[1], self.n_components
        if (width - count) ** 2 < width + count:
            most = max(k for k in range(width) if (width - k) ** 2 >= width + k)
            warnings.warn(
                f"{self._who}.fit: {count} factors of {width} columns are not identified: their "
                f"covariance has fewer entries than the model has parameters; loadings and noises "
                f"may differ at one likelihood; use n_components of {most} or less",
                RuntimeWarning,
                stacklevel=3,
            )

    def _orientation(self, loadings: Array, noise: Array) -> tuple[Array, Array]:
        turn, oblique = super()._orientation(loadings, noise)
        if self.rotation is None:
            return turn, oblique
        found = simple_structure(loadings @ turn, self.rotation)
        turn = turn @ found.orthogonal
        # Factors in the order of what they explain of the columns, each in its own units.
        even = loadings @ turn / np.sqrt((loadings**2).sum(axis=1) + noise)[:, None]
        order = np.argsort(-(even**2).sum(axis=0), kind="stable")
        sign = largest_sign(even)
        turn = (turn * sign)[:, order]
        return turn, (found.oblique * sign[:, None] * sign)[np.ix_(order, order)]

    def _publish(self) -> None:
        super()._publish()
        self.components_ = self.loadings_.T
        inverse = np.linalg.inv(self._oblique_)
        self.factor_covariance_ = inverse @ inverse.T


class ProbabilisticPCA(_FactorModel):
    """Probabilistic principal component analysis: factors, and the same noise in all columns.

    A row is ``mean + loadings f + e``, with L factors ``f ~ N(0, I)`` and ``e ~ N(0, noise I)``.
    It is meant for columns of one unit: standardise others.

    Parameters
    ----------
    n_components : int
        Factors L, fewer than the columns.
    prior : None or "default"
        None is maximum likelihood under EM; see `FactorNormal` for the default, which SVI and
        NUTS take in any case.
    inference : str, EM, SVI, NUTS or None
        By default, EM.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of SVI and NUTS; by default float64.

    Attributes
    ----------
    components_ : (L, D)
        Principal axes, of unit length, by decreasing variance, as scikit-learn's PCA has them.
    explained_variance_, explained_variance_ratio_ : (L,)
        Variance of the rows along them, noise included, and its share of that of all columns.
    loadings_ : (D, L)
        The axes, as long as the deviation of what is not noise along them.
    noise_variance_ : float
    mean_ : (D,)
    posterior_ : Posterior
        Loadings there are rotated to one orientation in all draws.
    n_iter_, converged_, lower_bound_, history_
        Of the last EM fit.

    Notes
    -----
    The maximum likelihood of complete rows is in closed form (Tipping & Bishop, JRSS B 61, 1999,
    equations 7 and 8), which two steps of EM confirm. Variances divide by n; scikit-learn's PCA
    divides by n - 1. `transform` gives posterior means of the factors, shrunk towards zero by the
    noise, where PCA projects: the span of the axes is the same.

    Examples
    --------
    >>> from ppl_gen import ProbabilisticPCA
    >>> from ppl_gen.datasets import load_iris
    >>> model = ProbabilisticPCA(2).fit(load_iris().X)
    >>> model.explained_variance_ratio_.round(3).tolist()
    [0.925, 0.053]
    """

    def __init__(
        self,
        n_components: int = 1,
        prior: str | None = None,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.n_components = n_components
        self.prior = prior
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    def _family(self) -> FactorNormal:
        return FactorNormal(int(self.n_components), "isotropic", prior=self.prior)

    def _warn_constant(self, values: Array, normal: Array) -> None:
        # A constant column shares the noise of the others, where there are others.
        if constant_columns(values).all():
            super()._warn_constant(values, normal)

    def _publish(self) -> None:
        super()._publish()
        family = self.parameters_["family"]
        noise = family["noise_variance"][:, 0]
        lengths = (family["loadings"][:, 0] ** 2).sum(axis=1)  # (S, L)
        self.noise_variance_ = float(noise.mean())
        self.explained_variance_ = (lengths + noise[:, None]).mean(axis=0)
        total = (lengths.sum(axis=1) + noise * len(self.mean_)).mean()
        self.explained_variance_ratio_ = self.explained_variance_ / total
        size = np.sqrt((self.loadings_**2).sum(axis=0))
        self.components_ = (self.loadings_ / np.where(size > 0.0, size, 1.0)).T
