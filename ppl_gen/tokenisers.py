r"""Tokenisers: a text as a sequence of tokens, and back.

A tokeniser is any object with ``split(text)``, a list of tokens of one type, ``join(tokens)``, the
text that they are, and ``states``, all tokens that there may be, or None if they are to be learned.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from sklearn.base import BaseEstimator

from ppl_gen.data import is_frame, to_numpy
from ppl_gen.tokens import Tokens, read_tokens

__all__ = [
    "SMILES",
    "ByteTokeniser",
    "CharacterTokeniser",
    "RegexTokeniser",
    "Tokeniser",
    "read_texts",
    "tokeniser_of",
]

#: Atoms (in brackets with all that is said of them), bonds, branches, rings: the pattern of
#: Schwaller et al. (2019), Molecular transformer, ACS Central Science 5(9), 1572-1583.
SMILES = r"\[[^\]]+]|Br?|Cl?|[NOSPFIbcnosp()./\\=#\-+:~@?>*$]|%[0-9]{2}|[0-9]"


class Tokeniser(Protocol):
    """What is asked of a tokeniser."""

    @property
    def states(self) -> Sequence[Any] | None:
        """All tokens that there may be, or None if they are learned."""

    def split(self, text: str) -> list[Any]:
        """Return the tokens of a text."""

    def join(self, tokens: Iterable[Any]) -> str:
        """Return the text of tokens."""


class CharacterTokeniser(BaseEstimator):  # type: ignore[misc]
    """The characters of a text; those of the texts fitted are known.

    Examples
    --------
    >>> CharacterTokeniser().split("né")
    ['n', 'é']
    """

    states: ClassVar[Sequence[str] | None] = None

    def split(self, text: str) -> list[str]:
        """Return the characters of a text."""
        return list(text)

    def join(self, tokens: Iterable[str]) -> str:
        """Return the text of characters."""
        return "".join(tokens)


class ByteTokeniser(BaseEstimator):  # type: ignore[misc]
    """The bytes of a text in UTF-8: 256 tokens, whatever the text.

    Not every sequence of bytes is a text: drawn ones are read with U+FFFD where they are none.

    Examples
    --------
    >>> ByteTokeniser().split("né")
    [110, 195, 169]
    >>> ByteTokeniser().join([110, 195])
    'n�'
    """

    states: ClassVar[Sequence[int] | None] = range(256)

    def split(self, text: str) -> list[int]:
        """Return the bytes of a text."""
        return list(text.encode())

    def join(self, tokens: Iterable[int]) -> str:
        """Return the text of bytes."""
        return bytes(int(token) for token in tokens).decode(errors="replace")


class RegexTokeniser(BaseEstimator):  # type: ignore[misc]
    r"""The matches of a pattern, which must leave nothing of a text out.

    Parameters
    ----------
    pattern : str
        A regular expression; by default `SMILES`, of molecules and reactions (Schwaller et al.
        2019).

    Examples
    --------
    >>> RegexTokeniser().split("BrC[C@H](O)Cl")
    ['Br', 'C', '[C@H]', '(', 'O', ')', 'Cl']
    >>> RegexTokeniser(r"\w+|\W").split("all is vanity")
    ['all', ' ', 'is', ' ', 'vanity']
    """

    states: ClassVar[Sequence[str] | None] = None

    def __init__(self, pattern: str = SMILES) -> None:
        self.pattern = pattern

    def split(self, text: str) -> list[str]:
        """Return the matches, one after another.

        Raises
        ------
        ValueError
            If something in between does not match, or a match is empty.
        """
        tokens, end = [], 0
        for match in re.finditer(self.pattern, text):
            if match.start() != end or match.end() == end:
                break
            tokens.append(match.group())
            end = match.end()
        if end < len(text):
            raise ValueError(
                f"RegexTokeniser: the pattern does not match {text[end : end + 10]!r}, at "
                f"character {end} of {text[:40]!r}; expected a pattern that leaves nothing out, "
                "such as one that ends in '|.'"
            )
        return tokens

    def join(self, tokens: Iterable[str]) -> str:
        """Return the text of matches."""
        return "".join(tokens)


_NAMED: dict[str, Any] = {
    "byte": ByteTokeniser,
    "character": CharacterTokeniser,
    "smiles": RegexTokeniser,
}


def tokeniser_of(tokeniser: Any, who: str) -> Tokeniser | None:
    """Return the tokeniser that is meant, by its name or as it is; None for tokens as given.

    Raises
    ------
    ValueError
        If no tokeniser has the name.
    TypeError
        If it is neither a name nor a tokeniser.
    """
    if tokeniser is None:
        return None
    if isinstance(tokeniser, str):
        if tokeniser not in _NAMED:
            raise ValueError(
                f"{who}: tokeniser is {tokeniser!r}; expected one of "
                f"{', '.join(map(repr, _NAMED))}, None for tokens as they are given, or a tokeniser"
            )
        named: Tokeniser = _NAMED[tokeniser]()
        return named
    if isinstance(tokeniser, type) or not all(
        hasattr(tokeniser, name) for name in ("split", "join", "states")
    ):
        raise TypeError(
            f"{who}: tokeniser is {tokeniser!r}; expected a name ({', '.join(map(repr, _NAMED))}), "
            "None, or an object with split(text), join(tokens) and states"
        )
    own: Tokeniser = tokeniser
    return own


def read_texts(X: Any, lengths: Any, tokeniser: Tokeniser, who: str, least: int = 1) -> Tokens:
    """Read texts as sequences of tokens.

    Parameters
    ----------
    X : str, or list, array, Series or frame of one column, of str
        One text, or several.
    lengths : None
        Texts have their own.
    tokeniser : Tokeniser
    who : str
        Who asks, for errors.
    least : int
        Tokens of a text: with 0 they may be empty.

    Raises
    ------
    ValueError
        If there is no text, one is too short, or the tokeniser cannot read one.
    TypeError
        If X holds anything else.
    """
    if lengths is not None:
        raise ValueError(
            f"{who}: lengths were given, but each text is a sequence; leave lengths out, or set "
            "tokeniser=None for tokens as they are given"
        )
    X = to_numpy(X)
    texts = [X] if isinstance(X, str) else _listed(X)
    strange = [text for text in texts if not isinstance(text, str)]
    if strange:
        raise TypeError(
            f"{who}: X has a {type(strange[0]).__name__} where a text was expected; expected a "
            "string or a list of strings; set tokeniser=None for tokens as they are given"
        )
    if isinstance(tokeniser, CharacterTokeniser):
        return read_tokens(texts, None, who, least)
    return read_tokens([tokeniser.split(text) for text in texts], None, who, least)


def _listed(X: Any) -> list[Any]:
    if is_frame(X) and X.shape[1] == 1:
        X = X.iloc[:, 0] if hasattr(X, "iloc") else X.to_series()
    if isinstance(X, list | tuple):
        return list(X)
    return list(X) if np.ndim(X) == 1 else [X]
