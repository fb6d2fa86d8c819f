"""Bayesian networks: exact inference, learning, causes, files."""

from ppl_gen.models.bayesian_network.model import BayesianNetwork

__all__ = ["BayesianNetwork"]
