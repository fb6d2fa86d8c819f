"""The No-U-Turn sampler."""

import importlib
import os
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ppl_gen import engines
from ppl_gen.engines import Engine, Site
from ppl_gen.inference.base import ONE_AT_A_TIME, InferenceMethod, outline_quietly
from ppl_gen.inference.nuts_core import INITS, Run, Settings, depth_stats
from ppl_gen.posterior import Posterior

__all__ = ["NUTS"]

CHAIN_METHODS = ("auto", "parallel", "vectorized", "sequential")


class NUTS(InferenceMethod):
    """Hamiltonian Monte Carlo with the No-U-Turn sampler and windowed adaptation.

    The sampler is that of [1]_, with the trajectories of [2]_. Continuous latents are drawn;
    finite discrete ones are summed out. Improper priors work where the posterior is proper.

    Parameters
    ----------
    chains : int, default 4
        Chains, from different starts. R-hat needs two or more.
    warmup : int, default 1000
        Steps of each chain that adapt step size and mass matrix, and are dropped.
    draws : int, default 1000
        Draws kept of each chain.
    target_accept : float, default 0.8
        Mean acceptance that the step size is adapted to; higher is slower and diverges less.
    dense_mass : bool, default False
        Whether the mass matrix is full: for few and strongly correlated parameters.
    max_tree_depth : int, default 10
        A trajectory has at most 2^max_tree_depth - 1 leapfrog steps.
    init : {"uniform", "median", "mean", "prior"}, default "uniform"
        Where chains start: uniform on (-2, 2) in unconstrained space, median or mean of the
        prior, or a draw from it.
    thinning : int, default 1
        One of so many draws is kept, and so many times more are made.
    chain_method : {"auto", "parallel", "vectorized", "sequential"}, default "auto"
        ``"parallel"``: one thread a chain. ``"vectorized"``: all chains in one array program.
        ``"auto"``: vectorized on a GPU, and for more than eight chains a core; else parallel.
        Pyro runs chains in sequence, always.

    References
    ----------
    .. [1] Hoffman, M. D. and Gelman, A. (2014). The No-U-Turn sampler. Journal of Machine Learning
       Research 15, algorithm 6.
    .. [2] Betancourt, M. (2017). A conceptual introduction to Hamiltonian Monte Carlo, appendix A.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import NUTS, dist, infer, program, sample
    >>> @program
    ... def normal_mean(y=None):
    ...     mu = sample("mu", dist.Normal(0.0, 10.0))
    ...     sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> method = NUTS(chains=2, warmup=300, draws=300)
    >>> posterior = infer(normal_mean, y=np.float64(3.0), method=method, progress=False)
    >>> posterior.draws["mu"].shape
    (2, 300)
    """

    name = "nuts"

    def __init__(
        self,
        chains: int = 4,
        warmup: int = 1000,
        draws: int = 1000,
        target_accept: float = 0.8,
        dense_mass: bool = False,
        max_tree_depth: int = 10,
        init: str = "uniform",
        thinning: int = 1,
        chain_method: str = "auto",
    ) -> None:
        self.chains = chains
        self.warmup = warmup
        self.draws = draws
        self.target_accept = target_accept
        self.dense_mass = dense_mass
        self.max_tree_depth = max_tree_depth
        self.init = init
        self.thinning = thinning
        self.chain_method = chain_method

    def _check(self) -> None:
        for name, least in (
            ("chains", 1),
            ("warmup", 0),
            ("draws", 1),
            ("max_tree_depth", 1),
            ("thinning", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"NUTS: {name}={value!r}; expected an integer of {least} or more")
        if not 0 < self.target_accept < 1:
            raise ValueError(
                f"NUTS: target_accept={self.target_accept!r}; expected a number between 0 and 1"
            )
        for name, known in (("init", INITS), ("chain_method", CHAIN_METHODS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"NUTS: {name}={getattr(self, name)!r}; expected one of {', '.join(known)}"
                )

    def run(
        self,
        model: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        engine: str | None = None,
        seed: int = 0,
        device: str = "auto",
        dtype: str | None = None,
        coords: Mapping[str, Sequence[Hashable]] | None = None,
        exchangeable: str | None = None,
        rotatable: Sequence[str] = (),
        progress: bool = True,
        start: Mapping[str, Any] | None = None,
    ) -> Posterior:
        """Draw from the posterior of a program.

        Parameters
        ----------
        model : Program or callable
        args, kwargs
            What the program is called with.
        engine : {"numpyro", "pyro"}, optional
            NumPyro by default.
        seed : int
        device, dtype : str, optional
            See :meth:`ppl_gen.engines.Engine.precision`.
        coords : dict, optional
            Labels along named axes.
        exchangeable : str, optional
            Axis of interchangeable components.
        rotatable : sequence of str, optional
            Axes of factors known up to rotation.
        progress : bool
            Whether a bar is shown.
        start : dict, optional
            Values of sites near which chains start, in place of `init`.

        Returns
        -------
        Posterior
            With the draws made so far, and a warning, if interrupted by Ctrl-C.

        Raises
        ------
        ValueError
            If a setting is wrong, nothing continuous is latent, a discrete latent cannot be summed
            out, or no start with a finite density is found.
        """
        self._check()
        kwargs = dict(kwargs or {})
        name = engine or "numpyro"
        backend = engines.get(name)
        native = getattr(model, name, model)
        began = time.perf_counter()
        with ONE_AT_A_TIME:
            with backend.precision(dtype, device) as precision:
                device = precision.device
                sites = outline_quietly(backend, native, args, kwargs)
                _check_sites(sites)
                target = backend.enumerated(native) if _discrete(sites) else native
            settings = Settings(
                self.warmup,
                self.target_accept,
                self.dense_mass,
                self.max_tree_depth,
                self.init,
                start,
            )
            run = self._run(
                backend, target, args, kwargs, settings, seed, dtype, device, progress, sites
            )
        elapsed = time.perf_counter() - began
        if run.interrupted:
            made = next(iter(run.draws.values())).shape[:2]
            warnings.warn(
                f"NUTS: interrupted; the posterior has {made[0]} chains of {made[1]} draws",
                RuntimeWarning,
                stacklevel=2,
            )
        run.draws.update(_deterministic(backend, native, args, kwargs, run, sites, dtype, device))
        order = [n for n in sites if n in run.draws]
        stats = dict(run.sample_stats)
        stats.update(depth_stats(stats["n_steps"], self.max_tree_depth))
        return Posterior(
            {n: run.draws[n] for n in order},
            method=self.name,
            engine=name,
            model=model,
            args=args,
            kwargs=kwargs,
            sample_stats=stats,
            coords=coords,
            exchangeable=exchangeable,
            rotatable=rotatable,
            info={
                "settings": self.get_params(),
                "seed": seed,
                "elapsed": elapsed,
                "compile_seconds": run.compile_seconds,
                "interrupted": run.interrupted,
                "dtype": dtype,
                "device": device,
            },
        )

    def _run(
        self,
        backend: Engine,
        target: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        settings: Settings,
        seed: int,
        dtype: str | None,
        device: str,
        progress: bool,
        sites: Mapping[str, Site],
    ) -> Run:
        steps = self.warmup + self.draws * self.thinning
        in_sequence = backend.name == "pyro"
        bar = tqdm(
            total=steps * (self.chains if in_sequence else 1),
            disable=not progress,
            desc="NUTS",
            unit="step",
        )

        def on_progress(made: int, phase: str) -> None:
            bar.set_description(f"NUTS {phase}", refresh=False)
            bar.update(made)

        common: dict[str, Any] = {
            "chains": self.chains,
            "draws": self.draws,
            "thinning": self.thinning,
            "seed": seed,
            "dtype": dtype,
            "device": device,
            "on_progress": on_progress,
        }
        if not in_sequence:
            common["chain_method"] = self._chain_method(device)
            common["row_size"] = sum(s.value.size for s in sites.values() if not s.observed)
        module = importlib.import_module(f"ppl_gen.inference.nuts_{backend.name}")
        with bar:
            try:
                run: Run = module.run_chains(backend, target, args, kwargs, settings, **common)
            except FloatingPointError as error:
                with backend.precision(dtype, device), warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="Out-of-support values")
                    prior = backend.trace(target, args, kwargs, seed=seed)
                raise ValueError(_bad_start(prior, self.init)) from error
        return run

    def _chain_method(self, device: str) -> str:
        if self.chain_method != "auto":
            return self.chain_method
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        many = self.chains > 8 * (cores or 1)
        return "vectorized" if many or not device.startswith("cpu") else "parallel"


def _discrete(sites: Mapping[str, Site]) -> list[str]:
    return [s.name for s in sites.values() if s.kind == "sample" and s.discrete and not s.observed]


def _check_sites(sites: Mapping[str, Site]) -> None:
    """Refuse a program that NUTS cannot run on, before anything is compiled."""
    endless = [name for name in _discrete(sites) if sites[name].support is None]
    if endless:
        raise ValueError(
            f"NUTS: the discrete latent {', '.join(endless)} has no finite support, so it cannot "
            "be summed out; expected continuous or finite latents; marginalise it by hand, or "
            "observe it"
        )
    if not any(s.kind == "sample" and not s.observed and not s.discrete for s in sites.values()):
        raise ValueError(
            "NUTS: the program has no continuous latent site; expected one to draw; its sites are "
            f"{', '.join(sites) or 'none'}"
        )


def _bad_start(sites: Mapping[str, Site], init: str) -> str:
    """Say which sites have no finite density at a draw from the prior."""
    bad = [
        f"{name} (observed)" if site.observed else name
        for name, site in sites.items()
        if site.log_prob is not None and not np.all(np.isfinite(site.log_prob))
    ]
    where = f"the density of {', '.join(bad)} is not finite" if bad else "no site stands out"
    return (
        f"NUTS: no start with a finite log density and gradient was found in 100 tries with "
        f"init={init!r}; at a draw from the prior {where}; look for NaN or values outside the "
        "support in the data, or try init='median' or 'prior'"
    )


def _deterministic(
    backend: Engine,
    native: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    run: Run,
    sites: Mapping[str, Site],
    dtype: str | None,
    device: str,
) -> dict[str, Any]:
    """Values of the deterministic sites that the sampler did not record."""
    missing = [n for n, s in sites.items() if s.kind == "deterministic" and n not in run.draws]
    # What depends on a discrete latent that was summed out has no one value.
    if not missing or _discrete(sites):
        return {}
    shape = next(iter(run.draws.values())).shape[:2]
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in run.draws.items()}
    with backend.precision(dtype, device):
        found = backend.predictive(native, args, kwargs, flat, seed=0, sites=missing)
    return {name: value.reshape(*shape, *value.shape[1:]) for name, value in found.items()}
