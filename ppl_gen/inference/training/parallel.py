"""Device, precision and processes, as Lightning Fabric carries them."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor, nn

__all__ = ["Processes"]


class Processes:
    """The device of this process, and the others that train the same weights.

    There is one process, unless the script was started by ``torchrun``: then each takes its share
    of every batch. Gradients are averaged here rather than by `DistributedDataParallel`, which
    sees neither the methods of a module besides ``forward`` nor the turns of several players.

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "cuda:1"; of several processes each has the device of its local rank.
    precision : {"float32", "bfloat16"}
    who : str
        How messages begin.

    Attributes
    ----------
    device : torch.device
    rank, count : int
        Which process this is, of how many.
    """

    def __init__(self, device: str, precision: str, who: str) -> None:
        where = torch.device(device)
        self._mixed = precision == "bfloat16"
        if self._mixed and where.type == "cuda" and not torch.cuda.is_bf16_supported(False):
            raise ValueError(
                f"{who}: precision is 'bfloat16', which {torch.cuda.get_device_name(where)} does "
                "not have; expected precision='float32'"
            )
        kind = MixedPrecision("bf16-mixed", where.type) if self._mixed else Precision()
        if TorchElasticEnvironment.detect() and int(os.environ["WORLD_SIZE"]) > 1:
            here = int(os.environ["LOCAL_WORLD_SIZE"])
            self._fabric = Fabric(
                accelerator=where.type,
                devices=here,
                num_nodes=int(os.environ["WORLD_SIZE"]) // here,
                strategy="ddp",
                plugins=[kind, TorchElasticEnvironment()],
            )
            self._fabric.launch()
        else:
            devices = 1 if where.index is None else [where.index]
            self._fabric = Fabric(accelerator=where.type, devices=devices, plugins=[kind])
        self.device: torch.device = self._fabric.device
        self.rank: int = self._fabric.global_rank
        self.count: int = self._fabric.world_size

    @property
    def generators(self) -> list[torch.device]:
        """The device, where it has random numbers of its own."""
        return [self.device] if self.device.type == "cuda" else []

    def autocast(self) -> AbstractContextManager[Any]:
        """Enter the precision of the forward pass."""
        context: AbstractContextManager[Any] = self._fabric.autocast()
        return context

    def backward(self, loss: Tensor, inputs: Sequence[nn.Parameter]) -> None:
        """Accumulate the gradients of some parameters, in the precision that the forward had."""
        outside = torch.autocast(self.device.type, enabled=False) if self._mixed else nullcontext()
        with outside:
            self._fabric.backward(loss, inputs=inputs)

    def average(self, parameters: Sequence[nn.Parameter], loss: Tensor, share: float) -> Tensor:
        """Average gradients over the processes, in place, and return the average loss.

        Parameters
        ----------
        parameters : list of Parameter
        loss : scalar Tensor
        share : float
            Of the batch's rows that are this process's.
        """
        if self.count == 1:
            return loss
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        pieces = [loss, *(p.grad for p in parameters if p.grad is not None)]
        flat = torch.cat([piece.reshape(-1).to(pieces[-1].dtype) for piece in pieces]) * share
        torch.distributed.all_reduce(flat)
        means = torch.split_with_sizes(flat, [piece.numel() for piece in pieces])
        for piece, mean in zip(pieces[1:], means[1:], strict=True):
            piece.copy_(mean.view_as(piece))
        return means[0][0]

    def total(self, values: Sequence[float]) -> list[float]:
        """Sum numbers over the processes."""
        if self.count == 1:
            return list(values)
        # NCCL reduces what is on its device.
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        totals: list[float] = summed.tolist()
        return totals

    def agree(self, *flags: bool) -> list[bool]:
        """Tell of each flag whether any process has raised it."""
        return [bool(n) for n in self.total([float(flag) for flag in flags])]

    def share_weights(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the first one's values."""
        if self.count > 1:
            with torch.no_grad():
                for tensor in tensors:
                    torch.distributed.broadcast(tensor, 0)

    def gather(self, tensor: Tensor) -> Tensor:
        """Return every process's tensor, (count, ...), on the CPU."""
        if self.count == 1:
            return tensor[None].cpu()
        mine = tensor.to(self.device)
        found = [torch.empty_like(mine) for _ in range(self.count)]
        torch.distributed.all_gather(found, mine)
        return torch.stack(found).cpu()
