"""Tables in and out: what is encoded comes back as it was."""

import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl_gen.data import (
    Rows,
    Schema,
    describe_matrix,
    is_frame,
    read_frame,
    to_numpy,
    with_categories,
)

#: What a family says of each kind of column: numbers that vary freely, or whole ones.
WHOLE = {"number": False, "bool": True, "category": True}


def round_trip(frame):
    values, schema = read_frame(frame, "Test")
    np.testing.assert_array_equal(schema.encode(frame, "Test"), values)
    again = Schema.from_tree(schema.to_tree())
    assert again == schema
    return again.decode(values, tuple(WHOLE[column.kind] for column in schema.columns))


numbers = st.floats(-1e9, 1e9) | st.just(float("nan"))
colours = st.sampled_from(["red", "green", "blue"])


@st.composite
def tables(draw):
    """Columns of each kind, with a value in each."""
    n_rows = draw(st.integers(1, 8))

    def column(values, first):
        return [draw(first), *draw(st.lists(values, min_size=n_rows, max_size=n_rows))]

    return {
        "size": column(numbers, st.floats(-1e9, 1e9)),
        "colour": column(colours | st.none(), colours),
        "ripe": column(st.booleans(), st.booleans()),
    }


@given(tables())
@settings(max_examples=40)
def test_pandas_tables_come_back(table):
    frame = pd.DataFrame(table)
    frame["colour"] = pd.Categorical(frame["colour"], ["red", "green", "blue", "grey"])
    pd.testing.assert_frame_equal(round_trip(frame), frame)


@given(tables())
@settings(max_examples=40)
def test_polars_tables_come_back(table):
    table["size"] = [None if value != value else value for value in table["size"]]
    frame = polars.DataFrame(
        table, schema_overrides={"colour": polars.Enum(["red", "green", "blue", "grey"])}
    )
    found = round_trip(frame)
    assert found.schema == frame.schema
    filled = found.with_columns(polars.col("size").fill_nan(None))
    assert filled.equals(frame)


def test_polars_categories_come_back_as_their_dtype():
    values = ["red", None, "blue"]
    frame = polars.DataFrame(
        {"a": values, "b": values, "c": values},
        schema={"a": polars.Categorical, "b": polars.Enum(["red", "blue"]), "c": polars.String},
    )
    assert round_trip(frame).equals(frame)
    assert round_trip(frame).schema == frame.schema
    # A table may lack some, or all, of them.
    _, schema = read_frame(frame, "Test")
    assert schema.decode(np.full((2, 3), np.nan), (True,) * 3).schema == frame.schema


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2, 3], dtype="int16"),
        pd.Series([1.5, 2.0, None], dtype="float32"),
        pd.Series([True, False, True]),
        pd.Categorical(["low", "high", None], ["low", "mid", "high"], ordered=True),
        pd.Categorical([3, 1, 3], [1, 2, 3]),
    ],
    ids=["int16", "float32", "bool", "ordered", "numbers"],
)
def test_dtypes_come_back(column):
    frame = pd.DataFrame({"x": column})
    values, schema = read_frame(frame, "Test")
    whole = (schema.columns[0].dtype != "float32",)
    pd.testing.assert_frame_equal(schema.decode(values, whole), frame)


@pytest.mark.parametrize(
    ("column", "kind", "expected"),
    [
        (pd.Series([1, None, 3], dtype="Int64"), "number", [1.0, np.nan, 3.0]),
        (pd.Series([1.5, None], dtype="Float64"), "number", [1.5, np.nan]),
        (pd.Series([True, None], dtype="boolean"), "bool", [1.0, np.nan]),
        (pd.Series([True, None, False], dtype=object), "bool", [1.0, np.nan, 0.0]),
        (pd.Series([1, 2.5, None], dtype=object), "number", [1.0, 2.5, np.nan]),
        (pd.Series(["b", None, "a"], dtype="string"), "category", [1.0, np.nan, 0.0]),
        (pd.Series(["b", None, "a"], dtype=object), "category", [1.0, np.nan, 0.0]),
        (pd.Series([pd.NA, "a"], dtype=object), "category", [np.nan, 0.0]),
        (polars.Series([1, None, 3]), "number", [1.0, np.nan, 3.0]),
        (polars.Series([True, None]), "bool", [1.0, np.nan]),
        (polars.Series(["b", None, "a"]), "category", [1.0, np.nan, 0.0]),
        (polars.Series(["b", None, "a"], dtype=polars.Categorical), "category", [1, np.nan, 0]),
    ],
    ids=lambda value: f"{type(value).__module__.split('.')[0]}-{getattr(value, 'dtype', value)}",
)
def test_ways_to_hold_a_column(column, kind, expected):
    frame = {"pandas": pd.DataFrame, "polars": polars.DataFrame}[
        type(column).__module__.split(".")[0]
    ]({"x": column})
    values, schema = read_frame(frame, "Test")
    assert schema.columns[0].kind == kind
    np.testing.assert_array_equal(values[:, 0], expected)
    assert schema.names == ["x"]
    # A draw of it is a column of the same container.
    drawn = schema.decode(values, (WHOLE[kind],))
    assert type(drawn) is type(frame)


def test_strings_learn_all_their_categories():
    frame = pd.DataFrame({"a": ["x", None, "y"], "b": [1, 2, 3], "c": [True, None, False]})
    found = with_categories(frame)
    assert found["a"].cat.categories.tolist() == ["x", "y"]
    assert found["c"].dtype == frame["c"].dtype
    assert with_categories(found) is found
    for kind in (polars.String, polars.Categorical):
        frame = polars.DataFrame(
            {"a": ["y", None, "x"], "b": [1, 2, 3]}, schema_overrides={"a": kind}
        )
        assert with_categories(frame).schema["a"] == polars.Enum(["x", "y"])


def test_whole_numbers_take_back_their_dtype_only_if_they_are():
    schema = describe_matrix(np.ones((2, 2), dtype=np.int32))
    assert schema.decode(np.array([[1.0, 2.0]]), (True, True)).dtype == np.int32
    assert schema.decode(np.array([[1.5, 2.0]]), (True, True)).dtype == np.float64
    assert schema.decode(np.array([[1.0, 2.0]]), (False, True)).dtype == np.float64


def test_arrays_of_truth_values_take_back_their_dtype_only_if_they_are():
    schema = describe_matrix(np.ones((2, 2), dtype=bool))
    whole = (True, True)
    assert schema.decode(np.array([[0.0, 1.0]]), whole).dtype == bool
    assert schema.decode(np.array([[0.0, 2.0]]), whole).dtype == np.float64
    assert schema.decode(np.array([[0.0, np.nan]]), whole).dtype == np.float64
    assert schema.decode(np.array([[0.0, 1.0]]), (False, True)).dtype == np.float64


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (pd.DataFrame({"a": []}), ValueError, "0 sample"),
        (pd.DataFrame(index=[0, 1]), ValueError, r"0 feature\(s\)"),
        (pd.DataFrame({"a": [1.0, -np.inf]}), ValueError, "column 'a' contains infinity"),
        (pd.DataFrame({"a": [1.0], "b": [None]}), ValueError, "column 'b' is all NaN"),
        (pd.DataFrame({"a": [1 + 2j, 3.0]}), TypeError, "column 'a' has dtype complex128"),
        (pd.DataFrame({"a": [[1], "b"]}), TypeError, "column 'a' mixes values"),
        (pd.DataFrame({"a": [1, "b"]}), TypeError, "column 'a' mixes values"),
    ],
)
def test_what_is_no_data_is_refused(frame, error, message):
    with pytest.raises(error, match=message):
        read_frame(frame, "Test")


def test_another_kind_of_column_is_refused():
    _, schema = read_frame(pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}), "Test")
    with pytest.raises(ValueError, match="column 'a' was number in fit, but now has dtype"):
        schema.encode(pd.DataFrame({"a": ["u", "v"], "b": ["x", "y"]}), "Test")
    with pytest.raises(ValueError, match=r"column 'b' has category 'z'.*known are 'x', 'y'"):
        schema.encode(pd.DataFrame({"a": [1.0], "b": ["z"]}), "Test")


def test_rows_slice_with_their_weights_and_labels():
    rows = Rows(np.arange(6.0).reshape(3, 2), np.array([1.0, 2.0, 3.0]), np.array([0, -1, 1]))
    assert len(rows) == 3
    assert rows.total_weight == 6.0
    part = rows[1:]
    assert part.weights.tolist() == [2.0, 3.0]
    assert part.labels.tolist() == [-1, 1]
    assert rows.weights_of(slice(0, 1)).tolist() == [1.0]
    sparse = Rows(scipy.sparse.csr_array(np.eye(3)))
    assert sparse.total_weight == 3.0
    assert sparse[:2].values.shape == (2, 3)
    assert sparse.weights_of(slice(0, 1)) is None


def test_arrays_of_other_libraries_become_numpy():
    import torch
    import xarray

    x = np.arange(4.0).reshape(2, 2)
    for other in (torch.as_tensor(x), torch.as_tensor(x).requires_grad_(), xarray.DataArray(x)):
        found = to_numpy(other)
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, x)
    assert to_numpy(x) is x
    assert is_frame(pd.DataFrame(x))
    assert not is_frame(x)
