"""Likelihoods of entries against sums over their levels, SciPy, and simulation."""

import numpy as np
import pytest
import torch
from scipy import stats

from ppl_gen.neural.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretisedLogistic,
    DiscretisedLogisticLikelihood,
    NormalLikelihood,
)

WIDTH = 4


def normal():
    torch.manual_seed(1)
    return NormalLikelihood(torch.randn(WIDTH), torch.rand(WIDTH) + 0.5)


LIKELIHOODS = {
    "normal": normal,
    "bernoulli": BernoulliLikelihood,
    "categorical": lambda: CategoricalLikelihood(3),
    "discretised_logistic": lambda: DiscretisedLogisticLikelihood(5),
}


def outputs_of(likelihood, *shape, dtype=torch.float64):
    torch.manual_seed(0)
    return 2.0 * torch.randn(*shape, WIDTH, likelihood.n_outputs, dtype=dtype)


@pytest.mark.parametrize("scale", [1e-3, 0.3, 5.0, 1e4])
@pytest.mark.parametrize("levels", [2, 5, 256])
def test_masses_of_levels_sum_to_one(scale, levels):
    loc = torch.tensor([-50.0, 0.0, 0.4 * levels, levels + 20.0], dtype=torch.float64)
    entries = DiscretisedLogistic(loc, torch.tensor(scale, dtype=torch.float64), levels)
    masses = entries.log_prob(torch.arange(levels, dtype=torch.float64)[:, None])
    torch.testing.assert_close(masses.logsumexp(0), torch.zeros_like(loc), rtol=0, atol=1e-10)


def test_discretised_logistic_is_a_difference_of_cdfs():
    loc, scale = 3.3, 0.7
    entries = DiscretisedLogistic(
        torch.tensor(loc, dtype=float), torch.tensor(scale, dtype=float), 9
    )
    edges = stats.logistic.cdf(np.r_[-np.inf, np.arange(8) + 0.5, np.inf], loc, scale)
    masses = entries.log_prob(torch.arange(9, dtype=float)).exp()
    np.testing.assert_allclose(masses, np.diff(edges), rtol=1e-10)


def test_tails_are_exact_and_have_gradients():
    # 200 scales away a float32 difference of sigmoids is zero, its logarithm -inf.
    loc = torch.tensor(200.0, requires_grad=True)
    found = DiscretisedLogistic(loc, torch.tensor(1.0), 256).log_prob(torch.tensor(0.0 + 1))
    exact = -(200.0 - 1.5) + np.log1p(-np.exp(-1.0))
    assert found.item() == pytest.approx(exact, rel=1e-6)  # float32
    found.backward()
    assert loc.grad.item() == pytest.approx(-1.0, rel=1e-5)


def test_draws_and_moments_of_the_discretised_logistic():
    torch.manual_seed(0)
    loc = torch.tensor([-1.0, 1.2, 4.9], dtype=torch.float64)
    entries = DiscretisedLogistic(loc, torch.tensor(0.8, dtype=torch.float64), 6)
    masses = entries.log_prob(torch.arange(6.0, dtype=torch.float64)[:, None]).exp()
    drawn = entries.sample((40_000,))
    shares = torch.stack([(drawn == level).double().mean(0) for level in range(6)])
    # Five standard errors of a share of 40,000.
    torch.testing.assert_close(shares, masses, rtol=0, atol=5 * 0.5 / 200)
    levels = torch.arange(6.0, dtype=torch.float64)[:, None]
    torch.testing.assert_close(entries.mean, (levels * masses).sum(0))
    torch.testing.assert_close(entries.mode, masses.argmax(0).double())


def test_relaxed_labels_are_probabilities():
    likelihood = CategoricalLikelihood(3)
    x = torch.tensor([[0.0, 2.0, torch.nan]])
    told = likelihood.relaxed_features(likelihood.relaxed(x))
    torch.testing.assert_close(told.sum(-1), torch.ones(1, 3))
    assert told[0, :2].argmax(-1).tolist() == [0, 2]
    assert told[0, 0, 0] > 0.9
    torch.testing.assert_close(told[0, 2], torch.full((3,), 1 / 3))


@pytest.mark.parametrize("name", ["bernoulli", "categorical", "discretised_logistic"])
def test_masses_of_rows_sum_to_one(name):
    likelihood = LIKELIHOODS[name]()
    count = {"bernoulli": 2, "categorical": 3, "discretised_logistic": 5}[name]
    every = torch.cartesian_prod(*[torch.arange(count, dtype=torch.float64)] * WIDTH)
    rows = likelihood.rows(outputs_of(likelihood))
    assert rows.log_prob(every).logsumexp(0).item() == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_entries_left_out_are_summed_out(name):
    likelihood = LIKELIHOODS[name]().double()
    outputs = outputs_of(likelihood, 2)
    x = torch.ones(2, WIDTH, dtype=torch.float64)
    observed = torch.tensor([[True, False, True, True], [False, False, True, False]])
    each = likelihood.dist(outputs).log_prob(x)
    torch.testing.assert_close(
        likelihood.rows(outputs, observed).log_prob(x), (each * observed).sum(-1)
    )
    torch.testing.assert_close(likelihood.rows(outputs).log_prob(x), each.sum(-1))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_shapes_of_what_goes_in_and_comes_out(name):
    likelihood = LIKELIHOODS[name]()
    outputs = outputs_of(likelihood, 7, 3, dtype=torch.float32)
    drawn = likelihood.rows(outputs).sample()
    assert drawn.shape == (7, 3, WIDTH)
    assert likelihood.features(drawn).shape == (7, 3, WIDTH, likelihood.n_features)
    moment = likelihood.moment(outputs)
    assert likelihood.value(moment).shape == likelihood.centre(outputs).shape == (7, 3, WIDTH)
    # What stands for a moment is a value that has a probability.
    assert torch.isfinite(likelihood.rows(outputs).log_prob(likelihood.value(moment))).all()
    rows = likelihood.rows(outputs)
    assert rows.expand((2, 7, 3)).log_prob(drawn).shape == (2, 7, 3)


def test_features_of_labels_are_indicators_and_of_gaps_nothing():
    x = torch.tensor([[0.0, 2.0, torch.nan, 1.0]])
    found = CategoricalLikelihood(3).features(x)
    assert found[0].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("noise", ["learned", "column", 0.25])
def test_noise_of_the_normal(noise):
    scale = torch.tensor([1.0, 10.0, 1.0, 2.0])
    likelihood = NormalLikelihood(torch.zeros(WIDTH), scale, noise)
    count = {"learned": 1, "column": WIDTH, 0.25: 0}[noise]
    assert sum(p.numel() for p in likelihood.parameters()) == count
    expected = torch.full((WIDTH,), 0.5) if noise == 0.25 else scale
    torch.testing.assert_close(likelihood.deviation(), expected, rtol=1e-6, atol=0)
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    found = likelihood.rows(torch.zeros(1, WIDTH, 1)).log_prob(x)
    exact = stats.norm.logpdf(x.numpy(), 0.0, expected.numpy()).sum()
    assert found.item() == pytest.approx(exact, rel=1e-5)
