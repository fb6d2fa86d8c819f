"""The chain against sums over all of its paths, on the arrays of both engines."""

import itertools

import numpy as np
import pytest
from scipy import special, stats

from ppl_gen import engines
from ppl_gen.algorithms import hidden_markov_scan as chain

ENGINES = ["pyro", "numpyro"]


@pytest.fixture(params=ENGINES)
def engine(request):
    """The engine, with its precision entered."""
    engine = engines.get(request.param)
    with engine.precision(device="cpu"):
        yield engine


def log(p):
    with np.errstate(divide="ignore"):
        return np.log(p)


def chains(rng, length, n_states, batch=()):
    """Random logarithms of a chain and of its emissions."""
    start = rng.dirichlet(np.ones(n_states))
    transition = rng.dirichlet(np.ones(n_states), size=n_states)
    return log(start), log(transition), rng.normal(size=(*batch, length, n_states), scale=2)


def left_to_right(rng, length):
    """Zeros in the start and in the transitions, and the last state absorbing."""
    start = np.array([1.0, 0.0, 0.0])
    transition = np.array([[0.6, 0.4, 0.0], [0.0, 0.7, 0.3], [0.0, 0.0, 1.0]])
    return log(start), log(transition), rng.normal(size=(length, 3))


def never_changing(rng, length):
    """The better state at first is far the worse one in the end, and there is no way back."""
    emission = rng.normal(size=(length, 2))
    emission[0] += [0.0, -5e3]
    emission[-1] += [-2e4, 0.0]
    return log([0.5, 0.5]), log(np.eye(2)), emission


def outliers(rng, length):
    """Steps a thousand standard deviations away from both states."""
    x = rng.normal(size=length)
    x[::2] = [1e3, -1e3, 999.0][: len(x[::2])]
    start, transition, _ = chains(rng, length, 2)
    return start, transition, stats.norm.logpdf(x[:, None], [0.0, 3.0], 1.0)


def missing(rng, length):
    start, transition, emission = chains(rng, length, 4)
    emission[1:3] = 0.0
    return start, transition, emission


def impossible_step(rng, length):
    """An emission of probability zero shuts one state out for a step."""
    start, transition, emission = chains(rng, length, 3)
    emission[1, 0] = emission[-1, 2] = -np.inf
    return start, transition, emission


RNG = np.random.default_rng(3)
CASES = {
    "one step": chains(RNG, 1, 3),
    "one state": chains(RNG, 4, 1),
    "two steps": chains(RNG, 2, 2),
    "dense": chains(RNG, 6, 4),
    "left to right": left_to_right(RNG, 6),
    "never changing": never_changing(RNG, 5),
    "outliers": outliers(RNG, 6),
    "missing": missing(RNG, 5),
    "impossible step": impossible_step(RNG, 5),
}


def enumerated(log_start, log_transition, log_emission):
    """Every path and its log joint density with the data."""
    length, n_states = log_emission.shape
    paths = np.array(list(itertools.product(range(n_states), repeat=length)))
    joint = log_start[paths[:, 0]] + log_emission[np.arange(length), paths].sum(1)
    return paths, joint + log_transition[paths[:, :-1], paths[:, 1:]].sum(1)


def marginals(paths, joint, n_states):
    """Posterior of the state of each step, from all paths."""
    weights = special.softmax(joint)
    return np.stack([(weights[:, None] * (paths == k)).sum(0) for k in range(n_states)], axis=-1)


@pytest.mark.parametrize("case", CASES)
def test_messages_are_sums_over_all_paths(engine, case):
    given = CASES[case]
    arrays = [engine.asarray(x) for x in given]
    paths, joint = enumerated(*given)
    evidence = special.logsumexp(joint)
    n_states = given[2].shape[-1]
    for parallel in (False, True):
        found = engine.to_numpy(chain.log_evidence(engine.ops, *arrays, parallel=parallel))
        # Sums of six terms, some of them 1e4: a few units in the last place.
        np.testing.assert_allclose(found, evidence, rtol=1e-13, atol=1e-13)
    expected = marginals(paths, joint, n_states)
    smoothed = engine.to_numpy(chain.smoothed(engine.ops, *arrays))
    np.testing.assert_allclose(smoothed, expected, rtol=1e-9, atol=1e-12)
    per_step = special.logsumexp(engine.to_numpy(chain.log_joint(engine.ops, *arrays)), axis=-1)
    np.testing.assert_allclose(per_step, evidence, rtol=1e-12)
    filtered = engine.to_numpy(chain.filtered(engine.ops, *arrays))
    for step in range(1, len(given[2]) + 1):
        until = enumerated(*given[:2], given[2][:step])
        np.testing.assert_allclose(
            filtered[step - 1], marginals(*until, n_states)[-1], rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("case", CASES)
def test_the_likeliest_path_is_the_best_of_all(engine, case):
    paths, joint = enumerated(*CASES[case])
    found, best = chain.viterbi(engine.ops, *(engine.asarray(x) for x in CASES[case]))
    np.testing.assert_array_equal(engine.to_numpy(found), paths[joint.argmax()])
    np.testing.assert_allclose(engine.to_numpy(best), joint.max(), rtol=1e-13)


def gradients(engine, given, parallel=False):
    """Value and gradients of the log evidence."""
    names = ("start", "transition", "emission")

    def evidence(values):
        parts = (values[name] for name in names)
        return chain.log_evidence(engine.ops, *parts, parallel=parallel).sum()

    value, grad = engine._value_and_grad(evidence, dict(zip(names, given, strict=True)))
    return value, [grad[name] for name in names]


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_expected_counts(engine, case, parallel):
    given = CASES[case]
    _, (start, transition, emission) = gradients(engine, given, parallel)
    paths, joint = enumerated(*given)
    n_states = given[2].shape[-1]
    expected = marginals(paths, joint, n_states)
    moves = np.zeros((n_states, n_states))
    for weight, path in zip(special.softmax(joint), paths, strict=True):
        np.add.at(moves, (path[:-1], path[1:]), weight)
    np.testing.assert_allclose(emission, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(start, expected[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(transition, moves, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", ["dense", "left to right", "never changing"])
def test_gradients_are_finite_differences(engine, case):
    start, transition, emission = CASES[case]
    _, grads = gradients(engine, (start, transition, emission))
    for part, at in [(1, (0, 0)), (2, (0, 0)), (2, (-1, 1))]:
        values = []
        for change in (1e-5, -1e-5):
            moved = [x.copy() for x in (start, transition, emission)]
            moved[part][at] += change
            values.append(special.logsumexp(enumerated(*moved)[1]))
        # Second order: 1e-10 times the third derivative, and rounding of 1e4 over 2e-5.
        difference = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(grads[part][at], difference, atol=1e-6)


def test_the_tree_equals_going_step_by_step(engine):
    rng = np.random.default_rng(0)
    for length in (2, 3, 64, 101):
        given = chains(rng, length, 3, batch=(2,))
        a, b = (gradients(engine, given, parallel) for parallel in (False, True))
        np.testing.assert_allclose(a[0], b[0], rtol=1e-12)
        for x, y in zip(a[1], b[1], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)


def test_leading_axes_broadcast(engine):
    rng = np.random.default_rng(1)
    start = log(rng.dirichlet(np.ones(3), size=5))
    transition = log(rng.dirichlet(np.ones(3), size=(4, 1, 3)))
    emission = rng.normal(size=(2, 1, 1, 6, 3))
    arrays = [engine.asarray(x) for x in (start, transition, emission)]
    found = engine.to_numpy(chain.log_evidence(engine.ops, *arrays))
    tree = engine.to_numpy(chain.log_evidence(engine.ops, *arrays, parallel=True))
    path, best = chain.viterbi(engine.ops, *arrays)
    drawn = chain.draw_path(engine.ops, *arrays, engine.random(0))
    assert found.shape == tree.shape == tuple(best.shape) == (2, 4, 5)
    assert tuple(path.shape) == tuple(drawn.shape) == (2, 4, 5, 6)
    assert chain.smoothed(engine.ops, *arrays).shape == (2, 4, 5, 6, 3)
    one = enumerated(start[3], transition[2, 0], emission[1, 0, 0])
    np.testing.assert_allclose(found[1, 2, 3], special.logsumexp(one[1]), rtol=1e-12)
    np.testing.assert_allclose(tree, found, rtol=1e-12)
    np.testing.assert_array_equal(engine.to_numpy(path)[1, 2, 3], one[0][one[1].argmax()])


def test_long_chains_with_outliers_keep_finite_gradients(engine):
    """Naive products underflow within a few hundred steps; scaled ones at the outliers."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=400)
    x[[7, 200]] = 1e3, -1e8
    start, transition, _ = left_to_right(rng, 1)
    emission = stats.norm.logpdf(x[:, None], [0.0, 1.0, 2.0], 1.0)
    emission[50:60] = 0.0
    value, grads = gradients(engine, (start, transition, emission))
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in grads)
    np.testing.assert_allclose(grads[2].sum(1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(grads[1].sum(), 399.0, rtol=1e-9)


def test_impossible_data_have_density_zero(engine):
    given = [log([1.0, 0.0]), log(np.eye(2)), np.array([[0.0, 0.0], [-np.inf, 0.0]])]
    value, grads = gradients(engine, given)
    assert value == -np.inf
    assert all(np.isfinite(g).all() for g in grads)
    assert np.isnan(engine.to_numpy(chain.smoothed(engine.ops, *map(engine.asarray, given)))).all()
    assert engine.to_numpy(chain.viterbi(engine.ops, *map(engine.asarray, given))[1]) == -np.inf


def test_nan_is_not_taken_for_a_zero(engine):
    start, transition, emission = chains(np.random.default_rng(0), 4, 2)
    emission[1, 0] = np.nan
    assert np.isnan(gradients(engine, (start, transition, emission))[0])


@pytest.mark.parametrize("case", ["dense", "left to right", "impossible step"])
def test_paths_are_drawn_from_their_posterior(engine, case):
    given = CASES[case]
    n = 20_000
    emission = np.broadcast_to(given[2], (n, *given[2].shape))
    arrays = [engine.asarray(x) for x in (*given[:2], emission)]
    drawn = engine.to_numpy(chain.draw_path(engine.ops, *arrays, engine.random(1)))
    paths, joint = enumerated(*given)
    n_states, length = given[2].shape[-1], given[2].shape[0]
    place = n_states ** np.arange(length)[::-1]
    counts = np.bincount(drawn @ place, minlength=len(paths))
    expected = n * special.softmax(joint)
    assert counts[expected == 0].sum() == 0
    # Paths of fewer than five expected draws count as one.
    rare = expected < 5
    pooled = [np.append(x[~rare], x[rare].sum()) for x in (counts, expected)]
    keep = pooled[1] > 0
    # One test in ten thousand fails by chance; the seeds are fixed.
    assert stats.chisquare(pooled[0][keep], pooled[1][keep]).pvalue > 1e-4
