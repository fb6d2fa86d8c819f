"""What flows take of the data: which columns are whole numbers, their range, mean, deviation."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ppl_gen.neural.transforms.preprocessing import ScaledSigmoid

Array = Any
Facts = dict[str, Any]

__all__ = ["check_values", "read_facts", "squash_of"]

#: Share of rows with one value of a column above which a density of it has a spike there.
MANY_TIES = 0.2
#: Noise in [0, 1) at which moments of dequantised columns are taken.
MIDDLES = (np.arange(8) + 0.5) / 8.0


def read_facts(
    values: Array,
    row_shape: Sequence[int],
    who: str,
    names: Sequence[Any],
    *,
    bounds: Any,
    discrete: bool,
    standardise: bool,
    smoothed: bool,
) -> Facts:
    """Check the rows to fit, and return what the network takes of them.

    Parameters
    ----------
    values : (n, D) array
    row_shape : sequence of int
    who : str
        Whom messages name.
    names : sequence
        Of the columns.
    bounds : (low, high) or None
    discrete : bool
        Whether columns of whole numbers are dequantised.
    standardise : bool
    smoothed : bool
        Whether there is noise on the rows in training.

    Returns
    -------
    dict
        ``row_shape``; ``bounds`` (2, D) or None; ``discrete`` (D,) bool; ``mean`` and
        ``deviation`` (D,) of the rows as given; ``loc`` and ``scale`` (D,) of where the flow
        lives: of their logits, if bounded, and with the noise that dequantises. In images a
        deviation is that of all pixels together.

    Raises
    ------
    ValueError
        If values are infinite, out of bounds, or not whole where they should be.

    Warns
    -----
    RuntimeWarning
        If a continuous density would have a spike.
    """
    infinite = np.isinf(values).any(axis=0)
    if infinite.any():
        raise ValueError(
            f"{who}.fit: X has infinite entries in {named(names, infinite)}; expected finite "
            "numbers; drop these rows"
        )
    width, images = values.shape[1], len(row_shape) > 1
    deviation = np.where(_constant(values), 0.0, values.std(axis=0))
    spread = _pooled(deviation) if images else deviation
    facts: Facts = {
        "row_shape": [int(size) for size in row_shape],
        "bounds": _bounds(bounds, width, who),
        "discrete": _whole_columns(values, images, who, names)
        if discrete
        else np.zeros(width, dtype=bool),
        "mean": values.mean(axis=0),
        "deviation": np.where(spread > 0.0, spread, 1.0),
    }
    check_values(values, facts, who, names)
    if not smoothed:
        _warn_of_spikes(values[:, ~facts["discrete"]], who, _others(names, facts["discrete"]))
    facts["loc"], facts["scale"] = (
        _moments(values, facts, images) if standardise else (np.zeros(width), np.ones(width))
    )
    return facts


def check_values(values: Array, facts: Facts, who: str, names: Sequence[Any]) -> None:
    """Refuse rows that the density is not of.

    Raises
    ------
    ValueError
        If values are out of bounds, or not whole where those of the fit were.
    """
    if facts["bounds"] is not None:
        low, high = facts["bounds"]
        outside = (values < low) | (values > high)
        if outside.any():
            raise ValueError(
                f"{who}: X has {int(outside.sum())} entries outside of bounds, in "
                f"{named(names, outside.any(axis=0))}; expected low <= x <= high; widen bounds, "
                "or drop these rows"
            )
    broken = (facts["discrete"] & (values != np.round(values))).any(axis=0)
    if broken.any():
        raise ValueError(
            f"{who}: X has numbers that are not whole in {named(names, broken)}; expected whole "
            "numbers, as in fit"
        )


def squash_of(facts: Facts) -> ScaledSigmoid | None:
    """Return what takes the real line to the data's bounds, where there are any."""
    if facts["bounds"] is None:
        return None
    low, high = facts["bounds"]
    # Noise in [0, 1) is added to whole numbers.
    return ScaledSigmoid(torch.tensor(low), torch.tensor(high + facts["discrete"]))


def named(names: Sequence[Any], chosen: Array) -> str:
    """Name the first of the columns that are chosen."""
    some = [repr(names[d]) for d in np.flatnonzero(chosen).tolist()]
    more = f" and {len(some) - 3} more" if len(some) > 3 else ""
    return f"column{'s' if len(some) > 1 else ''} {', '.join(some[:3])}{more}"


def _bounds(bounds: Any, width: int, who: str) -> Array | None:
    if bounds is None:
        return None
    expected = "expected (low, high), finite numbers or arrays of one a column, low below high"
    try:
        low, high = (np.broadcast_to(np.asarray(bound, float), (width,)) for bound in bounds)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{who}: bounds is {bounds!r}; {expected}") from error
    if not (np.isfinite([low, high]).all() and (low < high).all()):
        raise ValueError(f"{who}: bounds is {bounds!r}; {expected}")
    return np.stack([low, high])


def _whole_columns(values: Array, images: bool, who: str, names: Sequence[Any]) -> Array:
    """Which columns are whole numbers: (D,) bool."""
    share = (values == np.round(values)).mean(axis=0)
    # Whole by far, or pixels: numbers that are not are mistakes, not another kind of column.
    mixed = (share < 1.0) & ((share > 0.5) | images)
    if mixed.any() or not (share == 1.0).any():
        at = mixed if mixed.any() else share < 1.0
        raise ValueError(
            f"{who}.fit: X has numbers that are not whole in {named(names, at)}, and discrete is "
            "set; expected whole numbers, such as grey levels or counts (undo a scaling to "
            "[0, 1]), or discrete=None"
        )
    whole: Array = share == 1.0
    return whole


def _warn_of_spikes(values: Array, who: str, names: Sequence[Any]) -> None:
    """Warn of columns whose density would grow without end."""
    smooth = "noise=0.01 (or more) smooths it"
    whole = (values == np.round(values)).all(axis=0)
    constant = _constant(values)
    tied = np.zeros(values.shape[1], dtype=bool)
    if len(values) >= 20:  # of fewer, a value that comes up again is no sign
        ordered, most = np.sort(values, axis=0), int(MANY_TIES * len(values))
        tied = (ordered[most:] == ordered[:-most]).any(axis=0)
    for columns, what, remedy in (
        (constant, "constant", f"leave out what is constant; or {smooth}"),
        (whole & ~constant, "of whole numbers", f"set discrete='uniform'; or {smooth}"),
        (tied & ~whole & ~constant, f"of one value in over {MANY_TIES:.0%} of the rows", smooth),
    ):
        if columns.any():
            verb = "is" if columns.sum() == 1 else "are"
            warnings.warn(
                f"{who}.fit: {named(names, columns)} {verb} {what}: a continuous density has a "
                f"spike there, which says little and grows with training; {remedy}",
                RuntimeWarning,
                stacklevel=6,
            )


def _pooled(deviation: Array) -> Array:
    """One deviation for all pixels: they are in one unit, and some hardly ever vary."""
    return np.full_like(deviation, np.sqrt(np.mean(deviation**2)))


def _moments(values: Array, facts: Facts, images: bool) -> tuple[Array, Array]:
    """Mean and deviation of columns where the flow lives; 1 for the deviation of constants."""
    squash = squash_of(facts)
    noises = MIDDLES if facts["discrete"].any() else MIDDLES[:1]
    means, variances = [], []
    for noise in noises:
        moved = torch.as_tensor(values + np.where(facts["discrete"], noise, 0.0))
        if squash is not None:
            moved, _ = squash.inverse_and_log_det(moved)
        means.append(moved.numpy().mean(axis=0))
        variances.append(moved.numpy().var(axis=0))
    scale = np.sqrt(np.mean(variances, axis=0) + np.var(means, axis=0))
    scale = np.where(_constant(values) & ~facts["discrete"], 0.0, scale)
    scale = _pooled(scale) if images else scale
    return np.mean(means, axis=0), np.where(scale > 0.0, scale, 1.0)


def _constant(values: Array) -> Array:
    """Which columns are of one value, whose deviation may be a rounding error: (D,) bool."""
    constant: Array = values.min(axis=0) == values.max(axis=0)
    return constant


def _others(names: Sequence[Any], chosen: Array) -> list[Any]:
    return [name for name, taken in zip(names, chosen, strict=True) if not taken]
