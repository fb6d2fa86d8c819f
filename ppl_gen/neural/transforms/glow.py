"""Glow: a flow of images (Kingma & Dhariwal, arXiv:1807.03039).

Layers take images (n, C, H, W) towards latents, and back, and say the log-determinant in the same
pass: `layer(x, context) -> (y, log_det)` and `layer.inverse(y, context) -> (x, log_det)`. `Glow`
puts them together, and is a Pyro transform of flat rows, from latents to data.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppl_gen.neural.transforms.base import FlowTransform

__all__ = ["ActNorm", "ChannelCoupling", "Glow", "InvertibleConvolution"]


class ActNorm(nn.Module):
    """A shift and a scale for each channel, which start at the first data's mean and deviation.

    Where they start is learned by :meth:`initialise`, once; the buffer `initialised` says so and
    is saved with the weights, so that nothing in scoring depends on what was seen before
    (section 3.1 of the paper).

    Parameters
    ----------
    channels : int

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> layer, x = ActNorm(3), 5.0 + 2.0 * torch.randn(64, 3, 4, 4)
    >>> layer.initialise(x)
    >>> y, log_det = layer(x)
    >>> y.mean().abs().item() < 1e-5, round(y.std().item(), 2), bool(layer.initialised)
    (True, 1.0, True)
    """

    initialised: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(x - loc) / scale``, and its log-determinant."""
        pixels = x.shape[-1] * x.shape[-2]
        return (x - self.loc) * torch.exp(-self.log_scale), -pixels * self.log_scale.sum()

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``loc + scale y``, and its log-determinant."""
        pixels = y.shape[-1] * y.shape[-2]
        return self.loc + y * torch.exp(self.log_scale), pixels * self.log_scale.sum()

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Take mean and deviation of the channels of x (n, C, H, W), unless that was done before.

        A channel that is constant keeps its scale: dividing by nearly nothing would blow up what
        comes after.
        """
        if self.initialised:
            return
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        self.loc.copy_(mean[:, None, None])
        varies = variance > 1e-6 * (1.0 + mean**2)
        self.log_scale.copy_(0.5 * torch.where(varies, variance, 1.0).log()[:, None, None])
        self.initialised.fill_(True)


class InvertibleConvolution(nn.Module):
    """A 1x1 convolution with as many channels out as in, by its LU decomposition.

    The matrix is ``P L (U + diag(sign exp(log_scale)))``, of a fixed permutation P, L with ones on
    its diagonal, U with zeros; it starts as a random rotation (equation 10 of the paper).

    Parameters
    ----------
    channels : int

    Examples
    --------
    >>> layer, x = InvertibleConvolution(3), torch.randn(2, 3, 4, 4)
    >>> torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-5)
    True
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels)).Q
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_scale = nn.Parameter(diagonal.abs().log())

    def _factors(self) -> tuple[Tensor, Tensor]:
        one = torch.eye(len(self.sign), dtype=self.sign.dtype, device=self.sign.device)
        diagonal = torch.diag(self.sign * self.log_scale.exp())
        return self.lower.tril(-1) + one, self.upper.triu(1) + diagonal

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the convolved images, and the log-determinant."""
        lower, upper = self._factors()
        weight = self.permutation @ lower @ upper
        pixels = x.shape[-1] * x.shape[-2]
        return functional.conv2d(x, weight[:, :, None, None]), pixels * self.log_scale.sum()

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what is convolved to y, by two triangular systems, and the log-determinant."""
        lower, upper = self._factors()
        rows = self.permutation.T @ y.flatten(2)  # (n, C, H W)
        rows = torch.linalg.solve_triangular(lower, rows, upper=False, unitriangular=True)
        rows = torch.linalg.solve_triangular(upper, rows, upper=True)
        return rows.view_as(y), -rows.shape[-1] * self.log_scale.sum()


class ChannelCoupling(nn.Module):
    """An affine coupling: half of the channels set a shift and a scale of the other half.

    A small network of 3x3, 1x1 and 3x3 convolutions gives them, the last of which starts at zero:
    the coupling starts as the identity. Scales pass a gate, ``log s = bound tanh(raw / bound)``,
    so that an image far from all that was seen cannot make them overflow.

    Parameters
    ----------
    channels : int
        Two or more.
    hidden_channels : int or None
        Channels of the network between; None is one convolution alone.
    context_width : int
        Entries of a row's context, which shift the network's hidden channels (or, with none, what
        it gives).
    bound : float
        Largest log scale.

    Examples
    --------
    >>> layer, x = ChannelCoupling(4, 8), torch.randn(2, 4, 4, 4)
    >>> y, log_det = layer(x)
    >>> torch.equal(y, x), log_det.tolist()
    (True, [0.0, 0.0])
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int | None,
        context_width: int = 0,
        bound: float = 2.0,
    ) -> None:
        super().__init__()
        self.kept, self.bound = channels // 2, bound
        moved = channels - self.kept
        inputs = self.kept
        self.body: nn.Sequential | None = None
        if hidden_channels is not None:
            self.first = nn.Conv2d(inputs, hidden_channels, 3, padding=1)
            self.body = nn.Sequential(
                nn.ReLU(), nn.Conv2d(hidden_channels, hidden_channels, 1), nn.ReLU()
            )
            inputs = hidden_channels
        self.last = nn.Conv2d(inputs, 2 * moved, 3, padding=1)
        self.by_context: nn.Linear | None = None
        if context_width:
            width = 2 * moved if hidden_channels is None else hidden_channels
            self.by_context = nn.Linear(context_width, width, bias=False)
            if hidden_channels is None:
                nn.init.zeros_(self.by_context.weight)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def _shift_and_log_scale(self, kept: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        offset: Tensor | float = 0.0
        if self.by_context is not None:
            offset = self.by_context(context)[:, :, None, None]
        if self.body is None:
            raw = self.last(kept) + offset
        else:
            raw = self.last(self.body(self.first(kept) + offset))
        shift, log_scale = raw.chunk(2, dim=1)
        return shift, self.bound * torch.tanh(log_scale / self.bound)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the images with the second part of their channels moved; log-determinants (n,)."""
        kept, moved = x[:, : self.kept], x[:, self.kept :]
        shift, log_scale = self._shift_and_log_scale(kept, context)
        y = torch.cat([kept, (moved + shift) * log_scale.exp()], dim=1)
        return y, log_scale.sum(dim=(1, 2, 3))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the images with the second part moved back; log-determinants (n,)."""
        kept, moved = y[:, : self.kept], y[:, self.kept :]
        shift, log_scale = self._shift_and_log_scale(kept, context)
        x = torch.cat([kept, moved * torch.exp(-log_scale) - shift], dim=1)
        return x, -log_scale.sum(dim=(1, 2, 3))


class Level(nn.Module):
    """One scale: squeeze 2x2 pixels into channels, steps, and a split into done and to go on.

    Parameters
    ----------
    channels : int
        Before the squeeze.
    n_steps, hidden_channels, context_width : int
    last : bool
        Whether all channels are done after this level.
    """

    def __init__(
        self, channels: int, n_steps: int, hidden_channels: int, context_width: int, last: bool
    ) -> None:
        super().__init__()
        channels *= 4
        self.steps = nn.ModuleList()
        for _ in range(n_steps):
            self.steps.append(ActNorm(channels))
            self.steps.append(InvertibleConvolution(channels))
            self.steps.append(ChannelCoupling(channels, hidden_channels, context_width))
        # What is done is a normal given what goes on (the paper's learned prior of a split).
        if not last:
            self.steps.append(ChannelCoupling(channels, None, context_width))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (n, 4C, H/2, W/2) of images (n, C, H, W), and log-determinants (n,)."""
        y, log_det = functional.pixel_unshuffle(x, 2), x.new_zeros(len(x))
        for step in self.steps:
            y, change = step(y, context)
            log_det = log_det + change
        return y, log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the images, and log-determinants (n,)."""
        log_det = y.new_zeros(len(y))
        for step in reversed(self.steps):
            y, change = step.inverse(y, context)  # type: ignore[operator]
            log_det = log_det + change
        return functional.pixel_shuffle(y, 2), log_det


class Glow(FlowTransform):
    """A flow of images in several scales: a Pyro transform of flat rows, from latents to data.

    A level squeezes 2x2 pixels into channels and takes `n_steps` of activation normalisation,
    invertible 1x1 convolution and affine coupling; then half of the channels are done, and the
    rest goes to the next level. Those that are done are normalised by a shift and a scale that the
    rest sets, so that the latents of all levels are standard normals.

    Parameters
    ----------
    shape : tuple of int
        (H, W) or (H, W, C), the order of the entries of a row. H and W are multiples of
        ``2 ** n_levels``.
    n_levels : int
    n_steps : int
        Steps a level.
    hidden_channels : int
        Of the couplings' networks.
    context_width : int
        Entries of a row's context, which all couplings take; 0 where there is none. With a
        context the transform is that of :meth:`condition`.

    Raises
    ------
    ValueError
        If the shape does not fit.

    Notes
    -----
    :meth:`initialise` is to be called once, with the first batch, before training: activations
    then start normalised, layer by layer.

    References
    ----------
    Kingma & Dhariwal, Glow: generative flow with invertible 1x1 convolutions, NeurIPS 2018,
    arXiv:1807.03039. Scales: Dinh, Sohl-Dickstein & Bengio, arXiv:1605.08803, section 3.6.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> _ = torch.manual_seed(0)
    >>> glow = Glow((4, 4), n_levels=1, n_steps=2, hidden_channels=8)
    >>> x = torch.rand(32, 16)
    >>> glow.initialise(x)
    >>> base = dist.Normal(torch.zeros(16), 1.0).to_event(1)
    >>> dist.TransformedDistribution(base, [glow]).log_prob(x).shape
    torch.Size([32])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        n_levels: int = 2,
        n_steps: int = 4,
        hidden_channels: int = 32,
        context_width: int = 0,
    ) -> None:
        _check(shape, n_levels, n_steps)
        height, width, channels = (*shape, 1)[:3]
        super().__init__(math.prod(shape), context_width)
        self.shape = (height, width, channels)
        self.levels = nn.ModuleList()
        self.latents: list[tuple[int, int, int]] = []  # shapes of the latents of each level
        for level in range(1, n_levels + 1):
            last = level == n_levels
            self.levels.append(Level(channels, n_steps, hidden_channels, context_width, last))
            channels *= 4 if last else 2
            self.latents.append((channels, height >> level, width >> level))

    def inverse_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take rows x (..., D) to latents (..., D), with log |det dz/dx| (...), in one pass."""
        rows, context = _flat(x, context)
        images = rows.view(-1, *self.shape).permute(0, 3, 1, 2)
        log_det, done = rows.new_zeros(len(rows)), []
        for level in self.levels[:-1]:
            images, change = level(images, context)
            images, latents = images.chunk(2, dim=1)
            log_det = log_det + change
            done.append(latents.flatten(1))
        images, change = self.levels[-1](images, context)
        z = torch.cat([*done, images.flatten(1)], dim=1)
        return z.view_as(x), (log_det + change).view(x.shape[:-1])

    def forward_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take latents z (..., D) to rows (..., D), with log |det dx/dz| (...)."""
        rows, context = _flat(z, context)
        parts = torch.split_with_sizes(rows, [math.prod(shape) for shape in self.latents], dim=1)
        done = [part.view(-1, *shape) for part, shape in zip(parts, self.latents, strict=True)]
        images, log_det = self.levels[-1].inverse(done.pop(), context)  # type: ignore[operator]
        for level in reversed(self.levels[:-1]):
            joined = torch.cat([images, done.pop()], dim=1)
            images, change = level.inverse(joined, context)  # type: ignore[operator]
            log_det = log_det + change
        x = images.permute(0, 2, 3, 1).flatten(1)
        return x.view_as(z), log_det.view(z.shape[:-1])

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Start the activation normalisations at what rows x (n, D) give, layer by layer."""
        norms = [module for module in self.modules() if isinstance(module, ActNorm)]
        hooks = [norm.register_forward_pre_hook(_initialise) for norm in norms]
        self.inverse_and_log_det(x, context)
        for hook in hooks:
            hook.remove()


def _flat(x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Rows (..., D) and contexts that broadcast with them, with one leading axis."""
    if context is not None:
        context = context.expand(*x.shape[:-1], -1).reshape(-1, context.shape[-1])
    return x.reshape(-1, x.shape[-1]), context


def _initialise(norm: ActNorm, args: tuple[Any, ...]) -> None:
    norm.initialise(args[0])


def _check(shape: tuple[int, ...], n_levels: int, n_steps: int) -> None:
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"Glow: shape is {shape}; expected (H, W) or (H, W, C)")
    if min(n_levels, n_steps) < 1:
        raise ValueError(
            f"Glow: n_levels is {n_levels}, n_steps {n_steps}; expected 1 or more of each"
        )
    if shape[0] % 2**n_levels or shape[1] % 2**n_levels:
        raise ValueError(
            f"Glow: images of {shape[0]}x{shape[1]} do not halve {n_levels} times; expected "
            f"multiples of {2**n_levels}; pad them, or take fewer levels"
        )
