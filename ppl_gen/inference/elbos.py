"""Bounds of the log evidence of rows, as Pyro ELBOs over a model and its amortised guide.

All are for programs whose sites lie in one plate, that of the rows; particles are vectorised.
"""

import math
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import warn_if_nan
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence, register_kl

from ppl_gen.inference.training.objective import Batch, Descend, Objective, Parts

__all__ = [
    "ELBOS",
    "FREE",
    "AnalyticELBO",
    "DoublyReparameterisedELBO",
    "ElboObjective",
    "ImportanceWeightedELBO",
    "RowELBO",
]

#: Names of the bounds that train, the default first.
ELBOS = ("elbo", "iwae", "dreg")

#: What holds a bound back from the evidence, and where it does not.
FREE = {"beta": 1.0, "free_bits": 0.0, "beta_warmup": 0.0}

Site = dict[str, Any]
Traces = tuple[Trace, Trace]


class RowELBO(ELBO):  # type: ignore[misc]
    """A Pyro ELBO that tells the mean over rows, and what it is made of.

    Pyro's own SVI takes one as its `loss`, and gets the sum over rows as of any ELBO of Pyro's.

    Parameters
    ----------
    particles : int
        Draws of the guide for each row.
    """

    def __init__(self, particles: int = 1) -> None:
        super().__init__(num_particles=particles, max_plate_nesting=1, vectorize_particles=True)

    def parts(self, traces: Traces, weight: Tensor | None = None) -> Parts:
        """Return the "loss" a row and what it is made of; `weight`, (n,), has mean one."""
        raise NotImplementedError  # pragma: no cover

    def mean_loss(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        weight: Tensor | None = None,
        **kwargs: Any,
    ) -> Parts:
        """Run guide and model, and return :meth:`parts`."""
        (traces,) = self._get_traces(model, guide, args, kwargs)
        return self.parts(traces, weight)

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Minus the bound, summed over rows; its gradient is the estimator's."""
        (traces,) = self._get_traces(model, guide, args, kwargs)
        return self.parts(traces)["loss"] * _n_rows(traces)

    def loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Minus the bound, summed over rows."""
        with torch.no_grad():
            loss = self.differentiable_loss(model, guide, *args, **kwargs).item()
        warn_if_nan(loss, "loss")
        return loss

    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Minus the bound, summed over rows; gradients are added to those of the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()  # type: ignore[no-untyped-call]
        warn_if_nan(loss, "loss")
        return loss.item()

    def _get_trace(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Traces:
        if is_validation_enabled():
            checked: Traces = get_importance_trace(
                "flat", self.max_plate_nesting, model, guide, args, kwargs
            )
            return checked
        guided = poutine.trace(guide).get_trace(*args, **kwargs)
        modelled = poutine.trace(poutine.replay(model, trace=guided)).get_trace(*args, **kwargs)
        return prune_subsample_sites(modelled), prune_subsample_sites(guided)


class AnalyticELBO(RowELBO):
    """The evidence lower bound, with the KL divergence in closed form where there is one.

    The loss is ``-E_q[log p(x | z)] + beta * sum_j max(free_bits, KL_j)``, where ``KL_j`` is the
    mean over the rows of a batch of the divergence of latent j from its prior; a prior or a guide
    under which latents depend on each other is one group of all latents.

    Parameters
    ----------
    particles : int
    beta : float
        Higgins, I. et al. (2017), beta-VAE, ICLR, equation 4.
    free_bits : float
        Nats a latent. Kingma, D. P. et al. (2016), arXiv:1606.04934, equation 15.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist, torch
    >>> from ppl_gen.inference.elbos import AnalyticELBO
    >>> def model(x):
    ...     with pyro.plate("row", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("row", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))  # the posterior: the bound is tight
    >>> x = torch.tensor([0.5, -1.0])
    >>> bound = -AnalyticELBO(particles=20000).loss(model, guide, x)
    >>> exact = dist.Normal(0.0, 2**0.5).log_prob(x).sum()
    >>> bool(abs(bound - exact) < 0.03)
    True
    """

    def __init__(self, particles: int = 1, beta: float = 1.0, free_bits: float = 0.0) -> None:
        super().__init__(particles)
        self.beta, self.free_bits = beta, free_bits

    def parts(self, traces: Traces, weight: Tensor | None = None) -> Parts:
        """Return "loss", and the "reconstruction" and "kl" that it is made of at beta of one."""
        model, guide = traces
        mean = _mean_by(weight)
        model.compute_log_prob(lambda name, site: site["is_observed"])
        observed: list[Site] = []
        latent: list[Site] = []
        for site in model.nodes.values():
            if site["type"] == "sample":
                (observed if site["is_observed"] else latent).append(site)
        reconstruction = -mean(sum(site["log_prob"] for site in observed))
        kl = penalty = reconstruction.new_zeros(())
        for site in latent:
            by_group = self._divergence(guide.nodes[site["name"]], site)
            own = mean(by_group.sum(-1))
            kl = kl + own
            if self.free_bits > 0.0:
                share = site["fn"].event_shape.numel() / by_group.shape[-1]
                rows = by_group if weight is None else weight.unsqueeze(-1) * by_group
                over = rows.flatten(0, -2).mean(0).clamp(min=self.free_bits * share)
                own = over.sum()
            penalty = penalty + own
        loss = reconstruction + (penalty if self.beta == 1.0 else self.beta * penalty)
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    def _divergence(self, guided: Site, modelled: Site) -> Tensor:
        """KL divergence by group of latents: (..., n, groups)."""
        q, p = guided["fn"], modelled["fn"]
        try:
            if _is_independent(q) and _is_independent(p):
                kl = kl_divergence(q.base_dist, p.base_dist)
            else:
                kl = kl_divergence(q, p).unsqueeze(-1)
        except NotImplementedError:
            z = guided["value"]
            kl = (q.log_prob(z) - p.log_prob(z)).unsqueeze(-1)
        scaled: Tensor = scale_and_mask(kl, _by_row(guided["scale"]), _by_row(guided["mask"]))
        return scaled


class ImportanceWeightedELBO(RowELBO):
    """The bound of K particles, ``E log 1/K sum_k p(x, z_k) / q(z_k)`` [1]_, equation 8.

    Parameters
    ----------
    particles : int
        The K; with more of them the bound is tighter.

    References
    ----------
    .. [1] Burda, Y., Grosse, R. and Salakhutdinov, R. (2016). Importance weighted autoencoders.
       ICLR, arXiv:1509.00519.
    """

    def parts(self, traces: Traces, weight: Tensor | None = None) -> Parts:
        """Return "loss"."""
        model, guide = traces
        model.compute_log_prob()
        guide.compute_log_prob()
        log_weights = self._by_particle(_total(model) - _total(guide))
        return {"loss": -_mean_by(weight)(self._bound(log_weights))}

    def _by_particle(self, rows: Tensor) -> Tensor:
        return rows.reshape(self.num_particles, -1)  # (K, n); there is no first axis for K = 1

    def _bound(self, log_weights: Tensor) -> Tensor:
        return log_weights.logsumexp(0) - math.log(self.num_particles)


class DoublyReparameterisedELBO(ImportanceWeightedELBO):
    """The bound of K particles, with a gradient for guides that does not fade with K.

    The gradient of the guide's parameters is ``sum_k w_k^2 d log w_k / dz_k  dz_k / dphi``, with
    normalised weights, the IWAE-DReG estimator of [1]_; that of the model's parameters is the
    importance-weighted bound's. Guides are normal.

    Parameters
    ----------
    particles : int

    References
    ----------
    .. [1] Tucker, G. et al. (2019). Doubly reparameterized gradient estimators for Monte Carlo
       objectives. ICLR, arXiv:1810.04152.
    """

    def parts(self, traces: Traces, weight: Tensor | None = None) -> Parts:
        """Return "loss"."""
        model, guide = traces
        model.compute_log_prob()
        latent = [site for site in guide.nodes.values() if site["type"] == "sample"]
        # The guide's parameters act through its draws alone.
        log_guide = sum(
            scale_and_mask(
                _stopped(site["fn"]).log_prob(site["value"]), site["scale"], site["mask"]
            )
            for site in latent
        )
        log_weights = self._by_particle(_total(model) - log_guide)
        share = log_weights.detach().softmax(0)
        for site in latent:
            z = site["value"]
            if z.requires_grad:
                # What comes back to a draw carries its share once; the guide needs its square.
                z.register_hook(_times(share.reshape(site["fn"].batch_shape), site))
        mean = _mean_by(weight)
        value, surrogate = mean(self._bound(log_weights)), mean((share * log_weights).sum(0))
        return {"loss": surrogate.detach() - value.detach() - surrogate}


class ElboObjective(Objective):
    """Minus a bound of the evidence of rows, by a Pyro ELBO of ``module.model`` and its guide.

    Parameters
    ----------
    module : Module
        With ``model(x, context)`` and ``guide(x, context)``, Pyro functions; and, if the bound is
        to be held back, numbers ``beta``, ``free_bits`` and ``beta_warmup``, the share of the
        steps over which beta rises from zero.
    particles : int
        Draws of the guide for each row.
    kind : {"elbo", "iwae", "dreg"}
        `AnalyticELBO`, `ImportanceWeightedELBO` or `DoublyReparameterisedELBO`.
    n_steps : int
        Steps that the training is to take, of which ``beta_warmup`` is a share.

    Raises
    ------
    ValueError
        If there is no bound of this name; for ``beta``, ``free_bits`` or ``beta_warmup`` with
        another than "elbo".

    Notes
    -----
    A rising beta is against latents that are given up before the decoder has learned to use them:
    the annealing of [1]_, with a linear rise, the warm-up of [2]_. Where it has got to is a buffer
    of the module, which is part of checkpoints. What is recorded and validated is the whole bound
    at every step, so that epochs can be compared.

    References
    ----------
    .. [1] Bowman, S. R. et al. (2016). Generating sentences from a continuous space. CoNLL,
       arXiv:1511.06349.
    .. [2] Sonderby, C. K. et al. (2016). Ladder variational autoencoders. NeurIPS,
       arXiv:1602.02282.
    """

    module: Any

    def __init__(
        self, module: Any, particles: int = 1, kind: str = "elbo", n_steps: int = 0
    ) -> None:
        super().__init__(module)
        held_back = {name: getattr(module, name, start) for name, start in FREE.items()}
        if kind not in ELBOS:
            raise ValueError(
                f"ElboObjective: there is no bound {kind!r}; expected one of "
                f"{', '.join(map(repr, ELBOS))}"
            )
        if kind == "elbo":
            self.elbo: RowELBO = AnalyticELBO(particles, held_back["beta"], held_back["free_bits"])
        elif held_back != FREE:
            raise ValueError(
                f"ElboObjective: kind={kind!r} has one bound, of beta 1 from the first step and no "
                f"free bits; got {held_back}; take kind='elbo', or leave these at {FREE}"
            )
        else:
            bound = ImportanceWeightedELBO if kind == "iwae" else DoublyReparameterisedELBO
            self.elbo = bound(particles)
        self._checked = False
        self._n_warm = round(n_steps * held_back["beta_warmup"])
        if self._n_warm:
            begun = next(module.parameters()).new_zeros(())
            module.register_buffer("warmed", begun, persistent=False)

    @property
    def settled(self) -> bool:
        """Whether the whole bound is climbed by now."""
        return not self._n_warm or bool(self.module.warmed == 1.0)

    def losses(self, batch: Batch) -> Parts:
        """Return the "loss" of a batch, in nats a row, and what it is made of."""
        x = batch["x"]
        # Pyro checks plates, sites and shapes once: they stay as they are.
        check = not self._checked and not x.is_meta
        self._checked = True
        with pyro.validation_enabled(check):
            return self.elbo.mean_loss(
                self.module.model,
                self.module.guide,
                x,
                batch.get("context"),
                weight=batch.get("weight"),
            )

    def step(self, batch: Batch, descend: Descend) -> Parts:
        """Take one step down the part of the loss that counts by now."""
        if not self._n_warm:
            return super().step(batch, descend)
        parts, warmed, one = self.losses(batch), self.module.warmed, 1.0 / self._n_warm
        divergence = parts["loss"] - parts["reconstruction"]
        descend(parts["loss"] - (1.0 - warmed) * divergence, parts=parts)
        # The last of the steps ends it, though the sum of so many parts is rounded.
        warmed.add_(one).masked_fill_(warmed > 1.0 - 0.5 * one, 1.0)
        return parts


def _mean_by(weight: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Mean over rows, the last axis, and particles."""
    return lambda rows: (rows if weight is None else weight * rows).mean()


def _total(trace: Trace) -> Tensor:
    """Log density of all sites, of each particle and row."""
    total: Tensor = sum(
        site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample"
    )
    return total


def _n_rows(traces: Traces) -> int:
    """Rows of the plate that the sites lie in."""
    (size,) = {
        frame.size
        for site in traces[0].nodes.values()
        if site["type"] == "sample"
        for frame in site["cond_indep_stack"]
        if frame.dim == -1
    }
    return int(size)


def _is_independent(fn: TorchDistribution) -> bool:
    """Tell whether a distribution is a product over one event axis."""
    return isinstance(fn, Independent) and fn.reinterpreted_batch_ndims == 1


def _by_row(value: Any) -> Any:
    """A site's scale or mask, for terms with one more axis than rows have."""
    return value.unsqueeze(-1) if isinstance(value, Tensor) and value.ndim else value


def _times(share: Tensor, site: Site) -> Callable[[Tensor], Tensor]:
    """What multiplies the gradient of a site's value by the share of each particle and row."""
    factor = share.reshape(share.shape + (1,) * len(site["fn"].event_shape))
    return lambda gradient: gradient * factor


@register_kl(MultivariateNormal, Independent)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_from_mean_field(q: MultivariateNormal, p: Independent[Any]) -> Tensor:
    """KL of a multivariate normal from independent normals, which torch lacks."""
    if not isinstance(p.base_dist, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    loc, scale = p.base_dist.loc, p.base_dist.scale
    spread = (q.scale_tril / scale.unsqueeze(-1)).square().sum((-2, -1))
    shift = ((q.loc - loc) / scale).square().sum(-1)
    log_ratio = (scale.log() - q.scale_tril.diagonal(dim1=-2, dim2=-1).log()).sum(-1)
    return 0.5 * (spread + shift - q.event_shape[0]) + log_ratio


@singledispatch
def _stopped(fn: TorchDistribution) -> TorchDistribution:
    """The distribution, its parameters without gradients."""
    raise NotImplementedError(
        f"DoublyReparameterisedELBO: a guide of {type(fn).__name__}; expected normals, mean-field "
        "or full-rank; take another bound (kind='iwae') for this one"
    )


@_stopped.register
def _(fn: Independent) -> TorchDistribution:  # type: ignore[type-arg]
    return _stopped(fn.base_dist).to_event(fn.reinterpreted_batch_ndims)


@_stopped.register
def _(fn: Normal) -> TorchDistribution:
    return dist.Normal(fn.loc.detach(), fn.scale.detach(), validate_args=False)


@_stopped.register
def _(fn: MultivariateNormal) -> TorchDistribution:
    factor = fn.scale_tril.detach()
    return dist.MultivariateNormal(fn.loc.detach(), scale_tril=factor, validate_args=False)
