"""Toys in the plane: their densities integrate to one and are those of the points."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import make_moons

from ppl_gen import datasets

TOYS = {
    # The entropy, the lowest corner of a box that holds all of the density, and its sides.
    "eight_gaussians": (datasets.make_eight_gaussians, 1.698, (-6.0, -6.0), (12.0, 12.0)),
    "checkerboard": (datasets.make_checkerboard, 3.466, (-4.0, -4.0), (8.0, 8.0)),
    "two_moons": (datasets.make_two_moons, 1.008, (-2.0, -1.5), (5.0, 3.5)),
}


def midpoints(low, sides, n=200):
    places = (np.arange(n) + 0.5) / n
    axes = [start + side * places for start, side in zip(low, sides, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return points, sides[0] * sides[1] / n**2


@pytest.mark.parametrize("name", TOYS)
def test_the_density_integrates_to_one_and_has_its_entropy(name):
    make, entropy, low, sides = TOYS[name]
    toy = make(10)
    points, area = midpoints(low, sides)
    log_prob = toy.log_prob(points)
    p = np.exp(log_prob)
    # Steps of at most .06 are .3 of a deviation, where the midpoint rule is exact for normals to
    # many digits; the squares of the board are whole numbers of cells.
    assert p.sum() * area == pytest.approx(1.0, abs=1e-6)
    seen = p > 0.0
    assert -(p[seen] * log_prob[seen]).sum() * area == pytest.approx(toy.entropy, abs=1e-6)
    assert toy.entropy == pytest.approx(entropy, abs=5e-4)


@pytest.mark.parametrize("name", TOYS)
def test_points_are_drawn_from_the_density(name):
    toy = TOYS[name][0](20_000, random_state=1)
    surprise = -toy.log_prob(toy.X)
    # Four standard errors; that of the board is a constant.
    error = surprise.std() / np.sqrt(len(surprise))
    assert abs(surprise.mean() - toy.entropy) < 4.0 * error + 1e-12
    assert toy.name == name
    assert name in repr(toy)
    counts = np.bincount(toy.y)
    share = 1.0 / len(counts)
    assert (abs(counts / 20_000 - share) < 4.0 * np.sqrt(share * (1.0 - share) / 20_000)).all()


def test_eight_normals():
    toy = datasets.make_eight_gaussians(50)
    angle = 0.25 * np.pi * np.arange(8)
    parts = [
        multivariate_normal([4.0 * np.cos(a), 4.0 * np.sin(a)], 0.04 * np.eye(2)).pdf(toy.X)
        for a in angle
    ]
    np.testing.assert_allclose(toy.log_prob(toy.X), np.log(np.mean(parts, axis=0)), rtol=1e-12)


def test_a_square_is_dark_or_it_is_not():
    toy = datasets.make_checkerboard(10)
    dark = toy.log_prob([[1.0, 1.0], [-1.0, -1.0], [1.0, -3.0], [-3.0, 1.0]])
    np.testing.assert_allclose(dark, -np.log(32.0))
    light = [[1.0, -1.0], [3.0, 1.0], [5.0, 1.0], [np.inf, 0.0], [0.0, -4.1]]
    assert np.isneginf(toy.log_prob(light)).all()


def test_moons_are_those_of_scikit_learn():
    toy = datasets.make_two_moons(101, random_state=3)
    X, y = make_moons(101, noise=0.1, random_state=3)
    np.testing.assert_array_equal(toy.X, X)
    np.testing.assert_array_equal(toy.y, y)
    # The noise about each of many points along the arcs, by hand.
    places, _ = make_moons(20_000)
    at = np.array([[0.0, 1.0], [1.9, 0.3], [0.5, 0.25], [-1.5, 0.0]])
    squares = ((at[:, None] - places) ** 2).sum(axis=2)
    expected = np.exp(-50.0 * squares).mean(axis=1) / (0.02 * np.pi)
    # The ends of an arc are half a step nearer to it than they should be: 1 part in 10,000.
    np.testing.assert_allclose(np.exp(toy.log_prob(at)), expected, rtol=2e-3)


def test_densities_are_finite_far_away_and_in_chunks():
    for make in (datasets.make_eight_gaussians, datasets.make_two_moons):
        toy = make(10_100)
        assert np.isfinite(toy.log_prob([[1e3, -1e3]])).all()
        # The sum over the centres may be taken in another order.
        np.testing.assert_allclose(toy.log_prob(toy.X)[-3:], toy.log_prob(toy.X[-3:]), rtol=1e-12)
        assert toy.log_prob(np.empty((0, 2))).shape == (0,)


def test_the_same_again_by_the_same_seed():
    for make, *_ in TOYS.values():
        np.testing.assert_array_equal(make(20, 5).X, make(20, 5).X)
        assert (make(20, 5).X != make(20, 6).X).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.make_eight_gaussians(0), "make_eight_gaussians: n is 0; expected at"),
        (lambda: datasets.make_checkerboard(-1), "make_checkerboard: n is -1; expected at least 1"),
        (lambda: datasets.make_two_moons(1), "n is 1; expected at least 2, one for each moon"),
        (lambda: datasets.make_two_moons(5).log_prob([1.0, 2.0]), r"X has shape \(2,\); expected"),
        (lambda: datasets.make_two_moons(5).log_prob([[1.0]]), r"X has shape \(1, 1\); expected"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
