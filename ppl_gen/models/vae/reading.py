"""What an autoencoder takes of the rows it is fitted to, and rows that it refuses."""

import math
import numbers
import warnings
from typing import Any

import numpy as np
from sklearn.utils.validation import check_consistent_length, column_or_1d

from ppl_gen.data import is_missing
from ppl_gen.table_reader import constant_columns

Array = Any

__all__ = [
    "LIKELIHOODS",
    "N_PSEUDO_INPUTS",
    "UNKNOWN",
    "check_range",
    "class_prior",
    "facts_of",
    "read_labels",
]

#: Names of likelihoods, the default first.
LIKELIHOODS = ("normal", "bernoulli", "categorical", "discretised_logistic")
#: Those of levels 0 to K - 1.
LEVELLED = ("categorical", "discretised_logistic")
#: Pseudo-inputs of a VampPrior, where there are as many rows: each is encoded at every step.
N_PSEUDO_INPUTS = 64
#: What stands for a class that is not known, as in scikit-learn's semi-supervised classifiers.
UNKNOWN = -1


def facts_of(
    values: Array, row_shape: tuple[int, ...], who: str, likelihood: str, n_levels: int | None
) -> dict[str, Any]:
    """Return what an autoencoder's network takes of the rows to fit.

    Parameters
    ----------
    values : (n, D) array
        NaN where missing.
    row_shape : tuple of int
    who : str
        Whom errors name.
    likelihood : str
    n_levels : int or None

    Returns
    -------
    dict
        ``width`` D and ``row_shape``; ``gaps``, whether there are any; ``n_levels``, 0 where
        there are none; ``n_pseudo``; of numbers ``location`` and ``scale``, (D,).

    Raises
    ------
    ValueError
        If there is no such likelihood, or rows are not in its range.
    """
    if not isinstance(likelihood, str) or likelihood not in LIKELIHOODS:
        raise ValueError(
            f"{who}: there is no likelihood {likelihood!r}; expected one of "
            f"{', '.join(map(repr, LIKELIHOODS))}"
        )
    if likelihood not in LEVELLED and n_levels is not None:
        raise ValueError(
            f"{who}: n_levels is {n_levels}, but likelihood={likelihood!r} has no levels; leave it "
            f"out, or take one of {', '.join(map(repr, LEVELLED))}"
        )
    levels = 0
    if likelihood in LEVELLED:
        levels = max(2, int(np.nanmax(values)) + 1) if n_levels is None else n_levels
        if not isinstance(levels, numbers.Real) or levels != np.floor(levels) or levels < 2:
            raise ValueError(
                f"{who}: n_levels is {levels!r}; expected a whole number of at least 2"
            )
    check_range(values, who, likelihood, levels)
    facts: dict[str, Any] = {
        "width": values.shape[1],
        "row_shape": row_shape,
        "gaps": bool(np.isnan(values.sum())),
        "n_levels": int(levels),
        "n_pseudo": min(len(values), N_PSEUDO_INPUTS),
    }
    if likelihood == "normal":
        facts["location"], facts["scale"] = _standard(values, row_shape, who)
    return facts


def _standard(values: Array, row_shape: tuple[int, ...], who: str) -> tuple[Array, Array]:
    """Mean and scale of each column: its deviation; in images that of all pixels together."""
    location = np.nanmean(values, axis=0)
    variance = np.nanvar(values, axis=0)
    if len(row_shape) > 1:
        variance = np.full_like(variance, variance.mean())
    else:
        constant = constant_columns(values)
        if constant.any():
            warnings.warn(
                f"{who}: {int(constant.sum())} constant column(s) (the first at place "
                f"{np.flatnonzero(constant)[0]}), which say nothing; their scale is taken for one; "
                "leave such columns out",
                RuntimeWarning,
                stacklevel=6,
            )
            variance = np.where(constant, 1.0, variance)
    return location, np.sqrt(np.where(variance > 0.0, variance, 1.0))


def check_range(values: Array, who: str, likelihood: str, n_levels: int) -> None:
    """Refuse rows that a likelihood has no probability of; NaN is missing.

    Raises
    ------
    ValueError
        What the range is, and what to do.
    """
    if likelihood == "normal":
        return
    low, high = np.nanmin(values), np.nanmax(values)
    if likelihood == "bernoulli":
        _check_binary(values, low, high, who)
        return
    broken = values[values != np.floor(values)]
    if not np.isnan(broken).all():
        raise ValueError(
            f"{who}: likelihood={likelihood!r} takes whole levels 0 to {n_levels - 1}; X has "
            f"{broken[~np.isnan(broken)][0]:g}: round, after scaling (such as 255 * X), or use "
            "likelihood='normal'"
        )
    if low < 0 or high > n_levels - 1:
        raise ValueError(
            f"{who}: likelihood={likelihood!r} takes the levels 0 to {n_levels - 1}; X goes from "
            f"{low:g} to {high:g}: shift the levels to start at 0, or raise n_levels"
        )


def _check_binary(values: Array, low: float, high: float, who: str) -> None:
    if low < 0 or high > 1:
        raise ValueError(
            f"{who}: likelihood='bernoulli' takes the values 0 and 1; X goes from {low:g} to "
            f"{high:g}: binarise it (X > {(low + high) / 2:g}), or use "
            f"likelihood='discretised_logistic', n_levels={max(2, int(high) + 1)}"
        )
    between = values[(values > 0) & (values < 1)]
    if len(between):
        raise ValueError(
            f"{who}: likelihood='bernoulli' takes the values 0 and 1, and is no density of those "
            f"between; X has {between[0]:g}: binarise it (X > 0.5), or use likelihood='normal'"
        )


def read_labels(X: Any, y: Any, who: str) -> tuple[Array, Array]:
    """Labels of rows, and which of them are known.

    Raises
    ------
    ValueError
        If there are none, or one is missing otherwise than by -1.
    """
    if y is None:
        raise ValueError(f"{who}: y is missing; expected labels, -1 where the class is not known")
    labels = column_or_1d(y, warn=True)
    check_consistent_length(X, labels)
    if labels.dtype.kind in "OUSf" and (missing := sum(map(is_missing, labels.tolist()))):
        raise ValueError(
            f"{who}: y has {missing} missing labels; expected -1 where the class is not known"
        )
    if labels.dtype.kind in "US" and (labels == str(UNKNOWN)).any():
        raise ValueError(
            f"{who}: y is an array of strings, some of them '-1'; expected the number -1 where the "
            "class is not known: give np.array(y, dtype=object)"
        )
    if labels.dtype.kind == "O":
        known = np.array([isinstance(value, str) or value != UNKNOWN for value in labels])
        return np.where(known, labels, labels[known][0] if known.any() else None), known
    return labels, np.asarray(labels != UNKNOWN)


def class_prior(priors: Any, codes: Array, weight: Array, n_classes: int, who: str) -> Array:
    """Probabilities of classes: those that are given, or the shares of rows of known class.

    Raises
    ------
    ValueError
        If those that are given are not one a class, or no probabilities.
    """
    if priors is None:
        counts = np.bincount(codes, weight, minlength=n_classes)
        return counts / counts.sum()
    given = np.asarray(priors, dtype=np.float64)
    if given.shape != (n_classes,):
        raise ValueError(
            f"{who}: priors have the shape {given.shape}, and y has {n_classes} classes"
        )
    if not (given > 0).all() or not math.isclose(given.sum(), 1.0, abs_tol=1e-6):
        raise ValueError(
            f"{who}: priors are {given.tolist()}; expected positive numbers that sum to 1"
        )
    return given
