"""What differs between engines, and what passes between them and the rest."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ppl_gen.engines.random_source import RandomSource

if TYPE_CHECKING:
    from ppl_gen.engines.base import Engine

Model = Callable[..., Any]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Precision:
    """Floating dtype and device that conversions use; the device is one that was found."""

    dtype: str = "float64"
    device: str = "cpu"


#: The engine that runs the program we are in.
active_engine: ContextVar[Engine | None] = ContextVar("ppl_gen_engine", default=None)
#: Dtype and device of conversions; None: never entered in this thread.
active_precision: ContextVar[Precision | None] = ContextVar("ppl_gen_precision", default=None)
#: The plates that this run of a program has entered, by name.
entered_plates: ContextVar[dict[str, Any]] = ContextVar("ppl_gen_plates")
#: Where `sample` and `deterministic` note the names of their event axes, while someone listens.
noted_dims: ContextVar[dict[str, tuple[str, ...]] | None] = ContextVar("ppl_gen_dims", default=None)


@dataclass(frozen=True)
class Site:
    """One named place of a program, as one run of it left it.

    Attributes
    ----------
    name : str
    kind : {"sample", "deterministic", "param", "factor"}
    observed : bool
    value : ndarray
    plates : tuple of (name, size)
        The batch axes of `value`, left to right. A plate takes the next axis to the left of those
        it is inside of, so that the plate entered first is the last one here.
    dims : tuple of str or None
        Names of the event axes, where the program gives them.
    discrete : bool
    support : int or None
        Number of values of a finite discrete site of a scalar.
    support_values : ndarray or None
        These values.
    latent : str or None
        Name of the latent that the distribution marginalises.
    log_prob : ndarray or None
        Log density, one entry a batch element, without the scale of a subsampled plate.
    distribution : str or None
        Name of the distribution's class.
    improper : bool
        True where the density does not integrate to one, so that prior draws mean nothing.
    parents : tuple of str
        Names of the sites it depends on directly; filled by `Program.graph` only.
    """

    name: str
    kind: str
    observed: bool
    value: NDArray[Any]
    plates: tuple[tuple[str, int], ...] = ()
    dims: tuple[str, ...] | None = None
    discrete: bool = False
    support: int | None = None
    support_values: NDArray[Any] | None = None
    latent: str | None = None
    log_prob: NDArray[Any] | None = None
    distribution: str | None = None
    improper: bool = False
    parents: tuple[str, ...] = ()


@dataclass
class Record:
    """A site in the engine's own types: what `_execute` returns."""

    name: str
    kind: str
    observed: bool
    value: Any
    distribution: Any = None
    plates: tuple[tuple[str, int], ...] = ()
    scale: Any = None

    @property
    def log_prob(self) -> Any:
        """Log density, one entry a batch element."""
        return self.distribution.log_prob(self.value)


def unwrap(distribution: Any) -> Any:
    """Take off what plates, `to_event` and masks put around a distribution."""
    wrappers = ("ExpandedDistribution", "Independent", "MaskedDistribution")
    while type(distribution).__name__ in wrappers:
        distribution = distribution.base_dist
    return distribution


class EngineCore(abc.ABC):
    """What differs between engines; see `Engine`.

    Attributes
    ----------
    name : {"pyro", "numpyro"}
    xp : namespace
        The array namespace (array-api-compat's torch, or jax.numpy).
    ops : object
        `xp` with conversions, plus logsumexp, softmax, log_softmax, sigmoid, softplus, scan,
        solve_triangular, gammaln, digamma, i0e.
    constraints, transforms : namespace
        The engine's own.
    """

    name: str
    xp: Any
    ops: Any
    constraints: Any
    transforms: Any

    @abc.abstractmethod
    def resolve_device(self, device: str) -> str:
        """Return the device found for "auto", "cpu", "cuda" or "cuda:1"; ValueError if absent."""

    @abc.abstractmethod
    def _precision(self, precision: Precision) -> contextlib.AbstractContextManager[Any]:
        """Enter a precision in the library itself."""

    @abc.abstractmethod
    def asarray(self, x: Any) -> Any:
        """Convert to an array of the engine: floats in the dtype of the precision, ints kept."""

    @abc.abstractmethod
    def to_numpy(self, x: Any) -> NDArray[Any]:
        """Convert an array of the engine to plain NumPy."""

    @abc.abstractmethod
    def random(self, source: Any = None) -> RandomSource:
        """Return a source of random numbers from an integer seed (or a JAX key)."""

    @abc.abstractmethod
    def sample(self, name: str, distribution: Any, obs: Any = None, infer: Any = None) -> Any:
        """Sample or observe."""

    @abc.abstractmethod
    def plate(
        self, name: str, size: int, subsample_size: int | None = None, dim: int | None = None
    ) -> contextlib.AbstractContextManager[Any]:
        """Enter conditionally independent repetitions."""

    @abc.abstractmethod
    def param(self, name: str, init_value: Any = None, constraint: Any = None) -> Any:
        """Declare a parameter to be optimised."""

    @abc.abstractmethod
    def deterministic(self, name: str, value: Any, event_dim: int | None = None) -> Any:
        """Record a value."""

    @abc.abstractmethod
    def factor(self, name: str, log_factor: Any) -> None:
        """Add to the log joint density."""

    @abc.abstractmethod
    def dist(self, name: str) -> Callable[..., Any]:
        """Return the constructor of a distribution; AttributeError if the engine lacks it."""

    @abc.abstractmethod
    def has_dist(self, name: str) -> bool:
        """Tell whether the engine has a distribution of this name."""

    @abc.abstractmethod
    def enumerated(self, model: Model) -> Model:
        """Return a native model whose finite discrete latents NUTS and SVI sum out."""

    @abc.abstractmethod
    def dependencies(
        self, model: Model, args: Sequence[Any], kwargs: Mapping[str, Any], *, seed: int = 0
    ) -> dict[str, frozenset[str]]:
        """Return, for each site, the sites its distribution (or value) is computed from."""

    @abc.abstractmethod
    def _execute(
        self,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        values: Mapping[str, Any],
        key: Any,
    ) -> dict[str, Record]:
        """Run the model once, these sites fixed, the others drawn."""

    @abc.abstractmethod
    def _key(self, seed: int) -> Any:
        """Return what `_execute` takes as `key`."""

    @abc.abstractmethod
    def _map_draws(
        self,
        function: Callable[[dict[str, Any], Any], dict[str, Any]],
        draws: Arrays,
        size: int,
        seed: int,
        batch: int,
    ) -> Arrays:
        """Map over the first axis of `draws`, `batch` at a time; outputs gain that axis."""

    @abc.abstractmethod
    def _value_and_grad(
        self, function: Callable[[dict[str, Any]], Any], values: Arrays
    ) -> tuple[float, Arrays]:
        """Evaluate a scalar function and its gradient."""

    @abc.abstractmethod
    def _support(self, distribution: Any) -> Any:
        """Return the values of a finite discrete distribution of a scalar, shape (K, 1, ...)."""
