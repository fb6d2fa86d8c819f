"""Placement without a GPU: a training step of every network on torch's meta device.

A tensor that is made on the CPU by mistake raises there, and so does a look at a value.
"""

import sys

import numpy as np
import pyro
import pytest
import torch
from model_members import complete_flowers, complete_penguins, flowers, patches, weather

from ppl_gen import (
    MADE,
    SVI,
    VAE,
    VQVAE,
    CausalTransformer,
    NormalizingFlow,
    PixelCNN,
    PixelRNN,
    SemiSupervisedVAE,
)
from ppl_gen.inference.training import loop

IMAGE = {"image_shape": (3, 3)}
FLOWS = {
    name: (lambda name=name: NormalizingFlow(name, n_transforms=2, hidden_layer_sizes=(8,)))
    for name in ("realnvp", "maf", "iaf", "nsf", "nsf_coupling")
}
ROWS = {
    **{name: (build, complete_flowers) for name, build in FLOWS.items()},
    "glow": (
        lambda: NormalizingFlow("glow", n_transforms=2, image_shape=(2, 2)),
        complete_flowers,
    ),
    "dequantised": (
        lambda: NormalizingFlow("realnvp", hidden_layer_sizes=(8,), discrete="variational"),
        patches,
    ),
    "bounded": (
        lambda: NormalizingFlow("realnvp", hidden_layer_sizes=(8,), bounds=(0.0, 100.0)),
        complete_flowers,
    ),
    **{
        f"vae_{likelihood}": (
            lambda likelihood=likelihood: VAE(2, likelihood, hidden_layer_sizes=(8,), n_levels=3),
            patches,
        )
        for likelihood in ("categorical", "discretised_logistic")
    },
    "vae_with_gaps": (lambda: VAE(2, hidden_layer_sizes=(8,)), flowers),
    **{
        f"vae_{posterior}_{prior}": (
            lambda posterior=posterior, prior=prior: VAE(
                2, hidden_layer_sizes=(8,), posterior=posterior, prior=prior
            ),
            complete_flowers,
        )
        for posterior, prior in [("full_rank", "vamp"), ("iaf", "flow")]
    },
    **{
        f"vae_{objective}": (
            lambda objective=objective: VAE(
                2, hidden_layer_sizes=(8,), inference=SVI(objective=objective, particles=3)
            ),
            complete_flowers,
        )
        for objective in ("iwae", "dreg")
    },
    "vae_convolutional": (
        lambda: VAE(2, architecture="convolutional", hidden_layer_sizes=(4,), **IMAGE),
        patches,
    ),
    "vqvae": (lambda: VQVAE(4, 2, hidden_layer_sizes=(8,)), complete_flowers),
    "made": (lambda: MADE((8,)), complete_penguins),
    "pixel_cnn": (lambda: PixelCNN(n_filters=4, n_layers=2, **IMAGE), patches),
    "pixel_rnn": (lambda: PixelRNN(n_filters=4, n_layers=2, **IMAGE), patches),
    "transformer": (lambda: CausalTransformer(1, 2, 8, tokeniser=None), weather),
}


class Stepped(Exception):
    """A step was taken on the meta device."""


@pytest.fixture
def step_on_meta(monkeypatch):
    """Have training take one step on the meta device, and end."""

    def train(objective, data, training=None, **_):
        network = objective.module.to("meta")
        dtype = next(network.parameters()).dtype
        batch = {}
        for name, array in data.items():
            rows = np.asarray(array)[:4]
            kind = dtype if rows.dtype.kind == "f" else torch.int64
            batch[name] = torch.empty(rows.shape, dtype=kind, device="meta")

        def descend(loss, player=None, parts=None):
            loss.backward()

        with pyro.validation_enabled(False):  # it looks at values
            parts = objective.step(batch, descend)
        assert all(part.device.type == "meta" for part in parts.values())
        moved = [p for player in objective.players.values() for p in player]
        assert all(p.grad is not None for p in moved if p.requires_grad)
        raise Stepped

    original = loop.train
    for module in [m for m in sys.modules.values() if m.__dict__.get("train") is original]:
        monkeypatch.setattr(module, "train", train)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("conditional", [False, True])
def test_a_step_on_the_meta_device(step_on_meta, name, conditional):
    build, data = ROWS[name]
    x, _ = data()
    model = build()
    if conditional and not model.takes_context:
        pytest.skip("the density takes no context")
    context = {"context": np.arange(len(x)) % 2} if conditional else {}
    with pytest.raises(Stepped):
        model.fit(x, **context)


def test_a_semi_supervised_step_on_the_meta_device(step_on_meta):
    x, y = complete_flowers()
    codes = np.unique(y, return_inverse=True)[1]
    with pytest.raises(Stepped):
        SemiSupervisedVAE(2, hidden_layer_sizes=(8,)).fit(x, np.where(codes == 2, -1, codes))
