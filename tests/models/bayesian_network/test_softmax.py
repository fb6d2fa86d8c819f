"""Networks with a softmax below a number that is missing: exact answers are refused, not made up.

Also what far numbers do to them.
"""

import numpy as np
import pytest

from ppl_gen import BayesianNetwork, LinearGaussianCPD, SoftmaxCPD, TabularCPD

MISSING = "'x' is missing, a number on which the states of 's' depend by a softmax"


def network():
    # d -> x, a number -> s -> t; u stands alone.
    d, s = {"d": ["a", "b"]}, {"s": ["lo", "hi"]}
    return BayesianNetwork(
        cpds=[
            TabularCPD("d", [0.5, 0.5], [], d),
            LinearGaussianCPD("x", [-3.0, 3.0], np.zeros((2, 0)), [1.0, 1.0], ["d"], d),
            SoftmaxCPD("s", [0.0, 0.0], [[-2.0, 2.0]], ["x"], s),
            TabularCPD("t", [[0.9, 0.1], [0.2, 0.8]], ["s"], {**s, "t": [0, 1]}),
            TabularCPD("u", [0.3, 0.7], [], {"u": [0, 1]}),
        ]
    )


@pytest.mark.parametrize(
    ("nodes", "evidence", "soft"),
    [
        ("d", {"s": "hi"}, None),
        ("d", {"t": 1}, None),
        ("s", None, None),
        (["d", "t"], {"u": 0}, None),
        (None, {"d": "b"}, None),
        ("d", None, {"s": {"lo": 0.1, "hi": 0.9}}),
        ("d", {"u": 0}, {"t": [0.1, 0.9]}),
    ],
)
def test_the_likeliest_states_below_a_missing_number_are_refused(nodes, evidence, soft):
    with pytest.raises(ValueError, match=MISSING):
        network().map_query(nodes, evidence, soft)


def test_the_likeliest_states_are_given_where_the_number_is_known_or_does_not_matter():
    net = network()
    assert net.map_query("d", {"s": "hi", "x": 2.0}) == {"d": "b"}
    assert net.map_query(None, {"x": -2.0}) == {"d": "a", "s": "lo", "t": 0, "u": 1}
    assert net.map_query("d", {"u": 0}, {"d": [0.1, 0.9]}) == {"d": "b"}


@pytest.mark.parametrize("soft", [{"s": [0.1, 0.9]}, {"t": [0.1, 0.9]}])
def test_soft_evidence_below_a_missing_number_is_refused(soft):
    net = network()
    for ask in (
        lambda: net.query("d", None, soft),
        lambda: net.query(["d", "u"], None, soft),
        lambda: net.query("x", None, soft),
        lambda: net.probability({"d": "a"}, soft),
    ):
        with pytest.raises(ValueError, match=MISSING):
            ask()
    # What it says nothing of, it is no matter to.
    np.testing.assert_allclose(net.query("u", None, soft), [0.3, 0.7])


def test_soft_evidence_beside_a_known_number_is_weighed():
    net = network()
    p = 1.0 / (1.0 + np.exp(-4.0 * 0.5))
    expected = 0.1 * (1.0 - p) + 0.9 * p
    density = np.exp(net.log_prob(net.sample(1, random_state=0).assign(x=0.5)[["x"]]))[0]
    found = net.probability({"x": 0.5}, {"s": [0.1, 0.9]})
    np.testing.assert_allclose(found, density * expected, rtol=1e-12)


def test_tables_past_the_bound_are_refused_before_they_are_made():
    leaves = [f"l{i}" for i in range(30)]
    both = {"h": ["a", "b"]}
    tables = [
        TabularCPD(n, [[0.9, 0.1], [0.2, 0.8]], ["h"], {**both, n: ["no", "yes"]}) for n in leaves
    ]
    net = BayesianNetwork(cpds=[TabularCPD("h", [0.3, 0.7], [], both), *tables])
    with pytest.raises(ValueError, match=r"table of 2,147,483,648 cells .* ask for fewer nodes"):
        net.map_query(leaves)
    assert net.map_query(leaves[:8]) == dict.fromkeys(leaves[:8], "no")
    assert net.map_query() == {"h": "a", **dict.fromkeys(leaves, "no")}
    # A number among the evidence: a row for each state of the others is past the bound, too.
    number = LinearGaussianCPD("x", [0.0, 1.0], (), 1.0, ["h"], both)
    net = BayesianNetwork(cpds=[TabularCPD("h", [0.3, 0.7], [], both), *tables, number])
    with pytest.raises(ValueError, match="ask for fewer nodes"):
        net.query(leaves[:24], {"x": 0.5})
    found = net.query(["h", "l0"], {"x": 0.5})
    np.testing.assert_allclose(found, [0.27, 0.03, 0.14, 0.56], rtol=1e-12)


def test_numbers_too_far_off_are_refused_without_a_warning():
    net = network()
    frame = net.sample(1, random_state=0)
    for value in (1e200, -1e300):
        for ask in (
            lambda v=value: net.query("d", {"x": v}),
            lambda v=value: net.query("s", {"x": v}),
            lambda v=value: net.map_query("d", {"x": v}),
            lambda v=value: net.probability({"x": v}),
            lambda v=value: net.query("d", {"x": v}, method="likelihood_weighting"),
            lambda v=value: net.log_prob(frame.assign(x=v)),
            lambda v=value: net.predict_proba(frame.assign(x=v), "d"),
        ):
            with pytest.raises(ValueError, match=r"'x' is -?1e\+[23]00, whose square is past"):
                ask()
    # Within doubles, but infinitely many deviations away.
    narrow = BayesianNetwork(
        cpds=[
            TabularCPD("d", [0.5, 0.5], [], {"d": ["a", "b"]}),
            LinearGaussianCPD("x", [0.0, 1.0], (), 1e-40, ["d"], {"d": ["a", "b"]}),
            LinearGaussianCPD("y", 0.0, [1.0], 1e-40, ["x"]),
        ]
    )
    for evidence in ({"x": 1e140}, {"y": 1e140}):
        for ask in (narrow.query, narrow.map_query):
            with pytest.raises(ValueError, match="may be further off than a density reaches"):
                ask("d", evidence)
        with pytest.raises(ValueError, match="may be further off than a density reaches"):
            narrow.query("y" if "x" in evidence else "x", evidence)
        assert narrow.probability(evidence, log=True) == -np.inf
