"""The EM protocol of linear Gaussian state space models against dense normals."""

import dataclasses

import numpy as np
import pytest
from dense_gaussian import conditioned, joint, random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl_gen import EM, engines
from ppl_gen.algorithms.kalman import LinearGaussian
from ppl_gen.algorithms.kalman_paths import simulate
from ppl_gen.algorithms.trees import tree_leaves, tree_map
from ppl_gen.sequences import Padded, Sequences
from ppl_gen.structures.linear_gaussian import LinearGaussianStates

# Sums over a few dozen steps of well-conditioned conditionals.
ROUNDING = {"rtol": 1e-9, "atol": 1e-9}


def problem(seed=0, n_states=2, n_columns=3, lengths=(5, 3, 4), share=0.25, **settings):
    """A structure, parameters, and sequences of unequal length with holes."""
    rng = np.random.default_rng(seed)
    model = random_model(n_states, n_columns, seed)
    rows = []
    for length in lengths:
        noise = rng.normal(size=(length, n_states)), rng.normal(size=(length, n_columns))
        rows.append(simulate(model, *noise)[1])
    values = np.concatenate(rows)
    values[rng.random(values.shape) < share] = np.nan
    if lengths[0] > 2:
        values[1] = np.nan  # a whole step
    sequences = Sequences(values, np.array(lengths))
    structure = LinearGaussianStates(n_states, n_columns, **settings)
    return structure, model._asdict(), sequences


def dense_statistics(model, sequences):
    """The same sums from the dense conditional of all states and values of each sequence."""
    states, columns = len(model.initial_mean), len(model.observation_offset)
    total = None
    for i in range(len(sequences)):
        x = sequences[[i]].values
        steps = len(x)
        mean, spread = conditioned(model, x, steps)
        square = spread + np.outer(mean, mean)

        def z(t):
            return slice(t * states, (t + 1) * states)

        def value(t, steps=steps):
            return slice(steps * states + t * columns, steps * states + (t + 1) * columns)

        seen = np.flatnonzero(~np.isnan(x).all(axis=1))
        moves = range(1, seen[-1] + 1 if len(seen) else 1)
        found = {
            "initial": {
                "count": float(len(seen) > 0),
                "sum": mean[z(0)] * (len(seen) > 0),
                "square": square[z(0), z(0)] * (len(seen) > 0),
            },
            "transition": {
                "count": float(len(moves)),
                "gram": sum((square[z(t - 1), z(t - 1)] for t in moves), np.zeros((states,) * 2)),
                "sum": sum((mean[z(t - 1)] for t in moves), np.zeros(states)),
                "cross": sum((square[z(t), z(t - 1)] for t in moves), np.zeros((states,) * 2)),
                "target": sum((mean[z(t)] for t in moves), np.zeros(states)),
                "square": sum((square[z(t), z(t)] for t in moves), np.zeros((states,) * 2)),
            },
            "observation": {
                "count": float(len(seen)),
                "gram": sum((square[z(t), z(t)] for t in seen), np.zeros((states,) * 2)),
                "sum": sum((mean[z(t)] for t in seen), np.zeros(states)),
                "cross": sum((square[value(t), z(t)] for t in seen), np.zeros((columns, states))),
                "target": sum((mean[value(t)] for t in seen), np.zeros(columns)),
                "square": sum(
                    (square[value(t), value(t)] for t in seen), np.zeros((columns, columns))
                ),
            },
        }
        total = found if total is None else tree_map(lambda a, b: a + b, total, found)
    return total


def assert_trees_close(found, expected, **bounds):
    tree_map(lambda a, b: np.testing.assert_allclose(a, b, **bounds), found, expected)


@pytest.mark.parametrize("n_columns", [1, 3])
def test_the_e_step_is_the_dense_conditional(n_columns):
    structure, parameters, sequences = problem(n_columns=n_columns)
    statistics, log_likelihood = structure.e_step(parameters, sequences)
    model = LinearGaussian(**parameters)
    assert_trees_close(statistics, dense_statistics(model, sequences), **ROUNDING)
    expected = 0.0
    for i in range(3):
        x = sequences[[i]].values
        mean, full = joint(model, len(x))
        places = len(x) * 2 + np.flatnonzero(~np.isnan(x.ravel()))
        away = x.ravel()[~np.isnan(x.ravel())] - mean[places]
        block = full[np.ix_(places, places)]
        _, log_det = np.linalg.slogdet(2.0 * np.pi * block)
        expected -= 0.5 * (log_det + away @ np.linalg.solve(block, away))
    assert log_likelihood == pytest.approx(expected, rel=1e-10)
    assert structure.log_evidence(parameters, sequences).sum() == pytest.approx(expected, rel=1e-10)


def test_statistics_add_and_weights_are_repetitions():
    structure, parameters, sequences = problem()
    whole = structure.e_step(parameters, sequences)
    parts = [structure.e_step(parameters, sequences[[i]]) for i in range(3)]
    added = tree_map(lambda a, b, c: a + b + c, *(part[0] for part in parts))
    assert_trees_close(added, whole[0], **ROUNDING)
    weights = np.array([2.0, 1.0, 3.0])
    weighed = structure.e_step(parameters, dataclasses.replace(sequences, weights=weights))
    repeated = structure.e_step(parameters, sequences[np.array([0, 0, 1, 2, 2, 2])])
    assert_trees_close(weighed[0], repeated[0], **ROUNDING)
    assert weighed[1] == pytest.approx(repeated[1], rel=1e-12)


def test_a_sequence_without_values_says_nothing():
    structure, parameters, sequences = problem()
    empty = Sequences(
        np.concatenate([sequences.values, np.full((4, 3), np.nan)]),
        np.append(sequences.lengths, 4),
    )
    for found, expected in zip(
        structure.e_step(parameters, empty), structure.e_step(parameters, sequences), strict=True
    ):
        assert_trees_close(found, expected, **ROUNDING)
    assert structure.log_evidence(parameters, empty)[-1] == 0.0


def test_jax_finds_the_same_statistics():
    structure, parameters, sequences = problem()
    expected = structure.e_step(parameters, sequences)
    engine = engines.get("numpyro")
    with engine.precision(device="cpu"):
        import jax

        arrays = tuple(
            None if a is None else engine.asarray(a) for a in Padded.of(sequences).arrays
        )
        step = jax.jit(lambda p, a: structure.e_step(p, Padded(*a)))
        found = step(tree_map(engine.asarray, parameters), arrays)
        assert_trees_close(tree_map(engine.to_numpy, found[0]), expected[0], **ROUNDING)
        assert float(found[1]) == pytest.approx(float(expected[1]), rel=1e-11)


FIXINGS = [
    {},
    {"transition": np.array([[0.5, 0.1], [0.0, 0.7]])},
    {"transition_offset": np.zeros(2)},
    {"observation": np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])},
    {"observation_offset": np.ones(3), "transition_covariance": np.eye(2)},
    {"initial_mean": np.zeros(2), "initial_covariance": np.eye(2)},
]


@pytest.mark.parametrize("fixed", FIXINGS, ids=lambda f: "+".join(f) or "none")
@pytest.mark.parametrize("diagonal", [(), ("transition_covariance", "observation_covariance")])
def test_the_m_step_is_a_maximum(fixed, diagonal):
    """No small move of a learned parameter raises the expected log density."""
    structure, parameters, sequences = problem(fixed=fixed, diagonal=diagonal, floor=0.01)
    parameters = {**parameters, **fixed}
    statistics, _ = structure.e_step(parameters, sequences)
    best = structure.m_step(statistics)

    def expected(moved):
        return _expected_log_density(moved, statistics) - structure.penalty(moved, statistics)

    top = expected(best)
    rng = np.random.default_rng(0)
    for name, value in best.items():
        if name in fixed:
            np.testing.assert_array_equal(value, fixed[name])
            continue
        for _ in range(5):
            push = 1e-4 * rng.normal(size=value.shape)
            if name.endswith("_covariance"):
                push = np.diag(np.diagonal(push)) if name in diagonal else push + push.T
            assert expected({**best, name: value + push}) < top


def _expected_log_density(p, s):
    """The expected complete log density, up to constants, written out once more."""
    total = 0.0
    parts = {
        "transition": ("transition", "transition_offset", "transition_covariance"),
        "observation": ("observation", "observation_offset", "observation_covariance"),
    }
    for part, (matrix, offset, covariance) in parts.items():
        sums, a, b = s[part], p[matrix], p[offset]
        cross = sums["cross"] @ a.T + np.outer(sums["target"] - a @ sums["sum"], b)
        spread = (
            sums["square"]
            - cross
            - cross.T
            + a @ sums["gram"] @ a.T
            + sums["count"] * np.outer(b, b)
        )
        total += _log_normal(p[covariance], spread, sums["count"])
    sums, m = s["initial"], p["initial_mean"]
    cross = np.outer(m, sums["sum"])
    spread = sums["square"] - cross - cross.T + sums["count"] * np.outer(m, m)
    return total + _log_normal(p["initial_covariance"], spread, sums["count"])


def _log_normal(covariance, spread, count):
    _, log_det = np.linalg.slogdet(covariance)
    return -0.5 * (count * log_det + np.trace(np.linalg.solve(covariance, spread)))


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_em_never_lowers_the_objective(seed, n_states, n_columns, diagonal):
    """EM warns of a fall, and warnings are errors here."""
    both = ("transition_covariance", "observation_covariance") if diagonal else ()
    structure, _, sequences = problem(seed, n_states, n_columns, lengths=(12, 1, 7), diagonal=both)
    rng = np.random.default_rng(seed)
    result = EM(max_iter=15, tol=0.0).fit(structure, sequences, rng)
    assert np.diff(result.history).min() > -1e-9
    assert all(np.isfinite(leaf).all() for leaf in tree_leaves(result.parameters))


@pytest.mark.parametrize("how", ["kmeans", "random"])
def test_starts_differ_and_are_models(how):
    structure, _, sequences = problem(lengths=(30, 20))
    rng = np.random.default_rng(0)
    a, b = (structure.initialize(sequences, rng, how) for _ in range(2))
    assert not np.allclose(a["transition"], b["transition"])
    for start in (a, b):
        for name in ("initial_covariance", "transition_covariance", "observation_covariance"):
            assert np.linalg.eigvalsh(start[name])[0] > 0.0
        assert np.abs(np.linalg.eigvals(start["transition"])).max() < 1.0


def test_states_and_fillings_are_the_dense_conditional():
    structure, parameters, sequences = problem()
    model = LinearGaussian(**parameters)
    means, covariances = structure.states(parameters, sequences, smooth=True)
    filled = structure.fill(parameters, sequences)
    last_mean, last_covariance = structure.last_states(parameters, sequences)
    for i, (end, length) in enumerate(zip(sequences.ends, sequences.lengths, strict=True)):
        rows = slice(end - length, end)
        mean, spread = conditioned(model, sequences.values[rows], length)
        np.testing.assert_allclose(means[rows].ravel(), mean[: 2 * length], **ROUNDING)
        for t in range(length):
            block = slice(2 * t, 2 * t + 2)
            np.testing.assert_allclose(
                covariances[end - length + t], spread[block, block], **ROUNDING
            )
        np.testing.assert_allclose(filled[rows].ravel(), mean[2 * length :], **ROUNDING)
        np.testing.assert_allclose(last_mean[i], mean[2 * length - 2 : 2 * length], **ROUNDING)
        np.testing.assert_allclose(last_covariance[i], spread[block, block], **ROUNDING)


def test_drawn_fillings_have_the_conditional_moments():
    structure, parameters, sequences = problem(lengths=(4,), share=0.4)
    rng = np.random.default_rng(0)
    draws = np.stack(
        [structure.draw_missing(parameters, sequences, rng).ravel() for _ in range(4000)]
    )
    mean, spread = conditioned(LinearGaussian(**parameters), sequences.values, 4)
    mean, spread = mean[8:], spread[8:, 8:]
    deviation = np.sqrt(np.maximum(np.diagonal(spread), 0.0))
    # Five standard errors over four thousand draws.
    error = 5.0 / np.sqrt(4000)
    assert (np.abs(draws.mean(axis=0) - mean) <= error * deviation + 1e-9).all()
    away = np.cov(draws.T) - spread
    assert (np.abs(away) <= 1.5 * error * np.outer(deviation, deviation) + 1e-9).all()


def test_trees_bring_the_structure_back():
    structure, _, sequences = problem(fixed={"transition": np.eye(2)}, diagonal=("a",))
    bound = structure.bind(sequences)
    again = LinearGaussianStates.from_tree(bound.to_tree())
    assert again.diagonal == ("a",)
    assert_trees_close(again.prior, bound.prior, rtol=0, atol=0)
    np.testing.assert_array_equal(again.fixed["transition"], np.eye(2))
