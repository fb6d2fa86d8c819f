"""The networks of normalizing flows, from the settings of their estimator."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_gen.models.flow.reading import squash_of
from ppl_gen.neural.density import DensityModule
from ppl_gen.neural.flow import Flow
from ppl_gen.neural.transforms import TRANSFORMS
from ppl_gen.neural.transforms.base import FlowTransform
from ppl_gen.neural.transforms.glow import Glow
from ppl_gen.neural.transforms.guides import GUIDE_ONLY
from ppl_gen.neural.transforms.preprocessing import (
    Dequantised,
    LocationScale,
    Smoothed,
    VariationalNoise,
)

__all__ = ["FLOWS", "build", "check_settings", "flow_of", "initialise"]

#: Flows that have a density of data.
FLOWS = (*TRANSFORMS, "glow")
_COUPLINGS = ("realnvp", "nsf_coupling")
_SPLINES = ("nsf", "nsf_coupling")
#: Rows that Glow's activation normalisation starts from.
_FIRST_ROWS = 1024


def check_settings(model: Any, who: str, row_shape: tuple[int, ...]) -> None:
    """Refuse settings out of range, before anything is trained.

    Parameters
    ----------
    model : NormalizingFlow
    who : str
        Whom errors name.
    row_shape : tuple of int

    Raises
    ------
    ValueError
        Which setting, what was expected, and what to do.
    """
    if isinstance(model.flow, str) and model.flow in GUIDE_ONLY:
        raise ValueError(
            f"{who}: flow={model.flow!r} has no closed-form inverse, so it has no density of data, "
            "only of its own draws, for guides (ppl_gen.neural.transforms.guides); take 'nsf', "
            "'nsf_coupling', 'maf' or 'realnvp'"
        )
    for name, choices in (("flow", FLOWS), ("discrete", (None, "uniform", "variational"))):
        if getattr(model, name) not in choices:
            raise ValueError(
                f"{who}: {name} is {getattr(model, name)!r}; expected one of "
                f"{', '.join(map(repr, choices))}"
            )
    coupled = model.flow in _COUPLINGS
    layers = model.hidden_layer_sizes
    if isinstance(layers, str) or not np.iterable(layers):
        raise ValueError(
            f"{who}: hidden_layer_sizes is {layers!r}; expected a sequence, such as (64, 64)"
        )
    sizes = [("n_bins", model.n_bins, 2), ("n_importance", model.n_importance, 1)]
    sizes += [("hidden_layer_sizes", size, 1) for size in layers]
    if model.n_transforms is not None:
        sizes.append(("n_transforms", model.n_transforms, 2 if coupled else 1))
    for name, size, least in sizes:
        whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
        if not whole or size < least:
            raise ValueError(
                f"{who}: {name} is {getattr(model, name)!r}; expected whole numbers of at least "
                f"{least}"
            )
    if not (isinstance(model.noise, int | float | np.number) and 0.0 <= model.noise < float("inf")):
        raise ValueError(f"{who}: noise is {model.noise!r}; expected 0 or a positive number")
    if model.noise and model.discrete is not None:
        raise ValueError(
            f"{who}: noise is {model.noise}, and discrete={model.discrete!r} adds noise of its "
            "own; expected one of them"
        )
    if coupled and row_shape == (1,):
        raise ValueError(
            f"{who}.fit: flow={model.flow!r} maps some columns given the others, and X has but "
            "one; take 'nsf' or 'maf'"
        )
    if model.flow == "glow" and len(row_shape) < 2:
        raise ValueError(
            f"{who}.fit: flow='glow' is for images, and X has rows of {row_shape[0]} numbers; give "
            "X as (n, H, W) or (n, H, W, C), or set image_shape"
        )
    if model.flow == "glow" and not model.hidden_layer_sizes:
        raise ValueError(
            f"{who}: hidden_layer_sizes is empty; flow='glow' takes its channels from it"
        )


def build(model: Any, facts: dict[str, Any], context_width: int) -> DensityModule:
    """Build the density: the flow, what brings data to it, and the noise that it is fitted with.

    Parameters
    ----------
    model : NormalizingFlow
    facts : dict
        See `ppl_gen.models.flow.reading.read_facts`.
    context_width : int
    """
    loc, scale = torch.tensor(facts["loc"]), torch.tensor(facts["scale"])
    width = len(loc)
    preprocessing: list[FlowTransform] = [LocationScale(loc, scale)] if model.standardise else []
    squash = squash_of(facts)
    if squash is not None:
        preprocessing.append(squash)
    transform = _transform(model, facts["row_shape"], width, context_width)
    flow = Flow(transform, width, preprocessing)
    low, high = (None, None) if facts["bounds"] is None else torch.tensor(facts["bounds"])
    deviation = torch.tensor(facts["deviation"])
    if model.noise:
        return Smoothed(flow, model.noise * deviation, low, high)
    if model.discrete is None:
        return flow
    noise = None
    if model.discrete == "variational":
        hidden = tuple(model.hidden_layer_sizes)[:1]
        mean = torch.tensor(facts["mean"])
        noise = VariationalNoise(width, mean, deviation, hidden, context_width)
    mask = torch.tensor(facts["discrete"])
    return Dequantised(flow, mask, noise, model.n_importance, low, high)


def flow_of(density: DensityModule) -> Flow:
    """Return the flow within a density that :func:`build` made."""
    found: Any = density if isinstance(density, Flow) else density.density
    return found  # type: ignore[no-any-return]


@torch.no_grad()
def initialise(density: DensityModule, x: Tensor, context: Tensor | None) -> None:
    """Set what starts from the data: Glow's activation normalisation.

    Parameters
    ----------
    density : DensityModule
        As :func:`build` made it.
    x : (n, D) tensor
        As given; some of them are taken.
    context : (n, C) tensor or None
    """
    flow = flow_of(density)
    if not isinstance(flow.transform, Glow):
        return
    some = torch.randperm(len(x), device=x.device)[:_FIRST_ROWS]
    x = x[some]
    if isinstance(density, Dequantised):
        x = torch.where(density.discrete, x + torch.rand_like(x), x)
    for step in reversed(flow.preprocessing):
        x, _ = step.inverse_and_log_det(x)
    flow.transform.initialise(x, None if context is None else context[some])


def _transform(model: Any, row_shape: list[int], width: int, context_width: int) -> FlowTransform:
    count = {} if model.n_transforms is None else {"n_transforms": model.n_transforms}
    hidden = tuple(model.hidden_layer_sizes)
    if model.flow == "glow":
        shape = tuple(row_shape)
        steps = {"n_steps": model.n_transforms} if count else {}
        levels = 2 if shape[0] % 4 == 0 and shape[1] % 4 == 0 else 1
        return Glow(shape, levels, hidden_channels=hidden[0], context_width=context_width, **steps)
    bins = {"bins": model.n_bins} if model.flow in _SPLINES else {}
    make = TRANSFORMS[model.flow]
    return make(width, context_width=context_width, hidden=hidden, **count, **bins)
