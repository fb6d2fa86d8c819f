"""The conjugate regression against quadrature, chains of Student's t, and its moments."""

import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.stats import invgamma, multivariate_t, norm

from ppl_gen.algorithms.matrix_normal import draw, log_evidence, posterior


def rows(n=12, width=3, columns=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)), rng.normal(size=(n, columns))


def test_a_flat_prior_gives_least_squares():
    u, y = rows()
    found = posterior(u, y, 0.0, np.zeros((2, 2)), -3.0)
    expected, _, _, _ = np.linalg.lstsq(u, y)
    np.testing.assert_allclose(found.mean, expected, atol=1e-12)
    residual = y - u @ expected
    np.testing.assert_allclose(found.scale, residual.T @ residual, atol=1e-12)
    np.testing.assert_allclose(found.factor.T @ found.factor, u.T @ u, atol=1e-12)
    assert found.dof == 12 - 3


def test_a_posterior_is_the_prior_of_the_next_rows():
    """Rows in two parts, or at once: by the textbook formulas, with inverses."""
    u, y = rows()
    scale, shrinkage, dof = np.array([[2.0, 0.3], [0.3, 1.0]]), 0.7, 4.0
    found = posterior(u, y, shrinkage, scale, dof)
    precision = u.T @ u + shrinkage * np.eye(3)
    mean = np.linalg.inv(precision) @ u.T @ y
    np.testing.assert_allclose(found.mean, mean, atol=1e-12)
    np.testing.assert_allclose(found.scale, scale + y.T @ y - mean.T @ precision @ mean, atol=1e-11)
    assert found.dof == dof + 12


def test_draws_have_the_moments_of_the_posterior():
    u, y = rows(n=15)
    found = posterior(u, y, 0.5, np.eye(2), 4.0)
    size = 40_000
    weights, noise = draw(found, size, np.random.default_rng(1))
    expected = found.scale / (found.dof - 3.0)
    # Five standard errors; the variance of an inverse Wishart's entry is about 2 / dof of it.
    np.testing.assert_allclose(noise.mean(axis=0), expected, atol=5.0 * 0.4 / np.sqrt(size))
    precision = found.factor.T @ found.factor
    cov = np.cov(weights.reshape(size, -1).T)
    both = np.kron(np.linalg.inv(precision), expected)
    deviation = np.sqrt(np.diagonal(both))
    error = 5.0 / np.sqrt(size)
    assert (np.abs(weights.mean(axis=0) - found.mean).ravel() < error * deviation).all()
    # Tails are a little heavier than a normal's: two in place of sqrt 2.
    assert (np.abs(cov - both) < 2.0 * error * np.outer(deviation, deviation)).all()
    # Coefficients are as wide as the noise that they are drawn with.
    whitened = np.linalg.solve(np.linalg.cholesky(noise), np.swapaxes(weights - found.mean, 1, 2))
    np.testing.assert_allclose(
        np.einsum("sdm,sem->de", whitened @ found.factor.T, whitened @ found.factor.T) / size / 3.0,
        np.eye(2),
        atol=5.0 * np.sqrt(2.0 / (3.0 * size)),
    )


def test_the_evidence_is_a_product_of_predictive_ts():
    u, y = rows()
    scale, shrinkage, dof = np.array([[2.0, 0.3], [0.3, 1.0]]), 0.7, 4.0
    expected = 0.0
    for n in range(len(y)):
        before = posterior(u[:n], y[:n], shrinkage, scale, dof)
        spread = 1.0 + np.sum(np.linalg.solve(before.factor.T, u[n]) ** 2)
        free = before.dof - 1.0
        expected += multivariate_t.logpdf(
            y[n], u[n] @ before.mean, before.scale * spread / free, df=free
        )
    found = log_evidence(posterior(u, y, shrinkage, scale, dof), shrinkage, scale, dof)
    assert found == pytest.approx(expected, rel=1e-11)


def test_evidence_and_mean_by_quadrature():
    u, y = rows(n=6, width=1, columns=1)
    shrinkage, scale, dof = 0.4, np.array([[1.5]]), 3.0

    def joint(weight, variance):
        prior = invgamma.pdf(variance, dof / 2, scale=scale[0, 0] / 2)
        prior *= norm.pdf(weight, 0.0, np.sqrt(variance / shrinkage))
        return prior * norm.pdf(y[:, 0], weight * u[:, 0], np.sqrt(variance)).prod()

    bounds = (1e-3, 30.0, -8.0, 8.0)
    total, _ = dblquad(joint, *bounds)
    first, _ = dblquad(lambda w, v: w * joint(w, v), *bounds)
    found = posterior(u, y, shrinkage, scale, dof)
    # The tails left out of the integral weigh less than 1e-4.
    assert log_evidence(found, shrinkage, scale, dof) == pytest.approx(np.log(total), abs=1e-3)
    assert found.mean[0, 0] == pytest.approx(first / total, abs=1e-4)


def test_what_has_no_posterior_is_refused():
    u, y = rows()
    u[:, 2] = u[:, 1]
    with pytest.raises(ValueError, match="collinear"):
        posterior(u, y, 0.0, np.zeros((2, 2)), -3.0)
    with pytest.raises(ValueError, match="collinear"):
        posterior(u[:1], y[:1], 0.0, np.zeros((2, 2)), -3.0)
    assert np.isfinite(posterior(u, y, 0.1, np.eye(2), 4.0).mean).all()
    few = posterior(*rows(n=4), 0.0, np.zeros((2, 2)), -3.0)
    with pytest.raises(ValueError, match="degrees of freedom"):
        draw(few, 3, np.random.default_rng(0))
