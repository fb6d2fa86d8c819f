"""Classes that are mixtures: against brute force, and as the classes of whole models.

The contract of every family (`test_base`, `test_engines`) holds for three members of this one.
"""

import numpy as np
import pytest
from family_members import MIXED, assert_trees_close, case, holes_of, leaves
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import ppl_gen
from ppl_gen import EM, Mixture, NaiveBayes, engines
from ppl_gen.algorithms.trees import tree_map
from ppl_gen.artifact_tree import decode, encode
from ppl_gen.data import Rows
from ppl_gen.engines.random_source import NumPyRandom
from ppl_gen.families import (
    Bernoulli,
    Columns,
    MixtureFamily,
    Multinomial,
    Normal,
    Poisson,
)
from ppl_gen.structures.latent_class import LatentClass

K, M = 2, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 2)) + 3.0 * RNG.integers(3, size=(50, 1))
DIAGONAL = {
    "weights": RNG.dirichlet(np.ones(M), size=K),
    "components": {
        "mean": RNG.normal(2.0, 2.0, size=(K * M, 2)),
        "precision_cholesky": RNG.uniform(0.5, 2.0, size=(K * M, 2)),
    },
}
# Sums of some tens of double-precision terms.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


def diagonal_densities(x):
    """Log of weight times density of every component, one by one: (n, K, M)."""
    found = np.zeros((len(x), K, M))
    for k in range(K):
        for m in range(M):
            mean = DIAGONAL["components"]["mean"][k * M + m]
            scale = 1.0 / DIAGONAL["components"]["precision_cholesky"][k * M + m]
            terms = norm.logpdf(x, mean, scale)
            found[:, k, m] = np.log(DIAGONAL["weights"][k, m]) + np.nansum(terms, axis=1)
    return found


def bound(family=None, n_components=M, x=X, **settings):
    family = Normal("diag", reg_covar=0.0) if family is None else family
    return MixtureFamily(family, n_components, **settings).bind(x, K)


# -- density and estimate ---------------------------------------------------------------------


@pytest.mark.parametrize("missing", [False, True])
def test_the_density_sums_over_the_components(missing):
    x = np.where(RNG.random(X.shape) < 0.3, np.nan, X) if missing else X
    found = bound(x=x).log_prob(DIAGONAL, x)
    np.testing.assert_allclose(found, logsumexp(diagonal_densities(x), axis=2), **ROUNDING)


def test_far_rows_keep_their_density():
    far = np.array([[400.0, -900.0]])  # far beyond where exp underflows
    expected = logsumexp(diagonal_densities(far), axis=2)
    np.testing.assert_allclose(bound().log_prob(DIAGONAL, far), expected, rtol=1e-12)


def test_components_without_a_chance_are_left_out():
    weights = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    parameters = {**DIAGONAL, "weights": weights}
    family = bound()
    log_prob, statistics_of = family.e_step(parameters, X)
    alone = family.family.log_prob(DIAGONAL["components"], X)
    np.testing.assert_allclose(log_prob[:, 0], alone[:, 0], **ROUNDING)
    counts = statistics_of(np.ones((50, K)))["weights"]
    np.testing.assert_array_equal(counts[weights == 0.0], 0.0)


def test_a_row_without_a_chance_has_density_zero_and_no_component():
    each = np.array([[-np.inf, -np.inf], [-1.0, -np.inf]])
    evidence, shares = MixtureFamily(Normal(), 2)._mixed(np.full((1, 2), 0.5), each)
    np.testing.assert_allclose(evidence, [[-np.inf], [-1.0 + np.log(0.5)]])
    np.testing.assert_array_equal(shares, [[[0.0, 0.0]], [[1.0, 0.0]]])


def test_the_estimate_is_the_hand_computation():
    r = RNG.dirichlet(np.ones(K), size=50)
    family = bound(weights_concentration=0.5)
    found = family.estimate(family.statistics(DIAGONAL, X, r))
    each = diagonal_densities(X)
    split = r[:, :, None] * np.exp(each - logsumexp(each, axis=2, keepdims=True))
    for k in range(K):
        counts = split[:, k].sum(axis=0) + 0.5
        np.testing.assert_allclose(found["weights"][k], counts / counts.sum(), rtol=1e-12)
        for m in range(M):
            share = split[:, k, m] / split[:, k, m].sum()
            mean = share @ X
            place = found["components"]["mean"][k * M + m]
            np.testing.assert_allclose(place, mean, rtol=1e-12)
            deviation = 1.0 / found["components"]["precision_cholesky"][k * M + m]
            # A difference of squares of the order of ten.
            np.testing.assert_allclose(deviation**2, share @ (X - mean) ** 2, rtol=1e-10)


@pytest.mark.parametrize("name", MIXED)
@given(seed=st.integers(0, 10_000), missing=st.booleans())
@settings(max_examples=10)
def test_a_step_of_em_never_lowers_the_objective(name, seed, missing):
    c = case(name, seed, missing=missing and holes_of(name)[-1])
    parameters = c.family.initial_parameters(c.x, c.responsibilities, np.random.default_rng(seed))
    before = -np.inf
    for _ in range(4):
        log_prob, statistics_of = c.family.e_step(parameters, c.x)
        statistics = statistics_of(c.responsibilities)
        likelihood = float((c.responsibilities * log_prob).sum())
        assert likelihood >= before - 1e-9 * (abs(likelihood) + len(c.x))
        updated = c.family.estimate(statistics)
        # The driver's law: the likelihood rises by as much as the penalty at these statistics.
        rise = c.family.penalty(updated, statistics) - c.family.penalty(parameters, statistics)
        before, parameters = likelihood + rise, updated


def test_weights_have_a_prior():
    family = MixtureFamily(Poisson(), 3, weights_concentration=2.0).bind(np.ones((4, 1)), 1)
    components = family.family.statistics({}, np.ones((4, 1)), np.ones((4, 3)))
    for counts, expected in (([0.0, 0.0, 0.0], [1 / 3] * 3), ([4.0, 0.0, 0.0], [0.6, 0.2, 0.2])):
        found = family.estimate({"weights": np.array([counts]), "components": components})
        np.testing.assert_allclose(found["weights"], [expected], rtol=1e-15)


# -- the start --------------------------------------------------------------------------------


def apart(parameters, of=("mean", "rate", "probs")):
    """Whether no two components of a class have the same parameters."""
    components = parameters["components"]
    leaf = next(components[name] for name in of if name in components)
    return all(
        not np.allclose(leaf[k * M + a], leaf[k * M + b])
        for k in range(len(parameters["weights"]))
        for a in range(M)
        for b in range(a)
    )


def test_the_start_finds_the_clusters_of_each_class():
    rng = np.random.default_rng(0)
    centres = np.array([[[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], [[5.0, 5.0], [20.0, 0], [0, 20]]])
    z, m = rng.integers(K, size=600), rng.integers(M, size=600)
    x = centres[z, m] + rng.normal(size=(600, 2))
    family = bound(x=x)
    parameters = family.initial_parameters(x, np.eye(K)[z], rng)
    found = parameters["components"]["mean"].reshape(K, M, 2)
    for k in range(K):
        order = ((found[k][:, None] - centres[k]) ** 2).sum(axis=2).argmin(axis=0)
        # Five standard errors of means of a hundred rows.
        assert np.abs(found[k][order] - centres[k]).max() < 0.5
    np.testing.assert_allclose(parameters["weights"], 1.0 / 3.0, atol=0.1)


def test_soft_responsibilities_are_kept():
    r = RNG.dirichlet(np.ones(K), size=50)
    family = bound(Poisson(alpha=0.0), x=np.abs(np.round(X)))
    x = np.abs(np.round(X))
    parameters = family.initial_parameters(x, r, np.random.default_rng(0))
    rates = parameters["components"]["rate"].reshape(K, M, 2)
    mean = np.einsum("km,kmd->kd", parameters["weights"], rates)
    np.testing.assert_allclose(mean, (r.T @ x) / r.sum(axis=0)[:, None], rtol=1e-12)


POOR = {
    "one row": np.eye(K)[[0] * 49 + [1]],
    "no row": np.eye(K)[[0] * 50],
    "nothing": np.zeros((50, K)),
    "two rows": np.eye(K)[[0] * 48 + [1, 1]],
}


@pytest.mark.parametrize("how", POOR)
@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
@pytest.mark.parametrize("missing", [False, True])
def test_a_class_with_too_few_rows_starts_with_components_apart(how, covariance_type, missing):
    x = np.where(RNG.random(X.shape) < 0.3, np.nan, X) if missing else X
    family = bound(Normal(covariance_type), x=x)
    parameters = family.initial_parameters(x, POOR[how], np.random.default_rng(0))
    assert all(np.isfinite(leaf).all() for leaf in leaves(parameters))
    assert apart(parameters)
    np.testing.assert_allclose(parameters["weights"].sum(axis=1), 1.0)
    assert np.isfinite(family.log_prob(parameters, x)).all()
    if not missing and how != "nothing":
        spread = X.std(axis=0).max()
        # As wide as the data in order of magnitude: lent rows have their spread.
        variances = family.family.covariances(parameters["components"])[M:]
        if covariance_type == "full":
            variances = np.diagonal(variances, axis1=1, axis2=2)
        assert (np.sqrt(variances) > 0.1 * spread).all()
        assert (np.sqrt(variances) < 2.0 * spread).all()


def test_a_class_of_equal_rows_starts_with_components_apart():
    x, labels = X.copy(), np.arange(50) % K
    x[labels == 1] = [1.0, 2.0]
    parameters = bound(x=x).initial_parameters(x, np.eye(K)[labels], np.random.default_rng(0))
    assert apart(parameters)
    assert all(np.isfinite(leaf).all() for leaf in leaves(parameters))


@pytest.mark.parametrize("family", [Normal("full"), Poisson(), Multinomial(), Bernoulli()])
def test_a_table_of_equal_rows_starts_without_nan(family):
    x = np.ones((10, 2))
    mixture = bound(family, x=x)
    parameters = mixture.initial_parameters(x, np.full((10, K), 0.5), np.random.default_rng(0))
    assert all(np.isfinite(leaf).all() for leaf in leaves(parameters))
    assert np.isfinite(mixture.log_prob(parameters, x)).all()


def test_rows_without_weight_take_no_part_in_the_start():
    x = np.vstack([X, np.full((20, 2), 1e6)])
    r = np.vstack([POOR["one row"], np.zeros((20, K))])
    parameters = bound(x=x).initial_parameters(x, r, np.random.default_rng(0))
    assert np.abs(parameters["components"]["mean"]).max() < 20.0


def test_the_parts_of_a_product_start_as_they_do_alone():
    r = np.eye(K)[np.arange(50) % K]
    mixture = MixtureFamily(Normal("diag"), M)
    product = Columns((("a", mixture, (1,)), ("b", Normal("diag"), (0,)))).bind(X, K)
    found = product.initial_parameters(X, r, np.random.default_rng(0))
    alone = mixture.bind(X[:, 1:], K).initial_parameters(X[:, 1:], r, np.random.default_rng(0))
    assert_trees_close(found["a"], alone)
    assert_trees_close(found["b"], product.parts[1][1].initial_parameters(X[:, :1], r, None))


# -- what a family is -------------------------------------------------------------------------


def test_draws_come_from_the_component_drawn():
    weights = np.array([[0.2, 0.8, 0.0], [0.0, 0.0, 1.0]])
    means = np.arange(K * M)[:, None] * 100.0 + np.zeros((1, 2))
    parameters = {
        "weights": weights,
        "components": {"mean": means, "precision_cholesky": np.ones((K * M, 2))},
    }
    labels = np.repeat([0, 1], 5000)
    drawn = bound().sample(parameters, labels, NumPyRandom(0))
    places = np.round(drawn[:, 0] / 100.0).astype(int)
    shares = np.bincount(places[:5000], minlength=K * M) / 5000
    # Five standard errors of a share.
    np.testing.assert_allclose(shares[:M], weights[0], atol=5 * np.sqrt(0.16 / 5000))
    assert (places[5000:] == 5).all()


def test_merging_takes_whole_classes():
    other = tree_map(lambda leaf: leaf + 1.0, DIAGONAL)
    merged = bound().merge(DIAGONAL, other, np.array([1]))
    for old, new, both in zip(leaves(DIAGONAL), leaves(other), leaves(merged), strict=True):
        half = len(old) // K
        np.testing.assert_array_equal(both[:half], old[:half])
        np.testing.assert_array_equal(both[half:], new[half:])


def test_settings_reach_the_components():
    product = Columns((("a", Normal("full"), (0,)), ("b", Poisson(), (1,))))
    table = Columns((("both", MixtureFamily(product, 2), (0, 1)),))
    changed = table.with_settings(
        lambda part: part.replace(prior="default") if isinstance(part, Normal) else part
    )
    assert changed.parts[0][1].family.parts[0][1].prior == "default"
    assert table.with_settings(lambda part: part.with_prior()).parts[0][1].family.parts[0][1].prior


def test_what_the_components_take_the_mixture_takes():
    assert MixtureFamily(Poisson(), 2).takes_sparse
    assert not MixtureFamily(Normal(), 2).takes_sparse
    assert not MixtureFamily(Multinomial(), 2).takes_nan
    assert [f.name for f in bound().by_column] == ["normal", "normal"]
    assert bound(n_components=2).layout != bound(n_components=3).layout
    with pytest.raises(ValueError, match="Poisson"):
        bound(Poisson(), x=np.ones((3, 2))).check(np.array([[1.0, -1.0]]))


def test_sparse_rows_are_the_dense_ones():
    import scipy.sparse

    dense = np.random.default_rng(0).poisson(0.7, size=(40, 4)).astype(float)
    sparse = scipy.sparse.csr_matrix(dense)
    r = np.eye(K)[np.arange(40) % K]
    family = bound(Poisson(), x=dense)
    parameters = family.initial_parameters(dense, r, np.random.default_rng(0))
    found = family.initial_parameters(sparse, r, np.random.default_rng(0))
    assert_trees_close(found, parameters)
    np.testing.assert_allclose(
        family.log_prob(parameters, sparse), family.log_prob(parameters, dense), **ROUNDING
    )


def test_it_is_written_and_read():
    family = MixtureFamily(
        Columns((("a", Normal("full"), (0,)), ("b", Poisson(), (1,)))), 2, weights_concentration=0.5
    ).bind(np.abs(np.round(X)), K)
    again = decode(*encode(family))
    x = np.abs(np.round(X))
    parameters = family.initial_parameters(x, np.eye(K)[np.arange(50) % K], RNG)
    np.testing.assert_array_equal(again.log_prob(parameters, x), family.log_prob(parameters, x))
    assert again.layout == family.layout
    assert again.weights_concentration == 0.5


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "two", None])
def test_the_number_of_components_is_checked(wrong):
    with pytest.raises(
        ValueError, match=r"n_components is .*; expected a whole number, at least 1"
    ):
        bound(n_components=wrong)


def test_the_prior_count_is_checked():
    with pytest.raises(ValueError, match="weights_concentration is -1"):
        bound(weights_concentration=-1.0)


def test_tied_covariances_and_mixtures_of_mixtures_are_refused():
    tied = Normal("tied")
    for family in (tied, Columns((("a", tied, (0, 1)),))):
        with pytest.raises(ValueError, match="covariance_type='tied' would share"):
            bound(family)
    with pytest.raises(ValueError, match="give n_components their product"):
        bound(MixtureFamily(Normal(), 2))
    with pytest.raises(TypeError, match="family is 'normal'; expected a Family"):
        bound("normal")


# -- whole models, against EM written out ------------------------------------------------------


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
    assert apart(revived["family"])
    fitted = Mixture(2, family=MixtureFamily(Normal("diag"), 2), random_state=0).fit(x)
    assert np.isfinite(fitted.log_prob(x)).all()
