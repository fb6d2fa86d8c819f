"""Fitted models inside of estimators, as plain data: for artefacts of what is made of models."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.base import clone

from ppl_gen.posterior.storage import tree_with_draws, with_draws

Modules = Mapping[str, Any]

__all__ = ["fitted_models", "fitted_trees", "restored", "storable"]


def storable(model: Any) -> Any:
    """Return a model's settings, less what no artefact holds: the model, or a copy without them.

    Networks of the user's own are not saved, but for their weights, nor are random generators.
    """
    names = getattr(model, "module_settings", ())
    dropped = {name: None for name in names if hasattr(getattr(model, name), "state_dict")}
    if not isinstance(getattr(model, "random_state", None), int | None):
        dropped["random_state"] = None
    inner = getattr(model, "model", None)  # of a classifier by Bayes' rule
    if inner is not None and storable(inner) is not inner:
        dropped["model"] = storable(inner)
    return clone(model).set_params(**dropped) if dropped else model


def fitted_trees(models: Sequence[Any]) -> dict[str, Any]:
    """Return fitted models as plain data, with their posteriors."""
    # The one draw of a point fit follows from the parameters.
    posteriors = [getattr(model, "posterior_", None) for model in models]
    return {
        "models": [model.to_tree() for model in models],
        "posteriors": [None if p is None or p.is_point else tree_with_draws(p) for p in posteriors],
    }


def fitted_models(tree: dict[str, Any], kind: Any, modules: Modules) -> list[Any]:
    """Return what :func:`fitted_trees` gave, of models of a kind."""
    models = [restored(kind, model, modules) for model in tree["models"]]
    for model, kept in zip(models, tree["posteriors"], strict=True):
        if kept is not None:
            model._posterior = with_draws(kept, model.program())
    return models


def restored(kind: Any, tree: dict[str, Any], modules: Modules) -> Any:
    """Return a fitted model; networks of the user's own are copied, since it puts weights in."""
    return kind.from_tree(tree, copy.deepcopy(dict(modules))) if modules else kind.from_tree(tree)
