import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pytest
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Rectangle
from zoo import CASES, eight_schools, hidden_markov, mixture

from ppl_gen import deterministic, dist, engines, ops, plate, program, sample
from ppl_gen.graph import dependency_graph

SIGMA, Y = np.array([15.0, 10.0, 16.0]), np.array([28.0, 8.0, -3.0])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@program
def levels(x=None, y=None, groups=4, rows=10):
    alpha = sample("alpha", dist.Gamma(2.0, 1.0))
    beta = sample("beta", dist.Normal(0.0, 1.0))
    weights = sample("weights", dist.Dirichlet(np.ones(3)))
    with plate("group", groups):
        a = sample("a", dist.Normal(beta, alpha))
        with plate("row", rows):
            z = sample("z", dist.Categorical(weights))
            mean = deterministic("mean", a * z)
            sample("y", dist.Normal(mean, 1.0), obs=y)
    sample("total", dist.Normal(ops.sum(a), 1.0), obs=x)


def test_graph_tells_who_depends_on_whom():
    graph = eight_schools.graph(SIGMA, y=Y)
    assert set(graph.edges) == {
        ("mu", "theta"),
        ("tau", "theta"),
        ("z", "theta"),
        ("theta", "y"),
    }
    assert graph.nodes["y"] == {
        "kind": "sample",
        "observed": True,
        "latent": False,
        "discrete": False,
        "plates": (("school", 3),),
        "distribution": "Normal",
    }
    assert graph.nodes["theta"]["kind"] == "deterministic"
    assert graph.nodes["tau"]["latent"]
    assert eight_schools.graph(SIGMA).nodes["y"]["latent"]


def test_plates_are_told_outermost_first():
    graph = levels.graph(1.0, np.zeros((10, 4)))
    assert graph.nodes["z"]["plates"] == (("group", 4), ("row", 10))
    assert graph.nodes["z"]["discrete"]
    assert graph.nodes["z"]["distribution"] == "Categorical"
    assert set(graph.predecessors("mean")) == {"a", "z"}
    assert set(graph.predecessors("total")) == {"a"}


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_both_engines_give_one_graph(case):
    found = []
    for name in ("pyro", "numpyro"):
        model = case.program.native(name)
        parents = engines.get(name).dependencies(model, (), case.data)
        found.append({site: set(p) for site, p in parents.items()})
    assert found[0] == found[1]
    assert nx.is_directed_acyclic_graph(case.program.graph(**case.data))


def test_a_program_of_one_engine_alone_has_a_graph():
    @program
    def only_pyro():
        loc = sample("loc", dist.Normal(0, 1))
        sample("x", dist.SkewLogistic(loc, 1.0), obs=0.1)

    graph = dependency_graph(only_pyro, (), {})
    assert list(graph.edges) == [("loc", "x")]


def test_wrong_arguments_are_told_before_anything_runs():
    with pytest.raises(TypeError, match="eight_schools: missing a required argument"):
        eight_schools.graph()


def test_render_draws_every_site_and_plate():
    ax = levels.render(1.0, np.zeros((10, 4)))
    kinds = [type(patch) for patch in ax.patches]
    assert kinds.count(Ellipse) == 8
    assert kinds.count(FancyBboxPatch) == 2
    assert kinds.count(FancyArrowPatch) == 7
    words = {text.get_text() for text in ax.texts}
    assert {"alpha", "mean", "group: 4", "row: 10", "~ Categorical"} <= words
    assert ax.get_title() == "levels"


def test_colours_tell_latent_observed_and_deterministic():
    ax = eight_schools.render(SIGMA, y=Y)
    ellipses = [patch for patch in ax.patches if isinstance(patch, Ellipse)]
    grey = [e for e in ellipses if e.get_facecolor()[0] < 1]
    dashed = [e for e in ellipses if e.get_linestyle() == "--"]
    assert (len(grey), len(dashed)) == (1, 1)


def boxes(ax):
    """The rectangle of each plate and the centre of each site, in the drawing."""
    plates = [p.get_bbox().extents for p in ax.patches if isinstance(p, FancyBboxPatch)]
    sites = [p.center for p in ax.patches if isinstance(p, Ellipse)]
    return plates, sites


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_plates_hold_their_own_sites_and_no_others(case):
    ax = case.program.render(**case.data)
    graph = case.program.graph(**case.data)
    plates, sites = boxes(ax)
    for x0, y0, x1, y1 in plates:
        inside = sum(x0 < x < x1 and y0 < y < y1 for x, y in sites)
        members = [
            sum(plate in graph.nodes[n]["plates"] for n in graph)
            for plate in {p for n in graph for p in graph.nodes[n]["plates"]}
        ]
        assert inside in members
    for i, (x, y) in enumerate(sites):
        for u, v in sites[:i]:
            assert abs(x - u) > 0.5 or abs(y - v) > 0.5  # no site lies upon another


def test_render_draws_on_given_axes():
    _, ax = plt.subplots()
    assert mixture.render(ax=ax) is ax


def test_factors_are_squares():
    ax = hidden_markov.render(np.zeros(4))
    assert any(isinstance(patch, Rectangle) for patch in ax.patches)
