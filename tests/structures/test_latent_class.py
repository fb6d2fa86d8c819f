"""The latent class model: its program beside its arithmetic, and how families are chosen."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp

from ppl_gen import GaussianMixture, NaiveBayes, classify, engines
from ppl_gen.data import Rows, describe_matrix, read_frame
from ppl_gen.families import Bernoulli, Categorical, Columns, Multinomial, Normal, Poisson
from ppl_gen.structures.family_choice import choose_family
from ppl_gen.structures.latent_class import LatentClass, class_means

ENGINES = ["numpyro", "pyro"]


def rows(n_rows=30, seed=0, holes=False):
    rng = np.random.default_rng(seed)
    z = rng.integers(2, size=n_rows)
    x = np.column_stack(
        [rng.normal(3.0 * z), rng.normal(size=n_rows) - z, rng.random(n_rows) < 0.3 + 0.4 * z]
    ).astype(float)
    if holes:
        x[rng.random(x.shape) < 0.3] = np.nan
    return x, z


FAMILY = Columns((("size", Normal("full"), (0, 1)), ("yes", Bernoulli(), (2,))))


def bound(x):
    return LatentClass(FAMILY.bind(x, 2), 2, concentration=0.5)


def joint(structure, parameters, data, engine_name):
    """Log joint density of the program at these parameters."""
    engine = engines.get(engine_name)
    native = structure.program().native(engine_name)
    trace = engine.outline(native, (), data)
    sites = structure.sites(parameters)
    latent = {n for n, s in trace.items() if s.kind == "sample" and not s.observed}
    values = {n: v for n, v in sites.items() if n in latent}
    if engine_name == "pyro":
        return engine.log_joint(native, (), data, values)
    # One compile of the whole, in place of one an operation.
    with engine.precision(device="cpu"):
        import jax
        from numpyro.infer.util import log_density

        values = {n: engine.asarray(v) for n, v in values.items()}
        return float(jax.jit(lambda v: log_density(native, (), data, v)[0])(values))


@pytest.mark.parametrize("engine_name", ENGINES)
@pytest.mark.parametrize("holes", [False, True])
def test_the_program_is_the_prior_and_the_joint_densities(engine_name, holes):
    """Labelled rows give log p(x, y), the others log p(x): their sum and a prior of the rest."""
    x, z = rows(holes=holes)
    structure = bound(x)
    parameters = structure.initialize(Rows(x), np.random.default_rng(0), "kmeans")
    each = structure.joint_log_prob(parameters, x)  # (n, K)
    nothing = {"x": x[:1], "y": z[:1]}
    prior = joint(structure, parameters, nothing, engine_name) - each[0, z[0]]
    known = 12
    data = {"x": x[:known], "y": z[:known], "x_unlabelled": x[known:]}
    expected = prior + each[np.arange(known), z[:known]].sum() + logsumexp(each[known:], 1).sum()
    # Some tens of terms of some nats, on another array library.
    assert joint(structure, parameters, data, engine_name) == pytest.approx(expected, rel=1e-11)
    hidden = prior + logsumexp(each, axis=1).sum()
    assert joint(structure, parameters, {"x": x}, engine_name) == pytest.approx(hidden, rel=1e-11)


@pytest.mark.parametrize("engine_name", ENGINES)
def test_the_e_step_is_the_joint_density(engine_name):
    x, z = rows(holes=True)
    structure = bound(x)
    parameters = structure.initialize(Rows(x), np.random.default_rng(0), "random")
    each = structure.joint_log_prob(parameters, x)
    labels = np.where(np.arange(30) < 12, z, -1)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, size=30)
    _, found = structure.e_step(parameters, Rows(x, weights, labels))
    terms = np.where(labels >= 0, each[np.arange(30), z], logsumexp(each, axis=1))
    assert found == pytest.approx(weights @ terms, rel=1e-12)


def test_new_rows_may_have_holes_where_the_fitted_had_none():
    x, _ = rows(60)
    for covariance_type in ("full", "diag"):
        model = GaussianMixture(2, covariance_type, random_state=0).fit(x[:, :2])
        holed = x[:5, :2].copy()
        holed[0, 0] = holed[1, 1] = np.nan
        holed[2] = np.nan
        found = classify(model.posterior_, "z", x=holed)
        # The program on JAX beside the model on NumPy.
        np.testing.assert_allclose(found, model.predict_proba(holed), rtol=1e-9)


def test_rows_are_drawn_by_the_program():
    x, _ = rows(60)
    model = GaussianMixture(2, random_state=0).fit(x[:, :2])
    drawn = model.posterior_.predictive(x=None, n_rows=400)["x"]
    assert drawn.shape[-2:] == (400, 2)
    # Five standard errors of 400 draws.
    error = x[:, :2].std(axis=0) / 20
    mean = model.weights_ @ model.means_
    assert (np.abs(drawn.reshape(-1, 2).mean(axis=0) - mean) < 5.0 * error).all()


# -- choosing a family ----------------------------------------------------------------------------


def chosen(spec, frame):
    return choose_family(spec, read_frame(frame, "Test")[1], "Test")


FRAME = pd.DataFrame(
    {
        "a": [1.0, 2.0, 3.0],
        "b": [True, False, True],
        "c": pd.Categorical(["x", "y", "x"], ["x", "y", "z"]),
        "d": [3, 4, 5],
    }
)


def test_kinds_of_columns_choose_their_family():
    family = chosen("auto", FRAME)
    assert [(name, part.name, places) for name, part, places in family.parts] == [
        ("normal", "normal", (0, 3)),
        ("bernoulli", "bernoulli", (1,)),
        ("categorical", "categorical", (2,)),
    ]
    # Declared categories count, seen or not.
    assert family.parts[2][1].n_categories == (3,)
    assert family.parts[0][1].covariance_type == "diag"


def test_columns_may_be_given_their_own():
    own = Normal("diag", reg_covar=0.5)
    family = chosen({"a": own, "d": "poisson"}, FRAME)
    parts = {name: (part, places) for name, part, places in family.parts}
    assert parts["normal"] == (own, (0,))
    assert isinstance(parts["poisson"][0], Poisson)
    # Families that differ in their settings are parts of their own.
    family = chosen({"a": own}, FRAME)
    assert [name for name, _, _ in family.parts] == [
        "normal",
        "bernoulli",
        "categorical",
        "normal_2",
    ]


def test_one_family_for_all_stands_alone():
    matrix = describe_matrix(np.ones((3, 2)))
    assert isinstance(choose_family("poisson", matrix, "Test"), Poisson)
    assert choose_family("normal", matrix, "Test").covariance_type == "diag"
    assert choose_family("auto", matrix, "Test").covariance_type == "diag"
    given = Multinomial(alpha=0.1)
    assert choose_family(given, matrix, "Test") is given
    assert isinstance(choose_family({0: "poisson", 1: "poisson"}, matrix, "Test"), Poisson)
    assert isinstance(chosen("auto", FRAME[["c"]]), Categorical)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("beta", ValueError, "Test: unknown family 'beta'; expected one of normal, bernoulli"),
        ({"e": "normal"}, ValueError, r"Test: family names columns \['e'\].*it has \['a', 'b'"),
        (3, TypeError, "Test: family is 3; expected 'auto', a name"),
        ({"a": "beta"}, ValueError, "unknown family 'beta'"),
    ],
)
def test_families_that_there_are_not(spec, error, message):
    with pytest.raises(error, match=message):
        chosen(spec, FRAME)


def test_class_means_skip_what_is_missing():
    x = np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 6.0]])
    hot = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    # The third class has no rows: the mean of all.
    np.testing.assert_allclose(class_means(x, hot), [[2.0, 4.0], [5.0, 6.0], [3.0, 5.0]])


def test_a_family_that_is_given_keeps_its_settings():
    """Those of the model are for families that it chooses itself."""
    frame, y = FRAME[["b", "c"]], [0, 1, 0]
    given = NaiveBayes({"c": Categorical(alpha=0.25)}, alpha=2.0).fit(frame, y)
    parts = given.structure_.family.parts
    assert {name: part.alpha for name, part, _ in parts} == {"bernoulli": 2.0, "categorical": 0.25}


def test_the_prior_of_svi_and_nuts_holds_for_the_mode_they_start_from():
    x, _ = rows()
    parts = bound(x).with_prior().family.parts
    assert [getattr(part, "prior", None) for _, part, _ in parts] == ["default", None]
