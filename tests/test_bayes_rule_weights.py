"""Weights of a classifier's rows: as many rows as they say, and none where they say zero."""

import numpy as np
import pandas as pd
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_score
from sklearn.utils import _safe_indexing

from ppl_gen import (
    EM,
    MADE,
    NUTS,
    BayesClassifier,
    BayesianNetwork,
    GaussianMixture,
    HiddenMarkovModel,
    HillClimb,
    MarkovChain,
    MaximumLikelihood,
    Mixture,
    NormalizingFlow,
)


def numbers(n=60, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    return rng.normal(size=(n, 3)) + 2.0 * y[:, None], y


@st.composite
def weighted_rows(draw):
    """Rows of two classes, and weights of 0 to 3 of which each class has four rows at the least."""
    seed = draw(st.integers(0, 10_000))
    X, y = numbers(24, seed)
    y[:8] = np.repeat([0, 1], 4)
    weights = draw(st.lists(st.integers(0, 3), min_size=16, max_size=16))
    return X, y, np.array([1, 2, 1, 3, 2, 1, 1, 1, *weights])


@settings(max_examples=30, deadline=None)
@given(weighted_rows(), st.sampled_from([None, "dirichlet", [0.3, 0.7]]))
def test_weights_count_as_rows_do(rows, priors):
    X, y, weights = rows
    pattern = BayesClassifier(GaussianMixture(1), priors=priors)
    weighed = pattern.fit(X, y, sample_weight=weights)
    found = weighed.class_prior_, weighed.predict_log_proba(X), weighed.log_prob(X, y)
    again = pattern.fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    np.testing.assert_allclose(again.class_prior_, found[0], rtol=1e-14)
    # Means and covariances add the same numbers in another order.
    np.testing.assert_allclose(again.predict_log_proba(X), found[1], rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(again.log_prob(X, y), found[2], rtol=1e-7, atol=1e-7)


def frame(kind):
    X, y = numbers()
    colour = np.random.default_rng(1).choice(["red", "green"], size=len(X))
    return kind({"height": X[:, 0], "colour": np.where(left_out(60), "blue", colour)}), y


def sequences():
    X, y = numbers()
    return [X[first : first + 5] for first in range(56)], y[:56]


def words():
    rng = np.random.default_rng(0)
    y, left = rng.integers(2, size=60), left_out(60)
    return ["".join(rng.choice(list("ab?" if c else "ab"), size=9)) for c in left], y


def counts():
    X, y = numbers()
    return sparse.csr_matrix(np.abs(X.round())), y


def images():
    X, y = numbers()
    return np.tile(X, 2).reshape(60, 2, 3), y


def left_out(n):
    """Whose colour, or letter, or class no other row has."""
    return np.arange(n) % 3 == 0


BRIEF = MaximumLikelihood(epochs=2)
FLOW = NormalizingFlow("maf", 2, (8,), inference=BRIEF, random_state=0)
WALK = HiddenMarkovModel(2, random_state=0, inference=EM(max_iter=3))
CASES = {
    "arrays": (GaussianMixture(1), numbers, False),
    "pandas": (Mixture(1), lambda: frame(pd.DataFrame), False),
    "polars": (Mixture(1), lambda: frame(polars.DataFrame), False),
    "sparse": (Mixture(1, "multinomial"), counts, False),
    "network": (BayesianNetwork(HillClimb()), lambda: frame(pd.DataFrame), False),
    "sequences": (WALK, sequences, False),
    "symbols": (MarkovChain(), words, False),
    "one_each": (FLOW, numbers, False),
    "shared": (FLOW, numbers, True),
    "shared_images": (FLOW, images, True),
    "shared_frame": (
        MADE((8,), inference=BRIEF, random_state=0),
        lambda: frame(pd.DataFrame),
        True,
    ),
}


@pytest.mark.filterwarnings("ignore:.*not converge:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CASES)
def test_rows_of_weight_zero_are_left_out(name):
    model, make, shared = CASES[name]
    X, y = make()
    left = left_out(len(y))
    y = np.where(left & (y == 1), 2, y)  # a class that no other row has
    rows = np.flatnonzero(~left)
    weights = np.where(left, 0.0, 1.5)
    pattern = BayesClassifier(model, shared=shared)
    kept, labels = _safe_indexing(X, rows), y[rows]
    weighed = pattern.fit(X, y, sample_weight=weights)
    found = weighed.predict_log_proba(kept), weighed.log_prob(kept)
    again = clone(pattern).fit(kept, labels, sample_weight=weights[rows])
    assert weighed.classes_.tolist() == [0, 1]
    np.testing.assert_array_equal(weighed.class_prior_, again.class_prior_)
    np.testing.assert_array_equal(again.predict_log_proba(kept), found[0])
    np.testing.assert_array_equal(again.log_prob(kept), found[1])
    whole = clone(pattern).fit(kept, labels).log_prob(kept)
    assert not np.array_equal(clone(pattern).fit(X, y).log_prob(kept), whole)


def test_given_priors_are_of_the_classes_that_have_weight():
    X, y = numbers()
    y = np.where(np.arange(60) < 10, 2, y)
    weights = np.where(y == 2, 0.0, 1.0)
    classifier = BayesClassifier(GaussianMixture(1), priors=[0.3, 0.7]).fit(X, y, weights)
    np.testing.assert_array_equal(classifier.class_prior_, [0.3, 0.7])


class Unweighted(GaussianMixture):
    """A model whose fit takes rows once each."""

    def fit(self, X, y=None):
        return super().fit(X)


@pytest.mark.parametrize(
    ("model", "weights", "kind", "message"),
    [
        (
            Unweighted(1),
            np.ones(60),
            TypeError,
            "sample_weight was given, but Unweighted.fit takes",
        ),
        (
            GaussianMixture(1, inference=NUTS(draws=5)),
            np.ones(60),
            ValueError,
            r"class 0 \(\d+ rows\) cannot be fitted: .* sample_weight is for EM",
        ),
        (GaussianMixture(1), np.ones(59), ValueError, "shape"),
        (GaussianMixture(1), np.ones((60, 1)), ValueError, "1D array"),
        (GaussianMixture(1), -np.ones(60), ValueError, "Negative"),
        (GaussianMixture(1), np.full(60, np.nan), ValueError, "NaN"),
        (GaussianMixture(1), np.zeros(60), ValueError, "non-zero|0 sample"),
        (GaussianMixture(1), numbers()[1], ValueError, "one class only"),
    ],
    ids=["none_taken", "nuts", "short", "two_axes", "negative", "nan", "zero", "one_class"],
)
def test_bad_weights_are_named(model, weights, kind, message):
    X, y = numbers()
    with pytest.raises(kind, match=message):
        BayesClassifier(model).fit(X, y, sample_weight=weights)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        BayesClassifier(GaussianMixture(1)).fit(X, y[:-1], sample_weight=np.ones(60))


def test_weights_are_routed_through_cross_validation():
    X, y = numbers()
    weights = np.where(left_out(60), 0.0, 1.0)
    weights[:4] = 9.0
    plain = BayesClassifier(GaussianMixture(1))
    folds = KFold(3)
    with config_context(enable_metadata_routing=True):
        asking = plain.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        found = cross_val_score(asking, X, y, cv=folds, params={"sample_weight": weights})
    for (train, test), score in zip(folds.split(X), found, strict=True):
        one = clone(plain).fit(X[train], y[train], sample_weight=weights[train])
        assert score == one.score(X[test], y[test], sample_weight=weights[test])
