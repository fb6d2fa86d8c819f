"""Rows of a network completed: by what is expected, by joint draws, by weighted draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_gen.engines.random_source import NumPyRandom
from ppl_gen.structures.bayesian_network import Network
from ppl_gen.structures.network_conditionals import Tabular
from ppl_gen.structures.network_density import with_set_numbers

Array = Any
Parameters = dict[str, Any]


def fill(network: Network, draws: Sequence[Parameters], x: Array) -> Array:
    """Complete rows by conditional means and likeliest states, over draws: (n, V).

    Draws weigh by p(x | draw) of what is observed.
    """
    x = with_set_numbers(network, x)
    found = [network.evidence(draw, x) for draw in draws]
    log_weights = np.empty((len(draws), len(x)))
    for s, parts in enumerate(found):
        for rows, part in parts:
            log_weights[s, rows] = part.log_evidence
    weights = np.exp(log_weights - log_weights.max(axis=0))
    weights /= weights.sum(axis=0)
    filled = x.copy()
    missing = np.isnan(x)
    network.check(x, [int(v) for v in np.flatnonzero(missing.any(axis=0)) if network.sizes[v]])
    for v in network.discrete:
        if missing[:, v].any():
            shares = np.zeros((len(x), network.sizes[v]))
            for weight, parts in zip(weights, found, strict=True):
                for rows, part in parts:
                    shares[rows] += weight[rows, None] * part.marginal((v,))
            filled[:, v] = np.where(missing[:, v], shares.argmax(axis=1), x[:, v])
    for g, group in enumerate(network.groups):
        mean = np.zeros((len(x), len(group.nodes)))
        for weight, parts in zip(weights, found, strict=True):
            for rows, part in parts:
                if g in part.gaps:
                    mean[rows] += weight[rows, None] * part.expected_numbers(g)
        places = list(group.nodes)
        filled[:, places] = np.where(missing[:, places], mean, x[:, places])
    return filled


def draw_missing(
    network: Network, parameters: Parameters, x: Array, rng: np.random.Generator
) -> Array:
    """Complete rows by a draw from the joint conditional of what is missing: (n, V)."""
    x = with_set_numbers(network, x)
    completed = np.empty_like(x)
    for rows, part in network.evidence_by_part(parameters, x):
        completed[rows] = part.draw(rng)
    for conditional, below in network.below:
        # Nothing is known below a softmax whose numbers were missing: drawn from above.
        rows = np.flatnonzero(np.isnan(x[:, conditional.regressors]).any(axis=1))
        columns = [
            column.astype(np.int64) if size else column
            for column, size in zip(completed[rows].T, network.sizes, strict=True)
        ]
        for v in (v for v in network.order if v in below and len(rows)):
            own = parameters[str(v)]
            columns[v] = network.conditionals[v].sample(own, columns, NumPyRandom(rng))
            completed[rows, v] = columns[v]
    return completed


def weighted_draws(
    network: Network,
    parameters: Parameters,
    evidence: dict[int, float],
    likelihoods: dict[int, Array],
    n_rows: int,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Draw what has no evidence, and weigh by what has: codes (n, V), log weights (n,).

    Likelihood weighting (Fung & Chang, UAI 5, 1990; Shachter & Peot, the same), numbers
    included. The codes of numbers are zero.
    """
    random = NumPyRandom(rng)
    log_weights = np.zeros(n_rows)
    columns: list[Array] = [np.zeros(n_rows, dtype=np.int64)] * network.n_columns
    for v in network.order:
        conditional, own = network.conditionals[v], parameters[str(v)]
        if v not in evidence:
            columns[v] = conditional.sample(own, columns, random)
        else:
            kind = np.int64 if network.sizes[v] else np.float64
            columns[v] = np.full(n_rows, evidence[v], dtype=kind)
            log_weights += _log_conditional(network, v, own, columns)
        if v in likelihoods:
            with np.errstate(divide="ignore"):
                log_weights += np.log(likelihoods[v])[columns[v]]
    codes = [c if network.sizes[v] else np.zeros_like(c) for v, c in enumerate(columns)]
    return np.stack(codes, axis=1).astype(np.int64), log_weights


def _log_conditional(network: Network, v: int, own: Parameters, columns: list[Array]) -> Array:
    """Log density of a node of complete rows: (n,)."""
    conditional = network.conditionals[v]
    x = np.stack(columns, axis=1).astype(np.float64) if conditional.numbers else columns[0]
    table = conditional.log_table(own, x)
    codes = [columns[u] for u in conditional.scope]
    rows = () if isinstance(conditional, Tabular) else (np.arange(len(columns[0])),)
    chosen: Array = table[(*rows, *codes)]
    return chosen
