"""The transformer as an estimator: what goes in, what comes out, and by what manners."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

import ppl_gen
from ppl_gen import (
    BayesClassifier,
    CausalTransformer,
    MaximumLikelihood,
    RegexTokeniser,
    Training,
)
from ppl_gen.evaluate.code_length import bits_per_token, code_length

WORDS = ["abab", "ab", "ababab", "bb", "abb", "babab"] * 4


def small(*, epochs=2, learning_rate=0.01, batch_size=8, **settings):
    """A network that is made in no time."""
    method = MaximumLikelihood(epochs, learning_rate, batch_size)
    given = {"n_layers": 1, "n_heads": 2, "width": 8, "dropout": 0.0, "inference": method}
    return CausalTransformer(**given | {"random_state": 0} | settings)


@pytest.fixture(scope="module")
def words():
    return small(dtype="float64").fit(WORDS)


@pytest.fixture(scope="module")
def long():
    """Of one long text, in windows of eight."""
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("abc"), size=300))
    return small(context_length=8, dtype="float64").fit(text), text


# -- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "lengths", "symbols"),
    [
        ("abab", None, ["a", "b"]),
        (["ab", "b"], None, ["a", "b"]),
        ([[1, 0], [1]], None, [0, 1]),
        ([1, 0, 1], [2, 1], [0, 1]),
        (np.array([[1, 0], [1, 1]]), None, [0, 1]),
        ([["all", "is"], ["vanity"]], None, ["all", "is", "vanity"]),
        (pd.Series(["x", "y"]), None, ["x", "y"]),
        ([[True, False]], None, [False, True]),
        ("aaaa", None, ["a"]),
        ("a", None, ["a"]),
    ],
)
def test_any_discrete_sequences_are_fitted_scored_and_drawn(X, lengths, symbols):
    model = small(epochs=1).fit(X, lengths)
    assert model.states_.tolist() == symbols
    found = model.log_prob(X, lengths)
    assert (found < 0.0).all()
    assert model.score(X, lengths) == pytest.approx(found.sum())
    (drawn,) = model.sample(random_state=0, length=5)
    assert len(drawn) == 5
    text = isinstance(X, str) or (isinstance(X, list) and isinstance(X[0], str))
    assert isinstance(drawn, str if text else np.ndarray)
    assert set(np.asarray(list(drawn)).tolist()) <= set(symbols)


def test_the_density_sums_to_one_over_strings(words):
    """Of up to 8 letters, twice the context, and of those that are longer, by their beginnings."""
    model = small(context_length=4, dtype="float64", epochs=5).fit(WORDS)
    total = 0.0
    for length in range(9):
        strings = ["".join(way) for way in itertools.product("ab", repeat=length)]
        total += np.exp(model.log_prob(strings)).sum()
    longer = [as_rows("".join(way), 2, ended=False) for way in itertools.product("ab", repeat=9)]
    log_prob = model.structure_.module.log_prob
    total += sum(np.exp(log_prob(row).item()) for row in longer)
    assert total == pytest.approx(1.0, abs=1e-9)


def as_rows(string, end, *, ended=True):
    codes = [~end, *("ab".index(letter) for letter in string)] + ([end] if ended else [])
    return torch.tensor([codes])


def test_of_a_long_text_the_windows_are_scored_as_the_network_scores_them(long):
    model, text = long
    codes = ["abc".index(letter) for letter in text]
    row = torch.tensor([[~3, *codes, 3]])
    with torch.no_grad():
        expected = model.structure_.module.log_prob(row).item()
    assert model.log_prob(text)[0] == pytest.approx(expected, rel=1e-12)
    assert model.posterior_.kwargs["x"].shape == (38, 9)


def test_a_sequence_alone_has_the_log_prob_that_it_has_among_others(long):
    model, text = long
    strings = ["a", text, "abc" * 3, text[:8], text[:7], "cc"]
    together = model.log_prob(strings)
    alone = [model.log_prob([string])[0] for string in strings]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_perplexity_and_bits_count_ends(words):
    log_prob = words.log_prob(WORDS)
    tokens = sum(len(word) + 1 for word in WORDS)
    assert words.bits_per_symbol(WORDS) == pytest.approx(-log_prob.sum() / tokens / np.log(2))
    assert words.perplexity(WORDS) == pytest.approx(np.exp(-log_prob.sum() / tokens))


@pytest.mark.parametrize("tokeniser", [None, "character", "byte"])
def test_empty_sequences_are_scored(tokeniser):
    model = small(tokeniser=tokeniser, dtype="float64").fit(WORDS)
    end = len(model.states_)
    with torch.no_grad():
        expected = model.structure_.module.log_prob(torch.tensor([[~end, end]])).item()
    assert model.log_prob("")[0] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(
        model.log_prob(["ab", "", "b"]), [*model.log_prob("ab"), expected, *model.log_prob("b")]
    )
    # One prediction, of the end.
    assert model.perplexity([""]) == pytest.approx(np.exp(-expected))
    assert model.bits_per_symbol(["", ""]) == pytest.approx(-expected / np.log(2.0))
    np.testing.assert_allclose(code_length(model, ["", ""]), -expected / np.log(2.0))
    with pytest.raises(ValueError, match="no tokens"):
        bits_per_token(model, [""])
    assert model.sample(5, random_state=0, given="") == model.sample(5, random_state=0)
    with pytest.raises(ValueError, match="no sequence"):
        model.log_prob([])


def test_all_that_is_drawn_is_scored(words):
    drawn = words.sample(300, random_state=0)
    assert "" in drawn
    assert np.isfinite(words.log_prob(drawn)).all()
    share = np.mean([text == "" for text in drawn])
    expected = np.exp(words.log_prob("")[0])
    # Five standard errors.
    assert abs(share - expected) < 5.0 * np.sqrt(expected * (1.0 - expected) / 300.0)


@pytest.mark.parametrize("X", [[[1, 0], [1]], [["all", "is"], ["vanity"]]], ids=["codes", "words"])
def test_empty_sequences_of_tokens_are_scored(X):
    model = small(epochs=1).fit(X)
    (empty,) = model.log_prob([[]])
    for others in ([X[0], []], [X[0], np.array([])], [np.array(X[0]), model.states_[:0]]):
        assert model.log_prob(others)[1] == pytest.approx(empty)
    assert model.log_prob(X[0], lengths=[2, 0])[1] == pytest.approx(empty)
    for nothing in ([], np.array([])):
        (drawn,) = model.sample(given=nothing, length=3, random_state=0)
        np.testing.assert_array_equal(drawn, model.sample(length=3, random_state=0)[0])
    with pytest.raises(ValueError, match="length -1"):
        model.log_prob(X[0], lengths=[3, -1])


# -- tokenisers -------------------------------------------------------------------------------


def test_bytes_know_every_text():
    model = small(tokeniser="byte").fit(["vanity of vanities", "all is vanity"])
    assert len(model.states_) == 256
    assert np.isfinite(model.log_prob("naïve 🙂")).all()
    drawn = model.sample(3, random_state=0, given="né", length=6)
    assert all(isinstance(text, str) for text in drawn)


def test_molecules():
    molecules = ["CCO", "CC(=O)O", "BrCCl", "C[C@H](N)C"]
    model = small(tokeniser="smiles").fit(molecules)
    assert "Br" in model.states_
    assert "[C@H]" in model.states_
    (drawn,) = model.sample(given="Br", length=4, random_state=1)
    assert len(RegexTokeniser().split(drawn)) == 4
    with pytest.raises(ValueError, match=r"does not match 'Xe'"):
        model.log_prob("CXe")


def test_words_by_a_pattern_come_back_with_the_model(tmp_path):
    model = small(tokeniser=RegexTokeniser(r"\w+|\W"))
    model.fit(["all is vanity", "all is new"])
    model.save(tmp_path / "model")
    back = ppl_gen.load(tmp_path / "model")
    assert back.tokeniser.pattern == r"\w+|\W"
    assert back.sample(2, random_state=0) == model.sample(2, random_state=0)


def test_characters_are_those_of_strings():
    plain, named = small(), small(tokeniser="character")
    X = ["ab", "ba"]
    np.testing.assert_array_equal(plain.fit(X).log_prob(X), named.fit(X).log_prob(X))
    assert plain.sample(2, random_state=0) == named.sample(2, random_state=0)
    with pytest.raises(TypeError, match="set tokeniser=None"):
        named.fit([[1, 0]])


# -- learning ---------------------------------------------------------------------------------


def test_what_follows_is_learned():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(["ab", "cd"], size=n)) for n in rng.integers(1, 6, size=60)]
    model = small(epochs=20, width=16, learning_rate=0.03).fit(words)
    # A free choice of three every second letter: two words, or the end.
    assert model.perplexity(words) < 1.9
    drawn = "".join(model.sample(20, random_state=0, top_p=0.9))
    assert set(drawn[::2]) <= set("ac")
    assert model.sample(given="abc", top_k=1, length=1) == ["d"]


def test_weights_count_sequences():
    X = ["ab", "ba"]
    model = small(epochs=40, learning_rate=0.03).fit(X * 4, sample_weight=[1.0, 0.0] * 4)
    first, second = model.log_prob(X)
    assert first > second + 2.0
    with pytest.raises(ValueError, match="non-zero"):
        small().fit(X, sample_weight=[0.0, 0.0])


def test_sequences_of_weight_zero_are_left_out():
    X, labels = ["ab", "zzzzzzzz", "ba", "aab"], ["x", "y", "x", "w"]
    weights = np.array([1.0, 0.0, 2.0, 1.0])
    rows = np.flatnonzero(weights)
    kept, own = [X[row] for row in rows], [labels[row] for row in rows]
    weighed = small().fit(X, context=labels, sample_weight=weights)
    expected = small().fit(kept, context=own, sample_weight=weights[rows])
    assert weighed.states_.tolist() == ["a", "b"]
    assert weighed.structure_.facts == expected.structure_.facts
    np.testing.assert_array_equal(
        weighed.log_prob(kept, context=own), expected.log_prob(kept, context=own)
    )
    with pytest.raises(ValueError, match="'y'"):
        weighed.log_prob("ab", context="y")
    with pytest.raises(ValueError, match="inconsistent"):
        small().fit(X, context=labels[1:], sample_weight=weights)


def test_densities_given_a_label():
    X, labels = ["aaaa", "bbbb"] * 8, ["first", "second"] * 8
    model = small(epochs=40, learning_rate=0.03).fit(X, context=labels)
    as_first = model.log_prob(["aaaa", "bbbb"], context="first")
    assert as_first[0] > as_first[1] + 3.0
    own = model.log_prob(["aaaa", "bbbb"], context=["first", "second"])
    np.testing.assert_allclose(model.log_prob(X, context=labels), np.tile(own, 8), rtol=1e-5)
    assert model.sample(context="second", top_k=1) == ["bbbb"]
    with pytest.raises(ValueError, match="context is missing"):
        model.log_prob("aa")
    with pytest.raises(ValueError, match="third"):
        model.log_prob("aa", context="third")


def test_by_default_a_share_of_the_windows_is_kept_to_stop_by():
    model = CausalTransformer(1, 1, 4, dropout=0.0, random_state=0)
    assert "validation_loss" in model.fit(WORDS).history_
    assert "validation_loss" not in model.fit(WORDS[:3]).history_
    model.set_params(inference=MaximumLikelihood(epochs=1))
    assert model.fit(WORDS).n_epochs_ == 1


def test_little_text_is_read_in_smaller_batches():
    """As many windows as make 64 steps an epoch, between 512 and 2,048 tokens."""
    sizes = [
        CausalTransformer()._everyday(n_rows, 256).training.batch_size
        for n_rows in (10, 150, 300, 512, 100_000)
    ]
    assert sizes == [2, 2, 4, 8, 8]
    assert CausalTransformer()._everyday(10, 4096).training.batch_size == 1


@pytest.mark.parametrize("shared", [False, True])
def test_classes_by_bayes_rule(shared, tmp_path):
    rng = np.random.default_rng(0)
    X = ["".join(rng.choice(list("abc"), p=p, size=6)) for p in ([0.6, 0.3, 0.1],) * 20]
    X += ["".join(rng.choice(list("abd"), p=p, size=6)) for p in ([0.2, 0.2, 0.6],) * 20]
    y = ["abc"] * 20 + ["abd"] * 20
    classifier = BayesClassifier(small(epochs=20), shared=shared).fit(X, y)
    assert classifier.score(X, y) > 0.9
    drawn, labels = classifier.sample(6, random_state=0)
    assert len(drawn) == len(labels) == 6
    # Each class knows the letters of all.
    assert np.isfinite(classifier.log_prob(["abcd"])).all()
    classifier.save(tmp_path / "classifier")
    back = ppl_gen.load(tmp_path / "classifier")
    np.testing.assert_array_equal(back.predict_proba(X), classifier.predict_proba(X))


# -- drawing ----------------------------------------------------------------------------------


def test_lengths_and_prompts(words):
    drawn = words.sample(3, random_state=0, length=[1, 20, 3], given="ab" * 6)
    assert [len(text) for text in drawn] == [1, 20, 3]
    ended = words.sample(50, random_state=0)
    assert max(map(len, ended)) <= max(map(len, WORDS))
    assert len({len(text) for text in ended}) > 2


def test_one_seed_draws_the_same_in_any_number_of_chunks(words):
    first = words.sample(5, random_state=3, temperature=0.7)
    assert words.sample(5, random_state=3, temperature=0.7) == first
    assert words.sample(5, random_state=4, temperature=0.7) != first
    assert len(words.sample(130, random_state=3)) == 130


def test_truncated_draws_have_the_renormalised_shares(words):
    """First letters at a temperature, of the likeliest two of three (the end is one)."""
    shares = np.exp(words.log_prob(["a" + s for s in ("a", "b")]))  # of some size at all
    assert (shares > 0).all()
    n, temperature = 3000, 0.5
    starts = [as_rows(letter, 2, ended=False) for letter in "ab"] + [as_rows("", 2)]
    log_prob = words.structure_.module.log_prob
    logits = np.array([log_prob(row).item() for row in starts]) / temperature
    kept = np.argsort(-logits)[:2]
    expected = np.exp(logits[kept]) / np.exp(logits[kept]).sum()
    drawn = words.sample(n, random_state=0, temperature=temperature, top_k=2)
    firsts = np.array(["ab".find(text[0]) if text else 2 for text in drawn])
    counts = np.array([(firsts == k).sum() for k in kept])
    assert counts.sum() == n
    # Five standard errors.
    assert abs(counts[0] / n - expected[0]) < 5 * np.sqrt(expected.prod() / n)


# -- keeping ----------------------------------------------------------------------------------


def test_save_and_load_are_identical(words, tmp_path):
    words.save(tmp_path / "model")
    back = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(back.log_prob(WORDS), words.log_prob(WORDS))
    assert back.sample(4, random_state=1) == words.sample(4, random_state=1)
    assert back.sample(4, random_state=1, length=30, top_p=0.8) == words.sample(
        4, random_state=1, length=30, top_p=0.8
    )
    assert back.get_params()["context_length"] == words.context_length


def test_one_seed_gives_the_same_fit():
    fits = [small(dropout=0.2).fit(WORDS).log_prob(WORDS) for _ in range(2)]
    np.testing.assert_array_equal(*fits)


def test_a_checkpoint_goes_on(tmp_path):
    def trained(epochs, path):
        training = Training(epochs=epochs, batch_size=8, checkpoint=path)
        return small(inference=MaximumLikelihood(training=training), dropout=0.1).fit(WORDS)

    trained(1, tmp_path / "a")
    whole, resumed = trained(3, tmp_path / "b"), trained(3, tmp_path / "a")
    np.testing.assert_array_equal(resumed.log_prob(WORDS), whole.log_prob(WORDS))


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context_length": 1}, "context_length is 1; expected a whole number, at least 2"),
        ({"width": 10, "n_heads": 4}, "width is 10, .* multiple of 8"),
        ({"width": 6, "n_heads": 2}, "multiple of 4"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"n_heads": 2.0}, "n_heads is 2.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"tokeniser": "word"}, "tokeniser is 'word'"),
        ({"inference": "em"}, "'em'"),
        ({"states": ["a"]}, "'b' .* is none of the 1 states"),
        ({"states": ["a", "a"]}, "'a' twice"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings).fit(["ab"])


@pytest.mark.parametrize(
    ("X", "lengths", "error", "message"),
    [
        ("", None, ValueError, "length 0"),
        ([], None, ValueError, "no sequence"),
        (["ab", ""], None, ValueError, "sequence 1 has length 0"),
        (["ab", 1], None, TypeError, "sequence 1 is a int"),
        ([[1, "a"]], None, TypeError, "mixes states"),
        ([[1, None]], None, ValueError, "missing"),
        ([1, 0, 1], [2, 2], ValueError, "lengths sum to 4"),
        (3, None, TypeError, "X is a int"),
        (np.zeros((2, 2, 2)), None, ValueError, "shape"),
    ],
)
def test_data_that_are_refused(X, lengths, error, message):
    with pytest.raises(error, match=rf"CausalTransformer\.fit: .*{message}"):
        small().fit(X, lengths)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0; expected a number above 0"),
        ({"temperature": 0}, "top_k=1 takes the likeliest"),
        ({"temperature": np.nan}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"given": "abc"}, "'c' .* is none of the 2 states"),
        ({"given": ["ab", "ab"]}, "given has 2 sequences; expected one"),
        ({"length": 0}, "length is 0"),
        ({"length": [1, 2]}, "length is"),
        ({"n_samples": 0}, "n_samples is 0"),
        ({"context": "first"}, "fitted without"),
    ],
)
def test_draws_that_are_refused(words, settings, message):
    with pytest.raises(ValueError, match=message):
        words.sample(**settings)


def test_unknown_tokens_are_named(words):
    with pytest.raises(ValueError, match=r"log_prob: 'c' \(sequence 1, step 2\) is none of"):
        words.log_prob(["ab", "abc"])
    with pytest.raises(NotFittedError):
        small().log_prob("ab")


def test_a_fit_that_fails_leaves_the_model_as_it_was():
    model = small().fit(WORDS)
    before = model.log_prob(WORDS)
    with pytest.raises(ValueError, match="length 0"):
        model.fit([""])
    np.testing.assert_array_equal(model.log_prob(WORDS), before)
