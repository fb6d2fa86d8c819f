"""Pictures of densities: shades are the density at the middle of their cell."""

import numpy as np
import pandas as pd
import pytest

from ppl_gen import GaussianMixture, plots
from ppl_gen.datasets import make_checkerboard, make_two_moons


def test_shades_are_the_density():
    moons = make_two_moons(300)
    model = GaussianMixture(3, random_state=0).fit(moons.X)
    ax = plots.plot_density(model, moons.X, limits=((-2.0, 3.0), (-1.0, 1.5)), n_grid=10)
    shades = np.asarray(ax.images[0].get_array())
    # The first column from the left, the second row from below.
    assert shades[1, 0] == pytest.approx(np.exp(model.log_prob([[-1.75, -0.625]])[0]))
    assert ax.images[0].get_extent() == [-2.0, 3.0, -1.0, 1.5]
    assert ax.images[0].origin == "lower"
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), moons.X)


def test_the_density_shown_holds_all_of_it():
    moons = make_two_moons(300)
    ax = plots.plot_density(moons, moons.X, n_grid=100)
    left, right, bottom, top = ax.images[0].get_extent()
    area = (right - left) * (top - bottom) / 100**2
    # A tenth around 300 rows is two deviations of the noise at some edges.
    assert np.asarray(ax.images[0].get_array()).sum() * area == pytest.approx(1.0, abs=0.01)


def test_logs_end_below_the_peak():
    ax = plots.plot_density(make_checkerboard(), limits=((-5, 5), (-5, 5)), log=True, n_grid=20)
    shades = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(np.unique(shades), -np.log(32.0) - np.array([20.0, 0.0]))


def test_columns_keep_their_names():
    frame = pd.DataFrame(make_two_moons(100).X, columns=["east", "north"])
    ax = plots.plot_density(GaussianMixture(1).fit(frame), frame, n_grid=5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("east", "north")


def test_a_context_is_handed_on():
    class Conditional:
        def log_prob(self, X, context):
            return np.full(len(X), np.log(context))

    ax = plots.plot_density(Conditional(), limits=((0, 1), (0, 1)), n_grid=2, context=3.0)
    np.testing.assert_allclose(ax.images[0].get_array(), 3.0)


MODEL = GaussianMixture(1).fit(make_two_moons(50).X)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.plot_density(MODEL), "there are no rows to show the density around; give X"),
        (lambda: plots.plot_density(MODEL, np.zeros((3, 3))), r"X has shape \(3, 3\); expected"),
        (lambda: plots.plot_density(MODEL, limits=((0, 1), (1, 1))), "limits are"),
        (lambda: plots.plot_density(MODEL, limits=(0, 1)), "limits are"),
        (lambda: plots.plot_density(MODEL, limits=((0, 1), (0, 1)), n_grid=1), "n_grid is 1"),
        (
            lambda: plots.plot_density(GaussianMixture(1).fit(np.eye(3)), np.eye(3)),
            "GaussianMixture was fitted to 3 columns; expected 2",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_range_that_the_model_is_bounded_to_is_kept_to():
    class Square:
        bounds = (0.0, np.array([1.0, 2.0]))

        def log_prob(self, x):
            assert (x > 0.0).all()
            assert (x < [1.0, 2.0]).all()
            return np.zeros(len(x))

    corners = np.array([[0.0, 0.0], [1.0, 2.0]])
    ax = plots.plot_density(Square(), corners, n_grid=5)
    assert (ax.get_xlim(), ax.get_ylim()) == ((0.0, 1.0), (0.0, 2.0))
