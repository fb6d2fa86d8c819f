"""From a graph, tables and rows to a network: what the arguments of `BayesianNetwork` mean."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.models.bayesian_network.cpd import ConditionalDistribution
from ppl_gen.models.bayesian_network.cpds import LinearGaussianCPD, SoftmaxCPD, TabularCPD
from ppl_gen.structures.bayesian_network.conditionals import (
    LinearGaussian,
    NodeConditional,
    Tabular,
)
from ppl_gen.structures.bayesian_network.network import Network
from ppl_gen.structures.bayesian_network.softmax import Softmax
from ppl_gen.table_reader import constant_columns

if TYPE_CHECKING:
    import networkx as nx

Array = Any
CPDs = dict[Any, ConditionalDistribution]
States = dict[Any, tuple[Any, ...] | None]

WHO = "BayesianNetwork"


def as_graph(graph: Any) -> "nx.DiGraph":
    """Return a directed acyclic graph from a graph, or from pairs (parent, child).

    Raises
    ------
    ValueError
        If it is undirected, has no node, or goes round in a circle, which is named.
    TypeError
        If it is neither.
    """
    import networkx as nx

    if isinstance(graph, nx.Graph):
        if not graph.is_directed() or graph.is_multigraph():
            raise ValueError(
                f"{WHO}: the graph is a {type(graph).__name__}; expected a networkx.DiGraph, whose "
                "arcs run from parent to child"
            )
        made = nx.DiGraph()
        made.add_nodes_from(graph)
        # Parent by parent: a copy by the arcs' sources would have parents in another order.
        made.add_edges_from((p, node) for node in graph for p in graph.predecessors(node))
    else:
        try:
            if isinstance(graph, Iterator):  # a second fit would find it used up
                raise TypeError
            pairs = [() if isinstance(pair, str) else tuple(pair) for pair in graph]
            if any(end is None for pair in pairs for end in pair):
                raise ValueError(f"{WHO}: the graph has the node None, which is no name")
            made = nx.DiGraph(pairs)
        except (TypeError, nx.NetworkXError) as error:
            raise TypeError(
                f"{WHO}: graph is a {type(graph).__name__}; expected a networkx.DiGraph, a list of "
                "pairs (parent, child), or a learner such as HillClimb()"
            ) from error
    if not made.nodes:
        raise ValueError(f"{WHO}: the graph has no node")
    refuse_cycle(made)
    return made


def refuse_unknown_states(states: Iterable[Any], graph: "nx.DiGraph") -> None:
    """Raise ValueError if states are declared of what is no node."""
    unknown = [name for name in states if name not in graph]
    if unknown:
        raise ValueError(
            f"{WHO}: states has {unknown}, which are no nodes of the graph; it has {list(graph)}"
        )


def refuse_cycle(graph: "nx.DiGraph") -> None:
    """Raise ValueError if a graph goes round in a circle."""
    import networkx as nx

    if not nx.is_directed_acyclic_graph(graph):
        circle = [arc[0] for arc in nx.find_cycle(graph)]
        shown = " -> ".join(map(str, [*circle, circle[0]]))
        raise ValueError(
            f"{WHO}: the graph goes round in a circle: {shown}; remove one of its arcs"
        )


def read_cpds(
    cpds: Mapping[Any, Any] | Iterable[ConditionalDistribution],
    graph: "nx.DiGraph | None",
    states: Mapping[Any, Sequence[Any]] | None,
) -> tuple["nx.DiGraph", CPDs]:
    """Check conditional distributions against each other and the graph, which they may imply.

    Raises
    ------
    ValueError
        If nodes, parents or states do not fit.
    """
    import networkx as nx

    if not isinstance(cpds, Mapping):
        given = list(cpds)
        cpds = {cpd.node: cpd for cpd in given}
        if len(cpds) < len(given):
            raise ValueError(f"{WHO}: cpds has two distributions of one node; each has one")
    if graph is None and not cpds:
        raise ValueError(f"{WHO}: cpds is empty, and there is no graph; give one of them")
    if graph is None:
        loose = [name for name, cpd in cpds.items() if not isinstance(cpd, ConditionalDistribution)]
        if loose:
            raise ValueError(
                f"{WHO}: the table of {loose[0]!r} is an array, which does not name its parents; "
                "give the graph too, or a TabularCPD"
            )
        graph = nx.DiGraph()
        graph.add_nodes_from(cpds)
        graph.add_edges_from((parent, name) for name, cpd in cpds.items() for parent in cpd.parents)
        refuse_cycle(graph)
    unknown = [name for name in cpds if name not in graph]
    if unknown:
        raise ValueError(
            f"{WHO}: cpds has {unknown}, which are no nodes of the graph; it has {list(graph)}"
        )
    declared = {name: tuple(own) for name, own in (states or {}).items()}
    refuse_unknown_states(declared, graph)
    for name, cpd in cpds.items():
        if isinstance(cpd, TabularCPD | SoftmaxCPD):
            declared.setdefault(name, cpd.states[cpd.node])
    found: CPDs = {}
    for name in nx.topological_sort(graph):  # an array's parents have their states before it
        if name not in cpds:
            continue
        cpd = cpds[name]
        parents = tuple(graph.predecessors(name))
        if not isinstance(cpd, ConditionalDistribution):
            known = {n: declared[n] for n in (*parents, name) if n in declared}
            cpd = TabularCPD(name, cpd, parents, known)
        if cpd.node != name:
            raise ValueError(f"{WHO}: cpds[{name!r}] is that of {cpd.node!r}")
        if set(cpd.parents) != set(parents):
            raise ValueError(
                f"{WHO}: the parents of {name!r} are {list(cpd.parents)} in its distribution, but "
                f"{list(parents)} in the graph"
            )
        found[name] = cpd
        if isinstance(cpd, TabularCPD):
            declared.setdefault(name, cpd.states[name])
    made: CPDs = {name: found[name] for name in cpds}
    for name, cpd in made.items():
        for other, own in cpd.states.items():
            there = declared.get(other)
            if other in made and isinstance(made[other], LinearGaussianCPD):
                raise ValueError(
                    f"{WHO}: {other!r} is a number, but the distribution of {name!r} gives it "
                    f"states; leave them out, and {other!r} is a regressor"
                )
            if there is not None and tuple(own) != there:
                raise ValueError(
                    f"{WHO}: the states of {other!r} are {list(own)} in the distribution of "
                    f"{name!r}, but {list(there)} in its own"
                )
        for parent in cpd.continuous_parents:
            if parent in declared:
                raise ValueError(
                    f"{WHO}: {parent!r} has states, but is a number in the distribution of "
                    f"{name!r}; give that one its states"
                )
    return graph, made


def given_numbers(cpds: Mapping[Any, Any] | Iterable[ConditionalDistribution] | None) -> list[Any]:
    """Nodes that distributions are given of, as numbers."""
    given = cpds.values() if isinstance(cpds, Mapping) else cpds or ()
    return [cpd.node for cpd in given if isinstance(cpd, LinearGaussianCPD)]


def given_parameters(network: Network, cpds: CPDs) -> dict[str, Any]:
    """Return the parameters that distributions are of some nodes, where their kind is the node's.

    Parents that a distribution has in another order are the table's axes; regressions have theirs.
    """
    found: dict[str, Any] = {}
    for name, cpd in cpds.items():
        v = network.names.index(name)
        order = tuple(network.names[p] for p in network.parents[v])
        if network.conditionals[v].kind != cpd.kind:
            continue
        if isinstance(cpd, TabularCPD):
            axes = [cpd.parents.index(parent) for parent in order]
            found[str(v)] = {"table": cpd.values.transpose(*axes, -1)}
        elif cpd.parents == order:
            found[str(v)] = cpd.parameters
    return found


def network_of_cpds(graph: "nx.DiGraph", cpds: CPDs, max_cells: int) -> Network:
    """Return the network that distributions for all nodes make."""
    names = list(graph)
    place = {name: v for v, name in enumerate(names)}
    conditionals: list[NodeConditional] = []
    for name in names:
        cpd = cpds[name]
        numbers = cpd.continuous_parents
        settings: dict[str, Any] = {
            "node": place[name],
            "parents": tuple(place[p] for p in cpd.discrete_parents),
            "sizes": cpd.sizes,
        }
        if isinstance(cpd, TabularCPD):
            conditionals.append(Tabular(**settings | {"sizes": (*cpd.sizes, cpd.size)}))
            continue
        settings["regressors"] = tuple(place[p] for p in numbers)
        width = len(numbers)
        if isinstance(cpd, LinearGaussianCPD):
            origin, scale = np.zeros(width + 1), np.ones(width + 1)
            conditionals.append(LinearGaussian(**settings, origin=origin, scale=scale))
        else:
            origin, scale = np.zeros(width), np.ones(width)
            settings["sizes"] = (*cpd.sizes, cpd.size)
            conditionals.append(Softmax(**settings, origin=origin, scale=scale, reach=scale))
    return Network(
        names=tuple(names),
        states=tuple(cpds[n].states[n] if cpds[n].size else None for n in names),
        conditionals=tuple(conditionals),
        parents=tuple(tuple(place[p] for p in cpds[n].parents) for n in names),
        max_cells=max_cells,
    )


def network_of_rows(
    graph: "nx.DiGraph",
    states: States,
    x: Array,
    prior: Any,
    target: Any,
    max_cells: int,
) -> Network:
    """Return the network that rows (n, V) are to be fitted by.

    Parameters
    ----------
    graph : networkx.DiGraph
    states : dict
        Of each node; None of numbers.
    x : (n, V)
        In the order of the graph's nodes; NaN where missing.
    prior : None, str, number or BDeu
        See `BayesianNetwork`.
    target : name or None
        The node to predict; by default the one with states that no row shows.
    max_cells : int
    """
    names = list(graph)
    place = {name: v for v, name in enumerate(names)}
    lacking = np.isnan(x).sum(axis=0) if np.isnan(x.sum()) else np.zeros(len(names), dtype=int)
    shown = lacking < len(x)
    origin, scale = np.zeros(len(names)), np.ones(len(names))
    numbers = [v for v, name in enumerate(names) if states[name] is None and shown[v]]
    if numbers:
        origin[numbers] = np.nanmean(x[:, numbers], axis=0)
        scale[numbers] = np.nanvar(x[:, numbers], axis=0)
        # A constant column has no units, and its mean and variance have rounding.
        constant = [v for v in numbers if constant_columns(x[:, [v]]).all()]
        origin[constant], scale[constant] = np.nanmax(x[:, constant], axis=0), 1.0
        scale[scale == 0.0] = 1.0
    unseen = [place[name] for name in names if states[name] and not shown[place[name]]]
    conditionals: list[NodeConditional] = []
    for name in names:
        parents = list(graph.predecessors(name))
        discrete = [p for p in parents if states[p] is not None]
        regressors = tuple(place[p] for p in parents if states[p] is None)
        sizes = tuple(len(states[p] or ()) for p in discrete)
        own = states[name]
        refuse_past_bound(name, discrete, (*sizes, len(own or "1")), max_cells)
        settings: dict[str, Any] = {
            "node": place[name],
            "parents": tuple(place[p] for p in discrete),
        }
        if own is None:
            columns = [*regressors, place[name]]
            conditionals.append(
                LinearGaussian(
                    **settings,
                    sizes=sizes,
                    regressors=regressors,
                    origin=origin[columns],
                    scale=scale[columns],
                )
            )
        elif regressors:
            columns = list(regressors)
            conditionals.append(
                Softmax(
                    **settings,
                    sizes=(*sizes, len(own)),
                    regressors=regressors,
                    origin=origin[columns],
                    scale=scale[columns],
                    reach=np.nan_to_num(np.abs(x[:, columns] - origin[columns])).max(axis=0),
                )
            )
        else:
            shape = (*sizes, len(own))
            conditionals.append(
                Tabular(**settings, sizes=shape, pseudocount=pseudocount(prior, shape))
            )
    return Network(
        names=tuple(names),
        states=tuple(states[name] for name in names),
        conditionals=tuple(conditionals),
        parents=tuple(tuple(place[p] for p in graph.predecessors(name)) for name in names),
        hidden=tuple(int(v) for v in np.flatnonzero(lacking)),
        latent_node=place.get(target, unseen[0] if len(unseen) == 1 else None),
        max_cells=max_cells,
    )


def refuse_past_bound(
    name: Any, parents: Sequence[Any], shape: tuple[int, ...], max_cells: int
) -> None:
    """Raise ValueError if the table of a node has more cells than `max_cells`."""
    cells = math.prod(shape)
    if cells > max_cells:
        raise ValueError(
            f"{WHO}: the distribution of {name!r} given its {len(parents)} parents with states has "
            f"{cells:,} cells ({8 * cells / 2**30:,.1f} GiB), past the bound "
            f"max_cells={max_cells:,}; remove arcs, or raise max_cells"
        )


def pseudocount(prior: Any, shape: tuple[int, ...]) -> Array | None:
    """Prior count of each cell of a table; None where there is no prior.

    Raises
    ------
    ValueError
        If the prior is none that there is.
    """
    if prior is None:
        return None
    size = prior
    if isinstance(prior, str):
        if prior not in ("bdeu", "k2"):
            raise ValueError(
                f"{WHO}: prior is {prior!r}; expected None, 'bdeu', 'k2', BDeu(...), or a number, "
                "the prior count of every cell"
            )
        size = 10.0 / np.prod(shape) if prior == "bdeu" else 1.0
    elif hasattr(prior, "equivalent_sample_size"):
        size = prior.equivalent_sample_size / np.prod(shape)
    if (
        isinstance(size, bool)
        or not isinstance(size, int | float | np.number)
        or not 0.0 < size < np.inf
    ):
        raise ValueError(
            f"{WHO}: prior is {prior!r}; expected None, 'bdeu', 'k2', BDeu(...), or a positive "
            "number, the prior count of every cell"
        )
    return np.full(shape, float(size))


def cpds_of(network: Network, parameters: dict[str, Any]) -> CPDs:
    """Return the conditional distributions of a network with its parameters."""
    cpds: CPDs = {}
    for v, (name, conditional) in enumerate(zip(network.names, network.conditionals, strict=True)):
        family = (*network.parents[v], v)
        states = {network.names[u]: network.states[u] or () for u in family if network.sizes[u]}
        parents = [network.names[p] for p in network.parents[v]]
        own = parameters[str(v)]
        if isinstance(conditional, Tabular):
            # What is averaged over draws sums to one but for rounding.
            cpds[name] = TabularCPD(name, own["table"], parents, states, tolerance=np.inf)
        else:
            kind: Any = {"linear_gaussian": LinearGaussianCPD, "softmax": SoftmaxCPD}
            cpds[name] = kind[conditional.kind](name, **own, parents=parents, states=states)
    return cpds


def graph_of(network: Network) -> "nx.DiGraph":
    """Return the graph of a network, with nodes and parents in their order."""
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(network.names)
    for v, parents in enumerate(network.parents):
        graph.add_edges_from((network.names[p], network.names[v]) for p in parents)
    return graph
