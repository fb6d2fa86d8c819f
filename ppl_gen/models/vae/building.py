"""The networks of autoencoders, from the settings of their estimators."""

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ppl_gen.inference.elbos import FREE
from ppl_gen.neural.amortised import POSTERIORS, AmortisedPosterior
from ppl_gen.neural.convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from ppl_gen.neural.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretisedLogisticLikelihood,
    Likelihood,
    NormalLikelihood,
)
from ppl_gen.neural.perceptrons import perceptron
from ppl_gen.neural.priors import PRIORS

__all__ = [
    "ARCHITECTURES",
    "build_decoder",
    "build_encoder",
    "build_likelihood",
    "check_network",
    "check_objective",
    "check_settings",
    "image_of",
]

#: Hidden layers by default: units of fully connected ones, channels of convolutions.
ARCHITECTURES: dict[str, tuple[int, ...]] = {"mlp": (256,), "convolutional": (32, 64)}


def check_settings(model: Any, who: str, row_shape: Sequence[int]) -> None:
    """Refuse settings out of range, before anything is trained.

    Parameters
    ----------
    model : VAE
        Or an estimator with settings of these names.
    who : str
        Whom errors name.
    row_shape : sequence of int

    Raises
    ------
    ValueError
        Which setting, what was expected, and what to do.
    """
    for name, choices in (
        ("posterior", POSTERIORS),
        ("prior", PRIORS),
        ("architecture", ARCHITECTURES),
    ):
        value = getattr(model, name)
        if not isinstance(value, str) or value not in choices:
            raise ValueError(
                f"{who}: {name} is {value!r}; expected one of {', '.join(map(repr, choices))}"
            )
    least = 2 if model.posterior == "iaf" else 1
    if not _is_whole(model.latent_dim, least):
        raise ValueError(
            f"{who}: latent_dim is {model.latent_dim!r}; expected a whole number of at least "
            f"{least}" + (", one latent having none before it" if least == 2 else "")
        )
    hidden = model.hidden_layer_sizes
    if hidden is not None and not (
        isinstance(hidden, Sequence) and all(_is_whole(units, 1) for units in hidden)
    ):
        raise ValueError(
            f"{who}: hidden_layer_sizes is {hidden!r}; expected a sequence of whole numbers of at "
            "least 1"
        )
    if model.architecture == "convolutional":
        if len(row_shape) < 2:
            raise ValueError(
                f"{who}: architecture='convolutional' is for images; X has {row_shape[0]} columns; "
                "give X as (n, H, W) or (n, H, W, C), or set image_shape"
            )
        if hidden is not None and len(hidden) == 0:
            raise ValueError(
                f"{who}: hidden_layer_sizes is empty; convolutions need one layer or more"
            )
    for name in ("beta", "free_bits"):
        value = getattr(model, name)
        if not _is_number(value) or not 0.0 <= value < float("inf"):
            raise ValueError(f"{who}: {name} is {value!r}; expected zero or a positive number")
    if not _is_number(model.beta_warmup) or not 0.0 <= model.beta_warmup <= 1.0:
        raise ValueError(
            f"{who}: beta_warmup is {model.beta_warmup!r}; expected a share of the training from 0 "
            "to 1"
        )
    noise = model.noise
    named = isinstance(noise, str) and noise in ("learned", "column")
    if not named and not (_is_number(noise) and 0.0 < noise < float("inf")):
        raise ValueError(
            f"{who}: noise is {noise!r}; expected 'learned', 'column', or a positive variance"
        )


def check_objective(model: Any, objective: str, who: str) -> None:
    """Refuse settings that the importance-weighted bounds do not have.

    Parameters
    ----------
    model : VAE
    objective : {"elbo", "iwae", "dreg"}
        Of its `SVI`.
    who : str
        Whom errors name.

    Raises
    ------
    ValueError
        Which setting, what was expected, and what to do.
    """
    if objective == "elbo":
        return
    for name, free in FREE.items():
        value = getattr(model, name)
        if value != free:
            raise ValueError(
                f"{who}: {name} is {value!r}, which is of SVI(objective='elbo'), and objective is "
                f"{objective!r}; expected {name}={free}; leave it out, or take objective='elbo'"
            )
    if objective == "dreg" and model.posterior == "iaf":
        raise ValueError(
            f"{who}: posterior is 'iaf', and SVI(objective='dreg') takes 'mean_field' or "
            "'full_rank'; take one of these, or objective='iwae'"
        )


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, numbers.Integral) and int(value) >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def build_likelihood(name: str, facts: dict[str, Any], noise: str | float) -> Likelihood:
    """Build a likelihood by its name."""
    if name == "bernoulli":
        return BernoulliLikelihood()
    if name == "categorical":
        return CategoricalLikelihood(facts["n_levels"])
    if name == "discretised_logistic":
        return DiscretisedLogisticLikelihood(facts["n_levels"])
    # In float64 until the network is brought to its own floats: far from zero, float32 would round
    # the centre by many deviations.
    location, scale = (
        torch.as_tensor(facts[key], dtype=torch.float64) for key in ("location", "scale")
    )
    return NormalLikelihood(location, scale, noise)


def image_of(row_shape: Sequence[int]) -> tuple[int, int, int]:
    """Height, width and channels of images."""
    height, width, channels = (*row_shape, 1)[:3]
    return int(height), int(width), int(channels)


def build_encoder(
    architecture: str,
    hidden: Sequence[int] | None,
    facts: dict[str, Any],
    likelihood: Likelihood,
    posterior: AmortisedPosterior,
    context_width: int,
) -> nn.Module:
    """Build an encoder: features [, what is there] [, context] -> parameters of the guide."""
    sizes = ARCHITECTURES[architecture] if hidden is None else hidden
    width = facts["width"]
    planes = int(facts["gaps"])
    if architecture == "convolutional":
        return ConvolutionalEncoder(
            image_of(facts["row_shape"]),
            likelihood.n_features,
            posterior.n_parameters,
            sizes,
            extra=(planes, context_width),
        )
    n_inputs = width * (likelihood.n_features + planes) + context_width
    return perceptron(n_inputs, sizes, posterior.n_parameters)


def build_decoder(
    architecture: str,
    hidden: Sequence[int] | None,
    facts: dict[str, Any],
    likelihood: Likelihood,
    n_inputs: int,
) -> nn.Module:
    """Build a decoder, the encoder's mirror: latents [, context] -> outputs of entries."""
    sizes = ARCHITECTURES[architecture] if hidden is None else hidden
    if architecture == "convolutional":
        image = image_of(facts["row_shape"])
        return ConvolutionalDecoder(n_inputs, image, likelihood.n_outputs, sizes)
    return perceptron(n_inputs, sizes[::-1], facts["width"] * likelihood.n_outputs)


def check_network(network: nn.Module, who: str, name: str, inputs: str, n: int, m: int) -> None:
    """Refuse a network of the user's own that does not take (rows, n) to (rows, m).

    Parameters
    ----------
    network : Module
    who, name : str
        Whom errors name, and what the network is for.
    inputs : str
        What its inputs are made of.
    n, m : int
        Width of its inputs and outputs.

    Raises
    ------
    ValueError
        What shapes were expected, and what came.
    """
    like = next(network.parameters(), torch.zeros(()))
    expected = f"expected a network of (rows, {n}) to (rows, {m}); inputs are {inputs}"
    before = network.training
    network.eval()  # statistics of batches stay as they are
    try:
        with torch.no_grad():
            found = network(torch.zeros(2, n, dtype=like.dtype, device=like.device))
    except RuntimeError as error:
        raise ValueError(f"{who}: {name} refuses its inputs ({error}); {expected}") from error
    network.train(before)
    if tuple(found.shape) != (2, m):
        raise ValueError(
            f"{who}: {name} puts out {tuple(found.shape)} for 2 rows, not {(2, m)}; {expected}"
        )
