"""Naive Bayes: scikit-learn's four where they overlap, and what they cannot do."""

import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse
from scipy import stats
from sklearn import naive_bayes as peers
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

import ppl_gen
from ppl_gen import EM, Bernoulli, Categorical, NaiveBayes, Normal, Poisson
from ppl_gen.datasets import load_penguins

LOADERS = {
    "digits": load_digits,
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
}


def table(name):
    x, y = LOADERS[name](return_X_y=True)
    # Digits have columns of zeros, of which a normal model warns.
    return (x[:, x.std(axis=0) > 0.0], y) if name == "digits" else (x, y)


def discretised(name, bins):
    """Codes 0..bins-1 by equal widths of each column's range."""
    x, y = table(name)
    low, high = x.min(axis=0), x.max(axis=0)
    return np.floor((x - low) / (high - low) * (bins - 1e-9)), y


def penguins(container="pandas"):
    data = load_penguins()
    frame = data.X.assign(heavy=data.X["body_mass_g"] > 4200)
    y = data.y.to_numpy().astype(str)
    if container == "pandas":
        return frame, y
    # polars.from_pandas wants pyarrow.
    plain = {n: [None if pd.isna(v) else v for v in frame[n]] for n in frame.columns}
    return polars.DataFrame(plain), y


# The acceptance bound on probabilities is 1e-8; what is left of the same sums in another order
# is some 1e-13, times the log odds of a few hundred nats where columns are many.
PARITY = {"rtol": 0.0, "atol": 1e-10}


# -- against scikit-learn -----------------------------------------------------------------------


@pytest.mark.parametrize("name", LOADERS)
def test_normal_columns_are_gaussian_nb(name):
    x, y = table(name)
    peer, model = peers.GaussianNB().fit(x, y), NaiveBayes().fit(x, y)
    np.testing.assert_allclose(model.predict_proba(x), peer.predict_proba(x), **PARITY)
    np.testing.assert_allclose(model.theta_, peer.theta_, rtol=1e-11)
    np.testing.assert_allclose(model.var_, peer.var_, rtol=1e-9)
    np.testing.assert_array_equal(model.predict(x), peer.predict(x))
    np.testing.assert_allclose(model.class_prior_, peer.class_prior_, rtol=1e-14)
    np.testing.assert_allclose(
        model.log_prob(x, y), peer.predict_joint_log_proba(x)[np.arange(len(y)), y], rtol=1e-10
    )


@pytest.mark.parametrize("alpha", [1.0, 0.1])
@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(
    ("family", "peer", "bins"),
    [
        ("bernoulli", peers.BernoulliNB, 2),
        ("multinomial", peers.MultinomialNB, 5),
        ("categorical", peers.CategoricalNB, 4),
    ],
)
def test_counts_and_codes_are_scikit_learns(family, peer, bins, name, alpha):
    x, y = discretised(name, bins)
    reference = peer(alpha=alpha).fit(x, y)
    model = NaiveBayes(family, alpha=alpha).fit(x, y)
    np.testing.assert_allclose(model.predict_proba(x), reference.predict_proba(x), **PARITY)
    np.testing.assert_allclose(
        model.predict_log_proba(x), reference.predict_log_proba(x), rtol=1e-9, atol=1e-10
    )
    assert model.score(x, y) == reference.score(x, y)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_statistics_lose_no_digits_far_from_the_origin(offset):
    x, y = table("iris")
    near, far = NaiveBayes(var_smoothing=0.0).fit(x, y), NaiveBayes(var_smoothing=0.0)
    far.fit(x + offset, y)
    # Doubles near 1e6 are spaced by 1e-10.
    np.testing.assert_allclose(far.var_, near.var_, rtol=1e-8)


def test_given_priors():
    x, y = table("iris")
    priors = [0.2, 0.3, 0.5]
    peer = peers.GaussianNB(priors=priors).fit(x, y)
    model = NaiveBayes(priors=priors).fit(x, y)
    np.testing.assert_allclose(model.predict_proba(x), peer.predict_proba(x), **PARITY)
    np.testing.assert_allclose(model.class_prior_, priors)


def test_class_concentration_is_a_prior_count():
    x, y = table("iris")
    model = NaiveBayes(class_concentration=2.0).fit(x[:120], y[:120])
    np.testing.assert_allclose(model.class_prior_, np.array([52, 52, 22]) / 126)
    np.testing.assert_array_equal(model.class_count_, [50, 50, 20])


# -- batches, sparse rows, weights --------------------------------------------------------------


@pytest.mark.parametrize("family", ["normal", "bernoulli", "categorical", "multinomial", "poisson"])
def test_batches_add_up_to_the_fit(family):
    x, y = table("iris") if family == "normal" else discretised("iris", 2)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = x[order], y[order]
    # What a family reads off the data it reads off the first batch: say it beforehand.
    spec = {
        "normal": Normal("diag", reg_covar=0.01),
        "categorical": Categorical(n_categories=(2,) * 4),
        "poisson": Poisson(alpha=0.0),
    }.get(family, family)
    whole, model = NaiveBayes(spec).fit(x, y), NaiveBayes(spec)
    for rows in np.array_split(np.arange(len(y)), [3, 40, 41]):
        model.partial_fit(x[rows], y[rows], classes=np.unique(y))
    np.testing.assert_allclose(model.predict_proba(x), whole.predict_proba(x), **PARITY)
    np.testing.assert_array_equal(model.class_count_, whole.class_count_)


def test_batches_are_scikit_learns():
    x, y = table("digits")
    x, y = x[:600], y[:600]
    peer, model = peers.MultinomialNB(), NaiveBayes("multinomial")
    for rows in np.array_split(np.arange(600), 4):
        peer.partial_fit(x[rows], y[rows], classes=np.arange(10))
        model.partial_fit(x[rows], y[rows], classes=np.arange(10))
    np.testing.assert_allclose(model.predict_proba(x), peer.predict_proba(x), **PARITY)


def test_a_variance_of_zero_is_refused():
    x, y = table("iris")
    with pytest.raises(ValueError, match=r"a variance is zero.*increase .*var_smoothing"):
        NaiveBayes(var_smoothing=0.0).partial_fit(x[:2], y[:2], classes=[0, 1, 2])


def test_a_fit_forgets_the_batches():
    x, y = table("iris")
    model = NaiveBayes().partial_fit(x[:10], y[:10], classes=[0, 1, 2])
    again = model.fit(x, y).predict_proba(x)
    np.testing.assert_array_equal(again, NaiveBayes().fit(x, y).predict_proba(x))


def test_batches_need_their_classes():
    x, y = table("iris")
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        NaiveBayes().partial_fit(x, y)
    model = NaiveBayes().partial_fit(x, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="not the same as on last call"):
        model.partial_fit(x, y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"labels \[7\] that are not among the classes"):
        model.partial_fit(x[:2], [7, 0])
    with pytest.raises(ValueError, match="takes more than one pass"):
        NaiveBayes(Normal("full")).partial_fit(np.where(x > 7.0, np.nan, x), y, classes=[0, 1, 2])


@pytest.mark.parametrize("family", ["bernoulli", "multinomial", "poisson"])
@pytest.mark.parametrize("kind", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
def test_sparse_rows_are_dense_rows(family, kind):
    x, y = discretised("digits", 2 if family == "bernoulli" else 4)
    x, y = x[:300], y[:300]
    dense, sparse = NaiveBayes(family).fit(x, y), NaiveBayes(family).fit(kind(x), y)
    np.testing.assert_allclose(sparse.predict_proba(kind(x)), dense.predict_proba(x), **PARITY)
    np.testing.assert_allclose(sparse.log_prob(kind(x)), dense.log_prob(x), rtol=1e-11)
    np.testing.assert_allclose(
        sparse.predict_proba(x), dense.predict_proba(kind(x)), **PARITY
    )  # either model takes either
    for a, b in ((sparse, kind(x)), (dense, kind(x))):
        terms = a.explain(b[:5]).drop(columns=["label", "against"])
        expected = dense.explain(x[:5]).drop(columns=["label", "against"])
        np.testing.assert_allclose(terms.to_numpy(), expected.to_numpy(), rtol=1e-9, atol=1e-10)


def test_sparse_rows_are_refused_where_zeros_are_values():
    x, y = table("iris")
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        NaiveBayes().fit(scipy.sparse.csr_array(x), y)


def test_a_weight_is_a_repetition():
    x, y = penguins()
    repeats = np.random.default_rng(0).integers(0, 4, size=len(y))
    weighted = NaiveBayes(var_smoothing=0.0).fit(x, y, sample_weight=repeats)
    again = np.repeat(np.arange(len(y)), repeats)
    repeated = NaiveBayes(var_smoothing=0.0).fit(x.iloc[again], y[again])
    np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), **PARITY)
    np.testing.assert_array_equal(weighted.class_count_, repeated.class_count_)


# -- missing values, mixed columns ---------------------------------------------------------------


def by_hand(x, y, family):
    """Log joint densities of a frame, column by column, over what is observed."""
    total = np.log([np.mean(y == c) for c in np.unique(y)]) + np.zeros((len(y), 1))
    for name in x.columns:
        column = x[name]
        for k, c in enumerate(np.unique(y)):
            own = column[y == c].dropna()
            if family[name] == "normal":
                own = own.astype(float)
                # The floor is a share of the largest variance of all normal columns.
                floor = 1e-9 * max(
                    x[n].astype(float).var(ddof=0) for n in x.columns if family[n] == "normal"
                )
                spread = np.sqrt(own.var(ddof=0) + floor)
                terms = stats.norm.logpdf(column.astype(float), own.mean(), spread)
            else:
                values = column.cat.categories if family[name] == "categorical" else [False, True]
                chance = {v: ((own == v).sum() + 1.0) / (len(own) + len(values)) for v in values}
                terms = np.array([np.nan if pd.isna(v) else np.log(chance[v]) for v in column])
            total[:, k] += np.where(column.isna(), 0.0, terms)
    return total


PENGUIN_FAMILY = {
    "island": "categorical",
    "bill_length_mm": "normal",
    "bill_depth_mm": "normal",
    "flipper_length_mm": "normal",
    "body_mass_g": "normal",
    "sex": "categorical",
    "year": "normal",
    "heavy": "bernoulli",
}


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_penguins_by_hand(container):
    """Mixed columns with missing values: every term computed one by one."""
    x, y = penguins(container)
    model = NaiveBayes().fit(x, y)
    expected = by_hand(penguins()[0], y, PENGUIN_FAMILY)
    for k, c in enumerate(model.classes_):
        # Sums of eight logarithms.
        np.testing.assert_allclose(model.log_prob(x, np.full(len(y), c)), expected[:, k], rtol=1e-9)
    assert model.score(x, y) > 0.97
    assert [str(n) for n in model.feature_names_in_] == list(x.columns)


def test_missing_values_are_left_out_of_fit_and_prediction():
    x, y = table("iris")
    holed = np.where(np.random.default_rng(0).random(x.shape) < 0.3, np.nan, x)
    model = NaiveBayes(var_smoothing=0.0).fit(holed, y)
    for k in range(3):
        np.testing.assert_allclose(model.theta_[k], np.nanmean(holed[y == k], axis=0), rtol=1e-12)
        np.testing.assert_allclose(model.var_[k], np.nanvar(holed[y == k], axis=0), rtol=1e-9)
    # A column of a row that is missing is a column that the model does not have.
    row = x[:10].copy()
    row[:, 2] = np.nan
    fewer = NaiveBayes(var_smoothing=0.0).fit(holed[:, [0, 1, 3]], y)
    np.testing.assert_allclose(
        model.predict_proba(row), fewer.predict_proba(row[:, [0, 1, 3]]), **PARITY
    )
    np.testing.assert_allclose(
        model.predict_proba(np.full((1, 4), np.nan))[0], model.class_prior_, **PARITY
    )


def test_families_by_column():
    x, y = penguins()
    x = x.assign(year=x["year"] - 2007)
    model = NaiveBayes({"year": "poisson", "body_mass_g": Normal("diag", reg_covar=1.0)}).fit(x, y)
    found = {name: type(family) for name, family, _ in model.structure_.family.parts}
    assert set(found.values()) == {Poisson, Normal, Categorical, Bernoulli}
    # A family that was given keeps its settings; those chosen by name have the model's.
    given = [f for _, f, places in model.structure_.family.parts if places == (4,)]
    assert [f.reg_covar for f in given] == [1.0]
    by_place = NaiveBayes({0: "poisson"}).fit(
        np.column_stack([np.arange(4), np.arange(4.0)]), [0, 0, 1, 1]
    )
    assert len(by_place.structure_.family.parts) == 2


# -- unlabelled rows ------------------------------------------------------------------------------


def few_labels(n_labelled=6, n_rows=600, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n_rows)
    # Two columns tell little each, eight tell much together: unlabelled rows have a lot to say.
    x = rng.normal(size=(n_rows, 8)) + 0.9 * y[:, None]
    partly = y.copy()
    hidden = np.concatenate([np.flatnonzero(y == c)[n_labelled // 2 :] for c in (0, 1)])
    partly[hidden] = -1
    return x, y, partly


def test_unlabelled_rows_improve_on_the_labelled_alone():
    better = []
    for seed in range(5):
        x, y, partly = few_labels(seed=seed)
        labelled = partly >= 0
        alone = NaiveBayes().fit(x[labelled], y[labelled])
        semi = NaiveBayes(inference=EM(max_iter=200), random_state=0).fit(x, partly)
        fresh_x, fresh_y, _ = few_labels(seed=seed + 100)
        better.append(semi.score(fresh_x, fresh_y) - alone.score(fresh_x, fresh_y))
    # From three labels a class alone .61 on the mean, with the unlabelled rows .89, and .89 with
    # all labels known.
    assert np.mean(better) > 0.2


def test_labels_stay_as_they_are():
    x, _, partly = few_labels()
    model = NaiveBayes(random_state=0).fit(x, partly)
    known = partly >= 0
    np.testing.assert_array_equal(model.class_count_, [3, 3])
    assert model.score(x[known], partly[known]) == 1.0
    assert model.posterior_.is_point


def test_with_every_label_em_is_the_one_pass():
    x, y, _ = few_labels()
    one_pass = NaiveBayes().fit(x, y)
    # The same model by the EM driver, which no label is missing for.
    full = Normal("diag", reg_covar=0.0, var_smoothing=1e-9)
    rows = one_pass._read_rows(x, None, y)
    structure = one_pass._structure(rows)
    assert structure.family.reg_covar == full.reg_covar
    result = EM().fit(structure, rows, np.random.default_rng(0))
    np.testing.assert_allclose(result.parameters["family"]["mean"], one_pass.theta_, rtol=1e-10)
    np.testing.assert_allclose(result.parameters["weights"], one_pass.class_prior_, rtol=1e-12)


@pytest.mark.parametrize(
    "y",
    [
        np.array([0, 1, 1, -1, 0, -1]),
        np.array([0.0, 1.0, 1.0, np.nan, 0.0, np.nan]),
        np.array([0, 1, 1, None, 0, None], dtype=object),
        np.array([0.0, 1.0, 1.0, -1.0, 0.0, np.nan]),
    ],
    ids=["-1", "nan", "none", "both"],
)
def test_ways_to_say_unlabelled(y):
    x = np.array([[0.0], [5.0], [5.5], [4.8], [0.3], [0.1]])
    model = NaiveBayes(random_state=0).fit(x, y)
    assert model.classes_.tolist() == [0, 1]
    assert model.predict(x).tolist() == [0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_strings_may_be_unlabelled_too(dtype):
    x = np.array([[0.0], [5.0], [5.5], [4.8], [0.3], [0.1]])
    y = pd.Series(["a", "b", "b", None, "a", None], dtype=dtype)
    assert NaiveBayes(random_state=0).fit(x, y).predict(x).tolist() == list("abbbaa")


def test_minus_one_and_one_other_are_two_classes():
    # As scikit-learn's checks have it: {-1, 1} is a common pair of labels.
    x = np.array([[0.0], [0.5], [5.0], [5.5]])
    model = NaiveBayes().fit(x, [-1, -1, 1, 1])
    assert model.classes_.tolist() == [-1, 1]


# -- explanations ------------------------------------------------------------------------------


def test_terms_sum_to_the_log_odds():
    x, y = penguins()
    model = NaiveBayes().fit(x, y)
    terms = model.explain(x)
    assert list(terms.columns) == ["label", "against", "prior", *x.columns]
    logs = model.predict_log_proba(x)
    top = logs.argmax(axis=1)
    second = np.where(np.arange(3) == top[:, None], -np.inf, logs).argmax(axis=1)
    rows = np.arange(len(y))
    np.testing.assert_array_equal(terms["label"], model.classes_[top])
    np.testing.assert_array_equal(terms["against"], model.classes_[second])
    total = terms.drop(columns=["label", "against"]).to_numpy().sum(axis=1)
    np.testing.assert_allclose(total, logs[rows, top] - logs[rows, second], rtol=1e-9, atol=1e-9)
    # A missing value says nothing for or against.
    assert (terms["sex"][x["sex"].isna()] == 0.0).all()


def test_terms_of_a_chosen_pair():
    x, y = table("iris")
    model = NaiveBayes().fit(x, y)
    terms = model.explain(x[:4], label=2, against=0)
    logs = model.predict_log_proba(x[:4])
    total = terms.drop(columns=["label", "against"]).to_numpy().sum(axis=1)
    np.testing.assert_allclose(total, logs[:, 2] - logs[:, 0], rtol=1e-9)
    with pytest.raises(ValueError, match=r"9 is not a class; these are \[0, 1, 2\]"):
        model.explain(x, label=9)


def test_dependent_columns_have_no_terms():
    x, y = table("iris")
    model = NaiveBayes(Normal("full")).fit(x, y)
    with pytest.raises(ValueError, match="columns are dependent within a class"):
        model.explain(x)


# -- drawing -----------------------------------------------------------------------------------


def test_draws_come_in_the_columns_and_dtypes_of_the_table():
    x, y = penguins()
    model = NaiveBayes().fit(x, y)
    drawn, species = model.sample(400, random_state=0, return_latent=True)
    assert (drawn.dtypes == x.dtypes).drop("year").all()  # a normal year is not whole
    assert drawn["year"].dtype == float
    assert set(species) == set(y)
    # Classes drawn are classes found, mostly: the model's own accuracy on its draws.
    assert (model.predict(drawn) == species).mean() > 0.95


def test_missing_values_are_filled_with_what_the_class_makes_likely():
    x, y = penguins()
    model = NaiveBayes().fit(x, y)
    filled = model.impute(x)
    assert not filled.isna().any().any()
    assert filled["sex"].dtype == x["sex"].dtype
    holes = x["body_mass_g"].isna().to_numpy()
    places = {n: p for n, _, p in model.structure_.family.parts}["normal"]
    means = model.posterior_.stacked("normal_mean")[0][:, places.index(4)]
    expected = model.predict_proba(x) @ means
    np.testing.assert_allclose(filled["body_mass_g"][holes], expected[holes], rtol=1e-10)


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "x", "y", "error", "message"),
    [
        ({}, [[1.0], [2.0]], [0, 0], ValueError, "y has one class only"),
        ({}, [[1.0], [2.0]], [0, 1, 1], ValueError, "inconsistent numbers of samples"),
        ({}, [[1.0], [2.0]], None, ValueError, "requires y"),
        ({}, [[1.0], [2.0]], [0.5, 1.5], ValueError, "label type"),
        ({}, [[1.0], [2.0]], [0.0, np.inf], ValueError, "y contains infinity"),
        ({"priors": [0.5, 0.4]}, [[1.0], [2.0]], [0, 1], ValueError, "priors must .* sum to 1"),
        ({"priors": [1.0]}, [[1.0], [2.0]], [0, 1], ValueError, "Number of priors must match"),
        ({"family": "beta"}, [[1.0], [2.0]], [0, 1], ValueError, "unknown family 'beta'"),
        ({"family": 3}, [[1.0], [2.0]], [0, 1], TypeError, "family is 3; expected 'auto'"),
        ({"family": {"size": "normal"}}, [[1.0], [2.0]], [0, 1], ValueError, r"\['size'\]"),
        ({"family": "bernoulli"}, [[1.0], [2.0]], [0, 1], ValueError, "0 and 1 only"),
        ({"family": "poisson"}, [[1.0], [-2.0]], [0, 1], ValueError, "Negative values"),
        ({"alpha": -1.0, "family": "poisson"}, [[1.0], [2.0]], [0, 1], ValueError, "alpha is -1"),
        ({"inference": "gibbs"}, [[1.0], [2.0]], [0, 1], ValueError, "unknown 'gibbs'"),
        ({"device": "cuda"}, [[1.0], [-1]], [-1, 1], ValueError, "'cuda' asked for"),
        ({"device": "tpu"}, [[1.0], [-1]], [-1, 1], ValueError, "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_named(settings, x, y, error, message):
    with pytest.raises(error, match=message):
        NaiveBayes(**settings).fit(np.array(x), y if y is None else np.array(y))


def test_categories_that_fit_never_saw():
    x, y = penguins()
    model = NaiveBayes().fit(x, y)
    strange = x.iloc[:3].assign(island=["Torgersen", "Skye", "Biscoe"])
    with pytest.raises(ValueError, match=r"column 'island' has category 'Skye'.*known are"):
        model.predict(strange)
    with pytest.raises(TypeError, match="fitted on a DataFrame"):
        model.predict(np.zeros((2, 8)))


def test_labels_that_fit_never_saw():
    x, y = table("iris")
    with pytest.raises(ValueError, match=r"y has labels \[5\] that were not seen in fit"):
        NaiveBayes().fit(x, y).log_prob(x[:2], [0, 5])


def test_a_saved_classifier_is_the_same(tmp_path):
    x, y = penguins()
    model = NaiveBayes().fit(x, y)
    model.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))
    np.testing.assert_array_equal(loaded.classes_, model.classes_)
    pd.testing.assert_frame_equal(loaded.explain(x), model.explain(x))
