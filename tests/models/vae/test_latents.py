"""The posterior of latents by NUTS against the exact one; which latents are active."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from ppl_gen import NUTS, SVI, VAE, Training, infer
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
        compare(linear, x, NUTS(chains=1, warmup=80, draws=120, max_tree_depth=4))


@pytest.mark.slow
def test_a_linear_decoder_with_long_chains(linear):
    x = np.random.default_rng(0).normal(size=(2, D)) + np.arange(4.0)
    draws = compare(linear, x, NUTS(chains=2, warmup=200, draws=700))
    _, covariance = exact(linear, x[0])
    # Five standard errors of a correlation, of 1,400 draws.
    found = np.corrcoef(draws[:, 0].T)[0, 1]
    expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert abs(found - expected) < 5 / 1400**0.5


@pytest.fixture(scope="module")
def flowers():
    method = SVI(training=Training(epochs=40, batch_size=50, learning_rate=0.01))
    x = load_iris(as_frame=True).data
    return VAE(2, hidden_layer_sizes=(16,), inference=method, random_state=0).fit(x), x


def test_the_posterior_of_rows_of_a_fitted_model(flowers):
    model, x = flowers
    rows = x.iloc[[3, 70]]
    method = NUTS(chains=1, warmup=40, draws=40, max_tree_depth=3)
    posterior = model.latent_posterior(rows, method, random_state=0, progress=False)
    z = posterior.idata.posterior["z"]
    assert z.dims == ("chain", "draw", "row", "latent")
    assert z.coords["row"].values.tolist() == [3, 70]
    # The guide is close to the posterior of such simple data: within two of its deviations.
    mean, variance = model._latent_moments(model._scoring_data(rows, None))
    assert (np.abs(posterior.stacked("z").mean(0) - mean) < 2.0 * np.sqrt(variance)).all()
    assert model.structure_.module.like().dtype == torch.float32  # the model is as it was


def test_the_posterior_refuses_what_the_model_refuses(flowers):
    model, x = flowers
    with pytest.raises(ValueError, match="petal width"):
        model.latent_posterior(x.iloc[:2, :3])
    with pytest.raises(ValueError, match="the model was fitted without"):
        model.latent_posterior(x.iloc[:2], context=[0, 1])
    elsewhere = copy.copy(model).set_params(device="cuda:99")
    with pytest.raises(ValueError, match="torch finds"):  # not JAX, which computes nothing here
        elsewhere.latent_posterior(x.iloc[:2])


def test_active_latents_and_their_nats(flowers):
    model, x = flowers
    mean, variance = model._latent_moments(model._scoring_data(x, None))
    active = model.active_units(x)
    assert active.dtype == bool
    np.testing.assert_array_equal(active, mean.var(axis=0) > 0.01)
    assert active.any()
    prior = torch.distributions.Normal(0.0, 1.0)
    guide = torch.distributions.Normal(*map(torch.as_tensor, (mean, np.sqrt(variance))))
    expected = torch.distributions.kl_divergence(guide, prior).mean(0).numpy()
    np.testing.assert_allclose(model.latent_kl(x), expected)
    with pytest.raises(ValueError, match="X has 1 row; expected 2 or more"):
        model.active_units(x.iloc[:1])


def test_nats_of_latents_under_other_priors():
    x = load_iris().data
    method = SVI(training=Training(epochs=5, batch_size=50, learning_rate=0.01))
    model = VAE(2, hidden_layer_sizes=(8,), prior="vamp", inference=method, random_state=0).fit(x)
    with pytest.raises(ValueError, match="the prior is not the standard normal"):
        model.latent_kl(x)
    assert model.active_units(x).shape == (2,)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (0.0, "none of 6 latents are active; the guide of all is the prior, whatever"),
        ([1.0, 1.0, 0.0, 0.0, 0.0, 0.0], "2 of 6 latents are active; the guide of the others is"),
    ],
)
def test_collapse_is_told_of_some_and_of_all(scale, message):
    means = np.random.default_rng(0).normal(size=(50, 6)) * scale

    class Collapsed(VAE):
        _training = {"x": means}  # noqa: RUF012

        def _latent_moments(self, data):
            return data["x"], np.ones_like(data["x"])

    with pytest.warns(RuntimeWarning, match=message):
        Collapsed(6)._warn_of_collapse()


def test_collapse_is_told_with_what_to_do():
    x = np.random.default_rng(0).normal(size=(200, 3))  # independent: latents say nothing
    method = SVI(training=Training(epochs=40, batch_size=50, learning_rate=0.01))
    with pytest.warns(RuntimeWarning, match=r"of 6 latents are active.*free_bits") as told:
        VAE(6, hidden_layer_sizes=(8,), beta=4.0, inference=method, random_state=0).fit(x)
    assert len(told) == 1
    assert told[0].filename == __file__
