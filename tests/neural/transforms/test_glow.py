import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.autograd.functional import jacobian

from ppl_gen.neural.transforms.glow import (
    ActNorm,
    ChannelCoupling,
    Glow,
    InvertibleConvolution,
)

SHAPES = [((4, 4), 1), ((4, 4), 2), ((4, 2, 3), 1), ((2, 2), 1)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def perturbed(module, scale=0.1):
    """Move the weights, which start near the identity."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(scale * torch.randn_like(weight))
    return module


def normal(width):
    return dist.Normal(torch.zeros(width), 1.0).to_event(1)


@pytest.mark.parametrize(
    ("kind", "settings", "channels"),
    [
        (ActNorm, (4,), 4),
        (InvertibleConvolution, (4,), 4),
        (ChannelCoupling, (5, 6), 5),
        (ChannelCoupling, (4, None), 4),
    ],
)
def test_layers_say_the_determinant_of_their_jacobian(kind, settings, channels):
    layer = perturbed(kind(*settings)).double()
    x = torch.randn(1, channels, 2, 3, dtype=torch.float64)
    y, log_det = layer(x)
    size = x.numel()
    matrix = jacobian(lambda x: layer(x)[0], x).reshape(size, size)
    # Rounding of a 30 x 30 determinant.
    torch.testing.assert_close(
        log_det.reshape(()), torch.linalg.slogdet(matrix)[1], rtol=1e-10, atol=1e-10
    )
    back, back_log_det = layer.inverse(y)
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(back_log_det, -log_det)


@pytest.mark.parametrize(("shape", "n_levels"), SHAPES)
@pytest.mark.parametrize("context_width", [0, 2])
def test_the_whole_says_the_determinant_of_its_jacobian(shape, n_levels, context_width):
    width = math.prod(shape)
    glow = perturbed(Glow(shape, n_levels, 2, 5, context_width)).double()
    x = torch.randn(2, width, dtype=torch.float64)
    context = torch.randn(2, context_width, dtype=torch.float64) if context_width else None
    z, log_det = glow.inverse_and_log_det(x, context)
    for row in range(2):
        given = None if context is None else context[row : row + 1]
        matrix = jacobian(lambda x, c=given: glow.inverse_and_log_det(x[None], c)[0][0], x[row])
        torch.testing.assert_close(
            log_det[row], torch.linalg.slogdet(matrix)[1], rtol=1e-9, atol=1e-9
        )
    back, back_log_det = glow.forward_and_log_det(z, context)
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(back_log_det, -log_det, rtol=1e-10, atol=1e-10)


def test_float32_comes_back():
    glow = perturbed(Glow((8, 8), 2, 2, 8), 0.03)
    z = torch.randn(5, 64)
    back = glow.inverse_and_log_det(glow.forward_and_log_det(z)[0])[0]
    torch.testing.assert_close(back, z, rtol=1e-5, atol=1e-5)


def test_entries_of_rows_are_channels_last():
    # A coupling that the colour of pixels sets: only the entries of other pixels move with it if
    # rows are read as (H, W, C). The squeeze is local, so a row of pixels apart is not touched.
    glow = perturbed(Glow((2, 4, 3), 1, 1, 4), 0.5)
    for module in glow.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            with torch.no_grad():  # of a 3x3 kernel, the middle alone: no neighbour is seen
                middle = module.weight[:, :, 1, 1].clone()
                module.weight.zero_()
                module.weight[:, :, 1, 1] = middle
    x = torch.randn(24)
    block = torch.zeros(2, 4, 3, dtype=torch.bool)
    block[:, :2] = True  # the left 2x2 pixels
    moved = jacobian(lambda x: glow.inverse_and_log_det(x[None])[0][0], x)[:, block.flatten()]
    assert int((moved != 0).any(dim=1).sum()) == 12


def test_the_start_normalises_activations_of_every_layer_and_is_kept():
    glow, x = Glow((4, 4), 1, 3, 8), 7.0 + 3.0 * torch.randn(500, 16)
    glow.initialise(x)
    norms = [module for module in glow.modules() if isinstance(module, ActNorm)]
    assert all(norm.initialised for norm in norms)
    with torch.no_grad():
        z, _ = glow.inverse_and_log_det(x)
    assert abs(float(z.mean())) < 1e-4
    # Couplings start as the identity and convolutions as rotations: channels stay standardised on
    # average, a rotated one only about so.
    assert abs(float(z.std()) - 1.0) < 0.05
    before = {name: value.clone() for name, value in glow.state_dict().items()}
    glow.initialise(100.0 * x)
    for name, value in glow.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_start_is_saved_with_the_weights():
    glow, x = Glow((4, 4), 2, 1, 4), 7.0 + 3.0 * torch.randn(50, 16)
    glow.initialise(x)
    assert "levels.0.steps.0.initialised" in glow.state_dict()
    other = Glow((4, 4), 2, 1, 4)
    other.load_state_dict(glow.state_dict())
    assert all(m.initialised for m in other.modules() if isinstance(m, ActNorm))
    torch.testing.assert_close(
        other.inverse_and_log_det(x), glow.inverse_and_log_det(x), rtol=0.0, atol=0.0
    )


def test_a_constant_channel_keeps_its_scale():
    layer = ActNorm(2)
    x = torch.randn(8, 2, 2, 2)
    x[:, 0] = 3.0
    layer.initialise(x)
    y, log_det = layer(x)
    assert torch.isfinite(log_det)
    assert torch.equal(y[:, 0], torch.zeros(8, 2, 2))


def test_a_pyro_program_takes_it():
    glow = perturbed(Glow((4, 4), 2, 1, 4))

    def model(x=None):
        pyro.module("glow", glow)
        with pyro.plate("row", 3):
            return pyro.sample("x", dist.TransformedDistribution(normal(16), [glow]), obs=x)

    with pyro.validation_enabled(True):
        trace = pyro.poutine.trace(model).get_trace()
        drawn = trace.nodes["x"]["value"]
        again = pyro.poutine.trace(model).get_trace(drawn)
        again.compute_log_prob()
    z, log_det = glow.inverse_and_log_det(drawn)
    expected = normal(16).log_prob(z) + log_det
    torch.testing.assert_close(again.nodes["x"]["log_prob"], expected, rtol=1e-5, atol=1e-4)
    pyro.clear_param_store()


def test_contexts_are_a_batch_of_the_distribution():
    glow = perturbed(Glow((4, 4), 1, 2, 4, context_width=2))
    context, x = torch.randn(3, 2), torch.randn(5, 3, 16)
    found = dist.TransformedDistribution(normal(16), [glow.condition(context)])
    assert found.batch_shape == (3,)
    rows = [
        dist.TransformedDistribution(normal(16), [glow.condition(context[i])]).log_prob(x[:, i])
        for i in range(3)
    ]
    torch.testing.assert_close(found.log_prob(x), torch.stack(rows, 1), rtol=1e-5, atol=1e-4)
    with pytest.raises(ValueError, match=r"context of 2 was used without one"):
        glow(x)


def test_outliers_stay_finite():
    glow = perturbed(Glow((4, 4), 2, 4, 8), 0.1)
    x = 100.0 * torch.randn(50, 16)
    z, log_det = glow.inverse_and_log_det(x.requires_grad_())
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_det).all()
    (z.square().sum() - log_det.sum()).backward()
    assert all(torch.isfinite(w.grad).all() for w in glow.parameters() if w.grad is not None)


def test_a_step_on_the_meta_device():
    glow = Glow((4, 4), 2, 2, 4, context_width=2).to("meta")
    x, context = torch.empty(3, 16, device="meta"), torch.empty(3, 2, device="meta")
    z, log_det = glow.inverse_and_log_det(x, context)
    (z.square().sum() - log_det.sum()).backward()
    assert glow.forward_and_log_det(z.detach(), context)[0].device.type == "meta"


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((6, 6), {"n_levels": 2}, r"6x6 do not halve 2 times; expected multiples of 4"),
        ((8,), {}, r"expected \(H, W\) or \(H, W, C\)"),
        ((8, 8), {"n_steps": 0}, r"n_steps 0; expected 1 or more"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        Glow(shape, **arguments)
