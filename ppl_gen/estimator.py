"""The scikit-learn estimator that every model is.

A model says how its data are read and what structure they have; choosing and running the method,
keeping draws, saving and loading are written here once. A structure (such as `LatentClass`) has
the EM protocol and a program; point fits are posteriors of one draw, so scoring knows no
difference. `RowModel` and `SequenceModel` add what rows and sequences have in common.
"""

import warnings
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ppl_gen.algorithms.trees import tree_leaves, tree_map
from ppl_gen.data import Schema
from ppl_gen.engines.devices import resolve_device
from ppl_gen.inference.base import InferenceMethod, resolve
from ppl_gen.inference.conjugate import Conjugate
from ppl_gen.inference.em import EM
from ppl_gen.table_reader import TableReader

Array = Any
Parameters = dict[str, Any]

#: Draws that scoring averages over: the Monte Carlo error of a log predictive density is then
#: far below the posterior's own spread. Longer chains are thinned evenly.
SCORING_DRAWS = 1000


class Structure(Protocol):
    """What a model asks of its structure, besides the EM protocol (`EMProblem`)."""

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Any:
        """Return the structure that :meth:`to_tree` gave."""

    def to_tree(self) -> dict[str, Any]:
        """Return the structure as plain data, for an artefact."""

    def with_prior(self) -> Any:
        """Return the structure with the default prior where it has none, for EM."""

    def coords(self, names: list[Any]) -> dict[str, list[Any]]:
        """Labels of the axes of the program's sites, given the names of the columns."""

    def program(self) -> Any:
        """Return the model as a program, with its priors."""

    def program_data(self, data: Any) -> dict[str, Array]:
        """Return the training data as the arguments of the program."""

    def parameters(self, sites: dict[str, Array]) -> Parameters:
        """Return the parameters from the sites of the program; leading axes are draws."""

    def sites(self, parameters: Parameters) -> dict[str, Array]:
        """Name parameters as the sites of the program."""


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

    #: Starts of EM that look for the mode where chains start; one where they are all alike.
    mode_starts: ClassVar[int] = 10

    #: Class of the structure, which brings itself back from an artefact.
    structure_kind: ClassVar[Any]

    structure_: Any
    parameters_: Parameters

    # -- what a model says of itself -----------------------------------------------------------

    def _publish(self) -> None:
        """Set the fitted attributes that users read, as NumPy."""

    def _resolved_method(self) -> InferenceMethod:
        method = resolve(self.methods[0] if self.inference is None else self.inference)
        if method.name not in self.methods:
            raise ValueError(
                f"{type(self).__name__}: inference {method.name!r} does not fit this model; "
                f"these do: {', '.join(map(repr, self.methods))}"
            )
        return method

    # -- fitting -------------------------------------------------------------------------------

    def _fit_structure(self, structure: Any, data: Any, method: InferenceMethod) -> None:
        """Run the method, and keep the draws of the parameters (one, for a point fit)."""
        device = resolve_device(self.device)
        if self.dtype not in (None, "float64", "float32"):
            raise ValueError(
                f"{self._who}: dtype is {self.dtype!r}; expected None, 'float64' or 'float32'"
            )
        sparse = hasattr(data.values, "toarray")
        if sparse and (device != "cpu" or getattr(method, "engine", "numpy") == "jax"):
            raise ValueError(f"{self._who}.fit: X is sparse; EM takes it on the CPU, by NumPy")
        if sparse and not isinstance(method, EM):
            raise ValueError(
                f"{self._who}.fit: X is sparse, which {method.name} does not take; use EM, or "
                "give X.toarray()"
            )
        rng = self._rng()
        start = self._start(structure, data, rng) if isinstance(method, EM) else None
        self._reset()
        self.structure_ = structure
        if isinstance(method, EM):
            self._fit_em(structure, data, method, rng, device, start)
        else:
            if data.weights is not None:
                raise ValueError(
                    f"{self._who}.fit: sample_weight is for EM; {method.name} needs each row once"
                )
            self._fit_program(structure, data, method, rng, device)
        self._keep_training(data)
        self._publish()

    def _keep_training(self, data: Any) -> None:
        """Keep the data for what the posterior's program may be asked; none that are sparse."""
        self._training: Any = None if hasattr(data.values, "toarray") else data

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
        structure: Any,
        data: Any,
        method: EM,
        rng: np.random.Generator,
        device: str,
        start: Any,
    ) -> None:
        result = method.fit(structure, data, rng, start=start, device=device, progress=True)
        self.parameters_ = tree_map(lambda leaf: np.asarray(leaf)[None], result.parameters)
        self.n_iter_ = result.n_iter
        self.converged_ = result.converged
        self.lower_bound_ = result.lower_bound
        self.history_ = np.asarray(result.history)
        self._posterior: Any = None

    def _start(self, structure: Any, data: Any, rng: np.random.Generator) -> Parameters | None:
        """Parameters for EM to start from, or None to initialise."""
        return None

    def _fit_program(
        self,
        structure: Any,
        data: Any,
        method: InferenceMethod,
        rng: np.random.Generator,
        device: str,
    ) -> None:
        if isinstance(method, Conjugate):
            self._fit_conjugate(structure, data, method, rng)
            return
        posterior = method.run(
            structure.program(),
            (),
            structure.program_data(data),
            engine=None,
            seed=int(rng.integers(2**31)),
            device=device,
            dtype=self.dtype,
            coords=self._coords(structure),
            exchangeable=self._exchangeable(),
            rotatable=self._rotatable(structure),
            progress=True,
            start=self._mode(structure, data, rng),
        )
        self._posterior = posterior.relabel()
        self.parameters_ = structure.parameters(_thinned(self._posterior.draws))

    def _fit_conjugate(
        self, structure: Any, data: Any, method: Conjugate, rng: np.random.Generator
    ) -> None:
        """Keep independent draws of the posterior itself."""
        from ppl_gen.posterior import Posterior

        draws = method.fit(structure, data, rng)
        self._posterior = Posterior(
            {name: value[None] for name, value in draws.items()},
            method=method.name,
            engine="numpyro",
            model=structure.program(),
            kwargs=structure.program_data(data),
            coords=self._coords(structure),
            info={"settings": method.get_params(), "exact": True},
        )
        self.parameters_ = structure.parameters(_thinned(self._posterior.draws))

    def _mode(self, structure: Any, data: Any, rng: np.random.Generator) -> dict[str, Array]:
        """Posterior mode by EM, where guides are centred and chains start, spread around it.

        Chains from anywhere get stuck in poor modes of a mixture, and say nothing of the good
        one; what is learned is the posterior around the best mode of several starts.
        """
        with_prior = structure.with_prior()
        with warnings.catch_warnings():
            # Starts that fail, or stop short, are not the user's concern: the best one is kept.
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = EM(max_iter=200, n_init=self.mode_starts).fit(with_prior, data, rng)
        sites: dict[str, Array] = with_prior.sites(result.parameters)
        return sites

    def _exchangeable(self) -> str | None:
        """Name of the axis whose order means nothing, or None."""
        return None

    def _rotatable(self, structure: Any) -> tuple[str, ...]:
        """Names of the axes of factors that are known up to a rotation."""
        family = getattr(structure, "family", None)
        return () if family is None else family.rotatable()

    def _coords(self, structure: Any) -> dict[str, list[Any]]:
        """Labels of the axes of the posterior: the columns' names, where they have any."""
        if any(column.name is None for column in self.schema_.columns):
            return {}
        names: dict[str, list[Any]] = structure.coords(self.schema_.names)
        return names

    @property
    def posterior_(self) -> Any:
        """The `Posterior`: the draws with their diagnostics, or the one draw of a point fit."""
        check_is_fitted(self)
        if self._posterior is None:
            from ppl_gen.posterior import Posterior

            training = self._training
            draws = [self.structure_.sites(self._draw(s)) for s in range(self._n_draws)]
            self._posterior = Posterior(
                {name: np.stack([draw[name] for draw in draws])[None] for name in draws[0]},
                method=self._resolved_method().name,
                engine="numpyro",
                model=self.structure_.program(),
                kwargs={} if training is None else self.structure_.program_data(training),
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
        return len(tree_leaves(self.parameters_)[0])

    def _draw(self, s: int) -> Parameters:
        draw: Parameters = tree_map(lambda leaf: leaf[s], self.parameters_)
        return draw

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
        model.structure_ = cls.structure_kind.from_tree(tree["structure"])
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


def _thinned(draws: dict[str, Array]) -> dict[str, Array]:
    """(chains, draws, ...) to at most `SCORING_DRAWS` draws, evenly spread."""
    thinned = {}
    for name, value in draws.items():
        stacked = value.reshape(-1, *value.shape[2:])
        keep = np.linspace(0, len(stacked) - 1, min(len(stacked), SCORING_DRAWS)).astype(int)
        thinned[name] = stacked[keep]
    return thinned
