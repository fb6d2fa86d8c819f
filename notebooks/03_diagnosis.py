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
# # Diagnosis: from findings back to causes
#
# A Bayesian network says how findings come about: diseases have causes, and findings have diseases
# for theirs. Asked the other way round, it diagnoses. Two networks that physicians wrote down are
# asked here, exactly, and learned back from records with gaps:
#
# 1. a chest clinic of eight nodes: evidence as it comes, and what each piece does to the rest;
# 2. which test to order next, and why forcing is not seeing;
# 3. its tables learned from records of which 30% is missing, and how sure they are;
# 4. the monitor of an operating theatre, with 37 nodes: a thousand patients at once, and records
#    that cannot be right.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ppl_gen import SVI, BayesianNetwork, plots
from ppl_gen.datasets import load_alarm, load_asia

# The tests run this notebook with few draws.
small = "PPL_GEN_SMALL" in os.environ

# %% [markdown]
# ## 1. The chest clinic
#
# Lauritzen and Spiegelhalter (1988): shortness of breath (`dysp`) may be due to tuberculosis, lung
# cancer or bronchitis, to several of them, or to none. A visit to Asia makes the first likelier;
# smoking the other two. An X-ray does not tell tuberculosis from cancer: it sees that there is
# `either`.

# %%
asia = load_asia()
_ = plots.plot_network(asia)

# %% [markdown]
# Each node has a table, with a row for each combination of its parents' states. That, and the
# graph, is all there is to know of the network.

# %%
asia.cpds_["dysp"]

# %%
asia.cpds_["lung"]

# %% [markdown]
# ### Evidence, as it comes
#
# A patient has dyspnoea. She smokes. The X-ray is bad. She has been to Asia. After each word the
# probability of each disease is asked for anew; nothing is approximated.

# %%
diseases = ["tub", "lung", "bronc"]
story = {"dysp": "yes", "smoke": "yes", "xray": "yes", "asia": "yes"}
known, beliefs = {}, {}
for said in [None, *story]:
    if said is not None:
        known[said] = story[said]
    label = "nothing yet" if said is None else f"{said} = {story[said]}"
    beliefs[label] = {d: asia.query(d, known)["yes"] for d in diseases}
beliefs = pd.DataFrame(beliefs).T

ax = beliefs.plot(marker="o", figsize=(8, 3.5))
ax.set(ylabel="probability, given all so far", ylim=(0, 1), xticks=range(5))
ax.figure.set_layout_engine("constrained")
beliefs.round(3)

# %% [markdown]
# Dyspnoea speaks for bronchitis, which is common. The X-ray, bad in 5% of those who have neither
# cancer nor tuberculosis, takes cancer from 15% to 72%, and bronchitis *down*: there is less left
# for it to explain. The visit to Asia says nothing of lungs, yet takes cancer down as well, since
# now there is another explanation of the X-ray.
#
# That is explaining away. Visits to Asia and smoking are independent; they are so no longer once
# what they both lead to has been seen. The graph alone says so:

# %%
print("independent:", asia.d_separated("asia", "smoke"))
print("independent, given the X-ray:", asia.d_separated("asia", "smoke", given="xray"))
_ = plots.plot_network(asia, known)

# %% [markdown]
# ### Evidence that is not quite sure
#
# An X-ray may be blurred. What the reader says of it is then a likelihood, p(what I see | the film
# is bad) against p(what I see | it is not), of which only the ratio matters. A ratio of 1 is no
# evidence, and an endless one is certainty.

# %%
ratios = np.geomspace(1, 1000, 40)
so_far = {"dysp": "yes", "smoke": "yes"}
lung = [
    asia.query("lung", so_far, soft_evidence={"xray": {"yes": ratio, "no": 1.0}})["yes"]
    for ratio in ratios
]
_, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.semilogx(ratios, lung)
ax.axhline(asia.query("lung", so_far | {"xray": "yes"})["yes"], color="0.6", ls="--")
_ = ax.set(xlabel="likelihood ratio of what is seen", ylabel="P(lung cancer)", ylim=(0, 1))

# %% [markdown]
# ### The most probable explanation
#
# One state for each node, such that all of them together are the likeliest. It is not made of the
# likeliest state of each: of a bad X-ray alone, the likeliest is no cancer, no tuberculosis, and
# `either` of them, which cannot be.

# %%
film = {"xray": "yes"}
together = asia.map_query(evidence=film)
alone = {node: asia.query(node, film).idxmax() for node in together}
likely = pd.DataFrame({"together": together, "each by itself": alone}).T
given = asia.probability(film)
likely["probability, given the film"] = [
    round(asia.probability(film | states) / given, 3) for states in (together, alone)
]
likely

# %% [markdown]
# ## 2. What to do next
#
# ### Which test?
#
# The expected gain of knowledge on a disease from a test is their mutual information, given what is
# known. It is in nats; as a share of the entropy that is left, it says how much of the doubt a test
# would end on average. Of a patient with dyspnoea:

# %%
known = {"dysp": "yes"}
questions = ["asia", "smoke", "xray", "bronc"]


def entropy(node):
    p = asia.query(node, known)
    return -(p * np.log(p)).sum()


gain = pd.DataFrame(
    {
        d: {q: asia.mutual_information(d, q, known) / entropy(d) for q in questions if q != d}
        for d in diseases
    }
)
gain.style.format("{:.1%}", na_rep="").background_gradient(cmap="Blues", vmin=0, axis=None)

# %% [markdown]
# The film is worth most for cancer and for tuberculosis. Nothing here says much of bronchitis,
# which dyspnoea has all but settled.
#
# ### Seeing and doing
#
# Of people with dyspnoea, more smoke than of all. Making somebody short of breath would not make
# them a smoker. `do` cuts the arrows into a node that is set from outside, and leaves the rest as
# it is; with causes for arrows, the answers are those of an experiment.

# %%
breathless = {"dysp": "yes"}
healed, ill = asia.do({"bronc": "no"}), asia.do({"bronc": "yes"})
pd.DataFrame(
    {
        "seen": {
            "P(smoke | dysp)": asia.query("smoke", breathless)["yes"],
            "P(dysp | bronc)": asia.query("dysp", {"bronc": "yes"})["yes"],
            "P(dysp | no bronc)": asia.query("dysp", {"bronc": "no"})["yes"],
            "P(dysp | smoke)": asia.query("dysp", {"smoke": "yes"})["yes"],
        },
        "done": {
            "P(smoke | dysp)": asia.do(breathless).query("smoke")["yes"],
            "P(dysp | bronc)": ill.query("dysp")["yes"],
            "P(dysp | no bronc)": healed.query("dysp")["yes"],
            "P(dysp | smoke)": asia.do({"smoke": "yes"}).query("dysp")["yes"],
        },
    }
).round(4)

# %% [markdown]
# Smoking has no causes here, so that seeing it is as good as doing it. Bronchitis has one which it
# shares with cancer: those without bronchitis smoke less, and would have less dyspnoea for that
# reason alone. So healing bronchitis helps a little less than a comparison of patients suggests.
# The graph tells how to correct for it where only records are at hand, and of what:

# %%
print(asia.identify("bronc", "dysp"))
print("any of these will do:", list(asia.back_door_sets("bronc", "dysp")))
print(asia.average_effect("bronc", "dysp", ("no", "yes"), outcome_state="yes"))
print(asia.identify("bronc", "dysp", observed=["xray"]))

# %% [markdown]
# ## 3. The tables, learned from records with gaps
#
# Five thousand patients, drawn from the network, and 30% of all entries lost. Of the records, one
# in sixteen is complete.

# %%
records = asia.sample(5000, random_state=0)
lost = np.random.default_rng(0).uniform(size=records.shape) < 0.3
holed = records.mask(lost)
complete = holed.dropna()
print(f"{len(holed):,} records, {len(complete)} of them complete")
holed.head()

# %% [markdown]
# EM uses what there is of every record: what is missing is summed out, exactly. Complete records
# have a posterior that is drawn from directly (`"conjugate"`, Dirichlet), so throwing the others
# away leaves one, too, and it is wide. SVI has both, all records and a posterior: the network is a
# probabilistic program, in which the tables are random, and the missing entries are summed out
# again. In all three the prior adds one to each count (`prior=1.0`).

# %%
graph = asia.graph_
em = BayesianNetwork(graph, prior=1.0).fit(holed)
print(f"EM: {em.n_iter_} steps")
conjugate = BayesianNetwork(graph, prior=1.0, inference="conjugate", random_state=0)
whole = {
    f"{len(complete)} complete records": conjugate.fit(complete),
    f"all {len(holed):,}, with gaps": BayesianNetwork(
        graph, prior=1.0, inference=SVI(guide="full_rank"), random_state=0
    ).fit(holed),
}
em.cpds_["dysp"]

# %%
whole[f"all {len(holed):,}, with gaps"].posterior_.verdict

# %% [markdown]
# With a posterior, `query` has intervals, for any question: each draw of the tables gives its own
# answer. Below, P(lung | X-ray, dyspnoea) and some others, with 90% intervals; the dashes are the
# truth.

# %%
asked = {
    "lung | xray, dysp": ("lung", {"xray": "yes", "dysp": "yes"}),
    "tub | xray, asia": ("tub", {"xray": "yes", "asia": "yes"}),
    "bronc | dysp": ("bronc", {"dysp": "yes"}),
    "smoke | lung": ("smoke", {"lung": "yes"}),
    "dysp": ("dysp", {}),
}
_, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
for row, (node, evidence) in enumerate(asked.values()):
    ax.vlines(asia.query(node, evidence)["yes"], row - 0.35, row + 0.35, color="0.15", ls="--")
    ax.plot(em.query(node, evidence)["yes"], row + 0.2, "x", color="C2", label="EM, all records")
    for k, (label, model) in enumerate(whole.items()):
        one = model.query(node, evidence, interval=0.9).loc["yes"]
        ax.hlines(row + 0.2 * (k - 1), one["lower"], one["upper"], color=f"C{k}", lw=4, alpha=0.5)
        ax.plot(one["probability"], row + 0.2 * (k - 1), "o", color=f"C{k}", label=label)
handles, labels = ax.get_legend_handles_labels()
ax.legend(handles[:3], labels[:3], fontsize=8)
_ = ax.set(yticks=range(len(asked)), yticklabels=list(asked), xlabel="probability", xlim=(0, 1))
ax.invert_yaxis()

# %% [markdown]
# Gaps cost some certainty. Throwing incomplete records away costs nearly all of it, and lets the
# prior speak where few are left, as in the first row, whose interval misses the truth. One in a
# hundred patients has been to Asia, and of these one in twenty has tuberculosis: even five thousand
# records say little of them, as the wide interval shows.
#
# (The entries were lost at random. Where it depends on the lost value itself whether it is lost, a
# model of the loss is needed: a node more.)
#
# Gaps are filled in the same way: by the likeliest state, or, for what comes after to know that
# nobody saw them, by draws.

# %%
filled = em.impute(holed)
agrees = (filled.astype(str) == records.astype(str)).where(lost)
commonest = records.apply(lambda column: (column == column.mode()[0]).mean())
pd.DataFrame({"filled in rightly": agrees.mean(), "the commonest state": commonest}).T.round(3)

# %% [markdown]
# ## 4. The monitor
#
# ALARM (Beinlich, Suermondt, Chavez and Cooper, 1989) watches over patients under anaesthesia:
# eight diagnoses at the roots, sixteen readings at the leaves.

# %%
alarm = load_alarm()
fig, ax = plt.subplots(figsize=(10, 9.5), layout="constrained")
_ = plots.plot_network(alarm, ax=ax)

# %%
readings = {"HRBP": "HIGH", "CO": "LOW", "BP": "LOW", "CVP": "HIGH"}
diagnoses = [
    "HYPOVOLEMIA",
    "LVFAILURE",
    "ANAPHYLAXIS",
    "INSUFFANESTH",
    "PULMEMBOLUS",
    "INTUBATION",
    "KINKEDTUBE",
    "DISCONNECT",
]
before = {d: alarm.query(d) for d in diagnoses}
after = {d: alarm.query(d, readings) for d in diagnoses}
wrong = {
    d: [state for state in alarm.states_[d] if state not in ("FALSE", "NORMAL")] for d in after
}
pd.DataFrame(
    {
        "before": {d: before[d][states].sum() for d, states in wrong.items()},
        "with the readings": {d: after[d][states].sum() for d, states in wrong.items()},
    }
).style.format("{:.1%}").bar(vmin=0, vmax=1, color="#cfe2f3")

# %% [markdown]
# ### A thousand patients
#
# Of a thousand patients, all that is known except the eight diagnoses. `predict` finds the
# likeliest state of each, from one propagation for all of them.

# %%
patients = alarm.sample(200 if small else 1000, random_state=1)
found = alarm.predict(patients.drop(columns=diagnoses), diagnoses)
right = {d: (found[d] == patients[d].astype(str)).mean() for d in diagnoses}
guess = {d: patients[d].value_counts(normalize=True).max() for d in diagnoses}
ill = {d: patients[d].isin(wrong[d]) for d in diagnoses}
caught = {d: found.loc[ill[d], d].isin(wrong[d]).mean() for d in diagnoses}
pd.DataFrame(
    {"right": right, "by calling all well": guess, "of the ill, found": caught}
).style.format("{:.1%}")

# %% [markdown]
# That the anaesthesia is too weak, or a shock, can hardly be told from what the monitor shows. A
# likeliest state says "no" to whatever stays below one half; `predict_proba` has the
# figures, and what to do at 30% is for those to decide who know what it costs.
#
# ### Records that cannot be right
#
# `log_prob` scores whole records. In 5% of them three entries are replaced by wrong ones; the odd
# records come first when they are sorted, some of them with probability zero.

# %%
rng = np.random.default_rng(0)
spoilt = patients.copy()
odd = rng.choice(len(patients), len(patients) // 20, replace=False)
for row in odd:
    for column in rng.choice(len(alarm.states_), 3, replace=False):
        others = [s for s in alarm.states_[spoilt.columns[column]] if s != spoilt.iat[row, column]]
        spoilt.iat[row, column] = rng.choice(others)
score = pd.Series(alarm.log_prob(spoilt))
worst = score.sort_values().index[: len(odd)]
print(f"of the {len(odd)} least likely records, {np.isin(worst, odd).mean():.0%} are spoilt")
print(f"impossible records: {np.isneginf(score).sum()}")

clipped = score.clip(lower=-45)
bins = np.linspace(-45, clipped.max(), 46)
_, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.hist([clipped.drop(odd), clipped[odd]], bins, stacked=True, label=["as they were", "spoilt"])
ax.set(xlabel="log probability of a record, nats (below -45: at -45)", ylabel="records")
_ = ax.legend(loc="upper left")

# %% [markdown]
# Which entry is it? The probability of each entry, given the rest of its record, points at it. Of
# the records that are possible, here is the least likely:

# %%
row = score[np.isfinite(score)].idxmin()
record = spoilt.iloc[[row]]
surprise = {}
for node, states in alarm.states_.items():
    given_rest = alarm.predict_proba(record, node)[0]
    surprise[node] = given_rest[states.index(record[node].iloc[0])]
suspects = pd.Series(surprise).nsmallest(5)
was = patients.iloc[row]
pd.DataFrame(
    {
        "entry": record.iloc[0][suspects.index],
        "P(entry | the rest)": suspects.map("{:.2g}".format),
        "was": was[suspects.index],
    }
)

# %% [markdown]
# ### Learned, and kept
#
# Networks are kept in folders as all models are (`save`), or in BIF files, which other programs
# read. Here alarm is learned from the patients, and sent on.

# %%
learned = BayesianNetwork(alarm.graph_, prior="bdeu", states=alarm.states_).fit(patients)
fresh = alarm.sample(500, random_state=2)
print(f"nats a record: learned {learned.score(fresh):.2f}, true {alarm.score(fresh):.2f}")
learned.to_bif("learned.bif")
again = BayesianNetwork.from_bif("learned.bif")
os.remove("learned.bif")
assert again.cpds_ == learned.cpds_
