"""Networks in which a number was set."""

import numpy as np
import pandas as pd
import pytest

from ppl_gen import BayesianNetwork, LinearGaussianCPD, TabularCPD


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
