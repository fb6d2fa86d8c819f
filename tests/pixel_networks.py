"""Small networks of pixels, and what their pixels look at."""

import numpy as np
import torch

from ppl_gen.neural.pixels import channel_groups


def network_of(kind, shape, n_levels, scale=1.5, **settings):
    """A small network in float64, whose weights are far enough from zero to matter."""
    torch.manual_seed(0)
    settings = {"n_filters": 6, "n_layers": 3, "kernel_size": 5} | settings
    network = kind(shape, n_levels, **settings).double().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(scale)
    return network


def seen_by_pixels(network):
    """Which entries each entry's distribution depends on, by autograd: (D, D)."""
    torch.manual_seed(1)
    height, width, n_channels = network.image_shape
    x = torch.randint(network.n_levels, (8, network.width)).double()
    embedded = network.embed(x.reshape(-1, *network.image_shape)).detach().requires_grad_()
    logits = network.distribution(network.features(embedded, None)).logits
    groups = channel_groups(embedded.shape[1], n_channels)
    seen = []
    for place in np.ndindex(height, width, n_channels):
        told = logits[(slice(None), *place)]
        (gradient,) = torch.autograd.grad(
            (told * torch.randn_like(told)).sum(), embedded, retain_graph=True
        )
        by_channel = [gradient[:, groups == c].abs().sum((0, 1)) for c in range(n_channels)]
        seen.append(torch.stack(by_channel, -1).flatten() > 0.0)
    return torch.stack(seen)
