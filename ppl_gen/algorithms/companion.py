"""Autoregressions of any order as state space models of one step."""

from typing import Any

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside
from ppl_gen.algorithms.kalman import LinearGaussian

Array = Any


def companion_form(
    coefficients: Array, intercept: Array, slope: Array | None, noise: Array
) -> LinearGaussian:
    """Write an autoregression as a linear Gaussian state space model without noise of its own.

    ``x_t = intercept + slope t + sum_k coefficients[k] x_(t-1-k) + N(0, noise)``; its state is
    (x_t, ..., x_(t-p+1)), and t too, where there is a slope.

    Parameters
    ----------
    coefficients : (p, D, D)
    intercept : (D,)
    slope : (D,) or None
    noise : (D, D)

    Returns
    -------
    LinearGaussian
        The first state is a placeholder: an autoregression begins where its data do.

    References
    ----------
    Hamilton (1994), Time Series Analysis, equation 10.1.11.

    Examples
    --------
    >>> import numpy as np
    >>> found = companion_form(np.array([[[0.5]], [[0.2]]]), np.ones(1), None, np.ones((1, 1)))
    >>> found.transition
    array([[0.5, 0.2],
           [1. , 0. ]])
    """
    xp = array_namespace(coefficients)
    p, width, _ = coefficients.shape
    known = p * width
    size = known + (slope is not None)
    top = xp.reshape(xp.permute_dims(coefficients, (1, 0, 2)), (width, known))
    transition = xp.concat([top, beside(top, np.eye(known)[: known - width])])
    rest = beside(top, np.zeros(known - width))
    offset = xp.concat([intercept, rest])
    if slope is not None:
        # The clock says t - 1, and the slope wants t.
        column = xp.concat([slope, rest])
        clock = beside(top, np.eye(size)[-1:])
        transition = xp.concat([xp.concat([transition, column[:, None]], axis=1), clock])
        offset = xp.concat([offset + column, beside(top, np.ones(1))])
    pick = beside(top, np.eye(size)[:width])
    spread = pick.T @ noise @ pick
    return LinearGaussian(
        beside(top, np.zeros(size)),
        spread,
        transition,
        offset,
        spread,
        pick,
        beside(top, np.zeros(width)),
        beside(top, np.zeros((width, width))),
    )
