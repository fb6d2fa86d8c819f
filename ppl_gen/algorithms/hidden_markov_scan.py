"""Hidden Markov chains by message passing, over arrays of any engine and differentiable.

Every function takes the engine's array namespace `ops` first, then the chain in logarithms:
``log_start`` (..., K), ``log_transition`` (..., K, K) with the row the state before, and
``log_emission`` (..., T, K), the log density of each step under each state. Leading axes
broadcast. A step that is missing has log emission 0.

Messages are in log space. Probabilities rescaled at each step would need fewer exponentials, but
lose a state for good once it is 1e308 times less likely than another, which is wrong where zeros
in the transitions leave it the only way on. What all states of a step have in common, the density
of the best, is kept out of the messages, so that an outlier costs the other steps no digits.
Zeros, log -inf, stand as -1e30: no difference of infinities arises in the messages or in their
gradients.

References
----------
Rabiner (1989), A tutorial on hidden Markov models, Proceedings of the IEEE 77, sections III.A-B.
Särkkä and García-Fernández (2021), Temporal parallelization of Bayesian smoothers, IEEE
Transactions on Automatic Control 66: the products of transitions are associative.
"""

from collections.abc import Callable
from typing import Any

Array = Any

#: Stands for log 0. Exponentials of it are zero, and sums of millions of it are finite.
_IMPOSSIBLE = -1e30


def log_evidence(
    ops: Any,
    log_start: Array,
    log_transition: Array,
    log_emission: Array,
    *,
    parallel: bool = False,
) -> Array:
    """Return the log density of sequences, the path of states summed out.

    Parameters
    ----------
    ops : namespace
        The engine's arrays, as ``engine.ops``.
    log_start : array (..., K)
    log_transition : array (..., K, K)
    log_emission : array (..., T, K)
    parallel : bool, default False
        Multiply the steps' (K, K) matrices in a tree of depth log2 T, K times the work of going
        step by step: for few states where a step is dear, as it is in a loop of Python.

    Returns
    -------
    array (...)
        In nats; -inf where no path is possible.

    Notes
    -----
    Its gradients are the expected counts of the smoothing distribution: with respect to
    ``log_start`` p(z_1 | x), to ``log_transition`` the expected number of moves
    sum_t p(z_t, z_t+1 | x), and to ``log_emission`` p(z_t | x). At zeros of the chain they are 0.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import engines
    >>> numpyro = engines.get("numpyro")
    >>> with numpyro.precision():
    ...     start, transition, emission = (
    ...         numpyro.asarray(np.log(p)) for p in ([0.5, 0.5], np.full((2, 2), 0.5), [[0.2, 0.6]])
    ...     )
    ...     float(np.exp(log_evidence(numpyro.ops, start, transition, emission))).__round__(6)
    0.4
    """
    first, log_transition, rest, offset = _chain(ops, log_start, log_transition, log_emission)
    if rest.shape[0] == 0:
        last = first
    elif parallel:
        steps = ops.expand_dims(log_transition, axis=0) + ops.expand_dims(rest, axis=-2)
        last = _log_sum(ops, ops.expand_dims(first, axis=-1) + _product(ops, steps), -2)
    else:
        last, _ = ops.scan(
            lambda message, emission: (_forward(ops, message, log_transition) + emission, None),
            first,
            rest,
        )
    return _with_zeros(ops, _log_sum(ops, last, -1) + offset)


def log_joint(ops: Any, log_start: Array, log_transition: Array, log_emission: Array) -> Array:
    """Return ``log p(z_t, x_1..T)``, shape (..., T, K): forward and backward messages together.

    The logsumexp over states is the log evidence at every step.
    """
    joint, offset = _relative_joint(ops, log_start, log_transition, log_emission)
    return _with_zeros(ops, joint + offset[..., None, None])


def filtered(ops: Any, log_start: Array, log_transition: Array, log_emission: Array) -> Array:
    """Return ``p(z_t | x_1..t)``, shape (..., T, K); NaN where the data are impossible."""
    first, log_transition, rest, _ = _chain(ops, log_start, log_transition, log_emission)
    messages = _forward_messages(ops, first, log_transition, rest)
    return ops.softmax(_with_zeros(ops, ops.moveaxis(messages, 0, -2)), axis=-1)


def smoothed(ops: Any, log_start: Array, log_transition: Array, log_emission: Array) -> Array:
    """Return ``p(z_t | x_1..T)``, shape (..., T, K); NaN where the data are impossible."""
    joint, _ = _relative_joint(ops, log_start, log_transition, log_emission)
    return ops.softmax(_with_zeros(ops, joint), axis=-1)


def viterbi(
    ops: Any, log_start: Array, log_transition: Array, log_emission: Array
) -> tuple[Array, Array]:
    """Return the likeliest path and its log joint density with the data.

    Rabiner (1989), equations 32-35.

    Returns
    -------
    path : integer array (..., T)
    log_prob : array (...)
        ``max_z log p(z, x)``; -inf where no path is possible, and then the path means nothing.
    """
    first, log_transition, rest, offset = _chain(ops, log_start, log_transition, log_emission)

    def step(message: Array, emission: Array) -> Array:
        return ops.max(ops.expand_dims(message, axis=-1) + log_transition, axis=-2) + emission

    messages = _along(ops, step, first, rest)
    path = _trace_back(ops, messages, log_transition, lambda scores: ops.argmax(scores, axis=-1))
    return path, _with_zeros(ops, ops.max(messages[-1], axis=-1) + offset)


def draw_path(
    ops: Any, log_start: Array, log_transition: Array, log_emission: Array, random: Any
) -> Array:
    """Draw ``z ~ p(z | x)``: filter forwards, sample backwards.

    With emissions all zero, which say nothing, it draws a path of the chain itself. Scott (2002),
    Bayesian methods for hidden Markov models, JASA 97, section 2.1.

    Parameters
    ----------
    random : RandomSource
        Of the same engine.

    Returns
    -------
    integer array (..., T)
        It means nothing where the data are impossible.
    """
    first, log_transition, rest, _ = _chain(ops, log_start, log_transition, log_emission)

    def choose(scores: Array, height: Array) -> Array:
        cumulative = ops.cumulative_sum(ops.softmax(scores, axis=-1), axis=-1)
        # Against the total, since it may fall short of one by rounding.
        above = ops.expand_dims(height, axis=-1) * cumulative[..., -1:] >= cumulative[..., :-1]
        return ops.sum(above, axis=-1)

    messages = _forward_messages(ops, first, log_transition, rest)
    # A scan cannot advance the source, so it is asked for all steps at once.
    heights = random.uniform(tuple(messages.shape[:-1]))
    return _trace_back(ops, messages, log_transition, choose, heights)


def _chain(
    ops: Any, log_start: Array, log_transition: Array, log_emission: Array
) -> tuple[Array, Array, Array, Array]:
    """Return the first message (..., K), transitions, later emissions (T - 1, ..., K), offset.

    The densities of the best state of each step are taken off, and are the offset in all (...).
    """
    log_start, log_transition, log_emission = (
        ops.where(x < _IMPOSSIBLE, _IMPOSSIBLE, x)
        for x in (log_start, log_transition, log_emission)
    )
    best = ops.stop_gradient(ops.max(log_emission, axis=-1, keepdims=True))
    best = ops.where(best < 0.1 * _IMPOSSIBLE, 0.0, best)  # no state at all is possible
    batch = ops.broadcast_shapes(
        tuple(log_start.shape[:-1]),
        tuple(log_transition.shape[:-2]),
        tuple(log_emission.shape[:-2]),
    )
    steps = ops.moveaxis(log_emission - best, -2, 0)
    first = ops.broadcast_to(log_start + steps[0], (*batch, log_start.shape[-1]))
    rest = ops.broadcast_to(steps[1:], (steps.shape[0] - 1, *first.shape))
    return first, log_transition, rest, ops.sum(best[..., 0], axis=-1)


def _forward_messages(ops: Any, first: Array, log_transition: Array, rest: Array) -> Array:
    """Return ``log p(z_t, x_1..t)`` without the offset, (T, ..., K)."""

    def step(message: Array, emission: Array) -> Array:
        return _forward(ops, message, log_transition) + emission

    return _along(ops, step, first, rest)


def _relative_joint(
    ops: Any, log_start: Array, log_transition: Array, log_emission: Array
) -> tuple[Array, Array]:
    """Return ``log p(z_t, x_1..T)`` without the offset (..., T, K), and the offset (...)."""
    first, log_transition, rest, offset = _chain(ops, log_start, log_transition, log_emission)

    def step(message: Array, emission: Array) -> Array:
        return _log_sum(ops, log_transition + ops.expand_dims(message + emission, axis=-2), -1)

    forward = _forward_messages(ops, first, log_transition, rest)
    backward = _along(ops, step, ops.zeros_like(first), ops.flip(rest, axis=0))
    return ops.moveaxis(forward + ops.flip(backward, axis=0), 0, -2), offset


def _with_zeros(ops: Any, x: Array) -> Array:
    """Give back the zeros of the chain their -inf."""
    return ops.where(x < 0.1 * _IMPOSSIBLE, -float("inf"), x)


def _log_sum(ops: Any, x: Array, axis: int) -> Array:
    """Logsumexp of finite numbers: without the guards against infinities, it takes half the time.

    The derivative with respect to the maximum is zero, so none is traced.
    """
    top = ops.stop_gradient(ops.max(x, axis=axis, keepdims=True))
    return ops.log(ops.sum(ops.exp(x - top), axis=axis)) + ops.squeeze(top, axis=axis)


def _forward(ops: Any, message: Array, log_transition: Array) -> Array:
    return _log_sum(ops, ops.expand_dims(message, axis=-1) + log_transition, -2)


def _product(ops: Any, steps: Array) -> Array:
    """Multiply (T, ..., K, K) logarithms of matrices in order, by halving."""
    while steps.shape[0] > 1:
        odd = steps.shape[0] % 2
        left, right = steps[: steps.shape[0] - odd : 2], steps[1::2]
        pairs = ops.expand_dims(left, axis=-1) + ops.expand_dims(right, axis=-3)
        halved = _log_sum(ops, pairs, -2)
        steps = ops.concat([halved, steps[-1:]], axis=0) if odd else halved
    return steps[0]


def _along(ops: Any, step: Callable[[Array, Array], Array], first: Array, rest: Any) -> Array:
    """Return ``first`` and what each step makes of the one before, (T, ...)."""
    arrays = rest if isinstance(rest, tuple) else (rest,)
    start = ops.expand_dims(first, axis=0)
    if arrays[0].shape[0] == 0:
        return start

    def twice(carry: Array, x: Any) -> tuple[Array, Array]:
        carry = step(carry, x)
        return carry, carry

    return ops.concat([start, ops.scan(twice, first, rest)[1]], axis=0)


def _trace_back(
    ops: Any,
    messages: Array,
    log_transition: Array,
    choose: Callable[..., Array],
    *noise: Array,
) -> Array:
    """Choose the last state, then each one given the next, (..., T)."""
    states = ops.arange(messages.shape[-1])

    def step(state: Array, xs: tuple[Array, ...]) -> Array:
        message, *heights = xs
        chosen = (ops.expand_dims(state, axis=-1) == states)[..., None, :]
        into = ops.sum(ops.where(chosen, log_transition, 0.0), axis=-1)
        return choose(message + into, *heights)

    last = choose(messages[-1], *(x[-1] for x in noise))
    before = tuple(ops.flip(x[:-1], axis=0) for x in (messages, *noise))
    path = _along(ops, step, last, before)
    return ops.moveaxis(ops.flip(path, axis=0), 0, -1)
