"""Random directed acyclic graphs, and what they say read off networkx and off all paths."""

from itertools import chain, combinations, pairwise

import networkx as nx


def random_graph(rng, n_nodes, density=0.4):
    """Parents of each node of a graph whose nodes are numbered in no special order."""
    rank = rng.permutation(n_nodes)
    return [
        tuple(p for p in range(n_nodes) if rank[p] < rank[v] and rng.random() < density)
        for v in range(n_nodes)
    ]


def digraph(parents):
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(parents)))
    graph.add_edges_from((p, v) for v, above in enumerate(parents) for p in above)
    return graph


def subsets(nodes):
    nodes = sorted(nodes)
    return chain.from_iterable(combinations(nodes, size) for size in range(len(nodes) + 1))


def minimal(sets):
    """Those of some sets that contain no other of them."""
    sets = [frozenset(s) for s in sets]
    return {s for s in sets if not any(other < s for other in sets)}


def is_open(graph, path, given):
    """Whether given nodes leave a path open, by the definition."""
    for before, v, after in zip(path, path[1:], path[2:], strict=False):
        if graph.has_edge(before, v) and graph.has_edge(after, v):
            if not ({v} | nx.descendants(graph, v)) & set(given):
                return False
        elif v in given:
            return False
    return True


def is_causal(graph, path):
    return all(graph.has_edge(a, b) for a, b in pairwise(path))
