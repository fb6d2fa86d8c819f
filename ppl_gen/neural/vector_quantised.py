"""The vector-quantised autoencoder as a torch module: discrete codes, and a density over them."""

from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn

from ppl_gen.neural.density import DensityModule, n_rows
from ppl_gen.neural.likelihoods import Likelihood
from ppl_gen.neural.quantisation import Quantised, VectorQuantiser

__all__ = ["CodeFrequencies", "Coded", "VectorQuantisedAutoencoder"]


class Coded(NamedTuple):
    """What a row says of its codes.

    Attributes
    ----------
    reconstruction : (n,) tensor
        Log density of each row given its codes, in nats.
    quantised : Quantised
        Codes (n, T), and their squared distances from what the encoder puts out.
    """

    reconstruction: Tensor
    quantised: Quantised


class VectorQuantisedAutoencoder(DensityModule):
    """Codes c for each row, a decoder to the row, an encoder back, and a density over codes.

    ``p(x) = sum_c p(c | context) p(x | c)``, of which the term of the encoder's own codes is a
    lower bound [1]_: the one that :meth:`log_prob` gives.

    Parameters
    ----------
    width : int
        Entries D of a row.
    likelihood : Likelihood
        With P outputs and F features for each entry.
    encoder : Module
        (n, D F) -> (n, T V): a vector of V entries for each of T places.
    quantiser : VectorQuantiser
        Of vectors (V,).
    decoder : Module
        (n, T V) -> (n, D P).
    code_density : DensityModule
        Over codes (T,), given the context.

    References
    ----------
    .. [1] van den Oord, A., Vinyals, O. and Kavukcuoglu, K. (2017). Neural discrete representation
       learning. NeurIPS, arXiv:1711.00937, section 3.
    """

    def __init__(
        self,
        width: int,
        likelihood: Likelihood,
        encoder: nn.Module,
        quantiser: VectorQuantiser,
        decoder: nn.Module,
        code_density: DensityModule,
    ) -> None:
        super().__init__(width, code_density.context_width)
        self.likelihood, self.quantiser, self.code_density = likelihood, quantiser, code_density
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> Quantised:
        """Codes of rows: (n, D) -> codes (n, T)."""
        vectors: Tensor = self.encoder(self.likelihood.features(x).flatten(-2))
        found: Quantised = self.quantiser(vectors.reshape(len(x), -1, self.quantiser.code_dim))
        return found

    def outputs(self, vectors: Tensor) -> Tensor:
        """What the decoder puts out of vectors (n, T, V): (n, D, P)."""
        found: Tensor = self.decoder(vectors.flatten(-2))
        return found.reshape(len(vectors), self.width, self.likelihood.n_outputs)

    def reconstruction(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Log density of rows given the vectors of their codes: (n,)."""
        found: Tensor = self.likelihood.rows(self.outputs(vectors)).log_prob(x)
        return found

    def coded(self, x: Tensor) -> Coded:
        """Encode, quantise and decode rows: what the first stage of training descends."""
        quantised = self.encode(x)
        return Coded(self.reconstruction(x, quantised.vectors), quantised)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Lower bound on the log density of each row, log p(c) + log p(x | c): (n,)."""
        reconstruction, quantised = self.coded(x)
        codes = quantised.codes.to(x.dtype)
        return self.code_density.log_prob(codes, context) + reconstruction

    def model(
        self, x: Tensor | None = None, context: Tensor | None = None, n: int | None = None
    ) -> Tensor:
        """Run as a Pyro program: codes at the site "c", rows at the site "x"."""
        self.register()
        with pyro.plate("row", n_rows(x, context, n)):
            codes = pyro.sample("c", self.code_density.dist(context))
            told = self.likelihood.rows(self.outputs(self.quantiser.embed(codes.long())))
            rows: Tensor = pyro.sample("x", told, obs=x)
        return rows

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draw n rows, codes first: (n, D)."""
        with torch.no_grad():
            codes = self.code_density.sample(n, context).long()
            told = self.likelihood.rows(self.outputs(self.quantiser.embed(codes)))
            drawn: Tensor = told.sample()
        return drawn

    def count_codes(self, codes: Tensor, weight: Tensor | None = None) -> None:
        """Make the density of codes the frequencies of these, (n, T), which takes no training.

        A network tells them all places together, and whatever the context.
        """
        density: Any = self.code_density
        if isinstance(density, CodeFrequencies):
            density.count(codes, weight)
            return
        head = density.output[-1]
        pooled = CodeFrequencies(1, self.quantiser.n_codes).to(head.bias)
        each = None if weight is None else weight.repeat_interleave(codes.shape[1])
        pooled.count(codes.reshape(-1, 1), each)
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(pooled.log_frequencies[0])

    def centre(self, codes: Tensor) -> Tensor:
        """Mean of the rows of codes (n, T); the mode where entries are labels: (n, D)."""
        return self.likelihood.centre(self.outputs(self.quantiser.embed(codes)))


class CodeFrequencies(DensityModule):
    """Independent codes, each place with frequencies of its own.

    Parameters
    ----------
    width : int
        Places T.
    n_codes : int
        Codes K.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.vector_quantised import CodeFrequencies
    >>> density = CodeFrequencies(width=1, n_codes=2)
    >>> density.count(torch.tensor([[0], [0], [1]]))
    >>> density.log_prob(torch.tensor([[0], [1]])).exp()
    tensor([0.6000, 0.4000])
    """

    log_frequencies: Tensor

    def __init__(self, width: int, n_codes: int) -> None:
        super().__init__(width)
        even = torch.full((width, n_codes), 1.0 / n_codes)
        self.register_buffer("log_frequencies", even.log())

    def count(self, codes: Tensor, weight: Tensor | None = None) -> None:
        """Learn of codes (n, T): one more than were counted of each, so that none is impossible."""
        counts = torch.ones_like(self.log_frequencies)
        if weight is None:
            weight = counts.new_ones(len(codes))
        each = weight.to(counts)[:, None].expand(codes.shape)
        counts.scatter_add_(1, codes.T, each.T.contiguous())
        self.log_frequencies.copy_(counts.log() - counts.sum(dim=1, keepdim=True).log())

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log mass of codes, in nats: (n, T) -> (n,)."""
        return self.log_frequencies.T.gather(0, x.long()).sum(dim=-1)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draw codes of n rows: (n, T)."""
        drawn = torch.multinomial(self.log_frequencies.exp(), n, replacement=True)  # (T, n)
        return drawn.T.to(self.log_frequencies.dtype)
