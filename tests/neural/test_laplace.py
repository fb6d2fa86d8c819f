"""Normal approximations at modes against known ones, and where there are none."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, MixtureSameFamily, MultivariateNormal, Normal
from torch.distributions import Categorical as Weights

from ppl_gen.neural.laplace import SHARE, Defensive, laplace


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_a_normal_density_is_its_own_approximation():
    factor = torch.randn(4, 3, 3, dtype=torch.float64).tril(-1) + torch.eye(3)
    exact = MultivariateNormal(torch.randn(4, 3, dtype=torch.float64), scale_tril=factor)
    found = laplace(exact.log_prob, torch.randn(4, 3, dtype=torch.float64), 1)
    torch.testing.assert_close(found.mean, exact.mean)
    torch.testing.assert_close(found.covariance_matrix, exact.covariance_matrix)


def test_a_log_concave_density_is_told_at_its_mode():
    design = torch.randn(20, 3, dtype=torch.float64)
    x = torch.randint(2, (5, 20), dtype=torch.float64)

    def log_joint(z):
        told = Bernoulli(logits=z @ design.T).log_prob(x).sum(-1)
        return told + Normal(0.0, 1.0).log_prob(z).sum(-1)

    found = laplace(log_joint, torch.zeros(5, 3, dtype=torch.float64), 8)
    for row in range(5):

        def own(z, row=row):
            return log_joint(z.expand(5, 3))[row]

        mode = found.mean[row]
        gradient = torch.autograd.functional.jacobian(own, mode)
        # Steps are chosen by densities, of which those nearer to the mode than that are alike.
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)
        hessian = torch.autograd.functional.hessian(own, mode)
        torch.testing.assert_close(found.precision_matrix[row], -hessian)


def test_steep_curvature_beside_flat_is_taken_in_float32():
    rotation = torch.linalg.qr(torch.randn(16, 6, 6, dtype=torch.float64)).Q
    steep = torch.tensor([1e8, 1e8, 3e7, 1.0, 1.0, 1.0], dtype=torch.float64)
    precision = ((rotation * steep) @ rotation.mT).float()  # to rounding not positive definite

    def log_joint(z):
        return -0.5 * torch.einsum("...ni,nij,...nj->...n", z, precision, z)

    found = laplace(log_joint, torch.zeros(16, 6), 2)
    z = found.rsample((100,))
    assert torch.isfinite(z).all()
    assert torch.isfinite(found.log_prob(z)).all()
    assert (found.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    narrow = (rotation.mT @ found.covariance_matrix.double() @ rotation)[:, :2, :2]
    # Of the two steepest directions, as it should be but for the rounding of some 1e-7.
    assert (narrow.diagonal(dim1=-2, dim2=-1) < 1e-6).all()


def test_between_two_modes_and_far_out():
    def log_joint(z):  # of two modes in the first direction, flat between them
        centres = torch.tensor([[-3.0, 0.0], [3.0, 0.0]], dtype=z.dtype)
        each = torch.distributions.Independent(Normal(centres, 1.0), 1)
        told = MixtureSameFamily(Weights(logits=torch.zeros(2, dtype=z.dtype)), each).log_prob(z)
        return torch.where(z[..., 0].abs() < 100.0, told, -math.inf)

    start = torch.tensor([[0.0, 0.5], [0.2, 0.5], [-2.0, 1.0], [500.0, 0.0]], dtype=torch.float64)
    found = laplace(log_joint, start, 10)
    assert torch.isfinite(found.mean).all()
    assert (torch.linalg.eigvalsh(found.covariance_matrix) > 0).all()
    inside = log_joint(found.mean)[:3]
    assert (inside >= log_joint(start)[:3]).all()  # no step goes down
    torch.testing.assert_close(
        found.mean[1:3, 0].abs(), torch.full((2,), 3.0).double(), atol=0.01, rtol=0
    )
    torch.testing.assert_close(found.mean[3], start[3])


def test_the_mixture_draws_what_it_says():
    one, other = (
        torch.distributions.Independent(Normal(torch.zeros(3, 2) + loc, 0.5), 1)
        for loc in (0.0, 50.0)
    )
    z, log_density = Defensive(one, other).draw(4000)
    assert z.shape == (4000, 3, 2)
    far = (z[..., 0] > 25.0).float().mean()
    assert abs(far - SHARE) < 5 * math.sqrt(SHARE * (1 - SHARE) / 12_000)  # standard errors
    expected = ((1 - SHARE) * one.log_prob(z).exp() + SHARE * other.log_prob(z).exp()).log()
    torch.testing.assert_close(log_density, expected)


def test_a_proposal_that_is_lost_leaves_the_other_alone():
    lost, other = (
        torch.distributions.Independent(Normal(loc, torch.ones(3, 2), validate_args=False), 1)
        for loc in (torch.full((3, 2), math.nan), torch.zeros(3, 2))
    )
    z, log_density = Defensive(lost, other).draw(1000)
    drawn = z.isfinite().all(-1)
    torch.testing.assert_close(log_density[drawn], math.log(SHARE) + other.log_prob(z)[drawn])
    assert (log_density[~drawn] == -math.inf).all()
