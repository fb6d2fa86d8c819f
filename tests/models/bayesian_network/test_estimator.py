"""Discrete networks are estimators as scikit-learn has them, and are kept whole."""

import copy
import pickle

import networkx as nx
import numpy as np
import pandas as pd
import polars as pl
import pytest
from network_problems import tables_of
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from ppl_gen import (
    EM,
    BayesClassifier,
    BayesianNetwork,
    BDeu,
    ChowLiu,
    Conjugate,
    ExactSearch,
    HillClimb,
    TreeAugmented,
    load,
)
from ppl_gen.datasets import load_asia

EDGES = list(load_asia().graph_.edges)


@pytest.fixture(scope="module")
def asia():
    return load_asia()


@pytest.fixture(scope="module")
def rows(asia):
    return asia.sample(400, random_state=0)


# -- as an estimator -------------------------------------------------------------------------------


def test_scikit_learn_takes_networks(rows):
    x, y = rows.drop(columns="lung"), rows["lung"].astype(str)
    model = BayesianNetwork(EDGES, target="lung", prior=1.0)
    scores = cross_val_score(model, x, y)
    assert scores.min() > 0.9
    densities = cross_val_score(BayesianNetwork(EDGES, prior=1.0), rows)
    assert (densities < 0.0).all()
    grid = {"prior": [0.1, "k2", "bdeu", BDeu(2.0)]}
    search = GridSearchCV(model, grid, scoring="neg_log_loss").fit(x, y)
    assert search.best_params_["prior"] in grid["prior"]
    assert search.predict_proba(x).shape == (400, 2)
    fitted = search.best_estimator_
    assert fitted.classes_.tolist() == ["no", "yes"]
    assert fitted.score(x, y) == (fitted.predict(x) == y).mean()
    assert search.score(x, y) > -0.2


@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc", "accuracy"])
def test_scikit_learns_metrics_find_the_classes_in_their_order(rows, scoring):
    """Whatever order categories have, metrics take columns of probabilities as sorted."""
    x, y = rows.drop(columns="lung"), rows["lung"]
    model = BayesianNetwork(EDGES, target="lung", prior=1.0)
    assert list(y.cat.categories) == ["yes", "no"]
    expected = cross_val_score(model, x, y.astype(str), scoring=scoring)
    np.testing.assert_array_equal(cross_val_score(model, x, y, scoring=scoring), expected)
    np.testing.assert_array_equal(
        cross_val_score(model, x, (y == "yes").astype(int), scoring=scoring), expected
    )
    if scoring == "roc_auc":
        assert expected.mean() > 0.9


def test_y_is_the_column_of_the_target(rows):
    expected = BayesianNetwork(EDGES, target="lung").fit(rows)
    x, y = rows.drop(columns="lung"), rows["lung"]
    text = {name: x[name].astype(str).tolist() for name in x}
    for frame, own in (
        (x, y),
        (x.set_index(x.index + 7), y),  # rows are matched by place
        (x.astype(str), y.astype(str).to_numpy()),
        (x.astype(str), y.astype(str).tolist()),
        (pl.DataFrame(text), pl.Series(y.astype(str).tolist())),
    ):
        model = BayesianNetwork(EDGES, target="lung").fit(frame, own)
        found = tables_of(model)
        for node, table in tables_of(expected).items():
            np.testing.assert_array_equal(found[node], table)
        assert (model.predict(frame) == np.asarray(y.astype(str))).mean() > 0.9


def test_a_network_for_each_class_is_one_with_the_class_above_all(rows):
    rest = [edge for edge in EDGES if "lung" not in edge]
    x, y = rows.drop(columns="lung"), rows["lung"].astype(str)
    classifier = BayesClassifier(BayesianNetwork(rest, prior=0.5)).fit(x, y)
    whole = BayesianNetwork([*rest, *(("lung", name) for name in x)], prior=0.5, target="lung").fit(
        x, y
    )
    # They differ by the prior counts of the class itself, in which theirs has none.
    shares = y.value_counts(normalize=True)
    own = whole.query("lung")
    odds = whole.predict_proba(x) / own.loc[["no", "yes"]].to_numpy()
    expected = odds * shares.loc[["no", "yes"]].to_numpy()
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(x), expected, rtol=1e-8)


# -- keeping ---------------------------------------------------------------------------------------


def odd():
    """Names and states of every kind."""
    states = {("a", 1): ["x y", 3.5], 7: [True, False], "ü{}\n": ["", "0", 0]}
    graph = nx.DiGraph([(("a", 1), 7), (7, "ü{}\n")])
    cpds = {
        ("a", 1): [0.25, 0.75],
        7: [[0.1, 0.9], [0.5, 0.5]],
        "ü{}\n": [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]],
    }
    return BayesianNetwork(graph, cpds, states=states)


KEPT = {
    "cpds": lambda rows: load_asia(),
    "edges": lambda rows: BayesianNetwork(EDGES).fit(rows),
    "graph": lambda rows: BayesianNetwork(nx.DiGraph(EDGES), prior=BDeu(3.0)).fit(rows),
    "posterior": lambda rows: BayesianNetwork(EDGES, inference=Conjugate(draws=20)).fit(rows),
    "tree": lambda rows: BayesianNetwork(ChowLiu(), random_state=0).fit(rows),
    "classes": lambda rows: BayesianNetwork(TreeAugmented(), target="lung").fit(rows),
    "hidden": lambda rows: BayesianNetwork(
        EDGES, states={"either": ["yes", "no"]}, inference=EM(tol=1e-3), random_state=0
    ).fit(rows.drop(columns="either")),
    "codes": lambda rows: BayesianNetwork([(0, 1), (1, 2)], states={0: 2, 1: 2, 2: 2}).fit(
        np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 1, 1]])
    ),
    "odd": lambda rows: odd(),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_network_is_kept_whole(rows, name, tmp_path):
    model = KEPT[name](rows)
    model.save(tmp_path / "model")
    drawn = model.sample(20, random_state=1)
    for again in (
        load(tmp_path / "model"),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ):
        assert list(again.graph_.edges) == list(model.graph_.edges)
        assert again.states_ == model.states_
        assert again.cpds_ == model.cpds_
        assert repr(again.target) == repr(model.target)
        np.testing.assert_array_equal(again.log_prob(drawn), model.log_prob(drawn))
        for node in model.graph_:
            pd.testing.assert_series_equal(again.query([node]), model.query([node]))
        if isinstance(drawn, pd.DataFrame):
            pd.testing.assert_frame_equal(again.sample(20, random_state=1), drawn)
        else:
            np.testing.assert_array_equal(again.sample(20, random_state=1), drawn)
        assert again.get_params().keys() == model.get_params().keys()
        if name == "classes":
            assert again.classes_.tolist() == model.classes_.tolist()


def test_a_network_of_a_file_can_be_fitted_again(rows, tmp_path):
    """What was loaded has the graph, and a fit that follows is that of the first."""
    model = BayesianNetwork(nx.DiGraph(EDGES), prior="bdeu").fit(rows)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model").fit(rows.iloc[:100])
    expected = clone(model).fit(rows.iloc[:100])
    assert again.cpds_ == expected.cpds_


def test_clones_have_the_settings_and_the_distributions_given(rows):
    model = BayesianNetwork(EDGES, prior=BDeu(3.0), target="lung").fit(rows)
    other = clone(model)
    assert not hasattr(other, "parameters_")
    assert other.fit(rows).cpds_ == model.cpds_
    asia = load_asia()
    pd.testing.assert_series_equal(clone(asia).query("lung"), asia.query("lung"))
    assert "TabularCPD(lung | smoke" in repr(asia)
    assert repr(model).startswith("BayesianNetwork(graph=[('asia', 'tub')")


def test_distributions_that_are_set_hold_at_once(rows):
    """And those that do not fit change nothing."""
    edges = [("a", "b")]
    tables = {"a": [0.3, 0.7], "b": [[0.1, 0.9], [0.6, 0.4]]}
    expected = BayesianNetwork(edges, tables).query("a", {"b": 0})
    model = BayesianNetwork(edges).set_params(cpds=tables)
    pd.testing.assert_series_equal(model.query("a", {"b": 0}), expected)
    other = BayesianNetwork(edges, {"a": [0.5, 0.5], "b": [[0.5, 0.5]] * 2})
    assert other.query("a").tolist() == [0.5, 0.5]
    pd.testing.assert_series_equal(other.set_params(cpds=tables).query("a", {"b": 0}), expected)
    with pytest.raises(ValueError, match=r"row of 'a' sums to 1.4"):
        other.set_params(cpds={"a": [0.7, 0.7]})
    assert other.cpds is tables
    pd.testing.assert_series_equal(other.query("a", {"b": 0}), expected)
    fitted = BayesianNetwork(EDGES).fit(rows)
    fitted.set_params(cpds=load_asia().cpds_)
    assert not hasattr(fitted, "history_")
    pd.testing.assert_series_equal(fitted.query("lung"), load_asia().query("lung"))


def test_frames_of_either_kind_take_y_of_the_other(rows):
    """Also where pyarrow, which polars reads text of pandas with, is not installed."""
    x, y = rows.drop(columns="lung").astype(str), rows["lung"].astype(str)
    expected = tables_of(BayesianNetwork(EDGES, target="lung").fit(x, y))
    theirs = pl.DataFrame({name: x[name].tolist() for name in x})
    for frame, own in (
        (theirs, y),
        (theirs, y.astype("string")),
        (theirs, y.astype("category")),
        (x, pl.Series(y.tolist())),
    ):
        found = tables_of(BayesianNetwork(EDGES, target="lung").fit(frame, own))
        for node, table in expected.items():
            np.testing.assert_array_equal(found[node], table)


def test_one_row_and_a_prior_are_tables(rows):
    row = rows.iloc[:1]
    model = BayesianNetwork(EDGES, prior=1.0).fit(row)
    # One more of what was seen: (1 + 1) of (2 + 1).
    assert model.query("smoke")[row["smoke"].iloc[0]] == pytest.approx(2 / 3, abs=1e-12)
    posterior = BayesianNetwork(EDGES, inference=Conjugate(draws=10), random_state=0).fit(row)
    assert np.isfinite(posterior.log_prob(rows)).all()


@pytest.mark.parametrize("learner", [ChowLiu(), TreeAugmented(), HillClimb("bdeu")])
def test_the_score_of_a_learned_graph_is_kept(rows, learner, tmp_path):
    target = "lung" if isinstance(learner, TreeAugmented) else None
    model = BayesianNetwork(learner, target=target, random_state=0).fit(rows)
    if not isinstance(learner, HillClimb):  # the score is the log likelihood
        assert model.graph_score_ == pytest.approx(model.log_prob(rows).sum(), rel=1e-10)
    model.save(tmp_path / "model")
    assert load(tmp_path / "model").graph_score_ == model.graph_score_
    assert type(model.graph_score_) is float
    again = model.set_params(graph=model.graph_).fit(rows)
    assert not hasattr(again, "graph_score_")


@pytest.mark.parametrize(
    ("name", "learner"),
    [
        ("chow_liu", ChowLiu()),
        ("tree_augmented", TreeAugmented()),
        ("hill_climb", HillClimb()),
        ("exact_search", ExactSearch()),
    ],
)
def test_a_learner_may_be_asked_for_by_its_name(name, learner):
    rows = load_asia().sample(300, random_state=0)[["smoke", "lung", "bronc", "dysp"]]
    by_name, made = (
        BayesianNetwork(graph, target="dysp", random_state=0).fit(rows) for graph in (name, learner)
    )
    assert list(by_name.graph_.edges) == list(made.graph_.edges)
