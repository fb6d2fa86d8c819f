"""The linear autoregression as a program: rows regressed on those before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.language import deterministic, dist, factor, ops, plate, sample

if TYPE_CHECKING:
    from ppl_gen.structures.autoregression import Autoregression

#: Names of the axes of the parameters.
AXES = {
    "coefficients": ("lag", "column", "column_"),
    "intercept": ("column",),
    "slope": ("column",),
    "noise_covariance": ("column", "column_"),
}


def make_program(structure: Autoregression) -> Callable[..., None]:
    """Return the function of the program, with the structure's prior.

    Coefficients and noise are drawn in units in which their prior is standard, which is what
    samplers want; parameters in the units of the data follow.
    """
    width, n_regressors = structure.n_columns, structure.n_regressors
    prior, root = structure.prior, structure.prior_root

    def autoregression(regressors: Any, x: Any = None) -> None:
        axes = AXES["noise_covariance"]
        if prior is None:
            definite = dist.constraints.positive_definite
            flat = dist.ImproperUniform(definite, (), (width, width))
            precision = sample("precision_whitened", flat, dims=axes)
            # |covariance|^-(D + 1)/2, as a density of the precision.
            log_det = ops.sum(ops.log(ops.linalg.diagonal(ops.linalg.cholesky(precision))))
            factor("noise_prior", -(width + 1.0) * log_det)
            rows = dist.Flat(width)
        else:
            wishart = dist.Wishart(prior["dof"], scale_tril=np.eye(width))
            precision = sample("precision_whitened", wishart, dims=axes)
            rows = dist.MultivariateNormal(
                np.zeros(width), precision_matrix=prior["shrinkage"] * precision
            )
        with plate("regressor", n_regressors):
            whitened = sample("weights_whitened", rows, dims=("column",))
        turn = ops.matrix_transpose(ops.asarray(root))
        inverse = ops.linalg.inv(ops.linalg.cholesky(precision))
        half = inverse @ turn  # half' half is the covariance
        weights = whitened @ turn
        noise = ops.matrix_transpose(half) @ half
        for name, value in structure.from_units(weights, noise).items():
            deterministic(name, value, dims=AXES[name])
        spread = ops.asarray(structure.spread)
        mean = ops.asarray(structure.centre) + (regressors @ weights) * spread
        covariance = noise * (spread[:, None] * spread)
        with plate("time", regressors.shape[0]):  # steps depend on those before: no LOO
            sample("x", dist.MultivariateNormal(mean, covariance_matrix=covariance), obs=x)

    return autoregression
