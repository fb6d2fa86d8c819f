"""A classifier by Bayes' rule from densities of its classes."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, is_classifier
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    has_fit_parameter,
    validate_data,
)

from ppl_gen.bayes_rule.densities import OneEach, Shared
from ppl_gen.bayes_rule.keeping import storable
from ppl_gen.bayes_rule.reading import labels, listed
from ppl_gen.bayes_rule.sites import log_normalised
from ppl_gen.counts import check_count
from ppl_gen.data import counted_rows, is_frame, to_numpy, with_categories

Array = Any


class BayesClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify by Bayes' rule with one generative model a class, or with a conditional one.

    p(y = c | x) is proportional to p(y = c) p(x | y = c), the density of x under a clone of the
    model that was fitted to the rows of class c. After Bayesian fits that density is the
    posterior predictive, so that what is uncertain of it enters the probabilities. Where the
    model's density is a lower bound, as a VAE's, so are the probabilities made of bounds.

    Parameters
    ----------
    model : GenerativeModel
        Cloned for every class.
    priors : None, "dirichlet" or (C,)
        Class probabilities: the empirical ones; their posterior mean under a uniform Dirichlet
        prior, (n_c + 1) / (n + C), where n_c is the number, or sum of weights, of a class's rows;
        or as given.
    shared : bool
        Fit one model to all rows, with the class as its context, so that classes share what they
        have in common: for models that take a context, as flows, VAEs and autoregressive ones.

    Attributes
    ----------
    classes_ : (C,)
    class_prior_ : (C,)
    models_ : list of GenerativeModel
        One a class, or the one that is shared.
    n_features_in_ : int
        Columns of X; `feature_names_in_` are their names, where X is a frame. Not of sequences.
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

    def __init__(self, model: Any, priors: Any = None, shared: bool = False) -> None:
        self.model = model
        self.priors = priors
        self.shared = shared

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit one model a class, or the conditional one.

        Parameters
        ----------
        X : table of (n, D), images of (n, H, W) or (n, H, W, C), or a list of sequences
            Whatever the model takes.
        y : (n,)
        sample_weight : (n,) or None
            Weights of the rows, or of whole sequences, in the models and in the priors that are
            learned. A row of weight zero is left out.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If the model is none of p(x) or a classifier, is to be shared but takes no context, or
            is to weigh rows but its ``fit`` takes no ``sample_weight``.
        ValueError
            If labels are missing or all the same, weights are negative or all zero, priors are
            not one a class, or the rows of a class cannot be fitted.
        """
        self._check_model()
        if y is None:
            raise ValueError(
                "BayesClassifier.fit: requires y to be passed, but the target y is None; give the "
                "class of every row"
            )
        if sample_weight is not None:
            if not has_fit_parameter(self.model, "sample_weight"):
                name = type(self.model).__name__
                raise TypeError(
                    f"BayesClassifier.fit: sample_weight was given, but {name}.fit takes none; "
                    "leave it out, or take a model that weighs rows, such as GaussianMixture"
                )
            sample_weight, X, y = counted_rows(sample_weight, X, y)
        X = self._check(X, reset=True)
        y = labels(y)
        check_consistent_length(X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "BayesClassifier.fit: y has one class only; a classifier needs rows of 2 classes "
                "or more"
            )
        self.class_prior_ = self._class_prior(np.bincount(codes, sample_weight))
        kind = Shared if self.shared else OneEach
        self._densities = kind.fit(self.model, X, self.classes_, codes, sample_weight)
        self.models_ = self._densities.models
        return self

    def _check_model(self) -> None:
        """Refuse what is no model of p(x), or of p(x | class) where that is asked for."""
        lacking = [n for n in ("fit", "log_prob") if not hasattr(self.model, n)]
        if lacking or isinstance(self.model, type):
            what = self.model.__name__ if isinstance(self.model, type) else repr(self.model)
            why = f"has no {lacking[0]}" if lacking else "is a class"
            raise TypeError(
                f"BayesClassifier.fit: model is {what}, which {why}; expected a model of p(x) of "
                "ppl_gen, such as GaussianMixture()"
            )
        if is_classifier(self.model):
            name = type(self.model).__name__
            raise TypeError(
                f"BayesClassifier.fit: {name} is a classifier itself; expected a model of p(x), "
                f"such as GaussianMixture or Mixture; fit {name} by itself"
            )
        if self.shared and not getattr(self.model, "takes_context", False):
            name = type(self.model).__name__
            raise TypeError(
                f"BayesClassifier.fit: {name} takes no context, which shared=True gives it the "
                "class by; expected a conditional model, such as NormalizingFlow or VAE, or "
                "shared=False, which fits one model a class"
            )

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
        priors = np.asarray(self.priors)
        numbers = priors.dtype.kind in "iuf" and priors.shape == counts.shape
        if not numbers or (priors < 0.0).any() or not np.isclose(priors.sum(), 1.0):
            raise ValueError(
                f"BayesClassifier: priors must be {len(counts)} numbers, one a class, that sum to "
                f"1; got {self.priors!r}"
            )
        return priors.astype(np.float64)

    def _check(self, X: Any, *, reset: bool) -> Any:
        """Check what concerns columns; the models check the rest."""
        if getattr(self.model, "takes_sequences", False):
            return listed(X)
        if is_frame(X):
            X = with_categories(X)
        elif getattr(X, "ndim", 2) > 2:
            X = to_numpy(X)
            if reset:  # the model knows what shape its images have
                _check_n_features(self, X.reshape(len(X), -1), reset=True)
            return X
        else:
            return validate_data(
                self,
                X,
                reset=reset,
                dtype=None,
                accept_sparse="csr",
                ensure_all_finite="allow-nan",
            )
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
        return self._densities.log_prob(X) + prior

    def predict_log_proba(self, X: Any) -> Array:
        """Log probability of each class for each row: (n, C).

        A row whose density is zero under every class tells none apart, and has the priors.
        """
        joint = self._joint(X)
        told = (joint > -np.inf).any(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            return log_normalised(np.where(told, joint, np.log(self.class_prior_)))

    def predict_proba(self, X: Any) -> Array:
        """Probability of each class for each row: (n, C)."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> Array:
        """Likeliest class of each row: (n,)."""
        best = self.predict_log_proba(X).argmax(axis=1)
        return self.classes_[best]

    def log_prob(self, X: Any, y: Any = None) -> Array:
        """Log density of each row, in nats: of X alone, or of (X, y) together.

        Parameters
        ----------
        X : as in fit, of n
        y : (n,) classes, optional

        Returns
        -------
        (n,) array
            log p(x), the classes summed out; or log p(x, y).

        Raises
        ------
        ValueError
            If a label was not seen in fit, or lengths differ.
        """
        joint = self._joint(X)
        if y is None:
            return np.logaddexp.reduce(joint, axis=1)
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
        X, y : table of (n_samples, D), images or list of sequences, (n_samples,)

        Raises
        ------
        ValueError
            If `n_samples` is below 1, or y holds what is no class, or is of another length.
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", "BayesClassifier.sample")
        random = check_random_state(random_state)
        if y is None:
            codes = random.choice(len(self.classes_), size=n_samples, p=self.class_prior_)
        else:
            if np.shape(y) not in ((), (1,), (n_samples,)):
                raise ValueError(
                    f"BayesClassifier.sample: y has shape {np.shape(y)}; expected one class, or "
                    f"one for each of the n_samples={n_samples} rows"
                )
            wanted = np.broadcast_to(np.asarray(y), (n_samples,))
            unknown = np.setdiff1d(wanted, self.classes_)
            if len(unknown):
                raise ValueError(
                    f"BayesClassifier.sample: {unknown.tolist()} are not classes; these are "
                    f"{self.classes_.tolist()}"
                )
            codes = np.searchsorted(self.classes_, wanted)
        return self._densities.sample(codes, random), self.classes_[codes]

    # -- keeping -------------------------------------------------------------------------------

    def save(self, path: Any, overwrite: bool = False) -> Any:
        """Save the fitted classifier to a directory; `ppl_gen.load` brings it back.

        Parameters
        ----------
        path : str or path
        overwrite : bool
            Replace an artefact that is there.

        Raises
        ------
        FileExistsError
            If something is there and `overwrite` is false.
        """
        check_is_fitted(self)
        from ppl_gen import artifact

        name = type(self).__name__
        return artifact.write(
            path, kind="classifier", name=name, tree=self.to_tree(), overwrite=overwrite
        )

    def to_tree(self) -> dict[str, Any]:
        """Return the fitted classifier as plain data, less the networks of the user's own."""
        fitted = {"classes_": self.classes_, "class_prior_": self.class_prior_}
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                fitted[name] = getattr(self, name)
        return {
            "params": self.get_params(deep=False) | {"model": storable(self.model)},
            "fitted": fitted,
            "shared": isinstance(self._densities, Shared),  # whatever was set since
            "densities": self._densities.to_tree(),
        }

    @classmethod
    def from_tree(cls, tree: dict[str, Any], modules: Mapping[str, Any] | None = None) -> Self:
        """Return the fitted classifier that :meth:`to_tree` gave."""
        classifier = cls(**tree["params"])
        if modules:
            classifier.model.set_params(**modules)
        for name, value in tree["fitted"].items():
            setattr(classifier, name, value)
        kind = Shared if tree.get("shared", classifier.shared) else OneEach
        classifier._densities = kind.from_tree(
            tree["densities"], type(classifier.model), classifier.classes_, modules or {}
        )
        classifier.models_ = classifier._densities.models
        return classifier

    @classmethod
    def from_artifact(cls, artifact: Any, *, program: Any = None, modules: Any = None) -> Self:
        """Return the classifier that an artefact holds; called by `ppl_gen.load`."""
        return cls.from_tree(artifact.tree, modules)

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
