import numpy as np
import pandas as pd
import pytest

from ppl_gen import NUTS, dist, factor, infer, plate, program, sample
from ppl_gen.inference.base import InferenceMethod, resolve
from ppl_gen.inference.native import detect_engine

SHORT = NUTS(chains=2, warmup=100, draws=100)


@program
def normal_mean(x=None, n=3):
    mu = sample("mu", dist.Normal(0.0, 2.0))
    with plate("row", n):
        sample("x", dist.Normal(mu, 1.0), obs=x)


X = np.array([0.3, 1.1, -0.4])


class TestMethods:
    def test_names_and_objects(self):
        assert isinstance(resolve("nuts"), NUTS)
        assert isinstance(resolve("NUTS"), NUTS)
        assert resolve(SHORT) is SHORT

    def test_unknown_names_are_refused_with_the_list(self):
        with pytest.raises(
            ValueError, match="unknown 'gibbs'; expected one of 'em', 'nuts', 'svi'"
        ):
            infer(normal_mean, x=X, method="gibbs")

    def test_a_class_or_another_object(self):
        with pytest.raises(TypeError, match=r"NUTS is a class; pass NUTS\(\)"):
            infer(normal_mean, x=X, method=NUTS)
        with pytest.raises(TypeError, match="got a int; expected one of 'em'"):
            infer(normal_mean, x=X, method=3)

    def test_a_method_for_models_only(self):
        class Other(InferenceMethod):
            name = "other"

        with pytest.raises(ValueError, match="Other does not run on programs"):
            infer(normal_mean, x=X, method=Other())

    def test_settings_are_scikit_learn_parameters(self):
        assert NUTS(draws=5).get_params()["draws"] == 5
        assert NUTS().set_params(chains=2).chains == 2


class TestRefusals:
    def test_nothing_observed(self):
        with pytest.raises(ValueError, match=r"the sites mu, x are all latent.*arguments: x, n"):
            infer(normal_mean)

    def test_unknown_engine_device_dtype(self):
        with pytest.raises(ValueError, match="unknown engine 'stan'"):
            infer(normal_mean, x=X, engine="stan")
        with pytest.raises(ValueError, match="unknown device 'tpu'"):
            infer(normal_mean, x=X, device="tpu")
        with pytest.raises(ValueError, match="unknown dtype 'float16'"):
            infer(normal_mean, x=X, dtype="float16")

    def test_cuda_where_there_is_none(self):
        import jax

        if jax.default_backend() == "gpu":
            pytest.skip("there is a CUDA device")
        with pytest.raises(ValueError, match="'cuda' asked for"):
            infer(normal_mean, x=X, device="cuda")

    def test_arguments_that_the_program_lacks(self):
        with pytest.raises(TypeError, match="normal_mean: got an unexpected keyword argument 'y'"):
            infer(normal_mean, y=X)

    def test_not_a_program(self):
        with pytest.raises(TypeError, match="got a int as the program"):
            infer(3)

    def test_doubly_intractable(self):
        @program
        def energy(x=None):
            coupling = sample("coupling", dist.Normal(0.0, 1.0))
            with plate("row", 3):
                value = sample("x", dist.Normal(0.0, 1.0), obs=x)
            factor("energy", coupling * (value[0] * value[1] + value[1] * value[2]))

        with pytest.raises(ValueError, match="'energy' joins the observed x and the latent coup"):
            infer(energy, x=X, method=SHORT)


def test_an_energy_may_be_drawn_from():
    @program
    def energy():
        x = sample("x", dist.Flat())
        factor("energy", -0.5 * (x - 3.0) ** 2)

    method = NUTS(chains=4, warmup=300, draws=500)
    found = infer(energy, method=method, progress=False)
    # Normal(3, 1); over 500 effective draws: four standard errors.
    assert found.draws["x"].mean() == pytest.approx(3.0, abs=0.18)
    assert found.draws["x"].std() == pytest.approx(1.0, abs=0.13)
    with pytest.raises(ValueError, match="goes through factor"):
        found.log_likelihood()


def test_frames_become_arrays_and_label_axes():
    @program
    def regression(X, y=None):
        with plate("feature", X.shape[1]):
            b = sample("b", dist.Normal(0.0, 1.0))
        with plate("row", X.shape[0]):
            sample("y", dist.Normal(X @ b, 1.0), obs=y)

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(20, 2)), columns=["age", "height"])
    y = pd.Series(rng.normal(size=20))
    found = infer(regression, frame, y=y, method=SHORT, progress=False)
    assert found.summary().index.tolist() == ["b[age]", "b[height]"]
    assert found.predictive(3, X=frame.iloc[:5])["y"].shape == (3, 5)


class TestDetection:
    def test_by_what_the_code_refers_to(self):
        import numpyro
        import numpyro.distributions as nd
        import pyro

        def by_module():
            return numpyro.sample("x", nd.Normal(0, 1))

        def by_import():
            import pyro

            return pyro.sample("x", pyro.distributions.Normal(0, 1))

        def through_another():
            return by_module()

        def nested():
            def inner():
                return pyro.sample("x", None)

            return inner()

        assert detect_engine(by_module) == "numpyro"
        assert detect_engine(by_import) == "pyro"
        assert detect_engine(through_another) == "numpyro"
        assert detect_engine(nested) == "pyro"
        assert detect_engine(lambda: 3) is None

    def test_both(self):
        import numpyro
        import pyro

        def confused():
            return numpyro.sample, pyro.sample

        with pytest.raises(ValueError, match="refers to both"):
            infer(confused)

    def test_neither(self):
        def plain(x=None):
            sample("x", dist.Normal(0.0, 1.0), obs=x)

        with pytest.raises(ValueError, match="decorate it with @program"):
            infer(plain, x=X)

    def test_a_torch_network_means_pyro(self):
        import torch

        network = torch.nn.Linear(1, 1)

        def model(x):
            return network(x)

        assert detect_engine(model) == "pyro"
        assert detect_engine(network) == "pyro"

    def test_a_program_with_a_network_runs_on_pyro(self):
        import torch

        from ppl_gen.inference.dispatch import _engine_name

        network = torch.nn.Linear(1, 1)

        @program
        def model(x):
            sample("y", dist.Normal(network(x), 1.0))

        assert _engine_name(model, None) == "pyro"
        assert _engine_name(normal_mean, None) is None
        assert _engine_name(normal_mean, "pyro") == "pyro"
