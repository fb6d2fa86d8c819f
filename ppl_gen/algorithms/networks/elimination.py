"""Variable elimination over factors of discrete variables: sums, and marginal maxima.

A query is the product of the factors with everything but its targets summed out, one variable
after another. The order, the cost and every contraction are worked out once, and run many times.

References
----------
Koller and Friedman (2009), Probabilistic Graphical Models, algorithms 9.1, 9.4 and 13.1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_gen.algorithms.networks.elimination_orders import (
    Sizes,
    cost_of,
    eliminate,
    elimination_order,
    maximising_order,
)
from ppl_gen.algorithms.networks.factors import (
    MANY,
    SMALL,
    Products,
    Scope,
    as_logs,
    at_codes,
    batch_last,
    batch_size,
    log_product,
    log_sum_exp,
    rows_at_once,
    union,
)
from ppl_gen.algorithms.row_chunks import map_rows

Array = Any


class Elimination:
    """A query's plan, made once for given scopes and targets and run for many tables.

    Parameters
    ----------
    scopes : sequence of tuple of int
        Of the factors, in the order in which :meth:`run` takes their tables.
    sizes : sequence or mapping of int
        The number of states of every variable.
    targets : sequence of int
        The variables of the result, in the order of its axes. One that no factor mentions gets
        an axis along which the result is constant.
    heuristic : str
        See :func:`~ppl_gen.algorithms.networks.elimination_orders.elimination_order`.
    order : sequence of int, optional
        The order to take in place of a greedy one, which saves half of the time to plan: that of
        a whole network serves all its queries well. What is not to be summed out is left out.

    Attributes
    ----------
    order : list of int
        The variables summed out, first to last.
    cost : Cost

    Raises
    ------
    ValueError
        Where a target is named twice, or the order lacks a variable.

    References
    ----------
    Koller and Friedman (2009), Probabilistic Graphical Models, algorithm 9.1.

    Examples
    --------
    >>> rain, wet = np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.3, 0.7]])
    >>> plan = Elimination([(0,), (0, 1)], sizes=[2, 2], targets=[1])
    >>> plan.cost, plan.run([rain, wet])
    (Cost(width=1, largest=4, total=6), array([0.78, 0.22]))
    """

    def __init__(
        self,
        scopes: Sequence[Scope],
        sizes: Sizes,
        targets: Sequence[int],
        heuristic: str = "min_fill",
        order: Sequence[int] | None = None,
    ) -> None:
        self.targets = tuple(targets)
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"Elimination: targets {self.targets} name a variable twice")
        self.scopes = list(scopes)
        self.ranks = [len(scope) for scope in scopes]
        mentioned = set(union(self.scopes))
        self.sizes = {v: int(sizes[v]) for v in mentioned.union(self.targets)}
        self.order = (
            self._checked(order, mentioned)
            if order is not None
            else (elimination_order(self.scopes, self.sizes, self.targets, heuristic))
        )
        added: list[Scope] = [(v,) for v in self.targets if v not in mentioned]
        if not self.scopes and not added:
            added = [()]  # the empty product is one
        self.constants = [np.ones([self.sizes[v] for v in scope]) for scope in added]
        self.all_scopes = self.scopes + added
        self.steps, self.left, scopes_met = eliminate(self.all_scopes, self.order)
        self._outs = scopes_met[len(self.all_scopes) :]
        self.cost = cost_of([*(step.clique for step in self.steps), self.targets], self.sizes)
        self._plans: dict[tuple[bool, ...], Products] = {}

    def run(self, tables: Sequence[Array]) -> Array:
        """Return the product of the factors, summed down to the targets and not normalised.

        Nothing is rescaled: what is smaller than the smallest double on the way is zero. A total
        above 1e-200 tells that this has not mattered, where tables are probabilities;
        :class:`~ppl_gen.algorithms.networks.junction_tree.JunctionTree` gives the others.

        Parameters
        ----------
        tables : sequence of ndarray
            Each with the axes of its scope, or a batch axis before them.

        Returns
        -------
        ndarray (*sizes of targets) or (n, *sizes of targets)
            The latter where a table has a batch axis.

        Raises
        ------
        ValueError
            Where a table has not the axes of its scope, or batches differ in length.
        """
        batched = tuple([t.ndim > rank for t, rank in zip(tables, self.ranks, strict=True)])
        plan = self._plans.get(batched)
        if plan is None:
            batch_size(self.scopes, tables, "Elimination.run")
            plan = self._plans[batched] = self._compile(batched)
        if not any(batched):
            return plan.run([*tables, *self.constants])
        n = batch_size(self.scopes, tables, "Elimination.run")
        assert n is not None

        def part(rows: slice) -> Array:
            some = [
                t[rows] if with_rows else t for t, with_rows in zip(tables, batched, strict=True)
            ]
            lasts = [batch_last(scope, t) for scope, t in zip(self.scopes, some, strict=True)]
            return np.moveaxis(plan.run([*lasts, *self.constants]), -1, 0)

        chunk = rows_at_once(self.cost.largest)
        return part(slice(n)) if n <= chunk else np.concatenate(map_rows(part, n, chunk))

    def _checked(self, order: Sequence[int], mentioned: set[int]) -> list[int]:
        hidden = mentioned.difference(self.targets)
        taken = [v for v in order if v in hidden]
        if len(taken) != len(hidden):
            raise ValueError(
                f"Elimination: the order has {len(taken)} of the {len(hidden)} variables to sum "
                f"out, {sorted(hidden)}; name each of them once"
            )
        return taken

    def _compile(self, batched: Sequence[bool]) -> Products:
        """Write the steps as einsums, those over small tables several in one."""
        given = len(self.all_scopes)
        products = Products(self.all_scopes, self.sizes, [*batched, *[False] * len(self.constants)])
        # Over small tables a call costs more than its sums: a step is then left to the step that
        # takes up its product, while the variables of both have few cells together.
        merge = not any(batched)
        waiting: list[tuple[list[int], int, Scope]] = []

        def operands(slots: Sequence[int], clique: Scope) -> tuple[list[int], int]:
            """Return the factors of a step, and the cells of the variables summed before it."""
            found: list[int] = []
            before = 1
            cells = products.cells(clique) if merge else 0
            for slot in slots:
                if slot < given:
                    found.append(slot)
                    continue
                inner, inside, out = waiting[slot - given]
                count = len(found) + len(inner)
                if merge and count <= MANY and count * cells * before * inside <= SMALL:
                    found += inner
                    before *= inside
                else:
                    found.append(products.append(inner, out))
            return found, before

        for step, out in zip(self.steps, self._outs, strict=True):
            found, before = operands(step.slots, step.clique)
            waiting.append((found, before * self.sizes[step.variable], out))
        found, _ = operands(self.left, self.targets)
        products.append(found, self.targets)
        return products


def maximise(
    scopes: Sequence[Scope],
    tables: Sequence[Array],
    sizes: Sizes,
    targets: Sequence[int],
    heuristic: str = "min_fill",
) -> tuple[Array, Array]:
    """Return the likeliest joint state of the targets, all else summed out, and its log value.

    The marginal maximum a posteriori (MAP); with every variable a target, the most probable
    explanation. In logarithms throughout, so that nothing underflows.

    Parameters
    ----------
    scopes : sequence of tuple of int
    tables : sequence of ndarray
        Each with the axes of its scope, or a batch axis before them.
    sizes : sequence or mapping of int
    targets : sequence of int
    heuristic : str
        See :func:`~ppl_gen.algorithms.networks.elimination_orders.elimination_order`.

    Returns
    -------
    codes : ndarray of int (len(targets),) or (n, len(targets))
        Zero for a target that no factor mentions; one of the best where several are.
    log_value : float or ndarray (n,)
        The log of the largest value, not normalised; minus infinity where all are zero.

    References
    ----------
    Koller and Friedman (2009), Probabilistic Graphical Models, section 13.2.3.

    Examples
    --------
    >>> rain, wet = np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.3, 0.7]])
    >>> codes, log_value = maximise([(0,), (0, 1)], [rain, wet], [2, 2], targets=[0, 1])
    >>> codes, np.exp(log_value).round(2)
    (array([0, 0]), np.float64(0.72))
    """
    n = batch_size(scopes, tables, "maximise")
    sums, maxima = maximising_order(scopes, sizes, targets, heuristic)
    steps, left, all_scopes = eliminate(scopes, sums + maxima)
    logs = [as_logs(scope, t) for scope, t in zip(scopes, tables, strict=True)]
    best: list[tuple[int, Scope, Array]] = []
    for step in steps:
        out = tuple(v for v in step.clique if v != step.variable)
        slots = step.slots
        table = log_product(
            [all_scopes[s] for s in slots], [logs[s] for s in slots], (step.variable, *out)
        )
        if step.variable in targets:
            best.append((step.variable, out, table.argmax(axis=0)))
            logs.append(table.max(axis=0))
        else:
            logs.append(log_sum_exp(table, (0,)))
    log_value = log_product([()] * len(left), [logs[s] for s in left], ())
    rows = 1 if n is None else n
    codes = {v: np.zeros(rows, dtype=np.intp) for v in targets}
    for v, out, table in reversed(best):
        table = np.broadcast_to(table, (*table.shape[:-1], rows))
        codes[v] = at_codes(out, table, codes)[1] if out else table
    chosen = np.stack([codes[v] for v in targets], axis=-1) if targets else np.empty((rows, 0), int)
    log_value = np.broadcast_to(log_value, (rows,))
    return (chosen[0], log_value[0]) if n is None else (chosen, log_value.copy())
