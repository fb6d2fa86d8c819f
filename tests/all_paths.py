"""Hidden Markov chains by the sum over all paths of states: an oracle for short sequences."""

import dataclasses
import itertools

import numpy as np
from scipy.special import logsumexp


@dataclasses.dataclass(frozen=True)
class Enumerated:
    """Every path of states of one sequence, with its log joint density with the data.

    Attributes
    ----------
    paths : (P, T)
    log_joint : (P,)
    n_states : int
    """

    paths: np.ndarray
    log_joint: np.ndarray
    n_states: int

    @property
    def evidence(self) -> float:
        """Log density of the data, in nats."""
        return float(logsumexp(self.log_joint))

    @property
    def weights(self) -> np.ndarray:
        """Posterior probability of each path: (P,)."""
        return np.exp(self.log_joint - self.evidence)

    @property
    def marginals(self) -> np.ndarray:
        """Posterior probability of each state at each step: (T, K)."""
        hot = self.paths[:, :, None] == np.arange(self.n_states)
        return np.einsum("p,ptk->tk", self.weights, hot)

    @property
    def pairs(self) -> np.ndarray:
        """Posterior probability of each move at each step: (T - 1, K, K)."""
        hot = (self.paths[:, :, None] == np.arange(self.n_states)).astype(float)
        return np.einsum("p,pti,ptj->tij", self.weights, hot[:, :-1], hot[:, 1:])

    @property
    def best(self) -> tuple[float, np.ndarray]:
        """Log joint density of the likeliest path, and the path (T,)."""
        place = self.log_joint.argmax()
        return float(self.log_joint[place]), self.paths[place]

    def score_of(self, path: np.ndarray) -> float:
        """Log joint density of one path."""
        return float(self.log_joint[(self.paths == path).all(axis=1)][0])


def enumerate_paths(start: np.ndarray, transition: np.ndarray, logs: np.ndarray) -> Enumerated:
    """Enumerate the paths of a sequence, given probabilities and log emissions (T, K)."""
    with np.errstate(divide="ignore"):
        return enumerate_in_logs(np.log(start), np.log(transition), logs)


def enumerate_in_logs(start: np.ndarray, transition: np.ndarray, logs: np.ndarray) -> Enumerated:
    """Enumerate the paths of a sequence, given logarithms of probabilities."""
    n_steps, n_states = logs.shape
    paths = np.array(list(itertools.product(range(n_states), repeat=n_steps)))
    joint = start[paths[:, 0]] + logs[np.arange(n_steps), paths].sum(axis=1)
    joint = joint + transition[paths[:, :-1], paths[:, 1:]].sum(axis=1)
    return Enumerated(paths, joint, n_states)


def filtered(start: np.ndarray, transition: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Probability of each state given the steps up to it: (T, K)."""
    return np.stack(
        [enumerate_paths(start, transition, logs[: t + 1]).marginals[-1] for t in range(len(logs))]
    )
