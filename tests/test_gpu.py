"""What runs on a GPU gives what it gives on the CPU."""

import numpy as np
import pytest

from ppl_gen import EM, NUTS, SVI, GaussianMixture, NaiveBayes, dist, infer, plate, program, sample

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(300, 3)), 4.0 + rng.normal(size=(200, 3))])
    return np.where(rng.random(x.shape) < 0.1, np.nan, x)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_em_on_cuda_equals_em_on_the_cpu(table, covariance_type):
    start = {"means_init": np.array([[0.0] * 3, [4.0] * 3])}
    fits = [
        GaussianMixture(
            2, covariance_type, inference=EM(max_iter=20, tol=0.0), device=device, **start
        ).fit(table)
        for device in ("cpu", "cuda")
    ]
    # The same float64 sums in another order.
    np.testing.assert_allclose(fits[1].means_, fits[0].means_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fits[1].lower_bound_, fits[0].lower_bound_, rtol=1e-10)


def test_naive_bayes_takes_a_cuda_device(table):
    y = np.repeat([0, 1], [300, 200])
    proba = [NaiveBayes(device=d).fit(table, y).predict_proba(table) for d in ("cpu", "cuda")]
    np.testing.assert_allclose(proba[1], proba[0], atol=1e-12)


@pytest.mark.parametrize("engine", ["numpyro", "pyro"])
@pytest.mark.parametrize("method", [NUTS(chains=2, warmup=300, draws=300), SVI(steps=2000)])
def test_inference_on_cuda_finds_the_known_posterior(engine, method):
    if engine == "pyro" and method.name == "nuts":
        pytest.skip("Pyro's NUTS takes minutes; its SVI covers the device")

    @program
    def normal_mean(y=None):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        with plate("row", 99):
            sample("y", dist.Normal(mu, 1.0), obs=y)

    y = np.random.default_rng(0).normal(1.0, 1.0, size=99)
    posterior = infer(normal_mean, y=y, method=method, engine=engine, device="cuda", progress=False)
    draws = posterior.stacked("mu")
    # Conjugate: N(sum(y) / 100, 0.1^2). Five standard errors of 100 effective draws.
    assert abs(draws.mean() - y.sum() / 100.0) < 0.05
    assert abs(draws.std() - 0.1) < 0.04
