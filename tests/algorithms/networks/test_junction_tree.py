"""Marginals, modes and draws on junction trees, beside brute force."""

import itertools
import math

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_problems import (
    brute_force_joint,
    brute_force_product,
    cpd_scopes,
    grid,
    random_network,
)
from scipy.stats import chi2

from ppl_gen.algorithms.networks.elimination import Elimination
from ppl_gen.algorithms.networks.elimination_orders import HEURISTICS
from ppl_gen.algorithms.networks.factors import condition, restrict
from ppl_gen.algorithms.networks.junction_tree import JunctionTree

#: Sums of at most 4**8 positive products of eight doubles: only rounding differs.
EXACT = {"rtol": 1e-12, "atol": 1e-300}


def problem(seed, zeros=False, n_nodes=None, n_components=1):
    """Draw a network, or several side by side, and evidence on it that is possible."""
    rng = np.random.default_rng(seed)
    parents, sizes, tables = [], [], []
    for _ in range(n_components):
        some = random_network(rng, n_nodes or int(rng.integers(1, 9)), zeros=zeros)
        shift = len(sizes)
        parents += [tuple(p + shift for p in above) for above in some[0]]
        sizes, tables = sizes + some[1], tables + some[2]
    return rng, parents, sizes, tables


def soft_evidence(rng, sizes, n):
    """Draw a likelihood of every variable a row: missing, soft or hard."""
    likelihoods = []
    for size in sizes:
        kind = rng.integers(0, 3, n)[:, None]
        hard = np.eye(size)[rng.integers(size, size=n)]
        likelihoods.append(
            np.where(kind == 0, 1.0, np.where(kind == 1, rng.random((n, size)), hard))
        )
    return likelihoods


def marginal_of(product, scope):
    others = tuple(v for v in range(product.ndim) if v not in scope)
    kept = [v for v in range(product.ndim) if v in scope]
    return product.sum(axis=others).transpose([kept.index(v) for v in scope])


def check_beliefs(beliefs, scopes, product, row=...):
    """Compare the beliefs of a row with the product of the factors of all variables."""
    total = product.sum()
    with np.errstate(divide="ignore"):
        # Logs of sums that agree to rounding.
        np.testing.assert_allclose(beliefs.log_evidence[row], np.log(total), rtol=1e-12, atol=1e-12)
    for scope in [*scopes, *((v,) for v in range(product.ndim))]:
        expected = marginal_of(product, scope) / (total if total > 0 else 1.0)
        np.testing.assert_allclose(beliefs.marginal(scope)[row], expected, **EXACT)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("seed", range(50))
def test_beliefs_equal_enumeration(seed, zeros):
    rng, parents, sizes, tables = problem(seed, zeros)
    scopes = cpd_scopes(parents)
    joint = brute_force_joint(parents, sizes, tables)
    tree = JunctionTree(scopes, sizes, HEURISTICS[seed % 3])
    check_beliefs(tree.propagate(tables), scopes, joint)
    n = 3
    likelihoods = soft_evidence(rng, sizes, n)
    all_scopes = [*scopes, *((v,) for v in range(len(sizes)))]
    beliefs = JunctionTree(all_scopes, sizes).propagate([*tables, *likelihoods])
    for row in range(n):
        product = brute_force_product(all_scopes, sizes, [*tables, *(x[row] for x in likelihoods)])
        check_beliefs(beliefs, scopes, product, row)


@pytest.mark.parametrize("seed", range(30))
def test_hard_evidence_by_slices_equals_enumeration(seed):
    rng, parents, sizes, tables = problem(seed, zeros=bool(seed % 2))
    n = 4
    observed = rng.permutation(len(sizes))[: int(rng.integers(0, len(sizes) + 1))].tolist()
    evidence = {v: rng.integers(sizes[v], size=n) for v in observed}
    joint = brute_force_joint(parents, sizes, tables)
    scopes, sliced = condition(cpd_scopes(parents), tables, evidence)
    beliefs = JunctionTree(scopes, sizes).propagate(sliced)
    whole = JunctionTree(cpd_scopes(parents), sizes)  # one tree for any evidence
    restricted = restrict(cpd_scopes(parents), tables, evidence)
    again = whole.propagate(restricted)
    np.testing.assert_allclose(again.log_evidence, beliefs.log_evidence, rtol=1e-12, atol=1e-12)
    for v in range(len(sizes)):
        if v not in evidence:
            np.testing.assert_allclose(again.marginal((v,)), beliefs.marginal((v,)), **EXACT)
            expected = beliefs.marginal((v,)).reshape(-1, sizes[v]).sum(axis=0)
            np.testing.assert_allclose(again.expected_counts([(v,)])[0], expected, **EXACT)
    np.testing.assert_allclose(
        whole.mode(restricted)[1], JunctionTree(scopes, sizes).mode(sliced)[1], rtol=1e-12
    )
    for row in range(n if evidence else 0):
        index = tuple(evidence[v][row] if v in evidence else slice(None) for v in range(joint.ndim))
        table = joint[index]
        with np.errstate(divide="ignore"):
            expected = np.log(table.sum())
        np.testing.assert_allclose(beliefs.log_evidence[row], expected, rtol=1e-12, atol=1e-12)
        hidden = [v for v in range(len(sizes)) if v not in evidence]
        for i, v in enumerate(hidden):
            marginal = table.sum(axis=tuple(j for j in range(len(hidden)) if j != i))
            marginal = marginal / (marginal.sum() or 1.0)
            np.testing.assert_allclose(beliefs.marginal((v,))[row], marginal, **EXACT)


@pytest.mark.parametrize("seed", range(10))
def test_components_that_nothing_joins(seed):
    rng, parents, sizes, tables = problem(seed, n_nodes=2, n_components=3)
    sizes = [*sizes, 3]  # and a variable that no factor mentions
    scopes = [*cpd_scopes(parents), (), (2,)]
    tables = [*tables, np.array(0.3), rng.random((3, sizes[2]))]
    tree = JunctionTree(scopes, sizes)
    beliefs = tree.propagate(tables)
    codes, log_prob = tree.mode(tables)
    for row in range(3):
        some = [*tables[:-1], tables[-1][row]]
        # The last variable is uniform and changes no total.
        product = brute_force_product(scopes, sizes, some) / 3
        check_beliefs(beliefs, scopes, product, row)
        np.testing.assert_allclose(np.exp(log_prob[row]), 3 * product.max(), **EXACT)
        np.testing.assert_allclose(product[tuple(codes[row])], product.max(), **EXACT)
    assert tree.draw(tables, rng).shape == (3, 7)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(HEURISTICS))
def test_any_factors_will_do(seed, heuristic):
    # Cycles, scalars, the same scope twice, variables of one state or in no factor, a batch here
    # and there, and weights that are no probabilities.
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, int(rng.integers(1, 7))).tolist()
    n, n_nodes, scopes, tables = int(rng.integers(1, 4)), len(sizes), [], []
    for _ in range(int(rng.integers(0, 10))):
        scope = tuple(
            rng.permutation(n_nodes)[: int(rng.integers(0, min(n_nodes, 4) + 1))].tolist()
        )
        shape = ((n,) if rng.random() < 0.4 else ()) + tuple(sizes[v] for v in scope)
        scopes.append(scope)
        tables.append(rng.gamma(0.3, size=shape) * (rng.random(shape) < 0.9) * 2.0)
    tree = JunctionTree(scopes, sizes, heuristic)
    beliefs, (codes, log_prob) = tree.propagate(tables), tree.mode(tables)
    batched = [t.ndim > len(scope) for scope, t in zip(scopes, tables, strict=True)]
    mentioned = {v for scope in scopes for v in scope}
    free = math.prod(sizes[v] for v in range(n_nodes) if v not in mentioned)
    for row in range(n) if any(batched) else [...]:
        some = [t[row] if b else t for t, b in zip(tables, batched, strict=True)]
        product = brute_force_product(scopes, sizes, some)
        check_beliefs(beliefs, scopes, product / free, row)
        with np.errstate(divide="ignore"):
            expected = np.log(product.max())
        np.testing.assert_allclose(log_prob[row], expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(product[tuple(codes[row])], product.max(), **EXACT)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(HEURISTICS), st.integers(1, 3))
def test_the_tree_is_a_junction_tree_of_maximal_cliques(seed, heuristic, n_components):
    _, parents, sizes, _ = problem(seed, n_components=n_components)
    scopes = cpd_scopes(parents)
    tree = JunctionTree(scopes, sizes, heuristic)
    cliques = [set(clique) for clique in tree.cliques]
    for a, b in itertools.permutations(cliques, 2):
        assert not a <= b
    for scope in scopes:
        assert set(scope) <= cliques[tree.clique_of(scope)]
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(cliques)))
    for i, (parent, separator) in enumerate(zip(tree.parents, tree.separators, strict=True)):
        if parent == i:
            assert i == len(cliques) - 1
            continue
        graph.add_edge(i, parent)
        assert set(separator) == cliques[i] & cliques[parent]
    assert networkx.is_tree(graph)
    for v in range(len(sizes)):  # running intersection
        holding = [i for i, clique in enumerate(cliques) if v in clique]
        assert networkx.is_connected(graph.subgraph(holding))
    overlaps = networkx.Graph()
    overlaps.add_nodes_from(range(len(cliques)))
    overlaps.add_weighted_edges_from(
        (i, j, len(cliques[i] & cliques[j]))
        for i, j in itertools.combinations(range(len(cliques)), 2)
    )
    heaviest = networkx.maximum_spanning_tree(overlaps)
    assert sum(map(len, tree.separators)) == heaviest.size("weight")
    assert tree.cost.width == max(map(len, cliques)) - 1
    cells = [math.prod(sizes[v] for v in clique) for clique in cliques]
    assert (tree.cost.largest, tree.cost.total) == (max(cells), sum(cells))
    assert tree.cost.bytes == 8 * sum(cells)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_adjacent_cliques_agree(seed, zeros):
    rng, parents, sizes, tables = problem(seed, zeros)
    scopes = [*cpd_scopes(parents), *((v,) for v in range(len(sizes)))]
    tree = JunctionTree(scopes, sizes)
    beliefs = tree.propagate([*tables, *soft_evidence(rng, sizes, 3)])
    possible = np.isfinite(beliefs.log_evidence)
    for i, (parent, separator) in enumerate(zip(tree.parents, tree.separators, strict=True)):
        of_child = beliefs.marginal(tree.cliques[i])
        of_parent = beliefs.marginal(tree.cliques[parent])
        np.testing.assert_allclose(
            _summed(of_child, tree.cliques[i], separator),
            _summed(of_parent, tree.cliques[parent], separator),
            rtol=1e-12,
            atol=1e-15,
        )
        totals = of_child.reshape(3, -1).sum(axis=1)
        np.testing.assert_allclose(totals, possible.astype(float), rtol=1e-12)


def _summed(table, scope, out):
    axes = tuple(i + 1 for i, v in enumerate(scope) if v not in out)
    left = [v for v in scope if v in out]
    return table.sum(axis=axes).transpose([0, *(1 + left.index(v) for v in out)])


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_modes_equal_enumeration(seed, zeros):
    rng, parents, sizes, tables = problem(seed, zeros)
    n = 3
    scopes = [*cpd_scopes(parents), *((v,) for v in range(len(sizes)))]
    likelihoods = soft_evidence(rng, sizes, n)
    codes, log_prob = JunctionTree(scopes, sizes).mode([*tables, *likelihoods])
    assert codes.shape == (n, len(sizes))
    for row in range(n):
        product = brute_force_product(scopes, sizes, [*tables, *(x[row] for x in likelihoods)])
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(log_prob[row], np.log(product.max()), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(product[tuple(codes[row])], product.max(), **EXACT)
    codes, log_prob = JunctionTree(cpd_scopes(parents), sizes).mode(tables)
    joint = brute_force_joint(parents, sizes, tables)
    assert codes.shape == (len(sizes),)
    np.testing.assert_allclose([joint[tuple(codes)], np.exp(log_prob)], joint.max(), rtol=1e-12)


def chi_square(codes, product):
    """Return the p-value of drawn codes (n, V) under a table of weights; the support must hold."""
    drawn = np.bincount(np.ravel_multi_index(codes.T, product.shape), minlength=product.size)
    expected = len(codes) * product.ravel() / product.sum()
    assert np.all(drawn[expected == 0] == 0)
    rare = (expected > 0) & (expected < 5)
    cells = (expected >= 5).nonzero()[0]
    observed = np.append(drawn[cells], drawn[rare].sum())
    wanted = np.append(expected[cells], expected[rare].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    return chi2.sf(((observed - wanted) ** 2 / wanted).sum(), max(len(observed) - 1, 1))


@pytest.mark.parametrize("seed", range(8))
def test_draws_follow_the_joint(seed):
    rng, parents, sizes, tables = problem(seed, zeros=bool(seed % 2), n_nodes=5)
    scopes = [*cpd_scopes(parents), (0,)]
    tables = [*tables, rng.random(sizes[0])]
    tree = JunctionTree(scopes, sizes)
    product = brute_force_product(scopes, sizes, tables)
    n = 20_000
    # Of 16 p-values under the null one is below 1e-4 once in 600 seeds; these are fixed.
    assert chi_square(tree.draw(tables, rng, size=n), product) > 1e-4
    repeated = [*tables[:-1], np.broadcast_to(tables[-1], (n, sizes[0]))]
    assert chi_square(tree.draw(repeated, rng), product) > 1e-4


def test_draws_of_rows_follow_their_own_evidence():
    rng, parents, sizes, tables = problem(5, n_nodes=6)
    codes = rng.integers(sizes[3], size=30_000)
    hard = np.eye(sizes[3])[codes]
    scopes = [*cpd_scopes(parents), (3,)]
    drawn = JunctionTree(scopes, sizes).draw([*tables, hard], rng)
    np.testing.assert_array_equal(drawn[:, 3], codes)
    joint = brute_force_joint(parents, sizes, tables)
    for code in range(sizes[3]):
        one = np.zeros_like(joint)
        index = tuple(code if v == 3 else slice(None) for v in range(6))
        one[index] = joint[index]
        assert chi_square(drawn[codes == code], one) > 1e-4


def test_draws_are_the_same_with_the_same_seed():
    _, parents, sizes, tables = problem(1, n_nodes=6)
    tree = JunctionTree(cpd_scopes(parents), sizes)
    first, second = (tree.draw(tables, np.random.default_rng(3), size=9000) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert tree.draw(tables, np.random.default_rng(3)).shape == (6,)
    assert tree.draw(tables, np.random.default_rng(3), size=0).shape == (0, 6)


def test_expected_counts_are_sums_of_marginals():
    rng, parents, sizes, tables = problem(8, n_nodes=6)
    n = 5000  # more than a chunk
    scopes = [*cpd_scopes(parents), (0,)]
    likelihood = rng.random((n, sizes[0]))
    likelihood[::7] *= 1e-220  # rows in logarithms
    beliefs = JunctionTree(scopes, sizes).propagate([*tables, likelihood])
    weights = rng.random(n)
    plain, weighted = beliefs.expected_counts(scopes), beliefs.expected_counts(scopes, weights)
    for k, marginal in enumerate(beliefs.marginals(scopes)):
        np.testing.assert_allclose(marginal, beliefs.marginal(scopes[k]), rtol=1e-12)
        np.testing.assert_allclose(plain[k], marginal.sum(axis=0), rtol=1e-12)
        np.testing.assert_allclose(weighted[k], np.tensordot(weights, marginal, 1), rtol=1e-12)
    with pytest.raises(ValueError, match=r"weights have shape \(3,\); expected \(5000,\)"):
        beliefs.expected_counts([(0,)], np.ones(3))
    alone = JunctionTree(scopes, sizes).propagate([*tables, likelihood[1]])
    np.testing.assert_allclose(alone.expected_counts([(0,)])[0], alone.marginal((0,)), rtol=1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_rows_in_logarithms_are_the_same_rows(seed):
    rng, parents, sizes, tables = problem(seed, zeros=bool(seed % 2))
    scopes = [*cpd_scopes(parents), *((v,) for v in range(len(sizes)))]
    likelihoods = soft_evidence(rng, sizes, 9)
    tree = JunctionTree(scopes, sizes)
    plain = tree.propagate([*tables, *likelihoods])
    scale = np.where(np.arange(9) % 3 == 0, 1.0, np.where(np.arange(9) % 3 == 1, 1e-250, 1e250))
    scaled = tree.propagate([*tables, scale[:, None] * likelihoods[0], *likelihoods[1:]])
    # A log of 600 has 1e-13 of rounding.
    expected = plain.log_evidence + np.log(scale)
    np.testing.assert_allclose(scaled.log_evidence, expected, rtol=1e-12, atol=1e-12)
    for scope in scopes:
        np.testing.assert_allclose(
            scaled.marginal(scope), plain.marginal(scope), rtol=1e-11, atol=1e-300
        )


def test_tables_may_come_with_their_logarithms():
    # Densities of many numbers: the first favours state 0 by e**5000, the second what the first
    # does not, by more; as plain numbers the two together are zero.
    rng = np.random.default_rng(0)
    joint = rng.dirichlet(np.ones(4)).reshape(2, 2)
    first, second = np.array([[0.0, -5000.0], [-1.0, 0.0]]), np.array([[-5001.0, 0.0], [0.0, -2.0]])
    scopes, logs = [(0, 1), (0,), (0,)], {1: first, 2: second}
    tables = [joint, np.exp(first), np.exp(second)]
    tree = JunctionTree(scopes, [2, 2])
    weights = np.log(joint) + (first + second)[:, :, None]
    expected = np.logaddexp.reduce(weights.reshape(2, -1), axis=1)
    beliefs = tree.propagate(tables, logs)
    np.testing.assert_allclose(beliefs.log_evidence, expected, rtol=1e-14)
    shares = np.exp(weights - expected[:, None, None])
    # exp of a difference of numbers of order 5000
    np.testing.assert_allclose(beliefs.marginal((0, 1)), shares, rtol=1e-11)
    codes, log_prob = tree.mode(tables, logs)
    np.testing.assert_allclose(log_prob, weights.reshape(2, -1).max(axis=1), rtol=1e-14)
    assert codes.tolist() == [list(np.unravel_index(w.argmax(), (2, 2))) for w in weights]
    drawn = tree.draw(
        [tables[0], tables[1][0], tables[2][0]], rng, 20_000, {1: first[0], 2: second[0]}
    )
    assert chi_square(drawn, shares[0]) > 1e-4


def test_what_is_impossible_is_zero_without_a_warning():
    tables = [np.array([1.0, 0.0]), np.array([[0.5, 0.5], [0.0, 1.0]])]
    scopes, sizes = [(0,), (0, 1), (0,), (2,)], [2, 2, 2]
    seen = np.array([[0.0, 1.0], [1.0, 0.0]])
    tree = JunctionTree(scopes, sizes)
    beliefs = tree.propagate([*tables, seen, np.array([0.3, 0.7])])
    np.testing.assert_allclose(beliefs.log_evidence, [-np.inf, 0.0], atol=1e-15)
    np.testing.assert_array_equal(
        beliefs.marginal((0, 1)), [np.zeros((2, 2)), [[0.5, 0.5], [0, 0]]]
    )
    np.testing.assert_allclose(beliefs.marginal((2,)), [[0.0, 0.0], [0.3, 0.7]])
    np.testing.assert_allclose(beliefs.expected_counts([(1,)])[0], [0.5, 0.5])
    codes, log_prob = tree.mode([*tables, seen, np.array([0.3, 0.7])])
    assert log_prob[0] == -np.inf
    assert codes[1].tolist()[0::2] == [0, 1]
    with pytest.raises(ValueError, match=r"JunctionTree.draw: the evidence of a row has probab"):
        tree.draw([*tables, seen, np.array([0.3, 0.7])], np.random.default_rng(0))
    alone = tree.propagate([*tables, seen[0], np.array([0.3, 0.7])])
    assert alone.log_evidence == -np.inf
    np.testing.assert_array_equal(alone.marginal((1,)), [0.0, 0.0])


def test_a_long_chain_does_not_underflow():
    # A hidden Markov chain of a thousand steps in 3 states, whose data are of probability 1e-600.
    rng = np.random.default_rng(0)
    n_nodes, size, n = 1000, 3, 3
    start, moves = rng.dirichlet(np.ones(size)), rng.dirichlet(np.ones(size), (n_nodes - 1, size))
    emitted = rng.random((n_nodes, n, size)) * 0.4
    scopes = [(0,), *((v, v + 1) for v in range(n_nodes - 1)), *((v,) for v in range(n_nodes))]
    tree = JunctionTree(scopes, [size] * n_nodes)
    assert tree.cost.largest == size**2
    tables = [start, *moves, *emitted]
    beliefs = tree.propagate(tables)
    alpha, log_evidence = start * emitted[0], np.zeros(n)
    for v in range(n_nodes):
        alpha = alpha if v == 0 else (alpha @ moves[v - 1]) * emitted[v]
        log_evidence += np.log(alpha.sum(axis=1))
        alpha /= alpha.sum(axis=1, keepdims=True)
    assert np.all(log_evidence < -600 * np.log(10.0))
    # A thousand logs of rounding 1e-16 to numbers of order one.
    np.testing.assert_allclose(beliefs.log_evidence, log_evidence, rtol=1e-12)
    np.testing.assert_allclose(beliefs.marginal((n_nodes - 1,)), alpha, rtol=1e-10)
    codes, log_prob = tree.mode(tables)
    best = np.log(start) + np.log(emitted[0])
    for v in range(1, n_nodes):
        best = (best[:, :, None] + np.log(moves[v - 1])).max(axis=1) + np.log(emitted[v])
    np.testing.assert_allclose(log_prob, best.max(axis=1), rtol=1e-12)
    along = np.log(start[codes[:, 0]])
    for v in range(n_nodes):
        along += np.log(emitted[v][np.arange(n), codes[:, v]])
        along += np.log(moves[v - 1][codes[:, v - 1], codes[:, v]]) if v else 0.0
    np.testing.assert_allclose(along, log_prob, rtol=1e-12)
    assert tree.draw(tables, rng).shape == (n, n_nodes)


def test_evidence_that_disagrees_does_not_underflow():
    # Of 1,000 witnesses half are as sure of one state as the others are of the other: each side
    # alone leaves the other state a weight of 1e-1500.
    tables = [np.array([0.5, 0.5])]
    tables += [
        np.array([1.0, 1e-3]) if i % 1000 < 500 else np.array([1e-3, 1.0]) for i in range(1000)
    ]
    tree = JunctionTree([(0,), *((0, v) for v in range(1, 1001))], [2, *[1] * 1000])
    beliefs = tree.propagate([tables[0], *(t[:, None] for t in tables[1:])])
    np.testing.assert_allclose(beliefs.marginal((0,)), [0.5, 0.5], rtol=1e-12)
    np.testing.assert_allclose(beliefs.log_evidence, 500 * np.log(1e-3), rtol=1e-12)
    drawn = tree.draw(
        [tables[0], *(t[:, None] for t in tables[1:])], np.random.default_rng(0), size=1000
    )
    assert 400 < drawn[:, 0].sum() < 600  # six standard deviations


def test_a_class_with_many_children_costs_as_many_messages():
    rng = np.random.default_rng(2)
    n_children = 300
    prior, given_class = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(2), (n_children, 3))
    scopes = [(0,), *((0, v) for v in range(1, n_children + 1))]
    seen = rng.integers(2, size=(50, n_children))
    likelihoods = [np.eye(2)[seen[:, v]] for v in range(n_children)]
    tree = JunctionTree([*scopes, *((v + 1,) for v in range(n_children))], [3, *[2] * n_children])
    beliefs = tree.propagate([prior, *given_class, *likelihoods])
    joint = np.log(prior) + np.log(given_class[np.arange(n_children), :, seen]).sum(axis=1)
    total = np.logaddexp.reduce(joint, axis=1)
    np.testing.assert_allclose(beliefs.log_evidence, total, rtol=1e-12)
    # exp of logs of order 300
    np.testing.assert_allclose(beliefs.marginal((0,)), np.exp(joint - total[:, None]), rtol=1e-10)
    np.testing.assert_allclose(beliefs.marginal((7,)), likelihoods[6], rtol=1e-15)


def test_a_grid_agrees_with_elimination():
    rng = np.random.default_rng(0)
    scopes = grid(6)
    tables = [rng.random((2, 2)) for _ in scopes]
    tree = JunctionTree(scopes, [2] * 36)
    assert tree.cost.width <= 8
    beliefs = tree.propagate(tables)
    for v in (0, 14, 35):
        expected = Elimination(scopes, [2] * 36, [v]).run(tables)
        np.testing.assert_allclose(beliefs.marginal((v,)), expected / expected.sum(), rtol=1e-12)
        np.testing.assert_allclose(beliefs.log_evidence, np.log(expected.sum()), rtol=1e-12)


def test_nothing_at_all():
    beliefs = JunctionTree([], []).propagate([])
    assert beliefs.log_evidence == 0.0
    beliefs = JunctionTree([()], []).propagate([np.array([0.5, 0.25])])
    np.testing.assert_allclose(beliefs.log_evidence, np.log([0.5, 0.25]))
    tree = JunctionTree([(0,)], [2])
    none = tree.propagate([np.ones((0, 2))])
    assert none.log_evidence.shape == (0,)
    assert none.marginal((0,)).shape == (0, 2)
    assert tree.mode([np.ones((0, 2))])[0].shape == (0, 1)
    assert tree.draw([np.ones((0, 2))], np.random.default_rng(0)).shape == (0, 1)


def test_bad_input_is_told():
    tree = JunctionTree([(0, 1), (1, 2)], [2, 2, 2])
    tables = [np.ones((2, 2)), np.ones((2, 2))]
    with pytest.raises(LookupError, match=r"no clique holds the variables \(0, 2\) together"):
        tree.propagate(tables).marginal((0, 2))
    with pytest.raises(ValueError, match=r"JunctionTree.propagate: the table of scope \(1, 2\)"):
        tree.propagate([tables[0], np.ones(2)])
    with pytest.raises(ValueError, match=r"a batch of 5 rows where another has 4"):
        tree.mode([np.ones((4, 2, 2)), np.ones((5, 2, 2))])
    with pytest.raises(ValueError, match=r"size is 3 and the tables have a batch of 4 rows"):
        tree.draw([np.ones((4, 2, 2)), tables[1]], np.random.default_rng(0), size=3)
    with pytest.raises(ValueError, match=r"1 tables for 2 scopes"):
        tree.propagate(tables[:1])
