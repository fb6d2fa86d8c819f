"""Networks with numbers among their nodes, held by sums over states of dense normals."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from ppl_gen import NUTS, BayesianNetwork, Conjugate
from ppl_gen.models.bayesian_network.cpds import LinearGaussianCPD, SoftmaxCPD, TabularCPD
from ppl_gen.structures.bayesian_network.completion import weighted_draws
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


# -- softmax -------------------------------------------------------------------------------------


def with_softmax():
    """A number, the state that depends on it, and a number that depends on the state."""
    z, y = {"z": ["p", "q"]}, {"y": [0, 1, 2]}
    return BayesianNetwork(
        cpds=[
            TabularCPD("z", [0.4, 0.6], states=z),
            LinearGaussianCPD("x", [-1.0, 1.0], (), [1.0, 0.5], ["z"], z),
            SoftmaxCPD("y", [0.0, 0.5, -0.5], [[1.0, 0.0, -2.0]], ["x"], y),
            LinearGaussianCPD("u", [0.0, 1.0, 3.0], (), 0.8, ["y"], y),
        ]
    )


def softmax_joint(x, u=None):
    """Log p(z, x, y, u), of known numbers: (2, 3)."""
    logits = np.array([0.0, 0.5, -0.5]) + x * np.array([1.0, 0.0, -2.0])
    of_y = logits - np.logaddexp.reduce(logits)
    if u is not None:
        of_y = of_y + stats.norm.logpdf(u, [0.0, 1.0, 3.0], 0.8**0.5)
    of_z = np.log([0.4, 0.6]) + stats.norm.logpdf(x, [-1.0, 1.0], [1.0, 0.5**0.5])
    return of_z[:, None] + of_y


def test_a_softmax_is_exact_where_its_numbers_are_known():
    net = with_softmax()
    for x, u in [(0.3, 1.2), (-2.0, None), (1.5, 4.0)]:
        seen = {"x": x} | ({} if u is None else {"u": u})
        logs = softmax_joint(x, u)
        assert net.probability(seen, log=True) == pytest.approx(np.logaddexp.reduce(logs.ravel()))
        odds = np.exp(logs - np.logaddexp.reduce(logs.ravel()))
        np.testing.assert_allclose(net.query("y", seen), odds.sum(axis=0), atol=EXACT)
        np.testing.assert_allclose(net.query(["z", "y"], seen), odds.ravel(), atol=EXACT)
        if u is None:
            mean = odds.sum(axis=0) @ [0.0, 1.0, 3.0]
            assert net.query("u", seen).loc["u", "mean"] == pytest.approx(mean, abs=EXACT)


def test_a_softmax_below_which_nothing_is_known_drops_out():
    net = with_softmax()
    assert net.probability({"z": "p"}) == pytest.approx(0.4)
    assert net.query("x", {"z": "q"}).loc["x", "mean"] == pytest.approx(1.0)
    frame = pd.DataFrame({"z": ["p", "q"], "x": [np.nan, 0.5]})
    expected = [np.log(0.4), np.logaddexp.reduce(softmax_joint(0.5)[1])]
    np.testing.assert_allclose(net.log_prob(frame), expected, atol=EXACT)


def test_a_softmax_of_a_missing_number_is_refused_in_words():
    net = with_softmax()
    frame = pd.DataFrame({"x": [0.1, np.nan], "y": [0, 1]})
    words = "'x' is missing, a number on which the states of 'y' depend by a softmax"
    with pytest.raises(ValueError, match=words):
        net.log_prob(frame)
    with pytest.raises(ValueError, match=words):
        net.query("x", {"u": 1.0})
    with pytest.raises(ValueError, match=words):
        net.query("y", {"z": "p"})
    with pytest.raises(ValueError, match="likelihood_weighting"):
        net.query("u", {"z": "p"})
    with pytest.raises(ValueError, match=words):
        net.impute(pd.DataFrame({"z": ["p"], "x": [np.nan], "y": [np.nan]}))
    with pytest.raises(ValueError, match=words):
        BayesianNetwork(net.graph_, states={"y": 3}).fit(
            pd.DataFrame({"z": ["p", "q"], "x": [np.nan, 1.0], "y": [0, 1], "u": [0.0, 1.0]})
        )


def test_what_drops_out_is_drawn_from_above():
    net = with_softmax()
    gaps = pd.DataFrame({"z": ["q"] * 4000, "x": np.nan, "y": np.nan, "u": np.nan})
    (drawn,) = net.impute(gaps, n_draws=1, random_state=1)
    rng = np.random.default_rng(2)
    x = rng.normal(1.0, 0.5**0.5, 200_000)
    logits = np.array([0.0, 0.5, -0.5]) + x[:, None] * [1.0, 0.0, -2.0]
    each = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).mean(axis=0)
    counts = np.bincount(drawn["y"].astype(int), minlength=3)
    assert stats.chisquare(counts, 4000 * each).pvalue > 1e-3
    residual = drawn["u"] - np.array([0.0, 1.0, 3.0])[drawn["y"].astype(int)]
    assert stats.kstest(residual, stats.norm(0.0, 0.8**0.5).cdf).pvalue > 1e-3


def test_weighted_draws_reach_what_has_no_exact_integral():
    net = with_softmax()
    seen = {"u": 2.5, "z": "q"}
    found = net.query("y", seen, method="likelihood_weighting", n_samples=40_000, random_state=0)
    grid = np.linspace(-6.0, 8.0, 4001)
    density = np.exp([softmax_joint(x, 2.5)[1] for x in grid])
    expected = integrate.trapezoid(density, grid, axis=0)
    error = np.array(found.attrs["standard_error"])
    assert (np.abs(found - expected / expected.sum()) < 4.0 * error).all()


def test_weighted_draws_agree_with_exact_answers_about_numbers():
    for seed in range(6):
        hybrid, net, _, shown = problem(seed, n_rows=2, n_discrete=3, n_numbers=3)
        for row in shown:
            log_prob, codes, weights, _, _ = hybrid.answers(row)
            evidence = {hybrid.names.index(n): value for n, value in row.items()}
            drawn, logs = weighted_draws(
                net.structure_, net._draw(0), evidence, {}, 20_000, np.random.default_rng(seed)
            )
            weight = np.exp(logs - log_prob)  # its mean is one
            error = weight.std() / len(weight) ** 0.5
            assert weight.mean() == pytest.approx(1.0, abs=4.0 * error + 1e-12)
            for n in hybrid.discrete:
                expected = shares(codes, weights, [n], hybrid.sizes)
                hit = drawn[:, [hybrid.names.index(n)]] == np.arange(hybrid.sizes[n])
                away = weight[:, None] * (hit - expected)
                error = away.std(axis=0) / len(weight) ** 0.5
                assert (np.abs(away.mean(axis=0)) < 4.5 * error + 1e-12).all()


def test_a_softmax_is_fitted_beside_missing_states():
    net = with_softmax()
    frame = net.sample(3000, random_state=0)
    lacking = frame.copy()
    rng = np.random.default_rng(1)
    for name in ("z", "y"):
        lacking[name] = lacking[name].where(rng.random(3000) > 0.3)
    states = {"z": ["p", "q"], "y": [0, 1, 2]}
    found = BayesianNetwork(net.graph_, states=states, random_state=0).fit(lacking)
    assert found.converged_
    assert found.n_iter_ < 100
    history = found.history_
    assert np.diff(history).min() > -1e-9
    # At each x the fitted odds are near the true ones, within what 3,000 rows tell.
    at = pd.DataFrame({"x": [-1.0, 0.0, 1.0]})
    np.testing.assert_allclose(found.predict_proba(at, "y"), net.predict_proba(at, "y"), atol=0.08)


# -- drawing -------------------------------------------------------------------------------------


def test_samples_have_the_distribution():
    hybrid = random_hybrid(np.random.default_rng(4), n_discrete=2, n_numbers=2)
    net = BayesianNetwork(cpds=hybrid.cpds)
    frame = net.sample(20_000, random_state=0)
    found = list(hybrid.configurations())
    counts = []
    for code, _, mean, covariance in found:
        rows = frame[(frame[list(code)] == pd.Series(code)).all(axis=1)][hybrid.numbers]
        counts.append(len(rows))
        if len(rows) > 100:
            for i, n in enumerate(hybrid.numbers):
                known = stats.norm(mean[i], covariance[i, i] ** 0.5)
                assert stats.kstest(rows[n], known.cdf).pvalue > 1e-4
            # Standard errors of correlations are at most one over the root of the rows.
            sd = np.sqrt(np.diag(covariance))
            away = np.corrcoef(rows.T) - covariance / np.outer(sd, sd)
            assert np.abs(away).max() < 4.5 / len(rows) ** 0.5
    expected = np.exp([log_prob for _, log_prob, _, _ in found])
    assert stats.chisquare(counts, 20_000 * expected).pvalue > 1e-3


def test_imputed_draws_have_the_joint_conditional_distribution():
    hybrid, net, rows, shown = problem(8, n_rows=1, n_discrete=3, n_numbers=3)
    row = shown[0]
    _, codes, weights, means, covariances = hybrid.answers(row)
    gaps = table_of(hybrid, np.repeat(rows, 5000, axis=0))
    (drawn,) = net.impute(gaps, n_draws=1, random_state=0)
    open_ = [n for n in hybrid.names if n not in row]
    asked = [n for n in open_ if hybrid.sizes[n]]
    numbers = [n for n in open_ if not hybrid.sizes[n]]
    assert asked
    assert numbers
    expected = shares(codes, weights, asked, hybrid.sizes).ravel()
    sizes = [hybrid.sizes[n] for n in asked]
    cells = np.ravel_multi_index([drawn[n].astype(int) for n in asked], sizes)
    counts = np.bincount(cells, minlength=len(expected))
    likely = 5000 * expected > 5
    assert (
        stats.chisquare(
            counts[likely], expected[likely] / expected[likely].sum() * counts[likely].sum()
        ).pvalue
        > 1e-3
    )
    for n in numbers:
        i = hybrid.numbers.index(n)
        spread = np.sqrt(covariances[:, i, i])

        def cdf(value, i=i, spread=spread):
            return stats.norm.cdf(np.asarray(value)[:, None], means[:, i], spread) @ weights

        assert stats.kstest(drawn[n], cdf).pvalue > 1e-3
    # Numbers go with the states that they are drawn beside.
    cell = int(np.argmax(expected))
    near = [
        i for i, c in enumerate(codes) if np.ravel_multi_index([c[n] for n in asked], sizes) == cell
    ]
    for n in numbers:
        i = hybrid.numbers.index(n)
        own = weights[near] / weights[near].sum()
        mean = own @ means[near, i]
        sd = np.sqrt(own @ (covariances[near, i, i] + means[near, i] ** 2) - mean**2)
        found = drawn.loc[cells == cell, n].mean()
        assert found == pytest.approx(mean, abs=4.5 * sd / (cells == cell).sum() ** 0.5)


# -- fits ----------------------------------------------------------------------------------------


def test_the_posterior_scores_rows_as_the_model_does():
    hybrid, net, _, _ = problem(2, n_discrete=2, n_numbers=2)
    frame = table_of(
        hybrid,
        random_gaps(np.random.default_rng(0), hybrid.draw(np.random.default_rng(1), 40), 0.2),
    )
    states = {n: hybrid.sizes[n] for n in hybrid.discrete}
    found = BayesianNetwork(net.graph_, states=states, random_state=0).fit(frame)
    group = found.posterior_.log_likelihood()["x"]
    np.testing.assert_allclose(np.ravel(group), found.log_prob(frame), atol=EXACT)


def test_units_shift_the_log_density_by_their_jacobian():
    hybrid, net, _, _ = problem(6, n_discrete=2, n_numbers=3)
    rng = np.random.default_rng(0)
    frame = table_of(hybrid, random_gaps(rng, hybrid.draw(rng, 150), 0.2))
    other, jacobian = frame.copy(), np.zeros(len(frame))
    for n, scale, shift in zip(hybrid.numbers, [1e-6, 1e3, 1e20], [0.0, -5e4, 0.0], strict=True):
        other[n] = frame[n] * scale + shift
        jacobian += frame[n].notna() * np.log(scale)
    states = {n: hybrid.sizes[n] for n in hybrid.discrete}
    one, two = (
        BayesianNetwork(net.graph_, states=states, random_state=0).fit(table)
        for table in (frame, other)
    )
    np.testing.assert_allclose(two.log_prob(other) + jacobian, one.log_prob(frame), atol=1e-7)


@pytest.mark.parametrize("constant", [0.1, 3.0, 1e6 + 0.1])
def test_a_constant_column_is_warned_of_and_keeps_the_fit_finite(constant):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"k": np.full(100, constant), "y": rng.normal(size=100)})
    with pytest.warns(RuntimeWarning, match=r"constant column\(s\) \(k\)"):
        net = BayesianNetwork([("k", "y")]).fit(frame)
    assert net.cpds_["y"].coefficients == pytest.approx(0.0, abs=1e-9)
    assert net.cpds_["k"].variance == pytest.approx(1e-6)
    assert net.query("y", {"k": constant}).loc["y", "mean"] == pytest.approx(frame["y"].mean())


def test_a_group_of_too_many_configurations_is_refused_with_the_figure():
    names = [f"d{i}" for i in range(8)]
    arcs = [(n, "x") for n in names[:4]] + [(n, "y") for n in names[4:]] + [("x", "y")]
    frame = pd.DataFrame({n: [0, 1] * 5 for n in names} | {"x": np.arange(10.0), "y": 1.0})
    frame["y"] += np.arange(10.0) % 3
    net = BayesianNetwork(arcs, states=dict.fromkeys(names, 8), max_cells=10**6)
    with pytest.raises(ValueError, match=r"\['x', 'y'\] have 16,777,216 joint states"):
        net.fit(frame)


def test_conjugate_draws_have_the_means_of_the_closed_form():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"z": rng.choice(["p", "q"], 30), "x": rng.normal(5.0, 2.0, 30)})
    frame["y"] = frame["x"] * np.where(frame["z"] == "p", 1.0, -0.5) + rng.normal(size=30)
    arcs = [("z", "y"), ("x", "y")]
    method = Conjugate(draws=4000)
    net = BayesianNetwork(arcs, inference=method, random_state=0).fit(frame)
    precision, origin = 0.01, frame["x"].mean()
    for k, state in enumerate(["p", "q"]):
        rows = frame[frame["z"] == state]
        design = np.column_stack([np.ones(len(rows)), rows["x"] - origin])
        prior = precision * np.diag([1.0, frame["x"].var(ddof=0)])
        mean = np.linalg.solve(
            prior + design.T @ design, design.T @ (rows["y"] - frame["y"].mean())
        )
        drawn = net.parameters_[str(net.structure_.names.index("y"))]["coefficients"][:, k, 0]
        assert drawn.mean() == pytest.approx(mean[1], abs=4.0 * drawn.std() / 4000**0.5)


@pytest.mark.slow
def test_nuts_finds_the_conjugate_posterior():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"z": rng.choice(["p", "q"], 25), "x": rng.normal(5.0, 2.0, 25)})
    frame["y"] = frame["x"] * np.where(frame["z"] == "p", 1.0, -0.5) + rng.normal(size=25)
    arcs = [("z", "y"), ("x", "y")]
    exact = BayesianNetwork(arcs, inference=Conjugate(draws=4000), random_state=0).fit(frame)
    nuts = NUTS(chains=4, warmup=500, draws=500)
    drawn = BayesianNetwork(arcs, inference=nuts, random_state=0).fit(frame)
    one, two = exact.posterior_.idata.posterior, drawn.posterior_.idata.posterior
    for name in one.data_vars:
        a, b = (np.asarray(d[name]).reshape(-1, *d[name].shape[2:]) for d in (one, two))
        # At least 400 effective draws of 2,000.
        error = np.sqrt(a.var(axis=0) / 4000 + b.var(axis=0) / 400)
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4.5 * error + 1e-12).all()
        ratio = b.std(axis=0) / a.std(axis=0)
        assert (np.abs(np.log(ratio)) < 0.2).all()
