"""Monotone maps of one variable, with parameters that a network gives: affine, rational-quadratic.

Each knows how many parameters it takes, and maps both ways with the log derivative, in one pass.
"""

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Affine", "Monotone", "RationalQuadratic"]


class Monotone(Protocol):
    """A monotone map x -> y of each variable, given parameters (..., n_parameters)."""

    @property
    def n_parameters(self) -> int:
        """Parameters that a variable takes."""
        ...

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (...) to y (...), with log dy/dx (...)."""
        ...

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map y (...) to x (...), with log dx/dy (...)."""
        ...


def _soft_clip(raw: Tensor, bound: float) -> Tensor:
    """Bring numbers into (-bound, bound); the gradient falls as raw^-2, and never vanishes."""
    return raw / (1 + raw.abs() / bound)


def _share(of_bin: Tensor) -> Tensor:
    """Keep a place in a bin within it, with the gradient of one that is.

    Where a bin is narrow, its corner's rounding may lead out, where slopes turn negative.
    """
    return of_bin + (of_bin.clamp(0, 1) - of_bin).detach()


class Affine:
    """y = exp(a) x + b, with the log scale a held softly within bounds.

    Parameters
    ----------
    bound : float
        Largest abs(a).
    """

    n_parameters = 2

    def __init__(self, bound: float = 5.0) -> None:
        self.bound = bound

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift x (...): y and log dy/dx, of parameters (..., 2)."""
        shift, log_scale = self._bounded(parameters)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale.expand_as(x)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale y (...) back: x and log dx/dy, of parameters (..., 2)."""
        shift, log_scale = self._bounded(parameters)
        return (y - shift) * (-log_scale).exp(), (-log_scale).expand_as(y)

    def _bounded(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = parameters.unbind(-1)
        return shift, _soft_clip(raw, self.bound)


class RationalQuadratic:
    """A monotone spline of rational quadratics on [-bound, bound], the identity outside.

    Derivatives are 1 at the ends, so that the tails join smoothly [1]_. Within, values are taken in
    float64 whatever their type: rounding in a flat bin comes back as an error of 1 / slope times as
    much, which splines that were trained make some hundreds of times. What is left is the rounding
    of what is returned.

    Parameters
    ----------
    bins : int
        Pieces K of the spline, at least 2.
    bound : float
        Half the side of the box.
    least : float
        Share of the largest that the smallest bin may come to, about; derivatives at knots are
        between it and its inverse. This bounds slopes, and with them how rounding grows.

    Raises
    ------
    ValueError
        If there are less than two bins.

    References
    ----------
    .. [1] Durkan, Bekasov, Murray and Papamakarios (2019). Neural spline flows. NeurIPS,
       section 3.1 and appendix A.1. The spline: Gregory and Delbourgo (1982).

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.transforms import RationalQuadratic
    >>> spline = RationalQuadratic(bins=8)
    >>> parameters = torch.randn(100, spline.n_parameters)
    >>> x = torch.linspace(-7, 7, 100)
    >>> y, log_derivative = spline.forward(x, parameters)
    >>> torch.allclose(spline.inverse(y, parameters)[0], x, atol=1e-5)
    True
    """

    def __init__(self, bins: int = 8, bound: float = 4.0, least: float = 1e-3) -> None:
        if bins < 2:
            raise ValueError(f"RationalQuadratic: bins is {bins}; expected at least 2")
        self.bins, self.bound = bins, bound
        self.least, self.steepest = least, -math.log(least)

    @property
    def n_parameters(self) -> int:
        """K widths, K heights, and K - 1 derivatives."""
        return 3 * self.bins - 1

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (...) to y (...), with log dy/dx, of parameters (..., 3 K - 1)."""
        inside = x.abs() < self.bound
        unit = self._to_unit(x)
        x0, y0, width, height, d0, d1 = self._piece(unit, parameters, axis=0)
        xi = _share((unit - x0) / width)
        slope = height / width
        across = xi * (1 - xi)
        below = slope + (d0 + d1 - 2 * slope) * across
        y = y0 + height * (slope * xi.square() + d0 * across) / below
        log_derivative = self._log_derivative(xi, across, slope, below, d0, d1)
        return self._choose(inside, y, log_derivative, x)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map y (...) to x (...), with log dx/dy, of parameters (..., 3 K - 1)."""
        inside = y.abs() < self.bound
        unit = self._to_unit(y)
        x0, y0, width, height, d0, d1 = self._piece(unit, parameters, axis=1)
        slope = height / width
        rise = _share((unit - y0) / height)
        # xi solves a quadratic, A.1 of [1]. With its discriminant written as a sum of squares, and
        # each root as a ratio of positive terms, nothing cancels however steep the bin.
        tilt = d0 * (1 - rise) - d1 * rise
        up, down = 2 * slope * rise, 2 * slope * (1 - rise)
        root = (tilt.square() + up * down).sqrt() + tilt.abs()
        xi = torch.where(tilt >= 0, up / (up + root), root / (root + down))
        across = xi * (1 - xi)
        below = slope + (d0 + d1 - 2 * slope) * across
        log_derivative = self._log_derivative(xi, across, slope, below, d0, d1)
        return self._choose(inside, x0 + xi * width, -log_derivative, y)

    def _to_unit(self, x: Tensor) -> Tensor:
        """Take the box to [0, 1], clipped: what lies outside must reach no spline."""
        return (x.double() / (2 * self.bound) + 0.5).clamp(0, 1)

    def _choose(
        self, inside: Tensor, unit: Tensor, log_derivative: Tensor, outside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take the spline within the box, and the identity outside, in the type of the latter."""
        within = ((unit - 0.5) * (2 * self.bound)).to(outside.dtype)
        log_derivative = log_derivative.to(outside.dtype)
        return torch.where(inside, within, outside), torch.where(inside, log_derivative, 0)

    def _piece(self, unit: Tensor, parameters: Tensor, axis: int) -> tuple[Tensor, ...]:
        """Find the bin of each value along x (axis 0) or y (1): its corner, size, derivatives."""
        bins = self.bins
        raw = parameters[..., : 2 * bins]
        # Sizes up to a factor: what a network's numbers are brought to needs no softmax, and the
        # few sizes that are used are divided by the sum.
        sizes = (raw.sigmoid() + self.least).reshape(*raw.shape[:-1], 2, bins)
        ends = sizes.cumsum(-1, dtype=torch.float64)  # (..., 2, K)
        total = ends[..., -1]
        # Of the inner knots alone: rounding at either end cannot lead out of the bins.
        inner = ends[..., axis, :-1]
        at = ((unit * total[..., axis])[..., None] >= inner).sum(-1, keepdim=True)
        both = at[..., None, :].expand(*at.shape[:-1], 2, 1)
        # Padded with 0, whose derivative is 1; clipped and exponentiated where needed alone.
        knots = functional.pad(parameters[..., 2 * bins :], (1, 1))
        derivative = _soft_clip(knots.gather(-1, torch.cat([at, at + 1], -1)), self.steepest).exp()
        piece = torch.cat([sizes.gather(-1, both)[..., 0], derivative], -1).double()
        size = piece[..., :2]
        corner = (ends.gather(-1, both)[..., 0] - size) / total
        return (*corner.unbind(-1), *(size / total).unbind(-1), *piece[..., 2:].unbind(-1))

    @staticmethod
    def _log_derivative(
        xi: Tensor, across: Tensor, slope: Tensor, below: Tensor, d0: Tensor, d1: Tensor
    ) -> Tensor:
        """Log of the derivative at xi in [0, 1] of a bin: section 3.1 of [1]."""
        above = d1 * xi.square() + 2 * slope * across + d0 * (1 - xi).square()
        return (above * (slope / below).square()).log()
