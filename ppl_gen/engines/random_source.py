"""Random numbers in one spelling, whatever the array library."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


class RandomSource(Protocol):
    """What an engine draws with.

    Arrays returned are the library's own. Every call advances the source.
    """

    def normal(self, shape: tuple[int, ...]) -> Any:
        """Return standard normal draws of this shape."""

    def uniform(self, shape: tuple[int, ...]) -> Any:
        """Return draws from [0, 1) of this shape."""

    def gamma(self, concentration: Any) -> Any:
        """Return draws of unit rate, one for each concentration."""

    def poisson(self, rate: Any) -> Any:
        """Return counts, one for each rate."""

    def categorical(self, probs: Any) -> Any:
        """Return integers of shape ``probs.shape[:-1]``; the last axis holds probabilities."""

    def multinomial(self, n: Any, probs: Any) -> Any:
        """Return counts of the shape of `probs` that sum to `n` over the last axis."""


class NumPyRandom:
    """`RandomSource` over a NumPy generator.

    Parameters
    ----------
    seed : int, numpy.random.Generator or None

    Examples
    --------
    >>> NumPyRandom(0).categorical([[1.0, 0.0], [0.0, 1.0]])
    array([0, 1])
    """

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        self.generator = np.random.default_rng(seed)

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Return standard normal draws of this shape."""
        return self.generator.standard_normal(shape)

    def uniform(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Return draws from [0, 1) of this shape."""
        return self.generator.random(shape)

    def gamma(self, concentration: ArrayLike) -> NDArray[np.float64]:
        """Return draws of unit rate, one for each concentration."""
        return np.asarray(self.generator.standard_gamma(np.asarray(concentration)))

    def poisson(self, rate: ArrayLike) -> NDArray[np.int64]:
        """Return counts, one for each rate."""
        return np.asarray(self.generator.poisson(np.asarray(rate)))

    def categorical(self, probs: ArrayLike) -> NDArray[np.int64]:
        """Return integers of shape ``probs.shape[:-1]``; the last axis holds probabilities."""
        cumulative = np.cumsum(np.asarray(probs, dtype=float), axis=-1)
        # Comparing with the total keeps a sum that falls short of one from overrunning.
        height = self.generator.random((*cumulative.shape[:-1], 1)) * cumulative[..., -1:]
        labels: NDArray[np.int64] = np.sum(height >= cumulative[..., :-1], axis=-1)
        return labels

    def multinomial(self, n: ArrayLike, probs: ArrayLike) -> NDArray[np.int64]:
        """Return counts of the shape of `probs` that sum to `n` over the last axis."""
        probs = np.asarray(probs, dtype=float)
        return self.generator.multinomial(np.asarray(n), probs / probs.sum(-1, keepdims=True))
