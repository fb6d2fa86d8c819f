"""Mixtures: normals with missing values, any family, and what users meet on the way."""

import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.impute import SimpleImputer
from sklearn.mixture import GaussianMixture as PeerMixture
from sklearn.preprocessing import StandardScaler

import ppl_gen
from ppl_gen import EM, Bernoulli, Categorical, GaussianMixture, Mixture, Normal, Poisson
from ppl_gen.datasets import load_faithful, load_penguins

COVARIANCE_TYPES = ["full", "tied", "diag", "spherical"]


def blobs(n_rows=400, seed=0, spread=2.5):
    """Three correlated classes in four columns, their labels, and the mixing of each."""
    rng = np.random.default_rng(seed)
    centres = spread * rng.normal(size=(3, 4))
    mixing = np.eye(4) + 0.5 * rng.normal(size=(3, 4, 4))
    labels = rng.integers(3, size=n_rows)
    return centres[labels] + np.einsum("nde,ne->nd", mixing[labels], rng.normal(size=(n_rows, 4)))


def punched(x, share=0.2, seed=1):
    rng = np.random.default_rng(seed)
    holed = np.where(rng.random(x.shape) < share, np.nan, x)
    holed[np.isnan(holed).all(axis=1)] = x[np.isnan(holed).all(axis=1)]
    return holed


def covariance_of(model, k):
    covariance, width = model.covariances_, model.means_.shape[1]
    return {
        "full": lambda: covariance[k],
        "tied": lambda: covariance,
        "diag": lambda: np.diag(covariance[k]),
        "spherical": lambda: covariance[k] * np.eye(width),
    }[model.covariance_type]()


def brute_force(model, x):
    """Log density of each row by the marginal normal of what it has."""
    found = []
    for row in x:
        o = np.flatnonzero(~np.isnan(row))
        terms = [np.log(w) for w in model.weights_]
        if len(o):
            terms = [
                term
                + multivariate_normal.logpdf(
                    row[o], model.means_[k][o], covariance_of(model, k)[np.ix_(o, o)]
                )
                for k, term in enumerate(terms)
            ]
        found.append(logsumexp(terms))
    return np.array(found)


# -- missing values -------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_the_likelihood_of_incomplete_rows_is_the_marginal(covariance_type):
    x = punched(blobs(), 0.4)
    model = GaussianMixture(3, covariance_type, inference=EM(max_iter=10), random_state=0).fit(x)
    fresh = np.concatenate([punched(blobs(100, seed=2), 0.5), np.full((1, 4), np.nan)])
    # The acceptance bound.
    np.testing.assert_allclose(model.log_prob(fresh), brute_force(model, fresh), atol=1e-10, rtol=0)
    # A row of nothing says nothing.
    assert model.log_prob(fresh)[-1] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(model.predict_proba(fresh)[-1], model.weights_, rtol=1e-12)


TABLES = {
    "blobs": lambda: blobs(600),
    "iris": lambda: StandardScaler().fit_transform(load_iris(return_X_y=True)[0]),
    "penguins": lambda: StandardScaler().fit_transform(
        load_penguins().frame.iloc[:, 2:6].dropna().to_numpy()
    ),
    "breast_cancer": lambda: StandardScaler().fit_transform(
        load_breast_cancer(return_X_y=True)[0][:, :6]
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_fifth_missing_beats_mean_imputation(name):
    """Held-out log density against scikit-learn on tables filled with column means."""
    x = np.random.default_rng(0).permutation(TABLES[name]())
    train, test = x[: 2 * len(x) // 3], x[2 * len(x) // 3 :]
    holed = punched(train)
    assert 0.15 < np.isnan(holed).mean() < 0.25
    ours = GaussianMixture(3, inference=EM(n_init=5), random_state=0).fit(holed)
    filled = SimpleImputer().fit_transform(holed)
    peer = PeerMixture(3, n_init=5, random_state=0).fit(filled)
    assert (
        ours.score(test) > peer.score(test) + 0.1
    )  # nats a row; measured .2 to 2.7 over five splits


def test_imputing_beats_the_column_mean():
    x = blobs(600)
    holed = punched(x)
    model = GaussianMixture(3, inference=EM(n_init=5), random_state=0).fit(holed)
    holes = np.isnan(holed)
    filled = model.impute(holed)
    np.testing.assert_array_equal(filled[~holes], x[~holes])

    def error(table):
        return np.sqrt(np.mean((table[holes] - x[holes]) ** 2))

    assert error(filled) < 0.7 * error(SimpleImputer().fit_transform(holed))


def test_multiple_imputation_has_the_spread_of_what_is_missing():
    x = blobs(2000)
    holed = punched(x)
    model = GaussianMixture(3, inference=EM(n_init=5), random_state=0).fit(holed)
    tables = np.stack(model.impute(holed, n_draws=200, random_state=1))
    holes = np.isnan(holed)
    assert (tables[:, ~holes] == x[~holes]).all()
    # The mean of many draws is the conditional mean: within six standard errors of 200 draws,
    # for 1600 entries.
    drawn, filled = tables[:, holes], model.impute(holed)[holes]
    error = drawn.std(axis=0) / np.sqrt(200)
    assert (np.abs(drawn.mean(axis=0) - filled) < 6.0 * error + 1e-9).all()
    # And the truth lies among them as one more draw would: the rank of the truth is uniform, so
    # its mean is 1/2 with deviation .289 / sqrt(1600) = .007, and a tenth lies beyond each of the
    # outer deciles, give or take .0075. Four deviations of each.
    rank = (drawn < x[holes]).mean(axis=0)
    assert abs(rank.mean() - 0.5) < 0.03
    assert abs((rank < 0.1).mean() - 0.1) < 0.03
    assert abs((rank > 0.9).mean() - 0.1) < 0.03


# -- against scikit-learn -----------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_information_criteria_are_scikit_learns(covariance_type):
    x = blobs()
    peer = PeerMixture(2, covariance_type=covariance_type, random_state=0).fit(x)
    start = {
        "weights_init": peer.weights_,
        "means_init": peer.means_,
        "precisions_init": peer.precisions_,
    }
    # One step from the peer's own fit: the criteria are compared at the model's parameters.
    model = GaussianMixture(2, covariance_type, inference=EM(max_iter=1), **start).fit(x)
    assert model.n_free_parameters() == peer._n_parameters()
    total = model.log_prob(x).sum()
    assert model.aic(x) == pytest.approx(-2 * total + 2 * peer._n_parameters(), rel=1e-12)
    assert model.bic(x) == pytest.approx(
        -2 * total + np.log(len(x)) * peer._n_parameters(), rel=1e-12
    )
    peer.weights_, peer.means_ = model.weights_, model.means_
    peer.covariances_, peer.precisions_cholesky_ = model.covariances_, model.precisions_cholesky_
    # The same parameters in scikit-learn's own code.
    assert model.aic(x) == pytest.approx(peer.aic(x), rel=1e-11)
    assert model.bic(x) == pytest.approx(peer.bic(x), rel=1e-11)


def test_the_likeliest_order_of_old_faithful_is_two():
    x = load_faithful().frame
    fits = [GaussianMixture(k, inference=EM(n_init=3), random_state=0).fit(x) for k in (1, 2, 3, 4)]
    assert np.argmin([fit.bic(x) for fit in fits]) == 1


# -- any family --------------------------------------------------------------------------------


def matched(found, truth):
    """Rows of `found` in the order of `truth`."""
    cost = np.abs(found[:, None, :] - truth[None]).sum(axis=2)
    rows, columns = linear_sum_assignment(cost)
    return rows[np.argsort(columns)]


def test_a_mixture_of_poissons_finds_its_rates():
    rng = np.random.default_rng(0)
    rates = np.array([[1.0, 8.0, 3.0], [6.0, 2.0, 3.0], [12.0, 12.0, 1.0]])
    z = rng.choice(3, size=3000, p=[0.5, 0.3, 0.2])
    model = Mixture(3, "poisson", inference=EM(n_init=3), random_state=0).fit(rng.poisson(rates[z]))
    found = model.posterior_.stacked("rate")[0]
    order = matched(found, rates)
    # Four standard errors of a mean of some 600 counts of rate 12: 4 sqrt(12 / 600) = .6; of
    # rate 1: .1 of some 1500.
    np.testing.assert_allclose(found[order], rates, atol=0.6, rtol=0.0)
    np.testing.assert_allclose(model.weights_[order], [0.5, 0.3, 0.2], atol=0.04)


def test_a_mixture_of_bernoullis_finds_its_chances():
    rng = np.random.default_rng(1)
    chances = np.array([[0.9, 0.8, 0.1, 0.2, 0.9], [0.1, 0.3, 0.9, 0.7, 0.2]])
    z = rng.choice(2, size=3000, p=[0.6, 0.4])
    x = rng.random((3000, 5)) < chances[z]
    model = Mixture(2, "bernoulli", random_state=0).fit(x)
    found = model.posterior_.stacked("probs")[0]
    # Four standard errors of a share of 1200 rows, .014, and a little for the overlap.
    np.testing.assert_allclose(found[matched(found, chances)], chances, atol=0.07, rtol=0.0)


def mixed_frame(n_rows=2000, seed=2):
    rng = np.random.default_rng(seed)
    z = rng.choice(2, size=n_rows, p=[0.7, 0.3])
    frame = pd.DataFrame(
        {
            "length": rng.normal(np.where(z, 3.0, -1.0), np.where(z, 0.5, 1.0)),
            "ripe": rng.random(n_rows) < np.where(z, 0.9, 0.2),
            "colour": pd.Categorical.from_codes(
                np.where(rng.random(n_rows) < 0.8, 2 * z, 1), ["green", "amber", "red"]
            ),
            "seeds": rng.poisson(np.where(z, 9, 3)),
        }
    )
    return frame, z


def test_a_mixture_of_mixed_columns_finds_its_classes():
    frame, z = mixed_frame()
    model = Mixture(2, {"seeds": "poisson"}, random_state=0).fit(frame)
    labels = model.predict(frame)
    assert max(np.mean(labels == z), np.mean(labels != z)) > 0.97
    kinds = {type(family) for _, family, _ in model.structure_.family.parts}
    assert kinds == {Normal, Bernoulli, Categorical, Poisson}
    order = np.argsort(model.weights_)[::-1]
    np.testing.assert_allclose(model.weights_[order], [0.7, 0.3], atol=0.04)  # four errors
    rates = model.posterior_.stacked("poisson_rate")[0][order, 0]
    np.testing.assert_allclose(rates, [3.0, 9.0], atol=0.5)


def test_missing_values_in_mixed_columns():
    frame, z = mixed_frame()
    rng = np.random.default_rng(3)
    holed = frame.copy()
    holed["ripe"] = holed["ripe"].astype(object)
    holed["seeds"] = holed["seeds"].astype(float)
    for name in frame.columns:
        holed.loc[rng.random(len(frame)) < 0.2, name] = None
    model = Mixture(2, {"seeds": "poisson"}, random_state=0).fit(holed)
    labels = model.predict(holed)
    assert max(np.mean(labels == z), np.mean(labels != z)) > 0.93
    filled = model.impute(holed)
    assert not filled.isna().any().any()
    assert list(filled.columns) == list(frame.columns)
    holes = holed["colour"].isna()
    hits = np.mean(filled["colour"][holes] == frame["colour"][holes])
    assert hits > 0.6  # the mode of the class is right eight times in ten


def test_sparse_counts_are_not_made_dense(monkeypatch):
    rng = np.random.default_rng(0)
    rates = np.where(rng.random((2, 40)) < 0.2, 3.0, 0.05)
    z = rng.integers(2, size=300)
    x = scipy.sparse.csr_array(rng.poisson(rates[z]).astype(float))
    dense = Mixture(2, "poisson", inference=EM(init="random"), random_state=0).fit(x.toarray())

    def refuse(*args, **kwargs):
        raise AssertionError("made dense")

    with monkeypatch.context() as patched:
        patched.setattr(scipy.sparse.csr_array, "toarray", refuse)
        patched.setattr(scipy.sparse.csr_matrix, "toarray", refuse)
        model = Mixture(2, "poisson", inference=EM(init="random"), random_state=0).fit(x)
        log_prob = model.log_prob(x)
    # The same sums in another order, over some tens of steps.
    np.testing.assert_allclose(log_prob, dense.log_prob(x.toarray()), rtol=1e-8)


# -- tables in, tables out ------------------------------------------------------------------------


def test_a_dataframe_comes_back_with_its_names_and_dtypes():
    frame = load_penguins().frame
    model = Mixture(3, random_state=0).fit(frame)
    drawn = model.sample(50, random_state=0)
    assert list(drawn.columns) == list(frame.columns)
    same = drawn.dtypes == frame.dtypes
    assert same.drop("year").all()  # a normal year is not whole
    assert drawn["species"].cat.categories.tolist() == ["Adelie", "Chinstrap", "Gentoo"]
    filled = model.impute(frame)
    assert not filled.isna().any().any()
    pd.testing.assert_frame_equal(filled[["species", "island"]], frame[["species", "island"]])


def test_a_polars_frame_comes_back_as_one():
    frame = polars.DataFrame({"a": [1.0, 2.0, None, 8.0, 9.0], "b": ["x", "x", "y", "y", None]})
    model = Mixture(2, random_state=0).fit(frame)
    filled = model.impute(frame)
    assert isinstance(filled, polars.DataFrame)
    assert filled.null_count().sum_horizontal().item() == 0
    assert filled.schema["a"] == polars.Float64
    assert filled["b"].to_list()[:4] == ["x", "x", "y", "y"]
    assert model.sample(3, random_state=0).columns == ["a", "b"]
    assert list(model.feature_names_in_) == ["a", "b"]


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
def test_an_array_comes_back_in_its_dtype(dtype):
    x = np.random.default_rng(0).poisson(4.0, size=(60, 2)).astype(dtype)
    assert Mixture(2, "poisson", random_state=0).fit(x).sample(5, random_state=0).dtype == dtype
    # A normal's draws are not whole: an integer dtype would cut them off.
    normal = GaussianMixture(2, random_state=0).fit(x).sample(5, random_state=0)
    assert normal.dtype == (np.float32 if dtype is np.float32 else np.float64)


def test_arrays_of_other_libraries_are_taken():
    import torch

    from ppl_gen import engines

    x = blobs()
    expected = GaussianMixture(2, random_state=0).fit(x).log_prob(x)
    engine = engines.get("numpyro")
    with engine.precision(device="cpu"):
        traced = engine.asarray(x)
    for other in (torch.as_tensor(x), torch.as_tensor(x).requires_grad_(), traced, x.tolist()):
        model = GaussianMixture(2, random_state=0).fit(other)
        found = model.log_prob(other)
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, expected)


def test_draws_follow_the_mixture():
    x = blobs(2000)
    model = GaussianMixture(3, random_state=0).fit(x)
    drawn, labels = model.sample(20_000, random_state=1, return_latent=True)
    # Shares of 20,000 rows: three standard errors are .01.
    np.testing.assert_allclose(np.bincount(labels) / 20_000, model.weights_, atol=0.011)
    for k in range(3):
        own = drawn[labels == k]
        error = own.std(axis=0) / np.sqrt(len(own))
        assert (np.abs(own.mean(axis=0) - model.means_[k]) < 5.0 * error).all()
    # The density of draws averages to minus the entropy, whichever half it is taken over.
    halves = model.log_prob(drawn).reshape(2, -1)
    assert abs(np.diff(halves.mean(axis=1))[0]) < 5.0 * halves.std() / 100


def test_the_same_random_state_draws_the_same():
    model = GaussianMixture(2, random_state=0).fit(blobs())
    np.testing.assert_array_equal(model.sample(7, random_state=3), model.sample(7, random_state=3))
    assert (model.sample(7, random_state=3) != model.sample(7, random_state=4)).any()


# -- fitting again, weights, starts ------------------------------------------------------------


def test_warm_start_goes_on():
    x = blobs()
    one = GaussianMixture(3, inference=EM(max_iter=6, tol=0.0), random_state=0).fit(x)
    two = GaussianMixture(3, inference=EM(max_iter=3, tol=0.0), random_state=0, warm_start=True)
    two.fit(x).fit(x)
    # Three steps and three more are six.
    np.testing.assert_allclose(two.means_, one.means_, rtol=1e-12)
    assert two.history_[0] > one.history_[2]


def test_a_weight_is_a_repetition():
    x = punched(blobs(150))
    repeats = np.random.default_rng(0).integers(1, 4, size=150)
    # Repetition moves the data's centre, about which the default start and sums are taken.
    start = {
        "means_init": np.nan_to_num(x[:3]),
        "weights_init": np.full(3, 1 / 3),
        "precisions_init": np.stack([np.eye(4)] * 3),
    }
    settings = EM(max_iter=15, tol=0.0)
    weighted = GaussianMixture(3, inference=settings, **start).fit(x, sample_weight=repeats)
    repeated = GaussianMixture(3, inference=settings, **start).fit(np.repeat(x, repeats, axis=0))
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-8)
    np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-7, atol=1e-9)
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, rel=1e-10)


def test_a_prior_holds_components_that_rows_do_not():
    # Six rows in four columns: the likelihood has no maximum, the posterior has.
    x = blobs(6)
    model = GaussianMixture(2, prior="default", reg_covar=0.0, random_state=0).fit(x)
    assert np.isfinite(model.log_prob(x)).all()
    assert (np.linalg.eigvalsh(model.covariances_) > 1e-3).all()


def test_weight_concentration_pulls_the_weights_together():
    x = blobs()
    loose = GaussianMixture(2, random_state=0).fit(x).weights_
    tight = GaussianMixture(2, weight_concentration=1000.0, random_state=0).fit(x).weights_
    assert np.ptp(tight) < np.ptp(loose)


# -- keeping ------------------------------------------------------------------------------------


def test_a_saved_mixture_is_the_same(tmp_path):
    frame, _ = mixed_frame(300)
    model = Mixture(2, {"seeds": "poisson"}, random_state=0).fit(frame)
    model.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.log_prob(frame), model.log_prob(frame))
    pd.testing.assert_frame_equal(
        loaded.sample(20, random_state=1), model.sample(20, random_state=1)
    )
    assert loaded.get_params()["family"] == {"seeds": "poisson"}
    with pytest.raises(FileExistsError, match="overwrite"):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model", overwrite=True)


def test_arrays_of_truth_values_are_drawn_as_such():
    x = np.random.default_rng(0).random((50, 3)) < 0.3
    assert Mixture(2, family="bernoulli", random_state=0).fit(x).sample(5).dtype == bool
    assert Mixture(2, family="normal", random_state=0).fit(x).sample(5).dtype == np.float64
