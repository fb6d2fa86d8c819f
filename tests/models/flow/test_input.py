"""Settings and data that flows refuse, or warn of."""

import numpy as np
import pandas as pd
import pytest

from ppl_gen import MaximumLikelihood, NormalizingFlow, Training
from ppl_gen.datasets import make_two_moons

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2))
COUNTS = RNG.poisson(3.0, size=(60, 2)).astype(float)


def flow(**settings):
    quick = MaximumLikelihood(epochs=1)
    return NormalizingFlow(
        **{"flow": "maf", "hidden_layer_sizes": (4,), "inference": quick, "random_state": 0}
        | settings
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flow": "planar"}, r"'planar' has no closed-form inverse.*take 'nsf'"),
        ({"flow": "sylvester"}, r"only of its own draws, for guides"),
        ({"flow": "nice"}, r"flow is 'nice'; expected one of 'nsf'"),
        ({"discrete": True}, r"discrete is True; expected one of None, 'uniform'"),
        ({"n_transforms": 0}, r"n_transforms is 0; expected whole numbers of at least 1"),
        ({"flow": "realnvp", "n_transforms": 1}, r"n_transforms is 1; .* at least 2"),
        ({"hidden_layer_sizes": (0,)}, r"hidden_layer_sizes is \(0,\)"),
        ({"n_bins": 1.5}, r"n_bins is 1.5"),
        ({"flow": ["nsf"]}, r"flow is \['nsf'\]; expected one of"),
        ({"n_transforms": "many"}, r"n_transforms is 'many'; expected whole numbers"),
        ({"hidden_layer_sizes": 64}, r"is 64; expected a sequence, such as \(64, 64\)"),
        ({"n_importance": None}, r"n_importance is None; expected whole numbers"),
        ({"noise": "some"}, r"noise is 'some'; expected 0 or a positive number"),
        ({"noise": -1.0}, r"noise is -1.0; expected 0 or a positive number"),
        ({"noise": 0.1, "discrete": "uniform"}, r"adds noise of its own; expected one of them"),
        ({"bounds": (1.0,)}, r"bounds is \(1.0,\); expected \(low, high\)"),
        ({"bounds": (1.0, 0.0)}, r"low below high"),
        ({"bounds": (0.0, np.inf)}, r"finite numbers"),
        ({"bounds": 3.0}, r"bounds is 3.0; expected"),
        ({"bounds": (0.0, 1.0)}, r"entries outside of bounds, in columns 0, 1; .* widen bounds"),
        ({"discrete": "uniform"}, r"not whole in columns 0, 1, and discrete is set"),
        ({"flow": "glow"}, r"flow='glow' is for images.*set image_shape"),
        ({"flow": "glow", "image_shape": (1, 2)}, r"1x2 do not halve 1 times"),
        ({"image_shape": (3, 3)}, r"image_shape is \(3, 3\), but X has 2 columns"),
        ({"inference": "nuts"}, r"'nuts' does not fit this model"),
        ({"dtype": "float16"}, r"dtype is 'float16'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        flow(**settings).fit(X)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, r"contains NaN in 1 entries \(columns width\)"), (np.inf, r"infinity|infinite")],
)
def test_gaps_and_infinities_are_refused(value, message):
    frame = pd.DataFrame(X, columns=["length", "width"])
    fitted = flow().fit(frame)
    frame.loc[3, "width"] = value
    for use in (flow().fit, fitted.log_prob, fitted.transform):
        with pytest.raises(ValueError, match=message):
            use(frame)


def test_one_row_is_too_few():
    with pytest.raises(ValueError, match=r"learned from 2 rows or more"):
        flow().fit(X[:1])


def test_rows_of_another_kind_are_refused_later():
    model = flow(bounds=(-5.0, 5.0)).fit(X)
    with pytest.raises(ValueError, match=r"1 entries outside of bounds, in column 1"):
        model.log_prob([[0.0, 6.0]])
    with pytest.raises(ValueError, match=r"features"):
        model.log_prob(X[:, :1])
    counted = flow(discrete="uniform").fit(COUNTS)
    with pytest.raises(ValueError, match=r"not whole in column 0; expected whole numbers, as in"):
        counted.log_prob([[0.5, 1.0]])
    images = flow(flow="glow", n_transforms=1).fit(RNG.random((30, 4, 4)))
    with pytest.raises(ValueError, match=r"rows of shape \(2, 8\); expected \(4, 4\)"):
        images.log_prob(RNG.random((3, 2, 8)))


def test_a_mistake_among_counts_is_no_other_kind_of_column():
    rows = COUNTS.copy()
    rows[7, 1] = 2.5
    with pytest.raises(ValueError, match=r"not whole in column 1, and discrete is set"):
        flow(discrete="uniform").fit(rows)
    with pytest.raises(ValueError, match=r"undo a scaling to \[0, 1\]"):
        flow(discrete="uniform", image_shape=(1, 2)).fit(X)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.column_stack([X[:, 0], COUNTS[:, 0]]), r"column 1 is of whole numbers.*'uniform'"),
        (np.column_stack([X[:, 0], np.full(60, 0.1)]), r"column 1 is constant.*noise=0.01"),
        (np.column_stack([np.maximum(X[:, 0], 0.3), X[:, 1]]), r"column 0 is of one value in over"),
        (COUNTS[:, [0, 0]], r"columns 0, 1 are of whole numbers"),
        (X + 1e6, r"columns \[0, 1\] lie far from zero .* dtype='float64'"),
    ],
)
def test_spikes_are_warned_of(rows, message):
    with pytest.warns(RuntimeWarning, match=message) as told:
        flow().fit(rows)
    assert {warning.filename for warning in told} == {__file__}


def test_remedies_are_taken_without_a_warning():
    flow(discrete="uniform").fit(np.column_stack([X[:, 0], COUNTS[:, 0]]))
    flow(noise=0.01).fit(np.column_stack([X[:, 0], np.full(60, 0.1)]))
    flow(noise=0.1).fit(np.column_stack([X[:, 0], COUNTS[:, 0]]))
    flow(dtype="float64").fit(X + 1e6)


def test_rows_without_weight_are_no_rows():
    weight = np.r_[np.ones(30), np.zeros(30)]
    heavy = flow().fit(X, sample_weight=weight)
    alone = flow().fit(X[:30])
    np.testing.assert_allclose(heavy.log_prob(X), alone.log_prob(X), rtol=1e-5)


def test_few_rows_will_do_for_the_default_training():
    # A tenth of two rows is one to choose the best epoch by, and one to learn from.
    model = NormalizingFlow("maf", n_transforms=1, hidden_layer_sizes=(4,), random_state=0).fit(
        X[:2]
    )
    assert np.isfinite(model.score(X))
    assert "validation_loss" in model.history_


def test_the_default_training_averages_the_weights():
    method = NormalizingFlow()._everyday(200, 2)
    assert method.training.ema == 0.98
    assert method.training.epochs == Training.for_rows(200).epochs


@pytest.mark.slow
def test_few_rows_gain_from_the_average():
    """Two moons of 200 rows: about 0.06 nats over three seeds, each of which differs by as much."""
    new, gain = make_two_moons(4000, random_state=99).X, []
    for seed in range(3):
        x = make_two_moons(200, random_state=seed).X
        scores = [
            NormalizingFlow(inference=method, random_state=seed).fit(x).score(new)
            for method in (None, MaximumLikelihood(training=Training.for_rows(200)))
        ]
        gain.append(scores[0] - scores[1])
    assert np.mean(gain) > 0.0
