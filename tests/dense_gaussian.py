"""Linear Gaussian models to test with, and their joint normal computed densely, by definition."""

import numpy as np

from ppl_gen.algorithms.kalman import LinearGaussian
from ppl_gen.algorithms.kalman_paths import simulate


def random_model(n_states, n_columns, seed):
    rng = np.random.default_rng(seed)

    def covariance(size):
        square = rng.normal(size=(size, size))
        return square @ square.T + 0.3 * np.eye(size)

    transition = rng.normal(size=(n_states, n_states))
    transition *= 0.95 / np.abs(np.linalg.eigvals(transition)).max()
    return LinearGaussian(
        rng.normal(size=n_states),
        covariance(n_states),
        transition,
        rng.normal(size=n_states),
        covariance(n_states),
        rng.normal(size=(n_columns, n_states)),
        rng.normal(size=n_columns),
        covariance(n_columns),
    )


def lagged_model(order=3):
    """An autoregression of this order, observed without noise: Q, R and predictions singular."""
    transition = np.eye(order, k=-1)
    transition[0] = [0.5, -0.3, 0.2][:order]
    noise = np.zeros((order, order))
    noise[0, 0] = 0.7
    row = np.eye(order)[:1]
    return LinearGaussian(
        np.zeros(order),
        np.eye(order),
        transition,
        row[0] * 0.4,
        noise,
        row,
        np.zeros(1),
        np.zeros((1, 1)),
    )


def data(model, n=3, n_steps=6, seed=0, share=0.3):
    """Sequences drawn from the model: entries missing, one whole step, and one short sequence."""
    rng = np.random.default_rng(seed)
    columns, states = model.observation.shape
    _, x = simulate(
        model, rng.normal(size=(n, n_steps, states)), rng.normal(size=(n, n_steps, columns))
    )
    x[rng.random(x.shape) < share] = np.nan
    x[0, n_steps // 2] = np.nan
    x[-1, -2:] = np.nan
    return x


def joint(model, n_steps):
    """Mean and covariance of (z_1, ..., z_T, x_1, ..., x_T) by the definition, densely."""
    states = len(model.initial_mean)
    size = n_steps * states
    # Every state is a sum of pushes: z = M (push_1, ..., push_T), with M block lower triangular.
    powers = [np.linalg.matrix_power(model.transition, k) for k in range(n_steps)]
    carry = np.zeros((size, size))
    for t in range(n_steps):
        for s in range(t + 1):
            carry[t * states : (t + 1) * states, s * states : (s + 1) * states] = powers[t - s]
    push = np.zeros((size, size))
    for t in range(n_steps):
        block = slice(t * states, (t + 1) * states)
        push[block, block] = model.initial_covariance if t == 0 else model.transition_covariance
    drift = np.concatenate([model.initial_mean, np.tile(model.transition_offset, n_steps - 1)])
    mean, covariance = carry @ drift, carry @ push @ carry.T
    look = np.kron(np.eye(n_steps), model.observation)
    everything = np.vstack([np.eye(size), look])
    full = everything @ covariance @ everything.T
    full[size:, size:] += np.kron(np.eye(n_steps), model.observation_covariance)
    return np.concatenate([mean, look @ mean + np.tile(model.observation_offset, n_steps)]), full


def conditioned(model, sequence, n_known):
    """Mean and covariance of all states and observations given the first steps of a sequence."""
    n_steps = len(sequence)
    mean, full = joint(model, n_steps)
    start = n_steps * len(model.initial_mean)
    flat = sequence[:n_known].ravel()
    seen = start + np.flatnonzero(~np.isnan(flat))
    gain = full[:, seen] @ np.linalg.pinv(full[np.ix_(seen, seen)], rcond=1e-13, hermitian=True)
    return mean + gain @ (flat[~np.isnan(flat)] - mean[seen]), full - gain @ full[seen]
