"""Pictures of hidden states: over a series, and how long they last."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.plots.axes import DOTS, axes_or_new, colour_of, names_of, positions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = Any


def plot_states(
    model: Any,
    X: Any,
    lengths: Any = None,
    *,
    sequence: int = 0,
    times: Any = None,
    names: Sequence[str] | None = None,
    ax: Any = None,
) -> "Axes":
    """Draw a sequence on bands of its decoded states, under the probability of each state.

    The bands are `predict`, by default the likeliest path; the strip on top is `predict_proba`,
    which tells where the path is in doubt. Several columns are drawn in lanes, each scaled to
    its own range. Missing values leave gaps.

    Parameters
    ----------
    model : HiddenMarkovModel
        Fitted.
    X : sequences
    lengths : (n,) or None
        Of the sequences, where X has the rows of all.
    sequence : int
        Which of several to draw.
    times : (T,) or None
        Numbers or dates of its steps; the index of a pandas frame, if None, or 0, 1, ...
    names : K strings or None
        Of the states; by default their numbers.
    ax : matplotlib.axes.Axes, optional
        The strip of probabilities is its one child.

    Raises
    ------
    TypeError
        If the model has no hidden states.
    ValueError
        If there is no such sequence, or `times` or `names` are too many or too few.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import HiddenMarkovModel, plots
    >>> X = np.repeat([0.0, 5.0, 0.0], 10) + np.random.default_rng(0).normal(size=30)
    >>> model = HiddenMarkovModel(2, random_state=0).fit(X)
    >>> ax = plots.plot_states(model, X, names=["low", "high"])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['low', 'high']
    """
    if not hasattr(model, "decode"):
        raise TypeError(
            f"plot_states: {type(model).__name__} has no hidden states; expected a model that "
            "decodes them, such as HiddenMarkovModel"
        )
    sequences, arrangement = model._read_checked(X, lengths, "plot_states")
    if not 0 <= sequence < len(sequences):
        raise ValueError(
            f"plot_states: sequence is {sequence}, but there are {len(sequences)}, counted from 0"
        )
    # Asked about all sequences: draws of a posterior are weighed by all of them.
    end = int(sequences.ends[sequence])
    rows = slice(end - int(sequences.lengths[sequence]), end)
    path = _rows_of(model.predict(X, lengths), arrangement)[rows]
    proba = _rows_of(model.predict_proba(X, lengths), arrangement)[rows]
    labels = names_of(names, proba.shape[1], "plot_states")
    where = X[sequence] if arrangement.kind == "list" else X
    index = where.index if hasattr(where, "iloc") else None
    if index is not None and arrangement.kind == "rows":
        index = index[rows]
    x, dated = positions(times if times is not None else index, len(path), "plot_states")

    ax = axes_or_new(ax, (10.0, 3.5))
    strip = ax.inset_axes([0.0, 1.03, 1.0, 0.2], sharex=ax)
    edges = _edges(x)
    for state, label in enumerate(labels):
        runs = [(edges[a], edges[b] - edges[a]) for a, b in _runs(path) if path[a] == state]
        ax.broken_barh(
            runs,
            (0.0, 1.0),
            transform=ax.get_xaxis_transform(),
            color=colour_of(state),
            alpha=0.3,
            lw=0.0,
            label=label,
        )
    _draw_columns(ax, x, sequences.values[rows], model.schema_.columns, model.schema_.names)
    stacked = np.vstack([proba, proba[-1:]]).T
    colours = [colour_of(state) for state in range(len(labels))]
    strip.stackplot(edges, stacked, step="post", colors=colours, alpha=0.8, lw=0.0)
    strip.set(ylim=(0.0, 1.0), yticks=[0.0, 1.0], ylabel="prob.")
    strip.tick_params(axis="x", bottom=False, labelbottom=False)
    if dated:
        ax.xaxis_date()
    name = getattr(index, "name", None) if times is None else ""
    label = ("" if dated else "step") if name is None else str(name)
    ax.set(xlim=(edges[0], edges[-1]), xlabel=label)
    # Beside the axes, where it hides nothing.
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, title="state")
    return ax  # type: ignore[no-any-return]


def _rows_of(found: Any, arrangement: Any) -> Array:
    """What is said of each step, back in one array of the rows of all sequences."""
    if arrangement.kind == "list":
        return np.concatenate(found)
    return found if arrangement.kind == "rows" else found.reshape(-1, *found.shape[2:])


def _edges(x: Array) -> Array:
    """Borders half way between places: one more than there are places."""
    if len(x) == 1:
        return np.array([x[0] - 0.5, x[0] + 0.5])
    middle = 0.5 * (x[1:] + x[:-1])
    return np.concatenate([[2.0 * x[0] - middle[0]], middle, [2.0 * x[-1] - middle[-1]]])


def _runs(path: Array) -> list[tuple[int, int]]:
    """First step of each run of one state, and the step after its last."""
    borders = np.flatnonzero(np.diff(path)) + 1
    starts = [0, *borders.tolist()]
    return list(zip(starts, [*borders.tolist(), len(path)], strict=True))


def _draw_columns(ax: Any, x: Array, values: Array, columns: Any, names: list[Any]) -> None:
    """Draw one column as it is, several in lanes; categories are points without lines."""
    marker = "." if len(x) <= DOTS or np.isnan(values).any() else ""
    for place, column in enumerate(columns):
        series = values[:, place]
        categories = column.kind == "category"
        if len(columns) > 1:
            seen = series[~np.isnan(series)]
            low, high = (seen.min(), seen.max()) if len(seen) else (0.0, 0.0)
            scale = 0.8 / (high - low) if high > low else 0.0
            series = 0.5 - place + scale * (series - 0.5 * (low + high))
        style = {"ls": "", "marker": "."} if categories else {"lw": 0.8, "marker": marker}
        ax.plot(x, series, color="0.15", ms=3.0, label="_" + str(names[place]), **style)
    if len(columns) > 1:
        lanes = 0.5 - np.arange(len(columns))
        ax.set_yticks(lanes, [str(name) for name in names])
        ax.set_ylim(1.0 - len(columns), 1.0)
        for border in lanes[1:] + 0.5:
            ax.axhline(border, color="1.0", lw=1.0)
        return
    if columns[0].kind == "category":
        ax.set_yticks(range(len(columns[0].categories)), [str(c) for c in columns[0].categories])
    ax.margins(y=0.1)
    ax.autoscale(axis="y")
    if columns[0].name is not None:
        ax.set_ylabel(str(names[0]))


def plot_run_lengths(
    model: Any,
    X: Any,
    lengths: Any = None,
    *,
    state: int | None = None,
    n_draws: int = 100,
    random_state: Any = None,
    ax: Any = None,
) -> "Axes":
    """Check how long states last: runs in the decoded path, against those in predictive draws.

    A chain leaves a state with the same probability at every step, so its runs are geometric.
    Where the dots leave the bars, they are not. Draws of sequences, as long as those given and
    missing where they are, are decoded as the data are: decoding swallows the shortest runs of
    both.

    Parameters
    ----------
    model : HiddenMarkovModel
        Fitted.
    X : sequences
    lengths : (n,) or None
        Of the sequences, where X has the rows of all.
    state : int or None
        The state whose runs to count; by default, those of all.
    n_draws : int
        Draws of all the sequences.
    random_state : int or None
        By default, the model's.
    ax : matplotlib.axes.Axes, optional
        Bars are 90% intervals of the draws.

    Raises
    ------
    ValueError
        If there is no such state, or no draw.

    References
    ----------
    Gelman, Meng and Stern (1996), Posterior predictive assessment of model fitness via realized
    discrepancies, Statistica Sinica 6, 733-807.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import HiddenMarkovModel, plots
    >>> X = np.repeat([0.0, 5.0] * 5, 10) + np.random.default_rng(0).normal(size=100)
    >>> model = HiddenMarkovModel(2, random_state=0).fit(X)
    >>> ax = plots.plot_run_lengths(model, X, random_state=0)  # always ten: not geometric
    >>> [label.get_text() for label in ax.get_xticklabels()][:4]
    ['1', '2-3', '4-7', '8-15']
    """
    if n_draws < 1:
        raise ValueError(f"plot_run_lengths: n_draws is {n_draws!r}; expected at least 1")
    sequences, arrangement = model._read_checked(X, lengths, "plot_run_lengths")
    n_states = model.structure_.n_states
    if state is not None and not 0 <= state < n_states:
        raise ValueError(
            f"plot_run_lengths: state is {state!r}; expected one from 0 to {n_states - 1}, or None"
        )
    rng = model._rng() if random_state is None else np.random.default_rng(random_state)
    drawn = [_replicate(model, sequences, rng) for _ in range(n_draws)]
    tiled = np.tile(sequences.lengths, n_draws)
    paths = model.predict(model._table(np.concatenate(drawn)), tiled)
    path = _rows_of(model.predict(X, lengths), arrangement)
    found = _run_lengths(path, sequences.lengths, state)
    predicted = [
        _run_lengths(one, sequences.lengths, state) for one in np.split(np.asarray(paths), n_draws)
    ]

    ax = axes_or_new(ax)
    longest = max([1, *(int(runs.max()) for runs in [found, *predicted] if len(runs))])
    bins = 2 ** np.arange(int(np.log2(longest)) + 2)
    decoded = np.histogram(found, bins)[0]
    counts = np.stack([np.histogram(runs, bins)[0] for runs in predicted])
    low, middle, high = np.quantile(counts, [0.05, 0.5, 0.95], axis=0)
    # The longest runs are rare: bins that few draws reach stay out.
    shown = np.flatnonzero((high > 0.0) | (decoded > 0))
    x = np.arange(shown[-1] + 1 if len(shown) else 1)
    low, middle, high, decoded = (count[x] for count in (low, middle, high, decoded))
    colour = "C7" if state is None else colour_of(state)
    ax.bar(x, high - low, bottom=low, width=0.6, color=colour, alpha=0.4, label="drawn, 90%")
    ax.hlines(middle, x - 0.3, x + 0.3, color=colour, lw=1.5, label="drawn, median")
    ax.scatter(x, decoded, color="0.15", s=25, zorder=3, label="decoded")
    ends = zip(bins[x].tolist(), (bins[x + 1] - 1).tolist(), strict=True)
    ax.set_xticks(x, [str(a) if a == b else f"{a}-{b}" for a, b in ends])
    means = [runs.mean() for runs in predicted if len(runs)]
    title = "all states" if state is None else f"state {state}"
    if len(found) and means:
        between = "{:.1f} to {:.1f}".format(*np.quantile(means, [0.05, 0.95]))
        title += f"\nmean run {found.mean():.1f}, drawn {between}"
    ax.set(xlabel="length of a run, steps", ylabel="runs", title=title)
    ax.set_ylim(bottom=0.0)
    ax.legend(fontsize="small")
    return ax  # type: ignore[no-any-return]


def _replicate(model: Any, sequences: Any, rng: np.random.Generator) -> Array:
    """Draw all sequences anew, under one draw of the parameters, missing where they are."""
    parameters = model._draw(int(rng.integers(model._n_draws)))
    drawn = [model.structure_.sample(parameters, int(n), rng)[0] for n in sequences.lengths]
    return np.where(np.isnan(sequences.values), np.nan, np.concatenate(drawn))


def _run_lengths(path: Array, lengths: Array, state: int | None) -> Array:
    """Lengths of the runs of a state, or of all, in sequences one after another."""
    found = []
    for one in np.split(path, np.cumsum(lengths)[:-1]):
        found += [b - a for a, b in _runs(one) if state is None or one[a] == state]
    return np.array(found, dtype=np.intp)
