"""Tokenisers: what a text is split into, and that it comes back."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl_gen.tokenisers import (
    SMILES,
    ByteTokeniser,
    CharacterTokeniser,
    RegexTokeniser,
    read_texts,
    tokeniser_of,
)

#: The pattern as Schwaller et al. (2019) print it.
PRINTED = (
    r"(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>|\*|\$|"
    r"\%[0-9]{2}|[0-9])"
)
MOLECULES = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "C[C@H](N)C(=O)O.[Na+].[Cl-]",
    r"F/C=C\F",
    "BrCCCl>>C=C",
    "C%12CCCC%12",
]


@given(st.text())
def test_characters_and_bytes_come_back(text):
    for tokeniser in (CharacterTokeniser(), ByteTokeniser()):
        assert tokeniser.join(tokeniser.split(text)) == text


@given(st.lists(st.integers(0, 255)))
def test_any_bytes_are_read(tokens):
    assert isinstance(ByteTokeniser().join(np.array(tokens, dtype=np.int64)), str)


@pytest.mark.parametrize("molecule", MOLECULES)
def test_molecules_are_split_as_by_the_printed_pattern(molecule):
    tokens = RegexTokeniser().split(molecule)
    assert tokens == re.findall(PRINTED, molecule)
    assert RegexTokeniser().join(tokens) == molecule


@pytest.mark.parametrize(
    ("pattern", "text", "rest"),
    [(SMILES, "CCX", "'X', at character 2"), (SMILES, "?Xe", "'Xe'"), ("a*", "aab", "'b'")],
)
def test_what_a_pattern_leaves_out_is_named(pattern, text, rest):
    with pytest.raises(ValueError, match=re.escape(rest)):
        RegexTokeniser(pattern).split(text)


@pytest.mark.parametrize(
    "X",
    [
        ["né", "x"],
        ("né", "x"),
        np.array(["né", "x"]),
        np.array(["né", "x"], dtype=object),
        pd.Series(["né", "x"]),
        pd.DataFrame({"text": ["né", "x"]}),
    ],
    ids=lambda X: type(X).__name__,
)
@pytest.mark.parametrize("name", ["byte", "character"])
def test_each_text_is_a_sequence(X, name):
    tokens = read_texts(X, None, tokeniser_of(name, "Model"), "Model.fit")
    assert tokens.lengths.tolist() == {"byte": [3, 1], "character": [2, 1]}[name]


def test_one_string_is_one_text():
    tokens = read_texts("né", None, ByteTokeniser(), "Model.fit")
    assert tokens.flat.tolist() == [110, 195, 169]


@pytest.mark.parametrize(
    ("X", "lengths", "error", "message"),
    [
        (["ab", ""], None, ValueError, "sequence 1 has length 0"),
        ("", None, ValueError, "length 0"),
        ([], None, ValueError, "no sequence"),
        ([1, 2], None, TypeError, "X has a int where a text was expected"),
        (["ab", None], None, TypeError, "X has a NoneType"),
        (None, None, TypeError, "X has a NoneType"),
        (["ab"], [2], ValueError, "leave lengths out"),
    ],
)
def test_what_is_no_text_is_refused(X, lengths, error, message):
    with pytest.raises(error, match=message):
        read_texts(X, lengths, ByteTokeniser(), "Model.fit")


def test_tokenisers_are_found_by_name_or_taken_as_they_are():
    own = RegexTokeniser(".")
    assert tokeniser_of(own, "Model") is own
    assert tokeniser_of(None, "Model") is None
    assert isinstance(tokeniser_of("smiles", "Model"), RegexTokeniser)
    with pytest.raises(ValueError, match="tokeniser is 'word'; expected one of 'byte'"):
        tokeniser_of("word", "Model")
    for strange in (3, ByteTokeniser):
        with pytest.raises(TypeError, match=r"split\(text\)"):
            tokeniser_of(strange, "Model")
