"""How heavy the tail of importance weights is: the shape of a generalised Pareto fit.

A variational guide q stands in for a posterior p as far as the ratios p / q have few heavy
values. The shape k of a generalised Pareto distribution fitted to the largest ratios says how
many of their moments are finite (1 / k), and so whether the guide can be trusted.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Log weights that differ by less than this are equal: it is what rounding leaves of a sum of
#: log densities that cancel, and a tail fitted to rounding says nothing.
_ROUNDING = 1e-9


def generalized_pareto_fit(exceedances: ArrayLike) -> tuple[float, float]:
    r"""Fit a generalised Pareto distribution to values over a threshold.

    The estimate is the posterior mean of Zhang and Stephens [1]_ over their grid of
    :math:`\theta = -k / \sigma`, with the weakly informative shrinkage of k towards 0.5 of
    Vehtari et al. [2]_ (appendix C: as ten further observations).

    Parameters
    ----------
    exceedances : array_like, shape (n,)
        Positive values over the threshold, in any order; n > 4.

    Returns
    -------
    k : float
        Shape. Positive for a heavy tail, of which moments under 1 / k are finite.
    sigma : float
        Scale, in the unit of the values.

    Raises
    ------
    ValueError
        Fewer than five values, or values that are not positive and finite.

    References
    ----------
    .. [1] Zhang, J. and Stephens, M. A. (2009). A new and efficient estimation method for the
       generalized Pareto distribution. Technometrics 51(3), 316-325, eq. 3-6.
    .. [2] Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), 1-58.

    Examples
    --------
    The exponential distribution has k = 0; the prior draws the estimate a little towards 0.5.

    >>> import numpy as np
    >>> from scipy.stats import expon
    >>> k, sigma = generalized_pareto_fit(expon.ppf((np.arange(2000) + 0.5) / 2000))
    >>> round(k, 2), round(sigma, 1)
    (0.0, 1.0)
    """
    x = np.sort(np.asarray(exceedances, dtype=np.float64))
    if x.ndim != 1 or len(x) < 5 or not np.all(np.isfinite(x)) or x[0] <= 0:
        raise ValueError(
            "generalized_pareto_fit: exceedances must be at least five positive finite values in "
            f"one dimension, got an array of shape {x.shape}; pass the values less the threshold"
        )
    n = len(x)
    n_grid = 30 + math.isqrt(n)
    first_quartile = x[int(n / 4 + 0.5) - 1]
    spread = 1.0 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))
    theta = 1.0 / x[-1] + spread / (3.0 * first_quartile)  # (grid,)
    k_of_theta = np.log1p(-theta[:, None] * x).mean(axis=1)  # (grid,), minus Zhang and Stephens' k
    profile = n * (np.log(-theta / k_of_theta) - k_of_theta - 1.0)
    weight = np.exp(profile - profile.max())
    weight /= weight.sum()
    theta_mean = float(weight @ theta)
    k = float(np.log1p(-theta_mean * x).mean())
    sigma = -k / theta_mean
    return (n * k + 10.0 * 0.5) / (n + 10.0), sigma


def pareto_k(log_weights: ArrayLike) -> float:
    r"""Shape k of the tail of importance weights, the diagnostic of PSIS.

    Under 0.7 the weighted estimates are reliable, and a guide that has given the weights is a
    usable stand-in for its target; over 0.7 it is not [1]_.

    Parameters
    ----------
    log_weights : array_like, shape (n,)
        Logarithms of the ratios target / proposal, up to a constant. Minus infinity is a weight
        of nought.

    Returns
    -------
    float
        k of the largest :math:`\min(n / 5, 3 \sqrt n)` weights. Minus infinity if all weights
        are equal (the proposal is the target); infinity if too few differ for a fit.

    Raises
    ------
    ValueError
        Not one dimension, fewer than 25 weights (no tail of five), or NaN or plus infinity.

    References
    ----------
    .. [1] Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), 1-58.

    Examples
    --------
    A normal proposal half as wide as its target leaves weights without a variance.

    >>> import numpy as np
    >>> x = 0.5 * np.random.default_rng(0).standard_normal(4000)
    >>> bool(pareto_k(-(x**2) / 2 + x**2 / (2 * 0.5**2)) > 0.5)
    True
    """
    log_w = _checked(log_weights, "pareto_k")
    tail = _tail(np.sort(log_w - log_w.max()))
    return tail if isinstance(tail, float) else generalized_pareto_fit(tail[1])[0]


def _tail(log_w: NDArray[np.float64]) -> float | tuple[float, NDArray[np.float64]]:
    """Threshold of the tail of sorted log weights, the largest 0, and the weights' excess over it.

    Where there is no tail to fit, what stands for its k: minus infinity if all weights are equal,
    infinity if too few differ.
    """
    if log_w[0] > -_ROUNDING:
        return -math.inf
    n = len(log_w)
    n_tail = math.ceil(min(n / 5.0, 3.0 * math.sqrt(n)))
    tiny = math.log(np.finfo(np.float64).tiny)
    threshold = max(float(log_w[-n_tail - 1]), tiny)
    exceedances: NDArray[np.float64] = np.exp(log_w[log_w > threshold]) - math.exp(threshold)
    exceedances = exceedances[exceedances > 0]
    return math.inf if len(exceedances) < 5 else (threshold, exceedances)


def smoothed_log_weights(log_weights: ArrayLike) -> tuple[NDArray[np.float64], float]:
    r"""Importance weights with their tail smoothed, as logarithms that are normalised, and k.

    The largest weights are replaced by the expected order statistics of the generalised Pareto
    distribution fitted to them, and cut off at the largest of the weights as they were [1]_
    (algorithm 1).

    Parameters
    ----------
    log_weights : array_like, shape (n,)
        As :func:`pareto_k` takes them.

    Returns
    -------
    log_weights : (n,) array
        In the order given; their exponentials sum to one. Unchanged but for the sum where
        there is no tail to fit.
    k : float
        Of the weights as they were: see :func:`pareto_k`.

    Raises
    ------
    ValueError
        As :func:`pareto_k`.

    References
    ----------
    .. [1] Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), 1-58.

    Examples
    --------
    >>> import numpy as np
    >>> raw = np.random.default_rng(0).standard_normal(1000)
    >>> smoothed, k = smoothed_log_weights(raw)
    >>> round(float(np.exp(smoothed).sum()), 12), k < 0.7
    (1.0, True)
    """
    log_w = _checked(log_weights, "smoothed_log_weights")
    log_w = log_w - log_w.max()
    order = np.argsort(log_w)
    tail = _tail(log_w[order])
    k = tail if isinstance(tail, float) else math.nan
    if not isinstance(tail, float):
        threshold, exceedances = tail
        k, sigma = generalized_pareto_fit(exceedances)
        n_tail = len(exceedances)
        survival = 1.0 - (np.arange(n_tail) + 0.5) / n_tail
        quantiles = sigma * np.expm1(-k * np.log(survival)) / k if k else -sigma * np.log(survival)
        # The largest weight is 1 in this scale.
        log_w[order[-n_tail:]] = np.minimum(np.log(quantiles + math.exp(threshold)), 0.0)
    return log_w - np.logaddexp.reduce(log_w), k


def _checked(log_weights: ArrayLike, who: str) -> NDArray[np.float64]:
    log_w = np.asarray(log_weights, dtype=np.float64)
    if log_w.ndim != 1 or len(log_w) < 25:
        raise ValueError(
            f"{who}: log_weights must have shape (n,) with n >= 25, got {log_w.shape}; "
            "take more draws"
        )
    if np.any(np.isnan(log_w)) or np.any(log_w == np.inf):
        raise ValueError(
            f"{who}: log_weights must be finite or minus infinity, got NaN or plus infinity; "
            "find the draw whose density is not a number"
        )
    return log_w
