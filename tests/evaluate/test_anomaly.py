"""Anomaly scores: false alarms come as often as promised, and density alone misleads."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KernelDensity
from sklearn.utils.estimator_checks import parametrize_with_checks

from ppl_gen import EM, BayesClassifier, GaussianMixture, HiddenMarkovModel, Mixture
from ppl_gen.datasets import make_checkerboard, make_two_moons
from ppl_gen.evaluate.anomaly import AnomalyDetector, typicality_test


class Known:
    """A density that is known, as the model of a detector."""

    def __init__(self, log_prob):
        self.log_prob = log_prob


def identity():
    """Of numbers that are log densities themselves."""
    return Known(lambda X: np.asarray(X, dtype=np.float64)[:, 0])


# -- calibration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", ["density", "typicality"])
def test_false_alarms_come_as_often_as_promised(statistic):
    """Though the model is wrong: moons under one normal. Over 400 calibrations."""
    rng = np.random.default_rng(0)
    pool = make_two_moons(4000, random_state=0).X
    model = GaussianMixture(1).fit(pool[:100])
    alarms, p_values = [], []
    for _ in range(400):
        rows = pool[rng.choice(len(pool), 120, replace=False)]
        detector = AnomalyDetector(model, statistic, 0.1, "prefit").fit(rows[:99])
        p_values.append(detector.p_values(rows[99:100])[0])
        alarms.append(np.mean(detector.predict(rows[99:]) == -1))
    # The mean of 400 calibrations, whose rates spread by .03: within four standard errors. The
    # centre of "typicality" may add 1 in 99.
    assert np.mean(alarms) == pytest.approx(0.1, abs=4.0 * 0.03 / 20.0 + 0.01)
    assert kstest(p_values, "uniform").pvalue > 1e-3


def test_p_values_are_ranks_and_agree_with_predictions():
    detector = AnomalyDetector(identity(), contamination=0.2, calibration="prefit")
    detector.fit(np.arange(9.0)[:, None])
    at = np.array([[-1.0], [0.0], [0.5], [1.0], [8.0], [9.0]])
    np.testing.assert_allclose(detector.p_values(at), [0.1, 0.2, 0.2, 0.3, 1.0, 1.0])
    np.testing.assert_array_equal(detector.predict(at), [-1, -1, -1, 1, 1, 1])
    np.testing.assert_array_equal(detector.decision_function(at), at[:, 0] - detector.offset_)
    # A row below the second lowest of nine has one of them below it at most: p of .2 or less.
    assert detector.offset_ == 1.0


def test_an_outlier_is_a_row_whose_p_value_is_small_enough():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(400, 3))
    for statistic in ("density", "typicality"):
        for contamination in (0.01, 0.1, 0.33, 0.5):
            detector = AnomalyDetector(GaussianMixture(1), statistic, contamination, random_state=0)
            detector.fit(X)
            rows = 2.0 * rng.normal(size=(500, 3))
            expected = detector.p_values(rows) <= contamination + 1e-12
            np.testing.assert_array_equal(detector.predict(rows) == -1, expected)


def test_training_rows_are_too_dense_to_calibrate_a_flexible_model():
    X = np.random.default_rng(0).normal(size=(300, 2))
    fresh = np.random.default_rng(1).normal(size=(2000, 2))
    flexible = GaussianMixture(40, inference=EM(max_iter=30), random_state=0)
    held = AnomalyDetector(flexible, calibration=0.5, contamination=0.1, random_state=0).fit(X)
    own = AnomalyDetector(flexible, calibration=None, contamination=0.1).fit(X)
    assert np.mean(held.predict(fresh) == -1) < 0.17  # 150 calibration rows: .1 +- 3 x .025
    assert np.mean(own.predict(fresh) == -1) > 0.17


# -- what likelihood alone does not see -----------------------------------------------------------


def test_the_densest_point_is_atypical():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 100))
    density = AnomalyDetector(GaussianMixture(1, "diag"), random_state=0).fit(X)
    typical = AnomalyDetector(GaussianMixture(1, "diag"), "typicality", random_state=0).fit(X)
    mean = np.zeros((1, 100))
    assert density.p_values(mean) == 1.0  # denser than every row
    assert density.predict(mean) == 1
    assert typical.predict(mean) == -1
    assert typical.p_values(mean) == 1.0 / 501.0
    far, fresh = 2.0 * rng.normal(size=(20, 100)), rng.normal(size=(400, 100))
    for detector in (density, typical):
        assert (detector.predict(far) == -1).all()
        assert np.mean(detector.predict(fresh) == 1) > 0.9
    # The entropy of the normal is 141.9 nats, in which 2,000 rows of 100 numbers err by .5.
    assert typical.entropy_ == pytest.approx(50.0 * np.log(2.0 * np.pi * np.e), abs=2.0)


def test_batches_are_atypical_before_any_row_is():
    rng = np.random.default_rng(0)
    detector = AnomalyDetector(GaussianMixture(1, "diag"), "typicality", random_state=0)
    detector.fit(rng.normal(size=(2000, 50)))
    narrow = 0.93 * rng.normal(size=(50, 50))  # denser, all of it
    assert np.mean(detector.predict(narrow) == -1) < 0.3
    found = detector.typicality(narrow, random_state=0)
    assert found.p_value < 0.01
    assert found.statistic < 0.0
    assert found.n_rows == 50
    assert found.entropy == detector.entropy_
    same = detector.typicality(rng.normal(size=(50, 50)), random_state=0)
    assert same.p_value > 0.01


@pytest.mark.parametrize(("batch", "reference"), [(1, 100), (20, 100), (100, 100), (20, 2000)])
def test_batches_of_the_same_kind_pass(batch, reference):
    """Log densities of exponential tails; 200 tests at a level of 5%."""
    rng = np.random.default_rng(batch + reference)
    p_values = [
        typicality_test(
            -rng.gamma(2.0, size=batch), -rng.gamma(2.0, size=reference), 100, random_state=b
        ).p_value
        for b in range(200)
    ]
    # 10 expected; four deviations of a binomial.
    assert np.sum(np.array(p_values) <= 0.05) <= 10 + 4.0 * np.sqrt(200 * 0.05 * 0.95)


# -- what may be given ----------------------------------------------------------------------------


def test_sequences_have_ranks_too():
    rng = np.random.default_rng(0)
    walks = [rng.normal(size=(10, 1)).cumsum(axis=0) for _ in range(60)]
    detector = AnomalyDetector(
        HiddenMarkovModel(2, random_state=0, inference=EM(max_iter=5)), calibration=0.5
    ).fit(walks[:50])
    assert detector.predict([np.full((10, 1), 1e3), walks[-1]]).tolist()[0] == -1
    assert len(detector.log_prob_) == 25


def test_frames_keep_their_names():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 2)), columns=["a", "b"])
    detector = AnomalyDetector(GaussianMixture(1), random_state=0).fit(X)
    assert detector.feature_names_in_.tolist() == ["a", "b"]
    assert detector.fit_predict(X).shape == (100,)


def test_a_fitted_model_is_taken_as_it_is():
    X = np.random.default_rng(0).normal(size=(100, 2))
    model = GaussianMixture(1).fit(X)
    detector = AnomalyDetector(model, calibration="prefit").fit(X)
    assert detector.model_ is model
    np.testing.assert_array_equal(detector.log_prob_, np.sort(model.log_prob(X)))
    np.testing.assert_array_equal(detector.score_samples(X), model.log_prob(X))


def test_rows_that_are_impossible_are_outliers():
    board = make_checkerboard(200)
    detector = AnomalyDetector(board, calibration="prefit").fit(board.X)
    np.testing.assert_array_equal(detector.predict([[1.0, -1.0], [1.0, 1.0]]), [-1, 1])


# -- bad input ------------------------------------------------------------------------------------

ROWS = np.random.default_rng(0).normal(size=(40, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"statistic": "likelihood"},
            "statistic is 'likelihood'; expected one of density, typicality",
        ),
        ({"contamination": 0.0}, r"contamination is 0.0; expected a share in \(0, 0.5\]"),
        ({"contamination": 0.7}, "contamination is 0.7"),
        ({"calibration": 1.0}, r"calibration is 1.0; expected a share in \(0, 1\), None or 'pre"),
        ({"calibration": "held"}, "calibration is 'held'"),
        ({"contamination": "auto"}, r"contamination is 'auto'; expected a share in \(0, 0.5\]"),
        ({"calibration": [0.2]}, r"calibration is \[0.2\]; expected a share"),
        ({"calibration": 0.01}, "of n_samples=40 holds 0 out, and leaves 40 to train on"),
        ({"calibration": 0.999}, "holds 40 out, and leaves 0 to train on"),
    ],
)
def test_bad_settings_are_named(settings, message):
    settings = {"contamination": 0.2} | settings
    with pytest.raises(ValueError, match=message):
        AnomalyDetector(GaussianMixture(1), **settings).fit(ROWS)


@pytest.mark.parametrize(
    ("log_prob", "statistic", "message"),
    [
        ([np.nan, 0.0, 1.0], "density", "gives 1 rows a log density that is no number"),
        ([-np.inf, 0.0, 1.0], "typicality", "its entropy is infinite; use statistic='density'"),
    ],
)
def test_bad_densities_are_named(log_prob, statistic, message):
    detector = AnomalyDetector(identity(), statistic, 0.5, "prefit")
    with pytest.raises(ValueError, match=message):
        detector.fit(np.array(log_prob)[:, None])


def test_too_few_calibration_rows_raise_no_alarm():
    detector = AnomalyDetector(identity(), contamination=0.01, calibration="prefit")
    with pytest.warns(RuntimeWarning, match=r"10 calibration rows .* calibrate with 99 or more"):
        detector.fit(np.arange(10.0)[:, None])
    far = np.array([[-1e9], [-np.inf], [5.0]])
    np.testing.assert_array_equal(detector.predict(far), 1)
    np.testing.assert_array_equal(detector.decision_function(far), [np.inf, 0.0, np.inf])


@pytest.mark.parametrize(
    ("log_prob", "reference", "draws", "message"),
    [
        ([], [1.0], 10, r"log_prob has shape \(0,\); expected log densities of rows"),
        ([1.0], [[1.0]], 10, r"reference has shape \(1, 1\)"),
        ([-np.inf], [1.0], 10, "log_prob has 1 entries that are not finite"),
        ([1.0], [1.0], 0, "n_bootstrap is 0; expected a whole number, at least 1"),
        ([1.0], [1.0], 1.5, "n_bootstrap is 1.5; expected a whole number"),
    ],
)
def test_bad_batches_are_named(log_prob, reference, draws, message):
    with pytest.raises(ValueError, match=message):
        typicality_test(log_prob, reference, draws)


@pytest.mark.parametrize(
    ("model", "calibration", "message"),
    [
        (None, 0.25, "model is None, which has no fit"),
        (GaussianMixture, 0.25, "model is GaussianMixture, which is a class"),
        (KernelDensity(), 0.25, r"model is KernelDensity\(\), which has no log_prob"),
        (3, "prefit", "model is 3, which has no log_prob"),
        (BayesClassifier(GaussianMixture(1)), None, "learns from labels too; fit it first"),
    ],
    ids=["none", "class", "no_log_prob", "prefit", "classifier"],
)
def test_what_is_no_density_is_named(model, calibration, message):
    with pytest.raises(TypeError, match=message):
        AnomalyDetector(model, calibration=calibration).fit(ROWS)


def test_a_detector_that_was_not_fitted_has_no_ranks():
    with pytest.raises(NotFittedError):
        AnomalyDetector(GaussianMixture(1)).p_values(ROWS)


HELD_OUT = "the threshold is of held-out rows, so other rows are below it in about that share"
EXPECTED = {
    "check_outliers_train": HELD_OUT,
    "check_outliers_fit_predict": HELD_OUT,
}


# The checks fit a few rows.
@pytest.mark.filterwarnings("ignore:AnomalyDetector.fit. . calibration rows cannot tell")
@parametrize_with_checks(
    [
        AnomalyDetector(Mixture(1, "normal"), contamination=0.1),
        AnomalyDetector(Mixture(1, "normal"), "typicality", contamination=0.1),
    ],
    expected_failed_checks=lambda estimator: EXPECTED,
)
def test_manners_of_scikit_learn(estimator, check):
    check(estimator)
