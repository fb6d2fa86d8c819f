"""THE contract of every model. A new one joins by one line of `MODELS` in tests/model_members.py.

Each model is fitted once by each of its methods (a few draws, a few steps: what is held here does
not depend on their number), and all tests look at those fits. Models of rows have a density a row
of their table; models of sequences, one a table of their list.
"""

import copy
import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from model_members import CASES, METHODS, MODELS
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import ppl_gen
from ppl_gen import EM, engines
from ppl_gen.posterior import Posterior

# A whole generative model has a posterior; a rule over several models has one in each.
RULES = ("bayes_classifier", "bayes_classifier_of_sequences")


def cases_of(chosen: Callable[[str], bool]) -> Any:
    """Fits of the models that are chosen by name."""
    return pytest.mark.parametrize(
        ("name", "method"), [case for case in CASES if chosen(case.values[0])]
    )


each_fit = cases_of(lambda name: True)
with_posterior = cases_of(lambda name: name not in RULES)
each_model = pytest.mark.parametrize("name", MODELS)
each_whole_model = pytest.mark.parametrize("name", [name for name in MODELS if name not in RULES])

# -- rows and sequences ----------------------------------------------------------------------------


def parts(x: Any) -> list[Any]:
    """Tables of the data: the one there is, or one a sequence."""
    return x if isinstance(x, list) else [x]


def each(x: Any, change: Callable[[Any], Any]) -> Any:
    """Data whose every table is changed."""
    return [change(table) for table in x] if isinstance(x, list) else change(x)


def item(x: Any, place: int) -> Any:
    """What has a density of its own: a row, or a sequence."""
    return [x[place]] if isinstance(x, list) else x.iloc[[place]]


def by_step(said: Any) -> np.ndarray:
    """What is said of each row, those of all sequences one after another."""
    return np.concatenate(said) if isinstance(said, list) else said


# -- the fits --------------------------------------------------------------------------------------


def fit(name: str, model: Any) -> Any:
    x, y = MODELS[name].data()
    return model.fit(x, y) if MODELS[name].classifier else model.fit(x)


def fit_anew(name: str, method: str) -> Any:
    with warnings.catch_warnings():
        # So few draws and steps have every reason to be warned of.
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        return fit(name, MODELS[name].make(METHODS[method]))


_fitted = functools.cache(fit_anew)


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
    if MODELS[name].tables and name not in RULES[1:]:  # that one asks its models for all
        table = parts(MODELS[name].data()[0])[0]
        assert model.n_features_in_ == table.shape[1]
        assert list(model.feature_names_in_) == list(table.columns)


@each_fit
def test_fitted_attributes_are_numpy(name, method):
    model = fitted(name, method)
    plain = (np.ndarray, np.generic, int, float, str, bool, list, tuple, dict, Posterior)
    plain = (*plain, pd.DataFrame, type(None))
    for attribute, value in vars(model).items():
        if attribute.endswith("_") and attribute not in ("schema_", "structure_"):
            assert isinstance(value, plain), attribute


@each_fit
def test_log_prob_is_one_number_a_row_or_sequence(name, method):
    x, _ = MODELS[name].data()
    model = fitted(name, method)
    found = model.log_prob(x)
    assert type(found) is np.ndarray
    assert found.shape == (len(x),)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert model.density == MODELS[name].density
    if model.density == "exact":  # estimates are by other draws in another grouping
        few = min(len(x), 8)
        np.testing.assert_allclose(
            [model.log_prob(item(x, place))[0] for place in range(few)],
            found[:few],
            rtol=MODELS[name].rounding,
        )
    if hasattr(model, "score_samples") and not isinstance(x, list):
        np.testing.assert_array_equal(model.score_samples(x), found)


@cases_of(lambda name: MODELS[name].tables and MODELS[name].missing)
def test_forgetting_a_category_never_lowers_the_mass(name, method):
    """Marginals are consistent: a sum over categories is at least each of its terms."""
    x, _ = MODELS[name].data()
    model = fitted(name, method)

    def forgotten(table: pd.DataFrame) -> pd.DataFrame:
        fewer = table.copy()
        for column in table.columns[[dtype.kind not in "fi" for dtype in table.dtypes]]:
            kind = object if table[column].dtype == bool else table[column].dtype
            fewer[column] = pd.Series([None] * len(table), dtype=kind)
        return fewer

    assert (model.log_prob(each(x, forgotten)) >= model.log_prob(x) - 1e-12).all()


@cases_of(lambda name: MODELS[name].tables and name not in RULES[1:])
def test_draws_are_rows_of_the_table(name, method):
    x, y = MODELS[name].data()
    model = fitted(name, method)
    drawn = model.sample(30, random_state=1)
    if isinstance(drawn, tuple):  # Bayes' rule draws the classes too, as hmmlearn draws states
        drawn, labels = drawn
        if not MODELS[name].classifier:
            alone = model.sample(30, random_state=1, return_latent=False)
            pd.testing.assert_frame_equal(alone, drawn)
    elif not MODELS[name].latents:
        labels = np.zeros((30, *MODELS[name].latent))
    else:
        again, labels = model.sample(30, random_state=1, return_latent=True)
        pd.testing.assert_frame_equal(again, drawn)
    assert labels.shape == (30, *MODELS[name].latent)
    if MODELS[name].classifier:
        assert set(labels) <= set(y)
    table = parts(x)[0]
    assert list(drawn.columns) == list(table.columns)
    assert (drawn.dtypes == table.dtypes).all()
    assert np.isfinite(model.log_prob(drawn)).all()


@cases_of(lambda name: MODELS[name].classes)
def test_probabilities_and_predictions_agree(name, method):
    x, y = MODELS[name].data()
    model = fitted(name, method)
    arranged = model.predict_proba(x)
    if isinstance(arranged, list):
        assert [len(part) for part in arranged] == [len(table) for table in x]
    probabilities = by_step(arranged)
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
        assert model.score(x, y) > (0.2 if MODELS[name].deep else 0.5)  # after a few steps
    else:
        np.testing.assert_array_equal(by_step(model.predict(x)), best)
        total = np.sum if isinstance(x, list) else np.mean  # hmmlearn's manner, scikit-learn's
        assert model.score(x) == pytest.approx(total(model.log_prob(x)))


@cases_of(lambda name: MODELS[name].tables and MODELS[name].missing and name not in RULES)
def test_what_is_missing_is_filled_and_the_rest_stays(name, method):
    x, _ = MODELS[name].data()
    model = fitted(name, method)
    for filled in (model.impute(x), *model.impute(x, n_draws=2, random_state=0)):
        for table, given in zip(parts(filled), parts(x), strict=True):
            assert list(table.columns) == list(given.columns)
            assert not table.isna().any().any()
            for column in given.columns:
                seen = given[column].notna().to_numpy()
                assert (table[column][seen].to_numpy() == given[column][seen].to_numpy()).all()


@with_posterior
def test_the_posterior_has_the_sites_of_the_program(name, method):
    model = fitted(name, method)
    posterior = model.posterior_
    assert isinstance(posterior, Posterior)
    assert posterior.method == method
    assert posterior.is_point == (MODELS[name].deep or method == "em")
    assert all(type(value) is np.ndarray for value in posterior.draws.values())
    assert model.program().name == posterior.model.name
    if MODELS[name].deep:  # sites are weights
        return
    site, axis = MODELS[name].site
    assert site in posterior.draws
    table = posterior.summary()
    assert any(str(label).startswith(f"{site}[") for label in table.index)
    assert ("r_hat" in table.columns) == (method == "nuts")
    assert axis in posterior.idata.posterior[site].dims
    if MODELS[name].classifier:
        labels = posterior.idata.posterior["weights"].coords["class"].values
        assert labels.tolist() == model.classes_.tolist()


@cases_of(lambda name: MODELS[name].by_item and not MODELS[name].classifier)
def test_the_programs_likelihood_is_log_prob(name, method):
    """Two ways to one number: the program on JAX, draw by draw, and the fitted model on NumPy."""
    x, _ = MODELS[name].data()
    model = fitted(name, method)
    terms = model.posterior_.log_likelihood()["x"]  # (chains, draws, rows or sequences)
    averaged = logsumexp(terms.reshape(-1, len(x)), axis=0) - np.log(terms[..., 0].size)
    rounding = max(1e-9, MODELS[name].rounding)
    np.testing.assert_allclose(averaged, model.log_prob(x), rtol=rounding)


@cases_of(lambda name: MODELS[name].classes and not MODELS[name].classifier)
def test_classify_is_predict_proba(name, method):
    x, _ = MODELS[name].data()
    model = fitted(name, method)
    posterior = model.posterior_
    if isinstance(x, list):  # known again as those that were fitted, of which draws are
        padded = ppl_gen.classify(posterior, "z")
        found = [own[: len(table)] for own, table in zip(padded, x, strict=True)]
    else:
        found = ppl_gen.classify(posterior, "z", x=posterior.kwargs["x"])
    np.testing.assert_allclose(
        by_step(found), by_step(model.predict_proba(x)), rtol=1e-8, atol=1e-12
    )


@each_fit
def test_a_saved_model_is_the_same(name, method, tmp_path):
    x, _ = MODELS[name].data()
    model = fitted(name, method)
    model.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    assert repr(loaded) == repr(model)
    np.testing.assert_array_equal(loaded.log_prob(x), model.log_prob(x))
    if MODELS[name].classes:
        assert_same(loaded.predict_proba(x), model.predict_proba(x))
    assert_same(loaded.sample(9, random_state=2), model.sample(9, random_state=2))
    for attribute, value in vars(model).items():
        if attribute.endswith("_") and isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(loaded, attribute), value)
    if name not in RULES:
        for site, draws in model.posterior_.draws.items():
            np.testing.assert_array_equal(loaded.posterior_.draws[site], draws)
        pd.testing.assert_frame_equal(loaded.posterior_.summary(), model.posterior_.summary())
    with pytest.raises(FileExistsError, match="overwrite"):
        model.save(tmp_path / "model")


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, tuple | list):
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
        if not MODELS[name].classes:
            return [model.log_prob(x)] * 2
        return [model.log_prob(x), by_step(model.predict_proba(x))]

    expected, found = ask(), []
    thread = threading.Thread(target=lambda: found.extend(ask()))
    thread.start()
    thread.join()
    for engine_name in ("numpyro", "pyro"):
        with engines.get(engine_name).precision("float32", device="cpu"):
            found.extend(ask())
    for place, value in enumerate(found):
        np.testing.assert_array_equal(value, expected[place % 2])


@each_model
def test_an_unfitted_model_says_so(name, tmp_path):
    x, _ = MODELS[name].data()
    model = MODELS[name].make(None)
    asks = [
        lambda: model.log_prob(x),
        lambda: model.sample(),
        lambda: model.save(tmp_path / "model"),
    ]
    if MODELS[name].classes:
        asks += [lambda: model.predict_proba(x), lambda: model.predict(x)]
    if name not in RULES:
        asks += [lambda: model.posterior_, lambda: model.program()]
    if MODELS[name].tables and MODELS[name].missing and name not in RULES:
        asks += [lambda: model.impute(x)]
    for ask in asks:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            ask()
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].by_name])
def test_columns_are_found_by_name(name):
    x, _ = MODELS[name].data()
    model = fitted(name, "em")
    np.testing.assert_array_equal(model.log_prob(x[x.columns[::-1]]), model.log_prob(x))
    unknown = x.assign(**{x.columns[0]: None}).astype({x.columns[0]: x.dtypes.iloc[0]})
    np.testing.assert_allclose(model.log_prob(x.iloc[:, 1:]), model.log_prob(unknown), rtol=1e-12)
    with pytest.raises(ValueError, match="'other', which is no node"):
        model.predict_proba(x.rename(columns={x.columns[0]: "other"}))


@pytest.mark.parametrize(
    "name", [name for name, model in MODELS.items() if model.tables and not model.by_name]
)
def test_another_table_is_refused(name):
    x, _ = MODELS[name].data()
    model = fitted(name, MODELS[name].point)
    with pytest.raises(ValueError, match="feature names should match"):
        model.log_prob(each(x, lambda table: table[table.columns[::-1]]))
    with pytest.raises(ValueError, match="feature"):
        model.log_prob(each(x, lambda table: table.iloc[:, 1:]))
    ask = model.predict_proba if MODELS[name].classes else model.log_prob
    with pytest.raises(ValueError, match="feature names should match"):
        ask(each(x, lambda table: table.rename(columns={table.columns[0]: "other"})))


@each_model
def test_the_same_seed_gives_the_same_fit(name):
    x, _ = MODELS[name].data()
    point = MODELS[name].point
    model = fit_anew(name, point)
    np.testing.assert_array_equal(model.log_prob(x), fitted(name, point).log_prob(x))


@each_whole_model
@pytest.mark.parametrize("method", ["gibbs", "EM!", 3, EM])
def test_a_method_that_there_is_not(name, method):
    with pytest.raises((ValueError, TypeError), match="method: "):
        fit(name, MODELS[name].make(method))


@pytest.mark.parametrize(
    "name", [name for name, model in MODELS.items() if name not in RULES and not model.deep]
)
def test_weights_are_for_em(name):
    x, y = MODELS[name].data()
    for method in ("svi", "nuts"):
        with pytest.raises(ValueError, match="sample_weight is for EM"):
            MODELS[name].make(METHODS[method]).fit(x, y, sample_weight=np.ones(len(x)))


@each_whole_model
def test_point_estimates_have_no_loo(name):
    with pytest.raises(ValueError, match=r"loo.*(draws|NUTS)"):
        fitted(name, MODELS[name].point).posterior_.loo()
