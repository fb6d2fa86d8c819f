"""Where EM for hidden Markov chains may start from: ways to share the rows among states."""

from typing import Any

import numpy as np

from ppl_gen.algorithms.kmeans import kmeans, nearest
from ppl_gen.families import Bernoulli, Categorical, Family, Multinomial, Parameters
from ppl_gen.sequences import Sequences
from ppl_gen.structures.latent_class import class_means

Array = Any

#: Steps of EM by which starts are compared, and rows that they look at.
TRIAL_STEPS, TRIAL_ROWS = 6, 20_000
#: Rows to either side that tell of the state of a row, at most.
SURROUNDING_ROWS = 10


def hot_of(labels: Array, n_states: int) -> Array:
    """0/1 of states, all zero for -1: (n, K)."""
    return (labels[:, None] == np.arange(n_states)).astype(np.float64)


def shared_rows(
    family: Family,
    n_states: int,
    sequences: Sequences,
    rng: np.random.Generator,
    how: str,
    *,
    ordered: bool,
) -> list[tuple[Array, Array]]:
    """Share the rows among states, in several ways; known states stay, and leave one way.

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
    list of (shares, moves)
        Shares (N, K) of each row, times its weight, and expected counts of transitions (K, K).
    """
    labels, weights = sequences.labels, sequences.row_weights
    features = family.features(sequences.values)
    if labels is not None:
        # Clusters have no names: rows go to the state whose labelled rows they are near.
        near = nearest(features, class_means(features, hot_of(labels, n_states)))
        return [_hard(np.where(labels >= 0, labels, near), n_states, sequences)]
    anywhere = nearest(features, features[rng.choice(len(features), n_states)])
    found = [anywhere]
    if how == "kmeans":
        found = [kmeans(features, n_states, rng, weights), anywhere]
        # States may differ in their spread, or in little that one row tells.
        found.append(kmeans(_surroundings(features, sequences), n_states, rng, weights))
    if ordered:
        found = [_in_order_of_time(each, n_states, sequences) for each in found]
        if how == "kmeans":
            found.append((_when(sequences) * n_states).astype(np.intp))
    codes = isinstance(family, Bernoulli | Categorical | Multinomial)
    # Clusters of codes share no codes, and EM never leaves a probability of zero.
    ways = [] if codes else [_hard(each, n_states, sequences) for each in found]
    if codes or how == "kmeans":
        ways += [_soft(each, n_states, sequences) for each in found]
    return ways


def _hard(labels: Array, n_states: int, sequences: Sequences) -> tuple[Array, Array]:
    """Rows are in one state each."""
    hot = hot_of(labels, n_states)
    weights = sequences.row_weights
    shares = hot if weights is None else hot * weights[:, None]
    return shares, _moves(shares, hot, sequences)


def _soft(labels: Array, n_states: int, sequences: Sequences) -> tuple[Array, Array]:
    """Rows are half in one state, and half in all: states have something in common to begin with.

    States that do not last either differ in little: a saddle, which EM leaves slowly.
    """
    shares, moves = _hard(labels, n_states, sequences)
    total = shares.sum(axis=1, keepdims=True)
    shares = 0.5 * shares + 0.5 * total / n_states
    return shares, 0.5 * moves + np.diag(moves.sum(axis=1))


def _moves(shares: Array, hot: Array, sequences: Sequences) -> Array:
    goes_on = np.ones(len(hot) - 1, dtype=bool)
    goes_on[sequences.ends[:-1] - 1] = False
    moves: Array = shares[:-1][goes_on].T @ hot[1:][goes_on]
    return moves


def _surroundings(features: Array, sequences: Sequences) -> Array:
    """Mean and log spread of the features about each row, standardised: (N, 2 F)."""
    reach = max(2, min(SURROUNDING_ROWS, int(sequences.lengths.max()) // 10))
    ends = np.repeat(sequences.ends, sequences.lengths)
    starts = ends - np.repeat(sequences.lengths, sequences.lengths)
    rows = np.arange(len(features))
    low, high = np.maximum(rows - reach, starts), np.minimum(rows + reach + 1, ends)
    count = (high - low)[:, None]

    def about(values: Array) -> Array:
        sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
        means: Array = (sums[high] - sums[low]) / count
        return means

    mean = about(features)
    spread = np.log(about(np.abs(features - mean)) + 1e-6)
    found = np.concatenate([mean, spread], axis=1)
    found -= found.mean(axis=0)
    scale = found.std(axis=0)
    return found / np.where(scale > 0.0, scale, 1.0)


def _when(sequences: Sequences) -> Array:
    """Share of its sequence that is over before each row: (N,)."""
    lengths = np.repeat(sequences.lengths, sequences.lengths)
    first = np.repeat(sequences.ends - sequences.lengths, sequences.lengths)
    return (np.arange(len(lengths)) - first) / lengths


def _in_order_of_time(labels: Array, n_states: int, sequences: Sequences) -> Array:
    """Number clusters by when they come, as a chain that goes forward has its states."""
    when = _when(sequences)
    count = np.maximum(np.bincount(labels, minlength=n_states), 1)
    order = np.argsort(np.bincount(labels, when, n_states) / count)
    return np.argsort(order)[labels]


def best_start(structure: Any, starts: list[Parameters], sequences: Sequences) -> Parameters:
    """Return where the best of several starts has led after a few steps of EM.

    They look at the first rows alone, if there are many.
    """
    if len(starts) == 1:
        return starts[0]
    some, tried = sequences.head(TRIAL_ROWS), []
    for start in starts:
        parameters, objective = start, -np.inf
        try:
            for _ in range(TRIAL_STEPS):
                statistics, log_likelihood = structure.e_step(parameters, some)
                objective = float(log_likelihood) - structure.penalty(parameters, statistics)
                last, parameters = parameters, structure.m_step(statistics)
        except ValueError:  # a state has collapsed
            continue
        if np.isfinite(objective):
            tried.append((objective, last))
    return max(tried, key=lambda found: found[0])[1] if tried else starts[0]
