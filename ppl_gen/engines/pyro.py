"""Pyro: the engine over torch.

Torch's default dtype is never touched: programs get float64 (or what `Engine.precision` says)
because every number that enters `dist` or `ops` is converted.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import array_api_compat.torch as array_torch
import pyro
import pyro.distributions as pd
import torch
from numpy.typing import NDArray
from pyro import poutine
from pyro.ops.provenance import detach_provenance, get_provenance, track_provenance
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import get_plates

from ppl_gen.engines import torch_arrays
from ppl_gen.engines._pyro_distributions import DISTRIBUTIONS
from ppl_gen.engines.arguments import convert_call
from ppl_gen.engines.base import Arrays, Engine, Model, Precision, Record, entered_plates, unwrap

#: Where Pyro spells arguments otherwise: portable name -> Pyro's, in the portable order.
_SPELLING: dict[str, dict[str, str]] = {
    "LKJ": {"dimension": "dim", "concentration": "concentration"},
    "LKJCholesky": {"dimension": "dim", "concentration": "concentration"},
    "Independent": {
        "base_dist": "base_distribution",
        "reinterpreted_batch_ndims": "reinterpreted_batch_ndims",
    },
    "MixtureSameFamily": {
        "mixing_distribution": "mixture_distribution",
        "component_distribution": "component_distribution",
    },
    "Wishart": {
        "concentration": "df",
        "scale_matrix": "covariance_matrix",
        "rate_matrix": "precision_matrix",
        "scale_tril": "scale_tril",
    },
    "ZeroInflatedPoisson": {"gate": "gate", "rate": "rate"},
}

#: Set while draws are mapped by `torch.vmap`, under which values cannot be looked at.
_unchecked: ContextVar[bool] = ContextVar("ppl_gen_unchecked", default=False)


class _PlateAgain(pyro.plate):  # type: ignore[misc]
    """A plate that a program enters again by its name, with the rows of the first time.

    Pyro's own takes its rows from a sample site, and the same name twice is an error there.
    """

    def __init__(self, first: Any, dim: int | None) -> None:
        self._rows = first.size, first.subsample_size, first._indices
        super().__init__(first.name, first.size, dim=dim, device=first.device)

    def _subsample(self, *_: Any) -> tuple[int, int, Any]:
        return self._rows


class _Fix(Messenger):  # type: ignore[misc]
    """Give sample and param sites their values; an observed site stays observed."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["infer"].get("_deterministic"):
            msg["value"], msg["done"] = self.values[msg["name"]], True

    def _pyro_param(self, msg: Any) -> None:
        if msg["name"] in self.values:
            msg["value"], msg["done"] = self.values[msg["name"]], True


class _Provenance(Messenger):  # type: ignore[misc]
    """Note which sites each site is computed from, directly."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, frozenset[str]] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        name, fn, value = msg["name"], msg["fn"], msg["value"]
        if type(fn).__name__ == "_Subsample":
            return
        if msg["infer"].get("_deterministic"):
            self.found[name] = get_provenance(value)
        else:
            self.found[name] = get_provenance(fn.log_prob(detach_provenance(value)))
        msg["value"] = track_provenance(detach_provenance(value), frozenset({name}))

    def _pyro_post_param(self, msg: Any) -> None:
        self.found[msg["name"]] = frozenset()
        msg["value"] = track_provenance(detach_provenance(msg["value"]), frozenset({msg["name"]}))


class PyroEngine(Engine):
    """The engine over torch; see `Engine`."""

    name = "pyro"
    xp = array_torch
    ops = torch_arrays.ops
    constraints = pd.constraints
    transforms = pd.transforms

    def resolve_device(self, device: str) -> str:
        """Return the device found for "auto", "cpu", "cuda" or "cuda:1"; ValueError if absent."""
        if device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        kind, _, index = device.partition(":")
        if kind not in ("cpu", "cuda") or not (index.isdigit() or not index):
            raise ValueError(
                f"device: unknown device {device!r}; expected 'auto', 'cpu', 'cuda' or 'cuda:1'"
            )
        count = torch.cuda.device_count() if kind == "cuda" else 1
        if int(index or 0) >= count:
            raise ValueError(
                f"device: {device!r} asked for, but torch finds {count} {kind} devices; expected "
                "one that is there; pass device='auto' or 'cpu', or install a CUDA build of torch"
            )
        return device

    def _precision(self, precision: Precision) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def asarray(self, x: Any) -> torch.Tensor:
        """Convert to a tensor: floats in the dtype of the precision, ints kept, on its device."""
        return torch_arrays.asarray(x)

    def to_numpy(self, x: Any) -> NDArray[Any]:
        """Convert to plain NumPy."""
        return torch_arrays.to_numpy(x)

    def random(self, source: Any = None) -> torch_arrays.TorchRandom:
        """Return a source of random numbers from an integer seed; None takes torch's own."""
        return torch_arrays.TorchRandom(source)

    def sample(self, name: str, distribution: Any, obs: Any = None, infer: Any = None) -> Any:
        """Sample or observe."""
        if obs is not None:
            obs = self.asarray(obs)
            # As Pyro samples them: categories index, so they are integers; counts are floats.
            if isinstance(unwrap(distribution), pd.Categorical):
                obs = obs.long()
            elif not obs.is_floating_point():
                obs = obs.to(getattr(torch, torch_arrays.precision().dtype))
        return pyro.sample(name, distribution, obs=obs, infer=infer or {})

    def plate(
        self, name: str, size: int, subsample_size: int | None = None, dim: int | None = None
    ) -> contextlib.AbstractContextManager[Any]:
        """Enter conditionally independent repetitions."""
        plates = entered_plates.get()
        plate: contextlib.AbstractContextManager[Any]
        if name in plates:
            plate = _PlateAgain(plates[name], dim)
        else:
            device = torch_arrays.precision().device
            plate = pyro.plate(name, size, subsample_size=subsample_size, dim=dim, device=device)
            plates[name] = plate
        return plate

    def param(self, name: str, init_value: Any = None, constraint: Any = None) -> Any:
        """Declare a parameter to be optimised."""
        if init_value is not None and not callable(init_value):
            init_value = self.asarray(init_value)
        extra = {} if constraint is None else {"constraint": constraint}
        return pyro.param(name, init_value, **extra)

    def deterministic(self, name: str, value: Any, event_dim: int | None = None) -> Any:
        """Record a value."""
        value = self.asarray(value)
        if event_dim is None:
            dims = [frame.dim for frame in get_plates() if frame.vectorized]
            event_dim = max(0, value.ndim + min(dims, default=0))
        delta = pd.Delta(value, event_dim=event_dim, validate_args=not _unchecked.get())
        return pyro.sample(name, delta.mask(False), obs=value, infer={"_deterministic": True})

    def factor(self, name: str, log_factor: Any) -> None:
        """Add to the log joint density."""
        pyro.factor(name, self.asarray(log_factor))

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        """Make this the engine that `sample`, `dist` and `ops` speak to, for one run."""
        dtype = getattr(torch, torch_arrays.precision().dtype)
        usual = dtype is torch.get_default_dtype()
        promotion = contextlib.nullcontext() if usual else torch_arrays.Promotion(dtype)
        with promotion, super().activate():
            yield

    def has_dist(self, name: str) -> bool:
        """Tell whether the engine has a distribution of this name."""
        return name in DISTRIBUTIONS or hasattr(pd, name)

    @functools.cache  # noqa: B019  (engines live as long as the process)
    def dist(self, name: str) -> Callable[..., Any]:
        """Return the constructor of a distribution."""
        constructor = DISTRIBUTIONS.get(name) or getattr(pd, name)
        spelling = _SPELLING.get(name, {})
        names = tuple(spelling) or None

        @functools.wraps(constructor)
        def make(*args: Any, **kwargs: Any) -> Any:
            bound = convert_call(constructor, args, kwargs, self.asarray, names)
            if _unchecked.get():
                bound.setdefault("validate_args", False)
            return constructor(**{spelling.get(key, key): v for key, v in bound.items()})

        return make

    def enumerated(self, model: Model) -> Model:
        """Return a native model whose finite discrete latents NUTS and SVI sum out."""
        enumerated: Model = pyro.infer.config_enumerate(model, "parallel")
        return enumerated

    def dependencies(
        self, model: Model, args: Sequence[Any], kwargs: Mapping[str, Any], *, seed: int = 0
    ) -> dict[str, frozenset[str]]:
        """Return, for each site, the sites its distribution (or value) is computed from."""
        with self._inside(), _isolated(seed), torch.no_grad(), _Provenance() as provenance:
            model(*args, **kwargs)
        found: dict[str, frozenset[str]] = provenance.found
        return found

    def _execute(
        self,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        values: Mapping[str, Any],
        key: Any,
    ) -> dict[str, Record]:
        with _isolated(key):
            tracer = poutine.trace()
            with tracer, _Fix(values):
                model(*args, **kwargs)
        records = {}
        for name, site in tracer.trace.nodes.items():
            kind = site["type"]
            if kind not in ("sample", "param") or type(site["fn"]).__name__ == "_Subsample":
                continue
            fn = site["fn"] if kind == "sample" else None
            if kind == "sample" and site["infer"].get("_deterministic"):
                kind, fn = "deterministic", None
            elif isinstance(unwrap(fn), pd.Unit):
                kind = "factor"
            elif kind == "sample" and site["mask"] is not None:
                fn = site["fn"].mask(site["mask"])
            frames = sorted(
                (f for f in site["cond_indep_stack"] if f.vectorized), key=lambda f: f.dim
            )
            records[name] = Record(
                name=name,
                kind=kind,
                observed=kind == "sample" and site["is_observed"],
                value=site["value"],
                distribution=fn,
                plates=tuple((frame.name, int(frame.size)) for frame in frames),
                scale=site["scale"] if kind != "param" else None,
            )
        return records

    def _key(self, seed: int) -> Any:
        return seed

    def _map_draws(
        self,
        function: Callable[[dict[str, Any], Any], dict[str, Any]],
        draws: Arrays,
        size: int,
        seed: int,
        batch: int,
    ) -> Arrays:
        # vmap wants an argument that it maps over, even where no site is fixed.
        inputs = {**self.to_native(draws), "": torch.zeros(size)}

        def one(inputs: dict[str, Any]) -> dict[str, Any]:
            out = function({name: v for name, v in inputs.items() if name}, None)
            return {name: torch.as_tensor(value) for name, value in out.items()}

        with torch.no_grad(), _isolated(seed):
            token = _unchecked.set(True)
            try:
                out = torch.vmap(one, randomness="different", chunk_size=batch)(inputs)
            except RuntimeError:
                # The model looks at values, as validation in plain Pyro models does: no vmap.
                torch.manual_seed(seed)
                each = [one({n: v[i] for n, v in inputs.items()}) for i in range(size)]
                out = {name: torch.stack([e[name] for e in each]) for name in each[0]}
            finally:
                _unchecked.reset(token)
        return {name: self.to_numpy(value) for name, value in out.items()}

    def _value_and_grad(
        self, function: Callable[[dict[str, Any]], Any], values: Arrays
    ) -> tuple[float, Arrays]:
        free = {name: value.requires_grad_() for name, value in self.to_native(values).items()}
        total = function(free)
        grads = torch.autograd.grad(total, list(free.values()), materialize_grads=True)
        return float(total.detach()), {
            name: self.to_numpy(g) for name, g in zip(free, grads, strict=True)
        }

    def _support(self, distribution: Any) -> Any:
        return distribution.enumerate_support(expand=False)


@contextlib.contextmanager
def _isolated(seed: int | None) -> Iterator[None]:
    """Seed torch, and give back its generators and Pyro's parameters as they were."""
    store = pyro.get_param_store()
    if seed is None:
        yield
        return
    with torch.random.fork_rng(), store.scope(store.get_state()):
        torch.manual_seed(seed)
        yield


ENGINE = PyroEngine()
