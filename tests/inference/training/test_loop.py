"""The loop against what can be worked out: estimates, averages, weights, what ends it."""

import functools
import signal

import numpy as np
import pytest
import torch
from torch import nn
from training_cases import Denoiser, Game, Normal, rows, same, weights

from ppl_gen import Training
from ppl_gen.inference.training.loop import train
from ppl_gen.inference.training.objective import NegativeLogLikelihood


def fit(module, data, seed=0, **settings):
    return train(NegativeLogLikelihood(module), data, Training(**settings), seed=seed)


@pytest.fixture
def normals():
    return {"x": np.random.default_rng(0).normal([1.0, -2.0], [0.5, 2.0], (400, 2))}


# --- what is estimated ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "rate"), [("adam", 0.1), ("adamw", 0.1), ("sgd", 0.3), ("rmsprop", 0.1)]
)
def test_it_comes_to_the_maximum_of_the_likelihood(normals, optimizer, rate):
    module = Normal().double()
    settings = {"optimizer": optimizer, "learning_rate": rate, "batch_size": 400}
    fit(module, normals, epochs=400, schedule="cosine", **settings)
    # All rows in a batch, and the rate goes to zero: nothing is random.
    np.testing.assert_allclose(module.loc.detach(), normals["x"].mean(0), atol=2e-3)
    np.testing.assert_allclose(module.log_scale.exp().detach(), normals["x"].std(0), atol=2e-3)


def test_a_weight_counts_for_as_many_rows(normals):
    times = np.random.default_rng(1).integers(0, 4, 400)
    settings = {"epochs": 20, "batch_size": 2000, "learning_rate": 0.1}
    weighted, repeated = Normal().double(), Normal().double()
    one = fit(weighted, normals | {"weight": times.astype(float)}, **settings)
    two = fit(repeated, {"x": np.repeat(normals["x"], times, axis=0)}, **settings)
    np.testing.assert_allclose(weighted.loc.detach(), repeated.loc.detach(), rtol=1e-9)
    np.testing.assert_allclose(one.history["loss"], two.history["loss"], rtol=1e-9)


def test_the_context_goes_with_its_row(normals):
    shift = np.random.default_rng(2).normal(size=(400, 2))
    module = Normal().double()
    shifted = {"x": normals["x"] + shift, "context": shift}
    fit(module, shifted, epochs=200, batch_size=400, learning_rate=0.1, schedule="cosine")
    np.testing.assert_allclose(module.loc.detach(), normals["x"].mean(0), atol=2e-3)


def test_the_loss_of_an_epoch_is_a_mean_over_rows(normals):
    module = Normal().double()
    expected = -module.log_prob(torch.from_numpy(normals["x"][:10])).mean().item()
    first = {"x": normals["x"][:10]}
    # Batches of 4, 3 and 3 rows, whose mean of means is another number.
    trained = fit(module, first, epochs=1, batch_size=4, learning_rate=1e-12)
    np.testing.assert_allclose(trained.history["loss"], [expected], rtol=1e-9)


def test_batches_are_of_nearly_equal_size_and_each_row_is_in_one():
    seen = []

    class Watch(Denoiser):
        def losses(self, batch):
            seen.append(batch["row"].tolist())
            return super().losses(batch)

    data = rows(50) | {"row": np.arange(50)}
    train(Watch(), data, Training(epochs=2, batch_size=16), seed=1)
    assert [len(batch) for batch in seen] == [13, 13, 12, 12] * 2
    first, second = (np.concatenate(seen[i : i + 4]).tolist() for i in (0, 4))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


# --- settings ------------------------------------------------------------------------------------


def test_the_best_weights_on_the_validation_rows_are_kept():
    data = rows(40)
    module = Normal(3)
    trained = fit(module, data, epochs=30, learning_rate=0.3, batch_size=5, validation=0.25)
    losses = trained.history["validation_loss"].to_numpy()
    assert trained.best_epoch == losses.argmin() + 1 < trained.n_epochs == 30
    from ppl_gen.inference.training.loading import split

    _, chosen = split(40, 10, 0, "")
    kept = -module.log_prob(torch.from_numpy(data["x"][chosen])).mean().item()
    assert kept == pytest.approx(losses.min(), rel=1e-6)


def test_patience_ends_it():
    trained = fit(Normal(3), rows(40), epochs=500, learning_rate=0.3, validation=0.25, patience=4)
    assert trained.stopped == "patience"
    assert trained.n_epochs == trained.best_epoch + 4 < 500


def test_time_ends_it():
    trained = fit(Normal(3), rows(), epochs=10**9, batch_size=7, max_seconds=0.3, validation=0.1)
    assert trained.stopped == "max_seconds"
    assert 0.3 <= trained.history["seconds"].iloc[-1] < 1.5
    assert trained.history["validation_loss"].notna().all()
    assert fit(Normal(3), rows(), epochs=1, batch_size=50, max_seconds=1e-9).stopped == "epochs"


def test_the_moving_average_is_kept_and_validated(normals):
    path = []

    class Watch(NegativeLogLikelihood):
        def step(self, batch, descend):
            parts = super().step(batch, descend)
            path.append(self.module.loc.detach().clone())
            return parts

    module = Normal().double()
    settings = {"epochs": 3, "batch_size": 40, "learning_rate": 0.05, "ema": 0.8}
    train(Watch(module), normals, Training(**settings))
    average = torch.zeros(2, dtype=torch.float64)
    for step, loc in enumerate(path, 1):
        rate = max(0.2, 1 / step)
        average = (1 - rate) * average + rate * loc
    np.testing.assert_allclose(module.loc.detach(), average, rtol=1e-12)


def test_cosine_warms_up_and_ends_at_zero(normals):
    rates = []

    class Watch(NegativeLogLikelihood):
        def step(self, batch, descend):
            parts = super().step(batch, descend)
            rates.append(self.module.loc.detach().clone())
            return parts

    module = Normal()
    settings = {"epochs": 10, "batch_size": 100, "schedule": "cosine", "learning_rate": 0.1}
    trained = train(Watch(module), normals, Training(**settings))
    shown = trained.history["learning_rate"].to_numpy()
    assert (np.diff(shown) < 0).all()
    assert shown[-1] == 0.0
    # Adam's first step is as long as its rate: half of it, in a warm-up of two steps.
    assert rates[0].abs().max().item() == pytest.approx(0.05, rel=1e-4)


def test_plateau_halves_the_rate(normals):
    module = Normal()
    trained = fit(module, normals, epochs=40, learning_rate=1e-7, schedule="plateau")
    rates = trained.history["learning_rate"].unique()
    np.testing.assert_allclose(rates[:-1] / rates[1:], 2.0)
    assert len(rates) > 3


def test_schedules_of_torch_go_by_epochs(normals):
    halve = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)
    trained = fit(Normal(), normals, epochs=5, learning_rate=0.1, schedule=halve)
    np.testing.assert_allclose(trained.history["learning_rate"], [0.1, 0.1, 0.05, 0.05, 0.025])


def test_a_callable_optimiser_gets_the_rate_unless_it_fixes_one(normals):
    momentum = functools.partial(torch.optim.SGD, momentum=0.5)
    trained = fit(Normal(), normals, epochs=1, learning_rate=0.03, optimizer=momentum)
    assert trained.history["learning_rate"].tolist() == [0.03]
    fixed = functools.partial(torch.optim.SGD, lr=0.07)
    trained = fit(Normal(), normals, epochs=1, learning_rate=0.03, optimizer=fixed)
    assert trained.history["learning_rate"].tolist() == [0.07]


def test_clipping_bounds_the_step(normals):
    module = Normal()
    settings = {"epochs": 1, "batch_size": 400, "optimizer": "sgd", "learning_rate": 1.0}
    fit(module, {"x": 1e4 + normals["x"]}, clip_norm=0.5, **settings)
    moved = torch.cat([module.loc, module.log_scale]).norm().item()
    assert moved == pytest.approx(0.5, rel=1e-5)


def test_bfloat16_computes_in_it_and_keeps_the_weights():
    seen = []
    objective = Denoiser()
    objective.module[3].register_forward_hook(lambda *given: seen.append(given[-1].dtype))
    trained = train(objective, rows(), Training(epochs=3, precision="bfloat16"))
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in objective.module.parameters()} == {torch.float32}
    plain = train(Denoiser(), rows(), Training(epochs=3))
    # Eight bits of precision.
    np.testing.assert_allclose(trained.history["loss"], plain.history["loss"], rtol=0.05)


# --- games and states ----------------------------------------------------------------------------


def test_a_game_has_a_turn_for_each_player():
    objective = Game()
    sgd = {"optimizer": "sgd", "learning_rate": 0.1}
    trained = train(objective, {"x": np.zeros(64)}, Training(epochs=100, batch_size=16, **sgd))
    assert objective.module.a.item() == pytest.approx(1.0, abs=1e-3)
    assert objective.module.b.item() == pytest.approx(0.0, abs=1e-3)
    assert "critic" in trained.history


def test_dropout_is_off_and_the_noise_the_same_in_validation():
    seen = []

    class Watch(Denoiser):
        def validate(self, batch):
            seen.append((self.module.training, torch.randn(2).tolist()))
            return super().validate(batch)

    objective = Watch()
    train(objective, rows(), Training(epochs=3, validation=0.2))
    assert seen == [(False, seen[0][1])] * 3
    assert not objective.module.training


# --- randomness ----------------------------------------------------------------------------------


def test_one_seed_gives_the_same_bits_whatever_came_before_it():
    found = []
    for draws, seed in ((0, 1), (3, 1), (0, 2)):
        objective = Denoiser()
        torch.rand(draws)
        state = torch.get_rng_state()
        train(objective, rows(), Training(epochs=2, batch_size=10), seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        found.append(weights(objective.module))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


# --- Ctrl-C --------------------------------------------------------------------------------------


def test_ctrl_c_ends_it_after_the_step_and_keeps_what_there_is():
    objective, whole = Denoiser(interrupt_at=(7,)), Denoiser()
    before = signal.getsignal(signal.SIGINT)
    with pytest.warns(RuntimeWarning, match=r"Flow.fit: interrupted in epoch 2 of 9"):
        trained = train(objective, rows(), Training(epochs=9, batch_size=10), who="Flow.fit")
    assert objective.calls == 7
    assert (trained.stopped, trained.n_epochs, trained.best_epoch) == ("interrupted", 2, 2)
    assert signal.getsignal(signal.SIGINT) is before

    class Stop(Denoiser):
        def step(self, batch, descend):
            if self.calls == 7:
                raise LookupError
            return super().step(batch, descend)

    whole = Stop()
    with pytest.raises(LookupError):
        train(whole, rows(), Training(epochs=9, batch_size=10))
    assert same(weights(objective.module), weights(whole.module))


def test_ctrl_c_keeps_the_best_epoch_where_there_is_validation():
    objective = Denoiser(interrupt_at=(23,))
    with pytest.warns(RuntimeWarning, match="interrupted"):
        trained = train(objective, rows(), Training(epochs=9, batch_size=10, validation=0.2))
    losses = trained.history["validation_loss"]
    assert losses.isna().tolist() == [False] * 5 + [True]
    assert trained.best_epoch == losses.argmin() + 1


def test_a_second_ctrl_c_raises():
    class Stubborn(Denoiser):
        def step(self, batch, descend):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(Stubborn(), rows(), Training())
    assert signal.getsignal(signal.SIGINT) is before


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error", "told"),
    [
        ({}, ValueError, "the data are empty; expected an array 'x'"),
        ({"x": np.zeros((0, 3))}, ValueError, "x has no rows"),
        ({"x": 3.0}, ValueError, "x has no rows"),
        (
            {"x": np.zeros((4, 3)), "y": np.zeros(5)},
            ValueError,
            r"y has the shape \(5,\), but x has 4",
        ),
        ({"x": np.array([["a"]])}, TypeError, "x is of <U1; expected numbers"),
        (
            {"x": np.zeros((2, 3)), "weight": np.array([1.0, -1.0])},
            ValueError,
            "weight has negative",
        ),
        ({"x": np.zeros((2, 3)), "weight": np.zeros(2)}, ValueError, "all weights are 0"),
    ],
)
def test_bad_data(data, error, told):
    with pytest.raises(error, match=f"Flow.fit: .*{told}"):
        train(Denoiser(), data, who="Flow.fit")


def test_a_validation_share_that_leaves_nothing():
    with pytest.raises(ValueError, match="1 of 1 rows are for validation, which leaves none"):
        train(Denoiser(), rows(1), Training(validation=0.5))


def test_bad_objectives():
    class Vector(Denoiser):
        def losses(self, batch):
            return {"loss": super().losses(batch)["loss"], "rows": batch["x"][:, 0]}

    with pytest.raises(
        ValueError, match=r"Vector.step returned .*'rows': \(50,\).*dict of scalars"
    ):
        train(Vector(), rows(), Training(epochs=1))

    class Detached(Denoiser):
        def losses(self, batch):
            unrelated = torch.ones(1, requires_grad=True)
            return {"loss": unrelated.sum()}

    with pytest.raises(ValueError, match="does not depend on the parameters"):
        train(Detached(), rows(), Training(epochs=1))
    with pytest.raises(ValueError, match="the module has no parameters"):
        train(NegativeLogLikelihood(nn.Tanh()), rows())


def test_players_of_other_modules():
    class Stranger(Denoiser):
        players = {"loss": [nn.Parameter(torch.zeros(1))]}  # noqa: RUF012

    with pytest.raises(ValueError, match="the player 'loss' has 1 parameters; expected some, all"):
        train(Stranger(), rows())


def test_bad_callables(normals):
    with pytest.raises(TypeError, match=r"optimizer gave a list; expected a torch.optim.Optimizer"):
        fit(Normal(), normals, optimizer=list)
    with pytest.raises(TypeError, match=r"optimizer gave LBFGS, .*; expected one that takes grad"):
        fit(Normal(), normals, optimizer=torch.optim.LBFGS)
    with pytest.raises(TypeError, match="schedule gave a str; expected a scheduler of"):
        fit(Normal(), normals, schedule=str)


# --- data as they come ---------------------------------------------------------------------------


def test_memory_maps_and_other_types_of_numbers(tmp_path, normals):
    kept = np.memmap(tmp_path / "x", dtype="float64", mode="w+", shape=(400, 2))
    kept[:] = normals["x"]
    kept.flush()
    mapped = np.memmap(tmp_path / "x", dtype="float64", mode="r", shape=(400, 2))
    seen = []

    class Watch(NegativeLogLikelihood):
        def losses(self, batch):
            seen.append({name: tensor.dtype for name, tensor in batch.items()})
            return super().losses({"x": batch["x"]})

    module = Normal()
    codes = {"y": np.ones(400, dtype=np.uint8), "flag": np.ones(400, dtype=bool)}
    train(Watch(module), {"x": mapped} | codes, Training(epochs=1))
    assert seen[0] == {"x": torch.float32, "y": torch.int64, "flag": torch.int64}
    other = Normal()
    fit(other, {"x": np.array(normals["x"], order="F")}, epochs=1)
    assert same(weights(module), weights(other))


def test_a_bar_is_shown_when_asked_for_and_it_takes_time(normals, capsys):
    settings = {"epochs": 10**9, "batch_size": 100, "max_seconds": 1.3}
    objective = NegativeLogLikelihood(Normal())
    train(objective, normals, Training(**settings), who="Flow.fit", progress=True)
    shown = capsys.readouterr().err
    assert "Flow.fit: " in shown
    assert "loss " in shown
    train(objective, normals, Training(epochs=3), progress=True)
    assert not capsys.readouterr().err
