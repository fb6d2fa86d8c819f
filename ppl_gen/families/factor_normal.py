"""The normal family whose covariance is that of a few factors, and noise."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside
from ppl_gen.algorithms.factor_analysis import (
    FactorsGiven,
    canonical,
    covariance_root,
    factors_given,
    fit_diagonal,
    fit_isotropic,
)
from ppl_gen.algorithms.normal import column_moments
from ppl_gen.algorithms.row_chunks import one_blas_thread
from ppl_gen.algorithms.trees import tree_map
from ppl_gen.engines.base import RandomSource
from ppl_gen.families.base import Array, Family, Parameters, Statistics, observed_rows

NOISES = ("diag", "isotropic")
#: Rows that place the factors which the first statistics are taken under.
START_ROWS = 5000
#: Added to what is divided by, so that a class without rows divides nothing by nothing.
TINY = 10.0 * np.finfo(np.float64).eps


@dataclasses.dataclass(frozen=True, eq=False)
class FactorNormal(Family):
    """Normal rows with the covariance of a few factors: loadings loadings' + diag(noise).

    It serves wherever a family does: a mixture of it is the mixture of factor analysers.

    Parameters
    ----------
    n_factors : int
        L, fewer than the D columns.
    noise : {"diag", "isotropic"}
        One variance a column, as in factor analysis, or one for all, as in probabilistic PCA.
    noise_floor : float
        Least variance of the noise, as a share of the column's own (of their mean, if isotropic).
        Where the likelihood rises towards no noise at all in a column (a Heywood case), the
        noise stops here.
    prior : None or "default"
        ``None``: EM maximises the likelihood, and SVI and NUTS use the default prior.
        ``"default"``: EM finds the posterior mode under that prior too.

    Notes
    -----
    Parameters are ``mean`` (K, D), ``loadings`` (K, D, L) and ``noise_variance`` (K, D), or (K,)
    if isotropic. Loadings are known up to a rotation (and reflection) of the factors.

    EM takes the factors as what is missing, and drops missing entries of rows: each column is
    regressed on the factors over the rows that have it (Rubin & Thayer 1982; Ghahramani & Hinton
    1996). Its steps are those of PX-EM, which rescales the factors to their second moments.

    The prior is weak and the same for every rotation: with s the deviation of a column, loadings
    are N(0, s^2), means N(mean of the data, 100 s^2), and noises inverse-gamma with 3 degrees
    of freedom and the scale 0.3 s^2 / K^(2/D).

    References
    ----------
    Rubin & Thayer (1982), EM algorithms for ML factor analysis, Psychometrika 47, 69-76.
    Tipping & Bishop (1999), Mixtures of probabilistic principal component analyzers, Neural
    Computation 11, 443-482. Ghahramani & Hinton (1996), The EM algorithm for mixtures of factor
    analyzers, CRG-TR-96-1. Liu, Rubin & Wu (1998), Parameter expansion to accelerate EM: the
    PX-EM algorithm, Biometrika 85, 755-770.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import FactorNormal
    >>> x = np.array([[0.0, 0.0], [2.0, np.nan]])
    >>> family = FactorNormal(1).bind(x, n_classes=1)
    >>> zeros, ones = np.zeros((1, 2)), np.ones((1, 2))
    >>> parameters = {"mean": zeros, "loadings": ones[:, :, None], "noise_variance": ones}
    >>> family.log_prob(parameters, x).round(4)
    array([[-2.3872],
           [-2.2655]])
    """

    name: ClassVar[str] = "factor_normal"
    #: The likelihood of factors rises slowly long before it has risen.
    em_settings: ClassVar[dict[str, Any]] = {"max_iter": 2000, "tol": 1e-6}

    n_factors: int = 1
    noise: str = "diag"
    noise_floor: float = 1e-8
    prior: str | None = None
    terms: dict[str, Any] | None = dataclasses.field(default=None, kw_only=True)
    start: Parameters | None = dataclasses.field(default=None, kw_only=True)
    missing: bool = dataclasses.field(default=False, kw_only=True)

    @property
    def whole(self) -> tuple[bool, ...]:
        return (False,) * (self.n_columns or 0)

    def is_one_pass(self, x: Array) -> bool:
        return False

    def with_prior(self) -> Family:
        return self if self.prior is not None else self.replace(prior="default")

    @property
    def is_isotropic(self) -> bool:
        """Whether all columns have one noise."""
        return self.noise == "isotropic"

    @property
    def layout(self) -> tuple[Any, ...]:
        return (self.name, self.n_columns, self.n_factors, self.noise)

    @property
    def _terms(self) -> dict[str, Any]:
        if self.terms is None:
            raise ValueError(
                "FactorNormal: the family is not bound to data; call bind(x, n_classes)"
            )
        return self.terms

    def bind(self, x: Array, n_classes: int) -> Self:
        if self.noise not in NOISES:
            known = " or ".join(map(repr, NOISES))
            raise ValueError(f"FactorNormal: noise is {self.noise!r}; expected {known}")
        if self.prior not in (None, "default"):
            raise ValueError(f"FactorNormal: prior is {self.prior!r}; expected None or 'default'")
        if not 0.0 < self.noise_floor < 1.0:
            raise ValueError(
                f"FactorNormal: noise_floor is {self.noise_floor!r}; expected a share of the "
                "columns' variances, above 0 and below 1"
            )
        width = x.shape[1]
        whole = isinstance(self.n_factors, int | np.integer)
        if not whole or not 1 <= self.n_factors < width:
            raise ValueError(
                f"FactorNormal: n_factors is {self.n_factors!r}, but X has n_features={width}; "
                "expected a whole number of factors, at least 1 and fewer than the columns"
            )
        mean, variances, missing = column_moments(x)
        if self.is_isotropic:
            variances = np.full(width, variances.mean())
        # A constant column has no units to take a share of.
        scale = np.where(variances > 0.0, variances, 1.0)
        terms = {
            "mean": mean,
            "deviation": np.sqrt(scale),
            "shrinkage": 0.01,
            "dof": 3.0,
            "scale": 0.3 * scale * n_classes ** (-2.0 / width),
        }
        bound = dataclasses.replace(self, n_columns=width, terms=terms, missing=missing)
        with one_blas_thread:
            start = bound._principal(x[:: -(-len(x) // START_ROWS)])
        return dataclasses.replace(bound, start=start)

    # -- density -----------------------------------------------------------------------------

    @property
    def floor(self) -> Array:
        """Least variances of the noise: (D,)."""
        floor: Array = self.noise_floor * self._terms["deviation"] ** 2
        return floor

    def noise_by_column(self, parameters: Parameters) -> Array:
        """Variances of the noise of every column: (K, D)."""
        noise = parameters["noise_variance"]
        if not self.is_isotropic:
            return noise
        xp = array_namespace(noise)
        return xp.broadcast_to(noise[..., None], (*noise.shape, self.n_columns))

    def given(self, parameters: Parameters, x: Array) -> FactorsGiven:
        """Return what rows (n, D) say of their factors under every class."""
        xp = array_namespace(x, parameters["mean"])
        # About the data's centre, where sums lose no digits.
        offset = self._terms["mean"] if xp is np else beside(x, self._terms["mean"])
        values, observed = observed_rows(xp, x - offset, self.missing)
        noise = self.noise_by_column(parameters)
        mean = parameters["mean"] - offset
        return factors_given(values, observed, mean, parameters["loadings"], noise)

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        return self.given(parameters, x).log_prob

    def e_step(
        self, parameters: Parameters, x: Array
    ) -> tuple[Array, Callable[[Array], Statistics]]:
        given = self.given(parameters, x)
        return given.log_prob, lambda r: self._expected_statistics(given, x, r)

    # -- statistics and estimates --------------------------------------------------------------

    def statistics(self, parameters: Parameters, x: Array, responsibilities: Array) -> Statistics:
        return self.e_step(parameters, x)[1](responsibilities)

    def initial_statistics(self, x: Array, responsibilities: Array) -> Statistics:
        """Statistics under the factors of all rows together, which every class starts from."""
        assert self.start is not None
        n_classes = responsibilities.shape[1]
        alike = tree_map(lambda leaf: np.repeat(leaf, n_classes, axis=0), self.start)
        return self.statistics(alike, x, responsibilities)

    def _expected_statistics(self, given: FactorsGiven, x: Array, r: Array) -> Statistics:
        """Second moments of a row's factors, and a one, with each other and with its entries.

        ``moments`` (K, D or 1, L + 1, L + 1) are over the rows that have a column, or over all
        where none is missing; ``factors`` are over all rows.
        """
        xp = array_namespace(x, r)
        offset = self._terms["mean"] if xp is np else beside(x, self._terms["mean"])
        values, observed = observed_rows(xp, x - offset, self.missing)
        mean, covariance = given.mean, given.covariance
        n_classes, n_rows, size = mean.shape[0], mean.shape[1], mean.shape[2] + 1
        lifted = xp.concat([mean, xp.ones_like(mean[:, :, :1])], axis=2)
        # The one is certain: its row and column of the covariance are zero.
        padding = beside(mean, np.eye(size - 1, size))
        wide = xp.matrix_transpose(padding) @ covariance @ padding
        weighted = lifted * r.T[:, :, None]
        outer = xp.matrix_transpose(weighted) @ lifted
        statistics = {
            "cross": values.T @ weighted,
            "square": r.T @ (values * values),
        }
        if observed is None:
            factors = outer + xp.sum(r, axis=0)[:, None, None] * wide[:, 0]
            moments = factors[:, None]
            if self.missing:  # no entry of these rows is missing, but some of others are
                moments = xp.broadcast_to(moments, (n_classes, self.n_columns, size, size))
            return {**statistics, "factors": factors, "moments": moments}
        each = (lifted[..., :, None] * lifted[..., None, :] + wide) * r.T[:, :, None, None]
        flat = observed.T @ xp.reshape(each, (n_classes, n_rows, size * size))
        moments = xp.reshape(flat, (n_classes, -1, size, size))
        return {**statistics, "factors": xp.sum(each, axis=1), "moments": moments}

    def estimate(self, statistics: Statistics) -> Parameters:
        if self.prior is not None:
            weights, noise = self._regress_under_prior(statistics)
        else:
            weights = self._regress(statistics, 0.0)
            noise = self._noise(statistics, weights, 0.0, 0.0)
            weights = _expanded(weights, statistics["factors"])
        return {
            "mean": weights[..., -1] + self._terms["mean"],
            "loadings": weights[..., :-1],
            "noise_variance": noise[:, 0] if self.is_isotropic else noise,
        }

    def _regress(self, statistics: Statistics, ridge: Array | float) -> Array:
        """Regress every column on the factors and a one: (K, D, L + 1)."""
        moments, cross = statistics["moments"], statistics["cross"]
        size = moments.shape[-1]
        gram = moments + ridge + TINY * np.eye(size)
        # Columns that share a gram matrix are right-hand sides of one system.
        right = np.swapaxes(cross.reshape(*gram.shape[:2], -1, size), -1, -2)
        solved: Array = np.swapaxes(np.linalg.solve(gram, right), -1, -2).reshape(cross.shape)
        return solved

    def _noise(
        self, statistics: Statistics, weights: Array, dof: float, scale: Array | float
    ) -> Array:
        """Variances about the regressions, on or above their floor: (K, D)."""
        moments, square = statistics["moments"], statistics["square"]
        fitted = (weights * (weights[..., None, :] @ moments)[..., 0, :]).sum(axis=-1)
        rest = square - 2.0 * (weights * statistics["cross"]).sum(axis=-1) + fitted
        count = np.broadcast_to(moments[..., -1, -1], rest.shape)
        rest = np.maximum(rest, 0.0)
        if self.is_isotropic:
            rest = rest.sum(axis=1, keepdims=True)
            count = count.sum(axis=1, keepdims=True)
        # A class that never shows a column is taken to vary there as all rows do.
        variance = np.where(
            count + dof > TINY, (rest + scale) / (count + dof + TINY), self._terms["deviation"] ** 2
        )
        return np.maximum(np.broadcast_to(variance, square.shape), self.floor)

    def _regress_under_prior(self, statistics: Statistics) -> tuple[Array, Array]:
        """Mode of regressions and noises: each given the other, until neither moves."""
        terms = self._terms
        scale = terms["scale"].mean() if self.is_isotropic else terms["scale"]
        noise = np.broadcast_to(terms["scale"], statistics["square"].shape)
        for _ in range(500):
            ridge = noise[..., None, None] * self._prior_precision()
            together = {**statistics, "moments": statistics["moments"] + 0.0 * ridge}
            weights = self._regress(together, ridge)
            before = noise
            noise = self._noise(statistics, weights, terms["dof"] + 2.0, scale)
            if np.abs(np.log(noise / before)).max() < 1e-12:
                break
        return weights, noise

    def _prior_precision(self) -> Array:
        """Precisions of the loadings and the mean of each column: (D, L + 1, L + 1), diagonal."""
        entries = np.append(np.ones(self.n_factors), self._terms["shrinkage"])
        return np.diag(entries) / self._terms["deviation"][:, None, None] ** 2

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        if self.prior is None:
            return 0.0
        terms, noise = self._terms, parameters["noise_variance"]
        scale = terms["scale"].mean() if self.is_isotropic else terms["scale"]
        away = (parameters["mean"] - terms["mean"]) / terms["deviation"]
        loadings = parameters["loadings"] / terms["deviation"][:, None]
        spread = (0.5 * terms["dof"] + 1.0) * np.log(noise) + 0.5 * scale / noise
        squares = (loadings**2).sum() + terms["shrinkage"] * (away**2).sum()
        return float(0.5 * squares + spread.sum())

    # -- the start -----------------------------------------------------------------------------

    def initial_parameters(
        self, x: Array, responsibilities: Array, rng: np.random.Generator
    ) -> Parameters:
        """Return the maximum likelihood of each class's own rows, missing ones at their means.

        For complete rows of one class this is the estimate itself, and not only a start.
        """
        fits = []
        for shares in responsibilities.T:
            rows = shares > 0.0
            if not rows.any():
                rows, shares = np.ones(len(x), dtype=bool), np.ones(len(x))
            with one_blas_thread:
                fits.append(self._fit_class(x[rows], shares[rows], responsibilities.shape[1] > 1))
        return {name: np.stack([fit[name] for fit in fits]) for name in fits[0]}

    def _principal(self, x: Array) -> Parameters:
        """Probabilistic PCA of all rows, their columns standardised, as a class."""
        deviation = self._terms["deviation"]
        mean, root = self._root(x, np.ones(len(x)))
        loadings, noise = fit_isotropic(root / deviation, self.n_factors, 1e-3)
        variances = noise * deviation**2
        return {
            "mean": mean[None] + self._terms["mean"],
            "loadings": (loadings * deviation[:, None])[None],
            "noise_variance": variances[:1] if self.is_isotropic else variances[None],
        }

    def _root(self, x: Array, weights: Array) -> tuple[Array, Array]:
        """Mean about the data's, and root of the covariance; missing entries at their mean."""
        centre = self._terms["mean"]
        missing = np.isnan(x)
        if missing.any():
            seen = weights @ ~missing
            mean = weights @ np.where(missing, 0.0, x) / np.where(seen > 0.0, seen, 1.0)
            x = np.where(missing, np.where(seen > 0.0, mean, centre), x)
        return covariance_root(x - centre, weights)

    def _fit_class(self, x: Array, weights: Array, lend: bool) -> Parameters:
        """Fit one class to its weighted rows; where it is one of several, `lend` it some spread."""
        terms = self._terms
        mean, root = self._root(x, weights)
        if lend:
            # As of one row as wide as all, so that a class of few rows is not too narrow to leave.
            share = 1.0 / (1.0 + weights.sum())
            spread = np.diag(terms["deviation"]) * np.sqrt(share)
            root = np.concatenate([root * np.sqrt(1.0 - share), spread])
        floor = self.floor
        if self.is_isotropic:
            loadings, noise = fit_isotropic(root, self.n_factors, float(floor[0]))
        else:
            loadings, noise = fit_diagonal(root, self.n_factors, floor)
        return {
            "mean": mean + terms["mean"],
            "loadings": loadings @ canonical(loadings, noise),
            "noise_variance": noise[0] if self.is_isotropic else noise,
        }

    def features(self, x: Array, *, units: bool = False) -> Array:
        values = x - self._terms["mean"]
        values = np.where(np.isnan(values), 0.0, values)
        return values if units else values / self._terms["deviation"]

    # -- rows and factors ------------------------------------------------------------------------

    def sample(self, parameters: Parameters, labels: Array, random: RandomSource) -> Array:
        factors = random.normal((labels.shape[0], self.n_factors))
        noise = random.normal((labels.shape[0], self.n_columns or 0))
        xp = array_namespace(noise)
        deviations = self.noise_by_column(parameters)[labels] ** 0.5
        driven = xp.sum(parameters["loadings"][labels] * factors[:, None, :], axis=-1)
        return parameters["mean"][labels] + driven + deviations * noise

    def draw_factors(
        self, parameters: Parameters, x: Array, labels: Array, random: RandomSource
    ) -> Array:
        """Draw the factors of rows of known class from their posterior: (n, L).

        Of the perturbed row ``x + e`` and a draw f of the prior, ``E[f | x + e] + M^-1 f`` has the
        posterior's mean and covariance (perturb and maximise; Papandreou & Yuille, NIPS 23, 2010).
        """
        noise = self.noise_by_column(parameters)[labels]
        moved = x + np.sqrt(noise) * random.normal(x.shape)
        given = self.given(parameters, moved)
        rows = np.arange(len(x))
        covariance = np.broadcast_to(given.covariance, (*given.mean.shape, self.n_factors))
        prior = random.normal((len(x), self.n_factors))
        added = (covariance[labels, rows] @ prior[..., None])[..., 0]
        return given.mean[labels, rows] + added

    def expected(self, parameters: Parameters, x: Array, responsibilities: Array) -> Any:
        factors = self.given(parameters, x).mean
        rows = factors @ np.swapaxes(parameters["loadings"], -1, -2)
        rows = rows + parameters["mean"][:, None, :]
        return np.einsum("knd,nk->nd", rows, responsibilities)

    def draw_missing(
        self, parameters: Parameters, x: Array, labels: Array, random: RandomSource
    ) -> Array:
        factors = self.draw_factors(parameters, x, labels, random)
        deviations = np.sqrt(self.noise_by_column(parameters)[labels])
        driven = (parameters["loadings"][labels] @ factors[..., None])[..., 0]
        drawn = parameters["mean"][labels] + driven + deviations * random.normal(x.shape)
        return np.where(np.isnan(x), drawn, x)

    def n_free(self, n_classes: int) -> int:
        width, factors = self.n_columns or 0, self.n_factors
        loadings = width * factors - factors * (factors - 1) // 2  # less the rotations
        return n_classes * (width + loadings + (1 if self.is_isotropic else width))

    # -- the program -----------------------------------------------------------------------------

    def draw(self, n_classes: int, plate: str, prefix: str = "") -> Parameters:
        from ppl_gen.families.factor_normal_program import draw

        return draw(self._terms, self.n_factors, n_classes, plate, prefix, tied=self.is_isotropic)

    def sites(self, parameters: Parameters, prefix: str = "") -> dict[str, Array]:
        terms = self._terms
        deviation = terms["deviation"]
        return {
            f"{prefix}noise_variance": parameters["noise_variance"],
            f"{prefix}loadings_whitened": parameters["loadings"] / deviation[:, None],
            f"{prefix}loadings": parameters["loadings"],
            f"{prefix}mean_whitened": (parameters["mean"] - terms["mean"]) / deviation,
            f"{prefix}mean": parameters["mean"],
        }

    def coords(self, names: list[Any], prefix: str = "") -> dict[str, list[Any]]:
        return {f"{prefix}column": names}

    def rotatable(self, prefix: str = "") -> tuple[str, ...]:
        return (f"{prefix}factor",)

    def parameters(self, sites: dict[str, Array], prefix: str = "") -> Parameters:
        return {name: sites[f"{prefix}{name}"] for name in ("mean", "loadings", "noise_variance")}


def _expanded(weights: Array, factors: Array) -> Array:
    """Let the factors have the moments (K, L + 1, L + 1) they were found to have, then undo it.

    With mean a and covariance GG' of the factors f = a + G g, regressions on g have the loadings
    W G and the mean m + W a, and no lower likelihood: the reduction step of PX-EM.
    """
    count = factors[:, -1, -1, None] + TINY
    mean = factors[:, :-1, -1] / count
    size = mean.shape[1]
    spread = factors[:, :-1, :-1] / count[..., None] - mean[:, :, None] * mean[:, None, :]
    empty = (count <= 1e3 * TINY)[..., None]
    root = np.linalg.cholesky(np.where(empty, np.eye(size), spread))
    loadings = weights[..., :-1]
    centre = weights[..., -1] + (loadings @ mean[..., None])[..., 0]
    return np.concatenate([loadings @ root, centre[..., None]], axis=-1)
