"""Causes: interventions, what separates nodes, what identifies effects, and how large these are."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.special import ndtri
from sklearn.utils.validation import check_is_fitted

from ppl_gen.algorithms.networks.adjustment import (
    back_door_sets,
    descendants,
    open_path,
    proper_back_door_graph,
)
from ppl_gen.algorithms.networks.d_separation import ancestors, d_separated
from ppl_gen.algorithms.networks.effects import Contrast
from ppl_gen.algorithms.networks.front_door import front_door_sets
from ppl_gen.algorithms.networks.identification import (
    Hedge,
    Term,
    adjustment_formula,
    front_door_formula,
    identify_effect,
    latent_projection,
)
from ppl_gen.data import is_frame, to_numpy
from ppl_gen.estimator import GenerativeModel
from ppl_gen.models.bayesian_network import reading
from ppl_gen.models.bayesian_network.building import as_graph, graph_of
from ppl_gen.models.bayesian_network.effects import (
    AverageEffect,
    Identification,
    contrast_of_rows,
    levels_of,
    means_under,
    number_of,
    worth_of,
)
from ppl_gen.models.bayesian_network.naming import items_of, listed
from ppl_gen.models.bayesian_network.reading import WHO, code_of, place_of
from ppl_gen.structures.bayesian_network.conditionals import LinearGaussian, Tabular
from ppl_gen.structures.bayesian_network.network import Network

Array = Any

#: Deviation of a number that was set, over the least that it had given its parents: its CPD and its
#: program state one. Nothing else uses it.
POINT = 1e-8
#: The same over its size, below which rounding would tell it from itself.
ROUNDING = 64.0 * float(np.finfo(np.float64).eps)


class Arrows(NamedTuple):
    """A graph in numbers.

    Attributes
    ----------
    names : tuple of V
    parents : tuple of V tuples of int
    """

    names: tuple[Any, ...]
    parents: tuple[tuple[int, ...], ...]


class CausalQueries(GenerativeModel):
    """Questions of cause and effect, which the graph answers where its arrows are causes."""

    structure_: Network

    @property
    def _arrows(self) -> Arrows:
        """The graph: that of the fit, or the one that is given, which needs none."""
        if hasattr(self, "structure_"):
            return Arrows(self.structure_.names, self.structure_.parents)
        if self.graph is None or isinstance(self.graph, str) or hasattr(self.graph, "learn_codes"):
            check_is_fitted(self)
        graph = as_graph(self.graph)
        place = {name: v for v, name in enumerate(graph)}
        parents = (tuple(place[p] for p in graph.predecessors(name)) for name in graph)
        return Arrows(tuple(graph), tuple(parents))

    # -- interventions -------------------------------------------------------------------------

    def do(self, assignments: Mapping[Any, Any]) -> Self:
        """Return the network in which some nodes are set, whatever their causes are.

        Parameters
        ----------
        assignments : dict of node to state (or number), or None
            None sets a node at random, each state alike, as in a trial.

        Returns
        -------
        BayesianNetwork
            Without the arrows into those nodes, which are certain; all else as it was, with all
            draws of its parameters. A number that is set is known: rows need not show it, those
            that show another have probability zero, and it adds nothing to a density. Its CPD
            states a deviation, 1e-8 of the one that it had given its parents, or 1e-14 of its size
            where that is more.

        Raises
        ------
        ValueError
            If a node or state is unknown, or a number is to be set at random.

        References
        ----------
        Pearl, J. (2009). Causality, 2nd edition, section 3.2.3: the truncated factorisation.

        Examples
        --------
        Whoever is made to have dyspnoea has lung cancer no more often; who has it, does.

        >>> from ppl_gen.datasets import load_asia
        >>> asia = load_asia()
        >>> round(float(asia.query("lung", {"dysp": "yes"})["yes"]), 3)
        0.103
        >>> round(float(asia.do({"dysp": "yes"}).query("lung")["yes"]), 3)
        0.055
        """
        check_is_fitted(self)
        network, n_draws = self.structure_, self._n_draws
        conditionals, parents = list(network.conditionals), list(network.parents)
        parameters = dict(self.parameters_)
        for name, value in items_of(assignments, "assignments"):
            v = place_of(network, name)
            parents[v] = ()
            if network.sizes[v]:
                size = network.sizes[v]
                point = np.full(size, 1.0 / size)
                if value is not None:
                    point = np.eye(size)[code_of(network, name, value)[1]]
                conditionals[v] = Tabular(v, (), (size,), fixed=point)
                parameters[str(v)] = {"table": np.tile(point, (n_draws, 1))}
            else:
                conditionals[v], own = _set_number(network, v, value, parameters[str(v)])
                parameters[str(v)] = {
                    key: np.tile(entry, (n_draws, *(1,) * np.ndim(entry)))
                    if np.ndim(entry)
                    else np.full(n_draws, entry)
                    for key, entry in own.items()
                }
        mutilated = dataclasses.replace(
            network, conditionals=tuple(conditionals), parents=tuple(parents), _trees={}
        )
        settings = self.get_params(deep=False) | {"graph": graph_of(mutilated), "cpds": None}
        made = type(self)(**settings)
        made.structure_, made.parameters_, made.schema_ = mutilated, parameters, self.schema_
        made._posterior = made._training = None
        made._publish()
        return made

    # -- what the graph says -------------------------------------------------------------------

    def d_separated(self, x: Any, y: Any, given: Any = ()) -> bool:
        """Tell whether the graph makes nodes independent, given others.

        Parameters
        ----------
        x, y, given : name or sequence of names

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> asia = load_asia()
        >>> asia.d_separated("asia", "smoke"), asia.d_separated("asia", "smoke", given="dysp")
        (True, False)
        """
        xs, ys, zs = (self._places(names) for names in (x, y, given))
        self._check_apart("d_separated", xs, ys, zs)
        return d_separated(self._arrows.parents, xs, ys, zs)

    def back_door_sets(
        self, x: Any, y: Any, observed: Collection[Any] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the minimal sets to adjust for, the smallest first.

        Parameters
        ----------
        x, y : name or sequence of names
            Treatments and outcomes.
        observed : collection of names, optional
            Nodes that may be used; by default those that the table which was fitted shows.

        Yields
        ------
        tuple of names

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> list(load_asia().back_door_sets("lung", "dysp"))
        [('bronc',), ('smoke',)]
        """
        xs, ys, seen = self._causal_places("back_door_sets", x, y, observed)
        for z in back_door_sets(self._arrows.parents, xs, ys, seen):
            yield self._names(z)

    def front_door_sets(
        self, x: Any, y: Any, observed: Collection[Any] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the minimal sets of the front-door criterion, the smallest first.

        Parameters
        ----------
        x, y : name or sequence of names
            Treatments and outcomes.
        observed : collection of names, optional
            Nodes that may be used; by default those that the table which was fitted shows.

        Yields
        ------
        tuple of names

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> list(load_asia().front_door_sets("smoke", "xray"))
        [('either',), ('lung',)]
        """
        xs, ys, seen = self._causal_places("front_door_sets", x, y, observed)
        for z in front_door_sets(self._arrows.parents, xs, ys, seen):
            yield self._names(z)

    def identify(self, x: Any, y: Any, observed: Collection[Any] | None = None) -> Identification:
        """Tell whether an effect can be had from what is observed, and how.

        Parameters
        ----------
        x, y : name or sequence of names
            Treatments and outcomes.
        observed : collection of names, optional
            Nodes that may be used; by default those that the table which was fitted shows.

        Returns
        -------
        Identification
            The back-door is tried first, then the front-door, then the algorithm of Tian and
            Pearl, which finds a formula wherever there is one.

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> asia = load_asia()
        >>> print(asia.identify("lung", "dysp"))
        P(dysp | do(lung)) = Σ_bronc P(dysp | lung, bronc) P(bronc)  [back-door by bronc]
        >>> print(asia.identify("either", "dysp", observed=[]).why)
        the path either <- lung <- smoke -> bronc -> dysp stays open: lung, smoke, bronc are not \
observed; hidden causes tie either, dysp together
        """
        xs, ys, seen = self._causal_places("identify", x, y, observed)
        parents, names = self._arrows.parents, self._arrows.names
        how, z, term, why = "no effect", frozenset[int](), None, ""
        if descendants(parents, xs).isdisjoint(ys):
            term = Term("probability", tuple(ys))
        elif (found := next(back_door_sets(parents, xs, ys, seen), None)) is not None:
            how, z = ("back-door" if found else "none needed"), found
            term = adjustment_formula(xs, ys, sorted(z))
        elif (found := next(front_door_sets(parents, xs, ys, seen), None)) is not None:
            how, z = "front-door", found
            term = front_door_formula(xs, ys, sorted(z))
        else:
            general = identify_effect(latent_projection(parents, {*seen, *xs, *ys}), xs, ys)
            how = "not identified" if isinstance(general, Hedge) else "formula"
            if isinstance(general, Hedge):
                why = self._why(xs, ys, seen, general)
            else:
                term = general
        return Identification(
            treatment=tuple(names[v] for v in xs),
            outcome=tuple(names[v] for v in ys),
            how=how,
            nodes=self._names(z),
            formula="" if term is None else term.text(names),
            why=why,
            term=term,
        )

    def _why(self, xs: list[int], ys: list[int], seen: set[int], hedge: Hedge) -> str:
        """Say which path stays open, and which nodes hidden causes tie."""
        parents = self._arrows.parents
        cut, forbidden = proper_back_door_graph(parents, xs, ys)
        usable = (ancestors(parents, [*xs, *ys]) & seen) - forbidden - {*xs, *ys}
        tied = f"hidden causes tie {', '.join(map(str, self._names(hedge.outer)))} together"
        path = open_path(cut, xs, ys, usable)
        assert path is not None  # without one, these nodes would be a set to adjust for
        shown = str(self._arrows.names[path[0]])
        for a, b in pairwise(path):
            shown += f" {'->' if a in parents[b] else '<-'} {self._arrows.names[b]}"
        unseen = [str(self._arrows.names[v]) for v in path[1:-1] if v not in seen]
        verb = "is" if len(unseen) == 1 else "are"
        blame = f": {', '.join(unseen)} {verb} not observed" if unseen else ""
        return f"the path {shown} stays open{blame}; {tied}"

    # -- effects -------------------------------------------------------------------------------

    def average_effect(
        self,
        treatment: Any,
        outcome: Any,
        values: tuple[Any, Any],
        *,
        outcome_state: Any = None,
        scores: Mapping[Any, float] | None = None,
        data: Any = None,
        observed: Collection[Any] | None = None,
        interval: float = 0.95,
    ) -> AverageEffect:
        """Return the difference that setting one node makes to the mean of another.

        Parameters
        ----------
        treatment, outcome : name
        values : tuple of two states (or numbers)
            The effect is that of the second against the first.
        outcome_state : state, optional
            The outcome is whether its node is in this state.
        scores : dict of state to number, optional
            What each state of the outcome is worth. States that are numbers need neither.
        data : table of (n, D), optional
            Complete rows, to estimate the effect from by what identifies it alone: of states, by
            standardisation or the formula of :meth:`identify`; of numbers, by linear regression.
            The rest of the network is then not used.
        observed : collection of names, optional
            Nodes that may be used; by default the columns of `data`, or those of the table that was
            fitted.
        interval : float
            Share of the interval: central of the posterior, after a Bayesian fit; or with `data`
            by the normal distribution of the estimate.

        Returns
        -------
        AverageEffect
            From the network alone after a point fit it has no interval.

        Raises
        ------
        ValueError
            If a name is unknown; if the effect is not identified, saying why; if a stratum of the
            data has no row of one of the two treatments.

        Examples
        --------
        >>> from ppl_gen.datasets import load_asia
        >>> asia = load_asia()
        >>> print(asia.average_effect("smoke", "dysp", ("no", "yes"), outcome_state="yes"))
        average effect of smoke = yes against no on dysp: 0.2337
        """
        who = f"{WHO}.average_effect"
        if not 0.0 < interval < 1.0:
            raise ValueError(f"{who}: interval is {interval}; expected a share within (0, 1)")
        if data is not None:
            data = to_numpy(data)
            if observed is None and is_frame(data):
                observed = [name for name in data.columns if name in self.structure_.names]
        (x,), (y,), _ = self._causal_places("average_effect", [treatment], [outcome], observed)
        network = self.structure_
        levels = levels_of(network, x, values)
        worth = worth_of(network, y, outcome_state, scores)
        identification = self.identify([treatment], [outcome], observed)
        if not identification:
            raise ValueError(f"{who}: {identification}; observe more, or randomise the treatment")
        lower = upper = np.nan
        if data is not None:
            rows = reading.encode(network, self.schema_, data)
            how, contrast = contrast_of_rows(
                network, rows, identification, x, y, values, levels, worth
            )
            half = ndtri(0.5 + 0.5 * interval) * contrast.standard_error
            lower, upper = contrast.effect - half, contrast.effect + half
        else:
            how, means = "network", means_under(self, x, y, values, worth)
            each = means[1] - means[0]
            deviation = np.nan
            if len(each) > 1:
                deviation = float(each.std(ddof=1))
                lower, upper = np.quantile(each, [0.5 - 0.5 * interval, 0.5 + 0.5 * interval])
            first, second = means.mean(axis=1)
            contrast = Contrast((float(first), float(second)), float(second - first), deviation)
        return AverageEffect(
            effect=contrast.effect,
            standard_error=contrast.standard_error,
            lower=float(lower),
            upper=float(upper),
            level=interval,
            means=contrast.means,
            treatment=treatment,
            outcome=outcome,
            values=(values[0], values[1]),
            how=how,
            identification=identification,
        )

    # -- names ---------------------------------------------------------------------------------

    def _places(self, names: Any) -> list[int]:
        return [place_of(self._arrows, name) for name in listed(names)]

    def _names(self, nodes: Collection[int]) -> tuple[Any, ...]:
        return tuple(self._arrows.names[v] for v in sorted(nodes))

    def _check_apart(self, who: str, *groups: list[int]) -> None:
        every = [v for group in groups for v in group]
        twice = [v for v in every if every.count(v) > 1]
        if twice:
            raise ValueError(
                f"{WHO}.{who}: {self._arrows.names[twice[0]]!r} is given twice; expected each "
                "node once"
            )

    def _causal_places(
        self, who: str, x: Any, y: Any, observed: Collection[Any] | None
    ) -> tuple[list[int], list[int], set[int]]:
        """Places of treatments, outcomes, and the nodes that may be used besides them."""
        xs, ys = self._places(x), self._places(y)
        if not xs or not ys:
            raise ValueError(f"{WHO}.{who}: expected a treatment and an outcome, got {x!r}, {y!r}")
        self._check_apart(who, xs, ys)
        columns = self.schema_.names if hasattr(self, "schema_") else self._arrows.names
        shown = columns if observed is None else listed(observed)
        seen = {place_of(self._arrows, name) for name in shown}
        hidden = set(xs + ys) - seen if observed is None else set()
        if hidden:
            raise ValueError(
                f"{WHO}.{who}: {list(self._names(hidden))} are hidden: no column shows them, so "
                "that their effects are not to be had; add observed= to ask of other data"
            )
        return xs, ys, seen


def _set_number(
    network: Network, v: int, value: Any, before: dict[str, Any]
) -> tuple[LinearGaussian, dict[str, Any]]:
    """Conditional and parameters of a number that is set, from those that it had before."""
    name = network.names[v]
    if value is None:
        raise ValueError(
            f"{WHO}.do: {name!r} is a number, which has no uniform distribution; give a value"
        )
    number = number_of(name, value)
    conditional = network.conditionals[v]
    assert isinstance(conditional, LinearGaussian)
    variance = float(np.min(before["variance"]))
    if conditional.fixed is None:  # else it was set before
        variance *= POINT**2
    variance = max(variance, (ROUNDING * number) ** 2)
    own = {"intercept": number, "coefficients": np.zeros(0), "variance": variance}
    made = LinearGaussian(
        v,
        (),
        (),
        (),
        np.array([number]),
        conditional.scale[-1:],
        fixed=np.array([number, own["variance"]]),
    )
    return made, own
