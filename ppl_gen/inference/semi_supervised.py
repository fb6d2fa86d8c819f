"""Training on rows of which some have a class: a Pyro ELBO that sums over the others' classes."""

from collections.abc import Callable
from typing import Any

import pyro
from pyro import poutine
from torch import Tensor
from torch.nn.functional import cross_entropy

from ppl_gen.inference.elbos import AnalyticELBO, Traces
from ppl_gen.inference.training.objective import Batch, Objective, Parts

__all__ = ["EnumeratedELBO", "SemiSupervised"]


class EnumeratedELBO(AnalyticELBO):
    """The evidence lower bound, summed over a finite site of the guide.

    ``E_q(y) [log p(x, y | z) - KL(q(z | y), p(z)) - log q(y)]`` a row: over the site that the
    guide marks ``infer={"enumerate": "parallel"}`` by its probabilities, over the others by one
    draw for each of its values. That is Pyro's `TraceEnum_ELBO` for one such site, with the KL
    divergence of the others in closed form where there is one.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist, torch
    >>> from ppl_gen.inference.semi_supervised import EnumeratedELBO
    >>> x = torch.tensor([0.3, 1.2])
    >>> prior = torch.tensor([0.4, 0.6])
    >>> centre = torch.tensor([-1.0, 1.0])
    >>> joint = prior.log() + dist.Normal(centre, 1.0).log_prob(x[:, None])  # (rows, classes)
    >>> def model(x):
    ...     with pyro.plate("row", len(x)):
    ...         y = pyro.sample("y", dist.Categorical(prior))
    ...         pyro.sample("x", dist.Normal(centre[y], 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("row", len(x)):
    ...         pyro.sample("y", dist.Categorical(logits=joint), infer={"enumerate": "parallel"})
    >>> bound = -EnumeratedELBO().loss(model, guide, x)
    >>> bool(abs(bound - joint.logsumexp(1).sum()) < 1e-5)  # the guide is exact: so is the bound
    True
    """

    def __init__(self) -> None:
        super().__init__(particles=1)

    def _get_trace(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Traces:
        enumerated = poutine.enum(guide, first_available_dim=-2)
        return super()._get_trace(model, enumerated, args, kwargs)

    def parts(self, traces: Traces, weight: Tensor | None = None) -> Parts:
        """Return the "loss" a row."""
        model, guide = traces
        summed = {
            name
            for name, site in guide.nodes.items()
            if site["type"] == "sample" and site["infer"].get("enumerate") == "parallel"
        }
        model.compute_log_prob(lambda name, site: site["is_observed"] or name in summed)
        guide.compute_log_prob(lambda name, site: name in summed)
        bound: Any = 0.0  # (classes, rows)
        log_probability: Any = 0.0
        for name, site in model.nodes.items():
            if site["type"] != "sample":
                continue
            if site["is_observed"] or name in summed:
                bound = bound + site["log_prob"]
            else:
                bound = bound - self._divergence(guide.nodes[name], site).sum(-1)
            if name in summed:
                log_probability = log_probability + guide.nodes[name]["log_prob"]
        expected = (log_probability.exp() * (bound - log_probability)).sum(0)
        return {"loss": -(expected if weight is None else weight * expected).mean()}


class SemiSupervised(Objective):
    """Minus the bound of rows with and without a class, and a classifier's loss of the former.

    Kingma et al. (2014), arXiv:1406.5298, equation 9, divided by the rows; their ``alpha = 0.1 N``
    is 0.1 here.

    Parameters
    ----------
    module : Module
        With ``model(x, y)`` and ``guide(x, y)``, Pyro functions, and ``class_logits(x)``; y is -1
        where it is not known.
    alpha : float
        Weight of the mean loss of the classifier over the rows whose class is known.
    share : float
        Share of the rows whose class is known, by which batches tell that mean without bias.
    """

    module: Any

    def __init__(self, module: Any, alpha: float, share: float) -> None:
        super().__init__(module)
        self.alpha, self.share = alpha, share
        self.elbo = EnumeratedELBO()
        self._checked = False

    def losses(self, batch: Batch) -> Parts:
        """Return the "loss" of a batch, its "bound" and its "classification", in nats a row."""
        x, y, weight = batch["x"], batch["y"], batch.get("weight")
        # Pyro checks plates, sites and shapes once: they stay as they are.
        check = not self._checked and not x.is_meta
        self._checked = True
        with pyro.validation_enabled(check):
            bound = self.elbo.mean_loss(self.module.model, self.module.guide, x, y, weight=weight)[
                "loss"
            ]
        wrong = cross_entropy(self.module.class_logits(x), y, ignore_index=-1, reduction="none")
        wrong = (wrong if weight is None else weight * wrong).mean() / self.share
        return {"loss": bound + self.alpha * wrong, "bound": bound, "classification": wrong}
