"""What all deep models share, held on the smallest of them: independent normals."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from torch import nn
from torch.distributions import Normal

import ppl_gen
from ppl_gen import BayesClassifier, MaximumLikelihood, Training
from ppl_gen.artifact import ArtifactError
from ppl_gen.deep_estimator import DeepModel
from ppl_gen.neural.density import DensityModule
from ppl_gen.posterior import Posterior


class Normals(DensityModule):
    """Means are linear in the context."""

    def __init__(self, width, context_width, loc=None):
        super().__init__(width, context_width)
        self.loc = nn.Linear(max(context_width, 1), width) if loc is None else loc
        self.log_scale = nn.Parameter(torch.zeros(width))

    def normals(self, n, context):
        context = self.log_scale.new_zeros(n, 1) if context is None else context
        return Normal(self.loc(context), self.log_scale.exp())

    def log_prob(self, x, context=None):
        return self.normals(len(x), context).log_prob(x).sum(dim=-1)

    def sample(self, n, context=None):
        return self.normals(n, context).sample()


class NormalModel(DeepModel):
    module_settings = ("loc",)

    def __init__(
        self,
        loc=None,
        inference=None,
        image_shape=None,
        random_state=None,
        device="auto",
        dtype=None,
    ):
        self.loc = loc
        self.inference = inference
        self.image_shape = image_shape
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    def _facts(self, values, row_shape):
        return {"width": values.shape[1]}

    def _module(self, facts, context_width):
        loc = None if self.loc is None else self._own("loc")
        return Normals(facts["width"], context_width, loc)


QUICK = MaximumLikelihood(epochs=20, learning_rate=0.1, batch_size=50)


@pytest.fixture(autouse=True)
def known_to_artefacts(monkeypatch):
    monkeypatch.setitem(ppl_gen.PUBLIC, "NormalModel", __name__)
    monkeypatch.setattr(ppl_gen, "NormalModel", NormalModel, raising=False)


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def images():
    return load_digits().images[:200] / 16.0


def test_maximum_likelihood_finds_the_normal(iris):
    x, _ = iris
    settings = MaximumLikelihood(300, 0.3, 50, Training(schedule="cosine"))
    model = NormalModel(inference=settings, random_state=0, dtype="float64").fit(x)
    exact = -0.5 * (np.log(2 * np.pi * x.var(axis=0)) + 1.0).sum()
    assert model.score(x) == pytest.approx(exact, abs=1e-3)  # what is left of the steps' noise
    assert model.log_prob(x).dtype == np.float64
    drawn = model.sample(20_000, random_state=0)
    # Five standard errors of a mean of 20,000.
    assert (np.abs(drawn.mean(axis=0) - x.mean(axis=0)) < 5 * x.std(axis=0) / 140 + 2e-2).all()


def test_history_tells_of_every_epoch(iris):
    model = NormalModel(inference=QUICK, random_state=0).fit(iris[0])
    assert isinstance(model.history_, pd.DataFrame)
    assert len(model.history_) == model.n_epochs_ == 20
    assert model.history_["loss"].iloc[-1] < model.history_["loss"].iloc[0]
    assert model.stopped_ == "epochs"


@pytest.mark.parametrize("shape", [(8, 8), (4, 8, 2)])
def test_images_come_back_in_their_shape(images, shape):
    given = images.reshape(-1, *shape)
    model = NormalModel(inference=QUICK, random_state=0).fit(given)
    assert model.row_shape_ == shape
    assert model.sample(3).shape == (3, *shape)
    flat = given.reshape(len(given), -1)
    np.testing.assert_array_equal(model.log_prob(given), model.log_prob(flat))
    declared = NormalModel(inference=QUICK, image_shape=shape, random_state=0).fit(flat)
    np.testing.assert_array_equal(declared.log_prob(flat), model.log_prob(flat))
    with pytest.raises(ValueError, match=r"rows of shape \(7, 8\); expected"):
        model.log_prob(images[:, 1:])
    with pytest.raises(ValueError, match="features"):
        model.log_prob(flat[:, 1:])


@pytest.mark.parametrize("shape", [(64,), (8, 8), (4, 8, 2)])
def test_one_row_alone_is_told_of(images, shape):
    given = images.reshape(-1, *shape)
    model = NormalModel(inference=QUICK, random_state=0).fit(given)
    for row in (given[0], given[0].ravel(), given[0].tolist()):
        with pytest.raises(ValueError, match=r"X is one row, of shape \(.*give X\[None\]"):
            model.log_prob(row)
    assert model.log_prob(given[0][None]).shape == (1,)


def test_images_of_one_line_are_rows(images):
    model = NormalModel(inference=QUICK, random_state=0).fit(images.reshape(-1, 1, 64))
    flat = images[:1].reshape(1, 64)  # a table of one row, and the shape of an image
    np.testing.assert_array_equal(model.log_prob(flat), model.log_prob(flat[None]))


def test_an_image_shape_that_does_not_fit(images):
    with pytest.raises(ValueError, match=r"image_shape is \(7, 9\), but X has 64 columns"):
        NormalModel(image_shape=(7, 9)).fit(images.reshape(-1, 64))


@pytest.mark.parametrize("shape", [64, "8x8", (-8, -8), (8.0, 8.0), (8, 8, 1, 1), ("a", 2)])
def test_an_image_shape_that_is_none(images, shape):
    with pytest.raises(ValueError, match=r"image_shape is .*; expected"):
        NormalModel(image_shape=shape).fit(images.reshape(-1, 64))


def test_digits_that_are_lost_are_told(iris):
    frame = pd.DataFrame(iris[0], columns=list("abcd")).assign(time=1.7e9 + 1000 * iris[0][:, 0])
    with pytest.warns(RuntimeWarning, match=r"\['time'\] lie far from zero .*dtype='float64'"):
        NormalModel(inference=QUICK).fit(frame)
    double = NormalModel(inference=QUICK, random_state=0, dtype="float64")
    assert double.fit(frame.assign(constant=0.1)).n_features_in_ == 6
    with pytest.raises(ValueError, match=r"\['time'\] have values of up to .*beyond.*float32"):
        NormalModel(inference=QUICK).fit(frame.assign(time=1e40 * frame["a"]))


def test_labels_as_context(iris):
    x, y = iris
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = NormalModel(inference=QUICK, random_state=0).fit(x, context=names)
    own = model.log_prob(x, context=names)
    assert own.mean() > NormalModel(inference=QUICK, random_state=0).fit(x).score(x)
    alone = [model.log_prob(x[i : i + 1], context=names[i])[0] for i in (0, 60, 149)]
    np.testing.assert_allclose(own[[0, 60, 149]], alone, rtol=1e-6)  # float32
    assert model.sample(4, context="setosa").shape == (4, 4)
    several = model.sample(300, context=np.repeat(np.unique(names), 100), random_state=0)
    assert several[:100, 2].mean() < several[200:, 2].mean()
    with pytest.raises(ValueError, match="conditional, and context is missing"):
        model.log_prob(x)
    with pytest.raises(ValueError, match=r"\['rose'\] that were not seen"):
        model.log_prob(x, context="rose")
    with pytest.raises(ValueError, match="2 entries; expected one, or one for each of the 150"):
        model.log_prob(x, context=["setosa", "virginica"])


def test_numbers_as_context(iris):
    x, _ = iris
    model = NormalModel(inference=QUICK, random_state=0).fit(x[:, :2], context=x[:, 2:])
    assert np.isfinite(model.log_prob(x[:, :2], context=x[:, 2:])).all()
    assert model.sample(3, context=[1.4, 0.2]).shape == (3, 2)
    with pytest.raises(ValueError, match=r"expected \(n, 2\) numbers"):
        model.log_prob(x[:, :2], context=x[:, 1:])
    with pytest.raises(ValueError, match="context has NaN"):
        model.fit(x, context=np.where(x > 7.0, np.nan, x))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(x, context=x[1:])


def test_context_where_there_is_none(iris):
    model = NormalModel(inference=QUICK, random_state=0).fit(iris[0])
    with pytest.raises(ValueError, match="fitted without"):
        model.sample(2, context="setosa")


def test_weights_count_as_rows_do(iris):
    x, _ = iris
    settings = MaximumLikelihood(300, 0.3, 50, Training(schedule="cosine"))
    model = NormalModel(inference=settings, random_state=0, dtype="float64")
    weight = np.repeat([2.0, 0.0, 1.0], 50)
    weighed = model.fit(x, sample_weight=weight).log_prob(x)
    rows = np.concatenate([x[:50], x[:50], x[100:]])
    np.testing.assert_allclose(clone(model).fit(rows).log_prob(x), weighed, atol=1e-2)


@pytest.mark.parametrize("kind", ["labels", "covariates"])
def test_rows_of_weight_zero_teach_nothing_of_contexts(iris, kind):
    x, species = iris
    weight = np.repeat([2.0, 0.0, 1.0], 50)
    context = species if kind == "labels" else np.linspace(0.0, 1.0, 150) + weight
    rows = np.flatnonzero(weight)
    x = np.where(weight[:, None] > 0.0, x, np.nan)  # what is not there has no gaps
    model = NormalModel(inference=QUICK, random_state=0)
    alone = clone(model).fit(x[rows], context=context[rows], sample_weight=weight[rows])
    model.fit(x, context=context, sample_weight=weight)
    known = {"context": context[rows]}
    np.testing.assert_array_equal(
        model.log_prob(x[rows], **known), alone.log_prob(x[rows], **known)
    )
    if kind == "labels":
        with pytest.raises(ValueError, match="not seen in fit"):
            model.sample(2, context=context[70])


def test_a_fit_that_fails_costs_nothing(iris):
    x, _ = iris
    model = NormalModel(inference=QUICK, random_state=0).fit(x)
    before = model.log_prob(x)
    model.inference = MaximumLikelihood(epochs=500, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="learning_rate"):
        model.fit(x[:, :3])
    np.testing.assert_array_equal(model.log_prob(x), before)
    with pytest.raises(ValueError, match="NaN in 1 entries"):
        model.fit(np.where(x == x.max(), np.nan, x))
    np.testing.assert_array_equal(model.log_prob(x), before)


def test_what_is_refused_before_training(iris):
    x, _ = iris
    with pytest.raises(TypeError, match=r"loc is 'linear'; expected a torch.nn.Module or None"):
        NormalModel("linear").fit(x)
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        NormalModel().fit(np.zeros((0, 8, 8)))
    with pytest.raises(ValueError, match="n_samples=1"):
        NormalModel().fit(x[:1])
    with pytest.raises(ValueError, match="infinity"):
        NormalModel().fit(np.where(x == x.max(), np.inf, x))
    with pytest.raises(ValueError, match="dtype is 'float16'"):
        NormalModel(dtype="float16").fit(x)
    with pytest.raises(ValueError, match="torch finds"):  # not JAX, which computes nothing here
        NormalModel(device="cuda:99").fit(x)
    with pytest.raises(ValueError, match="these do: 'maximum_likelihood'"):
        NormalModel(inference="em").fit(x)
    frame = pd.DataFrame(x, columns=list("abcd")).assign(e="red")
    with pytest.raises(ValueError, match="'e' holds categories"):
        NormalModel().fit(frame)
    with pytest.raises(ValueError, match="n_samples is 0"):
        NormalModel(inference=QUICK).fit(x).sample(0)
    with pytest.raises(ValueError, match=r"n_samples is 2.5; expected a whole number"):
        NormalModel(inference=QUICK).fit(x).sample(2.5)


def test_a_network_of_ones_own_comes_back_with_its_weights(iris, tmp_path):
    x, _ = iris
    own = nn.Linear(1, 4)
    before = own.weight.detach().clone()
    model = NormalModel(own, inference=QUICK, random_state=0).fit(x)
    assert torch.equal(own.weight, before)
    model.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model", modules={"loc": nn.Linear(1, 4)})
    np.testing.assert_array_equal(loaded.log_prob(x), model.log_prob(x))
    with pytest.warns(RuntimeWarning, match=r"your own loc.*modules=\{'loc'"):
        weights = ppl_gen.load(tmp_path / "model")
    assert isinstance(weights, Posterior)
    np.testing.assert_array_equal(weights.draws["log_scale"], model.posterior_.draws["log_scale"])
    with pytest.raises(ArtifactError, match=r"'bias' has shape \[3\]; expected \[4\]"):
        ppl_gen.load(tmp_path / "model", modules={"loc": nn.Linear(1, 3)})
    with pytest.raises(ArtifactError, match=r"got modules \['loc', 'other'\]"):
        ppl_gen.load(tmp_path / "model", modules={"loc": nn.Linear(1, 4), "other": nn.Identity()})
    with pytest.raises(TypeError, match=r"modules\['loc'\] is 3; expected a torch.nn.Module"):
        ppl_gen.load(tmp_path / "model", modules={"loc": 3})


def test_settings_that_changed_after_the_fit_do_not_change_what_is_kept(iris, tmp_path):
    x, _ = iris
    model = NormalModel(nn.Linear(1, 4), inference=QUICK, random_state=0, dtype="float64").fit(x)
    expected = model.log_prob(x)
    model.set_params(loc=None, dtype="float32", random_state=3)
    for copied in (model, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        copied.save(tmp_path / "model", overwrite=True)
        loaded = ppl_gen.load(tmp_path / "model", modules={"loc": nn.Linear(1, 4)})
        np.testing.assert_array_equal(loaded.log_prob(x), expected)
        assert (loaded.dtype, loaded.random_state) == ("float32", 3)
        loaded.save(tmp_path / "again", overwrite=True)
        again = ppl_gen.load(tmp_path / "again", modules={"loc": nn.Linear(1, 4)})
        np.testing.assert_array_equal(again.log_prob(x), expected)


def test_a_conditional_model_of_a_frame_is_kept(iris, tmp_path):
    x, y = iris
    frame = pd.DataFrame(x, columns=list("abcd"))
    model = NormalModel(inference=QUICK, random_state=0).fit(frame, context=y)
    model.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.log_prob(frame, y), model.log_prob(frame, y))
    pd.testing.assert_frame_equal(loaded.history_, model.history_)
    pd.testing.assert_frame_equal(
        loaded.sample(5, random_state=3, context=1), model.sample(5, random_state=3, context=1)
    )
    assert loaded.row_shape_ == (4,)


def test_bayes_rule_over_networks(iris, tmp_path):
    x, y = iris
    classifier = BayesClassifier(NormalModel(inference=QUICK, random_state=0)).fit(x, y)
    assert classifier.score(x, y) > 0.8
    classifier.save(tmp_path / "rule")
    loaded = ppl_gen.load(tmp_path / "rule")
    np.testing.assert_array_equal(loaded.predict_proba(x), classifier.predict_proba(x))


def test_torchs_generator_is_left_as_it_was(iris):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    model = NormalModel(inference=QUICK, random_state=0).fit(iris[0])
    model.sample(3)
    model.log_prob(iris[0])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("factor", [1e8, 1e20, 1e30])
def test_rows_far_out_have_a_density_of_nearly_zero(iris, factor):
    """And not one that is no number."""
    x, _ = iris
    quick = MaximumLikelihood(epochs=2)
    made = ppl_gen.MADE((8,), inference=quick, random_state=0)
    flow = ppl_gen.NormalizingFlow("maf", n_transforms=2, inference=quick, random_state=0)
    for model in (made, flow, ppl_gen.VAE(2, inference=ppl_gen.SVI(steps=5), random_state=0)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a collapse, after so few steps
            assert (model.fit(x).log_prob(factor * x[:3]) < -1e6).all()
