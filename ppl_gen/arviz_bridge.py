"""The one module that imports ArviZ, so that another version of it is one file's work."""

import json
import warnings
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import ppl_gen

with warnings.catch_warnings():
    # Printed once a day on import; it announces ArviZ 1.0, which the requirements exclude.
    warnings.filterwarnings("ignore", message="\nArviZ is undergoing", category=FutureWarning)
    import arviz as az

__all__ = ["add_group", "az", "inference_data", "loo", "read_netcdf", "summary", "write_netcdf"]

#: Marks an attribute that is stored as JSON, since netCDF has neither None nor booleans.
JSON_PREFIX = "json:"


def _dataset(
    values: Mapping[str, np.ndarray[Any, Any]],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Sequence[Hashable] | np.ndarray[Any, Any]],
    sample_dims: tuple[str, ...],
) -> xr.Dataset:
    """Arrays whose first axes are `sample_dims`, with names for the others."""
    variables = {
        name: (sample_dims + tuple(dims.get(name, ())), np.asarray(value))
        for name, value in values.items()
    }
    used = {dim for axes, _ in variables.values() for dim in axes}
    sizes = {
        dim: size
        for axes, value in variables.values()
        for dim, size in zip(axes, value.shape, strict=True)
    }
    known = {
        dim: np.asarray(coords[dim]) if dim in coords else np.arange(sizes[dim]) for dim in used
    }
    attributes = {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "inference_library": "ppl_gen",
        "inference_library_version": ppl_gen.__version__,
    }
    return xr.Dataset(variables, coords=known, attrs=attributes)


def add_group(
    idata: az.InferenceData,
    group: str,
    values: Mapping[str, np.ndarray[Any, Any]],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Any],
    *,
    sample_dims: tuple[str, ...] = ("chain", "draw"),
) -> None:
    """Put a group of arrays into `idata`, in place of one of the same name.

    Parameters
    ----------
    idata : InferenceData
        Changed in place.
    group : str
        ArviZ's name of the group: ``"log_likelihood"``, ``"prior"``, ...
    values : dict of ndarray
        Their first axes are `sample_dims`.
    dims : dict of sequence of str
        Names of each variable's other axes.
    coords : dict
        Labels along named axes; those missing are numbered from 0.
    sample_dims : tuple of str
        ``()`` for data.
    """
    if group in idata.groups():
        del idata[group]
    idata.add_groups({group: _dataset(values, dims, coords, sample_dims)})


def inference_data(
    posterior: Mapping[str, np.ndarray[Any, Any]],
    sample_stats: Mapping[str, np.ndarray[Any, Any]] | None,
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Any],
    attributes: Mapping[str, Any],
) -> az.InferenceData:
    """Posterior draws (chains, draws, ...) and what the sampler tells, as InferenceData."""
    idata = az.InferenceData()
    add_group(idata, "posterior", posterior, dims, coords)
    idata.posterior.attrs.update(attributes)
    if sample_stats:
        add_group(idata, "sample_stats", sample_stats, {}, {})
    return idata


def summary(
    draws: xr.Dataset, *, kind: str, var_names: Sequence[str] | None, hdi_prob: float
) -> pd.DataFrame:
    """ArviZ's table; constants keep their mean and have NaN for what chains alone tell."""
    # A constant divides by a variance of zero in R-hat; NaN is the answer that is meant.
    with np.errstate(invalid="ignore", divide="ignore"):
        table: pd.DataFrame = az.summary(
            draws, var_names=var_names, kind=kind, hdi_prob=hdi_prob, round_to="none"
        )
    return table


def point_summary(draws: xr.Dataset, *, var_names: Sequence[str] | None) -> pd.DataFrame:
    """One row an entry of a posterior of one draw: its value, under the column ``mean``."""
    chosen = draws if var_names is None else draws[list(var_names)]
    table: pd.DataFrame = az.summary(
        chosen,
        kind="stats",
        stat_funcs={"mean": lambda values: float(np.mean(values))},
        extend=False,
        round_to="none",
    )
    return table


def loo(
    idata: az.InferenceData, *, var_name: str, reff: float, pointwise: bool = True
) -> az.ELPDData:
    """Pareto-smoothed leave-one-out cross-validation of one observed variable.

    Parameters
    ----------
    idata : InferenceData
        With groups posterior and log_likelihood.
    var_name : str
        The observed variable.
    reff : float
        Relative efficiency of the draws. Given, since ArviZ's own average is NaN as soon as
        one entry of the posterior is constant.
    pointwise : bool
        Whether the values of single observations are kept.
    """
    return az.loo(idata, var_name=var_name, reff=reff, pointwise=pointwise)


def write_netcdf(idata: az.InferenceData, path: Path) -> None:
    """Write `idata` with h5netcdf; attributes that netCDF lacks are written as JSON."""
    encoded = az.InferenceData(
        **{group: _with_attributes(idata[group], _encode) for group in idata.groups()}
    )
    encoded.to_netcdf(str(path), engine="h5netcdf")


def read_netcdf(path: Path) -> az.InferenceData:
    """Read what :func:`write_netcdf` wrote, wholly into memory."""
    idata = az.from_netcdf(str(path), engine="h5netcdf")
    loaded = az.InferenceData(
        **{group: _with_attributes(idata[group].load(), _decode) for group in idata.groups()}
    )
    idata.close()
    return loaded


def _with_attributes(dataset: xr.Dataset, change: Any) -> xr.Dataset:
    changed = dataset.copy()
    changed.attrs = {str(key): change(value) for key, value in dataset.attrs.items()}
    return changed


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, (bool, np.bool_, dict, list, tuple)):
        return JSON_PREFIX + json.dumps(value, default=str)
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(JSON_PREFIX):
        return json.loads(value.removeprefix(JSON_PREFIX))
    return value


def plot_trace(
    idata: az.InferenceData,
    var_names: Sequence[str] | None = None,
    coords: Mapping[str, Sequence[Hashable]] | None = None,
) -> Any:
    """Draw densities and traces of the draws; returns the axes, (variables, 2)."""
    return az.plot_trace(
        idata,
        var_names=var_names,
        coords=coords,
        compact=True,
        backend_kwargs={"layout": "constrained"},
    )
