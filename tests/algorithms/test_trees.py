"""Arithmetic on nested dicts of arrays."""

import numpy as np
import pytest

from ppl_gen.algorithms.trees import tree_map, tree_sum

TREE = {"weights": np.arange(3.0), "family": {"size": {"count": np.ones((3, 2))}}}


def test_map_keeps_the_structure():
    doubled = tree_map(lambda leaf: 2.0 * leaf, TREE)
    np.testing.assert_array_equal(doubled["weights"], [0.0, 2.0, 4.0])
    np.testing.assert_array_equal(doubled["family"]["size"]["count"], np.full((3, 2), 2.0))
    np.testing.assert_array_equal(TREE["weights"], [0.0, 1.0, 2.0])  # a new tree


def test_map_over_several_trees():
    merged = tree_map(lambda a, b, c: a + b - c, {"x": {"y": 5}}, {"x": {"y": 2}}, {"x": {"y": 1}})
    assert merged == {"x": {"y": 6}}


def test_trees_of_different_structures_are_refused():
    with pytest.raises(KeyError):
        tree_map(lambda a, b: a, TREE, {"weights": 1})


def test_sum_adds_leaf_by_leaf():
    total = tree_sum([TREE, TREE, TREE])
    np.testing.assert_array_equal(total["weights"], 3.0 * TREE["weights"])
    np.testing.assert_array_equal(total["family"]["size"]["count"], np.full((3, 2), 3.0))


def test_sum_of_one_is_itself():
    assert tree_sum([TREE]) is TREE
