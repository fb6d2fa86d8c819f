"""PixelRNN: images pixel by pixel, each given those before it, by row LSTMs.

States run from the top row down, all columns of a row at once (van den Oord et al. 2016,
arXiv:1601.06759, section 3.1).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl_gen.neural.pixels import MaskedConv2d, PixelDensity, PixelSteps

__all__ = ["PixelRNN", "RowLSTM"]

State = tuple[Tensor, Tensor]


class RowLSTM(nn.Module):
    """LSTM down the rows: convolutions along the row in place of products (equation 3).

    What comes in is masked (mask B), so that a pixel sees itself and what lies to the left; the
    state of the row above is seen whole. A step of it is residual, as in the paper's figure 5.
    """

    def __init__(
        self, groups: Tensor, kernel_size: int, dropout: float = 0.0, context_width: int = 0
    ) -> None:
        super().__init__()
        width, self.reach = len(groups), kernel_size // 2
        self.input_to_state = MaskedConv2d(
            groups, groups.repeat(4), (1, self.reach + 1), strict=False
        )
        self.state_to_state = nn.Conv2d(width, 4 * width, (1, kernel_size), bias=False)
        self.dropout = nn.Dropout(dropout)
        self.output = MaskedConv2d(groups, groups, (1, 1), strict=False)
        self.context = nn.Linear(context_width, 4 * width) if context_width else None
        with torch.no_grad():  # states are kept at first (Jozefowicz et al. 2015)
            assert self.input_to_state.bias is not None
            self.input_to_state.bias[width : 2 * width] += 1.0

    def bias(self, context: Tensor | None) -> Tensor | float:
        """What the context adds to the gates: (n, C) -> (n, 4 F, 1, 1)."""
        return 0.0 if self.context is None else self.context(context)[:, :, None, None]

    def from_above(self, hidden: Tensor) -> Tensor:
        """What the row above adds to the gates: (n, F, 1, W) -> (n, 4 F, 1, W)."""
        found: Tensor = self.state_to_state(F.pad(hidden, (self.reach, self.reach)))
        return found

    def cell(self, gates: Tensor, memory: Tensor) -> State:
        """Hidden state and memory of pixels: of (n, 4 F, 1, w) gates and (n, F, 1, w) above."""
        put, keep, show, new = gates.chunk(4, 1)
        memory = torch.sigmoid(keep) * memory + torch.sigmoid(put) * torch.tanh(new)
        return torch.sigmoid(show) * torch.tanh(memory), memory

    def forward(self, x: Tensor, bias: Tensor | float) -> Tensor:
        """Run over images: (n, F, H, W) -> (n, F, H, W)."""
        arriving = self.input_to_state(F.pad(x, (self.reach, 0))) + bias
        hidden = memory = torch.zeros_like(x[:, :, :1])
        states = []
        for row in arriving.split(1, 2):
            hidden, memory = self.cell(row + self.from_above(hidden), memory)
            states.append(hidden)
        found: Tensor = x + self.output(self.dropout(torch.cat(states, 2)))
        return found


class PixelRNN(PixelDensity):
    """PixelRNN of row LSTMs: exact density of images.

    Parameters
    ----------
    image_shape : (H, W, C)
    n_levels : int
        Levels K of a channel; codes 0..K-1.
    n_filters : int
        Features of a layer.
    n_layers : int
        Row LSTMs.
    kernel_size : int
        Odd. Columns that a state reaches to each side for every row down: a triangle of rows
        above is seen; all of them, if it is 2 W - 1 or more.
    n_logistics : int or None
        None gives each level a number of its own (softmax); else as many discretised logistics.
    dropout : float
        Share of the states that is left out of a layer's output in training.
    context_width : int

    Notes
    -----
    Rows are run one after another, which a PixelCNN need not: training is slower. Drawing keeps
    the states of the row above, so that a pixel costs the same in images of any size.

    Examples
    --------
    >>> import torch
    >>> network = PixelRNN((2, 2, 1), n_levels=2, n_filters=4, n_layers=1, kernel_size=3)
    >>> images = torch.cartesian_prod(*[torch.arange(2.0)] * 4)  # all of them
    >>> round(network.log_prob(images).exp().sum().item(), 4)
    1.0
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_levels: int,
        n_filters: int = 32,
        n_layers: int = 2,
        kernel_size: int = 3,
        n_logistics: int | None = None,
        dropout: float = 0.0,
        context_width: int = 0,
    ) -> None:
        super().__init__(image_shape, n_levels, n_filters, n_logistics, context_width)
        self.reach = kernel_size // 2
        self.stem = MaskedConv2d(
            self.embedded_groups, self.groups, (self.reach + 1, kernel_size), strict=True
        )
        self.layers: Any = nn.ModuleList(
            RowLSTM(self.groups, kernel_size, dropout, context_width) for _ in range(n_layers)
        )

    def features(self, embedded: Tensor, context: Tensor | None) -> Tensor:
        """Features from which the pixels are told: (n, E, H, W) -> (n, F, H, W)."""
        reach = self.reach
        found: Tensor = self.stem(F.pad(embedded, (reach, reach, reach, 0)))
        for layer in self.layers:
            found = layer(found, layer.bias(context))
        return found

    def steps(self, values: Tensor, context: Tensor | None) -> "RowSteps":
        """Return the factors of rows (n, D) as they become known, with a cache."""
        return RowSteps(self, values, context)


class RowSteps(PixelSteps):
    """Factors of a PixelRNN: of each layer, the states of the row above and of this one."""

    def __init__(self, network: PixelRNN, values: Tensor, context: Tensor | None) -> None:
        super().__init__(network, values)
        _, width, _ = network.image_shape
        self.reach, self.stem = network.reach, network.stem
        self.layers = list(network.layers)
        shape = (len(values), len(network.groups), 1)
        biases = [layer.bias(context) for layer in self.layers]
        wide = values.new_zeros(*shape, width)
        self.biases = [bias + values.new_zeros(1, 1, 1, 1) for bias in biases]
        self.biases = [bias.expand(len(values), -1, -1, -1) for bias in self.biases]
        # Of this row: each layer's input, padded to the left, its hidden state and its memory.
        self.inputs = [values.new_zeros(*shape, self.reach + width) for _ in self.layers]
        self.hidden = [wide.clone() for _ in self.layers]
        self.memory = [wide.clone() for _ in self.layers]
        self.above: list[Tensor] = []  # what the row above adds to the gates
        self.memory_above: list[Tensor] = []
        self.embedded = values.new_zeros(0)

    def begin(self, row: int) -> None:
        """Run what comes from the row above over one row."""
        reach = self.reach
        self.above = [
            layer.from_above(hidden) + bias
            for layer, hidden, bias in zip(self.layers, self.hidden, self.biases, strict=True)
        ]
        self.memory_above = [memory.clone() for memory in self.memory]
        rows = self.network.embed(self.images[:, max(row - reach, 0) : row + 1])
        self.embedded = F.pad(rows, (reach, reach, reach + 1 - rows.shape[2], 0))

    def extend(self, columns: slice) -> Tensor:
        """Run the layers over some columns."""
        reach = self.reach
        # The last pixel's last channel was not known when its features were computed.
        fresh = slice(max(columns.start - 1, 0), columns.stop)
        known = self.network.embed(self.images[:, self.row : self.row + 1, fresh])
        self.embedded[:, :, -1:, reach + fresh.start : reach + fresh.stop] = known
        found: Tensor = self.stem(self.embedded[..., columns.start : columns.stop + 2 * reach])
        for place, layer in enumerate(self.layers):
            inputs = self.inputs[place]
            inputs[..., reach + columns.start : reach + columns.stop] = found
            arriving = layer.input_to_state(inputs[..., columns.start : reach + columns.stop])
            hidden, memory = layer.cell(
                arriving + self.above[place][..., columns], self.memory_above[place][..., columns]
            )
            self.hidden[place][..., columns], self.memory[place][..., columns] = hidden, memory
            found = found + layer.output(layer.dropout(hidden))
        return found

    def finish(self) -> None:
        """Complete the states of the row."""
        _, width, _ = self.network.image_shape
        if self.done < width:
            self.extend(slice(self.done, width))

    def select(self, rows: Tensor) -> None:
        """Go on with these of the images."""
        self.values, self.embedded = self.values[rows], self.embedded[rows]
        for kept in (
            self.biases,
            self.inputs,
            self.hidden,
            self.memory,
            self.above,
            self.memory_above,
        ):
            kept[:] = [part[rows] for part in kept]
