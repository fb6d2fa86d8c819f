"""VQVAE as an estimator: its two stages, its codes, its bound, what it refuses."""

import signal

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_iris

import ppl_gen
from ppl_gen import VQVAE, BayesClassifier, MaximumLikelihood, Training
from ppl_gen.inference.training.objective import NegativeLogLikelihood
from ppl_gen.inference.vector_quantisation import VectorQuantisation

QUICK = MaximumLikelihood(epochs=15, learning_rate=1e-2, batch_size=50)
IRIS = load_iris(as_frame=True)
DIGITS = load_digits().images[:120].astype(int)


def small(**settings):
    kept = {
        "n_codes": 8,
        "code_dim": 4,
        "n_places": 2,
        "hidden_layer_sizes": (16,),
        "inference": QUICK,
    }
    return VQVAE(**kept | {"random_state": 0} | settings)


@pytest.fixture(scope="module")
def table():
    return small().fit(IRIS.data)


@pytest.fixture(scope="module")
def images():
    return small(architecture="convolutional", likelihood="discretised_logistic", n_levels=17).fit(
        DIGITS
    )


def test_codes_of_tables(table):
    codes = table.transform(IRIS.data)
    assert codes.shape == (150, 2)
    assert codes.dtype.kind == "i"
    assert (codes >= 0).all()
    assert (codes < 8).all()
    assert table.code_shape_ == (2,)
    assert table.codebook_.shape == (8, 4)
    uses = np.bincount(codes.ravel(), minlength=8) / codes.size
    entropy = -(uses[uses > 0] * np.log(uses[uses > 0])).sum()
    assert table.code_perplexity_ == pytest.approx(np.exp(entropy))
    back = table.reconstruct(IRIS.data)
    assert list(back.columns) == list(IRIS.data.columns)
    # Codes tell most of what varies.
    assert ((back - IRIS.data) ** 2).to_numpy().mean() < 0.5 * IRIS.data.var().mean()
    pd.testing.assert_frame_equal(back, table.inverse_transform(codes))


def test_the_bound_is_below_the_density_of_all_codes(table):
    """The sum over all 64 pairs of codes is the density itself."""
    import torch

    module = table.structure_.module
    x = torch.tensor(IRIS.data.to_numpy(), dtype=torch.float32)
    codes = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    with torch.no_grad():
        terms = [
            module.code_density.log_prob(code[None].float())
            + module.reconstruction(x, module.quantiser.embed(code).expand(150, 2, 4))
            for code in codes
        ]
        exact = torch.stack(terms).logsumexp(0).numpy()
    bound = table.log_prob(IRIS.data)
    assert (bound <= exact + 1e-4).all()  # of float32
    assert bound.mean() > exact.mean() - 3.0  # the encoder's codes carry their share of the sum
    assert table.density == "lower_bound"


def test_both_stages_are_told(table):
    assert {"loss", "reconstruction", "commitment"} <= set(table.history_.columns)
    assert len(table.history_) == len(table.prior_history_) == 15
    assert table.prior_history_["loss"].iloc[-1] < table.prior_history_["loss"].iloc[0]


def test_images(images):
    assert images.code_shape_ == (4, 4)
    assert images.transform(DIGITS[:5]).shape == (5, 16)
    drawn = images.sample(3, random_state=1)
    assert drawn.shape == (3, 8, 8)
    assert drawn.dtype == DIGITS.dtype
    assert drawn.min() >= 0
    assert drawn.max() <= 16
    np.testing.assert_array_equal(drawn, images.sample(3, random_state=1))
    told = images.reconstruct(DIGITS[:2])
    assert told.shape == (2, 8, 8)
    assert told.dtype.kind == "f"  # means
    assert np.isfinite(images.log_prob(DIGITS)).all()


def test_saved_and_loaded(images, tmp_path):
    images.save(tmp_path / "codes")
    back = ppl_gen.load(tmp_path / "codes")
    np.testing.assert_array_equal(back.log_prob(DIGITS), images.log_prob(DIGITS))
    np.testing.assert_array_equal(back.transform(DIGITS), images.transform(DIGITS))
    assert back.code_perplexity_ == images.code_perplexity_
    pd.testing.assert_frame_equal(back.prior_history_, images.prior_history_)


def test_classes_as_context():
    x, y = IRIS.data.to_numpy(), IRIS.target.to_numpy()
    method = MaximumLikelihood(epochs=20, learning_rate=1e-2, batch_size=50)
    classifier = BayesClassifier(small(inference=method), shared=True).fit(x, y)
    assert classifier.score(x, y) > 0.8  # by chance: a third
    model = small(inference=QUICK).fit(x, context=y)
    assert model.log_prob(x, context=y).mean() > model.log_prob(x, context=(y + 1) % 3).mean()
    assert model.sample(4, context=2).shape == (4, 4)


def test_frequencies_weights_and_float64():
    x = IRIS.data.to_numpy()
    weight = np.r_[np.ones(100), np.zeros(50)]
    model = small(prior="categorical", dtype="float64").fit(x, sample_weight=weight)
    alone = small(prior="categorical", dtype="float64").fit(x[:100])
    np.testing.assert_allclose(model.log_prob(x), alone.log_prob(x))
    assert model.prior_history_ is None


def test_one_seed_gives_the_same_again(table):
    again = small().fit(IRIS.data)
    np.testing.assert_array_equal(again.log_prob(IRIS.data), table.log_prob(IRIS.data))


def test_checkpoints_of_the_stages_are_apart(tmp_path):
    def fit(epochs, path):
        settings = Training(checkpoint=path)
        return small(inference=MaximumLikelihood(epochs=epochs, training=settings)).fit(IRIS.data)

    first = fit(3, tmp_path / "c")
    assert [p.name.split("-")[0] for p in sorted((tmp_path / "c").iterdir())] == [
        "autoencoder",
        "codes",
    ]
    again = fit(3, tmp_path / "c")  # both are done: nothing is trained
    np.testing.assert_array_equal(again.log_prob(IRIS.data), first.log_prob(IRIS.data))
    # More epochs go on with the first stage, whose codes are then others for the second.
    longer = fit(5, tmp_path / "c")
    np.testing.assert_array_equal(longer.log_prob(IRIS.data), fit(5, None).log_prob(IRIS.data))


STAGES = pytest.mark.parametrize("stage", [VectorQuantisation, NegativeLogLikelihood])


def at_step(monkeypatch, stage, step, do):
    """Do something to the parts of the loss at a step of a stage; count the steps of all."""
    calls = []
    for kind in (VectorQuantisation, NegativeLogLikelihood):

        def losses(self, batch, kind=kind, found=kind.losses):
            parts = found(self, batch)
            if self.module.training:
                calls.append(kind)
                if kind is stage and calls.count(kind) == step:
                    do(parts)
            return parts

        monkeypatch.setattr(kind, "losses", losses)
    return calls


@pytest.mark.parametrize(
    ("stage", "prior"),
    [
        (VectorQuantisation, "pixelcnn"),
        (VectorQuantisation, "categorical"),
        (NegativeLogLikelihood, "pixelcnn"),
    ],
)
def test_one_interrupt_ends_the_fit_which_goes_on_from_there(tmp_path, monkeypatch, stage, prior):
    def fit(path):
        training = Training(epochs=4, batch_size=50, learning_rate=0.01, checkpoint=path)
        method = MaximumLikelihood(training=training)
        return small(prior=prior, inference=method).fit(IRIS.data)

    whole = fit(None)
    with monkeypatch.context() as patched:
        calls = at_step(patched, stage, 5, lambda parts: signal.raise_signal(signal.SIGINT))
        with pytest.warns(RuntimeWarning, match="interrupted in epoch 2 of 4") as told:
            model = fit(tmp_path / "c")
    assert len(told) == 1
    assert calls[-1] is stage
    assert calls.count(stage) == 5
    assert model.stopped_ == "interrupted"
    assert not model.posterior_.verdict.ok
    assert (model.prior_history_ is None) is (stage is VectorQuantisation)
    assert np.isfinite(model.log_prob(IRIS.data)).all()
    assert model.sample(3).shape == (3, 4)
    again = fit(tmp_path / "c")
    assert again.stopped_ == "epochs"
    for name, weights in whole.parameters_.items():
        np.testing.assert_array_equal(again.parameters_[name], weights, err_msg=name)


@STAGES
def test_a_stage_that_diverges_ends_with_its_best_epoch(monkeypatch, stage):
    training = Training(epochs=4, batch_size=50, learning_rate=0.01, validation=0.2)
    calls = at_step(monkeypatch, stage, 8, lambda parts: parts.update(loss=parts["loss"] * np.nan))
    with pytest.warns(RuntimeWarning, match="the fit keeps the weights of epoch 2") as told:
        model = small(inference=MaximumLikelihood(training=training)).fit(IRIS.data)
    assert len(told) == 1
    # The second stage is trained whatever ended the first: codes are those of its best epoch.
    assert calls.count(VectorQuantisation) == (8 if stage is VectorQuantisation else 12)
    assert calls.count(NegativeLogLikelihood) == (12 if stage is VectorQuantisation else 8)
    assert model.stopped_ == "diverged"
    assert np.isfinite(model.log_prob(IRIS.data)).all()


def test_collapse_is_told():
    x = np.random.default_rng(0).normal(size=(60, 3)) * 1e-3 + [1.0, 2.0, 3.0]
    x[:, 1:] = x[:, :1]
    with pytest.warns(RuntimeWarning, match=r"codes collapsed: \d+ of 64 are used"):
        small(n_codes=64, n_places=1, inference=MaximumLikelihood(epochs=2, batch_size=4)).fit(
            np.repeat(x[:4], 10, axis=0)
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_codes": 1}, "n_codes is 1; expected a whole number of at least 2"),
        ({"code_dim": 0}, "code_dim is 0"),
        ({"n_places": 1.5}, "n_places is 1.5"),
        ({"prior": "normal"}, "prior is 'normal'; expected one of 'pixelcnn', 'categorical'"),
        ({"architecture": "cnn"}, "architecture is 'cnn'; expected one of 'mlp'"),
        ({"architecture": "convolutional"}, "is for images; X has 4 columns"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes is .0,.; expected"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"n_codes": "many"}, "n_codes is 'many'; expected a whole number"),
        ({"commitment": -1.0}, "commitment is -1.0"),
        ({"commitment": None}, "commitment is None; expected zero or a positive"),
        ({"decay": 1.0}, "decay is 1.0"),
        ({"likelihood": "poisson"}, "no likelihood 'poisson'"),
        ({"likelihood": "bernoulli"}, "takes the values 0 and 1"),
        ({"inference": "svi"}, "inference 'svi' does not fit this model"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings).fit(IRIS.data)


def test_rows_that_are_refused(table, images):
    x = IRIS.data.to_numpy().copy()
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="contains NaN in 1 entries"):
        small().fit(x)
    with pytest.raises(ValueError, match=r"rows of shape \(7, 7\); expected \(8, 8\)"):
        images.log_prob(np.zeros((2, 7, 7)))
    with pytest.raises(ValueError, match="takes the levels 0 to 16"):
        images.log_prob(DIGITS * 2)
    with pytest.raises(ValueError, match="takes no context"):
        small(prior="categorical").fit(IRIS.data, context=IRIS.target)
    codes = table.transform(IRIS.data)
    with pytest.raises(ValueError, match=r"codes have shape \(150, 1\); expected \(n, 2\)"):
        table.inverse_transform(codes[:, :1])
    for wrong in (codes + 8, codes - 8, codes.astype(float)):
        with pytest.raises(ValueError, match="whole numbers from 0 to 7"):
            table.inverse_transform(wrong)
    with pytest.raises(ValueError, match="the model was fitted without"):
        table.sample(2, context=1)
