"""Paths of linear Gaussian state space models: forecasts, draws given the data, simulation."""

from typing import Any, NamedTuple

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace
from ppl_gen.algorithms.kalman import (
    Filtered,
    LinearGaussian,
    backward_kernels,
    predict,
    sandwich,
    times,
)
from ppl_gen.algorithms.scans import Arrays, scan

Array = Any


class Forecast(NamedTuple):
    """The steps that follow: means and covariances of states and of observations.

    Attributes
    ----------
    mean : (n, steps, K)
    covariance : (n, steps, K, K)
    observation_mean : (n, steps, D)
    observation_covariance : (n, steps, D, D)
    """

    mean: Array
    covariance: Array
    observation_mean: Array
    observation_covariance: Array


def forecast(model: LinearGaussian, mean: Array, covariance: Array, steps: int) -> Forecast:
    """Forecast the steps that follow states N(mean, covariance).

    Parameters
    ----------
    model : LinearGaussian
    mean : (n, K)
        Filtered means of the last steps.
    covariance : (n, K, K)
    steps : int
        At least 1.

    Returns
    -------
    Forecast
    """
    xp = array_namespace(mean)
    means, covariances = [], []
    for _ in range(steps):
        mean, covariance = predict(model, mean, covariance)
        means.append(mean)
        covariances.append(covariance)
    states, spreads = xp.stack(means, axis=1), xp.stack(covariances, axis=1)
    return Forecast(
        states,
        spreads,
        times(model.observation, states) + model.observation_offset,
        sandwich(model.observation, spreads) + model.observation_covariance,
    )


def draw_states(model: LinearGaussian, filtered: Filtered, noise: Array) -> Array:
    """Draw whole paths of states from their posterior: forward filter, backward sample.

    Parameters
    ----------
    model : LinearGaussian
    filtered : Filtered
    noise : (S, n, T, K)
        Standard normal.

    Returns
    -------
    (S, n, T, K)

    References
    ----------
    Carter & Kohn (1994), On Gibbs sampling for state space models, Biometrika 81(3), 541-553;
    Fruhwirth-Schnatter (1994), Journal of Time Series Analysis 15(2), 183-202.
    """
    xp = array_namespace(noise, filtered.mean)
    gain, shift, spread = backward_kernels(model, filtered)
    away = shift + times(root(spread), noise)
    gains = xp.flip(xp.moveaxis(gain, 1, 0), axis=0)
    pushes = xp.flip(xp.moveaxis(away, 2, 0), axis=0)

    def step(carry: Arrays, element: Arrays) -> tuple[Arrays, Arrays]:
        state = times(element[0], carry[0]) + element[1]
        return (state,), (state,)

    _, (paths,) = scan(step, (xp.zeros_like(pushes[0]),), (gains, pushes))
    return xp.moveaxis(xp.flip(paths, axis=0), 0, 2)


def simulate(
    model: LinearGaussian, state_noise: Array, observation_noise: Array
) -> tuple[Array, Array]:
    """Draw sequences from the model.

    Parameters
    ----------
    model : LinearGaussian
    state_noise : (..., T, K)
        Standard normal.
    observation_noise : (..., T, D)
        Standard normal.

    Returns
    -------
    states : (..., T, K)
    x : (..., T, D)
    """
    xp = array_namespace(state_noise, model.transition)
    first = model.initial_mean + times(root(model.initial_covariance), state_noise[..., 0, :])
    pushes = times(root(model.transition_covariance), state_noise[..., 1:, :])

    def step(carry: Arrays, push: Arrays) -> tuple[Arrays, Arrays]:
        state = times(model.transition, carry[0]) + model.transition_offset + push[0]
        return (state,), (state,)

    states = first[None]
    if pushes.shape[-2] > 0:
        _, (rest,) = scan(step, (first,), (xp.moveaxis(pushes, -2, 0),))
        states = xp.concat([states, rest])
    states = xp.moveaxis(states, 0, -2)
    errors = times(root(model.observation_covariance), observation_noise)
    return states, times(model.observation, states) + model.observation_offset + errors


def root(covariance: Array) -> Array:
    """Square roots A of covariances (..., K, K), A A' = covariance, singular ones too."""
    xp = array_namespace(covariance)
    values, vectors = xp.linalg.eigh(covariance)
    return vectors * xp.sqrt(xp.maximum(values, xp.zeros_like(values)))[..., None, :]


def stationary(transition: Array, offset: Array, covariance: Array) -> tuple[Array, Array]:
    """Mean and covariance that ``z' = F z + b + N(0, Q)`` settles at.

    Parameters
    ----------
    transition : (K, K)
        With spectral radius below one.
    offset : (K,)
    covariance : (K, K)

    Returns
    -------
    mean : (K,)
    covariance : (K, K)

    Raises
    ------
    ValueError
        If the spectral radius is one or more.

    Examples
    --------
    >>> import numpy as np
    >>> stationary(np.array([[0.5]]), np.ones(1), np.array([[3.0]]))
    (array([2.]), array([[4.]]))
    """
    from scipy.linalg import solve_discrete_lyapunov

    if not np.abs(np.linalg.eigvals(transition)).max() < 1.0:
        raise ValueError("stationary: the spectral radius of the transition is not below one")
    mean = np.linalg.solve(np.eye(len(offset)) - transition, offset)
    return mean, solve_discrete_lyapunov(transition, covariance)
