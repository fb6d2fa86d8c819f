"""Families of counts: Bernoulli, multinomial, Poisson."""

import dataclasses
from typing import Any, ClassVar, Self

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace
from ppl_gen.engines.base import RandomSource
from ppl_gen.families.base import Array, Family, Parameters, Statistics, observed_rows

#: The least probability an estimate without a prior may have; its log is finite.
LEAST_PROBABILITY = 1e-300


@dataclasses.dataclass(frozen=True, eq=False)
class Counted(Family):
    """What the families of this file share: a log density linear in what is counted."""

    alpha: float = 1.0
    missing: bool = dataclasses.field(default=False, kw_only=True)

    takes_sparse: ClassVar[bool] = True
    #: The one parameter, and the name of its site in a program.
    parameter: ClassVar[str] = "probs"

    def bind(self, x: Array, n_classes: int) -> Self:
        if not self.alpha >= 0.0:
            raise ValueError(f"{type(self).__name__}: alpha is {self.alpha}; it must be at least 0")
        bound = dataclasses.replace(self, n_columns=x.shape[1], missing=_has_nan(x))
        bound.check(x)
        return bound

    def check(self, x: Array) -> None:
        values = stored(x)
        wrong = (values < 0) | (values != np.floor(values))
        if wrong.any():
            raise ValueError(
                f"{type(self).__name__}: Negative values in data or values that are not whole: "
                f"found {values[wrong][0]:g}; expected counts 0, 1, 2, ..."
            )

    def features(self, x: Array, *, units: bool = False) -> Array:
        dense = x.toarray() if hasattr(x, "toarray") else x
        return centred(np.sqrt(dense))

    def n_free(self, n_classes: int) -> int:
        return n_classes * (self.n_columns or 0)

    def sites(self, parameters: Parameters, prefix: str = "") -> dict[str, Array]:
        return {f"{prefix}{self.parameter}": parameters[self.parameter]}

    def parameters(self, sites: dict[str, Array], prefix: str = "") -> Parameters:
        return {self.parameter: sites[f"{prefix}{self.parameter}"]}


def stored(x: Array) -> Array:
    """Return the observed entries of a table: of a sparse one, those that it stores."""
    values = x.data if hasattr(x, "toarray") else x
    return values[~np.isnan(values)]


def centred(x: Array) -> Array:
    """Subtract the column means, and put zero where a value is missing."""
    absent = np.isnan(x)
    counts = np.maximum((~absent).sum(axis=0), 1)
    mean = np.where(absent, 0.0, x).sum(axis=0) / counts
    return np.where(absent, 0.0, x - mean)


def _has_nan(x: Array) -> bool:
    return bool(np.isnan(x.data.sum() if hasattr(x, "toarray") else x.sum()))


def _in_part_missing(x: Array) -> bool:
    absent = np.isnan(x)
    return bool((absent.any(axis=1) & ~absent.all(axis=1)).any())


def _namespace(x: Array, parameters: Array) -> Any:
    return np if hasattr(x, "toarray") else array_namespace(x, parameters)


def _split(xp: Any, x: Array, missing: bool) -> tuple[Array, Array | None]:
    """Values and mask; sparse rows are complete, and stay as they are."""
    return (x, None) if hasattr(x, "toarray") else observed_rows(xp, x, missing)


@dataclasses.dataclass(frozen=True, eq=False)
class Bernoulli(Counted):
    """Independent yes/no columns.

    Parameters
    ----------
    alpha : float
        Prior counts of a yes and of a no: estimates are ``(yes + alpha) / (n + 2 alpha)``,
        the posterior mode under Beta(1 + alpha, 1 + alpha). scikit-learn's BernoulliNB is
        this with its default, 1.

    Examples
    --------
    >>> import numpy as np
    >>> family = Bernoulli().bind(np.array([[0.0], [1.0]]), n_classes=1)
    >>> family.log_prob({"probs": np.array([[0.25]])}, np.array([[1.0], [np.nan]])).round(4)
    array([[-1.3863],
           [ 0.    ]])
    """

    name: ClassVar[str] = "bernoulli"

    def check(self, x: Array) -> None:
        values = stored(x)
        wrong = (values != 0) & (values != 1)
        if wrong.any():
            raise ValueError(
                f"Bernoulli: found {values[wrong][0]:g}; expected 0 and 1 only; threshold the "
                "columns first, or choose another family"
            )

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        probs = parameters["probs"]
        xp = _namespace(x, probs)
        values, observed = _split(xp, x, self.missing)
        yes, no = xp.log(probs), xp.log1p(-probs)
        absent = xp.sum(no, axis=1) if observed is None else observed @ no.T
        return values @ (yes - no).T + absent

    def statistics(self, parameters: Parameters, x: Array, responsibilities: Array) -> Statistics:
        xp = _namespace(x, responsibilities)
        values, observed = _split(xp, x, self.missing)
        yes = (values.T @ responsibilities).T
        if observed is None:
            count = xp.broadcast_to(xp.sum(responsibilities, axis=0)[:, None], yes.shape)
        else:
            count = responsibilities.T @ observed
        return {"yes": yes, "count": count}

    def estimate(self, statistics: Statistics) -> Parameters:
        total = statistics["count"] + 2.0 * self.alpha
        probs = (statistics["yes"] + self.alpha) / np.where(total > 0.0, total, 1.0)
        return {"probs": np.clip(probs, LEAST_PROBABILITY, 1.0 - 1e-12)}

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        probs = parameters["probs"]
        return -self.alpha * float((np.log(probs) + np.log1p(-probs)).sum())

    def sample(self, parameters: Parameters, labels: Array, random: RandomSource) -> Array:
        probs = parameters["probs"][labels]
        draws = random.uniform(probs.shape)
        return array_namespace(draws).astype(draws < probs, probs.dtype)

    def draw(self, n_classes: int, plate: str, prefix: str = "") -> Parameters:
        from ppl_gen import language

        shape = np.full(self.n_columns or 0, 1.0 + self.alpha)
        with language.plate(plate, n_classes):
            prior = language.dist.Beta(shape, shape).to_event(1)
            return {"probs": language.sample(f"{prefix}probs", prior, dims=(f"{prefix}column",))}

    def expected(self, parameters: Parameters, x: Array, responsibilities: Array) -> Any:
        return responsibilities @ parameters["probs"]

    def settle(self, expected: Any, x: Array) -> Array:
        return np.where(np.isnan(x), (expected > 0.5).astype(np.float64), x)

    def column_log_prob(self, parameters: Parameters, x: Array) -> Array:
        probs = parameters["probs"]
        terms = np.where(x[:, None, :] == 1.0, np.log(probs), np.log1p(-probs))
        return np.where(np.isnan(x)[:, None, :], 0.0, terms)


@dataclasses.dataclass(frozen=True, eq=False)
class Multinomial(Counted):
    """Rows of counts that share out a total, such as words of a document.

    Parameters
    ----------
    alpha : float
        Prior count of every column: the posterior mode under Dirichlet(1 + alpha). 1 is
        scikit-learn's MultinomialNB.

    Notes
    -----
    The total of a row is taken as given. A missing count would leave it unknown: NaN is refused,
    but for rows of which all is missing, which say nothing.

    Examples
    --------
    >>> import numpy as np
    >>> family = Multinomial().bind(np.array([[1.0, 1.0]]), n_classes=1)
    >>> family.log_prob({"probs": np.array([[0.5, 0.5]])}, np.array([[1.0, 1.0]])).round(4)
    array([[-0.6931]])
    """

    name: ClassVar[str] = "multinomial"
    takes_nan: ClassVar[bool] = False

    #: Total of a drawn row where nothing else is said: the mean total of the training rows.
    total: int | None = dataclasses.field(default=None, kw_only=True)

    def bind(self, x: Array, n_classes: int) -> Self:
        bound = super().bind(x, n_classes)
        n_seen = x.shape[0]
        if bound.missing:
            n_seen -= int(np.isnan(x[:, 0]).sum())
        mean_total = float(stored(x).sum()) / max(n_seen, 1)
        return dataclasses.replace(bound, total=max(round(mean_total), 1))

    def check(self, x: Array) -> None:
        if _has_nan(x) and (hasattr(x, "toarray") or _in_part_missing(x)):
            raise ValueError(
                "Multinomial: X has NaN, but a count that is missing leaves the total of its row "
                "unknown; fill it, or use Poisson columns, which take NaN"
            )
        # Fractional counts, such as tf-idf weights, are taken as scikit-learn takes them.
        values = stored(x)
        if (values < 0).any():
            raise ValueError(
                f"Multinomial: Negative values in data: found {values.min():g}; expected counts"
            )

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        probs = parameters["probs"]
        xp = _namespace(x, probs)
        values, _ = _split(xp, x, self.missing)
        return values @ xp.log(probs).T + log_coefficient(xp, values)[:, None]

    def statistics(self, parameters: Parameters, x: Array, responsibilities: Array) -> Statistics:
        values, _ = _split(_namespace(x, responsibilities), x, self.missing)
        return {"count": (values.T @ responsibilities).T}

    def estimate(self, statistics: Statistics) -> Parameters:
        counts = statistics["count"] + self.alpha
        total = counts.sum(axis=1, keepdims=True)
        uniform = 1.0 / counts.shape[1]
        probs = np.where(total > 0.0, counts / np.where(total > 0.0, total, 1.0), uniform)
        return {"probs": np.maximum(probs, LEAST_PROBABILITY)}

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        return -self.alpha * float(np.log(parameters["probs"]).sum())

    def sample(self, parameters: Parameters, labels: Array, random: RandomSource) -> Array:
        probs = parameters["probs"]
        totals = random.multinomial(self.total or 1, probs[labels])
        return array_namespace(probs).astype(totals, probs.dtype)

    def draw(self, n_classes: int, plate: str, prefix: str = "") -> Parameters:
        from ppl_gen import language

        prior = np.full(self.n_columns or 0, 1.0 + self.alpha)
        with language.plate(plate, n_classes):
            probs = language.sample(
                f"{prefix}probs", language.dist.Dirichlet(prior), dims=(f"{prefix}column",)
            )
        return {"probs": probs}

    def n_free(self, n_classes: int) -> int:
        return n_classes * ((self.n_columns or 1) - 1)

    def expected(self, parameters: Parameters, x: Array, responsibilities: Array) -> Any:
        return (self.total or 1) * (responsibilities @ parameters["probs"])

    def column_log_prob(self, parameters: Parameters, x: Array) -> Array:
        values, _ = _split(np, x, self.missing)
        return values[:, None, :] * np.log(parameters["probs"])


@dataclasses.dataclass(frozen=True, eq=False)
class Poisson(Counted):
    """Independent columns of counts.

    Parameters
    ----------
    alpha : float
        Strength of the Gamma prior on each rate, in rows: Gamma(1 + alpha m, alpha) with m
        the column's mean, whose mode is m. 0 is maximum likelihood.

    Examples
    --------
    >>> import numpy as np
    >>> family = Poisson().bind(np.array([[3.0]]), n_classes=1)
    >>> family.log_prob({"rate": np.array([[2.0]])}, np.array([[1.0]])).round(4)
    array([[-1.3069]])
    """

    name: ClassVar[str] = "poisson"
    parameter: ClassVar[str] = "rate"

    centre: Array = dataclasses.field(default=None, kw_only=True)

    def bind(self, x: Array, n_classes: int) -> Self:
        bound = super().bind(x, n_classes)
        if hasattr(x, "toarray"):
            centre = np.asarray(x.mean(axis=0)).ravel()
        else:
            centre = np.nanmean(x, axis=0)
        return dataclasses.replace(bound, centre=np.maximum(centre, 1e-8))

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        rate = parameters["rate"]
        xp = _namespace(x, rate)
        values, observed = _split(xp, x, self.missing)
        expected = xp.sum(rate, axis=1) if observed is None else observed @ rate.T
        return values @ xp.log(rate).T - expected - log_factorials(xp, values)[:, None]

    def statistics(self, parameters: Parameters, x: Array, responsibilities: Array) -> Statistics:
        xp = _namespace(x, responsibilities)
        values, observed = _split(xp, x, self.missing)
        total = (values.T @ responsibilities).T
        if observed is None:
            count = xp.broadcast_to(xp.sum(responsibilities, axis=0)[:, None], total.shape)
        else:
            count = responsibilities.T @ observed
        return {"sum": total, "count": count}

    def estimate(self, statistics: Statistics) -> Parameters:
        rows = statistics["count"] + self.alpha
        rate = (statistics["sum"] + self.alpha * self.centre) / np.where(rows > 0.0, rows, 1.0)
        return {"rate": np.maximum(rate, 1e-12)}

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        rate = parameters["rate"]
        return -self.alpha * float((self.centre * np.log(rate) - rate).sum())

    def sample(self, parameters: Parameters, labels: Array, random: RandomSource) -> Array:
        rate = parameters["rate"][labels]
        return array_namespace(rate).astype(random.poisson(rate), rate.dtype)

    def draw(self, n_classes: int, plate: str, prefix: str = "") -> Parameters:
        from ppl_gen import language

        rows = max(self.alpha, 1e-3)  # a Gamma with no rate is improper
        shape, rows_each = 1.0 + rows * self.centre, np.full_like(self.centre, rows)
        with language.plate(plate, n_classes):
            prior = language.dist.Gamma(shape, rows_each).to_event(1)
            return {"rate": language.sample(f"{prefix}rate", prior, dims=(f"{prefix}column",))}

    def expected(self, parameters: Parameters, x: Array, responsibilities: Array) -> Any:
        return responsibilities @ parameters["rate"]

    def column_log_prob(self, parameters: Parameters, x: Array) -> Array:
        from scipy.special import gammaln

        rate, counts = parameters["rate"], x[:, None, :]
        terms = counts * np.log(rate) - rate - gammaln(counts + 1.0)
        return np.where(np.isnan(terms), 0.0, terms)


def log_factorials(xp: Any, x: Array) -> Array:
    """Sum of log(x!) over each row: (n,)."""
    if hasattr(x, "toarray"):
        logs = x.copy()
        logs.data = log_gamma(np, logs.data + 1.0)
        return np.asarray(logs.sum(axis=1)).ravel()
    return xp.sum(log_gamma(xp, x + 1.0), axis=1)


def log_coefficient(xp: Any, x: Array) -> Array:
    """Log of the multinomial coefficient of each row: (n,)."""
    totals = np.asarray(x.sum(axis=1)).ravel() if hasattr(x, "toarray") else xp.sum(x, axis=1)
    return log_gamma(xp, totals + 1.0) - log_factorials(xp, x)


def log_gamma(xp: Any, x: Array) -> Array:
    """Log of the gamma function, on NumPy, JAX or torch arrays."""
    if isinstance(x, np.ndarray):
        from scipy.special import gammaln

        return gammaln(x)
    if "torch" in xp.__name__:
        return x.lgamma()
    from jax.scipy.special import gammaln as traced_gammaln

    return traced_gammaln(x)
