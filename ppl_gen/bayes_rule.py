"""Bayes' rule: every generative model classifies, and so does any program with a discrete site."""

import inspect
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_classifier
from sklearn.utils import _safe_indexing, assert_all_finite, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from ppl_gen.data import is_frame, is_missing, read_frame, with_categories
from ppl_gen.families import Categorical
from ppl_gen.posterior.storage import tree_with_draws, with_draws
from ppl_gen.sequences import arrange

Array = Any


class BayesClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify by Bayes' rule with one generative model a class.

    p(y = c | x) is proportional to p(y = c) p(x | y = c), the density of x under a clone of the
    model that was fitted to the rows of class c. After Bayesian fits that density is the
    posterior predictive, so that what is uncertain of it enters the probabilities.

    Parameters
    ----------
    model : GenerativeModel
        Cloned for every class.
    priors : None, "dirichlet" or (C,)
        Class probabilities: the empirical ones; their posterior mean under a uniform Dirichlet
        prior, (n_c + 1) / (n + C); or as given.

    Attributes
    ----------
    classes_ : (C,)
    class_prior_ : (C,)
    models_ : list of GenerativeModel
        One a class.
    density : str
        Kind of the model's `log_prob`, and with it of the probabilities.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ppl_gen import BayesClassifier, GaussianMixture
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = BayesClassifier(GaussianMixture(1)).fit(X, y)
    >>> round(classifier.score(X, y), 2)
    0.98
    """

    def __init__(self, model: Any, priors: Any = None) -> None:
        self.model = model
        self.priors = priors

    def fit(self, X: Any, y: Any) -> Self:
        """Fit one model a class.

        Parameters
        ----------
        X : table of (n, D), or a list of sequences
            Whatever the model takes.
        y : (n,)

        Returns
        -------
        self
        """
        if is_classifier(self.model):
            name = type(self.model).__name__
            raise TypeError(
                f"BayesClassifier.fit: {name} is a classifier itself; expected a model of p(x), "
                f"such as GaussianMixture or Mixture; fit {name} by itself"
            )
        X = self._check(X, reset=True)
        y = _labels(y)
        check_consistent_length(X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "BayesClassifier.fit: y has one class only; a classifier needs rows of 2 classes "
                "or more"
            )
        self.class_prior_ = self._class_prior(np.bincount(codes))
        # Every class must know the categories of all.
        pattern = _with_all_codes(self.model, X)
        models = []
        for code, label in enumerate(self.classes_.tolist()):
            rows = np.flatnonzero(codes == code)
            try:
                models.append(clone(pattern).fit(_safe_indexing(X, rows)))
            except ValueError as error:
                raise ValueError(
                    f"BayesClassifier.fit: class {label!r} ({len(rows)} rows) cannot be fitted: "
                    f"{error}"
                ) from error
        self.models_ = models
        return self

    def _class_prior(self, counts: Array) -> Array:
        if self.priors is None:
            return counts / counts.sum()
        if isinstance(self.priors, str):
            if self.priors != "dirichlet":
                raise ValueError(
                    f"BayesClassifier: priors is {self.priors!r}; expected None, 'dirichlet' or "
                    "an array"
                )
            return (counts + 1.0) / (counts.sum() + len(counts))
        priors = np.asarray(self.priors, dtype=np.float64)
        if priors.shape != counts.shape or (priors < 0.0).any() or not np.isclose(priors.sum(), 1):
            raise ValueError(
                f"BayesClassifier: priors must be {len(counts)} numbers, one a class, that sum to "
                f"1; got {self.priors!r}"
            )
        return priors

    def _check(self, X: Any, *, reset: bool) -> Any:
        """Check what concerns columns; the models check the rest."""
        if getattr(self.model, "takes_sequences", False):
            return _listed(X)
        if is_frame(X):
            X = with_categories(X)
        elif getattr(X, "ndim", 2) != 3:
            X = validate_data(
                self,
                X,
                reset=reset,
                dtype=None,
                accept_sparse="csr",
                ensure_all_finite="allow-nan",
            )
            return X
        _check_feature_names(self, X, reset=reset)
        _check_n_features(self, X, reset=reset)
        return X

    @property
    def density(self) -> str:
        """Kind of the model's `log_prob`."""
        kind: str = self.model.density
        return kind

    def _joint(self, X: Any) -> Array:
        """Log p(x, y = c): (n, C)."""
        check_is_fitted(self)
        X = self._check(X, reset=False)
        with np.errstate(divide="ignore"):
            prior = np.log(self.class_prior_)
        return np.stack([model.log_prob(X) for model in self.models_], axis=1) + prior

    def predict_log_proba(self, X: Any) -> Array:
        """Log probability of each class for each row: (n, C)."""
        return log_normalised(self._joint(X))

    def predict_proba(self, X: Any) -> Array:
        """Probability of each class for each row: (n, C)."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> Array:
        """Likeliest class of each row: (n,)."""
        joint = self._joint(X)
        return self.classes_[joint.argmax(axis=1)]

    def log_prob(self, X: Any, y: Any = None) -> Array:
        """Log density of each row, in nats: of X alone, or of (X, y) together: (n,)."""
        joint = self._joint(X)
        if y is None:
            top = joint.max(axis=1)
            return top + np.log(np.exp(joint - top[:, None]).sum(axis=1))
        y = column_or_1d(y)
        check_consistent_length(joint, y)
        unseen = np.setdiff1d(y, self.classes_)
        if len(unseen):
            raise ValueError(
                f"BayesClassifier.log_prob: y has labels {unseen.tolist()} that were not seen in "
                f"fit; the classes are {self.classes_.tolist()}"
            )
        return joint[np.arange(len(y)), np.searchsorted(self.classes_, y)]

    def sample(self, n_samples: int = 1, y: Any = None, random_state: Any = None) -> Any:
        """Draw rows, or sequences, and their classes.

        Parameters
        ----------
        n_samples : int
        y : class or (n_samples,) classes, optional
            Draw rows of these classes; by default classes follow `class_prior_`.
        random_state : int or None

        Returns
        -------
        X, y : table of (n_samples, D) or list of sequences, (n_samples,)
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(
                f"BayesClassifier.sample: n_samples is {n_samples}; it must be at least 1"
            )
        random = check_random_state(random_state)
        if y is None:
            codes = random.choice(len(self.classes_), size=n_samples, p=self.class_prior_)
        else:
            wanted = np.broadcast_to(np.asarray(y), (n_samples,))
            unknown = np.setdiff1d(wanted, self.classes_)
            if len(unknown):
                raise ValueError(
                    f"BayesClassifier.sample: {unknown.tolist()} are not classes; these are "
                    f"{self.classes_.tolist()}"
                )
            codes = np.searchsorted(self.classes_, wanted)
        present = np.unique(codes)
        draw = "sample_sequences" if getattr(self.model, "takes_sequences", False) else "sample"
        drawn = [
            getattr(self.models_[c], draw)(
                int((codes == c).sum()), random_state=random.randint(2**31)
            )
            for c in present
        ]
        # Drawn class by class, and put back in the order of the labels.
        order = np.argsort(np.argsort(codes, kind="stable"), kind="stable")
        table = _safe_indexing(_concatenated(drawn), order)
        if hasattr(table, "reset_index"):
            table = table.reset_index(drop=True)  # numbered as drawn, not as joined
        return table, self.classes_[codes]

    # -- keeping -------------------------------------------------------------------------------

    def save(self, path: Any, overwrite: bool = False) -> Any:
        """Save the fitted classifier to a directory; `ppl_gen.load` brings it back."""
        check_is_fitted(self)
        from ppl_gen import artifact

        fitted = {"classes_": self.classes_, "class_prior_": self.class_prior_}
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                fitted[name] = getattr(self, name)
        params = self.get_params(deep=False)
        if not isinstance(getattr(self.model, "random_state", None), int | None):
            params["model"] = clone(self.model).set_params(random_state=None)
        # The one draw of a point fit follows from the parameters.
        posteriors = [model.posterior_ for model in self.models_]
        tree = {
            "params": params,
            "fitted": fitted,
            "models": [model.to_tree() for model in self.models_],
            "posteriors": [None if p.is_point else tree_with_draws(p) for p in posteriors],
        }
        return artifact.write(
            path, kind="classifier", name=type(self).__name__, tree=tree, overwrite=overwrite
        )

    @classmethod
    def from_artifact(cls, artifact: Any, *, program: Any = None, modules: Any = None) -> Self:
        """Return the classifier that an artefact holds; called by `ppl_gen.load`."""
        tree = artifact.tree
        classifier = cls(**tree["params"])
        for name, value in tree["fitted"].items():
            setattr(classifier, name, value)
        kind = type(classifier.model)
        classifier.models_ = [kind.from_tree(model) for model in tree["models"]]
        for model, kept in zip(classifier.models_, tree["posteriors"], strict=True):
            if kept is not None:
                model._posterior = with_draws(kept, model.program())
        return classifier

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "models_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import get_tags

        tags = super().__sklearn_tags__()
        inner = get_tags(self.model).input_tags
        tags.input_tags.allow_nan = inner.allow_nan
        tags.input_tags.sparse = inner.sparse
        tags.input_tags.positive_only = inner.positive_only
        return tags


def _listed(X: Any) -> Any:
    """Read sequences, one a label: a list as it is, an array by its first axis."""
    if isinstance(X, list | tuple) and len(X) and is_frame(X[0]):
        table, arrangement = arrange(X, None, "BayesClassifier")
        return arrangement.restore(with_categories(table))
    if isinstance(X, list | tuple):
        widths = sorted({np.shape(item)[1] for item in X if np.ndim(item) == 2})
        if len(widths) > 1:
            raise ValueError(
                f"BayesClassifier: X has sequences of {widths[0]} and of {widths[1]} columns; "
                "expected one width"
            )
        return X
    if np.ndim(X) > 2:
        return X
    items = [] if isinstance(X, str) or np.ndim(X) == 0 or is_frame(X) else list(X)
    if not items or not (isinstance(items[0], str) or np.ndim(items[0])):
        raise ValueError(
            f"BayesClassifier: X is a {type(X).__name__} of what are no sequences; expected a list "
            "of sequences, one a label"
        )
    return items


def _labels(y: Any) -> Array:
    """Read labels of classes, all of them known: (n,)."""
    # NumPy reads a list of strings and NaN as strings, "nan" among them.
    listed = isinstance(y, list | tuple)
    y = column_or_1d(np.array(y, dtype=object) if listed else y, warn=True)
    missing = sum(map(is_missing, y)) if y.dtype.kind in "fO" else 0
    if missing:
        raise ValueError(
            f"BayesClassifier.fit: y has {missing} missing labels (NaN or None); expected the "
            "class of every row; drop these rows, or let NaiveBayes learn from them"
        )
    y = np.asarray(y.tolist()) if listed else y
    assert_all_finite(y, input_name="y")
    return y


def _with_all_codes(model: Any, X: Any) -> Any:
    """Return the model with the numbers of categories that all rows have, where none are set."""
    for name in ("with_states_of", "with_codes_of"):
        if hasattr(model, name):
            return getattr(model, name)(X)
    family = getattr(model, "family", None)
    families = family if isinstance(family, dict) else {None: family}
    if not any(_counts_codes(part) for part in families.values()):
        return model
    if is_frame(X):
        values, schema = read_frame(X, "BayesClassifier.fit")
        names = schema.names
    else:
        try:
            values, names = np.asarray(X, dtype=np.float64), list(range(X.shape[1]))
        except (TypeError, ValueError):
            return model  # which refuses what is not numbers, and says so
    highest = np.nanmax(values, axis=0, initial=0.0)
    sizes = dict(zip(names, (int(code) + 1 for code in highest), strict=True))

    def knowing(part: Any, columns: list[Any]) -> Any:
        if not _counts_codes(part):
            return part
        part = Categorical() if isinstance(part, str) else part
        return part.replace(n_categories=tuple(sizes[column] for column in columns))

    if isinstance(family, dict):
        # The models refuse columns that X does not have.
        known = {c: knowing(part, [c]) if c in sizes else part for c, part in family.items()}
        return clone(model).set_params(family=known)
    return clone(model).set_params(family=knowing(family, names))


def _counts_codes(family: Any) -> bool:
    """Tell whether a family takes its categories from the codes that it sees."""
    if isinstance(family, Categorical):
        return family.n_categories is None
    return isinstance(family, str) and family == Categorical.name


def _concatenated(tables: Sequence[Any]) -> Any:
    """Join tables of one kind, row after row."""
    first = tables[0]
    if isinstance(first, list):
        return [row for table in tables for row in table]
    if is_frame(first):
        if type(first).__module__.startswith("polars"):
            import polars

            return polars.concat(tables)
        import pandas

        return pandas.concat(tables, ignore_index=True)
    return np.concatenate(tables)


def log_normalised(joint: Array) -> Array:
    """Normalise log joint densities over the last axis."""
    top = joint.max(axis=-1, keepdims=True)
    return joint - top - np.log(np.exp(joint - top).sum(axis=-1, keepdims=True))


def classify(posterior: Any, site: str, *args: Any, seed: int = 0, **new_data: Any) -> Array:
    """Probabilities of a discrete site of any program, given its posterior.

    Parameters
    ----------
    posterior : Posterior
        From `ppl_gen.infer`, or a fitted model's ``posterior_``.
    site : str
        A discrete latent (a sampled site, or the ``latent`` of a `Mixture`, a `HiddenMarkov` or
        a `BayesNet`), or an observed label, which is scored at each value of its support.
    *args, **new_data
        Data of the program to classify, in place of those fitted.
    seed : int

    Returns
    -------
    (n, K) array
        Rows of the site's plates, and the values of its support. Of a hidden Markov chain
        (n, T, K), or (T, K) outside of plates: the smoothed probabilities of each step's state.

    Notes
    -----
    On the data that were fitted it is the mean over draws of p(z | data, draw). New data also
    tell of the parameters: draws then weigh in by the density they give to them,
    p(z | x) = sum_s p(x, z | s) / sum_s p(x | s).

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import GaussianMixture, classify
    >>> X = np.concatenate([np.arange(5.0), 50 + np.arange(5.0)])[:, None]
    >>> model = GaussianMixture(2, random_state=0).fit(X)
    >>> classify(model.posterior_, "z").round().shape
    (10, 2)
    """
    from ppl_gen.engines.discrete import discrete_log_joint
    from ppl_gen.posterior.arguments import replaced

    engine, native = posterior.native("classify")
    if args or new_data:
        names = list(inspect.signature(posterior.model).parameters)
        new_data = {**dict(zip(names, args, strict=False)), **new_data}
    arguments = replaced(posterior.model, posterior.args, posterior.kwargs, new_data)
    draws = posterior.latent_draws()
    with posterior.precision(engine):
        joint = discrete_log_joint(engine, native, *arguments, draws, site, seed=seed)
    if new_data:
        top = joint.max(axis=(0, -1), keepdims=True)
        pooled: Array = np.exp(joint - top).sum(axis=0)
        return pooled / pooled.sum(axis=-1, keepdims=True)
    return np.exp(log_normalised(joint)).mean(axis=0)
