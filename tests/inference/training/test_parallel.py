"""Processes that share the batches come to what one comes to, and to the same weights each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_cases import Normal, rows

from ppl_gen import MaximumLikelihood, Training
from ppl_gen.inference.training.parallel import Processes

TESTS = Path(__file__).parents[2]

#: No noise but the order of the rows, which follows from the seed.
SETTINGS = {"epochs": 5, "batch_size": 11, "learning_rate": 0.05, "validation": 0.3, "ema": 0.5}

IN_EACH_PROCESS = """
import json, os, sys
sys.path.insert(0, {tests!r})
import torch
import warnings
from training_cases import Normal, rows
from ppl_gen import MaximumLikelihood, Training

torch.manual_seed(int(os.environ["RANK"]))
module = Normal(3)
torch.nn.init.normal_(module.loc)  # each process begins elsewhere; the first one's start counts
start = module.loc.tolist()
training = Training(checkpoint={path!r}, **{settings!r})
trained = MaximumLikelihood(training=training).train(module, rows(), seed=3)
found = {{
    "start": start,
    "loc": module.loc.tolist(),
    "log_scale": module.log_scale.tolist(),
    "history": trained.history[["loss", "validation_loss"]].to_numpy().tolist(),
    "best_epoch": trained.best_epoch,
    "threads": torch.get_num_threads(),
}}

class Breaking(Normal):  # in the second process alone
    steps = 0
    def log_prob(self, x, context=None):
        self.steps += self.training
        broken = self.steps == 13 and os.environ["RANK"] == "1"
        return super().log_prob(x) * (float("nan") if broken else 1.0)

broken = Breaking(3)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    training = Training(**{settings!r})
    trained = MaximumLikelihood(training=training).train(broken, rows(), seed=3)
found["broken"] = [broken.loc.tolist(), trained.stopped, trained.best_epoch]
found["told"] = [str(w.message) for w in caught if w.category is RuntimeWarning]
with open({out!r} + os.environ["RANK"], "w") as file:
    json.dump(found, file)
"""


def torchrun(code, path):
    path.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*command, str(path)],
        cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_processes_come_to_what_one_comes_to(tmp_path):
    path, out = str(tmp_path / "checkpoint"), str(tmp_path / "found")
    code = IN_EACH_PROCESS.format(tests=str(TESTS), path=path, settings=SETTINGS, out=out)
    done = torchrun(code, tmp_path / "script.py")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(Path(out + rank).read_text()) for rank in "01")
    assert first["start"] != second["start"]
    assert first["loc"] == second["loc"]
    assert first["history"] == second["history"]

    module = Normal(3)
    with torch.no_grad():
        module.loc.copy_(torch.tensor(first["start"]))
    method = MaximumLikelihood(training=Training(**SETTINGS))
    trained = method.train(module, rows(), seed=3)
    # The same sums in another order: float32 has seven digits.
    np.testing.assert_allclose(first["loc"], module.loc.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first["log_scale"], module.log_scale.detach(), rtol=1e-5, atol=1e-6)
    losses = trained.history[["loss", "validation_loss"]]
    np.testing.assert_allclose(first["history"], losses, rtol=1e-5)
    assert first["best_epoch"] == trained.best_epoch
    assert (tmp_path / "checkpoint" / "checkpoint.json").is_file()

    # A number that is not finite in one of them ends it in all, with the same weights.
    assert first["broken"] == second["broken"]
    assert first["broken"][1:] == ["diverged", 3]
    for found in (first, second):
        (told,) = found["told"]
        assert "the loss is nan at step 13 (epoch 4, batch 1 of 4)" in told


UNTIL_KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
from training_cases import Shared, rows
from ppl_gen import Training
from ppl_gen.inference.training.loop import train
objective = Shared(kill_at={kill_at})
training = Training(checkpoint={path!r}, checkpoint_minutes=1e-9, schedule="cosine", **{settings!r})
train(objective, rows(), training, seed=3)
with open({out!r} + os.environ["RANK"], "w") as file:
    print(*(tensor.tolist() for tensor in objective.module.parameters()), file=file)
"""


@pytest.mark.slow
def test_two_processes_go_on_after_they_were_killed(tmp_path):
    def run(name, kill_at=None):
        path, out = str(tmp_path / name), str(tmp_path / f"{name}-found")
        settings = {"tests": str(TESTS), "kill_at": kill_at, "path": path, "out": out}
        done = torchrun(UNTIL_KILLED.format(settings=SETTINGS, **settings), tmp_path / "script.py")
        return done, Path(out + "0"), Path(out + "1")

    died, left, _ = run("one", kill_at=8)
    assert died.returncode != 0
    assert not left.exists()
    resumed, *found = run("one")
    whole, *expected = run("two")
    assert resumed.returncode == whole.returncode == 0, resumed.stderr
    assert len({path.read_text() for path in found + expected}) == 1


def test_bfloat16_is_refused_where_the_device_lacks_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GeForce GTX 1080")
    with pytest.raises(ValueError, match="'bfloat16', which GeForce GTX 1080 does not have"):
        Processes("cuda", "bfloat16", "Flow.fit")


def test_one_process_is_alone():
    processes = Processes("cpu", "float32", "Flow.fit")
    assert (processes.rank, processes.count, processes.device) == (0, 1, torch.device("cpu"))
    assert processes.agree(True, False) == [True, False]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_it_comes_to_what_a_cpu_comes_to(precision):
    settings = Training(epochs=20, batch_size=10, learning_rate=0.05, precision=precision, ema=0.9)
    found = []
    for device in ("cpu", "cuda"):
        module = Normal(3)
        MaximumLikelihood(training=settings).train(module, rows(), device=device)
        assert module.loc.device.type == device
        found.append(module.loc.detach().cpu())
    # The same rows in the same order, and no noise.
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)
