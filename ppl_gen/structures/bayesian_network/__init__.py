"""The Bayesian network: its conditionals, its exact inference, EM, draws and program."""
