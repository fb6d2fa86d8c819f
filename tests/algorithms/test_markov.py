"""Transition matrices beside closed forms, powers, linear systems and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl_gen.algorithms import markov

WALK = np.array([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [0.0, 0.5, 0.5]])
#: Two closed classes, {1} and {3, 4}; 0 and 2 are transient.
SPLIT = np.array(
    [
        [0.2, 0.3, 0.5, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0, 0.0],
        [0.4, 0.0, 0.0, 0.6, 0.0],
        [0.0, 0.0, 0.0, 0.0, 1.0],
        [0.0, 0.0, 0.0, 1.0, 0.0],
    ]
)


@st.composite
def matrices(draw):
    """Stochastic matrices with zeros in them."""
    size = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    weights = rng.random((size, size)) * (rng.random((size, size)) < draw(st.floats(0.2, 1.0)))
    empty = weights.sum(axis=1) == 0.0
    weights[empty, rng.integers(size, size=empty.sum())] = 1.0
    return weights / weights.sum(axis=1, keepdims=True)


def gamblers_ruin(top, up):
    matrix = np.zeros((top + 1, top + 1))
    matrix[0, 0] = matrix[top, top] = 1.0
    for i in range(1, top):
        matrix[i, i + 1], matrix[i, i - 1] = up, 1.0 - up
    return matrix


@pytest.mark.parametrize("up", [0.3, 0.5, 0.55])
def test_gamblers_ruin(up):
    """Feller (1968), chapter XIV: chance of ruin, and duration of the game."""
    top = 8
    matrix = gamblers_ruin(top, up)
    fortune = np.arange(top + 1)
    if up == 0.5:
        winning, duration = fortune / top, fortune * (top - fortune)
    else:
        ratio = (1.0 - up) / up
        winning = (ratio**fortune - 1.0) / (ratio**top - 1.0)
        duration = (fortune - top * winning) / (1.0 - 2.0 * up)
    # A system of seven equations, well conditioned.
    np.testing.assert_allclose(
        markov.absorption_probabilities(matrix), np.column_stack([1 - winning, winning]), atol=1e-12
    )
    np.testing.assert_allclose(markov.hitting_times(matrix, [0, top]), duration, atol=1e-11)
    assert [c.tolist() for c in markov.recurrent_classes(matrix)] == [[0], [top]]
    with pytest.raises(ValueError, match=r"2 recurrent classes, \[0\], \[8\], .* prior counts"):
        markov.stationary_distribution(matrix)


def test_hitting_times_by_simulation():
    rng = np.random.default_rng(0)
    state = np.zeros(20_000, dtype=int)
    steps = np.zeros(len(state))
    while (away := state != 2).any():
        steps[away] += 1
        heights = rng.random(away.sum())[:, None]
        state[away] = (heights >= WALK.cumsum(axis=1)[state[away], :-1]).sum(axis=1)
    error = steps.std() / np.sqrt(len(steps))
    assert steps.mean() == pytest.approx(markov.hitting_times(WALK, [2])[0], abs=4 * error)


def test_what_may_never_be_hit_is_infinitely_far():
    np.testing.assert_array_equal(
        markov.hitting_times(SPLIT, [1]), [np.inf, 0.0, np.inf, np.inf, np.inf]
    )
    # From a target itself it is no step at all, even where it is left for ever.
    np.testing.assert_allclose(markov.hitting_times(SPLIT, [1, 3, 4])[[1, 3, 4]], 0.0)
    assert np.isfinite(markov.hitting_times(SPLIT, [1, 4])).all()
    assert markov.hitting_times(SPLIT, [0])[2] == np.inf


def test_split_chain():
    assert [c.tolist() for c in markov.recurrent_classes(SPLIT)] == [[1], [3, 4]]
    # a = .3 + .5 b, b = .4 a, over 1 - .2: by hand.
    into_one = 0.3 / (0.8 - 0.5 * 0.4)
    np.testing.assert_allclose(
        markov.absorption_probabilities(SPLIT)[[0, 2], 0], [into_one, 0.4 * into_one], rtol=1e-14
    )
    assert not markov.is_irreducible(SPLIT)
    with pytest.raises(ValueError, match="reducible"):
        markov.period(SPLIT)


@given(matrices())
def test_stationary_distributions_stay(matrix):
    classes = markov.recurrent_classes(matrix)
    assert classes
    if len(classes) > 1:
        with pytest.raises(ValueError, match="recurrent classes"):
            markov.stationary_distribution(matrix)
        return
    found = markov.stationary_distribution(matrix)
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0.0).all()
    np.testing.assert_allclose(found @ matrix, found, atol=1e-13)
    np.testing.assert_array_equal(np.flatnonzero(found), classes[0])


@given(matrices())
def test_absorption_is_where_a_long_walk_ends(matrix):
    found = markov.absorption_probabilities(matrix)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-9)
    # Mass on each class only grows along the powers of the matrix, and its sum is one at last.
    far = np.linalg.matrix_power(matrix, 64)
    for place, states in enumerate(markov.recurrent_classes(matrix)):
        assert (far[:, states].sum(axis=1) <= found[:, place] + 1e-9).all()


@given(matrices(), st.data())
def test_hitting_times_solve_their_equation(matrix, data):
    targets = data.draw(st.sets(st.integers(0, len(matrix) - 1), min_size=1))
    found = markov.hitting_times(matrix, sorted(targets))
    for i in range(len(matrix)):
        if i in targets:
            assert found[i] == 0.0
            continue
        ahead = np.flatnonzero(matrix[i])
        assert found[i] == pytest.approx(1.0 + (matrix[i, ahead] * found[ahead]).sum(), rel=1e-6)


def test_stationary_is_the_limit_of_powers():
    power = np.linalg.matrix_power(WALK, 200)
    np.testing.assert_allclose(markov.stationary_distribution(WALK), power[0], rtol=1e-12)


def test_tiny_probabilities_keep_their_digits():
    """Two states that hardly ever change: pi is the ratio of the two rates."""
    matrix = np.array([[1.0 - 1e-14, 1e-14], [3e-14, 1.0 - 3e-14]])
    np.testing.assert_allclose(markov.stationary_distribution(matrix), [0.75, 0.25], rtol=1e-14)


def test_periods():
    cycle = np.roll(np.eye(6), 1, axis=1)
    assert markov.period(cycle) == 6
    cycle[0] = 0.0
    cycle[0, [1, 3]] = 0.5  # cycles of six and of four
    assert markov.period(cycle) == 2
    cycle[0] = 0.0
    cycle[0, [1, 2]] = 0.5  # of six and of five
    assert markov.period(cycle) == 1
    assert markov.period(np.ones((1, 1))) == 1
    # A periodic chain has no limit, but spends its time evenly.
    np.testing.assert_allclose(markov.stationary_distribution(np.roll(np.eye(3), 1, 1)), 1 / 3)


@pytest.mark.parametrize(
    ("matrix", "told"),
    [
        ([[0.5, 0.6], [0.5, 0.5]], "row 0 .* sums to 1.1"),
        ([[1.5, -0.5], [0.5, 0.5]], "least entry -0.5"),
        ([[0.5, 0.5]], r"shape \(1, 2\); expected \(K, K\)"),
        ([[np.nan, 1.0], [0.5, 0.5]], "row 0"),
        (np.zeros((0, 0)), "shape"),
    ],
)
def test_bad_matrices(matrix, told):
    with pytest.raises(ValueError, match=told):
        markov.stationary_distribution(matrix)
