"""Markov chains in classifiers, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

import ppl_gen
from ppl_gen import EM, BayesClassifier, MarkovChain
from ppl_gen.datasets import load_ecclesiastes

# -- Bayes' rule ---------------------------------------------------------------------------------


def languages():
    rng = np.random.default_rng(0)
    texts, labels = [], []
    for label, alphabet in (("east", "aaabck"), ("west", "aabbce")):
        for _ in range(30):
            texts.append("".join(rng.choice(list(alphabet), size=rng.integers(8, 20))))
            labels.append(label)
    return texts, np.array(labels)


def test_languages_are_told_apart_by_their_letters():
    texts, labels = languages()
    model = MarkovChain(states=sorted(set("".join(texts))))
    assert cross_val_score(BayesClassifier(model), texts, labels, cv=4).mean() > 0.9
    # Without states=, every class knows the letters of all.
    classifier = BayesClassifier(MarkovChain()).fit(texts, labels)
    assert [m.states_.tolist() for m in classifier.models_] == [list("abcek")] * 2
    np.testing.assert_allclose(classifier.predict_proba(texts).sum(axis=1), 1.0)
    drawn, which = classifier.sample(6, random_state=0)
    assert all(isinstance(text, str) for text in drawn)
    assert which.shape == (6,)
    for container in (
        np.array(texts),
        np.array(texts, dtype=object),
        pd.Series(texts),
        tuple(texts),
    ):
        other = BayesClassifier(MarkovChain()).fit(container, labels)
        np.testing.assert_allclose(
            other.predict_proba(container), classifier.predict_proba(texts), rtol=1e-12
        )


def test_classifiers_of_sequences_of_numbers(tmp_path):
    rng = np.random.default_rng(0)
    sequences = [rng.choice(3, p=p, size=9) for p in ([0.7, 0.2, 0.1], [0.1, 0.2, 0.7]) * 20]
    labels = np.array([0, 1] * 20)
    classifier = BayesClassifier(MarkovChain(states=[0, 1, 2]))
    assert cross_val_score(classifier, sequences, labels, cv=4).mean() > 0.9
    fitted = classifier.fit(sequences, labels)
    stacked = clone(classifier).fit(np.stack(sequences), labels)
    np.testing.assert_array_equal(fitted.predict(sequences), stacked.predict(np.stack(sequences)))
    fitted.save(tmp_path / "classifier")
    loaded = ppl_gen.load(tmp_path / "classifier")
    np.testing.assert_array_equal(loaded.predict_proba(sequences), fitted.predict_proba(sequences))


def test_verses_are_told_from_verses_backwards():
    verses = load_ecclesiastes().frame["text"].tolist()
    texts = verses + [verse[::-1] for verse in verses]
    labels = np.repeat(["forwards", "backwards"], len(verses))
    model = MarkovChain(3, smoothing="kneser-ney", states=sorted(set("".join(texts))))
    # A verse and its mirror image have the same letters: only their order can tell.
    assert cross_val_score(BayesClassifier(model), texts, labels, cv=3).mean() > 0.98
    alone = MarkovChain(0, states=model.states)
    assert cross_val_score(BayesClassifier(alone), texts, labels, cv=3).mean() < 0.6


@pytest.mark.parametrize("X", ["abc", np.arange(3), pd.DataFrame({"a": ["x", "y", "z"]}), 3])
def test_classifiers_want_sequences(X):
    with pytest.raises(ValueError, match="expected a list of sequences, one a label"):
        BayesClassifier(MarkovChain()).fit(X, [0, 1, 0])


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "X", "told"),
    [
        ({"order": -1}, "abc", "order is -1"),
        ({"order": 1.5}, "abc", "order is 1.5"),
        ({"order": True}, "abc", "order is True"),
        ({"order": 3}, ["abc", "ab"], "order=3, but the longest sequence has 3 steps"),
        ({"order": 1}, ["a", "b"], "order=1, but the longest sequence has 1 steps"),
        ({"smoothing": "laplace"}, "abc", "smoothing is 'laplace'; expected None or one of"),
        ({"smoothing": "kneser-ney", "inference": "nuts"}, "abc", "by EM without batch_size"),
        ({"smoothing": "kneser-ney", "inference": EM(batch_size=2)}, "abc", "batch_size"),
        ({"inference": EM(engine="jax")}, "abc", "EM counts, by NumPy"),
        ({"smoothing": "kneser-ney", "inference": "conjugate"}, "abc", "by EM without batch_size"),
        ({"order": 12, "inference": "conjugate"}, "abcdefghij" * 2, "too many contexts"),
        ({"inference": "gibbs"}, "abc", "unknown 'gibbs'"),
        ({"pseudocount": -1}, "abc", "pseudocount is -1"),
        ({"pseudocount": np.nan}, "abc", "pseudocount is nan"),
        ({"pseudocount": [1.0, 2.0]}, "abc", "2 numbers, but there are 3 states"),
        ({"states": "ab"}, "abc", "'c' .sequence 0, step 2. is none of the 2 states"),
        ({"states": "aa"}, "abc", "'a' twice"),
        ({"order": 12, "inference": "svi"}, "abcdefghij" * 2, "too many contexts for a program"),
        ({}, "", "leave empty sequences out"),
        ({}, ["ab", ""], "sequence 1 has length 0"),
        ({}, [], "no sequence"),
        ({}, [0, None, 1], "missing"),
    ],
)
def test_bad_input(settings, X, told):
    with pytest.raises(ValueError, match=told):
        MarkovChain(**settings).fit(X)


def test_mixed_types():
    with pytest.raises(TypeError, match="mixes states of the types number, str"):
        MarkovChain().fit([["a", 1]])


def test_bad_weights_and_lengths():
    with pytest.raises(ValueError, match="without sample_weight"):
        MarkovChain(smoothing="kneser-ney").fit(["ab", "ba"], sample_weight=[1, 2])
    with pytest.raises(ValueError, match="Negative values"):
        MarkovChain().fit(["ab", "ba"], sample_weight=[1, -2])
    with pytest.raises(ValueError, match="at least one non-zero"):
        MarkovChain().fit(["ab", "ba"], sample_weight=[0, 0])
    with pytest.raises(ValueError, match="lengths sum to 3, but X has 4 steps"):
        MarkovChain().fit([0, 1, 0, 1], [1, 2])


def test_questions_that_have_no_answer():
    model = MarkovChain(2).fit("abcabc")
    for ask in ("stationary_distribution", "is_irreducible", "period", "graph"):
        with pytest.raises(ValueError, match=f"MarkovChain.{ask}: the chain has order 2"):
            getattr(model, ask)()
    with pytest.raises(AttributeError, match="transmat_ is that of a fitted chain of order 1"):
        model.transmat_  # noqa: B018
    with pytest.raises(ValueError, match=r"'x' \(sequence 0, step 1\) is none of the 3 states"):
        model.log_prob("ax")
    with pytest.raises(ValueError, match="n_samples is 0"):
        model.sample(0)
    for length in (0, 1.5, [1, 2, 3]):
        with pytest.raises(ValueError, match="length is"):
            model.sample(2, length=length)
    with pytest.raises(ValueError, match="given has 2 sequences"):
        model.sample(given=["a", "b"])
    for steps in (0, 1.5):
        with pytest.raises(ValueError, match="steps is"):
            model.forecast(steps)
    for ask in ("log_prob", "perplexity", "forecast", "sample", "graph"):
        with pytest.raises(NotFittedError):
            getattr(MarkovChain(), ask)(*(["ab"] if ask in ("log_prob", "perplexity") else []))
