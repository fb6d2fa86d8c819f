"""Bayes' rule for the discrete sites of any program."""

import inspect
from typing import Any

import numpy as np

Array = Any


def log_normalised(joint: Array) -> Array:
    """Normalise log joint densities over the last axis."""
    top = joint.max(axis=-1, keepdims=True)
    return joint - top - np.log(np.exp(joint - top).sum(axis=-1, keepdims=True))


def classify(posterior: Any, site: str, *args: Any, seed: int = 0, **new_data: Any) -> Array:
    """Probabilities of a discrete site of any program, given its posterior.

    Parameters
    ----------
    posterior : Posterior
        From `ppl_gen.infer`, or a fitted model's ``posterior_``.
    site : str
        A discrete latent (a sampled site, or the ``latent`` of a `Mixture`, a `HiddenMarkov` or
        a `BayesNet`), or an observed label, which is scored at each value of its support.
    *args, **new_data
        Data of the program to classify, in place of those fitted.
    seed : int

    Returns
    -------
    (n, K) array
        Rows of the site's plates, and the values of its support. Of a hidden Markov chain
        (n, T, K), or (T, K) outside of plates: the smoothed probabilities of each step's state.

    Notes
    -----
    On the data that were fitted it is the mean over draws of p(z | data, draw). New data also
    tell of the parameters: draws then weigh in by the density they give to them,
    p(z | x) = sum_s p(x, z | s) / sum_s p(x | s).

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import GaussianMixture, classify
    >>> X = np.concatenate([np.arange(5.0), 50 + np.arange(5.0)])[:, None]
    >>> model = GaussianMixture(2, random_state=0).fit(X)
    >>> classify(model.posterior_, "z").round().shape
    (10, 2)
    """
    from ppl_gen.engines.discrete import discrete_log_joint
    from ppl_gen.posterior.arguments import replaced

    engine, native = posterior.native("classify")
    if args or new_data:
        names = list(inspect.signature(posterior.model).parameters)
        new_data = {**dict(zip(names, args, strict=False)), **new_data}
    arguments = replaced(posterior.model, posterior.args, posterior.kwargs, new_data)
    draws = posterior.latent_draws()
    with posterior.precision(engine):
        joint = discrete_log_joint(engine, native, *arguments, draws, site, seed=seed)
    if new_data:
        top = joint.max(axis=(0, -1), keepdims=True)
        pooled: Array = np.exp(joint - top).sum(axis=0)
        return pooled / pooled.sum(axis=-1, keepdims=True)
    return np.exp(log_normalised(joint)).mean(axis=0)
