"""NUTS on NumPyro, in blocks: one compiled function, called again and again.

NumPyro's own driver compiles anew for each chain method and cannot be stopped between draws. Here
its kernel (`numpyro.infer.hmc`) is compiled once into a block of as many steps as are asked for,
up to a bound; warm-up and draws, first block and last, run the same executable. On a CPU the
executable is that of one chain, and threads run it side by side: it compiles faster than a
vectorised one, and a chain never waits for the longest trajectory of the others.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to
from numpyro.infer import init_to_mean, init_to_median, init_to_sample, init_to_uniform
from numpyro.infer.hmc import hmc
from numpyro.infer.util import initialize_model

from ppl_gen.engines import Engine
from ppl_gen.inference.nuts_core import START_RADIUS, Run, Settings

__all__ = ["block", "run_chains", "start"]

Model = Callable[..., Any]

INITS: dict[str, Callable[..., Any]] = {
    "uniform": init_to_uniform,
    "median": init_to_median,
    "mean": init_to_mean,
    "prior": init_to_sample,
}

#: Seconds that a block should take: how long Ctrl-C and the progress bar may wait.
BLOCK_SECONDS = 0.5
#: Bounds on the steps of a block; the upper one also holds its buffers in memory.
BLOCK_STEPS = 1000
BLOCK_BYTES = 64 * 2**20
#: Floating arrays over this many elements are passed to the compiled function as arguments;
#: smaller ones stay constants, which a program may also use in plain Python.
CONSTANT_ELEMENTS = 100_000


def _near(start: Mapping[str, Any]) -> Callable[..., Any]:
    """Start sites near given values, spread out so that chains that agree mean something."""

    def near(site: dict[str, Any] | None = None) -> Any:
        if site is None or site["type"] != "sample" or site["is_observed"]:
            return None
        if site["name"] not in start:
            return init_to_uniform(site)
        transform = biject_to(site["fn"].support)
        centre = transform.inv(jnp.asarray(start[site["name"]]))
        noise = jax.random.normal(site["kwargs"]["rng_key"], jnp.shape(centre), centre.dtype)
        return transform(centre + START_RADIUS * noise)

    return functools.partial(near)


class Draw(NamedTuple):
    """What is kept of one step: values of the sites, and what the kernel tells."""

    sites: dict[str, Any]
    stats: dict[str, Any]


def _kernel(
    model: Model, args: Sequence[Any], kwargs: Mapping[str, Any], settings: Settings, key: Any
) -> tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the first state, the transition and the map to the program's sites.

    Made anew in every traced function: NumPyro's closures hold arrays of the trace they were
    made in. What the caller does not use of it is pruned by the compiler.
    """
    key_init, key_chain = jax.random.split(key)
    info = initialize_model(
        key_init,
        model,
        init_strategy=INITS[settings.init]() if settings.start is None else _near(settings.start),
        dynamic_args=True,
        model_args=tuple(args),
        model_kwargs=dict(kwargs),
    )
    names = tuple(sorted(info.param_info.z))
    init_kernel, sample_kernel = hmc(potential_fn_gen=info.potential_fn, algo="NUTS")
    state = init_kernel(
        info.param_info,
        settings.warmup,
        dense_mass=[names] if settings.dense_mass else [],
        target_accept_prob=settings.target_accept,
        max_tree_depth=settings.max_tree_depth,
        model_args=tuple(args),
        model_kwargs=dict(kwargs),
        rng_key=key_chain,
    )
    constrain = info.postprocess_fn(*args, **kwargs)
    return state, lambda s: sample_kernel(s, tuple(args), dict(kwargs)), constrain


def start(
    model: Model, args: Sequence[Any], kwargs: Mapping[str, Any], settings: Settings, key: Any
) -> Any:
    """Return the first state of a chain; pure, so that it can be jitted and vmapped."""
    return _kernel(model, args, kwargs, settings, key)[0]


def block(
    model: Model,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    settings: Settings,
    state: Any,
    steps: Any,
    capacity: int,
) -> tuple[Any, Draw]:
    """Run `steps` transitions and return the last state and the draws; pure.

    Parameters
    ----------
    state : HMCState
    steps : int or traced int
        At most `capacity`.
    capacity : int
        Length of the buffers; rows from `steps` on are zero.

    Returns
    -------
    state : HMCState
    draws : Draw
        Arrays with the leading axis `capacity`.
    """
    _, transition, constrain = _kernel(model, args, kwargs, settings, jax.random.key(0))

    def draw_of(state: Any) -> Draw:
        stats = {
            "diverging": state.diverging,
            "energy": state.energy,
            "lp": -state.potential_energy,
            "n_steps": state.num_steps,
            "acceptance_rate": state.accept_prob,
            "step_size": state.adapt_state.step_size,
        }
        return Draw(dict(constrain(state.z)), stats)

    shapes = jax.eval_shape(draw_of, state)
    buffers = jax.tree.map(lambda a: jnp.zeros((capacity, *a.shape), a.dtype), shapes)

    def step(i: Any, carry: tuple[Any, Draw]) -> tuple[Any, Draw]:
        state, buffers = carry
        state = transition(state)
        draw = draw_of(state)
        return state, jax.tree.map(lambda b, v: b.at[i].set(v), buffers, draw)

    done: tuple[Any, Draw] = jax.lax.fori_loop(0, steps, step, (state, buffers))
    return done


class _Call:
    """A call with its large arrays taken out, so that they are arguments of compiled code."""

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        leaves, self._structure = jax.tree.flatten(
            (tuple(args), dict(kwargs)), is_leaf=lambda x: x is None
        )
        self._leaves = leaves
        self._large = [i for i, leaf in enumerate(leaves) if _is_large(leaf)]

    @property
    def arrays(self) -> list[Any]:
        return [self._leaves[i] for i in self._large]

    def restore(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        leaves = list(self._leaves)
        for i, array in zip(self._large, arrays, strict=True):
            leaves[i] = array
        args, kwargs = jax.tree.unflatten(self._structure, leaves)
        return args, kwargs


def _is_large(leaf: Any) -> bool:
    kind = getattr(getattr(leaf, "dtype", None), "kind", "")
    return kind == "f" and int(np.size(leaf)) > CONSTANT_ELEMENTS


def run_chains(
    engine: Engine,
    model: Model,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    settings: Settings,
    *,
    chains: int,
    draws: int,
    thinning: int,
    seed: int,
    chain_method: str,
    row_size: int,
    dtype: str | None,
    device: str,
    on_progress: Callable[[int, str], None],
) -> Run:
    """Run chains to the end or to Ctrl-C.

    Parameters
    ----------
    engine : Engine
        NumPyro's.
    model : callable
        A NumPyro model, discrete latents already enumerated.
    args, kwargs
        What it is conditioned on.
    settings : Settings
    chains, draws, thinning, seed : int
    chain_method : {"parallel", "vectorized", "sequential"}
    row_size : int
        Numbers in one draw of all sites, which bounds the length of a block.
    dtype, device
        See `Engine.precision`.
    on_progress : callable
        Called with steps made and a note.

    Returns
    -------
    Run

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C before the first draw is kept, and on a second one.
    FloatingPointError
        If no start with a finite density was found for some chain.
    """
    call = _Call(args, kwargs)
    began = time.perf_counter()
    vectorized = chain_method == "vectorized"
    with engine.precision(dtype, device):
        arrays = [engine.asarray(a) for a in call.arrays]
        keys = jax.random.split(jax.random.key(seed), chains)

        def begin(key: Any, arrays: Any) -> Any:
            return start(model, *call.restore(arrays), settings, key)

        first = jax.jit(jax.vmap(begin, in_axes=(0, None)) if vectorized else begin)
        states = [first(keys, arrays)] if vectorized else [first(key, arrays) for key in keys]
        for leaf in jax.tree.leaves([(s.potential_energy, s.z_grad) for s in states]):
            if not bool(jnp.all(jnp.isfinite(leaf))):
                raise FloatingPointError("no start with a finite density and gradient")
        capacity = max(1, min(BLOCK_STEPS, BLOCK_BYTES // (8 * max(1, row_size))))

        def advance(state: Any, steps: Any, arrays: Any) -> Any:
            return block(model, *call.restore(arrays), settings, state, steps, capacity)

        over = jax.vmap(advance, in_axes=(0, None, None)) if vectorized else advance
        compiled = jax.jit(over).lower(states[0], jnp.asarray(1), arrays).compile()
    compile_seconds = time.perf_counter() - began

    def run_block(state: Any, steps: int) -> tuple[Any, Draw]:
        # The precision is a thread's own: each worker enters it.
        with engine.precision(dtype, device):
            state, made = compiled(state, jnp.asarray(steps), arrays)
            made = jax.tree.map(np.asarray, made)
        # One chain alone lacks the axis that chains are joined along.
        whole = made if vectorized else jax.tree.map(lambda a: a[None], made)
        return state, jax.tree.map(lambda a: a[:, :steps], whole)

    with ThreadPoolExecutor(chains if chain_method == "parallel" else 1) as pool:
        kept, interrupted = _collect(
            lambda states, steps: list(pool.map(lambda s: run_block(s, steps), states)),
            states,
            settings.warmup,
            draws * thinning,
            capacity,
            on_progress,
        )
    chains_of_blocks = [
        jax.tree.map(lambda *a: np.concatenate(a, axis=0), *results) for results in kept
    ]
    joined = jax.tree.map(
        lambda *a: np.concatenate(a, axis=1)[:, thinning - 1 :: thinning], *chains_of_blocks
    )
    return Run(joined.sites, joined.stats, interrupted, compile_seconds)


def _collect(
    advance: Callable[[list[Any], int], list[tuple[Any, Draw]]],
    states: list[Any],
    warmup: int,
    draws: int,
    capacity: int,
    on_progress: Callable[[int, str], None],
) -> tuple[list[list[Draw]], bool]:
    """Run warm-up, then draws, block after block; on Ctrl-C stop with what there is."""
    kept: list[list[Draw]] = []
    done = 0
    try:
        for phase, total in (("warm-up", warmup), ("draws", draws)):
            left = total
            steps = min(10, capacity)
            while left > 0:
                steps = min(steps, left)
                began = time.perf_counter()
                results = advance(states, steps)
                seconds = time.perf_counter() - began
                states = [state for state, _ in results]
                if phase == "draws":
                    kept.append([draw for _, draw in results])
                left -= steps
                done += steps
                on_progress(steps, phase)
                # As many steps as fit in the time between two looks at the keyboard.
                rate = steps / max(seconds, 1e-6)
                steps = int(np.clip(rate * BLOCK_SECONDS, 1, min(capacity, 4 * steps)))
    except KeyboardInterrupt:
        if not kept:
            raise
        return kept, True
    return kept, False
