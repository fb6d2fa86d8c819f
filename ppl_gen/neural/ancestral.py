"""Drawing from autoregressive densities, value by value, given what is known of a row.

A row is drawn in the order of its factors, p(x_1) p(x_2 | x_1) ... Known values that come before
missing ones are conditioned on by being there; those that come after are evidence, by which a
particle filter weighs what was drawn (Doucet & Johansen 2009, "A tutorial on particle filtering
and smoothing", algorithm 4.1): exact as the particles grow in number.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution

__all__ = ["Steps", "ancestral_draw", "evidence"]


class Steps(Protocol):
    """The factors of an autoregressive density, evaluated as values become known.

    Attributes
    ----------
    order : sequence of int
        Variables, in the order of the factors.
    values : (n, D) tensor
        Those of variables not drawn yet are not looked at.
    """

    order: Sequence[int]
    values: Tensor

    def factor(self, place: int) -> Distribution:
        """Distribution of variable ``order[place]`` in each row, batch (n,); places only rise."""

    def select(self, rows: Tensor) -> None:
        """Go on with these of the rows, (m,)."""


def evidence(known: Tensor, order: Sequence[int]) -> Tensor:
    """Tell which known values come after a missing one in the order: (n, D) -> (n, D)."""
    known = known.clone()
    ordered = known[:, list(order)]
    known[:, list(order)] = ordered & ((~ordered).cumsum(1) > 0)
    return known


@torch.no_grad()
def ancestral_draw(steps: Steps, known: Tensor, n_particles: int = 1) -> Tensor:
    """Draw what is not known.

    Parameters
    ----------
    steps : Steps
        Of n times `n_particles` rows, the particles of a row side by side; its values hold what
        is known.
    known : (n, D) tensor of bool
    n_particles : int
        With one, known values do not weigh on missing ones that come before them.

    Returns
    -------
    (n, D) tensor
    """
    n = len(known)
    later = evidence(known, steps.order)
    drawn, weighed = (~known).any(0).tolist(), later.any(0).tolist()
    known = known.repeat_interleave(n_particles, 0)
    log_weights = steps.values.new_zeros(n, n_particles)
    for place, variable in enumerate(steps.order):
        weighs = weighed[variable] and n_particles > 1
        if not (drawn[variable] or weighs):
            continue
        factor = steps.factor(place)
        values = steps.values[:, variable]
        if drawn[variable]:
            values = torch.where(known[:, variable], values, factor.sample().to(values.dtype))
            steps.values[:, variable] = values
        if weighs:
            density = factor.log_prob(values).reshape(n, n_particles)
            log_weights = log_weights + torch.where(later[:, variable, None], density, 0.0)
            _resample(steps, log_weights)
    if n_particles == 1:
        return steps.values
    chosen = torch.multinomial(log_weights.softmax(1), 1)[:, 0]
    first = torch.arange(0, n * n_particles, n_particles, device=chosen.device)
    return steps.values[first + chosen]


def _resample(steps: Steps, log_weights: Tensor) -> None:
    """Replace particles by draws of them where few carry the weight (systematic resampling)."""
    n, count = log_weights.shape
    shares = log_weights.softmax(1)
    poor = shares.square().sum(1) > 2.0 / count  # an effective number below half of them
    if not bool(poor.any()):
        return
    device = shares.device
    spread = torch.arange(count, device=device) + torch.rand(n, 1, device=device)
    picked = torch.searchsorted(shares.cumsum(1), spread.to(shares.dtype) / count)
    stay = torch.arange(count, device=device).expand(n, count)
    picked = torch.where(poor[:, None], picked.clamp(max=count - 1), stay)
    steps.select((picked + count * torch.arange(n, device=device)[:, None]).reshape(-1))
    log_weights.masked_fill_(poor[:, None], 0.0)
