"""Bands are the decoded runs, the strip the probabilities, and bars the draws' own runs."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from ppl_gen import EM, GaussianMixture, HiddenMarkovModel, plots

LENGTHS = [30, 20]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    centres = np.repeat([0.0, 6.0, 0.0, 6.0, 0.0], 10)
    X = np.stack([centres, 10.0 * centres + 500.0], axis=1) + rng.normal(size=(50, 2))
    X[12:15] = np.nan
    X[20, 0] = np.nan
    return X


@pytest.fixture(scope="module")
def model(rows):
    return HiddenMarkovModel(2, random_state=0, inference=EM(max_iter=20)).fit(rows, LENGTHS)


def bands(ax):
    """Intervals of each state's band, as (first, last) on the x-axis."""
    found = []
    for collection in ax.collections:
        paths = (path.vertices for path in collection.get_paths())
        found.append([(v[:, 0].min(), v[:, 0].max()) for v in paths if len(v)])
    return found


def expected_bands(path, n_states, start=0):
    found = [[] for _ in range(n_states)]
    for t, state in enumerate(path):
        if found[state] and found[state][-1][1] == start + t - 0.5:
            found[state][-1] = (found[state][-1][0], start + t + 0.5)
        else:
            found[state].append((start + t - 0.5, start + t + 0.5))
    return found


@pytest.mark.parametrize("sequence", [0, 1])
@pytest.mark.parametrize("arranged", ["rows", "list"])
def test_bands_are_the_runs_of_the_path(model, rows, sequence, arranged):
    parts = np.split(rows, [30])
    if arranged == "rows":
        ax = plots.plot_states(model, rows, LENGTHS, sequence=sequence)
    else:
        ax = plots.plot_states(model, parts, sequence=sequence)
    path = model.predict(parts)[sequence]
    assert bands(ax) == expected_bands(path, 2)
    assert ax.get_xlim() == (-0.5, LENGTHS[sequence] - 0.5)
    colours = [tuple(c.get_facecolor()[0][:3]) for c in ax.collections]
    assert colours == [to_rgba(f"C{k}")[:3] for k in range(2)]


def test_the_strip_is_the_posterior_probability(model, rows):
    ax = plots.plot_states(model, rows, LENGTHS, sequence=1)
    (strip,) = ax.child_axes
    proba = model.predict_proba(rows, LENGTHS)[30:]
    first, second = strip.collections
    # The top of the first layer just right of each step's left border is its probability.
    top = first.get_paths()[0]
    other = second.get_paths()[0]
    for t in range(20):
        assert top.contains_point((t, 0.999 * proba[t, 0])) or proba[t, 0] < 1e-6
        assert not top.contains_point((t, proba[t, 0] + 1e-3 * (1 - proba[t, 0]) + 1e-9))
        assert other.contains_point((t, 1.0 - 0.5 * proba[t, 1])) or proba[t, 1] < 1e-6
    assert strip.get_ylim() == (0.0, 1.0)
    assert strip.get_xlim() == ax.get_xlim()


def test_columns_are_drawn_in_lanes_with_gaps_where_missing(model, rows):
    ax = plots.plot_states(model, rows, LENGTHS)
    first, second = ax.lines[:2]
    for place, line in enumerate((first, second)):
        np.testing.assert_array_equal(np.isnan(line.get_ydata()), np.isnan(rows[:30, place]))
        seen = line.get_ydata()[~np.isnan(line.get_ydata())]
        # Each fills eight tenths of its own lane, of height one.
        assert (seen.min(), seen.max()) == pytest.approx((0.1 - place, 0.9 - place))
        values = rows[:30, place][~np.isnan(rows[:30, place])]
        assert np.corrcoef(values, seen)[0, 1] == pytest.approx(1.0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1"]


def test_one_column_keeps_its_units_and_its_index():
    years = pd.Index(np.arange(1900, 1940), name="year")
    counts = pd.DataFrame({"count": [3, 4, 2, 3] * 5 + [20, 22, 19, 21] * 5}, index=years)
    model = HiddenMarkovModel(2, "poisson", random_state=0).fit(counts)
    ax = plots.plot_states(model, counts, names=["calm", "wild"])
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), years)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), counts["count"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("year", "count")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["calm", "wild"]
    assert bands(ax) == expected_bands(model.predict(counts), 2, start=1900)
    other = plots.plot_states(model, counts, times=np.arange(40) / 4.0)
    assert other.get_xlim() == (-0.125, 9.875)


def test_dates_are_dates():
    quarters = pd.period_range("2000Q1", periods=12, freq="Q")
    frame = pd.DataFrame({"growth": [1.0, 1.2, 0.9, -2.0, -2.2, -1.9] * 2}, index=quarters)
    model = HiddenMarkovModel(2, random_state=0).fit(frame)
    ax = plots.plot_states(model, frame)
    ax.figure.canvas.draw()
    assert "2001-01" in {label.get_text() for label in ax.get_xticklabels()}


def test_categories_are_points_at_their_names():
    frame = pd.DataFrame({"roll": pd.Categorical(list("abcabccccc"))})
    model = HiddenMarkovModel(2, "categorical", random_state=0).fit(frame)
    ax = plots.plot_states(model, frame)
    assert ax.lines[0].get_linestyle() == "None"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), frame["roll"].cat.codes)


def test_a_step_alone_and_one_that_is_missing_are_drawn(model):
    ax = plots.plot_states(model, np.full((1, 2), np.nan))
    assert sum(map(len, bands(ax))) == 1
    assert ax.get_xlim() == (-0.5, 0.5)


def test_sequences_side_by_side_are_drawn_one_by_one(model, rows):
    stacked = rows.reshape(5, 10, 2)
    path = model.predict(stacked)
    for sequence in (0, 3):
        ax = plots.plot_states(model, stacked, sequence=sequence)
        assert bands(ax) == expected_bands(path[sequence], 2)
    counts = plots.plot_run_lengths(model, stacked, n_draws=2, random_state=0)
    runs = sum(len(spans) for one in path for spans in expected_bands(one, 2))
    assert counts.collections[-1].get_offsets()[:, 1].sum() == runs


def test_mixed_columns_with_gaps():
    rng = np.random.default_rng(0)
    high = np.repeat([False, True, False], 10)
    frame = pd.DataFrame({"speed": 8.0 * high + rng.normal(size=30)})
    frame["gear"] = pd.Categorical(np.where(high, "up", "down"))
    frame.loc[3, "speed"], frame.loc[7, "gear"] = np.nan, None
    frame.loc[12:14] = None
    model = HiddenMarkovModel(2, {"speed": "normal", "gear": "categorical"}, random_state=0)
    ax = plots.plot_states(model.fit(frame), frame)
    assert ax.get_xlabel() == "step"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["speed", "gear"]
    for line, name in zip(ax.lines, ("speed", "gear"), strict=False):
        np.testing.assert_array_equal(np.isnan(line.get_ydata()), frame[name].isna())
    assert ax.lines[1].get_linestyle() == "None"
    dots = plots.plot_run_lengths(model, frame, n_draws=3, random_state=0).collections[-1]
    assert dots.get_offsets()[:, 1].sum() == 3


def test_draws_of_the_parameters_are_averaged(model, rows):
    import copy

    bayesian = copy.copy(model)
    draws = {"start": np.repeat(model.parameters_["start"], 3, axis=0)}
    draws["transition"] = np.array([[[1 - p, p], [p, 1 - p]] for p in (0.02, 0.1, 0.4)])
    family = model.parameters_["family"].items()
    draws["family"] = {name: np.repeat(value, 3, axis=0) for name, value in family}
    bayesian.parameters_ = draws
    ax = plots.plot_states(bayesian, rows, LENGTHS)
    proba = bayesian.predict_proba(rows, LENGTHS)[:30]
    layer = ax.child_axes[0].collections[0].get_paths()[0]
    unsure = np.flatnonzero((proba[:, 0] > 0.01) & (proba[:, 0] < 0.99))
    assert len(unsure)
    for t in unsure:
        assert layer.contains_point((t, proba[t, 0] - 1e-3))
        assert not layer.contains_point((t, proba[t, 0] + 1e-3))
    ax = plots.plot_run_lengths(bayesian, rows, LENGTHS, n_draws=4, random_state=0)
    path = bayesian.predict(rows, LENGTHS)
    runs = sum(len(s) for part in np.split(path, [30]) for s in expected_bands(part, 2))
    assert ax.collections[-1].get_offsets()[:, 1].sum() == runs


def test_what_cannot_be_drawn_is_refused(model, rows):
    with pytest.raises(ValueError, match="sequence is 2, but there are 2"):
        plots.plot_states(model, rows, LENGTHS, sequence=2)
    with pytest.raises(ValueError, match="3 names, but 2 states"):
        plots.plot_states(model, rows, LENGTHS, names=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"times has shape \(3,\); expected one a step, \(30,\)"):
        plots.plot_states(model, rows, LENGTHS, times=[1, 2, 3])
    with pytest.raises(ValueError, match="expected numbers or dates"):
        plots.plot_states(model, rows, LENGTHS, times=list("a" * 30))
    mixture = GaussianMixture(2, random_state=0).fit(rows)
    with pytest.raises(TypeError, match="GaussianMixture has no hidden states"):
        plots.plot_states(mixture, rows)


def test_runs_are_counted_as_they_are(model, rows):
    ax = plots.plot_run_lengths(model, rows, LENGTHS, n_draws=20, random_state=0)
    path = model.predict(rows, LENGTHS)
    runs = [b - a for part in np.split(path, [30]) for s in expected_bands(part, 2) for a, b in s]
    dots = ax.collections[-1].get_offsets()[:, 1]
    bins = 2 ** np.arange(len(dots) + 1)
    np.testing.assert_array_equal(dots, np.histogram(runs, bins)[0])
    assert dots.sum() == len(runs) == 5
    assert f"mean run {np.mean(runs):.1f}" in ax.get_title()


def test_draws_of_a_chain_have_geometric_runs():
    rng = np.random.default_rng(1)
    X = np.where(rng.uniform(size=2000) < 0.5, 0.0, 9.0)
    model = HiddenMarkovModel(2, random_state=0).fit(X + 0.1 * rng.normal(size=2000))
    # States without memory that are plain to see: a run goes on with probability 1/2, so that
    # half of the runs are of one step, and a quarter and an eighth are of two and three.
    ax = plots.plot_run_lengths(model, X, n_draws=30, random_state=0)
    middle = np.array([segment[0, 1] for segment in ax.collections[0].get_segments()])
    # The standard error of a median of 30 draws of a count of 500 is about 4.
    assert middle[0] == pytest.approx(500.0, abs=20.0)
    assert middle[1] == pytest.approx(375.0, abs=20.0)
    # What was drawn from the same chain lies in the bars.
    dots = ax.collections[-1].get_offsets()[:, 1]
    bars = ax.patches
    inside = [
        bar.get_y() - 10 <= dot <= bar.get_y() + bar.get_height() + 10
        for bar, dot in zip(bars, dots, strict=True)
    ]
    assert all(inside[:3])


def test_runs_of_one_state_leave_out_those_of_others(model, rows):
    one = [plots.plot_run_lengths(model, rows, LENGTHS, state=k, n_draws=5) for k in range(2)]
    totals = [ax.collections[-1].get_offsets()[:, 1].sum() for ax in one]
    assert sum(totals) == 5
    assert one[1].get_title().startswith("state 1")


def test_draws_are_missing_where_the_data_are(model, rows):
    from ppl_gen.plots.states import _replicate

    sequences, _ = model._read_checked(rows, LENGTHS)
    drawn = _replicate(model, sequences, np.random.default_rng(0))
    np.testing.assert_array_equal(np.isnan(drawn), np.isnan(rows))


def test_a_state_that_is_not_there_is_refused(model, rows):
    with pytest.raises(ValueError, match="state is 2; expected one from 0 to 1"):
        plots.plot_run_lengths(model, rows, LENGTHS, state=2)
    with pytest.raises(ValueError, match="n_draws is 0"):
        plots.plot_run_lengths(model, rows, LENGTHS, n_draws=0)


def test_a_state_never_decoded_has_no_runs(model):
    X = np.tile([6.0, 560.0], (3, 1))
    other = 1 - int(model.predict(X)[0])
    ax = plots.plot_run_lengths(model, X, state=other, n_draws=2, random_state=0)
    assert ax.collections[-1].get_offsets()[:, 1].sum() == 0


def test_axes_that_are_given_are_drawn_on(model, rows):
    for draw in (plots.plot_states, plots.plot_run_lengths):
        ax = plt.figure().add_subplot()
        assert draw(model, rows, LENGTHS, ax=ax) is ax
        assert draw(model, rows, LENGTHS) is not ax
