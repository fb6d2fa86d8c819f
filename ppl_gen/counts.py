"""Counts that are asked for: how many to draw."""

from typing import Any

import numpy as np

__all__ = ["check_count"]


def check_count(value: Any, name: str, who: str) -> None:
    """Raise ValueError unless a setting is a whole number, Python's or NumPy's, of at least 1.

    Parameters
    ----------
    value : object
    name : str
        Of the setting.
    who : str
        Who asks, for the message.

    Raises
    ------
    ValueError
        If it is less, a bool, a float (whole or not) or something else.

    Examples
    --------
    >>> check_count(3, "n_samples", "MADE.sample")
    >>> check_count(2.5, "n_samples", "MADE.sample")
    Traceback (most recent call last):
        ...
    ValueError: MADE.sample: n_samples is 2.5; expected a whole number, at least 1
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{who}: {name} is {value!r}; expected a whole number, at least 1")
