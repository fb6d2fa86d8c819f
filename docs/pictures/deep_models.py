"""Draw the picture of the page on deep models: densities in the plane, and digits to order.

Run from the root of the repository: ``python docs/pictures/deep_models.py``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from ppl_gen import BayesClassifier, MaximumLikelihood, NormalizingFlow, Training, plots
from ppl_gen.datasets import (
    load_digits,
    make_checkerboard,
    make_eight_gaussians,
    make_two_moons,
)

TOYS = {"eight gaussians": make_eight_gaussians, "a checkerboard": make_checkerboard}
TOYS["two moons"] = make_two_moons
DRAWN = 5  # of each class


def training(epochs, learning_rate, **settings):
    """Some epochs of Adam, at a rate that falls to zero."""
    settings = {"batch_size": 128, "schedule": "cosine"} | settings
    return MaximumLikelihood(training=Training(epochs, learning_rate=learning_rate, **settings))


def draw_toy(name, ax):
    """Draw the density that a neural spline flow learns of ten thousand points."""
    toy, fresh = TOYS[name](10_000), TOYS[name](10_000, random_state=1)
    flow = NormalizingFlow(inference=training(40, 5e-3, batch_size=256), random_state=0).fit(toy.X)
    low, high = toy.X.min(axis=0), toy.X.max(axis=0)
    margin = 0.06 * (high - low)
    limits = tuple(zip(low - margin, high + margin, strict=True))
    plots.plot_density(flow, limits=limits, n_grid=200, ax=ax)
    shades = ax.images[0].get_array()
    # A few sharp peaks would leave the rest in the dark.
    ax.images[0].set_clim(0.0, np.quantile(shades[shades > 0.05 * shades.max()], 0.97))
    nats = -flow.log_prob(fresh.X).mean()
    ax.set(title=f"{name}: {nats:.2f} nats, the truth {toy.entropy:.2f}", xticks=[], yticks=[])


def draw_digits(ax):
    """Draw digits of each class by one conditional flow."""
    digits = load_digits()
    flow = NormalizingFlow(
        "maf",
        hidden_layer_sizes=(128, 128),
        noise=0.3,
        inference=training(60, 2e-3, ema=0.98),
        random_state=0,
    )
    classifier = BayesClassifier(flow, shared=True).fit(digits.images, digits.y)
    y = np.tile(np.repeat(np.arange(10), 2), DRAWN)
    drawn, _ = classifier.sample(len(y), y=y, random_state=0)
    plots.plot_images(drawn, columns=20, limits=(0, 16), ax=ax)
    ax.set_title("digits that nobody wrote, two columns a class")


def main():
    figure = plt.figure(figsize=(11, 7), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[3.6, 3.0])
    for name, ax in zip(TOYS, above.subplots(1, 3), strict=True):
        draw_toy(name, ax)
    draw_digits(below.subplots())
    file = Path(__file__).with_suffix(".png")
    figure.savefig(file, dpi=90, metadata={"Software": None})
    with Image.open(file) as picture:  # with a palette it is a third of the size
        picture.convert("RGB").quantize(200).save(file, optimize=True)


if __name__ == "__main__":
    main()
