"""The same program text gives the same numbers on both array libraries."""

import numpy as np
import pytest
from scipy import special

from ppl_gen import deterministic, engines, ops, program

ENGINES = ["pyro", "numpyro"]
A = np.array([[2.0, 0.0], [0.3, 1.5]])
B = np.array([0.1, 0.7])
CODES = np.array([0, 1])

#: What is written in a program, and what NumPy or SciPy says it is.
EXPRESSIONS = {
    "constants": (lambda: ops.exp(1) + ops.log(0.1) + ops.pi, np.e + np.log(0.1) + np.pi),
    "where": (lambda: ops.where(ops.asarray(CODES), 0.1, 2), np.array([2, 0.1])),
    "maximum": (lambda: ops.maximum(B, 0.5), np.maximum(B, 0.5)),
    "clip": (lambda: ops.clip(ops.asarray(B), 0.2, 0.5), np.clip(B, 0.2, 0.5)),
    "power": (lambda: ops.pow(2, B), 2**B),
    "axis": (lambda: ops.sum(A, axis=0), A.sum(0)),
    "positional axis": (lambda: ops.expand_dims(B, axis=0), B[None]),
    "stack": (lambda: ops.stack([B, ops.asarray(B)], axis=1), np.stack([B, B], 1)),
    "concat": (lambda: ops.concat([ops.zeros(2), B]), np.concatenate([np.zeros(2), B])),
    "creation": (lambda: ops.ones((2, 1)) * ops.eye(2), np.eye(2)),
    "full": (lambda: ops.full((2,), 0.1), np.full(2, 0.1)),
    "linspace": (lambda: ops.linspace(0, 1, 5), np.linspace(0, 1, 5)),
    "arange of floats": (lambda: ops.arange(0.0, 1.0, 0.25), np.arange(0, 1, 0.25)),
    "arange": (lambda: 0.1 * ops.arange(3), 0.1 * np.arange(3)),
    "matmul": (lambda: ops.matmul(A, B), A @ B),
    "logsumexp": (lambda: ops.logsumexp(A, axis=-1), special.logsumexp(A, axis=-1)),
    "logsumexp of all": (lambda: ops.logsumexp(A), special.logsumexp(A)),
    "keepdims": (lambda: ops.logsumexp(A, axis=0, keepdims=True), special.logsumexp(A, 0)[None]),
    "softmax": (lambda: ops.softmax(A, axis=0), special.softmax(A, axis=0)),
    "log_softmax": (lambda: ops.log_softmax(A), special.log_softmax(A, axis=-1)),
    "sigmoid": (lambda: ops.sigmoid(B), special.expit(B)),
    "softplus": (lambda: ops.softplus(B), np.logaddexp(0, B)),
    "gammaln": (lambda: ops.gammaln(0.1), special.gammaln(0.1)),
    "digamma": (lambda: ops.digamma(B), special.digamma(B)),
    "i0e": (lambda: ops.i0e(B), special.i0e(B)),
    "solve": (lambda: ops.solve_triangular(A, B, lower=True), np.linalg.solve(A, B)),
    "solve a matrix": (lambda: ops.solve_triangular(A, A, lower=True), np.eye(2)),
    "solve transposed": (
        lambda: ops.solve_triangular(A, B, trans=1, lower=True),
        np.linalg.solve(A.T, B),
    ),
    "linalg": (lambda: ops.linalg.cholesky(A @ A.T), np.linalg.cholesky(A @ A.T)),
    "scan": (lambda: ops.scan(lambda c, x: (0.1 * c + x, c), 1.0, B)[1], np.array([1.0, 0.2])),
    "scan over parts": (
        lambda: ops.scan(
            lambda c, x: ({"sum": c["sum"] + x[0] * x[1]}, None), {"sum": 0.0}, (B, B)
        )[0]["sum"],
        B @ B,
    ),
    "scan of a length": (
        lambda: ops.scan(lambda c, _: (2.0 * c, c), 0.1, None, length=3)[1],
        np.array([0.1, 0.2, 0.4]),
    ),
    "stop_gradient": (lambda: ops.stop_gradient(B) + ops.stop_gradient(ops.asarray(B)), 2 * B),
    "newaxis": (lambda: ops.asarray(B)[:, ops.newaxis], B[:, None]),
    "dtype": (lambda: ops.astype(ops.asarray(CODES), ops.float64) / 3, CODES / 3),
}


@program
def everything():
    for name, (make, _) in EXPRESSIONS.items():
        deterministic(name, make())


@pytest.fixture(params=ENGINES, scope="module")
def computed(request):
    return engines.get(request.param).trace(everything.native(request.param))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_operations_agree_with_numpy(computed, expression):
    value, expected = computed[expression].value, EXPRESSIONS[expression][1]
    assert value.dtype == np.float64
    # A few units in the last place: the libraries have their own special functions.
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ENGINES)
def test_unsigned_and_strided_arrays_are_taken(name):
    engine = engines.get(name)
    with engine.precision():
        for array in (np.arange(3, dtype=np.uint16), np.arange(6)[::-2], np.arange(6.0)[::-1]):
            np.testing.assert_array_equal(engine.to_numpy(engine.asarray(array)), array)
        frozen = np.ones(2)
        frozen.flags.writeable = False
        np.testing.assert_array_equal(engine.to_numpy(engine.asarray(frozen)), frozen)
        out = engine.to_numpy(engine.asarray(np.zeros(2)))
        out += 1  # what comes out is the caller's own
    assert type(out) is np.ndarray


def test_torch_says_its_own_casts():
    """Promotion leaves what a program casts on purpose."""
    import torch

    found = {}

    @program
    def cast(codes):
        found["float"] = codes.float()
        found["ratio"] = torch.true_divide(input=codes, other=3)

    cast.pyro(np.array([1, 2]))
    assert found["float"].dtype == torch.float32
    np.testing.assert_allclose(found["ratio"].numpy(), np.array([1, 2]) / 3, rtol=1e-15)
