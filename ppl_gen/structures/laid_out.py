"""Rows of sequences in the order in which recursions over time take them."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ppl_gen.algorithms.hidden_markov import Emissions
from ppl_gen.algorithms.row_chunks import chunk_rows_of, map_rows, row_slices
from ppl_gen.algorithms.side_by_side import Layout, lay_out
from ppl_gen.algorithms.trees import tree_sum
from ppl_gen.families import Family, Parameters, Statistics
from ppl_gen.sequences import Sequences

Array = Any

#: States times columns below which sums over a chunk take less time than handing it to a thread.
LIGHT_ENTRIES = 1000


@dataclass(frozen=True, eq=False)
class Side:
    """Sequences in the order of a layout, kept with them from one EM step to the next."""

    layout: Layout
    values: Array
    labels: Array | None
    room: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, sequences: Sequences, n_states: int) -> "Side":
        """Lay sequences out, once for all steps of EM."""
        kept: dict[int, Side] = sequences.kept
        if n_states not in kept:
            layout = lay_out(sequences.lengths, n_states)
            labels = None if sequences.labels is None else sequences.labels[layout.rows]
            kept[n_states] = cls(layout, sequences.values[layout.rows], labels)
        return kept[n_states]

    def emissions(self, family: Family, parameters: Parameters, n_states: int) -> Emissions:
        """Log densities of all steps, in the order of the layout, with room for a pass."""

        def log_prob(columns: Any) -> Array:
            found = family.log_prob(parameters, self.values[columns])
            if self.labels is not None:
                known = self.labels[columns, None]
                other = (known >= 0) & (known != np.arange(n_states))
                found = np.where(other, -np.inf, found)
            return found

        return Emissions(self.layout, log_prob, n_states, self.room)

    @cached_property
    def seen(self) -> Array | None:
        """Whether anything of each step is seen, as 0/1 (N,); None if of all.

        Nothing is to be learned of the emissions at other steps. To leave them out converges
        faster than to count what is expected of them, and padding makes no difference.
        """
        unseen = np.isnan(self.values).all(axis=1)
        return (~unseen).astype(np.float64) if unseen.any() else None

    def statistics(self, family: Family, parameters: Parameters, marginals: Array) -> Statistics:
        """Statistics of the family, given marginals (N, K) in the order of the layout."""

        def count(columns: slice) -> Statistics:
            return family.statistics(parameters, self.values[columns], marginals[columns])

        n_rows, n_entries = len(self.values), marginals.shape[1] * self.values.shape[1]
        if n_entries < LIGHT_ENTRIES:
            chunk_rows = chunk_rows_of(2 * marginals.shape[1])
            parts = [count(columns) for columns in row_slices(n_rows, chunk_rows)]
        else:
            parts = map_rows(count, n_rows)
        total: Statistics = tree_sum(parts)
        return total
