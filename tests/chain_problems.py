"""Hidden Markov chains to solve: dense and with zeros, near and far, of sequences side by side."""

import numpy as np
from all_paths import enumerate_paths

#: Steps of a piece at most; None leaves sequences whole.
BLOCKS = [None, 1, 2, 3]


def chain(rng, n_states, zeros=False):
    start = rng.dirichlet(np.ones(n_states))
    transition = rng.dirichlet(np.ones(n_states), size=n_states)
    if zeros and n_states > 1:
        # A band: to the state itself, and to the next one.
        transition *= np.eye(n_states) + np.eye(n_states, k=1)
        transition /= transition.sum(axis=1, keepdims=True)
        start[-1] = 0.0
        start /= start.sum()
    return start, transition


def emissions_of(rng, kind, n_steps, n_states):
    logs = rng.normal(size=(n_steps, n_states), scale=2.0)
    if kind == "missing":
        logs[rng.random(n_steps) < 0.5] = 0.0
    elif kind == "excluded":
        # One state at least stays possible, and it is not always the same.
        shut = rng.random(logs.shape) < 0.4
        shut[np.arange(n_steps), rng.integers(n_states, size=n_steps)] = False
        logs[shut] = -np.inf
    elif kind.startswith("far"):
        logs *= float(kind.removeprefix("far "))
    return logs


KINDS = ["near", "missing", "excluded", "far 1e3", "far 1e5"]


def problems(kind, zeros, n=12):
    """Chains of 1 to 4 states with emissions of 1 to 3 sequences of 1 to 6 steps."""
    rng = np.random.default_rng([KINDS.index(kind), zeros])
    for _ in range(n):
        n_states = int(rng.integers(1, 5))
        lengths = rng.integers(1, 7, size=rng.integers(1, 4))
        start, transition = chain(rng, n_states, zeros)
        logs = emissions_of(rng, kind, lengths.sum(), n_states)
        yield start, transition, logs, lengths


def parts(array, lengths):
    return np.split(array, np.cumsum(lengths)[:-1])


def possible(start, transition, logs, lengths):
    """Paths of each sequence, where every sequence has one."""
    paths = [enumerate_paths(start, transition, own) for own in parts(logs, lengths)]
    return paths if all(p.log_joint.max() > -np.inf for p in paths) else None
