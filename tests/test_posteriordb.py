"""NUTS against the reference draws of posteriordb, for every parameter of six posteriors."""

import json
from pathlib import Path

import numpy as np
import pytest

from ppl_gen import NUTS, deterministic, dist, infer, ops, plate, program, sample
from ppl_gen.arviz_bridge import az

FOLDER = Path(__file__).parent / "data" / "posteriordb"


@program
def eight_schools(sigma, y=None):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    with plate("school", len(sigma)):
        z = sample("z", dist.Normal(0.0, 1.0))
        theta = deterministic("theta", mu + tau * z)
        sample("y", dist.Normal(theta, sigma), obs=y)


@program
def low_dim_gauss_mix(y=None, n=1000):
    mu = sample("mu", dist.Ordered(dist.Normal(0.0, 2.0), 2), dims="component")
    with plate("component", 2):
        sigma = sample("sigma", dist.HalfNormal(2.0))
    theta = sample("theta", dist.Beta(5.0, 5.0))
    weights = ops.stack([theta, 1.0 - theta])
    with plate("row", n):
        sample("y", dist.Mixture(weights, dist.Normal(mu, sigma), latent="z"), obs=y)


@program
def kidscore_momiq(mom_iq, kid_score=None):
    with plate("coefficient", 2):
        beta = sample("beta", dist.Flat())
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    with plate("child", len(mom_iq)):
        sample("kid_score", dist.Normal(beta[0] + beta[1] * mom_iq, sigma), obs=kid_score)


@program
def blr(X, y=None):
    with plate("feature", X.shape[1]):
        beta = sample("beta", dist.Normal(0.0, 10.0))
    sigma = sample("sigma", dist.HalfNormal(10.0))
    with plate("row", X.shape[0]):
        sample("y", dist.Normal(X @ beta, sigma), obs=y)


@program
def autoregressive(lags, y=None):
    alpha = sample("alpha", dist.Normal(0.0, 10.0))
    with plate("lag", lags.shape[1]):
        beta = sample("beta", dist.Normal(0.0, 10.0))
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    with plate("time", lags.shape[0]):
        sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y)


@program
def hmm_example(y=None, n=100):
    # The model has no term for the first state; a uniform one adds a constant.
    theta1 = sample("theta1", dist.Dirichlet(np.ones(2)), dims="state")
    theta2 = sample("theta2", dist.Dirichlet(np.ones(2)), dims="state")
    mu = sample("mu", dist.Ordered(dist.Normal([3.0, 10.0], 1.0), positive=True), dims="state")
    transition = ops.stack([theta1, theta2])
    chain = dist.HiddenMarkov([0.5, 0.5], transition, dist.Normal(mu, 1.0), n, latent="z")
    sample("y", chain, obs=y, dims="step")


def arguments(name, data):
    """The program of a posterior and what it is called with."""
    data = {key: np.asarray(value, dtype=float) for key, value in data.items()}
    match name:
        case "eight_schools-eight_schools_noncentered":
            return eight_schools, {"sigma": data["sigma"], "y": data["y"]}
        case "low_dim_gauss_mix-low_dim_gauss_mix":
            return low_dim_gauss_mix, {"y": data["y"]}
        case "hmm_example-hmm_example":
            return hmm_example, {"y": data["y"]}
        case "kidiq-kidscore_momiq":
            return kidscore_momiq, {"mom_iq": data["mom_iq"], "kid_score": data["kid_score"]}
        case "sblri-blr":
            return blr, {"X": data["X"], "y": data["y"]}
        case "arK-arK":
            y, order = data["y"], int(data["K"])
            lags = np.stack([y[order - k : -k] for k in range(1, order + 1)], axis=1)
            return autoregressive, {"lags": lags, "y": y[order:]}
    raise AssertionError(name)


def entry(draws, parameter):
    """Draws of ``beta[2]``: Stan counts from 1."""
    name, _, index = parameter.partition("[")
    values = draws[name]
    return values[..., int(index[:-1]) - 1] if index else values


def deviations(name):
    """Differences of means in combined Monte Carlo standard errors, and the posterior."""
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    model, kwargs = arguments(name, stored["data"])
    # Means of correlated predictors (kidiq) mix slowly without the full mass matrix.
    method = NUTS(chains=4, warmup=1000, draws=2000, target_accept=0.9, dense_mass=True)
    posterior = infer(model, **kwargs, method=method, seed=0, progress=False)
    found = {}
    for parameter, reference in stored["reference"].items():
        draws = entry(posterior.draws, parameter)
        error = np.hypot(reference["mcse"], float(az.mcse(draws)))
        found[parameter] = float((draws.mean() - reference["mean"]) / error)
    return found, posterior


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")))
def test_every_mean_is_within_four_standard_errors(name):
    found, posterior = deviations(name)
    assert posterior.verdict.figures["max_rhat"] < 1.01
    # Four standard errors: 6e-5 a parameter, so about 1e-3 for all of them to be no fault.
    assert {k: z for k, z in found.items() if not abs(z) < 4} == {}


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.json")):
        z, run = deviations(path.stem)
        worst = max(z, key=lambda key: abs(z[key]))
        print(f"{path.stem:42} |z| <= {abs(z[worst]):.2f} ({worst}), {run.info['elapsed']:.1f} s")
        print("   ", run.verdict)
