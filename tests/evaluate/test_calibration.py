"""Calibration against a loop over the rows, and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl_gen.evaluate.calibration import expected_calibration_error, reliability_curve

CLASSES = np.array(["a", "b", "c"])


def by_hand(y, proba, classes, n_bins):
    bins = {}
    for label, row in zip(y, proba, strict=True):
        confidence = max(row)
        place = min(int(confidence * n_bins), n_bins - 1)
        guess = classes[list(row).index(confidence)]
        bins.setdefault(place, []).append((confidence, guess == label))
    return [
        (np.mean([c for c, _ in rows]), np.mean([r for _, r in rows]), len(rows))
        for _, rows in sorted(bins.items())
    ]


@given(n_rows=st.integers(1, 60), n_bins=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_equal_to_a_loop_over_rows(n_rows, n_bins, seed):
    rng = np.random.default_rng(seed)
    proba, y = rng.dirichlet(np.ones(3), n_rows), rng.choice(CLASSES, n_rows)
    expected = by_hand(y, proba, CLASSES, n_bins)
    # Sums of up to 60 numbers, in another order.
    np.testing.assert_allclose(
        np.transpose(reliability_curve(y, proba, CLASSES, n_bins)), expected, rtol=1e-12
    )
    error = sum(n * abs(c - a) for c, a, n in expected) / n_rows
    assert expected_calibration_error(y, proba, CLASSES, n_bins) == pytest.approx(error, abs=1e-12)


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=6))
def test_perfect_calibration_is_zero(groups):
    """Of n rows with confidence k / n in a class, k are right."""
    y, proba = [], []
    for n, k in groups:
        k = max(min(k, n), (n + 1) // 2)  # the likelier of two classes
        y += ["a"] * k + ["b"] * (n - k)
        proba += [[k / n, 1.0 - k / n]] * n
    # Many bins, lest confidences that differ share one: their mean is honest still.
    error = expected_calibration_error(y, proba, ["a", "b"], n_bins=1000)
    assert error == pytest.approx(0.0, abs=1e-12)


@given(shift=st.floats(0.0, 0.4))
def test_overconfidence_is_its_own_size(shift):
    y = ["a"] * 5 + ["b"] * 5
    proba = np.tile([0.5 + shift, 0.5 - shift], (10, 1))
    assert expected_calibration_error(y, proba, ["a", "b"]) == pytest.approx(shift, abs=1e-12)


def test_labels_drawn_from_the_probabilities_are_calibrated():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), 20_000)
    y = [rng.choice(CLASSES, p=row) for row in proba]
    # A bin of m rows strays by about sqrt(p (1 - p) / m): .007 at most here, on average.
    assert expected_calibration_error(y, proba, CLASSES) < 0.015


def test_certainty_falls_into_the_last_bin():
    confidence, accuracy, counts = reliability_curve(["a", "b"], [[1.0, 0.0]] * 2, ["a", "b"], 10)
    assert (confidence.tolist(), accuracy.tolist(), counts.tolist()) == ([1.0], [0.5], [2.0])


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (3,)])
def test_shapes_that_do_not_fit_are_named(shape):
    with pytest.raises(ValueError, match=r"proba has shape .*; expected \(3, 3\)"):
        reliability_curve(["a", "b", "c"], np.full(shape, 1 / 3), CLASSES)


@pytest.mark.parametrize(
    ("y", "proba", "n_bins", "message"),
    [
        ([], np.zeros((0, 3)), 5, r"y has shape \(0,\); expected labels"),
        (["a"], [[0.5, 0.2, 0.2]], 5, "no probabilities"),
        (["a"], [[1.2, -0.2, 0.0]], 5, "no probabilities"),
        (["a"], [[np.nan, 0.5, 0.5]], 5, "no probabilities"),
        (["a"], [[0.5, 0.5, 0.0]], 0, "n_bins is 0; expected a whole number"),
        (["a"], [[0.5, 0.5, 0.0]], 1.5, "n_bins is 1.5; expected a whole number"),
    ],
    ids=["empty", "sum", "negative", "nan", "no_bins", "half_a_bin"],
)
def test_bad_input_is_named(y, proba, n_bins, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(y, proba, CLASSES, n_bins)
