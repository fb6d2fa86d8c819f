"""A flow as a density: what brings data to it, its program, its draws, transforms of Pyro's."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import transforms as pyro_transforms

from ppl_gen.neural.flow import Flow
from ppl_gen.neural.transforms import LULinear, maf, nsf
from ppl_gen.neural.transforms.preprocessing import LocationScale, ScaledSigmoid


def test_an_identity_is_the_standard_normal():
    flow = Flow(LULinear(3), 3)
    x = torch.randn(5, 3)
    expected = dist.Normal(torch.zeros(3), 1.0).to_event(1).log_prob(x)
    torch.testing.assert_close(flow.log_prob(x), expected)


def test_units_of_the_data_are_part_of_the_density():
    loc, scale = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5])
    flow = Flow(LULinear(2), 2, [LocationScale(loc, scale)])
    x = torch.randn(5, 2)
    expected = dist.Normal(loc, scale).to_event(1).log_prob(x)
    torch.testing.assert_close(flow.log_prob(x), expected)
    torch.testing.assert_close(flow.dist().log_prob(x), expected)


def test_a_bounded_density_integrates_to_one_within_its_bounds():
    torch.manual_seed(0)
    low, high = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 3.0])
    flow = Flow(nsf(2, hidden=(8,)), 2, [ScaledSigmoid(low, high)]).double()
    share = (torch.arange(300, dtype=torch.float64) + 0.5) / 300
    grid = low + (high - low) * torch.cartesian_prod(share, share)
    with torch.no_grad():
        mass = flow.log_prob(grid).exp().sum() * 4.0 / 300**2
    assert mass.item() == pytest.approx(1.0, abs=0.01)
    assert flow.support.check(flow.sample(20)).all()
    assert not flow.support.check(high + 0.1)


@pytest.mark.parametrize("context_width", [0, 2])
def test_the_program_scores_and_draws_rows(context_width):
    torch.manual_seed(0)
    flow = Flow(maf(3, context_width=context_width, hidden=(8,)), 3)
    x = torch.randn(5, 3)
    context = torch.randn(5, context_width) if context_width else None
    pyro.clear_param_store()
    trace = poutine.trace(flow.model).get_trace(x, context)
    torch.testing.assert_close(trace.log_prob_sum(), flow.log_prob(x, context).sum())
    assert flow.model(context=context, n=5).shape == (5, 3)


def test_draws_are_one_a_context_without_gradients():
    torch.manual_seed(0)
    flow = Flow(nsf(2, context_width=1, hidden=(8,)), 2)
    context = torch.randn(7, 1)
    drawn = flow.sample(7, context)
    assert drawn.shape == (7, 2)
    assert not drawn.requires_grad
    assert flow.dist(context).batch_shape == (7,)
    assert flow.dist(context).expand((4, 7)).sample().shape == (4, 7, 2)


def test_draws_follow_the_generator():
    flow = Flow(nsf(2, hidden=(8,)), 2)
    draws = []
    for _ in range(2):
        torch.manual_seed(1)
        draws.append(flow.sample(4))
    assert torch.equal(*draws)


def test_transforms_of_pyro_will_do():
    torch.manual_seed(0)
    flow = Flow(pyro_transforms.affine_coupling(2, [8]), 2)
    x = torch.randn(5, 2)
    torch.testing.assert_close(flow.log_prob(x), flow.dist().log_prob(x))
    assert flow.sample(3).shape == (3, 2)
