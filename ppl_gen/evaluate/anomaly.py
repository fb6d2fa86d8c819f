"""Which rows a density has not seen the like of: calibrated ranks, and tests of typicality.

A high density alone says little. In many dimensions nearly all rows that a model draws lie in its
typical set, where ``-log_prob`` is near the entropy, and not where the density is highest: of a
standard normal in 100 dimensions the mean is the densest point, and no draw ever comes near it.
Deep models may even give a higher density to data of another kind than to those they were trained
on (Nalisnick et al. 2019, arXiv:1810.09136). `AnomalyDetector` therefore asks either whether a row
is improbable, or whether it is atypical: too probable also counts.
"""

import math
import warnings
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, clone, is_classifier
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils.validation import _num_samples, check_is_fitted

from ppl_gen.bayes_rule.keeping import fitted_models, fitted_trees, storable
from ppl_gen.bayes_rule.reading import with_all_categories, with_all_codes

__all__ = ["AnomalyDetector", "Typicality", "typicality_test"]

Array = Any

STATISTICS = ("density", "typicality")


class AnomalyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Call rows outliers by their log density under a model, at a known rate of false alarms.

    The p-value of a row is its rank among rows that the model did not see in training, so it is
    uniform, or larger, for rows of the same kind, however wrong the model is (split conformal
    prediction). What a better model brings is power: smaller p-values for rows of another kind.

    Parameters
    ----------
    model : GenerativeModel
        Anything with ``fit`` and ``log_prob``; a clone is fitted.
    statistic : {"density", "typicality"}
        What makes a row strange: a low log density, or a log density far from the mean one, to
        either side.
    contamination : float
        Share of ordinary rows to call outliers, in (0, 0.5].
    calibration : float, None or "prefit"
        Share of the rows that ranks are taken among, held out from the model's training. None
        takes those it was trained on, whose density is too high under a flexible model, so that
        false alarms come more often than they should. With "prefit" the model is fitted already,
        and all rows given to `fit` calibrate it.
    random_state : int or None
        Which rows are held out.

    Attributes
    ----------
    model_ : GenerativeModel
        The one that was fitted.
    log_prob_ : (m,) array
        Log densities of the calibration rows, in nats, from the lowest.
    entropy_ : float
        Their mean, times minus one.
    offset_ : float
        The score below which a row is an outlier.

    Raises
    ------
    TypeError
        By `fit`: if the model has no density, or is a classifier that is to be fitted.
    ValueError
        By `fit`: if a setting is out of its range; with "typicality", if the model finds a
        calibration row impossible.

    Warns
    -----
    RuntimeWarning
        There are too few calibration rows to tell so small a share: fewer than 19 for 5%.

    References
    ----------
    Laxhammar & Falkman (2010), Conformal prediction for distribution-independent anomaly
    detection in streaming vessel data, StreamKDD; Bates et al. (2023), Testing for outliers with
    conformal p-values, Annals of Statistics 51, section 1.2; Nalisnick et al. (2019), Detecting
    out-of-distribution inputs to deep generative models using typicality (arXiv:1906.02994), eq. 4.

    Examples
    --------
    The mean of a normal in 100 dimensions is its densest point, and unlike all of its draws:

    >>> import numpy as np
    >>> from ppl_gen import AnomalyDetector, GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(1000, 100))
    >>> model = GaussianMixture(1, "diag")
    >>> AnomalyDetector(model, random_state=0).fit(X).predict(np.zeros((1, 100)))
    array([1])
    >>> AnomalyDetector(model, "typicality", random_state=0).fit(X).predict(np.zeros((1, 100)))
    array([-1])
    """

    def __init__(
        self,
        model: Any,
        statistic: str = "density",
        contamination: float = 0.05,
        calibration: Any = 0.25,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.statistic = statistic
        self.contamination = contamination
        self.calibration = calibration
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the model to some rows, and take the ranks of the others.

        Parameters
        ----------
        X : table of (n, D), images, or a list of sequences
            Whatever the model takes. The categories and tokens that there are, and the ranges and
            units of what a network reads, are those of all of them; held-out rows teach no more.
        y : ignored
        """
        self._check_settings()
        (X,) = indexable(X)
        held = X
        if self.calibration == "prefit":
            if hasattr(self.model, "fit"):  # a density that is known has nothing to fit
                check_is_fitted(self.model)
            self.model_ = self.model
        elif self.calibration is None:
            self.model_ = clone(self.model).fit(X)
        else:
            n = _num_samples(X)
            order = check_random_state(self.random_state).permutation(n)
            cut = n - round(self.calibration * n)
            if not 0 < cut < n:
                raise ValueError(
                    f"AnomalyDetector.fit: calibration={self.calibration} of n_samples={n} "
                    f"holds {n - cut} out, and leaves {cut} to train on; expected some of both; "
                    "give more rows, or another share"
                )
            X = with_all_categories(X, "AnomalyDetector.fit")
            self.model_ = self._told(X).fit(_safe_indexing(X, np.sort(order[:cut])))
            held = _safe_indexing(X, np.sort(order[cut:]))
        self.log_prob_ = np.sort(self._densities(held))
        if self.statistic == "typicality" and not np.isfinite(self.log_prob_[0]):
            raise ValueError(
                "AnomalyDetector.fit: a calibration row is impossible under the model, so that its "
                "entropy is infinite; use statistic='density', or a model that gives all rows some"
            )
        self.entropy_ = -float(self.log_prob_.mean())
        self._scores = np.sort(self._scored(self.log_prob_))
        self.offset_ = self._threshold()
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.model_, name):
                setattr(self, name, getattr(self.model_, name))
        return self

    def _told(self, X: Any) -> Any:
        """Return an unfitted model that knows the categories and ranges of all rows."""
        model = with_all_codes(self.model, X, "AnomalyDetector.fit")
        return model.with_facts_of(X) if hasattr(model, "with_facts_of") else clone(model)

    def _threshold(self) -> float:
        """Lowest score of a row that is no outlier."""
        m = len(self._scores)
        # A row is an outlier if its rank among m + 1, itself included, is `rank` or lower.
        rank = int(self.contamination * (m + 1) + 1e-9)
        if rank > 0:
            return float(self._scores[rank - 1])
        warnings.warn(
            f"AnomalyDetector.fit: {m} calibration rows cannot tell a share of "
            f"{self.contamination}, so that no row is called an outlier; calibrate with "
            f"{math.ceil(1.0 / self.contamination) - 1} or more",
            RuntimeWarning,
            stacklevel=3,
        )
        return -math.inf

    def _check_settings(self) -> None:
        prefit = isinstance(self.calibration, str) and self.calibration == "prefit"
        needed = ("log_prob",) if prefit else ("fit", "log_prob")
        lacking = [name for name in needed if not hasattr(self.model, name)]
        if lacking or isinstance(self.model, type):
            what = self.model.__name__ if isinstance(self.model, type) else repr(self.model)
            why = f"has no {lacking[0]}" if lacking else "is a class"
            raise TypeError(
                f"AnomalyDetector: model is {what}, which {why}; expected a model with a density, "
                "such as GaussianMixture()"
            )
        if not prefit and is_classifier(self.model):
            raise TypeError(
                f"AnomalyDetector: {type(self.model).__name__} is a classifier, which learns from "
                "labels too; fit it first, and give it with calibration='prefit'"
            )
        if self.statistic not in STATISTICS:
            raise ValueError(
                f"AnomalyDetector: statistic is {self.statistic!r}; expected one of "
                f"{', '.join(STATISTICS)}"
            )
        if not (isinstance(self.contamination, Real) and 0.0 < self.contamination <= 0.5):
            raise ValueError(
                f"AnomalyDetector: contamination is {self.contamination!r}; expected a share in "
                "(0, 0.5]"
            )
        held = self.calibration
        if held is None or (isinstance(held, str) and held == "prefit"):
            return
        if not (isinstance(held, Real) and 0.0 < held < 1.0):
            raise ValueError(
                f"AnomalyDetector: calibration is {held!r}; expected a share in (0, 1), None or "
                "'prefit'"
            )

    def _densities(self, X: Any) -> Array:
        found = np.asarray(self.model_.log_prob(X), dtype=np.float64)
        if np.isnan(found).any():
            raise ValueError(
                f"AnomalyDetector: {type(self.model_).__name__} gives {int(np.isnan(found).sum())} "
                "rows a log density that is no number; look at how it was fitted"
            )
        return found

    def _scored(self, log_prob: Array) -> Array:
        return log_prob if self.statistic == "density" else -np.abs(log_prob + self.entropy_)

    def score_samples(self, X: Any) -> Array:
        """How ordinary each row is, the higher the more: (n,).

        The log density, or its distance from the mean one with a minus sign, in nats.
        """
        check_is_fitted(self)
        return self._scored(self._densities(X))

    def decision_function(self, X: Any) -> Array:
        """:meth:`score_samples` less ``offset_``, so that outliers are below zero: (n,)."""
        scores = self.score_samples(X)
        # Rows on the threshold are at zero, though both be minus infinity.
        above = scores != self.offset_
        return np.subtract(scores, self.offset_, out=np.zeros_like(scores), where=above)

    def predict(self, X: Any) -> Array:
        """-1 for outliers, 1 for other rows: (n,)."""
        return np.where(self.decision_function(X) >= 0.0, 1, -1)

    def p_values(self, X: Any) -> Array:
        """Rank of each row among the calibration rows: (n,).

        ``(1 + #{calibration scores <= score}) / (m + 1)``: for a row of the calibration's kind
        the probability of p or less is at most p ("typicality" centres on the calibration rows,
        which moves it by about 1 / m). Many rows tested are many tests: to keep the share of false
        discoveries in hand, give the p-values to ``scipy.stats.false_discovery_control``.
        """
        scores = self.score_samples(X)
        below = np.searchsorted(self._scores, scores, side="right")
        return (1.0 + below) / (len(self._scores) + 1.0)

    def typicality(self, X: Any, n_bootstrap: int = 2000, random_state: Any = None) -> "Typicality":
        """Test whether rows are, together, typical of the model: see `typicality_test`."""
        check_is_fitted(self)
        return typicality_test(
            self._densities(X), self.log_prob_, n_bootstrap=n_bootstrap, random_state=random_state
        )

    # -- keeping -------------------------------------------------------------------------------

    def save(self, path: Any, overwrite: bool = False) -> Any:
        """Save the fitted detector and its model to a directory; `ppl_gen.load` brings it back.

        Parameters
        ----------
        path : str or path
        overwrite : bool
            Replace an artefact that is there.

        Raises
        ------
        FileExistsError
            If something is there and `overwrite` is false.
        TypeError
            If the model is a density of the user's own, which no artefact holds.
        """
        check_is_fitted(self)
        from ppl_gen import artifact

        if not hasattr(self.model_, "to_tree"):
            raise TypeError(
                f"AnomalyDetector.save: {type(self.model_).__name__} is not a model of ppl_gen, "
                "whose code no artefact holds; expected a model such as GaussianMixture; keep "
                "the scores of its calibration rows, log_prob_, instead"
            )
        kept = ("model_", "_scores")
        fitted = {n: v for n, v in vars(self).items() if n.endswith("_") and n not in kept}
        # What was fitted has more settings than were given: the categories of all rows.
        given = self.model if type(self.model) is type(self.model_) else self.model_
        params = self.get_params(deep=False) | {"model": storable(given)}
        if not isinstance(self.random_state, int | None):
            params["random_state"] = None
        tree = {"params": params, "fitted": fitted, "scores": self._scores}
        tree["model"] = fitted_trees([self.model_])
        name = type(self).__name__
        return artifact.write(path, kind="detector", name=name, tree=tree, overwrite=overwrite)

    @classmethod
    def from_artifact(cls, artifact: Any, *, program: Any = None, modules: Any = None) -> Self:
        """Return the detector that an artefact holds; called by `ppl_gen.load`."""
        tree = artifact.tree
        detector = cls(**tree["params"])
        for name, value in tree["fitted"].items():
            setattr(detector, name, value)
        detector._scores = tree["scores"]
        kind = type(detector.model)
        (detector.model_,) = fitted_models(tree["model"], kind, modules or {})
        if detector.calibration == "prefit":
            detector.model = detector.model_
        elif modules:
            detector.model.set_params(**modules)
        return detector

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "offset_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import get_tags

        tags = super().__sklearn_tags__()
        if hasattr(self.model, "__sklearn_tags__"):
            tags.input_tags = get_tags(self.model).input_tags
        return tags


@dataclass(frozen=True)
class Typicality:
    """What a test of typicality found.

    Attributes
    ----------
    statistic : float
        Mean ``-log_prob`` of the batch less that of the reference, in nats a row: below zero for
        rows that are denser than they should be.
    p_value : float
        Probability of a difference as large, to either side, in a batch of the reference's kind.
    entropy : float
        Mean ``-log_prob`` of the reference, in nats a row.
    n_rows : int
        Of the batch.
    """

    statistic: float
    p_value: float
    entropy: float
    n_rows: int


def typicality_test(
    log_prob: Any, reference: Any, n_bootstrap: int = 2000, random_state: Any = None
) -> Typicality:
    """Test whether a batch of rows is typical of a model, from log densities alone.

    Rows of a model's own kind have a mean ``-log_prob`` near its entropy: the more of them, the
    nearer. A batch is atypical if its mean is further off, to either side, than those of batches
    that are drawn anew from the reference.

    Parameters
    ----------
    log_prob : (n,)
        Log densities of the batch, in nats.
    reference : (m,)
        Log densities of rows that the model was not trained on.
    n_bootstrap : int
        Batches to draw.
    random_state : int or None

    Returns
    -------
    Typicality

    Raises
    ------
    ValueError
        If there are no rows, or a log density is not finite.

    Notes
    -----
    The reference is drawn anew with each batch too, since the entropy is an estimate: as it grows
    the test is that of the paper. Batches of a few rows have little power, and none of any size
    has it against data whose densities are of the right size by chance. Means are moved by single
    rows of a tiny density: where such are rare, as under columns that hardly vary, neither the
    reference nor its bootstrap knows how often they come, and p-values are not to be trusted.

    References
    ----------
    Nalisnick, Matsukawa, Teh & Lakshminarayanan (2019), Detecting out-of-distribution inputs to
    deep generative models using typicality (arXiv:1906.02994), algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen.evaluate.anomaly import typicality_test
    >>> rng = np.random.default_rng(0)
    >>> reference = rng.normal(size=500)
    >>> typicality_test(rng.normal(size=20), reference, random_state=0).p_value > 0.05
    True
    >>> typicality_test(np.full(20, 2.0), reference, random_state=0).p_value < 0.01
    True
    """
    batch = _finite("log_prob", log_prob)
    known = _finite("reference", reference)
    if not isinstance(n_bootstrap, Integral) or n_bootstrap < 1:
        raise ValueError(
            f"typicality_test: n_bootstrap is {n_bootstrap!r}; expected a whole number, at least 1"
        )
    random = check_random_state(random_state)
    entropy = -known.mean()
    statistic = -batch.mean() - entropy
    drawn = np.empty(n_bootstrap)
    for b in range(n_bootstrap):
        again = known[random.randint(len(known), size=len(known))].mean()
        drawn[b] = known[random.randint(len(known), size=len(batch))].mean() - again
    far = int((np.abs(drawn) >= abs(statistic)).sum())
    return Typicality(
        statistic=float(statistic),
        p_value=(1.0 + far) / (n_bootstrap + 1.0),
        entropy=float(entropy),
        n_rows=len(batch),
    )


def _finite(name: str, values: Any) -> Array:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(
            f"typicality_test: {name} has shape {values.shape}; expected log densities of rows, "
            "(n,), at least one"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"typicality_test: {name} has {int((~np.isfinite(values)).sum())} entries that are not "
            "finite; rows that are impossible under the model need no test"
        )
    return values
