"""Coupling transforms: one part of the variables is mapped given the other, which stays."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ppl_gen.neural.transforms.base import FlowTransform
from ppl_gen.neural.transforms.splines import Monotone

__all__ = ["Coupling"]


class Coupling(FlowTransform):
    """A coupling: z_B is monotone in x_B, given x_A, which stays; A and B are halves.

    Both ways take one pass.

    Parameters
    ----------
    width : int
        Variables D, at least 2.
    monotone : Monotone
        The map x_i -> z_i: :class:`Affine` for RealNVP, :class:`RationalQuadratic` for NSF.
    hidden : sequence of int
        Widths of the hidden layers of the network that gives its parameters.
    context_width : int
        Entries C of the context; 0 for none.
    first : bool
        Whether the first half of the variables is what is mapped, and the second what stays.

    Raises
    ------
    ValueError
        If there is but one variable.

    References
    ----------
    Dinh, Sohl-Dickstein and Bengio (2017). Density estimation using Real NVP. ICLR,
    equations 4 to 8.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.transforms import Affine, Coupling
    >>> transform = Coupling(4, Affine(), hidden=(16,))
    >>> x = torch.randn(3, 4)
    >>> z, log_det = transform.inverse_and_log_det(x)
    >>> bool((z[:, :2] == x[:, :2]).all()), log_det.shape
    (True, torch.Size([3]))
    """

    def __init__(
        self,
        width: int,
        monotone: Monotone,
        hidden: Sequence[int] = (64, 64),
        *,
        context_width: int = 0,
        first: bool = False,
    ) -> None:
        if width < 2:
            raise ValueError(
                f"Coupling: width is {width}; expected at least 2 variables, one of which is "
                "mapped given another; use an autoregressive flow for one"
            )
        super().__init__(width, context_width)
        self.monotone, self.first = monotone, first
        self.cut = width // 2
        n_mapped = self.cut if first else width - self.cut
        sizes = [width - n_mapped + context_width, *hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        layers.append(nn.Linear(sizes[-1], n_mapped * monotone.n_parameters))
        self.network = nn.Sequential(*layers)

    def forward_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take z to x."""
        return self._map(z, context, inverse=True)

    def inverse_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take x to z."""
        return self._map(x, context, inverse=False)

    def _map(self, rows: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        halves = rows[..., : self.cut], rows[..., self.cut :]
        mapped, stays = halves if self.first else halves[::-1]
        given = stays
        if context is not None:
            given = torch.cat([stays, context.expand(*stays.shape[:-1], -1)], -1)
        # Products may be of lower precision than the maps; these would lose their Jacobians.
        parameters = self.network(given).to(rows.dtype)
        parameters = parameters.reshape(*mapped.shape, self.monotone.n_parameters)
        way = self.monotone.inverse if inverse else self.monotone.forward
        mapped, log_derivative = way(mapped, parameters)
        joined = torch.cat([mapped, stays] if self.first else [stays, mapped], -1)
        return joined, log_derivative.sum(-1)
