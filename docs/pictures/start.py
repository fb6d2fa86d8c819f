"""Draw the picture of the start page: a program in plate notation, and a mixture of the library.

Run from the root of the repository: ``python docs/pictures/start.py``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from ppl_gen import GaussianMixture, deterministic, dist, plate, program, sample
from ppl_gen.datasets import load_eight_schools, load_faithful


@program
def eight_schools(sigma, y=None):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    with plate("school", len(sigma)):
        z = sample("z", dist.Normal(0.0, 1.0))
        theta = deterministic("theta", mu + tau * z)
        sample("y", dist.Normal(theta, sigma), obs=y)


def main():
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    schools = load_eight_schools().frame
    eight_schools.render(sigma=schools["sigma"].to_numpy(), y=schools["y"].to_numpy(), ax=left)
    left.set_title("your own program: eight schools")

    frame = load_faithful().frame
    model = GaussianMixture(n_components=2, random_state=0).fit(frame)
    x, y = np.meshgrid(np.linspace(1.2, 5.5, 200), np.linspace(38, 102, 200))
    grid = frame.iloc[:1].reindex(range(x.size)).assign(eruptions=x.ravel(), waiting=y.ravel())
    density = model.log_prob(grid).reshape(x.shape)
    right.contourf(
        x, y, density, levels=np.linspace(-12, density.max(), 13), cmap="Blues", alpha=0.6
    )
    colours = np.where(model.predict(frame) == 0, "tab:orange", "tab:green")
    right.scatter(frame["eruptions"], frame["waiting"], s=16, c=colours, ec="white", lw=0.4)
    right.set(xlabel="eruption (min)", ylabel="waiting (min)")
    right.set_title("a model of the library: Old Faithful")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
