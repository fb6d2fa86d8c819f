"""Pictures hold what they claim: what is on the axes is checked, not how it looks."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from ppl_gen import GaussianMixture, Mixture, NaiveBayes, plots
from ppl_gen.datasets import load_penguins

SIZES = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm"]


@pytest.fixture(scope="module")
def penguins():
    return load_penguins().frame


def covariance_matrix(model, k):
    covariance = model.covariances_ if model.covariance_type == "tied" else model.covariances_[k]
    return covariance if np.ndim(covariance) == 2 else np.diag(np.broadcast_to(covariance, (3,)))


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_ellipses_hold_their_share_of_each_component(penguins, covariance_type):
    model = GaussianMixture(3, covariance_type, random_state=0).fit(penguins[SIZES])
    ax = plots.plot_mixture(model, penguins[SIZES], (2, 0))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("flipper_length_mm", "bill_length_mm")
    lines = iter(ax.lines)
    assert len(ax.lines) == 2 * 3
    pair = [2, 0]
    for k in range(3):
        covariance = covariance_matrix(model, k)[np.ix_(pair, pair)]
        for share in (0.5, 0.9):
            away = next(lines).get_xydata() - model.means_[k, pair]
            square = np.einsum("nd,nd->n", away, np.linalg.solve(covariance, away.T).T)
            # A squared distance of two dimensions is chi-square with two degrees of freedom,
            # whose distribution is 1 - exp(-d / 2).
            np.testing.assert_allclose(1.0 - np.exp(-0.5 * square), share, rtol=1e-9)


def test_every_row_that_is_seen_is_drawn_once(penguins):
    model = GaussianMixture(3, random_state=0).fit(penguins[SIZES])
    ax = plots.plot_mixture(model, penguins[SIZES])
    drawn = np.concatenate([part.get_offsets() for part in ax.collections])
    assert len(drawn) == len(penguins)
    seen = penguins[SIZES[:2]].dropna().to_numpy()
    drawn = drawn[~np.isnan(np.ma.filled(drawn, np.nan)).any(axis=1)]
    np.testing.assert_array_equal(np.sort(drawn, axis=0), np.sort(seen, axis=0))


def test_draws_lie_over_each_other(penguins):
    model = GaussianMixture(2, random_state=0).fit(penguins[SIZES])
    draws = {"weights": np.full((50, 2), 0.5), "family": {}}
    draws["family"] = {k: np.repeat(v, 50, axis=0) for k, v in model.parameters_["family"].items()}
    draws["family"]["mean"] += np.random.default_rng(0).normal(size=draws["family"]["mean"].shape)
    model.parameters_ = draws
    ax = plots.plot_mixture(model, penguins[SIZES], n_draws=7)
    assert len(ax.lines) == 7 * 2 * 2


def test_a_mixture_without_ellipses_is_refused():
    model = Mixture(2, family="poisson", random_state=0).fit([[0, 1], [1, 0], [9, 9], [9, 8]])
    with pytest.raises(TypeError, match="components of Mixture are Poisson"):
        plots.plot_mixture(model, [[0, 1]])


def test_calibration_draws_each_bin_with_its_interval():
    proba = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 5)
    y = np.array(["a"] * 9 + ["b"] + ["b"] * 3 + ["a"] * 2)
    ax = plots.plot_calibration(y, proba, ["a", "b"])
    bars, dots = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), [[0.6, 0.6], [0.9, 0.9]])
    for (bottom, top), (_, accuracy) in zip(
        [segment[:, 1] for segment in bars.get_segments()], dots.get_offsets(), strict=True
    ):
        assert 0.0 < bottom < accuracy < top < 1.0
    assert ax.get_title() == "expected calibration error 0.000"


def test_explanation_draws_terms_that_sum_to_the_title(penguins):
    X = penguins[[*SIZES, "island"]]
    explanation = NaiveBayes().fit(X, penguins["species"]).explain(X)
    ax = plots.plot_explanation(explanation, 4)
    row = explanation.iloc[4]
    bars = {
        label.get_text(): bar.get_width()
        for label, bar in zip(ax.get_yticklabels(), ax.patches, strict=True)
    }
    assert bars == pytest.approx(row.drop(["label", "against"]).to_dict())
    assert f"{row['label']} against {row['against']}: {sum(bars.values()):.1f}" in ax.get_title()
    assert list(np.abs(list(bars.values()))) == sorted(np.abs(list(bars.values())))


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plots.plot_calibration([0, 1], np.eye(2), [0, 1], ax=ax),
        lambda ax: plots.plot_explanation(
            pd.DataFrame({"label": ["a"], "against": ["b"], "prior": [0.5]}), ax=ax
        ),
    ],
)
def test_axes_that_are_given_are_drawn_on(draw):
    ax = plt.figure().add_subplot()
    assert draw(ax) is ax
    assert draw(None) is not ax


@pytest.mark.parametrize("columns", [(0, 9), (0,), (-4, 0)])
def test_columns_that_are_not_there_are_named(columns):
    X = np.random.default_rng(0).normal(size=(30, 3))
    with pytest.raises(ValueError, match="expected the places of two columns, from 0 to 2"):
        plots.plot_mixture(GaussianMixture(1).fit(X), X, columns)


def test_a_row_that_is_not_there_is_named(penguins):
    explanation = NaiveBayes().fit(penguins[["bill_length_mm"]], penguins["species"])
    explanation = explanation.explain(penguins[["bill_length_mm"]].head(3))
    with pytest.raises(ValueError, match="row is 3, but the explanation is of 3 rows"):
        plots.plot_explanation(explanation, 3)


def test_a_mixture_that_was_not_fitted_is_refused():
    with pytest.raises(NotFittedError):
        plots.plot_mixture(GaussianMixture(1), np.zeros((3, 2)))
