"""Names for the axes of draws: from plates, from the program's `dims`, or made up."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.engines import Site

__all__ = ["axes_of_arrays", "axes_of_sites", "check_coords", "distinct"]

Axes = dict[str, list[str]]


def axes_of_sites(sites: Mapping[str, Site]) -> Axes:
    """Name the axes of every site's value.

    An axis is named by a plate of its size (outermost first), by the program's ``dims`` for the
    event axes, and ``<site>_dim_<k>`` otherwise, as ArviZ does.

    Parameters
    ----------
    sites : dict of str to Site

    Returns
    -------
    dict of str to list of str
        A name may occur twice in one list: a matrix over pairs of components.
    """
    axes: Axes = {}
    for name, site in sites.items():
        shape = np.shape(site.value)
        events = list(site.dims or ())
        batch = shape[: len(shape) - len(events)] if len(events) <= len(shape) else shape
        events = events[: len(shape) - len(batch)]
        names: list[str] = []
        plates = list(site.plates)
        for k, size in enumerate(batch):
            if plates and plates[0][1] == size:
                names.append(plates.pop(0)[0])
            else:
                names.append(f"{name}_dim_{k}")
        axes[name] = names + events
    return axes


def axes_of_arrays(
    arrays: Mapping[str, NDArray[Any]], known: Mapping[str, Sequence[str]], skip: int
) -> Axes:
    """Names for every axis after the first `skip`: those known, else made-up ones.

    Parameters
    ----------
    arrays : dict of ndarray
    known : dict of sequence of str
        Used where it has one name for each axis; also where it has more, from the left.
    skip : int
        Leading axes without a name here: 2 for chains and draws.
    """
    axes: Axes = {}
    for name, array in arrays.items():
        count = array.ndim - skip
        given = list(known.get(name, ()))[:count]
        axes[name] = given + [f"{name}_dim_{k}" for k in range(len(given), count)]
    return axes


def distinct(
    axes: Mapping[str, Sequence[str]], arrays: Mapping[str, NDArray[Any]], skip: int
) -> Axes:
    """Make names unique within an array, and of one size over all arrays.

    xarray has one size a name: a second use within an array becomes ``name_2``, and a use with
    another size than the first one gets the made-up name of its axis.
    """
    sizes: dict[str, int] = {}
    result: Axes = {}
    for name, array in arrays.items():
        taken: list[str] = []
        for k, (axis, size) in enumerate(zip(axes[name], array.shape[skip:], strict=True)):
            chosen, repeat = axis, 2
            while chosen in taken:
                chosen, repeat = f"{axis}_{repeat}", repeat + 1
            if sizes.setdefault(chosen, size) != size:
                chosen = f"{name}_dim_{k}"
                sizes[chosen] = size
            taken.append(chosen)
        result[name] = taken
    return result


def check_coords(
    coords: Mapping[str, Sequence[Hashable] | NDArray[Any]],
    axes: Mapping[str, Sequence[str]],
    arrays: Mapping[str, NDArray[Any]],
    skip: int,
) -> None:
    """Refuse labels whose number is not that of the axis they are for.

    Raises
    ------
    ValueError
        Naming the axis, its size and the number of labels.
    """
    for name, array in arrays.items():
        for axis, size in zip(axes[name], array.shape[skip:], strict=True):
            if axis in coords and len(coords[axis]) != size:
                raise ValueError(
                    f"Posterior: coords[{axis!r}] has {len(coords[axis])} labels, but {name} has "
                    f"{size} along it; pass one label an entry"
                )
