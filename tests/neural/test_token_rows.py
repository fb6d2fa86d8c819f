"""Rows of tokens: each token is scored once, from a past of its own length."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from ppl_gen.neural.token_rows import rows_of, windows

SIZES = [(2, 1), (5, 2), (8, 4), (8, 8), (39, 19), (50, 25)]


@pytest.mark.parametrize(("context_length", "stride"), SIZES)
def test_windows_score_each_token_once(context_length, stride):
    stream = torch.arange(40)[None] + 1
    stream[0, 0] = ~stream[0, 0]
    found = windows(stream, context_length, stride)[0]
    assert found.shape[1] == context_length + 1
    assert sorted(found[found >= 0].tolist()) == list(range(2, 41))
    assert (found[:, 0] < 0).all()
    # What is given comes before what is scored, and after the end.
    assert ((found >= 0).long().diff(dim=1) == 1).sum(1).tolist() == [1] * len(found)


@pytest.mark.parametrize(("context_length", "stride"), SIZES)
def test_sequences_of_any_lengths_come_back(context_length, stride):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 60, size=30)
    codes = torch.from_numpy(rng.integers(5, size=lengths.sum()))
    rows, owner = rows_of(codes, torch.from_numpy(lengths), 5, context_length, stride)
    for number, tokens in enumerate(codes.split(lengths.tolist())):
        own = rows[owner == number]
        assert own[own >= 0].tolist() == [*tokens.tolist(), 5]
        assert own[0, 0] == ~5


def test_the_past_is_half_a_window_or_all_there_is():
    rows, _ = rows_of(torch.arange(50), torch.tensor([50]), 50, 12, 6)
    for row in rows.tolist():
        first = next(place for place, code in enumerate(row) if code >= 0)
        assert row[0] == ~50 or first >= 7
        for before, code in pairwise(row):
            if code >= 0 and before not in (~50, 50):
                assert code == max(before, ~before) + 1
