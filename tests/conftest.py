"""Settings that hold for every test, made before any heavy library is imported."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Two threads that share a box with other work can be far slower than one. The variable is read by
# OpenMP when torch is first imported, here and in the subprocesses that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Many tests compile the same small kernels; JAX keeps them from one process, and one run, to the
# next.
_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# Another seed shows which tests pass by luck alone.
SEED = int(os.environ.get("PPL_GEN_TEST_SEED", "0"))

# A run that a shell put in the background ignores Ctrl-C, which tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the first example of a test may pay for an import or a compile.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def _seed_global_generators():
    """Start what draws from a global generator at one place, whatever ran before it.

    The library draws from generators of its own. Networks that a test or a page of the
    documentation makes by itself start where torch's stands, which would depend on the tests that
    the same process ran earlier.
    """
    import pyro

    pyro.set_rng_seed(SEED)  # torch's, NumPy's and Python's


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    _seed_global_generators()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    _seed_global_generators()


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where the engines find none, and say so."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    from ppl_gen.engines.devices import resolve_device

    if resolve_device("auto") == "cpu":
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device that JAX finds"))


@pytest.fixture(scope="session")
def eight_schools_posterior():
    """A run that several test modules look at: compiled once."""
    import numpy as np

    from ppl_gen import NUTS, deterministic, dist, infer, plate, program, sample

    @program
    def eight_schools(sigma, y=None):
        mu = sample("mu", dist.Normal(0.0, 5.0))
        tau = sample("tau", dist.HalfCauchy(5.0))
        with plate("school", len(sigma)):
            z = sample("z", dist.Normal(0.0, 1.0))
            theta = deterministic("theta", mu + tau * z)
            sample("y", dist.Normal(theta, sigma), obs=y)

    return infer(
        eight_schools,
        np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
        y=np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
        method=NUTS(chains=4, warmup=500, draws=500, target_accept=0.95),
        seed=1,
        coords={"school": list("ABCDEFGH")},
        progress=False,
    )


@pytest.fixture(scope="session")
def two_normals_posterior():
    """Two exchangeable components, far apart; chains find either order."""
    import numpy as np

    from ppl_gen import NUTS, dist, infer, plate, program, sample

    @program
    def two_normals(y=None):
        with plate("component", 2):
            mu = sample("mu", dist.Normal(0.0, 10.0))
            sigma = sample("sigma", dist.HalfNormal(2.0))
        weights = sample("weights", dist.Dirichlet(np.ones(2)), dims="component")
        with plate("row", 60):
            sample("y", dist.Mixture(weights, dist.Normal(mu, sigma), latent="z"), obs=y)

    rng = np.random.default_rng(0)
    return infer(
        two_normals,
        y=np.concatenate([rng.normal(-4, 1, 20), rng.normal(4, 1, 40)]),
        method=NUTS(chains=4, warmup=300, draws=300, init="prior"),
        seed=3,
        exchangeable="component",
        progress=False,
    )
