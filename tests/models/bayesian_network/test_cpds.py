"""Conditional distributions are checked, kept, compared and shown."""

import copy
import json
import re

import numpy as np
import pandas as pd
import pytest

from ppl_gen import LinearGaussianCPD, SoftmaxCPD, TabularCPD
from ppl_gen.artifact_tree import decode, encode
from ppl_gen.models.bayesian_network.cpds import cpd_from_tree

YES_NO = ["yes", "no"]
COLOURS = ["red", "green", "blue"]
DYSP = [[[0.9, 0.1], [0.7, 0.3]], [[0.8, 0.2], [0.1, 0.9]]]


def dysp(**settings):
    states = {"bronc": YES_NO, "either": ["y", "n"], "dysp": YES_NO}
    settings = {"values": DYSP, "parents": ["bronc", "either"], "states": states} | settings
    return TabularCPD("dysp", **settings)


def colour():
    rng = np.random.default_rng(0)
    return TabularCPD(
        "colour",
        rng.dirichlet(np.ones(3), size=(2, 4)),
        parents=["a", "b"],
        states={"a": YES_NO, "colour": COLOURS},
    )


def hybrid():
    return LinearGaussianCPD(
        "weight",
        [-100.0, -90.0],
        [[1.0, 0.5], [0.9, 0.25]],
        [50.0, 40.0],
        parents=["height", "sex", "age"],
        states={"sex": ["m", "f"]},
    )


def softmax():
    rng = np.random.default_rng(1)
    return SoftmaxCPD(
        "colour",
        rng.normal(size=(2, 3)),
        rng.normal(size=(2, 2, 3)),
        parents=["x", "a", "z"],
        states={"a": YES_NO, "colour": COLOURS},
    )


ALL = (dysp, colour, hybrid, softmax)


def test_a_table_keeps_names_states_and_order():
    cpd = colour()
    assert cpd.node == "colour"
    assert cpd.parents == ("a", "b") == cpd.discrete_parents
    assert cpd.continuous_parents == ()
    assert dict(cpd.states) == {"a": ("yes", "no"), "b": (0, 1, 2, 3), "colour": tuple(COLOURS)}
    assert list(cpd.states) == ["a", "b", "colour"]
    assert (cpd.sizes, cpd.size, cpd.kind) == ((2, 4), 3, "tabular")
    assert cpd.values.shape == (2, 4, 3)
    assert cpd.parameters["table"] is cpd.values


def test_the_states_come_in_the_order_of_the_axes_however_they_are_given():
    states = {"dysp": YES_NO, "either": ["y", "n"], "bronc": YES_NO}
    assert list(dysp(states=states).states) == ["bronc", "either", "dysp"]
    assert dysp(states=states) == dysp()


def test_two_axes_are_rows_of_parents():
    cpd = colour()
    rows = cpd.values.reshape(-1, 3)
    states = {"a": YES_NO, "b": range(4), "colour": COLOURS}
    assert TabularCPD("colour", rows, ["a", "b"], states) == cpd
    assert TabularCPD("coin", [[0.5, 0.5]]) == TabularCPD("coin", [0.5, 0.5])
    with pytest.raises(ValueError, match=r"expected 3 axes \(a, b, colour\), or the states of"):
        TabularCPD("colour", rows, ["a", "b"], {"a": YES_NO})


@pytest.mark.parametrize("make", [dysp, colour])
def test_a_frame_is_read_back(make):
    cpd = make()
    frame = cpd.frame
    assert frame.index.names == list(cpd.parents)
    assert frame.columns.tolist() == list(cpd.states[cpd.node])
    assert TabularCPD(cpd.node, frame, cpd.parents) == cpd
    mixed = frame.sample(frac=1.0, random_state=0).iloc[:, ::-1]
    mixed.index = mixed.index.reorder_levels([1, 0])
    assert TabularCPD(cpd.node, mixed, cpd.parents, cpd.states) == cpd


def test_frames_of_one_parent_and_of_none():
    lung = TabularCPD("lung", [[0.1, 0.9], [0.01, 0.99]], ["smoke"], {"smoke": YES_NO})
    assert lung.frame.index.tolist() == YES_NO
    assert lung.frame.loc["yes", 0] == 0.1
    assert TabularCPD("lung", lung.frame, ["smoke"]) == lung
    coin = TabularCPD("coin", [0.25, 0.75], states={"coin": ["head", "tail"]})
    assert coin.frame.to_dict("list") == {"head": [0.25], "tail": [0.75]}
    assert TabularCPD("coin", coin.frame) == coin


def test_states_may_be_numbers_and_mixed():
    cpd = TabularCPD("n", [0.2, 0.3, 0.5], states={"n": [np.int64(3), "many", None]})
    assert cpd.states["n"] == (3, "many", None)
    assert type(cpd.states["n"][0]) is int
    assert pd.CategoricalDtype(["lo", "hi"]).categories.tolist() == list(
        TabularCPD(
            "n", [0.5, 0.5], states={"n": pd.CategoricalDtype(["lo", "hi"]).categories}
        ).states["n"]
    )


def test_rows_are_divided_by_their_sums_on_request_only():
    with pytest.raises(ValueError, match="normalise=True"):
        TabularCPD("a", [2.0, 6.0])
    assert TabularCPD("a", [2.0, 6.0], normalise=True).values.tolist() == [0.25, 0.75]
    # What is close enough is kept as it is.
    kept = TabularCPD("a", [0.3333333] * 3)
    assert kept.values.tolist() == [0.3333333] * 3
    assert TabularCPD("a", [0.333] * 3, tolerance=0.002).values.tolist() == [0.333] * 3


def test_a_linear_node_without_discrete_parents():
    cpd = LinearGaussianCPD("y", 1.0, [2.0, 3.0], 4.0, parents=["u", "v"])
    assert (cpd.sizes, cpd.size, cpd.kind) == ((), 0, "linear_gaussian")
    assert cpd.continuous_parents == ("u", "v")
    assert cpd.frame.to_dict("records") == [{"intercept": 1.0, "u": 2.0, "v": 3.0, "variance": 4.0}]
    root = LinearGaussianCPD("x", 0.5)
    assert root.coefficients.shape == (0,)
    assert root.variance == 1.0


def test_a_linear_node_with_discrete_parents():
    cpd = hybrid()
    assert cpd.discrete_parents == ("sex",)
    assert cpd.continuous_parents == ("height", "age")
    assert cpd.frame.loc["f"].tolist() == [-90.0, 0.9, 0.25, 40.0]
    same = LinearGaussianCPD(
        "y", 1.0, [2.0], 3.0, parents=["a", "x", "b"], states={"a": YES_NO, "b": COLOURS}
    )
    assert same.intercept.shape == same.variance.shape == (2, 3)
    assert same.coefficients.shape == (2, 3, 1)
    assert (same.coefficients == 2.0).all()


def test_the_log_odds_of_two_states():
    cpd = SoftmaxCPD("ill", -40.0, [1.0, 2.0], parents=["t", "u"])
    assert cpd.states["ill"] == (0, 1)
    np.testing.assert_array_equal(cpd.intercept, [0.0, -40.0])
    np.testing.assert_array_equal(cpd.coefficients, [[0.0, 1.0], [0.0, 2.0]])
    given = SoftmaxCPD("ill", [1.0, 2.0], [[3.0], [4.0]], ["a", "t"], {"a": YES_NO})
    np.testing.assert_array_equal(given.intercept, [[0.0, 1.0], [0.0, 2.0]])
    np.testing.assert_array_equal(given.coefficients, [[[0.0, 3.0]], [[0.0, 4.0]]])


def test_a_softmax_node_numbers_its_states():
    cpd = SoftmaxCPD("k", np.zeros(3), np.zeros((2, 3)), parents=["x", "y"])
    assert cpd.states["k"] == (0, 1, 2)
    assert softmax().frame.index.names == ["a", "colour"]
    expected = softmax().coefficients[1, :, 2]
    np.testing.assert_array_equal(softmax().frame.loc[("no", "blue")].iloc[1:], expected)


@pytest.mark.parametrize("make", ALL)
def test_equal_by_value(make):
    assert make() == make()
    tree = make().to_tree()
    name = next(key for key in ("values", "intercept") if key in tree)
    tree[name] = tree[name][..., ::-1]
    assert type(make()).from_tree(tree) != make()
    assert make() != "colour"
    assert make() != next(other() for other in ALL if other().kind != make().kind)


@pytest.mark.parametrize("make", ALL)
def test_immutable(make):
    cpd = make()
    with pytest.raises(AttributeError):
        cpd.node = "other"
    with pytest.raises(TypeError):
        cpd.states["colour"] = ("a",)
    for value in cpd.parameters.values():
        with pytest.raises(ValueError, match="read-only"):
            value[...] = 0.0


def test_the_arrays_are_copies():
    table = np.array([0.25, 0.75])
    cpd = TabularCPD("a", table)
    table[:] = 0.5
    assert cpd.values.tolist() == [0.25, 0.75]
    assert table.flags.writeable


@pytest.mark.parametrize("make", ALL)
def test_kept_in_an_artefact(make):
    cpd = make()
    tree, arrays = encode(cpd.to_tree())
    again = cpd_from_tree(decode(json.loads(json.dumps(tree)), arrays))
    assert again == cpd
    assert list(again.states) == list(cpd.states)


@pytest.mark.parametrize("make", ALL)
def test_copies_are_equal_and_read_only(make):
    cpd = copy.deepcopy(make())
    assert cpd == make() == copy.copy(cpd)
    assert not any(value.flags.writeable for value in cpd.parameters.values())


def test_a_loose_tolerance_is_kept_with_the_table():
    cpd = TabularCPD("a", [0.333] * 3, tolerance=0.002)
    assert copy.copy(cpd) == cpd
    assert cpd_from_tree(cpd.to_tree()).tolerance == 0.002


@pytest.mark.parametrize("tree", [{}, {"kind": "cubic"}, {"kind": "tabular", "node": "a"}])
def test_trees_that_are_none(tree):
    with pytest.raises(ValueError, match=r"cpd_from_tree: the kind is|malformed tree"):
        cpd_from_tree(tree)
    with pytest.raises(ValueError, match="expected the tree of a linear_gaussian node"):
        LinearGaussianCPD.from_tree(tree)


def test_readable():
    assert repr(dysp()) == "TabularCPD(dysp | bronc, either, states=['yes', 'no'], 4 rows)"
    assert repr(TabularCPD("a", [0.5, 0.5])) == "TabularCPD(a, states=[0, 1])"
    assert repr(hybrid()) == "LinearGaussianCPD(weight | height, sex, age, 2 rows)"


@pytest.mark.parametrize("make", ALL)
def test_a_notebook_shows_every_number(make):
    page = make()._repr_html_()
    for number in make().frame.to_numpy().ravel():
        assert f">{number:.4g}<" in page
    for parent in make().discrete_parents:
        assert all(f">{state}<" in page for state in make().states[parent])
    assert page == make()._repr_html_()


def test_a_notebook_shows_bars_as_wide_as_the_probabilities():
    page = TabularCPD("coin", [0.25, 0.75])._repr_html_()
    assert re.search(r"transparent 25(\.0)?%", page)
    assert re.search(r"transparent 75(\.0)?%", page)


def test_names_with_tags_are_escaped():
    bad = "<script>alert('&')</script>"
    tagged = {"a" + bad: ["1" + bad, "2" + bad], "b" + bad: ["3" + bad, "4" + bad]}
    table = TabularCPD("b" + bad, np.full((2, 2), 0.5), ["a" + bad], tagged)
    line = LinearGaussianCPD("y" + bad, 1.0, [2.0], parents=["x" + bad])
    logits = SoftmaxCPD("b" + bad, 1.0, [2.0], parents=["x" + bad])
    for cpd in (table, line, logits):
        page = cpd._repr_html_()
        assert "<script" not in page
        assert "&lt;script&gt;" in page


def test_long_tables_are_cut():
    cpd = TabularCPD("a", np.full((500, 2), 0.5), ["b"])
    assert cpd._repr_html_().count("<tr") < 120
    assert len(cpd.frame) == 500


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TabularCPD("a", [0.5, 0.4]), r"row of 'a' sums to 0\.9; expected 1 within 1e-06"),
        (
            lambda: dysp(values=[DYSP[0], [[0.8, 0.2], [0.1, 1.15]]]),
            r"row of 'dysp' given bronc='no', either='n' sums to 1\.25; .* normalise=True",
        ),
        (
            lambda: TabularCPD("a", [[0.5, 0.5], [1.5, -0.5]], ["b"], {"b": YES_NO}),
            r"probability of a=1 given b='no' is -0\.5; expected at least 0",
        ),
        (
            lambda: TabularCPD("a", [[0.5, 0.5], [np.nan, 0.5]], ["b"], {"b": YES_NO}),
            r"table of 'a' given b='no' has the entry nan; expected finite",
        ),
        (lambda: TabularCPD("a", [np.inf, 0.0]), "has the entry inf"),
        (lambda: TabularCPD("a", [0.0, 0.0], normalise=True), "row of 'a' sums to 0"),
        (lambda: TabularCPD("a", []), r"shape \(0,\); expected an axis for each parent"),
        (lambda: TabularCPD("a", 1.0), r"shape \(\); expected an axis for each parent"),
        (lambda: TabularCPD("a", [[0.5], [0.5, 0.5]]), "no array of numbers"),
        (lambda: TabularCPD("a", ["x", "y"]), "no array of numbers"),
        (
            lambda: TabularCPD("a", [0.5, 0.5], states={"a": COLOURS}),
            r"shape \(2,\); expected \(3,\) \(a: 3\)",
        ),
        (
            lambda: TabularCPD("a", np.ones((3, 2)) / 2, ["b"], {"b": YES_NO, "a": COLOURS}),
            r"expected \(2, 3\) \(b: 2, a: 3\), or \(2, 3\); it has a column, .* transpose it",
        ),
        (
            lambda: dysp(values=np.ones((2, 3, 2)) / 2),
            r"expected \(2, 2, 2\) \(bronc: 2, either: 2",
        ),
        (lambda: TabularCPD("a", [0.5, 0.5], states={"a": ["x", "x"]}), r"\['x'\] repeat"),
        (lambda: TabularCPD("a", [0.5, 0.5], states={"a": []}), "expected at least one"),
        (lambda: TabularCPD("a", [0.5, 0.5], states={"a": "yn"}), "'yn' is one string"),
        (lambda: TabularCPD("a", [0.5, 0.5], states={"b": YES_NO}), r"states are given of \['b'\]"),
        (lambda: dysp(parents=["bronc", "bronc"]), r"parents of 'dysp' .* \['bronc'\] repeat"),
        (lambda: dysp(parents=["bronc", "dysp"]), "'dysp' is among its own parents"),
        (lambda: dysp(parents="bronc"), r"is the string 'bronc'.*pass \['bronc'\]"),
        (
            lambda: dysp(values=dysp().frame.iloc[:3], states=dysp().states),
            "has 3 rows, 3 of them different; expected 4",
        ),
        (
            lambda: dysp(values=dysp().frame.iloc[[0, 1, 2, 2]], states=dysp().states),
            "has 4 rows, 3 of them different; expected 4",
        ),
        (
            lambda: dysp(values=dysp().frame.rename(columns={"no": "nein"}), states=dysp().states),
            r"has the columns \['yes', 'nein'\]; expected each of its states once",
        ),
        (lambda: dysp(values=dysp().frame.reset_index(drop=True)), "an index of 1 levels"),
        (
            lambda: LinearGaussianCPD("y", 0.0, variance=0.0),
            "variance of 'y' is 0.0; expected more",
        ),
        (
            lambda: LinearGaussianCPD("y", 0.0, (), [1.0, -2.0], ["a"], {"a": YES_NO}),
            r"variance of 'y' given a='no' is -2\.0; expected more than 0",
        ),
        (
            lambda: LinearGaussianCPD("y", [0.0, np.nan], (), 1.0, ["a"], {"a": YES_NO}),
            "intercept of 'y' given a='no' has the entry nan",
        ),
        (
            lambda: LinearGaussianCPD("y", 0.0, [1.0], parents=["u", "v"]),
            r"coefficients of 'y' has shape \(1,\); expected \(2,\) \(continuous parents: 2\)",
        ),
        (
            lambda: LinearGaussianCPD("y", [0.0, 1.0, 2.0], parents=["a"], states={"a": YES_NO}),
            r"intercept of 'y' has shape \(3,\); expected \(2,\) \(a: 2\)",
        ),
        (
            lambda: LinearGaussianCPD("y", [0.0, 1.0]),
            r"intercept of 'y' has shape \(2,\); expected \(\) \(a number\)",
        ),
        (lambda: LinearGaussianCPD("y", 0.0, states={"y": YES_NO}), "since it is continuous"),
        (lambda: LinearGaussianCPD("y", "a"), "intercept of 'y' is no array of numbers"),
        (
            lambda: SoftmaxCPD("k", [0.0, 0.0], [], ["a"], {"a": YES_NO}),
            "no parent of 'k' is continuous: .* use TabularCPD",
        ),
        (
            lambda: SoftmaxCPD("k", 0.0, [1.0], ["x"], {"k": COLOURS}),
            r"intercept of 'k' has shape \(\); expected \(3,\) \(k: 3\)",
        ),
        (
            lambda: SoftmaxCPD("k", np.zeros(3), np.zeros((3, 1)), ["x"]),
            r"shape \(3, 1\); expected \(1, 3\) \(continuous parents: 1, k: 3\)",
        ),
        (lambda: SoftmaxCPD("k", np.inf, [1.0], ["x"]), "intercept of 'k' has the entry inf"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
