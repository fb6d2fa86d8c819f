"""Monotone maps of one variable: against zuko's, autograd, and themselves turned round."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Distribution

from ppl_gen.neural.transforms import Affine, RationalQuadratic

MAPS = [Affine(), RationalQuadratic(bins=2, bound=3.0), RationalQuadratic(bins=8)]


def a_map(monotone, scale, n=2000, dtype=torch.float64):
    torch.manual_seed(0)
    parameters = scale * torch.randn(n, monotone.n_parameters, dtype=dtype)
    return 3 * torch.randn(n, dtype=dtype), parameters


@pytest.mark.parametrize("monotone", MAPS)
# Slopes reach e^7 and curvatures beyond, by which rounding grows: 1e-16 e^7 is 1e-13.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_there_and_back(monotone, dtype, tolerance):
    x, parameters = a_map(monotone, 0.5, dtype=dtype)
    y, log_slope = monotone.forward(x, parameters)
    back, log_back = monotone.inverse(y, parameters)
    torch.testing.assert_close(back, x, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(log_back, -log_slope, atol=10 * tolerance, rtol=0)


@pytest.mark.parametrize("monotone", MAPS)
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_log_derivative_is_that_of_autograd(monotone, scale):
    x, parameters = a_map(monotone, scale)
    x.requires_grad_()
    y, log_slope = monotone.forward(x, parameters)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope > 0).all()
    torch.testing.assert_close(log_slope, slope.log(), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_a_steep_spline_is_finite_at_its_knots(scale):
    # A row far out has a network put out numbers of any size; float32 then rounds corners of bins
    # by more than some are wide.
    torch.manual_seed(0)
    spline = RationalQuadratic(bins=8)
    parameters = scale * torch.randn(2000, spline.n_parameters)
    sizes = parameters[:, :16].sigmoid().add(spline.least).unflatten(-1, (2, 8))
    ends = sizes.cumsum(-1) / sizes.sum(-1, keepdim=True)
    for axis, way in enumerate((spline.forward, spline.inverse)):
        knots = (2 * spline.bound * (ends[:, axis, 3] - 0.5)).requires_grad_()
        given = parameters.clone().requires_grad_()
        there, log_slope = way(knots, given)
        (slope,) = torch.autograd.grad(there.sum(), knots, retain_graph=True)
        assert (slope > 0).all()  # density and gradient do not vanish either
        for found in (there, log_slope, *torch.autograd.grad(log_slope.sum(), [knots, given])):
            assert found.isfinite().all()


def test_float32_inverts_a_steep_spline():
    # What a row far out has a network put out: bins as steep as 10^3. Sizes of bins are float32's,
    # 1e-7 of themselves, and slopes bend by so much of their logarithm times the steepness; a
    # quadratic formula that cancels would err by 1e-2.
    torch.manual_seed(0)
    spline = RationalQuadratic(bins=8)
    y, parameters = 8 * torch.rand(20000) - 4, 10 * torch.randn(20000, spline.n_parameters)
    _, exact = spline.inverse(y.double(), parameters.double())
    error = (spline.inverse(y, parameters)[1] - exact).abs()
    assert error.quantile(0.999) < 1e-3


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("turned", [False, True])
def test_a_steep_spline_comes_back_as_near_as_its_own_rounding_lets_it(scale, turned):
    """Slopes of trained splines come to hundreds, and hundredths: rounding grows with them.

    What is returned may be any number that rounds to the float32 next to it, and what led there is
    then known as far as the exact map tells these apart: no algorithm does better.
    """
    torch.manual_seed(0)
    spline = RationalQuadratic(bins=8)
    x, parameters = 8 * torch.rand(20_000) - 4, scale * torch.randn(20_000, spline.n_parameters)
    there, back = (spline.inverse, spline.forward)[:: 1 if turned else -1]
    y = there(x, parameters)[0]
    around = [
        back(y.nextafter(end * torch.ones_like(y)).double(), parameters.double())[0]
        for end in (-9.0, 9.0)
    ]
    ulp = x.abs().nextafter(torch.tensor(9.0)) - x.abs()
    error = (back(y, parameters)[0] - x).abs()
    assert (error <= around[1] - around[0] + ulp).all()
    assert error.max() > 1e-4 or scale < 3.0  # as steep as to show it


@settings(max_examples=20)
@given(bins=st.integers(2, 20), bound=st.floats(0.5, 20.0), scale=st.floats(0.0, 30.0))
def test_a_spline_rises_from_corner_to_corner_and_is_the_identity_outside(bins, bound, scale):
    torch.manual_seed(0)
    spline = RationalQuadratic(bins, bound)
    parameters = scale * torch.randn(spline.n_parameters, dtype=torch.float64)
    x = torch.linspace(-1.5, 1.5, 301, dtype=torch.float64) * bound
    y, log_slope = spline.forward(x, parameters.expand(len(x), -1))
    assert (y.diff() > 0).all()
    outside = x.abs() >= bound
    assert torch.equal(y[outside], x[outside])
    assert (log_slope[outside] == 0).all()
    edge = torch.tensor([-bound, bound], dtype=torch.float64) * (1 - 1e-12)
    at_edge, log_slope = spline.forward(edge, parameters.expand(2, -1))
    # The slope joins that of the tails; it bends within the outer bins alone.
    torch.testing.assert_close(at_edge, edge, atol=1e-9 * bound, rtol=0)
    torch.testing.assert_close(log_slope, torch.zeros_like(edge), atol=1e-5, rtol=0)


def test_zero_parameters_are_the_identity():
    spline = RationalQuadratic()
    x = torch.linspace(-8, 8, 33, dtype=torch.float64)
    y, log_slope = spline.forward(x, torch.zeros(33, spline.n_parameters, dtype=torch.float64))
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_slope, torch.zeros_like(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_knots_and_corners_of_the_box_are_met_from_both_sides(dtype):
    spline = RationalQuadratic(bins=4, bound=2.0)
    knots = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=dtype)  # of equal bins
    around = torch.stack([knots.nextafter(knots - 1), knots, knots.nextafter(knots + 1)])
    torch.manual_seed(0)
    parameters = torch.randn(spline.n_parameters, dtype=dtype)
    parameters[:8] = 0.0
    y, log_slope = spline.forward(around, parameters.expand(3, 5, -1))
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(y, around, atol=40 * eps, rtol=0)
    assert log_slope.diff(dim=0).abs().max() < 400 * eps


def test_outliers_and_far_parameters_stay_finite_with_their_gradients():
    spline = RationalQuadratic()
    x = torch.tensor([-1e30, -100.0, -4.0, 0.0, 4.0, 100.0, 1e30], requires_grad=True)
    for scale in (0.0, 1e3, 1e30):
        torch.manual_seed(0)
        parameters = (scale * torch.randn(7, spline.n_parameters)).requires_grad_()
        for way in (spline.forward, spline.inverse):
            y, log_slope = way(x, parameters)
            (y.clamp(-1e3, 1e3) + log_slope).sum().backward()
            assert y.isfinite().all()
            assert log_slope.isfinite().all()
            assert x.grad.isfinite().all()
            assert parameters.grad.isfinite().all()


@pytest.fixture
def zuko(monkeypatch):
    """The peer, whose import turns off the checks of all torch distributions: not for others."""
    for name in ("_validate_args", "arg_constraints"):
        monkeypatch.setattr(Distribution, name, vars(Distribution)[name])
    return pytest.importorskip("zuko", reason="zuko is in the optional group bench")


def test_the_spline_is_that_of_zuko_for_the_same_knots(zuko):
    torch.manual_seed(0)
    spline = RationalQuadratic(bins=6, bound=4.0)
    parameters = torch.randn(500, spline.n_parameters, dtype=torch.float64)
    x = 3 * torch.randn(500, dtype=torch.float64)
    theirs = zuko.transforms.MonotonicRQSTransform(
        torch.zeros(500, 6, dtype=torch.float64),
        torch.zeros(500, 6, dtype=torch.float64),
        torch.zeros(500, 5, dtype=torch.float64),
        bound=4.0,
    )
    sizes = (parameters[:, :12].sigmoid() + spline.least).reshape(500, 2, 6)
    knots = torch.nn.functional.pad((sizes / sizes.sum(-1, keepdim=True)).cumsum(-1), (1, 0))
    theirs.horizontal, theirs.vertical = (8 * knots - 4).unbind(1)
    raw = torch.nn.functional.pad(parameters[:, 12:], (1, 1))
    theirs.derivatives = (raw / (1 + raw.abs() / spline.steepest)).exp()
    y, log_slope = spline.forward(x, parameters)
    expected, expected_slope = theirs.call_and_ladj(x)
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(log_slope, expected_slope, atol=1e-10, rtol=0)


@pytest.mark.parametrize("bins", [0, 1])
def test_one_bin_is_refused(bins):
    with pytest.raises(ValueError, match="at least 2"):
        RationalQuadratic(bins)


def test_the_import_of_the_peer_left_the_checks_of_distributions_on():
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)
