"""Generative models as probabilistic programs: fit, diagnose, sample, score, classify.

Every public name is loaded on first use (PEP 562), so that ``import ppl_gen`` costs next to
nothing and pulls in neither torch, jax, scikit-learn nor ArviZ.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

#: Public name -> the module that defines it. Artefacts look classes up here, never by path.
PUBLIC: dict[str, str] = {
    "AnomalyDetector": "ppl_gen.evaluate.anomaly",
    "BayesClassifier": "ppl_gen.bayes_rule",
    "classify": "ppl_gen.bayes_rule",
    "Conjugate": "ppl_gen.inference.conjugate",
    "EM": "ppl_gen.inference.em",
    "MaximumLikelihood": "ppl_gen.inference.maximum_likelihood",
    "NUTS": "ppl_gen.inference.nuts",
    "SVI": "ppl_gen.inference.svi",
    "Training": "ppl_gen.inference.training.settings",
    "infer": "ppl_gen.inference.dispatch",
    "Bernoulli": "ppl_gen.families",
    "Categorical": "ppl_gen.families",
    "Columns": "ppl_gen.families",
    "FactorNormal": "ppl_gen.families",
    "MixtureFamily": "ppl_gen.families",
    "Multinomial": "ppl_gen.families",
    "Normal": "ppl_gen.families",
    "Poisson": "ppl_gen.families",
    "CausalTransformer": "ppl_gen.models.autoregressive.transformer",
    "MADE": "ppl_gen.models.autoregressive.made",
    "PixelCNN": "ppl_gen.models.autoregressive.pixels",
    "PixelRNN": "ppl_gen.models.autoregressive.pixels",
    "BayesianNetwork": "ppl_gen.models.bayesian_network",
    "BDeu": "ppl_gen.models.bayesian_network.learners",
    "ChowLiu": "ppl_gen.models.bayesian_network.tree_learners",
    "ExactSearch": "ppl_gen.models.bayesian_network.learners",
    "HillClimb": "ppl_gen.models.bayesian_network.learners",
    "TreeAugmented": "ppl_gen.models.bayesian_network.tree_learners",
    "averaged_network": "ppl_gen.models.bayesian_network.confidence",
    "edge_confidence": "ppl_gen.models.bayesian_network.confidence",
    "ByteTokeniser": "ppl_gen.tokenisers",
    "CharacterTokeniser": "ppl_gen.tokenisers",
    "RegexTokeniser": "ppl_gen.tokenisers",
    "FactorAnalysis": "ppl_gen.models.factor_analysis",
    "GaussianMixture": "ppl_gen.models.mixture",
    "LinearAutoregression": "ppl_gen.models.linear_autoregression",
    "LinearGaussianStateSpace": "ppl_gen.models.state_space",
    "LinearGaussianCPD": "ppl_gen.models.bayesian_network.cpds",
    "SoftmaxCPD": "ppl_gen.models.bayesian_network.cpds",
    "TabularCPD": "ppl_gen.models.bayesian_network.cpds",
    "HiddenMarkovModel": "ppl_gen.models.hidden_markov",
    "MarkovChain": "ppl_gen.models.markov_chain",
    "Mixture": "ppl_gen.models.mixture",
    "NaiveBayes": "ppl_gen.models.naive_bayes",
    "NormalizingFlow": "ppl_gen.models.flow",
    "ProbabilisticPCA": "ppl_gen.models.factor_analysis",
    "VAE": "ppl_gen.models.vae",
    "SemiSupervisedVAE": "ppl_gen.models.vae.semi_supervised",
    "VQVAE": "ppl_gen.models.vae.vector_quantised",
    "Posterior": "ppl_gen.posterior",
    "Program": "ppl_gen.language",
    "deterministic": "ppl_gen.language",
    "dist": "ppl_gen.language",
    "factor": "ppl_gen.language",
    "ops": "ppl_gen.language",
    "param": "ppl_gen.language",
    "plate": "ppl_gen.language",
    "program": "ppl_gen.language",
    "sample": "ppl_gen.language",
    "load": "ppl_gen.artifact",
}

__all__ = ["PUBLIC", "__version__", *PUBLIC]


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    module = PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'ppl_gen' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
