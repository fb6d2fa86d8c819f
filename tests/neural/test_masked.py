"""What an output may depend on, by the Jacobian of autograd, for all kinds of masked network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jacrev, vmap

from ppl_gen.neural.masked import MaskedLinear, MaskedNetwork


def dependence(network, n_inputs=1, context_width=0):
    """Which variable's outputs depend on which variable's inputs, at any of several points."""
    x = torch.randn(64, network.width * n_inputs, dtype=torch.float64)
    contexts = [torch.randn(64, context_width, dtype=torch.float64)] if context_width else []
    slopes = vmap(jacrev(network))(x, *contexts)  # of the first argument
    found = (slopes.abs().amax(0) > 0).any(1)  # (variables, inputs), any output
    return found.reshape(network.width, network.width, n_inputs)


def earlier(network):
    """Which variable comes before which."""
    position = torch.argsort(network.sequence)
    return position[:, None] > position


@settings(max_examples=15)
@given(
    width=st.integers(1, 6),
    n_outputs=st.integers(1, 3),
    n_inputs=st.integers(1, 3),
    context_width=st.integers(0, 2),
    residual=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_outputs_see_all_variables_before_and_no_other(
    width, n_outputs, n_inputs, context_width, residual, seed
):
    torch.manual_seed(seed)
    order = torch.randperm(width).tolist()
    network = MaskedNetwork(
        width,
        n_outputs,
        (32, 32),
        context_width=context_width,
        n_inputs=n_inputs,
        order=order,
        residual=residual,
        activation=torch.nn.Tanh,
    ).double()
    seen = dependence(network, n_inputs, context_width)
    for one_input in seen.unbind(-1):
        assert torch.equal(one_input, earlier(network))


def test_fewer_units_than_variables_are_spread_over_them():
    torch.manual_seed(0)
    network = MaskedNetwork(12, 1, (4,), activation=torch.nn.Tanh).double()
    seen = dependence(network)[..., 0]
    assert seen[-1, :-1].all()
    assert not (seen & ~earlier(network)).any()


@pytest.mark.parametrize("residual", [False, True])
def test_random_degrees_hide_what_comes_after(residual):
    torch.manual_seed(0)
    network = MaskedNetwork(5, 2, (40, 40), degrees="random", residual=residual).double()
    assert not (dependence(network)[..., 0] & ~earlier(network)).any()


@pytest.mark.parametrize("width", [1, 2, 5])
def test_every_output_sees_the_context(width):
    torch.manual_seed(0)
    network = MaskedNetwork(width, 3, (32,), context_width=2, activation=torch.nn.Tanh).double()
    x = torch.randn(16, width, dtype=torch.float64)
    context = torch.randn(16, 2, dtype=torch.float64)
    slopes = vmap(jacrev(network, argnums=1))(x, context)
    assert (slopes.abs().amax(0) > 0).all()


def test_one_variable_alone_has_the_outputs_it_has_among_all():
    torch.manual_seed(0)
    network = MaskedNetwork(4, 3, (16, 16), context_width=2, order=[2, 0, 3, 1]).double()
    x = torch.randn(7, 4, dtype=torch.float64)
    context = torch.randn(7, 2, dtype=torch.float64)
    outputs = network(x, context)
    for variable in range(4):
        alone = network.of_variable(torch.tensor([variable]), x, context)
        torch.testing.assert_close(alone, outputs[:, variable])


def test_one_context_serves_all_rows():
    network = MaskedNetwork(3, 1, (8,), context_width=2)
    x, context = torch.randn(4, 5, 3), torch.randn(2)
    expected = network(x.reshape(-1, 3), context.expand(20, 2)).reshape(4, 5, 3, 1)
    torch.testing.assert_close(network(x, context), expected)


def test_a_variable_alone_has_constant_outputs():
    network = MaskedNetwork(1, 2, (8,))
    outputs = network(torch.randn(5, 1))
    assert outputs.shape == (5, 1, 2)
    assert (outputs == outputs[0]).all()


def test_masked_weights_stay_at_no_effect_through_training():
    torch.manual_seed(0)
    network = MaskedNetwork(3, 1, (16,)).double()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        network(torch.randn(8, 3, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    assert torch.equal(dependence(network)[..., 0], earlier(network))


def test_a_mask_that_hides_nothing_is_not_kept():
    assert MaskedLinear(torch.ones(3, 2, dtype=torch.bool)).mask is None
    assert MaskedLinear(torch.eye(3, dtype=torch.bool)).mask is not None


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [1, 2, 3]])
def test_an_order_that_is_none_is_refused(order):
    with pytest.raises(ValueError, match="each of the variables 0 to 2 once"):
        MaskedNetwork(3, 1, order=order)


def test_residual_blocks_of_two_widths_are_refused():
    with pytest.raises(ValueError, match="one width throughout"):
        MaskedNetwork(3, 1, (8, 16), residual=True)
