"""The units of the data do not matter: floors of variances are shares of them."""

import numpy as np
import pandas as pd
import pytest

import ppl_gen
from ppl_gen import EM, HiddenMarkovModel
from ppl_gen.families import Normal

RNG = np.random.default_rng(0)
STATES = np.repeat(np.arange(12) % 2, 25)
#: One state ten times as wide as the other, as returns of calm and of wild days.
ROWS = RNG.normal(size=(300, 2)) * np.array([1.0, 10.0])[STATES, None] + STATES[:, None]


def fitted(rows, **settings):
    method = EM(max_iter=30, tol=0.0)
    return HiddenMarkovModel(2, inference=method, random_state=0, **settings).fit(rows)


@pytest.mark.parametrize("kind", ["diag", "full", "tied", "spherical"])
def test_states_are_the_same_in_any_units(kind):
    model = fitted(ROWS, covariance_type=kind)
    small = fitted(ROWS * 1e-4, covariance_type=kind)
    np.testing.assert_array_equal(small.predict(ROWS * 1e-4), model.predict(ROWS))
    # Thirty steps grow the rounding of the units, no more.
    np.testing.assert_allclose(small.covars_ * 1e8, model.covars_, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_columns_have_units_of_their_own(kind):
    units = np.array([1e-5, 1e6])
    model = fitted(ROWS, covariance_type=kind)
    mixed = fitted(ROWS * units, covariance_type=kind)
    np.testing.assert_allclose(mixed.means_ / units, model.means_, rtol=1e-6, atol=1e-6)
    covars = mixed.covars_ / units[:, None] / units
    np.testing.assert_allclose(covars, model.covars_, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("emission", ["auto", "normal", {"a": "normal", "b": "normal"}])
def test_normals_that_are_chosen_have_the_same_floor(emission):
    table = pd.DataFrame(ROWS * 1e-4, columns=["a", "b"])
    model = fitted(table, emission=emission)
    plain = fitted(ROWS, covariance_type="full")
    np.testing.assert_array_equal(model.predict(table), plain.predict(ROWS))


def test_a_number_is_absolute_and_zero_is_maximum_likelihood():
    exact = fitted(ROWS, min_covar=0.0)
    shares = exact.predict_proba(ROWS)
    away = (ROWS[:, None] - exact.means_) ** 2
    expected = np.einsum("nk,nkd->kd", shares, away) / shares.sum(axis=0)[:, None]
    # The parameters are of the step before; thirty steps have nearly settled.
    variances = np.diagonal(exact.covars_, axis1=1, axis2=2)
    np.testing.assert_allclose(variances, expected, rtol=1e-3)
    floored = fitted(ROWS, min_covar=1000.0)
    assert (np.diagonal(floored.covars_, axis1=1, axis2=2) > 1000.0).all()


@pytest.mark.parametrize("kind", ["diag", "full", "tied", "spherical"])
def test_the_objective_of_em_rises_with_floors_of_columns(kind):
    """The M-step maximises the sums less the penalty: no parameters nearby do better."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 2)) * np.array([1.0, 1e3])
    x[::7, 0] = np.nan if kind in ("diag", "spherical") else 0.0
    family = Normal(kind, None).replace(var_smoothing=0.0).bind(x, 2)
    family = family.replace(floor=family.floor * 1e5)  # large enough to be seen
    shares = rng.dirichlet(np.ones(2), size=50)
    statistics = family.initial_statistics(x, shares)
    best = family.estimate(statistics)

    def objective(factor):
        parameters = {**best, "precision_cholesky": factor}
        log_prob = family.log_prob(parameters, x)
        return (shares * log_prob).sum() - family.penalty(parameters, statistics)

    factor = best["precision_cholesky"]
    for scale in (0.98, 1.02):
        assert objective(factor * scale) < objective(factor)
        if kind != "spherical":
            assert objective(factor * np.array([1.0, scale])) < objective(factor)


def test_constant_columns_and_copies_on_disk(tmp_path):
    rows = np.column_stack([ROWS[:, 0] * 1e-4, np.ones(300)])
    with pytest.warns(RuntimeWarning, match="constant"):
        model = fitted(rows)
    assert np.isfinite(model.log_prob(rows)).all()
    model.save(tmp_path / "model")
    again = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(again.structure_.family.floor, model.structure_.family.floor)
    assert again.min_covar is None


def test_what_does_not_vary_names_the_setting_of_the_model():
    rows = np.repeat([[0.0, 1.0], [5.0, 2.0]], 10, axis=0)
    for kind in ("diag", "full"):
        with pytest.raises(ValueError, match="min_covar, as the model"):
            fitted(rows, min_covar=0.0, covariance_type=kind)
