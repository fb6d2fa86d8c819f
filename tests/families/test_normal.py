"""What is particular to normals: the prior's terms, the floor, and what cannot be estimated."""

import numpy as np
import pytest
from scipy.stats import invwishart, multivariate_normal

from ppl_gen.algorithms.normal import precision_factor
from ppl_gen.families import Normal
from ppl_gen.families.normal import COVARIANCE_TYPES

X = np.random.default_rng(0).normal(size=(50, 3)) @ np.array([[2, 0.5, 0], [0, 1, 0.3], [0, 0, 3]])


def estimated(family, x=X, n_classes=1):
    bound = family.bind(x, n_classes)
    r = np.full((len(x), n_classes), 1.0 / n_classes)
    return bound, bound.estimate(bound.initial_statistics(x, r))


def test_the_estimate_is_the_sample_covariance():
    bound, parameters = estimated(Normal("full", reg_covar=0.0))
    # Two roundings: of the sums, and of the factorisation.
    np.testing.assert_allclose(parameters["mean"][0], X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        bound.covariances(parameters)[0], np.cov(X.T, bias=True), rtol=1e-11, atol=1e-12
    )


def test_covariance_types_are_means_of_the_full_one():
    full = np.cov(X.T, bias=True)
    expected = {
        "tied": full,
        "diag": np.diag(full)[None],
        "spherical": np.array([np.diag(full).mean()]),
    }
    for covariance_type, value in expected.items():
        bound, parameters = estimated(Normal(covariance_type, reg_covar=0.0))
        np.testing.assert_allclose(bound.covariances(parameters), value, rtol=1e-11, atol=1e-12)
        # The factor of a covariance, and back.
        again = bound.factor(bound.covariances(parameters))
        np.testing.assert_allclose(np.abs(again), np.abs(parameters["precision_cholesky"]))


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_no_digits_are_lost_far_from_the_origin(offset):
    # Sums about the data's centre: at 1e6 deviations plain sums of squares lose twelve digits.
    bound, parameters = estimated(Normal("full", reg_covar=0.0), X + offset)
    shifted = np.cov((X + offset).T, bias=True)
    np.testing.assert_allclose(bound.covariances(parameters)[0], shifted, rtol=1e-9, atol=1e-9)
    expected = multivariate_normal.logpdf(X, parameters["mean"][0] - offset, shifted)
    np.testing.assert_allclose(
        # Positions near 1e6 are spaced by 1e-10.
        bound.log_prob(parameters, X + offset)[:, 0],
        expected,
        rtol=0.0,
        atol=1e-8,
    )


def test_the_default_prior_is_fraley_and_rafterys():
    bound = Normal("full", reg_covar=0.0, prior="default").bind(X, 4)
    terms = bound.terms
    np.testing.assert_allclose(terms["mean"], X.mean(axis=0))
    assert terms["shrinkage"] == 0.01
    assert terms["dof"] == 5.0
    np.testing.assert_allclose(
        terms["scale"], np.cov(X.T, bias=True) / 4 ** (2 / 3), rtol=1e-9, atol=1e-10
    )


def test_the_posterior_mode_is_that_of_the_inverse_wishart():
    terms = {"mean": np.zeros(3), "shrinkage": 2.0, "dof": 7.0, "scale": np.diag([1.0, 2.0, 3.0])}
    bound, parameters = estimated(Normal("full", reg_covar=0.0, prior=terms))
    n, centre = len(X), X.mean(axis=0)
    scatter = (X - centre).T @ (X - centre)
    expected_mean = n * centre / (n + 2.0)
    pulled = n * 2.0 / (n + 2.0) * np.outer(centre, centre)
    # Mode over mean and covariance together: nu + D + 2 divides.
    expected = (terms["scale"] + scatter + pulled) / (n + 7.0 + 3.0 + 2.0)
    np.testing.assert_allclose(parameters["mean"][0], expected_mean, rtol=1e-10)
    np.testing.assert_allclose(bound.covariances(parameters)[0], expected, rtol=1e-10, atol=1e-12)


def test_the_penalty_is_the_log_density_of_the_prior():
    bound, _ = estimated(Normal("full", reg_covar=0.0, prior="default"))
    terms = bound.terms
    rng = np.random.default_rng(1)
    nothing = bound.initial_statistics(X, np.zeros((50, 1)))
    found, expected = [], []
    for _ in range(3):
        root = rng.normal(size=(3, 3))
        covariance, mean = root @ root.T + np.eye(3), rng.normal(size=3)
        parameters = {"mean": mean[None], "precision_cholesky": precision_factor(covariance[None])}
        found.append(-bound.penalty(parameters, nothing))
        expected.append(
            invwishart.logpdf(covariance, terms["dof"], terms["scale"])
            + multivariate_normal.logpdf(mean, terms["mean"], covariance / terms["shrinkage"])
        )
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-9)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_constant_column_has_the_variance_of_the_floor(covariance_type):
    x = np.column_stack([X[:, 0], np.full(50, 3.0)])
    bound, parameters = estimated(Normal(covariance_type, reg_covar=1e-4), x)
    covariance = bound.covariances(parameters)
    if covariance_type in ("full", "tied"):
        covariance = np.diagonal(np.atleast_3d(covariance.reshape(-1, 2, 2)[0]).squeeze())
    if covariance_type != "spherical":
        assert np.ravel(covariance)[-1] == pytest.approx(1e-4, rel=1e-6)
    assert np.isfinite(bound.log_prob(parameters, x)).all()


def test_smoothing_is_a_share_of_the_largest_variance():
    bound, parameters = estimated(Normal("diag", reg_covar=0.0, var_smoothing=0.5))
    variances = X.var(axis=0)
    np.testing.assert_allclose(
        bound.covariances(parameters)[0], variances + 0.5 * variances.max(), rtol=1e-12
    )


def test_a_singular_covariance_is_refused_with_advice():
    x = np.column_stack([X[:, 0], X[:, 0]])
    with pytest.raises(ValueError, match=r"not positive definite.*increase .*reg_covar"):
        estimated(Normal("full", reg_covar=0.0), x)


def test_the_factor_is_triangular_and_of_the_precision():
    covariance = np.cov(X.T)
    factor = precision_factor(np.stack([covariance, 2.0 * covariance]))
    assert (np.tril(factor, -1) == 0.0).all()
    np.testing.assert_allclose(factor[1] @ factor[1].T, np.linalg.inv(2.0 * covariance))


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (Normal("round"), "covariance_type is 'round'; expected one of 'full'"),
        (Normal(reg_covar=-1.0), "must be at least 0"),
        (Normal(var_smoothing=-1.0), "must be at least 0"),
        (Normal(prior="flat"), "prior is 'flat'"),
        (Normal(prior={"spread": 1.0}), r"unknown terms \['spread'\]"),
        (Normal(prior={"mean": [0.0]}), r"prior\['mean'\] has shape \(1,\); expected \(3,\)"),
        (Normal("diag", prior={"scale": np.eye(3)}), r"expected \(3,\)"),
    ],
    ids=str,
)
def test_settings_are_checked(family, message):
    with pytest.raises(ValueError, match=message):
        family.bind(X, 2)


def test_an_unbound_family_says_so():
    parameters = {"mean": np.zeros((1, 3)), "precision_cholesky": np.eye(3)[None]}
    with pytest.raises(ValueError, match="not bound to data"):
        Normal().n_free(2)
    assert Normal().bind(X, 1).log_prob(parameters, X).shape == (50, 1)
