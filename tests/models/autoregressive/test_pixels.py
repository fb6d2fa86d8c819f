"""PixelCNN and PixelRNN as estimators: images in and out, refusals, keeping, digits."""

import itertools

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

import ppl_gen
from ppl_gen import MaximumLikelihood, PixelCNN, PixelRNN

MODELS = [PixelCNN, PixelRNN]
QUICK = MaximumLikelihood(epochs=10, learning_rate=0.02, batch_size=20)


def small(kind, **settings):
    return kind(
        **(
            {"n_filters": 8, "n_layers": 2, "dropout": 0.0, "inference": QUICK, "random_state": 0}
            | settings
        )
    )


@pytest.fixture(scope="module")
def stripes():
    """Binary images of 3 x 3 whose rows repeat, but for some noise."""
    rng = np.random.default_rng(0)
    rows = rng.integers(2, size=(80, 1, 3)) ^ (rng.random((80, 3, 3)) < 0.1)
    return rows.astype(np.int64)


@pytest.fixture(scope="module", params=MODELS, ids=lambda kind: kind.__name__)
def fitted(request, stripes):
    return small(request.param).fit(stripes)


def all_stripes():
    return np.array(list(itertools.product([0, 1], repeat=9))).reshape(-1, 3, 3)


def test_density_of_all_images_sums_to_one(fitted):
    assert fitted.density == "exact"
    # float32: some 1e-7 an entry.
    assert np.exp(fitted.log_prob(all_stripes())).sum() == pytest.approx(1.0, abs=1e-4)


def test_what_was_learned_is_better_than_independent_pixels(fitted, stripes):
    share = stripes.mean(axis=0)
    independent = (stripes * np.log(share) + (1 - stripes) * np.log(1.0 - share)).sum() / 80
    assert fitted.score(stripes) > independent + 1.0


def test_draws_have_shape_and_dtype(fitted):
    drawn = fitted.sample(7, random_state=1)
    assert drawn.shape == (7, 3, 3)
    assert drawn.dtype == np.int64
    assert set(np.unique(drawn)) <= {0, 1}
    np.testing.assert_array_equal(drawn, fitted.sample(7, random_state=1))


def test_save_and_load(fitted, stripes, tmp_path):
    loaded = ppl_gen.load(fitted.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.log_prob(stripes), fitted.log_prob(stripes))
    np.testing.assert_array_equal(loaded.sample(5, 3), fitted.sample(5, 3))


def test_a_missing_lower_part_is_drawn_from_its_conditional(fitted):
    image = np.array([[0.0, 1.0, 1.0], [0.0, 1.0, np.nan], [np.nan, np.nan, np.nan]])
    drawn = fitted.complete(np.repeat(image[None], 3000, axis=0), random_state=0)
    assert drawn.dtype == np.int64
    known = ~np.isnan(image)
    assert (drawn[:, known] == image[known]).all()
    images = all_stripes()
    fitting = images[(images[:, known] == image[known]).all(axis=1)]
    mass = np.exp(fitted.log_prob(fitting))
    # The density of what is known is exact: the mass of all that agree with it.
    assert np.exp(fitted.log_prob(image[None]))[0] == pytest.approx(mass.sum(), rel=1e-4)
    found = np.array([(drawn == f).all(axis=(1, 2)).mean() for f in fitting])
    assert np.abs(found - mass / mass.sum()).max() < 4.0 * 0.5 / 3000**0.5


def test_pixels_known_below_are_evidence(fitted):
    image = np.array([[np.nan, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    drawn = fitted.complete(np.repeat(image[None], 1000, axis=0), random_state=0, n_particles=20)
    both = np.where(np.isnan(image), np.array([0.0, 1.0])[:, None, None], image)
    mass = np.exp(fitted.log_prob(both))
    # Four standard errors, and the bias of 20 particles.
    assert abs(drawn[:, 0, 0].mean() - mass[1] / mass.sum()) < 4.0 * 0.5 / 1000**0.5 + 0.02
    with pytest.raises(ValueError, match=r"row 0, entry 1 is known, but comes .* complete"):
        fitted.log_prob(image[None])


def test_complete_images_are_given_back(fitted, stripes):
    np.testing.assert_array_equal(fitted.complete(stripes[:3]), stripes[:3])


def test_conditional_on_a_class(stripes):
    label = np.where(stripes[:, 2, 2] == 1, "lit", "dark")
    model = small(PixelCNN).fit(stripes, context=label)
    images = all_stripes()
    for name in ("lit", "dark"):
        density = np.exp(model.log_prob(images, context=name))
        assert density.sum() == pytest.approx(1.0, abs=1e-4)
    drawn = model.sample(200, random_state=0, context="lit")
    assert drawn[:, 2, 2].mean() > 0.8
    with pytest.raises(ValueError, match="glow"):
        model.log_prob(images, context="glow")
    with pytest.raises(ValueError, match="context is missing"):
        model.sample(2)


@pytest.mark.parametrize("likelihood", ["categorical", "discretised_logistic"])
def test_colour_images(likelihood):
    rng = np.random.default_rng(0)
    images = np.repeat(rng.integers(4, size=(40, 2, 2, 1)), 3, axis=3).astype(np.uint8)
    method = MaximumLikelihood(epochs=30, learning_rate=0.02, batch_size=20)
    settings = {"n_filters": 12, "likelihood": likelihood, "n_levels": 4, "inference": method}
    model = small(PixelCNN, **settings).fit(images)
    drawn = model.sample(5, random_state=0)
    assert drawn.shape == (5, 2, 2, 3)
    assert drawn.dtype == np.uint8
    # Channels are alike: much less than the log 64 nats a pixel of three free ones.
    assert -model.score(images) < 4 * np.log(64.0) - 4.0


def test_flat_rows_with_a_declared_shape(stripes):
    flat = small(PixelCNN, image_shape=(3, 3)).fit(stripes.reshape(80, 9))
    square = small(PixelCNN).fit(stripes)
    np.testing.assert_array_equal(flat.log_prob(stripes), square.log_prob(stripes))
    assert flat.row_shape_ == (3, 3)


@pytest.mark.parametrize("kind", MODELS)
def test_images_that_are_refused(kind, stripes):
    model = small(kind)
    with pytest.raises(NotFittedError):
        model.complete(stripes)
    for wrong, message in [
        (stripes * 0.5, r"X has 0.5 in \d+ entries that are no levels; expected whole numbers"),
        (stripes - 1, "X has -1 in"),
        (stripes * 300, "levels up to 300; expected 0 to 255"),
        (np.where(stripes == 1, np.nan, 0.0), "contains NaN .* trained on complete rows"),
        (stripes.reshape(80, 9), "say nothing of height and width"),
        (stripes[:1], "n_samples=1"),
    ]:
        with pytest.raises(ValueError, match=message):
            clone(model).fit(wrong)
    with pytest.raises(ValueError, match=r"X has 2 in .* from 0 to 1"):
        clone(model).set_params(n_levels=2).fit(stripes + 1)


def test_images_that_are_refused_once_fitted(fitted, stripes):
    with pytest.raises(ValueError, match=r"rows of shape \(4, 3\); expected \(3, 3\)"):
        fitted.log_prob(np.zeros((2, 4, 3)))
    with pytest.raises(ValueError, match="X has 2 in 9 entries"):
        fitted.log_prob(np.full((1, 3, 3), 2))
    with pytest.raises(ValueError, match="n_particles is 0"):
        fitted.complete(stripes, n_particles=0)
    assert fitted.log_prob(stripes[:1]).shape == (1,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_size": 4}, "kernel_size is 4; expected an odd number"),
        ({"n_filters": 0}, "n_filters is 0"),
        ({"n_layers": 1.5}, "n_layers is 1.5"),
        ({"dropout": 1.0}, "dropout is 1.0; expected"),
        ({"dropout": "some"}, "dropout is 'some'; expected"),
        ({"likelihood": "normal"}, "no likelihood 'normal'"),
        ({"n_levels": 1}, "n_levels is 1; expected a whole number, at least 2"),
        ({"n_levels": 300}, "n_levels is 300; expected 256 at most"),
        ({"image_shape": (4, 4)}, "image_shape"),
    ],
)
def test_settings_out_of_range(settings, message, stripes):
    with pytest.raises(ValueError, match=message):
        small(PixelCNN, **settings).fit(stripes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_digits(kind):
    images, _ = load_digits(return_X_y=True)
    images = np.random.default_rng(0).permutation(images.reshape(-1, 8, 8))
    model = kind(likelihood="discretised_logistic", n_levels=17, random_state=0)
    model.fit(images[:1437])
    # Levels independent by pixel take 136 nats an image; 82 to 83 are reached.
    assert -model.score(images[1437:]) < 86.0
