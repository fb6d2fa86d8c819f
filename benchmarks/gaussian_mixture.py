"""Gaussian mixtures by EM: against scikit-learn, and with missing entries."""

import warnings
from collections.abc import Iterator

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Peer

from benchmarks.measure import Row, in_turn
from ppl_gen import EM, GaussianMixture

N_ROWS, N_COLUMNS, N_COMPONENTS, STEPS = 200_000, 20, 10, 20


def data(rng: np.random.Generator) -> np.ndarray:
    """Rows of ten overlapping normals, each with a covariance of its own."""
    means = rng.normal(scale=2.0, size=(N_COMPONENTS, N_COLUMNS))
    roots = rng.normal(size=(N_COMPONENTS, N_COLUMNS, N_COLUMNS)) / np.sqrt(N_COLUMNS)
    labels = rng.integers(N_COMPONENTS, size=N_ROWS)
    noise = rng.normal(size=(N_ROWS, N_COLUMNS))
    return means[labels] + np.einsum("nd,nde->ne", noise, roots[labels] + np.eye(N_COLUMNS))


def rows() -> Iterator[Row]:
    """Measure both jobs."""
    rng = np.random.default_rng(0)
    x = data(rng)
    start = {
        "weights_init": np.full(N_COMPONENTS, 1.0 / N_COMPONENTS),
        "means_init": x[rng.choice(N_ROWS, N_COMPONENTS, replace=False)],
        "precisions_init": np.stack([np.eye(N_COLUMNS)] * N_COMPONENTS),
    }

    def ours(table: np.ndarray = x) -> GaussianMixture:
        method = EM(max_iter=STEPS, tol=0.0)
        return GaussianMixture(N_COMPONENTS, inference=method, random_state=0, **start).fit(table)

    def theirs() -> Peer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = Peer(N_COMPONENTS, max_iter=STEPS, tol=0.0, random_state=0, **start)
            return model.fit(x)

    fast, slow, mine, peer = in_turn(ours, theirs, repeats=3)
    apart = max(
        abs(mine.lower_bound_ - peer.lower_bound_),
        float(abs(mine.means_ - peer.means_).max()),
        float(abs(mine.covariances_ - peer.covariances_).max()),
    )
    shape = f"N={N_ROWS:,} D={N_COLUMNS} K={N_COMPONENTS}, {STEPS} EM steps"
    yield Row(
        f"GMM, full covariance, {shape}",
        "scikit-learn",
        fast,
        slow,
        f"bound and parameters within {apart:.0e}",
        "5x, goal 10x",
    )
    holed = np.where(rng.random(x.shape) < 0.2, np.nan, x)
    with_nan, complete, *_ = in_turn(lambda: ours(holed), ours, repeats=2)
    yield Row(
        "the same with 20% NaN",
        "our complete step",
        with_nan,
        complete,
        "exact marginal likelihood",
        "no slower than 1/15x",
    )
