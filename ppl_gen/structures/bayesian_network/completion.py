"""Rows of a network completed: by what is expected, by joint draws, by weighted draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_gen.algorithms.row_chunks import map_rows
from ppl_gen.engines.random_source import NumPyRandom
from ppl_gen.structures.bayesian_network.conditionals import Tabular
from ppl_gen.structures.bayesian_network.density import with_set_numbers
from ppl_gen.structures.bayesian_network.network import Network

Array = Any
Parameters = dict[str, Any]


def fill(network: Network, draws: Sequence[Parameters], x: Array) -> Array:
    """Complete rows by conditional means and likeliest states, over draws: (n, V).

    Draws weigh by p(x | draw) of what is observed.

    Raises
    ------
    ValueError
        If what a row shows has probability zero under all draws.
    """
    x = with_set_numbers(network, x)
    missing = np.isnan(x)
    network.check(x, [int(v) for v in np.flatnonzero(missing.any(axis=0)) if network.sizes[v]])
    filled, possible = x.copy(), np.empty(len(x), dtype=bool)

    def chunk(rows: slice) -> None:
        filled[rows], possible[rows] = _filled(network, draws, x[rows])

    map_rows(chunk, len(x))
    _refuse_impossible(possible)
    return filled


def _filled(network: Network, draws: Sequence[Parameters], x: Array) -> tuple[Array, Array]:
    """Complete a few rows, and tell which of them are possible: sums over draws as they go."""
    filled, missing = x.copy(), np.isnan(x)
    nodes = [v for v in network.discrete if missing[:, v].any()]
    groups = [g for g, own in enumerate(network.groups) if missing[:, own.nodes].any()]
    shares = [np.zeros((len(x), network.sizes[v])) for v in nodes]
    means = [np.zeros((len(x), len(network.groups[g].nodes))) for g in groups]
    total, top = np.zeros(len(x)), np.full(len(x), -np.inf)  # of the weights, over exp(top)
    for draw in draws:
        for rows, part in network.evidence_by_part(draw, x):
            possible = np.isfinite(part.log_evidence)
            rows = rows[possible]
            evidence = part.log_evidence[possible]
            higher = np.maximum(top[rows], evidence)
            kept, weight = np.exp(top[rows] - higher), np.exp(evidence - higher)
            top[rows], total[rows] = higher, total[rows] * kept + weight
            sums = list(zip(shares, part.marginals(nodes), strict=True))
            inside = [(k, g) for k, g in enumerate(groups) if g in part.gaps]
            sums += [(means[k], part.expected_numbers(g)) for k, g in inside]
            for summed, own in sums:
                summed[rows] = summed[rows] * kept[:, None] + own[possible] * weight[:, None]
    for v, own in zip(nodes, shares, strict=True):
        filled[:, v] = np.where(missing[:, v], own.argmax(axis=1), x[:, v])
    some = total > 0.0
    for g, own in zip(groups, means, strict=True):
        places = list(network.groups[g].nodes)
        mean = own / np.where(some, total, 1.0)[:, None]
        filled[:, places] = np.where(missing[:, places], mean, x[:, places])
    return filled, some


def _refuse_impossible(possible: Array) -> None:
    if not possible.all():
        raise ValueError(
            f"BayesianNetwork.impute: row {int(np.argmin(possible))} has probability zero under "
            "the network; check it, or give the tables a prior (prior='bdeu')"
        )


def draw_missing(
    network: Network, parameters: Parameters, x: Array, rng: np.random.Generator
) -> Array:
    """Complete rows by a draw from the joint conditional of what is missing: (n, V).

    Raises
    ------
    ValueError
        If what a row shows has probability zero.
    """
    x = with_set_numbers(network, x)
    completed = np.empty_like(x)
    for rows, part in network.evidence_by_part(parameters, x):
        possible = np.ones(len(x), dtype=bool)
        possible[rows] = np.isfinite(part.log_evidence)
        _refuse_impossible(possible)
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
