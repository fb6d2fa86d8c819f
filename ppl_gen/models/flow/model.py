"""Normalizing flows as an estimator."""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from ppl_gen.deep_estimator import DeepModel
from ppl_gen.inference.base import InferenceMethod
from ppl_gen.models.flow.building import build, check_settings, flow_of, initialise
from ppl_gen.models.flow.reading import check_values, read_facts
from ppl_gen.neural.density import DensityModule
from ppl_gen.neural.transforms.preprocessing import Dequantised
from ppl_gen.structures.network import as_tensor

Array = Any

__all__ = ["NormalizingFlow"]


class NormalizingFlow(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    DeepModel,
):
    """A normalizing flow: rows are ``x = f(z)`` of standard normal z, with f an invertible network.

    The density is that of the data as given: Jacobians of standardising, of bounds and of
    dequantisation are part of it.

    Parameters
    ----------
    flow : str
        "nsf" (autoregressive neural splines; the best for tables), "nsf_coupling", "maf",
        "realnvp", "iaf" (which scores by a pass for each column, and is for guides rather), or
        "glow" for images. "planar", "radial" and "sylvester" have no density of data: see
        `ppl_gen.neural.transforms.guides`.
    n_transforms : int or None
        Transforms one after the other (of Glow: steps a level); by default what the kind of flow
        is usually made of.
    hidden_layer_sizes : sequence of int
        Units of the hidden layers of each transform's network (of Glow: the first is its
        channels).
    n_bins : int
        Bins of splines.
    bounds : (low, high) or None
        Range of the data: two numbers, or two arrays of one a column. The flow then lives on the
        logits of the shares of the range, and draws keep to it; `ScaledSigmoid` tells of data on
        a bound.
    discrete : None, "uniform" or "variational"
        How columns of whole numbers are dequantised: by uniform noise, or by noise that is learned
        (a second flow). Other columns stay as they are. `log_prob` is then of the probability of
        these columns, estimated from below.
    n_importance : int
        Draws of that noise in scoring; see `Dequantised`.
    image_shape : tuple of int or None
        (H, W) or (H, W, C), where rows of images are given flat.
    standardise : bool
        Whether columns (of a bounded range: their logits) get mean 0 and deviation 1 first;
        pixels of images are all divided by one number.
    noise : float
        Deviation of normal noise on the rows in training, in deviations of the column (of images:
        of all pixels together): smooths the density, and guards few rows, ties and constant
        columns against collapse.
    inference : str, MaximumLikelihood or None
        By default with `Training.for_rows`: some 4,000 steps of Adam, in 30 to 300 epochs, with a
        cosine schedule; a tenth of the rows (a fifth of few) is kept to choose the best epoch by.
        The weights are averaged over the steps (``ema=0.98``), which few rows gain from.
    random_state : int, RandomState or None
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : str or None
        By default float32.

    Attributes
    ----------
    density : str
        "exact"; "lower_bound" with `discrete`.
    discrete_columns_ : (D,) array of bool
        Columns that are dequantised.
    row_shape_ : tuple of int
    history_ : DataFrame
        A row an epoch.
    n_epochs_, best_epoch_, stopped_
        Of the training.

    Notes
    -----
    `fit(X, context=...)` fits p(x | context) of labels or covariates, which scoring and drawing
    then ask for. Papamakarios et al., arXiv:1912.02762, review flows; noise as regularisation is
    that of Rothfuss et al., arXiv:1907.08982.

    Examples
    --------
    >>> from ppl_gen import MaximumLikelihood, NormalizingFlow
    >>> from ppl_gen.datasets import load_iris
    >>> X = load_iris().X
    >>> quick = MaximumLikelihood(epochs=30, learning_rate=1e-2)
    >>> flow = NormalizingFlow("maf", hidden_layer_sizes=(16,), inference=quick, random_state=0)
    >>> flow = flow.fit(X)
    >>> flow.log_prob(X).shape, flow.sample(5).shape
    ((150,), (5, 4))
    >>> z = flow.transform(X)
    >>> bool(abs(flow.inverse_transform(z) - X).max().max() < 1e-3)
    True
    """

    methods: ClassVar[tuple[str, ...]] = ("maximum_likelihood",)

    def __init__(
        self,
        flow: str = "nsf",
        n_transforms: int | None = None,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        n_bins: int = 8,
        bounds: Any = None,
        discrete: str | None = None,
        n_importance: int = 16,
        image_shape: tuple[int, ...] | None = None,
        standardise: bool = True,
        noise: float = 0.0,
        inference: str | InferenceMethod | None = None,
        random_state: Any = None,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.flow = flow
        self.n_transforms = n_transforms
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_bins = n_bins
        self.bounds = bounds
        self.discrete = discrete
        self.n_importance = n_importance
        self.image_shape = image_shape
        self.standardise = standardise
        self.noise = noise
        self.inference = inference
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    @property
    def density(self) -> str:  # type: ignore[override]
        """What kind of number `log_prob` gives."""
        return "exact" if self.discrete is None else "lower_bound"

    def _facts(self, values: Array, row_shape: tuple[int, ...]) -> dict[str, Any]:
        check_settings(self, self._who, row_shape)
        return read_facts(
            values,
            row_shape,
            self._who,
            self.schema_.names,
            bounds=self.bounds,
            discrete=self.discrete is not None,
            standardise=self.standardise,
            smoothed=self.noise > 0.0,
        )

    def _check_values(self, values: Array, facts: dict[str, Any]) -> None:
        check_values(values, facts, self._who, self.schema_.names)

    def _module(self, facts: dict[str, Any], context_width: int) -> DensityModule:
        return build(self, facts, context_width)

    def _initialise(self, module: DensityModule, data: dict[str, Array]) -> None:
        context = data.get("context")
        like = module.like()
        given = None if context is None else as_tensor(context, like)
        initialise(module, as_tensor(data["x"], like), given)

    def _everyday(self, n_rows: int, width: int) -> InferenceMethod:
        # Of few rows the best epoch comes while steps are still long: the mean of the weights of
        # some fifty steps is then a better density than those of the last one.
        return super()._everyday(n_rows, width).set_params(training__ema=0.98)

    def _publish(self) -> None:
        self.discrete_columns_ = np.array(self.structure_.facts["discrete"])

    # -- latents -------------------------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        return int(np.prod(self.row_shape_))

    def transform(self, X: Any, context: Any = None) -> Any:
        """Take rows to the noise that they are of, whose distribution is standard normal.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
            Whole numbers are taken to the middle of their noise.
        context : one of the fit's kind for all rows, or one a row; for conditional densities

        Returns
        -------
        (n, D) array
        """
        check_is_fitted(self)
        module = self.structure_.module
        flow = flow_of(module)

        def to_noise(rows: dict[str, torch.Tensor]) -> torch.Tensor:
            x = rows["x"]
            if isinstance(module, Dequantised):
                x = torch.where(module.discrete, x + 0.5, x)
            for transform in reversed(flow.dist(rows.get("context")).transforms):
                x = transform.inv(x)
            return x

        return self._by_chunk(to_noise, self._scoring_data(X, context)).astype(np.float64)

    def inverse_transform(self, X: Any, context: Any = None) -> Any:
        """Take noise to rows: what :meth:`transform` took it from.

        Parameters
        ----------
        X : (n, D) array
        context : one of the fit's kind for all rows, or one a row; for conditional densities

        Returns
        -------
        table of (n, D), or images, as in fit
        """
        check_is_fitted(self)
        noise = check_array(X)
        if noise.shape[1] != self._n_features_out:
            raise ValueError(
                f"{self._who}.inverse_transform: X has {noise.shape[1]} columns; expected the "
                f"{self._n_features_out} that transform gives"
            )
        module: Any = self.structure_.module
        flow, dequantised = flow_of(module), isinstance(module, Dequantised)

        def to_rows(rows: dict[str, torch.Tensor]) -> torch.Tensor:
            x = rows["z"]
            for transform in flow.dist(rows.get("context")).transforms:
                x = transform(x)
            return torch.where(module.discrete, x.floor(), x) if dequantised else x

        data = {"z": noise, **self._coded(context, len(noise))}
        return self._decode(self._by_chunk(to_rows, data))

    def lower_bound(self, X: Any, context: Any = None) -> Array:
        """Lower bound of `log_prob` that training ascends, on average over the noise: (n,).

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
        context : one of the fit's kind for all rows, or one a row; for conditional densities

        Returns
        -------
        (n,) array
            Without `discrete`, `log_prob` itself.
        """
        check_is_fitted(self)
        module = self.structure_.module
        if not isinstance(module, Dequantised):
            return self.log_prob(X, context)

        def bound(rows: dict[str, torch.Tensor]) -> torch.Tensor:
            found = [module.bound(rows["x"], rows.get("context"), u) for u in module.points]
            return torch.stack(found).mean(dim=0)

        return self._by_chunk(bound, self._scoring_data(X, context)).astype(np.float64)

    # -- the density in other programs -----------------------------------------------------------

    def dist(self, context: Any = None, dtype: str = "float64") -> Any:
        """Return the learned density as a Pyro distribution, for any Pyro program.

        It may be a prior, whose gradient NUTS takes, or a likelihood. Values are tensors in the
        units of the data. Its weights are a copy that no training moves.

        Parameters
        ----------
        context : one of the fit's kind, or one a row; for conditional densities
            One gives a batch of (), n of them a batch of (n,).
        dtype : str
            Float type of values: by default that of programs, "float64".

        Returns
        -------
        pyro.distributions.TorchDistribution
            Its event is a row, (D,).

        Examples
        --------
        >>> import pyro
        >>> from ppl_gen import MaximumLikelihood, NormalizingFlow
        >>> from ppl_gen.datasets import load_iris
        >>> X = load_iris().X
        >>> quick = MaximumLikelihood(epochs=5)
        >>> flow = NormalizingFlow("maf", hidden_layer_sizes=(8,), inference=quick, random_state=0)
        >>> prior = flow.fit(X).dist()
        >>> def model():
        ...     with pyro.plate("row", 3):
        ...         return pyro.sample("x", prior)
        >>> model().shape
        torch.Size([3, 4])
        """
        check_is_fitted(self)
        kind = {"float64": torch.float64, "float32": torch.float32}.get(dtype)
        if kind is None:
            raise ValueError(
                f"{self._who}.dist: dtype is {dtype!r}; expected 'float64' or 'float32'"
            )
        module = copy.deepcopy(self.structure_.module).to(kind).requires_grad_(False)
        code = self.structure_.context
        alone = np.ndim(context) == 0
        if code is not None and code.labels is None:
            alone = np.shape(context) == (code.width,)
        coded = self._coded(context, 1 if alone else len(context)).get("context")
        if coded is None:
            return module.dist()
        given = as_tensor(coded, module.like())
        return module.dist(given[0] if alone else given)

    def _decode(self, drawn: Array) -> Any:
        facts = self.structure_.facts
        if facts["bounds"] is not None:
            # There is room for density just outside of the bounds.
            drawn = np.clip(drawn.astype(np.float64), *facts["bounds"])
        whole = tuple(np.asarray(facts["discrete"]).tolist())
        table = self.schema_.decode(drawn.astype(np.float64), whole)
        if len(self.row_shape_) > 1 and isinstance(table, np.ndarray):
            return table.reshape(-1, *self.row_shape_)
        return table
