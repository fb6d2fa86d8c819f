"""Bounds and their gradients against explicit formulas, and against Pyro's own ELBOs."""

import math
import signal
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, TraceMeanField_ELBO
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import softplus

from ppl_gen.inference.elbos import (
    ELBOS,
    AnalyticELBO,
    DoublyReparameterisedELBO,
    ElboObjective,
    ImportanceWeightedELBO,
)
from ppl_gen.inference.training.loop import train
from ppl_gen.inference.training.settings import Training

ROWS, WIDTH, SIZE = 6, 3, 2
KINDS = (AnalyticELBO, ImportanceWeightedELBO, DoublyReparameterisedELBO)


class Linear(torch.nn.Module):
    """z ~ N(0, I), x ~ N(W z, 1); q(z | x) = N(A x, softplus(s)): all of it explicit."""

    def __init__(self, rows=ROWS, latent=lambda loc, scale: dist.Normal(loc, scale).to_event(1)):
        super().__init__()
        torch.manual_seed(0)
        self.w = torch.nn.Parameter(torch.randn(SIZE, WIDTH, dtype=torch.float64))
        self.a = torch.nn.Parameter(torch.randn(WIDTH, SIZE, dtype=torch.float64))
        self.s = torch.nn.Parameter(torch.randn(SIZE, dtype=torch.float64))
        self.x = torch.randn(rows, WIDTH, dtype=torch.float64)
        self.latent = latent

    def model(self, x, context=None):
        zeros = x.new_zeros(SIZE)
        with pyro.plate("row", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.w, 1.0).to_event(1), obs=x)

    def guide(self, x, context=None):
        with pyro.plate("row", len(x), dim=-1):
            pyro.sample("z", self.latent(x @ self.a, softplus(self.s)))

    def gradients(self, loss):
        return torch.autograd.grad(loss, [self.w, self.a, self.s], retain_graph=True)


def run(elbo, net, weight=None):
    """Return the estimator's parts and the noise of its draws, (K, n, L)."""
    torch.manual_seed(1)
    (traces,) = elbo._get_traces(net.model, net.guide, (net.x,), {})
    z = traces[1].nodes["z"]["value"]
    noise = ((z - net.x @ net.a) / softplus(net.s)).detach().reshape(-1, len(net.x), SIZE)
    return elbo.parts(traces, weight), noise


def terms(net, noise):
    """Return log p(x | z), log p(z), log q(z) of draws with this noise, and the draws."""
    loc, scale = net.x @ net.a, softplus(net.s)
    z = loc + scale * noise
    likelihood = Normal(z @ net.w, 1.0).log_prob(net.x).sum(-1)
    return likelihood, Normal(0.0, 1.0).log_prob(z).sum(-1), Normal(loc, scale).log_prob(z).sum(-1)


def divergences(net):
    """KL of each latent of each row: (n, L)."""
    loc, scale = net.x @ net.a, softplus(net.s)
    return 0.5 * (loc**2 + scale**2 - 1.0) - scale.log()


def assert_same(found, expected, net):
    torch.testing.assert_close(found, expected)
    for mine, exact in zip(net.gradients(found), net.gradients(expected), strict=True):
        torch.testing.assert_close(mine, exact)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("particles", [1, 4])
def test_the_analytic_bound(particles, weighted):
    net = Linear()
    weight = torch.linspace(0.0, 2.0, ROWS, dtype=torch.float64) if weighted else None
    parts, noise = run(AnalyticELBO(particles), net, weight)
    w = torch.ones(ROWS, dtype=torch.float64) if weight is None else weight
    reconstruction = -(w * terms(net, noise)[0]).mean()
    kl = (w * divergences(net).sum(-1)).mean()
    torch.testing.assert_close(parts["reconstruction"], reconstruction)
    torch.testing.assert_close(parts["kl"], kl)
    assert_same(parts["loss"], reconstruction + kl, net)


@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_beta_weighs_the_divergence(beta):
    net = Linear()
    parts, noise = run(AnalyticELBO(2, beta=beta), net)
    kl = divergences(net).sum(-1).mean()
    assert_same(parts["loss"], -terms(net, noise)[0].mean() + beta * kl, net)


@pytest.mark.parametrize("particles", [1, 3])
def test_free_bits_hold_for_the_mean_of_each_latent(particles):
    net = Linear()
    mean = divergences(net).mean(0)
    between = mean.mean().item()  # one latent has more, the other less
    assert mean.min() < between < mean.max()
    parts, noise = run(AnalyticELBO(particles, free_bits=between), net)
    assert_same(parts["loss"], -terms(net, noise)[0].mean() + mean.clamp(min=between).sum(), net)
    torch.testing.assert_close(parts["kl"], mean.sum())


def correlated(loc, scale):
    return dist.MultivariateNormal(loc, scale_tril=torch.diag(scale))


def transformed(loc, scale):
    base = dist.Normal(torch.zeros_like(loc), 1.0).to_event(1)
    return dist.TransformedDistribution(base, [dist.transforms.AffineTransform(loc, scale, 0, 1)])


def test_a_divergence_without_closed_form_is_sampled():
    net = Linear(latent=transformed)
    parts, noise = run(AnalyticELBO(3), net)
    likelihood, prior, guide = terms(net, noise)
    assert_same(parts["loss"], -(likelihood + prior - guide).mean(), net)
    held, noise = run(AnalyticELBO(3, free_bits=50.0), net)  # one group: 2 latents of 50 nats
    torch.testing.assert_close(held["loss"], -terms(net, noise)[0].mean() + 100.0)


def test_dependent_latents_are_one_group_of_free_bits():
    net = Linear(latent=correlated)
    kl = divergences(net).sum(-1).mean()
    parts, noise = run(AnalyticELBO(2), net)
    assert_same(parts["loss"], -terms(net, noise)[0].mean() + kl, net)
    less = kl.item() / SIZE * 0.9
    assert_same(run(AnalyticELBO(2, free_bits=less), net)[0]["loss"], parts["loss"], net)


@pytest.mark.parametrize("particles", [1, 5])
def test_the_importance_weighted_bound(particles):
    net = Linear()
    weight = torch.linspace(0.0, 2.0, ROWS, dtype=torch.float64)
    parts, noise = run(ImportanceWeightedELBO(particles), net, weight)
    likelihood, prior, guide = terms(net, noise)
    bound = (likelihood + prior - guide).logsumexp(0) - math.log(particles)
    assert_same(parts["loss"], -(weight * bound).mean(), net)


@pytest.mark.parametrize("latent", [None, correlated])
@pytest.mark.parametrize("particles", [1, 5])
def test_the_doubly_reparameterised_gradient(particles, latent):
    net = Linear() if latent is None else Linear(latent=latent)
    parts, noise = run(DoublyReparameterisedELBO(particles), net)
    found = net.gradients(parts["loss"])
    likelihood, prior, guide = terms(net, noise)
    bound = (likelihood + prior - guide).logsumexp(0) - math.log(particles)
    torch.testing.assert_close(parts["loss"], -bound.mean())
    # The IWAE-DReG estimator of Tucker et al. (2019), written out.
    loc, scale = net.x @ net.a, softplus(net.s)
    z = loc + scale * noise
    free = z.detach().requires_grad_()
    log_weight = (
        Normal(free @ net.w, 1.0).log_prob(net.x).sum(-1)
        + Normal(0.0, 1.0).log_prob(free).sum(-1)
        - Normal(loc.detach(), scale.detach()).log_prob(free).sum(-1)
    )
    share = log_weight.detach().softmax(0)
    (by_z,) = torch.autograd.grad(log_weight.sum(), free, retain_graph=True)
    torch.testing.assert_close(
        found[0], torch.autograd.grad(-(share * log_weight).sum(0).mean(), net.w)[0]
    )
    through = -(share.square()[..., None] * by_z * z).sum() / len(net.x)
    for mine, exact in zip(found[1:], torch.autograd.grad(through, [net.a, net.s]), strict=True):
        torch.testing.assert_close(mine, exact)


def test_both_gradients_of_the_bound_have_one_mean():
    net = Linear(rows=1)
    net.x = net.x.expand(40_000, WIDTH)
    one, two = (
        net.gradients(run(kind(3), net)[0]["loss"])
        for kind in (ImportanceWeightedELBO, DoublyReparameterisedELBO)
    )
    for mine, other in zip(two, one, strict=True):
        # Means of 40,000 rows whose gradients spread by less than 5: six standard errors.
        torch.testing.assert_close(mine, other, rtol=0, atol=6 * 5 / 200)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_pyros_own_bounds_are_the_same(scale):
    net = Linear()
    model, guide = poutine.scale(net.model, scale), poutine.scale(net.guide, scale)
    torch.manual_seed(1)
    found = AnalyticELBO(3).differentiable_loss(model, guide, net.x)
    peer = TraceMeanField_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    torch.manual_seed(1)
    expected = peer.differentiable_loss(model, guide, net.x)
    assert_same(found, expected, net)


def test_renyis_bound_of_order_zero_is_the_importance_weighted_one():
    net = Linear()
    peer = RenyiELBO(alpha=0, num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    losses = []
    for elbo in (ImportanceWeightedELBO(4), peer):
        torch.manual_seed(1)
        losses.append(elbo.loss(net.model, net.guide, net.x))
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_pyros_svi_takes_them(kind):
    class Registered(Linear):
        def model(self, x, context=None):
            pyro.module("linear", self)
            super().model(x)

    net = Registered()
    with pyro.get_param_store().scope():
        svi = pyro.infer.SVI(net.model, net.guide, pyro.optim.Adam({"lr": 0.05}), kind(4))
        torch.manual_seed(0)
        losses = [svi.step(net.x) for _ in range(100)]
        assert sum(losses[-10:]) < sum(losses[:10])
        assert math.isfinite(svi.evaluate_loss(net.x))


def test_bounds_are_in_order():
    net = Linear()
    net.x = net.x.repeat(100, 1)
    covariance = net.w.T @ net.w + torch.eye(WIDTH, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(net.x.new_zeros(WIDTH), covariance)
    bounds = [-run(AnalyticELBO(), net)[0]["loss"].item()]
    bounds += [-run(ImportanceWeightedELBO(k), net)[0]["loss"].item() for k in (5, 50, 500)]
    assert bounds == sorted(bounds)
    assert bounds[-1] < exact.log_prob(net.x).mean()


@pytest.mark.parametrize("kind", ELBOS)
def test_the_objective_is_the_bound_of_the_public_programs(kind):
    net = Linear()
    objective = ElboObjective(net, particles=3, kind=kind)
    batch = {"x": net.x, "weight": torch.linspace(0.5, 1.5, ROWS, dtype=torch.float64)}
    torch.manual_seed(1)
    first = objective.losses(batch)  # with Pyro's checks
    torch.manual_seed(1)
    again = objective.losses(batch)  # without
    expected, _ = run(dict(zip(ELBOS, KINDS, strict=True))[kind](3), net, batch["weight"])
    for found in (first, again):
        assert set(found) == set(expected)
        assert_same(found["loss"], expected["loss"], net)
    assert not dict(pyro.get_param_store())
    with torch.no_grad():
        assert torch.isfinite(objective.validate(batch)["loss"])


class Stopped(ElboObjective):
    """Warmed up over half of the steps, and interrupted by Ctrl-C in one of them."""

    def __init__(self, module, n_steps, at=-1):
        module.beta_warmup = 0.5
        super().__init__(module, n_steps=n_steps)
        self.at, self.shares = at, []

    def step(self, batch, descend):
        self.shares.append(self.module.warmed.item())
        if len(self.shares) == self.at:
            signal.raise_signal(signal.SIGINT)
        return super().step(batch, descend)


def test_beta_rises_with_the_steps():
    net = Linear()
    net.beta, net.free_bits, net.beta_warmup = 2.0, 0.3, 0.4
    objective = ElboObjective(net, n_steps=10)
    batch = {"x": net.x}
    for step in range(6):
        assert objective.settled == (step >= 4)
        torch.manual_seed(1)
        whole = objective.losses(batch)
        descended = []
        torch.manual_seed(1)
        parts = objective.step(batch, lambda loss, parts, to=descended: to.append(loss))
        kept = AnalyticELBO(beta=2.0 * min(step / 4, 1.0), free_bits=0.3)
        assert_same(descended[0], run(kept, net)[0]["loss"], net)
        # What is told and validated is the whole of it.
        torch.testing.assert_close(parts, whole)
        torch.manual_seed(1)
        torch.testing.assert_close(objective.validate(batch), whole)
    assert "warmed" not in net.state_dict()


@pytest.mark.parametrize("n_warm", [1, 2, 3, 7, 49, 1000])
def test_the_rise_ends_with_its_last_step(monkeypatch, n_warm):
    # In float32 the sum of so many parts of one is not one.
    net = Linear().float()
    net.beta_warmup = 1.0
    objective = ElboObjective(net, n_steps=n_warm)
    parts = {"loss": torch.tensor(2.0), "reconstruction": torch.tensor(1.0)}
    monkeypatch.setattr(objective, "losses", lambda batch: parts)
    for _ in range(n_warm):
        assert not objective.settled
        objective.step({}, lambda loss, parts: None)
    assert objective.settled
    assert net.warmed == 1.0


def trained(objective, **settings):
    settings = {"epochs": 10, "batch_size": 20, "learning_rate": 0.05} | settings
    rows = {"x": np.random.default_rng(0).normal(size=(60, WIDTH))}
    return objective, train(objective, rows, Training(**settings))


def test_a_rise_that_is_interrupted_goes_on(tmp_path):
    kept = {"checkpoint": tmp_path, "checkpoint_minutes": 60.0}
    with pytest.warns(RuntimeWarning, match="interrupted"):
        trained(Stopped(Linear(), 30, at=8), **kept)
    resumed, _ = trained(Stopped(Linear(), 30), **kept)
    whole, _ = trained(Stopped(Linear(), 30))
    assert resumed.shares == whole.shares[8:]
    assert whole.shares == pytest.approx([*(np.arange(15) / 15), *[1.0] * 15])
    for mine, exact in zip(resumed.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(mine, exact)


def test_epochs_of_the_rise_are_no_candidates():
    # A validation that gets worse ends no rise; where the rise outlasts the training, the last
    # weights are kept.
    _, found = trained(Stopped(Linear(), 30), validation=0.2, patience=1, learning_rate=10.0)
    assert found.best_epoch >= 5  # which ends with the rise
    assert found.n_epochs > 5
    _, found = trained(Stopped(Linear(), 90), validation=0.2, patience=1)
    assert found.best_epoch == found.n_epochs == 10


def test_pyro_checks_the_first_batch():
    net = Linear()

    def shapeless(x, context=None):
        pyro.sample("z", dist.Normal(x @ net.a, 1.0))  # rows without a plate

    bad = SimpleNamespace(model=net.model, guide=shapeless)
    with pytest.raises(ValueError, match="disagree at site 'z'"):
        ElboObjective(bad).losses({"x": net.x})


def test_bounds_that_cannot_be():
    net = Linear()
    with pytest.raises(ValueError, match=r"no bound 'elbow'; expected one of 'elbo', 'iwae', 'd"):
        ElboObjective(net, kind="elbow")
    for name, value in {"beta": 2.0, "free_bits": 0.1, "beta_warmup": 0.5}.items():
        held = SimpleNamespace(model=net.model, guide=net.guide, **{name: value})
        with pytest.raises(ValueError, match="kind='iwae' has one bound, of beta 1 from the first"):
            ElboObjective(held, kind="iwae")
    with pytest.raises(NotImplementedError, match="TransformedDistribution; expected normals"):
        run(DoublyReparameterisedELBO(2), Linear(latent=transformed))


def test_divergence_of_correlated_from_independent_normals():
    torch.manual_seed(0)
    prior = dist.Normal(
        torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64),
        torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64),
    )
    factor = torch.randn(5, 3, 3, dtype=torch.float64).tril(-1) + torch.diag(prior.scale)
    guide = dist.MultivariateNormal(torch.randn(5, 3, dtype=torch.float64), scale_tril=factor)
    found = kl_divergence(guide, prior.to_event(1))
    # As torch has it for two multivariate normals.
    dense = dist.MultivariateNormal(prior.loc, scale_tril=torch.diag(prior.scale))
    torch.testing.assert_close(found, kl_divergence(guide, dense))
