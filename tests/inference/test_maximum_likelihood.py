"""Maximum likelihood as a method: its settings, its name, what it leaves in the network."""

import numpy as np
import pytest
import torch
from training_cases import Normal

from ppl_gen import EM, SVI, MaximumLikelihood, Training, infer
from ppl_gen.inference.base import resolve


@pytest.fixture
def data():
    return {"x": np.random.default_rng(0).normal(3.0, 2.0, (300, 2))}


def test_it_is_found_by_its_name():
    assert isinstance(resolve("maximum_likelihood"), MaximumLikelihood)


def test_its_own_settings_take_the_place_of_those_of_training(data):
    training = Training(epochs=50, learning_rate=0.5, ema=0.9)
    method = MaximumLikelihood(epochs=3, batch_size=100, training=training)
    trained = method.train(Normal(), data)
    assert trained.n_epochs == 3
    assert trained.history["learning_rate"].tolist() == [0.5] * 3
    assert training.epochs == 50  # never changed by a fit


def test_the_loss_is_in_nats_a_row(data):
    module = Normal().double()
    method = MaximumLikelihood(epochs=500, learning_rate=0.1, batch_size=300)
    method.set_params(training=Training(schedule="cosine"))
    trained = method.train(module, data)
    # The entropy of the fitted normals: the mean negative log likelihood at its least.
    expected = np.log(data["x"].std(0) * np.sqrt(2 * np.pi * np.e)).sum()
    assert trained.history["loss"].iloc[-1] == pytest.approx(expected, abs=1e-5)
    assert not module.training
    assert module.loc.dtype == torch.float64


def test_settings_are_checked_before_any_work(data):
    with pytest.raises(ValueError, match="Training: epochs is -1"):
        MaximumLikelihood(epochs=-1).train(None, data)


def test_it_does_not_run_on_programs():
    def model():
        import pyro

        pyro.sample("x", pyro.distributions.Normal(0.0, 1.0), obs=torch.zeros(()))

    with pytest.raises(ValueError, match="MaximumLikelihood does not run on programs"):
        infer(model, method="maximum_likelihood")


# --- SVI on networks -----------------------------------------------------------------------------


def test_svi_counts_its_steps_in_epochs():
    from ppl_gen.inference.svi_networks import settings

    training = Training(batch_size=50, epochs=7, optimizer="adamw")
    assert settings(SVI(training=training), 200).epochs == 7
    assert settings(SVI(steps=10, training=training), 200).epochs == 3
    found = settings(SVI(steps=10, batch_size=100, learning_rate=0.2, training=training), 200)
    assert (found.epochs, found.batch_size, found.learning_rate) == (5, 100, 0.2)
    assert found.optimizer == "adamw"
    assert settings(SVI(optimizer="sgd", training=training), 200).optimizer == "sgd"


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (SVI("full_rank"), "SVI: guide is given, but a network brings its own"),
        (SVI(objective="vimco"), "SVI: unknown objective 'vimco'; expected one of elbo, iwae"),
        (SVI(optimizer="clipped_adam"), "Training: optimizer is 'clipped_adam'"),
        (SVI(learning_rate=-1), "SVI: learning_rate must be positive"),
    ],
)
def test_svi_checks_its_settings_on_networks(method, told, data):
    with pytest.raises(ValueError, match=told):
        method.train(None, data)


def test_svi_refuses_settings_of_networks_on_programs():
    for method in (SVI(training=Training()), SVI(objective="iwae")):
        with pytest.raises(ValueError, match="training and objective are for networks"):
            method.run(lambda: None)


def test_svi_comes_to_the_evidence_of_a_network(data):
    """p(z) = N(0, 1), p(x | z) = N(z + shift, 1): the evidence is that of N(shift, 1 + 1)."""
    import pyro
    import pyro.distributions as dist
    from torch import nn

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(()))
            self.slope, self.offset, self.log_scale = (
                nn.Parameter(torch.zeros(())) for _ in range(3)
            )

        def model(self, x, context=None):
            with pyro.plate("row", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z + self.shift, 1.0).to_event(1), obs=x)

        def guide(self, x, context=None):
            with pyro.plate("row", len(x)):
                mean = self.slope * x + self.offset
                pyro.sample("z", dist.Normal(mean, self.log_scale.exp()).to_event(1))

    module = Shifted().double()
    x = data["x"][:, :1]
    training = Training(batch_size=100, schedule="cosine")
    trained = SVI(steps=600, learning_rate=0.05, training=training).train(module, {"x": x})
    assert trained.n_epochs == 200
    # The exact posterior is in the guide's family: the bound is tight, at the mean of the rows.
    assert module.shift.item() == pytest.approx(x.mean(), abs=0.02)
    assert module.slope.item() == pytest.approx(0.5, abs=0.02)
    evidence = -0.5 * np.log(4 * np.pi) - ((x - x.mean()) ** 2).mean() / 4
    # One draw a row in the bound: its mean over 300 rows and the last epochs.
    assert trained.history["loss"].tail(10).mean() == pytest.approx(-evidence, abs=0.05)


def test_settings_of_training_that_is_left_out_are_set_on_its_defaults():
    method = MaximumLikelihood(epochs=3).set_params(training__ema=0.9)
    assert method.training.ema == 0.9
    assert method.training.batch_size == Training().batch_size
    assert method.settings().epochs == 3
    assert MaximumLikelihood().set_params(epochs=3).training is None
    with pytest.raises(ValueError, match="Invalid parameter 'training'"):
        EM().set_params(training__ema=0.9)
