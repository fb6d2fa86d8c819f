"""Factors of draws in one orientation, where components are relabelled."""

import numpy as np
import pytest
from scipy.stats import ortho_group

import ppl_gen
from ppl_gen import Posterior

CHAINS, DRAWS, D, L, N = 4, 500, 6, 2, 5
RNG = np.random.default_rng(0)
LOADINGS = RNG.normal(size=(D, L)) * [2.0, 1.0]
SCORES = RNG.normal(size=(N, L))


def turns(seed, *shape):
    return ortho_group.rvs(L, size=int(np.prod(shape)), random_state=seed).reshape(*shape, L, L)


def noise(*shape):
    return 0.05 * RNG.normal(size=shape)


def factor_posterior(**more):
    """Draws of loadings and of what rows have of the factors, turned together."""
    each = turns(1, CHAINS, DRAWS)
    draws = {
        "level": RNG.normal(size=(CHAINS, DRAWS)),
        "loadings": (LOADINGS + noise(CHAINS, DRAWS, D, L)) @ each,
        "scores": (SCORES + noise(CHAINS, DRAWS, N, L)) @ each,
    }
    dims = {"loadings": ["column", "factor"], "scores": ["row", "factor"]}
    return Posterior(draws, method="nuts", dims=dims, rotatable=["factor"], **more)


def test_the_verdict_is_of_one_orientation():
    posterior = factor_posterior()
    assert posterior.verdict.ok
    left_alone = Posterior(posterior.draws, method="nuts", dims=posterior.dims)
    sd = np.std(left_alone.stacked("loadings"), axis=0)
    found = posterior.relabel()
    assert found.rotatable == ()
    # Noise of .05, of which alignment takes a part; turned, loadings vary as much as their size.
    assert np.std(found.stacked("loadings"), axis=0).max() < 0.07 < sd.min()
    table = posterior.summary("loadings")
    assert table["sd"].max() < 0.07


def test_one_axis_may_be_named_alone():
    draws, dims = {"loadings": RNG.normal(size=(1, 5, D, L))}, {"loadings": ["column", "factor"]}
    assert Posterior(draws, method="nuts", dims=dims, rotatable="factor").rotatable == ("factor",)


def test_what_rows_have_of_factors_turns_with_them():
    posterior = factor_posterior()
    found = posterior.relabel()
    before = posterior.draws["loadings"] @ np.swapaxes(posterior.draws["scores"], -1, -2)
    after = found.draws["loadings"] @ np.swapaxes(found.draws["scores"], -1, -2)
    np.testing.assert_allclose(after, before, rtol=1e-10, atol=1e-12)
    assert np.std(found.stacked("scores"), axis=0).max() < 0.2
    np.testing.assert_array_equal(found.draws["level"], posterior.draws["level"])


def test_components_are_relabelled_first_and_each_has_its_own_rotation():
    means = np.array([[0.0, 0.0], [4.0, 4.0], [9.0, 0.0]])
    sets = RNG.normal(size=(3, D, L)) * [2.0, 1.0]
    order = np.stack([RNG.permutation(3) for _ in range(CHAINS * DRAWS)])
    loadings = (sets + noise(CHAINS * DRAWS, 3, D, L)) @ turns(2, CHAINS * DRAWS, 3)
    draws = {
        "mean": (means + noise(CHAINS * DRAWS, 3, 2)),
        "loadings": loadings,
    }
    draws = {
        name: np.take_along_axis(
            value, order.reshape(-1, 3, *[1] * (value.ndim - 2)), axis=1
        ).reshape(CHAINS, DRAWS, *value.shape[1:])
        for name, value in draws.items()
    }
    posterior = Posterior(
        draws,
        method="nuts",
        dims={"mean": ["component", "x"], "loadings": ["component", "column", "factor"]},
        exchangeable="component",
        rotatable=["factor"],
    )
    found = posterior.relabel()
    for site in draws:
        assert np.std(found.stacked(site), axis=0).max() < 0.07
    assert posterior.verdict.ok
    assert found.info["relabelled_share"] > 0.5


def test_components_that_differ_by_their_factors_alone_are_told_apart():
    sizes = np.array([0.5, 3.0])[:, None, None]
    sets = sizes * RNG.normal(size=(2, D, L))
    flip = RNG.random(CHAINS * DRAWS) < 0.5
    loadings = (sets + noise(CHAINS * DRAWS, 2, D, L)) @ turns(3, CHAINS * DRAWS, 2)
    loadings[flip] = loadings[flip][:, ::-1]
    posterior = Posterior(
        {"loadings": loadings.reshape(CHAINS, DRAWS, 2, D, L)},
        method="nuts",
        dims={"loadings": ["component", "column", "factor"]},
        exchangeable="component",
        rotatable=["factor"],
    )
    assert np.std(posterior.relabel().stacked("loadings"), axis=0).max() < 0.07


def test_the_axis_is_kept_by_an_artefact(tmp_path):
    factor_posterior().save(tmp_path / "posterior")
    loaded = ppl_gen.load(tmp_path / "posterior")
    assert loaded.rotatable == ("factor",)
    assert loaded.verdict.ok


def test_a_point_has_nothing_to_agree_with():
    posterior = Posterior({"loadings": LOADINGS[None, None]}, method="em", rotatable=["factor"])
    assert posterior.relabel() is posterior


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({}, "no site has an axis 'factor'; expected one of"),
        ({"loadings": ["factor", "column"]}, "expected factors along the last one, 'factor'"),
        (
            {"loadings": ["set", "column", "factor"], "scores": ["row", "factor"]},
            r"site 'scores' has the axes \['row', 'factor'\].*\['set'\] first",
        ),
    ],
)
def test_axes_that_cannot_be_turned(dims, message):
    shape = [3] * len(dims.get("loadings", "ab"))
    draws = {"loadings": np.ones((1, 4, *shape)), "scores": np.ones((1, 4, 3, 3))}
    posterior = Posterior(draws, method="svi", dims=dims, rotatable=["factor"])
    with pytest.raises(ValueError, match=message):
        posterior.relabel()


@pytest.mark.slow
def test_a_program_of_ones_own_says_which_axis_turns():
    from ppl_gen import NUTS, dist, infer, plate, program, sample

    x = (SCORES.repeat(8, axis=0) + 0.0) @ LOADINGS.T + 0.3 * RNG.normal(size=(8 * N, D))

    @program
    def factors(x):
        standard = dist.Normal(np.zeros((D, L)), 2.0).to_event(2)
        loadings = sample("loadings", standard, dims=("column", "factor"))
        noise = sample("noise", dist.HalfNormal(1.0))
        with plate("row", len(x)):
            f = sample("f", dist.Normal(np.zeros(L), 1.0).to_event(1), dims=("factor",))
            sample("x", dist.Normal(f @ loadings.T, noise).to_event(1), obs=x)

    method = NUTS(chains=2, warmup=200, draws=200)
    posterior = infer(factors, x, method=method, rotatable=["factor"], progress=False)
    aligned = posterior.relabel()
    # The product does not depend on the rotation, and so tells whether the chains agree.
    for found in (posterior, aligned):
        product = found.draws["f"] @ np.swapaxes(found.draws["loadings"], -1, -2)
        np.testing.assert_allclose(product[0].mean(axis=0), product[1].mean(axis=0), atol=0.2)
    spread, turned = (np.std(p.stacked("loadings"), axis=0).max() for p in (aligned, posterior))
    assert spread < 0.5 * turned
