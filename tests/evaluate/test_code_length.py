"""Code lengths against Shannon's and Huffman's: probabilities sum to one, and bins add up."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from ppl_gen import GaussianMixture, HiddenMarkovModel, MarkovChain, Mixture
from ppl_gen.evaluate.code_length import bits_per_dimension, bits_per_token, code_length


def coins():
    X = np.random.default_rng(0).integers(2, size=(50, 3))
    return Mixture(2, "bernoulli", random_state=0).fit(X), X


def test_lengths_of_all_rows_are_those_of_a_code():
    model, _ = coins()
    rows = np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T
    lengths = code_length(model, rows)
    # Kraft: a code of whole bits exists, since those of the probabilities fill it.
    assert np.exp2(-lengths).sum() == pytest.approx(1.0, rel=1e-9)
    assert np.exp2(-np.ceil(lengths)).sum() <= 1.0
    np.testing.assert_allclose(lengths, -model.log_prob(rows) / np.log(2.0))


def test_bits_per_dimension_are_shared_out():
    model, X = coins()
    assert bits_per_dimension(model, X) == pytest.approx(code_length(model, X).mean() / 3.0)
    frame = pd.DataFrame(X, columns=list("abc"))
    assert bits_per_dimension(model.fit(frame), frame) == pytest.approx(
        -model.log_prob(frame).mean() / np.log(2.0) / 3.0
    )


def test_bins_have_about_the_probability_that_they_are_coded_by():
    X = np.random.default_rng(0).normal(3.0, 2.0, size=(500, 1))
    model = GaussianMixture(1).fit(X)
    sd = np.sqrt(model.covariances_[0, 0, 0])
    for width in (0.1, 0.01):
        inside = np.diff(norm.cdf(X + width * np.array([-0.5, 0.5]), model.means_[0, 0], sd))
        # The midpoint rule errs by a relative width^2 / 24 times the curvature.
        np.testing.assert_allclose(
            code_length(model, X, bin_width=width), -np.log2(inside[:, 0]), atol=width**2
        )
    # Ten times as precise costs log2(10) bits more.
    more = code_length(model, X, bin_width=0.01) - code_length(model, X, bin_width=0.1)
    np.testing.assert_allclose(more, np.log2(10.0), rtol=1e-12)


def test_units_do_not_matter_to_bins_in_these_units():
    X = np.random.default_rng(0).normal(size=(200, 2))
    scale = np.array([1000.0, 0.001])
    first = code_length(GaussianMixture(1, "diag", reg_covar=0.0).fit(X), X, bin_width=[0.1, 0.2])
    other = GaussianMixture(1, "diag", reg_covar=0.0).fit(X * scale)
    second = code_length(other, X * scale, bin_width=scale * [0.1, 0.2])
    np.testing.assert_allclose(second, first, rtol=1e-9)


def test_a_context_is_handed_on():
    class Conditional:
        def log_prob(self, X, context):
            return -np.log(2.0) * np.asarray(context)

    assert bits_per_dimension(Conditional(), np.zeros((2, 4)), context=[2, 6]) == 1.0


def test_tokens():
    text = ["abababab", "aabb"]
    chain = MarkovChain().fit(text)
    total = -chain.log_prob(text).sum() / np.log(2.0)
    assert bits_per_token(chain, text) == pytest.approx(total / 12.0)
    # A chain of one symbol says it all beforehand.
    assert bits_per_token(MarkovChain().fit(["aaaa"]), ["aa"]) == pytest.approx(0.0, abs=1e-12)
    rolls = [np.array([[1], [2], [0]]), np.array([[2], [2]])]
    hidden = HiddenMarkovModel(2, "categorical", random_state=0).fit(rolls)
    assert bits_per_token(hidden, rolls) == pytest.approx(
        -hidden.log_prob(rolls).sum() / np.log(2.0) / 5.0
    )


NORMAL = GaussianMixture(1).fit(1e-3 * np.random.default_rng(0).normal(size=(50, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: code_length(NORMAL, np.zeros((2, 2))), "it is a density of continuous data; give"),
        (lambda: code_length(NORMAL, np.zeros((2, 2)), bin_width=0.0), "bin_width is 0.0; expect"),
        (lambda: code_length(NORMAL, np.zeros((2, 2)), bin_width=[1.0] * 3), "each of 2 columns"),
        (lambda: code_length(NORMAL, np.zeros((2, 2)), bin_width=np.inf), "bin_width is inf"),
        (lambda: bits_per_dimension(NORMAL, [1.0, 2.0], bin_width=1.0), r"X has shape \(2,\); exp"),
        (lambda: bits_per_dimension(NORMAL, np.zeros((0, 2))), r"X has shape \(0, 2\); expected"),
        (lambda: bits_per_token(MarkovChain().fit(["ab"]), "ab"), r"X is one string; expected a"),
        (lambda: bits_per_token(MarkovChain().fit(["ab"]), []), "X has no tokens; expected one"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
