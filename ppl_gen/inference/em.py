"""Expectation-maximisation for any model that has the protocol.

A model is fitted by EM if it can start (`initialize`), sum its expected sufficient statistics
over rows (`e_step`) and estimate from them (`m_step`). The statistics add,
``e_step(a ++ b) == e_step(a) + e_step(b)``, and from this one law follow working in chunks on
every core, stepwise minibatches, and running wherever the rows are.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from tqdm.auto import tqdm

from ppl_gen.algorithms.row_chunks import workers
from ppl_gen.algorithms.trees import tree_map, tree_sum
from ppl_gen.inference.base import InferenceMethod

Parameters = dict[str, Any]
Statistics = dict[str, Any]

#: Share of the objective that rounding may take in a step before it counts as a fall.
ROUNDING = 1e-9


class Data(Protocol):
    """What EM asks of its data: rows (or sequences) that can be counted, weighed and sliced."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Any: ...

    @property
    def slices(self) -> list[slice]:
        """What to work on at once, so that intermediates stay in the cache."""

    def blocks(self) -> Iterator[Any]:
        """Yield the data in large pieces for a device; each is rebuilt from its ``arrays``."""

    @property
    def total_weight(self) -> float:
        """Sum of the weights of the rows."""


class EMProblem(Protocol):
    """What EM asks of a model. All are pure functions of their arguments."""

    def initialize(self, data: Any, rng: np.random.Generator, how: str) -> Parameters:
        """Return parameters to start from; `how` is "kmeans" or "random"."""

    def e_step(self, parameters: Parameters, data: Any) -> tuple[Statistics, Any]:
        """Return the expected statistics and the log likelihood of some rows."""

    def m_step(self, statistics: Statistics) -> Parameters:
        """Maximise the expected log joint density, less the penalty."""

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        """Return what the M-step subtracts: negative log prior, and other regularisation."""

    def revive(
        self, parameters: Parameters, statistics: Statistics, data: Any, rng: np.random.Generator
    ) -> tuple[Parameters, int]:
        """Re-seed the components that died; return how many."""


@dataclass(frozen=True)
class EMResult:
    """What a run of EM found.

    Attributes
    ----------
    parameters : dict
    objective : float
        Log likelihood a unit of weight (a row), in nats, less the penalty a row.
    lower_bound : float
        Log likelihood a row, at the parameters before the last M-step.
    history : list of float
        The objective at every iteration of the best start.
    n_iter : int
    converged : bool
    objectives : list of float
        Where each start ended.
    interrupted : bool
    n_revived : int
    """

    parameters: Parameters
    objective: float
    lower_bound: float
    history: list[float]
    n_iter: int
    converged: bool
    objectives: list[float]
    interrupted: bool
    n_revived: int


class EM(InferenceMethod):
    """Expectation-maximisation.

    Parameters
    ----------
    max_iter : int or None
        Steps at most; in minibatches, passes over the data at most. None takes the model's own
        number: 100, or 1000 where sequences have hidden states.
    tol : float or None
        Converged when the objective changes by less than this, in nats a row. None takes the
        model's own: 1e-3, or 1e-6 where sequences have hidden states, whose likelihoods rise
        slowly long before they have risen.
    n_init : int
        Starts; the one with the best objective is kept.
    init : {"kmeans", "random"}
        How the starts are made: k-means++ and Lloyd's steps, or a random assignment.
    batch_size : int or None
        Rows (or sequences) of a minibatch, for stepwise EM; None uses all rows at each step.
    engine : {"auto", "numpy", "jax"}, or the name of a peer
        Where the E-step runs: NumPy in threads over row chunks, which compiles nothing, on a
        CPU; JAX on a GPU; or another library, where the model has it as one of its peers, as
        hidden Markov models have "hmmlearn".

    Notes
    -----
    Dempster, Laird & Rubin, JRSS B 39 (1977); priors make it MAP estimation. Minibatches follow
    Cappe & Moulines, JRSS B 71 (2009), eq. 7, with step sizes (t + 2)^-0.7. A step that lowers
    the objective by more than rounding is a fault of the model: it is reported as one, and never
    taken for convergence.

    Examples
    --------
    >>> from ppl_gen import EM, GaussianMixture
    >>> import numpy as np
    >>> X = np.concatenate([np.arange(10.0), 100 + np.arange(10.0)])[:, None]
    >>> model = GaussianMixture(2, inference=EM(n_init=2), random_state=0).fit(X)
    >>> sorted(model.means_[:, 0].round(1).tolist())
    [4.5, 104.5]
    """

    name = "em"

    def __init__(
        self,
        max_iter: int | None = None,
        tol: float | None = None,
        n_init: int = 1,
        init: str = "kmeans",
        batch_size: int | None = None,
        engine: str = "auto",
    ) -> None:
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.init = init
        self.batch_size = batch_size
        self.engine = engine

    def check(self) -> None:
        """Raise ValueError if a setting is out of range."""
        for name in ("max_iter", "n_init", "batch_size"):
            value = getattr(self, name)
            if value is None and name != "n_init":
                continue
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"EM: {name} is {value!r}; expected a whole number, at least 1")
        tol = 0.0 if self.tol is None else self.tol
        if not isinstance(tol, int | float | np.number) or not tol >= 0.0:
            raise ValueError(f"EM: tol is {self.tol!r}; it must be at least 0")
        if self.init not in ("kmeans", "random"):
            raise ValueError(f"EM: init is {self.init!r}; expected 'kmeans' or 'random'")

    def fit(
        self,
        problem: EMProblem,
        data: Data,
        rng: np.random.Generator,
        *,
        start: Parameters | Callable[[np.random.Generator], Parameters] | None = None,
        device: str = "cpu",
        progress: bool = False,
    ) -> EMResult:
        """Fit a model to its data.

        Parameters
        ----------
        problem : EMProblem
        data : Data
        rng : numpy.random.Generator
        start : dict or callable, optional
            Parameters to start from, in place of `initialize`; then there is one start. Or a
            function that makes them for each start, given the random numbers.
        device : str
            "cpu", or a CUDA device for the JAX route.
        progress : bool
            Show a bar.

        Returns
        -------
        EMResult

        Warns
        -----
        RuntimeWarning
            If components died and were re-seeded, or the objective fell.
        ConvergenceWarning
            If the steps ran out before the objective had settled.
        """
        self.check()
        settings = self._settled(problem)
        best: _Run | None = None
        objectives: list[float] = []
        interrupted, n_revived, n_init = False, 0, 1 if isinstance(start, dict) else self.n_init
        evaluator = self._evaluator(problem, device)
        with evaluator(problem, data, device, self.batch_size) as evaluate:
            for _ in range(n_init):
                run = _Run(problem, data, evaluate, rng, settings, progress)
                interrupted = run.go(start)
                n_revived += run.n_revived
                if run.history:
                    objectives.append(run.history[-1])
                    if best is None or run.history[-1] > best.history[-1]:
                        best = run
                if interrupted:
                    break
        if best is None:
            raise KeyboardInterrupt
        if interrupted:
            warnings.warn(
                "EM.fit: interrupted; the fit is partial: it keeps the best parameters so far, "
                "and can be used and saved; fit again with warm_start=True to go on",
                RuntimeWarning,
                stacklevel=3,
            )
        if n_revived:
            warnings.warn(
                f"EM.fit: components died (answered for no row) and were re-seeded, {n_revived} "
                "times in all; use fewer components, or a prior, if this goes on",
                RuntimeWarning,
                stacklevel=3,
            )
        if not (best.converged or interrupted) and settings.tol:
            gain = best.history[-1] - best.history[-2] if len(best.history) > 1 else np.inf
            warnings.warn(
                f"EM.fit: not converged in {settings.max_iter} steps: the last one gained "
                f"{gain:.2g} nats a row, and tol is {settings.tol:.2g}; raise max_iter, or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        return EMResult(
            parameters=best.parameters,
            objective=best.history[-1],
            lower_bound=best.lower_bound,
            history=best.history,
            n_iter=len(best.history),
            converged=best.converged,
            objectives=objectives,
            interrupted=interrupted,
            n_revived=n_revived,
        )

    def _settled(self, problem: EMProblem) -> "EM":
        """Return the settings with the model's own where none are made."""
        own = {"max_iter": 100, "tol": 1e-3} | getattr(problem, "em_settings", {})
        left = {name: value for name, value in own.items() if getattr(self, name) is None}
        settings: EM = clone(self).set_params(**left)
        return settings

    def _evaluator(self, problem: EMProblem, device: str) -> Any:
        """Return the context in which the E-step runs."""
        engine = self.engine if self.engine != "auto" else "numpy" if device == "cpu" else "jax"
        peers = getattr(problem, "peers", {})
        if engine in peers:
            return functools.partial(_numpy_evaluator, e_step=peers[engine])
        if engine not in ("numpy", "jax"):
            known = ", ".join(map(repr, ["auto", "numpy", "jax", *peers]))
            raise ValueError(f"EM: engine is {self.engine!r}; this model has {known}")
        return _numpy_evaluator if engine == "numpy" else _jax_evaluator


Evaluate = Callable[[Parameters, Any], tuple[Statistics, float]]


class _Run:
    """One start of EM, and where it has got to."""

    def __init__(
        self,
        problem: EMProblem,
        data: Data,
        evaluate: Evaluate,
        rng: np.random.Generator,
        settings: EM,
        progress: bool,
    ) -> None:
        self.problem, self.data, self.evaluate, self.rng = problem, data, evaluate, rng
        self.settings, self.progress = settings, progress
        assert settings.max_iter is not None
        assert settings.tol is not None
        self.max_iter, self.tol = settings.max_iter, settings.tol
        self.parameters: Parameters = {}
        self.history: list[float] = []
        self.lower_bound = -np.inf
        self.converged = False
        self.n_revived = 0

    def go(self, start: Parameters | Callable[..., Parameters] | None) -> bool:
        """Run to convergence or the last step; return whether Ctrl-C stopped it."""
        settings = self.settings
        try:
            if start is None:
                self.parameters = self.problem.initialize(self.data, self.rng, settings.init)
            else:
                self.parameters = start(self.rng) if callable(start) else start
            steps = self._full() if settings.batch_size is None else self._stepwise()
            bar: Any = tqdm(total=self.max_iter, desc="EM", delay=1.0, disable=not self.progress)
            with bar:
                for objective in steps:
                    bar.set_postfix_str(f"{objective:.6g} nats a row", refresh=False)
                    bar.update()
                    self.history.append(objective)
                    if self._has_converged() or len(self.history) >= self.max_iter:
                        break
        except KeyboardInterrupt:
            return True
        return False

    def _has_converged(self) -> bool:
        if len(self.history) > 1 and abs(self.history[-1] - self.history[-2]) < self.tol:
            self.converged = True
        return self.converged

    def _full(self) -> Any:
        """Yield the objective before each M-step on all rows."""
        total = self.data.total_weight
        allowed: tuple[float, float] | None = None  # log likelihood, and how far it may fall
        while True:
            statistics, log_likelihood = self.evaluate(self.parameters, slice(None))
            _check_finite(log_likelihood, len(self.history))
            if allowed is not None and log_likelihood < allowed[0] - allowed[1]:
                warnings.warn(
                    f"EM.fit: the objective fell by {allowed[0] - log_likelihood:.3g} nats at "
                    f"step {len(self.history) + 1}, which an exact EM step never does; the "
                    "model's e_step and m_step disagree",
                    RuntimeWarning,
                    stacklevel=6,
                )
                return
            self.lower_bound = log_likelihood / total
            updated = self.problem.m_step(statistics)
            before = self.problem.penalty(self.parameters, statistics)
            after = self.problem.penalty(updated, statistics)
            self.parameters = updated
            yield (log_likelihood - before) / total
            # Only where there is another step: what is returned is what the M-step found.
            updated, n_revived = self.problem.revive(updated, statistics, self.data, self.rng)
            self.n_revived += n_revived
            rounding = ROUNDING * (abs(log_likelihood) + total)
            # L(new) - L(old) >= penalty(new) - penalty(old), both at these statistics.
            allowed = None if n_revived else (log_likelihood, before - after + rounding)
            self.parameters = updated

    def _stepwise(self) -> Any:
        """Yield the mean objective of the minibatches of each pass over the rows."""
        batch = self.settings.batch_size
        assert batch is not None
        n_rows = len(self.data)
        running: Statistics | None = None
        step = 0
        while True:
            order = self.rng.permutation(n_rows)
            total = 0.0
            # Batches of near equal size: a short one would weigh as much as the others.
            for chosen in np.array_split(order, -(-n_rows // batch)):
                share = n_rows / len(chosen)
                fresh, log_likelihood = self.evaluate(self.parameters, np.sort(chosen))
                _check_finite(log_likelihood, len(self.history))
                fresh = tree_map(lambda s, share=share: s * share, fresh)
                rate = (step + 2.0) ** -0.7 if running is not None else 1.0
                if running is None:
                    running = fresh
                else:
                    running = tree_map(
                        lambda old, new, rate=rate: old + rate * (new - old), running, fresh
                    )
                self.parameters = self.problem.m_step(running)
                total += log_likelihood
                step += 1
            assert running is not None
            weight = self.data.total_weight
            self.lower_bound = total / weight
            yield (total - self.problem.penalty(self.parameters, running)) / weight


def _check_finite(log_likelihood: float, n_iter: int) -> None:
    if not np.isfinite(log_likelihood):
        raise FloatingPointError(
            f"EM.fit: the log likelihood is {log_likelihood} at step {n_iter + 1}; a class has "
            "collapsed or a value lies outside of the family's support; scale the data, add a "
            "prior, or use fewer components"
        )


@contextmanager
def _numpy_evaluator(
    problem: EMProblem, data: Data, device: str, batch_size: int | None, e_step: Any = None
) -> Any:
    """Sum the E-step over row chunks, on every core."""
    e_step = problem.e_step if e_step is None else e_step

    def evaluate_with(mapped: Any) -> Evaluate:
        def evaluate(parameters: Parameters, rows: Any) -> tuple[Statistics, float]:
            if isinstance(rows, slice):
                parts = mapped(lambda chunk: e_step(parameters, data[chunk]))
                return _sum_parts(parts)
            statistics, log_likelihood = e_step(parameters, data[rows])
            return statistics, float(log_likelihood)

        return evaluate

    pool: AbstractContextManager[Any] = (
        workers(data.slices) if batch_size is None else nullcontext()
    )
    with pool as mapped:
        yield evaluate_with(mapped)


def _sum_parts(parts: Sequence[tuple[Statistics, Any]]) -> tuple[Statistics, float]:
    statistics = tree_sum([part[0] for part in parts])
    return statistics, float(sum(float(part[1]) for part in parts))


@contextmanager
def _jax_evaluator(problem: EMProblem, data: Data, device: str, batch_size: int | None) -> Any:
    """Sum the E-step over large pieces in compiled calls, on a device."""
    from ppl_gen import engines

    engine = engines.get("numpyro")
    import jax

    @functools.partial(jax.jit, static_argnums=0)
    def step(kind: Any, parameters: Parameters, arrays: Any) -> Any:
        return problem.e_step(parameters, kind(*arrays))

    def moved(array: Any) -> Any:
        return None if array is None else engine.asarray(array)

    def evaluate(parameters: Parameters, rows: Any) -> tuple[Statistics, float]:
        on_device = tree_map(engine.asarray, parameters)
        parts = []
        for block in data[rows].blocks():
            arrays = tuple(map(moved, block.arrays))
            statistics, log_likelihood = step(type(block), on_device, arrays)
            parts.append((tree_map(engine.to_numpy, statistics), engine.to_numpy(log_likelihood)))
        return _sum_parts(parts)

    with engine.precision(device=device):
        yield evaluate
