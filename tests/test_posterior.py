import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ppl_gen
from ppl_gen import Posterior, dist, factor, plate, program, sample
from ppl_gen.arviz_bridge import az
from ppl_gen.posterior import groups


@pytest.fixture(scope="module")
def posterior(eight_schools_posterior):
    return eight_schools_posterior


@program
def normal_mean(x=None, n=5):
    mu = sample("mu", dist.Normal(0.0, 2.0))
    with plate("row", n):
        sample("x", dist.Normal(mu, 1.0), obs=x)


X = np.array([0.3, 1.1, -0.4, 2.0, 0.9])


def raw(seed=0, chains=4, draws=200, **settings):
    """Draws given, so that what follows from them is known."""
    rng = np.random.default_rng(seed)
    values = {"mu": rng.normal(0.7, 0.3, size=(chains, draws))}
    return Posterior(
        values, method="nuts", engine="numpyro", model=normal_mean, kwargs={"x": X}, **settings
    )


def point():
    return Posterior(
        {"mu": np.full((1, 1), 0.65)},
        method="em",
        engine="numpyro",
        model=normal_mean,
        kwargs={"x": X},
    )


class TestGroups:
    def test_dims_come_from_plates_and_labels_from_coords(self, posterior):
        idata = posterior.idata
        assert idata.posterior["theta"].dims == ("chain", "draw", "school")
        assert idata.posterior["mu"].dims == ("chain", "draw")
        assert idata.posterior["theta"].coords["school"].values.tolist() == list("ABCDEFGH")
        assert idata.observed_data["y"].dims == ("school",)
        np.testing.assert_array_equal(idata.observed_data["y"], posterior.kwargs["y"])
        np.testing.assert_array_equal(idata.constant_data["sigma"], posterior.args[0])
        assert "y" not in idata.constant_data

    def test_sample_stats_have_arvizs_names(self, posterior):
        names = set(posterior.idata.sample_stats.data_vars)
        assert {
            "diverging", "energy", "lp", "n_steps", "tree_depth", "acceptance_rate", "step_size",
            "reached_max_treedepth",
        } <= names  # fmt: skip

    def test_log_likelihood_is_the_density_at_each_draw(self, posterior):
        found = posterior.log_likelihood()["y"]
        expected = stats.norm.logpdf(
            posterior.kwargs["y"], posterior.draws["theta"], posterior.args[0]
        )
        # float64 arithmetic in another order.
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert posterior.idata.log_likelihood["y"].dims == ("chain", "draw", "school")

    def test_too_large_a_group_is_refused_with_the_thinning_that_fits(self, monkeypatch):
        monkeypatch.setattr(groups, "MAX_GROUP_BYTES", 20_000)
        with pytest.raises(ValueError, match=r"0.0 GB; thin first: posterior.thin\(2\)"):
            raw().log_likelihood()
        assert raw().thin(2).log_likelihood()["x"].shape == (4, 100, 5)

    def test_predictive_has_the_moments_of_the_draws(self):
        posterior = raw(draws=1000)
        drawn = posterior.predictive(seed=1)["x"]
        assert drawn.shape == (4000, 5)
        # Normal around draws of mean 0.7 and sd 0.3: 20,000 values, standard error 1.08 / 141 and
        # that of the 4,000 draws, 0.0047; four of them.
        assert drawn.mean() == pytest.approx(posterior.draws["mu"].mean(), abs=0.04)
        assert drawn.std() == pytest.approx(np.hypot(1.0, 0.3), abs=0.04)
        assert posterior.idata.posterior_predictive["x"].shape == (4, 1000, 5)

    def test_predictive_takes_new_data_and_a_number(self, posterior):
        drawn = posterior.predictive(10, sigma=np.full(3, 1e-3), seed=0)
        assert drawn["y"].shape == (10, 3)
        # New groups have new effects.
        assert posterior.predictive(7)["y"].shape == (7, 8)

    def test_predictive_of_the_same_groups_uses_their_effects(self, posterior):
        drawn = posterior.predictive(sigma=np.full(8, 1e-6))["y"]
        np.testing.assert_allclose(drawn, posterior.stacked("theta"), atol=1e-4)

    def test_same_seed_same_draws(self):
        one, two = raw().predictive(50, seed=4), raw().predictive(50, seed=4)
        np.testing.assert_array_equal(one["x"], two["x"])
        assert not np.array_equal(one["x"], raw().predictive(50, seed=5)["x"])

    def test_unknown_argument_is_refused(self):
        with pytest.raises(ValueError, match="no argument 'rows'; expected some of x, n"):
            raw().predictive(rows=3)

    def test_observations_computed_within_the_program_are_named(self):
        @program
        def logged(x=None):
            mu = sample("mu", dist.Normal(0.0, 1.0))
            with plate("row", 5):
                sample("y", dist.Normal(mu, 1.0), obs=None if x is None else x - 1.0)

        posterior = Posterior(
            {"mu": np.zeros((2, 10))},
            method="nuts",
            engine="numpyro",
            model=logged,
            kwargs={"x": X},
        )
        with pytest.raises(ValueError, match=r"y stays observed.*pass None"):
            posterior.predictive()
        assert posterior.predictive(x=None)["y"].shape == (20, 5)

    def test_prior_groups(self, posterior):
        drawn = posterior.prior(50, seed=0)
        assert drawn["mu"].shape == (50,)
        assert posterior.idata.prior["theta"].shape == (1, 50, 8)
        assert posterior.idata.prior_predictive["y"].shape == (1, 50, 8)

    def test_factor_has_no_likelihood_of_single_observations(self):
        @program
        def energy(x=None):
            mu = sample("mu", dist.Normal(0.0, 1.0))
            sample("x", dist.Normal(mu, 1.0), obs=x)
            factor("penalty", -(mu**2))

        posterior = Posterior(
            {"mu": np.zeros((2, 10))},
            method="nuts",
            engine="numpyro",
            model=energy,
            kwargs={"x": np.float64(1.0)},
        )
        with pytest.raises(ValueError, match=r"goes through factor \(penalty\)"):
            posterior.log_likelihood()

    def test_wrong_number_of_labels(self):
        with pytest.raises(ValueError, match=r"coords\['row'\] has 2 labels, but x has 3"):
            Posterior(
                {"x": np.zeros((1, 5, 3))},
                method="svi",
                dims={"x": ["row"]},
                coords={"row": ["a", "b"]},
            ).summary()


class TestArviZ:
    def test_summary_is_arvizs(self, posterior):
        table = posterior.summary()
        expected = az.summary(posterior.idata, round_to="none")
        pd.testing.assert_frame_equal(table, expected)
        assert "theta[A]" in table.index
        assert list(posterior.summary("mu").index) == ["mu"]

    def test_unknown_variable(self, posterior):
        with pytest.raises(ValueError, match="no site nu; expected some of mu, tau, z, theta"):
            posterior.summary(["nu"])

    # ArviZ's own use of pandas, which pandas 3.1 deprecates.
    @pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.sort_values")
    def test_loo_and_compare(self, posterior):
        ours = posterior.loo()
        theirs = az.loo(posterior.idata)
        # Relative efficiency is averaged over other entries, which moves the tail fit slightly.
        assert ours.elpd_loo == pytest.approx(theirs.elpd_loo, abs=0.02)
        other = raw()
        table = az.compare({"pooled": other.loo(), "again": raw(seed=1).loo()})
        assert list(table["rank"]) == [0, 1]

    def test_plots(self, posterior):
        import matplotlib.pyplot as plt

        az.plot_trace(posterior.idata, var_names=["mu", "tau"])
        az.plot_energy(posterior.idata)
        plt.close("all")

    def test_constant_entries_have_no_rhat(self):
        rng = np.random.default_rng(0)
        lower = rng.normal(size=(4, 500, 2, 2))
        lower[..., 0, 1] = 0.0
        posterior = Posterior({"L": lower}, method="nuts")
        table = posterior.summary()
        assert np.isnan(table.loc["L[0, 1]", "r_hat"])
        assert posterior.verdict.ok
        assert "1 constant entry left out" in posterior.verdict.text


class TestPoint:
    def test_summary_leaves_out_what_only_draws_tell(self):
        assert point().summary().columns.tolist() == ["mean"]
        assert point().summary().loc["mu", "mean"] == 0.65

    def test_independent_draws_have_spread_but_no_rhat(self):
        table = raw(chains=1).summary()
        assert {"mean", "sd", "hdi_3%", "hdi_97%"} == set(table.columns)

    def test_loo_gives_advice(self):
        with pytest.raises(ValueError, match=r"em gives one point estimate.*fit by NUTS or SVI"):
            point().loo()

    def test_log_likelihood_works(self):
        found = point().log_likelihood()["x"]
        np.testing.assert_allclose(found[0, 0], stats.norm.logpdf(X, 0.65, 1.0), rtol=1e-12)


@program
def walk(x=None, axis="time"):
    scale = sample("scale", dist.HalfNormal(1.0))
    with plate(axis, 5):
        sample("x", dist.Normal(0.0, scale), obs=x)


class TestObservationsThatDepend:
    def test_the_only_observation_cannot_be_left_out(self):
        posterior = raw()
        posterior.kwargs = {"x": X[:1], "n": 1}
        with pytest.raises(ValueError, match=r"x has one observation.*leave_future_out.*hold out"):
            posterior.loo()

    @pytest.mark.parametrize("axis", ["time", "row"])
    def test_steps_of_a_series_are_not_left_out(self, axis):
        posterior = Posterior(
            {"scale": np.random.default_rng(0).gamma(50.0, 0.02, size=(1, 500))},
            method="svi",
            engine="numpyro",
            model=walk,
            kwargs={"x": X, "axis": axis},
        )
        if axis == "row":
            assert posterior.loo().n_data_points == len(X)
        else:
            with pytest.raises(ValueError, match=r"x has an observation a step.*leave_future_out"):
                posterior.loo()

    # Forty draws with noise are enough to count terms, and no posterior.
    @pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto:UserWarning")
    def test_whole_sequences_are_left_out(self):
        """The terms of LOO are those of sequences, and one sequence is refused."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(60, 1)) + 4.0 * rng.integers(2, size=(60, 1))
        model = ppl_gen.HiddenMarkovModel(2, random_state=0)
        for lengths in ([10] * 6, [60]):
            fit = model.fit(x, lengths=lengths)
            draws = {k: np.repeat(v, 40, axis=1) for k, v in fit.posterior_.draws.items()}
            spread = rng.normal(scale=0.1, size=draws["mean_whitened"].shape)
            draws["mean_whitened"] = draws["mean_whitened"] + spread
            posterior = Posterior(
                draws,
                method="svi",
                engine="numpyro",
                model=fit.program(),
                kwargs=fit.posterior_.kwargs,
            )
            if len(lengths) == 1:
                with pytest.raises(ValueError, match="x has one observation"):
                    posterior.loo()
            else:
                assert posterior.loo().n_data_points == len(lengths)


class TestLabels:
    def test_verdict_and_summary_are_taken_after_relabelling(self, two_normals_posterior):
        posterior = two_normals_posterior
        assert posterior.verdict.ok
        means = np.sort(posterior.summary("mu")["mean"].to_numpy())
        np.testing.assert_allclose(means, [-4, 4], atol=1.0)
        # The raw draws are as the chains left them.
        assert posterior.relabel() is not posterior

    def test_every_site_with_the_axis_moves_together(self):
        rng = np.random.default_rng(0)
        flip = rng.integers(0, 2, size=(2, 100)).astype(bool)
        mu = np.where(flip[..., None], [5.0, -5.0], [-5.0, 5.0]) + rng.normal(size=(2, 100, 2))
        rows = np.where(flip[..., None, None], [[0.2, 0.8], [0.1, 0.9]], [[0.9, 0.1], [0.8, 0.2]])
        posterior = Posterior(
            {"mu": mu, "move": rows, "other": rng.normal(size=(2, 100))},
            method="nuts",
            dims={"mu": ["state"], "move": ["state", "state"]},
            exchangeable="state",
        )
        # The axis twice in one site: xarray needs two names.
        assert posterior.idata.posterior["move"].dims == ("chain", "draw", "state", "state_2")
        done = posterior.relabel()
        order = np.argsort(done.draws["mu"], axis=-1)
        assert (order == order[0, 0]).all()
        assert np.ptp(done.draws["move"], axis=(0, 1)).max() == 0
        np.testing.assert_array_equal(done.draws["other"], posterior.draws["other"])
        assert 0 < done.info["relabelled_share"] < 1
        assert done.relabel() is done

    def test_an_axis_that_is_not_there(self):
        posterior = Posterior(
            {"mu": np.zeros((2, 10, 3))},
            method="nuts",
            dims={"mu": ["feature"]},
            exchangeable="component",
        )
        with pytest.raises(ValueError, match=r"no site has an axis 'component'.*feature"):
            posterior.relabel()


class TestSaving:
    def test_comes_back_whole_with_the_program(self, posterior, tmp_path):
        posterior.log_likelihood()
        posterior.save(tmp_path / "kept")
        back = ppl_gen.load(tmp_path / "kept", program=posterior.model)
        for name, values in posterior.draws.items():
            np.testing.assert_array_equal(back.draws[name], values)
        assert back.verdict == posterior.verdict
        assert back.info["settings"] == posterior.info["settings"]
        assert back.idata.groups() == posterior.idata.groups()
        assert back.idata.posterior.attrs == posterior.idata.posterior.attrs
        np.testing.assert_array_equal(
            back.predictive(5, seed=2)["y"], posterior.predictive(5, seed=2)["y"]
        )

    def test_without_the_program_the_posterior_alone(self, posterior, tmp_path):
        posterior.save(tmp_path / "kept")
        back = ppl_gen.load(tmp_path / "kept")
        pd.testing.assert_frame_equal(back.summary(), posterior.summary())
        with pytest.raises(ValueError, match=r"has no program.*load\(path, program=...\)"):
            back.predictive()

    def test_another_program_is_refused(self, posterior, tmp_path):
        posterior.save(tmp_path / "kept")

        @program
        def other(sigma, y=None):
            mu = sample("mu", dist.Normal(0.0, 5.0))
            with plate("school", len(sigma)):
                sample("y", dist.Normal(mu, sigma), obs=y)

        with pytest.raises(ValueError, match="the program has no site tau"):
            ppl_gen.load(tmp_path / "kept", program=other)

    def test_nothing_is_overwritten_unasked(self, tmp_path):
        raw().save(tmp_path / "kept")
        with pytest.raises(FileExistsError, match="overwrite=True"):
            raw().save(tmp_path / "kept")
        raw(seed=9).save(tmp_path / "kept", overwrite=True)
        np.testing.assert_array_equal(
            ppl_gen.load(tmp_path / "kept").draws["mu"], raw(seed=9).draws["mu"]
        )

    def test_attributes_that_netcdf_lacks(self, tmp_path):
        posterior = Posterior({"mu": np.zeros((2, 5))}, method="nuts")
        posterior.idata.posterior.attrs.update(flag=True, nothing=None, several=[1, 2])
        posterior.write_netcdf(tmp_path / "x.nc")
        back = Posterior.from_tree(posterior.tree(), tmp_path / "x.nc")
        assert back.idata.posterior.attrs["flag"] is True
        assert back.idata.posterior.attrs["nothing"] is None
        assert back.idata.posterior.attrs["several"] == [1, 2]


def test_shown(posterior):
    assert repr(posterior).startswith("<Posterior by nuts: 4 x 500 draws of mu, tau, z[8]")
    page = posterior._repr_html_()
    assert "Verdict" in page
    assert "<table" in page


def test_refuses_draws_of_unequal_number():
    with pytest.raises(ValueError, match="expected one common"):
        Posterior({"a": np.zeros((2, 3)), "b": np.zeros((2, 4))}, method="nuts")
    with pytest.raises(ValueError, match="at least one site"):
        Posterior({}, method="nuts")


def test_stacked_names_what_is_there():
    assert raw().stacked("mu").shape == (800,)
    with pytest.raises(KeyError, match="expected one of mu"):
        raw().stacked("nu")


def test_nothing_warns_on_import_of_arviz():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import ppl_gen.arviz_bridge  # noqa: F401
    assert not caught
