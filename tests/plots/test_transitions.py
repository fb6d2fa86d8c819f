"""Arrows are the probabilities: which there are, how wide, and what is written."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Circle, FancyArrowPatch

from ppl_gen import HiddenMarkovModel, MarkovChain, plots

MATRIX = np.array([[0.7, 0.3, 0.0, 0.0], [0.2, 0.0, 0.8, 0.0], [0.001, 0.099, 0.6, 0.3]])
MATRIX = np.vstack([MATRIX, [0.0, 0.0, 0.0, 1.0]])


def parts(ax):
    arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    circles = [patch for patch in ax.patches if isinstance(patch, Circle)]
    return arrows, circles


def test_every_transition_has_its_arrow_and_others_have_none():
    ax = plots.plot_transitions(MATRIX)
    arrows, circles = parts(ax)
    shares = [MATRIX[i, j] for i in range(4) for j in range(4) if MATRIX[i, j] >= 0.005]
    assert len(circles) == 4
    assert len(arrows) == len(shares) == 8
    written = [text.get_text() for text in ax.texts]
    assert written[:4] == ["0", "1", "2", "3"]
    assert sorted(written[4:]) == sorted(f"{share:.2f}" for share in shares)
    widths = [arrow.get_linewidth() for arrow in arrows]
    # As wide as they are probable: the order of one is that of the other.
    np.testing.assert_array_equal(
        np.argsort(widths, kind="stable"),
        np.argsort([float(text) for text in written[4:]], kind="stable"),
    )


def test_arrows_go_from_circle_to_circle_and_loops_come_back():
    ax = plots.plot_transitions(MATRIX)
    arrows, circles = parts(ax)
    centres = np.array([circle.center for circle in circles])
    radius = circles[0].radius
    pairs = set()
    for arrow in arrows:
        ends = np.array(arrow._posA_posB)
        away = np.linalg.norm(ends[:, None] - centres, axis=-1)
        near = away.argmin(axis=1)
        np.testing.assert_allclose(away.min(axis=1), radius)
        pairs.add(tuple(near.tolist()))
    assert pairs == {tuple(pair) for pair in np.argwhere(MATRIX >= 0.005).tolist()}


def test_small_probabilities_are_shown_on_request():
    ax = plots.plot_transitions(MATRIX, at_least=1e-4)
    assert len(parts(ax)[0]) == 9


def test_models_bring_their_matrix_and_the_names_of_their_states():
    chain = MarkovChain().fit([list("aabab"), list("babb")])
    ax = plots.plot_transitions(chain)
    assert [text.get_text() for text in ax.texts][:2] == ["a", "b"]
    X = np.repeat([0.0, 9.0], 10) + np.random.default_rng(0).normal(size=20)
    model = HiddenMarkovModel(2, random_state=0).fit(X)
    ax = plots.plot_transitions(model, names=["low", "high"])
    written = [text.get_text() for text in ax.texts]
    assert written[:2] == ["low", "high"]
    shares = model.transmat_[model.transmat_ >= 0.005]
    assert written[2:] == [f"{share:.2f}" for share in shares]


def test_a_state_alone_has_its_loop():
    arrows, circles = parts(plots.plot_transitions([[1.0]]))
    assert (len(arrows), len(circles)) == (1, 1)


@pytest.mark.parametrize("n_states", [1, 2, 3, 7])
def test_all_is_within_the_axes(n_states):
    matrix = np.full((n_states, n_states), 1.0 / n_states)
    ax = plots.plot_transitions(matrix)
    for text in ax.texts:
        x, y = text.get_position()
        assert ax.get_xlim()[0] < x < ax.get_xlim()[1]
        assert ax.get_ylim()[0] < y < ax.get_ylim()[1]


def test_what_is_no_transition_matrix_is_refused():
    with pytest.raises(ValueError, match="row 1 of the transition matrix sums"):
        plots.plot_transitions([[1.0, 0.0], [0.5, 1.0]])
    with pytest.raises(ValueError, match=r"has shape \(1, 2\)"):
        plots.plot_transitions([[0.5, 0.5]])
    with pytest.raises(ValueError, match="1 names, but 4 states"):
        plots.plot_transitions(MATRIX, names=["a"])


def test_axes_that_are_given_are_drawn_on():
    ax = plt.figure().add_subplot()
    assert plots.plot_transitions(MATRIX, ax=ax) is ax
