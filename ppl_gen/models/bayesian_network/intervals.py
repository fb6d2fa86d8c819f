"""How sure a probability is, over the draws of a posterior."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Array = Any


def interval_frame(joint: Array, index: Any, interval: float) -> "pd.DataFrame":
    """Return probabilities with the bounds of their central posterior intervals.

    Parameters
    ----------
    joint : (S, *sizes)
        Joint probability of states and evidence, by draw: these weigh by the evidence's.
    index : pandas.Index
    interval : float
        Share of the posterior that is covered.
    """
    import pandas as pd

    flat = joint.reshape(len(joint), -1)
    total = flat.sum(axis=1, keepdims=True)
    table = flat.sum(axis=0) / flat.sum()
    each = flat / total
    order = np.argsort(each, axis=0)
    weights = np.take_along_axis(np.broadcast_to(total, each.shape), order, axis=0)
    heights = (np.cumsum(weights, axis=0) - 0.5 * weights) / weights.sum(axis=0)
    ranked = np.take_along_axis(each, order, axis=0)
    tails = (0.5 * (1.0 - interval), 0.5 * (1.0 + interval))
    bounds = [
        [np.interp(tail, heights[:, cell], ranked[:, cell]) for cell in range(len(table))]
        for tail in tails
    ]
    return pd.DataFrame({"probability": table, "lower": bounds[0], "upper": bounds[1]}, index=index)
