"""What a matrix of transition probabilities says of its chain, state by state.

Everything here takes a (K, K) matrix whose rows sum to one, row i being the distribution of the
state after state i, and knows nothing of where it is from.
"""

from typing import Any

import networkx as nx
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Array = Any


def check_stochastic(transition: Array, who: str) -> Array:
    """Return a transition matrix as floats.

    Raises
    ------
    ValueError
        If it is not square, has an entry below zero, or a row that does not sum to one.
    """
    matrix = np.asarray(transition, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(
            f"{who}: the transition matrix has shape {matrix.shape}; expected (K, K), a row a state"
        )
    totals = matrix.sum(axis=1)
    wrong = np.flatnonzero(~(np.abs(totals - 1.0) < 1e-8) | (matrix < 0.0).any(axis=1))
    if len(wrong):
        raise ValueError(
            f"{who}: row {wrong[0]} of the transition matrix sums to {totals[wrong[0]]:.6g} with "
            f"least entry {matrix[wrong[0]].min():.6g}; expected probabilities that sum to one"
        )
    return matrix


def recurrent_classes(transition: Array) -> list[Array]:
    """Closed communicating classes: sets of states that, once entered, are never left.

    Parameters
    ----------
    transition : (K, K)

    Returns
    -------
    list of integer arrays
        Numbers of the states of each class, by their first state; the other states are transient.

    Examples
    --------
    >>> recurrent_classes([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    [array([1]), array([2])]
    """
    matrix = np.asarray(transition, dtype=np.float64)
    edges = csr_array((matrix > 0.0).astype(np.float64))
    _, labels = connected_components(edges, directed=True, connection="strong")
    source, target = edges.nonzero()
    leaving = np.unique(labels[source][labels[source] != labels[target]])
    closed = np.setdiff1d(labels, leaving)
    return sorted((np.flatnonzero(labels == label) for label in closed), key=lambda c: int(c[0]))


def stationary_distribution(transition: Array) -> Array:
    """Stationary distribution of a chain with one recurrent class.

    Parameters
    ----------
    transition : (K, K)

    Returns
    -------
    (K,) array
        The one `pi` with ``pi @ transition == pi``; zero for transient states. If the chain is
        periodic it is the share of time spent in each state, and no limit of n-step forecasts.

    Raises
    ------
    ValueError
        If there are several recurrent classes: then every mixture of their distributions is
        stationary.

    Notes
    -----
    The elimination of Grassmann, Taksar & Heyman, Operations Research 33 (1985), which subtracts
    nothing, so that small probabilities keep their digits.

    Examples
    --------
    >>> stationary_distribution([[0.9, 0.1], [0.5, 0.5]]).round(4)
    array([0.8333, 0.1667])
    """
    matrix = check_stochastic(transition, "stationary_distribution")
    classes = recurrent_classes(matrix)
    if len(classes) > 1:
        raise ValueError(
            f"stationary_distribution: the chain has {len(classes)} recurrent classes, "
            f"{', '.join(str(c.tolist()) for c in classes[:5])}, so that no stationary "
            "distribution is the only one; ask for absorption_probabilities, or join them by "
            "prior counts"
        )
    states = classes[0]
    a = matrix[np.ix_(states, states)].copy()
    for n in range(len(states) - 1, 0, -1):
        # Watch the chain only while it is in the first n states.
        a[:n, n] /= a[n, :n].sum()
        a[:n, :n] += np.outer(a[:n, n], a[n, :n])
    weights = np.ones(len(states))
    for n in range(1, len(states)):
        weights[n] = weights[:n] @ a[:n, n]
    found = np.zeros(len(matrix))
    found[states] = weights / weights.sum()
    return found


def hitting_times(transition: Array, targets: Array) -> Array:
    """Expected number of steps until a chain is first in one of some states.

    Parameters
    ----------
    transition : (K, K)
    targets : integers
        Numbers of the states to hit.

    Returns
    -------
    (K,) array
        From each state: 0 in the targets, and infinity where the chain may miss them for ever.

    Notes
    -----
    The least solution of ``h = 1 + P h`` outside of the targets: Norris, Markov Chains (1997),
    theorem 1.3.5.

    Examples
    --------
    >>> hitting_times([[0.5, 0.5], [0.0, 1.0]], [1])
    array([2., 0.])
    """
    matrix = check_stochastic(transition, "hitting_times")
    is_target = np.zeros(len(matrix), dtype=bool)
    is_target[np.asarray(targets)] = True
    stopped = np.where(is_target[:, None], np.eye(len(matrix)), matrix)  # it stays where it hits
    missing = ~reaches(stopped, is_target)
    times = np.where(reaches(stopped, missing), np.inf, 0.0)
    inner = np.flatnonzero(~is_target & np.isfinite(times))
    system = np.eye(len(inner)) - matrix[np.ix_(inner, inner)]
    times[inner] = np.linalg.solve(system, np.ones(len(inner)))
    return times


def reaches(transition: Array, wanted: Array) -> Array:
    """Tell from which states a chain can come to one of the (K,) states that are wanted."""
    back = (np.asarray(transition) > 0.0).T.astype(np.float64)
    found = np.array(wanted, dtype=bool)
    fresh = found
    while fresh.any():
        fresh = ((back.T @ fresh) > 0.0) & ~found
        found = found | fresh
    return found


def absorption_probabilities(transition: Array) -> Array:
    """Probability of ending in each recurrent class.

    Parameters
    ----------
    transition : (K, K)

    Returns
    -------
    (K, C) array
        From each state, into the classes as :func:`recurrent_classes` lists them. Rows sum to one.

    Notes
    -----
    ``(I - Q) B = R`` for the transient states: Kemeny & Snell, Finite Markov Chains (1960),
    theorem 3.3.7.

    Examples
    --------
    >>> absorption_probabilities([[1.0, 0.0, 0.0], [0.25, 0.5, 0.25], [0.0, 0.0, 1.0]])
    array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]])
    """
    matrix = check_stochastic(transition, "absorption_probabilities")
    classes = recurrent_classes(matrix)
    found = np.zeros((len(matrix), len(classes)))
    for place, states in enumerate(classes):
        found[states, place] = 1.0
    transient = np.flatnonzero(found.sum(axis=1) == 0.0)
    system = np.eye(len(transient)) - matrix[np.ix_(transient, transient)]
    found[transient] = np.linalg.solve(system, matrix[transient] @ found)
    return found


def period(transition: Array) -> int:
    """Greatest common divisor of the lengths of all cycles of an irreducible chain.

    Parameters
    ----------
    transition : (K, K)

    Raises
    ------
    ValueError
        If the chain is reducible: its classes may have different periods.

    Notes
    -----
    Denardo, Networks and Flows in Discrete Systems (1977): with the distances from any state, the
    divisor of ``distance[i] + 1 - distance[j]`` over all edges.

    Examples
    --------
    >>> period([[0.0, 1.0], [1.0, 0.0]])
    2
    """
    matrix = check_stochastic(transition, "period")
    if not is_irreducible(matrix):
        raise ValueError(
            "period: the chain is reducible, and its classes may have periods of their own; "
            "expected every state to be reached from every other"
        )
    graph = nx.from_numpy_array(matrix, create_using=nx.DiGraph)
    distance = nx.single_source_shortest_path_length(graph, 0)
    return int(np.gcd.reduce([distance[i] + 1 - distance[j] for i, j in graph.edges]))


def is_irreducible(transition: Array) -> bool:
    """Tell whether every state is reached from every other.

    Examples
    --------
    >>> is_irreducible([[0.0, 1.0], [1.0, 0.0]]), is_irreducible([[1.0, 0.0], [0.5, 0.5]])
    (True, False)
    """
    edges = csr_array((np.asarray(transition) > 0.0).astype(np.float64))
    return bool(connected_components(edges, directed=True, connection="strong")[0] == 1)
