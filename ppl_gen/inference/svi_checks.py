"""What is checked of SVI's settings, the program and the guide before any step is taken."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ppl_gen.inference.svi_core import Fit, Objective
from ppl_gen.inference.svi_networks import OBJECTIVES
from ppl_gen.language import Program

GUIDES = ("mean_field", "full_rank", "low_rank", "laplace", "map")
OPTIMIZERS = ("adam", "clipped_adam", "adagrad", "rmsprop", "sgd")

#: Guides over one vector of all latents, which therefore cannot see a part of them.
_JOINT = ("full_rank", "low_rank", "laplace")


def check_settings(method: Any) -> None:
    """Raise ValueError if a setting of SVI is out of range."""
    for setting in ("steps", "particles", "draws", "batch_size"):
        value = getattr(method, setting)
        if value is None and setting in ("steps", "batch_size"):
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"SVI: {setting} must be a whole number of at least 1, got {value!r}")
    rate = method.learning_rate
    if rate is not None and not (rate > 0 and math.isfinite(rate)):
        raise ValueError(
            f"SVI: learning_rate must be positive and finite, got {rate!r}; 0.01 suits most models"
        )
    if method.tol is not None and not method.tol > 0:
        raise ValueError(f"SVI: tol must be positive, got {method.tol!r}; None takes all steps")
    if isinstance(method.guide, str) and method.guide not in GUIDES:
        raise ValueError(
            f"SVI: unknown guide {method.guide!r}; expected one of {', '.join(GUIDES)}, or a "
            "program or function of your own"
        )
    if method.objective not in OBJECTIVES:
        raise ValueError(
            f"SVI: unknown objective {method.objective!r}; expected one of {', '.join(OBJECTIVES)}"
        )


def check_for_programs(method: Any) -> None:
    """Raise ValueError if a setting means nothing to a program."""
    if isinstance(method.optimizer, str) and method.optimizer not in OPTIMIZERS:
        raise ValueError(
            f"SVI: unknown optimizer {method.optimizer!r}; expected one of "
            f"{', '.join(OPTIMIZERS)}, or an optimiser of the engine"
        )
    if method.training is not None or method.objective != "elbo":
        raise ValueError(
            "SVI: training and objective are for networks that bring their own guide; "
            "expected steps, learning_rate and batch_size for a program"
        )


def objectives(
    method: Any,
    model: Program | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Objective, Objective]:
    """Arguments for the steps, and for the whole data."""
    whole = Objective(args, kwargs)
    if method.batch_size is None:
        return whole, whole
    parameters = inspect.signature(model).parameters
    if "batch_size" not in parameters:
        raise ValueError(
            f"SVI: batch_size={method.batch_size} needs a program that takes minibatches: an "
            "argument named batch_size, given to plate(..., subsample_size=batch_size); this "
            f"one has the arguments {', '.join(parameters) or 'none'}; add it, or leave "
            "batch_size at None"
        )
    if inspect.signature(model).bind(*args, **kwargs).arguments.get("batch_size") is not None:
        raise ValueError(
            "SVI: batch_size is given to the method and to the program; give it to SVI alone"
        )
    return (
        Objective(args, {**kwargs, "batch_size": method.batch_size}),
        Objective(args, {**kwargs, "batch_size": None}),
    )


def check_sites(method: Any, fit: Fit) -> None:
    """Raise ValueError if program, guide and settings do not fit each other."""
    latents = fit.latents()
    if latents.countable:
        raise ValueError(
            f"SVI: the latent {', '.join(latents.countable)} takes infinitely many values and "
            "cannot be summed out; observe it, or sum over it inside a distribution"
        )
    if method.batch_size is not None and not latents.subsamples:
        raise ValueError(
            f"SVI: batch_size={method.batch_size} had no effect: no plate of the program became "
            "smaller; give the argument to plate(..., subsample_size=batch_size)"
        )
    if isinstance(method.guide, str):
        if latents.subsamples and method.guide in _JOINT and (latents.local or latents.enumerable):
            raise ValueError(
                f"SVI: guide={method.guide!r} takes all latents together and cannot follow the "
                "latents of a minibatch; take guide='mean_field', or all rows"
            )
        return
    sites = fit.guide_sites()
    if discrete := sorted(name for name, is_discrete in sites.items() if is_discrete):
        raise ValueError(
            f"SVI: the guide samples the discrete {', '.join(discrete)}, through which no "
            "gradient goes; leave it out of the guide, and it is summed out"
        )
    if missing := sorted(set(latents.continuous) - set(sites)):
        raise ValueError(
            f"SVI: the guide does not sample {', '.join(missing)}, which the program leaves "
            "unobserved; sample each in the guide under the same name, or observe it"
        )
