"""Many chains at once on NumPy, whole and cut in pieces, against the sums over all paths."""

import functools

import numpy as np
import pytest
from all_paths import enumerate_paths, filtered
from chain_problems import BLOCKS, KINDS, chain, parts, possible, problems
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from ppl_gen import engines
from ppl_gen.algorithms import hidden_markov_scan, side_by_side
from ppl_gen.algorithms.hidden_markov import (
    Emissions,
    filter_steps,
    log_evidence,
    smooth,
)
from ppl_gen.algorithms.hidden_markov_logs import forward_in_logs, smooth_in_logs
from ppl_gen.algorithms.hidden_markov_paths import draw_paths, viterbi


@pytest.fixture(params=BLOCKS, ids=lambda block: f"cut at {block}" if block else "whole")
def laid(request, monkeypatch):
    """Lay emissions out, cut or not."""
    block = request.param
    monkeypatch.setattr(
        side_by_side, "_block", lambda lengths, n_states: block or int(lengths.max())
    )
    return Emissions.of


def by_row(found, emissions):
    rows = np.empty_like(found.marginals)
    rows[emissions.layout.rows] = found.marginals
    return rows


def never_changing(n_steps):
    """The better state at first is far the worse one in the end, and there is no way back."""
    logs = np.zeros((n_steps, 3))
    logs[0], logs[-1] = [0.0, -5e3, -1e4], [-2e4, 0.0, -3e4]
    return np.full(3, 1.0 / 3.0), np.eye(3), logs


def dead_end(n_steps):
    """A state that is far the likelier for a step can not be left but for what then is excluded."""
    logs = np.zeros((n_steps, 3))
    logs[1] = [-800.0, 0.0, -np.inf]
    logs[3] = [-900.0, 0.0, 0.0]
    logs[4, 1] = -np.inf
    transition = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]])
    return np.array([0.5, 0.5, 0.0]), transition, logs


@pytest.mark.parametrize("problem", [never_changing, dead_end])
def test_paths_that_are_lost_for_a_while_come_back(laid, problem):
    start, transition, logs = problem(6)
    paths = enumerate_paths(start, transition, logs)
    emissions = laid(logs, [6])
    found = smooth(start, transition, emissions)
    np.testing.assert_allclose(found.log_evidence, paths.evidence, rtol=1e-13)
    np.testing.assert_allclose(by_row(found, emissions), paths.marginals, atol=1e-10)
    np.testing.assert_allclose(found.transitions, paths.pairs.sum(axis=0), atol=1e-10)
    np.testing.assert_allclose(
        filter_steps(start, transition, emissions), filtered(start, transition, logs), atol=1e-10
    )
    drawn = draw_paths(start, transition, emissions, np.random.default_rng(0), 200)
    shares = (drawn[:, :, None] == np.arange(3)).mean(axis=0)
    # Five standard errors of 200 draws; what is impossible is never drawn.
    np.testing.assert_allclose(shares, paths.marginals, atol=0.18)
    assert (shares[paths.marginals < 1e-12] == 0.0).all()


def far_apart(rng):
    """A chain with zeros or nearly so, and steps that all but exclude states for a while."""
    n_states, lengths = int(rng.integers(2, 6)), rng.integers(1, 40, size=rng.integers(1, 4))
    start = rng.dirichlet(np.full(n_states, rng.choice([0.01, 1.0])))
    transition = rng.dirichlet(np.full(n_states, rng.choice([0.01, 1.0])), size=n_states)
    if rng.random() < 0.5:
        transition *= rng.random(transition.shape) < 0.6
        transition += np.eye(n_states) * (transition.sum(axis=1, keepdims=True) == 0.0)
        transition /= transition.sum(axis=1, keepdims=True)
    logs = rng.normal(size=(lengths.sum(), n_states), scale=rng.choice([30.0, 200.0, 700.0]))
    logs[rng.random(len(logs)) < rng.choice([0.0, 0.8])] = 0.0
    if rng.random() < 0.3:
        logs[rng.random(logs.shape) < 0.2] = -np.inf
    return start, transition, logs, lengths


def test_what_scaling_loses_is_found_again(laid):
    """Against messages in logarithms, on chains too long for sums over paths."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        start, transition, logs, lengths = far_apart(rng)
        emissions = laid(logs, lengths)
        found, steps = (
            smooth(start, transition, emissions),
            filter_steps(start, transition, emissions),
        )
        each = zip(parts(logs, lengths), parts(by_row(found, emissions), lengths), strict=True)
        for number, (own, marginals) in enumerate(each):
            evidence, expected, _ = smooth_in_logs(start, transition, own)
            assert found.log_evidence[number] == pytest.approx(evidence, rel=1e-12, abs=1e-12)
            # Logarithms of size 1e5 have errors of 1e-11.
            np.testing.assert_allclose(marginals, expected, atol=1e-9)
        for own, shares in zip(parts(logs, lengths), parts(steps, lengths), strict=True):
            forward, _ = forward_in_logs(start, transition, own)
            with np.errstate(invalid="ignore"):
                expected = np.exp(forward - logsumexp(forward, axis=1, keepdims=True))
            np.testing.assert_allclose(shares, expected, atol=1e-9)


def test_what_all_states_share_costs_logarithms_no_accuracy():
    """Log densities near -1e5 a step, so that those of the sequence are near -3e8."""
    rng = np.random.default_rng(1)
    start, transition = chain(rng, 3)
    logs = np.round(rng.normal(size=(3000, 3)) * 2.0**20) / 2.0**20
    evidence, marginals, moves = smooth_in_logs(start, transition, logs)
    lower = smooth_in_logs(start, transition, logs - 2.0**17)  # no digit is lost
    assert lower[0] == pytest.approx(evidence - 3000 * 2.0**17, rel=1e-14)
    np.testing.assert_allclose(lower[1], marginals, atol=1e-14)
    np.testing.assert_allclose(lower[2], moves, rtol=1e-13)
    emissions = Emissions.of(logs, [3000])
    found = smooth(start, transition, emissions)
    np.testing.assert_allclose(marginals, by_row(found, emissions), atol=1e-12)
    np.testing.assert_allclose(moves, found.transitions, rtol=1e-11)
    assert evidence == pytest.approx(found.log_evidence[0], rel=1e-13)


def accuracy(kind):
    """Rounding: of logarithms of this size a unit in the last place, and some dozen of them."""
    return 1e-10 if kind != "far 1e5" else 1e-9


every_kind = pytest.mark.parametrize("kind", KINDS)
with_zeros = pytest.mark.parametrize("zeros", [False, True], ids=["dense", "zeros"])


@every_kind
@with_zeros
def test_smoothing_is_the_sum_over_all_paths(laid, kind, zeros):
    n_checked = 0
    for start, transition, logs, lengths in problems(kind, zeros):
        paths = possible(start, transition, logs, lengths)
        if paths is None:
            continue
        n_checked += 1
        emissions = laid(logs, lengths)
        found = smooth(start, transition, emissions)
        expected = [p.evidence for p in paths]
        # Twelve digits of what may be 1e6.
        np.testing.assert_allclose(found.log_evidence, expected, rtol=1e-13, atol=1e-10)
        np.testing.assert_allclose(
            log_evidence(start, transition, emissions), expected, rtol=1e-13, atol=1e-10
        )
        atol = accuracy(kind)
        marginals = np.concatenate([p.marginals for p in paths])
        np.testing.assert_allclose(by_row(found, emissions), marginals, atol=atol)
        np.testing.assert_allclose(found.start, sum(p.marginals[0] for p in paths), atol=atol)
        moves = sum(p.pairs.sum(axis=0) for p in paths)
        np.testing.assert_allclose(found.transitions, moves, atol=atol)
    assert n_checked >= 4


@every_kind
@with_zeros
def test_filtering_is_the_sum_over_all_paths_so_far(laid, kind, zeros):
    for start, transition, logs, lengths in problems(kind, zeros):
        if possible(start, transition, logs, lengths) is None:
            continue
        found = filter_steps(start, transition, laid(logs, lengths))
        expected = [filtered(start, transition, own) for own in parts(logs, lengths)]
        np.testing.assert_allclose(found, np.concatenate(expected), atol=accuracy(kind))


def test_weights_count_sequences_more_than_once(laid):
    rng = np.random.default_rng(5)
    lengths, weights = np.array([4, 1, 6]), np.array([2.0, 3.0, 0.5])
    for scale in (1.0, 1e3):  # by scaling, and in logarithms
        start, transition = chain(rng, 3, zeros=scale > 1.0)
        logs = rng.normal(size=(lengths.sum(), 3)) * scale
        emissions = laid(logs, lengths)
        found = smooth(start, transition, emissions, weights)
        paths = [enumerate_paths(start, transition, own) for own in parts(logs, lengths)]
        np.testing.assert_allclose(found.log_evidence, [p.evidence for p in paths], rtol=1e-12)
        pairs = list(zip(weights, paths, strict=True))
        expected = np.concatenate([w * p.marginals for w, p in pairs])
        np.testing.assert_allclose(by_row(found, emissions), expected, atol=1e-10)
        np.testing.assert_allclose(
            found.start, sum(w * p.marginals[0] for w, p in pairs), atol=1e-10
        )
        np.testing.assert_allclose(
            found.transitions, sum(w * p.pairs.sum(axis=0) for w, p in pairs), atol=1e-10
        )


# -- known answers ---------------------------------------------------------------------------------


def test_the_umbrella_world():
    """Russell & Norvig, Artificial Intelligence, section 15.2: rain, and who has an umbrella.

    Rain is as likely as not on the first of five days, with umbrellas on all but the third.
    """
    transition = np.array([[0.7, 0.3], [0.3, 0.7]])
    logs = np.log([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8], [0.9, 0.2], [0.9, 0.2]])
    emissions, start = Emissions.of(logs, [5]), np.array([0.5, 0.5])
    found = smooth(start, transition, emissions)
    assert found.log_evidence[0] == pytest.approx(-3.3725, abs=5e-5)
    rain = [0.8673, 0.8204, 0.3075, 0.8204, 0.8673]
    np.testing.assert_allclose(by_row(found, emissions)[:, 0], rain, atol=5e-5)
    score, path = viterbi(start, transition, emissions)
    assert score[0] == pytest.approx(-4.4590, abs=5e-5)
    assert path.tolist() == [0, 0, 1, 0, 0]


def test_weather_from_what_a_friend_does():
    """Rainy or sunny, given that a friend walks, shops and cleans (Wikipedia's HMM)."""
    start, transition = np.array([0.6, 0.4]), np.array([[0.7, 0.3], [0.4, 0.6]])
    emission = np.array([[0.1, 0.4, 0.5], [0.6, 0.3, 0.1]])
    score, path = viterbi(start, transition, Emissions.of(np.log(emission.T), [3]))
    assert np.exp(score[0]) == pytest.approx(0.01344, rel=1e-12)
    assert path.tolist() == [1, 0, 0]


def test_fever_from_symptoms():
    """Healthy or feverish, given that a patient is normal, cold and dizzy (Wikipedia's Viterbi)."""
    start, transition = np.array([0.6, 0.4]), np.array([[0.7, 0.3], [0.4, 0.6]])
    emission = np.array([[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]])
    score, path = viterbi(start, transition, Emissions.of(np.log(emission.T), [3]))
    assert np.exp(score[0]) == pytest.approx(0.01512, rel=1e-12)
    assert path.tolist() == [0, 0, 1]


# -- what cannot be --------------------------------------------------------------------------------


def test_a_sequence_of_probability_zero_leaves_the_others_alone(laid):
    start, transition = np.array([1.0, 0.0]), np.eye(2)
    logs = np.zeros((7, 2))
    logs[3, 0] = -np.inf  # the second sequence must be in state 0
    lengths = np.array([2, 3, 2])
    emissions = laid(logs, lengths)
    expected = [0.0, -np.inf, 0.0]
    np.testing.assert_array_equal(log_evidence(start, transition, emissions), expected)
    found = smooth(start, transition, emissions)
    np.testing.assert_array_equal(found.log_evidence, expected)
    marginals = by_row(found, emissions)
    assert np.isnan(marginals[2:5]).all()
    np.testing.assert_allclose(marginals[[0, 1, 5, 6]], [[1.0, 0.0]] * 4, atol=1e-12)
    np.testing.assert_array_equal(viterbi(start, transition, emissions)[0], expected)
    steps = filter_steps(start, transition, emissions)
    np.testing.assert_allclose(steps[[0, 1, 2, 5, 6]], [[1.0, 0.0]] * 5, atol=1e-12)


def test_no_state_fits_a_step(laid):
    logs = np.zeros((4, 2))
    logs[1] = -np.inf
    uniform = np.full((2, 2), 0.5)
    emissions = laid(logs, [4])
    assert log_evidence(uniform[0], uniform, emissions)[0] == -np.inf
    assert smooth(uniform[0], uniform, emissions).log_evidence[0] == -np.inf
    assert viterbi(uniform[0], uniform, emissions)[0][0] == -np.inf


# -- long sequences --------------------------------------------------------------------------------


def long_problem(kind, n_steps=5000, n_states=3):
    rng = np.random.default_rng(6)
    start, transition = chain(rng, n_states, zeros=kind == "left to right")
    logs = rng.normal(size=(n_steps + 1700, n_states), scale=2.0)
    if kind == "outliers":
        logs[[40, 1650, n_steps - 1]] = [[-1e6, -2e6, -3e6], [-5e5, 0.0, -1e5], [0.0, -1e4, -2e4]]
        logs[100:160] = 0.0
    return start, transition, logs, np.array([n_steps, 1700])


@pytest.mark.parametrize("kind", ["plain", "outliers", "left to right"])
def test_cut_is_whole_for_long_sequences(monkeypatch, kind):
    start, transition, logs, lengths = long_problem(kind)
    cut = Emissions.of(logs, lengths)
    assert cut.layout.is_cut
    monkeypatch.setattr(side_by_side, "_block", lambda lengths, n_states: int(lengths.max()))
    whole = Emissions.of(logs, lengths)
    assert not whole.layout.is_cut
    found, expected = (smooth(start, transition, e) for e in (cut, whole))
    # Ten digits of the sum of 5,000 terms.
    np.testing.assert_allclose(found.log_evidence, expected.log_evidence, rtol=1e-12)
    np.testing.assert_allclose(by_row(found, cut), by_row(expected, whole), atol=1e-10)
    np.testing.assert_allclose(found.transitions, expected.transitions, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.start, expected.start, atol=1e-10)
    np.testing.assert_allclose(found.transitions.sum(), 6698.0, rtol=1e-12)
    np.testing.assert_allclose(
        log_evidence(start, transition, cut), expected.log_evidence, rtol=1e-12
    )
    np.testing.assert_allclose(
        filter_steps(start, transition, cut), filter_steps(start, transition, whole), atol=1e-10
    )
    scores, path = viterbi(start, transition, cut)
    best, other = viterbi(start, transition, whole)
    np.testing.assert_allclose(scores, best, rtol=1e-12)
    np.testing.assert_array_equal(path, other)


@functools.cache
def scanned():
    """What `hidden_markov_scan` says on JAX, compiled."""
    import jax

    ops = engines.get("numpyro").ops

    @jax.jit
    def run(*arrays):
        total, counts = jax.value_and_grad(
            lambda *given: hidden_markov_scan.log_evidence(ops, *given), argnums=(0, 1, 2)
        )(*arrays)
        path, best = hidden_markov_scan.viterbi(ops, *arrays)
        return total, *counts, hidden_markov_scan.filtered(ops, *arrays), path, best

    return run


@pytest.mark.parametrize("kind", ["plain", "outliers", "left to right"])
def test_the_chain_on_jax_says_the_same(kind):
    start, transition, logs, lengths = long_problem(kind, n_steps=1700)
    engine = engines.get("numpyro")
    emissions = Emissions.of(logs, lengths)
    found = smooth(start, transition, emissions)
    marginals, steps = by_row(found, emissions), filter_steps(start, transition, emissions)
    scores, states = viterbi(start, transition, emissions)
    moves = np.zeros_like(transition)
    with np.errstate(divide="ignore"):
        arrays = np.log(start), np.log(transition)
    for number, own in enumerate(parts(logs, lengths)):
        rows = slice(1700 * number, 1700 * (number + 1))
        with engine.precision(device="cpu"):
            given = tuple(map(engine.asarray, (*arrays, own)))
            total, first, pairs, each, filtered_, path, best = map(
                engine.to_numpy, scanned()(*given)
            )
        np.testing.assert_allclose(found.log_evidence[number], total, rtol=1e-12)
        # Messages in logarithms carry what all steps before have rounded.
        np.testing.assert_allclose(marginals[rows], each, atol=1e-9)
        np.testing.assert_allclose(marginals[rows][0], first, atol=1e-9)
        np.testing.assert_allclose(steps[rows], filtered_, atol=1e-9)
        np.testing.assert_array_equal(states[rows], path)
        np.testing.assert_allclose(scores[number], best, rtol=1e-12)
        moves += pairs
    np.testing.assert_allclose(found.transitions, moves, atol=1e-7)


# -- laws ------------------------------------------------------------------------------------------


@st.composite
def chains_of_several(draw):
    n_states = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(1, 12), min_size=2, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    start, transition = chain(rng, n_states)
    scale = draw(st.sampled_from([1.0, 30.0, 1e3]))
    return start, transition, rng.normal(size=(sum(lengths), n_states), scale=scale), lengths


@given(chains_of_several(), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_sequences_add_and_their_order_says_nothing(problem, block, random):
    start, transition, logs, lengths = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "_block", lambda ls, n_states: block or int(ls.max()))
        whole = smooth(start, transition, Emissions.of(logs, lengths))
        own = parts(logs, lengths)
        each = [smooth(start, transition, Emissions.of(x, [len(x)])) for x in own]
        order = list(range(len(lengths)))
        random.shuffle(order)
        mixed = np.concatenate([own[place] for place in order])
        other = smooth(start, transition, Emissions.of(mixed, [lengths[place] for place in order]))
    one_by_one = [found.log_evidence[0] for found in each]
    np.testing.assert_allclose(whole.log_evidence, one_by_one, rtol=1e-12)
    np.testing.assert_allclose(other.log_evidence, whole.log_evidence[order], rtol=1e-12)
    for found in (sum(f.transitions for f in each), other.transitions):
        np.testing.assert_allclose(whole.transitions, found, atol=1e-9)
    np.testing.assert_allclose(whole.start, sum(f.start for f in each), atol=1e-9)


@given(chains_of_several())
@settings(max_examples=40)
def test_a_stationary_chain_can_be_read_backwards(problem):
    """Reversed in time it is a chain with pi_j A_ji / pi_i for transitions."""
    _, transition, logs, lengths = problem
    n_states = len(transition)
    # Stationary: 1 = sum(pi) and pi A = pi, by least squares of equations that agree.
    equations = np.vstack([transition.T - np.eye(n_states), np.ones(n_states)])
    pi = np.linalg.lstsq(equations, np.eye(n_states + 1)[-1], rcond=None)[0].clip(1e-300)
    pi /= pi.sum()
    backward = transition.T * pi / pi[:, None]
    backward /= backward.sum(axis=1, keepdims=True)
    reversed_logs = np.concatenate([own[::-1] for own in parts(logs, lengths)])
    emissions, other = Emissions.of(logs, lengths), Emissions.of(reversed_logs, lengths)
    found, mirrored = smooth(pi, transition, emissions), smooth(pi, backward, other)
    # As far as the stationary distribution is known.
    np.testing.assert_allclose(mirrored.log_evidence, found.log_evidence, rtol=1e-8, atol=1e-8)
    flipped = np.concatenate([own[::-1] for own in parts(by_row(mirrored, other), lengths)])
    np.testing.assert_allclose(flipped, by_row(found, emissions), atol=1e-6)


@given(chains_of_several())
@settings(max_examples=40)
def test_names_of_states_say_nothing(problem):
    start, transition, logs, lengths = problem
    order = np.random.default_rng(0).permutation(len(start))
    found = smooth(start, transition, Emissions.of(logs, lengths))
    emissions = Emissions.of(logs[:, order], lengths)
    other = smooth(start[order], transition[np.ix_(order, order)], emissions)
    np.testing.assert_allclose(other.log_evidence, found.log_evidence, rtol=1e-12)
    np.testing.assert_allclose(
        other.transitions, found.transitions[np.ix_(order, order)], atol=1e-9
    )
