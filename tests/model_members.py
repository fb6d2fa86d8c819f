"""Every model with data it takes, for the one contract of tests/test_contract.py.

A new model joins by one line of `MODELS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ppl_gen import (
    EM,
    MADE,
    NUTS,
    SVI,
    VAE,
    VQVAE,
    BayesClassifier,
    BayesianNetwork,
    CausalTransformer,
    FactorAnalysis,
    FactorNormal,
    GaussianMixture,
    HiddenMarkovModel,
    LinearAutoregression,
    LinearGaussianStateSpace,
    MarkovChain,
    MaximumLikelihood,
    Mixture,
    NaiveBayes,
    NormalizingFlow,
    PixelCNN,
    ProbabilisticPCA,
    SemiSupervisedVAE,
)
from ppl_gen.datasets import load_iris, load_penguins

METHODS = {
    "em": EM(max_iter=20),
    "conjugate": "conjugate",
    "svi": SVI(steps=30),
    "nuts": NUTS(chains=2, warmup=20, draws=10),
    "maximum_likelihood": MaximumLikelihood(epochs=3),
}


def flowers(rows: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers, with some of them missing."""
    frame = load_iris().frame.sample(rows, random_state=0, ignore_index=True)
    x = frame.iloc[:, :4].copy()
    x.iloc[3, 1] = x.iloc[7, 0] = x.iloc[7, 2] = np.nan
    return x, frame.iloc[:, 4].to_numpy()


def penguins(rows: int = 80) -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers, categories and a yes or no, with some of them missing."""
    frame = load_penguins().frame.sample(rows, random_state=0, ignore_index=True)
    x = frame[["bill_length_mm", "body_mass_g", "sex"]].assign(heavy=frame["body_mass_g"] > 4200)
    x.loc[2, "sex"] = x.loc[5, "body_mass_g"] = None
    return x, frame["species"].astype(str).to_numpy()


def complete_flowers() -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers, all known."""
    x, species = flowers()
    return x.ffill(), species


def complete_penguins() -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers, categories and a yes or no, all known."""
    x, species = penguins()
    known = x.notna().all(axis=1).to_numpy()
    return x[known].reset_index(drop=True), species[known]


def patches() -> tuple[pd.DataFrame, np.ndarray]:
    """Small images of three levels, a column a pixel."""
    codes = np.random.default_rng(0).integers(3, size=(60, 3)).repeat(3, axis=1)
    codes[:, ::4] = 2 - codes[:, ::4]
    return pd.DataFrame(codes, columns=[f"pixel_{d}" for d in range(9)]), codes[:, 1]


def islands() -> tuple[pd.DataFrame, None]:
    """Categories, all known."""
    frame = load_penguins().frame[["species", "island", "sex"]].dropna()
    return frame.sample(60, random_state=0, ignore_index=True), None


def seasons() -> tuple[list[pd.DataFrame], None]:
    """Sequences of unequal lengths, with some values and a whole step missing."""
    x, _ = flowers()
    x.iloc[40] = np.nan
    return [x.iloc[:25], x.iloc[25:26], x.iloc[26:]], None


def beds() -> tuple[list[pd.DataFrame], np.ndarray]:
    """Sequences of flowers of one species each."""
    x, species = flowers()
    beds, labels = [], []
    for label in np.unique(species):
        own = x[species == label]
        pieces = np.split(np.arange(len(own)), [3, 4, 10])
        beds += [own.iloc[piece] for piece in pieces]
        labels += [label] * len(pieces)
    return beds, np.array(labels)


def complete_seasons() -> tuple[list[pd.DataFrame], None]:
    """Sequences of two columns, of which all is known."""
    x = flowers()[0].iloc[:, 2:].ffill().bfill()
    return [x.iloc[:25], x.iloc[25:35], x.iloc[35:]], None


def weather() -> tuple[list[np.ndarray], None]:
    """Sequences of names."""
    days = np.random.default_rng(0).choice(["fog", "rain", "sun"], p=[0.2, 0.3, 0.5], size=60)
    return [days[:25], days[25:26], days[26:]], None


@dataclass(frozen=True)
class Model:
    """One line of the contract."""

    make: Callable[[Any], Any]  # from an inference object
    data: Callable[[], tuple[Any, np.ndarray | None]]
    classifier: bool = False
    methods: tuple[str, ...] = ("em", "svi", "nuts")
    #: A site of the program, and an axis that it has.
    site: tuple[str, str] = ("weights", "component")
    #: Data are tables, whose gaps are filled; or symbols, none of which is missing.
    tables: bool = True
    #: Columns are found by their names, in any order, and need not all be there.
    by_name: bool = False
    #: There is a discrete latent to ask for.
    classes: bool = True
    #: Shape of what is latent of each row drawn.
    latent: tuple[int, ...] = ()
    #: What is latent of rows can be asked for as they are drawn.
    latents: bool = True
    #: The program's likelihood is by row, or sequence, as `log_prob` is.
    by_item: bool = True
    #: Gaps are marginalised.
    missing: bool = True
    #: The model is a network, whose weights are known by a point.
    deep: bool = False
    #: What kind of number `log_prob` gives.
    density: str = "exact"
    #: To what two ways to a log density agree, relatively: rounding in float64.
    rounding: float = 1e-12

    @property
    def point(self) -> str:
        """The first method that gives a point."""
        return next(m for m in self.methods if self.deep or m == "em")


#: What networks have in common: a point, known by its weights.
NETWORK: dict[str, Any] = {
    "classes": False,
    "latents": False,
    "missing": False,
    "deep": True,
    # Sums over a batch of another size round otherwise.
    "rounding": 1e-9,
}
MODELS = {
    "gaussian_mixture": Model(
        lambda method: GaussianMixture(2, inference=method, random_state=0), flowers
    ),
    "mixture": Model(lambda method: Mixture(2, inference=method, random_state=0), penguins),
    "naive_bayes": Model(
        lambda method: NaiveBayes(inference=method),
        penguins,
        classifier=True,
        site=("weights", "class"),
    ),
    "bayes_classifier": Model(
        lambda method: BayesClassifier(Mixture(1, inference=method, random_state=0)),
        penguins,
        classifier=True,
        methods=("em",),
    ),
    "hidden_markov": Model(
        # At each step the likeliest state: the likeliest path need not agree with probabilities.
        lambda method: HiddenMarkovModel(2, algorithm="map", inference=method, random_state=0),
        seasons,
        site=("transition", "state"),
    ),
    "bayesian_network": Model(
        lambda method: BayesianNetwork(
            [
                ("z", "sex"),
                ("z", "heavy"),
                ("z", "bill_length_mm"),
                ("z", "body_mass_g"),
                ("bill_length_mm", "body_mass_g"),
            ],
            states={"z": 2},
            inference=method,
            random_state=0,
        ),
        penguins,
        site=("p_sex", "sex"),
        by_name=True,
    ),
    "bayesian_network_of_tables": Model(
        lambda method: BayesianNetwork(
            [("species", "island"), ("species", "sex")], inference=method, random_state=0
        ),
        islands,
        methods=("em", "conjugate", "svi", "nuts"),
        site=("p_sex", "sex"),
        by_name=True,
        classes=False,
        latent=(0,),
    ),
    "bayes_classifier_of_sequences": Model(
        lambda method: BayesClassifier(HiddenMarkovModel(1, inference=method, random_state=0)),
        beds,
        classifier=True,
        methods=("em",),
    ),
    "markov_chain": Model(
        lambda method: MarkovChain(inference=method, random_state=0),
        weather,
        methods=("em", "conjugate", "svi", "nuts"),
        site=("transition", "state"),
        tables=False,
        classes=False,
    ),
    "state_space": Model(
        lambda method: LinearGaussianStateSpace(1, inference=method, random_state=0),
        seasons,
        site=("transition", "state"),
        classes=False,
        latent=(1,),
    ),
    "autoregression": Model(
        lambda method: LinearAutoregression(1, inference=method, random_state=0),
        complete_seasons,
        methods=("conjugate", "em", "svi", "nuts"),
        site=("coefficients", "column"),
        classes=False,
        latents=False,
        by_item=False,
        missing=False,
    ),
    "factor_analysis": Model(
        # The default prior keeps noises away from the floor, of which there is a warning.
        lambda method: FactorAnalysis(1, prior="default", inference=method, random_state=0),
        flowers,
        site=("loadings", "factor"),
        classes=False,
        latent=(1,),
    ),
    "probabilistic_pca": Model(
        lambda method: ProbabilisticPCA(2, inference=method, random_state=0),
        flowers,
        site=("loadings", "factor"),
        classes=False,
        latent=(2,),
    ),
    "mixture_of_factors": Model(
        lambda method: Mixture(2, FactorNormal(1), inference=method, random_state=0), flowers
    ),
}
MODELS |= {
    "normalizing_flow": Model(
        lambda method: NormalizingFlow(
            n_transforms=2,
            hidden_layer_sizes=(8,),
            inference=method,
            random_state=0,
            dtype="float64",
        ),
        complete_flowers,
        methods=("maximum_likelihood",),
        **NETWORK,
    ),
    "vae": Model(
        lambda method: VAE(
            2, hidden_layer_sizes=(8,), inference=method, random_state=0, dtype="float64"
        ),
        flowers,
        methods=("svi",),
        **NETWORK | {"latents": True, "latent": (2,), "missing": True, "density": "lower_bound"},
        by_item=False,
    ),
    "vqvae": Model(
        lambda method: VQVAE(
            4,
            2,
            n_places=2,
            hidden_layer_sizes=(8,),
            prior="categorical",
            inference=method,
            random_state=0,
            dtype="float64",
        ),
        complete_flowers,
        methods=("maximum_likelihood",),
        **NETWORK | {"density": "lower_bound"},
        by_item=False,
    ),
    "semi_supervised_vae": Model(
        lambda method: SemiSupervisedVAE(
            2, hidden_layer_sizes=(16,), inference=method, random_state=0, dtype="float64"
        ),
        complete_flowers,
        methods=("svi",),
        classifier=True,
        **NETWORK | {"density": "lower_bound", "classes": True, "latents": True},
        by_item=False,
    ),
    "made": Model(
        lambda method: MADE((8,), inference=method, random_state=0, dtype="float64"),
        complete_penguins,
        methods=("maximum_likelihood",),
        **NETWORK,
    ),
    "pixel_cnn": Model(
        lambda method: PixelCNN(
            image_shape=(3, 3),
            n_filters=8,
            n_layers=2,
            inference=method,
            random_state=0,
            dtype="float64",
        ),
        patches,
        methods=("maximum_likelihood",),
        **NETWORK,
    ),
    "causal_transformer": Model(
        lambda method: CausalTransformer(
            1, 2, 8, tokeniser=None, inference=method, random_state=0, dtype="float64"
        ),
        weather,
        methods=("maximum_likelihood",),
        tables=False,
        **NETWORK,
    ),
}
#: Pairs that compile as long as the others, and have no line of code of their own.
SLOW = [
    ("gaussian_mixture", "svi"),
    ("mixture", "nuts"),
    ("naive_bayes", "svi"),
    ("hidden_markov", "svi"),
    ("bayesian_network", "svi"),
    *(("factor_analysis", m) for m in ("svi", "nuts")),
    ("mixture_of_factors", "svi"),
    ("mixture_of_factors", "nuts"),
    *(
        (name, m)
        for name in (
            "bayesian_network_of_tables",
            "markov_chain",
            "state_space",
            "autoregression",
            "probabilistic_pca",
        )
        for m in ("svi", "nuts")
    ),
]
CASES = [
    pytest.param(
        name,
        method,
        id=f"{name}-{method}",
        marks=[pytest.mark.slow] if (name, method) in SLOW else [],
    )
    for name, model in MODELS.items()
    for method in model.methods
]
