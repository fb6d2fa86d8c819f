"""The layout of sequences: every row stands once, step after step, whole or cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl_gen.algorithms import side_by_side
from ppl_gen.algorithms.hidden_markov import Emissions, log_evidence, smooth
from ppl_gen.algorithms.hidden_markov_paths import viterbi
from ppl_gen.algorithms.side_by_side import lay_out

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=8)


def cut_at(block, lengths):
    """The layout of sequences whose pieces have at most `block` steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "_block", lambda lengths, n_states: block)
        return lay_out(np.array(lengths), 2)


@given(LENGTHS, st.integers(1, 40))
def test_every_step_of_every_sequence_stands_once_in_its_place(lengths, block):
    layout = cut_at(block, lengths)
    total = sum(lengths)
    assert sorted(layout.rows.tolist()) == list(range(total))
    assert layout.starts[0] == 0
    assert layout.starts[-1] == total
    assert layout.n_sequences == len(lengths)
    assert layout.lengths.max() <= block
    assert (np.diff(layout.lengths) <= 0).all()
    assert (np.diff(layout.widths) <= 0).all()
    first = np.cumsum(lengths) - lengths
    found = [[] for _ in lengths]  # rows of each sequence, piece by piece
    for piece in np.lexsort((layout.place, layout.sequence)):
        columns = np.array(layout.starts[: layout.lengths[piece]]) + piece
        found[layout.sequence[piece]] += layout.rows[columns].tolist()
        assert layout.last[piece] == columns[-1]
        assert (layout.column_sequence[columns] == layout.sequence[piece]).all()
    for rows, start, length in zip(found, first, lengths, strict=True):
        assert rows == list(range(start, start + length))


@given(LENGTHS, st.integers(1, 10))
def test_pieces_of_a_sequence_follow_one_another(lengths, block):
    layout = cut_at(block, lengths)
    assert layout.is_cut == (max(lengths) > block)
    later, before = layout.follows
    assert len(later) == len(layout.lengths) - len(lengths)
    np.testing.assert_array_equal(layout.sequence[later], layout.sequence[before])
    np.testing.assert_array_equal(layout.place[later], layout.place[before] + 1)
    # Pieces of one sequence are of near equal length: none is a remnant.
    for number in range(len(lengths)):
        assert np.ptp(layout.lengths[layout.sequence == number]) <= 1
    chain = layout.chain
    for step in range(len(chain.starts) - 1):
        pieces = chain.rows[chain.starts[step] : chain.starts[step + 1]]
        assert (layout.place[pieces] == step).all()


@given(LENGTHS, st.integers(1, 40))
def test_runs_are_steps_of_one_width(lengths, block):
    layout = cut_at(block, lengths)
    widths = [width for first, stop, width in layout.runs for _ in range(first, stop)]
    assert widths == layout.widths.tolist()
    assert [run[0] for run in layout.runs[1:]] == [run[1] for run in layout.runs[:-1]]


def test_only_long_sequences_of_few_states_are_cut():
    assert lay_out(np.array([100_000]), 5).is_cut
    assert not lay_out(np.array([100_000]), 5, cut=False).is_cut
    assert not lay_out(np.array([500] * 200), 5).is_cut
    # Many long sequences fill a step by themselves: cutting would cost K times the arithmetic.
    assert not lay_out(np.array([10_000] * 100), 20).is_cut


@pytest.mark.parametrize("stay", [0.5, 0.9, 0.999, 1.0 - 1e-9])
def test_pieces_join_however_slowly_a_chain_forgets(stay, monkeypatch):
    """Pieces that start from anywhere, over one round, over several, and by transfer matrices."""
    rng = np.random.default_rng(3)
    for _ in range(12):
        n_states = int(rng.integers(2, 5))
        start = rng.dirichlet(np.ones(n_states))
        spread = rng.dirichlet(np.ones(n_states), n_states)
        transition = stay * np.eye(n_states) + (1.0 - stay) * spread
        lengths = rng.integers(1, 150, size=3)
        logs = rng.normal(size=(lengths.sum(), n_states)) * rng.choice([0.05, 1.0, 10.0])
        found = []
        for block in (4, 11, 40, 10**6):
            monkeypatch.setattr(
                side_by_side, "_block", lambda n, _, block=block: min(block, int(n.max()))
            )
            emissions = Emissions.of(logs, lengths)
            smoothed = smooth(start, transition, emissions)
            by_row = np.empty_like(smoothed.marginals)
            by_row[emissions.layout.rows] = smoothed.marginals
            best, path = viterbi(start, transition, emissions)
            evidence = log_evidence(start, transition, emissions)
            found.append(
                (smoothed.log_evidence, by_row, smoothed.transitions, best, path, evidence)
            )
        for cut in found[:-1]:
            for a, b in zip(cut, found[-1], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
