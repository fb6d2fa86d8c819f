import numpy as np
import pytest

from ppl_gen.diagnostics import of_chains, of_independent_draws, of_point

RNG = np.random.default_rng(0)
GOOD = {"mu": RNG.normal(size=(4, 500)), "L": RNG.normal(size=(4, 500, 2))}


def sampler(**changes):
    stats = {
        "diverging": np.zeros((4, 500), bool),
        "energy": RNG.normal(size=(4, 500)),
        "reached_max_treedepth": np.zeros((4, 500), bool),
    }
    return {**stats, **changes}


def test_good_chains():
    verdict = of_chains(GOOD, sampler(), {})
    assert verdict.ok
    assert "4 chains of 500 draws" in str(verdict)
    assert "no divergences" in verdict.text
    assert verdict.figures["max_rhat"] < 1.01
    assert verdict.figures["min_bulk_ess"] > 400
    assert "good" in verdict._repr_html_()


@pytest.mark.parametrize(
    ("draws", "stats", "info", "said", "advice"),
    [
        (
            {"mu": GOOD["mu"] + np.arange(4)[:, None]},
            sampler(),
            {},
            "chains disagree: R-hat is",
            "exchangeable=",
        ),
        ({"mu": GOOD["mu"][:, :60]}, {}, {}, "effective draws in the bulk of mu", "draw more"),
        (GOOD, sampler(diverging=np.eye(4, 500, dtype=bool)), {}, "4 divergences in", "target"),
        (GOOD, sampler(energy=RNG.normal(size=(4, 500)).cumsum(1)), {}, "BFMI is 0.0", "heavy"),
        (
            GOOD,
            sampler(reached_max_treedepth=np.ones((4, 500), bool)),
            {},
            "100.0% of the trajectories",
            "dense_mass",
        ),
        ({"mu": np.where(GOOD["mu"] > 3, np.inf, GOOD["mu"]), "ok": GOOD["mu"]}, {}, {},
         "draws of mu are NaN or infinite", "overflow"),
        (GOOD, sampler(), {"interrupted": True}, "was interrupted", "to its end"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_what_to_do(draws, stats, info, said, advice):
    verdict = of_chains(draws, stats, info)
    assert not verdict.ok
    assert said in verdict.text
    assert advice in verdict.text.partition("What to do:")[2]


def test_the_worst_entry_is_named():
    draws = {"b": GOOD["L"] + np.array([0.0, 1.0]) * np.arange(4)[:, None, None]}
    assert "for b[1], and over 1.01 for 1 of 2 entries" in of_chains(draws, {}, {}).text


def test_constants_are_left_out():
    draws = {**GOOD, "one": np.ones((4, 500)), "sum": 1 + 1e-16 * RNG.integers(0, 3, (4, 500))}
    verdict = of_chains(draws, {}, {})
    assert verdict.ok
    assert "2 constant entries left out" in verdict.text


def test_nothing_but_constants():
    assert of_chains({"one": np.ones((4, 50))}, {}, {}).ok


def test_independent_draws_by_pareto_k():
    draws = {"mu": RNG.normal(size=(1, 100))}
    assert of_independent_draws(draws, {"pareto_k": 0.3, "converged": True}).ok
    poor = of_independent_draws(draws, {"pareto_k": 0.9})
    assert not poor.ok
    assert "Pareto k is 0.90" in poor.text
    assert not of_independent_draws(draws, {"pareto_k": 0.1, "converged": False}).ok
    for unknown in ({}, {"pareto_k": None}, {"pareto_k": np.nan}):
        assert of_independent_draws(draws, unknown).ok
        assert "not measured" in of_independent_draws(draws, unknown).text
    exact = of_independent_draws(draws, {"exact": True})
    assert exact.ok
    assert "from the posterior itself" in exact.text


def test_convergence_that_was_not_judged_is_neither_good_nor_bad():
    draws = {"mu": RNG.normal(size=(1, 100))}
    for verdict in (
        of_independent_draws(draws, {"pareto_k": 0.3, "converged": None}),
        of_point({"converged": None}),
    ):
        assert verdict.ok
        assert "convergence was not judged (set tol for that" in verdict.text
        assert "did not converge" not in verdict.text
    stopped = of_point({"converged": None, "interrupted": True})
    assert "was interrupted. What to do: run it to its end" in stopped.text
    assert of_point({"converged": True, "interrupted": True}).ok


def test_point():
    assert of_point({}).ok
    assert of_point({"converged": True}).ok
    assert "did not converge" in of_point({"converged": False}).text
    assert of_point({}).text == (
        "One point estimate, without uncertainty. Nothing speaks against using it."
    )


@pytest.mark.parametrize(
    ("stopped", "ok", "told"),
    [
        ("epochs", True, "training went to the end of its last epoch, 2, and whether that was"),
        ("patience", True, "training ended with epoch 2, the validation loss falling no more"),
        ("max_seconds", True, "training ended with its time, max_seconds"),
        ("interrupted", False, "But training was interrupted. What to do: train to the end"),
        ("diverged", False, "But training diverged. What to do: lower learning_rate"),
    ],
)
def test_the_end_of_a_networks_training_is_told(stopped, ok, told):
    verdict = of_point({"stopped": stopped, "epochs": 2})
    assert verdict.ok is ok
    assert told in verdict.text
