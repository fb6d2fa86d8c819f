"""Products of families over the columns of one table."""

import numpy as np
import pytest

from ppl_gen.families import Bernoulli, Categorical, Columns, Multinomial, Normal, Poisson

X = np.array([[1.0, 0.0, 3.0], [2.5, 1.0, 0.0], [0.5, 1.0, 4.0], [1.5, 0.0, 2.0]])


def product(*places):
    families = (Normal("diag"), Bernoulli(), Poisson())
    names = ("size", "yes", "count")
    return Columns(tuple(zip(names, families, places, strict=True)))


def test_the_density_is_the_product_of_the_parts():
    family = product((0,), (1,), (2,)).bind(X, 1)
    parameters = family.estimate(family.initial_statistics(X, np.ones((4, 1))))
    total = 0.0
    for name, part, (place,) in family.parts:
        assert part.n_columns == 1
        total = total + part.log_prob(parameters[name], X[:, [place]])
    np.testing.assert_allclose(family.log_prob(parameters, X), total, rtol=1e-14)


def test_columns_keep_their_places():
    family = product((2,), (1,), (0,))
    bound = family.bind(X[:, ::-1], 1)
    assert bound.whole == (True, True, False)
    parameters = bound.estimate(bound.initial_statistics(X[:, ::-1], np.ones((4, 1))))
    straight = product((0,), (1,), (2,)).bind(X, 1)
    np.testing.assert_allclose(
        bound.log_prob(parameters, X[:, ::-1]), straight.log_prob(parameters, X), rtol=1e-14
    )


@pytest.mark.parametrize("places", [((0,), (1,), (1,)), ((0,), (1,), (3,)), ((0, 2), (1,), (2,))])
def test_every_column_is_in_one_part(places):
    with pytest.raises(ValueError, match="each column must be in exactly one part"):
        product(*places).bind(X, 2)


def test_a_part_refuses_what_it_cannot_take():
    with pytest.raises(ValueError, match="Bernoulli: found 3"):
        product((0,), (2,), (1,)).bind(X, 2)
    bound = product((0,), (1,), (2,)).bind(X, 2)
    with pytest.raises(ValueError, match="Poisson"):
        bound.check(np.array([[1.0, 0.0, -1.0]]))


def test_settings_reach_every_part():
    family = product((0,), (1,), (2,)).with_settings(
        lambda part: part if isinstance(part, Normal) else part.replace(alpha=0.5)
    )
    assert [getattr(part, "alpha", None) for _, part, _ in family.parts] == [None, 0.5, 0.5]


def test_one_sparse_part_takes_sparse_rows():
    def alone(part):
        return Columns((("only", part, (0, 1)),))

    assert alone(Multinomial()).takes_sparse
    assert not alone(Categorical()).takes_sparse
    assert not product((0,), (1,), (2,)).takes_sparse


def test_one_pass_is_that_of_every_part():
    full = Columns((("size", Normal("full"), (0, 2)), ("yes", Bernoulli(), (1,))))
    holed = np.where(X == 3.0, np.nan, X)
    assert full.is_one_pass(X)
    assert not full.is_one_pass(holed)
    assert product((0,), (1,), (2,)).is_one_pass(holed)
