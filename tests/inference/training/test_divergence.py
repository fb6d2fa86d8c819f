"""What is done about a loss or a gradient that is no finite number: named, and never masked."""

import numpy as np
import pytest
import torch
from training_cases import Denoiser, Game, rows, same, weights

from ppl_gen import Training
from ppl_gen.inference.training.loop import train


class Diverging(Denoiser):
    """Goes wrong at a step, in a part of the loss or in a gradient alone."""

    def __init__(self, at, what):
        super().__init__()
        self.at, self.what = at, what

    def losses(self, batch):
        parts = super().losses(batch)
        if self.calls == self.at:
            if self.what == "part":
                parts["penalty"] = parts["penalty"] * float("inf")
                parts["loss"] = parts["loss"] + parts["penalty"]
            else:
                # The root of 0 is 0, and its slope there is not a number.
                parts["loss"] = parts["loss"] + (0.0 * self.module[3].bias).square().sum().sqrt()
        return parts


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("part", r"the loss is inf, and so is its part penalty"),
        ("gradient", r"the loss is \d[\d.]*, but its gradient is not finite in 3.bias"),
    ],
)
def test_what_is_not_finite_is_named_at_its_step(what, told):
    objective, sound = Diverging(8, what), Denoiser(interrupt_at=(7,))
    settings = Training(epochs=9, batch_size=10, learning_rate=0.01)
    where = (
        r" at step 8 \(epoch 2, batch 3 of 5\); .*learning_rate \(now 0.01\).*clip_norm \(now None"
    )
    with pytest.raises(FloatingPointError, match="Flow.fit: " + told + where):
        train(objective, rows(), settings, who="Flow.fit")
    # The weights are those of the step before.
    with pytest.warns(RuntimeWarning, match="interrupted"):
        train(sound, rows(), settings)
    parameters = dict(objective.module.named_parameters())
    assert all(torch.equal(p, parameters[n]) for n, p in sound.module.named_parameters())


@pytest.mark.parametrize("ema", [None, 0.5])
@pytest.mark.parametrize("what", ["part", "gradient"])
def test_what_is_not_finite_late_keeps_the_best_epoch_before(what, ema):
    settings = {"batch_size": 10, "learning_rate": 0.01, "validation": 0.2, "ema": ema}
    # Four steps an epoch: the second one of the fourth.
    objective, sound = Diverging(14, what), Denoiser()
    told = r"Flow.fit: .* at step 14 \(epoch 4, batch 2 of 4\); expected .*learning_rate.*rows of"
    kept = r".*\.\.\.\); training ended there: the fit keeps the weights of epoch (\d), the best by"
    with pytest.warns(RuntimeWarning, match=told + kept) as caught:
        trained = train(objective, rows(), Training(epochs=9, **settings), who="Flow.fit")
    expected = train(sound, rows(), Training(epochs=3, **settings))
    assert len(caught) == 1
    assert (trained.stopped, trained.n_epochs) == ("diverged", 4)
    assert f"epoch {trained.best_epoch}, " in str(caught[0].message)
    assert trained.best_epoch == expected.best_epoch
    assert same(weights(objective.module), weights(sound.module))
    columns = [name for name in expected.history if name != "seconds"]
    assert trained.history[columns][:3].equals(expected.history[columns])
    last = trained.history.iloc[3]
    assert np.isfinite(last["loss"])
    assert np.isnan(last["validation_loss"])


def test_in_the_first_epoch_there_is_no_best_one_to_keep():
    with pytest.raises(FloatingPointError, match=r"the loss is inf.* at step 4 \(epoch 1"):
        train(Diverging(4, "part"), rows(), Training(batch_size=10, validation=0.2))


def test_a_game_that_diverges_between_two_turns_keeps_the_best_epoch():
    class Breaking(Game):
        def __init__(self):
            super().__init__()
            self.module.register_buffer("turns", torch.zeros(()))

        def step(self, batch, descend):
            self.module.turns += 1
            descend(-self.losses(batch)["loss"], player="critic")
            parts = self.losses(batch)
            if self.module.turns == 11:
                parts["loss"] = parts["loss"] * float("nan")
            descend(parts["loss"], player="generator")
            return parts

    settings = {"batch_size": 16, "optimizer": "sgd", "learning_rate": 0.1, "validation": 0.25}
    broken, sound = Breaking(), Breaking()
    with pytest.warns(RuntimeWarning, match=r"the loss is nan at step 11 \(epoch 4, batch 2 of 3"):
        trained = train(broken, {"x": np.zeros(64)}, Training(epochs=9, **settings))
    train(sound, {"x": np.zeros(64)}, Training(epochs=3, **settings))
    assert trained.stopped == "diverged"
    assert same(weights(broken.module), weights(sound.module))


class Failing(Denoiser):
    """Its validation is not finite at a call."""

    def __init__(self, at, **settings):
        super().__init__(**settings)
        self.at, self.validated = at, 0

    def validate(self, batch):
        self.validated += 1
        parts = super().validate(batch)
        return parts | {"loss": parts["loss"] / (self.validated != self.at)}


def test_a_validation_loss_that_is_not_finite_late_keeps_the_best_epoch_before():
    settings = {"batch_size": 10, "validation": 0.2}
    objective, sound = Failing(3), Denoiser()
    told = r"the validation loss is inf after epoch 3, while .*; training ended there: .* epoch 2"
    with pytest.warns(RuntimeWarning, match=told):
        trained = train(objective, rows(), Training(epochs=9, **settings))
    expected = train(sound, rows(), Training(epochs=2, **settings))
    assert (trained.stopped, trained.n_epochs, trained.best_epoch) == ("diverged", 3, 2)
    assert expected.best_epoch == 2
    assert same(weights(objective.module), weights(sound.module))
    assert trained.history["validation_loss"].isna().tolist() == [False, False, True]


def test_at_the_first_step_the_data_are_suspected():
    data = rows()
    data["x"][17] = np.nan
    told = r"the loss is nan, and so is its part penalty at step 1 .*look for NaN.*in the data"
    with pytest.raises(FloatingPointError, match=told):
        train(Denoiser(), data, Training(batch_size=50))


def test_a_validation_loss_that_is_not_finite_is_named():
    from ppl_gen.inference.training.loading import split

    data = rows()
    data["x"][split(50, 10, 0, "")[1][0]] = np.inf
    with pytest.raises(FloatingPointError, match=r"validation loss is (inf|nan) after epoch 1"):
        train(Denoiser(), data, Training(validation=0.2))
