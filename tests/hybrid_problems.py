"""Random networks of states and numbers, and what they say by brute force.

Given all states, the numbers are one dense normal, (I - B)^-1 of independent noise; what rows say
is a sum over the states. Nothing here uses the package but the distributions it hands over.
"""

import dataclasses
import itertools

import numpy as np

from ppl_gen.models.bayesian_network.cpds import LinearGaussianCPD, TabularCPD

LOG_2PI = np.log(2.0 * np.pi)


@dataclasses.dataclass
class Hybrid:
    """A network: `sizes` are zero of numbers; tables and lines are by the node's name."""

    names: list
    sizes: dict
    parents: dict
    tables: dict
    lines: dict

    @property
    def cpds(self):
        """Its conditional distributions, as the model takes them."""
        states = {n: tuple(range(size)) for n, size in self.sizes.items() if size}
        cpds = {}
        for n in self.names:
            own = {p: states[p] for p in (*self.parents[n], n) if p in states}
            if self.sizes[n]:
                cpds[n] = TabularCPD(n, self.tables[n], self.parents[n], own)
            else:
                cpds[n] = LinearGaussianCPD(n, *self.lines[n], self.parents[n], own)
        return cpds

    @property
    def discrete(self):
        """Names of the nodes with states."""
        return [n for n in self.names if self.sizes[n]]

    @property
    def numbers(self):
        """Names of the numbers."""
        return [n for n in self.names if not self.sizes[n]]

    def configurations(self):
        """All joint states, each with its log probability, and the numbers' mean and covariance."""
        for states in itertools.product(*(range(self.sizes[n]) for n in self.discrete)):
            code = dict(zip(self.discrete, states, strict=True))
            log_prob = 0.0
            for n in self.discrete:
                with np.errstate(divide="ignore"):
                    log_prob += np.log(
                        self.tables[n][(*(code[p] for p in self.parents[n]), code[n])]
                    )
            place = {n: i for i, n in enumerate(self.numbers)}
            width = len(place)
            level, noise, arcs = np.zeros(width), np.zeros(width), np.zeros((width, width))
            for n in self.numbers:
                intercept, coefficients, variance = self.lines[n]
                own = tuple(code[p] for p in self.parents[n] if self.sizes[p])
                level[place[n]], noise[place[n]] = intercept[own], variance[own]
                above = [p for p in self.parents[n] if not self.sizes[p]]
                arcs[place[n], [place[p] for p in above]] = coefficients[own]
            spread = np.linalg.inv(np.eye(width) - arcs)
            yield code, log_prob, spread @ level, spread @ np.diag(noise) @ spread.T

    def answers(self, row):
        """What a row (dict of name to value) says: its log density, and the rest given it.

        Returns the log density, the probability of each joint state, and the conditional means
        and covariances of all numbers in each: (S,), (S, C), (S, C, C).
        """
        numbers = self.numbers
        seen = [i for i, n in enumerate(numbers) if n in row]
        unseen = [i for i, n in enumerate(numbers) if n not in row]
        value = np.array([row[numbers[i]] for i in seen])
        codes, logs, means, covariances = [], [], [], []
        for code, log_prob, mean, covariance in self.configurations():
            if any(code[n] != row[n] for n in code if n in row):
                continue
            away = value - mean[seen]
            block = covariance[np.ix_(seen, seen)]
            if seen:
                solved = np.linalg.solve(block, away)
                log_det = np.linalg.slogdet(block)[1]
                log_prob -= 0.5 * (away @ solved + log_det + len(seen) * LOG_2PI)
            whole, left = np.zeros(len(numbers)), np.zeros((len(numbers), len(numbers)))
            whole[seen] = value
            if unseen:
                cross = covariance[np.ix_(unseen, seen)]
                gain = np.linalg.solve(block, cross.T).T if seen else np.zeros((len(unseen), 0))
                whole[unseen] = mean[unseen] + gain @ away
                left[np.ix_(unseen, unseen)] = covariance[np.ix_(unseen, unseen)] - gain @ cross.T
            codes.append(code)
            logs.append(log_prob)
            means.append(whole)
            covariances.append(left)
        logs = np.array(logs)
        log_evidence = np.logaddexp.reduce(logs)
        weights = np.exp(logs - log_evidence)
        return log_evidence, codes, weights, np.array(means), np.array(covariances)

    def draw(self, rng, n):
        """Draw rows, a column for each node in the order of the names: (n, V)."""
        found = list(self.configurations())
        chosen = rng.choice(len(found), n, p=np.exp([c[1] for c in found]))
        rows = np.empty((n, len(self.names)))
        for r, k in enumerate(chosen):
            code, _, mean, covariance = found[k]
            drawn = iter(rng.multivariate_normal(mean, covariance) if len(mean) else ())
            rows[r] = [code[name] if self.sizes[name] else next(drawn) for name in self.names]
        return rows


def random_hybrid(rng, n_discrete=3, n_numbers=3, max_parents=3, max_size=3):
    """Draw a network whose nodes stand in no special order; states have parents with states."""
    kinds = rng.permutation([True] * n_discrete + [False] * n_numbers)
    sizes = {
        f"n{i}": int(rng.integers(2, max_size + 1)) if whole else 0 for i, whole in enumerate(kinds)
    }
    names = list(sizes)
    rank = {n: r for n, r in zip(names, rng.permutation(len(names)), strict=True)}
    parents, tables, lines = {}, {}, {}
    for n in names:
        # States come before numbers, among each other in the order of the ranks.
        able = [p for p in names if (rank[p] < rank[n] and sizes[p]) or False]
        if not sizes[n]:
            able = [p for p in names if p != n and (sizes[p] or rank[p] < rank[n])]
        count = int(rng.integers(0, min(max_parents, len(able)) + 1))
        own = parents[n] = tuple(rng.permutation(able)[:count].tolist())
        shape = tuple(sizes[p] for p in own if sizes[p])
        if sizes[n]:
            table = rng.gamma(0.8, size=(*shape, sizes[n])) + 1e-3
            tables[n] = table / table.sum(axis=-1, keepdims=True)
        else:
            width = sum(not sizes[p] for p in own)
            lines[n] = (
                rng.normal(size=shape),
                rng.normal(size=(*shape, width)),
                rng.gamma(2.0, size=shape) + 0.1,
            )
    return Hybrid(names, sizes, parents, tables, lines)


def random_gaps(rng, rows, share=0.4):
    """Return rows with gaps at random."""
    return np.where(rng.random(rows.shape) < share, np.nan, rows)


def as_dicts(names, rows):
    """Rows as dicts of what they show."""
    return [{n: v for n, v in zip(names, row, strict=True) if not np.isnan(v)} for row in rows]
