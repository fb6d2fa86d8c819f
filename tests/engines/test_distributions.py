import numpy as np
import pytest
from scipy import special, stats
from zoo import FAMILY

from ppl_gen import dist, engines, language, program, sample
from ppl_gen.engines.base import NumPyRandom

ENGINES = ["pyro", "numpyro"]
EYE = np.eye(2)
TRIL = np.array([[1.0, 0.0], [0.3, 0.9]])

#: Arguments (numbers, lists, NumPy arrays) and a value in the support, for each portable name.
PORTABLE = {
    "AsymmetricLaplace": ((0, 1, 2), 0.1),
    "BayesNet": (([(), (0,)], [[0.1, 0.9], 0.8 * EYE + 0.1], [0]), [np.nan, 1]),
    "Bernoulli": ((0.1,), 1),
    "Beta": ((2, 0.1), 0.3),
    "BetaBinomial": ((2.0, 0.1, 5), 3),
    "Binomial": ((5, 0.1), 3),
    "Categorical": (([0.1, 0.9],), 1),
    "Cauchy": ((0, 0.1), 0.3),
    "Chi2": ((3,), 0.3),
    "Delta": ((0.1,), 0.1),
    "Dirichlet": (([1, 0.1, 2],), [0.2, 0.3, 0.5]),
    "DirichletMultinomial": (([1, 0.1, 2], 4), [1, 0, 3]),
    "Exponential": ((0.1,), 0.3),
    "Gamma": ((2, 0.1), 0.3),
    "GammaPoisson": ((2, 0.1), 3),
    "Geometric": ((0.1,), 3),
    "Gumbel": ((0, 0.1), 0.3),
    "HalfCauchy": ((0.1,), 0.3),
    "HalfNormal": ((0.1,), 0.3),
    "InverseGamma": ((2, 0.1), 0.3),
    "Kumaraswamy": ((2, 0.1), 0.3),
    "LKJCholesky": ((2, 0.1), TRIL / np.linalg.norm(TRIL, axis=1, keepdims=True)),
    "LKJ": ((2, 0.7), np.array([[1.0, 0.3], [0.3, 1.0]])),
    "Laplace": ((0, 0.1), 0.3),
    "LogNormal": ((0, 0.1), 0.3),
    "Logistic": ((0, 0.1), 0.3),
    "LowRankMultivariateNormal": ((np.zeros(2), np.ones((2, 1)), [0.1, 1]), [0.1, 0.2]),
    "Multinomial": ((4, [0.1, 0.9]), [1, 3]),
    "MultivariateNormal": ((np.zeros(2), EYE + 0.1), [0.1, 0.2]),
    "MultivariateStudentT": ((3, np.zeros(2), TRIL), [0.1, 0.2]),
    "NegativeBinomial": ((3, 0.1), 2),
    "Normal": ((0, 0.1), 0.3),
    "OrderedLogistic": ((0.1, [-1, 0.1]), 1),
    "Pareto": ((0.1, 2), 0.3),
    "Poisson": ((0.1,), 3),
    "ProjectedNormal": (([0.1, 0.2],), [0.6, 0.8]),
    "SoftLaplace": ((0, 0.1), 0.3),
    "StudentT": ((3, 0, 0.1), 0.3),
    "Uniform": ((0, 0.5), 0.1),
    "VonMises": ((0, 0.1), 0.3),
    "Weibull": ((0.1, 2), 0.3),
    "Wishart": ((4, EYE + 0.1), EYE),
    "ZeroInflatedPoisson": ((0.1, 2), 0),
    "Flat": ((2,), [0.1, 0.2]),
}
#: Those that take other distributions, or transforms or constraints.
COMPOSED = {
    "Family": (
        lambda: dist.Family(FAMILY, {"loc": np.zeros((2, 3)), "variance": np.ones((2, 3))}),
        np.full((1, 3), 0.1),
    ),
    "FoldedDistribution": (lambda: dist.FoldedDistribution(dist.Normal(0, 0.1)), 0.3),
    "HiddenMarkov": (
        lambda: dist.HiddenMarkov([0.1, 0.9], [[0.1, 0.9], [0.6, 0.4]], dist.Normal([0, 1], 1), 3),
        [0.3, 0.1, 2.0],
    ),
    "ImproperUniform": (lambda: dist.ImproperUniform(dist.constraints.positive, (), ()), 0.3),
    "Independent": (lambda: dist.Independent(dist.Normal([0.1, 0], 1), 1), [0.1, 0.2]),
    "Mixture": (lambda: dist.Mixture([0.1, 0.9], dist.Normal([0, 1], 0.1)), 0.3),
    "MixtureSameFamily": (
        lambda: dist.MixtureSameFamily(dist.Categorical([0.1, 0.9]), dist.Normal([0, 1], 0.1)),
        0.3,
    ),
    "Ordered": (lambda: dist.Ordered(dist.Normal(0, 2), 2), [0.1, 0.2]),
    "TransformedDistribution": (
        lambda: dist.TransformedDistribution(
            dist.Normal([0, 0.1], 1).to_event(1), [dist.transforms.OrderedTransform()]
        ),
        [0.1, 0.2],
    ),
    "ZeroInflatedDistribution": (
        lambda: dist.ZeroInflatedDistribution(dist.Poisson(2), gate=0.1),
        0,
    ),
}


def run(name, make, **observed):
    """Trace a program of one site under one engine."""

    @program
    def one(value=None):
        sample("x", make(), obs=value)

    return engines.get(name).trace(one.native(name), (), observed)["x"]


def test_every_portable_name_is_tested():
    assert set(PORTABLE) | set(COMPOSED) == language.PORTABLE


@program
def every_one():
    for name, (arguments, value) in PORTABLE.items():
        sample(name, getattr(dist, name)(*arguments), obs=np.asarray(value))
    for name, (make, value) in COMPOSED.items():
        sample(name, make(), obs=np.asarray(value))


@pytest.fixture(scope="module")
def observed():
    return [engines.get(name).trace(every_one.native(name)) for name in ENGINES]


@pytest.mark.parametrize("distribution", sorted(language.PORTABLE))
def test_portable_distributions_agree(observed, distribution):
    a, b = (trace[distribution] for trace in observed)
    assert a.log_prob.dtype == b.log_prob.dtype == np.float64
    # Special functions differ in their last digits between the libraries.
    np.testing.assert_allclose(a.log_prob, b.log_prob, rtol=1e-9, atol=1e-12)
    assert (a.discrete, a.support, a.improper) == (b.discrete, b.support, b.improper)


def test_keywords_have_one_spelling():
    for make in (
        lambda: dist.LKJCholesky(dimension=3, concentration=0.1),
        lambda: dist.Wishart(concentration=4, scale_matrix=np.eye(2)),
        lambda: dist.ZeroInflatedPoisson(gate=0.1, rate=2),
    ):
        a, b = (run(name, make) for name in ENGINES)
        assert a.value.shape == b.value.shape


@pytest.mark.parametrize("name", ENGINES)
def test_arguments_are_bound_once(name):
    with pytest.raises(TypeError, match="loc given twice"):
        run(name, lambda: dist.Normal(0.0, loc=1.0))
    with pytest.raises(TypeError, match="5 positional arguments; expected at most"):
        run(name, lambda: dist.Normal(0.0, 1.0, 2.0, 3.0, 4.0))


# Mixture --------------------------------------------------------------------------------------


def mixture(event):
    weights = np.array([0.2, 0.5, 0.3])
    loc = np.array([[-1.0, 0.1], [0.5, 0.0], [2.0, 3.0]])
    if not event:
        return weights, loc[:, 0], lambda: dist.Mixture(weights, dist.Normal(loc[:, 0], 0.7))
    return weights, loc, lambda: dist.Mixture(weights, dist.Normal(loc, 0.7).to_event(1))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("event", [False, True])
def test_mixture_is_the_sum_over_its_components(name, event):
    weights, loc, make = mixture(event)
    x = np.random.default_rng(0).normal(size=(5, 2) if event else 5)
    site = run(name, lambda: make().expand((5,)), value=x)
    each = stats.norm.logpdf(np.expand_dims(x, 1), loc, 0.7)
    each = np.log(weights) + (each.sum(-1) if event else each)
    np.testing.assert_allclose(site.log_prob, special.logsumexp(each, axis=-1), rtol=1e-12)
    assert site.latent == "z"
    engine = engines.get(name)
    with engine.precision(), engine.activate():
        found = make()
        posterior = found.latent_posterior(engine.asarray(x))
        labels = found.sample_latent(engine.asarray(np.repeat(x[:1], 4000, 0)), engine.random(0))
    expected = special.softmax(each, axis=-1)
    np.testing.assert_allclose(engine.to_numpy(posterior), expected, rtol=1e-9)
    shares = np.bincount(engine.to_numpy(labels), minlength=3) / 4000
    np.testing.assert_allclose(shares, expected[0], atol=0.035)  # 4 standard errors


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("event", [False, True])
def test_mixture_draws_from_its_density(name, event):
    weights, loc, make = mixture(event)
    x = run(name, lambda: make().expand((20_000,))).value
    first, centre = (x[:, 0], loc[:, 0]) if event else (x, loc)

    def cdf(t):
        return stats.norm.cdf(np.expand_dims(t, -1), centre, 0.7) @ weights

    assert stats.kstest(first, cdf).pvalue > 1e-3
    if event:  # both columns come from one component
        expected = loc.T @ np.diag(weights) @ loc - np.outer(weights @ loc, weights @ loc)
        np.testing.assert_allclose(np.cov(x.T)[0, 1], expected[0, 1], atol=0.1)


@pytest.mark.parametrize("name", ENGINES)
def test_mixture_weights_may_differ_by_row(name):
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    site = run(
        name, lambda: dist.Mixture(weights, dist.Normal([-50, 50], 1)), value=np.array([0.0] * 3)
    )
    np.testing.assert_allclose(site.log_prob, stats.norm.logpdf(50.0), rtol=1e-12)
    draws = run(name, lambda: dist.Mixture(weights, dist.Normal([-50, 50], 1))).value
    assert draws[0] < 0 < draws[1]


# Family ---------------------------------------------------------------------------------------

PARAMETERS = {
    "loc": np.array([[-5.0, 0.0, 1.0], [5.0, 0.1, 2.0]]),
    "variance": np.array([[1.0, 2.0, 0.5], [0.1, 1.0, 1.0]]),
}


def family_density(x):
    """Log density of each row under each class, missing entries left out, (n, K)."""
    scale = np.sqrt(PARAMETERS["variance"])
    each = stats.norm.logpdf(x[:, None, :], PARAMETERS["loc"], scale)
    return np.nansum(each, -1)


@pytest.mark.parametrize("name", ENGINES)
def test_family_in_a_mixture_leaves_missing_entries_out(name):
    x = np.random.default_rng(0).normal(size=(4, 3))
    x[0, 1] = x[2, 2] = np.nan
    weights = np.array([0.3, 0.7])
    make = lambda: dist.Mixture(weights, dist.Family(FAMILY, PARAMETERS))  # noqa: E731
    site = run(name, lambda: make().expand((4,)), value=x)
    expected = special.logsumexp(np.log(weights) + family_density(x), axis=-1)
    np.testing.assert_allclose(site.log_prob, expected, rtol=1e-12)
    draws = run(name, lambda: make().expand((2000,))).value
    assert draws.shape == (2000, 3)
    assert (draws[:, 0] > 0).mean() == pytest.approx(0.7, abs=0.05)  # 5 standard errors


@pytest.mark.parametrize("name", ENGINES)
def test_family_takes_labels_rows_and_stacks_of_rows(name):
    x = np.random.default_rng(0).normal(size=(4, 3))
    labels = np.array([0, 1, 1, 0])
    each = family_density(x)
    site = run(name, lambda: dist.Family(FAMILY, PARAMETERS, labels), value=x)
    np.testing.assert_allclose(site.log_prob, each[np.arange(4), labels], rtol=1e-12)
    drawn = run(name, lambda: dist.Family(FAMILY, PARAMETERS, labels)).value
    np.testing.assert_array_equal(drawn[:, 0] > 0, labels == 1)
    engine = engines.get(name)
    with engine.precision(), engine.activate():
        family = dist.Family(FAMILY, PARAMETERS)
        rows = engine.to_numpy(family.log_prob(engine.asarray(x[0])))
        stack = engine.to_numpy(family.log_prob(engine.asarray(x[:2])))
        np.testing.assert_allclose(rows, each[0], rtol=1e-12)
        np.testing.assert_allclose(stack, np.diag(each[:2]), rtol=1e-12)
        with pytest.raises(ValueError, match="axis -2 of the value has size 4; expected 1 or"):
            family.log_prob(engine.asarray(x))
    assert run(name, lambda: dist.Family(FAMILY, PARAMETERS)).value.shape == (2, 3)


# Ordered and Flat -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_ordered_density_is_that_of_its_elements(name):
    value = np.array([-1.0, 0.5, 3.0])
    site = run(name, lambda: dist.Ordered(dist.Normal(0, 2), 3), value=value)
    np.testing.assert_allclose(site.log_prob, stats.norm.logpdf(value, 0, 2).sum(), rtol=1e-12)
    assert not site.improper
    engine = engines.get(name)

    @program
    def pair():
        sample("mu", dist.Ordered(dist.Normal(0, 1), 2))

    mu = engine.prior_predictive(pair.native(name), (), {}, 4000, seed=0)["mu"]
    assert (np.diff(mu) >= 0).all()
    # The larger of two standard normals has mean 1 / sqrt(pi) and standard deviation .83.
    assert mu[:, 1].mean() == pytest.approx(1 / np.sqrt(np.pi), abs=4 * 0.83 / np.sqrt(4000))


@pytest.mark.parametrize("name", ENGINES)
def test_ordered_with_a_base_for_each_element(name):
    make = lambda: dist.Ordered(dist.Normal([3.0, 10.0], 1), positive=True)  # noqa: E731
    site = run(name, make)
    assert site.improper
    assert (np.diff(site.value) > 0).all()
    assert (site.value > 0).all()
    expected = stats.norm.logpdf(site.value, [3, 10], 1).sum()
    np.testing.assert_allclose(site.log_prob, expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"dist\.Ordered: no size"):
        run(name, lambda: dist.Ordered(dist.Normal(0, 1)))
    with pytest.raises(ValueError, match=r"dist\.Ordered: base has batch shape \(2,\)"):
        run(name, lambda: dist.Ordered(dist.Normal([0, 1], 1), 3))


@pytest.mark.parametrize("name", ENGINES)
def test_flat_is_one_everywhere_and_says_that_it_is_improper(name):
    for make, shape in [(dist_flat, ()), (lambda: dist.Flat(3), (3,))]:
        site = run(name, make)
        assert site.improper
        assert site.value.shape == shape
        assert site.log_prob == 0.0
    assert run(name, lambda: dist.Flat().expand((4,))).value.shape == (4,)


def dist_flat():
    return dist.Flat()


# Random numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["numpy", *ENGINES])
def test_random_sources_draw_what_they_say(name):
    n = 20_000
    probs = np.array([0.2, 0.5, 0.0, 0.3])
    if name == "numpy":
        draws = draw_all(NumPyRandom(0), probs, n, np.asarray)
    else:
        engine = engines.get(name)
        with engine.precision():
            draws = draw_all(engine.random(0), engine.asarray(probs), n, engine.asarray)
            again = draw_all(engine.random(0), engine.asarray(probs), n, engine.asarray)
            draws = {key: engine.to_numpy(value) for key, value in draws.items()}
            for key, value in again.items():
                np.testing.assert_array_equal(draws[key], engine.to_numpy(value))
    assert stats.kstest(draws["normal"], stats.norm.cdf).pvalue > 1e-3
    assert stats.kstest(draws["uniform"], stats.uniform.cdf).pvalue > 1e-3
    assert stats.kstest(draws["gamma"], stats.gamma(2.5).cdf).pvalue > 1e-3
    counts = np.bincount(draws["poisson"].astype(int), minlength=12)[:12]
    expected = n * stats.poisson.pmf(np.arange(12), 2.0)
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3
    shares = np.bincount(draws["categorical"], minlength=4) / n
    np.testing.assert_allclose(shares, probs, atol=0.015)  # 4 standard errors
    assert (draws["multinomial"].sum(-1) == 7).all()
    assert (draws["multinomial"][:, 2] == 0).all()
    np.testing.assert_allclose(draws["multinomial"].mean(0), 7 * probs, atol=0.04)
    assert draws["multinomial"].dtype.kind == "i"


def draw_all(random, probs, n, asarray):
    return {
        "normal": random.normal((n,)),
        "uniform": random.uniform((n,)),
        "gamma": random.gamma(asarray(np.full(n, 2.5))),
        "poisson": random.poisson(asarray(np.full(n, 2.0))),
        "categorical": random.categorical(probs + asarray(np.zeros((n, 1)))),
        "multinomial": random.multinomial(
            asarray(np.full(n, 7)), probs + asarray(np.zeros((n, 1)))
        ),
    }
