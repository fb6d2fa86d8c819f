"""Markov chains as users meet them: by every method, over text, labels and numbers."""

import itertools
import warnings

import networkx as nx
import numpy as np
import pytest
from scipy.special import gammaln
from sklearn.base import clone

import ppl_gen
from ppl_gen import EM, NUTS, SVI, Conjugate, MarkovChain
from ppl_gen.datasets import load_ecclesiastes

TRANSITION = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]])
WEATHER = np.array(["fog", "rain", "sun"])
PRIOR = 0.5


def walks(n=12, seed=0, transition=TRANSITION, low=3, high=12):
    rng = np.random.default_rng(seed)
    found = []
    for size in rng.integers(low, high, size=n):
        walk = [rng.integers(3)]
        for _ in range(size - 1):
            walk.append(rng.choice(3, p=transition[walk[-1]]))
        found.append(WEATHER[walk])
    return found


def counted(sequences):
    """Counts of the first states, and of the transitions, by two loops."""
    start, pairs = np.zeros(3), np.zeros((3, 3))
    for sequence in sequences:
        codes = np.searchsorted(WEATHER, sequence)
        start[codes[0]] += 1
        for i, j in itertools.pairwise(codes):
            pairs[i, j] += 1
    return start, pairs


# -- counts --------------------------------------------------------------------------------------


def test_em_is_counting():
    X = walks()
    start, pairs = counted(X)
    model = MarkovChain(pseudocount=PRIOR).fit(X)
    assert model.states_.tolist() == WEATHER.tolist()
    np.testing.assert_allclose(model.startprob_, (start + PRIOR) / (start.sum() + 3 * PRIOR))
    expected = (pairs + PRIOR) / (pairs + PRIOR).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.transmat_, expected, rtol=1e-14)
    assert model.converged_
    assert model.n_iter_ == 1
    assert model.lower_bound_ == pytest.approx(model.score(X) / sum(map(len, X)))
    by_hand = [
        np.log(model.startprob_[c[0]])
        + sum(np.log(model.transmat_[i, j]) for i, j in itertools.pairwise(c))
        for c in (np.searchsorted(WEATHER, sequence) for sequence in X)
    ]
    np.testing.assert_allclose(model.log_prob(X), by_hand, rtol=1e-12)
    assert model.score(X) == pytest.approx(sum(by_hand))
    assert model.bits_per_symbol(X) == pytest.approx(-sum(by_hand) / np.log(2.0) / sum(map(len, X)))
    assert model.perplexity(X) == pytest.approx(2.0 ** model.bits_per_symbol(X))


def test_order_zero_is_independent_states():
    model = MarkovChain(0, pseudocount=0).fit("abacab")
    np.testing.assert_allclose(model.forecast(2, "c")[0], [[1 / 2, 1 / 3, 1 / 6]] * 2)
    assert model.log_prob("ab")[0] == pytest.approx(np.log(1 / 2) + np.log(1 / 3))
    assert len(model.sample(length=7)[0]) == 7


def test_one_step_sequences_tell_of_the_start_alone():
    longer = MarkovChain().fit(["ab", "ba", "ba"])
    more = MarkovChain().fit(["ab", "ba", "ba", "a", "a"])
    np.testing.assert_array_equal(more.transmat_, longer.transmat_)
    np.testing.assert_allclose(more.startprob_, [4 / 7, 3 / 7])
    np.testing.assert_allclose(more.log_prob(["a", "b"]), np.log([4 / 7, 3 / 7]))


def test_flat_states_with_lengths():
    X = walks()
    lengths = [len(sequence) for sequence in X]
    one, other = MarkovChain().fit(np.concatenate(X), lengths), MarkovChain().fit(X)
    np.testing.assert_array_equal(one.transmat_, other.transmat_)
    np.testing.assert_array_equal(one.log_prob(np.concatenate(X), lengths), other.log_prob(X))
    assert one.score(np.concatenate(X), lengths) == other.score(X)


def test_weights_are_repetitions():
    X = walks(5)
    weighted = MarkovChain().fit(X, sample_weight=[2, 0, 1, 3, 1])
    repeated = MarkovChain().fit([X[0], X[0], X[2], X[3], X[3], X[3], X[4]])
    np.testing.assert_allclose(weighted.transmat_, repeated.transmat_, rtol=1e-14)
    np.testing.assert_allclose(weighted.startprob_, repeated.startprob_, rtol=1e-14)


def test_prior_counts_of_each_state():
    model = MarkovChain(pseudocount=[1.0, 0.0, 2.0], states=["a", "b", "c"]).fit("aaab")
    np.testing.assert_allclose(model.transmat_[0], [3 / 6, 1 / 6, 2 / 6])
    np.testing.assert_allclose(model.transmat_[2], [1 / 3, 0, 2 / 3])


def test_minibatches_come_to_the_same():
    X = walks(40)
    batches = MarkovChain(inference=EM(batch_size=40), random_state=0).fit(X)
    np.testing.assert_allclose(batches.transmat_, MarkovChain().fit(X).transmat_, rtol=1e-12)


def test_a_state_never_left():
    with pytest.warns(RuntimeWarning, match=r"1 state\(s\) \('c'\) are never left"):
        model = MarkovChain(pseudocount=0).fit("ababc")
    np.testing.assert_allclose(model.transmat_[2], 1 / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MarkovChain(pseudocount=0.1).fit("ababc")
        MarkovChain(pseudocount=0, smoothing="kneser-ney").fit("ababc")
    with pytest.warns(RuntimeWarning, match="never left"):
        MarkovChain(pseudocount=0, states="abx").fit("abab")


def test_what_never_happened_is_impossible_without_a_prior():
    model = MarkovChain(pseudocount=0).fit("abab")
    assert model.log_prob(["aa", "ab"]).tolist() == [-np.inf, 0.0]


# -- order and smoothing -------------------------------------------------------------------------


def test_order_two_by_hand():
    model = MarkovChain(2, pseudocount=0).fit("abcabd")
    # a | start, b | start a, then c or d after ab, each once.
    assert model.log_prob("abc")[0] == pytest.approx(np.log(0.5))
    np.testing.assert_allclose(model.forecast(1, "xab"[1:])[0, 0], [0, 0, 0.5, 0.5])
    # A context that did not occur knows nothing.
    np.testing.assert_allclose(model.forecast(1, "dd")[0, 0], 0.25)


@pytest.mark.parametrize("smoothing", ["jelinek-mercer", "kneser-ney"])
def test_smoothing_predicts_text_better(smoothing):
    """Chapters held out of a book: contexts of all lengths know more than those of any one."""
    book = load_ecclesiastes().frame
    states = sorted(set("".join(book["text"])))
    training = book["text"][book["chapter"] <= 9].tolist()
    held_out = book["text"][book["chapter"] > 9].tolist()
    bits = [
        MarkovChain(order, pseudocount=prior, states=states).fit(training).bits_per_symbol(held_out)
        for order in range(6)
        for prior in (0.05, 1.0)
    ]
    smoothed = MarkovChain(5, smoothing=smoothing, states=states, random_state=0).fit(training)
    # 2.33 against 2.79 bits, on 5,382 characters: the standard error of a mean is about 0.03.
    assert smoothed.bits_per_symbol(held_out) < min(bits) - 0.3
    (drawn,) = smoothed.sample(length=200, given="The words of ")
    assert np.isfinite(smoothed.log_prob([drawn, "".join(states)])).all()


def test_long_contexts_of_a_large_alphabet():
    text = "".join(chr(200 + code) for code in np.random.default_rng(0).integers(60, size=5000))
    model = MarkovChain(8, smoothing="kneser-ney").fit(text)
    assert np.isfinite(model.log_prob(text)).all()


# -- the posterior -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fits():
    X = walks(40)
    settings = {"pseudocount": PRIOR, "random_state": 0}
    return {
        "conjugate": MarkovChain(inference=Conjugate(draws=1000), **settings).fit(X),
        "nuts": MarkovChain(inference=NUTS(chains=2, warmup=300, draws=1000), **settings).fit(X),
        "svi": MarkovChain(inference=SVI(steps=3000), **settings).fit(X),
    }


@pytest.mark.parametrize("method", ["conjugate", "nuts", "svi"])
def test_the_posterior_is_dirichlet(fits, method):
    model = fits[method]
    start, pairs = counted(walks(40))
    exact = np.vstack([pairs, start]) + 1.0 + PRIOR
    total = exact.sum(axis=1, keepdims=True)
    mean = exact / total
    sd = np.sqrt(mean * (1 - mean) / (total + 1))
    draws = model.posterior_.draws
    found = np.concatenate(
        [draws["transition"], draws["start"][:, :, None]], axis=2
    )  # (chains, draws, 4, 3)
    # NUTS: four standard errors of a mean over some 1,000 effective draws. SVI: its guide is a
    # normal on the unconstrained scale, whose moments are off by a few hundredths of an sd.
    slack = 0.25 if method == "svi" else 0.13
    assert (np.abs(found.mean(axis=(0, 1)) - mean) < slack * sd).all()
    np.testing.assert_allclose(found.std(axis=(0, 1)), sd, rtol=0.2 if method == "svi" else 0.1)
    np.testing.assert_allclose(model.transmat_, found.mean(axis=(0, 1))[:3], rtol=0.02)


@pytest.mark.parametrize("method", ["conjugate", "nuts"])
def test_the_predictive_density_is_that_of_polya(fits, method):
    """Log of the mean over draws is the Dirichlet-multinomial's ratio of gamma functions."""
    start, pairs = counted(walks(40))
    new = [np.array(["sun", "rain", "rain", "fog", "fog", "sun"]), np.array(["fog"])]
    expected = []
    for sequence in new:
        more_start, more_pairs = counted([sequence])
        total = 0.0
        for n, more in zip([start, *pairs], [more_start, *more_pairs], strict=True):
            a = n + 1.0 + PRIOR
            total += gammaln(a.sum()) - gammaln((a + more).sum())
            total += (gammaln(a + more) - gammaln(a)).sum()
        expected.append(total)
    # 1,000 draws whose density has a coefficient of variation of about one half.
    np.testing.assert_allclose(fits[method].log_prob(new), expected, atol=0.06)


def test_pointwise_log_likelihood_is_of_whole_sequences(fits):
    model = fits["nuts"]
    found = model.posterior_.log_likelihood()["x"]  # (chains, draws, sequences)
    assert found.shape == (2, 1000, 40)
    starts, pairs = zip(*(counted([sequence]) for sequence in walks(40)), strict=True)
    draws = {name: np.log(value) for name, value in model.posterior_.draws.items()}
    by_hand = np.einsum("cdij,nij->cdn", draws["transition"], pairs) + np.einsum(
        "cdi,ni->cdn", draws["start"], starts
    )
    np.testing.assert_allclose(found, by_hand, rtol=1e-11)
    assert np.isfinite(model.posterior_.loo().elpd_loo)
    assert list(model.posterior_.idata.posterior.coords["state"].values) == list(WEATHER)


def test_functionals_average_over_draws(fits):
    model = fits["nuts"]
    matrices = model.parameters_["seen"]["1"][:, :9].reshape(-1, 3, 3)
    powers = np.linalg.matrix_power(matrices, 200)
    np.testing.assert_allclose(model.stationary_distribution(), powers.mean(axis=0)[0], rtol=1e-9)
    # The chance of a second step averages products, not factors.
    np.testing.assert_allclose(
        model.forecast(2, walks(40))[:, 1],
        (matrices @ matrices).mean(axis=0)[[np.searchsorted(WEATHER, s[-1]) for s in walks(40)]],
        rtol=1e-9,
    )
    np.testing.assert_allclose(model.forecast(2), model.forecast(2, walks(40)), rtol=1e-12)


def test_posterior_of_order_two():
    X = walks(30)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="SVI: ")  # so few steps cannot converge
        model = MarkovChain(2, inference=SVI(steps=50), random_state=0).fit(X)
    assert np.isfinite(model.log_prob(X)).all()
    posterior = model.posterior_.idata.posterior
    assert posterior["transition"].dims == ("chain", "draw", "context", "state")
    assert "rain sun" in posterior["context"].values
    assert set(posterior["start_context"].values) <= {"", *WEATHER}


# -- what comes next -----------------------------------------------------------------------------


def test_draws_have_the_kind_of_the_data():
    text = MarkovChain(random_state=0).fit(["hello", "hi"])
    found = text.sample(5, random_state=1)
    assert all(isinstance(drawn, str) for drawn in found)
    assert {len(drawn) for drawn in found} <= {2, 5}
    assert text.sample(5, random_state=1) == found
    numbers = MarkovChain().fit([[3, 1, 3, 3], [1, 3]]).sample(2, random_state=0, length=4)
    assert [drawn.dtype.kind for drawn in numbers] == ["i", "i"]
    assert [len(drawn) for drawn in numbers] == [4, 4]
    words = MarkovChain().fit([["the", "cat"], ["the", "dog"]]).sample(2, length=[1, 3])
    assert [len(drawn) for drawn in words] == [1, 3]
    assert words[0].dtype.kind == "U"
    pairs = MarkovChain().fit([[(0, 1), (1, 0), (0, 1)]])
    assert pairs.sample(random_state=0, length=3)[0].tolist()[0] in [(0, 1), (1, 0)]


def test_draws_go_on_from_what_is_given():
    model = MarkovChain(2, pseudocount=0).fit("abcabcabc")
    assert model.sample(2, length=4, given="ab") == ["cabc", "cabc"]
    assert model.sample(length=1, given="bcabca") == ["b"]


def test_frequencies_of_draws_follow_the_chain():
    model = MarkovChain().fit(walks(200))
    drawn = model.sample(3000, random_state=0, length=10)
    found = MarkovChain(pseudocount=0).fit(drawn)
    # 27,000 transitions: four standard errors of a share of about 9,000.
    np.testing.assert_allclose(found.transmat_, model.transmat_, atol=0.02)
    np.testing.assert_allclose(found.startprob_, model.startprob_, atol=0.04)


def test_forecasts_are_powers_and_tend_to_stationarity():
    model = MarkovChain().fit(walks(50))
    found = model.forecast(60, [["fog"], ["rain", "sun"]])
    for step in (1, 2, 5):
        power = np.linalg.matrix_power(model.transmat_, step)
        np.testing.assert_allclose(found[:, step - 1], power[[0, 2]], rtol=1e-12)
    np.testing.assert_allclose(found[:, -1], [model.stationary_distribution()] * 2, rtol=1e-9)
    np.testing.assert_allclose(found.sum(axis=2), 1.0, rtol=1e-12)


# -- the long run --------------------------------------------------------------------------------


def ruin():
    """A gambler who plays from 0 to 3, fitted to games of which half are won."""
    return MarkovChain(pseudocount=0).fit(
        [[1, 0, 0], [1, 2, 1, 0, 0], [2, 1, 2, 3, 3], [2, 3, 3], [1, 2, 3], [2, 1, 0]]
    )


def test_gamblers_ruin():
    model = ruin()
    np.testing.assert_allclose(model.transmat_[1], [0.5, 0, 0.5, 0])
    assert model.recurrent_classes() == [[0], [3]]
    np.testing.assert_allclose(
        model.absorption_probabilities(), [[1, 0], [2 / 3, 1 / 3], [1 / 3, 2 / 3], [0, 1]]
    )
    np.testing.assert_allclose(model.hitting_times([0, 3]), [0, 2, 2, 0])
    assert model.hitting_times(0).tolist() == [0, np.inf, np.inf, np.inf]
    assert not model.is_irreducible()
    with pytest.raises(ValueError, match=r"MarkovChain.stationary_distribution: .*\[0\], \[3\]"):
        model.stationary_distribution()
    with pytest.raises(ValueError, match=r"\[9\] is none of the states"):
        model.hitting_times(9)
    with pytest.raises(ValueError, match="nothing is none"):
        model.hitting_times([])


def test_period_and_graph():
    model = MarkovChain(pseudocount=0).fit("abcabcab")
    assert model.period() == 3
    assert model.is_irreducible()
    graph = model.graph()
    assert isinstance(graph, nx.DiGraph)
    assert sorted(graph.edges(data="probability")) == [
        ("a", "b", 1.0),
        ("b", "c", 1.0),
        ("c", "a", 1.0),
    ]


# -- keeping -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        MarkovChain(2, smoothing="jelinek-mercer", random_state=0),
        MarkovChain(1, pseudocount=[1.0, 2.0, 0.5, 1.0], states="abcd"),
        MarkovChain(0),
    ],
    ids=["smoothed", "prior", "independent"],
)
def test_saved_and_loaded(model, tmp_path):
    texts = ["abcab", "cab", "bbca"]
    model = clone(model).fit(texts)
    model.save(tmp_path / "chain")
    loaded = ppl_gen.load(tmp_path / "chain")
    np.testing.assert_array_equal(loaded.log_prob(texts), model.log_prob(texts))
    assert loaded.states_.tolist() == model.states_.tolist()
    assert loaded.sample(3, random_state=0) == model.sample(3, random_state=0)
    np.testing.assert_array_equal(loaded.forecast(2), model.forecast(2))
    assert loaded.get_params().keys() == model.get_params().keys()
    assert loaded.posterior_.draws.keys() == model.posterior_.draws.keys()


def test_models_too_large_for_a_table_are_saved(tmp_path):
    words = np.random.default_rng(0).zipf(1.3, size=20_000) % 5000
    for smoothing in (None, "kneser-ney"):
        model = MarkovChain(3, smoothing=smoothing).fit(words)
        model.save(tmp_path / "words", overwrite=True)
        loaded = ppl_gen.load(tmp_path / "words")
        np.testing.assert_array_equal(loaded.log_prob(words), model.log_prob(words))
        assert loaded.posterior_.is_point
        with pytest.raises(ValueError, match=r"to make a program with|contexts for a program"):
            model.program()


@pytest.mark.parametrize("method", ["conjugate", "nuts"])
def test_draws_are_saved(fits, method, tmp_path):
    model = fits[method]
    model.save(tmp_path / "chain")
    loaded = ppl_gen.load(tmp_path / "chain")
    np.testing.assert_allclose(loaded.log_prob(walks()), model.log_prob(walks()))
    np.testing.assert_allclose(
        loaded.posterior_.log_likelihood()["x"], model.posterior_.log_likelihood()["x"]
    )


def test_exact_draws_are_no_chains(fits):
    posterior = fits["conjugate"].posterior_
    assert posterior.shape == (1, 1000)
    assert not posterior.is_chains
    assert posterior.verdict.ok
    assert np.isfinite(posterior.loo().elpd_loo)


def test_a_point_fit_has_a_posterior_of_one_draw():
    model = MarkovChain().fit(walks())
    assert model.posterior_.is_point
    np.testing.assert_allclose(model.posterior_.draws["transition"][0, 0], model.transmat_)
    found = model.posterior_.log_likelihood()["x"]
    np.testing.assert_allclose(found[0, 0], model.log_prob(walks()), rtol=1e-12)
