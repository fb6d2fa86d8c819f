"""Tables of a network: columns are matched to nodes by name, and may be some of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppl_gen.data import Column, Schema, encode_column, is_frame, is_missing
from ppl_gen.structures.bayesian_network.network import Network

Array = Any

WHO = "BayesianNetwork"


def declared_states(states: Mapping[Any, Any] | None) -> dict[Any, tuple[Any, ...]]:
    """States as the user gave them, by node; a number k stands for 0 to k - 1.

    Raises
    ------
    ValueError
        If a node's are none, repeat, or are one string.
    TypeError
        If they are not by node.
    """
    if states is not None and not isinstance(states, Mapping):
        raise TypeError(
            f"{WHO}: states is {states!r}; expected a dict from node to its states, as in "
            'states={"smoke": ["no", "yes"]}'
        )
    declared = {}
    for name, given in (states or {}).items():
        if isinstance(given, int | np.integer) and not isinstance(given, bool):
            given = range(int(given))
        if hasattr(given, "tolist"):  # an array, or the categories of a column
            given = given.tolist()
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise ValueError(
                f"{WHO}: states[{name!r}] is {given!r}; expected a sequence of states, or how many"
            )
        own = tuple(s.item() if isinstance(s, np.generic) else s for s in given)
        try:
            distinct = len(set(own))
        except TypeError:
            raise ValueError(
                f"{WHO}: states[{name!r}] is {list(own)}; expected names of states, such as text, "
                "numbers or tuples, not lists"
            ) from None
        if any(is_missing(s) for s in own):
            raise ValueError(f"{WHO}: states[{name!r}] is {list(own)}; None and NaN are no states")
        if not own or distinct < len(own):
            raise ValueError(f"{WHO}: states[{name!r}] is {list(own)}; expected each state once")
        declared[name] = own
    return declared


def states_of_column(column: Column) -> tuple[Any, ...] | None:
    """States of the node that a column shows; None of numbers."""
    if column.kind == "bool":
        return (False, True)
    return column.categories


def declared_schema(
    schema: Schema, values: Array, declared: Mapping[Any, tuple[Any, ...]]
) -> tuple[Schema, Array]:
    """Return the schema and the codes of a table (n, D), with the states that were declared.

    Raises
    ------
    ValueError
        If a value is none of the states declared.
    """
    columns, coded = list(schema.columns), values.copy(order="K") if declared else values
    for place, (name, column) in enumerate(zip(schema.names, columns, strict=True)):
        states = declared.get(name)
        if states is None:
            continue
        if column.kind == "category":
            assert column.categories is not None
            own: tuple[Any, ...] = column.categories
        elif column.kind == "bool":
            own = (False, True)
        else:
            own = tuple(np.unique(values[~np.isnan(values[:, place]), place]).tolist())
        codes = {state: code for code, state in enumerate(states)}
        seen = (
            own
            if column.kind == "number"
            else tuple(
                own[int(code)] for code in np.unique(values[~np.isnan(values[:, place]), place])
            )
        )
        strange = [value for value in seen if value not in codes]
        if strange:
            raise ValueError(
                f"{WHO}.fit: column {name!r} has the value {strange[0]!r}, which is none of its "
                f"states {list(states)}; declare it, or mark it missing"
            )
        shown = ~np.isnan(values[:, place])
        if column.kind == "number":
            sorted_own = np.array(own)
            table = np.array([codes[value] for value in own], dtype=np.float64)
            coded[shown, place] = table[np.searchsorted(sorted_own, values[shown, place])]
        else:
            table = np.array([codes.get(value, -1) for value in own], dtype=np.float64)
            coded[shown, place] = table[values[shown, place].astype(int)]
        if column.kind == "category":
            columns[place] = dataclasses.replace(column, categories=states)
    return Schema(schema.container, tuple(columns)), coded


def named_by_place(schema: Schema, nodes: list[Any]) -> Schema:
    """Return the schema of an array with the names of the nodes that its columns are.

    Those of nodes that are named by the columns' places, or else all nodes in their order.

    Raises
    ------
    ValueError
        If there are more or fewer.
    """
    places = range(len(schema.columns))
    if set(nodes) >= set(places):
        return schema
    if len(nodes) != len(places):
        raise ValueError(
            f"{WHO}.fit: X is an array of {len(places)} columns, and the graph has {len(nodes)} "
            f"nodes ({nodes}); give a DataFrame, whose columns have names"
        )
    columns = zip(schema.columns, nodes, strict=True)
    return Schema(schema.container, tuple(dataclasses.replace(c, name=n) for c, n in columns))


def schema_of_network(network: Network) -> Schema:
    """Return the schema of tables drawn from a network that was never fitted to one."""
    columns = tuple(
        Column(name, "number", "float64")
        if states is None
        else Column(name, "category", "category", categories=states)
        for name, states in zip(network.names, network.states, strict=True)
    )
    return Schema("pandas", columns)


def encode(network: Network, schema: Schema, X: Any) -> Array:
    """Return rows (n, V) of a table; nodes that it does not show are missing.

    Raises
    ------
    ValueError
        If a column is no node, or a value none of its states.
    TypeError
        If the table has no names, and not a column for each of the table's that was fitted.
    """
    names = list(network.names)
    if is_frame(X):
        refuse_duplicates(X)
    else:
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != len(schema.columns) or X.dtype.kind not in "iufb":
            raise TypeError(
                f"{WHO}: X is a {type(X).__name__} of shape {X.shape} and dtype {X.dtype}; "
                f"expected a DataFrame with nodes as columns, or numbers for the columns "
                f"{schema.names}"
            )
        values = np.full((len(X), len(names)), np.nan)
        for place, name in enumerate(schema.names):
            v = names.index(name)
            values[:, v] = _codes_of_numbers(X[:, place], network.states[v], name)
        return _without_infinity(values, names)
    known = dict(zip(schema.names, schema.columns, strict=True))
    values = np.full((X.shape[0], len(names)), np.nan)
    for place, name in enumerate(X.columns):
        if name not in names:
            raise ValueError(
                f"{WHO}: X has the column {name!r}, which is no node of the network; its nodes "
                f"are {names}"
            )
        v = names.index(name)
        series = X[name] if type(X).__module__.startswith("polars") else X.iloc[:, place]
        states = network.states[v]
        if states is None:
            column = known.get(name, Column(name, "number", "float64"))
            values[:, v] = encode_column(series, column, WHO)
        else:
            column = Column(name, "category", str(series.dtype), categories=states)
            values[:, v] = encode_column(series, column, WHO)
    return _without_infinity(values, names)


def _without_infinity(values: Array, names: list[Any]) -> Array:
    infinite = np.isinf(values).any(axis=0)
    if infinite.any():
        name = names[int(infinite.argmax())]
        raise ValueError(f"{WHO}: column {name!r} contains infinity; mark it missing (NaN)")
    return values


def refuse_duplicates(X: Any) -> None:
    """Raise ValueError if two columns of a frame have one name."""
    columns = list(X.columns)
    twice = [name for place, name in enumerate(columns) if name in columns[:place]]
    if twice:
        raise ValueError(f"{WHO}: X has the column {twice[0]!r} twice; each node is one column")


def array_of(states: tuple[Any, ...] | None) -> Array:
    """Return the names of states as an array, each as it is."""
    states = states or ()
    kinds = {type(state) for state in states}
    if len(kinds) == 1 and kinds <= {str, bool, int, float}:
        return np.array(states)
    array = np.empty(len(states), dtype=object)
    array[:] = states
    return array


def _codes_of_numbers(values: Array, states: tuple[Any, ...] | None, name: Any) -> Array:
    values = values.astype(np.float64)
    if states is None:
        return values
    codes = {state: code for code, state in enumerate(states)}
    found = np.full(len(values), np.nan)
    for value in np.unique(values[~np.isnan(values)]):
        if value.item() not in codes:
            raise ValueError(
                f"{WHO}: column {name!r} has the value {value.item()!r}; its states are "
                f"{list(states)}"
            )
        found[values == value] = codes[value.item()]
    return found


def decode(network: Network, schema: Schema, values: Array) -> Any:
    """Return rows (n, V) as a table like the one that was fitted."""
    places = [network.names.index(name) for name in schema.names]
    columns = np.empty((len(values), len(places)))
    for column, v in enumerate(places):
        states, kind = network.states[v], schema.columns[column].kind
        columns[:, column] = values[:, v]
        if states is not None and kind == "number":  # numbers that are names of states
            shown = ~np.isnan(values[:, v])
            columns[shown, column] = np.array(states, dtype=np.float64)[
                values[shown, v].astype(int)
            ]
    return schema.decode(columns, tuple(network.whole[v] for v in places))


def code_of(network: Network, name: Any, state: Any) -> tuple[int, int]:
    """Place of a node and code of its state.

    Raises
    ------
    ValueError
        If there is none of either; what there is, is listed.
    """
    v = place_of(network, name)
    states = network.states[v]
    assert states is not None
    if getattr(state, "shape", None) == () and hasattr(state, "item"):  # a number in an array
        state = state.item()
    try:
        return v, {own: code for code, own in enumerate(states)}[state]
    except (KeyError, TypeError):  # none of them, or what cannot be a name
        missing = not hasattr(state, "__len__") and is_missing(state)
        raise ValueError(
            f"{WHO}: {name!r} has no state {state!r}; its states are {list(states)}"
            + ("; leave a node out where its state is not known" if missing else "")
        ) from None


def place_of(network: Any, name: Any) -> int:
    """Place of a node.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    names: tuple[Any, ...] = network.names
    try:
        return names.index(name)
    except (ValueError, TypeError):  # pandas.NA compares to neither true nor false
        raise ValueError(
            f"{WHO}: there is no node {name!r}; the nodes are {list(network.names)}"
        ) from None
