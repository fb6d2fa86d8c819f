"""Which array library computes, and where its constants lie."""

import numpy as np
import pytest

from ppl_gen import engines
from ppl_gen.algorithms.arrays import array_namespace, beside


def test_numpy_is_itself():
    # A wrapper in its place would send NumPy rows down the slow route, without an error.
    assert array_namespace(np.ones(2), np.float64(1.0)) is np


def test_libraries_are_not_mixed():
    import torch

    with pytest.raises(TypeError, match="Multiple namespaces"):
        array_namespace(np.ones(2), torch.ones(2))


def test_constants_lie_on_the_device_of_the_array():
    import torch

    # A tensor made without its device would lie on the CPU, and its first product would raise.
    x = torch.ones(2, dtype=torch.float32, device="meta")
    constant = beside(x, np.arange(2))
    assert constant.device.type == "meta"
    assert constant.dtype == torch.float32


def test_constants_take_part_in_traced_functions():
    engine = engines.get("numpyro")
    with engine.precision(device="cpu"):
        import jax

        found = jax.jit(lambda x: x + beside(x, np.arange(3)))(engine.asarray(np.ones(3)))
        assert found.dtype == np.float64
        np.testing.assert_array_equal(engine.to_numpy(found), [1.0, 2.0, 3.0])
