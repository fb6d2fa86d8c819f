"""Sequences of tokens in and out: strings, lists and arrays of symbols, to codes and back.

Inside, tokens are codes 0, ..., K - 1, the places of the symbols in a vocabulary; sequences lie one
after another, with their lengths.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_gen.data import is_frame, is_missing, to_numpy
from ppl_gen.sequences import refuse_empty

Array = Any


@dataclass(frozen=True)
class Tokens:
    """Sequences of tokens as they were read.

    Attributes
    ----------
    flat : (N,)
        Tokens of all sequences: characters, numbers, booleans, or objects.
    lengths : (n,)
    text : bool
        Whether the sequences were Python strings.
    """

    flat: Array
    lengths: Array
    text: bool

    @property
    def starts(self) -> Array:
        """Where each sequence begins: (n,)."""
        return np.cumsum(self.lengths) - self.lengths

    def take(self, sequences: Array) -> "Tokens":
        """Return some of the sequences, by their numbers, which grow."""
        kept = np.zeros(len(self.lengths), dtype=bool)
        kept[sequences] = True
        flat = self.flat[np.repeat(kept, self.lengths)]
        return Tokens(flat, self.lengths[kept], self.text)

    def where(self, place: int) -> str:
        """Say where a token is, for errors."""
        sequence = int(np.searchsorted(self.starts, place, side="right")) - 1
        return f"sequence {sequence}, step {place - int(self.starts[sequence])}"


def read_tokens(X: Any, lengths: Any, who: str, least: int = 1) -> Tokens:
    """Read sequences of tokens.

    Parameters
    ----------
    X : str, list, array or Series
        A string is a sequence of its characters, and a list of strings one of such sequences. Any
        other list of lists, arrays, tuples or Series is a list of sequences. A list of numbers, a
        one-dimensional array, a Series or a frame of one column is one sequence, or with
        `lengths` several, one after another; so is a list of strings with `lengths`. An (n, T)
        array has a sequence a row, but an (N, 1) array a step a row, as hmmlearn has it.
    lengths : (n,) or None
    who : str
        Who asks, for errors.
    least : int
        Tokens of a sequence: with 0 they may be empty.

    Raises
    ------
    ValueError
        If there is no sequence, one is too short, a token is missing, or `lengths` do not fit.
    TypeError
        If it is no sequence, or tokens are of several types.
    """
    X = to_numpy(X)
    if is_frame(X):
        if X.shape[1] != 1:
            raise ValueError(
                f"{who}: X has {X.shape[1]} columns; expected one, the state of every step"
            )
        X = np.asarray(X).ravel()
    if isinstance(X, str):
        if lengths is not None:
            raise ValueError(f"{who}: X is a string, which is one sequence; leave lengths out")
        return _joined([X], who, least)
    if not isinstance(X, list | tuple):
        X = _array(X, who)
        if X.ndim == 3 and X.shape[2] == 1:
            X = X[:, :, 0]
        if X.ndim == 2 and X.shape[1] == 1 and X.dtype != object:
            X = X[:, 0]
        if X.ndim == 2:
            X = list(X)
        elif X.ndim != 1:
            raise ValueError(
                f"{who}: X has shape {X.shape}; expected sequences of states: (N,), (n, T), or a "
                "list of sequences"
            )
    if lengths is None and len(X) and _is_sequence(X[0]) and _holds_sequences(X):
        return _joined(list(X), who, least)
    flat = _flat(X, who)
    return Tokens(flat, _lengths(lengths, len(flat), who, least), text=False)


def _array(X: Any, who: str) -> Array:
    array = np.asarray(X)
    if array.ndim == 0:
        raise TypeError(
            f"{who}: X is a {type(X).__name__}; expected a string, a list of sequences, or an array"
        )
    return array


def _holds_sequences(X: Any) -> bool:
    """Tell sequences from the tokens of one: an array of strings has one token a string."""
    return isinstance(X, list | tuple) or not isinstance(X[0], str)


def _is_sequence(item: Any) -> bool:
    return isinstance(item, str | list | tuple) or np.ndim(item) > 0


def _lengths(lengths: Any, n_steps: int, who: str, least: int) -> Array:
    whole = [n_steps] if n_steps else []
    counts = np.atleast_1d(np.asarray(whole if lengths is None else lengths))
    if counts.ndim != 1 or (counts.dtype.kind not in "iu" and len(counts)):
        raise ValueError(f"{who}: lengths is {lengths!r}; expected whole numbers, one a sequence")
    if lengths is not None and counts.sum() != n_steps:
        raise ValueError(
            f"{who}: lengths sum to {counts.sum()}, but X has {n_steps} steps; expected the "
            "lengths of all sequences, in their order"
        )
    refuse_empty(counts, who, least)
    return counts.astype(np.intp)


def _joined(items: list[Any], who: str, least: int) -> Tokens:
    """Lay the sequences of a list one after another."""
    text = isinstance(items[0], str)
    for place, item in enumerate(items):
        if isinstance(item, str) != text or not _is_sequence(item):
            raise TypeError(
                f"{who}: sequence 0 is a {type(items[0]).__name__}, but sequence {place} is a "
                f"{type(item).__name__}; expected sequences of one kind"
            )
    if text:
        lengths = np.array([len(item) for item in items], dtype=np.intp)
        refuse_empty(lengths, who, least)
        characters = "".join(items).encode("utf-32-le", "surrogatepass")
        return Tokens(np.frombuffer(characters, dtype="<u4"), lengths, text=True)
    parts: list[Any] = [
        item if isinstance(item, list | tuple) else _column(item, who) for item in items
    ]
    lengths = np.array([len(part) for part in parts], dtype=np.intp)
    refuse_empty(lengths, who, least)
    if all(isinstance(part, np.ndarray) for part in parts):
        if len({_kind(part.dtype) for part in parts}) == 1 and parts[0].dtype != object:
            return Tokens(_flat(np.concatenate(parts), who), lengths, text=False)
        parts = [part.tolist() for part in parts]
    return Tokens(_flat([token for part in parts for token in part], who), lengths, text=False)


def _column(item: Any, who: str) -> Array:
    array = np.asarray(to_numpy(item))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{who}: a sequence has shape {array.shape}; expected (T,), a state a step"
        )
    return array


def _kind(dtype: Any) -> str:
    return "number" if dtype.kind in "iuf" else str(dtype.kind)


def _flat(tokens: Any, who: str) -> Array:
    """Make one array of tokens of one type, none of them missing."""
    if isinstance(tokens, np.ndarray) and tokens.dtype.kind in "iubfU":
        flat = tokens
    else:
        items = list(tokens)
        missing = next((i for i, token in enumerate(items) if _is_missing(token)), None)
        if missing is not None:
            raise ValueError(_missing(who, missing))
        kinds = {_type(token) for token in items}
        if len(kinds) > 1:
            names = ", ".join(sorted(kinds))
            raise TypeError(f"{who}: X mixes states of the types {names}; expected one type")
        if kinds <= {"str", "number", "bool"}:
            flat = np.array(items)
        else:
            flat = np.empty(len(items), dtype=object)
            flat[:] = items
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        raise ValueError(_missing(who, int(np.flatnonzero(~np.isfinite(flat))[0])))
    return flat


def _is_missing(token: Any) -> bool:
    return not isinstance(token, tuple | frozenset) and bool(is_missing(token))


def _missing(who: str, place: int) -> str:
    return (
        f"{who}: the state of step {place} (counted through all sequences) is missing or not "
        "finite; expected a state at every step; cut the sequence there, or give what is missing a "
        "symbol of its own"
    )


def _type(token: Any) -> str:
    if isinstance(token, bool | np.bool_):
        return "bool"
    if isinstance(token, int | float | np.number):
        return "number"
    return "str" if isinstance(token, str) else type(token).__name__


def learn_vocabulary(tokens: Tokens, who: str) -> Array:
    """Sorted symbols that occur: (K,)."""
    if tokens.flat.dtype != object:
        found = np.unique(tokens.flat)
        return _characters(found) if tokens.text else found
    try:
        symbols = sorted(set(tokens.flat.tolist()))
    except TypeError as error:
        raise TypeError(
            f"{who}: the states cannot be hashed and sorted ({error}); expected numbers, strings "
            "or other such values, or give states="
        ) from error
    return _objects(symbols)


def _characters(codes: Array) -> Array:
    characters = [chr(code) for code in codes.tolist()]
    # NumPy's strings end at a NUL.
    return np.array(characters) if codes[0] else _objects(characters)


def _objects(symbols: list[Any]) -> Array:
    found = np.empty(len(symbols), dtype=object)
    found[:] = symbols
    return found


def given_vocabulary(states: Any, who: str) -> Array:
    """Symbols that the user gives, in that order: (K,).

    Raises
    ------
    ValueError
        If there is none, or one twice.
    """
    flat = _flat(list(states), who) if not isinstance(states, np.ndarray) else _flat(states, who)
    seen: set[Any] = set()
    for symbol in flat.tolist():
        if symbol in seen:
            raise ValueError(f"{who}: states has {symbol!r} twice; expected every state once")
        seen.add(symbol)
    if not seen:
        raise ValueError(f"{who}: states is empty; expected all states that may occur")
    return flat


def encode(tokens: Tokens, states: Array, who: str) -> Array:
    """Places of tokens in the vocabulary: (N,) integers.

    Raises
    ------
    ValueError
        If a token is not in it.
    """
    flat, known = tokens.flat, states
    if tokens.text:
        characters = [
            s if isinstance(s, str) and len(s) == 1 else "\uffff" for s in states.tolist()
        ]
        known = np.array([ord(character) for character in characters], dtype=np.uint32)
    if known.dtype == object or flat.dtype == object or _kind(known.dtype) != _kind(flat.dtype):
        places = {symbol: place for place, symbol in enumerate(known.tolist())}
        codes = np.array([places.get(token, -1) for token in flat.tolist()], dtype=np.int64)
    else:
        order = np.argsort(known, kind="stable")
        found = np.minimum(np.searchsorted(known[order], flat), len(known) - 1)
        codes = np.where(known[order][found] == flat, order[found], -1)
    strange = np.flatnonzero(codes < 0)
    if len(strange):
        place = int(strange[0])
        token = chr(flat[place]) if tokens.text else flat[place : place + 1].tolist()[0]
        shown = ", ".join(map(repr, states[:8].tolist())) + (", ..." if len(states) > 8 else "")
        raise ValueError(
            f"{who}: {token!r} ({tokens.where(place)}) is none of the {len(states)} states, "
            f"{shown}; give states= with all that may occur"
        )
    return codes


def decode(codes: Array, lengths: Array, states: Array, text: bool) -> list[Any]:
    """Return sequences as a list of strings, or of arrays of symbols."""
    ends = np.cumsum(lengths)
    parts = [codes[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    if text:
        return ["".join(states[part].tolist()) for part in parts]
    return [states[part] for part in parts]
