"""Amortised guides: distributions of latents, of the numbers that an encoder puts out."""

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.transforms import ConditionalAffineAutoregressive
from pyro.nn import ConditionalAutoRegressiveNN
from torch import Tensor, nn
from torch.nn.functional import softplus

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
    takes one pass; the density of another point takes L passes a flow.

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
        order = torch.arange(latent_dim)
        self.flows = nn.ModuleList(
            ConditionalAffineAutoregressive(
                ConditionalAutoRegressiveNN(
                    latent_dim,
                    latent_dim,
                    [max(hidden, latent_dim)],
                    permutation=order.flip(0) if flow % 2 else order,
                ),
                stable=True,
            )
            for flow in range(n_flows)
        )

    def forward(self, parameters: Tensor) -> TorchDistribution:
        """Transformed normal distributions."""
        loc, scale, context = parameters.chunk(3, dim=-1)
        base = dist.Normal(loc, softplus(scale) + SCALE_FLOOR, validate_args=False).to_event(1)
        # Conditioning makes new transforms, so that none keeps what older weights gave.
        flows = [flow.condition(context) for flow in self.flows]  # type: ignore[operator]
        return dist.TransformedDistribution(base, flows, validate_args=False)


#: The families by name, the default first.
POSTERIORS: dict[str, type[AmortisedPosterior]] = {
    "mean_field": MeanField,
    "full_rank": FullRank,
    "iaf": InverseAutoregressive,
}
