"""Bayes' rule over deep models: images in, probabilities out, and the same again once loaded."""

import numpy as np
import pytest

import ppl_gen
from ppl_gen import (
    MADE,
    SVI,
    VAE,
    BayesClassifier,
    MaximumLikelihood,
    NormalizingFlow,
    PixelCNN,
    Training,
)
from ppl_gen.datasets import load_digits

BRIEF = Training(epochs=12, batch_size=32, learning_rate=1e-2)
LIKELIHOOD = MaximumLikelihood(training=BRIEF)
MODELS = {
    "flow": lambda: NormalizingFlow("maf", 2, (32,), noise=0.5, inference=LIKELIHOOD),
    "vae": lambda: VAE(4, hidden_layer_sizes=(32,), noise=8.0, inference=SVI(training=BRIEF)),
    "made": lambda: MADE((64,), kinds="whole", inference=MaximumLikelihood(40, training=BRIEF)),
    "pixels": lambda: PixelCNN(8, 2, 3, inference=LIKELIHOOD),
}


@pytest.fixture(scope="module")
def digits():
    """Zeros and ones; the ones, cut off, lack the highest levels."""
    digits = load_digits()
    chosen = np.flatnonzero(digits.y < 2)[:160]
    images, y = digits.images[chosen], digits.y.to_numpy()[chosen]
    images[y == 1] = np.minimum(images[y == 1], 13.0)
    return images[:120], y[:120], images[120:], y[120:]


@pytest.mark.filterwarnings("ignore:.*constant:RuntimeWarning")  # corners that are always white
@pytest.mark.filterwarnings("ignore:.*latents are active:RuntimeWarning")  # of so brief a training
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "one_each"])
@pytest.mark.parametrize("name", MODELS)
def test_images_are_told_apart_and_the_classifier_is_kept(name, shared, digits, tmp_path):
    images, y, fresh, truth = digits
    model = MODELS[name]().set_params(random_state=0)
    classifier = BayesClassifier(model, shared=shared).fit(images, y)
    found = classifier.predict_proba(fresh)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-9)
    # Zeros and ones differ in most pixels: a guess is right half the time.
    assert classifier.score(fresh, truth) > 0.8
    assert classifier.density == ("lower_bound" if name == "vae" else "exact")
    drawn, labels = classifier.sample(4, y=[1, 0, 0, 1], random_state=0)
    assert drawn.shape == (4, 8, 8)
    assert labels.tolist() == [1, 0, 0, 1]
    classifier.save(tmp_path / "classifier")
    loaded = ppl_gen.load(tmp_path / "classifier")
    np.testing.assert_array_equal(loaded.predict_proba(fresh), found)
    np.testing.assert_array_equal(loaded.sample(4, y=[1, 0, 0, 1], random_state=0)[0], drawn)
