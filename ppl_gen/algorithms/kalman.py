"""Linear Gaussian state space models: the Kalman filter and the smoother.

The model of a sequence x of T steps, with hidden states z, is::

    z_1 ~ N(m_0, P_0)
    z_t = F z_(t-1) + b + N(0, Q)
    x_t = H z_t + d + N(0, R)

All functions take a batch of n sequences (n, T, D) and run on any array namespace: NumPy, torch,
or JAX, traced or not. Missing entries are NaN, and exactly marginalised; so sequences of unequal
length are padded with steps that are missing altogether. Covariances are updated in forms that
keep them positive semidefinite (Joseph's); a singular Q, R or P_0 is allowed as long as what is
observed has a density.

Filter and smoother have two routes to the same numbers: one step at a time, or all steps in log T
rounds of batched calls (``parallel=True``). By default NumPy takes the rounds where the batch is
small, so that calls cost more than their arithmetic (T=1,000, one sequence: ten times as fast),
and other libraries the steps, whose program is short and soon compiled.

References
----------
Sarkka (2013), Bayesian Filtering and Smoothing, theorems 4.2 and 8.2; Sarkka & Garcia-Fernandez
(2021), Temporal parallelization of Bayesian smoothers, IEEE Transactions on Automatic Control
66(1), arXiv:1905.13002.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside
from ppl_gen.algorithms.scans import Arrays, associative_scan, scan

Array = Any

LOG_2PI = math.log(2.0 * math.pi)
#: Share of what moves a state, below which what a sensor without noise leaves of it is rounding.
KNOWN = 1e-12
#: Numbers of a step (sequences times columns or states) up to which NumPy takes rounds, not steps.
ROUNDS_WIDTH = 32


class LinearGaussian(NamedTuple):
    """A linear Gaussian state space model of K states and D columns.

    Attributes
    ----------
    initial_mean : (K,), or (n, K) where every sequence starts by itself
        m_0.
    initial_covariance : (K, K) or (n, K, K)
        P_0.
    transition : (K, K)
        F.
    transition_offset : (K,)
        b.
    transition_covariance : (K, K)
        Q.
    observation : (D, K)
        H.
    observation_offset : (D,)
        d.
    observation_covariance : (D, D)
        R.
    """

    initial_mean: Array
    initial_covariance: Array
    transition: Array
    transition_offset: Array
    transition_covariance: Array
    observation: Array
    observation_offset: Array
    observation_covariance: Array


class Filtered(NamedTuple):
    """What the steps so far say of each state.

    Attributes
    ----------
    mean : (n, T, K)
        E[z_t | x_1, ..., x_t].
    covariance : (n, T, K, K)
    predicted_mean : (n, T, K)
        E[z_t | x_1, ..., x_(t-1)].
    predicted_covariance : (n, T, K, K)
    log_prob : (n, T)
        log p(x_t | x_1, ..., x_(t-1)), in nats.
    """

    mean: Array
    covariance: Array
    predicted_mean: Array
    predicted_covariance: Array
    log_prob: Array

    @property
    def log_evidence(self) -> Array:
        """Log density of each sequence: (n,)."""
        return self.log_prob.sum(-1)


class Smoothed(NamedTuple):
    """What all steps say of each state.

    Attributes
    ----------
    mean : (n, T, K)
        E[z_t | x].
    covariance : (n, T, K, K)
    lag_one : (n, T - 1, K, K)
        Cov(z_(t+1), z_t | x).
    """

    mean: Array
    covariance: Array
    lag_one: Array


def kalman_filter(model: LinearGaussian, x: Array, *, parallel: bool | None = None) -> Filtered:
    """Filter a batch of sequences.

    Parameters
    ----------
    model : LinearGaussian
    x : (n, T, D)
        NaN where missing, and after the end of a sequence.
    parallel : bool or None
        All steps in log T rounds, in place of one after another; None: whichever is sooner done.

    Returns
    -------
    Filtered

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> walk = LinearGaussian(np.zeros(1), one, one, np.zeros(1), one, one, np.zeros(1), one)
    >>> found = kalman_filter(walk, np.array([[[1.0], [np.nan], [2.0]]]))
    >>> found.mean[0, :, 0].round(3)
    array([0.5  , 0.5  , 1.571])
    >>> found.log_evidence.round(3)
    array([-3.382])
    """
    xp = array_namespace(x, model.transition)
    steps = xp.moveaxis(x, 1, 0)  # (T, n, D)
    n = x.shape[0]
    width = model.transition.shape[-1]
    first = (
        xp.broadcast_to(model.initial_mean, (n, width)),
        xp.broadcast_to(model.initial_covariance, (n, width, width)),
    )
    resolution = _resolution(model)
    if not _in_rounds(parallel, x, first[0]):

        def step(carry: Arrays, row: Arrays) -> tuple[Arrays, Arrays]:
            before, spread = carry
            mean, covariance, log_prob = update(model, before, spread, row[0], resolution)
            after = predict(model, mean, covariance)
            return after, (mean, covariance, before, spread, log_prob)

        _, found = scan(step, first, (steps,))
        return Filtered(*(xp.moveaxis(array, 0, 1) for array in found))

    _, filtered_mean, filtered_covariance, _, _ = associative_scan(
        _combine_filters, _filter_elements(model, *first, steps)
    )
    filtered_covariance = _settled(filtered_covariance[:-1], resolution)
    mean, covariance = predict(model, filtered_mean[:-1, ..., 0], filtered_covariance)
    before = xp.concat([first[0][None], mean])
    spread = xp.concat([first[1][None], covariance])
    # From the predictions on, every step is by itself; the update is taken once more for its form.
    mean, covariance, log_prob = update(model, before, spread, steps, resolution)
    found = (mean, covariance, before, spread, log_prob)
    return Filtered(*(xp.moveaxis(array, 0, 1) for array in found))


def update(
    model: LinearGaussian,
    mean: Array,
    covariance: Array,
    x: Array,
    resolution: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Condition states N(mean, covariance) on what is observed of x.

    Parameters
    ----------
    model : LinearGaussian
    mean : (..., K)
    covariance : (..., K, K)
    x : (..., D)
        NaN where missing.
    resolution : (K,) or None
        Variances up to which a state counts as known.

    Returns
    -------
    mean : (..., K)
    covariance : (..., K, K)
    log_prob : (...)
        Log density of what is observed; 0 where nothing is.
    """
    xp = array_namespace(x, mean)
    observation, noise, residual, seen = partial_observation(model, x)
    innovation = residual - times(observation, mean)
    cross = observation @ covariance  # (..., D, K)
    spread = cross @ xp.matrix_transpose(observation) + noise
    solved = xp.linalg.solve(spread, xp.concat([cross, innovation[..., None]], axis=-1))
    gain, weighed = xp.matrix_transpose(solved[..., :-1]), solved[..., -1]
    log_det = 2.0 * xp.sum(xp.log(xp.linalg.diagonal(xp.linalg.cholesky(spread))), axis=-1)
    quadratic = xp.sum(innovation * weighed, axis=-1)
    log_prob = -0.5 * (quadratic + log_det + LOG_2PI * xp.sum(seen, axis=-1))
    rest = _identity(mean) - gain @ observation
    kept = sandwich(rest, covariance) + sandwich(gain, noise)
    kept = _settled(kept, resolution)
    return mean + times(gain, innovation), kept, log_prob


def predict(model: LinearGaussian, mean: Array, covariance: Array) -> tuple[Array, Array]:
    """Carry states (..., K), with covariances (..., K, K), one step on."""
    moved = times(model.transition, mean) + model.transition_offset
    return moved, sandwich(model.transition, covariance) + model.transition_covariance


def kalman_smoother(
    model: LinearGaussian, filtered: Filtered, *, parallel: bool | None = None
) -> Smoothed:
    """Smooth what was filtered (Rauch, Tung & Striebel, AIAA Journal 3, 1965).

    Parameters
    ----------
    model : LinearGaussian
    filtered : Filtered
    parallel : bool or None
        All steps in log T rounds, in place of one after another; None: whichever is sooner done.

    Returns
    -------
    Smoothed

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> walk = LinearGaussian(np.zeros(1), one, one, np.zeros(1), one, one, np.zeros(1), one)
    >>> filtered = kalman_filter(walk, np.array([[[1.0], [np.nan], [2.0]]]))
    >>> kalman_smoother(walk, filtered).mean[0, :, 0].round(3)
    array([0.714, 1.143, 1.571])
    """
    xp = array_namespace(filtered.mean)
    gain, shift, spread = (xp.moveaxis(a, 1, 0) for a in backward_kernels(model, filtered))
    flipped = tuple(xp.flip(a, axis=0) for a in (gain, shift[..., None], spread))
    if _in_rounds(parallel, filtered.log_prob, filtered.mean[:, 0]):
        found = associative_scan(lambda later, earlier: _follow(earlier, later), flipped)[1:]
    else:

        def step(carry: Arrays, element: Arrays) -> tuple[Arrays, Arrays]:
            moved = _follow(element, (element[0], *carry))[1:]
            return moved, moved

        nothing = tuple(xp.zeros_like(a[0]) for a in flipped[1:])
        _, found = scan(step, nothing, flipped)
    mean, covariance = (xp.moveaxis(xp.flip(a, axis=0), 0, 1) for a in found)
    gain = xp.moveaxis(gain, 0, 1)
    lag_one = covariance[:, 1:] @ xp.matrix_transpose(gain[:, :-1])
    return Smoothed(mean[..., 0], covariance, lag_one)


# --- the parts of the recursions -----------------------------------------------------------------


def _in_rounds(parallel: bool | None, x: Array, mean: Array) -> bool:
    """Tell which route is taken for x (n, T, ...) and states (n, K)."""
    if parallel is not None:
        return parallel
    wide = x.shape[0] * max(x.shape[-1] if x.ndim == 3 else 1, mean.shape[-1])
    return array_namespace(x) is np and wide <= ROUNDS_WIDTH


def partial_observation(model: LinearGaussian, x: Array) -> tuple[Array, Array, Array, Array]:
    """Observation matrix, noise and residual x - d of what is observed, and what that is.

    Parameters
    ----------
    model : LinearGaussian
    x : (..., D)
        NaN where missing.

    Returns
    -------
    observation : (..., D, K)
    noise : (..., D, D)
    residual : (..., D)
    seen : (..., D)
        1.0 where there is a value, 0.0 where not.

    Notes
    -----
    A missing entry is made an observation of nothing: a zero row, a residual of zero, and noise
    of its own with unit variance, which changes no gain and no density. Shapes stay as they are,
    which traced programs need.
    """
    xp = array_namespace(x)
    missing = xp.isnan(x)
    seen = xp.astype(~missing, x.dtype)
    # NaN is replaced before any arithmetic: the gradient through where(isnan, 0, f(x)) is NaN.
    residual = xp.where(missing, xp.zeros_like(x), x) - seen * model.observation_offset
    noise = model.observation_covariance * (seen[..., :, None] * seen[..., None, :])
    noise = noise + _identity(x) * (1.0 - seen)[..., None, :]
    return model.observation * seen[..., :, None], noise, residual, seen


def _resolution(model: LinearGaussian) -> Array:
    """Variances up to which states are known: (K,), 0 where all sensors have noise.

    A sensor without noise leaves of a variance its rounding errors, and covariances that are
    large beside these: a smoother would see relations that are not there. What is real is of the
    size of what moves the state within K steps.
    """
    xp = array_namespace(model.transition)
    moved = model.transition_covariance
    total = moved
    for _ in range(model.transition.shape[-1] - 1):
        moved = sandwich(model.transition, moved)
        total = total + moved
    noiseless = xp.any(xp.linalg.diagonal(model.observation_covariance) == 0.0)
    return KNOWN * xp.linalg.diagonal(total) * xp.astype(noiseless, total.dtype)


def _settled(covariance: Array, resolution: Array | None) -> Array:
    """Clear the rows and columns of states that are known."""
    if resolution is None:
        return covariance
    xp = array_namespace(covariance)
    rest = xp.astype(xp.linalg.diagonal(covariance) > resolution, covariance.dtype)
    return covariance * (rest[..., :, None] * rest[..., None, :])


def _filter_elements(
    model: LinearGaussian, mean: Array, covariance: Array, steps: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Elements (A, b, C, eta, J) of the filter: Sarkka & Garcia-Fernandez, lemma 7."""
    xp = array_namespace(steps)
    observation, noise, residual, _ = partial_observation(model, steps[1:])
    transition, offset = model.transition, model.transition_offset
    cross = observation @ model.transition_covariance  # (T - 1, n, D, K)
    spread = cross @ xp.matrix_transpose(observation) + noise
    innovation = (residual - times(observation, offset))[..., None]
    moved = observation @ transition
    solved = xp.linalg.solve(spread, xp.concat([cross, innovation, moved], axis=-1))
    width = cross.shape[-1]
    gain = xp.matrix_transpose(solved[..., :width])
    rest = _identity(mean) - gain @ observation
    start, spread_of_start, _ = update(model, mean, covariance, steps[0])
    zero = xp.zeros_like(spread_of_start)[None]
    pull = xp.matrix_transpose(moved)
    later = (
        rest @ transition,
        offset[:, None] + gain @ innovation,
        sandwich(rest, model.transition_covariance) + sandwich(gain, noise),
        pull @ solved[..., width : width + 1],
        pull @ solved[..., width + 1 :],
    )
    # The first step knows where it starts from, and so is conditioned on nothing.
    first = (zero, start[None, ..., None], spread_of_start[None], zero[..., :1], zero)
    a, b, c, eta, j = (xp.concat(both) for both in zip(first, later, strict=True))
    return a, b, c, eta, j


def _combine_filters(earlier: Arrays, later: Arrays) -> Arrays:
    """Compose two stretches of steps: Sarkka & Garcia-Fernandez, lemma 8."""
    (a1, b1, c1, eta1, j1), (a2, b2, c2, eta2, j2) = earlier, later
    xp = array_namespace(a1)
    identity = _identity(b1[..., 0])
    width = identity.shape[-1]
    # (I + J C)' = I + C J, so that one solve serves both directions.
    forward = identity + c1 @ j2
    ahead = xp.linalg.solve(forward, xp.concat([a1, b1 + c1 @ eta2, c1], axis=-1))
    back = xp.linalg.solve(
        xp.matrix_transpose(forward), xp.concat([eta2 - j2 @ b1, j2 @ a1], axis=-1)
    )
    turned = xp.matrix_transpose(a1)
    spread = a2 @ ahead[..., width + 1 :] @ xp.matrix_transpose(a2) + c2
    precision = turned @ back[..., 1:] + j1
    return (
        a2 @ ahead[..., :width],
        a2 @ ahead[..., width : width + 1] + b2,
        _symmetric(spread),
        turned @ back[..., :1] + eta1,
        _symmetric(precision),
    )


def backward_kernels(model: LinearGaussian, filtered: Filtered) -> tuple[Array, Array, Array]:
    """What z_t is, given z_(t+1) and the steps up to t: N(E z_(t+1) + g, L), for every step.

    Returns
    -------
    E : (n, T, K, K)
        Zero at the last step, after which nothing is known.
    g : (n, T, K)
    L : (n, T, K, K)
    """
    xp = array_namespace(filtered.mean)
    mean, covariance = filtered.mean[:, :-1], filtered.covariance[:, :-1]
    predicted = filtered.predicted_covariance[:, 1:]
    # Unit diagonals make the solution independent of the units of the states; the ridge, of the
    # size of rounding, decides where the prediction is singular, as it is of lagged values.
    size = xp.linalg.diagonal(predicted)
    scale = xp.where(size > 0.0, size, xp.ones_like(size)) ** -0.5
    ridge = 4.0 * size.shape[-1] * np.finfo(np.float64).eps
    correlation = predicted * scale[..., :, None] * scale[..., None, :]
    moved = (model.transition @ covariance) * scale[..., :, None]
    solved = xp.linalg.solve(correlation + ridge * _identity(mean), moved)
    gain = xp.matrix_transpose(solved * scale[..., :, None])
    rest = _identity(mean) - gain @ model.transition
    spread = sandwich(rest, covariance) + sandwich(gain, model.transition_covariance)
    shift = mean - times(gain, filtered.predicted_mean[:, 1:])
    last = (
        xp.zeros_like(filtered.covariance[:, -1:]),
        filtered.mean[:, -1:],
        filtered.covariance[:, -1:],
    )
    e, g, spreads = (
        xp.concat(both, axis=1) for both in zip((gain, shift, spread), last, strict=True)
    )
    return e, g, spreads


def _follow(earlier: Arrays, later: Arrays) -> Arrays:
    """Compose N(E z + g, L) of the earlier step with that of the later: lemma 10."""
    (e1, g1, l1), (e2, g2, l2) = earlier, later
    return e1 @ e2, e1 @ g2 + g1, sandwich(e1, l2) + l1


def _identity(vectors: Array) -> Array:
    """The identity of the length of vectors (..., K)."""
    return beside(vectors, np.eye(vectors.shape[-1]))


def times(matrix: Array, vectors: Array) -> Array:
    """Matrices (..., K, J) times vectors (..., J)."""
    return (matrix @ vectors[..., None])[..., 0]


def sandwich(matrix: Array, covariance: Array) -> Array:
    """A C A', symmetric to the last digit."""
    xp = array_namespace(matrix, covariance)
    return _symmetric(matrix @ covariance @ xp.matrix_transpose(matrix))


def _symmetric(matrix: Array) -> Array:
    xp = array_namespace(matrix)
    return 0.5 * (matrix + xp.matrix_transpose(matrix))
