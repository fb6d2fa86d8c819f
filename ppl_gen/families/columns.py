"""Mixed columns: a product of families, each over some of the columns."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace
from ppl_gen.engines.base import RandomSource
from ppl_gen.families.base import Array, Family, Parameters, Statistics


@dataclasses.dataclass(frozen=True, eq=False)
class Columns(Family):
    """Several families side by side, independent of each other within a class.

    Parameters
    ----------
    parts : tuple of (name, family, columns)
        Each part's name (the prefix of its parameters), its family, and the places of its
        columns. Together the places are each column once.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import Bernoulli, Normal
    >>> family = Columns((("size", Normal("diag"), (0,)), ("female", Bernoulli(), (1,))))
    >>> bound = family.bind(np.array([[1.0, 0.0], [2.0, 1.0]]), n_classes=2)
    >>> bound.n_columns
    2
    """

    name: ClassVar[str] = "columns"

    parts: tuple[tuple[str, Family, tuple[int, ...]], ...]

    @property
    def takes_sparse(self) -> bool:  # type: ignore[override]
        return len(self.parts) == 1 and self.parts[0][1].takes_sparse

    @property
    def em_settings(self) -> dict[str, Any]:  # type: ignore[override]
        """Settings of EM, where the families know better ones than its defaults."""
        return {k: v for _, family, _ in self.parts for k, v in family.em_settings.items()}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"parts": self.parts, "n_columns": self.n_columns}

    @property
    def whole(self) -> tuple[bool, ...]:
        marks = [mark for _, family, _ in self.parts for mark in family.whole]
        return tuple(bool(mark) for mark in np.asarray(marks)[self._order])

    def is_one_pass(self, x: Array) -> bool:
        return all(family.is_one_pass(x[:, list(columns)]) for _, family, columns in self.parts)

    def with_settings(self, change: Callable[[Family], Family]) -> Family:
        parts = tuple(
            (name, family.with_settings(change), columns) for name, family, columns in self.parts
        )
        return dataclasses.replace(self, parts=parts)

    @property
    def _order(self) -> Array:
        """Where each column of the table stands among the parts' columns."""
        return np.argsort(np.concatenate([columns for _, _, columns in self.parts]).astype(int))

    def bind(self, x: Array, n_classes: int) -> Self:
        places = sorted(place for _, _, columns in self.parts for place in columns)
        if places != list(range(x.shape[1])):
            raise ValueError(
                f"Columns: the parts take columns {places}, but the data have {x.shape[1]}; "
                "each column must be in exactly one part"
            )
        parts = tuple(
            (name, family.bind(x[:, list(columns)], n_classes), columns)
            for name, family, columns in self.parts
        )
        return dataclasses.replace(self, parts=parts, n_columns=x.shape[1])

    def check(self, x: Array) -> None:
        for _, family, columns in self.parts:
            family.check(x[:, list(columns)])

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        total: Array = 0.0
        for name, family, columns in self.parts:
            total = total + family.log_prob(parameters[name], x[:, list(columns)])
        return total

    def e_step(
        self, parameters: Parameters, x: Array
    ) -> tuple[Array, Callable[[Array], Statistics]]:
        steps = {
            name: family.e_step(parameters[name], x[:, list(columns)])
            for name, family, columns in self.parts
        }
        total = sum(log_prob for log_prob, _ in steps.values())
        return total, lambda r: {name: statistics(r) for name, (_, statistics) in steps.items()}

    def statistics(self, parameters: Parameters, x: Array, responsibilities: Array) -> Statistics:
        return {
            name: family.statistics(parameters[name], x[:, list(columns)], responsibilities)
            for name, family, columns in self.parts
        }

    def initial_statistics(self, x: Array, responsibilities: Array) -> Statistics:
        return {
            name: family.initial_statistics(x[:, list(columns)], responsibilities)
            for name, family, columns in self.parts
        }

    def initial_parameters(
        self, x: Array, responsibilities: Array, rng: np.random.Generator
    ) -> Parameters:
        return {
            name: family.initial_parameters(x[:, list(columns)], responsibilities, rng)
            for name, family, columns in self.parts
        }

    def estimate(self, statistics: Statistics) -> Parameters:
        return {name: family.estimate(statistics[name]) for name, family, _ in self.parts}

    def labelled_statistics(
        self, near: Array, x: Array, labels: Array, indicators: Array
    ) -> Statistics:
        return {
            name: family.labelled_statistics(
                near[:, list(columns)], x[:, list(columns)], labels, indicators
            )
            for name, family, columns in self.parts
        }

    def labelled_estimate(self, near: Array, statistics: Statistics) -> Parameters:
        return {
            name: family.labelled_estimate(near[:, list(columns)], statistics[name])
            for name, family, columns in self.parts
        }

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        return sum(
            family.penalty(parameters[name], statistics[name]) for name, family, _ in self.parts
        )

    def features(self, x: Array, *, units: bool = False) -> Array:
        each = [family.features(x[:, list(c)], units=units) for _, family, c in self.parts]
        return np.concatenate(each, axis=1)

    def sample(self, parameters: Parameters, labels: Array, random: RandomSource) -> Array:
        drawn = [family.sample(parameters[name], labels, random) for name, family, _ in self.parts]
        return self._in_place(array_namespace(*drawn), drawn)

    def _in_place(self, xp: Any, drawn: list[Array]) -> Array:
        """Put the columns of the parts back into the order of the table."""
        return xp.concat(drawn, axis=1)[:, self._order]

    def draw(self, n_classes: int, plate: str, prefix: str = "") -> Parameters:
        return {
            name: family.draw(n_classes, plate, f"{prefix}{name}_")
            for name, family, _ in self.parts
        }

    def sites(self, parameters: Parameters, prefix: str = "") -> dict[str, Array]:
        merged: dict[str, Array] = {}
        for name, family, _ in self.parts:
            merged.update(family.sites(parameters[name], f"{prefix}{name}_"))
        return merged

    def coords(self, names: list[Any], prefix: str = "") -> dict[str, list[Any]]:
        merged: dict[str, list[Any]] = {}
        for name, family, columns in self.parts:
            merged.update(family.coords([names[place] for place in columns], f"{prefix}{name}_"))
        return merged

    def rotatable(self, prefix: str = "") -> tuple[str, ...]:
        return tuple(axis for name, f, _ in self.parts for axis in f.rotatable(f"{prefix}{name}_"))

    def parameters(self, sites: dict[str, Array], prefix: str = "") -> Parameters:
        return {
            name: family.parameters(sites, f"{prefix}{name}_") for name, family, _ in self.parts
        }

    def expected(self, parameters: Parameters, x: Array, responsibilities: Array) -> Any:
        return {
            name: family.expected(parameters[name], x[:, list(columns)], responsibilities)
            for name, family, columns in self.parts
        }

    def settle(self, expected: Any, x: Array) -> Array:
        parts = [
            family.settle(expected[name], x[:, list(columns)])
            for name, family, columns in self.parts
        ]
        return self._in_place(np, parts)

    def merge(self, old: Parameters, new: Parameters, classes: Array) -> Parameters:
        return {name: family.merge(old[name], new[name], classes) for name, family, _ in self.parts}

    @property
    def by_column(self) -> tuple[Family, ...]:
        listed = [part for _, family, _ in self.parts for part in family.by_column]
        return tuple(listed[place] for place in self._order)

    @property
    def layout(self) -> tuple[Any, ...]:
        return tuple((name, family.layout, columns) for name, family, columns in self.parts)

    def draw_missing(
        self, parameters: Parameters, x: Array, labels: Array, random: RandomSource
    ) -> Array:
        return self._in_place(
            np,
            [
                family.draw_missing(parameters[name], x[:, list(columns)], labels, random)
                for name, family, columns in self.parts
            ],
        )

    def n_free(self, n_classes: int) -> int:
        return sum(family.n_free(n_classes) for _, family, _ in self.parts)

    def column_log_prob(self, parameters: Parameters, x: Array) -> Array:
        terms = [
            family.column_log_prob(parameters[name], x[:, list(columns)])
            for name, family, columns in self.parts
        ]
        return np.concatenate(terms, axis=2)[:, :, self._order]
