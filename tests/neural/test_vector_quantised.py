"""The vector-quantised autoencoder as a module, and the stage of training that makes its codes."""

import math

import numpy as np
import pyro
import pytest
import torch

from ppl_gen.inference.vector_quantisation import VectorQuantisation
from ppl_gen.neural.code_grids import GridDecoder, GridEncoder, grid_sizes
from ppl_gen.neural.likelihoods import BernoulliLikelihood
from ppl_gen.neural.perceptrons import perceptron
from ppl_gen.neural.pixels import PixelCNN
from ppl_gen.neural.quantisation import VectorQuantiser
from ppl_gen.neural.vector_quantised import CodeFrequencies, VectorQuantisedAutoencoder

D, T, K, V = 5, 2, 3, 2


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(params=["frequencies", "pixelcnn"])
def network(request):
    density = (
        CodeFrequencies(T, K)
        if request.param == "frequencies"
        else PixelCNN((1, T, 1), K, n_filters=4, n_layers=2, kernel_size=3)
    )
    return VectorQuantisedAutoencoder(
        D,
        BernoulliLikelihood(),
        perceptron(D, (6,), T * V),
        VectorQuantiser(K, V),
        perceptron(T * V, (6,), D),
        density,
    ).double()


def everything(size, levels):
    return torch.cartesian_prod(*[torch.arange(float(levels)).double()] * size)


def test_the_bound_is_one_term_of_the_sum_over_codes(network):
    network.eval()
    x = everything(D, 2)
    codes = everything(T, K)
    with torch.no_grad():
        terms = torch.stack(
            [
                network.code_density.log_prob(code[None])
                + network.reconstruction(
                    x, network.quantiser.embed(code.long()).expand(len(x), T, V)
                )
                for code in codes
            ],
            -1,
        )
        exact = terms.logsumexp(-1)
        found = network.log_prob(x)
        place = (network.encode(x).codes * torch.tensor([K, 1])).sum(-1)
    torch.testing.assert_close(exact.exp().sum(), torch.tensor(1.0).double())
    torch.testing.assert_close(found, terms.gather(1, place[:, None])[:, 0])
    assert (found <= exact).all()


def test_frequencies_are_counts():
    density = CodeFrequencies(2, 3)
    assert density.log_prob(torch.zeros(1, 2)).exp().item() == pytest.approx(1 / 9)
    codes = torch.tensor([[0, 2], [0, 1], [1, 2]])
    density.count(codes)
    # One more than were counted, of three and three.
    expected = math.log(3 / 6) + math.log(3 / 6)
    assert density.log_prob(torch.tensor([[0.0, 2.0]])).item() == pytest.approx(expected)
    density.count(codes, torch.tensor([2.0, 0.0, 1.0]))
    assert density.log_prob(torch.tensor([[1.0, 1.0]])).item() == pytest.approx(math.log(2 / 36))
    drawn = density.sample(4000)
    assert drawn.shape == (4000, 2)
    # Five standard errors of a share of 4,000 draws.
    assert abs((drawn[:, 0] == 0).double().mean() - 3 / 6) < 5 * 0.5 / 4000**0.5


def test_draws_have_the_frequencies_that_the_program_says(network):
    network.eval()
    drawn = network.sample(3000)
    assert drawn.shape == (3000, D)
    trace = pyro.poutine.trace(network.model).get_trace(n=3000)
    assert trace.nodes["c"]["value"].shape == (3000, T)
    other = trace.nodes["x"]["value"]
    # Means of 3,000 draws each: five standard errors of a difference.
    assert (drawn.mean(0) - other.mean(0)).abs().max() < 5 * 0.5 * (2 / 3000) ** 0.5


def test_the_first_stage_leaves_the_density_of_codes_alone(network):
    objective = VectorQuantisation(network, commitment=0.5)
    later = set(network.code_density.parameters())
    assert not later & set(objective.players["loss"])
    x = torch.randint(2, (20, D)).double()
    parts = objective.losses({"x": x})
    torch.testing.assert_close(parts["loss"], parts["reconstruction"] + parts["commitment"])
    parts["loss"].backward()
    assert all(p.grad is None for p in later)
    assert all(torch.isfinite(p.grad).all() for p in objective.players["loss"])
    assert network.encoder[0].weight.grad.abs().sum() > 0  # straight through the codes
    network.eval()
    weighted = objective.losses({"x": x[:4], "weight": torch.tensor([2.0, 1.0, 1.0, 0.0]).double()})
    repeated = objective.losses({"x": x[[0, 0, 1, 2]]})
    torch.testing.assert_close(weighted["loss"], repeated["loss"])


def test_on_the_meta_device(network):
    network.to("meta")
    x = torch.zeros(7, D, dtype=torch.float64, device="meta")
    VectorQuantisation(network, 0.25).losses({"x": x})["loss"].backward()
    assert network.eval().log_prob(x).shape == (7,)


@pytest.mark.parametrize("image", [(8, 8, 1), (7, 5, 3), (1, 4, 2)])
def test_grids_keep_the_order_of_places(image):
    """What changes in a corner changes the vector of that corner, and back."""
    height, width, depth = image
    encoder = GridEncoder(image, 1, V, (4, 4)).double()
    decoder = GridDecoder(image, 2, V, (4, 4)).double()
    rows = torch.randn(3, height * width * depth).double()
    grid = grid_sizes(image, 2)[-1]
    vectors = encoder(rows)
    assert vectors.shape == (3, math.prod(grid) * V)
    assert decoder(vectors).shape == (3, height * width * depth * 2)
    if image[0] == 8:
        moved = rows.clone()
        moved[:, 0] += 1.0
        changed = (encoder(moved) - vectors).reshape(3, *grid, V).abs().sum((0, -1))
        assert changed[0, 0] > 0
        codes = np.zeros((1, 4 * V))
        corner = codes.copy()
        corner[0, -1] = 1.0  # of the last place
        told = [decoder(torch.as_tensor(c)).reshape(8, 8, 2) for c in (codes, corner)]
        assert (told[0] - told[1])[-1, -1].abs().sum() > 0


def test_frequencies_in_place_of_a_network_that_was_not_trained(network):
    codes = torch.tensor([[0, 1], [0, 2], [0, 1], [2, 2]])
    network.count_codes(codes, torch.tensor([1.0, 1.0, 2.0, 0.0]).double())
    found = network.code_density.log_prob(everything(T, K)).exp()
    if isinstance(network.code_density, CodeFrequencies):
        first, second = torch.tensor([5.0, 1.0, 1.0]) / 7, torch.tensor([1.0, 4.0, 2.0]) / 7
    else:  # of all places together
        first = second = torch.tensor([5.0, 4.0, 2.0]) / 11
    expected = torch.cartesian_prod(first, second).prod(-1).double()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # of float32
    assert network.code_density.sample(5).shape == (5, T)
