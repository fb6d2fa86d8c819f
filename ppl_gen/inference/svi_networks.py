"""SVI on networks that bring their own guide: the shared training loop with an ELBO as its loss."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_gen.inference.training.settings import Training

OBJECTIVES = ("elbo", "iwae", "dreg")


def settings(method: Any, n_rows: int) -> Training:
    """Return the loop's settings, with those that the method gives in their place.

    Parameters
    ----------
    method : SVI
    n_rows : int
        Of the data: `steps` are counted in epochs.

    Raises
    ------
    ValueError
        If the method has settings that mean nothing to a network.
    """
    if method.guide != "mean_field":
        raise ValueError(
            "SVI: guide is given, but a network brings its own; expected the default; choose the "
            "guide where the model is made"
        )
    training = Training.of(method.training, "SVI").overridden(
        learning_rate=method.learning_rate,
        batch_size=method.batch_size,
        optimizer=None if method.optimizer == "adam" else method.optimizer,
    )
    training.check()
    if method.steps is None:
        return training
    return training.overridden(epochs=-(-method.steps // training.n_batches(n_rows)))


def train(
    method: Any,
    module: Any,
    data: Mapping[str, Any],
    *,
    seed: int,
    device: str,
    who: str,
    description: Mapping[str, Any] | None,
    progress: bool,
) -> Any:
    """Train a network by the ELBO of its program and guide; see `SVI.train`."""
    from ppl_gen.inference.elbos import ElboObjective
    from ppl_gen.inference.training import loop

    n_rows = len(np.asanyarray(data["x"]))
    training = settings(method, n_rows)
    n_steps = training.epochs * training.n_batches(n_rows)
    climbed = {"objective": method.objective, "particles": method.particles}
    return loop.train(
        ElboObjective(module, method.particles, method.objective, n_steps),
        data,
        training,
        seed=seed,
        device=device,
        who=who,
        description=dict(description or {}) | climbed,
        progress=progress,
    )
