"""Conditional distributions of a node given its parents: tables, linear normals, softmax."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

import numpy as np
import numpy.typing as npt

from ppl_gen.models.bayesian_network.cpd import (
    Array,
    ConditionalDistribution,
    Name,
    States,
)

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

#: How far from one a row may sum.
TOLERANCE = 1e-6
#: The bars behind the numbers of a table.
BAR = "#cfe2f3"


def cpd_from_tree(tree: Mapping[str, Any]) -> ConditionalDistribution:
    """Make a distribution of any kind again from what its `to_tree` gave.

    Raises
    ------
    ValueError
        If the kind is unknown, or the tree malformed.
    """
    kinds = {kind.kind: kind for kind in (TabularCPD, LinearGaussianCPD, SoftmaxCPD)}
    kind = kinds.get(tree.get("kind", ""))
    if kind is None:
        raise ValueError(
            f"cpd_from_tree: the kind is {tree.get('kind')!r}; expected one of {list(kinds)}"
        )
    return kind.from_tree(tree)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class TabularCPD(ConditionalDistribution):
    """The table of a discrete node: a distribution over its states for each of its parents'.

    Parameters
    ----------
    node : hashable
        Name of the node.
    values : (parent sizes..., size) array, (prod(parent sizes), size) array, or DataFrame
        Probabilities; the last axis is the node's states, and sums to one. In a frame, the columns
        are the node's states, and the index has a level for each parent.
    parents : sequence of hashable
        Names of the parents, in the order of the axes.
    states : dict of name to sequence, optional
        The states of the node and of its parents, in the order of the axes; those of a frame, or
        else 0, 1, 2 and so on.
    normalise : bool
        Divide each row by its sum.
    tolerance : float
        How far from one a row may sum: more than 1e-6 for numbers printed with few digits, which
        are then kept as they are.

    Attributes
    ----------
    values : (parent sizes..., size) ndarray
        Read-only.

    Raises
    ------
    ValueError
        If a row does not sum to one, a probability is negative or no number, the shape does not
        fit, names or states repeat, or the node is its own parent.

    Examples
    --------
    >>> yes_no = ["yes", "no"]
    >>> lung = TabularCPD(
    ...     "lung",
    ...     [[0.1, 0.9], [0.01, 0.99]],
    ...     parents=["smoke"],
    ...     states={"smoke": yes_no, "lung": yes_no},
    ... )
    >>> lung
    TabularCPD(lung | smoke, states=['yes', 'no'], 2 rows)
    >>> lung.frame
    lung    yes    no
    smoke
    yes    0.10  0.90
    no     0.01  0.99
    """

    values: Array
    tolerance: float

    kind: ClassVar[str] = "tabular"

    def __init__(
        self,
        node: Name,
        values: npt.ArrayLike | pd.DataFrame,
        parents: Iterable[Name] = (),
        states: States | None = None,
        normalise: bool = False,
        tolerance: float = TOLERANCE,
    ) -> None:
        self._name(node, parents, states)
        table = self._array("table", self._read_frame(values) if _is_frame(values) else values)
        if table.size == 0 or table.ndim == 0:
            raise ValueError(
                f"TabularCPD: the table of {node!r} has shape {table.shape}; expected an axis for "
                "each parent, then the node's states"
            )
        self._number_states(table)
        table = self._in_axes(table)
        self._check_finite("table", table)
        if (table < 0.0).any():
            at = np.argwhere(table < 0.0)[0].tolist()
            row = np.ravel_multi_index(at[:-1], table.shape[:-1]) if at[:-1] else 0
            raise ValueError(
                f"TabularCPD: the probability of {node}={self.states[node][at[-1]]!r}"
                f"{self._row(int(row))} is {table[tuple(at)]}; expected at least 0"
            )
        sums = table.sum(axis=-1)
        if normalise:
            if not sums.all():
                raise ValueError(
                    f"TabularCPD: the row of {node!r}{self._row(int(np.argmin(sums)))} sums to 0; "
                    "expected a positive sum to divide by"
                )
            table = table / sums[..., None]
        elif (abs(sums - 1.0) > tolerance).any():
            row = int(np.argmax(abs(sums - 1.0)))
            raise ValueError(
                f"TabularCPD: the row of {node!r}{self._row(row)} sums to {sums.flat[row]:.10g}; "
                f"expected 1 within {tolerance:g}; correct it, or pass normalise=True to divide "
                "each row by its sum"
            )
        self._keep(values=table, tolerance=float(tolerance))

    @property
    def parameters(self) -> dict[str, Array]:
        """The table under the name ``table``; shape (parent sizes..., size)."""
        return {"table": self.values}

    @property
    def frame(self) -> pd.DataFrame:
        """The table: a row for each combination of the parents' states, a column a state."""
        frame = self._frame(self.parents, self.states[self.node], self.values)
        frame.columns.name = self.node
        return frame

    def to_tree(self) -> dict[str, Any]:
        """The distribution as plain data, which `from_tree` takes."""
        return self._tree(values=np.array(self.values), tolerance=self.tolerance)

    def _number_states(self, table: Array) -> None:
        """Number the states that are not named, as far as the table tells how many there are."""
        family = (*self.parents, self.node)
        sizes: dict[Name, int] = {self.node: table.shape[-1]}
        if table.ndim == len(family):
            sizes = dict(zip(family, table.shape, strict=True))
        unknown = [name for name in family if name not in self.states and name not in sizes]
        if unknown:
            raise ValueError(
                f"TabularCPD: the table of {self.node!r} has shape {table.shape}; expected "
                f"{len(family)} axes ({', '.join(map(str, family))}), or the states of {unknown}"
            )
        numbered = {name: tuple(range(size)) for name, size in sizes.items()}
        self._declare(numbered | dict(self.states))

    def _in_axes(self, table: Array) -> Array:
        """The table with an axis for each parent."""
        rows = math.prod(self.sizes)
        if table.shape == (rows, self.size):
            table = table.reshape(*self.sizes, self.size)
        shape = (*self.sizes, self.size)
        if table.shape == shape:
            return table
        family = (*self.parents, self.node)
        expected = ", ".join(f"{name}: {n}" for name, n in zip(family, shape, strict=True))
        advice = ""
        if table.shape == (self.size, rows):
            advice = "; it has a column, not a row, for each of the parents' states: transpose it"
        raise ValueError(
            f"TabularCPD: the table of {self.node!r} has shape {table.shape}; expected {shape} "
            f"({expected}), or {(rows, self.size)}{advice}"
        )

    def _read_frame(self, frame: pd.DataFrame) -> npt.NDArray[Any]:
        """Take the states of a frame, and put its rows in their order."""
        levels: list[Any] = []
        if self.parents:
            if frame.index.nlevels != len(self.parents):
                raise ValueError(
                    f"TabularCPD: the frame of {self.node!r} has an index of "
                    f"{frame.index.nlevels} levels; expected one for each of the parents "
                    f"{list(self.parents)}"
                )
            named = set(frame.index.names) == set(self.parents)
            order = [
                frame.index.names.index(parent) if named else i
                for i, parent in enumerate(self.parents)
            ]
            levels = [frame.index.get_level_values(level).tolist() for level in order]
        found = {
            name: tuple(dict.fromkeys(labels))
            for name, labels in zip((*self.parents, self.node), (*levels, list(frame)), strict=True)
        }
        self._declare(found | dict(self.states))
        columns = list(self.states[self.node])
        if len(frame.columns) != len(columns) or set(frame) != set(columns):
            raise ValueError(
                f"TabularCPD: the frame of {self.node!r} has the columns {list(frame)}; expected "
                f"each of its states once: {columns}"
            )
        rows = list(zip(*levels, strict=True)) if levels else [()] * len(frame)
        numbers = {row: number for number, row in enumerate(rows)}
        expected = product(*(self.states[parent] for parent in self.parents))
        chosen = [numbers.get(row, -1) for row in expected]
        if len(rows) != len(chosen) or -1 in chosen:
            raise ValueError(
                f"TabularCPD: the frame of {self.node!r} has {len(rows)} rows, {len(numbers)} of "
                f"them different; expected {len(chosen)}: one for each combination of the states "
                f"of its parents {list(self.parents)}"
            )
        return frame[columns].to_numpy()[chosen]

    def _styled(self, style: Styler) -> Styler:
        return style.bar(axis=None, vmin=0.0, vmax=1.0, color=BAR)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class LinearGaussianCPD(ConditionalDistribution):
    """A normal node whose mean is linear in its continuous parents.

    Its discrete parents choose the line and the variance: node ~ Normal(intercept +
    coefficients · x, variance), a conditional linear Gaussian.

    Parameters
    ----------
    node : hashable
        Name of the node.
    intercept : (sizes...) array
        Mean at x = 0 for each of the discrete parents' states; one number where there are none, or
        for all of them.
    coefficients : (sizes..., C) array
        Change of the mean for a unit of each continuous parent; (C,) for all states.
    variance : (sizes...) array
        Variance around the mean, positive; one number for all states.
    parents : sequence of hashable
        All parents, in order: those that are in `states` are discrete, and the axes of the arrays;
        the others are continuous, and the last axis of the coefficients.
    states : dict of name to sequence, optional
        The states of the discrete parents.

    Attributes
    ----------
    intercept, coefficients, variance : ndarray
        Read-only, with all their axes.

    Raises
    ------
    ValueError
        If a shape does not fit, a number is not finite, a variance is not positive, names or states
        repeat, or the node is its own parent.

    References
    ----------
    Lauritzen and Wermuth (1989), Graphical models for associations between variables, some of
    which are qualitative and some quantitative, Annals of Statistics 17, 31-57, section 2.

    Examples
    --------
    >>> weight = LinearGaussianCPD(
    ...     "weight",
    ...     intercept=[-100.0, -90.0],
    ...     coefficients=[[1.0], [0.9]],
    ...     variance=[50.0, 40.0],
    ...     parents=["sex", "height"],
    ...     states={"sex": ["male", "female"]},
    ... )
    >>> weight.frame
            intercept  height  variance
    sex
    male       -100.0     1.0      50.0
    female      -90.0     0.9      40.0
    """

    intercept: Array
    coefficients: Array
    variance: Array

    kind: ClassVar[str] = "linear_gaussian"

    def __init__(
        self,
        node: Name,
        intercept: npt.ArrayLike,
        coefficients: npt.ArrayLike = (),
        variance: npt.ArrayLike = 1.0,
        parents: Iterable[Name] = (),
        states: States | None = None,
    ) -> None:
        self._name(node, parents, states)
        if node in self.states:
            raise ValueError(
                f"LinearGaussianCPD: states are given of {node!r}; expected none, since it is "
                "continuous; use TabularCPD or SoftmaxCPD"
            )
        slopes = self._spread("coefficients", coefficients, 1)
        slopes = self._shaped(
            "coefficients", slopes, ("continuous parents", len(self.continuous_parents))
        )
        level = self._shaped("intercept", self._spread("intercept", intercept, 0))
        spread = self._shaped("variance", self._spread("variance", variance, 0))
        if (spread <= 0.0).any():
            row = int(np.argmin(spread))
            raise ValueError(
                f"LinearGaussianCPD: the variance of {node!r}{self._row(row)} is "
                f"{spread.flat[row]}; expected more than 0"
            )
        self._keep(intercept=level, coefficients=slopes, variance=spread)

    @property
    def parameters(self) -> dict[str, Array]:
        """``intercept`` (sizes...), ``coefficients`` (sizes..., C) and ``variance`` (sizes...)."""
        return {
            "intercept": self.intercept,
            "coefficients": self.coefficients,
            "variance": self.variance,
        }

    @property
    def frame(self) -> pd.DataFrame:
        """The parameters: a row for each combination of the discrete parents' states."""
        level, spread = self.intercept[..., None], self.variance[..., None]
        return self._frame(
            self.discrete_parents,
            ["intercept", *self.continuous_parents, "variance"],
            np.concatenate([level, self.coefficients, spread], axis=-1),
        )

    def to_tree(self) -> dict[str, Any]:
        """The distribution as plain data, which `from_tree` takes."""
        return self._tree(**{name: np.array(value) for name, value in self.parameters.items()})

    def _spread(self, name: str, values: npt.ArrayLike, ndim: int) -> Array:
        """Values for each of the discrete parents' states, where they are given once for all."""
        array = self._array(name, values)
        if array.ndim == ndim:
            return np.broadcast_to(array, self.sizes + array.shape)
        return array


@dataclass(frozen=True, init=False, eq=False, repr=False)
class SoftmaxCPD(ConditionalDistribution):
    """A discrete node whose log odds are linear in its continuous parents: softmax regression.

    Its discrete parents choose the coefficients: node = k with probability softmax(intercept +
    x · coefficients)_k. With two states this is logistic regression.

    Parameters
    ----------
    node : hashable
        Name of the node.
    intercept : (sizes..., K) array
        Logits at x = 0 for each of the discrete parents' states. Of a node with two states also
        (sizes...): log odds of its second state.
    coefficients : (sizes..., C, K) array
        Change of the logits for a unit of each continuous parent. Of a node with two states also
        (sizes..., C): change of the log odds of its second state.
    parents : sequence of hashable
        All parents, in order: those that are in `states` are discrete, the others continuous.
    states : dict of name to sequence, optional
        The states of the node (else 0 to K - 1) and of the discrete parents.

    Attributes
    ----------
    intercept, coefficients : ndarray
        Read-only, with all their axes; adding a constant to all states' logits changes nothing.

    Raises
    ------
    ValueError
        If no parent is continuous, a shape does not fit, a number is not finite, names or states
        repeat, or the node is its own parent.

    References
    ----------
    Koller and Friedman (2009), Probabilistic Graphical Models, section 5.5.1 and definition 5.10.

    Examples
    --------
    >>> ill = SoftmaxCPD(
    ...     "ill", -40.0, [1.0], parents=["temperature"], states={"ill": ["no", "yes"]}
    ... )
    >>> ill.frame
         intercept  temperature
    ill
    no         0.0          0.0
    yes      -40.0          1.0
    """

    intercept: Array
    coefficients: Array

    kind: ClassVar[str] = "softmax"

    def __init__(
        self,
        node: Name,
        intercept: npt.ArrayLike,
        coefficients: npt.ArrayLike,
        parents: Iterable[Name] = (),
        states: States | None = None,
    ) -> None:
        self._name(node, parents, states)
        if not self.continuous_parents:
            raise ValueError(
                f"SoftmaxCPD: no parent of {node!r} is continuous: all of {list(self.parents)} "
                "have states; use TabularCPD"
            )
        level = self._array("intercept", intercept)
        slopes = self._array("coefficients", coefficients)
        if level.ndim == len(self.sizes) == slopes.ndim - 1 and self.size in (0, 2):
            # The first state is the reference of the log odds.
            level = np.stack([np.zeros_like(level), level], axis=-1)
            slopes = np.stack([np.zeros_like(slopes), slopes], axis=-1)
        if not self.size:
            n_states = level.shape[-1] if level.ndim else 0
            self._declare({**self.states, node: tuple(range(n_states))})
        states_axis = (str(node), self.size)
        continuous = ("continuous parents", len(self.continuous_parents))
        level = self._shaped("intercept", level, states_axis)
        slopes = self._shaped("coefficients", slopes, continuous, states_axis)
        self._keep(intercept=level, coefficients=slopes)

    @property
    def parameters(self) -> dict[str, Array]:
        """``intercept`` (sizes..., K) and ``coefficients`` (sizes..., C, K)."""
        return {"intercept": self.intercept, "coefficients": self.coefficients}

    @property
    def frame(self) -> pd.DataFrame:
        """The parameters: a row for each of the node's states under each of its parents'."""
        terms = np.concatenate([self.intercept[..., None, :], self.coefficients], axis=-2)
        return self._frame(
            (*self.discrete_parents, self.node),
            ["intercept", *self.continuous_parents],
            np.moveaxis(terms, -1, -2),
        )

    def to_tree(self) -> dict[str, Any]:
        """The distribution as plain data, which `from_tree` takes."""
        return self._tree(**{name: np.array(value) for name, value in self.parameters.items()})


def _is_frame(values: Any) -> TypeGuard[pd.DataFrame]:
    return hasattr(values, "columns") and hasattr(values, "index")
