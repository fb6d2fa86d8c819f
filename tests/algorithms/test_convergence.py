import numpy as np
import pytest

from ppl_gen.algorithms.convergence import bfmi, bulk_ess, rhat, tail_ess
from ppl_gen.arviz_bridge import az


def autoregressive(rho, chains, draws, entries, seed=0):
    rng = np.random.default_rng(seed)
    x = np.zeros((chains, draws, entries))
    x[:, 0] = rng.normal(size=(chains, entries))
    for t in range(1, draws):
        x[:, t] = rho * x[:, t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=(chains, entries))
    return x


CASES = {
    "independent": autoregressive(0.0, 4, 400, 3),
    "slow": autoregressive(0.95, 4, 400, 3),
    "antithetic": autoregressive(-0.7, 4, 400, 3),
    "odd length": autoregressive(0.5, 3, 251, 3),
    "short": autoregressive(0.3, 2, 9, 3),
    "heavy tails": np.random.default_rng(1).standard_cauchy(size=(4, 300, 2)),
    "apart": autoregressive(0.5, 4, 200, 2) + np.arange(4)[:, None, None],
    "ties": np.round(autoregressive(0.5, 4, 200, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_arviz(case):
    draws = CASES[case]
    for ours, theirs in [
        (rhat, lambda x: az.rhat(x)),
        (bulk_ess, lambda x: az.ess(x, method="bulk")),
        (tail_ess, lambda x: az.ess(x, method="tail")),
    ]:
        expected = [float(theirs(draws[..., i])) for i in range(draws.shape[2])]
        # The same formulas in another order of summation: rounding only.
        np.testing.assert_allclose(ours(draws), expected, rtol=1e-9)


def test_bfmi_equals_arviz():
    energy = autoregressive(0.4, 4, 300, 1)[..., 0]
    np.testing.assert_allclose(bfmi(energy), az.bfmi(energy), rtol=1e-12)


def test_one_chain_still_has_effective_size():
    draws = CASES["slow"][:1]
    expected = [float(az.ess(draws[..., i])) for i in range(3)]
    np.testing.assert_allclose(bulk_ess(draws), expected, rtol=1e-9)
    assert np.isnan(rhat(draws)).all()


def test_constants_and_nan_are_nan_and_shape_is_kept():
    draws = np.random.default_rng(0).normal(size=(4, 100, 2, 3))
    draws[..., 0, 1] = 3.0
    draws[1, 5, 1, 2] = np.nan
    for function in (rhat, bulk_ess, tail_ess):
        result = function(draws)
        assert result.shape == (2, 3)
        assert np.isnan(result).tolist() == [[False, True, False], [False, False, True]]


def test_chains_that_stand_still_apart_have_infinite_rhat():
    draws = np.repeat(np.arange(4.0)[:, None], 50, axis=1)
    assert rhat(draws) == np.inf
