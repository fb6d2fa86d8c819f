"""Conditional distributions of nodes: least squares, posteriors in closed form, logistic fits."""

import warnings

import numpy as np
import pytest
from scipy import optimize, stats

from ppl_gen.structures.bayesian_network.conditionals import (
    PRIOR_DOF,
    SHRINKAGE,
    VARIANCE_FLOOR,
    LinearGaussian,
    Tabular,
)
from ppl_gen.structures.bayesian_network.softmax import SOFTMAX_PRECISION, Softmax


def line(x, sizes=(), parents=(), regressors=None, **settings):
    """A number, the last column of x, on the numbers before it."""
    width = x.shape[1]
    regressors = tuple(range(len(parents), width - 1)) if regressors is None else regressors
    columns = [*regressors, width - 1]
    scale = x[:, columns].var(axis=0)
    return LinearGaussian(
        width - 1,
        parents,
        sizes,
        regressors,
        x[:, columns].mean(axis=0),
        np.where(scale > 0.0, scale, 1.0),
        **settings,
    )


def ones(x, sizes=()):
    """Shares of rows whose states are known: the first columns are codes."""
    shares = np.zeros((len(x), *sizes))
    shares[(np.arange(len(x)), *x[:, : len(sizes)].astype(int).T)] = 1.0
    return shares


# -- least squares -------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 1e6], ids=["near", "far from zero"])
def test_estimates_are_least_squares_of_each_configuration(shift):
    rng = np.random.default_rng(0)
    z, x = rng.integers(0, 3, 200), rng.normal(shift, 1.0, (200, 2))
    y = shift + np.array([1.0, -2.0, 0.5])[z] * (x[:, 0] - shift) + rng.normal(size=200)
    table = np.column_stack([z, x, y])
    weights = rng.gamma(1.0, size=200)
    own = line(table, (3,), (0,))
    shares = ones(table, (3,)) * weights[:, None]
    found = own.estimate(own.statistics({}, table, shares))
    for state in range(3):
        rows = z == state
        root = np.sqrt(weights[rows])
        design = np.column_stack([np.ones(rows.sum()), x[rows] - shift])
        best = np.linalg.lstsq(design * root[:, None], (y[rows] - shift) * root, rcond=None)
        residual = best[1][0] / weights[rows].sum()
        # Sums of squares are about the means, so that only the numbers' own digits are lost.
        lost = 1e-9 if shift else 1e-11
        np.testing.assert_allclose(found["coefficients"][state], best[0][1:], atol=lost)
        np.testing.assert_allclose(found["variance"][state], residual, rtol=lost)
        at_shift = found["intercept"][state] + found["coefficients"][state] @ [shift, shift] - shift
        assert at_shift == pytest.approx(best[0][0], abs=1e-9)


def test_collinear_regressors_share_what_they_explain():
    rng = np.random.default_rng(0)
    x = rng.normal(5.0, 2.0, 100_000)
    table = np.column_stack([x, 3.0 * x - 1.0, 2.0 * x + rng.normal(size=len(x))])
    own = line(table)
    found = own.estimate(own.statistics({}, table, np.ones(len(table))))
    # The fitted values are those of one of them, and no coefficient is far out.
    slope = found["coefficients"] @ [1.0, 3.0]
    expected = np.cov(x, table[:, 2])[0, 1] / x.var(ddof=1)
    assert slope == pytest.approx(expected, abs=1e-8)
    assert np.abs(found["coefficients"]).max() < 2.1
    residual = (table[:, 2] - np.polyval(np.polyfit(x, table[:, 2], 1), x)).var()
    assert found["variance"] == pytest.approx(residual, rel=1e-8)


def test_a_constant_number_and_one_that_is_explained_have_the_floor_of_variance():
    x = np.linspace(0.0, 1.0, 20)
    constant = np.column_stack([x, np.full(20, 3.0)])
    own = line(constant)
    found = own.estimate(own.statistics({}, constant, np.ones(20)))
    assert found["variance"] == pytest.approx(VARIANCE_FLOOR)
    explained = np.column_stack([x, 1e-3 * x])
    own = line(explained)
    found = own.estimate(own.statistics({}, explained, np.ones(20)))
    assert found["variance"] == pytest.approx(VARIANCE_FLOOR * explained[:, 1].var())
    assert found["coefficients"] == pytest.approx(1e-3)


@pytest.mark.parametrize("proper", [False, True])
def test_a_configuration_that_no_row_has_is_that_of_the_column(proper):
    x = np.column_stack([np.zeros(10), np.arange(10.0), np.arange(10.0) ** 2])
    own = line(x, (2,), (0,), proper=proper)
    found = own.estimate(own.statistics({}, x, ones(x, (2,))))
    assert found["intercept"][1] == pytest.approx(x[:, 2].mean())
    assert found["coefficients"][1] == pytest.approx(0.0)
    expected = x[:, 2].var() / (1.0 if not proper else PRIOR_DOF + 4.0)
    assert found["variance"][1] == pytest.approx(expected)
    table = Tabular(2, (0, 1), (2, 2, 3))
    counts = {"count": np.array([[[1.0, 3.0, 0.0]] * 2, [[0.0] * 3] * 2])}
    np.testing.assert_allclose(table.estimate(counts)["table"][1], 1.0 / 3.0)
    np.testing.assert_allclose(table.estimate(counts)["table"][0, 0], [0.25, 0.75, 0.0])


def test_fits_follow_the_units_of_the_columns():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3))
    scale, shift = np.array([1e-4, 1e5, 1e-3]), np.array([3.0, -1e4, 7.0])
    for proper in (False, True):
        one, other = line(x, proper=proper), line(x * scale + shift, proper=proper)
        a = one.estimate(one.statistics({}, x, np.ones(50)))
        b = other.estimate(other.statistics({}, x * scale + shift, np.ones(50)))
        ratio = scale[2] / scale[:2]
        np.testing.assert_allclose(b["coefficients"], a["coefficients"] * ratio, rtol=1e-7)
        np.testing.assert_allclose(b["variance"], a["variance"] * scale[2] ** 2, rtol=1e-7)


# -- posteriors ----------------------------------------------------------------------------------


def test_posterior_draws_of_a_line_are_normal_inverse_gamma():
    rng = np.random.default_rng(3)
    x = rng.normal(2.0, 1.5, (8, 2))
    table = np.column_stack([x, x @ [1.0, -0.5] + rng.normal(size=8)])
    own = line(table)
    statistics = own.statistics({}, table, np.ones(8))
    drawn = own.draw_posterior(statistics, 200_000, rng)
    # The closed form, about the origin (Gelman et al., Bayesian Data Analysis, section 14.8).
    design = np.column_stack([np.ones(8), x - own.origin[:2]])
    y = table[:, 2] - own.origin[2]
    precision = SHRINKAGE * np.diag([1.0, *own.scale[:2]]) + design.T @ design
    mean = np.linalg.solve(precision, design.T @ y)
    shape = 0.5 * (PRIOR_DOF + 8.0)
    rate = 0.5 * (own.scale[2] + y @ y - mean @ precision @ mean)
    ks = stats.kstest(drawn["variance"], stats.invgamma(shape, scale=rate).cdf)
    assert ks.pvalue > 1e-3
    spread = np.sqrt(rate / shape * np.diag(np.linalg.inv(precision)))
    for c in (0, 1):
        t = stats.t(2.0 * shape, mean[c + 1], spread[c + 1])
        assert stats.kstest(drawn["coefficients"][:, c], t.cdf).pvalue > 1e-3
    level = drawn["intercept"] + drawn["coefficients"] @ own.origin[:2] - own.origin[2]
    assert stats.kstest(level, stats.t(2.0 * shape, mean[0], spread[0]).cdf).pvalue > 1e-3
    covariance = rate / (shape - 1.0) * np.linalg.inv(precision)
    both = np.column_stack([level, drawn["coefficients"]])
    # Standard errors of covariances of heavy tails, with 200,000 draws.
    np.testing.assert_allclose(np.cov(both.T), covariance, atol=0.02 * covariance.max())


def test_posterior_draws_of_a_table_are_dirichlet_even_with_tiny_counts():
    rng = np.random.default_rng(4)
    own = Tabular(1, (0,), (2, 3), pseudocount=np.full((2, 3), 1e-4))
    counts = np.array([[5.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    table = own.draw_posterior({"count": counts}, 50_000, rng)["table"]
    np.testing.assert_allclose(table.sum(axis=-1), 1.0, atol=1e-12)
    first = stats.beta(5.0001, 2.0002)
    assert table[:, 0, 0].mean() == pytest.approx(first.mean(), abs=4.0 * first.std() / 50_000**0.5)
    # Almost all of the mass of a row without counts lies on one state, each alike.
    assert (table[:, 1].max(axis=1) > 1.0 - 1e-6).mean() > 0.99
    np.testing.assert_allclose(table[:, 1].mean(axis=0), 1.0 / 3.0, atol=4.0 / 50_000**0.5)


# -- softmax -------------------------------------------------------------------------------------


def logistic(seed=0, n=300, n_states=3, slope=1.0):
    """Rows of two regressors and a state, and the node bound to them."""
    rng = np.random.default_rng(seed)
    x = rng.normal([3.0, -1.0], [2.0, 0.5], (n, 2))
    logits = slope * (x - [3.0, -1.0]) @ rng.normal(size=(2, n_states))
    state = (logits + rng.gumbel(size=(n, n_states))).argmax(axis=1)
    table = np.column_stack([x, state])
    reach = np.abs(x - x.mean(axis=0)).max(axis=0)
    own = Softmax(2, (), (n_states,), (0, 1), x.mean(axis=0), x.var(axis=0), reach)
    return own, table, state


def climb(own, table, state, n_steps):
    """Take EM's steps on rows whose states are known; return parameters and objectives."""
    shares = np.eye(own.sizes[-1])[state]
    parameters = own.start(np.random.default_rng(0))
    objectives = []
    for _ in range(n_steps):
        log_table = own.log_table(parameters, table)
        objectives.append((shares * log_table).sum() - own.penalty(parameters))
        parameters = own.estimate(own.statistics(parameters, table, shares))
    return parameters, np.array(objectives)


@pytest.mark.parametrize("n_states", [2, 4])
def test_steps_climb_to_the_fit_of_scikit_learn(n_states):
    from sklearn.linear_model import LogisticRegression

    own, table, state = logistic(n_states=n_states)
    parameters, objectives = climb(own, table, state, 40)
    assert np.diff(objectives).min() > -1e-9
    # The intercept has a prior too: a column of ones, in the units of the whitened regressors.
    whitened = (table[:, :2] - own.origin) / np.sqrt(own.scale)
    design = np.column_stack([np.ones(len(table)), whitened])
    with warnings.catch_warnings():
        # The solver says when it is as close as rounding lets it.
        warnings.simplefilter("ignore")
        peer = LogisticRegression(
            C=1.0 / SOFTMAX_PRECISION, fit_intercept=False, tol=1e-10, max_iter=10_000
        ).fit(design, state)
    found = np.exp(own.log_table(parameters, table))
    if n_states > 2:
        np.testing.assert_allclose(found, peer.predict_proba(design), atol=1e-5)
    else:
        # scikit-learn has the odds of one state, here both share them: twice the precision.
        best = optimize.minimize(
            lambda b: (
                np.logaddexp(0.0, -(2.0 * state - 1.0) * (design @ b)).sum()
                + 0.25 * SOFTMAX_PRECISION * b @ b
            ),
            np.zeros(3),
            tol=1e-10,
        )
        np.testing.assert_allclose(found[:, 1], 1.0 / (1.0 + np.exp(-design @ best.x)), atol=1e-5)


def test_states_that_a_number_separates_have_finite_coefficients():
    x = np.linspace(-1.0, 1.0, 40)
    table = np.column_stack([x, np.zeros(40), x > 0.0])
    own = Softmax(2, (), (2,), (0,), np.zeros(1), np.array([x.var()]), np.ones(1))
    parameters, objectives = climb(own, table, (x > 0.0).astype(int), 300)
    assert np.diff(objectives).min() > -1e-9
    assert np.isfinite(parameters["coefficients"]).all()
    probability = np.exp(own.log_table(parameters, table))[:, 1]
    assert ((probability > 0.5) == (x > 0.0)).all()


def test_softmax_statistics_add_over_rows():
    own, table, state = logistic()
    shares = np.eye(3)[state] * np.random.default_rng(0).gamma(1.0, size=(len(state), 1))
    parameters = own.start(np.random.default_rng(1))
    whole = own.statistics(parameters, table, shares)
    one, other = (
        own.statistics(parameters, table[s], shares[s]) for s in (slice(90), slice(90, None))
    )
    for name, value in whole.items():
        np.testing.assert_allclose(one[name] + other[name], value, rtol=1e-10, atol=1e-10)
    assert own.estimate(whole)["coefficients"].shape == (2, 3)
