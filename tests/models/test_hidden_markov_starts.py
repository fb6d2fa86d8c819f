"""Where Baum-Welch starts and ends: the optima that it should find, and what it says of itself."""

import warnings

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM
from sklearn.exceptions import ConvergenceWarning

from ppl_gen import EM, HiddenMarkovModel


def regimes(seed):
    """A series that differs in its spread alone, half and half."""
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, np.repeat([2.0, 0.2], 300))[:, None]


@pytest.mark.parametrize("seed", range(5))
def test_states_that_differ_in_spread_alone_are_found(seed):
    """hmmlearn finds them, from one covariance for all; clusters of the rows do not."""
    x = regimes(seed)
    peer = GaussianHMM(2, random_state=0, n_iter=300, tol=1e-4).fit(x)
    ours = HiddenMarkovModel(2, random_state=0).fit(x)
    assert ours.converged_
    # Where the peer stops short by its tolerance, or its prior, ours is above.
    assert ours.score(x) > peer.score(x) - 0.01


def test_chains_that_go_forward_start_in_order():
    rng = np.random.default_rng(0)
    levels = np.repeat([0.0, 3.0, 0.0, 3.0], 15)  # states 0 and 2 have the same rows
    sequences = [rng.normal(levels, 0.5) for _ in range(5)]
    mask = np.triu(np.ones((4, 4)), 0) * np.tril(np.ones((4, 4)), 1)
    model = HiddenMarkovModel(4, transmat_mask=mask, random_state=0).fit(sequences)
    np.testing.assert_allclose(model.means_[:, 0], [0.0, 3.0, 0.0, 3.0], atol=0.3)
    assert model.predict(sequences)[0].tolist() == np.repeat(np.arange(4), 15).tolist()


def test_likelihoods_have_risen_by_default():
    """Overlapping states: steps gain little for long, and much in all."""
    rng = np.random.default_rng(3)
    states = np.cumsum(rng.random(1500) < 0.08) % 2
    x = rng.normal(states, 1.0)[:, None]
    exact = HiddenMarkovModel(2, random_state=0, inference=EM(tol=1e-10, max_iter=5000)).fit(x)
    for inference in (None, "em", EM(), EM(n_init=2)):
        model = HiddenMarkovModel(2, random_state=0, inference=inference).fit(x)
        assert model.converged_
        assert model.score(x) > exact.score(x) - 0.5
    assert EM().get_params()["tol"] is None


def test_steps_that_run_out_are_warned_of():
    model = HiddenMarkovModel(2, random_state=0, inference=EM(max_iter=3, tol=1e-12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning, match=r"not converged in 3 steps.*raise max_iter"):
            model.fit(np.random.default_rng(0).normal(size=(200, 1)))


def test_restarts_vary_what_is_not_set():
    rng = np.random.default_rng(1)
    x = rng.normal(rng.choice([0.0, 1.0, 2.0, 6.0], 120), 0.4)[:, None]

    def best(n_init):
        model = HiddenMarkovModel(
            4,
            init_params="tmc",
            random_state=0,
            inference=EM(n_init=n_init, init="random", max_iter=60),
        )
        model.startprob_ = np.full(4, 0.25)
        return model.fit(x).history_[-1]

    assert best(8) > best(1) + 1e-4


def test_states_without_labels_are_not_made_up():
    """Where every step is labelled, the fit is what the labels say, and nothing else."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0.0, 1.0, (30, 2)), rng.normal(4.0, 1.0, (30, 2))])
    model = HiddenMarkovModel(2, random_state=0).fit(x, y=np.zeros(60, dtype=int))
    np.testing.assert_allclose(model.startprob_, [1.0, 0.0])
    np.testing.assert_allclose(model.transmat_[0], [1.0, 0.0])
    np.testing.assert_allclose(model.means_[0], x.mean(axis=0))


def test_an_impossible_sequence_is_told_by_its_number_among_all():
    x = np.random.default_rng(0).normal(size=(120_000, 1))
    labels = np.full(120_000, -1)
    labels[90_000], labels[90_001] = 0, 1
    model = HiddenMarkovModel(2, transmat_mask=np.eye(2), random_state=0)
    with pytest.raises(ValueError, match=r"fit: sequence 9000 has probability zero"):
        model.fit(x, lengths=[10] * 12_000, y=labels)


def test_priors_without_a_mode_are_not_for_em():
    for name in ("startprob_prior", "transmat_prior"):
        with pytest.raises(ValueError, match=r"below 1.*use 1 or more, or SVI"):
            HiddenMarkovModel(2, **{name: 0.5}).fit(regimes(0))
