"""The vector quantiser against brute force and by hand."""

import pytest
import torch

from ppl_gen.neural.quantisation import VectorQuantiser


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def settled(n_codes=6, code_dim=3, dtype=torch.float64):
    """A quantiser whose codes are all in use, so that none is dead."""
    quantiser = VectorQuantiser(n_codes, code_dim).to(dtype)
    quantiser.usage.fill_(10.0)
    quantiser.sums.copy_(10.0 * quantiser.codebook)
    return quantiser


@pytest.mark.parametrize("shape", [(1,), (7,), (4, 5), (2, 3, 3)])
def test_codes_are_the_nearest_entries(shape):
    quantiser = settled().eval()
    vectors = torch.randn(*shape, 3, dtype=torch.float64)
    found = quantiser(vectors)
    squares = (vectors[..., None, :] - quantiser.codebook).square().sum(-1)
    assert torch.equal(found.codes, squares.argmin(-1))
    # Straight-through adds and takes away the vector: one rounding.
    torch.testing.assert_close(found.vectors, quantiser.codebook[found.codes])
    torch.testing.assert_close(found.distance, squares.min(-1).values)


def test_gradients_go_straight_through_and_pull_to_the_code():
    quantiser = settled().eval()
    vectors = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 3, dtype=torch.float64)
    found = quantiser(vectors)
    (through,) = torch.autograd.grad((found.vectors * weights).sum(), vectors, retain_graph=True)
    torch.testing.assert_close(through, weights)
    (pull,) = torch.autograd.grad(found.distance.sum(), vectors)
    torch.testing.assert_close(pull, 2.0 * (vectors - quantiser.codebook[found.codes]).detach())


def test_a_step_moves_the_averages_as_the_paper_says():
    quantiser = settled()
    before = quantiser.usage.clone(), quantiser.sums.clone()
    vectors = torch.randn(40, 3, dtype=torch.float64)
    codes = quantiser(vectors).codes
    for k in range(6):
        own = vectors[codes == k]
        usage = 0.99 * before[0][k] + 0.01 * len(own)
        sums = 0.99 * before[1][k] + 0.01 * own.sum(0)
        torch.testing.assert_close(quantiser.usage[k], usage)
        torch.testing.assert_close(quantiser.codebook[k], sums / usage)
    assert quantiser.revived == 0


def test_nothing_is_learned_in_evaluation():
    quantiser = settled().eval()
    before = {name: value.clone() for name, value in quantiser.state_dict().items()}
    quantiser(torch.randn(40, 3, dtype=torch.float64))
    assert all(torch.equal(value, before[name]) for name, value in quantiser.state_dict().items())


def test_codes_start_at_vectors_of_the_first_batch():
    quantiser = VectorQuantiser(8, 2)
    vectors = 100.0 + torch.randn(50, 2)
    codes = quantiser(vectors).codes
    assert len(codes.unique()) == 8  # each start is nearest to itself
    assert quantiser.codebook.min() > 90.0
    assert quantiser.revived == 0
    few = VectorQuantiser(8, 2)
    few(vectors[:3])  # fewer vectors than codes: some start at the same one
    assert torch.isfinite(few.codebook).all()


def test_dead_codes_start_again_and_are_counted():
    quantiser = settled(code_dim=2)
    quantiser.codebook[4:] = 1e6  # never the nearest
    quantiser.sums[4:] = 1e6
    quantiser.usage[4:] = 1e-6
    vectors = torch.randn(60, 2, dtype=torch.float64)
    codes = quantiser(vectors).codes
    assert quantiser.revived == 2
    assert quantiser.codebook.abs().max() < 10.0
    assert {4, 5} <= set(codes.tolist())


def test_well_separated_clusters_become_the_codes():
    centres = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]])
    quantiser = VectorQuantiser(12, 2, decay=0.9)
    for _ in range(200):
        which = torch.randint(4, (64,))
        quantiser(centres[which] + 0.1 * torch.randn(64, 2))
    quantiser.eval()
    error = quantiser(centres).distance.sqrt()
    assert error.max() < 0.2  # two deviations of the clusters


@pytest.mark.parametrize("training", [True, False])
def test_on_the_meta_device(training):
    quantiser = VectorQuantiser(8, 2).to("meta").train(training)
    vectors = torch.randn(10, 4, 2, device="meta", requires_grad=True)
    found = quantiser(vectors)
    (found.vectors.sum() + found.distance.sum()).backward()
    assert found.codes.shape == (10, 4)
    assert vectors.grad is not None
