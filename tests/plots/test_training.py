"""Pictures of training: lines are the columns of the history, bars the variances of the codes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ppl_gen import GaussianMixture, ProbabilisticPCA, plots
from ppl_gen.datasets import load_iris


@pytest.fixture(scope="module")
def iris():
    return load_iris().X


def test_history_is_the_objective_of_each_step(iris):
    model = GaussianMixture(2, random_state=0).fit(iris)
    line = plots.plot_history(model).lines[0]
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, model.n_iter_ + 1))
    np.testing.assert_array_equal(line.get_ydata(), model.history_)


class Fitted:
    """What `plot_history` reads of a model that EM did not fit."""

    def __init__(self, method, info):
        self.posterior_ = self
        self.method, self.info = method, info


def test_history_of_svi_is_its_elbo():
    line = plots.plot_history(Fitted("svi", {"history": np.arange(300.0)})).lines[0]
    np.testing.assert_array_equal(line.get_ydata(), np.arange(300.0))


def test_nuts_has_no_history():
    with pytest.raises(ValueError, match="fitted by 'nuts', which has no objective"):
        plots.plot_history(Fitted("nuts", {}))


HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "loss": [3.0, 2.0, 1.0],
        "validation_loss": [3.5, 2.5, 2.75],
        "learning_rate": [1e-3] * 3,
    }
)


class Network:
    """What `plot_history` reads of a trained network."""

    def __init__(self, history, best_epoch):
        self.history_, self.best_epoch_ = history, best_epoch


def test_losses_by_epoch_and_the_weights_that_were_kept():
    ax = plots.plot_history(Network(HISTORY, 2))
    training, validation, kept = ax.lines
    np.testing.assert_array_equal(training.get_xydata(), HISTORY[["epoch", "loss"]])
    np.testing.assert_array_equal(validation.get_ydata(), HISTORY["validation_loss"])
    assert kept.get_xdata() == [2, 2]
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["training", "validation", "kept"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss, nats a row")


def test_without_validation_there_is_one_line():
    history = HISTORY.drop(columns="validation_loss")
    for model in (Network(history, 3), history):
        ax = plots.plot_history(model)
        assert len(ax.lines) == 1
        assert ax.get_legend() is None


def test_a_frame_that_is_no_history_is_named():
    with pytest.raises(ValueError, match="the history has no column epoch or loss; expected a"):
        plots.plot_history(pd.DataFrame({"step": [1]}))


def test_bars_are_variances_of_codes():
    class Codes:
        def transform(self, X, scale=1.0):
            return np.asarray(X) * [1e-3, 1.0, 0.0]

    X = np.random.default_rng(0).normal(size=(200, 3))
    ax = plots.plot_active_units(Codes(), X)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "0", "2"]
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, X.var(axis=0)[[1, 0, 2]] * [1.0, 1e-6, 0.0])
    assert ax.get_title() == "1 of 3 latents are active"
    assert ax.get_ylim()[0] < heights[1]


def test_factors_have_bars_too(iris):
    ax = plots.plot_active_units(ProbabilisticPCA(2).fit(iris), iris)
    assert ax.get_title() == "2 of 2 latents are active"


def test_what_has_no_latents_is_named(iris):
    with pytest.raises(TypeError, match="GaussianMixture has no transform; expected a model with"):
        plots.plot_active_units(GaussianMixture(1).fit(iris), iris)
    with pytest.raises(ValueError, match="X has one row; expected two or more"):
        plots.plot_active_units(ProbabilisticPCA(1).fit(iris), iris[:1])


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plots.plot_history(Fitted("svi", {"history": [1.0, 2.0]}), ax=ax),
        lambda ax: plots.plot_history(HISTORY, ax=ax),
    ],
)
def test_axes_that_are_given_are_drawn_on(draw):
    ax = plt.figure().add_subplot()
    assert draw(ax) is ax
    assert draw(None) is not ax
