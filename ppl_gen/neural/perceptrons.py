"""Networks of fully connected layers."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

__all__ = ["perceptron"]


def perceptron(n_inputs: int, hidden: Sequence[int], n_outputs: int) -> nn.Sequential:
    """Return fully connected layers with rectified units between them.

    Parameters
    ----------
    n_inputs, n_outputs : int
    hidden : sequence of int
        Units of each hidden layer; none gives one affine map.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.perceptrons import perceptron
    >>> perceptron(3, (8,), 2)(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise((n_inputs, *hidden, n_outputs)):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
