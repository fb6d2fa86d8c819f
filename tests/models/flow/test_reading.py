"""What flows take of the data: columns have units of their own, pixels share one."""

import numpy as np
import pytest

from ppl_gen.models.flow.reading import read_facts

SETTINGS = {"standardise": True, "smoothed": True}


def facts_of(values, row_shape, **settings):
    names = list(range(values.shape[1]))
    settings = {"bounds": None, "discrete": False} | SETTINGS | settings
    return read_facts(values, row_shape, "Flow", names, **settings)


@pytest.fixture
def rows():
    """Columns of deviations 0, 1, 2 and 5."""
    drawn = np.random.default_rng(0).normal(size=(500, 4))
    return (drawn - drawn.mean(axis=0)) / drawn.std(axis=0) * [0.0, 1.0, 2.0, 5.0] + 3.0


def test_columns_have_their_own_deviation(rows):
    facts = facts_of(rows, (4,))
    np.testing.assert_allclose(facts["deviation"], [1.0, 1.0, 2.0, 5.0])
    np.testing.assert_allclose(facts["scale"], [1.0, 1.0, 2.0, 5.0])
    np.testing.assert_allclose(facts["loc"], 3.0)


def test_pixels_share_that_of_all(rows):
    facts = facts_of(rows, (2, 2))
    np.testing.assert_allclose(facts["deviation"], np.sqrt(30.0 / 4.0))
    np.testing.assert_allclose(facts["scale"], np.sqrt(30.0 / 4.0))
    np.testing.assert_allclose(facts["loc"], 3.0)
    blank = facts_of(np.full((10, 4), 2.0), (2, 2))
    np.testing.assert_array_equal(blank["scale"], 1.0)


def test_levels_of_pixels_have_the_noise_that_dequantises():
    levels = np.zeros((40, 4))
    levels[::2, 0] = 4.0
    facts = facts_of(levels, (2, 2), discrete=True)
    # Variances 4 + 1/12, and 1/12 of the constant pixels; the noise is taken at eight middles,
    # whose variance is (1 - 1/64) / 12.
    noise = (1.0 - 1.0 / 64.0) / 12.0
    np.testing.assert_allclose(facts["scale"], np.sqrt((4.0 + 4.0 * noise) / 4.0))
