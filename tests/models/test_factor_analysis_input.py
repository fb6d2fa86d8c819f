"""What factor models refuse, and what they warn of."""

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from ppl_gen import FactorAnalysis, ProbabilisticPCA

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2)) @ RNG.normal(size=(2, 8)) + RNG.normal(size=(60, 8))


@pytest.mark.parametrize("make", [FactorAnalysis, ProbabilisticPCA])
@pytest.mark.parametrize("n_components", [0, -1, 8, 9, 1.5, None, "mle"])
def test_numbers_of_factors_that_there_are_not(make, n_components):
    with pytest.raises(ValueError, match=r"n_components is .*n_features=8.*fewer than the columns"):
        make(n_components).fit(X)


@pytest.mark.parametrize("rotation", ["oblimin", "Varimax", 1])
def test_rotations_that_there_are_not(rotation):
    with pytest.raises(ValueError, match=r"rotation is .*; expected None or one of 'varimax'"):
        FactorAnalysis(2, rotation=rotation).fit(X)


def test_a_column_of_nothing():
    x = X.copy()
    x[:, 3] = np.nan
    with pytest.raises(ValueError, match="column 3 is all NaN"):
        FactorAnalysis(2).fit(x)


def test_too_few_rows():
    with pytest.raises(ValueError, match="n_samples=3 rows, which 2 factors fit without noise"):
        FactorAnalysis(2).fit(X[:3])
    model = ProbabilisticPCA(2, prior="default").fit(X[:3])
    assert np.isfinite(model.log_prob(X)).all()


def test_infinite_and_strange_entries():
    x = X.copy()
    x[0, 0] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        FactorAnalysis(1).fit(x)
    with pytest.raises(ValueError, match="not numbers"):
        FactorAnalysis(1).fit(np.full((5, 3), "a"))


def test_a_constant_column_is_told():
    x = X.copy()
    x[:, 2] = 1.0
    with pytest.warns(RuntimeWarning, match="1 constant column"):
        model = FactorAnalysis(1).fit(x)
    assert np.isfinite(model.log_prob(x)).all()
    ProbabilisticPCA(1).fit(x)  # the column shares the noise of the others
    with pytest.warns(RuntimeWarning, match="8 constant column"):
        ProbabilisticPCA(1).fit(np.ones((20, 8)))
    with pytest.warns(RuntimeWarning, match="8 constant column"):
        model = FactorAnalysis(2, rotation="promax").fit(np.ones((20, 8)))
    np.testing.assert_allclose(model.loadings_, 0.0, atol=1e-6)


def test_a_heywood_case_is_told_with_the_column():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(100, 6)) * [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    x = rng.normal(size=(100, 1)) * [1.0, 0.5, 0.4, 0.5, -0.4, 0.5] + noise
    frame = pd.DataFrame(x, columns=["sure", "b", "c", "d", "e", "f"])
    with pytest.warns(RuntimeWarning, match=r"all of 1 column\(s\) \(sure\).*a Heywood case"):
        model = FactorAnalysis(1).fit(frame)
    assert (model.noise_variance_ > 0.0).all()
    assert FactorAnalysis(1, prior="default").fit(frame).noise_variance_[0] > 1e-4


def test_too_many_factors_to_be_identified_are_told():
    with pytest.warns(
        RuntimeWarning, match="2 factors of 4 columns are not identified.* of 1 or less"
    ):
        FactorAnalysis(2, prior="default").fit(X[:, :4])
    ProbabilisticPCA(3).fit(StandardScaler().fit_transform(X[:, :4]))  # is always


def test_categories_are_no_numbers():
    frame = pd.DataFrame({"a": ["x", "y"] * 10, "b": np.arange(20.0), "c": np.arange(20.0) ** 2})
    with pytest.raises(ValueError, match="column 'a' holds categories"):
        FactorAnalysis(1).fit(frame)


def test_scores_of_the_wrong_width():
    model = ProbabilisticPCA(2).fit(X)
    with pytest.raises(ValueError, match="has 3 columns; expected the 2 factors"):
        model.inverse_transform(np.zeros((4, 3)))
