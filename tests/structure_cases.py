"""Rows to learn structure from, and graphs to compare what is found with."""

import gzip
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

#: Where the networks of the bnlearn repository may lie beside the project.
NETWORKS = Path(__file__).parents[2] / "shared" / "bif"


def random_codes(rng, n_rows, sizes):
    """Draw rows in which each column leans on the one before."""
    columns = [rng.integers(0, sizes[0], n_rows)]
    for size in sizes[1:]:
        follows = (columns[-1] + rng.integers(0, 2, n_rows)) % size
        columns.append(np.where(rng.random(n_rows) < 0.6, follows, rng.integers(0, size, n_rows)))
    return np.column_stack(columns).astype(float)


def mixed_rows(rng, n_rows):
    """Two discrete columns, and two continuous ones that lean on them."""
    d = random_codes(rng, n_rows, [2, 3])
    x = rng.normal(d[:, 0], 1.0 + d[:, 1])
    y = 3.0 + x * (d[:, 1] - 1.0) + rng.normal(size=n_rows)
    return np.column_stack([d, x, y]), [2, 3, 0, 0]


def random_parents(rng, n_nodes, chance=0.5):
    """Draw a directed acyclic graph, as the parents of each node."""
    rank = rng.permutation(n_nodes)
    drawn = (rank[:, None] < rank) & (rng.random((n_nodes, n_nodes)) < chance)
    return [[int(u) for u in np.flatnonzero(above)] for above in drawn.T]


def all_dags(n_nodes):
    """List every directed acyclic graph, as a tuple of the parents of each node."""
    others = [[u for u in range(n_nodes) if u != v] for v in range(n_nodes)]
    choices = [
        [chosen for k in range(n_nodes) for chosen in itertools.combinations(rest, k)]
        for rest in others
    ]
    return [parents for parents in itertools.product(*choices) if is_acyclic(parents)]


def edges_of(parents):
    """Return a graph given by the parents of each node as an array (V, V)."""
    edges = np.zeros((len(parents), len(parents)), bool)
    for v, above in enumerate(parents):
        edges[list(above), v] = True
    return edges


def is_acyclic(parents):
    """Tell whether taking away the nodes without parents, again and again, leaves none."""
    left = set(range(len(parents)))
    while left:
        roots = {v for v in left if not left & set(parents[v])}
        if not roots:
            return False
        left -= roots
    return True


def sample_network(name, n_rows, seed):
    """Draw rows from a network of the bnlearn repository: (n, V) codes, names, states, edges."""
    path = NETWORKS / f"{name}.bif.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the project")
    text = gzip.decompress(path.read_bytes()).decode()
    states = {
        node: re.split(r"\s*,\s*", listed.strip())
        for node, listed in re.findall(r"variable (\S+) \{\s*type discrete \[.*?\] \{(.*?)\}", text)
    }
    tables = {}
    for head, body in re.findall(r"probability \((.*?)\) \{(.*?)\n\}", text, re.DOTALL):
        node, _, above = (part.strip() for part in head.partition("|"))
        parents = [part.strip() for part in above.split(",")] if above else []
        table = np.zeros([len(states[u]) for u in [*parents, node]])
        for given, listed in re.findall(r"(?:table|\(([^)]*)\)) ([^;]*);", body):
            place = [part.strip() for part in given.split(",")] if parents else []
            place = tuple(states[u].index(s) for u, s in zip(parents, place, strict=True))
            table[place] = [float(number) for number in listed.split(",")]
        tables[node] = parents, table
    rng = np.random.default_rng(seed)
    names = list(states)
    codes: dict[str, np.ndarray] = {}
    while len(codes) < len(names):
        for node, (parents, table) in tables.items():
            if node not in codes and all(u in codes for u in parents):
                rows = table[tuple(codes[u] for u in parents)] if parents else table
                rows = np.broadcast_to(rows, (n_rows, table.shape[-1]))
                codes[node] = (rng.random((n_rows, 1)) > rows.cumsum(axis=1)[:, :-1]).sum(axis=1)
    edges = {(u, node) for node, (parents, _) in tables.items() for u in parents}
    return np.column_stack([codes[node] for node in names]).astype(float), names, states, edges
