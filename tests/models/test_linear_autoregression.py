"""LinearAutoregression: least squares, exact posteriors, forecasts, keeping, and bad input."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t

import ppl_gen
from ppl_gen import EM, NUTS, BayesClassifier, Conjugate, LinearAutoregression, engines
from ppl_gen.datasets import load_nile

ARK = Path(__file__).parents[1] / "data" / "posteriordb" / "arK-arK.json"


@pytest.fixture(scope="module")
def ark():
    """The series of posteriordb's AR(5), and what its reference draws say."""
    stored = json.loads(ARK.read_text())
    return np.asarray(stored["data"]["y"], dtype=float), stored["reference"]


@pytest.fixture(scope="module")
def by_nuts(ark):
    method = NUTS(chains=4, warmup=300, draws=500)
    return LinearAutoregression(5, inference=method, random_state=0).fit(ark[0])


def two_series(seed=0, lengths=(60, 45)):
    rng = np.random.default_rng(seed)
    a = np.array([[0.6, 0.2], [-0.1, 0.5]])
    found = []
    for length in lengths:
        x = [rng.normal(size=2)]
        for _ in range(length - 1):
            x.append(np.array([1.0, 3.0]) + a @ x[-1] + rng.normal(size=2) * [1.0, 0.3])
        found.append(np.array(x))
    return found, a


def least_squares(x, order):
    """Coefficients, residual sum of squares and inverse gram of an AR(p) with an intercept."""
    lags = np.column_stack([x[order - k : -k] for k in range(1, order + 1)])
    u = np.column_stack([lags, np.ones(len(lags))])
    weights, rss, _, _ = np.linalg.lstsq(u, x[order:])
    return weights, float(rss[0]), np.linalg.inv(u.T @ u), u


# -- known answers -----------------------------------------------------------------------------


def test_maximum_likelihood_is_least_squares(ark):
    x, _ = ark
    model = LinearAutoregression(5, inference="em").fit(x)
    weights, rss, _, _ = least_squares(x, 5)
    np.testing.assert_allclose(model.coef_[:, 0, 0], weights[:5], atol=1e-10)
    np.testing.assert_allclose(model.intercept_, weights[5], atol=1e-10)
    assert model.noise_covariance_[0, 0] == pytest.approx(rss / 195, rel=1e-9)
    assert model.converged_
    expected = norm.logpdf(model.residuals_[0], scale=np.sqrt(rss / 195)).sum()
    assert model.score(x) == pytest.approx(expected, rel=1e-9)
    assert len(model.residuals_) == 1
    assert (model.residuals_[0] ** 2).sum() == pytest.approx(rss, rel=1e-9)


def test_a_flat_prior_has_the_textbook_posterior(ark):
    """Student's t about least squares: Bayesian Data Analysis, section 14.2."""
    x, reference = ark
    model = LinearAutoregression(
        5, prior="flat", inference=Conjugate(draws=20_000), random_state=0
    ).fit(x)
    weights, rss, inverse, u = least_squares(x, 5)
    dof = 195 - 6
    draws = model.posterior_.stacked("coefficients")[:, :, 0, 0]
    scale = np.sqrt(rss / dof * np.diagonal(inverse))[:5]
    for k in range(5):
        for q in (0.05, 0.5, 0.95):
            expected = t.ppf(q, dof, weights[k], scale[k])
            # Five standard errors of a quantile of 20,000 draws.
            error = np.sqrt(q * (1 - q) / 20_000) / t.pdf(expected, dof, weights[k], scale[k])
            assert np.quantile(draws[:, k], q) == pytest.approx(expected, abs=5.0 * error)
        found = reference[f"beta[{k + 1}]"]
        # posteriordb's priors are all but flat: means differ by far less than its width.
        assert draws[:, k].mean() == pytest.approx(found["mean"], abs=0.05 * found["sd"])
    # The next step is a t too: section 14.3.
    forecast = model.forecast(1, level=0.9, n_draws=20_000, random_state=1)
    row = np.append(x[:-6:-1], 1.0)
    spread = np.sqrt(rss / dof * (1.0 + row @ inverse @ row))
    mean = row @ weights
    assert forecast.mean[0, 0] == pytest.approx(mean, abs=0.02 * spread)
    for q, bound in ((0.05, forecast.lower), (0.95, forecast.upper)):
        expected = t.ppf(q, dof, mean, spread)
        error = np.sqrt(q * (1 - q) / 20_000) / t.pdf(expected, dof, mean, spread)
        assert bound[0, 0] == pytest.approx(expected, abs=5.0 * error)
    assert u.shape == (195, 6)


def test_nuts_agrees_with_the_exact_posterior(ark, by_nuts):
    x, reference = ark
    exact = LinearAutoregression(5, inference=Conjugate(draws=20_000), random_state=0).fit(x)
    assert by_nuts.posterior_.verdict.figures["max_rhat"] < 1.02
    for name in ("coefficients", "intercept", "noise_covariance"):
        a = by_nuts.posterior_.stacked(name).reshape(2000, -1)
        b = exact.posterior_.stacked(name).reshape(20_000, -1)
        # A thousand effective draws: four standard errors are an eighth of a deviation.
        np.testing.assert_array_less(np.abs(a.mean(0) - b.mean(0)), b.std(0) / 8.0)
        np.testing.assert_allclose(a.std(0), b.std(0), rtol=0.15)
    for k in range(5):
        found = reference[f"beta[{k + 1}]"]
        assert by_nuts.coef_[k, 0, 0] == pytest.approx(found["mean"], abs=found["sd"] / 8.0)
    assert by_nuts.log_marginal_likelihood_ == pytest.approx(exact.log_marginal_likelihood_)
    np.testing.assert_allclose(
        by_nuts.forecast(4, random_state=0).mean, exact.forecast(4, random_state=0).mean, atol=0.01
    )


def test_a_vector_autoregression_is_found():
    X, a = two_series(lengths=(900, 700))
    model = LinearAutoregression(1, random_state=0).fit(X)
    # Sixteen hundred steps: coefficients to a few hundredths.
    np.testing.assert_allclose(model.coef_[0], a, atol=0.08)
    np.testing.assert_allclose(np.diagonal(model.noise_covariance_), [1.0, 0.09], rtol=0.12)
    assert model.is_stationary_
    assert model.stationary_probability_ == 1.0
    assert model.spectral_radius_ == pytest.approx(np.abs(np.linalg.eigvals(a)).max(), abs=0.08)


def test_forecasts_follow_the_textbook():
    """Hamilton (1994), equations 4.2.19 and 4.2.20: AR(1) forecasts and their variances."""
    flow = load_nile().frame["flow"].to_numpy()
    model = LinearAutoregression(1, inference="em").fit(flow)
    phi, c = model.coef_[0, 0, 0], model.intercept_[0]
    noise = model.noise_covariance_[0, 0]
    found = model.forecast(60, level=0.95)
    h = np.arange(1, 61)
    mean = c / (1.0 - phi)
    np.testing.assert_allclose(found.mean[:, 0], mean + phi**h * (flow[-1] - mean), rtol=1e-10)
    variance = noise * (1.0 - phi ** (2 * h)) / (1.0 - phi**2)
    np.testing.assert_allclose(found.covariance[:, 0, 0], variance, rtol=1e-10)
    np.testing.assert_allclose(
        found.upper[:, 0] - found.mean[:, 0], norm.ppf(0.975) * np.sqrt(variance), rtol=1e-10
    )
    # Whole futures: neighbours are as correlated as the process is.
    draws = model.forecast(60, n_draws=4000, random_state=0).draws[:, -2:, 0]
    assert np.corrcoef(draws.T)[0, 1] == pytest.approx(phi, abs=0.06)


def test_a_trend_goes_on():
    rng = np.random.default_rng(0)
    x = 3.0 + 0.5 * np.arange(300) + rng.normal(size=300)
    model = LinearAutoregression(1, trend="ct", random_state=0).fit(x)
    found = model.forecast(50)
    np.testing.assert_allclose(found.mean[:, 0], 3.0 + 0.5 * np.arange(300, 350), atol=1.0)
    again = LinearAutoregression(1, trend="ct", inference="em").fit([x[:150], x[:200]])
    assert again.forecast(2).mean.shape == (2, 2, 1)
    np.testing.assert_allclose(again.forecast(1).mean[:, 0, 0], [78.0, 103.0], atol=1.0)
    drawn = again.sample(40, random_state=0)
    assert drawn[-1, 0] == pytest.approx(3.0 + 0.5 * 39, abs=6.0)


def test_a_random_walk_may_be_either():
    x = np.cumsum(np.random.default_rng(1).normal(size=150))
    model = LinearAutoregression(1, trend="n", prior="flat", random_state=0).fit(x)
    assert 0.0 < model.stationary_probability_ < 1.0
    assert model.intercept_.tolist() == [0.0]
    assert "intercept" not in model.parameters_


def test_missing_values_cost_little(tmp_path):
    X, _ = two_series(lengths=(400, 300))
    whole = LinearAutoregression(1, inference=EM(tol=1e-8)).fit(X)
    rng = np.random.default_rng(0)
    holed = [np.where(rng.random(x.shape) < 0.1, np.nan, x) for x in X]
    for x, complete in zip(holed, X, strict=True):
        x[0] = complete[0]
        x[-1] = np.nan
    model = LinearAutoregression(1, inference=EM(tol=1e-8)).fit(holed)
    np.testing.assert_allclose(model.coef_, whole.coef_, atol=0.05)
    assert np.isnan(model.residuals_[0]).any()
    # The last step is not known, so that the first forecast is of two steps ahead.
    assert (model.forecast(1).covariance[:, 0, 0, 0] > model.noise_covariance_[0, 0]).all()
    two = model.forecast(2, [x[:-1] for x in X])
    cut = [np.vstack([x[:-1], np.full((1, 2), np.nan)]) for x in X]
    np.testing.assert_allclose(model.forecast(1, cut).mean[:, 0], two.mean[:, 1], atol=1e-10)
    np.testing.assert_allclose(model.log_prob(cut), model.log_prob([x[:-1] for x in X]))
    model.save(tmp_path / "holed")
    again = ppl_gen.load(tmp_path / "holed")
    np.testing.assert_allclose(again.forecast(3).mean, model.forecast(3).mean, rtol=1e-12)


# -- manners -----------------------------------------------------------------------------------


def test_the_predictive_density_averages_over_the_draws():
    X, _ = two_series()
    model = LinearAutoregression(1, inference=Conjugate(draws=50), random_state=0).fit(X)
    each = [
        model.structure_.log_evidence(model._draw(s), model._read_checked(X, None)[0])
        for s in range(50)
    ]
    np.testing.assert_allclose(model.log_prob(X), np.log(np.mean(np.exp(each), axis=0)), rtol=1e-10)
    rows = np.concatenate(X)
    np.testing.assert_allclose(model.log_prob(rows, [60, 45]), model.log_prob(X), rtol=1e-12)
    assert model.forecast(3).draws.shape == (1000, 2, 3, 2)
    assert model.forecast(3, X[1]).mean.shape == (3, 2)


def test_frames_and_names(tmp_path):
    X, _ = two_series()
    frames = [pd.DataFrame(x, columns=["rate", "price"]) for x in X]
    model = LinearAutoregression(2, inference=Conjugate(draws=20), random_state=0).fit(frames)
    drawn = model.sample(5, random_state=0)
    assert list(drawn.columns) == ["rate", "price"]
    # It begins as one of the sequences did.
    assert any(np.array_equal(drawn.to_numpy()[:2], x[:2]) for x in X)
    assert model.sample(1).shape == (1, 2)
    pd.testing.assert_frame_equal(drawn, model.sample(5, random_state=0))
    axes = model.posterior_.axes
    assert axes["coefficients"] == ["lag", "column", "column_"]
    table = model.posterior_.summary(["coefficients"])
    assert "coefficients[1, rate, price]" in table.index
    model.save(tmp_path / "var")
    again = ppl_gen.load(tmp_path / "var")
    np.testing.assert_allclose(again.log_prob(frames), model.log_prob(frames), rtol=1e-12)
    np.testing.assert_array_equal(again.coef_, model.coef_)
    np.testing.assert_allclose(again.forecast(2).mean, model.forecast(2).mean, rtol=1e-12)
    np.testing.assert_array_equal(again.residuals_[1], model.residuals_[1])


@pytest.mark.parametrize(("prior", "width", "trend"), [(None, 2, "ct"), ("flat", 1, "n")])
def test_both_engines_have_one_density(prior, width, trend):
    X = [x[:, :width] for x in two_series()[0]]
    model = LinearAutoregression(2, trend, prior, Conjugate(draws=3), random_state=0).fit(X)
    program, arguments = model.program(), model.posterior_.kwargs
    values = {k: v[0] for k, v in model.posterior_.latent_draws().items()}
    pyro = engines.get("pyro")
    rows = pyro.trace(program.pyro, (), arguments, values=values)["x"].log_prob
    expected = model.structure_.log_evidence(model._draw(0), model._read_checked(X, None)[0])
    assert rows.sum() == pytest.approx(expected.sum(), rel=1e-10)
    total, gradient = pyro.log_joint_and_grad(program.pyro, (), arguments, values)
    numpyro = engines.get("numpyro")
    with numpyro.precision(device="cpu"):
        import jax
        from numpyro.infer.util import log_density

        # Compiled: operation by operation, JAX would compile each step of the gradient by itself.
        @jax.jit
        @jax.value_and_grad
        def both(free):
            return log_density(program.numpyro, (), arguments, free)[0]

        found, slopes = both(numpyro.to_native(values))
        assert float(found) == pytest.approx(total, rel=1e-9)
        for key, slope in slopes.items():
            np.testing.assert_allclose(numpyro.to_numpy(slope), gradient[key], rtol=1e-8, atol=1e-8)


def test_svi_is_near(ark):
    x, _ = ark
    model = LinearAutoregression(1, inference="svi", random_state=0).fit(x)
    exact = LinearAutoregression(1, random_state=0).fit(x)
    deviation = exact.posterior_.stacked("coefficients").std()
    np.testing.assert_allclose(model.coef_, exact.coef_, atol=deviation / 2.0)


def test_bayes_rule_tells_walks_from_noise():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(40, 1)) for _ in range(20)]
    X[10:] = [x.cumsum(axis=0) for x in X[10:]]
    y = np.repeat([0, 1], 10)
    model = LinearAutoregression(1, inference=Conjugate(draws=50), random_state=0)
    classifier = BayesClassifier(model).fit(X[::2], y[::2])
    np.testing.assert_array_equal(classifier.predict(X[1::2]), y[1::2])


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"order": 0}, "order is 0; expected a whole number, at least 1"),
        ({"order": 1.5}, "order is 1.5"),
        ({"trend": "ctt"}, "trend is 'ctt'; expected one of 'n', 'c', 'ct'"),
        ({"prior": "vague"}, "prior is 'vague'; expected None, 'flat' or a dict"),
        ({"prior": {"width": 1.0}}, r"unknown terms \['width'\]"),
        ({"prior": {"shrinkage": 0.0}}, "'shrinkage'.*must be over 0"),
        ({"prior": {"dof": 1.0}}, r"'dof'.*must be over 1\.0"),
        ({"prior": {"scale": [[1.0]]}}, "symmetric positive definite matrix of shape"),
        ({"prior": {"scale": [[1.0, 2.0], [2.0, 1.0]]}}, "symmetric positive definite"),
        ({"prior": "flat", "inference": "nuts"}, "'flat' is improper, which 'nuts' does not take"),
        ({"order": 60}, "sequence 0 has 60 steps, but with order=60"),
        ({"order": 30, "inference": "em"}, "45 steps come after the first 30"),
        ({"inference": "gibbs"}, "unknown 'gibbs'"),
    ],
)
def test_wrong_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        LinearAutoregression(**settings).fit(two_series()[0])


def test_missing_values_where_they_cannot_be():
    X, _ = two_series()
    X[1][0, 1] = np.nan
    with pytest.raises(ValueError, match="first 1 steps of sequence 1 have missing values"):
        LinearAutoregression(1, inference="em").fit(X)
    X, _ = two_series()
    X[0][7, 0] = np.nan
    with pytest.raises(ValueError, match="'conjugate' does not take; fit by inference='em'"):
        LinearAutoregression(1).fit(X)


def test_unreadable_sequences_are_refused():
    X, _ = two_series()
    model = LinearAutoregression(3, inference="em").fit(X)
    with pytest.raises(ValueError, match="sequence 0 has 3 steps, but with order=3"):
        model.log_prob(X[0][:3])
    with pytest.raises(ValueError, match="sequence 1 has 1 steps"):
        model.forecast(2, [X[0], X[1][:1]])
    with pytest.raises(ValueError, match="features"):
        model.forecast(2, X[0][:, :1])
    with pytest.raises(ValueError, match="infinity"):
        model.log_prob(np.full((9, 2), np.inf))
    with pytest.raises(ValueError, match="missing values"):
        model.log_prob(np.full((9, 2), np.nan))
    with pytest.raises(ValueError, match="all NaN"):
        LinearAutoregression(1).fit(np.full(9, np.nan))
    with pytest.raises(ValueError, match="n_samples is 0"):
        model.sample(0)
    with pytest.raises(ValueError, match="sample_weight is for EM"):
        LinearAutoregression(1).fit(X, sample_weight=[1.0, 2.0])


def test_a_constant_series_warns_and_stays_where_it_is():
    for inference in ("em", "conjugate"):
        with pytest.warns(RuntimeWarning, match="constant column"):
            model = LinearAutoregression(1, inference=inference, random_state=0).fit(
                np.full(20, 4.0)
            )
        np.testing.assert_allclose(model.forecast(3).mean, 4.0, atol=1e-2)


def test_an_exact_recursion_is_found():
    x = np.cos(0.3 * np.arange(200))  # x_t = 2 cos(.3) x_(t-1) - x_(t-2)
    model = LinearAutoregression(2, trend="n", inference="em").fit(x)
    np.testing.assert_allclose(model.coef_.ravel(), [2.0 * np.cos(0.3), -1.0], atol=1e-6)
    assert model.spectral_radius_ == pytest.approx(1.0, abs=1e-6)
