"""Multivariate regression with its conjugate prior: the matrix-normal inverse-Wishart.

The model of n rows y of D columns on M regressors u is ``y = W' u + N(0, S)``, and the prior::

    S ~ InverseWishart(dof, scale)
    W | S ~ MatrixNormal(0, (shrinkage I)^-1, S)

References
----------
Gelman et al. (2013), Bayesian Data Analysis, section 14.7; Bishop (2006), appendix B; Rossi,
Allenby & McCulloch (2005), Bayesian Statistics and Marketing, section 2.8.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import multigammaln

Array = Any


class MatrixNormal(NamedTuple):
    """A matrix-normal inverse-Wishart distribution of coefficients and covariance.

    Attributes
    ----------
    mean : (M, D)
        Of the coefficients.
    factor : (M, M)
        Upper triangular R, with R'R the precision of the coefficients among regressors.
    scale : (D, D)
        Of the inverse Wishart.
    dof : float
        Degrees of freedom.
    """

    mean: Array
    factor: Array
    scale: Array
    dof: float


def posterior(u: Array, y: Array, shrinkage: float, scale: Array, dof: float) -> MatrixNormal:
    """Posterior of coefficients and covariance, given rows.

    Parameters
    ----------
    u : (n, M)
    y : (n, D)
    shrinkage : float
        Prior precision of the coefficients; 0 is flat.
    scale : (D, D)
        Prior scale of the covariance.
    dof : float
        Prior degrees of freedom. With `shrinkage` and `scale` 0, ``dof = -M`` is the prior
        ``|S|^-(D + 1)/2``, under which the mean is least squares.

    Returns
    -------
    MatrixNormal

    Raises
    ------
    ValueError
        If the regressors are collinear and the prior is flat.

    Examples
    --------
    >>> import numpy as np
    >>> u, y = np.ones((3, 1)), np.array([[1.0], [2.0], [6.0]])
    >>> found = posterior(u, y, 0.0, np.zeros((1, 1)), -1.0)
    >>> found.mean.round(6), found.scale.round(6), found.dof
    (array([[3.]]), array([[14.]]), 2.0)
    """
    width = u.shape[1]
    # Prior rows beside the data's: a QR decomposition never squares the condition number.
    ridge = math.sqrt(shrinkage) * np.eye(width)
    stacked = np.vstack([u, ridge]) if shrinkage > 0.0 else u
    targets = np.vstack([y, np.zeros((width, y.shape[1]))]) if shrinkage > 0.0 else y
    q, r = np.linalg.qr(stacked)
    size = np.abs(np.diagonal(r))
    if shrinkage == 0.0 and not (len(u) >= width and size.min() > 1e-12 * size.max()):
        raise ValueError(
            "posterior: the regressors are collinear, so that a flat prior has no posterior; "
            "expected independent ones; use fewer, or shrinkage > 0"
        )
    mean = solve_triangular(r, q.T @ targets)
    residual = targets - stacked @ mean
    return MatrixNormal(mean, r, scale + residual.T @ residual, dof + len(y))


def draw(distribution: MatrixNormal, n_draws: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw coefficients and covariances.

    Parameters
    ----------
    distribution : MatrixNormal
    n_draws : int
    rng : numpy.random.Generator

    Returns
    -------
    coefficients : (n_draws, M, D)
    covariances : (n_draws, D, D)

    Raises
    ------
    ValueError
        If there are too few degrees of freedom.
    """
    mean, factor, scale, dof = distribution
    size = len(scale)
    if not dof > size - 1:
        raise ValueError(
            f"draw: an inverse Wishart of {size} columns needs more than {size - 1} degrees of "
            f"freedom, but has {dof}; give more rows, or a proper prior"
        )
    # Bartlett: T T' is Wishart with unit scale, T lower triangular; (T T')^-1 is its inverse.
    triangle = np.tril(rng.normal(size=(n_draws, size, size)), -1)
    squares = rng.chisquare(dof - np.arange(size), size=(n_draws, size))
    triangle += np.eye(size) * np.sqrt(squares)[:, None, :]
    lower = np.linalg.cholesky(scale)
    # roots roots' = lower T'^-1 T^-1 lower'
    roots = np.swapaxes(np.linalg.solve(triangle, np.broadcast_to(lower.T, triangle.shape)), 1, 2)
    noise = rng.normal(size=(n_draws, *mean.shape)) @ np.swapaxes(roots, 1, 2)
    spread = solve_triangular(factor, np.moveaxis(noise, 0, 1).reshape(len(mean), -1))
    away = np.moveaxis(spread.reshape(len(mean), n_draws, size), 1, 0)
    return mean + away, roots @ np.swapaxes(roots, 1, 2)


def log_evidence(distribution: MatrixNormal, shrinkage: float, scale: Array, dof: float) -> float:
    """Log density of the rows behind a posterior, its parameters integrated out, in nats.

    Parameters
    ----------
    distribution : MatrixNormal
        What :func:`posterior` returned.
    shrinkage, scale, dof
        The prior, a proper one.
    """
    width, size = distribution.mean.shape
    n = distribution.dof - dof
    log_det = np.log(np.abs(np.diagonal(distribution.factor))).sum()
    return float(
        -0.5 * n * size * math.log(math.pi)
        + multigammaln(0.5 * distribution.dof, size)
        - multigammaln(0.5 * dof, size)
        + 0.5 * dof * np.linalg.slogdet(scale)[1]
        - 0.5 * distribution.dof * np.linalg.slogdet(distribution.scale)[1]
        + size * (0.5 * width * math.log(shrinkage) - log_det)
    )
