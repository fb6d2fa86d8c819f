r"""Average causal effects from rows, with their standard errors.

All are estimates :math:`\hat\tau` of :math:`E[y \mid do(x = b)] - E[y \mid do(x = a)]`, whose
variance is that of the influence function of each row over the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppl_gen.algorithms.networks.identification import Term, evaluate

__all__ = ["Contrast", "formula_contrast", "regression_contrast", "standardised_contrast"]

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

#: Step of derivatives in the complex plane: no difference is taken, so it may be this small.
_STEP = 1e-30


class Contrast(NamedTuple):
    """Two means and their difference.

    Attributes
    ----------
    means : tuple of two floats
        Of the outcome under each of the two treatments.
    effect : float
        The second less the first.
    standard_error : float
        Of the effect.
    """

    means: tuple[float, float]
    effect: float
    standard_error: float


def _contrast(means: Array, influence: Array, count: Array | float) -> Contrast:
    """Join two means to the influence of each row, or of `count` rows alike, on the effect."""
    n = float(np.sum(count)) if np.ndim(count) else float(len(influence))
    error = float(np.sqrt(np.sum(count * influence**2))) / n
    return Contrast((float(means[0]), float(means[1])), float(means[1] - means[0]), error)


def standardised_contrast(outcome: Array, treated: Codes, strata: Codes, n_strata: int) -> Contrast:
    r"""Standardise over strata: :math:`\sum_z \hat p(z)\, (\bar y_{bz} - \bar y_{az})`.

    Parameters
    ----------
    outcome : (n,) array
    treated : (n,) integer array
        0 and 1 for the two treatments compared; rows with another, -1, count for the strata.
    strata : (n,) integer array
        Each with rows of both treatments.
    n_strata : int

    Returns
    -------
    Contrast
        In the unit of the outcome.

    References
    ----------
    Hahn, J. (1998). On the role of the propensity score in efficient semiparametric estimation of
    average treatment effects. Econometrica 66, theorem 1, for the influence function.

    Examples
    --------
    >>> y, x, z = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    >>> standardised_contrast(y, x, z, 2).effect
    1.0
    """
    n = len(outcome)
    size = np.bincount(strata, minlength=n_strata)
    means, influence = np.empty(2), np.zeros(n)
    for level, sign in ((0, -1.0), (1, 1.0)):
        own = treated == level
        count = np.bincount(strata[own], minlength=n_strata)
        average = np.bincount(strata[own], outcome[own], n_strata) / count
        means[level] = size @ average / n
        influence += sign * (average[strata] - means[level])
        weight = (size / count)[strata[own]]  # one over the propensity
        influence[own] += sign * weight * (outcome[own] - average[strata[own]])
    return _contrast(means, influence, 1.0)


def formula_contrast(
    term: Term, counts: Array, axes: Mapping[int, int], scores: Mapping[int, Sequence[Array]]
) -> Contrast:
    """Plug counts into a formula of the distribution of discrete nodes.

    Parameters
    ----------
    term : Term
        A formula of p(outcomes | do(treatments)).
    counts : ndarray, one axis a node
        Rows of each joint state.
    axes : dict of node to its axis
    scores : dict of node to two vectors over its states
        What the outcome is worth, and which treatment is meant, for each of the two means: their
        product is summed with the formula.

    Returns
    -------
    Contrast
        NaN where the formula needs the distribution given a state that no row is in.
    """
    total = counts.sum()
    weights = []
    for which in range(2):
        weight = np.ones((1,) * counts.ndim)
        for v, own in scores.items():
            shape = [-1 if axis == axes[v] else 1 for axis in range(counts.ndim)]
            weight = weight * np.asarray(own[which], dtype=np.float64).reshape(shape)
        weights.append(weight)
    scored = {axes[v] for v in scores}

    def means(p: Array) -> Array:
        values = evaluate(term, p, axes)
        # What the formula leaves open, as it may for rows, is averaged over.
        open_ = {a for a in range(p.ndim) if a not in scored and values.shape[a] > 1}
        if open_:
            rest = tuple(a for a in range(p.ndim) if a not in open_)
            values = values * p.sum(axis=rest, keepdims=True)
        # An undefined value that is not asked for does no harm.
        return np.array([np.where(w == 0, 0.0, values * w).sum() for w in weights])

    share = counts / total
    found = means(share)
    cells = np.flatnonzero(counts)
    influence = np.empty(len(cells))
    for i, cell in enumerate(cells):
        towards = np.zeros(counts.size)
        towards[cell] = 1.0
        moved = share + 1j * _STEP * (towards.reshape(counts.shape) - share)
        step = means(moved).imag / _STEP
        influence[i] = step[1] - step[0]
    return _contrast(found, influence, counts.ravel()[cells])


def regression_contrast(
    outcome: Array, treatment: Array, others: Array, values: tuple[float, float]
) -> Contrast:
    """Regress the outcome on the treatment and others, linearly: numbers.

    Parameters
    ----------
    outcome, treatment : (n,) arrays
    others : (n, k) array
        What is adjusted for.
    values : tuple of two floats
        The two treatments compared.

    Returns
    -------
    Contrast
        With the standard error of White, which holds for unequal variances too.

    Raises
    ------
    ValueError
        If the treatment is a linear function of the others.

    References
    ----------
    White, H. (1980). A heteroskedasticity-consistent covariance matrix estimator and a direct
    test for heteroskedasticity. Econometrica 48, equation 6.

    Examples
    --------
    >>> x = np.array([0.0, 1.0, 2.0, 3.0])
    >>> round(regression_contrast(1.0 + 2.0 * x, x, np.zeros((4, 0)), (0.0, 1.0)).effect, 9)
    2.0
    """
    n = len(outcome)
    design = np.column_stack([np.ones(n), others - others.mean(axis=0)])
    # Frisch, Waugh and Lovell: the slope is that on what the others leave of the treatment.
    away = treatment - design @ np.linalg.lstsq(design, treatment, rcond=None)[0]
    square = float(away @ away)
    if square <= 1e-20 * n * max(float(np.mean(treatment**2)), 1e-300):
        raise ValueError(
            "regression_contrast: the treatment is a linear function of what is adjusted for; "
            "expected it to vary besides"
        )
    full = np.column_stack([design, treatment])
    coefficients = np.linalg.lstsq(full, outcome, rcond=None)[0]
    residual = outcome - full @ coefficients
    gap = values[1] - values[0]
    means = coefficients[0] + coefficients[-1] * np.array(values)
    influence = gap * n * away * residual / square
    return _contrast(means, influence, 1.0)
