"""The hidden Markov model as a program."""

from typing import Any

import numpy as np

from ppl_gen.algorithms.trees import tree_map
from ppl_gen.families import Family
from ppl_gen.language import Program, deterministic, dist, ops, plate, sample

Array = Any


def chain_program(
    family: Family,
    n_states: int,
    start_prior: Array,
    transition_prior: Array,
    allowed: Array | None,
    given: dict[str, Any],
) -> Program:
    """Return the program of a hidden Markov model, with its priors.

    The states are marginalised, as the latent "z", in `dist.HiddenMarkov`. Sequences ``x``
    (n, T, D) stand side by side; the shorter ones end in rows of NaN, which change nothing.
    Without ``x`` the program draws ``n_sequences`` of ``length`` steps, all of them; after a fit
    these are how many sequences there were, and the steps of the longest. ``batch_size``
    subsamples the sequences.

    Parameters
    ----------
    family : Family
        Bound, and taking rows with missing entries.
    n_states : int
    start_prior, transition_prior : (K,), (K, K)
        Concentrations of the Dirichlet priors.
    allowed : (K, K) bool or None
        Transitions that may happen.
    given : dict
        Parts of the parameters that are not drawn.
    """

    def hidden_markov(
        x: Any = None,
        n_sequences: int = 1,
        length: int = 1,
        batch_size: int | None = None,
    ) -> None:
        if "start" in given:
            start = deterministic("start", ops.asarray(given["start"]), dims=("state",))
        else:
            start = sample("start", dist.Dirichlet(start_prior), dims=("state",))
        if "transition" in given:
            transition = ops.asarray(given["transition"])
            transition = deterministic("transition", transition, dims=("state", "state"))
        else:
            transition = _draw_transition(transition_prior, allowed)
        if "family" in given:
            parameters = tree_map(ops.asarray, given["family"])
        else:
            parameters = family.draw(n_states, "state")
        if x is not None:
            n_sequences, length = x.shape[:2]
        emissions = dist.Family(family, parameters)
        chain = dist.HiddenMarkov(start, transition, emissions, length, latent="z")
        with plate("sequence", n_sequences, subsample_size=batch_size) as batch:
            if batch_size is not None and x is not None:
                x = x[batch]
            sample("x", chain, obs=x, dims=("time", "column"))

    return Program(hidden_markov)


def _draw_transition(prior: Array, allowed: Array | None) -> Array:
    """Draw the transition matrix inside a program.

    A Dirichlet vector without some of its entries, renormalised, is Dirichlet again (Ng, Tian &
    Tang, Dirichlet and Related Distributions, 2011, theorem 2.5): so masked rows are drawn.
    """
    if allowed is None:
        rows = dist.Dirichlet(prior).to_event(1)
        return sample("transition", rows, dims=("state", "state"))
    ways = sample(
        "transition_ways", dist.Dirichlet(prior).to_event(1), dims=("state", "state")
    ) * ops.asarray(allowed.astype(np.float64))
    transition = ways / ops.sum(ways, axis=-1, keepdims=True)
    return deterministic("transition", transition, dims=("state", "state"))
