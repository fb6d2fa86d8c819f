"""hmmlearn's models in and out, and models made of parameters alone."""

from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

from ppl_gen.algorithms.trees import tree_map
from ppl_gen.data import Column, Schema
from ppl_gen.families import (
    Bernoulli,
    Categorical,
    Family,
    MixtureFamily,
    Multinomial,
    Normal,
    Poisson,
)
from ppl_gen.families.discrete import LEAST_PROBABILITY
from ppl_gen.inference.em import EM
from ppl_gen.models.hidden_markov.names import (
    LETTERS,
    compact,
    from_names,
    letters_of,
    to_names,
)

Array = Any

#: hmmlearn's classes, and the emissions that they have here.
EMISSIONS = {
    "GaussianHMM": "gaussian",
    "GMMHMM": "gmm",
    "CategoricalHMM": "categorical",
    "PoissonHMM": "poisson",
    "MultinomialHMM": "multinomial",
}


def settings_of(peer: Any) -> dict[str, Any]:
    """Hyperparameters of a model of hmmlearn, as ours.

    Raises
    ------
    TypeError
        If it is of another class.
    ValueError
        If its covariances are tied within each state, which no family here is.
    """
    kind = next((c.__name__ for c in type(peer).__mro__ if c.__name__ in EMISSIONS), None)
    if kind is None:
        raise TypeError(
            f"HiddenMarkovModel.from_hmmlearn: {type(peer).__name__} is none of "
            f"{', '.join(EMISSIONS)}; convert one of these, or set startprob_, transmat_ and the "
            "emissions' attributes yourself"
        )
    settings = {
        "n_components": peer.n_components,
        "emission": EMISSIONS[kind],
        "startprob_prior": peer.startprob_prior,
        "transmat_prior": peer.transmat_prior,
        "algorithm": peer.algorithm,
        "init_params": peer.init_params,
        "params": peer.params,
        # Their tol is of all the data together, which are not known here, but for "never".
        "inference": EM(max_iter=peer.n_iter, tol=None if peer.tol > 0.0 else 0.0),
    }
    if kind in ("GaussianHMM", "GMMHMM"):
        settings["covariance_type"] = peer.covariance_type
    if kind == "GaussianHMM" and not (np.any(peer.covars_prior) or np.any(peer.covars_weight)):
        settings["min_covar"] = 0.0  # maximum likelihood there, too
    if kind == "GMMHMM":
        settings["n_mix"] = peer.n_mix
        if peer.covariance_type == "tied":
            raise ValueError(
                "HiddenMarkovModel.from_hmmlearn: the GMMHMM has one covariance for all components "
                "of a state (covariance_type='tied'), which no family here has; use 'full'"
            )
    if isinstance(peer.random_state, int):
        settings["random_state"] = peer.random_state
    return settings


def total_of(peer: Any) -> int | None:
    """Counts in a row that a model of hmmlearn draws, or None."""
    trials = getattr(peer, "n_trials", None)
    return None if trials is None else round(float(np.mean(trials)))


def attributes_of(peer: Any) -> dict[str, Array]:
    """Fitted parameters of a model of hmmlearn, by their names."""
    names = [name for name in LETTERS.values() if name != "covars_" and hasattr(peer, name)]
    named = {name: np.array(getattr(peer, name), dtype=np.float64) for name in names}
    if "startprob_" not in named or "transmat_" not in named:
        raise ValueError(
            "HiddenMarkovModel.from_hmmlearn: the model has no parameters yet; fit it, or set "
            "startprob_, transmat_ and the emissions' attributes"
        )
    if hasattr(peer, "covars_"):
        # The property of a GaussianHMM gives matrices, wrong ones if spherical.
        covariances = np.array(getattr(peer, "_covars_", peer.covars_), dtype=np.float64)
        spherical = getattr(peer, "covariance_type", "") == "spherical"
        if spherical and type(peer).__name__ == "GaussianHMM" and covariances.ndim == 2:
            covariances = covariances[:, 0]
        named["covars_"] = covariances
    return named


def adopt(model: Any, named: dict[str, Array], who: str, total: int | None = None) -> None:
    """Make a fitted model of parameters alone, given by hmmlearn's names.

    Multinomial rows are drawn with this `total`; by default it is the number of columns.

    Raises
    ------
    NotFittedError
        If some are missing.
    ValueError
        If they are no parameters.
    """
    rows = _rows_like(named, who)
    n_states = int(model.n_components)
    integer = "lambdas_" in named or "emissionprob_" in named
    dtype = "int64" if integer else "float64"
    model.schema_ = Schema("numpy", (Column(None, "number", dtype),) * rows.shape[1])
    family = model._family()
    if isinstance(family, Categorical):
        sizes = (np.shape(named["emissionprob_"])[1],)
        rows, family = np.zeros((1, 1)), family.replace(n_categories=sizes)
        model.schema_ = Schema("numpy", (Column(None, "number", dtype),))
    bound = family.bind(rows, n_states)
    if total is not None and isinstance(bound, Multinomial):
        bound = bound.replace(total=total)
    structure = model._chain(bound)
    needed = [LETTERS[letter] for letter in "st" + letters_of(structure.family)]
    missing = [name for name in needed if name not in named]
    if missing or not letters_of(structure.family):
        raise NotFittedError(
            f"{who}: the model is not fitted, and {', '.join(missing) or 'its emission'} "
            "cannot be taken from attributes; fit it first"
        )
    start = structure.initialize_shapes()
    named = {name: named[name] for name in needed}
    start["family"] = from_names(structure.family, named, start["family"], who)
    start |= model._chain_parameters(named, structure, who)
    model.structure_ = structure
    model.n_features_in_ = rows.shape[1]
    model.parameters_ = tree_map(lambda leaf: np.asarray(leaf)[None], _floored(family, start))
    model.lengths_ = np.zeros(0, dtype=np.intp)
    model.fitted_digests_ = np.zeros(0, dtype=np.int64)
    model._training = model._posterior = None
    model._publish()


def adopt_changed(model: Any) -> None:
    """Take the parameters that were set as attributes since the model published its own.

    Raises
    ------
    ValueError
        If they are no parameters, or the model has draws of them.
    """
    published = getattr(model, "_published", {})
    changed = [
        name
        for name, value in published.items()
        if hasattr(model, name) and not np.array_equal(getattr(model, name), value)
    ]
    if not changed:
        return
    who, names = model._who, ", ".join(changed)
    if model._n_draws > 1:
        raise ValueError(
            f"{who}: {names} was set after a Bayesian fit, whose parameters are all its draws; set "
            "attributes of a model that is not fitted, or fit by EM"
        )
    if not len(model.lengths_):  # made of attributes alone: widths may change, too
        total = getattr(model.structure_.family, "total", None)
        adopt(model, {name: getattr(model, name) for name in published}, who, total)
        return
    structure, parameters = model.structure_, model._draw(0)
    named = {name: getattr(model, name) for name in changed}
    found = from_names(structure.family, named, parameters["family"], who)
    parameters = {**parameters, "family": found, **model._chain_parameters(named, structure, who)}
    parameters = _floored(structure.family, parameters)
    model.parameters_ = tree_map(lambda leaf: np.asarray(leaf)[None], parameters)
    model._posterior = None
    model._publish()


def _rows_like(named: dict[str, Array], who: str) -> Array:
    """Rows that a family can be bound to, for its width."""
    for name in ("means_", "lambdas_"):
        if name in named:
            rows = np.asarray(named[name], dtype=np.float64).reshape(-1, np.shape(named[name])[-1])
            return np.rint(rows) if name == "lambdas_" else rows
    if "emissionprob_" in named:
        return np.ones((2, np.shape(named["emissionprob_"])[1]))
    raise NotFittedError(
        f"{who}: the model is not fitted; fit it, or set startprob_, transmat_ and means_ and "
        "covars_, lambdas_ or emissionprob_"
    )


def _floored(family: Family, start: dict[str, Any]) -> dict[str, Any]:
    """Keep probabilities and rates of emissions off zero, as families do."""
    floors = {"probs": LEAST_PROBABILITY, "rate": 1e-12}
    emissions = {
        name: np.maximum(value, floors[name]) if name in floors else value
        for name, value in start["family"].items()
    }
    if isinstance(family, Bernoulli):
        emissions["probs"] = np.minimum(emissions["probs"], 1.0 - 1e-12)
    return {**start, "family": emissions}


def to_peer(model: Any) -> Any:
    """Return the fitted model as hmmlearn's; after a Bayesian fit, at the means of the draws.

    Raises
    ------
    ValueError
        If hmmlearn has no such emission.
    """
    from hmmlearn import hmm

    family = model.structure_.family
    common = {
        "startprob_prior": model.startprob_prior,
        "transmat_prior": model.structure_.transition_prior,
        "algorithm": model.algorithm,
        "random_state": model.random_state,
    }
    letters = "st" + letters_of(family)
    for name in ("init_params", "params"):
        common[name] = "".join(letter for letter in letters if letter in getattr(model, name))
    method = model._resolved_method()
    if isinstance(method, EM):
        own = model.structure_.em_settings
        common["n_iter"] = method.max_iter or own["max_iter"]
        if len(model.lengths_):
            tol = own["tol"] if method.tol is None else method.tol
            common["tol"] = tol * int(model.lengths_.sum())
    peer: Any
    if isinstance(family, Normal):
        peer = hmm.GaussianHMM(
            model.n_components,
            family.covariance_type,
            covars_prior=0.0,
            covars_weight=0.0,
            **common,
        )
    elif isinstance(family, MixtureFamily) and isinstance(family.family, Normal):
        kind = family.family.covariance_type
        peer = hmm.GMMHMM(model.n_components, family.n_components, covariance_type=kind, **common)
    elif isinstance(family, Poisson):
        peer = hmm.PoissonHMM(model.n_components, **common)
    elif isinstance(family, Categorical) and family.n_columns == 1:
        peer = hmm.CategoricalHMM(model.n_components, **common)
    elif isinstance(family, Multinomial):
        peer = hmm.MultinomialHMM(model.n_components, n_trials=family.total, **common)
    else:
        raise ValueError(
            f"HiddenMarkovModel.to_hmmlearn: hmmlearn has no {family.name} emissions of "
            f"{family.n_columns} columns; it has {', '.join(EMISSIONS)}"
        )
    peer.startprob_, peer.transmat_ = model.startprob_, model.transmat_
    draws = [to_names(family, model._draw(s)["family"]) for s in range(model._n_draws)]
    named = {name: np.mean([draw[name] for draw in draws], axis=0) for name in draws[0]}
    peer.n_features = named["emissionprob_"].shape[1] if "emissionprob_" in named else 0
    peer.n_features = peer.n_features or family.n_columns
    for name, value in named.items():
        if name == "covars_":
            normal: Any = family.family if isinstance(family, MixtureFamily) else family
            lead = value.shape[:-2]
            value = compact(normal, value.reshape(-1, *value.shape[-2:]))
            value = value if len(lead) == 1 else value.reshape(*lead, *value.shape[1:])
        setattr(peer, name, value)
    return peer
