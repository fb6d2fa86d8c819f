"""Pictures of models of rows: mixtures and classifiers."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.plots.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = Any


def plot_mixture(
    model: Any, X: Any, columns: tuple[int, int] = (0, 1), *, n_draws: int = 30, ax: Any = None
) -> "Axes":
    """Draw the rows by their component, and each component's 50% and 90% ellipses.

    After a Bayesian fit the ellipses of several draws lie over each other, so that the spread
    of the lines is the uncertainty of the components.

    Parameters
    ----------
    model : GaussianMixture
        Fitted.
    X : table of (n, D)
    columns : (int, int)
        Places of the two columns to draw; the others are marginalised.
    n_draws : int
        Draws of the parameters to show.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    TypeError
        If the components are not normal.
    ValueError
        If the model has no such columns.

    Examples
    --------
    >>> from ppl_gen import GaussianMixture, plots
    >>> from ppl_gen.datasets import make_two_moons
    >>> X = make_two_moons(100).X
    >>> ax = plots.plot_mixture(GaussianMixture(2, random_state=0).fit(X), X)
    >>> len(ax.lines)  # two ellipses a component
    4
    """
    from matplotlib.colors import TABLEAU_COLORS
    from sklearn.utils.validation import check_is_fitted

    from ppl_gen.families import Normal

    check_is_fitted(model)
    family = model.structure_.family
    if not isinstance(family, Normal):
        raise TypeError(
            f"plot_mixture: the components of {type(model).__name__} are {family!r}; expected "
            "normal ones, which have ellipses, as those of GaussianMixture"
        )
    names = model.schema_.names
    pair = list(columns)
    if len(pair) != 2 or not set(pair) <= set(range(-len(names), len(names))):
        raise ValueError(
            f"plot_mixture: columns is {columns!r}; expected the places of two columns, from 0 to "
            f"{len(names) - 1}"
        )
    ax = axes_or_new(ax)
    colours = list(TABLEAU_COLORS.values())
    values = model._read(X, reset=False)
    component = model.predict(X)
    for k in range(model.structure_.n_classes):
        rows = component == k
        ax.scatter(*values[rows][:, pair].T, s=12, alpha=0.6, color=colours[k % 10], lw=0)
    angle = np.linspace(0.0, 2.0 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    shown = np.linspace(0, model._n_draws - 1, min(n_draws, model._n_draws)).astype(int)
    for s in np.unique(shown):
        draw = model._draw(s)["family"]
        for k, (mean, covariance) in enumerate(_moments(model, draw)):
            root = np.linalg.cholesky(covariance[np.ix_(pair, pair)])
            for share in (0.5, 0.9):
                # The radius that holds a share of a normal in two dimensions.
                line = mean[pair, None] + np.sqrt(-2.0 * np.log1p(-share)) * root @ circle
                alpha = 1.0 if len(shown) == 1 else 0.25
                ax.plot(*line, color=colours[k % 10], lw=1.0, alpha=alpha)
    ax.set(xlabel=str(names[pair[0]]), ylabel=str(names[pair[1]]))
    return ax  # type: ignore[no-any-return]


def _moments(model: Any, draw: dict[str, Array]) -> list[tuple[Array, Array]]:
    """Mean and covariance matrix of each component of one draw."""
    family = model.structure_.family
    spread = family.covariances(draw)
    width = draw["mean"].shape[1]
    kind = family.covariance_type
    moments = []
    for k, mean in enumerate(draw["mean"]):
        if kind == "full":
            covariance = spread[k]
        elif kind == "tied":
            covariance = spread
        else:
            covariance = np.diag(np.broadcast_to(spread[k], (width,)))
        moments.append((mean, covariance))
    return moments


def plot_calibration(y: Any, proba: Array, classes: Array, *, ax: Any = None) -> "Axes":
    """Draw how often predictions of each confidence are right; the diagonal is honest.

    The area of a dot is the share of the rows in its bin, and its bar the 90% interval of the
    share that is right: Jeffreys', Beta(right + 1/2, wrong + 1/2).

    Parameters
    ----------
    y : (n,)
        True labels.
    proba : (n, C)
        Predicted probabilities, in the order of `classes`.
    classes : (C,)
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    ValueError
        As of `ppl_gen.evaluate.calibration.reliability_curve`.

    Examples
    --------
    >>> from ppl_gen import plots
    >>> ax = plots.plot_calibration([0, 0, 0, 1], np.tile([0.75, 0.25], (4, 1)), [0, 1])
    >>> ax.get_title()
    'expected calibration error 0.000'
    """
    from scipy.stats import beta

    from ppl_gen.evaluate.calibration import expected_calibration_error, reliability_curve

    ax = axes_or_new(ax)
    confidence, accuracy, counts = reliability_curve(y, proba, classes)
    ax.plot([0.0, 1.0], [0.0, 1.0], color="0.7", lw=1.0)
    right = counts * accuracy
    low, high = (beta.ppf(q, right + 0.5, counts - right + 0.5) for q in (0.05, 0.95))
    ax.vlines(confidence, low, high, color="C0", lw=1.0, alpha=0.6)
    ax.scatter(confidence, accuracy, s=10.0 + 200.0 * counts / counts.sum(), color="C0")
    error = expected_calibration_error(y, proba, classes)
    ax.set(
        xlabel="confidence",
        ylabel="share that is right",
        xlim=(0.0, 1.02),
        ylim=(0.0, 1.02),
        title=f"expected calibration error {error:.3f}",
    )
    return ax  # type: ignore[no-any-return]


def plot_explanation(explanation: Any, row: int = 0, *, ax: Any = None) -> "Axes":
    """Draw one row of ``NaiveBayes.explain``: what each column adds to the log-odds.

    Parameters
    ----------
    explanation : pandas.DataFrame
    row : int
        Place of the row.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    ValueError
        If there is no such row.

    Examples
    --------
    >>> from ppl_gen import NaiveBayes, plots
    >>> from ppl_gen.datasets import load_iris
    >>> iris = load_iris()
    >>> explanation = NaiveBayes().fit(iris.X, iris.y).explain(iris.X)
    >>> ax = plots.plot_explanation(explanation, 3)
    >>> len(ax.patches)  # the prior, and a bar a column
    5
    """
    if not -len(explanation) <= row < len(explanation):
        raise ValueError(
            f"plot_explanation: row is {row}, but the explanation is of {len(explanation)} rows"
        )
    ax = axes_or_new(ax)
    one = explanation.iloc[row]
    terms = one.drop(["label", "against"]).astype(float)
    order = np.argsort(np.abs(terms.to_numpy()))
    terms = terms.iloc[order]
    colours = np.where(terms > 0.0, "C0", "C3")
    ax.barh([str(name) for name in terms.index], terms.to_numpy(), color=colours)
    ax.axvline(0.0, color="0.3", lw=0.8)
    total = terms.sum()
    ax.set(
        xlabel="nats",
        title=f"log-odds of {one['label']} against {one['against']}: {total:.1f}",
    )
    return ax  # type: ignore[no-any-return]
