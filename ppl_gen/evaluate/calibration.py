"""Calibration: whether probabilities of p come true in a share p of the cases."""

from numbers import Integral
from typing import Any

import numpy as np

Array = Any


def reliability_curve(
    y: Array, proba: Array, classes: Array, n_bins: int = 15
) -> tuple[Array, Array, Array]:
    """Mean confidence and accuracy of predictions, binned by their confidence.

    Parameters
    ----------
    y : (n,)
        True labels.
    proba : (n, C)
        Predicted probabilities, in the order of `classes`.
    classes : (C,)
    n_bins : int
        Bins of equal width on [0, 1].

    Returns
    -------
    confidence, accuracy, counts : (B,) arrays
        For the bins that are not empty.

    Raises
    ------
    ValueError
        If the shapes do not fit, there are no rows, rows of `proba` are no probabilities, or
        `n_bins` is no whole number above zero.

    Examples
    --------
    >>> proba = np.array([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [1.0, 0.0]])
    >>> confidence, accuracy, counts = reliability_curve([0, 0, 1, 0], proba, [0, 1], n_bins=4)
    >>> confidence, accuracy.round(2), counts
    (array([0.8125]), array([0.75]), array([4.]))
    """
    y, proba, classes = np.asarray(y), np.asarray(proba), np.asarray(classes)
    if proba.shape != (len(y), len(classes)):
        raise ValueError(
            f"reliability_curve: proba has shape {proba.shape}; expected {(len(y), len(classes))}, "
            "one row for each label in y and one column for each of the classes"
        )
    if y.ndim != 1 or not len(y):
        raise ValueError(
            f"reliability_curve: y has shape {y.shape}; expected labels (n,), at least one"
        )
    # Sums in float32 are off by some of its last digits.
    if not (proba >= 0.0).all() or not np.allclose(proba.sum(axis=1), 1.0, atol=1e-4):
        raise ValueError(
            "reliability_curve: proba has rows that are no probabilities; expected numbers of 0 "
            "or more that sum to 1, as predict_proba gives them"
        )
    if not isinstance(n_bins, Integral) or n_bins < 1:
        raise ValueError(
            f"reliability_curve: n_bins is {n_bins!r}; expected a whole number, at least 1"
        )
    best = proba.argmax(axis=1)
    confidence = proba[np.arange(len(y)), best]
    right = (classes[best] == y).astype(np.float64)
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins).astype(np.float64)
    filled = counts > 0.0
    mean_confidence = np.bincount(bins, confidence, n_bins)[filled] / counts[filled]
    accuracy = np.bincount(bins, right, n_bins)[filled] / counts[filled]
    return mean_confidence, accuracy, counts[filled]


def expected_calibration_error(y: Array, proba: Array, classes: Array, n_bins: int = 15) -> float:
    """Mean distance between confidence and accuracy, over bins of confidence.

    Parameters
    ----------
    y, proba, classes, n_bins
        As for `reliability_curve`, with its errors.

    Returns
    -------
    float
        In [0, 1]; zero where confidence comes true in every bin.

    References
    ----------
    Guo et al., ICML 2017, eq. 3 (arXiv:1706.04599).

    Examples
    --------
    >>> import numpy as np
    >>> proba = np.array([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]])
    >>> expected_calibration_error([0, 0, 0, 1], proba, [0, 1])
    0.0
    """
    confidence, accuracy, counts = reliability_curve(y, proba, classes, n_bins)
    return float((counts * np.abs(confidence - accuracy)).sum() / counts.sum())
