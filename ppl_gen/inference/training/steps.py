"""One step of an optimiser: the gradient, the check that it is finite, the descent."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from ppl_gen.inference.training.parallel import Processes
from ppl_gen.inference.training.settings import Training

__all__ = ["NonFinite", "Player"]

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}
#: Those with one kernel for all parameters at once, and where it runs.
_FUSED = ("adam", "adamw", "sgd")
_FUSED_ON = ("cpu", "cuda")


class NonFinite(FloatingPointError):
    """A loss or a gradient that is no finite number; the message says which."""


class Player:
    """Parameters, the optimiser that moves them, and its schedule.

    Parameters
    ----------
    parameters : dict of str to Parameter
        By their names in the module.
    training : Training
    n_steps : int
        How many there will be at most, for a schedule that ends.

    Attributes
    ----------
    loss : float
        Of the last step.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], training: Training, n_steps: int
    ) -> None:
        self.names = list(parameters)
        self.parameters = list(parameters.values())
        self.clip_norm = training.clip_norm
        self.optimizer = _optimizer(self.parameters, training)
        self.schedule = _schedule(self.optimizer, training, n_steps)
        self._often = training.schedule == "cosine"
        self.loss = math.nan

    @property
    def learning_rate(self) -> float:
        """The rate of the first group of parameters, now."""
        return float(self.optimizer.param_groups[0]["lr"])

    def descend(self, loss: Tensor, processes: Processes, share: float) -> None:
        """Take a step down the gradient of a scalar loss, which this process has a share of.

        Raises
        ------
        NonFinite
            Before anything was changed.
        """
        for parameter in self.parameters:
            parameter.grad = None
        processes.backward(loss, self.parameters)
        loss = processes.average(self.parameters, loss.detach(), share)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not gradients:
            raise ValueError(
                "train: the loss does not depend on the parameters that are to descend it; "
                "expected one that does; look for a detach() or no_grad() on its way"
            )
        norms = torch._foreach_norm(gradients)
        # The one time in a step that a device is waited for.
        self.loss, *lengths = torch.stack([loss.to(norms[0].dtype), *norms]).tolist()
        length = math.hypot(*lengths)
        if not (math.isfinite(self.loss) and math.isfinite(length)):
            raise NonFinite(self._blame(self.loss, length))
        if self.clip_norm is not None and length > self.clip_norm:
            torch._foreach_mul_(gradients, self.clip_norm / length)
        self.optimizer.step()
        if self._often and self.schedule is not None:
            self.schedule.step()

    def end_epoch(self, loss: float) -> None:
        """Move the schedule on, where it goes by epochs."""
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(loss)
        elif self.schedule is not None and not self._often:
            self.schedule.step()

    def state(self) -> dict[str, Any]:
        """Return where optimiser and schedule stand."""
        schedule = None if self.schedule is None else self.schedule.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "schedule": schedule}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])

    def _blame(self, loss: float, norm: float) -> str:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        bad = [
            name
            for name, parameter in zip(self.names, self.parameters, strict=True)
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
        ]
        if not bad:
            return f"the loss is {loss:.6g}, but the norm of its gradient is {norm}"
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        return (
            f"the loss is {loss:.6g}, but its gradient is not finite in {', '.join(bad[:3])}{more}"
        )


def _optimizer(parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    wanted = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    if isinstance(training.optimizer, str):
        if training.optimizer in _FUSED:
            wanted["fused"] = all(
                p.is_floating_point() and p.device.type in _FUSED_ON for p in parameters
            )
        return _OPTIMIZERS[training.optimizer](parameters, **wanted)
    make = training.optimizer
    fixed = make.keywords if isinstance(make, functools.partial) else {}
    taken = inspect.signature(make).parameters
    made = make(parameters, **{k: v for k, v in wanted.items() if k in taken and k not in fixed})
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(
            f"Training: optimizer gave a {type(made).__name__}; expected a torch.optim.Optimizer"
        )
    if isinstance(made, torch.optim.LBFGS):
        raise TypeError(
            "Training: optimizer gave LBFGS, which evaluates the loss several times a step; "
            "expected one that takes gradients, such as torch.optim.AdamW"
        )
    return made


def _schedule(
    optimizer: torch.optim.Optimizer, training: Training, n_steps: int
) -> LRScheduler | None:
    if training.schedule is None:
        return None
    if training.schedule == "cosine":
        warm = max(1, min(n_steps // 20, 500))

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, n_steps - warm))

        return LambdaLR(optimizer, factor)
    if training.schedule == "plateau":
        # A density's loss may be negative, so that a fall is no share of it.
        return ReduceLROnPlateau(
            optimizer, factor=0.5, patience=5, threshold=1e-4, threshold_mode="abs"
        )
    make: Any = training.schedule
    made = make(optimizer)
    if not isinstance(made, LRScheduler):
        raise TypeError(
            f"Training: schedule gave a {type(made).__name__}; expected a scheduler of "
            "torch.optim.lr_scheduler"
        )
    return made
