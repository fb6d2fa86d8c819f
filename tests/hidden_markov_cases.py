"""Hidden Markov models of every emission, with series that have states to find."""

import numpy as np
from scipy import stats
from scipy.special import logsumexp

from ppl_gen import EM, HiddenMarkovModel

COVARIANCE_TYPES = ["diag", "full", "tied", "spherical"]
#: Emissions, with their settings.
EMISSIONS = {
    **{f"gaussian-{kind}": {"covariance_type": kind} for kind in COVARIANCE_TYPES},
    "gmm": {"emission": "gmm", "n_mix": 2},
    "gmm-full": {"emission": "gmm", "n_mix": 2, "covariance_type": "full"},
    "poisson": {"emission": "poisson"},
    "categorical": {"emission": "categorical"},
    "bernoulli": {"emission": "bernoulli"},
    "multinomial": {"emission": "multinomial"},
}

#: Transitions between three states that may happen.
MASKS = {
    "left-right": np.triu(np.ones((3, 3))),
    "banded": np.eye(3) + np.eye(3, k=1) + np.eye(3, k=-1),
    "absorbing": np.array([[1, 1, 1], [1, 1, 1], [0, 0, 1]]),
    "a cycle": np.roll(np.eye(3), 1, axis=1),
}


def chain_of_states(rng, n, n_states=3, stay=0.8):
    states = [rng.integers(n_states)]
    for _ in range(n - 1):
        onward = stay if rng.random() < stay else None
        states.append(states[-1] if onward else rng.integers(n_states))
    return np.array(states)


def rows_of(emission, n=60, seed=0, n_states=3):
    """A series whose rows depend on a chain of states."""
    rng = np.random.default_rng(seed)
    z = chain_of_states(rng, n, n_states)
    if emission.startswith(("gaussian", "gmm")):
        return 2.0 * np.stack([z, -z], axis=1) + rng.normal(size=(n, 2))
    if emission == "poisson":
        return rng.poisson(np.stack([1.0 + 4 * z, 2.0 + z], axis=1)).astype(float)
    if emission == "categorical":
        return ((z + (rng.random(n) < 0.3)) % 4)[:, None].astype(float)
    if emission == "bernoulli":
        return (rng.random((n, 3)) < np.stack([0.2 + 0.3 * z] * 3, axis=1)).astype(float)
    shares = np.array([[0.6, 0.3, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]])
    return np.stack([rng.multinomial(5, shares[state]) for state in z % 3]).astype(float)


def with_holes(rows, emission, seed=1):
    """Take out whole steps, and single entries too where a row has parts."""
    rng = np.random.default_rng(seed)
    rows = rows.copy()
    rows[rng.random(len(rows)) < 0.15] = np.nan
    if emission != "multinomial":  # a count that is missing leaves the total unknown
        rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows


def model_of(emission, n_states=3, **settings):
    settings = {"random_state": 0} | EMISSIONS[emission] | settings
    return HiddenMarkovModel(n_states, **settings)


def em(max_iter, **settings):
    return EM(max_iter=max_iter, tol=0.0, **settings)


def log_emission(model, emission, rows):
    """Log density of each step under each state, from the attributes and SciPy: (T, K)."""
    return np.array(
        [[density(model, emission, row, k) for k in range(model.n_components)] for row in rows]
    )


def density(model, emission, row, k):
    o = np.flatnonzero(~np.isnan(row))
    if not len(o):
        return 0.0
    if emission.startswith("gaussian"):
        return normal(row, o, model.means_[k], model.covars_[k])
    if emission.startswith("gmm"):
        parts = zip(model.weights_[k], model.means_[k], model.covars_[k], strict=True)
        return logsumexp([np.log(w) + normal(row, o, m, c) for w, m, c in parts])
    if emission == "poisson":
        return stats.poisson.logpmf(row[o], model.lambdas_[k, o]).sum()
    if emission == "categorical":
        return np.log(model.emissionprob_[k, int(row[0])])
    if emission == "bernoulli":
        return stats.bernoulli.logpmf(row[o], model.emissionprob_[k, o]).sum()
    return stats.multinomial.logpmf(row, row.sum(), model.emissionprob_[k])


def normal(row, o, mean, covariance):
    return stats.multivariate_normal.logpdf(row[o], mean[o], covariance[np.ix_(o, o)])
