"""The weights of a module in training: their average, copies of them, their state."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["Weights", "tensors_of"]


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


class Weights:
    """A module's weights, and their exponential moving average where one is wanted.

    Parameters
    ----------
    module : torch.nn.Module
    decay : float, optional
        Of the average.
    """

    def __init__(self, module: nn.Module, decay: float | None) -> None:
        self.module, self._decay = module, decay
        self._step = 0
        self._average = (
            None if decay is None else AveragedModel(module, multi_avg_fn=self._move_average)
        )

    def update(self, step: int) -> None:
        """Take the weights after a step, counted from 1, into the average."""
        if self._average is not None:
            self._step = step
            self._average.update_parameters(self.module)

    def _move_average(self, averages: Any, currents: Any, _: Any) -> None:
        # A plain mean at first: else the start would weigh far more than any step.
        assert self._decay is not None
        torch._foreach_lerp_(averages, currents, max(1.0 - self._decay, 1.0 / self._step))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the average in the module, where there is one."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        if self._average is not None:
            pairs = zip(self.module.parameters(), self._average.module.parameters(), strict=True)
            for own, averaged in pairs:
                own.data, averaged.data = averaged.data, own.data

    def copy(self) -> dict[str, Tensor]:
        """Return a copy of what would be kept now."""
        with self.averaged():
            return {name: t.detach().clone() for name, t in tensors_of(self.module).items()}

    def keep(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Have these in the module for good; by default what would be kept now."""
        if tensors is not None:
            _copy(tensors, self.module)
        elif self._average is not None:
            _copy(dict(self._average.module.named_parameters()), self.module)

    def state(self) -> dict[str, Any]:
        """Return the weights as they are trained, and the average."""
        average = self._average
        return {
            "module": tensors_of(self.module),
            "average": None if average is None else tensors_of(average),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        _copy(state["module"], self.module)
        if self._average is not None:
            _copy(state["average"], self._average)


def _copy(tensors: Mapping[str, Tensor], module: nn.Module) -> None:
    own = tensors_of(module)
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
