"""The E-step of hidden Markov models where JAX traces it, for devices that are not here."""

import jax
import numpy as np
import pytest

from ppl_gen import engines
from ppl_gen.algorithms.trees import tree_map
from ppl_gen.families import Categorical, MixtureFamily, Normal, Poisson
from ppl_gen.sequences import Padded, Sequences
from ppl_gen.structures.hidden_markov import HiddenMarkov

FAMILIES = {
    "full": Normal("full"),
    "diag": Normal("diag"),
    "poisson": Poisson(alpha=0.0),
    "categorical": Categorical(alpha=0.0),
    "mixture": MixtureFamily(Normal("diag"), 2),
}


def problem(name):
    """A chain of three states, and sequences of unequal lengths with holes in them."""
    rng = np.random.default_rng(0)
    levels = np.repeat([0.0, 4.0, 8.0, 0.0, 4.0], 12)[:, None] + np.zeros((1, 2))
    values = rng.normal(levels) if name in ("full", "diag", "mixture") else rng.poisson(levels)
    values = np.minimum(values[:, :1], 9.0) if name == "categorical" else np.abs(values) * 1.0
    if name != "categorical":
        values[5, 0] = np.nan
    values[20] = np.nan
    sequences = Sequences(values, np.array([25, 5, 30]), weights=np.array([1.0, 2.0, 0.5]))
    family = FAMILIES[name].bind(values, 3)
    structure = HiddenMarkov(family, 3, np.ones(3), np.ones((3, 3)))
    return structure, sequences, structure.initialize(sequences, rng, "kmeans")


def on_device(structure, sequences, parameters):
    engine = engines.get("numpyro")
    with engine.precision(device="cpu"):
        arrays = [None if a is None else engine.asarray(a) for a in Padded.of(sequences).arrays]
        found = structure.e_step(tree_map(engine.asarray, parameters), Padded(*arrays))
        return tree_map(engine.to_numpy, found[0]), float(found[1])


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_the_counts(name, backend, monkeypatch):
    """Step by step as on a CPU, and in a tree as on a GPU: the counts of the NumPy passes."""
    structure, sequences, parameters = problem(name)
    expected, evidence = structure.e_step(parameters, sequences)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    found, total = on_device(structure, sequences, parameters)
    assert total == pytest.approx(evidence, rel=1e-12)
    tree_map(
        # Gradients of logarithms have the rounding of their size.
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9),
        found,
        expected,
    )


@pytest.mark.parametrize("name", ["diag", "mixture", "categorical"])
def test_the_e_step_compiles_for_a_gpu(name, monkeypatch):
    """Exported for CUDA where there is none: every operation has a lowering there."""
    structure, sequences, parameters = problem(name)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    engine = engines.get("numpyro")
    with engine.precision(device="cpu"):
        arrays = [None if a is None else engine.asarray(a) for a in Padded.of(sequences).arrays]
        step = jax.jit(lambda p, x, n: structure.e_step(p, Padded(x, n)))
        exported = jax.export.export(step, platforms=["cuda"])(
            tree_map(engine.asarray, parameters), arrays[0], arrays[1]
        )
    assert exported.platforms == ("cuda",)
