"""Proposals of codes near the mode of their posterior, for importance sampling."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

__all__ = ["Defensive", "laplace"]

#: Parts of a Newton step that are tried, and none of it: the best is taken.
PARTS = (1.0, 0.5, 0.25, 0.125, 0.0)
#: Least curvature of a direction in which a log density is flat or curves upwards.
FLAT = 0.1
#: Share of the draws that the guide proposes.
SHARE = 0.1

LogJoint = Callable[[Tensor], Tensor]


def laplace(log_joint: LogJoint, start: Tensor, n_steps: int) -> TorchDistribution:
    """Approximate densities by normal ones at their modes.

    Newton's method, with steps that are cut until they climb; the covariance is the inverse of
    minus the Hessian at the end, positive by a floor of its eigenvalues.

    Parameters
    ----------
    log_joint : callable
        Log densities of points, up to constants: (..., n, L) -> (..., n), each of its own row.
    start : (n, L) tensor
    n_steps : int

    Returns
    -------
    MultivariateNormal
        Batch (n,), event (L,).

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.laplace import laplace
    >>> normal = torch.distributions.MultivariateNormal(
    ...     torch.tensor([1.0, 2.0]), torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    ... )
    >>> found = laplace(normal.log_prob, torch.zeros(3, 2), n_steps=1)  # of a normal one: exact
    >>> [round(value, 3) for value in (*found.mean[0].tolist(), *found.variance[0].tolist())]
    [1.0, 2.0, 2.0, 1.0]
    """
    z = start.detach()
    parts = z.new_tensor(PARTS)[:, None, None]
    for _ in range(n_steps):
        gradient, root = _curvature(log_joint, z)
        step = root @ (root.mT @ gradient.unsqueeze(-1))
        tried = z + parts * step.squeeze(-1)
        with torch.no_grad():
            best = log_joint(tried).nan_to_num(nan=-math.inf).argmax(dim=0)
        z = tried[best, torch.arange(len(z), device=z.device)]
    _, root = _curvature(log_joint, z)
    # Not by Cholesky's method, to which rounding makes steep curvature beside flat not positive.
    upper = torch.linalg.qr(root.mT).R
    scale = upper.mT * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return dist.MultivariateNormal(z, scale_tril=scale, validate_args=False)


def _curvature(log_joint: LogJoint, z: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient, (n, L), and a root of the inverse of minus the Hessian, floored: (n, L, L)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_joint(z).sum(), z, create_graph=True)
        size = z.shape[1]
        columns = [
            torch.autograd.grad(gradient[:, j].sum(), z, retain_graph=j + 1 < size)[0]
            for j in range(size)
        ]
    gradient = gradient.detach()
    precision = -torch.stack(columns, dim=-1)
    # Rows so far out that nothing is known of them stay where they are.
    known = (precision.isfinite().all(dim=-1) & gradient.isfinite()).all(dim=-1)
    identity = torch.eye(size, dtype=z.dtype, device=z.device)
    gradient = torch.where(known[:, None], gradient, 0.0)
    precision = torch.where(known[:, None, None], precision, identity)
    values, vectors = torch.linalg.eigh(0.5 * (precision + precision.mT))
    return gradient, vectors * values.clamp(min=FLAT).rsqrt().unsqueeze(-2)


@dataclass(frozen=True)
class Defensive:
    """A mixture of a proposal with another that has a share of the draws.

    Importance weights are then at most ``1 / SHARE`` times those of the other alone: where the
    proposal fails, not much is lost [1]_.

    Parameters
    ----------
    proposal, guide : TorchDistribution
        Of one batch (n,) and event (L,).

    References
    ----------
    .. [1] Hesterberg, T. (1995). Weighted average importance sampling and defensive mixture
       distributions. Technometrics 37(2).

    Examples
    --------
    >>> import pyro.distributions as dist, torch
    >>> from ppl_gen.neural.laplace import Defensive
    >>> narrow, wide = (dist.Normal(torch.zeros(4, 2), s).to_event(1) for s in (0.5, 2.0))
    >>> z, log_density = Defensive(narrow, wide).draw(100)
    >>> z.shape, log_density.shape
    (torch.Size([100, 4, 2]), torch.Size([100, 4]))
    """

    proposal: TorchDistribution
    guide: TorchDistribution

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw points, with their log densities: (count, n, L) and (count, n)."""
        one, other = self.proposal.rsample((count,)), self.guide.rsample((count,))
        # Of what it drew a flow knows the density; of other points it must find it, by an inverse
        # that far out is not to be trusted, and may be no number.
        known, found = self.guide.log_prob(other), self.guide.log_prob(one)
        others = torch.rand(known.shape, dtype=one.dtype, device=one.device) < SHARE
        z = torch.where(others.unsqueeze(-1), other, one)
        log_density = torch.logaddexp(
            math.log1p(-SHARE) + _or_none(self.proposal.log_prob(z)),
            math.log(SHARE) + _or_none(torch.where(others, known, found)),
        )
        return z, log_density


def _or_none(log_density: Tensor) -> Tensor:
    """Take a log density that is no number for one of nothing."""
    return log_density.masked_fill(log_density.isnan(), -math.inf)
