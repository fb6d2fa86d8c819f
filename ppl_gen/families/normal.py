"""The normal family, with four kinds of covariance, and its conjugate prior."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside
from ppl_gen.algorithms.normal import (
    Conditional,
    about_given_mean,
    column_moments,
    conditional,
    crossed,
    default_prior,
    diagonal_distance,
    diagonal_sums,
    precision_factor,
    reciprocal_deviations,
    whitened_distance,
)
from ppl_gen.engines.base import RandomSource
from ppl_gen.families.base import Array, Family, Parameters, Statistics, observed_rows

LOG_2PI = math.log(2.0 * math.pi)
#: Share of each column's variance that is added where no other floor is set.
FLOOR_SHARE = 1e-6
COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")


@dataclasses.dataclass(frozen=True, eq=False)
class Normal(Family):
    """Normal rows: full, tied, diagonal or spherical covariance.

    Parameters
    ----------
    covariance_type : {"full", "tied", "diag", "spherical"}
        One covariance a class, one for all, one variance a column, one variance a class.
    reg_covar : float or None
        Added to every variance (in squared units of the data), so that none reaches zero. None
        adds a millionth of each column's own variance, whatever its units.
    var_smoothing : float
        The same, as a share of the largest variance of the columns.
    prior : None, "default" or dict
        ``None``: EM maximises the likelihood, and SVI and NUTS use the default prior.
        ``"default"``: EM finds the posterior mode under that prior too. A dict replaces some
        of its terms: ``mean`` (D,), ``shrinkage``, ``dof`` and ``scale`` (D, D), or (D,) for
        diagonal and spherical covariances.

    Notes
    -----
    The prior is the conjugate normal-inverse-Wishart (normal-inverse-gamma), by default with
    the terms of Fraley & Raftery (Journal of Classification 24, 2007, section 3.2): mean of
    the data, shrinkage 0.01, D + 2 degrees of freedom, scale cov(data) / K^(2/D).

    A class is held by its mean and by a triangular factor U of its precision, P = U U'.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[0.0, 0.0], [1.0, np.nan]])
    >>> family = Normal("diag").bind(x, n_classes=1)
    >>> parameters = {"mean": np.zeros((1, 2)), "precision_cholesky": np.ones((1, 2))}
    >>> family.log_prob(parameters, x).round(4)
    array([[-1.8379],
           [-1.4189]])
    """

    name: ClassVar[str] = "normal"

    covariance_type: str = "full"
    reg_covar: float | None = 1e-6
    var_smoothing: float = 0.0
    prior: str | dict[str, Any] | None = None
    floor: float | Array | None = dataclasses.field(default=None, kw_only=True)
    offset: Array = dataclasses.field(default=None, kw_only=True)
    terms: dict[str, Any] | None = dataclasses.field(default=None, kw_only=True)
    missing: bool = dataclasses.field(default=False, kw_only=True)

    @property
    def whole(self) -> tuple[bool, ...]:
        return (False,) * (self.n_columns or 0)

    def with_prior(self) -> Family:
        return self if self.prior is not None else self.replace(prior="default")

    def is_one_pass(self, x: Array) -> bool:
        return self._diagonal or not np.isnan(x.sum())

    @property
    def _diagonal(self) -> bool:
        return self.covariance_type in ("diag", "spherical")

    @property
    def _width(self) -> int:
        if self.n_columns is None:
            raise ValueError("Normal: the family is not bound to data; call bind(x, n_classes)")
        return self.n_columns

    def bind(self, x: Array, n_classes: int) -> Self:
        if self.covariance_type not in COVARIANCE_TYPES:
            known = ", ".join(map(repr, COVARIANCE_TYPES))
            raise ValueError(
                f"Normal: covariance_type is {self.covariance_type!r}; expected one of {known}"
            )
        added = 0.0 if self.reg_covar is None else self.reg_covar
        if not added >= 0.0 or not self.var_smoothing >= 0.0:
            raise ValueError("Normal: reg_covar and var_smoothing must be at least 0")
        offset, variances, missing = column_moments(x)
        floor: float | Array = added + self.var_smoothing * float(variances.max(initial=0.0))
        if self.reg_covar is None:  # a constant column has no units to take a share of
            floor = floor + FLOOR_SHARE * np.where(variances > 0.0, variances, 1.0)
            floor = np.mean(floor) if self.covariance_type == "spherical" else floor
        moments = (offset, variances, missing)
        terms = default_prior(x, n_classes, moments, floor, diagonal=self._diagonal)
        if isinstance(self.prior, dict):
            unknown = set(self.prior) - set(terms)
            if unknown:
                raise ValueError(
                    f"Normal: prior has unknown terms {sorted(unknown)}; it takes {sorted(terms)}"
                )
            for name, value in self.prior.items():
                given = np.asarray(value, dtype=np.float64)
                if given.shape != np.shape(terms[name]):
                    raise ValueError(
                        f"Normal: prior[{name!r}] has shape {given.shape}; "
                        f"expected {np.shape(terms[name])}"
                    )
                terms[name] = given if given.ndim else float(given)
        elif self.prior not in (None, "default"):
            raise ValueError(f"Normal: prior is {self.prior!r}; use None, 'default' or a dict")
        return dataclasses.replace(
            self, n_columns=x.shape[1], floor=floor, offset=offset, terms=terms, missing=missing
        )

    # -- density -----------------------------------------------------------------------------

    def _local(self, parameters: Parameters, x: Array) -> tuple[Any, Array, Array, Array]:
        """Rows, means and factors about the data's centre, where sums lose no digits."""
        xp = array_namespace(x, parameters["mean"])
        offset = self.offset if xp is np else beside(x, self.offset)
        factor = parameters["precision_cholesky"]
        if self.covariance_type == "spherical":
            factor = xp.broadcast_to(factor[:, None], (factor.shape[0], self._width))
        return xp, x - offset, parameters["mean"] - offset, factor

    def _log_normaliser(self, xp: Any, factor: Array) -> Array:
        """Half the log determinant of the precision less the constant, by class or for all."""
        diagonal = factor if self._diagonal else xp.linalg.diagonal(factor)
        return xp.sum(xp.log(xp.abs(diagonal)) - 0.5 * LOG_2PI, axis=-1)

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        return self.e_step(parameters, x)[0]

    def e_step(
        self, parameters: Parameters, x: Array
    ) -> tuple[Array, Callable[[Array], Statistics]]:
        xp, x, mean, factor = self._local(parameters, x)
        if self._diagonal:
            values, observed = observed_rows(xp, x, self.missing)
            distance = diagonal_distance(values, observed, mean, factor)
            if observed is None:
                constant = self._log_normaliser(xp, factor)
            else:
                constant = observed @ (xp.log(factor) - 0.5 * LOG_2PI).T
            if xp is not np:
                return constant - 0.5 * distance, lambda r: diagonal_sums(values, observed, r)
            distance *= -0.5
            distance += constant
            return distance, lambda r: diagonal_sums(values, observed, r)
        missing = bool(np.isnan(x.sum())) if xp is np else self.missing
        if not missing:
            distance = whitened_distance(x, mean, factor)
            log_prob = self._log_normaliser(xp, factor) - 0.5 * distance
            return log_prob, lambda r: self._complete_statistics(xp, x, r)
        given = conditional(x, mean, factor)
        whitened = given.deviation @ factor  # (K, n, D); a (D, D) factor broadcasts
        distance = xp.sum(whitened * whitened, axis=-1).T
        n_missing = xp.sum(xp.astype(xp.isnan(x), x.dtype), axis=1)[:, None]
        log_prob = (
            self._log_normaliser(xp, factor)
            + 0.5 * (n_missing * LOG_2PI - given.log_det)
            - 0.5 * distance
        )
        return log_prob, lambda r: self._expected_statistics(xp, given, mean, r)

    def column_log_prob(self, parameters: Parameters, x: Array) -> Array:
        if not self._diagonal:
            return super().column_log_prob(parameters, x)
        _, x, mean, factor = self._local(parameters, x)
        z = (x[:, None, :] - mean) * factor
        terms = np.log(factor) - 0.5 * LOG_2PI - 0.5 * z * z
        return np.where(np.isnan(terms), 0.0, terms)

    # -- statistics and estimates --------------------------------------------------------------

    def statistics(self, parameters: Parameters, x: Array, responsibilities: Array) -> Statistics:
        if array_namespace(x, responsibilities) is np and self.is_one_pass(x):
            return self.initial_statistics(x, responsibilities)
        return self.e_step(parameters, x)[1](responsibilities)

    def initial_statistics(self, x: Array, responsibilities: Array) -> Statistics:
        return self._sums(x - self.offset, responsibilities)

    def labelled_statistics(
        self, near: Array, x: Array, labels: Array, indicators: Array
    ) -> Statistics:
        return self._sums(x - near[labels], indicators)

    def _sums(self, x: Array, responsibilities: Array) -> Statistics:
        values, observed = observed_rows(np, x, True)
        if self._diagonal:
            return diagonal_sums(values, observed, responsibilities)
        # Missing entries start at the centre; the first E-step puts them right.
        return self._complete_statistics(np, values, responsibilities)

    def _complete_statistics(self, xp: Any, x: Array, r: Array) -> Statistics:
        n_rows, width = x.shape
        n_classes = r.shape[1]
        if self.covariance_type == "tied":
            outer = (x * xp.sum(r, axis=1)[:, None]).T @ x
        else:
            # Rows along the last axis, in long vectors; x' x of all classes is one product.
            columns = np.ascontiguousarray(x.T) if xp is np else x.T
            weighted = r.T[:, None, :] * columns[None]
            product = xp.reshape(weighted, (n_classes * width, n_rows)) @ x
            outer = xp.reshape(product, (n_classes, width, width))
        return {"count": xp.sum(r, axis=0), "sum": r.T @ x, "square": outer}

    def _expected_statistics(
        self, xp: Any, given: Conditional, mean: Array, r: Array
    ) -> Statistics:
        """E[x], E[xx'] given what is observed (Ghahramani & Jordan, NIPS 6, 1994, eq. 14-16)."""
        x = given.deviation + mean[:, None, :]  # (K, n, D)
        weighted = x * r.T[:, :, None]
        outer = xp.matrix_transpose(weighted) @ x
        width = x.shape[-1]
        for rows, places, covariance in given.blocks:
            weights = r[rows].T  # (K, r)
            if places is None:
                outer = outer + xp.permute_dims(xp.sum(covariance * weights, axis=-1), (2, 0, 1))
                continue
            cells = (places.T[:, None] * width + places.T[None]).ravel()  # (m m r)
            for k in range(len(outer)):
                spread = (covariance[:, :, k] * weights[k]).ravel()
                outer[k] += np.bincount(cells, spread, width * width).reshape(width, width)
        if self.covariance_type == "tied":
            outer = xp.sum(outer, axis=0)
        return {"count": xp.sum(r, axis=0), "sum": xp.sum(weighted, axis=1), "square": outer}

    def estimate(self, statistics: Statistics) -> Parameters:
        return self._estimate(statistics, self.offset)

    def labelled_estimate(self, near: Array, statistics: Statistics) -> Parameters:
        return self._estimate(statistics, near)

    def estimate_given(self, statistics: Statistics, given: Parameters) -> Parameters:
        if "mean" in given:
            away = given["mean"] - self.offset
            statistics = about_given_mean(statistics, away, self.covariance_type)
        return super().estimate_given(statistics, given)

    def _estimate(self, statistics: Statistics, origin: Array) -> Parameters:
        """Estimate from statistics about an origin: (D,), or (K, D) one a class."""
        count, total, square = statistics["count"], statistics["sum"], statistics["square"]
        width, floor = self._width, 0.0 if self.floor is None else self.floor
        tiny = 10.0 * np.finfo(np.float64).eps
        by_column = count if count.ndim == 2 else count[:, None]  # (K, D) or (K, 1)
        prior = self._mode_terms()
        pull = 0.0 if prior is None else prior["shrinkage"]
        centre = 0.0 if prior is None else prior["mean"] - origin
        mean = (total + pull * centre) / (by_column + pull + tiny)
        # Spread about the mean, plus that of the mean about its prior mean.
        if self._diagonal:
            spread = square - 2.0 * mean * total + by_column * mean**2 + pull * (mean - centre) ** 2
        else:
            spread = square - (
                crossed(mean, total, self.covariance_type)
                + crossed(total, mean, self.covariance_type)
                - crossed(mean * by_column, mean, self.covariance_type)
            )
            if prior is not None:
                away = mean - centre
                spread = spread + pull * crossed(away, away, self.covariance_type)
        return {
            "mean": mean + origin,
            "precision_cholesky": self._factor(spread, count, prior, floor, tiny, width),
        }

    def _factor(
        self,
        spread: Array,
        count: Array,
        prior: dict[str, Any] | None,
        floor: float | Array,
        tiny: float,
        width: int,
    ) -> Array:
        scale = 0.0 if prior is None else prior["scale"]
        extra = self._prior_count(prior, len(count))
        if self.covariance_type == "diag":
            columns = count if count.ndim == 2 else count[:, None]
            variance = (spread + scale) / (columns + extra + tiny)
            # A class that never shows a column is taken to vary there as the others do.
            pooled = spread.sum(axis=0) / np.maximum(columns.sum(axis=0), 1.0)
            variance = np.where(columns + extra > 0.0, variance, pooled)
            return reciprocal_deviations(np.maximum(variance, 0.0) + floor)
        if self.covariance_type == "spherical":
            entries = np.broadcast_to(count if count.ndim == 2 else count[:, None], spread.shape)
            variance = (spread + scale / width).sum(axis=1) / (entries.sum(axis=1) + extra + tiny)
            return reciprocal_deviations(np.maximum(variance, 0.0) + floor)
        if self.covariance_type == "tied":
            covariance = (spread + scale) / (count.sum() + extra + tiny)
        else:
            covariance = (spread + scale) / (count + extra + tiny)[:, None, None]
        return precision_factor(covariance + floor * np.eye(width))

    def _mode_terms(self) -> dict[str, Any] | None:
        return self.terms if self.prior is not None else None

    def _prior_count(self, prior: dict[str, Any] | None, n_classes: int) -> float:
        """Count that the prior adds to that of the rows (entries, if spherical) of a variance."""
        if prior is None:
            return 0.0
        dof: float = prior["dof"]
        if self.covariance_type == "diag":
            return dof + 3.0
        return dof + self._width + (1.0 + n_classes if self.covariance_type == "tied" else 2.0)

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        # reg_covar acts as -N_k/2 reg tr(P_k) in the M-step and nowhere else, with N_k the count
        # that divides the spread: the rows', and what the prior adds to it.
        count, diagonal = statistics["count"], self._precision_diagonal(parameters)
        by_column = count if count.ndim == 2 else count[:, None]
        prior = self._mode_terms()
        shared = {"tied": len(count), "spherical": self._width}.get(self.covariance_type, 1)
        added = self._prior_count(prior, len(count)) / shared
        floor = 0.0 if self.floor is None else self.floor
        total = 0.5 * float((floor * (by_column + added) * diagonal).sum())
        return total if prior is None else total - self._log_prior(parameters, prior)

    def _precision_diagonal(self, parameters: Parameters) -> Array:
        """Diagonals of the precisions: (K, D), (1, D) if tied, (K, D) of equals if spherical."""
        squares = parameters["precision_cholesky"] ** 2
        if self.covariance_type == "diag":
            return squares
        if self.covariance_type == "spherical":
            return np.broadcast_to(squares[:, None], (len(squares), self._width))
        return np.atleast_2d(squares.sum(axis=-1))

    def _log_prior(self, parameters: Parameters, prior: dict[str, Any]) -> float:
        """Log density of the conjugate prior, up to its constant."""
        factor, mean = parameters["precision_cholesky"], parameters["mean"]
        away = mean - prior["mean"]
        pull, dof, scale = prior["shrinkage"], prior["dof"], prior["scale"]
        width, n_classes = self._width, len(mean)
        if self.covariance_type == "diag":
            precision = factor**2
            terms = (0.5 * (dof + 3.0)) * np.log(precision) - 0.5 * precision * (
                scale + pull * away**2
            )
            return float(terms.sum())
        if self.covariance_type == "spherical":
            precision = factor**2
            shape = 0.5 * (dof + width + 2.0)
            rate = 0.5 * (scale.sum() / width + pull * (away**2).sum(axis=1))
            return float((shape * np.log(precision) - rate * precision).sum())
        factors = factor[None] if factor.ndim == 2 else factor
        log_det = 2.0 * np.log(np.abs(np.diagonal(factors, axis1=1, axis2=2))).sum(axis=1)
        trace = np.einsum("kde,df,kfe->k", factors, scale, factors)
        exponent = 0.5 * (dof + width + 1.0 + (n_classes if factor.ndim == 2 else 1.0))
        distance = np.einsum(
            "kd,kde->ke", away, np.broadcast_to(factors, (n_classes, width, width))
        )
        return float((exponent * log_det - 0.5 * trace).sum() - 0.5 * pull * (distance**2).sum())

    # -- everything else -------------------------------------------------------------------

    def features(self, x: Array, *, units: bool = False) -> Array:
        values = x - self.offset
        values = np.where(np.isnan(values), 0.0, values)
        spread = 1.0 if units else values.std(axis=0)
        return values / np.where(spread > 0.0, spread, 1.0)

    def sample(self, parameters: Parameters, labels: Array, random: RandomSource) -> Array:
        mean, factor = parameters["mean"], parameters["precision_cholesky"]
        noise = random.normal((labels.shape[0], self._width))
        if self.covariance_type == "diag":
            return mean[labels] + noise / factor[labels]
        if self.covariance_type == "spherical":
            return mean[labels] + noise / factor[labels][:, None]
        xp = array_namespace(noise)
        # P = U U' makes U'^-1 z a draw with covariance P^-1.
        factors = xp.broadcast_to(factor, (mean.shape[0], *factor.shape[-2:]))
        roots = xp.matrix_transpose(xp.linalg.inv(factors))
        return mean[labels] + xp.sum(roots[labels] * noise[:, None, :], axis=-1)

    def draw(self, n_classes: int, plate: str, prefix: str = "") -> Parameters:
        from ppl_gen.families import normal_program as priors

        shape = (self._prior_terms, self._width, n_classes, plate, prefix)
        if self._diagonal:
            return priors.draw_diagonal(*shape, spherical=self.covariance_type == "spherical")
        return priors.draw_full(*shape, tied=self.covariance_type == "tied")

    def sites(self, parameters: Parameters, prefix: str = "") -> dict[str, Array]:
        from ppl_gen.families.normal_program import whitening_factor

        terms = self._prior_terms
        root = whitening_factor(terms, self._diagonal)
        away = parameters["mean"] - terms["mean"]
        if self._diagonal:
            return {
                f"{prefix}variance": self.covariances(parameters),
                f"{prefix}mean_whitened": away * root,
                f"{prefix}mean": parameters["mean"],
            }
        factor = np.linalg.solve(root, parameters["precision_cholesky"])
        return {
            f"{prefix}precision_whitened": factor @ np.swapaxes(factor, -1, -2),
            f"{prefix}covariance": self.covariances(parameters),
            f"{prefix}mean_whitened": away @ root,
            f"{prefix}mean": parameters["mean"],
        }

    def coords(self, names: list[Any], prefix: str = "") -> dict[str, list[Any]]:
        if self._diagonal:
            return super().coords(names, prefix)
        return {f"{prefix}column": names, f"{prefix}column_": names}

    def parameters(self, sites: dict[str, Array], prefix: str = "") -> Parameters:
        if self._diagonal:
            factor = sites[f"{prefix}variance"] ** -0.5
        else:
            from ppl_gen.families.normal_program import whitening_factor

            root = whitening_factor(self._prior_terms, diagonal=False)
            factor = root @ np.linalg.cholesky(sites[f"{prefix}precision_whitened"])
        return {"mean": sites[f"{prefix}mean"], "precision_cholesky": factor}

    @property
    def _prior_terms(self) -> dict[str, Any]:
        if self.terms is None:
            raise ValueError("Normal: the family is not bound to data; call bind(x, n_classes)")
        return self.terms

    def covariances(self, parameters: Parameters) -> Array:
        """Covariances (K, D, D) or (D, D), or variances (K, D) or (K,), by covariance type."""
        factor = parameters["precision_cholesky"]
        if self._diagonal:
            return 1.0 / factor**2
        root = np.linalg.inv(factor)
        return np.swapaxes(root, -1, -2) @ root

    def factor(self, covariance: Array) -> Array:
        """Factors of the precisions, from covariances or variances of this covariance type."""
        return covariance**-0.5 if self._diagonal else precision_factor(covariance)

    def n_free(self, n_classes: int) -> int:
        width = self._width
        spread = {
            "full": n_classes * width * (width + 1) // 2,
            "tied": width * (width + 1) // 2,
            "diag": n_classes * width,
            "spherical": n_classes,
        }
        return n_classes * width + spread[self.covariance_type]

    def expected(self, parameters: Parameters, x: Array, responsibilities: Array) -> Any:
        return np.einsum("knd,nk->nd", self._conditional_mean(parameters, x), responsibilities)

    def merge(self, old: Parameters, new: Parameters, classes: Array) -> Parameters:
        if self.covariance_type != "tied":
            return super().merge(old, new, classes)
        mean = super().merge({"mean": old["mean"]}, {"mean": new["mean"]}, classes)
        return {**old, **mean}

    @property
    def layout(self) -> tuple[Any, ...]:
        return (self.name, self.n_columns, self.covariance_type)

    def _conditional_mean(self, parameters: Parameters, x: Array) -> Array:
        """E[x | observed, class]: (K, n, D)."""
        if self._diagonal:
            return np.where(np.isnan(x)[None], parameters["mean"][:, None, :], x[None])
        _, local, mean, factor = self._local(parameters, x)
        return conditional(local, mean, factor).deviation + parameters["mean"][:, None, :]

    def draw_missing(
        self, parameters: Parameters, x: Array, labels: Array, random: RandomSource
    ) -> Array:
        # Matheron's rule: a joint draw less its own conditional mean is conditional noise.
        joint = self.sample(parameters, labels, random)
        holed = np.where(np.isnan(x), np.nan, joint)
        rows = np.arange(len(x))
        mean = self._conditional_mean(parameters, x)[labels, rows]
        noise = joint - self._conditional_mean(parameters, holed)[labels, rows]
        return np.where(np.isnan(x), mean + noise, x)
