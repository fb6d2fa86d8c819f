"""Which family the emissions of a hidden Markov model are of."""

import copy
from typing import Any

import numpy as np

from ppl_gen.data import is_frame, read_frame
from ppl_gen.families import (
    FAMILIES,
    Bernoulli,
    Categorical,
    Family,
    MixtureFamily,
    Multinomial,
    Normal,
    Poisson,
)
from ppl_gen.sequences import arrange
from ppl_gen.structures.family_choice import choose_family

#: Families of counts and codes, with hmmlearn's flat priors.
FLAT: dict[str, Family] = {
    "poisson": Poisson(alpha=0.0),
    "categorical": Categorical(alpha=0.0),
    "multinomial": Multinomial(alpha=0.0),
    "bernoulli": Bernoulli(alpha=0.0),
}


def family_of(model: Any) -> Family:
    """Return the family that the settings of a model ask for, given the columns it has read.

    Raises
    ------
    ValueError
        If no family has that name.
    """
    spec, who = model.emission, model._who
    if isinstance(spec, str) and spec in ("gaussian", "gmm"):
        normal = Normal(model.covariance_type, model.min_covar, prior=model.prior)
        return normal if spec == "gaussian" else MixtureFamily(normal, model.n_mix)
    if isinstance(spec, str) and spec != "auto" and spec not in FAMILIES:
        names = ", ".join(map(repr, ["gaussian", "gmm", "auto", *FAMILIES]))
        raise ValueError(f"{who}: emission is {spec!r}; expected one of {names}")
    if isinstance(spec, str) and spec in FLAT:
        return FLAT[spec]

    def floored(family: Family) -> Family:
        return family.replace(reg_covar=model.min_covar) if isinstance(family, Normal) else family

    return choose_family(spec, model.schema_, who, floored)


def knowing_codes(model: Any, X: Any) -> Any:
    """Return a copy of the model that knows the codes of these sequences, if it counts them."""
    spec = model.emission
    family = FLAT.get(spec) if isinstance(spec, str) else spec
    if not isinstance(family, Categorical) or family.n_categories is not None:
        return model
    who = f"{model._who}.fit"
    table, _ = arrange(X, None, who)
    try:
        values = read_frame(table, who)[0] if is_frame(table) else np.asarray(table, np.float64)
    except (TypeError, ValueError):
        return model  # which refuses what is not numbers, and says so
    highest = np.nanmax(values, axis=0, initial=0.0)
    known = copy.copy(model)  # a clone would lose parameters that are set as attributes
    known.emission = family.replace(n_categories=tuple(int(code) + 1 for code in highest))
    return known
