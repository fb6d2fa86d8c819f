"""NumPyro: the engine over JAX.

JAX takes three quarters of a GPU's memory when it first computes, which starves torch in the same
process; ``XLA_PYTHON_CLIENT_PREALLOCATE=false`` is set here unless the user has set it.

Batched Cholesky and LU decompositions of jaxlib 0.10 wait, on a thread of XLA's pool, for work that
they queue on the same pool. Two at once, of one program, take both threads of a machine with two
cores and wait for ever. ``PJRT_NPROC`` gives the pool threads to spare, unless the user has set it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("PJRT_NPROC", str(max(16, os.cpu_count() or 1)))

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
from numpy.typing import NDArray
from numpyro import handlers
from numpyro.ops.provenance import eval_provenance

from ppl_gen.engines._numpyro_distributions import DISTRIBUTIONS
from ppl_gen.engines.arguments import convert_call
from ppl_gen.engines.base import (
    Arrays,
    Engine,
    Model,
    Precision,
    Record,
    Site,
    entered_plates,
    noted_dims,
)
from ppl_gen.engines.jax_arrays import JaxRandom
from ppl_gen.engines.jax_arrays import ops as jax_ops

#: Elements of data that a compiled program may hold as constants.
CONSTANT_ELEMENTS = 1_000_000


class _Fix(handlers.substitute):  # type: ignore[misc]
    """Give sample, param and plate sites their values; let deterministic ones be computed."""

    def process_message(self, msg: Any) -> None:
        if msg["type"] != "deterministic":
            super().process_message(msg)


class _Inputs(handlers.substitute):  # type: ignore[misc]
    """Give every site, deterministic ones too, a value, and keep what it was made from."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.sources: dict[str, Any] = {}
        super().__init__(data=data)

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample":
            self.sources[msg["name"]] = jax.tree.leaves(msg["fn"])
        elif msg["type"] == "deterministic":
            self.sources[msg["name"]] = [msg["value"]]
        super().process_message(msg)


class NumPyroEngine(Engine):
    """The engine over JAX; see `Engine`."""

    name = "numpyro"
    xp = jnp
    ops = jax_ops
    constraints = nd.constraints
    transforms = nd.transforms

    def resolve_device(self, device: str) -> str:
        """Return the device found for "auto", "cpu", "cuda" or "cuda:1"; ValueError if absent."""
        kind, _, index = device.partition(":")
        if device == "auto":
            return "cuda" if jax.default_backend() == "gpu" else "cpu"
        if kind not in ("cpu", "cuda") or not (index.isdigit() or not index):
            raise ValueError(
                f"device: unknown device {device!r}; expected 'auto', 'cpu', 'cuda' or 'cuda:1'"
            )
        try:
            found = jax.devices(kind)
        except RuntimeError:
            found = []
        if int(index or 0) >= len(found):
            raise ValueError(
                f"device: {device!r} asked for, but JAX finds {len(found)} {kind} devices; "
                "expected one that is there; pass device='auto' or 'cpu', or install jax[cuda12]"
            )
        return device

    def _precision(self, precision: Precision) -> contextlib.AbstractContextManager[Any]:
        kind, _, index = precision.device.partition(":")
        stack = contextlib.ExitStack()
        stack.enter_context(jax.enable_x64(precision.dtype == "float64"))
        stack.enter_context(jax.default_device(jax.devices(kind)[int(index or 0)]))
        return stack

    def asarray(self, x: Any) -> Any:
        """Convert to a JAX array: floats in the dtype of the precision, ints kept."""
        if isinstance(x, jax.Array):
            return x
        array = np.asarray(x)
        if np.issubdtype(array.dtype, np.floating):
            array = array.astype(jnp.result_type(float))
        return jnp.asarray(array)

    def to_numpy(self, x: Any) -> NDArray[Any]:
        """Convert to plain NumPy."""
        return np.array(x)

    def random(self, source: Any = None) -> JaxRandom:
        """Return a source of random numbers from an integer seed or a JAX key."""
        return JaxRandom(source if isinstance(source, jax.Array) else jax.random.key(source or 0))

    def sample(self, name: str, distribution: Any, obs: Any = None, infer: Any = None) -> Any:
        """Sample or observe."""
        obs = None if obs is None else self.asarray(obs)
        return numpyro.sample(name, distribution, obs=obs, infer=infer)

    def plate(
        self, name: str, size: int, subsample_size: int | None = None, dim: int | None = None
    ) -> contextlib.AbstractContextManager[Any]:
        """Enter conditionally independent repetitions."""
        plates = entered_plates.get()
        # Entered again, a plate keeps the rows of the first time; NumPyro would draw others.
        rows = {name: plates[name]._indices} if name in plates else {}
        with handlers.substitute(data=rows):
            plate: contextlib.AbstractContextManager[Any] = numpyro.plate(
                name, size, subsample_size=subsample_size, dim=dim
            )
        plates.setdefault(name, plate)
        return plate

    def param(self, name: str, init_value: Any = None, constraint: Any = None) -> Any:
        """Declare a parameter to be optimised."""
        if init_value is not None and not callable(init_value):
            init_value = self.asarray(init_value)
        extra = {} if constraint is None else {"constraint": constraint}
        return numpyro.param(name, init_value, **extra)

    def deterministic(self, name: str, value: Any, event_dim: int | None = None) -> Any:
        """Record a value."""
        return numpyro.deterministic(name, self.asarray(value))

    def factor(self, name: str, log_factor: Any) -> None:
        """Add to the log joint density."""
        numpyro.factor(name, self.asarray(log_factor))

    def has_dist(self, name: str) -> bool:
        """Tell whether the engine has a distribution of this name."""
        return name in DISTRIBUTIONS or hasattr(nd, name)

    @functools.cache  # noqa: B019  (engines live as long as the process)
    def dist(self, name: str) -> Callable[..., Any]:
        """Return the constructor of a distribution."""
        constructor = DISTRIBUTIONS.get(name) or getattr(nd, name)

        @functools.wraps(constructor)
        def make(*args: Any, **kwargs: Any) -> Any:
            return constructor(**convert_call(constructor, args, kwargs, self.asarray))

        return make

    def enumerated(self, model: Model) -> Model:
        """Return a native model whose finite discrete latents NUTS and SVI sum out."""
        from numpyro.contrib.funsor import config_enumerate

        enumerated: Model = config_enumerate(model, "parallel")
        return enumerated

    def outline(
        self,
        model: Model,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        values: Mapping[str, Any] | None = None,
    ) -> dict[str, Site]:
        """Tell what `trace` would, but for the numbers: arrays have the right shapes only."""
        sites, _ = self._staged(jax.eval_shape, model, args, kwargs or {}, values or {}, 0)
        return sites

    def trace(
        self,
        model: Model,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        values: Mapping[str, Any] | None = None,
    ) -> dict[str, Site]:
        """Run the model once and tell what each site did; see `Engine.trace`.

        It is compiled whole, since JAX would compile each of its operations by itself. Run
        step by step are programs that look at a drawn number in plain Python, and large data,
        which compiling would copy as constants.
        """
        whole = (model, args, kwargs or {}, values or {}, seed)
        if _n_elements(args, kwargs or {}) <= CONSTANT_ELEMENTS:
            try:
                sites, numbers = self._staged(lambda f, *x: jax.jit(f)(*x), *whole)
            except (
                jax.errors.ConcretizationTypeError,
                jax.errors.TracerArrayConversionError,
                jax.errors.TracerIntegerConversionError,
            ):
                pass
            else:
                known: dict[str, Any] = {
                    name: {field: self.to_numpy(x) for field, x in found.items()}
                    for name, found in numbers.items()
                }
                return {n: dataclasses.replace(s, **known[n]) for n, s in sites.items()}
        return super().trace(model, args, kwargs, seed=seed, values=values)

    def _staged(
        self,
        stage: Callable[..., Any],
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        values: Mapping[str, Any],
        seed: int,
    ) -> tuple[dict[str, Site], dict[str, dict[str, Any]]]:
        """Run the model under a stage of JAX: sites with hollow arrays, and what it returned."""
        sites: dict[str, Site] = {}

        def run(key: Any, fixed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
            numbers = {}
            for name, record in self._execute(model, args, kwargs, fixed, key).items():
                site = self._site(record, noted.get(name), _hollow)
                sites[name] = dataclasses.replace(site, support_values=None)
                numbers[name] = {"value": record.value}
                if site.log_prob is not None:
                    numbers[name]["log_prob"] = record.log_prob
                if site.support_values is not None:
                    support = self._support(record.distribution)
                    numbers[name]["support_values"] = support.reshape(-1)
            return numbers

        noted: dict[str, tuple[str, ...]] = {}
        with self._inside():
            token = noted_dims.set(noted)
            try:
                numbers = stage(run, self._key(seed), self.to_native(values))
            finally:
                noted_dims.reset(token)
        return sites, numbers

    def dependencies(
        self, model: Model, args: Sequence[Any], kwargs: Mapping[str, Any], *, seed: int = 0
    ) -> dict[str, frozenset[str]]:
        """Return, for each site, the sites its distribution (or value) is computed from."""

        def sources(**values: Any) -> dict[str, Any]:
            inputs = _Inputs(values)
            with handlers.trace(), inputs, handlers.seed(rng_seed=seed):
                model(*args, **kwargs)
            return inputs.sources

        with self._inside():
            sites = self.outline(model, args, kwargs)
            # Shapes will do: nothing is computed.
            values = {
                name: jax.ShapeDtypeStruct(site.value.shape, site.value.dtype)
                for name, site in sites.items()
                if site.kind != "factor"
            }
            found = eval_provenance(sources, **values)
        return {name: frozenset().union(*found[name]) for name in sites if name in found}

    def _execute(
        self,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        values: Mapping[str, Any],
        key: Any,
    ) -> dict[str, Record]:
        fixed = _Fix(handlers.seed(model, key), data=dict(values))
        records = {}
        for name, site in handlers.trace(fixed).get_trace(*args, **kwargs).items():
            kind = site["type"]
            if kind not in ("sample", "deterministic", "param"):
                continue
            frames = sorted(site.get("cond_indep_stack", ()), key=lambda frame: frame.dim)
            distribution = site.get("fn") if kind == "sample" else None
            if isinstance(distribution, nd.Unit):
                kind = "factor"
            records[name] = Record(
                name=name,
                kind=kind,
                observed=kind == "sample" and site["is_observed"],
                value=site["value"],
                distribution=distribution,
                plates=tuple((frame.name, frame.size) for frame in frames),
                scale=site.get("scale"),
            )
        return records

    def _key(self, seed: int) -> Any:
        return jax.random.key(seed)

    def _map_draws(
        self,
        function: Callable[[dict[str, Any], Any], dict[str, Any]],
        draws: Arrays,
        size: int,
        seed: int,
        batch: int,
    ) -> Arrays:
        keys = jax.random.split(self._key(seed), size)
        mapped = jax.jit(jax.vmap(function))
        parts: list[Arrays] = []
        for start in range(0, size, batch):
            # The last batch repeats its last draw: one shape is one compilation.
            index = np.minimum(np.arange(start, start + batch), size - 1)
            chunk = self.to_native({name: value[index] for name, value in draws.items()})
            out = mapped(chunk, keys[index])
            stop = min(size, start + batch) - start
            parts.append({name: self.to_numpy(value)[:stop] for name, value in out.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _value_and_grad(
        self, function: Callable[[dict[str, Any]], Any], values: Arrays
    ) -> tuple[float, Arrays]:
        value, grad = jax.value_and_grad(function)(self.to_native(values))
        return float(value), {name: self.to_numpy(g) for name, g in grad.items()}

    def _support(self, distribution: Any) -> Any:
        return distribution.enumerate_support(expand=False)


def _n_elements(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Elements of all arrays among the arguments."""
    leaves = jax.tree.leaves((tuple(args), dict(kwargs)))
    return sum(int(np.size(x)) for x in leaves if hasattr(x, "shape"))


def _hollow(x: Any) -> NDArray[Any]:
    """Return zeros of the shape and dtype of an array whose numbers are not known."""
    return np.broadcast_to(np.zeros((), jnp.result_type(x)), jnp.shape(x))


ENGINE = NumPyroEngine()
