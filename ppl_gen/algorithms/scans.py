"""Recursions along the first axis of arrays of any library: one step at a time, or in a tree.

`scan` does T steps one after another. `associative_scan` has all prefixes of an associative
operation in log T rounds, each one batched call: on a GPU, and on NumPy where calls of small
arrays cost more than arithmetic, that is faster.
"""

from collections.abc import Callable
from typing import Any

import array_api_compat

from ppl_gen.algorithms.arrays import array_namespace

Array = Any
Arrays = tuple[Array, ...]


def scan(
    step: Callable[[Arrays, Arrays], tuple[Arrays, Arrays]], carry: Arrays, xs: Arrays
) -> tuple[Arrays, Arrays]:
    """Carry a state along the first axis: ``step(carry, x) -> (carry, y)``.

    Parameters
    ----------
    step : callable
    carry : tuple of arrays
        The state before the first step.
    xs : tuple of arrays (T, ...)

    Returns
    -------
    carry : tuple of arrays
        The state after the last step.
    ys : tuple of arrays (T, ...)

    Examples
    --------
    >>> import numpy as np
    >>> def add(carry, x):
    ...     total = carry[0] + x[0]
    ...     return (total,), (total,)
    >>> _, (sums,) = scan(add, (0.0,), (np.array([1.0, 2.0, 3.0]),))
    >>> sums
    array([1., 3., 6.])
    """
    xp = array_namespace(*xs)
    if array_api_compat.is_jax_namespace(xp):
        from jax import lax

        carried: tuple[Arrays, Arrays] = lax.scan(step, carry, xs)
        return carried
    rows = []
    for t in range(xs[0].shape[0]):
        carry, y = step(carry, tuple(x[t] for x in xs))
        rows.append(y)
    return carry, tuple(xp.stack(column) for column in zip(*rows, strict=True))


def associative_scan(combine: Callable[[Arrays, Arrays], Arrays], elements: Arrays) -> Arrays:
    """Return all prefixes ``e_1, e_1 * e_2, e_1 * e_2 * e_3, ...`` of an associative operation.

    Parameters
    ----------
    combine : callable
        ``combine(a, b)`` of elements in this order, for any number of pairs along the first axis.
    elements : tuple of arrays (T, ...)

    Returns
    -------
    tuple of arrays (T, ...)

    Notes
    -----
    Neighbours are combined, the half as many results scanned, and the places between filled in:
    2 T combinations in 2 log T rounds (Blelloch, IEEE Transactions on Computers 38, 1989).

    Examples
    --------
    >>> import numpy as np
    >>> associative_scan(lambda a, b: (a[0] + b[0],), (np.array([1.0, 2.0, 3.0]),))
    (array([1., 3., 6.]),)
    """
    length = elements[0].shape[0]
    if length < 2:
        return elements
    xp = array_namespace(*elements)
    pairs = length // 2
    firsts = tuple(e[: 2 * pairs : 2] for e in elements)
    odd = associative_scan(combine, combine(firsts, tuple(e[1::2] for e in elements)))
    even = tuple(e[:1] for e in elements)
    if length > 2:
        before = tuple(o[: (length - 1) // 2] for o in odd)
        between = combine(before, tuple(e[2::2] for e in elements))
        even = tuple(xp.concat(both) for both in zip(even, between, strict=True))
    return tuple(_interleave(xp, e, o) for e, o in zip(even, odd, strict=True))


def _interleave(xp: Any, even: Array, odd: Array) -> Array:
    """Put the rows of `odd` after those of `even`, one by one."""
    pairs = odd.shape[0]
    woven = xp.stack([even[:pairs], odd], axis=1)
    woven = xp.reshape(woven, (2 * pairs, *even.shape[1:]))
    return woven if even.shape[0] == pairs else xp.concat([woven, even[pairs:]])
