"""One question to a discrete network, planned once and asked many times."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppl_gen.algorithms.networks.d_separation import ancestors, requisite
from ppl_gen.algorithms.networks.elimination import Elimination
from ppl_gen.algorithms.networks.elimination_orders import elimination_cost, elimination_order
from ppl_gen.algorithms.networks.factors import restrict
from ppl_gen.structures.bayesian_network.conditionals import Tabular
from ppl_gen.structures.bayesian_network.network import Network

Array = Any


#: Cells that the plan of a whole network may take, to be run where a smaller one has to be made.
SMALL = 2**16


class WholePlan:
    """What p(targets, evidence) takes of a whole network, whatever the evidence.

    It takes longer to run than a `QueryPlan`, and less than to make one.

    Parameters
    ----------
    network : Network
    targets : tuple of int

    Attributes
    ----------
    small : bool
        Whether it is one that is worth running.
    """

    def __init__(self, network: Network, targets: tuple[int, ...]) -> None:
        self.parents, self.targets = network.parents, targets
        self.small = all(isinstance(c, Tabular) for c in network.conditionals)
        self.scopes = [(*parents, v) for v, parents in enumerate(network.parents)]
        order = elimination_order(self.scopes, network.sizes, targets) if self.small else []
        cost = elimination_cost(self.scopes, network.sizes, order)
        self.small = self.small and cost.total <= SMALL and cost.largest <= network.max_cells
        if self.small:
            self.elimination = Elimination(self.scopes, network.sizes, targets, order=order)

    def run(
        self,
        tables: Mapping[str, Array],
        rounded: Mapping[str, Array],
        codes: Mapping[int, int],
    ) -> Array:
        """Return the table over the targets, jointly with the evidence; draws lead.

        Parameters
        ----------
        tables, rounded : dict of arrays
            The tables, and the same with sums of one to the last digit, which files of few digits
            have not: nodes below all that is asked for and seen sum to one.
        codes : dict of int
            Of the evidence.
        """
        above = ancestors(self.parents, (*self.targets, *codes))
        given = [(tables if v in above else rounded)[str(v)] for v in range(len(self.scopes))]
        return np.asarray(self.elimination.run(restrict(self.scopes, given, codes)))


class QueryPlan:
    """What p(targets, evidence) takes: the tables that matter, their cuts, and their contraction.

    Parameters
    ----------
    network : Network
    targets : tuple of int
        Without evidence on any of them.
    evidence : tuple of int
        Observed nodes.
    soft : tuple of int
        Nodes with a likelihood of their states; a target may have one.
    whole : bool
        Keep all that the evidence depends on, so that the result is its joint probability with the
        targets. Otherwise what the evidence separates from the targets is left out, and the result
        is proportional to the conditional one.

    Raises
    ------
    ValueError
        If the largest table is past the network's bound.
    """

    def __init__(
        self,
        network: Network,
        targets: tuple[int, ...],
        evidence: tuple[int, ...],
        soft: tuple[int, ...] = (),
        whole: bool = False,
    ) -> None:
        parents = network.parents
        above = ancestors(parents, (*targets, *evidence, *soft))
        if whole:
            needed = sorted(above)
        else:
            # A likelihood is a child of its node that is observed.
            extended = (*parents, *((v,) for v in soft))
            virtual = tuple(range(len(parents), len(extended)))
            found, _ = requisite(extended, targets, (*evidence, *virtual))
            needed = [v for v in found if v < len(parents)]
            kept = {v - len(parents) for v in found if v >= len(parents)}
            soft = tuple(v for place, v in enumerate(soft) if place in kept)
        self.soft = soft
        #: Nodes above the evidence that the targets do not depend on.
        self.left_out = sorted(above - set(needed))
        #: What tells whether the evidence there has any probability, where that is in doubt.
        self.guard: QueryPlan | None = None
        #: Whether tables are all that it takes.
        self.tabular = all(isinstance(network.conditionals[v], Tabular) for v in needed)
        seen = {v: place for place, v in enumerate(evidence)}
        scopes: list[tuple[int, ...]] = []
        self.cuts: list[tuple[str, tuple[Any, ...]]] = []
        for v in needed:
            scope = (*parents[v], v)
            scopes.append(tuple(u for u in scope if u not in seen))
            # Where the codes of the evidence go in the index of the table.
            index = tuple(seen.get(u) for u in scope)
            self.cuts.append((str(v), () if all(i is None for i in index) else index))
        scopes += [(v,) for v in soft]
        if self.tabular:
            self.elimination = Elimination(scopes, network.sizes, targets)
            network.refuse_past_bound(self.elimination.cost)

    def run(
        self, tables: Mapping[str, Array], codes: Sequence[int], likelihoods: Mapping[int, Array]
    ) -> Array:
        """Return the table over the targets, unnormalised; draws lead.

        Parameters
        ----------
        tables : dict of (*parent sizes, size) or (S, *parent sizes, size)
            By place of the node; all of one draw, or of S.
        codes : of the evidence, in its order
        likelihoods : dict of (size,)
        """
        cut: list[Array] = []
        for name, index in self.cuts:
            table = tables[name]
            if index:
                slices = tuple([slice(None) if i is None else codes[i] for i in index])
                table = table[slices if table.ndim == len(slices) else (slice(None), *slices)]
            cut.append(table)
        cut += [likelihoods[v] for v in self.soft]
        return np.asarray(self.elimination.run(cut))
