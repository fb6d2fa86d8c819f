"""Formulas for effects against the truncated factorisation of random networks with hidden nodes."""

import numpy as np
import pytest
from network_problems import brute_force_joint, random_network
from random_graphs import random_graph

from ppl_gen.algorithms.networks.adjustment import adjustment_set
from ppl_gen.algorithms.networks.front_door import front_door_sets
from ppl_gen.algorithms.networks.identification import (
    Hedge,
    Term,
    evaluate,
    identify_effect,
    latent_projection,
)


def intervened(parents, sizes, tables, xs, ys):
    """p(ys | do(xs)) with axes xs then ys, by the truncated factorisation."""
    ones = [np.ones_like(t) if v in xs else t for v, t in enumerate(tables)]
    joint = brute_force_joint(parents, sizes, ones)
    table = joint.sum(axis=tuple(v for v in range(len(sizes)) if v not in (*xs, *ys)))
    return np.transpose(table, np.argsort(np.argsort([*xs, *ys])))


def by_formula(term, joint, observed, xs, ys):
    """Values of a formula with axes xs then ys; of all else it must not depend."""
    axes = {v: i for i, v in enumerate(observed)}
    values = evaluate(term, joint, axes)
    keep = [axes[v] for v in (*xs, *ys)]
    full = np.broadcast_to(
        values, [joint.shape[a] if a in keep else values.shape[a] for a in range(joint.ndim)]
    )
    others = [a for a in range(joint.ndim) if a not in keep]
    moved = np.transpose(full, [*keep, *others]).reshape(*[joint.shape[a] for a in keep], -1)
    np.testing.assert_allclose(moved, moved[..., :1] + np.zeros_like(moved), rtol=1e-9, atol=1e-12)
    return moved[..., 0]


@pytest.mark.parametrize(("n_x", "n_y"), [(1, 1), (2, 1), (1, 2)])
def test_formulas_equal_the_truncated_factorisation(n_x, n_y):
    identified = refused = 0
    for seed in range(300):
        rng = np.random.default_rng([seed, n_x, n_y])
        parents, sizes, tables = random_network(rng, 7, sizes=(2, 3), max_parents=3)
        order = [int(v) for v in rng.permutation(7)]
        hidden, xs, ys = order[:2], order[2 : 2 + n_x], order[2 + n_x : 2 + n_x + n_y]
        observed = sorted(set(range(7)) - set(hidden))
        found = identify_effect(latent_projection(parents, observed), xs, ys)
        if isinstance(found, Hedge):
            refused += 1
            assert found.inner < found.outer
            assert found.outer & set(xs)
            assert not found.inner & set(xs)
            # What simpler criteria identify is identified.
            assert adjustment_set(parents, xs, ys, observed) is None
            assert next(front_door_sets(parents, xs, ys, observed), None) is None
            continue
        identified += 1
        joint = brute_force_joint(parents, sizes, tables).sum(axis=tuple(hidden))
        truth = intervened(parents, sizes, tables, xs, ys)
        np.testing.assert_allclose(
            by_formula(found, joint, observed, xs, ys), truth, rtol=1e-9, atol=1e-12
        )
    assert identified > 50
    assert refused > 3


def test_the_napkin_takes_a_ratio():
    # w -> z -> x -> y, and hidden causes of w and x, and of w and y: no back-door or front-door.
    names = ["w", "z", "x", "y"]
    parents = [(4, 5), (0,), (1, 4), (2, 5), (), ()]
    found = identify_effect(latent_projection(parents, range(4)), [2], [3])
    assert found.text(names) == "[Σ_w P(w) P(x | w, z) P(y | w, z, x)] / [Σ_w P(w) P(x | w, z)]"
    assert adjustment_set(parents, [2], [3], range(4)) is None
    assert list(front_door_sets(parents, [2], [3], range(4))) == []
    rng = np.random.default_rng(0)
    tables = [rng.dirichlet(np.ones(2), size=(2,) * len(above)) for above in parents]
    joint = brute_force_joint(parents, [2] * 6, tables).sum(axis=(4, 5))
    truth = intervened(parents, [2] * 6, tables, [2], [3])
    np.testing.assert_allclose(by_formula(found, joint, range(4), [2], [3]), truth, rtol=1e-12)


@pytest.mark.parametrize(
    "edges",
    [
        ["x y", "u x", "u y"],  # the bow
        ["x z", "z y", "u x", "u z"],  # a mediator confounded with its cause
        ["x z", "z y", "u x", "u z", "v z", "v y"],
        ["x y", "z y", "u x", "u z", "v z", "v y"],
    ],
    ids=lambda edges: ", ".join(edges).replace(" ", ""),
)
def test_known_graphs_without_identification(edges):
    """Figure 1 of Shpitser and Pearl (2008): u and v are hidden."""
    names = sorted({v for edge in edges for v in edge.split()}, key="xyzuv".index)
    parents = [[] for _ in names]
    for edge in edges:
        cause, effect = (names.index(v) for v in edge.split())
        parents[effect].append(cause)
    observed = [v for v, name in enumerate(names) if name in "xyz"]
    found = identify_effect(latent_projection(parents, observed), [0], [1])
    assert isinstance(found, Hedge)
    assert 0 in found.outer


def test_without_a_path_the_effect_is_the_margin():
    found = identify_effect(latent_projection([(), (0,)], [0, 1]), [1], [0])
    assert found.text(["y", "x"]) == "P(y)"


def test_projections_do_not_depend_on_the_order_of_hidden_nodes():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        parents = random_graph(rng, 8)
        turned = rng.permutation(8)
        place = np.argsort(turned)
        other = [tuple(int(place[p]) for p in parents[v]) for v in turned]
        observed = [int(v) for v in rng.choice(8, 4, replace=False)]
        one = latent_projection(parents, observed)
        two = latent_projection(other, [int(place[v]) for v in observed])
        for v in observed:
            assert {int(turned[u]) for u in two.parents[place[v]]} == one.parents[v]
            assert {int(turned[u]) for u in two.siblings[place[v]]} == one.siblings[v]


def test_undefined_probabilities_are_nan_only_where_they_count():
    # Of x, z, y: nobody with z = 1 has x = 1, so that the effect needs what was not seen.
    term = Term(
        "sum", (1,), parts=(Term("product", parts=(
            Term("probability", (1,)), Term("probability", (2,), (0, 1))
        )),)
    )  # fmt: skip
    joint = np.full((2, 2, 2), 1 / 6)
    joint[1, 1] = 0.0
    effect = evaluate(term, joint, {0: 0, 1: 1, 2: 2})[:, 0]
    np.testing.assert_allclose(effect[0], 0.5)
    assert np.isnan(effect[1]).all()
    joint[:, 1] = 0.0  # a stratum that nobody is in counts for nothing
    np.testing.assert_allclose(evaluate(term, joint / joint.sum(), {0: 0, 1: 1, 2: 2}), 0.5)
