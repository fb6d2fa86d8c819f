"""Pictures of images: each pixel is looked up where it should be."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgba

from ppl_gen import GaussianMixture, plots
from ppl_gen.plots.images import LINES, MISSING


def drawn(ax):
    return np.asarray(ax.images[0].get_array())


def some(n=7, shape=(3, 4), seed=0):
    return np.random.default_rng(seed).uniform(size=(n, *shape))


class Linear:
    """A model of images of 2 x 2 whose codes are what the rows add up to, and their first entry."""

    row_shape_ = (2, 2)

    def transform(self, X, context=0.0):
        flat = np.reshape(X, (len(X), -1))
        return np.stack([flat.sum(axis=1), flat[:, 0]], axis=1) + context

    def inverse_transform(self, codes, context=0.0):
        first, second = np.asarray(codes).T[..., None, None]
        return first * np.eye(2) + second * (1.0 - np.eye(2)) + context

    def sample(self, n, random_state=None, context=0.0):
        return np.random.default_rng(random_state).normal(5.0, 2.0, size=(n, 2, 2)) + context

    def reconstruct(self, X, context=0.0):
        return 1.0 - np.asarray(X).reshape(-1, 2, 2) + context


def test_every_pixel_is_in_its_place():
    images = some()
    picture = drawn(plots.plot_images(images, columns=3))
    assert picture.shape == (3 * 4 + 1, 3 * 5 + 1, 4)
    low, high = images.min(), images.max()
    for place, image in enumerate(images):
        top, left = 4 * (place // 3) + 1, 5 * (place % 3) + 1
        expected = colormaps["gray_r"]((image - low) / (high - low))
        np.testing.assert_array_equal(picture[top : top + 3, left : left + 4], expected)
    np.testing.assert_array_equal(picture[0, :], np.tile(to_rgba(LINES), (16, 1)))
    assert (picture[10:, 7:] == 1.0).all()  # nothing where there are no images


def test_flat_rows_are_images_too():
    images = some(4)
    flat = images.reshape(4, -1)
    expected = drawn(plots.plot_images(images))
    np.testing.assert_array_equal(drawn(plots.plot_images(flat, image_shape=(3, 4))), expected)
    square = some(2, (5, 5))
    table = pd.DataFrame(square.reshape(2, -1))
    np.testing.assert_array_equal(drawn(plots.plot_images(table)), drawn(plots.plot_images(square)))


def test_colours_and_gaps():
    images = some(1, (2, 2, 3))
    images[0, 0, 0] = np.nan
    picture = drawn(plots.plot_images(images, limits=(0.0, 0.5)))
    np.testing.assert_array_equal(picture[1, 1], to_rgba(MISSING))
    np.testing.assert_allclose(picture[2, 2, :3], np.minimum(2.0 * images[0, 1, 1], 1.0))
    blank = drawn(plots.plot_images(np.full((1, 2, 2), 3.0)))  # of one value, and so white
    assert (blank[1:3, 1:3] == 1.0).all()
    gone = drawn(plots.plot_images(np.full((1, 2, 2), np.nan)))
    np.testing.assert_array_equal(gone[1, 1], to_rgba(MISSING))


def test_labels_stand_in_their_images():
    ax = plots.plot_images(some(4), columns=2, labels=list("abcd"))
    assert [text.get_text() for text in ax.texts] == list("abcd")
    assert ax.texts[3].get_position() == (5.5, 4.5)


def test_on_axes_that_are_given():
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert plots.plot_images(some(2), ax=ax) is ax


def test_reconstructions_are_below_their_originals():
    images = some(3, (2, 2))
    expected = np.concatenate([images, np.clip(1.0 - images, images.min(), images.max())])
    picture = drawn(plots.plot_reconstructions(Linear(), images))
    limits = (images.min(), images.max())
    np.testing.assert_array_equal(
        picture, drawn(plots.plot_images(expected, columns=3, limits=limits))
    )
    moved = drawn(plots.plot_reconstructions(Linear(), images, context=0.5))
    assert (moved[4:] != picture[4:]).any()
    flat = drawn(plots.plot_reconstructions(Linear(), images.reshape(3, 4)))
    np.testing.assert_array_equal(flat, picture)


def test_traversals_set_one_latent_after_the_other():
    x = np.array([[[1.0, 2.0], [3.0, 4.0]]])  # its codes are 10 and 1
    ax = plots.plot_traversals(Linear(), x, values=(-1.0, 0.0, 2.0))
    codes = [[-1, 1], [0, 1], [2, 1], [10, -1], [10, 0], [10, 2]]
    expected = drawn(plots.plot_images(Linear().inverse_transform(codes), columns=3))
    np.testing.assert_array_equal(drawn(ax), expected)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["-1", "0", "2"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "1"]
    chosen = plots.plot_traversals(Linear(), x, [1], values=(2.0,), context=1.0)
    np.testing.assert_array_equal(
        drawn(chosen), drawn(plots.plot_images(Linear().inverse_transform([[11, 2]], 1.0)))
    )


@pytest.mark.parametrize("context", [None, 3.0])
def test_traversals_are_over_the_spread_of_the_codes(context):
    x, given = np.array([[[1.0, 2.0], [3.0, 4.0]]]), {} if context is None else {"context": context}
    ax = plots.plot_traversals(Linear(), x, [1], **given)
    seen = Linear().transform(Linear().sample(500, 0, **given), **given)[:, 1]
    shift = context or 0.0
    # The first entry of rows, and what it is moved by in draws and in codes.
    # Bounds are of five standard errors.
    assert abs(seen.mean() - 5.0 - 2.0 * shift) < 5 * 2.0 / 500**0.5
    assert abs(seen.std() - 2.0) < 5 * 2.0 / 1000**0.5
    steps = [[10.0 + shift, seen.mean() + k * seen.std()] for k in range(-3, 4)]
    expected = drawn(plots.plot_images(Linear().inverse_transform(steps, shift), columns=7))
    # Sums in another order may round to the next of the 256 greys.
    np.testing.assert_allclose(drawn(ax), expected, atol=1.01 / 255)
    assert ax.get_xlabel() == "deviations"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["-3", "-2", "-1", "0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: plots.plot_images(some(0)), ValueError, r"shape \(0, 3, 4\); expected \(n, H, W"),
        (lambda: plots.plot_images(some(2, (2, 2, 2))), ValueError, "of 1 or 3 channels"),
        (lambda: plots.plot_images([1.0, 2.0]), ValueError, r"images have shape \(2,\)"),
        (lambda: plots.plot_images(some(2, (12,))), ValueError, "rows of 12 entries are no images"),
        (
            lambda: plots.plot_images(some(2, (12,)), image_shape=(5, 2)),
            ValueError,
            r"no images of shape \(5, 2\); give image_shape",
        ),
        (lambda: plots.plot_images(some(), columns=-1), ValueError, "columns is -1; expected at"),
        (lambda: plots.plot_images(some(), labels=["a"]), ValueError, "1 labels, but 7 images"),
        (lambda: plots.plot_images(some(), limits=(1, 0)), ValueError, "expected the lower one"),
        (
            lambda: plots.plot_reconstructions(GaussianMixture(), some()),
            TypeError,
            "GaussianMixture has no reconstruct; expected a model with latents",
        ),
        (lambda: plots.plot_traversals(GaussianMixture(), some()), TypeError, "has no transform"),
        (lambda: plots.plot_traversals(Linear(), some(2, (2, 2))), ValueError, "x has 2 images"),
        (
            lambda: plots.plot_traversals(Linear(), some(1, (2, 2)), [2]),
            ValueError,
            r"latents is \[2\]; expected some of the 2 latents",
        ),
        (lambda: plots.plot_traversals(Linear(), some(1, (2, 2)), []), ValueError, r"latents is"),
    ],
)
def test_bad_input_is_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
