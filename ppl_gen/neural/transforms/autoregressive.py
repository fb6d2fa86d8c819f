"""Autoregressive transforms: each variable by a monotone map whose parameters earlier ones give."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ppl_gen.neural.masked import MaskedNetwork
from ppl_gen.neural.transforms.base import FlowTransform, with_batch
from ppl_gen.neural.transforms.splines import Monotone

__all__ = ["Autoregressive"]


class Autoregressive(FlowTransform):
    """A masked autoregressive transform: z_i is monotone in x_i, given the x before it.

    One pass gives the density; drawing takes a pass a variable. Turned round
    (`Inverted`) it is an inverse autoregressive flow, of which the converse holds.

    Parameters
    ----------
    width : int
        Variables D.
    monotone : Monotone
        The map x_i -> z_i: :class:`Affine` for MAF, :class:`RationalQuadratic` for NSF.
    hidden : sequence of int
        Widths of the hidden layers of the network that gives its parameters.
    context_width : int
        Entries C of the context; 0 for none.
    order : sequence of int, or None
        The variables in the order in which they are drawn; None for 0, 1, ..., D - 1.
    residual : bool
        Whether the network has residual blocks.

    References
    ----------
    Papamakarios, Pavlakou and Murray (2017). Masked autoregressive flow for density
    estimation. NeurIPS, equations 3 to 5.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.transforms import Affine, Autoregressive
    >>> transform = Autoregressive(3, Affine(), hidden=(16,))
    >>> z, log_det = transform.inverse_and_log_det(torch.randn(5, 3))
    >>> z.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(
        self,
        width: int,
        monotone: Monotone,
        hidden: Sequence[int] = (64, 64),
        *,
        context_width: int = 0,
        order: Sequence[int] | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__(width, context_width)
        self.monotone = monotone
        self.network = MaskedNetwork(
            width,
            monotone.n_parameters,
            hidden,
            context_width=context_width,
            order=order,
            residual=residual,
        )

    @property
    def slow_forward(self) -> bool:
        """Whether z -> x takes a pass through the network for each variable: it does."""
        return True

    def inverse_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take x to z, all variables at once."""
        # Products may be of lower precision than the maps; these would lose their Jacobians.
        parameters = self.network(x, context).to(x.dtype)
        z, log_derivative = self.monotone.forward(x, parameters)
        return z, log_derivative.sum(-1)

    def forward_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take z to x, one variable after the other."""
        x = torch.zeros_like(z).expand(with_batch(z.shape, context))
        total = x[..., 0]
        for variable in torch.split(self.network.sequence, 1):
            parameters = self.network.of_variable(variable, x, context).to(x.dtype)
            z_i = z.index_select(-1, variable)[..., 0]
            x_i, log_derivative = self.monotone.inverse(z_i, parameters)
            x = x.index_copy(-1, variable, x_i[..., None])
            total = total + log_derivative
        return x, total
