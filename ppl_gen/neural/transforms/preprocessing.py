"""Between data as they are given and the real line, where flows live.

`LocationScale` and `ScaledSigmoid` are Pyro transforms, put after a flow: from what it draws to
the data's units, so that their Jacobians are in the density of the data as given. `Dequantised`
is a density of whole numbers by way of a continuous one, `Smoothed` one that trains on jittered
rows.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional
from torch.quasirandom import SobolEngine

from ppl_gen.neural.density import DensityModule
from ppl_gen.neural.perceptrons import perceptron
from ppl_gen.neural.transforms.base import FlowTransform

__all__ = ["Dequantised", "LocationScale", "ScaledSigmoid", "Smoothed", "VariationalNoise"]

#: Share of the range, at both of its ends, by which `ScaledSigmoid` reaches further than the data.
SQUEEZE = 1e-6


class LocationScale(FlowTransform):
    """From standardised to the data's units: ``x = loc + scale z``.

    Parameters
    ----------
    loc, scale : (D,) tensors
        Kept as buffers: not trained. Scales are positive.

    Examples
    --------
    >>> units = LocationScale(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.5]))
    >>> z = torch.ones(2)
    >>> units(z), units.log_abs_det_jacobian(z, units(z))
    (tensor([3.0000, 2.5000]), tensor(0.))
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__(len(loc))
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)

    def forward_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take z (..., D) to the data's units, with log |det dx/dz| (...)."""
        return self.loc + self.scale * z, self.scale.log().sum().expand(z.shape[:-1])

    def inverse_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Standardise x (..., D), with log |det dz/dx| (...)."""
        return (x - self.loc) / self.scale, -self.scale.log().sum().expand(x.shape[:-1])


class ScaledSigmoid(FlowTransform):
    """From the real line to bounded data; its inverse is the scaled logit.

    With ``p = squeeze + (1 - 2 squeeze) (x - low) / (high - low)`` it is ``z = logit(p)``, so that
    data on a bound are finite: there is room for density just outside of them, a share `squeeze`
    of the range (Dinh et al., arXiv:1605.08803, section 4.1, which takes 0.05 for images). The
    density integrates to one over this slightly larger interval, which is the `codomain`.

    Parameters
    ----------
    low, high : (D,) tensors
        The data's bounds; kept as buffers.
    squeeze : float
        From 0 (data on a bound are infinite) to below 0.5.

    Examples
    --------
    >>> percent = ScaledSigmoid(torch.tensor([0.0]), torch.tensor([100.0]))
    >>> percent(torch.tensor([0.0])), percent.inv(torch.tensor([100.0])).round()
    (tensor([50.]), tensor([14.]))
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor, squeeze: float = SQUEEZE) -> None:
        super().__init__(len(low))
        self.squeeze = squeeze
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def codomain(self) -> Any:
        """Where rows lie: the bounds, and a little more."""
        room = self.squeeze * self._width()
        interval = constraints.interval(self.low - room, self.high + room)  # type: ignore[no-untyped-call]
        return constraints.independent(interval, 1)  # type: ignore[no-untyped-call]

    def _width(self) -> Tensor:
        """Width of the larger interval."""
        return (self.high - self.low) / (1.0 - 2.0 * self.squeeze)

    def forward_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take z (..., D) between the bounds, with log |det dx/dz| (...)."""
        # tanh(z / 2) / 2 is the sigmoid about its middle.
        x = 0.5 * (self.low + self.high + self._width() * torch.tanh(0.5 * z))
        slope = functional.logsigmoid(z) + functional.logsigmoid(-z)
        return x, (self._width().log() + slope).sum(-1)

    def inverse_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take the scaled logit of x (..., D), with log |det dz/dx| (...)."""
        width = self._width()
        # Shares of the larger interval below x and above it, both precise near zero; the ends
        # themselves, which rounding may reach, are kept finite.
        tiny = torch.finfo(x.dtype).tiny
        below = (self.squeeze + (x - self.low) / width).clamp_min(tiny).log()
        above = (self.squeeze + (self.high - x) / width).clamp_min(tiny).log()
        return below - above, -(width.log() + below + above).sum(-1)


class VariationalNoise(nn.Module):
    """Noise that turns whole numbers into continuous ones, as a flow given the numbers: q(u | x).

    Normal noise passes affine couplings whose networks see the row, and then the normal's
    distribution function, so that u is in (0, 1). It starts as uniform noise, the couplings being
    the identity (a small form of Ho et al., arXiv:1902.00275, section 3.1).

    Parameters
    ----------
    width : int
        Entries D of a row.
    loc, scale : (D,) tensors
        Of the rows, for the networks.
    hidden : sequence of int
    context_width : int
    n_transforms : int
        Couplings; each moves every other entry, in turns.

    Examples
    --------
    >>> noise = VariationalNoise(2, torch.zeros(2), torch.ones(2))
    >>> u, log_q = noise(torch.zeros(5, 2), torch.randn(5, 2))
    >>> u.shape, log_q.abs().max().item() < 1e-6
    (torch.Size([5, 2]), True)
    """

    loc: Tensor
    scale: Tensor
    moved: Tensor

    def __init__(
        self,
        width: int,
        loc: Tensor,
        scale: Tensor,
        hidden: tuple[int, ...] = (64,),
        context_width: int = 0,
        n_transforms: int = 2,
        bound: float = 2.0,
    ) -> None:
        super().__init__()
        self.bound = bound
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)
        places = torch.arange(width)
        moved = torch.stack([places % 2 == turn % 2 for turn in range(n_transforms)])
        self.register_buffer("moved", moved, persistent=False)
        self.networks = nn.ModuleList()
        for _ in range(n_transforms):
            network = perceptron(2 * width + context_width, hidden, 2 * width)
            nn.init.zeros_(network[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(network[-1].bias)  # type: ignore[arg-type]
            self.networks.append(network)

    def forward(
        self, x: Tensor, noise: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Turn normal noise into u, and say its log density given x.

        Parameters
        ----------
        x, noise : (n, D)
        context : (n, C), optional

        Returns
        -------
        u : (n, D)
            In (0, 1).
        log_q : (n, D)
            Terms of the log density of u, whose sum over columns it is.
        """
        given = [(x - self.loc) / self.scale] + ([] if context is None else [context])
        e, log_q = noise, -0.5 * noise**2
        for network, moved in zip(self.networks, self.moved, strict=True):
            raw = network(torch.cat([torch.where(moved, 0.0, e), *given], dim=-1))
            shift, log_scale = raw.chunk(2, dim=-1)
            log_scale = torch.where(moved, self.bound * torch.tanh(log_scale / self.bound), 0.0)
            e = torch.where(moved, e * log_scale.exp() + shift, e)
            log_q = log_q - log_scale
        # The normal's distribution function; its constant is that of the noise's density.
        u = torch.special.ndtr(e)
        return u, log_q + 0.5 * e**2


class Dequantised(DensityModule):
    """A density of whole numbers: the integral of a continuous density p over ``[x, x + 1)``.

    Noise u in [0, 1) is added: ``log P(x) = log E_q[p(x + u) / q(u | x)]``. One draw, which is
    what training takes, gives a lower bound on average (Theis et al., arXiv:1511.01844, section
    3.1, with uniform noise; Ho et al., arXiv:1902.00275, section 3.1, with a learned q). Scoring
    averages the ratio over several draws, which is closer and still no more than log P on average
    (Burda et al., arXiv:1509.00519); its points are the same ones for all rows and at all times,
    Sobol's (of more columns than these are known for, a Latin hypercube's), so that a row's score
    depends on nothing but the row.

    Parameters
    ----------
    density : DensityModule
        Of the noisy rows.
    discrete : (D,) bool tensor
        Columns that are whole numbers; the others stay as they are.
    noise : VariationalNoise or None
        None is uniform noise.
    n_importance : int
        Draws a row in scoring.
    low, high : (D,) tensors or None
        Range of the data, which draws keep to.

    Examples
    --------
    >>> class Uniform(DensityModule):  # on [0, 2)
    ...     def log_prob(self, x, context=None):
    ...         return torch.where((x >= 0.0) & (x < 2.0), -math.log(2.0), -math.inf).sum(-1)
    >>> coin = Dequantised(Uniform(1), torch.tensor([True]))
    >>> coin.eval().log_prob(torch.tensor([[0.0], [1.0]])).exp()
    tensor([0.5000, 0.5000])
    """

    discrete: Tensor
    points: Tensor
    low: Tensor | None
    high: Tensor | None

    def __init__(
        self,
        density: DensityModule,
        discrete: Tensor,
        noise: VariationalNoise | None = None,
        n_importance: int = 16,
        low: Tensor | None = None,
        high: Tensor | None = None,
    ) -> None:
        super().__init__(density.width, density.context_width)
        self.density, self.noise = density, noise
        self.register_buffer("discrete", discrete)
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("points", _even_points(n_importance, density.width), persistent=False)

    @property
    def support(self) -> Any:
        """Where rows lie; those of whole numbers count as real ones here."""
        return self.density.support

    def bound(
        self, x: Tensor, context: Tensor | None = None, points: Tensor | None = None
    ) -> Tensor:
        """Log ratio p / q of one draw of noise a row, a lower bound of `log_prob` on average: (n,).

        Parameters
        ----------
        x : (n, D)
        context : (n, C), optional
        points : (n, D) or (D,), optional
            Uniform numbers, of which the noise is made; drawn anew by default.
        """
        points = torch.rand_like(x) if points is None else points.expand_as(x)
        if self.noise is None:
            u, log_q = points, torch.zeros_like(x)
        else:
            u, log_q = self.noise(x, _normal_quantile(points), context)
        # A sum that rounds to the next whole number would be of another row.
        noisy = torch.minimum(x + u, torch.nextafter(x + 1.0, x))
        noisy = torch.where(self.discrete, noisy, x)
        log_q = torch.where(self.discrete, log_q, 0.0)
        return self.density.log_prob(noisy, context) - log_q.sum(-1)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log probability of rows, by one draw in training, by several in scoring: (n,)."""
        if self.training:
            return self.bound(x, context)
        found = torch.stack([self.bound(x, context, point) for point in self.points])
        return torch.logsumexp(found, dim=0) - math.log(len(found))

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draw rows: those of the continuous density, rounded down: (n, D)."""
        drawn = self.density.sample(n, context)
        drawn = torch.where(self.discrete, drawn.floor(), drawn)
        return drawn if self.low is None else drawn.clamp(self.low, self.high)


class Smoothed(DensityModule):
    """A density that trains on jittered rows: normal noise is added, of a deviation a column.

    The density fitted is that of the data smoothed by this noise, as in a kernel density estimate:
    it cannot collapse on single rows, ties or lower dimensions, and generalises better from few
    (Rothfuss et al., arXiv:1907.08982, section 4). Scoring takes rows as they are.

    Parameters
    ----------
    density : DensityModule
    deviation : (D,) tensor
    low, high : (D,) tensors or None
        Bounds, off which the noise is reflected.

    Examples
    --------
    >>> from ppl_gen.neural.density import DensityModule
    >>> class Point(DensityModule):
    ...     def log_prob(self, x, context=None):
    ...         return x.squeeze(-1)
    >>> density, x = Smoothed(Point(1), torch.tensor([0.1])), torch.zeros(3, 1)
    >>> (density.log_prob(x) == 0.0).any().item(), density.eval().log_prob(x).tolist()
    (False, [0.0, 0.0, 0.0])
    """

    deviation: Tensor
    low: Tensor | None
    high: Tensor | None

    def __init__(
        self,
        density: DensityModule,
        deviation: Tensor,
        low: Tensor | None = None,
        high: Tensor | None = None,
    ) -> None:
        super().__init__(density.width, density.context_width)
        self.density = density
        self.register_buffer("deviation", deviation)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @property
    def support(self) -> Any:
        """Where rows lie."""
        return self.density.support

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of rows, in training of jittered ones: (n,)."""
        if self.training:
            x = x + self.deviation * torch.randn_like(x)
            if self.low is not None and self.high is not None:
                # Reflection at both bounds: a wave of twice the range, folded.
                width = self.high - self.low
                x = self.low + width - (torch.remainder(x - self.low, 2.0 * width) - width).abs()
        return self.density.log_prob(x, context)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draw rows: (n, D)."""
        return self.density.sample(n, context)

    def dist(self, context: Tensor | None = None) -> Any:
        """Return the density as a Pyro distribution."""
        return self.density.dist(context)


def _even_points(n: int, width: int) -> Tensor:
    """Points spread evenly over the unit cube, the same ones at each call: (n, D)."""
    # By a seed of their own: the same wherever the module is built.
    if width <= SobolEngine.MAXDIM:
        sobol = SobolEngine(width, scramble=True, seed=0)  # type: ignore[no-untyped-call]
        return sobol.draw(n)
    # Sobol's numbers are tabled for some 21,000 columns. A Latin hypercube keeps of them that each
    # column has one point in each n-th of its range.
    from scipy.stats import qmc

    points = torch.from_numpy(qmc.LatinHypercube(width, rng=0).random(n)).float()
    return points.clamp(max=1.0 - torch.finfo(points.dtype).eps)  # rounding may reach 1


def _normal_quantile(p: Tensor) -> Tensor:
    """Normal numbers of uniform ones, finite at 0 and 1."""
    tiny = torch.finfo(p.dtype).eps / 4
    quantile: Tensor = torch.special.ndtri(p.clamp(tiny, 1.0 - torch.finfo(p.dtype).eps))
    return quantile
