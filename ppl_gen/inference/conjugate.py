"""Exact posterior draws of models with a conjugate prior."""

from typing import Any, Protocol

import numpy as np

from ppl_gen.inference.base import InferenceMethod

__all__ = ["Conjugate", "ConjugateProblem"]


class ConjugateProblem(Protocol):
    """What the method asks of a model."""

    def draw_posterior(
        self, data: Any, n_draws: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return independent draws of the program's sites, (n_draws, ...)."""


class Conjugate(InferenceMethod):
    """Independent draws from the posterior itself, where the prior is conjugate.

    There are no chains, and nothing to converge: the draws are exact.

    Parameters
    ----------
    draws : int
        How many.

    Examples
    --------
    >>> from ppl_gen import Conjugate, LinearAutoregression
    >>> from ppl_gen.datasets import load_nile
    >>> model = LinearAutoregression(1, inference=Conjugate(draws=500), random_state=0)
    >>> model = model.fit(load_nile().frame["flow"])
    >>> model.posterior_.shape
    (1, 500)
    """

    name = "conjugate"

    def __init__(self, draws: int = 1000) -> None:
        self.draws = draws

    def check(self) -> None:
        """Raise ValueError if a setting is out of range."""
        if not isinstance(self.draws, int | np.integer) or self.draws < 1:
            raise ValueError(
                f"Conjugate: draws is {self.draws!r}; expected a whole number, at least 1"
            )

    def fit(
        self, problem: ConjugateProblem, data: Any, rng: np.random.Generator
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Draw from the posterior of a model given its data.

        Parameters
        ----------
        problem : ConjugateProblem
        data : object
            What the model is fitted to.
        rng : numpy.random.Generator

        Returns
        -------
        dict of arrays (draws, ...)
            The sites of the model's program.
        """
        self.check()
        return problem.draw_posterior(data, int(self.draws), rng)
