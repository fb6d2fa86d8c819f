"""Interventions and effects against the truncated factorisation of random networks."""

import dataclasses

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from network_problems import brute_force_joint, random_network
from random_graphs import digraph, random_graph
from scipy.special import expit
from sklearn.exceptions import NotFittedError

import ppl_gen
from ppl_gen import BayesianNetwork, HillClimb, LinearGaussianCPD, SoftmaxCPD, TabularCPD

NAMES = list("abcdefgh")


def network_of(parents, sizes, tables):
    states = [
        [f"{name}{code}" for code in range(size)] for name, size in zip(NAMES, sizes, strict=False)
    ]
    cpds = {}
    for v, above in enumerate(parents):
        own = {NAMES[u]: states[u] for u in (*above, v)}
        cpds[NAMES[v]] = TabularCPD(NAMES[v], tables[v], [NAMES[p] for p in above], own)
    return BayesianNetwork(cpds=cpds)


def problems(n, n_nodes=5, **settings):
    for seed in range(n):
        rng = np.random.default_rng(seed)
        parents, sizes, tables = random_network(rng, n_nodes, sizes=(2, 3), **settings)
        yield rng, parents, sizes, tables, network_of(parents, sizes, tables)


def truncated(parents, sizes, tables, codes):
    """Joint under an intervention: the factors of what is set are cut to its states."""
    changed = list(tables)
    for v, code in codes.items():
        changed[v] = np.broadcast_to(np.eye(sizes[v])[code], tables[v].shape)
    return brute_force_joint(parents, sizes, changed)


def joint_of(net):
    return net.query(list(net.structure_.names)).to_numpy().reshape(net.structure_.sizes)


@pytest.mark.parametrize("zeros", [False, True], ids=["dense", "zeros"])
def test_do_is_the_truncated_factorisation(zeros):
    for rng, parents, sizes, tables, net in problems(40, zeros=zeros):
        chosen = rng.choice(5, int(rng.integers(1, 4)), replace=False)
        codes = {int(v): int(rng.integers(sizes[v])) for v in chosen}
        mutilated = net.do({NAMES[v]: f"{NAMES[v]}{code}" for v, code in codes.items()})
        truth = truncated(parents, sizes, tables, codes)
        np.testing.assert_allclose(joint_of(mutilated), truth, rtol=0, atol=1e-12)
        # One after another is the same as all at once, and the network itself is as it was.
        steps = net
        for v, code in codes.items():
            steps = steps.do({NAMES[v]: f"{NAMES[v]}{code}"})
        np.testing.assert_allclose(joint_of(steps), truth, rtol=0, atol=1e-12)
        joint = brute_force_joint(parents, sizes, tables)
        np.testing.assert_allclose(joint_of(net), joint, rtol=0, atol=1e-12)
        for v in range(5):
            above = set() if v in codes else {NAMES[p] for p in parents[v]}
            assert set(mutilated.graph_.predecessors(NAMES[v])) == above


def test_none_randomises():
    for _, parents, sizes, tables, net in problems(3):
        truth = np.mean(
            [truncated(parents, sizes, tables, {2: code}) for code in range(sizes[2])], axis=0
        )
        np.testing.assert_allclose(joint_of(net.do({"c": None})), truth, rtol=0, atol=1e-12)


def test_a_mutilated_network_draws_scores_and_is_kept(tmp_path):
    _, parents, sizes, tables, net = next(problems(1))
    mutilated = net.do({"b": "b1"})
    rows = mutilated.sample(500, random_state=0)
    assert (rows["b"] == "b1").all()
    codes = [rows[name].cat.codes.to_numpy() for name in NAMES[:5]]
    truth = truncated(parents, sizes, tables, {1: 1})
    np.testing.assert_allclose(mutilated.log_prob(rows), np.log(truth[tuple(codes)]), rtol=1e-12)
    mutilated.save(tmp_path / "net")
    back = ppl_gen.load(tmp_path / "net")
    np.testing.assert_array_equal(joint_of(back), joint_of(mutilated))


def rows_of(net, rows):
    return np.column_stack([rows[name].cat.codes for name in net.structure_.names]).astype(float)


def test_the_program_is_that_of_the_mutilated_network():
    import numpyro.handlers
    import pyro.poutine
    import torch

    _, parents, sizes, tables, net = next(problems(1))
    mutilated = net.do({"b": "b1"})
    x = rows_of(mutilated, mutilated.sample(20, random_state=0))
    given = {f"p_{NAMES[v]}": tables[v] for v in range(5) if v != 1}
    program = mutilated.program()
    model = numpyro.handlers.substitute(program.numpyro, data=given)
    seeded = numpyro.handlers.seed(model, 0)
    trace = numpyro.handlers.trace(seeded).get_trace(x=x)
    joint = truncated(parents, sizes, tables, {1: 1})
    truth = np.log(joint[tuple(x.T.astype(int))])
    site = trace["x"]  # of JAX's own float32, since no context of the library is entered here
    np.testing.assert_allclose(np.asarray(site["fn"].log_prob(site["value"])), truth, rtol=1e-5)
    tensors = {name: torch.as_tensor(value) for name, value in given.items()}
    traced = pyro.poutine.trace(pyro.poutine.condition(program.pyro, data=tensors)).get_trace(x=x)
    traced.compute_log_prob()
    np.testing.assert_allclose(traced.nodes["x"]["log_prob"].detach().numpy(), truth, rtol=1e-5)


def test_a_number_that_is_set_is_certain_in_the_program():
    import pyro.poutine

    program = gaussian().do({"x": 3.0}).program()
    nodes = pyro.poutine.trace(program.pyro).get_trace(n_rows=4).nodes
    assert float(nodes["intercept_x"]["value"]) == 3.0
    np.testing.assert_allclose(np.asarray(nodes["x"]["value"])[:, 1], 3.0, atol=1e-6)


def test_d_separation_is_that_of_networkx():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        parents = random_graph(rng, 7)
        graph = nx.relabel_nodes(digraph(parents), dict(enumerate(NAMES)))
        tables = [np.full((2,) * (len(above) + 1), 0.5) for above in parents]
        net = network_of(parents, [2] * 7, tables)
        order = [NAMES[v] for v in rng.permutation(7)]
        x, y, given = order[:1], order[1:3], order[3 : 3 + int(rng.integers(4))]
        expected = nx.is_d_separator(graph, set(x), set(y), set(given))
        assert net.d_separated(x[0], y, given) == expected


def test_adjustment_and_front_door_equal_the_intervention():
    adjusted = fronted = 0
    for rng, _, _, _, net in problems(60):
        x, y, *others = (NAMES[v] for v in rng.permutation(5))
        unseen = others[: int(rng.integers(2))]
        observed = [name for name in others if name not in unseen]
        size = len(net.states_[x])
        truth = np.array([net.do({x: state}).query(y).to_numpy() for state in net.states_[x]])
        for z in net.back_door_sets(x, y, observed):
            joint = net.query([x, y, *z]).to_numpy().reshape(size, truth.shape[1], -1)
            given = joint / joint.sum(axis=1, keepdims=True)
            found = given @ joint.sum(axis=(0, 1))
            np.testing.assert_allclose(found, truth, rtol=0, atol=1e-12)
            adjusted += 1
        for z in net.front_door_sets(x, y, observed):
            joint = net.query([x, y, *z]).to_numpy().reshape(size, truth.shape[1], -1)
            p_x = joint.sum(axis=(1, 2))
            inner = np.einsum("xyz,x->yz", joint / joint.sum(axis=1, keepdims=True), p_x)
            found = (joint.sum(axis=1) / p_x[:, None]) @ inner.T
            np.testing.assert_allclose(found, truth, rtol=0, atol=1e-12)
            fronted += 1
    assert adjusted > 40
    assert fronted > 20


def smoking(states=("no", "yes")):
    """Smoking, tar and cancer, with a genotype behind two of them (Pearl 2009, section 3.3.3)."""
    tables = {
        "genotype": ([], [0.7, 0.3]),
        "smoking": (["genotype"], [[0.7, 0.3], [0.2, 0.8]]),
        "tar": (["smoking"], [[0.9, 0.1], [0.2, 0.8]]),
        "cancer": (["genotype", "tar"], [[[0.95, 0.05], [0.8, 0.2]], [[0.7, 0.3], [0.4, 0.6]]]),
    }
    return BayesianNetwork(
        cpds={
            name: TabularCPD(name, table, above, {own: list(states) for own in (*above, name)})
            for name, (above, table) in tables.items()
        }
    )


def test_identification_by_each_way():
    net = smoking()
    seen = ["smoking", "tar", "cancer"]
    assert str(net.identify("smoking", "cancer")) == (
        "P(cancer | do(smoking)) = Σ_genotype P(cancer | smoking, genotype) P(genotype)  "
        "[back-door by genotype]"
    )
    front = net.identify("smoking", "cancer", observed=seen)
    assert (front.how, front.nodes) == ("front-door", ("tar",))
    assert front.formula == (
        "Σ_tar P(tar | smoking) [Σ_smoking' P(cancer | tar, smoking') P(smoking')]"
    )
    assert net.identify("smoking", "tar").how == "none needed"
    assert net.identify("cancer", "smoking").how == "no effect"
    assert net.identify("cancer", "smoking").formula == "P(smoking)"
    bow = net.identify("smoking", "cancer", observed=["smoking", "cancer"])
    assert not bow
    assert bow.why == (
        "the path smoking <- genotype -> cancer stays open: genotype is not observed; "
        "hidden causes tie smoking, cancer together"
    )
    # A second way round the front door, and it takes the general algorithm.
    both = net.identify(["smoking", "tar"], "cancer", observed=seen)
    assert both.how == "formula"


def effect_of(net, **settings):
    return net.average_effect("smoking", "cancer", ("no", "yes"), outcome_state="yes", **settings)


def test_effects_of_a_network_equal_queries():
    net = smoking()
    found = effect_of(net)
    means = [net.do({"smoking": s}).query("cancer")["yes"] for s in ("no", "yes")]
    np.testing.assert_allclose(found.means, means, rtol=1e-14)
    np.testing.assert_allclose(float(found), means[1] - means[0], rtol=1e-14)
    assert np.isnan([found.lower, found.upper, found.standard_error]).all()
    assert found.how == "network"
    # By the tables: the effect of tar, averaged over the genotype, times that on tar.
    by_hand = 0.7 * (0.7 * 0.15 + 0.3 * 0.3)
    np.testing.assert_allclose(found.effect, by_hand, rtol=1e-13)
    scored = net.average_effect("smoking", "cancer", ("no", "yes"), scores={"no": 1, "yes": 3})
    np.testing.assert_allclose(scored.effect, 2 * by_hand, rtol=1e-13)
    coded = smoking(states=(0, 1)).average_effect("smoking", "cancer", (0, 1))
    np.testing.assert_allclose(coded.effect, by_hand, rtol=1e-13)


def test_what_is_not_identified_is_refused():
    net = smoking()
    with pytest.raises(ValueError, match=r"smoking <- genotype -> cancer stays open: genotype is"):
        effect_of(net, observed=["smoking", "cancer"])
    # A hidden node of a fit cannot be adjusted for.
    rows = net.sample(300, random_state=0)[["smoking", "cancer"]]
    bow = BayesianNetwork(
        [("genotype", "smoking"), ("genotype", "cancer"), ("smoking", "cancer")],
        states={"genotype": ["a", "b"]},
        random_state=0,
    ).fit(rows)
    with pytest.raises(ValueError, match="genotype is not observed"):
        effect_of(bow)
    with pytest.raises(ValueError, match="not identified"):
        effect_of(bow, data=rows)
    with pytest.raises(ValueError, match=r"\('genotype',\).* hidden|hidden: no column"):
        bow.identify("genotype", "cancer")


def test_estimates_from_rows_by_both_doors():
    net = smoking()
    truth = effect_of(net).effect
    rows = net.sample(40_000, random_state=1)
    back = effect_of(net, data=rows)
    assert back.how == "standardisation"
    front = effect_of(net, data=rows.drop(columns="genotype"))  # what is no column is not used
    assert front.how == "formula"
    for found in (back, front):
        assert abs(found.effect - truth) < 4 * found.standard_error
        assert found.lower < found.effect < found.upper
        assert found.standard_error < 0.01
    half = 1.959964 * back.standard_error
    np.testing.assert_allclose([back.lower, back.upper], [back.effect - half, back.effect + half])
    assert "95% interval" in str(back)
    # An outcome that comes before has no effect, and no error.
    none = net.average_effect("cancer", "smoking", ("no", "yes"), outcome_state="yes", data=rows)
    assert (none.effect, none.standard_error) == (0.0, 0.0)


def test_intervals_of_rows_cover():
    net = smoking()
    truth = effect_of(net).effect
    rows = net.sample(200 * 400, random_state=2)
    covered = 0
    for i in range(200):
        found = effect_of(net, data=rows.iloc[400 * i : 400 * (i + 1)], interval=0.9)
        covered += found.lower < truth < found.upper
    # Binomial(200, 0.9) is outside with probability 0.001; the normal approximation costs a little.
    assert 164 <= covered <= 194


def test_intervals_of_posteriors_cover():
    net = smoking()
    truth = effect_of(net).effect
    rows = net.sample(200 * 400, random_state=3)
    graph = list(net.graph_.edges)
    covered = 0
    for i in range(200):
        own = rows.iloc[400 * i : 400 * (i + 1)]
        fit = BayesianNetwork(graph, inference="conjugate", random_state=i).fit(own)
        found = effect_of(fit, interval=0.9)
        assert found.lower < found.effect < found.upper
        covered += found.lower < truth < found.upper
    assert 164 <= covered <= 194


def test_do_keeps_the_draws():
    net = smoking()
    rows = net.sample(200, random_state=0)
    fit = BayesianNetwork(list(net.graph_.edges), inference="conjugate", random_state=0).fit(rows)
    mutilated = fit.do({"smoking": "yes"})
    for v, name in enumerate(fit.structure_.names):
        table = mutilated.parameters_[str(v)]["table"]
        if name == "smoking":
            assert (table == [0.0, 1.0]).all()
            assert len(table) == len(fit.parameters_[str(v)]["table"]) > 1
        else:
            np.testing.assert_array_equal(table, fit.parameters_[str(v)]["table"])
    frame = mutilated.query("cancer", interval=0.9)
    assert (frame["lower"] < frame["probability"]).all()


def gaussian():
    # z -> x, z -> y, x -> m -> y, x -> y
    return BayesianNetwork(
        [("z", "x"), ("z", "y"), ("x", "m"), ("m", "y"), ("x", "y")],
        cpds={
            "z": LinearGaussianCPD("z", 1.0, [], 1.0, []),
            "x": LinearGaussianCPD("x", 0.5, [2.0], 1.0, ["z"]),
            "m": LinearGaussianCPD("m", 0.0, [1.5], 0.5, ["x"]),
            "y": LinearGaussianCPD("y", 3.0, [4.0, -1.0, 0.25], 2.0, ["z", "m", "x"]),
        },
    )


def test_effects_of_linear_networks_are_sums_over_paths():
    net = gaussian()
    found = net.average_effect("x", "y", (1.0, 3.0))
    np.testing.assert_allclose(found.effect, 2.0 * (1.5 * -1.0 + 0.25), rtol=1e-9)
    np.testing.assert_allclose(found.means[0], 3.0 + 4.0 - 1.5 + 0.25, rtol=1e-9)
    mutilated = net.do({"x": 3.0})
    frame = mutilated.query(["x", "y"])
    np.testing.assert_allclose(frame["mean"], [3.0, 3.25], rtol=1e-9)
    np.testing.assert_allclose(frame["sd"], [0.0, np.sqrt(16.0 + 0.5 + 2.0)], atol=1e-6)
    np.testing.assert_allclose(mutilated.query("z", {"x": 3.0})["mean"], 1.0, rtol=1e-9)
    rows = net.sample(20_000, random_state=0)
    estimated = net.average_effect("x", "y", (1.0, 3.0), data=rows)
    assert estimated.how == "regression"
    assert estimated.identification.nodes == ("z",)
    assert abs(estimated.effect - found.effect) < 4 * estimated.standard_error
    fit = BayesianNetwork(list(net.graph_.edges), inference="conjugate", random_state=0).fit(rows)
    posterior = fit.average_effect("x", "y", (1.0, 3.0))
    assert posterior.lower < found.effect < posterior.upper
    np.testing.assert_allclose(posterior.standard_error, estimated.standard_error, rtol=0.3)


def hybrid():
    # z -> x and both -> y, a number; w is a number between.
    return BayesianNetwork(
        cpds={
            "z": TabularCPD("z", [0.6, 0.4], [], {"z": ["a", "b"]}),
            "x": TabularCPD(
                "x", [[0.8, 0.2], [0.3, 0.7]], ["z"], {"z": ["a", "b"], "x": ["no", "yes"]}
            ),
            "w": LinearGaussianCPD(
                "w", [1.0, 3.0], np.zeros((2, 0)), [1.0, 0.5], ["x"], {"x": ["no", "yes"]}
            ),
            "y": LinearGaussianCPD(
                "y", [0.0, 5.0], [[2.0], [-1.0]], [1.0, 1.0], ["z", "w"], {"z": ["a", "b"]}
            ),
        }
    )


def test_effects_of_states_on_numbers():
    net = hybrid()
    truth = 2.0 * (0.6 * 2.0 + 0.4 * -1.0)
    found = net.average_effect("x", "y", ("no", "yes"))
    np.testing.assert_allclose(found.effect, truth, rtol=1e-12)
    rows = net.sample(20_000, random_state=0)
    estimated = net.average_effect("x", "y", ("no", "yes"), data=rows)
    assert (estimated.how, estimated.identification.nodes) == ("standardisation", ("z",))
    assert abs(estimated.effect - truth) < 4 * estimated.standard_error
    # Of a number on a number among states there is no estimate from rows alone.
    with pytest.raises(ValueError, match=r"\['w', 'y'\] are numbers, beside states"):
        net.average_effect("w", "y", (0.0, 1.0), data=rows)
    slope = net.average_effect("w", "y", (0.0, 1.0))
    np.testing.assert_allclose(slope.effect, 0.6 * 2.0 - 0.4, rtol=1e-9)
    # What is set keeps its variance out of what is below, and nothing above changes.
    frame = net.do({"w": 2.0}).query("y")
    np.testing.assert_allclose(frame["mean"], 0.6 * 4.0 + 0.4 * 3.0, rtol=1e-9)
    assert net.do({"w": 2.0}).query("x")["yes"] == pytest.approx(0.4)


def test_numbers_that_are_set_reach_a_softmax():
    net = BayesianNetwork(
        [("x", "c"), ("u", "x")],
        cpds={
            "u": LinearGaussianCPD("u", 0.0, [], 1.0, []),
            "x": LinearGaussianCPD("x", 0.0, [1.0], 1.0, ["u"]),
            "c": SoftmaxCPD("c", [0.0, 1.0], [[0.0, 2.0]], ["x"], {"c": ["no", "yes"]}),
        },
    )
    found = net.average_effect("x", "c", (0.0, 0.5), outcome_state="yes")
    np.testing.assert_allclose(found.means, expit([1.0, 2.0]), rtol=1e-12)


def test_wrong_names_and_states_are_told():
    net = smoking()
    with pytest.raises(ValueError, match=r"no node 'tea'; the nodes are \['genotype'"):
        net.do({"tea": "yes"})
    with pytest.raises(ValueError, match=r"no state 'maybe'; its states are \['no', 'yes'\]"):
        net.do({"tar": "maybe"})
    with pytest.raises(ValueError, match="finite number"):
        gaussian().do({"x": "high"})
    with pytest.raises(ValueError, match="no uniform distribution"):
        gaussian().do({"x": None})
    with pytest.raises(ValueError, match="'tar' is given twice"):
        net.d_separated("tar", "cancer", given=["tar"])
    with pytest.raises(ValueError, match="no node 'x'"):
        list(net.back_door_sets("smoking", "cancer", observed=["x"]))
    with pytest.raises(ValueError, match="treatment and an outcome"):
        net.identify([], "cancer")


def test_ill_posed_effects_are_told():
    net = smoking()
    with pytest.raises(ValueError, match=r"expected two of 'smoking'.*\['no', 'yes'\]"):
        net.average_effect("smoking", "cancer", "yes", outcome_state="yes")
    with pytest.raises(ValueError, match="two that differ"):
        net.average_effect("smoking", "cancer", ("yes", "yes"), outcome_state="yes")
    with pytest.raises(ValueError, match="have no mean; give outcome_state"):
        net.average_effect("smoking", "cancer", ("no", "yes"))
    with pytest.raises(ValueError, match="both given"):
        effect_of(net, scores={"no": 0, "yes": 1})
    with pytest.raises(ValueError, match="lacks the states"):
        net.average_effect("smoking", "cancer", ("no", "yes"), scores={"yes": 1})
    with pytest.raises(ValueError, match="is a number, whose mean"):
        gaussian().average_effect("x", "y", (0, 1), outcome_state=1)
    with pytest.raises(ValueError, match="interval is 95"):
        effect_of(net, interval=95)


def test_rows_that_do_not_suffice_are_told():
    net = smoking()
    rows = net.sample(500, random_state=0)
    with pytest.raises(ValueError, match="'genotype' is missing in 2 rows"):
        effect_of(net, data=rows.assign(genotype=rows["genotype"].where(rows.index > 1)))
    with pytest.raises(ValueError, match="'smoking' is missing in 500 rows"):
        effect_of(net, data=rows.drop(columns="smoking"))
    with pytest.raises(ValueError, match="genotype is not observed"):
        effect_of(net, data=rows[["smoking", "cancer"]])
    with pytest.raises(ValueError, match="data has no row"):
        effect_of(net, data=rows.iloc[:0])
    healthy = rows[(rows["genotype"] == "no") | (rows["smoking"] == "no")]
    with pytest.raises(ValueError, match="no row of data has smoking=yes with genotype=yes"):
        effect_of(net, data=healthy)
    clean = rows[(rows["tar"] == "no") | (rows["smoking"] == "yes")]
    clean = clean[(clean["tar"] == "yes") | (clean["smoking"] == "no")]
    with pytest.raises(ValueError, match="no row of data is in some states that the formula"):
        effect_of(net, data=clean, observed=["smoking", "tar", "cancer"])


def test_formulas_over_too_large_tables_are_refused():
    net = smoking()
    rows = net.sample(100, random_state=0).drop(columns="genotype")
    tight = BayesianNetwork(cpds=net.cpds_, max_cells=8)
    assert effect_of(tight, data=rows).how == "formula"
    tight.structure_ = dataclasses.replace(tight.structure_, max_cells=7)
    with pytest.raises(ValueError, match="takes a table of 8 cells, past the bound max_cells=7"):
        effect_of(tight, data=rows)


def test_hidden_causes_leave_the_front_door_open():
    """EM with a hidden genotype: its tables are free, and the effect is what the rows say."""
    net = smoking()
    rows = net.sample(20_000, random_state=4).drop(columns="genotype")
    fit = BayesianNetwork(
        list(net.graph_.edges), states={"genotype": ["a", "b"]}, random_state=0
    ).fit(rows)
    found = effect_of(fit)
    assert found.identification.how == "front-door"
    by_rows = effect_of(fit, data=rows)
    # EM fits the margin of what is seen, here exactly enough.
    np.testing.assert_allclose(found.effect, by_rows.effect, atol=0.01)


def test_a_frame_of_other_columns_is_read():
    net = smoking()
    rows = net.sample(2000, random_state=5)
    shuffled = pd.DataFrame({name: rows[name].astype(str) for name in reversed(rows.columns)})
    assert effect_of(net, data=shuffled).effect == effect_of(net, data=rows).effect


def test_the_graph_alone_answers_what_needs_no_numbers():
    graph = BayesianNetwork([("u", "x"), ("u", "y"), ("x", "y")])
    assert not graph.d_separated("u", "y", ["x"])
    assert list(graph.back_door_sets("x", "y")) == [("u",)]
    assert "u is not observed" in str(graph.identify("x", "y", observed=["x", "y"]))
    with pytest.raises(ValueError, match="no node 'z'"):
        graph.d_separated("x", "z")
    with pytest.raises(NotFittedError, match="not fitted"):
        graph.do({"x": "yes"})
    with pytest.raises(NotFittedError, match="not fitted"):
        BayesianNetwork(HillClimb()).d_separated("x", "y")
