import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch.autograd.functional import jacobian

from ppl_gen.neural.transforms.guides import GUIDE_ONLY, Planar


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def normal(width):
    return dist.Normal(torch.zeros(width), 1.0).to_event(1)


def moved(flow):
    with torch.no_grad():
        for weight in flow.parameters():
            weight.copy_(torch.randn_like(weight))
    return flow


@pytest.mark.parametrize("kind", GUIDE_ONLY.values(), ids=GUIDE_ONLY)
@pytest.mark.parametrize("width", [1, 3, 6])
@pytest.mark.parametrize("context_width", [0, 2])
def test_the_determinant_is_that_of_the_jacobian(kind, width, context_width):
    flow = moved(kind(width, context_width)).double()
    x = torch.randn(3, width, dtype=torch.float64)
    context = torch.randn(3, context_width, dtype=torch.float64)
    transform = flow.condition(context) if context_width else flow
    log_det = transform.log_abs_det_jacobian(x, transform(x))
    for row in range(3):
        one = flow.condition(context[row]) if context_width else flow
        sign, expected = torch.linalg.slogdet(jacobian(one, x[row]))
        assert sign > 0  # it turns nothing round, so it is one to one
        # Rounding of a 6 x 6 determinant.
        torch.testing.assert_close(log_det[row], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", GUIDE_ONLY.values(), ids=GUIDE_ONLY)
def test_draws_are_scored_and_data_are_refused(kind):
    guide = dist.TransformedDistribution(normal(2), [moved(kind(2)), moved(kind(2))])
    first, second = guide.rsample((4,)), guide.rsample((4,))
    # Both are known, in any order and more than once, while they live.
    for draws in (first, second, first):
        assert torch.isfinite(guide.log_prob(draws)).all()
    with pytest.raises(NotImplementedError, match=r"no closed-form inverse.*\"nsf\""):
        guide.log_prob(first.detach().clone())
    with pytest.raises(NotImplementedError, match=r"has no density of data"):
        kind(2).inverse_and_log_det(first)


@pytest.mark.parametrize("kind", GUIDE_ONLY.values(), ids=GUIDE_ONLY)
def test_densities_of_draws_integrate_to_one(kind):
    # E_q[target / q] = 1 for a target that q covers; 20,000 weights that vary by about their size.
    flow = kind(2).double()
    base = dist.Normal(torch.zeros(2, dtype=torch.float64), 1.5).to_event(1)
    guide = dist.TransformedDistribution(base, [flow, kind(2).double()])
    draws = guide.sample((20_000,))
    target = dist.Normal(torch.zeros(2, dtype=torch.float64), 0.7).to_event(1)
    ratio = (target.log_prob(draws) - guide.log_prob(draws)).exp()
    error = float(ratio.std()) / len(draws) ** 0.5
    assert abs(float(ratio.mean()) - 1.0) < 4.0 * error
    assert error < 0.05


def test_nothing_is_stale_after_an_update():
    flow = moved(Planar(2))
    x = torch.randn(3, 2)
    before = flow(x)
    with torch.no_grad():
        flow.start.add_(0.3)
    after = flow(x)
    assert not torch.allclose(before, after)
    expected = torch.linalg.slogdet(jacobian(flow, x[0]))[1]
    torch.testing.assert_close(flow.log_abs_det_jacobian(x, after)[0], expected)


def test_copies_have_draws_of_their_own():
    flow = moved(Planar(2))
    draws = flow(torch.randn(3, 2))
    twin = copy.deepcopy(flow)
    assert torch.equal(twin.start, flow.start)
    with pytest.raises(NotImplementedError):
        twin.inv(draws)
    assert flow.inv(draws).shape == (3, 2)


@pytest.mark.parametrize("kind", GUIDE_ONLY.values(), ids=GUIDE_ONLY)
def test_a_guide_learns_by_them(kind):
    # A bent posterior: no normal of independent entries fits it.
    def model():
        z = pyro.sample("z", normal(2))
        pyro.sample("y", dist.Normal(z[..., 0] ** 2 + z[..., 1], 0.5), obs=torch.tensor(1.0))

    pyro.set_rng_seed(0)
    flows = torch.nn.ModuleList([kind(2) for _ in range(4)])

    def guide():
        pyro.module("flows", flows)
        pyro.sample("z", dist.TransformedDistribution(normal(2), list(flows)))

    pyro.clear_param_store()
    elbo = Trace_ELBO(num_particles=16, vectorize_particles=True)
    with torch.no_grad():
        before = torch.tensor([elbo.loss(model, guide) for _ in range(20)])
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), elbo)
    losses = torch.tensor([svi.step() for _ in range(150)])
    pyro.clear_param_store()
    assert torch.isfinite(losses).all()
    # Over other first weights the gain was .84 nats (planar) to 12.8.
    assert losses[-20:].mean() < before.mean() - 0.5


def test_a_step_on_the_meta_device():
    for kind in GUIDE_ONLY.values():
        flow = kind(3).to("meta")
        x, log_det = flow.forward_and_log_det(torch.empty(4, 3, device="meta"))
        (x.sum() + log_det.sum()).backward()
        assert flow.start.grad.device.type == "meta"
