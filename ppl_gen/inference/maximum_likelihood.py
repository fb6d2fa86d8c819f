"""Maximum likelihood for networks: descend the negative log likelihood by minibatches."""

from collections.abc import Mapping
from typing import Any

from ppl_gen.inference.base import InferenceMethod
from ppl_gen.inference.training.settings import Training

__all__ = ["MaximumLikelihood"]


class MaximumLikelihood(InferenceMethod):
    """Maximum likelihood for networks with a density: flows, autoregressive models.

    The weighted mean of -log p(x | context) is descended by a stochastic gradient method.

    Parameters
    ----------
    epochs : int, optional
        Passes over the data.
    batch_size : int, optional
        Rows of a minibatch, at most.
    learning_rate : float, optional
        Of the optimiser. These three, where they are given, take the place of those of `training`.
    training : Training, optional
        How it is done otherwise: optimiser, schedule, validation, checkpoints.

    Notes
    -----
    Ctrl-C ends the training after its step, warns, and keeps the best weights so far; a second
    one raises. A loss that is no finite number does the same once an epoch was validated, and
    raises before.

    Examples
    --------
    >>> from ppl_gen import MaximumLikelihood, Training
    >>> method = MaximumLikelihood(epochs=20, training=Training(schedule="cosine"))
    >>> method.settings().epochs, method.settings().schedule
    (20, 'cosine')
    """

    name = "maximum_likelihood"

    def __init__(
        self,
        epochs: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        training: Training | None = None,
    ) -> None:
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.training = training

    def settings(self) -> Training:
        """Return the settings of the loop, with what is given here in their place."""
        return Training.of(self.training, "MaximumLikelihood").overridden(
            epochs=self.epochs, learning_rate=self.learning_rate, batch_size=self.batch_size
        )

    def train(
        self,
        module: Any,
        data: Mapping[str, Any],
        *,
        seed: int = 0,
        device: str = "cpu",
        who: str = "MaximumLikelihood.train",
        description: Mapping[str, Any] | None = None,
        progress: bool = False,
    ) -> Any:
        """Train a network with a density, and leave the best weights in it.

        Parameters
        ----------
        module : DensityModule
            Has ``log_prob(x, context=None)``.
        data : dict of arrays (n, ...)
            ``"x"``, and ``"context"`` and ``"weight"`` where there are any.
        seed, device, who, description, progress
            As of :func:`ppl_gen.inference.training.loop.train`.

        Returns
        -------
        Trained

        Raises
        ------
        FloatingPointError
            The loss or a gradient was no finite number before any epoch was validated; the step
            is named. Later that is a warning, and the best weights are kept.
        """
        from ppl_gen.inference.training.loop import train
        from ppl_gen.inference.training.objective import NegativeLogLikelihood

        return train(
            NegativeLogLikelihood(module),
            data,
            self.settings(),
            seed=seed,
            device=device,
            who=who,
            description=description,
            progress=progress,
        )
