"""Evidence in names to evidence in codes; what has been looked up is kept."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.models.bayesian_network.reading import WHO, code_of, place_of
from ppl_gen.structures.bayesian_network.network import Network

if TYPE_CHECKING:
    import pandas as pd

Array = Any
Evidence = Mapping[Any, Any]
SoftEvidence = Mapping[Any, Mapping[Any, float] | Sequence[float]]

#: Plans and indices that are kept.
MAX_PLANS = 4096


class Naming:
    """The names of a network's nodes and states, as places and codes."""

    structure_: Network
    #: What questions have in common, by what they ask; emptied when the parameters change.
    _plans: dict[Any, Any]

    def _targets(self, nodes: Any) -> tuple[int, ...]:
        """Places of the nodes that are asked for."""
        names = listed(nodes)
        try:
            found = self._plans.get(("targets", *names))
        except TypeError:  # a name that cannot be hashed is no node's
            found = None
        if found is None:
            found = tuple(place_of(self.structure_, name) for name in names)
            if not found or len(set(found)) < len(found):
                raise ValueError(f"{WHO}: nodes is {names}; expected at least one, each once")
            self._remember(("targets", *names), found)
        return found

    def _codes(self, evidence: Evidence | None) -> tuple[dict[int, int], dict[int, float]]:
        """Codes of discrete evidence, and numbers, by place."""
        network, lookup = self.structure_, self._plans.get("lookup")
        if lookup is None:
            lookup = {
                name: (v, None if states is None else {s: c for c, s in enumerate(states)})
                for v, (name, states) in enumerate(zip(network.names, network.states, strict=True))
            }
            self._plans["lookup"] = lookup
        codes: dict[int, int] = {}
        numbers: dict[int, float] = {}
        for name, state in items_of(evidence, "evidence"):
            try:
                v, own = lookup[name]
                if own is None:
                    numbers[v] = float(state)
                else:
                    codes[v] = own[state]
            except (KeyError, TypeError, ValueError):
                v = place_of(network, name)
                if network.sizes[v]:
                    codes[v] = code_of(network, name, state)[1]
                    continue
                numbers[v] = np.nan
            if v in numbers and not np.isfinite(numbers[v]):
                raise ValueError(f"{WHO}: the evidence on {name!r} is {state!r}; expected a number")
        return codes, numbers

    def _likelihoods(self, soft_evidence: SoftEvidence | None) -> dict[int, Array]:
        likelihoods = {}
        for name, given in items_of(soft_evidence, "soft_evidence"):
            v = place_of(self.structure_, name)
            states = self.structure_.states[v]
            if states is None:
                raise ValueError(
                    f"{WHO}: soft evidence on {name!r}, which is a number; it is for states"
                )
            if isinstance(given, Mapping):
                for state in given:
                    code_of(self.structure_, name, state)
                missing = [state for state in states if state not in given]
                if missing:
                    raise ValueError(
                        f"{WHO}: soft evidence on {name!r} lacks its states {missing}; give the "
                        "likelihood of each"
                    )
                given = [given[state] for state in states]
            try:
                likelihood = np.asarray(given, dtype=np.float64)
            except (TypeError, ValueError):  # no numbers
                likelihood = np.empty(0)
            good = likelihood.shape == (len(states),) and np.isfinite(likelihood).all()
            if not good or (likelihood < 0.0).any() or not likelihood.any():
                raise ValueError(
                    f"{WHO}: soft evidence on {name!r} is {given}; expected {len(states)} "
                    "likelihoods, at least 0 and not all 0"
                )
            likelihoods[v] = likelihood
        return likelihoods

    def _index(self, targets: tuple[int, ...]) -> "pd.Index[Any]":
        """Index of the joint states of nodes, made once."""
        index = self._plans.get(("index", targets))
        if index is None:
            import pandas as pd

            network = self.structure_
            names = [network.names[v] for v in targets]
            states = [list(network.states[v] or ()) for v in targets]
            if len(targets) == 1:
                index = pd.Index(states[0], name=names[0], tupleize_cols=False)
            else:
                index = pd.MultiIndex.from_product(states, names=names)
            self._remember(("index", targets), index)
        return index

    def _remember(self, key: Any, value: Any) -> None:
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[key] = value


def listed(names: Any) -> list[Any]:
    """Return names as a list: one name, or several in anything that goes over them."""
    if isinstance(names, str | bytes):
        return [names]
    if hasattr(names, "tolist"):
        names = names.tolist()
    return list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [names]


def items_of(given: Any, what: str) -> Iterable[tuple[Any, Any]]:
    """Return the nodes that something is said of, each with what is said."""
    if given is None:
        return ()
    if not hasattr(given, "items"):
        raise TypeError(
            f"{WHO}: {what} is a {type(given).__name__}; expected a dict from node to "
            + ("the likelihoods of its states" if what == "soft_evidence" else "state")
        )
    items: Iterable[tuple[Any, Any]] = given.items()
    return items
