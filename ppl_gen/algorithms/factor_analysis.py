"""Factors of normal rows: what a row says of them, and the covariance that fits best.

A row of class k is ``x = mean_k + loadings_k f + e`` with ``f ~ N(0, I)`` of L factors and
``e ~ N(0, diag(noise_k))``. Everything goes through the (L, L) precision of the factors given the
row, ``I + loadings' noise^-1 loadings`` (Woodbury): no (D, D) matrix is made. Missing entries are
marginalised by dropping their rows of the loadings.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside
from ppl_gen.algorithms.normal import sweep
from ppl_gen.algorithms.rotation import largest_sign

Array = Any

LOG_2PI = math.log(2.0 * math.pi)


class FactorsGiven(NamedTuple):
    """What rows say of their factors, for every class.

    Attributes
    ----------
    mean : (K, n, L)
        E[f | x].
    covariance : (K, n, L, L), or (K, 1, L, L) for complete rows
        cov[f | x], which depends on which entries are observed, not on their values.
    log_prob : (n, K)
        Log density of what is observed of the rows, in nats.
    """

    mean: Array
    covariance: Array
    log_prob: Array


def factors_given(
    x: Array, observed: Array | None, mean: Array, loadings: Array, noise: Array
) -> FactorsGiven:
    """Condition the factors on rows, under every class.

    Parameters
    ----------
    x : (n, D)
        Rows, with zeros where ``observed`` is 0.
    observed : (n, D) or None
        1.0 where there is a value, 0.0 where it is missing; None for complete rows.
    mean : (K, D)
    loadings : (K, D, L)
    noise : (K, D)
        Variances.

    Notes
    -----
    With z the deviations and A the loadings in units of the noise, the squared Mahalanobis
    distance is ``|z - A f|^2 + |f|^2`` at ``f = E[f | x]``: a sum without cancellation, and since
    that f is its minimum, rounding of f enters squared only.

    Examples
    --------
    >>> x, mean, noise = np.array([[2.0, 0.0]]), np.zeros((1, 2)), np.ones((1, 2))
    >>> found = factors_given(x, None, mean, np.array([[[1.0], [1.0]]]), noise)
    >>> found.mean.round(4), found.log_prob.round(4)
    (array([[[0.6667]]]), array([[-3.7205]]))
    """
    xp = array_namespace(x, mean, loadings, noise)
    scale = noise**-0.5
    scaled = loadings * scale[..., None]
    z = (x[None] - mean[:, None, :]) * scale[:, None, :]
    log_scale = xp.log(scale) - 0.5 * LOG_2PI
    n_classes, n_columns, n_factors = loadings.shape
    unit = beside(loadings, np.eye(n_factors))
    if observed is None:
        precision = (unit + xp.matrix_transpose(scaled) @ scaled)[:, None]
        constant = xp.sum(log_scale, axis=1)[:, None]
        place = None
    else:
        z = z * observed
        seen, place = _patterns(observed) if xp is np else (observed, None)
        outer = scaled[:, :, :, None] * scaled[:, :, None, :]
        flat = seen @ xp.reshape(outer, (n_classes, n_columns, n_factors * n_factors))
        precision = unit + xp.reshape(flat, (n_classes, -1, n_factors, n_factors))
        constant = log_scale @ observed.T
    covariance, log_det = _inverse(xp, precision)
    if place is not None:
        covariance, log_det = covariance[:, place], log_det[:, place]
    pull = z @ scaled  # (K, n, L)
    if observed is None:
        factors = pull @ covariance[:, 0]
    else:
        factors = (covariance @ pull[..., None])[..., 0]
    rest = z - factors @ xp.matrix_transpose(scaled)
    if observed is not None:
        rest = rest * observed
    distance = xp.sum(rest * rest, axis=-1) + xp.sum(factors * factors, axis=-1)
    log_prob = constant - 0.5 * (log_det + distance)
    return FactorsGiven(factors, covariance, log_prob.T)


def _patterns(observed: Array) -> tuple[Array, Array]:
    """Distinct rows of a 0/1 mask, and which of them each row is."""
    packed = np.packbits(observed > 0.0, axis=1)
    _, first, place = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    return observed[first], place.reshape(-1)


def _inverse(xp: Any, precision: Array) -> tuple[Array, Array]:
    """Inverse and log determinant of positive definite matrices (..., L, L)."""
    if xp is np:
        # Batch axes last, so that each step of the sweep is one long vector operation.
        inverse, log_det = sweep(np.moveaxis(precision, (-2, -1), (0, 1)).copy())
        return np.moveaxis(inverse, (0, 1), (-2, -1)), log_det
    root = xp.linalg.cholesky(precision)
    log_det = 2.0 * xp.sum(xp.log(xp.linalg.diagonal(root)), axis=-1)
    unit = beside(precision, np.eye(precision.shape[-1]))
    return xp.linalg.solve(precision, xp.broadcast_to(unit, precision.shape)), log_det


def covariance_root(x: Array, weights: Array) -> tuple[Array, Array]:
    """Mean of weighted rows, and a root R of their covariance, R'R = cov.

    Parameters
    ----------
    x : (n, D), complete
    weights : (n,)

    Returns
    -------
    mean : (D,)
    root : (min(n, D), D)
        Without squaring the condition of the rows, as their covariance would.
    """
    shares = weights / weights.sum()
    mean = shares @ x
    away = (x - mean) * np.sqrt(shares)[:, None]
    return mean, away if len(x) <= x.shape[1] else np.linalg.qr(away, mode="r")


def fit_isotropic(root: Array, n_factors: int, floor: float) -> tuple[Array, Array]:
    """Loadings and noise of the most likely probabilistic PCA, in closed form.

    Parameters
    ----------
    root : (r, D)
        With covariance ``root.T @ root``.
    n_factors : int
        Fewer than D.
    floor : float
        Least variance of the noise.

    Returns
    -------
    loadings : (D, L)
        Principal axes, each as long as the root of its eigenvalue less the noise.
    noise : (D,)
        The mean of the eigenvalues left out, in every column.

    References
    ----------
    Tipping & Bishop (1999), Probabilistic principal component analysis, JRSS B 61, 611-622,
    equations 7 and 8.
    """
    width = root.shape[1]
    total = float((root * root).sum())
    values, axes = _leading(root, n_factors)
    noise = max((total - values.sum()) / (width - n_factors), floor)
    return axes * np.sqrt(np.maximum(values - noise, 0.0)), np.full(width, noise)


def fit_diagonal(root: Array, n_factors: int, floor: Array) -> tuple[Array, Array]:
    """Loadings and noise of the most likely factor analysis of a covariance.

    Given the noise, the best loadings are in closed form; what is left is a smooth function of D
    log variances, which a quasi-Newton method minimises within bounds, from two starts.

    Parameters
    ----------
    root : (r, D)
        With covariance ``root.T @ root``.
    n_factors : int
        Fewer than D.
    floor : (D,)
        Least variances of the noise.

    Returns
    -------
    loadings : (D, L)
        With ``loadings' noise^-1 loadings`` diagonal, descending.
    noise : (D,)

    References
    ----------
    Joreskog (1967), Some contributions to maximum likelihood factor analysis, Psychometrika 32,
    443-482. Lawley & Maxwell (1971), Factor Analysis as a Statistical Method, chapter 4.
    """
    from scipy.optimize import minimize

    variances = np.maximum((root * root).sum(axis=0), floor)
    deviations = np.sqrt(variances)

    def best(log_share: Array) -> tuple[Array, Array, float]:
        """Best loadings and the noise, in units of the deviations, and -2 log likelihood a row."""
        noise = np.exp(log_share)
        values, axes = _leading(root / (deviations * np.sqrt(noise)), n_factors)
        values = np.maximum(values, 1.0)
        loadings = np.sqrt(noise)[:, None] * axes * np.sqrt(values - 1.0)
        own = (root * root).sum(axis=0) / (variances * noise)
        return loadings, noise, float((log_share + own).sum() + (np.log(values) - values + 1).sum())

    def objective(log_share: Array) -> tuple[float, Array]:
        loadings, noise, value = best(log_share)
        excess = (loadings**2).sum(axis=1) + noise - (root * root).sum(axis=0) / variances
        return value, excess / noise

    lowest = np.log(floor / variances)
    bounds = list(zip(lowest, np.zeros(len(lowest)), strict=True))
    options: Any = {"maxiter": 1000, "maxfun": 2000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 20}
    fits = [
        minimize(
            objective,
            np.clip(np.log(start), lowest, 0.0),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options=options,
        )
        for start in _shares_of_noise(root / deviations, n_factors)
    ]
    loadings, noise, _ = best(_polished(objective, min(fits, key=lambda fit: fit.fun), lowest))
    return loadings * deviations[:, None], noise * variances


def _polished(objective: Callable[[Array], tuple[float, Array]], fit: Any, lowest: Array) -> Array:
    """Go on by the gradient alone, which has digits left where the values have none."""
    x = fit.x
    free = (x > lowest) & (x < 0.0)
    if not free.any():  # SciPy has no curvature where every variable is fixed
        return x
    gradient = np.where(free, objective(x)[1], 0.0)
    for _ in range(20):
        step = np.where(free, fit.hess_inv.dot(gradient), 0.0)
        moved = np.clip(x - step, lowest, 0.0)
        left = np.where(free, objective(moved)[1], 0.0)
        if np.abs(left).max() >= np.abs(gradient).max():
            break
        x, gradient = moved, left
    return x


def _shares_of_noise(root: Array, n_factors: int) -> list[Array]:
    """Where to start from: the noise in columns of unit variance, by several rules, each (D,)."""
    loadings, even = fit_isotropic(root, n_factors, 1e-3)
    principal = np.clip(1.0 - (loadings**2).sum(axis=1), 0.5 * even, 1.0)
    # Joreskog's: a part of what the other columns leave unexplained, 1 / (S + ridge)^-1_dd of a
    # covariance kept away from singular ones, by Woodbury's identity.
    rows, width = root.shape
    ridge = 1e-3
    pulled = np.linalg.solve(root @ root.T + ridge * np.eye(rows), root)
    unexplained = ridge / (1.0 - (root * pulled).sum(axis=0))
    regressed = (1.0 - 0.5 * n_factors / width) * unexplained
    return [principal, np.clip(regressed, 1e-3, 1.0)]


def _leading(root: Array, count: int) -> tuple[Array, Array]:
    """Largest eigenvalues of ``root.T @ root``, descending, and their axes: (L,), (D, L)."""
    from scipy.linalg import eigh

    rows, width = root.shape
    small = rows < width
    gram = root @ root.T if small else root.T @ root
    size = len(gram)
    held = min(count, size)
    values, axes = eigh(gram, subset_by_index=[size - held, size - 1])
    values, axes = np.maximum(values[::-1], 0.0), axes[:, ::-1]
    if small:
        axes = root.T @ axes / np.sqrt(np.where(values > 0.0, values, 1.0))
    # Fewer rows than factors: the axes left over have no length.
    return (
        np.concatenate([values, np.zeros(count - held)]),
        np.concatenate([axes, np.zeros((width, count - held))], axis=1),
    )


def canonical(loadings: Array, noise: Array) -> Array:
    """Orthogonal maps that bring loadings to their canonical form.

    After ``loadings @ map``, ``loadings' noise^-1 loadings`` is diagonal and descending, so that
    the factors are independent given a row, the best known first; and the largest entry of each
    factor, in units of the noise, is positive.

    Parameters
    ----------
    loadings : (..., D, L)
    noise : (..., D)

    Returns
    -------
    (..., L, L)
    """
    scaled = loadings / np.sqrt(noise)[..., None]
    _, axes = np.linalg.eigh(np.swapaxes(scaled, -1, -2) @ scaled)
    axes = axes[..., ::-1]
    return axes * largest_sign(scaled @ axes)[..., None, :]
