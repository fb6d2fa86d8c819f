"""Tables in and out: any container to a float matrix and back, names and dtypes kept.

Inside, a table is a float64 matrix with NaN for what is missing and codes 0, 1, 2, ... for
categories. A `Schema` remembers what the columns were, refuses another table, and gives back
draws in the container, columns and dtypes of the table that was fitted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ppl_gen.algorithms.row_chunks import row_slices

#: Rows to a compiled call on a device.
DEVICE_ROWS = 65_536

Array = Any
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Rows of a table, with what EM wants to know of each.

    Attributes
    ----------
    values : (n, D)
        NaN where missing; scipy.sparse where the family takes that.
    weights : (n,) or None
    labels : (n,) or None
        Known classes, -1 where unknown.
    """

    values: Array
    weights: Array | None = None
    labels: Array | None = None

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def __getitem__(self, rows: Any) -> "Rows":
        return Rows(
            self.values[rows],
            None if self.weights is None else self.weights[rows],
            None if self.labels is None else self.labels[rows],
        )

    def weights_of(self, rows: slice) -> Array | None:
        """Weights of a slice of the rows, or None."""
        return None if self.weights is None else self.weights[rows]

    @property
    def slices(self) -> list[slice]:
        """Rows to work on at once, so that intermediates stay in the cache."""
        return list(row_slices(len(self)))

    def blocks(self) -> Iterator["Rows"]:
        """Yield pieces large enough to fill a GPU, and small enough for its memory."""
        return (self[rows] for rows in row_slices(len(self), DEVICE_ROWS))

    @property
    def arrays(self) -> tuple[Array | None, ...]:
        """The arrays from which the rows are rebuilt: ``Rows(*rows.arrays)``."""
        return self.values, self.weights, self.labels

    @property
    def total_weight(self) -> float:
        """Sum of the weights: the number of rows, if they have none."""
        return float(len(self)) if self.weights is None else float(self.weights.sum())


@dataclass(frozen=True)
class Column:
    """One column of the table that was fitted.

    Attributes
    ----------
    name : str or None
    kind : {"number", "bool", "category"}
    dtype : str
        As the container names it.
    categories : tuple or None
        Values of the codes 0, 1, 2, ...
    ordered : bool
    """

    name: Any
    kind: str
    dtype: str
    categories: tuple[Any, ...] | None = None
    ordered: bool = False


@dataclass(frozen=True)
class Schema:
    """What the table that was fitted looked like.

    Attributes
    ----------
    container : {"numpy", "pandas", "polars", "sparse"}
    columns : tuple of Column
    """

    container: str
    columns: tuple[Column, ...]

    #: Fields by which an artefact stores a schema.
    FIELDS: ClassVar[tuple[str, ...]] = ("name", "kind", "dtype", "categories", "ordered")

    @property
    def names(self) -> list[Any]:
        """Names of the columns; their places, where they have none."""
        return [place if c.name is None else c.name for place, c in enumerate(self.columns)]

    def take(self, names: list[Any]) -> "Schema":
        """Return the schema of some of the columns, in this order."""
        columns = dict(zip(self.names, self.columns, strict=True))
        return Schema(self.container, tuple(columns[name] for name in names))

    def encode(self, frame: Any, who: str) -> Matrix:
        """Turn another frame of the same columns into a matrix.

        Raises
        ------
        ValueError
            If a category was not seen in fit, or a column changed its kind.
        """
        series = _frame_columns(frame)
        return _checked(
            np.column_stack(
                [
                    encode_column(values, column, who)
                    for values, column in zip(series, self.columns, strict=True)
                ]
            ),
            self.columns,
            who,
            training=False,
        )

    def decode(self, values: Matrix, whole: tuple[bool, ...]) -> Any:
        """Give a matrix the container, names, categories and dtypes of the table fitted.

        Parameters
        ----------
        values : (n, D)
        whole : tuple of bool
            Columns whose family draws whole numbers: these take back an integer or bool dtype.
        """
        if self.container in ("numpy", "sparse"):
            dtype = np.dtype(self.columns[0].dtype)
            if dtype.kind == "f" or (dtype.kind in "iu" and all(whole) and _is_whole(values)):
                return values.astype(dtype, copy=False)
            if dtype.kind == "b" and all(whole) and ((values == 0) | (values == 1)).all():
                return values.astype(dtype)
            return values
        columns = {
            column.name: _decode(values[:, place], column, whole[place])
            for place, column in enumerate(self.columns)
        }
        if self.container == "polars":
            import polars

            return polars.DataFrame(
                {
                    str(name): list(column) if column.dtype == object else column
                    for name, column in columns.items()
                },
                schema_overrides={
                    str(column.name): _polars_dtype(column)
                    for column in self.columns
                    if column.dtype.startswith(("Enum", "Categorical", "String", "Utf8"))
                },
            )
        import pandas

        frame = pandas.DataFrame(columns, columns=[column.name for column in self.columns])
        for place, column in enumerate(self.columns):
            if column.kind == "category" and column.dtype == "category":
                assert column.categories is not None
                kind = pandas.CategoricalDtype(list(column.categories), ordered=column.ordered)
                codes = _places(values[:, place], np.isnan(values[:, place]))
                frame[column.name] = pandas.Categorical.from_codes(codes, dtype=kind)
        return frame

    def to_tree(self) -> dict[str, Any]:
        """Return the schema as plain data, for an artefact."""
        columns = [{field: getattr(c, field) for field in self.FIELDS} for c in self.columns]
        return {"container": self.container, "columns": columns}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "Schema":
        """Return the schema that :meth:`to_tree` gave."""
        columns = (
            Column(
                **{**c, "categories": None if c["categories"] is None else tuple(c["categories"])}
            )
            for c in tree["columns"]
        )
        return cls(tree["container"], tuple(columns))


def is_frame(X: Any) -> bool:
    """Tell whether X is a pandas or polars DataFrame, without importing either."""
    return hasattr(X, "columns") and hasattr(X, "dtypes") and hasattr(X, "shape")


def with_categories(frame: Any) -> Any:
    """Turn columns of strings into categoricals, so that any part of the rows knows them all.

    Those of polars become Enums.
    """
    if type(frame).__module__.startswith("polars"):
        # A Categorical, unlike an Enum, tells no part of the rows what the others have.
        kinds = ("String", "Utf8", "Categorical")
        strings = [c for c, dtype in frame.schema.items() if str(dtype).startswith(kinds)]
        if not strings:
            return frame
        import polars

        return frame.with_columns(
            polars.col(c).cast(polars.Enum(sorted(set(frame[c].drop_nulls().to_list()))))
            for c in strings
        )
    import pandas

    strings = [
        c
        for c in frame.columns
        if str(frame[c].dtype) in ("object", "str", "string")
        and pandas.api.types.infer_dtype(frame[c], skipna=True) == "string"
    ]
    return frame.astype(dict.fromkeys(strings, "category")) if strings else frame


def to_numpy(X: Any) -> Any:
    """Turn torch, JAX and xarray arrays into NumPy ones; leave anything else as it is."""
    module = type(X).__module__.partition(".")[0]
    if module == "torch":
        return X.detach().cpu().numpy()
    if module in ("jax", "jaxlib", "xarray"):
        return np.asarray(X)
    return X


def counted_rows(sample_weight: Any, X: Any, *others: Any) -> tuple[Any, ...]:
    """Leave out rows of weight zero, before anything is read off them: none teaches a category.

    Parameters
    ----------
    sample_weight : (n,), or a number for all
    X : table, images or list of sequences, of n
    *others : (n,) each, or None
        What goes with the rows, such as labels.

    Returns
    -------
    sample_weight, X, *others
        Of the rows that count.

    Raises
    ------
    ValueError
        If lengths differ, or weights are negative, no finite numbers or all zero.
    """
    # Programs are written without scikit-learn.
    from sklearn.utils import _safe_indexing, indexable
    from sklearn.utils.validation import _check_sample_weight

    arrays = indexable(*map(to_numpy, (X, *others)))
    weight = _check_sample_weight(sample_weight, arrays[0], ensure_non_negative=True)
    rows = np.flatnonzero(weight)
    if len(rows) < len(weight):
        arrays = [None if array is None else _safe_indexing(array, rows) for array in arrays]
    return weight[rows], *arrays


def read_frame(frame: Any, who: str, *, columns_first: bool = False) -> tuple[Matrix, Schema]:
    """Encode the frame to be fitted, and remember what it looked like.

    The matrix is laid out row by row, or column by column with `columns_first`.

    Raises
    ------
    ValueError
        If it is empty, or a column has infinite values or no value at all.
    TypeError
        If a column is neither numbers, booleans nor categories.
    """
    if frame.shape[0] == 0 or frame.shape[1] == 0:
        raise ValueError(
            f"{who}: Found array with {frame.shape[0]} sample(s) and {frame.shape[1]} feature(s) "
            f"(shape={tuple(frame.shape)}) while a minimum of 1 is required."
        )
    container = "polars" if type(frame).__module__.startswith("polars") else "pandas"
    series = _frame_columns(frame)
    columns = tuple(
        _describe(name, values, who) for name, values in zip(frame.columns, series, strict=True)
    )
    encoded = [encode_column(v, column, who) for v, column in zip(series, columns, strict=True)]
    values = np.array(encoded).T if columns_first else np.column_stack(encoded)
    return _checked(values, columns, who, training=True), Schema(container, columns)


def describe_matrix(X: Array, container: str = "numpy") -> Schema:
    """Return the schema of a matrix of numbers."""
    column = Column(None, "number", str(X.dtype))
    return Schema(container, (column,) * X.shape[1])


def _frame_columns(frame: Any) -> list[Any]:
    if type(frame).__module__.startswith("polars"):
        return list(frame.get_columns())
    return [frame.iloc[:, place] for place in range(frame.shape[1])]


def _describe(name: Any, values: Any, who: str) -> Column:
    dtype = str(values.dtype)
    if dtype == "category":
        categories = values.cat.categories
        return Column(name, "category", dtype, tuple(categories.tolist()), values.cat.ordered)
    if dtype.startswith("Enum"):
        return Column(name, "category", dtype, tuple(values.dtype.categories.to_list()))
    lowered = dtype.lower()
    if lowered.startswith("bool"):
        return Column(name, "bool", dtype)
    if lowered.startswith(("int", "uint", "float")):
        return Column(name, "number", dtype)
    if lowered.startswith(("object", "str", "string", "categorical", "enum")):
        present = [value for value in values.to_list() if not is_missing(value)]
        if all(isinstance(value, bool | np.bool_) for value in present) and present:
            return Column(name, "bool", dtype)
        if all(isinstance(value, int | float | np.number) for value in present):
            return Column(name, "number", dtype)
        try:
            return Column(name, "category", dtype, tuple(sorted(set(present))))
        except TypeError as error:
            raise TypeError(
                f"{who}: column {name!r} mixes values that cannot be ordered or hashed; make it "
                "strings, numbers or a pandas categorical"
            ) from error
    raise TypeError(
        f"{who}: column {name!r} has dtype {dtype}; expected numbers, booleans or categories; "
        "convert it, or leave it out"
    )


def is_missing(value: Any) -> bool:
    """Tell whether a value is None, NaN or pandas.NA."""
    # pandas.NA first: it compares to neither true nor false.
    return value is None or type(value).__name__ == "NAType" or value != value


def encode_column(values: Any, column: Column, who: str) -> Matrix:
    """Encode one column as floats: codes for categories, NaN for what is missing.

    Raises
    ------
    ValueError
        If a category is none of the column's, or numbers were expected.
    """
    if column.kind != "category":
        try:
            listed = values.to_list() if str(values.dtype) == "object" else None
            if listed is not None or str(values.dtype)[:1].isupper():
                listed = listed if listed is not None else values.to_list()
                return np.array([np.nan if is_missing(v) else float(v) for v in listed])
            return np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{who}: column {column.name!r} was {column.kind} in fit, but now has dtype "
                f"{values.dtype}; give the columns that were fitted"
            ) from error
    assert column.categories is not None
    if hasattr(values, "cat") and str(values.dtype) == "category":
        # Each category is looked up once, not each row.
        present, places = values.cat.categories.tolist(), values.cat.codes.to_numpy()
        if present == list(column.categories):
            encoded: Matrix = places.astype(np.float64)
            encoded[places < 0] = np.nan
            return encoded
        used = np.flatnonzero(np.bincount(places[places >= 0], minlength=1))
    else:
        present, places = _distinct(values.to_list())
        used = np.arange(len(present))
    codes = {category: float(code) for code, category in enumerate(column.categories)}
    table = np.full(len(present) + 1, np.nan)  # the last is what is missing, at place -1
    for place in used:
        code = codes.get(present[place])
        if code is None:
            raise ValueError(
                f"{who}: column {column.name!r} has category {present[place]!r}, which was not "
                f"seen in fit; known are {', '.join(map(repr, column.categories))}; mark it "
                "missing (None), or declare it beforehand as a pandas categorical"
            )
        table[place] = code
    encoded = table[places]
    return encoded


def _distinct(values: list[Any]) -> tuple[list[Any], npt.NDArray[np.intp]]:
    """Return the distinct values, and the place of each among them, -1 where missing."""
    known: dict[Any, int] = {}
    places = np.empty(len(values), dtype=np.intp)
    for row, value in enumerate(values):
        if is_missing(value):
            places[row] = -1
        else:
            places[row] = known.setdefault(value, len(known))
    return list(known), places


def _checked(values: Matrix, columns: tuple[Column, ...], who: str, *, training: bool) -> Matrix:
    numbers = [place for place, column in enumerate(columns) if column.kind == "number"]
    infinite = [place for place in numbers if np.isinf(values[:, place]).any()]
    if infinite:
        name = columns[infinite[0]].name
        raise ValueError(
            f"{who}: column {name!r} contains infinity; replace it, or mark it missing (NaN)"
        )
    if training:
        refuse_empty_columns(values, [column.name for column in columns], who)
    return values


def refuse_gaps(
    values: Array, names: list[Any], who: str, reason: str = "this density cannot leave them out"
) -> None:
    """Raise ValueError if a row has a gap; name the columns, and say why they are needed."""
    if np.isfinite(values.sum()):  # quick where all is well
        return
    gaps = np.isnan(values)
    if gaps.any():
        columns = [str(names[d]) for d in np.flatnonzero(gaps.any(axis=0))]
        raise ValueError(
            f"{who}: Input X contains NaN in {int(gaps.sum())} entries (columns "
            f"{', '.join(columns[:5])}) of {int(gaps.any(axis=1).sum())} rows; {reason}: "
            "fill them (a VAE, GaussianMixture or FactorAnalysis imputes), or drop these rows"
        )


def refuse_empty_columns(values: Array, names: list[Any], who: str) -> None:
    """Raise ValueError if a column has no value at all."""
    if not np.isnan(values.sum()):  # nothing is missing
        return
    empty = np.isnan(values).all(axis=0)
    if empty.any():
        place = int(np.flatnonzero(empty)[0])
        name = names[place] if names[place] is not None else place
        raise ValueError(f"{who}: column {name!r} is all NaN; drop it, or impute it first")


def _decode(values: Matrix, column: Column, whole: bool) -> Any:
    missing = np.isnan(values)
    if column.kind == "category":
        assert column.categories is not None
        table = np.empty(len(column.categories) + 1, dtype=object)  # the last is what is missing
        for code, category in enumerate(column.categories):
            table[code] = category
        return table[_places(values, missing)]
    if column.kind == "bool" and not missing.any():
        return values > 0.5
    dtype = column.dtype.lower()
    if dtype.startswith("float"):
        return values.astype(dtype)
    if dtype.startswith(("int", "uint")) and whole and not missing.any() and _is_whole(values):
        return values.astype(dtype)
    return values


def _polars_dtype(column: Column) -> Any:
    """Return what a column of categories was, where its values do not say it."""
    import polars

    if column.dtype.startswith("Enum"):
        return polars.Enum(column.categories or ())
    return polars.Categorical() if column.dtype.startswith("Categorical") else polars.String()


def _places(codes: Matrix, missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Codes as whole numbers, -1 where missing."""
    return np.where(missing, -1.0, codes).astype(np.intp)


def _is_whole(values: Matrix) -> bool:
    return bool((values == np.floor(values)).all())
