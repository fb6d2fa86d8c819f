"""Bayes' rule by one conditional density, and by deep densities one a class: normals by hand."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_score
from torch import nn
from torch.distributions import Normal

import ppl_gen
from ppl_gen import BayesClassifier, GaussianMixture, MaximumLikelihood, Training
from ppl_gen.artifact import ArtifactError
from ppl_gen.bayes_rule import log_normalised
from ppl_gen.deep_estimator import DeepModel
from ppl_gen.neural.density import DensityModule


class Centres(DensityModule):
    """Independent normals whose means are a linear function of the context."""

    def __init__(self, width, context_width, centre):
        super().__init__(width, context_width)
        self.centre = centre
        self.log_scale = nn.Parameter(torch.zeros(width))

    def normals(self, n, context):
        context = self.log_scale.new_zeros(n, 1) if context is None else context
        return Normal(self.centre(context), self.log_scale.exp())

    def log_prob(self, x, context=None):
        return self.normals(len(x), context).log_prob(x).sum(dim=-1)

    def sample(self, n, context=None):
        return self.normals(n, context).sample()


class CentresModel(DeepModel):
    module_settings = ("centre",)

    def __init__(self, centre=None, inference=None, random_state=0, device="auto", dtype="float64"):
        self.centre = centre
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    def _facts(self, values, row_shape):
        return {"width": values.shape[1], "highest": float(values.max())}

    def _check_values(self, values, facts):
        if values.max() > facts["highest"] + 3.0:
            raise ValueError("X is higher than in fit")

    def _module(self, facts, context_width):
        own = self.centre is not None
        centre = self._own("centre") if own else nn.Linear(max(context_width, 1), facts["width"])
        return Centres(facts["width"], context_width, centre)


LONG = MaximumLikelihood(300, 0.1, 200, Training(schedule="cosine"))
QUICK = MaximumLikelihood(30, 0.1, 50)


@pytest.fixture(autouse=True)
def known_to_artefacts(monkeypatch):
    monkeypatch.setitem(ppl_gen.PUBLIC, "CentresModel", __name__)
    monkeypatch.setattr(ppl_gen, "CentresModel", CentresModel, raising=False)


@pytest.fixture(scope="module")
def iris():
    x, y = load_iris(return_X_y=True)
    return (x - x.mean(axis=0)) / x.std(axis=0), y


@pytest.fixture(scope="module")
def shared(iris):
    return BayesClassifier(CentresModel(inference=LONG), shared=True).fit(*iris)


@pytest.fixture(scope="module")
def one_each(iris):
    return BayesClassifier(CentresModel(inference=LONG)).fit(*iris)


def by_hand(x, y, pooled):
    """Log p(x, y = c) under the normals of maximum likelihood, one width for all, or one each."""
    means = np.stack([x[y == c].mean(axis=0) for c in range(3)])
    within = (x - means[y]).std(axis=0)
    widths = [within if pooled else x[y == c].std(axis=0) for c in range(3)]
    joint = [
        (-0.5 * ((x - m) / s) ** 2 - np.log(s) - 0.5 * np.log(2.0 * np.pi)).sum(axis=1)
        for m, s in zip(means, widths, strict=True)
    ]
    return np.stack(joint, axis=1) + np.log(1.0 / 3.0)


@pytest.mark.parametrize("kind", ["shared", "one_each"])
def test_probabilities_by_hand(kind, iris, request):
    x, y = iris
    model = request.getfixturevalue(kind)
    joint = by_hand(x, y, pooled=kind == "shared")
    # What the last steps of the training leave: a thousandth of a width, times distances of ten.
    tolerance = {"atol": 0.02}
    np.testing.assert_allclose(model.log_prob(x, y), joint[np.arange(150), y], **tolerance)
    np.testing.assert_allclose(model.log_prob(x), np.log(np.exp(joint).sum(axis=1)), **tolerance)
    found = model.predict_proba(x)
    np.testing.assert_allclose(found, np.exp(log_normalised(joint)), **tolerance)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
    assert model.density == "exact"
    assert len(model.models_) == (1 if kind == "shared" else 3)


def test_labels_of_any_kind_are_the_context(iris):
    x, y = iris
    expected = BayesClassifier(CentresModel(inference=QUICK), shared=True).fit(x, y)
    for labels in (np.array(["se", "ve", "vi"])[y], y + 5, y.astype(float), (y == 1)):
        model = BayesClassifier(CentresModel(inference=QUICK), shared=True).fit(x, labels)
        assert model.models_[0].structure_.context.labels.tolist() == np.unique(labels).tolist()
        assert model.score(x, labels) > 0.6
        if len(model.classes_) == 3:
            np.testing.assert_allclose(model.predict_proba(x), expected.predict_proba(x))


def test_draws_are_of_the_classes_asked_for(shared, iris):
    x, y = iris
    wanted = np.repeat([2, 0, 1], 2000)
    drawn, labels = shared.sample(6000, y=wanted, random_state=0)
    np.testing.assert_array_equal(labels, wanted)
    for c in range(3):
        own = drawn[labels == c]
        # Five standard errors, and what the training leaves.
        error = 5.0 * own.std(axis=0) / np.sqrt(len(own)) + 1e-2
        assert (np.abs(own.mean(axis=0) - x[y == c].mean(axis=0)) < error).all()
    again = shared.sample(20, random_state=3)
    np.testing.assert_array_equal(again[0], shared.sample(20, random_state=3)[0])
    assert set(shared.sample(200, random_state=0)[1].tolist()) == {0, 1, 2}


def test_tables_keep_their_columns(iris):
    x, y = iris
    frame = pd.DataFrame(x, columns=list("abcd"))
    model = BayesClassifier(CentresModel(inference=QUICK), shared=True).fit(frame, y)
    assert model.sample(3, random_state=0)[0].columns.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("dcba")])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2)])
def test_images_are_passed_on(shared, shape, iris):
    x, y = iris
    images = x.reshape(-1, *shape)
    model = BayesClassifier(CentresModel(inference=QUICK), shared=shared).fit(images, y)
    flat = BayesClassifier(CentresModel(inference=QUICK), shared=shared).fit(x, y)
    np.testing.assert_array_equal(model.predict_proba(images), flat.predict_proba(x))
    assert model.n_features_in_ == 4
    drawn, _ = model.sample(5, random_state=0)
    assert drawn.shape == (5, *shape)
    with pytest.raises(ValueError, match="X has rows of shape"):
        model.predict(images[:, :1, :1])


@pytest.mark.parametrize("kind", ["shared", "one_each"])
def test_a_saved_classifier_is_the_same(kind, iris, request, tmp_path):
    model = request.getfixturevalue(kind)
    model.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(iris[0]), model.predict_proba(iris[0]))
    assert loaded.shared is (kind == "shared")
    (drawn, labels), (expected, known) = (m.sample(6, random_state=1) for m in (loaded, model))
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_array_equal(labels, known)
    changed = copy.copy(model).set_params(shared=kind == "one_each")
    changed.save(tmp_path / "changed")
    loaded = ppl_gen.load(tmp_path / "changed")
    np.testing.assert_array_equal(loaded.predict(iris[0]), model.predict(iris[0]))


@pytest.mark.parametrize("shared", [True, False])
def test_networks_of_the_users_own_come_back_with_their_weights(shared, iris, tmp_path):
    def own():
        return nn.Linear(3 if shared else 1, 4, dtype=torch.float64)

    model = BayesClassifier(CentresModel(own(), inference=QUICK), shared=shared).fit(*iris)
    assert model.model.centre is not None
    model.save(tmp_path / "model")
    assert model.model.centre is not None
    loaded = ppl_gen.load(tmp_path / "model", modules={"centre": own()})
    np.testing.assert_array_equal(loaded.predict_proba(iris[0]), model.predict_proba(iris[0]))
    with pytest.raises(ArtifactError, match="fitted with your own"):
        ppl_gen.load(tmp_path / "model")


def test_every_class_knows_the_range_of_all(one_each, iris):
    x, _ = iris
    assert {m.structure_.facts["highest"] for m in one_each.models_} == {x.max()}
    # But for its next fit: then it is of other rows.
    model = CentresModel(inference=QUICK).with_facts_of(x).fit(x[:50])
    assert model.structure_.facts["highest"] == x.max()
    assert model.fit(x[:50]).structure_.facts["highest"] == x[:50].max()
    with pytest.raises(ValueError, match="higher than in fit"):
        CentresModel(inference=QUICK).with_facts_of(x[:50]).fit(10.0 * x)


@pytest.mark.parametrize("shared", [True, False])
def test_a_classifier_resumes_its_trainings(shared, iris, tmp_path):
    training = Training(epochs=5, batch_size=50, checkpoint=tmp_path / "kept")
    model = CentresModel(inference=MaximumLikelihood(training=training))
    first = BayesClassifier(model, shared=shared).fit(*iris)
    again = BayesClassifier(model, shared=shared).fit(*iris)
    assert training.checkpoint == tmp_path / "kept"
    np.testing.assert_array_equal(again.predict_proba(iris[0]), first.predict_proba(iris[0]))
    # What is finished is not trained once more.
    for one, other in zip(again.models_, first.models_, strict=True):
        pd.testing.assert_frame_equal(one.history_, other.history_)


def test_it_goes_through_cross_validation(iris):
    scores = cross_val_score(BayesClassifier(CentresModel(inference=QUICK), shared=True), *iris)
    assert scores.min() > 0.6


def test_a_temperature_divides_evidence_that_was_counted_often(iris):
    # Columns that are there six times count six times, where they are taken to be independent.
    x, y = iris
    x = np.tile(x[:, :2], 6)
    fitted, held, fresh = np.arange(150) % 3 == 0, np.arange(150) % 3 == 1, np.arange(150) % 3 == 2
    model = BayesClassifier(CentresModel(inference=LONG), shared=True).fit(x[fitted], y[fitted])
    calibrated = CalibratedClassifierCV(FrozenEstimator(model), method="temperature")
    calibrated.fit(x[held], y[held])
    once = BayesClassifier(CentresModel(inference=LONG), shared=True)
    once.fit(x[fitted, :2], y[fitted])
    loss, mended = (log_loss(y[fresh], m.predict_proba(x[fresh])) for m in (model, calibrated))
    alone = log_loss(y[fresh], once.predict_proba(x[fresh, :2]))
    assert loss > 2.0 * alone
    # Fifty rows tell a temperature to a fifth or so, and the loss is flat about the best one.
    assert mended == pytest.approx(alone, rel=0.2)
    np.testing.assert_array_equal(calibrated.predict(x[fresh]), model.predict(x[fresh]))
    (pair,) = calibrated.calibrated_classifiers_
    assert 1.0 / pair.calibrators[0].beta_ == pytest.approx(6.0, rel=0.5)


def test_a_model_without_context_cannot_be_shared(iris):
    with pytest.raises(TypeError, match="GaussianMixture takes no context, which shared=True"):
        BayesClassifier(GaussianMixture(1), shared=True).fit(*iris)


def test_a_class_whose_training_diverges_is_named(iris):
    x, y = iris
    x = np.where((y == 1)[:, None], 1e30 * x, x)
    model = BayesClassifier(CentresModel(inference=QUICK, dtype="float32"))
    with pytest.raises(FloatingPointError, match=r"class 1 \(50 rows\) cannot be fitted: .*step"):
        model.fit(x, y)
