"""Draws given what is known, against the conditional distribution by enumeration."""

import pytest
import torch
from torch.distributions import Categorical

from ppl_gen.neural.ancestral import draw_missing, evidence


class Chain:
    """A Markov chain of two states; what has been drawn is all it keeps."""

    initial = torch.tensor([0.6, 0.4], dtype=torch.float64)
    transition = torch.tensor([[0.9, 0.1], [0.15, 0.85]], dtype=torch.float64)

    def __init__(self, values, order):
        self.values, self.order = values, order

    def factor(self, place):
        if place == 0:
            return Categorical(self.initial.expand(len(self.values), 2))
        before = self.values[:, self.order[place - 1]].long()
        return Categorical(self.transition[before])

    def select(self, rows):
        self.values = self.values[rows]


def test_evidence_is_what_comes_after_a_gap():
    known = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 0], [0, 1, 0, 1]]).bool()
    assert evidence(known, range(4)).int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]]
    backwards = evidence(known, [3, 2, 1, 0]).int().tolist()
    assert backwards == [[1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_particles_draw_from_the_conditional(order):
    n, first, second = 4000, order[1], order[3]
    known = torch.zeros(n, 4, dtype=torch.bool)
    known[:, [first, second]] = True
    values = torch.zeros(n, 4, dtype=torch.float64)
    values[:, first], values[:, second] = 0.0, 1.0
    torch.manual_seed(0)
    steps = Chain(values.repeat_interleave(50, 0), order)
    drawn = draw_missing(steps, known, evidence(known, order), n_particles=50)
    estimate = drawn.log_evidence.exp().mean()
    drawn = drawn.draw()
    assert (drawn[:, first] == 0.0).all()
    assert (drawn[:, second] == 1.0).all()
    chain = Chain.transition
    start = Chain.initial * chain[:, 0]
    middle = chain[0] * chain[:, 1]
    for variable, masses in ((order[0], start), (order[2], middle)):
        expected = masses[1] / masses.sum()
        # Four standard errors, and the bias of 50 particles, of order 1 / 50 times the spread.
        assert abs(drawn[:, variable].mean() - expected) < 4 * 0.5 / n**0.5 + 0.01

    # Both known values weigh; the mean over 4000 filters has an error of some thousandths.
    total = start.sum() * middle.sum()
    assert estimate.item() == pytest.approx(total.item(), rel=0.01)


def test_one_particle_ignores_what_comes_after():
    values = torch.zeros(4000, 2, dtype=torch.float64)
    values[:, 1] = 1.0
    known = torch.tensor([False, True]).expand(4000, 2)
    torch.manual_seed(0)
    drawn = draw_missing(Chain(values, [0, 1]), known).draw()
    assert abs(drawn[:, 0].mean() - 0.4) < 4 * 0.5 / 4000**0.5
