"""The prior of normals with factors as a program, in units of the columns' deviations."""

from typing import Any

import numpy as np

from ppl_gen.families.base import Parameters
from ppl_gen.language import deterministic, dist, ops, plate, sample


def draw(
    terms: dict[str, Any],
    n_factors: int,
    n_classes: int,
    component: str,
    prefix: str,
    *,
    tied: bool,
) -> Parameters:
    """Draw means, loadings and noises; one noise for all columns if `tied`.

    Samplers want parameters of one scale: loadings and means are drawn in units of the deviation
    of their column, and follow in those of the data.
    """
    width = len(terms["mean"])
    column, factor = f"{prefix}column", f"{prefix}factor"
    shape, scale = 0.5 * terms["dof"], 0.5 * terms["scale"]
    deviation = ops.asarray(terms["deviation"])
    with plate(component, n_classes):
        if tied:
            noise = sample(f"{prefix}noise_variance", dist.InverseGamma(shape, scale.mean()))
        else:
            prior = dist.InverseGamma(np.full(width, shape), scale).to_event(1)
            noise = sample(f"{prefix}noise_variance", prior, dims=(column,))
        standard = dist.Normal(np.zeros((width, n_factors)), 1.0).to_event(2)
        local = sample(f"{prefix}loadings_whitened", standard, dims=(column, factor))
        loadings = deterministic(
            f"{prefix}loadings", local * deviation[:, None], dims=(column, factor)
        )
        wide = dist.Normal(np.zeros(width), terms["shrinkage"] ** -0.5).to_event(1)
        away = sample(f"{prefix}mean_whitened", wide, dims=(column,)) * deviation
        mean = deterministic(f"{prefix}mean", ops.asarray(terms["mean"]) + away, dims=(column,))
    return {"mean": mean, "loadings": loadings, "noise_variance": noise}
