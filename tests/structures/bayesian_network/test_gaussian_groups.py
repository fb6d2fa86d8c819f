"""Groups of numbers: their joint normal, its moments with gaps, and the density's gradients."""

import dataclasses

import jax
import numpy as np
import pytest
import torch

from ppl_gen import EM, BayesianNetwork, engines
from ppl_gen.algorithms.trees import tree_map
from ppl_gen.data import Rows
from ppl_gen.models.bayesian_network.building import as_graph, network_of_rows
from ppl_gen.models.bayesian_network.cpds import LinearGaussianCPD, SoftmaxCPD, TabularCPD
from ppl_gen.structures.bayesian_network import completion as network_completion
from ppl_gen.structures.bayesian_network import gaussian_groups
from ppl_gen.structures.bayesian_network.density import log_density
from tests.hybrid_problems import as_dicts, random_gaps, random_hybrid


def test_groups_are_what_arcs_between_numbers_connect():
    z = {"z": [0, 1], "w": [0, 1, 2]}
    half = [0.5, 0.5]
    net = BayesianNetwork(
        cpds=[
            LinearGaussianCPD("c", 0.0, [1.0, 2.0], 1.0, ["a", "b"]),
            LinearGaussianCPD("a", half, (), 1.0, ["z"], {"z": z["z"]}),
            LinearGaussianCPD("b", [half] * 3, (), 1.0, ["w", "z"], z),
            LinearGaussianCPD("d", half, (), 1.0, ["z"], {"z": z["z"]}),
            TabularCPD("z", half),
            TabularCPD("w", [0.2, 0.3, 0.5]),
        ]
    )
    first, second = net.structure_.groups
    names = net.structure_.names
    assert {names[v] for v in first.nodes} == {"a", "b", "c"}
    assert names[first.nodes[-1]] == "c"  # parents before children
    assert [names[v] for v in first.boundary] == ["z", "w"]
    assert first.n_configurations == 6
    assert [names[v] for v in second.nodes] == ["d"]


def test_the_joint_normal_is_that_of_the_chain_of_lines():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        hybrid = random_hybrid(rng, n_discrete=2, n_numbers=4)
        net = BayesianNetwork(cpds=hybrid.cpds)
        found = list(hybrid.configurations())
        for group in net.structure_.groups:
            names = [net.structure_.names[v] for v in group.nodes]
            places = [hybrid.numbers.index(n) for n in names]
            joint = group.joint(net._draw(0))
            for code, _, mean, covariance in found:
                own = [code[net.structure_.names[v]] for v in group.boundary]
                k = int(np.ravel_multi_index(own, group.sizes)) if own else 0
                factor = joint["precision_cholesky"][k]
                np.testing.assert_allclose(joint["mean"][k], mean[places], atol=1e-12)
                block = covariance[np.ix_(places, places)]
                np.testing.assert_allclose(
                    factor @ factor.T @ block, np.eye(len(places)), atol=1e-9
                )


@pytest.mark.parametrize("cells_a_call", [0, 10**9], ids=["by state", "at once"])
def test_moments_with_gaps_are_sums_over_states_of_conditional_moments(cells_a_call, monkeypatch):
    monkeypatch.setattr(gaussian_groups, "CELLS_A_CALL", cells_a_call)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        hybrid = random_hybrid(rng, n_discrete=2, n_numbers=3)
        net = BayesianNetwork(cpds=hybrid.cpds)
        rows = random_gaps(rng, hybrid.draw(rng, 7))
        rows[:, int(np.argmax([s > 0 for s in hybrid.sizes.values()]))] = 0.0  # a known state
        weights = rng.gamma(1.0, size=7)
        filled = network_completion.fill(net.structure_, [net._draw(0)], rows)
        statistics, _ = net.structure_.e_step(net._draw(0), Rows(rows, weights))
        expected = tree_map(np.zeros_like, statistics)
        shown = as_dicts(hybrid.names, rows)
        for r, (row, weight) in enumerate(zip(shown, weights, strict=True)):
            _, codes, shares, means, covariances = hybrid.answers(row)
            places = [hybrid.names.index(n) for n in hybrid.numbers]
            np.testing.assert_allclose(filled[r, places], shares @ means, atol=1e-10)
            for code, share, mean, covariance in zip(
                codes, shares, means, covariances, strict=True
            ):
                for v, n in enumerate(hybrid.names):
                    own = tuple(code[p] for p in hybrid.parents[n] if hybrid.sizes[p])
                    if hybrid.sizes[n]:
                        expected[str(v)]["count"][(*own, code[n])] += weight * share
                        continue
                    family = [*(p for p in hybrid.parents[n] if not hybrid.sizes[p]), n]
                    places = [hybrid.numbers.index(p) for p in family]
                    z = np.concatenate([[1.0], mean[places]])
                    second = np.outer(z, z)
                    second[1:, 1:] += covariance[np.ix_(places, places)]
                    expected[str(v)]["moment"][own] += weight * share * second
        for v, own in expected.items():
            for name, value in own.items():
                np.testing.assert_allclose(statistics[v][name], value, atol=1e-10)


def fitted(shift, scale):
    """Log density of rows with gaps under the fit to them, in shifted and scaled units."""
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 300)
    a = rng.normal(2.0 * z, 1.0)
    b = rng.normal(1.0 + 0.5 * a - z, 0.7)
    c = rng.normal(a - b, 0.3)
    x = np.column_stack([z, a * scale + shift, b * scale + shift, c * scale + shift])
    x[rng.random(x.shape) < 0.25] = np.nan
    arcs = [("z", "a"), ("z", "b"), ("a", "b"), ("a", "c"), ("b", "c")]
    states = {"z": (0, 1), "a": None, "b": None, "c": None}
    network = network_of_rows(as_graph(arcs), states, x, None, None, 2**26)
    result = EM(max_iter=30, tol=0.0).fit(network, Rows(x, None), np.random.default_rng(0))
    jacobian = (~np.isnan(x[:, 1:])).sum(axis=1) * np.log(scale)
    return network.log_evidence(result.parameters, x) + jacobian


@pytest.mark.parametrize(
    ("shift", "scale", "lost"),
    [(0.0, 1e-8, 1e-9), (0.0, 1e7, 1e-9), (0.0, 1e30, 1e-9), (1e6, 1.0, 1e-7), (-50.0, 1e-3, 1e-7)],
)
def test_a_fit_with_gaps_follows_units_and_loses_no_digits_far_from_zero(shift, scale, lost):
    # Far from zero the numbers themselves are rounded: at 1e6 deviations to 1e-10 of one.
    np.testing.assert_allclose(fitted(shift, scale), fitted(0.0, 1.0), atol=lost)


# -- the density in other libraries --------------------------------------------------------------


def hybrid_rows():
    """A network with a softmax, and rows with gaps in states and numbers."""
    z = {"z": ["p", "q"]}
    cpds = [
        TabularCPD("z", [0.3, 0.7], states=z),
        LinearGaussianCPD("a", [0.0, 1.0], (), [1.0, 0.5], ["z"], z),
        LinearGaussianCPD("b", [1.0, -1.0], [[0.5], [2.0]], [0.2, 0.4], ["z", "a"], z),
        LinearGaussianCPD("r", 0.5, (), 2.0),
        SoftmaxCPD("y", [0.1, 0.2, 0.0], [[1.0, -1.0, 0.3]], ["r"]),
    ]
    net = BayesianNetwork(cpds=cpds)
    rng = np.random.default_rng(0)
    x = net.structure_.draw_rows(net._draw(0), 30, rng)
    x[:, :3] = random_gaps(rng, x[:, :3])
    x[:4, 4] = np.nan  # the states of the softmax
    x[2:4, 3] = np.nan  # and a number above it
    hidden = tuple(np.flatnonzero(np.isnan(x).any(axis=0)).tolist())
    return dataclasses.replace(net.structure_, hidden=hidden), net._draw(0), x


def test_the_density_and_its_gradient_are_the_same_in_every_library():
    network, parameters, x = hybrid_rows()
    expected = network.log_evidence(parameters, x)
    np.testing.assert_allclose(log_density(network, parameters, x), expected, atol=1e-10)

    given = tree_map(lambda leaf: torch.tensor(leaf, requires_grad=True), parameters)
    found = log_density(network, given, torch.tensor(x))
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-10)
    found.sum().backward()
    with engines.get("numpyro").precision(device="cpu"):
        traced = jax.jit(
            jax.value_and_grad(lambda p: log_density(network, p, jax.numpy.asarray(x)).sum())
        )
        value, gradient = traced(tree_map(jax.numpy.asarray, parameters))
        gradient = tree_map(np.asarray, gradient)
    assert float(value) == pytest.approx(expected.sum(), abs=1e-9)

    for v, own in parameters.items():
        for name, leaf in own.items():
            if not leaf.size:  # no regressors: nothing to have a gradient
                continue
            np.testing.assert_allclose(gradient[v][name], given[v][name].grad.numpy(), atol=1e-9)
            for cell in np.ndindex(leaf.shape):
                step = np.zeros_like(leaf)
                step[cell] = 1e-5
                ends = [
                    network.log_evidence(parameters | {v: own | {name: leaf + s}}, x).sum()
                    for s in (step, -step)
                ]
                # Central differences leave the square of the step, and rounding over it.
                slope = (ends[0] - ends[1]) / 2e-5
                assert gradient[v][name][cell] == pytest.approx(slope, rel=1e-5, abs=1e-5)
