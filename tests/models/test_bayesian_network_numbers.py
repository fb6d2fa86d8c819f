"""Networks with numbers among their nodes, held by sums over states of dense normals."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from ppl_gen import BayesianNetwork
from ppl_gen.models.bayesian_network.cpds import LinearGaussianCPD, TabularCPD
from tests.hybrid_problems import as_dicts, random_gaps, random_hybrid

#: Sums of at most a few hundred terms of order one: a few digits of rounding are left.
EXACT = 1e-10


def table_of(hybrid, rows):
    """Rows as a table in which states are whole numbers."""
    frame = pd.DataFrame(rows, columns=hybrid.names)
    return frame.astype({n: "Int64" for n in hybrid.discrete})


def problem(seed, n_rows=6, **settings):
    """A random network, the model of it, rows with gaps, and what these show."""
    rng = np.random.default_rng(seed)
    settings = {
        "n_discrete": int(rng.integers(0, 5)),
        "n_numbers": int(rng.integers(1, 5)),
    } | settings
    hybrid = random_hybrid(rng, **settings)
    rows = random_gaps(rng, hybrid.draw(rng, n_rows))
    shown = [
        {n: int(v) if hybrid.sizes[n] else v for n, v in row.items()}
        for row in as_dicts(hybrid.names, rows)
    ]
    return hybrid, BayesianNetwork(cpds=hybrid.cpds), rows, shown


def shares(codes, weights, names, sizes):
    """Probabilities of the joint states of some nodes: (*sizes)."""
    table = np.zeros([sizes[n] for n in names])
    for code, weight in zip(codes, weights, strict=True):
        table[tuple(code[n] for n in names)] += weight
    return table


# -- exact answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_rows_with_gaps_are_scored_as_the_sum_over_states_of_dense_normals(first):
    for seed in range(first, first + 20):
        hybrid, net, rows, shown = problem(seed)
        expected = [hybrid.answers(row)[0] for row in shown]
        np.testing.assert_allclose(net.log_prob(table_of(hybrid, rows)), expected, atol=EXACT)
        # The traced route, which must be told which columns have gaps.
        hidden = tuple(np.flatnonzero(np.isnan(rows).any(axis=0)).tolist())
        network = dataclasses.replace(net.structure_, hidden=hidden)
        traced = network.log_prob(net._draw(0), rows)[:, 0]
        np.testing.assert_allclose(traced, expected, atol=EXACT)


@pytest.mark.parametrize("n_discrete", [0, 3], ids=["linear Gaussian", "conditional Gaussian"])
def test_queries_of_numbers_give_the_moments_of_the_mixture(n_discrete):
    for seed in range(15):
        hybrid, net, _, shown = problem(seed, n_rows=3, n_discrete=n_discrete, n_numbers=4)
        for row in shown:
            asked = [n for n in hybrid.numbers if n not in row]
            if not asked:
                continue
            _, _, weights, means, covariances = hybrid.answers(row)
            places = [hybrid.numbers.index(n) for n in asked]
            means, covariances = means[:, places], covariances[:, places][:, :, places]
            mean = weights @ means
            square = covariances + means[:, :, None] * means[:, None, :]
            covariance = np.tensordot(weights, square, axes=1) - np.outer(mean, mean)
            found = net.query(asked, row)
            np.testing.assert_allclose(found["mean"], mean, atol=EXACT)
            np.testing.assert_allclose(found["sd"], np.sqrt(np.diag(covariance)), atol=EXACT)
            np.testing.assert_allclose(found.attrs["covariance"], covariance, atol=EXACT)


def test_queries_of_states_given_numbers_and_states_are_bayes_rule():
    for seed in range(15):
        hybrid, net, _, shown = problem(seed, n_rows=3, n_discrete=4, n_numbers=3)
        for row in shown:
            log_prob, codes, weights, _, _ = hybrid.answers(row)
            assert net.probability(row, log=True) == pytest.approx(log_prob, abs=EXACT)
            asked = [n for n in hybrid.discrete if n not in row]
            for names in [asked[:1], asked[-1:], asked[:2]] if asked else []:
                expected = shares(codes, weights, names, hybrid.sizes).ravel()
                np.testing.assert_allclose(net.query(names, row), expected, atol=EXACT)


def test_predict_proba_and_impute_are_conditional_on_all_that_rows_show():
    for seed in range(15):
        hybrid, net, rows, shown = problem(seed, n_discrete=3)
        frame = table_of(hybrid, rows)
        for n in hybrid.discrete:
            expected = []
            for row in shown:
                _, codes, weights, _, _ = hybrid.answers({k: v for k, v in row.items() if k != n})
                expected.append(shares(codes, weights, [n], hybrid.sizes))
            np.testing.assert_allclose(net.predict_proba(frame, n), expected, atol=EXACT)
        filled = net.impute(frame)
        for r, row in enumerate(shown):
            _, codes, weights, means, _ = hybrid.answers(row)
            for n in hybrid.names:
                value = filled[n].iloc[r]
                if n in row:
                    assert value == row[n]
                elif hybrid.sizes[n]:
                    each = shares(codes, weights, [n], hybrid.sizes)
                    assert each[int(value)] == pytest.approx(each.max(), abs=EXACT)
                else:
                    mean = weights @ means[:, hybrid.numbers.index(n)]
                    assert value == pytest.approx(mean, abs=EXACT)


def test_soft_evidence_weighs_states_among_numbers():
    hybrid, net, _, shown = problem(3, n_rows=4, n_discrete=3, n_numbers=2)
    for row in shown:
        row = {n: v for n, v in row.items() if not hybrid.sizes[n]}
        first, last = hybrid.discrete[0], hybrid.discrete[-1]
        likelihood = np.linspace(0.2, 0.9, hybrid.sizes[first])
        _, codes, weights, _, _ = hybrid.answers(row)
        weights = weights * likelihood[[code[first] for code in codes]]
        expected = shares(codes, weights / weights.sum(), [last], hybrid.sizes)
        found = net.query(last, row, {first: likelihood})
        np.testing.assert_allclose(found, expected, atol=EXACT)


def test_the_density_integrates_to_one():
    net = BayesianNetwork(
        cpds=[
            TabularCPD("z", [0.3, 0.7]),
            LinearGaussianCPD("x", [-1.0, 1.0], (), [0.5, 1.5], ["z"], {"z": [0, 1]}),
        ]
    )
    grid = np.linspace(-12.0, 12.0, 2001)
    both = [np.exp(net.log_prob(pd.DataFrame({"z": z, "x": grid}))) for z in (0, 1)]
    alone = np.exp(net.log_prob(pd.DataFrame({"x": grid})))
    # The trapezoid rule is exact to rounding for what is smooth and vanishes at both ends.
    np.testing.assert_allclose([integrate.trapezoid(p, grid) for p in both], [0.3, 0.7], atol=1e-9)
    assert integrate.trapezoid(alone, grid) == pytest.approx(1.0, abs=1e-9)


# -- tails ---------------------------------------------------------------------------------------


def test_states_that_are_observed_against_the_numbers_do_not_underflow():
    states = {"z": [0, 1]}
    net = BayesianNetwork(
        cpds=[
            TabularCPD("z", [0.5, 0.5]),
            LinearGaussianCPD("a", [0.0, 100.0], (), 1.0, ["z"], states),
        ]
    )
    at_odds = np.log(0.5) + stats.norm.logpdf(100.0)
    frame = pd.DataFrame({"z": [0, 1], "a": [100.0, 0.0]})
    np.testing.assert_allclose(net.log_prob(frame), at_odds, rtol=1e-12)
    # Beside a row that lacks the state.
    frame = pd.DataFrame({"z": [0, None], "a": [100.0, 0.0]}).astype({"z": "Int64"})
    expected = [at_odds, np.log(0.5) + stats.norm.logpdf(0.0)]
    np.testing.assert_allclose(net.log_prob(frame), expected, rtol=1e-12)


def test_numbers_that_contradict_each_other_do_not_underflow():
    table = np.array([[0.9, 0.1], [0.2, 0.8]])
    by_z, by_both = {"z": [0, 1]}, {"z": [0, 1], "w": [0, 1]}
    net = BayesianNetwork(
        cpds=[
            TabularCPD("z", [0.5, 0.5]),
            TabularCPD("w", table, ["z"], by_both),
            LinearGaussianCPD("a", [0.0, 100.0], (), 1.0, ["z"], by_z),
            LinearGaussianCPD("b", [0.0, 90.0], (), 1.0, ["z"], by_z),
            LinearGaussianCPD("c", [0.0, 95.0], (), 1.0, ["w"], {"w": [0, 1]}),
            LinearGaussianCPD("e", [[0.0, 1.0], [80.0, 2.0]], (), 1.0, ["z", "w"], by_both),
            LinearGaussianCPD("f", [[0.0, 1.0], [2.0, 3.0]], (), 1.0, ["z", "w"], by_both),
        ]
    )
    seen = {"a": 0.0, "b": 90.0, "c": 0.0, "e": 300.0}
    means = {
        "a": [[0.0, 0.0], [100.0, 100.0]],
        "b": [[0.0, 0.0], [90.0, 90.0]],
        "c": [[0.0, 95.0], [0.0, 95.0]],
        "e": [[0.0, 1.0], [80.0, 2.0]],
    }
    logs = np.log(0.5 * table)
    for n, value in seen.items():
        logs = logs + stats.norm.logpdf(value, np.array(means[n]))
    frame = pd.DataFrame([seen])
    expected = np.logaddexp.reduce(logs.ravel())
    np.testing.assert_allclose(net.log_prob(frame), expected, rtol=1e-12)
    odds = np.exp(logs - expected)
    np.testing.assert_allclose(net.predict_proba(frame, "z")[0], odds.sum(axis=1), atol=EXACT)
    np.testing.assert_allclose(net.query(["z", "w"], seen), odds.ravel(), atol=EXACT)
    mean = (odds * [[0.0, 1.0], [2.0, 3.0]]).sum()
    assert net.query("f", seen).loc["f", "mean"] == pytest.approx(mean, abs=EXACT)
    best = np.unravel_index(odds.argmax(), odds.shape)
    assert tuple(net.map_query(None, seen).values()) == best
    assert tuple(net.map_query(["z", "w"], seen).values()) == best
    gaps = frame.reindex(columns=["z", "w", *frame.columns])
    (drawn,) = net.impute(gaps, n_draws=1, random_state=0)
    assert tuple(drawn[["z", "w"]].iloc[0]) == best
