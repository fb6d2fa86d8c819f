"""What conditional distributions of a node have in common: names, states, comparison, display."""

from __future__ import annotations

import html
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

Array: TypeAlias = npt.NDArray[np.float64]
#: A node, or one of its states: a string, or a number.
Name: TypeAlias = Hashable
States: TypeAlias = Mapping[Any, Sequence[Any]]

#: Rows of a table that a notebook shows; the others are left out, as pandas does.
SHOWN_ROWS = 100


@dataclass(frozen=True, init=False, eq=False, repr=False)
class ConditionalDistribution(ABC):
    """The distribution of a node given its parents: immutable, and equal by value.

    Attributes
    ----------
    node : hashable
        Its name.
    parents : tuple of hashable
        All parents, in the order of the parameters' axes.
    states : mapping of name to tuple
        The states of the discrete parents, in the order of `parents`, and of the node where it is
        discrete.
    kind : str
        ``"tabular"``, ``"linear_gaussian"`` or ``"softmax"``.
    """

    node: Name
    parents: tuple[Name, ...]
    states: Mapping[Name, tuple[Name, ...]]

    kind: ClassVar[str]

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Array]:
        """The parameters by their names: read-only arrays, those of parents' states first."""

    @property
    @abstractmethod
    def frame(self) -> pd.DataFrame:
        """The parameters as a table with one row for each combination of the parents' states."""

    @abstractmethod
    def to_tree(self) -> dict[str, Any]:
        """The distribution as plain data: strings, numbers, lists and arrays."""

    @property
    def discrete_parents(self) -> tuple[Name, ...]:
        """The parents that have states, in order: the leading axes of the parameters."""
        return tuple(parent for parent in self.parents if parent in self.states)

    @property
    def continuous_parents(self) -> tuple[Name, ...]:
        """The parents that are numbers, in order: the axis of the coefficients."""
        return tuple(parent for parent in self.parents if parent not in self.states)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many states each discrete parent has."""
        return tuple(len(self.states[parent]) for parent in self.discrete_parents)

    @property
    def size(self) -> int:
        """How many states the node has; 0 where it is continuous."""
        return len(self.states.get(self.node, ()))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, ConditionalDistribution)
        return (
            (self.node, self.parents, self.states) == (other.node, other.parents, other.states)
        ) and all(
            np.array_equal(value, other.parameters[name]) for name, value in self.parameters.items()
        )

    def __repr__(self) -> str:
        given = f" | {', '.join(map(str, self.parents))}" if self.parents else ""
        states = f", states={list(self.states[self.node])!r}" if self.size else ""
        rows = math.prod(self.sizes)
        count = f", {rows} rows" if self.discrete_parents else ""
        return f"{type(self).__name__}({self.node}{given}{states}{count})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies, and workers of scikit-learn's searches, get a checked and read-only object again.
        return type(self).from_tree, (self.to_tree(),)

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Make the distribution again from what `to_tree` gave.

        Raises
        ------
        ValueError
            If the tree is of another kind, or lacks something.
        """
        tree = dict(tree)
        if tree.pop("kind", None) != cls.kind:
            raise ValueError(f"{cls.__name__}.from_tree: expected the tree of a {cls.kind} node")
        try:
            return cls(**tree)
        except TypeError as error:
            raise ValueError(f"{cls.__name__}.from_tree: malformed tree: {error}") from error

    def _tree(self, **parameters: Any) -> dict[str, Any]:
        states = {name: list(states) for name, states in self.states.items()}
        return {
            "kind": self.kind,
            "node": self.node,
            "parents": list(self.parents),
            "states": states,
            **parameters,
        }

    def _keep(self, **fields: Any) -> None:
        """Set fields of the frozen object; arrays become read-only."""
        for name, value in fields.items():
            if isinstance(value, np.ndarray):
                value = np.array(value, dtype=np.float64, order="C")
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    def _name(self, node: Name, parents: Iterable[Name], states: States | None) -> None:
        """Check and keep the names; the states of nodes that are none of these are refused."""
        who = type(self).__name__
        if isinstance(parents, str):
            raise ValueError(
                f"{who}: parents of {node!r} is the string {parents!r}; expected a sequence of "
                f"names; pass [{parents!r}]"
            )
        parents = tuple(parents)
        _check_distinct(f"{who}: the parents of {node!r}", parents)
        if node in parents:
            raise ValueError(f"{who}: {node!r} is among its own parents {list(parents)}")
        declared = {name: _plain_states(values) for name, values in (states or {}).items()}
        strange = [name for name in declared if name not in (*parents, node)]
        if strange:
            raise ValueError(
                f"{who}: states are given of {strange}; expected only {[*parents, node]}: the node "
                "and its parents"
            )
        self._keep(node=node, parents=parents)
        self._declare(declared)

    def _declare(self, states: States) -> None:
        """Keep states, in the order of the parents, then the node's."""
        for name, values in states.items():
            who = f"{type(self).__name__}: the states of {name!r}"
            if not values:
                raise ValueError(f"{who} are none; expected at least one")
            _check_distinct(who, values)
        family = (*self.parents, self.node)
        kept = {name: tuple(states[name]) for name in family if name in states}
        self._keep(states=MappingProxyType(kept))

    def _array(self, name: str, values: Any) -> Array:
        """Values as an array of numbers, or an error that says what is none."""
        try:
            return np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{type(self).__name__}: the {name} of {self.node!r} is no array of numbers "
                f"({error})"
            ) from error

    def _shaped(self, name: str, array: Array, *own: tuple[str, int]) -> Array:
        """Check that an array has the discrete parents' axes and its own, and is finite."""
        axes = [*zip(map(str, self.discrete_parents), self.sizes, strict=True), *own]
        shape = tuple(size for _, size in axes)
        if array.shape != shape:
            raise ValueError(
                f"{type(self).__name__}: the {name} of {self.node!r} has shape {array.shape}; "
                f"expected {shape} ({', '.join(f'{axis}: {n}' for axis, n in axes) or 'a number'})"
            )
        self._check_finite(name, array)
        return array

    def _check_finite(self, name: str, array: Array) -> None:
        bad = ~np.isfinite(array)
        if bad.any():
            row = int(np.argmax(bad)) * math.prod(self.sizes) // array.size
            raise ValueError(
                f"{type(self).__name__}: the {name} of {self.node!r}{self._row(row)} has the "
                f"entry {array[bad][0]}; expected finite numbers"
            )

    def _row(self, number: int) -> str:
        """The parents' states of a row, in C order, as an error message names them."""
        codes = np.unravel_index(number, self.sizes) if self.sizes else ()
        given = [
            f"{parent}={self.states[parent][code]!r}"
            for parent, code in zip(self.discrete_parents, codes, strict=True)
        ]
        return f" given {', '.join(given)}" if given else ""

    def _frame(self, index: Sequence[Name], labels: Sequence[Name], body: Array) -> pd.DataFrame:
        """A table whose rows are the combinations of the states of the nodes `index`."""
        import pandas as pd

        rows: pd.Index[Any] = pd.RangeIndex(1)
        if len(index) == 1:
            rows = pd.Index(list(self.states[index[0]]), name=index[0], tupleize_cols=False)
        elif index:
            rows = pd.MultiIndex.from_product(
                [list(self.states[name]) for name in index], names=list(index)
            )
        columns = pd.Index(list(labels), tupleize_cols=False)
        return pd.DataFrame(body.reshape(-1, len(labels)), rows, columns)

    def _styled(self, style: Styler) -> Styler:
        """Add what a kind of distribution shows beside its numbers."""
        return style

    def _repr_html_(self) -> str:
        frame = self.frame
        # Labels are escaped below, names of the axes are not: a name may hold tags.
        for axis in (frame.index, frame.columns):
            axis.names = [None if name is None else html.escape(str(name)) for name in axis.names]
        style = self._styled(frame.style.format("{:.4g}"))
        style = style.format_index(escape="html").format_index(escape="html", axis=1)
        given = f" | {', '.join(map(str, self.parents))}" if self.parents else ""
        style = style.set_caption(html.escape(f"{self.node}{given}"))
        if not self.discrete_parents:
            style = style.hide(axis="index")
        # Two tables of a page need two names, and the same table the same name in each run.
        content = b"".join(value.tobytes() for value in self.parameters.values())
        style = style.set_uuid(f"{zlib.crc32(repr(self).encode() + content):08x}")
        return str(style.to_html(max_rows=SHOWN_ROWS))


def _plain_states(values: Iterable[Name]) -> tuple[Name, ...]:
    """States as Python's own strings and numbers, which can be written down."""
    if isinstance(values, str):
        raise ValueError(
            f"states: {values!r} is one string; expected a sequence of states, such as "
            "['yes', 'no']"
        )
    return tuple(value.item() if isinstance(value, np.generic) else value for value in values)


def _check_distinct(what: str, names: Sequence[Name]) -> None:
    twice = {name: None for i, name in enumerate(names) if name in names[:i]}
    if twice:
        raise ValueError(f"{what} are {list(names)}; expected each once, but {list(twice)} repeat")
