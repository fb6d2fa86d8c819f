"""Leave-future-out against sums by hand, closed forms, and exact refits."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ppl_gen import (
    EM,
    NUTS,
    Conjugate,
    GaussianMixture,
    HiddenMarkovModel,
    LinearAutoregression,
    MarkovChain,
)
from ppl_gen.datasets import load_nile
from ppl_gen.evaluate.model_choice import leave_future_out
from ppl_gen.models.state_space import LinearGaussianStateSpace
from ppl_gen.sequence_estimator import SequenceModel

SERIES = np.random.default_rng(1).normal(size=(40, 1)) + 3.0 * (np.arange(40)[:, None] // 10 % 2)


def held():
    """Return a model that no fit changes."""
    model = HiddenMarkovModel(2, init_params="", params="")
    model.startprob_ = np.array([0.6, 0.4])
    model.transmat_ = np.array([[0.9, 0.1], [0.2, 0.8]])
    model.means_ = np.array([[0.0], [3.0]])
    model.covars_ = np.ones((2, 1, 1))
    return model


class _NormalMean(SequenceModel):
    """Steps N(mu, 1) with mu ~ N(0, 10^2), by draws: its forecasts have a closed form."""

    methods = ("nuts",)
    inference = None

    def __init__(self, draws=4000, random_state=None):
        self.draws = draws
        self.random_state = random_state

    @staticmethod
    def posterior(x):
        variance = 1.0 / (len(x) + 0.01)
        return variance * np.sum(x), np.sqrt(variance)

    def fit(self, X, lengths=None):
        sequences = self._read_training(X, lengths)
        mean, sd = self.posterior(sequences.values)
        rng = np.random.default_rng(len(sequences.values))
        self.parameters_ = {"mu": rng.normal(mean, sd, self.draws)}
        self.structure_ = self
        return self

    def check(self, sequences):
        pass

    def _evidence_by_draw(self, sequences):
        x, starts = sequences.values[:, 0], sequences.ends - sequences.lengths
        sums, squares = (np.add.reduceat(v, starts) for v in (x, x * x))
        mu, n = self.parameters_["mu"][:, None], sequences.lengths
        return -0.5 * (squares - 2 * mu * sums + mu**2 * n + n * np.log(2 * np.pi))


def closed_form(x, origins, horizon):
    found = []
    for t in origins:
        mean, sd = _NormalMean.posterior(x[:t])
        covariance = np.eye(horizon) + sd**2
        ahead = stats.multivariate_normal(np.full(horizon, mean), covariance)
        found.append(ahead.logpdf(x[t : t + horizon, 0]))
    return np.array(found)


class TestFixedModel:
    @pytest.mark.parametrize(("horizon", "first"), [(1, 10), (5, 10), (1, 39), (40 - 7, 7)])
    @pytest.mark.parametrize("refit", [None, 7, 100])
    def test_forecasts_of_every_step_telescope(self, horizon, first, refit):
        model = held()
        found = leave_future_out(
            model, SERIES, first=first, horizon=horizon, step=horizon, refit=refit
        )
        fitted = held().fit(SERIES)
        whole = fitted.log_prob(SERIES) - fitted.log_prob(SERIES[:first])
        # Differences of sums of 40 terms of order one.
        assert found.elpd == pytest.approx(whole[0], abs=1e-10)
        assert not hasattr(model, "parameters_")

    def test_each_forecast_is_a_ratio_of_densities(self):
        found = leave_future_out(held(), SERIES, first=20, horizon=3, step=4, refit=2)
        fitted = held().fit(SERIES)
        assert found.origins.tolist() == [20, 24, 28, 32, 36]
        assert found.refits.tolist() == [20, 28, 36]
        by_hand = [fitted.score(SERIES[: t + 3]) - fitted.score(SERIES[:t]) for t in found.origins]
        np.testing.assert_allclose(found.pointwise, by_hand, atol=1e-10)
        assert found.elpd == pytest.approx(np.sum(by_hand))
        assert found.se == pytest.approx(np.sqrt(5) * np.std(by_hand, ddof=1))
        assert np.isnan(found.pareto_k).all()

    def test_one_forecast_has_no_standard_error(self):
        assert np.isnan(leave_future_out(held(), SERIES, first=39).se)


class TestEM:
    def test_chains_by_counting(self):
        x = np.random.default_rng(0).integers(3, size=30)
        found = leave_future_out(MarkovChain(pseudocount=0.5), x, first=12)
        for t, log_prob in zip(found.origins, found.pointwise, strict=True):
            after = x[1:t][x[: t - 1] == x[t - 1]]
            counts = np.bincount(after, minlength=3) + 0.5
            # Logarithms of ratios of counts, less two sums of 30 of them.
            assert log_prob == pytest.approx(np.log(counts[x[t]] / counts.sum()), abs=1e-12)

    def test_texts_know_characters_to_come(self):
        found = leave_future_out(MarkovChain(), "abababcab", first=4)
        assert np.isfinite(found.elpd)
        assert leave_future_out(MarkovChain(), ["abababcab"], first=4).elpd == found.elpd

    def test_what_never_happened_has_no_density(self):
        found = leave_future_out(MarkovChain(pseudocount=0), "abababaabab", first=4, refit=5)
        np.testing.assert_allclose(found.pointwise[:3], 0.0, atol=1e-12)
        # The second of "aa" is impossible, and so is a past that has it, until the next fit.
        np.testing.assert_array_equal(found.pointwise[3:5], -np.inf)
        assert np.isfinite(found.pointwise[5:]).all()
        assert found.elpd == -np.inf
        assert np.isnan(found.se)

    def test_warm_starts_find_what_fresh_fits_do(self):
        model = HiddenMarkovModel(2, inference=EM(max_iter=500, tol=1e-9), random_state=0)
        found = leave_future_out(model, SERIES, first=30, step=3)
        fresh = []
        for t in found.origins:
            fitted = HiddenMarkovModel(2, inference=model.inference, random_state=0)
            fitted.fit(SERIES[:t])
            fresh.append(fitted.score(SERIES[: t + 1]) - fitted.score(SERIES[:t]))
        # Both stop within 1e-9 nats a row of one maximum, so its argument is known to about 1e-4.
        np.testing.assert_allclose(found.pointwise, fresh, atol=1e-3)

    def test_state_space_models_and_frames(self):
        frame = load_nile().frame[["flow"]]
        model = LinearGaussianStateSpace(
            1,
            transition=1,
            observation=1,
            observation_offset=0,
            initial_mean=0,
            initial_covariance=1e7,
            transition_covariance=1469.1,
            observation_covariance=15099,
        )
        found = leave_future_out(model, frame, first=50)
        fitted = model.fit(frame)
        whole = fitted.score(frame) - fitted.score(frame.iloc[:50])
        assert found.elpd == pytest.approx(whole, rel=1e-10)

    def test_missing_steps(self):
        x = SERIES.copy()
        x[[15, 25]] = np.nan
        found = leave_future_out(held(), x, first=10)
        # A step that is missing is certain.
        np.testing.assert_allclose(found.pointwise[[5, 15]], 0.0, atol=1e-12)


class TestBayes:
    X = np.random.default_rng(2).normal(1.0, 1.0, size=(60, 1))

    @pytest.mark.parametrize("horizon", [1, 4])
    def test_exact_is_the_closed_form(self, horizon):
        found = leave_future_out(_NormalMean(), self.X, first=10, horizon=horizon)
        expected = closed_form(self.X, found.origins, horizon)
        # The densities that are averaged vary by a factor of e^(0.3 h) at most, over 4000 draws.
        np.testing.assert_allclose(found.pointwise, expected, atol=4 * 0.3 * horizon / 4000**0.5)
        assert found.refits.tolist() == found.origins.tolist()

    @pytest.mark.parametrize("horizon", [1, 4])
    def test_psis_is_near_with_few_fits(self, horizon):
        found = leave_future_out(_NormalMean(), self.X, first=10, horizon=horizon, method="psis")
        expected = closed_form(self.X, found.origins, horizon)
        assert len(found.refits) < 5
        reweighted = ~np.isnan(found.pareto_k)
        assert reweighted.sum() + len(found.refits) == len(found.origins)
        assert found.pareto_k[reweighted].max() <= 0.7
        # A hundred effective draws, and a posterior that is narrow beside a step's noise.
        np.testing.assert_allclose(found.pointwise, expected, atol=0.05)
        assert found.elpd == pytest.approx(expected.sum(), abs=0.2)

    def test_a_break_in_the_series_is_fitted_anew(self):
        x = self.X.copy()
        x[30:] += 3.0
        found = leave_future_out(_NormalMean(), x, first=10, method="psis")
        expected = closed_form(x, found.origins, 1)
        # Some steps of the new level are enough to tell.
        assert any(30 < t < 45 for t in found.refits)
        quiet = leave_future_out(_NormalMean(), self.X, first=10, method="psis")
        assert len(found.refits) > len(quiet.refits)
        np.testing.assert_allclose(found.pointwise, expected, atol=0.15)

    def test_autoregression_by_conjugate_draws(self):
        flow = load_nile().frame[["flow"]]
        model = LinearAutoregression(1, inference=Conjugate(draws=500), random_state=0)
        exact = leave_future_out(model, flow, first=88)
        psis = leave_future_out(model, flow, first=88, method="psis")
        assert len(psis.refits) < 3
        # As above, with 500 draws.
        np.testing.assert_allclose(psis.pointwise, exact.pointwise, atol=0.15)
        with pytest.raises(ValueError, match=r"x has an observation a step.*leave_future_out"):
            model.fit(flow).posterior_.loo()

    def test_fits_at_the_latest_after_refit(self):
        found = leave_future_out(_NormalMean(), self.X, first=10, refit=8, method="psis")
        assert np.diff(found.refits).max() <= 8

    def test_it_is_readable(self):
        found = leave_future_out(_NormalMean(), self.X, first=10, method="psis")
        assert repr(found).startswith(
            f"<LeaveFutureOut: elpd {found.elpd:.1f} nats (se {found.se:.1f}), 50 forecasts of the "
            "next step from 10 to 59 steps; "
        )
        assert f"reweighted with Pareto k up to {np.nanmax(found.pareto_k):.2f}>" in repr(found)
        assert "4 steps" in repr(leave_future_out(held(), SERIES, first=30, horizon=4))

    @pytest.mark.slow
    def test_hidden_markov_models_by_nuts(self):
        rng = np.random.default_rng(0)
        states = np.arange(60) // 12 % 2
        x = rng.normal(5.0 * states, 1.0)[:, None]
        model = HiddenMarkovModel(
            2, inference=NUTS(chains=2, warmup=300, draws=500), random_state=0
        )
        exact = leave_future_out(model, x, first=45, step=5)
        psis = leave_future_out(model, x, first=45, step=5, method="psis")
        assert len(psis.refits) < len(exact.refits)
        # Two Monte Carlo estimates of posterior means with some hundred effective draws each.
        np.testing.assert_allclose(psis.pointwise, exact.pointwise, atol=0.15)


class TestBadInput:
    def test_several_sequences(self):
        with pytest.raises(ValueError, match=r"X has 2 sequences.*leave out whole sequences"):
            leave_future_out(held(), [SERIES, SERIES], first=10)
        with pytest.raises(ValueError, match="X has 2 sequences"):
            leave_future_out(MarkovChain(), ["abab", "bab"], first=2)
        with pytest.raises(ValueError, match="X has 3 sequences"):
            leave_future_out(held(), np.zeros((3, 20, 1)), first=10)

    def test_codes_that_no_fit_has_seen(self):
        x = np.arange(12) % 3 % 2
        x[9] = 4
        model = HiddenMarkovModel(2, emission="categorical", random_state=0)
        with pytest.raises(ValueError, match=r"column 0 has code 4.*give n_categories"):
            leave_future_out(model, x, first=6, refit=10)

    def test_categories_of_a_frame_are_known_from_the_start(self):
        frame = pd.DataFrame({"kind": list("abababababac")})
        model = HiddenMarkovModel(1, emission="auto", random_state=0)
        assert np.isfinite(leave_future_out(model, frame, first=8, refit=10).elpd)

    def test_one_in_a_list_is_one(self):
        alone = leave_future_out(held(), [SERIES], first=30)
        assert alone.elpd == leave_future_out(held(), SERIES[:, 0], first=30).elpd

    def test_a_series_of_pandas(self):
        series = pd.Series(SERIES[:, 0], index=np.arange(100, 140))
        expected = leave_future_out(held(), SERIES, first=30).elpd
        assert leave_future_out(held(), series, first=30).elpd == expected

    @pytest.mark.parametrize("name", ["first", "horizon", "step", "refit"])
    @pytest.mark.parametrize("value", [0, -1, 2.5, True, "1"])
    def test_whole_numbers(self, name, value):
        settings = {"first": 10, name: value}
        with pytest.raises(ValueError, match=f"{name} is .*whole number"):
            leave_future_out(held(), SERIES, **settings)

    @pytest.mark.parametrize("windows", [{"first": 40}, {"first": 10, "horizon": 31}])
    def test_windows_that_do_not_fit(self, windows):
        with pytest.raises(ValueError, match="but the series has 40"):
            leave_future_out(held(), SERIES, **windows)

    def test_a_model_of_rows(self):
        with pytest.raises(TypeError, match="GaussianMixture; expected a model of sequences"):
            leave_future_out(GaussianMixture(), SERIES, first=10)

    def test_method(self):
        with pytest.raises(ValueError, match="expected 'exact' or 'psis'"):
            leave_future_out(held(), SERIES, first=10, method="loo")

    @pytest.mark.parametrize("model", [held(), _NormalMean(draws=20)])
    def test_psis_wants_draws(self, model):
        with pytest.raises(ValueError, match="method='psis' reweights draws from a posterior"):
            leave_future_out(model, SERIES, first=10, method="psis")
