"""Discrete sites: enumeration by the engines, and our exact posteriors, against brute force."""

import itertools

import numpy as np
import pytest
from scipy import special, stats
from zoo import mixture, naive_bayes

from ppl_gen import dist, engines, plate, program, sample
from ppl_gen.engines.discrete import discrete_log_joint

ENGINES = ["pyro", "numpyro"]
X = np.array([-1.3, 0.4, 2.2, 0.1])


@program
def labelled(x=None, n=4, z=None):
    """Three classes, a label a row."""
    weights = sample("weights", dist.Dirichlet(np.ones(3)))
    loc = sample("loc", dist.Normal(np.zeros(3), 2.0).to_event(1))
    with plate("row", n):
        label = sample("z", dist.Categorical(weights), obs=z)
        sample("x", dist.Normal(loc[label], 0.7), obs=x)


@program
def two_levels(x, k=None):
    """A label a group, a label a row of the group, and one for the whole."""
    with plate("group", x.shape[1]):
        a = sample("a", dist.Categorical([0.3, 0.7]), obs=k)
        with plate("row", x.shape[0]):
            b = sample("b", dist.Bernoulli(0.2 + 0.5 * a))
            sample("x", dist.Normal(a + 2.0 * b, 0.5), obs=x)


@program
def shared(x):
    z = sample("z", dist.Categorical([0.3, 0.7]))
    with plate("row", len(x)):
        sample("x", dist.Normal(1.0 * z, 1.0), obs=x)


@program
def pair(x):
    with plate("row", len(x)):
        a = sample("a", dist.Bernoulli(0.3))
        b = sample("b", dist.Categorical([0.1, 0.2, 0.7]))
        sample("x", dist.Normal(a - 1.0 * b, 0.5), obs=x)


DRAWS = {
    "weights": np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]),
    "loc": np.array([[-1.0, 0.0, 2.0], [0.3, -2.0, 1.0]]),
}


def brute():
    """log p(z = k, x) of `labelled`, (S, n, K)."""
    each = stats.norm.logpdf(X[None, :, None], DRAWS["loc"][:, None, :], 0.7)
    return np.log(DRAWS["weights"])[:, None, :] + each


@pytest.mark.parametrize("name", ENGINES)
def test_labels_of_rows(name):
    engine = engines.get(name)
    model = labelled.native(name)
    trace = engine.trace(model, (X,))
    assert engine.has_discrete_latents(trace)
    assert trace["z"].support == 3
    np.testing.assert_array_equal(trace["z"].support_values, [0, 1, 2])
    joint = discrete_log_joint(engine, model, (X,), {}, DRAWS, "z")
    np.testing.assert_allclose(joint, brute(), rtol=1e-10)
    found = engine.discrete_posterior(model, (X,), {}, DRAWS, "z")
    np.testing.assert_allclose(found, special.softmax(brute(), axis=-1), rtol=1e-10)


@pytest.mark.parametrize("name", ENGINES)
def test_an_observed_label_is_scored_at_every_value(name):
    engine = engines.get(name)
    z = np.array([2, 2, 0, 1])
    found = engine.discrete_posterior(labelled.native(name), (X,), {"z": z}, DRAWS, "z")
    np.testing.assert_allclose(found, special.softmax(brute(), axis=-1), rtol=1e-10)
    assert not engine.has_discrete_latents(engine.trace(labelled.native(name), (X,), {"z": z}))


@pytest.mark.parametrize("name", ENGINES)
def test_the_pointwise_log_likelihood_sums_labels_out(name):
    engine = engines.get(name)
    found = engine.pointwise_log_prob(labelled.native(name), (X,), {}, DRAWS)
    assert list(found) == ["x"]
    np.testing.assert_allclose(found["x"], special.logsumexp(brute(), axis=-1), rtol=1e-10)


@pytest.mark.parametrize("name", ENGINES)
def test_the_latent_of_a_mixture(name):
    engine = engines.get(name)
    rng = np.random.default_rng(0)
    x, scale = rng.normal(size=6), np.array([[0.5, 1.0, 2.0]])
    draws = {"weights": DRAWS["weights"][:1], "loc": DRAWS["loc"][:1], "scale": scale}
    found = discrete_log_joint(engine, mixture.native(name), (x,), {}, draws, "z")
    expected = np.log(draws["weights"]) + stats.norm.logpdf(x[:, None], draws["loc"], scale)
    np.testing.assert_allclose(found, expected[None], rtol=1e-10)


@pytest.mark.parametrize("name", ENGINES)
def test_naive_bayes_with_labels(name):
    rng = np.random.default_rng(0)
    engine = engines.get(name)
    x, y = rng.normal(size=(6, 3)), rng.integers(2, size=6)
    draws = {"weights": np.array([[0.3, 0.7]]), "loc": rng.normal(size=(1, 2, 3))}
    found = engine.discrete_posterior(naive_bayes.native(name), (x, y), {}, draws, "y")
    each = stats.norm.logpdf(x[:, None, :], draws["loc"][0], 0.1).sum(-1)
    np.testing.assert_allclose(
        found[0], special.softmax(np.log(draws["weights"]) + each, axis=-1), rtol=1e-9
    )


@pytest.mark.parametrize("name", ENGINES)
def test_deeper_labels_are_summed_out(name):
    engine = engines.get(name)
    x = np.random.default_rng(1).normal(1.0, 1.0, size=(3, 2))  # (rows, groups)
    model = two_levels.native(name)
    prior_b = np.array([[0.8, 0.2], [0.3, 0.7]])  # a, b
    centre = np.array([[0.0, 2.0], [1.0, 3.0]])
    row = np.log(prior_b) + stats.norm.logpdf(x[..., None, None], centre, 0.5)  # row, group, a, b
    expected = np.log([0.3, 0.7]) + special.logsumexp(row, axis=-1).sum(0)
    # A trace without draws has one row of nothing: one draw of a site that is not there.
    joint = discrete_log_joint(engine, model, (x,), {}, {}, "a")
    np.testing.assert_allclose(joint[0], expected, rtol=1e-9)
    with pytest.raises(ValueError, match="b is not local to its plates, because of a"):
        engine.discrete_posterior(model, (x,), {}, {}, "b")
    a = np.array([[0, 1]])
    found = engine.discrete_posterior(model, (x,), {}, {"a": a}, "b")[0]
    given = np.stack([row[:, g, a[0, g]] for g in range(2)], axis=1)
    np.testing.assert_allclose(found, special.softmax(given, axis=-1), rtol=1e-9)


@pytest.mark.parametrize("name", ENGINES)
def test_labels_of_one_plate_are_summed_out_of_each_other(name):
    engine = engines.get(name)
    joint = np.log([0.7, 0.3])[:, None] + np.log([0.1, 0.2, 0.7])
    joint = joint + stats.norm.logpdf(X[:, None, None], np.arange(2)[:, None] - np.arange(3.0), 0.5)
    model = pair.native(name)
    found = engine.discrete_posterior(model, (X,), {}, {}, "b")[0]
    np.testing.assert_allclose(found, special.softmax(special.logsumexp(joint, axis=1), -1))
    found = engine.discrete_posterior(model, (X,), {}, {}, "a")[0]
    np.testing.assert_allclose(found, special.softmax(special.logsumexp(joint, axis=2), -1))


@pytest.mark.parametrize("name", ENGINES)
def test_a_label_for_the_whole(name):
    engine = engines.get(name)
    found = engine.discrete_posterior(shared.native(name), (X,), {}, {}, "z")[0]
    each = stats.norm.logpdf(X[:, None], np.arange(2.0), 1.0).sum(0)
    np.testing.assert_allclose(found, special.softmax(np.log([0.3, 0.7]) + each), rtol=1e-10)
    with pytest.raises(ValueError, match="the elements of x share the discrete z"):
        engine.pointwise_log_prob(shared.native(name), (X,), {}, {})


@pytest.mark.parametrize("name", ENGINES)
def test_what_cannot_be_enumerated_is_refused(name):
    engine = engines.get(name)
    with pytest.raises(ValueError, match=r"'weights' is no finite discrete site.*one of z"):
        engine.discrete_posterior(labelled.native(name), (X,), {}, DRAWS, "weights")

    @program
    def chain():
        z = sample("z0", dist.Bernoulli(0.3))
        for step in range(1, 13):
            z = sample(f"z{step}", dist.Bernoulli(0.1 + 0.8 * z))

    with pytest.raises(ValueError, match="8192 joint values"):
        engine.discrete_posterior(chain.native(name), (), {}, {}, "z0")

    @program
    def counts(x):
        with plate("row", len(x)):
            z = sample("z", dist.Bernoulli(0.3))
            n = sample("n", dist.Poisson(3.0))
            sample("x", dist.Normal(z + n, 1.0), obs=x)

    with pytest.raises(ValueError, match="n has no finite support"):
        engine.discrete_posterior(counts.native(name), (X,), {}, {}, "z")


def summed_out():
    """The log evidence of `labelled` at the first draw, by going through every label."""
    rows = brute()[0]
    total = [
        sum(rows[i, k] for i, k in enumerate(labels))
        for labels in itertools.product(range(3), repeat=len(X))
    ]
    prior = stats.dirichlet.logpdf(DRAWS["weights"][0], np.ones(3))
    return special.logsumexp(total) + prior + stats.norm.logpdf(DRAWS["loc"][0], 0, 2).sum()


def test_pyro_enumerates_a_users_labels():
    import pyro
    from pyro.infer import TraceEnum_ELBO

    engine = engines.get("pyro")

    def guide(*args, **kwargs):
        for name, event in (("weights", 1), ("loc", 1)):
            value = engine.asarray(DRAWS[name][0])
            pyro.sample(name, pyro.distributions.Delta(value, event_dim=event))

    model = engine.enumerated(labelled.pyro)
    elbo = -TraceEnum_ELBO(max_plate_nesting=1).loss(model, guide, X)
    assert elbo == pytest.approx(summed_out(), rel=1e-10)


def test_numpyro_enumerates_a_users_labels():
    import jax
    from numpyro.contrib.funsor import enum
    from numpyro.contrib.funsor.infer_util import log_density

    engine = engines.get("numpyro")
    with engine.precision():
        first = engine.to_native({name: value[0] for name, value in DRAWS.items()})
        model = engine.enumerated(labelled.numpyro)
        with enum(first_available_dim=-2):
            found, _ = log_density(model, (jax.numpy.asarray(X),), {}, first)
        assert float(found) == pytest.approx(summed_out(), rel=1e-10)


def test_numpyro_nuts_takes_an_enumerated_program():
    import jax
    from numpyro.infer import MCMC, NUTS, Predictive

    engine = engines.get("numpyro")
    with engine.precision():
        model = engine.enumerated(labelled.numpyro)
        mcmc = MCMC(NUTS(model), num_warmup=20, num_samples=20, progress_bar=False)
        mcmc.run(jax.random.key(0), X)
        draws = mcmc.get_samples()
        assert set(draws) == {"weights", "loc"}
        labels = Predictive(model, draws, infer_discrete=True)(jax.random.key(1), X)["z"]
    assert labels.shape == (20, 4)
