"""What models with a neural density share: data in, training, scoring, drawing, keeping.

A model says what its network takes of the data (`_facts`) and builds it (`_module`); the rest is
here. Rows are tables of (n, D), or images of (n, H, W) or (n, H, W, C), which are flat inside.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import DensityMixin, clone
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ppl_gen.contexts import ContextCode
from ppl_gen.counts import check_count
from ppl_gen.data import Schema, counted_rows, is_frame, refuse_gaps, to_numpy
from ppl_gen.engines.devices import resolve_device
from ppl_gen.estimator import GenerativeModel
from ppl_gen.inference.base import ONE_AT_A_TIME, InferenceMethod, resolve
from ppl_gen.inference.training.settings import Training
from ppl_gen.neural.density import DensityModule
from ppl_gen.structures import network

Array = Any
Tensors = dict[str, torch.Tensor]

__all__ = ["DeepModel"]


class DeepModel(DensityMixin, GenerativeModel):  # type: ignore[misc]
    """A model whose density is a network; see the models for what each one is.

    Attributes
    ----------
    row_shape_ : tuple of int
        Shape of a row as it was given: (D,), (H, W) or (H, W, C).
    history_ : DataFrame
        A row an epoch of training.
    n_epochs_, best_epoch_ : int
        Epochs done, and the one whose weights were kept.
    stopped_ : str
        What ended training: "epochs", "patience", "max_seconds", "interrupted" or "diverged".
    """

    methods: ClassVar[tuple[str, ...]] = ("maximum_likelihood",)
    #: The density may depend on labels or covariates of each row.
    takes_context: ClassVar[bool] = True
    #: Rows with gaps may be fitted and scored.
    takes_nan: ClassVar[bool] = False
    #: Columns may hold categories, which come as codes.
    takes_categories: ClassVar[bool] = False
    #: Names of settings that may hold networks of the user's own.
    module_settings: ClassVar[tuple[str, ...]] = ()
    #: Rows that are scored or drawn together, which bounds the memory.
    rows_at_a_time: ClassVar[int] = 4096

    structure_: network.Network
    row_shape_: tuple[int, ...]
    _given_facts: dict[str, Any] | None = None

    # -- what a model says of itself -----------------------------------------------------------

    def _facts(self, values: Array, row_shape: tuple[int, ...]) -> dict[str, Any]:
        """Check the rows to fit, (n, D), and return what the network takes of them."""
        raise NotImplementedError  # pragma: no cover

    def _module(self, facts: dict[str, Any], context_width: int) -> DensityModule:
        """Build the network; torch's generator is seeded."""
        raise NotImplementedError  # pragma: no cover

    def _check_values(self, values: Array, facts: dict[str, Any]) -> None:
        """Refuse rows to score that the density is not of."""

    def _everyday(self, n_rows: int, width: int) -> InferenceMethod:
        """Return the method for rows that are fitted with ``inference=None``."""
        method = resolve(self.methods[0])
        method.set_params(training=Training.for_rows(n_rows))
        return method

    def _whole(self, facts: dict[str, Any]) -> bool:
        """Tell whether draws are whole numbers."""
        return False

    def _own(self, name: str) -> torch.nn.Module:
        """Return a copy of a network of the user's own, which a fit leaves as it was."""
        given = getattr(self, name)
        if not isinstance(given, torch.nn.Module):
            raise TypeError(f"{self._who}: {name} is {given!r}; expected a torch.nn.Module or None")
        return copy.deepcopy(given)

    # -- fitting -------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, context: Any = None, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : table of (n, D), or images of (n, H, W) or (n, H, W, C)
        y : ignored
        context : (n,) labels or (n, C) numbers, optional
            What the density is to be conditional on.
        sample_weight : (n,), optional
            A row of weight zero is left out: it teaches no label, range or category either.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Before training: rows that the model does not take, settings out of range.
        FloatingPointError
            The loss was no finite number before any epoch was validated; the step is named, and
            an earlier fit is as it was. Later that is a warning, and the best weights are kept.
        """
        before = vars(self).copy()
        try:
            self._fit(*self._training_data(X, y, context, sample_weight))
        except BaseException:
            # A fit that failed costs nothing that was there.
            self.__dict__ = before
            raise
        return self

    def _training_data(
        self, X: Any, y: Any, context: Any, sample_weight: Any
    ) -> tuple[dict[str, Array], dict[str, Any], ContextCode | None]:
        """Read what is to be fitted: arrays by row, the network's facts, the contexts' code."""
        if sample_weight is not None:
            sample_weight, X, context = counted_rows(sample_weight, X, context)
        values = self._read_rows_flat(X, reset=True)
        network.check_digits(values, self._torch_dtype(), self.schema_.names, f"{self._who}.fit")
        data: dict[str, Array] = {"x": values}
        code = None
        if context is not None:
            check_consistent_length(values, context)
            code = ContextCode.of(context, f"{self._who}.fit")
            data["context"] = code.encode(context, f"{self._who}.fit")
        if sample_weight is not None:
            data["weight"] = sample_weight
        if len(data["x"]) < self.min_rows:
            raise ValueError(
                f"{self._who}.fit: n_samples={len(data['x'])}, but a distribution is learned from "
                f"{self.min_rows} rows or more"
            )
        facts, self._given_facts = self._given_facts, None
        facts = self._facts(data["x"], self.row_shape_) if facts is None else facts
        self._check_values(data["x"], facts)
        return data, facts, code

    def with_facts_of(self, X: Any) -> Self:
        """Return a copy whose next fit takes ranges, kinds and units from these rows."""
        model: Self = clone(self)
        values = model._read_rows_flat(X, reset=True)
        model._given_facts = model._facts(values, model.row_shape_)
        return model

    def _fit(self, data: dict[str, Array], facts: dict[str, Any], code: ContextCode | None) -> None:
        method = self._resolved_method()
        if self.inference is None:
            method = self._everyday(*data["x"].shape)
        device = resolve_device(self.device, "pyro")
        dtype = self._torch_dtype()
        seeds = self._rng().integers(2**31, size=2)
        kept = {"row_shape_": self.row_shape_}
        self._reset()
        self.__dict__ |= kept
        with self._session(int(seeds[0])):
            module = self._module(facts, 0 if code is None else code.width)
            module.to(device=device, dtype=dtype)
            self._initialise(module, data)
        trained = self._train(module, data, method, seed=int(seeds[1]), device=device)
        module.eval()
        self.structure_ = network.Network(module, facts, code)
        self.parameters_ = self.structure_.weights()
        self.history_ = trained.history
        self.n_epochs_, self.best_epoch_ = trained.n_epochs, trained.best_epoch
        self.stopped_ = trained.stopped
        self._built_with = self.get_params(deep=False)
        self._posterior: Any = None
        self._training: Any = data
        self._publish()

    def _initialise(self, module: DensityModule, data: dict[str, Array]) -> None:
        """Set weights that start from the data, before training."""

    def _train(
        self,
        module: DensityModule,
        data: dict[str, Array],
        method: InferenceMethod,
        *,
        seed: int,
        device: str,
    ) -> Any:
        """Run the method on the network."""
        real = np.dtype(str(self._torch_dtype()).removeprefix("torch."))
        data = {
            name: array.astype(real, copy=False) if array.dtype.kind == "f" else array
            for name, array in data.items()
        }
        with self._session(seed):
            return method.train(
                module,
                data,
                seed=seed,
                device=device,
                who=f"{self._who}.fit",
                description=self._description(),
                progress=True,
            )

    def _description(self) -> dict[str, Any]:
        """What a checkpoint of this training must agree with."""
        settings = self.get_params(deep=False)
        counted = sorted(settings.keys() - {"inference", "device"})
        return {"model": self._who, **{name: network.described(settings[name]) for name in counted}}

    def _torch_dtype(self) -> torch.dtype:
        """Float type of the weights: float32, unless `dtype` says otherwise."""
        if self.dtype not in (None, "float64", "float32"):
            raise ValueError(
                f"{self._who}: dtype is {self.dtype!r}; expected None, 'float64' or 'float32'"
            )
        kind: torch.dtype = getattr(torch, self.dtype or "float32")
        return kind

    # -- rows ----------------------------------------------------------------------------------

    def _read_rows_flat(self, X: Any, *, reset: bool) -> Array:
        """Read a table or images as (n, D) floats; `reset` when they are those to fit."""
        X = to_numpy(X)
        if hasattr(X, "__array__") and not is_frame(X):
            X = np.asanyarray(X)
        shape: tuple[int, ...] = () if is_frame(X) else np.shape(X)
        images = len(shape) in (3, 4)
        if not reset:
            flat = (self.n_features_in_,)
            if shape in (flat, self.row_shape_) and shape[1:] != flat:
                found = f"X is one row, of shape {shape}. Reshape your data: give X[None]"
                raise ValueError(f"{self._who}: {found}")
            if images and shape[1:] != self.row_shape_:
                found = f"X has rows of shape {shape[1:]}; expected {self.row_shape_}, as in fit"
                raise ValueError(f"{self._who}: {found}")
        if images:
            X = np.asarray(X).reshape(shape[0], int(np.prod(shape[1:])))
        values = self._read(X, reset=reset)
        if reset:
            self.row_shape_ = self._row_shape(shape[1:] if images else None, values)
            self._check_columns()
        if not self.takes_nan:
            refuse_gaps(values, self.schema_.names, self._who)
        if not reset:
            self._check_values(values, self.structure_.facts)
        return values

    def _row_shape(self, given: tuple[int, ...] | None, values: Array) -> tuple[int, ...]:
        declared = getattr(self, "image_shape", None)
        if declared is None:
            return (values.shape[1],) if given is None else given
        sizes = np.array(declared)
        whole = sizes.dtype.kind in "iu" and sizes.shape in ((2,), (3,))
        if not whole or np.maximum(sizes, 0).prod() != values.shape[1]:
            raise ValueError(
                f"{self._who}: image_shape is {self.image_shape!r}, but X has {values.shape[1]} "
                "columns; expected (H, W) or (H, W, C) whose product they are"
            )
        return tuple(sizes.tolist())

    def _check_columns(self) -> None:
        if self.takes_categories:
            return
        for column in self.schema_.columns:
            if column.kind == "category":
                raise ValueError(
                    f"{self._who}.fit: column {column.name!r} holds categories, which this "
                    "density is not of; leave it out, give it as context, or use MADE"
                )

    def _scoring_data(self, X: Any, context: Any) -> dict[str, Array]:
        """Read rows to score, with their contexts."""
        values = self._read_rows_flat(X, reset=False)
        return {"x": values, **self._coded(context, len(values))}

    def _coded(self, context: Any, n: int) -> dict[str, Array]:
        """Code the contexts of n rows: one for all, or one a row."""
        code = self.structure_.context
        if code is None:
            if context is not None:
                raise ValueError(
                    f"{self._who}: context was given, but the model was fitted without; fit it "
                    "with fit(X, context=...)"
                )
            return {}
        if context is None:
            raise ValueError(
                f"{self._who}: the density is conditional, and context is missing; give the one "
                "of each row, or one for all"
            )
        return {"context": code.for_rows(context, n, self._who)}

    # -- scoring and drawing -------------------------------------------------------------------

    @contextmanager
    def _session(self, seed: int) -> Iterator[None]:
        """Seed torch's generator, and leave it as it was."""
        with ONE_AT_A_TIME, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            yield

    def _by_chunk(
        self, work: Callable[[Tensors], torch.Tensor], data: Mapping[str, Array], seed: int = 0
    ) -> Array:
        """Call `work` on chunks of rows as tensors, without gradients, and join what it gives."""
        like = self.structure_.module.like()
        count = len(next(iter(data.values())))
        found = []
        with self._session(seed), torch.no_grad():
            for first in range(0, count, self.rows_at_a_time):
                rows = slice(first, first + self.rows_at_a_time)
                chunk = {name: network.as_tensor(array[rows], like) for name, array in data.items()}
                found.append(work(chunk).detach().cpu().numpy())
        return np.concatenate(found)

    def log_prob(self, X: Any, context: Any = None) -> Array:
        """Log density of each row, in nats, of the data as given.

        Parameters
        ----------
        X : table of (n, D), or images, as in fit
        context : one of the fit's kind for all rows, or one a row; for conditional densities

        Returns
        -------
        (n,) array
        """
        check_is_fitted(self)
        log_prob = self.structure_.module.log_prob
        found = self._by_chunk(
            lambda rows: log_prob(rows["x"], rows.get("context")), self._scoring_data(X, context)
        )
        return found.astype(np.float64)

    def score_samples(self, X: Any, context: Any = None) -> Array:
        """Return :meth:`log_prob`, by scikit-learn's name."""
        return self.log_prob(X, context)

    def score(self, X: Any, y: Any = None, *, context: Any = None) -> float:
        """Mean log density of the rows, in nats."""
        return float(self.log_prob(X, context).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None, *, context: Any = None) -> Any:
        """Draw new rows, in the columns, shapes and dtypes of the data that were fitted.

        Parameters
        ----------
        n_samples : int
        random_state : int or None
        context : one of the fit's kind for all rows, or one a row; for conditional densities

        Returns
        -------
        table of (n_samples, D), or images
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples", f"{self._who}.sample")
        data = {"place": np.arange(n_samples), **self._coded(context, n_samples)}
        draw = self.structure_.module.sample
        drawn = self._by_chunk(
            lambda rows: draw(len(rows["place"]), rows.get("context")),
            data,
            self._seed(random_state),
        )
        return self._decode(drawn)

    def _seed(self, random_state: Any) -> int:
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        return int(rng.integers(2**31))

    def _decode(self, drawn: Array) -> Any:
        """Give rows back in the form that was fitted."""
        whole = (self._whole(self.structure_.facts),) * drawn.shape[1]
        table = self.schema_.decode(drawn.astype(np.float64), whole)
        if len(self.row_shape_) > 1 and isinstance(table, np.ndarray):
            return table.reshape(-1, *self.row_shape_)
        return table

    # -- the posterior and keeping -------------------------------------------------------------

    @property
    def posterior_(self) -> Any:
        """The `Posterior`: the one draw of a point fit, the weights."""
        check_is_fitted(self)
        if self._posterior is None:
            from ppl_gen.posterior import Posterior

            sites = self.structure_.sites(self.parameters_)
            self._posterior = Posterior(
                {name: value[None] for name, value in sites.items()},
                method=self._resolved_method().name,
                engine="pyro",
                model=self.program(),
                kwargs=self.structure_.program_data(self._training),
                info={
                    "dtype": str(self.structure_.module.like().dtype).removeprefix("torch."),
                    "stopped": self.stopped_,
                    "epochs": self.n_epochs_,
                },
            )
        return self._posterior

    def save(self, path: Any, overwrite: bool = False) -> Any:
        """Save the fitted model to a directory, as every model does; `ppl_gen.load` brings it back.

        Networks of the user's own are not saved, but for their weights: `load` takes them by
        ``modules={"encoder": ...}``.
        """
        check_is_fitted(self)
        from ppl_gen import artifact

        # The one draw of a point fit follows from the weights.
        name, tree = type(self).__name__, {"model": self.to_tree()}
        return artifact.write(path, kind="model", name=name, tree=tree, overwrite=overwrite)

    def to_tree(self) -> dict[str, Any]:
        """Return the fitted model as plain data, less the networks of the user's own."""
        tree, built = super().to_tree(), self._built_with
        own = {n: built[n] for n in self.module_settings if isinstance(built[n], torch.nn.Module)}
        tree["params"] |= dict.fromkeys(own)
        tree["modules"] = {name: network.shapes_of(module) for name, module in own.items()}
        # The network is built again by the settings that it had, whatever was set since.
        counted = tree["params"].keys() - own.keys() - {"inference", "device", "random_state"}
        tree["built_with"] = {n: built[n] for n in counted if built[n] is not getattr(self, n)}
        return tree

    @classmethod
    def from_tree(
        cls, tree: dict[str, Any], modules: Mapping[str, torch.nn.Module] | None = None
    ) -> Self:
        """Return the fitted model that :meth:`to_tree` gave."""
        modules = dict(modules or {})
        network.check_modules(cls.__name__, tree["modules"], modules)
        model = cls(**(tree["params"] | tree["built_with"] | modules))
        model.schema_ = Schema.from_tree(tree["schema"])
        for name, value in tree["fitted"].items():
            setattr(model, name, value)
        model.row_shape_ = tuple(model.row_shape_)
        facts, kept = tree["structure"]["facts"], tree["structure"]["context"]
        code = None if kept is None else ContextCode(**kept)
        with model._session(0):
            module = model._module(facts, 0 if code is None else code.width)
        weights = tree["parameters"]
        # Float types are those of the weights, on the CPU or the device that is asked for.
        module.to(model._torch_dtype())
        module.load_state_dict({n: torch.as_tensor(np.array(v[0])) for n, v in weights.items()})
        module.to(resolve_device(model.device, "pyro")).eval()
        model.structure_ = network.Network(module, facts, code)
        model.parameters_ = weights
        model._built_with = model.get_params(deep=False)
        model.set_params(**{name: tree["params"][name] for name in tree["built_with"]})
        model._training = model._posterior = None
        return model

    @classmethod
    def from_artifact(cls, artifact: Any, *, program: Any = None, modules: Any = None) -> Any:
        """Return the model that an artefact holds; called by `ppl_gen.load`.

        Without the networks of the user's own that it was fitted with, its weights come back
        alone, as a posterior.
        """
        tree = artifact.tree["model"]
        missing = sorted(set(tree["modules"]) - set(modules or {}))
        if not missing:
            return cls.from_tree(tree, modules)
        from ppl_gen.posterior import Posterior

        warnings.warn(
            f"ppl_gen.load: this {cls.__name__} was fitted with your own {', '.join(missing)}, "
            "which are not saved; this is the posterior of its weights alone: for the model, pass "
            f"load(path, modules={{{missing[0]!r}: ...}})",
            RuntimeWarning,
            stacklevel=3,
        )
        return Posterior(
            {name: value[None] for name, value in tree["parameters"].items()},
            method=cls.methods[0],
            engine="pyro",
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.takes_nan
        tags.input_tags.sparse = False
        return tags
