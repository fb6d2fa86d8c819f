"""Flows that score what they drew, and nothing else: planar, radial, Sylvester.

They have no closed-form inverse, hence no density of data. They are for guides, whose ELBO asks
for the density of the guide's own draws: in a Pyro guide, or as the flow of a VAE's posterior.
"""

from typing import Any

import torch
from pyro.distributions.transforms.planar import ConditionedPlanar
from pyro.distributions.transforms.radial import ConditionedRadial
from torch import Tensor, nn
from torch.distributions import Transform
from torch.utils.weak import WeakTensorKeyDictionary

from ppl_gen.neural.transforms.base import FlowTransform, _Conditioned, _OnePass

__all__ = ["GUIDE_ONLY", "GuideTransform", "Planar", "Radial", "Sylvester"]


class _KeepsDraws(_OnePass):
    """What draws came from, and their log-determinants, are kept for as long as the draws live."""

    _name: str
    _kept: Any = None

    def _call(self, z: Tensor) -> Tensor:
        x, log_det = self._both(z, inverse=False)
        self._draws()[x] = z, log_det
        return x

    def _inverse(self, x: Tensor) -> Tensor:
        if x not in self._draws():
            raise _no_density(self._name)
        return self._draws()[x][0]  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log |det dy/dx| of rows: (...)."""
        source, log_det = self._draws().get(y, (None, None))
        return log_det if source is x else self._both(x, inverse=False)[1]

    def _draws(self) -> Any:
        if self._kept is None:
            self._kept = WeakTensorKeyDictionary()
        return self._kept

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to copy: without the draws, which are the original's."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {**state, "_kept": None}


class GuideTransform(_KeepsDraws, FlowTransform):
    """A flow that goes one way.

    Parameters
    ----------
    width : int
        Entries D of a row.
    context_width : int
        Entries of a context, which then moves the flow's parameters by an affine map (amortised,
        as in a VAE); 0 where there is none.
    """

    def __init__(self, width: int, context_width: int = 0) -> None:
        super().__init__(width, context_width)
        self._name = type(self).__name__
        start = torch.empty(self._count()).uniform_(-1.0, 1.0) / width**0.5
        self.start = nn.Parameter(start)
        self.by_context: nn.Linear | None = None
        if context_width:
            self.by_context = nn.Linear(context_width, self._count(), bias=False)
            nn.init.zeros_(self.by_context.weight)

    def _count(self) -> int:
        """Parameters of the transform."""
        raise NotImplementedError  # pragma: no cover

    def _move(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Move rows (..., D), and say the log-determinants: (...)."""
        raise NotImplementedError  # pragma: no cover

    def forward_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take z (..., D) to x (..., D), with log |det dx/dz| (...)."""
        parameters = self.start
        if self.by_context is not None:
            parameters = parameters + self.by_context(context)
        return self._move(z, parameters)

    def inverse_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Refuse: there is no closed form.

        Raises
        ------
        NotImplementedError
        """
        raise _no_density(self._name)

    def condition(self, context: Tensor) -> Transform:
        """Return the transform given a context (..., C); itself where it takes no context."""
        return _ConditionedGuide(self, context) if self.context_width else self


class _ConditionedGuide(_KeepsDraws, _Conditioned):
    """A flow of a guide, of one context."""

    def __init__(self, transform: GuideTransform, context: Tensor) -> None:
        super().__init__(transform, context)
        self._name = transform._name


def _no_density(name: str) -> NotImplementedError:
    return NotImplementedError(
        f"{name}.log_prob: this flow has no closed-form inverse, so it scores only what it drew, "
        "as a guide's ELBO asks, and has no density of data; for data take a flow that has one: "
        '"nsf", "nsf_coupling", "maf" or "realnvp"'
    )


class Planar(GuideTransform):
    """A planar flow: ``y = x + u tanh(w'x + b)``, by Pyro's formulas.

    Rezende & Mohamed, arXiv:1505.05770, equations 10 to 12; u is made such that it is invertible
    (their appendix A.1).

    Parameters
    ----------
    width : int
    context_width : int
        See `GuideTransform`.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> base = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    >>> guide = dist.TransformedDistribution(base, [Planar(3), Planar(3)])
    >>> z = guide.rsample((5,))
    >>> guide.log_prob(z).shape
    torch.Size([5])
    >>> guide.log_prob(torch.zeros(5, 3))
    Traceback (most recent call last):
    NotImplementedError: Planar.log_prob: this flow has no closed-form inverse...
    """

    def _count(self) -> int:
        return 2 * self.width + 1

    def _move(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        sizes = [1, self.width, self.width]
        bias, u, w = torch.split_with_sizes(parameters, sizes, dim=-1)
        planar = ConditionedPlanar((bias, u, w))
        y = planar(x)
        return y, planar.log_abs_det_jacobian(x, y)


class Radial(GuideTransform):
    """A radial flow: ``y = x + beta (x - x0) / (alpha + |x - x0|)``, by Pyro's formulas.

    Rezende & Mohamed, arXiv:1505.05770, equation 14; beta is made such that it is invertible
    (their appendix A.2).

    Parameters
    ----------
    width : int
    context_width : int
        See `GuideTransform`.

    Examples
    --------
    >>> flow, x = Radial(3), torch.randn(5, 3)
    >>> flow.log_abs_det_jacobian(x, flow(x)).shape
    torch.Size([5])
    """

    def _count(self) -> int:
        return self.width + 2

    def _move(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        centre, alpha, beta = torch.split_with_sizes(parameters, [self.width, 1, 1], dim=-1)
        radial = ConditionedRadial((centre, alpha, beta))
        y = radial(x)
        return y, radial.log_abs_det_jacobian(x, y)


class Sylvester(GuideTransform):
    """A Sylvester flow: ``y = x + Q R tanh(S Q'x + b)``, with Q a product of reflections.

    R and S are upper triangular, with diagonals in (-1, 1): by Sylvester's identity the determinant
    is that of ``I + diag(tanh') S R``, a product (van den Berg et al., arXiv:1803.05649, of whose
    kinds this is the one with Householder reflections). Pyro's has Q and its transpose in places
    where this does not hold.

    Parameters
    ----------
    width : int
    context_width : int
        See `GuideTransform`.
    n_reflections : int or None
        Householder reflections in Q; by default as many as make any rotation of few columns, at
        most D.

    Examples
    --------
    >>> flow, x = Sylvester(3), torch.randn(5, 3)
    >>> flow.log_abs_det_jacobian(x, flow(x)).shape
    torch.Size([5])
    """

    def __init__(
        self, width: int, context_width: int = 0, n_reflections: int | None = None
    ) -> None:
        self.n_reflections = min(width, 4) if n_reflections is None else n_reflections
        super().__init__(width, context_width)

    def _count(self) -> int:
        return self.width * (self.n_reflections + 2 * self.width + 1)

    def _move(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        d = self.width
        sizes = [self.n_reflections, d, d, 1]
        parts = parameters.view(*parameters.shape[:-1], sum(sizes), d)
        reflections, upper, lower, bias = torch.split_with_sizes(parts, sizes, dim=-2)
        r_diagonal = torch.tanh(upper.diagonal(dim1=-2, dim2=-1))
        s_diagonal = torch.tanh(lower.diagonal(dim1=-2, dim2=-1))
        r = upper.triu(1) + torch.diag_embed(r_diagonal)
        s = lower.triu(1) + torch.diag_embed(s_diagonal)
        unit = torch.nn.functional.normalize(reflections, dim=-1)
        h = torch.tanh(_times(s, _reflect(x, unit, transpose=True)) + bias.squeeze(-2))
        y = x + _reflect(_times(r, h), unit, transpose=False)
        return y, torch.log1p((1.0 - h**2) * r_diagonal * s_diagonal).sum(-1)


#: Flows of guides by name, which have no density of data.
GUIDE_ONLY: dict[str, type[GuideTransform]] = {
    "planar": Planar,
    "radial": Radial,
    "sylvester": Sylvester,
}


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """Matrices (..., D, D) by vectors (..., D)."""
    return (matrix @ x.unsqueeze(-1)).squeeze(-1)


def _reflect(x: Tensor, unit: Tensor, transpose: bool) -> Tensor:
    """Q x, or Q'x, of Q the product of the reflections (..., K, D)."""
    for vector in (unit if transpose else unit.flip(-2)).unbind(-2):
        x = x - 2.0 * (x * vector).sum(-1, keepdim=True) * vector
    return x
