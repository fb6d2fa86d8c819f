"""Draws to ArviZ: summary, verdict, predictive, log likelihood, relabelling, saving."""

from ppl_gen.posterior.core import Posterior

__all__ = ["Posterior"]
