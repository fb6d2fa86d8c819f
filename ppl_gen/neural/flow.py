"""A normalizing flow as a density: a base, an invertible network, and what brings data to it."""

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, TransformModule
from torch import Tensor, nn
from torch.distributions import Transform

from ppl_gen.neural.density import DensityModule
from ppl_gen.neural.transforms.base import inverse_and_log_det

__all__ = ["Flow"]


class Flow(DensityModule):
    """The density of x = f(z) for standard normal z and an invertible network f.

    ``log p(x) = log N(f^-1(x); 0, I) + log |det df^-1/dx|``, both in one pass.

    Parameters
    ----------
    transform : FlowTransform
        The network z -> x. Any Pyro `TransformModule` over vectors will do; one with an attribute
        `context_width` above 0 is conditional, by its ``condition(context)``.
    width : int
        Variables D.
    preprocessing : sequence of Transform
        From the network's space to the data's, the last giving the data: standardising and what
        bounds the data, with their Jacobians. They take no context.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.flow import Flow
    >>> from ppl_gen.neural.transforms import nsf
    >>> flow = Flow(nsf(2, hidden=(16,)), 2)
    >>> flow.log_prob(torch.zeros(3, 2)).shape, flow.sample(4).shape
    (torch.Size([3]), torch.Size([4, 2]))
    >>> flow.dist().event_shape
    torch.Size([2])
    """

    loc: Tensor
    scale: Tensor

    preprocessing: Any  # the ModuleList of them

    def __init__(
        self, transform: Any, width: int, preprocessing: Sequence[TransformModule] = ()
    ) -> None:
        super().__init__(width, getattr(transform, "context_width", 0))
        self.transform = transform
        self.preprocessing = nn.ModuleList(preprocessing)
        self.register_buffer("loc", torch.zeros(width), persistent=False)
        self.register_buffer("scale", torch.ones(width), persistent=False)

    @property
    def support(self) -> Any:
        """Where rows lie: where the last of the preprocessing leads to."""
        return [self.transform, *self.preprocessing][-1].codomain

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of each row, in nats: (n, D) and (n, C) -> (n,)."""
        total = x.new_zeros(x.shape[:-1])
        for transform in reversed(self._transforms(context)):
            x, log_det = inverse_and_log_det(transform, x)
            total = total + log_det
        return total - 0.5 * (x.square() + math.log(2 * math.pi)).sum(-1)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draw n rows, without gradients: (n, D); of a context (n, C), where there is one."""
        drawn: Tensor = self.dist(context).sample(() if self.context_width else (n,))
        return drawn

    def dist(self, context: Tensor | None = None) -> TorchDistribution:
        """Return Pyro's `TransformedDistribution`: event (D,), batch (n,) of a context (n, C)."""
        base = dist.Normal(self.loc, self.scale, validate_args=False).to_event(1)
        return dist.TransformedDistribution(base, self._transforms(context), validate_args=False)

    def _transforms(self, context: Tensor | None) -> list[Transform]:
        """From noise to data, given the context."""
        given = 0 if context is None else context.shape[-1]
        if given != self.context_width:
            raise ValueError(
                f"Flow: the context has {given} entries a row; expected {self.context_width}"
            )
        network = self.transform.condition(context) if self.context_width else self.transform
        return [network, *self.preprocessing]
