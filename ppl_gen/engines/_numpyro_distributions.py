"""Our own distributions as NumPyro distributions."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as nd
from jax import lax
from numpyro.distributions import constraints
from numpyro.util import not_jax_tracer

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
from ppl_gen.engines.marginal_chain import HiddenMarkovRules, check_chain
from ppl_gen.engines.marginal_network import BayesNetRules, check_network, check_tables


class _Holed(constraints.Constraint):  # type: ignore[misc]
    """Any value, NaN included: NaN marks what is missing."""

    def __init__(self, event_dim: int, is_discrete: bool = False) -> None:
        self._event_dim, self._is_discrete = event_dim, is_discrete

    @property
    def event_dim(self) -> int:
        return self._event_dim

    @property
    def is_discrete(self) -> bool:
        return self._is_discrete

    def __call__(self, x: Any) -> Any:
        return jnp.ones(jnp.shape(x)[: jnp.ndim(x) - self._event_dim], dtype=bool)

    def feasible_like(self, prototype: Any) -> Any:
        return jnp.zeros_like(prototype)

    def tree_flatten(self) -> Any:
        return (), ((), {"_event_dim": self._event_dim, "_is_discrete": self._is_discrete})


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


class HiddenMarkov(HiddenMarkovRules, nd.Distribution):  # type: ignore[misc]
    __doc__ = HiddenMarkovRules.__doc__
    arg_constraints: ClassVar[dict[str, Any]] = {
        "start": constraints.simplex,
        "transition": constraints.independent(constraints.simplex, 1),
    }
    pytree_data_fields = ("start", "transition", "emissions")
    pytree_aux_fields = ("length", "latent")
    ops = jax_ops

    def __init__(
        self,
        start: Any,
        transition: Any,
        emissions: Any,
        length: int,
        latent: str = "z",
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.start, self.transition, self.emissions = start, transition, emissions
        self.length, self.latent = check_chain(start, transition, emissions, length), latent
        batch = lax.broadcast_shapes(
            jnp.shape(start)[:-1], jnp.shape(transition)[:-2], emissions.batch_shape[:-1]
        )
        event = (self.length, *emissions.event_shape)
        super().__init__(batch, event, validate_args=validate_args)

    @constraints.dependent_property  # type: ignore[untyped-decorator]
    def support(self) -> Any:
        return _Holed(len(self.event_shape), self.emissions.support.is_discrete)

    def expand(self, batch_shape: tuple[int, ...]) -> HiddenMarkov:
        parts = (self.start, self.transition, self.emissions, self.length, self.latent)
        new = type(self)(*parts)
        new._batch_shape = tuple(batch_shape)
        return new

    def in_parallel(self, shape: Any) -> bool:
        # A step of XLA's loop takes a microsecond: the tree's extra work costs more than it saves.
        return False

    def completed(self, steps: Any, unknown: Any) -> Any:
        support = self.emissions.support
        steps = jnp.where(unknown, support.feasible_like(steps), steps)
        # With NaN in them, codes come as floats, which NumPyro does not index by.
        return steps.astype(jnp.result_type(int)) if support.is_discrete else steps

    def draw_components(self, random: RandomSource, batch: tuple[int, ...]) -> Any:
        expanded = self.emissions.expand(batch)
        return expanded.sample(random.key())  # type: ignore[attr-defined]

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.draw(JaxRandom(key), sample_shape)


class BayesNet(BayesNetRules, nd.Distribution):  # type: ignore[misc]
    __doc__ = BayesNetRules.__doc__
    arg_constraints: ClassVar[dict[str, Any]] = {}
    pytree_data_fields = ("tables",)
    pytree_aux_fields = ("parents", "hidden", "latent_node", "latent")
    support = _Holed(1, is_discrete=True)
    ops = jax_ops

    def __init__(
        self,
        parents: Any,
        tables: Any,
        hidden: Any = (),
        latent_node: int | None = None,
        latent: str = "z",
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.parents, self.hidden = check_network(parents, tables, hidden, latent_node)
        self.tables, self.latent_node = tuple(tables), latent_node
        self.latent = None if latent_node is None else latent
        super().__init__((), (len(self.parents),), validate_args=validate_args)

    def validate_args(self, strict: bool = True) -> None:
        with jax.ensure_compile_time_eval():
            valid = self.valid_tables()
        if not_jax_tracer(valid):
            check_tables(valid)

    def expand(self, batch_shape: tuple[int, ...]) -> BayesNet:
        new = copy.copy(self)
        new._batch_shape = tuple(batch_shape)
        return new

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.draw(JaxRandom(key), sample_shape)


class Family(FamilyRules, nd.Distribution):  # type: ignore[misc]
    __doc__ = FamilyRules.__doc__
    arg_constraints: ClassVar[dict[str, Any]] = {}
    pytree_data_fields = ("parameters", "labels")
    pytree_aux_fields = ("family",)
    support = _Holed(1)
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


DISTRIBUTIONS = {
    "Mixture": Mixture,
    "HiddenMarkov": HiddenMarkov,
    "BayesNet": BayesNet,
    "Family": Family,
    "Ordered": Ordered,
    "Flat": Flat,
}
