"""Sequences of tokens in, by a vocabulary that is learned or given."""

from typing import Any, Self

import numpy as np
from sklearn.base import clone

from ppl_gen.data import Column, Schema
from ppl_gen.sequence_estimator import SequenceModel
from ppl_gen.sequences import Arrangement, Sequences
from ppl_gen.structures.markov_chain import ContextChain
from ppl_gen.tokens import encode, given_vocabulary, learn_vocabulary, read_tokens

Array = Any

#: dtype of the one column of the schema where the sequences were Python strings.
TEXT = "text"


class TokenModel(SequenceModel):
    """A model of sequences of tokens: its schema has one column, of which they are categories."""

    states: Any
    structure_: ContextChain

    def _read_sequences(
        self, X: Any, lengths: Any, *, reset: bool, method: str
    ) -> tuple[Sequences, Arrangement]:
        who = f"{self._who}.{method}"
        tokens = read_tokens(X, lengths, who)
        if reset:
            if self.states is None:
                states = learn_vocabulary(tokens, who)
            else:
                states = given_vocabulary(self.states, who)
            dtype = TEXT if tokens.text else str(states.dtype)
            codes = encode(tokens, states, who)
            column = Column(None, "category", dtype, tuple(states.tolist()))
            self.schema_ = Schema("numpy", (column,))
        else:
            codes = encode(tokens, self.states_, who)
        codes = codes.astype(np.int64, copy=False)
        arrangement = Arrangement("list", tokens.lengths)
        if reset:
            return Sequences(codes[:, None], tokens.lengths), arrangement
        return self.structure_.locate(codes, tokens.lengths), arrangement

    def with_states_of(self, X: Any) -> Self:
        """Return an unfitted copy that knows the states of these sequences, if it names none."""
        if self.states is not None:
            return self
        states = learn_vocabulary(read_tokens(X, None, f"{self._who}.fit"), f"{self._who}.fit")
        known: Self = clone(self).set_params(states=states)
        return known

    @property
    def _is_text(self) -> bool:
        return self.schema_.columns[0].dtype == TEXT

    @property
    def states_(self) -> Array:
        """States, in the order of every axis of states: (K,)."""
        column = self.schema_.columns[0]
        symbols = np.empty(len(column.categories or ()), dtype=object)
        symbols[:] = column.categories
        if column.dtype == "object":
            return symbols
        return np.array(symbols.tolist()) if column.dtype == TEXT else symbols.astype(column.dtype)
