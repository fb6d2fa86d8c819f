"""The main job on embedded data: penguins fitted, diagnosed and classified, both ways.

``python -m ppl_gen.demo`` prints both summaries, and leaves pictures and models in runs/demo/.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from ppl_gen import NUTS, GaussianMixture, NaiveBayes, arviz_bridge, plots
from ppl_gen.datasets import Dataset, load_penguins
from ppl_gen.evaluate.calibration import expected_calibration_error

SIZES = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm"]


def main(folder: str = "runs/demo", method: NUTS | None = None) -> None:
    """Run the demonstration, and write to a folder.

    Parameters
    ----------
    folder : str
        Pictures and models there are replaced.
    method : NUTS, optional
        Its settings, such as fewer draws.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    penguins = load_penguins()
    mixture(penguins, out, method or NUTS())
    naive_bayes(penguins, out)
    print(f"\nPictures and models are in {out}/.")


def mixture(penguins: Dataset, out: Path, method: NUTS) -> None:
    """Find the species without being told: a Bayesian mixture by NUTS, with its verdict."""
    frame = penguins.frame
    sizes = frame[SIZES]
    print(f"A Gaussian mixture of {len(sizes)} penguins by NUTS")
    print(f"({int(sizes.isna().sum().sum())} of {sizes.size} measurements are missing)\n")
    model = GaussianMixture(3, inference=method, random_state=0).fit(sizes)
    posterior = model.posterior_
    print(posterior.summary(var_names=["weights", "mean"]).to_string())
    print(f"\nVerdict: {posterior.verdict}\n")
    component = model.predict(sizes)
    print("Components against species, which the mixture never saw:")
    for k in np.unique(component):
        print(f"  {k}: {frame['species'][component == k].value_counts().to_dict()}")
    _keep(plots.plot_mixture(model, sizes, (0, 2)), out / "mixture.png")
    chosen = {"column": SIZES[:1]}
    traces = arviz_bridge.plot_trace(posterior.idata, ["weights", "mean"], chosen)
    _keep(traces, out / "trace.png")
    model.save(out / "mixture", overwrite=True)


def naive_bayes(penguins: Dataset, out: Path) -> None:
    """Tell the species from mixed columns, some of them missing."""
    X, y = penguins.X.drop(columns="year"), penguins.y
    print(f"\nNaive Bayes on {', '.join(X.columns)}\n")
    model = NaiveBayes(random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    proba = cross_val_predict(model, X, y, cv=folds, method="predict_proba")
    model.fit(X, y)
    right = (model.classes_[proba.argmax(axis=1)] == np.asarray(y)).mean()
    error = expected_calibration_error(y, proba, model.classes_)
    print(f"Accuracy in 5-fold cross-validation: {right:.3f}")
    print(f"Expected calibration error: {error:.3f}\n")
    holed = X[X.isna().any(axis=1)]
    told = holed.assign(species=y[holed.index], predicted=model.predict(holed))
    told["probability"] = model.predict_proba(holed).max(axis=1).round(3)
    print("The rows with missing values, classified as they are:")
    print(told.to_string())
    explanation = model.explain(holed)
    print("\nWhy, in nats of log-odds (a missing value adds nothing):")
    print(explanation.round(1).to_string())
    _keep(plots.plot_calibration(y, proba, model.classes_), out / "calibration.png")
    _keep(plots.plot_explanation(explanation, 2), out / "explanation.png")
    model.save(out / "naive_bayes", overwrite=True)


def _keep(ax: object, path: Path) -> None:
    """Save the figure that axes are on, and close it."""
    import matplotlib.pyplot as plt

    figure = np.ravel(np.asarray(ax, dtype=object))[0].figure
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
