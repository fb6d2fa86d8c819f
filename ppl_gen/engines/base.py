"""What an engine is: one small core that differs, and everything that follows from it.

An engine runs a model once with some sites fixed (`_execute`) and maps a function over many
draws (`_map_draws`). Traces, joint and pointwise log densities and predictive draws follow from
these two and are written here once, over *native* callables (plain Pyro or NumPyro models), with
NumPy in and out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.engines import discrete
from ppl_gen.engines.core import (
    Arrays,
    EngineCore,
    Model,
    Precision,
    Record,
    Site,
    active_engine,
    active_precision,
    entered_plates,
    noted_dims,
    unwrap,
)
from ppl_gen.engines.random_source import NumPyRandom, RandomSource

__all__ = [
    "Arrays",
    "Engine",
    "Model",
    "NumPyRandom",
    "Precision",
    "RandomSource",
    "Record",
    "Site",
    "active_engine",
    "active_precision",
    "entered_plates",
    "noted_dims",
    "unwrap",
]

#: Elements that one batch of draws may hold at a time: 128 MiB in float64.
BATCH_ELEMENTS = 2**24


class Engine(EngineCore):
    """A probabilistic programming library behind one spelling.

    The methods over models take *native* callables (``program.pyro``, ``program.numpyro``, or a
    model written by hand), values and draws as NumPy arrays, seeds as integers, and return NumPy.
    They enter the precision of the surrounding `precision`, or float64, themselves.
    """

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        """Make this the engine that `sample`, `dist` and `ops` speak to, for one run."""
        token, plates = active_engine.set(self), entered_plates.set({})
        try:
            yield
        finally:
            active_engine.reset(token)
            entered_plates.reset(plates)

    @contextlib.contextmanager
    def precision(self, dtype: str | None = None, device: str = "auto") -> Iterator[Precision]:
        """Compute in this dtype on this device, in this thread, until the block ends.

        Parameters
        ----------
        dtype : {"float64", "float32"}, optional
            float64 by default.
        device : str, default "auto"
            "auto" (a GPU where the engine finds one), "cpu", "cuda" or "cuda:1".

        Raises
        ------
        ValueError
            If the dtype is unknown or the device is not there.
        """
        if dtype not in (None, "float64", "float32"):
            raise ValueError(
                f"Engine.precision: unknown dtype {dtype!r}; expected 'float64' or 'float32'"
            )
        precision = Precision(dtype or "float64", self.resolve_device(device))
        token = active_precision.set(precision)
        try:
            with self._precision(precision):
                yield precision
        finally:
            active_precision.reset(token)

    def _inside(self) -> contextlib.AbstractContextManager[Precision]:
        """Enter the surrounding precision anew: the libraries' own state is per thread."""
        around = active_precision.get()
        return self.precision() if around is None else self.precision(around.dtype, around.device)

    def to_native(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Convert a dict of NumPy arrays."""
        return {name: self.asarray(value) for name, value in values.items()}

    def _site(
        self, record: Record, dims: tuple[str, ...] | None, to_numpy: Callable[[Any], NDArray[Any]]
    ) -> Site:
        inner = unwrap(record.distribution)
        is_sample = record.kind == "sample"
        scored = is_sample or record.kind == "factor"
        is_discrete = is_sample and bool(record.distribution.support.is_discrete)
        name = None if inner is None else type(inner).__name__
        values = None
        if is_discrete and inner.has_enumerate_support and not record.distribution.event_shape:
            values = to_numpy(self._support(record.distribution)).reshape(-1)
        return Site(
            name=record.name,
            kind=record.kind,
            observed=record.observed,
            value=to_numpy(record.value),
            plates=record.plates,
            dims=dims,
            discrete=is_discrete,
            support=None if values is None else len(values),
            support_values=values,
            latent=getattr(inner, "latent", None),
            log_prob=to_numpy(record.log_prob) if scored else None,
            # NumPyro has a class for each parametrisation.
            distribution=None
            if name is None
            else name.removesuffix("Probs").removesuffix("Logits"),
            improper=getattr(inner, "improper", name == "ImproperUniform"),
        )

    def trace(
        self,
        model: Model,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        values: Mapping[str, Any] | None = None,
    ) -> dict[str, Site]:
        """Run the model once and tell what each site did.

        Parameters
        ----------
        model : callable
            A native model.
        args, kwargs
            What it is called with.
        seed : int
        values : dict, optional
            Values that sample and param sites take instead of being drawn. Given for an observed
            site, they replace the observation.

        Returns
        -------
        dict of str to Site
            In the order of the program.
        """
        with self._inside():
            noted: dict[str, tuple[str, ...]] = {}
            token = noted_dims.set(noted)
            try:
                records = self._execute(
                    model, args, kwargs or {}, self.to_native(values or {}), self._key(seed)
                )
            finally:
                noted_dims.reset(token)
            return {
                name: self._site(record, noted.get(name), self.to_numpy)
                for name, record in records.items()
            }

    def outline(
        self,
        model: Model,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        values: Mapping[str, Any] | None = None,
    ) -> dict[str, Site]:
        """Tell what `trace` would, but for the numbers: arrays have the right shapes only.

        Parameters and errors are those of `trace`. JAX computes nothing for it, and so compiles
        nothing.
        """
        return self.trace(model, args, kwargs, values=values)

    def has_discrete_latents(self, trace: Mapping[str, Site]) -> bool:
        """Tell whether a trace has discrete sites that nobody observed."""
        return any(s.kind == "sample" and s.discrete and not s.observed for s in trace.values())

    def _joint(
        self, model: Model, args: Sequence[Any], kwargs: Mapping[str, Any], values: dict[str, Any]
    ) -> Any:
        records = self._execute(model, args, kwargs, values, self._key(0))
        latent = {n for n, r in records.items() if r.kind == "sample" and not r.observed}
        if missing := sorted(latent - set(values)):
            raise ValueError(
                f"Engine.log_joint: no value for {', '.join(missing)}; expected one for each "
                "latent site; pass them in `values`"
            )
        total: Any = 0.0
        for record in records.values():
            if record.kind in ("sample", "factor"):
                scale = 1.0 if record.scale is None else record.scale
                total = total + scale * record.log_prob.sum()
        return total

    def log_joint(
        self,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        values: Mapping[str, Any],
    ) -> float:
        """Return the log joint density at `values` in constrained space (no Jacobian), in nats.

        Raises
        ------
        ValueError
            If a latent site has no value.
        """
        with self._inside():
            total = self._joint(model, args, kwargs, self.to_native(values))
            return float(self.to_numpy(total))

    def log_joint_and_grad(
        self,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        values: Mapping[str, Any],
    ) -> tuple[float, Arrays]:
        """Return `log_joint` and its gradient with respect to the continuous values."""
        arrays = {name: np.asarray(value) for name, value in values.items()}
        moving = {n: v for n, v in arrays.items() if np.issubdtype(v.dtype, np.floating)}
        with self._inside():
            fixed = self.to_native({n: v for n, v in arrays.items() if n not in moving})
            return self._value_and_grad(
                lambda free: self._joint(model, args, kwargs, {**fixed, **free}), moving
            )

    def _over_draws(
        self,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        draws: Mapping[str, Any],
        extract: Callable[[dict[str, Record]], dict[str, Any]],
        *,
        size: int,
        seed: int = 0,
        batch: int | None = None,
        elements: int = 1,
    ) -> Arrays:
        """Run the model under each draw and keep what `extract` takes from the run."""
        if batch is None:
            batch = max(1, min(size, BATCH_ELEMENTS // max(1, elements)))
        arrays = {name: np.asarray(value) for name, value in draws.items()}
        with self._inside():
            return self._map_draws(
                lambda draw, key: extract(self._execute(model, args, kwargs, draw, key)),
                arrays,
                size,
                seed,
                batch,
            )

    def pointwise_log_prob(
        self,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        draws: Mapping[str, Any],
        sites: Sequence[str] | None = None,
        *,
        batch: int | None = None,
    ) -> Arrays:
        """Return the log probability of each observation under each draw.

        Parameters
        ----------
        draws : dict of str to ndarray (S, ...)
            A value for each latent site under each of S draws. Discrete latents may be missing:
            they are summed out.
        sites : list of str, optional
            By default the observed sites; latent sites may be asked for too.
        batch : int, optional
            Draws held at a time; by default as many as 128 MiB hold.

        Returns
        -------
        dict of str to ndarray (S, ...)
            One entry a batch element (a row of data) of the site.

        Raises
        ------
        ValueError
            If a site is not in the program, or a continuous latent has no draws.
        """
        first = {name: value[0] for name, value in draws.items()}
        trace = self.outline(model, args, kwargs, values=first)
        missing = [s for s in trace.values() if s.kind == "sample" and s.name not in draws]
        missing = [s for s in missing if not s.observed]
        if open_sites := [s.name for s in missing if s.support is None]:
            raise ValueError(
                f"Engine.pointwise_log_prob: no draws of {', '.join(open_sites)}; expected draws "
                "of every latent; fit it, or pass its values in `draws`"
            )
        wanted = [n for n, s in trace.items() if s.kind == "sample" and s.observed]
        if sites is not None:
            wanted = list(sites)
            scored = {n for n, s in trace.items() if s.log_prob is not None}
            if unknown := sorted(set(wanted) - scored):
                raise ValueError(
                    f"Engine.pointwise_log_prob: no sample site {', '.join(unknown)}; expected "
                    f"some of {', '.join(trace)}"
                )
        if missing:
            trace = self.trace(model, args, kwargs, values=first)
            return discrete.marginal_log_prob(self, model, args, kwargs, draws, wanted, trace)
        found = self._over_draws(
            model,
            args,
            kwargs,
            draws,
            lambda records: {name: records[name].log_prob for name in wanted},
            size=_draw_count(draws),
            batch=batch,
            elements=max((trace[name].value.size for name in wanted), default=1),
        )
        return {name: found[name] for name in wanted}

    def predictive(
        self,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        draws: Mapping[str, Any],
        *,
        seed: int,
        sites: Sequence[str] | None = None,
        batch: int | None = None,
    ) -> Arrays:
        """Draw the sites that `draws` leave open, given each draw.

        Sites to be predicted are passed unobserved (their argument None). A latent whose plate
        has another size than in `draws` belongs to new groups and is drawn anew.

        Parameters
        ----------
        draws : dict of str to ndarray (S, ...)
        seed : int
        sites : list of str, optional
            By default every sample site not in `draws`, and every deterministic one.

        Returns
        -------
        dict of str to ndarray (S, ...)

        Raises
        ------
        ValueError
            If a drawn latent outside every plate has another shape than the program gives it.
        """
        trace = self.outline(model, args, kwargs)
        given = {}
        for name, value in draws.items():
            site = trace.get(name)
            if site is None or site.observed or site.kind not in ("sample", "param"):
                continue
            if np.shape(value)[1:] == site.value.shape:
                given[name] = value
            elif not site.plates:
                raise ValueError(
                    f"Engine.predictive: draws of {name} have shape {np.shape(value)[1:]}, but the "
                    f"program gives it {site.value.shape}; pass data of the fitted layout"
                )
        return self._draw(model, args, kwargs, given, trace, sites, _draw_count(draws), seed, batch)

    def prior_predictive(
        self,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        n: int,
        *,
        seed: int,
        sites: Sequence[str] | None = None,
        batch: int | None = None,
    ) -> Arrays:
        """Draw every unobserved sample site and deterministic `n` times from the prior.

        Raises
        ------
        ValueError
            If a prior is improper.
        """
        trace = self.outline(model, args, kwargs)
        if improper := [name for name, site in trace.items() if site.improper]:
            raise ValueError(
                f"Engine.prior_predictive: {', '.join(improper)} has an improper prior, which "
                "cannot be drawn from; expected proper priors; give it one, or draw from the "
                "posterior"
            )
        return self._draw(model, args, kwargs, {}, trace, sites, n, seed, batch)

    def _draw(
        self,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        given: Mapping[str, Any],
        trace: Mapping[str, Site],
        sites: Sequence[str] | None,
        size: int,
        seed: int,
        batch: int | None,
    ) -> Arrays:
        kept = [
            name
            for name, site in trace.items()
            if site.kind == "deterministic"
            or (site.kind == "sample" and not site.observed and name not in given)
        ]
        wanted = kept if sites is None else list(sites)
        if missing := sorted(set(wanted) - set(trace)):
            raise ValueError(
                f"Engine.predictive: no site {', '.join(missing)}; expected some of "
                f"{', '.join(trace)}"
            )
        found = self._over_draws(
            model,
            args,
            kwargs,
            given,
            lambda records: {name: records[name].value for name in wanted},
            size=size,
            seed=seed,
            batch=batch,
            elements=sum(trace[name].value.size for name in wanted),
        )
        return {name: found[name] for name in wanted}

    def discrete_posterior(
        self,
        model: Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        draws: Mapping[str, Any],
        site: str,
        *,
        seed: int = 0,
    ) -> NDArray[np.float64]:
        """Return the exact posterior of a discrete site under each draw, (S, ..., K).

        See `ppl_gen.engines.discrete.discrete_log_joint`, whose softmax this is.
        """
        log_joint = discrete.discrete_log_joint(self, model, args, kwargs, draws, site, seed=seed)
        unnormalised = np.exp(log_joint - log_joint.max(-1, keepdims=True))
        probs: NDArray[np.float64] = unnormalised / unnormalised.sum(-1, keepdims=True)
        return probs


def _draw_count(draws: Mapping[str, Any]) -> int:
    sizes = {len(value) for value in draws.values()}
    if len(sizes) != 1:
        raise ValueError(
            f"Engine: draws have lengths {sorted(sizes)}; expected arrays that share one first "
            "axis; stack chains and draws into it"
        )
    return sizes.pop()
