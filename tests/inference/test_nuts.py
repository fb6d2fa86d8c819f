import threading

import numpy as np
import pytest

import ppl_gen
from ppl_gen import NUTS, deterministic, dist, infer, ops, plate, program, sample
from ppl_gen.inference import nuts_numpyro

Y = np.array([2.1, 1.4, 3.3, 2.8, 0.9, 2.2])
QUICK = NUTS(chains=4, warmup=500, draws=1000)


@program
def normal_mean(y=None, n=6):
    mu = sample("mu", dist.Normal(0.0, 2.0))
    with plate("row", n):
        sample("y", dist.Normal(mu, 1.0), obs=y)


@pytest.fixture(scope="module")
def conjugate():
    return infer(normal_mean, y=Y, method=QUICK, seed=0, progress=False)


def assert_moments(draws, mean, sd):
    """Within four Monte Carlo standard errors, found from the effective size."""
    from ppl_gen.algorithms.convergence import bulk_ess

    error = sd / np.sqrt(bulk_ess(draws))
    assert abs(draws.mean() - mean) < 4 * error
    # The standard error of a normal's standard deviation is about sd / sqrt(2 n).
    assert abs(draws.std() - sd) < 4 * error


def test_conjugate_normal_is_known(conjugate):
    precision = 1 / 2.0**2 + len(Y)
    assert_moments(conjugate.draws["mu"], Y.sum() / precision, precision**-0.5)
    assert conjugate.verdict.ok


def test_float64_numpy_and_arvizs_names(conjugate):
    assert type(conjugate.draws["mu"]) is np.ndarray
    assert conjugate.draws["mu"].dtype == np.float64
    stats = conjugate.sample_stats
    assert stats["diverging"].dtype == bool
    assert stats["lp"].shape == stats["energy"].shape == (4, 1000)
    assert (stats["tree_depth"] == np.floor(np.log2(stats["n_steps"])) + 1).all()
    # The kinetic energy of one dimension is half a chi-square: its mean is a half.
    assert np.mean(stats["energy"] + stats["lp"]) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("chain_method", ["sequential", "vectorized"])
def test_ways_of_running_chains_agree(conjugate, chain_method):
    method = NUTS(chains=4, warmup=500, draws=1000, chain_method=chain_method)
    other = infer(normal_mean, y=Y, method=method, seed=0, progress=False)
    if chain_method == "sequential":
        np.testing.assert_array_equal(other.draws["mu"], conjugate.draws["mu"])
    else:  # another program, whose rounding differs: the same to begin with
        np.testing.assert_allclose(other.draws["mu"].mean(), conjugate.draws["mu"].mean(), atol=0.1)
        assert other.verdict.ok


def test_same_seed_same_draws_in_a_thread(conjugate):
    found = []

    def work():
        found.append(infer(normal_mean, y=Y, method=QUICK, seed=0, progress=False))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0].draws["mu"], conjugate.draws["mu"])
    assert found[0].predictive(3)["y"].dtype == np.float64


def test_blocks_thinning_and_large_data_do_not_change_the_draws(conjugate, monkeypatch):
    monkeypatch.setattr(nuts_numpyro, "BLOCK_STEPS", 37)
    # Every array is an argument of the compiled function, none a constant.
    monkeypatch.setattr(nuts_numpyro, "CONSTANT_ELEMENTS", 1)
    method = NUTS(chains=4, warmup=500, draws=500, thinning=2)
    other = infer(normal_mean, y=Y, method=method, seed=0, progress=False)
    np.testing.assert_allclose(other.draws["mu"], conjugate.draws["mu"][:, 1::2], rtol=1e-6)


def test_constrained_and_deterministic_sites():
    @program
    def model(y=None):
        sigma = sample("sigma", dist.HalfNormal(1.0))
        weights = sample("weights", dist.Dirichlet(np.ones(3)), dims="part")
        deterministic("log_sigma", ops.log(sigma))
        sample("y", dist.Normal(weights[0], sigma), obs=y)

    found = infer(model, y=np.float64(0.5), method=NUTS(2, 200, 200, dense_mass=True),
                  progress=False)  # fmt: skip
    np.testing.assert_allclose(found.draws["weights"].sum(-1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(found.draws["log_sigma"], np.log(found.draws["sigma"]), rtol=1e-12)
    assert found.idata.posterior["weights"].dims == ("chain", "draw", "part")


def test_improper_priors():
    @program
    def flat(y=None):
        mu = sample("mu", dist.Flat())
        with plate("row", 6):
            sample("y", dist.Normal(mu, 1.0), obs=y)

    found = infer(flat, y=Y, method=QUICK, progress=False)
    assert_moments(found.draws["mu"], Y.mean(), 6**-0.5)


def test_finite_discrete_latents_are_summed_out():
    @program
    def coin_of_two(y=None):
        p = sample("p", dist.Beta(2.0, 1.0))
        z = sample("z", dist.Bernoulli(p))
        sample("y", dist.Normal(4.0 * z, 1.0), obs=y)

    found = infer(coin_of_two, y=np.float64(3.0), method=QUICK, progress=False)
    assert set(found.draws) == {"p"}
    grid = np.linspace(0, 1, 200_001)[1:-1]
    density = grid * (grid * np.exp(-0.5) + (1 - grid) * np.exp(-4.5))
    density /= density.sum()
    mean = (grid * density).sum()
    assert_moments(found.draws["p"], mean, np.sqrt(((grid - mean) ** 2 * density).sum()))
    with pytest.raises(ValueError, match="z was summed out"):
        found.log_likelihood()


def test_native_numpyro_model():
    import numpyro
    import numpyro.distributions as nd

    def model(y=None):
        mu = numpyro.sample("mu", nd.Normal(0.0, 2.0))
        with numpyro.plate("row", 6):
            numpyro.sample("y", nd.Normal(mu, 1.0), obs=y)

    found = infer(model, y=Y, method=QUICK, seed=0, progress=False)
    precision = 1 / 4 + 6
    assert_moments(found.draws["mu"], Y.sum() / precision, precision**-0.5)
    assert found.predictive(5)["y"].shape == (5, 6)


@pytest.mark.slow
def test_native_pyro_model(capsys):
    import pyro
    import pyro.distributions as pd
    import torch

    before = torch.random.get_rng_state()

    def model(y=None):
        mu = pyro.sample("mu", pd.Normal(torch.tensor(0.0).double(), 2.0))
        pyro.deterministic("twice", 2 * mu)
        with pyro.plate("row", 6):
            pyro.sample("y", pd.Normal(mu, 1.0), obs=None if y is None else torch.as_tensor(y))

    method = NUTS(chains=4, warmup=100, draws=150)
    found = infer(model, y=Y, method=method, seed=0, progress=False)
    precision = 1 / 4 + 6
    assert_moments(found.draws["mu"], Y.sum() / precision, precision**-0.5)
    np.testing.assert_allclose(found.draws["twice"], 2 * found.draws["mu"])
    assert found.engine == "pyro"
    assert found.sample_stats["n_steps"].min() >= 1
    assert torch.equal(torch.random.get_rng_state(), before)
    again = infer(model, y=Y, method=method, seed=0, progress=False)
    np.testing.assert_array_equal(again.draws["mu"], found.draws["mu"])


class TestInterrupt:
    """Ctrl-C arrives as KeyboardInterrupt in the thread that waits for a block."""

    @staticmethod
    def interrupt(monkeypatch, after):
        calls = []
        original = NUTS._run

        def run(self, *args, **kwargs):
            import tqdm

            update = tqdm.auto.tqdm.update

            def stop(bar, n=1):
                calls.append(n)
                if len(calls) == after:
                    raise KeyboardInterrupt
                return update(bar, n)

            with monkeypatch.context() as patch:
                patch.setattr("ppl_gen.inference.nuts.tqdm.update", stop)
                patch.setattr(nuts_numpyro, "BLOCK_STEPS", 50)
                return original(self, *args, **kwargs)

        monkeypatch.setattr(NUTS, "_run", run)

    def test_gives_what_there_is_and_it_saves(self, monkeypatch, tmp_path):
        self.interrupt(monkeypatch, after=9)
        method = NUTS(chains=2, warmup=100, draws=1000)
        with pytest.warns(RuntimeWarning, match="interrupted; the posterior has 2 chains of"):
            found = infer(normal_mean, y=Y, method=method, progress=False)
        assert 10 <= found.shape[1] < 1000
        assert found.info["interrupted"]
        assert "was interrupted" in found.verdict.text
        found.save(tmp_path / "partial")
        back = ppl_gen.load(tmp_path / "partial", program=normal_mean)
        np.testing.assert_array_equal(back.draws["mu"], found.draws["mu"])

    def test_in_warm_up_there_is_nothing_to_give(self, monkeypatch):
        self.interrupt(monkeypatch, after=1)
        with pytest.raises(KeyboardInterrupt):
            infer(normal_mean, y=Y, method=NUTS(2, 100, 100), progress=False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"chains": 0}, "chains=0; expected an integer of 1 or more"),
        ({"draws": 2.5}, "draws=2.5; expected an integer"),
        ({"target_accept": 1.0}, "expected a number between 0 and 1"),
        ({"init": "zero"}, "init='zero'; expected one of uniform, median, mean, prior"),
        ({"chain_method": "gpu"}, "chain_method='gpu'; expected one of auto"),
    ],
)
def test_settings_are_checked_first(settings, said):
    with pytest.raises(ValueError, match=said):
        infer(normal_mean, y=Y, method=NUTS(**settings), progress=False)


def test_no_finite_start_names_the_site():
    with pytest.raises(ValueError, match=r"the density of y \(observed\) is not finite"):
        infer(normal_mean, y=np.array([1, np.nan, 2, 3, 4, 5.0]), method=QUICK, progress=False)


def test_nothing_continuous_to_draw():
    @program
    def discrete(y=None):
        z = sample("z", dist.Bernoulli(0.5))
        sample("y", dist.Normal(1.0 * z, 1.0), obs=y)

    with pytest.raises(ValueError, match="no continuous latent site"):
        infer(discrete, y=np.float64(1.0), progress=False)


def test_endless_discrete_latent():
    @program
    def counts(y=None):
        rate = sample("rate", dist.Gamma(1.0, 1.0))
        k = sample("k", dist.Poisson(rate))
        sample("y", dist.Normal(1.0 * k, 1.0), obs=y)

    with pytest.raises(ValueError, match="k has no finite support"):
        infer(counts, y=np.float64(1.0), progress=False)
