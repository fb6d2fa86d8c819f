"""MADE as an estimator: tables of several kinds in and out, gaps, refusals, keeping."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.utils import get_tags

import ppl_gen
from ppl_gen import MADE, BayesClassifier, MaximumLikelihood

QUICK = MaximumLikelihood(epochs=30, learning_rate=0.02, batch_size=50)


def small(**settings):
    return MADE(**({"hidden_layer_sizes": (24,), "inference": QUICK, "random_state": 0} | settings))


@pytest.fixture(scope="module")
def weather():
    """A category, a boolean, a count and a number, each telling of the others."""
    rng = np.random.default_rng(0)
    sky = rng.integers(3, size=200)
    return pd.DataFrame(
        {
            "sky": pd.Categorical.from_codes(sky, ["clear", "cloudy", "rain"]),
            "umbrella": sky + rng.normal(size=200) > 1.5,
            "visitors": rng.poisson(30 * (3 - sky)),
            "degrees": 25.0 - 5.0 * sky + rng.normal(size=200),
        }
    )


@pytest.fixture(scope="module")
def fitted(weather):
    return small().fit(weather)


def test_kinds_are_read_off_the_columns(fitted):
    assert fitted.kinds_ == ["category", "category", "whole", "number"]
    assert fitted.orders_ == [[0, 1, 2, 3]]
    assert fitted.density == "exact"


def test_draws_have_columns_and_dtypes(fitted, weather):
    drawn = fitted.sample(50, random_state=0)
    pd.testing.assert_index_equal(drawn.columns, weather.columns)
    assert drawn.dtypes.equals(weather.dtypes)
    assert (drawn["visitors"] >= 0).all()
    clear = drawn["sky"] == "clear"
    assert drawn["degrees"][clear].mean() > drawn["degrees"][~clear].mean() + 3.0


def test_what_was_learned_is_better_than_independent_columns(fitted, weather):
    rng = np.random.default_rng(1)
    shuffled = weather.apply(lambda column: column.iloc[rng.permutation(200)].array)
    assert fitted.score(weather) > fitted.score(shuffled) + 1.0


def test_save_and_load(fitted, weather, tmp_path):
    loaded = ppl_gen.load(fitted.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.log_prob(weather), fitted.log_prob(weather))
    pd.testing.assert_frame_equal(loaded.sample(5, 1), fitted.sample(5, 1))
    assert loaded.kinds_ == fitted.kinds_


@pytest.mark.parametrize("settings", [{}, {"order": [2, 0, 3, 1]}, {"n_orders": 2}])
def test_probabilities_of_binary_rows_sum_to_one(settings):
    x = np.random.default_rng(0).integers(2, size=(60, 4))
    model = small(**settings).fit(x)
    rows = np.array(list(itertools.product([0, 1], repeat=4)))
    # float32: some 1e-7 an entry.
    assert np.exp(model.log_prob(rows)).sum() == pytest.approx(1.0, abs=1e-5)
    assert sorted(model.orders_[0]) == [0, 1, 2, 3]


def test_numbers_integrate_to_one():
    x = np.random.default_rng(0).normal(5.0, [1.0, 3.0], size=(200, 2))
    model = small(order="random").fit(x)
    axes = np.linspace(-7.0, 17.0, 201), np.linspace(-35.0, 45.0, 201)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    total = np.exp(model.log_prob(points)).sum() * 0.12 * 0.4
    assert total == pytest.approx(1.0, abs=0.01)


def test_one_binary_column_is_its_frequency():
    x = np.array([[1.0]] * 30 + [[0.0]] * 70)
    model = small().fit(x)
    # Minibatches leave the optimum by about the rate of learning.
    assert np.exp(model.log_prob([[1.0]]))[0] == pytest.approx(0.3, abs=0.03)


def test_columns_of_an_array_have_the_same_levels():
    x = np.array([[0, 0], [1, 4], [0, 2], [1, 1]] * 5)
    model = small().fit(x)
    assert model.kinds_ == ["category", "category"]
    assert np.isfinite(model.log_prob([[4, 0]])).all()
    wide = small().fit(np.column_stack([x, 40 * x[:, 1]]))
    assert wide.kinds_ == ["category", "category", "whole"]
    frame = small().fit(pd.DataFrame(x, columns=["a", "b"]))
    with pytest.raises(ValueError, match=r"column 'a' has 4 in row 0; .* from 0 to 1"):
        frame.log_prob(pd.DataFrame([[4, 0]], columns=["a", "b"]))


def test_kinds_that_are_declared(weather):
    counts = weather[["visitors", "degrees"]]
    model = small(kinds={"visitors": "number"}).fit(counts)
    assert model.kinds_ == ["number", "number"]
    assert small(kinds="number").fit(counts.to_numpy()[:60]).kinds_ == ["number", "number"]
    declared = small(n_levels=200).fit(weather[["visitors", "umbrella"]].head(60))
    assert declared.kinds_ == ["category", "category"]


# -- gaps -------------------------------------------------------------------------------------


def test_gaps_at_the_end_are_marginalised(fitted, weather):
    short = weather.head(20).copy()
    short["degrees"] = np.nan
    degrees = np.linspace(-15.0, 60.0, 1501)
    row = weather.head(1)
    dense = row.loc[row.index.repeat(len(degrees))].assign(degrees=degrees)
    total = np.log(np.exp(fitted.log_prob(dense)).sum() * 0.05)
    assert fitted.log_prob(short)[0] == pytest.approx(total, abs=1e-3)


def test_gaps_before_known_entries_are_refused(fitted, weather):
    gappy = weather.head(3).copy()
    gappy.loc[1, "sky"] = None
    with pytest.raises(ValueError, match=r"row 1, entry 1 is known.*impute"):
        fitted.log_prob(gappy)


@pytest.mark.parametrize("n_orders", [1, 2])
def test_imputation_is_by_the_conditional(n_orders, weather):
    model = small(n_orders=n_orders).fit(weather)
    row = weather.head(1).copy()
    each = pd.concat([row] * 3, ignore_index=True)
    each["sky"] = pd.Categorical(["clear", "cloudy", "rain"])
    mass = np.exp(model.log_prob(each))
    row["sky"] = pd.Categorical([None], categories=["clear", "cloudy", "rain"])
    filled = model.impute(row, random_state=0, n_particles=500)
    assert filled["sky"].iloc[0] == each["sky"][mass.argmax()]
    many = row.loc[row.index.repeat(400)].reset_index(drop=True)
    drawn = model.impute(many, n_draws=2, random_state=0, n_particles=30)
    assert len(drawn) == 2
    shares = drawn[1]["sky"].value_counts(normalize=True)[["clear", "cloudy", "rain"]]
    # Four standard errors, and the bias of 30 particles.
    assert np.abs(shares.to_numpy() - mass / mass.sum()).max() < 4.0 * 0.5 / 400**0.5 + 0.01


def test_the_mean_is_filled_in(fitted, weather):
    row = weather.head(1).copy()
    row["degrees"] = np.nan
    filled = fitted.impute(row, random_state=0, n_particles=1000)
    draws = pd.concat(fitted.impute(row, n_draws=100, random_state=1))
    error = draws["degrees"].std() / 100**0.5
    assert abs(filled["degrees"].iloc[0] - draws["degrees"].mean()) < 5.0 * error
    for name in ("sky", "umbrella", "visitors"):
        assert filled[name].iloc[0] == weather[name].iloc[0]


# -- context ----------------------------------------------------------------------------------


def test_conditional_on_a_class(weather):
    model = small().fit(weather[["degrees"]], context=weather["sky"])
    points = pd.DataFrame({"degrees": np.linspace(-20.0, 60.0, 801)})
    means = []
    for sky in ("clear", "cloudy", "rain"):
        mass = np.exp(model.log_prob(points, context=sky)) * 0.1
        assert mass.sum() == pytest.approx(1.0, abs=0.01)
        means.append((mass * points["degrees"]).sum())
    np.testing.assert_allclose(means, [25.0, 20.0, 15.0], atol=1.0)


def test_iris_by_bayes_rule():
    X, y = load_iris(return_X_y=True)
    method = MaximumLikelihood(epochs=60, learning_rate=0.01, batch_size=50)
    model = BayesClassifier(small(n_components=1, inference=method), shared=True)
    assert model.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.9


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_layer_sizes": ()}, "hidden_layer_sizes is empty"),
        ({"hidden_layer_sizes": (8, 0)}, r"hidden_layer_sizes\[1\] is 0"),
        ({"hidden_layer_sizes": 64}, r"hidden_layer_sizes is 64; expected a sequence, such as"),
        ({"hidden_layer_sizes": None}, "hidden_layer_sizes is None; expected a sequence"),
        ({"hidden_layer_sizes": "64"}, "hidden_layer_sizes is '64'; expected a sequence"),
        ({"kinds": []}, r"kinds is \[\]; expected 'auto', a kind of all columns \('category'"),
        ({"kinds": None}, "kinds is None; expected 'auto'"),
        ({"kinds": {"sky": []}}, r"the kind of column 'sky' is \[\]; expected one of"),
        ({"order": 3}, "order is 3; expected None, 'random' or the columns"),
        ({"n_components": 0}, "n_components is 0"),
        ({"n_orders": 1.5}, "n_orders is 1.5"),
        ({"order": "sorted"}, "order is 'sorted'"),
        ({"order": ["sky"]}, "expected each column of X once"),
        ({"order": ["sky", "umbrella", "visitors", "degrees"], "n_orders": 2}, "leave one of the"),
        ({"kinds": "count"}, "the kind of column 'sky' is 'count'"),
        ({"kinds": {"snow": "whole"}}, "kinds names a column 'snow'"),
        ({"kinds": {"degrees": "whole"}}, "column 'degrees' is to be 'whole', but has"),
    ],
)
def test_settings_out_of_range(settings, message, weather):
    with pytest.raises(ValueError, match=message):
        small(**settings).fit(weather)


def test_the_tag_tells_that_fits_refuse_gaps():
    assert not get_tags(MADE()).input_tags.allow_nan


def test_tables_that_are_refused(fitted, weather):
    gappy = weather.copy()
    gappy.loc[3, "degrees"] = np.nan
    with pytest.raises(ValueError, match=r"columns degrees\) of 1 rows; it is trained on complete"):
        clone(fitted).fit(gappy)
    with pytest.raises(ValueError, match="n_samples=1"):
        clone(fitted).fit(weather.head(1))
    with pytest.raises(ValueError, match="column 'visitors' has -1"):
        fitted.log_prob(weather.head(1).assign(visitors=-1))
    with pytest.raises(ValueError, match=r"column 'visitors' has 1\.5"):
        fitted.log_prob(weather.head(1).assign(visitors=1.5))
    with pytest.raises(ValueError, match="was not seen in fit"):
        fitted.log_prob(weather.head(1).assign(sky=["fog"]))
    with pytest.raises(ValueError, match=r"n_particles is 2\.5"):
        fitted.impute(gappy, n_particles=2.5)


def test_a_constant_column_is_warned_of():
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[:, 1] = 0.5
    with pytest.warns(RuntimeWarning, match="constant"):
        model = small().fit(x)
    assert np.isfinite(model.log_prob(x)).all()


def test_a_constant_column_is_measured_in_its_own_unit():
    # NumPy's deviation of 200 times 7.3 is 2e-15: of that scale, one digit more would be far out.
    X = np.column_stack([np.random.default_rng(0).normal(size=200), np.full(200, 7.3)])
    model = MADE((8,), inference=MaximumLikelihood(epochs=1), random_state=0, dtype="float64")
    with pytest.warns(RuntimeWarning, match="constant"):
        model.fit(X)
    assert abs(model.sample(50, random_state=0)[:, 1] - 7.3).max() < 20.0
    near = X[:5] + np.array([0.0, 1e-6])
    np.testing.assert_allclose(model.log_prob(near), model.log_prob(X[:5]), atol=1e-3)


def test_float64_keeps_the_digits_of_numbers_far_from_zero():
    # Of these, float32 has steps of 1024, and so had their centre.
    X = np.random.default_rng(0).normal(size=(200, 2))
    far = X + 12345678903.7
    settings = {"inference": MaximumLikelihood(epochs=2), "dtype": "float64", "random_state": 0}
    found = [MADE((8,), **settings).fit(rows).log_prob(rows) for rows in (X, far)]
    # Rows far away have 1e-6 of a deviation left.
    np.testing.assert_allclose(*found, atol=1e-4)
