"""Which array library computes, and constants that lie beside its arrays."""

import math
from typing import Any

import array_api_compat
import numpy as np

Array = Any


def array_namespace(*arrays: Array) -> Any:
    """Return the array-API namespace of arrays of one library.

    It is ``numpy`` itself for NumPy arrays, where array-api-compat gives a wrapper of its own:
    so ``xp is np`` tells that the route made for NumPy may be taken.

    Raises
    ------
    TypeError
        If the arrays are of different libraries.

    Examples
    --------
    >>> array_namespace(np.ones(2)) is np
    True
    """
    if all(isinstance(array, np.ndarray | np.generic) for array in arrays):
        return np
    return array_api_compat.array_namespace(*arrays)


def beside(x: Array, values: Any) -> Array:
    """Return values as an array of the library, dtype and device of `x`.

    Examples
    --------
    >>> beside(np.ones(2), [1, 2])
    array([1., 2.])
    """
    xp = array_namespace(x)
    return xp.asarray(values, dtype=x.dtype, device=array_api_compat.device(x))


def integers_beside(x: Array, values: Any) -> Array:
    """Return whole numbers as an array of the library and device of `x`.

    Examples
    --------
    >>> integers_beside(np.ones(2), [1, 2])
    array([1, 2])
    """
    xp = array_namespace(x)
    return xp.asarray(values, dtype=xp.int64, device=array_api_compat.device(x))


def chosen(table: Array, codes: Array) -> Array:
    """Return the entries of a table (*sizes, ...) at codes (n, len(sizes)): (n, ...).

    Examples
    --------
    >>> chosen(np.array([[1, 2], [3, 4]]), np.array([[0, 1], [1, 0]]))
    array([2, 3])
    """
    xp = array_namespace(table, codes)
    n_axes = codes.shape[1]
    sizes, rest = table.shape[:n_axes], table.shape[n_axes:]
    if n_axes == 0:
        return xp.broadcast_to(table, (codes.shape[0], *rest))
    place = codes[:, 0]
    for axis in range(1, n_axes):
        place = place * sizes[axis] + codes[:, axis]
    return xp.take(xp.reshape(table, (math.prod(sizes), *rest)), place, axis=0)
