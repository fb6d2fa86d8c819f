"""What both implementations of NUTS take and give."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["INITS", "Run", "Settings", "depth_stats"]

Arrays = dict[str, NDArray[Any]]

#: How far around a given start the chains spread, in unconstrained units.
START_RADIUS = 0.1

#: Where chains may start.
INITS = ("uniform", "median", "mean", "prior")


class Settings(NamedTuple):
    """What the kernel needs to know.

    Attributes
    ----------
    warmup : int
        Steps that adapt.
    target_accept : float
    dense_mass : bool
    max_tree_depth : int
    init : str
        One of `INITS`.
    start : dict of ndarray or None
        Values of sites to start near, in place of `init`.
    """

    warmup: int
    target_accept: float
    dense_mass: bool
    max_tree_depth: int
    init: str
    start: Mapping[str, Any] | None = None


class Run(NamedTuple):
    """What came of the chains.

    Attributes
    ----------
    draws : dict of ndarray, shape (chains, draws, ...)
        Fewer draws than asked for if interrupted.
    sample_stats : dict of ndarray, shape (chains, draws)
        Under ArviZ's names.
    interrupted : bool
    compile_seconds : float
    """

    draws: Arrays
    sample_stats: Arrays
    interrupted: bool
    compile_seconds: float


def depth_stats(n_steps: NDArray[Any], max_tree_depth: int) -> Arrays:
    """Return tree depths from numbers of leapfrog steps: a tree of depth d has up to 2^d - 1.

    Examples
    --------
    >>> import numpy as np
    >>> stats = depth_stats(np.array([[1, 3, 5, 7]]), max_tree_depth=3)
    >>> stats["tree_depth"].tolist(), stats["reached_max_treedepth"].tolist()
    ([[1, 2, 3, 3]], [[False, False, False, True]])
    """
    depth = np.floor(np.log2(np.maximum(n_steps, 1))).astype(np.int64) + 1
    return {"tree_depth": depth, "reached_max_treedepth": n_steps >= 2**max_tree_depth - 1}
