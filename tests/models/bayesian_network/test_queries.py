"""Discrete networks answer questions as the joint table of all their states does."""

import itertools
import math

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from network_problems import brute_force_joint, random_network

from ppl_gen import BayesianNetwork, TabularCPD
from ppl_gen.datasets import load_asia

#: Sums of a few thousand products of doubles in [0, 1], in another order.
ROUNDING = 1e-12


class Problem:
    """A random network and its joint table, and questions to both."""

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        n_nodes = int(rng.integers(1, 9))
        self.parents, self.sizes, self.tables = random_network(rng, n_nodes, zeros=seed % 3 == 0)
        self.names = [f"n{v}" for v in range(n_nodes)]
        self.states = [tuple(f"s{code}" for code in range(size)) for size in self.sizes]
        named = dict(zip(self.names, self.states, strict=True))
        self.model = BayesianNetwork(
            cpds=[
                TabularCPD(
                    self.names[v],
                    table,
                    [self.names[p] for p in chosen],
                    {n: named[n] for n in [self.names[v], *(self.names[p] for p in chosen)]},
                )
                for v, (chosen, table) in enumerate(zip(self.parents, self.tables, strict=True))
            ]
        )
        self.joint = brute_force_joint(self.parents, self.sizes, self.tables)

    def question(self, n_targets=None):
        """Draw targets, hard evidence that is possible, and soft evidence."""
        rng, n_nodes = self.rng, len(self.names)
        order = [int(v) for v in rng.permutation(n_nodes)]
        count = int(rng.integers(1, min(3, n_nodes) + 1)) if n_targets is None else n_targets
        targets, rest = order[:count], order[count:]
        row = np.unravel_index(rng.choice(self.joint.size, p=self.joint.ravel()), self.joint.shape)
        evidence = {v: int(row[v]) for v in rest if rng.random() < 0.4}
        soft = {
            int(v): rng.random(self.sizes[v]) + 0.01
            for v in range(n_nodes)
            if v not in evidence and rng.random() < 0.3
        }
        return targets, evidence, soft

    def weighed(self, evidence, soft=None):
        """Joint table, zero where the evidence is another, times the likelihoods."""
        table = self.joint.copy()
        axes = range(table.ndim)
        for v, code in evidence.items():
            seen = np.arange(self.sizes[v]) == code
            table = table * np.expand_dims(seen, [a for a in axes if a != v])
        for v, likelihood in (soft or {}).items():
            table = table * np.expand_dims(likelihood, [a for a in axes if a != v])
        return table

    def marginal(self, table, targets):
        others = tuple(v for v in range(table.ndim) if v not in targets)
        summed = table.sum(axis=others)
        return np.transpose(summed, np.argsort(np.argsort(targets)))

    def named(self, evidence):
        return {self.names[v]: self.states[v][code] for v, code in evidence.items()}

    def named_soft(self, soft):
        """Likelihoods in order, or by state in any order."""
        given = {}
        for v, likelihood in soft.items():
            by_state = dict(zip(self.states[v], likelihood.tolist(), strict=True))
            reverse = dict(reversed(by_state.items()))
            given[self.names[v]] = reverse if v % 2 else likelihood.tolist()
        return given

    def frame(self, codes):
        """Rows of codes, -1 where missing, as a frame of categories."""
        columns = {
            name: pd.Categorical.from_codes(codes[:, v], list(self.states[v]))
            for v, name in enumerate(self.names)
        }
        return pd.DataFrame(columns)

    def rows(self, n_rows=12):
        """Rows that are possible, some of it missing: (n, V) codes, -1 where missing."""
        flat = self.rng.choice(self.joint.size, n_rows, p=self.joint.ravel())
        codes = np.stack(np.unravel_index(flat, self.joint.shape), axis=1)
        codes[self.rng.random(codes.shape) < 0.4] = -1
        return codes

    def of_row(self, row):
        """Joint table of what a row shows."""
        return self.weighed({v: int(code) for v, code in enumerate(row) if code >= 0})


BATCHES = [range(start, start + 25) for start in range(0, 200, 25)]


def problems(batch):
    return (Problem(seed) for seed in batch)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_queries_are_marginals_of_the_joint_table(batch):
    for problem in problems(batch):
        for _ in range(2):
            targets, evidence, soft = problem.question()
            for own_soft in ({}, soft):
                table = problem.weighed(evidence, own_soft)
                expected = problem.marginal(table, targets) / table.sum()
                for _ in range(3):  # a question asked again has a plan of its own
                    found = problem.model.query(
                        [problem.names[v] for v in targets],
                        problem.named(evidence),
                        problem.named_soft(own_soft),
                    )
                    states = [problem.states[v] for v in targets]
                    if len(targets) == 1:
                        assert tuple(found.index) == states[0]
                    else:
                        assert list(found.index) == list(itertools.product(*states))
                    assert found.index.names == [problem.names[v] for v in targets]
                    np.testing.assert_allclose(
                        found.to_numpy(), expected.ravel(), rtol=0.0, atol=ROUNDING
                    )
                probability = problem.model.probability(
                    problem.named(evidence), problem.named_soft(own_soft)
                )
                assert probability == pytest.approx(table.sum(), rel=ROUNDING)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_map_queries_find_the_largest_cell(batch):
    for problem in problems(batch):
        targets, evidence, soft = problem.question()
        table = problem.weighed(evidence, soft)
        asked = [problem.names[v] for v in targets]
        rest = [v for v in range(table.ndim) if v not in evidence]
        for nodes, places in ((asked, targets), (None, rest)):
            found = problem.model.map_query(
                nodes, problem.named(evidence), problem.named_soft(soft)
            )
            assert list(found) == [problem.names[v] for v in places]
            marginal = problem.marginal(table, places)
            codes = tuple(problem.states[v].index(found[problem.names[v]]) for v in places)
            # Another cell may be the largest up to rounding.
            assert marginal[codes] >= marginal.max() * (1.0 - ROUNDING)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_rows_are_scored_and_classified_by_the_joint_table(batch):
    for problem in problems(batch):
        codes = problem.rows()
        frame = problem.frame(codes)
        tables = [problem.of_row(row) for row in codes]
        np.testing.assert_allclose(
            problem.model.log_prob(frame),
            np.log([table.sum() for table in tables]),
            rtol=ROUNDING,
            atol=ROUNDING,
        )
        v = int(problem.rng.integers(len(problem.names)))
        shown = codes.copy()
        shown[:, v] = -1
        expected = np.stack([problem.marginal(problem.of_row(row), [v]) for row in shown])
        expected /= expected.sum(axis=1, keepdims=True)
        found = problem.model.predict_proba(frame, problem.names[v])
        np.testing.assert_allclose(found, expected, rtol=0.0, atol=ROUNDING)
        best = problem.model.predict(frame, problem.names[v])
        likeliest = [problem.states[v].index(state) for state in best]
        at_best = np.take_along_axis(expected, np.array(likeliest)[:, None], axis=1)[:, 0]
        assert (at_best >= expected.max(axis=1) - ROUNDING).all()
        # A column that is not there is a column of gaps.
        np.testing.assert_array_equal(
            problem.model.predict_proba(frame.drop(columns=problem.names[v]), problem.names[v])
            if len(problem.names) > 1
            else found,
            found,
        )


@pytest.mark.parametrize("batch", BATCHES[:4], ids=str)
def test_gaps_are_filled_with_the_likeliest_states(batch):
    for problem in problems(batch):
        codes = problem.rows(6)
        filled = problem.model.impute(problem.frame(codes))
        for i, row in enumerate(codes):
            table = problem.of_row(row)
            for v, code in enumerate(row):
                found = problem.states[v].index(filled[problem.names[v]].iloc[i])
                if code >= 0:
                    assert found == code
                else:
                    marginal = problem.marginal(table, [v])
                    assert marginal[found] >= marginal.max() * (1.0 - ROUNDING)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_mutual_information_is_that_of_the_joint_table(batch):
    for problem in problems(batch):
        if len(problem.names) < 3:
            continue
        (x, y, z), evidence, _ = problem.question(n_targets=3)
        table = problem.weighed(evidence)
        table /= table.sum()

        def entropy(places, table=table, problem=problem):
            p = problem.marginal(table, places).ravel()
            return -(p[p > 0.0] * np.log(p[p > 0.0])).sum()

        names = problem.names
        found = problem.model.mutual_information(names[x], names[y], problem.named(evidence))
        expected = entropy([x]) + entropy([y]) - entropy([x, y])
        assert found == pytest.approx(expected, abs=ROUNDING)
        found = problem.model.mutual_information(
            names[x], [names[y]], problem.named(evidence), given=names[z]
        )
        expected = entropy([x, z]) + entropy([y, z]) - entropy([x, y, z]) - entropy([z])
        assert found == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_evidence_that_cannot_be_is_refused_wherever_it_is(batch):
    """With zeros in the tables, also where the targets do not depend on what excludes itself."""
    for problem in problems(batch):
        if problem.joint.all() or len(problem.names) < 3:
            continue
        places = np.argwhere(problem.joint == 0.0)
        row = places[problem.rng.integers(len(places))]
        target = int(problem.rng.integers(len(row)))
        evidence = {v: int(code) for v, code in enumerate(row) if v != target}
        if problem.weighed(evidence).sum() > 0.0:
            continue
        asked, named = problem.names[target], problem.named(evidence)
        assert problem.model.probability(named) == 0.0
        assert problem.model.probability(named, log=True) == -math.inf
        for ask in (problem.model.query, problem.model.query, problem.model.map_query):
            with pytest.raises(ValueError, match="has probability zero under the network"):
                ask([asked], named)


# -- known answers ---------------------------------------------------------------------------------


def sprinkler():
    """The network of Russell & Norvig (2010), figure 14.12, as in Murphy's tutorial (1998)."""
    yes_no = ["no", "yes"]
    return BayesianNetwork(
        [
            ("cloudy", "sprinkler"),
            ("cloudy", "rain"),
            ("sprinkler", "wet"),
            ("rain", "wet"),
        ],
        {
            "cloudy": [0.5, 0.5],
            "sprinkler": [[0.5, 0.5], [0.9, 0.1]],
            "rain": [[0.8, 0.2], [0.2, 0.8]],
            "wet": [[[1.0, 0.0], [0.1, 0.9]], [[0.1, 0.9], [0.01, 0.99]]],
        },
        states=dict.fromkeys(["cloudy", "sprinkler", "rain", "wet"], yes_no),
    )


def test_the_sprinkler_gives_the_published_probabilities():
    model = sprinkler()
    # Published to three digits.
    assert model.query("sprinkler", {"wet": "yes"})["yes"] == pytest.approx(0.430, abs=5e-4)
    assert model.query("rain", {"wet": "yes"})["yes"] == pytest.approx(0.708, abs=5e-4)
    assert model.probability({"wet": "yes"}) == pytest.approx(0.6471, rel=1e-12)


def test_asia_gives_the_published_probability():
    found = load_asia().query("lung", {"xray": "yes", "dysp": "yes"})
    assert found["yes"] == pytest.approx(0.6212528, abs=5e-8)


# -- questions in any words ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asia():
    return load_asia()


def test_evidence_may_be_any_mapping_and_names_any_sequence(asia):
    expected = asia.query(["lung", "bronc"], {"xray": "yes"})
    for nodes in (
        ("lung", "bronc"),
        np.array(["lung", "bronc"]),
        pd.Index(["lung", "bronc"]),
    ):
        found = asia.query(nodes, pd.Series({"xray": "yes"}))
        pd.testing.assert_series_equal(found, expected)
    assert set(asia.query({"lung"}).index) == {"yes", "no"}


def test_answers_are_the_askers_own(asia):
    first = asia.query("lung")
    expected = first.copy()
    first[:] = 0.0
    pd.testing.assert_series_equal(asia.query("lung"), expected)


def test_soft_evidence_counts_by_its_ratios(asia):
    expected = asia.query("smoke", soft_evidence={"lung": [0.2, 0.1], "xray": [1.0, 0.5]})
    for scale in (1e-300, 1e300):
        found = asia.query(
            "smoke", soft_evidence={"lung": [0.2 * scale, 0.1 * scale], "xray": [scale, scale / 2]}
        )
        np.testing.assert_allclose(found, expected, rtol=ROUNDING)


def test_soft_evidence_of_one_state_is_hard(asia):
    found = asia.query(["smoke", "lung"], {"dysp": "yes"}, {"xray": {"yes": 3.0, "no": 0.0}})
    expected = asia.query(["smoke", "lung"], {"dysp": "yes", "xray": "yes"})
    np.testing.assert_allclose(found, expected, rtol=ROUNDING)


def test_soft_evidence_beside_hard_adds_nothing_or_excludes_it(asia):
    expected = asia.query("smoke", {"lung": "yes"})
    found = asia.query("smoke", {"lung": "yes"}, {"lung": [0.2, 0.7]})
    np.testing.assert_allclose(found, expected, rtol=ROUNDING)
    assert asia.probability({"lung": "yes"}, {"lung": [0.2, 0.7]}) == pytest.approx(0.2 * 0.055)
    with pytest.raises(ValueError, match="probability zero"):
        asia.query("smoke", {"lung": "yes"}, {"lung": [0.0, 0.7]})


def test_evidence_on_a_chain_of_two_thousand_does_not_underflow():
    """Its probability is that of a Markov chain, far below the smallest double."""
    n_nodes, rare = 2000, 1e-3
    table = np.array([[1.0 - rare, rare], [0.4, 0.6]])
    model = BayesianNetwork(
        [(v, v + 1) for v in range(n_nodes - 1)],
        {0: [0.5, 0.5]} | dict.fromkeys(range(1, n_nodes), table),
    )
    evidence = {v: v % 2 for v in range(n_nodes - 1)}
    log_probability = math.log(0.5) + (n_nodes // 2 - 1) * (math.log(rare) + math.log(0.4))
    found = model.probability(evidence, log=True)
    assert found == pytest.approx(log_probability, rel=1e-10)
    assert model.probability(evidence) == 0.0
    np.testing.assert_allclose(model.query(n_nodes - 1, evidence), table[0], rtol=ROUNDING)
    # Every second node is seen, in its rare state: those between are summed out.
    evens = dict.fromkeys(range(0, n_nodes, 2), 1)
    step = np.linalg.matrix_power(table, 2)[1, 1]
    found = model.query(n_nodes - 1, evens, {0: [0.5, 0.5]})
    np.testing.assert_allclose(found, table[1], rtol=ROUNDING)
    expected = math.log(0.5) + (n_nodes // 2 - 1) * math.log(step)
    assert model.probability(evens, log=True) == pytest.approx(expected, rel=1e-10)


def test_likeliest_states_of_all_that_is_seen_are_none(asia):
    evidence = dict.fromkeys(asia.graph_, "no")
    assert asia.map_query(evidence=evidence) == {}


def test_a_network_may_be_any_forest_or_one_node():
    model = BayesianNetwork(
        nx.DiGraph({"a": [], "b": ["c"]}),
        {"a": [0.1, 0.2, 0.7], "b": [0.5, 0.5], "c": np.eye(2)},
    )
    assert model.query("a").tolist() == [0.1, 0.2, 0.7]
    assert model.query(["c", "a"], {"b": 1}).loc[1, 2] == pytest.approx(0.7, rel=ROUNDING)
    assert model.mutual_information("b", "c") == pytest.approx(math.log(2.0), rel=ROUNDING)
    assert model.mutual_information("a", "c") == pytest.approx(0.0, abs=ROUNDING)


def test_names_and_states_may_be_anything_that_hashes():
    states = {("a", 1): ["x y", 3.5], 7: [True, False], "ü{}\n": ["", "0", 0]}
    graph = nx.DiGraph([(("a", 1), 7), (7, "ü{}\n")])
    model = BayesianNetwork(
        graph,
        {
            ("a", 1): [0.25, 0.75],
            7: [[0.1, 0.9], [0.5, 0.5]],
            "ü{}\n": [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]],
        },
        states=states,
    )
    found = model.query([("a", 1)], {7: True})
    np.testing.assert_allclose(found, [0.0625, 0.9375], rtol=ROUNDING)
    assert model.query("ü{}\n", {7: False})[0] == pytest.approx(0.1)
    rows = pd.DataFrame({7: [True, False]})
    assert model.predict(rows, "ü{}\n").tolist() == [0, ""]
    assert model.predict(rows, [("a", 1)])[("a", 1)].tolist() == [3.5, 3.5]


def test_entropy_and_what_nodes_share_add_up(asia):
    """I(X; Y) = H(X) + H(Y) - H(X, Y), to the rounding of logarithms."""
    joint = asia.entropy(["smoke", "lung"], {"dysp": "yes"})
    apart = asia.entropy("smoke", {"dysp": "yes"}) + asia.entropy("lung", {"dysp": "yes"})
    shared = asia.mutual_information("smoke", "lung", {"dysp": "yes"})
    assert apart - joint == pytest.approx(shared, abs=ROUNDING)
    with pytest.raises(ValueError, match=r"in common.*entropy"):
        asia.mutual_information("lung", ["lung", "smoke"])
