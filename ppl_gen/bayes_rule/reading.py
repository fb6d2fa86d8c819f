"""What a classifier reads: labels, sequences, and tables whose classes share their categories."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import column_or_1d

from ppl_gen.data import is_frame, is_missing, read_frame, with_categories
from ppl_gen.families import Categorical
from ppl_gen.sequences import arrange

Array = Any


def listed(X: Any) -> Any:
    """Read sequences, one a label: a list as it is, an array by its first axis."""
    if isinstance(X, list | tuple) and len(X) and is_frame(X[0]):
        return with_all_categories(X, "BayesClassifier")
    if isinstance(X, list | tuple):
        widths = sorted({np.shape(item)[1] for item in X if np.ndim(item) == 2})
        if len(widths) > 1:
            raise ValueError(
                f"BayesClassifier: X has sequences of {widths[0]} and of {widths[1]} columns; "
                "expected one width"
            )
        return X
    if np.ndim(X) > 2:
        return X
    items = [] if isinstance(X, str) or np.ndim(X) == 0 or is_frame(X) else list(X)
    if not items or not (isinstance(items[0], str) or np.ndim(items[0])):
        raise ValueError(
            f"BayesClassifier: X is a {type(X).__name__} of what are no sequences; expected a list "
            "of sequences, one a label"
        )
    return items


def with_all_categories(X: Any, who: str) -> Any:
    """Turn strings in a frame, or in a list of frames, into categoricals that are those of all."""
    if is_frame(X):
        return with_categories(X)
    if isinstance(X, list | tuple) and len(X) and is_frame(X[0]):
        table, arrangement = arrange(X, None, who)
        return arrangement.restore(with_categories(table))
    return X


def labels(y: Any) -> Array:
    """Read labels of classes, all of them known: (n,)."""
    # NumPy reads a list of strings and NaN as strings, "nan" among them.
    listed = isinstance(y, list | tuple)
    y = column_or_1d(np.array(y, dtype=object) if listed else y, warn=True)
    missing = sum(map(is_missing, y)) if y.dtype.kind in "fO" else 0
    if missing:
        raise ValueError(
            f"BayesClassifier.fit: y has {missing} missing labels (NaN or None); expected the "
            "class of every row; drop these rows, or let NaiveBayes learn from them"
        )
    y = np.asarray(y.tolist()) if listed else y
    assert_all_finite(y, input_name="y")
    return y


def with_all_codes(model: Any, X: Any, who: str = "BayesClassifier.fit") -> Any:
    """Return the model with the numbers of categories that all rows have, where none are set."""
    for name in ("with_states_of", "with_codes_of"):
        if hasattr(model, name):
            return getattr(model, name)(X)
    family = getattr(model, "family", None)
    families = family if isinstance(family, dict) else {None: family}
    if not any(_counts_codes(part) for part in families.values()):
        return model
    if is_frame(X):
        values, schema = read_frame(X, who)
        names = schema.names
    else:
        try:
            values = np.asarray(X, dtype=np.float64)
            names = list(range(values.shape[1]))
        except (TypeError, ValueError, IndexError):
            return model  # which refuses what is no table of numbers, and says so
    highest = np.nanmax(values, axis=0, initial=0.0)
    sizes = dict(zip(names, (int(code) + 1 for code in highest), strict=True))

    def knowing(part: Any, columns: list[Any]) -> Any:
        if not _counts_codes(part):
            return part
        part = Categorical() if isinstance(part, str) else part
        return part.replace(n_categories=tuple(sizes[column] for column in columns))

    if isinstance(family, dict):
        # The models refuse columns that X does not have.
        known = {c: knowing(part, [c]) if c in sizes else part for c, part in family.items()}
        return clone(model).set_params(family=known)
    return clone(model).set_params(family=knowing(family, names))


def _counts_codes(family: Any) -> bool:
    """Tell whether a family takes its categories from the codes that it sees."""
    if isinstance(family, Categorical):
        return family.n_categories is None
    return isinstance(family, str) and family == Categorical.name


def concatenated(tables: Sequence[Any]) -> Any:
    """Join tables of one kind, row after row."""
    first = tables[0]
    if isinstance(first, list):
        return [row for table in tables for row in table]
    if is_frame(first):
        if type(first).__module__.startswith("polars"):
            import polars

            return polars.concat(tables)
        import pandas

        return pandas.concat(tables, ignore_index=True)
    return np.concatenate(tables)
