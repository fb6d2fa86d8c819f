"""Draws from discrete networks against their joint tables by brute force."""

import numpy as np
import pytest
from network_problems import brute_force_joint, random_network
from scipy import stats

from ppl_gen.algorithms.networks import draws as network_draws
from ppl_gen.algorithms.networks.draws import (
    chain_table,
    effective_size,
    gibbs,
    likelihood_weighting,
    weighted_table,
)

#: Largest of some hundreds of z-scores; a right sampler passes it with probability over 0.98.
FAR = 4.2


def ancestral(parents, tables, n, rng):
    """Rows of the joint distribution: weighting without evidence."""
    return likelihood_weighting(parents, tables, {}, {}, n, rng)[0]


def problems(n, zeros=False):
    """Networks of 3 to 6 nodes with evidence on one or two nodes, and a likelihood on another."""
    for seed in range(n):
        rng = np.random.default_rng([seed, zeros])
        parents, sizes, tables = random_network(
            rng, int(rng.integers(3, 7)), sizes=(2, 3), max_parents=2, zeros=zeros
        )
        order = rng.permutation(len(parents))
        draw = ancestral(parents, tables, 1, rng)[0]  # so that the evidence is possible
        evidence = {int(v): int(draw[v]) for v in order[: rng.integers(1, 3)]}
        soft = int(order[-1])
        likelihood = rng.random(sizes[soft]) + 0.05
        yield rng, parents, sizes, tables, evidence, {soft: likelihood}


def conditioned(parents, sizes, tables, evidence, likelihoods):
    """Joint table of all nodes times the evidence, not normalised."""
    joint = brute_force_joint(parents, sizes, tables)
    for v, code in evidence.items():
        joint = np.where(np.arange(sizes[v]).reshape(axis_of(v, len(sizes))) == code, joint, 0.0)
    for v, likelihood in likelihoods.items():
        joint = joint * likelihood.reshape(axis_of(v, len(sizes)))
    return joint


def axis_of(v, n_nodes):
    return [-1 if u == v else 1 for u in range(n_nodes)]


def marginal(joint, targets):
    others = tuple(v for v in range(joint.ndim) if v not in targets)
    table = joint.sum(axis=others)
    kept = sorted(targets)
    return np.transpose(table, [kept.index(t) for t in targets])


def counts_of(codes, targets, sizes):
    shape = [sizes[t] for t in targets]
    cells = np.ravel_multi_index(codes.reshape(-1, len(sizes))[:, targets].T, shape)
    return np.bincount(cells, minlength=np.prod(shape)).reshape(shape)


def assert_z_scores(table, truth, counts):
    # A cell that few draws are in may miss those of large weight, and its error with them.
    compared = (table.errors > 0) & (counts >= 100)
    z = (table.probabilities - truth)[compared] / table.errors[compared]
    assert np.abs(z).max(initial=0.0) < FAR
    certain = (truth == 0) | (truth == 1)
    np.testing.assert_array_equal(table.probabilities[certain], truth[certain])
    return z


@pytest.mark.parametrize("zeros", [False, True], ids=["dense", "zeros"])
def test_ancestral_draws_follow_the_joint(zeros):
    p_values = []
    for seed in range(6):
        rng = np.random.default_rng([seed, zeros])
        parents, sizes, tables = random_network(rng, 5, sizes=(2, 3), max_parents=2, zeros=zeros)
        joint = brute_force_joint(parents, sizes, tables).ravel()
        codes = ancestral(parents, tables, 20_000, rng)
        assert codes.shape == (20_000, 5)
        counts = np.bincount(np.ravel_multi_index(codes.T, sizes), minlength=joint.size)
        assert counts[joint == 0].sum() == 0
        common = joint * 20_000 >= 5  # the rest pooled: chi-square wants counts of five
        observed = np.append(counts[common], counts[~common].sum())
        expected = np.append(joint[common], joint[~common].sum()) * 20_000
        kept = expected > 0
        p_values.append(stats.chisquare(observed[kept], expected[kept]).pvalue)
    assert min(p_values) > 1e-3  # six tests at once


def test_a_state_of_probability_zero_is_never_drawn():
    class Extremes:
        """A generator of the smallest and the largest uniform numbers."""

        def random(self, n):
            return np.resize([0.0, 1.0 - 2.0**-53], n)

    # These sum to a little over one, or under it, in floating point.
    for weights in ([0.0, *[0.1] * 10, 0.0], [0.0, 1 / 3, 1 / 3, 1 / 3, 0.0, 0.0]):
        table = np.array(weights)
        codes = ancestral([()], [table], 2, Extremes())[:, 0]
        np.testing.assert_array_equal(codes, [1, np.flatnonzero(table)[-1]])


def test_no_draws_and_no_nodes():
    rng = np.random.default_rng(0)
    assert ancestral([(), (0,)], [np.ones(1), np.ones((1, 1))], 0, rng).shape == (0, 2)
    assert ancestral([], [], 3, rng).shape == (3, 0)


@pytest.mark.parametrize("zeros", [False, True], ids=["dense", "zeros"])
def test_weighted_draws_equal_brute_force(zeros):
    scores = []
    for rng, parents, sizes, tables, evidence, likelihoods in problems(200, zeros):
        joint = conditioned(parents, sizes, tables, evidence, likelihoods)
        codes, logs = likelihood_weighting(parents, tables, evidence, likelihoods, 8000, rng)
        for v, code in evidence.items():
            assert (codes[:, v] == code).all()
        # The mean weight is an unbiased estimate of the probability of the evidence.
        weights = np.exp(logs)
        error = weights.std() / np.sqrt(len(weights))
        assert abs(weights.mean() - joint.sum()) < FAR * error + 1e-12
        targets = [int(v) for v in rng.permutation(len(parents))[:2]]
        table = weighted_table(codes, logs, targets, sizes)
        assert table.ess <= 8000 * (1 + 1e-9)
        truth, counts = marginal(joint, targets) / joint.sum(), counts_of(codes, targets, sizes)
        scores.append(assert_z_scores(table, truth, counts))
    # Errors that are too large or too small would show here: of a thousand scores, correlated by
    # threes and fours, the variance is one within a tenth.
    assert 0.85 < np.concatenate(scores).var() < 1.15


def test_likelihoods_alone_need_no_unequal_weights():
    prior, likelihood = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.0, 2.0])
    rng = np.random.default_rng(3)
    codes, logs = likelihood_weighting([()], [prior], {}, {0: likelihood}, 5000, rng)
    np.testing.assert_allclose(np.exp(logs), prior @ likelihood, rtol=1e-14)
    assert effective_size(logs) == pytest.approx(5000)
    table = weighted_table(codes, logs, [0], [3])
    assert_z_scores(table, prior * likelihood / 0.27, counts_of(codes, [0], [3]))
    # On a node with evidence a likelihood is a factor that all draws share.
    _, logs = likelihood_weighting([()], [prior], {0: 2}, {0: likelihood}, 5, rng)
    np.testing.assert_allclose(np.exp(logs), 0.2)


def test_impossible_evidence_gives_weights_of_zero_and_no_chain():
    copy = np.eye(2)
    parents, tables = [(), (0,), (0,)], [np.array([0.5, 0.5]), copy, copy]
    rng = np.random.default_rng(0)
    codes, logs = likelihood_weighting(parents, tables, {1: 0, 2: 1}, {}, 100, rng)
    assert (logs == -np.inf).all()
    assert effective_size(logs) == 0.0
    table = weighted_table(codes, logs, [0], [2, 2, 2])
    assert np.isnan(table.probabilities).all()
    assert table.ess == 0.0
    draws = gibbs(parents, tables, {1: 0, 2: 1}, {}, 4, 10, rng)
    assert draws.codes.shape == (0, 10, 3)
    assert np.isnan(chain_table(draws.codes, [0], [2, 2, 2]).probabilities).all()
    # A likelihood that leaves no state.
    _, logs = likelihood_weighting(parents, tables, {}, {0: np.zeros(2)}, 100, rng)
    assert (logs == -np.inf).all()


@pytest.mark.parametrize("merged", [0, 2**16], ids=["by factors", "merged"])
def test_gibbs_equals_brute_force(monkeypatch, merged):
    monkeypatch.setattr(network_draws, "_MERGED", merged)
    scores = []
    for rng, parents, sizes, tables, evidence, likelihoods in problems(20):
        joint = conditioned(parents, sizes, tables, evidence, likelihoods)
        draws = gibbs(parents, tables, evidence, likelihoods, 32, 300, rng)
        assert draws.codes.shape == (32, 300, len(parents))
        assert draws.bound == ()
        for v, code in evidence.items():
            assert (draws.codes[..., v] == code).all()
        targets = [int(v) for v in rng.permutation(len(parents))[:2]]
        table = chain_table(draws.codes, targets, sizes)
        assert 0 < table.ess <= 32 * 300 * np.log10(32 * 300)
        assert not table.rhat > 1.03  # NaN where the targets are all evidence
        truth, counts = (
            marginal(joint, targets) / joint.sum(),
            counts_of(draws.codes, targets, sizes),
        )
        scores.append(assert_z_scores(table, truth, counts))
    assert 0.7 < np.concatenate(scores).var() < 1.3


def test_gibbs_says_which_nodes_may_stick():
    # c copies a: neither can move alone; b is free of them.
    parents = [(), (), (0,)]
    tables = [np.array([0.3, 0.7]), np.array([0.5, 0.5]), np.eye(2)]
    rng = np.random.default_rng(5)
    draws = gibbs(parents, tables, {}, {}, 64, 50, rng)
    assert draws.bound == (0, 2)
    assert (np.ptp(draws.codes[..., 0], axis=1) == 0).all()
    stuck = chain_table(draws.codes, [0], [2, 2, 2])
    assert stuck.rhat > 2
    assert stuck.ess < 200
    assert chain_table(draws.codes, [1], [2, 2, 2]).rhat < 1.1
    # With one of them seen nothing is left to stick, and a zero that excludes a state of one
    # node alone does no harm.
    assert gibbs(parents, tables, {2: 1}, {}, 4, 5, rng).bound == ()
    assert (
        gibbs([(), (0,)], [np.array([0.0, 1.0]), np.full((2, 2), 0.5)], {}, {}, 4, 5, rng).bound
        == ()
    )
    # A likelihood that leaves one state counts as evidence does.
    assert gibbs(parents, tables, {}, {0: np.array([0.0, 1.0])}, 4, 5, rng).bound == ()


def test_the_chains_start_where_the_evidence_puts_them():
    # An OR of two causes, seen on: single moves cannot pass through "neither", but the starts
    # are from the posterior, and it is connected through "both".
    either = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    parents, tables = [(), (), (0, 1)], [np.array([0.9, 0.1]), np.array([0.8, 0.2]), either]
    draws = gibbs(parents, tables, {2: 1}, {}, 64, 400, np.random.default_rng(8))
    assert draws.bound == (0, 1)
    truth = np.array([[0.0, 0.18], [0.08, 0.02]]) / 0.28
    table = chain_table(draws.codes, [0, 1], [2, 2, 2])
    assert_z_scores(table, truth, counts_of(draws.codes, [0, 1], [2, 2, 2]))


def test_many_children_do_not_underflow():
    n = 400
    parents = [(), *[(0,)] * n]
    leaf = np.array([[1e-4, 1 - 1e-4], [1.5e-4, 1 - 1.5e-4]])
    tables = [np.array([1 - 1e-20, 1e-20]), *[leaf] * n]
    evidence = dict.fromkeys(range(1, n + 1), 0)
    rng = np.random.default_rng(1)
    draws = gibbs(parents, tables, evidence, {}, 8, 20, rng)
    # The posterior odds are 1e-20 * 1.5^400, over 1e50.
    assert (draws.codes[:, :, 0] == 1).all()


def test_seeds_repeat():
    rng = np.random.default_rng(0)
    parents, _, tables = random_network(rng, 5)
    a, b = (gibbs(parents, tables, {0: 0}, {}, 4, 20, np.random.default_rng(7)) for _ in "ab")
    np.testing.assert_array_equal(a.codes, b.codes)
