"""How many bits a model needs for data: minus the log of their probability, to base 2.

Of discrete data - categories, counts, pixels of whole levels, text - a model with probabilities p
is a code of ``-log2 p(x)`` bits, which arithmetic coding reaches within two bits a message, and no
code does better on average where p is true (Shannon). Of continuous data the same number is a
*density's*, depends on the units, and may be below zero: nothing can be coded to endless precision.
What can be coded is the value to a bin of width w, whose probability is about ``p(x) w``, and that
takes ``-log2 p(x) - log2 w`` bits a dimension (Cover & Thomas 2006, Elements of Information Theory,
theorem 8.3.1). So a bin width must be given for them.
"""

import math
from typing import Any

import numpy as np

__all__ = ["bits_per_dimension", "bits_per_token", "code_length"]

Array = Any


def code_length(model: Any, X: Any, *, bin_width: Any = None, context: Any = None) -> Array:
    """Bits that a model needs for each row, or sequence.

    Parameters
    ----------
    model : GenerativeModel
        Fitted; anything with ``log_prob``.
    X : table of (n, D), images, or a list of sequences
        Whatever the model takes.
    bin_width : float, (D,) array or None
        The precision that continuous values are coded to, in their units: one for all columns, or
        one a column. None is for discrete data, where probabilities need no bins.
    context : optional
        What a conditional density is given.

    Returns
    -------
    (n,) array
        Bits. An upper bound where the model's density is a lower bound, as a VAE's.

    Raises
    ------
    ValueError
        If a log density is above zero, as no probability is, and there is no bin width; if a
        bin width is not above zero, or there is not one a column.

    Notes
    -----
    Bins must be narrow against what the density changes over. Flows that dequantise whole levels
    score a density over bins of width 1, and need ``bin_width=1``.

    Examples
    --------
    Two fair coins take a bit each:

    >>> import numpy as np
    >>> from ppl_gen import Mixture
    >>> from ppl_gen.evaluate.code_length import code_length
    >>> coins = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> code_length(Mixture(1, "bernoulli").fit(coins), coins).round(3)
    array([2., 2., 2., 2.])
    """
    values = model.log_prob(X) if context is None else model.log_prob(X, context=context)
    log_prob = np.asarray(values, dtype=np.float64)
    if bin_width is None:
        # A rounding error above certainty is none.
        if len(log_prob) and log_prob.max() > 1e-6:
            raise ValueError(
                f"code_length: log_prob is up to {log_prob.max():.3g}, above that of any "
                "probability: it is a density of continuous data; give the width of the bins that "
                "they are to be coded to, as bin_width=0.01"
            )
        return -log_prob / math.log(2.0)
    return (-log_prob - _log_volume(X, bin_width)) / math.log(2.0)


def bits_per_dimension(model: Any, X: Any, *, bin_width: Any = None, context: Any = None) -> float:
    """Bits that a model needs for a value, on average: a column of a table, a pixel of an image.

    Parameters
    ----------
    model, X, bin_width, context
        As for `code_length`; X has rows of one size.

    Returns
    -------
    float
        For images of 256 levels and ``bin_width=1`` (or none, where the model is of the levels)
        it is what the literature calls bits/dim; 8 is a pixel written down as it is.

    Raises
    ------
    ValueError
        As for `code_length`; if there are no rows, or they have no one size.

    References
    ----------
    Theis, van den Oord & Bethge (2016), A note on the evaluation of generative models
    (arXiv:1511.01844), section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import Mixture
    >>> from ppl_gen.evaluate.code_length import bits_per_dimension
    >>> coins = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> round(bits_per_dimension(Mixture(1, "bernoulli").fit(coins), coins), 3)
    1.0
    """
    width = _width(X, "bits_per_dimension")
    return float(code_length(model, X, bin_width=bin_width, context=context).mean() / width)


def bits_per_token(model: Any, X: Any) -> float:
    """Bits that a model of discrete sequences needs for a token, over all of them.

    Parameters
    ----------
    model : MarkovChain, HiddenMarkovModel, ...
        Fitted; anything with ``log_prob`` of sequences.
    X : list of sequences, or of strings
        Tokens are their items: of a string its characters.

    Returns
    -------
    float
        Total bits over total tokens: bits per character of strings; ``2 ** bits`` is the
        perplexity. Where a model also codes that a sequence ends, those bits are shared out among
        its tokens.

    Raises
    ------
    ValueError
        If there are no tokens, or a log density is above zero, as no probability is.

    Examples
    --------
    >>> from ppl_gen import MarkovChain
    >>> from ppl_gen.evaluate.code_length import bits_per_token
    >>> chain = MarkovChain().fit(["abab", "aabb"])
    >>> round(bits_per_token(chain, ["abab", "bbbb"]), 2)
    0.95
    """
    if isinstance(X, str):
        raise ValueError("bits_per_token: X is one string; expected a list, as [text]")
    tokens = sum(len(sequence) for sequence in X)
    if not tokens:
        raise ValueError("bits_per_token: X has no tokens; expected one sequence or more")
    return float(code_length(model, X).sum() / tokens)


def _width(X: Any, who: str) -> int:
    """Number of values in a row."""
    shape = getattr(X, "shape", None)
    if shape is None:
        shape = np.shape(X)
    if len(shape) < 2 or 0 in shape:
        raise ValueError(
            f"{who}: X has shape {tuple(shape)}; expected rows of one size, (n, D) or images; "
            "sequences have bits_per_token"
        )
    return math.prod(shape[1:])


def _log_volume(X: Any, bin_width: Any) -> float:
    """Log volume of the bin of a row."""
    given, columns = np.asarray(bin_width, dtype=np.float64), _width(X, "code_length")
    if given.shape not in ((), (columns,)) or not (np.isfinite(given) & (given > 0.0)).all():
        raise ValueError(
            f"code_length: bin_width is {bin_width!r}; expected a number above 0, or one for each "
            f"of {columns} columns"
        )
    return float(np.broadcast_to(np.log(given), (columns,)).sum())
