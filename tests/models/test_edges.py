"""Corners that models meet in real tables: each once gave a wrong answer in silence."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import ppl_gen
from ppl_gen import EM, SVI, BayesClassifier, GaussianMixture, Mixture, NaiveBayes, Poisson


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [120, 81])
    return rng.normal(size=(201, 2)) + 3.0 * y[:, None], y


@pytest.mark.parametrize("batch_size", [50, 67, 100, 200])
def test_a_short_last_batch_does_not_outweigh_the_others(blobs, batch_size):
    x, _ = blobs
    start = {"means_init": [[0.0, 0.0], [3.0, 3.0]]}
    full = GaussianMixture(2, inference=EM(max_iter=200, tol=1e-9), **start).fit(x)
    steps = EM(max_iter=50, tol=0.0, batch_size=batch_size)
    batched = GaussianMixture(2, inference=steps, random_state=0, **start).fit(x)
    # What steps of size (t + 2)^-0.7 leave after 50 passes; a batch of one row lost .06.
    assert batched.score(x) > full.score(x) - 0.006


def test_given_priors_hold_during_the_fit_and_in_the_posterior(blobs):
    x, y = blobs
    hidden = np.where(np.random.default_rng(1).random(len(y)) < 0.9, -1, y)
    skewed = NaiveBayes(priors=[0.95, 0.05]).fit(x[:, :1], hidden)
    learned = NaiveBayes().fit(x[:, :1], hidden)
    np.testing.assert_array_equal(skewed.class_prior_, [0.95, 0.05])
    assert abs(skewed.theta_ - learned.theta_).max() > 0.05  # the labels inferred differ
    total = skewed.score_samples(x[hidden < 0][:, :1]).sum() + (
        skewed.log_prob(x[hidden >= 0][:, :1], hidden[hidden >= 0]).sum()
    )
    # The bound is of the step before the last, which moved by less than tol.
    assert total / len(x) == pytest.approx(skewed.lower_bound_, abs=1e-3)
    proba = ppl_gen.classify(skewed.posterior_, "y", x=x[:5, :1], y=np.zeros(5, dtype=int))
    np.testing.assert_allclose(proba, skewed.predict_proba(x[:5, :1]), atol=1e-12)


def test_rows_without_weight_are_no_rows(blobs):
    x, y = blobs
    counts = np.floor(np.abs(x) * 3.0)
    far = np.concatenate([counts, np.full((5, 2), 1000.0)])
    weight = np.r_[np.ones(len(x)), np.zeros(5)]
    labels = np.r_[y, np.zeros(5, dtype=int)]
    plain = NaiveBayes("poisson").fit(counts, y)
    weighted = NaiveBayes("poisson").fit(far, labels, sample_weight=weight)
    np.testing.assert_allclose(weighted.log_prob(counts), plain.log_prob(counts), rtol=1e-12)


def test_a_column_a_class_never_shows_says_little_of_the_class(blobs):
    x, y = blobs
    holed = np.where((y[:, None] == 1) & np.array([True, False]), np.nan, x)
    model = NaiveBayes().fit(holed, y)
    assert model.var_[1, 0] == pytest.approx(model.var_[0, 0])
    assert model.predict([[1.0, 3.5]]).tolist() == [1]


def test_missing_labels_in_lists_of_strings(blobs):
    x, _ = blobs
    model = NaiveBayes().fit(x[:5], ["a", "b", "a", np.nan, -1])
    assert model.classes_.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    "model",
    [
        GaussianMixture(2),
        Mixture(2, "poisson"),
        Mixture(2, {"word": "normal"}),
        BayesClassifier(GaussianMixture(1)),
    ],
    ids=["gaussian", "poisson", "dict", "classifier"],
)
def test_codes_of_categories_are_no_numbers(blobs, model):
    x, y = blobs
    frame = pd.DataFrame({"size": np.floor(np.abs(x[:, 0])), "word": np.array(["u", "v"])[y]})
    with pytest.raises(ValueError, match="column 'word' holds categories"):
        model.fit(frame, y)


def test_imputing_weighs_the_draws_by_what_is_observed():
    rng = np.random.default_rng(0)
    model = Mixture(1, Poisson(), inference=SVI(steps=500, draws=200), random_state=0)
    model.fit(rng.poisson(4.0, size=(80, 2)).astype(float))
    # Rates that an observed 30 makes likelier say more of the missing column's class.
    expected = model.parameters_["family"]["rate"][:, 0, 1].mean()
    filled = model.impute(np.array([[4.0, np.nan]]))[0, 1]
    assert filled == pytest.approx(expected, rel=0.02)
    # Two draws far apart: the one that the row fits decides.
    model.parameters_ = {
        "weights": np.ones((2, 1)),
        "family": {"rate": np.array([[[1.0, 2.0]], [[50.0, 60.0]]])},
    }
    assert model.impute(np.array([[50.0, np.nan]]))[0, 1] == pytest.approx(60.0)


def test_sparse_fits_are_kept_and_refused_by_name(tmp_path, blobs):
    x, y = blobs
    counts = scipy.sparse.csr_matrix(np.floor(np.abs(x)))
    model = NaiveBayes("multinomial").fit(counts, y)
    model.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(counts), model.predict_proba(counts))
    with pytest.raises(TypeError, match="sparse, and so complete"):
        model.impute(counts)
    with pytest.raises(ValueError, match="X is sparse"):
        NaiveBayes("poisson", inference="svi").fit(counts, y)
    with pytest.raises(ValueError, match="X is sparse"):
        Mixture(2, "poisson", inference=EM(engine="jax")).fit(counts)


def test_a_warm_start_needs_the_same_shapes(blobs):
    x, _ = blobs
    model = GaussianMixture(2, warm_start=True, random_state=0).fit(x)
    model.set_params(n_components=3)
    with pytest.raises(ValueError, match="warm_start goes on from a fit of 2 components"):
        model.fit(x)
    assert model.means_.shape == (2, 2)  # the old fit stands


def test_a_refit_forgets_the_fit_before(blobs):
    x, y = blobs
    model = NaiveBayes().fit(x, y)
    frame = pd.DataFrame({"size": x[:, 0], "word": np.array(["u", "v"])[y]})
    model.fit(frame, np.where(np.arange(len(y)) % 3 == 0, -1, y))
    assert hasattr(model, "n_iter_")
    assert not hasattr(model, "theta_")
    model.fit(x, y)
    assert not hasattr(model, "n_iter_")


def test_the_origin_of_sums_is_amid_the_data():
    rng = np.random.default_rng(0)
    x = 1e8 + rng.normal(size=(500, 1))
    x[:120] = np.nan
    model = GaussianMixture(1, inference=EM(1000, tol=1e-12)).fit(x)
    # Doubles at 1e8 resolve 1.5e-8: the variance of the stored numbers, to their digits.
    assert model.covariances_[0, 0, 0] == pytest.approx(np.nanvar(x), rel=1e-5)
    assert model.structure_.family.terms["scale"][0, 0] == pytest.approx(np.nanvar(x), rel=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (GaussianMixture(2, weight_concentration=-2.0), "must be at least 0"),
        (GaussianMixture(2, dtype="banana"), "dtype is 'banana'"),
        (GaussianMixture(2, inference=EM(tol="small")), "tol is 'small'"),
    ],
    ids=["concentration", "dtype", "tol"],
)
def test_settings_out_of_range_are_named(blobs, model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(blobs[0])
