"""Settings of the training loop."""

import inspect
import math
import os
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone

__all__ = ["OPTIMIZERS", "PRECISIONS", "SCHEDULES", "Training"]

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
SCHEDULES = ("cosine", "plateau")
PRECISIONS = ("float32", "bfloat16")
#: Of `Training.for_rows`: steps, about; rows from which batches are larger; rows of which a tenth
#: tells which epoch was best.
STEPS, MANY_ROWS, ENOUGH_ROWS = 4000, 2000, 500


class Training(BaseEstimator):  # type: ignore[misc]
    """How a network is trained, whatever the objective.

    Parameters
    ----------
    epochs : int, default 100
        Passes over the data, at most.
    batch_size : int, default 256
        Rows in a minibatch, at most: the batches of an epoch are of nearly equal size, so that
        each row counts for as much as any other.
    learning_rate : float, default 1e-3
        Of a named optimiser, or of a callable that takes ``lr`` and does not fix it.
    optimizer : str or callable, default "adam"
        ``"adam"``, ``"adamw"``, ``"sgd"``, ``"rmsprop"``, or a callable from parameters to a torch
        optimiser, such as ``functools.partial(torch.optim.AdamW, betas=(0.9, 0.95))``.
    weight_decay : float, default 0.0
        Of the optimiser, likewise.
    schedule : str or callable, optional
        ``"cosine"``: a linear warm-up over the first twentieth of the steps, at most 500, then
        half a cosine down to zero. ``"plateau"``: half the rate after five epochs in which the
        validation loss (without validation, the training loss) has not fallen. Or a callable
        from the optimiser to a torch scheduler, which is stepped once an epoch.
    clip_norm : float, optional
        Longest gradient; longer ones are scaled to it.
    ema : float, optional
        Decay of an exponential moving average of the weights [1]_, such as 0.999, which begins
        as a plain mean of the first steps. The average is what is validated and kept.
    validation : float, optional
        Share of the rows that is kept for validation, drawn by the seed. Then the weights of the
        epoch with the best validation loss are kept, also where a later loss is no finite number;
        without, those of the last step are, and such a loss is an error.
    patience : int, optional
        Epochs without a better validation loss after which training ends.
    precision : {"float32", "bfloat16"}, default "float32"
        ``"bfloat16"`` computes matrix products in it, where the device has it; weights keep their
        type. ``"float32"`` computes in the type of the weights, as they are.
    max_seconds : float, optional
        Training ends with the step in which these are over.
    checkpoint : path, optional
        Directory for checkpoints. The same training (model, data, settings and seed), started
        again, goes on from there: on a CPU to the very weights that it would have come to
        uninterrupted. With more `epochs` a finished one goes on, from there at the rates of the
        longer schedule. The file format is safetensors and JSON; nothing in it is executed.
    checkpoint_minutes : float, default 10.0
        Minutes from one checkpoint to the next; there is one at the end, and at Ctrl-C, too. One
        that cannot be written (a full disk) is warned of, and the one before stays.
    progress : bool, default True
        Show a bar, where the model does.

    References
    ----------
    .. [1] Polyak, B. T. and Juditsky, A. B. (1992). Acceleration of stochastic approximation by
       averaging. SIAM J. Control Optim. 30(4).

    Examples
    --------
    >>> from ppl_gen import MaximumLikelihood, Training
    >>> method = MaximumLikelihood(training=Training(validation=0.1, patience=10))
    >>> method.set_params(training__epochs=500).training.epochs
    500
    """

    def __init__(
        self,
        epochs: int = 100,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        optimizer: str | Callable[..., Any] = "adam",
        weight_decay: float = 0.0,
        schedule: str | Callable[..., Any] | None = None,
        clip_norm: float | None = None,
        ema: float | None = None,
        validation: float | None = None,
        patience: int | None = None,
        precision: str = "float32",
        max_seconds: float | None = None,
        checkpoint: Any = None,
        checkpoint_minutes: float = 10.0,
        progress: bool = True,
    ) -> None:
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.ema = ema
        self.validation = validation
        self.patience = patience
        self.precision = precision
        self.max_seconds = max_seconds
        self.checkpoint = checkpoint
        self.checkpoint_minutes = checkpoint_minutes
        self.progress = progress

    @classmethod
    def for_rows(cls, n_rows: int) -> Self:
        """Settings that do for few rows as for many: about 4,000 steps, of which the best are kept.

        Parameters
        ----------
        n_rows : int
            Of the data.

        Examples
        --------
        >>> from ppl_gen import Training
        >>> [Training.for_rows(n).epochs for n in (100, 1000, 100_000)]
        [300, 256, 30]
        """
        batch_size = 64 if n_rows < MANY_ROWS else 256
        return cls(
            epochs=min(300, max(30, STEPS * batch_size // n_rows)),
            batch_size=batch_size,
            learning_rate=2e-3,
            schedule="cosine",
            clip_norm=5.0,
            # Few rows are soon overfitted: which epoch was best is then worth a fifth of them.
            validation=0.2 if n_rows < ENOUGH_ROWS else 0.1,
        )

    @classmethod
    def of(cls, training: Any, who: str) -> "Training":
        """Return the settings that a method was given, or the defaults for None.

        Raises
        ------
        TypeError
            If they are something else.
        """
        if training is None:
            return cls()
        if not isinstance(training, cls):
            raise TypeError(
                f"{who}: training is {training!r}; expected None or settings such as "
                "Training(validation=0.1)"
            )
        return training

    def overridden(self, **settings: Any) -> Self:
        """Return a copy with the settings that are not None in place of its own."""
        given = {name: value for name, value in settings.items() if value is not None}
        copied: Self = clone(self).set_params(**given)
        return copied

    def n_validation(self, n_rows: int) -> int:
        """Rows that are kept for validation, of so many."""
        return 0 if self.validation is None else max(1, round(self.validation * n_rows))

    def n_batches(self, n_rows: int) -> int:
        """Steps of an epoch on so many rows."""
        return max(1, -(-(n_rows - self.n_validation(n_rows)) // self.batch_size))

    def check(self) -> None:
        """Raise ValueError or TypeError if a setting is out of range."""
        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if value is None and name == "patience":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                _refuse(name, value, "a whole number of at least 1")
        for name in ("learning_rate", "clip_norm", "max_seconds", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is None and name in ("clip_norm", "max_seconds"):
                continue
            if not (_is_real(value) and 0.0 < value < math.inf):
                _refuse(name, value, "a positive number")
        if not (_is_real(self.weight_decay) and 0.0 <= self.weight_decay < math.inf):
            _refuse("weight_decay", self.weight_decay, "a number of at least 0")
        for name in ("ema", "validation"):
            value = getattr(self, name)
            if value is not None and not (_is_real(value) and 0.0 < value < 1.0):
                _refuse(name, value, "None or a number between 0 and 1")
        if self.patience is not None and self.validation is None:
            raise ValueError(
                f"Training: patience is {self.patience}, but there is no validation to be patient "
                "about; expected a share of the rows too, such as validation=0.1"
            )
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            if value is None and name == "schedule":
                continue
            if not callable(value) and value not in known:
                _refuse(name, value, f"one of {', '.join(map(repr, known))}, or a callable")
        if callable(self.schedule):
            _check_schedule(self.schedule)
        if not isinstance(self.checkpoint, str | os.PathLike | None):
            _refuse("checkpoint", self.checkpoint, "None or the path of a directory")
        if self.precision not in PRECISIONS:
            _refuse("precision", self.precision, f"one of {', '.join(map(repr, PRECISIONS))}")


def _check_schedule(schedule: Callable[..., Any]) -> None:
    """Refuse a callable that an optimiser alone does not do for, such as torch's bare `StepLR`."""
    try:
        taken = list(inspect.signature(schedule).parameters.values())
    except ValueError:  # built in, without a signature to look at
        return
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in taken if p.default is p.empty and p.kind not in variadic][1:]
    if needed:
        name = getattr(schedule, "__name__", repr(schedule))
        rest = ", ".join(f"{setting}=..." for setting in needed)
        raise TypeError(
            f"Training: schedule is {name}, which needs {', '.join(needed)} besides the optimiser; "
            f"expected a callable from the optimiser alone; take functools.partial({name}, {rest})"
        )


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _refuse(name: str, value: Any, expected: str) -> None:
    raise ValueError(f"Training: {name} is {value!r}; expected {expected}")
