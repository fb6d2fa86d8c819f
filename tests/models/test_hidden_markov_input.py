"""Input that a hidden Markov model cannot take is refused by name, before any work."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hidden_markov_cases import EMISSIONS, em, model_of, rows_of
from sklearn.exceptions import NotFittedError

from ppl_gen import EM, NUTS, SVI, HiddenMarkovModel

ROWS = rows_of("gaussian-diag", 20)
COUNTS = rows_of("poisson", 20)
CODES = rows_of("categorical", 20)


def table(*columns):
    return pd.DataFrame(ROWS[:10, : len(columns)], columns=columns)


def with_value(rows, value):
    changed = rows.copy()
    changed[3, 0] = value
    return changed


#: What is given to fit, and what is said: model settings, X, other arguments, message.
REFUSED = {
    "lengths that do not sum": ({}, ROWS, {"lengths": [10, 9]}, "lengths sum to 19.*20 rows"),
    "lengths that are too long": ({}, ROWS, {"lengths": [30]}, "lengths sum to 30.*20 rows"),
    "an empty sequence": ({}, ROWS, {"lengths": [10, 0, 10]}, "sequence 1 has length 0"),
    "a negative length": ({}, ROWS, {"lengths": [30, -10]}, "sequence 1 has length -10"),
    "lengths in parts": ({}, ROWS, {"lengths": [9.5, 10.5]}, "lengths is .*whole numbers"),
    "lengths of lengths": ({}, ROWS, {"lengths": [[10], [10]]}, "lengths is .*one a sequence"),
    "no lengths": ({}, ROWS, {"lengths": []}, "lengths|no sequence"),
    "lengths of a list": ({}, [ROWS, ROWS], {"lengths": [20, 20]}, "list of 2.*leave lengths out"),
    "lengths of a stack": ({}, ROWS.reshape(4, 5, 2), {"lengths": [5] * 4}, "leave lengths out"),
    "an empty list": ({}, [], {}, "X has no sequence"),
    "nothing": ({}, None, {}, "X is None; expected a list of"),
    "a dict": ({}, {"a": [1.0, 2.0]}, {}, "X is a dict; expected a list of"),
    "a generator": ({}, (row for row in ROWS), {}, "X is a generator; expected a list of"),
    "arrays in an array": (
        {},
        np.array([ROWS[:5], ROWS[5:], None], object)[:2, None],
        {},
        r"shape \(2, 1\) that holds arrays; expected a list",
    ),
    "names for lengths": ({}, ROWS, {"lengths": ["a"] * 20}, "lengths is .*known states.*y="),
    "states of a list": ({}, [ROWS, ROWS], {"lengths": [[0] * 20] * 2}, "list of 2.*y="),
    "states for lengths": ({}, ROWS, {"lengths": [0, 1] * 10}, "20 rows.*known states.*y="),
    "an empty sequence in a list": ({}, [ROWS, ROWS[:0]], {}, "sequence 1 has length 0"),
    "no rows": ({}, ROWS[:0], {}, "length 0"),
    "other widths": ({}, [ROWS, ROWS[:, :1]], {}, "sequence 0 has 2 columns.*sequence 1 has 1"),
    "other columns": ({}, [table("a", "b"), table("a", "c")], {}, "different columns"),
    "frames and arrays": (
        {},
        [table("a", "b"), ROWS],
        {},
        "sequence 0 is a DataFrame, but sequence 1 a ndarray",
    ),
    "arrays and frames": (
        {},
        [ROWS, table("a", "b")],
        {},
        "sequence 0 is a ndarray, but sequence 1 a DataFrame",
    ),
    "four axes": ({}, np.zeros((2, 2, 2, 2)), {}, "dim 4"),
    "strings": ({}, np.array([["a"], ["b"]] * 10), {}, "string|number|convert"),
    "infinite values": ({}, with_value(ROWS, np.inf), {}, "infinity"),
    "all missing": ({}, np.full((10, 2), np.nan), {}, "missing|NaN"),
    "a column all missing": (
        {},
        np.column_stack([ROWS[:, 0], np.full(20, np.nan)]),
        {},
        "missing|NaN",
    ),
    "no labels": ({}, ROWS, {"y": [0, 1]}, "y has 2 states, but X has 20 steps"),
    "labels out of range": ({}, ROWS, {"y": [3] * 20}, "states from 3 to 3; expected 0 to 2"),
    "negative labels": ({}, ROWS, {"y": [-2] * 20}, "states from -2"),
    "labels in parts": ({}, ROWS, {"y": [0.5] * 20}, "no states"),
    "missing labels": ({}, ROWS, {"y": [np.nan] * 20}, "NaN.*mark.*-1"),
    "labels of names": ({}, ROWS, {"y": ["a"] * 20}, "no states, such as"),
    "labels in other parts": (
        {},
        [ROWS[:10], ROWS[10:]],
        {"y": [np.zeros(5, int), np.zeros(15, int)]},
        r"sequences of \[5, 15\] states, but X of \[10, 10\] steps",
    ),
    "labels of sequences in other parts": (
        {},
        ROWS,
        {"lengths": [10, 10], "y": [np.zeros(5, int), np.zeros(15, int)]},
        r"sequences of \[5, 15\] states, but X of \[10, 10\] steps",
    ),
    "labels of a stack the other way": (
        {},
        ROWS.reshape(4, 5, 2),
        {"y": np.zeros((5, 4), int)},
        r"sequences of \[4, 4, 4, 4, 4\] states, but X of \[5, 5, 5, 5\]",
    ),
    "labels that are text": ({}, ROWS, {"y": ["0", "1"] * 10}, "no states, such as .*0"),
    "weights of rows": ({}, ROWS, {"sample_weight": np.ones(20)}, "sample_weight"),
    "negative weights": (
        {},
        ROWS,
        {"lengths": [10, 10], "sample_weight": [1.0, -1.0]},
        "[Nn]egative",
    ),
    "no weight at all": (
        {},
        ROWS,
        {"lengths": [10, 10], "sample_weight": [0.0, 0.0]},
        "weight",
    ),
    "no states": ({"n_components": 0}, ROWS, {}, "n_components is 0"),
    "states in parts": ({"n_components": 2.0}, ROWS, {}, "n_components is 2.0"),
    "more states than rows": (
        {"n_components": 30},
        ROWS,
        {},
        "n_components is 30, but X has 20 steps",
    ),
    "an unknown emission": ({"emission": "normals"}, ROWS, {}, "emission is 'normals'; expected"),
    "an unknown covariance": ({"covariance_type": "round"}, ROWS, {}, "round"),
    "no components of mixtures": ({"emission": "gmm", "n_mix": 0}, ROWS, {}, "n_components|n_mix"),
    "an unknown algorithm": ({"algorithm": "best"}, ROWS, {}, "algorithm is 'best'; expected"),
    "unknown letters to start": ({"init_params": "stx"}, ROWS, {}, r"init_params has letters"),
    "unknown letters to learn": ({"params": "q"}, ROWS, {}, r"params has letters \['q'\]"),
    "a negative prior": ({"transmat_prior": -1.0}, ROWS, {}, "transmat_prior must be positive"),
    "a prior of names": ({"startprob_prior": "a"}, ROWS, {}, "startprob_prior is 'a'; expected"),
    "an endless prior": ({"startprob_prior": np.inf}, ROWS, {}, "startprob_prior must be .*finite"),
    "a prior of other states": ({"startprob_prior": np.ones(4)}, ROWS, {}, r"\(4,\); expected"),
    "negative stickiness": ({"stickiness": -1.0}, ROWS, {}, "stickiness is -1.0"),
    "stickiness of a name": ({"stickiness": "a"}, ROWS, {}, "stickiness is 'a'; expected a number"),
    "no stickiness": ({"stickiness": None}, ROWS, {}, "stickiness is None; expected a number"),
    "endless stickiness": ({"stickiness": np.inf}, ROWS, {}, "stickiness is inf; expected"),
    "no letters to start": ({"init_params": None}, ROWS, {}, "init_params is None; expected a str"),
    "a mask of other states": ({"transmat_mask": np.ones((2, 2))}, ROWS, {}, r"\(2, 2\); expected"),
    "a mask with no way on": (
        {"transmat_mask": np.diag([1, 0, 1])},
        ROWS,
        {},
        "nothing follow state 1",
    ),
    "a mask of numbers": (
        {"transmat_mask": np.full((3, 3), 0.5)},
        ROWS,
        {},
        "transmat_mask has values such as 0.5; expected .* of True",
    ),
    "negative variance": ({"min_covar": -1.0}, ROWS, {}, "min_covar is -1.0; expected"),
    "negative counts": ({"emission": "poisson"}, with_value(COUNTS, -1.0), {}, "Negative"),
    "counts in parts": ({"emission": "poisson"}, with_value(COUNTS, 1.5), {}, "not whole"),
    "negative shares": ({"emission": "multinomial"}, with_value(COUNTS, -1.0), {}, "Negative"),
    "shares missing": ({"emission": "multinomial"}, with_value(COUNTS, np.nan), {}, "NaN"),
    "codes in parts": ({"emission": "categorical"}, with_value(CODES, 0.5), {}, "not whole"),
    "more than yes and no": ({"emission": "bernoulli"}, with_value(CODES, 2.0), {}, "0 and 1 only"),
    "a method there is not": ({"inference": "gibbs"}, ROWS, {}, "gibbs"),
    "a type there is not": ({"dtype": "int32"}, ROWS, {}, "dtype is 'int32'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_fit_refuses(case):
    settings, X, arguments, message = REFUSED[case]
    model = HiddenMarkovModel(**{"n_components": 3, "random_state": 0, **settings})
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(X, **arguments)
    with pytest.raises(NotFittedError):  # nothing is left half done
        model.log_prob(ROWS)


PRESETS = {
    "startprob_": np.full(3, 1.0 / 3.0),
    "transmat_": np.full((3, 3), 1.0 / 3.0),
    "means_": np.zeros((3, 2)),
    "covars_": np.ones((3, 2)),
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("startprob_", [0.5, 0.2, 0.2], "startprob_ must be probabilities that sum to 1"),
        ("startprob_", [1.5, -0.5, 0.0], "startprob_ must be probabilities"),
        ("startprob_", [0.5, 0.5], r"startprob_ has shape \(2,\); expected \(3,\)"),
        ("transmat_", np.ones((3, 3)), "transmat_ must be probabilities.*every row"),
        ("transmat_", np.full((3, 3), np.nan), "transmat_ .*finite"),
        ("transmat_", np.eye(2), r"transmat_ has shape \(2, 2\); expected \(3, 3\)"),
        ("means_", np.zeros((3, 1)), r"means_ has shape \(3, 1\); expected \(3, 2\)"),
        ("means_", np.full((3, 2), np.inf), "means_ .*finite"),
        ("means_", [["a", "b"]] * 3, "means_ is .*; expected an array of numbers"),
        ("covars_", "wide", "covars_ is 'wide'; expected an array of numbers"),
        ("covars_", np.ones(3), r"covars_ has shape \(3,\); expected \(3, 2\)"),
        ("covars_", np.zeros((3, 2)), "covars_ must be positive"),
        ("covars_", np.full((3, 2), np.nan), "covars_"),
    ],
)
def test_presets_that_are_no_parameters(name, value, message):
    model = HiddenMarkovModel(3, init_params="")
    for preset, given in PRESETS.items():
        setattr(model, preset, given)
    setattr(model, name, value)
    with pytest.raises(ValueError, match=message):
        model.fit(ROWS)


@pytest.mark.parametrize(
    ("settings", "names", "message"),
    [
        ({"covariance_type": "full"}, {"covars_": -np.stack([np.eye(2)] * 3)}, "definite"),
        (
            {"covariance_type": "full"},
            {"covars_": np.stack([[[1.0, 0.5], [0.0, 1.0]]] * 3)},
            "symmetric",
        ),
        ({"covariance_type": "tied"}, {"covars_": np.zeros((2, 2))}, "definite"),
        ({"emission": "poisson"}, {"lambdas_": -np.ones((3, 2))}, "lambdas_ has negative"),
        ({"emission": "poisson"}, {"lambdas_": np.ones(3)}, "lambdas_ has shape"),
        ({"emission": "gmm", "n_mix": 2}, {"weights_": np.ones((3, 2))}, "weights_ must be"),
        ({"emission": "gmm", "n_mix": 2}, {"means_": np.ones((3, 2))}, "means_ has shape"),
        (
            {"transmat_mask": np.triu(np.ones((3, 3)))},
            {"transmat_": np.full((3, 3), 1 / 3)},
            "transmat_mask forbids",
        ),
    ],
)
def test_presets_that_do_not_fit_the_model(settings, names, message):
    rows = COUNTS if settings.get("emission") == "poisson" else ROWS
    model = HiddenMarkovModel(3, init_params="", **settings)
    for name, value in names.items():
        setattr(model, name, value)
    with pytest.raises(ValueError, match=message):
        model.fit(rows)


def test_symbols_that_were_not_seen():
    model = model_of("categorical", inference=em(3)).fit(CODES)
    for ask in (model.log_prob, model.predict, model.predict_proba, model.filter, model.impute):
        with pytest.raises(ValueError, match=r"code.*(4|9)"):
            ask(np.array([[1.0], [9.0]]))
    labelled = pd.DataFrame({"kind": pd.Categorical(list("abcab"))})
    model = HiddenMarkovModel(2, "categorical", random_state=0, inference=em(3)).fit(labelled)
    with pytest.raises(ValueError, match=r"'z'|unseen|not seen|categories"):
        model.log_prob(pd.DataFrame({"kind": pd.Categorical(["a", "z"])}))


def test_labels_that_no_path_explains():
    labels = np.full(20, -1)
    labels[3:5] = 2, 0
    model = HiddenMarkovModel(3, transmat_mask=np.triu(np.ones((3, 3))), random_state=0)
    with pytest.raises(ValueError, match=r"sequence 0 .*probability zero.*allow more transitions"):
        model.fit(ROWS, y=labels)
    numbered = np.full(20, -1)
    numbered[13:15] = 2, 0
    with pytest.raises(ValueError, match=r"sequence 1 has probability zero"):
        model.fit(ROWS, [10, 10], y=numbered)


def test_labels_are_for_em():
    for method in (SVI(steps=2), NUTS(chains=1, warmup=2, draws=2)):
        with pytest.raises(ValueError, match="y is for EM"):
            HiddenMarkovModel(2, inference=method).fit(ROWS, y=[0] * 20)
        with pytest.raises(ValueError, match="sample_weight is for EM"):
            HiddenMarkovModel(2, inference=method).fit(ROWS, sample_weight=[1.0])


@pytest.mark.parametrize("method", [SVI(steps=2), NUTS(chains=1, warmup=2, draws=2)])
def test_parts_of_emissions_are_held_by_em_only(method):
    with pytest.raises(ValueError, match=r"params leaves .* as they are.*EM does that"):
        HiddenMarkovModel(2, params="stm", inference=method, random_state=0).fit(ROWS)


@pytest.fixture(scope="module")
def fitted():
    return model_of("gaussian-diag", inference=em(5)).fit(ROWS)


def test_what_is_asked_of_nobody():
    model = HiddenMarkovModel(2)
    asks = [
        lambda: model.log_prob(ROWS),
        lambda: model.predict(ROWS),
        lambda: model.predict_proba(ROWS),
        lambda: model.decode(ROWS),
        lambda: model.filter(ROWS),
        lambda: model.sample(),
        lambda: model.impute(ROWS),
        lambda: model.sample_states(ROWS),
        lambda: model.aic(ROWS),
        lambda: model.n_free_parameters(),
        lambda: model.stationary_distribution(),
        lambda: model.to_hmmlearn(),
        lambda: model.posterior_,
        lambda: model.program(),
    ]
    for ask in asks:
        with pytest.raises(NotFittedError):
            ask()


@pytest.mark.parametrize("n", [0, -1, 2.5, None])
def test_draws_of_nothing(fitted, n):
    with pytest.raises(ValueError, match=f"n_samples is {n}"):
        fitted.sample(n)


@pytest.mark.parametrize("state", [3, -1, 0.5, "a"])
def test_draws_from_a_state_there_is_not(fitted, state):
    with pytest.raises(ValueError, match=f"currstate is {state!r}; expected a state"):
        fitted.sample(2, currstate=state)


@pytest.mark.parametrize("ask", ["sample_states", "impute"])
@pytest.mark.parametrize("n", [0, -2, 1.5])
def test_no_draws(fitted, ask, n):
    with pytest.raises(ValueError, match="n_draws"):
        getattr(fitted, ask)(ROWS, n_draws=n)


def test_ways_to_decode(fitted):
    with pytest.raises(ValueError, match=r"decode: algorithm is 'forward'; expected"):
        fitted.decode(ROWS, algorithm="forward")


@pytest.mark.parametrize("ask", ["log_prob", "score", "predict", "predict_proba", "filter", "aic"])
def test_what_a_fitted_model_refuses(fitted, ask):
    method = getattr(fitted, ask)
    with pytest.raises(ValueError, match="lengths sum to 7"):
        method(ROWS, lengths=[3, 4])
    with pytest.raises(ValueError, match="feature"):
        method(ROWS[:, :1])
    with pytest.raises(ValueError, match="infinity"):
        method(with_value(ROWS, np.inf))
    with pytest.raises(ValueError, match="sequence 0 has length 0"):
        method([ROWS[:0], ROWS])


def test_a_table_in_place_of_an_array():
    model = HiddenMarkovModel(2, inference=em(2), random_state=0).fit(table("a", "b"))
    with pytest.raises(ValueError, match="feature names"):
        model.log_prob(table("b", "a"))
    with pytest.raises(ValueError, match="feature names"):
        model.predict([table("a", "c"), table("a", "c")])


def test_settings_are_read_at_fit():
    """Constructors store what they are given: nothing is checked, and nothing copied."""
    mask = np.zeros((2, 2))
    model = HiddenMarkovModel(-1, "what", transmat_mask=mask, params="?")
    assert model.transmat_mask is mask


@pytest.mark.parametrize("emission", EMISSIONS)
def test_a_single_row_is_a_sequence(emission):
    rows = rows_of(emission, 30)
    model = model_of(emission, n_states=1, inference=em(3)).fit(rows)
    assert model.predict(rows[:1]).tolist() == [0]
    assert np.isfinite(model.log_prob(rows[:1])).all()
    assert model.predict_proba(rows[:1]).tolist() == [[1.0]]


def test_warnings_of_constant_columns():
    rows = np.column_stack([ROWS[:, 0], np.ones(20)])
    with pytest.warns(RuntimeWarning, match="constant"):
        HiddenMarkovModel(2, inference=em(2), random_state=0).fit(rows)


def test_engines_and_what_they_cannot_take():
    with pytest.raises(ValueError, match="engine"):
        HiddenMarkovModel(2, inference=EM(engine="fortran")).fit(ROWS)


def test_outliers_are_no_error():
    """hmmlearn's scaling fails with underflow here, at one step of all states' far tails."""
    rows = ROWS.copy()
    rows[7] = 1e4
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*died.*")
        model = HiddenMarkovModel(2, random_state=0, inference=em(5)).fit(rows)
    plain = HiddenMarkovModel(2, random_state=0, inference=em(5)).fit(ROWS)
    for either in (model, plain):
        assert np.isfinite(either.log_prob(rows)).all()
        np.testing.assert_allclose(either.predict_proba(rows).sum(axis=1), 1.0)


def test_known_states_in_any_arrangement():
    states = np.arange(20) % 2
    alike = [
        {"X": ROWS, "lengths": [10, 10], "y": states},
        {"X": ROWS, "lengths": [10, 10], "y": states[:, None]},
        {"X": ROWS, "lengths": [10, 10], "y": [states[:10], states[10:]]},
        {"X": ROWS.reshape(2, 10, 2), "y": states.reshape(2, 10)},
        {"X": [ROWS[:10], ROWS[10:]], "y": states.reshape(2, 10)},
    ]
    fits = [HiddenMarkovModel(2, random_state=0, inference=em(2)).fit(**data) for data in alike]
    for fit in fits[1:]:
        np.testing.assert_array_equal(fit.means_, fits[0].means_)
