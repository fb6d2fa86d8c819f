"""The estimator: densities of data as given, draws, latents, contexts, keeping, programs."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as pd_dist
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits, load_iris

import ppl_gen
from ppl_gen import NUTS, BayesClassifier, MaximumLikelihood, NormalizingFlow, Training, infer


def quick(epochs, learning_rate=1e-2, batch_size=128):
    return MaximumLikelihood(epochs, learning_rate, batch_size, Training(schedule="cosine"))


def small(flow="maf", epochs=10, **settings):
    settings = {"hidden_layer_sizes": (16,), "random_state": 0, **settings}
    return NormalizingFlow(flow, inference=quick(epochs), **settings)


@pytest.fixture(scope="module")
def correlated():
    """Rows of a normal, in units far apart; new ones, and their log density."""
    rng = np.random.default_rng(0)
    mean, factor = np.array([5.0, 0.0, 1.0]), rng.normal(size=(3, 3)) * [[1.0], [100.0], [0.01]]
    x = rng.normal(size=(3000, 3)) @ factor.T + mean
    truth = multivariate_normal(mean, factor @ factor.T)
    return x[:1000], x[1000:], truth.logpdf(x[1000:])


@pytest.fixture(scope="module")
def counted():
    rng = np.random.default_rng(1)
    first = rng.poisson(3.0, 600)
    return np.stack([first, rng.binomial(4, 0.3 + 0.1 * (first > 3))], axis=1)


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    return found.images[:150], found.target[:150]


@pytest.fixture(scope="module")
def glow(digits):
    settings = {"discrete": "uniform", "bounds": (0, 16), "n_transforms": 1}
    return small("glow", 3, **settings).fit(digits[0], context=digits[1])


# -- densities ---------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", ["maf", "realnvp", "nsf", "nsf_coupling"])
def test_a_normal_is_learned(correlated, flow):
    x, new, truth = correlated
    model = small(flow, 20, n_transforms=2).fit(x)
    assert model.density == "exact"
    # The divergence from the truth: what 160 short steps and 1,000 rows leave, and no less than
    # nothing, up to the noise of 2,000 differences.
    assert -0.01 < (truth - model.log_prob(new)).mean() < 0.08
    drawn = model.sample(4000, random_state=0)
    spread = x.std(axis=0)
    assert (np.abs(drawn.mean(axis=0) - x.mean(axis=0)) < 0.12 * spread).all()
    assert (np.abs(drawn.std(axis=0) / spread - 1.0) < 0.12).all()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"standardise": False},
        {"bounds": ([0.0, -1.0], [4.0, 3.0])},
        {"bounds": (-2.0, 5.0), "noise": 0.1},
        {"flow": "nsf", "dtype": "float64"},
    ],
)
def test_densities_integrate_to_one_over_the_data_as_given(settings):
    rng = np.random.default_rng(0)
    x = np.stack([rng.beta(2, 3, 300) * 4.0, rng.uniform(-1.0, 3.0, 300)], axis=1)
    model = small(**{"epochs": 5, **settings}).fit(x)
    low, high = np.array([-12.0, -12.0]), np.array([16.0, 16.0])
    if "bounds" in settings:
        low, high = np.broadcast_to(np.array(settings["bounds"], float).reshape(2, -1), (2, 2))
    # Midpoints: half a percent off at most for a density of this width; where there are bounds, a
    # share of 1e-6 of the range is outside of them.
    steps = [
        lo + (np.arange(400) + 0.5) / 400 * (hi - lo) for lo, hi in zip(low, high, strict=True)
    ]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 2)
    total = np.exp(model.log_prob(grid)).sum() * np.prod(high - low) / 400**2
    assert total == pytest.approx(1.0, abs=0.01)
    if "bounds" in settings:
        drawn = model.sample(500, random_state=1)
        assert ((drawn >= low) & (drawn <= high)).all()


@pytest.mark.parametrize("flow", ["nsf", "maf", "iaf"])
def test_one_column_will_do(flow):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 1)) + 6.0 * (rng.random((300, 1)) < 0.5)
    model = small(flow, 40, n_transforms=2).fit(x)
    grid = np.linspace(-15.0, 21.0, 4001)[:, None]
    assert np.exp(model.log_prob(grid)).sum() * 36.0 / 4000 == pytest.approx(1.0, abs=1e-3)
    single = -0.5 * (np.log(2 * np.pi * x.var()) + 1.0)
    if flow == "nsf":  # which alone of these bends a single column: two modes
        assert model.score(x) > single + 0.3
    else:
        assert model.score(x) == pytest.approx(single, abs=0.05)
    with pytest.raises(ValueError, match=r"maps some columns given the others, and X has but one"):
        small("realnvp").fit(x)


@pytest.mark.parametrize("discrete", ["uniform", "variational"])
def test_probabilities_of_whole_numbers_sum_to_one(counted, discrete):
    model = small("maf", 20, discrete=discrete, n_importance=64).fit(counted)
    assert model.density == "lower_bound"
    assert model.discrete_columns_.all()
    grid = np.stack(np.meshgrid(np.arange(-8, 24), np.arange(-8, 16)), axis=-1).reshape(-1, 2)
    bound, estimate = model.lower_bound(grid), model.log_prob(grid)
    assert (bound <= estimate + 1e-6).all()  # the mean of logs, the log of the mean
    assert np.exp(bound).sum() < 1.0
    # 64 points of Sobol's for each of few hundred cells, whose errors are of either sign.
    assert np.exp(estimate).sum() == pytest.approx(1.0, abs=0.02)
    assert model.score(counted) > np.mean(bound[np.exp(bound) > 1e-3])
    drawn = model.sample(300)
    assert drawn.dtype == counted.dtype
    np.testing.assert_array_equal(model.inverse_transform(model.transform(counted)), counted)


def test_columns_of_numbers_and_of_counts_are_told_apart():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"height": rng.normal(size=200), "children": rng.poisson(2.0, 200)})
    model = small(discrete="uniform").fit(frame)
    assert model.discrete_columns_.tolist() == [False, True]
    drawn = model.sample(20)
    assert drawn.dtypes.tolist() == frame.dtypes.tolist()
    assert (drawn["height"] % 1 != 0).all()
    with pytest.raises(ValueError, match=r"not whole in column 'children'"):
        model.log_prob(frame.assign(children=0.5))


def test_noise_keeps_few_rows_from_collapse():
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(25, 2)), rng.normal(size=(500, 2))
    bare = small("nsf", 80, n_transforms=1, hidden_layer_sizes=(32,)).fit(x)
    noisy = small("nsf", 80, n_transforms=1, hidden_layer_sizes=(32,), noise=0.3).fit(x)
    assert bare.score(x) > noisy.score(x)
    assert bare.score(new) < noisy.score(new) - 0.5


# -- latents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", ["nsf", "nsf_coupling", "maf", "realnvp"])
def test_latents_are_standard_normal_and_lead_back(correlated, flow):
    x, *_ = correlated
    model = small(flow, 6, n_transforms=2, bounds=(-1e3, 1e3), dtype="float64").fit(x)
    z = model.transform(x)
    assert z.shape == x.shape
    assert (np.abs(z.mean(axis=0)) < 0.3).all()
    assert (np.abs(z.std(axis=0) - 1.0) < 0.3).all()
    # float64 through the logit of a range 1e5 times as wide as the narrowest column.
    np.testing.assert_allclose(model.inverse_transform(z), x, rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match=r"has 2 columns; expected the 3"):
        model.inverse_transform(z[:, :2])


# -- contexts ----------------------------------------------------------------------------------


def test_a_label_gives_the_density_of_its_class():
    rng = np.random.default_rng(0)
    label = np.repeat(["left", "right"], 400)
    x = rng.normal(size=(800, 2)) * np.where(label == "left", 0.5, 2.0)[:, None]
    x[:, 0] += np.where(label == "left", -5.0, 5.0)
    model = small("maf", 30, n_transforms=2).fit(x, context=label)
    for name in ("left", "right"):
        rows = x[label == name]
        best = -0.5 * (2 * np.log(2 * np.pi) + np.linalg.slogdet(np.cov(rows.T, bias=True))[1] + 2)
        assert model.score(rows, context=name) == pytest.approx(best, abs=0.1)
        drawn = model.sample(500, random_state=0, context=name)
        assert np.sign(drawn[:, 0].mean()) == np.sign(rows[:, 0].mean())
    z = model.transform(x, context=label)
    np.testing.assert_allclose(model.inverse_transform(z, context=label), x, atol=1e-3)
    assert model.dist("left").batch_shape == ()
    assert model.dist(["left", "right", "left"]).batch_shape == (3,)
    expected = model.log_prob(x[:3], context="left")
    found = model.dist("left", dtype="float32").log_prob(torch.tensor(x[:3]).float())
    np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"context is missing"):
        model.log_prob(x)
    with pytest.raises(ValueError, match=r"labels \['up'\] that were not seen"):
        model.log_prob(x, context="up")
    with pytest.raises(ValueError, match=r"fitted without"):
        small(epochs=1).fit(x).log_prob(x, context=label)


def test_covariates_move_the_density():
    rng = np.random.default_rng(0)
    covariate = rng.uniform(-2.0, 2.0, (600, 1))
    x = covariate * [[3.0, -1.0]] + 0.5 * rng.normal(size=(600, 2))
    model = small("maf", 30, n_transforms=2).fit(x, context=covariate)
    at = model.sample(400, random_state=0, context=[1.5])
    np.testing.assert_allclose(at.mean(axis=0), [4.5, -1.5], atol=0.25)
    assert model.dist([1.5]).batch_shape == ()


def test_classes_of_iris_are_told_by_their_densities():
    x, y = load_iris(return_X_y=True)
    classifier = BayesClassifier(small("maf", 30, noise=0.1)).fit(x, y)
    assert classifier.score(x, y) > 0.95
    assert classifier.predict_proba(x).shape == (150, 3)


# -- images ------------------------------------------------------------------------------------


def test_glow_draws_and_scores_images(glow, digits):
    images, labels = digits
    assert glow.row_shape_ == (8, 8)
    drawn = glow.sample(4, context=3)
    assert drawn.shape == (4, 8, 8)
    assert set(np.unique(drawn)) <= set(range(17))
    found = glow.log_prob(images, context=labels)
    np.testing.assert_allclose(found, glow.log_prob(images.reshape(-1, 64), context=labels))
    assert (glow.lower_bound(images, context=labels) < found).all()
    # Of uniform pixels: 64 log 17.
    assert found.mean() > -64 * np.log(17.0)
    z = glow.transform(images, context=labels)
    assert z.shape == (150, 64)
    np.testing.assert_array_equal(glow.inverse_transform(z, context=labels), images)


def test_glow_starts_from_the_data(digits):
    model = small("glow", 1, n_transforms=1, noise=0.1, random_state=0)
    model.inference = MaximumLikelihood(1, 1e-9)
    model.fit(digits[0])
    # Before any training: standardised pixels of zero mean, and whitened activations.
    z = model.transform(digits[0])
    assert abs(z.mean()) < 0.05
    assert abs(z.std() - 1.0) < 0.1
    names = [name for name in model.parameters_ if name.endswith("initialised")]
    assert names
    assert all(model.parameters_[name].all() for name in names)


# -- keeping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"discrete": "variational"}, {"noise": 0.1}])
def test_what_is_saved_scores_alike(counted, settings, tmp_path):
    x = counted if "discrete" in settings else counted + np.random.default_rng(0).random((600, 2))
    model = small("nsf", 2, bounds=(0.0, 40.0), **settings).fit(x)
    model.save(tmp_path / "flow")
    loaded = ppl_gen.load(tmp_path / "flow")
    np.testing.assert_array_equal(loaded.log_prob(x), model.log_prob(x))
    np.testing.assert_array_equal(loaded.sample(5, random_state=0), model.sample(5, random_state=0))
    np.testing.assert_array_equal(loaded.discrete_columns_, model.discrete_columns_)
    assert loaded.density == model.density


def test_the_start_of_glow_is_kept(glow, digits, tmp_path):
    glow.save(tmp_path / "flow")
    loaded = ppl_gen.load(tmp_path / "flow")
    images, labels = digits
    np.testing.assert_array_equal(
        loaded.log_prob(images, context=labels), glow.log_prob(images, context=labels)
    )
    state = loaded.structure_.module.state_dict()
    assert all(bool(v) for name, v in state.items() if name.endswith("initialised"))


@pytest.mark.parametrize(
    "settings",
    [
        {"flow": "nsf", "bounds": (-1.0, 60.0), "noise": 0.1},
        {"flow": "realnvp", "discrete": "variational"},
        {"flow": "glow", "discrete": "uniform", "bounds": (0, 16), "image_shape": (2, 2)},
    ],
)
def test_a_step_on_the_meta_device(counted, settings):
    x = np.tile(counted, (1, 2)) % 16
    x = x + 0.5 * np.random.default_rng(0).random(x.shape) if "noise" in settings else x
    model = small(epochs=1, **settings).fit(x)
    module = model.structure_.module.to("meta").train()
    module.log_prob(torch.empty(3, 4, device="meta")).mean().backward()
    assert module.eval().log_prob(torch.empty(3, 4, device="meta")).device.type == "meta"


# -- other programs ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prior(correlated):
    x = np.exp(correlated[0][:500, :1] / 5.0) + correlated[0][:500, 2:] * [[0.0, 1.0]]
    return small("nsf", 15, n_transforms=1, hidden_layer_sizes=(8,), bounds=(0.0, 60.0)).fit(x)


def test_a_pyro_program_takes_the_density(prior):
    drawn = prior.dist()
    with pyro.validation_enabled(True), pyro.plate("row", 4):
        z = pyro.sample("z", drawn)
    assert z.dtype == torch.float64
    expected = prior.log_prob(z.numpy())
    # float64 against float32, in logits.
    np.testing.assert_allclose(drawn.log_prob(z), expected, atol=1e-3)
    assert isinstance(drawn, pd_dist.TransformedDistribution)
    with pytest.raises(ValueError, match=r"dtype is 'float16'"):
        prior.dist(dtype="float16")


def test_nuts_draws_from_a_flow_that_is_a_prior(prior):
    learned = prior.dist()

    def model(y):
        z = pyro.sample("z", learned)
        pyro.sample("y", pd_dist.Normal(z[..., 0], 0.1), obs=y)

    y = torch.tensor(3.0, dtype=torch.float64)
    posterior = infer(model, y, method=NUTS(chains=1, warmup=40, draws=40), seed=0, progress=False)
    z = posterior.draws["z"]
    # The likelihood has all to say of the first entry; bounds are kept to.
    assert abs(z[..., 0].mean() - 3.0) < 0.15
    assert ((z > 0.0) & (z < 60.0)).all()
