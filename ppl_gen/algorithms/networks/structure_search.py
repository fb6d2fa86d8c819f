"""Find the graph of a Bayesian network: trees, and tabu hill climbing.

Graphs are square boolean arrays with an edge from i to j where ``edges[i, j]``.
"""

import math
import warnings
from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from ppl_gen.algorithms.networks.structure_scores import LocalScores

__all__ = [
    "Climber",
    "Constraints",
    "Found",
    "chow_liu",
    "hill_climb",
    "mutual_information",
    "parents_of",
    "tree_augmented",
]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Move = tuple[int, int, bool]

#: An improvement is more than this share of the score: equivalent graphs differ by rounding.
TOLERANCE = 1e-10


@dataclass(frozen=True)
class Constraints:
    """Which graphs are searched.

    Attributes
    ----------
    allowed : (V, V) bool
        Edges that a graph may have.
    required : (V, V) bool
        Edges that it must have, among those allowed.
    max_parents : int
        The most parents that a node may have.
    """

    allowed: Flags
    required: Flags
    max_parents: int

    @classmethod
    def none(cls, n_nodes: int) -> "Constraints":
        """Every acyclic graph."""
        everything = ~np.eye(n_nodes, dtype=bool)
        return cls(everything, np.zeros_like(everything), n_nodes - 1)


@dataclass
class Found:
    """What a search came to.

    Attributes
    ----------
    edges : (V, V) bool
    score : float
    history : list of float
        Score after each move, where the search moves.
    """

    edges: Flags
    score: float
    history: list[float] = field(default_factory=list)


def parents_of(edges: Flags) -> list[list[int]]:
    """Return the parents of each node, in the order of the nodes."""
    return [np.flatnonzero(above).tolist() for above in edges.T]


def mutual_information(scores: LocalScores, given: int | None = None) -> Floats:
    """Return the mutual information of every two nodes, in nats: (V, V), zero on the diagonal.

    Parameters
    ----------
    scores : LocalScores
        With the score `Likelihood` of ``structure_scores``: what v gains in log likelihood from u
        as a parent, over the number of rows, is their mutual information in the empirical
        distribution; -1/2 log(1 - rho^2) for continuous ones.
    given : int, optional
        A node to condition on; its own row is zero.
    """
    above = [] if given is None else [given]
    gains = np.zeros((scores.n_nodes, scores.n_nodes))
    for v in range(scores.n_nodes):
        if v != given:
            gains[:, v] = scores.additions(v, above) - scores.local(v, above)
    # Of a discrete and a continuous node, only the continuous one can be the child.
    return np.asarray(np.maximum(np.maximum(gains, gains.T) / scores.total, 0.0), np.float64)


def chow_liu(weights: Floats, root: int | None = None) -> Flags:
    """Return the tree of greatest total weight, its edges pointing away from the root.

    Parameters
    ----------
    weights : (V, V)
        Symmetric. With mutual information it is the tree of greatest likelihood (Chow & Liu 1968,
        IEEE Transactions on Information Theory 14, 462-467).
    root : int, optional
        By default the node with the greatest sum of weights.

    Returns
    -------
    (V, V) bool

    Examples
    --------
    >>> weights = np.array([[0, 3, 1], [3, 0, 2], [1, 2, 0]], float)
    >>> [(int(u), int(v)) for u, v in zip(*chow_liu(weights, root=0).nonzero())]
    [(0, 1), (1, 2)]
    """
    if root is None:
        root = int(weights.sum(axis=0).argmax())
    edges = np.zeros(weights.shape, bool)
    # Prim's algorithm: the heaviest edge from the tree to each node outside.
    heaviest, nearest = weights[root].astype(float), np.full(len(weights), root)
    heaviest[root] = -np.inf
    for _ in range(len(weights) - 1):
        v = int(heaviest.argmax())
        edges[nearest[v], v] = True
        heaviest[v] = -np.inf
        closer = np.isfinite(heaviest) & (weights[v] > heaviest)
        heaviest[closer], nearest[closer] = weights[v][closer], v
    return edges


def tree_augmented(weights: Floats, target: int) -> Flags:
    """Return the tree-augmented naive Bayes graph: target to all, and a tree among the others.

    Parameters
    ----------
    weights : (V, V)
        Mutual information given the target.
    target : int

    Returns
    -------
    (V, V) bool

    References
    ----------
    Friedman, Geiger & Goldszmidt (1997), Bayesian network classifiers, Machine Learning 29,
    131-163, section 4.1.
    """
    others = np.flatnonzero(np.arange(len(weights)) != target)
    edges = np.zeros(weights.shape, bool)
    edges[np.ix_(others, others)] = chow_liu(weights[np.ix_(others, others)])
    edges[target, others] = True
    return edges


class Climber:
    """A graph that moves: its score, its legal moves, and what each would gain.

    Attributes
    ----------
    edges : (V, V) bool
    reach : (V, V) bool
        Whether there is a directed path from i to j; true on the diagonal.
    toggles : (V, V)
        What node j gains if i becomes, or no longer is, a parent.
    local : (V,)
        Scores of the nodes.
    key : uint64
        Exclusive or of one random number an edge, by which graphs are told apart (Zobrist 1970).
    """

    def __init__(
        self, scores: LocalScores, limits: Constraints, edges: Flags, rng: np.random.Generator
    ) -> None:
        self.scores, self.limits = scores, limits
        self.numbers = rng.integers(0, 2**64, edges.shape, np.uint64)
        self.local = np.empty(len(edges))
        self.toggles = np.empty(edges.shape)
        self.place(edges)

    @property
    def score(self) -> float:
        """Score of the graph."""
        return float(self.local.sum())

    def place(self, edges: Flags) -> None:
        """Go to another graph, which has no cycle."""
        self.edges = edges.copy()
        self.reach = np.eye(len(edges), dtype=bool)
        for i, j in zip(*edges.nonzero(), strict=True):
            self._connect(int(i), int(j))
        self.key = np.bitwise_xor.reduce(self.numbers[edges])
        for j in range(len(edges)):
            self._evaluate(j)

    def moves(self) -> tuple[Floats, Floats]:
        """Gains of toggling, and of turning, each edge; minus infinity where that is not allowed.

        An edge may be added where no path leads back, and turned where no other path leads from its
        tail to its head.
        """
        edges, limits = self.edges, self.limits
        has_room = edges.sum(axis=0) < limits.max_parents
        add = limits.allowed & ~edges & ~self.reach.T & has_room
        drop = edges & ~limits.required
        turn = np.full(edges.shape, -np.inf)
        i, j = (drop & limits.allowed.T & has_room[:, None]).nonzero()
        # Of the children of i, j alone leads to j if the edge is the only path.
        only = (edges[i] & self.reach.T[j]).sum(axis=1) == 1
        i, j = i[only], j[only]
        turn[i, j] = self.toggles[i, j] + self.toggles[j, i]
        return np.where(add | drop, self.toggles, -np.inf), turn

    def best(self, tabu: Container[Any] = ()) -> tuple[float, Move]:
        """Return the greatest gain, and the move that has it: ends of the edge, and if it turns.

        Moves to graphs whose keys are in `tabu` are left out.
        """
        gains = np.stack(self.moves())
        while True:
            turns, i, j = (int(k) for k in np.unravel_index(gains.argmax(), gains.shape))
            key = self.key ^ self.numbers[i, j]
            if turns:
                key ^= self.numbers[j, i]
            if gains[turns, i, j] == -np.inf or key not in tabu:
                return float(gains[turns, i, j]), (i, j, bool(turns))
            gains[turns, i, j] = -np.inf

    def apply(self, move: Move) -> None:
        """Make a legal move; only the nodes whose parents change are scored again."""
        i, j, is_turn = move
        if self.edges[i, j]:
            self.edges[i, j] = False
            self._disconnect(i)
        else:
            self.edges[i, j] = True
            self._connect(i, j)
        self.key ^= self.numbers[i, j]
        if is_turn:
            self.edges[j, i] = True
            self._connect(j, i)
            self.key ^= self.numbers[j, i]
            self._evaluate(i)
        self._evaluate(j)

    def _connect(self, i: int, j: int) -> None:
        self.reach |= self.reach[:, i, None] & self.reach[j]

    def _disconnect(self, i: int) -> None:
        """Find anew what the ancestors of i reach, those with the fewest descendants first."""
        above = np.flatnonzero(self.reach[:, i])
        for a in above[self.reach[above].sum(axis=1).argsort(kind="stable")]:
            self.reach[a] = self.reach[self.edges[a]].any(axis=0)
            self.reach[a, a] = True

    def _evaluate(self, j: int) -> None:
        above = np.flatnonzero(self.edges[:, j]).tolist()
        self.local[j] = self.scores.local(j, above)
        if len(above) < self.limits.max_parents:
            self.toggles[:, j] = self.scores.additions(j, above) - self.local[j]
        else:
            self.toggles[:, j] = -np.inf
        for u in above:
            fewer = [w for w in above if w != u]
            self.toggles[u, j] = self.scores.local(j, fewer) - self.local[j]


def hill_climb(
    scores: LocalScores,
    limits: Constraints,
    start: Flags,
    *,
    tabu: int,
    restarts: int,
    rng: np.random.Generator,
    interactive: bool = True,
) -> Found:
    """Climb from a graph by adding, dropping and turning edges, the best move first.

    Parameters
    ----------
    scores : LocalScores
    limits : Constraints
    start : (V, V) bool
        A graph within the limits.
    tabu : int
        How many of the last graphs may not be entered again, and after how many moves without a
        better graph a climb ends; with 0 it ends at the first local maximum.
    restarts : int
        Further climbs, each from the best graph so far with edges dropped and turned at random.
    rng : numpy.random.Generator
    interactive : bool
        Whether a bar shows the progress, and Ctrl-C ends the search with the best graph so far.

    Returns
    -------
    Found

    Warns
    -----
    RuntimeWarning
        If Ctrl-C ended the search.

    References
    ----------
    Glover (1989), Tabu search, ORSA Journal on Computing 1, 190-206. Koller & Friedman (2009),
    Probabilistic Graphical Models, section 18.4.3. The manner is that of bnlearn's ``tabu``
    (Scutari 2010, Journal of Statistical Software 35(3)).
    """
    found = Found(start.copy(), -math.inf)
    try:
        climber = Climber(scores, limits, start, rng)
        found.score = climber.score
        with tqdm(desc="structure search", unit="move", delay=1.0, disable=not interactive) as bar:
            for climb in range(restarts + 1):
                if climb:
                    climber.place(found.edges)
                    _perturb(climber, rng)
                for score in _climb(climber, tabu):
                    found.history.append(score)
                    if score > found.score + TOLERANCE * abs(found.score):
                        found.edges, found.score = climber.edges.copy(), score
                    bar.set_postfix_str(f"score {found.score:.6g}", refresh=False)
                    bar.update()
    except KeyboardInterrupt:
        if not interactive:
            raise
        warnings.warn(
            f"{scores.who}: stopped by Ctrl-C after {len(found.history)} moves; this is the best "
            "graph so far",
            RuntimeWarning,
            stacklevel=4,
        )
    return found


def _climb(climber: Climber, tabu: int) -> Iterator[float]:
    """Move until no move has led to a better graph for a while; yield the score after each."""
    visited = deque([climber.key], maxlen=tabu)
    best, waited = climber.score, 0
    while True:
        gain, move = climber.best(visited)
        rises = climber.score + gain > best + TOLERANCE * abs(best)
        if gain == -math.inf or not (rises or waited < tabu):
            return
        climber.apply(move)
        visited.append(climber.key)
        waited = 0 if rises else waited + 1
        best = max(best, climber.score)
        yield climber.score


def _perturb(climber: Climber, rng: np.random.Generator) -> None:
    """Drop or turn edges at random, one for every two nodes and three at least.

    What holds a climb fast are edges that point the wrong way and those that make up for them; an
    edge added at random only has to be taken away again.
    """
    for _ in range(max(3, len(climber.edges) // 2)):
        toggle, turn = climber.moves()
        legal = np.argwhere(np.isfinite([np.where(climber.edges, toggle, -np.inf), turn]))
        if not len(legal):
            return
        turns, i, j = legal[rng.integers(len(legal))]
        climber.apply((int(i), int(j), bool(turns)))
