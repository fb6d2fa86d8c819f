"""One contract over every flow: inverse, Jacobian, integral, gradients, Pyro, devices, memory."""

import copy
import gc
import io
import pickle
import weakref

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from torch.func import functional_call, grad, jacrev, vmap

from ppl_gen.neural.flow import Flow
from ppl_gen.neural.transforms import (
    TRANSFORMS,
    Affine,
    Autoregressive,
    Coupling,
    Inverted,
    LULinear,
    Permutation,
    RationalQuadratic,
    Stack,
)

NAMES = sorted(TRANSFORMS)


def flow_of(name, width=2, context_width=0, dtype=torch.float64, seed=0, spread=0.3, **options):
    """A flow with weights as training may leave them: none at where it starts."""
    torch.manual_seed(seed)
    options = {"hidden": (16, 16), "n_transforms": 3} | options
    flow = Flow(TRANSFORMS[name](width, context_width=context_width, **options), width)
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(spread * torch.randn_like(weight) / max(weight.shape[-1], 1) ** 0.5)
    return flow.to(dtype)


def rows_of(n, width, context_width=0, dtype=torch.float64):
    context = torch.randn(n, context_width, dtype=dtype) if context_width else None
    return torch.randn(n, width, dtype=dtype), context


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8)
@given(width=st.integers(2, 7), context_width=st.integers(0, 3), seed=st.integers(0, 99))
# Rounding of a float is 1e-7 (1e-16 of a double), and slopes enlarge it some tens of times.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_there_and_back(name, dtype, tolerance, width, context_width, seed):
    flow = flow_of(name, width, context_width, dtype, seed, spread=0.1)
    x, context = rows_of(20, width, context_width, dtype)
    z, log_det = flow.transform.inverse_and_log_det(x, context)
    back, log_back = flow.transform.forward_and_log_det(z, context)
    torch.testing.assert_close(back, x, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(log_back, -log_det, atol=10 * tolerance, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nsf", "nsf_coupling"])
def test_splines_that_were_trained_go_there_and_back(name):
    """Eight islands in an empty plane make maps as steep as splines come to."""
    angle = torch.arange(8) * torch.pi / 4
    islands = torch.stack([angle.cos(), angle.sin()], dim=-1) * 2**0.5
    torch.manual_seed(0)
    flow = Flow(TRANSFORMS[name](2), 2)
    x = islands[torch.randint(8, (20_000,))] + 0.07 * torch.randn(20_000, 2)
    train(flow, x, 1500)
    z = torch.randn(20_000, 2)
    there, back = flow.transform.inverse_and_log_det, flow.transform.forward_and_log_det
    with torch.no_grad():
        for error in (back(there(x)[0])[0] - x, there(back(z)[0])[0] - z):
            # Three or six layers, each of which rounds what it hands on, to 1e-7, and whose slopes
            # make that some tens of times as much; in few rows, where bins are flattest, hundreds.
            far = error.abs().amax(-1)
            assert far.quantile(0.999) < 1e-5
            assert far.max() < 1e-4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context_width", [0, 2])
@pytest.mark.parametrize("width", [2, 5])
def test_log_determinants_are_those_of_autograds_jacobian(name, width, context_width):
    flow = flow_of(name, width, context_width, spread=1.0)
    x, context = rows_of(12, width, context_width)
    for way in (flow.transform.inverse_and_log_det, flow.transform.forward_and_log_det):
        _, log_det = way(x, context)
        if context is None:
            jacobian = vmap(jacrev(lambda row, way=way: way(row)[0]))(x)
        else:
            jacobian = vmap(jacrev(lambda row, given, way=way: way(row, given)[0]))(x, context)
        expected = torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(log_det, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context_width", [0, 1])
def test_densities_in_the_plane_integrate_to_one(name, context_width):
    flow = flow_of(name, 2, context_width, spread=0.5)
    side = torch.linspace(-10, 10, 251, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    context = torch.ones(1, 1, dtype=torch.float64).expand(len(grid), 1) if context_width else None
    with torch.no_grad():
        density = flow.log_prob(grid, context).exp()
    assert density.sum().item() * (20 / 250) ** 2 == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [2, 3, 6])
def test_every_variable_depends_on_every_other(name, width):
    flow = flow_of(name, width, hidden=(32, 32), n_transforms=8, spread=1.0)
    x, _ = rows_of(50, width)
    slopes = vmap(jacrev(lambda row: flow.transform.inverse_and_log_det(row)[0]))(x)
    assert (slopes.abs().amax(0) > 0).all()


@pytest.mark.parametrize("name", ["maf", "iaf", "nsf"])
def test_one_variable_is_enough_for_autoregressive_flows(name):
    flow = flow_of(name, 1, 2, spread=1.0)
    x, context = rows_of(10, 1, 2)
    z, log_det = flow.transform.inverse_and_log_det(x, context)
    torch.testing.assert_close(flow.transform.forward_and_log_det(z, context)[0], x)
    assert log_det.std() > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context_width", [0, 3])
def test_pyros_distribution_has_the_density_and_gradients_of_the_flow(name, context_width):
    flow = flow_of(name, 3, context_width)
    x, context = rows_of(6, 3, context_width)

    def gradients(density):
        flow.zero_grad()
        density.sum().backward()
        return [weight.grad.clone() for weight in flow.parameters()]

    ours, theirs = flow.log_prob(x, context), flow.dist(context).log_prob(x)
    torch.testing.assert_close(theirs, ours, atol=1e-10, rtol=0)
    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert mine.abs().sum() > 0
        torch.testing.assert_close(other, mine)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context_width", [0, 3])
def test_a_program_takes_the_transform_and_its_trace_scores_as_the_flow(name, context_width):
    flow = flow_of(name, 3, context_width)
    x, context = rows_of(6, 3, context_width)

    def program(x=None):
        pyro.module("flow", flow)
        transform = flow.transform if context is None else flow.transform.condition(context)
        base = dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1)
        with pyro.plate("row", 6):
            return pyro.sample("x", dist.TransformedDistribution(base, [transform]), obs=x)

    pyro.clear_param_store()
    trace = poutine.trace(program).get_trace(x)
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], flow.log_prob(x, context))
    assert sum(site["type"] == "param" for site in trace.nodes.values()) == len(
        list(flow.parameters())
    )
    drawn = program()
    assert drawn.shape == (6, 3)
    assert drawn.requires_grad  # by the reparameterised draw


@pytest.mark.parametrize("name", ["realnvp", "maf", "nsf"])
def test_pyros_conditional_distribution_takes_a_conditional_transform(name):
    flow = flow_of(name, 3, 2)
    x, context = rows_of(6, 3, 2)
    base = dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1)
    conditional = dist.ConditionalTransformedDistribution(base, [flow.transform])
    density = conditional.condition(context).log_prob(x)
    torch.testing.assert_close(density, flow.log_prob(x, context))


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_after_a_change_of_the_weights_is_that_of_the_new(name):
    """Whichever way the weights change, and whoever keeps a distribution or a draw."""
    flow = flow_of(name, 2)
    density = flow.dist()
    drawn = density.rsample((5,))
    optimizer = torch.optim.SGD(flow.parameters(), lr=1e-2)
    other = flow_of(name, 2, seed=1).state_dict()

    def by_optimizer():
        optimizer.zero_grad()
        density.log_prob(drawn.detach()).sum().backward()
        optimizer.step()

    def by_loading():
        flow.load_state_dict(other)

    def by_vector():
        vector = torch.nn.utils.parameters_to_vector(flow.parameters())
        torch.nn.utils.vector_to_parameters(vector + 0.1, flow.parameters())

    for change in (by_optimizer, by_loading, by_vector):
        drawn = density.rsample((5,))
        before = density.log_prob(drawn)
        drawn = density.rsample((5,))  # kept, until the change
        change()
        fresh = copy.deepcopy(flow).log_prob(drawn.detach().clone())
        torch.testing.assert_close(density.log_prob(drawn), fresh)
        assert (fresh - before).abs().max() > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_after_a_change_of_the_row_is_that_of_the_new(name):
    flow = flow_of(name, 2)
    with torch.no_grad():
        drawn = flow.dist().sample((5,))
        drawn += 1.0
        changed = flow.dist().log_prob(drawn)
    torch.testing.assert_close(changed, flow.log_prob(drawn.clone()))


@pytest.mark.parametrize("name", NAMES)
def test_rows_drawn_without_gradients_are_scored_with_them(name):
    flow = flow_of(name, 2)
    drawn = flow.dist().sample((5,))
    flow.dist().log_prob(drawn).sum().backward()
    assert all(weight.grad is not None for weight in flow.parameters())


def test_a_draw_of_iaf_is_scored_without_a_second_pass():
    flow = flow_of("iaf", 4)
    passes = []
    for layer in flow.transform.transforms:
        layer.transform.network.register_forward_hook(lambda *_: passes.append(1))
    drawn = flow.dist().rsample((5,))
    assert len(passes) == 3
    density = flow.dist().log_prob(drawn)
    assert len(passes) == 3
    torch.testing.assert_close(density, flow.log_prob(drawn.detach().clone()), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["realnvp", "maf", "nsf", "nsf_coupling"])
def test_a_density_takes_one_pass(name):
    flow = flow_of(name, 4)
    passes = []
    for layer in flow.transform.transforms:
        if hasattr(layer, "network"):
            layer.network.register_forward_hook(lambda *_: passes.append(1))
    x, _ = rows_of(3, 4)
    for score in (flow.log_prob, flow.dist().log_prob):
        passes.clear()
        score(x)
        assert len(passes) == 3


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_kept_of_a_density(name):
    flow = flow_of(name, 2)
    x, _ = rows_of(5, 2)
    density = flow.dist().log_prob(x)
    assert flow.transform._pass is None
    graph = weakref.ref(density)
    del density
    gc.collect()
    assert graph() is None


@pytest.mark.parametrize("name", NAMES)
def test_a_flow_that_was_drawn_from_is_copied_and_pickled(name):
    flow = flow_of(name, 2)
    drawn = flow.dist().rsample((3,))
    expected = flow.log_prob(drawn.detach().clone())
    copied = copy.deepcopy(flow)
    unpickled = pickle.load(io.BytesIO(pickle.dumps(flow)))
    torch.testing.assert_close(copied.log_prob(drawn), expected)
    torch.testing.assert_close(unpickled.log_prob(drawn), expected)


@pytest.mark.parametrize("name", NAMES)
def test_inference_mode_scores_alike(name):
    flow = flow_of(name, 2)
    x, _ = rows_of(5, 2)
    with torch.inference_mode():
        inferred = flow.dist().log_prob(x)
        drawn = flow.dist().sample((4,))
        assert flow.dist().log_prob(drawn).isfinite().all()
    torch.testing.assert_close(inferred, flow.log_prob(x))


@pytest.mark.parametrize("name", NAMES)
def test_functions_of_torch_pass_through_pyros_distribution(name):
    """Gradients by row and ensembles of weights, as vectorised samplers take them."""
    flow = flow_of(name, 2)
    x, _ = rows_of(5, 2)
    found = vmap(grad(lambda row: flow.dist().log_prob(row)))(x)
    rows = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(flow.log_prob(rows).sum(), rows)
    torch.testing.assert_close(found, expected)

    class Scored(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = flow

        def forward(self, x):
            return self.flow.dist().log_prob(x)

    other = flow_of(name, 2, seed=1)
    weights = {
        f"flow.{key}": torch.stack([one, two])
        for (key, one), two in zip(flow.named_parameters(), other.parameters(), strict=True)
    }
    both = vmap(lambda given: functional_call(Scored(), given, (x,)))(weights)
    torch.testing.assert_close(both, torch.stack([flow.log_prob(x), other.log_prob(x)]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context_width", [0, 2])
def test_weights_come_back_into_another_flow(name, context_width):
    flow = flow_of(name, 5, context_width, torch.float32, seed=0)
    other = flow_of(name, 5, context_width, torch.float32, seed=1)
    other.load_state_dict(flow.state_dict())
    x, context = rows_of(6, 5, context_width, torch.float32)
    assert torch.equal(other.log_prob(x, context), flow.log_prob(x, context))
    torch.manual_seed(3)
    drawn = flow.sample(6, context)
    torch.manual_seed(3)
    assert torch.equal(other.sample(6, context), drawn)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context_width", [0, 2])
def test_a_training_step_and_a_draw_need_no_data_on_the_meta_device(name, context_width):
    flow = flow_of(name, 3, context_width, torch.float32).to("meta")
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    x = torch.empty(5, 3, device="meta")
    context = torch.empty(5, context_width, device="meta") if context_width else None
    (-flow.log_prob(x, context)).mean().backward()
    optimizer.step()
    (-flow.dist(context).log_prob(x)).mean().backward()
    assert flow.sample(5, context).device.type == "meta"


@pytest.mark.parametrize("name", NAMES)
def test_products_of_half_precision_leave_the_maps_in_full(name):
    flow = flow_of(name, 3, dtype=torch.float32)
    x, _ = rows_of(50, 3, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        density = flow.log_prob(x)
    assert density.dtype == torch.float32
    # Numbers of bfloat16 have three digits.
    assert (density - flow.log_prob(x)).abs().max() < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_density(name):
    """The mean of p / q over draws of p is the mass of q where q is another density: one."""
    flow = flow_of(name, 2, spread=0.5)
    torch.manual_seed(0)
    drawn = flow.sample(4000)
    normal = torch.distributions.MultivariateNormal(drawn.mean(0), 0.5 * drawn.T.cov())
    with torch.no_grad():
        ratio = (normal.log_prob(drawn) - flow.log_prob(drawn)).exp()
    # Four standard errors.
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / len(ratio) ** 0.5


def train(flow, x, n_steps):
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss = -flow.log_prob(x[torch.randint(len(x), (64,))]).mean()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    assert all(weight.isfinite().all() for weight in flow.parameters())
    assert flow.log_prob(x).isfinite().all()


def rows_with_outliers():
    torch.manual_seed(0)
    x = torch.randn(1000, 3)
    x[::10] *= 100.0
    return x


@pytest.mark.parametrize("name", NAMES)
def test_training_survives_outliers(name):
    train(flow_of(name, 3, dtype=torch.float32), rows_with_outliers(), 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_long_training_survives_outliers(name):
    train(flow_of(name, 3, dtype=torch.float32), rows_with_outliers(), 10_000)


@pytest.mark.parametrize("name", ["maf", "realnvp"])
def test_nuts_over_a_flow_as_prior(name):
    """The support is known, and the gradient flows through the inverse."""
    flow = flow_of(name, 2, n_transforms=2, hidden=(8,))
    assert flow.dist().support.check(torch.zeros(4, 2)).all()

    def program(y):
        z = pyro.sample("z", flow.dist())
        pyro.sample("y", dist.Normal(z, 0.1).to_event(1), obs=y)

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    kernel = pyro.infer.NUTS(program, max_tree_depth=4)
    y = torch.tensor([0.5, -0.5], dtype=torch.float64)
    chain = pyro.infer.MCMC(kernel, num_samples=30, warmup_steps=30, disable_progbar=True)
    chain.run(y)
    # The likelihood, of deviation 0.1, settles where the posterior is.
    assert (chain.get_samples()["z"].mean(0) - y).abs().max() < 0.15


def test_layers_turned_round_and_stacked_change_ends():
    torch.manual_seed(0)
    stack = Stack([LULinear(3), Autoregressive(3, Affine(), (8,)), Permutation(torch.randperm(3))])
    assert stack.slow_forward
    assert not stack.slow_inverse
    turned = Inverted(stack)
    assert turned.slow_inverse
    assert not turned.slow_forward
    z = torch.randn(4, 3)
    torch.testing.assert_close(turned(z), stack.inv(z))
    torch.testing.assert_close(
        turned.log_abs_det_jacobian(z, turned(z)), stack.inverse_and_log_det(z)[1]
    )


def test_a_spline_in_a_coupling_leaves_far_rows_where_they_are():
    coupling = Coupling(2, RationalQuadratic(bound=3.0), (8,))
    far = torch.tensor([[50.0, 60.0], [-4.0, -7.0]])
    z, log_det = coupling.inverse_and_log_det(far)
    assert torch.equal(z, far)
    assert (log_det == 0).all()


@pytest.mark.parametrize("name", ["realnvp", "nsf_coupling"])
def test_couplings_refuse_what_would_leave_variables_unreached(name):
    with pytest.raises(ValueError, match="at least 2 variables"):
        TRANSFORMS[name](1)
    with pytest.raises(ValueError, match="half of the variables"):
        TRANSFORMS[name](2, n_transforms=1)


def test_contexts_that_do_not_fit_are_refused():
    flow = flow_of("nsf", 2, 3)
    x, context = rows_of(4, 2, 3)
    with pytest.raises(ValueError, match="used without one"):
        flow.transform(x)
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 3\)"):
        flow.transform.condition(context[:, :2])
    with pytest.raises(ValueError, match="0 entries a row; expected 3"):
        flow.log_prob(x)
    with pytest.raises(ValueError, match="3 entries a row; expected 0"):
        flow_of("nsf", 2).log_prob(x, context)


def test_stacks_of_nothing_or_of_several_widths_are_refused():
    for transforms in ([], [LULinear(2), LULinear(3)]):
        with pytest.raises(ValueError, match="of one width"):
            Stack(transforms)
