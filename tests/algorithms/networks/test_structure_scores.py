"""Local scores against their definitions, pgmpy, and what equivalent graphs must share."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln
from scipy.stats import multivariate_normal, norm
from structure_cases import is_acyclic, mixed_rows, random_codes, random_parents

from ppl_gen.algorithms.networks.structure_scores import AIC, BIC, K2, BDeu, Likelihood, LocalScores

# Sums of thousands of terms in float64, in another order than the oracle's.
CLOSE = dict(rtol=1e-11, atol=1e-8)
SIZES = [2, 3, 4, 2, 3]


def by_definition(score, values, sizes, v, parents):
    """Write out the sums over every configuration, seen or not."""
    size, q = sizes[v], math.prod(sizes[u] for u in parents)
    n = np.zeros((q, size))
    for row in values.astype(int):
        j = np.ravel_multi_index([row[u] for u in parents], [sizes[u] for u in parents] or ())
        n[int(j), row[v]] += 1.0
    above = n.sum(axis=1)
    if isinstance(score, BDeu | K2):
        a = score.equivalent_sample_size / (q * size) if isinstance(score, BDeu) else 1.0
        totals = gammaln(a * size) - gammaln(above + a * size)
        return totals.sum() + (gammaln(n + a) - gammaln(a)).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        fit = np.where(n > 0.0, n * np.log(n / above[:, None]), 0.0).sum()
    price = {BIC: math.log(len(values)) / 2.0, AIC: 1.0, Likelihood: 0.0}[type(score)]
    return fit - price * q * (size - 1)


@pytest.mark.parametrize("score", [BIC(), AIC(), BDeu(1.0), BDeu(10.0), K2(), Likelihood()])
@pytest.mark.parametrize("n_rows", [7, 60, 900])
def test_scores_are_their_definitions(score, n_rows):
    values = random_codes(np.random.default_rng(n_rows), n_rows, SIZES)
    scores = LocalScores(values, SIZES, score)
    for v in range(5):
        others = [u for u in range(5) if u != v]
        for k in range(5):
            for parents in itertools.combinations(others, k):
                expected = by_definition(score, values, SIZES, v, parents)
                np.testing.assert_allclose(scores.local(v, parents), expected, **CLOSE)


@pytest.mark.parametrize("score", [BIC(), BDeu(3.0), K2()])
def test_additions_are_the_local_scores(score):
    values = random_codes(np.random.default_rng(1), 500, SIZES)
    together, apart = LocalScores(values, SIZES, score), LocalScores(values, SIZES, score)
    for parents in [], [4], [3, 1], [1, 3, 4]:
        added = together.additions(0, parents)
        for u in range(5):
            if u == 0 or u in parents:
                assert added[u] == -np.inf
            else:
                np.testing.assert_allclose(added[u], apart.local(0, [*parents, u]), **CLOSE)
                assert together.local(0, [*parents, u]) == added[u]  # remembered


@pytest.mark.parametrize("name", ["bic", "aic", "bdeu", "k2"])
def test_scores_equal_pgmpy(name):
    pytest.importorskip("pgmpy", reason="pgmpy is in the group bench")
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pgmpy import structure_score as peer
    values = random_codes(np.random.default_rng(2), 2_000, SIZES)
    frame = pd.DataFrame(values.astype(int), columns=list("abcde")).astype("category")
    ours, theirs = {
        "bic": (BIC(), peer.BIC(frame)),
        "aic": (AIC(), peer.AIC(frame)),
        "bdeu": (BDeu(5.0), peer.BDeu(frame, equivalent_sample_size=5)),
        "k2": (K2(), peer.K2(frame)),
    }[name]
    scores = LocalScores(values, SIZES, ours)
    for v, parents in [(0, ()), (1, (0,)), (2, (1, 3)), (4, (0, 1, 2, 3))]:
        expected = theirs.local_score("abcde"[v], tuple("abcde"[u] for u in parents))
        np.testing.assert_allclose(scores.local(v, parents), expected, rtol=0.0, atol=1e-8)


def test_gaussian_bic_equals_pgmpy():
    pytest.importorskip("pgmpy", reason="pgmpy is in the group bench")
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pgmpy.structure_score import BICGauss
    rng = np.random.default_rng(3)
    values = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 3)) + [0.0, 50.0, -3.0]
    frame = pd.DataFrame(values, columns=list("abc"))
    scores, peer = LocalScores(values, [0, 0, 0], BIC()), BICGauss(frame)
    for v, parents in [(0, ()), (1, (0,)), (2, (0, 1))]:
        expected = peer.local_score("abc"[v], tuple("abc"[u] for u in parents))
        # The ridge of 1e-10 moves a score by some 1e-8 of its size.
        np.testing.assert_allclose(scores.local(v, parents), expected, rtol=1e-7)


def test_sparse_families_need_no_table():
    """Nine parents of nine states: 3.9e8 configurations, a few hundred of them seen."""
    rng = np.random.default_rng(4)
    values = rng.integers(0, 9, (300, 10)).astype(float)
    values[150:] = values[:150]
    scores = LocalScores(values, [9] * 10, BDeu(10.0))
    keys, counts = np.unique(values[:, 1:], axis=0, return_counts=True)
    a = 10.0 / 9.0**9
    expected = (gammaln(a) - gammaln(counts + a)).sum()
    _, counts = np.unique(values, axis=0, return_counts=True)
    expected += (gammaln(counts + a / 9.0) - gammaln(a / 9.0)).sum()
    np.testing.assert_allclose(scores.local(0, range(1, 10)), expected, **CLOSE)
    assert len(keys) == 150


@pytest.mark.parametrize("score", [BIC(), BDeu(10.0), K2()])
def test_a_weight_is_a_row_so_many_times(score):
    rng = np.random.default_rng(5)
    values, weights = random_codes(rng, 200, SIZES), rng.integers(0, 4, 200).astype(float)
    weighted = LocalScores(values, SIZES, score, weights)
    repeated = LocalScores(np.repeat(values, weights.astype(int), axis=0), SIZES, score)
    assert weighted.total == repeated.total
    for v, parents in [(0, ()), (1, (0, 2)), (3, (0, 1, 2, 4))]:
        np.testing.assert_allclose(weighted.local(v, parents), repeated.local(v, parents), **CLOSE)


def test_equal_rows_are_counted_once():
    values = random_codes(np.random.default_rng(6), 5_000, [2, 2, 2])
    assert LocalScores(values, [2, 2, 2], BIC()).columns.shape == (3, 8)


@given(st.integers(0, 10_000))
@pytest.mark.parametrize("kind", ["bic", "bdeu", "gaussian"])
def test_equivalent_graphs_have_equal_scores(kind, seed):
    """Turning a covered edge, whose ends have the same other parents, changes no likelihood.

    Chickering (1995): equivalent graphs are those that such turns lead to.
    """
    rng = np.random.default_rng(seed)
    if kind == "gaussian":
        values, sizes, score = rng.normal(size=(50, 5)) @ rng.normal(size=(5, 5)), [0] * 5, BIC()
    else:
        sizes = [int(size) for size in rng.integers(2, 5, 5)]
        values = random_codes(rng, 50, sizes)
        score = BIC() if kind == "bic" else BDeu(float(rng.uniform(0.5, 20.0)))
    scores = LocalScores(values, sizes, score)
    parents = random_parents(rng, 5)
    before = scores.sum(parents)
    for _ in range(4):
        covered = [
            (u, v) for v in range(5) for u in parents[v] if {*parents[u], u} == {*parents[v]}
        ]
        if not covered:
            return
        u, v = covered[int(rng.integers(len(covered)))]
        parents[v].remove(u)
        parents[u].append(v)
        assert is_acyclic(parents)
        np.testing.assert_allclose(scores.sum(parents), before, rtol=1e-9)


def test_k2_tells_equivalent_graphs_apart():
    values = random_codes(np.random.default_rng(7), 80, [2, 4])
    scores = LocalScores(values, [2, 4], K2())
    assert abs(scores.sum([[], [0]]) - scores.sum([[1], []])) > 1e-3


def test_gaussian_scores_are_those_of_the_joint_normal():
    rng = np.random.default_rng(8)
    values = rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4)) * 100.0 + 1e4
    scores = LocalScores(values, [0] * 4, Likelihood())
    normal = multivariate_normal(values.mean(axis=0), np.cov(values.T, ddof=0))
    found = scores.sum([[], [0], [0, 1], [0, 1, 2]])
    np.testing.assert_allclose(found, normal.logpdf(values).sum(), rtol=1e-7)


def test_conditional_gaussian_scores_are_regressions_by_configuration():
    values, sizes = mixed_rows(np.random.default_rng(9), 600)
    scores = LocalScores(values, sizes, BIC())
    expected = -0.5 * math.log(600) * 6 * 3
    for a, b in itertools.product(range(2), range(3)):
        rows = values[(values[:, 0] == a) & (values[:, 1] == b)]
        design = np.column_stack([np.ones(len(rows)), rows[:, 2]])
        residual = rows[:, 3] - design @ np.linalg.lstsq(design, rows[:, 3])[0]
        expected += norm.logpdf(residual, 0.0, residual.std()).sum()
    np.testing.assert_allclose(scores.local(3, [0, 1, 2]), expected, rtol=1e-7)


def test_a_configuration_with_too_few_rows_borrows_the_regression_of_all():
    rng = np.random.default_rng(10)
    values = np.column_stack([np.r_[0.0, 0.0, np.ones(98)], rng.normal(size=(100, 2))])
    scores = LocalScores(values, [2, 0, 0], Likelihood())
    design = np.column_stack([np.ones(100), values[:, 1]])
    residual = values[:, 2] - design @ np.linalg.lstsq(design, values[:, 2])[0]
    expected = norm.logpdf(residual[:2], 0.0, residual.std()).sum()
    design, y = design[2:], values[2:, 2]
    own = y - design @ np.linalg.lstsq(design, y)[0]
    expected += norm.logpdf(own, 0.0, own.std()).sum()
    np.testing.assert_allclose(scores.local(2, [0, 1]), expected, rtol=1e-7)


def test_scores_far_from_zero_and_with_outliers():
    """The same up to the units, which only shift a log density."""
    rng = np.random.default_rng(14)
    values, sizes = mixed_rows(rng, 300)
    values[0, 2:] *= 1e3
    moved = values * [1.0, 1.0, 1e6, 1e-6] + [0.0, 0.0, 1e10, 1e-2]
    here, there = LocalScores(values, sizes, BIC()), LocalScores(moved, sizes, BIC())
    for parents in [], [2], [0, 1], [0, 1, 2]:
        expected = here.local(3, parents) - 300 * math.log(1e-6)
        # Ten of sixteen digits are lost in the columns themselves.
        np.testing.assert_allclose(there.local(3, parents), expected, rtol=1e-5)


def test_weights_of_continuous_rows():
    rng = np.random.default_rng(11)
    values, sizes = mixed_rows(rng, 200)
    weights = rng.integers(0, 3, 200).astype(float)
    weighted = LocalScores(values, sizes, BIC(), weights)
    repeated = LocalScores(np.repeat(values, weights.astype(int), axis=0), sizes, BIC())
    for v, parents in [(2, ()), (3, (2,)), (3, (0, 2)), (0, (1,))]:
        np.testing.assert_allclose(
            weighted.local(v, parents), repeated.local(v, parents), rtol=1e-9
        )


def test_collinear_and_constant_columns_have_finite_scores():
    rng = np.random.default_rng(12)
    x = rng.normal(size=100)
    values = np.column_stack([x, 2.0 * x + 1.0, np.full(100, 7.0), rng.normal(size=100)])
    scores = LocalScores(values, [0] * 4, BIC())
    assert np.isfinite([scores.local(v, [u for u in range(4) if u != v]) for v in range(4)]).all()
    # A second copy of a parent, or a constant, only costs.
    assert scores.local(3, [0, 1]) < scores.local(3, [0]) < scores.local(3, [])
    assert scores.local(3, [2]) < scores.local(3, [])


def test_constant_columns_tell_nothing_of_each_other():
    # Means of these are rounded: what is left of the columns would be perfectly correlated.
    values = np.tile([0.1, 0.3, 1e8 + 0.7], (200, 1))
    scores = LocalScores(values, [0, 0, 0], BIC())
    for v, u in itertools.permutations(range(3), 2):
        assert scores.local(v, [u]) < scores.local(v, [])


def test_a_single_row_is_scored():
    scores = LocalScores(np.array([[0.0, 1.0]]), [2, 3], BIC())
    assert scores.local(1, [0]) == 0.0


@pytest.mark.parametrize(
    ("values", "sizes", "score", "message"),
    [
        ([[0.0, np.nan], [1.0, 0.0]], [2, 2], BIC(), "missing values in 'b'; .* impute them"),
        ([[0.0, 2.0]], [2, 2], BIC(), "'b' has values that are not codes 0 to 1"),
        ([[0.5, 1.0]], [2, 2], BIC(), "'a' has values that are not codes"),
        ([[0.0, 1.5]], [2, 0], BDeu(), "BDeu is a score for counts, and 'b' is continuous"),
        ([[0.0, 1.5]], [2, 0], K2(), "use 'bic'"),
        (np.empty((0, 2)), [2, 2], BIC(), "no row to score"),
    ],
)
def test_bad_tables_are_refused(values, sizes, score, message):
    with pytest.raises(ValueError, match=message):
        LocalScores(np.array(values), sizes, score, names=["a", "b"])


def test_a_continuous_parent_of_a_discrete_node_is_refused():
    values, sizes = mixed_rows(np.random.default_rng(13), 50)
    scores = LocalScores(values, sizes, BIC(), names=list("abxy"))
    with pytest.raises(ValueError, match="'a' is discrete and has a continuous parent"):
        scores.local(0, [2])
    assert (scores.additions(0, [])[2:] == -np.inf).all()
