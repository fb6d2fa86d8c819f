"""Settings: checked before any work, and scikit-learn's in their manners."""

import functools

import pytest
from sklearn.base import clone

from ppl_gen import SVI, MaximumLikelihood, Training


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"epochs": 0}, "epochs is 0; expected a whole number of at least 1"),
        ({"epochs": 2.5}, "epochs is 2.5; expected a whole number"),
        ({"batch_size": True}, "batch_size is True; expected a whole number"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; expected a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; expected a positive number"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; expected a positive number"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; expected a number of at least 0"),
        ({"optimizer": "adan"}, "optimizer is 'adan'; expected one of 'adam', 'adamw'"),
        ({"schedule": "step"}, "schedule is 'step'; expected one of 'cosine', 'plateau'"),
        ({"clip_norm": -1}, "clip_norm is -1; expected a positive number"),
        ({"ema": 1.0}, "ema is 1.0; expected None or a number between 0 and 1"),
        ({"validation": 20}, "validation is 20; expected None or a number between 0 and 1"),
        ({"patience": 0, "validation": 0.1}, "patience is 0; expected a whole number"),
        ({"patience": 3}, "patience is 3, but there is no validation"),
        ({"precision": "half"}, "precision is 'half'; expected one of 'float32', 'bfloat16'"),
        ({"max_seconds": 0}, "max_seconds is 0; expected a positive number"),
        ({"checkpoint": 5}, "checkpoint is 5; expected None or the path of a directory"),
        ({"checkpoint_minutes": None}, "checkpoint_minutes is None; expected a positive number"),
    ],
)
def test_what_is_out_of_range_is_said(settings, told):
    with pytest.raises(ValueError, match=f"Training: {told}"):
        Training(**settings).check()


def test_a_schedule_that_needs_more_than_an_optimiser_is_refused():
    from torch.optim.lr_scheduler import CyclicLR, ExponentialLR, LinearLR, StepLR

    told = (
        r"Training: schedule is StepLR, which needs step_size besides the optimiser; expected a "
        r"callable from the optimiser alone; take functools.partial\(StepLR, step_size=...\)"
    )
    with pytest.raises(TypeError, match=told):
        Training(schedule=StepLR).check()
    with pytest.raises(TypeError, match=r"needs max_lr besides"):
        Training(schedule=functools.partial(CyclicLR, base_lr=0.1)).check()
    with pytest.raises(TypeError, match="needs rate besides"):
        Training(schedule=lambda optimizer, rate: ExponentialLR(optimizer, rate)).check()
    for sound in (LinearLR, functools.partial(StepLR, step_size=3), lambda o, rate=0.9: None):
        Training(schedule=sound).check()


@pytest.mark.parametrize("training", ["cosine", {"epochs": 3}, Training])
def test_settings_of_another_kind_are_refused(training):
    with pytest.raises(TypeError, match=r"MaximumLikelihood: training is .*Training\(validation"):
        MaximumLikelihood(training=training).settings()


def test_settings_nest_as_scikit_learn_has_them():
    method = clone(MaximumLikelihood(training=Training(ema=0.99)))
    method.set_params(training__epochs=7, learning_rate=0.5)
    settings = method.settings()
    assert (settings.epochs, settings.ema, settings.learning_rate) == (7, 0.99, 0.5)
    assert method.training.learning_rate == 1e-3


def test_batches_are_counted():
    training = Training(batch_size=100, validation=0.1)
    assert training.n_validation(1000) == 100
    assert training.n_batches(1000) == 9
    assert Training(batch_size=100).n_batches(1001) == 11
    assert SVI(training=training).get_params()["training__batch_size"] == 100


def test_settings_for_few_rows_and_many():
    few, many = Training.for_rows(150), Training.for_rows(10_000)
    assert few.validation > many.validation
    assert few.batch_size < many.batch_size
    for n, settings in ((150, few), (2500, Training.for_rows(2500)), (10_000, many)):
        # About as many steps, unless rows are very few.
        steps = settings.epochs * n / settings.batch_size
        assert 600 < steps <= 4000
        settings.check()
