"""The latent class model: every row belongs to one of K classes, each with its own family.

Naive Bayes is this model with the class observed, a mixture is it with the class hidden, and
semi-supervised learning lies between. Its EM protocol and its program are written here once.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside
from ppl_gen.algorithms.kmeans import SEED_ROWS, kmeans, nearest
from ppl_gen.algorithms.row_chunks import map_rows
from ppl_gen.algorithms.trees import tree_leaves, tree_sum
from ppl_gen.data import Rows
from ppl_gen.engines.random_source import NumPyRandom
from ppl_gen.families import Family, Parameters, Statistics
from ppl_gen.language import Program, deterministic, dist, ops, plate, sample

Array = Any

#: A component that answers for fewer rows than this has died.
DEAD_COUNT = 1e-3
#: Rows of each class that place the origin of its sums.
NEAR_ROWS = 100


def class_means(x: Array, indicators: Array) -> Array:
    """Means of what is observed, by class: (n, D) rows, (n, K) weighted indicators -> (K, D).

    A class without a value in a column has the mean of all.
    """
    observed = ~np.isnan(x)
    values = np.where(observed, x, 0.0)
    counts = indicators.T @ observed
    overall = values.sum(axis=0) / np.maximum(observed.sum(axis=0), 1)
    sums = indicators.T @ values
    return np.where(counts > 0.0, sums / np.where(counts > 0.0, counts, 1.0), overall)


def with_holes(family: Family) -> Family:
    """Return the family for rows with missing entries, whatever those it was bound to had."""
    return family.with_settings(lambda part: part.replace(missing=True))


class RowsProgram(Program):
    """A program of rows that takes the route for missing entries where its data have some.

    A compiled density cannot look at its values to choose, so it is chosen by the arguments.

    Parameters
    ----------
    function : callable
        The program for rows like those that were fitted.
    holed : callable
        The same for rows with missing entries.
    """

    def __init__(self, function: Callable[..., Any], holed: Callable[..., Any]) -> None:
        super().__init__(function)
        self.holed = Program(holed)

    def _native(self, name: str) -> Callable[..., Any]:
        plain, holed = super()._native(name), self.holed.native(name)

        @functools.wraps(self.function)
        def model(*args: Any, **kwargs: Any) -> Any:
            given = self._bind(args, kwargs).arguments
            rows = [given.get(key) for key in ("x", "x_unlabelled")]
            holes = any(isinstance(x, np.ndarray) and np.isnan(x).any() for x in rows)
            return (holed if holes else plain)(*args, **kwargs)

        return model


@dataclasses.dataclass(frozen=True, eq=False)
class LatentClass:
    """p(x, z) = weights[z] p(x | z), in a family bound to the data.

    Parameters
    ----------
    family : Family
        Bound to the training rows.
    n_classes : int
    concentration : float
        Prior count of every class: weights have a Dirichlet(1 + concentration) prior.
    class_name : str
        What a class is called where axes are named: "component" or "class".
    fixed_weights : (K,) or None
        Class probabilities that are given, not learned.

    Notes
    -----
    Parameters are ``{"weights": (K,), "family": {...}}``; they add a leading axis for draws. One
    class with a fixed weight is a density of its own: its program has no site of weights.
    """

    family: Family
    n_classes: int
    concentration: float = 0.0
    class_name: str = "component"
    fixed_weights: Array | None = None

    def __post_init__(self) -> None:
        if not self.concentration >= 0.0:
            raise ValueError(
                f"the prior count of every {self.class_name} ({self.class_name}_concentration or "
                f"weight_concentration) is {self.concentration}; it must be at least 0"
            )

    @property
    def whole(self) -> tuple[bool, ...]:
        """Which columns hold whole numbers: counts, codes, yes or no."""
        return self.family.whole

    @property
    def em_settings(self) -> dict[str, Any]:
        """Settings of EM, where the family knows better ones than its defaults."""
        return self.family.em_settings

    def with_prior(self) -> "LatentClass":
        """Return the structure with the default prior where it has none, for EM."""
        family = self.family.with_settings(lambda part: part.with_prior())
        return dataclasses.replace(self, family=family)

    def to_tree(self) -> dict[str, Any]:
        """Return the structure as plain data, for an artefact."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "LatentClass":
        """Return the structure that :meth:`to_tree` gave."""
        return cls(**tree)

    def coords(self, names: list[Any]) -> dict[str, list[Any]]:
        """Labels of the axes of the program's sites, given the names of the columns."""
        return self.family.coords(names)

    # -- density -----------------------------------------------------------------------------

    def joint_log_prob(self, parameters: Parameters, x: Array) -> Array:
        """Log p(x, z = k) of rows (n, D), in nats: (n, K)."""
        weights = parameters["weights"]
        xp = array_namespace(weights)
        with np.errstate(divide="ignore"):  # a class may have no chance at all
            return self.family.log_prob(parameters["family"], x) + xp.log(weights)

    # -- the EM protocol ---------------------------------------------------------------------

    def initialize(self, rows: Rows, rng: np.random.Generator, how: str) -> Parameters:
        """Start from a hard assignment, by k-means++ or at random; known labels stay."""
        if self.n_classes == 1:
            labels = np.zeros(len(rows), dtype=np.intp)
        elif how == "random":
            labels = rng.integers(self.n_classes, size=len(rows))
        elif rows.labels is None:
            return self._start_clustered(rows, rng)
        else:
            # Clusters have no names: rows go to the class whose labelled rows they are near.
            features = self.family.features(rows.values)
            hot = self.indicators(rows.labels, rows.weights)
            labels = nearest(features, class_means(features, hot))
        if rows.labels is not None:
            labels = np.where(rows.labels >= 0, rows.labels, labels)
        return self._assigned(rows, labels, rows.weights, rng)

    def _start_clustered(self, rows: Rows, rng: np.random.Generator) -> Parameters:
        """Start from k-means, of standardised columns or as they are: whichever fits better.

        Columns of one unit, such as pixels, lose their meaning when standardised; columns of
        several have none before.
        """
        candidates = []
        looked = rows
        if len(rows) > SEED_ROWS:
            looked = rows[np.sort(rng.choice(len(rows), SEED_ROWS, replace=False))]
        for units in (False,) if all(self.whole) else (False, True):
            features = self.family.features(rows.values, units=units)
            labels = kmeans(features, self.n_classes, rng, rows.weights)
            start = self._assigned(rows, labels, rows.weights, rng)
            candidates.append((self._log_likelihood(start, looked), start))
        return max(candidates, key=lambda candidate: candidate[0])[1]

    def _log_likelihood(self, parameters: Parameters, rows: Rows) -> float:
        return float(sum(map_rows(lambda c: self.e_step(parameters, rows[c])[1], len(rows))))

    def _assigned(
        self, rows: Rows, labels: Array, weights: Array | None, rng: np.random.Generator
    ) -> Parameters:
        """Estimate from a hard assignment of the rows to classes; label -1 takes no part."""
        hot = self.indicators(labels, weights)
        return {
            "weights": self._weights(hot.sum(axis=0) + 10.0 * np.finfo(np.float64).eps),
            "family": self.family.initial_parameters(rows.values, hot, rng),
        }

    def e_step(self, parameters: Parameters, rows: Rows) -> tuple[Statistics, Array]:
        """Expected statistics and log likelihood; both add over rows."""
        log_prob, statistics_of = self.family.e_step(parameters["family"], rows.values)
        xp = array_namespace(log_prob)
        joint = log_prob + xp.log(parameters["weights"])
        top = xp.max(joint, axis=1, keepdims=True)
        shares = xp.exp(joint - top)
        total = xp.sum(shares, axis=1, keepdims=True)
        evidence = (xp.log(total) + top)[:, 0]
        responsibilities = shares / total
        if rows.labels is not None:
            classes = beside(rows.labels, np.arange(self.n_classes))
            hot = xp.astype(rows.labels[:, None] == classes, joint.dtype)
            known = rows.labels >= 0
            responsibilities = xp.where(known[:, None], hot, responsibilities)
            own = xp.where(hot > 0.0, joint, xp.zeros_like(joint))
            evidence = xp.where(known, xp.sum(own, axis=1), evidence)
        if rows.weights is not None:
            responsibilities = responsibilities * rows.weights[:, None]
            evidence = evidence * rows.weights
        statistics = {
            "weights": xp.sum(responsibilities, axis=0),
            "family": statistics_of(responsibilities),
        }
        return statistics, xp.sum(evidence)

    def m_step(self, statistics: Statistics) -> Parameters:
        """Maximise the expected log joint density, less the penalty."""
        return {
            "weights": self._weights(statistics["weights"] + 10.0 * np.finfo(np.float64).eps),
            "family": self.family.estimate(statistics["family"]),
        }

    def _weights(self, counts: Array) -> Array:
        if self.fixed_weights is not None:
            return self.fixed_weights
        smoothed = counts + self.concentration
        return smoothed / smoothed.sum()

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        """Return what the M-step subtracts from the expected log likelihood."""
        prior = 0.0
        if self.fixed_weights is None and self.concentration > 0.0:
            prior = -self.concentration * float(np.log(parameters["weights"]).sum())
        return prior + self.family.penalty(parameters["family"], statistics["family"])

    def revive(
        self,
        parameters: Parameters,
        statistics: Statistics,
        rows: Rows,
        rng: np.random.Generator,
    ) -> tuple[Parameters, int]:
        """Re-seed components that died: each at a row drawn at random, as wide as the rest.

        Returns
        -------
        parameters, number of components re-seeded
        """
        dead = np.flatnonzero(statistics["weights"] < DEAD_COUNT)
        if len(dead) == 0 or len(dead) == self.n_classes:
            return parameters, 0
        labels = np.full(len(rows), -1)
        for k in dead:
            # A tenth of an equal share of the rows, nearest to a random one.
            features = self.family.features(rows.values)
            distance = ((features - features[rng.integers(len(rows))]) ** 2).sum(axis=1)
            share = max(2, len(rows) // (10 * self.n_classes))
            labels[np.argpartition(distance, min(share, len(rows) - 1))[:share]] = k
        seeded = self._assigned(rows, labels, None, rng)
        family = self.family.merge(parameters["family"], seeded["family"], dead)
        weights = np.array(parameters["weights"])
        weights[dead] = 1.0 / (10 * self.n_classes)
        return {"weights": self._weights(weights * len(rows)), "family": family}, len(dead)

    # -- known classes -----------------------------------------------------------------------

    def indicators(self, labels: Array, weights: Array | None) -> Array:
        """0/1 (times weight) of class membership, zero for label -1: (n, K)."""
        hot = (labels[:, None] == np.arange(self.n_classes)).astype(np.float64)
        return hot if weights is None else hot * weights[:, None]

    def near(self, rows: Rows) -> Array:
        """Means of a few rows of each class, the origin of exact sums: (K, D)."""
        assert rows.labels is not None
        if hasattr(rows.values, "toarray"):  # counts are summed as they are
            return np.zeros((self.n_classes, rows.values.shape[1]))
        head = np.concatenate(
            [np.flatnonzero(rows.labels == k)[:NEAR_ROWS] for k in range(self.n_classes)]
        )
        return class_means(rows.values[head], self.indicators(rows.labels[head], None))

    def labelled_statistics(self, near: Array, rows: Rows) -> Statistics:
        """Statistics of rows whose classes are all known, in one pass."""
        labels = rows.labels
        assert labels is not None

        def count(chunk: slice) -> Statistics:
            hot = self.indicators(labels[chunk], rows.weights_of(chunk))
            family = self.family.labelled_statistics(near, rows.values[chunk], labels[chunk], hot)
            return {"weights": hot.sum(axis=0), "family": family}

        total: Statistics = tree_sum(map_rows(count, len(rows)))
        return total

    def labelled_estimate(self, near: Array, statistics: Statistics) -> Parameters:
        """Return the parameters from :meth:`labelled_statistics`."""
        return {
            "weights": self._weights(statistics["weights"]),
            "family": self.family.labelled_estimate(near, statistics["family"]),
        }

    # -- drawing -----------------------------------------------------------------------------

    def sample(
        self, parameters: Parameters, n_rows: int, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Draw rows (n, D) and their classes (n,)."""
        labels = rng.choice(self.n_classes, size=n_rows, p=parameters["weights"])
        values = self.family.sample(parameters["family"], labels, NumPyRandom(rng))
        return values, labels

    def fill(self, draws: Sequence[Parameters], x: Array) -> Array:
        """Complete rows by their conditional mean or mode, over draws of the parameters: (n, D).

        Draws and classes weigh by p(x, z | draw) of what is observed.
        """
        joint = np.stack([self.joint_log_prob(draw, x) for draw in draws])  # (S, n, K)
        shares = np.exp(joint - joint.max(axis=(0, 2), keepdims=True))
        shares /= shares.sum(axis=(0, 2), keepdims=True)
        expected = [
            self.family.expected(draw["family"], x, share)
            for draw, share in zip(draws, shares, strict=True)
        ]
        return self.family.settle(tree_sum(expected), x)

    def draw_missing(
        self, parameters: Parameters, x: Array, responsibilities: Array, rng: np.random.Generator
    ) -> Array:
        """Complete rows by a draw from the joint conditional of what is missing."""
        random = NumPyRandom(rng)
        labels = random.categorical(responsibilities)
        return self.family.draw_missing(parameters["family"], x, labels, random)

    # -- the program -------------------------------------------------------------------------

    def program(self) -> Program:
        """Return the model as a program, with its priors.

        Without labels ``y``, the class of the rows ``x`` (n, D) is marginalised, as the latent
        "z". With labels (n,), the class of ``x`` is observed, and rows whose class is not known
        come as ``x_unlabelled``. Without ``x`` the program draws ``n_rows`` rows;
        ``batch_size`` subsamples the rows.
        """
        return RowsProgram(self._function(self.family), self._function(with_holes(self.family)))

    def _function(self, family: Family) -> Callable[..., None]:
        n_classes, class_name = self.n_classes, self.class_name
        fixed_weights = self.fixed_weights
        concentration = np.full(n_classes, 1.0 + self.concentration)

        def latent_class(
            x: Any = None,
            y: Any = None,
            x_unlabelled: Any = None,
            n_rows: int = 1,
            batch_size: int | None = None,
        ) -> None:
            if fixed_weights is None:
                weights = sample("weights", dist.Dirichlet(concentration), dims=(class_name,))
            elif n_classes == 1:
                weights = ops.asarray(fixed_weights)
            else:
                given = ops.asarray(fixed_weights)
                weights = deterministic("weights", given, dims=(class_name,))
            parameters = family.draw(n_classes, class_name)
            mixed = dist.Mixture(weights, dist.Family(family, parameters), latent="z")
            if x is not None:
                n_rows = x.shape[0]
            with plate("row", n_rows, subsample_size=batch_size) as batch:
                if batch_size is not None:
                    x, y = (None if data is None else data[batch] for data in (x, y))
                if y is None:
                    sample("x", mixed, obs=x)
                else:
                    y = sample("y", dist.Categorical(weights), obs=y)
                    sample("x", dist.Family(family, parameters, labels=y), obs=x)
            if x_unlabelled is not None:
                with plate("unlabelled_row", x_unlabelled.shape[0]):
                    sample("x_unlabelled", mixed, obs=x_unlabelled)

        return latent_class

    def program_data(self, rows: Rows) -> dict[str, Array]:
        """Return the rows as the arguments of the program."""
        if rows.labels is None:
            return {"x": rows.values}
        known = rows.labels >= 0
        if known.all():
            return {"x": rows.values, "y": rows.labels}
        return {
            "x": rows.values[known],
            "y": rows.labels[known],
            "x_unlabelled": rows.values[~known],
        }

    def parameters(self, sites: dict[str, Array]) -> Parameters:
        """Return the parameters from the sites of the program; leading axes are draws."""
        family = self.family.parameters(sites)
        if not self._is_alone:
            return {"weights": sites["weights"], "family": family}
        draws = tree_leaves(family)[0].shape[:1]
        return {"weights": np.ones((*draws, 1)), "family": family}

    def sites(self, parameters: Parameters) -> dict[str, Array]:
        """Name parameters as the sites of the program."""
        own = {} if self._is_alone else {"weights": parameters["weights"]}
        return {**own, **self.family.sites(parameters["family"])}

    @property
    def _is_alone(self) -> bool:
        """Whether there is nothing to say of the one class's weight."""
        return self.fixed_weights is not None and self.n_classes == 1
