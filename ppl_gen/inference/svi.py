"""Stochastic variational inference: fit a guide to the posterior by climbing the ELBO."""

import importlib
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ppl_gen import engines
from ppl_gen.algorithms.pareto_smoothing import pareto_k
from ppl_gen.inference.base import ONE_AT_A_TIME, InferenceMethod
from ppl_gen.inference.native import detect_engine
from ppl_gen.inference.svi_checks import (
    check_for_programs,
    check_settings,
    check_sites,
    objectives,
)
from ppl_gen.inference.svi_core import Array, Fit, Latents, Rise, newton_mode, rise_of
from ppl_gen.inference.training.settings import Training
from ppl_gen.language import Program
from ppl_gen.posterior import Posterior

#: Draws that are weighed for Pareto k, at least: for a guide whose k is 0.83, a hundred say between
#: 0.26 and 1.14 in nine of ten runs, a thousand between 0.50 and 1.05.
_WEIGHTS = 1000


@dataclass(frozen=True)
class _Training:
    """What came of the steps."""

    history: Array
    rise: Rise | None
    #: None where nobody asked.
    converged: bool | None
    interrupted: bool


class SVI(InferenceMethod):
    """Stochastic variational inference: a guide q(z) fitted by climbing the ELBO.

    Each step draws from the guide, estimates the ELBO, E_q[log p(x, z) - log q(z)], and moves the
    guide's parameters up its gradient [1]_. How far the guide can be trusted is told by the
    Pareto k of the weights p(x, z) / q(z) of its draws [2]_.

    Parameters
    ----------
    guide : str, Program or callable, default "mean_field"
        Over the unconstrained space of all continuous latents:

        - ``"mean_field"``: independent normals. Blind to correlation, so too narrow where there
          is some.
        - ``"full_rank"``: one multivariate normal.
        - ``"low_rank"``: one multivariate normal, its covariance diagonal plus low rank.
        - ``"laplace"``: the mode, polished by Newton's method, and a multivariate normal with the
          curvature there.
        - ``"map"``: the mode of the posterior density in the constrained space, as one draw.

        Or a guide of your own, with the arguments of the model: a program, or a Pyro or NumPyro
        function. Finite discrete latents are summed out and have no place in a guide.
    steps : int, optional
        Most steps taken: 5000 where None is given. On a network they are rounded up to whole
        epochs, and None leaves it to `training`.
    learning_rate : float, optional
        Of a named optimiser: 0.01 where None is given; on a network `training` has it.
    optimizer : str or object, default "adam"
        ``"adam"``, ``"clipped_adam"``, ``"adagrad"``, ``"rmsprop"``, ``"sgd"``, or an optimiser
        of the engine (numpyro.optim, optax; pyro.optim); on a network, those of `training`.
    batch_size : int, optional
        Rows in a minibatch; None takes all, and on a network those of `training`. A program must
        have an argument named ``batch_size`` that it gives to
        ``plate(..., subsample_size=batch_size)``; SVI gives it this number for the steps, and
        None (all rows) for the draws and their weights.
    particles : int, default 1
        Draws of the guide in each estimate of the ELBO: vectorised on NumPyro; one after the
        other on Pyro, where a vectorised run is wrong for programs that sum over all axes.
    draws : int, default 1000
        Draws from the fitted guide. Pareto k is of as many, and where all rows are in each step of
        1,000 at least, or of as many as there were steps; there is none of fewer than 25.
    tol : float or None, default 1.0
        Steps end early when the median ELBO of the last window differs from that of the window
        before by no more than ``tol`` standard errors; a window is a tenth of ``steps``, at least
        100. The answer is then the mean of the iterates of the last window [3]_. None takes all
        steps, does not judge whether they converged, and answers with the last iterate.
    training : Training, optional
        How a network with a guide of its own (a variational autoencoder) is trained. Settings
        above that are given take the place of those in it; `guide`, `draws` and `tol` are for
        programs alone.
    objective : {"elbo", "iwae", "dreg"}, default "elbo"
        What a network climbs: the ELBO; the importance-weighted bound of `particles` draws [4]_;
        that bound by doubly reparameterised gradients [5]_.

    Notes
    -----
    ``posterior.info`` has ``history`` (the ELBO of each step, nats), ``pareto_k`` (NaN where there
    is none: ``guide="map"``), ``converged`` (None where ``tol`` is None: not judged),
    ``interrupted``, ``params``, ``elapsed`` (seconds) and ``settings``. Sites declared by
    ``param`` are constant draws.

    Programs run on NumPyro unless they hold a torch network or their guide is Pyro's. Computation
    is in float64 unless ``dtype`` says otherwise. One seed gives one answer. Neither Pyro's
    parameter store nor torch's random state is changed; networks of the model and guide are
    trained in place. Fits in several threads take turns.

    Ctrl-C ends the steps, warns, and gives the fit so far; a second one raises.

    References
    ----------
    .. [1] Kucukelbir, A. et al. (2017). Automatic differentiation variational inference.
       JMLR 18(14), eq. 5-7.
    .. [2] Yao, Y. et al. (2018). Yes, but did it work? Evaluating variational inference. ICML,
       section 3.
    .. [3] Dhaka, A. K. et al. (2020). Robust, accurate stochastic optimization for variational
       inference. NeurIPS, section 3.
    .. [4] Burda, Y., Grosse, R. and Salakhutdinov, R. (2016). Importance weighted autoencoders.
       ICLR, eq. 8.
    .. [5] Tucker, G. et al. (2019). Doubly reparameterized gradient estimators for Monte Carlo
       objectives. ICLR, arXiv:1810.04152: IWAE-DReG.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import SVI, dist, infer, plate, program, sample
    >>> @program
    ... def normal(y):
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     with plate("row", len(y)):
    ...         sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> y = np.array([1.0, 2.0, 3.0])
    >>> posterior = infer(normal, y, method=SVI("laplace", steps=500), seed=0, progress=False)
    >>> round(float(posterior.info["params"]["auto_loc"][0]), 6)  # exact: 6 / 4
    1.5
    """

    name = "svi"

    def __init__(
        self,
        guide: str | Program | Callable[..., Any] = "mean_field",
        steps: int | None = None,
        learning_rate: float | None = None,
        optimizer: Any = "adam",
        batch_size: int | None = None,
        particles: int = 1,
        draws: int = 1000,
        tol: float | None = 1.0,
        training: Training | None = None,
        objective: str = "elbo",
    ) -> None:
        self.guide = guide
        self.steps = steps
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.particles = particles
        self.draws = draws
        self.tol = tol
        self.training = training
        self.objective = objective

    def train(
        self,
        module: Any,
        data: Mapping[str, Any],
        *,
        seed: int = 0,
        device: str = "cpu",
        who: str = "SVI.train",
        description: Mapping[str, Any] | None = None,
        progress: bool = False,
    ) -> Any:
        """Train a network by the ELBO of its program and guide; leave the best weights in it.

        Parameters
        ----------
        module : torch.nn.Module
            Has ``model(x, context=None)`` and ``guide(x, context=None)``, Pyro programs.
        data : dict of arrays (n, ...)
            ``"x"``, and ``"context"`` and ``"weight"`` where there are any.
        seed, device, who, description, progress
            As of :func:`ppl_gen.inference.training.loop.train`.

        Returns
        -------
        ppl_gen.inference.training.loop.Trained

        Raises
        ------
        ValueError
            A setting out of range, or one that means nothing to a network.
        FloatingPointError
            The loss or a gradient was no finite number before any epoch was validated; the step
            is named. Later that is a warning, and the best weights are kept.
        """
        from ppl_gen.inference import svi_networks

        check_settings(self)
        return svi_networks.train(
            self,
            module,
            data,
            seed=seed,
            device=device,
            who=who,
            description=description,
            progress=progress,
        )

    def run(
        self,
        model: Program | Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        engine: str | None = None,
        seed: int = 0,
        device: str = "auto",
        dtype: str | None = None,
        coords: Mapping[str, Sequence[Hashable]] | None = None,
        exchangeable: str | None = None,
        rotatable: Sequence[str] = (),
        progress: bool = True,
        start: Mapping[str, Any] | None = None,
    ) -> Posterior:
        """Fit the guide and draw from it; see `ppl_gen.infer` for the arguments.

        `start` gives values of sites where a guide of the library is centred at first.

        Raises
        ------
        ValueError
            A setting out of range, a guide that misses latents or samples discrete ones, a
            latent that cannot be summed out, ``batch_size`` for a program without minibatches, a
            Laplace fit that came to rest where there is no mode.
        FloatingPointError
            The ELBO was not a finite number; the step is named.
        """
        check_settings(self)
        check_for_programs(self)
        begun = time.perf_counter()
        args, kwargs = tuple(args), dict(kwargs or {})
        name = self._engine_of(model, engine)
        objective, whole = objectives(self, model, args, kwargs)
        parts = importlib.import_module(f"ppl_gen.inference.svi_{name}")
        with (
            ONE_AT_A_TIME,
            engines.get(name).precision(dtype, device),
            parts.session(
                seed,
                model=_native(model, name),
                guide=self.guide if isinstance(self.guide, str) else _native(self.guide, name),
                optimizer=self.optimizer,
                learning_rate=self._rate,
                particles=self.particles,
                objective=objective,
                whole=whole,
                start=start,
            ) as fit,
        ):
            check_sites(self, fit)
            training = self._train(fit, progress=progress)
            if self.guide == "laplace":
                fit.become_normal(*newton_mode(fit.curvature, fit.mode()))
                training = replace(training, converged=True)  # it is at the mode
            weights = self._n_weights(fit.latents(), len(training.history))
            drawn = fit.draw(1 if self.guide == "map" else self.draws, weights=weights)
        k = _k_of(drawn.log_weights) if weights else math.nan
        self._warn(training, k)
        return Posterior(
            {site: value[None] for site, value in drawn.values.items()},
            method=self.name,
            engine=name,
            model=model,
            args=args,
            kwargs=kwargs,
            coords=coords,
            exchangeable=exchangeable,
            rotatable=rotatable,
            info={
                "history": training.history,
                "pareto_k": k,
                "converged": training.converged,
                "interrupted": training.interrupted,
                "params": drawn.params,
                "elapsed": time.perf_counter() - begun,
                "settings": self._printable_settings(),
            },
        )

    # Settings ----------------------------------------------------------------------------------

    def _printable_settings(self) -> dict[str, Any]:
        made = {"steps": self._n_steps, "learning_rate": self._rate}
        settings = self.get_params(deep=False) | made
        return {name: _printable(value) for name, value in settings.items()}

    @property
    def _n_steps(self) -> int:
        return 5000 if self.steps is None else self.steps

    @property
    def _rate(self) -> float:
        return 0.01 if self.learning_rate is None else self.learning_rate

    def _engine_of(self, model: Program | Callable[..., Any], engine: str | None) -> str:
        """Return the engine asked for, else the one that model or guide is written for."""
        guide = None if isinstance(self.guide, str) else _written_for(self.guide)
        name = engine or _written_for(model) or guide or "numpyro"
        if guide not in (None, name):
            raise ValueError(
                f"SVI: the guide is written for {guide}, but the program runs on {name}; expected "
                f"both on one engine; pass engine={guide!r}, or write the guide as a program"
            )
        return name

    # The steps ---------------------------------------------------------------------------------

    def _train(self, fit: Fit, *, progress: bool) -> _Training:
        window = max(100, self._n_steps // 10)
        block = max(1, window // 5)
        history = np.empty(0)
        iterates: deque[Any] = deque(maxlen=window // block)
        rise, interrupted = None, False
        converged = None if self.tol is None else False
        with tqdm(total=self._n_steps, disable=not progress, desc="SVI", unit="step") as bar:
            while len(history) < self._n_steps and not converged:
                n = min(block, self._n_steps - len(history))
                try:
                    elbos, iterate = fit.advance(n, block)
                except KeyboardInterrupt:
                    if not len(history):
                        raise  # there is no fit yet
                    interrupted = True
                    break
                history = np.concatenate([history, elbos])
                self._check_finite(history, n)
                iterates.append(iterate)
                bar.update(n)
                bar.set_postfix(elbo=f"{np.median(elbos):.6g}", refresh=False)
                if self.tol is not None and len(history) >= 2 * window:
                    rise = rise_of(history, window)
                    converged = rise.settled(self.tol)
        # Where nothing is random the last iterate is the best.
        if converged and rise is not None and rise.standard_error > rise.negligible:
            fit.settle(tuple(iterates))
        return _Training(history, rise, converged, interrupted)

    def _check_finite(self, history: Array, n: int) -> None:
        bad = np.flatnonzero(~np.isfinite(history[-n:]))
        if len(bad):
            step = len(history) - n + int(bad[0])
            if step:
                where = f"step {step + 1}; it was {history[step - 1]:.6g} the step before"
                advice = (
                    f"lower learning_rate (now {self._rate}), take "
                    "optimizer='clipped_adam', or look for parameters that run to the edge of "
                    "their space"
                )
            else:
                where = "step 1"
                advice = (
                    "look for NaN or inf in the data, and for data outside the support of their "
                    "distribution"
                )
            raise FloatingPointError(
                f"SVI.run: the ELBO was {history[step]} at {where}; expected a finite number; "
                + advice
            )

    # What to say of it -------------------------------------------------------------------------

    def _n_weights(self, latents: Latents, n_steps: int) -> int:
        """How many draws are weighed for Pareto k; 0 where it has none."""
        # On all rows a weight costs about what a step does.
        cheap = min(_WEIGHTS, n_steps) if self.batch_size is None else 0
        weights = max(self.draws, cheap)
        if self.guide == "map" or weights < 25:
            return 0
        if latents.subsamples and self.batch_size is None:
            warnings.warn(
                "SVI: no Pareto k, since the program always takes a minibatch and its weights need "
                "all rows; give it an argument named batch_size, pass that to the plate, and set "
                "it through SVI(batch_size=...)",
                UserWarning,
                stacklevel=4,
            )
            return 0
        return weights

    def _warn(self, training: _Training, k: float) -> None:
        done = len(training.history)
        if training.interrupted:
            warnings.warn(
                f"SVI: interrupted after {done} of {self._n_steps} steps; this is the fit so far",
                UserWarning,
                stacklevel=4,
            )
        elif self.tol is not None and not training.converged:
            rise = training.rise
            moved = (
                f"the ELBO still moved by {rise.rise:.3g} nats (standard error "
                f"{rise.standard_error:.2g}) from one window of steps to the next"
                if rise
                else "they are too few to tell"
            )
            warnings.warn(
                f"SVI: not converged in {done} steps: {moved}; raise steps, or change "
                f"learning_rate (now {self._rate})",
                UserWarning,
                stacklevel=4,
            )
        if k > 0.7:
            richer = "" if self.guide == "full_rank" else "take guide='full_rank', or "
            warnings.warn(
                f"SVI: Pareto k of the guide is {k:.2f}, over 0.7: the guide misses parts of the "
                f"posterior, and intervals from it are not to be trusted; {richer}use NUTS, or "
                "reparameterise the program",
                UserWarning,
                stacklevel=4,
            )


def _k_of(log_weights: Array) -> float:
    """Pareto k; infinite, with a warning, where densities of draws are no numbers."""
    broken = int((np.isnan(log_weights) | np.isposinf(log_weights)).sum())
    if not broken:
        return pareto_k(log_weights)
    warnings.warn(
        f"SVI: the log density is no number at {broken} of {len(log_weights)} draws of the guide, "
        "so that Pareto k is infinite; look for what the program cannot compute far out, such as "
        "logarithms and roots of what may be negative",
        UserWarning,
        stacklevel=4,
    )
    return math.inf


def _written_for(function: Program | Callable[..., Any]) -> str | None:
    return detect_engine(function.function if isinstance(function, Program) else function)


def _native(model: Program | Callable[..., Any], engine: str) -> Callable[..., Any]:
    return model.native(engine) if isinstance(model, Program) else model


def _printable(setting: Any) -> Any:
    plain = setting is None or isinstance(setting, str | int | float)
    return setting if plain else getattr(setting, "__name__", type(setting).__name__)
