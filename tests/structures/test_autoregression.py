"""The autoregression's sums and densities against least squares and dense normals."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, multivariate_normal

from ppl_gen import EM, engines
from ppl_gen.algorithms.matrix_normal import MatrixNormal, draw
from ppl_gen.algorithms.trees import tree_map
from ppl_gen.sequences import Padded, Sequences
from ppl_gen.structures.autoregression import Autoregression

# A few dozen steps through one factorisation of well-conditioned matrices.
ROUNDING = {"rtol": 1e-9, "atol": 1e-9}


def problem(order=2, width=2, trend="c", lengths=(9, 6, 12), seed=0, holes=0.0):
    """A bound structure, stationary parameters, and sequences far from zero and from unit scale."""
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(size=(order, width, width))
    coefficients *= 0.8 / np.abs(np.linalg.eigvals(companion(coefficients))).max()
    root = rng.normal(size=(width, width))
    parameters = {
        "coefficients": coefficients,
        "intercept": rng.normal(size=width) + 5.0,
        "slope": 0.1 * rng.normal(size=width),
        "noise_covariance": 4.0 * (root @ root.T + 0.3 * np.eye(width)),
    }
    if trend != "ct":
        del parameters["slope"]
    if trend == "n":
        del parameters["intercept"]
    sequences = []
    for length in lengths:
        x = list(rng.normal(20.0, 3.0, size=(order, width)))
        for t in range(order, length):
            x.append(
                rng.multivariate_normal(step_mean(parameters, x, t), parameters["noise_covariance"])
            )
        x = np.array(x)
        late = x[order:]
        late[rng.random(late.shape) < holes] = np.nan
        if holes and length > order + 3:
            late[1] = late[-1] = np.nan  # whole steps, the last among them
        sequences.append(x)
    data = Sequences(np.concatenate(sequences), np.array(lengths))
    return Autoregression(order, width, trend, prior={}).bind(data), parameters, data


def companion(coefficients):
    order, width, _ = coefficients.shape
    return np.vstack([np.hstack(list(coefficients)), np.eye(order * width)[: (order - 1) * width]])


def step_mean(parameters, x, t):
    """Mean of step t given those before it, by the definition."""
    mean = parameters.get("intercept", 0.0) + t * parameters.get("slope", 0.0)
    return mean + sum(a @ x[t - 1 - k] for k, a in enumerate(parameters["coefficients"]))


def dense(parameters, x):
    """Mean and covariance of the steps after the first p, given these, as one normal."""
    order, width, _ = parameters["coefficients"].shape
    steps = len(x) - order
    # L x = c + e, where L has -A_k below its unit diagonal, and c what is known.
    lower, known = np.eye(steps * width), np.zeros((steps, width))
    for i in range(steps):
        known[i] = parameters.get("intercept", 0.0) + (order + i) * parameters.get("slope", 0.0)
        for k, a in enumerate(parameters["coefficients"]):
            j = i - 1 - k
            if j < 0:
                known[i] += a @ x[order + j]
            else:
                lower[i * width : (i + 1) * width, j * width : (j + 1) * width] = -a
    noise = np.kron(np.eye(steps), parameters["noise_covariance"])
    inverse = np.linalg.inv(lower)
    return inverse @ known.ravel(), inverse @ noise @ inverse.T


def completed(parameters, x):
    """Conditional mean and covariance of all steps after the first p, given what is observed."""
    order = len(parameters["coefficients"])
    mean, covariance = dense(parameters, x)
    flat = x[order:].ravel()
    seen = np.flatnonzero(~np.isnan(flat))
    gain = covariance[:, seen] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    return mean + gain @ (flat[seen] - mean[seen]), covariance - gain @ covariance[seen]


@pytest.mark.parametrize("holes", [0.0, 0.3], ids=["complete", "holes"])
@pytest.mark.parametrize("trend", ["n", "c", "ct"])
@pytest.mark.parametrize(("order", "width"), [(1, 1), (3, 1), (2, 2)])
def test_log_evidence_is_the_dense_normals(order, width, trend, holes):
    structure, parameters, data = problem(order, width, trend, holes=holes)
    found = structure.log_evidence(parameters, data)
    for i in range(len(data)):
        x = data[[i]].values
        mean, covariance = dense(parameters, x)
        flat = x[order:].ravel()
        seen = np.flatnonzero(~np.isnan(flat))
        expected = multivariate_normal.logpdf(
            flat[seen], mean[seen], covariance[np.ix_(seen, seen)]
        )
        assert found[i] == pytest.approx(expected, rel=1e-9)
    if holes:
        assert structure.e_step(parameters, data)[1] == pytest.approx(found.sum(), rel=1e-10)


@pytest.mark.parametrize("trend", ["n", "c", "ct"])
@pytest.mark.parametrize("order", [1, 2])
def test_expected_statistics_are_the_dense_conditionals(order, trend):
    structure, parameters, data = problem(order, 2, trend, holes=0.3)
    found, _ = structure.e_step(parameters, data)
    width, size = 2, structure.n_regressors
    scaled = np.tile(structure.spread, order + 1)
    total = {"count": 0.0, "gram": 0.0, "cross": 0.0, "square": 0.0}
    for i in range(len(data)):
        x = data[[i]].values
        mean, covariance = completed(parameters, x)
        whole = np.concatenate([x[:order].ravel(), mean])
        spread = np.zeros((len(whole),) * 2)
        spread[order * width :, order * width :] = covariance
        last = np.flatnonzero(~np.isnan(x).all(axis=1))[-1]
        for t in range(order, last + 1):
            places = [(t - k) * width + j for k in range(order + 1) for j in range(width)]
            at = (whole[places] - np.tile(structure.centre, order + 1)) / scaled
            moment = spread[np.ix_(places, places)] / np.outer(scaled, scaled)
            row = [at[width:], [1.0], [t / structure.span]]
            u = np.concatenate(row[: 1 + ["n", "c", "ct"].index(trend)])
            of_u = np.zeros((size, size))
            of_u[: order * width, : order * width] = moment[width:, width:]
            across = np.zeros((size, width))
            across[: order * width] = moment[width:, :width]
            total["count"] += 1.0
            total["gram"] = total["gram"] + np.outer(u, u) + of_u
            total["cross"] = total["cross"] + np.outer(u, at[:width]) + across
            total["square"] = (
                total["square"] + np.outer(at[:width], at[:width]) + moment[:width, :width]
            )
    tree_map(lambda a, b: np.testing.assert_allclose(a, b, **ROUNDING), found, total)


@pytest.mark.parametrize("trend", ["n", "c", "ct"])
def test_one_m_step_is_least_squares(trend):
    structure, parameters, data = problem(2, 2, trend)
    found = structure.m_step(structure.e_step(parameters, data)[0])
    rows, targets = [], []
    for i in range(len(data)):
        x = data[[i]].values
        for t in range(2, len(x)):
            extra = [1.0, float(t)][: ["n", "c", "ct"].index(trend)]
            rows.append(np.concatenate([x[t - 1], x[t - 2], extra]))
            targets.append(x[t])
    rows, targets = np.array(rows), np.array(targets)
    expected, _, _, _ = np.linalg.lstsq(rows, targets)
    for k in range(2):
        np.testing.assert_allclose(
            found["coefficients"][k], expected[2 * k : 2 * k + 2].T, **ROUNDING
        )
    if trend != "n":
        np.testing.assert_allclose(found["intercept"], expected[4], **ROUNDING)
    if trend == "ct":
        np.testing.assert_allclose(found["slope"], expected[5], **ROUNDING)
    residual = targets - rows @ expected
    np.testing.assert_allclose(
        found["noise_covariance"], residual.T @ residual / len(rows), rtol=1e-8
    )


@pytest.mark.parametrize("holes", [0.0, 0.3], ids=["complete", "holes"])
def test_statistics_add_and_weights_are_repetitions(holes):
    structure, parameters, data = problem(holes=holes)
    whole = structure.e_step(parameters, data)
    parts = [structure.e_step(parameters, data[[i]]) for i in range(3)]
    added = tree_map(lambda a, b, c: a + b + c, *(part[0] for part in parts))
    tree_map(lambda a, b: np.testing.assert_allclose(a, b, **ROUNDING), added, whole[0])
    weighed = structure.e_step(
        parameters, dataclasses.replace(data, weights=np.array([2.0, 1.0, 3.0]))
    )
    repeated = structure.e_step(parameters, data[np.array([0, 0, 1, 2, 2, 2])])
    tree_map(lambda a, b: np.testing.assert_allclose(a, b, **ROUNDING), weighed[0], repeated[0])
    assert weighed[1] == pytest.approx(repeated[1], rel=1e-11)


@pytest.mark.parametrize("trend", ["c", "ct"])
def test_jax_finds_the_same_statistics(trend):
    structure, parameters, data = problem(trend=trend, holes=0.2)
    expected = structure.e_step(parameters, data)
    engine = engines.get("numpyro")
    with engine.precision(device="cpu"):
        import jax

        arrays = tuple(None if a is None else engine.asarray(a) for a in Padded.of(data).arrays)
        step = jax.jit(lambda p, a: structure.e_step(p, Padded(*a)))
        found = step(tree_map(engine.asarray, parameters), arrays)
        moved = tree_map(engine.to_numpy, found[0])
        tree_map(lambda a, b: np.testing.assert_allclose(a, b, **ROUNDING), moved, expected[0])
        assert float(found[1]) == pytest.approx(float(expected[1]), rel=1e-10)


@settings(max_examples=15)
@given(
    st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 2), st.sampled_from(["n", "c", "ct"])
)
def test_em_never_lowers_the_objective(seed, order, width, trend):
    """EM warns of a fall, and warnings are errors here."""
    structure, _, data = problem(order, width, trend, lengths=(30, 25), seed=seed, holes=0.2)
    result = EM(max_iter=15, tol=0.0).fit(structure, data, np.random.default_rng(0))
    assert np.diff(result.history).min() > -1e-9


def test_em_with_holes_ends_where_the_likelihood_is_flat():
    structure, _, data = problem(2, 1, lengths=(60,), holes=0.3)
    result = EM(max_iter=3000, tol=1e-14).fit(structure, data, np.random.default_rng(0))
    best = result.parameters
    for name, value in best.items():
        for place in np.ndindex(value.shape):
            ends = []
            size = 1e-4 * max(1.0, abs(float(value[place])))
            for sign in (1.0, -1.0):
                moved = np.array(value)
                moved[place] += sign * size
                ends.append(structure.log_evidence({**best, name: moved}, data)[0])
            # A slope of less than a thousandth of a nat a unit, on a scale of tens.
            assert abs(ends[0] - ends[1]) / (2.0 * size) < 1e-3


def test_units_go_and_come_back():
    for trend in ("n", "c", "ct"):
        structure, parameters, _ = problem(trend=trend)
        back = structure.from_units(*structure.to_units(parameters))
        tree_map(lambda a, b: np.testing.assert_allclose(a, b, **ROUNDING), back, parameters)
        sites = structure.sites(parameters)
        again = structure.parameters(sites)
        tree_map(lambda a, b: np.testing.assert_allclose(a, b, **ROUNDING), again, parameters)


def test_the_radius_is_the_companions():
    structure, parameters, _ = problem(3, 2, "ct")
    expected = np.abs(np.linalg.eigvals(companion(parameters["coefficients"]))).max()
    assert structure.spectral_radius(parameters) == pytest.approx(expected, rel=1e-12)


def test_trees_bring_the_structure_back():
    structure, _, _ = problem()
    again = Autoregression.from_tree(structure.to_tree())
    assert (again.order, again.trend) == (2, "c")
    np.testing.assert_array_equal(again.prior["scale"], structure.prior["scale"])
    np.testing.assert_array_equal(again.starts, structure.starts)
    assert structure.starts.shape == (3, 2, 2)


def test_posterior_draws_are_calibrated():
    """Parameters from the prior, series from them: ranks among posterior draws are uniform."""
    structure, _, data = problem(1, 1, lengths=(15,))
    structure = dataclasses.replace(structure, prior={**structure.prior, "shrinkage": 1.0})
    rng = np.random.default_rng(0)
    size, n_draws = 600, 19
    nothing = MatrixNormal(
        np.zeros((2, 1)),
        np.sqrt(structure.prior["shrinkage"]) * np.eye(2),
        structure.prior["scale"],
        structure.prior["dof"],
    )
    ranks = {"coefficients": [], "intercept": [], "noise_covariance": []}
    for weights, noise in zip(*draw(nothing, size, rng), strict=True):
        x = np.empty((15, 1))
        truth = structure.from_units(weights, noise)
        x[:1] = structure.starts[0]
        for t in range(1, 15):
            x[t] = rng.normal(step_mean(truth, x, t), np.sqrt(truth["noise_covariance"][0]))
        if not np.abs(x).max() < 1e6:
            continue  # explosive; ranks stay uniform whatever data are left out
        found = structure.draw_posterior(Sequences(x, data.lengths), n_draws, rng)
        for name, places in ranks.items():
            places.append((found[name].ravel() < truth[name].ravel()).sum())
    for name, places in ranks.items():
        counts = np.bincount(np.array(places) // 4, minlength=5)
        assert len(places) > 500, name
        # Five bins of twenty ranks: by chance one run in ten thousand has less.
        assert chisquare(counts).pvalue > 1e-4, (name, counts)
