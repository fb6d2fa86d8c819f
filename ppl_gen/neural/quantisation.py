"""Vector quantisation: codes for vectors, by the nearest entry of a codebook that is learned."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Quantised", "VectorQuantiser"]

#: Codes used less than this share of an even use, on average of late, are dead.
DEAD_BELOW = 0.05


class Quantised(NamedTuple):
    """What became of vectors (..., C).

    Attributes
    ----------
    codes : (...) int64 tensor
        Places in the codebook, 0 to K - 1.
    vectors : (..., C) tensor
        The entries of the codebook. Gradients go past them to the vectors that were quantised.
    distance : (...) tensor
        Squared distance of each vector from its entry, which does not move: the commitment loss.
    """

    codes: Tensor
    vectors: Tensor
    distance: Tensor


class VectorQuantiser(nn.Module):
    """Vectors to the nearest of K codes, learned by moving averages.

    In training, a code is the moving average of the vectors it is nearest to ([1]_, appendix A.1).
    Codes start at vectors of the first batch. One that is hardly used any more is dead, and starts
    again at a vector of the batch at hand, which is counted.

    Parameters
    ----------
    n_codes : int
        Codes K.
    code_dim : int
        Entries C of a vector.
    decay : float
        Share of the moving averages that a batch leaves.

    Attributes
    ----------
    codebook : (K, C) tensor
    usage : (K,) tensor
        Moving average of the uses of each code in a batch.
    revived : int64 tensor
        Dead codes that were started again, so far.

    References
    ----------
    .. [1] van den Oord, A., Vinyals, O. and Kavukcuoglu, K. (2017). Neural discrete representation
       learning. NeurIPS, arXiv:1711.00937.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.quantisation import VectorQuantiser
    >>> quantiser = VectorQuantiser(8, code_dim=2)
    >>> found = quantiser(torch.randn(50, 4, 2))
    >>> found.codes.shape, found.vectors.shape
    (torch.Size([50, 4]), torch.Size([50, 4, 2]))
    """

    codebook: Tensor
    usage: Tensor
    sums: Tensor
    revived: Tensor

    def __init__(self, n_codes: int, code_dim: int, decay: float = 0.99) -> None:
        super().__init__()
        self.n_codes, self.code_dim, self.decay = n_codes, code_dim, decay
        self.register_buffer("codebook", torch.randn(n_codes, code_dim))
        self.register_buffer("usage", torch.zeros(n_codes))
        self.register_buffer("sums", torch.zeros(n_codes, code_dim))
        self.register_buffer("revived", torch.zeros((), dtype=torch.int64))

    def forward(self, vectors: Tensor) -> Quantised:
        """Quantise vectors (..., C); learns of them in training."""
        flat = vectors.detach().reshape(-1, self.code_dim).to(self.codebook.dtype)
        if self.training:
            self._revive(flat)
        flat_codes = torch.cdist(flat, self.codebook).argmin(dim=-1)
        codes = flat_codes.reshape(vectors.shape[:-1])
        entries = self.embed(codes)
        if self.training:
            self._learn(flat, flat_codes)
        distance = (vectors - entries).square().sum(dim=-1)
        # Straight-through: as if the entry were the vector itself, plus a constant ([1]_, 3.1).
        return Quantised(codes, vectors + (entries - vectors).detach(), distance)

    def embed(self, codes: Tensor) -> Tensor:
        """Entries of the codebook: codes (...) -> (..., C)."""
        return self.codebook[codes]

    def _learn(self, flat: Tensor, codes: Tensor) -> None:
        """Move the averages towards a batch: [1]_, equations 6 to 8."""
        uses = torch.zeros_like(self.usage).index_add_(0, codes, torch.ones_like(flat[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, codes, flat)
        self.usage.lerp_(uses, 1.0 - self.decay)
        self.sums.lerp_(sums, 1.0 - self.decay)
        self.codebook.copy_(self.sums / self.usage[:, None])

    def _revive(self, flat: Tensor) -> None:
        """Start dead codes, at first all of them, at vectors of the batch, as if evenly used."""
        even = len(flat) / self.n_codes
        dead = self.usage < DEAD_BELOW * even
        places = torch.arange(self.n_codes, device=flat.device) % len(flat)
        fresh = flat[torch.randperm(len(flat), device=flat.device)[places]]
        self.revived.add_((dead & (self.usage > 0.0)).sum())
        self.codebook.copy_(torch.where(dead[:, None], fresh, self.codebook))
        self.sums.copy_(torch.where(dead[:, None], fresh * even, self.sums))
        self.usage.copy_(torch.where(dead, even, self.usage))
