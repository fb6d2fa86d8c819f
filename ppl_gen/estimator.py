"""The scikit-learn estimator that every model is.

A model says how its rows are read and what structure they have; reading tables, choosing and
running the method, averaging over draws, saving and loading are written here once. A structure
(such as `LatentClass`) has the EM protocol, a program, and ``joint_log_prob`` over its discrete
latent; point fits are posteriors of one draw, so scoring knows no difference.
"""

import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ppl_gen.algorithms.row_chunks import map_rows
from ppl_gen.algorithms.trees import tree_map
from ppl_gen.data import Rows, Schema
from ppl_gen.engines.devices import resolve_device
from ppl_gen.families import FAMILIES
from ppl_gen.inference.base import InferenceMethod, resolve
from ppl_gen.inference.em import EM
from ppl_gen.latent_class import LatentClass
from ppl_gen.table_reader import TableReader

Array = Any
Parameters = dict[str, Any]

#: Draws that scoring averages over: the Monte Carlo error of a log predictive density is then
#: far below the posterior's own spread. Longer chains are thinned evenly.
SCORING_DRAWS = 1000


class GenerativeModel(TableReader):
    """What every model shares; see the models for what each one is.

    Attributes
    ----------
    density : {"exact", "lower_bound", "estimate", "implicit"}
        What kind of number `log_prob` gives (Goodfellow, arXiv:1701.00160, section 2.3).
    methods : tuple of str
        Names of the inference methods that fit the model; the first is its default.
    """

    density: ClassVar[str] = "exact"
    methods: ClassVar[tuple[str, ...]] = ("em", "svi", "nuts")

    structure_: LatentClass
    parameters_: Parameters

    # -- what a model says of itself -----------------------------------------------------------

    def _structure(self, rows: Rows) -> LatentClass:
        """Return the structure bound to the training rows."""
        raise NotImplementedError  # pragma: no cover

    def _publish(self) -> None:
        """Set the fitted attributes that users read, as NumPy."""

    def _takes_sparse(self) -> bool:
        return self._trait("takes_sparse", default=False)

    def _trait(self, name: str, *, default: bool) -> bool:
        """Return what the family that is asked for says of itself, before there are any data."""
        family = getattr(self, "family", None)
        family = FAMILIES.get(family) if isinstance(family, str) else family
        return bool(getattr(family, name, default))

    def _resolved_method(self) -> InferenceMethod:
        chosen = self.inference if self.inference is not None else self.methods[0]
        method = resolve(chosen)
        if method.name not in self.methods:
            raise ValueError(
                f"{type(self).__name__}: inference {method.name!r} does not fit this model; "
                f"these do: {', '.join(map(repr, self.methods))}"
            )
        return method

    def _bound(self, rows: Rows) -> LatentClass:
        """Return the structure bound to the training rows, with a warning of constant columns."""
        structure = self._structure(rows)
        for column, family in zip(self.schema_.columns, structure.family.by_column, strict=True):
            if column.kind == "category" and family.name != "categorical":
                raise ValueError(
                    f"{self._who}.fit: column {column.name!r} holds categories, whose codes are no "
                    f"numbers to the {family.name} family; leave it out, encode it, or model it as "
                    "categorical (NaiveBayes and Mixture do, by family='auto')"
                )
        self._warn_constant(rows.values, ~np.asarray(structure.whole))
        return structure

    # -- fitting -------------------------------------------------------------------------------

    def _fit_structure(self, structure: LatentClass, rows: Rows, method: InferenceMethod) -> None:
        """Run the method, and keep the draws of the parameters (one, for a point fit)."""
        device = resolve_device(self.device)
        if self.dtype not in (None, "float64", "float32"):
            raise ValueError(
                f"{self._who}: dtype is {self.dtype!r}; expected None, 'float64' or 'float32'"
            )
        sparse = hasattr(rows.values, "toarray")
        if sparse and (device != "cpu" or getattr(method, "engine", "numpy") == "jax"):
            raise ValueError(f"{self._who}.fit: X is sparse; EM takes it on the CPU, by NumPy")
        if sparse and not isinstance(method, EM):
            raise ValueError(
                f"{self._who}.fit: X is sparse, which {method.name} does not take; use EM, or "
                "give X.toarray()"
            )
        rng = self._rng()
        start = self._start(structure, rows, rng) if isinstance(method, EM) else None
        self._reset()
        self.structure_ = structure
        if isinstance(method, EM):
            self._fit_em(structure, rows, method, rng, device, start)
        else:
            if rows.weights is not None:
                raise ValueError(
                    f"{self._who}.fit: sample_weight is for EM; {method.name} needs each row once"
                )
            self._fit_program(structure, rows, method, rng, device)
        self._keep_training(rows)
        self._publish()

    def _keep_training(self, rows: Rows) -> None:
        """Keep the rows for what the posterior's program may be asked; none that are sparse."""
        sparse = hasattr(rows.values, "toarray")
        self._training: dict[str, Any] | None = (
            None if sparse else self.structure_.program_data(rows)
        )

    def _reset(self) -> None:
        """Forget an earlier fit, but for what has been read of this one's table."""
        kept = ("schema_", "classes_", "n_features_in_", "feature_names_in_")
        for name in [n for n in vars(self) if n.endswith("_") and n not in kept]:
            delattr(self, name)

    def _rng(self) -> np.random.Generator:
        state = check_random_state(self.random_state)
        return np.random.default_rng(state.randint(2**31, size=4))

    def _fit_em(
        self,
        structure: LatentClass,
        rows: Rows,
        method: EM,
        rng: np.random.Generator,
        device: str,
        start: Parameters | None,
    ) -> None:
        result = method.fit(structure, rows, rng, start=start, device=device, progress=True)
        self.parameters_ = tree_map(lambda leaf: np.asarray(leaf)[None], result.parameters)
        self.n_iter_ = result.n_iter
        self.converged_ = result.converged
        self.lower_bound_ = result.lower_bound
        self.history_ = np.asarray(result.history)
        self._posterior: Any = None

    def _start(
        self, structure: LatentClass, rows: Rows, rng: np.random.Generator
    ) -> Parameters | None:
        """Parameters for EM to start from, or None to initialise."""
        return None

    def _fit_program(
        self,
        structure: LatentClass,
        rows: Rows,
        method: InferenceMethod,
        rng: np.random.Generator,
        device: str,
    ) -> None:
        posterior = method.run(
            structure.program(),
            (),
            structure.program_data(rows),
            engine=None,
            seed=int(rng.integers(2**31)),
            device=device,
            dtype=self.dtype,
            coords=self._coords(structure),
            exchangeable=self._exchangeable(),
            progress=True,
            start=self._mode(structure, rows, rng),
        )
        self._posterior = posterior.relabel() if self._exchangeable() else posterior
        self.parameters_ = structure.parameters(_thinned(self._posterior.draws))

    def _mode(
        self, structure: LatentClass, rows: Rows, rng: np.random.Generator
    ) -> dict[str, Array]:
        """Posterior mode by EM, where guides are centred and chains start, spread around it.

        Chains from anywhere get stuck in poor modes of a mixture, and say nothing of the good
        one; what is learned is the posterior around the best mode of several starts.
        """
        with_prior = structure.with_prior()
        with warnings.catch_warnings():
            # Starts that fail are not the user's concern: the best one is kept.
            warnings.simplefilter("ignore", RuntimeWarning)
            result = EM(max_iter=200, n_init=10).fit(with_prior, rows, rng)
        return with_prior.sites(result.parameters)

    def _exchangeable(self) -> str | None:
        """Name of the axis whose order means nothing, or None."""
        return None

    def _coords(self, structure: LatentClass) -> dict[str, list[Any]]:
        """Labels of the axes of the posterior: the columns' names, where they have any."""
        if any(column.name is None for column in self.schema_.columns):
            return {}
        return structure.family.coords(self.schema_.names)

    @property
    def posterior_(self) -> Any:
        """The `Posterior`: the draws with their diagnostics, or the one draw of a point fit."""
        check_is_fitted(self)
        if self._posterior is None:
            from ppl_gen.posterior import Posterior

            draws = [self.structure_.sites(self._draw(s)) for s in range(self._n_draws)]
            self._posterior = Posterior(
                {name: np.stack([draw[name] for draw in draws])[None] for name in draws[0]},
                method=self._resolved_method().name,
                engine="numpyro",
                model=self.structure_.program(),
                kwargs=self._training or {},
                coords=self._coords(self.structure_),
            )
        if self._posterior.model is None:  # a local program does not go to other processes
            self._posterior.model = self.structure_.program()
        return self._posterior

    def program(self) -> Any:
        """Return the fitted model as a program, with its priors: what SVI and NUTS run."""
        check_is_fitted(self)
        return self.structure_.program()

    # -- scoring -------------------------------------------------------------------------------

    @property
    def _n_draws(self) -> int:
        return len(self.parameters_["weights"])

    def _draw(self, s: int) -> Parameters:
        draw: Parameters = tree_map(lambda leaf: leaf[s], self.parameters_)
        return draw

    def _joint_by_chunk(self, values: Array, work: Callable[[slice, Array], None]) -> None:
        """Call `work` with chunks of rows and their log p(x, z = k), averaged over the draws."""
        draws = [self._draw(s) for s in range(self._n_draws)]

        def chunk(rows: slice) -> None:
            x = values[rows]
            total = self.structure_.joint_log_prob(draws[0], x)
            for draw in draws[1:]:
                total = np.logaddexp(total, self.structure_.joint_log_prob(draw, x))
            work(rows, total - np.log(len(draws)) if len(draws) > 1 else total)

        map_rows(chunk, values.shape[0])

    def _joint(self, values: Array) -> Array:
        """Log p(x, z = k), averaged over the draws: (n, K)."""
        joint = np.empty((values.shape[0], self.structure_.n_classes))
        self._joint_by_chunk(values, joint.__setitem__)
        return joint

    def _evidence(self, values: Array) -> tuple[Array, Array]:
        """Log p(x), and p(z | x): (n,), (n, K)."""
        evidence = np.empty(values.shape[0])
        shares = np.empty((values.shape[0], self.structure_.n_classes))

        def normalise(rows: slice, joint: Array) -> None:
            top = joint.max(axis=1, keepdims=True)
            share = np.exp(joint - top)
            total = share.sum(axis=1, keepdims=True)
            evidence[rows] = (np.log(total) + top)[:, 0]
            np.divide(share, total, out=shares[rows])

        self._joint_by_chunk(values, normalise)
        return evidence, shares

    def log_prob(self, X: Any) -> Array:
        """Log density of each row, in nats.

        Parameters
        ----------
        X : table of (n, D)
            NaN is marginalised.

        Returns
        -------
        (n,) array
            After a Bayesian fit, the log posterior predictive density.
        """
        check_is_fitted(self)
        return self._evidence(self._read_checked(X))[0]

    def score_samples(self, X: Any) -> Array:
        """Return :meth:`log_prob`, by scikit-learn's name."""
        return self.log_prob(X)

    def _read_checked(self, X: Any) -> Array:
        values = self._read(X, reset=False)
        self.structure_.family.check(values)
        return values

    # -- drawing -------------------------------------------------------------------------------

    def sample(
        self, n_samples: int = 1, random_state: Any = None, *, return_latent: bool = False
    ) -> Any:
        """Draw new rows, in the columns and dtypes of the table that was fitted.

        Parameters
        ----------
        n_samples : int
        random_state : int or None
        return_latent : bool
            Return the class of each row too.

        Returns
        -------
        table of (n_samples, D), or the table and (n_samples,) classes
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"{self._who}.sample: n_samples is {n_samples}; it must be at least 1")
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        draws = rng.integers(self._n_draws, size=n_samples)
        values: Array = None
        labels = np.empty(n_samples, dtype=np.intp)
        for s in np.unique(draws):
            rows = np.flatnonzero(draws == s)
            drawn, classes = self.structure_.sample(self._draw(int(s)), len(rows), rng)
            values = np.empty((n_samples, drawn.shape[1])) if values is None else values
            values[rows], labels[rows] = drawn, classes
        table = self.schema_.decode(values, self.structure_.whole)
        return (table, self._latent_names(labels)) if return_latent else table

    def _latent_names(self, labels: Array) -> Array:
        return labels

    def impute(self, X: Any, n_draws: int | None = None, random_state: Any = None) -> Any:
        """Fill in what is missing.

        Parameters
        ----------
        X : table of (n, D)
            NaN (None, of categories) is filled; the rest stays.
        n_draws : int or None
            None fills with the conditional mean, or the mode of categories; a number gives as
            many completed tables, each a draw from the conditional (multiple imputation).
        random_state : int or None

        Returns
        -------
        table of (n, D), or a list of `n_draws` tables
        """
        check_is_fitted(self)
        values = self._read_checked(X)
        if hasattr(values, "toarray"):
            raise TypeError(
                f"{self._who}.impute: X is sparse, and so complete; give a dense table with NaN"
            )
        whole = self.structure_.whole
        if n_draws is None:
            draws = [self._draw(s) for s in self._few_draws()]
            filled = map_rows(lambda rows: self.structure_.fill(draws, values[rows]), len(values))
            return self.schema_.decode(np.concatenate(filled), whole)
        rng = self._rng() if random_state is None else np.random.default_rng(random_state)
        tables = []
        for s in rng.integers(self._n_draws, size=n_draws):
            draw = self._draw(int(s))
            joint = self.structure_.joint_log_prob(draw, values)
            shares = np.exp(joint - joint.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            completed = self.structure_.draw_missing(draw, values, shares, rng)
            tables.append(self.schema_.decode(completed, whole))
        return tables

    def _few_draws(self) -> Array:
        return np.linspace(0, self._n_draws - 1, min(self._n_draws, 100)).astype(int)

    # -- keeping -------------------------------------------------------------------------------

    def save(self, path: Any, overwrite: bool = False) -> Any:
        """Save the fitted model to a directory; `ppl_gen.load` brings it back.

        Parameters
        ----------
        path : str or path
        overwrite : bool
            Replace a model that is there.

        Raises
        ------
        FileExistsError
            If something is there and `overwrite` is false.
        """
        check_is_fitted(self)
        from ppl_gen import artifact

        tree = {"model": self.to_tree(), "posterior": self.posterior_.tree()}
        return artifact.write(
            path,
            kind="model",
            name=type(self).__name__,
            tree=tree,
            posterior=self.posterior_.write_netcdf,
            overwrite=overwrite,
        )

    def to_tree(self) -> dict[str, Any]:
        """Return the fitted model, less its posterior's diagnostics, as plain data."""
        params = self.get_params(deep=False)
        if not isinstance(params.get("random_state"), int | None):
            params["random_state"] = None
        kept = ("schema_", "structure_", "parameters_")
        fitted = {n: v for n, v in vars(self).items() if n.endswith("_") and n not in kept}
        return {
            "params": params,
            "schema": self.schema_.to_tree(),
            "structure": self.structure_.to_tree(),
            "parameters": self.parameters_,
            "fitted": fitted,
        }

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        """Return the fitted model that :meth:`to_tree` gave."""
        model = cls(**tree["params"])
        model.schema_ = Schema.from_tree(tree["schema"])
        model.structure_ = LatentClass.from_tree(tree["structure"])
        model.parameters_ = tree["parameters"]
        for name, value in tree["fitted"].items():
            setattr(model, name, value)
        model._training = None
        model._posterior = None
        return model

    @classmethod
    def from_artifact(cls, artifact: Any, *, program: Any = None, modules: Any = None) -> Self:
        """Return the model that an artefact holds; called by `ppl_gen.load`."""
        from ppl_gen.posterior import Posterior

        model = cls.from_tree(artifact.tree["model"])
        model._posterior = Posterior.from_tree(
            artifact.tree["posterior"],
            artifact.posterior_path,
            program=model.structure_.program(),
        )
        return model

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "parameters_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._trait("takes_nan", default=True)
        tags.input_tags.sparse = self._takes_sparse()
        tags.input_tags.positive_only = self._takes_sparse()  # what may be sparse are counts
        return tags


def _thinned(draws: dict[str, Array]) -> dict[str, Array]:
    """(chains, draws, ...) to at most `SCORING_DRAWS` draws, evenly spread."""
    thinned = {}
    for name, value in draws.items():
        stacked = value.reshape(-1, *value.shape[2:])
        keep = np.linspace(0, len(stacked) - 1, min(len(stacked), SCORING_DRAWS)).astype(int)
        thinned[name] = stacked[keep]
    return thinned
