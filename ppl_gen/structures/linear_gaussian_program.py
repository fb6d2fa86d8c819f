"""The linear Gaussian state space model as a program, its states integrated out by the filter."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace
from ppl_gen.algorithms.kalman import LinearGaussian, kalman_filter
from ppl_gen.algorithms.kalman_paths import simulate
from ppl_gen.language import deterministic, dist, ops, plate, sample

Array = Any
Parameters = dict[str, Any]

#: Names of the axes of every parameter.
AXES: dict[str, tuple[str, ...]] = {
    "initial_mean": ("state",),
    "initial_covariance": ("state", "state_"),
    "transition": ("state", "state_"),
    "transition_offset": ("state",),
    "transition_covariance": ("state", "state_"),
    "observation": ("column", "state"),
    "observation_offset": ("column",),
    "observation_covariance": ("column", "column_"),
}


class WholeSequences:
    """Sequences as rows of T * D values, in the protocol of `dist.Family`; there is one class."""

    def __init__(self, n_steps: int, width: int) -> None:
        self.n_steps, self.width = n_steps, width
        self.n_columns = n_steps * width

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        """Log density of sequences (n, T * D), in nats: (n, 1)."""
        xp = array_namespace(x)
        model = LinearGaussian(**{name: value[0] for name, value in parameters.items()})
        steps = xp.reshape(x, (-1, self.n_steps, self.width))
        return kalman_filter(model, steps).log_evidence[:, None]

    def sample(self, parameters: Parameters, labels: Array, random: Any) -> Array:
        """Draw one sequence for each label: (n, T * D)."""
        model = LinearGaussian(**{name: value[0] for name, value in parameters.items()})
        n, states = int(labels.shape[0]), int(model.transition.shape[-1])
        _, x = simulate(
            model,
            random.normal((n, self.n_steps, states)),
            random.normal((n, self.n_steps, self.width)),
        )
        xp = array_namespace(x)
        return xp.reshape(x, (n, self.n_columns))


def make_program(
    fixed: Parameters, diagonal: tuple[str, ...], prior: dict[str, dict[str, Array]]
) -> Callable[..., None]:
    """Return the function of the program.

    Parameters
    ----------
    fixed : dict of arrays
        Parameters that are given.
    diagonal : tuple of str
        Covariances without entries off the diagonal.
    prior : dict
        By parameter: ``loc`` and ``scale`` of a normal prior of every entry, or the ``scale``
        (standard deviations) of a covariance.
    """

    def linear_gaussian(x: Any = None, n_sequences: int = 1, n_steps: int = 1) -> None:
        parameters = {}
        for name, axes in AXES.items():
            if name in fixed:
                value = ops.asarray(fixed[name])
            elif not name.endswith("_covariance"):
                terms = prior[name]
                normal = dist.Normal(terms["loc"], terms["scale"])
                value = sample(name, normal.to_event(len(axes)), dims=axes)
            else:
                value = _draw_covariance(name, prior[name]["scale"], name in diagonal)
                deterministic(name, value, dims=axes)
            parameters[name] = value[None]
        if x is not None:
            n_sequences, n_steps = x.shape[:2]
            x = ops.reshape(x, (n_sequences, -1))
        width = int(parameters["observation"].shape[1])
        family = WholeSequences(int(n_steps), width)
        labels = np.zeros(int(n_sequences), dtype=np.int64)
        with plate("sequence", n_sequences):
            sample("x", dist.Family(family, parameters, labels=labels), obs=x)

    return linear_gaussian


def _draw_covariance(name: str, scale: Array, diagonal: bool) -> Array:
    """Draw a covariance in units in which its prior is standard."""
    axes = AXES[name]
    size = len(scale)
    if diagonal or size == 1:
        # Half-normal deviations reach down to zero, where a component does not move at all.
        prior = dist.HalfNormal(np.ones(size)).to_event(1)
        deviation = sample(f"{name}_whitened", prior, dims=axes[:1]) * ops.asarray(scale)
        return ops.eye(size, dtype=deviation.dtype) * (deviation**2)[..., None, :]
    prior = dist.Wishart(size + 2.0, scale_tril=np.eye(size))
    whitened = sample(f"{name}_whitened", prior, dims=axes)
    units = ops.asarray(np.outer(scale, scale))
    return ops.linalg.inv(whitened) * units


def sites(
    parameters: Parameters,
    fixed: Parameters,
    diagonal: tuple[str, ...],
    prior: dict[str, dict[str, Array]],
) -> dict[str, Array]:
    """Name learned parameters as the sites of the program."""
    found = {}
    for name in AXES:
        if name in fixed:
            continue
        value = np.asarray(parameters[name])
        if name.endswith("_covariance"):
            scale = prior[name]["scale"]
            if name in diagonal or len(scale) == 1:
                found[f"{name}_whitened"] = np.sqrt(np.diagonal(value)) / scale
            else:
                found[f"{name}_whitened"] = np.linalg.inv(value / np.outer(scale, scale))
        found[name] = value
    return found
