"""A Markov chain of any order over K states: its counts, its estimates, and its program.

Order 1 has a row of probabilities a state; order k has one for each run of k states that occurs.
The first steps of a sequence have contexts too: marks stand before it, as many as are needed.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from ppl_gen.algorithms.ngrams import NGramIndex
from ppl_gen.algorithms.smoothing import SMOOTHING, dirichlet, distributions, probabilities
from ppl_gen.language import Program
from ppl_gen.sequences import Padded, Sequences
from ppl_gen.structures.markov_chain_program import chain_program

Array = Any
Parameters = dict[str, Any]
Statistics = dict[str, Any]

#: The program multiplies codes of a context into one number, which must fit an integer.
MAX_KEY = 2**31
#: Rows times states that the program, and with it `posterior_`, lays out.
MAX_TABLE = 2**25


@dataclasses.dataclass(frozen=True, eq=False)
class ContextChain:
    """p(x_1, ..., x_T) = prod_t p(x_t | the k states before it), given the length T.

    Parameters
    ----------
    index : NGramIndex
        The contexts, and what follows them.
    pseudocount : (K,)
        Prior count of every state after every context: rows have a Dirichlet(1 + pseudocount)
        prior.
    smoothing : str or None
        A name in `SMOOTHING`, or None for every context by itself.

    Notes
    -----
    Parameters are ``{"seen": {level: (cells,)}, "backoff": {level: (contexts,)}}``, as
    `ppl_gen.algorithms.smoothing` has them; they add a leading axis for draws. Data are
    `Sequences` whose rows :meth:`locate` made: the code of the state, then the numbers of the
    context and of the gram at each level.
    """

    index: NGramIndex
    pseudocount: Array
    smoothing: str | None = None

    @property
    def order(self) -> int:
        """States that the next one depends on."""
        return self.index.order

    @property
    def n_states(self) -> int:
        """K."""
        return self.index.n_symbols

    @property
    def levels(self) -> list[int]:
        """Lengths of the contexts that take part."""
        return [self.order] if self.smoothing is None else list(range(self.order + 1))

    @property
    def base(self) -> Array:
        """Distribution after a context of which nothing is known: (K,)."""
        total = self.pseudocount.sum()
        if self.smoothing is not None or total == 0.0:
            return np.full(self.n_states, 1.0 / self.n_states)
        return np.asarray(self.pseudocount / total)

    def to_tree(self) -> dict[str, Any]:
        """Return the structure as plain data, for an artefact."""
        return {
            "n_states": self.n_states,
            "keys": list(self.index.keys),
            "pseudocount": self.pseudocount,
            "smoothing": self.smoothing,
        }

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "ContextChain":
        """Return the structure that :meth:`to_tree` gave."""
        index = NGramIndex(tree["n_states"], tuple(tree["keys"]))
        return cls(index, tree["pseudocount"], tree["smoothing"])

    def with_prior(self) -> "ContextChain":
        """Return the structure with a count of one where it has none, for EM."""
        if (self.pseudocount > 0.0).all():
            return self
        counts = np.where(self.pseudocount > 0.0, self.pseudocount, 1.0)
        return dataclasses.replace(self, pseudocount=counts)

    def coords(self, names: list[Any]) -> dict[str, list[Any]]:
        """Labels of the axes of the program's sites, given the names of the states."""
        labels = [str(name) for name in names]
        found: dict[str, list[Any]] = {"state": labels}
        if self.order == 1:
            return found
        joiner = "" if all(len(label) == 1 for label in labels) else " "
        runs = [
            joiner.join(labels[code] for code in run if code < len(labels)) for run in self.runs
        ]
        inner = self.n_inner
        return {**found, "context": runs[:inner], "start_context": runs[inner:]}

    @property
    def runs(self) -> Array:
        """States of every longest context, K standing for a mark before a sequence: (C, order)."""
        columns: list[Array] = []
        grams = np.arange(self.index.n_contexts(self.order))
        for level in range(self.order - 1, -1, -1):
            columns.insert(0, self.index.symbol(level)[grams])
            grams = self.index.prefix(level)[grams]
        return np.stack(columns, axis=1) if columns else np.zeros((1, 0), dtype=np.int64)

    @property
    def n_inner(self) -> int:
        """Longest contexts that lie within a sequence; those at its start are numbered after."""
        return 1 if self.order == 0 else int((~self.index.begins[self.order - 1]).sum())

    # -- data ----------------------------------------------------------------------------------

    def locate(self, codes: Array, lengths: Array, weights: Array | None = None) -> Sequences:
        """Number the contexts and grams of every step: see the notes of the class."""
        contexts, cells = self.index.locate(codes, np.cumsum(lengths) - lengths)
        columns = [codes, *(part[level] for level in self.levels for part in (contexts, cells))]
        return Sequences(np.stack(columns, axis=1), lengths, weights=weights)

    def _located(self, values: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """Numbers of contexts and of grams by level, from rows."""
        return (
            {str(level): values[:, 1 + 2 * i] for i, level in enumerate(self.levels)},
            {str(level): values[:, 2 + 2 * i] for i, level in enumerate(self.levels)},
        )

    def check(self, sequences: Sequences) -> None:
        """Every sequence of known states has a density."""

    # -- density -------------------------------------------------------------------------------

    def log_evidence(self, parameters: Parameters, sequences: Sequences) -> Array:
        """Log density of each sequence, in nats: (n,)."""
        contexts, cells = self._located(sequences.values)
        found = probabilities(
            parameters["seen"],
            parameters["backoff"],
            self.base,
            sequences.values[:, 0],
            contexts,
            cells,
        )
        with np.errstate(divide="ignore"):  # some states may never follow some others
            logs = np.log(found)
        return np.add.reduceat(logs, sequences.ends - sequences.lengths)

    def following(self, parameters: Parameters, contexts: list[Array]) -> Array:
        """Distributions of the next state after contexts of each level: (M, K)."""
        chosen = {str(level): contexts[level] for level in self.levels}
        return distributions(
            parameters["seen"], parameters["backoff"], self.base, self.index, chosen
        )

    # -- the EM protocol -----------------------------------------------------------------------

    def initialize(self, data: Sequences, rng: np.random.Generator, how: str) -> Parameters:
        """Estimate from the counts: nothing is hidden, and so EM has nothing to improve."""
        return self.m_step(self.count(data))

    def count(self, data: Sequences) -> Statistics:
        """Weighted number of times that each longest gram occurs: (cells,)."""
        size = len(self.index.keys[self.order])
        return {"count": np.bincount(data.values[:, -1], data.row_weights, minlength=size) * 1.0}

    def e_step(self, parameters: Parameters, data: Sequences) -> tuple[Statistics, Array]:
        """Counts and log likelihood; both add over sequences."""
        evidence = self.log_evidence(parameters, data)
        return self.count(data), evidence.sum() if data.weights is None else data.weights @ evidence

    def m_step(self, statistics: Statistics) -> Parameters:
        """Posterior mode under the Dirichlet prior, or the smoothed estimate."""
        counts = statistics["count"]
        if self.smoothing is None:
            seen, backoff = dirichlet(self.index, counts, self.pseudocount)
        else:
            seen, backoff = SMOOTHING[self.smoothing](self.index, counts)
        return {"seen": seen, "backoff": backoff}

    def penalty(self, parameters: Parameters, statistics: Statistics) -> float:
        """Negative log prior of the rows, up to a constant."""
        total = self.pseudocount.sum()
        if self.smoothing is not None or total == 0.0:
            return 0.0
        key = str(self.order)
        backoff, seen = parameters["backoff"][key], parameters["seen"][key]
        positive = self.pseudocount[self.pseudocount > 0.0]
        # All states as if none had been seen, then those that were.
        log_prior = total * np.log(backoff).sum()
        log_prior += len(backoff) * (positive * np.log(positive / total)).sum()
        cells = np.flatnonzero(self.index.symbol(self.order) < self.n_states)
        prior = self.pseudocount[self.index.symbol(self.order)[cells]]
        cells, prior = cells[prior > 0.0], prior[prior > 0.0]
        unseen = backoff[self.index.prefix(self.order)[cells]] * prior / total
        log_prior += (prior * np.log1p(seen[cells] / unseen)).sum()
        return -float(log_prior)

    def revive(
        self, parameters: Parameters, statistics: Statistics, data: Any, rng: np.random.Generator
    ) -> tuple[Parameters, int]:
        """There are no components that could die."""
        return parameters, 0

    def draw_posterior(
        self, data: Sequences, n_draws: int, rng: np.random.Generator
    ) -> dict[str, Array]:
        """Draw the sites of the program from their posterior, which is Dirichlet: (draws, ...)."""
        counts = self.count(data)["count"][:-1].reshape(-1, self.n_states)
        gammas = rng.standard_gamma(1.0 + self.pseudocount + counts, (n_draws, *counts.shape))
        rows = gammas / gammas.sum(axis=-1, keepdims=True)
        if self.order == 0:
            return {"transition": rows}
        start = rows[:, self.n_inner :]
        return {
            "transition": rows[:, : self.n_inner],
            "start": start[:, 0] if self.order == 1 else start,
        }

    # -- drawing and forecasting ---------------------------------------------------------------

    def sample(
        self, parameters: Parameters, contexts: list[Array], steps: int, rng: np.random.Generator
    ) -> Array:
        """Draw how sequences go on after contexts of each level: (M, steps) codes."""
        drawn = np.empty((len(contexts[0]), steps), dtype=np.int64)
        for t in range(steps):
            cumulative = self.following(parameters, contexts).cumsum(axis=1)
            heights = rng.random(len(drawn)) * cumulative[:, -1]
            drawn[:, t] = (heights[:, None] >= cumulative[:, :-1]).sum(axis=1)
            contexts = self.index.advance(contexts, drawn[:, t])
        return drawn

    def forecast(self, parameters: Parameters, contexts: list[Array], steps: int) -> Array:
        """Distributions of each of the next states after contexts of each level: (M, steps, K).

        Exact: what is to come depends on the longest part of the context that occurs, so that the
        chain over these parts is one of order 1, of which only what can be reached is followed.
        """
        masses: Array = np.eye(len(contexts[0]))  # (M, contexts reached)
        found = np.empty((len(masses), steps, self.n_states))
        for step in range(steps):
            following = self.following(parameters, contexts)
            found[:, step] = masses @ following
            here, symbols = np.nonzero(following)
            after = self.index.advance([part[here] for part in contexts], symbols)
            codes, place = np.unique(np.stack(after, axis=1), axis=0, return_inverse=True)
            shape = (len(following), len(codes))
            masses = masses @ csr_array((following[here, symbols], (here, place)), shape=shape)
            contexts = list(codes.T)
        return found

    def ends(self, sequences: Sequences) -> Array:
        """Contexts of each level at the end of sequences: (n, order + 1)."""
        codes, ends, lengths = sequences.values[:, 0], sequences.ends, sequences.lengths
        contexts = np.stack(self.index.before(len(lengths)), axis=1)
        for back in range(self.order, 0, -1):
            there = np.flatnonzero(lengths >= back)
            moved = self.index.advance(list(contexts[there].T), codes[ends[there] - back])
            contexts[there] = np.stack(moved, axis=1)
        return contexts

    def rows(self, parameters: Parameters) -> Array:
        """Distributions after every longest context: (C, K)."""
        size = self.index.n_contexts(self.order)
        if size * self.n_states > MAX_TABLE:
            raise ValueError(
                f"MarkovChain: {size:,} contexts times {self.n_states:,} states are too many for a "
                "table; use log_prob, forecast and sample"
            )
        contexts = [np.arange(size)]
        for level in range(self.order - 1, -1, -1):
            shorter = self.index.suffix[level - 1] if level else np.zeros_like(self.index.keys[0])
            contexts.insert(0, shorter[contexts[0]])
        return self.following(parameters, contexts)

    # -- the program ---------------------------------------------------------------------------

    @property
    def has_program(self) -> bool:
        """Whether the model is a program: smoothed it is an estimate, with no prior."""
        table = self.index.n_contexts(self.order) * self.n_states
        keys = float(self.n_states + 1) ** self.order
        return self.smoothing is None and table <= MAX_TABLE and keys < MAX_KEY

    def program(self) -> Program:
        """Return the model as a program, with its priors: see `chain_program`."""
        if self.smoothing is not None:
            raise ValueError(
                f"MarkovChain: smoothing={self.smoothing!r} gives estimates, which have no prior "
                "to make a program with; set smoothing=None"
            )
        if not self.has_program:
            raise ValueError(
                f"MarkovChain: order {self.order} over {self.n_states:,} states has too many "
                "contexts for a program; fit by EM, or lower the order"
            )
        # Contexts as numbers in base K + 1, in rising order.
        keys = self.runs @ (self.n_states + 1) ** np.arange(self.order - 1, -1, -1)
        n_start = self.index.n_contexts(self.order) - self.n_inner if self.order else 0
        return chain_program(
            self.order, keys, self.n_inner, n_start, 1.0 + self.pseudocount, self.base
        )

    def program_data(self, data: Sequences) -> dict[str, Array]:
        """Return the sequences as the arguments of the program.

        With their number and length, so that as many are drawn as were observed.
        """
        x = Padded.of(dataclasses.replace(data, values=data.values[:, :1])).values[..., 0]
        return {"x": x, "n_sequences": len(x), "length": x.shape[1]}

    def parameters(self, sites: dict[str, Array]) -> Parameters:
        """Return the parameters from the sites of the program; leading axes are draws."""
        transition = sites["transition"]
        lead = transition.shape[:-2]
        parts = [transition.reshape(*lead, -1)]
        if self.order:
            parts.append(sites["start"].reshape(*lead, -1))
        parts.append(np.zeros((*lead, 1)))  # what stands for the marks
        backoff = np.zeros((*lead, self.index.n_contexts(self.order)))
        key = str(self.order)
        return {"seen": {key: np.concatenate(parts, axis=-1)}, "backoff": {key: backoff}}

    def sites(self, parameters: Parameters) -> dict[str, Array]:
        """Name parameters as the sites of the program."""
        rows = self.rows(parameters)
        if self.order == 0:
            return {"transition": rows}
        transition, start = rows[: self.n_inner], rows[self.n_inner :]
        return {"transition": transition, "start": start[0] if self.order == 1 else start}
