"""The hidden Markov model: a Markov chain of states, and a row of some family from each of them.

``p(x, z) = start[z_1] prod_t transition[z_t-1, z_t] prod_t p(x_t | z_t)``
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ppl_gen.algorithms.hidden_markov import (
    Emissions,
    Smoothed,
    log_evidence,
    smooth,
    smooth_by_hmmlearn,
)
from ppl_gen.algorithms.hidden_markov_paths import draw_ahead, draw_paths
from ppl_gen.algorithms.trees import tree_map, tree_sum
from ppl_gen.engines.random_source import NumPyRandom
from ppl_gen.families import Family, MixtureFamily, Parameters, Statistics
from ppl_gen.language import Program
from ppl_gen.sequences import Padded, Sequences
from ppl_gen.structures.hidden_markov_program import chain_program
from ppl_gen.structures.hidden_markov_start import best_start, hot_of, shared_rows
from ppl_gen.structures.laid_out import Side
from ppl_gen.structures.latent_class import DEAD_COUNT, with_holes

Array = Any

#: Entries of the transfer matrices of all steps that a device has room for, with their gradients.
TREE_ROOM = 2**27


@dataclasses.dataclass(frozen=True, eq=False)
class HiddenMarkov:
    """A hidden Markov model in a family bound to the data.

    Parameters
    ----------
    family : Family
        Bound to the training rows.
    n_states : int
    start_prior : (K,)
        Concentrations of the Dirichlet prior of the first state; ones are flat.
    transition_prior : (K, K)
        The same for each row of the transition matrix.
    allowed : (K, K) bool or None
        Transitions that may happen; None if all may.
    given : dict
        Parts of the parameters ("start", "transition", "family") that are given, not learned;
        under "held", parameters of the family that are.

    Notes
    -----
    Parameters are ``{"start": (K,), "transition": (K, K), "family": {...}}``; they add a leading
    axis for draws.
    """

    family: Family
    n_states: int
    start_prior: Array
    transition_prior: Array
    allowed: Array | None = None
    given: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def whole(self) -> tuple[bool, ...]:
        """Which columns hold whole numbers: counts, codes, yes or no."""
        return self.family.whole

    @property
    def has_mode(self) -> bool:
        """Whether the priors have a mode: none of their densities is infinite at zero."""
        return bool(self.start_prior.min() >= 1.0 and self.transition_prior.min() >= 1.0)

    @property
    def is_exchangeable(self) -> bool:
        """Whether the states can change places without changing the model."""
        flat = np.ptp(self.start_prior) == 0.0 and all(
            np.ptp(entries) == 0.0
            for entries in (self.transition_prior.diagonal(), self._off_diagonal)
            if entries.size
        )
        return flat and self.allowed is None and not self.given

    @property
    def _off_diagonal(self) -> Array:
        return self.transition_prior[~np.eye(self.n_states, dtype=bool)]

    def with_prior(self) -> "HiddenMarkov":
        """Return the structure with priors under which EM finds the mode of a program.

        A program moves log ratios of probabilities, whose density has one count more in each
        cell than that of the probabilities: no probability is zero at its mode.
        """
        return dataclasses.replace(
            self,
            family=self.family.with_settings(lambda family: family.with_prior()),
            start_prior=self.start_prior + 1.0,
            transition_prior=self.transition_prior + 1.0,
        )

    def to_tree(self) -> dict[str, Any]:
        """Return the structure as plain data, for an artefact."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "HiddenMarkov":
        """Return the structure that :meth:`to_tree` gave."""
        return cls(**tree)

    def coords(self, names: list[Any]) -> dict[str, list[Any]]:
        """Labels of the axes of the program's sites, given the names of the columns."""
        return self.family.coords(names)

    def check(self, sequences: Sequences) -> None:
        """Raise ValueError if rows lie outside the support of the family."""
        self.family.check(sequences.values)

    # -- what the recursions need --------------------------------------------------------------

    def emissions(self, parameters: Parameters, sequences: Sequences) -> Emissions:
        """Log densities of all steps under each state."""
        side = Side.of(sequences, self.n_states)
        return side.emissions(self.family, parameters["family"], self.n_states)

    def log_evidence(self, parameters: Parameters, sequences: Sequences) -> Array:
        """Log density of each sequence, in nats: (n,)."""
        start, transition = parameters["start"], parameters["transition"]
        return sequences.map(
            lambda some: log_evidence(start, transition, self.emissions(parameters, some))
        )

    def marginals(self, parameters: Parameters, sequences: Sequences) -> Array:
        """Posterior probability of each state at each step, by row: (N, K)."""

        def by_row(some: Sequences) -> Array:
            emissions = self.emissions(parameters, some)
            found = smooth(parameters["start"], parameters["transition"], emissions)
            rows = np.empty_like(found.marginals)
            rows[emissions.layout.rows] = found.marginals
            return rows

        return sequences.map(by_row)

    # -- the EM protocol -----------------------------------------------------------------------

    #: Likelihoods of chains rise slowly long before they have risen.
    em_settings: ClassVar[dict[str, Any]] = {"max_iter": 1000, "tol": 1e-6}

    def initialize(self, sequences: Sequences, rng: np.random.Generator, how: str) -> Parameters:
        """Start from states that share the rows in one of several ways; known states stay.

        Each way is tried for a few steps, on some of the rows, and the best goes on (Biernacki,
        Celeux & Govaert, Computational Statistics & Data Analysis 41, 2003).
        """
        ordered = self.allowed is not None
        ways = shared_rows(self.family, self.n_states, sequences, rng, how, ordered=ordered)
        starts = [self._shared(sequences, *way, rng) for way in ways]
        return best_start(self, starts, sequences)

    def _shared(
        self, sequences: Sequences, shares: Array, moves: Array, rng: np.random.Generator
    ) -> Parameters:
        """Parameters from shares of the rows (N, K), and expected moves (K, K)."""
        firsts = sequences.ends - sequences.lengths
        counts = {"start": shares[firsts].sum(axis=0) + 1.0, "transition": moves + 1.0}
        family = self.given.get("family")
        if family is None:
            family = self.family.initial_parameters(sequences.values, shares, rng)
        return {"start": self._start(counts), "transition": self._transition(counts)} | {
            "family": family
        }

    def initialize_shapes(self) -> Parameters:
        """Parameters of the right shapes, to be filled in."""
        n_states, width = self.n_states, len(self.whole)
        counts = {"start": np.ones(n_states), "transition": np.ones((n_states, n_states))}
        each = np.concatenate([np.zeros((1, width)), np.eye(width)])  # their covariance is regular
        rows = np.repeat(each, n_states, axis=0)
        hot = hot_of(np.arange(len(rows)) % n_states, n_states)
        family = self.family.estimate(self.family.initial_statistics(rows, hot))
        return {
            "start": self._start(counts),
            "transition": self._transition(counts),
            "family": family,
        }

    @property
    def peers(self) -> dict[str, Any]:
        """E-steps of other libraries, by the name that `EM` takes for its engine."""
        return {"hmmlearn": functools.partial(self.e_step, smoother=smooth_by_hmmlearn)}

    def e_step(
        self, parameters: Parameters, data: Any, smoother: Callable[..., Smoothed] = smooth
    ) -> tuple[Statistics, Any]:
        """Expected statistics and log likelihood; both add over sequences."""
        if isinstance(data, Padded):
            return self._e_step_on_device(parameters, data)
        side = Side.of(data, self.n_states)
        emissions = side.emissions(self.family, parameters["family"], self.n_states)
        found = smoother(parameters["start"], parameters["transition"], emissions, data.weights)
        impossible = np.flatnonzero(found.log_evidence == -np.inf)
        if len(impossible):
            raise ValueError(
                f"HiddenMarkovModel.fit: sequence {data.first + impossible[0]} has probability "
                "zero: no path of states that the transitions allow explains it and its known "
                "states; allow more transitions, or correct the known states"
            )
        evidence, shares = found.log_evidence, found.marginals
        occupancy = found.start + found.transitions.sum(axis=0)
        if side.seen is not None:
            shares *= side.seen[:, None]
            occupancy = shares.sum(axis=0)
        total = evidence.sum() if data.weights is None else data.weights @ evidence
        statistics = {
            "start": found.start,
            "transition": found.transitions,
            "occupancy": occupancy,
            "family": side.statistics(self.family, parameters["family"], shares),
        }
        return statistics, total

    def _e_step_on_device(self, parameters: Parameters, data: Padded) -> tuple[Statistics, Any]:
        """Return :meth:`e_step` where JAX traces it: all counts are gradients of the evidence."""
        import jax

        from ppl_gen.algorithms import hidden_markov_scan
        from ppl_gen.engines.jax_arrays import ops as jax_ops

        n, steps, width = data.values.shape
        family = with_holes(self.family)
        flat, statistics_of = family.e_step(
            parameters["family"], data.values.reshape(n * steps, width)
        )
        log_emission = flat.reshape(n, steps, self.n_states)
        if data.labels is not None:
            states = jax_ops.arange(self.n_states)
            fits = (data.labels[..., None] < 0) | (data.labels[..., None] == states)
            log_emission = jax_ops.where(fits, log_emission, -jax_ops.inf)
        weights = jax_ops.ones(n) if data.weights is None else data.weights

        # The tree takes K times the work in log T steps: for a GPU with the room.
        parallel = jax.default_backend() != "cpu" and n * steps * self.n_states**2 <= TREE_ROOM

        def total(start: Array, transition: Array, emission: Array) -> Array:
            return weights @ hidden_markov_scan.log_evidence(
                jax_ops, start, transition, emission, parallel=parallel
            )

        logs = [jax_ops.log(parameters["start"]), jax_ops.log(parameters["transition"])]
        evidence, counts = jax.value_and_grad(total, argnums=(0, 1, 2))(*logs, log_emission)
        seen = ~jax_ops.all(jax_ops.isnan(data.values), axis=-1)
        shares = (counts[2] * seen[..., None]).reshape(n * steps, self.n_states)
        # What comes after the end is no move: nothing is known there but the state before.
        after = jax_ops.arange(1, steps) >= data.lengths[:, None]
        beyond = (counts[2][:, :-1] * after[..., None]).sum(axis=(0, 1))
        moves = counts[1] - beyond[:, None] * parameters["transition"]
        statistics = {
            "start": counts[0],
            "transition": moves,
            "occupancy": shares.sum(axis=0),
            "family": statistics_of(shares),
        }
        return statistics, evidence

    def m_step(self, statistics: Statistics) -> Parameters:
        """Maximise the expected log joint density, less the penalty."""
        family = self.given.get("family")
        if family is None:
            held = self.given.get("held", {})
            family = self.family.estimate_given(statistics["family"], held)
        return {
            "start": self._start(statistics),
            "transition": self._transition(statistics),
            "family": family,
        }

    def _start(self, counts: Statistics) -> Array:
        if "start" in self.given:
            return self.given["start"]
        return _mode(counts["start"], self.start_prior, np.ones(self.n_states, dtype=bool))

    def _transition(self, counts: Statistics) -> Array:
        if "transition" in self.given:
            return self.given["transition"]
        return _mode(counts["transition"], self.transition_prior, self._allowed)

    @property
    def _allowed(self) -> Array:
        if self.allowed is None:
            return np.ones((self.n_states, self.n_states), dtype=bool)
        return self.allowed

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        """Return what the M-step subtracts from the expected log likelihood."""
        total = 0.0
        if "start" not in self.given:
            total -= _log_prior(parameters["start"], self.start_prior)
        if "transition" not in self.given:
            allowed = self._allowed
            total -= _log_prior(parameters["transition"][allowed], self.transition_prior[allowed])
        if "family" not in self.given:
            total += self.family.penalty(parameters["family"], statistics["family"])
        return total

    def revive(
        self,
        parameters: Parameters,
        statistics: Statistics,
        sequences: Sequences,
        rng: np.random.Generator,
    ) -> tuple[Parameters, int]:
        """Re-seed states that are never visited, each near a row drawn at random."""
        dead = np.flatnonzero(statistics["occupancy"] < DEAD_COUNT)
        known = sequences.labels is not None and (sequences.labels >= 0).all()
        if not 0 < len(dead) < self.n_states or self.given or self.allowed is not None or known:
            return parameters, 0
        labels = np.full(len(sequences.values), -1)
        features = self.family.features(sequences.values)
        share = min(max(2, len(labels) // (10 * self.n_states)), len(labels) - 1)
        for state in dead:
            distance = ((features - features[rng.integers(len(labels))]) ** 2).sum(axis=1)
            labels[np.argpartition(distance, share)[:share]] = state
        hot = hot_of(labels, self.n_states)
        seeded = self.family.initial_parameters(sequences.values, hot, rng)
        start, transition = np.array(parameters["start"]), np.array(parameters["transition"])
        start[dead] = transition[:, dead] = 1.0 / (10 * self.n_states)
        transition[dead] = 1.0 / self.n_states
        return {
            "start": start / start.sum(),
            "transition": transition / transition.sum(axis=1, keepdims=True),
            "family": self.family.merge(parameters["family"], seeded, dead),
        }, len(dead)

    def n_free(self) -> int:
        """Count the free parameters, as AIC and BIC do."""
        count = 0
        if "start" not in self.given:
            count += self.n_states - 1
        if "transition" not in self.given:
            count += int(self._allowed.sum()) - self.n_states
        if "family" not in self.given:
            count += self.family.n_free(self.n_states)
            count -= _n_held(self.family, self.given.get("held", {}), self.n_states)
        return count

    # -- drawing -------------------------------------------------------------------------------

    def sample(
        self,
        parameters: Parameters,
        length: int,
        rng: np.random.Generator,
        state: int | None = None,
    ) -> tuple[Array, Array]:
        """Draw a sequence (length, D) and its states (length,); `state` is the first one."""
        start = np.cumsum(parameters["start"])
        onward = np.cumsum(parameters["transition"], axis=1)
        uniform = rng.random(length)
        states = np.empty(length, dtype=np.intp)
        states[0] = _pick(start, uniform[0]) if state is None else state
        for t in range(1, length):
            states[t] = _pick(onward[states[t - 1]], uniform[t])
        values = self.family.sample(parameters["family"], states, NumPyRandom(rng))
        return values, states

    def draw_onward(
        self, parameters: Parameters, shares: Array, steps: int, rng: np.random.Generator
    ) -> Array:
        """Draw the steps that follow states of probability `shares` (..., K): (..., steps, D)."""
        states = draw_ahead(shares, parameters["transition"], steps, rng)
        values = self.family.sample(parameters["family"], states.ravel(), NumPyRandom(rng))
        return values.reshape(*states.shape, -1)

    def fill(self, draws: Sequence[Parameters], weights: Array, sequences: Sequences) -> Array:
        """Complete rows by their conditional mean or mode, over weighted draws: (N, D).

        Parameters
        ----------
        draws : S parameters
        weights : (S, n)
            Of each draw for each sequence.
        """
        expected = []
        for draw, weight in zip(draws, weights, strict=True):
            share = self.marginals(draw, sequences) * np.repeat(weight, sequences.lengths)[:, None]
            expected.append(self.family.expected(draw["family"], sequences.values, share))
        return self.family.settle(tree_sum(expected), sequences.values)

    def draw_states(
        self, parameters: Parameters, sequences: Sequences, rng: np.random.Generator, n: int = 1
    ) -> Array:
        """Draw paths of states from their posterior, by row: (n, N)."""
        emissions = self.emissions(parameters, sequences)
        return draw_paths(parameters["start"], parameters["transition"], emissions, rng, n)

    def draw_missing(
        self, parameters: Parameters, sequences: Sequences, rng: np.random.Generator
    ) -> Array:
        """Complete rows by a draw from the joint conditional of what is missing: (N, D)."""
        states = self.draw_states(parameters, sequences, rng)[0]
        return self.family.draw_missing(
            parameters["family"], sequences.values, states, NumPyRandom(rng)
        )

    # -- the program ---------------------------------------------------------------------------

    def program(self) -> Program:
        """Return the model as a program, with its priors: see `chain_program`."""
        if "held" in self.given:
            raise ValueError(
                f"HiddenMarkovModel: params leaves {', '.join(self.given['held'])} of the "
                "emissions as they are, and learns the others; EM does that: use it, or hold all "
                "or none"
            )
        family = with_holes(self.family)
        return chain_program(
            family, self.n_states, self.start_prior, self.transition_prior, self.allowed, self.given
        )

    def program_data(self, sequences: Sequences) -> dict[str, Array]:
        """Return the sequences, less what is known of their states, as the program's arguments.

        With their number and length, so that as many are drawn as were observed.
        """
        x = Padded.of(sequences).values
        return {"x": x, "n_sequences": len(x), "length": x.shape[1]}

    def parameters(self, sites: dict[str, Array]) -> Parameters:
        """Return the parameters from the sites of the program; leading axes are draws."""
        family = self.given.get("family")
        n_draws = len(sites["transition"])
        return {
            "start": sites["start"],
            "transition": sites["transition"],
            "family": self.family.parameters(sites)
            if family is None
            else tree_map(lambda leaf: np.stack([leaf] * n_draws), family),
        }

    def sites(self, parameters: Parameters) -> dict[str, Array]:
        """Name parameters as the sites of the program."""
        sites = {"start": parameters["start"], "transition": parameters["transition"]}
        if self.allowed is not None and "transition" not in self.given:
            # What is not allowed takes part in the draw, and is left out of what is drawn.
            spared = np.where(self.allowed, parameters["transition"] * self._share, 0.0)
            ways = self.transition_prior / self.transition_prior.sum(axis=1, keepdims=True)
            sites["transition_ways"] = np.where(self.allowed, spared, ways)
        if "family" not in self.given:
            sites |= self.family.sites(parameters["family"])
        return sites

    @cached_property
    def _share(self) -> Array:
        """Share of each row's prior counts that is allowed: (K, 1)."""
        inside = np.where(self._allowed, self.transition_prior, 0.0).sum(axis=1, keepdims=True)
        return inside / self.transition_prior.sum(axis=1, keepdims=True)


def _n_held(family: Family, held: Parameters, n_classes: int) -> int:
    """Free parameters among those of the family that are held."""
    count = 0
    if "components" in held and isinstance(family, MixtureFamily):
        count += _n_held(family.family, held["components"], n_classes * family.n_components)
    if "weights" in held:
        count += held["weights"].size - n_classes
    if "mean" in held:
        count += held["mean"].size
    if "precision_cholesky" in held:
        count += family.n_free(n_classes) - n_classes * (family.n_columns or 0)
    return count


def _pick(cumulative: Array, uniform: float) -> int:
    return min(int(np.searchsorted(cumulative, uniform, side="right")), len(cumulative) - 1)


def _mode(counts: Array, prior: Array, allowed: Array) -> Array:
    """Mode of Dirichlets given counts; a row without any is uniform over what is allowed."""
    weights = np.where(allowed, np.maximum(counts + prior - 1.0, 0.0), 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    uniform = allowed / allowed.sum(axis=-1, keepdims=True)
    return np.where(total > 0.0, weights / np.where(total > 0.0, total, 1.0), uniform)


def _log_prior(probabilities: Array, prior: Array) -> float:
    """Log density of Dirichlets up to a constant; 0 log 0 = 0."""
    counts = prior - 1.0
    used = counts != 0.0
    with np.errstate(divide="ignore"):
        return float((counts[used] * np.log(probabilities[used])).sum())
