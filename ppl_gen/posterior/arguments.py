"""What a program is called with: frames to arrays, which argument was observed, replacements."""

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.engines import Site

__all__ = ["as_array", "constants", "from_frames", "observed_arguments", "replaced", "storable"]


def from_frames(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, list[Hashable]]]:
    """Turn DataFrames and Series into arrays, and their named axes into coords.

    The columns label the axes called ``columns.name`` where they have a name, else ``feature``
    and ``column``; rows are labelled where the index has a name.

    Parameters
    ----------
    args, kwargs
        What a program is called with.

    Returns
    -------
    args, kwargs, coords
    """
    coords: dict[str, list[Hashable]] = {}

    def convert(value: Any) -> Any:
        # pandas is not imported for this: what has these two was made by it.
        if not (hasattr(value, "index") and hasattr(value, "to_numpy")):
            return value
        if isinstance(getattr(value.index, "name", None), str):
            coords[value.index.name] = value.index.tolist()
        columns = getattr(value, "columns", None)
        if columns is not None:
            names = [columns.name] if isinstance(columns.name, str) else ["feature", "column"]
            coords.update(dict.fromkeys(names, columns.tolist()))
        return value.to_numpy()

    return (
        tuple(convert(value) for value in args),
        {name: convert(value) for name, value in kwargs.items()},
        coords,
    )


def as_array(value: Any) -> NDArray[Any] | None:
    """Return a numeric array for what can be one, and None for anything else."""
    if value is None or isinstance(value, (str, bytes, bool, Mapping)) or callable(value):
        return None
    if not isinstance(value, (int, float, list, tuple, np.generic)) and not hasattr(
        value, "__array__"
    ):
        return None
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # ragged lists, tensors on another device
        return None
    return array if array.dtype.kind in "biuf" else None


def _bound(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    return inspect.signature(model).bind(*args, **kwargs)


def observed_arguments(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    sites: Mapping[str, Site],
) -> dict[str, str]:
    """Find which argument each observed site takes its value from.

    Parameters
    ----------
    model : callable
    args, kwargs
        What it was called with.
    sites : dict of str to Site
        What the run with these arguments did.

    Returns
    -------
    dict of str to str
        Argument -> site. A site whose value is computed inside the program is not among them.

    Raises
    ------
    ValueError
        If two arguments hold the same values as an observed site and neither has its name.
    """
    arrays = {
        name: array
        for name, value in _bound(model, args, kwargs).arguments.items()
        if (array := as_array(value)) is not None and array.ndim > 0
    }
    found: dict[str, str] = {}
    for site in sites.values():
        if not (site.observed and site.kind == "sample"):
            continue
        same = [name for name, array in arrays.items() if _same(array, site.value)]
        if len(same) > 1:
            if site.name not in same:
                raise ValueError(
                    f"Posterior.predictive: arguments {', '.join(same)} both hold the values of "
                    f"the observed site {site.name}; say which is to be predicted by passing "
                    "None for it"
                )
            same = [site.name]
        found.update(dict.fromkeys(same, site.name))
    return found


def _same(argument: NDArray[Any], value: NDArray[Any]) -> bool:
    if argument.shape != value.shape:
        return False
    return bool(np.array_equal(argument.astype(np.float64), value.astype(np.float64), True))


def replaced(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    new: Mapping[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with some replaced by name.

    Raises
    ------
    ValueError
        If the program has no argument of such a name.
    """
    bound = _bound(model, args, kwargs)
    parameters = bound.signature.parameters
    open_ended = [p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD]
    for name, value in new.items():
        if name in parameters and name not in open_ended:
            bound.arguments[name] = value
        elif open_ended:
            bound.arguments.setdefault(open_ended[0], {})[name] = value
        else:
            raise ValueError(
                f"Posterior.predictive: the program has no argument {name!r}; expected some of "
                f"{', '.join(parameters)}"
            )
    return bound.args, bound.kwargs


def storable(value: Any) -> bool:
    """Tell whether an argument can be saved: numbers, arrays of numbers, strings, None."""
    return value is None or isinstance(value, (bool, str)) or as_array(value) is not None


def constants(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    sites: Mapping[str, Site],
) -> dict[str, NDArray[Any]]:
    """Return the numeric arguments that are not observations."""
    try:
        taken = set(observed_arguments(model, args, kwargs, sites))
    except ValueError:  # two arguments hold the observations: neither is taken out
        taken = set()
    arrays = {
        name: as_array(value)
        for name, value in _bound(model, args, kwargs).arguments.items()
        if name not in taken
    }
    return {name: value for name, value in arrays.items() if value is not None}
