"""N-grams and smoothing beside plain dictionaries of counts."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl_gen.algorithms.ngrams import NGramIndex
from ppl_gen.algorithms.smoothing import (
    DISCOUNT,
    SMOOTHING,
    dirichlet,
    distributions,
    jelinek_mercer,
    kneser_ney,
    probabilities,
)

K = 3


@st.composite
def sequences(draw, longest=12):
    return draw(
        st.lists(
            st.lists(st.integers(0, K - 1), min_size=1, max_size=longest), min_size=1, max_size=5
        )
    )


def laid_out(given):
    lengths = np.array([len(s) for s in given])
    return np.concatenate(given).astype(np.int64), np.cumsum(lengths) - lengths


def brute(given, m):
    """Count of each m-gram that ends within a sequence, K standing before its start."""
    counts = Counter()
    for s in given:
        padded = [K] * (m - 1) + list(s)
        counts.update(tuple(padded[t : t + m]) for t in range(len(s)))
    return counts


def grams(index, level):
    """The (level + 1)-grams of an index, written out."""
    if level == 0:
        return [(code,) for code in range(K + 1)]
    shorter = grams(index, level - 1)
    pairs = zip(index.prefix(level), index.symbol(level), strict=True)
    return [(*shorter[prefix], int(symbol)) for prefix, symbol in pairs]


def counted(given, order):
    index = NGramIndex.of(*laid_out(given), order, K)
    cells = index.locate(*laid_out(given))[1]
    return index, np.bincount(cells[-1], minlength=len(index.keys[-1])).astype(float)


@given(sequences(), st.integers(0, 3))
def test_counts_are_those_of_a_dictionary(given, order):
    index, counts = counted(given, order)
    for level, found in enumerate(index.lower_counts(counts)):
        names = grams(index, level)
        assert names == sorted(names)  # the numerical order that the program relies on
        assert names[-1] == (K,) * (level + 1)
        expected = brute(given, level + 1)
        assert {n: c for n, c in zip(names, found, strict=True) if c} == expected
        assert [n[0] == K for n in names] == index.begins[level].tolist()
        if level:
            shorter = grams(index, level - 1)
            assert [shorter[i] for i in index.suffix[level - 1]] == [n[1:] for n in names]


@given(sequences(), sequences(), st.integers(0, 3))
def test_new_sequences_are_located(given, new, order):
    index, _ = counted(given, order)
    contexts, cells = index.locate(*laid_out(new))
    for level in range(order + 1):
        names = {name: i for i, name in enumerate(grams(index, level))}
        shorter = {name: i for i, name in enumerate(grams(index, level - 1))} if level else {(): 0}
        padded = [tuple([K] * level + s)[t : t + level + 1] for s in new for t in range(len(s))]
        assert cells[level].tolist() == [names.get(gram, -1) for gram in padded]
        assert contexts[level].tolist() == [shorter.get(gram[:-1], -1) for gram in padded]


@given(sequences(), sequences(), st.integers(0, 3), st.sampled_from([None, *SMOOTHING]))
def test_every_context_has_a_distribution(given, new, order, smoothing):
    index, counts = counted(given, order)
    if smoothing is None:
        seen, backoff = dirichlet(index, counts, np.array([0.5, 0.0, 1.0]))
        base = np.array([1.0, 0.0, 2.0]) / 3.0
    else:
        seen, backoff = SMOOTHING[smoothing](index, counts)
        base = np.full(K, 1.0 / K)
    codes, starts = laid_out(new)
    contexts, cells = (
        {str(level): part[level] for level in range(order + 1)}
        for part in index.locate(codes, starts)
    )
    rows = distributions(seen, backoff, base, index, contexts)
    # A sum of a few terms that are each rounded once.
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, rtol=1e-12)
    assert (rows >= 0.0).all()
    found = probabilities(seen, backoff, base, codes, contexts, cells)
    np.testing.assert_allclose(found, rows[np.arange(len(codes)), codes], rtol=1e-12, atol=1e-15)
    if smoothing is not None:
        assert (rows > 0.0).all()


def test_dirichlet_is_lidstones_rule():
    index, counts = counted([[0, 1, 0, 1, 1]], 1)
    prior = np.array([0.5, 1.0, 1.5])
    rows = distributions(
        *dirichlet(index, counts, prior), prior / 3.0, index, {"1": np.arange(K + 1)}
    )
    after = np.array([[0, 2, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]])
    expected = (after + prior) / (after.sum(axis=1, keepdims=True) + 3.0)
    np.testing.assert_allclose(rows, expected, rtol=1e-14)


def kneser_ney_by_hand(given, order, context, symbol):
    """Interpolated Kneser-Ney as the papers have it, by recursion over dictionaries."""

    def count(gram):
        if len(gram) == order + 1 or gram[0] == K:
            return brute(given, len(gram))[gram]
        return len({g[0] for g in brute(given, len(gram) + 1) if g[1:] == gram})

    def probability(context, symbol):
        below = probability(context[1:], symbol) if context else 1.0 / K
        level = {g: count(g) for g in brute(given, len(context) + 1)}
        once, twice = (list(level.values()).count(r) for r in (1, 2))
        discount = once / (once + 2 * twice) if once and twice else DISCOUNT
        after = {g: n for g, n in level.items() if g[:-1] == context and n}
        total = sum(after.values())
        if not total:
            return below
        kept = max(after.get((*context, symbol), 0) - discount, 0.0)
        return (kept + discount * len(after) * below) / total

    return probability(context, symbol)


def test_kneser_ney_by_hand():
    rng = np.random.default_rng(3)
    given = [rng.integers(K, size=size).tolist() for size in (9, 14, 5)]
    index, counts = counted(given, 2)
    seen, backoff = kneser_ney(index, counts)
    names = grams(index, 1)
    contexts = {
        "0": np.zeros(len(names), dtype=int),
        "1": np.array([name[-1] for name in names]),
        "2": np.arange(len(names)),
    }
    rows = distributions(seen, backoff, np.full(K, 1.0 / K), index, contexts)
    for name, row in zip(names, rows, strict=True):
        expected = [kneser_ney_by_hand(given, 2, name, v) for v in range(K)]
        np.testing.assert_allclose(row, expected, rtol=1e-12)


def test_interpolation_weights_are_the_best_for_what_is_left_out():
    """Deleted likelihood, written out, is not raised by moving any weight."""
    rng = np.random.default_rng(0)
    given = [[0]]
    for _ in range(199):  # what comes next depends on what is, so that no weight is zero
        given[0].append(int(rng.choice(K, p=np.roll([0.6, 0.3, 0.1], given[0][-1]))))
    index, counts = counted(given, 1)
    _, backoff = jelinek_mercer(index, counts)
    pairs, singles = brute(given, 2), brute(given, 1)
    sums = Counter()
    for (context, _), n in pairs.items():
        sums[context] += n

    def deleted(shift, state):
        """Log likelihood of each pair given all others, a context's weight moved."""
        total = 0.0
        for (context, symbol), n in pairs.items():
            if sums[context] == 1:
                continue
            weight = 1.0 - backoff["1"][context]
            if state is not None and int(np.log2(sums[context] - 1)) == state:
                weight = np.clip(weight + shift, 0.0, 1.0)
            low = (1 - backoff["0"][0]) * (singles[(symbol,)] - 1) / 199 + backoff["0"][0] / K
            high = (n - 1) / (sums[context] - 1)
            total += n * np.log(weight * high + (1 - weight) * low)
        return total

    best = deleted(0.0, None)
    for bucket in {int(np.log2(n - 1)) for n in sums.values() if n > 1}:
        for shift in (-0.05, 0.05):
            # EM stops where a step gains less than 1e-5 nats a symbol: 2e-3 in all.
            assert deleted(shift, bucket) <= best + 5e-3


def test_long_contexts_take_no_more_room_than_the_text():
    rng = np.random.default_rng(0)
    codes = rng.integers(60, size=2000)
    index = NGramIndex.of(codes, np.array([0]), 12, 60)
    assert all(len(keys) <= 2001 + 60 for keys in index.keys)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_completed_has_every_symbol_after_every_context(order):
    index = NGramIndex.of(np.array([0, 1, 0, 2]), np.array([0, 3]), order, K)
    complete = index.completed()
    names = grams(complete, order)
    assert names[:-1] == [
        (*c, v) for c in (grams(index, order - 1) if order else [()]) for v in range(K)
    ]
