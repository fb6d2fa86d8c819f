"""Relabelling of the exchangeable components of a posterior."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.algorithms.relabelling import apply_permutations, relabel

__all__ = ["relabelled_draws"]

Arrays = dict[str, NDArray[Any]]


def relabelled_draws(
    draws: Mapping[str, NDArray[Any]],
    axes: Mapping[str, Sequence[str]],
    exchangeable: str,
    log_density: NDArray[np.float64] | None,
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
    features = np.concatenate(
        [_features(flat[site], found) for site, found in positions.items()], axis=2
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
