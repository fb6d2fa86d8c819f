"""What every flow's transform is: Pyro's, with value and log-determinant in one pass."""

import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from pyro.distributions import TransformModule
from pyro.distributions.conditional import ConditionalTransform
from torch import Size, Tensor, nn
from torch.distributions import Transform, constraints

__all__ = ["FlowTransform", "Inverted", "Stack", "inverse_and_log_det", "with_batch"]


class _Pass(NamedTuple):
    """One pass through a transform, for the log-determinant that is asked for next."""

    given: Tensor
    made: "weakref.ref[Tensor]"  # weakly: nothing shall outlive the caller's use of it
    inverse: bool
    log_det: Tensor  # log |det dx/dz|
    stamp: tuple[Any, ...]


class _OnePass(Transform):
    """A Pyro transform z -> x made of a function that gives value and log-determinant at once.

    Pyro asks for the value first, and for the log-determinant of the same two tensors next. The
    second answer is kept for that question alone: it is given once, for the very tensors it was
    found with, and only while neither they nor a weight has changed. torch's own cache knows
    nothing of weights, and is not used.
    """

    bijective = True
    sign = +1
    domain: Any = constraints.real_vector
    codomain: Any = constraints.real_vector
    _pass: _Pass | None = None

    def _both(self, given: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        raise NotImplementedError  # pragma: no cover

    def _weights(self) -> Iterable[Tensor]:
        raise NotImplementedError  # pragma: no cover

    @property
    def slow_inverse(self) -> bool:
        """Whether x -> z takes a pass a variable, so that z of a draw is kept with the draw."""
        raise NotImplementedError  # pragma: no cover

    def _call(self, z: Tensor) -> Tensor:
        return self._run(z, inverse=False)

    def _inverse(self, x: Tensor) -> Tensor:
        kept = self._pass
        if self.slow_inverse and kept and not kept.inverse and self._holds(kept, kept.given, x):
            return kept.given
        return self._run(x, inverse=True)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log |det dy/dx| of noise x (..., D) and of the data y that it is taken to: (...)."""
        kept, self._pass = self._pass, None
        if kept and self._holds(kept, x, y):
            return kept.log_det
        return self._both(x, False)[1] if self.slow_inverse else -self._both(y, True)[1]

    def with_cache(self, cache_size: int = 1) -> "_OnePass":
        """Return the transform itself: it keeps what is safe to keep."""
        return self

    def _run(self, given: Tensor, inverse: bool) -> Tensor:
        made, log_det = self._both(given, inverse)
        log_det = -log_det if inverse else log_det
        stamp = self._stamp(given, made)
        # What cannot be told to be unchanged is not kept.
        kept = _Pass(given, weakref.ref(made), inverse, log_det, stamp) if stamp else None
        self._pass = kept
        return made

    def _holds(self, kept: _Pass, z: Tensor, x: Tensor) -> bool:
        given, made = (x, z) if kept.inverse else (z, x)
        same = kept.given is given and kept.made() is made
        return same and kept.stamp == self._stamp(given, made)

    def _stamp(self, *tensors: Tensor) -> tuple[Any, ...] | None:
        """Count the changes of tensors and weights; what was found without gradients has none."""
        try:
            versions = [tensor._version for tensor in tensors]
            weights = [(weight.data_ptr(), weight._version) for weight in self._weights()]
        except RuntimeError:  # those of inference mode and within torch.func count no changes
            return None
        return (torch.is_grad_enabled(), *versions, *weights)


class FlowTransform(_OnePass, ConditionalTransform, TransformModule):  # type: ignore[misc]
    """An invertible network z -> x over vectors: a Pyro `TransformModule`.

    ``TransformedDistribution(base, [transform])`` takes it in any Pyro program, and
    ``TransformedDistribution(base, [transform.condition(context)])`` where it has a context, whose
    rows are then the distribution's batch. A kind of transform writes
    :meth:`forward_and_log_det` and :meth:`inverse_and_log_det`.

    Parameters
    ----------
    width : int
        Variables D of a vector.
    context_width : int
        Entries C of the context it is conditional on; 0 for none.
    """

    def __init__(self, width: int, context_width: int = 0) -> None:
        super().__init__()
        self.width, self.context_width = width, context_width

    def forward_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take z (..., D) to x (..., D), with log |det dx/dz| (...)."""
        raise NotImplementedError  # pragma: no cover

    def inverse_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take x (..., D) to z (..., D), with log |det dz/dx| (...): the way of densities."""
        raise NotImplementedError  # pragma: no cover

    def condition(self, context: Tensor) -> Transform:
        """Return the transform given a context (..., C); itself where it takes no context."""
        return _Conditioned(self, context) if self.context_width else self

    @property
    def slow_inverse(self) -> bool:
        """Whether x -> z takes a pass through the network for each variable."""
        return False

    @property
    def slow_forward(self) -> bool:
        """Whether z -> x takes a pass through the network for each variable."""
        return False

    def _both(self, given: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        if self.context_width:
            raise ValueError(
                f"{type(self).__name__}: a transform with a context of {self.context_width} was "
                "used without one; expected transform.condition(context)"
            )
        return self.inverse_and_log_det(given) if inverse else self.forward_and_log_det(given)

    def _weights(self) -> Iterable[Tensor]:
        yield from self.parameters()
        yield from self.buffers()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to copy: without what was kept of the last pass."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        state.pop("_pass", None)
        return state

    def __repr__(self) -> str:
        return nn.Module.__repr__(self)


class _Conditioned(_OnePass):
    """A transform of one context: what `FlowTransform.condition` returns."""

    def __init__(self, transform: FlowTransform, context: Tensor) -> None:
        if context.shape[-1:] != (transform.context_width,):
            raise ValueError(
                f"{type(transform).__name__}.condition: context has shape {tuple(context.shape)}; "
                f"expected (..., {transform.context_width})"
            )
        super().__init__()
        self.transform, self.context = transform, context

    @property
    def slow_inverse(self) -> bool:
        return self.transform.slow_inverse

    def _both(self, given: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        if inverse:
            return self.transform.inverse_and_log_det(given, self.context)
        return self.transform.forward_and_log_det(given, self.context)

    def _weights(self) -> Iterable[Tensor]:
        yield self.context
        yield from self.transform._weights()

    def forward_shape(self, shape: Size) -> Size:
        """Shape of x, for z of a shape: batches are those of the context."""
        return with_batch(shape, self.context)

    inverse_shape = forward_shape


def with_batch(shape: Size, context: Tensor | None) -> Size:
    """Shape (..., D) of rows, broadcast with the batch of their context (..., C)."""
    if context is None:
        return shape
    return torch.Size(
        torch.broadcast_shapes(shape, (*context.shape[:-1], 1))  # type: ignore[no-untyped-call]
    )


def inverse_and_log_det(transform: Transform, x: Tensor) -> tuple[Tensor, Tensor]:
    """Take x to z by any transform z -> x of Pyro, with log |det dz/dx|."""
    if isinstance(transform, _OnePass):
        return transform._both(x, inverse=True)
    z = transform.inv(x)
    return z, -transform.log_abs_det_jacobian(z, x)  # type: ignore[no-untyped-call]


class Inverted(FlowTransform):
    """A transform turned round: its inverse is the way z -> x.

    Parameters
    ----------
    transform : FlowTransform

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.transforms import Inverted, LULinear
    >>> linear = LULinear(3)
    >>> z = torch.randn(2, 3)
    >>> torch.allclose(Inverted(linear)(linear(z)), z, atol=1e-5)
    True
    """

    def __init__(self, transform: FlowTransform) -> None:
        super().__init__(transform.width, transform.context_width)
        self.transform = transform

    @property
    def slow_inverse(self) -> bool:
        """Whether x -> z takes a pass a variable: what is slow forwards, turned round."""
        return self.transform.slow_forward

    @property
    def slow_forward(self) -> bool:
        """Whether z -> x takes a pass a variable."""
        return self.transform.slow_inverse

    def forward_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take z to x by the inverse of the transform."""
        return self.transform.inverse_and_log_det(z, context)

    def inverse_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take x to z by the transform."""
        return self.transform.forward_and_log_det(x, context)


class Stack(FlowTransform):
    """Transforms one after the other: the first takes z, the last gives x.

    Parameters
    ----------
    transforms : sequence of FlowTransform
        Of one width; those that take no context are passed none.

    Raises
    ------
    ValueError
        If there is none, or their widths or contexts differ.

    Examples
    --------
    >>> import torch
    >>> from pyro import distributions as dist
    >>> from ppl_gen.neural.transforms import LULinear, Permutation, Stack
    >>> stack = Stack([LULinear(2), Permutation(torch.tensor([1, 0]))])
    >>> normal = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    >>> dist.TransformedDistribution(normal, [stack]).log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    transforms: Any  # the ModuleList of them

    def __init__(self, transforms: Sequence[FlowTransform]) -> None:
        widths = {transform.width for transform in transforms}
        contexts = {transform.context_width for transform in transforms} - {0}
        if len(widths) != 1 or len(contexts) > 1:
            raise ValueError(
                f"Stack: widths {sorted(widths)} and contexts {sorted(contexts)}; expected "
                "transforms of one width, and of one context where they have any"
            )
        super().__init__(widths.pop(), contexts.pop() if contexts else 0)
        self.transforms = nn.ModuleList(transforms)

    @property
    def slow_inverse(self) -> bool:
        """Whether x -> z takes a pass a variable in any of them."""
        return any(transform.slow_inverse for transform in self.transforms)

    @property
    def slow_forward(self) -> bool:
        """Whether z -> x takes a pass a variable in any of them."""
        return any(transform.slow_forward for transform in self.transforms)

    def forward_and_log_det(
        self, z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take z through all, the first first; log-determinants add."""
        total = z.new_zeros(z.shape[:-1])
        for transform in self.transforms:
            z, log_det = transform.forward_and_log_det(z, context)
            total = total + log_det
        return z, total

    def inverse_and_log_det(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take x through the inverses, the last first; log-determinants add."""
        total = x.new_zeros(x.shape[:-1])
        for transform in reversed(self.transforms):
            x, log_det = transform.inverse_and_log_det(x, context)
            total = total + log_det
        return x, total
