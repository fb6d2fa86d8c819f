"""The training loop, shared by every objective."""

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from ppl_gen.inference.training.interrupts import Interrupts, held_back
from ppl_gen.inference.training.loading import Loading, as_rows, split
from ppl_gen.inference.training.objective import Objective, Parts
from ppl_gen.inference.training.parallel import Processes
from ppl_gen.inference.training.settings import Training
from ppl_gen.inference.training.steps import NonFinite, Player

__all__ = ["Trained", "train"]

#: Steps whose losses wait on the device before they are summed.
_PENDING = 256


@dataclass(frozen=True)
class Trained:
    """What training came to; the weights are in the module.

    Attributes
    ----------
    history : DataFrame
        A row an epoch: ``epoch`` (from 1), ``loss`` (mean over the epoch's rows, in nats),
        ``validation_loss`` (where there is validation), ``learning_rate``, ``seconds`` (since the
        start), and the mean of every other part of the loss. The last may be of a part of an
        epoch.
    n_epochs : int
        Rows of it.
    best_epoch : int
        The epoch whose weights were kept: with validation the best one, else the last.
    stopped : {"epochs", "patience", "max_seconds", "interrupted"}
        What ended the training.
    """

    history: pd.DataFrame
    n_epochs: int
    best_epoch: int
    stopped: str


def train(
    objective: Objective,
    data: Mapping[str, Any],
    training: Training | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    who: str = "train",
    description: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Trained:
    """Train a network, and leave the best weights in it.

    Parameters
    ----------
    objective : Objective
    data : dict of arrays (n, ...)
        ``"x"``, and what else the objective takes, by row; memory maps are read by the batch.
        Floats become the dtype of the weights, whole numbers int64.
    training : Training, optional
    seed : int
        Of the order of rows, the validation rows, and torch's random numbers, whose state is left
        as it was.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    who : str
        How messages begin.
    description : dict, optional
        Plain data that tells this model from others: a checkpoint of another one is refused.
    progress : bool
        Show a bar.

    Returns
    -------
    Trained

    Raises
    ------
    ValueError, TypeError
        Before any work: settings or data that do not fit.
    FloatingPointError
        The loss or a gradient was no finite number: the step, and what of it, are named.

    Warns
    -----
    RuntimeWarning
        If Ctrl-C ended it; the weights are the best so far. A second Ctrl-C raises.
    """
    training = Training() if training is None else training
    training.check()
    arrays = as_rows(data, who)
    processes = Processes(device, training.precision)
    cuda = [processes.device] if processes.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), held_back() as interrupts:
        torch.manual_seed(_stream(seed, 1 + processes.rank))
        loop = _Loop(objective, arrays, training, seed, processes, who)
        return loop.run(interrupts, progress)


class _Loop:
    """A run of training, and where it has got to."""

    def __init__(
        self,
        objective: Objective,
        arrays: Mapping[str, Any],
        training: Training,
        seed: int,
        processes: Processes,
        who: str,
    ) -> None:
        self.objective, self.training, self.seed = objective, training, seed
        self.processes, self.who = processes, who
        self.module = objective.module.to(processes.device)
        names = {parameter: name for name, parameter in self.module.named_parameters()}
        if not names:
            raise ValueError(f"{who}: the module has no parameters; expected some to train")
        dtype = next((p.dtype for p in names if p.is_floating_point()), torch.float32)
        n = len(arrays["x"])
        chosen = split(n, training.n_validation(n), seed, who)
        self.rows, self.validation = (
            Loading(arrays, rows, training.batch_size, device=processes.device, dtype=dtype)
            for rows in chosen
        )
        self.players = {
            player: Player(
                {names[p]: p for p in parameters},
                training,
                training.epochs * self.rows.n_batches,
            )
            for player, parameters in objective.players.items()
        }
        self.average = (
            None
            if training.ema is None
            else AveragedModel(self.module, multi_avg_fn=self._update_average)
        )
        self.epoch = self.batch = self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self.means = _Means()
        self.best: tuple[float, int, dict[str, Tensor]] | None = None

    # -- the loop ------------------------------------------------------------------------------

    def run(self, interrupts: Interrupts, progress: bool) -> Trained:
        """Train until something ends it."""
        begun = time.perf_counter() - self.seconds
        stopped = self._ended()
        bar: Any = tqdm(
            total=self.training.epochs, initial=self.epoch, desc=self.who, disable=not progress
        )
        with bar:
            while stopped is None:
                stopped = self._run_epoch(interrupts, begun)
                if self.batch == self.rows.n_batches:
                    self._end_epoch()
                    bar.set_postfix(self._shown(), refresh=False)
                    bar.update()
                    stopped = stopped or self._ended()
        return self._finish(stopped)

    def _run_epoch(self, interrupts: Interrupts, begun: float) -> str | None:
        """Take the steps that are left of the epoch; return what ended them before the last."""
        limit = math.inf if self.training.max_seconds is None else self.training.max_seconds
        self.module.train()
        order = np.random.default_rng([self.seed, 1, self.epoch]).permutation(len(self.rows.rows))
        for batch in self.rows.batches(order, self.batch):
            try:
                with self.processes.autocast():
                    parts = self.objective.step(batch, self._descend)
            except NonFinite as error:
                raise FloatingPointError(self._diagnosis(error, order)) from error
            self.means.add(parts, len(batch["x"]))
            self.batch += 1
            self.step += 1
            if self.average is not None:
                self.average.update_parameters(self.module)
            self.seconds = time.perf_counter() - begun
            if interrupts.pressed:
                return "interrupted"
            if self.seconds >= limit:
                return "max_seconds"
        return None

    def _descend(
        self, loss: Tensor, player: str | None = None, parts: Mapping[str, Tensor] | None = None
    ) -> None:
        chosen = next(iter(self.players.values())) if player is None else self.players[player]
        try:
            chosen.descend(loss, self.processes, 1.0)
        except NonFinite as error:
            bad = [n for n, v in (parts or {}).items() if n != "loss" and not v.isfinite().all()]
            if bad:
                raise NonFinite(f"{error}, and so is its part {', '.join(bad)}") from None
            raise

    def _end_epoch(self) -> None:
        row = {"epoch": self.epoch + 1, **self._losses()}
        for player in self.players.values():
            player.end_epoch(row.get("validation_loss", row["loss"]))
        self.history.append(row)
        self._keep_best(row)
        self.means = _Means()
        self.epoch, self.batch = self.epoch + 1, 0

    def _losses(self) -> dict[str, float]:
        means = self.means.read()
        row = {"loss": means.pop("loss")}
        if len(self.validation.rows):
            row["validation_loss"] = self._validate()
        first = next(iter(self.players.values()))
        return row | {"learning_rate": first.learning_rate, "seconds": self.seconds} | means

    def _validate(self) -> float:
        means = _Means()
        self.module.eval()
        cuda = [self.processes.device] if self.processes.device.type == "cuda" else []
        with (
            self._averaged_weights(),
            torch.no_grad(),
            torch.random.fork_rng(devices=cuda),
            self.processes.autocast(),
        ):
            # The same noise each time, so that epochs differ by their weights alone.
            torch.manual_seed(_stream(self.seed, 0))
            for batch in self.validation.batches():
                means.add(self.objective.validate(batch), len(batch["x"]))
        loss = means.read()["loss"]
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"{self.who}: the validation loss is {loss} after epoch {self.epoch + 1}, while "
                "the loss is finite; look for rows unlike the others, lower learning_rate (now "
                f"{self.training.learning_rate}), or set clip_norm"
            )
        return loss

    def _keep_best(self, row: Mapping[str, float]) -> None:
        loss = row.get("validation_loss")
        if loss is not None and (self.best is None or loss < self.best[0]):
            with self._averaged_weights():
                self.best = (loss, int(row["epoch"]), _copied(self.module))

    def _ended(self) -> str | None:
        training = self.training
        if self.epoch >= training.epochs:
            return "epochs"
        if (
            training.patience is not None
            and self.best is not None
            and self.epoch - self.best[1] >= training.patience
        ):
            return "patience"
        if training.max_seconds is not None and self.seconds >= training.max_seconds:
            return "max_seconds"
        return None

    def _finish(self, stopped: str) -> Trained:
        if self.batch:
            # A part of an epoch counts as one, where there is time to look at it.
            if stopped == "interrupted":
                means = self.means.read()
                self.history.append({"epoch": self.epoch + 1, "loss": means.pop("loss")} | means)
            else:
                self.history.append({"epoch": self.epoch + 1, **self._losses()})
                self._keep_best(self.history[-1])
        best_epoch = len(self.history)
        with torch.no_grad():
            if self.best is not None:
                best_epoch = self.best[1]
                _restore(self.module, self.best[2])
            elif self.average is not None:
                for own, averaged in self._pairs():
                    own.copy_(averaged)
        self.module.eval()
        if stopped == "interrupted":
            warnings.warn(
                f"{self.who}: interrupted after {self.step} steps, in epoch {self.epoch + 1} of "
                f"{self.training.epochs}; the fit is partial: it keeps the best weights so far, "
                "and can be used and saved",
                RuntimeWarning,
                stacklevel=4,
            )
        return Trained(pd.DataFrame(self.history), len(self.history), best_epoch, stopped)

    # -- weights -------------------------------------------------------------------------------

    def _update_average(self, averages: Any, currents: Any, _: Any) -> None:
        # A plain mean at first: else the start would weigh far more than any step.
        rate = max(1.0 - float(self.training.ema or 0.0), 1.0 / self.step)
        torch._foreach_lerp_(averages, currents, rate)

    def _pairs(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        assert self.average is not None
        return zip(self.module.parameters(), self.average.module.parameters(), strict=True)

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Have the averaged weights in the module, where there are any."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        if self.average is not None:
            for own, averaged in self._pairs():
                own.data, averaged.data = averaged.data, own.data

    # -- messages ------------------------------------------------------------------------------

    def _shown(self) -> dict[str, str]:
        row = self.history[-1]
        return {n: f"{row[n]:.5g}" for n in ("loss", "validation_loss") if n in row}

    def _diagnosis(self, error: NonFinite, order: np.ndarray[Any, Any]) -> str:
        places = self.rows.places(order)[self.batch]
        rows = ", ".join(map(str, np.sort(self.rows.rows[places])[:5]))
        training = self.training
        advice = (
            f"lower learning_rate (now {training.learning_rate}), set clip_norm (now "
            f"{training.clip_norm}), or look at the rows of this batch ({rows}, ...)"
        )
        if self.step == 0:
            advice = (
                "look for NaN, inf and values outside of the model's range in the data, such as "
                f"the rows of this batch ({rows}, ...)"
            )
        return (
            f"{self.who}: {error} at step {self.step + 1} (epoch {self.epoch + 1}, batch "
            f"{self.batch + 1} of {self.rows.n_batches}); expected finite numbers; {advice}"
        )


class _Means:
    """Means of the parts of losses over rows; the device is waited for now and then."""

    def __init__(self) -> None:
        self.rows = 0
        self.totals: dict[str, float] = {}
        self._pending: list[tuple[int, Parts]] = []

    def add(self, parts: Parts, rows: int) -> None:
        self._pending.append((rows, {name: value.detach() for name, value in parts.items()}))
        if len(self._pending) >= _PENDING:
            self.sum()

    def sum(self) -> None:
        """Add what waits to the totals."""
        names = {name for _, parts in self._pending for name in parts}
        for name in sorted(names):
            found = [(rows, parts[name]) for rows, parts in self._pending if name in parts]
            values = torch.stack([value for _, value in found]).tolist()
            self.totals[name] = self.totals.get(name, 0.0) + math.fsum(
                rows * value for (rows, _), value in zip(found, values, strict=True)
            )
        self.rows += sum(rows for rows, _ in self._pending)
        self._pending = []

    def read(self) -> dict[str, float]:
        self.sum()
        return {name: total / self.rows for name, total in self.totals.items()}


def _stream(seed: int, number: int) -> int:
    """Seed of a stream of torch's random numbers, apart from the one that made the weights."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in _tensors(module).items()}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _restore(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in _tensors(module).items():
        tensor.copy_(tensors[name])
