"""Discrete networks score, complete and draw rows as their joint table says."""

import math

import numpy as np
import pandas as pd
import pytest
from network_problems import with_gaps

from ppl_gen import BayesianNetwork, TabularCPD
from ppl_gen.datasets import load_asia, load_sachs

#: Sums of a few thousand products of doubles in [0, 1], in another order.
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def asia():
    return load_asia()


# -- rows ------------------------------------------------------------------------------------------


def test_a_thousand_rows_are_as_many_questions():
    model = load_sachs()
    rows = with_gaps(model.sample(1000, random_state=0), 0.5, 1)
    found = model.predict_proba(rows, "Akt")
    asked = rows.drop(columns="Akt")
    for i in range(len(rows)):
        evidence = asked.iloc[i].dropna().to_dict()
        np.testing.assert_allclose(found[i], model.query("Akt", evidence), atol=ROUNDING)
    log_prob = model.log_prob(rows.iloc[:50])
    each = [model.probability(rows.iloc[i].dropna().to_dict(), log=True) for i in range(50)]
    np.testing.assert_allclose(log_prob, each, rtol=ROUNDING)
    np.testing.assert_array_equal(
        model.predict(rows, "Akt"), np.array(model.states_["Akt"])[found.argmax(axis=1)]
    )


def test_several_nodes_are_predicted_from_what_is_left(asia):
    rows = with_gaps(asia.sample(50, random_state=0), 0.3, 1)
    rows.index = rows.index + 100
    nodes = ["lung", "bronc"]
    found = asia.predict(rows, nodes)
    assert list(found.columns) == nodes
    assert found.index.equals(rows.index)
    left = rows.drop(columns=nodes)
    for node in nodes:
        np.testing.assert_array_equal(found[node], asia.predict(left, node))


def test_nodes_and_states_come_in_what_holds_them(asia):
    """Nodes in anything that goes over them, and a state in an array without axes."""
    nodes = {"lung": 0, "bronc": 1}
    expected = asia.query(["lung", "bronc"], {"xray": "yes"})
    evidence = {"xray": np.array("yes")}
    for asked in (nodes.keys(), (name for name in nodes), nodes, pd.Index(nodes), tuple(nodes)):
        pd.testing.assert_series_equal(asia.query(asked, evidence), expected)
    rows = asia.sample(5, random_state=0)
    pd.testing.assert_frame_equal(
        asia.predict(rows, nodes.keys()), asia.predict(rows, ["lung", "bronc"])
    )


def test_columns_may_be_in_any_order_and_absent(asia):
    rows = with_gaps(asia.sample(40, random_state=0), 0.3, 1)
    np.testing.assert_array_equal(asia.log_prob(rows[rows.columns[::-1]]), asia.log_prob(rows))
    gap = rows.assign(xray=pd.Categorical([None] * 40, rows["xray"].cat.categories))
    np.testing.assert_allclose(
        asia.log_prob(rows.drop(columns="xray")), asia.log_prob(gap), rtol=ROUNDING
    )
    np.testing.assert_allclose(asia.log_prob(pd.DataFrame(index=range(3))), 0.0, atol=ROUNDING)
    assert asia.log_prob(rows.iloc[:0]).shape == (0,)
    assert asia.predict_proba(rows.iloc[:0], "lung").shape == (0, 2)


def test_rows_that_cannot_be_have_minus_infinity_and_no_classes(asia):
    rows = pd.DataFrame({"tub": ["no", "yes"], "either": ["no", "no"], "lung": [None, None]})
    log_prob = asia.log_prob(rows)
    assert np.isfinite(log_prob[0])
    assert log_prob[1] == -math.inf
    with pytest.raises(ValueError, match=r"predict_proba: row 1 has probability zero"):
        asia.predict_proba(rows, "lung")
    for n_draws in (None, 2):
        with pytest.raises(ValueError, match=r"impute: row 1 has probability zero"):
            asia.impute(rows, n_draws=n_draws)


def chi_square(counts, expected):
    """Statistic and its degrees of freedom, in standard deviations above the mean."""
    seen = expected > 0.0
    assert counts[~seen].sum() == 0
    statistic = ((counts[seen] - expected[seen]) ** 2 / expected[seen]).sum()
    freedom = seen.sum() - 1
    return (statistic - freedom) / math.sqrt(2.0 * freedom)


@pytest.fixture(scope="module")
def small():
    """Nodes with a joint of a few cells, each of which draws reach."""
    return BayesianNetwork(
        [("a", "c"), ("b", "c"), ("c", "d")],
        {
            "a": [0.3, 0.7],
            "b": [0.2, 0.5, 0.3],
            "c": [[[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]], [[0.6, 0.4], [1.0, 0.0], [0.3, 0.7]]],
            "d": [[0.25, 0.75], [0.6, 0.4]],
        },
    )


def test_samples_are_drawn_from_the_joint(small):
    n_rows = 50_000
    rows = small.sample(n_rows, random_state=0)
    nodes = ["a", "b", "c", "d"]
    expected = small.query(nodes) * n_rows
    counts = rows.astype(int).groupby(nodes).size().reindex(expected.index, fill_value=0)
    # A chi-square is this many deviations above its mean with a probability below 1e-4.
    assert chi_square(counts.to_numpy(), expected.to_numpy()) < 5.0
    pd.testing.assert_frame_equal(
        small.sample(20, random_state=3), small.sample(20, random_state=3)
    )


def test_multiple_imputation_draws_from_the_joint_conditional(small):
    """Several patterns of gaps at once; what is drawn together depends on each other."""
    n_rows = 8_000
    rows = pd.DataFrame(
        {
            "a": [None] * n_rows + [0] * n_rows,
            "b": [None] * n_rows + [None] * n_rows,
            "c": [None] * n_rows + [None] * n_rows,
            "d": [1] * n_rows + [0] * n_rows,
        },
        dtype="float64",
    )
    tables = small.impute(rows, n_draws=2, random_state=0)
    assert len(tables) == 2
    drawn = pd.concat(tables)
    first = drawn[drawn["d"].astype(int) == 1].astype(int)
    second = drawn[drawn["d"].astype(int) == 0].astype(int)
    for part, nodes, evidence in (
        (first, ["a", "b", "c"], {"d": 1}),
        (second, ["b", "c"], {"d": 0, "a": 0}),
    ):
        expected = small.query(nodes, evidence) * len(part)
        counts = part.groupby(nodes).size().reindex(expected.index, fill_value=0)
        assert counts.sum() == len(part)
        assert chi_square(counts.to_numpy(), expected.to_numpy()) < 5.0
    again = small.impute(rows, n_draws=2, random_state=0)
    pd.testing.assert_frame_equal(again[1], tables[1])
    assert not tables[0].equals(tables[1])


# -- draws instead of sums -------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_asia, load_sachs], ids=["asia", "sachs"])
def test_weighted_draws_agree_with_the_sums_of_known_networks(load):
    model = load()
    names = list(model.graph_)
    row = model.sample(1, random_state=4).iloc[0]
    evidence = {name: row[name] for name in names[-2:]}
    for node in names[:3]:
        expected = model.query(node, evidence)
        found = model.query(
            node, evidence, method="likelihood_weighting", n_samples=20_000, random_state=0
        )
        error = np.array(found.attrs["standard_error"])
        assert (abs(found - expected) <= 4.0 * error + 1.0 / 20_000).all()


@pytest.mark.parametrize("method", ["likelihood_weighting", "gibbs"])
@pytest.mark.parametrize(
    ("nodes", "evidence", "soft"),
    [
        (["bronc"], {"dysp": "yes", "smoke": "no"}, None),
        (["smoke", "bronc"], {"dysp": "no"}, {"xray": [0.9, 0.4]}),
        (["dysp"], None, {"smoke": [0.1, 0.9]}),
    ],
)
def test_draws_agree_with_the_sums(method, nodes, evidence, soft):
    """Within four of their own standard errors, plus one draw's worth."""
    # Tuberculosis and cancer determine `either`, which single moves cannot cross: make it likely.
    asia = load_asia()
    cpds = dict(asia.cpds_)
    either = cpds["either"].values * 0.8 + 0.1
    cpds["either"] = TabularCPD("either", either, cpds["either"].parents, cpds["either"].states)
    model = BayesianNetwork(cpds=cpds)
    expected = model.query(nodes, evidence, soft)
    found = model.query(nodes, evidence, soft, method=method, n_samples=20_000, random_state=1)
    error = np.array(found.attrs["standard_error"])
    assert ((abs(found - expected)) <= 4.0 * error + 1.0 / 20_000).all()
    assert 100.0 < found.attrs["ess"] <= 20_000 * 1.5  # Gibbs may be antithetic
    assert (error < 0.05).all()
    again = model.query(nodes, evidence, soft, method=method, n_samples=20_000, random_state=1)
    pd.testing.assert_series_equal(again, found)
    other = model.query(nodes, evidence, soft, method=method, n_samples=20_000, random_state=2)
    assert not other.equals(found)


def test_a_question_asked_again_has_the_same_answer_where_tables_have_few_digits():
    """Rows that sum to one but for their digits: what is below all others is left out always."""
    thirds = TabularCPD(
        "b", [[0.333333, 0.333333, 0.333333], [0.2, 0.3, 0.5]], ["a"], tolerance=1e-5
    )
    model = BayesianNetwork(cpds=[TabularCPD("a", [0.5, 0.5]), thirds])
    for _ in range(3):
        assert model.query("a").tolist() == [0.5, 0.5]
