"""What mixtures say of tables and settings that they cannot take."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from ppl_gen import GaussianMixture, Mixture
from ppl_gen.structures.latent_class import LatentClass


def blobs(n_rows=400, seed=0):
    """Three classes in four columns."""
    rng = np.random.default_rng(seed)
    return 2.5 * rng.normal(size=(3, 4))[rng.integers(3, size=n_rows)] + rng.normal(
        size=(n_rows, 4)
    )


# -- warnings and bad input ---------------------------------------------------------------------


def test_a_constant_column_warns_and_fits():
    x = np.column_stack([blobs()[:, :2], np.full(400, 7.0)])
    with pytest.warns(RuntimeWarning, match=r"1 constant column\(s\) \(2\)"):
        model = GaussianMixture(2, random_state=0).fit(x)
    assert np.isfinite(model.log_prob(x)).all()
    # The floor is what is left of the variance.
    np.testing.assert_allclose(model.covariances_[:, 2, 2], 1e-6, rtol=1e-6)
    frame = pd.DataFrame(x, columns=["a", "b", "same"])
    with pytest.warns(RuntimeWarning, match=r"\(same\)"):
        Mixture(2, random_state=0).fit(frame)
    with pytest.warns(RuntimeWarning, match=r"\(same\)"):
        Mixture(2, {"a": "normal"}, random_state=0).fit(frame)
    # A count that never changes is no such thing.
    Mixture(2, "poisson", random_state=0).fit(np.column_stack([np.arange(9), np.full(9, 2)]))


X = np.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (GaussianMixture(7), X, "n_components=7, but X has n_samples=6 rows"),
        (GaussianMixture(0), X, "n_components is 0; expected a whole number"),
        (GaussianMixture(1.5), X, "n_components is 1.5"),
        (GaussianMixture(2), np.empty((0, 2)), "0 sample"),
        (GaussianMixture(2), X[:1], "n_samples=1"),
        (GaussianMixture(2), X[:, 0], "Expected 2D array"),
        (GaussianMixture(2), np.where(X == 3.0, np.inf, X), "infinity"),
        (GaussianMixture(2), np.column_stack([X, np.full(6, np.nan)]), "column 2 is all NaN"),
        (GaussianMixture(2), pd.DataFrame({"a": [1.0, np.inf], "b": 0.0}), "'a' contains infinity"),
        (Mixture(2), pd.DataFrame({"a": [1.0, 2.0], "b": [None, None]}), "'b' is all NaN"),
        (Mixture(2), pd.DataFrame({"a": []}), "0 sample"),
        (GaussianMixture(2, "round"), X, "covariance_type is 'round'"),
        (GaussianMixture(2, reg_covar=-1.0), X, "reg_covar and var_smoothing must be at least 0"),
        (GaussianMixture(2, prior="flat"), X, "prior is 'flat'"),
        (GaussianMixture(2, inference="gibbs"), X, "unknown 'gibbs'; expected one of 'em'"),
        (GaussianMixture(2, device="cuda"), X, "'cuda' asked for"),
        (GaussianMixture(2, device="tpu"), X, "unknown device 'tpu'"),
        (GaussianMixture(2, weights_init=[0.5, 0.6]), X, "weights_init must be positive and sum"),
        (GaussianMixture(2, weights_init=[1.0]), X, r"weights_init has shape \(1,\)"),
        (GaussianMixture(2, means_init=[[0.0]]), X, r"means_init has shape \(1, 1\)"),
        (
            GaussianMixture(2, precisions_init=-np.stack([np.eye(2)] * 2)),
            X,
            "symmetric and positive definite",
        ),
        (GaussianMixture(2, "diag", precisions_init=-np.ones((2, 2))), X, "must be positive"),
        (Mixture(2, "beta"), X, "unknown family 'beta'; expected one of normal"),
        (Mixture(2, {"size": "normal"}), X, r"columns \['size'\] that X does not have"),
        (Mixture(2, "bernoulli"), X, "0 and 1 only"),
        (Mixture(2, "poisson"), -X, "Negative values"),
        (Mixture(2, "multinomial"), np.where(X == 3.0, np.nan, X), "X has NaN"),
    ],
)
def test_bad_input_is_named_before_any_compute(model, x, message, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    monkeypatch.setattr(LatentClass, "e_step", refuse)
    with pytest.raises(ValueError, match=message):
        model.fit(x)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (pd.DataFrame({"when": pd.to_datetime(["2020-01-01", "2020-01-02"])}), TypeError, "'when'"),
        (pd.DataFrame({"odd": [{"a": 1}, [2]]}), TypeError, "column 'odd' mixes values"),
        (np.array([["a", "b"], ["c", "d"]], dtype=object), ValueError, "could not convert"),
        (scipy.sparse.csr_array(np.eye(3)), TypeError, "[Ss]parse"),
    ],
    ids=["dates", "objects", "strings", "sparse"],
)
def test_columns_that_are_no_data_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        Mixture(2).fit(x)


def test_numbers_in_object_columns_are_numbers():
    x = blobs(60)
    frame = pd.DataFrame(x.astype(object), columns=list("abcd"))
    expected = GaussianMixture(2, random_state=0).fit(x).log_prob(x)
    np.testing.assert_allclose(
        GaussianMixture(2, random_state=0).fit(frame).log_prob(frame), expected, rtol=1e-12
    )
    np.testing.assert_allclose(
        GaussianMixture(2, random_state=0).fit(x.astype(object)).log_prob(x), expected, rtol=1e-12
    )


def test_sampling_nothing_is_refused():
    with pytest.raises(ValueError, match="n_samples is 0; expected a whole number, at least 1"):
        GaussianMixture(2, random_state=0).fit(X).sample(0)


def test_sample_weights_are_checked():
    with pytest.raises(ValueError, match="zero"):
        GaussianMixture(2).fit(X, sample_weight=np.zeros(6))
    with pytest.raises(ValueError, match=r"[Nn]egative values in data passed to `sample_weight`"):
        GaussianMixture(2).fit(X, sample_weight=-np.ones(6))
    with pytest.raises(ValueError, match="sample_weight"):
        GaussianMixture(2).fit(X, sample_weight=np.ones(5))
