"""A step of a variational autoencoder, 784-400-20, against bare torch and against Pyro's SVI."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pyro
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from benchmarks.measure import Row, in_turn
from ppl_gen.inference.elbos import ElboObjective
from ppl_gen.neural.amortised import SCALE_FLOOR, MeanField
from ppl_gen.neural.likelihoods import BernoulliLikelihood
from ppl_gen.neural.perceptrons import perceptron
from ppl_gen.neural.priors import build_prior
from ppl_gen.neural.variational import VariationalAutoencoder

WIDTH, HIDDEN, LATENT, BATCH = 784, 400, 20, 512
STEPS = 200


def rows() -> Iterator[Row]:
    """Measure single steps, in turn: loss, gradients and Adam, of the same start on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _rows()
    finally:
        torch.set_num_threads(threads)


def _rows() -> Iterator[Row]:
    torch.manual_seed(0)
    network = VariationalAutoencoder(
        WIDTH,
        BernoulliLikelihood(),
        perceptron(WIDTH, (HIDDEN,), 2 * LATENT),
        perceptron(LATENT, (HIDDEN,), WIDTH),
        MeanField(LATENT),
        build_prior("normal", LATENT),
        LATENT,
    )
    x = torch.as_tensor(np.random.default_rng(0).random((BATCH, WIDTH)) < 0.2).float()
    job = f"VAE step {WIDTH}-{HIDDEN}-{LATENT}, batch {BATCH}"

    ours = copy.deepcopy(network)
    objective = ElboObjective(ours)
    step = _descend(lambda: objective.losses({"x": x})["loss"], ours)
    bare = copy.deepcopy(network)
    peer = _descend(lambda: _bare_loss(bare, x), bare)
    difference = abs(_seeded(step) - _seeded(peer))
    fast, slow, *_ = in_turn(step, peer, repeats=STEPS)
    yield Row(
        job,
        "bare torch",
        fast,
        slow,
        f"loss a row within {difference:.0e}",
        "0.9x (1.1 of the peer's time)",
    )

    ours = copy.deepcopy(network)
    objective = ElboObjective(ours)
    step = _descend(lambda: objective.losses({"x": x})["loss"], ours)
    theirs = copy.deepcopy(network)
    with pyro.get_param_store().scope():
        adam = pyro.optim.Adam({"lr": 1e-3})
        svi = SVI(theirs.model, theirs.guide, adam, TraceMeanField_ELBO())
        difference = abs(_seeded(step) - _seeded(lambda: svi.step(x) / BATCH))
        fast, slow, *_ = in_turn(step, lambda: svi.step(x), repeats=STEPS)
    agreement = f"loss a row within {difference:.0e}"
    yield Row(job, "Pyro's SVI, its ELBO with the analytic KL", fast, slow, agreement, "1x")


def _descend(loss: Callable[[], Tensor], module: nn.Module) -> Callable[[], float]:
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)

    def step() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.item()

    return step


def _bare_loss(network: VariationalAutoencoder, x: Tensor) -> Tensor:
    """The same estimator without Pyro: a draw, the reconstruction, the KL in closed form."""
    loc, scale = network.encoder(x).chunk(2, dim=-1)
    scale = softplus(scale) + SCALE_FLOOR
    z = loc + scale * torch.randn_like(scale)
    reconstruction = binary_cross_entropy_with_logits(network.decoder(z), x, reduction="sum")
    kl = -0.5 * (1.0 + 2.0 * scale.log() - loc.square() - scale.square()).sum()
    return (reconstruction + kl) / len(x)


def _seeded(step: Callable[[], float]) -> float:
    torch.manual_seed(1)
    return step()
