"""Guides against explicit formulas: transforms and Jacobians, covariances."""

import pytest
import torch
from pyro.distributions.transforms import AffineAutoregressive
from torch.distributions import MultivariateNormal, Normal
from torch.nn.functional import softplus

from ppl_gen.neural.amortised import POSTERIORS, SCALE_FLOOR, FullRank, InverseAutoregressive

SIZE = 3


def guide(name, n=5):
    torch.manual_seed(0)
    posterior = POSTERIORS[name](SIZE).double()
    return posterior(torch.randn(n, posterior.n_parameters, dtype=torch.float64))


@pytest.mark.parametrize("name", POSTERIORS)
def test_shapes(name):
    found = guide(name)
    assert found.batch_shape == (5,)
    assert found.event_shape == (SIZE,)
    z = found.rsample((7,))
    assert found.log_prob(z).shape == (7, 5)


@pytest.mark.parametrize("name", POSTERIORS)
def test_densities_of_guides_integrate_to_one(name):
    found = guide(name, n=1)
    torch.manual_seed(1)
    wide = Normal(torch.zeros(SIZE, dtype=float), 4.0)
    z = wide.sample((100_000,))
    with torch.no_grad():
        weights = (found.log_prob(z[:, None])[:, 0] - wide.log_prob(z).sum(-1)).exp()
    error = weights.std() / len(weights) ** 0.5
    assert abs(weights.mean() - 1.0) < 5 * error


def test_full_rank_is_the_normal_of_its_factor():
    torch.manual_seed(0)
    parameters = torch.randn(2, FullRank(SIZE).n_parameters, dtype=torch.float64)
    found = FullRank(SIZE)(parameters)
    for row, numbers in enumerate(parameters):
        factor = torch.zeros(SIZE, SIZE, dtype=torch.float64)
        place = 2 * SIZE
        for i in range(SIZE):
            factor[i, i] = softplus(numbers[SIZE + i]) + SCALE_FLOOR
            for j in range(i):
                factor[i, j] = numbers[place]
                place += 1
        exact = MultivariateNormal(numbers[:SIZE], factor @ factor.T)
        z = torch.randn(SIZE, dtype=torch.float64)
        torch.testing.assert_close(found.log_prob(z)[row], exact.log_prob(z))


def test_flow_density_is_that_of_the_base_less_the_jacobian():
    torch.manual_seed(0)
    posterior = InverseAutoregressive(SIZE).double()
    parameters = torch.randn(1, posterior.n_parameters, dtype=torch.float64)
    found = posterior(parameters)
    loc, scale, _ = parameters[0].chunk(3)
    base = Normal(loc, softplus(scale) + SCALE_FLOOR)
    start = base.sample()

    def forward(u):
        for flow in posterior(parameters).transforms:
            u = flow(u[None])[0]
        return u

    jacobian = torch.autograd.functional.jacobian(forward, start)
    z = forward(start)
    exact = base.log_prob(start).sum() - jacobian.det().abs().log()
    torch.testing.assert_close(found.log_prob(z[None])[0], exact)
    # All latents depend on all: the order is turned round between the flows.
    assert (jacobian != 0).all()


def test_densities_of_draws_follow_the_weights():
    torch.manual_seed(0)
    posterior = InverseAutoregressive(SIZE).double()
    parameters = torch.randn(4, posterior.n_parameters, dtype=torch.float64)
    z = posterior(parameters).rsample().detach()
    before = posterior(parameters).log_prob(z)
    with torch.no_grad():
        for weight in posterior.parameters():
            weight.add_(0.1)
    after = posterior(parameters).log_prob(z)
    assert (before - after).abs().min() > 1e-6


@pytest.mark.parametrize("latent_dim", [2, 5, 70])
def test_the_inverse_of_flows_is_that_of_pyro(latent_dim):
    posterior = InverseAutoregressive(latent_dim).double()
    context = torch.randn(3, latent_dim).double()
    y = torch.randn(4, 3, latent_dim).double()
    for flow in posterior.flows:
        ours = flow.condition(context)
        peer = AffineAutoregressive(ours.arn, stable=True)
        x = ours.inv(y)
        torch.testing.assert_close(x, peer.inv(y))
        torch.testing.assert_close(
            ours.log_abs_det_jacobian(x, y), peer.log_abs_det_jacobian(peer.inv(y), y)
        )
        torch.testing.assert_close(flow.condition(context)(x), y)
        gradient, expected = (
            torch.autograd.grad(t.inv(y * 1.0).square().sum(), list(flow.nn.parameters()))
            for t in (flow.condition(context), AffineAutoregressive(ours.arn, stable=True))
        )
        torch.testing.assert_close(gradient, expected)
    meta = posterior.to("meta")(torch.zeros(3, 3 * latent_dim, device="meta").double())
    assert meta.log_prob(y.to("meta")).shape == (4, 3)
