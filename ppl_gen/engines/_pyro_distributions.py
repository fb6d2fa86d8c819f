"""Our own distributions as Pyro distributions."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import pyro.distributions as pd
import torch
from pyro.distributions import constraints
from torch.distributions import transform_to

from ppl_gen.engines.base import RandomSource
from ppl_gen.engines.marginal import (
    FamilyRules,
    MixtureRules,
    OrderedRules,
    check_ordered,
    stacked_shape,
)
from ppl_gen.engines.marginal_chain import HiddenMarkovRules, check_chain
from ppl_gen.engines.marginal_network import BayesNetRules, check_network, check_tables
from ppl_gen.engines.torch_arrays import TorchRandom, precision
from ppl_gen.engines.torch_arrays import ops as torch_ops

_SCALAR = torch.Size()


class _Holed(constraints.Constraint):  # type: ignore[misc]
    """Any value, NaN included: NaN marks what is missing."""

    def __init__(self, event_dim: int, is_discrete: bool = False) -> None:
        self._event_dim, self._is_discrete = event_dim, is_discrete
        super().__init__()

    @property
    def event_dim(self) -> int:
        return self._event_dim

    @property
    def is_discrete(self) -> bool:
        return self._is_discrete

    def check(self, value: torch.Tensor) -> torch.Tensor:
        shape = value.shape[: value.ndim - self._event_dim]
        return torch.ones(shape, dtype=torch.bool, device=value.device)


def _feasible_like(support: Any, like: torch.Tensor) -> torch.Tensor:
    """Return values of a support, of the shape of `like`."""
    if isinstance(support, constraints.independent):
        return _feasible_like(support.base_constraint, like)
    if support.is_discrete:
        lowest = getattr(support, "lower_bound", 0)
        return torch.zeros_like(like) + torch_ops.asarray(lowest).to(like)
    transform = transform_to(support)
    free = transform.inverse_shape(like.shape)
    return transform(like.new_zeros(free)).expand(like.shape)  # type: ignore[no-any-return]


class Mixture(MixtureRules, pd.TorchDistribution):  # type: ignore[misc]
    __doc__ = MixtureRules.__doc__
    arg_constraints: ClassVar[dict[str, Any]] = {"weights": constraints.simplex}
    ops = torch_ops

    def __init__(
        self, weights: Any, components: Any, latent: str = "z", validate_args: bool | None = None
    ) -> None:
        self.weights, self.components, self.latent = weights, components, latent
        batch = torch_ops.broadcast_shapes(weights.shape[:-1], components.batch_shape[:-1])
        super().__init__(batch, components.event_shape, validate_args=validate_args)

    @constraints.dependent_property  # type: ignore[untyped-decorator]
    def support(self) -> Any:
        return self.components.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> Mixture:
        new = type(self)(self.weights, self.components, self.latent, validate_args=False)
        new._batch_shape = torch.Size(batch_shape)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: torch.Tensor) -> Any:
        if self._validate_args:
            self._validate_sample(value)
        return super().log_prob(value)

    def draw_components(self, random: RandomSource, batch: tuple[int, ...]) -> Any:
        return self.components.expand(batch).sample()

    def sample(self, sample_shape: Any = _SCALAR) -> Any:
        with torch.no_grad():
            return self.draw(TorchRandom(), sample_shape)


class HiddenMarkov(HiddenMarkovRules, pd.TorchDistribution):  # type: ignore[misc]
    __doc__ = HiddenMarkovRules.__doc__
    arg_constraints: ClassVar[dict[str, Any]] = {
        "start": constraints.simplex,
        "transition": constraints.independent(constraints.simplex, 1),
    }
    ops = torch_ops

    def __init__(
        self,
        start: Any,
        transition: Any,
        emissions: Any,
        length: int,
        latent: str = "z",
        validate_args: bool | None = None,
    ) -> None:
        self.start, self.transition, self.emissions = start, transition, emissions
        self.length, self.latent = check_chain(start, transition, emissions, length), latent
        batch = torch_ops.broadcast_shapes(
            start.shape[:-1], transition.shape[:-2], emissions.batch_shape[:-1]
        )
        event = torch.Size((self.length, *emissions.event_shape))
        super().__init__(batch, event, validate_args=validate_args)

    @constraints.dependent_property  # type: ignore[untyped-decorator]
    def support(self) -> Any:
        return _Holed(len(self.event_shape), self.emissions.support.is_discrete)

    def expand(self, batch_shape: Any, _instance: Any = None) -> HiddenMarkov:
        parts = (self.start, self.transition, self.emissions, self.length, self.latent)
        new = type(self)(*parts, validate_args=False)
        new._batch_shape = torch.Size(batch_shape)
        new._validate_args = self._validate_args
        return new

    def in_parallel(self, shape: Any) -> bool:
        # Python's loop is slow: measured, a step of it costs as much as 5,000 terms of a product.
        *batch, _, states = (int(size) for size in shape)
        return math.prod(batch) * states**3 <= 5000

    def completed(self, steps: torch.Tensor, unknown: torch.Tensor) -> torch.Tensor:
        return torch.where(unknown, _feasible_like(self.emissions.support, steps), steps)

    def draw_components(self, random: RandomSource, batch: tuple[int, ...]) -> Any:
        return self.emissions.expand(batch).sample()

    def sample(self, sample_shape: Any = _SCALAR) -> Any:
        with torch.no_grad():
            return self.draw(TorchRandom(), sample_shape)


class BayesNet(BayesNetRules, pd.TorchDistribution):  # type: ignore[misc]
    __doc__ = BayesNetRules.__doc__
    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = _Holed(1, is_discrete=True)
    ops = torch_ops

    def __init__(
        self,
        parents: Any,
        tables: Any,
        hidden: Any = (),
        latent_node: int | None = None,
        latent: str = "z",
        validate_args: bool | None = None,
    ) -> None:
        self.parents, self.hidden = check_network(parents, tables, hidden, latent_node)
        self.tables, self.latent_node = tuple(tables), latent_node
        self.latent = None if latent_node is None else latent
        event = torch.Size((len(self.parents),))
        super().__init__(_SCALAR, event, validate_args=validate_args)
        if self._validate_args:
            check_tables(self.valid_tables())

    def expand(self, batch_shape: Any, _instance: Any = None) -> BayesNet:
        new = copy.copy(self)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def sample(self, sample_shape: Any = _SCALAR) -> Any:
        with torch.no_grad():
            return self.draw(TorchRandom(), sample_shape)


class Family(FamilyRules, pd.TorchDistribution):  # type: ignore[misc]
    __doc__ = FamilyRules.__doc__
    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = _Holed(1)
    ops = torch_ops

    def __init__(
        self, family: Any, parameters: Any, labels: Any = None, validate_args: bool | None = None
    ) -> None:
        self.family, self.parameters, self.labels = family, parameters, labels
        batch = torch.Size((self.class_count(),)) if labels is None else labels.shape
        super().__init__(batch, torch.Size((family.n_columns,)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Family:
        new = type(self)(self.family, self.parameters, self.labels)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def sample(self, sample_shape: Any = _SCALAR) -> Any:
        with torch.no_grad():
            return self.draw(TorchRandom(), sample_shape)


class Ordered(OrderedRules, pd.TorchDistribution):  # type: ignore[misc]
    __doc__ = OrderedRules.__doc__
    arg_constraints: ClassVar[dict[str, Any]] = {}
    ops = torch_ops

    def __init__(
        self,
        base: Any,
        size: int | None = None,
        positive: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        self.base, self.positive = base, positive
        self.size = check_ordered(base, size)
        self.improper = positive or bool(base.batch_shape)
        super().__init__(_SCALAR, torch.Size((self.size,)), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)  # type: ignore[untyped-decorator]
    def support(self) -> Any:
        return constraints.positive_ordered_vector if self.positive else constraints.ordered_vector

    def sample(self, sample_shape: Any = _SCALAR) -> Any:
        draws = self.base.expand((self.size,)).sample(sample_shape)
        return (draws.abs() if self.positive else draws).sort(-1).values


class ImproperUniform(pd.ImproperUniform):  # type: ignore[misc]
    """Pyro's, with a density in the dtype and on the device of the value."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, _instance or self.__new__(type(self)))

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        batch = value.shape[: value.ndim - len(self.event_shape)]
        return value.new_zeros(torch_ops.broadcast_shapes(batch, self.batch_shape))


class Flat(ImproperUniform):
    """Density one over the reals: improper; draws, uniform in (-2, 2), are starting points only.

    Parameters
    ----------
    size : int, optional
        Length of the vector; a scalar by default.
    """

    improper = True

    def __init__(self, size: int | None = None, validate_args: bool | None = None) -> None:
        shape = () if size is None else (int(size),)
        support = constraints.real if size is None else constraints.real_vector
        super().__init__(support, _SCALAR, torch.Size(shape))

    def sample(self, sample_shape: Any = _SCALAR) -> torch.Tensor:
        shape, to = stacked_shape(sample_shape, self.batch_shape, self.event_shape), precision()
        draws = torch.rand(shape, dtype=getattr(torch, to.dtype), device=to.device)
        return 4.0 * draws - 2.0


class Wishart(pd.Wishart):  # type: ignore[misc]
    """torch's, with the draws taken as they come.

    torch 2.13 looks for singular draws with the sign of its check turned round: it warns of
    every good draw, and replaces it.
    """

    def rsample(self, sample_shape: Any = _SCALAR) -> torch.Tensor:
        draws: torch.Tensor = self._bartlett_sampling(torch.Size(sample_shape))
        return draws


DISTRIBUTIONS = {
    "Mixture": Mixture,
    "HiddenMarkov": HiddenMarkov,
    "BayesNet": BayesNet,
    "Family": Family,
    "Ordered": Ordered,
    "Flat": Flat,
    "ImproperUniform": ImproperUniform,
    "Wishart": Wishart,
}
