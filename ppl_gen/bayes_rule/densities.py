"""The densities of the classes: a model of each, or one that is conditional on the class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils import _safe_indexing

from ppl_gen.bayes_rule.keeping import fitted_models, fitted_trees, restored
from ppl_gen.bayes_rule.reading import concatenated, with_all_codes

Array = Any
Modules = Mapping[str, Any]

__all__ = ["OneEach", "Shared"]


class OneEach:
    """One model a class, each fitted to the rows of its own.

    Parameters
    ----------
    models : list of GenerativeModel
    """

    def __init__(self, models: list[Any]) -> None:
        self.models = models

    @classmethod
    def fit(cls, model: Any, X: Any, labels: Array, codes: Array, weights: Array | None) -> Self:
        """Fit a clone of the model for every class."""
        # Every class must know the categories of all, and its network what values are like.
        pattern = with_all_codes(model, X)
        told = hasattr(pattern, "with_facts_of")
        models = []
        for code, label in enumerate(labels.tolist()):
            rows = np.flatnonzero(codes == code)
            try:
                one = pattern.with_facts_of(X) if told else clone(pattern)
                one = _with_own_checkpoint(one, code)
                weighing = {} if weights is None else {"sample_weight": weights[rows]}
                models.append(one.fit(_safe_indexing(X, rows), **weighing))
            except (ValueError, FloatingPointError) as error:
                kind = ValueError if isinstance(error, ValueError) else FloatingPointError
                raise kind(
                    f"BayesClassifier.fit: class {label!r} ({len(rows)} rows) cannot be fitted: "
                    f"{error}"
                ) from error
        return cls(models)

    def log_prob(self, X: Any) -> Array:
        """Log density of each row under each class: (n, C)."""
        return np.stack([model.log_prob(X) for model in self.models], axis=1)

    def sample(self, codes: Array, random: np.random.RandomState) -> Any:
        """Draw a row, or sequence, of each of these classes."""
        draw = "sample_sequences" if getattr(self.models[0], "takes_sequences", False) else "sample"
        drawn = [
            getattr(self.models[c], draw)(
                int((codes == c).sum()), random_state=random.randint(2**31)
            )
            for c in np.unique(codes)
        ]
        # Drawn class by class, and put back in the order of the labels.
        order = np.argsort(np.argsort(codes, kind="stable"), kind="stable")
        table = _safe_indexing(concatenated(drawn), order)
        if hasattr(table, "reset_index"):
            table = table.reset_index(drop=True)  # numbered as drawn, not as joined
        return table

    def to_tree(self) -> dict[str, Any]:
        """Return the models as plain data, for an artefact."""
        return fitted_trees(self.models)

    @classmethod
    def from_tree(cls, tree: dict[str, Any], kind: Any, labels: Array, modules: Modules) -> Self:
        """Return what :meth:`to_tree` gave, of models of a kind."""
        return cls(fitted_models(tree, kind, modules))


class Shared:
    """One model of all rows, with their class as its context.

    Parameters
    ----------
    model : GenerativeModel
        Its ``log_prob`` and ``sample`` take a context.
    labels : (C,) array
        The classes.
    """

    def __init__(self, model: Any, labels: Array) -> None:
        self.model = model
        self.labels = labels

    @property
    def models(self) -> list[Any]:
        """The model, alone."""
        return [self.model]

    @classmethod
    def fit(cls, model: Any, X: Any, labels: Array, codes: Array, weights: Array | None) -> Self:
        """Fit a clone of the model to all rows."""
        weighing = {} if weights is None else {"sample_weight": weights}
        return cls(clone(model).fit(X, context=labels[codes], **weighing), labels)

    def log_prob(self, X: Any) -> Array:
        """Log density of each row under each class: (n, C)."""
        return np.stack([self.model.log_prob(X, context=label) for label in self.labels], axis=1)

    def sample(self, codes: Array, random: np.random.RandomState) -> Any:
        """Draw a row of each of these classes."""
        seed = random.randint(2**31)
        return self.model.sample(len(codes), random_state=seed, context=self.labels[codes])

    def to_tree(self) -> dict[str, Any]:
        """Return the model as plain data, for an artefact."""
        return {"models": [self.model.to_tree()]}

    @classmethod
    def from_tree(cls, tree: dict[str, Any], kind: Any, labels: Array, modules: Modules) -> Self:
        """Return what :meth:`to_tree` gave, of a model of a kind."""
        return cls(restored(kind, tree["models"][0], modules), labels)


def _with_own_checkpoint(model: Any, code: int) -> Any:
    """Let each class resume its own training: a checkpoint of other rows is refused."""
    name = "inference__training__checkpoint"
    folder = model.get_params().get(name)
    return model if folder is None else model.set_params(**{name: Path(folder) / f"class_{code}"})
