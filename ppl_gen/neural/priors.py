"""Priors of continuous latents: a normal, a mixture of what encodes pseudo-inputs, a flow.

Each is a module with ``dist()``, a Pyro distribution over codes (L,), and is trained with the
network it belongs to.
"""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from ppl_gen.neural.flow import Flow
from ppl_gen.neural.transforms import maf

__all__ = ["PRIORS", "StandardNormal", "VampPrior", "build_prior"]

#: Names of priors, the default first.
PRIORS = ("normal", "vamp", "flow")

Encoder = Callable[..., TorchDistribution]


class StandardNormal(nn.Module):
    """The normal prior N(0, I), which has no weights.

    Parameters
    ----------
    latent_dim : int
        Latents L.

    Examples
    --------
    >>> from ppl_gen.neural.priors import StandardNormal
    >>> StandardNormal(3).dist().event_shape
    torch.Size([3])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def dist(self) -> TorchDistribution:
        """Return the distribution: event (L,)."""
        return dist.Normal(self.loc, self.scale, validate_args=False).to_event(1)


class VampPrior(nn.Module):
    """The variational mixture of posteriors: what the encoder says of pseudo-inputs, averaged.

    ``p(z) = 1/K sum_k q(z | u_k)`` with K pseudo-inputs ``u_k`` that are learned: [1]_, equation 9.
    They start at rows of the data, and move in units of the spread of those rows.

    Parameters
    ----------
    encode : bound method
        ``encode(x)`` or ``encode(x, context)``: the distribution q(z | x), batch (K,), event (L,).
        A method of the module that has this prior, so that copies of the two stay together.
    rows : (K, ...) tensor
        Rows of the data to start from, K of them: as many as there are components. Labels would
        have no gradient: where entries are labels, give their log probabilities, and an `encode`
        of those, such as `VariationalAutoencoder.encode_relaxed`.
    context : (K, C) tensor, optional
        Their contexts, which stay as they are.

    Raises
    ------
    ValueError
        If there are no rows, or not one context a row.

    References
    ----------
    .. [1] Tomczak, J. M. and Welling, M. (2018). VAE with a VampPrior. AISTATS, arXiv:1705.07120.

    Examples
    --------
    >>> import torch, pyro.distributions as dist
    >>> from ppl_gen.neural.priors import VampPrior
    >>> class Encoder(torch.nn.Linear):
    ...     def encode(self, x):
    ...         return dist.Normal(self(x), 0.5).to_event(1)
    >>> prior = VampPrior(Encoder(4, 2).encode, torch.randn(10, 4))
    >>> prior.dist().log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])
    """

    centre: Tensor
    scale: Tensor
    context: Tensor | None
    log_weights: Tensor

    def __init__(self, encode: Encoder, rows: Tensor, context: Tensor | None = None) -> None:
        super().__init__()
        if rows.ndim < 2 or len(rows) == 0:
            raise ValueError(
                f"VampPrior: rows have the shape {tuple(rows.shape)}; expected (K, D), one row of "
                "the data or more"
            )
        if context is not None and len(context) != len(rows):
            raise ValueError(
                f"VampPrior: {len(context)} contexts of {len(rows)} rows; expected one a row"
            )
        # A bound method, not the module: that is the owner's, whose weights these would be twice.
        self._encode = encode.__call__ if isinstance(encode, nn.Module) else encode
        spread = rows.std(dim=0, correction=0)
        self.register_buffer("centre", rows.clone())
        self.register_buffer("scale", torch.where(spread > 0, spread, torch.ones_like(spread)))
        self.register_buffer("context", None if context is None else context.clone())
        self.register_buffer("log_weights", rows.new_zeros(len(rows)), persistent=False)
        self.shift = nn.Parameter(torch.zeros_like(rows))

    @property
    def n_components(self) -> int:
        """Pseudo-inputs K."""
        return len(self.centre)

    @property
    def pseudo_inputs(self) -> Tensor:
        """The pseudo-inputs: (K, ...), in the units of the rows that they start from."""
        return self.centre + self.scale * self.shift

    def dist(self) -> TorchDistribution:
        """Return the mixture: event (L,)."""
        rows = self.pseudo_inputs
        encoded = self._encode(rows) if self.context is None else self._encode(rows, self.context)
        weights = dist.Categorical(logits=self.log_weights, validate_args=False)
        return _Mixture(weights, encoded, validate_args=False)


class _Mixture(dist.MixtureSameFamily):  # type: ignore[misc]
    """A mixture with the support of its components: torch's own has no bijection, NUTS needs it."""

    @property
    def support(self) -> Any:
        """Where codes lie."""
        return self.component_distribution.support

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of codes (..., L): (...)."""
        components = self.component_distribution
        # Said in full: flows given a context do not broadcast codes against it.
        shape = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
            (*value.shape[:-1], 1), components.batch_shape
        )
        each = value.unsqueeze(-2).expand(*shape, -1)
        weights = self.mixture_distribution.logits.log_softmax(-1)
        found: Tensor = (components.log_prob(each) + weights).logsumexp(-1)
        return found


def build_prior(
    name: str,
    latent_dim: int,
    *,
    encode: Encoder | None = None,
    rows: Tensor | None = None,
    context: Tensor | None = None,
) -> nn.Module:
    """Build a prior of latents by its name.

    Parameters
    ----------
    name : {"normal", "vamp", "flow"}
        `StandardNormal`, `VampPrior`, or a masked autoregressive flow.
    latent_dim : int
        Latents L.
    encode : bound method, optional
        ``encode(x, context)`` of the network, for "vamp".
    rows : (K, ...) tensor, optional
        Rows of the data where the K pseudo-inputs of "vamp" start.
    context : (K, C) tensor, optional
        The contexts of those rows.

    Returns
    -------
    Module
        With ``dist()``: a Pyro distribution, event (L,).

    Raises
    ------
    ValueError
        If there is no prior of this name; if "vamp" lacks encoder or rows.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.priors import build_prior
    >>> round(float(build_prior("normal", 2).dist().log_prob(torch.zeros(2))), 3)
    -1.838
    """
    if name == "normal":
        return StandardNormal(latent_dim)
    if name == "flow":
        # Densities, which training takes, are one pass; a draw is a pass a latent.
        transform = maf(latent_dim)
        for step in transform.transforms:
            # It starts as the standard normal: scales of untrained layers compound far out.
            nn.init.zeros_(step.network.head.weight)
            nn.init.zeros_(step.network.head.bias)
        return Flow(transform, latent_dim)
    if name != "vamp":
        names = ", ".join(map(repr, PRIORS))
        raise ValueError(f"build_prior: there is no prior {name!r}; expected one of {names}")
    if encode is None or rows is None:
        raise ValueError("build_prior: prior 'vamp' takes encode=... and rows=..., to start from")
    return VampPrior(encode, rows, context)
