"""The posterior of latents by NUTS against the exact one; which latents are active."""

import numpy as np
import pytest
import torch

from ppl_gen import NUTS, infer
from ppl_gen.models.vae.latents import latent_program
from ppl_gen.neural.amortised import MeanField
from ppl_gen.neural.likelihoods import NormalLikelihood
from ppl_gen.neural.perceptrons import perceptron
from ppl_gen.neural.priors import StandardNormal
from ppl_gen.neural.variational import VariationalAutoencoder

D, L = 4, 2


@pytest.fixture(scope="module")
def linear():
    """An autoencoder with a linear decoder: factor analysis."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return (
            VariationalAutoencoder(
                D,
                NormalLikelihood(torch.arange(4.0), torch.tensor([1.0, 2.0, 0.5, 1.0]), "column"),
                perceptron(D, (8,), 2 * L),
                perceptron(L, (), D),
                MeanField(L),
                StandardNormal(L),
                L,
            )
            .double()
            .eval()
        )


def exact(module, x):
    """Mean and covariance of the factors of a row with gaps."""
    there = ~np.isnan(x)
    layer = module.decoder[0]
    scale = module.likelihood.scale.numpy()
    loadings = (scale[:, None] * layer.weight.detach().numpy())[there]
    mean = (module.likelihood.location.numpy() + scale * layer.bias.detach().numpy())[there]
    precision = 1.0 / module.likelihood.deviation().detach().numpy()[there] ** 2
    covariance = np.linalg.inv(np.eye(L) + loadings.T * precision @ loadings)
    return covariance @ (loadings.T * precision) @ (x[there] - mean), covariance


def compare(module, x, method):
    posterior = infer(
        latent_program(module),
        x=x,
        method=method,
        engine="pyro",
        coords={"row": ["a", "b"], "latent": [0, 1]},
        progress=False,
    )
    assert posterior.idata.posterior["z"].dims == ("chain", "draw", "row", "latent")
    summary = posterior.summary()
    draws = posterior.stacked("z")
    for row in range(2):
        mean, covariance = exact(module, x[row])
        cells = slice(row * L, (row + 1) * L)
        # Five Monte Carlo standard errors, as the chains' own effective sizes tell them.
        error = np.abs(summary["mean"].to_numpy()[cells] - mean)
        assert (error < 5 * summary["mcse_mean"].to_numpy()[cells]).all()
        error = np.abs(summary["sd"].to_numpy()[cells] - np.sqrt(np.diag(covariance)))
        assert (error < 5 * summary["mcse_sd"].to_numpy()[cells]).all()
    return draws


def test_a_linear_decoder_has_the_posterior_of_factor_analysis(linear):
    x = np.random.default_rng(0).normal(size=(2, D)) + np.arange(4.0)
    x[1, 2] = np.nan
    with torch.random.fork_rng():
        compare(linear, x, NUTS(chains=1, warmup=100, draws=150, max_tree_depth=4))


@pytest.mark.slow
def test_a_linear_decoder_with_long_chains(linear):
    x = np.random.default_rng(0).normal(size=(2, D)) + np.arange(4.0)
    draws = compare(linear, x, NUTS(chains=2, warmup=500, draws=2000))
    _, covariance = exact(linear, x[0])
    # The correlation of 4,000 draws: five standard errors of a correlation are 0.08 and less.
    found = np.corrcoef(draws[:, 0].T)[0, 1]
    expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert abs(found - expected) < 0.08
