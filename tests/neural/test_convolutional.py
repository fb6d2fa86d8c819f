"""Convolutional networks: sizes of any kind, and the order of pixels and channels."""

import pytest
import torch

from ppl_gen.neural.convolutional import ConvolutionalDecoder, ConvolutionalEncoder

IMAGES = [(8, 8, 1), (28, 28, 1), (7, 5, 3), (1, 9, 2), (2, 3, 1)]


@pytest.mark.parametrize("image", IMAGES)
def test_any_size_there_and_back(image):
    size = image[0] * image[1] * image[2]
    encoder = ConvolutionalEncoder(image, 2, 6, (4, 8, 8), extra=(1, 3))
    assert encoder(torch.randn(2, 3 * size + 3)).shape == (2, 6)
    decoder = ConvolutionalDecoder(5, image, 2, (4, 8, 8))
    assert decoder(torch.randn(4, 2, 5)).shape == (4, 2, 2 * size)


@pytest.mark.parametrize("image", IMAGES)
def test_the_largest_map(image):
    decoder = ConvolutionalDecoder(5, image, 2, (4, 8, 3))
    found = []
    for part in decoder.modules():
        part.register_forward_hook(lambda module, inputs, output: found.append(output.numel()))
    decoder(torch.randn(1, 5))
    assert decoder.widest == max(found)


def test_the_order_of_rows_is_that_of_numpy():
    # One convolution whose middle weight is the identity of channel 1's second feature.
    image = (4, 4, 2)
    encoder = ConvolutionalEncoder(image, 2, 4, (1,))
    with torch.no_grad():
        convolution = encoder.convolutions[0]
        convolution.weight.zero_()
        convolution.bias.zero_()
        convolution.weight[0, 3, 1, 1] = 1.0  # channel 1, feature 1
        encoder.last.weight.copy_(torch.eye(4))
        encoder.last.bias.zero_()
    pixels = torch.arange(64.0).reshape(4, 4, 2, 2)  # H, W, C, features
    assert encoder(pixels.reshape(1, -1))[0].tolist() == pixels[::2, ::2, 1, 1].flatten().tolist()


def test_particles_are_rows():
    torch.manual_seed(0)
    encoder = ConvolutionalEncoder((5, 5, 1), 1, 3, (4,), extra=(0, 2))
    decoder = ConvolutionalDecoder(3, (5, 5, 1), 1, (4,))
    x = torch.randn(2, 3, 27)
    torch.testing.assert_close(encoder(x)[1], encoder(x[1]))
    z = torch.randn(2, 3, 3)
    torch.testing.assert_close(decoder(z)[1], decoder(z[1]))
