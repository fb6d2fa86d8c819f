"""Classes that are mixtures, against brute force.

The contract of every family (`test_base`, `test_engines`) holds for three members of this one;
models with such classes are tested by `tests/structures/test_mixed_classes.py`.
"""

import numpy as np
import pytest
from family_members import MIXED, assert_trees_close, case, holes_of, leaves
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm

from ppl_gen.algorithms.trees import tree_map
from ppl_gen.artifact_tree import decode, encode
from ppl_gen.engines.random_source import NumPyRandom
from ppl_gen.families import (
    Bernoulli,
    Columns,
    MixtureFamily,
    Multinomial,
    Normal,
    Poisson,
)

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
