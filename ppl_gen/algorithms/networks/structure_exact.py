"""The graph of greatest score of all, by dynamic programming over sets of nodes.

A set of nodes is a bit mask. Some node of a best graph on a set W has no child in W; the others
have a best graph of their own, and this node the best parents among them, so that (Silander &
Myllymäki 2006)

    best(W) = max over v in W of best(W - v) + max over S within W - v of local(v, S).

The local scores come from one number a set wherever the score is a difference of a term for the
family and one for the parents: 2^V tables of counts (or determinants) instead of V 2^(V-1).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from ppl_gen.algorithms.networks.structure_scores import LocalScores, relabel
from ppl_gen.algorithms.networks.structure_search import Constraints, Found, parents_of

__all__ = ["MOST_BYTES", "MOST_TABLES", "exact_cost", "exact_search"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Tick = Callable[[int], Any]

#: Bounds on what a search may take: 22 nodes, and 20 if the number of parents has no limit.
MOST_BYTES = 2**29
MOST_TABLES = 2**20
#: Determinants to take at once.
BATCH = 4096
#: Beyond so many counts, most are equal to others, and a score is asked about each value once.
FEW = 200


def exact_cost(scores: LocalScores, max_parents: int) -> tuple[int, int]:
    """Return the bytes of the best local scores, and the number of tables to count for them.

    Examples
    --------
    >>> from ppl_gen.algorithms.networks.structure_scores import BIC
    >>> exact_cost(LocalScores(np.zeros((1, 18)), [2] * 18, BIC()), max_parents=17)
    (18874368, 262144)
    """
    n = scores.n_nodes
    if _is_mixed(scores):
        tables = n * sum(math.comb(n - 1, k) for k in range(max_parents + 1))
    else:
        tables = sum(math.comb(n, k) for k in range(max_parents + 2))
    return 8 * n * 2 ** (n - 1), tables


def exact_search(scores: LocalScores, limits: Constraints, *, progress: bool = True) -> Found:
    """Find a graph of greatest score within the limits.

    Parameters
    ----------
    scores : LocalScores
    limits : Constraints
        There must be a graph that keeps them.
    progress : bool
        Whether a bar shows how many tables are counted.

    Returns
    -------
    Found
        Of several parents' sets of one score, each node has a smallest.

    Raises
    ------
    ValueError
        If it would take more than :data:`MOST_BYTES` or :data:`MOST_TABLES`.

    References
    ----------
    Silander & Myllymäki (2006), A simple approach for finding the globally optimal Bayesian network
    structure, Uncertainty in Artificial Intelligence 22, 445-452.
    """
    size, tables = exact_cost(scores, limits.max_parents)
    if size > MOST_BYTES or tables > MOST_TABLES:
        raise ValueError(
            f"{scores.who}: {scores.n_nodes} nodes with up to {limits.max_parents} parents need "
            f"{size / 2**20:,.0f} MiB and {tables:,} tables; the bounds are "
            f"{MOST_BYTES / 2**20:,.0f} MiB and {MOST_TABLES:,}; set max_parents lower, leave "
            "columns out, or search by hill climbing"
        )
    with tqdm(total=tables, desc="tables", delay=1.0, disable=not progress) as bar:
        best_parents = _local_scores(scores, limits, bar.update)
    n = scores.n_nodes
    for local in best_parents:  # the greatest over all subsets, one element at a time
        for u in range(n - 1):
            halves = local.reshape(-1, 2, 1 << u)
            np.maximum(halves[:, 1], halves[:, 0], out=halves[:, 1])
    masks = np.arange(1 << n)
    sizes = np.bitwise_count(masks)
    best = np.full(1 << n, -np.inf)
    best[0] = 0.0
    for level in range(1, n + 1):
        sets = masks[sizes == level]
        for v in range(n):
            within = sets[sets >> v & 1 == 1]
            rest = within ^ 1 << v
            gain = best[rest] + best_parents[v][_without(rest, v)]
            best[within] = np.maximum(best[within], gain)
    edges = np.zeros((n, n), bool)
    left = (1 << n) - 1
    while left:
        v = next(v for v in range(n) if left >> v & 1 and _is_sink(v, left, best, best_parents))
        left ^= 1 << v
        chosen = _smallest(int(_without(left, v)), best_parents[v], n)
        edges[[u + (u >= v) for u in range(n - 1) if chosen >> u & 1], v] = True
    return Found(edges, scores.sum(parents_of(edges)))


def _without(masks: Any, v: int) -> Any:
    """Close the gap at v in masks that lack it: their places among the subsets of the others."""
    low = (1 << v) - 1
    return masks & low | masks >> 1 & ~low


def _is_sink(v: int, left: int, best: Floats, best_parents: Floats) -> bool:
    rest = left ^ 1 << v
    return bool(best[rest] + best_parents[v][_without(rest, v)] == best[left])


def _smallest(chosen: int, best: Floats, n: int) -> int:
    """Take elements out of a set for as long as the score stays what it is."""
    for u in range(n - 1):
        if chosen >> u & 1 and best[chosen ^ 1 << u] == best[chosen]:
            chosen ^= 1 << u
    return chosen


def _local_scores(scores: LocalScores, limits: Constraints, tick: Tick) -> Floats:
    """Score nodes with sets of the others, minus infinity if not allowed: (V, 2^(V-1))."""
    n = scores.n_nodes
    masks = np.arange(1 << n)
    sizes = np.bitwise_count(masks)
    bits = 1 << np.arange(n)
    terms = None if _is_mixed(scores) else _SetTerms(scores, limits.max_parents + 1, tick)
    table = np.full((n, 1 << n - 1), -np.inf)
    for v in range(n):
        halves = masks.reshape(-1, 2, 1 << v)
        sets = halves[:, 0].ravel()  # those without v, in the order of their places
        needed = int(bits[limits.required[:, v]].sum())
        barred = int(bits[~limits.allowed[:, v]].sum())
        fits = (sets & barred == 0) & (sets & needed == needed)
        fits &= sizes[sets] <= limits.max_parents
        sets = sets[fits]
        if terms is not None:
            table[v, fits] = terms.local(v, sets)
            continue
        for place, chosen in zip(np.flatnonzero(fits), sets, strict=True):
            table[v, place] = scores.local(v, np.flatnonzero(chosen >> np.arange(n) & 1))
            tick(1)
    return table


def _is_mixed(scores: LocalScores) -> bool:
    return 0 < sum(size == 0 for size in scores.sizes) < scores.n_nodes


class _SetTerms:
    """The terms of the sets of at most so many nodes: all discrete, or all continuous.

    Attributes
    ----------
    cells : (2^V,)
        Product of the sizes.
    family : (2^V,)
    parents : dict of int to (2^V,)
        By the number of states of the child; one array where the score is equivalent.
    """

    def __init__(self, scores: LocalScores, most: int, tick: Tick) -> None:
        self.scores, self.most, self.tick = scores, most, tick
        n = scores.n_nodes
        self.cells = np.ones(1)
        for size in scores.sizes:
            self.cells = np.concatenate([self.cells, self.cells * max(size, 1)])
        self.family = np.zeros(1 << n)
        self.parents = dict.fromkeys(scores.sizes, self.family)
        if not scores.score.equivalent:
            self.parents = {size: np.zeros(1 << n) for size in scores.sizes}
        if not any(scores.sizes):
            self._determinants()
        else:
            weights = scores.weights
            self.whole = weights is None or bool((weights == np.floor(weights)).all())
            self._count(0, *scores.configurations([]), 0)

    def local(self, v: int, sets: Integers) -> Floats:
        """Score `v` with each of these sets as its parents."""
        size = self.scores.sizes[v]
        gain = self.family[sets | 1 << v] - self.parents[size][sets]
        n_parameters = self.cells[sets] * (size - 1) if size else np.bitwise_count(sets) + 2.0
        return np.asarray(gain - self.scores.price * n_parameters, np.float64)

    def _determinants(self) -> None:
        """Log likelihood of the joint normal of each set at its maximum."""
        scores = self.scores
        masks = np.arange(len(self.family))
        bits = (masks[:, None] >> np.arange(scores.n_nodes) & 1).astype(bool)
        sizes = bits.sum(axis=1)
        self.family -= scores.total * (bits @ scores.log_scale)
        for k in range(1, self.most + 1):
            for batch in _batches(masks[sizes == k]):
                members = bits[batch].nonzero()[1].reshape(-1, k)
                blocks = scores.correlation[members[:, :, None], members[:, None, :]]
                entropies = np.linalg.slogdet(blocks)[1] + k * math.log(2.0 * math.pi * math.e)
                self.family[batch] -= 0.5 * scores.total * entropies
                self.tick(len(batch))

    def _fill(self, mask: int, counts: Floats) -> None:
        counts, cells, score = counts[counts > 0], self.cells[mask], self.scores.score
        times: Any = np.ones(len(counts))
        if self.whole and len(counts) > FEW:
            times = np.bincount(counts.astype(np.int64))
            counts = np.flatnonzero(times).astype(np.float64)
            times = times[times > 0]
        self.family[mask] = score.family(counts, cells) @ times
        if not score.equivalent:
            for size, terms in self.parents.items():
                terms[mask] = score.parents(counts, cells, size) @ times
        self.tick(1)

    def _count(self, mask: int, codes: Integers, cells: int, first: int) -> None:
        """Count a set, then those with more nodes, from `first` on, depth first."""
        scores = self.scores
        self._fill(mask, scores.counts(codes, cells))
        if mask.bit_count() == self.most:
            return
        for u in range(first, scores.n_nodes):
            finer, n_codes = codes * scores.sizes[u] + scores.columns[u], cells * scores.sizes[u]
            if n_codes > len(codes):
                finer, n_codes = relabel(finer, n_codes)
            self._count(mask | 1 << u, finer, n_codes, u + 1)


def _batches(masks: Integers) -> list[Integers]:
    return [masks[start : start + BATCH] for start in range(0, len(masks), BATCH)]
