"""Calibration: whether probabilities of p come true in a share p of the cases."""

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
        If the shapes do not fit.
    """
    y, proba, classes = np.asarray(y), np.asarray(proba), np.asarray(classes)
    if proba.shape != (len(y), len(classes)):
        raise ValueError(
            f"reliability_curve: proba has shape {proba.shape}; expected {(len(y), len(classes))}, "
            "one row for each label in y and one column for each of the classes"
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
        As for `reliability_curve`.

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
