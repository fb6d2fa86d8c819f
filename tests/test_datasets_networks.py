"""The embedded networks, and the discretised Adult data, are what their sources have."""

import gzip
import hashlib
import re
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency

from ppl_gen import datasets

SHARED = Path(__file__).resolve().parents[2] / "shared"
#: Name -> nodes, edges, free parameters, as the repository's pages say, and the file's SHA-256.
NETWORKS = {
    "asia": (8, 8, 18, "9f770c96940dc4d860b581602120790ac538983b30b28d38631b8184dc7b5f89"),
    "cancer": (5, 4, 10, "05d4ea00a758450eed6fe68ea6de4da05ce0e3e919bd3e8ff7f0bc80a1db4b48"),
    "earthquake": (5, 4, 10, "74dd131e2c6437a39de17f2963d2d16fadd91e70450d1fc20501df05e8dc4f2e"),
    "survey": (6, 6, 21, "3698ccc0f1f74b9f935617d91989e4cdb39edb5360b558216af64047fc88b3b0"),
    "sachs": (11, 17, 178, "b7bd3931192f9e529f0f88bba15fca6cc61ba3c805d5c8ae57eba57ed3b332ec"),
    "alarm": (37, 46, 509, "701e6c561f71b55669070c29614f0724b761289aa2c4a35bcc97b638ee881fa2"),
}
ADULT = "19a407ab975fd94d353b4324ab75ea933993ec31d249317d060f07cb9bfc8622"


def load(name):
    return getattr(datasets, f"load_{name}")()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    nodes, edges, parameters, _ = NETWORKS[name]
    network = load(name)
    graph = network.graph_
    assert nx.is_directed_acyclic_graph(graph)
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (nodes, edges)
    assert sum(cpd.values[..., 1:].size for cpd in network.cpds_.values()) == parameters
    text = (datasets.FOLDER / f"{name}.bif").read_text()
    # The order of the nodes, and of their states, is the file's.
    found = re.findall(r"variable (\S+) \{\n.*\{ (.*) \};", text)
    assert list(network.cpds_) == [node for node, _ in found]
    for node, states in found:
        assert list(network.states_[node]) == states.split(", ")


@pytest.mark.parametrize("name", NETWORKS)
def test_files_are_as_they_were_copied(name):
    content = (datasets.FOLDER / f"{name}.bif").read_bytes()
    assert hashlib.sha256(content).hexdigest() == NETWORKS[name][3]
    source = SHARED / "bif" / f"{name}.bif.gz"
    if not source.exists():
        pytest.skip(f"{source.name} is not beside the project")
    assert content == gzip.decompress(source.read_bytes())


def test_what_is_known_of_them():
    lung = load("asia").query(["lung"], evidence={"xray": "yes", "dysp": "yes"})
    assert lung["yes"] == pytest.approx(0.6212528, abs=5e-8)  # given to seven digits
    cancer = load("cancer").query(["Cancer"])
    by_hand = 0.9 * (0.3 * 0.03 + 0.7 * 0.001) + 0.1 * (0.3 * 0.05 + 0.7 * 0.02)
    assert cancer["True"] == pytest.approx(by_hand, rel=1e-12)  # sums of four products


def test_adult_is_the_table_that_was_tested_elsewhere():
    content = (datasets.FOLDER / "adult.csv.gz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == ADULT
    frame = datasets.load_adult().frame
    # Statistics of dagitty for this table, as pgmpy's tests have them: good to one decimal.
    for column, statistic in (("Immigrant", 57.75), ("Race", 56.25), ("Sex", 289.62)):
        found = chi2_contingency(pd.crosstab(frame["Age"], frame[column]))
        assert found.dof == 4
        assert found.statistic == pytest.approx(statistic, abs=0.05)


def test_adult_has_classes_in_their_order():
    frame = datasets.load_adult().frame
    assert not frame.isna().any(axis=None)
    assert all(isinstance(dtype, pd.CategoricalDtype) for dtype in frame.dtypes)
    ordered = [name for name in frame if frame[name].cat.ordered]
    assert ordered == ["Age", "Education", "HoursPerWeek", "Income"]
    assert frame["Age"].cat.categories.tolist() == ["<20", "20-34", "35-49", "50-65", ">65"]
    # Income rises with education, class by class.
    share = (frame["Income"] == ">50K").groupby(frame["Education"], observed=True).mean()
    assert (np.diff(share) > 0.0).all()


def test_networks_are_fresh():
    first, second = load("asia"), load("asia")
    assert first is not second
    assert first.cpds_ == second.cpds_
