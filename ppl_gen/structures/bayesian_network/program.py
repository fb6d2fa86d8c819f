"""The Bayesian network as a program: a prior for the conditional distribution of every node.

The sites of a node are named after it: ``p_lung`` is the table of a discrete node, its axes named
after its parents and itself; ``intercept_``, ``coefficients_`` and ``variance_`` are those of a
number, and the first two those of a discrete node that depends on numbers. The last are drawn as
``whitened_``, with the intercept at the regressors' means and in units in which their prior is of
one scale for every column: samplers want that.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside
from ppl_gen.language import Program, deterministic, dist, ops, plate, sample
from ppl_gen.structures.bayesian_network.conditionals import (
    SHRINKAGE,
    LinearGaussian,
    NodeConditional,
    Tabular,
)
from ppl_gen.structures.bayesian_network.softmax import SOFTMAX_PRECISION, Softmax

if TYPE_CHECKING:
    from ppl_gen.structures.bayesian_network.network import Network

Array = Any
Parameters = dict[str, Any]

#: Axes of posteriors that are not nodes.
_TAKEN = ("chain", "draw", "sample", "row", "column", "x")


def written(node: Any, refused: str = "%/") -> str:
    """Return a node's name as axes have it: netCDF takes no slash, for which ``%2F`` stands.

    Examples
    --------
    >>> written("blood pressure"), written("either/or"), written(3)
    ('blood pressure', 'either%2For', '3')
    """
    name = str(node)
    return "".join(f"%{ord(c):02X}" if c in refused or not c.isprintable() else c for c in name)


def site_name(kind: str, node: Any) -> str:
    """Return the name of a node's site of a kind; to Pyro's guides, a dot is a part of a part.

    Examples
    --------
    >>> site_name("p", "lung"), site_name("variance", "blood.pressure")
    ('p_lung', 'variance_blood%2Epressure')
    """
    return f"{kind}_{written(node, '%/.')}"


def axis_names(names: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of the nodes' axes: their own, but for those that something else has.

    Raises
    ------
    ValueError
        If two nodes are written alike.

    Examples
    --------
    >>> axis_names(["smoke", "draw", "p_smoke"])
    ('smoke', 'draw_', 'p_smoke_')
    """
    own = [written(node) for node in names]
    if twice := sorted({name for name in own if own.count(name) > 1}):
        raise ValueError(
            f"BayesianNetwork: several nodes are written {twice[0]!r}; expected names that differ "
            "as text; rename one"
        )
    kinds = ("p", "intercept", "coefficients", "variance", "whitened")
    elsewhere = {*_TAKEN, *(site_name(kind, node) for kind in kinds for node in names)}
    elsewhere.update(f"{name}_{axis}" for name in own for axis in ("term", "parent"))
    axes: list[str] = []
    for name in own:
        axis = name
        while not axis or axis in elsewhere or axis in axes or (axis != name and axis in own):
            axis += "_"
        axes.append(axis)
    return tuple(axes)


def network_program(network: Network, latent_node: int | None = None, latent: str = "z") -> Program:
    """Return the program of a network, with its priors.

    Rows ``x`` (n, V) are codes and numbers, NaN where missing; without them the program draws
    ``n_rows``. ``batch_size`` subsamples the rows.

    Parameters
    ----------
    network : Network
    latent_node : int, optional
        The discrete node that `classify` may be asked for, in a network of tables.
    latent : str
        The name under which it may.

    Notes
    -----
    Rows of tables have Dirichlet priors, variances and coefficients of numbers the conjugate
    normal-inverse-gamma, coefficients of a softmax normal ones. In a network of tables, each
    row's missing nodes are summed out by `dist.BayesNet`; which nodes may be missing is looked up
    in the rows that the program is given.
    """
    if all(isinstance(conditional, Tabular) for conditional in network.conditionals):

        def tables(parameters: Parameters, n_rows: int, hidden: tuple[int, ...]) -> Any:
            each = [parameters[str(v)]["table"] for v in range(len(network.names))]
            parents = [conditional.parents for conditional in network.conditionals]
            return dist.BayesNet(parents, each, hidden, latent_node, latent)

        return NetworkProgram(network, tables)

    def rows(parameters: Parameters, n_rows: int, hidden: tuple[int, ...]) -> Any:
        own = dataclasses.replace(network, hidden=hidden)
        return dist.Family(own, parameters, labels=np.zeros(n_rows, dtype=np.int64))

    return NetworkProgram(network, rows)


class NetworkProgram(Program):
    """The program of a network, whose hidden nodes are those that its rows lack.

    A compiled density cannot look at its values to choose, so it is chosen by the arguments.

    Parameters
    ----------
    network : Network
    likelihood : callable
        Gives the distribution of rows from the parameters, the number of rows, and the nodes that
        may be missing.
    """

    def __init__(
        self, network: Network, likelihood: Callable[[Parameters, int, tuple[int, ...]], Any]
    ) -> None:
        self.network, self.likelihood = network, likelihood
        self.axes = site_axes(network)
        super().__init__(self._function(network.hidden))

    def _native(self, name: str) -> Callable[..., Any]:
        @functools.wraps(self.function)
        def model(*args: Any, **kwargs: Any) -> Any:
            x = self._bind(args, kwargs).arguments.get("x")
            hidden = set(self.network.hidden)
            if isinstance(x, np.ndarray):
                hidden.update(np.flatnonzero(np.isnan(x).any(axis=0)).tolist())
            chosen = Program(self._function(tuple(sorted(hidden))))
            return chosen.native(name)(*args, **kwargs)

        return model

    def _function(self, hidden: tuple[int, ...]) -> Callable[..., None]:
        network, likelihood, axes = self.network, self.likelihood, self.axes

        def bayesian_network(x: Any = None, n_rows: int = 1, batch_size: int | None = None) -> None:
            parameters = {
                str(v): _draw(conditional, axes[v])
                for v, conditional in enumerate(network.conditionals)
            }
            if x is not None:
                n_rows = x.shape[0]
            with plate("row", n_rows, subsample_size=batch_size) as batch:
                if batch_size is not None and x is not None:
                    x = x[batch]
                rows = likelihood(parameters, batch_size or n_rows, hidden)
                sample("x", rows, obs=x, dims=("column",))

        return bayesian_network


def site_axes(network: Network) -> list[dict[str, tuple[str, tuple[str, ...]]]]:
    """Return the name of every site and those of its axes, by node and parameter."""
    names = axis_names(network.names)
    found = []
    for v, conditional in enumerate(network.conditionals):
        above, own = tuple(names[p] for p in conditional.parents), written(network.names[v])
        if isinstance(conditional, Tabular):
            axes = {"table": (*above, names[v])}
        else:
            states = (names[v],) if isinstance(conditional, Softmax) else ()
            axes = {
                "whitened": (*above, f"{own}_term", *states),
                "intercept": (*above, *states),
                "coefficients": (*above, f"{own}_parent", *states),
                "variance": above,
            }
            if isinstance(conditional, Softmax):
                del axes["variance"]
            if not conditional.regressors:
                del axes["coefficients"]
        node = network.names[v]
        found.append(
            {k: (site_name("p" if k == "table" else k, node), dims) for k, dims in axes.items()}
        )
    return found


def _draw(conditional: NodeConditional, axes: dict[str, tuple[str, tuple[str, ...]]]) -> Parameters:
    """Draw the parameters of one node inside a program."""
    drawn: Parameters = {}

    def draw(kind: str, prior: Any, n_axes: int) -> Any:
        name, dims = axes[kind]
        return sample(name, prior.to_event(n_axes) if n_axes else prior, dims=dims)

    lead = len(conditional.parents)
    if isinstance(conditional, Tabular):
        name, dims = axes["table"]
        if conditional.fixed is not None:
            return {"table": deterministic(name, ops.asarray(conditional.fixed), dims=dims)}
        if conditional.sizes[-1] == 1:  # a simplex of one has nothing to draw
            return {"table": deterministic(name, ops.ones(conditional.sizes), dims=dims)}
        return {"table": draw("table", dist.Dirichlet(conditional.concentration), lead)}
    if isinstance(conditional, LinearGaussian) and conditional.fixed is not None:
        mean, variance = ops.asarray(conditional.fixed)
        known = {"intercept": mean, "variance": variance, "whitened": ops.zeros((1,))}
        for kind, (name, dims) in axes.items():
            deterministic(name, known[kind], dims=dims)
        return known | {"coefficients": ops.zeros((0,))}
    spread: Any = SOFTMAX_PRECISION**-0.5
    if isinstance(conditional, LinearGaussian):
        terms = conditional.prior
        shape, rate = (np.full(conditional.sizes, terms[key]) for key in ("shape", "rate"))
        drawn["variance"] = draw("variance", dist.InverseGamma(shape, rate), lead)
        share = drawn["variance"] / (SHRINKAGE * conditional.scale[-1])
        spread = ops.expand_dims(share, axis=-1) ** 0.5
    zeros = np.zeros(_whitened_shape(conditional))
    whitened = draw("whitened", dist.Normal(zeros, spread), zeros.ndim)
    for kind, value in _in_units(conditional, whitened).items():
        drawn[kind] = value
        if kind in axes:
            name, dims = axes[kind]
            deterministic(name, value, dims=dims)
    return drawn


def _whitened_shape(conditional: LinearGaussian | Softmax) -> tuple[int, ...]:
    terms = len(conditional.regressors) + 1
    if isinstance(conditional, LinearGaussian):
        return (*conditional.sizes, terms)
    return (*conditional.sizes[:-1], terms, conditional.sizes[-1])


def _scales(conditional: LinearGaussian | Softmax) -> tuple[Array, Array, float, float]:
    """Means and deviations of the regressors, and those of the node; 0 and 1 for logits."""
    origin, deviation = conditional.origin, np.sqrt(conditional.scale)
    if isinstance(conditional, LinearGaussian):
        return origin[:-1], deviation[:-1], float(origin[-1]), float(deviation[-1])
    return origin, deviation, 0.0, 1.0


def _in_units(conditional: LinearGaussian | Softmax, whitened: Array) -> Parameters:
    """Intercept and coefficients in the units of the data, from whitened ones."""
    xp = array_namespace(whitened)
    mean, deviation, centre, unit = _scales(conditional)
    # The axis of terms goes last, whether or not states follow it.
    last = isinstance(conditional, Softmax)
    terms = xp.moveaxis(whitened, -2, -1) if last else whitened
    coefficients = terms[..., 1:] * beside(whitened, unit / deviation)
    intercept = (
        centre + unit * terms[..., 0] - xp.sum(coefficients * beside(whitened, mean), axis=-1)
    )
    if last:
        coefficients = xp.moveaxis(coefficients, -1, -2)
    return {"intercept": intercept, "coefficients": coefficients}


def _whitened(conditional: LinearGaussian | Softmax, parameters: Parameters) -> Array:
    """Undo `_in_units`, for arrays of NumPy."""
    mean, deviation, centre, unit = _scales(conditional)
    last = isinstance(conditional, Softmax)
    coefficients = parameters["coefficients"]
    coefficients = np.moveaxis(coefficients, -2, -1) if last else coefficients
    intercept = parameters["intercept"] - centre + (coefficients * mean).sum(axis=-1)
    terms = np.concatenate([intercept[..., None], coefficients * deviation], axis=-1) / unit
    return np.moveaxis(terms, -1, -2) if last else terms


def network_sites(network: Network, parameters: Parameters) -> dict[str, Array]:
    """Name parameters as the sites of the program; leading axes are draws.

    Nodes that `parameters` leaves out are left out.
    """
    sites = {}
    for v, axes in enumerate(site_axes(network)):
        own = dict(parameters.get(str(v), {}))
        conditional = network.conditionals[v]
        if own and not isinstance(conditional, Tabular):
            own["whitened"] = _whitened(conditional, own)
        sites.update({name: np.asarray(own[kind]) for kind, (name, _) in axes.items() if own})
    return sites


def network_parameters(network: Network, sites: dict[str, Array]) -> Parameters:
    """Return the parameters from the sites of the program; leading axes are draws."""
    parameters: Parameters = {}
    for v, axes in enumerate(site_axes(network)):
        own = {kind: sites[name] for kind, (name, _) in axes.items() if kind != "whitened"}
        if "intercept" in own and "coefficients" not in own:
            own["coefficients"] = np.zeros((*own["intercept"].shape, 0))
        parameters[str(v)] = own
    return parameters


def network_coords(network: Network) -> dict[str, list[Any]]:
    """Labels of the axes of the program's sites: states of nodes, and names of their parents."""
    names = axis_names(network.names)
    coords: dict[str, list[Any]] = {"column": [str(name) for name in network.names]}
    for v, conditional in enumerate(network.conditionals):
        states = network.states[v]
        if states is not None:
            alike = len({isinstance(state, str) for state in states}) == 1
            coords[names[v]] = [state if alike else str(state) for state in states]
        if not isinstance(conditional, Tabular):
            own = written(network.names[v])
            regressors = [str(network.names[p]) for p in conditional.regressors]
            coords[f"{own}_term"] = ["intercept", *regressors]
            coords[f"{own}_parent"] = regressors
    return coords
