"""The language: one probabilistic program, run by Pyro and by NumPyro.

The primitives are Pyro's and NumPyro's own, by their own names. They speak to the engine that
runs the program, so that one function is a model for either.

>>> import numpy as np
>>> from ppl_gen import deterministic, dist, plate, program, sample
>>> @program
... def eight_schools(sigma, y=None):
...     mu = sample("mu", dist.Normal(0.0, 5.0))
...     tau = sample("tau", dist.HalfCauchy(5.0))
...     with plate("school", len(sigma)):
...         z = sample("z", dist.Normal(0.0, 1.0))
...         theta = deterministic("theta", mu + tau * z)
...         sample("y", dist.Normal(theta, sigma), obs=y)
>>> eight_schools
Program(eight_schools(sigma, y=None))
>>> graph = eight_schools.graph(sigma=np.array([15.0, 10.0]), y=np.array([28.0, 8.0]))
>>> sorted(graph.predecessors("theta"))
['mu', 'tau', 'z']
"""

from __future__ import annotations

import functools
import html
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ppl_gen import engines
from ppl_gen.engines.arguments import convert_argument
from ppl_gen.engines.base import active_engine, noted_dims

if TYPE_CHECKING:
    import networkx as nx
    from matplotlib.axes import Axes

__all__ = [
    "PORTABLE",
    "Program",
    "deterministic",
    "dist",
    "factor",
    "importable",
    "ops",
    "param",
    "plate",
    "program",
    "sample",
]

_PORTABLE_NAMES = """
AsymmetricLaplace BayesNet Bernoulli Beta BetaBinomial Binomial Categorical Cauchy Chi2 Delta
Dirichlet DirichletMultinomial Exponential Family Flat FoldedDistribution Gamma GammaPoisson
Geometric Gumbel HalfCauchy HalfNormal HiddenMarkov ImproperUniform Independent InverseGamma
Kumaraswamy LKJ LKJCholesky Laplace LogNormal Logistic LowRankMultivariateNormal Mixture
MixtureSameFamily Multinomial MultivariateNormal MultivariateStudentT NegativeBinomial Normal
Ordered OrderedLogistic Pareto Poisson ProjectedNormal SoftLaplace StudentT TransformedDistribution
Uniform VonMises Weibull Wishart ZeroInflatedDistribution ZeroInflatedPoisson
"""
#: The portable core: distributions that both engines have, under one spelling of arguments.
PORTABLE = frozenset(_PORTABLE_NAMES.split())


def _note_dims(name: str, dims: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if dims is None:
        return None
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    noted = noted_dims.get()
    if noted is not None:
        noted[name] = names
    return names


def sample(
    name: str,
    distribution: Any,
    obs: Any = None,
    *,
    dims: Sequence[str] | str | None = None,
    infer: dict[str, Any] | None = None,
) -> Any:
    """Draw a value, or observe one.

    Parameters
    ----------
    name : str
        Unique within the program.
    distribution : distribution
        From `dist`.
    obs : array, optional
        The observation; None leaves the site latent.
    dims : str or list of str, optional
        Names of the event axes; plates name the batch axes.
    infer : dict, optional
        Hints for the engine's inference.

    Returns
    -------
    array
        The draw, or `obs` as an array of the engine.
    """
    engine = engines.current()
    _note_dims(name, dims)
    return engine.sample(name, distribution, obs=obs, infer=infer)


def plate(
    name: str, size: int, subsample_size: int | None = None, *, dim: int | None = None
) -> AbstractContextManager[Any]:
    """Repeat what is inside, independently given what is outside.

    Parameters
    ----------
    name : str
    size : int
    subsample_size : int, optional
        Size of a minibatch; the block's value is the index to take, and densities are scaled.
    dim : int, optional
        Negative batch axis; by default the next one to the left.

    Examples
    --------
    ``with plate("N", len(x), subsample_size=100) as i:`` and then ``x[i]``.
    """
    return engines.current().plate(name, int(size), subsample_size=subsample_size, dim=dim)


def param(name: str, init_value: Any = None, *, constraint: Any = None) -> Any:
    """Declare a parameter that is optimised, not inferred.

    Parameters
    ----------
    name : str
    init_value : array or callable, optional
    constraint : constraint, optional
        From `dist.constraints`; the reals by default.
    """
    return engines.current().param(name, init_value, constraint=constraint)


def deterministic(name: str, value: Any, *, dims: Sequence[str] | str | None = None) -> Any:
    """Record a value that follows from others.

    Parameters
    ----------
    name : str
    value : array
    dims : str or list of str, optional
        Names of the event axes; plates name the batch axes.
    """
    engine = engines.current()
    names = _note_dims(name, dims)
    return engine.deterministic(name, value, event_dim=None if names is None else len(names))


def factor(name: str, log_factor: Any) -> None:
    """Add a term to the log joint density.

    For energies of a variable of the program. Data are observed by ``sample(..., obs=...)``
    instead: comparing models needs the log likelihood of each row.
    """
    engines.current().factor(name, log_factor)


class _Distributions:
    """The distributions of the engine that runs the program.

    Numbers and NumPy arrays among the arguments take the engine's dtype and device. Those listed
    by ``dir(dist)`` exist in both engines; others come from the active engine, if it has them.
    """

    @property
    def constraints(self) -> Any:
        """The engine's constraints."""
        return engines.current().constraints

    @property
    def transforms(self) -> Any:
        """The engine's transforms."""
        return engines.current().transforms

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        engine = engines.current()
        if engine.has_dist(name):
            return engine.dist(name)
        has = [other for other in engines.NAMES if engines.get(other).has_dist(name)]
        raise AttributeError(
            f"dist.{name}: engine {engine.name} has no such distribution; expected one that it "
            + (f"has; {has[0]} has it: run the program there" if has else "has; see dir(dist)")
        )

    def __dir__(self) -> list[str]:
        return sorted(PORTABLE | {"constraints", "transforms"})


class _Operations:
    """The Array API of the engine that runs the program.

    Plus logsumexp, softmax, log_softmax, sigmoid, softplus, scan, solve_triangular, gammaln,
    digamma and i0e. Numbers and NumPy arrays take the engine's dtype and device.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        engine = engines.current()
        found = getattr(engine.ops, name, None)
        if found is None and name != "newaxis":
            raise AttributeError(
                f"ops.{name}: engine {engine.name} has no such function; expected one of the "
                "Python array API standard"
            )
        return found


dist = _Distributions()
ops = _Operations()


class Program:
    """A generative model, written once; made by `program`.

    Attributes
    ----------
    pyro, numpyro : callable
        The program as a plain model of either library, with the same signature: any tool of that
        library takes it. NumPy and pandas arguments are converted.
    name : str
    signature : inspect.Signature
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = function.__name__
        self.signature = inspect.signature(function)
        functools.update_wrapper(self, function)

    @functools.cached_property
    def pyro(self) -> Callable[..., Any]:
        """The program as a plain Pyro model."""
        return self._native("pyro")

    @functools.cached_property
    def numpyro(self) -> Callable[..., Any]:
        """The program as a plain NumPyro model."""
        return self._native("numpyro")

    def _native(self, name: str) -> Callable[..., Any]:
        engine = engines.get(name)

        @functools.wraps(self.function)
        def model(*args: Any, **kwargs: Any) -> Any:
            bound = self._bind(args, kwargs)
            for key, value in bound.arguments.items():
                bound.arguments[key] = convert_argument(key, value, engine.asarray)
            with engine.activate():
                return self.function(*bound.args, **bound.kwargs)

        return model

    def native(self, engine: str) -> Callable[..., Any]:
        """Return `pyro` or `numpyro` by name."""
        engines.get(engine)
        model: Callable[..., Any] = getattr(self, engine)
        return model

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        try:
            return self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{self.name}: {error}; expected the arguments {self.signature}"
            ) from error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program inside another one."""
        if active_engine.get() is None:
            raise RuntimeError(
                f"{self.name}: a program is not called by itself; expected an engine to run it; "
                f"use {self.name}.pyro, {self.name}.numpyro or "
                f"ppl_gen.infer({self.name}, ...)"
            )
        return self.function(*args, **kwargs)

    def graph(self, *args: Any, **kwargs: Any) -> nx.DiGraph[str]:
        """Return who depends on whom, for these arguments.

        Returns
        -------
        networkx.DiGraph
            Edges run from parent to child. Attributes of nodes: kind, observed, latent, discrete,
            plates (of (name, size), outermost first) and distribution.
        """
        from ppl_gen.graph import dependency_graph

        self._bind(args, kwargs)
        return dependency_graph(self, args, kwargs)

    def render(self, *args: Any, ax: Axes | None = None, **kwargs: Any) -> Axes:
        """Draw the program in plate notation with matplotlib and return the axes.

        Latent sites are white, observed ones grey, deterministic ones dashed; a rounded rectangle
        is a plate.
        """
        from ppl_gen.graph import draw_plates

        axes: Axes = draw_plates(self.graph(*args, **kwargs), ax=ax, title=self.name)
        return axes

    def __reduce_ex__(self, protocol: Any) -> Any:
        # By its name, as functions go to other processes: that name is the program's, not the
        # function's, which therefore could not go itself.
        return self.function.__qualname__ if importable(self) else super().__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"Program({self.name}{self.signature})"

    def _repr_html_(self) -> str:
        try:
            source = textwrap.dedent(inspect.getsource(self.function))
        except OSError:  # typed at a prompt that keeps no source
            source = ""
        head = f"<b>Program</b> <code>{html.escape(self.name + str(self.signature))}</code>"
        about = html.escape(inspect.getdoc(self.function) or "")
        code = f"<details><summary>source</summary><pre>{html.escape(source)}</pre></details>"
        return f"<div>{head}<p>{about}</p>{code if source else ''}</div>"


def importable(function: Any) -> bool:
    """Tell whether another process finds a program, or a function, by its module and name."""
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "__main__")
    if found is None or found.__name__ == "__main__":
        return False  # the script of another process is another one
    for name in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, name, None)
    return found is function


def program(function: Callable[..., Any]) -> Program:
    """Make a probabilistic program of a function that uses `sample`, `plate`, `dist` and `ops`.

    Parameters
    ----------
    function : callable
        Sizes and data are its arguments; an observed argument that may be None makes the site
        drawable.

    Returns
    -------
    Program

    Examples
    --------
    >>> from ppl_gen import dist, program, sample
    >>> @program
    ... def coin(heads=None, tosses=10):
    ...     bias = sample("bias", dist.Beta(1.0, 1.0))
    ...     sample("heads", dist.Binomial(tosses, bias), obs=heads)
    >>> coin.name
    'coin'
    """
    return Program(function)
