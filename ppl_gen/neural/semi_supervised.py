"""Autoencoders whose code has a class in it, which is known of some rows: the model M2."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ppl_gen.neural.density import DensityModule
from ppl_gen.neural.variational import N_DRAWS, VariationalAutoencoder

__all__ = ["SemiSupervisedAutoencoder"]

#: Log odds of a class that is known: any other has probability zero in floats of every size.
CERTAIN = 1e4


class SemiSupervisedAutoencoder(DensityModule):
    """Rows of a class y and a latent z, with a classifier for rows whose class is not known.

    ``y ~ Categorical(prior)``, ``z ~ p(z)`` and ``x ~ p(x | y, z)``; the guide is
    ``q(y | x) q(z | x, y)``: the model M2 of [1]_, section 2.1.2.

    Parameters
    ----------
    autoencoder : VariationalAutoencoder
        p(x | y, z) and q(z | x, y): its context is the class, one-hot (K,).
    classifier : Module
        The encoder's inputs, less the context, -> (n, K) logits of q(y | x).
    class_prior : (K,) tensor
        Probabilities of classes, none of them zero.

    References
    ----------
    .. [1] Kingma, D. P., Rezende, D. J., Mohamed, S. and Welling, M. (2014). Semi-supervised
       learning with deep generative models. NeurIPS, arXiv:1406.5298.
    """

    log_prior: Tensor

    def __init__(
        self, autoencoder: VariationalAutoencoder, classifier: nn.Module, class_prior: Tensor
    ) -> None:
        super().__init__(autoencoder.width)
        self.autoencoder, self.classifier = autoencoder, classifier
        self.n_classes = len(class_prior)
        self.register_buffer("log_prior", class_prior.log())

    # -- the parts -----------------------------------------------------------------------------

    def class_logits(self, x: Tensor) -> Tensor:
        """Logits of q(y | x), the quick guess of the class: (n, D) -> (n, K)."""
        found: Tensor = self.classifier(self.autoencoder.encoder_inputs(x))
        return found

    def one_hot(self, y: Tensor) -> Tensor:
        """Classes as contexts: (...) -> (..., K)."""
        return one_hot(y.long(), self.n_classes).to(self.log_prior.dtype)

    def latent_mean(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Mean of the guide's latents: (n, D) -> (n, L).

        Of classes `y`, (n,) codes; without them averaged over the guide's own guess of the class.
        """
        if y is not None:
            return self.autoencoder.guide_moments(x, self.one_hot(y))[:, 0]
        shares = self.class_logits(x).softmax(dim=-1)
        each = [self.latent_mean(x, torch.full_like(x[:, 0], k)) for k in range(self.n_classes)]
        return torch.einsum("nk,knl->nl", shares, torch.stack(each))

    # -- the programs --------------------------------------------------------------------------

    def model(
        self, x: Tensor | None = None, y: Tensor | None = None, n: int | None = None
    ) -> Tensor:
        """Run as a Pyro program: classes at the site "y", latents at "z", rows at "x".

        The classes that are known, `y`, are the guide's to tell: all rows have one program.
        """
        count = n if x is None else len(x)
        with pyro.plate("row", count, dim=-1):
            kind = pyro.sample("y", dist.Categorical(logits=self.log_prior, validate_args=False))
            z = pyro.sample("z", self.autoencoder.prior())
            observed = None
            if x is not None and (observed := self.autoencoder._observed(x)) is not None:
                x = x.masked_fill(~observed, 0.0)
            told = self.autoencoder.decode(z, self.one_hot(kind), observed)
            rows: Tensor = pyro.sample("x", told, obs=x)
        return rows

    def guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Run as a Pyro guide, which sums over the classes that are not known.

        Parameters
        ----------
        x : (n, D) tensor
        y : (n,) tensor of int, optional
            Classes 0 to K - 1 where they are known, and -1 where not: a row's own class has all
            the probability, so that its bound is equation 6, and that of others equation 7.
        """
        logits = self.class_logits(x)
        if y is not None:
            known = CERTAIN * self.one_hot(y.clamp(min=0))
            logits = torch.where((y >= 0)[:, None], known, logits)
        with pyro.plate("row", len(x), dim=-1):
            kind: Tensor = pyro.sample(
                "y",
                dist.Categorical(logits=logits, validate_args=False),
                infer={"enumerate": "parallel"},
            )
            context = self.one_hot(kind).expand(*kind.shape[:-1], len(x), -1)
            rows = x.expand(*context.shape[:-1], -1)
            pyro.sample("z", self.autoencoder.encode(rows, context))
        return kind

    # -- densities -----------------------------------------------------------------------------

    def log_joint(self, x: Tensor, n_draws: int = N_DRAWS) -> Tensor:
        """Log density of rows together with each class, in nats: (n, D) -> (n, K).

        ``log p(y) + log p(x | y)``, the latter by importance sampling, with draws of the guide
        ``q(z | x, y)``: in expectation a lower bound, which gets tight with more draws.
        """
        each = []
        for kind in range(self.n_classes):
            context = self.one_hot(torch.full_like(x[:, 0], kind, dtype=torch.int64))
            each.append(self.autoencoder.log_prob(x, context, n_draws))
        return torch.stack(each, dim=-1) + self.log_prior

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of rows, in nats, classes summed over: (n,)."""
        return self.log_joint(x).logsumexp(dim=-1)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draw n rows: (n, D); of given classes where `context` has them, one-hot (n, K)."""
        if context is None:
            drawn = torch.multinomial(self.log_prior.exp(), n, replacement=True)
            context = self.one_hot(drawn)
        return self.autoencoder.sample(n, context)
