"""Tables column by column: MADE."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from ppl_gen.inference.base import InferenceMethod
from ppl_gen.models.autoregressive.completion import FactorisedModel
from ppl_gen.neural.ancestral import Particles
from ppl_gen.neural.made import KINDS, Column, MaskedAutoencoder

Array = Any

__all__ = ["MADE"]

#: Whole numbers of more values than these are no levels, unless `kinds` says so.
MOST_LEVELS = 32


class MADE(FactorisedModel):
    """Rows column by column, each given those before it, by one masked network.

    ``p(x) = prod_d p(x_d | x_1, ..., x_{d-1})``: an exact density of tables whose columns may be
    categories, whole numbers and real ones, side by side [1]_.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int
        Widths of the hidden layers.
    n_components : int
        Of the mixtures by which numbers are distributed, given the columns before.
    kinds : "auto", str, or dict
        What columns hold: "category" (levels with a probability each), "whole" (whole numbers: a
        mixture of discretised logistics, from 0 up unless some are negative), or "number" (a
        mixture of normals); one for all, or by column (its name, or its place in an array), the
        rest as "auto" has it. That takes categories and booleans as they are; whole numbers as
        levels, if they span 32 at most (those of an array have the same levels, if these span no
        more), else as "whole"; other numbers as "number".
    n_levels : int, optional
        Levels of the columns of whole numbers, with values 0 to K - 1, where the rows fitted may
        lack some.
    order : None, "random" or sequence
        Columns (names, or places) in the order of the factors; None is that of the table.
    n_orders : int
        With more than one, the density is the mixture of as many, each of a random order and a
        network of its own.
    inference : str, MaximumLikelihood or None
        By default maximum likelihood by Adam in batches of 128, which ends once a tenth of the
        rows, kept aside, are predicted no better for 15 epochs (with fewer than 50 rows: after 200
        epochs).
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of the weights; by default float32.

    Attributes
    ----------
    kinds_ : list of str
        What each column was taken to hold.
    orders_ : list of lists of int
        Columns in the order of the factors.
    history_ : DataFrame
        A row an epoch; losses are in nats a row.
    n_epochs_, best_epoch_ : int
    stopped_ : str
    posterior_ : Posterior
        The one draw of a point fit: the weights.

    Notes
    -----
    `log_prob` is a density in the columns of real numbers, and a probability in the others.
    Rows with NaN in the columns that come last in the order are scored exactly; `impute` fills in
    any. Normals are no narrower than a thousandth of the column's deviation.
    ``fit(X, context=labels)`` makes the density conditional, on classes or on numbers.

    References
    ----------
    .. [1] Germain, Gregor, Murray and Larochelle (2015). MADE: Masked autoencoder for distribution
       estimation. ICML, arXiv:1502.03509.

    Examples
    --------
    >>> import pandas as pd
    >>> from ppl_gen import MADE, MaximumLikelihood
    >>> coin = pd.DataFrame({"face": ["heads", "tails", "tails"] * 20, "tosses": [1, 2, 4] * 20})
    >>> method = MaximumLikelihood(epochs=40, learning_rate=0.05)
    >>> model = MADE((16,), inference=method, random_state=0).fit(coin)
    >>> model.kinds_
    ['category', 'category']
    >>> model.impute(pd.DataFrame({"face": ["heads"], "tosses": [None]}), random_state=0)
        face  tosses
    0  heads       1
    """

    takes_categories: ClassVar[bool] = True
    everyday: ClassVar[dict[str, Any]] = {"batch_size": 128, "learning_rate": 2e-3, "epochs": 200}
    rows_at_a_time: ClassVar[int] = 4096
    _filling: ClassVar[str] = "impute() fills the missing ones in given all that is known"

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (128, 128),
        n_components: int = 5,
        kinds: str | Mapping[Any, str] = "auto",
        n_levels: int | None = None,
        order: str | Sequence[Any] | None = None,
        n_orders: int = 1,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_components = n_components
        self.kinds = kinds
        self.n_levels = n_levels
        self.order = order
        self.n_orders = n_orders
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # -- reading -------------------------------------------------------------------------------

    def _facts(self, values: Array, row_shape: tuple[int, ...]) -> dict[str, Any]:
        self._check_settings()
        self._refuse_gaps(values)
        columns = self._columns(values)
        facts = {
            "kind": [column.kind for column in columns],
            "n_levels": np.array([column.n_levels for column in columns]),
            "lowest": np.array([column.lowest for column in columns]),
            "loc": np.array([column.loc for column in columns]),
            "scale": np.array([column.scale for column in columns]),
            "orders": self._orders(values.shape[1]),
        }
        self._check_values(values, facts)
        self._warn_constant(values, np.array(facts["kind"]) == "number")
        return facts

    def _check_settings(self) -> None:
        counts = {"n_components": self.n_components, "n_orders": self.n_orders}
        sizes = self.hidden_layer_sizes
        if isinstance(sizes, str) or not np.iterable(sizes):
            raise ValueError(
                f"{self._who}: hidden_layer_sizes is {sizes!r}; expected a sequence, such as (64,)"
            )
        if not isinstance(self.kinds, str | Mapping):
            raise ValueError(
                f"{self._who}: kinds is {self.kinds!r}; expected 'auto', a kind of all columns "
                f"({', '.join(map(repr, KINDS))}), or a dict of kinds by column"
            )
        counts |= {f"hidden_layer_sizes[{place}]": size for place, size in enumerate(sizes)}
        if self.n_levels is not None:
            counts["n_levels"] = self.n_levels
        for name, value in counts.items():
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or value < 1:
                raise ValueError(
                    f"{self._who}: {name} is {value!r}; expected a whole number, at least 1"
                )
        if len(sizes) == 0:
            raise ValueError(
                f"{self._who}: hidden_layer_sizes is empty; expected one layer or more"
            )

    def _columns(self, values: Array) -> list[Column]:
        """What each column holds, by its kind as declared or as it looks."""
        asked = self._asked_kinds()
        whole = (values == np.rint(values)).all(axis=0)
        lowest, highest = values.min(axis=0), values.max(axis=0)
        # The deviation of one value over and over may be a rounding error.
        spread = np.where(lowest < highest, values.std(axis=0), 0.0)
        few = whole & (highest - lowest < MOST_LEVELS)
        if self.schema_.container == "numpy" and few.any():
            # The columns of an array are of one sort: levels that some lack, others show.
            ends = lowest[few].min(), highest[few].max()
            if ends[1] - ends[0] < MOST_LEVELS:
                lowest, highest = np.where(few, ends[0], lowest), np.where(few, ends[1], highest)
        if self.n_levels is not None:
            lowest, highest = np.zeros(len(whole)), np.full(len(whole), self.n_levels - 1.0)
        found = []
        for place, column in enumerate(self.schema_.columns):
            kind, x = asked.get(place, "auto"), values[:, place]
            sizes: dict[str, Any] = {
                "loc": float(x.mean()),
                "scale": float(spread[place]) if spread[place] > 0.0 else 1.0,
            }
            if column.kind != "number":
                count = 2 if column.categories is None else len(column.categories)
                found.append(Column("category", max(count, 1), 0.0))
                continue
            span = int(highest[place] - lowest[place]) + 1 if whole[place] else 0
            if kind == "auto":
                levels = span <= MOST_LEVELS or self.n_levels is not None
                kind = "number" if not whole[place] else "category" if levels else "whole"
            if kind != "number" and not whole[place]:
                raise ValueError(
                    f"{self._who}.fit: column {self.schema_.names[place]!r} is to be {kind!r}, but "
                    f"has {x[x != np.rint(x)][0]:g}; expected whole numbers; round them, or take "
                    "'number'"
                )
            if kind == "category":
                found.append(Column(kind, span, float(lowest[place])))
            elif kind == "whole":
                found.append(Column(kind, 0, 0.0 if x.min() >= 0.0 else -np.inf, **sizes))
            else:
                found.append(Column(kind, **sizes))
        return found

    def _asked_kinds(self) -> dict[int, str]:
        """Kinds that are declared, by the place of the column."""
        names, asked = self.schema_.names, self.kinds
        if isinstance(asked, str):
            asked = {} if asked == "auto" else dict.fromkeys(names, asked)
        by_place = {}
        for name, kind in asked.items():
            if name not in names:
                raise ValueError(
                    f"{self._who}: kinds names a column {name!r}, which X has not; it has "
                    f"{', '.join(map(repr, names[:10]))}"
                )
            if kind not in KINDS:
                raise ValueError(
                    f"{self._who}: the kind of column {name!r} is {kind!r}; expected one of "
                    f"{', '.join(map(repr, KINDS))}"
                )
            by_place[names.index(name)] = kind
        return by_place

    def _orders(self, width: int) -> list[list[int]]:
        named = isinstance(self.order, str) and self.order != "random"
        if named or not (self.order is None or np.iterable(self.order)):
            raise ValueError(
                f"{self._who}: order is {self.order!r}; expected None, 'random' or the columns"
            )
        given = self.order is not None and not isinstance(self.order, str)
        if given and self.n_orders > 1:
            raise ValueError(
                f"{self._who}: an order is given, but n_orders is {self.n_orders}; several are "
                "random: leave one of the two out"
            )
        if given:
            names, asked = self.schema_.names, list(() if self.order is None else self.order)
            if len(asked) != width or any(asked.count(name) != 1 for name in names):
                raise ValueError(
                    f"{self._who}: order is {asked!r}; expected each column of X once: "
                    f"{', '.join(map(repr, names[:10]))}"
                )
            return [[names.index(name) for name in asked]]
        if self.order is None and self.n_orders == 1:
            return [list(range(width))]
        rng = self._rng()
        return [rng.permutation(width).tolist() for _ in range(self.n_orders)]

    def _check_values(self, values: Array, facts: dict[str, Any]) -> None:
        kind, lowest = np.array(facts["kind"]), facts["lowest"]
        highest = np.where(kind == "category", lowest + facts["n_levels"] - 1, np.inf)
        wrong = (values != np.rint(values)) | (values < lowest) | (values > highest)
        wrong &= ~np.isnan(values) & (kind != "number")
        if wrong.any():
            row, place = np.argwhere(wrong)[0]
            end = f"to {highest[place]:g}" if kind[place] == "category" else "up"
            raise ValueError(
                f"{self._who}: column {self.schema_.names[place]!r} has {values[row, place]:g} in "
                f"row {row}; expected whole numbers from {lowest[place]:g} {end}, as in fit; "
                "declare n_levels, or the column as 'whole' or 'number' by kinds, where there are "
                "others"
            )

    def _module(self, facts: dict[str, Any], context_width: int) -> MaskedAutoencoder:
        fields = ("n_levels", "lowest", "loc", "scale")
        columns = [
            Column(kind, int(numbers[0]), *map(float, numbers[1:]))
            for kind, *numbers in zip(facts["kind"], *(facts[f] for f in fields), strict=True)
        ]
        network = MaskedAutoencoder(
            columns,
            facts["orders"],
            tuple(self.hidden_layer_sizes),
            self.n_components,
            context_width,
        )
        # In float64 until the network is brought to its own floats: far from zero, float32 would
        # round the centre by many deviations.
        for field in ("lowest", "loc", "scale"):
            setattr(network, field, torch.as_tensor(facts[field], dtype=torch.float64))
        return network

    def _publish(self) -> None:
        facts = self.structure_.facts
        self.kinds_, self.orders_ = list(facts["kind"]), [list(o) for o in facts["orders"]]

    def _decode(self, drawn: Array) -> Any:
        whole = tuple(kind != "number" for kind in self.structure_.facts["kind"])
        table = self.schema_.decode(drawn.astype(np.float64), whole)
        images = len(self.row_shape_) > 1 and isinstance(table, np.ndarray)
        return table.reshape(-1, *self.row_shape_) if images else table

    # -- filling in ----------------------------------------------------------------------------

    def impute(
        self,
        X: Any,
        n_draws: int | None = None,
        random_state: Any = None,
        *,
        context: Any = None,
        n_particles: int = 100,
    ) -> Any:
        """Fill in what is missing, given all that is known of the row.

        Parameters
        ----------
        X : table of (n, D)
            NaN (None, of categories) is filled; the rest stays.
        n_draws : int or None
            None fills with the conditional mean, or the mode of categories and levels; a number
            gives as many completed tables, each a draw from the conditional (multiple imputation).
        random_state : int or None
        context : one of the fit's kind for all rows, or one a row; for conditional densities
        n_particles : int
            Weighted draws of each row, by which values that are known weigh on missing ones before
            them in the order: a particle filter, exact as it grows.

        Returns
        -------
        table of (n, D), or a list of `n_draws` tables
        """
        if n_draws is None:
            seed = self._seed(random_state)
            return self._decode(self._completed(X, context, n_particles, seed, self._expected))
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        return [
            self._decode(self._completed(X, context, n_particles, int(seed), Particles.draw))
            for seed in rng.integers(2**31, size=n_draws)
        ]

    def _expected(self, particles: Particles) -> torch.Tensor:
        """Mean of numbers, and mode of levels: (n, D)."""
        shares, values = particles.log_weights.exp(), particles.values
        expected = (shares[..., None] * values).sum(1)
        facts = self.structure_.facts
        for place, kind in enumerate(facts["kind"]):
            if kind == "category":
                lowest = facts["lowest"][place]
                codes = (values[..., place] - lowest).long()
                mass = shares.new_zeros(len(codes), int(facts["n_levels"][place]))
                mass.scatter_add_(1, codes, shares)
                expected[:, place] = mass.argmax(1) + lowest
        return expected
