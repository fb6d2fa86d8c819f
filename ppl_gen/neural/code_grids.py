"""Convolutional encoders and decoders of images through a grid of vectors, to be quantised."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

__all__ = ["GridDecoder", "GridEncoder", "grid_sizes"]


def grid_sizes(image_shape: tuple[int, int, int], n_layers: int) -> list[tuple[int, int]]:
    """Heights and widths from the image down to the grid: each layer halves them, rounded up.

    Examples
    --------
    >>> from ppl_gen.neural.code_grids import grid_sizes
    >>> grid_sizes((28, 28, 1), 2)
    [(28, 28), (14, 14), (7, 7)]
    """
    sizes = [image_shape[:2]]
    for _ in range(n_layers):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


class _Residual(nn.Module):
    """What a layer adds to its input, which keeps its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.layers(x)
        return found


class GridEncoder(nn.Module):
    """Convolutions with a stride of two, a residual block, then a vector at each place.

    Parameters
    ----------
    image_shape : (H, W, C)
        Of any size: each layer halves height and width, rounded up.
    n_features : int
        Numbers F for each entry.
    code_dim : int
        Entries V of a vector.
    channels : sequence of int
        Channels of each layer.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.code_grids import GridEncoder
    >>> GridEncoder((8, 8, 1), 1, 3, (16, 16))(torch.zeros(5, 64)).shape  # 2 x 2 vectors of 3
    torch.Size([5, 12])
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_features: int,
        code_dim: int,
        channels: Sequence[int],
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((image_shape[2] * n_features, *channels)):
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(
            *layers[:-1], _Residual(channels[-1]), nn.ReLU(), nn.Conv2d(channels[-1], code_dim, 1)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, H W C F) -> (n, T V), T places of the grid."""
        height, width, _ = self.image_shape
        images = inputs.reshape(len(inputs), height, width, -1).movedim(-1, 1)
        found: Tensor = self.layers(images)
        return found.movedim(1, -1).flatten(1)


class GridDecoder(nn.Module):
    """A residual block, then transposed convolutions with a stride of two: the encoder's mirror.

    Parameters
    ----------
    image_shape : (H, W, C)
    n_outputs : int
        Numbers P for each entry.
    code_dim : int
        Entries V of a vector.
    channels : sequence of int
        Channels of each layer, in the encoder's order.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_outputs: int,
        code_dim: int,
        channels: Sequence[int],
    ) -> None:
        super().__init__()
        sizes = grid_sizes(image_shape, len(channels))
        self.grid = sizes[-1]
        layers: list[nn.Module] = [
            nn.Conv2d(code_dim, channels[-1], 3, padding=1),
            _Residual(channels[-1]),
        ]
        fans = (*reversed(channels), image_shape[2] * n_outputs)
        for (fan_in, fan_out), (small, large) in zip(
            pairwise(fans), pairwise(reversed(sizes)), strict=True
        ):
            # A stride of two takes m to 2m - 1; what is missing of an even size is padded.
            missing = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
            layers += [
                nn.ReLU(),
                nn.ConvTranspose2d(fan_in, fan_out, 3, 2, padding=1, output_padding=missing),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, T V) -> (n, H W C P)."""
        vectors = inputs.reshape(len(inputs), *self.grid, -1).movedim(-1, 1)
        images: Tensor = self.layers(vectors)
        return images.movedim(1, -1).flatten(1)
