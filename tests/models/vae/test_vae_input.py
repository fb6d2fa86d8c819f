"""What a VAE refuses, and what it says of it."""

import warnings

import numpy as np
import pytest

from ppl_gen import SVI, VAE, Training


def svi(epochs=2, batch_size=50, **settings):
    return SVI(training=Training(epochs, batch_size, 1e-2), **settings)


def quick(**settings):
    deep = {"hidden_layer_sizes": (16,), "inference": svi(), "random_state": 0}
    return VAE(**({"latent_dim": 2} | deep | settings))


def fitted(X, **settings):
    with warnings.catch_warnings():
        # So few epochs may leave latents that say nothing yet.
        warnings.filterwarnings("ignore", message=".* latents are active", category=RuntimeWarning)
        return quick(**settings).fit(X)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"likelihood": "poisson"}, "no likelihood 'poisson'; expected one of 'normal', 'bern"),
        ({"posterior": "laplace"}, "posterior is 'laplace'; expected one of 'mean_field'"),
        ({"prior": "horseshoe"}, "prior is 'horseshoe'; expected one of 'normal'"),
        ({"architecture": "resnet"}, "architecture is 'resnet'; expected one of 'mlp'"),
        ({"latent_dim": 0}, "latent_dim is 0; expected a whole number of at least 1"),
        ({"latent_dim": 1.5}, "latent_dim is 1.5; expected a whole number"),
        ({"latent_dim": "2"}, "latent_dim is '2'; expected a whole number"),
        ({"latent_dim": 1, "posterior": "iaf"}, "at least 2, one latent having none before it"),
        (
            {"hidden_layer_sizes": (16, 0)},
            r"hidden_layer_sizes is \(16, 0\); expected a sequence of whole numbers",
        ),
        (
            {"hidden_layer_sizes": 16},
            "hidden_layer_sizes is 16; expected a sequence of whole numbers",
        ),
        ({"architecture": "convolutional"}, "is for images; X has 4 columns; give X as"),
        ({"beta": -1.0}, "beta is -1.0; expected zero or a positive number"),
        ({"free_bits": float("nan")}, "free_bits is nan; expected zero or a positive"),
        ({"noise": 0.0}, "noise is 0.0; expected 'learned', 'column', or a positive variance"),
        ({"noise": "network"}, "noise is 'network'; expected 'learned'"),
        ({"noise": None}, "noise is None; expected 'learned'"),
        ({"noise": float("inf")}, "noise is inf; expected 'learned'"),
        ({"beta": None}, "beta is None; expected zero or a positive number"),
        ({"beta": "1"}, "beta is '1'; expected zero or a positive number"),
        ({"free_bits": [0.1]}, r"free_bits is \[0.1\]; expected zero or a positive number"),
        ({"beta_warmup": 1.5}, "beta_warmup is 1.5; expected a share of the training from 0 to 1"),
        ({"beta_warmup": True}, "beta_warmup is True; expected a share"),
        ({"likelihood": []}, r"there is no likelihood \[\]; expected one of 'normal'"),
        ({"posterior": []}, r"posterior is \[\]; expected one of 'mean_field'"),
        ({"prior": {}}, r"prior is \{\}; expected one of 'normal'"),
        ({"likelihood": "categorical", "n_levels": "3"}, "n_levels is '3'; expected a whole"),
        ({"n_levels": 256}, "n_levels is 256, but likelihood='normal' has no levels"),
        (
            {"inference": svi(objective="iwae"), "beta": 2.0},
            r"VAE.fit: beta is 2.0, which is of SVI\(objective='elbo'\), and objective is 'iwae'; "
            "expected beta=1.0; leave it out, or take",
        ),
        ({"inference": svi(objective="iwae"), "free_bits": 0.1}, "free_bits is 0.1, which is of"),
        ({"inference": svi(objective="dreg"), "beta_warmup": 0.5}, "beta_warmup is 0.5, which is"),
        (
            {"inference": svi(objective="dreg"), "posterior": "iaf"},
            r"VAE.fit: posterior is 'iaf', and SVI\(objective='dreg'\) takes 'mean_field' or "
            "'full_rank'; take one of these, or objective='iwae'",
        ),
        ({"inference": "em"}, "inference 'em' does not fit this model; these do: 'svi'"),
    ],
    ids=repr,
)
def test_settings_out_of_range(iris, settings, message):
    with pytest.raises(ValueError, match=message):
        quick(**settings).fit(iris)


@pytest.mark.parametrize(
    ("settings", "scale", "message"),
    [
        (
            {"likelihood": "bernoulli"},
            255 / 16,
            r"takes the values 0 and 1; X goes from 0 to 255: binarise it \(X > 127.5\), or use "
            "likelihood='discretised_logistic', n_levels=256",
        ),
        ({"likelihood": "bernoulli"}, 1 / 16, "is no density of those between; X has 0.* binarise"),
        ({"likelihood": "categorical", "n_levels": 16}, 1, "levels 0 to 15; X goes from 0 to 16"),
        ({"likelihood": "discretised_logistic"}, -1, "takes the levels 0 to 1; X goes from -16"),
        ({"likelihood": "categorical"}, 0.3, "takes whole levels 0 to 4; X has .*: round"),
        ({"likelihood": "categorical", "n_levels": 1}, 0, "n_levels is 1; expected .* at least 2"),
    ],
)
def test_values_out_of_range(digits, settings, scale, message):
    with pytest.raises(ValueError, match=message):
        quick(**settings).fit(digits * scale)


def test_values_out_of_range_after_the_fit(digits):
    x = (digits > 7).astype(float)
    model = fitted(x, likelihood="bernoulli", inference=svi(1, 100))
    with pytest.raises(ValueError, match="VAE: likelihood='bernoulli' takes the values 0 and 1"):
        model.log_prob(digits)
    with pytest.raises(ValueError, match=r"rows of shape \(4, 4\); expected \(8, 8\)"):
        model.reconstruct(x[:, ::2, ::2])
    with pytest.raises(ValueError, match="Z has 3 columns; expected the 2 latents"):
        model.inverse_transform(np.zeros((2, 3)))
    for ask in (
        lambda: model.log_prob(x, n_importance=0),
        lambda: model.log_prob(x, n_newton=-1),
        lambda: model.log_prob(x, n_newton=2.5),
        lambda: model.impute(x, n_draws=0),
        lambda: model.sample(0),
        lambda: model.interpolate(x[0], x[1], 0),
    ):
        with pytest.raises(ValueError, match="expected a whole number, at least 1"):
            ask()
    assert model.log_prob(x[:1]).shape == (1,)


def test_one_row_is_no_data(iris):
    with pytest.raises(ValueError, match="n_samples=1"):
        quick().fit(iris[:1])


def test_constant_columns_are_named(iris):
    x = np.column_stack([iris, np.full(150, 7.0)])
    with pytest.warns(RuntimeWarning, match=r"1 constant column\(s\) \(the first at place 4\)"):
        model = fitted(x)
    assert np.isfinite(model.score(x))


def test_a_batch_of_one(iris):
    model = fitted(iris[::40], inference=svi(2, batch_size=1))
    assert np.isfinite(model.score(iris))
