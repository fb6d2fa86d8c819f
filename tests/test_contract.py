"""THE contract of every model. A new model joins by one line of `MODELS`.

Each model is fitted once by each of its methods (a few draws, a few steps: what is held here does
not depend on their number), and all tests look at those fits.
"""

import copy
import functools
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import ppl_gen
from ppl_gen import EM, NUTS, SVI, BayesClassifier, GaussianMixture, Mixture, NaiveBayes, engines
from ppl_gen.datasets import load_iris, load_penguins
from ppl_gen.posterior import Posterior

METHODS = {
    "em": EM(max_iter=20),
    "svi": SVI(steps=30),
    "nuts": NUTS(chains=2, warmup=20, draws=10),
}


def flowers(rows: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers, with some of them missing."""
    frame = load_iris().frame.sample(rows, random_state=0, ignore_index=True)
    x = frame.iloc[:, :4].copy()
    x.iloc[3, 1] = x.iloc[7, 0] = x.iloc[7, 2] = np.nan
    return x, frame.iloc[:, 4].to_numpy()


def penguins(rows: int = 80) -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers, categories and a yes or no, with some of them missing."""
    frame = load_penguins().frame.sample(rows, random_state=0, ignore_index=True)
    x = frame[["bill_length_mm", "body_mass_g", "sex"]].assign(heavy=frame["body_mass_g"] > 4200)
    x.loc[2, "sex"] = x.loc[5, "body_mass_g"] = None
    return x, frame["species"].astype(str).to_numpy()


@dataclass(frozen=True)
class Model:
    """One line of the contract."""

    make: Callable[[Any], Any]  # from an inference object
    data: Callable[[], tuple[pd.DataFrame, np.ndarray]]
    classifier: bool = False
    methods: tuple[str, ...] = ("em", "svi", "nuts")


MODELS = {
    "gaussian_mixture": Model(
        lambda method: GaussianMixture(2, inference=method, random_state=0), flowers
    ),
    "mixture": Model(lambda method: Mixture(2, inference=method, random_state=0), penguins),
    "naive_bayes": Model(lambda method: NaiveBayes(inference=method), penguins, classifier=True),
    "bayes_classifier": Model(
        lambda method: BayesClassifier(Mixture(1, inference=method, random_state=0)),
        penguins,
        classifier=True,
        methods=("em",),
    ),
}
#: Pairs that compile as long as the others, and have no line of code of their own.
SLOW = [("gaussian_mixture", "svi"), ("mixture", "nuts"), ("naive_bayes", "svi")]
CASES = [
    pytest.param(
        name,
        method,
        id=f"{name}-{method}",
        marks=[pytest.mark.slow] if (name, method) in SLOW else [],
    )
    for name, model in MODELS.items()
    for method in model.methods
]
# A whole generative model has a posterior; a rule over several models has one in each.
WITH_POSTERIOR = [case for case in CASES if case.values[0] != "bayes_classifier"]
MIXTURES = [case for case in CASES if not MODELS[case.values[0]].classifier]

each_fit = pytest.mark.parametrize(("name", "method"), CASES)


@functools.cache
def _fitted(name: str, method: str) -> Any:
    x, y = MODELS[name].data()
    model = MODELS[name].make(METHODS[method])
    with warnings.catch_warnings():
        # So few draws and steps have every reason to be warned of.
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        return model.fit(x, y) if MODELS[name].classifier else model.fit(x)


def fitted(name: str, method: str) -> Any:
    """The one fit, which no test may change."""
    return copy.copy(_fitted(name, method))


@each_fit
def test_fit_returns_the_model_and_leaves_its_settings(name, method):
    model = fitted(name, method)
    assert isinstance(model, type(MODELS[name].make(METHODS[method])))
    assert repr(model) == repr(MODELS[name].make(METHODS[method]))
    assert repr(clone(model)) == repr(model)
    assert "<" in model._repr_html_()
    x, _ = MODELS[name].data()
    assert model.n_features_in_ == x.shape[1]
    assert list(model.feature_names_in_) == list(x.columns)


@each_fit
def test_fitted_attributes_are_numpy(name, method):
    model = fitted(name, method)
    plain = (np.ndarray, np.generic, int, float, str, bool, list, dict, Posterior)
    for attribute, value in vars(model).items():
        if attribute.endswith("_") and attribute not in ("schema_", "structure_"):
            assert isinstance(value, plain), attribute


@each_fit
def test_log_prob_is_one_number_a_row(name, method):
    x, _ = MODELS[name].data()
    model = fitted(name, method)
    found = model.log_prob(x)
    assert type(found) is np.ndarray
    assert found.shape == (len(x),)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert model.density == "exact"
    # One row at a time, to the rounding of another grouping of rows.
    np.testing.assert_allclose(
        [model.log_prob(x.iloc[[row]])[0] for row in range(8)], found[:8], rtol=1e-12
    )
    if hasattr(model, "score_samples"):
        np.testing.assert_array_equal(model.score_samples(x), found)


@each_fit
def test_forgetting_a_category_never_lowers_the_mass(name, method):
    """Marginals are consistent: a sum over categories is at least each of its terms."""
    x, _ = MODELS[name].data()
    model = fitted(name, method)
    fewer = x.copy()
    for column in x.columns[[dtype.kind not in "fi" for dtype in x.dtypes]]:
        kind = object if x[column].dtype == bool else x[column].dtype
        fewer[column] = pd.Series([None] * len(x), dtype=kind)
    assert (model.log_prob(fewer) >= model.log_prob(x) - 1e-12).all()


@each_fit
def test_draws_are_rows_of_the_table(name, method):
    x, y = MODELS[name].data()
    model = fitted(name, method)
    drawn = model.sample(30, random_state=1)
    if isinstance(drawn, tuple):  # Bayes' rule draws the classes too
        drawn, labels = drawn
    else:
        again, labels = model.sample(30, random_state=1, return_latent=True)
        pd.testing.assert_frame_equal(again, drawn)
    assert labels.shape == (30,)
    if MODELS[name].classifier:
        assert set(labels) <= set(y)
    assert list(drawn.columns) == list(x.columns)
    assert (drawn.dtypes == x.dtypes).all()
    assert np.isfinite(model.log_prob(drawn)).all()


@each_fit
def test_probabilities_and_predictions_agree(name, method):
    x, y = MODELS[name].data()
    model = fitted(name, method)
    probabilities = model.predict_proba(x)
    assert type(probabilities) is np.ndarray
    assert (probabilities >= 0.0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)
    best = probabilities.argmax(axis=1)
    if MODELS[name].classifier:
        np.testing.assert_array_equal(model.predict(x), model.classes_[best])
        np.testing.assert_allclose(
            np.exp(model.predict_log_proba(x)), probabilities, rtol=1e-9, atol=1e-12
        )
        total = logsumexp([model.log_prob(x, np.full(len(x), c)) for c in model.classes_], axis=0)
        np.testing.assert_allclose(total, model.log_prob(x), rtol=1e-10)
        assert model.score(x, y) > 0.5
    else:
        np.testing.assert_array_equal(model.predict(x), best)
        assert model.score(x) == pytest.approx(model.log_prob(x).mean())


@pytest.mark.parametrize(("name", "method"), WITH_POSTERIOR)
def test_what_is_missing_is_filled_and_the_rest_stays(name, method):
    x, _ = MODELS[name].data()
    model = fitted(name, method)
    for table in (model.impute(x), *model.impute(x, n_draws=2, random_state=0)):
        assert list(table.columns) == list(x.columns)
        assert not table.isna().any().any()
        for column in x.columns:
            seen = x[column].notna()
            assert (table[column][seen] == x[column][seen]).all()


@pytest.mark.parametrize(("name", "method"), WITH_POSTERIOR)
def test_the_posterior_has_the_sites_of_the_program(name, method):
    model = fitted(name, method)
    posterior = model.posterior_
    assert isinstance(posterior, Posterior)
    assert posterior.method == method
    assert posterior.is_point == (method == "em")
    assert "weights" in posterior.draws
    assert all(type(value) is np.ndarray for value in posterior.draws.values())
    kind = "class" if MODELS[name].classifier else "component"
    table = posterior.summary()
    assert any(str(label).startswith("weights[") for label in table.index)
    assert ("r_hat" in table.columns) == (method == "nuts")
    assert kind in posterior.idata.posterior["weights"].dims
    if MODELS[name].classifier:
        labels = posterior.idata.posterior["weights"].coords["class"].values
        assert labels.tolist() == model.classes_.tolist()
    assert model.program().name == posterior.model.name


@pytest.mark.parametrize(("name", "method"), MIXTURES)
def test_the_programs_likelihood_is_log_prob(name, method):
    """Two ways to one number: the program on JAX, draw by draw, and the fitted model on NumPy."""
    x, _ = MODELS[name].data()
    model = fitted(name, method)
    terms = model.posterior_.log_likelihood()["x"]  # (chains, draws, rows)
    averaged = logsumexp(terms.reshape(-1, len(x)), axis=0) - np.log(terms[..., 0].size)
    np.testing.assert_allclose(averaged, model.log_prob(x), rtol=1e-9)


@pytest.mark.parametrize(("name", "method"), MIXTURES)
def test_classify_is_predict_proba(name, method):
    x, _ = MODELS[name].data()
    model = fitted(name, method)
    posterior = model.posterior_
    found = ppl_gen.classify(posterior, "z", x=posterior.kwargs["x"])
    np.testing.assert_allclose(found, model.predict_proba(x), rtol=1e-8, atol=1e-12)


@each_fit
def test_a_saved_model_is_the_same(name, method, tmp_path):
    x, _ = MODELS[name].data()
    model = fitted(name, method)
    model.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    assert repr(loaded) == repr(model)
    np.testing.assert_array_equal(loaded.log_prob(x), model.log_prob(x))
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))
    assert_same(loaded.sample(9, random_state=2), model.sample(9, random_state=2))
    for attribute, value in vars(model).items():
        if attribute.endswith("_") and isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(loaded, attribute), value)
    if name != "bayes_classifier":
        for site, draws in model.posterior_.draws.items():
            np.testing.assert_array_equal(loaded.posterior_.draws[site], draws)
        pd.testing.assert_frame_equal(loaded.posterior_.summary(), model.posterior_.summary())
    with pytest.raises(FileExistsError, match="overwrite"):
        model.save(tmp_path / "model")


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    else:
        np.testing.assert_array_equal(found, expected)


@each_fit
def test_scores_do_not_depend_on_where_they_are_asked_for(name, method):
    """The same in this thread, in another, and inside an engine's context of another precision."""
    x, _ = MODELS[name].data()
    model = fitted(name, method)

    def ask() -> list[np.ndarray]:
        return [model.log_prob(x), model.predict_proba(x)]

    expected, found = ask(), []
    thread = threading.Thread(target=lambda: found.extend(ask()))
    thread.start()
    thread.join()
    for engine_name in ("numpyro", "pyro"):
        with engines.get(engine_name).precision("float32", device="cpu"):
            found.extend(ask())
    for place, value in enumerate(found):
        np.testing.assert_array_equal(value, expected[place % 2])


@pytest.mark.parametrize("name", MODELS)
def test_an_unfitted_model_says_so(name, tmp_path):
    x, _ = MODELS[name].data()
    model = MODELS[name].make(None)
    asks = [
        lambda: model.log_prob(x),
        lambda: model.predict_proba(x),
        lambda: model.predict(x),
        lambda: model.sample(),
        lambda: model.save(tmp_path / "model"),
    ]
    if name != "bayes_classifier":
        asks += [lambda: model.impute(x), lambda: model.posterior_, lambda: model.program()]
    for ask in asks:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            ask()
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", MODELS)
def test_another_table_is_refused(name):
    x, _ = MODELS[name].data()
    model = fitted(name, "em")
    with pytest.raises(ValueError, match="feature names should match"):
        model.log_prob(x[x.columns[::-1]])
    with pytest.raises(ValueError, match="feature"):
        model.log_prob(x.iloc[:, 1:])
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict_proba(x.rename(columns={x.columns[0]: "other"}))


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_the_same_fit(name):
    x, y = MODELS[name].data()
    model = MODELS[name].make(METHODS["em"])
    model = model.fit(x, y) if MODELS[name].classifier else model.fit(x)
    np.testing.assert_array_equal(model.log_prob(x), fitted(name, "em").log_prob(x))


@pytest.mark.parametrize("name", [n for n in MODELS if n != "bayes_classifier"])
@pytest.mark.parametrize("method", ["gibbs", "EM!", 3, EM])
def test_a_method_that_there_is_not(name, method):
    x, y = MODELS[name].data()
    model = MODELS[name].make(method)
    with pytest.raises((ValueError, TypeError), match="method: "):
        model.fit(x, y)


@pytest.mark.parametrize("name", [n for n in MODELS if n != "bayes_classifier"])
def test_weights_are_for_em(name):
    x, y = MODELS[name].data()
    for method in ("svi", "nuts"):
        with pytest.raises(ValueError, match="sample_weight is for EM"):
            MODELS[name].make(METHODS[method]).fit(x, y, sample_weight=np.ones(len(x)))


@pytest.mark.parametrize("name", [n for n in MODELS if n != "bayes_classifier"])
def test_point_estimates_have_no_loo(name):
    with pytest.raises(ValueError, match=r"loo.*(draws|NUTS)"):
        fitted(name, "em").posterior_.loo()
