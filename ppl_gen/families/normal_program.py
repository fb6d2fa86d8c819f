"""The normal family's conjugate prior as a program."""

from typing import Any

import numpy as np

from ppl_gen.families.base import Array, Parameters
from ppl_gen.language import deterministic, dist, ops, plate, sample


def draw_normal(
    covariance_type: str,
    terms: dict[str, Any],
    n_columns: int,
    n_classes: int,
    component: str,
    prefix: str,
) -> Parameters:
    """Draw means and precisions from the normal-inverse-Wishart or normal-inverse-gamma prior.

    A Wishart precision P = UU' gives the triangular factor that the density wants by one
    Cholesky decomposition; nothing is inverted but for the covariance that is reported.
    """
    if covariance_type in ("diag", "spherical"):
        return _draw_diagonal(covariance_type, terms, n_columns, n_classes, component, prefix)
    if covariance_type == "tied":
        precision = _draw_precision(terms, prefix)
    with plate(component, n_classes):
        if covariance_type == "full":
            precision = _draw_precision(terms, prefix)
        mean = sample(
            f"{prefix}mean",
            dist.MultivariateNormal(terms["mean"], precision_matrix=terms["shrinkage"] * precision),
            dims=(f"{prefix}column",),
        )
    return {"mean": mean, "precision_cholesky": ops.linalg.cholesky(precision)}


def _draw_precision(terms: dict[str, Any], prefix: str) -> Array:
    dims = (f"{prefix}column", f"{prefix}column_")
    prior = dist.Wishart(terms["dof"], scale_matrix=np.linalg.inv(terms["scale"]))
    precision = sample(f"{prefix}precision", prior, dims=dims)
    deterministic(f"{prefix}covariance", ops.linalg.inv(precision), dims=dims)
    return precision


def _draw_diagonal(
    covariance_type: str,
    terms: dict[str, Any],
    n_columns: int,
    n_classes: int,
    component: str,
    prefix: str,
) -> Parameters:
    shape = 0.5 * terms["dof"]
    with plate(component, n_classes):
        if covariance_type == "diag":
            prior = dist.InverseGamma(np.full(n_columns, shape), 0.5 * terms["scale"]).to_event(1)
            variance = sample(f"{prefix}variance", prior, dims=(f"{prefix}column",))
            wide = variance
        else:
            variance = sample(
                f"{prefix}variance", dist.InverseGamma(shape, 0.5 * terms["scale"].mean())
            )
            wide = variance[..., None]
        spread = (wide / terms["shrinkage"]) ** 0.5
        mean = sample(
            f"{prefix}mean",
            dist.Normal(terms["mean"], spread).to_event(1),
            dims=(f"{prefix}column",),
        )
    return {"mean": mean, "precision_cholesky": variance**-0.5}
