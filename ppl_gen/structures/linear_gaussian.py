"""The linear Gaussian state space model: its EM protocol, states, forecasts and fillings."""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace
from ppl_gen.algorithms.kalman import (
    Filtered,
    LinearGaussian,
    kalman_filter,
    kalman_smoother,
    partial_observation,
    times,
)
from ppl_gen.algorithms.kalman_paths import draw_states, root, simulate
from ppl_gen.algorithms.trees import tree_sum
from ppl_gen.language import Program
from ppl_gen.sequences import Padded, Sequences
from ppl_gen.structures.linear_gaussian_program import make_program, sites
from ppl_gen.structures.linear_gaussian_start import components, interpolated

Array = Any
Parameters = dict[str, Any]
Statistics = dict[str, Any]

#: A part of the model: its matrix, its offset and its covariance.
TRANSITION = ("transition", "transition_offset", "transition_covariance")
OBSERVATION = ("observation", "observation_offset", "observation_covariance")


@dataclasses.dataclass(frozen=True, eq=False)
class LinearGaussianStates:
    """Hidden states that move linearly, seen through a linear map, both with normal noise.

    Parameters
    ----------
    n_states : int
        Dimension K of the state.
    n_columns : int
        Dimension D of what is observed.
    fixed : dict of arrays
        Parameters that are given, by their names in `LinearGaussian`; the others are learned.
    diagonal : tuple of str
        Covariances that have no entries off the diagonal.
    floor : float
        Added to every variance that is learned, as a share of its prior scale squared.
    prior : dict
        Location and scale of the prior of each parameter, for the program; see `bind`.

    Notes
    -----
    Parameters are the fields of `LinearGaussian`, as a dict. EM is Shumway & Stoffer (J. Time
    Series Analysis 3, 1982), with offsets, and missing entries completed from all the others.
    """

    em_settings: ClassVar[dict[str, Any]] = {"max_iter": 1000, "tol": 1e-6}
    n_states: int
    n_columns: int
    fixed: dict[str, Array] = dataclasses.field(default_factory=dict)
    diagonal: tuple[str, ...] = ()
    floor: float = 1e-9
    prior: dict[str, dict[str, Array]] = dataclasses.field(default_factory=dict)

    def bind(self, data: Sequences) -> "LinearGaussianStates":
        """Return the structure with priors on the scale of the sequences.

        Entries of maps and offsets are normal around where EM would start from, covariances
        have half-normal deviations (one or diagonal) or Wishart precisions, all of them as wide
        as the columns themselves; states have unit scale, or that of given loadings.
        """
        filled = interpolated(data)
        guess = self._guessed(data, filled, None)
        wide = np.sqrt(_variances(filled))
        unit = np.full(self.n_states, self._unit(filled) ** 0.5)
        ratio = wide[:, None] / unit
        normal = {
            "initial_mean": (np.zeros(self.n_states), 10.0 * unit),
            "transition": (np.zeros((self.n_states,) * 2), np.ones((self.n_states,) * 2)),
            "transition_offset": (np.zeros(self.n_states), unit),
            "observation": (np.zeros_like(ratio), ratio),
            "observation_offset": (guess["observation_offset"], 10.0 * wide),
        }
        if "observation" in self.fixed:
            normal["initial_mean"] = (guess["initial_mean"], 10.0 * unit)
        prior = {name: {"loc": loc, "scale": scale} for name, (loc, scale) in normal.items()}
        prior["observation_covariance"] = {"scale": wide}
        prior["initial_covariance"] = prior["transition_covariance"] = {"scale": unit}
        return dataclasses.replace(self, prior=prior)

    @property
    def whole(self) -> tuple[bool, ...]:
        """Which columns hold whole numbers: none."""
        return (False,) * self.n_columns

    def with_prior(self) -> "LinearGaussianStates":
        """Return the structure itself: EM maximises the likelihood."""
        return self

    def check(self, sequences: Sequences) -> None:
        """Accept whatever has been read: NaN is missing."""

    def to_tree(self) -> dict[str, Any]:
        """Return the structure as plain data, for an artefact."""
        tree = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**tree, "diagonal": list(self.diagonal)}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "LinearGaussianStates":
        """Return the structure that :meth:`to_tree` gave."""
        return cls(**{**tree, "diagonal": tuple(tree["diagonal"])})

    # -- density and states ------------------------------------------------------------------

    def log_evidence(self, parameters: Parameters, sequences: Sequences) -> Array:
        """Log density of each sequence, in nats: (n,)."""
        found = np.empty(len(sequences))
        for chosen, padded in sequences.numbered_blocks():
            filtered = kalman_filter(LinearGaussian(**parameters), padded.values)
            found[chosen] = filtered.log_evidence
        return found

    def states(
        self, parameters: Parameters, sequences: Sequences, *, smooth: bool
    ) -> tuple[Array, Array]:
        """Means and covariances of the states of all steps: (N, K), (N, K, K).

        Given the steps so far, or (`smooth`) all of them.
        """
        model = LinearGaussian(**parameters)
        means = np.empty((len(sequences.values), self.n_states))
        covariances = np.empty((*means.shape, self.n_states))
        for chosen, padded in sequences.numbered_blocks():
            filtered = kalman_filter(model, padded.values)
            found = kalman_smoother(model, filtered) if smooth else filtered
            for place, number in enumerate(chosen):
                length = sequences.lengths[number]
                rows = slice(sequences.ends[number] - length, sequences.ends[number])
                means[rows] = found.mean[place, :length]
                covariances[rows] = found.covariance[place, :length]
        return means, covariances

    def last_states(self, parameters: Parameters, sequences: Sequences) -> tuple[Array, Array]:
        """Mean and covariance of the state at the end of each sequence: (n, K), (n, K, K)."""
        means, covariances = self.states(parameters, sequences, smooth=False)
        return means[sequences.ends - 1], covariances[sequences.ends - 1]

    # -- the EM protocol ---------------------------------------------------------------------

    def e_step(self, parameters: Parameters, data: Any) -> tuple[Statistics, Array]:
        """Expected statistics and log likelihood; both add over sequences.

        Parameters
        ----------
        parameters : dict
        data : Sequences, or Padded of any library
        """
        if isinstance(data, Sequences):
            parts = [self.e_step(parameters, padded) for _, padded in data.numbered_blocks()]
            return tree_sum([part[0] for part in parts]), sum(part[1] for part in parts)
        model = LinearGaussian(**parameters)
        filtered = kalman_filter(model, data.values)
        smoothed = kalman_smoother(model, filtered)
        statistics = self._statistics(
            model, data, smoothed.mean, smoothed.covariance, smoothed.lag_one
        )
        xp = array_namespace(data.values)
        evidence = filtered.log_evidence
        return statistics, xp.sum(evidence if data.weights is None else evidence * data.weights)

    def _statistics(
        self, model: LinearGaussian, data: Padded, mean: Array, covariance: Array, lag_one: Array
    ) -> Statistics:
        """Sums over steps of what the M-step needs, given the states' posterior.

        Steps after the last value of a sequence say nothing, and are left out.
        """
        xp = array_namespace(data.values)
        seen = xp.any(~xp.isnan(data.values), axis=2)  # (n, T)
        count_of_seen = xp.astype(seen, mean.dtype)
        rest = xp.flip(xp.cumulative_sum(xp.flip(count_of_seen, axis=1), axis=1), axis=1)
        inside = xp.astype(rest > 0.0, mean.dtype)
        if data.weights is not None:
            count_of_seen = count_of_seen * data.weights[:, None]
            inside = inside * data.weights[:, None]
        square = covariance + _outer(mean, mean)
        moved = inside[:, 1:]
        crossed = lag_one + _outer(mean[:, 1:], mean[:, :-1])
        value, slope, spread = self._completed(model, data.values)
        # E[x] = A m + c and E[x z'] = A E[z z'] + c m', with x = A z + c + N(0, spread).
        completed = times(slope, mean) + value
        seen_cross = slope @ square + _outer(value, mean)
        turned = xp.matrix_transpose(slope)
        shifted = _outer(times(slope, mean), value)
        seen_square = (
            slope @ square @ turned
            + shifted
            + xp.matrix_transpose(shifted)
            + _outer(value, value)
            + spread
        )
        return {
            "initial": {
                "count": xp.sum(inside[:, 0]),
                "sum": _summed(inside[:, :1], mean[:, :1]),
                "square": _summed(inside[:, :1], square[:, :1]),
            },
            "transition": {
                "count": xp.sum(moved),
                "gram": _summed(moved, square[:, :-1]),
                "sum": _summed(moved, mean[:, :-1]),
                "cross": _summed(moved, crossed),
                "target": _summed(moved, mean[:, 1:]),
                "square": _summed(moved, square[:, 1:]),
            },
            "observation": {
                "count": xp.sum(count_of_seen),
                "gram": _summed(count_of_seen, square),
                "sum": _summed(count_of_seen, mean),
                "cross": _summed(count_of_seen, seen_cross),
                "target": _summed(count_of_seen, completed),
                "square": _summed(count_of_seen, seen_square),
            },
        }

    def _completed(self, model: LinearGaussian, x: Array) -> tuple[Array, Array, Array]:
        """What a step is, given its state and what is observed of it: x = c + A z + N(0, C).

        Returns
        -------
        c : (n, T, D)
        A : (n, T, D, K)
            Zero in the rows of what is observed, which c holds.
        C : (n, T, D, D)
            Zero but for missing entries.
        """
        xp = array_namespace(x)
        observation, noise, residual, seen = partial_observation(model, x)
        missing = 1.0 - seen
        # R_mo R_oo^-1, embedded: rows of what is missing, columns of what is observed.
        across = model.observation_covariance * missing[..., :, None] * seen[..., None, :]
        pull = xp.matrix_transpose(xp.linalg.solve(noise, xp.matrix_transpose(across)))
        value = residual + model.observation_offset + times(pull, residual)
        slope = model.observation * missing[..., :, None] - pull @ observation
        own = model.observation_covariance * missing[..., :, None] * missing[..., None, :]
        return value, slope, own - pull @ xp.matrix_transpose(across)

    def m_step(self, statistics: Statistics) -> Parameters:
        """Maximise the expected log density, less the penalty of the floor."""
        initial = statistics["initial"]
        mean = self.fixed.get("initial_mean", initial["sum"] / initial["count"])
        shifted = np.outer(mean, initial["sum"])
        spread = initial["square"] - shifted - shifted.T
        spread = spread / initial["count"] + np.outer(mean, mean)
        return {
            "initial_mean": mean,
            "initial_covariance": self._covariance("initial_covariance", spread),
            **self._regressed(statistics["transition"], TRANSITION),
            **self._regressed(statistics["observation"], OBSERVATION),
        }

    def _regressed(self, sums: Statistics, names: tuple[str, str, str]) -> Parameters:
        """Regress the targets on the states, with whichever of map and offset is learned."""
        if all(name in self.fixed for name in names):
            return {name: self.fixed[name] for name in names}
        count, gram, total, cross, target = (
            sums[name] for name in ("count", "gram", "sum", "cross", "target")
        )
        matrix: Array = self.fixed.get(names[0])
        offset: Array = self.fixed.get(names[1])
        if offset is None:
            # The map is that of deviations from the means.
            centre, aim = total / count, target / count
            gram, cross = gram - np.outer(total, centre), cross - np.outer(target, centre)
            if matrix is None:
                matrix = np.linalg.solve(gram, cross.T).T
            offset = aim - matrix @ centre
        elif matrix is None:
            matrix = np.linalg.solve(gram, (cross - np.outer(offset, total)).T).T
        gram, cross = sums["gram"], sums["cross"]
        half = cross @ matrix.T + np.outer(target - matrix @ total, offset)
        spread = sums["square"] - half - half.T + matrix @ gram @ matrix.T
        spread = spread / count + np.outer(offset, offset)
        return dict(zip(names, (matrix, offset, self._covariance(names[2], spread)), strict=True))

    def _covariance(self, name: str, spread: Array) -> Array:
        """Return a learned covariance with its floor, or the given one."""
        if name in self.fixed:
            return self.fixed[name]
        if name in self.diagonal:
            return np.diag(np.maximum(np.diagonal(spread), 0.0) + self._floors(name))
        return 0.5 * (spread + spread.T) + np.diag(self._floors(name))

    def _floors(self, name: str) -> Array:
        """What is added to the variances of a learned covariance: (K,) or (D,)."""
        if name not in self.prior:
            size = self.n_columns if name == "observation_covariance" else self.n_states
            return np.full(size, self.floor)
        return self.floor * self.prior[name]["scale"] ** 2

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        """Return what the floor of the variances takes from the expected log density.

        S / N + floor is the maximum of -N/2 (log det C + tr C^-1 (S / N + floor)).
        """
        total = 0.0
        for part in ("initial", "transition", "observation"):
            name = f"{part}_covariance"
            if name not in self.fixed:
                precision = np.diagonal(np.linalg.inv(parameters[name]))
                weighed = float(self._floors(name) @ precision)
                total += 0.5 * float(statistics[part]["count"]) * weighed
        return total

    def revive(
        self,
        parameters: Parameters,
        statistics: Statistics,
        data: Sequences,
        rng: np.random.Generator,
    ) -> tuple[Parameters, int]:
        """Return the parameters as they are: nothing dies here."""
        return parameters, 0

    def initialize(self, data: Sequences, rng: np.random.Generator, how: str) -> Parameters:
        """Start from states read off the data, jittered so that no two starts are the same.

        A state is what the past says of the future; so principal components of a few steps in a
        row stand in for it ("random": noise does), and the M-step does the rest. Where the
        dynamics are given, such states need not fit them, and variances alone are guessed.
        """
        filled = interpolated(data)
        if self.fixed.keys() & {"transition", "observation"}:
            return self._guessed(data, filled, rng)
        states = components(filled, data.lengths, self.n_states)
        states = states + rng.normal(scale=1.0 if how == "random" else 0.1, size=states.shape)
        together = Sequences(np.hstack([filled, states]), data.lengths, None, data.weights)
        parts = []
        for _, padded in together.numbered_blocks():
            inside = ~np.isnan(padded.values[..., :1])
            known = np.where(inside, padded.values[..., self.n_columns :], 0.0)
            own = Padded(padded.values[..., : self.n_columns], None, padded.weights)
            nothing = np.zeros((*known.shape, self.n_states))
            parts.append(self._statistics(self._blank(), own, known, nothing, nothing[:, 1:]))
        start = self.m_step(tree_sum(parts))
        # Room to learn: what the stand-ins explain too well, the states need not.
        for name, ridge in (
            ("initial_covariance", np.eye(self.n_states)),
            ("transition_covariance", 0.1 * np.eye(self.n_states)),
            ("observation_covariance", np.diag(0.1 * _variances(filled))),
        ):
            if name not in self.fixed:
                start[name] = start[name] + ridge
        radius = float(np.abs(np.linalg.eigvals(start["transition"])).max())
        start["transition"] = start["transition"] * min(1.0, 0.99 / radius)
        return start

    def _blank(self) -> LinearGaussian:
        """A model of the right shapes; what is complete asks nothing else of it."""
        states, columns = self.n_states, self.n_columns
        return LinearGaussian(
            np.zeros(states),
            np.eye(states),
            np.eye(states),
            np.zeros(states),
            np.eye(states),
            np.zeros((columns, states)),
            np.zeros(columns),
            np.eye(columns),
        )

    def _guessed(
        self, data: Sequences, filled: Array, rng: np.random.Generator | None
    ) -> Parameters:
        """Start where the dynamics are given: share the variance among the noises."""
        states, columns = self.n_states, self.n_columns
        variance = _variances(filled)
        draws = np.ones((columns, states)) if rng is None else rng.normal(size=(columns, states))
        loadings = draws * np.sqrt(variance / states)[:, None]
        observation = self.fixed.get("observation", loadings)
        unit = self._unit(filled)
        steps = np.diff(filled, axis=0)
        moves = np.median((steps**2).mean(axis=0) / variance) if len(steps) else 1.0
        jitter = 1.0 if rng is None else float(np.exp(0.2 * rng.normal()))
        offset = np.zeros(columns) if "observation" in self.fixed else filled.mean(axis=0)
        offset = self.fixed.get("observation_offset", offset)
        firsts = filled[data.ends - data.lengths].mean(axis=0)
        guess = {
            "initial_mean": np.linalg.lstsq(observation, firsts - offset, rcond=None)[0],
            "initial_covariance": unit * np.eye(states),
            "transition": 0.9 * np.eye(states),
            "transition_offset": np.zeros(states),
            "transition_covariance": max(0.25 * jitter * moves, 1e-6) * unit * np.eye(states),
            "observation": observation,
            "observation_offset": offset,
            "observation_covariance": np.diag(0.5 * variance),
        }
        return {**guess, **self.fixed}

    # -- the program -------------------------------------------------------------------------

    def program(self) -> Program:
        """Return the model as a program, with its priors and its states integrated out.

        It takes ``x`` (n, T, D), padded with NaN, or draws ``n_sequences`` of ``n_steps``.
        """
        return Program(make_program(self.fixed, self.diagonal, self.prior))

    def program_data(self, data: Sequences) -> dict[str, Array]:
        """Return the sequences as the arguments of the program, with their number and length."""
        longest = int(data.lengths.max())
        return {"x": Padded.of(data).values, "n_sequences": len(data), "n_steps": longest}

    def parameters(self, found: dict[str, Array]) -> Parameters:
        """Return the parameters from the sites of the program; leading axes are draws."""
        lead = next(iter(found.values())).shape[:1]
        return {
            name: found[name]
            if name not in self.fixed
            else np.broadcast_to(self.fixed[name], (*lead, *self.fixed[name].shape))
            for name in LinearGaussian._fields
        }

    def sites(self, parameters: Parameters) -> dict[str, Array]:
        """Name parameters as the sites of the program."""
        return sites(parameters, self.fixed, self.diagonal, self.prior)

    def coords(self, names: list[Any]) -> dict[str, list[Any]]:
        """Labels of the axes of the program's sites."""
        return {"column": names, "column_": names}

    def _unit(self, filled: Array) -> float:
        """Variance of a state that gives what is observed its own; 1, where loadings are free."""
        if "observation" not in self.fixed:
            return 1.0
        gain = np.maximum((self.fixed["observation"] ** 2).sum(axis=1), 1e-12)
        return float(np.median(_variances(filled) / gain))

    # -- drawing and filling -----------------------------------------------------------------

    def linear_gaussian(self, parameters: Parameters) -> LinearGaussian:
        """Return the parameters as the algorithms take them."""
        return LinearGaussian(**parameters)

    def sample(
        self, parameters: Parameters, length: int, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Draw a sequence (T, D) and its states (T, K)."""
        noise = rng.normal(size=(length, self.n_states + self.n_columns))
        states, x = simulate(
            LinearGaussian(**parameters), noise[:, : self.n_states], noise[:, self.n_states :]
        )
        return x, states

    def fill(self, parameters: Parameters, sequences: Sequences) -> Array:
        """Complete the rows of sequences by their conditional means: (N, D)."""
        means, _ = self.states(parameters, sequences, smooth=True)
        value, slope, _ = self._completed(LinearGaussian(**parameters), sequences.values)
        expected = value + times(slope, means)
        return np.where(np.isnan(sequences.values), expected, sequences.values)

    def draw_missing(
        self, parameters: Parameters, sequences: Sequences, rng: np.random.Generator
    ) -> Array:
        """Complete the rows of sequences by a draw of their states, and then of the rest."""
        model = LinearGaussian(**parameters)
        states = np.empty((len(sequences.values), self.n_states))
        for chosen, padded in sequences.numbered_blocks():
            filtered: Filtered = kalman_filter(model, padded.values)
            paths = draw_states(model, filtered, rng.normal(size=(1, *filtered.mean.shape)))[0]
            for place, number in enumerate(chosen):
                length = sequences.lengths[number]
                states[sequences.ends[number] - length : sequences.ends[number]] = paths[
                    place, :length
                ]
        value, slope, spread = self._completed(model, sequences.values)
        noise = times(root(spread), rng.normal(size=value.shape))
        drawn = value + times(slope, states) + noise
        return np.where(np.isnan(sequences.values), drawn, sequences.values)


def _variances(filled: Array) -> Array:
    """Variances of the columns, 1 where a column is constant: (D,)."""
    variance = filled.var(axis=0)
    return np.where(variance > 0.0, variance, 1.0)


def _outer(a: Array, b: Array) -> Array:
    """Outer products of vectors (..., I) and (..., J): (..., I, J)."""
    return a[..., :, None] * b[..., None, :]


def _summed(weights: Array, values: Array) -> Array:
    """Weighted sum over sequences and steps: (n, T), (n, T, ...) to (...)."""
    xp = array_namespace(values)
    shape = tuple(values.shape[2:])
    flat = xp.reshape(values, (values.shape[0] * values.shape[1], math.prod(shape)))
    return xp.reshape(xp.reshape(weights, (-1,)) @ flat, shape)
