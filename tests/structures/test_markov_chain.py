"""Chains of any order: the program beside the counts, on both engines, and the law of EM."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl_gen import engines
from ppl_gen.algorithms.ngrams import NGramIndex
from ppl_gen.sequences import Sequences
from ppl_gen.structures.markov_chain import ContextChain

K = 3
ENGINES = ["numpyro", "pyro"]


def drawn(seed=0, sizes=(7, 1, 12, 4)):
    rng = np.random.default_rng(seed)
    return [rng.integers(K, size=size) for size in sizes]


def bound(sequences, order, smoothing=None, pseudocount=(0.5, 1.0, 2.0), complete=False):
    lengths = np.array([len(s) for s in sequences])
    codes = np.concatenate(sequences).astype(np.int64)
    index = NGramIndex.of(codes, np.cumsum(lengths) - lengths, order, K)
    index = index.completed() if complete else index
    structure = ContextChain(index, np.array(pseudocount), smoothing)
    return structure, structure.locate(codes, lengths)


def located(structure, sequences):
    codes = np.concatenate(sequences).astype(np.int64)
    return structure.locate(codes, np.array([len(s) for s in sequences]))


@pytest.mark.parametrize("engine_name", ENGINES)
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_program_is_the_prior_and_the_evidence(engine_name, order):
    structure, data = bound(drawn(), order, complete=True)
    parameters = structure.initialize(data, np.random.default_rng(0), "kmeans")
    engine = engines.get(engine_name)
    trace = engine.trace(
        structure.program().native(engine_name),
        (),
        structure.program_data(data),
        values=structure.sites(parameters),
    )
    # Some tens of terms of some nats, on another array library.
    np.testing.assert_allclose(
        trace["x"].log_prob, structure.log_evidence(parameters, data), rtol=1e-12
    )
    # EM's penalty is the same prior, up to a constant.
    more = 0.3 * (structure.index.symbol(order) < K)
    other = structure.m_step({"count": structure.count(data)["count"] + more})
    there = engine.trace(
        structure.program().native(engine_name),
        (),
        structure.program_data(data),
        values=structure.sites(other),
    )
    latent = [name for name, site in trace.items() if not site.observed and site.kind == "sample"]
    prior = sum(trace[name].log_prob.sum() - there[name].log_prob.sum() for name in latent)
    penalty = structure.penalty(other, {}) - structure.penalty(parameters, {})
    assert prior == pytest.approx(penalty, rel=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_engines_agree_on_the_log_joint_and_its_gradient(order):
    structure, data = bound(drawn(), order, complete=True)
    arguments = structure.program_data(data)
    rng = np.random.default_rng(0)
    program = structure.program()
    for _ in range(2):
        values = {
            name: rng.dirichlet(np.ones(K), size=value.shape[:-1])
            for name, value in structure.sites(structure.m_step(structure.count(data))).items()
        }
        (a, slope_a), (b, slope_b) = (
            engines.get(name).log_joint_and_grad(program.native(name), (), arguments, values)
            for name in ENGINES
        )
        # Both in float64, and summed in another order.
        assert a == pytest.approx(b, rel=1e-9)
        for name in values:
            np.testing.assert_allclose(slope_a[name], slope_b[name], rtol=1e-9)


@pytest.mark.parametrize("engine_name", ENGINES)
def test_new_sequences_in_the_program(engine_name):
    """Contexts that did not occur have the mean of the prior, in the program as in scoring."""
    structure, data = bound([np.array([0, 1, 0, 1, 1])], 2, complete=True)
    parameters = structure.initialize(data, np.random.default_rng(0), "kmeans")
    new = [np.array([2, 2, 0, 1]), np.array([1])]
    engine = engines.get(engine_name)
    trace = engine.trace(
        structure.program().native(engine_name),
        (),
        structure.program_data(located(structure, new)),
        values=structure.sites(parameters),
    )
    np.testing.assert_allclose(
        trace["x"].log_prob, structure.log_evidence(parameters, located(structure, new)), rtol=1e-12
    )


@pytest.mark.parametrize("engine_name", ENGINES)
def test_draws_of_the_program_follow_the_rows(engine_name):
    structure, data = bound(drawn(sizes=(60,)), 2, complete=True)
    parameters = structure.initialize(data, np.random.default_rng(0), "kmeans")
    sites = {name: value[None] for name, value in structure.sites(parameters).items()}
    engine = engines.get(engine_name)
    found = engine.predictive(
        structure.program().native(engine_name),
        (),
        {"n_sequences": 4000, "length": 3},
        sites,
        seed=0,
        sites=["x"],
    )["x"][0].astype(int)
    _assert_frequencies(structure, parameters, found)


def _assert_frequencies(structure, parameters, found):
    runs = np.array(list(itertools.product(range(K), repeat=3)))
    expected = np.exp(structure.log_evidence(parameters, located(structure, list(runs))))
    counts = np.bincount(found @ [9, 3, 1], minlength=27)
    # Four standard errors of each share, and 27 shares: one in 600 runs fails, were it not seeded.
    error = np.sqrt(expected * (1 - expected) / len(found))
    assert (np.abs(counts / len(found) - expected) < 4 * error + 1e-12).all()


@pytest.mark.parametrize("smoothing", [None, "kneser-ney"])
def test_draws_follow_the_rows(smoothing):
    structure, data = bound(drawn(sizes=(60,)), 2, smoothing)
    parameters = structure.initialize(data, np.random.default_rng(0), "kmeans")
    begun = structure.index.before(4000)
    found = structure.sample(parameters, begun, 3, np.random.default_rng(1))
    _assert_frequencies(structure, parameters, found)


@st.composite
def cases(draw):
    seed = draw(st.integers(0, 2**31))
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    return (
        drawn(seed, sizes),
        draw(st.integers(0, 3)),
        draw(st.sampled_from([None, "jelinek-mercer", "kneser-ney"])),
    )


@given(cases(), st.sampled_from([0.0, 1.0]))
def test_all_sequences_of_a_length_have_mass_one(case, prior):
    sequences, order, smoothing = case
    structure, data = bound(sequences, order, smoothing, (prior, 2 * prior, prior))
    parameters = structure.initialize(data, np.random.default_rng(0), "kmeans")
    every = [np.array(run) for run in itertools.product(range(K), repeat=4)]
    total = np.exp(structure.log_evidence(parameters, located(structure, every))).sum()
    assert total == pytest.approx(1.0, rel=1e-10)


@given(cases(), st.lists(st.floats(0.1, 5.0), min_size=4, max_size=4))
def test_statistics_add(case, weights):
    sequences, order, smoothing = case
    structure, data = bound(sequences, order, smoothing)
    parameters = structure.initialize(data, np.random.default_rng(0), "kmeans")
    data = Sequences(data.values, data.lengths, weights=np.array(weights[: len(data)]))
    whole, log_likelihood = structure.e_step(parameters, data)
    cut = len(data) // 2
    parts = [structure.e_step(parameters, p) for p in (data[:cut], data[cut:]) if len(p)]
    np.testing.assert_allclose(sum(s["count"] for s, _ in parts), whole["count"], atol=1e-12)
    assert sum(part for _, part in parts) == pytest.approx(log_likelihood)


@given(cases(), st.integers(1, 4))
def test_forecasts_are_sums_over_all_that_may_come(case, steps):
    sequences, order, smoothing = case
    structure, data = bound(sequences, order, smoothing)
    parameters = structure.initialize(data, np.random.default_rng(0), "kmeans")
    ends = structure.ends(data)
    found = structure.forecast(parameters, list(ends.T), steps)
    evidence = structure.log_evidence(parameters, data)
    runs = np.array(list(itertools.product(range(K), repeat=steps)))
    for sequence, come, far in zip(sequences, evidence, found, strict=True):
        ahead = located(structure, [np.concatenate([sequence, run]) for run in runs])
        chance = np.exp(structure.log_evidence(parameters, ahead) - come)
        for step in range(steps):
            expected = np.bincount(runs[:, step], chance, minlength=K)
            np.testing.assert_allclose(far[step], expected, rtol=1e-9, atol=1e-12)


def test_the_mode_maximises_the_posterior():
    structure, data = bound(drawn(), 1)
    counts = structure.count(data)
    best = structure.m_step(counts)

    def objective(parameters):
        return structure.e_step(parameters, data)[1] - structure.penalty(parameters, counts)

    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = structure.m_step(
            {"count": counts["count"] * rng.uniform(0.7, 1.3, len(counts["count"]))}
        )
        assert objective(moved) < objective(best)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_exact_draws_are_dirichlet(order):
    structure, data = bound(drawn(), order, complete=True)
    draws = structure.draw_posterior(data, 20_000, np.random.default_rng(0))
    counts = structure.m_step({"count": structure.count(data)["count"]})  # for the shapes alone
    exact = structure.sites(counts)
    assert {name: value.shape for name, value in exact.items()} == {
        name: value.shape[1:] for name, value in draws.items()
    }
    concentration = structure.count(data)["count"][:-1].reshape(-1, K) + 1.0 + structure.pseudocount
    total = concentration.sum(axis=1, keepdims=True)
    mean = concentration / total
    sd = np.sqrt(mean * (1.0 - mean) / (total + 1.0))
    found = structure.parameters(draws)["seen"][str(order)][:, :-1].reshape(20_000, -1, K)
    # Five standard errors, of at most 33 numbers.
    assert (np.abs(found.mean(axis=0) - mean) < 5.0 * sd / np.sqrt(20_000)).all()
    np.testing.assert_allclose(found.std(axis=0), sd, rtol=0.04)


def test_parameters_and_sites_are_one_to_one():
    for order in range(4):
        structure, data = bound(drawn(), order, complete=True)
        parameters = structure.initialize(data, np.random.default_rng(0), "kmeans")
        sites = structure.sites(parameters)
        again = structure.sites(structure.parameters(sites))
        for name, value in sites.items():
            np.testing.assert_allclose(again[name], value, rtol=1e-15)
            np.testing.assert_allclose(value.sum(axis=-1), 1.0, rtol=1e-12)


def test_labels_of_contexts():
    structure, _ = bound([np.array([0, 1, 2])], 2)
    found = structure.coords(["a", "b", "c"])
    assert found["context"] == ["ab", "bc"]
    assert found["start_context"] == ["a", ""]
    assert structure.coords(["up", "down", "on"])["context"] == ["up down", "down on"]


def test_what_is_too_large_for_a_program():
    rng = np.random.default_rng(0)
    index = NGramIndex.of(rng.integers(60, size=500), np.array([0]), 7, 60)
    structure = ContextChain(index, np.ones(60))
    with pytest.raises(
        ValueError, match="order 7 over 60 states has too many contexts for a program"
    ):
        structure.program()
