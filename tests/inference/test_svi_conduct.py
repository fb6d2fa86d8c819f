"""How SVI behaves: seeds and threads, states left alone, Ctrl-C, convergence, refusals."""

import threading

import numpy as np
import pytest

from ppl_gen import SVI, dist, load, ops, param, plate, program, sample

ENGINES = ["numpyro", "pyro"]

Y = np.array([0.3, 1.2, -0.4, 2.0, 0.9])


@program
def normal(y, batch_size=None):
    """Conjugate: mu | y is Normal(sum / (n + 1), 1 / sqrt(n + 1))."""
    mu = sample("mu", dist.Normal(0.0, 1.0))
    with plate("row", len(y), subsample_size=batch_size) as i:
        sample("y", dist.Normal(mu, 1.0), obs=y if batch_size is None else y[i])


@program
def learned_guide(y, batch_size=None):
    loc = param("loc", 0.0)
    scale = param("scale", 1.0, constraint=dist.constraints.positive)
    sample("mu", dist.Normal(loc, scale))


@program
def two_groups(y):
    """A mixture with its labels left discrete."""
    mu = sample("mu", dist.Normal(0.0, 2.0))
    with plate("row", len(y)):
        z = sample("z", dist.Bernoulli(0.3))
        sample("y", dist.Normal(mu * (2.0 * z - 1.0), 0.7), obs=y)


def native_pyro_guide(y):
    import pyro
    import torch
    from pyro.distributions import Normal, constraints

    loc = pyro.param("loc", torch.zeros((), dtype=torch.float64))
    scale = pyro.param(
        "scale", torch.ones((), dtype=torch.float64), constraint=constraints.positive
    )
    pyro.sample("mu", Normal(loc, scale))


def fit(model, *args, engine="numpyro", seed=0, **settings):
    settings = {"steps": 1000, "learning_rate": 0.05, "tol": None} | settings
    return SVI(**settings).run(model, args, {}, engine=engine, seed=seed, progress=False)


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
        assert "the optimisation was interrupted" in posterior.verdict.text
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

    def test_without_a_tolerance_it_is_not_judged(self, tmp_path):
        posterior = fit(normal, Y, engine="pyro", guide=native_pyro_guide, steps=200)
        assert len(posterior.info["history"]) == 200
        posterior.save(tmp_path / "posterior")
        for found in (posterior, load(tmp_path / "posterior")):
            assert found.info["converged"] is None
            assert "convergence was not judged" in found.verdict.text
            assert "did not converge" not in found.verdict.text

    def test_too_few_steps_warn(self):
        with pytest.warns(UserWarning, match="not converged in 70 steps: they are too few to tell"):
            fit(normal, Y, engine="pyro", tol=1.0, steps=70, draws=20)

    def test_rising_elbo_warns(self):
        with (
            pytest.warns(UserWarning, match=r"not converged in 600 steps: the ELBO still moved"),
            pytest.warns(UserWarning, match="Pareto k of the guide"),  # it is not there yet
        ):
            fit(normal, Y + 50.0, tol=1.0, steps=600, learning_rate=1e-3, draws=20)

    def test_falling_elbo_is_not_convergence(self):
        from ppl_gen.inference.svi_core import rise_of

        noise = np.random.default_rng(0).standard_normal(1000)
        assert not rise_of(noise - 0.01 * np.arange(1000), 500).settled(1.0)

    def test_steps_that_are_no_multiple_of_a_block(self):
        posterior = fit(normal, Y, steps=73, draws=30)
        assert posterior.info["history"].shape == (73,)
        assert np.all(np.isfinite(posterior.info["history"]))


@pytest.mark.parametrize("engine", ENGINES)
def test_pareto_k_does_not_hang_on_the_draws_asked_for(engine):
    settings = {"engine": engine, "guide": learned_guide, "steps": 150}
    few, many = (fit(normal, Y, draws=draws, **settings) for draws in (10, 150))
    assert few.stacked("mu").shape == (10,)
    np.testing.assert_array_equal(few.stacked("mu"), many.stacked("mu")[:10])
    # The same 150 weights, compiled otherwise.
    np.testing.assert_allclose(few.info["pareto_k"], many.info["pareto_k"], rtol=1e-6)


def test_too_few_weights_for_a_pareto_k_are_no_fault():
    posterior = fit(normal, Y, engine="pyro", guide=learned_guide, steps=20, draws=20)
    assert np.isnan(posterior.info["pareto_k"])
    assert posterior.verdict.ok
    assert "how close it is to the posterior was not measured" in posterior.verdict.text


@program
def no_number_far_out(y, batch_size=None):
    mu = sample("mu", dist.Normal(0.0, 1.0))
    # At one draw of the guide in a thousand: unlikely in the few steps, likely in many draws.
    sample("y", dist.Normal(0.0 * ops.sqrt(3.1 - mu), 1.0), obs=y)


def test_densities_that_are_no_numbers_cost_no_fit():
    with (
        pytest.warns(UserWarning, match="no number at .* of 4000 draws"),
        pytest.warns(UserWarning, match="Pareto k of the guide is inf"),
    ):
        posterior = fit(no_number_far_out, 0.0, guide=learned_guide, steps=10, draws=4000)
    assert posterior.info["pareto_k"] == np.inf
    assert posterior.stacked("mu").shape == (4000,)
    assert not posterior.verdict.ok


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
