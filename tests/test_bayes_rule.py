"""Bayes' rule over one density a class: by hand, on tables of all kinds, and on digits."""

import numpy as np
import pandas as pd
import polars
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits, load_iris
from sklearn.mixture import GaussianMixture as PeerMixture
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KernelDensity

import ppl_gen
from ppl_gen import EM, BayesClassifier, GaussianMixture, Mixture, NaiveBayes
from ppl_gen.bayes_rule import log_normalised
from ppl_gen.datasets import load_penguins


def iris():
    return load_iris(return_X_y=True)


def by_hand(x, y, priors):
    """Log p(x, y = c) with one normal a class."""
    joint = []
    for c, prior in zip(np.unique(y), priors, strict=True):
        own = x[y == c]
        covariance = np.cov(own.T, bias=True) + 1e-6 * np.eye(x.shape[1])
        joint.append(multivariate_normal.logpdf(x, own.mean(axis=0), covariance) + np.log(prior))
    return np.stack(joint, axis=1)


# -- the rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("priors", "expected"),
    [
        (None, np.array([50, 40, 30]) / 120),
        ("dirichlet", np.array([51, 41, 31]) / 123),
        ([0.5, 0.25, 0.25], np.array([0.5, 0.25, 0.25])),
    ],
    ids=["empirical", "dirichlet", "given"],
)
def test_probabilities_by_hand(priors, expected):
    x, y = iris()
    keep = np.r_[0:50, 50:90, 100:130]
    x, y = x[keep], y[keep]
    model = BayesClassifier(GaussianMixture(1), priors=priors).fit(x, y)
    np.testing.assert_allclose(model.class_prior_, expected, rtol=1e-14)
    joint = by_hand(x, y, expected)
    # A determinant of a covariance with a condition number of some hundreds.
    tolerance = {"rtol": 1e-8, "atol": 1e-9}
    np.testing.assert_allclose(model.predict_log_proba(x), log_normalised(joint), **tolerance)
    np.testing.assert_allclose(model.predict_proba(x).sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(x), joint.argmax(axis=1))
    np.testing.assert_allclose(model.log_prob(x, y), joint[np.arange(120), y], **tolerance)
    np.testing.assert_allclose(model.log_prob(x), np.log(np.exp(joint).sum(axis=1)), **tolerance)


def test_labels_of_any_kind():
    x, y = iris()
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = BayesClassifier(GaussianMixture(1)).fit(x, names)
    expected = BayesClassifier(GaussianMixture(1)).fit(x, y).predict(x)
    np.testing.assert_array_equal(model.predict(x), np.array(model.classes_)[expected])
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert model.score(x, names) > 0.97
    flipped = BayesClassifier(GaussianMixture(1)).fit(x, y == 1)
    assert flipped.predict(x).dtype == bool


def test_one_model_is_fitted_a_class_and_the_pattern_is_left_alone():
    x, y = iris()
    pattern = GaussianMixture(2, inference=EM(n_init=2), random_state=0)
    model = BayesClassifier(pattern).fit(x, y)
    assert len(model.models_) == 3
    assert not hasattr(pattern, "parameters_")
    assert model.density == "exact"
    for c, fitted in enumerate(model.models_):
        alone = GaussianMixture(2, inference=EM(n_init=2), random_state=0).fit(x[y == c])
        np.testing.assert_array_equal(fitted.means_, alone.means_)


def test_a_class_without_prior_probability_is_never_predicted():
    x, y = iris()
    model = BayesClassifier(GaussianMixture(1), priors=[0.0, 0.5, 0.5]).fit(x, y)
    assert (model.predict(x) != 0).all()
    assert (model.predict_proba(x)[:, 0] == 0.0).all()


def test_naive_bayes_is_its_own_classifier():
    # One naive density a class under Bayes' rule is naive Bayes.
    x, y = iris()
    rule = BayesClassifier(GaussianMixture(1, "diag", reg_covar=1e-3)).fit(x, y)
    naive = NaiveBayes(ppl_gen.Normal("diag", reg_covar=1e-3)).fit(x, y)
    np.testing.assert_allclose(rule.predict_proba(x), naive.predict_proba(x), rtol=1e-8, atol=1e-12)


# -- tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_a_category_that_a_class_never_has(container):
    """Gentoo penguins live on one island of three; the others' classes know all three."""
    data = load_penguins()
    frame = data.X.assign(island=data.X["island"].astype(str), sex=data.X["sex"].astype(object))
    y = data.y.astype(str).to_numpy()
    if container == "polars":
        frame = polars.DataFrame(
            {n: [None if pd.isna(v) else v for v in frame[n]] for n in frame.columns}
        )
    model = BayesClassifier(Mixture(1)).fit(frame, y)
    probabilities = model.predict_proba(frame)
    assert np.isfinite(probabilities).all()
    assert model.score(frame, y) > 0.97
    drawn, labels = model.sample(200, random_state=0)
    assert type(drawn).__module__.split(".")[0] == container
    assert list(drawn.columns) == list(frame.columns)
    assert drawn.shape == (200, 7)
    if container == "pandas":
        assert drawn.index.equals(pd.RangeIndex(200))  # not that of the classes it is joined from
    assert model.score(drawn, labels) > 0.95


@pytest.mark.parametrize(
    "family",
    [
        "categorical",
        ppl_gen.Categorical(alpha=0.5),
        {0: "categorical"},
        {0: ppl_gen.Categorical(), 1: "normal"},
    ],
    ids=["name", "family", "dict", "dict of families"],
)
@pytest.mark.parametrize("container", ["numpy", "pandas"])
def test_a_code_that_a_class_never_has(family, container):
    x = np.array([[0, 1], [1, 0], [0, 0], [1, 1], [0, 1], [1, 0], [2, 1], [2, 0]])
    y = np.repeat([0, 1], 4)
    if container == "pandas":
        x = pd.DataFrame(x, columns=["a", "b"])
        if isinstance(family, dict):
            family = {"ab"[place]: part for place, part in family.items()}
    pattern = Mixture(1, family)
    model = BayesClassifier(pattern).fit(x, y)
    probabilities = model.predict_proba(x)
    assert (probabilities[6:, 1] > 0.5).all()  # class 0 never had the code 2
    assert pattern.get_params()["family"] is family


def test_codes_are_counted_over_all_classes():
    # Dirichlet(1 + alpha) over the three codes of all rows, though a class has two of them.
    x = np.array([[0], [0], [1], [0], [1], [2], [2], [np.nan]])
    y = np.repeat([0, 1], 4)
    model = BayesClassifier(Mixture(1, ppl_gen.Categorical(alpha=1.0))).fit(x, y)
    expected = np.array([[4 / 7, 2 / 7, 1 / 7], [1 / 6, 2 / 6, 3 / 6]])
    seen = np.stack([m.log_prob(np.arange(3.0)[:, None]) for m in model.models_])
    np.testing.assert_allclose(np.exp(seen), expected, rtol=1e-12)


def test_missing_values_are_marginalised():
    x, y = iris()
    holed = np.where(np.random.default_rng(0).random(x.shape) < 0.3, np.nan, x)
    model = BayesClassifier(GaussianMixture(1)).fit(holed, y)
    assert model.score(holed, y) > 0.9
    nothing = model.predict_proba(np.full((1, 4), np.nan))
    np.testing.assert_allclose(nothing[0], model.class_prior_, rtol=1e-12)


def test_columns_are_checked():
    frame = pd.DataFrame(iris()[0], columns=list("abcd"))
    model = BayesClassifier(GaussianMixture(1)).fit(frame, iris()[1])
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("dcba")])
    with pytest.raises(ValueError, match="feature"):
        model.predict(frame[["a", "b", "c"]])


# -- drawing ------------------------------------------------------------------------------------


def test_draws_are_of_the_classes_asked_for():
    x, y = iris()
    model = BayesClassifier(GaussianMixture(1), priors=[0.6, 0.3, 0.1]).fit(x, y)
    drawn, labels = model.sample(6000, random_state=0)
    # Three standard errors of a share of 6000.
    np.testing.assert_allclose(np.bincount(labels) / 6000, [0.6, 0.3, 0.1], atol=0.02)
    for c in range(3):
        own = drawn[labels == c]
        error = own.std(axis=0) / np.sqrt(len(own))
        assert (np.abs(own.mean(axis=0) - model.models_[c].means_[0]) < 5.0 * error).all()
    wanted = np.array([2, 0, 2, 1])
    drawn, labels = model.sample(4, y=wanted, random_state=0)
    np.testing.assert_array_equal(labels, wanted)
    assert (model.predict(drawn) == wanted).all()
    assert (model.sample(5, y=1, random_state=0)[1] == 1).all()
    with pytest.raises(ValueError, match=r"\[9\] are not classes; these are \[0, 1, 2\]"):
        model.sample(3, y=9)


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "priors", "message"),
    [
        (iris()[0], np.zeros(150), None, "y has one class only"),
        (iris()[0], iris()[1][:10], None, "inconsistent numbers of samples"),
        (iris()[0], iris()[1], "flat", "priors is 'flat'; expected None, 'dirichlet'"),
        (iris()[0], iris()[1], [0.5, 0.5], "priors must be 3 numbers, one a class"),
        (iris()[0], iris()[1], [0.5, 0.4, 0.4], "sum to 1"),
        (iris()[0], iris()[1], ["a", "b", "c"], "priors must be 3 numbers"),
        (iris()[0], iris()[1], {0: 1.0}, "priors must be 3 numbers"),
        (iris()[0], None, None, "requires y to be passed"),
        (iris()[0][[0, 16, 60]], [0, 0, 1], None, r"class .*1.* \(1 rows\) cannot be fitted: .*"),
        (np.where(np.arange(4) == 1, np.inf, iris()[0]), iris()[1], None, "infinity"),
    ],
)
def test_bad_input_is_named(x, y, priors, message):
    with pytest.raises(ValueError, match=message):
        BayesClassifier(GaussianMixture(1), priors=priors).fit(x, y)


def test_a_class_is_named_as_it_was_given():
    with pytest.raises(ValueError, match=r"class 1 \(1 rows\) cannot be fitted"):
        BayesClassifier(GaussianMixture(1)).fit(iris()[0][[0, 16, 60]], [0, 0, 1])


@pytest.mark.parametrize(
    "y",
    [
        ["a", "b", "a", np.nan],
        ["a", None, "a", "b"],
        np.array([0.0, 1.0, 0.0, np.nan]),
        pd.Series([0, 1, pd.NA, 0], dtype="Int64"),
        pd.Series(["a", "b", "a", None]),
    ],
    ids=["list", "none", "array", "nullable", "series"],
)
def test_a_missing_label_is_refused(y):
    with pytest.raises(ValueError, match="y has 1 missing labels"):
        BayesClassifier(GaussianMixture(1)).fit(iris()[0][48:52], y)


def test_labels_in_a_list_keep_their_kind():
    x, y = iris()
    for labels in (y.tolist(), y.astype(str).tolist(), (y == 0).tolist()):
        classes = BayesClassifier(GaussianMixture(1)).fit(x, labels).classes_
        np.testing.assert_array_equal(classes, np.unique(labels), strict=True)


def test_a_classifier_is_not_a_model_of_rows():
    with pytest.raises(TypeError, match="NaiveBayes is a classifier itself; expected a model of p"):
        BayesClassifier(NaiveBayes()).fit(*iris())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "model is None, which has no fit"),
        ("GaussianMixture", "model is 'GaussianMixture', which has no fit"),
        (GaussianMixture, "model is GaussianMixture, which is a class"),
        (KernelDensity(), r"model is KernelDensity\(\), which has no log_prob"),
    ],
    ids=["none", "name", "class", "no_log_prob"],
)
def test_what_is_no_model_is_named(model, message):
    with pytest.raises(TypeError, match=f"BayesClassifier.fit: {message}; expected a model of p"):
        BayesClassifier(model).fit(*iris())


def test_draws_want_a_class_each():
    model = BayesClassifier(GaussianMixture(1)).fit(*iris())
    with pytest.raises(
        ValueError, match=r"y has shape \(2,\); expected one class, or one for each"
    ):
        model.sample(3, y=[0, 1])


def test_no_rows_cannot_be_drawn():
    model = BayesClassifier(GaussianMixture(1)).fit(*iris())
    with pytest.raises(ValueError, match="n_samples is 0; expected a whole number, at least 1"):
        model.sample(0)


def test_an_unseen_label_cannot_be_scored():
    x, y = iris()
    model = BayesClassifier(GaussianMixture(1)).fit(x, y)
    with pytest.raises(ValueError, match=r"y has labels \[7\] that were not seen in fit"):
        model.log_prob(x[:2], [0, 7])


# -- keeping ------------------------------------------------------------------------------------


def test_a_saved_classifier_is_the_same(tmp_path):
    data = load_penguins()
    y = data.y.astype(str).to_numpy()
    model = BayesClassifier(Mixture(1, random_state=0), priors="dirichlet").fit(data.X, y)
    model.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(data.X), model.predict_proba(data.X))
    np.testing.assert_array_equal(loaded.classes_, model.classes_)
    assert loaded.priors == "dirichlet"
    drawn, labels = loaded.sample(10, random_state=3)
    expected, expected_labels = model.sample(10, random_state=3)
    pd.testing.assert_frame_equal(drawn, expected)
    np.testing.assert_array_equal(labels, expected_labels)


def test_a_random_state_that_cannot_be_stored_is_left_out(tmp_path):
    model = Mixture(1, random_state=np.random.RandomState(0))
    classifier = BayesClassifier(model).fit(*iris())
    classifier.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    assert loaded.model.random_state is None
    assert model.random_state is not None
    np.testing.assert_array_equal(loaded.predict(iris()[0]), classifier.predict(iris()[0]))


# -- digits -------------------------------------------------------------------------------------


def calibration_error(probabilities, y, n_bins=15):
    """Expected calibration error: mean |accuracy - confidence| over bins of confidence."""
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    return sum(
        abs(hit[bins == b].mean() - confidence[bins == b].mean()) * np.mean(bins == b)
        for b in np.unique(bins)
    )


class PeerClassifier:
    """Bayes' rule over scikit-learn's mixtures, one a class."""

    def __init__(self, **settings):
        self.settings = settings

    def fit(self, x, y):
        self.priors = np.log(np.bincount(y) / len(y))
        self.models = [PeerMixture(**self.settings).fit(x[y == c]) for c in range(10)]
        return self

    def predict_proba(self, x):
        joint = np.stack([m.score_samples(x) for m in self.models], axis=1) + self.priors
        return np.exp(log_normalised(joint))


SETTINGS = {"n_components": 1, "reg_covar": 0.1, "random_state": 0}
PAIRS = {
    "naive_bayes": (lambda: NaiveBayes(), GaussianNB),
    "class_mixture": (
        lambda: BayesClassifier(GaussianMixture(**SETTINGS)),
        lambda: PeerClassifier(**SETTINGS),
    ),
    "class_mixture_of_two": (
        lambda: BayesClassifier(GaussianMixture(**SETTINGS | {"n_components": 2})),
        lambda: PeerClassifier(**SETTINGS | {"n_components": 2}),
    ),
}


# Some columns of digits are zero in a whole class: the floor is meant to hold them.
@pytest.mark.filterwarnings("ignore:.*constant column:RuntimeWarning")
@pytest.mark.parametrize("pair", PAIRS)
def test_digits_are_told_apart_as_well_as_by_the_peer(pair):
    x, y = load_digits(return_X_y=True)
    ours, theirs = [], []
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(x, y)
    out = [np.zeros((len(y), 10)) for _ in range(2)]
    for train, test in folds:
        for make, scores, probabilities in zip(PAIRS[pair], (ours, theirs), out, strict=True):
            probabilities[test] = make().fit(x[train], y[train]).predict_proba(x[test])
            scores.append(np.mean(probabilities[test].argmax(axis=1) == y[test]))
    errors = [calibration_error(p, y) for p in out]
    print(
        f"{pair}: accuracy {np.mean(ours):.4f}, peer {np.mean(theirs):.4f}; "
        f"calibration error {errors[0]:.4f}, peer {errors[1]:.4f}"
    )
    # The acceptance bound: no worse on the same folds, less .002.
    assert np.mean(ours) >= np.mean(theirs) - 0.002
    assert errors[0] < 0.2


class Impossible(GaussianMixture):
    """A density that is zero everywhere."""

    def log_prob(self, X):
        return np.full(len(X), -np.inf)


def test_rows_of_no_density_have_the_priors():
    X, y = load_iris(return_X_y=True)
    classifier = BayesClassifier(Impossible(1), priors=[0.2, 0.5, 0.3]).fit(X, y)
    np.testing.assert_allclose(classifier.predict_proba(X[:2]), [[0.2, 0.5, 0.3]] * 2)
    assert classifier.predict(X[:2]).tolist() == [1, 1]
    assert classifier.log_prob(X[:2]).tolist() == [-np.inf] * 2
