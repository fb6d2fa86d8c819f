"""Paths of many chains at once, whole and cut in pieces: the likeliest one, and draws."""

import numpy as np
import pytest
from chain_problems import BLOCKS, KINDS, chain, emissions_of, parts, possible, problems
from scipy import stats

from ppl_gen.algorithms import hidden_markov_paths, side_by_side
from ppl_gen.algorithms.hidden_markov import Emissions, filter_steps, forecast
from ppl_gen.algorithms.hidden_markov_paths import (
    draw_ahead,
    draw_paths,
    viterbi,
    viterbi_in_logs,
)


@pytest.fixture(params=BLOCKS, ids=lambda block: f"cut at {block}" if block else "whole")
def laid(request, monkeypatch):
    """Lay emissions out, cut or not."""
    block = request.param
    monkeypatch.setattr(
        side_by_side, "_block", lambda lengths, n_states: block or int(lengths.max())
    )
    return Emissions.of


every_kind = pytest.mark.parametrize("kind", KINDS)
with_zeros = pytest.mark.parametrize("zeros", [False, True], ids=["dense", "zeros"])


@every_kind
@with_zeros
def test_the_likeliest_path_is_the_best_of_all(laid, kind, zeros):
    for start, transition, logs, lengths in problems(kind, zeros):
        paths = possible(start, transition, logs, lengths)
        if paths is None:
            continue
        scores, states = viterbi(start, transition, laid(logs, lengths))
        for p, score, path in zip(paths, scores, parts(states, lengths), strict=True):
            best = p.log_joint.max()
            np.testing.assert_allclose(score, best, rtol=1e-13, atol=1e-10)
            # Missing steps make ties, which rounding decides.
            np.testing.assert_allclose(p.score_of(path), best, rtol=1e-13, atol=1e-10)


def test_the_first_of_equally_likely_paths_is_taken(laid):
    uniform = np.full((3, 3), 1.0 / 3.0)
    score, path = viterbi(uniform[0], uniform, laid(np.zeros((5, 3)), [2, 3]))
    np.testing.assert_array_equal(path, 0)
    np.testing.assert_allclose(score, np.log(1.0 / 3.0) * np.array([2, 3]))


def test_log_weights_need_not_be_normalised(laid):
    rng = np.random.default_rng(4)
    start, transition = chain(rng, 3)
    logs = rng.normal(size=(9, 3))
    emissions = laid(logs, [4, 5])
    score, path = viterbi(start, transition, emissions)
    raised = viterbi_in_logs(np.log(start) + 2.0, np.log(transition) - 1.0, emissions)
    np.testing.assert_array_equal(raised[1], path)
    np.testing.assert_allclose(raised[0], score + 2.0 - np.array([3, 4]), rtol=1e-13)


def test_forecasts_are_filtered_steps_without_observations():
    rng = np.random.default_rng(7)
    start, transition = chain(rng, 3)
    logs = rng.normal(size=(8, 3))
    logs[5:] = 0.0  # not observed
    steps = filter_steps(start, transition, Emissions.of(logs, [8]))
    ahead = forecast(steps[4], transition, 3)
    assert ahead.shape == (3, 3)
    np.testing.assert_allclose(ahead, steps[5:], atol=1e-14)
    several = forecast(steps[:2], transition, 4)
    assert several.shape == (2, 4, 3)
    np.testing.assert_allclose(several[1, 3], steps[1] @ np.linalg.matrix_power(transition, 4))


@pytest.mark.parametrize("kind", ["near", "missing", "excluded", "far 1e3"])
@with_zeros
def test_paths_are_drawn_from_their_posterior(laid, kind, zeros):
    rng = np.random.default_rng(8)
    lengths, n = np.array([4, 1, 5]), 20_000
    while True:
        start, transition = chain(rng, 3, zeros)
        logs = emissions_of(rng, kind, lengths.sum(), 3)
        paths = possible(start, transition, logs, lengths)
        if paths is not None:
            break
    drawn = draw_paths(start, transition, laid(logs, lengths), rng, n)
    assert drawn.shape == (n, 10)
    for p, own in zip(paths, np.split(drawn, np.cumsum(lengths)[:-1], axis=1), strict=True):
        place = 3 ** np.arange(own.shape[1])[::-1]
        counts = np.bincount(own @ place, minlength=len(p.paths))
        expected = n * p.weights
        assert counts[expected < 1e-9 * n].sum() == 0
        # Paths of fewer than five expected draws count as one.
        rare = expected < 5.0
        pooled = [np.append(x[~rare], x[rare].sum()) for x in (counts, expected)]
        keep = pooled[1] > 0.5
        if keep.sum() > 1:
            observed, model = pooled[0][keep], pooled[1][keep]
            # The seed is fixed: one test in ten thousand would fail by chance.
            assert stats.chisquare(observed, model * observed.sum() / model.sum()).pvalue > 1e-4
        for t, pairs in enumerate(p.pairs):
            found = np.zeros((3, 3))
            np.add.at(found, (own[:, t], own[:, t + 1]), 1.0 / n)
            # Five standard errors of a share of 20,000 draws.
            np.testing.assert_allclose(found, pairs, atol=5.0 * 0.5 / np.sqrt(n))


@pytest.mark.parametrize("kind", ["near", "missing", "excluded"])
@with_zeros
@pytest.mark.parametrize("n_draws", [1, 3])
def test_cuts_do_not_change_the_paths_that_are_drawn(monkeypatch, kind, zeros, n_draws):
    """Chains that forget, and some that hardly do, so that pieces are traced again and again."""
    rng = np.random.default_rng([KINDS.index(kind), zeros])
    lengths = np.array([90, 1, 400, 33])
    for stay in (0.0, 0.9, 0.999):
        start, transition = chain(rng, 4, zeros)
        transition = (1.0 - stay) * transition + stay * np.eye(4)
        logs = emissions_of(rng, kind, lengths.sum(), 4) * (0.1 if kind == "near" else 1.0)
        found = []
        for block in (500, 20, 7):
            monkeypatch.setattr(side_by_side, "_block", lambda *_, block=block: block)
            emissions = Emissions.of(logs, lengths)
            assert emissions.layout.is_cut == (block < 500)
            source = np.random.default_rng(5)
            found.append(draw_paths(start, transition, emissions, source, n_draws))
        np.testing.assert_array_equal(found[1], found[0])
        np.testing.assert_array_equal(found[2], found[0])


def test_paths_of_long_sequences_are_drawn_in_pieces():
    """In some hundred steps of pieces side by side, and not in one for each of the sequence."""
    rng = np.random.default_rng(6)
    start, transition = chain(rng, 3)
    emissions = Emissions.of(rng.normal(size=(20_000, 3)), [20_000])
    calls = 0
    states = hidden_markov_paths._Draws.states

    def counted(self, *args):
        nonlocal calls
        calls += 1
        return states(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hidden_markov_paths._Draws, "states", counted)
        draw_paths(start, transition, emissions, rng)
    assert calls < 1000


def test_steps_ahead_are_drawn_by_the_transitions():
    """Also where the last states are excluded, into which rounding could lead."""
    rng = np.random.default_rng(9)
    transition = np.array([[0.5, 0.5, 0.0], [0.3, 0.7, 0.0], [0.2, 0.8, 0.0]])
    shares = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    n = 40_000
    drawn = draw_ahead(np.broadcast_to(shares, (n, 2, 3)), transition, 3, rng)
    assert drawn.shape == (n, 2, 3)
    found = (drawn[..., None] == np.arange(3)).mean(axis=0)
    # Five standard errors of a share of 40,000 draws.
    np.testing.assert_allclose(found, forecast(shares, transition, 3), atol=5.0 * 0.5 / np.sqrt(n))
    assert (found[..., 2] == 0.0).all()
    moves = np.zeros((3, 3))
    np.add.at(moves, (drawn[..., 0], drawn[..., 1]), 1.0)
    moves = moves[:2] / moves[:2].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(moves, transition[:2], atol=5.0 * 0.5 / np.sqrt(n / 2))


class Highest:
    """A source of the largest uniform numbers there are."""

    def random(self, shape):
        return np.full(shape, 1.0 - 2.0**-53)


def test_the_largest_numbers_lead_to_no_excluded_state():
    n_states = 50
    transition = np.zeros((n_states, n_states))
    transition[:, 48] = 1.0
    transition[:, :48] = 0.1  # normalised to rows with rounding
    transition /= transition.sum(axis=1, keepdims=True)
    drawn = draw_ahead(np.full((4, n_states), 1.0 / n_states), transition, 4, Highest())
    assert (drawn == 48).all()
