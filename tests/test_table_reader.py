"""What every model of rows reads: no rows of weight zero, and nothing infinite."""

import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl_gen import EM, BayesianNetwork, GaussianMixture, Mixture, NaiveBayes, NormalizingFlow

FRAMES = {"pandas": pd.DataFrame, "polars": polars.DataFrame}


@st.composite
def weighted_rows(draw):
    """Rows with weights; a colour, and a number without bounds, only those of weight zero have."""
    counted = st.tuples(st.sampled_from("ab"), st.floats(-9.0, 9.0), st.sampled_from([0.5, 1, 3]))
    others = st.tuples(st.sampled_from("abz"), st.floats(allow_infinity=False), st.just(0.0))
    rows = [("a", 0.0, 1.0), ("b", 1.0, 1.0), ("z", np.nan, 0.0)]
    rows += draw(st.lists(counted | others, max_size=12))
    return draw(st.permutations(rows))


@given(weighted_rows(), st.sampled_from(sorted(FRAMES)))
@settings(max_examples=30, deadline=None)
def test_rows_of_weight_zero_are_left_out(rows, container):
    colours, sizes, weights = (list(column) for column in zip(*rows, strict=True))
    counted = np.flatnonzero(weights)

    def fitted(places):
        columns = {
            "colour": [colours[i] for i in places],
            "size": [sizes[i] for i in places],
        }
        frame = FRAMES[container](columns)
        model = Mixture(1, inference=EM(max_iter=2), random_state=0)
        return frame, model.fit(frame, sample_weight=np.array(weights)[places])

    _, weighed = fitted(np.arange(len(rows)))
    kept, expected = fitted(counted)
    assert weighed.schema_ == expected.schema_
    assert weighed.schema_.columns[0].categories == ("a", "b")
    np.testing.assert_array_equal(weighed.log_prob(kept), expected.log_prob(kept))


@pytest.mark.parametrize("container", sorted(FRAMES))
def test_of_other_models_too(container):
    frame = FRAMES[container]({"colour": [*"abab", "z"], "size": [*"ssll", "m"]})
    weights = np.array([1.0, 2.0, 1.0, 1.0, 0.0])
    labels = np.array([0, 1, 1, 0, -1])
    naive = NaiveBayes().fit(frame, labels, sample_weight=weights)
    expected = NaiveBayes().fit(frame[:4], labels[:4], sample_weight=weights[:4])
    assert naive.schema_ == expected.schema_
    np.testing.assert_array_equal(naive.predict_proba(frame[:4]), expected.predict_proba(frame[:4]))
    network = BayesianNetwork([("colour", "size")]).fit(frame, sample_weight=weights)
    assert network.schema_.columns[0].categories == ("a", "b")
    with pytest.raises(ValueError, match="'z', which was not seen in fit"):
        naive.predict(frame)


def test_weights_that_do_not_fit_are_refused():
    for weights, message in (
        ([1.0, 1.0], "shape"),
        ([1.0, -1.0, 1.0], "Negative"),
        ([0.0, 0.0, 0.0], "non-zero|0 sample"),
        ([0.0, 0.0, 1.0], "n_samples=1"),
    ):
        with pytest.raises(ValueError, match=message):
            Mixture(1).fit(np.eye(3), sample_weight=weights)


@pytest.mark.parametrize("model", [GaussianMixture(1), NormalizingFlow("maf", 1, (4,))])
def test_infinity_is_refused_with_the_model_and_the_columns(model):
    X = np.random.default_rng(0).normal(size=(20, 2, 3))
    X[4, 1, 0], X[5, 0, 1], X[6, 1, 0], X[7] = np.inf, -np.inf, np.inf, np.nan
    told = rf"{type(model).__name__}: .*infinity in 3 entries \(columns 1, 3\); replace it"
    with pytest.raises(ValueError, match=told):
        model.fit(X.reshape(20, 6))
    if isinstance(model, NormalizingFlow):
        with pytest.raises(ValueError, match=told):
            model.fit(X)


def test_infinity_in_sparse_rows_and_in_rows_to_score():
    X = np.array([[0.0, 2.0], [1.0, 0.0], [3.0, 1.0]])
    model = Mixture(1, "multinomial").fit(X)
    X[2, 1] = np.inf
    for rows in (X, scipy.sparse.csr_matrix(X)):
        with pytest.raises(ValueError, match=r"Mixture: .* infinity in 1 entries \(columns 1\)"):
            model.log_prob(rows)
    # What is finite may be large.
    assert np.isfinite(GaussianMixture(1).fit(np.array([[1e150], [-1e150]])).means_).all()
