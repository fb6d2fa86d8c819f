"""A family whose classes are mixtures of another family, such as the emissions of a GMM-HMM."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace
from ppl_gen.algorithms.kmeans import kmeans, nearest
from ppl_gen.algorithms.trees import tree_map
from ppl_gen.engines.base import RandomSource
from ppl_gen.families.base import Array, Family, Parameters, Statistics
from ppl_gen.families.discrete import LEAST_PROBABILITY


@dataclasses.dataclass(frozen=True, eq=False)
class MixtureFamily(Family):
    """Each class is a mixture of M components of another family.

    It serves wherever a family does: as the emission of a hidden Markov model, it makes the
    GMM-HMM; in naive Bayes, mixture discriminant analysis.

    Parameters
    ----------
    family : Family
        Of the components: one family, or the product of several (`Columns`). No normal with
        ``covariance_type="tied"``, and no further mixture.
    n_components : int
        Components of each class, M.
    weights_concentration : float
        Prior count of every component: the weights of a class are
        Dirichlet(1 + weights_concentration), of which estimates are the mode.

    Notes
    -----
    Parameters are ``{"weights": (K, M), "components": {...}}``; the components are those of the
    other family with a leading axis of K M, class by class: component m of class k is at k M + m.

    The component is summed out in every density, and is a further latent variable of EM: its
    expected statistics split those of the class (McLachlan & Peel, Finite Mixture Models, 2000,
    section 2.8). The order of the components within a class means nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import MixtureFamily, Poisson
    >>> family = MixtureFamily(Poisson(), 2).bind(np.array([[1.0], [9.0]]), n_classes=1)
    >>> components = {"rate": np.array([[1.0], [9.0]])}
    >>> parameters = {"weights": np.array([[0.5, 0.5]]), "components": components}
    >>> family.log_prob(parameters, np.array([[1.0], [np.nan]])).round(4)
    array([[-1.6901],
           [ 0.    ]])
    """

    name: ClassVar[str] = "mixture"

    family: Family
    n_components: int
    weights_concentration: float = 0.0

    @property
    def takes_sparse(self) -> bool:  # type: ignore[override]
        return self.family.takes_sparse

    @property
    def takes_nan(self) -> bool:  # type: ignore[override]
        return self.family.takes_nan

    @property
    def em_settings(self) -> dict[str, Any]:  # type: ignore[override]
        """Settings of EM, where the families know better ones than its defaults."""
        return self.family.em_settings

    @property
    def whole(self) -> tuple[bool, ...]:
        return self.family.whole

    def is_one_pass(self, x: Array) -> bool:
        return False

    def with_settings(self, change: Callable[[Family], Family]) -> Family:
        return dataclasses.replace(self, family=self.family.with_settings(change))

    @property
    def by_column(self) -> tuple[Family, ...]:
        return self.family.by_column

    @property
    def layout(self) -> tuple[Any, ...]:
        return (self.name, self.n_components, self.family.layout)

    def bind(self, x: Array, n_classes: int) -> Self:
        if not isinstance(self.n_components, int | np.integer) or self.n_components < 1:
            raise ValueError(
                f"MixtureFamily: n_components is {self.n_components!r}; expected a whole number, "
                "at least 1"
            )
        if not self.weights_concentration >= 0.0:
            raise ValueError(
                f"MixtureFamily: weights_concentration is {self.weights_concentration}; it must "
                "be at least 0"
            )
        if not isinstance(self.family, Family):
            raise TypeError(
                f"MixtureFamily: family is {self.family!r}; expected a Family, such as Normal()"
            )
        _refuse_parts(self.family)
        family = self.family.bind(x, n_classes * self.n_components)
        return dataclasses.replace(self, family=family, n_columns=x.shape[1])

    def check(self, x: Array) -> None:
        self.family.check(x)

    # -- density and statistics --------------------------------------------------------------

    def _mixed(self, weights: Array, log_prob: Array) -> tuple[Array, Array]:
        """Log density of the classes (n, K), and shares of their components (n, K, M)."""
        xp = array_namespace(log_prob, weights)
        with np.errstate(divide="ignore"):  # a component, or a row, may have no chance at all
            joint = xp.reshape(log_prob, (log_prob.shape[0], *weights.shape)) + xp.log(weights)
            top = xp.max(joint, axis=2, keepdims=True)
            top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
            shares = xp.exp(joint - top)
            total = xp.sum(shares, axis=2, keepdims=True)
            evidence = (xp.log(total) + top)[:, :, 0]
        return evidence, shares / xp.where(total > 0.0, total, xp.ones_like(total))

    def _shares(self, parameters: Parameters, x: Array) -> Array:
        """p(component | class, x): (n, K, M)."""
        log_prob = self.family.log_prob(parameters["components"], x)
        return self._mixed(parameters["weights"], log_prob)[1]

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        return self.e_step(parameters, x)[0]

    def e_step(
        self, parameters: Parameters, x: Array
    ) -> tuple[Array, Callable[[Array], Statistics]]:
        each, statistics_of = self.family.e_step(parameters["components"], x)
        log_prob, shares = self._mixed(parameters["weights"], each)

        def statistics(responsibilities: Array) -> Statistics:
            split = shares * responsibilities[:, :, None]
            xp = array_namespace(split)
            return {
                "weights": xp.sum(split, axis=0),
                "components": statistics_of(xp.reshape(split, tuple(each.shape))),
            }

        return log_prob, statistics

    def statistics(self, parameters: Parameters, x: Array, responsibilities: Array) -> Statistics:
        return self.e_step(parameters, x)[1](responsibilities)

    def estimate(self, statistics: Statistics) -> Parameters:
        return {
            "weights": self._weights(statistics["weights"]),
            "components": self.family.estimate(statistics["components"]),
        }

    def _weights(self, counts: Array) -> Array:
        smoothed = counts + self.weights_concentration
        total = smoothed.sum(axis=1, keepdims=True)
        share = smoothed / np.where(total > 0.0, total, 1.0)
        # A class without rows says nothing of its components.
        return np.maximum(np.where(total > 0.0, share, 1.0 / self.n_components), LEAST_PROBABILITY)

    def estimate_given(self, statistics: Statistics, given: Parameters) -> Parameters:
        components = self.family.estimate_given(
            statistics["components"], given.get("components", {})
        )
        return self.estimate(statistics) | given | {"components": components}

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        own = -self.weights_concentration * float(np.log(parameters["weights"]).sum())
        return own + self.family.penalty(parameters["components"], statistics["components"])

    # -- the start ---------------------------------------------------------------------------

    def initial_statistics(self, x: Array, responsibilities: Array) -> Statistics:
        """Statistics that deal every row out evenly: components alike.

        They would stay alike; :meth:`initial_parameters` tells them apart.
        """
        even = np.repeat(responsibilities / self.n_components, self.n_components, axis=1)
        return {
            "weights": even.sum(axis=0).reshape(-1, self.n_components),
            "components": self.family.initial_statistics(x, even),
        }

    def initial_parameters(
        self, x: Array, responsibilities: Array, rng: np.random.Generator
    ) -> Parameters:
        """Cluster the rows of each class by k-means, and estimate a component from each cluster.

        See :meth:`Family.initial_parameters`.
        """
        features = self.family.features(x)
        weights, components = [], []
        for k in range(responsibilities.shape[1]):
            split = self._split(features, responsibilities, k, rng)
            weights.append(split.sum(axis=0))
            components.append(self.family.initial_parameters(x, split, rng))
        return {
            "weights": self._weights(np.stack(weights)),
            "components": tree_map(lambda *leaves: np.concatenate(leaves), *components),
        }

    def _split(
        self, features: Array, responsibilities: Array, k: int, rng: np.random.Generator
    ) -> Array:
        """Split the responsibilities of class k among its components: (n, M)."""
        n_components, own = self.n_components, responsibilities[:, k]
        counted = responsibilities.sum(axis=1) > 0.0
        owned = np.flatnonzero(counted & (responsibilities.argmax(axis=1) == k))
        if len(owned) >= n_components:
            labels = kmeans(features[owned], n_components, rng, own[owned])
            hot = (labels[:, None] == np.arange(n_components)) * own[owned][:, None]
            counts = hot.sum(axis=0)
            if (counts > 0.0).all():
                centres = hot.T @ features[owned] / counts[:, None]
                # Rows that are mostly of other classes go to the nearest centre too.
                return (nearest(features, centres)[:, None] == np.arange(n_components)) * own[
                    :, None
                ]
        # Too few rows that differ: deal them out at random, and lend each component one row's
        # weight of the whole table, half of it even and half on some rows by chance (a sparse
        # Bayesian bootstrap; Rubin, Annals of Statistics 9, 1981). So components differ by a
        # part of the data's spread, and none is narrower than the data allow.
        pool = counted if counted.any() else np.ones(len(own), dtype=bool)
        chance = rng.gamma(LENT_ROWS / pool.sum(), size=(len(own), n_components)) + 1e-12
        lent = pool[:, None] * (chance / chance[pool].sum(axis=0) + 1.0 / pool.sum()) / 2.0
        return rng.dirichlet(np.ones(n_components), size=len(own)) * own[:, None] + lent

    def merge(self, old: Parameters, new: Parameters, classes: Array) -> Parameters:
        places = np.arange(len(old["weights"]) * self.n_components).reshape(-1, self.n_components)
        weights = super().merge({"weights": old["weights"]}, {"weights": new["weights"]}, classes)
        components = self.family.merge(
            old["components"], new["components"], places[classes].ravel()
        )
        return {**weights, "components": components}

    # -- everything else -----------------------------------------------------------------------

    def features(self, x: Array, *, units: bool = False) -> Array:
        return self.family.features(x, units=units)

    def sample(self, parameters: Parameters, labels: Array, random: RandomSource) -> Array:
        chosen = random.categorical(parameters["weights"][labels])
        places = labels * self.n_components + chosen
        return self.family.sample(parameters["components"], places, random)

    def draw_missing(
        self, parameters: Parameters, x: Array, labels: Array, random: RandomSource
    ) -> Array:
        shares = self._shares(parameters, x)[np.arange(len(labels)), labels]
        places = labels * self.n_components + random.categorical(shares)
        return self.family.draw_missing(parameters["components"], x, places, random)

    def expected(self, parameters: Parameters, x: Array, responsibilities: Array) -> Any:
        split = self._shares(parameters, x) * responsibilities[:, :, None]
        return self.family.expected(parameters["components"], x, split.reshape(len(split), -1))

    def settle(self, expected: Any, x: Array) -> Array:
        return self.family.settle(expected, x)

    def n_free(self, n_classes: int) -> int:
        own = n_classes * (self.n_components - 1)
        return own + self.family.n_free(n_classes * self.n_components)

    def column_log_prob(self, parameters: Parameters, x: Array) -> Array:
        if self.n_columns == 1:
            return self.log_prob(parameters, x)[:, :, None]
        return super().column_log_prob(parameters, x)

    # -- the program ---------------------------------------------------------------------------

    def draw(self, n_classes: int, plate: str, prefix: str = "") -> Parameters:
        from ppl_gen import language

        component = f"{prefix}mixture_component"
        prior = np.full(self.n_components, 1.0 + self.weights_concentration)
        with language.plate(plate, n_classes):
            weights = language.sample(
                f"{prefix}mixture_weights", language.dist.Dirichlet(prior), dims=(component,)
            )
            drawn = self.family.draw(self.n_components, component, prefix)

        # The plate of the components lies left of that of the classes: (M, K, ...).
        def joined(leaf: Array) -> Array:
            xp = array_namespace(leaf)
            order = (1, 0, *range(2, leaf.ndim))
            return xp.reshape(xp.permute_dims(leaf, order), (-1, *leaf.shape[2:]))

        return {"weights": weights, "components": tree_map(joined, drawn)}

    def sites(self, parameters: Parameters, prefix: str = "") -> dict[str, Array]:
        weights = parameters["weights"]
        axis = weights.ndim - 2  # of the classes, after those of draws

        def parted(site: Array) -> Array:
            shape = (*weights.shape, *site.shape[axis + 1 :])
            return np.swapaxes(site.reshape(shape), axis, axis + 1)

        base = self.family.sites(parameters["components"], prefix)
        return {f"{prefix}mixture_weights": weights, **tree_map(parted, base)}

    def parameters(self, sites: dict[str, Array], prefix: str = "") -> Parameters:
        weights = sites[f"{prefix}mixture_weights"]
        axis = weights.ndim - 2
        lead = (*weights.shape[:axis], weights.shape[axis] * weights.shape[axis + 1])

        def joined(leaf: Array) -> Array:
            swapped = np.swapaxes(leaf, axis, axis + 1)
            return swapped.reshape((*lead, *leaf.shape[axis + 2 :]))

        own = self.family.parameters(sites, prefix)
        return {"weights": weights, "components": tree_map(joined, own)}

    def coords(self, names: list[Any], prefix: str = "") -> dict[str, list[Any]]:
        return self.family.coords(names, prefix)

    def rotatable(self, prefix: str = "") -> tuple[str, ...]:
        return self.family.rotatable(prefix)


#: Rows that share most of the weight that a component of a class without rows is lent by chance.
LENT_ROWS = 5.0


def _refuse_parts(family: Family) -> None:
    """Raise ValueError for components that a mixture within classes cannot have."""
    if isinstance(family, MixtureFamily):
        raise ValueError(
            "MixtureFamily: the components are mixtures themselves, which is one mixture of more "
            "components; give n_components their product"
        )
    for _, part, _ in getattr(family, "parts", ()):
        _refuse_parts(part)
    if getattr(family, "covariance_type", None) == "tied":
        raise ValueError(
            "MixtureFamily: covariance_type='tied' would share one covariance among the components "
            "of all classes; use 'full', 'diag' or 'spherical'"
        )
