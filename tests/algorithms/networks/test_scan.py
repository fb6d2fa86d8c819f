"""Rows of discrete networks against their whole joint table, on NumPy and both engines."""

import numpy as np
import pytest
from network_problems import brute_force_joint, random_network
from scipy import stats

from ppl_gen import engines
from ppl_gen.algorithms.networks import scan as network
from ppl_gen.engines.random_source import NumPyRandom

ENGINES = ["pyro", "numpyro"]


def rows_of(rng, sizes, hidden, n=12):
    """Random rows, in which hidden nodes are missing here and there."""
    x = np.stack([rng.integers(0, size, n) for size in sizes], axis=1).astype(float)
    for v in hidden:
        x[rng.random(n) < 0.6, v] = np.nan
    return x


def brute_force(joint, row):
    """The joint table of a row's missing nodes, zero where it disagrees with the row."""
    for axis, code in enumerate(row):
        if not np.isnan(code):
            shape = [-1 if a == axis else 1 for a in range(joint.ndim)]
            joint = joint * (np.arange(joint.shape[axis]) == code).reshape(shape)
    return joint


def problem(seed):
    """A network, rows with missing nodes, those that may be missing, and one that is asked for."""
    rng = np.random.default_rng(seed)
    parents, sizes, tables = random_network(rng, int(rng.integers(1, 8)), zeros=seed % 2 == 0)
    hidden = tuple(v for v in range(len(sizes)) if rng.random() < 0.6)
    return (
        parents,
        sizes,
        tables,
        rows_of(rng, sizes, hidden),
        hidden,
        int(rng.integers(len(sizes))),
    )


def log(p):
    with np.errstate(divide="ignore"):
        return np.log(p)


@pytest.mark.parametrize("seed", range(60))
def test_sums_are_those_of_the_joint_table(seed):
    parents, sizes, tables, x, hidden, node = problem(seed)
    joint = brute_force_joint(parents, sizes, tables)
    each = [brute_force(joint, row) for row in x]
    # A sum of at most 4^7 terms in double precision; a logarithm near 0 has no relative digits.
    close = {"rtol": 1e-12, "atol": 1e-12}
    found = network.log_evidence(np, parents, tables, x, hidden)
    np.testing.assert_allclose(found, log([e.sum() for e in each]), **close)
    others = tuple(v for v in range(len(sizes)) if v != node)
    expected = np.stack([e.sum(axis=others) for e in each])
    found = network.log_joint(np, parents, tables, x, node, hidden)
    np.testing.assert_allclose(found, log(expected), **close)
    possible = expected.sum(axis=1) > 0
    shares = network.posterior(np, found[possible])
    expected = expected[possible] / expected[possible].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, expected, **close)


def test_nodes_that_are_called_hidden_may_be_there():
    parents, _, tables, x, hidden, _ = problem(3)
    x = np.nan_to_num(x)
    complete = network.log_evidence(np, parents, tables, x)
    for chosen in (hidden, range(len(parents))):
        found = network.log_evidence(np, parents, tables, x, chosen)
        np.testing.assert_allclose(found, complete, rtol=1e-12)


def test_long_chains_neither_underflow_nor_lose_what_is_unlikely():
    # A chain of 400 nodes that says at its end what was all but impossible at its start.
    parents = [(), *((v,) for v in range(399))]
    tables = [np.array([1.0, 1e-300]), *([np.array([[1.0, 0.0], [1e-3, 1.0]])] * 399)]
    x = np.full((1, 400), np.nan)
    x[0, -1] = 1.0
    found = network.log_evidence(np, parents, tables, x, range(400))
    np.testing.assert_allclose(found, np.log(1e-300), rtol=1e-12)


def value_and_grads(name, parents, tables, x, hidden):
    """The log evidence, and the gradient of its finite terms' sum with respect to the tables."""
    engine = engines.get(name)
    with engine.precision(device="cpu"):
        ops, rows = engine.ops, engine.asarray(x)
        given = [engine.asarray(table) for table in tables]

        def total(*free):
            value = network.log_evidence(ops, parents, free, rows, hidden)
            return ops.sum(ops.where(value > -1e20, value, 0.0)), value

        if name == "numpyro":
            import jax

            run = jax.jit(jax.value_and_grad(total, range(len(given)), has_aux=True))
            (_, value), grads = run(*given)
        else:
            import torch

            free = [table.clone().requires_grad_() for table in given]
            sum_, value = total(*free)
            grads = torch.autograd.grad(sum_, free, allow_unused=True, materialize_grads=True)
        return engine.to_numpy(value), [engine.to_numpy(g) for g in grads]


@pytest.mark.parametrize("seed", range(6))
def test_engines_agree_with_numpy_and_in_their_gradients(seed):
    parents, _, tables, x, hidden, _ = problem(seed)
    expected = network.log_evidence(np, parents, tables, x, hidden)
    (value, grads), (other, other_grads) = (
        value_and_grads(name, parents, tables, x, hidden) for name in ENGINES
    )
    for found in (value, other):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    for one, two in zip(grads, other_grads, strict=True):
        assert np.isfinite(one).all()  # where the tables have zeros, too
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_the_expected_counts_over_the_probabilities():
    parents, sizes, tables, x, hidden, _ = problem(5)
    _, grads = value_and_grads("pyro", parents, tables, x, hidden)
    joint = brute_force_joint(parents, sizes, tables)
    each = [brute_force(joint, row) for row in x]
    shares = sum(e / e.sum() for e in each)
    for v, own in enumerate(parents):
        scope = (*own, v)
        marginal = shares.sum(axis=tuple(u for u in range(len(sizes)) if u not in scope))
        counts = np.transpose(marginal, np.argsort(np.argsort(scope)))
        # p d/dp of log p(x) is the expected count of the entry: Fisher's identity.
        np.testing.assert_allclose(tables[v] * grads[v], counts, rtol=1e-9, atol=1e-12)


def test_rows_are_drawn_from_the_joint():
    rng = np.random.default_rng(11)
    parents, sizes, tables = random_network(rng, 4, sizes=(2, 3))
    x = network.draw_rows(np, parents, tables, 20_000, NumPyRandom(0))
    joint = brute_force_joint(parents, sizes, tables).ravel()
    counts = np.bincount(np.ravel_multi_index(x.astype(int).T, sizes), minlength=joint.size)
    common = 20_000 * joint > 5  # where the chi-square holds
    expected = np.append(20_000 * joint[common], 20_000 * joint[~common].sum() + 1e-9)
    # The seed is fixed: one of a thousand would fail by chance.
    observed = np.append(counts[common], counts[~common].sum() + 1e-9)
    assert stats.chisquare(observed, expected).pvalue > 1e-3


# Bad input ------------------------------------------------------------------------------------


def test_codes_that_are_none_are_impossible_and_what_must_be_there_is_missed():
    parents, tables = [(), (0,)], [np.array([0.4, 0.6]), np.full((2, 3), 1 / 3)]
    x = np.array([[0.0, 3.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [np.nan, 7.0], [1.0, 2.0]])
    found = network.log_evidence(np, parents, tables, x, hidden=(0,))
    np.testing.assert_allclose(found, [-np.inf] * 5 + [np.log(0.2)], rtol=1e-12)
    x = np.array([[0.0, np.nan], [np.nan, 1.0]])
    found = network.log_evidence(np, parents, tables, x, hidden=(0,))
    np.testing.assert_allclose(found, [np.nan, np.log(1 / 3)], rtol=1e-12)


def test_sums_that_are_too_large_are_refused():
    # Every pair of 30 roots has a child that was seen: they all depend on each other.
    roots = 30
    pairs = [(a, b) for a in range(roots) for b in range(a)]
    parents = [()] * roots + pairs
    tables = [np.array([0.5, 0.5])] * roots + [np.full((2, 2, 2), 0.5)] * len(pairs)
    x = np.concatenate([np.full((1, roots), np.nan), np.zeros((1, len(pairs)))], axis=1)
    with pytest.raises(ValueError, match=r"takes a table of 1,073,741,824 entries .* 1 rows"):
        network.log_evidence(np, parents, tables, x, hidden=range(roots))


def test_circles_are_refused():
    with pytest.raises(ValueError, match="parents of nodes 1, 2 go round in a circle"):
        network.topological_order([(), (2,), (1, 0)])
