"""`dist.HiddenMarkov` on both engines, against the forward recursion in plain probabilities."""

import jax
import numpy as np
import pytest
import torch
from scipy import stats
from zoo import COUNTS, FAMILY, SEQUENCES, chains, counting_chain

from ppl_gen import Posterior, classify, dist, engines, program, sample
from ppl_gen.engines.core import Precision, active_precision

ENGINES = ["pyro", "numpyro"]
START = np.array([0.3, 0.7])
TRANSITION = np.array([[0.9, 0.1], [0.4, 0.6]])
LOC = np.array([[-1.0, 0.5, 2.0], [1.0, 0.0, 0.0]])
VARIANCE = np.array([[1.0, 2.0, 0.5], [0.1, 1.0, 1.0]])
RATE = np.array([1.0, 4.0])
CODES = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
SHARED = np.array([[1.0, 0.3, 0.0], [0.3, 1.0, 0.2], [0.0, 0.2, 2.0]])


@pytest.fixture(params=ENGINES, scope="module")
def engine(request):
    return engines.get(request.param)


def holed(x, *where):
    x = np.array(x, dtype=float)
    for index in where:
        x[index] = np.nan
    return x


ROWS = np.random.default_rng(0).normal(size=(5, 3))

#: Emissions, the data of one sequence, and the log density of each step in each state (T, K).
KINDS = {
    "normal": (
        lambda: dist.Normal(LOC[:, 0], 1.5),
        holed(ROWS[:, 0], 3),
        lambda x: stats.norm.logpdf(x[:, None], LOC[:, 0], 1.5),
    ),
    "columns": (
        lambda: dist.Normal(LOC, 1.5).to_event(1),
        holed(ROWS, (2, 1), 4),
        lambda x: stats.norm.logpdf(x[:, None], LOC, 1.5).sum(-1),
    ),
    "full covariance": (
        lambda: dist.MultivariateNormal(LOC, SHARED),
        holed(ROWS, (0, 1)),
        lambda x: (
            np.stack(
                [stats.multivariate_normal(m, SHARED).logpdf(np.nan_to_num(x)) for m in LOC], axis=1
            )
            + 0.0 * x.sum(1, keepdims=True)
        ),
    ),
    "positive": (
        lambda: dist.Gamma(3.0, RATE),
        holed(np.abs(ROWS[:, 0]) + 0.1, 0, 3),
        lambda x: stats.gamma.logpdf(x[:, None], 3.0, scale=1 / RATE),
    ),
    "bounded": (
        lambda: dist.Uniform(0.0, np.array([2.0, 5.0])),
        holed([0.3, 1.9, 0, 1.2, 1.0], 2),
        lambda x: stats.uniform.logpdf(x[:, None], 0.0, [2.0, 5.0]),
    ),
    "counts": (
        lambda: dist.Poisson(RATE),
        holed([0, 3, 7, 0, 1], 2),
        lambda x: stats.poisson.logpmf(x[:, None], RATE) + 0.0 * x[:, None],
    ),
    "whole counts": (
        lambda: dist.Poisson(RATE),
        np.array([0, 3, 7, 2, 1]),
        lambda x: stats.poisson.logpmf(x[:, None], RATE),
    ),
    "codes": (
        lambda: dist.Categorical(CODES),
        holed([0, 2, 1, 1, 2], 1),
        lambda x: np.log(CODES).T[np.nan_to_num(x).astype(int)] + 0.0 * x[:, None],
    ),
    "family": (
        lambda: dist.Family(FAMILY, {"loc": LOC, "variance": VARIANCE}),
        holed(ROWS, (2, 1), 4),
        lambda x: np.nansum(stats.norm.logpdf(x[:, None], LOC, np.sqrt(VARIANCE)), -1),
    ),
}


@program
def every_kind():
    for kind, (make, x, _) in KINDS.items():
        sample(kind, dist.HiddenMarkov(START, TRANSITION, make(), len(x)), obs=x)


def computed(engine, ask):
    """What a function of no arguments gives inside the engine, compiled where it compiles."""
    with engine.precision(device="cpu"), engine.activate():
        if engine.name == "numpyro":
            ask = jax.jit(ask)
        return ask()


@pytest.fixture(scope="module")
def trace(engine):
    return engine.trace(every_kind.native(engine.name))


@pytest.fixture(scope="module")
def asked(engine):
    """Posteriors of the states, and a posterior path."""

    def ask():
        found = {}
        for kind, (make, x, _) in KINDS.items():
            chain = dist.HiddenMarkov(START, TRANSITION, make(), len(x))
            value = engine.asarray(x)
            found[kind] = (
                chain.latent_posterior(value),
                chain.latent_log_joint(value),
                chain.sample_latent(value, engine.random(0)),
            )
        return found

    found = computed(engine, ask)
    return {k: [engine.to_numpy(x) for x in v] for k, v in found.items()}


def messages(start, transition, emission):
    """Forward and backward messages in plain probabilities: short chains do not underflow."""
    emission = np.exp(emission)
    forward, backward = [start * emission[0]], [np.ones_like(start)]
    for e in emission[1:]:
        forward.append(forward[-1] @ transition * e)
    for e in emission[:0:-1]:
        backward.append(transition @ (e * backward[-1]))
    return np.stack(forward), np.stack(backward[::-1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_is_that_of_the_chain(trace, asked, kind):
    _, x, log_density = KINDS[kind]
    with np.errstate(invalid="ignore"):
        emission = log_density(x)
    emission = np.where(np.isnan(emission), 0.0, emission)
    forward, backward = messages(START, TRANSITION, emission)
    site = trace[kind]
    # Five steps in double precision.
    np.testing.assert_allclose(site.log_prob, np.log(forward[-1].sum()), rtol=1e-12)
    assert (site.latent, site.support) == ("z", None)
    assert site.discrete == (kind in ("counts", "whole counts", "codes"))
    posterior, joint, path = asked[kind]
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(joint, np.log(forward * backward), rtol=1e-10)
    expected = forward * backward / forward[-1].sum()
    np.testing.assert_allclose(posterior, expected, rtol=1e-10)
    assert path.shape == (5,)
    assert set(np.unique(path)) <= {0, 1}


def log_prob(engine, make, x):
    return engine.to_numpy(computed(engine, lambda: make().log_prob(engine.asarray(x))))


def test_padding_at_the_end_is_exact(engine):
    def make(length):
        return lambda: dist.HiddenMarkov(
            START, TRANSITION, dist.Normal(LOC, 1.5).to_event(1), length
        )

    padded = np.concatenate([ROWS[:3], np.full((2, 3), np.nan)])
    expected = log_prob(engine, make(3), ROWS[:3])
    np.testing.assert_allclose(log_prob(engine, make(5), padded), expected, rtol=1e-13)


def test_wholly_missing_sequences_say_nothing(engine):
    make = lambda: dist.HiddenMarkov(START, TRANSITION, dist.Poisson(RATE), 4)  # noqa: E731
    np.testing.assert_allclose(log_prob(engine, make, np.full(4, np.nan)), 0.0, atol=1e-14)


def test_every_part_may_differ_by_sequence(engine):
    rng = np.random.default_rng(1)
    start, transition = rng.dirichlet(np.ones(2), 4), rng.dirichlet(np.ones(2), (4, 2))
    loc, x = rng.normal(size=(4, 2)), rng.normal(size=(4, 4))
    x[1, 2] = np.nan
    parts = {
        "all": (start, transition, loc),
        "start": (start, TRANSITION, LOC[:, 0]),
        "transition": (START, transition, LOC[:, 0]),
        "emissions": (START, TRANSITION, loc),
    }
    for a, b, c in parts.values():
        found = log_prob(
            engine, lambda a=a, b=b, c=c: dist.HiddenMarkov(a, b, dist.Normal(c, 1.0), 4), x
        )
        assert found.shape == (4,)
        for i in range(4):
            one = [part if part.ndim == n else part[i] for part, n in ((a, 1), (b, 2), (c, 1))]
            emission = np.nan_to_num(stats.norm.logpdf(x[i][:, None], one[2], 1.0))
            expected = np.log(messages(one[0], one[1], emission)[0][-1].sum())
            np.testing.assert_allclose(found[i], expected, rtol=1e-12)


def test_one_state_is_independent_steps_and_one_step_a_mixture(engine):
    x = np.array([0.3, -1.0])
    single = log_prob(
        engine, lambda: dist.HiddenMarkov([1.0], [[1.0]], dist.Normal([0.5], 1), 2), x
    )
    np.testing.assert_allclose(single, stats.norm.logpdf(x, 0.5).sum(), rtol=1e-12)
    normal = lambda: dist.Normal([0.0, 2.0], 1.0)  # noqa: E731
    step = log_prob(engine, lambda: dist.HiddenMarkov(START, TRANSITION, normal(), 1), x[:1])
    mixed = log_prob(engine, lambda: dist.Mixture(START, normal()), x[0])
    np.testing.assert_allclose(step, mixed, rtol=1e-12)


def test_nothing_is_left_on_the_cpu():
    """Torch's meta device stands for a GPU: a tensor left on the CPU cannot meet the others."""
    engine, device = engines.get("pyro"), torch.device("meta")
    token = active_precision.set(Precision("float64", "meta"))
    try:
        with engine.activate():
            emissions = dist.Normal(torch.ones(2, device=device), 1.0, validate_args=False)
            parts = [torch.ones(shape, device=device) for shape in ((2,), (2, 2))]
            chain = dist.HiddenMarkov(*parts, emissions, 5, validate_args=False)
            value = torch.zeros((3, 5), device=device)
            drawn = chain.expand((3,)).sample()
            found = [chain.log_prob(value), chain.latent_posterior(value), drawn]
    finally:
        active_precision.reset(token)
    assert [x.device for x in found] == [device] * 3
    assert [tuple(x.shape) for x in found] == [(3,), (3, 5, 2), (3, 5)]


def test_the_density_and_its_gradient_lower_for_cuda():
    engine = engines.get("numpyro")

    def log_prob(loc, x):
        return dist.HiddenMarkov(START, TRANSITION, dist.Normal(loc, 1.0), 5).log_prob(x).sum()

    with engine.precision(device="cpu"), engine.activate():
        given = [engine.asarray(LOC[:, 0]), engine.asarray(ROWS[:, 0])]
        exported = jax.export.export(jax.jit(jax.grad(log_prob)), platforms=["cuda"])(*given)
    assert exported.platforms == ("cuda",)


# Drawing --------------------------------------------------------------------------------------


@program
def far_apart(n=4000):
    """Emissions that tell their state; the families' rows as well."""
    parameters = {"loc": 100.0 * np.arange(2)[:, None] + np.zeros(3), "variance": VARIANCE}
    normal = dist.Normal(np.array([0.0, 100.0]), 1.0)
    rows = dist.Family(FAMILY, parameters)
    sample("x", dist.HiddenMarkov(START, TRANSITION, normal, 3).expand([n]))
    sample("rows", dist.HiddenMarkov(START, TRANSITION, rows, 3).expand([n]))
    sample("one", dist.HiddenMarkov([0.0, 1.0], np.eye(2), normal, 3))


def test_draws_follow_the_chain_and_its_emissions(engine):
    trace = engine.trace(far_apart.native(engine.name), seed=3)
    paths = np.array(list(np.ndindex(2, 2, 2)))
    expected = START[paths[:, 0]] * TRANSITION[paths[:, :-1], paths[:, 1:]].prod(1)
    for name in ("x", "rows"):
        x = trace[name].value
        states = ((x if x.ndim == 2 else x[..., 0]) > 50).astype(int)
        counts = np.bincount(states @ [4, 2, 1], minlength=8)
        # The seed is fixed: one of a thousand would fail by chance.
        assert stats.chisquare(counts, 4000 * expected).pvalue > 1e-3
        if name == "rows":
            assert x.shape == (4000, 3, 3)
            deviations = (x - 100.0 * states[..., None])[states == 1]
            # A standard deviation from n normal draws has a standard error of s / sqrt(2 n).
            error = 4 / np.sqrt(2 * len(deviations))
            np.testing.assert_allclose(deviations.std(0), np.sqrt(VARIANCE[1]), rtol=error)
        else:
            assert stats.kstest((x - 100.0 * states).ravel(), "norm").pvalue > 1e-3
    assert trace["one"].value.shape == (3,)
    assert (trace["one"].value > 50).all()


def test_paths_follow_the_posterior_of_the_states(engine):
    x, n = KINDS["normal"][1], 10_000

    def ask():
        chain = dist.HiddenMarkov(START, TRANSITION, dist.Normal(LOC[:, 0], 1.5), len(x))
        value = engine.asarray(np.broadcast_to(x, (n, len(x))))
        return chain.latent_posterior(value[:1]), chain.sample_latent(value, engine.random(2))

    posterior, path = (engine.to_numpy(found) for found in computed(engine, ask))
    # Four standard errors of a share: 4 sqrt(0.25 / n).
    np.testing.assert_allclose((path == 1).mean(0), posterior[0, :, 1], atol=0.02)


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((START, TRANSITION, [0.0, 1.0, 2.0], 3), r"emissions batch shape \(3,\); expected"),
        (([0.2, 0.3, 0.5], TRANSITION, [0.0, 1.0], 3), r"start has shape \(3,\)"),
        ((START, [0.5, 0.5], [0.0, 1.0], 3), r"transition \(2,\)"),
        ((START, TRANSITION[:1], [0.0, 1.0], 3), r"transition \(1, 2\)"),
        ((START, TRANSITION, 0.0, 3), r"emissions batch shape \(\); expected"),
        ((START, TRANSITION, [0.0, 1.0], 0), "length is 0; expected a whole number"),
        ((START, TRANSITION, [0.0, 1.0], 2.5), "length is 2.5; expected a whole number"),
    ],
)
def test_parts_that_do_not_fit_are_refused(engine, arguments, message):
    start, transition, loc, length = arguments
    with (
        engine.precision(device="cpu"),
        engine.activate(),
        pytest.raises(ValueError, match=message),
    ):
        dist.HiddenMarkov(start, transition, dist.Normal(loc, 1.0), length)


def test_sequences_of_another_length_are_refused(engine):
    make = lambda: dist.HiddenMarkov(START, TRANSITION, dist.Normal([0, 1], 1), 4)  # noqa: E731
    with pytest.raises(ValueError, match=r"shape \(3,\)|\[3\]"):
        log_prob(engine, make, np.zeros(3))


def test_validation_takes_nan_and_refuses_what_is_no_probability(engine):
    if engine.name == "numpyro":
        import numpyro

        checked = numpyro.validation_enabled
    else:
        import pyro

        checked = pyro.validation_enabled
    x = np.array([0.0, np.nan, 2.0])
    for values, emissions in [
        (x, lambda: dist.Normal([0.0, 1.0], 1.0)),
        (x, lambda: dist.Poisson(RATE)),
        (x, lambda: dist.Categorical(CODES)),
    ]:
        with checked(True):
            found = log_prob(
                engine,
                lambda e=emissions: dist.HiddenMarkov(START, TRANSITION, e(), 3),
                values,
            )
        assert np.isfinite(found)
    for start, transition in [([0.5, 0.6], TRANSITION), (START, [[0.5, 0.6], [0.5, 0.5]])]:
        with (
            checked(True),
            engine.precision(device="cpu"),
            engine.activate(),
            pytest.raises(ValueError, match=r"HiddenMarkov"),
        ):
            dist.HiddenMarkov(start, transition, dist.Normal([0.0, 1.0], 1.0), 3)


# What is asked of a posterior -------------------------------------------------------------------


@pytest.fixture(scope="module")
def posterior():
    """Draws as a sampler would give them: what follows from them is known."""
    rng = np.random.default_rng(4)
    draws = {
        "start": rng.dirichlet(np.ones(2), size=(1, 3)),
        "transition": rng.dirichlet(np.ones(2), size=(1, 3, 2)),
        "mu": np.sort(rng.normal(size=(1, 3, 2)), axis=-1),
    }
    return Posterior(draws, method="nuts", engine="numpyro", model=chains, kwargs={"y": SEQUENCES})


def joint_of(draws, draw, y):
    """p(z_t, y) of one sequence under one draw."""
    mu = draws["mu"][0, draw]
    emission = stats.norm.logpdf(y[:, None], np.stack([mu, -mu], axis=-1), 0.5).sum(-1)
    start, transition = draws["start"][0, draw], draws["transition"][0, draw]
    forward, backward = messages(start, transition, np.nan_to_num(emission))
    return forward * backward


def test_classify_gives_the_states_of_the_steps(posterior):
    joint = np.stack(
        [[joint_of(posterior.draws, s, y) for y in SEQUENCES] for s in range(3)]
    )  # (draws, sequences, steps, states)
    found = classify(posterior, "z")
    assert found.shape == (3, 5, 2)
    expected = (joint / joint.sum(-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    # New sequences weigh the draws in, too.
    new = classify(posterior, "z", y=SEQUENCES[::-1])
    pooled = joint.sum(0)[::-1]
    np.testing.assert_allclose(new, pooled / pooled.sum(-1, keepdims=True), rtol=1e-9)


def test_classify_of_one_chain_has_no_axis_of_sequences():
    draws = {"stay": np.full((1, 2), 0.7), "rate": np.tile([8.0, 1.0], (1, 2, 1))}
    posterior = Posterior(
        draws, method="nuts", engine="pyro", model=counting_chain, kwargs={"y": COUNTS}
    )
    found = classify(posterior, "z")
    assert found.shape == (6, 2)
    np.testing.assert_allclose(found[0], [1.0, 0.0], atol=1e-12)
    assert (np.diff(found[:, 1]) >= -1e-12).all()  # there is no way back
    with pytest.raises(ValueError, match="'w' is no finite discrete site; expected one of z"):
        classify(posterior, "w")


def test_a_sequence_is_one_datum(posterior):
    log_likelihood = posterior.log_likelihood()["y"]
    expected = [
        [np.log(joint_of(posterior.draws, s, y)[0].sum()) for y in SEQUENCES] for s in range(3)
    ]
    np.testing.assert_allclose(log_likelihood[0], expected, rtol=1e-9)
    assert posterior.idata.log_likelihood["y"].dims == ("chain", "draw", "sequence")
    assert posterior.idata.observed_data["y"].dims == ("sequence", "step", "column")
    drawn = posterior.predictive(sequences=2, length=5, y=None)["y"]
    assert drawn.shape == (3, 2, 5, 2)
    assert np.isfinite(drawn).all()


def test_the_graph_has_the_sequence_as_one_node():
    graph = chains.graph(y=SEQUENCES)
    assert set(graph.predecessors("y")) == {"start", "transition", "mu"}
    assert graph.nodes["y"]["distribution"] == "HiddenMarkov"
    assert graph.nodes["y"]["plates"] == (("sequence", 3),)
