"""Priors of latents: their densities by brute force, their draws, their gradients."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS
from torch import nn

from ppl_gen.neural.amortised import InverseAutoregressive
from ppl_gen.neural.priors import PRIORS, StandardNormal, VampPrior, build_prior


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Encoder(nn.Module):
    """q(z | x, context), of columns D = 4 and latents L = 2."""

    def __init__(self, context_width=0):
        super().__init__()
        self.net = nn.Linear(4 + context_width, 4)
        self.prior = None

    def encode(self, x, context=None):
        loc, log_scale = self.net(x if context is None else torch.cat([x, context], -1)).chunk(
            2, -1
        )
        return dist.Normal(loc, log_scale.exp(), validate_args=False).to_event(1)


def vamp(components=7, dtype=torch.float64):
    encoder = Encoder().to(dtype)
    rows = torch.randn(components, 4, dtype=dtype) * torch.tensor([1.0, 100.0, 0.01, 0.0])
    encoder.prior = VampPrior(encoder.encode, rows.to(dtype))
    return encoder, rows


def test_the_standard_normal():
    prior = StandardNormal(3).double()
    z = torch.randn(5, 3, dtype=torch.float64)
    expected = dist.Normal(torch.zeros(3).double(), 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(prior.dist().log_prob(z), expected)
    assert not prior.state_dict()


def test_vamp_is_the_mixture_of_what_its_rows_encode():
    encoder, rows = Encoder().double(), torch.randn(7, 4, dtype=torch.float64)
    prior = VampPrior(encoder.encode, rows)
    z = torch.randn(9, 2, dtype=torch.float64)
    each = torch.stack([encoder.encode(row).log_prob(z) for row in rows])  # (K, n)
    expected = each.exp().mean(0).log()
    found = prior.dist().log_prob(z)
    torch.testing.assert_close(found, expected)
    assert found.shape == (9,)
    torch.testing.assert_close(prior.pseudo_inputs, rows)
    # Far away a sum of densities underflows, a sum of logarithms does not.
    far = prior.dist().log_prob(torch.full((2,), 1e4, dtype=torch.float64))
    assert torch.isfinite(far)


def test_vamp_integrates_to_one_and_draws_what_it_says():
    encoder = Encoder().double()
    prior = VampPrior(encoder.encode, torch.randn(7, 4, dtype=torch.float64))
    drawn = prior.dist().sample((4000,))
    assert drawn.shape == (4000, 2)
    low, high = drawn.min(0).values - 5.0, drawn.max(0).values + 5.0
    side = torch.linspace(0, 1, 401, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    with torch.no_grad():
        density = prior.dist().log_prob(low + grid * (high - low)).exp()
        means = encoder.encode(prior.pseudo_inputs).mean.mean(0)
    assert abs(float(density.mean() * (high - low).prod()) - 1.0) < 0.01  # of a grid of 401 x 401
    # Four standard errors of the mean of the draws.
    assert ((drawn.mean(0) - means).abs() < 4 * drawn.std(0) / 4000**0.5).all()


def test_pseudo_inputs_learn_in_units_of_their_columns():
    encoder, rows = vamp()
    with torch.no_grad():
        encoder.prior.shift += 1.0
    moved = encoder.prior.pseudo_inputs - rows
    spread = rows.std(0, correction=0)
    torch.testing.assert_close(moved[0, :3], spread[:3])
    assert moved[0, 3] == 1.0  # a column that does not vary
    encoder.prior.dist().log_prob(torch.zeros(2, dtype=torch.float64)).backward()
    assert encoder.prior.shift.grad.abs().sum() > 0
    assert encoder.net.weight.grad.abs().sum() > 0


def test_a_copy_has_its_own_encoder_and_no_weight_is_there_twice():
    encoder, _ = vamp()
    assert sorted(encoder.state_dict()) == [
        "net.bias",
        "net.weight",
        "prior.centre",
        "prior.scale",
        "prior.shift",
    ]
    twin = copy.deepcopy(encoder)
    z = torch.zeros(2, dtype=torch.float64)
    before = encoder.prior.dist().log_prob(z)
    with torch.no_grad():
        twin.net.weight.mul_(3.0)
    assert torch.equal(encoder.prior.dist().log_prob(z), before)
    assert not torch.equal(twin.prior.dist().log_prob(z), before)


def test_vamp_of_contexts():
    encoder = Encoder(context_width=2)
    rows, context = torch.randn(5, 4), torch.eye(2)[[0, 1, 0, 1, 1]]
    prior = VampPrior(encoder.encode, rows, context)
    z = torch.randn(3, 2)
    each = torch.stack(
        [encoder.encode(r, c).log_prob(z) for r, c in zip(rows, context, strict=True)]
    )
    torch.testing.assert_close(prior.dist().log_prob(z), each.exp().mean(0).log())


def test_vamp_of_flows_is_their_mixture():
    class Encoder(nn.Linear):
        def encode(self, x):
            return self.family(self(x))

    encoder = Encoder(4, 6)
    encoder.family = InverseAutoregressive(2)
    rows, codes = torch.randn(5, 4), torch.randn(3, 7, 2)
    prior = VampPrior(encoder.encode, rows)
    each = [encoder.encode(row.expand(3, 7, 4)).log_prob(codes) for row in rows]
    expected = torch.stack(each).logsumexp(0) - torch.tensor(5.0).log()
    # Rounding of sums in another order, in float32.
    torch.testing.assert_close(prior.dist().log_prob(codes), expected, atol=1e-4, rtol=1e-4)
    # As a site of a plate of 3 x 7 codes.
    found = prior.dist().expand((3, 7)).log_prob(codes)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_vamp_is_the_same_within_a_plate():
    encoder, _ = vamp()
    codes = torch.randn(5, 2, dtype=torch.float64)
    mixture = encoder.prior.dist()
    found = mixture.expand((5,)).log_prob(codes)
    assert found.shape == (5,)
    torch.testing.assert_close(found, mixture.log_prob(codes))


def test_what_vamp_refuses():
    encode = Encoder().encode
    with pytest.raises(ValueError, match=r"shape \(0, 4\).*one row of the data or more"):
        VampPrior(encode, torch.zeros(0, 4))
    with pytest.raises(ValueError, match="2 contexts of 3 rows"):
        VampPrior(encode, torch.zeros(3, 4), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"takes encode=\.\.\. and rows="):
        build_prior("vamp", 2)
    with pytest.raises(ValueError, match="no prior 'vampire'; expected one of 'normal'"):
        build_prior("vampire", 2)


def made(name, dtype=torch.float32):
    encoder = Encoder()
    return build_prior(name, 2, encode=encoder.encode, rows=torch.randn(6, 4)).to(dtype)


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_is_a_site_that_nuts_takes(name):
    prior = made(name, torch.float64) if name != "vamp" else vamp()[0].prior

    def model():
        with pyro.plate("row", 2):
            z = pyro.sample("z", prior.dist())
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=torch.zeros(2, dtype=torch.float64))

    kernel = NUTS(model, max_tree_depth=2)
    chain = MCMC(kernel, num_samples=3, warmup_steps=2, disable_progbar=True)
    chain.run()
    assert chain.get_samples()["z"].shape == (3, 2, 2)


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_on_the_meta_device(name):
    encoder = Encoder()
    encoder.prior = build_prior(name, 2, encode=encoder.encode, rows=torch.randn(6, 4))
    encoder.to("meta")
    density = encoder.prior.dist().log_prob(torch.zeros(5, 2, device="meta"))
    assert density.shape == (5,)
    if name != "normal":
        density.sum().backward()


def test_a_flow_starts_as_the_standard_normal():
    # Else a prior that is hardly trained draws codes hundreds of deviations out.
    z = 3.0 * torch.randn(50, 3)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(build_prior("flow", 3).dist().log_prob(z), expected)
