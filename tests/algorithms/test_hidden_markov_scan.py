"""The chain against sums over all of its paths, on the arrays of both engines."""

import functools

import numpy as np
import pytest
from all_paths import enumerate_in_logs
from scipy import special, stats

from ppl_gen import engines
from ppl_gen.algorithms import hidden_markov_scan as chain

ENGINES = ["pyro", "numpyro"]


@pytest.fixture(params=ENGINES, scope="module")
def engine(request):
    return engines.get(request.param)


@functools.cache
def kernel(name, function):
    """A function of `ops` and arrays, compiled where the engine compiles, from NumPy to NumPy."""
    engine = engines.get(name)
    run = functools.partial(function, engine)
    if name == "numpyro":
        import jax

        run = jax.jit(run)

    def call(*given):
        with engine.precision(device="cpu"):
            found = run(*(engine.asarray(x) for x in given))
            return {key: engine.to_numpy(value) for key, value in found.items()}

    return call


def everything(engine, *arrays):
    """All that can be asked of a chain without random numbers, and the gradients."""
    path, best = chain.viterbi(engine.ops, *arrays)
    found = {
        "joint": chain.log_joint(engine.ops, *arrays),
        "smoothed": chain.smoothed(engine.ops, *arrays),
        "filtered": chain.filtered(engine.ops, *arrays),
        "path": path,
        "best": best,
    }
    for name, parallel in (("steps", False), ("tree", True)):
        evidence = functools.partial(chain.log_evidence, engine.ops, parallel=parallel)
        value, grads = value_and_grads(engine, evidence, arrays)
        found |= {name: value, **{f"{name} {part}": g for part, g in grads.items()}}
    return found


def value_and_grads(engine, function, arrays):
    """A value, and its sum's gradients with respect to the parts of the chain."""
    parts = ("start", "transition", "emission")
    if engine.name == "numpyro":
        import jax

        def total(given):
            value = function(*given)
            return value.sum(), value

        (_, value), grads = jax.value_and_grad(total, has_aux=True)(arrays)
    else:
        import torch

        free = [x.clone().requires_grad_() for x in arrays]
        value = function(*free)
        grads = torch.autograd.grad(value.sum(), free, allow_unused=True, materialize_grads=True)
    return value, dict(zip(parts, grads, strict=True))


def found_of(engine, given):
    return kernel(engine.name, everything)(*given)


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
    emission = rng.normal(size=(length, 3))
    emission[0] += [0.0, -5e3, -1e4]
    emission[-1] += [-2e4, 0.0, -3e4]
    return log(np.ones(3) / 3), log(np.eye(3)), emission


def outliers(rng, length):
    """Steps a thousand standard deviations away from all states."""
    x = rng.normal(size=length)
    x[::2] = [1e3, -1e3, 999.0][: len(x[::2])]
    start, transition, _ = chains(rng, length, 3)
    return start, transition, stats.norm.logpdf(x[:, None], [0.0, 3.0, 5.0], 1.0)


def missing(rng, length):
    start, transition, emission = chains(rng, length, 3)
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
    "left to right": left_to_right(RNG, 5),
    "never changing": never_changing(RNG, 5),
    "outliers": outliers(RNG, 5),
    "missing": missing(RNG, 5),
    "impossible step": impossible_step(RNG, 5),
}


def enumerated(*chain):
    """Every path and its log joint density with the data."""
    found = enumerate_in_logs(*chain)
    return found.paths, found.log_joint


def marginals(paths, joint, n_states):
    """Posterior of the state of each step, from all paths."""
    weights = special.softmax(joint)
    return np.stack([(weights[:, None] * (paths == k)).sum(0) for k in range(n_states)], axis=-1)


@pytest.mark.parametrize("case", CASES)
def test_messages_are_sums_over_all_paths(engine, case):
    given = CASES[case]
    paths, joint = enumerated(*given)
    evidence = special.logsumexp(joint)
    n_states = given[2].shape[-1]
    found = found_of(engine, given)
    # Sums of six terms, some of them 1e4: a few units in the last place.
    np.testing.assert_allclose(found["steps"], evidence, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(found["tree"], evidence, rtol=1e-13, atol=1e-13)
    expected = marginals(paths, joint, n_states)
    # The log joints are of size 1e4 at most, with errors of 1e-12.
    np.testing.assert_allclose(found["smoothed"], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(special.logsumexp(found["joint"], axis=-1), evidence, rtol=1e-12)
    for step in range(1, len(given[2]) + 1):
        until = enumerated(*given[:2], given[2][:step])
        now = marginals(*until, n_states)[-1]
        np.testing.assert_allclose(found["filtered"][step - 1], now, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_likeliest_path_is_the_best_of_all(engine, case):
    paths, joint = enumerated(*CASES[case])
    found = found_of(engine, CASES[case])
    np.testing.assert_array_equal(found["path"], paths[joint.argmax()])
    np.testing.assert_allclose(found["best"], joint.max(), rtol=1e-13)


@pytest.mark.parametrize("way", ["steps", "tree"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_expected_counts(engine, case, way):
    given = CASES[case]
    paths, joint = enumerated(*given)
    n_states = given[2].shape[-1]
    expected = marginals(paths, joint, n_states)
    moves = np.zeros((n_states, n_states))
    for weight, path in zip(special.softmax(joint), paths, strict=True):
        np.add.at(moves, (path[:-1], path[1:]), weight)
    found = found_of(engine, given)
    np.testing.assert_allclose(found[f"{way} emission"], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[f"{way} start"], expected[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[f"{way} transition"], moves, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", ["dense", "left to right", "never changing"])
def test_gradients_are_finite_differences(engine, case):
    parts = dict(zip(("start", "transition", "emission"), CASES[case], strict=True))
    found = found_of(engine, CASES[case])
    for part, at in [("transition", (0, 0)), ("emission", (0, 0)), ("emission", (-1, 1))]:
        values = []
        for change in (1e-5, -1e-5):
            moved = parts[part].copy()
            moved[at] += change
            values.append(special.logsumexp(enumerated(*{**parts, part: moved}.values())[1]))
        # Second order: 1e-10 times the third derivative, and rounding of 1e4 over 2e-5.
        difference = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(found[f"steps {part}"][at], difference, atol=1e-6)


def test_leading_axes_broadcast(engine):
    rng = np.random.default_rng(1)
    start = log(rng.dirichlet(np.ones(3), size=5))
    transition = log(rng.dirichlet(np.ones(3), size=(4, 1, 3)))
    emission = rng.normal(size=(2, 1, 1, 6, 3))
    found = found_of(engine, (start, transition, emission))
    drawn = kernel(engine.name, draw)(start, transition, emission, np.zeros(1))["path"]
    assert found["steps"].shape == found["tree"].shape == found["best"].shape == (2, 4, 5)
    assert found["path"].shape == drawn.shape == (2, 4, 5, 6)
    assert found["smoothed"].shape == found["filtered"].shape == (2, 4, 5, 6, 3)
    paths, joint = enumerated(start[3], transition[2, 0], emission[1, 0, 0])
    np.testing.assert_allclose(found["steps"][1, 2, 3], special.logsumexp(joint), rtol=1e-12)
    np.testing.assert_allclose(found["tree"], found["steps"], rtol=1e-12)
    np.testing.assert_array_equal(found["path"][1, 2, 3], paths[joint.argmax()])


def test_long_chains_with_outliers(engine):
    """Naive products underflow within a few hundred steps; scaled ones at the outliers."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=301)
    x[[7, 200]] = 1e3, -1e6
    start, transition, _ = left_to_right(rng, 1)
    emission = stats.norm.logpdf(x[:, None], [0.0, 1.0, 2.0], 1.0)
    emission[50:60] = 0.0
    found = found_of(engine, (start, transition, emission))
    for way in ("steps", "tree"):
        assert np.isfinite(found[way])
        np.testing.assert_allclose(found[f"{way} start"], [1.0, 0.0, 0.0], atol=1e-9)
        np.testing.assert_allclose(found[f"{way} emission"].sum(1), 1.0, rtol=1e-9)
        np.testing.assert_allclose(found[f"{way} transition"].sum(), 300.0, rtol=1e-9)
    np.testing.assert_allclose(found["steps"], found["tree"], rtol=1e-12)
    np.testing.assert_allclose(found["steps transition"], found["tree transition"], atol=1e-8)
    np.testing.assert_allclose(found["smoothed"], found["steps emission"], atol=1e-8)


def test_impossible_data_have_density_zero(engine):
    emission = np.zeros((5, 3))
    emission[1, 0] = -np.inf
    found = found_of(engine, (log([1.0, 0.0, 0.0]), log(np.eye(3)), emission))
    assert found["steps"] == found["tree"] == found["best"] == -np.inf
    for part in ("start", "transition", "emission"):
        assert np.isfinite(found[f"steps {part}"]).all()
        assert np.isfinite(found[f"tree {part}"]).all()
    assert np.isnan(found["smoothed"]).all()


def test_nan_is_not_taken_for_a_zero(engine):
    start, transition, emission = chains(np.random.default_rng(0), 5, 3)
    emission[1, 0] = np.nan
    found = found_of(engine, (start, transition, emission))
    assert np.isnan(found["steps"])
    assert np.isnan(found["tree"])


def draw(engine, log_start, log_transition, log_emission, repeats):
    emission = engine.ops.broadcast_to(log_emission, (*repeats.shape, *log_emission.shape))
    random = engine.random(1)
    return {
        "path": chain.draw_path(engine.ops, log_start, log_transition, emission, random).squeeze()
    }


@pytest.mark.parametrize("case", ["dense", "left to right", "impossible step", "one step"])
def test_paths_are_drawn_from_their_posterior(engine, case):
    given, n = CASES[case], 20_000
    drawn = kernel(engine.name, draw)(*given, np.zeros(n))["path"].reshape(n, -1)
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
    # The seeds are fixed: one of ten thousand would fail by chance.
    assert stats.chisquare(pooled[0][keep], pooled[1][keep]).pvalue > 1e-4
