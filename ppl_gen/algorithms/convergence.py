"""Convergence of Markov chains: rank-normalised R-hat, bulk and tail effective sample size, BFMI.

The definitions are those of Vehtari et al. (2021), as ArviZ and Stan have them; here they run
over all entries of an array at once, so that a verdict on thousands of parameters takes no time.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri
from scipy.stats import rankdata

__all__ = ["bfmi", "bulk_ess", "rhat", "tail_ess"]

Array = NDArray[np.float64]

#: Entries handled together, so that memory stays a small multiple of one chunk.
CHUNK = 256


def rhat(draws: Array) -> Array:
    """Rank-normalised split R-hat: the larger of the bulk's and that of the folded draws.

    Parameters
    ----------
    draws : ndarray, shape (chains, draws, ...)

    Returns
    -------
    ndarray, shape (...)
        Near 1 where chains agree (above 1.01 they do not). NaN for a constant, for fewer than
        two chains or four draws, and where a draw is not finite.

    References
    ----------
    Vehtari, A., Gelman, A., Simpson, D., Carpenter, B. and Bürkner, P.-C. (2021).
    Rank-normalization, folding, and localization: an improved R-hat. Bayesian Analysis 16,
    equations 4 and 14.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen.algorithms.convergence import rhat
    >>> draws = np.random.default_rng(0).normal(size=(4, 500))
    >>> bool(rhat(draws) < 1.01), bool(rhat(draws + np.arange(4)[:, None]) > 1.5)
    (True, True)
    """
    if draws.shape[0] < 2:
        return np.full(draws.shape[2:], np.nan)
    return _by_entry(_rhat, draws)


def bulk_ess(draws: Array) -> Array:
    """Effective sample size for the centre of the distribution, of the rank-normalised draws.

    Parameters
    ----------
    draws : ndarray, shape (chains, draws, ...)

    Returns
    -------
    ndarray, shape (...)
        NaN for a constant, fewer than four draws and where a draw is not finite.

    References
    ----------
    Vehtari et al. (2021), section 4.1; Geyer (1992), Practical Markov chain Monte Carlo.
    """
    return _by_entry(lambda x: _ess(_z_scale(_split(x))), draws)


def tail_ess(draws: Array) -> Array:
    """Effective sample size for the tails: the smaller of those of the 5% and 95% quantiles.

    Parameters
    ----------
    draws : ndarray, shape (chains, draws, ...)

    Returns
    -------
    ndarray, shape (...)
        NaN for a constant, fewer than four draws and where a draw is not finite.

    References
    ----------
    Vehtari et al. (2021), section 4.3.
    """
    return _by_entry(_tail_ess, draws)


def bfmi(energy: Array) -> Array:
    """Estimated Bayesian fraction of missing information of each chain.

    Parameters
    ----------
    energy : ndarray, shape (chains, draws)

    Returns
    -------
    ndarray, shape (chains,)
        Under 0.3 the momentum moves the energy too little to reach the tails.

    References
    ----------
    Betancourt, M. (2016). Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte
    Carlo, equation 6.
    """
    steps = np.mean(np.diff(energy, axis=1) ** 2, axis=1)
    return np.asarray(steps / np.var(energy, axis=1, ddof=1))


def _by_entry(function: Callable[[Array], Array], draws: Array) -> Array:
    """Apply a function of (chains, draws, entries) to the entries that vary and are finite."""
    chains, length = draws.shape[:2]
    flat = np.asarray(draws, dtype=np.float64).reshape(chains, length, -1)
    result = np.full(flat.shape[2], np.nan)
    if length >= 4:
        finite = np.isfinite(flat).all(axis=(0, 1))
        # What varies by rounding alone, such as the sum of a simplex, is a constant too.
        rounding = 8 * np.finfo(np.float64).eps * np.abs(flat).max(axis=(0, 1))
        kept = np.flatnonzero(finite & (np.ptp(flat, axis=(0, 1)) > rounding))
        for start in range(0, len(kept), CHUNK):
            entries = kept[start : start + CHUNK]
            result[entries] = function(flat[:, :, entries])
    return result.reshape(draws.shape[2:])


def _split(draws: Array) -> Array:
    """Each chain's first and last half as chains of their own."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _z_scale(draws: Array) -> Array:
    """Return normal scores of the ranks over all chains (Blom's offset 3/8)."""
    chains, length, entries = draws.shape
    ranks = rankdata(draws.reshape(-1, entries), axis=0)
    scores: Array = ndtri((ranks - 0.375) / (chains * length + 0.25))
    return scores.reshape(draws.shape)


def _rhat(draws: Array) -> Array:
    halves = _split(draws)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    return np.maximum(_plain_rhat(_z_scale(halves)), _plain_rhat(_z_scale(folded)))


def _plain_rhat(draws: Array) -> Array:
    length = draws.shape[1]
    within = draws.var(axis=1, ddof=1).mean(axis=0)
    between = length * draws.mean(axis=1).var(axis=0, ddof=1)
    # Chains that each stand still at a different value have no variance within: infinity is meant.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt((between / within + length - 1) / length))


def _tail_ess(draws: Array) -> Array:
    low, high = np.quantile(draws, [0.05, 0.95], axis=(0, 1))
    return np.minimum(_ess(_split(draws <= low)), _ess(_split(draws <= high)))


def _ess(draws: Array) -> Array:
    """Effective sample size by Geyer's initial monotone sequence, all entries at once."""
    draws = np.asarray(draws, dtype=np.float64)
    chains, length, entries = draws.shape
    total = chains * length
    covariance = _autocovariance(draws).mean(axis=0)  # (lags, entries)
    within = covariance[0] * length / (length - 1.0)
    pooled = covariance[0] + draws.mean(axis=1).var(axis=0, ddof=1)
    constant = np.ptp(draws, axis=(0, 1)) == 0
    pooled = np.where(constant, 1.0, pooled)
    correlation = 1.0 - (within - covariance) / pooled
    correlation[0] = 1.0

    # Sums of pairs of lags are positive and fall for a reversible chain: keep them as long as
    # that holds, and never let a later one exceed an earlier one.
    count = max((length - 1) // 2, 1)
    even = correlation[0 : 2 * count : 2]
    pairs = even[:count] + correlation[1 : 2 * count : 2]
    negative = pairs <= 0
    negative[-1] = True  # the last pair is never used whole
    cut = np.argmax(negative, axis=0)
    used = np.arange(count)[:, None] < cut
    monotone = np.minimum.accumulate(pairs, axis=0)
    tau = -1.0 + 2.0 * np.sum(np.where(used, monotone, 0.0), axis=0)
    tau += np.maximum(even[cut, np.arange(entries)], 0.0)
    # An antithetic chain may beat independent draws, by no more than a factor log10(total).
    tau = np.maximum(tau, 1.0 / np.log10(total))
    return np.asarray(np.where(constant, float(total), total / tau))


def _autocovariance(draws: Array) -> Array:
    length = draws.shape[1]
    size = next_fast_len(2 * length, real=True)
    spectrum = rfft(draws - draws.mean(axis=1, keepdims=True), n=size, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    return np.asarray(irfft(power, n=size, axis=1)[:, :length] / length)
