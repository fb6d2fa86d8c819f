"""The essential graph against the union of all equivalent graphs."""

import functools
from collections import defaultdict

import numpy as np
import pytest
from structure_cases import all_dags, edges_of

from ppl_gen.algorithms.networks.structure_equivalence import essential_graph


@functools.cache
def classes_of(n_nodes):
    """Group all graphs by their edges without directions and their unjoined parents."""
    classes = defaultdict(list)
    for parents in all_dags(n_nodes):
        edges = edges_of(parents)
        joined = edges | edges.T
        unjoined = tuple(
            (u, w, v)
            for v, above in enumerate(parents)
            for u in above
            for w in above
            if u < w and not joined[u, w]
        )
        classes[joined.tobytes(), unjoined].append(edges)
    return classes


@pytest.mark.parametrize("n_nodes", [2, 3, 4])
def test_it_is_the_union_of_the_equivalent_graphs(n_nodes):
    for members in classes_of(n_nodes).values():
        for edges in members:
            np.testing.assert_array_equal(essential_graph(edges), np.any(members, axis=0))


def test_it_is_the_union_of_the_equivalent_graphs_of_five_nodes():
    classes = classes_of(5)
    assert len(classes) == 8782  # Steinsky (2003), Discrete Mathematics 270, 266-278
    for members in classes.values():
        np.testing.assert_array_equal(essential_graph(members[0]), np.any(members, axis=0))


@pytest.mark.parametrize("n_nodes", [4, 5])
def test_known_directions_leave_out_the_graphs_without_them(n_nodes):
    rng = np.random.default_rng(0)
    classes = [members for members in classes_of(n_nodes).values() if len(members) > 2]
    for place in rng.permutation(len(classes))[:500]:
        members = classes[place]
        edges = members[int(rng.integers(len(members)))]
        known = edges & (rng.random(edges.shape) < 0.3)
        union = np.any([other for other in members if (other >= known).all()], axis=0)
        np.testing.assert_array_equal(essential_graph(edges, known), union)
