"""Distributions of the next symbol from counts of n-grams, each backing off to a shorter context.

All have one form, from the shortest context c_0 = () to the longest,

    p(v | c_j) = seen_j(c_j v) + backoff_j(c_j) p(v | c_{j-1}),

with ``seen`` at the grams that occur only, so that nothing is as large as all contexts times all
symbols. p(v | c_-1) is the base distribution, and a context that did not occur is skipped.

References
----------
Chen & Goodman (1999), An empirical study of smoothing techniques for language modeling, Computer
Speech and Language 13, 359-394.
"""

from typing import Any

import numpy as np

from ppl_gen.algorithms.ngrams import NGramIndex

Array = Any
#: ``seen`` and ``backoff`` by level.
Backoff = tuple[dict[str, Array], dict[str, Array]]

#: Discount where too few grams occur once and twice to estimate one.
DISCOUNT = 0.5
#: EM for the weights of Jelinek-Mercer stops when a step gains less than this a symbol, in nats.
WEIGHT_TOLERANCE = 1e-5
WEIGHT_STEPS = 100
#: Grams that the weights are learned from, evenly spread: some tens of numbers need no more.
WEIGHT_CELLS = 100_000


def probabilities(
    seen: dict[str, Array],
    backoff: dict[str, Array],
    base: Array,
    symbols: Array,
    contexts: dict[str, Array],
    cells: dict[str, Array],
) -> Array:
    """Probability of symbols after their contexts: (N,).

    Parameters
    ----------
    seen, backoff : dict of level to (cells,) and (contexts,) arrays
        In rising order of level.
    base : (K,)
    symbols : (N,)
    contexts, cells : dict of level to (N,) integer arrays
        From :meth:`NGramIndex.locate`.
    """
    found = base[symbols]
    for level, weight in backoff.items():
        context, cell = contexts[level], cells[level]
        found = np.where(context >= 0, weight[context] * found, found)
        found += np.where(cell >= 0, seen[level][cell], 0.0)
    return found


def distributions(
    seen: dict[str, Array],
    backoff: dict[str, Array],
    base: Array,
    index: NGramIndex,
    contexts: dict[str, Array],
) -> Array:
    """Distributions of the next symbol after contexts: (M, K).

    Parameters
    ----------
    seen, backoff, base
        See :func:`probabilities`.
    index : NGramIndex
    contexts : dict of level to (M,) integer arrays
    """
    n_contexts = len(next(iter(contexts.values())))
    # One more column takes what stands for the mark before a sequence, which has no mass.
    found = np.zeros((n_contexts, index.n_symbols + 1))
    found[:, :-1] = base
    for level, weight in backoff.items():
        context, keys = contexts[level], index.keys[int(level)]
        known = np.flatnonzero(context >= 0)
        found[known] *= weight[context[known], None]
        lowest = context[known] * (index.n_symbols + 1)
        first = np.searchsorted(keys, lowest)
        sizes = np.searchsorted(keys, lowest + index.n_symbols + 1) - first
        rows = np.repeat(known, sizes)
        cells = np.arange(sizes.sum()) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
        # Each symbol is once after a context, so that no place is added to twice.
        found[rows, keys[cells] % (index.n_symbols + 1)] += seen[level][cells]
    return found[:, :-1]


def dirichlet(index: NGramIndex, counts: Array, pseudocount: Array) -> Backoff:
    """Posterior mode of each longest context's distribution under Dirichlet(1 + pseudocount).

    ``(n(c v) + a_v) / (n(c) + sum(a))``: Laplace's rule for a = 1, Lidstone's for others, maximum
    likelihood for 0. A context without any count has the base distribution.

    Parameters
    ----------
    index : NGramIndex
    counts : (cells,)
    pseudocount : (K,)
    """
    level = index.order
    total = index.context_sums(level, counts) + pseudocount.sum()
    safe = np.where(total > 0.0, total, 1.0)
    return {str(level): counts / safe[index.prefix(level)]}, {
        str(level): np.where(total > 0.0, pseudocount.sum() / safe, 1.0)
    }


def jelinek_mercer(index: NGramIndex, counts: Array) -> Backoff:
    """Linear interpolation of the relative frequencies of all levels.

    The weight of a context depends on how often it was seen, in powers of two. The weights
    maximise the likelihood of every symbol under counts that leave it out (deleted interpolation),
    by EM.

    Parameters
    ----------
    index : NGramIndex
    counts : (cells,) whole numbers

    Notes
    -----
    Jelinek & Mercer, Interpolated estimation of Markov source parameters from sparse data (1980);
    Chen & Goodman (1999), section 2.3.
    """
    by_level = index.lower_counts(counts)
    totals = [index.context_sums(level, n) for level, n in enumerate(by_level)]
    weights = _interpolation_weights(index, by_level, totals)
    seen, backoff = {}, {}
    for level, (n, total) in enumerate(zip(by_level, totals, strict=True)):
        # However sure the frequencies are, one symbol more may be one that was not seen.
        share = np.minimum(weights[level][_bucket(total)], total / (total + 1.0))
        scale = share / np.where(total > 0.0, total, 1.0)
        seen[str(level)] = n * scale[index.prefix(level)]
        backoff[str(level)] = 1.0 - share
    return seen, backoff


def _bucket(totals: Array) -> Array:
    """Power of two up to each count; 0 for counts below two."""
    return np.log2(np.maximum(totals, 1.0)).astype(np.intp)


def _interpolation_weights(
    index: NGramIndex, by_level: list[Array], totals: list[Array]
) -> list[Array]:
    """Weights of each level by bucket of the count of the context."""
    cell = np.flatnonzero(by_level[-1] > 0.0)
    cell = cell[:: -(-len(cell) // WEIGHT_CELLS)]
    times = by_level[-1][cell]
    frequencies: list[Array] = []
    buckets: list[Array] = []
    for level in range(index.order, -1, -1):
        others = totals[level][index.prefix(level)[cell]] - 1.0
        known = others > 0.0
        left = np.where(known, by_level[level][cell] - 1.0, 0.0)
        frequencies.insert(0, left / np.where(known, others, 1.0))
        buckets.insert(0, np.where(known, _bucket(others), -1))
        if level:
            cell = index.suffix[level - 1][cell]
    size = int(_bucket(totals[0])[0]) + 1
    weights = [np.full(size, 0.5) for _ in by_level]
    before = -np.inf
    for _ in range(WEIGHT_STEPS):
        weights, after = _weight_step(weights, frequencies, buckets, times, index.n_symbols)
        if after - before < WEIGHT_TOLERANCE * times.sum():
            break
        before = after
    return weights


def _weight_step(
    weights: list[Array],
    frequencies: list[Array],
    buckets: list[Array],
    times: Array,
    n_symbols: int,
) -> tuple[list[Array], float]:
    """One step of EM over the level that each symbol is drawn at, from the longest down."""
    remaining = np.ones_like(times)
    stops: list[Array] = []
    for level in range(len(weights) - 1, -1, -1):
        # A context seen nowhere else is no level to stop at.
        share = np.where(buckets[level] >= 0, weights[level][buckets[level]], 0.0)
        stops.insert(0, remaining * share * frequencies[level])
        remaining = remaining * (1.0 - share)
    total = sum(stops) + remaining / n_symbols
    updated: list[Array] = []
    passed = times.copy()  # chance of coming down to a level, times counts
    for level in range(len(weights) - 1, -1, -1):
        known = buckets[level] >= 0
        stop = np.where(known, times * stops[level] / total, 0.0)
        size = len(weights[level])
        came = np.bincount(buckets[level][known], passed[known], minlength=size)
        stopped = np.bincount(buckets[level][known], stop[known], minlength=size)
        fitted = np.where(came > 0.0, stopped / np.where(came > 0.0, came, 1.0), np.nan)
        updated.insert(0, _filled(fitted))
        passed = passed - stop
    return updated, float(times @ np.log(total))


def _filled(weights: Array) -> Array:
    """Give a bucket that no context is in the weight of the nearest smaller counts'."""
    known = np.flatnonzero(~np.isnan(weights))
    if not len(known):
        return np.full_like(weights, 0.0)
    nearest = np.maximum(np.searchsorted(known, np.arange(len(weights)), side="right") - 1, 0)
    return np.asarray(weights[known[nearest]])


def kneser_ney(index: NGramIndex, counts: Array) -> Backoff:
    """Interpolated Kneser-Ney: absolute discounts, and lower levels that count contexts.

    A shorter context's gram counts as often as there are different symbols before it, not as
    often as it occurs; those at the start of a sequence, which have nothing before them, count as
    often as they occur. The discount of a level is ``n_1 / (n_1 + 2 n_2)``, where n_r grams count
    r times.

    Parameters
    ----------
    index : NGramIndex
    counts : (cells,) whole numbers

    Notes
    -----
    Kneser & Ney, Improved backing-off for m-gram language modeling, ICASSP (1995); Chen & Goodman
    (1999), sections 2.6 (the discount) and 2.7.
    """
    by_level = index.lower_counts(counts)
    seen, backoff = {}, {}
    for level, raw in enumerate(by_level):
        n = raw
        if level < index.order:
            longer = (by_level[level + 1] > 0.0).astype(np.float64)
            kinds = np.bincount(index.suffix[level], longer, minlength=len(raw))
            n = np.where(index.begins[level], raw, kinds)
        once, twice = (n == 1.0).sum(), (n == 2.0).sum()
        discount = once / (once + 2.0 * twice) if once and twice else DISCOUNT
        total = index.context_sums(level, n)
        safe = np.where(total > 0.0, total, 1.0)
        seen[str(level)] = np.maximum(n - discount, 0.0) / safe[index.prefix(level)]
        left = discount * index.context_sums(level, (n > 0.0).astype(np.float64)) / safe
        backoff[str(level)] = np.where(total > 0.0, left, 1.0)
    return seen, backoff


#: Name -> method, where contexts are smoothed by shorter ones.
SMOOTHING = {"jelinek-mercer": jelinek_mercer, "kneser-ney": kneser_ney}
