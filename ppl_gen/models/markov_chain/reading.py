"""Sequences of tokens in, as the chains count them."""

from typing import Any

from ppl_gen.sequence_estimator import SequenceModel
from ppl_gen.sequences import Arrangement, Sequences
from ppl_gen.structures.markov_chain import ContextChain
from ppl_gen.token_reader import TokenReader

Array = Any


class TokenModel(TokenReader, SequenceModel):
    """A model of sequences of tokens."""

    structure_: ContextChain

    def _read_sequences(
        self, X: Any, lengths: Any, *, reset: bool, method: str
    ) -> tuple[Sequences, Arrangement]:
        who = f"{self._who}.{method}"
        tokens = self._tokens(X, lengths, who)
        codes = self._codes(tokens, who, reset=reset)
        arrangement = Arrangement("list", tokens.lengths)
        if reset:
            return Sequences(codes[:, None], tokens.lengths), arrangement
        return self.structure_.locate(codes, tokens.lengths), arrangement
