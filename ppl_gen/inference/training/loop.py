"""The training loop, shared by every objective."""

import math
import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ppl_gen.inference.base import ONE_AT_A_TIME
from ppl_gen.inference.training.checkpoint import Checkpoint, CheckpointError, identity
from ppl_gen.inference.training.interrupts import Interrupts, held_back
from ppl_gen.inference.training.loading import Loading, as_rows, split
from ppl_gen.inference.training.means import Means
from ppl_gen.inference.training.objective import Objective
from ppl_gen.inference.training.parallel import Processes
from ppl_gen.inference.training.settings import Training
from ppl_gen.inference.training.steps import NonFinite, Player
from ppl_gen.inference.training.weights import Weights, tensors_of

__all__ = ["Trained", "train"]

#: Streams of torch's random numbers, apart from each other and from the one of the first weights.
_VALIDATION, _STEPS = 0, 1


@dataclass(frozen=True)
class Trained:
    """What training came to; the weights are in the module.

    Attributes
    ----------
    history : DataFrame
        A row an epoch: ``epoch`` (from 1), ``loss`` (mean over the epoch's rows, in nats),
        ``validation_loss`` (where there is validation), ``learning_rate``, ``seconds`` (since the
        start), and the mean of every other part of the loss. The last row may be of a part of an
        epoch.
    n_epochs : int
        Rows of it.
    best_epoch : int
        The epoch whose weights were kept: with validation the best one, else the last.
    stopped : {"epochs", "patience", "max_seconds", "interrupted", "diverged"}
        What ended the training. "diverged": a loss or a gradient was no finite number, and the
        weights are those of the best epoch before.
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
        Before any work: settings or data that do not fit, a checkpoint of another training.
    FloatingPointError
        The loss or a gradient was no finite number, and there is no best epoch yet, or none at all
        for want of validation: the step, and what of it, are named.

    Warns
    -----
    RuntimeWarning
        If Ctrl-C ended it; the weights are the best so far. A second Ctrl-C raises. If a number
        that is not finite ended it after an epoch that was validated: the same is named, and the
        weights are the best so far. No checkpoint is written then: from the last one the same
        training comes to the same end. Once, if a checkpoint cannot be written: training goes on,
        the last one stays, and the next is tried when it is due.

    Notes
    -----
    Started by ``torchrun``, each process takes its share of every batch, the first one writes
    checkpoints and shows the bar, and all end with the same weights.
    """
    training = Training() if training is None else training
    training.check()
    arrays = as_rows(data, who)
    processes = Processes(device, training.precision, who)
    (seed,) = map(int, processes.total([seed * (processes.rank == 0)]))
    with (
        ONE_AT_A_TIME,
        torch.random.fork_rng(devices=processes.generators),
        held_back() as interrupts,
        warnings.catch_warnings(),
    ):
        # The step is found here, and raised.
        warnings.filterwarnings("ignore", message="Encountered (NaN|\\+?inf)", category=UserWarning)
        run = _Run(objective, arrays, training, seed, processes, who)
        if training.checkpoint is not None:
            run.open_checkpoint(identity(objective, arrays, training, seed, processes, description))
        trained = run.go(interrupts, progress and training.progress and processes.rank == 0)
    if trained.stopped == "interrupted":
        kept = "" if training.checkpoint is None else "; the same training, started again, goes on"
        warnings.warn(
            f"{who}: interrupted in epoch {trained.n_epochs} of {training.epochs}; the fit is "
            f"partial: it keeps the best weights so far, and can be used and saved{kept}",
            RuntimeWarning,
            stacklevel=3,
        )
    if trained.stopped == "diverged":
        goes_on = (
            ""
            if training.checkpoint is None
            else f"; from the checkpoint {training.checkpoint} the same training comes to the same "
            "end: with other settings, give another path, or delete it"
        )
        warnings.warn(
            f"{run.fault}; training ended there: the fit keeps the weights of epoch "
            f"{trained.best_epoch}, the best by validation, and can be used and saved{goes_on}",
            RuntimeWarning,
            stacklevel=3,
        )
    return trained


class _Run:
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
        like = next((p for p in names if p.is_floating_point()), None)
        if like is None:
            raise ValueError(f"{who}: the module has no parameters; expected some to train")
        n = len(arrays["x"])
        rows = split(n, training.n_validation(n), seed, who)
        self.rows, self.validation = (
            Loading(arrays, chosen, training.batch_size, processes, like.dtype, who)
            for chosen in rows
        )
        n_steps = training.epochs * self.rows.n_batches
        self.players = {}
        for player, parameters in objective.players.items():
            if not parameters or any(p not in names for p in parameters):
                raise ValueError(
                    f"{who}: the player {player!r} has {len(parameters)} parameters; expected "
                    "some, all of them the module's"
                )
            self.players[player] = Player({names[p]: p for p in parameters}, training, n_steps)
        processes.share_weights(list(tensors_of(self.module).values()))
        self.weights = Weights(self.module, training.ema)
        self.best: dict[str, Any] | None = None
        self.epoch = self.batch = self.step = 0
        self.seconds = 0.0
        self.late = False
        self.history: list[dict[str, float]] = []
        self.means = Means()
        self.checkpoint: Checkpoint | None = None
        self.fault = ""
        torch.manual_seed(self._stream(_STEPS))

    def go(self, interrupts: Interrupts, progress: bool) -> Trained:
        """Train until something ends it."""
        self._begun = self._saved = time.perf_counter()
        self._begun -= self.seconds
        stopped = self._ended()
        bar: Any = tqdm(
            total=self.training.epochs,
            initial=self.epoch,
            desc=self.who,
            delay=1.0,
            disable=not progress,
        )
        try:
            with bar, ExitStack() as unchecked:
                if self.step:
                    unchecked.enter_context(pyro.validation_enabled(False))
                while stopped is None:
                    stopped = self._run_epoch(interrupts, bar, unchecked)
                    if self.batch == self.rows.n_batches:
                        bar.set_postfix_str(self._standing(), refresh=False)
                        self._end_epoch()
                        bar.update()
                        if stopped != "interrupted":  # time over with the last epoch cost none
                            stopped = self._ended()
                part = self._row(validate=stopped != "interrupted") if self.batch else None
            self._save()
        except NonFinite as error:
            if self.best is None:
                raise
            # Nothing is saved: a run that goes on must not begin from here.
            self.fault, stopped = str(error), "diverged"
            part = self._row(validate=False) if self.batch else None
        if part is not None:
            # Counted for an epoch after the state to go on from was kept.
            self.history.append(part)
            self._keep_best(part)
        self.weights.keep(None if self.best is None else self.best["tensors"])
        self.processes.share_weights(list(tensors_of(self.module).values()))
        self.module.eval()
        return Trained(
            pd.DataFrame(self.history),
            len(self.history),
            len(self.history) if self.best is None else self.best["epoch"],
            stopped,
        )

    # -- steps ---------------------------------------------------------------------------------

    def _run_epoch(self, interrupts: Interrupts, bar: Any, unchecked: ExitStack) -> str | None:
        """Take the steps that are left of the epoch; return what ended them, if not the last."""
        training = self.training
        limit = math.inf if training.max_seconds is None else training.max_seconds
        pause = math.inf if self.checkpoint is None else 60.0 * training.checkpoint_minutes
        shown = time.perf_counter()
        self.module.train()
        order = np.random.default_rng([self.seed, 1, self.epoch]).permutation(len(self.rows.rows))
        for batch in self.rows.batches(order, self.batch):
            n = len(batch["x"])
            self._share = n / self.rows.size(self.batch)
            try:
                with self.processes.autocast():
                    parts = self.objective.step(batch, self._descend)
            except NonFinite as error:
                raise NonFinite(self._diagnosis(error, order)) from error
            if self.step == 0:
                self._check_parts(parts)
            self.means.add(parts, n)
            self.batch += 1
            self.step += 1
            self.weights.update(self.step)
            if self.step == 1:
                # Distributions have checked one batch; they would wait for the device at each.
                unchecked.enter_context(pyro.validation_enabled(False))
            now = time.perf_counter()
            self.seconds = now - self._begun
            pressed, self.late, due = self.processes.agree(
                interrupts.pressed, self.seconds >= limit, now - self._saved >= pause
            )
            if due:
                self._save()
            if pressed or self.late:
                return "interrupted" if pressed else "max_seconds"
            if now - shown > 1.0:
                shown = now
                bar.set_postfix_str(self._standing())
        return None

    def _descend(
        self, loss: Tensor, player: str | None = None, parts: Mapping[str, Tensor] | None = None
    ) -> None:
        chosen = next(iter(self.players.values())) if player is None else self.players[player]
        try:
            chosen.descend(loss, self.processes, self._share)
        except NonFinite as error:
            bad = [n for n, v in (parts or {}).items() if n != "loss" and not v.isfinite().all()]
            if bad:
                raise NonFinite(f"{error}, and so is its part {', '.join(bad)}") from None
            raise

    def _check_parts(self, parts: Any) -> None:
        named = isinstance(parts, Mapping) and "loss" in parts
        if not named or any(value.ndim for value in parts.values()):
            told = {n: tuple(v.shape) for n, v in parts.items()} if named else type(parts).__name__
            raise ValueError(
                f"{self.who}: {type(self.objective).__name__}.step returned {told}; expected a "
                "dict of scalars with 'loss' among them"
            )

    # -- epochs --------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        row = self._row()
        for player in self.players.values():
            player.end_epoch(row.get("validation_loss", row["loss"]))
        self.history.append(row)
        self._keep_best(row)
        self.means = Means()
        self.epoch, self.batch = self.epoch + 1, 0

    def _row(self, validate: bool = True) -> dict[str, float]:
        means = self.means.read(self.processes)
        row = {"epoch": self.epoch + 1, "loss": means.pop("loss")}
        if len(self.validation.rows):
            row["validation_loss"] = self._validate() if validate else math.nan
        rate = next(iter(self.players.values())).learning_rate
        return row | {"learning_rate": rate, "seconds": self.seconds} | means

    def _validate(self) -> float:
        means = Means()
        self.module.eval()
        with (
            self.weights.averaged(),
            torch.no_grad(),
            torch.random.fork_rng(devices=self.processes.generators),
            self.processes.autocast(),
        ):
            # The same noise each time, so that epochs differ by their weights alone.
            torch.manual_seed(self._stream(_VALIDATION))
            for batch in self.validation.batches():
                means.add(self.objective.validate(batch), len(batch["x"]))
        loss = means.read(self.processes)["loss"]
        if not math.isfinite(loss):
            raise NonFinite(
                f"{self.who}: the validation loss is {loss} after epoch {self.epoch + 1}, while "
                "the loss is finite; look for rows unlike the others, lower learning_rate (now "
                f"{self.training.learning_rate}), or set clip_norm (now {self.training.clip_norm})"
            )
        return loss

    def _keep_best(self, row: Mapping[str, float]) -> None:
        loss = row.get("validation_loss", math.nan)
        # NaN is no loss: there was no validation.
        if math.isnan(loss) or not self.objective.settled:
            return
        if self.best is None or loss < self.best["loss"]:
            tensors = self.weights.copy()
            self.best = {"loss": loss, "epoch": int(row["epoch"]), "tensors": tensors}

    def _ended(self) -> str | None:
        patience = self.training.patience
        if self.epoch >= self.training.epochs:
            return "epochs"
        if patience and self.best is not None and self.epoch - self.best["epoch"] >= patience:
            return "patience"
        return "max_seconds" if self.late else None

    # -- checkpoints ---------------------------------------------------------------------------

    def open_checkpoint(self, identity: Mapping[str, Any]) -> None:
        """Keep checkpoints from now on, and go on from the one that is there."""
        self.checkpoint = Checkpoint(self.training.checkpoint, identity, self.who)
        state = self.checkpoint.read()
        if self.processes.rank == 0:
            self.checkpoint.prepare()
        if state is None:
            return
        begun = state["epoch"] + (state["batch"] > 0)
        if begun > self.training.epochs:
            raise CheckpointError(
                f"{self.who}: the checkpoint {self.training.checkpoint} is of {begun} "
                f"epochs, and epochs is {self.training.epochs}; expected as many or more; give "
                "another path, or delete it to start anew"
            )
        for name in ("epoch", "batch", "step", "seconds", "history", "best"):
            setattr(self, name, state[name])
        self.means = Means(state["means"] if self.processes.rank == 0 else None)
        self.weights.load(state["weights"])
        for name, player in self.players.items():
            player.load(state["players"][name])
        # Copies: torch takes the state to begin where the memory of the tensor does.
        torch.set_rng_state(state["random"]["cpu"][self.processes.rank].clone())
        for device, kept in zip(self.processes.generators, state["random"]["device"], strict=True):
            torch.cuda.set_rng_state(kept[self.processes.rank].clone(), device)
        limit = self.training.max_seconds
        self.late = limit is not None and self.seconds >= limit

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        gather = self.processes.gather
        devices = self.processes.generators
        state = {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "best": self.best,
            "means": self.means.state(self.processes),
            "weights": self.weights.state(),
            "players": {name: player.state() for name, player in self.players.items()},
            "random": {
                "cpu": gather(torch.get_rng_state()),
                "device": [gather(torch.cuda.get_rng_state(d)) for d in devices],
            },
        }
        if self.processes.rank == 0:
            self.checkpoint.write(state, f"{self.epoch}-{self.batch}")
        self._saved = time.perf_counter()

    def _stream(self, number: int) -> int:
        entropy = [self.seed, number, self.processes.rank]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

    # -- messages ------------------------------------------------------------------------------

    def _standing(self) -> str:
        loss = next(iter(self.players.values())).loss
        best = "" if self.best is None else f", best validation {self.best['loss']:.5g}"
        return f"batch {self.batch} of {self.rows.n_batches}, loss {loss:.5g}{best}"

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
