"""Hidden Markov models: Baum-Welch, Viterbi and posterior marginals, against hmmlearn."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from hmmlearn.hmm import GaussianHMM

from benchmarks.measure import Row, in_turn
from ppl_gen import EM, HiddenMarkovModel

STEPS = 20
#: States, columns, sequences, steps of each; speed asked for of Baum-Welch.
JOBS = ((20, 10, 200, 500, "5x"), (5, 3, 1, 100_000, "2x, goal 4x"))


def truth(n_states: int, n_columns: int, rng: np.random.Generator) -> HiddenMarkovModel:
    """A chain that stays a while in states whose normals overlap."""
    model = HiddenMarkovModel(n_states)
    model.startprob_ = np.full(n_states, 1.0 / n_states)
    model.transmat_ = 0.9 * np.eye(n_states) + 0.1 * rng.dirichlet(np.ones(n_states), n_states)
    model.means_ = rng.normal(scale=2.0, size=(n_states, n_columns))
    model.covars_ = rng.uniform(0.5, 2.0, size=(n_states, n_columns))
    return model


def rows() -> Iterator[Row]:
    """Measure fitting, decoding and smoothing of both jobs."""
    for job in JOBS:
        yield from compared(*job)


def compared(
    n_states: int, n_columns: int, n_sequences: int, n_steps: int, target: str
) -> Iterator[Row]:
    """Fit, smooth and decode sequences of one shape on both sides."""
    rng = np.random.default_rng(0)
    model = truth(n_states, n_columns, rng)
    seeds = rng.integers(2**31, size=n_sequences).tolist()
    x = np.concatenate([model.sample(n_steps, seed)[0] for seed in seeds])
    lengths = np.full(n_sequences, n_steps)
    start: dict[str, Any] = {
        "startprob_": np.full(n_states, 1.0 / n_states),
        "transmat_": np.full((n_states, n_states), 0.5 / n_states) + 0.5 * np.eye(n_states),
        "means_": x[rng.choice(len(x), n_states, replace=False)],
        "covars_": np.ones((n_states, n_columns)),
    }

    def ours() -> HiddenMarkovModel:
        method = EM(max_iter=STEPS, tol=0.0)
        model = HiddenMarkovModel(n_states, min_covar=0.0, init_params="", inference=method)
        for name, value in start.items():
            setattr(model, name, value)
        return model.fit(x, lengths)

    def theirs() -> GaussianHMM:
        model = GaussianHMM(
            n_states,
            n_iter=STEPS,
            tol=-np.inf,
            init_params="",
            implementation="scaling",
            covars_prior=0.0,
            covars_weight=0.0,
        )
        for name, value in start.items():
            setattr(model, name, value)
        return model.fit(x, lengths)

    shape = f"K={n_states} D={n_columns}, {n_sequences} x {n_steps:,}"
    fast, slow, mine, peer = in_turn(ours, theirs, repeats=3)
    apart = max(
        float(abs(mine.means_ - peer.means_).max()),
        float(abs(mine.transmat_ - peer.transmat_).max()),
        float(abs(mine.history_ * len(x) / np.array(peer.monitor_.history) - 1.0).max()),
    )
    yield Row(
        f"HMM, diagonal, {shape}, {STEPS} steps of Baum-Welch",
        "hmmlearn `scaling`",
        fast,
        slow,
        f"likelihoods and parameters within {apart:.0e}",
        target,
    )
    fast, slow, found, expected = in_turn(
        lambda: mine.predict_proba(x, lengths),
        lambda: peer.predict_proba(x, lengths),
        repeats=7,
    )
    yield Row(
        f"posterior marginals, {shape}",
        "hmmlearn `scaling`",
        fast,
        slow,
        f"probabilities within {abs(found - expected).max():.0e}",
        "2x",
    )
    fast, slow, found, expected = in_turn(
        lambda: mine.decode(x, lengths), lambda: peer.decode(x, lengths), repeats=7
    )
    same = np.mean(found[1] == expected[1])
    yield Row(
        f"Viterbi, {shape}",
        "hmmlearn",
        fast,
        slow,
        f"log probability within {abs(found[0] / expected[0] - 1.0):.0e}, {same:.3%} of states",
        "2x",
    )
