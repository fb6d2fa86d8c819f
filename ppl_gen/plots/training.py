"""Pictures of training: what a fit climbed or descended, and which latents it came to use."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.plots.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = Any

#: Variance over rows of a latent's posterior mean from which it is active: Burda, Grosse and
#: Salakhutdinov 2016 (arXiv:1509.00519), section 5.2.
ACTIVE = 0.01


def plot_history(model: Any, *, ax: Any = None) -> "Axes":
    """Draw what EM or SVI climbed, over its steps, or the losses of a network, over its epochs.

    Of a network it is the training loss, that of the validation rows where there are any, and the
    epoch whose weights were kept. EM's objective is in nats a row, SVI's ELBO in nats; losses are
    in nats a row.

    Parameters
    ----------
    model : GenerativeModel, or DataFrame
        Fitted by EM, SVI or the training of a network; or its ``history_``, a frame with columns
        ``epoch`` and ``loss``.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    ValueError
        If the method climbs nothing, as NUTS; if a frame has no such columns.
    """
    history, label = getattr(model, "history_", None), "objective, nats a row"
    if hasattr(model, "columns") or hasattr(history, "columns"):
        frame = model if history is None else history
        return _plot_losses(frame, getattr(model, "best_epoch_", None), ax)
    if history is None:
        history, label = model.posterior_.info.get("history"), "ELBO, nats"
    if history is None:
        raise ValueError(
            f"plot_history: {type(model).__name__} was fitted by {model.posterior_.method!r}, "
            "which has no objective; expected 'em' with steps, 'svi', or a network's training"
        )
    ax = axes_or_new(ax)
    ax.plot(np.arange(1, len(history) + 1), history, marker=_marker(len(history)), color="C0")
    ax.set(xlabel="step", ylabel=label)
    return ax  # type: ignore[no-any-return]


def _plot_losses(history: Any, best_epoch: int | None, ax: Any) -> "Axes":
    missing = {"epoch", "loss"} - set(history.columns)
    if missing:
        raise ValueError(
            f"plot_history: the history has no column {' or '.join(sorted(missing))}; expected a "
            "model's history_"
        )
    ax = axes_or_new(ax)
    names = {"loss": "training", "validation_loss": "validation"}
    shown = [name for name in names if name in history.columns]
    for place, name in enumerate(shown):
        marker = _marker(len(history))
        ax.plot(
            history["epoch"], history[name], marker=marker, color=f"C{place}", label=names[name]
        )
    if len(shown) > 1 and best_epoch is not None:
        ax.axvline(best_epoch, color="0.6", lw=1.0, ls="--", label="kept")
    if len(shown) > 1:
        ax.legend(frameon=False)
    ax.set(xlabel="epoch", ylabel="loss, nats a row")
    return ax  # type: ignore[no-any-return]


def _marker(n_points: int) -> str:
    return "." if n_points <= 100 else ""


def plot_active_units(model: Any, X: Any, *, context: Any = None, ax: Any = None) -> "Axes":
    """Draw how much each latent says of rows: the variance of its posterior mean over them.

    Latents below the line at 0.01 are not active: whatever the row, their posterior is the prior.

    Parameters
    ----------
    model : VAE, FactorAnalysis or ProbabilisticPCA
        Fitted; has ``transform``.
    X : table of (n, D) or images, as in fit
        Two rows or more.
    context : optional
        What a conditional model is given.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    TypeError
        If the model has no continuous latents.
    ValueError
        If there is one row only.

    Examples
    --------
    >>> from ppl_gen import ProbabilisticPCA, plots
    >>> from ppl_gen.datasets import load_iris
    >>> X = load_iris().X
    >>> ax = plots.plot_active_units(ProbabilisticPCA(2).fit(X), X)
    >>> len(ax.patches)
    2
    """
    if not hasattr(model, "transform"):
        raise TypeError(
            f"plot_active_units: {type(model).__name__} has no transform; expected a model with "
            "continuous latents, such as VAE or FactorAnalysis"
        )
    given = {} if context is None else {"context": context}
    means = np.asarray(model.transform(X, **given), dtype=np.float64)
    if len(means) < 2:
        raise ValueError("plot_active_units: X has one row; expected two or more to compare")
    variance = means.var(axis=0)
    order = np.argsort(-variance, kind="stable")
    ax = axes_or_new(ax)
    active = variance[order] > ACTIVE
    ax.bar(
        [str(latent) for latent in order],
        variance[order],
        color=np.where(active, "C0", "0.7").tolist(),
    )
    ax.axhline(ACTIVE, color="0.3", lw=0.8, ls="--")
    ax.set(
        yscale="log",
        ylim=(min(1e-4, 0.5 * max(float(variance.min()), 1e-8)), None),
        xlabel="latent",
        ylabel="variance of its mean over rows",
        title=f"{int(active.sum())} of {len(variance)} latents are active",
    )
    return ax  # type: ignore[no-any-return]
