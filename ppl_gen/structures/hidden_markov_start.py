"""Where EM for hidden Markov chains starts from: clusters of the rows."""

from typing import Any

import numpy as np

from ppl_gen.algorithms.kmeans import kmeans, nearest
from ppl_gen.families import Bernoulli, Categorical, Family, Multinomial
from ppl_gen.sequences import Sequences
from ppl_gen.structures.latent_class import class_means

Array = Any


def hot_of(labels: Array, n_states: int) -> Array:
    """0/1 of states, all zero for -1: (n, K)."""
    return (labels[:, None] == np.arange(n_states)).astype(np.float64)


def clusters(
    family: Family,
    n_states: int,
    sequences: Sequences,
    rng: np.random.Generator,
    how: str,
    ordered: bool,
) -> tuple[Array, Array]:
    """Share the rows among states; known states stay.

    Parameters
    ----------
    family : Family
        Bound to the rows.
    n_states : int
    sequences : Sequences
    rng : numpy.random.Generator
    how : {"kmeans", "random"}
    ordered : bool
        Number the states by when they come, for chains whose transitions are not all allowed.

    Returns
    -------
    shares : (N, K)
        Of each row, times its weight.
    moves : (K, K)
        Expected counts of transitions.
    """
    rows, labels, weights = sequences.values, sequences.labels, sequences.row_weights
    features = family.features(rows)
    if labels is not None:
        # Clusters have no names: rows go to the state whose labelled rows they are near.
        found = nearest(features, class_means(features, hot_of(labels, n_states)))
        found = np.where(labels >= 0, labels, found)
    elif how == "random":
        found = nearest(features, features[rng.choice(len(rows), n_states)])
    else:
        found = kmeans(features, n_states, rng, weights)
    if ordered and labels is None:
        found = _in_order_of_time(found, n_states, sequences)
    hot = hot_of(found, n_states)
    after = hot_of(found[1:], n_states)
    codes = labels is None and isinstance(family, Bernoulli | Categorical | Multinomial)
    if codes:
        # Clusters of codes share no codes, and EM never leaves a probability of zero: start half
        # way to what all states have in common.
        hot = 0.5 * hot + 0.5 / n_states
    if weights is not None:
        hot *= weights[:, None]
    goes_on = np.ones(len(rows) - 1, dtype=bool)
    goes_on[sequences.ends[:-1] - 1] = False
    moves = hot[:-1][goes_on].T @ after[goes_on]
    # States of codes that do not last either differ in nothing: a saddle, which EM leaves slowly.
    return hot, moves + np.diag(moves.sum(axis=1)) if codes else moves


def _in_order_of_time(labels: Array, n_states: int, sequences: Sequences) -> Array:
    """Number clusters by when they come, as a chain that goes forward has its states."""
    first = np.repeat(sequences.ends - sequences.lengths, sequences.lengths)
    when = (np.arange(len(labels)) - first) / np.repeat(sequences.lengths, sequences.lengths)
    count = np.maximum(np.bincount(labels, minlength=n_states), 1)
    order = np.argsort(np.bincount(labels, when, n_states) / count)
    return np.argsort(order)[labels]
