"""Settings of a hidden Markov model, checked before any work."""

import math
from numbers import Real
from typing import Any

import numpy as np

from ppl_gen.models.hidden_markov.names import LETTERS
from ppl_gen.models.hidden_markov.states import ALGORITHMS

Array = Any


def check_settings(model: Any) -> None:
    """Refuse settings that are wrong whatever the data are.

    Raises
    ------
    ValueError
        If a setting is out of range, or of another type.
    """
    who = model._who
    if not (isinstance(model.n_components, int | np.integer) and model.n_components >= 1):
        raise ValueError(
            f"{who}: n_components is {model.n_components!r}; expected a whole number, at least 1"
        )
    if model.algorithm not in ALGORITHMS:
        raise ValueError(f"{who}: algorithm is {model.algorithm!r}; expected one of {ALGORITHMS}")
    for name in ("init_params", "params"):
        letters = getattr(model, name)
        expected = f"expected a string of some of {''.join(LETTERS)!r}; '' for none"
        if not isinstance(letters, str):
            raise ValueError(f"{who}: {name} is {letters!r}; {expected}")
        unknown = sorted(set(letters) - set(LETTERS))
        if unknown:
            raise ValueError(f"{who}: {name} has letters {unknown}; {expected}")
    if not (model.min_covar is None or (_is_number(model.min_covar) and model.min_covar >= 0.0)):
        raise ValueError(
            f"{who}: min_covar is {model.min_covar!r}; expected None, or a number, at least 0"
        )


def chain_prior(model: Any) -> tuple[Array, Array]:
    """Concentrations of the priors of the start (K,) and of the transitions (K, K)."""
    n_states = int(model.n_components)
    if not (_is_number(model.stickiness) and model.stickiness >= 0.0):
        raise ValueError(
            f"{model._who}: stickiness is {model.stickiness!r}; expected a number, at least 0"
        )
    start = _concentrations(model, "startprob_prior", (n_states,))
    transition = _concentrations(model, "transmat_prior", (n_states, n_states))
    return start, transition + float(model.stickiness) * np.eye(n_states)


def _concentrations(model: Any, name: str, shape: tuple[int, ...]) -> Array:
    value, who = getattr(model, name), model._who
    try:
        given = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{who}: {name} is {value!r}; expected a positive number, or {shape} of them"
        ) from error
    try:
        prior = np.broadcast_to(given, shape)
    except ValueError as error:
        raise ValueError(
            f"{who}: {name} has shape {given.shape}; expected a number or {shape}"
        ) from error
    if not ((prior > 0.0) & np.isfinite(prior)).all():
        raise ValueError(f"{who}: {name} must be positive, and finite; 1 is flat")
    return np.array(prior)


def allowed_transitions(model: Any) -> Array | None:
    """Which states may follow which, (K, K), or None for all."""
    if model.transmat_mask is None:
        return None
    shape, mask = (int(model.n_components),) * 2, np.asarray(model.transmat_mask)
    expected = f"expected {shape} of True (may happen) and False"
    if mask.shape != shape:
        raise ValueError(f"{model._who}: transmat_mask has shape {mask.shape}; {expected}")
    wrong = [value for value in mask.ravel().tolist() if value not in (0, 1)]
    if wrong:
        raise ValueError(
            f"{model._who}: transmat_mask has values such as {wrong[0]!r}; {expected}; "
            "probabilities to start from are set as transmat_"
        )
    mask = mask.astype(bool)
    closed = np.flatnonzero(~mask.any(axis=1))
    if len(closed):
        raise ValueError(
            f"{model._who}: transmat_mask lets nothing follow state {closed[0]}; let it follow "
            "itself, if it absorbs"
        )
    return None if mask.all() else mask


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)
