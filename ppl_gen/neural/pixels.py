"""PixelCNN: images pixel by pixel, each given those above and to the left, by convolutions.

Images are (n, H, W, C) of whole levels, flat at the border; the density factorises in raster
order, and within a pixel channel by channel (red, then green given red, ...). Features are parted
into groups, one a channel: those of a group know the channels before its own (van den Oord et al.
2016, arXiv:1601.06759, section 3.3).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from ppl_gen.neural.ancestral import Particles, Steps, draw_missing, evidence
from ppl_gen.neural.density import DensityModule
from ppl_gen.neural.levels import level_distribution, level_parameters

__all__ = [
    "MaskedConv2d",
    "PixelCNN",
    "PixelDensity",
    "PixelSteps",
    "channel_groups",
    "place_waves",
]

#: Cosines that tell the row of a pixel, and as many its column.
N_WAVES = 4


def channel_groups(n_features: int, n_channels: int) -> Tensor:
    """Group of each feature, in equal parts, one a channel: (n_features,)."""
    return torch.arange(n_features) * n_channels // n_features


def place_waves(height: int, width: int) -> Tensor:
    """Where each pixel is, as cosines of its row and of its column: (1, 8, H, W).

    Waves of half a period to two periods an image: near pixels are told alike things.

    Examples
    --------
    >>> from ppl_gen.neural.pixels import place_waves
    >>> rows, columns = place_waves(28, 28)[0].chunk(2)
    >>> bool((rows[0].diff(dim=0) < 0.0).all() and (rows.diff(dim=2) == 0.0).all())
    True
    """
    waves = [
        torch.cos(torch.pi * torch.arange(1, N_WAVES + 1)[:, None] * (torch.arange(n) + 0.5) / n)
        for n in (height, width)
    ]
    rows, columns = waves[0][:, :, None], waves[1][:, None, :]
    return torch.cat([rows.expand(-1, -1, width), columns.expand(-1, height, -1)])[None]


class MaskedConv2d(nn.Conv2d):
    """Convolution whose last row of the kernel ends at the pixel itself.

    The rows above are seen whole; in the pixel's own, what lies to the left, and of the pixel the
    features of groups before the output's (`strict`, mask A) or up to it (mask B).

    Parameters
    ----------
    groups_in, groups_out : (F,) and (G,) tensors
        Group of each feature; see :func:`channel_groups`.
    kernel : (int, int)
        Rows and columns. The pixel is the last column of a kernel of one row, and the middle one
        of others.
    strict : bool
    """

    mask: Tensor

    def __init__(
        self, groups_in: Tensor, groups_out: Tensor, kernel: tuple[int, int], *, strict: bool
    ) -> None:
        super().__init__(len(groups_in), len(groups_out), kernel)
        mask = torch.ones_like(self.weight)
        centre = kernel[1] - 1 if kernel[0] == 1 else kernel[1] // 2
        before, own = groups_in[None, :], groups_out[:, None]
        mask[:, :, -1, centre + 1 :] = 0.0
        mask[:, :, -1, centre] = (before < own if strict else before <= own).to(mask)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, without padding: (n, F, H, W) -> (n, G, H', W')."""
        weight = self.weight * self.mask
        if x.shape[2:] == weight.shape[2:]:  # of one pixel, a product takes half as long
            return F.linear(x.flatten(1), weight.flatten(1), self.bias)[:, :, None, None]
        return F.conv2d(x, weight, self.bias)


class PixelDensity(DensityModule):
    """Density of images of whole levels, pixel by pixel in raster order.

    A kind of network writes :meth:`features` for whole images, and :meth:`steps` for drawing.

    Parameters
    ----------
    image_shape : (H, W, C)
    n_levels : int
        Levels K of a channel; codes 0..K-1.
    n_filters : int
        Features F of a layer, at least one a channel.
    n_logistics : int or None
        None gives each level a number of its own (softmax); else as many discretised logistics.
    context_width : int
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_levels: int,
        n_filters: int,
        n_logistics: int | None = None,
        context_width: int = 0,
    ) -> None:
        height, width, n_channels = image_shape
        super().__init__(height * width * n_channels, context_width)
        if n_filters < n_channels:
            raise ValueError(
                f"{type(self).__name__}: n_filters is {n_filters}; expected at least one for each "
                f"of the {n_channels} channels"
            )
        self.image_shape, self.n_levels, self.n_logistics = image_shape, n_levels, n_logistics
        self.orders = [range(self.width)]
        size = min(n_levels - 1, max(1, n_filters // n_channels))
        # Levels start as cosines of their place, and then move. Of one amplitude all levels are as
        # far apart, as categories are; of falling ones near levels are alike.
        waves = torch.arange(1, size + 1)
        start = torch.cos(torch.pi / n_levels * (torch.arange(n_levels) + 0.5)[:, None] * waves)
        if n_logistics is not None:
            start = start / waves
        self.levels = nn.Parameter(start.repeat(n_channels, 1, 1))
        self.embedded_groups = channel_groups(n_channels * size, n_channels)
        self.groups = channel_groups(n_filters, n_channels)
        outputs = channel_groups(n_channels * level_parameters(n_levels, n_logistics), n_channels)
        self.output = nn.Sequential(
            nn.ReLU(),
            MaskedConv2d(self.groups, self.groups, (1, 1), strict=False),
            nn.ReLU(),
            MaskedConv2d(self.groups, outputs, (1, 1), strict=False),
        )

    @property
    def support(self) -> Any:
        """Whole numbers below the number of levels."""
        levels = constraints.integer_interval(0, self.n_levels - 1)  # type: ignore[no-untyped-call]
        return constraints.independent(levels, 1)  # type: ignore[no-untyped-call]

    def features(self, embedded: Tensor, context: Tensor | None) -> Tensor:
        """Features from which the pixels are told: (n, E, H, W) -> (n, F, H, W)."""
        raise NotImplementedError  # pragma: no cover

    def steps(self, values: Tensor, context: Tensor | None) -> "PixelSteps":
        """Return the factors of rows (n, D) as they become known, with a cache."""
        raise NotImplementedError  # pragma: no cover

    def embed(self, values: Tensor) -> Tensor:
        """Features of levels: (n, H', W', C) -> (n, E, H', W')."""
        channel = torch.arange(values.shape[-1], device=values.device)
        found = self.levels[channel, values.long()]  # (n, H', W', C, E / C)
        return found.flatten(-2).movedim(-1, 1)

    def distribution(self, features: Tensor) -> Distribution:
        """Distributions of the levels: (n, F, H', W') -> batch (n, H', W', C)."""
        parameters = self.output(features).movedim(1, -1)
        parameters = parameters.unflatten(-1, (self.image_shape[2], -1))
        return level_distribution(parameters, self.n_levels, self.n_logistics)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log mass of each image, in nats: (n, D) and (n, context) -> (n,).

        NaN is left out, which is the mass of the rest where nothing known comes after it.
        """
        missing = x.isnan()
        images = torch.where(missing, 0.0, x).reshape(-1, *self.image_shape)
        told = self.distribution(self.features(self.embed(images), context))
        density: Tensor = told.log_prob(images).flatten(1)
        return torch.where(missing, 0.0, density).sum(1)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draw n images: (n, D)."""
        return self.complete(self.like().new_full((n, self.width), torch.nan), context).draw()

    def complete(
        self, x: Tensor, context: Tensor | None = None, n_particles: int = 100
    ) -> Particles:
        """Draw what is missing of images.

        Parameters
        ----------
        x : (n, D) tensor
            NaN is drawn.
        context : (n, C) tensor or None
        n_particles : int
            Of the filter by which known pixels weigh on missing ones before them. Where there
            are no such, one is enough, and all that is used.

        Returns
        -------
        Particles
        """
        known = ~x.isnan()
        later = evidence(known, self.orders[0])
        count = n_particles if bool(later.any()) else 1
        values = torch.where(known, x, 0.0).repeat_interleave(count, 0)
        if context is not None:
            context = context.repeat_interleave(count, 0)
        with torch.no_grad():
            return draw_missing(self.steps(values, context), known, later, count)


class PixelSteps(Steps):
    """The factors of images in raster order; what rows and columns share is computed once.

    A kind of network writes :meth:`begin`, :meth:`extend` and :meth:`finish`, and names what it
    keeps of each image in :meth:`kept`.
    """

    def __init__(self, network: PixelDensity, values: Tensor) -> None:
        self.network, self.values = network, values
        self.order = network.orders[0]
        self.row, self.done = -1, 0  # columns whose features are final

    @property
    def images(self) -> Tensor:
        """The values as images: (n, H, W, C)."""
        return self.values.view(-1, *self.network.image_shape)

    def begin(self, row: int) -> None:
        """Compute what the pixels of a row share, from the rows above."""
        raise NotImplementedError  # pragma: no cover

    def extend(self, columns: slice) -> Tensor:
        """Features of columns of the row, from those to the left: (n, F, 1, columns)."""
        raise NotImplementedError  # pragma: no cover

    def finish(self) -> None:
        """Compute what rows below need of the pixels of the row."""
        raise NotImplementedError  # pragma: no cover

    def select(self, rows: Tensor) -> None:
        """Go on with these of the images."""
        raise NotImplementedError  # pragma: no cover

    def factor(self, place: int) -> Distribution:
        """Distribution of the channel of the pixel at this place, batch (n,)."""
        _, width, n_channels = self.network.image_shape
        pixel, channel = divmod(place, n_channels)
        row, column = divmod(pixel, width)
        while self.row < row:
            if self.row >= 0:
                self.finish()
            self.row, self.done = self.row + 1, 0
            self.begin(self.row)
        features = self.extend(slice(self.done, column + 1))[..., -1:]
        # Features of a pixel never look at its last channel: then they are final.
        self.done = column + (channel == n_channels - 1)
        parameters = self.network.output(features)[:, :, 0, 0]
        parameters = parameters.unflatten(-1, (n_channels, -1))[:, channel]
        return level_distribution(parameters, self.network.n_levels, self.network.n_logistics)


def gate(features: Tensor) -> Tensor:
    """Gate half of the features by the other: (n, 2 F, ...) -> (n, F, ...)."""
    value, opening = features.chunk(2, 1)
    return torch.tanh(value) * torch.sigmoid(opening)


class GatedLayer(nn.Module):
    """Gated layer of two stacks: what lies above, and what lies to the left.

    Figure 2 of van den Oord et al. 2016 (arXiv:1606.05328); equation 4 for the context. The place
    of a pixel opens the gates as the context does: a convolution alone is the same everywhere.
    """

    def __init__(
        self,
        groups_in: Tensor,
        groups: Tensor,
        kernel_size: int,
        dropout: float,
        context_width: int,
        *,
        first: bool,
    ) -> None:
        super().__init__()
        reach, width = kernel_size // 2, len(groups)
        self.first = first
        self.vertical = nn.Conv2d(len(groups_in), 2 * width, (reach + 1, kernel_size))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.horizontal = MaskedConv2d(groups_in, groups.repeat(2), (1, reach + 1), strict=first)
        self.dropout = nn.Dropout(dropout)
        self.residual = MaskedConv2d(groups, groups, (1, 1), strict=False)
        self.context = nn.Linear(context_width, 4 * width) if context_width else None
        self.place = nn.Conv2d(2 * N_WAVES, 4 * width, 1, bias=False)

    def biases(self, context: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """What the context adds to the stacks: (n, C) -> two of (n, 2 F, 1, 1)."""
        if self.context is None:
            return 0.0, 0.0
        above, left = self.context(context)[:, :, None, None].chunk(2, 1)
        return above, left

    def above(
        self, padded: Tensor, biases: tuple[Any, Any], places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Vertical stack: its features, and what it tells the horizontal one."""
        own, left = places.chunk(2, 1)
        # Together first: without a context they are of one image only.
        found = self.vertical(padded) + (biases[0] + own)
        return gate(found), self.link(found) + (biases[1] + left)

    def along(self, padded: Tensor, told: Tensor) -> Tensor:
        """Horizontal stack, of what lies to the left and what the vertical one tells."""
        found: Tensor = self.residual(self.dropout(gate(self.horizontal(padded) + told)))
        return found if self.first else found + padded[..., -found.shape[-1] :]


class PixelCNN(PixelDensity):
    """Gated PixelCNN: exact density of images, in one pass over all pixels at once.

    Parameters
    ----------
    image_shape : (H, W, C)
    n_levels : int
        Levels K of a channel; codes 0..K-1.
    n_filters : int
        Features of a layer.
    n_layers : int
    kernel_size : int
        Odd. A pixel sees ``n_layers * (kernel_size // 2)`` columns to each side, and one row more
        up.
    n_logistics : int or None
        None gives each level a number of its own (softmax); else as many discretised logistics.
    dropout : float
        Share of a layer's features that is left out in training.
    context_width : int

    Notes
    -----
    Two stacks leave no blind spot (van den Oord et al. 2016, arXiv:1606.05328, section 2.2).
    Every layer is told where a pixel is, by cosines of its row and column: what is likely differs
    from place to place (cf. Liu et al. 2018, arXiv:1807.03247, and the background of Chen et al.
    2018, arXiv:1712.09763).
    Drawing keeps the features of the last rows and columns (Ramachandran et al. 2017,
    arXiv:1704.06001): a pixel costs the same in images of any size.

    Examples
    --------
    >>> import torch
    >>> network = PixelCNN((2, 2, 1), n_levels=2, n_filters=4, n_layers=2, kernel_size=3)
    >>> images = torch.cartesian_prod(*[torch.arange(2.0)] * 4)  # all of them
    >>> round(network.log_prob(images).exp().sum().item(), 4)
    1.0
    >>> network.sample(3).shape
    torch.Size([3, 4])
    """

    waves: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_levels: int,
        n_filters: int = 64,
        n_layers: int = 5,
        kernel_size: int = 5,
        n_logistics: int | None = None,
        dropout: float = 0.0,
        context_width: int = 0,
    ) -> None:
        super().__init__(image_shape, n_levels, n_filters, n_logistics, context_width)
        self.reach = kernel_size // 2
        self.register_buffer("waves", place_waves(*image_shape[:2]), persistent=False)
        inputs = [self.embedded_groups] + [self.groups] * (n_layers - 1)
        self.layers: Any = nn.ModuleList(
            GatedLayer(groups, self.groups, kernel_size, dropout, context_width, first=layer == 0)
            for layer, groups in enumerate(inputs)
        )

    def features(self, embedded: Tensor, context: Tensor | None) -> Tensor:
        """Features from which the pixels are told: (n, E, H, W) -> (n, F, H, W)."""
        reach = self.reach
        above = F.pad(embedded, (0, 0, 1, -1))  # down by a row: the rows above only
        left = embedded
        for layer in self.layers:
            padded = F.pad(above, (reach, reach, reach, 0))
            above, told = layer.above(padded, layer.biases(context), layer.place(self.waves))
            left = layer.along(F.pad(left, (reach, 0, 0, 0)), told)
        return left

    def steps(self, values: Tensor, context: Tensor | None) -> "ConvolutionSteps":
        """Return the factors of rows (n, D) as they become known, with a cache."""
        return ConvolutionSteps(self, values, context)


class ConvolutionSteps(PixelSteps):
    """Factors of a PixelCNN: of each layer, the last rows of one stack, the row of the other."""

    def __init__(self, network: PixelCNN, values: Tensor, context: Tensor | None) -> None:
        super().__init__(network, values)
        self.layers = list(network.layers)
        self.biases = [layer.biases(context) for layer in self.layers]
        self.places = [layer.place(network.waves) for layer in self.layers]  # of all images
        reach, (_, width, _) = network.reach, network.image_shape
        sizes = [layer.vertical.in_channels for layer in self.layers]
        n = len(values)
        # Rows above of each layer's input, padded; the columns of the row, padded to the left.
        self.rows = [values.new_zeros(n, s, reach + 1, width + 2 * reach) for s in sizes]
        self.columns = [values.new_zeros(n, s, 1, reach + width) for s in sizes]
        self.told: list[Tensor] = []
        self.reach = reach

    def begin(self, row: int) -> None:
        """Run the vertical stack over one row."""
        above = self.network.embed(self.images[:, max(row - 1, 0)][:, None])
        if row == 0:
            above = torch.zeros_like(above)
        self.told = []
        for place, layer in enumerate(self.layers):
            padded = F.pad(above, (self.reach, self.reach))
            self.rows[place] = torch.cat([self.rows[place][:, :, 1:], padded], 2)
            places = self.places[place][:, :, row : row + 1]
            above, told = layer.above(self.rows[place], self.biases[place], places)
            self.told.append(told)

    def extend(self, columns: slice) -> Tensor:
        """Run the horizontal stack over some columns."""
        reach = self.reach
        # The last pixel's last channel was not known when its features were computed.
        fresh = slice(max(columns.start - 1, 0), columns.stop)
        left = self.network.embed(self.images[:, self.row : self.row + 1, fresh])
        self.columns[0][..., reach + fresh.start : reach + fresh.stop] = left
        for place, layer in enumerate(self.layers):
            window = self.columns[place][..., columns.start : reach + columns.stop]
            left = layer.along(window, self.told[place][..., columns])
            if place + 1 < len(self.layers):
                self.columns[place + 1][..., reach + columns.start : reach + columns.stop] = left
        return left

    def finish(self) -> None:
        """Leave the row: those below look at its pixels only."""

    def select(self, rows: Tensor) -> None:
        """Go on with these of the images."""
        self.values = self.values[rows]
        for kept in (self.rows, self.columns, self.told):
            kept[:] = [part[rows] for part in kept]
        self.biases = [
            tuple(bias[rows] if isinstance(bias, Tensor) else bias for bias in pair)
            for pair in self.biases
        ]
