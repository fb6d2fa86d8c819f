"""Bayesian networks: their conditional distributions, the files they are kept in, the model."""
