"""Random discrete Bayesian networks, and their joint tables by brute force."""

import numpy as np
import pandas as pd


def random_network(rng, n_nodes, sizes=(2, 4), max_parents=3, zeros=False):
    """Draw parents, sizes and tables of a network whose nodes are numbered in no special order.

    Parameters
    ----------
    rng : numpy.random.Generator
    n_nodes : int
    sizes : tuple of int
        Fewest and most states of a node.
    max_parents : int
    zeros : bool
        Whether a third of the tables' entries are zero; every row keeps one that is not.

    Returns
    -------
    parents : list of tuple of int
        Of each node, in the order of its table's axes.
    sizes : list of int
    tables : list of ndarray (*parent sizes, size)
        The last axis sums to one.
    """
    rank = rng.permutation(n_nodes)  # parents come before their children in this order
    states = [int(size) for size in rng.integers(sizes[0], sizes[1] + 1, n_nodes)]
    parents, tables = [], []
    for v in range(n_nodes):
        earlier = np.flatnonzero(rank < rank[v])
        count = int(rng.integers(0, min(max_parents, len(earlier)) + 1))
        chosen = tuple(int(p) for p in rng.choice(earlier, count, replace=False))
        table = rng.gamma(0.7, size=(*(states[p] for p in chosen), states[v])) + 1e-3
        if zeros:
            kept = rng.integers(0, states[v], table.shape[:-1])
            table[(rng.random(table.shape) < 1 / 3) & (np.arange(states[v]) != kept[..., None])] = 0
        parents.append(chosen)
        tables.append(table / table.sum(axis=-1, keepdims=True))
    return parents, states, tables


def cpd_scopes(parents):
    """Return the scope of every node's table: its parents, then itself."""
    return [(*chosen, v) for v, chosen in enumerate(parents)]


def brute_force_product(scopes, sizes, tables):
    """Return the product of unbatched factors as one array with an axis for every variable."""
    product = np.ones(sizes)
    for scope, table in zip(scopes, tables, strict=True):
        axes = np.argsort(np.array(scope, dtype=int))
        shape = [sizes[v] if v in scope else 1 for v in range(len(sizes))]
        product = product * np.transpose(table, axes).reshape(shape)
    return product


def brute_force_joint(parents, sizes, tables):
    """Return p(x_0, ..., x_{V-1}) of a network as an array with V axes."""
    return brute_force_product(cpd_scopes(parents), sizes, tables)


def grid(side):
    """Return the pairs of neighbours in a square of variables, numbered row by row."""
    number = np.arange(side * side).reshape(side, side)
    pairs = [*zip(number[:, :-1].ravel(), number[:, 1:].ravel(), strict=True)]
    pairs += zip(number[:-1].ravel(), number[1:].ravel(), strict=True)
    return [(int(a), int(b)) for a, b in pairs]


def with_gaps(frame, share, seed):
    """Return a frame of which a share of the cells is missing, whatever is in them."""
    rng = np.random.default_rng(seed)
    return frame.mask(pd.DataFrame(rng.random(frame.shape) < share, columns=frame.columns))


def tables_of(model, order=("no", "yes")):
    """Tables of a network whose states may be in another order, by node."""
    tables = {}
    for node, cpd in model.cpds_.items():
        table = cpd.values
        for axis, name in enumerate((*cpd.parents, node)):
            states = [str(state) for state in cpd.states[name]]
            names = {"False": "no", "True": "yes", "0": "no", "1": "yes", "0.0": "no", "1.0": "yes"}
            states = [names.get(state, state) for state in states]
            table = np.take(table, [states.index(state) for state in order], axis=axis)
        tables[node] = table
    return tables
