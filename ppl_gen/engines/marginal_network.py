"""The discrete Bayesian network as one distribution, the part that both engines share.

Shapes: B is the batch shape, V the number of nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_gen.algorithms.networks import scan as network
from ppl_gen.engines.base import RandomSource
from ppl_gen.engines.marginal import stacked_shape

Parents = tuple[tuple[int, ...], ...]


class BayesNetRules:
    """A discrete Bayesian network with its missing nodes summed out.

    ``p(x) = sum_missing prod_v p(x_v | x_parents(v))``, one row a batch element and the nodes its
    event: event (V,). Several rows come in a plate. The codes of the states are 0, 1, 2, ... as
    numbers, and NaN where they are missing. Draws are complete rows.

    Parameters
    ----------
    parents : sequence of sequences of int
        Of each node, the numbers of its parents.
    tables : sequence of arrays (*parent sizes, size)
        Of each node, the probabilities of its states given those of its parents, in the order of
        `parents`; the last axis sums to one.
    hidden : sequence of int
        Nodes that may be missing in some row; the others are looked up, which is cheaper. A row
        without one of these has log density NaN.
    latent_node : int, optional
        The node whose states can be asked for, given what else a row has.
    latent : str, default "z"
        The name under which they can be.

    Raises
    ------
    ValueError
        If the shapes disagree, a parent is no node, or the parents go round in a circle; in
        `log_prob`, if the sums over the missing nodes are too large.

    References
    ----------
    Koller and Friedman (2009), Probabilistic Graphical Models, chapter 9.

    Examples
    --------
    >>> import numpy as np
    >>> from ppl_gen import dist, engines, program, sample
    >>> @program
    ... def rain_and_wet_grass(x=None):
    ...     tables = [np.array([0.8, 0.2]), np.array([[0.9, 0.1], [0.2, 0.8]])]
    ...     net = dist.BayesNet([(), (0,)], tables, hidden=[0], latent_node=0, latent="rain")
    ...     sample("x", net, obs=x)
    >>> x = np.array([np.nan, 1.0])
    >>> site = engines.get("pyro").trace(rain_and_wet_grass.pyro, (), {"x": x})["x"]
    >>> site.latent, float(np.exp(site.log_prob).round(6))
    ('rain', 0.24)
    """

    parents: Parents
    tables: tuple[Any, ...]
    hidden: tuple[int, ...]
    latent_node: int | None
    latent: str | None
    batch_shape: Any
    #: Namespace of the engine's arrays.
    ops: Any

    def log_prob(self, value: Any) -> Any:
        """Return the log probability of what is observed of rows (..., V)."""
        rows = self._rows(value)
        found = network.log_evidence(self.ops, self.parents, self.tables, rows, self.hidden)
        return self.ops.reshape(found, tuple(value.shape[:-1]))

    def latent_log_joint(self, value: Any) -> Any:
        """Return ``log p(latent node = k, value)``, shape (..., K).

        Raises
        ------
        ValueError
            If the distribution has no `latent_node`.
        """
        node = self.latent_node
        if node is None:
            raise ValueError(
                "BayesNet.latent_log_joint: no node can be asked for; expected the number of one; "
                "pass latent_node"
            )
        rows = self._rows(value)
        joint = network.log_joint(self.ops, self.parents, self.tables, rows, node, self.hidden)
        return self.ops.reshape(joint, (*value.shape[:-1], joint.shape[-1]))

    def latent_posterior(self, value: Any) -> Any:
        """Return the probability of each state of the latent node given `value`, (..., K)."""
        return network.posterior(self.ops, self.latent_log_joint(value))

    def sample_latent(self, value: Any, random: RandomSource) -> Any:
        """Draw the state of the latent node given `value`."""
        return random.categorical(self.latent_posterior(value))

    def draw(self, random: RandomSource, sample_shape: Any) -> Any:
        """Draw rows, each node given its parents."""
        shape = stacked_shape(sample_shape, self.batch_shape)
        n_rows = int(np.prod(shape, dtype=np.int64))
        rows = network.draw_rows(self.ops, self.parents, self.tables, n_rows, random)
        return self.ops.reshape(rows, (*shape, len(self.parents)))

    def valid_tables(self) -> Any:
        """Tell of each table whether its rows are probabilities, (V,)."""
        ops = self.ops
        # 1e-6 as for the simplexes of both engines.
        sums = [ops.abs(ops.sum(table, axis=-1) - 1.0) < 1e-6 for table in self.tables]
        return ops.stack(
            [ops.all(s) & ops.all(t >= 0) for s, t in zip(sums, self.tables, strict=True)]
        )

    def _rows(self, value: Any) -> Any:
        """Return the value as (n, V)."""
        if not value.shape or value.shape[-1] != len(self.parents):
            raise ValueError(
                f"BayesNet.log_prob: the value has shape {tuple(value.shape)}; expected rows of "
                f"{len(self.parents)} codes, one a node; pass NaN for nodes that are missing"
            )
        return self.ops.reshape(value, (-1, len(self.parents)))


def check_network(
    parents: Sequence[Sequence[int]],
    tables: Sequence[Any],
    hidden: Sequence[int],
    latent_node: int | None,
) -> tuple[Parents, tuple[int, ...]]:
    """Return the parents and the hidden nodes of a network whose parts fit together.

    Raises
    ------
    ValueError
        If they do not: numbers of nodes, shapes, or a circle.
    """
    numbers: Parents = tuple(tuple(int(p) for p in own) for own in parents)
    count = len(numbers)
    if not count or count != len(tables):
        raise ValueError(
            f"dist.BayesNet: {count} nodes have parents and {len(tables)} have tables; expected "
            "one entry a node in both; give () to a node without parents"
        )
    asked = () if latent_node is None else (latent_node,)
    named = {*(p for own in numbers for p in own), *hidden, *asked}
    if unknown := sorted(v for v in named if not 0 <= v < count):
        raise ValueError(
            f"dist.BayesNet: there is no node {', '.join(map(str, unknown))}; expected numbers "
            f"from 0 to {count - 1}, the places in parents and tables"
        )
    for v, (own, table) in enumerate(zip(numbers, tables, strict=True)):
        sizes = tuple(int(tables[p].shape[-1]) for p in own if len(tables[p].shape))
        shape = tuple(int(size) for size in table.shape)
        if len(set(own)) < len(own) or len(shape) != len(own) + 1 or shape[:-1] != sizes:
            raise ValueError(
                f"dist.BayesNet: the table of node {v} has shape {shape} for the parents {own} of "
                f"{sizes} states; expected one axis a parent in this order, each parent once, then "
                "one for the node's own states"
            )
    try:
        network.topological_order(numbers)
    except ValueError as error:
        raise ValueError(f"dist.BayesNet: {error}") from error
    return numbers, tuple(sorted({int(v) for v in hidden}))


def check_tables(valid: Any) -> None:
    """Refuse tables whose rows are no probabilities.

    Raises
    ------
    ValueError
        It says which.
    """
    if wrong := [str(v) for v, fine in enumerate(valid.tolist()) if not fine]:
        raise ValueError(
            f"dist.BayesNet: the table of node {', '.join(wrong)} has rows that are no "
            "probabilities; expected numbers of at least 0 that sum to one over the last axis"
        )
