"""Hidden Markov models fitted by SVI and NUTS: one fit each, and what follows from its draws."""

import warnings

import numpy as np
import pytest
from all_paths import enumerate_paths
from hidden_markov_cases import EMISSIONS, MASKS, model_of, rows_of, with_holes
from scipy import stats
from scipy.special import logsumexp

import ppl_gen
from ppl_gen import EM, NUTS, SVI, HiddenMarkovModel, engines

LENGTHS = [45, 1, 34]
#: Emissions whose programs take long to compile, and have little of their own here.
COMPILED_LONG = ("gaussian-full", "gaussian-tied", "gaussian-spherical", "gmm", "gmm-full")


def series():
    """Two states far apart, in sequences of unequal lengths; a step and a whole one are missing."""
    rng = np.random.default_rng(0)
    states = [0]
    for _ in range(79):
        states.append(states[-1] if rng.random() < 0.85 else 1 - states[-1])
    x = rng.normal(size=(80, 2)) + 5.0 * np.array(states)[:, None]
    x[7] = np.nan
    x[20, 1] = np.nan
    return x, np.array(states)


METHODS = {"nuts": NUTS(chains=2, warmup=150, draws=100), "svi": SVI(steps=400)}


@pytest.fixture(scope="module", params=["nuts", pytest.param("svi", marks=pytest.mark.slow)])
def fitted(request):
    x, _ = series()
    with warnings.catch_warnings():
        # Few draws have every reason to be warned of.
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        model = HiddenMarkovModel(2, inference=METHODS[request.param], random_state=0)
        return model.fit(x, LENGTHS)


def draws_of(model):
    """Parameters by draw, with SciPy's densities of the rows: (S, N, K)."""
    x, _ = series()
    parameters, family = model.parameters_, model.structure_.family
    for s in range(len(parameters["start"])):
        emissions = {name: value[s] for name, value in parameters["family"].items()}
        variances = family.covariances(emissions)
        each = stats.norm.logpdf(x[:, None, :], emissions["mean"], np.sqrt(variances))
        logs = np.where(np.isnan(x)[:, None, :], 0.0, each).sum(axis=-1)
        yield parameters["start"][s], parameters["transition"][s], logs


def test_the_posterior_is_where_em_finds_its_mode(fitted):
    x, states = series()
    order = np.argsort(fitted.means_[:, 0])
    mode = HiddenMarkovModel(2, random_state=0, inference=EM(max_iter=100)).fit(x, LENGTHS)
    theirs = np.argsort(mode.means_[:, 0])
    # Means have standard errors of .16; five of them.
    np.testing.assert_allclose(fitted.means_[order], mode.means_[theirs], atol=0.8)
    np.testing.assert_allclose(
        fitted.transmat_[np.ix_(order, order)], mode.transmat_[np.ix_(theirs, theirs)], atol=0.25
    )
    found = np.argsort(order)[fitted.predict(x, LENGTHS)]
    assert (found == states).mean() > 0.95
    assert fitted.posterior_.verdict is not None


def test_draws_are_relabelled(fitted):
    """Each draw has its states in one order, whatever the chains were in."""
    means = fitted.parameters_["family"]["mean"][:, :, 0]
    assert (np.sign(means[:, 0] - means[:, 1]) == np.sign(means[0, 0] - means[0, 1])).all()


def test_densities_average_over_draws(fitted):
    x, _ = series()
    short = np.split(x, np.cumsum(LENGTHS)[:-1])[0][4:10]
    terms = [
        enumerate_paths(start, transition, logs[4:10]).evidence
        for start, transition, logs in draws_of(fitted)
    ]
    expected = logsumexp(terms) - np.log(len(terms))
    assert fitted.log_prob([short])[0] == pytest.approx(expected, abs=1e-9)


def test_probabilities_of_states_average_over_draws(fitted):
    """Draws are given the sequences that were fitted; a new one tells which are likelier."""
    x, _ = series()
    whole = fitted.predict_proba(x, LENGTHS)
    last = np.zeros((34, 2))
    for s in range(fitted._n_draws):
        draw = fitted._draw(s)
        last += fitted.structure_.marginals(draw, fitted_sequences(x))[46:] / fitted._n_draws
    np.testing.assert_allclose(whole[46:], last, atol=1e-10)
    short = x[4:10]
    paths = [enumerate_paths(a, t, logs[4:10]) for a, t, logs in draws_of(fitted)]
    weights = np.exp([p.evidence for p in paths])
    expected = sum(w * p.marginals for w, p in zip(weights / weights.sum(), paths, strict=True))
    np.testing.assert_allclose(fitted.predict_proba(short), expected, atol=1e-9)
    np.testing.assert_allclose(
        ppl_gen.classify(fitted.posterior_, "z")[2, :34], whole[46:], atol=1e-8
    )


def fitted_sequences(x):
    from ppl_gen.sequences import Sequences

    return Sequences(x, np.array(LENGTHS))


def test_the_path_is_viterbi_on_expected_logarithms(fitted):
    x, _ = series()
    short = x[4:9]
    logs = np.mean([logs[4:9] for _, _, logs in draws_of(fitted)], axis=0)
    start = np.exp(np.log(fitted.parameters_["start"]).mean(axis=0))
    transition = np.exp(np.log(fitted.parameters_["transition"]).mean(axis=0))
    score, path = enumerate_paths(start, transition, logs).best
    value, states = fitted.decode(short)
    assert value == pytest.approx(score, abs=1e-9)
    np.testing.assert_array_equal(states, path)
    value, states = fitted.decode(short, algorithm="map")
    shares = fitted.predict_proba(short)
    np.testing.assert_array_equal(states, shares.argmax(axis=1))
    assert value == pytest.approx(shares.max(axis=1).sum())


def test_paths_are_drawn_under_all_draws(fitted):
    x, _ = series()
    paths = np.stack(fitted.sample_states(x, LENGTHS, n_draws=400, random_state=0))
    shares = (paths[:, :, None] == np.arange(2)).mean(axis=0)
    # Five standard errors of a share of 400 draws.
    np.testing.assert_allclose(shares, fitted.predict_proba(x, LENGTHS), atol=0.125)


def test_what_is_missing_is_filled_and_drawn(fitted):
    x, _ = series()
    filled = fitted.impute(x, LENGTHS)
    known = ~np.isnan(x)
    np.testing.assert_array_equal(filled[known], x[known])
    draws = np.stack(fitted.impute(x, LENGTHS, n_draws=300, random_state=0))
    error = draws.std(axis=0)[~known] / np.sqrt(300)
    assert (np.abs(draws.mean(axis=0) - filled)[~known] < 5.0 * error).all()
    drawn, states = fitted.sample(500, random_state=0)
    assert drawn.shape == (500, 2)
    away = drawn - fitted.means_[states]
    assert np.abs(away.mean(axis=0)).max() < 0.5


def test_a_saved_bayesian_fit_is_the_same(fitted, tmp_path):
    x, _ = series()
    fitted.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(
        loaded.predict_proba(x, LENGTHS), fitted.predict_proba(x, LENGTHS)
    )
    np.testing.assert_array_equal(loaded.log_prob(x, LENGTHS), fitted.log_prob(x, LENGTHS))
    np.testing.assert_array_equal(loaded.predict(x, LENGTHS), fitted.predict(x, LENGTHS))


@pytest.mark.parametrize(
    "emission",
    [pytest.param(e, marks=pytest.mark.slow if e in COMPILED_LONG else []) for e in EMISSIONS],
)
def test_programs_of_all_emissions_have_the_density_of_the_model(emission):
    """By the chain in logarithms on JAX, padded; and by the scaled one on NumPy."""
    rows = with_holes(rows_of(emission), emission)
    model = model_of(emission, inference=EM(max_iter=3, tol=0.0)).fit(rows, [35, 1, 24])
    terms = model.posterior_.log_likelihood()["x"]
    np.testing.assert_allclose(terms.ravel(), model.log_prob(rows, [35, 1, 24]), rtol=1e-9)
    padded = ppl_gen.classify(model.posterior_, "z")
    np.testing.assert_allclose(padded[0], model.predict_proba(rows, [35, 1, 24])[:35], atol=1e-9)


def test_programs_draw_what_may_happen():
    x, _ = series()
    mask = MASKS["left-right"].astype(bool)
    model = HiddenMarkovModel(3, transmat_mask=mask, random_state=0).fit(x, LENGTHS)
    pyro = engines.get("pyro")
    for seed in range(5):
        trace = pyro.trace(model.program().pyro, (), {"n_sequences": 2, "length": 4}, seed=seed)
        transition = np.asarray(trace["transition"].value)
        assert (transition[~mask] == 0.0).all()
        np.testing.assert_allclose(transition.sum(axis=1), 1.0)
        assert tuple(trace["x"].value.shape) == (2, 4, 2)


@pytest.mark.slow
@pytest.mark.parametrize("method", [NUTS(chains=1, warmup=15, draws=10), SVI(steps=40)], ids=repr)
def test_what_may_not_happen_is_never_drawn(method):
    x, _ = series()
    mask = MASKS["left-right"].astype(bool)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        model = HiddenMarkovModel(
            3, transmat_mask=mask, stickiness=2.0, inference=method, random_state=0
        ).fit(x, LENGTHS)
    transitions = model.parameters_["transition"]
    assert (transitions[:, ~mask] == 0.0).all()
    assert (transitions[:, mask] > 0.0).all()
    np.testing.assert_allclose(transitions.sum(axis=2), 1.0)
    assert (np.diff(model.predict(x[:45])) >= 0).all()
    assert model.posterior_.log_likelihood()["x"].shape[-1] == 3


@pytest.mark.slow
def test_what_is_given_is_not_drawn():
    """With the chain given and all emissions learned, only these are the posterior's."""
    x, _ = series()
    model = HiddenMarkovModel(
        2,
        init_params="mc",
        params="mc",
        inference=NUTS(chains=1, warmup=15, draws=10),
        random_state=0,
    )
    model.startprob_, model.transmat_ = [0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        model.fit(x, LENGTHS)
    np.testing.assert_allclose(model.transmat_, [[0.9, 0.1], [0.2, 0.8]], rtol=1e-14)
    assert np.ptp(model.parameters_["family"]["mean"], axis=0).min() > 0.0
    assert np.isfinite(model.log_prob(x, LENGTHS)).all()
