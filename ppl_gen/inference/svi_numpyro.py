"""What SVI needs of NumPyro: a guide to train, steps in compiled blocks, weighted draws.

Loaded by :mod:`ppl_gen.inference.svi` when a fit runs on NumPyro, and always used inside the
engine's precision context.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from numpy.typing import NDArray
from numpyro import handlers
from numpyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, autoguide, init_to_median, init_to_value
from numpyro.infer.util import compute_log_probs

from ppl_gen.inference.svi_core import Draws, Latents, Objective

GUIDES: dict[str, Callable[..., Any]] = {
    "mean_field": autoguide.AutoNormal,
    "full_rank": autoguide.AutoMultivariateNormal,
    "low_rank": autoguide.AutoLowRankMultivariateNormal,
    "laplace": autoguide.AutoLaplaceApproximation,
    "map": autoguide.AutoDelta,
}
OPTIMIZERS: dict[str, Callable[[float], Any]] = {
    "adam": numpyro.optim.Adam,
    "clipped_adam": numpyro.optim.ClippedAdam,
    "adagrad": numpyro.optim.Adagrad,
    "rmsprop": numpyro.optim.RMSProp,
    "sgd": numpyro.optim.SGD,
}

#: Elements of log densities held at once when draws are weighted, about 128 MB in float64.
_ELEMENTS_AT_ONCE = 2**24

#: For what runs once: samplers of initial values compile in half the time.
_QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@contextmanager
def session(seed: int, **settings: Any) -> Iterator["NumPyroFit"]:
    """Open a fit; JAX keeps no state between fits."""
    yield NumPyroFit(seed=seed, **settings)


def latents(model: Callable[..., Any], objective: Objective) -> Latents:
    """Run the model once, on shapes alone, and tell its latent sites and plates apart."""
    found = Latents()
    sites = _abstract_trace(model, objective)
    full_size = {s["name"]: s["args"][0] for s in sites.values() if s["type"] == "plate"}
    for name, site in sites.items():
        if site["type"] != "sample":
            continue
        subsampled = any(f.size != full_size[f.name] for f in site["cond_indep_stack"])
        found.subsamples |= subsampled
        found.elements += int(np.prod(site["fn"].batch_shape, dtype=np.int64))
        if site["is_observed"]:
            continue
        if not site["fn"].support.is_discrete:
            found.continuous.append(name)
            found.local |= subsampled
        elif site["fn"].has_enumerate_support:
            found.enumerable.append(name)
        else:
            found.countable.append(name)
    return found


class EnumeratedELBO(ELBO):  # type: ignore[misc]
    """The ELBO of a model whose discrete sites are summed out, for any continuous guide.

    NumPyro's own TraceEnum_ELBO does not take guides over one joint latent vector; this one
    asks the guide for values and log densities only.
    """

    can_infer_discrete = True

    def loss(
        self,
        rng_key: jax.Array,
        param_map: Mapping[str, jax.Array],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> jax.Array:
        """Minus the ELBO, averaged over the particles."""
        from numpyro.contrib.funsor import enum
        from numpyro.contrib.funsor import log_density as enumerated_log_density

        def particle(key: jax.Array) -> jax.Array:
            model_key, guide_key = jax.random.split(key)
            log_q, trace = compute_log_probs(
                handlers.seed(guide, guide_key), args, kwargs, param_map
            )
            values = {k: s["value"] for k, s in trace.items() if s["type"] == "sample"}
            plain = handlers.trace(
                handlers.seed(handlers.substitute(model, {**param_map, **values}), model_key)
            ).get_trace(*args, **kwargs)
            nesting = max(
                (-f.dim for s in plain.values() for f in s.get("cond_indep_stack", ())), default=0
            )
            enumerated = enum(handlers.seed(model, model_key), first_available_dim=-nesting - 1)
            log_p, _ = enumerated_log_density(enumerated, args, kwargs, {**param_map, **values})
            return sum(log_q.values(), start=jnp.zeros(())) - log_p

        keys = jax.random.split(rng_key, self.num_particles)
        return jnp.mean(jax.vmap(particle)(keys))


class NumPyroFit:
    """One run of SVI on NumPyro: the guide being trained and its optimiser's state.

    Parameters
    ----------
    model : callable
        A NumPyro model.
    guide : str or callable
        A name in ``GUIDES`` or a NumPyro guide.
    optimizer : str or object
        A name in ``OPTIMIZERS``, or an optimiser of numpyro.optim or optax.
    learning_rate : float
        Step size; used where the optimiser is named.
    particles : int
        Draws of the guide in each estimate of the ELBO.
    objective : Objective
        What is optimised: the arguments, which may name a minibatch.
    whole : Objective
        What draws are weighted by: the arguments without a minibatch.
    seed : int
        Seed of all of it.
    start : dict, optional
        Values of sites where a named guide is centred at first.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: str | Callable[..., Any],
        *,
        optimizer: Any,
        learning_rate: float,
        particles: int,
        objective: Objective,
        whole: Objective,
        seed: int,
        start: Mapping[str, Any] | None = None,
    ) -> None:
        self._start, self._draw_key = jax.random.split(jax.random.key(seed))
        self._objective, self._whole = objective, whole
        self._latents = latents(model, objective)
        self._model = _enumerated(model) if self._latents.enumerable else model
        self._guide = GUIDES[guide] if isinstance(guide, str) else guide
        self._is_named = isinstance(guide, str)
        self._optim = (
            OPTIMIZERS[optimizer](learning_rate) if isinstance(optimizer, str) else optimizer
        )
        self._particles = particles
        self._state: Any = None
        self._settled: Any = None
        self._replaced: dict[str, jax.Array] = {}
        self._begin = jax.jit(lambda: self._svi(objective)[1], compiler_options=_QUICKLY)
        self._block = jax.jit(self._run_block, static_argnums=2)
        self._constrain = jax.jit(
            lambda iterate: self._svi(objective)[0].constrain_fn(iterate), compiler_options=_QUICKLY
        )
        self._centre = start
        self._curvature = jax.jit(self._curvature_of)

    # Automatic guides and NumPyro's SVI keep arrays of the trace they were first called in, so
    # each compiled function makes its own; what it does not use of them the compiler prunes.

    def _make_guide(self) -> Any:
        if not self._is_named:
            return copy.deepcopy(self._guide)
        model = self._model
        if self._latents.enumerable:
            # Seeded inside, since what is hidden is not seen by the seeds outside.
            model = handlers.block(
                handlers.seed(model, self._start), hide=list(self._latents.enumerable)
            )
        centre = init_to_median if self._centre is None else init_to_value(values=self._centre)
        return self._guide(model, init_loc_fn=centre)

    def _svi(self, objective: Objective) -> tuple[Any, Any]:
        svi = numpyro.infer.SVI(
            self._model, self._make_guide(), self._optim, self._elbo(self._particles)
        )
        return svi, svi.init(self._start, *objective.args, **objective.kwargs)

    def _elbo(self, particles: int) -> ELBO:
        if not self._latents.enumerable:
            return Trace_ELBO(num_particles=particles)
        # NumPyro scales the log densities of a minibatch before it sums over the discrete
        # values, except in TraceEnum_ELBO.
        kind = TraceEnum_ELBO if self._latents.subsamples else EnumeratedELBO
        return kind(num_particles=particles)

    def latents(self) -> Latents:
        """Sites of the model as it is trained."""
        return self._latents

    def guide_sites(self) -> dict[str, bool]:
        """Sample sites of the guide, and whether each is discrete."""
        sites = _abstract_trace(self._make_guide(), self._objective)
        return {
            name: bool(site["fn"].support.is_discrete)
            for name, site in sites.items()
            if site["type"] == "sample"
        }

    def _run_block(self, state: Any, n: jax.Array, length: int) -> tuple[Any, Any, jax.Array]:
        """Take n of at most ``length`` steps; the state, the mean of the iterates, the ELBOs."""
        args, kwargs = self._objective.args, self._objective.kwargs
        svi, _ = self._svi(self._objective)

        def step(carry: tuple[Any, Any], i: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
            state, total = carry

            def take(state: Any) -> tuple[Any, jax.Array]:
                state, loss = svi.update(state, *args, **kwargs)
                return state, -loss

            def leave(state: Any) -> tuple[Any, jax.Array]:
                return state, jnp.full((), jnp.nan)

            state, elbo = lax.cond(i < n, take, leave, state)
            iterate = svi.optim.get_params(state.optim_state)
            total = jax.tree.map(lambda t, p: t + jnp.where(i < n, p, 0.0), total, iterate)
            return (state, total), elbo

        nought = jax.tree.map(jnp.zeros_like, svi.optim.get_params(state.optim_state))
        (state, total), elbos = lax.scan(step, (state, nought), jnp.arange(length))
        return state, jax.tree.map(lambda t: t / n, total), elbos

    def advance(self, n: int, length: int) -> tuple[NDArray[np.float64], Any]:
        """Take n steps in one compiled block of ``length``; return the ELBOs and mean iterate."""
        if self._state is None:
            self._state = self._begin()
        self._state, mean, elbos = self._block(self._state, jnp.asarray(n), length)
        return np.asarray(elbos, dtype=np.float64)[:n], mean

    def settle(self, iterates: Sequence[Any]) -> None:
        """Take the mean of some iterates (unconstrained) for the answer."""
        self._settled = jax.tree.map(lambda *p: sum(p) / len(p), *iterates)

    def params(self) -> dict[str, Any]:
        """Parameters of guide and model, in their constrained spaces."""
        if self._replaced:
            return self._replaced
        iterate = self._settled
        if iterate is None:
            optim = numpyro.infer.SVI(None, None, self._optim, None).optim
            iterate = optim.get_params(self._state.optim_state)
        return dict(self._constrain(iterate))

    def mode(self) -> NDArray[np.float64]:
        """Where the Laplace guide stands, in the unconstrained space."""
        return np.asarray(self.params()["auto_loc"])

    def curvature(
        self, loc: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Minus the log joint, its gradient and Hessian at a point of the unconstrained space."""
        value, gradient, hessian = self._curvature(jnp.asarray(loc), self.params())
        return float(value), np.asarray(gradient), np.asarray(hessian)

    def _curvature_of(
        self, loc: jax.Array, params: dict[str, Any]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        guide, elbo = self._make_guide(), self._elbo(1)

        def potential(z: jax.Array) -> jax.Array:
            return elbo.loss(
                self._start,
                {**params, "auto_loc": z},
                self._model,
                guide,
                *self._whole.args,
                **self._whole.kwargs,
            )

        # Made ready outside the differentiation, whose tracers it would keep.
        with handlers.block():
            handlers.seed(guide, self._start)(*self._whole.args, **self._whole.kwargs)
        value, gradient = jax.value_and_grad(potential)(loc)
        return value, gradient, jax.hessian(potential)(loc)

    def become_normal(self, loc: NDArray[np.float64], scale_tril: NDArray[np.float64]) -> None:
        """Exchange the guide for the multivariate normal with this mean and Cholesky factor."""
        self._replaced = {
            **self.params(),
            "auto_loc": jnp.asarray(loc),
            "auto_scale_tril": jnp.asarray(scale_tril),
        }
        self._guide = autoguide.AutoMultivariateNormal

    def draw(self, n: int, *, weights: int) -> Draws:
        """Draw n times from the guide; log weights are log p(x, z) - log q(z)."""
        args, kwargs = self._whole.args, self._whole.kwargs
        elbo = self._elbo(1)

        def weighed(params: Any, key: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
            guide_key, model_key = jax.random.split(key)
            guide = handlers.substitute(self._make_guide(), params)
            trace = handlers.trace(handlers.seed(guide, guide_key)).get_trace(*args, **kwargs)
            latent = {k: s["value"] for k, s in trace.items() if s["type"] == "sample"}
            if not weights:
                return latent, jnp.zeros(())
            drawn = handlers.substitute(guide, latent)
            return latent, -elbo.loss(model_key, params, self._model, drawn, *args, **kwargs)

        def one(params: Any, key: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
            latent, log_weight = weighed(params, key)
            model = handlers.substitute(self._model, {**params, **latent})
            model = handlers.seed(model, jax.random.split(key)[1])
            sites = handlers.trace(model).get_trace(*args, **kwargs)
            return {k: s["value"] for k, s in sites.items() if self._is_kept(s)}, log_weight

        def further(params: Any, key: jax.Array) -> jax.Array:
            return weighed(params, key)[1]

        params = self.params()
        keys = jax.random.split(self._draw_key, max(n, weights))
        at_once = max(1, _ELEMENTS_AT_ONCE // max(1, self._latents.elements))

        def over(function: Callable[..., Any], keys: jax.Array, options: Any = None) -> Any:
            size = min(len(keys), at_once)
            many = jax.jit(
                lambda params, keys: lax.map(partial(function, params), keys, batch_size=size),
                compiler_options=options,
            )
            return many(params, keys)

        values, log_weights = over(one, keys[:n])
        if weights > n:
            log_weights = np.concatenate([log_weights, over(further, keys[n:], _QUICKLY)])
        return Draws(
            {k: np.asarray(v) for k, v in values.items()},
            np.asarray(log_weights, dtype=np.float64),
            {k: jax.tree.map(np.asarray, v) for k, v in params.items()},
        )

    def _is_kept(self, site: Mapping[str, Any]) -> bool:
        if site["type"] == "sample":
            return site["name"] in self._latents.continuous
        # A function of a discrete site that was summed out has no value of its own.
        return site["type"] == "param" or (
            site["type"] == "deterministic" and not self._latents.enumerable
        )


def _enumerated(model: Callable[..., Any]) -> Callable[..., Any]:
    """Mark the finite discrete sites of a model to be summed out."""
    from numpyro.contrib.funsor import config_enumerate

    marked: Callable[..., Any] = config_enumerate(model)
    return marked


def _abstract_trace(function: Callable[..., Any], objective: Objective) -> dict[str, Any]:
    """Trace a model or guide without computing anything: its values have shapes only."""
    sites: dict[str, Any] = {}

    def run(key: jax.Array) -> None:
        seeded = handlers.seed(function, key)
        sites.update(handlers.trace(seeded).get_trace(*objective.args, **objective.kwargs))

    jax.eval_shape(run, jax.random.key(0))
    return sites
