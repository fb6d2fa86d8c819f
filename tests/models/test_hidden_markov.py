"""Hidden Markov models fitted by EM: against sums over all paths, and as users meet them."""

import warnings

import numpy as np
import pandas as pd
import polars
import pytest
from all_paths import enumerate_paths, filtered
from scipy import stats
from scipy.special import logsumexp
from sklearn.base import clone

import ppl_gen
from ppl_gen import EM, HiddenMarkovModel, Poisson
from ppl_gen.sequences import Sequences

COVARIANCE_TYPES = ["diag", "full", "tied", "spherical"]
#: Emissions, with their settings.
EMISSIONS = {
    **{f"gaussian-{kind}": {"covariance_type": kind} for kind in COVARIANCE_TYPES},
    "gmm": {"emission": "gmm", "n_mix": 2},
    "gmm-full": {"emission": "gmm", "n_mix": 2, "covariance_type": "full"},
    "poisson": {"emission": "poisson"},
    "categorical": {"emission": "categorical"},
    "bernoulli": {"emission": "bernoulli"},
    "multinomial": {"emission": "multinomial"},
}


def chain_of_states(rng, n, n_states=3, stay=0.8):
    states = [rng.integers(n_states)]
    for _ in range(n - 1):
        onward = stay if rng.random() < stay else None
        states.append(states[-1] if onward else rng.integers(n_states))
    return np.array(states)


def rows_of(emission, n=60, seed=0, n_states=3):
    """A series whose rows depend on a chain of states."""
    rng = np.random.default_rng(seed)
    z = chain_of_states(rng, n, n_states)
    if emission.startswith(("gaussian", "gmm")):
        return 2.0 * np.stack([z, -z], axis=1) + rng.normal(size=(n, 2))
    if emission == "poisson":
        return rng.poisson(np.stack([1.0 + 4 * z, 2.0 + z], axis=1)).astype(float)
    if emission == "categorical":
        return ((z + (rng.random(n) < 0.3)) % 4)[:, None].astype(float)
    if emission == "bernoulli":
        return (rng.random((n, 3)) < np.stack([0.2 + 0.3 * z] * 3, axis=1)).astype(float)
    shares = np.array([[0.6, 0.3, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]])
    return np.stack([rng.multinomial(5, shares[state]) for state in z % 3]).astype(float)


def with_holes(rows, emission, seed=1):
    """Take out whole steps, and single entries too where a row has parts."""
    rng = np.random.default_rng(seed)
    rows = rows.copy()
    rows[rng.random(len(rows)) < 0.15] = np.nan
    if emission != "multinomial":  # a count that is missing leaves the total unknown
        rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows


def model_of(emission, n_states=3, **settings):
    settings = {"random_state": 0} | EMISSIONS[emission] | settings
    return HiddenMarkovModel(n_states, **settings)


def em(max_iter, **settings):
    return EM(max_iter=max_iter, tol=0.0, **settings)


@pytest.fixture(autouse=True)
def no_warnings_of_small_samples():
    """A few rows for every state: some die, or have a constant column, for good reasons."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*components died.*")
        yield


def log_emission(model, emission, rows):
    """Log density of each step under each state, from the attributes and SciPy: (T, K)."""
    return np.array(
        [[density(model, emission, row, k) for k in range(model.n_components)] for row in rows]
    )


def density(model, emission, row, k):
    o = np.flatnonzero(~np.isnan(row))
    if not len(o):
        return 0.0
    if emission.startswith("gaussian"):
        return normal(row, o, model.means_[k], model.covars_[k])
    if emission.startswith("gmm"):
        parts = zip(model.weights_[k], model.means_[k], model.covars_[k], strict=True)
        return logsumexp([np.log(w) + normal(row, o, m, c) for w, m, c in parts])
    if emission == "poisson":
        return stats.poisson.logpmf(row[o], model.lambdas_[k, o]).sum()
    if emission == "categorical":
        return np.log(model.emissionprob_[k, int(row[0])])
    if emission == "bernoulli":
        return stats.bernoulli.logpmf(row[o], model.emissionprob_[k, o]).sum()
    return stats.multinomial.logpmf(row, row.sum(), model.emissionprob_[k])


def normal(row, o, mean, covariance):
    return stats.multivariate_normal.logpdf(row[o], mean[o], covariance[np.ix_(o, o)])


# -- sums over all paths ---------------------------------------------------------------------------


@pytest.mark.parametrize("emission", EMISSIONS)
def test_answers_are_sums_over_all_paths(emission):
    rows = with_holes(rows_of(emission), emission)
    model = model_of(emission, inference=em(2)).fit(rows, [40, 20])
    lengths = [5, 1, 6, 4]
    asked = rows[10:26].copy()
    asked[12:] = np.nan  # a sequence of which nothing is known
    parts = np.split(asked, np.cumsum(lengths)[:-1])
    logs = [log_emission(model, emission, part) for part in parts]
    paths = [enumerate_paths(model.startprob_, model.transmat_, own) for own in logs]
    evidence = np.array([p.evidence for p in paths])
    assert evidence[-1] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(model.log_prob(asked, lengths), evidence, atol=1e-10)
    assert model.score(asked, lengths) == pytest.approx(evidence.sum(), abs=1e-10)
    marginals = np.concatenate([p.marginals for p in paths])
    np.testing.assert_allclose(model.predict_proba(asked, lengths), marginals, atol=1e-10)
    steps = np.concatenate([filtered(model.startprob_, model.transmat_, own) for own in logs])
    np.testing.assert_allclose(model.filter(asked, lengths), steps, atol=1e-10)
    value, states = model.decode(asked, lengths)
    assert value == pytest.approx(sum(p.best[0] for p in paths), abs=1e-10)
    for p, path in zip(paths, np.split(states, np.cumsum(lengths)[:-1]), strict=True):
        assert p.score_of(path) == pytest.approx(p.best[0], abs=1e-10)
    value, states = model.decode(asked, lengths, algorithm="map")
    assert value == pytest.approx(marginals.max(axis=1).sum(), abs=1e-10)
    np.testing.assert_allclose(marginals[np.arange(16), states], marginals.max(axis=1), atol=1e-9)


@pytest.mark.parametrize("emission", EMISSIONS)
def test_known_states_leave_the_paths_that_agree(emission):
    rows = with_holes(rows_of(emission), emission)
    model = model_of(emission, inference=em(2), startprob_prior=2.0).fit(rows, [40, 20])
    lengths, asked = np.array([6, 1, 5]), rows[10:22]
    labels = np.full(12, -1)
    labels[[1, 3, 6, 9]] = [2, 0, 1, 1]
    logs = log_emission(model, emission, asked)
    known = (labels[:, None] >= 0) & (labels[:, None] != np.arange(3))
    logs[known] = -np.inf
    paths = [
        enumerate_paths(model.startprob_, model.transmat_, own)
        for own in np.split(logs, np.cumsum(lengths)[:-1])
    ]
    statistics, total = model.structure_.e_step(model._draw(0), Sequences(asked, lengths, labels))
    assert total == pytest.approx(sum(p.evidence for p in paths), abs=1e-10)
    first = sum(p.marginals[0] for p in paths)
    np.testing.assert_allclose(statistics["start"], first, atol=1e-10)
    moves = sum(p.pairs.sum(axis=0) for p in paths)
    np.testing.assert_allclose(statistics["transition"], moves, atol=1e-10)
    shares = np.concatenate([p.marginals for p in paths])
    seen = ~np.isnan(asked).all(axis=1)
    np.testing.assert_allclose(statistics["occupancy"], shares[seen].sum(axis=0), atol=1e-10)


def test_all_states_known_is_counting():
    rng = np.random.default_rng(0)
    states = chain_of_states(rng, 80)
    rows = rng.normal(size=(80, 2)) + states[:, None]
    model = model_of("gaussian-full", min_covar=0.0, inference=em(3)).fit(rows, [50, 30], y=states)
    moves = np.zeros((3, 3))
    for part in (states[:50], states[50:]):
        np.add.at(moves, (part[:-1], part[1:]), 1.0)
    expected = moves / moves.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.transmat_, expected, atol=1e-14)
    first = np.bincount(states[[0, 50]], minlength=3) / 2.0
    np.testing.assert_allclose(model.startprob_, first)
    for k in range(3):
        own = rows[states == k]
        np.testing.assert_allclose(model.means_[k], own.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(model.covars_[k], np.cov(own.T, bias=True), atol=1e-12)


def test_a_few_known_states_name_the_others():
    rng = np.random.default_rng(1)
    states = chain_of_states(rng, 300)
    rows = rng.normal(size=(300, 1)) + 4.0 * np.array([1.0, 2.0, 0.0])[states][:, None]
    known = np.full(300, -1)
    for k in range(3):
        known[np.flatnonzero(states == k)[:2]] = k
    model = model_of("gaussian-diag").fit(rows, y=known)
    np.testing.assert_allclose(model.means_[:, 0], [4.0, 8.0, 0.0], atol=0.5)
    assert (model.predict(rows) == states).mean() > 0.95
    # Known states come in the arrangement of the sequences, or one after another.
    listed = model_of("gaussian-diag").fit([rows[:100], rows[100:]], y=[known[:100], known[100:]])
    flat = model_of("gaussian-diag").fit(rows, [100, 200], y=known)
    np.testing.assert_array_equal(listed.transmat_, flat.transmat_)


# -- the objective ---------------------------------------------------------------------------------


def random_problem(seed):
    """A model, and the arguments of its fit: everything there is, mixed at random."""
    rng = np.random.default_rng(seed)
    emission = list(EMISSIONS)[seed % len(EMISSIONS)]
    n_states = int(rng.integers(1, 4))
    lengths = rng.integers(1, 30, size=rng.integers(1, 5))
    rows = rows_of(emission, max(int(lengths.sum()), 12), seed, 3)
    lengths[-1] += len(rows) - lengths.sum()
    settings = {"n_states": n_states, "inference": em(25), "random_state": seed}
    if rng.random() < 0.6:
        rows = with_holes(rows, emission, seed)
    if rng.random() < 0.3:
        settings["stickiness"] = 5.0
    if rng.random() < 0.3:
        settings |= {"startprob_prior": 2.0, "transmat_prior": 1.5}
    if emission.startswith(("gaussian", "gmm")):
        # Without either, a state may fall upon a single row, where the density has no bound.
        settings |= {"prior": "default", "min_covar": 0.0} if rng.random() < 0.7 else {}
    arguments = {"lengths": lengths}
    if rng.random() < 0.3:
        mask = np.eye(n_states) + np.eye(n_states, k=1) + np.eye(n_states, k=1 - n_states)
        settings["transmat_mask"] = mask > 0
    elif rng.random() < 0.5:
        arguments["y"] = np.where(
            rng.random(len(rows)) < 0.2, rng.integers(n_states, size=len(rows)), -1
        )
    if rng.random() < 0.3:
        arguments["sample_weight"] = rng.uniform(0.5, 2.0, size=len(lengths))
    return model_of(emission, **settings), rows, arguments


def emission_is_normal(model):
    return model.emission in ("gaussian", "gmm")


@pytest.mark.parametrize("decade", range(10))
def test_the_objective_never_falls(decade):
    """Of a hundred problems: EM itself warns of a fall, and warnings are errors here."""
    for seed in range(10 * decade, 10 * decade + 10):
        model, rows, arguments = random_problem(seed)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model.fit(rows, **arguments)
        messages = [str(w.message) for w in told]
        assert not any("fell" in message for message in messages), (seed, messages)
        # To re-seed a state may cost something. What min_covar costs depends on the share of the
        # rows that each state has, so the log likelihood less that may fall; it is what EM's own
        # bound allows for.
        floored = emission_is_normal(model) and model.min_covar > 0.0
        if not any("died" in message for message in messages) and not floored:
            # Rounding of a sum over some ten rows, by row.
            assert (np.diff(model.history_) > -1e-9).all(), seed
        assert np.isfinite(model.lower_bound_), seed


# -- masks, priors, and what params leaves ---------------------------------------------------------

MASKS = {
    "left-right": np.triu(np.ones((3, 3))),
    "banded": np.eye(3) + np.eye(3, k=1) + np.eye(3, k=-1),
    "absorbing": np.array([[1, 1, 1], [1, 1, 1], [0, 0, 1]]),
    "a cycle": np.roll(np.eye(3), 1, axis=1),
}


@pytest.mark.parametrize("kind", MASKS)
def test_what_may_not_happen_stays_at_zero(kind):
    mask = MASKS[kind].astype(bool)
    rows = with_holes(rows_of("gaussian-diag", 120), "gaussian-diag")
    model = model_of("gaussian-diag", transmat_mask=mask, inference=em(20)).fit(rows, [60, 60])
    assert (model.transmat_[~mask] == 0.0).all()
    np.testing.assert_allclose(model.transmat_.sum(axis=1), 1.0)
    states = model.predict(rows, [60, 60])
    moves = np.stack([states[:-1], states[1:]], axis=1)
    moves = np.delete(moves, 59, axis=0)
    assert mask[moves[:, 0], moves[:, 1]].all()
    n_transitions = int(mask.sum()) - 3
    assert model.n_free_parameters() == 2 + n_transitions + 3 * 2 + 3 * 2
    drawn = model.sample_states(rows, [60, 60], n_draws=3, random_state=0)
    for path in drawn:
        assert mask[path[:59], path[1:60]].all()


def test_a_mask_of_everything_is_none():
    rows = rows_of("gaussian-diag")
    free = model_of("gaussian-diag", inference=em(5)).fit(rows)
    masked = model_of("gaussian-diag", inference=em(5), transmat_mask=np.ones((3, 3))).fit(rows)
    np.testing.assert_array_equal(masked.transmat_, free.transmat_)


def test_left_right_states_are_in_the_order_of_time():
    rng = np.random.default_rng(0)
    mean = np.repeat([5.0, 0.0, 9.0], [40, 30, 30])
    rows = (mean + rng.normal(size=100))[:, None]
    model = model_of("gaussian-diag", transmat_mask=np.triu(np.ones((3, 3)))).fit(rows)
    np.testing.assert_allclose(model.means_[:, 0], [5.0, 0.0, 9.0], atol=0.6)
    assert (np.diff(model.predict(rows)) >= 0).all()


def test_sticky_states_last_longer():
    rows = rows_of("gaussian-diag", 200)
    stays = [
        np.diagonal(
            model_of("gaussian-diag", stickiness=s, inference=em(30)).fit(rows).transmat_
        ).mean()
        for s in (0.0, 10.0, 100.0)
    ]
    assert stays[0] < stays[1] < stays[2]


def test_priors_count_as_transitions_seen():
    """All states known: the mode is (count + prior - 1) over their sum."""
    states = np.array([0, 0, 1, 0, 1, 1, 1, 0])
    rows = np.random.default_rng(0).normal(size=(8, 1)) + 5.0 * states[:, None]
    prior = np.array([[3.0, 1.0], [2.0, 2.0]])
    model = HiddenMarkovModel(
        2, transmat_prior=prior, startprob_prior=[1.0, 4.0], stickiness=2.0, inference=em(2)
    ).fit(rows, y=states)
    counts = np.array([[1.0, 2.0], [2.0, 2.0]]) + prior - 1.0 + 2.0 * np.eye(2)
    np.testing.assert_allclose(model.transmat_, counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(model.startprob_, [1.0 / 4.0, 3.0 / 4.0])


def test_what_is_not_set_is_initialised():
    rows = rows_of("gaussian-diag")
    model = model_of("gaussian-diag", init_params="", params="", inference=em(1))
    model.means_ = np.array([[0.0, 0.0], [2.0, -2.0], [4.0, -4.0]])
    model.fit(rows)
    np.testing.assert_array_equal(model.means_, [[0.0, 0.0], [2.0, -2.0], [4.0, -4.0]])
    np.testing.assert_allclose(model.transmat_.sum(axis=1), 1.0)
    assert model.n_free_parameters() == 0


def test_parameters_alone_make_a_model():
    model = HiddenMarkovModel(2, emission="poisson")
    model.startprob_, model.transmat_ = [0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]]
    model.lambdas_ = np.array([[1.0], [20.0]])
    rows = np.array([[0.0], [1.0], [19.0]])
    logs = stats.poisson.logpmf(rows, [1.0, 20.0])
    paths = enumerate_paths(np.array(model.startprob_), np.array(model.transmat_), logs)
    assert model.score(rows) == pytest.approx(paths.evidence, abs=1e-12)
    assert model.predict(rows).tolist() == [0, 0, 1]


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


def test_families_as_emissions():
    rows = rows_of("poisson")
    own = HiddenMarkovModel(3, Poisson(alpha=0.0), random_state=0, inference=em(5)).fit(rows)
    named = model_of("poisson", inference=em(5)).fit(rows)
    np.testing.assert_array_equal(own.lambdas_, named.lambdas_)


def test_weights_count_sequences():
    X = list(stacked())
    weights = np.array([2, 0, 1, 3])
    start = {"init_params": "", "inference": em(10)}
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


# -- ways of EM ------------------------------------------------------------------------------------


@pytest.mark.parametrize("emission", ["gaussian-full", "gmm", "poisson", "categorical"])
@pytest.mark.parametrize("extra", ["plain", "labels", "weights", "mask"])
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


# -- drawing, filling, keeping ---------------------------------------------------------------------


def test_draws_have_the_moments_of_the_model():
    rows = rows_of("gaussian-full", 300)
    model = model_of("gaussian-full").fit(rows)
    drawn, states = model.sample(20_000, random_state=1)
    shares = np.bincount(states, minlength=3) / 20_000
    np.testing.assert_allclose(shares, model.stationary_distribution(), atol=0.03)
    moves = np.zeros((3, 3))
    np.add.at(moves, (states[:-1], states[1:]), 1.0)
    np.testing.assert_allclose(moves / moves.sum(axis=1, keepdims=True), model.transmat_, atol=0.03)
    for k in range(3):
        own = drawn[states == k]
        error = np.sqrt(np.diagonal(model.covars_[k]) / len(own))
        assert (np.abs(own.mean(axis=0) - model.means_[k]) < 5.0 * error).all()
        # Five standard errors of a variance: sqrt(2 / n) of it.
        np.testing.assert_allclose(
            np.cov(own.T), model.covars_[k], atol=5.0 * np.sqrt(2.0 / len(own)) * 2.0
        )


def test_seeds_and_first_states_of_draws():
    model = model_of("poisson", inference=em(5)).fit(rows_of("poisson"))
    drawn, states = model.sample(10, random_state=3)
    again, _ = model.sample(10, random_state=3)
    np.testing.assert_array_equal(drawn, again)
    for state in range(3):
        assert model.sample(4, random_state=0, currstate=state)[1][0] == state
    alone = model.sample(10, random_state=3, return_latent=False)
    np.testing.assert_array_equal(alone, drawn)
    assert states.dtype.kind == "i"


def test_what_is_missing_is_filled_with_its_expectation():
    rows = rows_of("gaussian-full", 200)
    holed = with_holes(rows, "gaussian-full")
    model = model_of("gaussian-full").fit(holed)
    filled = model.impute(holed)
    known = ~np.isnan(holed)
    np.testing.assert_array_equal(filled[known], holed[known])
    # E[x_m | x_o] = sum_k p(k | all) (mean + the regression of what is missing on what is not).
    shares = model.predict_proba(holed)
    for t in np.flatnonzero(~known.all(axis=1)):
        m, o = np.flatnonzero(~known[t]), np.flatnonzero(known[t])
        expected = 0.0
        for k in range(3):
            c = model.covars_[k]
            there = model.means_[k][m]
            if len(o):
                slope = np.linalg.solve(c[np.ix_(o, o)], c[np.ix_(o, m)])
                there = there + (holed[t, o] - model.means_[k][o]) @ slope
            expected = expected + shares[t, k] * there
        np.testing.assert_allclose(filled[t, m], expected, rtol=1e-8, atol=1e-10)
    draws = np.stack(model.impute(holed, n_draws=400, random_state=0))
    assert (draws[:, known] == holed[known]).all()
    spread = draws.std(axis=0)
    error = np.abs(draws.mean(axis=0) - filled)[~known] / spread[~known] * np.sqrt(400)
    assert error.max() < 5.0
    # Filling by the neighbours in time does better than by the mean of the column.
    plain = np.abs(np.nanmean(holed, axis=0) - rows)[~known].mean()
    assert np.abs(filled - rows)[~known].mean() < 0.8 * plain


def test_paths_are_drawn_from_their_posterior():
    rows = with_holes(rows_of("gaussian-diag", 60), "gaussian-diag")
    model = model_of("gaussian-diag").fit(rows)
    paths = np.stack(model.sample_states(rows, n_draws=2000, random_state=0))
    shares = (paths[:, :, None] == np.arange(3)).mean(axis=0)
    expected = model.predict_proba(rows).clip(0.0, 1.0)  # rounding may leave more than one
    error = np.sqrt(expected * (1.0 - expected) / 2000)
    assert (np.abs(shares - expected) < 5.0 * error + 1e-3).all()


@pytest.mark.parametrize("emission", EMISSIONS)
def test_saved_models_come_back(emission, tmp_path):
    rows = with_holes(rows_of(emission), emission)
    model = model_of(emission, inference=em(3)).fit(rows, [40, 20])
    model.save(tmp_path / "model")
    again = ppl_gen.load(tmp_path / "model")
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(again.log_prob(rows, [40, 20]), model.log_prob(rows, [40, 20]))
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))
    np.testing.assert_array_equal(again.impute(rows), model.impute(rows))
    for name in ("startprob_", "transmat_", "history_"):
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
    assert again.aic(rows) == model.aic(rows)


def test_settings_are_kept_as_they_were_given():
    mask = np.ones((2, 2))
    model = HiddenMarkovModel(2, "poisson", transmat_mask=mask, stickiness=3.0, algorithm="map")
    copied = clone(model)
    assert copied.get_params()["stickiness"] == 3.0
    assert copied.transmat_mask is not mask
    assert repr(copied) == repr(model)
    fitted = copied.fit(rows_of("poisson"))
    assert clone(fitted).get_params().keys() == model.get_params().keys()
    assert not hasattr(clone(fitted), "transmat_")


def test_fits_do_not_touch_what_was_given():
    rows, labels = rows_of("gaussian-diag"), np.full(60, -1)
    labels[3] = 1
    before = rows.copy(), labels.copy()
    model = model_of("gaussian-diag", inference=em(3)).fit(rows, [30, 30], y=labels)
    model.predict_proba(rows), model.impute(rows)
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(labels, before[1])
