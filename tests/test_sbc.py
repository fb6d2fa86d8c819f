"""Simulation-based calibration: ranks of the truth among posterior draws are uniform.

Talts, Betancourt, Simpson, Vehtari and Gelman (2018), Validating Bayesian inference algorithms with
simulation-based calibration. The band of the empirical distribution function is that of Säilynoja,
Bürkner and Vehtari (2022), Graphical test for discrete uniformity, Statistics and Computing 32.
"""

import numpy as np
import pytest
from scipy import stats

from ppl_gen import FactorNormal, deterministic, dist, engines, ops, plate, program, sample
from ppl_gen.inference.nuts_core import Settings

SIMULATIONS = 200
#: Draws kept of each posterior, far enough apart to be nearly independent.
DRAWS = 99
THINNING = 5
WARMUP = 300
BINS = 20


@program
def mixture(y=None):
    mu = sample("mu", dist.Ordered(dist.Normal(0.0, 3.0), 2))
    sigma = sample("sigma", dist.LogNormal(0.0, 0.3))
    theta = sample("theta", dist.Beta(5.0, 5.0))
    with plate("row", 40):
        weights = ops.stack([theta, 1.0 - theta])
        sample("y", dist.Mixture(weights, dist.Normal(mu, sigma), latent="z"), obs=y)


def simulate_mixture(rng):
    mu = np.sort(rng.normal(0, 3, size=(SIMULATIONS, 2)), axis=1)
    sigma = rng.lognormal(0, 0.3, size=SIMULATIONS)
    theta = rng.beta(5, 5, size=SIMULATIONS)
    first = rng.uniform(size=(SIMULATIONS, 40)) < theta[:, None]
    y = rng.normal(np.where(first, mu[:, :1], mu[:, 1:]), sigma[:, None])
    return {"mu[0]": mu[:, 0], "mu[1]": mu[:, 1], "sigma": sigma, "theta": theta}, y


@program
def hierarchy(y=None):
    mu = sample("mu", dist.Normal(0.0, 2.0))
    tau = sample("tau", dist.HalfNormal(2.0))
    with plate("group", 6):
        z = sample("z", dist.Normal(0.0, 1.0))
        theta = deterministic("theta", mu + tau * z)
        with plate("row", 3):
            sample("y", dist.Normal(theta, 1.0), obs=y)


def simulate_hierarchy(rng):
    mu = rng.normal(0, 2, size=SIMULATIONS)
    tau = np.abs(rng.normal(0, 2, size=SIMULATIONS))
    theta = rng.normal(mu[:, None], tau[:, None], size=(SIMULATIONS, 6))
    y = rng.normal(theta[:, None, :], 1.0, size=(SIMULATIONS, 3, 6))
    return {"mu": mu, "tau": tau, "theta[0]": theta[:, 0], "theta[5]": theta[:, 5]}, y


@program
def hidden_markov(y=None):
    mu = sample("mu", dist.Ordered(dist.Normal(0.0, 3.0), 2))
    sigma = sample("sigma", dist.LogNormal(0.0, 0.3))
    with plate("state", 2):
        stay = sample("stay", dist.Beta(4.0, 2.0))
    first, second = stay[0], stay[1]
    transition = ops.stack([ops.stack([first, 1 - first]), ops.stack([1 - second, second])])
    with plate("sequence", 2):
        chain = dist.HiddenMarkov([0.5, 0.5], transition, dist.Normal(mu, sigma), 20)
        sample("y", chain, obs=y)


def simulate_hidden_markov(rng):
    mu = np.sort(rng.normal(0, 3, size=(SIMULATIONS, 2)), axis=1)
    sigma = rng.lognormal(0, 0.3, size=SIMULATIONS)
    stay = rng.beta(4, 2, size=(SIMULATIONS, 2))
    row = np.arange(SIMULATIONS)[:, None]
    state = rng.integers(0, 2, size=(SIMULATIONS, 2))
    y = np.empty((SIMULATIONS, 2, 20))
    for step in range(20):
        y[..., step] = rng.normal(mu[row, state], sigma[:, None])
        moves = rng.uniform(size=state.shape) >= stay[row, state]
        state = np.where(moves, 1 - state, state)
    y[rng.uniform(size=y.shape) < 0.1] = np.nan
    y[:, 1, 15:] = np.nan  # the second sequence is shorter
    truth = {"mu[0]": mu[:, 0], "mu[1]": mu[:, 1], "sigma": sigma}
    return {**truth, "stay[0]": stay[:, 0], "stay[1]": stay[:, 1]}, y


# A factor, of which neither the sign of its loadings nor what is missing is known.
ROWS = 20
FACTOR = FactorNormal(1).bind(np.random.default_rng(0).normal(size=(50, 3)), 1)
FACTOR = FACTOR.replace(missing=True)


@program
def factor(y=None):
    noise = sample("noise", dist.LogNormal(np.full(3, -0.5), 0.5).to_event(1))
    loadings = sample("loadings", dist.Normal(np.zeros(3), 1.0).to_event(1))
    mean = sample("mean", dist.Normal(np.zeros(3), 2.0).to_event(1))
    leaves = {"mean": mean, "loadings": loadings[..., None], "noise_variance": noise}
    rows = dist.Family(FACTOR, {name: leaf[None] for name, leaf in leaves.items()})
    with plate("row", ROWS):
        sample("y", dist.Mixture([1.0], rows, latent="z"), obs=y)


def simulate_factor(rng):
    noise = rng.lognormal(-0.5, 0.5, size=(SIMULATIONS, 3))
    loadings = rng.normal(size=(SIMULATIONS, 3))
    mean = rng.normal(0.0, 2.0, size=(SIMULATIONS, 3))
    y = rng.normal(size=(SIMULATIONS, ROWS, 1)) * loadings[:, None] + mean[:, None]
    y = y + np.sqrt(noise)[:, None] * rng.normal(size=y.shape)
    y[rng.uniform(size=y.shape) < 0.2] = np.nan
    truth = {"noise[0]": noise[:, 0], "noise[2]": noise[:, 2], "mean[1]": mean[:, 1]}
    size = np.abs(loadings)
    return {**truth, "size[0]": size[:, 0], "size[2]": size[:, 2]}, y


def posterior_draws(model, data):
    """Draws for every data set by one compiled function, mapped over the data sets."""
    import jax

    from ppl_gen.inference.nuts_numpyro import block, start

    engine = engines.get("numpyro")
    settings = Settings(WARMUP, 0.9, False, 8, "uniform")
    length = WARMUP + DRAWS * THINNING

    def one(key, y):
        state = start(model.numpyro, (), {"y": y}, settings, key)
        _, made = block(model.numpyro, (), {"y": y}, settings, state, length, length)
        return jax.tree.map(lambda a: a[WARMUP + THINNING - 1 :: THINNING], made.sites)

    with engine.precision(device="cpu"):
        keys = jax.random.split(jax.random.key(5), len(data))
        draws = jax.jit(jax.vmap(one))(keys, engine.asarray(data))
        return {name: np.asarray(values) for name, values in draws.items()}


def ranks(truth, draws):
    """Number of draws below the truth, in 0..DRAWS, for each simulation."""
    found = {}
    for label, values in truth.items():
        name, _, index = label.partition("[")
        made = draws[name][..., int(index[:-1])] if index else draws[name]
        found[label] = np.sum(made < values[:, None], axis=1)
    return found


def chi_square_p(rank):
    counts = np.histogram(rank, bins=BINS, range=(-0.5, DRAWS + 0.5))[0]
    return float(stats.chisquare(counts).pvalue)


def coverage_statistic(samples):
    """Smallest pointwise tail probability of the empirical distribution function.

    Säilynoja et al. (2022), section 2: N times the function at z is binomial(N, z) if the ranks
    are uniform.
    """
    points = np.arange(DRAWS + 1)
    below = (samples[..., None] <= points).sum(-2)[..., :-1]  # at the last point it is N
    probabilities = (points[:-1] + 1) / (DRAWS + 1)
    counts = np.arange(SIMULATIONS + 1)[:, None]
    lower = stats.binom.cdf(counts, SIMULATIONS, probabilities)
    upper = stats.binom.sf(counts - 1, SIMULATIONS, probabilities)
    tails = 2 * np.minimum(lower, upper)
    return tails[below, np.arange(DRAWS)].min(-1)


def band_level(alpha, trials=4000):
    """The statistic's `alpha` quantile under uniform ranks, by simulation."""
    rng = np.random.default_rng(0)
    uniform = rng.integers(0, DRAWS + 1, size=(trials, SIMULATIONS))
    reference = np.concatenate([coverage_statistic(part) for part in np.array_split(uniform, 40)])
    return float(np.quantile(reference, alpha))


CASES = {
    "mixture": (mixture, simulate_mixture),
    "hierarchy": (hierarchy, simulate_hierarchy),
    "hidden_markov": (hidden_markov, simulate_hidden_markov),
    "factor": (factor, simulate_factor),
}
TESTS = 18  # quantities of all


def calibrate(case):
    model, simulate = CASES[case]
    truth, data = simulate(np.random.default_rng(11))
    draws = posterior_draws(model, data)
    if "loadings" in draws:
        draws["size"] = np.abs(draws["loadings"])
    return ranks(truth, draws)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_ranks_are_uniform(case):
    level = band_level(0.01 / TESTS)
    for label, rank in calibrate(case).items():
        assert chi_square_p(rank) > 0.01 / TESTS, label
        assert coverage_statistic(rank) > level, label


def test_the_tests_find_a_posterior_that_is_too_narrow():
    rng = np.random.default_rng(0)
    # Ranks of a truth from a normal with half as much again the spread.
    rank = np.floor((DRAWS + 1) * stats.norm.cdf(rng.normal(0, 1.5, SIMULATIONS))).astype(int)
    assert chi_square_p(rank) < 0.01 / TESTS
    assert coverage_statistic(rank) < band_level(0.01 / TESTS, trials=2000)


if __name__ == "__main__":
    import time

    limit = band_level(0.01 / TESTS)
    print(f"bounds: p > {0.01 / TESTS:.5f}, statistic > {limit:.5f}")
    for name in CASES:
        began = time.perf_counter()
        for quantity, rank in calibrate(name).items():
            print(f"{name:13} {quantity:9} p = {chi_square_p(rank):.3f}, "
                  f"band {float(coverage_statistic(rank)):.4f}")  # fmt: skip
        print(f"{name}: {time.perf_counter() - began:.1f} s")
