"""Toys in the plane whose true density is known, so that a fitted one can be held against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any

RADIUS, SD = 4.0, 0.2
MOON_NOISE = 0.1
#: The half moons of scikit-learn: the centre of each, and which way it is turned.
MOON_CENTRES = np.array([[0.0, 0.0], [1.0, 0.5]])
MOON_SIGNS = np.array([[1.0, 1.0], [-1.0, -1.0]])
#: By the midpoint rule on [-2, 3] x [-1.5, 2]; grids of 500^2 and 1,000^2 points agree to 1e-15.
MOON_ENTROPY = 1.007584834846448
#: Points whose density is found at once.
CHUNK = 10_000


@dataclass(frozen=True, eq=False, repr=False)
class Toy:
    """Points drawn from a density in the plane, and the density itself.

    Attributes
    ----------
    name : str
    X : (n, 2) array
        The points.
    y : (n,) array of int
        The part of the density (the gaussian, the square, the moon) that each was drawn from.
    entropy : float
        Of the density, in nats: what the mean of ``-log_prob`` comes to for the true density, and
        no model's can be less.
    true_log_prob : callable
        (n, 2) points to their (n,) log densities; :meth:`log_prob` checks the shape first.
    """

    name: str
    X: Array
    y: Array
    entropy: float
    true_log_prob: Callable[[Array], Array]

    def log_prob(self, X: Any) -> Array:
        """Log of the true density at points (n, 2), in nats: (n,)."""
        points = np.asarray(X, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(
                f"Toy.log_prob: X has shape {points.shape}; expected points in the plane, (n, 2)"
            )
        parts = np.array_split(points, -(-len(points) // CHUNK) or 1)
        return np.concatenate([self.true_log_prob(part) for part in parts])

    def __repr__(self) -> str:
        return f"Toy({self.name!r}, {len(self.X)} points, entropy={self.entropy:.3f} nats)"


def make_eight_gaussians(n: int = 2000, random_state: int | None = 0) -> Toy:
    """Draw from eight normals of deviation 0.2, evenly on a circle of radius 4.

    Parameters
    ----------
    n : int
        Number of points, at least 1.
    random_state : int or None

    Returns
    -------
    Toy

    Raises
    ------
    ValueError
        If there is no point.

    Examples
    --------
    >>> toy = make_eight_gaussians(5000)
    >>> toy
    Toy('eight_gaussians', 5000 points, entropy=1.698 nats)
    >>> round(float(-toy.log_prob(toy.X).mean()), 1)
    1.7
    """
    rng = _generator("make_eight_gaussians", n, random_state)
    angle = 2.0 * np.pi * np.arange(8) / 8
    centres = RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    y = rng.integers(8, size=n)

    def log_prob(points: Array) -> Array:
        return _normal_mixture(points, centres, np.full(8, 1.0 / 8), SD)

    return Toy(
        name="eight_gaussians",
        X=centres[y] + SD * rng.normal(size=(n, 2)),
        y=y,
        # Neighbours are 15 deviations apart: that of the choice, and that of one normal.
        entropy=float(np.log(8.0) + np.log(2.0 * np.pi * np.e * SD**2)),
        true_log_prob=log_prob,
    )


def make_checkerboard(n: int = 2000, random_state: int | None = 0) -> Toy:
    """Draw uniformly from the eight dark squares, of side 2, of a board on [-4, 4]^2.

    Parameters
    ----------
    n : int
        Number of points, at least 1.
    random_state : int or None

    Returns
    -------
    Toy
        Its `log_prob` is minus infinity off the dark squares.

    Raises
    ------
    ValueError
        If there is no point.

    Examples
    --------
    >>> make_checkerboard(5000)
    Toy('checkerboard', 5000 points, entropy=3.466 nats)
    """
    rng = _generator("make_checkerboard", n, random_state)
    column, row = np.divmod(np.arange(16), 4)
    dark = np.stack([column, row], axis=1)[(column + row) % 2 == 0]
    y = rng.integers(8, size=n)

    def log_prob(points: Array) -> Array:
        on_board = (np.abs(points) < 4.0).all(axis=1)
        with np.errstate(invalid="ignore"):  # infinities are off the board
            is_dark = np.floor(points / 2.0).sum(axis=1) % 2 == 0
        return np.where(on_board & is_dark, -np.log(32.0), -np.inf)

    return Toy(
        name="checkerboard",
        X=2.0 * (dark[y] - 2.0 + rng.uniform(size=(n, 2))),
        y=y,
        entropy=float(np.log(32.0)),
        true_log_prob=log_prob,
    )


def make_two_moons(n: int = 2000, random_state: int | None = 0) -> Toy:
    """Draw two interleaving half circles of radius 1, with noise of deviation 0.1.

    The points are those of scikit-learn's ``make_moons``. It spaces them evenly along the arcs
    before it adds the noise, and the density is that of a uniform place on them.

    Parameters
    ----------
    n : int
        Number of points, at least 2.
    random_state : int or None

    Returns
    -------
    Toy
        Its density is a normal integrated along the arcs, by Gauss and Legendre's quadrature.

    Raises
    ------
    ValueError
        If there is no point for each moon.

    Examples
    --------
    >>> make_two_moons(5000)
    Toy('two_moons', 5000 points, entropy=1.008 nats)
    """
    from sklearn.datasets import make_moons

    if n < 2:
        raise ValueError(f"make_two_moons: n is {n!r}; expected at least 2, one for each moon")
    X, y = make_moons(n, noise=MOON_NOISE, random_state=random_state)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    angle = 0.5 * np.pi * (nodes + 1.0)
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    places = (MOON_CENTRES[:, None] + MOON_SIGNS[:, None] * arc).reshape(-1, 2)
    shares = np.tile(0.25 * weights, 2)

    def log_prob(points: Array) -> Array:
        return _normal_mixture(points, places, shares, MOON_NOISE)

    return Toy(name="two_moons", X=X, y=y, entropy=MOON_ENTROPY, true_log_prob=log_prob)


def _generator(who: str, n: int, random_state: int | None) -> np.random.Generator:
    if n < 1:
        raise ValueError(f"{who}: n is {n!r}; expected at least 1")
    return np.random.default_rng(random_state)


def _normal_mixture(points: Array, centres: Array, weights: Array, sd: float) -> Array:
    """Log density of round normals about some centres: (n,)."""
    squares = ((points[:, None] - centres) ** 2).sum(axis=2)
    nearest = squares.min(axis=1, keepdims=True)
    kernel = np.exp(-0.5 * (squares - nearest) / sd**2) @ weights
    return np.log(kernel) - 0.5 * nearest[:, 0] / sd**2 - np.log(2.0 * np.pi * sd**2)
