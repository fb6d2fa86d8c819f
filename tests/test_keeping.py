"""Fitted models out of the session and back: artefacts without their data, other processes."""

import copy
import pickle

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.datasets import load_iris

import ppl_gen
from ppl_gen import (
    NUTS,
    BayesClassifier,
    GaussianMixture,
    NaiveBayes,
    Posterior,
    dist,
    plate,
    program,
    sample,
)

X, Y = load_iris(return_X_y=True)
X, Y = X[:100, :2], Y[:100]


@program
def normal_mean(x=None, n=5):
    mu = sample("mu", dist.Normal(0.0, 2.0))
    with plate("row", n):
        sample("x", dist.Normal(mu, 1.0), obs=x)


def local_copy():
    @program
    def normal_mean(x=None, n=5):
        mu = sample("mu", dist.Normal(0.0, 2.0), dims=())
        with plate("row", n):
            sample("x", dist.Normal(mu, 1.0), obs=x)

    return normal_mean


def draws_of(model):
    rng = np.random.default_rng(0)
    return Posterior(
        {"mu": rng.normal(size=(2, 50))},
        method="nuts",
        engine="numpyro",
        model=model,
        kwargs={"x": np.arange(5.0)},
        sample_stats={"diverging": np.zeros((2, 50), dtype=bool)},
        info={"elapsed": 1.0},
    )


# -- saved without the rows -------------------------------------------------------------------


def test_a_model_of_batches_is_saved_and_loaded(tmp_path):
    model = NaiveBayes().partial_fit(X, Y, classes=[0, 1])
    model.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    for name, value in model.posterior_.draws.items():
        np.testing.assert_array_equal(loaded.posterior_.draws[name], value)
    loaded.save(tmp_path / "again")
    again = ppl_gen.load(tmp_path / "again").partial_fit(X, Y)
    np.testing.assert_array_equal(again.class_count_, [100, 100])


def test_a_model_of_a_loaded_classifier_is_saved_and_loaded(tmp_path):
    classifier = BayesClassifier(GaussianMixture(1)).fit(X, Y)
    classifier.save(tmp_path / "classifier")
    inner = ppl_gen.load(tmp_path / "classifier").models_[1]
    inner.save(tmp_path / "inner")
    loaded = ppl_gen.load(tmp_path / "inner")
    np.testing.assert_array_equal(loaded.log_prob(X), classifier.models_[1].log_prob(X))


def test_a_loaded_classifier_has_the_chains_of_its_models(tmp_path):
    # The fit is too short on purpose: a verdict of chains, not of independent draws.
    nuts = NUTS(chains=2, warmup=50, draws=50)
    x, y = X[[*range(20), *range(50, 70)], :1], np.repeat([0, 1], 20)
    model = GaussianMixture(1, "diag", inference=nuts, random_state=0)
    classifier = BayesClassifier(model).fit(x, y)
    classifier.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    for kept, fitted in zip(loaded.models_, classifier.models_, strict=True):
        before, after = fitted.posterior_, kept.posterior_
        assert after.shape == (2, 50)
        assert after.verdict.text == before.verdict.text
        assert "chains" in after.verdict.text
        for group in ("draws", "sample_stats"):
            assert getattr(after, group).keys() == getattr(before, group).keys()
            for name, value in getattr(before, group).items():
                np.testing.assert_array_equal(getattr(after, group)[name], value)
        assert after.summary().equals(before.summary())
        assert after.log_likelihood().keys() == before.log_likelihood().keys()
    np.testing.assert_array_equal(loaded.predict_proba(x), classifier.predict_proba(x))


# -- in another process -----------------------------------------------------------------------


def verdict_and_repr(posterior):
    return posterior.verdict.text, repr(posterior), posterior.model is not None


def test_a_posterior_goes_to_another_process_and_back():
    known, local = draws_of(normal_mean), draws_of(local_copy())
    there = Parallel(n_jobs=2)(delayed(verdict_and_repr)(p) for p in (known, local))
    assert [text for text, _, _ in there] == [known.verdict.text, local.verdict.text]
    assert [shown for _, shown, _ in there] == [repr(known), repr(local)]
    assert not there[1][2]  # a program inside a function cannot be imported


def test_a_program_of_a_module_is_kept_by_its_name():
    kept = pickle.loads(pickle.dumps(draws_of(normal_mean)))
    assert kept.model is normal_mean
    assert kept.log_likelihood()["x"].shape == (2, 50, 5)


def test_a_posterior_without_its_program_keeps_all_else():
    posterior = draws_of(local_copy())
    posterior.idata  # noqa: B018 - what was made on request goes along
    kept = pickle.loads(pickle.dumps(posterior))
    assert kept.model is None
    np.testing.assert_array_equal(kept.draws["mu"], posterior.draws["mu"])
    assert set(kept.idata.groups()) == set(posterior.idata.groups())
    assert kept.info == posterior.info
    assert kept.summary().equals(posterior.summary())
    with pytest.raises(ValueError, match="has no program, only draws"):
        kept.log_likelihood()


def test_a_deep_copy_has_the_program_and_its_own_draws():
    posterior = draws_of(local_copy())
    copied = copy.deepcopy(posterior)
    copied.draws["mu"][:] = 0.0
    assert copied.model is posterior.model
    assert posterior.draws["mu"].all()


def test_a_fitted_model_goes_to_another_process():
    model = GaussianMixture(1).fit(X)
    model.posterior_  # noqa: B018 - made on request, with the program
    kept = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(kept.log_prob(X), model.log_prob(X))
    assert kept.posterior_.verdict.text == model.posterior_.verdict.text
    kept_likelihood = kept.posterior_.log_likelihood()["x"]
    np.testing.assert_array_equal(kept_likelihood, model.posterior_.log_likelihood()["x"])
