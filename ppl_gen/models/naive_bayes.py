"""Naive Bayes: a family a column, classes partly or wholly known, missing values and all."""

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from ppl_gen.algorithms.trees import tree_map, tree_sum
from ppl_gen.data import Rows, is_missing
from ppl_gen.engines.devices import resolve_device
from ppl_gen.families import Family, Normal
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.em import EM
from ppl_gen.row_estimator import RowModel
from ppl_gen.structures.family_choice import choose_family
from ppl_gen.structures.latent_class import LatentClass

Array = Any


class NaiveBayes(ClassifierMixin, RowModel):  # type: ignore[misc]
    """Naive Bayes classifier over columns of any kind.

    Within a class the columns are independent, each from its own family; the class follows by
    Bayes' rule. Missing entries are left out exactly, in fit and in prediction.

    Parameters
    ----------
    family : "auto", str, dict or Family
        ``"auto"`` reads it off the columns of a DataFrame: numbers are normal, booleans
        Bernoulli, categories categorical; an array is normal. A name ("normal", "bernoulli",
        "categorical", "multinomial", "poisson") or a `Family` is for all columns; a dict from
        column names (places, for arrays) to names or families is for some. scikit-learn's
        GaussianNB, BernoulliNB, CategoricalNB and MultinomialNB are the names alone.
    alpha : float
        Prior count of the discrete families that are chosen by name or by "auto".
    var_smoothing : float
        Share of the largest variance that is added to every variance of the normal columns.
    priors : (C,) or None
        Class probabilities; by default the empirical ones.
    class_concentration : float
        Prior count of every class: class probabilities are Dirichlet(1 + class_concentration).
    inference : str, EM, SVI, NUTS or None
        By default, EM: with all classes known one pass over the data.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of SVI and NUTS; by default float64.

    Attributes
    ----------
    classes_ : (C,)
    class_prior_ : (C,)
    class_count_ : (C,)
        Weight of the labelled rows of each class.
    theta_, var_ : (C, D)
        Means and variances, where all columns are normal.
    parameters_ : dict of arrays
        With a leading axis of draws: one, after EM.
    posterior_ : Posterior

    Notes
    -----
    Rows whose label is -1 (NaN or None) are unlabelled, and take part through EM (Nigam et al.,
    Machine Learning 39, 2000). Where -1 and one other are the only labels, both are classes.

    Examples
    --------
    >>> import pandas as pd
    >>> from ppl_gen import NaiveBayes
    >>> X = pd.DataFrame({"size": [1.0, 1.2, None, 3.1], "colour": ["red", "red", "blue", "blue"]})
    >>> model = NaiveBayes().fit(X, ["a", "a", "b", "b"])
    >>> model.predict(pd.DataFrame({"size": [1.1, None], "colour": [None, "blue"]})).tolist()
    ['a', 'b']
    """

    methods: ClassVar[tuple[str, ...]] = ("em", "svi", "nuts")

    def __init__(
        self,
        family: Any = "auto",
        alpha: float = 1.0,
        var_smoothing: float = 1e-9,
        priors: Any = None,
        class_concentration: float = 0.0,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.family = family
        self.alpha = alpha
        self.var_smoothing = var_smoothing
        self.priors = priors
        self.class_concentration = class_concentration
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # -- fitting -------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "NaiveBayes":
        """Fit the classifier.

        Parameters
        ----------
        X : table of (n, D)
        y : (n,)
            Labels; -1, NaN or None where unknown.
        sample_weight : (n,) or None

        Returns
        -------
        self
        """
        method = self._resolved_method()
        resolve_device(self.device)
        self._forget()
        classes, labels = self._encode_labels(y)
        rows = self._read_rows(X, sample_weight, labels)
        labels = np.asarray(rows.labels)
        if len(classes) < 2:
            raise ValueError(
                "NaiveBayes.fit: y has one class only; a classifier needs rows of 2 classes or "
                "more (a label -1 means unlabelled)"
            )
        self.classes_ = classes
        self._check_priors()
        structure = self._bound(rows)
        if (
            isinstance(method, EM)
            and (labels >= 0).all()
            and structure.family.is_one_pass(rows.values)
        ):
            near = structure.near(rows)
            statistics = structure.labelled_statistics(near, rows)
            self._reset()
            self._set_labelled(structure, near, statistics)
            self._keep_training(rows)
        else:
            self._fit_structure(structure, rows, method)
        known = np.where(labels >= 0, 1.0 if rows.weights is None else rows.weights, 0.0)
        self.class_count_ = np.bincount(np.maximum(labels, 0), known, len(classes))
        self._publish()
        return self

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> "NaiveBayes":
        """Fit on one more batch; after the last, the fit is that of all the rows together.

        Parameters
        ----------
        X : table of (n, D)
        y : (n,)
            Labels, all known.
        classes : (C,)
            All classes there will be; needed at the first call.
        sample_weight : (n,) or None

        Notes
        -----
        What the families read off the data (categories, the variance floor) comes from the
        first batch: declare categories as a pandas categorical.
        """
        first = not hasattr(self, "statistics_")
        if first:
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self._forget()
            self.classes_ = np.unique(column_or_1d(classes))
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                f"{self.classes_!r}"
            )
        y = column_or_1d(y, warn=True)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"NaiveBayes.partial_fit: y has labels {unknown.tolist()} that are not among the "
                f"classes {self.classes_.tolist()}"
            )
        values = self._read(X, reset=first)
        check_consistent_length(values, y)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, values, ensure_non_negative=True)
        rows = Rows(values, weights, np.searchsorted(self.classes_, y))
        if first:
            self._check_priors()
            self.structure_ = self._structure(rows)
            origin = self.structure_.near(rows)
        else:
            self.structure_.family.check(values)
            origin = self.origin_
        if not self.structure_.family.is_one_pass(values):
            raise ValueError(
                "NaiveBayes.partial_fit: a mixture within classes, or NaN in columns that share a "
                "covariance, takes more than one pass; use fit, or Normal('diag')"
            )
        fresh = self.structure_.labelled_statistics(origin, rows)
        total = fresh if first else tree_sum([self.statistics_, fresh])
        self._set_labelled(self.structure_, origin, total)
        self._training = None
        self.class_count_ = total["weights"]
        self._publish()
        return self

    def _forget(self) -> None:
        """Drop what batches have summed."""
        for name in ("statistics_", "origin_"):
            if hasattr(self, name):
                delattr(self, name)

    def _set_labelled(self, structure: LatentClass, near: Any, statistics: Any) -> None:
        parameters = structure.labelled_estimate(near, statistics)
        self.structure_, self.origin_, self.statistics_ = structure, near, statistics
        self.parameters_ = tree_map(lambda leaf: np.asarray(leaf)[None], parameters)
        self._posterior = None

    def _structure(self, rows: Rows) -> LatentClass:
        family = choose_family(self.family, self.schema_, self._who, self._settings)
        return LatentClass(
            family.bind(rows.values, len(self.classes_)),
            len(self.classes_),
            float(self.class_concentration),
            class_name="class",
            fixed_weights=None if self.priors is None else np.asarray(self.priors, np.float64),
        )

    def _settings(self, family: Family) -> Family:
        """Give a family this model's alpha or var_smoothing."""
        if isinstance(family, Normal):
            return family.replace(reg_covar=0.0, var_smoothing=self.var_smoothing)
        return family.replace(alpha=self.alpha)

    def _encode_labels(self, y: Any) -> tuple[Array, Array]:
        """Classes (C,), and codes (n,) with -1 where the label is unknown."""
        if y is None:
            raise ValueError(
                f"{self._who} requires y to be passed, but the target y is None; label at least "
                "some rows, or use Mixture"
            )
        if isinstance(y, list | tuple) and any(isinstance(value, str) for value in y):
            y = np.array(y, dtype=object)  # as strings, NaN and -1 would be classes
        y = column_or_1d(y, warn=True)
        if y.dtype.kind == "f":
            if np.isinf(y).any():
                raise ValueError("Input y contains infinity or a value too large.")
            unknown = np.isnan(y) | (y == -1)
        elif y.dtype.kind in "iu":
            unknown = y == -1
        elif y.dtype.kind == "O":
            unknown = np.array([is_missing(v) or (not isinstance(v, str) and v == -1) for v in y])
        else:
            unknown = np.zeros(len(y), dtype=bool)
        numeric = y.dtype.kind in "iuf"
        if numeric and unknown.any() and len(np.unique(y[~unknown])) == 1:
            unknown = np.isnan(y) if y.dtype.kind == "f" else np.zeros(len(y), dtype=bool)
        known = y[~unknown] if unknown.any() else y
        if known.dtype.kind == "O" and len(known) and not isinstance(known[0], str):
            known = np.asarray(known.tolist())
        check_classification_targets(known)
        classes, codes = np.unique(known, return_inverse=True)
        labels = np.full(len(y), -1)
        labels[~unknown] = codes
        return classes, labels

    def _check_priors(self) -> None:
        if self.priors is None:
            return
        priors = np.asarray(self.priors, dtype=np.float64)
        if priors.shape != (len(self.classes_),):
            raise ValueError(
                f"NaiveBayes: Number of priors must match number of classes: priors has shape "
                f"{priors.shape}, and y has {len(self.classes_)} classes"
            )
        if (priors < 0.0).any() or not np.isclose(priors.sum(), 1.0):
            raise ValueError("NaiveBayes: priors must be at least 0 and sum to 1")

    def _publish(self) -> None:
        self.class_prior_ = self.parameters_["weights"].mean(axis=0)
        family = self.structure_.family
        if isinstance(family, Normal) and family.covariance_type == "diag":
            draws = [self._draw(s)["family"] for s in range(self._n_draws)]
            self.theta_ = np.mean([draw["mean"] for draw in draws], axis=0)
            self.var_ = np.mean([family.covariances(draw) for draw in draws], axis=0)

    def _coords(self, structure: LatentClass) -> dict[str, list[Any]]:
        return {**super()._coords(structure), "class": self.classes_.tolist()}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Counts of scikit-learn's test tables, which are no counts, tell classes apart poorly.
        tags.classifier_tags.poor_score = self._takes_sparse()
        return tags

    def _latents(
        self, values: Array, labels: Array, draws: Array, rng: np.random.Generator
    ) -> Array:
        return self.classes_[labels]

    # -- classifying -----------------------------------------------------------------------------

    def predict_proba(self, X: Any) -> Array:
        """Probability of each class for each row: (n, C).

        After a Bayesian fit, averaged over the posterior of the parameters.
        """
        check_is_fitted(self)
        return self._evidence(self._read_checked(X))[1]

    def predict_log_proba(self, X: Any) -> Array:
        """Log probability of each class for each row: (n, C)."""
        check_is_fitted(self)
        joint = self._joint(self._read_checked(X))
        top = joint.max(axis=1, keepdims=True)
        return joint - top - np.log(np.exp(joint - top).sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> Array:
        """Likeliest class of each row: (n,)."""
        check_is_fitted(self)
        return self.classes_[self._joint(self._read_checked(X)).argmax(axis=1)]

    def log_prob(self, X: Any, y: Any = None) -> Array:
        """Log density of each row, in nats: of X alone, or of (X, y) together.

        Parameters
        ----------
        X : table of (n, D)
        y : (n,) labels, optional

        Returns
        -------
        (n,) array
        """
        if y is None:
            return super().log_prob(X)
        check_is_fitted(self)
        values = self._read_checked(X)
        y = column_or_1d(y)
        check_consistent_length(values, y)
        unseen = np.setdiff1d(y, self.classes_)
        if len(unseen):
            raise ValueError(
                f"NaiveBayes.log_prob: y has labels {unseen.tolist()} that were not seen in fit"
            )
        codes = np.searchsorted(self.classes_, y)
        return self._joint(values)[np.arange(len(codes)), codes]

    def explain(self, X: Any, label: Any = None, against: Any = None) -> Any:
        """Log-odds of one class against another, as a sum of one exact term a column.

        Parameters
        ----------
        X : table of (n, D)
        label : class, optional
            By default each row's likeliest class.
        against : class, optional
            By default each row's likeliest class other than `label`.

        Returns
        -------
        pandas.DataFrame of (n, 3 + D)
            ``label``, ``against``, ``prior`` and one column a feature, in nats: ``prior`` and
            the features sum to the log-odds. After a Bayesian fit, the means over the draws.
        """
        import pandas

        check_is_fitted(self)
        values = self._read_checked(X)
        joint = self._joint(values)
        if hasattr(values, "toarray"):  # a term for every entry is dense in any case
            values = values.toarray()
        rows = np.arange(len(joint))
        codes = self._class_code(label) if label is not None else joint.argmax(axis=1)
        codes = np.broadcast_to(codes, rows.shape)
        rest = joint.copy()
        rest[rows, codes] = -np.inf
        others = self._class_code(against) if against is not None else rest.argmax(axis=1)
        others = np.broadcast_to(others, rows.shape)
        terms = np.zeros(values.shape)
        prior = np.zeros(len(rows))
        kept = self._few_draws()
        for s in kept:
            draw = self._draw(s)
            by_column = self.structure_.family.column_log_prob(draw["family"], values)
            terms += (by_column[rows, codes] - by_column[rows, others]) / len(kept)
            logs = np.log(draw["weights"])
            prior += (logs[codes] - logs[others]) / len(kept)
        names = [
            place if c.name is None else c.name for place, c in enumerate(self.schema_.columns)
        ]
        head = {"label": self.classes_[codes], "against": self.classes_[others], "prior": prior}
        index = X.index if hasattr(X, "index") and hasattr(X, "iloc") else None
        return pandas.concat(
            [pandas.DataFrame(head, index), pandas.DataFrame(terms, index, names)], axis=1
        )

    def _class_code(self, label: Any) -> int:
        found = np.flatnonzero(self.classes_ == label)
        if len(found) == 0:
            raise ValueError(
                f"NaiveBayes.explain: {label!r} is not a class; these are {self.classes_.tolist()}"
            )
        return int(found[0])
