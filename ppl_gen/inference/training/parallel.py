"""Device, precision and processes, as Lightning Fabric carries them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

__all__ = ["Processes"]


class Processes:
    """The device of this process, and the others that train the same weights.

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "cuda:1".
    precision : {"float32", "bfloat16"}

    Attributes
    ----------
    device : torch.device
    rank, count : int
        Which process this is, of how many.
    """

    def __init__(self, device: str, precision: str) -> None:
        where = torch.device(device)
        self.fabric = Fabric(accelerator=where.type, devices=1)
        self.device = where
        self.rank, self.count = 0, 1

    def autocast(self) -> AbstractContextManager[Any]:
        """Enter the precision of the forward pass."""
        return nullcontext()

    def backward(self, loss: Tensor, inputs: Sequence[nn.Parameter]) -> None:
        """Accumulate the gradients of some parameters."""
        self.fabric.backward(loss, inputs=list(inputs))

    def average(self, parameters: Sequence[nn.Parameter], loss: Tensor, share: float) -> Tensor:
        """Average gradients over the processes, in place, and return the average loss."""
        return loss
