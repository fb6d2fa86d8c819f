"""Convolutional encoders and decoders of images that come as flat rows."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["ConvolutionalDecoder", "ConvolutionalEncoder"]


class ConvolutionalEncoder(nn.Module):
    """Convolutions with a stride of two, then an affine map.

    Parameters
    ----------
    image_shape : (H, W, C)
        Of any size, odd ones too: each layer halves height and width, rounded up.
    n_features : int
        Numbers F for each entry.
    n_outputs : int
    channels : sequence of int
        Channels of each layer.
    extra : tuple of (planes, width)
        What comes after the features: so many numbers for each entry (a mask), then so many for
        the whole image (a context), which the last map is given too.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.convolutional import ConvolutionalEncoder
    >>> encoder = ConvolutionalEncoder((7, 5, 3), 1, 4, (8, 16))
    >>> encoder(torch.zeros(2, 105)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_features: int,
        n_outputs: int,
        channels: Sequence[int],
        extra: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.image_shape, self.n_features = image_shape, n_features
        self.planes, self.context_width = extra
        height, width, depth = image_shape
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((depth * (n_features + self.planes), *channels)):
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), nn.ReLU()]
            height, width = -(-height // 2), -(-width // 2)
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.last = nn.Linear(channels[-1] * height * width + self.context_width, n_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., H W C F [+ planes H W C] [+ width]) -> (..., n_outputs)."""
        height, width, depth = self.image_shape
        batch, inputs = inputs.shape[:-1], inputs.reshape(-1, inputs.shape[-1])
        size = height * width * depth
        split = (size * self.n_features, size * (self.n_features + self.planes))
        features, planes, context = torch.tensor_split(inputs, split, dim=-1)
        parts = [features, planes] if self.planes else [features]
        images = [part.reshape(len(part), height, width, -1).movedim(-1, 1) for part in parts]
        found = self.convolutions(torch.cat(images, dim=1))
        outputs: Tensor = self.last(torch.cat([found, context], dim=-1))
        return outputs.reshape(*batch, -1)


class ConvolutionalDecoder(nn.Module):
    """An affine map, then transposed convolutions with a stride of two: the encoder's mirror.

    Parameters
    ----------
    n_inputs : int
    image_shape : (H, W, C)
    n_outputs : int
        Numbers P for each entry.
    channels : sequence of int
        Channels of each layer, in the encoder's order.

    Attributes
    ----------
    widest : int
        Numbers of an image in the largest of its maps.
    """

    def __init__(
        self,
        n_inputs: int,
        image_shape: tuple[int, int, int],
        n_outputs: int,
        channels: Sequence[int],
    ) -> None:
        super().__init__()
        height, width, depth = image_shape
        sizes = [(height, width)]
        for _ in channels:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        self.start = (channels[-1], *sizes[-1])
        self.first = nn.Linear(n_inputs, channels[-1] * sizes[-1][0] * sizes[-1][1])
        layers: list[nn.Module] = []
        fans = (*reversed(channels), depth * n_outputs)
        for (fan_in, fan_out), (small, large) in zip(
            pairwise(fans), pairwise(reversed(sizes)), strict=True
        ):
            # A stride of two takes m to 2m - 1; what is missing of an even size is padded.
            missing = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
            layers += [
                nn.ReLU(),
                nn.ConvTranspose2d(fan_in, fan_out, 3, 2, padding=1, output_padding=missing),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.widest = max(
            fan * rows * columns for fan, (rows, columns) in zip(fans, reversed(sizes), strict=True)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., n_inputs) -> (..., H W C P)."""
        small: Tensor = self.first(inputs.reshape(-1, inputs.shape[-1]))
        images: Tensor = self.convolutions(small.reshape(-1, *self.start)).movedim(1, -1)
        return images.reshape(*inputs.shape[:-1], -1)
