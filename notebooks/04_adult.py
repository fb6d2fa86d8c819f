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
# # Adult: a network found in a census, classified with, and intervened on
#
# Thirty thousand people of a census of 1994: age, education, marital status, race, sex, hours
# worked a week, immigrant or not, and whether they earned more than 50,000 dollars. Here
#
# 1. a graph is found in the table, within what is known beforehand, with the certainty of each
#    edge;
# 2. networks classify incomes, side by side with naive Bayes and logistic regression;
# 3. the network is asked what education would do to incomes, which is another question;
# 4. answers that are missing are filled in.

# %%
import os
from itertools import permutations

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from ppl_gen import (
    EM,
    BayesClassifier,
    BayesianNetwork,
    ChowLiu,
    ExactSearch,
    HillClimb,
    NaiveBayes,
    TreeAugmented,
    averaged_network,
    edge_confidence,
    plots,
)
from ppl_gen.datasets import load_adult
from ppl_gen.evaluate.calibration import expected_calibration_error

# The tests run this notebook with few draws.
small = "PPL_GEN_SMALL" in os.environ
people = load_adult().frame
if small:
    people = people.sample(5000, random_state=0).reset_index(drop=True)
people.head()

# %% [markdown]
# ## 1. The graph
#
# Data alone leave the direction of many edges open, and a search may have income decide on one's
# sex. What is known goes in: nobody's age, sex or race is caused by anything here, nor by each
# other; being an immigrant comes after these, then education and marriage, then hours, and income
# comes last. `tiers` forbids edges back from a later group to an earlier one; `forbidden` does the
# rest. Of the graphs that are left, the one of greatest BDeu score is wanted: the probability of
# the table, all possible parameters averaged over.

# %%
born = ["Age", "Sex", "Race"]
limits = {
    "tiers": [born, ["Immigrant"], ["Education", "MaritalStatus"], ["HoursPerWeek"], ["Income"]],
    "forbidden": list(permutations(born, 2)),
}
climbed = HillClimb("bdeu", random_state=0, **limits).learn(people)
exact = ExactSearch("bdeu", **limits).learn(people)
anything = HillClimb("bdeu", random_state=0).learn(people)
pd.DataFrame(
    {
        "edges": [len(graph.edges) for graph in (climbed, exact, anything)],
        "BDeu, nats": [graph.graph["score"] for graph in (climbed, exact, anything)],
    },
    index=["hill climbing", "exact search", "hill climbing, nothing known"],
).round(1)

# %% [markdown]
# With eight columns all graphs can be searched, by dynamic programming, and hill climbing is seen
# to have found the best. What is known costs nine hundred nats: age, sex and race are *not*
# independent in this table, for it holds those who work, and who works depends on all three. A
# graph of causes has no place for such a selection; it is one of the things to keep in mind below.
#
# How sure are the edges? The search is repeated on tables drawn anew from the rows. `strength` is
# the share in which two columns are joined, and `direction` how often the edge points this way,
# where anything in the data or in what is known tells.

# %%
confidence = edge_confidence(
    people,
    HillClimb("bdeu", restarts=2, **limits),
    n_bootstrap=10 if small else 100,
    random_state=0,
)
agreed = averaged_network(confidence)
doubtful = confidence[
    (confidence["strength"].between(0.01, 0.99)) & (confidence["direction"] >= 0.5)
]
doubtful.sort_values("strength", ascending=False).round(2).reset_index(drop=True)

# %%
likely = nx.DiGraph()
likely.add_nodes_from(people.columns)
shown = confidence[(confidence["strength"] >= 0.1) & (confidence["direction"] >= 0.5)]
likely.add_edges_from(zip(shown["source"], shown["target"], strict=True))
_, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
plots.plot_network(likely, strength=confidence, ax=axes[0])
axes[0].set_title("all edges of a tenth of the tables: the darker, the surer")
plots.plot_network(agreed, ax=axes[1])
_ = axes[1].set_title(f"those of more than {agreed.graph['threshold']:.0%}")

# %% [markdown]
# The strong ones are no surprise. Whether hours or age lead to income *directly*, beside marriage
# and education, cannot be told even from thirty thousand rows: a table with more parents has more
# numbers to learn, and the gain hardly pays for them.
#
# ## 2. Incomes classified
#
# Any network with a `target` is a classifier: `fit(X, y)`, `predict_proba(X)`. Candidates, from the
# most to the least assuming: naive Bayes; a tree among the features beside the class
# (`TreeAugmented`); a tree for each class of its own (Chow and Liu's, by Bayes' rule); and a graph
# without any shape in mind. Beside them, logistic regression, which models nothing but the income.
# All of them predict rows that they were not fitted to.

# %%
features, income = people.drop(columns="Income"), people["Income"]
candidates = {
    "naive Bayes": NaiveBayes(),
    "tree-augmented": BayesianNetwork(TreeAugmented(), target="Income", prior="bdeu"),
    "a tree a class": BayesClassifier(BayesianNetwork(ChowLiu(), prior="bdeu")),
    "network, by BDeu": BayesianNetwork(
        HillClimb("bdeu", restarts=5), target="Income", prior="bdeu", random_state=0
    ),
    "network of causes": BayesianNetwork(climbed, target="Income", prior="bdeu"),
    "logistic regression": make_pipeline(OneHotEncoder(), LogisticRegression(max_iter=500)),
}
folds = StratifiedKFold(3 if small else 10, shuffle=True, random_state=0)
classes = np.array(["<=50K", ">50K"])
proba = {
    name: cross_val_predict(model, features, income, cv=folds, method="predict_proba")
    for name, model in candidates.items()
}
truth = income.astype(str).to_numpy()
pd.DataFrame(
    {
        name: {
            "accuracy": accuracy_score(truth, classes[p.argmax(axis=1)]),
            "log loss, nats": log_loss(truth, p),
            "calibration error": expected_calibration_error(truth, p, classes),
        }
        for name, p in proba.items()
    }
).T.style.format("{:.4f}").background_gradient(cmap="Blues_r", subset=["log loss, nats"])

# %%
_, axes = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
for ax, name in zip(axes, ["naive Bayes", "tree-augmented", "network, by BDeu"], strict=True):
    plots.plot_calibration(truth, proba[name], classes, ax=ax)
    ax.set(title=f"{name}: {ax.get_title().split()[-1]}", xlim=(0.48, 1.02), ylim=(0.48, 1.02))

# %% [markdown]
# Naive Bayes counts the same evidence several times: the married are older and work longer, and it
# takes that for three signs of wealth. It is the worst, and overconfident. Each step towards a
# graph that fits mends this, and a searched network does no worse than logistic regression, though
# nobody told it that income is what will be asked. The network of causes has income at the end of
# all, with one table for it that BDeu keeps small; it is honest, and less sharp.
#
# What networks give in return is every other question. Features may be missing,

# %%
network = candidates["network, by BDeu"].fit(features, income)
little = pd.DataFrame({"Education": ["Academic-Degree", "HS-grad"], "Sex": ["Female", "Female"]})
network.predict_proba(little).round(3)

# %% [markdown]
# and it can be asked backwards.

# %%
network.query(["Education", "MaritalStatus"], {"Income": ">50K"}).unstack().round(3)

# %% [markdown]
# ## 3. What would education do?
#
# Half of those with a degree earn more than 50,000 dollars, and a sixth of those with no more than
# high school. How much of it would a degree bring to those who have none? People with a degree are
# older, and differ in other ways which lead to incomes by themselves.
#
# For this question the graph has to be one of causes. So it is the one in which what is known went
# in, fitted with its posterior (`"conjugate"`: each table is drawn from its Dirichlet), so that
# every answer has an interval.

# %%
causal = BayesianNetwork(climbed, prior="bdeu", inference="conjugate", random_state=0).fit(people)
levels = people["Education"].cat.categories
rows = {}
for level in levels:
    seen = causal.query("Income", {"Education": level}, interval=0.95).loc[">50K"]
    done = causal.do({"Education": level}).query("Income", interval=0.95).loc[">50K"]
    rows[level] = {"seen": seen["probability"], "done": done["probability"]} | {
        f"{name}, {end}": one[end]
        for name, one in (("seen", seen), ("done", done))
        for end in ("lower", "upper")
    }
answers = pd.DataFrame(rows).T
_, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for k, name in enumerate(("seen", "done")):
    error = abs(
        answers[[f"{name}, lower", f"{name}, upper"]].T.to_numpy() - answers[name].to_numpy()
    )
    ax.errorbar(
        np.arange(len(levels)) + 0.1 * k, answers[name], error, fmt="o", color=f"C{k}", label=name
    )
ax.set(xticks=range(len(levels)), xticklabels=levels, ylabel="P(income > 50K), 95%", ylim=(0, 0.6))
_ = ax.legend(loc="upper left")

# %% [markdown]
# Seen: among those who have it. Done: if all had it. The two differ less than one might have
# feared. What has to be adjusted for is read off the graph:

# %%
print(causal.identify("Education", "Income"))
print("minimal sets:", *causal.back_door_sets("Education", "Income"), sep="\n  ")
degree = ("HS-grad", "Academic-Degree")
effect = causal.average_effect("Education", "Income", degree, outcome_state=">50K")
print(effect)

# %% [markdown]
# The same effect straight from the rows, by standardisation over one of these sets, without the
# tables of the network. It refuses at first, and is right: nobody under twenty has a degree, so
# that the rows say nothing about what it would do for them. (The network had its prior to say.)

# %%
try:
    causal.average_effect("Education", "Income", degree, outcome_state=">50K", data=people)
except ValueError as error:
    print(error)
grown = people[people["Age"] != "<20"]
print(causal.average_effect("Education", "Income", degree, outcome_state=">50K", data=grown))

# %% [markdown]
# Both estimates agree, and both are as good as the graph. Suppose that something nobody asked for,
# call it ability, helps with degrees and with incomes. It is a node that no column shows:

# %%
suspected = nx.DiGraph(climbed)
suspected.add_edges_from([("Ability", "Education"), ("Ability", "Income")])
hidden = BayesianNetwork(
    suspected,
    states={"Ability": ["low", "high"]},
    prior="bdeu",
    inference=EM(max_iter=1000, tol=1e-5),
    random_state=0,
).fit(people)
print(hidden.identify("Education", "Income"))
try:
    hidden.average_effect("Education", "Income", degree, outcome_state=">50K")
except ValueError as error:
    print(error)

# %% [markdown]
# EM fits tables to that graph as well, but they are one of many that fit alike, and no number of
# rows would tell which. So no effect is given. Nor is it with fewer columns seen, or when age was
# not asked:

# %%
for asked in (["Age"], ["Age", "Sex"], ["Sex", "Race", "Immigrant"]):
    found = causal.identify("Education", "Income", observed=asked)
    print(f"with {', '.join(asked)}: {found}")

# %% [markdown]
# ## 4. Answers that are missing
#
# A fifth of all answers is taken out. EM sums over what they may have been, and what it learns
# scores the true table about as well as what is learned from all; `impute` fills in the likeliest
# answers, or draws.

# %%
lost = np.random.default_rng(0).uniform(size=people.shape) < 0.2
holed = people.mask(lost)
from_gaps = BayesianNetwork(climbed, prior="bdeu").fit(holed)
from_all = BayesianNetwork(climbed, prior="bdeu").fit(people)
print(f"nats a row: {from_gaps.score(people):.3f} with gaps, {from_all.score(people):.3f} without")
filled = from_gaps.impute(holed)
agrees = (filled.astype(str) == people.astype(str)).where(lost)
pd.DataFrame(
    {
        "filled in rightly": agrees.mean(),
        "the commonest state": people.apply(lambda column: (column == column.mode()[0]).mean()),
    }
).round(3)

# %% [markdown]
# The likeliest state is not a fair copy: filled in so, everybody is ordinary. Draws keep the
# proportions, and with several tables of them, what comes after shows how much is not known.

# %%
drawn = from_gaps.impute(holed, n_draws=5, random_state=0)
rich = {"as it was": people, "likeliest state": filled} | {
    f"draw {k + 1}": table for k, table in enumerate(drawn)
}
pd.DataFrame(
    {"share over 50K": {k: (t["Income"] == ">50K").mean() for k, t in rich.items()}}
).T.round(4)
