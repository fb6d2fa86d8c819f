"""What is particular to counts and categories: sparse rows, and what lies outside the support."""

import numpy as np
import pytest
import scipy.sparse
from scipy import stats

from ppl_gen.families import Bernoulli, Categorical, Multinomial, Poisson

FAMILIES = [Bernoulli(), Multinomial(), Poisson()]
IDS = ["bernoulli", "multinomial", "poisson"]
FORMATS = [scipy.sparse.csr_matrix, scipy.sparse.csr_array]


def rows(family, n_rows=30, n_columns=6, seed=0):
    counts = np.random.default_rng(seed).poisson(0.6, size=(n_rows, n_columns)).astype(float)
    return np.minimum(counts, 1.0) if isinstance(family, Bernoulli) else counts


def fitted(family, x, seed=1):
    r = np.random.default_rng(seed).dirichlet([0.5, 0.5], size=x.shape[0])
    bound = family.bind(x, 2)
    return bound, bound.estimate(bound.statistics({}, x, r)), r


@pytest.mark.parametrize("sparse", FORMATS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
def test_sparse_rows_are_dense_rows(family, sparse):
    x = rows(family)
    bound, parameters, r = fitted(family, x)
    stored = sparse(x)
    other = family.bind(stored, 2)
    # The same sums, in another order.
    np.testing.assert_allclose(
        other.log_prob(parameters, stored), bound.log_prob(parameters, x), rtol=1e-12
    )
    found, expected = other.statistics({}, stored, r), bound.statistics({}, x, r)
    for name, value in expected.items():
        assert isinstance(found[name], np.ndarray)
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(other.features(stored), bound.features(x), atol=1e-14)
    log_prob, statistics_of = other.e_step(parameters, stored)
    assert isinstance(log_prob, np.ndarray)
    assert log_prob.shape == (30, 2)
    assert set(statistics_of(r)) == set(expected)


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
def test_sparse_rows_are_never_made_dense(family, monkeypatch):
    x = rows(family)
    bound, parameters, r = fitted(family, x)
    stored = scipy.sparse.csr_array(x)

    def refuse(*args, **kwargs):
        raise AssertionError("made dense")

    for name in ("toarray", "todense"):
        monkeypatch.setattr(scipy.sparse.csr_array, name, refuse)
    bound.bind(stored, 2)
    bound.check(stored)
    bound.log_prob(parameters, stored)
    bound.statistics(parameters, stored, r)


def test_densities_are_scipys():
    x = rows(Poisson())
    bound, parameters, _ = fitted(Poisson(), x)
    rate = parameters["rate"]
    expected = stats.poisson.logpmf(x[:, None, :], rate).sum(axis=2)
    np.testing.assert_allclose(bound.log_prob(parameters, x), expected, rtol=1e-12)

    bound, parameters, _ = fitted(Multinomial(), x)
    totals = x.sum(axis=1)
    for k in range(2):
        expected = stats.multinomial.logpmf(x, totals, parameters["probs"][k])
        # SciPy keeps p_D = 1 - sum of the others, one rounding away.
        np.testing.assert_allclose(
            bound.log_prob(parameters, x)[:, k], expected, rtol=1e-10, atol=1e-12
        )

    x = rows(Bernoulli())
    bound, parameters, _ = fitted(Bernoulli(), x)
    expected = stats.bernoulli.logpmf(x[:, None, :], parameters["probs"]).sum(axis=2)
    np.testing.assert_allclose(bound.log_prob(parameters, x), expected, rtol=1e-12)


OUTSIDE = [
    (Bernoulli(), [[0.0, 2.0]], "0 and 1 only"),
    (Bernoulli(), [[0.5, 1.0]], "0 and 1 only"),
    (Categorical(), [[0.0, -1.0]], "Negative values"),
    (Categorical(), [[0.5, 1.0]], "not whole"),
    (Poisson(), [[-1.0, 1.0]], "Negative values"),
    (Poisson(), [[0.5, 1.0]], "not whole"),
    (Multinomial(), [[-1.0, 1.0]], "Negative values"),
    (Multinomial(), [[np.nan, 1.0]], "X has NaN"),
]


@pytest.mark.parametrize(
    ("family", "x", "message"), OUTSIDE, ids=lambda value: type(value).__name__
)
def test_values_outside_the_support_are_refused_when_bound(family, x, message):
    x = np.concatenate([np.ones((3, 2)), np.array(x)])
    with pytest.raises(ValueError, match=message):
        family.bind(x, 2)


def test_values_outside_the_support_are_refused_when_scored():
    bound = Categorical().bind(np.array([[0.0, 2.0], [1.0, 0.0]]), 2)
    with pytest.raises(ValueError, match="column 0 has code 2, but only 2 categories"):
        bound.check(np.array([[2.0, 0.0]]))
    bound.check(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="column 1 has code 3"):
        Categorical(n_categories=(2, 3)).bind(np.array([[0.0, 3.0]]), 2)


@pytest.mark.parametrize("family", [*FAMILIES, Categorical()], ids=[*IDS, "categorical"])
def test_alpha_is_not_negative(family):
    with pytest.raises(ValueError, match="alpha is -1"):
        family.replace(alpha=-1.0).bind(np.ones((3, 2)), 2)


def test_categories_that_were_not_seen_keep_a_probability():
    # As scikit-learn: alpha counts for every category, seen or not.
    x = np.array([[0.0], [0.0], [1.0]])
    bound = Categorical(alpha=1.0, n_categories=(3,)).bind(x, 1)
    parameters = bound.estimate(bound.statistics({}, x, np.ones((3, 1))))
    np.testing.assert_allclose(parameters["probs"][0, 0], [3 / 6, 2 / 6, 1 / 6])


def test_an_empty_class_without_a_prior_is_uniform():
    x = np.array([[0.0, 1.0], [1.0, 2.0]])
    nothing = np.zeros((2, 1))
    bound = Categorical(alpha=0.0, n_categories=(2, 3)).bind(x, 1)
    probs = bound.estimate(bound.statistics({}, x, nothing))["probs"][0]
    np.testing.assert_allclose(probs, [[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    bound = Multinomial(alpha=0.0).bind(x, 1)
    np.testing.assert_allclose(
        bound.estimate(bound.statistics({}, x, nothing))["probs"], [[0.5, 0.5]]
    )


def test_log_probabilities_stay_finite_without_a_prior():
    x = np.array([[1.0, 0.0], [1.0, 0.0]])
    one = np.ones((2, 1))
    for family in (Bernoulli(alpha=0.0), Categorical(alpha=0.0, n_categories=(2, 2))):
        bound = family.bind(x, 1)
        parameters = bound.estimate(bound.statistics({}, x, one))
        assert np.isfinite(bound.log_prob(parameters, np.array([[0.0, 1.0]]))).all()


def test_a_missing_count_leaves_its_terms_out():
    x = np.array([[1.0, np.nan], [2.0, 3.0]])
    bound = Poisson(alpha=0.0).bind(x, 1)
    parameters = bound.estimate(bound.statistics({}, x, np.ones((2, 1))))
    np.testing.assert_allclose(parameters["rate"], [[1.5, 3.0]])


def test_binarising_is_left_to_the_user():
    # A threshold is a choice about the data, so a value beside 0 and 1 is an error that says so.
    with pytest.raises(ValueError, match="threshold the"):
        Bernoulli().bind(np.array([[0.2]]), 1)
