"""NUTS on Pyro, chain after chain, for native Pyro models and programs with torch networks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer.autoguide.initialization import (
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)
from pyro.infer.mcmc import NUTS

from ppl_gen.engines import Engine
from ppl_gen.inference.nuts_core import Arrays, Run, Settings

__all__ = ["run_chains"]

INITS: dict[str, Callable[..., Any]] = {
    "uniform": init_to_uniform,
    "median": init_to_median,
    "mean": init_to_mean,
    "prior": init_to_sample,
}


class _Kernel(NUTS):  # type: ignore[misc]
    """Pyro's kernel, which also keeps what it computes of each trajectory."""

    def start_trajectory(self) -> None:
        self.n_steps = 0
        self.accepted = 0.0
        self.energy = np.nan
        self.divergences = len(self._divergences)

    def _build_basetree(self, *args: Any) -> Any:
        tree = super()._build_basetree(*args)
        self.n_steps += 1
        self.accepted += float(tree.sum_accept_probs)
        self.energy = float(args[-1])  # of the start: the trajectory conserves it
        return tree

    def stats(self) -> dict[str, Any]:
        return {
            "diverging": len(self._divergences) > self.divergences,
            "energy": self.energy,
            "lp": -float(self._fetch_from_cache()[1]),
            "n_steps": self.n_steps,
            "acceptance_rate": self.accepted / max(self.n_steps, 1),
            "step_size": float(self.step_size),
        }


def run_chains(
    engine: Engine,
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    settings: Settings,
    *,
    chains: int,
    draws: int,
    thinning: int,
    seed: int,
    dtype: str | None,
    device: str,
    on_progress: Callable[[int, str], None],
) -> Run:
    """Run chains one after another, to the end or to Ctrl-C.

    Parameters and errors are those of :func:`ppl_gen.inference.nuts_numpyro.run_chains`. An
    interrupted run keeps the chains that were finished, or what there is of the first one.
    """
    finished: list[tuple[Arrays, Arrays]] = []
    interrupted = False
    cuda = list(range(torch.cuda.device_count()))
    with (
        engine.precision(dtype, device),
        pyro.get_param_store().scope(),
        torch.random.fork_rng(devices=cuda),
    ):
        for chain in range(chains):
            torch.manual_seed(seed + 1_000_003 * chain)
            rows: list[tuple[dict[str, Any], dict[str, Any]]] = []
            try:
                _run_chain(
                    model, args, kwargs, settings, draws * thinning, rows.append, on_progress
                )
            except KeyboardInterrupt:
                interrupted = True
            kept = rows[thinning - 1 :: thinning]
            if kept and (not interrupted or not finished):
                finished.append(_stack(kept))
            if interrupted:
                break
        if not finished:
            raise KeyboardInterrupt
    values = {n: np.stack([chain[0][n] for chain in finished]) for n in finished[0][0]}
    stats = {n: np.stack([chain[1][n] for chain in finished]) for n in finished[0][1]}
    return Run(values, stats, interrupted, 0.0)


def _run_chain(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    settings: Settings,
    draws: int,
    keep: Callable[[tuple[dict[str, Any], dict[str, Any]]], None],
    on_progress: Callable[[int, str], None],
) -> None:
    kernel = _Kernel(
        model,
        full_mass=settings.dense_mass,
        target_accept_prob=settings.target_accept,
        max_tree_depth=settings.max_tree_depth,
        init_strategy=INITS[settings.init]
        if settings.start is None
        else init_to_value(values={n: torch.as_tensor(v) for n, v in settings.start.items()}),
    )
    try:
        kernel.setup(settings.warmup, *args, **kwargs)
    except ValueError as error:
        if "valid initial params" not in str(error):
            raise
        raise FloatingPointError("no start with a finite density and gradient") from error
    state = kernel.initial_params
    try:
        for step in range(settings.warmup + draws):
            kernel.start_trajectory()
            state = kernel.sample(state)
            if step >= settings.warmup:
                values = {name: kernel.transforms[name].inv(z) for name, z in state.items()}
                keep(({n: v.detach().cpu().numpy() for n, v in values.items()}, kernel.stats()))
            on_progress(1, "warm-up" if step < settings.warmup else "draws")
    finally:
        kernel.cleanup()


def _stack(rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[Arrays, Arrays]:
    """Rows of one chain as arrays with the draws in front."""
    return (
        {name: np.stack([row[0][name] for row in rows]) for name in rows[0][0]},
        {name: np.array([row[1][name] for row in rows]) for name in rows[0][1]},
    )
