"""Drawing from autoregressive densities, value by value, given what is known of a row.

A row is drawn in the order of its factors, p(x_1) p(x_2 | x_1) ... Known values that come before
missing ones are conditioned on by being there; those that come after are evidence, by which a
particle filter weighs what was drawn (Doucet & Johansen 2009, "A tutorial on particle filtering
and smoothing", algorithm 4.1): exact as the particles grow in number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution

__all__ = ["Particles", "Steps", "draw_missing", "evidence"]


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


@dataclass(frozen=True)
class Particles:
    """Weighted draws of rows given what is known of them.

    Attributes
    ----------
    values : (n, M, D) tensor
    log_weights : (n, M) tensor
        Logs of shares that sum to one in a row.
    log_evidence : (n,) tensor
        Estimate of the log density of the values that weighed; its exponential has no bias.
    """

    values: Tensor
    log_weights: Tensor
    log_evidence: Tensor

    def draw(self) -> Tensor:
        """Pick one particle of each row by its weight: (n, D)."""
        rows = torch.arange(len(self.values), device=self.values.device)
        return self.values[rows, torch.multinomial(self.log_weights.exp(), 1)[:, 0]]


def evidence(known: Tensor, order: Sequence[int]) -> Tensor:
    """Tell which known values come after a missing one in the order: (n, D) -> (n, D)."""
    known = known.clone()
    ordered = known[:, list(order)]
    known[:, list(order)] = ordered & ((~ordered).cumsum(1) > 0)
    return known


@torch.no_grad()
def draw_missing(
    steps: Steps, known: Tensor, weighed: Tensor | None = None, n_particles: int = 1
) -> Particles:
    """Draw what is not known.

    Parameters
    ----------
    steps : Steps
        Of n times `n_particles` rows, the particles of a row side by side; its values hold what
        is known.
    known : (n, D) tensor of bool
    weighed : (n, D) tensor of bool, optional
        Known values that weigh; by default none do.
    n_particles : int

    Returns
    -------
    Particles
    """
    n = len(known)
    weighed = torch.zeros_like(known) if weighed is None else weighed
    draws, weighs = (~known).any(0).tolist(), weighed.any(0).tolist()
    known = known.repeat_interleave(n_particles, 0)
    log_weights = steps.values.new_zeros(n, n_particles)
    log_evidence = steps.values.new_zeros(n)
    for place, variable in enumerate(steps.order):
        if not (draws[variable] or weighs[variable]):
            continue
        factor = steps.factor(place)
        values = steps.values[:, variable]
        if draws[variable]:
            values = torch.where(known[:, variable], values, factor.sample().to(values.dtype))
            steps.values[:, variable] = values
        if weighs[variable]:
            density = factor.log_prob(values).reshape(n, n_particles)
            log_weights = log_weights + torch.where(weighed[:, variable, None], density, 0.0)
            if n_particles > 1:
                log_weights, log_evidence = _resample(steps, log_weights, log_evidence)
    log_total = log_weights.logsumexp(1, keepdim=True)
    return Particles(
        steps.values.reshape(n, n_particles, steps.values.shape[1]),
        log_weights - log_total,
        log_evidence + log_total[:, 0] - math.log(n_particles),
    )


def _resample(steps: Steps, log_weights: Tensor, log_evidence: Tensor) -> tuple[Tensor, Tensor]:
    """Replace particles by draws of them where few carry the weight (systematic resampling)."""
    n, count = log_weights.shape
    shares = log_weights.softmax(1)
    poor = shares.square().sum(1) > 2.0 / count  # an effective number below half of them
    if not bool(poor.any()):
        return log_weights, log_evidence
    places = torch.arange(count, device=shares.device)
    spread = (places + torch.rand(n, 1, device=shares.device)).to(shares.dtype) / count
    picked = torch.searchsorted(shares.cumsum(1), spread).clamp(max=count - 1)
    picked = torch.where(poor[:, None], picked, places)
    first = count * torch.arange(n, device=shares.device)[:, None]
    steps.select((first + picked).reshape(-1))
    mean = log_weights.logsumexp(1) - math.log(count)
    return (
        torch.where(poor[:, None], 0.0, log_weights),
        log_evidence + torch.where(poor, mean, 0.0),
    )
