"""One program, two engines: the same density, gradient and prior, for every program of the zoo."""

import numpy as np
import pytest
from zoo import CASES, points

from ppl_gen import engines

POINTS = 20
SIMPLEX = {"weights", "start", "transition"}
ENGINES = ["pyro", "numpyro"]


@pytest.fixture(params=CASES, ids=repr, scope="module")
def case(request):
    return request.param


@pytest.fixture(scope="module")
def traces(case):
    values = next(points(case, 1))
    return values, {
        name: engines.get(name).trace(case.program.native(name), (), case.data, values=values)
        for name in ENGINES
    }


def compiled_jax(case):
    """The log joint and gradient under JAX, compiled once for all points."""
    import jax

    engine = engines.get("numpyro")
    kernel = jax.jit(
        jax.value_and_grad(lambda v: engine._joint(case.program.numpyro, (), case.data, v))
    )

    def run(values):
        with engine.precision():
            value, gradient = kernel(engine.to_native(values))
            return float(value), {name: engine.to_numpy(g) for name, g in gradient.items()}

    return run


def test_engines_agree_on_the_log_joint_and_its_gradient(case):
    jax_side, torch_side = compiled_jax(case), engines.get("pyro")
    # Both compute in float64; 1e-9 and 1e-7 leave room for another order of summation only.
    for values in points(case, POINTS):
        a, grad_a = torch_side.log_joint_and_grad(case.program.pyro, (), case.data, values)
        b, grad_b = jax_side(values)
        assert np.isfinite(a)
        assert a == pytest.approx(b, rel=1e-9)
        assert grad_a.keys() == grad_b.keys() == values.keys()
        for name, gradient in grad_a.items():
            other = grad_b[name]
            assert np.isfinite(gradient).all()  # where values are missing, too
            if name in SIMPLEX:
                # torch's Categorical normalises its probabilities: off the simplex, where nothing
                # is ever evaluated, the densities differ. What matters is the slope along it.
                gradient, other = (g - g.mean(-1, keepdims=True) for g in (gradient, other))
            np.testing.assert_allclose(gradient, other, rtol=1e-7, atol=1e-9)


def test_traces_agree(traces):
    first, second = traces[1].values()
    assert list(first) == list(second)
    for name, site in first.items():
        other = second[name]
        for attribute in ("kind", "observed", "plates", "dims", "discrete", "support", "latent"):
            assert getattr(site, attribute) == getattr(other, attribute), (name, attribute)
        assert site.improper == other.improper
        np.testing.assert_allclose(site.value, other.value, rtol=1e-9)
        if site.log_prob is not None:
            np.testing.assert_allclose(site.log_prob, other.log_prob, rtol=1e-9, atol=1e-12)


def test_an_outline_is_a_trace_without_numbers(case, traces):
    values, both = traces
    trace = both["numpyro"]
    outline = engines.get("numpyro").outline(case.program.numpyro, (), case.data, values=values)
    assert list(trace) == list(outline)
    for name, site in trace.items():
        other = outline[name]
        assert site.value.shape == other.value.shape
        assert site.value.dtype == other.value.dtype
        for attribute in ("kind", "observed", "plates", "dims", "support", "latent", "improper"):
            assert getattr(site, attribute) == getattr(other, attribute), (name, attribute)


def test_prior_predictive_quantiles_agree(case):
    n = 2000
    draws = []
    for name in ENGINES:
        engine, model = engines.get(name), case.program.native(name)
        if not case.proper:
            with pytest.raises(ValueError, match="b has an improper prior"):
                engine.prior_predictive(model, (), case.data, n, seed=0)
            continue
        draws.append(engine.prior_predictive(model, (), case.unobserved, n, seed=1))
    if not draws:
        return
    assert draws[0].keys() == draws[1].keys()
    probabilities = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    for name, first in draws[0].items():
        # The first element of the first event or batch: a scalar whose law both must share.
        a, b = (d[name].reshape(n, -1)[:, 0] for d in draws)
        assert first.shape == draws[1][name].shape
        # Compare the ranks of one side's quantiles in the other: their standard error is below
        # sqrt(2 * .25 / n) = .016, whatever the scale; 4 of them for some 40 sites of 5 each.
        for q in np.quantile(a, probabilities):
            assert abs((a < q).mean() - (b < q).mean()) < 0.065
            assert abs((a <= q).mean() - (b <= q).mean()) < 0.065
