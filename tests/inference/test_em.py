"""The EM driver: what it must do whatever the model, and what it finds against a peer."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as PeerMixture

import ppl_gen
from ppl_gen import EM, GaussianMixture, Mixture, engines
from ppl_gen import data as data_module
from ppl_gen.algorithms import row_chunks
from ppl_gen.algorithms.trees import tree_map, tree_sum
from ppl_gen.data import Rows
from ppl_gen.families import Bernoulli, Categorical, Columns, Multinomial, Normal, Poisson
from ppl_gen.structures.latent_class import LatentClass

COVARIANCE_TYPES = ["full", "tied", "diag", "spherical"]


def blobs(n_rows=300, n_columns=3, n_classes=3, seed=0, spread=2.0):
    """Overlapping classes, so that EM has work to do."""
    rng = np.random.default_rng(seed)
    centres = spread * rng.normal(size=(n_classes, n_columns))
    labels = rng.integers(n_classes, size=n_rows)
    mixing = rng.normal(size=(n_classes, n_columns, n_columns)) * 0.3 + np.eye(n_columns)
    noise = rng.normal(size=(n_rows, n_columns))
    return centres[labels] + np.einsum("nde,ne->nd", mixing[labels], noise)


def with_holes(x, share=0.25, seed=1):
    rng = np.random.default_rng(seed)
    holes = rng.random(x.shape) < share
    holes[: 2 * x.shape[1]] = False
    return np.where(holes, np.nan, x)


def mixed_rows(n_rows=200, seed=0):
    """Two classes of a number, a yes or no, a code and a count."""
    rng = np.random.default_rng(seed)
    z = rng.integers(2, size=n_rows)
    columns = [
        rng.normal(np.where(z, 2.0, -1.0)),
        rng.random(n_rows) < np.where(z, 0.8, 0.2),
        np.where(rng.random(n_rows) < 0.7, 2 * z, 1),
        rng.poisson(np.where(z, 6.0, 2.0)),
    ]
    return np.column_stack(columns).astype(float)


MIXED = Columns(
    (
        ("size", Normal("diag"), (0,)),
        ("yes", Bernoulli(), (1,)),
        ("kind", Categorical(), (2,)),
        ("count", Poisson(), (3,)),
    )
)


def counts(n_rows=150, seed=0):
    rng = np.random.default_rng(seed)
    probs = np.array([[0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.3, 0.5]])
    return np.array([rng.multinomial(12, probs[k]) for k in rng.integers(2, size=n_rows)], float)


#: A bound structure and rows for each family, holes where the family takes them.
def problem(name, seed=0, prior=None, missing=True):
    if name in COVARIANCE_TYPES:
        x, family, n_classes = blobs(seed=seed), Normal(name, prior=prior), 3
    elif name == "mixed":
        x, family, n_classes = mixed_rows(seed=seed), MIXED, 2
    else:
        x, family, n_classes = counts(seed=seed), Multinomial(), 2
    if missing and name != "multinomial":
        x = with_holes(x)
    return LatentClass(family.bind(x, n_classes), n_classes), Rows(x)


PROBLEMS = [*COVARIANCE_TYPES, "mixed", "multinomial"]


def run(structure, rows, seed=0, start=None, **settings):
    settings = {"max_iter": 10, "tol": 0.0} | settings
    return EM(**settings).fit(structure, rows, np.random.default_rng(seed), start=start)


def assert_trees_close(found, expected, **tolerance):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_trees_close(found[name], expected[name], **tolerance)
        return
    np.testing.assert_allclose(found, expected, **tolerance)


# -- against a peer ---------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_twenty_steps_are_scikit_learns(covariance_type):
    x = blobs(n_rows=500)
    rng = np.random.default_rng(3)
    precisions = {
        "full": np.stack([np.eye(3) * s for s in (0.5, 1.0, 2.0)]),
        "tied": np.eye(3) + 0.2,
        "diag": rng.uniform(0.5, 2.0, size=(3, 3)),
        "spherical": np.array([0.5, 1.0, 2.0]),
    }[covariance_type]
    start = {
        "weights_init": np.array([0.2, 0.3, 0.5]),
        "means_init": x[rng.choice(500, 3, replace=False)],
        "precisions_init": precisions,
    }
    peer = PeerMixture(3, covariance_type=covariance_type, tol=0.0, max_iter=20, **start)
    with pytest.warns(ConvergenceWarning):
        peer.fit(x)
    model = GaussianMixture(3, covariance_type, inference=EM(max_iter=20, tol=0.0), **start).fit(x)
    # The acceptance bound is 1e-6; the same arithmetic in another order leaves rounding, which
    # twenty steps between overlapping classes multiply to some 1e-12.
    tolerance = {"rtol": 1e-9, "atol": 1e-10}
    np.testing.assert_allclose(model.weights_, peer.weights_, **tolerance)
    np.testing.assert_allclose(model.means_, peer.means_, **tolerance)
    np.testing.assert_allclose(model.covariances_, peer.covariances_, **tolerance)
    np.testing.assert_allclose(model.precisions_, peer.precisions_, **tolerance)
    assert model.lower_bound_ == pytest.approx(peer.lower_bound_, rel=1e-11)
    np.testing.assert_allclose(model.predict_proba(x), peer.predict_proba(x), **tolerance)
    np.testing.assert_allclose(model.log_prob(x), peer.score_samples(x), **tolerance)


# -- the laws -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("labelled", [False, True])
def test_the_e_step_adds_over_rows(name, labelled):
    structure, rows = problem(name)
    n_rows = len(rows)
    rng = np.random.default_rng(1)
    labels = rng.integers(-1, structure.n_classes, size=n_rows) if labelled else None
    rows = Rows(rows.values, rng.uniform(0.0, 2.0, n_rows), labels)
    parameters = structure.initialize(rows, rng, "random")
    statistics, log_likelihood = structure.e_step(parameters, rows)
    for cut in (1, 70, n_rows - 1):
        parts = [structure.e_step(parameters, rows[:cut]), structure.e_step(parameters, rows[cut:])]
        # Sums of a few hundred terms in another order.
        assert_trees_close(
            tree_sum([part[0] for part in parts]), statistics, rtol=1e-11, atol=1e-10
        )
        assert sum(part[1] for part in parts) == pytest.approx(log_likelihood, rel=1e-12)


def random_problem(seed):
    """A small problem of any kind: family, width, order, holes, weights, prior."""
    rng = np.random.default_rng(seed)
    n_rows, n_columns = int(rng.integers(12, 60)), int(rng.integers(1, 5))
    n_classes = int(rng.integers(1, 4))
    kind = PROBLEMS[seed % len(PROBLEMS)]
    if kind in COVARIANCE_TYPES:
        x = blobs(n_rows, n_columns, max(n_classes, 2), seed)
        prior = [None, "default"][int(rng.integers(2))]
        floor = float(rng.choice([1e-6, 0.1] if prior is None else [0.0, 0.1]))
        family = Normal(kind, reg_covar=floor, prior=prior)
    elif kind == "mixed":
        x, family = mixed_rows(n_rows, seed), MIXED
    else:
        x, family = counts(n_rows, seed), Multinomial(alpha=float(rng.choice([0.01, 1.0])))
    if kind != "multinomial" and rng.random() < 0.6:
        x = with_holes(x, 0.3, seed)
    weights = rng.uniform(0.2, 3.0, n_rows) if rng.random() < 0.3 else None
    bound = family.bind(x, n_classes)
    concentration = float(rng.choice([0.0, 1.0]))
    return LatentClass(bound, n_classes, concentration), Rows(x, weights)


@pytest.mark.parametrize("block", range(10))
def test_the_objective_never_falls(block):
    """On a hundred problems; the monitor, which holds each step to EM's own law, stays silent."""
    for seed in range(10 * block, 10 * block + 10):
        structure, rows = random_problem(seed)
        with warnings.catch_warnings():
            # A dead component is no fault; a falling objective would raise here.
            warnings.filterwarnings("ignore", message=".*components died", category=RuntimeWarning)
            result = run(structure, rows, seed, max_iter=15, init="random")
        assert result.n_iter == 15
        if result.n_revived == 0 and slack(structure) is not None:
            assert np.diff(result.history).min() >= -slack(structure), f"seed {seed}"


def slack(structure):
    """How far the objective may fall, in nats a row; None where nothing says.

    A prior is a function of the parameters alone, and then the objective rises but for rounding.
    `reg_covar` acts through the counts too, and may lower it by something of its own order.
    """
    floor = getattr(structure.family, "floor", 0.0)
    return {0.0: 1e-10, 1e-6: 1e-6}.get(floor)


class Broken(LatentClass):
    """A model whose M-step walks away from the maximum after the third step."""

    steps = 0

    def m_step(self, statistics):
        parameters = super().m_step(statistics)
        type(self).steps += 1
        if type(self).steps > 3:
            parameters["family"]["mean"] = parameters["family"]["mean"] + 1.0
        return parameters


def test_a_falling_objective_is_a_fault():
    structure, rows = problem("full")
    broken = Broken(structure.family, structure.n_classes)
    Broken.steps = 0
    with pytest.warns(RuntimeWarning, match="objective fell by .* at step"):
        # The tolerance would call any small change converged.
        result = run(broken, rows, max_iter=50, tol=1e-3)
    assert not result.converged
    assert result.n_iter < 50


def test_a_log_likelihood_that_is_not_finite_is_an_error():
    class Infinite(LatentClass):
        def e_step(self, parameters, rows):
            return super().e_step(parameters, rows)[0], np.array(-np.inf)

    structure, rows = problem("diag")
    with pytest.raises(FloatingPointError, match="log likelihood is -inf at step 1"):
        run(Infinite(structure.family, structure.n_classes), rows)


# -- convergence, starts, reviving ------------------------------------------------------------


def test_converged_means_the_objective_stands_still():
    structure, rows = problem("full")
    result = run(structure, rows, max_iter=500, tol=1e-8)
    assert result.converged
    assert abs(result.history[-1] - result.history[-2]) < 1e-8
    assert result.n_iter == len(result.history) < 500
    stopped = run(structure, rows, max_iter=2, tol=1e-8)
    assert not stopped.converged
    assert stopped.n_iter == 2


def test_the_best_start_is_kept():
    structure, rows = problem("full", missing=False)
    result = run(structure, rows, n_init=6, init="random", max_iter=30)
    assert len(result.objectives) == 6
    assert result.objective == max(result.objectives)
    assert max(result.objectives) > min(result.objectives)
    alone = [
        run(structure, rows, seed=seed, init="random", max_iter=30).objective for seed in range(3)
    ]
    assert all(np.isfinite(alone))


def test_given_parameters_are_the_one_start():
    structure, rows = problem("full", missing=False)
    start = structure.initialize(rows, np.random.default_rng(5), "random")
    first = run(structure, rows, seed=0, start=start, n_init=4)
    second = run(structure, rows, seed=1, start=start)
    assert first.history == second.history
    assert len(first.objectives) == 1


@pytest.mark.parametrize("name", ["full", "tied", "diag", "mixed"])
def test_a_dead_component_is_revived_and_counted(name):
    structure, rows = problem(name, missing=False)
    start = structure.initialize(rows, np.random.default_rng(0), "kmeans")
    family = start["family"]["size"] if name == "mixed" else start["family"]
    family["mean"] = family["mean"].copy()
    family["mean"][0] = 1e4
    with pytest.warns(RuntimeWarning, match="died.*1 times"):
        result = run(structure, rows, start=start, max_iter=30)
    assert result.n_revived == 1
    statistics, _ = structure.e_step(result.parameters, rows)
    assert (statistics["weights"] > 1.0).all()


# -- minibatches, chunks, engines --------------------------------------------------------------


@pytest.mark.parametrize("name", ["full", "mixed"])
def test_minibatches_come_near_the_full_fit(name):
    structure, rows = problem(name, missing=False)
    rows = Rows(np.tile(rows.values, (5, 1)))
    full = run(structure, rows, max_iter=200, tol=1e-9)
    stepwise = run(structure, rows, max_iter=15, batch_size=100)
    # Stochastic approximation: after 15 passes of some tens of steps the last step size is
    # some 0.02, and the objective, flat at its top, is within its square times the curvature.
    _, log_likelihood = structure.e_step(stepwise.parameters, rows)
    assert log_likelihood / len(rows) == pytest.approx(full.lower_bound, abs=0.02)


def test_a_batch_of_all_rows_starts_as_the_full_step():
    structure, rows = problem("diag")
    start = structure.initialize(rows, np.random.default_rng(0), "kmeans")
    full = run(structure, rows, start=start, max_iter=1)
    batch = run(structure, rows, start=start, max_iter=1, batch_size=len(rows))
    # The same sums, over one chunk instead of several.
    assert_trees_close(batch.parameters, full.parameters, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
def test_chunks_of_any_size_give_the_same_fit(name, monkeypatch):
    structure, rows = problem(name)
    whole = run(structure, rows)
    for chunk_rows in (7, 64):
        monkeypatch.setattr(
            data_module, "row_slices", lambda n, size=chunk_rows: row_chunks.row_slices(n, size)
        )
        # Ten steps multiply the rounding of another order of summing.
        found = run(structure, rows)
        assert_trees_close(found.parameters, whole.parameters, rtol=1e-8, atol=1e-9)
        assert found.objective == pytest.approx(whole.objective, rel=1e-11)


@pytest.mark.parametrize("name", PROBLEMS)
def test_jax_gives_the_same_fit(name):
    structure, rows = problem(name)
    labels = np.full(len(rows), -1)
    labels[:20] = np.arange(20) % structure.n_classes
    rows = Rows(rows.values, np.random.default_rng(2).uniform(0.5, 2.0, len(rows)), labels)
    found = run(structure, rows, engine="jax", max_iter=4)
    expected = run(structure, rows, engine="numpy", max_iter=4)
    # Another library's sums, over four steps.
    assert_trees_close(found.parameters, expected.parameters, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.history, expected.history, rtol=1e-10)


def test_jax_works_in_pieces_of_the_device(monkeypatch):
    monkeypatch.setattr(data_module, "DEVICE_ROWS", 128)
    structure, rows = problem("full")
    found = run(structure, rows, engine="jax", max_iter=3)
    expected = run(structure, rows, engine="numpy", max_iter=3)
    assert_trees_close(found.parameters, expected.parameters, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_e_step_compiles_for_a_gpu(name):
    """Exported for CUDA where there is none: every operation has a lowering there."""
    engine = engines.get("numpyro")
    structure, rows = problem(name)
    parameters = structure.initialize(rows, np.random.default_rng(0), "random")
    with engine.precision(device="cpu"):
        import jax

        step = jax.jit(lambda p, x: structure.e_step(p, Rows(x)))
        exported = jax.export.export(step, platforms=["cuda"])(
            tree_map(engine.asarray, parameters), engine.asarray(rows.values)
        )
    assert exported.platforms == ("cuda",)


# -- stopping ------------------------------------------------------------------------------------


def interrupt_at(monkeypatch, step):
    """Ctrl-C during the E-step of this number."""
    plain, calls = LatentClass.e_step, []

    def e_step(self, parameters, rows):
        calls.append(0)
        if len(calls) == step:
            raise KeyboardInterrupt
        return plain(self, parameters, rows)

    monkeypatch.setattr(LatentClass, "e_step", e_step)


def test_ctrl_c_leaves_a_partial_fit_that_saves(monkeypatch, tmp_path):
    x = blobs()
    with monkeypatch.context() as patched:
        interrupt_at(patched, 3)
        with pytest.warns(RuntimeWarning, match="interrupted; the fit is partial"):
            # A random start, which takes no E-step.
            model = GaussianMixture(3, inference=EM(init="random"), random_state=0).fit(x)
    assert model.n_iter_ == 2
    assert not model.converged_
    settings = EM(init="random", max_iter=2, tol=0.0)
    same = GaussianMixture(3, inference=settings, random_state=0).fit(x)
    np.testing.assert_array_equal(model.log_prob(x), same.log_prob(x))
    model.save(tmp_path / "model")
    loaded = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.log_prob(x), model.log_prob(x))
    # And goes on from where it was.
    assert model.set_params(warm_start=True, inference__max_iter=300).fit(x).converged_


def test_ctrl_c_keeps_the_best_of_the_starts_so_far(monkeypatch):
    structure, rows = problem("full", missing=False)
    whole = run(structure, rows, n_init=3, init="random", max_iter=5)
    with monkeypatch.context() as patched:
        interrupt_at(patched, 7)  # in the second start
        with pytest.warns(RuntimeWarning, match="interrupted"):
            result = run(structure, rows, n_init=3, init="random", max_iter=5)
    assert result.interrupted
    assert len(result.objectives) == 2
    assert result.objectives[0] == whole.objectives[0]


def test_ctrl_c_before_there_is_anything_raises(monkeypatch):
    structure, rows = problem("diag")
    interrupt_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        run(structure, rows)


@pytest.mark.parametrize("batch_size", [None, 64])
def test_the_same_seed_gives_the_same_fit(batch_size):
    x = with_holes(blobs(n_rows=5000))  # several chunks, on several threads
    fits = [
        GaussianMixture(
            3, inference=EM(max_iter=3, n_init=2, batch_size=batch_size), random_state=7
        ).fit(x)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(fits[0].means_, fits[1].means_)
    np.testing.assert_array_equal(fits[0].history_, fits[1].history_)


# -- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_iter": 0}, "max_iter is 0; expected a whole number"),
        ({"n_init": 2.5}, "n_init is 2.5; expected a whole number"),
        ({"tol": -1.0}, "tol is -1.0"),
        ({"tol": float("nan")}, "tol is nan"),
        ({"init": "zeros"}, "expected 'kmeans' or 'random'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"engine": "pyro"}, "this model has 'auto', 'numpy', 'jax'"),
    ],
    ids=lambda value: str(value),
)
def test_settings_are_checked_before_any_work(settings, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(2, inference=EM(**settings)).fit(blobs())


def test_a_fit_leaves_the_settings_alone():
    settings = EM(n_init=2, max_iter=4)
    model = Mixture(2, inference=settings, random_state=0).fit(blobs())
    assert model.inference is settings
    assert settings.get_params() == EM(n_init=2, max_iter=4).get_params()
    assert clone(settings).n_init == 2


def test_programs_are_not_fitted_by_em():
    from ppl_gen import dist, infer, program, sample

    @program
    def one(y=None):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(mu, 1.0), obs=y)

    with pytest.raises(ValueError, match="EM"):
        infer(one, y=np.array(1.0), method=EM())
