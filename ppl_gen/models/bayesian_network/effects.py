"""Effects: whether and how they are identified, and how large they are, by network or by rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl_gen.algorithms.networks.d_separation import ancestors
from ppl_gen.algorithms.networks.effects import (
    Contrast,
    formula_contrast,
    regression_contrast,
    standardised_contrast,
)
from ppl_gen.algorithms.networks.identification import Term
from ppl_gen.models.bayesian_network.reading import WHO, code_of, place_of
from ppl_gen.structures.bayesian_network.conditionals import LinearGaussian
from ppl_gen.structures.bayesian_network.network import Network

Array = Any

#: Draws of the posterior that an interval of a mean of numbers takes, at most.
MAX_DRAWS = 1000
ASKER = f"{WHO}.average_effect"


@dataclass(frozen=True)
class Identification:
    """Whether an effect can be had from what is observed, and how.

    Attributes
    ----------
    treatment, outcome : tuple of names
    how : str
        "no effect" where no directed path leads from the treatment to the outcome; "none needed"
        where what is observed is the effect; "back-door" or "front-door", with their `nodes`;
        "formula" by Tian and Pearl's algorithm; "not identified".
    nodes : tuple of names
        The set that is adjusted for, or the front-door set.
    formula : str
        The effect in terms of the distribution of what is observed.
    why : str
        Why it is not identified.
    """

    treatment: tuple[Any, ...]
    outcome: tuple[Any, ...]
    how: str
    nodes: tuple[Any, ...] = ()
    formula: str = ""
    why: str = ""
    term: Term | None = field(default=None, repr=False, compare=False)

    @property
    def identified(self) -> bool:
        """Whether it is."""
        return self.term is not None

    def __bool__(self) -> bool:
        return self.identified

    def __str__(self) -> str:
        effect = f"P({_listed(self.outcome)} | do({_listed(self.treatment)}))"
        if not self.identified:
            return f"{effect} is not identified: {self.why}"
        nodes = f" by {_listed(self.nodes)}" if self.nodes else ""
        return f"{effect} = {self.formula}  [{self.how}{nodes}]"


@dataclass(frozen=True)
class AverageEffect:
    """An average causal effect: the difference of the outcome's mean under two treatments.

    Attributes
    ----------
    effect : float
        In the unit of the outcome, or of its scores; of a state, a difference of probabilities.
    standard_error : float
        Deviation over the posterior, or standard error over the rows; NaN without either.
    lower, upper : float
        Bounds of the interval; NaN without.
    level : float
        The share that the interval is meant to hold.
    means : tuple of two floats
        Mean of the outcome under each treatment.
    treatment, outcome : name
    values : tuple
        The two treatments: the effect is that of the second against the first.
    how : str
        "network" for exact inference in the mutilated networks, "standardisation", "formula" or
        "regression" for estimates from rows.
    identification : Identification
    """

    effect: float
    standard_error: float
    lower: float
    upper: float
    level: float
    means: tuple[float, float]
    treatment: Any
    outcome: Any
    values: tuple[Any, Any]
    how: str
    identification: Identification

    def __float__(self) -> float:
        return self.effect

    def __str__(self) -> str:
        text = (
            f"average effect of {self.treatment} = {self.values[1]} against {self.values[0]} "
            f"on {self.outcome}: {self.effect:.4g}"
        )
        if math.isnan(self.lower):
            return text
        return f"{text} ({100 * self.level:.4g}% interval {self.lower:.4g} to {self.upper:.4g})"


def _listed(names: tuple[Any, ...]) -> str:
    return ", ".join(map(str, names))


def levels_of(network: Network, x: int, values: Any) -> tuple[float, float]:
    """Codes of two states of the treatment, or two numbers."""
    name = network.names[x]
    if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != 2:
        raise ValueError(
            f"{ASKER}: values is {values!r}; expected two of {name!r}, (control, treated)"
            + (f", of its states {list(network.states[x] or ())}" if network.sizes[x] else "")
        )
    if network.sizes[x]:
        levels = tuple(float(code_of(network, name, value)[1]) for value in values)
    else:
        levels = tuple(number_of(name, value) for value in values)
    if levels[0] == levels[1]:
        raise ValueError(f"{ASKER}: values is {values!r}; expected two that differ")
    return levels[0], levels[1]


def worth_of(
    network: Network, y: int, state: Any, scores: Mapping[Any, float] | None
) -> Array | None:
    """What each state of the outcome is worth; None of a number."""
    name, states = network.names[y], network.states[y]
    if state is not None and scores is not None:
        raise ValueError(f"{ASKER}: outcome_state and scores are both given; leave one out")
    if states is None:
        if state is not None or scores is not None:
            raise ValueError(
                f"{ASKER}: {name!r} is a number, whose mean is meant; leave outcome_state and "
                "scores out"
            )
        return None
    if state is not None:
        return np.eye(len(states))[code_of(network, name, state)[1]]
    if scores is None:
        if not all(isinstance(own, int | float | np.number) for own in states):
            raise ValueError(
                f"{ASKER}: the states of {name!r} are {list(states)}, which have no mean; give "
                "outcome_state, the one whose probability is meant, or scores of each"
            )
        return np.array(states, dtype=np.float64)
    for own in scores:
        code_of(network, name, own)
    missing = [own for own in states if own not in scores]
    if missing:
        raise ValueError(f"{ASKER}: scores lacks the states {missing} of {name!r}; score each")
    return np.array([number_of(name, scores[own]) for own in states])


def means_under(model: Any, x: int, y: int, values: Any, worth: Array | None) -> Array:
    """Mean of the outcome under each of two treatments, by draw: (2, S)."""
    names = model.structure_.names
    name, found = names[x], []
    for value in values:
        mutilated = model.do({name: value})
        own, row = mutilated.structure_, mutilated._row({}, {})
        own.check(
            row,
            (y,),
            f"compare do({{{name!r}: {value!r}}}).query({names[y]!r}, "
            "method='likelihood_weighting') with that of the other value",
        )
        if worth is not None:
            joint = mutilated._joint((y,), {}, {}, {})
            found.append(joint @ worth / joint.sum(axis=1))
            continue
        if not any(own.sizes[v] for v in ancestors(own.parents, [y])):
            found.append(_linear_means(own, mutilated.parameters_, y))
            continue
        draws = np.linspace(0, model._n_draws - 1, min(model._n_draws, MAX_DRAWS)).astype(int)
        parts = [own.evidence(mutilated._draw(int(s)), row, {})[0][1] for s in draws]
        found.append(np.array([part.moments((y,))[0][0] for part in parts]))
    return np.array(found)


def _linear_means(network: Network, parameters: dict[str, Any], y: int) -> Array:
    """Mean of a number all of whose ancestors are numbers, by draw: (S,)."""
    above, means = ancestors(network.parents, [y]), dict[int, Array]()
    for v in network.order:
        if v in above:
            conditional, own = network.conditionals[v], parameters[str(v)]
            assert isinstance(conditional, LinearGaussian)
            regressors = [means[p] for p in conditional.regressors]
            means[v] = own["intercept"] + sum(
                coefficient * mean
                for coefficient, mean in zip(own["coefficients"].T, regressors, strict=True)
            )
    return means[y]


def contrast_of_rows(
    network: Network,
    rows: Array,
    identification: Identification,
    x: int,
    y: int,
    values: Any,
    levels: tuple[float, float],
    worth: Array | None,
) -> tuple[str, Contrast]:
    """Estimate from rows, by what identifies the effect."""
    term = identification.term
    assert term is not None
    needed = sorted(term.mentioned() | {x, y})
    if not len(rows):
        raise ValueError(f"{ASKER}: data has no row")
    gaps = np.isnan(rows[:, needed])
    if gaps.any():
        v = needed[int(gaps.any(axis=0).argmax())]
        raise ValueError(
            f"{ASKER}: {network.names[v]!r} is missing in {gaps.any(axis=1).sum()} rows of data; "
            "expected complete ones; impute them, or fit the network and leave data out"
        )
    numbers = [v for v in needed if not network.sizes[v]]
    z = [place_of(network, name) for name in identification.nodes]
    adjusts = identification.how in ("back-door", "none needed")
    outcome = rows[:, y] if worth is None else worth[rows[:, y].astype(int)]
    if identification.how == "no effect":
        mean = float(outcome.mean())
        return "network", Contrast((mean, mean), 0.0, 0.0)
    if adjusts and not set(numbers) - {y}:
        codes = rows[:, x]
        treated = np.where(codes == levels[0], 0, np.where(codes == levels[1], 1, -1))
        seen, strata = np.unique(rows[:, z], axis=0, return_inverse=True)
        strata = strata.reshape(-1)
        _refuse_empty(network, x, values, z, seen, strata, treated)
        return "standardisation", standardised_contrast(outcome, treated, strata, len(seen))
    if adjusts and len(numbers) == len(needed):
        return "regression", regression_contrast(outcome, rows[:, x], rows[:, z], levels)
    if numbers:
        raise ValueError(
            f"{ASKER}: {[network.names[v] for v in numbers]} are numbers, beside states or in "
            f"the formula {identification.formula}, which data alone give no estimate of; "
            "leave data out, after a fit by 'conjugate' for an interval"
        )
    sizes = tuple(network.sizes[v] for v in needed)
    if math.prod(sizes) > network.max_cells:
        raise ValueError(
            f"{ASKER}: the formula {identification.formula} takes a table of "
            f"{math.prod(sizes):,} cells, past the bound max_cells={network.max_cells:,}; leave "
            "data out, or raise max_cells"
        )
    cells = np.ravel_multi_index(tuple(rows[:, needed].T.astype(int)), sizes)
    counts = np.bincount(cells, minlength=math.prod(sizes)).reshape(sizes).astype(np.float64)
    assert worth is not None  # the outcome has states, as all nodes here
    pick = [np.eye(network.sizes[x])[int(level)] for level in levels]
    axes = {v: axis for axis, v in enumerate(needed)}
    contrast = formula_contrast(term, counts, axes, {x: pick, y: [worth, worth]})
    if np.isnan(contrast.effect):
        raise ValueError(
            f"{ASKER}: no row of data is in some states that the formula {identification.formula} "
            "asks about; more rows are needed, or leave data out, after a fit with a prior"
        )
    return "formula", contrast


def _refuse_empty(
    network: Network, x: int, values: Any, z: list[int], seen: Array, strata: Array, treated: Array
) -> None:
    """Raise ValueError for a stratum without rows of one of the treatments."""
    for level, value in enumerate(values):
        empty = np.bincount(strata[treated == level], minlength=len(seen)) == 0
        if empty.any():
            codes = seen[int(empty.argmax())].astype(int)
            where = [
                f"{network.names[v]}={(network.states[v] or ())[code]}"
                for v, code in zip(z, codes, strict=True)
            ]
            raise ValueError(
                f"{ASKER}: no row of data has {network.names[x]}={value}"
                + (f" with {', '.join(where)}" if where else "")
                + ", so that the effect there is not to be had from them; leave data out, "
                "after a fit with a prior, or compare other values"
            )


def number_of(name: Any, value: Any) -> float:
    """Return a number that a node is set to, or a state is worth.

    Raises
    ------
    ValueError
        If it is none, or not finite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise ValueError(f"{WHO}: {name!r} is set to {value!r}; expected a finite number")
    return number
