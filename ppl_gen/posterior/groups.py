"""Groups that are made on request: log likelihood, predictive and prior draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.engines import Site
from ppl_gen.posterior.arguments import observed_arguments, replaced

if TYPE_CHECKING:
    from ppl_gen.posterior.core import Posterior

__all__ = ["log_likelihood", "posterior_predictive", "prior_draws"]

Arrays = dict[str, NDArray[Any]]

#: A group may not take more memory than this.
MAX_GROUP_BYTES = 2 * 2**30


def check_size(asker: str, elements: int, draws: int) -> None:
    """Refuse what would not fit in memory, with the thinning that would."""
    size = 8 * elements * draws
    if size > MAX_GROUP_BYTES:
        every = -(-size // MAX_GROUP_BYTES)
        raise ValueError(
            f"{asker}: {elements:,} values a draw x {draws:,} draws take {size / 1e9:.1f} GB; "
            f"expected at most {MAX_GROUP_BYTES / 1e9:.1f} GB; thin first: "
            f"posterior.thin({every})"
        )


def log_likelihood(posterior: Posterior) -> Arrays:
    """Log probability of each observation under each draw, (chains, draws, ...)."""
    asker = "Posterior.log_likelihood"
    engine, native = posterior.native(asker)
    observed = {n: s for n, s in posterior.sites.items() if s.observed and s.kind == "sample"}
    factors = [name for name, site in posterior.sites.items() if site.kind == "factor"]
    if factors:
        raise ValueError(
            f"{asker}: the density goes through factor ({', '.join(factors)}), which has no value "
            "an observation; expected every observation at a sample site; write it as "
            "sample(name, distribution, obs=...)"
        )
    if not observed:
        raise ValueError(f"{asker}: no site is observed; expected sample(..., obs=...) with data")
    if hidden := [n for n, s in posterior.sites.items() if _is_summed_out(s)]:
        raise ValueError(
            f"{asker}: the discrete latent {', '.join(hidden)} was summed out, so that no "
            "observation has a density of its own given the draws; expected discrete latents "
            "inside a distribution; write it with dist.Mixture(..., latent=...)"
        )
    elements = sum(s.log_prob.size for s in observed.values() if s.log_prob is not None)
    check_size(asker, elements, posterior.shape[0] * posterior.shape[1])
    with posterior.precision(engine):
        flat = engine.pointwise_log_prob(
            native, posterior.args, posterior.kwargs, posterior.latent_draws(), list(observed)
        )
    return {name: v.reshape(*posterior.shape, *v.shape[1:]) for name, v in flat.items()}


def _is_summed_out(site: Site) -> bool:
    return site.kind == "sample" and site.discrete and not site.observed


def posterior_predictive(
    posterior: Posterior,
    n: int | None,
    seed: int,
    sites: Sequence[str] | None,
    new_data: Mapping[str, Any],
) -> Arrays:
    """Draw what was observed (or `sites`) anew, (n, ...): see `Posterior.predictive`."""
    asker = "Posterior.predictive"
    engine, native = posterior.native(asker)
    args, kwargs = _open_arguments(posterior, native, new_data)
    latent = posterior.latent_draws()
    total = posterior.shape[0] * posterior.shape[1]
    if n is not None:
        chosen = np.sort(np.random.default_rng(seed).choice(total, size=n, replace=n > total))
        latent = {name: values[chosen] for name, values in latent.items()}
    with posterior.precision(engine):
        trace = engine.outline(native, args, kwargs)
        wanted = [s.name for s in posterior.sites.values() if s.observed and s.kind == "sample"]
        wanted = [name for name in wanted if name in trace] if sites is None else list(sites)
        if closed := [name for name in wanted if name in trace and trace[name].observed]:
            raise ValueError(
                f"{asker}: {', '.join(closed)} stays observed, because the argument that holds "
                "the observations is not recognised; pass None for it, by name"
            )
        size = sum(trace[name].value.size for name in wanted if name in trace)
        check_size(asker, size, total if n is None else n)
        return engine.predictive(native, args, kwargs, latent, seed=seed, sites=wanted)


def prior_draws(posterior: Posterior, n: int, seed: int) -> Arrays:
    """Draw every site from the prior, (n, ...)."""
    asker = "Posterior.prior"
    engine, native = posterior.native(asker)
    args, kwargs = _open_arguments(posterior, native, {})
    check_size(asker, sum(site.value.size for site in posterior.sites.values()), n)
    with posterior.precision(engine):
        return engine.prior_predictive(native, args, kwargs, n, seed=seed)


def _open_arguments(
    posterior: Posterior, native: Callable[..., Any], new_data: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with observations taken out and new data put in."""
    opened: dict[str, Any] = {}
    if not any(value is None for value in new_data.values()):  # the caller said which
        opened = dict.fromkeys(
            observed_arguments(native, posterior.args, posterior.kwargs, posterior.sites)
        )
    return replaced(native, posterior.args, posterior.kwargs, {**opened, **new_data})
