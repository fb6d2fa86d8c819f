"""Linear transforms that mix variables: permutations, and matrices kept as L and U."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppl_gen.neural.transforms.base import FlowTransform

__all__ = ["LULinear", "Permutation"]


class Permutation(FlowTransform):
    """Variables in another order: x_i = z_order[i].

    Parameters
    ----------
    order : (D,) int tensor

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.transforms import Permutation
    >>> Permutation(torch.tensor([2, 0, 1]))(torch.tensor([1.0, 2.0, 3.0]))
    tensor([3., 1., 2.])
    """

    order: Tensor
    back: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__(len(order))
        self.register_buffer("order", order)
        self.register_buffer("back", torch.argsort(order))

    def forward_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Put z in the order; volumes stay."""
        return z.index_select(-1, self.order), z.new_zeros(z.shape[:-1])

    def inverse_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Put x back; volumes stay."""
        return x.index_select(-1, self.back), x.new_zeros(x.shape[:-1])


class LULinear(FlowTransform):
    """An invertible matrix and a shift, z = L U x + b, whose determinant is U's diagonal's.

    Parameters
    ----------
    width : int
        Variables D. It starts at the identity.

    References
    ----------
    Durkan, Bekasov, Murray and Papamakarios (2019). Neural spline flows. NeurIPS,
    section 3.2, after Kingma and Dhariwal (2018), equation 11.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.transforms import LULinear
    >>> LULinear(2)(torch.tensor([[1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.off_diagonal = nn.Parameter(torch.zeros(width, width))
        self.log_diagonal = nn.Parameter(torch.zeros(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def _triangles(self) -> tuple[Tensor, Tensor]:
        lower = self.off_diagonal.tril(-1) + torch.eye(
            self.width, dtype=self.shift.dtype, device=self.shift.device
        )
        return lower, self.off_diagonal.triu(1) + self.log_diagonal.exp().diag()

    def forward_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take z to x by two triangular solves."""
        lower, upper = self._triangles()
        rows = (z - self.shift).reshape(-1, self.width)
        x = torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False)
        x = torch.linalg.solve_triangular(upper.mT, x, upper=False, left=False)
        return x.reshape(z.shape), (-self.log_diagonal.sum()).expand(z.shape[:-1])

    def inverse_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take x to z by one product."""
        lower, upper = self._triangles()
        z = functional.linear(x, lower @ upper, self.shift).to(x.dtype)
        return z, self.log_diagonal.sum().expand(x.shape[:-1])
