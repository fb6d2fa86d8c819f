"""Models whose classes are mixtures of another family: EM written out, both engines, saving."""

import numpy as np
import pytest
from family_members import assert_trees_close
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import ppl_gen
from ppl_gen import EM, Mixture, NaiveBayes, engines
from ppl_gen.data import Rows
from ppl_gen.families import Columns, MixtureFamily, Normal, Poisson
from ppl_gen.structures.latent_class import LatentClass

K, M = 2, 3


def normals_of(parameters):
    """Weights (K, M), means (K, M, D) and covariances (K, M, D, D) of a mixture of normals."""
    weights, components = parameters["weights"], parameters["components"]
    means = components["mean"].reshape(*weights.shape, -1)
    factors = components["precision_cholesky"]
    precisions = factors @ np.swapaxes(factors, 1, 2)
    return weights, means, np.linalg.inv(precisions).reshape(*means.shape, means.shape[-1])


def plain_em(x, labels, prior, weights, means, covariances, steps):
    """EM for classes of mixtures of normals, row by row; label -1 is unknown."""
    history = []
    for _ in range(steps):
        joint = np.zeros((len(x), *weights.shape))
        for k, m in np.ndindex(*weights.shape):
            density = multivariate_normal(means[k, m], covariances[k, m])
            joint[:, k, m] = np.log(prior[k] * weights[k, m]) + density.logpdf(x)
        known = labels >= 0
        joint[known[:, None] & (labels[:, None] != np.arange(len(prior)))] = -np.inf
        evidence = logsumexp(joint, axis=(1, 2))
        history.append(evidence.sum())
        shares = np.exp(joint - evidence[:, None, None])
        prior = shares.sum(axis=(0, 2)) / len(x)
        weights = shares.sum(axis=0) / shares.sum(axis=(0, 2))[:, None]
        for k, m in np.ndindex(*weights.shape):
            share = shares[:, k, m] / shares[:, k, m].sum()
            means[k, m] = share @ x
            away = x - means[k, m]
            covariances[k, m] = (share[:, None] * away).T @ away
    return prior, weights, means, covariances, np.array(history)


@pytest.mark.parametrize("known", [0.0, 0.5, 1.0])
def test_em_is_em_written_out(known):
    """A mixture, a semi-supervised classifier and mixture discriminant analysis, in turn."""
    rng = np.random.default_rng(1)
    z, m = rng.integers(K, size=200), rng.integers(2, size=200)
    x = rng.normal(size=(200, 2)) @ [[1.0, 0.4], [0.0, 0.7]] + np.stack([3.0 * z, 4.0 * m - z], 1)
    labels = np.where(rng.random(200) < known, z, -1)
    family = MixtureFamily(Normal("full", reg_covar=0.0), 2).bind(x, K)
    structure = LatentClass(family, K, class_name="class")
    rows = Rows(x, None, labels if known else None)
    start = structure.initialize(rows, np.random.default_rng(0), "kmeans")
    prior, steps = np.array(start["weights"]), 15
    *expected, history = plain_em(
        x, labels, prior, *(np.array(a) for a in normals_of(start["family"])), steps
    )
    result = EM(max_iter=steps, tol=0.0).fit(structure, rows, rng, start=start)
    np.testing.assert_allclose(np.array(result.history) * 200, history, rtol=1e-10)
    found = (result.parameters["weights"], *normals_of(result.parameters["family"]))
    for value, true in zip(found, expected, strict=True):
        # Rounding, of the order of 1e-15 a step, grown by steps that converge slowly.
        np.testing.assert_allclose(value, true, rtol=1e-8, atol=1e-9)


def mixed_rows():
    """A structure of mixtures beside a plain family, rows with holes, and where EM starts."""
    x, _, _ = threes(n=60)
    x = np.column_stack([x, np.random.default_rng(0).poisson(3.0, size=60)])
    x[::7, 0] = np.nan
    mixture = MixtureFamily(Normal("full"), 3, weights_concentration=0.5)
    family = Columns((("size", mixture, (0, 1)), ("count", Poisson(), (2,)))).bind(x, K)
    structure = LatentClass(family, K)
    return structure, x, structure.initialize(Rows(x), np.random.default_rng(0), "kmeans")


def test_em_by_jax_takes_the_same_steps():
    structure, x, start = mixed_rows()
    rng = np.random.default_rng(0)
    by_numpy, by_jax = (
        EM(max_iter=3, tol=0.0, engine=engine).fit(structure, Rows(x), rng, start=start)
        for engine in ("numpy", "jax")
    )
    np.testing.assert_allclose(by_jax.history, by_numpy.history, rtol=1e-11)
    assert_trees_close(by_jax.parameters, by_numpy.parameters, rtol=1e-9, atol=1e-9)


def compiled_log_joint(native, args, data, values):
    """The log joint density by NumPyro: one compile of the whole, in place of one an operation."""
    engine = engines.get("numpyro")
    with engine.precision(device="cpu"):
        import jax
        from numpyro.infer.util import log_density

        values = {name: engine.asarray(value) for name, value in values.items()}
        return float(jax.jit(lambda v: log_density(native, args, data, v)[0])(values))


@pytest.mark.parametrize("engine_name", ["numpyro", "pyro"])
def test_the_program_sums_the_components_out(engine_name):
    """Changes of the rows change the program's joint density by what they change the model's."""
    structure, x, parameters = mixed_rows()
    native = structure.program().native(engine_name)
    engine = engines.get(engine_name)
    trace = engine.outline(native, (), {"x": x})
    drawn = {name for name, site in trace.items() if site.kind == "sample" and not site.observed}
    values = {n: v for n, v in structure.sites(parameters).items() if n in drawn}
    joint = engine.log_joint if engine_name == "pyro" else compiled_log_joint
    found = [joint(native, (), {"x": rows}, values) for rows in (x, x[:20])]
    each = logsumexp(structure.joint_log_prob(parameters, x), axis=1)
    assert found[0] - found[1] == pytest.approx(each[20:].sum(), rel=1e-10)


def threes(seed=0, n=400):
    """Two classes along a line, A B A, and the log odds of the second."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    side = np.where(y == 1, 0.0, rng.choice([-4.0, 4.0], size=n))
    x = np.column_stack([side, np.zeros(n)]) + rng.normal(size=(n, 2))
    outer = np.logaddexp(norm.logpdf(x[:, 0], -4.0), norm.logpdf(x[:, 0], 4.0)) - np.log(2.0)
    return x, y, norm.logpdf(x[:, 0]) - outer


def test_mixture_discriminant_analysis_comes_near_bayes_rule(tmp_path):
    x, y, _ = threes(n=2000)
    fresh, _, odds = threes(1)
    family = MixtureFamily(Normal("diag"), 2)
    model = NaiveBayes(family, random_state=0).fit(x, y)
    # Errors of the odds are of some standard errors of a thousand rows; few rows lie so near to
    # where the classes are equally likely.
    assert (model.predict(fresh) == (odds > 0.0)).mean() > 0.98
    model.save(tmp_path / "model")
    again = ppl_gen.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(fresh), model.predict_proba(fresh))
    holed = fresh.copy()
    holed[::3, 1] = np.nan
    assert np.isfinite(model.log_prob(holed)).all()
    assert not np.isnan(model.impute(holed)).any()


def test_columns_have_mixtures_of_their_own():
    x, y, _ = threes()
    each = MixtureFamily(Normal("diag"), 2)
    model = NaiveBayes({0: each, 1: each}, random_state=0).fit(x, y)
    family = model.structure_.family
    assert [len(columns) for _, _, columns in family.parts] == [1, 1]
    terms = model.explain(x[:5], label=1, against=0)
    odds = np.diff(model.predict_log_proba(x[:5]), axis=1)[:, 0]
    np.testing.assert_allclose(terms.iloc[:, 2:].sum(axis=1), odds, rtol=1e-9)
    joint = NaiveBayes(each, random_state=0).fit(x, y)
    with pytest.raises(ValueError, match="independent columns"):
        joint.explain(x[:5])
    with pytest.raises(ValueError, match="takes more than one pass"):
        NaiveBayes(each).partial_fit(x, y, classes=[0, 1])


def test_a_mixture_of_mixtures_revives_what_died():
    x, _, _ = threes(n=100)
    family = MixtureFamily(Normal("diag"), M).bind(x, K)
    structure = LatentClass(family, K)
    parameters = structure.initialize(Rows(x), np.random.default_rng(0), "kmeans")
    statistics, _ = structure.e_step(parameters, Rows(x))
    dead = {**statistics, "weights": np.array([100.0, 0.0])}
    revived, count = structure.revive(parameters, dead, Rows(x), np.random.default_rng(0))
    assert count == 1
    means = revived["family"]["components"]["mean"][M:]
    assert len(np.unique(means.round(6), axis=0)) == M
    fitted = Mixture(2, family=MixtureFamily(Normal("diag"), 2), random_state=0).fit(x)
    assert np.isfinite(fitted.log_prob(x)).all()
