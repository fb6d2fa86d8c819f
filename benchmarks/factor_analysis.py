"""Factor analysis of a tall table, against scikit-learn at the same likelihood."""

from collections.abc import Iterator

import numpy as np
from sklearn import decomposition

from benchmarks.measure import Row, in_turn
from ppl_gen import FactorAnalysis

N_ROWS, N_COLUMNS, N_FACTORS = 20_000, 50, 5


def rows() -> Iterator[Row]:
    """Measure a fit to convergence: scikit-learn's at a tolerance that gives the same digits."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(N_COLUMNS, N_FACTORS))
    noise = rng.uniform(0.2, 3.0, size=N_COLUMNS)
    x = rng.normal(size=(N_ROWS, N_FACTORS)) @ loadings.T
    x += np.sqrt(noise) * rng.normal(size=x.shape)
    # By its exact decompositions, which two threads make faster than the randomised ones.
    theirs = decomposition.FactorAnalysis(N_FACTORS, tol=1e-4, svd_method="lapack")
    fast, slow, mine, peer = in_turn(
        lambda: FactorAnalysis(N_FACTORS).fit(x).score(x),
        lambda: theirs.fit(x).score(x),
        repeats=3,
    )
    yield Row(
        f"factor analysis, {N_ROWS:,} x {N_COLUMNS} x {N_FACTORS}, fit + score",
        "scikit-learn",
        fast,
        slow,
        f"log likelihood a row within {abs(mine - peer):.0e}",
        "1x, goal 5x",
    )
