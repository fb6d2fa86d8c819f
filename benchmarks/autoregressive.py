"""Drawing images pixel by pixel: with what pixels share kept, and by a full pass a pixel."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Row
from ppl_gen.neural.pixels import PixelCNN, PixelDensity
from ppl_gen.neural.row_lstm import PixelRNN

SIZES = (8, 16, 24)
IMAGES = 4
REPEATS = 3


def rows() -> Iterator[Row]:
    """Measure the CPU seconds of 1,000 pixels in images of several sizes."""
    for kind, name in ((PixelCNN, "PixelCNN"), (PixelRNN, "PixelRNN")):
        for size in SIZES:
            torch.manual_seed(0)
            network = kind((size, size, 1), 2, n_filters=32, n_layers=4, kernel_size=3).eval()
            yield drawing(network, f"{name}, {IMAGES} binary images of {size} x {size}")


@torch.no_grad()
def a_pass_a_pixel(network: PixelDensity) -> Tensor:
    """Draw images by the plain sampler."""
    values = torch.zeros(IMAGES, network.width)
    for place in range(network.width):
        images = values.view(-1, *network.image_shape)
        told: Any = network.distribution(network.features(network.embed(images), None))
        shares = told.logits.flatten(1, -2)[:, place].softmax(1)
        values[:, place] = torch.multinomial(shares, 1)[:, 0].to(values)
    return values


def drawing(network: PixelDensity, job: str) -> Row:
    """Draw the same images both ways, in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    drawn: dict[Any, Tensor] = {}
    ways = (lambda: network.sample(IMAGES), lambda: a_pass_a_pixel(network))
    for _ in range(REPEATS):
        for side, way in zip(times, ways, strict=True):
            torch.manual_seed(1)
            start = time.process_time()
            drawn[way] = way()
            side.append(1000.0 * (time.process_time() - start) / network.width)
    mine, peer = drawn.values()
    return Row(
        f"{job}: 1,000 pixels of each (CPU seconds)",
        "a pass a pixel",
        statistics.median(times[0]),
        statistics.median(times[1]),
        f"{(mine == peer).float().mean():.1%} of pixels alike",
        "does not grow",
    )
