"""Gaussian naive Bayes on a million rows, against scikit-learn."""

from collections.abc import Iterator

import numpy as np
from sklearn.naive_bayes import GaussianNB

from benchmarks.measure import Row, in_turn
from ppl_gen import NaiveBayes

N_ROWS, N_COLUMNS, N_CLASSES = 1_000_000, 50, 10


def rows() -> Iterator[Row]:
    """Measure fit and predict_proba together."""
    rng = np.random.default_rng(0)
    y = rng.integers(N_CLASSES, size=N_ROWS)
    x = rng.normal(size=(N_CLASSES, N_COLUMNS))[y] + rng.normal(size=(N_ROWS, N_COLUMNS))
    fast, slow, mine, peer = in_turn(
        lambda: NaiveBayes().fit(x, y).predict_proba(x),
        lambda: GaussianNB().fit(x, y).predict_proba(x),
        repeats=3,
    )
    yield Row(
        f"naive Bayes, {N_ROWS:,} x {N_COLUMNS} x {N_CLASSES}, fit + predict_proba",
        "scikit-learn",
        fast,
        slow,
        f"probabilities within {abs(mine - peer).max():.0e}",
        "5x, goal 10x",
    )
