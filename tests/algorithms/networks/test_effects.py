"""Effects from rows: exact on whole populations, with errors as large as those of simulation."""

import numpy as np
import pytest
from network_problems import brute_force_joint

from ppl_gen.algorithms.networks.effects import (
    formula_contrast,
    regression_contrast,
    standardised_contrast,
)
from ppl_gen.algorithms.networks.identification import (
    adjustment_formula,
    front_door_formula,
    identify_effect,
    latent_projection,
)

AXES = {0: 0, 1: 1, 2: 2}


def counts_of_rows(rng, n, p):
    """Counts of n rows of a joint distribution."""
    return rng.multinomial(n, p.ravel()).reshape(p.shape).astype(float)


def rows_of(counts):
    cells = np.repeat(np.arange(counts.size), counts.ravel().astype(int))
    return np.unravel_index(cells, counts.shape)


def test_standardisation_is_the_formula_of_adjustment():
    rng = np.random.default_rng(0)
    counts = counts_of_rows(rng, 400, rng.dirichlet(np.full(18, 3.0)).reshape(3, 3, 2))
    x, y, z = rows_of(counts)
    worth = np.array([0.0, 1.0, 5.0])
    treated = np.where(x == 2, 1, np.where(x == 0, 0, -1))
    one = standardised_contrast(worth[y], treated, z, 2)
    levels = [np.eye(3)[0], np.eye(3)[2]]
    formula = adjustment_formula([0], [1], [2])
    two = formula_contrast(formula, counts, AXES, {0: levels, 1: [worth, worth]})
    # The influence function in closed form, and by a complex step.
    np.testing.assert_allclose(one.effect, two.effect, rtol=1e-12)
    np.testing.assert_allclose(one.means, two.means, rtol=1e-12)
    np.testing.assert_allclose(one.standard_error, two.standard_error, rtol=1e-12)
    # By hand.
    share = counts.sum(axis=(0, 1)) / counts.sum()
    means = (counts * worth[:, None]).sum(axis=1) / counts.sum(axis=1)
    np.testing.assert_allclose(one.effect, share @ (means[2] - means[0]), rtol=1e-12)


@pytest.mark.parametrize("which", ["adjustment", "front-door"])
def test_errors_are_those_of_simulation(which):
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.full(8, 4.0)).reshape(2, 2, 2)
    term = (adjustment_formula if which == "adjustment" else front_door_formula)([0], [1], [2])
    scores = {0: list(np.eye(2)), 1: [np.array([0.0, 1.0])] * 2}
    found = [formula_contrast(term, counts_of_rows(rng, 2000, p), AXES, scores) for _ in range(400)]
    effects, errors = np.array([(f.effect, f.standard_error) for f in found]).T
    truth = formula_contrast(term, p, AXES, scores).effect
    deviation = effects.std(ddof=1)
    assert abs(effects.mean() - truth) < 4 * deviation / 20
    # The deviation of 400 numbers is known to 1/sqrt(800), 3.5%: four of these.
    assert abs(errors.mean() / deviation - 1) < 0.15


def test_a_formula_that_asks_for_what_is_not_there_is_nan():
    counts = np.ones((2, 2, 2))
    counts[1, :, 0] = 0.0
    scores = {0: list(np.eye(2)), 1: [np.array([0.0, 1.0])] * 2}
    assert np.isnan(
        formula_contrast(adjustment_formula([0], [1], [2]), counts, AXES, scores).effect
    )
    # Of a state that is not compared it does no harm.
    wide = np.ones((3, 2, 2))
    wide[2, :, 0] = 0.0
    scores[0] = list(np.eye(3)[:2])
    assert formula_contrast(adjustment_formula([0], [1], [2]), wide, AXES, scores).effect == 0.0


def test_what_a_formula_leaves_open_is_averaged_over():
    # w -> z -> x -> y with hidden causes of w and x, and of w and y: a formula that mentions z,
    # on which it does not depend in any population of that graph.
    parents = [(4, 5), (0,), (1, 4), (2, 5), (), ()]
    term = identify_effect(latent_projection(parents, range(4)), [2], [3])
    rng = np.random.default_rng(3)
    tables = [rng.dirichlet(np.ones(2), size=(2,) * len(above)) for above in parents]
    p = brute_force_joint(parents, [2] * 6, tables).sum(axis=(4, 5))
    scores = {2: list(np.eye(2)), 3: [np.array([0.0, 1.0])] * 2}
    axes = {v: v for v in range(4)}
    truth = formula_contrast(term, p, axes, scores)
    free = [t if v != 2 else np.ones_like(t) for v, t in enumerate(tables)]
    set_x = brute_force_joint(parents, [2] * 6, free).sum(axis=(0, 1, 4, 5))
    np.testing.assert_allclose(truth.means, set_x[:, 1] / set_x.sum(axis=1), rtol=1e-12)
    found = [formula_contrast(term, counts_of_rows(rng, 4000, p), axes, scores) for _ in range(200)]
    effects, errors = np.array([(f.effect, f.standard_error) for f in found]).T
    deviation = effects.std(ddof=1)
    assert abs(effects.mean() - truth.effect) < 4 * deviation / np.sqrt(200)
    assert abs(errors.mean() / deviation - 1) < 0.2  # four times 1/sqrt(400)


def test_regression_is_least_squares_with_robust_errors():
    statsmodels = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(2)
    z = rng.normal(size=(300, 2)) + 5.0
    x = z @ [1.0, -0.5] + rng.normal(size=300)
    y = 3.0 * x + z @ [2.0, 1.0] + rng.normal(size=300) * (1 + np.abs(x))
    contrast = regression_contrast(y, x, z, (1.0, 3.0))
    design = statsmodels.add_constant(np.column_stack([x, z]))
    fit = statsmodels.OLS(y, design).fit(cov_type="HC0")
    np.testing.assert_allclose(contrast.effect, 2 * fit.params[1], rtol=1e-9)
    np.testing.assert_allclose(contrast.standard_error, 2 * fit.bse[1], rtol=1e-9)
    np.testing.assert_allclose(
        contrast.means[1], fit.predict([1.0, 3.0, *z.mean(axis=0)])[0], rtol=1e-9
    )


def test_a_treatment_that_the_others_determine_is_refused():
    z = np.arange(10.0)
    with pytest.raises(ValueError, match="linear function of what is adjusted for"):
        regression_contrast(z**2, 2 * z + 1, z[:, None], (0.0, 1.0))
