"""The passes forward and backward over the steps of sequences side by side.

A cut sequence is run in pieces at once. Each piece starts from anywhere, and again from where the
one before it has ended, until it finds what it had found: relative differences of probabilities
never grow in a step, and mostly soon vanish (Birkhoff's contraction of positive matrices; Atar &
Zeitouni, SIAM J. Control Optim. 35, 1997). Where they do not, `hidden_markov_transfers` says where
pieces start.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ppl_gen.algorithms.hidden_markov_transfers import HARMLESS, STRIDE, TINY, hand_on, scaled_steps
from ppl_gen.algorithms.row_chunks import chunk_rows_of, map_rows
from ppl_gen.algorithms.side_by_side import Layout, lay_out

Array = Any

#: Rounds in which pieces may start again, before transfer matrices say where.
ROUNDS = 4
#: Relative difference of probabilities that rounding explains.
ROUNDING = 1e-12


@dataclass(eq=False)
class Emissions:
    """Log densities of all steps under each state, laid out for the recursions.

    Attributes
    ----------
    layout : Layout
    log_prob : callable
        From a slice, or the numbers, of columns of the layout to log densities (n, K) under each
        state; -inf where a state is excluded.
    n_states : int
    room : dict or None
        Arrays of an earlier pass over the same layout, to be written over: a step of EM after
        another then asks the system for no memory.
    """

    layout: Layout
    log_prob: Callable[[Any], Array]
    n_states: int
    room: dict[str, Array] | None = None

    @classmethod
    def of(cls, log_emission: Array, lengths: Array) -> "Emissions":
        """Lay out log densities by row, (N, K), of sequences one after another."""
        layout = lay_out(lengths, log_emission.shape[1])
        return cls.laid_out(layout, log_emission[layout.rows])

    @classmethod
    def laid_out(cls, layout: Layout, logs: Array) -> "Emissions":
        """Take log densities (N, K) that are in the order of the layout already."""
        return cls(layout, logs.__getitem__, logs.shape[1])

    def array(self, name: str) -> Array:
        """Return an array for each step and state, (N, K), that nothing else is in."""
        shape = (len(self.layout.rows), self.n_states)
        if self.room is None:
            return np.empty(shape)
        if name not in self.room:
            self.room[name] = np.empty(shape)
        return self.room[name]

    def logs(self) -> Array:
        """All log densities, in the order of the layout: (N, K)."""
        return np.concatenate(map_rows(self.log_prob, len(self.layout.rows)))

    def logs_by_state(self) -> Array:
        """All log densities, in the order of the layout, with states along rows: (K, N)."""
        logs = np.empty((self.n_states, len(self.layout.rows)))

        def fill(columns: slice) -> None:
            logs[:, columns] = self.log_prob(columns).T

        map_rows(fill, logs.shape[1], chunk_rows_of(self.n_states))
        return logs

    def scaled(self) -> tuple[Array, Array]:
        """Densities over the largest of each step, (N, K), and the logarithms of those, (N,)."""
        n_steps = len(self.layout.rows)
        densities, largest = self.array("scaled"), np.empty(n_steps)

        def fill(columns: slice) -> None:
            logs = np.array(self.log_prob(columns).T, order="C")  # long rows are quick to scan
            top = largest[columns]
            np.maximum.reduce(logs, axis=0, out=top)
            top[top == -np.inf] = 0.0
            logs -= top
            np.exp(logs, out=logs)
            densities[columns] = logs.T

        map_rows(fill, n_steps, chunk_rows_of(self.n_states))
        return densities, largest

    def of_sequence(self, number: int) -> tuple[Array, Array]:
        """Columns of a sequence in the order of time, (T,), and its log densities, (T, K)."""
        columns = np.flatnonzero(self.layout.column_sequence == number)
        columns = columns[np.argsort(self.layout.rows[columns])]
        return columns, self.log_prob(columns)


class Pass:
    """A pass forward over all sequences, and the pass back.

    Attributes
    ----------
    scaled : (N, K)
        Densities over the largest of each step.
    top : (N,)
        Logarithms of the largest.
    filtered : (N, K)
        Filtered probabilities up to a factor: they sum to one where a stride or a piece ends.
    scale : (N,)
        What they were divided by there; 1 at other steps.
    entry, exit : (P, K), (P, K) or None
        Probabilities before the first step of each piece, messages after its last, where
        transfer matrices gave them.
    ahead : (N, K)
        After :meth:`back`, what lies ahead of each step, ``b_t beta_t / scale_t``, so that
        ``filtered[t - 1] A ahead[t]' = 1``.
    """

    def __init__(
        self, start: Array, transition: Array, emissions: Emissions, *, back: bool = True
    ) -> None:
        self.transition, self.emissions, self.layout = transition, emissions, emissions.layout
        self.scaled, self.top = emissions.scaled()
        self.filtered, self.scale = emissions.array("filtered"), np.ones(len(self.scaled))
        self.every = scaled_steps(transition, len(self.layout.starts) - 1)
        self.start, self.exit = start, None
        self.entry = np.repeat(start[None], len(self.layout.lengths), axis=0)
        self.ahead = self.scaled
        if not self.layout.is_cut:
            self._forward()
            return
        self.entry[self.layout.place > 0] = 1.0 / len(start)
        self._forward()
        if self._join_forward():
            self.ahead = emissions.array("ahead") if back else self.scaled
            return
        self.entry, self.exit = hand_on(start, transition, self.scaled, self.layout, back=back)
        self._forward()

    def _forward(self) -> None:
        filtered, scaled, ones = self.filtered, self.scaled, np.ones(len(self.transition))
        widths = [*self.layout.widths.tolist(), 0]
        self.scale[:] = 1.0
        before = filtered[:0]
        for step, (begin, end) in enumerate(pairwise(self.layout.starts)):
            now = filtered[begin:end]
            if step == 0:
                np.multiply(self.entry, scaled[:end], out=now)
            else:
                np.matmul(before[: end - begin], self.transition, out=now)
                now *= scaled[begin:end]
            # All pieces where a stride ends, else those that end here.
            first = begin if self.every[step] else begin + widths[step + 1]
            if first < end:
                total = filtered[first:end] @ ones
                self.scale[first:end] = total
                # A sequence that has become impossible stays so, and gives no NaN.
                filtered[first:end] /= np.maximum(total, TINY)[:, None]
            before = now

    def _join_forward(self) -> bool:
        """Start pieces again where those before them ended; tell whether all came to agree."""
        layout, filtered, starts = self.layout, self.filtered, np.array(self.layout.starts)
        pieces, previous = follows, followed = layout.follows
        for _ in range(ROUNDS):
            running, changed = np.arange(len(pieces)), np.zeros(len(pieces), dtype=bool)
            now = filtered[layout.last[previous]] @ self.transition
            for step in range(len(starts) - 1):
                columns = starts[step] + pieces[running]
                now = (now @ self.transition if step else now) * self.scaled[columns]
                ends = layout.lengths[pieces[running]] == step + 1
                agree = np.zeros(len(running), dtype=bool)
                if self.every[step] or ends.any():
                    rows = slice(None) if self.every[step] else np.flatnonzero(ends)
                    total = now[rows].sum(axis=1)
                    self.scale[columns[rows]] = total
                    now[rows] /= np.maximum(total, TINY)[:, None]
                    agree[rows] = _agree(now[rows], filtered[columns[rows]])
                filtered[columns] = now
                changed[running[ends & ~agree]] = True
                going = ~(agree | ends)
                running, now = running[going], now[going]
                if not len(running):
                    break
            if not changed.any():
                return True
            again = np.isin(followed, pieces[changed])
            pieces, previous = follows[again], followed[again]
            if not len(pieces):
                return True
        return False

    def log_evidence(self) -> Array:
        """Log density of each sequence: (n,)."""
        with np.errstate(divide="ignore"):
            logs = np.log(self.scale) + self.top
        return np.bincount(self.layout.column_sequence, logs, self.layout.n_sequences)

    def back(self) -> tuple[Array, Array | None]:
        """Marginals (N, K), and the largest message of each step (N,), where one is very large.

        A path is lost where its share falls below the smallest double. What comes later raises
        a share by no more than the message, so messages say whether lost paths matter.
        """
        marginals = self.emissions.array("marginals")
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            peak = np.max(self._both_ways(marginals, None))
            if peak < HARMLESS / TINY * max(float(self.scale.min()), TINY):
                return marginals, None
            in_place = self.ahead is self.scaled
            self.scaled, self.top = self.emissions.scaled()
            self.ahead = self.scaled if in_place else self.ahead
            largest = np.zeros(len(self.scaled))
            self._both_ways(marginals, largest)
        return marginals, largest

    def _both_ways(self, marginals: Array, largest: Array | None) -> list[Array]:
        """Pass back, and join the pieces; return the largest messages."""
        message = np.ones_like(self.entry)
        if self.exit is not None:
            message = self._over_shares(self.exit, self.layout.last)
        peaks = self._backward(message, marginals, largest)
        if self.ahead is not self.scaled and self.exit is None:
            joined, more = self._join_backward(marginals, largest)
            peaks += more
            if not joined:
                self.entry, self.exit = hand_on(
                    self.start, self.transition, self.scaled, self.layout, back=True
                )
                message = self._over_shares(self.exit, self.layout.last)
                peaks = self._backward(message, marginals, largest)
        return peaks

    def _over_shares(self, message: Array, columns: Array) -> Array:
        """Messages after steps, scaled so that posterior probabilities there sum to one."""
        return message / (message * self.filtered[columns]).sum(axis=1, keepdims=True)

    def _backward(self, message: Array, marginals: Array, largest: Array | None) -> list[Array]:
        filtered, scaled, scale, peaks = self.filtered, self.scaled, self.scale, []
        onward = np.ascontiguousarray(self.transition.T)
        starts, ahead, n_later = self.layout.starts, self.ahead[:0], 0
        for step in range(len(starts) - 2, -1, -1):
            begin, end = starts[step], starts[step + 1]
            np.matmul(ahead, onward, out=message[:n_later])
            here, ahead = message[: end - begin], self.ahead[begin:end]
            np.multiply(filtered[begin:end], here, out=marginals[begin:end])
            # Messages grow where what is ahead of them was scaled, and nowhere else.
            if n_later < end - begin or self.every[step + 1]:
                peaks.append(here.max())
            if largest is not None:
                np.maximum.reduce(here, axis=1, out=largest[begin:end])
            np.multiply(scaled[begin:end], here, out=ahead)
            first = 0 if self.every[step] else n_later
            if first < end - begin:
                ahead[first:] /= scale[begin + first : end, None]
            n_later = end - begin
        return peaks

    def _join_backward(self, marginals: Array, largest: Array | None) -> tuple[bool, list[Array]]:
        """Start pieces back from what those after them begin with; tell whether all agree."""
        peaks: list[Array] = []
        layout, starts = self.layout, np.array(self.layout.starts)
        onward = self.transition.T
        # The column of a piece's first step is its number.
        after, pieces = follows, followed = layout.follows
        for _ in range(ROUNDS):
            running, changed = np.arange(len(pieces)), np.zeros(len(pieces), dtype=bool)
            steps = layout.lengths[pieces] - 1
            message = self._over_shares(self.ahead[after] @ onward, layout.last[pieces])
            while len(running):
                columns = starts[steps] + pieces[running]
                peaks.append(message.max())
                if largest is not None:
                    largest[columns] = message.max(axis=1)
                marginals[columns] = self.filtered[columns] * message
                now = self.scaled[columns] * message / self.scale[columns][:, None]
                # Looking costs as much as a step, so not at each of them.
                agree = steps % STRIDE == 0
                if agree.any():
                    agree[agree] = _agree(now[agree], self.ahead[columns[agree]])
                self.ahead[columns] = now
                changed[running[(steps == 0) & ~agree]] = True
                going = (steps > 0) & ~agree
                running, steps, message = running[going], steps[going] - 1, now[going] @ onward
            if not changed.any():
                return True, peaks
            again = np.isin(follows, pieces[changed])
            after, pieces = follows[again], followed[again]
            if not len(pieces):
                return True, peaks
        return False, peaks


def _agree(a: Array, b: Array) -> Array:
    """Whether all entries of rows agree, relative to their size: (m, K) -> (m,)."""
    agreed: Array = (np.abs(a - b) <= ROUNDING * np.abs(a) + TINY).all(axis=1)
    return agreed
