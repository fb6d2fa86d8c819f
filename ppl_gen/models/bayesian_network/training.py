"""The table that a network is fitted to: of X and y, and what its columns are taken for."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from ppl_gen.data import Schema, is_frame, is_missing, to_numpy
from ppl_gen.models.bayesian_network.reading import WHO
from ppl_gen.structures.bayesian_network.network import Network

Array = Any

#: Distinct whole numbers up to which a column of integers may well be of codes.
FEW = 10


def as_table(X: Any) -> Any:
    """Return X, as NumPy where it is an array.

    Raises
    ------
    TypeError
        If it is a dict, or a query of polars that has not run.
    """
    X = to_numpy(X)
    if isinstance(X, Mapping):
        raise TypeError(f"{WHO}: X is a {type(X).__name__}; give a DataFrame: pandas.DataFrame(X)")
    if type(X).__module__.startswith("polars") and type(X).__name__ == "LazyFrame":
        raise TypeError(f"{WHO}: X is a LazyFrame, which has no rows yet; give X.collect()")
    return X


def refuse_text(X: Any) -> None:
    """Raise ValueError if an array has text: names of states go with names of columns."""
    array = np.asarray(X) if isinstance(X, list | tuple) else X
    if is_frame(X) or getattr(getattr(array, "dtype", None), "kind", "f") not in "OUS":
        return
    try:
        array.astype(np.float64)
    except ValueError as error:
        raise ValueError(
            f"{WHO}.fit: X is an array with values that are not numbers ({error}); give a "
            "DataFrame, whose columns are the nodes by name"
        ) from error


def with_target(X: Any, y: Any, target: Any) -> Any:
    """Return a table with y as the column of the target, where both are given.

    Raises
    ------
    TypeError
        If X has no names of columns.
    ValueError
        If X has the target, too, or another number of rows.
    """
    if y is None or target is None:
        return X
    if not is_frame(X):
        raise TypeError(
            f"{WHO}.fit: y holds the states of {target!r}, beside which the columns of X need "
            "names; give a DataFrame"
        )
    if target in list(X.columns):
        raise ValueError(f"{WHO}.fit: {target!r} is a column of X, and y is given too; drop one")
    check_consistent_length(X, y)
    if type(X).__module__.startswith("polars"):
        import polars

        if not type(y).__module__.startswith("polars"):
            y = [None if is_missing(value) else value for value in column_or_1d(y).tolist()]
        return X.with_columns(polars.Series(target, y))
    if getattr(y, "ndim", None) != 1 or not hasattr(y, "iloc"):
        y = column_or_1d(y)
    import pandas as pd

    X = X.copy(deep=False)
    X[target] = pd.Series(y, dtype=getattr(y, "dtype", None)).array
    return X


def classes_of(y: Any) -> tuple[Any, ...] | None:
    """States that y says of itself, in the order of scikit-learn's classes; None of text.

    What y holds is states, whatever they are written as; numbers need no declaration. Those of
    categories are sorted, since scikit-learn's metrics take the columns of probabilities so.

    Raises
    ------
    ValueError
        If they are numbers that are not whole, which are no classes.
    """
    categories = getattr(getattr(y, "dtype", None), "categories", None)
    if categories is None:
        codes = np.asarray(y)
        if codes.dtype.kind not in "iuf":
            return None
        codes = codes[~np.isnan(codes)]
        if codes.dtype.kind == "f":
            check_classification_targets(codes)
        return tuple(np.unique(codes).tolist())
    own = list(categories)
    try:
        return tuple(sorted(s.item() if isinstance(s, np.generic) else s for s in own))
    except TypeError:  # of several types
        return None


def check_target(target: Any, states: Mapping[Any, Any]) -> None:
    """Raise ValueError if a target is no node with states."""
    if target is not None and states.get(target) is None:
        what = "a column of numbers" if target in states else "no node"
        raise ValueError(
            f"{WHO}: target is {target!r}, {what}; expected a node with states, of "
            f"{[name for name, own in states.items() if own]} (numbers that are codes are "
            "declared: states={...})"
        )


def check_rows(network: Network, x: Array) -> None:
    """Raise ValueError if rows (n, V) are too few to fit: numbers need two, tables one."""
    tables = all(conditional.kind == "tabular" for conditional in network.conditionals)
    if len(x) < 2 and not tables:
        raise ValueError(
            f"{WHO}.fit: n_samples=1, but a distribution of a number, or given one, is learned "
            "from 2 rows or more"
        )


def check_conjugate(network: Network, x: Array) -> None:
    """Raise ValueError if rows (n, V) have no conjugate posterior."""
    if np.isnan(x).any():
        v = int(np.flatnonzero(np.isnan(x).any(axis=0))[0])
        raise ValueError(
            f"{WHO}.fit: {network.names[v]!r} is missing in some rows, and the posterior is "
            "conjugate for complete rows only; use EM, NUTS or SVI"
        )
    softmax = [network.names[c.node] for c in network.conditionals if c.kind == "softmax"]
    if softmax:
        raise ValueError(
            f"{WHO}.fit: {softmax} have a softmax, which has no conjugate prior; use NUTS or SVI"
        )


def warn_of_codes(schema: Schema, values: Array, said: Collection[Any]) -> None:
    """Warn of columns of few whole numbers, which were not said to be states or numbers.

    Parameters
    ----------
    schema : Schema
    values : (n, D)
        Of its columns; NaN where missing.
    said : collection of names
        Columns of which it is known what they are.
    """
    few = {}
    for place, (name, column) in enumerate(zip(schema.names, schema.columns, strict=True)):
        kinds = ("int", "uint", "object")
        if column.kind != "number" or name in said or not column.dtype.lower().startswith(kinds):
            continue
        shown = values[~np.isnan(values[:, place]), place]
        distinct = np.unique(shown)
        # Among few rows, numbers that are numbers are few, too; codes come again.
        if len(distinct) <= min(FEW, len(shown) // 2) and (distinct == np.floor(distinct)).all():
            few[name] = distinct.astype(int).tolist()
    if few:
        name, own = next(iter(few.items()))
        warnings.warn(
            f"{WHO}.fit: the columns {list(few)} hold a few whole numbers, and are taken as "
            f"numbers, with normal distributions; if they are codes of states, declare these: "
            f"states={{{name!r}: {own}}}; if numbers are meant, give X.astype(float)",
            UserWarning,
            stacklevel=4,
        )
