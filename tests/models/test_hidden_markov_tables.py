"""How sequences come to hidden Markov models, go back, and what EM makes of them."""

import warnings

import numpy as np
import pandas as pd
import polars
import pytest
from hidden_markov_cases import (
    EMISSIONS,
    MASKS,
    chain_of_states,
    em,
    log_emission,
    model_of,
    rows_of,
    with_holes,
)
from scipy.special import logsumexp
from sklearn.model_selection import GridSearchCV, cross_val_score

import ppl_gen
from ppl_gen import EM, HiddenMarkovModel, Poisson


@pytest.fixture(autouse=True)
def no_warnings_of_small_samples():
    """A few rows for every state: some die, or have a constant column, for good reasons."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*components died.*")
        yield


# -- how sequences come ----------------------------------------------------------------------------


def stacked():
    return with_holes(rows_of("gaussian-diag", 120), "gaussian-diag").reshape(4, 30, 2)


def test_arrangements_say_the_same():
    X = stacked()
    flat, lengths, listed = X.reshape(-1, 2), [30] * 4, list(X)
    rows = model_of("gaussian-diag", inference=em(10)).fit(flat, lengths)
    for other in (X, listed, [x.tolist() for x in X], tuple(listed)):
        model = model_of("gaussian-diag", inference=em(10)).fit(other)
        np.testing.assert_array_equal(model.means_, rows.means_)
        np.testing.assert_array_equal(model.log_prob(other), rows.log_prob(flat, lengths))
    shares, states = rows.predict_proba(flat, lengths), rows.predict(flat, lengths)
    assert shares.shape == (120, 3)
    assert rows.predict_proba(X).shape == (4, 30, 3)
    assert rows.predict(X).shape == (4, 30)
    np.testing.assert_array_equal(rows.predict_proba(X).reshape(-1, 3), shares)
    each = rows.predict_proba(listed)
    assert [x.shape for x in each] == [(30, 3)] * 4
    np.testing.assert_array_equal(np.concatenate(each), shares)
    np.testing.assert_array_equal(np.concatenate(rows.predict(listed)), states)
    assert rows.impute(X).shape == X.shape
    assert [x.shape for x in rows.filter(listed)] == [(30, 3)] * 4
    assert [p.shape for p in rows.sample_states(X, n_draws=2)] == [(4, 30)] * 2


def test_sequences_of_unequal_lengths_in_an_array_of_objects():
    rows = rows_of("gaussian-diag", 60)
    ragged = np.empty(2, dtype=object)
    ragged[:] = [rows[:40], rows[40:]]
    model = model_of("gaussian-diag", inference=em(3)).fit(ragged)
    same = model_of("gaussian-diag", inference=em(3)).fit(rows, [40, 20])
    np.testing.assert_array_equal(model.means_, same.means_)
    assert [len(states) for states in model.predict(ragged)] == [40, 20]


def test_columns_of_one_come_as_series():
    x = rows_of("poisson", 60)[:, 0]
    column = model_of("poisson", inference=em(5)).fit(x[:, None])
    for other in (x, pd.Series(x)):
        model = model_of("poisson", inference=em(5)).fit(other)
        np.testing.assert_array_equal(model.lambdas_, column.lambdas_)
    several = model_of("poisson", inference=em(5)).fit([x[:40], x[40:]])
    rows = model_of("poisson", inference=em(5)).fit(x, [40, 20])
    np.testing.assert_array_equal(several.lambdas_, rows.lambdas_)


def table(n=120):
    rng = np.random.default_rng(2)
    z = chain_of_states(rng, n, 2)
    frame = pd.DataFrame(
        {
            "level": 5.0 * z + rng.normal(size=n),
            "kind": pd.Categorical(np.array(["a", "b", "c"])[(z + (rng.random(n) < 0.2)) % 3]),
            "count": rng.poisson(1 + 6 * z),
            "yes": rng.random(n) < 0.2 + 0.6 * z,
        }
    )
    frame.loc[3, "level"] = np.nan
    frame.loc[5, "kind"] = None
    return frame, z


MIXED = {"level": "normal", "kind": "categorical", "count": "poisson", "yes": "bernoulli"}


@pytest.mark.parametrize("emission", ["auto", "dict"])
def test_tables_of_mixed_columns(emission):
    frame, z = table()
    spec = MIXED if emission == "dict" else "auto"
    model = HiddenMarkovModel(2, spec, random_state=0).fit(frame, [70, 50])
    states = model.predict(frame, [70, 50])
    assert max((states == z).mean(), (states != z).mean()) > 0.95
    drawn, _ = model.sample(25, random_state=0)
    assert list(drawn.columns) == list(frame.columns)
    assert (drawn.dtypes.drop("count") == frame.dtypes.drop("count")).all()
    # Whole numbers are normals to "auto", counts to who says so.
    assert drawn["count"].dtype.kind == ("i" if emission == "dict" else "f")
    filled = model.impute(frame, [70, 50])
    assert not filled.isna().any().any()
    pd.testing.assert_frame_equal(
        filled.drop(index=[3, 5]), frame.drop(index=[3, 5]), check_dtype=emission == "dict"
    )
    parts = [frame.iloc[:70], frame.iloc[70:]]
    listed = model.impute(parts)
    assert [len(part) for part in listed] == [70, 50]
    pd.testing.assert_frame_equal(pd.concat(listed, ignore_index=True), filled)
    np.testing.assert_array_equal(model.log_prob(parts), model.log_prob(frame, [70, 50]))


def test_polars_in_and_out():
    frame, _ = table()
    frame = frame[["level", "count"]]
    model = HiddenMarkovModel(2, random_state=0).fit(polars.from_pandas(frame), [70, 50])
    same = HiddenMarkovModel(2, random_state=0).fit(frame, [70, 50])
    np.testing.assert_array_equal(model.means_, same.means_)
    drawn, _ = model.sample(5, random_state=0)
    assert isinstance(drawn, polars.DataFrame)
    parts = [polars.from_pandas(frame[:70]), polars.from_pandas(frame[70:])]
    np.testing.assert_array_equal(model.log_prob(parts), same.log_prob(frame, [70, 50]))
    assert all(isinstance(part, polars.DataFrame) for part in model.impute(parts))
    assert model.impute(parts)[0]["level"].null_count() == 0


def test_model_choice_by_scikit_learn():
    X = [rows_of("gaussian-diag", 50, seed) for seed in range(12)]
    scores = cross_val_score(model_of("gaussian-diag"), X, cv=3)
    assert scores.shape == (3,)
    search = GridSearchCV(model_of("gaussian-diag"), {"n_components": [1, 3]}, cv=3).fit(X)
    assert search.best_params_ == {"n_components": 3}
    assert search.score(X) == pytest.approx(search.best_estimator_.log_prob(X).sum())


def test_families_as_emissions():
    rows = rows_of("poisson")
    own = HiddenMarkovModel(3, Poisson(alpha=0.0), random_state=0, inference=em(5)).fit(rows)
    named = model_of("poisson", inference=em(5)).fit(rows)
    np.testing.assert_array_equal(own.lambdas_, named.lambdas_)


def test_weights_count_sequences():
    X = list(stacked())
    weights = np.array([2, 0, 1, 3])
    # A floor that is a share of variances would be of the rows that are there, once each.
    start = {"init_params": "", "inference": em(10), "min_covar": 1e-6}
    first = model_of("gaussian-full").fit(X)

    def from_first(**settings):
        model = model_of("gaussian-full", **start, **settings)
        for name in ("startprob_", "transmat_", "means_", "covars_"):
            setattr(model, name, getattr(first, name))
        return model

    weighted = from_first().fit(X, sample_weight=weights)
    repeated = from_first().fit([x for x, w in zip(X, weights, strict=True) for _ in range(w)])
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-9)
    np.testing.assert_allclose(weighted.transmat_, repeated.transmat_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(weighted.history_, repeated.history_, rtol=1e-10)


#: Emissions that every run compiles; the others are among the slow tests.
QUICK = ("gaussian-full", "gmm", "poisson", "multinomial")

# -- ways of EM ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emission", "extra"),
    [
        pytest.param(emission, "plain", marks=[] if emission in QUICK else pytest.mark.slow)
        for emission in EMISSIONS
    ]
    + [("gaussian-full", extra) for extra in ("labels", "weights", "mask")],
)
def test_jax_takes_the_same_steps(emission, extra):
    rows = with_holes(rows_of(emission, 100), emission)
    lengths, arguments, settings = [60, 1, 39], {}, {}
    if extra == "labels":
        arguments["y"] = np.where(np.arange(100) % 7 == 0, np.arange(100) % 3, -1)
    elif extra == "weights":
        arguments["sample_weight"] = [1.0, 0.5, 2.0]
    elif extra == "mask":
        settings["transmat_mask"] = MASKS["banded"]
    fits = [
        model_of(emission, inference=em(4, engine=engine), **settings).fit(
            rows, lengths, **arguments
        )
        for engine in ("numpy", "jax")
    ]
    np.testing.assert_allclose(fits[1].history_, fits[0].history_, rtol=1e-10)
    np.testing.assert_allclose(fits[1].transmat_, fits[0].transmat_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fits[1].startprob_, fits[0].startprob_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        fits[1].log_prob(rows, lengths), fits[0].log_prob(rows, lengths), rtol=1e-8
    )


def test_minibatches_come_near():
    X = [rows_of("gaussian-diag", 40, seed) for seed in range(30)]
    full = model_of("gaussian-diag").fit(X)
    batches = model_of("gaussian-diag", inference=EM(max_iter=30, batch_size=5)).fit(X)
    # Stepwise EM ends within its step size of the optimum.
    assert batches.score(X) / 1200 == pytest.approx(full.score(X) / 1200, abs=0.02)


def test_the_best_of_several_starts_is_kept():
    X = [rows_of("gaussian-diag", 60, seed) for seed in range(3)]
    one = model_of("gaussian-diag", inference=EM(max_iter=40, init="random"))
    many = model_of("gaussian-diag", inference=EM(max_iter=40, init="random", n_init=6))
    assert many.fit(X).history_[-1] >= one.fit(X).history_[-1] - 1e-12


def test_warm_starts_go_on():
    X = stacked()
    whole = model_of("gaussian-diag", inference=em(12)).fit(X)
    model = model_of("gaussian-diag", inference=em(6), warm_start=True).fit(X).fit(X)
    np.testing.assert_allclose(model.means_, whole.means_, rtol=1e-12)
    model.set_params(n_components=2)
    with pytest.raises(ValueError, match="warm_start goes on from a fit of 3 states"):
        model.fit(X)


def test_states_that_answer_for_nothing_are_seeded_anew():
    model = HiddenMarkovModel(3, init_params="", inference=em(30), random_state=0)
    model.startprob_, model.transmat_ = [1 / 3] * 3, np.full((3, 3), 1 / 3)
    model.means_ = [[0.0, 0.0], [2.0, -2.0], [1e6, 1e6]]
    model.covars_ = np.ones((3, 2))
    with pytest.warns(RuntimeWarning, match="components died"):
        model.fit(rows_of("gaussian-diag", 150))
    assert np.abs(model.means_).max() < 10.0


def test_a_state_never_visited_keeps_probabilities():
    """With the chain masked, nothing is re-seeded: rows without counts are uniform."""
    rows = np.array([[0.0], [0.1], [5.0], [5.1], [0.0], [4.9]])
    labels = np.array([0, 0, 1, 1, 0, 1])
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1]])
    model = HiddenMarkovModel(3, transmat_mask=mask, prior="default", inference=em(3)).fit(
        rows, y=labels
    )
    np.testing.assert_allclose(model.transmat_.sum(axis=1), 1.0)
    np.testing.assert_allclose(model.transmat_[2], [0.5, 0.0, 0.5])
    assert np.isfinite(model.log_prob(rows)).all()


def test_one_step_sequences_have_no_transitions():
    rows = rows_of("gaussian-diag", 40)
    model = model_of("gaussian-diag", inference=em(20)).fit(rows, [1] * 40)
    np.testing.assert_allclose(model.transmat_, 1.0 / 3.0)
    mixture = ppl_gen.GaussianMixture(
        3, covariance_type="diag", reg_covar=model.min_covar, random_state=0
    )
    # Its steps are those of a mixture whose weights are the start's.
    assert model.startprob_.sum() == pytest.approx(1.0)
    mixture.fit(rows)
    assert model.log_prob(rows, [1] * 40).shape == (40,)
    logs = log_emission(model, "gaussian-diag", rows) + np.log(model.startprob_)
    np.testing.assert_allclose(model.log_prob(rows, [1] * 40), logsumexp(logs, axis=1), rtol=1e-10)


def test_a_sequence_of_which_nothing_is_known_says_nothing():
    rows = rows_of("gaussian-diag", 60)
    silent = np.vstack([rows, np.full((7, 2), np.nan)])
    start = model_of("gaussian-diag", inference=em(5)).fit(rows)

    def again(X, lengths):
        model = model_of("gaussian-diag", inference=em(200), init_params="")
        for name in ("startprob_", "transmat_", "means_", "covars_"):
            setattr(model, name, getattr(start, name))
        return model.fit(X, lengths)

    without, with_ = again(rows, [60]), again(silent, [60, 7])
    # Other steps, for want of knowing where it starts and goes, to the same optimum.
    np.testing.assert_allclose(with_.means_, without.means_, rtol=1e-6)
    np.testing.assert_allclose(with_.transmat_, without.transmat_, rtol=1e-6, atol=1e-9)
    assert with_.log_prob(silent, [60, 7])[1] == pytest.approx(0.0, abs=1e-12)
    filled = with_.impute(silent, [60, 7])
    assert np.isfinite(filled).all()
