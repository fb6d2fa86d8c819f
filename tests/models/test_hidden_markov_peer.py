"""The hidden Markov model against hmmlearn: the same steps from one start, the same answers."""

import copy
import warnings

import numpy as np
import pytest
from hmmlearn import hmm
from hmmlearn_cases import EMISSIONS, LENGTHS, hmmlearn_case

from ppl_gen import EM, HiddenMarkovModel
from ppl_gen.models.hidden_markov.names import LETTERS

N = sum(LENGTHS)


def letters_of(name):
    if name.startswith("gaussian"):
        return "stmc"
    return {"categorical": "ste", "multinomial": "ste", "poisson": "stl"}.get(name, "stmcw")


def settings_of(name):
    kind, _, covariance_type = name.partition("-")
    settings = {"emission": kind, "min_covar": 0.0}
    if covariance_type:
        settings["covariance_type"] = covariance_type
    if kind == "gmm":
        settings["n_mix"] = 2
    return settings


def compact(peer):
    """Covariances of hmmlearn's model in the shape that it takes them in."""
    covars = getattr(peer, "_covars_", None)
    if covars is None:
        return peer.covars_
    # After a step of spherical ones, one a column, all equal.
    return covars[:, 0] if peer.covariance_type == "spherical" and covars.ndim == 2 else covars


def value_of(peer, letter):
    return compact(peer) if letter == "c" else getattr(peer, LETTERS[letter])


def set_up(name, peer, n_iter=20, **settings):
    """The model with the parameters of hmmlearn's for its start."""
    model = HiddenMarkovModel(
        3,
        **settings_of(name),
        init_params="",
        inference=EM(max_iter=n_iter, tol=0.0),
        **settings,
    )
    for letter in letters_of(name):
        setattr(model, LETTERS[letter], value_of(peer, letter))
    return model


def as_matrices(model, peer):
    """Our covariances (..., D, D) and hmmlearn's, spread in the same way."""
    theirs = compact(peer)
    width = model.means_.shape[-1]
    lead = model.means_.shape[:-1]
    if peer.covariance_type == "spherical":
        theirs = theirs[..., None, None] * np.eye(width)
    elif peer.covariance_type == "diag":
        theirs = theirs[..., None] * np.eye(width)
    return model.covars_, np.broadcast_to(theirs, (*lead, width, width))


def assert_same_parameters(model, peer, name, rtol=1e-8, atol=1e-9):
    # Rounding, grown by twenty steps to 1e-12 at most.
    for letter in letters_of(name):
        if letter == "c":
            ours, theirs = as_matrices(model, peer)
        else:
            ours, theirs = (getattr(m, LETTERS[letter]) for m in (model, peer))
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=letter)


@pytest.mark.parametrize("name", EMISSIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_twenty_steps_are_those_of_hmmlearn(name, seed):
    case = hmmlearn_case(name, seed)
    model = set_up(name, case.start).fit(case.X, case.lengths)
    assert model.n_iter_ == len(case.history) == 20
    # Flat priors: the objective is the log likelihood, ours a step.
    np.testing.assert_allclose(model.history_ * N, case.history, rtol=1e-10)
    assert_same_parameters(model, case.fitted, name)
    score = case.fitted.score(case.X, case.lengths)
    assert model.score(case.X, case.lengths) == pytest.approx(score, rel=1e-10)


@pytest.mark.parametrize("name", EMISSIONS)
def test_answers_are_those_of_hmmlearn(name):
    """Of the same parameters, not of fits: only rounding tells them apart."""
    case = hmmlearn_case(name, n_iter=3)
    peer, X, lengths = case.fitted, case.X, case.lengths
    peer = copy.deepcopy(peer)
    if getattr(peer, "_covars_", None) is not None:
        peer.covars_ = compact(peer)  # else the property spreads them wrongly
    model = HiddenMarkovModel.from_hmmlearn(peer)
    assert model.score(X, lengths) == pytest.approx(peer.score(X, lengths), rel=1e-10)
    np.testing.assert_allclose(
        model.predict_proba(X, lengths), peer.predict_proba(X, lengths), atol=1e-9
    )
    total, shares = model.score_samples(X, lengths)
    theirs = peer.score_samples(X, lengths)
    assert total == pytest.approx(theirs[0], rel=1e-10)
    np.testing.assert_allclose(shares, theirs[1], atol=1e-9)
    for algorithm in ("viterbi", "map"):
        value, path = model.decode(X, lengths, algorithm=algorithm)
        expected, states = peer.decode(X, lengths, algorithm=algorithm)
        assert value == pytest.approx(expected, rel=1e-10)
        np.testing.assert_array_equal(path, states)
        for either in (model, peer):
            either.algorithm = algorithm
        np.testing.assert_array_equal(model.predict(X, lengths), peer.predict(X, lengths))
    np.testing.assert_allclose(
        model.stationary_distribution(), peer.get_stationary_distribution(), atol=1e-9
    )


@pytest.mark.parametrize("name", EMISSIONS)
def test_information_criteria_are_those_of_hmmlearn(name):
    case = hmmlearn_case(name, n_iter=2)
    model = set_up(name, case.start, n_iter=2).fit(case.X, case.lengths)
    peer, X, lengths = case.fitted, case.X, case.lengths
    # hmmlearn counts the weights of a single state's mixture, whatever the number of states.
    miscounted = (3 - 1) * (2 - 1) if name.startswith("gmm") else 0
    assert model.n_free_parameters() == sum(peer._get_n_fit_scalars_per_param().values()) + (
        miscounted
    )
    aic = peer.aic(X, lengths) + 2.0 * miscounted
    bic = peer.bic(X, lengths) + np.log(N) * miscounted
    assert model.aic(X, lengths) == pytest.approx(aic, rel=1e-7)
    assert model.bic(X, lengths) == pytest.approx(bic, rel=1e-7)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("gaussian-diag", "st"),
        ("gaussian-full", "stm"),
        ("gaussian-spherical", "mc"),
        ("gaussian-tied", "tmc"),
        ("gaussian-diag", ""),
        ("categorical", "st"),
        ("categorical", "e"),
        ("poisson", "tl"),
        ("multinomial", "se"),
        ("gmm-diag", "stw"),
        ("gmm-full", "stmw"),
    ],
)
def test_what_params_leaves_stays_as_hmmlearn_leaves_it(name, params):
    case = hmmlearn_case(name, params=params)
    model = set_up(name, case.start, params=params).fit(case.X, case.lengths)
    assert_same_parameters(model, case.fitted, name)
    for letter in set(letters_of(name)) - set(params):
        if letter != "c":
            left = getattr(case.start, LETTERS[letter])
            np.testing.assert_allclose(getattr(model, LETTERS[letter]), left, rtol=1e-12)
    np.testing.assert_allclose(model.history_ * N, case.history, rtol=1e-10)


def test_covariances_alone_are_about_the_means_that_stay():
    """hmmlearn 0.3.3 divides by counts that it did not take; the answer is known by hand."""
    case = hmmlearn_case("gaussian-diag")
    model = set_up("gaussian-diag", case.start, n_iter=1, params="c").fit(case.X, case.lengths)
    before = HiddenMarkovModel.from_hmmlearn(case.start)
    shares = before.predict_proba(case.X, case.lengths)
    away = (case.X[:, None] - case.start.means_) ** 2
    expected = np.einsum("nk,nkd->kd", shares, away) / shares.sum(axis=0)[:, None]
    np.testing.assert_allclose(np.diagonal(model.covars_, axis1=1, axis2=2), expected, rtol=1e-10)
    np.testing.assert_allclose(model.means_, case.start.means_, rtol=1e-12)


def test_zeros_of_a_left_right_model_stay_as_in_hmmlearn():
    case = hmmlearn_case("gaussian-diag")
    start = copy.deepcopy(case.start)
    start.startprob_ = np.array([1.0, 0.0, 0.0])
    start.transmat_ = np.array([[0.9, 0.1, 0.0], [0.0, 0.8, 0.2], [0.0, 0.0, 1.0]])
    peer = copy.deepcopy(start).fit(case.X, case.lengths)
    model = set_up("gaussian-diag", start).fit(case.X, case.lengths)
    assert_same_parameters(model, peer, "gaussian-diag")
    assert (model.transmat_[start.transmat_ == 0.0] == 0.0).all()
    assert (model.startprob_[1:] == 0.0).all()


def test_priors_of_the_chain_are_those_of_hmmlearn():
    case = hmmlearn_case("poisson")
    priors = {"startprob_prior": 2.5, "transmat_prior": np.eye(3) * 20.0 + 1.5}
    start = copy.deepcopy(case.start)
    for prior, value in priors.items():
        setattr(start, prior, value)
    peer = copy.deepcopy(start).fit(case.X, case.lengths)
    model = set_up("poisson", start, **priors).fit(case.X, case.lengths)
    assert_same_parameters(model, peer, "poisson")
    sticky = set_up("poisson", start, startprob_prior=2.5, transmat_prior=1.5, stickiness=20.0)
    sticky.fit(case.X, case.lengths)
    np.testing.assert_allclose(sticky.transmat_, model.transmat_, rtol=1e-12)


# -- in and out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMISSIONS)
def test_models_come_back_from_hmmlearn_as_they_went(name):
    case = hmmlearn_case(name, n_iter=2)
    model = set_up(name, case.start, n_iter=2).fit(case.X, case.lengths)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        peer = model.to_hmmlearn()
        score = peer.score(case.X, case.lengths)
    assert score == pytest.approx(model.score(case.X, case.lengths), rel=1e-10)
    again = HiddenMarkovModel.from_hmmlearn(peer)
    assert_same_parameters(again, peer, name, rtol=1e-12, atol=0.0)
    np.testing.assert_allclose(
        again.log_prob(case.X, case.lengths), model.log_prob(case.X, case.lengths), rtol=1e-10
    )
    drawn, states = again.sample(5, random_state=0)
    assert drawn.shape == (5, case.X.shape[1])
    assert states.shape == (5,)


def test_the_number_of_trials_goes_both_ways():
    peer = hmm.MultinomialHMM(2, n_trials=10)
    peer.startprob_, peer.transmat_ = np.array([0.5, 0.5]), np.full((2, 2), 0.5)
    peer.emissionprob_ = np.array([[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]])
    model = HiddenMarkovModel.from_hmmlearn(peer)
    assert (model.sample(5, random_state=0)[0].sum(axis=1) == 10).all()
    assert model.to_hmmlearn().n_trials == 10
    model.transmat_ = np.eye(2)
    assert (model.sample(5, random_state=0)[0].sum(axis=1) == 10).all()


def test_settings_go_both_ways():
    case = hmmlearn_case("gaussian-diag", n_iter=2)
    peer = copy.deepcopy(case.fitted).set_params(
        n_iter=7, params="tm", init_params="c", algorithm="map", tol=-np.inf, transmat_prior=3.0
    )
    model = HiddenMarkovModel.from_hmmlearn(peer)
    assert (model.params, model.init_params, model.algorithm) == ("tm", "c", "map")
    assert (model.inference.max_iter, model.inference.tol) == (7, 0.0)
    assert model.min_covar == 0.0  # the priors of the case are flat
    again = model.to_hmmlearn()
    assert (again.n_iter, again.params, again.init_params) == (7, "tm", "c")
    np.testing.assert_array_equal(again.transmat_prior, np.full((3, 3), 3.0))
    model = HiddenMarkovModel(3, inference=EM(max_iter=2, tol=1e-4), random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two steps are not enough
        fit = model.fit(case.X, case.lengths).to_hmmlearn()
    assert (fit.n_iter, fit.params) == (2, "stmc")
    assert fit.tol == pytest.approx(1e-4 * N)


@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_what_came_from_hmmlearn_can_be_fitted_again(covariance_type):
    """Its priors kept variances off zero, and so does the floor here."""
    rows = np.repeat([[0.0, 1.0], [5.0, 2.0]], 10, axis=0)
    peer = hmm.GaussianHMM(2, covariance_type, n_iter=3, random_state=0).fit(rows)
    model = HiddenMarkovModel.from_hmmlearn(peer)
    assert model.min_covar is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three steps are not enough
        assert np.isfinite(model.fit(rows).score(rows))


@pytest.mark.parametrize("name", EMISSIONS)
def test_hmmlearns_own_recursions_take_the_same_steps(name):
    case = hmmlearn_case(name, n_iter=5)
    ours, theirs = (
        set_up(name, case.start)
        .set_params(inference=EM(max_iter=5, tol=0.0, engine=engine))
        .fit(case.X, case.lengths)
        for engine in ("numpy", "hmmlearn")
    )
    np.testing.assert_allclose(theirs.history_, ours.history_, rtol=1e-10)
    np.testing.assert_allclose(theirs.transmat_, ours.transmat_, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        (hmm.GaussianHMM(2), "no parameters yet"),
        (hmm.GMMHMM(2, 2, covariance_type="tied"), "tied"),
        (3, "int is none of GaussianHMM"),
    ],
)
def test_what_cannot_come_from_hmmlearn(peer, message):
    with pytest.raises((ValueError, TypeError), match=message):
        HiddenMarkovModel.from_hmmlearn(peer)


def test_what_hmmlearn_does_not_have():
    X = (np.random.default_rng(0).random((40, 2)) < 0.5).astype(float)
    model = HiddenMarkovModel(2, "bernoulli", random_state=0).fit(X)
    with pytest.raises(ValueError, match="hmmlearn has no bernoulli emissions"):
        model.to_hmmlearn()
