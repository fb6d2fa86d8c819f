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
# # Digits: networks as densities
#
# A network with a density is used as a Gaussian mixture is: fitted, scored, drawn from, compared by
# held-out log density, and turned into a classifier by Bayes' rule. Here
#
# 1. two moons: a density in the plane, whose truth is known;
# 2. an autoencoder of handwritten digits: what it keeps of them, and what it makes up;
# 3. a flow for each class at once: digits drawn to order, and read by Bayes' rule;
# 4. an image pixel by pixel: half a digit, read and completed;
# 5. the models compared, in bits;
# 6. images that are no digits, and why a high density does not say that all is well.
#
# All of it is trained as the notebook runs, on one core, in about two minutes.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from ppl_gen import (
    SVI,
    VAE,
    BayesClassifier,
    Categorical,
    GaussianMixture,
    MaximumLikelihood,
    Mixture,
    NormalizingFlow,
    PixelCNN,
    ProbabilisticPCA,
    Training,
    plots,
)
from ppl_gen.datasets import load_digits, make_two_moons
from ppl_gen.evaluate.anomaly import AnomalyDetector
from ppl_gen.evaluate.calibration import expected_calibration_error
from ppl_gen.evaluate.code_length import bits_per_dimension

# The tests run this notebook with few epochs.
small = "PPL_GEN_SMALL" in os.environ


def training(epochs, learning_rate, batch_size=128, **settings):
    """Some epochs of Adam, at a rate that falls to zero."""
    return Training(
        epochs=-(-epochs // 10) if small else epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule="cosine",
        **settings,
    )


# %% [markdown]
# ## 1. Two moons
#
# Ten thousand points of a density that is known, and has an entropy of 1.008 nats: no model scores
# above -1.008 on fresh points, but by chance. A neural spline flow moves normal noise, by an
# invertible network, to where the points are; the change of volume gives the density. Beside it,
# a mixture of eight normals. The scores are those of 10,000 fresh points.

# %%
moons, fresh = make_two_moons(10_000), make_two_moons(10_000, random_state=1)
flow = NormalizingFlow(
    "nsf",
    hidden_layer_sizes=(32, 32),
    inference=MaximumLikelihood(training=training(20, 5e-3)),
    random_state=0,
).fit(moons.X)
mixture = GaussianMixture(8, random_state=0).fit(moons.X)

_, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained", sharey=True)
named = {"the truth": moons, "eight normals": mixture, "a neural spline flow": flow}
for ax, (name, density) in zip(axes, named.items(), strict=True):
    plots.plot_density(density, limits=((-1.6, 2.6), (-1.2, 1.7)), ax=ax)
    ax.set(title=f"{name}: {density.log_prob(fresh.X).mean():.3f} nats", aspect="equal")

# %% [markdown]
# The same flow takes points back to their noise. If the density is right, that noise is standard
# normal: what is seen in its picture is the misfit.

# %%
z = flow.transform(fresh.X)
_, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
left.scatter(*fresh.X[::2].T, s=1, c=fresh.y[::2], cmap="coolwarm")
left.set(title="points, by moon", aspect="equal")
right.scatter(*z[::2].T, s=1, c=fresh.y[::2], cmap="coolwarm")
right.set(title="their noise, by the flow", aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
print("mean", z.mean(axis=0).round(2), "deviation", z.std(axis=0).round(2))

# %% [markdown]
# ## 2. An autoencoder
#
# scikit-learn's digits: 1,797 images of 8 x 8 pixels with levels 0 to 16, from 43 people. A
# quarter is kept for scoring.

# %%
digits = load_digits()
X_train, X_test, y_train, y_test = train_test_split(
    digits.images, digits.y.to_numpy(), test_size=0.25, stratify=digits.y, random_state=0
)

# %% [markdown]
# The program: twelve latents, independent standard normals, and a network that tells from them
# how each pixel is distributed over its 17 levels. The guide: another network that tells the
# latents from an image. Both are trained by Pyro's ELBO of the two.

# %%
vae = VAE(
    12,
    likelihood="discretised_logistic",
    n_levels=17,
    inference=SVI(training=training(120, 2e-3, 64)),
    random_state=0,
).fit(X_train)
_, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
plots.plot_history(vae, ax=ax)
_ = ax.set_ylim(75, 130)  # it begins at some 350

# %% [markdown]
# The density of an image has no closed form. Importance sampling, with the guide as proposal,
# estimates it, tells its own error, and tells how many draws carry the weight of all:

# %%
estimate = vae.log_prob_estimate(X_test, n_importance=50 if small else 500)
pd.DataFrame(
    {
        "log_prob, nats": estimate.log_prob,
        "standard error": estimate.standard_error,
        "effective draws": estimate.effective_size,
        "ELBO, nats": vae.elbo(X_test),
    }
).describe().loc[["mean", "min", "50%", "max"]].round(2)

# %% [markdown]
# Above: digits that it has not seen. Below: what twelve numbers keep of each.

# %%
_, ax = plt.subplots(figsize=(9, 1.7), layout="constrained")
_ = plots.plot_reconstructions(vae, X_test[:16], ax=ax)

# %% [markdown]
# Latents drawn from the prior, decoded: digits that nobody wrote. Pixels are independent given
# the latents, so that an image as drawn has speckles; on the right is what is expected of each.

# %%
made, codes = vae.sample(40, random_state=1, return_latent=True)
_, (left, right) = plt.subplots(1, 2, figsize=(9, 2.7), layout="constrained")
plots.plot_images(made, columns=8, limits=(0, 16), ax=left).set_title("as drawn")
expected = vae.inverse_transform(codes)
_ = plots.plot_images(expected, columns=8, limits=(0, 16), ax=right).set_title("as expected")

# %% [markdown]
# What do latents stand for? From the same digit, one at a time is moved, from three deviations
# below to three above. These are the four that say most of an image, in nats:

# %%
said = vae.latent_kl(X_test)
most = np.argsort(-said)[:4].tolist()
print("nats:", {k: round(float(said[k]), 2) for k in most})
_, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
_ = plots.plot_traversals(vae, X_test[y_test == 3][:1], most, ax=ax)

# %% [markdown]
# Two latents make a map. It is drawn without knowing of any class; on the right it is decoded,
# place by place.

# %%
two = VAE(
    2,
    likelihood="discretised_logistic",
    n_levels=17,
    hidden_layer_sizes=(128, 64),
    inference=SVI(training=training(120, 3e-3, 64)),
    random_state=0,
).fit(X_train)
places = two.transform(X_test)
side, reach = 15, 2.4
grid = np.linspace(-reach, reach, side)
across, up = np.meshgrid(grid, grid[::-1])

_, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.6), layout="constrained")
shown = left.scatter(*places.T, c=y_test, cmap="tab10", s=12, vmin=-0.5, vmax=9.5)
left.figure.colorbar(shown, ax=left, ticks=range(10), label="digit")
left.set(xlabel="first latent", ylabel="second latent", title="where digits are")
left.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
left.plot(reach * np.array([-1, 1, 1, -1, -1]), reach * np.array([-1, -1, 1, 1, -1]), "k:", lw=0.8)
decoded = two.inverse_transform(np.stack([across.ravel(), up.ravel()], axis=1))
_ = plots.plot_images(decoded, columns=side, limits=(0, 16), ax=right)
_ = right.set_title("what is there, within the dots")

# %% [markdown]
# ## 3. One flow for all classes, and Bayes' rule
#
# A flow whose network is told the class has the density p(image | class) of all ten at once. With
# class shares it is a classifier, which draws digits to order, too. Flows are continuous: pixels
# of whole levels get noise in training, so that the density does not become a comb.

# %%
conditional = NormalizingFlow(
    "maf",
    hidden_layer_sizes=(128, 128),
    noise=0.3,
    inference=MaximumLikelihood(training=training(60, 2e-3, ema=0.98)),
    random_state=0,
)
classifier = BayesClassifier(conditional, shared=True).fit(X_train, y_train)
ordered, _ = classifier.sample(60, y=np.tile(np.arange(10), 6), random_state=0)
_, ax = plt.subplots(figsize=(6, 3.7), layout="constrained")
_ = plots.plot_images(ordered, columns=10, limits=(0, 16), ax=ax)

# %% [markdown]
# How well does it read? Beside it: a probabilistic PCA of ten factors for each class, and logistic
# regression, which has no density, and is trained to tell classes apart and nothing else.

# %%
flat_train, flat_test = X_train.reshape(-1, 64), X_test.reshape(-1, 64)
readers = {
    "probabilistic PCA a class": BayesClassifier(ProbabilisticPCA(10)).fit(flat_train, y_train),
    "one conditional flow": classifier,
    "logistic regression": make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=1000)).fit(
        flat_train, y_train
    ),
}
proba = {
    name: reader.predict_proba(X_test if reader is classifier else flat_test)
    for name, reader in readers.items()
}
classes = np.arange(10)
pd.DataFrame(
    {
        name: {
            "accuracy": (p.argmax(axis=1) == y_test).mean(),
            "log loss, nats": log_loss(y_test, p),
            "calibration error": expected_calibration_error(y_test, p, classes),
        }
        for name, p in proba.items()
    }
).T.round(3)

# %%
_, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained", sharey=True)
for ax, (name, p) in zip(axes, proba.items(), strict=True):
    plots.plot_calibration(y_test, p, classes, ax=ax)
    ax.set_title(name)
    ax.label_outer()

# %% [markdown]
# Densities read these digits better than logistic regression does, and the one of classical
# statistics, fitted in a second, as well as the flow. It is too sure of itself, though: densities
# of 64 pixels multiply many small errors, of which its normals make more, as the log loss tells.
# Logistic regression is less sure than it might be. Here are the digits that the flow misread, in
# the corner what it took each for.

# %%
read = proba["one conditional flow"].argmax(axis=1)
wrong = np.flatnonzero(read != y_test)[:12]
_, ax = plt.subplots(figsize=(9, 1.2), layout="constrained")
labels = [f"{read[k]}" for k in wrong]
_ = plots.plot_images(X_test[wrong], columns=len(wrong), labels=labels, ax=ax)
print("they are", y_test[wrong].tolist())

# %% [markdown]
# ## 4. Pixel by pixel
#
# A PixelCNN gives each pixel a distribution over its 17 levels, given those above and to the left.
# The density of the whole levels is exact, and so is that of the upper part of an image, whatever
# is below. So half a digit can be read by the same rule, and the other half drawn.

# %%
pixels = BayesClassifier(
    PixelCNN(
        8 if small else 32,
        1 if small else 3,
        dropout=0.1,
        n_levels=17,
        inference=MaximumLikelihood(training=training(30, 5e-3, 64, ema=0.98)),
        random_state=0,
    ),
    shared=True,
).fit(X_train, y_train)
seen = {}
for rows in range(1, 9):
    halved = X_test.astype(float)
    halved[:, rows:] = np.nan
    seen[rows] = (pixels.predict(halved) == y_test).mean()
_, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
ax.plot(list(seen), list(seen.values()), "o-")
_ = ax.set(xlabel="rows of pixels seen, from the top", ylabel="read rightly", ylim=(0, 1))

# %% [markdown]
# Completing takes two draws: the class, of its probability given the upper half, and then the
# lower half, given both. Left of each row: the digit as it was, and what is seen of it (the rest
# is red).

# %%
several = 6
chosen = np.array([np.flatnonzero(y_test == k)[1] for k in (2, 3, 5, 6, 8, 9)])
halved = X_test[chosen].astype(float)
halved[:, 4:] = np.nan
guess = pixels.predict_proba(halved)
rng = np.random.default_rng(0)
drawn = np.array([rng.choice(10, size=several, p=p / p.sum()) for p in guess])
completed = pixels.models_[0].complete(
    np.repeat(halved, several, axis=0), random_state=0, context=drawn.ravel()
)
completed = completed.reshape(len(chosen), several, 8, 8)
sheet = np.concatenate([X_test[chosen][:, None], halved[:, None], completed], axis=1)
_, ax = plt.subplots(figsize=(5, 3.9), layout="constrained")
_ = plots.plot_images(sheet.reshape(-1, 8, 8), columns=2 + several, limits=(0, 16), ax=ax)

# %% [markdown]
# ## 5. Which is the best density?
#
# Models of whole levels give them probabilities, which compare: in bits a pixel, as a code would
# need. A pixel written down as it is takes log2 17. The simplest models here are independent
# pixels, and a mixture of ten such tables.

# %%
whole_train, whole_test = flat_train.astype(int), flat_test.astype(int)
levels = Categorical(n_categories=(17,) * 64)
alike = Mixture(1, levels).fit(whole_train)
ten = Mixture(10, levels, random_state=0).fit(whole_train)
bits = {
    "written down as they are": np.log2(17),
    "independent pixels": bits_per_dimension(alike, whole_test),
    "a mixture of ten": bits_per_dimension(ten, whole_test),
    "autoencoder of 2 latents, at most": bits_per_dimension(two, X_test),
    "autoencoder of 12 latents, at most": bits_per_dimension(vae, X_test),
    "PixelCNN, classes summed out": bits_per_dimension(pixels, X_test),
}
pd.Series(bits, name="bits a pixel").to_frame().round(3)

# %% [markdown]
# Here networks pay. What autoencoders give is a bound, which can only make them look worse than
# they are: two latents say more of an image than which of a mixture's ten parts it is from.

# %% [markdown]
# ## 6. What is no digit?
#
# A density should be low where a row is like none of the data. So it is, but the reverse does not
# hold. Here is a flow of the pixels that vary, and three kinds of images: digits that it has not
# seen; the same in negative; and pale ones, half as far from the mean image as they were.

# %%
flat = digits.X.to_numpy()
flat = flat[:, flat.std(axis=0) > 3.0]
flat = flat[np.random.default_rng(0).permutation(len(flat))]
detector = AnomalyDetector(
    NormalizingFlow(
        "realnvp",
        n_transforms=4,
        hidden_layer_sizes=(64,),
        noise=0.5,
        inference=MaximumLikelihood(training=training(20, 5e-3, 64)),
        random_state=0,
    ),
    contamination=0.05,
    calibration=0.4,
    random_state=0,
).fit(flat[:1500])
mean, ordinary = flat[:1500].mean(axis=0), flat[1500:]
kinds = {
    "digits": ordinary,
    "negatives": 16.0 - ordinary,
    "pale digits": mean + 0.5 * (ordinary - mean),
}
scores = {name: detector.model_.log_prob(rows) for name, rows in kinds.items()}
_, ax = plt.subplots(figsize=(7, 3), layout="constrained")
bins = np.linspace(-180, -95, 86)
for name, values in scores.items():
    ax.hist(values.clip(bins[0], bins[-1]), bins, alpha=0.6, label=name)
ax.axvline(detector.offset_, color="0.3", ls="--", lw=1)
ax.text(detector.offset_ - 1, 100, "outliers", ha="right", color="0.3")
ax.set(xlabel="log density, nats (below -180: at -180)", ylabel="images")
_ = ax.legend(loc=(0.25, 0.65))

# %% [markdown]
# Pale digits are *likelier* than digits. The density is high where they are, but there is little
# room there: most of the volume, and so nearly all digits, are further out. A threshold on the
# density finds negatives and lets the pale pass. The test of typicality asks of a batch whether
# its mean log density is what it should be, and too high counts as much as too low.

# %%
few = 20
pd.DataFrame(
    {
        name: {
            "mean log density": values.mean(),
            "called outliers": (detector.predict(kinds[name]) == -1).mean(),
            f"p-value of {few} together": detector.typicality(
                kinds[name][:few], random_state=0
            ).p_value,
        }
        for name, values in scores.items()
    }
).T.round(4)

# %% [markdown]
# The rate of false alarms is as ordered, about 5%, since the threshold is a rank among digits that
# the flow had not seen. That holds for a poor density too; a better one finds more.
