"""A posterior as ArviZ sees it: InferenceData, the summary table, leave-one-out."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.algorithms.convergence import bulk_ess
from ppl_gen.posterior.arguments import constants
from ppl_gen.posterior.dimensions import axes_of_arrays, axes_of_sites, distinct

if TYPE_CHECKING:
    import pandas as pd

    from ppl_gen.posterior.core import Posterior

__all__ = ["add_group", "as_html", "inference_data", "loo", "summary"]

Arrays = dict[str, NDArray[Any]]


def inference_data(posterior: Posterior) -> Any:
    """InferenceData with posterior, sample_stats, observed_data and constant_data."""
    from ppl_gen import arviz_bridge

    idata = arviz_bridge.inference_data(
        posterior.draws,
        posterior.sample_stats,
        distinct(posterior.axes, posterior.draws, skip=2),
        posterior.coords,
        {"inference_method": posterior.method, "engine": posterior.engine},
    )
    sites = posterior.sites
    observed = {n: s.value for n, s in sites.items() if s.observed and s.kind == "sample"}
    constant: Arrays = {}
    if sites:
        _, native = posterior.native("Posterior.idata")
        constant = constants(native, posterior.args, posterior.kwargs, sites)
    for group, values in (("observed_data", observed), ("constant_data", constant)):
        if values:
            add_group(posterior, idata, group, values, sample_dims=())
    return idata


def add_group(
    posterior: Posterior,
    idata: Any,
    group: str,
    values: Arrays,
    *,
    sample_dims: tuple[str, ...] = ("chain", "draw"),
) -> None:
    """Add a group, its axes named as the program's sites are and labelled by its coords."""
    from ppl_gen import arviz_bridge

    skip = len(sample_dims)
    axes = distinct(axes_of_arrays(values, axes_of_sites(posterior.sites), skip), values, skip)
    sizes = {
        axis: size
        for name, value in values.items()
        for axis, size in zip(axes[name], value.shape[skip:], strict=True)
    }
    # New data may have another number of rows than the labels are for.
    coords = {axis: v for axis, v in posterior.coords.items() if sizes.get(axis) == len(v)}
    arviz_bridge.add_group(idata, group, values, axes, coords, sample_dims=sample_dims)


def summary(
    posterior: Posterior, var_names: str | Sequence[str] | None, hdi_prob: float
) -> pd.DataFrame:
    """See `Posterior.summary`."""
    from ppl_gen import arviz_bridge

    names = [var_names] if isinstance(var_names, str) else var_names
    if missing := sorted(set(names or ()) - set(posterior.draws)):
        raise ValueError(
            f"Posterior.summary: no site {', '.join(missing)}; expected some of "
            f"{', '.join(posterior.draws)}"
        )
    draws = posterior.idata.posterior
    if posterior.is_point:
        return arviz_bridge.point_summary(draws, var_names=names)
    kind = "all" if posterior.is_chains else "stats"
    return arviz_bridge.summary(draws, kind=kind, var_names=names, hdi_prob=hdi_prob)


def loo(posterior: Posterior, var_name: str | None) -> Any:
    """See `Posterior.loo`."""
    from ppl_gen import arviz_bridge

    if posterior.is_point:
        raise ValueError(
            f"Posterior.loo: {posterior.method} gives one point estimate; expected draws from a "
            "posterior; fit by NUTS or SVI, or use cross-validation or an information criterion "
            "(AIC, BIC) on the point estimate"
        )
    values = posterior.log_likelihood()
    if var_name is None and len(values) > 1:
        raise ValueError(
            f"Posterior.loo: several observed sites, {', '.join(values)}; pass var_name="
        )
    name = next(iter(values)) if var_name is None else var_name
    if name not in values:
        raise ValueError(
            f"Posterior.loo: {name!r} is not observed; expected one of {', '.join(values)}"
        )
    _refuse_dependent(posterior, name, values[name])
    return arviz_bridge.loo(posterior.idata, var_name=name, reff=_relative_efficiency(posterior))


def _refuse_dependent(posterior: Posterior, name: str, log_likelihood: NDArray[Any]) -> None:
    """Refuse observations that LOO cannot leave out: the only one, and the steps of a series."""
    advice = (
        "for one series, use leave_future_out of ppl_gen.evaluate.model_choice, which predicts "
        "each step from those before it; for several, hold out whole sequences"
    )
    if log_likelihood[0, 0].size == 1:
        raise ValueError(
            f"Posterior.loo: {name} has one observation, and without it there are no data to learn "
            "from; expected two or more. A sequence is one observation, since its steps depend on "
            f"one another: {advice}"
        )
    axes = axes_of_arrays({name: log_likelihood}, axes_of_sites(posterior.sites), skip=2)[name]
    if "time" in axes:
        raise ValueError(
            f"Posterior.loo: {name} has an observation a step along the axis 'time'. Steps depend "
            "on those before them, so that the others tell of the one left out what no forecast "
            f"knows; expected observations that do not: {advice}. If they are independent given "
            "the parameters, give the axis another name"
        )


def _relative_efficiency(posterior: Posterior) -> float:
    if not posterior.is_chains:
        return 1.0
    sizes = np.concatenate([np.ravel(bulk_ess(values)) for values in posterior.draws.values()])
    known = sizes[np.isfinite(sizes)]
    return float(known.mean() / np.prod(posterior.shape)) if len(known) else 1.0


def as_html(posterior: Posterior) -> str:
    """Return what a notebook shows: a title, the verdict and the head of the table."""
    shown = 20
    table = posterior.summary()
    hidden = max(0, len(table) - shown)
    rest = f"<p>and {hidden:,} more rows: see summary().</p>" if hidden else ""
    return (
        f"<h4>{html.escape(repr(posterior).strip('<>'))}</h4>"
        f"{posterior.verdict._repr_html_()}"
        f"{table.head(shown).to_html(float_format='{:.3g}'.format)}{rest}"
    )
