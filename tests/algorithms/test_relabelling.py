import itertools

import numpy as np
import pytest

from ppl_gen.algorithms.relabelling import apply_permutations, assignment_costs, relabel


def switched(seed, draws, components, width, separation):
    """Draws of well-defined components, then each draw shuffled; and the shuffles."""
    rng = np.random.default_rng(seed)
    centres = separation * rng.normal(size=(components, width))
    truth = centres + rng.normal(size=(draws, components, width))
    shuffles = np.stack([rng.permutation(components) for _ in range(draws)])
    return truth, np.take_along_axis(truth, shuffles[:, :, None], axis=1)


@pytest.mark.parametrize(("components", "width"), [(2, 1), (3, 2), (4, 3), (5, 5)])
def test_restores_the_components_up_to_one_common_order(components, width):
    truth, shuffled = switched(1, 300, components, width, separation=20.0)
    found = relabel(shuffled)
    restored = apply_permutations(shuffled, found.permutations, axis=1)
    assert found.converged
    # One order for all draws: the first draw's components, found again in the truth.
    order = [int(np.argmin(np.abs(truth[0] - row).sum(axis=1))) for row in restored[0]]
    np.testing.assert_array_equal(restored, truth[:, order])


@pytest.mark.parametrize("seed", range(5))
def test_every_draw_has_the_order_that_brute_force_finds(seed):
    # Overlapping components, where the best order is not evident.
    _, shuffled = switched(seed, 40, 4, 2, separation=1.0)
    found = relabel(shuffled)
    assert found.converged
    scaled = (shuffled - shuffled.reshape(-1, 2).mean(0)) / shuffled.reshape(-1, 2).std(0)
    ordered = apply_permutations(scaled, found.permutations, axis=1)
    costs = assignment_costs(scaled, ordered.mean(0), np.maximum(ordered.var(0), 1e-3))
    total = 0.0
    for draw in range(40):
        best = min(
            itertools.permutations(range(4)),
            key=lambda order: sum(costs[draw, k, j] for k, j in enumerate(order)),
        )
        assert tuple(found.permutations[draw]) == best
        total += sum(costs[draw, k, j] for k, j in enumerate(best))
    assert found.cost == pytest.approx(total, rel=1e-12)


def test_assignment_costs_are_minus_the_normal_log_density():
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 4, 2))
    mean, variance = rng.normal(size=(4, 2)), rng.uniform(0.5, 2.0, size=(4, 2))
    expected = -norm.logpdf(
        features[:, None, :, :], mean[None, :, None, :], np.sqrt(variance)[None, :, None, :]
    ).sum(-1)
    # The constant log(2 pi) / 2 a feature is left out.
    np.testing.assert_allclose(
        assignment_costs(features, mean, variance) + np.log(2 * np.pi), expected, rtol=1e-10
    )


def test_any_pivot_gives_the_same_partition():
    _, shuffled = switched(3, 100, 3, 2, separation=20.0)
    first, second = relabel(shuffled, pivot=0), relabel(shuffled, pivot=57)
    one = apply_permutations(shuffled, first.permutations, axis=1)
    other = apply_permutations(shuffled, second.permutations, axis=1)
    assert first.cost == pytest.approx(second.cost, rel=1e-10)
    np.testing.assert_allclose(np.sort(one.mean(0), axis=0), np.sort(other.mean(0), axis=0))


def test_permutes_any_axis():
    values = np.arange(24.0).reshape(2, 3, 4)
    order = np.array([[3, 2, 1, 0], [0, 1, 2, 3]])
    moved = apply_permutations(values, order, axis=2)
    np.testing.assert_array_equal(moved[0], values[0][:, ::-1])
    np.testing.assert_array_equal(moved[1], values[1])


def test_one_component_and_constant_features_are_left_alone():
    assert relabel(np.ones((5, 1, 3))).permutations.tolist() == [[0]] * 5
    assert relabel(np.ones((5, 3, 2))).permutations.tolist() == [[0, 1, 2]] * 5


def test_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="NaN or infinity"):
        relabel(np.full((2, 2, 1), np.nan))
    with pytest.raises(ValueError, match="expected \\(draws, components, features\\)"):
        relabel(np.ones((2, 2)))
