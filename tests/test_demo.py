"""The demonstration leaves its pictures, and models that can be loaded."""

import numpy as np
import pytest

import ppl_gen
from ppl_gen import NUTS, demo
from ppl_gen.datasets import load_penguins

PICTURES = ["calibration.png", "explanation.png", "mixture.png", "trace.png"]


@pytest.mark.slow
def test_the_demo_leaves_pictures_and_models(tmp_path, capsys):
    few = NUTS(chains=2, warmup=150, draws=150, max_tree_depth=6)
    demo.main(str(tmp_path / "demo"), few)
    told = capsys.readouterr().out
    folder = tmp_path / "demo"
    assert sorted(path.name for path in folder.glob("*.png")) == PICTURES
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    for part in ("Verdict:", "Accuracy in 5-fold cross-validation: 0.9", "Expected calibration"):
        assert part in told

    penguins = load_penguins()
    mixture = ppl_gen.load(folder / "mixture")
    assert mixture.posterior_.shape == (2, 150)
    # The three species are three components, whatever their order: 90% or more of each in one.
    component = mixture.predict(penguins.frame[demo.SIZES])
    shares = [
        np.bincount(component[penguins.y == species], minlength=3).max()
        for species in penguins.y.cat.categories
    ]
    assert sum(shares) > 0.9 * len(component)
    bayes = ppl_gen.load(folder / "naive_bayes")
    assert bayes.score(penguins.X.drop(columns="year"), penguins.y) > 0.95
