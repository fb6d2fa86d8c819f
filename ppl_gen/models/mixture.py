"""Mixtures: of normals as scikit-learn has them, and of any family or mix of families."""

from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ppl_gen.data import Rows
from ppl_gen.families import Family, Normal
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.row_estimator import DensityModel
from ppl_gen.structures.family_choice import choose_family
from ppl_gen.structures.latent_class import LatentClass

Array = Any
Parameters = dict[str, Any]


class _Mixture(DensityModel):
    """What mixtures share: components that have no order."""

    methods: ClassVar[tuple[str, ...]] = ("em", "svi", "nuts")

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit the mixture.

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
        """
        method = self._resolved_method()
        rows = self._read_rows(X, sample_weight, None)
        if not (isinstance(self.n_components, int | np.integer) and self.n_components >= 1):
            raise ValueError(
                f"{self._who}: n_components is {self.n_components!r}; expected a whole number, "
                "at least 1"
            )
        if self.n_components > len(rows):
            raise ValueError(
                f"{self._who}.fit: n_components={self.n_components}, but X has "
                f"n_samples={len(rows)} rows; use fewer components"
            )
        self._fit_structure(self._bound(rows), rows, method)
        return self

    def _structure(self, rows: Rows) -> LatentClass:
        n_components = int(self.n_components)
        family = self._family().bind(rows.values, n_components)
        return LatentClass(family, n_components, self._concentration())

    def _family(self) -> Family:
        raise NotImplementedError  # pragma: no cover

    def _concentration(self) -> float:
        return 0.0

    def _exchangeable(self) -> str | None:
        return "component"

    def _start(
        self, structure: LatentClass, rows: Rows, rng: np.random.Generator
    ) -> Parameters | None:
        if not (self.warm_start and hasattr(self, "parameters_")):
            return None
        before = self.structure_
        if (before.n_classes, before.family.layout) != (
            structure.n_classes,
            structure.family.layout,
        ):
            raise ValueError(
                f"{self._who}.fit: warm_start goes on from a fit of {before.n_classes} components, "
                f"{before.family.layout}, but the model is now of {structure.n_classes} "
                f"components, {structure.family.layout}; set warm_start=False"
            )
        return self._draw(0)

    def fit_predict(self, X: Any, y: Any = None, **kwargs: Any) -> Array:
        """Fit, and return the likeliest component of each row: (n,)."""
        return self.fit(X, y, **kwargs).predict(X)

    def predict_proba(self, X: Any) -> Array:
        """Probability of each component for each row: (n, K)."""
        check_is_fitted(self)
        return self._evidence(self._read_checked(X))[1]

    def predict(self, X: Any) -> Array:
        """Likeliest component of each row: (n,)."""
        return self.predict_proba(X).argmax(axis=1)

    def _publish(self) -> None:
        self.weights_ = self.parameters_["weights"].mean(axis=0)


class Mixture(_Mixture):
    """A finite mixture of any family, or of a family a column.

    Parameters
    ----------
    n_components : int
    family : "auto", str, dict or Family
        ``"auto"`` reads it off the columns: numbers are normal, booleans Bernoulli, categories
        categorical. A name ("normal", "bernoulli", "categorical", "multinomial", "poisson") or
        a `Family` is for all columns; a dict from column names (places, for arrays) to names or
        families is for some, the others being chosen as by "auto".
    weight_concentration : float
        Prior count of every component: weights are Dirichlet(1 + weight_concentration).
    inference : str, EM, SVI, NUTS or None
        By default, EM.
    warm_start : bool
        Start EM from the previous fit's parameters.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of SVI and NUTS; by default float64.

    Attributes
    ----------
    weights_ : (K,)
    parameters_ : dict of arrays
        With a leading axis of draws: one, after EM.
    posterior_ : Posterior
    n_iter_, converged_, lower_bound_, history_
        Of the last EM fit.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import Mixture
    >>> X = np.array([[0, 1], [0, 0], [0, 2], [9, 12], [11, 9], [10, 10]])
    >>> model = Mixture(2, family="poisson", random_state=0).fit(X)
    >>> labels = model.predict(X)
    >>> bool(labels[0] == labels[1] == labels[2] != labels[3])
    True
    """

    def __init__(
        self,
        n_components: int = 1,
        family: Any = "auto",
        weight_concentration: float = 0.0,
        inference: str | InferenceMethod | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.n_components = n_components
        self.family = family
        self.weight_concentration = weight_concentration
        self.inference = inference
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    def _family(self) -> Family:
        return choose_family(self.family, self.schema_, self._who)

    def _concentration(self) -> float:
        return float(self.weight_concentration)


class GaussianMixture(_Mixture):
    """A mixture of normals, with scikit-learn's names and more ways to fit it.

    Parameters
    ----------
    n_components : int
    covariance_type : {"full", "tied", "diag", "spherical"}
    reg_covar : float
        Added to every variance, in squared units of the data.
    prior : None, "default" or dict
        The conjugate prior: see `Normal`. None is maximum likelihood under EM.
    weight_concentration : float
        Prior count of every component: weights are Dirichlet(1 + weight_concentration).
    weights_init, means_init, precisions_init : arrays or None
        Where EM starts: (K,), (K, D), and precisions in the shape of the covariance type. The
        means are enough; they need the others only if those are given.
    inference : str, EM, SVI, NUTS or None
        By default, EM.
    warm_start : bool
        Start EM from the previous fit's parameters.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of SVI and NUTS; by default float64.

    Attributes
    ----------
    weights_ : (K,)
    means_ : (K, D)
    covariances_, precisions_, precisions_cholesky_
        (K, D, D), (D, D), (K, D) or (K,), by covariance type. Means of the draws, after a
        Bayesian fit.
    posterior_ : Posterior
    n_iter_, converged_, lower_bound_, history_
        Of the last EM fit.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import GaussianMixture
    >>> X = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 0.0], [10.0, 2.0], [10.0, 4.0], [10.0, 0.0]])
    >>> model = GaussianMixture(2, random_state=0).fit(X)
    >>> sorted(model.means_.round(6).tolist())
    [[1.0, 2.0], [10.0, 2.0]]
    """

    def __init__(
        self,
        n_components: int = 1,
        covariance_type: str = "full",
        reg_covar: float = 1e-6,
        prior: Any = None,
        weight_concentration: float = 0.0,
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        inference: str | InferenceMethod | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
        self.prior = prior
        self.weight_concentration = weight_concentration
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.inference = inference
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    def _family(self) -> Normal:
        return Normal(self.covariance_type, self.reg_covar, prior=self.prior)

    def _concentration(self) -> float:
        return float(self.weight_concentration)

    def _start(
        self, structure: LatentClass, rows: Rows, rng: np.random.Generator
    ) -> Parameters | None:
        warm = super()._start(structure, rows, rng)
        weights, mean, factor = self._given_start(rows.values.shape[1])
        if warm is not None or (weights is None and mean is None and factor is None):
            return warm
        if weights is not None and mean is not None and factor is not None:
            return {"weights": weights, "family": {"mean": mean, "precision_cholesky": factor}}
        start = structure.initialize(rows, rng, "kmeans")
        if weights is not None:
            start["weights"] = weights
        if mean is not None:
            start["family"]["mean"] = mean
        if factor is not None:
            start["family"]["precision_cholesky"] = factor
        return start

    def _given_start(self, width: int) -> tuple[Array | None, Array | None, Array | None]:
        """Weights, means and factors of the precisions that the user gave, checked."""
        count = int(self.n_components)
        weights = self._given("weights_init", (count,))
        if weights is not None and ((weights < 0.0).any() or not np.isclose(weights.sum(), 1.0)):
            raise ValueError("GaussianMixture: weights_init must be positive and sum to 1")
        mean = self._given("means_init", (count, width))
        shapes = {"tied": (width, width), "diag": (count, width), "spherical": (count,)}
        shape = shapes.get(self.covariance_type, (count, width, width))
        precisions = self._given("precisions_init", shape)
        if precisions is None:
            return weights, mean, None
        if self.covariance_type in ("diag", "spherical"):
            if (precisions <= 0.0).any():
                raise ValueError("GaussianMixture: precisions_init must be positive")
            return weights, mean, np.sqrt(precisions)
        try:
            return weights, mean, np.linalg.cholesky(precisions)
        except np.linalg.LinAlgError as error:
            raise ValueError(
                "GaussianMixture: precisions_init must be symmetric and positive definite"
            ) from error

    def _given(self, name: str, shape: tuple[int, ...]) -> Array | None:
        if getattr(self, name) is None:
            return None
        value = np.asarray(getattr(self, name), dtype=np.float64)
        if value.shape != shape:
            raise ValueError(
                f"GaussianMixture: {name} has shape {value.shape}; expected {shape} for "
                f"covariance_type={self.covariance_type!r}"
            )
        return value

    def _publish(self) -> None:
        super()._publish()
        family = self.structure_.family
        assert isinstance(family, Normal)
        draws = [self._draw(s)["family"] for s in range(self._n_draws)]
        self.means_ = np.mean([draw["mean"] for draw in draws], axis=0)
        self.covariances_ = np.mean([family.covariances(draw) for draw in draws], axis=0)
        centre = family.factor(self.covariances_)
        self.precisions_cholesky_ = centre
        self.precisions_ = (
            centre**2
            if self.covariance_type in ("diag", "spherical")
            else centre @ np.swapaxes(centre, -1, -2)
        )
