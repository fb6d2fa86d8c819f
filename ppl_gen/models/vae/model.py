"""The variational autoencoder."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted
from torch import Tensor, nn

from ppl_gen.counts import check_count
from ppl_gen.data import is_frame
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.language import Program
from ppl_gen.models.vae.building import (
    build_decoder,
    build_encoder,
    build_likelihood,
    check_network,
    check_objective,
    check_settings,
)
from ppl_gen.models.vae.importance import ImportanceSampled
from ppl_gen.models.vae.reading import N_PSEUDO_INPUTS, check_range, facts_of
from ppl_gen.neural.amortised import POSTERIORS
from ppl_gen.neural.density import DensityModule
from ppl_gen.neural.priors import build_prior
from ppl_gen.neural.variational import VariationalAutoencoder

Array = Any

__all__ = ["VAE"]


class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ImportanceSampled):  # type: ignore[misc]
    """Variational autoencoder: a latent code behind each row, and networks there and back.

    ``z ~ prior``, and the entries of a row are independent given what a decoder makes of z; an
    encoder gives the guide ``q(z | x)``. Both are trained by a Pyro ELBO of the public
    :meth:`program` and :meth:`guide` [1]_. The density of a row has no closed form: `log_prob`
    estimates it by importance sampling, a lower bound on average.

    Parameters
    ----------
    latent_dim : int
        Entries L of a code.
    likelihood : {"normal", "bernoulli", "categorical", "discretised_logistic"}
        Of the entries of a row: numbers; 0 and 1 (grey values are refused, since there is no
        Bernoulli density of them: binarise, or take another likelihood); labels 0 to K - 1
        without order; ordered levels 0 to K - 1, such as pixels of 256 (Salimans et al. 2017).
    hidden_layer_sizes : sequence of int, optional
        Units of the encoder's hidden layers (by default one of 256), or channels of its
        convolutions (32 and 64), each of which halves height and width; the decoder mirrors them.
    architecture : {"mlp", "convolutional"}
    encoder, decoder : torch.nn.Module, optional
        Networks of your own. The encoder is given flat rows: the D entries standardised (labels
        as K indicators each), then D numbers that tell which are observed if the data fitted
        have gaps, then the context; it puts out 2 L numbers for ``posterior="mean_field"``,
        2 L + L (L - 1) / 2 for "full_rank", and 3 L for "iaf". The decoder is given codes, then
        the context, and puts out D numbers; K D for labels, entry by entry, and 2 D for
        discretised logistics. A fit trains copies.
    posterior : {"mean_field", "full_rank", "iaf"}
        Guide: independent normals, a multivariate normal, or inverse autoregressive flows.
    prior : {"normal", "vamp", "flow"}
        Of codes: standard normal, a mixture of what encodes pseudo-inputs (`VampPrior`), a flow.
    beta : float
        Weight of the KL divergence in the loss (Higgins et al. 2017); the densities are of the
        model as trained, whatever it is.
    free_bits : float
        Nats of each latent that training does not hold down, against collapse (Kingma et al.
        2016, equation 15).
    beta_warmup : float
        Share of the training (of its `epochs` at most) over which beta rises from zero, against
        collapse (Bowman et al. 2016, arXiv:1511.06349; Sonderby et al. 2016, arXiv:1602.02282).
        History and validation are of the full beta throughout, and the best epoch is one after
        the rise.
    noise : "learned", "column" or float
        Of the normal likelihood: one variance for all standardised columns (images are scaled by
        one number, so that it is one variance of all pixels); one a column; or a variance as
        given, in the units of the data squared.
    n_levels : int, optional
        Levels K; by default the largest value and one.
    image_shape : (H, W) or (H, W, C), optional
        Of rows that come flat.
    inference : str, SVI or None
        By default with `Training.for_rows`; else ``SVI(training=Training(...))``. By
        ``SVI(objective="iwae", particles=10)`` the loss is the importance-weighted bound, by
        "dreg" the same with doubly reparameterised gradients, for guides that are no flow; beta,
        free bits and warm-up are of the ELBO.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        "float64", or by default float32.

    Attributes
    ----------
    history_ : DataFrame
        A row an epoch: "loss", and "reconstruction" and "kl" where the loss is the ELBO.
    row_shape_ : tuple of int
    n_epochs_, best_epoch_, stopped_
        See `DeepModel`.

    Notes
    -----
    NaN is missing: the likelihood leaves it out, and the encoder is given zeros in its place, so
    that `fit`, `log_prob` and `transform` take it, at random missingness [2]_. The noise of a
    normal likelihood has a floor of 1e-6 of the data's variance.

    References
    ----------
    .. [1] Kingma, D. P. and Welling, M. (2014). Auto-encoding variational Bayes. ICLR.
    .. [2] Mattei, P.-A. and Frellsen, J. (2019). MIWAE: deep generative modelling and imputation
       of incomplete data sets. ICML.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ppl_gen import SVI, VAE, Training
    >>> X = load_iris().data
    >>> training = Training(epochs=60, batch_size=50, learning_rate=1e-2)
    >>> model = VAE(2, inference=SVI(training=training), random_state=0).fit(X)
    >>> model.transform(X).shape, model.sample(3).shape
    ((150, 2), (3, 4))
    >>> estimate = model.log_prob_estimate(X, n_importance=200)
    >>> bool((estimate.standard_error < 1.0).all())
    True
    """

    density: ClassVar[str] = "lower_bound"
    methods: ClassVar[tuple[str, ...]] = ("svi",)
    takes_nan: ClassVar[bool] = True
    module_settings: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    def __init__(
        self,
        latent_dim: int = 8,
        likelihood: str = "normal",
        hidden_layer_sizes: Sequence[int] | None = None,
        architecture: str = "mlp",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        posterior: str = "mean_field",
        prior: str = "normal",
        beta: float = 1.0,
        free_bits: float = 0.0,
        beta_warmup: float = 0.0,
        noise: str | float = "learned",
        n_levels: int | None = None,
        image_shape: Sequence[int] | None = None,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.hidden_layer_sizes = hidden_layer_sizes
        self.architecture = architecture
        self.encoder = encoder
        self.decoder = decoder
        self.posterior = posterior
        self.prior = prior
        self.beta = beta
        self.free_bits = free_bits
        self.beta_warmup = beta_warmup
        self.noise = noise
        self.n_levels = n_levels
        self.image_shape = image_shape
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # -- what the network takes of the data ----------------------------------------------------

    def _facts(self, values: Array, row_shape: tuple[int, ...]) -> dict[str, Any]:
        who = f"{self._who}.fit"
        check_settings(self, who, row_shape)
        method: Any = self._resolved_method()
        check_objective(self, method.objective, who)
        return facts_of(values, row_shape, who, self.likelihood, self.n_levels)

    def _check_values(self, values: Array, facts: dict[str, Any]) -> None:
        check_range(values, self._who, self.likelihood, facts["n_levels"])

    def _whole(self, facts: dict[str, Any]) -> bool:
        return self.likelihood != "normal"

    def _module(self, facts: dict[str, Any], context_width: int) -> DensityModule:
        width, size = facts["width"], int(self.latent_dim)
        likelihood = build_likelihood(self.likelihood, facts, self.noise)
        posterior = POSTERIORS[self.posterior](size)
        hidden = (
            None
            if self.hidden_layer_sizes is None
            else tuple(int(units) for units in self.hidden_layer_sizes)
        )
        if self.encoder is None:
            encoder = build_encoder(
                self.architecture, hidden, facts, likelihood, posterior, context_width
            )
        else:
            encoder = self._own("encoder")
            n_inputs = width * (likelihood.n_features + facts["gaps"]) + context_width
            check_network(
                encoder,
                f"{self._who}.fit",
                "encoder",
                f"{width * likelihood.n_features} features"
                + f", {width} of what is observed" * facts["gaps"]
                + f", {context_width} of context" * bool(context_width),
                n_inputs,
                posterior.n_parameters,
            )
        if self.decoder is None:
            decoder = build_decoder(
                self.architecture, hidden, facts, likelihood, size + context_width
            )
        else:
            decoder = self._own("decoder")
            check_network(
                decoder,
                f"{self._who}.fit",
                "decoder",
                f"{size} latents" + f", {context_width} of context" * bool(context_width),
                size + context_width,
                width * likelihood.n_outputs,
            )
        module = VariationalAutoencoder(
            width,
            likelihood,
            encoder,
            decoder,
            posterior,
            nn.Identity(),  # a VampPrior takes the network that has it
            size,
            context_width,
            facts["gaps"],
            float(self.beta),
            float(self.free_bits),
            float(self.beta_warmup),
        )
        rows = torch.zeros(facts["n_pseudo"], width)
        self._give_prior(module, rows, rows.new_zeros(len(rows), context_width))
        return module

    def _give_prior(self, module: VariationalAutoencoder, rows: Tensor, context: Tensor) -> None:
        """Give the network its prior, a VampPrior with pseudo-inputs from these rows."""
        module.latent_prior = build_prior(
            self.prior,
            module.latent_dim,
            encode=module.encode_relaxed,
            rows=module.likelihood.relaxed(rows),
            context=context if context.shape[1] else None,
        )

    def _initialise(self, module: DensityModule, data: dict[str, Array]) -> None:
        if self.prior != "vamp":
            return
        assert isinstance(module, VariationalAutoencoder)
        x = data["x"]
        chosen = torch.randperm(len(x))[:N_PSEUDO_INPUTS].numpy()
        rows = x[chosen]
        if self.likelihood != "categorical":  # of labels there is no mean
            rows = np.where(np.isnan(rows), np.nanmean(x, axis=0), rows)
        context = data.get("context", np.empty((len(x), 0)))[chosen]
        like = module.like()
        self._give_prior(module, torch.as_tensor(rows).to(like), torch.as_tensor(context).to(like))
        module.to(like)

    def _publish(self) -> None:
        self._warn_of_collapse()

    # -- codes ---------------------------------------------------------------------------------

    def transform(self, X: Any, context: Any = None) -> Array:
        """Posterior mean of the code of each row, by the guide.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
        context : one of the fit's kind for all rows, or one a row; for conditional densities

        Returns
        -------
        (n, L) array
        """
        check_is_fitted(self)
        mean: Array = self._latent_moments(self._scoring_data(X, context))[0]
        return mean

    def inverse_transform(self, Z: Any, context: Any = None) -> Array:
        """Decode codes: the mean of the rows of each; the mode where entries are labels.

        Parameters
        ----------
        Z : (n, L)
        context : one of the fit's kind for all rows, or one a row; for conditional densities

        Returns
        -------
        table of (n, D), or images
            Means are of floats, also where the data are whole numbers.
        """
        check_is_fitted(self)
        codes = check_array(Z, dtype=np.float64)
        network = self._network
        if codes.shape[1] != network.latent_dim:
            raise ValueError(
                f"{self._who}.inverse_transform: Z has {codes.shape[1]} columns; expected the "
                f"{network.latent_dim} latents that transform gives"
            )
        decoded = self._by_chunk(
            lambda rows: network.centre(rows["z"], rows.get("context")),
            {"z": codes, **self._coded(context, len(codes))},
        )
        return self._table(decoded, whole=self.likelihood == "categorical")

    def reconstruct(self, X: Any, context: Any = None) -> Any:
        """Encode rows and decode their mean codes: what the model keeps of each.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
        context : one of the fit's kind for all rows, or one a row; for conditional densities

        Returns
        -------
        table of (n, D), or images
        """
        return self.inverse_transform(self.transform(X, context), context)

    @staticmethod
    def _as_table(row: Any) -> Any:
        """Give a row as a table of one: with its names, if it is one of a frame's."""
        if is_frame(row):
            return row
        series = hasattr(row, "to_frame") and hasattr(row, "index")
        return row.to_frame().T.infer_objects() if series else np.asarray(row)[None]

    def interpolate(self, a: Any, b: Any, n: int = 8, context: Any = None) -> Any:
        """Decode codes on the straight line from that of one row to that of another.

        Parameters
        ----------
        a, b : (D,) rows, rows of a frame, or images
        n : int
            Rows, ends included.
        context : one of the fit's kind, for conditional densities

        Returns
        -------
        table of (n, D), or images
        """
        check_is_fitted(self)
        check_count(n, "n", f"{self._who}.interpolate")
        ends = np.concatenate([self.transform(self._as_table(row), context) for row in (a, b)])
        if len(ends) != 2:
            raise ValueError(
                f"{self._who}.interpolate: a and b have {len(ends)} rows together; expected one "
                "each"
            )
        return self.inverse_transform(np.linspace(ends[0], ends[1], n), context)

    def sample(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        context: Any = None,
        return_latent: bool = False,
    ) -> Any:
        """Draw new rows, in the columns, shapes and dtypes of the data that were fitted.

        Parameters
        ----------
        n_samples : int
        random_state : int or None
        context : one of the fit's kind for all rows, or one a row; for conditional densities
        return_latent : bool
            Return the codes too.

        Returns
        -------
        table of (n_samples, D), or images
            And codes (n_samples, L).
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", f"{self._who}.sample")
        network = self._network
        drawn = self._by_chunk(
            lambda rows: torch.cat(
                network.sample_joint(len(rows["place"]), rows.get("context")), dim=-1
            ),
            {"place": np.arange(n_samples), **self._coded(context, n_samples)},
            self._seed(random_state),
        )
        codes, rows = np.split(drawn, [network.latent_dim], axis=1)
        table = self._decode(rows)
        return (table, codes.astype(np.float64)) if return_latent else table

    # -- programs ------------------------------------------------------------------------------

    def guide(self) -> Program:
        """Return the fitted guide as a program of the same arguments: ``guide(x, context)``."""
        check_is_fitted(self)
        return Program(self._network.guide)

    @property
    def _n_features_out(self) -> int:
        return self._network.latent_dim

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Array:
        """Fit, and return the codes of the rows that were fitted."""
        return self.fit(X, y, **fit_params).transform(X, fit_params.get("context"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True  # densities of a row are estimates, by draws of their own
        return tags
