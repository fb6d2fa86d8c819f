"""Networks in which a number was set."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from ppl_gen import BayesianNetwork, LinearGaussianCPD, SoftmaxCPD, TabularCPD


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e6])
def test_children_of_a_number_that_is_set_do_not_feel_that_it_keeps_a_deviation(unit):
    # y tells x to a thousandth of its deviation, a million of these away from zero.
    network = BayesianNetwork(
        cpds=[
            LinearGaussianCPD("x", 1e6 * unit, variance=unit**2),
            LinearGaussianCPD("y", -1e6, [1.0 / unit], 1e-6, ["x"]),
        ]
    )
    for done in (network.do({"x": 1e6 * unit}), network.do({"x": 0.0}).do({"x": 1e6 * unit})):
        answer = done.query("y").loc["y"]
        # The product of 1e6 and the unit has an error of 1e-10 units.
        np.testing.assert_allclose(answer["mean"], 0.0, atol=1e-9)
        # Twice 1e-8 deviations of x add less than a billionth to the variance.
        np.testing.assert_allclose(answer["sd"], 1e-3, rtol=1e-9)


def test_what_was_set_counts_as_no_parameter():
    states = {"z": ["a", "b"]}
    net = BayesianNetwork(
        cpds=[
            TabularCPD("z", [0.6, 0.4], [], states),
            LinearGaussianCPD("x", [0.0, 1.0], (), 1.0, ["z"], states),
            LinearGaussianCPD("y", 0.0, [1.0], 1.0, ["x"]),
        ]
    )
    assert net.structure_.n_free() == 1 + 4 + 3
    assert net.do({"x": 1.0}).structure_.n_free() == 1 + 3
    assert net.do({"x": 1.0, "z": "a"}).structure_.n_free() == 3
    rows = pd.DataFrame({"z": ["a", "b"], "x": [1.0, 1.0], "y": [0.5, 1.5]})
    done = net.do({"x": 1.0})
    assert done.aic(rows) == pytest.approx(8.0 - 2.0 * done.log_prob(rows).sum())


def around_softmax():
    # z -> x, a number -> s by a softmax; x and z -> y, a number -> w.
    z, s = {"z": ["a", "b"]}, {"s": ["lo", "hi"]}
    return BayesianNetwork(
        cpds=[
            TabularCPD("z", [0.6, 0.4], [], z),
            LinearGaussianCPD("x", [0.0, 1.0], (), [1.0, 2.0], ["z"], z),
            SoftmaxCPD("s", [0.0, 0.5], [[-1.0, 1.0]], ["x"], s),
            LinearGaussianCPD("y", [0.0, 3.0], [[2.0], [-1.0]], [1.0, 4.0], ["z", "x"], z),
            LinearGaussianCPD("w", 1.0, [0.5], 0.25, ["y"]),
        ]
    )


def test_what_depends_on_a_number_that_was_set_knows_it():
    net, p = around_softmax(), 1.0 / (1.0 + np.exp(-2.5))
    done = net.do({"x": 1.0})
    for _ in range(2):  # the second answer is by the plan of the first
        np.testing.assert_allclose(done.query("s"), [1.0 - p, p], rtol=1e-12)
        np.testing.assert_allclose(
            done.query(["z", "s"], {"x": 1.0})["a"], [0.6 - 0.6 * p, 0.6 * p]
        )
    assert done.probability({"s": "hi"}) == pytest.approx(p, rel=1e-12)
    assert done.map_query() == {"z": "a", "s": "hi"}
    drawn = done.query("s", method="likelihood_weighting", n_samples=20_000, random_state=0)
    assert drawn["hi"] == pytest.approx(p, abs=4.0 * np.sqrt(p * (1.0 - p) / 20_000))
    # y is a mixture of N(2, 1) and N(2, 4), and w follows it.
    frame = done.query(["x", "y", "w"])
    np.testing.assert_allclose(frame["mean"], [1.0, 2.0, 2.0], rtol=1e-12)
    var = 0.6 * 1.0 + 0.4 * 4.0
    np.testing.assert_allclose(frame["sd"] ** 2, [0.0, var, 0.25 * var + 0.25], rtol=1e-12)
    effect = net.average_effect("x", "s", (0.0, 1.0), outcome_state="hi")
    np.testing.assert_allclose(effect.effect, p - 1.0 / (1.0 + np.exp(-0.5)), rtol=1e-12)


def rows_of_all_gaps():
    rows = pd.DataFrame(
        {
            "z": ["a", "b", None, "a", None],
            "x": [1.0, np.nan, np.nan, 1.0, np.nan],
            "s": ["lo", None, "hi", "hi", None],
            "y": [0.5, np.nan, 2.0, np.nan, np.nan],
            "w": [1.0, 0.0, np.nan, 2.0, np.nan],
        }
    )
    own = {n: pd.CategoricalDtype(v) for n, v in (("z", ["a", "b"]), ("s", ["lo", "hi"]))}
    return rows.astype(own)


def test_a_number_that_was_set_adds_nothing_to_a_density():
    net = around_softmax()
    done, rows = net.do({"x": 1.0}), rows_of_all_gaps()
    # Given x, all else is the same in both networks where z does not tell x.
    whole = rows.assign(x=1.0)
    told = [net.log_prob(whole[["z", "x"]].assign(z=z)) for z in ("a", "b")]
    joint = np.stack(
        [
            net.log_prob(whole.assign(z=rows["z"].fillna(z))) - told[k] + np.log([0.6, 0.4][k])
            for k, z in enumerate(("a", "b"))
        ]
    )
    apart = np.where(rows["z"] == "b", joint[1], joint[0])
    expected = np.where(rows["z"].isna(), np.logaddexp(*joint), apart)
    np.testing.assert_allclose(done.log_prob(rows), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(done.log_prob(rows), done.log_prob(whole), rtol=1e-12)
    assert done.log_prob(rows)[4] == pytest.approx(0.0, abs=1e-12)
    away = done.log_prob(rows.assign(x=1.0 + 1e-6))
    np.testing.assert_array_equal(away, -np.inf)
    with pytest.raises(ValueError, match="probability zero"):
        done.query("z", {"x": 2.0, "y": 1.0})
    filled = done.impute(rows)
    assert (filled["x"] == 1.0).all()
    assert (done.impute(rows, 1, random_state=0)[0]["x"] == 1.0).all()
    assert (done.sample(10, random_state=0)["x"] == 1.0).all()
    # With y missing, w follows 1 + 0.5 * 2 in both states of z.
    np.testing.assert_allclose(filled.loc[[2, 4], "w"], [2.0, 2.0])


def test_the_density_of_the_program_is_the_same():
    import torch

    done, rows = around_softmax().do({"x": 1.0, "z": "b"}), rows_of_all_gaps().drop(0)
    x, truth = done._encode(rows), done.log_prob(rows)
    network = dataclasses.replace(done.structure_, hidden=tuple(range(5)))
    possible = [True, True, False, True]
    np.testing.assert_array_equal(np.isfinite(truth), possible)
    parameters = done._draw(0)
    tensors = {
        v: {name: torch.tensor(np.asarray(value)) for name, value in own.items()}
        for v, own in parameters.items()
    }
    for given, kind in ((parameters, np.asarray), (tensors, torch.tensor)):
        found = np.asarray(network.log_prob(given, kind(x)))[:, 0]
        np.testing.assert_allclose(found[possible], truth[possible], rtol=1e-10, atol=1e-12)
        assert found[2] < -1e29
        away = np.where(np.arange(5) == 1, 2.0, x)
        assert (np.asarray(network.log_prob(given, kind(away))) < -1e29).all()


def test_an_effect_through_a_number_on_a_softmax_is_refused_with_what_to_do():
    net, words = around_softmax(), r"do\({'z': 'a'}\)\.query\('s', method='likelihood_weighting'"
    with pytest.raises(ValueError, match=words):
        net.average_effect("z", "s", ("a", "b"), outcome_state="hi")
    found = net.do({"z": "a"}).query("s", method="likelihood_weighting", random_state=0)
    assert 0.5 < found["hi"] < 0.8
