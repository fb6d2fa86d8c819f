"""Discrete networks answer, and are fitted, as pgmpy's are."""

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest

from ppl_gen import BayesianNetwork, BDeu
from ppl_gen.datasets import load_alarm, load_asia

SHARED = Path(__file__).resolve().parents[4] / "shared" / "bif"
QUERIES = 200
#: Their own sums, in another order, of tables that the file gives with few digits.
TOLERANCE = 1e-9


def text_of(name):
    path = SHARED / f"{name}.bif.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the project")
    return gzip.decompress(path.read_bytes()).decode()


def questions(model, seed):
    """Targets, evidence that a sample shows, and soft evidence on every third question."""
    rng = np.random.default_rng(seed)
    rows = model.sample(QUERIES, random_state=seed)
    names = list(model.graph_)
    for i in range(QUERIES):
        order = [names[v] for v in rng.permutation(len(names))]
        n_targets, n_seen = int(rng.integers(1, 3)), int(rng.integers(0, 5))
        targets, seen = order[:n_targets], order[n_targets : n_targets + n_seen]
        soft = {}
        if i % 3 == 0:
            node = order[-1]
            soft[node] = rng.dirichlet(np.ones(len(model.states_[node])))
        yield targets, {node: str(rows[node].iloc[i]) for node in seen}, soft


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alarm", "child", "sachs", "hepar2"])
def test_queries_are_those_of_variable_elimination(name):
    pytest.importorskip("pgmpy", reason="pgmpy is in the group bench")
    text = text_of(name)
    model = BayesianNetwork.from_bif(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions to come
        from pgmpy.factors.discrete import TabularCPD
        from pgmpy.inference import VariableElimination
        from pgmpy.readwrite import BIFReader

        theirs = VariableElimination(BIFReader(string=text).get_model())
        largest = 0.0
        for targets, evidence, soft in questions(model, seed=0):
            virtual = [
                TabularCPD(
                    node,
                    len(likelihood),
                    likelihood[:, None].tolist(),
                    state_names={node: list(model.states_[node])},
                )
                for node, likelihood in soft.items()
            ]
            expected = theirs.query(
                targets,
                evidence,
                virtual_evidence=virtual or None,
                elimination_order="MinFill",
                show_progress=False,
            )
            found = model.query(targets, evidence, soft)
            # They name variables in an order, and states in an order, of their own.
            axes = [expected.variables.index(node) for node in targets]
            table = np.transpose(expected.values, axes)
            for axis, node in enumerate(targets):
                places = [expected.name_to_no[node][state] for state in model.states_[node]]
                table = np.take(table, places, axis=axis)
            largest = max(largest, float(abs(found.to_numpy() - table.ravel()).max()))
    assert largest < TOLERANCE


@pytest.mark.parametrize(
    ("load", "n_rows"), [(load_asia, 2000), (load_alarm, 1000)], ids=["asia", "alarm"]
)
@pytest.mark.parametrize("equivalent_sample_size", [None, 10, 3])
def test_fits_are_theirs(load, n_rows, equivalent_sample_size):
    pytest.importorskip("pgmpy", reason="pgmpy is in the group bench")
    truth = load()
    rows = truth.sample(n_rows, random_state=0)
    states = {name: list(own) for name, own in truth.states_.items()}
    prior = None if equivalent_sample_size is None else BDeu(equivalent_sample_size)
    model = BayesianNetwork(truth.graph_, states=states, prior=prior).fit(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions to come
        from pgmpy.estimators import BayesianEstimator, MaximumLikelihoodEstimator
        from pgmpy.models import DiscreteBayesianNetwork

        network = DiscreteBayesianNetwork(list(truth.graph_.edges))
        network.add_nodes_from(truth.graph_.nodes)
        text = rows.astype(str)
        if prior is None:
            estimator = MaximumLikelihoodEstimator(network, text, state_names=states)
            theirs = estimator.get_parameters()
        else:
            theirs = BayesianEstimator(network, text, state_names=states).get_parameters(
                prior_type="BDeu", equivalent_sample_size=equivalent_sample_size
            )
    for cpd in theirs:
        node = cpd.variable
        own = model.cpds_[node]
        table = np.transpose(
            cpd.values, [cpd.variables.index(name) for name in (*own.parents, node)]
        )
        for axis, name in enumerate((*own.parents, node)):
            table = np.take(table, [cpd.name_to_no[name][s] for s in states[name]], axis=axis)
        np.testing.assert_allclose(own.values, table, rtol=0.0, atol=1e-12)
