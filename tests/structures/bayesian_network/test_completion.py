"""Rows completed by sums over the draws of a posterior, a chunk at a time."""

import tracemalloc

import numpy as np
import pytest

from ppl_gen import BayesianNetwork, LinearGaussianCPD, TabularCPD
from ppl_gen.algorithms.row_chunks import CHUNK_ROWS
from ppl_gen.structures.bayesian_network.completion import draw_missing, fill


def network_of(shift, zero=False):
    z, c = {"z": [0, 1]}, {"c": [0, 1, 2]}
    table = [[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]] if zero else [[0.6, 0.2, 0.2], [0.2, 0.3, 0.5]]
    return BayesianNetwork(
        cpds=[
            TabularCPD("z", [0.3, 0.7], [], z),
            TabularCPD("c", table, ["z"], {**z, **c}),
            LinearGaussianCPD("x", [shift, 1.0], (), [1.0, 2.0], ["z"], z),
            LinearGaussianCPD("y", [0.0, 1.0, 2.0], [[1.0], [shift], [0.5]], 1.0, ["c", "x"], c),
        ]
    )


def problem(n_rows):
    models = [network_of(0.0), network_of(2.0)]
    network, draws = models[0].structure_, [model._draw(0) for model in models]
    rng = np.random.default_rng(0)
    x = network.draw_rows(draws[0], n_rows, rng)
    return network, draws, np.where(rng.random(x.shape) < 0.4, np.nan, x)


def test_rows_are_filled_by_averages_over_draws_that_weigh_by_what_is_seen():
    network, draws, x = problem(CHUNK_ROWS + 100)
    filled = fill(network, draws, x)
    logs = np.stack([network.log_evidence(draw, x) for draw in draws])
    weights = np.exp(logs - np.logaddexp.reduce(logs))
    missing = np.isnan(x)
    np.testing.assert_array_equal(filled[~missing], x[~missing])
    for v in (0, 1):
        each = [network.probabilities(draw, x, [v])[0][0] for draw in draws]
        best = (weights[:, :, None] * each).sum(axis=0).argmax(axis=1)
        np.testing.assert_array_equal(filled[missing[:, v], v], best[missing[:, v]])
    numbers = np.stack([fill(network, [draw], x)[:, 2:] for draw in draws])
    mean = (weights[:, :, None] * numbers).sum(axis=0)
    np.testing.assert_allclose(filled[:, 2:], mean, rtol=1e-10, atol=1e-12)


def test_draws_that_exclude_a_row_do_not_count_and_what_all_exclude_is_refused():
    network, (draw, _), _ = problem(1)
    never = network_of(0.0, zero=True)._draw(0)
    row = np.array([[0.0, 2.0, np.nan, np.nan]])
    np.testing.assert_allclose(fill(network, [never, draw], row), fill(network, [draw], row))
    rows = np.concatenate([np.full((1, 4), np.nan), row])
    for ask in (
        lambda: fill(network, [never], rows),
        lambda: draw_missing(network, never, rows, np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match="row 1 has probability zero"):
            ask()


def test_memory_does_not_grow_with_the_draws():
    network, draws, x = problem(4 * CHUNK_ROWS)
    peaks = []
    for n_draws in (2, 40):
        tracemalloc.start()
        fill(network, draws * (n_draws // 2), x)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]  # plans made on the way, and when threads meet, differ
