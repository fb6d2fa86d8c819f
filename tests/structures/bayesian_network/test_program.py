"""The program of a Bayesian network: its density, its prior, and the names of its sites."""

import numpy as np
import pytest
from scipy import stats

import ppl_gen
from ppl_gen import SVI, Posterior, classify, engines
from ppl_gen.structures.bayesian_network.conditionals import SHRINKAGE, LinearGaussian, Tabular
from ppl_gen.structures.bayesian_network.network import Network
from ppl_gen.structures.bayesian_network.program import (
    axis_names,
    network_coords,
    network_parameters,
    network_program,
    network_sites,
)
from ppl_gen.structures.bayesian_network.softmax import SOFTMAX_PRECISION, Softmax

NO_YES, THREE = ("no", "yes"), ("low", "mid", "high")


def tables():
    """A cause that is never seen, and two signs of it."""
    return Network(
        ("cause", "sign", "other sign"),
        (NO_YES, THREE, NO_YES),
        (
            Tabular(0, (), (2,)),
            Tabular(1, (0,), (2, 3), pseudocount=np.array([[0.5, 1.0, 2.0], [3.0, 0.2, 0.7]])),
            Tabular(2, (1, 0), (3, 2, 2)),
        ),
        ((), (0,), (1, 0)),
    )


def hybrid():
    """Numbers with discrete parents and numbers, and a state that depends on a number."""
    origin, scale = np.array([50.0]), np.array([4.0])
    return Network(
        ("kind", "height", "weight", "alarm"),
        (THREE, None, None, NO_YES),
        (
            Tabular(0, (), (3,)),
            LinearGaussian(1, (0,), (3,), (), origin, scale),
            LinearGaussian(2, (), (), (1,), np.array([50.0, 7.0]), np.array([4.0, 9.0])),
            Softmax(3, (0,), (3, 2), (1,), origin, scale, 3.0 * scale**0.5),
        ),
        ((), (0,), (1,), (0, 1)),
    )


NETWORKS = {"tables": tables(), "hybrid": hybrid()}


@pytest.fixture(params=NETWORKS, scope="module")
def network(request):
    return NETWORKS[request.param]


@pytest.fixture(scope="module")
def prior_draw(network):
    """The sites of one draw from the prior, with rows."""
    return engines.get("pyro").trace(network_program(network).pyro, (), {"n_rows": 9}, seed=4)


@pytest.fixture(scope="module")
def rows(network, prior_draw):
    """These rows, some of them with gaps that both structures can sum out."""
    x = prior_draw["x"].value.copy()
    x[:4, 0] = np.nan
    x[3:6, 2] = np.nan
    return x


def values(trace):
    return {n: s.value for n, s in trace.items() if s.kind == "sample" and n != "x"}


def compiled_jax(prog, rows, given):
    """The log joint and gradient under JAX, which takes long to run what is not compiled."""
    import jax

    engine = engines.get("numpyro")
    joint = jax.value_and_grad(lambda v: engine._joint(prog.numpyro, (), {"x": rows}, v))
    with engine.precision(device="cpu"):
        value, gradient = jax.jit(joint)(engine.to_native(given))
        return float(value), {name: engine.to_numpy(g) for name, g in gradient.items()}


def log_prior(network, trace):
    """What the prior of every node says, written out."""
    site = {name: s.value for name, s in trace.items()}
    total = 0.0
    for node, conditional in zip(network.names, network.conditionals, strict=True):
        if isinstance(conditional, Tabular):
            table = site[f"p_{node}"]
            for index in np.ndindex(table.shape[:-1]):
                total += stats.dirichlet.logpdf(table[index], conditional.concentration[index])
            continue
        drawn = site[f"whitened_{node}"]
        if isinstance(conditional, Softmax):
            total += stats.norm.logpdf(drawn, 0.0, SOFTMAX_PRECISION**-0.5).sum()
            continue
        variance, unit = site[f"variance_{node}"], conditional.scale[-1]
        total += stats.invgamma.logpdf(variance, 1.5, scale=0.5 * unit).sum()
        spread = np.sqrt(variance / (SHRINKAGE * unit))[..., None]
        total += stats.norm.logpdf(drawn, 0.0, spread).sum()
    return total


def test_the_density_is_prior_and_rows_in_both_engines(network, prior_draw, rows):
    prog, given = network_program(network), values(prior_draw)
    parameters = network_parameters(network, {n: s.value for n, s in prior_draw.items()})
    torch_side = engines.get("pyro").log_joint_and_grad(prog.pyro, (), {"x": rows}, given)
    found = {"pyro": torch_side, "numpyro": compiled_jax(prog, rows, given)}
    expected = log_prior(network, prior_draw) + network.log_evidence(parameters, rows).sum()
    for value, _ in found.values():
        # Sums of some tens of terms in double precision.
        assert value == pytest.approx(expected, rel=1e-10)
    (_, one), (_, two) = found.values()
    for name, gradient in one.items():
        assert np.isfinite(gradient).all()
        np.testing.assert_allclose(gradient, two[name], rtol=1e-8, atol=1e-9)


def test_each_row_has_its_density(network, prior_draw, rows):
    engine = engines.get("pyro")
    draws = {name: value[None] for name, value in values(prior_draw).items()}
    prog = network_program(network)
    found = engine.pointwise_log_prob(prog.pyro, (), {"x": rows}, draws)["x"]
    parameters = network_parameters(network, {n: s.value for n, s in prior_draw.items()})
    np.testing.assert_allclose(found[0], network.log_evidence(parameters, rows), rtol=1e-10)


def test_parameters_and_sites_are_each_others_inverse(network, prior_draw):
    sites = {n: np.stack([s.value, s.value]) for n, s in prior_draw.items() if n != "x"}
    parameters = network_parameters(network, sites)
    back = network_sites(network, parameters)
    assert back.keys() == sites.keys()
    for name, value in sites.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-9, atol=1e-12)
    # Parameters of some nodes only, as conjugate draws of the others.
    assert set(network_sites(network, {"0": parameters["0"]})) == {f"p_{network.names[0]}"}


def test_the_prior_is_the_one_that_conjugate_draws_assume():
    """With no row at all, draws of the posterior are draws of the prior."""
    network = NETWORKS["hybrid"]
    node, empty = network.conditionals[2], {"moment": np.zeros((3, 3))}
    drawn = node.draw_posterior(empty, 4000, np.random.default_rng(0))
    sites = network_sites(network, {"2": drawn})
    variance = sites["variance_weight"]
    # The prior of the sites is held by the density above; the seed is fixed.
    assert stats.kstest(variance, stats.invgamma(1.5, scale=4.5).cdf).pvalue > 1e-3
    standard = sites["whitened_weight"] / np.sqrt(variance / (SHRINKAGE * 9.0))[:, None]
    for term in standard.T:
        assert stats.kstest(term, "norm").pvalue > 1e-3


def test_axes_have_the_names_of_the_nodes(network, prior_draw):
    dims = {name: s.dims for name, s in prior_draw.items()}
    coords = network_coords(network)
    if network.names[0] == "cause":
        assert dims["p_other sign"] == ("sign", "cause", "other sign")
        assert coords["sign"] == list(THREE)
    else:
        assert dims["intercept_height"] == dims["variance_height"] == ("kind",)
        assert dims["coefficients_alarm"] == ("kind", "alarm_parent", "alarm")
        assert dims["whitened_weight"] == ("weight_term",)
        assert coords["weight_term"] == ["intercept", "height"]
        assert coords["alarm_parent"] == ["height"]
    assert dims["x"] == ("column",)
    for name, s in prior_draw.items():
        for axis, size in zip(s.dims, s.value.shape[len(s.plates) :], strict=True):
            assert len(coords[axis]) == size, name


def test_a_minibatch_stands_for_all_rows(network, prior_draw, rows):
    model, given = network_program(network).pyro, values(prior_draw)
    x = rows[:1].repeat(8, axis=0)
    whole, part = (
        engines.get("pyro").log_joint(model, (), {"x": x, **settings}, given)
        for settings in ({}, {"batch_size": 2})
    )
    assert part == pytest.approx(whole, rel=1e-12)  # rows that are alike


def test_nodes_that_new_rows_lack_are_summed_out():
    """The rows that were fitted had no gaps; those that are asked about have."""
    network, engine = NETWORKS["tables"], engines.get("pyro")
    prog = network_program(network, 0, "cause")
    trace = engine.trace(prog.pyro, (), {"n_rows": 6}, seed=2)
    x = trace["x"].value
    draws = {name: value[None, None] for name, value in values(trace).items()}
    posterior = Posterior(draws, method="em", engine="pyro", model=prog, kwargs={"x": x})
    known = np.eye(2)[x[:, 0].astype(int)]
    np.testing.assert_allclose(classify(posterior, "cause"), known, atol=1e-12)
    gaps = x.copy()
    gaps[:, 0] = gaps[2:4, 1] = np.nan
    found = classify(posterior, "cause", x=gaps)
    joint = np.stack(
        [
            network.log_evidence(
                network_parameters(network, values(trace)),
                np.where(np.arange(3) == 0, code, gaps),
            )
            for code in range(2)
        ],
        axis=1,
    )
    shares = np.exp(joint - joint.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, shares / shares.sum(axis=1, keepdims=True), rtol=1e-10)


# Names ----------------------------------------------------------------------------------------

ODD = ("a/b", "c", "c.d", " sp ace ", "ünï·☃", "", "draw", "p_c", "row", "50%", "x", "tab\t")


def test_odd_names_go_through_guides_arviz_and_files(tmp_path):
    # Pyro's guides are modules, with the names of the sites for attributes.
    count = len(ODD)
    parents = tuple((v - 1,) if v else () for v in range(count))
    network = Network(
        ODD,
        (NO_YES,) * count,
        tuple(Tabular(v, own, (2,) * (len(own) + 1)) for v, own in enumerate(parents)),
        parents,
    )
    x = np.random.default_rng(0).integers(0, 2, (20, count)).astype(float)
    with pytest.warns(UserWarning, match="not converged"):
        posterior = ppl_gen.infer(
            network_program(network),
            x=x,
            method=SVI(steps=10, draws=5),
            engine="pyro",
            seed=0,
            coords=network_coords(network),
        )
    posterior.save(tmp_path / "posterior")
    group = ppl_gen.load(tmp_path / "posterior").idata.posterior
    assert len(group.data_vars) == count
    assert group["p_ünï·☃"].dims[2:] == (" sp ace ", "ünï·☃")
    assert group["p_c%2Ed"].dims[2:] == ("c", "c.d")
    assert group["p_a%2Fb"].dims[2:] == ("a%2Fb",)
    assert group["p_draw"].dims[2:] == ("_", "draw_")
    assert group["p_p_c"].dims[2:] == ("draw_", "p_c_")
    for axis in axis_names(ODD):
        assert group.coords[axis].values.tolist() == list(NO_YES)


def test_names_that_are_written_alike_are_refused():
    with pytest.raises(ValueError, match="several nodes are written '1'; expected names that"):
        axis_names([1, "1"])
    assert axis_names(["a", "a_", "x", "x_", "b", "p_b"]) == ("a", "a_", "x__", "x_", "b", "p_b_")


def test_states_of_several_kinds_are_written_as_text():
    network = Network(("a",), ((0, "none"),), (Tabular(0, (), (2,)),), ((),))
    assert network_coords(network) == {"column": ["a"], "a": ["0", "none"]}


def test_a_node_of_one_state_has_nothing_to_draw():
    network = Network(
        ("only", "other"),
        (("all",), NO_YES),
        (Tabular(0, (), (1,)), Tabular(1, (0,), (1, 2))),
        ((), (0,)),
    )
    for name in engines.NAMES:
        trace = engines.get(name).trace(network_program(network).native(name), (), {"n_rows": 3})
        assert trace["p_only"].kind == "deterministic"
        np.testing.assert_array_equal(trace["p_only"].value, [1.0])
        assert (trace["x"].value[:, 0] == 0).all()
