"""What a family is: an exponential family over rows, for several classes at once."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from ppl_gen.algorithms.row_chunks import map_rows
from ppl_gen.algorithms.trees import tree_map, tree_sum
from ppl_gen.engines.base import RandomSource

Array = Any
Parameters = dict[str, Any]
Statistics = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """An exponential family of distributions over the rows of a table, one for each class.

    A family is settings only. :meth:`bind` fits it to a table (its width, its categories, a
    prior scaled to it) and returns another one; parameters, a dict of arrays whose first axis
    is the class, stand apart. All density code is array-API code: the same lines run on NumPy
    in the EM algorithm, and traced by JAX or torch in a program.

    Missing entries are NaN, and are marginalised exactly by every method.

    Attributes
    ----------
    n_columns : int or None
        Width of the rows; set by :meth:`bind`.
    """

    name: ClassVar[str]
    #: Whether `log_prob` and `statistics` take scipy.sparse rows.
    takes_sparse: ClassVar[bool] = False
    #: Whether entries may be missing.
    takes_nan: ClassVar[bool] = True
    #: Settings of EM, where the family knows better ones than its defaults.
    em_settings: ClassVar[dict[str, Any]] = {}

    n_columns: int | None = dataclasses.field(default=None, kw_only=True)

    @property
    def whole(self) -> tuple[bool, ...]:
        """Which columns hold whole numbers: counts, codes, yes or no."""
        return (True,) * (self.n_columns or 0)

    def is_one_pass(self, x: Array) -> bool:
        """Whether the statistics of rows do not depend on the parameters."""
        return True

    def replace(self, **settings: Any) -> Self:
        """Return the family with other settings."""
        return dataclasses.replace(self, **settings)

    def with_settings(self, change: Callable[["Family"], "Family"]) -> "Family":
        """Apply `change` to the family, or to each part of a product."""
        return change(self)

    def with_prior(self) -> "Family":
        """Return the family with its conjugate prior in force under EM too."""
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings, as scikit-learn's clone and the artefacts ask for them."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def bind(self, x: Array, n_classes: int) -> Self:
        """Return the family bound to a table: its width and what it reads off the data.

        Parameters
        ----------
        x : (n, D)
            The training rows; NaN where missing.
        n_classes : int

        Raises
        ------
        ValueError
            If the rows lie outside of the family's support.
        """
        raise NotImplementedError  # pragma: no cover

    def check(self, x: Array) -> None:
        """Raise ValueError if rows lie outside the support of the bound family."""

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        """Log density in nats of every row under every class: (n, D) -> (n, K)."""
        raise NotImplementedError  # pragma: no cover

    def statistics(self, parameters: Parameters, x: Array, responsibilities: Array) -> Statistics:
        """Expected sufficient statistics, weighted by (n, K) responsibilities.

        They add over rows: ``statistics(a ++ b) = statistics(a) + statistics(b)``. The
        parameters serve to complete missing entries, where the family needs that.
        """
        raise NotImplementedError  # pragma: no cover

    def e_step(
        self, parameters: Parameters, x: Array
    ) -> tuple[Array, Callable[[Array], Statistics]]:
        """Return `log_prob` and the function from responsibilities to `statistics`.

        One call, since with missing entries both rest on the same conditional moments.
        """
        return self.log_prob(parameters, x), lambda responsibilities: self.statistics(
            parameters, x, responsibilities
        )

    def estimate(self, statistics: Statistics) -> Parameters:
        """Maximum likelihood, or the posterior mode under the conjugate prior."""
        raise NotImplementedError  # pragma: no cover

    def estimate_given(self, statistics: Statistics, given: Parameters) -> Parameters:
        """Return :meth:`estimate` with some of the parameters given, which stay as they are."""
        return self.estimate(statistics) | given

    def labelled_statistics(
        self, near: Array, x: Array, labels: Array, indicators: Array
    ) -> Statistics:
        """Statistics of rows whose class is known, about points `near` the classes' means.

        Such sums lose no digits to cancellation (Chan, Golub & LeVeque, The American
        Statistician 37, 1983). (K, D) points, (n,) labels, (n, K) weighted indicators.
        """
        return self.initial_statistics(x, indicators)

    def labelled_estimate(self, near: Array, statistics: Statistics) -> Parameters:
        """Return :meth:`estimate` from :meth:`labelled_statistics` about the same `near`."""
        return self.estimate(statistics)

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        """Return what :meth:`estimate` subtracts from the expected log likelihood.

        It is the negative log prior up to a constant, and whatever else regularises. One step
        of EM raises the log likelihood by at least the rise of the penalty at fixed
        statistics; the monitor holds it to that.
        """
        return 0.0

    def initial_statistics(self, x: Array, responsibilities: Array) -> Statistics:
        """Statistics of the first M-step, when there are no parameters yet."""
        return self.statistics({}, x, responsibilities)

    def initial_parameters(
        self, x: Array, responsibilities: Array, rng: np.random.Generator
    ) -> Parameters:
        """Parameters that EM starts from, given the rows' shares of the classes.

        Parameters
        ----------
        x : (n, D)
            Rows, NaN where missing.
        responsibilities : (n, K)
            Weighted shares; they need not sum to one, and a row of zeros takes no part.
        rng : numpy.random.Generator
            Draws what the responsibilities leave open, such as the components of a class.

        Returns
        -------
        dict
            By default, :meth:`estimate` from the sum of :meth:`initial_statistics`.
        """

        def count(rows: slice) -> Statistics:
            return self.initial_statistics(x[rows], responsibilities[rows])

        return self.estimate(tree_sum(map_rows(count, x.shape[0])))

    def features(self, x: Array, *, units: bool = False) -> Array:
        """Embed rows in a Euclidean space, without NaN, where k-means may start: (n, F).

        Columns of real numbers are standardised, or keep their `units`.
        """
        raise NotImplementedError  # pragma: no cover

    def sample(self, parameters: Parameters, labels: Array, random: RandomSource) -> Array:
        """Draw one row for each of the (n,) class labels: (n, D)."""
        raise NotImplementedError  # pragma: no cover

    def draw(self, n_classes: int, plate: str, prefix: str = "") -> Parameters:
        """Draw the parameters inside a program, under the family's conjugate prior."""
        raise NotImplementedError  # pragma: no cover

    def sites(self, parameters: Parameters, prefix: str = "") -> dict[str, Array]:
        """Name parameters as the program names its sites, with its deterministics."""
        raise NotImplementedError  # pragma: no cover

    def coords(self, names: list[Any], prefix: str = "") -> dict[str, list[Any]]:
        """Labels of the axes of the program's sites, given the names of the columns."""
        return {f"{prefix}column": names}

    def rotatable(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the axes of factors that the posterior knows up to a rotation."""
        return ()

    def parameters(self, sites: dict[str, Array], prefix: str = "") -> Parameters:
        """Return the parameters from the values of the program's sites."""
        raise NotImplementedError  # pragma: no cover

    def expected(self, parameters: Parameters, x: Array, responsibilities: Array) -> Any:
        """What is expected of each entry, weighted by (n, K) responsibilities.

        Means (n, D), or probabilities of categories: these add over classes and over draws of
        the parameters, as modes do not. :meth:`settle` makes values of their sum.
        """
        raise NotImplementedError  # pragma: no cover

    def settle(self, expected: Any, x: Array) -> Array:
        """Complete rows by what is expected: the mean, or the likeliest category: (n, D)."""
        return np.where(np.isnan(x), expected, x)

    def merge(self, old: Parameters, new: Parameters, classes: Array) -> Parameters:
        """Return the old parameters with some of the classes taken from the new."""

        def taken(kept: Array, fresh: Array) -> Array:
            merged = np.array(kept)
            merged[classes] = fresh[classes]
            return merged

        merged: Parameters = tree_map(taken, old, new)
        return merged

    @property
    def by_column(self) -> tuple["Family", ...]:
        """Family of each column of the bound rows."""
        return (self,) * (self.n_columns or 0)

    @property
    def layout(self) -> tuple[Any, ...]:
        """What the shapes of the parameters depend on, but for the number of classes."""
        return (self.name, self.n_columns)

    def draw_missing(
        self, parameters: Parameters, x: Array, labels: Array, random: RandomSource
    ) -> Array:
        """Complete rows by a draw from the conditional of what is missing, given the class."""
        return np.where(np.isnan(x), self.sample(parameters, labels, random), x)

    def n_free(self, n_classes: int) -> int:
        """Number of free parameters of all the classes, as AIC and BIC count them."""
        raise NotImplementedError  # pragma: no cover

    def column_log_prob(self, parameters: Parameters, x: Array) -> Array:
        """Log density of each entry, where columns are independent in a class: (n, K, D)."""
        raise ValueError(
            f"{type(self).__name__}.column_log_prob: the columns are dependent within a class, "
            "so the log density has no terms by column; use a family of independent columns"
        )


def observed_rows(xp: Any, x: Array, missing: bool) -> tuple[Array, Array | None]:
    """Split rows into values, zero where missing, and a 0/1 mask; no mask where complete."""
    if xp is np:
        missing = bool(np.isnan(x.sum()))
    if not missing:
        return x, None
    absent = xp.isnan(x)
    return xp.where(absent, xp.zeros_like(x), x), xp.astype(~absent, x.dtype)
