"""Posterior: what every inference method returns."""

import functools
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen import artifact, diagnostics, engines
from ppl_gen.engines import Engine, Site
from ppl_gen.posterior import groups, storage, tables
from ppl_gen.posterior.dimensions import axes_of_arrays, axes_of_sites, check_coords
from ppl_gen.posterior.labels import relabelled

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Posterior"]

Arrays = dict[str, NDArray[Any]]


class Posterior:
    """Draws from a posterior, with the program and the data they came from.

    Made by :func:`ppl_gen.infer` and by fitted models. All arrays are NumPy.

    Parameters
    ----------
    draws : dict of str to ndarray, shape (chains, draws, ...)
        One entry a site. A point estimate has one chain of one draw; independent draws have one
        chain and no `sample_stats`.
    method : str
        Name of the inference method.
    engine : {"numpyro", "pyro"}, optional
        What ran it; needed with `model`.
    model : Program or callable, optional
        The program, or a native model.
    args, kwargs
        What the model was conditioned on.
    sample_stats : dict of str to ndarray, shape (chains, draws), optional
        What the sampler tells of each draw, under ArviZ's names.
    dims : dict of str to list of str, optional
        Names of the axes of a site, after chain and draw; by default from plates and the
        program's ``dims``.
    coords : dict of str to sequence, optional
        Labels along a named axis.
    exchangeable : str, optional
        The axis along which components may be permuted without changing the posterior.
        `summary` and `verdict` are then taken after :meth:`relabel`.
    rotatable : str or sequence of str, optional
        Axes along which factors may be rotated without changing the posterior; treated alike.
    info : dict, optional
        What the method tells of the run: ``elapsed``, ``settings``, ``history``, ``pareto_k``...

    Attributes
    ----------
    draws, sample_stats, info
        As given.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import Posterior
    >>> rng = np.random.default_rng(0)
    >>> posterior = Posterior({"mu": rng.normal(size=(4, 500))}, method="nuts")
    >>> posterior.stacked("mu").shape
    (2000,)
    >>> posterior.verdict.ok
    True
    """

    def __init__(
        self,
        draws: Mapping[str, NDArray[Any]],
        *,
        method: str,
        engine: str | None = None,
        model: Callable[..., Any] | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        sample_stats: Mapping[str, NDArray[Any]] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Sequence[Hashable]] | None = None,
        exchangeable: str | None = None,
        rotatable: Sequence[str] = (),
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.draws: Arrays = {name: np.asarray(value) for name, value in draws.items()}
        leading = {value.shape[:2] for value in self.draws.values()}
        if len(leading) != 1 or len(next(iter(leading))) != 2:
            raise ValueError(
                f"Posterior: draws start with axes {sorted(leading)}; expected one common "
                "(chains, draws) for every site, and at least one site"
            )
        self.method = method
        self.engine = engine
        self.model = model
        self.args = tuple(args)
        self.kwargs = dict(kwargs or {})
        self.sample_stats: Arrays = {k: np.asarray(v) for k, v in (sample_stats or {}).items()}
        self.dims = {name: list(axes) for name, axes in (dims or {}).items()}
        self.coords = {name: list(labels) for name, labels in (coords or {}).items()}
        # One name is a sequence too, of letters.
        axes_of_factors = (rotatable,) if isinstance(rotatable, str) else rotatable
        self.exchangeable, self.rotatable = exchangeable, tuple(axes_of_factors)
        self.info = dict(info or {})
        self._log_likelihood: Arrays | None = None
        self._omitted: list[str] = []

    # --- shape ----------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of chains and of draws a chain."""
        chains, draws = next(iter(self.draws.values())).shape[:2]
        return int(chains), int(draws)

    @property
    def is_point(self) -> bool:
        """Whether this is one point estimate."""
        return self.shape == (1, 1)

    @property
    def is_chains(self) -> bool:
        """Whether the draws are Markov chains, so that R-hat and effective sizes mean something."""
        return not self.is_point and (self.shape[0] > 1 or bool(self.sample_stats))

    def stacked(self, site: str) -> NDArray[Any]:
        """Return the draws of one site with chains joined, shape (chains * draws, ...).

        Raises
        ------
        KeyError
            If there is no such site.
        """
        if site not in self.draws:
            raise KeyError(
                f"Posterior.stacked: no site {site!r}; expected one of {', '.join(self.draws)}"
            )
        return (values := self.draws[site]).reshape(-1, *values.shape[2:])

    def thin(self, every: int) -> "Posterior":
        """Return a posterior of every `every`-th draw of each chain."""
        return self._replace(
            {name: value[:, ::every] for name, value in self.draws.items()},
            {name: value[:, ::every] for name, value in self.sample_stats.items()},
        )

    def _replace(self, draws: Arrays, sample_stats: Arrays, **info: Any) -> "Posterior":
        kept = {name: getattr(self, name) for name in storage.SETTINGS}
        info = {**self.info, **info}
        changed = Posterior(draws, sample_stats=sample_stats, info=info, **kept)
        changed._omitted = self._omitted
        return changed

    # --- the program ----------------------------------------------------------------------------

    def native(self, asker: str) -> tuple[Engine, Callable[..., Any]]:
        """Return the engine and the native model; ValueError in the name of `asker` if none."""
        if self.model is None or self.engine is None:
            raise ValueError(
                f"{asker}: this posterior has no program, only draws; expected one that was "
                "inferred in this session; after loading, pass it: load(path, program=...)"
            )
        if self._omitted:
            raise ValueError(
                f"{asker}: the arguments {', '.join(self._omitted)} could not be saved; infer "
                "again to use the program"
            )
        engine = engines.get(self.engine)
        return engine, getattr(self.model, self.engine, self.model)

    def precision(self, engine: Engine) -> Any:
        """Return a context in which the engine computes as in the inference."""
        return engine.precision(self.info.get("dtype"), self.info.get("device") or "auto")

    @functools.cached_property
    def sites(self) -> dict[str, Site]:
        """What each site of the program does at the first draw; empty without a program."""
        if self.model is None or self._omitted:
            return {}
        engine, native = self.native("Posterior.sites")
        with self.precision(engine):
            return engine.trace(
                native,
                self.args,
                self.kwargs,
                values={name: value[0, 0] for name, value in self.draws.items()},
            )

    @functools.cached_property
    def axes(self) -> dict[str, list[str]]:
        """Names of the axes of each site after chain and draw; a name may occur twice."""
        known = {**axes_of_sites(self.sites), **self.dims}
        axes = axes_of_arrays(self.draws, known, skip=2)
        check_coords(self.coords, axes, self.draws, skip=2)
        return axes

    def latent_draws(self) -> Arrays:
        """Return draws of the sites that a run can be conditioned on, chains joined."""
        kinds = {name: site.kind for name, site in self.sites.items()}
        named = [n for n in self.draws if kinds.get(n) in ("sample", "param")]
        # The weights of a network are no sites: the program holds them itself.
        return {n: self.stacked(n) for n in named or self.draws}

    # --- ArviZ ----------------------------------------------------------------------------------

    @functools.cached_property
    def idata(self) -> Any:
        """ArviZ InferenceData: posterior, sample_stats, observed_data, constant_data.

        Groups made on request (:meth:`log_likelihood`, :meth:`prior`, :meth:`predictive`) are
        added to it.
        """
        return tables.inference_data(self)

    def summary(
        self, var_names: str | Sequence[str] | None = None, *, hdi_prob: float = 0.94
    ) -> "pd.DataFrame":
        """Return a table with one row an entry of a site.

        Parameters
        ----------
        var_names : str or list of str, optional
            The sites to show.
        hdi_prob : float
            Probability of the highest-density interval.

        Returns
        -------
        DataFrame
            Chains: mean, sd, interval, Monte Carlo errors, effective sizes, R-hat. Independent
            draws: mean, sd, interval. A point estimate: ``mean`` alone.

        Raises
        ------
        ValueError
            If a name is not a site of the posterior.
        """
        return tables.summary(self.relabel(), var_names, hdi_prob)

    @functools.cached_property
    def verdict(self) -> diagnostics.Verdict:
        """Whether the draws can be trusted, why not, and what to do; after relabelling."""
        if self.is_point:
            return diagnostics.of_point(self.info)
        draws = self.relabel().draws
        if self.is_chains:
            return diagnostics.of_chains(draws, self.sample_stats, self.info)
        return diagnostics.of_independent_draws(draws, self.info)

    # --- groups on request ----------------------------------------------------------------------

    def log_likelihood(self) -> Arrays:
        """Return the log probability of each observation under each draw, in nats.

        Added to `idata`, so that ``az.loo`` and ``az.compare`` work on it.

        Returns
        -------
        dict of str to ndarray, shape (chains, draws, ...)
            One array an observed site.

        Raises
        ------
        ValueError
            If the likelihood goes through ``factor`` or nothing is observed; if the result would
            not fit in memory, with the thinning to use.
        """
        if self._log_likelihood is None:
            self._log_likelihood = groups.log_likelihood(self)
        if "log_likelihood" not in self.idata.groups():
            tables.add_group(self, self.idata, "log_likelihood", self._log_likelihood)
        return self._log_likelihood

    def loo(self, var_name: str | None = None) -> Any:
        """Estimate leave-one-out predictive accuracy by Pareto-smoothed importance sampling.

        Parameters
        ----------
        var_name : str, optional
            The observed site, where there are several.

        Returns
        -------
        arviz.ELPDData, which ``az.compare`` takes

        Raises
        ------
        ValueError
            For a point estimate; for several observed sites without `var_name`; for one
            observation, as a single sequence is; and for observations along an axis ``time``.

        References
        ----------
        Vehtari, Gelman and Gabry (2017). Practical Bayesian model evaluation using leave-one-out
        cross-validation and WAIC. Statistics and Computing 27.
        """
        return tables.loo(self, var_name)

    def predictive(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        sites: Sequence[str] | None = None,
        **new_data: Any,
    ) -> Arrays:
        """Draw new data from the posterior predictive distribution.

        Parameters
        ----------
        n : int, optional
            Number of draws; by default one a posterior draw, and then added to `idata`. Fewer are
            taken at random without replacement, more with.
        seed : int
        sites : list of str, optional
            By default the sites that were observed.
        **new_data
            Arguments of the program to be replaced, by name. Arguments that hold observations
            are passed as None.

        Returns
        -------
        dict of str to ndarray, shape (n, ...)

        Raises
        ------
        ValueError
            If the program has no such argument, if a site stays observed, or if the result would
            not fit in memory.
        """
        drawn = groups.posterior_predictive(self, n, seed, sites, new_data)
        if n is None:
            shaped = {k: v.reshape(*self.shape, *v.shape[1:]) for k, v in drawn.items()}
            group = "predictions" if new_data else "posterior_predictive"
            tables.add_group(self, self.idata, group, shaped)
        return drawn

    def prior(self, n: int = 500, *, seed: int = 0) -> Arrays:
        """Draw every site from the prior; added to `idata` as prior and prior_predictive.

        Parameters
        ----------
        n : int
        seed : int

        Returns
        -------
        dict of str to ndarray, shape (n, ...)

        Raises
        ------
        ValueError
            If a prior is improper, naming it.
        """
        drawn = groups.prior_draws(self, n, seed)
        observed = {name for name, site in self.sites.items() if site.observed}
        parts = {
            "prior": {k: v[None] for k, v in drawn.items() if k not in observed},
            "prior_predictive": {k: v[None] for k, v in drawn.items() if k in observed},
        }
        for group, values in parts.items():
            if values:
                tables.add_group(self, self.idata, group, values)
        return drawn

    # --- relabelling ----------------------------------------------------------------------------

    def relabel(self) -> "Posterior":
        """Return a posterior whose components, and factors, mean the same in every draw.

        Every site with the axis `exchangeable` is permuted along it, draw by draw, by exact
        assignment to a pivot: see :func:`ppl_gen.algorithms.relabelling.relabel`. Then every site
        with an axis of `rotatable` is rotated along it to agree with the mean of the draws: see
        :func:`ppl_gen.algorithms.rotation.align`.

        Returns
        -------
        Posterior
            This one, where nothing is exchangeable or rotatable, or there is one draw only.

        Raises
        ------
        ValueError
            If no site has the axis.
        """
        free = self.exchangeable is not None or self.rotatable
        return self._relabelled if free and not self.is_point else self

    @functools.cached_property
    def _relabelled(self) -> "Posterior":
        return relabelled(self)

    # --- saving ---------------------------------------------------------------------------------

    __getstate__ = storage.state
    __deepcopy__ = storage.duplicate

    def tree(self) -> dict[str, Any]:
        """Return what an artefact keeps beside the netCDF file: everything but the draws."""
        return storage.tree(self)

    def write_netcdf(self, path: str | os.PathLike[str]) -> None:
        """Write `idata` as netCDF, which ArviZ reads."""
        from ppl_gen import arviz_bridge

        arviz_bridge.write_netcdf(self.idata, Path(path))

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Save draws, data and settings to a directory that :func:`ppl_gen.load` reads.

        Parameters
        ----------
        path : path-like
        overwrite : bool
            Whether an earlier artefact there is replaced.

        Raises
        ------
        FileExistsError
            If `path` exists and `overwrite` is False.
        """
        artifact.write(
            path,
            kind="posterior",
            name="Posterior",
            tree=self.tree(),
            posterior=self.write_netcdf,
            overwrite=overwrite,
        )

    @classmethod
    def from_artifact(
        cls,
        saved: artifact.Artifact,
        *,
        program: Callable[..., Any] | None = None,
        modules: Mapping[str, Any] | None = None,
    ) -> "Posterior":
        """Make the posterior that :meth:`save` stored.

        Parameters
        ----------
        saved : Artifact
        program : Program or callable, optional
            The program it was inferred with, which is your code and so is not stored. Checked
            against the sites and shapes stored.
        modules : dict, optional
            Not used by a posterior.

        Raises
        ------
        ValueError
            If `program` has other sites or shapes.
        """
        if (path := saved.posterior_path) is None:
            raise artifact.ArtifactError(
                f"ppl_gen.load: {saved.directory} holds no posterior.nc; expected a posterior that "
                ".save(path) wrote"
            )
        return cls.from_tree(saved.tree, path, program=program)

    @classmethod
    def from_tree(
        cls,
        tree: Mapping[str, Any],
        netcdf: str | os.PathLike[str],
        *,
        program: Callable[..., Any] | None = None,
    ) -> "Posterior":
        """Make a posterior from what :meth:`tree` and :meth:`write_netcdf` gave."""
        from ppl_gen import arviz_bridge

        idata = arviz_bridge.read_netcdf(Path(netcdf))
        posterior = cls(**storage.settings(tree, idata, program))
        storage.restore(posterior, tree, idata)
        return posterior

    # --- shown ----------------------------------------------------------------------------------

    def __repr__(self) -> str:
        chains, draws = self.shape
        sites = ", ".join(
            f"{name}{list(value.shape[2:])}" if value.ndim > 2 else name
            for name, value in self.draws.items()
        )
        size = "point estimate" if self.is_point else f"{chains} x {draws} draws"
        return f"<Posterior by {self.method}: {size} of {sites}>"

    def _repr_html_(self) -> str:
        return tables.as_html(self)
