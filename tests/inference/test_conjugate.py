"""Conjugate: settings, and who it is for."""

import numpy as np
import pytest

from ppl_gen import Conjugate, GaussianMixture, dist, infer, plate, program, sample
from ppl_gen.inference.base import resolve


class Coins:
    """A beta posterior: the method asks for its draws, and nothing else."""

    def draw_posterior(self, data, n_draws, rng):
        return {"bias": rng.beta(1 + data.sum(), 1 + len(data) - data.sum(), size=n_draws)}


def test_it_asks_the_model_for_draws():
    draws = Conjugate(draws=50).fit(Coins(), np.array([1, 1, 0]), np.random.default_rng(0))
    assert draws["bias"].shape == (50,)


def test_names_and_settings():
    assert resolve("conjugate").get_params() == {"draws": 1000}
    for draws in (0, 1.5, None):
        with pytest.raises(ValueError, match="Conjugate: draws is"):
            Conjugate(draws=draws).fit(Coins(), np.ones(2), np.random.default_rng(0))


def test_it_does_not_run_on_programs_nor_on_other_models():
    @program
    def heights(x=None):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        with plate("row", 3):
            sample("x", dist.Normal(mu, 1.0), obs=x)

    with pytest.raises(ValueError, match="Conjugate does not run on programs"):
        infer(heights, x=np.zeros(3), method="conjugate")
    with pytest.raises(ValueError, match="'conjugate' does not fit this model"):
        GaussianMixture(2, inference="conjugate").fit(np.zeros((5, 1)))
