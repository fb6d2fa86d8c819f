"""Latents of a trained autoencoder: their posterior by MCMC, and which of them say anything."""

import copy
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ppl_gen.data import is_frame
from ppl_gen.deep_estimator import DeepModel
from ppl_gen.engines.devices import resolve_device
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.dispatch import infer
from ppl_gen.language import Program, plate, program, sample
from ppl_gen.neural.priors import StandardNormal
from ppl_gen.neural.variational import VariationalAutoencoder

Array = Any

__all__ = ["ACTIVE", "Latents", "latent_program"]

#: Least variance over rows of the posterior mean of a latent that is active: Burda et al. 2016.
ACTIVE = 0.01
#: Rows of the training data that the check for collapse looks at.
CHECKED_ROWS = 4096


def latent_program(module: VariationalAutoencoder, context: torch.Tensor | None = None) -> Program:
    """Return the decoder with its weights as they are, as a program of the rows it is given.

    Parameters
    ----------
    module : VariationalAutoencoder
    context : (n, C) tensor, optional
        Of the rows.

    Returns
    -------
    Program
        ``latents(x)``, with latents (n, L) at the site "z" and rows (n, D) at "x"; NaN is missing.
    """

    @program
    def latents(x: Any) -> None:
        observed = ~x.isnan()
        with plate("row", len(x)):
            z = sample("z", module.prior(), dims=("latent",))
            told = module.decode(z, context, observed)
            sample("x", told, obs=x.masked_fill(~observed, 0.0), dims=("column",))

    return latents


class Latents(DeepModel):
    """What an autoencoder with continuous latents tells of them; the part of `VAE` that does."""

    @property
    def _network(self) -> VariationalAutoencoder:
        module = self.structure_.module
        assert isinstance(module, VariationalAutoencoder)
        return module

    def latent_posterior(
        self,
        X: Any,
        method: str | InferenceMethod = "nuts",
        *,
        context: Any = None,
        random_state: int | None = None,
        progress: bool = True,
    ) -> Any:
        """Posterior of the latents of rows, exact up to Monte Carlo error.

        The guide gives an approximation at once, which is that of :meth:`transform`; here latents
        are drawn given rows and the weights as they are fitted. It is meant for few rows: all of
        them are drawn together.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
        method : str or InferenceMethod
            ``"nuts"``, or an object such as ``NUTS(draws=500)``.
        context : one of the fit's kind for all rows, or one a row; for conditional densities
        random_state : int or None
        progress : bool
            Whether a bar is shown.

        Returns
        -------
        Posterior
            Of the site "z", with the axes ``row`` and ``latent``.
        """
        check_is_fitted(self)
        labels = list(X.index) if is_frame(X) and hasattr(X, "index") else None
        data = self._scoring_data(X, context)
        device = resolve_device(self.device, "pyro")
        # Trajectories follow gradients over many steps, which float32 would blur.
        module = copy.deepcopy(self._network).double().to(device).requires_grad_(False)
        coded = data.get("context")
        given = None if coded is None else torch.tensor(coded, dtype=torch.float64, device=device)
        return infer(
            latent_program(module, given),
            x=data["x"].astype(np.float64),
            method=method,
            engine="pyro",
            dtype="float64",
            device=device,
            seed=self._seed(random_state),
            coords={
                "row": labels or list(range(len(data["x"]))),
                "latent": list(range(module.latent_dim)),
                "column": list(range(data["x"].shape[1])),
            },
            progress=progress,
        )

    def active_units(self, X: Any, context: Any = None) -> Array:
        """Tell which latents say anything of rows.

        A latent is active where its posterior mean, by the guide, varies over the rows by more
        than 0.01 (Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, section 5.2).

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
            Two rows or more.
        context : one of the fit's kind for all rows, or one a row; for conditional densities

        Returns
        -------
        (L,) array of bool
        """
        mean, _ = self._latent_moments(self._rows_to_compare(X, context))
        return mean.var(axis=0) > ACTIVE

    def latent_kl(self, X: Any, context: Any = None) -> Array:
        """Nats that each latent says of a row, by the guide, on average over rows.

        The KL divergence of the guide's marginal normal from the prior, N(0, 1); that of a guide
        which is a flow is told from the moments of its draws. Latents that collapsed say nothing.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
        context : one of the fit's kind for all rows, or one a row; for conditional densities

        Returns
        -------
        (L,) array

        Raises
        ------
        ValueError
            If the prior is not the standard normal: then it is not a sum over latents.
        """
        check_is_fitted(self)
        if not isinstance(self._network.latent_prior, StandardNormal):
            raise ValueError(
                f"{self._who}.latent_kl: the prior is not the standard normal: under it latents "
                "depend on each other; expected prior='normal'"
            )
        mean, variance = self._latent_moments(self._scoring_data(X, context))
        each = 0.5 * (mean**2 + variance - 1.0 - np.log(variance))
        return each.mean(axis=0)

    def _rows_to_compare(self, X: Any, context: Any) -> dict[str, Array]:
        check_is_fitted(self)
        data: dict[str, Array] = self._scoring_data(X, context)
        if len(data["x"]) < 2:
            raise ValueError(
                f"{self._who}.active_units: X has 1 row; expected 2 or more, over which means vary"
            )
        return data

    def _latent_moments(self, data: dict[str, Array]) -> tuple[Array, Array]:
        """Mean and variance of the guide, each (n, L); by draws where the guide is a flow."""
        network = self._network
        found = self._by_chunk(
            lambda rows: network.guide_moments(rows["x"], rows.get("context")), data
        ).astype(np.float64)
        return found[:, 0], found[:, 1]

    def _warn_of_collapse(self) -> None:
        """Warn after a fit of latents that the decoder does without."""
        data = {
            name: self._training[name][:CHECKED_ROWS]
            for name in ("x", "context")
            if name in self._training
        }
        mean, _ = self._latent_moments(data)
        active, count = int((mean.var(axis=0) > ACTIVE).sum()), mean.shape[1]
        if 2 * active < count:
            others = f"the guide of {'the others' if active else 'all'} is the prior"
            warnings.warn(
                f"{self._who}.fit: {active or 'none'} of {count} latents are active; {others}, "
                "whatever the row (posterior collapse); use a smaller latent_dim, free_bits, or "
                "beta_warmup",
                RuntimeWarning,
                stacklevel=5,
            )
