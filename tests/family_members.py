"""Every family with rows it takes, and quadrature over its support as an oracle.

A new family joins the contract of tests/families by one line of `MEMBERS`.

Quadrature is a product of nodes and weights, one set a column, over which densities are summed
exactly (finite supports), to a negligible tail (counts), or by the trapezoid rule (normals, for
which it converges faster than any power of the step).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ppl_gen.families import (
    Bernoulli,
    Categorical,
    Columns,
    FactorNormal,
    Family,
    MixtureFamily,
    Multinomial,
    Normal,
    Poisson,
)

N_CLASSES = 2
N_ROWS = 40
#: Total of every multinomial row, so that its support is finite.
TOTAL = 4
# Sums of some tens of double-precision terms.
ROUNDING = {"rtol": 1e-11, "atol": 1e-11}

# -- columns to draw from, with the nodes that cover their support ------------------------------

Nodes = tuple[np.ndarray, np.ndarray]


def trapezoid(column: np.ndarray) -> Nodes:
    # Ten deviations beyond the data leave a tail of 1e-23, and a step of .4 deviations an
    # error of exp(-2 pi^2 / .4^2): the columns have about the same spread.
    deviation, seen = np.nanstd(column), column[~np.isnan(column)]
    nodes = np.linspace(seen.min() - 10.0 * deviation, seen.max() + 10.0 * deviation, 80)
    return nodes, np.full(80, nodes[1] - nodes[0])


def counts_to(highest: int) -> Callable[[np.ndarray], Nodes]:
    return lambda column: (np.arange(highest + 1.0), np.ones(highest + 1))


def normal_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=(n, 3)) @ np.array([[1.3, 0.3, 0], [0, 1, -0.4], [0, 0, 0.8]]) + [
        5,
        -1,
        0,
    ]


def yes_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    return (rng.random((n, 3)) < [0.3, 0.5, 0.8]).astype(float)


def code_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.stack([rng.integers(size, size=n) for size in (2, 4, 3)], axis=1).astype(float)


def shared_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.multinomial(TOTAL, [0.5, 0.2, 0.3], size=n).astype(float)


def count_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.poisson([0.8, 2.0, 3.0], size=(n, 3)).astype(float)


def mixed_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    rows = (normal_rows(rng, n)[:, :1], count_rows(rng, n)[:, :1], code_rows(rng, n)[:, 2:])
    return np.concatenate(rows, axis=1)


@dataclasses.dataclass(frozen=True)
class Member:
    """A family with settings, rows it takes, and nodes that cover each column's support."""

    family: Family
    rows: Callable[[np.random.Generator, int], np.ndarray]
    nodes: tuple[Callable[[np.ndarray], Nodes], ...]
    takes_nan: bool = True
    #: Free parameters of two classes.
    n_free: int = 0

    def grid(self, x: np.ndarray, fixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points that agree with `fixed` where it is not NaN, and their weights."""
        axes = [
            make(x[:, d]) if np.isnan(fixed[d]) else (fixed[d : d + 1], np.ones(1))
            for d, make in enumerate(self.nodes)
        ]
        points = np.stack(np.meshgrid(*[a for a, _ in axes], indexing="ij"), -1)
        weights = np.prod(np.stack(np.meshgrid(*[w for _, w in axes], indexing="ij"), -1), -1)
        points, weights = points.reshape(-1, len(axes)), weights.ravel()
        if not self.takes_nan:  # a multinomial row: its total is given
            keep = points.sum(axis=1) == TOTAL
            points, weights = points[keep], weights[keep]
        return points, weights


CODES = (counts_to(1), counts_to(3), counts_to(2))
# A rate of three (classes differ: five at most) puts 1e-16 beyond thirty.
COUNTS = (counts_to(30),) * 3

MEMBERS = {
    "normal-full": Member(Normal("full"), normal_rows, (trapezoid,) * 3, n_free=18),
    "normal-tied": Member(Normal("tied"), normal_rows, (trapezoid,) * 3, n_free=12),
    "normal-diag": Member(Normal("diag"), normal_rows, (trapezoid,) * 3, n_free=12),
    "normal-spherical": Member(Normal("spherical"), normal_rows, (trapezoid,) * 3, n_free=8),
    "factor-diag": Member(FactorNormal(1), normal_rows, (trapezoid,) * 3, n_free=18),
    "factor-isotropic": Member(
        FactorNormal(2, "isotropic"), normal_rows, (trapezoid,) * 3, n_free=18
    ),
    "bernoulli": Member(Bernoulli(), yes_rows, (counts_to(1),) * 3, n_free=6),
    "categorical": Member(Categorical(n_categories=(2, 4, 3)), code_rows, CODES, n_free=12),
    "multinomial": Member(
        Multinomial(), shared_rows, (counts_to(TOTAL),) * 3, takes_nan=False, n_free=4
    ),
    "poisson": Member(Poisson(), count_rows, COUNTS, n_free=6),
    "columns": Member(
        # Columns out of order and apart, as dtypes of a table may have them.
        Columns(
            (
                ("size", Normal("full"), (2, 0)),
                ("count", Poisson(), (3,)),
                ("kind", Categorical(n_categories=(4, 2)), (4, 1)),
            )
        ),
        lambda rng, n: np.concatenate(
            [
                normal_rows(rng, n)[:, :1],
                code_rows(rng, n)[:, :1],
                normal_rows(rng, n)[:, 2:],
                count_rows(rng, n)[:, :1],
                code_rows(rng, n)[:, 1:2],
            ],
            axis=1,
        ),
        (trapezoid, counts_to(1), trapezoid, counts_to(20), counts_to(3)),
        n_free=10 + 2 + 8,
    ),
    "mixture": Member(
        MixtureFamily(Normal("full"), 2, weights_concentration=0.7),
        normal_rows,
        (trapezoid,) * 3,
        n_free=2 + 36,
    ),
    "mixture-of-factors": Member(
        MixtureFamily(FactorNormal(1), 2), normal_rows, (trapezoid,) * 3, n_free=2 + 36
    ),
    "mixture-of-columns": Member(
        MixtureFamily(
            Columns(
                (
                    ("count", Poisson(), (1,)),
                    ("size", Normal("diag"), (0,)),
                    ("kind", Categorical(n_categories=(3,)), (2,)),
                )
            ),
            3,
        ),
        mixed_rows,
        (trapezoid, counts_to(30), counts_to(2)),
        n_free=4 + 6 + 12 + 12,
    ),
    "columns-of-mixtures": Member(
        Columns(
            (
                ("size", MixtureFamily(Normal("spherical"), 2), (0,)),
                ("count", Poisson(), (1,)),
                ("kind", MixtureFamily(Categorical(n_categories=(3,)), 3), (2,)),
            )
        ),
        mixed_rows,
        (trapezoid, counts_to(30), counts_to(2)),
        n_free=(2 + 8) + 2 + (4 + 12),
    ),
}
#: Members with latent components or factors: their M-step takes an E-step before it.
MIXED = ["mixture", "mixture-of-factors", "mixture-of-columns", "columns-of-mixtures"]
FACTORS = ["factor-diag", "factor-isotropic"]
PLAIN = [name for name in MEMBERS if name not in MIXED + FACTORS]
COMPLETE_ONLY = [name for name, member in MEMBERS.items() if not member.takes_nan]
TAKES_NAN = [name for name in MEMBERS if name not in COMPLETE_ONLY]
EVERY = list(MEMBERS)


def prior_on(part: Family) -> Family:
    """Settings under which every family estimates a posterior mode, with nothing else added."""
    if isinstance(part, FactorNormal):
        return part.replace(prior="default")
    return part.replace(prior="default", reg_covar=0.0) if isinstance(part, Normal) else part


def punched(x: np.ndarray, rng: np.random.Generator, share: float = 0.35) -> np.ndarray:
    """Holes, never in the first row."""
    holes = rng.random(x.shape) < share
    holes[0] = False
    return np.where(holes, np.nan, x)


@dataclasses.dataclass
class Case:
    member: Member
    family: Family
    x: np.ndarray
    responsibilities: np.ndarray
    parameters: dict[str, Any]


def case(
    name: str,
    seed: int = 0,
    *,
    missing: bool = False,
    change: Callable[[Family], Family] = lambda part: part,
    n_rows: int = N_ROWS,
) -> Case:
    """A bound family, rows, responsibilities, and parameters that are neither's optimum."""
    member = MEMBERS[name]
    rng = np.random.default_rng(seed)
    x = member.rows(rng, n_rows)
    if missing:
        x = punched(x, rng)
    family = member.family.with_settings(change).bind(x, N_CLASSES)
    r = rng.dirichlet(np.full(N_CLASSES, 0.4), size=n_rows) * rng.uniform(0.5, 2.0, (n_rows, 1))
    parameters = family.estimate(family.initial_statistics(x, r))
    # Components of a class start alike; they are moved apart.
    return Case(member, family, x, r, moved(parameters, rng, 0.2 if name in MIXED else 0.1))


def moved(parameters: dict[str, Any], rng: np.random.Generator, step: float) -> dict[str, Any]:
    """Parameters a random step away, by coordinates that cannot leave their space."""
    out: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, dict):
            out[name] = moved(value, rng, step)
            continue
        noise = step * rng.normal(size=value.shape)
        if name == "mean":
            out[name] = value + noise
        elif name == "precision_cholesky" and _is_factor(parameters):
            out[name] = value @ (np.eye(value.shape[-1]) + np.triu(noise))
        elif name == "probs" and value.ndim == 2 and not np.allclose(value.sum(axis=1), 1.0):
            odds = value / (1.0 - value) * np.exp(noise)  # yes or no
            out[name] = odds / (1.0 + odds)
        elif name in ("probs", "weights"):
            raised = value * np.exp(noise)
            out[name] = raised / raised.sum(axis=-1, keepdims=True)
        else:  # rates, and reciprocal deviations
            out[name] = value * np.exp(noise)
    return out


def _is_factor(parameters: dict[str, Any]) -> bool:
    """Whether the normal's factor is triangular, not a vector of deviations."""
    factor, mean = parameters["precision_cholesky"], parameters["mean"]
    return bool(
        factor.ndim == 3
        or (
            factor.ndim == 2
            and np.allclose(factor, np.triu(factor))
            and factor.shape == (mean.shape[1],) * 2
        )
    )


def leaves(tree: Any) -> list[np.ndarray]:
    if isinstance(tree, dict):
        return [leaf for name in sorted(tree) for leaf in leaves(tree[name])]
    return [np.asarray(tree)]


def assert_trees_close(found: Any, expected: Any, **tolerance: float) -> None:
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **(tolerance or ROUNDING))


def holes_of(name: str) -> list[bool]:
    return [False, True] if MEMBERS[name].takes_nan else [False]


WITH_HOLES = [
    pytest.param(name, missing, id=f"{name}-{'holes' if missing else 'complete'}")
    for name in EVERY
    for missing in holes_of(name)
]
