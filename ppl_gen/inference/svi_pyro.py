"""What SVI needs of Pyro: a guide to train, steps, weighted draws.

Loaded by :mod:`ppl_gen.inference.svi` when a fit runs on Pyro. Pyro keeps its parameters and
torch its random state for the whole process; a session keeps both as they were.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, autoguide, config_enumerate
from pyro.infer.autoguide.initialization import init_to_median, init_to_value
from pyro.ops.hessian import hessian as hessian_of
from pyro.poutine.util import site_is_subsample

from ppl_gen.inference.svi_core import Draws, Latents, Objective

GUIDES: dict[str, Callable[..., Any]] = {
    "mean_field": autoguide.AutoNormal,
    "full_rank": autoguide.AutoMultivariateNormal,
    "low_rank": autoguide.AutoLowRankMultivariateNormal,
    "laplace": autoguide.AutoLaplaceApproximation,
    "map": autoguide.AutoDelta,
}
OPTIMIZERS: dict[str, Callable[[dict[str, float]], Any]] = {
    "adam": pyro.optim.Adam,
    "clipped_adam": pyro.optim.ClippedAdam,
    "adagrad": pyro.optim.Adagrad,
    "rmsprop": pyro.optim.RMSprop,
    "sgd": pyro.optim.SGD,
}


@contextmanager
def session(seed: int, **settings: Any) -> Iterator["PyroFit"]:
    """Open a fit that leaves Pyro's parameter store and torch's random state untouched."""
    cuda = list(range(torch.cuda.device_count()))
    with (
        pyro.get_param_store().scope(),
        torch.random.fork_rng(devices=cuda),
        warnings.catch_warnings(),
    ):
        # The driver finds the step itself and raises.
        warnings.filterwarnings("ignore", message="Encountered (NaN|\\+?inf)", category=UserWarning)
        torch.manual_seed(seed)
        yield PyroFit(**settings)


class PyroFit:
    """One run of SVI on Pyro; the parameters are in Pyro's store, so use it in a session.

    Parameters
    ----------
    model : callable
        A Pyro model.
    guide : str or callable
        A name in ``GUIDES`` or a Pyro guide.
    optimizer : str or pyro.optim.PyroOptim
        A name in ``OPTIMIZERS``, or an optimiser, which is copied.
    learning_rate : float
        Step size; used where the optimiser is named.
    particles : int
        Draws of the guide in each estimate of the ELBO.
    objective, whole : Objective
        What is optimised, which may be a minibatch, and what draws are weighted by.
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
        start: Mapping[str, Any] | None = None,
    ) -> None:
        self._objective, self._whole = objective, whole
        self._latents = latents(model, objective)
        self._model = config_enumerate(model) if self._latents.enumerable else model
        self._kind = GUIDES[guide] if isinstance(guide, str) else None
        self._centre = start
        self._guide: Any = self._autoguide() if self._kind else guide
        if isinstance(optimizer, str):
            optim = OPTIMIZERS[optimizer]({"lr": learning_rate})
        else:
            optim = copy.deepcopy(optimizer)
        self._svi = pyro.infer.SVI(self._model, self._guide, optim, self._elbo(particles))

    def _autoguide(self) -> Any:
        model = self._model
        if self._latents.enumerable:
            model = poutine.block(model, hide=self._latents.enumerable)
        assert self._kind is not None
        if self._centre is None:
            return self._kind(model, init_loc_fn=init_to_median)
        values = {name: torch.as_tensor(value) for name, value in self._centre.items()}
        return self._kind(model, init_loc_fn=init_to_value(values=values))

    def _elbo(self, particles: int) -> Any:
        kind = TraceEnum_ELBO if self._latents.enumerable else Trace_ELBO
        return kind(num_particles=particles)

    def latents(self) -> Latents:
        """Sites of the model as it is trained."""
        return self._latents

    def guide_sites(self) -> dict[str, bool]:
        """Sample sites of the guide, and whether each is discrete."""
        with torch.no_grad():
            trace = poutine.trace(self._guide).get_trace(
                *self._objective.args, **self._objective.kwargs
            )
        return {
            name: site["fn"].support.is_discrete
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and not site_is_subsample(site)
        }

    def advance(self, n: int, length: int) -> tuple[NDArray[np.float64], Any]:
        """Take n steps; the ELBO of each, and the mean of the iterates (unconstrained)."""
        elbos = np.empty(n)
        total: dict[str, torch.Tensor] = {}
        for i in range(n):
            elbos[i] = -self._svi.step(*self._objective.args, **self._objective.kwargs)
            with torch.no_grad():
                for name, parameter in pyro.get_param_store().named_parameters():
                    if i == 0:
                        total[name] = parameter.detach().clone()
                    else:
                        total[name] += parameter
        return elbos, {name: value / n for name, value in total.items()}

    def settle(self, iterates: Sequence[Any]) -> None:
        """Take the mean of some iterates for the answer."""
        with torch.no_grad():
            for name, parameter in pyro.get_param_store().named_parameters():
                parameter.copy_(sum(p[name] for p in iterates) / len(iterates))

    def mode(self) -> NDArray[np.float64]:
        """Where the Laplace guide stands, in the unconstrained space."""
        return _numpy(self._guide.loc)

    def curvature(
        self, loc: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Minus the log joint, its gradient and Hessian at a point of the unconstrained space."""
        here = self._guide.loc
        with torch.no_grad():
            here.copy_(torch.as_tensor(loc, dtype=here.dtype, device=here.device))
        loss = self._elbo(1).differentiable_loss(
            self._model, self._guide, *self._whole.args, **self._whole.kwargs
        )
        (gradient,) = torch.autograd.grad(loss, here, retain_graph=True)
        return float(loss.detach()), _numpy(gradient), _numpy(hessian_of(loss, here))

    def become_normal(self, loc: NDArray[np.float64], scale_tril: NDArray[np.float64]) -> None:
        """Exchange the guide for the multivariate normal with this mean and Cholesky factor."""
        like = self._guide.loc.detach()
        self._kind = autoguide.AutoMultivariateNormal
        self._guide = self._autoguide()
        self._guide._setup_prototype(*self._whole.args, **self._whole.kwargs)
        # Pyro keeps the factor as a scale times a lower triangle; both become constants here,
        # as in its own laplace_approximation.
        scale = np.linalg.norm(scale_tril, axis=1)
        for name, value in (
            ("loc", loc),
            ("scale", scale),
            ("scale_tril", scale_tril / scale[:, None]),
        ):
            delattr(self._guide, name)
            constant = torch.as_tensor(value, dtype=like.dtype, device=like.device)
            self._guide.register_buffer(name, constant)

    def _whole_guide(self) -> Any:
        """Return the guide for the whole data: plates of an automatic guide keep their size."""
        if self._kind is None or self._objective is self._whole:
            return self._guide
        guide = self._autoguide()
        guide._setup_prototype(*self._whole.args, **self._whole.kwargs)
        guide.load_state_dict(self._guide.state_dict())
        return guide

    def draw(self, n: int, *, weights: int) -> Draws:
        """Draw n times from the guide; log weights are log p(x, z) - log q(z)."""
        args, kwargs = self._whole.args, self._whole.kwargs
        guide, elbo = self._whole_guide(), self._elbo(1)
        values: dict[str, list[NDArray[Any]]] = {}
        log_weights = np.zeros(weights)
        with torch.no_grad():
            for i in range(max(n, weights)):
                trace = poutine.trace(guide).get_trace(*args, **kwargs)
                if i < weights:
                    fixed = poutine.replay(guide, trace=trace)
                    log_weights[i] = -elbo.loss(self._model, fixed, *args, **kwargs)
                if i >= n:
                    continue
                sites = poutine.trace(poutine.replay(self._model, trace=trace)).get_trace(
                    *args, **kwargs
                )
                for name, site in sites.nodes.items():
                    if self._is_kept(name, site):
                        values.setdefault(name, []).append(_numpy(site["value"]))
        store = pyro.get_param_store()
        return Draws(
            {name: np.stack(each) for name, each in values.items()},
            log_weights,
            {name: _numpy(value) for name, value in store.items() if not _of_network(name)},
        )

    def _is_kept(self, name: str, site: dict[str, Any]) -> bool:
        if site["type"] == "param":
            return not _of_network(name)
        if site["type"] == "sample" and site["infer"].get("_deterministic"):
            # A function of a discrete site that was summed out has no value of its own.
            return not self._latents.enumerable
        return name in self._latents.continuous


def latents(model: Callable[..., Any], objective: Objective) -> Latents:
    """Run the model once and tell its latent sites and plates apart."""
    with torch.no_grad():
        trace = poutine.trace(model).get_trace(*objective.args, **objective.kwargs)
    found = Latents()
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        subsampled = any(f.full_size not in (None, f.size) for f in site["cond_indep_stack"])
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


def _of_network(name: str) -> bool:
    """Pyro names a module's parameters module$$$weight; the module itself holds them."""
    return "$$$" in name


def _numpy(value: torch.Tensor) -> NDArray[Any]:
    return value.detach().cpu().numpy().copy()
