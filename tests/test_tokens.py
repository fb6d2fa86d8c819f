"""Sequences of tokens: what is read as what, what is refused, and the way back."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl_gen.tokens import decode, encode, given_vocabulary, learn_vocabulary, read_tokens


def read(X, lengths=None):
    """The sequences, written out as lists of symbols."""
    tokens = read_tokens(X, lengths, "Model.fit")
    states = learn_vocabulary(tokens, "Model.fit")
    codes = encode(tokens, states, "Model.fit")
    parts = np.split(states[codes], np.cumsum(tokens.lengths)[:-1])
    return [part.tolist() for part in parts]


@pytest.mark.parametrize(
    ("X", "lengths", "expected"),
    [
        ("aba", None, [["a", "b", "a"]]),
        (["ab", "c"], None, [["a", "b"], ["c"]]),
        (("ab", "c"), None, [["a", "b"], ["c"]]),
        (["the", "cat", "the"], [2, 1], [["the", "cat"], ["the"]]),
        ([["the", "cat"], ["the"]], None, [["the", "cat"], ["the"]]),
        (np.array(["the", "cat"]), None, [["the", "cat"]]),
        (pd.Series(["the", "cat"]), None, [["the", "cat"]]),
        (pd.DataFrame({"word": ["the", "cat"]}), None, [["the", "cat"]]),
        ([1, 0, 1], None, [[1, 0, 1]]),
        ([1, 0, 1], [2, 1], [[1, 0], [1]]),
        (np.array([1, 0, 1]), np.array([1, 2]), [[1], [0, 1]]),
        ([[1, 0], [1]], None, [[1, 0], [1]]),
        ([np.array([1, 0]), np.array([7])], None, [[1, 0], [7]]),
        ([pd.Series([1, 0]), pd.Series([7])], None, [[1, 0], [7]]),
        (np.array([[1, 0], [1, 1]]), None, [[1, 0], [1, 1]]),
        (np.array([[1, 0], [1, 1]])[:, :, None], None, [[1, 0], [1, 1]]),
        (np.array([[1], [0], [1]]), [2, 1], [[1, 0], [1]]),
        ([np.array([[1], [0]]), np.array([[1]])], None, [[1, 0], [1]]),
        (np.array([True, False]), None, [[True, False]]),
        (np.array([[1, 2], [3]], dtype=object), None, [[1, 2], [3]]),
        ([[(0, 1), (1, 0)], [(0, 1)]], None, [[(0, 1), (1, 0)], [(0, 1)]]),
        ([[1.5, 2.5]], None, [[1.5, 2.5]]),
        ("\x00a\x00", None, [["\x00", "a", "\x00"]]),
        ("naïve 🙂", None, [["n", "a", "ï", "v", "e", " ", "🙂"]]),
    ],
)
def test_what_is_read_as_what(X, lengths, expected):
    assert read(X, lengths) == expected


def test_tensors_are_read():
    torch = pytest.importorskip("torch")
    assert read(torch.tensor([2, 0, 2])) == [[2, 0, 2]]


@given(st.lists(st.text(min_size=1), min_size=1))
def test_text_comes_back(texts):
    tokens = read_tokens(texts, None, "Model.fit")
    states = learn_vocabulary(tokens, "Model.fit")
    codes = encode(tokens, states, "Model.fit")
    assert decode(codes, tokens.lengths, states, tokens.text) == texts


@pytest.mark.parametrize(
    ("X", "lengths", "error", "told"),
    [
        ([], None, ValueError, "no sequence"),
        ("", None, ValueError, "sequence 0 has length 0; leave empty sequences out"),
        (["ab", ""], None, ValueError, "sequence 1 has length 0"),
        ([[0], []], None, ValueError, "sequence 1 has length 0"),
        (np.zeros((2, 0), dtype=int), None, ValueError, "sequence 0 has length 0"),
        ([0, 1, 2], [1, 1], ValueError, "lengths sum to 2, but X has 3 steps"),
        ([0, 1, 2], [3, 0], ValueError, "sequence 1 has length 0"),
        ([0, 1, 2], [4, -1], ValueError, "sequence 1 has length -1"),
        ([0, 1, 2], [1.5, 1.5], ValueError, "expected whole numbers"),
        ("abc", [1, 2], ValueError, "leave lengths out"),
        ([0, None, 1], None, ValueError, "step 1 .* is missing"),
        ([["a", None]], None, ValueError, "step 1 .* is missing"),
        ([["a", pd.NA]], None, ValueError, "step 1 .* is missing"),
        (np.array([0.0, np.nan]), None, ValueError, "step 1 .* is missing"),
        ([np.array([0.0]), np.array([np.inf])], None, ValueError, "step 1 .* is missing or not"),
        ([["a", 1]], None, TypeError, "mixes states of the types number, str"),
        ([[True, 1]], None, TypeError, "types bool, number"),
        ([np.array([1]), np.array(["a"])], None, TypeError, "types number, str"),
        (["ab", ["a"]], None, TypeError, "sequence 0 is a str, but sequence 1 is a list"),
        ([["a"], 3], None, TypeError, "sequence 1 is a int"),
        (3, None, TypeError, "X is a int"),
        (np.zeros((2, 2, 2)), None, ValueError, r"shape \(2, 2, 2\)"),
        ([np.zeros((2, 2))], None, ValueError, r"a sequence has shape \(2, 2\)"),
        (pd.DataFrame({"a": [1], "b": [2]}), None, ValueError, "X has 2 columns; expected one"),
    ],
)
def test_what_is_refused(X, lengths, error, told):
    with pytest.raises(error, match=f"^Model.fit: .*{told}"):
        read_tokens(X, lengths, "Model.fit")


def test_states_that_cannot_be_sorted():
    with pytest.raises(TypeError, match="cannot be hashed and sorted"):
        read([[1 + 2j, 2j]])


@pytest.mark.parametrize(
    ("X", "states", "told"),
    [
        (
            ["ab", "axb"],
            ["a", "b"],
            r"'x' \(sequence 1, step 1\) is none of the 2 states, 'a', 'b'",
        ),
        ([[0, 1], [5]], [0, 1], r"5 \(sequence 1, step 0\) is none"),
        ([[0.5]], [0, 1], "0.5"),
        ([["a"]], [0, 1], "'a'"),
        ("a", [0, 1], "'a'"),
        ("a", ["ab"], "'a'"),
        ([0], ["a"], "0"),
    ],
)
def test_unknown_states_are_named(X, states, told):
    with pytest.raises(ValueError, match=f"{told}.*; give states="):
        encode(
            read_tokens(X, None, "Model.log_prob"),
            given_vocabulary(states, "Model"),
            "Model.log_prob",
        )


def test_given_states_keep_their_order():
    states = given_vocabulary(["low", "high"], "Model")
    codes = encode(read_tokens([["high", "low"]], None, "Model"), states, "Model")
    assert codes.tolist() == [1, 0]


@pytest.mark.parametrize(("states", "told"), [([1, 1], "1 twice"), ([], "states is empty")])
def test_bad_vocabularies(states, told):
    with pytest.raises(ValueError, match=told):
        given_vocabulary(states, "Model")
