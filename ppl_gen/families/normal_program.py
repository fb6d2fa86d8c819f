"""The normal family's conjugate prior as a program, and the coordinates it is drawn in.

Samplers want parameters of one scale. So a program draws means and precisions in whitened
coordinates, x -> L'(x - m) with m the prior's mean and LL' the inverse of its scale, in which
the prior is standard whatever the units of the columns; ``mean`` and ``covariance`` (or
``variance``) follow in the units of the data.
"""

from typing import Any

import numpy as np

from ppl_gen.families.base import Array, Parameters
from ppl_gen.language import deterministic, dist, ops, plate, sample


def whitening_factor(terms: dict[str, Any], diagonal: bool) -> Array:
    """Lower triangular L with LL' = scale^-1: (D, D), or its diagonal (D,)."""
    if diagonal:
        return terms["scale"] ** -0.5
    return np.linalg.cholesky(np.linalg.inv(terms["scale"]))


def draw_full(
    terms: dict[str, Any],
    n_columns: int,
    n_classes: int,
    component: str,
    prefix: str,
    *,
    tied: bool,
) -> Parameters:
    """Draw means and full precisions from the normal-inverse-Wishart prior.

    A Wishart precision gives the triangular factor that the density wants by one Cholesky
    decomposition; nothing is inverted but for the covariance that is reported.
    """
    root = whitening_factor(terms, diagonal=False)
    column = (f"{prefix}column",)
    if tied:
        whitened, factor = _draw_precision(root, terms["dof"], n_columns, prefix)
    with plate(component, n_classes):
        if not tied:
            whitened, factor = _draw_precision(root, terms["dof"], n_columns, prefix)
        prior = dist.MultivariateNormal(
            np.zeros(n_columns), precision_matrix=terms["shrinkage"] * whitened
        )
        local = sample(f"{prefix}mean_whitened", prior, dims=column)
        away = local @ ops.asarray(np.linalg.inv(root))
        mean = deterministic(f"{prefix}mean", ops.asarray(terms["mean"]) + away, dims=column)
    return {"mean": mean, "precision_cholesky": factor}


def _draw_precision(root: Array, dof: float, n_columns: int, prefix: str) -> tuple[Array, Array]:
    """Draw a precision in whitened coordinates; return it, and its factor in the data's units."""
    dims = (f"{prefix}column", f"{prefix}column_")
    prior = dist.Wishart(dof, scale_tril=np.eye(n_columns))
    whitened = sample(f"{prefix}precision_whitened", prior, dims=dims)
    factor = ops.asarray(root) @ ops.linalg.cholesky(whitened)
    inverse = ops.linalg.inv(factor)
    covariance = ops.matrix_transpose(inverse) @ inverse
    deterministic(f"{prefix}covariance", covariance, dims=dims)
    return whitened, factor


def draw_diagonal(
    terms: dict[str, Any],
    n_columns: int,
    n_classes: int,
    component: str,
    prefix: str,
    *,
    spherical: bool,
) -> Parameters:
    """Draw means and variances from the normal-inverse-gamma prior."""
    root = ops.asarray(whitening_factor(terms, diagonal=True))
    column = (f"{prefix}column",)
    shape = 0.5 * terms["dof"]
    with plate(component, n_classes):
        if spherical:
            # One variance over columns of any scale: it is in the data's own units.
            prior = dist.InverseGamma(shape, 0.5 * terms["scale"].mean())
            variance = sample(f"{prefix}variance", prior)
            spread = root * (variance[..., None] / terms["shrinkage"]) ** 0.5
        else:
            prior = dist.InverseGamma(np.full(n_columns, shape), 0.5 * terms["scale"]).to_event(1)
            variance = sample(f"{prefix}variance", prior, dims=column)
            spread = root * (variance / terms["shrinkage"]) ** 0.5
        local = sample(
            f"{prefix}mean_whitened",
            dist.Normal(np.zeros(n_columns), spread).to_event(1),
            dims=column,
        )
        mean = deterministic(
            f"{prefix}mean", ops.asarray(terms["mean"]) + local / root, dims=column
        )
    return {"mean": mean, "precision_cholesky": variance**-0.5}
