"""Levels: masses that sum to one, against the logistic's own distribution function."""

import pytest
import torch

from ppl_gen.neural.levels import (
    DiscretisedLogisticMixture,
    level_distribution,
    level_parameters,
)


@pytest.mark.parametrize("n_levels", [2, 3, 17, 256])
@pytest.mark.parametrize("n_logistics", [None, 1, 4])
def test_masses_sum_to_one(n_levels, n_logistics):
    torch.manual_seed(0)
    parameters = torch.randn(50, level_parameters(n_levels, n_logistics), dtype=torch.float64)
    levels = level_distribution(parameters * 3.0, n_levels, n_logistics)
    total = levels.log_prob(torch.arange(n_levels)[:, None].double()).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0.0, atol=1e-12)


def test_mass_is_that_of_the_bin():
    torch.manual_seed(0)
    mean, log_scale = torch.tensor([0.3, -0.8]).double(), torch.tensor([-1.0, 0.5]).double()
    parameters = torch.cat([torch.tensor([0.2, -0.4]).double(), mean, log_scale])
    levels = level_distribution(parameters.expand(9, 6), 9, 2)
    edges = (torch.arange(10.0).double() - 0.5) / 4.0 - 1.0
    edges[0], edges[-1] = -torch.inf, torch.inf
    below = torch.sigmoid((edges[:, None] - mean) / log_scale.exp())
    weights = torch.tensor([0.2, -0.4]).double().softmax(0)
    expected = (below.diff(dim=0) * weights).sum(-1)
    torch.testing.assert_close(levels.log_prob(torch.arange(9.0).double()).exp(), expected)


def test_a_far_level_keeps_a_finite_log_mass_and_gradient():
    parameters = torch.tensor([0.0, 1.0, -9.0], requires_grad=True)
    density = level_distribution(parameters, 256, 1).log_prob(torch.tensor(0.0))
    density.backward()
    # 2 scales of exp(7) away: log mass near -2 exp(7), which no subtraction of sigmoids gives.
    assert -2300.0 < density.item() < -2100.0
    assert torch.isfinite(parameters.grad).all()


@pytest.mark.parametrize("size", [100.0, 1000.0])
def test_parameters_of_any_size_keep_masses_and_gradients_finite(size):
    # A row far out has a network put out numbers that are as large.
    torch.manual_seed(0)
    parameters = (size * torch.randn(200, 1, 9)).requires_grad_()
    found = level_distribution(parameters, 256, 3).log_prob(torch.arange(256.0).expand(200, -1))
    assert found.isfinite().all()
    (gradient,) = torch.autograd.grad(found.sum(), parameters)
    assert gradient.isfinite().all()
    # Eight roundings of 6e-8 to the bin.
    torch.testing.assert_close(found.exp().sum(1), torch.ones(200), atol=1e-5, rtol=0)


def test_draws_have_the_masses():
    torch.manual_seed(0)
    parameters = torch.tensor([0.5, -0.5, -0.6, 0.9, -2.0, -1.0]).expand(40_000, 6)
    drawn = level_distribution(parameters, 6, 2).sample()
    frequencies = torch.bincount(drawn.long(), minlength=6) / len(drawn)
    masses = level_distribution(parameters[:6], 6, 2).log_prob(torch.arange(6.0)).exp()
    # Four standard errors of a frequency.
    assert ((frequencies - masses).abs() < 4.0 * (masses / len(drawn)).sqrt() + 1e-4).all()


def test_numbers_without_end_have_all_the_mass():
    parameters = torch.tensor([[0.5, -0.5, -0.6, 0.9, -1.0, -0.5]], dtype=torch.float64)
    numbers = torch.arange(-500.0, 1000.0, dtype=torch.float64)[:, None]
    for lowest in (0.0, -torch.inf):
        counts = DiscretisedLogisticMixture(parameters, lowest, torch.inf, loc=20.0, scale=9.0)
        inside = numbers[numbers[:, 0] >= lowest]
        # Beyond the numbers summed lie some 50 scales of the wider logistic.
        assert counts.log_prob(inside).exp().sum().item() == pytest.approx(1.0, abs=1e-12)
