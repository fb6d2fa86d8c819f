"""What models of rows have in common: reading tables, scoring, drawing and filling rows."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted

from ppl_gen.algorithms.row_chunks import map_rows
from ppl_gen.counts import check_count
from ppl_gen.data import Rows
from ppl_gen.estimator import GenerativeModel
from ppl_gen.families import FAMILIES
from ppl_gen.structures.latent_class import LatentClass

Array = Any


class RowModel(GenerativeModel):
    """A model of independent rows: a structure with ``joint_log_prob`` over a discrete latent."""

    structure_kind: ClassVar[Any] = LatentClass

    structure_: LatentClass

    def _structure(self, rows: Rows) -> LatentClass:
        """Return the structure bound to the training rows."""
        raise NotImplementedError  # pragma: no cover

    def _takes_sparse(self) -> bool:
        return self._trait("takes_sparse", default=False)

    def _trait(self, name: str, *, default: bool) -> bool:
        """Return what the family that is asked for says of itself, before there are any data."""
        family = getattr(self, "family", None)
        family = FAMILIES.get(family) if isinstance(family, str) else family
        return bool(getattr(family, name, default))

    def _bound(self, rows: Rows) -> LatentClass:
        """Return the structure bound to the training rows, with a warning of constant columns."""
        structure = self._structure(rows)
        for column, family in zip(self.schema_.columns, structure.family.by_column, strict=True):
            if column.kind == "category" and family.name != "categorical":
                raise ValueError(
                    f"{self._who}.fit: column {column.name!r} holds categories, whose codes are no "
                    f"numbers to the {family.name} family; leave it out, encode it, or model it as "
                    "categorical (NaiveBayes and Mixture do, by family='auto')"
                )
        self._warn_constant(rows.values, ~np.asarray(structure.whole))
        return structure

    def _joint_by_chunk(self, values: Array, work: Callable[[slice, Array], None]) -> None:
        """Call `work` with chunks of rows and their log p(x, z = k), averaged over the draws."""
        draws = [self._draw(s) for s in range(self._n_draws)]

        def chunk(rows: slice) -> None:
            x = values[rows]
            total = self.structure_.joint_log_prob(draws[0], x)
            for draw in draws[1:]:
                total = np.logaddexp(total, self.structure_.joint_log_prob(draw, x))
            work(rows, total - np.log(len(draws)) if len(draws) > 1 else total)

        map_rows(chunk, values.shape[0])

    def _joint(self, values: Array) -> Array:
        """Log p(x, z = k), averaged over the draws: (n, K)."""
        joint = np.empty((values.shape[0], self.structure_.n_classes))
        self._joint_by_chunk(values, joint.__setitem__)
        return joint

    def _evidence(self, values: Array) -> tuple[Array, Array]:
        """Log p(x), and p(z | x): (n,), (n, K)."""
        evidence = np.empty(values.shape[0])
        shares = np.empty((values.shape[0], self.structure_.n_classes))

        def normalise(rows: slice, joint: Array) -> None:
            top = joint.max(axis=1, keepdims=True)
            share = np.exp(joint - top)
            total = share.sum(axis=1, keepdims=True)
            evidence[rows] = (np.log(total) + top)[:, 0]
            np.divide(share, total, out=shares[rows])

        self._joint_by_chunk(values, normalise)
        return evidence, shares

    def log_prob(self, X: Any) -> Array:
        """Log density of each row, in nats.

        Parameters
        ----------
        X : table of (n, D)
            NaN is marginalised.

        Returns
        -------
        (n,) array
            After a Bayesian fit, the log posterior predictive density.
        """
        check_is_fitted(self)
        return self._evidence(self._read_checked(X))[0]

    def score_samples(self, X: Any) -> Array:
        """Return :meth:`log_prob`, by scikit-learn's name."""
        return self.log_prob(X)

    def _read_checked(self, X: Any) -> Array:
        values = self._read(X, reset=False)
        self.structure_.family.check(values)
        return values

    # -- drawing -------------------------------------------------------------------------------

    def sample(
        self, n_samples: int = 1, random_state: Any = None, *, return_latent: bool = False
    ) -> Any:
        """Draw new rows, in the columns and dtypes of the table that was fitted.

        Parameters
        ----------
        n_samples : int
        random_state : int or None
        return_latent : bool
            Return the class of each row too.

        Returns
        -------
        table of (n_samples, D), or the table and (n_samples,) classes
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", f"{self._who}.sample")
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        draws = rng.integers(self._n_draws, size=n_samples)
        values: Array = None
        labels = np.empty(n_samples, dtype=np.intp)
        for s in np.unique(draws):
            rows = np.flatnonzero(draws == s)
            drawn, classes = self.structure_.sample(self._draw(int(s)), len(rows), rng)
            values = np.empty((n_samples, drawn.shape[1])) if values is None else values
            values[rows], labels[rows] = drawn, classes
        table = self.schema_.decode(values, self.structure_.whole)
        return (table, self._latents(values, labels, draws, rng)) if return_latent else table

    def _latents(
        self, values: Array, labels: Array, draws: Array, rng: np.random.Generator
    ) -> Array:
        """What is latent of rows drawn, each of a class and by a draw of the parameters."""
        return labels

    def impute(self, X: Any, n_draws: int | None = None, random_state: Any = None) -> Any:
        """Fill in what is missing.

        Parameters
        ----------
        X : table of (n, D)
            NaN (None, of categories) is filled; the rest stays.
        n_draws : int or None
            None fills with the conditional mean, or the mode of categories; a number gives as
            many completed tables, each a draw from the conditional (multiple imputation).
        random_state : int or None

        Returns
        -------
        table of (n, D), or a list of `n_draws` tables
        """
        check_is_fitted(self)
        values = self._read_checked(X)
        if hasattr(values, "toarray"):
            raise TypeError(
                f"{self._who}.impute: X is sparse, and so complete; give a dense table with NaN"
            )
        whole = self.structure_.whole
        if n_draws is None:
            draws = [self._draw(s) for s in self._few_draws()]
            filled = map_rows(lambda rows: self.structure_.fill(draws, values[rows]), len(values))
            return self.schema_.decode(np.concatenate(filled), whole)
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        tables = []
        for s in rng.integers(self._n_draws, size=n_draws):
            draw = self._draw(int(s))
            joint = self.structure_.joint_log_prob(draw, values)
            shares = np.exp(joint - joint.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            completed = self.structure_.draw_missing(draw, values, shares, rng)
            tables.append(self.schema_.decode(completed, whole))
        return tables

    def _few_draws(self) -> Array:
        return np.linspace(0, self._n_draws - 1, min(self._n_draws, 100)).astype(int)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._trait("takes_nan", default=True)
        tags.input_tags.sparse = self._takes_sparse()
        tags.input_tags.positive_only = self._takes_sparse()  # what may be sparse are counts
        return tags


class DensityModel(DensityMixin, RowModel):  # type: ignore[misc]
    """A model of rows whose class is hidden, or of one class: a density, chosen by criteria."""

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log density of the rows, in nats."""
        return float(self.log_prob(X).mean())

    def n_free_parameters(self) -> int:
        """Count the free parameters, as AIC and BIC do."""
        check_is_fitted(self)
        count = self.structure_.n_classes
        return count - 1 + self.structure_.family.n_free(count)

    def aic(self, X: Any) -> float:
        """Akaike's information criterion on X: the lower the better."""
        return -2.0 * float(self.log_prob(X).sum()) + 2.0 * self.n_free_parameters()

    def bic(self, X: Any) -> float:
        """Schwarz's information criterion on X: the lower the better."""
        log_prob = self.log_prob(X)
        return -2.0 * float(log_prob.sum()) + math.log(len(log_prob)) * self.n_free_parameters()
