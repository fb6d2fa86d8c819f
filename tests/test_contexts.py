"""Contexts become numbers by their kind in fit, however they are given later."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from ppl_gen.contexts import ContextCode


@pytest.mark.parametrize(
    "labels",
    [
        ["b", "a", "b"],
        np.array(["b", "a", "b"], dtype=object),
        pd.Series(["b", "a", "b"], dtype="category", index=[4, 5, 6]),
        pd.DataFrame({"kind": ["b", "a", "b"]}),
        pl.Series(["b", "a", "b"]),
        [True, False, True],
        pd.Series([True, False, True], dtype=object),
        np.array([2, 1, 2]),
        np.array([2.0, 1.0, 2.0]),
        pd.Series([2, 1, 2], dtype="Int64"),
        torch.tensor([2, 1, 2]),
    ],
    ids=lambda labels: f"{type(labels).__module__}-{getattr(labels, 'dtype', '')}",
)
def test_labels_are_coded_by_one_of_each(labels):
    code = ContextCode.of(labels, "fit")
    assert code.encode(labels, "fit").tolist() == [[0, 1], [1, 0], [0, 1]]
    assert code.for_rows(np.asarray(labels).ravel()[1], 2, "predict").tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize(
    "ages", [[1.5, 2.0, 2.5], pd.Series([1.5, 2, 2.5], dtype=object), pl.Series([1.5, 2.0, 2.5])]
)
def test_a_covariate_stays_one_where_it_is_whole(ages):
    code = ContextCode.of(ages, "fit")
    sd = np.std([1.5, 2.0, 2.5])
    for given in ([1.0, 3.0], [1, 3], np.array([[1], [3]]), pd.Series([1, 3], dtype="Int64")):
        np.testing.assert_allclose(code.encode(given, "predict"), [[-1 / sd], [1 / sd]])
    for one in (3, 3.0, [3], [3.0], np.float32(3)):
        np.testing.assert_allclose(code.for_rows(one, 2, "predict"), [[1 / sd], [1 / sd]])


def test_covariates_of_one_row_go_for_all():
    table = pd.DataFrame({"age": [1.0, 2.0, 4.0], "smokes": [True, False, True]})
    code = ContextCode.of(table, "fit")
    for n in (1, 2, 3):
        found = code.for_rows([2, False], n, "predict")
        np.testing.assert_array_equal(found, np.repeat(code.encode(table, "fit")[1:2], n, axis=0))


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ([1, "a", 2.5, None][:3], "seen|kinds"),
        (np.array([1, "a"], dtype=object), r"several kinds \(int, str\); expected one kind"),
        (["a", None], "1 missing labels; drop these rows"),
        ([1.5, np.nan], "NaN or infinite"),
        (pd.Series([1, None], dtype="Int64"), "NaN or infinite|missing"),
        (np.array([["1", "2"]]), "entries that are no numbers"),
        (pd.DataFrame({"a": ["x"], "b": [1]}), "columns that are no numbers"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.zeros((2, 0)), r"shape \(2, 0\)"),
    ],
)
def test_what_is_no_context_is_refused(context, told):
    with pytest.raises(ValueError, match=told):
        ContextCode.of(context, "fit").encode(["b"], "predict")


def test_labels_are_no_covariates_and_covariates_no_labels():
    with pytest.raises(ValueError, match=r"shape \(1,\); expected \(n, 1\) numbers"):
        ContextCode.of([0.5, 1.5], "fit").for_rows("a", 3, "predict")
    with pytest.raises(ValueError, match=r"\[7\] that were not seen"):
        ContextCode.of([1, 2], "fit").for_rows(7, 3, "predict")
    with pytest.raises(ValueError, match=r"shape \(1, 2\); expected \(n,\) labels"):
        ContextCode.of([1, 2], "fit").encode([[1.0, 2.0]], "predict")


def test_numbers_between_labels_are_unseen():
    code = ContextCode.of([0, 1, 2], "fit")
    for context in (0.5, [0.5]):
        with pytest.raises(ValueError, match=r"labels \[0.5\] that were not seen in fit"):
            code.for_rows(context, 3, "predict")
