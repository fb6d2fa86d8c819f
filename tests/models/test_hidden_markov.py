"""Hidden Markov models fitted by EM: against sums over all paths, and as users meet them."""

import warnings

import numpy as np
import pytest
from all_paths import enumerate_paths, filtered
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
from scipy import stats

from ppl_gen import HiddenMarkovModel
from ppl_gen.algorithms.trees import tree_leaves, tree_sum
from ppl_gen.sequences import Sequences


@pytest.fixture(autouse=True)
def no_warnings_of_small_samples():
    """A few rows for every state: some die, or have a constant column, for good reasons."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*components died.*")
        yield


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


@pytest.mark.parametrize("emission", EMISSIONS)
def test_statistics_add_over_sequences(emission):
    """What chunks, minibatches and clusters rest on; the order of sequences says nothing."""
    rows = with_holes(rows_of(emission, 90), emission)
    lengths, weights = np.array([30, 1, 25, 34]), np.array([1.0, 2.0, 0.5, 1.0])
    model = model_of(emission, inference=em(2)).fit(rows, lengths)
    labels = np.where(np.arange(90) % 9 == 4, 1, -1)
    whole = Sequences(rows, lengths, labels, weights)

    def statistics(chosen):
        found, total = model.structure_.e_step(model._draw(0), whole[chosen])
        return {**found, "log_likelihood": total}

    added = tree_sum([statistics([0, 3]), statistics([2]), statistics([1])])
    for found in (statistics([0, 1, 2, 3]), statistics([3, 1, 0, 2])):
        for ours, theirs in zip(tree_leaves(found), tree_leaves(added), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-9)


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
        floored = emission_is_normal(model) and model.min_covar != 0.0
        if not any("died" in message for message in messages) and not floored:
            # Rounding of a sum over some ten rows, by row.
            assert (np.diff(model.history_) > -1e-9).all(), seed
        assert np.isfinite(model.lower_bound_), seed


# -- masks, priors, and what params leaves ---------------------------------------------------------


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
    model = model_of("gaussian-diag", init_params="", params="stc", inference=em(1))
    model.means_ = np.array([[0.0, 0.0], [2.0, -2.0], [4.0, -4.0]])
    model.fit(rows)
    np.testing.assert_array_equal(model.means_, [[0.0, 0.0], [2.0, -2.0], [4.0, -4.0]])
    np.testing.assert_allclose(model.transmat_.sum(axis=1), 1.0)
    assert model.n_free_parameters() == 2 + 6 + 6


def test_parameters_alone_make_a_model():
    model = HiddenMarkovModel(2, emission="poisson")
    model.startprob_, model.transmat_ = [0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]]
    model.lambdas_ = np.array([[1.0], [20.0]])
    rows = np.array([[0.0], [1.0], [19.0]])
    logs = stats.poisson.logpmf(rows, [1.0, 20.0])
    paths = enumerate_paths(np.array(model.startprob_), np.array(model.transmat_), logs)
    assert model.score(rows) == pytest.approx(paths.evidence, abs=1e-12)
    assert model.predict(rows).tolist() == [0, 0, 1]
