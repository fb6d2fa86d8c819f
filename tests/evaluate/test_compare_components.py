"""Numbers of components side by side, against scikit-learn, sums by hand, and simulation."""

import numpy as np
import pandas as pd
import pytest
from sklearn import mixture
from sklearn.model_selection import KFold

from ppl_gen import EM, NUTS, GaussianMixture, HiddenMarkovModel, MarkovChain, Mixture
from ppl_gen.evaluate.model_choice import compare_components

MEANS = np.array([-4.0, 0.0, 4.0])
LENGTHS = np.array([60, 25, 90, 40, 55, 30, 80, 20])


@pytest.fixture(scope="module")
def sequences():
    """Sequences of a chain of three states that are well apart."""
    rng = np.random.default_rng(3)
    found = []
    for length in LENGTHS:
        states = [rng.integers(3)]
        for _ in range(length - 1):
            states.append(states[-1] if rng.random() < 0.85 else rng.integers(3))
        found.append(rng.normal(MEANS[states], 0.8)[:, None])
    return found


@pytest.fixture(scope="module")
def model():
    return HiddenMarkovModel(inference=EM(n_init=3), random_state=0)


@pytest.fixture(scope="module")
def table(model, sequences):
    return compare_components(model, sequences, n_components=range(1, 6), cv=4)


def test_bic_and_held_out_density_recover_the_number_of_states(table):
    assert table.attrs["best"]["bic"] == 3
    # A state too few costs much, beyond chance; one too many little.
    assert table.attrs["best"]["held_out"] >= 3
    assert (table.loc[[1, 2], "difference"] < -2 * table.loc[[1, 2], "difference_se"]).all()
    assert abs(table.loc[4, "difference"]) < 0.5 * abs(table.loc[2, "difference"])


def test_the_table_says_what_the_models_say(table, model, sequences):
    assert table.index.tolist() == [1, 2, 3, 4, 5]
    assert table.index.name == "n_components"
    assert (table["failure"] == "").all()
    assert table["converged"].all()
    fitted = HiddenMarkovModel(2, inference=model.inference, random_state=0).fit(sequences)
    row = table.loc[2]
    assert row["n_free"] == fitted.n_free_parameters()
    assert row["aic"] == pytest.approx(fitted.aic(sequences), rel=1e-12)
    assert row["bic"] == pytest.approx(fitted.bic(sequences), rel=1e-12)
    assert row["log_likelihood"] == pytest.approx(fitted.score(sequences), rel=1e-12)
    assert not hasattr(model, "parameters_")


def test_held_out_density_is_of_whole_sequences(sequences):
    model = HiddenMarkovModel(random_state=0)
    table = compare_components(model, sequences, n_components=[2, 1], cv=KFold(4))
    by_hand = {}
    for count in (1, 2):
        density = np.empty(8)
        for first in range(0, 8, 2):
            chosen = [first, first + 1]
            rest = [x for place, x in enumerate(sequences) if place not in chosen]
            fitted = HiddenMarkovModel(count, random_state=0).fit(rest)
            density[chosen] = fitted.log_prob([sequences[place] for place in chosen])
        by_hand[count] = density
        assert table.loc[count, "held_out"] == pytest.approx(density.sum() / LENGTHS.sum())
    # The standard error of a ratio of totals is that of its linearisation.
    gap = by_hand[1] - by_hand[2]
    left = gap - gap.sum() / LENGTHS.sum() * LENGTHS
    assert table.loc[1, "difference"] == pytest.approx(gap.sum() / LENGTHS.sum())
    assert table.loc[1, "difference_se"] == pytest.approx(
        np.sqrt(8) * left.std(ddof=1) / LENGTHS.sum()
    )
    assert table.loc[2, "difference"] == table.loc[2, "difference_se"] == 0.0


def test_rows_with_lengths_and_lists_give_the_same(sequences):
    model = HiddenMarkovModel(random_state=0)
    listed = compare_components(model, sequences, n_components=[1, 2], cv=2)
    rows = compare_components(model, np.concatenate(sequences), LENGTHS, n_components=[1, 2], cv=2)
    pd.testing.assert_frame_equal(listed, rows)


@pytest.mark.parametrize("seed", [0, np.random.RandomState(5)])
def test_one_seed_gives_one_table(sequences, seed):
    model = HiddenMarkovModel(random_state=seed)
    once, again = (
        compare_components(model, sequences, n_components=[2, 3], cv=3) for _ in range(2)
    )
    pd.testing.assert_frame_equal(once, again)


def test_mixtures_as_scikit_learn_has_them():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(-3, 1, (80, 2)), rng.normal(3, 1, (120, 2))])
    tight = EM(max_iter=500, tol=1e-8)
    model = GaussianMixture(inference=tight, random_state=0)
    table = compare_components(model, X, n_components=[1, 2], cv=5)
    for count in (1, 2):
        theirs = mixture.GaussianMixture(count, tol=1e-10, max_iter=1000, random_state=0).fit(X)
        # Both stop on the same maximum, which is flat: what is left is of second order.
        assert table.loc[count, "aic"] == pytest.approx(theirs.aic(X), rel=1e-6)
        assert table.loc[count, "bic"] == pytest.approx(theirs.bic(X), rel=1e-6)
    assert table.attrs["best"] == {"aic": 2, "bic": 2, "held_out": 2}


def test_frames_with_categories_that_a_fold_lacks():
    rng = np.random.default_rng(0)
    rare = np.array(["a", "b"] * 20)
    rare[7] = "rare"
    frame = pd.DataFrame({"kind": rare, "size": rng.normal(size=40)})
    table = compare_components(Mixture(random_state=0), frame, n_components=[1], cv=4)
    assert table.loc[1, "failure"] == ""
    assert np.isfinite(table.loc[1, "held_out"])


def test_a_candidate_that_fails_is_a_row_with_the_reason():
    X = np.array([[0.0], [0.4], [1.0], [5.0]])
    table = compare_components(Mixture(random_state=0), X, n_components=[1, 9])
    assert "use fewer components" in table.loc[9, "failure"]
    assert np.isnan(table.loc[9, "bic"])
    assert pd.isna(table.loc[9, "converged"])
    assert table.attrs["best"] == {"aic": 1, "bic": 1}


def test_a_candidate_that_fails_in_a_fold_keeps_its_criteria():
    X = np.arange(6.0)[:, None]
    table = compare_components(Mixture(random_state=0), X, n_components=[1, 5], cv=3)
    assert "use fewer components" in table.loc[5, "failure"]
    assert np.isfinite(table.loc[5, "bic"])
    assert np.isnan(table.loc[5, "held_out"])
    assert np.isnan(table.loc[5, "difference"])
    assert table.attrs["best"]["held_out"] == 1


class TestBadInput:
    X = np.arange(12.0)[:, None]

    @pytest.mark.parametrize(
        ("n_components", "match"),
        [([], "is empty"), ([1, 2.5], "whole numbers"), ([2, 2], "each once")],
    )
    def test_candidates(self, n_components, match):
        with pytest.raises(ValueError, match=match):
            compare_components(GaussianMixture(), self.X, n_components=n_components)

    def test_nothing_could_be_fitted(self):
        with pytest.raises(ValueError, match=r"no candidate could be fitted; n_components=0"):
            compare_components(GaussianMixture(), self.X, n_components=[0, -1])

    def test_a_model_without_components(self):
        with pytest.raises(ValueError, match="MarkovChain has no n_components"):
            compare_components(MarkovChain(), ["abab"])

    def test_one_sequence_cannot_be_held_out(self):
        with pytest.raises(ValueError, match=r"cv=2 folds of 1 sequences.*leave_future_out"):
            compare_components(HiddenMarkovModel(), self.X, cv=2)

    @pytest.mark.parametrize("cv", [1, 13])
    def test_folds(self, cv):
        with pytest.raises(ValueError, match="folds of 12 rows; expected from 2 folds"):
            compare_components(GaussianMixture(), self.X, cv=cv)

    def test_lengths(self):
        with pytest.raises(ValueError, match="lengths sum to 3, but X has 12 rows"):
            compare_components(HiddenMarkovModel(), self.X, [1, 2])
        with pytest.raises(ValueError, match="lengths is of sequences"):
            compare_components(GaussianMixture(), self.X, [12])

    def test_bayesian_fits_have_no_criteria(self):
        with pytest.raises(ValueError, match="AIC and BIC are for fits by EM"):
            compare_components(GaussianMixture(inference=NUTS()), self.X)
