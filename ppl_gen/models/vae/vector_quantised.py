"""VQ-VAE: autoencoders whose code is a grid of discrete codes, with a density over them."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ppl_gen.deep_estimator import DeepModel
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.training.checkpoint import fingerprint
from ppl_gen.inference.training.loop import train
from ppl_gen.inference.training.objective import NegativeLogLikelihood
from ppl_gen.inference.training.settings import Training
from ppl_gen.inference.vector_quantisation import VectorQuantisation
from ppl_gen.models.vae.building import (
    ARCHITECTURES,
    build_likelihood,
    check_settings,
    image_of,
)
from ppl_gen.models.vae.reading import check_range, facts_of
from ppl_gen.neural.code_grids import GridDecoder, GridEncoder, grid_sizes
from ppl_gen.neural.density import DensityModule
from ppl_gen.neural.perceptrons import perceptron
from ppl_gen.neural.pixels import PixelCNN
from ppl_gen.neural.quantisation import VectorQuantiser
from ppl_gen.neural.vector_quantised import CodeFrequencies, VectorQuantisedAutoencoder
from ppl_gen.structures.network import as_tensor

Array = Any

__all__ = ["VQVAE"]

#: Names of densities over codes, the default first.
CODE_DENSITIES = ("pixelcnn", "categorical")
#: Codes collapsed where they are used as unevenly as this share of them would be, evenly.
COLLAPSED_BELOW = 0.1
#: What ends a stage, the later the more it tells of the whole fit.
ENDINGS = ("epochs", "patience", "max_seconds", "diverged", "interrupted")


class VQVAE(TransformerMixin, DeepModel):  # type: ignore[misc]
    """An autoencoder with discrete codes, and an autoregressive density over them.

    A row is encoded as T vectors, each of which becomes the nearest of K codes; a decoder tells
    the row from its codes, and a density p(c) is learned over the codes of the training rows. Two
    stages of training, one after the other, each by the settings of `inference`.

    Parameters
    ----------
    n_codes : int
        Codes K.
    code_dim : int
        Entries of the vector of each code.
    n_places : int
        Codes T of a row, for ``architecture="mlp"``. That of convolutions is the image's size,
        halved by each layer.
    architecture : {"mlp", "convolutional"}
    hidden_layer_sizes : sequence of int, optional
        Units of each hidden layer, or channels of each convolution; those of a decoder are turned
        round.
    likelihood : {"normal", "bernoulli", "categorical", "discretised_logistic"}
        Of entries, given their codes.
    noise : {"learned", "column"} or float
        Variance of a normal likelihood; as of `VAE`.
    n_levels : int, optional
        Levels of a likelihood that has them; by default as many as the rows fitted have.
    prior : {"pixelcnn", "categorical"}
        Density over codes: a gated PixelCNN over their grid, which may have a context; or
        independent frequencies at each place.
    commitment : float
        Weight of the squared distance of vectors from their codes.
    decay : float
        Share of the codes' moving averages that a batch leaves.
    image_shape : tuple of int, optional
        (H, W) or (H, W, C), for images that come as flat rows.
    inference : MaximumLikelihood, str or None
        Of both stages; by default with `Training.for_rows`.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        "float32", the default, or "float64".

    Attributes
    ----------
    codebook_ : (K, code_dim) array
    code_shape_ : tuple of int
        Shape of a row's codes: (T,), or (h, w) of an image.
    code_perplexity_ : float
        Exponential of the entropy of the use of codes, over the rows that were fitted: K where
        codes are used evenly, 1 where all vectors are one code.
    n_revived_ : int
        Codes that had died in training and were started again.
    history_, prior_history_ : DataFrame
        A row an epoch of the first stage, and of the second; None without a second.
    stopped_ : str
        What ended training; where the stages ended otherwise, the last of "epochs", "patience",
        "max_seconds", "diverged" and "interrupted" that is true of one.

    Notes
    -----
    ``p(x) = sum_c p(c) p(x | c)``, of which `log_prob` gives the logarithm of one term, that of
    the encoder's codes: a lower bound.

    Ctrl-C in the first stage ends the fit: the density over codes is then their frequencies. From
    a checkpoint the same fit goes on with the stage that was interrupted.

    References
    ----------
    van den Oord, A., Vinyals, O. and Kavukcuoglu, K. (2017). Neural discrete representation
    learning. NeurIPS, arXiv:1711.00937.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ppl_gen import VQVAE, MaximumLikelihood
    >>> X = load_iris().data
    >>> method = MaximumLikelihood(epochs=20, learning_rate=0.01)
    >>> model = VQVAE(n_codes=8, n_places=2, inference=method, random_state=0).fit(X)
    >>> model.transform(X).shape
    (150, 2)
    >>> model.sample(5).shape
    (5, 4)
    """

    density: ClassVar[str] = "lower_bound"

    codebook_: Array
    code_shape_: tuple[int, ...]

    def __init__(
        self,
        n_codes: int = 64,
        code_dim: int = 16,
        n_places: int = 8,
        architecture: str = "mlp",
        hidden_layer_sizes: Sequence[int] | None = None,
        likelihood: str = "normal",
        noise: str | float = "learned",
        n_levels: int | None = None,
        prior: str = "pixelcnn",
        commitment: float = 0.25,
        decay: float = 0.99,
        image_shape: tuple[int, ...] | None = None,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.n_codes = n_codes
        self.code_dim = code_dim
        self.n_places = n_places
        self.architecture = architecture
        self.hidden_layer_sizes = hidden_layer_sizes
        self.likelihood = likelihood
        self.noise = noise
        self.n_levels = n_levels
        self.prior = prior
        self.commitment = commitment
        self.decay = decay
        self.image_shape = image_shape
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # -- the network ---------------------------------------------------------------------------

    def _facts(self, values: Array, row_shape: tuple[int, ...]) -> dict[str, Any]:
        self._check_settings(row_shape)
        return facts_of(values, row_shape, f"{self._who}.fit", self.likelihood, self.n_levels)

    def _check_values(self, values: Array, facts: dict[str, Any]) -> None:
        check_range(values, self._who, self.likelihood, facts["n_levels"])

    def _whole(self, facts: dict[str, Any]) -> bool:
        return self.likelihood != "normal"

    def _check_settings(self, row_shape: tuple[int, ...]) -> None:
        for name, least in (("n_codes", 2), ("code_dim", 1), ("n_places", 1)):
            value = getattr(self, name)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or value < least:
                raise ValueError(
                    f"{self._who}: {name} is {value!r}; expected a whole number of at least {least}"
                )
        if self.prior not in CODE_DENSITIES:
            raise ValueError(
                f"{self._who}: prior is {self.prior!r}; expected one of "
                f"{', '.join(map(repr, CODE_DENSITIES))}"
            )
        # The network's settings are those of a VAE, which has others besides.
        others = {"posterior": "mean_field", "prior": "normal", "beta": 1.0, "free_bits": 0.0}
        others["beta_warmup"] = 0.0
        settings = self.get_params(deep=False) | others | {"latent_dim": self.code_dim}
        check_settings(SimpleNamespace(**settings), self._who, row_shape)
        if not (isinstance(self.commitment, Real) and 0.0 <= self.commitment < math.inf):
            raise ValueError(
                f"{self._who}: commitment is {self.commitment!r}; expected zero or a positive "
                "number"
            )
        if not (isinstance(self.decay, Real) and 0.0 < self.decay < 1.0):
            raise ValueError(f"{self._who}: decay is {self.decay!r}; expected between 0 and 1")

    def _module(self, facts: dict[str, Any], context_width: int) -> VectorQuantisedAutoencoder:
        likelihood = build_likelihood(self.likelihood, facts, self.noise)
        width = facts["width"]
        sizes = (
            ARCHITECTURES[self.architecture]
            if self.hidden_layer_sizes is None
            else tuple(self.hidden_layer_sizes)
        )
        encoder: torch.nn.Module
        decoder: torch.nn.Module
        if self.architecture == "convolutional":
            image = image_of(facts["row_shape"])
            encoder = GridEncoder(image, likelihood.n_features, self.code_dim, sizes)
            decoder = GridDecoder(image, likelihood.n_outputs, self.code_dim, sizes)
        else:
            inner = self.n_places * self.code_dim
            encoder = perceptron(width * likelihood.n_features, sizes, inner)
            decoder = perceptron(inner, sizes[::-1], width * likelihood.n_outputs)
        return VectorQuantisedAutoencoder(
            width,
            likelihood,
            encoder,
            VectorQuantiser(self.n_codes, self.code_dim, self.decay),
            decoder,
            self._code_density(self._grid(facts), context_width),
        )

    def _grid(self, facts: dict[str, Any]) -> tuple[int, ...]:
        """Shape of a row's codes."""
        if self.architecture == "mlp":
            return (self.n_places,)
        n_layers = len(
            ARCHITECTURES[self.architecture]
            if self.hidden_layer_sizes is None
            else self.hidden_layer_sizes
        )
        return grid_sizes(image_of(facts["row_shape"]), n_layers)[-1]

    def _code_density(self, grid: tuple[int, ...], context_width: int) -> DensityModule:
        if self.prior == "categorical":
            if context_width:
                raise ValueError(
                    f"{self._who}.fit: prior='categorical' takes no context; take "
                    "prior='pixelcnn', or fit without one"
                )
            return CodeFrequencies(math.prod(grid), self.n_codes)
        height, width = grid if len(grid) == 2 else (1, *grid)
        return PixelCNN(
            (height, width, 1),
            self.n_codes,
            n_filters=32,
            n_layers=4,
            kernel_size=5,
            context_width=context_width,
        )

    # -- training ------------------------------------------------------------------------------

    def _train(
        self,
        module: Any,
        data: dict[str, Array],
        method: Any,
        *,
        seed: int,
        device: str,
    ) -> Any:
        """Train encoder, codes and decoder; then the density of the codes of the rows."""
        common: dict[str, Any] = {"device": device, "progress": True}
        settings: Training = method.settings()
        with self._session(seed):
            trained = train(
                VectorQuantisation(module, self.commitment),
                data,
                self._stage(settings, "autoencoder"),
                seed=seed,
                who=f"{self._who}.fit",
                description=self._description(),
                **common,
            )
            codes, weight = self._encoded(module, data["x"]), data.get("weight")
            interrupted = trained.stopped == "interrupted"
            self._note_codes(codes, module.quantiser, weight, quiet=interrupted)
            self.prior_history_ = None
            if interrupted or isinstance(module.code_density, CodeFrequencies):
                like = module.like()
                weights = None if weight is None else as_tensor(weight, like)
                module.count_codes(as_tensor(codes, like), weights)
                return trained
            kept = {name: data[name] for name in data if name != "x"}
            later = train(
                NegativeLogLikelihood(module.code_density),
                {"x": codes.astype(data["x"].dtype)} | kept,
                # Other codes, of a first stage that went on, are a training of their own.
                self._stage(settings, f"codes-{fingerprint(codes)['sha256'][:8]}"),
                seed=seed,  # the same rows are held out
                who=f"{self._who}.fit, codes",
                description=self._description(),
                **common,
            )
        self.prior_history_ = later.history
        stopped = max(trained.stopped, later.stopped, key=ENDINGS.index)
        return replace(trained, stopped=stopped)

    def _stage(self, settings: Training, name: str) -> Training:
        """Settings of a stage, whose checkpoints lie in a directory of their own."""
        if settings.checkpoint is None:
            return settings
        return settings.overridden(checkpoint=Path(settings.checkpoint) / name)

    def _encoded(self, module: VectorQuantisedAutoencoder, values: Array) -> Array:
        """Codes of rows: (n, D) -> (n, T)."""
        module.eval()
        like = module.like()
        found = []
        with torch.no_grad():
            for first in range(0, len(values), self.rows_at_a_time):
                rows = as_tensor(values[first : first + self.rows_at_a_time], like)
                found.append(module.encode(rows).codes.cpu().numpy())
        return np.concatenate(found)

    def _note_codes(
        self, codes: Array, quantiser: VectorQuantiser, weight: Array | None, *, quiet: bool
    ) -> None:
        """Note how codes are used, and warn, unless `quiet`, where most of them are not."""
        weights = None if weight is None else np.repeat(weight, codes.shape[1])
        uses = np.bincount(codes.ravel(), weights, minlength=self.n_codes)
        share = uses[uses > 0] / uses.sum()
        self.code_perplexity_ = float(np.exp(-(share * np.log(share)).sum()))
        self.n_revived_ = int(quantiser.revived)
        if not quiet and self.code_perplexity_ < max(2.0, COLLAPSED_BELOW * self.n_codes):
            warnings.warn(
                f"{self._who}.fit: codes collapsed: {int((uses > 0).sum())} of {self.n_codes} are "
                f"used, as unevenly as {self.code_perplexity_:.1f} would be evenly; use fewer "
                "n_codes, a smaller code_dim or commitment, or more epochs",
                RuntimeWarning,
                stacklevel=5,
            )

    def _publish(self) -> None:
        self.codebook_ = self.parameters_["quantiser.codebook"][0]
        self.code_shape_ = self._grid(self.structure_.facts)

    # -- codes ---------------------------------------------------------------------------------

    @property
    def _network(self) -> VectorQuantisedAutoencoder:
        module = self.structure_.module
        assert isinstance(module, VectorQuantisedAutoencoder)
        return module

    def transform(self, X: Any) -> Array:
        """Codes of rows, in reading order of `code_shape_`: (n, T) of int."""
        check_is_fitted(self)
        values = self._read_rows_flat(X, reset=False)
        return self._by_chunk(lambda rows: self._network.encode(rows["x"]).codes, {"x": values})

    def inverse_transform(self, X: Any) -> Any:
        """Decode codes: the mean of the rows of each; the mode where entries are labels.

        Parameters
        ----------
        X : (n, T) of int
            As :meth:`transform` gives them.

        Returns
        -------
        table of (n, D), or images
            Means are of floats, also where the data are whole numbers.

        Raises
        ------
        ValueError
            If codes are not (n, T) whole numbers below `n_codes`.
        """
        check_is_fitted(self)
        codes, places = np.asarray(X), math.prod(self.code_shape_)
        if codes.ndim != 2 or codes.shape[1] != places:
            raise ValueError(
                f"{self._who}.inverse_transform: codes have shape {codes.shape}; expected (n, "
                f"{places}), as transform gives them"
            )
        if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= self.n_codes:
            raise ValueError(
                f"{self._who}.inverse_transform: expected codes that are whole numbers from 0 to "
                f"{self.n_codes - 1}, as transform gives them"
            )
        centre = self._network.centre
        told = self._by_chunk(lambda rows: centre(rows["c"]), {"c": codes.astype(np.int64)})
        whole = self.likelihood == "categorical"
        table = self.schema_.decode(told.astype(np.float64), (whole,) * told.shape[1])
        if len(self.row_shape_) > 1 and isinstance(table, np.ndarray):
            return table.reshape(-1, *self.row_shape_)
        return table

    def reconstruct(self, X: Any) -> Any:
        """Encode rows and decode their codes: their means, as rows that were fitted."""
        return self.inverse_transform(self.transform(X))
