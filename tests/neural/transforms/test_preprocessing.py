import math

import pyro.distributions as dist
import pytest
import torch
from torch.autograd.functional import jacobian
from torch.quasirandom import SobolEngine

from ppl_gen.neural.density import DensityModule
from ppl_gen.neural.flow import Flow
from ppl_gen.neural.transforms import maf
from ppl_gen.neural.transforms.preprocessing import (
    Dequantised,
    LocationScale,
    ScaledSigmoid,
    Smoothed,
    VariationalNoise,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Normal(DensityModule):
    """Independent normals: what a flow is once it has learned them."""

    def __init__(self, loc, scale):
        super().__init__(len(loc))
        self.loc, self.scale = torch.nn.Parameter(loc), scale

    def dist(self, context=None):
        return dist.Normal(self.loc, self.scale).to_event(1)

    def log_prob(self, x, context=None):
        return self.dist().log_prob(x)

    def sample(self, n, context=None):
        return self.dist().sample((n,))


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def in_units(width=3):
    return LocationScale(torch.randn(width), torch.rand(width) + 0.5)


def between_bounds(width=3):
    return ScaledSigmoid(torch.arange(width) - 2.0, torch.arange(width) + 3.0, squeeze=0.05)


@pytest.mark.parametrize("make", [in_units, between_bounds])
def test_determinants_and_inverses(make):
    transform = make().double()
    z = 2.0 * torch.randn(4, 3, dtype=torch.float64)
    x, log_det = transform.forward_and_log_det(z)
    for row in range(4):
        matrix = jacobian(lambda z: transform.forward_and_log_det(z)[0], z[row])
        torch.testing.assert_close(log_det[row], torch.linalg.slogdet(matrix)[1])
    back, back_log_det = transform.inverse_and_log_det(x)
    torch.testing.assert_close(back, z, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(back_log_det, -log_det, rtol=1e-10, atol=1e-10)
    single = make()
    z = single.inv(single(z.float()))
    torch.testing.assert_close(single(z), single(single.inv(single(z))), rtol=1e-5, atol=1e-5)


def test_the_logit_is_precise_at_both_bounds():
    squash = ScaledSigmoid(torch.zeros(1), torch.ones(1))
    exact = ScaledSigmoid(torch.zeros(1), torch.ones(1)).double()
    for x in (0.0, 1e-6, 1e-3, 1.0 - 1e-3, 1.0):
        z, log_det = squash.inverse_and_log_det(torch.tensor([x]))
        expected = exact.inverse_and_log_det(double(x))
        # 1 - 1e-3 is off by 6e-8 in float32; shares of it by 6e-5 at most.
        torch.testing.assert_close(z.double(), expected[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(log_det.double(), expected[1], rtol=1e-4, atol=1e-4)
    z, log_det = squash.inverse_and_log_det(squash(torch.tensor([[-200.0], [200.0]])))
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_det).all()


def test_densities_are_of_the_data_as_given():
    # In two columns, on a grid that covers the bounds and their room: the density integrates to
    # one. The midpoint rule is exact to 1e-3 for what is this smooth.
    preprocessing = [
        LocationScale(double(0.3, -0.2), double(0.7, 0.5)),
        ScaledSigmoid(double(0.0, 10.0), double(1.0, 30.0), squeeze=0.01),
    ]
    flow = Flow(maf(2, n_transforms=2, hidden=(8,)), 2, preprocessing).double()
    room = 0.01 / 0.98
    steps = torch.linspace(-room, 1.0 + room, 402, dtype=torch.float64)
    middle = 0.5 * (steps[1:] + steps[:-1])
    grid = torch.cartesian_prod(middle, 10.0 + 20.0 * middle)
    volume = float(steps[1] - steps[0]) ** 2 * 20.0
    total = float(flow.log_prob(grid).exp().sum().detach() * volume)
    assert total == pytest.approx(1.0, abs=1e-3)
    support = flow.dist().support
    assert bool(support.check(double(0.5, 20.0)))
    assert not bool(support.check(double(0.5, 31.0)))


def lattice(*sizes):
    return torch.cartesian_prod(*[torch.arange(size, dtype=torch.float64) for size in sizes])


def exact(normal, rows):
    """Probabilities of cubes under independent normals."""
    found = normal.dist().base_dist
    return (found.cdf(rows + 1.0) - found.cdf(rows)).prod(-1).log().detach()


@pytest.mark.parametrize("variational", [False, True])
def test_bounds_are_below_and_averages_of_ratios_close(variational):
    density = Normal(double(2.0, 3.0), double(0.8, 1.3))
    noise = None
    if variational:
        # Some noise that is not uniform, and not so far off that few draws have all the weight.
        noise = VariationalNoise(2, double(2.0, 3.0), double(1.0, 1.0), (4,)).double()
        with torch.no_grad():
            for weight in noise.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
    rows = lattice(6, 8)
    truth = exact(density, rows)
    mask = torch.tensor([True, True])
    with torch.no_grad():
        model = Dequantised(density, mask, noise, n_importance=256).double()
        bounds = torch.stack([model.train().log_prob(rows) for _ in range(400)])
        estimate = model.eval().log_prob(rows)
    # On average: 400 draws a row, of bounds that vary by a few nats in the tails.
    error = bounds.std(0) / 20.0
    assert (bounds.mean(0) < truth + 4.0 * error).all()
    assert float(bounds.mean(0).exp().sum()) < 1.0
    # Of 256 draws (Sobol's, for a smooth ratio) within a few percent, also in the tails;
    # their sum, whose errors are of either sign, within half a percent.
    torch.testing.assert_close(estimate, truth, rtol=0.0, atol=0.1)
    assert float(estimate.exp().sum()) == pytest.approx(float(truth.exp().sum()), abs=5e-3)
    few = Dequantised(density, mask, noise, n_importance=1).double().eval()
    assert (few.log_prob(rows) - truth).abs().mean() > (estimate - truth).abs().mean()


@pytest.mark.parametrize("width", [3, SobolEngine.MAXDIM + 1])
def test_points_of_the_noise_are_even_and_always_the_same_ones(width):
    """Sobol's numbers are tabled for so many columns; images may have more."""
    mask = torch.ones(width, dtype=torch.bool)
    density = Normal(torch.zeros(width), torch.full((width,), 1e3))
    points = Dequantised(density, mask, n_importance=8).points
    torch.rand(1)  # whatever else was drawn
    assert torch.equal(Dequantised(density, mask, n_importance=8).points, points)
    assert points.shape == (8, width)
    assert points.min() >= 0.0
    assert points.max() < 1.0
    # Each column has one in each eighth: those of Sobol's after scrambling, those of a Latin
    # hypercube by its making. And columns are not tied to each other.
    cells = (8 * points).floor().sort(dim=0).values
    assert (cells == torch.arange(8)[:, None]).all()
    assert not torch.equal(points[:, 0].argsort(), points[:, -1].argsort())


def test_wide_rows_are_scored():
    width = SobolEngine.MAXDIM + 1
    # Normals of deviation 1,000 are as good as flat within a cube: its mean square is 1/12 above
    # that of its middle, which is 1e-3 nats of 21,202 columns.
    density = Normal(torch.zeros(width), torch.full((width,), 1e3))
    model = Dequantised(density, torch.ones(width, dtype=torch.bool), n_importance=8).double()
    rows = torch.zeros(2, width, dtype=torch.float64)
    with torch.no_grad():
        found, middle = model.eval().log_prob(rows), density.double().log_prob(rows + 0.5)
    torch.testing.assert_close(found, middle, rtol=0.0, atol=5e-3)


def test_learned_noise_raises_the_bound():
    # A density that is steep within a cube: uniform noise is a poor proposal there.
    density = Normal(double(0.9), double(0.15))
    rows = double(0.0)[None].expand(200, 1)
    noise = VariationalNoise(1, double(0.0), double(1.0), hidden=(8,)).double()
    model = Dequantised(density, torch.tensor([True]), noise).double()
    first = float(model.bound(rows).mean().detach())
    optimizer = torch.optim.Adam(noise.parameters(), 0.03)
    for _ in range(300):
        optimizer.zero_grad()
        loss = -model.bound(rows).mean()
        loss.backward()
        optimizer.step()
    last = float(model.bound(rows).mean().detach())
    truth = float(exact(density, double(0.0)[None]))
    assert first < last - 3.0
    # The least gap of this q is small; the mean of 200 draws is off by less than the rest.
    assert truth - 0.2 < last < truth + 0.05


def test_noise_density_is_that_of_the_noise():
    # u = f(e) with e normal: q(u) = N(e) / |df/de|.
    noise = VariationalNoise(3, torch.zeros(3), torch.ones(3), context_width=2).double()
    with torch.no_grad():
        for weight in noise.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    x, e = torch.randn(1, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    context = torch.randn(1, 2, dtype=torch.float64)
    u, log_q = noise(x, e[None], context)
    matrix = jacobian(lambda e: noise(x, e[None], context)[0][0], e)
    expected = dist.Normal(double(0.0), double(1.0)).log_prob(e).sum()
    expected = expected - torch.linalg.slogdet(matrix)[1]
    torch.testing.assert_close(log_q.sum(), expected, rtol=1e-9, atol=1e-9)
    assert ((u > 0.0) & (u < 1.0)).all()


def test_other_columns_stay_as_they_are():
    density = Normal(double(2.0, 0.5), double(0.8, 1.0))
    model = Dequantised(density, torch.tensor([True, False])).double()
    rows = torch.stack([torch.arange(5.0), torch.randn(5)], 1).double()
    expected = exact(Normal(double(2.0), double(0.8)), rows[:, :1])
    expected = expected + dist.Normal(0.5, 1.0).log_prob(rows[:, 1])
    # 16 stratified draws of one variable.
    torch.testing.assert_close(model.eval().log_prob(rows), expected, rtol=0.0, atol=0.02)
    drawn = model.sample(50)
    assert (drawn[:, 0] == drawn[:, 0].floor()).all()
    assert (drawn[:, 1] != drawn[:, 1].floor()).all()


def test_scores_depend_on_the_row_alone():
    density = Normal(double(2.0, 3.0), double(0.8, 1.3))
    model = Dequantised(density, torch.tensor([True, True])).double().eval()
    rows = lattice(4, 4)
    torch.testing.assert_close(model.log_prob(rows)[5:7], model.log_prob(rows[5:7]))
    twin = Dequantised(density, torch.tensor([True, True])).double().eval()
    assert torch.equal(twin.log_prob(rows), model.log_prob(rows))


def test_noise_never_reaches_the_next_number():
    seen = []

    class Watch(DensityModule):
        def log_prob(self, x, context=None):
            seen.append(x)
            return x.sum(-1)

    model = Dequantised(Watch(1), torch.tensor([True]))
    rows = torch.full((1, 1), 255.0)
    model.bound(rows, points=torch.ones(1))
    assert seen[0] < 256.0
    assert seen[0] > 255.9


def test_draws_keep_to_the_range():
    density = Normal(torch.tensor([0.0]), torch.tensor([3.0]))
    low, high = torch.tensor([0.0]), torch.tensor([2.0])
    model = Dequantised(density, torch.tensor([True]), low=low, high=high)
    assert set(model.sample(200).flatten().tolist()) == {0.0, 1.0, 2.0}


def test_training_on_jittered_rows_is_smoothing():
    # The density of jittered rows is the data's, convolved: sums of variances.
    density = Normal(double(0.0), double(1.0))
    model = Smoothed(density, double(0.5)).double()
    x = torch.randn(20_000, 1, dtype=torch.float64)
    found = float(model.train().log_prob(x).mean().detach())
    expected = -0.5 * math.log(2.0 * math.pi) - 0.5 * (float(x.square().mean()) + 0.25)
    assert found == pytest.approx(expected, abs=0.02)  # 4 standard errors of the noise's effect
    assert torch.equal(model.eval().log_prob(x), density.log_prob(x))


def test_jitter_is_reflected_at_bounds():
    seen = []

    class Watch(DensityModule):
        def log_prob(self, x, context=None):
            seen.append(x)
            return x.sum(-1)

    bounds = torch.tensor([2.0]), torch.tensor([5.0])
    model = Smoothed(Watch(1), torch.tensor([1.0]), *bounds)
    model.log_prob(2.0 + 3.0 * torch.rand(20_000, 1))
    moved = seen[0]
    assert moved.min() >= 2.0
    assert moved.max() <= 5.0
    # Uniform rows stay uniform: variance 9 / 12.
    assert float(moved.mean()) == pytest.approx(3.5, abs=0.03)
    assert float(moved.var()) == pytest.approx(0.75, abs=0.03)


def test_steps_on_the_meta_device():
    noise = VariationalNoise(2, torch.zeros(2), torch.ones(2), context_width=1)
    flow = Flow(maf(2, context_width=1, n_transforms=1, hidden=(4,)), 2, [in_units(2)])
    model = Dequantised(flow, torch.tensor([True, False]), noise).to("meta")
    x, context = torch.empty(3, 2, device="meta"), torch.empty(3, 1, device="meta")
    model.log_prob(x, context).sum().backward()
    assert model.eval().log_prob(x, context).device.type == "meta"
    assert model.sample(3, context).device.type == "meta"
    smooth = Smoothed(flow, torch.ones(2), torch.zeros(2), torch.ones(2)).to("meta")
    assert smooth.log_prob(x, context).device.type == "meta"
