"""Small programs that both engines must agree on, each with its data."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl_gen import deterministic, dist, engines, factor, ops, plate, program, sample
from ppl_gen.language import Program

RNG = np.random.default_rng(20)


@program
def eight_schools(sigma, y=None):
    mu = sample("mu", dist.Normal(0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    with plate("school", len(sigma)):
        z = sample("z", dist.Normal(0.0, 1.0))
        theta = deterministic("theta", mu + tau * z)
        sample("y", dist.Normal(theta, sigma), obs=y)


@program
def mixture(x=None, rows=6):
    weights = sample("weights", dist.Dirichlet(np.ones(3)), dims="component")
    with plate("component", 3):
        loc = sample("loc", dist.Normal(0.0, 3.0))
        scale = sample("scale", dist.LogNormal(0.1, 0.5))
    with plate("row", rows):
        sample("x", dist.Mixture(weights, dist.Normal(loc, scale), latent="z"), obs=x)


@program
def naive_bayes(x=None, y=None, rows=6):
    weights = sample("weights", dist.Dirichlet([0.7, 1.5]))
    loc = sample("loc", dist.Normal(np.zeros((2, 3)), 2.0).to_event(2))
    with plate("row", rows):
        label = sample("y", dist.Categorical(weights), obs=y)
        sample("x", dist.Normal(loc[label], 0.1).to_event(1), obs=x)


@program
def regression(X, y=None):
    correlation = sample("correlation", dist.LKJCholesky(2, 1.5))
    scale = sample("scale", dist.InverseGamma(3.0, np.array([1.0, 0.1])).to_event(1))
    tril = ops.expand_dims(scale, axis=-1) * correlation
    beta = sample("beta", dist.MultivariateNormal(np.zeros(2), scale_tril=tril))
    noise = sample("noise", dist.HalfNormal(0.1))
    with plate("row", len(X)):
        sample("y", dist.StudentT(4, X @ beta, noise), obs=y)


@program
def counts(exposure, y=None):
    gate = sample("gate", dist.Beta(1, 3))
    rate = sample("rate", dist.Gamma(2.0, 0.1))
    with plate("row", len(exposure)):
        sample("y", dist.ZeroInflatedPoisson(gate, rate * exposure), obs=y)
        sample("plain", dist.Poisson(0.1 + rate), obs=y)


@program
def ordered(y=None, rows=5):
    mu = sample("mu", dist.Ordered(dist.Normal(0, 2), 2), dims="component")
    theta = sample("theta", dist.Beta(5, 5))
    with plate("row", rows):
        sample("y", dist.Mixture(ops.stack([theta, 1 - theta]), dist.Normal(mu, 0.5)), obs=y)


@program
def flat_regression(x, y=None):
    b = sample("b", dist.Flat(2), dims="coefficient")
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    with plate("row", len(x)):
        sample("y", dist.Normal(b[0] + b[1] * x, sigma), obs=y)


@program
def minibatch(x, y=None, size=None):
    slope = sample("slope", dist.Normal(0.0, 0.1))
    with plate("row", len(x), subsample_size=size) as i:
        sample("y", dist.Normal(slope * x[i], 1), obs=None if y is None else y[i])


@program
def autoregression(y=None, length=12):
    alpha = sample("alpha", dist.Normal(0.0, 0.1))
    beta = sample("beta", dist.Normal(0.0, 1.0))

    def step(previous, x):
        return x, alpha + beta * previous

    y = ops.asarray(np.zeros(length)) if y is None else y
    _, mean = ops.scan(step, 0.1, y[:-1])
    with plate("time", length - 1):
        sample("y", dist.Normal(mean, 0.1), obs=y[1:])


@program
def hidden_markov(y=None, length=8):
    with plate("state", 2):
        transition = sample("transition", dist.Dirichlet(np.array([2.0, 1.0])))
        loc = sample("loc", dist.Normal(0.0, 2.0))
    log_transition = ops.log(transition)
    emission = -0.5 * (ops.expand_dims(y, axis=-1) - loc) ** 2

    def forward(message, log_likelihood):
        joint = ops.expand_dims(message, axis=-1) + log_transition
        return ops.logsumexp(joint, axis=0) + log_likelihood, None

    message, _ = ops.scan(forward, emission[0], emission[1:])
    factor("evidence", ops.logsumexp(message, axis=-1))


@program
def nested(y=None, groups=3, rows=4):
    scale = sample("scale", dist.Exponential(0.1))
    with plate("group", groups):
        loc = sample("loc", dist.Normal(0.0, scale))
        with plate("row", rows):
            sample("y", dist.Normal(loc, 0.1), obs=y)


@program
def classes(x=None, rows=5):
    """A family of the library inside a mixture, with values missing."""
    weights = sample("weights", dist.Dirichlet(np.ones(2)))
    loc = sample("loc", dist.Normal(0.0, 2.0).expand([2, 3]).to_event(2))
    scale = sample("scale", dist.LogNormal(0.0, 0.3).expand([2, 3]).to_event(2))
    parameters = {"loc": loc, "variance": scale**2}
    family = FAMILY
    with plate("row", rows):
        sample("x", dist.Mixture(weights, dist.Family(family, parameters)), obs=x)


@program
def chains(y=None, sequences=3, length=5):
    """Hidden Markov chains in a plate; a step and a whole end of one are missing."""
    start = sample("start", dist.Dirichlet(np.ones(2)), dims="state")
    with plate("state", 2):
        transition = sample("transition", dist.Dirichlet(np.ones(2)))
    mu = sample("mu", dist.Ordered(dist.Normal(0.0, 2.0), 2), dims="state")
    emissions = dist.Normal(ops.stack([mu, -mu], axis=-1), 0.5).to_event(1)
    chain = dist.HiddenMarkov(start, transition, emissions, length, latent="z")
    with plate("sequence", sequences):
        sample("y", chain, obs=y, dims=["step", "column"])


@program
def counting_chain(y=None, length=6):
    """One chain that goes on to its last state for good."""
    stay = sample("stay", dist.Beta(5.0, 1.0))
    with plate("state", 2):
        rate = sample("rate", dist.Gamma(2.0, 0.1))
    transition = ops.stack([ops.stack([stay, 1.0 - stay]), ops.asarray(np.array([0.0, 1.0]))])
    sample("y", dist.HiddenMarkov([1.0, 0.0], transition, dist.Poisson(rate), length), obs=y)


@program
def diagnosis(x=None, rows=7):
    """A Bayesian network with a node that nobody observes, and one that is missing in places."""
    ill = sample("ill", dist.Dirichlet([2.0, 1.0]), dims="illness")
    test = sample("test", dist.Dirichlet(np.ones((2, 3))).to_event(1), dims=("illness", "result"))
    pain = sample("pain", dist.Dirichlet(np.ones((3, 2, 2))).to_event(2))
    net = dist.BayesNet([(), (0,), (1, 0)], [ill, test, pain], hidden=[0, 1], latent_node=0)
    with plate("row", rows):
        sample("x", net, obs=x, dims="column")


class DiagonalNormal:
    """The protocol of families, in the fewest lines."""

    def __init__(self, n_columns):
        self.n_columns = n_columns

    def log_prob(self, parameters, x):
        where = _where(x)
        known = where.isfinite(x)
        filled = where.where(known, x, where.zeros_like(x))[:, None, :]
        loc, variance = parameters["loc"], parameters["variance"]
        each = -0.5 * (filled - loc) ** 2 / variance - 0.5 * where.log(2 * np.pi * variance)
        return (each * known[:, None, :]).sum(-1)

    def sample(self, parameters, labels, random):
        loc, variance = parameters["loc"][labels], parameters["variance"][labels]
        return loc + variance**0.5 * random.normal(tuple(loc.shape))


def _where(x):
    from array_api_compat import array_namespace

    return array_namespace(x)


FAMILY = DiagonalNormal(3)


@dataclass
class Case:
    """A program, its data, and whether its priors are proper."""

    program: Program
    data: dict[str, Any]
    unobserved: dict[str, Any] = field(default_factory=dict)
    proper: bool = True

    def __repr__(self):
        return self.program.name


X = RNG.normal(size=(6, 2))
TABLE = RNG.normal(size=(5, 3))
TABLE[0, 1] = TABLE[3, 2] = np.nan
SEQUENCES = RNG.normal(size=(3, 5, 2))
SEQUENCES[0, 2, 1] = SEQUENCES[1, 3:] = np.nan
CODES = np.stack([np.full(7, np.nan), RNG.integers(3, size=7), RNG.integers(2, size=7)], axis=1)
CODES[2, 1] = CODES[5, 1] = np.nan
COUNTS = np.array([7.0, 9.0, np.nan, 1.0, 0.0, 2.0])
SIGMA = np.array([15.0, 10.0, 16.0])
EXPOSURE = np.array([0.1, 1.0, 2.0, 0.5])

CASES = [
    Case(eight_schools, {"sigma": SIGMA, "y": np.array([28.0, 8.0, -3.0])}, {"sigma": SIGMA}),
    Case(mixture, {"x": RNG.normal(size=6)}),
    Case(naive_bayes, {"x": RNG.normal(size=(6, 3)), "y": np.array([0, 1, 1, 0, 0, 1])}),
    Case(regression, {"X": X, "y": RNG.normal(size=6)}, {"X": X}),
    Case(counts, {"exposure": EXPOSURE, "y": np.array([0, 3, 7, 0])}, {"exposure": EXPOSURE}),
    Case(ordered, {"y": RNG.normal(size=5)}),
    Case(flat_regression, {"x": X[:, 0], "y": X[:, 1]}, proper=False),
    Case(minibatch, {"x": X[:, 0], "y": X[:, 1]}, {"x": X[:, 0]}),
    Case(autoregression, {"y": RNG.normal(size=12)}),
    Case(hidden_markov, {"y": RNG.normal(size=8)}, {"y": RNG.normal(size=8)}),
    Case(nested, {"y": RNG.normal(size=(4, 3))}),
    Case(classes, {"x": TABLE}),
    Case(chains, {"y": SEQUENCES}),
    Case(counting_chain, {"y": COUNTS}),
    Case(diagnosis, {"x": CODES}),
]


def latent_sites(trace):
    return [s.name for s in trace.values() if s.kind == "sample" and not s.observed]


def points(case: Case, n: int):
    """Random points of the support: prior draws, or starting points of an improper prior."""
    engine = engines.get("pyro")
    for seed in range(n):
        trace = engine.trace(case.program.pyro, (), case.data, seed=seed)
        yield {name: trace[name].value for name in latent_sites(trace)}
