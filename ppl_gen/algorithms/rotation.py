"""Rotation of factors: to simple structure, and of draws to one orientation.

Loadings W and factors f say the same of rows as ``W T`` and ``T^-1 f``. Maps T are orthogonal here
but for :func:`promax`'s.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ROTATIONS",
    "SimpleStructure",
    "align",
    "largest_sign",
    "orthomax",
    "principal",
    "procrustes",
    "promax",
    "simple_structure",
]

Array = NDArray[np.float64]

#: What orthomax weighs: quartimax simplifies rows (columns of the data), varimax factors.
GAMMAS = {"varimax": 1.0, "quartimax": 0.0}
ROTATIONS = (*GAMMAS, "promax")


def orthomax(
    loadings: Array, gamma: float = 1.0, *, tol: float = 1e-10, max_iter: int = 1000
) -> Array:
    """Rotate to simple structure: few large loadings, the others near zero.

    Parameters
    ----------
    loadings : (D, L)
    gamma : float
        1 is varimax, 0 quartimax.
    tol : float
        Stop where the gradient along the rotations is this small, of loadings of size one.
    max_iter : int

    Returns
    -------
    (L, L)
        Orthogonal T, for ``loadings @ T``.

    Notes
    -----
    Maximises ``sum(B^4) - gamma / D sum_l (sum_d B^2)^2`` of ``B = W T`` by gradient projection: a
    step along the gradient, then the nearest orthogonal map; steps that raise the criterion by
    too little are halved.

    References
    ----------
    Kaiser (1958), The varimax criterion for analytic rotation in factor analysis, Psychometrika
    23, 187-200. Jennrich (2001), A simple general procedure for orthogonal rotation,
    Psychometrika 66, 289-306.

    Examples
    --------
    >>> turned = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [1.0, -1.0]])
    >>> np.abs(turned @ orthomax(turned)).round(3)
    array([[0.   , 1.414],
           [0.   , 1.414],
           [1.414, 0.   ],
           [1.414, 0.   ]])
    """
    width, size = loadings.shape
    total = float((loadings**2).sum())
    rotation = np.eye(size)
    if size < 2 or total == 0.0:
        return rotation
    loadings = loadings / np.sqrt(total)  # the best rotation has no units

    def criterion(turned: Array) -> float:
        squares = turned**2
        return float((squares**2).sum() - gamma / width * (squares.sum(axis=0) ** 2).sum())

    # A saddle may have no slope, as loadings of one size have: start a little away from it.
    rotation = _nearest(np.eye(size) + 0.01 * np.triu(np.ones((size, size)), 1))
    value, step = criterion(loadings @ rotation), 1.0
    for _ in range(max_iter):
        turned = loadings @ rotation
        gradient = 4.0 * loadings.T @ (turned**3 - gamma / width * turned * (turned**2).sum(axis=0))
        inner = rotation.T @ gradient
        along = 0.5 * rotation @ (inner - inner.T)  # tangent to the rotations
        slope = float((along**2).sum())
        if np.sqrt(slope) <= tol:
            break
        step *= 2.0
        candidate = rotation
        while step > 1e-12:
            candidate = _nearest(rotation + step * along)
            if criterion(loadings @ candidate) > value + 0.5 * step * slope:
                break
            step /= 2.0
        else:
            break  # nothing to gain beyond rounding
        rotation, value = candidate, criterion(loadings @ candidate)
    return rotation


def _nearest(matrices: Array) -> Array:
    """Orthogonal matrices nearest to matrices (..., L, L): their polar factors."""
    left, _, right = np.linalg.svd(matrices)
    nearest: Array = left @ right
    return nearest


def promax(loadings: Array, power: float = 4.0) -> Array:
    """Rotate to simple structure, letting the factors be correlated.

    Parameters
    ----------
    loadings : (D, L)
        Of varimax.
    power : float
        Of the loadings' sizes in the target; the larger, the more the factors correlate.

    Returns
    -------
    (L, L)
        T for ``loadings @ T``; the factors have the covariance ``inv(T) @ inv(T).T``, of unit
        variances. The identity where the targets of the factors are collinear, as those of
        loadings of lower rank are.

    References
    ----------
    Hendrickson & White (1964), Promax: a quick method for rotation to oblique simple structure,
    British Journal of Statistical Psychology 17, 65-70.
    """
    target = loadings * np.abs(loadings) ** (power - 1.0)
    oblique = np.linalg.lstsq(loadings, target, rcond=None)[0]
    lengths = np.sqrt((oblique**2).sum(axis=0))
    oblique = oblique / np.where(lengths > 0.0, lengths, 1.0)
    sizes = np.linalg.svd(oblique, compute_uv=False)
    if sizes[-1] <= 1e-8 * sizes[0]:
        return np.eye(len(oblique))
    inverse = np.linalg.inv(oblique)
    scaled: Array = oblique * np.sqrt((inverse**2).sum(axis=1))
    return scaled


class SimpleStructure(NamedTuple):
    """Maps to simple structure, for ``loadings @ orthogonal @ oblique``.

    Attributes
    ----------
    orthogonal : (L, L)
    oblique : (L, L)
        The identity, but for promax.
    """

    orthogonal: Array
    oblique: Array


def simple_structure(loadings: Array, rotation: str) -> SimpleStructure:
    """Rotate loadings of columns of any units, each weighing the same (Kaiser's normalisation).

    Parameters
    ----------
    loadings : (D, L)
    rotation : {"varimax", "quartimax", "promax"}
        The orthogonal part of promax is varimax.
    """
    lengths = np.sqrt((loadings**2).sum(axis=1, keepdims=True))
    even = loadings / np.where(lengths > 0.0, lengths, 1.0)
    orthogonal = orthomax(even, GAMMAS["varimax" if rotation == "promax" else rotation])
    oblique = promax(even @ orthogonal) if rotation == "promax" else np.eye(len(orthogonal))
    return SimpleStructure(orthogonal, oblique)


def procrustes(loadings: Array, target: Array) -> Array:
    """Orthogonal T for which ``loadings @ T`` is nearest to a target.

    Parameters
    ----------
    loadings : (..., D, L)
    target : (D, L)

    Returns
    -------
    (..., L, L)

    References
    ----------
    Schonemann (1966), A generalized solution of the orthogonal Procrustes problem, Psychometrika
    31, 1-10.
    """
    return _nearest(np.swapaxes(loadings, -1, -2) @ target)


def align(
    loadings: Array,
    *,
    pivot: int = 0,
    tol: float = 1e-9,
    max_iter: int = 200,
) -> Array:
    """Rotate draws of loadings to agree with their mean, and the mean with the draws.

    Both steps lower the sum of squares about the mean, so the rounds end. Rotations include
    reflections and every order of the factors: nothing is left to be matched.

    Parameters
    ----------
    loadings : (draws, D, L)
    pivot : int
        The draw to start from.
    tol : float
        Stop where a round moves the mean by less, as a share of its size.
    max_iter : int
        Bound on the number of rounds.

    Returns
    -------
    (draws, L, L)
        Orthogonal maps, for ``loadings @ maps``. The factors of the mean become orthogonal, the
        longest first, with their largest loadings positive.

    References
    ----------
    Gower (1975), Generalized Procrustes analysis, Psychometrika 40, 33-51. Assmann,
    Boysen-Hogrefe & Pape (2016), Bayesian analysis of static and dynamic factor models: an
    ex-post approach towards the rotation problem, Journal of Econometrics 192, 190-206.

    Examples
    --------
    >>> draws = np.array([[[1.0], [2.0]], [[-1.0], [-2.0]]])
    >>> align(draws).ravel()
    array([ 1., -1.])
    """
    mean = loadings[pivot]
    size = max(float(np.linalg.norm(mean)), 1e-300)
    for _ in range(max_iter):
        maps = procrustes(loadings, mean)
        before, mean = mean, np.mean(loadings @ maps, axis=0)
        if np.linalg.norm(mean - before) <= tol * size:
            break
    return procrustes(loadings, mean @ principal(mean))


def principal(loadings: Array) -> Array:
    """Orthogonal T that makes the factors of loadings (D, L) orthogonal, the longest first."""
    axes: Array = np.linalg.svd(loadings, full_matrices=True)[2].T
    return axes * largest_sign(loadings @ axes)


def largest_sign(loadings: Array) -> Array:
    """Sign of the largest entry of each factor: (..., D, L) -> (..., L), of -1.0 and 1.0."""
    largest = np.abs(loadings).argmax(axis=-2)[..., None, :]
    entries = np.take_along_axis(loadings, largest, axis=-2)[..., 0, :]
    return np.where(entries < 0.0, -1.0, 1.0)
