"""The codec of artefacts: a tree of plain values to JSON and named arrays, and back.

Nothing here runs code that comes from a file: what JSON cannot say is written as an object with one
of the tags below, and what has no tag is refused when it is written, not when it is read. Paths
become strings; so do functions among the settings of an inference method, which say what they were
and are refused by the next fit: a trained model is kept whoever wrote its optimiser.

=================  ==============================================================================
tag                stands for
=================  ==============================================================================
``$float``         nan, inf and -inf
``$int``           an integer beyond 2**53, in hexadecimal (other JSON readers would round it)
``$tuple``         a tuple
``$dict``          a dictionary with keys that are not strings, or look like a tag: pairs
``$array``         the name of a NumPy array, with its dtype and shape
``$scalar``        the name of a NumPy scalar, kept as an array without axes
``$objects``       a NumPy array of Python objects: strings and numbers, in C order
``$dtype``         a NumPy dtype
``$pandas``        a pandas dtype by its name
``$categorical``   a pandas ``CategoricalDtype``
``$object``        an object of a public class: its name in ``ppl_gen.PUBLIC``, its parameters
=================  ==============================================================================
"""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

import ppl_gen

Array = npt.NDArray[Any]

#: What the safetensors format has of its own; the other dtypes are stored as their bytes.
NATIVE = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
#: What an array of objects may hold.
ENTRIES = (str, int, float, bool, type(None), np.generic)
MAX_DEPTH = 100
EXACT = 2**53


class ArtifactError(ValueError):
    """An artefact that cannot be read: missing, damaged, foreign, or newer than this version."""


def encode(tree: object) -> tuple[Any, dict[str, Array]]:
    """Turn a tree into JSON values and the arrays that they name.

    Parameters
    ----------
    tree : object
        Nested dicts, lists and tuples of strings, numbers, booleans, None, NumPy scalars and arrays
        (numeric, boolean, dates, strings, or objects that are strings or numbers), NumPy and pandas
        dtypes, frames with numbered rows, and objects of public classes that have ``get_params``.

    Returns
    -------
    json : object
        What ``json.dumps(..., allow_nan=False)`` takes.
    arrays : dict of str to ndarray
        What ``safetensors.numpy.save`` takes: contiguous and little-endian.

    Raises
    ------
    TypeError
        For a value that no tag stands for; the message says where in the tree it is.

    Examples
    --------
    >>> json, arrays = encode({"weights": np.array([0.5, 0.5]), "tol": float("inf")})
    >>> json["tol"], json["weights"]["$array"]
    ({'$float': 'inf'}, '/weights')
    >>> decode(json, arrays)["weights"]
    array([0.5, 0.5])
    """
    encoder = _Encoder()
    return encoder.encode(tree, "", 0), encoder.arrays


def decode(json: Any, arrays: Mapping[str, Array]) -> Any:
    """Turn JSON values and arrays back into the tree that `encode` was given.

    Parameters
    ----------
    json : object
        Parsed JSON.
    arrays : mapping of str to ndarray
        The arrays that it names.

    Returns
    -------
    object
        The tree; its arrays are fresh and writable.

    Raises
    ------
    ArtifactError
        If a tag, an array, a dtype or a public name is unknown, or does not fit.
    """
    if isinstance(json, list):
        return [decode(item, arrays) for item in json]
    if not isinstance(json, dict):
        return json
    tag = next((key for key in json if key.startswith("$")), None)
    if tag is None:
        return {key: decode(item, arrays) for key, item in json.items()}
    reader = _READERS.get(tag)
    if reader is None:
        raise ArtifactError(
            f"ppl_gen.load: unknown tag {tag!r} in the tree; expected one of {sorted(_READERS)}. "
            "Read the artefact with the version of ppl_gen that wrote it"
        )
    try:
        return reader(json, arrays)
    except ArtifactError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"ppl_gen.load: malformed {tag} in the tree: {error}") from error


def named(function: Callable[..., Any]) -> str:
    """Say which function it is: by its module and name, a partial one with its arguments.

    Examples
    --------
    >>> named(functools.partial(sorted, reverse=True))
    'builtins.sorted(reverse=True)'
    """
    if isinstance(function, functools.partial):
        given = [repr(value) for value in function.args]
        given += [f"{name}={value!r}" for name, value in function.keywords.items()]
        return f"{named(function.func)}({', '.join(given)})"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"


def contiguous(array: Array) -> tuple[Array, np.dtype[Any]]:
    """Copy to C order and little-endian bytes; return the dtype that the array had, too.

    Parameters
    ----------
    array : ndarray
        Any shape, no axes and no entries included.

    Returns
    -------
    array : ndarray
        As given where safetensors has the dtype, else its bytes in one axis.
    dtype : dtype
        What to restore it as.
    """
    # The empty string has a dtype of no bytes, which NumPy itself turns into one character.
    dtype = array.dtype if array.dtype.itemsize else np.dtype(f"{array.dtype.kind}1")
    little = np.array(array, dtype=dtype.newbyteorder("<"), order="C")
    if little.dtype.str[1:] in NATIVE:
        return little, dtype
    return np.frombuffer(bytearray(little.tobytes()), dtype=np.uint8), dtype


class _Encoder:
    """Walks a tree; collects the arrays under the path of each."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def encode(self, value: Any, at: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(
                f"artifact.write: the tree is deeper than {MAX_DEPTH} levels at {at!r}; "
                "does it contain itself?"
            )
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if abs(value) <= EXACT else {"$int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if kind is list:
            return self._items(value, at, depth)
        if kind is tuple:
            return {"$tuple": self._items(value, at, depth)}
        if kind is dict:
            return self._dict(value, at, depth)
        if isinstance(value, np.generic):
            return self._store("$scalar", np.asarray(value), at)
        if kind is np.ndarray or kind is np.memmap:
            return self._array(value, at, depth)
        if isinstance(value, PurePath):
            return str(value)
        if isinstance(value, np.dtype):
            return {"$dtype": self._plain(value, at).str}
        # Looked at without an import of pandas: its dtypes and frames.
        of_pandas = kind.__module__.partition(".")[0] == "pandas"
        if of_pandas and (hasattr(value, "construct_from_string") or kind.__name__ == "DataFrame"):
            return self._pandas(value, at, depth)
        if getattr(ppl_gen, kind.__name__, None) is kind and hasattr(value, "get_params"):
            parameters = value.get_params(deep=False)
            if kind.__module__.startswith("ppl_gen.inference."):
                parameters = {n: named(v) if callable(v) else v for n, v in parameters.items()}
            return {
                "$object": kind.__name__,
                "params": self._dict(parameters, f"{at}/{kind.__name__}", depth),
            }
        raise TypeError(
            f"artifact.write: cannot store {kind.__module__}.{kind.__qualname__} at {at or '/'!r}; "
            "expected None, bool, int, float, str, list, tuple, dict, NumPy arrays, dtypes, or an "
            "object of a public class of ppl_gen; convert it to one of these"
        )

    def _items(self, values: Any, at: str, depth: int) -> list[Any]:
        return [self.encode(v, f"{at}/{i}", depth + 1) for i, v in enumerate(values)]

    def _dict(self, values: dict[Any, Any], at: str, depth: int) -> dict[str, Any]:
        items = [(k, self.encode(v, f"{at}/{k}", depth + 1)) for k, v in values.items()]
        if all(type(key) is str and not key.startswith("$") for key in values):
            return dict(items)
        return {"$dict": [[self.encode(k, f"{at}/keys", depth + 1), v] for k, v in items]}

    def _array(self, array: Array, at: str, depth: int) -> dict[str, Any]:
        if array.dtype.kind == "O":
            return {"$objects": self._objects(array, at, depth), "shape": list(array.shape)}
        return {**self._store("$array", array, at), "shape": list(array.shape)}

    def _objects(self, array: Array, at: str, depth: int) -> list[Any]:
        strange = {type(x).__name__ for x in array.flat if not isinstance(x, ENTRIES)}
        if strange:
            raise TypeError(
                f"artifact.write: the object array at {at or '/'!r} holds {sorted(strange)}; "
                "expected strings, Python numbers or None; convert its entries"
            )
        return self._items(array.ravel().tolist(), at, depth)

    def _plain(self, dtype: np.dtype[Any], at: str) -> np.dtype[Any]:
        # Structured dtypes do not go by their names, and long doubles differ between machines.
        if dtype.kind not in "biufcmMUSO" or dtype.char in "gG":
            raise TypeError(
                f"artifact.write: cannot store the dtype {dtype} at {at or '/'!r}; "
                "expected booleans, integers, floats, complex numbers, dates or strings"
            )
        return dtype

    def _store(self, tag: str, array: Array, at: str) -> dict[str, Any]:
        self._plain(array.dtype, at)
        # safetensors wants its names in UTF-8, and a path of the tree may hold what has none.
        name = path = (at or "/").encode("ascii", "backslashreplace").decode()
        number = 1
        while name in self.arrays:
            number += 1
            name = f"{path}#{number}"
        self.arrays[name], dtype = contiguous(array)
        return {tag: name, "dtype": dtype.str}

    def _pandas(self, value: Any, at: str, depth: int) -> dict[str, Any]:
        import pandas as pd

        if isinstance(value, pd.CategoricalDtype):
            categories = value.categories
            stored = None
            if categories is not None:
                stored = {
                    "values": self.encode(categories.to_numpy(), f"{at}/categories", depth + 1),
                    "dtype": self.encode(categories.dtype, f"{at}/dtype", depth + 1),
                }
            return {"$categorical": stored, "ordered": value.ordered}
        if isinstance(value, pd.DataFrame):
            if not value.index.equals(pd.RangeIndex(len(value))):
                raise TypeError(
                    f"artifact.write: cannot store the index of the DataFrame at {at or '/'!r}; "
                    "expected rows numbered from 0; use reset_index"
                )
            columns = {name: value[name].to_numpy() for name in value.columns}
            return {"$frame": self.encode(columns, at, depth + 1)}
        name = str(value)
        if pd.api.types.pandas_dtype(name) != value:
            raise TypeError(
                f"artifact.write: cannot store the pandas dtype {name} at {at or '/'!r}; "
                "expected one that pandas makes again from its name; convert the column"
            )
        return {"$pandas": name}


def _restore(stored: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    little = dtype.newbyteorder("<")
    if dtype.hasobject:
        raise ArtifactError("ppl_gen.load: an array of objects where numbers were expected")
    if stored.dtype == little:
        if stored.shape != shape:
            raise ArtifactError(
                f"ppl_gen.load: an array has shape {stored.shape}, the manifest says {shape}"
            )
        return stored.astype(dtype)
    if stored.dtype != np.uint8 or stored.nbytes != little.itemsize * math.prod(shape):
        raise ArtifactError(
            f"ppl_gen.load: an array holds {stored.nbytes} bytes of {stored.dtype}, "
            f"the manifest says {dtype} of shape {shape}"
        )
    return np.ndarray(shape, little, bytearray(stored.tobytes())).astype(dtype)


def _fetch(json: dict[str, Any], tag: str, arrays: Mapping[str, Array]) -> Array:
    name = json[tag]
    if name not in arrays:
        raise ArtifactError(f"ppl_gen.load: the array {name!r} is not in the artefact")
    return _restore(arrays[name], np.dtype(json["dtype"]), tuple(json.get("shape", ())))


def _read_objects(json: dict[str, Any], arrays: Mapping[str, Array]) -> Array:
    items = decode(json["$objects"], arrays)
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(json["shape"])


def _read_pandas(json: dict[str, Any], arrays: Mapping[str, Array]) -> Any:
    import pandas as pd

    return pd.api.types.pandas_dtype(json["$pandas"])


def _read_frame(json: dict[str, Any], arrays: Mapping[str, Array]) -> Any:
    import pandas as pd

    return pd.DataFrame(decode(json["$frame"], arrays))


def _read_categorical(json: dict[str, Any], arrays: Mapping[str, Array]) -> Any:
    import pandas as pd

    stored = json["$categorical"]
    categories = None
    if stored is not None:
        dtype = decode(stored["dtype"], arrays)
        categories = pd.Index(decode(stored["values"], arrays), dtype=dtype)
    return pd.CategoricalDtype(categories, ordered=json["ordered"])


def _read_object(json: dict[str, Any], arrays: Mapping[str, Array]) -> Any:
    name = json["$object"]
    kind = getattr(ppl_gen, name) if name in ppl_gen.PUBLIC else None
    if not (isinstance(kind, type) and hasattr(kind, "get_params")):
        raise ArtifactError(
            f"ppl_gen.load: {name!r} is no public class of ppl_gen with parameters; "
            "read the artefact with the version of ppl_gen that wrote it"
        )
    return kind(**decode(json["params"], arrays))


_READERS: dict[str, Callable[[dict[str, Any], Mapping[str, Array]], Any]] = {
    "$float": lambda json, _: float(json["$float"]),
    "$int": lambda json, _: int(json["$int"], 16),
    "$tuple": lambda json, arrays: tuple(decode(json["$tuple"], arrays)),
    "$dict": lambda json, arrays: {
        decode(key, arrays): decode(value, arrays) for key, value in json["$dict"]
    },
    "$array": lambda json, arrays: _fetch(json, "$array", arrays),
    "$scalar": lambda json, arrays: _fetch(json, "$scalar", arrays)[()],
    "$objects": _read_objects,
    "$dtype": lambda json, _: np.dtype(json["$dtype"]),
    "$pandas": _read_pandas,
    "$categorical": _read_categorical,
    "$frame": _read_frame,
    "$object": _read_object,
}
