"""MADE: densities that sum and integrate to one, factors that see what they may, draws."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from ppl_gen.neural.made import Column, MaskedAutoencoder

BINARY = Column("category", n_levels=2, lowest=0.0)
#: Levels that start elsewhere; counts; heights.
THREE = Column("category", n_levels=3, lowest=-1.0)
COUNT = Column("whole", lowest=0.0, loc=2.0, scale=1.5)
NUMBER = Column("number", loc=1.0, scale=2.0)


def network_of(columns, orders=None, scale=1.5, **settings):
    torch.manual_seed(0)
    orders = [list(range(len(columns)))] if orders is None else orders
    settings = {"hidden": (24, 24), "n_components": 2} | settings
    network = MaskedAutoencoder(columns, orders, **settings).double().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(scale)
    return network


def grid(*values):
    points = itertools.product(*(np.asarray(v, dtype=float) for v in values))
    return torch.tensor(list(points), dtype=torch.float64)


@pytest.mark.parametrize("context_width", [0, 3])
@pytest.mark.parametrize("n_orders", [1, 3])
def test_masses_of_all_binary_rows_sum_to_one(context_width, n_orders):
    orders = [np.random.default_rng(o).permutation(9).tolist() for o in range(n_orders)]
    network = network_of([BINARY] * 9, orders, context_width=context_width)
    rows = grid(*[[0, 1]] * 9)
    context = torch.randn(1, context_width).double().expand(len(rows), -1)
    density = network.log_prob(rows, context if context_width else None)
    assert density.std() > 0.1  # not merely uniform
    assert density.exp().sum().item() == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_levels_of_several_counts_sum_to_one(order):
    columns = [THREE, BINARY, Column("category", n_levels=5, lowest=2.0)]
    rows = grid([-1, 0, 1], [0, 1], range(2, 7))
    total = network_of(columns, [order]).log_prob(rows).exp().sum()
    assert total.item() == pytest.approx(1.0, abs=1e-10)


def test_two_numbers_integrate_to_one():
    axis = np.linspace(-39.0, 41.0, 401)  # twenty units of the columns to each side
    with torch.no_grad():
        density = network_of([NUMBER, NUMBER], [[1, 0]], scale=1.0).log_prob(grid(axis, axis))
    # The trapezoid rule is exact to rounding for what is smooth on its scale of 0.2.
    assert density.exp().sum().item() * 0.2**2 == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_mixed_columns_integrate_to_one(order):
    axis = np.linspace(-39.0, 41.0, 401)
    network = network_of([THREE, COUNT, NUMBER], [order], scale=1.0)
    with torch.no_grad():
        density = network.log_prob(grid([-1, 0, 1], range(80), axis))
    assert density.exp().sum().item() * 0.2 == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_a_column_sees_all_before_it_and_none_after(order):
    network = network_of([NUMBER, THREE, COUNT, BINARY], [order], hidden=(60, 60))
    inputs = torch.randn(16, 4 * network.n_inputs, dtype=torch.float64, requires_grad=True)
    outputs = network.networks[0](inputs, None)
    places = {column: place for place, column in enumerate(order)}
    for column in range(4):
        told = outputs[:, column]
        (gradient,) = torch.autograd.grad(
            (told * torch.randn_like(told)).sum(), inputs, retain_graph=True
        )
        seen = gradient.reshape(16, 4, -1).abs().sum((0, 2)) > 0.0
        assert seen.tolist() == [places[other] < places[column] for other in range(4)]


@pytest.mark.parametrize("n_orders", [1, 2])
def test_draws_of_levels_have_the_masses(n_orders):
    orders = [[2, 0, 1], [1, 0, 2]][:n_orders]
    network = network_of([THREE, BINARY, THREE], orders)
    rows = grid([-1, 0, 1], [0, 1], [-1, 0, 1])
    torch.manual_seed(1)
    drawn = network.sample(20_000)
    counts = [(drawn == row).all(1).sum().item() for row in rows]
    with torch.no_grad():
        masses = network.log_prob(rows).exp().numpy()
    assert chisquare(counts, masses * sum(counts)).pvalue > 1e-3


def test_one_row_is_drawn_by_one_order_of_several():
    network = network_of([NUMBER, THREE, COUNT], [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
    assert torch.isfinite(network.sample(1)).all()  # two of the orders draw none


def test_draws_of_mixed_columns_have_the_moments():
    network = network_of([NUMBER, COUNT], [[1, 0]], scale=1.0)
    points = grid(np.linspace(-39.0, 41.0, 401), range(80))
    with torch.no_grad():
        mass = network.log_prob(points).exp() * 0.2
    torch.manual_seed(2)
    drawn = network.sample(40_000)
    assert torch.equal(drawn[:, 1], drawn[:, 1].round())
    for power in (1, 2):
        expected = (mass[:, None] * points**power).sum(0)
        found = drawn**power
        error = found.std(0) / math.sqrt(len(drawn))
        assert ((found.mean(0) - expected).abs() < 4.0 * error).all()


@pytest.mark.parametrize("orders", [[[0, 1, 2]], [[0, 1, 2], [2, 1, 0]]])
def test_gaps_are_drawn_given_all_that_is_known(orders):
    network = network_of([BINARY, THREE, BINARY], orders, scale=2.5)
    x = torch.tensor([[torch.nan, 0.0, 1.0]], dtype=torch.float64).expand(2000, 3)
    torch.manual_seed(3)
    found = network.complete(x, n_particles=30)
    drawn = found.draw()
    assert (drawn[:, 1:] == x[:, 1:]).all()
    with torch.no_grad():
        joint = network.log_prob(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]).double()).exp()
    expected = joint[1] / joint.sum()
    # Four standard errors, and the bias of 30 particles.
    assert abs(drawn[:, 0].mean() - expected) < 4.0 * 0.5 / 2000**0.5 + 0.01
    if len(orders) > 1:  # then all that is known is evidence
        assert found.log_evidence.exp().mean().item() == pytest.approx(joint.sum().item(), rel=0.02)


def test_gaps_at_the_end_of_the_order_are_left_out_exactly():
    network = network_of([BINARY, THREE, COUNT], [[1, 2, 0]])
    rows = torch.tensor([[torch.nan, 1.0, 3.0], [1.0, 1.0, 3.0], [0.0, 1.0, 3.0]]).double()
    density = network.log_prob(rows).exp()
    assert density[0].item() == pytest.approx((density[1] + density[2]).item(), rel=1e-12)


def test_maximum_likelihood_of_one_binary_column_is_its_frequency():
    network = network_of([BINARY])
    x = torch.tensor([[1.0]] * 3 + [[0.0]] * 7).double()
    weights = [network.networks[0].head.bias]
    for _ in range(100):  # its logits are all that one column without a context depends on
        (gradient,) = torch.autograd.grad(-network.log_prob(x).mean(), weights)
        with torch.no_grad():
            weights[0] -= 4.0 * gradient
    found = network.log_prob(torch.tensor([[1.0]]).double()).exp().item()
    assert found == pytest.approx(0.3, abs=1e-9)


def test_components_start_apart():
    network = MaskedAutoencoder([NUMBER, BINARY], [[0, 1]], n_components=5)
    inputs = network.encode(torch.zeros(1, 2))
    means = network.networks[0](inputs, None)[0, 0, 5:10]
    assert (means.diff() > 0.0).all()
    assert means[-1] - means[0] > 1.0


def test_a_step_on_the_meta_device():
    columns = [NUMBER, BINARY, COUNT, THREE]
    orders = [[0, 1, 2, 3], [3, 2, 1, 0]]
    network = MaskedAutoencoder(columns, orders, context_width=2).to("meta")
    x, context = torch.empty(5, 4, device="meta"), torch.empty(5, 2, device="meta")
    loss = -network.log_prob(x, context).mean()
    loss.backward()
    assert loss.device.type == "meta"


def test_rows_far_out_keep_a_finite_density_and_gradient():
    network = MaskedAutoencoder([NUMBER, COUNT], [[0, 1]])
    density = network.log_prob(torch.tensor([[200.0, 150.0], [-200.0, 0.0]]))  # 100 units out
    density.sum().backward()
    assert torch.isfinite(density).all()
    assert all(torch.isfinite(weight.grad).all() for weight in network.parameters())
