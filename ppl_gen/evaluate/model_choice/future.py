"""Leave-future-out: models of one series, by forecasts of its steps from those before."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ppl_gen.algorithms.pareto_smoothing import smoothed_log_weights
from ppl_gen.data import is_frame, with_categories
from ppl_gen.sequence_estimator import SequenceModel
from ppl_gen.sequences import arrange

__all__ = ["LeaveFutureOut", "leave_future_out"]

Array = Any

#: Pareto k over which importance weights are not trusted, and the model is fitted again.
MAX_K = 0.7
#: Draws from which the tail of the weights can be told.
MIN_DRAWS = 25
#: Beginnings of a series whose densities are found at once.
BLOCK = 32


@dataclass(frozen=True, eq=False, repr=False)
class LeaveFutureOut:
    """How well a model forecasts a series, each time from the steps before.

    Attributes
    ----------
    elpd : float
        Expected log predictive density: the sum of `pointwise`, in nats; the higher the better.
    se : float
        Its standard error, ``sqrt(n) sd(pointwise)``. It takes forecasts for independent, so it is
        too small where windows overlap (``horizon > step``).
    pointwise : (n,)
        Log density of the next `horizon` steps given all steps before, of each forecast. Compare
        two models by the sum of their differences, and ``sqrt(n) sd`` of those.
    origins : (n,)
        Number of steps before each forecast.
    refits : (m,)
        Number of steps in each fit.
    pareto_k : (n,)
        Of the weights that draws of the last fit have at each origin; NaN where the draws were
        not reweighted.
    horizon : int
    """

    elpd: float
    se: float
    pointwise: Array
    origins: Array
    refits: Array
    pareto_k: Array
    horizon: int

    def __repr__(self) -> str:
        steps = "step" if self.horizon == 1 else f"{self.horizon} steps"
        fits = f"{len(self.refits)} fit{'s' * (len(self.refits) > 1)}"
        weighed = self.pareto_k[~np.isnan(self.pareto_k)]
        if len(weighed):
            fits += f", {len(weighed)} reweighted with Pareto k up to {weighed.max():.2f}"
        return (
            f"<LeaveFutureOut: elpd {self.elpd:.1f} nats (se {self.se:.1f}), {len(self.origins)} "
            f"forecasts of the next {steps} from {self.origins[0]} to {self.origins[-1]} steps; "
            f"{fits}>"
        )


def leave_future_out(
    model: SequenceModel,
    X: Any,
    *,
    first: int,
    horizon: int = 1,
    step: int = 1,
    refit: int | None = None,
    method: str = "exact",
) -> LeaveFutureOut:
    r"""Cross-validate a model of one series by forecasts, each from the steps before it.

    After t steps the forecast is scored by the log predictive density of what came,
    :math:`\log p(x_{t+1}, \dots, x_{t+h} \mid x_1, \dots, x_t)`, averaged over the draws of the
    parameters given the same t steps. Leaving out single steps instead would let the future tell
    of the past.

    Parameters
    ----------
    model : SequenceModel
        It is left as it is: copies are fitted. Parameters that are held stay.
    X : series
        One sequence, as the model takes it.
    first : int
        Steps before the first forecast.
    horizon : int
        h, the steps forecast.
    step : int
        Steps between forecasts; with ``step=horizon``, every step is forecast once.
    refit : int or None
        Fit again at every so many forecasts. In between, the parameters of the last fit forecast
        from all the steps so far. None is 1 of "exact", and as the weights tell of "psis".
    method : {"exact", "psis"}
        "psis", after a Bayesian fit, spares most fits: it gives the draws of the last one the
        weights :math:`p(x_{s+1}, \dots, x_t \mid x_1, \dots, x_s, \theta)` of the steps since,
        Pareto-smoothed, and fits again where their k is over 0.7 (Burkner, Gabry & Vehtari
        2020, section 2).

    Returns
    -------
    LeaveFutureOut

    Raises
    ------
    TypeError
        If the model is not one of sequences.
    ValueError
        If there are several series, the windows do not fit, or "psis" is asked of a fit without
        draws.

    Notes
    -----
    EM starts each fit but the first from the last one, where the model has `warm_start`. Densities
    of the beginnings of the series are found anew for every origin, so that the work grows with
    the square of the number of steps.

    References
    ----------
    Burkner, Gabry & Vehtari (2020), Approximate leave-future-out cross-validation for Bayesian
    time series models, Journal of Statistical Computation and Simulation 90, 2499-2523.

    Examples
    --------
    >>> from ppl_gen import HiddenMarkovModel
    >>> from ppl_gen.datasets import load_earthquakes
    >>> from ppl_gen.evaluate.model_choice import leave_future_out
    >>> counts = load_earthquakes().frame[["count"]]
    >>> for states in (1, 2):
    ...     model = HiddenMarkovModel(states, emission="poisson", random_state=0)
    ...     print(round(leave_future_out(model, counts, first=60, refit=10).elpd))
    -171
    -147
    """
    if not isinstance(model, SequenceModel):
        raise TypeError(
            f"leave_future_out: model is a {type(model).__name__}; expected a model of sequences, "
            "such as HiddenMarkovModel; cross-validate models of rows by cross_val_score"
        )
    if method not in ("exact", "psis"):
        raise ValueError(f"leave_future_out: method is {method!r}; expected 'exact' or 'psis'")
    series = _one_series(X)
    n_steps = len(series)
    for name, value in (("first", first), ("horizon", horizon), ("step", step), ("refit", refit)):
        if value is None and name == "refit":
            continue
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"leave_future_out: {name} is {value!r}; expected a whole number, at least 1"
            )
    if first + horizon > n_steps:
        raise ValueError(
            f"leave_future_out: first={first} and horizon={horizon} want {first + horizon} steps "
            f"or more, but the series has {n_steps}; lower one of them"
        )
    origins = np.arange(first, n_steps - horizon + 1, step)
    every = int(refit) if refit is not None else (1 if method == "exact" else len(origins))
    forecaster = _Forecaster(model, series, origins, int(horizon), every)
    for place in tqdm(range(len(origins)), desc="leave future out", delay=1.0):
        forecaster.forecast(place, reweight=method == "psis")
    return forecaster.result()


class _Forecaster:
    """Forecasts from one origin after another, and the model as it was last fitted."""

    def __init__(
        self, model: SequenceModel, series: Any, origins: Array, horizon: int, every: int
    ) -> None:
        # A copy, not a clone, which would lose attributes that are set as parameters.
        self.model = copy.deepcopy(model)
        if "warm_start" in self.model.get_params():
            self.model.set_params(warm_start=False)  # nothing is to come from another fit
        if hasattr(self.model, "with_states_of"):
            self.model = self.model.with_states_of(series)
        self.series, self.origins, self.horizon, self.every = series, origins, horizon, every
        self.fitted_at = -every  # place among the origins
        self.densities: dict[int, Array] = {}
        self.pointwise = np.empty(len(origins))
        self.pareto_k = np.full(len(origins), np.nan)
        self.refits: list[int] = []

    def forecast(self, place: int, *, reweight: bool) -> None:
        origin = int(self.origins[place])
        weights, k = None, np.nan
        due = place - self.fitted_at >= self.every
        if reweight and not due:
            weights, k = self.reweighted(origin, place)
            due = k > MAX_K
        if due:
            self.fit(place, reweight=reweight)
            weights, k = None, np.nan
        before, after = self.density(origin, place), self.density(origin + self.horizon, place)
        # What follows the impossible has no density; the forecast has failed all the same.
        ahead = np.full(len(before), -np.inf)
        np.subtract(after, before, out=ahead, where=before > -np.inf)
        if weights is None:
            weights = np.full(len(before), -np.log(len(before)))
        self.pointwise[place] = np.logaddexp.reduce(weights + ahead)
        self.pareto_k[place] = k

    def reweighted(self, origin: int, place: int) -> tuple[Array, float]:
        """Log weights of the draws by the steps since the fit, smoothed, and their k."""
        since = self.density(origin, place) - self.density(self.refits[-1], place)
        if since.max() == -np.inf:  # no draw foresaw what came
            return since, np.inf
        return smoothed_log_weights(since)

    def fit(self, place: int, *, reweight: bool) -> None:
        origin = int(self.origins[place])
        self.model.fit(_rows(self.series, 0, origin))
        if "warm_start" in self.model.get_params():
            self.model.set_params(warm_start=True)
        self.fitted_at = place
        self.refits.append(origin)
        self.densities.clear()
        if reweight and (n_draws := len(self.density(origin, place))) < MIN_DRAWS:
            raise ValueError(
                f"leave_future_out: method='psis' reweights draws from a posterior, but the fit "
                f"has {n_draws}; fit by NUTS, SVI or another Bayesian "
                f"method with {MIN_DRAWS} draws or more, or use method='exact'"
            )

    def density(self, n_steps: int, place: int) -> Array:
        """Log density of the first steps under each draw of the last fit: (S,).

        Beginnings that will be asked for until the next fit are scored along with it.
        """
        if n_steps not in self.densities:
            stop = min(place + BLOCK, self.fitted_at + self.every)
            ahead = self.origins[place:stop]
            wanted = np.unique([n_steps, *ahead, *(ahead + self.horizon)])
            fresh = [int(t) for t in wanted if int(t) not in self.densities]
            by_draw = self.model.log_prob_by_draw([_rows(self.series, 0, t) for t in fresh])
            self.densities.update(zip(fresh, by_draw.T, strict=True))
        return self.densities[n_steps]

    def result(self) -> LeaveFutureOut:
        n = len(self.pointwise)
        finite = np.isfinite(self.pointwise).all()
        return LeaveFutureOut(
            elpd=float(self.pointwise.sum()),
            se=float(np.sqrt(n) * self.pointwise.std(ddof=1)) if finite and n > 1 else np.nan,
            pointwise=self.pointwise,
            origins=self.origins,
            refits=np.array(self.refits),
            pareto_k=self.pareto_k,
            horizon=self.horizon,
        )


def _one_series(X: Any) -> Any:
    """Return the one sequence that X has, so that rows can be taken of it."""
    texts = isinstance(X, list | tuple) and len(X) > 0 and all(isinstance(x, str) for x in X)
    count = 1
    if isinstance(X, str):
        return X
    if texts:
        series, count = X[0], len(X)
    else:
        series, arrangement = arrange(X, None, "leave_future_out")
        count = len(arrangement.lengths)
    if count > 1:
        raise ValueError(
            f"leave_future_out: X has {count} sequences; expected one series. Several are "
            "independent: leave out whole sequences instead, by cross_val_score or "
            "compare_components(..., cv=5), or by posterior_.loo() after a Bayesian fit"
        )
    return with_categories(series) if is_frame(series) else series


def _rows(table: Any, begin: int, end: int) -> Any:
    """Take consecutive rows of a table, or characters of a text."""
    return table.iloc[begin:end] if hasattr(table, "iloc") else table[begin:end]
