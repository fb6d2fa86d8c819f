"""How many components: candidates side by side, by AIC, BIC and held-out density."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import KFold, check_cv
from sklearn.utils import _safe_indexing
from tqdm.auto import tqdm

from ppl_gen.data import is_frame, with_categories
from ppl_gen.inference.base import resolve
from ppl_gen.sequence_estimator import SequenceModel
from ppl_gen.sequences import arrange

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare_components"]

Array = Any

#: What a candidate may fail with: settings that do not fit the data, and numbers that break down.
FAILURES = (ValueError, FloatingPointError, np.linalg.LinAlgError)


def compare_components(
    model: Any,
    X: Any,
    lengths: Any = None,
    *,
    n_components: Iterable[int] = range(1, 7),
    cv: Any = None,
) -> "pd.DataFrame":
    r"""Fit a model with several numbers of components, and put side by side how good each is.

    Parameters
    ----------
    model : HiddenMarkovModel, GaussianMixture, Mixture
        Anything with `n_components`, ``aic`` and ``bic``. It is left as it is: copies are fitted.
    X : table of rows, or sequences
    lengths : (n,) or None
        Of the sequences, where X has the rows of all.
    n_components : iterable of int
        The candidates.
    cv : int, splitter of scikit-learn or None
        Folds of held-out data, the same for every candidate: of whole sequences for models of
        sequences, since the steps of one depend on one another, and of rows for others. A number
        of folds is shuffled by the model's `random_state`.

    Returns
    -------
    DataFrame, a row a candidate, indexed by ``n_components``
        ``log_likelihood`` (nats, of all the data), ``n_free`` parameters, ``aic``, ``bic`` and
        ``converged``; ``failure`` is the reason why a candidate could not be fitted, else "".
        With `cv`, ``held_out`` is the log density of a step (of a row) that was not fitted, in
        nats, and ``difference`` how far it is behind that of the best; each has its standard
        error, ``held_out_se`` and ``difference_se``. ``table.attrs["best"]`` has the best
        candidate by each of "aic", "bic" and "held_out".

    Raises
    ------
    ValueError
        If the model has no such number, `n_components` is empty, there are fewer sequences than
        folds, a Bayesian fit comes without `cv`, or no candidate could be fitted.

    Notes
    -----
    AIC and BIC are for maximum likelihood, so they are NaN after a Bayesian fit, which `cv`
    compares. For mixtures and hidden states their theory does not hold (a component too many is
    not identified), but BIC chooses well in practice. More components have more local optima:
    give the model ``inference=EM(n_init=10)``, and mistrust a log likelihood that falls as
    components are added.

    Standard errors are those of a ratio of totals, log density over steps, where sequences are
    the units that are drawn (Cochran 1977, Sampling Techniques, chapter 6); they leave out that
    folds share training data. A difference of less than two or so of its own is no difference.

    References
    ----------
    Celeux & Durand (2008), Selecting hidden Markov model state number with cross-validated
    likelihood, Computational Statistics 23, 541-564.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import GaussianMixture
    >>> from ppl_gen.evaluate.model_choice import compare_components
    >>> X = np.concatenate([np.linspace(-1, 1, 50), np.linspace(9, 11, 50)])[:, None]
    >>> table = compare_components(
    ...     GaussianMixture(random_state=0), X, n_components=[1, 2, 3], cv=5
    ... )
    >>> table["bic"].round(1).tolist()
    [616.3, 339.6, 345.8]
    >>> table.attrs["best"]["bic"]
    2
    """
    import pandas as pd

    counts = _candidates(model, n_components)
    is_point = resolve(model.inference or model.methods[0]).name == "em"
    if cv is None and not is_point:
        raise ValueError(
            "compare_components: AIC and BIC are for fits by EM; compare Bayesian ones by held-out "
            "density: give cv=5"
        )
    data = _Units.of(model, X, lengths)
    folds = [] if cv is None else data.folds(cv, model.random_state)
    rows, densities = [], []
    for count in tqdm(counts, desc="n_components", delay=1.0):
        candidate = clone(model).set_params(n_components=count)
        row, density = _compared(candidate, data, folds, is_point)
        rows.append(row)
        densities.append(density)
    if all(row["failure"] for row in rows):
        raise ValueError(
            f"compare_components: no candidate could be fitted; n_components={counts[0]}: "
            f"{rows[0]['failure']}"
        )
    table = pd.DataFrame(rows, index=pd.Index(counts, name="n_components"))
    table = table.astype({"n_free": "Int64", "converged": "boolean"})
    criteria = ["aic", "bic"] if is_point else []
    best = {name: counts[int(np.nanargmin(table[name]))] for name in criteria}
    if folds:
        place = int(np.nanargmax(table["held_out"]))
        best["held_out"] = counts[place]
        with np.errstate(invalid="ignore"):  # the best may find a unit impossible, too
            behind = [density - densities[place] for density in densities]
        parts = [data.per_step(density) for density in behind]
        table["difference"], table["difference_se"] = zip(*parts, strict=True)
    last = ["converged", "failure"]
    table = table[[name for name in table.columns if name not in last] + last]
    table.attrs["best"] = best
    return table


def _candidates(model: Any, n_components: Iterable[int]) -> list[int]:
    counts = list(n_components)
    if not counts:
        raise ValueError("compare_components: n_components is empty; give one number or more")
    if not all(isinstance(count, int | np.integer) for count in counts):
        raise ValueError(f"compare_components: n_components is {counts!r}; expected whole numbers")
    if len(set(counts)) < len(counts):
        raise ValueError(f"compare_components: n_components has {counts!r}; expected each once")
    if not (hasattr(model, "n_components") and hasattr(model, "aic") and hasattr(model, "bic")):
        raise ValueError(
            f"compare_components: {type(model).__name__} has no n_components with AIC and BIC; "
            "expected a model such as HiddenMarkovModel, Mixture or GaussianMixture"
        )
    return [int(count) for count in counts]


@dataclass(frozen=True)
class _Units:
    """What is drawn independently, and so held out as a whole: rows, or sequences.

    Attributes
    ----------
    whole : dict
        The arguments of ``fit``.
    parts : table, or list of sequences
    steps : (n,)
        Of each unit; 1 of rows.
    name : str
    """

    whole: Mapping[str, Any]
    parts: Any
    steps: Array
    name: str

    @classmethod
    def of(cls, model: Any, X: Any, lengths: Any) -> "_Units":
        if isinstance(model, SequenceModel):
            table, arrangement = arrange(X, lengths, "compare_components")
            table = with_categories(table) if is_frame(table) else table
            ends = np.cumsum(arrangement.lengths)
            spans = zip(ends - arrangement.lengths, ends, strict=True)
            parts = [_safe_indexing(table, slice(int(begin), int(end))) for begin, end in spans]
            whole = {"X": table, "lengths": arrangement.lengths}
            return cls(whole, parts, arrangement.lengths, "sequences")
        if lengths is not None:
            raise ValueError(
                f"compare_components: lengths is of sequences, but {type(model).__name__} is a "
                "model of rows; leave it out"
            )
        X = with_categories(X) if is_frame(X) else X
        n = X.shape[0] if hasattr(X, "shape") else len(X)
        return cls({"X": X}, X, np.ones(n, dtype=np.intp), "rows")

    def __getitem__(self, chosen: Array) -> Any:
        return _safe_indexing(self.parts, chosen)

    def folds(self, cv: Any, random_state: Any) -> list[tuple[Array, Array]]:
        """Numbers of the units to fit and to hold out, fold by fold."""
        n = len(self.steps)
        if isinstance(cv, int | np.integer):
            if not 2 <= cv <= n:
                raise ValueError(
                    f"compare_components: cv={cv} folds of {n} {self.name}; expected from 2 folds "
                    f"to as many as there are {self.name}"
                    + ("; choose by BIC, or use leave_future_out" if n == 1 else "")
                )
            cv = KFold(cv, shuffle=True, random_state=copy.deepcopy(random_state))
        return list(check_cv(cv).split(np.zeros(n)))

    def per_step(self, density: Array) -> tuple[float, float]:
        """Mean over steps of log densities of units (n,), and its standard error; NaN: unknown."""
        known = ~np.isnan(density)
        density, steps = density[known], self.steps[known]
        n = len(density)
        if n == 0 or np.isinf(density).any():
            return (float(density.sum()) if n else np.nan), np.nan
        mean = density.sum() / steps.sum()
        spread = ((density - mean * steps) ** 2).sum() * n / max(n - 1, 1)
        return float(mean), float(np.sqrt(spread) / steps.sum()) if n > 1 else np.nan


def _compared(
    model: Any, data: _Units, folds: list[tuple[Array, Array]], is_point: bool
) -> tuple[dict[str, Any], Array]:
    """Say how good a candidate is: its row of the table, and held-out log densities (n,)."""
    density = np.full(len(data.steps), np.nan)
    row: dict[str, Any] = dict.fromkeys(["log_likelihood", "aic", "bic"], np.nan)
    row |= {"n_free": None, "converged": None, "failure": ""}
    fresh = clone(model)  # folds are not to start from what all the data say
    try:
        model.fit(**data.whole)
        row["log_likelihood"] = float(model.log_prob(**data.whole).sum())
        row["n_free"] = model.n_free_parameters()
        if is_point:
            row |= {"aic": model.aic(**data.whole), "bic": model.bic(**data.whole)}
            row["converged"] = model.converged_
        for train, test in folds:
            density[test] = clone(fresh).fit(data[train]).log_prob(data[test])
    except FAILURES as error:
        row["failure"] = str(error)
        density[:] = np.nan
    if folds:
        row["held_out"], row["held_out_se"] = data.per_step(density)
    return row, density
