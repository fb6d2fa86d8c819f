"""Tables in and out of estimators: what every model of rows does with X."""

import warnings
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    check_consistent_length,
    validate_data,
)

from ppl_gen.data import (
    Rows,
    Schema,
    counted_rows,
    describe_matrix,
    is_frame,
    read_frame,
    refuse_empty_columns,
    to_numpy,
)

Array = Any


class TableReader(BaseEstimator):  # type: ignore[misc]
    """An estimator that reads tables: arrays, frames, sparse matrices, NaN where missing.

    Attributes
    ----------
    schema_ : Schema
        What the table that was fitted looked like.
    """

    #: Whether to lay matrices out column by column, for models that work on columns.
    columns_first: ClassVar[bool] = False
    #: Rows that a fit takes at the least: one has no spread.
    min_rows: ClassVar[int] = 2

    schema_: Schema

    def _takes_sparse(self) -> bool:
        return False

    @property
    def _who(self) -> str:
        return type(self).__name__

    def _read(self, X: Any, *, reset: bool) -> Array:
        """Turn a table into a matrix, NaN where missing; `reset` when it is the one to fit."""
        X = to_numpy(X)
        fitted_frame = not reset and self.schema_.container in ("pandas", "polars")
        if is_frame(X) and (reset or fitted_frame):
            if reset:
                values, self.schema_ = read_frame(X, self._who, columns_first=self.columns_first)
            _check_feature_names(self, X, reset=reset)
            _check_n_features(self, X, reset=reset)
            return values if reset else self.schema_.encode(X, self._who)
        if fitted_frame and any(column.kind == "category" for column in self.schema_.columns):
            raise TypeError(
                f"{self._who}: X is a {type(X).__name__}, but the model was fitted on a DataFrame "
                "with categories; give a DataFrame with the same columns"
            )
        original = getattr(X, "dtype", None)
        try:
            X = validate_data(
                self,
                X,
                reset=reset,
                dtype=np.float64,
                accept_sparse="csr" if self._takes_sparse() else False,
                ensure_all_finite=False,  # infinity is refused below, with the column's name
            )
        except ValueError as error:
            if "could not convert" not in str(error):
                raise
            raise ValueError(
                f"{self._who}: X has values that are not numbers ({error}); encode them, or give "
                "a DataFrame to a model that takes categories, such as NaiveBayes or Mixture"
            ) from error
        sparse = hasattr(X, "toarray")
        refuse_infinity(X, self._who)
        if reset:
            if not sparse and np.isnan(X.sum()):
                refuse_empty_columns(X, [None] * X.shape[1], self._who)
            numeric = isinstance(original, np.dtype) and original.kind in "biuf"
            self.schema_ = describe_matrix(X, "sparse" if sparse else "numpy")
            if numeric:
                self.schema_ = Schema(
                    self.schema_.container,
                    tuple(type(c)(c.name, c.kind, str(original)) for c in self.schema_.columns),
                )
        return X

    def _read_rows(self, X: Any, sample_weight: Any, labels: Array | None) -> Rows:
        if sample_weight is not None:
            # A row without weight is no row: what is read off the data must not see it.
            sample_weight, X, labels = counted_rows(sample_weight, X, labels)
        values = self._read(X, reset=True)
        if values.shape[0] < self.min_rows:
            raise ValueError(
                f"{self._who}.fit: n_samples=1, but a distribution is learned from 2 rows or more"
            )
        check_consistent_length(values, labels)
        return Rows(values, sample_weight, labels)

    def _warn_constant(self, values: Array, normal: Array) -> None:
        """Warn of `normal` columns that never change: their variance is the floor's."""
        if hasattr(values, "toarray") or not normal.any():
            return
        # What changes among the first rows need not be looked at any further.
        places = np.flatnonzero(normal & constant_columns(values[:1000]))
        places = places[constant_columns(values[:, places])]
        if len(places):
            shown = ", ".join(str(self.schema_.names[place]) for place in places[:5])
            warnings.warn(
                f"{self._who}.fit: {len(places)} constant column(s) ({shown}): the variance is "
                "set to its floor; leave such columns out",
                RuntimeWarning,
                stacklevel=5,
            )


def refuse_infinity(X: Array, who: str) -> None:
    """Raise ValueError if a matrix, which may be sparse, has infinite entries; name columns."""
    entries = X.data if hasattr(X, "toarray") else X
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(entries.sum()):  # quick where all is well
            return
    infinite = np.isinf(entries)
    if infinite.any():
        places = X.indices[infinite] if hasattr(X, "toarray") else np.nonzero(infinite)[1]
        columns = ", ".join(map(str, np.unique(places)[:5].tolist()))
        raise ValueError(
            f"{who}: Input X contains infinity in {len(places)} entries (columns {columns}); "
            "replace it, or mark it missing (NaN)"
        )


def constant_columns(values: Array) -> Array:
    """Tell which columns have one value only, or none: (D,)."""
    first = np.where(np.isnan(values), -np.inf, values).max(axis=0)
    return ((values == first) | np.isnan(values)).all(axis=0)
