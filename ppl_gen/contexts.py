"""What a density is conditional on: labels or numbers of each row, as a network takes them."""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from ppl_gen.data import is_frame, is_missing

Array = Any

__all__ = ["ContextCode"]


@dataclass(frozen=True)
class ContextCode:
    """How contexts become numbers: labels one-hot, covariates standardised.

    Attributes
    ----------
    labels : (C,) array or None
        The labels seen in fit, sorted, where contexts are labels.
    mean, scale : (C,) arrays or None
        Of each column, where contexts are numbers.
    """

    labels: Array | None = None
    mean: Array | None = None
    scale: Array | None = None

    @property
    def width(self) -> int:
        """Entries of a coded context."""
        columns: Array = self.mean if self.labels is None else self.labels
        return len(columns)

    @classmethod
    def of(cls, context: Any, who: str) -> "ContextCode":
        """Learn how to code the contexts of the rows that are fitted.

        Parameters
        ----------
        context : (n,) labels, or (n, C) table of numbers
            Of one axis, strings, booleans and whole numbers are labels, and other numbers are a
            covariate.
        who : str
            Who asks, for errors.

        Raises
        ------
        ValueError
            If one is missing, infinite, or no number where numbers are meant.

        Examples
        --------
        >>> code = ContextCode.of(["b", "a", "b"], "fit")
        >>> code.encode(["a", "b"], "fit").tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        values = _array(context, who)
        if values.ndim == 1:
            try:
                return cls(labels=np.unique(values))
            except TypeError as error:
                kinds = sorted({type(value).__name__ for value in values.tolist()})
                raise ValueError(
                    f"{who}: context has labels of several kinds ({', '.join(kinds)}); expected "
                    "one kind; turn them all into strings"
                ) from error
        mean, scale = values.mean(axis=0), values.std(axis=0)
        return cls(mean=mean, scale=np.where(scale > 0.0, scale, 1.0))

    def encode(self, context: Any, who: str) -> Array:
        """Code contexts: (n, C), of type float64.

        Raises
        ------
        ValueError
            If a label was not seen in fit, or the columns are not those of fit.
        """
        values = _array(context, who)
        if self.labels is None:
            if values.ndim == 1 and self.width == 1 and values.dtype.kind in "fiub":
                # Whole numbers look like labels, but what was a covariate in fit still is one.
                values = values[:, None].astype(np.float64)
            if values.ndim != 2 or values.shape[1] != self.width:
                raise ValueError(
                    f"{who}: context has shape {values.shape}; expected (n, {self.width}) "
                    "numbers, as in fit"
                )
            return (values - self.mean) / self.scale
        if values.ndim == 2 and np.ndim(context) == 1:
            values = values[:, 0]  # numbers between labels: unseen
        if values.ndim != 1:
            raise ValueError(
                f"{who}: context has shape {values.shape}; expected (n,) labels, as in fit"
            )
        if len(unseen := [v for v in np.unique(values).tolist() if v not in self.labels]):
            raise ValueError(
                f"{who}: context has labels {unseen} that were not seen in fit; expected "
                f"{self.labels.tolist()}"
            )
        return np.eye(self.width)[np.searchsorted(self.labels, values)]

    def for_rows(self, context: Any, n: int, who: str) -> Array:
        """Code the contexts of n rows, given one a row or one for all: (n, C).

        Raises
        ------
        ValueError
            As of :meth:`encode`, and if there are neither n nor one.
        """
        alone = np.ndim(context) == 0
        # Of several covariates, one axis is those of one row.
        alone |= self.labels is None and self.width > 1 and np.ndim(context) == 1
        coded = self.encode([context] if alone else context, who)
        if len(coded) not in (1, n):
            raise ValueError(
                f"{who}: context has {len(coded)} entries; expected one, or one for each of the "
                f"{n} rows"
            )
        return np.array(np.broadcast_to(coded, (n, self.width)))

    def to_tree(self) -> dict[str, Any]:
        """Return the code as plain data, for an artefact."""
        return {"labels": self.labels, "mean": self.mean, "scale": self.scale}


def _array(context: Any, who: str) -> Array:
    """Read contexts as (n,) labels or (n, C) floats, none missing."""
    if hasattr(context, "detach"):
        context = context.detach().cpu().numpy()
    values = np.asarray(context)
    if values.dtype.kind == "O" and all(isinstance(value, Real) for value in values.flat):
        values = np.array(values.tolist())
    numbers = values.dtype.kind in "fiub"
    if values.ndim == 2 and values.shape[1] == 1 and not numbers:
        values = values[:, 0]
    if values.ndim not in (1, 2) or not values.size:
        raise ValueError(
            f"{who}: context has shape {values.shape}; expected (n,) labels or (n, C) numbers"
        )
    if values.ndim == 2 and not numbers:
        kind = "columns that are no numbers" if is_frame(context) else "entries that are no numbers"
        raise ValueError(
            f"{who}: context has {kind}; expected (n,) labels or (n, C) numbers; encode "
            "categories, or give one column of them"
        )
    if numbers:
        if not np.isfinite(values).all():
            raise ValueError(f"{who}: context has NaN or infinite entries; drop these rows")
        if values.ndim == 1 and (values != np.round(values)).any():
            values = values[:, None]
        return values.astype(np.float64) if values.ndim == 2 else values
    missing = sum(map(is_missing, values.tolist()))
    if missing:
        raise ValueError(f"{who}: context has {missing} missing labels; drop these rows")
    return values
