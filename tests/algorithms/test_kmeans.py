"""k-means as a start: what it must not depend on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from ppl_gen.algorithms import kmeans as module
from ppl_gen.algorithms.kmeans import kmeans, nearest, seed_plus_plus


def blobs(seed=0, n_each=40, centres=((0, 0), (8, 0), (0, 8), (8, 8))):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(centre, 1.0, size=(n_each, 2)) for centre in centres])


def inertia(x, labels):
    return sum(
        ((x[labels == k] - x[labels == k].mean(axis=0)) ** 2).sum() for k in np.unique(labels)
    )


def test_finds_what_scikit_learn_finds():
    x = blobs()
    peer = KMeans(4, n_init=5, random_state=0).fit(x)
    # Well apart: the optimum is one partition, and the same one to rounding.
    assert inertia(x, kmeans(x, 4, np.random.default_rng(0))) == pytest.approx(
        peer.inertia_, rel=1e-12
    )


@given(st.integers(0, 1000))
def test_the_order_of_the_rows_means_nothing(seed):
    x = np.random.default_rng(1).normal(size=(60, 3))
    order = np.random.default_rng(seed).permutation(60)
    labels = kmeans(x, 4, np.random.default_rng(5))
    np.testing.assert_array_equal(kmeans(x[order], 4, np.random.default_rng(5)), labels[order])


@given(st.integers(0, 1000))
def test_a_weight_is_a_repetition(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 2))
    repeats = rng.integers(0, 4, size=30)
    repeats[0] = max(repeats[0], 1)
    weighted = kmeans(x, 3, np.random.default_rng(2), weights=repeats.astype(float))
    repeated = kmeans(np.repeat(x, repeats, axis=0), 3, np.random.default_rng(2))
    np.testing.assert_array_equal(np.repeat(weighted, repeats), repeated)


def test_long_tables_are_seeded_from_a_share_of_their_rows(monkeypatch):
    monkeypatch.setattr(module, "SEED_ROWS", 60)
    x = blobs(n_each=50)
    labels = kmeans(x, 4, np.random.default_rng(3))
    assert labels.shape == (200,)
    truth = np.repeat(np.arange(4), 50)
    # Each blob has one label: at eight deviations apart no row is nearer another centre.
    assert all(len(np.unique(labels[truth == k])) == 1 for k in range(4))


def test_more_clusters_than_different_rows_leaves_no_row_without_one():
    x = np.repeat([[0.0], [1.0]], 3, axis=0)
    labels = kmeans(x, 4, np.random.default_rng(0))
    assert (labels[:3] == labels[0]).all()
    assert (labels[3:] == labels[3]).all()
    assert labels[0] != labels[3]


def test_seeds_are_rows_and_never_the_same_twice():
    x = np.sort(np.random.default_rng(4).normal(size=(25, 1)), axis=0)
    centres = seed_plus_plus(x, np.ones(25), 6, np.random.default_rng(5))
    assert np.isin(centres, x).all()
    assert len(np.unique(centres)) == 6


def test_nearest_is_the_least_distance():
    rng = np.random.default_rng(6)
    x, centres = rng.normal(size=(50, 3)), rng.normal(size=(4, 3))
    distance = ((x[:, None] - centres) ** 2).sum(axis=2)
    np.testing.assert_array_equal(nearest(x, centres), distance.argmin(axis=1))
