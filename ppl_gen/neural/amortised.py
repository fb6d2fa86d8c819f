"""Amortised guides: distributions of latents, of the numbers that an encoder puts out."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.transforms import AffineAutoregressive, ConditionalAffineAutoregressive
from pyro.nn import ConditionalAutoRegressiveNN
from pyro.nn.auto_reg_nn import sample_mask_indices
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid, relu, softplus

__all__ = ["POSTERIORS", "AmortisedPosterior", "FullRank", "InverseAutoregressive", "MeanField"]

#: Least deviation of a latent given a row: its logarithm is then finite, whatever is put out.
SCALE_FLOOR = 1e-6


class AmortisedPosterior(nn.Module):
    """A family of distributions over latents (L,).

    Attributes
    ----------
    n_parameters : int
        Numbers that an encoder puts out for each row.
    """

    n_parameters: int

    def forward(self, parameters: Tensor) -> TorchDistribution:
        """Distributions of rows: (n, n_parameters) -> batch (n,), event (L,)."""
        raise NotImplementedError  # pragma: no cover


class MeanField(AmortisedPosterior):
    """Independent normals: L locations, then L scales before the softplus.

    Parameters
    ----------
    latent_dim : int
        Latents L.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.n_parameters = 2 * latent_dim

    def forward(self, parameters: Tensor) -> TorchDistribution:
        """Normal distributions."""
        loc, scale = parameters.chunk(2, dim=-1)
        return dist.Normal(loc, softplus(scale) + SCALE_FLOOR, validate_args=False).to_event(1)


class FullRank(AmortisedPosterior):
    """Multivariate normals: L locations, L diagonal entries before the softplus, L(L-1)/2 below.

    Parameters
    ----------
    latent_dim : int
        Latents L.
    """

    below: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.n_parameters = 2 * latent_dim + latent_dim * (latent_dim - 1) // 2
        below = torch.tril_indices(latent_dim, latent_dim, -1)
        self.register_buffer("below", below, persistent=False)

    def forward(self, parameters: Tensor) -> TorchDistribution:
        """Multivariate normals, by the Cholesky factors of their covariances."""
        size = self.latent_dim
        loc, diagonal, rest = torch.tensor_split(parameters, (size, 2 * size), dim=-1)
        factor = torch.diag_embed(softplus(diagonal) + SCALE_FLOOR)
        factor[..., self.below[0], self.below[1]] = rest
        return dist.MultivariateNormal(loc, scale_tril=factor, validate_args=False)


class InverseAutoregressive(AmortisedPosterior):
    """Inverse autoregressive flows over independent normals.

    The encoder puts out L locations, L scales before the softplus, and L numbers that the flows
    are given as context; the order of the latents is turned round from one flow to the next. The
    gated update is that of [1]_, equations 13 and 14. To draw, with the density of what is drawn,
    takes one pass; the density of another point takes L steps a flow, as many products as a pass.

    Parameters
    ----------
    latent_dim : int
        Latents L, two or more.
    n_flows : int
    hidden : int
        Units of the one hidden layer of each flow.

    References
    ----------
    .. [1] Kingma, D. P. et al. (2016). Improved variational inference with inverse autoregressive
       flow. NeurIPS, arXiv:1606.04934.
    """

    def __init__(self, latent_dim: int, n_flows: int = 2, hidden: int = 64) -> None:
        super().__init__()
        self.n_parameters = 3 * latent_dim
        order = list(range(latent_dim))
        self.flows = nn.ModuleList(
            _Flow(latent_dim, max(hidden, latent_dim), order[::-1] if flow % 2 else order)
            for flow in range(n_flows)
        )

    def forward(self, parameters: Tensor) -> TorchDistribution:
        """Transformed normal distributions."""
        loc, scale, context = parameters.chunk(3, dim=-1)
        base = dist.Normal(loc, softplus(scale) + SCALE_FLOOR, validate_args=False).to_event(1)
        # Conditioning makes new transforms, so that none keeps what older weights gave.
        flows = [flow.condition(context) for flow in self.flows]  # type: ignore[operator]
        return dist.TransformedDistribution(base, flows, validate_args=False)


class _Flow(ConditionalAffineAutoregressive):  # type: ignore[misc]
    """Pyro's flow with one hidden layer, whose inverse computes each hidden unit once."""

    def __init__(self, latent_dim: int, hidden: int, order: list[int]) -> None:
        network = ConditionalAutoRegressiveNN(
            latent_dim, latent_dim, [hidden], permutation=torch.tensor(order)
        )
        super().__init__(network, stable=True)
        self.order = order
        with torch.device("cpu"):
            seen = sample_mask_indices(latent_dim, hidden).long() - 1
        # Units that see none of the entries, the first one, the first two, ...: they lie in line.
        self.sizes = seen.bincount(minlength=latent_dim).tolist()

    def condition(self, context: Tensor) -> "_Conditioned":
        """Return the flow given the context."""
        return _Conditioned(super().condition(context).arn, self.order, self.sizes)


class _Conditioned(AffineAutoregressive):  # type: ignore[misc]
    """The flow given a context.

    A hidden unit is final once the last entry that it sees is known: an inverse takes as many
    products as one pass, in place of one pass an entry.
    """

    def __init__(self, network: Any, order: list[int], sizes: list[int]) -> None:
        super().__init__(network, stable=True)
        self.order, self.sizes = order, sizes

    def _inverse_stable(self, y: Tensor) -> Tensor:
        network, context = self.arn.func, self.arn.keywords["context"]
        first, last = network.layers
        size = len(self.order)
        of_context, of_entries = (first.weight * first.mask).split([context.shape[-1], size], 1)
        inner = torch.split(linear(context, of_context, first.bias), self.sizes, dim=-1)
        of_entries = of_entries[:, self.order].split(self.sizes)
        outer = (last.weight * last.mask).split(self.sizes, dim=1)
        told: Tensor = last.bias
        entries: list[Tensor] = []
        for place, entry in enumerate(self.order):
            units = inner[place]
            if place:
                known = torch.stack(entries, dim=-1)
                units = units + linear(known, of_entries[place][:, :place])
            told = told + linear(relu(units), outer[place])
            mean, logit = told[..., entry], told[..., size + entry]
            inverse_scale = 1.0 + torch.exp(-logit - self.sigmoid_bias)
            entries.append(inverse_scale * y[..., entry] + (1.0 - inverse_scale) * mean)
        self._cached_log_scale = logsigmoid(told[..., size:] + self.sigmoid_bias)
        return torch.stack([entries[self.order.index(entry)] for entry in range(size)], dim=-1)


#: The families by name, the default first.
POSTERIORS: dict[str, type[AmortisedPosterior]] = {
    "mean_field": MeanField,
    "full_rank": FullRank,
    "iaf": InverseAutoregressive,
}
