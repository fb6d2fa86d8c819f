r"""Causal effects from what is observed of a graph with hidden nodes, or why they cannot be had.

A directed acyclic graph of V nodes is given as `parents`, the numbers of each node's parents. Its
latent projection onto the observed nodes has an arrow where a directed path runs through hidden
nodes only, and joins two nodes, as siblings, that a hidden common cause ties. The algorithm of Tian
and Pearl then finds :math:`p(y \mid do(x))` as a formula of the distribution of the observed
nodes, or a hedge, which shows that there is no such formula: it is sound and complete.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.algorithms.networks.scan import topological_order

__all__ = [
    "Hedge",
    "MixedGraph",
    "Term",
    "adjustment_formula",
    "evaluate",
    "front_door_formula",
    "identify_effect",
    "latent_projection",
]

Array = NDArray[np.float64]
Parents = Sequence[Sequence[int]]
Nodes = frozenset[int]


@dataclass(frozen=True)
class MixedGraph:
    """Observed nodes with their arrows, and the siblings that hidden causes tie them to.

    Parameters
    ----------
    parents : dict of node to set of nodes
        In an order in which parents come before their children.
    siblings : dict of node to set of nodes
    """

    parents: Mapping[int, Nodes]
    siblings: Mapping[int, Nodes]

    def within(self, nodes: Collection[int]) -> MixedGraph:
        """Return the part of the graph that some nodes make."""
        kept = frozenset(nodes)
        return MixedGraph(
            {v: above & kept for v, above in self.parents.items() if v in kept},
            {v: tied & kept for v, tied in self.siblings.items() if v in kept},
        )

    def ancestors(self, nodes: Collection[int]) -> Nodes:
        """Return nodes with all that lead to them."""
        return _closure(self.parents, nodes)

    def components(self) -> list[Nodes]:
        """Return the confounded components: the nodes that paths of siblings join."""
        left, found = dict.fromkeys(self.parents), []
        while left:
            component = _closure(self.siblings, [next(iter(left))])
            found.append(component)
            for v in component:
                del left[v]
        return found


def _closure(links: Mapping[int, Nodes], nodes: Collection[int]) -> Nodes:
    found, stack = set(nodes), list(nodes)
    while stack:
        new = links[stack.pop()] - found
        found |= new
        stack += new
    return frozenset(found)


def latent_projection(parents: Parents, observed: Collection[int]) -> MixedGraph:
    """Return the graph of the observed nodes that a graph with hidden ones amounts to.

    References
    ----------
    Verma, T. (1993). Graphical aspects of causal models. Technical report R-191, UCLA.

    Examples
    --------
    >>> graph = latent_projection([(), (0,), (0, 1)], observed=[1, 2])
    >>> dict(graph.parents), dict(graph.siblings)
    ({1: frozenset(), 2: frozenset({1})}, {1: frozenset({2}), 2: frozenset({1})})
    """
    order = topological_order([tuple(own) for own in parents])
    above = {v: set(parents[v]) for v in order}
    tied: dict[int, set[int]] = {v: set() for v in order}
    for hidden in [v for v in order if v not in set(observed)]:
        causes, others = above.pop(hidden), tied.pop(hidden)
        children = [v for v in above if hidden in above[v]]
        for v in tied:
            tied[v].discard(hidden)
        for child in children:
            above[child] = (above[child] | causes) - {hidden}
            tied[child] |= (others | set(children)) - {child}
            for other in others - {child}:
                tied[other].add(child)
    return MixedGraph(
        {v: frozenset(own) for v, own in above.items()},
        {v: frozenset(own) for v, own in tied.items()},
    )


@dataclass(frozen=True)
class Term:
    """A formula of the distribution of the observed nodes.

    Attributes
    ----------
    kind : {"probability", "product", "sum", "ratio"}
    nodes : tuple of node numbers
        Of a probability, whose it is; of a sum, those summed over.
    given : tuple of node numbers
        Of a probability, what it is conditional on.
    parts : tuple of Term
        Factors; what is summed; numerator and denominator.
    """

    kind: str
    nodes: tuple[int, ...] = ()
    given: tuple[int, ...] = ()
    parts: tuple[Term, ...] = ()

    def text(self, names: Sequence[Any]) -> str:
        """Write the formula out; a node that is summed over, and fixed outside, gets a prime.

        Examples
        --------
        >>> term = Term("sum", (0,), parts=(Term("probability", (1,), (0,)),))
        >>> term.text(["z", "y"])
        'Σ_z P(y | z)'
        """
        return self._text({v: str(name) for v, name in enumerate(names)}, self.free())

    def _text(self, shown: dict[int, str], used: Nodes) -> str:
        if self.kind == "probability":
            given = f" | {', '.join(shown[v] for v in self.given)}" if self.given else ""
            return f"P({', '.join(shown[v] for v in self.nodes)}{given})"
        if self.kind == "sum":
            inner = shown | {v: f"{shown[v]}'" for v in self.nodes if v in used}
            over = ", ".join(inner[v] for v in self.nodes)
            over = over if len(self.nodes) == 1 else f"{{{over}}}"
            return f"Σ_{over} {self.parts[0]._text(inner, used | set(self.nodes))}"
        parts = [
            f"[{text}]" if part.kind in ("sum", "ratio") else text
            for part in self.parts
            for text in [part._text(shown, used)]
        ]
        return " / ".join(parts) if self.kind == "ratio" else " ".join(parts) or "1"

    def mentioned(self) -> Nodes:
        """Return all nodes in the formula, those summed over too."""
        inside = frozenset(self.nodes) | frozenset(self.given)
        return inside.union(*(part.mentioned() for part in self.parts))

    def free(self) -> Nodes:
        """Return the nodes that the formula is a function of."""
        inside = frozenset(self.nodes) | frozenset(self.given)
        if self.kind == "sum":
            return self.parts[0].free() - inside
        return inside.union(*(part.free() for part in self.parts))


def adjustment_formula(xs: Sequence[int], ys: Sequence[int], z: Sequence[int]) -> Term:
    """Return the formula of adjusting for a set of nodes.

    Examples
    --------
    >>> adjustment_formula([0], [1], [2]).text(["x", "y", "z"])
    'Σ_z P(y | x, z) P(z)'
    """
    outcome = Term("probability", tuple(ys), (*xs, *z))
    if not z:
        return outcome
    product = Term("product", parts=(outcome, Term("probability", tuple(z))))
    return Term("sum", tuple(z), parts=(product,))


def front_door_formula(xs: Sequence[int], ys: Sequence[int], z: Sequence[int]) -> Term:
    """Return the formula of a front-door set.

    Examples
    --------
    >>> front_door_formula([0], [1], [2]).text(["x", "y", "z"])
    "Σ_z P(z | x) [Σ_x' P(y | z, x') P(x')]"
    """
    causes = Term("probability", tuple(z), tuple(xs))
    product = Term("product", parts=(causes, adjustment_formula(z, ys, xs)))
    return Term("sum", tuple(z), parts=(product,))


@dataclass(frozen=True)
class Hedge:
    """Why an effect is not identified: two models that agree on all observed nodes differ in it.

    Attributes
    ----------
    outer, inner : frozenset of node numbers
        Two sets, each joined by hidden common causes, the inner one without a treatment.

    References
    ----------
    Shpitser, I. and Pearl, J. (2006). Identification of joint interventional distributions in
    recursive semi-Markovian causal models. AAAI 21, theorem 4.
    """

    outer: Nodes
    inner: Nodes


def identify_effect(graph: MixedGraph, xs: Collection[int], ys: Collection[int]) -> Term | Hedge:
    r"""Find p(ys | do(xs)) from the distribution of the observed nodes.

    Parameters
    ----------
    graph : MixedGraph
    xs, ys : collections of node numbers
        Disjoint, of the graph.

    Returns
    -------
    Term or Hedge

    References
    ----------
    Tian, J. and Pearl, J. (2002). A general identification condition for causal effects. AAAI 18.
    Huang, Y. and Valtorta, M. (2006). Pearl's calculus of intervention is complete. Uncertainty in
    Artificial Intelligence 22, for its completeness.

    Examples
    --------
    The front door: 0 -> 1 -> 2, and 0 tied to 2.

    >>> front = latent_projection([(3,), (0,), (1, 3), ()], observed=[0, 1, 2])
    >>> identify_effect(front, [0], [2]).text(["x", "z", "y"])
    "Σ_z P(z | x) [Σ_x' P(x') P(y | x', z)]"
    >>> identify_effect(latent_projection([(2,), (0, 2), ()], [0, 1]), [0], [1])
    Hedge(outer=frozenset({0, 1}), inner=frozenset({1}))
    """
    graph = graph.within(graph.ancestors(ys))  # what is below tells nothing
    left = graph.within(graph.parents.keys() - set(xs))
    needed = left.within(left.ancestors(ys))
    outer = {v: component for component in graph.components() for v in component}
    factors: list[Term] = []
    for component in needed.components():
        whole = outer[next(iter(component))]
        found = _component_factor(component, whole, _observed_factor(graph, whole), graph)
        if isinstance(found, Hedge):
            return found
        factors += found.parts if found.kind == "product" else (found,)
    # As they come in the graph, causes first.
    place = {v: i for i, v in enumerate(graph.parents)}
    factors.sort(key=lambda term: max((place[v] for v in _heads(term)), default=0))
    return _sum(needed.parents.keys() - set(ys), Term("product", parts=tuple(factors)))


def _heads(term: Term) -> Nodes:
    """Nodes whose distribution a term is."""
    if term.kind == "probability":
        return frozenset(term.nodes)
    parts = term.parts[:1] if term.kind == "ratio" else term.parts
    return frozenset[int]().union(*map(_heads, parts)) - set(term.nodes)


def _observed_factor(graph: MixedGraph, component: Nodes) -> Term:
    """Factor of a confounded component of the whole graph: each node given what comes before.

    Of the nodes before, a node depends on those of its component there, and their parents.
    """
    factors, before = [], list[int]()
    for v in graph.parents:
        before.append(v)
        if v in component:
            own = _closure(graph.within(before).siblings, [v])
            given = own.union(*(graph.parents[u] for u in own)) - {v}
            factors.append(Term("probability", (v,), tuple(u for u in before if u in given)))
    return Term("product", parts=tuple(factors))


def _component_factor(inner: Nodes, outer: Nodes, factor: Term, graph: MixedGraph) -> Term | Hedge:
    """Factor of a component from that of one around it (Tian & Pearl 2002, procedure Identify)."""
    part = graph.within(outer)
    above = part.ancestors(inner)
    reduced = _sum(outer - above, factor)
    if above == inner:
        return reduced
    if above == outer:
        return Hedge(outer, inner)
    order = [v for v in graph.parents if v in above]
    component = next(c for c in part.within(above).components() if inner <= c)
    ratios = tuple(
        Term("ratio", parts=(_sum(order[i + 1 :], reduced), _sum(order[i:], reduced)))
        if i
        else _sum(order[1:], reduced)
        for i, v in enumerate(order)
        if v in component
    )
    return _component_factor(inner, component, Term("product", parts=ratios), graph)


def _sum(nodes: Collection[int], term: Term) -> Term:
    """Sum a term over nodes; a probability of a node that nothing else mentions sums to one."""
    left = set(nodes)
    if term.kind == "sum":
        left, term = left | set(term.nodes), term.parts[0]
    parts = list(term.parts) if term.kind == "product" else [term]
    while True:
        mentioned = [v for part in parts for v in part.free()]
        alone = [
            part
            for part in parts
            if part.kind == "probability"
            and part.nodes[0] in left
            and mentioned.count(part.nodes[0]) == 1
        ]
        if not alone:
            break
        parts.remove(alone[0])
        left.discard(alone[0].nodes[0])
    inner = parts[0] if len(parts) == 1 else Term("product", parts=tuple(parts))
    if not left:
        return inner
    return Term("sum", tuple(sorted(left)), parts=(inner,))


def evaluate(term: Term, joint: Array, axes: Mapping[int, int]) -> Array:
    """Return the values of a formula under a joint table of the observed nodes.

    Parameters
    ----------
    term : Term
    joint : ndarray, one axis a node
        May be complex: derivatives are had by a complex step.
    axes : dict of node to its axis

    Returns
    -------
    ndarray
        With all axes of `joint`; of length one where the formula does not depend on a node. NaN
        where it asks for a probability given what has probability zero.
    """

    def total(over: Collection[int]) -> Array:
        return np.asarray(joint.sum(axis=tuple(axes[v] for v in over), keepdims=True))

    if term.kind == "probability":
        given = total(axes.keys() - set(term.given))
        both = total(axes.keys() - {*term.nodes, *term.given})
        return _divide(both, given)
    parts = [evaluate(part, joint, axes) for part in term.parts]
    if term.kind == "sum":
        summed: Array = parts[0].sum(axis=tuple(axes[v] for v in term.nodes), keepdims=True)
        return summed
    if term.kind == "ratio":
        return _divide(parts[0], parts[1])
    # Nothing times what is undefined is nothing: its weight is zero.
    product, zero = np.ones((1,) * joint.ndim), np.zeros((), dtype=bool)
    for part in parts:
        product, zero = product * part, zero | (part == 0)
    return np.where(zero, 0.0, product)


def _divide(top: Array, bottom: Array) -> Array:
    """Return a ratio, NaN where it is undefined."""
    top, bottom = np.broadcast_arrays(top, bottom)
    undefined = np.full(top.shape, np.nan, dtype=top.dtype)
    ratio: Array = np.divide(top, bottom, out=undefined, where=bottom.real > 0)
    return ratio
