"""Draw the picture of the page on Bayesian networks: evidence as it comes, and what it does.

Run from the root of the repository: ``python docs/pictures/diagnosis.py``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from ppl_gen import plots
from ppl_gen.datasets import load_asia


def main():
    asia = load_asia()
    story = {"dysp": "yes", "smoke": "yes", "xray": "yes", "asia": "yes"}
    known, beliefs = {}, {}
    for node, state in (("nothing yet", None), *story.items()):
        if state is not None:
            known[node] = state
        label = node if state is None else f"{node} = {state}"
        beliefs[label] = {d: asia.query(d, known)["yes"] for d in ("bronc", "lung", "tub")}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    plots.plot_network(asia, {"dysp": "yes", "smoke": "yes", "xray": "yes"}, ax=left)
    left.set_title("what has been seen, and what is likeliest")
    pd.DataFrame(beliefs).T.plot(marker="o", ax=right)
    right.set(ylim=(0, 1), title="P(yes), given all so far", xticks=range(len(beliefs)))
    right.tick_params(axis="x", labelsize=8)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main()
