"""Answers by drawing, for networks past the bound of exact inference."""

import warnings
from typing import Any

import numpy as np

from ppl_gen.algorithms.networks import draws as network_draws
from ppl_gen.counts import check_count
from ppl_gen.models.bayesian_network.reading import WHO
from ppl_gen.structures.bayesian_network.completion import weighted_draws
from ppl_gen.structures.bayesian_network.conditionals import Tabular
from ppl_gen.structures.bayesian_network.density import refuse_huge

Array = Any

#: Chains of Gibbs sampling, side by side.
CHAINS = 64
#: Chains that disagree by more are warned of (Vehtari et al., Bayesian Analysis 16, 2021).
RHAT = 1.05
#: Fewer effective draws than this are warned of.
FEW = 100.0


def query_by_draws(
    model: Any,
    targets: tuple[int, ...],
    codes: dict[int, int],
    numbers: dict[int, float],
    likelihoods: dict[int, Array],
    method: str,
    n_samples: int,
    random_state: Any,
) -> Any:
    """Return the table over discrete targets, with its standard errors and effective draws.

    After a Bayesian fit, under the posterior means of the parameters.

    Raises
    ------
    ValueError
        If the method is unknown, a target is a number, or no draw agrees with the evidence.
    """
    import pandas as pd

    network, means = model.structure_, model._means()
    if method not in ("likelihood_weighting", "gibbs"):
        raise ValueError(
            f"{WHO}.query: method is {method!r}; expected 'exact', 'likelihood_weighting' or "
            "'gibbs'"
        )
    check_count(n_samples, "n_samples", f"{WHO}.query")
    asked = [network.names[v] for v in targets if not network.sizes[v]]
    if asked:
        raise ValueError(f"{WHO}.query: {asked} are numbers, which method='exact' gives")
    refuse_huge(network, model._row(codes, numbers))
    rng = model._rng() if random_state is None else np.random.default_rng(random_state)
    if method == "likelihood_weighting":
        rows, log_weights = weighted_draws(
            network, means, {**codes, **numbers}, likelihoods, int(n_samples), rng
        )
        drawn = network_draws.weighted_table(rows, log_weights, targets, network.sizes)
        empty = drawn.ess == 0.0
    else:
        if not all(isinstance(c, Tabular) for c in network.conditionals):
            raise ValueError(
                f"{WHO}.query: method='gibbs' is for networks of tables; use 'likelihood_weighting'"
            )
        tables = [means[str(v)]["table"] for v in range(len(network.names))]
        sweeps = -(-int(n_samples) // CHAINS)
        chains = network_draws.gibbs(
            network.parents, tables, codes, likelihoods, CHAINS, max(sweeps, 4), rng
        )
        empty = len(chains.codes) == 0
        if chains.bound:
            bound = [network.names[v] for v in chains.bound]
            warnings.warn(
                f"{WHO}.query: states of {bound} exclude each other, so that moves of one node at "
                "a time may never join parts of the distribution; check the answer by "
                "method='likelihood_weighting'",
                RuntimeWarning,
                stacklevel=3,
            )
        if not empty:
            drawn = network_draws.chain_table(chains.codes, targets, network.sizes)
    if empty:
        raise ValueError(
            f"{WHO}.query: no draw agrees with the evidence, which has probability zero or close "
            "to it; raise n_samples, or use method='exact'"
        )
    if drawn.ess < FEW:
        warnings.warn(
            f"{WHO}.query: {drawn.ess:.0f} effective draws of {n_samples:,}; raise n_samples, or "
            "use method='exact'",
            RuntimeWarning,
            stacklevel=3,
        )
    if drawn.rhat > RHAT:
        warnings.warn(
            f"{WHO}.query: the chains disagree: R-hat is {drawn.rhat:.2f}; raise n_samples, or use "
            "method='likelihood_weighting'",
            RuntimeWarning,
            stacklevel=3,
        )
    index = model._index(targets)
    series = pd.Series(drawn.probabilities.ravel(), index=index, name="probability")
    series.attrs["standard_error"] = drawn.errors.ravel().tolist()
    series.attrs["ess"] = drawn.ess
    return series
