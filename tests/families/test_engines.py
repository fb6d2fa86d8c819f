"""The same contract in every array library, and in the form of a program."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from family_members import (
    EVERY,
    N_CLASSES,
    N_ROWS,
    ROUNDING,
    WITH_HOLES,
    assert_trees_close,
    case,
    leaves,
    moved,
    prior_on,
)

from ppl_gen import engines
from ppl_gen.algorithms.trees import tree_map
from ppl_gen.families import Family
from ppl_gen.language import program

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
