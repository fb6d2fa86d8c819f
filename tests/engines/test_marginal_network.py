"""`dist.BayesNet` on both engines, against the joint table of a small network."""

import itertools

import jax
import numpy as np
import pytest
import torch
from network_problems import brute_force_joint, random_network
from scipy import stats
from zoo import CODES, diagnosis

from ppl_gen import Posterior, classify, dist, engines, program, sample
from ppl_gen.engines.core import Precision, active_precision

ENGINES = ["pyro", "numpyro"]
RNG = np.random.default_rng(7)
PARENTS, SIZES, TABLES = random_network(RNG, 4, sizes=(2, 3))
JOINT = brute_force_joint(PARENTS, SIZES, TABLES)
#: Every row, with each node missing in turn as the last of its codes.
ALL_ROWS = np.array(list(itertools.product(*((*range(k), np.nan) for k in SIZES))))


@pytest.fixture(params=ENGINES, scope="module")
def engine(request):
    return engines.get(request.param)


def computed(engine, ask, dtype=None):
    """What a function of no arguments gives inside the engine, compiled where it compiles."""
    with engine.precision(dtype, device="cpu"), engine.activate():
        if engine.name == "numpyro":
            ask = jax.jit(ask)
        return engine.to_numpy(ask())


def net(hidden=range(4), **settings):
    return dist.BayesNet(PARENTS, TABLES, hidden, **settings)


def given(row):
    """The part of the joint table that agrees with a row."""
    return JOINT[tuple(slice(None) if np.isnan(code) else int(code) for code in row)]


def test_the_density_is_that_of_the_table_and_sums_to_one(engine):
    found = computed(engine, lambda: net().log_prob(engine.asarray(ALL_ROWS)))
    expected = [given(row).sum() for row in ALL_ROWS]
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-12)
    complete = ~np.isnan(ALL_ROWS).any(axis=1)
    looked_up = computed(engine, lambda: net(()).log_prob(engine.asarray(ALL_ROWS)))
    np.testing.assert_allclose(looked_up[complete], found[complete], rtol=1e-12)
    np.testing.assert_allclose(np.exp(looked_up[complete]).sum(), 1.0, rtol=1e-12)
    # Without the leave to be missing, what is missing is not passed over in silence.
    assert np.isnan(looked_up[~complete]).all()


def test_rows_may_have_any_batch_shape(engine):
    x = ALL_ROWS[:24].reshape(2, 3, 4, 4)
    found = computed(engine, lambda: net(latent_node=1).log_prob(engine.asarray(x)))
    flat = computed(engine, lambda: net().log_prob(engine.asarray(ALL_ROWS[:24])))
    np.testing.assert_allclose(found, flat.reshape(2, 3, 4), rtol=1e-13)
    one = computed(engine, lambda: net(latent_node=1).latent_posterior(engine.asarray(x[0, 0, 0])))
    assert one.shape == (SIZES[1],)
    whole = np.nan_to_num(x).astype(int)  # codes that come as whole numbers
    found = computed(engine, lambda: net(()).log_prob(engine.asarray(whole)))
    np.testing.assert_allclose(found, np.log(JOINT[tuple(np.moveaxis(whole, -1, 0))]), rtol=1e-12)


@pytest.mark.parametrize("node", range(4))
def test_the_latent_node_has_its_posterior(engine, node):
    def ask():
        value, own = engine.asarray(ALL_ROWS), net(latent_node=node, latent="w")
        rest = net([v for v in range(4) if v != node], latent_node=node)
        found = (own.latent_log_joint, own.latent_posterior, rest.latent_posterior)
        return engine.ops.stack([function(value) for function in found])

    expected = []
    for row in ALL_ROWS:
        joint = np.zeros(SIZES[node])
        for code in range(SIZES[node]):
            if np.isnan(row[node]) or row[node] == code:
                joint[code] = given(np.where(np.arange(4) == node, code, row)).sum()
        expected.append(joint)
    expected = np.array(expected)
    joint, posterior, unlisted = computed(engine, ask)
    np.testing.assert_allclose(np.exp(joint), expected, rtol=1e-12)
    shares = expected / expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(posterior, shares, rtol=1e-12)
    # The node need not be among the hidden ones.
    np.testing.assert_allclose(unlisted, shares, rtol=1e-12)


def test_draws_of_the_latent_node_follow_its_posterior(engine):
    row, n = np.array([np.nan, np.nan, 1.0, np.nan]), 10_000
    value = np.broadcast_to(row, (n, 4))

    def ask():
        return net(latent_node=1).sample_latent(engine.asarray(value), engine.random(2))

    expected = given(row).sum(axis=(0, 2))
    counts = np.bincount(computed(engine, ask), minlength=SIZES[1])
    # The seed is fixed: one of a thousand would fail by chance.
    assert stats.chisquare(counts, n * expected / expected.sum()).pvalue > 1e-3


@program
def drawn(n=8000):
    sample("x", net().expand([n]))
    sample("one", net())


def test_draws_are_complete_rows_of_the_joint(engine):
    trace = engine.trace(drawn.native(engine.name), seed=3)
    x = trace["x"].value
    assert x.shape == (8000, 4)
    assert trace["one"].value.shape == (4,)
    assert x.dtype == np.float64
    assert trace["x"].discrete
    counts = np.bincount(np.ravel_multi_index(x.astype(int).T, SIZES), minlength=JOINT.size)
    expected = 8000 * JOINT.ravel()
    common = expected > 5  # where the chi-square holds
    assert common.sum() > 10
    observed, expected = (np.append(c[common], c[~common].sum()) for c in (counts, expected))
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_nothing_is_left_on_the_cpu():
    """Torch's meta device stands for a GPU: a tensor left on the CPU cannot meet the others."""
    engine, device = engines.get("pyro"), torch.device("meta")
    token = active_precision.set(Precision("float64", "meta"))
    try:
        with engine.activate():
            tables = [torch.ones(table.shape, device=device) for table in TABLES]
            network = dist.BayesNet(PARENTS, tables, (0, 2), 1, validate_args=False)
            value = torch.zeros((3, 4), device=device)
            drawn = network.expand((3,)).sample()
            found = [network.log_prob(value), network.latent_posterior(value), drawn]
    finally:
        active_precision.reset(token)
    assert [x.device for x in found] == [device] * 3
    assert [tuple(x.shape) for x in found] == [(3,), (3, SIZES[1]), (3, 4)]


def test_the_density_and_its_gradient_lower_for_cuda():
    engine = engines.get("numpyro")

    def log_prob(tables, x):
        return dist.BayesNet(PARENTS, tables, (0, 2)).log_prob(x).sum()

    with engine.precision(device="cpu"), engine.activate():
        tables = [engine.asarray(table) for table in TABLES]
        x = engine.asarray(ALL_ROWS)
        exported = jax.export.export(jax.jit(jax.grad(log_prob)), platforms=["cuda"])(tables, x)
    assert exported.platforms == ("cuda",)


def test_single_precision_stays_single(engine):
    found = computed(engine, lambda: net().log_prob(engine.asarray(ALL_ROWS)), "float32")
    rows = computed(
        engine,
        lambda: net((), latent_node=0).latent_posterior(engine.asarray(ALL_ROWS)),
        "float32",
    )
    assert found.dtype == rows.dtype == np.float32
    expected = [given(row).sum() for row in ALL_ROWS]
    # Some tens of roundings of 6e-8.
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)


# Bad input ------------------------------------------------------------------------------------

COIN, PAIR = [0.5, 0.5], [[0.5, 0.5], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([(), (0,)], [COIN]), "2 nodes have parents and 1 have tables"),
        (([], []), "0 nodes have parents"),
        (([(), (2,)], [COIN, PAIR]), "there is no node 2; expected numbers from 0 to 1"),
        (([(), (-1,)], [COIN, PAIR]), "there is no node -1"),
        (([()], [COIN], (3,)), "there is no node 3"),
        (([()], [COIN], (), 5), "there is no node 5"),
        (([(), ()], [COIN, PAIR]), r"table of node 1 has shape \(2, 2\) for the parents \(\)"),
        (([(), (0,)], [[0.2, 0.3, 0.5], PAIR]), r"parents \(0,\) of \(3,\) states; expected one"),
        (([(), (0, 0)], [COIN, np.full((2, 2, 2), 0.5)]), "each parent once"),
        (([()], [np.array(1.0)]), r"table of node 0 has shape \(\)"),
        (([(1,), (0,)], [PAIR, PAIR]), "dist.BayesNet: the parents of nodes 0, 1 go round"),
        (([(0,)], [PAIR]), "go round in a circle"),
    ],
)
def test_parts_that_do_not_fit_are_refused(engine, arguments, message):
    with (
        engine.precision(device="cpu"),
        engine.activate(),
        pytest.raises(ValueError, match=message),
    ):
        dist.BayesNet(*arguments)


def test_rows_of_another_width_and_a_latent_that_was_not_named_are_refused(engine):
    with engine.precision(device="cpu"), engine.activate():
        for x in (np.zeros(3), np.zeros((4, 5)), np.array(1.0)):
            with pytest.raises(ValueError, match="expected rows of 4 codes, one a node"):
                net().log_prob(engine.asarray(x))
        with pytest.raises(ValueError, match="no node can be asked for"):
            net().latent_posterior(engine.asarray(ALL_ROWS))


def test_validation_takes_nan_and_refuses_what_is_no_probability(engine):
    if engine.name == "numpyro":
        import numpyro

        checked = numpyro.validation_enabled
    else:
        import pyro

        checked = pyro.validation_enabled
    with checked(True), engine.precision(device="cpu"), engine.activate():
        coin = dist.BayesNet([()], [COIN], [0]).expand([2])
        found = coin.log_prob(engine.asarray(np.array([[np.nan], [1.0]])))
        np.testing.assert_allclose(engine.to_numpy(found), np.log([1.0, 0.5]), atol=1e-15)
        for table in ([[0.5, 0.6], [0.5, 0.5]], [[1.2, -0.2], [0.5, 0.5]], [[np.nan, 1], COIN]):
            with pytest.raises(ValueError, match="table of node 1 has rows that are no probab"):
                dist.BayesNet([(), (0,)], [COIN, table])


# What is asked of a posterior -------------------------------------------------------------------


@pytest.fixture(scope="module", params=ENGINES)
def posterior(request):
    """Draws as a sampler would give them: what follows from them is known."""
    rng = np.random.default_rng(4)
    draws = {
        "ill": rng.dirichlet(np.ones(2), size=(1, 3)),
        "test": rng.dirichlet(np.ones(3), size=(1, 3, 2)),
        "pain": rng.dirichlet(np.ones(2), size=(1, 3, 3, 2)),
    }
    return Posterior(
        draws, method="nuts", engine=request.param, model=diagnosis, kwargs={"x": CODES}
    )


def joint_of(draws, draw, row):
    """p(ill, what a row has) under one draw."""
    test, pain = draws["test"][0, draw], draws["pain"][0, draw]
    joint = draws["ill"][0, draw][:, None] * test * pain[:, :, int(row[2])].T  # (ill, test)
    return joint.sum(axis=1) if np.isnan(row[1]) else joint[:, int(row[1])]


def test_classify_and_leave_one_out_have_every_row(posterior):
    joint = np.stack([[joint_of(posterior.draws, s, row) for row in CODES] for s in range(3)])
    expected = (joint / joint.sum(-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(classify(posterior, "z"), expected, rtol=1e-9)
    # New rows weigh the draws in, too.
    pooled = joint.sum(0)[::-1]
    found = classify(posterior, "z", x=CODES[::-1])
    np.testing.assert_allclose(found, pooled / pooled.sum(-1, keepdims=True), rtol=1e-9)
    log_likelihood = posterior.log_likelihood()["x"]
    np.testing.assert_allclose(log_likelihood[0], np.log(joint.sum(-1)), rtol=1e-9)
    assert posterior.idata.log_likelihood["x"].dims == ("chain", "draw", "row")
    assert posterior.idata.observed_data["x"].dims == ("row", "column")
    rows = posterior.predictive(rows=4, x=None)["x"]
    assert rows.shape == (3, 4, 3)
    assert (rows < np.array([2, 3, 2])).all()


def test_the_graph_has_the_row_as_one_node():
    graph = diagnosis.graph(x=CODES)
    assert set(graph.predecessors("x")) == {"ill", "test", "pain"}
    assert graph.nodes["x"]["distribution"] == "BayesNet"
