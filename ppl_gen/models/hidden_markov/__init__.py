"""Hidden Markov models, with emissions of any family, and hmmlearn's models in and out."""

from ppl_gen.models.hidden_markov.model import HiddenMarkovModel

__all__ = ["HiddenMarkovModel"]
