"""Draw the picture of the README: one program, its posterior, and Bayes' rule, on penguins.

Run from the root of the repository: ``python docs/pictures/penguins.py``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from PIL import Image

from ppl_gen import EM, NUTS, BayesClassifier, GaussianMixture, dist, plate, plots, program, sample
from ppl_gen.datasets import load_penguins

COLUMNS = ["bill_length_mm", "bill_depth_mm"]


@program
def species(bill=None, n_birds=1):
    weights = sample("weights", dist.Dirichlet(np.ones(3)), dims="component")
    with plate("component", 3):
        mean = sample("mean", dist.Normal(44.0, 10.0))
        scale = sample("scale", dist.HalfNormal(5.0))
    with plate("bird", n_birds):
        z = sample("z", dist.Categorical(weights))
        sample("bill", dist.Normal(mean[z], scale[z]), obs=bill)


def draw_classes(frame, colours, ax):
    """The probability of each species over the plane, as a blend of their colours."""
    seen = frame.dropna(subset=COLUMNS)
    classifier = BayesClassifier(GaussianMixture(1, inference=EM(), random_state=0))
    classifier.fit(seen[COLUMNS], seen["species"].astype(str))
    x, y = np.meshgrid(np.linspace(31, 61, 300), np.linspace(12.5, 22, 300))
    grid = pd.DataFrame({COLUMNS[0]: x.ravel(), COLUMNS[1]: y.ravel()})
    hues = np.array([to_rgb(colours[label]) for label in classifier.classes_])
    blend = (classifier.predict_proba(grid) @ hues).reshape(*x.shape, 3)
    # Pale where no bird is: the joint density fades the colour.
    faint = np.clip((classifier.log_prob(grid) + 16.0) / 11.0, 0.0, 1.0).reshape(*x.shape, 1)
    ax.imshow(
        1.0 - 0.65 * faint * (1.0 - blend), extent=(31, 61, 12.5, 22), origin="lower", aspect="auto"
    )
    for label, rows in seen.groupby("species", observed=True):
        ax.scatter(*rows[COLUMNS].T.to_numpy(), s=9, color=colours[label], label=label)
    ax.legend(frameon=False, fontsize=9, loc="lower left")


def main():
    frame = load_penguins().frame
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    species.render(bill=frame["bill_length_mm"].dropna().to_numpy(), n_birds=342, ax=axes[0])
    axes[0].set_title("a program")
    mixture = GaussianMixture(3, inference=NUTS(warmup=500, draws=500), random_state=0)
    plots.plot_mixture(mixture.fit(frame[COLUMNS]), frame[COLUMNS], ax=axes[1])
    axes[1].set_title("a posterior: 30 draws of three components")
    # A component has the colour of the species that most of its birds are of.
    component = mixture.predict(frame[COLUMNS])
    found = {frame["species"][component == k].mode()[0]: f"C{k}" for k in range(3)}
    draw_classes(frame, found, axes[2])
    axes[2].set_title("Bayes' rule: which species?")
    for ax in axes[1:]:
        ax.set(xlabel="bill length (mm)", ylabel="bill depth (mm)", xlim=(31, 61), ylim=(12.5, 22))
    file = Path(__file__).with_suffix(".png")
    figure.savefig(file, dpi=90, metadata={"Software": None})
    with Image.open(file) as picture:  # with a palette it is a third of the size
        picture.convert("RGB").quantize(200).save(file, optimize=True)


if __name__ == "__main__":
    main()
