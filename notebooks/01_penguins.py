# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Penguins: from a program to a posterior to a classifier
#
# A generative model says how the data came about. Written as a program, it can be fitted by
# several methods, criticised, compared with other programs, and turned round by Bayes' rule. This
# notebook does all of it on 344 penguins of three species, some of whose measurements are missing:
#
# 1. a regression of your own, by NUTS, and which of two programs predicts better;
# 2. a Gaussian mixture that finds the species without being told, by EM, NUTS and SVI;
# 3. what is missing, filled in with its uncertainty;
# 4. classifiers: naive Bayes on mixed columns, and one mixture a species.

# %%
import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, cross_val_predict

import ppl_gen
from ppl_gen import (
    EM,
    NUTS,
    SVI,
    BayesClassifier,
    GaussianMixture,
    NaiveBayes,
    classify,
    dist,
    engines,
    infer,
    plate,
    plots,
    program,
    sample,
)
from ppl_gen.datasets import load_penguins
from ppl_gen.evaluate.calibration import expected_calibration_error

# The tests run this notebook with few draws.
small = "PPL_GEN_SMALL" in os.environ
few = {"chains": 2, "warmup": 100, "draws": 100, "max_tree_depth": 5} if small else {}
nuts = NUTS(**few)

penguins = load_penguins()
frame = penguins.frame
species = list(frame["species"].cat.categories)
colours = dict(zip(species, ["tab:orange", "tab:purple", "tab:green"], strict=True))
frame.head()

# %% [markdown]
# ## 1. A program of your own
#
# How heavy is a penguin, given the length of its flippers? A program draws what is unknown, from
# its prior, and observes the data. A `plate` says what is repeated, and its name becomes the name
# of an axis in every result. Masses are in kilograms and flippers in millimetres, so that priors
# can be read: a bird with flippers of 200 mm weighs about 4 kg, give or take one.
#
# (A regression has nothing to say of a bird whose flippers were not measured, so the two birds
# without measurements are left out here. They come back in the next part.)


# %%
@program
def one_line(flipper, mass=None):
    level = sample("level", dist.Normal(4.0, 1.0))  # kg at 200 mm
    slope = sample("slope", dist.Normal(0.0, 0.1))  # kg a mm
    scale = sample("scale", dist.HalfNormal(1.0))
    with plate("bird", len(flipper)):
        sample("mass", dist.Normal(level + slope * (flipper - 200.0), scale), obs=mass)


@program
def line_each(flipper, group, n_groups, mass=None):
    level = sample("level", dist.Normal(4.0, 1.0))
    spread = sample("spread", dist.HalfNormal(0.5))
    slope = sample("slope", dist.Normal(0.0, 0.1))
    scale = sample("scale", dist.HalfNormal(1.0))
    with plate("species", n_groups):
        own_level = sample("own_level", dist.Normal(level, spread))
    with plate("bird", len(flipper)):
        mean = own_level[group] + slope * (flipper - 200.0)
        sample("mass", dist.Normal(mean, scale), obs=mass)


measured = frame.dropna(subset=["flipper_length_mm", "body_mass_g"])
flipper = measured["flipper_length_mm"].to_numpy()
mass = measured["body_mass_g"].to_numpy() / 1000.0
group = measured["species"].cat.codes.to_numpy()

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
one_line.render(flipper, mass=mass, ax=axes[0])
_ = line_each.render(flipper, group, len(species), mass=mass, ax=axes[1])
# %% [markdown]
# The second program lets each species have its own level, drawn from what penguins in general
# have. The picture is made from the program itself: it is run once, and who depends on whom is
# read off.
#
# ### Two engines, one density
#
# A program is a plain Pyro model and a plain NumPyro model, and both give the same joint density,
# to the last digits of double precision.

# %%
values = {"level": 4.0, "spread": 0.3, "slope": 0.02, "scale": 0.4, "own_level": [3.9, 3.8, 4.2]}
values = {name: np.asarray(value) for name, value in values.items()}
for name in ("numpyro", "pyro"):
    density = engines.get(name).log_joint(
        line_each.native(name), (flipper, group, len(species)), {"mass": mass}, values
    )
    print(f"{name:>8}: {density:.9f} nats")

# %% [markdown]
# ### The posterior, and whether it can be trusted
#
# `infer` conditions a program on data. NUTS runs four chains, and the verdict says in one
# paragraph what R-hat, effective sample sizes, divergences and energies mean together.

# %%
pooled = infer(one_line, flipper, mass=mass, method=nuts, seed=1)
by_species = infer(
    line_each,
    flipper,
    group,
    len(species),
    mass=mass,
    method=NUTS(target_accept=0.95, **few),
    seed=1,
    coords={"species": species},
)
by_species.verdict

# %%
by_species.summary().round(3)

# %% [markdown]
# `posterior.idata` is ArviZ's `InferenceData`, with named axes, so all of ArviZ's plots take it.

# %%
_ = az.plot_trace(
    by_species.idata,
    var_names=["own_level", "slope"],
    figsize=(9, 3.6),
    legend=True,
    backend_kwargs={"layout": "constrained"},
)
# %%
_ = az.plot_posterior(
    by_species.idata, var_names=["slope", "spread", "scale"], figsize=(10, 3), textsize=10
)
# %% [markdown]
# What the two programs say of new birds: `predictive` runs a program again, given each draw and
# new data. The bands hold 90% of the birds to come.

# %%
grid = np.linspace(170.0, 235.0, 40)
figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
new = pooled.predictive(flipper=grid)["mass"]
axes[0].fill_between(grid, *np.quantile(new, [0.05, 0.95], axis=0), color="0.85")
axes[0].plot(grid, new.mean(axis=0), color="0.3")
each = np.repeat(range(len(species)), len(grid))
new = by_species.predictive(flipper=np.tile(grid, len(species)), group=each)["mass"]
for code, name in enumerate(species):
    birds = group == code
    ours, near = new[:, each == code], np.abs(grid - flipper[birds].mean()) < 20.0
    low, high = np.quantile(ours[:, near], [0.05, 0.95], axis=0)
    axes[1].fill_between(grid[near], low, high, color=colours[name], alpha=0.2, lw=0)
    axes[1].plot(grid[near], ours[:, near].mean(axis=0), color=colours[name], label=name)
    for ax in axes:
        ax.scatter(flipper[birds], mass[birds], s=8, color=colours[name])
axes[0].set(xlabel="flipper length (mm)", ylabel="body mass (kg)", title="one_line")
axes[1].set(xlabel="flipper length (mm)", title="line_each")
_ = axes[1].legend()
# %% [markdown]
# Is the second program worth its additional parameters? Leave-one-out cross-validation, by Pareto
# smoothed importance sampling, asks how well each bird is predicted from all the others. The
# likelihood of every bird on its own is at hand, because data are observed at sample sites.

# %%
comparison = az.compare({"one_line": pooled.loo(), "line_each": by_species.loo()})
comparison[["rank", "elpd_loo", "p_loo", "elpd_diff", "dse", "warning"]].round(1)

# %% [markdown]
# The species matter: the difference in `elpd_loo` is three times its standard error, `dse`.

# %% [markdown]
# ## 2. A mixture: finding species without being told
#
# The library has models that are ready to fit. They are programs too, and scikit-learn estimators.
# `GaussianMixture` has scikit-learn's names; birds without measurements may stay where they are.
#
# First by EM, which is quick, with one to six components. Bayes' information criterion is least at
# three.

# %%
bill = frame[["bill_length_mm", "bill_depth_mm"]]
em = EM(n_init=10, max_iter=500)
fits = {k: GaussianMixture(k, inference=em, random_state=0).fit(bill) for k in range(1, 7)}
pd.Series({k: fit.bic(bill) for k, fit in fits.items()}, name="BIC").round(1)

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
plots.plot_history(fits[3], ax=axes[0])
axes[0].set_title("EM climbs, and never falls")
plots.plot_mixture(fits[3], bill, ax=axes[1])
axes[1].set_title("three components, 50% and 90% ellipses")
pd.crosstab(pd.Series(fits[3].predict(bill), name="component"), frame["species"])

# %% [markdown]
# ### How sure is it? The same model by NUTS
#
# EM gives the one best fit. With `inference=NUTS()` the same model gives draws from the posterior,
# under a weak conjugate prior that takes its scale from the data. Components have no order of
# their own, so draws are put into one before anything is said about them.

# %%
bayesian = GaussianMixture(3, inference=nuts, random_state=0).fit(bill)
bayesian.posterior_.verdict

# %%
bayesian.posterior_.summary(var_names=["weights", "mean"]).round(3)

# %% [markdown]
# SVI fits a normal guide to the posterior in a fraction of the time. How far it may be trusted is
# told by the Pareto k of importance weights from guide to posterior: up to 0.7, the guide is good
# enough to be corrected; over it, SVI warns, and its intervals are not to be believed.

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    svi = SVI("full_rank", steps=500 if small else 10_000)
    variational = GaussianMixture(3, inference=svi, random_state=0).fit(bill)
print(f"Pareto k of the guide: {variational.posterior_.info['pareto_k']:.2f}")
for warning in caught:
    print(warning.message)
pd.DataFrame(
    {
        (name, figure): model.posterior_.summary(var_names=["weights", "mean"])[figure]
        for name, model in {"NUTS": bayesian, "SVI": variational}.items()
        for figure in ("mean", "sd")
    }
).round(3)

# %% [markdown]
# Each line is the ellipse of one draw: where lines spread, the data leave the component open.
# `log_prob` of a Bayesian fit averages over these draws.

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True, layout="constrained")
for ax, (name, model) in zip(
    axes, {"EM": fits[3], "NUTS": bayesian, "SVI": variational}.items(), strict=True
):
    plots.plot_mixture(model, bill, ax=ax)
    ax.set(title=name, ylabel="bill_depth_mm" if name == "EM" else "")

# %% [markdown]
# The component of a bird is a discrete site, `z`, that the program sums out. `classify` gives it
# back for any program that has one, averaged over the posterior; for a model of the library it is
# what `predict_proba` gives. These birds are the ones it is least sure of:

# %%
probabilities = classify(bayesian.posterior_, "z")
unsure = probabilities.max(axis=1).argsort()[:5]
pd.concat([frame.iloc[unsure, :4], pd.DataFrame(probabilities[unsure].round(2), unsure)], axis=1)

# %% [markdown]
# Two of them have no measurements at all: their probabilities are the weights of the components,
# as they should be.

# %% [markdown]
# ## 3. What is missing
#
# A NaN is a value that was not seen, and every density of the library is that of what was seen. To
# see what this is worth, hide a fifth of the measurements of the fully measured birds, fit what is
# left, and fill it in.

# %%
sizes = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
whole = frame[sizes].dropna().reset_index(drop=True)
hidden = pd.DataFrame(np.random.default_rng(0).uniform(size=whole.shape) < 0.2, columns=sizes)
holed = whole.mask(hidden)

filler = GaussianMixture(3, inference=em, random_state=0).fit(holed)
guesses = {"mean of the column": holed.fillna(holed.mean()), "mixture": filler.impute(holed)}
pd.DataFrame(
    {name: ((guess - whole)[hidden] ** 2).mean() ** 0.5 for name, guess in guesses.items()}
).rename_axis("root mean squared error").round(1)

# %% [markdown]
# A single guess hides how uncertain it is. `n_draws` completed tables (multiple imputation) do
# not: each draws what is missing from its conditional distribution given what is seen.

# %%
tables = filler.impute(holed, n_draws=200, random_state=0)
low, high = np.quantile([table.to_numpy() for table in tables], [0.05, 0.95], axis=0)
truth, mask = whole.to_numpy(), hidden.to_numpy()
inside = (low <= truth) & (truth <= high)
print(f"90% intervals hold {inside[mask].mean():.0%} of the {mask.sum()} hidden values")

figure, ax = plt.subplots(figsize=(10, 3.5), layout="constrained")
column = sizes.index("flipper_length_mm")
rows = np.flatnonzero(mask[:, column])
rows = rows[np.argsort(truth[rows, column])]
ax.vlines(range(len(rows)), low[rows, column], high[rows, column], color="0.75", lw=3)
ax.scatter(range(len(rows)), truth[rows, column], s=12, color="tab:red", zorder=2)
_ = ax.set(
    xlabel="birds, in order", ylabel="flipper length (mm)", title="hidden values, and 90% intervals"
)
# %% [markdown]
# ## 4. Classifiers
#
# Now with the species known. `NaiveBayes` gives every column a family of its own, read off the
# data frame: normal for measurements, categorical for island and sex. Nothing is filled in and no
# row is dropped, in fitting or in predicting.
#
# `BayesClassifier` makes a classifier of any model: here one normal with a full covariance for
# each species, on the four measurements. It sees that measurements go together, and does not see
# the island.

# %%
X, y = penguins.X.drop(columns="year"), penguins.y
folds = StratifiedKFold(5, shuffle=True, random_state=0)
candidates = {
    "naive Bayes": (NaiveBayes(), X),
    "naive Bayes, sizes": (NaiveBayes(), X[sizes]),
    "normal a species, sizes": (BayesClassifier(GaussianMixture(1, random_state=0)), X[sizes]),
}
scores = {}
for name, (model, table) in candidates.items():
    proba = cross_val_predict(model, table, y, cv=folds, method="predict_proba")
    labels = np.array(species)[proba.argmax(axis=1)]
    scores[name] = {
        "accuracy": (labels == y.to_numpy()).mean(),
        "calibration error": expected_calibration_error(y, proba, species),
        "log loss (nats)": -np.log(proba[np.arange(len(y)), y.cat.codes]).mean(),
    }
    if name == "naive Bayes":
        naive_proba = proba
pd.DataFrame(scores).T.round(3)

# %% [markdown]
# All birds are in this table, those without any measurement too. Whether the probabilities can be
# taken at their word is shown by the calibration: of the birds classified with confidence p, a
# share p should be right.

# %%
naive = NaiveBayes().fit(X, y)
why = naive.explain(X)
unsure = int(naive.predict_proba(X).max(axis=1).argmin())
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
plots.plot_calibration(y, naive_proba, species, ax=axes[0])
plots.plot_explanation(why, unsure, ax=axes[1])
frame.iloc[[unsure]]

# %% [markdown]
# On the right, why: the log-odds of one species against the next are a sum of one term a column,
# and the terms are exact, not an approximation of the classifier. This bird is the one it is least
# sure of.
#
# A missing value adds nothing, and the rest decides:

# %%
holes = X[X.isna().any(axis=1)]
told = pd.DataFrame(
    {
        "species": y[holes.index],
        "predicted": naive.predict(holes),
        "probability": naive.predict_proba(holes).max(axis=1).round(3),
        "missing": holes.isna().sum(axis=1),
    }
)
told.join(why.loc[holes.index].drop(columns=["label", "against"]).round(1))

# %% [markdown]
# ### What a discriminative classifier does not have
#
# A density of the birds themselves, which tells what is like none of the classes, and new birds:

# %%
joint = candidates["normal a species, sizes"][0].fit(X[sizes], y)
odd = pd.DataFrame({"bill_length_mm": [35.0], "bill_depth_mm": [14.0]})
odd = odd.assign(flipper_length_mm=230.0, body_mass_g=3000.0)
print(f"log density of the least likely penguin: {joint.log_prob(X[sizes]).min():.1f} nats")
print(f"log density of a bird that never was:   {joint.log_prob(odd)[0]:.1f} nats")
drawn, kinds = joint.sample(5, random_state=1)
drawn.round(1).assign(species=kinds)

# %% [markdown]
# ## Keeping it
#
# A fitted model is saved as a directory: JSON, safetensors, and the posterior as netCDF, which
# ArviZ reads. There is no pickle in it, so that loading one runs no code from the file.

# %%
with TemporaryDirectory() as folder:
    path = Path(folder) / "bayesian"
    bayesian.save(path)
    print(*sorted(file.name for file in path.iterdir()), sep="\n")
    again = ppl_gen.load(path)

assert np.array_equal(again.predict_proba(bill), bayesian.predict_proba(bill))
again.posterior_
