"""Pictures of images: drawn ones, reconstructions, and what latents do to them."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.plots.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = Any

#: Grey of the lines between images, and colour of pixels that are missing.
LINES, MISSING = "0.8", "tab:red"
#: Deviations of codes that latents are moved by, and draws of the model that tell these.
DEVIATIONS, N_DRAWS = np.arange(-3.0, 4.0), 500


def plot_images(
    images: Any,
    *,
    columns: int | None = None,
    image_shape: Sequence[int] | None = None,
    limits: tuple[float, float] | None = None,
    labels: Sequence[Any] | None = None,
    ax: Any = None,
) -> "Axes":
    """Draw images side by side, in rows, in reading order.

    Parameters
    ----------
    images : (n, H, W), (n, H, W, C) or (n, D) array or frame
        Grey for one channel (low values white), colours for three; NaN is red.
    columns : int, optional
        Images in a row; about as many as rows by default.
    image_shape : (H, W) or (H, W, C), optional
        Of flat rows (n, D); needed where D is no square.
    limits : (float, float), optional
        Values of white and black, or of no and full colour; the least and the greatest by default.
    labels : sequence of length n, optional
        Written into the corners.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    ValueError
        If there are no images, or their shape is not one of those.

    Examples
    --------
    >>> from ppl_gen import plots
    >>> from ppl_gen.datasets import load_digits
    >>> digits = load_digits()
    >>> ax = plots.plot_images(digits.images[:20], columns=10)
    >>> ax.images[0].get_array().shape  # two rows of ten, with lines between them
    (19, 91, 4)
    """
    read = _read_images(images, image_shape, "plot_images")
    n = len(read)
    columns = columns or math.ceil(math.sqrt(n))
    if columns < 1:
        raise ValueError(f"plot_images: columns is {columns}; expected at least 1")
    if labels is not None and len(labels) != n:
        raise ValueError(f"plot_images: there are {len(labels)} labels, but {n} images")
    low, high = _limits(read, limits)
    height, width = read.shape[1:3]
    rows = math.ceil(n / columns)
    size = max(0.6, min(1.0, 10.0 / columns))
    ax = axes_or_new(ax, (size * columns, size * rows * height / width))
    ax.imshow(_mosaic(_coloured(read, low, high), columns), interpolation="nearest")
    for place, label in enumerate(() if labels is None else labels):
        row, column = divmod(place, columns)
        corner = column * (width + 1) + 0.5, row * (height + 1) + 0.5
        ax.text(*corner, str(label), color="C0", fontsize=8, ha="left", va="top")
    ax.set_axis_off()
    return ax  # type: ignore[no-any-return]


def plot_reconstructions(model: Any, X: Any, *, context: Any = None, ax: Any = None) -> "Axes":
    """Draw images above what the model makes of them.

    Parameters
    ----------
    model : VAE or VQVAE
        Fitted; has ``reconstruct``.
    X : images of (n, H, W) or (n, H, W, C), or rows of (n, D), as in fit
    context : optional
        What a conditional model is given.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    TypeError
        If the model has no codes to reconstruct images from.
    """
    _need(model, "reconstruct", "plot_reconstructions")
    made = model.reconstruct(X, **_given(context))
    shape = getattr(model, "row_shape_", None)
    first, second = (_read_images(x, shape, "plot_reconstructions") for x in (X, made))
    both = np.concatenate([first, second])
    return plot_images(both, columns=len(first), limits=_limits(first, None), ax=ax)


def plot_traversals(
    model: Any,
    x: Any,
    latents: Sequence[int] | None = None,
    *,
    values: Sequence[float] | None = None,
    context: Any = None,
    ax: Any = None,
) -> "Axes":
    """Draw what an image becomes as one latent after the other is given some values.

    Parameters
    ----------
    model : VAE
        Fitted; has ``transform`` and ``inverse_transform``; and ``sample``, unless there are
        `values`.
    x : (1, H, W), (1, H, W, C) or (1, D)
        The image that is started from.
    latents : sequence of int, optional
        Which latents, a row each; all, by default.
    values : sequence of float, optional
        What all are set to, a column each. By default each latent goes from three deviations
        below its mean to three above, those of the codes of 500 draws of the model: the prior
        may be on a scale of its own.
    context : optional
        What a conditional model is given.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    TypeError
        If the model has no latents to decode.
    ValueError
        If there is not one image, or no such latent.
    """
    who = "plot_traversals"
    _need(model, "transform", who)
    _need(model, "inverse_transform", who)
    code = np.asarray(model.transform(x, **_given(context)), dtype=np.float64)
    if len(code) != 1:
        raise ValueError(f"{who}: x has {len(code)} images; expected one, as X[:1]")
    count = code.shape[1]
    chosen = list(range(count)) if latents is None else list(latents)
    wrong = [k for k in chosen if not 0 <= k < count]
    if wrong or not chosen:
        raise ValueError(
            f"{who}: latents is {chosen}; expected some of the {count} latents, counted from 0"
        )
    columns = DEVIATIONS if values is None else np.array(values, dtype=np.float64)
    if values is None:
        mean, deviation = _spread(model, context, who)
        given = mean[chosen, None] + deviation[chosen, None] * columns
    else:
        given = np.tile(columns, (len(chosen), 1))
    codes = np.repeat(code, given.size, axis=0)
    codes[np.arange(len(codes)), np.repeat(chosen, len(columns))] = given.ravel()
    images = model.inverse_transform(codes, **_given(context))
    shape = getattr(model, "row_shape_", None)
    ax = plot_images(images, columns=len(columns), image_shape=shape, ax=ax)
    height, width = _read_images(images, shape, who).shape[1:3]
    ax.set_axis_on()
    ax.set(frame_on=False, xlabel="deviations" if values is None else "value", ylabel="latent")
    ax.tick_params(length=0.0)
    ax.set_xticks(0.5 * width + (width + 1) * np.arange(len(columns)), [f"{v:g}" for v in columns])
    ax.set_yticks(0.5 * height + (height + 1) * np.arange(len(chosen)), [str(k) for k in chosen])
    return ax  # type: ignore[no-any-return]


def _spread(model: Any, context: Any, who: str) -> tuple[Array, Array]:
    """Mean and deviation of each latent over codes of the model's own draws: (L,) each."""
    _need(model, "sample", who)
    drawn = model.sample(N_DRAWS, random_state=0, **_given(context))
    codes = np.asarray(model.transform(drawn, **_given(context)), dtype=np.float64)
    return codes.mean(axis=0), codes.std(axis=0)


def _given(context: Any) -> dict[str, Any]:
    return {} if context is None else {"context": context}


def _need(model: Any, method: str, who: str) -> None:
    if not hasattr(model, method):
        raise TypeError(
            f"{who}: {type(model).__name__} has no {method}; expected a model with latents, such "
            "as VAE"
        )


def _read_images(images: Any, image_shape: Sequence[int] | None, who: str) -> Array:
    """Read images as (n, H, W, C) floats."""
    values = np.asarray(images, dtype=np.float64)
    if values.ndim == 2 and values.shape[1]:
        side = math.isqrt(values.shape[1])
        shape = (side, side) if image_shape is None or len(image_shape) < 2 else tuple(image_shape)
        if math.prod(shape) != values.shape[1]:
            raise ValueError(
                f"{who}: rows of {values.shape[1]} entries are no images of shape {shape}; give "
                "image_shape, whose product they are"
            )
        values = values.reshape(-1, *shape)
    values = values[..., None] if values.ndim == 3 else values
    if values.ndim != 4 or 0 in values.shape or values.shape[3] not in (1, 3):
        raise ValueError(
            f"{who}: images have shape {np.shape(images)}; expected (n, H, W), or (n, H, W, C) of "
            "1 or 3 channels, one image or more"
        )
    return values


def _limits(images: Array, limits: tuple[float, float] | None) -> tuple[float, float]:
    if limits is not None:
        if not limits[0] < limits[1]:
            raise ValueError(f"plot_images: limits are {limits}; expected the lower one first")
        return limits
    seen = images[np.isfinite(images)]
    return (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)


def _coloured(images: Array, low: float, high: float) -> Array:
    """Colours of images: (n, H, W, C) -> (n, H, W, 4)."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba

    scaled = np.clip((images - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    missing = np.isnan(scaled).any(axis=3)
    if scaled.shape[3] == 1:
        found = np.asarray(colormaps["gray_r"](scaled[..., 0]))
    else:
        found = np.concatenate([scaled, np.ones_like(scaled[..., :1])], axis=3)
    found[missing] = to_rgba(MISSING)
    return found


def _mosaic(images: Array, columns: int) -> Array:
    """Images in rows, with a line of a pixel around each: (n, H, W, 4) -> (H', W', 4)."""
    from matplotlib.colors import to_rgba

    n, height, width, _ = images.shape
    rows = math.ceil(n / columns)
    whole = np.ones((rows * (height + 1) + 1, columns * (width + 1) + 1, 4))
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        top, left = row * (height + 1), column * (width + 1)
        whole[top : top + height + 2, left : left + width + 2] = to_rgba(LINES)
        whole[top + 1 : top + height + 1, left + 1 : left + width + 1] = image
    return whole
