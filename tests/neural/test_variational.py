"""The autoencoder's network on a linear decoder, whose density and conditionals are known."""

import itertools
import math

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, TraceMeanField_ELBO
from torch.distributions import MultivariateNormal
from torch.nn.functional import softplus

from ppl_gen.inference.elbos import ElboObjective
from ppl_gen.neural import variational
from ppl_gen.neural.amortised import POSTERIORS
from ppl_gen.neural.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretisedLogisticLikelihood,
    NormalLikelihood,
)
from ppl_gen.neural.perceptrons import perceptron
from ppl_gen.neural.priors import build_prior
from ppl_gen.neural.variational import VariationalAutoencoder

WIDTH, SIZE, NOISE = 4, 2, 0.3

LIKELIHOODS = {
    "normal": lambda: NormalLikelihood(torch.zeros(WIDTH), torch.ones(WIDTH)),
    "bernoulli": BernoulliLikelihood,
    "categorical": lambda: CategoricalLikelihood(3),
    "discretised_logistic": lambda: DiscretisedLogisticLikelihood(3),
}


def network(likelihood, posterior="mean_field", hidden=(8,), gaps=False, context=0):
    torch.manual_seed(0)
    guide = POSTERIORS[posterior](SIZE)
    n_inputs = WIDTH * (likelihood.n_features + gaps) + context
    return VariationalAutoencoder(
        WIDTH,
        likelihood,
        perceptron(n_inputs, hidden, guide.n_parameters),
        perceptron(SIZE + context, hidden, WIDTH * likelihood.n_outputs),
        guide,
        build_prior("normal", SIZE),
        SIZE,
        context,
        gaps,
    )


def linear(posterior="full_rank"):
    """A linear decoder with normal noise, and a guide that is as it started."""
    likelihood = NormalLikelihood(torch.zeros(WIDTH), torch.ones(WIDTH), NOISE)
    return network(likelihood, posterior, hidden=()).double().eval().requires_grad_(False)


def marginal(net):
    w, b = net.decoder[0].weight, net.decoder[0].bias
    return MultivariateNormal(b, w @ w.T + NOISE * torch.eye(WIDTH, dtype=w.dtype))


def know_the_posterior(net):
    """Give the full-rank guide the exact posterior: linear in x, of one covariance."""
    w, b = net.decoder[0].weight, net.decoder[0].bias
    covariance = torch.linalg.inv(w.T @ w / NOISE + torch.eye(SIZE, dtype=w.dtype))
    factor = torch.linalg.cholesky(covariance)
    gain = covariance @ w.T / NOISE
    encoder = net.encoder[0]
    encoder.weight.zero_()
    encoder.weight[:SIZE] = gain
    encoder.bias[:SIZE] = -gain @ b
    encoder.bias[SIZE : 2 * SIZE] = factor.diagonal().expm1().log()
    encoder.bias[2 * SIZE :] = factor[1, :1]


def widen_the_guide(net):
    """Make the guide wider than the prior: weights have a bound, and their error can be told."""
    net.encoder[0].weight.mul_(0.1)
    net.encoder[0].bias.zero_()
    net.encoder[0].bias[SIZE : 2 * SIZE] = 2.0


def rows_of(net, n):
    torch.manual_seed(3)
    return marginal(net).sample((n,))


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_importance_sampling_estimates_the_exact_density(posterior):
    net = linear(posterior)
    widen_the_guide(net)
    x = rows_of(net, 30)
    _, log_weights = net.importance(x, n_draws=2000)
    relative = (log_weights - log_weights.logsumexp(0)).exp() * len(log_weights)
    error = relative.std(0) / len(log_weights) ** 0.5
    off = (net.log_prob(x, n_draws=2000) - marginal(net).log_prob(x)) / error
    # Two estimates, hence two errors; few rows are over two of them.
    assert off.square().mean() < 4.0
    assert (off.abs() < 5.0).all()


@pytest.mark.parametrize(
    ("kind", "posterior", "prior"),
    [
        *((kind, "mean_field", "normal") for kind in LIKELIHOODS),
        ("bernoulli", "full_rank", "vamp"),
        ("bernoulli", "iaf", "flow"),
        ("discretised_logistic", "mean_field", "flow"),
    ],
)
def test_proposals_at_modes_estimate_the_same_densities(kind, posterior, prior):
    net = network(LIKELIHOODS[kind](), posterior)
    x = torch.randint(2, (5, WIDTH)).double()
    if prior == "vamp":
        rows = net.likelihood.relaxed(torch.randint(2, (7, WIDTH)).float())
        net.latent_prior = build_prior("vamp", SIZE, encode=net.encode_relaxed, rows=rows)
    elif prior == "flow":
        net.latent_prior = build_prior("flow", SIZE)
    net = net.double().eval().requires_grad_(False)
    net.encoder[-1].bias[SIZE : 2 * SIZE] = 2.0  # wider than the prior: weights have a bound
    x[0, 1] = torch.nan
    # Two latents: the sum over a grid is exact but for what lies beyond nine deviations.
    side = torch.linspace(-9.0, 9.0, 181, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    seen = ~x.isnan()
    each = net.decode(grid[:, None], None, seen).log_prob(x.nan_to_num())
    each = each + net.prior().log_prob(grid)[:, None]
    exact = each.logsumexp(0) + 2 * math.log(0.1)
    _, log_weights = net.importance(x, n_draws=2000, n_newton=3)
    found = log_weights.logsumexp(0) - math.log(2000)
    relative = (log_weights - found).exp()
    # Five standard errors, and the grid's.
    assert ((found - exact).abs() < 5 * relative.std(0) / 2000**0.5 + 1e-3).all()


def test_proposals_at_modes_of_rows_far_out_are_numbers_below_the_density():
    net = network(LIKELIHOODS["normal"](), "iaf").eval().requires_grad_(False)
    for flow in net.posterior.parameters():
        flow.mul_(8.0)  # far out its inverse is none
    net.latent_prior = build_prior("flow", SIZE)
    x = torch.randn(6, WIDTH) * torch.tensor([1.0, 1e1, 1e2, 1e3, 1e4, 1e5])[:, None]
    _, log_weights = net.importance(x, n_draws=200, n_newton=3)
    assert not log_weights.isnan().any()
    found = log_weights.logsumexp(0) - math.log(200)
    # A density is a mean over codes, and no more than at the best of them, told by a grid.
    side = torch.cat([-torch.logspace(6, -3, 150), torch.logspace(-3, 6, 150)])
    best = net.decode(torch.cartesian_prod(side, side)[:, None]).log_prob(x).amax(0)
    assert (found <= best + 0.01 * best.abs() + 1.0).all()


def test_proposals_at_modes_are_exact_where_all_is_normal():
    net = linear()
    widen_the_guide(net)
    x = rows_of(net, 30)
    x[:, 2] += 20.0  # far out, where the guide proposes nothing of worth
    _, log_weights = net.importance(x, n_draws=500, n_newton=1)
    found = log_weights.logsumexp(0) - math.log(500)
    # Nine tenths of the draws are of the posterior: weights spread by a third and less.
    torch.testing.assert_close(found, marginal(net).log_prob(x), rtol=0, atol=5 * 0.4 / 500**0.5)


def test_codes_are_decoded_in_blocks_that_the_widest_layer_fits(monkeypatch):
    net = network(LIKELIHOODS["bernoulli"](), hidden=(64,))
    assert net.widest == 64
    monkeypatch.setattr("ppl_gen.neural.variational.AT_ONCE", 64 * 50)
    assert net.blocks(25, n_rows=5) == [10, 10, 5]
    assert net.blocks(2, n_rows=500) == [1, 1]
    assert network(LIKELIHOODS["categorical"](), hidden=()).widest == 3 * WIDTH


@pytest.mark.parametrize(("posterior", "numbers"), [("mean_field", SIZE), ("iaf", 64)])
def test_pseudo_inputs_count_in_the_memory_of_a_block(monkeypatch, posterior, numbers):
    net = network(LIKELIHOODS["bernoulli"](), posterior).eval()
    net.latent_prior = build_prior(
        "vamp", SIZE, encode=net.encode_relaxed, rows=torch.rand(50, WIDTH)
    )
    largest = []
    for part in net.modules():
        if isinstance(part, torch.nn.Linear):
            part.register_forward_hook(lambda module, given, told: largest.append(told.numel()))
    assert net.widest == 50 * numbers
    monkeypatch.setattr(variational, "AT_ONCE", 50 * numbers * 5 * 3)
    assert net.blocks(7, n_rows=5) == [3, 3, 1]
    with torch.no_grad():
        found = net.log_prob(torch.ones(5, WIDTH), n_draws=7)
    assert found.shape == (5,)
    assert max(largest) <= variational.AT_ONCE


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_pseudo_inputs_of_every_likelihood_have_gradients(kind, gaps):
    net = network(LIKELIHOODS[kind](), gaps=gaps)
    x = torch.randint(2, (6, WIDTH)).float()
    relaxed = net.likelihood.relaxed(x)
    if kind != "categorical":  # whose indicators become probabilities
        torch.testing.assert_close(net.encode_relaxed(relaxed).mean, net.encode(x).mean)
    net.latent_prior = build_prior("vamp", SIZE, encode=net.encode_relaxed, rows=relaxed)
    (gradient,) = torch.autograd.grad(
        net.prior().log_prob(torch.zeros(SIZE)), [net.latent_prior.shift]
    )
    assert (gradient.flatten(1).abs().sum(-1) > 0).all()  # of each pseudo-input


def test_missing_entries_are_summed_out():
    net = linear()
    know_the_posterior(net)
    x = rows_of(net, 5)
    x[:, 1] = torch.nan
    x[0, 3] = torch.nan
    exact = marginal(net)
    kept = [torch.tensor([0, 2]), *[torch.tensor([0, 2, 3])] * 4]
    expected = torch.stack(
        [
            MultivariateNormal(exact.loc[k], exact.covariance_matrix[k][:, k]).log_prob(row[k])
            for k, row in zip(kept, x, strict=True)
        ]
    )
    torch.manual_seed(0)
    # Weights spread by 2 at most; five standard errors of a mean of 20,000.
    torch.testing.assert_close(net.log_prob(x, n_draws=20_000), expected, rtol=0, atol=0.07)


def test_with_the_exact_posterior_every_bound_is_the_density():
    net = linear()
    know_the_posterior(net)
    x = rows_of(net, 20)
    exact = marginal(net).log_prob(x)
    _, log_weights = net.importance(x, n_draws=3)
    # The guide's floor under scales is 1e-6.
    torch.testing.assert_close(log_weights, exact.expand(3, -1), rtol=0, atol=1e-4)
    many = ElboObjective(net, particles=4000).losses({"x": x})["loss"]
    assert -many.item() == pytest.approx(exact.mean().item(), abs=0.05)  # the reconstruction's


def test_what_is_missing_has_its_conditional_distribution():
    net = linear()
    widen_the_guide(net)
    x = rows_of(net, 3)
    x[:, :2] = torch.nan
    exact = marginal(net)
    cov = exact.covariance_matrix
    gain = cov[:2, 2:] @ torch.linalg.inv(cov[2:, 2:])
    mean = exact.loc[:2] + (x[:, 2:] - exact.loc[2:]) @ gain.T
    spread = cov[:2, :2] - gain @ cov[2:, :2]
    torch.manual_seed(0)
    filled = net.complete(x, n_draws=20_000)
    torch.testing.assert_close(filled[:, :2], mean, rtol=0, atol=0.05)
    torch.testing.assert_close(filled[:, 2:], x[:, 2:])
    drawn = net.draw_missing(x[:1].expand(2000, -1), n_draws=200)[:, :2]
    # Five standard errors of a mean of 2000, and as much for the weights of 200 draws.
    error = 5 * spread.diagonal().sqrt() / 2000**0.5
    assert ((drawn.mean(0) - mean[0]).abs() < 2 * error).all()
    torch.testing.assert_close(drawn.T.cov(), spread, rtol=0.15, atol=0.03)


def test_draws_have_the_models_distribution():
    net = linear()
    torch.manual_seed(0)
    z, x = net.sample_joint(20_000)
    assert z.shape == (20_000, SIZE)
    exact = marginal(net)
    torch.testing.assert_close(x.mean(0), exact.loc, rtol=0, atol=5 * 1.5 / 20_000**0.5)
    torch.testing.assert_close(x.T.cov(), exact.covariance_matrix, rtol=0.1, atol=0.05)
    torch.manual_seed(0)
    by_program = Predictive(net.model, num_samples=1)(n=20_000)["x"][0]
    torch.testing.assert_close(by_program.T.cov(), exact.covariance_matrix, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("posterior", "gaps"), [("mean_field", False), ("full_rank", True), ("iaf", True)]
)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_step_on_the_meta_device(likelihood, posterior, gaps):
    net = network(LIKELIHOODS[likelihood](), posterior, gaps=gaps, context=2).to("meta")
    batch = {
        "x": torch.empty(6, WIDTH, device="meta"),
        "context": torch.empty(6, 2, device="meta"),
        "weight": torch.empty(6, device="meta"),
    }
    kinds = ("elbo", "iwae") if posterior == "iaf" else ("elbo", "iwae", "dreg")
    for kind, particles in itertools.product(kinds, (1, 3)):
        objective = ElboObjective(net, particles=particles, kind=kind)
        objective.losses(batch)["loss"].backward()
        assert all(p.grad is not None and p.grad.is_meta for p in net.parameters())
    assert net.log_prob(batch["x"], batch["context"], n_draws=4).is_meta


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_float64(likelihood):
    net = network(LIKELIHOODS[likelihood](), "iaf", gaps=True).double()
    x = net.sample(5)
    assert x.dtype == torch.float64
    x[0, 0] = torch.nan
    ElboObjective(net, particles=2).losses({"x": x})["loss"].backward()
    assert net.log_prob(x, n_draws=3).dtype == torch.float64
    assert torch.isfinite(net.complete(x, n_draws=3)).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradients_of_rows_with_gaps_are_finite(likelihood):
    net = network(LIKELIHOODS[likelihood](), gaps=True)
    x = torch.tensor([[0.0, 1.0, torch.nan, 1.0], [torch.nan] * WIDTH])
    for kind in ("elbo", "iwae", "dreg"):
        net.zero_grad()
        ElboObjective(net, particles=2, kind=kind).losses({"x": x})["loss"].backward()
        assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_the_encoder_is_told_of_gaps_in_training_data_alone():
    x = torch.tensor([[1.0, torch.nan, 0.0, 1.0]])
    told = network(BernoulliLikelihood(), gaps=True).encoder_inputs(x)
    assert told.tolist() == [[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]]
    assert network(BernoulliLikelihood()).eval().encoder_inputs(x).tolist() == [[1, 0, 0, 1]]


def test_contexts_reach_both_networks():
    net = network(BernoulliLikelihood(), context=2)
    x, z = torch.ones(3, WIDTH), torch.zeros(3, SIZE)
    context = torch.eye(3)[:, :2]
    assert not torch.equal(net.encode(x, context).mean[0], net.encode(x, context).mean[1])
    assert not torch.equal(net.outputs(z, context)[0], net.outputs(z, context)[1])
    assert net.model(context=context).shape == (3, WIDTH)
    assert net.outputs(torch.zeros(5, 3, SIZE), context).shape == (5, 3, WIDTH, 1)


def test_pyros_svi_finds_the_weights():
    net = network(BernoulliLikelihood())
    other = network(BernoulliLikelihood())
    before = {name: value.clone() for name, value in net.named_parameters()}
    store = pyro.get_param_store()
    known = set(store)
    with store.scope():
        for one in (net, other):  # two networks do not share weights by their names
            svi = SVI(one.model, one.guide, pyro.optim.Adam({"lr": 0.01}), TraceMeanField_ELBO())
            svi.step(torch.ones(5, WIDTH))
            for name, value in one.named_parameters():
                assert not torch.equal(value, before[name])
        assert len(store) == 2 * len(before)
    ElboObjective(net).losses({"x": torch.ones(5, WIDTH)})
    assert set(store) == known


def test_a_guide_needs_rows():
    with pytest.raises(ValueError, match="there are no rows x"):
        network(BernoulliLikelihood()).guide(n=3)


def test_draws_go_in_blocks_that_bound_the_memory(monkeypatch):
    net = linear()
    x = rows_of(net, 5)
    assert net.blocks(7, 5) == [7]
    monkeypatch.setattr(variational, "AT_ONCE", 3 * 5 * WIDTH)
    assert net.blocks(7, 5) == [3, 3, 1]
    codes, log_weights = net.importance(x, n_draws=7)
    assert codes.shape == (7, 5, SIZE)
    assert log_weights.shape == (7, 5)
    x[0, 0] = torch.nan
    assert torch.isfinite(net.complete(x, n_draws=7)).all()
    monkeypatch.setattr(variational, "AT_ONCE", 1)
    assert net.blocks(2, 5) == [1, 1]


def test_scales_of_the_guide_stay_positive():
    net = linear("mean_field")
    net.encoder[0].bias.fill_(-800.0)
    scale = net.encode(torch.zeros(1, WIDTH, dtype=torch.float64)).base_dist.scale
    assert (scale > 0).all()
    assert math.isfinite(softplus(scale).log().sum())
