"""Pictures of densities in the plane."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.plots.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = Any


def plot_density(
    model: Any,
    X: Any = None,
    *,
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None,
    n_grid: int = 150,
    log: bool = False,
    context: Any = None,
    ax: Any = None,
) -> "Axes":
    """Draw a density of two columns as shades, with rows on top.

    Parameters
    ----------
    model : GenerativeModel or Toy
        Fitted to two columns; anything with ``log_prob``.
    X : table of (n, 2), optional
        Rows to draw as dots.
    limits : ((left, right), (bottom, top)), optional
        What is shown; by default the rows and a tenth around them.
    n_grid : int
        Places in each direction where the density is taken.
    log : bool
        Draw the log density instead, down to 20 nats below its peak.
    context : optional
        What a conditional density is given.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    ValueError
        If the model or the rows have not two columns, or there are neither rows nor limits.

    Examples
    --------
    >>> from ppl_gen import plots
    >>> from ppl_gen.datasets import make_two_moons
    >>> toy = make_two_moons(500)
    >>> ax = plots.plot_density(toy, toy.X, n_grid=50)
    >>> ax.images[0].get_array().shape, len(ax.collections[0].get_offsets())
    ((50, 50), 500)
    """
    n_columns = getattr(model, "n_features_in_", 2)
    if n_columns != 2:
        raise ValueError(
            f"plot_density: {type(model).__name__} was fitted to {n_columns} columns; expected 2"
        )
    if n_grid < 2:
        raise ValueError(f"plot_density: n_grid is {n_grid}; expected at least 2")
    rows = None if X is None else np.asarray(X, dtype=np.float64)
    if rows is not None and (rows.ndim != 2 or rows.shape[1] != 2):
        raise ValueError(f"plot_density: X has shape {rows.shape}; expected (n, 2)")
    (left, right), (bottom, top) = _limits(rows, limits, getattr(model, "bounds", None))
    x, y = (
        low + (high - low) * (np.arange(n_grid) + 0.5) / n_grid
        for low, high in ((left, right), (bottom, top))
    )
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    shade = _log_density(model, grid, context).reshape(n_grid, n_grid)
    peak = shade.max()
    shade = np.maximum(shade, peak - 20.0) if log else np.exp(shade)
    ax = axes_or_new(ax, (4.5, 4.5))
    ax.imshow(shade, origin="lower", extent=(left, right, bottom, top), aspect="auto")
    if rows is not None:
        ax.scatter(*rows.T, s=3.0, color="white", alpha=0.4, lw=0)
    names = getattr(model, "feature_names_in_", ("", ""))
    ax.set(xlim=(left, right), ylim=(bottom, top), xlabel=str(names[0]), ylabel=str(names[1]))
    return ax  # type: ignore[no-any-return]


def _limits(
    rows: Array, limits: Any, bounds: Any
) -> tuple[tuple[float, float], tuple[float, float]]:
    if limits is not None:
        found = np.asarray(limits, dtype=np.float64)
        if found.shape != (2, 2) or not (found[:, 0] < found[:, 1]).all():
            raise ValueError(
                f"plot_density: limits are {limits!r}; expected ((left, right), (bottom, top))"
            )
    elif rows is None or not len(rows):
        raise ValueError(
            "plot_density: there are no rows to show the density around; give X, or limits"
        )
    else:
        low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
        margin = np.where(high > low, 0.1 * (high - low), 1.0)
        found = np.stack([low - margin, high + margin], axis=1)
        if bounds is not None:  # beyond which the model has no density to ask for
            least, most = (np.broadcast_to(np.asarray(end, np.float64), (2,)) for end in bounds)
            found = np.clip(found, least[:, None], most[:, None])
    (left, right), (bottom, top) = found.tolist()
    return (left, right), (bottom, top)


def _log_density(model: Any, grid: Array, context: Any) -> Array:
    """Log density of places, which have the names that the model was fitted with."""
    if hasattr(model, "feature_names_in_"):
        import pandas as pd

        grid = pd.DataFrame(grid, columns=model.feature_names_in_)
    found = model.log_prob(grid) if context is None else model.log_prob(grid, context=context)
    return np.asarray(found, dtype=np.float64)
