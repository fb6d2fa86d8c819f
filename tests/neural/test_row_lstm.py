"""The row LSTM: as its equations, step by step, and its triangle of rows above."""

import torch
import torch.nn.functional as F
from pixel_networks import network_of, seen_by_pixels

from ppl_gen.neural.pixels import channel_groups
from ppl_gen.neural.row_lstm import PixelRNN, RowLSTM


def test_one_column_is_torchs_lstm():
    torch.manual_seed(0)
    layer = RowLSTM(channel_groups(5, 1), kernel_size=1).double()
    lstm = torch.nn.LSTM(5, 5, batch_first=True).double()
    order = [0, 1, 3, 2]  # torch has the new content before the output gate
    weights = layer.input_to_state.weight, layer.state_to_state.weight
    with torch.no_grad():
        for theirs, ours in zip((lstm.weight_ih_l0, lstm.weight_hh_l0), weights, strict=True):
            theirs.copy_(ours[:, :, 0, 0].unflatten(0, (4, 5))[order].flatten(0, 1))
        lstm.bias_ih_l0.copy_(layer.input_to_state.bias.unflatten(0, (4, 5))[order].flatten())
        lstm.bias_hh_l0.zero_()
        x = torch.randn(3, 5, 7, 1).double()  # seven rows of one column
        hidden = lstm(x[..., 0].mT)[0].mT[..., None]
        expected = x + F.conv2d(hidden, layer.output.weight, layer.output.bias)
        torch.testing.assert_close(layer(x, 0.0), expected)


def test_a_narrow_kernel_sees_a_triangle():
    network = network_of(PixelRNN, (4, 7, 1), 2, kernel_size=3, n_layers=3)
    seen = seen_by_pixels(network).reshape(28, 4, 7)[7 * 3 + 2]
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(7), indexing="ij")
    # A column to the right for every row up, and one more by the convolution that comes first.
    triangle = (columns - 2 <= 3 - rows) & (rows < 3)
    assert torch.equal(seen, triangle | ((rows == 3) & (columns < 2)))
