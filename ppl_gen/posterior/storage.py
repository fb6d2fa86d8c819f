"""What a saved posterior consists of beside its netCDF file, and how it is put together again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.language import importable
from ppl_gen.posterior.arguments import storable

if TYPE_CHECKING:
    from ppl_gen.posterior.core import Posterior

__all__ = [
    "SETTINGS",
    "duplicate",
    "restore",
    "settings",
    "state",
    "tree",
    "tree_with_draws",
    "with_draws",
]

#: What a posterior keeps where its draws are replaced.
SETTINGS = (
    *("method", "engine", "model", "args", "kwargs"),
    *("dims", "coords", "exchangeable", "rotatable"),
)


def tree(posterior: Posterior) -> dict[str, Any]:
    """Everything but the arrays of the netCDF file."""
    omitted = [f"args[{i}]" for i, value in enumerate(posterior.args) if not storable(value)]
    omitted += [name for name, value in posterior.kwargs.items() if not storable(value)]
    arguments = {"args": list(posterior.args), "kwargs": posterior.kwargs}
    return {
        "method": posterior.method,
        "engine": posterior.engine,
        "arguments": None if omitted else arguments,
        "omitted": omitted,
        "dims": posterior.axes,
        "coords": posterior.coords,
        "exchangeable": posterior.exchangeable,
        "rotatable": list(posterior.rotatable),
        "info": posterior.info,
    }


def settings(
    stored: Mapping[str, Any], idata: Any, program: Callable[..., Any] | None
) -> dict[str, Any]:
    """Keyword arguments of the `Posterior` that was stored, with the draws of its netCDF file."""
    stats = idata["sample_stats"].data_vars if "sample_stats" in idata.groups() else {}
    return {
        "draws": {str(name): value.values for name, value in idata["posterior"].data_vars.items()},
        "sample_stats": {str(name): value.values for name, value in stats.items()},
        **_settings(stored, program),
    }


def tree_with_draws(posterior: Posterior) -> dict[str, Any]:
    """Everything, where there is no netCDF file: for artefacts of several posteriors."""
    return {**tree(posterior), "draws": posterior.draws, "sample_stats": posterior.sample_stats}


def with_draws(stored: Mapping[str, Any], program: Callable[..., Any] | None) -> Posterior:
    """Return the posterior that `tree_with_draws` gave."""
    from ppl_gen.posterior.core import Posterior

    arrays = {name: stored[name] for name in ("draws", "sample_stats")}
    posterior = Posterior(**arrays, **_settings(stored, program))
    posterior._omitted = list(stored["omitted"])
    return posterior


def state(posterior: Posterior) -> dict[str, Any]:
    """What another process gets: without the program, unless it can import that."""
    kept = dict(vars(posterior))
    if posterior.model is not None and not importable(posterior.model):
        # The sites are of the program; the names of the axes came from them.
        kept.update(model=None, dims=posterior.axes)
        kept.pop("sites", None)
    return kept


def duplicate(posterior: Posterior, memo: dict[int, Any]) -> Posterior:
    """Deep copy within the process, which has the program."""
    kept = {name: value for name, value in vars(posterior).items() if name != "model"}
    copied = type(posterior).__new__(type(posterior))
    vars(copied).update(copy.deepcopy(kept, memo), model=posterior.model)
    return copied


def _settings(stored: Mapping[str, Any], program: Callable[..., Any] | None) -> dict[str, Any]:
    arguments = stored["arguments"] or {"args": [], "kwargs": {}}
    return {
        "model": program,
        "args": arguments["args"],
        "kwargs": arguments["kwargs"],
        **{key: stored[key] for key in ("method", "engine", "dims", "coords", "exchangeable")},
        "rotatable": stored.get("rotatable", ()),
        # The machine that loads need not have the device of the one that saved.
        "info": {**stored["info"], "device": "auto"},
    }


def restore(posterior: Posterior, stored: Mapping[str, Any], idata: Any) -> None:
    """Put back what was made on request before saving, and check the program if there is one."""
    posterior._omitted = list(stored["omitted"])
    posterior.__dict__["idata"] = idata
    if "log_likelihood" in idata.groups():
        kept = idata["log_likelihood"].data_vars
        posterior._log_likelihood = {str(name): value.values for name, value in kept.items()}
    if posterior.model is not None and not posterior._omitted:
        _check_program(posterior)


def _check_program(posterior: Posterior) -> None:
    """Refuse a program other than the one the draws came from.

    Raises
    ------
    ValueError
        If a site is missing, has another shape, or is new.
    """
    advice = "pass the program it was inferred with"
    sites = posterior.sites
    for name, value in posterior.draws.items():
        if name not in sites:
            raise ValueError(
                f"ppl_gen.load: the program has no site {name}, which the saved posterior has; "
                f"its sites are {', '.join(sites)}; {advice}"
            )
        if np.shape(sites[name].value) != value.shape[2:]:
            raise ValueError(
                f"ppl_gen.load: site {name} of the program has shape "
                f"{np.shape(sites[name].value)}, but {value.shape[2:]} was saved; {advice}"
            )
    if not (posterior.args or posterior.kwargs):
        return  # without its data the program draws them, so its observed sites look latent
    latent = [n for n, s in sites.items() if s.kind == "sample" and not (s.observed or s.discrete)]
    if extra := sorted(set(latent) - set(posterior.draws)):
        raise ValueError(
            f"ppl_gen.load: the program has latent sites {', '.join(extra)}, which the saved "
            f"posterior lacks; {advice}"
        )
