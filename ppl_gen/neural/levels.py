"""Distributions of whole levels 0..K-1, from the numbers that a network gives."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, Distribution

__all__ = [
    "DiscretisedLogisticMixture",
    "level_distribution",
    "level_parameters",
    "log_logistic_mass",
]

#: Least and most log scale of a logistic, in units of the numbers' spread: below, gradients
#: explode; above, bins have next to no mass, and their logarithms no end.
LOG_SCALES = -7.0, 7.0


class DiscretisedLogisticMixture(Distribution):
    """Mixture of logistics, each cut into whole numbers; the outer ones take the tails.

    A number has the mass of its bin of width one (Salimans et al. 2017, arXiv:1701.05517, equation
    2): near numbers are alike, and the cost does not grow with how many there are.

    Parameters
    ----------
    parameters : (..., 3 M) tensor
        Logits, means and log scales of M logistics, of numbers less `loc`, in units of `scale`.
    lowest, highest : float or (...) tensor
        Infinite, where the numbers have no end.
    loc, scale : float or (...) tensor

    Examples
    --------
    >>> import torch
    >>> numbers = torch.arange(256.0)[:, None]
    >>> levels = DiscretisedLogisticMixture(torch.randn(1, 6), 0.0, 255.0, loc=127.5, scale=127.5)
    >>> round(levels.log_prob(numbers).exp().sum().item(), 4)
    1.0
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch asks for a plain dict)

    def __init__(
        self,
        parameters: Tensor,
        lowest: Tensor | float,
        highest: Tensor | float,
        *,
        loc: Tensor | float,
        scale: Tensor | float,
    ) -> None:
        self.lowest, self.highest, self.loc, self.scale = lowest, highest, loc, scale
        self.logits, self.means, log_scales = parameters.chunk(3, -1)
        self.log_scales = log_scales.clamp(*LOG_SCALES)
        super().__init__(parameters.shape[:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of whole numbers: (...) -> (...)."""
        value = value.to(self.means.dtype)
        rate = torch.exp(-self.log_scales)
        upper = rate * (((value + 0.5 - self.loc) / self.scale)[..., None] - self.means)
        width = rate / torch.as_tensor(self.scale, device=rate.device)[..., None]
        first = (value <= self.lowest)[..., None]
        last = (value >= self.highest)[..., None]
        mass = log_logistic_mass(upper, width, first, last)
        return torch.logsumexp(self.logits.log_softmax(-1) + mass, -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw whole numbers: (*sample_shape, ...)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            mixing = Categorical(logits=self.logits, validate_args=False)
            place = mixing.sample(sample_shape)[..., None]  # type: ignore[no-untyped-call]
            means = self.means.expand(*shape, -1).gather(-1, place)[..., 0]
            scales = self.log_scales.expand(*shape, -1).gather(-1, place)[..., 0].exp()
            uniform = torch.rand_like(means).clamp(1e-6, 1.0 - 1e-6)
            drawn = self.loc + self.scale * (means + scales * torch.logit(uniform))
            bounds = (torch.as_tensor(b).to(drawn) for b in (self.lowest, self.highest))
            return torch.clamp(torch.round(drawn), *bounds)


def log_logistic_mass(upper: Tensor, width: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Log mass of a standard logistic in (upper - width, upper], exact however far in the tails.

    Bins that are `first` begin at minus infinity, and those that are `last` end at infinity.
    """
    # s(u) - s(l) = s(u) s(-l) (1 - exp(l - u)) of the sigmoid s, without a cancellation.
    zero = torch.zeros_like(upper)
    return (
        torch.where(last, zero, F.logsigmoid(upper))
        + torch.where(first, zero, F.logsigmoid(width - upper))
        + torch.where(first | last, zero, torch.log(-torch.expm1(-width)))
    )


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
    half = (n_levels - 1) / 2.0
    return DiscretisedLogisticMixture(parameters, 0.0, n_levels - 1.0, loc=half, scale=half)
