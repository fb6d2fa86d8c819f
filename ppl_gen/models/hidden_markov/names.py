"""hmmlearn's names for the parameters of emissions: ``means_``, ``covars_``, ``lambdas_``, ..."""

from typing import Any

import numpy as np

from ppl_gen.families import (
    Bernoulli,
    Categorical,
    Family,
    MixtureFamily,
    Multinomial,
    Normal,
    Poisson,
)

Array = Any
Parameters = dict[str, Any]

#: Letters of `init_params` and `params`, and the attributes they stand for.
LETTERS = {
    "s": "startprob_",
    "t": "transmat_",
    "m": "means_",
    "c": "covars_",
    "w": "weights_",
    "l": "lambdas_",
    "e": "emissionprob_",
}


def letters_of(family: Family) -> str:
    """Letters of the parameters that the emissions of a family have; "" if they have no names."""
    if isinstance(family, Normal):
        return "mc"
    if isinstance(family, MixtureFamily) and isinstance(family.family, Normal):
        return "mcw"
    if isinstance(family, Poisson):
        return "l"
    if isinstance(family, Bernoulli | Multinomial):
        return "e"
    if isinstance(family, Categorical) and (family.n_columns or 1) == 1:
        return "e"
    return ""


def to_names(family: Family, parameters: Parameters) -> dict[str, Array]:
    """Name the parameters of the bound family as hmmlearn does.

    ``covars_`` are matrices (K, D, D), or (K, M, D, D) of mixtures, whatever the covariance type.
    """
    if isinstance(family, Normal):
        covariances = as_matrices(family, family.covariances(parameters), len(parameters["mean"]))
        return {"means_": parameters["mean"], "covars_": covariances}
    if isinstance(family, MixtureFamily) and isinstance(family.family, Normal):
        weights = parameters["weights"]
        inner = to_names(family.family, parameters["components"])
        return {"weights_": weights} | {
            name: value.reshape(*weights.shape, *value.shape[1:]) for name, value in inner.items()
        }
    letters = letters_of(family)
    if letters == "l":
        return {"lambdas_": parameters["rate"]}
    if letters == "e":
        probs = parameters["probs"]
        return {"emissionprob_": probs[:, 0] if isinstance(family, Categorical) else probs}
    return {}


def from_names(family: Family, named: dict[str, Array], start: Parameters, who: str) -> Parameters:
    """Return `start` with the parameters that are named put in, checked.

    Raises
    ------
    ValueError
        If a shape is wrong, or the values are no parameters of the family.
    """
    if isinstance(family, MixtureFamily):
        n_states, n_components = start["weights"].shape
        inner = {
            name: _of_components(value, (n_states, n_components), name, who)
            for name, value in named.items()
            if name in ("means_", "covars_")
        }
        found = {
            "weights": start["weights"],
            "components": from_names(family.family, inner, start["components"], who),
        }
        if "weights_" in named:
            shape = start["weights"].shape
            found["weights"] = probabilities(named["weights_"], shape, "weights_", who)
        return found
    found = dict(start)
    if isinstance(family, Normal):
        if "means_" in named:
            found["mean"] = _exactly(named["means_"], start["mean"].shape, "means_", who)
        if "covars_" in named:
            found["precision_cholesky"] = _factor(family, named["covars_"], start, who)
    if "lambdas_" in named:
        found["rate"] = _exactly(named["lambdas_"], start["rate"].shape, "lambdas_", who)
        if (found["rate"] < 0.0).any():
            raise ValueError(f"{who}: lambdas_ has negative rates; expected positive ones")
    if "emissionprob_" in named:
        probs = start["probs"]
        given = _numbers(named["emissionprob_"], "emissionprob_", who)
        given = given[:, None] if isinstance(family, Categorical) else given
        if isinstance(family, Bernoulli):
            found["probs"] = _exactly(given, probs.shape, "emissionprob_", who)
        else:
            found["probs"] = probabilities(given, probs.shape, "emissionprob_", who)
    return found


#: Letters of emissions, and the parameters they stand for in normals.
PARAMETERS = {"m": "mean", "c": "precision_cholesky", "w": "weights"}


def held_parts(parameters: Parameters, letters: list[str]) -> Parameters:
    """Return the parameters of emissions that some letters stand for."""
    names = {PARAMETERS[letter] for letter in letters if letter in PARAMETERS}
    held = {name: value for name, value in parameters.items() if name in names}
    components = held_parts(parameters["components"], letters) if "components" in parameters else {}
    return held | ({"components": components} if components else {})


def as_matrices(family: Normal, covariances: Array, n_classes: int) -> Array:
    """Covariances of any type as matrices: (K, D, D)."""
    width = family.n_columns or 0
    if family.covariance_type == "tied":
        return np.repeat(covariances[None], n_classes, axis=0)
    if family.covariance_type == "full":
        return covariances
    if family.covariance_type == "spherical":
        covariances = np.repeat(covariances[:, None], width, axis=1)
    return covariances[:, :, None] * np.eye(width)


def compact(family: Normal, covariances: Array) -> Array:
    """Covariances (K, D, D) in the shape of the covariance type."""
    kind = family.covariance_type
    if kind == "full":
        return covariances
    if kind == "tied":
        return covariances[0]
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    return variances.mean(axis=1) if kind == "spherical" else variances.copy()


def _factor(family: Normal, covars: Any, start: Parameters, who: str) -> Array:
    given = _numbers(covars, "covars_", who)
    n_classes, width = start["mean"].shape
    expected = start["precision_cholesky"].shape
    if given.shape == (n_classes, width, width):
        given = compact(family, given)
    if given.shape != expected:
        raise ValueError(
            f"{who}: covars_ has shape {given.shape}; expected {expected} for covariance_type="
            f"{family.covariance_type!r}, or {(n_classes, width, width)}"
        )
    if family.covariance_type in ("diag", "spherical"):
        if not (given > 0.0).all():
            raise ValueError(f"{who}: covars_ must be positive")
        return family.factor(given)
    if not np.allclose(given, np.swapaxes(given, -1, -2)):
        raise ValueError(f"{who}: covars_ must be symmetric")
    try:
        np.linalg.cholesky(given)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"{who}: covars_ must be positive definite") from error
    return family.factor(given)


def probabilities(value: Any, shape: tuple[int, ...], name: str, who: str) -> Array:
    """Return an array of probabilities that sum to one over the last axis, checked."""
    given = _exactly(value, shape, name, who)
    if (given < 0.0).any() or not np.allclose(given.sum(axis=-1), 1.0, atol=1e-6):
        raise ValueError(
            f"{who}: {name} must be probabilities that sum to 1"
            + (" in every row" if given.ndim > 1 else "")
            + f"; the sums are {given.sum(axis=-1)}"
        )
    return given / given.sum(axis=-1, keepdims=True)


def _exactly(value: Any, shape: tuple[int, ...], name: str, who: str) -> Array:
    given = _numbers(value, name, who)
    if given.shape != shape:
        raise ValueError(f"{who}: {name} has shape {given.shape}; expected {shape}")
    if not np.isfinite(given).all():
        raise ValueError(f"{who}: {name} has NaN or infinity; expected finite numbers")
    return given


def _numbers(value: Any, name: str, who: str) -> Array:
    try:
        return np.array(value, dtype=np.float64)  # a copy: what is done to theirs stays theirs
    except (TypeError, ValueError) as error:
        raise ValueError(f"{who}: {name} is {value!r}; expected an array of numbers") from error


def _of_components(value: Any, lead: tuple[int, int], name: str, who: str) -> Array:
    """Parameters of the components of all states, one after another: (K M, ...)."""
    shape = np.shape(value)
    if shape[:2] != lead:
        raise ValueError(
            f"{who}: {name} has shape {shape}; expected {lead}, states by components, to come first"
        )
    return np.reshape(value, (lead[0] * lead[1], *shape[2:]))
