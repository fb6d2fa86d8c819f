"""k-means, as a start for mixtures."""

from typing import Any

import numpy as np

Array = Any

#: Rows that seeding and Lloyd's steps look at; a start needs no more.
SEED_ROWS = 20_000


def kmeans(
    features: Array,
    n_clusters: int,
    rng: np.random.Generator,
    weights: Array | None = None,
    max_iter: int = 30,
) -> Array:
    """Assign rows to clusters by k-means++ seeding and Lloyd's steps.

    Parameters
    ----------
    features : (n, F)
        Rows without NaN.
    n_clusters : int
    rng : numpy.random.Generator
    weights : (n,) or None
    max_iter : int

    Returns
    -------
    (n,) labels

    Notes
    -----
    Arthur & Vassilvitskii, SODA 2007; greedy seeding with 2 + log K candidates a step. The
    result does not depend on the order of the rows, and a weight of two is a row twice.

    Examples
    --------
    >>> x = np.array([[0.0], [0.1], [5.0], [5.1]])
    >>> labels = kmeans(x, 2, np.random.default_rng(0))
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """
    chosen = np.arange(len(features))
    if len(features) > SEED_ROWS:
        chosen = rng.choice(len(features), SEED_ROWS, replace=False)
    # Sorted rows, so that a quantile of the weights is the same row in any order.
    chosen = chosen[np.lexsort(features[chosen].T)]
    rows = features[chosen]
    mass = np.ones(len(rows)) if weights is None else weights[chosen]
    centres = seed_plus_plus(rows, mass, n_clusters, rng)
    labels = nearest(rows, centres)
    for _ in range(max_iter):
        hot = (labels[:, None] == np.arange(n_clusters)) * mass[:, None]
        counts = hot.sum(axis=0)
        sums = hot.T @ rows
        # An emptied cluster keeps its centre.
        safe = np.where(counts > 0.0, counts, 1.0)[:, None]
        centres = np.where(counts[:, None] > 0.0, sums / safe, centres)
        update = nearest(rows, centres)
        if (update == labels).all():
            break
        labels = update
    return nearest(features, centres)


def seed_plus_plus(rows: Array, mass: Array, n_clusters: int, rng: np.random.Generator) -> Array:
    """Choose centres (K, F) among sorted rows, each far from those before it."""
    closest = np.ones(len(rows))
    n_candidates = 1
    centres = np.empty((n_clusters, rows.shape[1]))
    for k in range(n_clusters):
        chance = np.cumsum(closest * mass)
        if not chance[-1] > 0.0:  # every row is a centre already
            chance = np.cumsum(mass)
        quantiles = rng.random(n_candidates) * chance[-1]
        candidates = np.minimum(np.searchsorted(chance, quantiles, side="right"), len(rows) - 1)
        distances = ((rows[None] - rows[candidates][:, None]) ** 2).sum(axis=2)
        improved = distances if k == 0 else np.minimum(closest, distances)
        best = int((improved @ mass).argmin())
        centres[k] = rows[candidates[best]]
        closest = improved[best]
        n_candidates = 2 + int(np.log(n_clusters))
    return centres


def nearest(rows: Array, centres: Array) -> Array:
    """Index of the nearest centre of every row: (n,)."""
    # |x|^2 does not change which centre is nearest.
    return ((centres**2).sum(axis=1) - 2.0 * rows @ centres.T).argmin(axis=1)
