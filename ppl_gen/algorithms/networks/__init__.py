"""Bayesian networks over arrays: factors and their sums, graphs and what they tell, scores."""
