"""Where pictures are drawn, and what those of sequences have in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any

#: Up to so many steps, each has a dot.
DOTS = 300


def axes_or_new(ax: Any, figsize: tuple[float, float] = (6.0, 4.5)) -> Any:
    """Return the axes given, or new ones of a size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize, layout="constrained")[1]


def colour_of(state: int) -> str:
    """Colour of a state, the same in every picture."""
    return f"C{state % 10}"


def names_of(names: Sequence[str] | None, n_states: int, who: str) -> list[str]:
    """Names of the states: those given, or their numbers."""
    if names is None:
        return [str(state) for state in range(n_states)]
    if len(names) != n_states:
        raise ValueError(f"{who}: there are {len(names)} names, but {n_states} states")
    return [str(name) for name in names]


def positions(times: Any, n_steps: int, who: str) -> tuple[Array, bool]:
    """Places of steps on the x-axis, and whether they are dates."""
    from matplotlib import dates

    if times is None:
        return np.arange(float(n_steps)), False
    times = times.to_timestamp() if hasattr(times, "to_timestamp") else times
    given = np.asarray(times)
    if given.shape != (n_steps,):
        raise ValueError(f"{who}: times has shape {given.shape}; expected one a step, {(n_steps,)}")
    if given.dtype.kind == "M":
        return np.asarray(dates.date2num(given)), True  # type: ignore[no-untyped-call]
    if given.dtype.kind not in "iuf":
        raise ValueError(f"{who}: times are {given.dtype}; expected numbers or dates")
    return given.astype(np.float64), False
