"""Detectors out of the session and back: the same scores, ranks and settings; damage refused."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from torch import nn

import ppl_gen
from ppl_gen import (
    EM,
    SVI,
    VAE,
    AnomalyDetector,
    BayesClassifier,
    GaussianMixture,
    HiddenMarkovModel,
    MarkovChain,
    MaximumLikelihood,
    Mixture,
    NormalizingFlow,
    Training,
)
from ppl_gen.artifact import ArtifactError
from ppl_gen.datasets import make_checkerboard

X, Y = load_iris(return_X_y=True)
FRAME = pd.DataFrame({"length": X[:, 0], "kind": np.array(["a", "b", "c"])[Y]})
FLOW = NormalizingFlow("maf", 2, (8,), inference=MaximumLikelihood(epochs=2), random_state=0)
WALK = HiddenMarkovModel(2, random_state=0, inference=EM(max_iter=3))
SEQUENCES = [X[first : first + 6] for first in range(0, 120)]
CASES = {
    "mixture": (GaussianMixture(2, random_state=0), X),
    "frame": (Mixture(1), FRAME),
    "draws": (MarkovChain(inference="conjugate", random_state=0), ["abaab", "bbab", "aabba"] * 12),
    "flow": (FLOW, X),
    "images": (FLOW, X.reshape(-1, 2, 2)),
    "sequences": (WALK, SEQUENCES),
}


def same(detector, loaded, rows):
    for ask in ("predict", "score_samples", "decision_function", "p_values"):
        np.testing.assert_array_equal(getattr(loaded, ask)(rows), getattr(detector, ask)(rows))
    known, found = (one.typicality(rows, random_state=0) for one in (detector, loaded))
    assert known == found
    assert repr(loaded) == repr(detector)
    assert loaded.offset_ == detector.offset_
    assert loaded.entropy_ == detector.entropy_
    np.testing.assert_array_equal(loaded.log_prob_, detector.log_prob_)


@pytest.mark.parametrize("statistic", ["density", "typicality"])
@pytest.mark.parametrize("name", CASES)
def test_a_saved_detector_is_the_same(name, statistic, tmp_path):
    model, rows = CASES[name]
    detector = AnomalyDetector(model, statistic, contamination=0.1, random_state=0).fit(rows)
    detector.save(tmp_path / "detector")
    loaded = ppl_gen.load(tmp_path / "detector")
    same(detector, loaded, rows)
    assert getattr(loaded, "n_features_in_", None) == getattr(detector, "n_features_in_", None)
    if name == "frame":
        assert loaded.feature_names_in_.tolist() == ["length", "kind"]
    # What is loaded can be fitted again, and kept again.
    refitted = loaded.fit(rows)
    same(detector, refitted, rows)
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        refitted.save(tmp_path / "detector")
    refitted.save(tmp_path / "detector", overwrite=True)


def test_a_model_that_was_fitted_before_comes_back_fitted(tmp_path):
    model = GaussianMixture(1).fit(X)
    detector = AnomalyDetector(model, calibration="prefit").fit(X)
    detector.save(tmp_path / "detector")
    loaded = ppl_gen.load(tmp_path / "detector")
    same(detector, loaded, X)
    assert loaded.model is loaded.model_
    same(detector, loaded.fit(X), X)


def test_what_is_set_after_the_fit_is_of_the_next_one(tmp_path):
    detector = AnomalyDetector(GaussianMixture(1), random_state=0).fit(X)
    found = detector.p_values(X)
    detector.set_params(model=Mixture(3))
    detector.save(tmp_path / "detector")
    loaded = ppl_gen.load(tmp_path / "detector")
    assert isinstance(loaded.model_, GaussianMixture)
    np.testing.assert_array_equal(loaded.p_values(X), found)


@pytest.mark.parametrize("shared", [False, True])
def test_a_classifiers_density_of_all_classes_is_kept(shared, tmp_path):
    model = FLOW if shared else GaussianMixture(1, random_state=np.random.RandomState(0))
    classifier = BayesClassifier(model, shared=shared).fit(X, Y)
    random = np.random.RandomState(0)
    detector = AnomalyDetector(classifier, calibration="prefit", random_state=random).fit(X)
    detector.save(tmp_path / "detector")
    loaded = ppl_gen.load(tmp_path / "detector")
    np.testing.assert_array_equal(loaded.p_values(X), detector.p_values(X))
    np.testing.assert_array_equal(loaded.model_.predict_proba(X), classifier.predict_proba(X))
    # Random generators are not kept.
    assert loaded.random_state is None
    assert detector.random_state is random


@pytest.mark.filterwarnings("ignore:.*latents are active:RuntimeWarning")  # of no training
@pytest.mark.parametrize("calibration", [0.3, "prefit"])
def test_networks_of_the_users_own_come_back_with_their_weights(calibration, tmp_path):
    def own():
        return {"encoder": nn.Linear(4, 4)}

    model = VAE(2, **own(), inference=SVI(training=Training(epochs=1)), random_state=0)
    model = model.fit(X) if calibration == "prefit" else model
    detector = AnomalyDetector(model, calibration=calibration, random_state=0).fit(X)
    detector.save(tmp_path / "detector")
    assert detector.model.encoder is not None
    modules = own()
    before = modules["encoder"].weight.detach().clone()
    loaded = ppl_gen.load(tmp_path / "detector", modules=modules)
    np.testing.assert_array_equal(loaded.p_values(X), detector.p_values(X))
    assert (modules["encoder"].weight == before).all()
    assert loaded.model.encoder is not None
    with pytest.raises(ArtifactError, match="fitted with your own"):
        ppl_gen.load(tmp_path / "detector")


# -- what is refused ------------------------------------------------------------------------------


def test_a_detector_that_was_not_fitted_is_not_saved(tmp_path):
    with pytest.raises(NotFittedError):
        AnomalyDetector(GaussianMixture(1)).save(tmp_path / "detector")


def test_a_density_of_ones_own_is_not_saved(tmp_path):
    board = make_checkerboard(200)
    detector = AnomalyDetector(board, calibration="prefit").fit(board.X)
    with pytest.raises(TypeError, match=r"AnomalyDetector.save: \w+ is not a model of ppl_gen"):
        detector.save(tmp_path / "detector")
    assert not (tmp_path / "detector").exists()


@pytest.mark.parametrize("name", ["manifest.json", "params.safetensors"])
def test_what_was_altered_is_refused(name, tmp_path):
    file = AnomalyDetector(GaussianMixture(1)).fit(X).save(tmp_path / "detector") / name
    content = bytearray(file.read_bytes())
    # The rate of false alarms, or a log density.
    place = content.index(b"0.05") + 3 if name == "manifest.json" else len(content) - 2
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} was .*altered"):
        ppl_gen.load(tmp_path / "detector")
