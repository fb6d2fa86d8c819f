"""What goes into the codec comes out of it: type for type, bit for bit."""

import functools
import json
import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import BaseEstimator

import ppl_gen
from ppl_gen import MaximumLikelihood, Training
from ppl_gen.artifact_tree import ArtifactError, decode, encode


class Settings(BaseEstimator):
    def __init__(self, steps=10, inner=None):
        self.steps = steps
        self.inner = inner


@pytest.fixture
def registered(monkeypatch):
    """Make `Settings` a public class for one test."""
    monkeypatch.setattr(ppl_gen, "Settings", Settings, raising=False)
    monkeypatch.setitem(ppl_gen.PUBLIC, "Settings", __name__)


def through(tree):
    """Through JSON text and the safetensors format, as an artefact goes."""
    from safetensors.numpy import load, save

    content, arrays = encode(tree)
    return decode(json.loads(json.dumps(content, allow_nan=False)), load(save(arrays)))


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, float):
        assert math.copysign(1, a) == math.copysign(1, b) or math.isnan(a)
        assert a == b or (math.isnan(a) and math.isnan(b))
    elif isinstance(a, np.ndarray | np.generic):
        assert a.dtype.str == b.dtype.str
        assert a.shape == b.shape
        if a.dtype.kind == "O":
            assert_same(a.ravel().tolist(), b.ravel().tolist())
        else:
            assert a.tobytes() == b.tobytes()
    else:
        assert a == b


dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
    hnp.complex_number_dtypes(sizes=(64, 128), endianness="?"),
    hnp.datetime64_dtypes(endianness="?"),
    hnp.timedelta64_dtypes(endianness="?"),
    hnp.unicode_string_dtypes(endianness="?"),
    hnp.byte_string_dtypes(),
)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
arrays = hnp.arrays(dtypes, shapes)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    arrays,
    hnp.scalar_dtypes().filter(lambda d: d.itemsize <= 8).flatmap(hnp.from_dtype),
    dtypes,
)
keys = st.one_of(st.text(), st.integers(), st.booleans(), st.tuples(st.text(), st.integers()))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=12,
)


@given(trees)
def test_round_trip(tree):
    assert_same(tree, through(tree))


@given(arrays)
def test_arrays_that_are_not_contiguous(array):
    for view in (array.T, array[..., ::-1] if array.ndim else array, array.reshape(-1)[::2]):
        assert_same(np.array(view), through(view))


@given(st.lists(st.one_of(st.text(), st.none(), st.integers(), st.floats())))
def test_arrays_of_objects(items):
    array = np.empty((len(items), 1), dtype=object)
    array[:, 0] = items
    assert_same(array, through(array))


def test_paths_and_functions_of_methods_are_kept_by_their_names():
    optimizer = functools.partial(sorted, reverse=True)
    training = Training(optimizer=optimizer, schedule=len, checkpoint=Path("here") / "there")
    kept = decode(*encode({"method": MaximumLikelihood(training=training)}))["method"].training
    assert kept.optimizer == "builtins.sorted(reverse=True)"
    assert (kept.schedule, Path(kept.checkpoint)) == ("builtins.len", training.checkpoint)
    with pytest.raises(ValueError, match=r"optimizer is 'builtins.sorted.*or a callable"):
        kept.check()


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        -0.0,
        5e-324,
        2**53 + 1,
        -(10**40),
        "\ud800 a lone surrogate",
        {"$array": "a key that looks like a tag"},
        {True: 1, 2: {"a": ()}},
        np.float64("nan"),
        np.str_(""),
        np.datetime64("NaT"),
        np.array([""]),
        np.array(3.0),
        np.zeros((0, 3), dtype=">f8"),
        np.dtype(object),
        np.dtype("<M8[25s]"),
    ],
)
def test_values_of_interest(value):
    assert_same(value, through(value))


@pytest.mark.parametrize(
    "dtype",
    [
        pd.CategoricalDtype(),
        pd.CategoricalDtype([]),
        pd.CategoricalDtype(["Adelie", "Gentoo"]),
        pd.CategoricalDtype(pd.Index(["Adelie", "Gentoo"], dtype=object), ordered=True),
        pd.CategoricalDtype([3, 1, 2], ordered=True),
        pd.CategoricalDtype([0.5, float("inf")]),
        pd.CategoricalDtype([True, False]),
        pd.CategoricalDtype(pd.to_datetime(["2020-01-01", "2021-06-01"])),
        pd.StringDtype(),
        pd.StringDtype(na_value=np.nan),
        pd.Int64Dtype(),
        pd.BooleanDtype(),
        pd.DatetimeTZDtype(tz="UTC"),
        pd.SparseDtype("float64"),
    ],
    ids=str,
)
def test_pandas_dtypes(dtype):
    restored = through({"dtype": dtype})["dtype"]
    assert type(restored) is type(dtype)
    assert restored == dtype
    if isinstance(dtype, pd.CategoricalDtype) and dtype.categories is not None:
        assert restored.ordered == dtype.ordered
        assert restored.categories.dtype == dtype.categories.dtype


def test_strings_of_no_length():
    # NumPy makes a dtype of no bytes for the empty string, and itself turns it into one character.
    array = np.zeros(3, dtype=[("x", "<U0"), ("y", "i4")])["x"]
    assert array.dtype.itemsize == 0
    assert through(array).tolist() == ["", "", ""]


def test_restored_arrays_are_writable():
    through({"mean": np.arange(3.0)})["mean"][0] = 7.0


def test_the_same_path_twice():
    tree = {"a/b": np.zeros(1), "a": {"b": np.ones(1)}}
    assert_same(tree, through(tree))


def test_public_objects(registered):
    tree = {"inference": Settings(steps=3, inner=Settings(inner=np.ones(2)))}
    content, _ = encode(tree)
    assert content["inference"]["$object"] == "Settings"
    restored = through(tree)["inference"]
    assert type(restored) is Settings
    assert restored.steps == 3
    assert_same(restored.inner.inner, np.ones(2))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Settings(), r"cannot store .*Settings at '/a/0'"),
        ({1, 2}, "cannot store builtins.set at '/a/0'"),
        (np.array([{}]), r"object array at '/a/0' holds \['dict'\]"),
        (np.ma.masked_array([1, 2], [0, 1]), "MaskedArray"),
        (np.zeros(2, dtype=[("x", "f8")]), "cannot store the dtype"),
        (np.zeros(2, dtype=np.longdouble), "cannot store the dtype"),
        (np.dtype([("x", "f8")]), "cannot store the dtype"),
        (pd.DataFrame({"x": [1]}, index=["a"]), "index of the DataFrame at '/a/0'"),
        (pd.Series([1]), "Series"),
        (pd.CategoricalDtype(pd.interval_range(0, 2)), r"holds \['Interval'\]"),
        (random.Random(0), "random.Random"),
        (lambda x: x, "function"),
    ],
)
def test_what_cannot_be_stored_is_refused_when_written(value, message):
    with pytest.raises(TypeError, match=message):
        encode({"a": [value]})


def test_a_tree_that_contains_itself():
    tree = {}
    tree["self"] = tree
    with pytest.raises(ValueError, match="does it contain itself"):
        encode(tree)


ONE = {"x": np.zeros((2, 3)), "bytes": np.zeros(7, dtype=np.uint8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"$pickle": "gASV"}, r"unknown tag '\$pickle'"),
        ({"$array": "y", "dtype": "<f8", "shape": [2]}, "array 'y' is not in the artefact"),
        ({"$array": "x", "dtype": "<f8", "shape": [3, 2]}, r"has shape \(2, 3\)"),
        ({"$array": "x", "dtype": "<f8"}, r"has shape \(2, 3\)"),
        ({"$array": "x", "dtype": "<f4", "shape": [2, 3]}, "the manifest says float32"),
        ({"$array": "bytes", "dtype": "<c16", "shape": [1]}, "holds 7 bytes"),
        ({"$array": "x", "dtype": "|O", "shape": [2, 3]}, "array of objects"),
        ({"$array": "x", "dtype": "nonsense", "shape": [2, 3]}, r"malformed \$array"),
        ({"$array": "x"}, r"malformed \$array"),
        ({"$float": []}, r"malformed \$float"),
        ({"$int": "12 monkeys"}, r"malformed \$int"),
        ({"$dict": [[["unhashable"], 1]]}, r"malformed \$dict"),
        ({"$objects": ["a", "b"], "shape": [3]}, r"malformed \$objects"),
        ({"$pandas": "nonsense"}, r"malformed \$pandas"),
        ({"$object": "os.system", "params": {}}, "no public class"),
        ({"$object": "load", "params": {}}, "no public class"),
    ],
)
def test_malformed_content_is_refused(content, message):
    with pytest.raises(ArtifactError, match=message):
        decode({"a": [content]}, ONE)


def test_an_object_with_unknown_parameters_is_refused(registered):
    with pytest.raises(ArtifactError, match=r"malformed \$object.*bogus"):
        decode({"$object": "Settings", "params": {"bogus": 1}}, {})


def test_frames_of_numbered_rows_come_back():
    frame = pd.DataFrame({"epoch": [1, 2], "loss": [0.5, np.nan], "note": ["a", None]})
    json, arrays = encode({"history": frame})
    pd.testing.assert_frame_equal(decode(json, arrays)["history"], frame)
    with pytest.raises(TypeError, match="reset_index"):
        encode(frame.set_index("note"))
