"""The hidden Markov chain as one distribution, the part that both engines share.

Shapes: B is the batch shape, T the number of steps, E the event shape of one step, K the number
of states.
"""

from __future__ import annotations

from typing import Any

from ppl_gen.algorithms import hidden_markov_scan as chain
from ppl_gen.engines.base import RandomSource
from ppl_gen.engines.marginal import chosen, stacked_shape


class HiddenMarkovRules:
    """A hidden Markov chain with its path of states summed out.

    ``p(x) = sum_z p(z_1) p(x_1 | z_1) prod_t p(z_t | z_t-1) p(x_t | z_t)``, one sequence a batch
    element and the steps its event: batch B, event (T, E). Several sequences come in a plate.

    Missing values are NaN. A `Family` marginalises the missing entries of a step, bound with
    ``missing=True`` where it has that setting; under other emissions a step with any NaN counts
    as missing as a whole. Sequences of unequal length are padded with steps of NaN at the end:
    that is exact, since steps after the last observed one sum to one.

    Parameters
    ----------
    start : array (..., K)
        Probabilities of the first state.
    transition : array (..., K, K)
        Probabilities of the next state; the rows are the states before, and sum to one.
    emissions : distribution
        Of one step. Its rightmost batch axis, of size K, runs over the states.
    length : int
        The number of steps T.
    latent : str, default "z"
        The name under which the path of states can be asked for.

    Raises
    ------
    ValueError
        If the shapes disagree, or there is no step.

    References
    ----------
    Rabiner (1989), A tutorial on hidden Markov models, Proceedings of the IEEE 77, equations
    19-21 and 27.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import dist, engines, program, sample
    >>> @program
    ... def two_levels(y=None):
    ...     emissions = dist.Normal([0.0, 5.0], 1.0)
    ...     chain = dist.HiddenMarkov([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], emissions, length=4)
    ...     sample("y", chain, obs=y)
    >>> y = np.array([0.2, np.nan, 5.1, 4.8])
    >>> site = engines.get("pyro").trace(two_levels.pyro, (), {"y": y})["y"]
    >>> site.latent, float(site.log_prob.round(3))
    ('z', -5.315)
    """

    start: Any
    transition: Any
    emissions: Any
    length: int
    latent: str
    event_shape: Any
    batch_shape: Any
    #: Namespace of the engine's arrays.
    ops: Any

    def log_chain(self) -> tuple[Any, Any]:
        """Return the logarithms of `start` and `transition`, with no gradient at their zeros."""
        ops = self.ops
        start, transition = (
            ops.where(p == 0, -float("inf"), ops.log(ops.where(p == 0, 1.0, p)))
            for p in (self.start, self.transition)
        )
        return start, transition

    def log_emission(self, value: Any) -> Any:
        """Return the log density of each step in each state, (..., T, K); 0 where missing.

        Raises
        ------
        ValueError
            If the steps of `value` are not those of the distribution.
        """
        ops, event = self.ops, len(self.event_shape) - 1
        if tuple(value.shape[value.ndim - event - 1 :]) != tuple(self.event_shape):
            raise ValueError(
                f"HiddenMarkov.log_prob: the value has shape {tuple(value.shape)}; expected it to "
                f"end in (length, one step), {tuple(self.event_shape)}; pass the number of steps "
                "as length, and pad shorter sequences with NaN"
            )
        # Time goes first, where it meets no batch axis of the emissions.
        steps = ops.expand_dims(ops.moveaxis(value, -event - 1, 0), axis=-event - 1)
        if hasattr(self.emissions, "sample_labels"):
            return ops.moveaxis(self.emissions.log_prob(steps), 0, -2)
        batch, one = tuple(steps.shape[: steps.ndim - event]), tuple(self.event_shape[1:])
        absent = ops.any(ops.isnan(ops.reshape(steps, (*batch, -1))), axis=-1)
        states = ops.broadcast_shapes(batch, tuple(self.emissions.batch_shape))
        steps = ops.broadcast_to(steps, (*states, *one))
        # Replaced before the density as well: the gradient at NaN is NaN, masked or not.
        unknown = ops.reshape(absent, (*batch, *(1 for _ in one)))
        each = self.emissions.log_prob(self.completed(steps, unknown))
        return ops.moveaxis(ops.where(absent, 0.0, each), 0, -2)

    def log_prob(self, value: Any) -> Any:
        """Return the log density of sequences (..., T, E), the path summed out."""
        emission = self.log_emission(value)
        return chain.log_evidence(
            self.ops, *self.log_chain(), emission, parallel=self.in_parallel(emission.shape)
        )

    def latent_log_joint(self, value: Any) -> Any:
        """Return ``log p(z_t = k, value)``, shape (..., T, K)."""
        return chain.log_joint(self.ops, *self.log_chain(), self.log_emission(value))

    def latent_posterior(self, value: Any) -> Any:
        """Return the probability of each state at each step given `value`, shape (..., T, K)."""
        return chain.smoothed(self.ops, *self.log_chain(), self.log_emission(value))

    def sample_latent(self, value: Any, random: RandomSource) -> Any:
        """Draw the path of states given `value`, shape (..., T)."""
        return chain.draw_path(self.ops, *self.log_chain(), self.log_emission(value), random)

    def draw(self, random: RandomSource, sample_shape: Any) -> Any:
        """Draw a path of states, then each step from its state."""
        ops, count = self.ops, self.start.shape[-1]
        batch = stacked_shape(sample_shape, self.batch_shape)
        silent = ops.zeros((*batch, self.length, count))
        path = chain.draw_path(ops, *self.log_chain(), silent, random)
        if hasattr(self.emissions, "sample_labels"):
            return self.emissions.sample_labels(path, random)
        each = self.draw_components(random, (self.length, *batch, count))
        steps = chosen(ops, each, ops.moveaxis(path, -1, 0), self.event_shape[1:])
        return ops.moveaxis(steps, 0, len(batch))

    def in_parallel(self, shape: Any) -> bool:
        """Whether to multiply the steps in a tree, for log emissions of this shape."""
        raise NotImplementedError

    def completed(self, steps: Any, unknown: Any) -> Any:
        """Return `steps` with values of the emissions' support where they are unknown."""
        raise NotImplementedError

    def draw_components(self, random: RandomSource, batch: tuple[int, ...]) -> Any:
        """Draw from the emissions of every state, shape ``batch + event``."""
        raise NotImplementedError


def check_chain(start: Any, transition: Any, emissions: Any, length: int) -> int:
    """Return the number of steps of a chain whose parts fit together.

    Raises
    ------
    ValueError
        If the numbers of states disagree, or there is no step.
    """
    shapes = tuple(start.shape), tuple(transition.shape), tuple(emissions.batch_shape)
    if any(len(shape) < n for shape, n in zip(shapes, (1, 2, 1), strict=True)) or (
        len({shapes[0][-1], *shapes[1][-2:], shapes[2][-1]}) > 1
    ):
        raise ValueError(
            f"dist.HiddenMarkov: start has shape {shapes[0]}, transition {shapes[1]} and the "
            f"emissions batch shape {shapes[2]}; expected (..., K), (..., K, K) and (..., K) for "
            "K states; give the emissions one batch element a state (.to_event for the columns)"
        )
    if int(length) != length or length < 1:
        raise ValueError(
            f"dist.HiddenMarkov: length is {length}; expected a whole number of steps, 1 or more"
        )
    return int(length)
