"""The model M2 as a Pyro program, and its bound against Pyro's own and against brute force."""

import math

import pyro
import pytest
import torch
from pyro.infer import TraceEnum_ELBO

from ppl_gen.inference.semi_supervised import EnumeratedELBO, SemiSupervised
from ppl_gen.neural.amortised import MeanField
from ppl_gen.neural.likelihoods import BernoulliLikelihood
from ppl_gen.neural.perceptrons import perceptron
from ppl_gen.neural.priors import StandardNormal
from ppl_gen.neural.semi_supervised import SemiSupervisedAutoencoder
from ppl_gen.neural.variational import VariationalAutoencoder

D, L, K, N = 6, 2, 3, 10


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def network():
    autoencoder = VariationalAutoencoder(
        D,
        BernoulliLikelihood(),
        perceptron(D + K, (8,), 2 * L),
        perceptron(L + K, (8,), D),
        MeanField(L),
        StandardNormal(L),
        L,
        context_width=K,
    )
    with torch.no_grad():
        autoencoder.encoder[-1].bias[L:] = 1.0  # a guide wider than the posterior: stable weights
    prior = torch.tensor([0.5, 0.3, 0.2])
    return SemiSupervisedAutoencoder(autoencoder, perceptron(D, (8,), K), prior).double()


@pytest.fixture
def rows():
    y = torch.full((N,), -1)
    y[:4] = torch.tensor([0, 2, 1, 2])
    return torch.randint(2, (N, D)).double(), y


def mean_bounds(network, x, y, n_draws):
    """Equations 6 and 7 written out, averaged over draws, with their standard errors."""
    totals = []
    with torch.no_grad():
        for _ in range(n_draws):
            q = network.class_logits(x).log_softmax(-1)
            each = []
            for kind in range(K):
                context = network.one_hot(torch.full((N,), kind))
                guide = network.autoencoder.encode(x, context)
                z = guide.sample()
                told = network.autoencoder.decode(z, context).log_prob(x)
                prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
                each.append(told + prior - guide.log_prob(z) + network.log_prior[kind])
            each = torch.stack(each, -1)
            unlabelled = (q.exp() * (each - q)).sum(-1)
            labelled = each.gather(1, y.clamp(min=0)[:, None])[:, 0]
            totals.append(torch.where(y >= 0, labelled, unlabelled).mean())
    totals = torch.stack(totals)
    return totals.mean(), totals.std() / math.sqrt(n_draws)


def test_the_bound_is_that_of_the_paper_and_of_pyro(network, rows):
    x, y = rows
    expected, error = mean_bounds(network, x, y, 400)
    for bound in (EnumeratedELBO(), TraceEnum_ELBO(max_plate_nesting=1)):
        found = torch.stack(
            [
                -bound.differentiable_loss(network.model, network.guide, x, y).detach() / N
                for _ in range(200)
            ]
        )
        both = (error**2 + found.var() / len(found)).sqrt()
        assert abs(found.mean() - expected) < 5 * both  # five standard errors


def test_gradients_are_those_of_pyro(network, rows):
    """On average over draws: the closed form of the KL divergence has the same expectation."""
    x, y = rows
    weight = network.autoencoder.encoder[0].weight

    def gradients(bound):
        found = []
        for _ in range(100):
            loss = bound.differentiable_loss(network.model, network.guide, x, y)
            found.append(torch.autograd.grad(loss, weight)[0])
        found = torch.stack(found)
        return found.mean(0), found.var(0) / len(found)

    (ours, own), (theirs, other) = map(
        gradients, (EnumeratedELBO(), TraceEnum_ELBO(max_plate_nesting=1))
    )
    # 72 entries: five standard errors leave one chance in 20,000.
    assert ((ours - theirs).abs() < 5 * (own + other).sqrt() + 1e-9).all()


def test_a_row_of_known_class_tells_the_classifier_nothing_but_its_own_loss(network, rows):
    x, y = rows
    objective = SemiSupervised(network, alpha=0.0, share=1.0)
    known = objective.losses({"x": x[:4], "y": y[:4]})
    (gradient,) = torch.autograd.grad(known["bound"], network.classifier[0].weight)
    assert gradient.abs().max() == 0.0
    parts = SemiSupervised(network, alpha=0.3, share=0.4).losses({"x": x, "y": y})
    logits = network.class_logits(x[:4])
    expected = torch.nn.functional.cross_entropy(logits, y[:4])  # four of ten rows, of a share 0.4
    torch.testing.assert_close(parts["classification"], expected)
    torch.testing.assert_close(parts["loss"], parts["bound"] + 0.3 * parts["classification"])


def test_weights_count_rows(network, rows):
    x, y = rows
    objective = SemiSupervised(network, alpha=0.1, share=0.4)
    weight = torch.zeros(N).double()
    weight[:5] = 2.0  # of mean one
    torch.manual_seed(1)
    found = objective.losses({"x": x, "y": y, "weight": weight})
    torch.manual_seed(1)
    alone = objective.losses({"x": x, "y": y, "weight": torch.ones(N).double()})
    assert found["bound"] != alone["bound"]
    few = objective.losses({"x": x[:5], "y": y[:5], "weight": weight[:5] / 2.0})
    torch.testing.assert_close(found["classification"], few["classification"])


def test_the_density_sums_to_one_over_all_rows(network):
    network.eval()
    x = torch.cartesian_prod(*[torch.arange(2.0).double()] * D)
    with torch.no_grad():
        joint = network.log_joint(x, n_draws=2000)
    # Sums over rows give back the prior of classes: 64 rows, each to a few percent.
    torch.testing.assert_close(joint.exp().sum(0), network.log_prior.exp(), atol=0.01, rtol=0.0)
    torch.testing.assert_close(
        network.log_prob(x).exp().sum(), torch.tensor(1.0).double(), atol=0.05, rtol=0
    )


def test_drawing_and_the_program(network, rows):
    x, _ = rows
    drawn = network.sample(50)
    assert drawn.shape == (50, D)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    assert network.sample(5, network.one_hot(torch.zeros(5))).shape == (5, D)
    trace = pyro.poutine.trace(network.model).get_trace(n=4)
    assert trace.nodes["y"]["value"].shape == (4,)
    assert trace.nodes["z"]["value"].shape == (4, L)
    trace = pyro.poutine.trace(network.model).get_trace(x)
    assert trace.nodes["x"]["is_observed"]


def test_gaps_are_left_out(rows):
    x, y = rows
    autoencoder = VariationalAutoencoder(
        D,
        BernoulliLikelihood(),
        perceptron(2 * D + K, (8,), 2 * L),
        perceptron(L + K, (8,), D),
        MeanField(L),
        StandardNormal(L),
        L,
        context_width=K,
        gaps=True,
    )
    network = SemiSupervisedAutoencoder(
        autoencoder, perceptron(2 * D, (8,), K), torch.full((K,), 1 / K)
    ).double()
    x[2, 1] = x[5, 0] = math.nan
    parts = SemiSupervised(network, 0.1, 0.4).losses({"x": x, "y": y})
    parts["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    nothing = torch.full((1, D), math.nan).double()
    # With nothing observed the density is that of nothing: one.
    assert network.eval().log_prob(nothing).abs() < 0.5


def test_on_the_meta_device(network, rows):
    x, y = (tensor.to("meta") for tensor in rows)
    network.to("meta")
    parts = SemiSupervised(network, 0.1, 0.4).losses({"x": x, "y": y})
    parts["loss"].backward()
    assert network.eval().log_prob(x).shape == (N,)
