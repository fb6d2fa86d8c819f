"""The semi-supervised variational autoencoder: classes of a few rows, and many rows without."""

import math
from collections.abc import Sequence
from numbers import Real
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ppl_gen.contexts import ContextCode
from ppl_gen.counts import check_count
from ppl_gen.deep_estimator import DeepModel
from ppl_gen.inference import svi_networks
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.elbos import FREE
from ppl_gen.inference.semi_supervised import SemiSupervised
from ppl_gen.inference.training.loop import train
from ppl_gen.models.vae.building import (
    build_decoder,
    build_encoder,
    build_likelihood,
    check_settings,
)
from ppl_gen.models.vae.reading import UNKNOWN, check_range, class_prior, facts_of, read_labels
from ppl_gen.neural.amortised import POSTERIORS, AmortisedPosterior
from ppl_gen.neural.priors import build_prior
from ppl_gen.neural.semi_supervised import SemiSupervisedAutoencoder
from ppl_gen.neural.variational import N_DRAWS, VariationalAutoencoder

Array = Any

__all__ = ["SemiSupervisedVAE"]


class SemiSupervisedVAE(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    ClassifierMixin,  # type: ignore[misc]
    DeepModel,
):
    """A variational autoencoder with a class behind each row, which is known of some rows only.

    A row has a class y and a latent z; a decoder tells it from both. Rows without a class tell
    what rows are like, and so where classes part: the model M2 of Kingma et al. (2014). The loss
    is a Pyro ELBO of program and guide, summed over the classes of rows that have none, plus
    `alpha` times a classifier's loss on rows that have one.

    Parameters
    ----------
    latent_dim : int
        Latents L besides the class.
    likelihood : {"normal", "bernoulli", "categorical", "discretised_logistic"}
        Of entries, given class and latents; as of `VAE`.
    hidden_layer_sizes : sequence of int, optional
        Units of each hidden layer, or channels of each convolution, of encoder and classifier;
        those of the decoder are turned round.
    architecture : {"mlp", "convolutional"}
    posterior : {"mean_field", "full_rank", "iaf"}
        Guide of the latents, given a row and its class.
    prior : {"normal", "flow"}
        Of the latents, which do not depend on the class: standard normal, or a flow. (The
        pseudo-inputs of a VampPrior would need classes, which most rows do not have.)
    alpha : float
        Weight of the classifier's loss, a mean over the rows of known class, beside the bound, a
        mean over all rows. Kingma et al. take 0.1; of five digits a class (8 x 8), 10 told the
        others best.
    priors : (K,) array, optional
        Probabilities of classes, in the order of `classes_`; by default the shares of the rows
        whose class is known.
    noise : {"learned", "column"} or float
        Variance of a normal likelihood; as of `VAE`.
    n_levels : int, optional
        Levels of a likelihood that has them; by default as many as the rows fitted have.
    image_shape : tuple of int, optional
        (H, W) or (H, W, C), for images that come as flat rows.
    inference : SVI, str or None
        Objective and particles are those of the model: the ELBO, by one draw for each class. By
        default with `Training.for_rows`.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        "float32", the default, or "float64".

    Attributes
    ----------
    classes_ : (K,) array
    class_prior_ : (K,) array
    history_ : DataFrame
        A row an epoch: "loss", and the "bound" and "classification" that it is made of.

    Notes
    -----
    The class is -1 of rows that have none, as in scikit-learn's semi-supervised classifiers; with
    labels that are strings, y is an array of objects.

    `predict_proba` is Bayes' rule: ``p(y | x)`` is proportional to ``p(y) p(x | y)``, the latter
    by importance sampling. The guide's own guess, ``q(y | x)``, takes one pass instead of K times
    as many as there are draws: ``amortised=True``.

    References
    ----------
    Kingma, D. P., Rezende, D. J., Mohamed, S. and Welling, M. (2014). Semi-supervised learning
    with deep generative models. NeurIPS, arXiv:1406.5298, equations 6 to 9.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_blobs
    >>> from ppl_gen import SVI, SemiSupervisedVAE, Training
    >>> X, truth = make_blobs(200, centers=3, random_state=0, cluster_std=0.5)
    >>> y = np.where(np.arange(200) < 10, truth, -1)
    >>> method = SVI(training=Training(epochs=20, batch_size=50, learning_rate=0.01))
    >>> model = SemiSupervisedVAE(1, inference=method, random_state=0).fit(X, y)
    >>> model.score(X, truth) > 0.9
    True
    """

    density: ClassVar[str] = "lower_bound"
    methods: ClassVar[tuple[str, ...]] = ("svi",)
    takes_context: ClassVar[bool] = False
    takes_nan: ClassVar[bool] = True
    rows_at_a_time: ClassVar[int] = 1024

    classes_: Array
    class_prior_: Array

    def __init__(
        self,
        latent_dim: int = 8,
        likelihood: str = "normal",
        hidden_layer_sizes: Sequence[int] | None = None,
        architecture: str = "mlp",
        posterior: str = "mean_field",
        prior: str = "normal",
        alpha: float = 10.0,
        priors: Any = None,
        noise: str | float = "learned",
        n_levels: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.hidden_layer_sizes = hidden_layer_sizes
        self.architecture = architecture
        self.posterior = posterior
        self.prior = prior
        self.alpha = alpha
        self.priors = priors
        self.noise = noise
        self.n_levels = n_levels
        self.image_shape = image_shape
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # -- what it is fitted to ------------------------------------------------------------------

    def fit(  # type: ignore[override]
        self, X: Any, y: Any, *, context: None = None, sample_weight: Any = None
    ) -> Self:
        """Train the networks.

        Parameters
        ----------
        X : table of (n, D), or images of (n, H, W) or (n, H, W, C)
        y : (n,) labels
            -1 where the class is not known.
        context : None
            Not taken: the class is what the density is conditional on.
        sample_weight : (n,), optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Before training: labels of one class or none, rows that the model does not take,
            settings out of range.
        """
        if context is not None:
            raise ValueError(
                f"{self._who}.fit: context was given, but the class y is the context here; take a "
                "VAE for densities given other things"
            )
        return super().fit(X, y, sample_weight=sample_weight)

    def _training_data(
        self, X: Any, y: Any, context: Any, sample_weight: Any
    ) -> tuple[dict[str, Array], dict[str, Any], ContextCode | None]:
        data, facts, code = super()._training_data(X, None, None, sample_weight)
        labels, known = read_labels(X, y, f"{self._who}.fit")
        if sample_weight is not None:
            counted = np.asarray(sample_weight, dtype=np.float64) > 0.0
            labels, known = labels[counted], known[counted]
        self.classes_ = np.unique(labels[known])
        if len(self.classes_) < 2:
            raise ValueError(
                f"{self._who}.fit: y has {len(self.classes_)} class(es) among "
                f"{int(known.sum())} rows of known class; expected rows of two classes or more, "
                "and -1 for rows whose class is not known; without classes, take a VAE"
            )
        data["y"] = np.full(len(labels), UNKNOWN, dtype=np.int64)
        data["y"][known] = np.searchsorted(self.classes_, labels[known])
        weight = data.get("weight", np.ones(len(labels)))
        facts["class_prior"] = class_prior(
            self.priors, data["y"][known], weight[known], len(self.classes_), f"{self._who}.fit"
        )
        return data, facts, code

    # -- the network ---------------------------------------------------------------------------

    def _facts(self, values: Array, row_shape: tuple[int, ...]) -> dict[str, Any]:
        who = f"{self._who}.fit"
        if self.prior not in ("normal", "flow"):
            why = ", whose pseudo-inputs would need classes" if self.prior == "vamp" else ""
            raise ValueError(f"{who}: prior is {self.prior!r}{why}; expected 'normal' or 'flow'")
        check_settings(SimpleNamespace(**self.get_params(deep=False), **FREE), who, row_shape)
        if not (isinstance(self.alpha, Real) and 0.0 <= self.alpha < math.inf):
            raise ValueError(
                f"{self._who}: alpha is {self.alpha!r}; expected zero or a positive number"
            )
        return facts_of(values, row_shape, who, self.likelihood, self.n_levels)

    def _check_values(self, values: Array, facts: dict[str, Any]) -> None:
        check_range(values, self._who, self.likelihood, facts["n_levels"])

    def _whole(self, facts: dict[str, Any]) -> bool:
        return self.likelihood != "normal"

    def _module(self, facts: dict[str, Any], context_width: int) -> SemiSupervisedAutoencoder:
        width, size, n_classes = facts["width"], self.latent_dim, len(facts["class_prior"])
        likelihood = build_likelihood(self.likelihood, facts, self.noise)
        posterior = POSTERIORS[self.posterior](size)
        kind, hidden = self.architecture, self.hidden_layer_sizes
        autoencoder = VariationalAutoencoder(
            width,
            likelihood,
            build_encoder(kind, hidden, facts, likelihood, posterior, n_classes),
            build_decoder(kind, hidden, facts, likelihood, size + n_classes),
            posterior,
            build_prior(self.prior, size),
            size,
            context_width=n_classes,
            gaps=facts["gaps"],
        )
        classifier = build_encoder(kind, hidden, facts, likelihood, _Logits(n_classes), 0)
        prior = torch.as_tensor(facts["class_prior"], dtype=torch.get_default_dtype())
        return SemiSupervisedAutoencoder(autoencoder, classifier, prior)

    def _train(
        self,
        module: Any,
        data: dict[str, Array],
        method: Any,
        *,
        seed: int,
        device: str,
    ) -> Any:
        if method.objective != "elbo" or method.particles != 1:
            raise ValueError(
                f"{self._who}.fit: objective={method.objective!r} with {method.particles} "
                "particle(s); expected objective='elbo' and particles=1, the bound that sums over "
                "classes"
            )
        weight = data.get("weight", np.ones(len(data["x"])))
        share = float(weight[data["y"] >= 0].sum() / weight.sum())
        with self._session(seed):
            return train(
                SemiSupervised(module, float(self.alpha), share),
                data,
                svi_networks.settings(method, len(data["x"])),
                seed=seed,
                device=device,
                who=f"{self._who}.fit",
                description=self._description(),
                progress=True,
            )

    def _publish(self) -> None:
        self.class_prior_ = np.asarray(self.structure_.facts["class_prior"])

    @property
    def _network(self) -> SemiSupervisedAutoencoder:
        module = self.structure_.module
        assert isinstance(module, SemiSupervisedAutoencoder)
        return module

    # -- classes -------------------------------------------------------------------------------

    def _joint(self, X: Any, n_importance: int) -> Array:
        """Log density of rows together with each class: (n, K)."""
        check_is_fitted(self)
        if isinstance(n_importance, bool) or int(n_importance) != n_importance or n_importance < 1:
            raise ValueError(
                f"{self._who}: n_importance is {n_importance!r}; expected a whole number of at "
                "least 1"
            )
        network = self._network
        found: Array = self._by_chunk(
            lambda rows: network.log_joint(rows["x"], n_importance), self._scoring_data(X, None)
        )
        return found.astype(np.float64)

    def predict_log_proba(
        self, X: Any, *, amortised: bool = False, n_importance: int = N_DRAWS
    ) -> Array:
        """Log probability of each class for each row: (n, K); see :meth:`predict_proba`."""
        if amortised:
            check_is_fitted(self)
            network = self._network
            found: Array = self._by_chunk(
                lambda rows: network.class_logits(rows["x"]), self._scoring_data(X, None)
            )
            joint = found.astype(np.float64)
        else:
            joint = self._joint(X, n_importance)
        return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)

    def predict_proba(
        self, X: Any, *, amortised: bool = False, n_importance: int = N_DRAWS
    ) -> Array:
        """Probability of each class for each row, by Bayes' rule.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
            NaN is missing.
        amortised : bool
            Return the guide's guess, ``q(y | x)``, in one pass.
        n_importance : int
            Draws of the latents of each row and class.

        Returns
        -------
        (n, K) array
        """
        return np.exp(self.predict_log_proba(X, amortised=amortised, n_importance=n_importance))

    def predict(self, X: Any, *, amortised: bool = False, n_importance: int = N_DRAWS) -> Array:
        """Likeliest class of each row: (n,); see :meth:`predict_proba`."""
        found = self.predict_log_proba(X, amortised=amortised, n_importance=n_importance)
        return self.classes_[found.argmax(axis=1)]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # type: ignore[override]
        """Accuracy of the classes of rows; without y, the mean log density."""
        if y is None:
            return float(np.average(self.log_prob(X), weights=sample_weight))
        return float(np.average(self.predict(X) == np.asarray(y), weights=sample_weight))

    # -- latents -------------------------------------------------------------------------------

    def transform(self, X: Any, y: Any = None) -> Array:
        """Posterior mean of the latents of each row, by the guide; its class is no part of them.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
            NaN is missing.
        y : class or (n,) classes, optional
            By default averaged over the guide's guess, ``q(y | x)``.

        Returns
        -------
        (n, L) array
        """
        check_is_fitted(self)
        data = self._scoring_data(X, None)
        if y is not None:
            data["y"] = self._coded_classes(y, len(data["x"]))
        network = self._network
        found: Array = self._by_chunk(
            lambda rows: network.latent_mean(rows["x"], rows.get("y")), data
        )
        return found.astype(np.float64)

    @property
    def _n_features_out(self) -> int:
        return self._network.autoencoder.latent_dim

    # -- densities and draws -------------------------------------------------------------------

    def log_prob(self, X: Any, y: Any = None, n_importance: int = N_DRAWS) -> Array:
        """Log density of each row, in nats: of X alone, summed over classes, or of (X, y) together.

        By importance sampling: a lower bound on average.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
        y : (n,) labels, optional
        n_importance : int
            Draws of the latents of each row and class.

        Returns
        -------
        (n,) array
        """
        joint = self._joint(X, n_importance)
        if y is None:
            found: Array = np.logaddexp.reduce(joint, axis=1)
            return found
        codes = self._coded_classes(y, len(joint))
        found = joint[np.arange(len(joint)), codes]
        return found

    def _coded_classes(self, y: Any, n: int) -> Array:
        """Places of labels, one for all rows or one a row, among the classes."""
        labels = np.asarray(y)
        if labels.shape not in ((), (1,), (n,)):
            raise ValueError(
                f"{self._who}: y has the shape {labels.shape}; expected one label, or one for "
                f"each of the {n} rows"
            )
        unknown = [value for value in np.unique(labels).tolist() if value not in self.classes_]
        if unknown:
            raise ValueError(
                f"{self._who}: y has labels {unknown} that were not seen in fit; expected "
                f"classes {self.classes_.tolist()}"
            )
        return np.broadcast_to(np.searchsorted(self.classes_, labels), (n,))

    def sample(  # type: ignore[override]
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        y: Any = None,
        return_latent: bool = False,
    ) -> Any:
        """Draw new rows, of classes that are drawn or given.

        Parameters
        ----------
        n_samples : int
        random_state : int or None
        y : class or (n_samples,) classes, optional
            By default classes follow `class_prior_`.
        return_latent : bool
            Return the class of each row too.

        Returns
        -------
        table of (n_samples, D) or images, or these and (n_samples,) classes
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", f"{self._who}.sample")
        seed = self._seed(random_state)
        if y is None:
            rng = np.random.default_rng(seed)
            codes = rng.choice(len(self.classes_), size=n_samples, p=self.class_prior_)
        else:
            codes = self._coded_classes(y, n_samples)
        network = self._network
        drawn = self._by_chunk(
            lambda rows: network.sample(len(rows["y"]), network.one_hot(rows["y"])),
            {"y": codes.astype(np.int64)},
            seed,
        )
        rows = self._decode(drawn)
        return (rows, self.classes_[codes]) if return_latent else rows


class _Logits(AmortisedPosterior):
    """What a classifier puts out: a number a class."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_parameters = n_classes
