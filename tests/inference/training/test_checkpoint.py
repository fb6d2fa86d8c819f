"""A run that stopped, however it stopped, goes on to what it would have come to."""

import errno
import functools
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import cross_val_score
from training_cases import Denoiser, Normal, rows, same, weights

from ppl_gen import SVI, VAE, MaximumLikelihood, NormalizingFlow, Training
from ppl_gen.inference.training.checkpoint import CheckpointError
from ppl_gen.inference.training.loop import train
from ppl_gen.inference.training.objective import NegativeLogLikelihood

TESTS = Path(__file__).parents[2]

#: Whatever has a state of its own, and a checkpoint at every step.
EVERYTHING = {
    "epochs": 6,
    "batch_size": 9,
    "learning_rate": 0.02,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "schedule": "cosine",
    "clip_norm": 1.0,
    "ema": 0.9,
    "validation": 0.2,
    "checkpoint_minutes": 1e-9,
}

IN_A_PROCESS = """
import sys
sys.path.insert(0, {tests!r})
from training_cases import Denoiser, rows
from ppl_gen import Training
from ppl_gen.inference.training.loop import train
from ppl_gen.inference.training.objective import NegativeLogLikelihood
train(Denoiser(kill_at={kill_at}), rows(), Training(checkpoint={path!r}, **{settings!r}), seed=3)
"""


def run(objective=None, seed=3, data=None, **settings):
    objective = Denoiser() if objective is None else objective
    trained = train(
        objective, rows() if data is None else data, Training(**EVERYTHING | settings), seed=seed
    )
    return objective, trained


def test_killed_in_an_epoch_and_run_again_it_ends_with_the_same_bits(tmp_path):
    path = str(tmp_path / "checkpoint")
    code = IN_A_PROCESS.format(tests=str(TESTS), kill_at=13, path=path, settings=EVERYTHING)
    died = subprocess.run([sys.executable, "-c", code], cwd=TESTS.parent, check=False)
    assert died.returncode == -9
    left = json.loads((tmp_path / "checkpoint" / "checkpoint.json").read_bytes())["state"]
    assert (left["step"], left["epoch"], left["batch"]) == (12, 2, 2)  # five batches an epoch

    whole, expected = run()
    resumed, found = run(checkpoint=path)
    assert resumed.calls == whole.calls - 12
    assert same(weights(resumed.module), weights(whole.module))
    columns = [name for name in expected.history if name != "seconds"]
    assert found.history[columns].equals(expected.history[columns])
    assert (found.best_epoch, found.stopped) == (expected.best_epoch, expected.stopped)


def test_after_ctrl_c_it_goes_on(tmp_path):
    objective = Denoiser(interrupt_at=(8,))
    with pytest.warns(RuntimeWarning, match="the same training, started again, goes on"):
        _, trained = run(objective, checkpoint=tmp_path / "c", checkpoint_minutes=60.0)
    assert trained.stopped == "interrupted"
    assert objective.calls == 8
    resumed, _ = run(checkpoint=tmp_path / "c")
    whole, _ = run()
    assert resumed.calls == whole.calls - 8
    assert same(weights(resumed.module), weights(whole.module))


def test_a_finished_run_returns_its_weights_at_once(tmp_path):
    first, trained = run(checkpoint=tmp_path / "c")
    again, found = run(checkpoint=tmp_path / "c")
    assert again.calls == 0
    assert same(weights(again.module), weights(first.module))
    assert found.history.equals(trained.history)
    assert found.stopped == "epochs"


def test_with_more_epochs_a_finished_run_goes_on(tmp_path):
    rate = {"schedule": None, "checkpoint_minutes": 60.0}
    run(checkpoint=tmp_path / "c", **rate)
    more, found = run(checkpoint=tmp_path / "c", epochs=9, **rate)
    whole, _ = run(epochs=9, **rate)
    assert more.calls == 15
    assert found.n_epochs == 9
    assert same(weights(more.module), weights(whole.module))


def test_with_more_time_a_run_goes_on(tmp_path):
    short, trained = run(checkpoint=tmp_path / "c", max_seconds=1e-9)
    assert (trained.stopped, trained.n_epochs, short.calls) == ("max_seconds", 1, 1)
    assert run(checkpoint=tmp_path / "c", max_seconds=1e-9)[0].calls == 0
    resumed, _ = run(checkpoint=tmp_path / "c")
    whole, _ = run()
    assert same(weights(resumed.module), weights(whole.module))


@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        "sgd",
        "rmsprop",
        functools.partial(torch.optim.SGD, momentum=0.9),
        functools.partial(torch.optim.Adam, amsgrad=True),
    ],
)
def test_every_optimiser_and_schedule_is_brought_back(tmp_path, optimizer):
    settings = {
        "optimizer": optimizer,
        "schedule": functools.partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[1, 3]),
        "weight_decay": 0.0,
    }
    objective = Denoiser(interrupt_at=(8,))
    with pytest.warns(RuntimeWarning, match="interrupted"):
        run(objective, checkpoint=tmp_path / "c", **settings)
    resumed, _ = run(checkpoint=tmp_path / "c", **settings)
    whole, _ = run(**settings)
    assert same(weights(resumed.module), weights(whole.module))


class Breaking(Denoiser):
    """Its loss is not a number at a step, whichever run takes it."""

    def __init__(self, at):
        super().__init__()
        self.at = at
        self.module.register_buffer("steps", torch.zeros(()))

    def step(self, batch, descend):
        self.module.steps += 1
        return super().step(batch, descend)

    def losses(self, batch):
        parts = super().losses(batch)
        broken = self.module.training and self.module.steps == self.at
        return parts | {"loss": parts["loss"] * (np.nan if broken else 1.0)}


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("minutes", [1e-9, 60.0])
def test_a_run_that_diverged_leaves_its_checkpoint_and_ends_so_again(tmp_path, minutes):
    path = tmp_path / "c"
    settings = {"checkpoint": path, "checkpoint_minutes": minutes}
    # Five batches an epoch.
    told = r"step 13 \(epoch 3, .*from the checkpoint .*c the same training comes to the same end: "
    with pytest.warns(RuntimeWarning, match=told + "with other settings, give another path"):
        first, trained = run(Breaking(13), **settings)
    left = contents(path)
    if minutes < 1.0:
        assert json.loads(left["checkpoint.json"])["state"]["step"] == 12
    else:
        assert not left
    with pytest.warns(RuntimeWarning, match=told):
        again, found = run(Breaking(13), **settings)
    assert contents(path) == left
    assert again.calls == (1 if left else 13)
    assert found.stopped == trained.stopped == "diverged"
    assert found.best_epoch == trained.best_epoch
    assert same(weights(again.module), weights(first.module))
    assert not same(weights(first.module), weights(run()[0].module))


def test_a_run_that_goes_on_takes_a_number_that_is_not_finite_as_the_first_did(tmp_path):
    class Breaking(NegativeLogLikelihood):
        def losses(self, batch):
            # Distributions that check their arguments would refuse these.
            broken = np.nan if self.module.loc[0] > 0.25 else 0.0
            return super().losses({"x": batch["x"] + broken})

    settings = Training(
        epochs=9,
        batch_size=10,
        learning_rate=0.05,
        validation=0.2,
        checkpoint=tmp_path / "c",
        checkpoint_minutes=1e-9,
    )
    found = []
    for _ in range(2):
        module = Normal(3)
        with pytest.warns(RuntimeWarning, match="the loss is nan at step"):
            trained = train(Breaking(module), {"x": 3.0 + rows()["x"]}, settings)
        found.append((trained.stopped, weights(module)))
    assert found[0][0] == found[1][0] == "diverged"
    assert same(found[0][1], found[1][1])


def test_a_part_of_an_epoch_whose_validation_is_not_finite_is_not_kept(tmp_path, monkeypatch):
    path = tmp_path / "c"
    with pytest.warns(RuntimeWarning, match="interrupted in epoch 2"):
        run(Denoiser(interrupt_at=(8,)), checkpoint=path)
    left = contents(path)
    monkeypatch.setattr(
        Denoiser, "validate", lambda self, batch: {"loss": self.losses(batch)["loss"] + np.inf}
    )
    with pytest.warns(RuntimeWarning, match="validation loss is inf after epoch 2.* of epoch 1, "):
        stopped, trained = run(checkpoint=path, max_seconds=1e-9)
    assert (trained.stopped, trained.n_epochs, stopped.calls) == ("diverged", 2, 0)
    assert contents(path) == left


def refused(path, match, **changed):
    with pytest.raises(CheckpointError, match=match):
        run(checkpoint=path, **changed)


def test_a_checkpoint_of_another_training_is_refused_with_what_differs(tmp_path):
    path = tmp_path / "c"
    run(checkpoint=path)
    refused(
        path, r"settings.learning_rate: 0.02 there, 0.01 here.*another path", learning_rate=0.01
    )
    refused(path, r"seed: 3 there, 4 here.*random_state", seed=4)
    refused(path, r"data.x.shape: \[50, 3\] there, \[51, 3\] here", data=rows(51))
    refused(path, "is of 6 epochs, and epochs is 5", epochs=5)
    changed = rows()
    changed["x"][17, 1] += 1e-6
    refused(path, r"data.x.sha256", data=changed)
    wider = Denoiser()
    wider.module[0] = torch.nn.Linear(3, 9)
    refused(path, r"weights.0.bias: float32 \[8\] there, float32 \[9\] here", objective=wider)


def test_another_model_or_version_is_refused(tmp_path, monkeypatch):
    data = {"x": rows()["x"][:, :2]}
    method = MaximumLikelihood(epochs=1, training=Training(checkpoint=tmp_path / "c"))
    method.train(Normal(), data, description={"model": "Flow", "settings": {"layers": 3}})
    with pytest.raises(CheckpointError, match=r"model.settings.layers: 3 there, 4 here"):
        method.train(Normal(), data, description={"model": "Flow", "settings": {"layers": 4}})
    with pytest.raises(
        CheckpointError, match=r"is of a training of Flow, and this is one of VAE; give"
    ):
        method.train(Normal(), data, description={"model": "VAE"})
    monkeypatch.setattr("ppl_gen.__version__", "99.0")
    with pytest.raises(CheckpointError, match=r"version: \d.* there, 99.0 here"):
        method.train(Normal(), data, description={"model": "Flow", "settings": {"layers": 3}})


def test_in_cross_validation_it_is_said_what_to_do(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2))
    training = Training(epochs=1, checkpoint=tmp_path / "c")
    flow = NormalizingFlow("maf", hidden_layer_sizes=(4,), random_state=0)
    flow.set_params(inference=MaximumLikelihood(training=training))
    told = (
        r"(?s)1 fits failed.*data.x.sha256: .*\(in cross-validation and searches .* set checkpoint"
    )
    with pytest.warns(FitFailedWarning, match=told):
        scores = cross_val_score(flow, x, cv=2)
    assert np.isfinite(scores).tolist() == [True, False]
    flow.set_params(inference__training__checkpoint=None)
    assert np.isfinite(cross_val_score(flow, x, cv=2)).all()


def test_another_bound_is_another_training(tmp_path):
    training = Training(epochs=1, checkpoint=tmp_path / "checkpoint")
    x = np.random.default_rng(0).normal(size=(40, 2))
    vae = VAE(1, inference=SVI(training=training), random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*posterior collapse")
        vae.fit(x)
    vae.set_params(inference__objective="iwae", inference__particles=5)
    told = r"model.objective: elbo there, iwae here; model.particles: 1 there, 5 here"
    with pytest.raises(CheckpointError, match=told):
        vae.fit(x)


def test_a_place_that_cannot_be_written_to_is_told_before_any_step(tmp_path):
    (tmp_path / "file").write_text("mine")
    objective = Denoiser()
    before = weights(objective.module)
    with pytest.raises(CheckpointError, match=r"cannot be written .*file"):
        run(objective, checkpoint=tmp_path / "file" / "checkpoint")
    assert same(weights(objective.module), before)


class Moved(Denoiser):
    """Its checkpoint's directory is away from one step to another."""

    def __init__(self, path, away, back):
        super().__init__()
        self.path, self.away, self.back = path, away, back

    def step(self, batch, descend):
        parts = super().step(batch, descend)
        if self.calls == self.away:
            self.path.rename(self.path.with_name("away"))
        if self.calls == self.back:
            self.path.with_name("away").rename(self.path)
        return parts


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(tmp_path):
    path = tmp_path / "c"
    whole, expected = run(Moved(path, None, None))
    # Five writes fail, and one warning is given.
    told = r"checkpoint .*c could not be written \(.*No such file.*writing.tmp.*training goes on"
    with pytest.warns(RuntimeWarning, match=told) as caught:
        objective, found = run(Moved(path, 7, 12), checkpoint=path)
    assert len(caught) == 1
    assert same(weights(objective.module), weights(whole.module))
    assert found.stopped == expected.stopped == "epochs"
    assert json.loads(contents(path)["checkpoint.json"])["state"]["epoch"] == 6
    assert run(Moved(path, None, None), checkpoint=path)[0].calls == 0


@pytest.mark.parametrize("name", ["state-", "checkpoint.json"])
def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path, monkeypatch, name):
    path, replace = tmp_path / "c", Path.replace
    with pytest.warns(RuntimeWarning, match="interrupted"):
        run(Denoiser(interrupt_at=(8,)), checkpoint=path)
    left = contents(path)

    def full(temporary, target):
        if target.name.startswith(name):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.warns(RuntimeWarning, match=r"not be written \(.*No space left on device\)"):
        run(checkpoint=path)
    found = contents(path)
    assert left.items() <= found.items()
    assert "writing.tmp" not in found
    monkeypatch.setattr(Path, "replace", replace)
    resumed, _ = run(checkpoint=path)
    whole, _ = run()
    assert resumed.calls == whole.calls - 8
    assert same(weights(resumed.module), weights(whole.module))
    assert len(contents(path)) == 2


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c"
    run(checkpoint=path)
    (state,) = path.glob("state-*.safetensors")
    content = state.read_bytes()
    state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(path, "is damaged .*another checksum.*delete it")
    state.unlink()
    refused(path, "is damaged .*No such file.*delete it")
    (path / "checkpoint.json").write_text("{")
    refused(path, "is damaged .*no JSON.*delete it")
    (path / "checkpoint.json").write_text("{}")
    refused(path, "was not written by ppl_gen")
    manifest = {"format": "ppl_gen checkpoint", "format_version": 99}
    (path / "checkpoint.json").write_text(json.dumps(manifest))
    refused(path, "has format 99, and this version of ppl_gen reads 1")


def test_a_file_that_the_checkpoint_names_outside_of_it_is_not_read(tmp_path):
    path = tmp_path / "c"
    run(checkpoint=path)
    manifest = json.loads((path / "checkpoint.json").read_bytes())
    manifest["tensors"]["file"] = "../state-1.safetensors"
    (path / "checkpoint.json").write_text(json.dumps(manifest))
    refused(path, "is no file of a checkpoint")


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    refused(tmp_path, r"holds other files \(thesis.tex\); expected a directory of its own")
    refused(tmp_path / "thesis.tex", "is no directory")
    assert (tmp_path / "thesis.tex").read_text() == "..."


def test_what_others_put_beside_it_in_the_meantime_is_left_alone(tmp_path):
    class Noting(Denoiser):
        def step(self, batch, descend):
            (tmp_path / "notes").mkdir(exist_ok=True)
            (tmp_path / "notes.txt").write_text("mine")
            return super().step(batch, descend)

    run(Noting(), checkpoint=tmp_path, epochs=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint.json",
        "notes",
        "notes.txt",
        "state-2-0.safetensors",
    ]


def test_an_epoch_that_was_begun_is_one(tmp_path):
    with pytest.warns(RuntimeWarning, match="interrupted"):
        run(Denoiser(interrupt_at=(7,)), checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="is of 2 epochs, and epochs is 1"):
        run(checkpoint=tmp_path, epochs=1)


def test_a_write_that_was_cut_short_leaves_the_checkpoint_before(tmp_path):
    path = tmp_path / "c"
    first, _ = run(checkpoint=path)
    # What a process leaves that dies between the tensors and the JSON.
    (path / "state-99.safetensors").write_bytes(b"half")
    (path / "writing.tmp").write_bytes(b"half")
    again, _ = run(checkpoint=path)
    assert same(weights(again.module), weights(first.module))
    run(checkpoint=path, epochs=7)
    assert sorted(p.name for p in path.iterdir()) == ["checkpoint.json", "state-7-0.safetensors"]


def test_a_large_array_is_told_apart_by_some_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("ppl_gen.inference.training.checkpoint._SMALL", 100)
    x = np.arange(2000.0)
    from ppl_gen.inference.training.checkpoint import fingerprint

    assert fingerprint(x) == fingerprint(x.copy())
    assert fingerprint(x) != fingerprint(x[::-1])
    assert fingerprint(x) != fingerprint(x.astype(np.float32))
