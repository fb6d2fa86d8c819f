"""Conversion of what users pass - to a program, to a distribution - into arrays of an engine."""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_AS_GIVEN_NAMES = """
dim dimension event_dim hidden is_sparse latent latent_node length parents positive
reinterpreted_batch_ndims sample_method size total_count_max validate_args event_shape batch_shape
family
"""
#: Arguments of distributions that are sizes, switches or values of any dtype, not parameters.
_AS_GIVEN = frozenset(_AS_GIVEN_NAMES.split())
#: Integer arguments: arrays are converted, and stay integer.
_INTEGER = frozenset({"labels", "total_count", "v"})
#: Lists of arrays of several shapes, which are converted one by one.
_LISTS = frozenset({"tables"})


@functools.cache
def _parameter_names(constructor: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(constructor).parameters)


def convert_call(
    constructor: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    asarray: Callable[[Any], Any],
    names: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Bind positional arguments to names and convert numbers and arrays.

    Parameters
    ----------
    constructor : callable
        A distribution.
    args, kwargs
        What the program passes.
    asarray : callable
        The engine's conversion.
    names : tuple of str, optional
        Names of the positional arguments, where they are not those of the constructor.
    """
    if names is None:
        names = _parameter_names(constructor)
    if len(args) > len(names):
        raise TypeError(
            f"dist.{getattr(constructor, '__name__', constructor)}: {len(args)} positional "
            f"arguments; expected at most {len(names)}: {', '.join(names)}"
        )
    bound = dict(zip(names, args, strict=False))
    if twice := sorted(set(bound) & set(kwargs)):
        raise TypeError(f"dist: {', '.join(twice)} given twice; expected once")
    converted = {}
    for name, value in {**bound, **kwargs}.items():
        if name in _LISTS:
            converted[name] = tuple(_parameter(item, asarray, integer=False) for item in value)
        elif name in _AS_GIVEN:
            converted[name] = value
        else:
            converted[name] = _parameter(value, asarray, name in _INTEGER)
    return converted


def _parameter(value: Any, asarray: Callable[[Any], Any], integer: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _parameter(leaf, asarray, integer=True) for key, leaf in value.items()}
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value) if integer else asarray(float(value))
    if isinstance(value, (list, tuple)) and not _is_numeric(value):
        return value
    if isinstance(value, (float, np.number, np.ndarray, list, tuple)):
        array = np.asarray(value)
        if not integer and array.dtype.kind in "iub":
            array = array.astype(float)
        return asarray(array)
    return value


def _is_numeric(value: Any) -> bool:
    """Tell a (nested) list of numbers from a list of other things."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(_is_numeric(item) for item in value)
    return isinstance(value, (numbers.Number, np.bool_)) or (
        isinstance(value, np.ndarray) and value.ndim == 0
    )


def convert_argument(name: str, value: Any, asarray: Callable[[Any], Any]) -> Any:
    """Convert an argument of a program.

    NumPy and pandas arrays (whatever has ``__array__``) and lists of numbers become arrays of the
    engine; None, str, bool, int and float stay; dicts, lists and tuples are entered.

    Raises
    ------
    TypeError
        If an array does not hold numbers.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: convert_argument(f"{name}[{key!r}]", v, asarray) for key, v in value.items()}
    if isinstance(value, (list, tuple)) and not _is_numeric(value):
        items = [convert_argument(f"{name}[{i}]", v, asarray) for i, v in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, (list, tuple)):
        return asarray(np.asarray(value))
    if isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] in (
        "pandas",
        "polars",
        "xarray",
    ):
        return asarray(_numeric(name, np.asarray(value)))
    return asarray(value) if hasattr(value, "__array__") else value


def _numeric(name: str, array: Any) -> Any:
    if array.dtype.kind in "iu":
        # Codes of a pandas category are int8: torch does not index by it, takes uint8 for a mask,
        # and sums of small integers wrap.
        return array.astype(np.int64)
    if array.dtype.kind in "bf":
        return array
    if array.dtype.kind == "O":
        try:
            return array.astype(float)
        except (TypeError, ValueError) as error:
            raise TypeError(_not_numbers(name, array)) from error
    raise TypeError(_not_numbers(name, array))


def _not_numbers(name: str, array: Any) -> str:
    return (
        f"program: argument {name} has dtype {array.dtype}; expected numbers; encode categories "
        "as integer codes"
    )
