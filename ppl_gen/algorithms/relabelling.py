"""Undo label switching: bring the components of every draw into one common order.

The posterior of a mixture is the same for every order of its components, so the components of
two draws need not mean the same thing. Stephens (2000) chooses, draw by draw, the order that is
most probable under a running summary of all the draws, and updates the summary until neither
changes; the best order of one draw is a linear assignment problem, solved exactly.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

__all__ = ["Relabelling", "apply_permutations", "relabel"]

#: The variance of a feature is held above this share of its variance over all components: a
#: component whose feature is nearly constant must not decide every assignment alone.
VARIANCE_FLOOR = 1e-3


class Relabelling(NamedTuple):
    """The order found for every draw.

    Attributes
    ----------
    permutations : ndarray of int, shape (draws, components)
        Component ``permutations[s, k]`` of draw ``s`` becomes component ``k``.
    cost : float
        Total cost at the end: minus the log density of all relabelled draws under the pivot.
    n_iter : int
        Rounds of assignment made.
    converged : bool
        Whether the last round changed no draw.
    """

    permutations: NDArray[np.intp]
    cost: float
    n_iter: int
    converged: bool


def assignment_costs(
    features: NDArray[np.float64], mean: NDArray[np.float64], variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cost of calling component ``j`` of a draw component ``k``: minus a normal log density.

    Parameters
    ----------
    features : ndarray, shape (draws, components, features)
    mean, variance : ndarray, shape (components, features)
        The pivot.

    Returns
    -------
    ndarray, shape (draws, components k, components j)
    """
    precision = 1.0 / variance
    # sum_f (x_jf - m_kf)^2 / v_kf, expanded so that no (draws, K, K, features) array is made
    quadratic = (
        np.einsum("sjf,kf->skj", features**2, precision)
        - 2.0 * np.einsum("sjf,kf->skj", features, mean * precision)
        + np.sum(mean**2 * precision, axis=1)[:, None]
    )
    return np.asarray(0.5 * (quadratic + np.sum(np.log(variance), axis=1)[:, None]))


def relabel(
    features: NDArray[np.float64], *, pivot: int | None = None, max_iter: int = 100
) -> Relabelling:
    """Permute the components of each draw to agree with a pivot, and the pivot with the draws.

    Both steps lower the same total cost, so the rounds end. The pivot is first one draw, then
    the mean and variance of each component over the draws as labelled so far (Stephens 2000,
    section 4.1, with a normal summary; the start is the pivotal draw of Marin et al. 2005).

    Parameters
    ----------
    features : ndarray, shape (draws, components, features)
        What tells components apart: every exchangeable variable, flattened.
    pivot : int, optional
        The draw to start from, best one of high posterior density. Default: the draw whose
        sorted features lie closest to those of all draws.
    max_iter : int
        Bound on the number of rounds.

    Returns
    -------
    Relabelling

    Raises
    ------
    ValueError
        If `features` is not three-dimensional or has values that are not finite.

    References
    ----------
    Stephens, M. (2000). Dealing with label switching in mixture models. JRSS B 62, 795-809.
    Marin, J.-M., Mengersen, K. and Robert, C. P. (2005). Bayesian modelling and inference on
    mixtures of distributions. Handbook of Statistics 25.
    Papastamoulis, P. (2016). label.switching. Journal of Statistical Software 69.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen.algorithms.relabelling import relabel
    >>> draws = np.array([[[0.0], [5.0]], [[5.1], [0.1]], [[-0.1], [4.9]]])
    >>> relabel(draws).permutations.tolist()
    [[0, 1], [1, 0], [0, 1]]
    """
    if features.ndim != 3:
        raise ValueError(
            f"relabel: features have shape {features.shape}; expected (draws, components, features)"
        )
    if not np.all(np.isfinite(features)):
        raise ValueError("relabel: features hold NaN or infinity; remove such draws first")
    draws, components, width = features.shape
    identity = np.broadcast_to(np.arange(components), (draws, components)).copy()
    if draws == 0 or components < 2 or width == 0:
        return Relabelling(identity, 0.0, 0, True)

    # A feature's scale carries no information about labels: standardise over all components.
    flat = features.reshape(-1, width)
    spread = flat.std(axis=0)
    scaled = (features - flat.mean(axis=0)) / np.where(spread > 0, spread, 1.0)

    mean = scaled[_central_draw(scaled) if pivot is None else pivot]
    variance = np.ones_like(mean)
    permutations, cost = identity, np.inf
    for iteration in range(1, max_iter + 1):
        costs = assignment_costs(scaled, mean, variance)
        assigned = np.stack([linear_sum_assignment(each)[1] for each in costs])
        cost = float(np.take_along_axis(costs, assigned[:, :, None], axis=2).sum())
        if iteration > 1 and np.array_equal(assigned, permutations):
            return Relabelling(permutations, cost, iteration, True)
        permutations = assigned
        ordered = np.take_along_axis(scaled, permutations[:, :, None], axis=1)
        mean = ordered.mean(axis=0)
        variance = np.maximum(ordered.var(axis=0), VARIANCE_FLOOR)
    return Relabelling(permutations, cost, max_iter, False)


def _central_draw(scaled: NDArray[np.float64]) -> int:
    """Index of the draw closest to the others, whatever their labels."""
    ordered = np.sort(scaled, axis=1)  # invariant to the labels of a draw
    return int(np.argmin(np.sum((ordered - np.median(ordered, axis=0)) ** 2, axis=(1, 2))))


def apply_permutations(
    values: NDArray[np.generic], permutations: NDArray[np.intp], axis: int
) -> NDArray[np.generic]:
    """Reorder one axis of every draw.

    Parameters
    ----------
    values : ndarray, shape (draws, ...)
    permutations : ndarray of int, shape (draws, components)
    axis : int
        The axis of `values` with the components; not 0.

    Returns
    -------
    ndarray
        Same shape: entry ``k`` along `axis` of draw ``s`` is old entry ``permutations[s, k]``.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen.algorithms.relabelling import apply_permutations
    >>> apply_permutations(np.array([[10, 20], [30, 40]]), np.array([[0, 1], [1, 0]]), axis=1)
    array([[10, 20],
           [40, 30]])
    """
    shape = [1] * values.ndim
    shape[0], shape[axis] = permutations.shape
    return np.take_along_axis(values, permutations.reshape(shape), axis=axis)
