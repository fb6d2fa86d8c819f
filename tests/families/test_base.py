"""One contract over every family. A new family joins by one line of `MEMBERS`.

The oracle is quadrature: a product of nodes and weights, one set a column, over which densities
are summed exactly (finite supports), to a negligible tail (counts), or by the trapezoid rule
(normals, for which it converges faster than any power of the step).
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl_gen import engines
from ppl_gen.algorithms.trees import tree_map, tree_sum
from ppl_gen.engines.random_source import NumPyRandom
from ppl_gen.families import (
    FAMILIES,
    Bernoulli,
    Categorical,
    Columns,
    Family,
    Multinomial,
    Normal,
    Poisson,
)
from ppl_gen.language import program

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
}
COMPLETE_ONLY = [name for name, member in MEMBERS.items() if not member.takes_nan]
TAKES_NAN = [name for name in MEMBERS if name not in COMPLETE_ONLY]
EVERY = list(MEMBERS)


def prior_on(part: Family) -> Family:
    """Settings under which every family estimates a posterior mode, with nothing else added."""
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
    return Case(member, family, x, r, moved(parameters, rng, 0.1))


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
        elif name == "probs":
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


def test_every_named_family_is_under_contract():
    covered = {type(member.family) for member in MEMBERS.values()}
    assert set(FAMILIES.values()) <= covered


# -- the laws -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "missing"), WITH_HOLES)
@given(cut=st.integers(0, N_ROWS), seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_statistics_add_over_rows(name, missing, cut, seed):
    c = case(name, seed, missing=missing)
    whole = c.family.statistics(c.parameters, c.x, c.responsibilities)
    parts = [
        c.family.statistics(c.parameters, c.x[rows], c.responsibilities[rows])
        for rows in (slice(0, cut), slice(cut, None))
        if len(c.x[rows])
    ]
    assert_trees_close(tree_sum(parts), whole)


@pytest.mark.parametrize("name", EVERY)
def test_the_density_sums_to_one(name):
    c = case(name)
    points, weights = c.member.grid(c.x, np.full(c.x.shape[1], np.nan))
    total = weights @ np.exp(c.family.log_prob(c.parameters, points))
    # Tails beyond the nodes; see `trapezoid` and `COUNTS`.
    np.testing.assert_allclose(total, np.ones(N_CLASSES), rtol=1e-10)


@pytest.mark.parametrize("name", TAKES_NAN)
def test_a_missing_entry_is_summed_out(name):
    c = case(name, missing=True)
    found = c.family.log_prob(c.parameters, c.x)
    for row in range(12):
        points, weights = c.member.grid(c.x, c.x[row])
        expected = np.log(weights @ np.exp(c.family.log_prob(c.parameters, points)))
        # The acceptance bound for the likelihood of incomplete rows.
        np.testing.assert_allclose(found[row], expected, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize(("name", "missing"), WITH_HOLES)
def test_the_e_step_is_the_density_and_the_statistics(name, missing):
    c = case(name, missing=missing)
    log_prob, statistics_of = c.family.e_step(c.parameters, c.x)
    np.testing.assert_allclose(log_prob, c.family.log_prob(c.parameters, c.x), **ROUNDING)
    assert log_prob.shape == (N_ROWS, N_CLASSES)
    assert_trees_close(
        statistics_of(c.responsibilities),
        c.family.statistics(c.parameters, c.x, c.responsibilities),
    )


@pytest.mark.parametrize(("name", "missing"), WITH_HOLES)
def test_statistics_are_those_of_quadrature(name, missing):
    """The statistics of a row are those of its completions, each by its probability."""
    c = case(name, missing=missing, n_rows=8)
    x = np.nan_to_num(c.x, nan=np.nan)
    found = c.family.statistics(c.parameters, x, c.responsibilities)
    if c.family.is_one_pass(c.x):
        return  # sums over what is observed: nothing is completed
    total = None
    for row in range(len(x)):
        points, weights = c.member.grid(c.x, x[row])
        shares = weights[:, None] * np.exp(c.family.log_prob(c.parameters, points))
        shares *= c.responsibilities[row] / shares.sum(axis=0)
        fresh = normal_statistics(c.family, points, shares)
        total = fresh if total is None else tree_sum([total, fresh])
    if isinstance(c.family, Columns):
        found = found["size"]
    # The trapezoid rule, on moments of the order of the data's squares (some tens).
    assert_trees_close(found, total, rtol=1e-9, atol=1e-9)


def normal_statistics(family: Family, points: np.ndarray, r: np.ndarray) -> dict[str, Any]:
    if isinstance(family, Columns):
        _, part, places = family.parts[0]
        assert isinstance(part, Normal)
        family, points = part, points[:, list(places)]
    assert isinstance(family, Normal)
    x = points - family.offset
    outer = np.einsum("nk,nd,ne->kde", r, x, x, optimize=True)
    square = outer.sum(axis=0) if family.covariance_type == "tied" else outer
    return {"count": r.sum(axis=0), "sum": r.T @ x, "square": square}


def expected_log_density(family: Family, parameters: Any, x: np.ndarray, r: np.ndarray) -> float:
    statistics = family.initial_statistics(x, r)
    log_prob = family.log_prob(parameters, x)
    return float((r * log_prob).sum()) - family.penalty(parameters, statistics)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda part: part, id="as-is"),
        pytest.param(prior_on, id="prior"),
        pytest.param(
            lambda part: (
                part.replace(prior="default", reg_covar=0.3) if isinstance(part, Normal) else part
            ),
            id="prior-and-floor",
        ),
        pytest.param(
            lambda part: (
                part.replace(reg_covar=0.3) if isinstance(part, Normal) else part.replace(alpha=0.0)
            ),
            id="floor-no-prior",
        ),
    ],
)
def test_the_estimate_is_a_maximum(name, change):
    c = case(name, 3, change=change)
    best = c.family.estimate(c.family.initial_statistics(c.x, c.responsibilities))

    def objective(parameters: Any) -> float:
        return expected_log_density(c.family, parameters, c.x, c.responsibilities)

    top = objective(best)
    size = np.abs(top) + N_ROWS
    for seed in range(20):
        ends = []
        for sign in (1.0, -1.0):
            near = moved(best, np.random.default_rng(seed), sign * 1e-4)
            ends.append(objective(near))
        # A step of 1e-4 lowers a maximum by about curvature x 1e-8 / 2: a share of 1e-8 of the
        # objective, well above its rounding, 1e-15. Off a maximum by 1e-6, one side would rise.
        assert max(ends) <= top + 1e-13 * size
        slope = (ends[0] - ends[1]) / 2e-4
        assert abs(slope) <= 1e-6 * size


def moments(points: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and second moments (with their mixed ones) under weights that sum to one."""
    return shares @ points, np.einsum("n,nd,ne->de", shares, points, points, optimize=True)


def assert_moments_match(drawn: np.ndarray, points: np.ndarray, shares: np.ndarray) -> None:
    pairs = np.einsum("nd,ne->nde", drawn, drawn).reshape(len(drawn), -1)
    first, second = moments(points, shares)
    for sample, expected in ((drawn, first), (pairs, second.ravel())):
        error = sample.std(axis=0) / np.sqrt(len(sample))
        # Five standard errors: some tens of moments over some tens of cases pass by chance
        # 0.999 of the time, and the seeds are fixed.
        assert (np.abs(sample.mean(axis=0) - expected) <= 5.0 * error + 1e-9).all()


@pytest.mark.parametrize("name", EVERY)
def test_draws_have_the_moments_of_the_density(name):
    c = case(name)
    points, weights = c.member.grid(c.x, np.full(c.x.shape[1], np.nan))
    each = weights[:, None] * np.exp(c.family.log_prob(c.parameters, points))
    for k in range(N_CLASSES):
        labels = np.full(20_000, k)
        drawn = c.family.sample(c.parameters, labels, NumPyRandom(k))
        assert drawn.shape == (20_000, c.x.shape[1])
        assert_moments_match(drawn, points, each[:, k])
        whole = np.asarray(c.family.whole)
        assert (drawn[:, whole] == np.floor(drawn[:, whole])).all()


@pytest.mark.parametrize("name", TAKES_NAN)
def test_missing_entries_are_drawn_from_their_conditional(name):
    c = case(name, missing=True)
    row = c.x[np.flatnonzero(np.isnan(c.x).sum(axis=1) == 2)[0]]
    points, weights = c.member.grid(c.x, row)
    each = weights[:, None] * np.exp(c.family.log_prob(c.parameters, points))
    each /= each.sum(axis=0)
    for k in range(N_CLASSES):
        rows = np.broadcast_to(row, (20_000, len(row)))
        drawn = c.family.draw_missing(c.parameters, rows, np.full(20_000, k), NumPyRandom(k))
        seen = ~np.isnan(row)
        np.testing.assert_array_equal(drawn[:, seen], rows[:, seen])
        assert_moments_match(drawn, points, each[:, k])


@pytest.mark.parametrize("name", TAKES_NAN)
def test_filling_in_is_the_conditional_mean_or_mode(name):
    c = case(name, missing=True)
    for k in range(N_CLASSES):
        certain = np.eye(N_CLASSES)[np.full(len(c.x), k)]
        filled = c.family.fill(c.parameters, c.x, certain)
        for row in range(12):
            points, weights = c.member.grid(c.x, c.x[row])
            shares = weights * np.exp(c.family.log_prob(c.parameters, points)[:, k])
            shares /= shares.sum()
            for d in np.flatnonzero(np.isnan(c.x[row])):
                values, places = np.unique(points[:, d], return_inverse=True)
                by_value = np.bincount(places, shares)
                part = _part_of(c.family, d)
                if isinstance(part, Bernoulli | Categorical):
                    assert filled[row, d] == values[by_value.argmax()]
                else:
                    # The trapezoid rule and the tail of counts.
                    assert filled[row, d] == pytest.approx(by_value @ values, abs=1e-8)


def _part_of(family: Family, column: int) -> Family:
    if not isinstance(family, Columns):
        return family
    return next(part for _, part, places in family.parts if column in places)


# -- array libraries ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "missing"), WITH_HOLES)
def test_traced_by_jax_the_e_step_is_the_same(name, missing):
    c = case(name, missing=missing)
    engine = engines.get("numpyro")

    def e_step(parameters: Any, x: Any, r: Any) -> Any:
        log_prob, statistics_of = c.family.e_step(parameters, x)
        return log_prob, statistics_of(r)

    with engine.precision(device="cpu"):
        import jax

        log_prob, statistics = jax.jit(e_step)(
            tree_map(engine.asarray, c.parameters),
            engine.asarray(c.x),
            engine.asarray(c.responsibilities),
        )
        found = tree_map(engine.to_numpy, statistics)
    np.testing.assert_allclose(log_prob, c.family.log_prob(c.parameters, c.x), **ROUNDING)
    expected = c.family.statistics(c.parameters, c.x, c.responsibilities)
    # Squares of values of the order of ten, summed over the rows.
    assert_trees_close(found, tree_map(np.asarray, expected), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(("name", "missing"), WITH_HOLES)
def test_in_torch_the_density_is_the_same_and_its_gradients_are_finite(name, missing):
    c = case(name, missing=missing)
    engine = engines.get("pyro")
    with engine.precision(device="cpu"):
        parameters = tree_map(lambda leaf: engine.asarray(leaf).requires_grad_(), c.parameters)
        log_prob = c.family.log_prob(parameters, engine.asarray(c.x))
        np.testing.assert_allclose(
            log_prob.detach().numpy(), c.family.log_prob(c.parameters, c.x), **ROUNDING
        )
        log_prob.sum().backward()
        gradients = tree_map(lambda leaf: leaf.grad.numpy(), parameters)
    for gradient in leaves(gradients):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(("name", "missing"), WITH_HOLES)
def test_no_tensor_is_made_away_from_the_data(name, missing):
    # On torch's "meta" device a tensor made on the CPU by mistake raises: it stands for a GPU.
    import torch

    c = case(name, missing=missing)

    def place(leaf: Any) -> Any:
        return torch.as_tensor(leaf, device="meta")

    found = c.family.log_prob(tree_map(place, c.parameters), place(c.x))
    assert found.device.type == "meta"
    assert found.shape == (N_ROWS, N_CLASSES)


# -- the program form -------------------------------------------------------------------------


def prior_program(family: Family) -> Any:
    @program
    def prior() -> None:
        family.draw(N_CLASSES, "component", "x_")

    return prior


@pytest.mark.parametrize("name", EVERY)
def test_parameters_come_back_from_the_sites(name):
    c = case(name)
    sites = c.family.sites(c.parameters, "x_")
    back = c.family.parameters(sites, "x_")
    # The factor of a precision is not unique; the density is.
    np.testing.assert_allclose(
        c.family.log_prob(back, c.x), c.family.log_prob(c.parameters, c.x), rtol=1e-10
    )
    draws = {name: np.stack([value, value]) for name, value in sites.items()}
    stacked = c.family.parameters(draws, "x_")
    assert_trees_close(tree_map(lambda leaf: leaf[1], stacked), back)


@pytest.mark.parametrize("engine_name", ["numpyro", "pyro"])
@pytest.mark.parametrize("name", EVERY)
def test_the_program_is_the_prior_of_the_penalty(name, engine_name):
    c = case(name, change=prior_on)
    engine = engines.get(engine_name)
    native = getattr(prior_program(c.family), engine_name)
    trace = engine.outline(native)
    shapes = {n: s.value.shape for n, s in trace.items() if s.kind in ("sample", "deterministic")}
    assert shapes == {n: v.shape for n, v in c.family.sites(c.parameters, "x_").items()}
    sampled = {n for n, s in trace.items() if s.kind == "sample"}
    nothing = c.family.initial_statistics(c.x, 0.0 * c.responsibilities)
    found, expected = [], []
    density = log_density_of(engine_name, native)
    for seed in range(3):
        parameters = moved(c.parameters, np.random.default_rng(seed), 0.3)
        sites = c.family.sites(parameters, "x_")
        values = {n: v for n, v in sites.items() if n in sampled}
        found.append(density(values))
        expected.append(-c.family.penalty(parameters, nothing) + jacobian(values))
    # Up to a constant: differences from the first point, of the order of ten nats.
    np.testing.assert_allclose(
        np.subtract(found, found[0]), np.subtract(expected, expected[0]), rtol=1e-9, atol=1e-9
    )


def log_density_of(engine_name: str, native: Any) -> Callable[[Any], float]:
    """Log joint density of a model without data, compiled once where that is cheaper."""
    engine = engines.get(engine_name)
    if engine_name == "pyro":
        return lambda values: engine.log_joint(native, (), {}, values)
    import jax
    from numpyro.infer.util import log_density

    compiled = jax.jit(lambda values: log_density(native, (), {}, values)[0])

    def density(values: Any) -> float:
        with engine.precision(device="cpu"):
            return float(compiled({n: engine.asarray(v) for n, v in values.items()}))

    return density


def jacobian(values: dict[str, np.ndarray]) -> float:
    """Log |d covariance / d precision|: the mode is of the covariance's density.

    Fraley & Raftery's mode is taken over covariances, the program draws precisions; by
    |dC| = |P|^-(D + 1) |dP| the densities differ by that factor. (Constant changes of units,
    such as whitening by the prior's scale, change both by a constant.)
    """
    return -sum(
        (value.shape[-1] + 1.0) * float(np.linalg.slogdet(value)[1].sum())
        for name, value in values.items()
        if "precision" in name
    )


# -- the rest -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_known_classes_give_the_estimate_of_certain_responsibilities(name):
    c = case(name)
    labels = np.arange(N_ROWS) % N_CLASSES
    hot = np.eye(N_CLASSES)[labels]
    near = hot[:10].T @ c.x[:10] / 5.0
    found = c.family.labelled_estimate(near, c.family.labelled_statistics(near, c.x, labels, hot))
    expected = c.family.estimate(c.family.initial_statistics(c.x, hot))
    assert_trees_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "missing"), WITH_HOLES)
def test_terms_by_column_sum_to_the_density(name, missing):
    c = case(name, missing=missing)
    dependent = any(
        isinstance(part, Normal) and part.covariance_type in ("full", "tied")
        for part in parts_of(c.family)
    )
    if dependent:
        with pytest.raises(ValueError, match="independent columns"):
            c.family.column_log_prob(c.parameters, c.x)
        return
    total = c.family.column_log_prob(c.parameters, c.x).sum(axis=2)
    rest = total - c.family.log_prob(c.parameters, c.x)
    if isinstance(c.family, Multinomial):
        # The coefficient belongs to no column, and to no class.
        np.testing.assert_allclose(rest, rest[:, :1] + np.zeros(N_CLASSES), **ROUNDING)
        return
    np.testing.assert_allclose(rest, 0.0, atol=1e-11)


def parts_of(family: Family) -> list[Family]:
    return [part for _, part, _ in family.parts] if isinstance(family, Columns) else [family]


@pytest.mark.parametrize(("name", "missing"), WITH_HOLES)
def test_features_embed_every_row(name, missing):
    c = case(name, missing=missing)
    features = c.family.features(c.x)
    assert features.shape[0] == N_ROWS
    assert np.isfinite(features).all()


@pytest.mark.parametrize("name", EVERY)
def test_free_parameters_are_counted(name):
    assert case(name).family.n_free(N_CLASSES) == MEMBERS[name].n_free


@pytest.mark.parametrize("name", EVERY)
def test_binding_twice_is_binding_once(name):
    c = case(name)
    again = c.family.bind(c.x, N_CLASSES)
    np.testing.assert_array_equal(
        again.log_prob(c.parameters, c.x), c.family.log_prob(c.parameters, c.x)
    )
    assert again.n_columns == c.x.shape[1]
    assert len(again.whole) == c.x.shape[1]


@pytest.mark.parametrize("name", EVERY)
def test_settings_build_the_family_again(name):
    c = case(name)
    again = type(c.family)(**c.family.get_params())
    np.testing.assert_array_equal(
        again.log_prob(c.parameters, c.x), c.family.log_prob(c.parameters, c.x)
    )


def compositions() -> list[tuple[int, ...]]:
    return [p for p in itertools.product(range(TOTAL + 1), repeat=3) if sum(p) == TOTAL]


def test_the_multinomial_grid_is_all_compositions():
    # The oracle itself: fifteen ways to share four among three.
    c = case("multinomial")
    points, _ = c.member.grid(c.x, np.full(3, np.nan))
    assert {tuple(map(int, p)) for p in points} == set(compositions())
