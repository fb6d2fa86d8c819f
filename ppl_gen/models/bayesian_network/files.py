"""Networks in files: in the Interchange Format, and with all that was fitted."""

from typing import Any, Self

from ppl_gen.estimator import GenerativeModel
from ppl_gen.models.bayesian_network import reading
from ppl_gen.models.bayesian_network.bif import read_bif, write_bif
from ppl_gen.models.bayesian_network.building import as_graph, read_cpds
from ppl_gen.models.bayesian_network.cpds import cpd_from_tree


class NetworkFiles(GenerativeModel):
    """What a network writes, and is read from."""

    graph: Any
    cpds: Any
    states: Any
    cpds_: Any
    graph_: Any

    @classmethod
    def from_bif(cls, path: Any, **settings: Any) -> Self:
        """Return the network of a BIF file, with its nodes and states in the file's order.

        Parameters
        ----------
        path : path, open file, or the text itself
            May be compressed by gzip.
        **settings
            Of the network.

        Raises
        ------
        ValueError
            If the file is malformed, with the number of the line.

        Examples
        --------
        >>> from ppl_gen import BayesianNetwork
        >>> coin = BayesianNetwork.from_bif('''
        ... network coin { }
        ... variable side { type discrete [ 2 ] { head, tail }; }
        ... probability ( side ) { table 0.4, 0.6; }
        ... ''')
        >>> coin.probability({"side": "head"})
        0.4
        """
        graph, cpds = read_cpds(read_bif(path), None, None)
        return cls(graph, cpds, **settings)

    def to_bif(self, path: Any, name: str | None = None) -> None:
        """Write the network to a BIF file; reading it gives the same numbers again.

        Raises
        ------
        ValueError
            If a node is a number, which the format has no words for.
        TypeError
            If `path` is neither a path nor an open text file.

        Examples
        --------
        >>> import io
        >>> from ppl_gen.datasets import load_asia
        >>> file = io.StringIO()
        >>> load_asia().to_bif(file, "asia")
        >>> file.getvalue().splitlines()[0]
        'network asia {'
        """
        write_bif(self.cpds_, path, **({} if name is None else {"name": name}))

    def to_tree(self) -> dict[str, Any]:
        """Return the fitted model, less its posterior's diagnostics, as plain data."""
        tree = super().to_tree()
        params = tree["params"]
        if hasattr(self.graph, "edges"):
            graph = as_graph(self.graph)
            edges = [[p, node] for node in graph for p in graph.predecessors(node)]
            params["graph"] = {"nodes": list(graph.nodes), "edges": edges}
        if self.cpds is not None:
            _, cpds = read_cpds(self.cpds, self.graph_, reading.declared_states(self.states))
            params["cpds"] = [cpd.to_tree() for cpd in cpds.values()]
        return tree

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        """Return the fitted model that :meth:`to_tree` gave."""
        import networkx as nx

        params = dict(tree["params"])
        if isinstance(params["graph"], dict):
            graph = nx.DiGraph()
            graph.add_nodes_from(params["graph"]["nodes"])
            graph.add_edges_from(params["graph"]["edges"])
            params["graph"] = graph
        if params["cpds"] is not None:
            made = [cpd_from_tree(cpd) for cpd in params["cpds"]]
            params["cpds"] = {cpd.node: cpd for cpd in made}
        model = super().from_tree(tree | {"params": params})
        model._publish()
        return model
