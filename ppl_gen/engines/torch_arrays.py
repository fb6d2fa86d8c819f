"""Torch tensors in the spelling that programs use: `ops` and random numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from ppl_gen.engines.base import Precision, active_precision

#: Functions of the Array API whose dtype and device are the precision's unless said otherwise.
_CREATION = frozenset(["empty", "eye", "full", "linspace", "ones", "zeros"])
_ELEMENTWISE_NAMES = """
abs acos acosh add asin asinh atan atan2 atanh clip cos cosh divide equal exp expm1 greater
greater_equal hypot less less_equal log log10 log1p log2 logaddexp maximum minimum multiply
negative not_equal pow remainder sigmoid sign sin sinh softplus sqrt square subtract tan tanh
gammaln digamma i0e where
"""
#: Functions whose integer arguments are numbers, not axes or sizes.
_ELEMENTWISE = frozenset(_ELEMENTWISE_NAMES.split())

#: Functions that say their dtype themselves.
_CASTS = frozenset(["bfloat16", "float", "half", "to", "type", "view"])


def precision() -> Precision:
    """Return the precision we are in: float64 on the CPU where none was entered."""
    return active_precision.get() or Precision()


def asarray(x: Any) -> torch.Tensor:
    """Convert to a tensor: floats in the dtype of the precision, ints kept, on its device."""
    to = precision()
    dtype = getattr(torch, to.dtype)
    if not isinstance(x, torch.Tensor):
        array = np.asarray(x)
        if array.dtype.kind == "u" and array.dtype != np.uint8:
            array = array.astype(np.int64)
        # A copy where needed: torch warns of read-only memory, and strides may be negative.
        x = torch.from_numpy(np.require(array, requirements=["C", "W"]).reshape(array.shape))
    tensor: torch.Tensor = x
    return tensor.to(device=to.device, dtype=dtype if tensor.is_floating_point() else None)


def to_numpy(x: Any) -> NDArray[Any]:
    """Convert to plain NumPy."""
    return x.detach().cpu().numpy().copy() if isinstance(x, torch.Tensor) else np.array(x)


class Promotion(TorchFunctionMode):
    """Let integers meet Python's floats in the dtype of the precision.

    Torch computes ``0.1 * categories`` in its default dtype, so that 0.1 is a float32 by then.
    This mode belongs to the thread, unlike the default dtype.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation; where it made float32 of integers alone, run it on floats."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if (
            not isinstance(out, torch.Tensor)
            or out.dtype is self.dtype
            or not out.dtype.is_floating_point
            or kwargs.get("dtype") is not None
            or getattr(func, "__name__", "") in _CASTS
        ):
            return out
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        if not tensors or any(t.dtype.is_floating_point or t.dtype.is_complex for t in tensors):
            return out
        return func(
            *(self._widen(value) for value in args),
            **{key: self._widen(value) for key, value in kwargs.items()},
        )

    def _widen(self, value: Any) -> Any:
        return value.to(self.dtype) if isinstance(value, torch.Tensor) else value


class TorchRandom:
    """`RandomSource` over a torch generator; over torch's own where there is no seed."""

    def __init__(self, seed: int | None = None) -> None:
        self.generator: torch.Generator | None = None
        if seed is not None:
            self.generator = torch.Generator(device=precision().device)
            self.generator.manual_seed(seed)

    def _kind(self) -> dict[str, Any]:
        to = precision()
        return {"dtype": getattr(torch, to.dtype), "device": to.device}

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return standard normal draws of this shape."""
        return torch.randn(tuple(shape), generator=self.generator, **self._kind())

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return draws from [0, 1) of this shape."""
        return torch.rand(tuple(shape), generator=self.generator, **self._kind())

    def gamma(self, concentration: Any) -> torch.Tensor:
        """Return draws of unit rate, one for each concentration."""
        return torch._standard_gamma(asarray(concentration), generator=self.generator)

    def poisson(self, rate: Any) -> torch.Tensor:
        """Return counts, one for each rate."""
        return torch.poisson(asarray(rate), generator=self.generator)

    def categorical(self, probs: Any) -> torch.Tensor:
        """Return integers of shape ``probs.shape[:-1]``; the last axis holds probabilities."""
        cumulative = torch.cumsum(asarray(probs), -1)
        height = self.uniform(tuple(cumulative.shape[:-1])).unsqueeze(-1) * cumulative[..., -1:]
        return (height >= cumulative[..., :-1]).sum(-1)

    def multinomial(self, n: Any, probs: Any) -> torch.Tensor:
        """Return counts of the shape of `probs` that sum to `n` over the last axis."""
        probs = asarray(probs)
        left = asarray(n).to(probs.dtype).expand(probs.shape[:-1]).clone()
        # The chance of a category among those still to come.
        rest = probs.flip(-1).cumsum(-1).flip(-1)
        chance = torch.where(rest > 0, probs / rest.clamp_min(1e-300), 0.0).clamp(0.0, 1.0)
        counts = []
        for category in range(probs.shape[-1] - 1):
            counts.append(torch.binomial(left, chance[..., category], generator=self.generator))
            left = left - counts[-1]
        return torch.stack([*counts, left], -1).long()


def tree_map(f: Callable[..., Any], *trees: Any) -> Any:
    """Map over tensors in nested tuples, lists and dicts; None stays."""
    first = trees[0]
    if isinstance(first, dict):
        return {key: tree_map(f, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, (tuple, list)):
        parts = [tree_map(f, *items) for items in zip(*trees, strict=True)]
        if hasattr(first, "_fields"):
            return type(first)(*parts)
        return type(first)(parts)
    return None if first is None else f(*trees)


def scan(f: Any, init: Any, xs: Any = None, length: int | None = None) -> Any:
    """Carry a state along the first axis: ``f(carry, x) -> (carry, y)``; see `jax.lax.scan`."""
    xs = tree_map(asarray, xs)
    if length is None:
        leaf = xs
        while not isinstance(leaf, torch.Tensor):
            leaf = next(iter(leaf.values() if isinstance(leaf, dict) else leaf))
        length = len(leaf)
    carry, outputs = tree_map(asarray, init), []
    for step in range(length):
        carry, y = f(carry, tree_map(lambda x, step=step: x[step], xs))
        outputs.append(y)
    return carry, tree_map(lambda *ys: torch.stack(ys), *outputs)


def solve_triangular(
    a: torch.Tensor, b: torch.Tensor, trans: int = 0, lower: bool = False
) -> torch.Tensor:
    """Solve ``a x = b`` (or ``a.T x = b`` with ``trans=1``) for triangular `a`."""
    if trans:
        a, lower = a.mT, not lower
    if b.ndim == a.ndim - 1:
        return torch.linalg.solve_triangular(a, b.unsqueeze(-1), upper=not lower)[..., 0]  # type: ignore[no-any-return]
    return torch.linalg.solve_triangular(a, b, upper=not lower)  # type: ignore[no-any-return]


def logsumexp(x: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
    """Return ``log(sum(exp(x)))``, over all axes by default."""
    if axis is None:
        axis = tuple(range(x.ndim))
    return torch.logsumexp(x, axis, keepdim=keepdims)


def softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Return ``exp(x)`` normalised along an axis."""
    return torch.softmax(x, axis)


def log_softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Return the logarithm of `softmax`."""
    return torch.log_softmax(x, axis)


_EXTRA: dict[str, Callable[..., Any]] = {
    "logsumexp": logsumexp,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
    "solve_triangular": solve_triangular,
    "gammaln": torch.special.gammaln,
    "digamma": torch.special.digamma,
    "i0e": torch.special.i0e,
    "stop_gradient": torch.Tensor.detach,
}


def _convert(value: Any, numbers: bool) -> Any:
    if isinstance(value, (np.ndarray, np.generic, float)) or (
        numbers and isinstance(value, int) and not isinstance(value, bool)
    ):
        return asarray(value)
    if isinstance(value, (list, tuple)) and any(
        isinstance(item, (torch.Tensor, np.ndarray)) for item in value
    ):
        return type(value)(_convert(item, numbers) for item in value)
    return value


class TorchOps:
    """array-api-compat's torch with conversions, plus what the Array API leaves out."""

    scan = staticmethod(scan)
    asarray = staticmethod(asarray)

    @staticmethod
    def broadcast_shapes(*shapes: Any) -> torch.Size:
        """Return the shape that these shapes broadcast to."""
        return torch.Size(np.broadcast_shapes(*(tuple(shape) for shape in shapes)))

    def arange(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return evenly spaced numbers; integers stay integers."""
        floating = any(isinstance(value, float) for value in args)
        dtype = getattr(torch, precision().dtype) if floating else None
        return xp.arange(*args, **{"dtype": dtype, "device": precision().device, **kwargs})  # type: ignore[no-any-return]

    @functools.cache  # noqa: B019  (one object for the life of the process)
    def __getattr__(self, name: str) -> Any:
        if name == "linalg":
            return TorchLinalg()
        found = _EXTRA.get(name) or getattr(xp, name)
        if not callable(found) or isinstance(found, type):
            return found
        return _converting(name, found)


def _converting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    numbers = name in _ELEMENTWISE

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if name in _CREATION:
            to = precision()
            kwargs = {"dtype": getattr(torch, to.dtype), "device": to.device, **kwargs}
            return function(*args, **kwargs)
        converted = [_convert(value, numbers) for value in args]
        if name == "where" and isinstance(converted[0], torch.Tensor):
            converted[0] = converted[0] != 0
        return function(*converted, **{k: _convert(v, numbers) for k, v in kwargs.items()})

    return call


class TorchLinalg:
    """The linear algebra of `TorchOps`."""

    def __getattr__(self, name: str) -> Any:
        return _converting(f"linalg.{name}", getattr(xp.linalg, name))


ops = TorchOps()
