"""SVI against closed forms, brute force, the other engine, and its own promises."""

import math
import threading

import numpy as np
import pytest
from scipy import stats

from ppl_gen import SVI, dist, infer, ops, param, plate, program, sample

ENGINES = ["numpyro", "pyro"]

MEAN = np.array([1.0, -2.0])
COV = np.array([[1.0, 1.6], [1.6, 4.0]])  # correlation 0.8
Y = np.array([0.3, 1.2, -0.4, 2.0, 0.9])
# Enough rows of two_groups that one of the modes at +-mu has all the mass.
MIXED = np.where(np.arange(40) % 10 < 3, 1.0, -1.0) + np.random.default_rng(0).normal(0, 0.7, 40)


@program
def correlated():
    """Hold no data: the posterior is a known normal, and the evidence is one."""
    sample("x", dist.MultivariateNormal(MEAN, scale_tril=np.linalg.cholesky(COV)))


@program
def normal(y, batch_size=None):
    """Conjugate: mu | y is Normal(sum / (n + 1), 1 / sqrt(n + 1))."""
    mu = sample("mu", dist.Normal(0.0, 1.0))
    with plate("row", len(y), subsample_size=batch_size) as i:
        sample("y", dist.Normal(mu, 1.0), obs=y if batch_size is None else y[i])


@program
def exact_guide(y, batch_size=None):
    n = len(y) + 1
    sample("mu", dist.Normal(ops.sum(y) / n, 1.0 / math.sqrt(n)))


@program
def learned_guide(y, batch_size=None):
    loc = param("loc", 0.0)
    scale = param("scale", 1.0, constraint=dist.constraints.positive)
    sample("mu", dist.Normal(loc, scale))


@program
def funnel():
    """Neal's funnel, which no normal fits."""
    v = sample("v", dist.Normal(0.0, 3.0))
    with plate("i", 9):
        sample("x", dist.Normal(0.0, ops.exp(v / 2)))


@program
def two_groups(y):
    """A mixture with its labels left discrete."""
    mu = sample("mu", dist.Normal(0.0, 2.0))
    with plate("row", len(y)):
        z = sample("z", dist.Bernoulli(0.3))
        sample("y", dist.Normal(mu * (2.0 * z - 1.0), 0.7), obs=y)


def log_joint_of_two_groups(mu, y):
    likelihood = 0.3 * stats.norm.pdf(y, mu, 0.7) + 0.7 * stats.norm.pdf(y, -mu, 0.7)
    return stats.norm.logpdf(mu, 0, 2) + np.log(likelihood).sum()


def log_evidence(y):
    n = len(y)
    return stats.multivariate_normal(np.zeros(n), np.eye(n) + 1.0).logpdf(y)


def fit(model, *args, engine="numpyro", seed=0, **settings):
    settings = {"steps": 1000, "learning_rate": 0.05, "tol": None} | settings
    return SVI(**settings).run(model, args, {}, engine=engine, seed=seed, progress=False)


@pytest.mark.parametrize("engine", ENGINES)
class TestClosedForms:
    """Where the answer is known, on either engine."""

    # Of 1000 draws the mean has a standard error of 0.03 sd and the variance of 4.5%; the guide's
    # own error at a constant step is of the same size. Four of both together are asked for.

    def test_mean_field_has_the_conditional_variance(self, engine):
        """KL(q || p) of a normal is least at the variances 1 / diag(precision)."""
        # Nothing so correlated is covered by independent normals, and the fit says so.
        with pytest.warns(UserWarning, match="Pareto k of the guide"):
            x = fit(correlated, engine=engine, tol=1.0, steps=2000).stacked("x")
        expected = 1.0 / np.diag(np.linalg.inv(COV))
        np.testing.assert_allclose(x.mean(0), MEAN, atol=0.2)
        np.testing.assert_allclose(x.var(0), expected, rtol=0.3)

    def test_full_rank_is_exact(self, engine):
        posterior = fit(correlated, engine=engine, guide="full_rank", steps=2000, tol=1.0)
        x = posterior.stacked("x")
        np.testing.assert_allclose(x.mean(0), MEAN, atol=0.25)
        np.testing.assert_allclose(np.cov(x.T), COV, rtol=0.3)
        assert posterior.info["pareto_k"] < 0.7
        # The evidence is 1, and the ELBO falls short by the KL divergence only: of two normals
        # whose moments differ by what is allowed above, about a tenth of a nat.
        assert np.median(posterior.info["history"][-200:]) == pytest.approx(0.0, abs=0.2)

    def test_laplace_is_exact_for_a_normal(self, engine):
        posterior = fit(correlated, engine=engine, guide="laplace", steps=100)
        x = posterior.stacked("x")
        np.testing.assert_allclose(x.mean(0), MEAN, atol=0.25)
        np.testing.assert_allclose(np.cov(x.T), COV, rtol=0.25)
        # Newton's method lands on the mode, so the weights p / q are equal but for rounding.
        assert posterior.info["pareto_k"] == -math.inf

    def test_map_is_the_mode(self, engine):
        posterior = fit(normal, Y, engine=engine, guide="map", steps=2000)
        assert posterior.draws["mu"].shape == (1, 1)
        # Adam on a quadratic without noise comes to rest at rounding.
        assert posterior.draws["mu"].item() == pytest.approx(Y.sum() / 6, abs=1e-6)
        assert math.isnan(posterior.info["pareto_k"])

    def test_elbo_of_the_exact_guide_is_the_evidence_without_variance(self, engine):
        posterior = fit(normal, Y, engine=engine, guide=exact_guide, steps=60)
        np.testing.assert_allclose(posterior.info["history"], log_evidence(Y), rtol=1e-12)
        assert posterior.info["pareto_k"] == -math.inf

    def test_guide_as_a_program(self, engine):
        posterior = fit(normal, Y, engine=engine, guide=learned_guide, tol=1.0, steps=2000)
        assert posterior.info["params"]["loc"] == pytest.approx(Y.sum() / 6, abs=0.1)
        assert posterior.info["params"]["scale"] == pytest.approx(1 / math.sqrt(6), rel=0.15)

    def test_minibatches_agree_with_all_rows(self, engine):
        y = np.random.default_rng(0).normal(1.0, 1.0, 100)
        posterior = fit(normal, y, engine=engine, batch_size=20, steps=2000, tol=1.0)
        mu = posterior.stacked("mu")
        sd = 1 / math.sqrt(101)
        # Noise of minibatches leaves the location within a fraction of the posterior's sd.
        assert mu.mean() == pytest.approx(y.sum() / 101, abs=0.5 * sd)
        assert mu.std() == pytest.approx(sd, rel=0.3)
        # Weighted by all rows: a noisy estimate would have a heavy tail of weights.
        assert posterior.info["pareto_k"] < 0.7

    def test_discrete_sites_are_summed_out(self, engine):
        """The ELBO at the mode of mu is its log joint, the labels summed over by brute force."""
        posterior = fit(two_groups, MIXED, engine=engine, guide="map", steps=1000)
        assert set(posterior.draws) == {"mu"}

        mu = posterior.draws["mu"].item()
        here, left, right = (log_joint_of_two_groups(mu + d, MIXED) for d in (0.0, -1e-3, 1e-3))
        assert posterior.info["history"][-1] == pytest.approx(here, rel=1e-9)
        assert here > max(left, right)


def test_weights_of_a_discrete_program_are_its_marginal():
    """A joint guide, which NumPyro's own TraceEnum_ELBO does not take."""
    posterior = fit(two_groups, MIXED, guide="laplace", steps=500)
    assert posterior.info["pareto_k"] < 0.7


@pytest.mark.parametrize("engine", ENGINES)
def test_minibatches_of_a_discrete_program(engine):
    """The scale of a minibatch goes outside the sum over labels, not into it."""

    @program
    def model(y, batch_size=None):
        mu = sample("mu", dist.Normal(0.0, 2.0))
        with plate("row", len(y), subsample_size=batch_size) as i:
            z = sample("z", dist.Bernoulli(0.3))
            sample("y", dist.Normal(mu * (2.0 * z - 1.0), 0.7), obs=y[i])

    # With equal rows every minibatch has the log joint of all rows, labels summed out.
    y = np.full(8, 1.1)
    posterior = fit(model, y, engine=engine, guide="map", batch_size=2, steps=1000)
    expected = log_joint_of_two_groups(posterior.draws["mu"].item(), y)
    assert posterior.info["history"][-1] == pytest.approx(expected, rel=1e-9)


def test_funnel_is_found_out():
    with pytest.warns(UserWarning, match=r"Pareto k of the guide is .* guide='full_rank'.*NUTS"):
        posterior = fit(funnel)
    assert posterior.info["pareto_k"] > 0.7


def test_engines_agree():
    """Both reach the same mode, and the same curvature there."""
    mu = {
        engine: fit(two_groups, MIXED, engine=engine, guide="laplace", steps=300).info["params"]
        for engine in ENGINES
    }
    ours = float(mu["numpyro"]["auto_loc"][0])
    theirs = mu["pyro"]["AutoLaplaceApproximation.loc"].item()
    # The sign of the mode is that of the start; Newton's method has taken each to rounding.
    assert abs(ours) == pytest.approx(abs(theirs), abs=1e-7)


def native_numpyro(y):
    import numpyro
    from numpyro.distributions import Normal

    mu = numpyro.sample("mu", Normal(0.0, 1.0))
    numpyro.deterministic("twice", 2 * mu)
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", Normal(mu, 1.0), obs=y)


def native_numpyro_guide(y):
    import numpyro
    from numpyro.distributions import Normal, constraints

    loc = numpyro.param("loc", 0.0)
    scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
    numpyro.sample("mu", Normal(loc, scale))


def native_pyro(y):
    import pyro
    import torch
    from pyro.distributions import Normal

    y = torch.as_tensor(y)
    zero, one = torch.zeros((), dtype=y.dtype), torch.ones((), dtype=y.dtype)
    mu = pyro.sample("mu", Normal(zero, one))
    pyro.deterministic("twice", 2 * mu)
    with pyro.plate("row", len(y)):
        pyro.sample("y", Normal(mu, one), obs=y)


def native_pyro_guide(y):
    import pyro
    import torch
    from pyro.distributions import Normal, constraints

    loc = pyro.param("loc", torch.zeros((), dtype=torch.float64))
    scale = pyro.param(
        "scale", torch.ones((), dtype=torch.float64), constraint=constraints.positive
    )
    pyro.sample("mu", Normal(loc, scale))


@pytest.mark.parametrize(
    ("engine", "model", "guide"),
    [
        ("numpyro", native_numpyro, native_numpyro_guide),
        ("pyro", native_pyro, native_pyro_guide),
        ("numpyro", normal, native_numpyro_guide),
    ],
)
def test_native_models_and_guides(engine, model, guide):
    if model is normal:
        guide = lambda y, batch_size=None: native_numpyro_guide(y)  # noqa: E731
    posterior = fit(model, Y, engine=engine, guide=guide, steps=600)
    mu = posterior.stacked("mu")
    assert mu.dtype == np.float64
    assert mu.shape == (1000,)
    assert mu.mean() == pytest.approx(Y.sum() / 6, abs=0.15)
    if model is not normal:
        np.testing.assert_allclose(posterior.stacked("twice"), 2 * mu)


@pytest.mark.parametrize("engine", ENGINES)
def test_local_latents_in_minibatches(engine):
    """A mean-field guide keeps a location for every row, and gives all of them at the end."""

    @program
    def model(y, batch_size=None):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        with plate("row", len(y), subsample_size=batch_size) as i:
            z = sample("z", dist.Normal(mu, 1.0))
            sample("y", dist.Normal(z, 0.5), obs=y if batch_size is None else y[i])

    y = np.linspace(-3.0, 3.0, 10)
    posterior = fit(model, y, engine=engine, batch_size=5, steps=1000, draws=24, learning_rate=0.03)
    z = posterior.stacked("z")
    assert z.shape == (24, 10)
    # E[z | y] = (4 y + E[mu]) / 5 and E[mu] = 0 by symmetry; their sd is about 0.45.
    # The mean of 24 draws has an error of 0.09 sd, and the last iterate at a constant step one of
    # a third; rows that were mixed up would be off by 0.53 and more.
    np.testing.assert_allclose(z.mean(0), 0.8 * y, atol=0.45)
    with pytest.raises(ValueError, match="guide='full_rank' takes all latents together"):
        fit(model, y, engine=engine, batch_size=5, guide="full_rank")


def test_through_infer_to_a_posterior():
    method = SVI("laplace", steps=200, draws=300)
    posterior = infer(normal, Y, method=method, progress=False)
    assert (posterior.method, posterior.engine, posterior.shape) == ("svi", "numpyro", (1, 300))
    assert posterior.verdict.ok
    assert posterior.idata.posterior["mu"].shape == (1, 300)
    assert posterior.log_likelihood()["y"].shape == (1, 300, 5)
    assert posterior.info["settings"]["guide"] == "laplace"
    # The settings object is as it was.
    assert method.get_params() == SVI("laplace", steps=200, draws=300).get_params()


def test_network_runs_on_pyro_and_is_trained():
    import pyro
    import torch

    network = torch.nn.Linear(1, 1)
    before = network.weight.detach().clone()

    def model(x, y):
        pyro.module("network", network)
        z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        with pyro.plate("row", len(x)):
            mean = network(x).squeeze(-1) + z
            pyro.sample("y", pyro.distributions.Normal(mean, 0.1), obs=y)

    x = torch.linspace(-1, 1, 20)[:, None]
    method = SVI(steps=150, learning_rate=0.05, tol=None, draws=20)
    posterior = infer(model, x, 2.0 * x[:, 0], method=method, progress=False)
    assert posterior.engine == "pyro"
    assert set(posterior.draws) == {"z"}
    assert not torch.equal(network.weight, before)
    assert posterior.info["history"][-1] > posterior.info["history"][0]


def test_constrained_sites_come_back_in_their_support():
    @program
    def model(y):
        scale = sample("scale", dist.Gamma(2.0, 1.0))
        weights = sample("weights", dist.Dirichlet(np.ones(3)))
        with plate("row", len(y)):
            sample("y", dist.Normal(ops.sum(weights * ops.asarray(np.arange(3.0))), scale), obs=y)

    for engine in ENGINES:
        posterior = fit(
            model, Y, engine=engine, guide="full_rank", particles=2, steps=300, draws=100
        )
        assert np.all(posterior.stacked("scale") > 0)
        np.testing.assert_allclose(posterior.stacked("weights").sum(-1), 1.0)
        assert posterior.info["pareto_k"] < 0.7


@pytest.mark.parametrize("engine", ENGINES)
def test_same_seed_same_answer_everywhere(engine):
    """Run in the main thread, in a thread, and in two threads at once."""
    results = {}

    def work(name, seed):
        posterior = fit(normal, Y, engine=engine, seed=seed, steps=60, draws=50)
        results[name] = (posterior.draws["mu"], posterior.info["history"])

    work("main", 3)
    threads = [threading.Thread(target=work, args=(i, s)) for i, s in enumerate([3, 4])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(results["main"], results[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(results["main"][0], results[1][0])


def test_state_of_pyro_and_torch_is_left_alone():
    import pyro
    import torch

    pyro.clear_param_store()
    pyro.param("loc", torch.tensor(123.0))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    posterior = fit(normal, Y, engine="pyro", guide=learned_guide, steps=30, draws=30)
    assert dict(pyro.get_param_store()) == {"loc": torch.tensor(123.0)}
    pyro.clear_param_store()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32
    # The fit did not begin at the user's parameter of the same name.
    assert abs(posterior.info["params"]["loc"]) < 2


@pytest.mark.parametrize("engine", ENGINES)
def test_state_is_restored_after_a_failure(engine):
    import pyro
    import torch

    pyro.clear_param_store()
    before = torch.get_rng_state()
    with pytest.raises(FloatingPointError):
        fit(runaway, engine=engine, guide=runaway_guide, optimizer="sgd", learning_rate=1.0)
    assert not dict(pyro.get_param_store())
    assert torch.equal(torch.get_rng_state(), before)


@program
def runaway():
    sample("x", dist.Normal(0.0, 1.0))


@program
def runaway_guide():
    """Each plain gradient step of 1.0 multiplies the location by -2 until it overflows."""
    loc = param("loc", 1e100)
    sample("x", dist.Delta(3.0**0.5 * loc))


@pytest.mark.parametrize("engine", ENGINES)
def test_step_where_the_elbo_breaks_is_named(engine):
    # -loc^2 3 / 2 overflows where |loc| > 1.1e154: from 1e100 after 54 / log10(2) = 180 doublings.
    with pytest.raises(
        FloatingPointError, match=r"the ELBO was -?(inf|nan) at step 18[0-2]; it was"
    ):
        fit(runaway, engine=engine, guide=runaway_guide, optimizer="sgd", learning_rate=1.0)


class Interruption:
    """An optimiser's stand-in for Ctrl-C: raises in the call of this number."""

    def __init__(self, monkeypatch, kind, at):
        self.calls, self.at, self.advance = 0, at, kind.advance
        monkeypatch.setattr(kind, "advance", lambda *args: self(*args))

    def __call__(self, *args):
        self.calls += 1
        if self.calls in self.at:
            raise KeyboardInterrupt
        return self.advance(*args)


class TestInterruption:
    def test_gives_the_fit_so_far(self, monkeypatch):
        from ppl_gen.inference.svi_pyro import PyroFit

        Interruption(monkeypatch, PyroFit, {4})
        with pytest.warns(UserWarning, match="interrupted after 60 of 1000 steps"):
            posterior = fit(normal, Y, engine="pyro", draws=100)
        assert posterior.info["interrupted"]
        assert len(posterior.info["history"]) == 60
        assert posterior.stacked("mu").shape == (100,)

    def test_before_the_first_block_raises(self, monkeypatch):
        from ppl_gen.inference.svi_pyro import PyroFit

        Interruption(monkeypatch, PyroFit, {1})
        with pytest.raises(KeyboardInterrupt):
            fit(normal, Y, engine="pyro")

    def test_second_one_raises(self, monkeypatch):
        from ppl_gen.inference.svi_pyro import PyroFit

        def again(*args, **kwargs):
            raise KeyboardInterrupt

        Interruption(monkeypatch, PyroFit, {4})
        monkeypatch.setattr(PyroFit, "draw", again)
        with pytest.raises(KeyboardInterrupt):
            fit(normal, Y, engine="pyro")


class TestConvergence:
    def test_stops_early_and_says_so(self):
        posterior = fit(normal, Y, tol=1.0, steps=5000)
        assert posterior.info["converged"]
        assert len(posterior.info["history"]) < 5000

    def test_too_few_steps_warn(self):
        with pytest.warns(UserWarning, match="not converged in 70 steps: they are too few to tell"):
            fit(normal, Y, engine="pyro", tol=1.0, steps=70, draws=20)

    def test_rising_elbo_warns(self):
        with pytest.warns(UserWarning, match=r"not converged in 600 steps: the ELBO still moved"):
            fit(normal, Y + 50.0, tol=1.0, steps=600, learning_rate=1e-3, draws=20)

    def test_falling_elbo_is_not_convergence(self):
        from ppl_gen.inference.svi_core import rise_of

        noise = np.random.default_rng(0).standard_normal(1000)
        assert not rise_of(noise - 0.01 * np.arange(1000), 500).settled(1.0)

    def test_steps_that_are_no_multiple_of_a_block(self):
        posterior = fit(normal, Y, steps=73, draws=30)
        assert posterior.info["history"].shape == (73,)
        assert np.all(np.isfinite(posterior.info["history"]))


@program
def counted(y):
    rate = sample("rate", dist.Gamma(1.0, 1.0))
    n = sample("n", dist.Poisson(rate))
    sample("y", dist.Normal(ops.asarray(n) * 1.0, 1.0), obs=y)


@program
def guide_of_nothing(y, batch_size=None):
    param("loc", 0.0)


@program
def guide_of_labels(y):
    sample("mu", dist.Normal(0.0, 1.0))
    with plate("row", len(y)):
        sample("z", dist.Bernoulli(0.5))


@program
def wholesale(y, batch_size=None):
    mu = sample("mu", dist.Normal(0.0, 1.0))
    with plate("row", len(y)):
        sample("y", dist.Normal(mu, 1.0), obs=y)


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"guide": "meanfield"}, "unknown guide 'meanfield'; expected one of mean_field"),
            ({"optimizer": "newton"}, "unknown optimizer 'newton'; expected one of adam"),
            ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
            ({"particles": 1.5}, "particles must be a whole number"),
            ({"learning_rate": -1.0}, "learning_rate must be positive"),
            ({"tol": 0.0}, "tol must be positive"),
            ({"batch_size": 0}, "batch_size must be a whole number"),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            fit(normal, Y, **settings)

    def test_batch_size_without_the_argument(self):
        with pytest.raises(
            ValueError, match=r"needs a program that takes minibatches.*arguments y"
        ):
            fit(two_groups, Y, batch_size=2)

    def test_batch_size_without_a_subsampled_plate(self):
        with pytest.raises(ValueError, match="batch_size=2 had no effect"):
            fit(wholesale, Y, batch_size=2)

    def test_batch_size_given_twice(self):
        with pytest.raises(ValueError, match="give it to SVI alone"):
            fit(normal, Y, 3, batch_size=2)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_infinitely_many_values(self, engine):
        with pytest.raises(ValueError, match="latent n takes infinitely many values"):
            fit(counted, 1.0, engine=engine)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_guide_that_misses_a_site(self, engine):
        with pytest.raises(ValueError, match="the guide does not sample mu"):
            fit(normal, Y, engine=engine, guide=guide_of_nothing)

    def test_guide_for_the_other_engine(self):
        with pytest.raises(ValueError, match="guide is written for pyro, but the program runs on"):
            fit(normal, Y, guide=native_pyro_guide)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_guide_that_samples_labels(self, engine):
        with pytest.raises(ValueError, match="the guide samples the discrete z"):
            fit(two_groups, Y, engine=engine, guide=guide_of_labels)

    def test_laplace_where_there_is_no_mode(self):
        from ppl_gen.inference.svi_core import newton_mode

        def between_modes(x):
            return -float(x[0] ** 2), -2 * x, np.array([[-2.0]])

        with pytest.raises(ValueError, match="no mode: the curvature is not positive definite"):
            newton_mode(between_modes, np.zeros(1))

    @pytest.mark.parametrize("engine", ENGINES)
    def test_nan_in_the_data(self, engine):
        bad = Y.copy()
        bad[2] = np.nan
        with pytest.raises((ValueError, FloatingPointError), match=r"(?i)nan|support|finite"):
            fit(normal, bad, engine=engine)
