"""Sequences of tokens in and out of estimators, by a vocabulary that is learned or given."""

from typing import Any, Self

import numpy as np
from sklearn.base import clone

from ppl_gen.data import Column, Schema
from ppl_gen.tokens import Tokens, encode, given_vocabulary, learn_vocabulary, read_tokens

Array = Any

#: dtype of the one column of the schema where the sequences were Python strings.
TEXT = "text"


class TokenReader:
    """A model of sequences of tokens: its schema has one column, of which they are categories.

    Attributes
    ----------
    states_ : (K,)
        Symbols, in the order of their codes.
    """

    states: Any
    schema_: Schema
    _who: Any

    def _tokens(self, X: Any, lengths: Any, who: str) -> Tokens:
        """Read sequences."""
        return read_tokens(X, lengths, who)

    def _vocabulary(self, tokens: Tokens, who: str) -> Array:
        """Symbols that may occur: those given, or those that do."""
        if self.states is None:
            return learn_vocabulary(tokens, who)
        return given_vocabulary(self.states, who)

    def _codes(self, tokens: Tokens, who: str, *, reset: bool) -> Array:
        """Return places in the vocabulary; `reset` when the sequences are those to fit: (N,)."""
        if not reset:
            return encode(tokens, self.states_, who).astype(np.int64, copy=False)
        states = self._vocabulary(tokens, who)
        dtype = TEXT if tokens.text else str(states.dtype)
        codes = encode(tokens, states, who)
        column = Column(None, "category", dtype, tuple(states.tolist()))
        self.schema_ = Schema("numpy", (column,))
        return codes.astype(np.int64, copy=False)

    def with_states_of(self, X: Any) -> Self:
        """Return an unfitted copy that knows the states of these sequences, if it names none."""
        if self.states is not None:
            return self
        who = f"{self._who}.fit"
        known: Self = clone(self).set_params(
            states=self._vocabulary(self._tokens(X, None, who), who)
        )
        return known

    @property
    def _is_text(self) -> bool:
        return self.schema_.columns[0].dtype == TEXT

    @property
    def states_(self) -> Array:
        """States, in the order of their codes, and of every axis of states: (K,)."""
        column = self.schema_.columns[0]
        symbols = np.empty(len(column.categories or ()), dtype=object)
        symbols[:] = column.categories
        if column.dtype == "object":
            return symbols
        return np.array(symbols.tolist()) if column.dtype == TEXT else symbols.astype(column.dtype)
