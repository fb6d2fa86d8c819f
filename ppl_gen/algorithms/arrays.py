"""Which array library computes, and constants that lie beside its arrays."""

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
