import contextvars
import threading

import numpy as np
import pandas as pd
import pytest
from zoo import CASES, eight_schools, hidden_markov, minibatch, naive_bayes, points

from ppl_gen import deterministic, dist, engines, factor, ops, param, plate, program, sample
from ppl_gen.engines.base import active_precision

ENGINES = ["pyro", "numpyro"]


@pytest.mark.parametrize("name", ENGINES)
def test_log_joint_is_the_sum_over_sites(name):
    case, engine = CASES[0], engines.get(name)
    model, values = case.program.native(name), {"mu": 1.0, "tau": 0.3, "z": np.ones(3)}
    trace = engine.trace(model, (), case.data, values=values)
    total = sum(s.log_prob.sum() for s in trace.values() if s.log_prob is not None)
    value, gradient = engine.log_joint_and_grad(model, (), case.data, values)
    assert value == pytest.approx(total, rel=1e-12)
    assert engine.log_joint(model, (), case.data, values) == pytest.approx(total, rel=1e-12)
    # d/dmu of N(mu; 0, 5) prod N(y; mu + tau, sigma)
    y, sigma = case.data["y"], case.data["sigma"]
    expected = -1.0 / 25 + ((y - 1.3) / sigma**2).sum()
    assert gradient["mu"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ENGINES)
def test_arguments_are_converted(name):
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [3, 4]})
    seen = {}

    @program
    def look(frame, series, numbers, text, size, flag, nothing, nested, integer):
        seen.update(locals())
        deterministic("frame", frame)
        deterministic("series", series)
        deterministic("numbers", numbers)

    engine = engines.get(name)
    trace = engine.trace(
        look.native(name),
        (frame, frame["y"], [1, 2.5], "text", 3, True, None, {"a": [np.ones(2), "b"]}, np.int64(4)),
    )
    assert trace["frame"].value.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert trace["numbers"].value.tolist() == [1.0, 2.5]
    assert "int" in str(seen["series"].dtype)
    assert "float64" in str(seen["numbers"].dtype)
    assert type(seen["nested"]["a"][0]) is type(seen["frame"])
    assert seen["nested"]["a"][1] == "b"
    kept = ["text", "size", "flag", "nothing", "integer"]
    assert [seen[key] for key in kept] == ["text", 3, True, None, 4]
    assert type(seen["integer"]) is int


@pytest.mark.parametrize("name", ENGINES)
def test_arguments_that_are_no_numbers_are_refused(name):
    with pytest.raises(TypeError, match=r"argument sigma has dtype .*; expected numbers"):
        eight_schools.native(name)(sigma=np.array(["a", "b"]))
    with pytest.raises(TypeError, match="argument sigma"):
        eight_schools.native(name)(sigma=pd.Series([1.0, "b"], dtype=object))
    numeric = pd.Series([15.0, 10.0], dtype=object)
    engine = engines.get(name)
    assert engine.trace(eight_schools.native(name), (numeric,))["z"].value.shape == (2,)


@pytest.mark.parametrize("name", ENGINES)
def test_precision_sets_the_dtype_and_is_left_behind(name):
    engine = engines.get(name)
    model = eight_schools.native(name)
    with engine.precision("float32", "cpu"):
        assert engine.trace(model, ([1.0],))["y"].value.dtype == np.float32
    assert engine.trace(model, ([1.0],))["y"].value.dtype == np.float64
    assert active_precision.get() is None
    with pytest.raises(ValueError, match="unknown dtype 'half'"), engine.precision("half"):
        pass
    for device, message in [("tpu", "unknown device 'tpu'"), ("cuda:64", "'cuda:64' asked for")]:
        with pytest.raises(ValueError, match=message), engine.precision(device=device):
            pass


def test_no_global_flag_changes():
    import jax
    import torch

    engines.get("pyro").trace(eight_schools.pyro, ([1.0],))
    engines.get("numpyro").trace(eight_schools.numpyro, ([1.0],))
    assert torch.get_default_dtype() == torch.float32
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize("name", ENGINES)
def test_integers_meet_constants_in_full_precision(name):
    """Torch alone computes these in float32."""

    @program
    def arithmetic(codes, flags):
        deterministic("times", 0.1 * codes)
        deterministic("divided", codes / 3)
        deterministic("flags", flags * 0.1)
        deterministic("power", codes**0.5)
        deterministic("function", ops.exp(codes))
        deterministic("indexed", ops.asarray([0.1, 0.2])[codes])

    codes = np.array([0, 1, 1])
    found = engines.get(name).trace(arithmetic.native(name), (codes, codes == 1))
    expected = {
        "times": 0.1 * codes,
        "divided": codes / 3,
        "flags": (codes == 1) * 0.1,
        "power": codes**0.5,
        "function": np.exp(codes),
        "indexed": np.array([0.1, 0.2, 0.2]),
    }
    for key, value in expected.items():
        np.testing.assert_allclose(found[key].value, value, rtol=1e-15)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("copy_context", [False, True])
def test_a_thread_gives_the_same(name, copy_context):
    engine = engines.get(name)
    case = CASES[0]
    values = next(points(case, 1))
    results = []

    def work():
        results.append(engine.log_joint(case.program.native(name), (), case.data, values))

    with engine.precision():
        work()
        # A copied context knows the precision, but JAX's own state is the thread's.
        target = (lambda: contextvars.copy_context().run(work)) if copy_context else work
        context = contextvars.copy_context()
        thread = threading.Thread(target=(lambda: context.run(target)) if copy_context else target)
        thread.start()
        thread.join()
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ENGINES)
def test_one_seed_gives_the_same_draws(name):
    engine = engines.get(name)
    model = eight_schools.native(name)
    a, b, c = (
        engine.prior_predictive(model, ([1.0],), {}, 3, seed=seed)["y"] for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("name", ENGINES)
def test_a_plate_may_be_entered_again(name):
    @program
    def twice(x):
        with plate("row", 6, subsample_size=3) as i:
            loc = sample("loc", dist.Normal(0, 1))
        with plate("group", 2):
            sample("effect", dist.Normal(0, 1))
            with plate("row", 6, subsample_size=3) as again:
                sample("x", dist.Normal(ops.expand_dims(loc, axis=-1), 1))
        deterministic("first", 1.0 * i)
        deterministic("second", 1.0 * again)

    trace = engines.get(name).trace(twice.native(name), (np.zeros(6),))
    assert trace["x"].plates == (("row", 3), ("group", 2))
    assert trace["loc"].plates == (("row", 3),)
    assert sorted(trace["first"].value) == sorted(set(trace["second"].value))
    np.testing.assert_array_equal(trace["first"].value, trace["second"].value)


@pytest.mark.parametrize("name", ENGINES)
def test_minibatch_scales_the_likelihood(name):
    engine = engines.get(name)
    x, y = np.arange(6.0), np.ones(6)
    model = minibatch.native(name)
    site = engine.trace(model, (x, y, 2))["y"]
    assert site.plates == (("row", 2),)
    # Rows 1 and 4, by fixing the index that the plate draws.
    values = {"slope": 0.2, "row": np.array([1, 4])}
    got = engine.log_joint(model, (x, y, 2), {}, values)
    rows = x[[1, 4]]
    normal = -0.5 * np.log(2 * np.pi)
    expected = (
        normal - np.log(0.1) - 0.5 * 4 + 3 * (2 * normal - 0.5 * ((y[0] - 0.2 * rows) ** 2).sum())
    )
    assert got == pytest.approx(expected, rel=1e-12)


def test_plain_numpyro_takes_a_program():
    import jax
    from numpyro.infer import MCMC, NUTS, Predictive

    sigma, y = CASES[0].data["sigma"], CASES[0].data["y"]
    mcmc = MCMC(NUTS(eight_schools.numpyro), num_warmup=20, num_samples=20, progress_bar=False)
    mcmc.run(jax.random.key(0), sigma, y=y)
    draws = mcmc.get_samples()
    assert draws["theta"].shape == (20, 3)
    predictive = Predictive(eight_schools.numpyro, draws)(jax.random.key(1), sigma)
    assert predictive["y"].shape == (20, 3)


def test_plain_pyro_takes_a_program():
    import pyro
    from pyro import poutine
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoNormal

    data = CASES[0].data
    trace = poutine.trace(eight_schools.pyro).get_trace(**data)
    assert trace.nodes["y"]["value"].dtype.is_floating_point
    assert np.isfinite(trace.log_prob_sum().item())
    with pyro.get_param_store().scope():
        guide = AutoNormal(eight_schools.pyro)
        svi = SVI(eight_schools.pyro, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        assert np.isfinite(svi.step(**data))


@pytest.mark.parametrize("name", ENGINES)
def test_programs_compose(name):
    @program
    def location():
        return sample("loc", dist.Normal(0, 1))

    @program
    def whole(y=None):
        sample("y", dist.Normal(location(), 1), obs=y)

    assert list(engines.get(name).trace(whole.native(name))) == ["loc", "y"]


def test_outside_of_an_engine_errors_tell_what_to_do():
    with pytest.raises(RuntimeError, match=r"eight_schools\.pyro, eight_schools\.numpyro"):
        eight_schools([1.0])
    for use in (
        lambda: sample("x", None),
        lambda: plate("x", 1),
        lambda: param("x"),
        lambda: factor("x", 0.0),
        lambda: dist.Normal(0, 1),
        lambda: ops.exp(1.0),
        lambda: dist.constraints,
    ):
        with pytest.raises(RuntimeError, match="decorate the function with @program"):
            use()


def test_wrong_arguments_name_the_program():
    with pytest.raises(TypeError, match=r"eight_schools: .*expected the arguments"):
        eight_schools.numpyro(nonsense=1)


def test_a_missing_distribution_names_the_engine_that_has_it():
    @program
    def only_pyro():
        sample("x", dist.SpanningTree(1))

    @program
    def only_numpyro():
        sample("x", dist.TruncatedNormal(0.0, 1.0, low=0.0))

    @program
    def nowhere():
        sample("x", dist.Nonsense())

    @program
    def no_such_operation():
        ops.nonsense(1.0)

    with pytest.raises(AttributeError, match=r"engine numpyro has no such.*pyro has it"):
        only_pyro.numpyro()
    with pytest.raises(AttributeError, match=r"engine pyro has no such.*numpyro has it"):
        only_numpyro.pyro()
    for name in ENGINES:
        with pytest.raises(AttributeError, match=r"dist\.Nonsense.*see dir\(dist\)"):
            nowhere.native(name)()
        with pytest.raises(AttributeError, match=r"ops\.nonsense"):
            no_such_operation.native(name)()
    assert "StudentT" in dir(dist)


@pytest.mark.parametrize("name", ENGINES)
def test_param_takes_its_value_and_its_constraint(name):
    @program
    def with_param():
        scale = param("scale", 0.5, constraint=dist.constraints.positive)
        sample("x", dist.Normal(0, scale))

    engine = engines.get(name)
    trace = engine.trace(with_param.native(name))
    assert trace["scale"].kind == "param"
    assert trace["scale"].value == 0.5
    trace = engine.trace(with_param.native(name), values={"scale": 2.0, "x": 0.0})
    assert trace["x"].log_prob == pytest.approx(-0.5 * np.log(2 * np.pi) - np.log(2))


@pytest.mark.parametrize("name", ENGINES)
def test_log_joint_names_what_is_missing(name):
    with pytest.raises(ValueError, match="no value for tau, z"):
        engines.get(name).log_joint(eight_schools.native(name), ([1.0],), {"y": [1.0]}, {"mu": 0})


@pytest.mark.parametrize("name", ENGINES)
def test_factor_is_a_site_of_its_own_kind(name):
    y = np.arange(8.0)
    trace = engines.get(name).trace(hidden_markov.native(name), (y,))
    assert trace["evidence"].kind == "factor"
    assert not trace["evidence"].observed


@pytest.mark.parametrize("name", ENGINES)
def test_predictive_redraws_groups_that_were_not_there(name):
    engine = engines.get(name)
    draws = {"mu": np.full(50, 100.0), "tau": np.full(50, 1.0), "z": np.full((50, 3), 2.0)}
    model = eight_schools.native(name)
    same = engine.predictive(model, (np.full(3, 0.1),), {}, draws, seed=0)
    np.testing.assert_allclose(same["theta"], 102.0)
    assert same["y"].shape == (50, 3)
    new = engine.predictive(model, (np.full(4, 0.1),), {}, draws, seed=0, sites=["theta"])
    assert new["theta"].shape == (50, 4)
    assert 0.7 < (new["theta"] - 100).std() < 1.3  # standard error of 200 draws: .05
    with pytest.raises(ValueError, match="draws of mu have shape"):
        engine.predictive(model, ([1.0],), {}, {"mu": np.zeros((5, 2))}, seed=0)
    with pytest.raises(ValueError, match="no site nonsense"):
        engine.predictive(model, ([1.0],), {}, draws, seed=0, sites=["nonsense"])


@pytest.mark.parametrize("name", ENGINES)
def test_pointwise_log_prob_does_not_depend_on_batches(name):
    engine = engines.get(name)
    rng = np.random.default_rng(0)
    draws = {"mu": rng.normal(size=7), "tau": rng.gamma(1, size=7), "z": rng.normal(size=(7, 3))}
    model, data = eight_schools.native(name), CASES[0].data
    whole = engine.pointwise_log_prob(model, (), data, draws)
    parts = engine.pointwise_log_prob(model, (), data, draws, batch=3)
    assert list(whole) == ["y"]
    np.testing.assert_allclose(whole["y"], parts["y"], rtol=1e-12)
    theta = draws["mu"][:, None] + draws["tau"][:, None] * draws["z"]
    sigma = data["sigma"]
    expected = -0.5 * ((data["y"] - theta) / sigma) ** 2 - np.log(sigma * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(whole["y"], expected, rtol=1e-12)
    with pytest.raises(ValueError, match="no draws of tau"):
        engine.pointwise_log_prob(model, (), data, {"mu": draws["mu"], "z": draws["z"]})
    with pytest.raises(ValueError, match="no sample site theta"):
        engine.pointwise_log_prob(model, (), data, draws, ["theta"])


def test_native_pyro_models_that_look_at_values_are_mapped_one_by_one():
    import pyro
    import pyro.distributions as pd
    import torch

    def model(y=None):
        loc = pyro.sample("loc", pd.Normal(torch.zeros((), dtype=torch.float64), 1.0))
        if loc.item() > 0:
            loc = -loc
        with pyro.plate("row", 3):
            pyro.sample("y", pd.Normal(loc, 1.0), obs=y)

    engine = engines.get("pyro")
    y = torch.zeros(3, dtype=torch.float64)
    found = engine.pointwise_log_prob(model, (y,), {}, {"loc": np.array([1.0, -1.0])})["y"]
    np.testing.assert_allclose(found[0], found[1])
    drawn = engine.prior_predictive(model, (), {}, 4, seed=0)
    assert drawn["y"].shape == (4, 3)
    assert len(np.unique(drawn["loc"])) == 4


def test_program_describes_itself():
    assert repr(naive_bayes) == "Program(naive_bayes(x=None, y=None, rows=6))"
    page = naive_bayes._repr_html_()
    assert "naive_bayes(x=None" in page
    assert "dist.Categorical(weights)" in page
    assert naive_bayes.pyro is naive_bayes.pyro
    assert str(naive_bayes.signature) == "(x=None, y=None, rows=6)"
    with pytest.raises(ValueError, match="unknown engine 'stan'"):
        naive_bayes.native("stan")


def test_a_jax_log_density_exports_for_cuda():
    import jax
    from numpyro.infer.util import log_density

    case = CASES[3]  # Cholesky factors, a triangular solve, gamma functions

    def kernel(values):
        return jax.value_and_grad(lambda v: log_density(case.program.numpyro, (), case.data, v)[0])(
            values
        )

    with jax.enable_x64(True):
        values = {k: jax.numpy.asarray(v) for k, v in next(points(case, 1)).items()}
        exported = jax.export.export(jax.jit(kernel), platforms=["cuda"])(values)
    assert exported.platforms == ("cuda",)


def test_a_torch_program_stays_on_its_device():
    """On the meta device a tensor left on the CPU by mistake cannot meet the others."""
    import torch

    from ppl_gen.engines.base import Precision

    token = active_precision.set(Precision("float64", "meta"))
    try:
        found = {}

        @program
        def density(x):
            loc = ops.asarray(np.zeros(3)) + 0.1
            # Validation looks at values, which such tensors do not have.
            normal = dist.Normal(loc, np.ones(3), validate_args=False)
            parts = dist.Normal(loc, 0.1, validate_args=False)
            mix = dist.Mixture(np.ones(3) / 3, parts, validate_args=False)
            found["x"] = ops.sum(normal.log_prob(x)) + ops.sum(mix.log_prob(x))

        density.pyro(np.zeros(3))
    finally:
        active_precision.reset(token)
    assert found["x"].device == torch.device("meta")
