"""Relabelling of the exchangeable components of a posterior, and rotation of its factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.algorithms.relabelling import apply_permutations, relabel
from ppl_gen.algorithms.rotation import align

if TYPE_CHECKING:
    from ppl_gen.posterior.core import Posterior

__all__ = ["relabelled", "relabelled_draws", "rotated_draws"]

Arrays = dict[str, NDArray[Any]]


def relabelled(posterior: Posterior) -> Posterior:
    """Bring the components and the factors of every draw into one order and orientation."""
    draws, lp = posterior.draws, posterior.sample_stats.get("lp")
    info = {}
    if posterior.exchangeable is not None:
        draws, info["relabelled_share"] = relabelled_draws(
            draws, posterior.axes, posterior.exchangeable, lp, posterior.rotatable
        )
    for axis in posterior.rotatable:
        draws = rotated_draws(draws, posterior.axes, axis, lp)
    result = posterior._replace(draws, posterior.sample_stats, **info)
    # Neither the data nor the likelihood depends on labels or orientation.
    result.__dict__.update(sites=posterior.sites, axes=posterior.axes)
    result._log_likelihood = posterior._log_likelihood
    result.exchangeable, result.rotatable = None, ()
    return result


def relabelled_draws(
    draws: Mapping[str, NDArray[Any]],
    axes: Mapping[str, Sequence[str]],
    exchangeable: str,
    log_density: NDArray[np.float64] | None,
    rotatable: Sequence[str] = (),
) -> tuple[Arrays, float]:
    """Bring the components of every draw into one order.

    Parameters
    ----------
    draws : dict of ndarray, shape (chains, draws, ...)
    axes : dict of list of str
        Names of the axes after chains and draws. A site with the axis twice (a matrix over pairs
        of components) is permuted along both, and its diagonal takes part in the comparison.
    exchangeable : str
        The axis of the components.
    log_density : ndarray, shape (chains, draws), optional
        Its highest draw is the pivot to start from.
    rotatable : sequence of str
        Axes of factors, whose orientation tells nothing: sites are compared by their lengths
        along them.

    Returns
    -------
    draws : dict of ndarray
    share : float
        Share of the draws that were changed.

    Raises
    ------
    ValueError
        If no site has the axis.
    """
    positions = {
        site: [k + 1 for k, axis in enumerate(axes[site]) if axis == exchangeable] for site in draws
    }
    positions = {site: found for site, found in positions.items() if found}
    if not positions:
        known = sorted({axis for names in axes.values() for axis in names})
        raise ValueError(
            f"Posterior.relabel: no site has an axis {exchangeable!r}; expected one of "
            f"{', '.join(known) or 'none, since no site has an axis'}; name event axes by dims="
        )
    flat = {site: draws[site].reshape(-1, *draws[site].shape[2:]) for site in positions}
    told = dict(flat)
    for site in positions:
        free = [k + 1 for k, axis in enumerate(axes[site]) if axis in rotatable]
        if free:
            told[site] = np.linalg.norm(flat[site], axis=free[0], keepdims=True)
    features = np.concatenate(
        [_features(told[site], found) for site, found in positions.items()], axis=2
    )
    pivot = None if log_density is None else int(np.argmax(log_density))
    permutations = relabel(features, pivot=pivot).permutations
    result = dict(draws)
    for site, found in positions.items():
        values: NDArray[Any] = flat[site]
        for position in found:
            values = apply_permutations(values, permutations, position)
        result[site] = values.reshape(draws[site].shape)
    moved = np.any(permutations != np.arange(permutations.shape[1]), axis=1)
    return result, float(np.mean(moved))


def _features(values: NDArray[Any], positions: Sequence[int]) -> NDArray[np.float64]:
    """Return (draws, components, rest) of a site; of a matrix over pairs, the diagonal."""
    moved = np.moveaxis(np.asarray(values, dtype=np.float64), positions[0], 1)
    if len(positions) > 1:
        moved = np.moveaxis(np.diagonal(moved, axis1=1, axis2=positions[1]), -1, 1)
    return moved.reshape(*moved.shape[:2], -1)


def rotated_draws(
    draws: Mapping[str, NDArray[Any]],
    axes: Mapping[str, Sequence[str]],
    rotatable: str,
    log_density: NDArray[np.float64] | None,
) -> Arrays:
    """Bring the factors of every draw into one orientation.

    The first site with the axis, such as loadings, tells how: its last axis is that of the
    factors, the one before it is what they load on, and any others (components) are of separate
    sets of factors, each with a rotation of its own.

    Parameters
    ----------
    draws : dict of ndarray, shape (chains, draws, ...)
    axes : dict of list of str
        Names of the axes after chains and draws.
    rotatable : str
        The axis of the factors.
    log_density : ndarray, shape (chains, draws), optional
        Its highest draw is the pivot to start from.

    Returns
    -------
    dict of ndarray

    Raises
    ------
    ValueError
        If no site has the axis, or one has it elsewhere than last, or lacks the first one's sets.
    """
    names = [site for site in draws if rotatable in axes[site]]
    if not names:
        known = sorted({axis for each in axes.values() for axis in each})
        raise ValueError(
            f"Posterior.relabel: no site has an axis {rotatable!r}; expected one of "
            f"{', '.join(known) or 'none, since no site has an axis'}; name event axes by dims="
        )
    sets = list(axes[names[0]])[:-2]
    for site in names:
        found = list(axes[site])
        if found.count(rotatable) != 1 or found[-1] != rotatable or found[: len(sets)] != sets:
            raise ValueError(
                f"Posterior.relabel: site {site!r} has the axes {found}; expected factors along "
                f"the last one, {rotatable!r}, and {sets or 'nothing'} first, as {names[0]!r} has"
            )
    flat = {site: draws[site].reshape(-1, *draws[site].shape[2:]) for site in names}
    told: NDArray[Any] = flat[names[0]]
    if told.ndim == 2:  # one length a factor: a single thing is loaded on
        told = told[:, None, :]
    size = told.shape[-1]
    by_set = told.reshape(len(told), -1, *told.shape[-2:])
    pivot = 0 if log_density is None else int(np.argmax(log_density))
    maps = np.stack([align(by_set[:, k], pivot=pivot) for k in range(by_set.shape[1])], axis=1)
    result = dict(draws)
    for site in names:
        value = flat[site].reshape(*maps.shape[:2], -1, size)
        result[site] = (value @ maps).reshape(draws[site].shape)
    return result
