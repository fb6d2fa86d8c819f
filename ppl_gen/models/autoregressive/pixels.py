"""Images pixel by pixel: PixelCNN and PixelRNN."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from ppl_gen.inference.base import InferenceMethod
from ppl_gen.models.autoregressive.completion import FactorisedModel
from ppl_gen.neural.ancestral import Particles
from ppl_gen.neural.pixels import PixelCNN as PixelCNNNetwork
from ppl_gen.neural.pixels import PixelDensity
from ppl_gen.neural.row_lstm import PixelRNN as PixelRNNNetwork

Array = Any

__all__ = ["PixelCNN", "PixelRNN"]

LIKELIHOODS = ("categorical", "discretised_logistic")
#: Levels that a byte holds.
MOST_LEVELS = 256


class _PixelModel(FactorisedModel):
    """Images of whole levels, pixel by pixel in raster order."""

    network: ClassVar[type[Any]]
    everyday: ClassVar[dict[str, Any]] = {"batch_size": 64, "learning_rate": 2e-3, "epochs": 200}
    _filling: ClassVar[str] = "complete() draws the missing ones given all that is known"

    def __init__(
        self,
        n_filters: int,
        n_layers: int,
        kernel_size: int,
        likelihood: str,
        n_components: int,
        dropout: float,
        n_levels: int | None,
        image_shape: Sequence[int] | None,
        inference: str | InferenceMethod | None,
        random_state: Any,
        device: str,
        dtype: str | None,
    ) -> None:
        self.n_filters = n_filters
        self.n_layers = n_layers
        self.kernel_size = kernel_size
        self.likelihood = likelihood
        self.n_components = n_components
        self.dropout = dropout
        self.n_levels = n_levels
        self.image_shape = image_shape
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    @property
    def rows_at_a_time(self) -> int:  # type: ignore[override]
        """Images that are scored or drawn together: so many that 2^25 numbers hold a layer."""
        facts = self.structure_.facts
        numbers = int(np.prod(facts["image_shape"])) * max(facts["n_levels"], 2 * self.n_filters)
        return int(np.clip(2**25 // numbers, 16, 4096))

    # -- reading -------------------------------------------------------------------------------

    def _facts(self, values: Array, row_shape: tuple[int, ...]) -> dict[str, Any]:
        self._check_settings()
        if len(row_shape) == 1:
            raise ValueError(
                f"{self._who}.fit: X has rows of {row_shape[0]} numbers, which say nothing of "
                "height and width; give images of (n, H, W) or (n, H, W, C), or say "
                "image_shape=(H, W)"
            )
        self._refuse_gaps(values)
        shape = (*row_shape, 1) if len(row_shape) == 2 else row_shape
        n_levels = max(2, int(values.max()) + 1) if self.n_levels is None else int(self.n_levels)
        if n_levels > MOST_LEVELS:
            raise ValueError(
                f"{self._who}.fit: X has levels up to {int(values.max())}; expected 0 to "
                f"{MOST_LEVELS - 1} at most; divide and round them"
            )
        facts = {"image_shape": [int(size) for size in shape], "n_levels": n_levels}
        self._check_values(values, facts)
        return facts

    def _check_settings(self) -> None:
        least = {"n_filters": 1, "n_layers": 1, "kernel_size": 1, "n_components": 1}
        if self.n_levels is not None:
            least["n_levels"] = 2
        for name, bound in least.items():
            value: Any = getattr(self, name)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or value < bound:
                raise ValueError(
                    f"{self._who}: {name} is {value!r}; expected a whole number, at least {bound}"
                )
        if self.n_levels is not None and self.n_levels > MOST_LEVELS:
            raise ValueError(
                f"{self._who}: n_levels is {self.n_levels}; expected {MOST_LEVELS} at most"
            )
        if not (isinstance(self.dropout, Real) and 0.0 <= self.dropout < 1.0):
            raise ValueError(
                f"{self._who}: dropout is {self.dropout!r}; expected a number from 0 to below 1"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"{self._who}: kernel_size is {self.kernel_size}; expected an odd number, with the "
                "pixel in the middle"
            )
        if self.likelihood not in LIKELIHOODS:
            raise ValueError(
                f"{self._who}: there is no likelihood {self.likelihood!r}; expected one of "
                f"{', '.join(map(repr, LIKELIHOODS))}"
            )

    def _check_values(self, values: Array, facts: dict[str, Any]) -> None:
        n_levels = facts["n_levels"]
        wrong = ~(np.isnan(values) | ((values == np.rint(values)) & (values >= 0)))
        wrong |= values > n_levels - 1
        if wrong.any():
            raise ValueError(
                f"{self._who}: X has {values[wrong][0]:g} in {int(wrong.sum())} entries that are "
                f"no levels; expected whole numbers from 0 to {n_levels - 1}; round grey values to "
                "levels, and declare n_levels where the rows fitted lack the highest"
            )

    def _whole(self, facts: dict[str, Any]) -> bool:
        return True

    def _module(self, facts: dict[str, Any], context_width: int) -> PixelDensity:
        module: PixelDensity = self.network(
            tuple(facts["image_shape"]),
            facts["n_levels"],
            n_filters=self.n_filters,
            n_layers=self.n_layers,
            kernel_size=self.kernel_size,
            n_logistics=None if self.likelihood == "categorical" else self.n_components,
            dropout=float(self.dropout),
            context_width=context_width,
        )
        return module

    # -- completing ----------------------------------------------------------------------------

    def complete(
        self, X: Any, random_state: Any = None, *, context: Any = None, n_particles: int = 100
    ) -> Any:
        """Draw the missing pixels of images, given the others.

        Parameters
        ----------
        X : images, as in fit
            NaN is drawn; the rest stays.
        random_state : int or None
        context : one of the fit's kind for all images, or one each; for conditional densities
        n_particles : int
            Where the missing pixels are the last ones (the lower part of an image), a draw is
            exact, and takes one pass. Known pixels that come after missing ones in raster order
            are evidence, by which a particle filter of this size weighs draws: exact as it grows.

        Returns
        -------
        images of (n, H, W) or (n, H, W, C), in the dtype fitted
        """
        seed = self._seed(random_state)
        return self._decode(self._completed(X, context, n_particles, seed, Particles.draw))


class PixelCNN(_PixelModel):
    """Images pixel by pixel, each given those above and to the left, by gated convolutions.

    ``p(x) = prod_i p(x_i | x_1, ..., x_{i-1})`` over the pixels in raster order, and within one
    over its channels (red, then green given red, then blue): an exact density of images of 2 to
    256 whole levels [1]_.

    Parameters
    ----------
    n_filters : int
        Features of a layer.
    n_layers : int
    kernel_size : int
        Odd. A pixel sees ``n_layers * (kernel_size // 2)`` columns to each side, and one row more
        up.
    likelihood : {"categorical", "discretised_logistic"}
        Of a level given the pixels before it: one probability each, in any order, or a mixture of
        logistics cut into levels, which learns faster where near levels are alike [2]_.
    n_components : int
        Of the mixture.
    dropout : float
        Share of a layer's features that is left out in training; the more, the fewer the images.
    n_levels : int, optional
        Levels K, with values 0 to K - 1; by default the largest value and one.
    image_shape : (H, W) or (H, W, C), optional
        Of rows that come flat.
    inference : str, MaximumLikelihood or None
        By default maximum likelihood by Adam in batches of 64, which ends once a tenth of the
        images, kept aside, are predicted no better for 15 epochs (with fewer than 50 images:
        after 200 epochs).
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of the weights; by default float32.

    Attributes
    ----------
    row_shape_ : (H, W) or (H, W, C)
    history_ : DataFrame
        A row an epoch; losses are in nats an image.
    n_epochs_, best_epoch_ : int
    stopped_ : str
    posterior_ : Posterior
        The one draw of a point fit: the weights.

    Notes
    -----
    ``fit(X, context=labels)`` makes the density conditional, on classes or on numbers.
    Every layer is told the row and the column of a pixel [3]_: what is likely differs by place.
    Drawing keeps what pixels share, so that one costs the same in images of any size.

    References
    ----------
    .. [1] van den Oord et al. (2016). Conditional image generation with PixelCNN decoders.
       arXiv:1606.05328.
    .. [2] Salimans et al. (2017). PixelCNN++. arXiv:1701.05517.
    .. [3] Liu et al. (2018). An intriguing failing of convolutional neural networks and the
       CoordConv solution. arXiv:1807.03247.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import MaximumLikelihood, PixelCNN
    >>> bars = np.repeat(np.eye(4, dtype=int)[:, None], 4, axis=1)  # (4, 4, 4): upright bars
    >>> method = MaximumLikelihood(epochs=60, learning_rate=0.01)
    >>> model = PixelCNN(8, 2, 3, inference=method, random_state=0).fit(np.tile(bars, (5, 1, 1)))
    >>> model.sample(2).shape
    (2, 4, 4)
    >>> half = bars.astype(float)
    >>> half[:, 2:] = np.nan
    >>> bool((model.complete(half, random_state=0) == bars).mean() > 0.9)
    True
    """

    network = PixelCNNNetwork

    def __init__(
        self,
        n_filters: int = 32,
        n_layers: int = 4,
        kernel_size: int = 3,
        likelihood: str = "categorical",
        n_components: int = 5,
        dropout: float = 0.2,
        n_levels: int | None = None,
        image_shape: Sequence[int] | None = None,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        super().__init__(
            n_filters,
            n_layers,
            kernel_size,
            likelihood,
            n_components,
            dropout,
            n_levels,
            image_shape,
            inference,
            random_state,
            device,
            dtype,
        )


class PixelRNN(_PixelModel):
    """Images pixel by pixel, each given those before it, by LSTMs that run down the rows.

    The density is that of a `PixelCNN`, by another network: states of a row pass to the next,
    over images of any height.

    Parameters
    ----------
    n_filters : int
        Features of a layer.
    n_layers : int
        Row LSTMs.
    kernel_size : int
        Odd. Columns by which a state reaches to each side for every row down: the rows above are
        seen in a triangle, whose blind corner on the right only a width of 2 W - 1 or more takes
        away.
    likelihood : {"categorical", "discretised_logistic"}
        Of a level given the pixels before it: one probability each, in any order, or a mixture of
        logistics cut into levels, which learns faster where near levels are alike.
    n_components : int
        Of the mixture.
    dropout : float
        Share of a layer's features that is left out in training; the more, the fewer the images.
    n_levels : int, optional
        Levels K, with values 0 to K - 1; by default the largest value and one.
    image_shape : (H, W) or (H, W, C), optional
        Of rows that come flat.
    inference : str, MaximumLikelihood or None
        By default as of `PixelCNN`.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        Float type of the weights; by default float32.

    Attributes
    ----------
    row_shape_ : (H, W) or (H, W, C)
    history_ : DataFrame
        A row an epoch; losses are in nats an image.
    n_epochs_, best_epoch_ : int
    stopped_ : str
    posterior_ : Posterior
        The one draw of a point fit: the weights.

    References
    ----------
    van den Oord, Kalchbrenner and Kavukcuoglu (2016). Pixel recurrent neural networks.
    arXiv:1601.06759, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import MaximumLikelihood, PixelRNN
    >>> bars = np.repeat(np.eye(3, dtype=int)[:, None], 3, axis=1)  # (3, 3, 3): upright bars
    >>> method = MaximumLikelihood(epochs=60, learning_rate=0.02)
    >>> model = PixelRNN(8, 1, 3, inference=method, random_state=0).fit(np.tile(bars, (5, 1, 1)))
    >>> bool(np.exp(model.log_prob(bars)).sum() > 0.9)  # of 2^9 images, these three
    True
    """

    network = PixelRNNNetwork

    def __init__(
        self,
        n_filters: int = 32,
        n_layers: int = 2,
        kernel_size: int = 3,
        likelihood: str = "categorical",
        n_components: int = 5,
        dropout: float = 0.2,
        n_levels: int | None = None,
        image_shape: Sequence[int] | None = None,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        super().__init__(
            n_filters,
            n_layers,
            kernel_size,
            likelihood,
            n_components,
            dropout,
            n_levels,
            image_shape,
            inference,
            random_state,
            device,
            dtype,
        )
