"""What every network with a density is: a torch module that is a Pyro distribution too."""

from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.poutine import runtime
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = ["FARTHEST", "DensityModule", "ModuleDistribution", "n_rows"]

#: Deviations from the mean beyond which networks see no difference: their sums of larger numbers
#: would be no numbers in float32, and with them the density, which is all but zero there.
FARTHEST = 1e4


class DensityModule(nn.Module):
    """A density p(x | context) with weights.

    Rows are flat, in the units of the data: what standardises or dequantises them is part of the
    module, and its Jacobian of `log_prob`. A kind of density writes :meth:`log_prob` and
    :meth:`sample`, or :meth:`dist` where it is one of Pyro's.

    Parameters
    ----------
    width : int
        Entries D of a row.
    context_width : int
        Entries C of a row's context; 0 where there is none.
    """

    def __init__(self, width: int, context_width: int = 0) -> None:
        super().__init__()
        self.width, self.context_width = width, context_width

    @property
    def support(self) -> Any:
        """Where rows lie, as a constraint of torch over their last axis."""
        return constraints.real_vector

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of each row, in nats: (n, D) and (n, C) -> (n,)."""
        raise NotImplementedError  # pragma: no cover

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draw n rows, without gradients: (n, D); of a context (n, C), where there is one."""
        raise NotImplementedError  # pragma: no cover

    def dist(self, context: Tensor | None = None) -> TorchDistribution:
        """Return the density as a Pyro distribution: event (D,), batch (n,) of a context (n, C)."""
        return ModuleDistribution(self, context)

    def model(
        self, x: Tensor | None = None, context: Tensor | None = None, n: int | None = None
    ) -> Tensor:
        """Run as a Pyro program: rows at the site "x", observed or n of them drawn."""
        self.register()
        x, context = self.cast(x), self.cast(context)
        with pyro.plate("row", n_rows(x, context, n)):
            rows: Tensor = pyro.sample("x", self.dist(context), obs=x)
        return rows

    def register(self) -> None:
        """Tell Pyro's own SVI the weights, while it collects them: nobody else pays for it."""
        if any(getattr(handler, "param_only", False) for handler in runtime._PYRO_STACK):
            pyro.module(f"{type(self).__name__}_{id(self)}", self)

    def cast(self, given: Any) -> Any:
        """Bring floats to the type of the weights: programs are given float64 by default."""
        floats = given is not None and given.is_floating_point()
        return given.to(self.like().dtype) if floats else given

    def like(self) -> Tensor:
        """Return a weight, for the device and dtype of tensors that are made anew."""
        return next(self.parameters())


class ModuleDistribution(TorchDistribution):  # type: ignore[misc]
    """A module's density as a Pyro distribution.

    Parameters
    ----------
    module : DensityModule
    context : (n, C) tensor or None
        Batches have the shape (n,) with a context, and () without.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch asks for a plain dict)

    def __init__(self, module: DensityModule, context: Tensor | None = None) -> None:
        self.module, self.context = module, context
        batch = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch, torch.Size([module.width]), validate_args=False)

    @property
    def support(self) -> Any:
        """Where rows lie."""
        return self.module.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ModuleDistribution":
        """Return the distribution of more rows, alike or of the contexts there are."""
        context = self.context
        if context is not None:
            context = context.expand(*batch_shape, context.shape[-1])
            return ModuleDistribution(self.module, context)
        expanded = ModuleDistribution(self.module)
        expanded._batch_shape = torch.Size(batch_shape)
        return expanded

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of rows: (..., D) -> (...)."""
        context = self._context_for(value.shape[:-1])
        found = self.module.log_prob(value.reshape(-1, self.module.width), context)
        return found.reshape(value.shape[:-1])

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw rows: (*sample_shape, *batch_shape, D)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            drawn = self.module.sample(shape.numel(), self._context_for(shape))
        return drawn.reshape(*shape, self.module.width)

    def _context_for(self, shape: torch.Size) -> Tensor | None:
        if self.context is None:
            return None
        return self.context.expand(*shape, -1).reshape(-1, self.context.shape[-1])


def n_rows(x: Tensor | None, context: Tensor | None, n: int | None) -> int:
    """Rows of a program: those of x or of the context, n, or one."""
    for given in (x, context):
        if given is not None:
            return len(given)
    return 1 if n is None else n
