"""VAE against models whose likelihood is exact, and its manners."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine
from torch import nn

import ppl_gen
from ppl_gen import SVI, VAE, ProbabilisticPCA, Training

DEEP = {"hidden_layer_sizes": (16,), "random_state": 0}


def svi(epochs=5, batch_size=50, learning_rate=1e-2, schedule=None, **settings):
    training = Training(epochs, batch_size, learning_rate, schedule=schedule)
    return SVI(training=training, **settings)


def quick(latent_dim=2, **settings):
    return VAE(latent_dim, **({"inference": svi()} | DEEP | settings))


def fitted(X, latent_dim=2, context=None, **settings):
    with warnings.catch_warnings():
        # So few epochs may leave latents that say nothing yet.
        warnings.filterwarnings("ignore", message=".* latents are active", category=RuntimeWarning)
        return quick(latent_dim, **settings).fit(X, context=context)


@pytest.fixture(scope="module")
def model(iris):
    return fitted(iris, inference=svi(40))


def linear_rows(n=400, width=6, size=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, size)) @ rng.normal(size=(size, width)) * np.linspace(2.0, 0.5, width)
    x += 0.5 * rng.normal(size=x.shape)
    return (x - x.mean(axis=0)) / x.std(axis=0)


# -- the likelihood ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("posterior", "inference"),
    [
        ("mean_field", svi(150, 100, 3e-2, "cosine")),
        ("full_rank", svi(150, 100, 3e-2, "cosine", objective="dreg", particles=5)),
    ],
)
def test_a_linear_autoencoder_reaches_probabilistic_pca(posterior, inference):
    x = linear_rows()
    exact = ProbabilisticPCA(2).fit(x).score(x)
    model = VAE(
        2,
        hidden_layer_sizes=(),
        posterior=posterior,
        inference=inference,
        random_state=0,
        dtype="float64",
    ).fit(x)
    estimate = model.log_prob_estimate(x, n_importance=300)
    assert estimate.standard_error.max() < 0.05
    assert estimate.effective_size.min() > 200  # the guide is the posterior, but for a little
    assert estimate.log_prob.mean() == pytest.approx(exact, abs=0.01)
    assert model.elbo(x, n_importance=300).mean() == pytest.approx(exact, abs=0.01)


@pytest.mark.slow
def test_a_linear_autoencoder_of_wines_reaches_probabilistic_pca():
    x = load_wine().data
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    exact = ProbabilisticPCA(3).fit(x).score(x)
    training = svi(2000, 89, 1e-2, "cosine")
    model = VAE(3, hidden_layer_sizes=(), inference=training, random_state=0, dtype="float64").fit(
        x
    )
    assert model.score(x) == pytest.approx(exact, abs=0.01)


def test_density_is_of_the_data_as_given():
    x = linear_rows()
    scaled = fitted(x * 1000.0 + 5.0, inference=svi(2))
    plain = fitted(x, inference=svi(2))
    # Standardised alike, so that the density differs by the Jacobian alone.
    np.testing.assert_allclose(
        scaled.log_prob(x * 1000.0 + 5.0), plain.log_prob(x) - 6 * np.log(1000.0), atol=2e-2
    )


def test_float64_keeps_the_digits_of_numbers_far_from_zero():
    # Of these, float32 has steps of 1024, and so had their centre.
    X = np.random.default_rng(0).normal(size=(200, 2))
    found = [fitted(rows, 1, dtype="float64").log_prob(rows) for rows in (X, X + 12345678903.7)]
    # Rows far away have 1e-6 of a deviation left.
    np.testing.assert_allclose(*found, atol=1e-4)


def test_bounds_are_in_order(model, iris):
    elbo, few, many = (
        model.elbo(iris, n_importance=500).mean(),
        model.log_prob(iris, n_importance=5).mean(),
        model.log_prob(iris, n_importance=2000).mean(),
    )
    assert elbo < few < many
    assert model.density == "lower_bound"


def test_estimates_repeat_and_tell_their_error(model, iris):
    one = model.log_prob_estimate(iris, n_importance=100)
    np.testing.assert_array_equal(one.log_prob, model.log_prob_estimate(iris, None, 100).log_prob)
    np.testing.assert_array_equal(one.log_prob, model.log_prob(iris, n_importance=100))
    exact = model.log_prob(iris, n_importance=20_000)
    off = (one.log_prob - exact) / one.standard_error
    assert np.mean(np.abs(off) < 3) > 0.9
    assert ((one.effective_size > 0) & (one.effective_size <= 100)).all()


def test_proposals_at_modes(digits):
    x = (digits > 7).astype(float)
    x[0, 3, 3] = np.nan
    model = fitted(x, 6, likelihood="bernoulli", inference=svi(20))
    many = model.log_prob(x[:50], n_importance=5000)
    plain, better = (
        model.log_prob_estimate(x[:50], n_importance=100, n_newton=steps) for steps in (0, 3)
    )
    # Measured 84 and 60 of 100; of 784 pixels and 20 latents 20 and 3.
    assert np.median(better.effective_size) > 1.2 * np.median(plain.effective_size)
    # Standard errors of 50 rows of 0.05 each: five of their mean, and the bound's looseness.
    assert better.log_prob.mean() == pytest.approx(many.mean(), abs=0.05)
    alike = model.log_prob(x[:50], n_importance=100, n_newton=3)
    np.testing.assert_array_equal(alike, better.log_prob)


def test_memory_is_bounded(model, iris, monkeypatch):
    monkeypatch.setattr("ppl_gen.models.vae.importance.AT_ONCE", 16 * 7)  # 16 hidden units
    assert model.rows_at_a_time == 7
    assert model.log_prob(iris[:20]).shape == (20,)


@pytest.mark.parametrize(
    "settings",
    [
        {"posterior": "iaf"},
        {"prior": "vamp"},
        {"prior": "flow"},
        {"beta": 0.5, "free_bits": 0.1, "noise": "column"},
        {"noise": 0.04},
        {"inference": svi(objective="iwae", particles=3)},
    ],
    ids=repr,
)
def test_what_can_be_chosen(iris, settings, tmp_path):
    model = fitted(iris, **settings)
    assert np.isfinite(model.score(iris))
    model.save(tmp_path / "model")
    again = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(again.log_prob(iris), model.log_prob(iris))
    np.testing.assert_array_equal(again.sample(3, random_state=0), model.sample(3, random_state=0))


def test_pseudo_inputs_start_at_rows_of_the_data(iris):
    known = iris.copy()
    known[::3, 0] = np.nan
    labels = np.repeat(["a", "b", "c"], 50)
    model = fitted(known, context=labels, prior="vamp", inference=svi(1))
    prior = model.structure_.module.latent_prior
    centre = prior.centre.numpy()
    assert centre.shape == (64, 4)
    complete = np.where(np.isnan(known), np.nanmean(known, axis=0), known).astype(np.float32)
    places = [np.flatnonzero(np.isclose(complete, row).all(axis=1)) for row in centre]
    assert all(len(place) for place in places)
    kinds = np.eye(3)[np.repeat([0, 1, 2], 50)]
    for place, context in zip(places, prior.context.numpy(), strict=True):
        assert any((kinds[i] == context).all() for i in place)


# -- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["mlp", "convolutional"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical", "discretised_logistic"])
def test_images_of_levels(digits, likelihood, architecture):
    x = (digits > 7).astype(int) if likelihood == "bernoulli" else (digits // 4).astype(int)
    hidden = (16,) if architecture == "mlp" else (4, 8)
    model = fitted(
        x,
        likelihood=likelihood,
        architecture=architecture,
        hidden_layer_sizes=hidden,
        inference=svi(3, 100),
    )
    drawn = model.sample(5, random_state=0)
    assert drawn.shape == (5, 8, 8)
    assert drawn.dtype == x.dtype
    assert set(np.unique(drawn)) <= set(np.unique(x))
    assert model.log_prob(x[:3]).shape == (3,)
    assert model.log_prob(x[:3]).max() < 0.0  # a probability
    means = model.reconstruct(x[:3])
    assert means.shape == (3, 8, 8)
    if likelihood == "bernoulli":
        assert ((means > 0) & (means < 1)).all()


def test_an_autoencoder_sees_more_than_independent_pixels(digits):
    x = (digits > 7).astype(int)
    model = fitted(
        x, 8, likelihood="bernoulli", hidden_layer_sizes=(64,), inference=svi(60, 50, 3e-3)
    )
    share = x.mean(axis=0).clip(1e-3, 1 - 1e-3)
    alone = np.where(x, np.log(share), np.log1p(-share)).sum(axis=(1, 2))
    assert model.score(x) > alone.mean() + 4.0
    right = (model.reconstruct(x) > 0.5) == x
    assert right.mean() > (np.where(share > 0.5, 1, 0) == x).mean() + 0.03


@pytest.mark.parametrize("shape", [(7, 5), (5, 4, 3)])
def test_colours_and_odd_sizes(shape):
    x = np.random.default_rng(0).normal(size=(60, *shape)) + np.arange(shape[-1])
    model = fitted(x, architecture="convolutional", hidden_layer_sizes=(4, 4))
    assert model.sample(2).shape == (2, *shape)
    assert model.reconstruct(x[:2]).shape == (2, *shape)
    flat = fitted(
        x.reshape(60, -1),
        architecture="convolutional",
        hidden_layer_sizes=(4, 4),
        image_shape=shape,
    )
    np.testing.assert_array_equal(flat.log_prob(x.reshape(60, -1)), model.log_prob(x))


# -- codes ------------------------------------------------------------------------------------


def test_codes_there_and_back(model, iris):
    z = model.transform(iris)
    assert z.shape == (150, 2)
    assert z.dtype == np.float64
    np.testing.assert_array_equal(model.reconstruct(iris), model.inverse_transform(z))
    assert model.get_feature_names_out().tolist() == ["vae0", "vae1"]
    # Rows come back nearer than their mean is.
    left = ((model.reconstruct(iris) - iris) ** 2).mean()
    assert left < 0.3 * iris.var(axis=0).mean()
    steps = model.interpolate(iris[0], iris[100], n=5)
    assert steps.shape == (5, 4)
    np.testing.assert_allclose(steps[[0, -1]], model.reconstruct(iris[[0, 100]]), rtol=1e-5)


def test_lines_between_rows_of_a_frame():
    table = load_iris(as_frame=True).data
    model = fitted(table)
    steps = model.interpolate(table.iloc[0], table.iloc[100], n=3)  # without a warning of names
    pd.testing.assert_index_equal(steps.columns, table.columns)
    ends = model.reconstruct(table.iloc[[0, 100]])
    np.testing.assert_allclose(steps.iloc[[0, -1]], ends, rtol=1e-5)
    of_frames = model.interpolate(table[:1], table[100:101], n=3)
    pd.testing.assert_frame_equal(of_frames, steps)
    with pytest.raises(ValueError, match="a and b have 4 rows together; expected one each"):
        model.interpolate(table[:2], table[2:4])
    with pytest.raises(ValueError, match="feature names"):
        model.interpolate(table.iloc[0, ::-1], table.iloc[1])


def test_draws_bring_their_codes(model):
    x, z = model.sample(500, random_state=1, return_latent=True)
    assert z.shape == (500, 2)
    np.testing.assert_array_equal(x, model.sample(500, random_state=1))
    # Codes are of the prior, and rows of their codes.
    assert np.abs(z.mean(axis=0)).max() < 5 / 500**0.5
    noise = model.structure_.module.likelihood.deviation().detach().numpy()
    error = (x - model.inverse_transform(z)) / noise
    assert error.std() == pytest.approx(1.0, abs=0.1)


def test_labels_as_context(iris):
    names = np.array(["setosa", "versicolor", "virginica"])[load_iris().target]
    model = fitted(iris, context=names, inference=svi(40))
    assert model.sample(200, context="setosa")[:, 2].mean() < 2.5
    assert model.sample(200, context="virginica")[:, 2].mean() > 4.5
    assert model.log_prob(iris, context=names).mean() > model.log_prob(iris, "setosa").mean()
    assert model.reconstruct(iris, names).shape == iris.shape
    assert model.interpolate(iris[0], iris[1], 3, context="setosa").shape == (3, 4)
    holed = iris[:3].copy()
    holed[0, 0] = np.nan
    assert np.isfinite(model.impute(holed, context="setosa")).all()


def test_frames_come_back_as_frames(iris):
    frame = load_iris(as_frame=True).data
    model = fitted(frame)
    for table in (model.sample(3), model.reconstruct(frame[:3]), model.impute(frame[:3], 1)[0]):
        assert isinstance(table, pd.DataFrame)
        assert list(table.columns) == list(frame.columns)


# -- gaps -------------------------------------------------------------------------------------


def test_gaps_are_filled_from_what_is_seen():
    x = linear_rows(500)
    rng = np.random.default_rng(1)
    holed = np.where(rng.random(x.shape) < 0.2, np.nan, x)
    holed[0] = np.nan
    model = fitted(holed, inference=svi(60, 50, 1e-2, "cosine"), hidden_layer_sizes=(32,))
    filled = model.impute(holed)
    gone = np.isnan(holed)
    np.testing.assert_array_equal(filled[~gone], holed[~gone])
    off = ((filled - x)[gone] ** 2).mean()
    reference = ProbabilisticPCA(2).fit(holed).impute(holed)
    assert off < 1.15 * ((reference - x)[gone] ** 2).mean()
    # Draws spread around that mean: their mean square is larger by their own variance.
    drawn = model.impute(holed, n_draws=5, random_state=0)
    assert len(drawn) == 5
    assert ((drawn[0] - x)[gone] ** 2).mean() > 1.3 * off
    np.testing.assert_array_equal(drawn[1], model.impute(holed, n_draws=5, random_state=0)[1])
    # The row of which nothing is known is filled by the mean of the model, more or less: the
    # guide has hardly seen its like.
    np.testing.assert_allclose(filled[0], 0.0, atol=1.0)
    assert np.isfinite(model.log_prob(holed)).all()
    assert model.log_prob(holed[:1])[0] == pytest.approx(0.0, abs=0.5)
    assert np.isfinite(model.transform(holed)).all()


def test_gaps_may_come_after_the_fit(model, iris):
    holed = iris.copy()
    holed[:, 3] = np.nan
    assert (model.log_prob(holed) > model.log_prob(iris) - 5.0).all()
    filled = model.impute(holed)[:, 3]
    assert np.corrcoef(filled, iris[:, 3])[0, 1] > 0.8


def test_gaps_of_levels_are_filled_by_levels(digits):
    x = (digits // 4).astype(float)
    x[:, 2, 3] = np.nan
    x[5, 2, 3] = 1.0
    for likelihood in ("categorical", "discretised_logistic"):
        model = fitted(x, likelihood=likelihood, inference=svi(2, 100))
        assert set(np.unique(model.impute(x)[:, 2, 3])) <= {0.0, 1.0, 2.0, 3.0, 4.0}


def test_pseudo_inputs_of_labels_learn(digits, tmp_path):
    class Fixed(VAE):
        def _initialise(self, module, data):
            super()._initialise(module, data)
            module.latent_prior.shift.requires_grad_(False)

    x = (digits // 6).reshape(300, 64)
    x[0, :3] = np.nan
    settings = {
        "likelihood": "categorical",
        "prior": "vamp",
        "inference": svi(30, 50),
        "random_state": 0,
        "hidden_layer_sizes": (32,),
    }
    model, fixed = (kind(4, **settings).fit(x) for kind in (VAE, Fixed))
    prior = model.structure_.module.latent_prior
    assert prior.shift.shape == (64, 64, 3)
    assert prior.shift.abs().mean() > 0.02
    # Of three seeds better by -0.07, 0.02 and 0.06, and by 0.7, 2.6 and 0.4 in twice the epochs;
    # of held-out digits, by 0.16.
    found = [m.elbo(x, n_importance=50).mean() for m in (model, fixed)]
    assert found[0] > found[1] - 0.3
    model.save(tmp_path / "model")
    again = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(again.log_prob(x), model.log_prob(x))


# -- programs ---------------------------------------------------------------------------------


def test_any_svi_of_pyro_trains_the_public_program_and_guide(model, iris):
    network = clone(model).set_params(inference=svi(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        network.fit(iris)
    x = torch.as_tensor(iris, dtype=torch.float32)
    before = network.structure_.module.encoder[0].weight.clone()
    with pyro.get_param_store().scope():
        elbo = pyro.infer.Trace_ELBO()
        program, guide = network.program().pyro, network.guide().pyro
        train = pyro.infer.SVI(program, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
        losses = [train.step(x) for _ in range(30)]
    assert losses[-1] < losses[0]
    assert not torch.equal(before, network.structure_.module.encoder[0].weight)


# -- networks of the user's own -----------------------------------------------------------------


def test_own_networks(iris, tmp_path):
    encoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))
    before = encoder[0].weight.detach().clone()
    model = fitted(iris, encoder=encoder, decoder=decoder)
    assert torch.equal(encoder[0].weight, before)
    assert not torch.equal(model.structure_.module.encoder[0].weight, before)
    model.save(tmp_path / "model")
    again = ppl_gen.load(tmp_path / "model", modules={"encoder": encoder, "decoder": decoder})
    np.testing.assert_array_equal(again.log_prob(iris), model.log_prob(iris))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"encoder": nn.Linear(4, 3)},
            r"encoder puts out \(2, 3\) for 2 rows, not \(2, 4\); expected a network of \(rows, 4\)"
            r" to \(rows, 4\); inputs are 4 features",
        ),
        ({"encoder": nn.Linear(5, 4)}, r"encoder refuses its inputs .* inputs are 4 features"),
        ({"decoder": nn.Linear(2, 5)}, r"decoder puts out \(2, 5\) for 2 rows, not \(2, 4\)"),
        ({"decoder": nn.Linear(3, 4)}, r"decoder refuses its inputs .* inputs are 2 latents"),
    ],
)
def test_own_networks_of_another_shape(iris, settings, message):
    with pytest.raises(ValueError, match=message):
        quick(**settings).fit(iris)


def test_own_networks_are_told_what_they_are_given(iris):
    holed = iris.copy()
    holed[0, 0] = np.nan
    with pytest.raises(ValueError, match="4 features, 4 of what is observed, 3 of context"):
        quick(encoder=nn.Linear(4, 4)).fit(holed, context=np.repeat(["a", "b", "c"], 50))
