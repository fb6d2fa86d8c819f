"""Messages on a rooted tree of cliques: towards the root, back to the leaves, and codes on the way.

The kernel, of :mod:`ppl_gen.algorithms.networks.factors`, says what a message is: sums of products
(`Sums`), the same in logarithms (`LogSums`), or maxima (`LogMaxima`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ppl_gen.algorithms.networks.elimination_orders import eliminate
from ppl_gen.algorithms.networks.factors import LogSums, Scope, Sums, at_codes

Array = Any
Kernel = Sums | LogSums
#: Which rows of the batch: a slice, or their numbers; None where there is no batch.
Rows = Any


class Clique(NamedTuple):
    """A clique of the tree.

    Attributes
    ----------
    scope : tuple of int
    separator : tuple of int
        What it shares with its parent; empty for the root.
    parent : int
        The number of a later clique; of the root, its own.
    factors : tuple of int
        The factors that are multiplied here.
    children : tuple of int
        The numbers of earlier cliques.
    inflow : tuple of tuple of int
        The scopes of the factors and of the children's messages, in this order.
    """

    scope: Scope
    separator: Scope
    parent: int
    factors: tuple[int, ...]
    children: tuple[int, ...]
    inflow: tuple[Scope, ...]


def clique_tree(scopes: Sequence[Scope], order: Sequence[int]) -> list[Clique]:
    """Return the maximal cliques of an elimination as a tree, children before parents.

    Each step of the elimination is a clique, whose product goes to the step that takes it up. A
    clique that a child of it holds (it is the child's separator then) is merged into that child.
    What is left has the running intersection property, and so is a maximum spanning tree by the
    sizes of the separators (Koller and Friedman 2009, section 10.4). Components are joined by
    empty separators, so that there is one root.

    Parameters
    ----------
    scopes : sequence of tuple of int
    order : sequence of int
        Every variable of the scopes.
    """
    steps, left, _ = eliminate(scopes, order)
    n_factors = len(scopes)
    home: list[int] = []  # of each step, the step whose clique holds its own
    top: dict[int, int] = {}  # of each clique, the last step merged into it
    for j, step in enumerate(steps):
        children = [slot - n_factors for slot in step.slots if slot >= n_factors]
        held = [home[i] for i in children if len(steps[i].clique) == len(step.clique) + 1]
        home.append(held[0] if held else j)
        top[home[j]] = j
    if not steps:
        return [Clique((), (), 0, tuple(left), (), tuple(() for _ in left))]
    numbers = {clique: number for number, clique in enumerate(sorted(top, key=top.__getitem__))}
    root = len(numbers) - 1
    taken_by = {slot - n_factors: j for j, step in enumerate(steps) for slot in step.slots}
    factors: list[list[int]] = [[] for _ in numbers]
    children_of: list[list[int]] = [[] for _ in numbers]
    for j, step in enumerate(steps):
        factors[numbers[home[j]]] += [slot for slot in step.slots if slot < n_factors]
    factors[root] += [slot for slot in left if slot < n_factors]
    parents, separators = [], []
    for clique, number in numbers.items():
        last = steps[top[clique]]
        taker = taken_by.get(top[clique])
        parent = root if taker is None else numbers[home[taker]]
        if number != root:
            children_of[parent].append(number)
        parents.append(parent)
        separators.append(tuple(v for v in last.clique if v != last.variable))
    return [
        Clique(
            steps[clique].clique,
            separators[i],
            parents[i],
            tuple(factors[i]),
            tuple(children_of[i]),
            (*(tuple(scopes[f]) for f in factors[i]), *(separators[c] for c in children_of[i])),
        )
        for clique, i in numbers.items()
    ]


def inflow(clique: Clique, tables: Sequence[Array], up: Sequence[Array]) -> list[Array]:
    """Return the tables of a clique's factors and the messages of its children."""
    return [tables[f] for f in clique.factors] + [up[c] for c in clique.children]


def collect(cliques: Sequence[Clique], kernel: Kernel, tables: Sequence[Array]) -> list[Array]:
    """Return the message of every clique to its parent; the root's is the value of the whole.

    Parameters
    ----------
    cliques : sequence of Clique
    kernel : Sums, LogSums or LogMaxima
    tables : sequence of ndarray
        Of the factors, as the kernel takes them.

    Returns
    -------
    list of ndarray (*sizes of the separator) or (*sizes of the separator, n)
    """
    up: list[Array] = []
    for clique in cliques:
        up.append(kernel.contract(clique.inflow, inflow(clique, tables, up), clique.separator))
    return up


def distribute(
    cliques: Sequence[Clique], kernel: Kernel, tables: Sequence[Array], up: Sequence[Array]
) -> list[Array]:
    """Return the message from its parent to every clique; the root has none.

    A parent's product is summed down to each separator and divided by what came through it
    (Lauritzen and Spiegelhalter 1988), which costs the same for one child as for each of many.
    """
    down: list[Array] = [None] * len(cliques)
    for i in reversed(range(len(cliques))):
        clique = cliques[i]
        if not clique.children:
            continue
        belief = clique_belief(cliques, kernel, tables, up, down, i, clique.scope)
        for child in clique.children:
            out = cliques[child].separator
            down[child] = kernel.divide(kernel.contract((clique.scope,), [belief], out), up[child])
    return down


def clique_belief(
    cliques: Sequence[Clique],
    kernel: Kernel,
    tables: Sequence[Array],
    up: Sequence[Array],
    down: Sequence[Array],
    i: int,
    out: Scope,
) -> Array:
    """Return the product of all factors of the tree, summed down to variables of one clique."""
    clique = cliques[i]
    scopes, here = clique.inflow, inflow(clique, tables, up)
    if clique.parent != i:
        scopes, here = (*scopes, clique.separator), [*here, down[i]]
    return kernel.contract(scopes, here, out)


def descend(
    cliques: Sequence[Clique],
    kernel: Kernel,
    tables: Sequence[Array],
    up: Sequence[Array],
    choose: Callable[[Array], Array],
) -> Mapping[int, Array]:
    """Choose the codes of all variables, from the root to the leaves.

    Parameters
    ----------
    cliques, kernel, tables, up
        Of :func:`collect`.
    choose : callable
        Takes the values (cells, n) of what is still free in a clique, given the codes of its
        separator, or (cells, 1) where they are the same for all rows, and returns the number of a
        cell for every row (n,).

    Returns
    -------
    mapping of int to ndarray of int (n,)
    """
    codes: dict[int, Array] = {}
    for i in reversed(range(len(cliques))):
        clique = cliques[i]
        known = {v: codes[v] for v in clique.separator}
        free = tuple(v for v in clique.scope if v not in known)
        scopes, here = list(clique.inflow), inflow(clique, tables, up)
        if any([kernel.has_rows(scope, t) for scope, t in zip(scopes, here, strict=True)]):
            for k, scope in enumerate(scopes):
                if not known.keys().isdisjoint(scope):
                    scopes[k], here[k] = at_codes(scope, here[k], known)
            values = kernel.contract(tuple(scopes), here, free)
        else:  # the same for all rows: multiplied once, then looked up
            values = kernel.contract(clique.inflow, here, clique.scope)
            if known:
                _, values = at_codes(clique.scope, values, known)
        shape = values.shape[: len(free)]
        chosen = choose(values.reshape(int(np.prod(shape)), -1))
        codes.update(zip(free, np.unravel_index(chosen, shape) if free else (), strict=True))
    return codes


class Messages:
    """The messages for some rows; those from the root are passed when first asked for.

    Parameters
    ----------
    cliques : sequence of Clique
    rows : slice, ndarray of int or None
        Which rows of the batch they are for; None where there is no batch.
    kernel : Sums or LogSums
    tables : sequence of ndarray
        Of the factors, as the kernel takes them.

    Attributes
    ----------
    log_evidence : ndarray (rows,)
        (1,) where there is no batch.
    """

    def __init__(
        self, cliques: Sequence[Clique], rows: Rows, kernel: Kernel, tables: Sequence[Array]
    ) -> None:
        self.cliques, self.rows, self.kernel, self.tables = cliques, rows, kernel, tables
        self.up = collect(cliques, kernel, tables)
        self._down: Sequence[Array] | None = None
        with np.errstate(divide="ignore"):
            total = self.up[-1] if self.in_logs else np.log(self.up[-1])
        self.log_evidence = np.atleast_1d(total)

    @property
    def in_logs(self) -> bool:
        """Whether tables and messages are logarithms."""
        return isinstance(self.kernel, LogSums)

    def belief(self, i: int, out: Scope) -> Array:
        """Return the product of all factors, summed down to variables of one clique."""
        if self._down is None:
            self._down = distribute(self.cliques, self.kernel, self.tables, self.up)
        return clique_belief(self.cliques, self.kernel, self.tables, self.up, self._down, i, out)

    def marginals(self, i: int, scopes: Sequence[Scope]) -> list[Array]:
        """Return the normalised marginals of some scopes in a clique, each (*sizes, rows).

        All zero where the evidence is impossible.
        """
        whole = self.cliques[i].scope
        shared = self.belief(i, whole) if len(scopes) > 1 else None
        found = []
        for scope in scopes:
            if shared is None:
                table = self.belief(i, scope)
            else:
                table = self.kernel.contract((whole,), [shared], scope)
            found.append(self._normalised(table, len(scope)))
        return found

    def weighted_sums(self, i: int, scopes: Sequence[Scope], weights: Array) -> list[Array]:
        """Return the sums over rows of the marginals of some scopes in a clique."""
        whole = self.cliques[i].scope
        table, total = self._unnormalised(self.belief(i, whole), len(whole))
        rows = np.broadcast_to(weights / total, self.log_evidence.shape)
        summed = np.broadcast_to(table, (*table.shape[:-1], len(rows))) @ rows
        axis = {v: k for k, v in enumerate(whole)}
        every = list(range(len(whole)))
        return [np.einsum(summed, every, [axis[v] for v in scope]) for scope in scopes]

    def _normalised(self, belief: Array, n_axes: int) -> Array:
        table, total = self._unnormalised(belief, n_axes)
        return np.broadcast_to(table / total, (*table.shape[:-1], len(self.log_evidence)))

    def _unnormalised(self, belief: Array, n_axes: int) -> tuple[Array, Array]:
        """Return a marginal without logarithms, and its sum in each row, or one if that is zero."""
        if self.in_logs:
            log_evidence = self.log_evidence
            table = np.exp(belief - np.where(log_evidence == -np.inf, 0.0, log_evidence))
        else:
            table = belief if belief.ndim > n_axes else belief[..., None]
        total = table.sum(axis=tuple(range(n_axes)))
        return table, np.where(total == 0.0, 1.0, total)
