"""Scans against plain loops, in every library."""

import array_api_compat.torch as torch_namespace
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl_gen import engines
from ppl_gen.algorithms.scans import associative_scan, scan


def compose(a, b):
    """Affine maps x -> A x + s, first a and then b: associative, and not commutative."""
    return b[0] @ a[0], b[0] @ a[1] + b[1]


def maps(length, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(length, 2, 2)), rng.normal(size=(length, 2, 1))


def prefixes(elements):
    """All prefixes, one combination at a time."""
    found = [tuple(e[0] for e in elements)]
    for t in range(1, len(elements[0])):
        found.append(compose(found[-1], tuple(e[t] for e in elements)))
    return [np.stack(column) for column in zip(*found, strict=True)]


@given(st.integers(1, 33), st.integers(0, 1000))
def test_associative_scan_is_all_prefixes(length, seed):
    elements = maps(length, seed)
    for found, expected in zip(
        associative_scan(compose, elements), prefixes(elements), strict=True
    ):
        # Products of up to 33 matrices, in another order: relative to their own size.
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def add(carry, x):
    total = 0.5 * carry[0] + x[0]
    return (total,), (total, 2.0 * total)


@pytest.mark.parametrize("library", ["jax", "torch"])
def test_other_libraries_scan_as_numpy_does(library):
    engine = engines.get({"jax": "numpyro", "torch": "pyro"}[library])
    x = np.arange(5.0)
    carry, (totals, doubles) = scan(add, (np.zeros(()),), (x,))
    np.testing.assert_array_equal(doubles, 2.0 * totals)
    assert carry[0] == totals[-1]
    with engine.precision(device="cpu"):
        _, found = scan(add, (engine.asarray(np.zeros(())),), (engine.asarray(x),))
        np.testing.assert_allclose(engine.to_numpy(found[0]), totals, rtol=1e-14)
        elements = maps(7)
        moved = associative_scan(compose, tuple(map(engine.asarray, elements)))
        for a, b in zip(moved, prefixes(elements), strict=True):
            np.testing.assert_allclose(engine.to_numpy(a), b, rtol=1e-11, atol=1e-11)
    assert torch_namespace.float32 == torch_namespace.get_default_dtype()
