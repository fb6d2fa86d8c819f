"""The Markov chain of any order as a program, for both engines."""

import dataclasses
from typing import Any

import numpy as np

from ppl_gen.algorithms.arrays import array_namespace, beside
from ppl_gen.algorithms.scans import scan
from ppl_gen.language import Program, dist, ops, plate, sample

Array = Any
Parameters = dict[str, Any]


def chain_program(
    order: int, keys: Array, n_inner: int, n_start: int, concentration: Array, fallback: Array
) -> Program:
    """Return the program of a Markov chain, with its priors.

    The sites of order 1 are "start" (K,) and "transition" (K, K); of order k, "transition" and
    "start" have a row for each context that occurs, within a sequence and at the start of one;
    order 0 has "transition" (1, K) alone. Sequences ``x`` (n, T) are codes, NaN after the end of
    the shorter ones; without them the program draws ``n_sequences`` of ``length`` steps.
    ``batch_size`` subsamples the sequences.

    Parameters
    ----------
    order : int
    keys : (C,)
        Contexts as numbers in base K + 1, in rising order: those within a sequence, then those at
        the start.
    n_inner, n_start : int
        How many there are of each.
    concentration : (K,)
        Of the Dirichlet prior of every row.
    fallback : (K,)
        Distribution after contexts that are not among them.
    """
    n_states = len(concentration)

    def markov_chain(
        x: Any = None,
        n_sequences: int = 1,
        length: int = 1,
        batch_size: int | None = None,
    ) -> None:
        prior = dist.Dirichlet(concentration)
        with plate("state" if order == 1 else "context", n_inner):
            rows = [sample("transition", prior, dims=("state",))]
        if order == 1:
            start = sample("start", prior, dims=("state",))
            rows.append(ops.reshape(start, (1, n_states)))
        elif order > 1:
            with plate("start_context", n_start):
                rows.append(sample("start", prior, dims=("state",)))
        rows.append(ops.reshape(ops.asarray(fallback), (1, n_states)))
        if x is not None:
            n_sequences, length = x.shape
        chain = ChainFamily(order, n_states, keys, length)
        table = ops.expand_dims(ops.concat(rows, axis=0), axis=0)
        with plate("sequence", n_sequences, subsample_size=batch_size) as batch:
            if x is not None and batch_size is not None:
                x = x[batch]
            labels = np.zeros(batch_size or n_sequences, dtype=np.int64)
            sample("x", dist.Family(chain, {"table": table}, labels=labels), obs=x)

    return Program(markov_chain)


@dataclasses.dataclass(frozen=True, eq=False)
class ChainFamily:
    """One sequence as a row of T codes, for `dist.Family`; NaN after its end.

    Parameters
    ----------
    order, n_states : int
    keys : (C,)
        Contexts as numbers in base K + 1, in rising order, by the rows of the table; its last row
        is for contexts that are not among them.
    n_columns : int
        T.
    """

    order: int
    n_states: int
    keys: Array
    n_columns: int

    def log_prob(self, parameters: Parameters, x: Array) -> Array:
        """Log density of sequences (n, T), in nats: (n, 1)."""
        xp = array_namespace(x)
        table = parameters["table"][0]
        missing = xp.isnan(x)
        codes = xp.astype(xp.where(missing, xp.zeros_like(x), x), xp.int64)
        marks = xp.zeros_like(codes)[:, :1] + self.n_states
        history = xp.concat([*([marks] * self.order), codes], axis=1)
        key = xp.zeros_like(codes)
        for back in range(self.order):
            key = key * (self.n_states + 1) + history[:, back : back + x.shape[1]]
        cells = self._row(xp, key) * self.n_states + codes
        logs = xp.log(xp.reshape(table, (-1,)))
        each = xp.reshape(xp.take(logs, xp.reshape(cells, (-1,)), axis=0), cells.shape)
        return xp.sum(xp.where(missing, xp.zeros_like(each), each), axis=1, keepdims=True)

    def _row(self, xp: Any, key: Array) -> Array:
        """Rows of the table of contexts."""
        keys = beside(key, self.keys)
        place = xp.searchsorted(keys, xp.reshape(key, (-1,)))
        place = xp.reshape(xp.clip(place, max=len(self.keys) - 1), key.shape)
        matched = xp.reshape(xp.take(keys, xp.reshape(place, (-1,)), axis=0), key.shape) == key
        return xp.where(matched, place, xp.zeros_like(place) + len(self.keys))

    def sample(self, parameters: Parameters, labels: Array, random: Any) -> Array:
        """Draw one sequence for each of the (n,) labels, which are all zero: (n, T)."""
        table = parameters["table"][0]
        xp = array_namespace(table)
        base = self.n_states + 1
        heights = random.uniform((self.n_columns, labels.shape[0]))

        def step(carry: tuple[Array], height: tuple[Array]) -> tuple[tuple[Array], tuple[Array]]:
            probs = xp.take(table, self._row(xp, carry[0]), axis=0)
            cumulative = xp.cumulative_sum(probs, axis=1)
            above = height[0][:, None] * cumulative[:, -1:] >= cumulative[:, :-1]
            code = xp.sum(xp.astype(above, labels.dtype), axis=1)
            return ((carry[0] * base + code) % base**self.order,), (code,)

        marks = xp.zeros_like(labels) + (base**self.order - 1)  # all digits are K
        _, (drawn,) = scan(step, (marks,), (heights,))
        return xp.astype(xp.matrix_transpose(drawn), table.dtype)
