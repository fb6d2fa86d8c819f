"""The categorical family: columns of codes."""

import dataclasses
from typing import Any, ClassVar, Self

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside
from ppl_gen.engines.base import RandomSource
from ppl_gen.families.base import Array, Parameters, Statistics
from ppl_gen.families.discrete import LEAST_PROBABILITY, Counted


@dataclasses.dataclass(frozen=True, eq=False)
class Categorical(Counted):
    """Independent columns of categories, coded 0, 1, 2, ...

    Parameters
    ----------
    alpha : float
        Prior count of every category: the posterior mode under Dirichlet(1 + alpha). 1 is
        scikit-learn's CategoricalNB.
    n_categories : tuple of int or None
        Number of categories of each column; by default the highest code seen plus one.

    Examples
    --------
    >>> import numpy as np
    >>> family = Categorical().bind(np.array([[0.0], [2.0]]), n_classes=1)
    >>> family.log_prob({"probs": np.array([[[0.5, 0.25, 0.25]]])}, np.array([[2.0]])).round(4)
    array([[-1.3863]])
    """

    name: ClassVar[str] = "categorical"
    takes_sparse: ClassVar[bool] = False

    n_categories: tuple[int, ...] | None = None

    def bind(self, x: Array, n_classes: int) -> Self:
        bound = super().bind(x, n_classes)
        if self.n_categories is not None:
            return bound
        highest = np.nanmax(x, axis=0, initial=0.0)
        return dataclasses.replace(bound, n_categories=tuple(int(code) + 1 for code in highest))

    def check(self, x: Array) -> None:
        super().check(x)
        if self.n_categories is None:
            return
        with np.errstate(invalid="ignore"):
            beyond = (x >= np.asarray(self.n_categories)).any(axis=0)
        if beyond.any():
            column = int(np.flatnonzero(beyond)[0])
            raise ValueError(
                f"Categorical: column {column} has code {int(np.nanmax(x[:, column]))}, but only "
                f"{self.n_categories[column]} categories were seen in fit; mark it missing (NaN), "
                "or give n_categories"
            )

    @property
    def _sizes(self) -> tuple[int, ...]:
        if self.n_categories is None:
            raise ValueError(
                "Categorical: the family is not bound to data; call bind(x, n_classes)"
            )
        return self.n_categories

    @property
    def _allowed(self) -> Array:
        """1.0 where a column has that category: (D, C)."""
        sizes = np.asarray(self._sizes)
        return (np.arange(sizes.max()) < sizes[:, None]).astype(np.float64)

    def _indicators(self, xp: Any, x: Array) -> Array:
        """One 0/1 column a category; a missing value is zero in all: (n, D C)."""
        codes = beside(x, np.arange(max(self._sizes)))
        hot = x[:, :, None] == codes
        return xp.reshape(xp.astype(hot, x.dtype), (x.shape[0], -1))

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        probs = parameters["probs"]
        xp = array_namespace(x, probs)
        allowed = beside(probs, self._allowed)
        logs = xp.log(xp.where(allowed > 0.0, probs, xp.ones_like(probs)))
        return self._indicators(xp, x) @ xp.reshape(logs, (logs.shape[0], -1)).T

    def statistics(self, parameters: Parameters, x: Array, responsibilities: Array) -> Statistics:
        xp = array_namespace(x, responsibilities)
        counts = responsibilities.T @ self._indicators(xp, x)
        return {"count": xp.reshape(counts, (counts.shape[0], x.shape[1], -1))}

    def estimate(self, statistics: Statistics) -> Parameters:
        counts = (statistics["count"] + self.alpha) * self._allowed
        total = counts.sum(axis=2, keepdims=True)
        uniform = self._allowed / self._allowed.sum(axis=1, keepdims=True)
        probs = np.where(total > 0.0, counts / np.where(total > 0.0, total, 1.0), uniform)
        return {"probs": np.where(self._allowed > 0.0, np.maximum(probs, LEAST_PROBABILITY), 0.0)}

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        probs = np.where(self._allowed > 0.0, parameters["probs"], 1.0)
        return -self.alpha * float(np.log(probs).sum())

    def features(self, x: Array, *, units: bool = False) -> Array:
        return self._indicators(np, x) - self._indicators(np, x).mean(axis=0)

    def sample(self, parameters: Parameters, labels: Array, random: RandomSource) -> Array:
        probs = parameters["probs"]
        return array_namespace(probs).astype(random.categorical(probs[labels]), probs.dtype)

    def draw(self, n_classes: int, plate: str, prefix: str = "") -> Parameters:
        from ppl_gen import language

        sizes, allowed = np.asarray(self._sizes), self._allowed
        # Columns of one number of categories share a site; the widths differ otherwise.
        columns = []
        for column, size in enumerate(sizes):
            with language.plate(plate, n_classes):
                prior = language.dist.Dirichlet(np.full(size, 1.0 + self.alpha))
                site = f"{prefix}probs_{column}"
                probs = language.sample(site, prior, dims=(f"{site}_category",))
            if size < allowed.shape[1]:
                widen = np.eye(int(size), allowed.shape[1])
                probs = probs @ language.ops.asarray(widen)
            columns.append(probs)
        return {"probs": language.ops.stack(columns, axis=-2)}

    def n_free(self, n_classes: int) -> int:
        return n_classes * sum(size - 1 for size in self._sizes)

    def sites(self, parameters: Parameters, prefix: str = "") -> dict[str, Array]:
        probs = parameters["probs"]
        return {
            f"{prefix}probs_{column}": probs[..., column, :size]
            for column, size in enumerate(self._sizes)
        }

    def coords(self, names: list[Any], prefix: str = "") -> dict[str, list[Any]]:
        return {}

    def parameters(self, sites: dict[str, Array], prefix: str = "") -> Parameters:
        first = sites[f"{prefix}probs_0"]
        probs = np.zeros((*first.shape[:-1], *self._allowed.shape))
        for column, size in enumerate(self._sizes):
            probs[..., column, :size] = sites[f"{prefix}probs_{column}"]
        return {"probs": probs}

    def expected(self, parameters: Parameters, x: Array, responsibilities: Array) -> Any:
        return np.einsum("nk,kdc->ndc", responsibilities, parameters["probs"])

    def settle(self, expected: Any, x: Array) -> Array:
        return np.where(np.isnan(x), expected.argmax(axis=2).astype(np.float64), x)

    @property
    def layout(self) -> tuple[Any, ...]:
        return (self.name, self.n_columns, self.n_categories)

    def column_log_prob(self, parameters: Parameters, x: Array) -> Array:
        absent = np.isnan(x)
        codes = np.where(absent, 0.0, x).astype(np.intp)
        columns = np.arange(x.shape[1])
        terms = np.log(
            np.maximum(parameters["probs"][:, columns, codes], LEAST_PROBABILITY)
        )  # (K, n, D)
        return np.where(absent[:, None, :], 0.0, np.moveaxis(terms, 0, 1))
