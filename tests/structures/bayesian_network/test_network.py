"""The EM protocol of Bayesian networks: sums, climbs, modes and posteriors by other means."""

import numpy as np
import pytest
from scipy import optimize, stats

from ppl_gen import EM, BayesianNetwork
from ppl_gen.algorithms.trees import tree_leaves
from ppl_gen.data import Rows
from ppl_gen.models.bayesian_network.building import as_graph, network_of_rows
from ppl_gen.structures.bayesian_network import network as bayesian_network
from tests.hybrid_problems import random_gaps, random_hybrid


def problem(seed, n_rows=60, share=0.3, prior=None, **settings):
    """A random network, made to fit rows that are drawn from it, with gaps."""
    rng = np.random.default_rng(seed)
    settings = {
        "n_discrete": int(rng.integers(1, 4)),
        "n_numbers": int(rng.integers(1, 4)),
    } | settings
    hybrid = random_hybrid(rng, **settings)
    rows = random_gaps(rng, hybrid.draw(rng, n_rows), share)
    graph = BayesianNetwork(cpds=hybrid.cpds).graph_
    return hybrid, bound(graph, hybrid.sizes, rows, prior), rows, rng


def bound(graph, sizes, rows, prior=None):
    """The network of a graph bound to rows; `sizes` are zero of numbers."""
    graph = as_graph(graph)
    states = {n: tuple(range(sizes[n])) if sizes[n] else None for n in graph}
    return network_of_rows(graph, states, rows, prior, None, 2**26)


def assert_same(one, other, tolerance=1e-10):
    """Assert that trees of arrays are equal, relative to each array's size."""
    for a, b in zip(tree_leaves(one), tree_leaves(other), strict=True):
        size = 1.0 + np.abs(a).max(initial=0.0)
        np.testing.assert_allclose(np.asarray(a) / size, np.asarray(b) / size, atol=tolerance)


def added(*parts):
    """Sum of trees of statistics."""
    return {
        v: {name: sum(part[v][name] for part in parts) for name in parts[0][v]} for v in parts[0]
    }


# -- the law -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_statistics_add_over_rows(share):
    for seed in range(20):
        _, network, x, rng = problem(seed, share=share)
        weights = rng.gamma(1.0, size=len(x))
        parameters = network.initialize(Rows(x, None), rng, "kmeans")
        whole, log_likelihood = network.e_step(parameters, Rows(x, weights))
        part = rng.random(len(x)) < 0.4
        parts = [network.e_step(parameters, Rows(x[p], weights[p])) for p in (part, ~part)]
        assert_same(whole, added(*(statistics for statistics, _ in parts)))
        assert log_likelihood == pytest.approx(sum(own for _, own in parts), rel=1e-12)
        evidence = network.log_evidence(parameters, x)
        assert log_likelihood == pytest.approx(weights @ evidence, rel=1e-12)


def test_parts_of_any_size_say_the_same(monkeypatch):
    for seed in range(10):
        _, network, x, rng = problem(seed)
        parameters = network.initialize(Rows(x, None), rng, "kmeans")
        whole, log_likelihood = network.e_step(parameters, Rows(x, None))
        with monkeypatch.context() as patch:
            patch.setattr(bayesian_network, "PART_CELLS", 8)
            parts, own = network.e_step(parameters, Rows(x, None))
        assert_same(whole, parts)
        assert own == pytest.approx(log_likelihood, rel=1e-12)


def test_weights_are_rows_repeated():
    for seed in range(10):
        _, network, x, rng = problem(seed)
        times = rng.integers(0, 4, len(x))
        parameters = network.initialize(Rows(x, None), rng, "kmeans")
        weighed, one = network.e_step(parameters, Rows(x, times.astype(float)))
        repeated, other = network.e_step(parameters, Rows(np.repeat(x, times, axis=0), None))
        assert_same(weighed, repeated)
        assert one == pytest.approx(other, rel=1e-12)


@pytest.mark.parametrize("prior", [False, True], ids=["likelihood", "posterior"])
def test_em_never_falls(prior):
    for seed in range(50):
        _, network, x, rng = problem(seed)
        network = network.with_prior() if prior else network
        # A step that falls is warned of, and warnings are errors.
        result = EM(max_iter=8, tol=0.0).fit(network, Rows(x, None), rng)
        assert np.diff(result.history).min(initial=0.0) > -1e-9


def test_complete_rows_need_one_pass_which_the_steps_agree_with():
    for seed in range(10):
        _, network, x, rng = problem(seed, share=0.0)
        rows = Rows(x, rng.gamma(1.0, size=len(x)))
        assert network.is_one_pass(rows)
        parameters = network.m_step(network.complete_statistics(rows))
        again, log_likelihood = network.e_step(parameters, rows)
        assert_same(again, network.complete_statistics(rows))
        found = network.log_likelihood(parameters, network.complete_statistics(rows))
        assert found == pytest.approx(log_likelihood, rel=1e-10)


# -- modes ---------------------------------------------------------------------------------------


def test_em_with_gaps_finds_the_maximum_that_a_general_optimiser_finds():
    rng = np.random.default_rng(5)
    z = rng.integers(0, 2, 80)
    a = rng.normal(2.0 * z, 1.0)
    b = rng.normal(1.0 + 0.5 * a - z, 0.7)
    x = random_gaps(rng, np.column_stack([z, a, b]).astype(float), 0.25)
    network = bound([("z", "a"), ("z", "b"), ("a", "b")], {"z": 2, "a": 0, "b": 0}, x)

    def parameters(free):
        share = 1.0 / (1.0 + np.exp(-free[0]))
        return {
            "0": {"table": np.array([1.0 - share, share])},
            "1": {
                "intercept": free[1:3],
                "coefficients": np.zeros((2, 0)),
                "variance": np.exp(free[3:5]),
            },
            "2": {
                "intercept": free[5:7],
                "coefficients": free[7:9, None],
                "variance": np.exp(free[9:11]),
            },
        }

    def cost(free):
        return -network.log_evidence(parameters(free), x).sum()

    result = EM(max_iter=2000, tol=1e-13).fit(network, Rows(x, None), rng)
    found = result.parameters
    start = np.concatenate(
        [
            [np.log(found["0"]["table"][1] / found["0"]["table"][0])],
            found["1"]["intercept"],
            np.log(found["1"]["variance"]),
            found["2"]["intercept"],
            found["2"]["coefficients"][:, 0],
            np.log(found["2"]["variance"]),
        ]
    )
    best = optimize.minimize(cost, start + 0.05 * rng.normal(size=11), method="BFGS")
    assert cost(start) <= best.fun + 1e-7
    # BFGS with differences stops at gradients of 1e-5, near the maximum of a sum over 80 rows.
    np.testing.assert_allclose(start, best.x, atol=2e-4)


def test_the_mode_under_the_prior_is_that_of_likelihood_and_penalty():
    rng = np.random.default_rng(2)
    a, z = rng.normal(3.0, 2.0, 12), rng.integers(0, 2, 12)
    x = np.column_stack([a, 0.3 * a + z + rng.normal(0.0, 0.5, 12), z])
    network = bound([("a", "b"), ("z", "b")], {"a": 0, "b": 0, "z": 2}, x[:, [0, 1, 2]])
    network = network.with_prior()
    statistics = network.complete_statistics(Rows(x, None))
    mode = network.m_step(statistics)

    def cost(parameters):
        likelihood = network.log_likelihood(parameters, statistics)
        return network.penalty(parameters, statistics) - likelihood

    least = cost(mode)
    for v, own in mode.items():
        for name, value in own.items():
            if name == "table":
                continue
            # The gradient is zero: differences either side agree to second order.
            for cell in np.ndindex(value.shape):
                step = np.zeros_like(value)
                step[cell] = 1e-4 * max(abs(value[cell]), 0.1)
                up = cost(mode | {v: own | {name: value + step}})
                down = cost(mode | {v: own | {name: value - step}})
                assert up > least
                assert down > least
                assert abs(up - down) < 1e-3 * (up + down - 2.0 * least)


def test_recovery_within_standard_errors():
    rng = np.random.default_rng(11)
    arcs, sizes = [("z", "a"), ("z", "b"), ("a", "b")], {"z": 2, "a": 0, "b": 0}
    found = []
    for _ in range(30):
        z = rng.integers(0, 2, 1000)
        a = rng.normal(2.0 * z, 1.0)
        b = rng.normal(1.0 + np.where(z == 1, 0.5, -0.3) * a - z, 0.7)
        x = random_gaps(rng, np.column_stack([z, a, b]).astype(float), 0.2)
        own = EM(tol=1e-8).fit(bound(arcs, sizes, x), Rows(x, None), rng).parameters
        leaves = [own["0"]["table"][1:]]
        for v in ("1", "2"):
            leaves += [own[v]["intercept"], own[v]["coefficients"].ravel(), own[v]["variance"]]
        found.append(np.concatenate(leaves))
    truth = [0.5, 0.0, 2.0, 1.0, 1.0, 1.0, 0.0, -0.3, 0.5, 0.49, 0.49]
    error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - truth) < 4.0 * error).all()


def test_a_number_that_is_hidden_is_found_as_a_factor():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=400)
    y = factor[:, None] * [1.0, 2.0, -1.0] + rng.normal(scale=0.5, size=(400, 3)) + [1.0, 2.0, 3.0]
    x = np.column_stack([np.full(400, np.nan), y])
    network = bound([("f", "a"), ("f", "b"), ("f", "c")], dict.fromkeys("fabc", 0), x)
    result = EM(max_iter=3000, tol=1e-10).fit(network, Rows(x, None), rng)
    # One factor of three columns is saturated: it can have any covariance of these signs.
    saturated = stats.multivariate_normal(y.mean(axis=0), np.cov(y.T, bias=True))
    assert result.objective == pytest.approx(saturated.logpdf(y).mean(), abs=1e-5)


@pytest.mark.parametrize("seed", range(0, 30, 10))
def test_a_handful_of_rows_with_gaps_has_a_finite_fit(seed):
    for rng in map(np.random.default_rng, range(seed, seed + 10)):
        n = int(rng.integers(2, 6))
        x = np.column_stack([rng.integers(0, 3, n), rng.normal(size=(n, 2))])
        x[rng.random(x.shape) < 0.3] = np.nan
        network = bound([("z", "a"), ("z", "b"), ("a", "b")], {"z": 3, "a": 0, "b": 0}, x)
        result = EM(max_iter=20, tol=0.0).fit(network, Rows(x, None), rng)
        assert all(np.isfinite(leaf).all() for leaf in tree_leaves(result.parameters))
        assert np.isfinite(network.log_evidence(result.parameters, x)).all()
