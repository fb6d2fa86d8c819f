"""What the training loop descends: losses of minibatches, by one player or several."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

__all__ = ["Batch", "Descend", "NegativeLogLikelihood", "Objective", "Parts"]

#: Tensors of some rows, on the device: "x", and "context", "weight", "y" where there are any.
Batch = dict[str, Tensor]

#: Scalars of a batch, each a mean over its rows; "loss" is what is reported and compared.
Parts = dict[str, Tensor]


class Descend(Protocol):
    """One step of a player's optimiser down the gradient of a loss."""

    def __call__(
        self, loss: Tensor, player: str | None = None, parts: Mapping[str, Tensor] | None = None
    ) -> None:
        """Descend `loss`; `parts` are named where it is not finite."""


class Objective(ABC):
    """What is trained, and the loss that its training descends.

    Everything that training changes is in `module`: weights, and as buffers whatever else must
    survive a checkpoint, such as persistent chains; buffers keep their shapes.

    Parameters
    ----------
    module : torch.nn.Module
        What is trained, averaged and checkpointed.

    Notes
    -----
    Where the data have weights, ``batch["weight"]`` has mean one over all training rows (and over
    all validation rows), so that the mean of ``weight * loss`` over the rows of a batch is an
    unbiased estimate of the weighted mean.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.inference.training.loop import train
    >>> from ppl_gen.inference.training.settings import Training
    >>> class LeastSquares(Objective):
    ...     def losses(self, batch):
    ...         return {"loss": (self.module(batch["x"]) - batch["y"]).square().mean()}
    >>> line = torch.nn.Linear(1, 1)
    >>> x = torch.linspace(-1, 1, 50)[:, None].numpy()
    >>> settings = Training(epochs=40, batch_size=10, learning_rate=0.1)
    >>> trained = train(LeastSquares(line), {"x": x, "y": 2 * x + 1}, settings)
    >>> round(line.weight.item(), 1), round(line.bias.item(), 1)
    (2.0, 1.0)
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def players(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the player whose optimiser moves them: one, unless there is a game."""
        return {"loss": [p for p in self.module.parameters() if p.requires_grad]}

    @property
    def settled(self) -> bool:
        """Whether steps descend by now what is validated; epochs before are no candidates."""
        return True

    @abstractmethod
    def losses(self, batch: Batch) -> Parts:
        """Return the mean "loss" a row, and whatever else is to be recorded."""

    def step(self, batch: Batch, descend: Descend) -> Parts:
        """Take one step on a batch; a game descends once for each of its players."""
        parts = self.losses(batch)
        descend(parts["loss"], parts=parts)
        return parts

    def validate(self, batch: Batch) -> Parts:
        """Return what `losses` gives, of rows that are not trained on; without gradients."""
        return self.losses(batch)


class NegativeLogLikelihood(Objective):
    """Weighted mean of ``-module.log_prob(x, context)``, in nats a row.

    Parameters
    ----------
    module : DensityModule
        Has ``log_prob(x, context=None)``, one number a row.
    """

    module: Any

    def losses(self, batch: Batch) -> Parts:
        """Return the negative log likelihood a row."""
        log_prob = self.module.log_prob(batch["x"], batch.get("context"))
        weight = batch.get("weight")
        return {"loss": -(log_prob if weight is None else weight * log_prob).mean()}
