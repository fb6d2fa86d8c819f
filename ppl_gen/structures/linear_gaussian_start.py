"""What stands in for the hidden states of sequences before there are parameters."""

from typing import Any

import numpy as np

from ppl_gen.sequences import Sequences

Array = Any


def interpolated(sequences: Sequences) -> Array:
    """Fill what is missing by straight lines between values of a sequence: (N, D)."""
    filled = sequences.values.copy()
    means = np.nanmean(filled, axis=0)
    for end, length in zip(sequences.ends, sequences.lengths, strict=True):
        rows = filled[end - length : end]
        for column, mean in zip(rows.T, means, strict=True):
            seen = np.flatnonzero(~np.isnan(column))
            if len(seen) == 0:
                column[:] = mean
            elif len(seen) < length:
                column[:] = np.interp(np.arange(length), seen, column[seen])
    return filled


def components(x: Array, lengths: Array, n_components: int) -> Array:
    """Principal components of a few steps in a row, of unit variance: (N, K)."""
    deviation = x.std(axis=0)
    standard = (x - x.mean(axis=0)) / np.where(deviation > 0.0, deviation, 1.0)
    reach = -(-2 * n_components // x.shape[1])
    ends = np.repeat(np.cumsum(lengths), lengths)
    rows = np.arange(len(x))
    # Windows end with their sequence: the last step stands in for those after it.
    windows = np.hstack([standard[np.minimum(rows + step, ends - 1)] for step in range(reach)])
    _, _, axes = np.linalg.svd(windows - windows.mean(axis=0), full_matrices=False)
    scores = (windows - windows.mean(axis=0)) @ axes[:n_components].T
    spread = scores.std(axis=0)
    scores = scores / np.where(spread > 1e-8, spread, 1.0)
    return np.pad(scores, ((0, 0), (0, n_components - scores.shape[1])))
