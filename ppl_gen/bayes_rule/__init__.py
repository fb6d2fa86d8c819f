"""Bayes' rule: every generative model classifies, and so does any program with a discrete site."""

from ppl_gen.bayes_rule.classifier import BayesClassifier
from ppl_gen.bayes_rule.sites import classify, log_normalised

__all__ = ["BayesClassifier", "classify", "log_normalised"]
