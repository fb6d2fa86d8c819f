"""Arithmetic on trees: nested dicts whose leaves are arrays (parameters, sufficient statistics)."""

from collections.abc import Callable, Sequence
from typing import Any

Tree = dict[str, Any]


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply a function leaf by leaf to trees of one structure.

    Examples
    --------
    >>> tree_map(lambda a, b: a + b, {"n": 1, "s": {"x": 2}}, {"n": 3, "s": {"x": 4}})
    {'n': 4, 's': {'x': 6}}
    """
    if isinstance(tree, dict):
        return {
            name: tree_map(function, branch, *(other[name] for other in others))
            for name, branch in tree.items()
        }
    return function(tree, *others)


def tree_sum(trees: Sequence[Any]) -> Any:
    """Sum trees of one structure; sufficient statistics add over rows."""
    total = trees[0]
    for tree in trees[1:]:
        total = tree_map(lambda a, b: a + b, total, tree)
    return total


def tree_leaves(tree: Any) -> list[Any]:
    """List the leaves of a tree, in the order of its branches.

    Examples
    --------
    >>> tree_leaves({"n": 1, "s": {"x": 2, "y": 3}})
    [1, 2, 3]
    """
    if isinstance(tree, dict):
        return [leaf for branch in tree.values() for leaf in tree_leaves(branch)]
    return [tree]
