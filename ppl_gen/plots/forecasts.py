"""Pictures of what may follow a sequence."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.plots.axes import DOTS, axes_or_new, positions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = Any


def plot_forecast(
    forecast: Any,
    observed: Any = None,
    *,
    column: int = 0,
    times: Any = None,
    levels: tuple[float, ...] = (0.5, 0.9),
    ax: Any = None,
) -> "Axes":
    """Draw the fan of what may follow: the median, and central intervals, of draws.

    Parameters
    ----------
    forecast : (n_draws, steps, D) or (n_draws, steps) array, or Forecast
        Draws of the steps that follow, or what has them as ``draws``.
    observed : (T, D) table, (T,) series or None
        What came before.
    column : int
        Which column to draw.
    times : (T,) or None
        Numbers or dates of the observed steps; the index of a pandas frame, if None, or 0, 1, ...
        The forecast goes on at the last spacing.
    levels : tuple of float
        Probabilities of the intervals.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    ValueError
        If there are no draws of a step, or no such column.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import plots
    >>> draws = np.random.default_rng(0).normal(size=(1000, 12)).cumsum(axis=1)
    >>> ax = plots.plot_forecast(draws, observed=[0.3, -0.2, 0.0])
    >>> ax.lines[-1].get_xdata().tolist()[:3]
    [3.0, 4.0, 5.0]
    """
    draws = np.asarray(getattr(forecast, "draws", forecast), dtype=np.float64)
    draws = draws[:, :, None] if draws.ndim == 2 else draws
    if draws.ndim != 3 or 0 in draws.shape:
        raise ValueError(
            f"plot_forecast: the draws have shape {draws.shape}; expected (n_draws, steps, D) of "
            "one sequence"
        )
    if not 0 <= column < draws.shape[2]:
        raise ValueError(
            f"plot_forecast: column is {column}, but there are {draws.shape[2]}, counted from 0"
        )
    if not all(0.0 < level < 1.0 for level in levels):
        raise ValueError(f"plot_forecast: levels are {levels}; expected probabilities in (0, 1)")
    ax = axes_or_new(ax, (8.0, 3.5))
    x, dated, name, unit = np.array([-1.0]), False, None if times is None else "", ""
    if observed is not None:
        if hasattr(observed, "iloc"):
            table = observed.to_frame() if observed.ndim == 1 else observed
            name = table.index.name if times is None else ""
            times = table.index if times is None else times
            unit = str(table.columns[column])
        seen = np.asarray(observed, dtype=np.float64)
        seen = seen[:, column] if seen.ndim == 2 else seen
        x, dated = positions(times, len(seen), "plot_forecast")
        marker = "." if len(seen) <= DOTS else ""
        ax.plot(x, seen, color="0.15", lw=0.8, marker=marker, ms=3.0, label="observed")
    step = x[-1] - x[-2] if len(x) > 1 else 1.0
    ahead = x[-1] + step * np.arange(1, draws.shape[1] + 1)
    one = draws[:, :, column]
    for place, level in enumerate(sorted(levels, reverse=True)):
        low, high = np.quantile(one, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)
        band = {
            "color": "C0",
            "alpha": min(0.2 + 0.2 * place, 1.0),
            "lw": 0.0,
            "label": f"{level:.0%} interval",
        }
        if len(ahead) > 1:
            ax.fill_between(ahead, low, high, **band)
        else:
            ax.fill_between(ahead[0] + step * np.array([-0.3, 0.3]), low[0], high[0], **band)
    ax.plot(ahead, np.median(one, axis=0), color="C0", marker=".", ms=3.0, label="median")
    if dated:
        ax.xaxis_date()
    label = ("" if dated else "step") if name is None else str(name)
    ax.set(xlabel=label, ylabel=unit)
    # Beside the axes, where it hides nothing.
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return ax  # type: ignore[no-any-return]
