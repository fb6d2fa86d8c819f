"""The fan is the quantiles of the draws, after what was observed."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ppl_gen import plots

DRAWS = np.random.default_rng(0).normal([0.0, 100.0], size=(200, 6, 2))


def band_of(collection):
    vertices = collection.get_paths()[0].vertices
    return {
        x: (vertices[vertices[:, 0] == x, 1].min(), vertices[vertices[:, 0] == x, 1].max())
        for x in np.unique(vertices[:, 0])
    }


def test_the_fan_is_the_quantiles_of_the_draws():
    ax = plots.plot_forecast(DRAWS, np.zeros((4, 2)), column=1, levels=(0.5, 0.8))
    observed, median = ax.lines
    np.testing.assert_array_equal(observed.get_xdata(), np.arange(4))
    np.testing.assert_array_equal(median.get_xdata(), np.arange(4, 10))
    np.testing.assert_array_equal(median.get_ydata(), np.median(DRAWS[:, :, 1], axis=0))
    for collection, tail in zip(ax.collections, (0.1, 0.25), strict=True):
        low, high = np.quantile(DRAWS[:, :, 1], [tail, 1.0 - tail], axis=0)
        for t, (bottom, top) in band_of(collection).items():
            assert (bottom, top) == pytest.approx((low[int(t) - 4], high[int(t) - 4]))
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["observed", "80% interval", "50% interval", "median"]


def test_the_forecast_goes_on_where_the_index_ends():
    frame = pd.DataFrame({"flow": [1.0, 2.0, 3.0]}, index=pd.Index([1900, 1902, 1904], name="year"))
    ax = plots.plot_forecast(DRAWS[:, :, 0], frame)
    np.testing.assert_array_equal(ax.lines[-1].get_xdata(), 1904 + 2 * np.arange(1, 7))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("year", "flow")
    series = plots.plot_forecast(DRAWS[:, :, 0], frame["flow"])
    np.testing.assert_array_equal(series.lines[0].get_ydata(), [1.0, 2.0, 3.0])
    assert series.get_ylabel() == "flow"
    dates = frame.set_index(pd.to_datetime(["2000-01-01", "2000-01-02", "2000-01-03"]))
    dated = plots.plot_forecast(DRAWS[:, :, 0], dates)
    assert np.diff(dated.lines[-1].get_xdata()) == pytest.approx(np.ones(5))


def test_without_a_past_the_first_step_is_nought():
    ax = plots.plot_forecast(DRAWS)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.arange(6))


def test_one_step_has_width():
    ax = plots.plot_forecast(DRAWS[:, :1], [[0.0, 0.0]])
    band = band_of(ax.collections[0])
    assert max(band) - min(band) == pytest.approx(0.6)


def test_a_forecast_has_its_draws():
    class Forecast:
        draws = DRAWS

    ax = plots.plot_forecast(Forecast())
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), np.median(DRAWS[:, :, 0], axis=0))


@pytest.mark.parametrize(
    ("draws", "settings", "match"),
    [
        (np.zeros((0, 3, 1)), {}, r"the draws have shape \(0, 3, 1\)"),
        (np.zeros((5, 2, 3, 1)), {}, "expected .n_draws, steps, D. of one sequence"),
        (DRAWS, {"column": 2}, "column is 2, but there are 2"),
        (DRAWS, {"levels": (0.5, 90.0)}, "expected probabilities"),
        (DRAWS, {"observed": [1.0, 2.0], "times": [1.0]}, r"times has shape \(1,\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draws, settings, match):
    with pytest.raises(ValueError, match=match):
        plots.plot_forecast(draws, **settings)


def test_axes_that_are_given_are_drawn_on():
    ax = plt.figure().add_subplot()
    assert plots.plot_forecast(DRAWS, ax=ax) is ax
