"""Distributions of whole levels 0..K-1, from the numbers that a network gives."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, Distribution, constraints

__all__ = ["DiscretisedLogisticMixture", "level_distribution", "level_parameters"]

#: Least log scale of a logistic, in units where the levels span two: below, gradients explode.
LEAST_LOG_SCALE = -7.0


class DiscretisedLogisticMixture(Distribution):
    """Mixture of logistics, each cut into the levels 0..K-1; the outer levels take the tails.

    A level has the mass of its bin of width one (Salimans et al. 2017, arXiv:1701.05517, equation
    2): near levels are alike, and the cost of a level does not grow with K, unlike a softmax's.

    Parameters
    ----------
    parameters : (..., 3 M) tensor
        Logits, means and log scales of M logistics, in units where levels span [-1, 1].
    n_levels : int

    Examples
    --------
    >>> import torch
    >>> levels = DiscretisedLogisticMixture(torch.randn(6), n_levels=256)
    >>> round(levels.log_prob(torch.arange(256.0)[:, None]).exp().sum().item(), 4)
    1.0
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch asks for a plain dict)

    def __init__(self, parameters: Tensor, n_levels: int) -> None:
        self.n_levels = n_levels
        self.logits, self.means, log_scales = parameters.chunk(3, -1)
        self.log_scales = log_scales.clamp(min=LEAST_LOG_SCALE)
        super().__init__(parameters.shape[:-1], validate_args=False)

    @property
    def support(self) -> Any:
        """Whole numbers below the number of levels."""
        return constraints.integer_interval(0, self.n_levels - 1)  # type: ignore[no-untyped-call]

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of levels: (...) -> (...)."""
        level = value.to(self.means.dtype)[..., None]
        rate = torch.exp(-self.log_scales)
        step = 2.0 / (self.n_levels - 1)
        upper = rate * ((level + 0.5) * step - 1.0 - self.means)
        lower = upper - rate * step
        first, last = level < 0.5, level > self.n_levels - 1.5
        # s(u) - s(l) = s(u) s(-l) (1 - exp(l - u)) of the sigmoid s, without a cancellation.
        zero = torch.zeros_like(upper)
        mass = (
            torch.where(last, zero, F.logsigmoid(upper))
            + torch.where(first, zero, F.logsigmoid(-lower))
            + torch.where(first | last, zero, torch.log(-torch.expm1(-rate * step)))
        )
        return torch.logsumexp(self.logits.log_softmax(-1) + mass, -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw levels: (*sample_shape, ...)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            mixing = Categorical(logits=self.logits, validate_args=False)
            place = mixing.sample(sample_shape)[..., None]  # type: ignore[no-untyped-call]
            means = self.means.expand(*shape, -1).gather(-1, place)[..., 0]
            scales = self.log_scales.expand(*shape, -1).gather(-1, place)[..., 0].exp()
            uniform = torch.rand_like(means).clamp(1e-6, 1.0 - 1e-6)
            drawn = means + scales * torch.logit(uniform)
            levels = torch.round((drawn + 1.0) * (self.n_levels - 1) / 2.0)
        return levels.clamp(0, self.n_levels - 1).long()


def level_parameters(n_levels: int, n_logistics: int | None) -> int:
    """Count the numbers that :func:`level_distribution` takes."""
    return n_levels if n_logistics is None else 3 * n_logistics


def level_distribution(
    parameters: Tensor, n_levels: int, n_logistics: int | None
) -> Categorical | DiscretisedLogisticMixture:
    """Return the distribution of levels: a softmax of logits, or so many logistics.

    Parameters
    ----------
    parameters : (..., P) tensor
        As many as :func:`level_parameters` says.
    n_levels : int
    n_logistics : int or None
        None is the softmax.
    """
    if n_logistics is None:
        return Categorical(logits=parameters, validate_args=False)
    return DiscretisedLogisticMixture(parameters, n_levels)
