"""A trained network: the structure of deep models, and what an artefact keeps of it."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ppl_gen.artifact import ArtifactError
from ppl_gen.contexts import ContextCode
from ppl_gen.language import Program
from ppl_gen.neural.density import DensityModule

Array = Any

__all__ = ["Network", "as_tensor", "check_digits", "check_modules", "described", "shapes_of"]

#: Values that a float type must tell apart over the range of a column.
_TOLD_APART = 500


@dataclass(frozen=True)
class Network:
    """A trained network, with what it takes to build it again.

    Attributes
    ----------
    module : DensityModule
    facts : dict
        What the network's shape and scaling took of the data; plain data and arrays.
    context : ContextCode or None
        How contexts become numbers, where the density is conditional.
    """

    module: DensityModule
    facts: dict[str, Any]
    context: ContextCode | None

    def to_tree(self) -> dict[str, Any]:
        """Return what an artefact keeps besides the weights."""
        context = None if self.context is None else self.context.to_tree()
        return {"facts": self.facts, "context": context}

    def weights(self) -> dict[str, Array]:
        """Return weights and buffers as NumPy, with a leading axis of one draw."""
        state = self.module.state_dict()
        return {name: value.detach().cpu().numpy()[None] for name, value in state.items()}

    def sites(self, parameters: dict[str, Array]) -> dict[str, Array]:
        """Name the weights as a posterior has them: those that are learned."""
        return {name: parameters[name] for name, _ in self.module.named_parameters()}

    def coords(self, names: list[Any]) -> dict[str, list[Any]]:
        """Labels of axes: weights have none."""
        return {}

    def program(self) -> Program:
        """Return the density as a program: rows at the site "x"."""
        return Program(self.module.model)

    def program_data(self, data: Mapping[str, Array] | None) -> dict[str, Array]:
        """Return rows that were read as arguments of the program; of none, a context at least."""
        if data is None:
            return {} if self.context is None else {"context": np.zeros((1, self.context.width))}
        return {name: data[name] for name in ("x", "context") if name in data}


def as_tensor(array: Array, like: torch.Tensor) -> torch.Tensor:
    """Put an array on the device of the weights, in their float type where it is of floats."""
    tensor = torch.tensor(np.ascontiguousarray(array), device=like.device)  # may be read-only
    return tensor.to(like.dtype) if tensor.is_floating_point() else tensor


def check_digits(values: Array, dtype: torch.dtype, names: Sequence[Any], who: str) -> None:
    """Tell of columns whose differences are lost in the weights' float type.

    Parameters
    ----------
    values : (n, D) array of float64
    dtype : torch.dtype
    names : sequence of length D
    who : str
        How messages begin.

    Raises
    ------
    ValueError
        If values are beyond its range.

    Warns
    -----
    RuntimeWarning
        If a column lies so far from zero that few of its values are told apart.
    """
    kind, name = torch.finfo(dtype), str(dtype).removeprefix("torch.")
    low, high = np.fmin.reduce(values), np.fmax.reduce(values)  # gaps are passed over
    size = np.maximum(high, -low)
    told = {
        "beyond": [names[d] for d in np.flatnonzero(size > kind.max)[:5]],
        # A range at the rounding of float64 is that of a constant.
        "few": [
            names[d]
            for d in np.flatnonzero(
                (high - low < _TOLD_APART * kind.eps * size) & (high - low > 1e-12 * size)
            )[:5]
        ],
    }
    if told["beyond"]:
        raise ValueError(
            f"{who}: columns {told['beyond']} have values of up to {size.max():.3g}, beyond those "
            f"of {name}; rescale them, or set dtype='float64'"
        )
    if told["few"]:
        warnings.warn(
            f"{who}: columns {told['few']} lie far from zero for what they vary by, so that {name} "
            f"tells fewer than {_TOLD_APART} of their values apart; subtract their mean, or set "
            "dtype='float64'",
            RuntimeWarning,
            stacklevel=4,
        )


def described(value: Any) -> str:
    """Describe a setting by its value, and networks by their weights' names and shapes."""
    if isinstance(value, torch.nn.Module):
        return f"{type(value).__name__}{sorted(shapes_of(value).items())}"
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    return repr(value)


def shapes_of(module: torch.nn.Module) -> dict[str, list[int]]:
    """Shapes of a network's weights and buffers, by name."""
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def check_modules(
    who: str, recorded: dict[str, dict[str, list[int]]], given: dict[str, torch.nn.Module]
) -> None:
    """Refuse networks that are not those of the fit, by their names and shapes."""
    if sorted(recorded) != sorted(given):
        raise ArtifactError(
            f"ppl_gen.load: this {who} was fitted with your own {sorted(recorded) or 'nothing'}; "
            f"got modules {sorted(given)}"
        )
    for name, shapes in recorded.items():
        if not isinstance(given[name], torch.nn.Module):
            raise TypeError(
                f"ppl_gen.load: modules[{name!r}] is {given[name]!r}; expected a torch.nn.Module "
                "of the shape of the one that was fitted"
            )
        found = shapes_of(given[name])
        wrong = [key for key in shapes.keys() | found.keys() if shapes.get(key) != found.get(key)]
        if wrong:
            key = min(wrong)
            raise ArtifactError(
                f"ppl_gen.load: modules[{name!r}] is another network than that of the fit: "
                f"{key!r} has shape {found.get(key)}; expected {shapes.get(key)}"
            )
