"""Markov chains of any order over states of any kind."""

from ppl_gen.models.markov_chain.model import MarkovChain

__all__ = ["MarkovChain"]
