"""Rows of tokens: what of a sequence is given, and what is to be scored.

A row is a stretch of a sequence. A code k >= 0 is predicted and scored; ``~k`` (that is, -1 - k) is
given, and is not. The first one is always given. With K symbols, the boundary before the first one
and after the last is K; what comes after the end is ``~K``, which changes nothing:

==========================  =====================
the sequence 1, 0           ``~K  1  0  K ~K ~K``
its rest, given the 1       ``~K ~1  0  K ~K ~K``
its beginning, of 2 tokens  ``~K  1  0``
==========================  =====================
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["rows_of", "windows"]


def rows_of(
    codes: Tensor, lengths: Tensor, n_symbols: int, context_length: int, stride: int
) -> tuple[Tensor, Tensor]:
    """Lay sequences out as rows: those that fit as one each, the others as `windows`.

    Parameters
    ----------
    codes : (N,) integers
        Of all sequences, one after another.
    lengths : (n,) integers
    n_symbols : int
        K.
    context_length, stride : int
        As of `windows`.

    Returns
    -------
    (m, context_length + 1) and (m,) integers
        The rows, and the number of the sequence of each.

    Examples
    --------
    >>> rows, owner = rows_of(torch.arange(5), torch.tensor([1, 4]), 5, 3, 1)
    >>> rows.tolist()
    [[-6, 0, 5, -6], [-6, 1, 2, 3], [-2, -3, -4, 4], [-3, -4, -5, 5]]
    >>> owner.tolist()
    [0, 1, 1, 1]
    """
    sequences = torch.split(codes, lengths.tolist())
    numbers = torch.arange(len(lengths))
    fits = lengths < context_length  # with the boundary at the end, which is predicted
    boundary = codes.new_tensor([n_symbols])
    short = codes.new_full((int(fits.sum()), context_length + 1), ~n_symbols)
    places = torch.arange(context_length + 1) - 1
    inside = (places >= 0) & (places < lengths[fits, None])
    short[inside] = codes[fits.repeat_interleave(lengths)]
    short[torch.arange(len(short)), lengths[fits] + 1] = n_symbols
    found, owner = [short], [numbers[fits]]
    for number in numbers[~fits].tolist():
        row = torch.cat([~boundary, sequences[number], boundary])
        found.append(windows(row[None], context_length, stride)[0])
        owner.append(numbers[number].expand(len(found[-1])))
    return torch.cat(found), torch.cat(owner)


def windows(rows: Tensor, context_length: int, stride: int) -> Tensor:
    """Cut rows into windows in which each token is scored once, in the first that it is in.

    Parameters
    ----------
    rows : (n, L) integers
    context_length : int
        Tokens from which the last one of a window is predicted.
    stride : int
        From a window to the next; `context_length` for windows that have but one token in common.

    Returns
    -------
    (n, m, context_length + 1) integers
        What is scored in a window before is given; after the end there are -1, which are given.

    Examples
    --------
    >>> windows(torch.tensor([[~9, 1, 2, 3, 4, 5, 9]]), 4, 2)
    tensor([[[-10,   1,   2,   3,   4],
             [ -3,  -4,  -5,   5,   9]]])
    """
    width = context_length + 1
    steps = -(-max(0, rows.shape[1] - width) // stride) * stride
    rows = F.pad(rows, (0, width + steps - rows.shape[1]), value=-1)
    found = rows.unfold(1, width, stride).clone()
    seen = found[:, 1:, : width - stride]
    seen.copy_(torch.minimum(seen, ~seen))
    return found
