"""Digits told apart by Bayes' rule: accuracy and calibration of densities, and of their peers.

Five folds of scikit-learn's 1,797 images of 8 x 8, each scored by models that were fitted to the
other four. Settings were chosen on folds of another seed. ``python -m benchmarks.digits`` prints
the table; names as arguments choose some of the models.
"""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from ppl_gen import (
    MADE,
    SVI,
    VAE,
    BayesClassifier,
    GaussianMixture,
    MaximumLikelihood,
    NaiveBayes,
    NormalizingFlow,
    PixelCNN,
    Training,
)
from ppl_gen.datasets import load_digits
from ppl_gen.evaluate.calibration import expected_calibration_error

SHAPE = (8, 8)


class Kernels(BaseEstimator):
    """Kernel density estimate: a normal about each row, all of one width.

    By plain sums: scikit-learn's trees lose the digits of the tails in 64 dimensions.
    """

    density = "exact"

    def __init__(self, bandwidth: float = 4.0) -> None:
        self.bandwidth = bandwidth

    def fit(self, X: Any, y: Any = None) -> "Kernels":
        """Keep the rows."""
        self.rows_ = X
        return self

    def log_prob(self, X: Any) -> Any:
        """Log density of rows: (n,)."""
        exponents = cdist(X, self.rows_, "sqeuclidean") / (-2.0 * self.bandwidth**2)
        scale = 0.5 * X.shape[1] * np.log(2.0 * np.pi * self.bandwidth**2)
        return logsumexp(exponents, axis=1) - np.log(len(self.rows_)) - scale


def training(epochs: int, learning_rate: float, batch_size: int = 128) -> Training:
    """Settings that the networks share."""
    return Training(epochs, batch_size, learning_rate, schedule="cosine", ema=0.99)


def shared(model: Any) -> BayesClassifier:
    """One density of all digits, conditional on which it is."""
    return BayesClassifier(model, shared=True)


MODELS: dict[str, Callable[[], Any]] = {
    "naive Bayes, normal": lambda: NaiveBayes(),
    "class-wise normal": lambda: BayesClassifier(GaussianMixture(1, reg_covar=10.0)),
    "logistic regression": lambda: make_pipeline(
        MinMaxScaler(), LogisticRegression(C=10.0, max_iter=1000)
    ),
    "class-wise kernel density": lambda: BayesClassifier(Kernels(bandwidth=6.0)),
    "conditional flow (MAF)": lambda: shared(
        NormalizingFlow(
            "maf",
            hidden_layer_sizes=(512, 512),
            noise=0.5,
            image_shape=SHAPE,
            inference=MaximumLikelihood(training=training(80, 1e-3)),
            random_state=0,
        )
    ),
    "conditional VAE": lambda: shared(
        VAE(
            16,
            hidden_layer_sizes=(256, 256),
            noise=8.0,
            image_shape=SHAPE,
            inference=SVI(training=training(150, 1e-3)),
            random_state=0,
        )
    ),
    "conditional MADE": lambda: shared(
        MADE(
            (256, 256),
            kinds="whole",
            inference=MaximumLikelihood(training=training(30, 3e-3)),
            random_state=0,
        )
    ),
    "conditional PixelCNN": lambda: shared(
        PixelCNN(
            32,
            4,
            likelihood="discretised_logistic",
            n_levels=17,
            image_shape=SHAPE,
            inference=MaximumLikelihood(training=training(30, 3e-3, 64)),
            random_state=0,
        )
    ),
}

HEAD = (
    "| model | accuracy | errors | log loss, nats | calibration error | CPU s a fold |\n"
    "|---|---|---|---|---|---|"
)


def cross_validated(
    make: Callable[[], Any], seed: int = 0, folds: range = range(5)
) -> tuple[Any, Any, float]:
    """Probabilities of held-out digits, what they are, and the CPU seconds of a fold."""
    data = load_digits()
    X, y = data.X.to_numpy(), data.y.to_numpy()
    parts = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y))
    found, truth, start = [], [], time.process_time()
    for train, test in (parts[fold] for fold in folds):
        with warnings.catch_warnings():
            # Pixels that are zero in all images of a digit: their variance is the floor's.
            warnings.filterwarnings("ignore", message=".*constant column", category=RuntimeWarning)
            found.append(make().fit(X[train], y[train]).predict_proba(X[test]))
        truth.append(y[test])
    seconds = (time.process_time() - start) / len(folds)
    return np.concatenate(found), np.concatenate(truth), seconds


def line(name: str, proba: Any, y: Any, seconds: float) -> str:
    """One row of the table in Markdown."""
    right = proba.argmax(axis=1) == y
    # Certainty of what is wrong costs a lot, not everything.
    loss = log_loss(y, np.clip(proba, 1e-15, 1.0), labels=np.arange(10))
    error = expected_calibration_error(y, proba, np.arange(10))
    return (
        f"| {name} | {right.mean():.4f} | {(~right).sum()} | {loss:.3f} | {error:.3f} | "
        f"{seconds:.1f} |"
    )


def main() -> None:
    """Fit, score, print."""
    chosen = [name for name in MODELS if not sys.argv[1:] or name in sys.argv[1:]]
    print(HEAD, flush=True)
    for name in chosen:
        print(line(name, *cross_validated(MODELS[name])), flush=True)


if __name__ == "__main__":
    main()
