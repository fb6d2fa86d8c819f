"""The variational autoencoder as a torch module, with its Pyro model and guide."""

import math

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from ppl_gen.neural.amortised import AmortisedPosterior
from ppl_gen.neural.density import DensityModule, n_rows
from ppl_gen.neural.laplace import Defensive, laplace
from ppl_gen.neural.likelihoods import Likelihood

__all__ = ["N_DRAWS", "VariationalAutoencoder"]

#: Draws of the guide that a log density is estimated of, where it is not said how many.
N_DRAWS = 100

#: Numbers of the widest layer at a time where rows have many codes: some 16 MB.
AT_ONCE = 2**22


class VariationalAutoencoder(DensityModule):
    """A latent code z for each row, a decoder to the row, and an encoder back.

    ``z ~ prior``, ``x ~ likelihood(decoder(z, context))``; the guide is
    ``z ~ posterior(encoder(x, context))`` [1]_. Entries that are NaN are missing: the likelihood
    leaves them out, and the encoder is given zeros, which stand for nothing [2]_.

    Parameters
    ----------
    width : int
        Entries D of a row.
    likelihood : Likelihood
        With P outputs and F features for each entry.
    encoder : Module
        (n, D F [+ D] [+ C]) -> (n, posterior.n_parameters): features by entry, of each entry
        whether it is there (if `gaps`), and the context.
    decoder : Module
        (..., L [+ C]) -> (..., D P), outputs by entry.
    posterior : AmortisedPosterior
    prior : Module
        With ``dist()``: a Pyro distribution over codes, event (L,).
    latent_dim : int
        Latents L.
    context_width : int
        Entries C of a row's context; 0 where there is none.
    gaps : bool
        The rows to train on have gaps, and the encoder is told where.
    beta : float
        Weight of the KL divergence in the loss that trains [3]_.
    free_bits : float
        Nats of each latent that training does not hold down [4]_, equation 15.
    beta_warmup : float
        Share of the training over which `beta` rises from zero.

    References
    ----------
    .. [1] Kingma, D. P. and Welling, M. (2014). Auto-encoding variational Bayes. ICLR.
    .. [2] Mattei, P.-A. and Frellsen, J. (2019). MIWAE: deep generative modelling and imputation
       of incomplete data sets. ICML, arXiv:1812.02633.
    .. [3] Higgins, I. et al. (2017). beta-VAE. ICLR, equation 4.
    .. [4] Kingma, D. P. et al. (2016). Improved variational inference with inverse autoregressive
       flow. NeurIPS, arXiv:1606.04934.
    .. [5] Burda, Y., Grosse, R. and Salakhutdinov, R. (2016). Importance weighted autoencoders.
       ICLR, arXiv:1509.00519.
    """

    def __init__(
        self,
        width: int,
        likelihood: Likelihood,
        encoder: nn.Module,
        decoder: nn.Module,
        posterior: AmortisedPosterior,
        prior: nn.Module,
        latent_dim: int,
        context_width: int = 0,
        gaps: bool = False,
        beta: float = 1.0,
        free_bits: float = 0.0,
        beta_warmup: float = 0.0,
    ) -> None:
        super().__init__(width, context_width)
        self.likelihood, self.posterior, self.latent_prior = likelihood, posterior, prior
        self.encoder, self.decoder = encoder, decoder
        self.latent_dim, self.gaps = latent_dim, gaps
        self.beta, self.free_bits, self.beta_warmup = beta, free_bits, beta_warmup

    # -- the parts -----------------------------------------------------------------------------

    def prior(self) -> TorchDistribution:
        """Distribution of a code: event (L,)."""
        found: TorchDistribution = self.latent_prior.dist()  # type: ignore[operator]
        return found

    def encode(self, x: Tensor, context: Tensor | None = None) -> TorchDistribution:
        """The guide's distribution of the codes of rows: (..., D) -> batch (...), event (L,)."""
        parameters = self.encoder(self.encoder_inputs(x, context))
        found: TorchDistribution = self.posterior(parameters)
        return found

    def encoder_inputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """What the encoder is given of rows: (..., D) -> (..., D F [+ D] [+ C])."""
        observed = self._observed(x)
        features = self.likelihood.features(x)
        if observed is not None:
            features = features.masked_fill(~observed.unsqueeze(-1), 0.0)
        return self._inputs(features, observed, context)

    def _inputs(self, features: Tensor, observed: Tensor | None, context: Tensor | None) -> Tensor:
        parts = [features.flatten(-2)]
        if self.gaps and observed is not None:
            parts.append(observed.to(features.dtype))
        return _joined([*parts, *([] if context is None else [context])])

    def encode_relaxed(self, relaxed: Tensor, context: Tensor | None = None) -> TorchDistribution:
        """Encode rows that gradients move, of which nothing is missing; see `Likelihood.relaxed`.

        The pseudo-inputs of a `VampPrior` are such rows: labels would have no gradient.
        """
        features = self.likelihood.relaxed_features(relaxed)
        observed = torch.ones_like(features[..., 0], dtype=torch.bool)
        parameters = self.encoder(self._inputs(features, observed, context))
        found: TorchDistribution = self.posterior(parameters)
        return found

    def guide_moments(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Mean and variance of the codes of rows, by draws where the guide is a flow: (n, 2, L)."""
        told = self.encode(x, context)
        try:
            return torch.stack([told.mean, told.variance], dim=1)
        except NotImplementedError:
            drawn = told.sample((256,))
            return torch.stack([drawn.mean(dim=0), drawn.var(dim=0)], dim=1)

    def decode(
        self, z: Tensor, context: Tensor | None = None, observed: Tensor | None = None
    ) -> TorchDistribution:
        """Distribution of rows, of their codes: (..., L) -> batch (...), event (D,).

        `observed`, (..., D), leaves entries out of the density where it is false.
        """
        return self.likelihood.rows(self.outputs(z, context), observed)

    def outputs(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """What the decoder puts out: (..., L) -> (..., D, P)."""
        parts = [z]
        if context is not None:
            parts.append(context.expand(*z.shape[:-1], -1))
        found: Tensor = self.decoder(_joined(parts))
        return found.reshape(*z.shape[:-1], self.width, self.likelihood.n_outputs)

    def _observed(self, x: Tensor) -> Tensor | None:
        # Rows without gaps are trained on without looking for any.
        return None if self.training and not self.gaps else ~x.isnan()

    # -- the programs --------------------------------------------------------------------------

    def model(
        self, x: Tensor | None = None, context: Tensor | None = None, n: int | None = None
    ) -> Tensor:
        """Run as a Pyro program: codes at the site "z", rows at the site "x"."""
        self.register()
        x, context = self.cast(x), self.cast(context)
        observed = None if x is None else self._observed(x)
        if x is not None and observed is not None:
            x = x.masked_fill(~observed, 0.0)
        with pyro.plate("row", n_rows(x, context, n), dim=-1):
            z = pyro.sample("z", self.prior())
            rows: Tensor = pyro.sample("x", self.decode(z, context, observed), obs=x)
        return rows

    def guide(
        self, x: Tensor | None = None, context: Tensor | None = None, n: int | None = None
    ) -> Tensor:
        """Run as a Pyro guide of :meth:`model`, of rows that are given."""
        if x is None:
            raise ValueError("guide: there are no rows x; the guide is of the codes of given rows")
        self.register()
        guide = self.encode(self.cast(x), self.cast(context))
        with pyro.plate("row", len(x), dim=-1):
            z: Tensor = pyro.sample("z", guide)
        return z

    # -- density and draws ---------------------------------------------------------------------

    def importance(
        self,
        x: Tensor,
        context: Tensor | None = None,
        n_draws: int = N_DRAWS,
        n_newton: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Draw codes of rows from a proposal q, with their log weights ``p(x, z) / q(z | x)``.

        The mean of the weights of a row estimates its density without bias, and the logarithm of
        that mean bounds the log density from below in expectation [5]_, equation 8.

        Parameters
        ----------
        x : (n, D) tensor
        context : (n, C) tensor, optional
        n_draws : int
        n_newton : int
            Steps of Newton's method from the guide's mean to the mode of the codes of each row,
            where a normal distribution proposes nine draws of ten (`laplace`, `Defensive`); with 0
            the guide proposes all.

        Returns
        -------
        codes : (n_draws, n, L) tensor
        log_weights : (n_draws, n) tensor
        """
        observed = self._observed(x)
        filled = x if observed is None else x.masked_fill(~observed, 0.0)
        prior = self.prior()

        def log_joint(z: Tensor) -> Tensor:
            told: Tensor = self.decode(z, context, observed).log_prob(filled) + prior.log_prob(z)
            return told

        guide = self.encode(x, context)

        def by_guide(count: int) -> tuple[Tensor, Tensor]:
            z = guide.rsample((count,))
            return z, guide.log_prob(z)  # at once, while a flow remembers what it drew these from

        draw = by_guide
        if n_newton:
            start = self.guide_moments(x, context)[:, 0]
            draw = Defensive(laplace(log_joint, start, n_newton), guide).draw
        codes, log_weights = [], []
        for count in self.blocks(n_draws, len(x)):
            z, log_density = draw(count)
            told = log_joint(z) - log_density
            # Where Newton's method was led out of all bounds, the guide's draws count alone.
            log_weights.append(told.masked_fill(told.isnan(), -math.inf) if n_newton else told)
            codes.append(z)
        return torch.cat(codes), torch.cat(log_weights)

    def blocks(self, n_draws: int, n_rows: int) -> list[int]:
        """Part draws of codes of rows into numbers that are decoded together."""
        size = max(1, AT_ONCE // (n_rows * self.widest))
        whole, rest = divmod(n_draws, size)
        return [size] * whole + [rest] * (rest > 0)

    @property
    def widest(self) -> int:
        """Numbers of a code in the widest layer of the networks, which memory goes by."""
        maps = getattr(self.decoder, "widest", 0)
        # A VampPrior asks the guide of each pseudo-input for the density of each code.
        n_guides = getattr(self.latent_prior, "n_components", 1)
        of_guides = n_guides * max(self.latent_dim, _units(self.posterior))
        told = self.width * self.likelihood.n_outputs
        return max(told, maps, of_guides, _units(self.decoder), _units(self.latent_prior))

    def log_prob(self, x: Tensor, context: Tensor | None = None, n_draws: int = N_DRAWS) -> Tensor:
        """Log density of each row by importance sampling, a lower bound in expectation: (n,)."""
        _, log_weights = self.importance(x, context, n_draws)
        return log_weights.logsumexp(0) - math.log(n_draws)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draw n rows: (n, D)."""
        return self.sample_joint(n, context)[1]

    def sample_joint(self, n: int, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draw n codes and their rows: (n, L) and (n, D)."""
        with torch.no_grad():
            z = self.prior().sample((n,))
            return z, self.decode(z, context).sample().to(z.dtype)

    def centre(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Mean of the rows of codes; the mode where entries are labels: (..., L) -> (..., D)."""
        return self.likelihood.centre(self.outputs(z, context))

    def complete(self, x: Tensor, context: Tensor | None = None, n_draws: int = N_DRAWS) -> Tensor:
        """Fill in what is missing by its conditional mean, or mode where values are labels.

        Self-normalised importance sampling of codes given what is observed: the single imputation
        of [2]_.
        """
        codes, log_weights = self.importance(x, context, n_draws)
        shares = log_weights.softmax(0)
        moment, done = x.new_zeros(()), 0
        for count in self.blocks(n_draws, len(x)):
            block = slice(done, done + count)
            of_draws = self.likelihood.moment(self.outputs(codes[block], context))
            moment = moment + torch.einsum("kn,kndm->ndm", shares[block], of_draws)
            done += count
        return torch.where(x.isnan(), self.likelihood.value(moment), x)

    def draw_missing(
        self, x: Tensor, context: Tensor | None = None, n_draws: int = N_DRAWS
    ) -> Tensor:
        """Draw what is missing given what is observed, by a draw among weighted codes: (n, D)."""
        codes, log_weights = self.importance(x, context, n_draws)
        chosen = log_weights.softmax(0).T.multinomial(1).squeeze(-1)
        z = codes[chosen, torch.arange(len(x), device=x.device)]
        return torch.where(x.isnan(), self.decode(z, context).sample(), x)


def _units(network: nn.Module) -> int:
    """Units of the widest fully connected layer, 0 where there is none."""
    layers = (m.out_features for m in network.modules() if isinstance(m, nn.Linear))
    return max(layers, default=0)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
