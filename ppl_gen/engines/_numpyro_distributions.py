"""Our own distributions as NumPyro distributions."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as nd
from jax import lax
from numpyro.distributions import constraints

from ppl_gen.engines.base import RandomSource
from ppl_gen.engines.jax_arrays import JaxRandom
from ppl_gen.engines.jax_arrays import ops as jax_ops
from ppl_gen.engines.marginal import (
    FamilyRules,
    MixtureRules,
    OrderedRules,
    check_ordered,
    stacked_shape,
)


class _Row(constraints.Constraint):  # type: ignore[misc]
    """Any row, NaN included: NaN marks what is missing."""

    event_dim = 1

    def __call__(self, x: Any) -> Any:
        return jnp.ones(jnp.shape(x)[:-1], dtype=bool)

    def feasible_like(self, prototype: Any) -> Any:
        return jnp.zeros_like(prototype)

    def tree_flatten(self) -> Any:
        return (), ((), {})


_ROW = _Row()


class Mixture(MixtureRules, nd.Distribution):  # type: ignore[misc]
    __doc__ = MixtureRules.__doc__
    arg_constraints: ClassVar[dict[str, Any]] = {"weights": constraints.simplex}
    pytree_data_fields = ("weights", "components")
    pytree_aux_fields = ("latent",)
    ops = jax_ops

    def __init__(
        self, weights: Any, components: Any, latent: str = "z", *, validate_args: bool | None = None
    ) -> None:
        self.weights, self.components, self.latent = weights, components, latent
        batch = lax.broadcast_shapes(jnp.shape(weights)[:-1], components.batch_shape[:-1])
        super().__init__(batch, components.event_shape, validate_args=validate_args)

    @constraints.dependent_property  # type: ignore[untyped-decorator]
    def support(self) -> Any:
        return self.components.support

    def expand(self, batch_shape: tuple[int, ...]) -> Mixture:
        new = type(self)(self.weights, self.components, self.latent)
        new._batch_shape = tuple(batch_shape)
        return new

    def draw_components(self, random: RandomSource, batch: tuple[int, ...]) -> Any:
        expanded = self.components.expand(batch)
        return expanded.sample(random.key())  # type: ignore[attr-defined]

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.draw(JaxRandom(key), sample_shape)


class Family(FamilyRules, nd.Distribution):  # type: ignore[misc]
    __doc__ = FamilyRules.__doc__
    arg_constraints: ClassVar[dict[str, Any]] = {}
    pytree_data_fields = ("parameters", "labels")
    pytree_aux_fields = ("family",)
    support = _ROW
    ops = jax_ops

    def __init__(
        self,
        family: Any,
        parameters: Any,
        labels: Any = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.family, self.parameters, self.labels = family, parameters, labels
        batch = (self.class_count(),) if labels is None else jnp.shape(labels)
        super().__init__(batch, (family.n_columns,), validate_args=validate_args)

    def expand(self, batch_shape: tuple[int, ...]) -> Family:
        new = type(self)(self.family, self.parameters, self.labels)
        new._batch_shape = tuple(batch_shape)
        return new

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.draw(JaxRandom(key), sample_shape)


class Ordered(OrderedRules, nd.Distribution):  # type: ignore[misc]
    __doc__ = OrderedRules.__doc__
    arg_constraints: ClassVar[dict[str, Any]] = {}
    pytree_data_fields = ("base",)
    pytree_aux_fields = ("size", "positive", "improper")
    ops = jax_ops

    def __init__(
        self,
        base: Any,
        size: int | None = None,
        positive: bool = False,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.base, self.positive = base, positive
        self.size = check_ordered(base, size)
        self.improper = positive or bool(base.batch_shape)
        super().__init__((), (self.size,), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)  # type: ignore[untyped-decorator]
    def support(self) -> Any:
        return constraints.positive_ordered_vector if self.positive else constraints.ordered_vector

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        draws = self.base.expand((self.size,)).sample(key, sample_shape)
        return jnp.sort(jnp.abs(draws) if self.positive else draws, axis=-1)


class Flat(nd.ImproperUniform):  # type: ignore[misc]
    """Density one over the reals: improper; draws, uniform in (-2, 2), are starting points only.

    Parameters
    ----------
    size : int, optional
        Length of the vector; a scalar by default.
    """

    improper = True

    def __init__(self, size: int | None = None, *, validate_args: bool | None = None) -> None:
        shape = () if size is None else (int(size),)
        support = constraints.real if size is None else constraints.real_vector
        super().__init__(support, (), shape, validate_args=validate_args)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        shape = stacked_shape(sample_shape, self.batch_shape, self.event_shape)
        return jax.random.uniform(key, shape, minval=-2.0, maxval=2.0)


DISTRIBUTIONS = {"Mixture": Mixture, "Family": Family, "Ordered": Ordered, "Flat": Flat}
