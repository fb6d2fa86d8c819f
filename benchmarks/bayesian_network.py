"""Bayesian networks: queries, predictions, reading and fitting, against pgmpy."""

import gzip
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

os.environ["TQDM_DISABLE"] = "1"  # pgmpy draws a bar for each prediction

from pgmpy.inference import VariableElimination
from pgmpy.models import DiscreteBayesianNetwork
from pgmpy.parameter_estimator import DiscreteBayesianEstimator
from pgmpy.readwrite import BIFReader

from benchmarks.measure import Row, in_turn
from benchmarks.startup import fresh
from ppl_gen import BayesianNetwork
from ppl_gen.models.bayesian_network.bif import read_bif

QUERIES, EVIDENCE, TURNS = 200, 5, 5
PREDICTED = "HYPOVOLEMIA"
#: Diagnoses of alarm that are filled in together.
HIDDEN = ["HYPOVOLEMIA", "LVFAILURE", "ANAPHYLAXIS", "INSUFFANESTH", "PULMEMBOLUS"]
FITTED = 100_000

Questions = list[tuple[str, dict[str, str]]]

#: What a fresh process does: read, ask, and tell of its largest memory in MiB.
FRESH = """
{imports}
network = {read}
questions = {questions!r}
answers = [{ask} for node, evidence in questions]
# Of this program alone: what getrusage tells may be that of the process that started it.
status = open("/proc/self/status").read()
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(peak, *(float(p) for answer in answers for p in answer))
"""
OURS: dict[str, str] = {
    "imports": "from ppl_gen import BayesianNetwork",
    "read": "BayesianNetwork.from_bif({path!r})",
    "ask": "network.query(node, evidence).to_numpy()",
}
THEIRS: dict[str, str] = {
    "imports": (
        "import gzip\n"
        "from pgmpy.inference import VariableElimination\n"
        "from pgmpy.readwrite import BIFReader"
    ),
    "read": ("VariableElimination(BIFReader(string=gzip.open({path!r}, 'rt').read()).get_model())"),
    "ask": "network.query([node], evidence, show_progress=False).values",
}


def path_of(name: str) -> Path:
    """Where pgmpy keeps a network of bnlearn's repository."""
    found = importlib.util.find_spec("pgmpy.utils")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "example_models" / f"{name}.bif.gz"


def text_of(name: str) -> str:
    return gzip.decompress(path_of(name).read_bytes()).decode()


def drawn(network: BayesianNetwork, n: int, seed: int) -> pd.DataFrame:
    """Rows drawn from a network, as categories."""
    return network.sample(n, random_state=seed)[list(network.states_)]


def questions_of(network: BayesianNetwork, n: int, seed: int = 0) -> Questions:
    """A node, and what is seen of others, from one row of the network's own for each question."""
    rng = np.random.default_rng(seed)
    rows = drawn(network, n, seed).astype(str).to_dict("records")
    questions = []
    for row in rows:
        node, *seen = rng.choice(list(row), EVIDENCE + 1, replace=False).tolist()
        questions.append((node, {name: row[name] for name in seen}))
    return questions


def rows() -> Iterator[Row]:
    """Measure everything, from reading to fitting."""
    for name in ("alarm", "hepar2"):
        yield reading(name)
    alarm = BayesianNetwork.from_bif(text_of("alarm"))
    peer = BIFReader(string=text_of("alarm")).get_model()
    yield from queries(alarm, peer)
    yield from predictions(alarm, peer)
    yield fitting(alarm, peer)
    yield in_a_fresh_process("first query of alarm", "alarm", 1, "under 3 s")
    yield in_a_fresh_process("hepar2", "hepar2", QUERIES, "under 1 GiB")


def reading(name: str) -> Row:
    """Read a file's text into tables."""
    text = text_of(name)
    fast, slow, mine, theirs = in_turn(
        lambda: read_bif(text), lambda: BIFReader(string=text), repeats=5
    )
    apart = max(
        float(abs(cpd.values.reshape(-1, cpd.size).T - theirs.variable_cpds[node]).max())
        for node, cpd in mine.items()
    )
    return Row(
        f"{name}, parse the BIF file", "pgmpy", fast, slow, f"tables within {apart:.0e}", "5x"
    )


def queries(network: BayesianNetwork, peer: DiscreteBayesianNetwork) -> Iterator[Row]:
    """Ask for one node at a time; at first with new nodes each time, then again."""
    questions = questions_of(network, QUERIES)
    elimination = VariableElimination(peer)

    def ours(asked: BayesianNetwork) -> list[Any]:
        return [asked.query(node, evidence).to_numpy() for node, evidence in questions]

    def theirs() -> list[Any]:
        # Its default, a greedy contraction of the pruned network, is three times as fast as
        # elimination in one of its other orders.
        return [
            elimination.query([node], evidence, show_progress=False).values
            for node, evidence in questions
        ]

    # A network that was asked nothing yet for each turn: what it learns of its graph counts.
    new = iter([BayesianNetwork.from_bif(text_of("alarm")) for _ in range(TURNS)])
    for how, side in (
        ("each of new nodes", lambda: ours(next(new))),
        ("asked again", lambda: ours(network)),
    ):
        fast, slow, mine, others = in_turn(side, theirs, repeats=TURNS)
        apart = max(float(abs(a - b).max()) for a, b in zip(mine, others, strict=True))
        yield Row(
            f"alarm, {QUERIES} queries with {EVIDENCE} observed, {how}",
            "pgmpy `greedy`",
            fast,
            slow,
            f"probabilities within {apart:.0e}",
            "20x",
        )


def predictions(network: BayesianNetwork, peer: DiscreteBayesianNetwork) -> Iterator[Row]:
    """Predict one node of a thousand rows, and then several of them together."""
    frame = drawn(network, 1000, 1).astype(str)
    shown = frame.drop(columns=PREDICTED)
    fast, slow, mine, theirs = in_turn(
        lambda: network.predict_proba(shown, PREDICTED),
        lambda: peer.predict_probability(shown),
        repeats=3,
    )
    columns = [f"{PREDICTED}_{state}" for state in network.states_[PREDICTED] or ()]
    yield Row(
        "alarm, probabilities of a node for 1,000 rows",
        "pgmpy `predict_probability`",
        fast,
        slow,
        f"probabilities within {abs(mine - theirs[columns].to_numpy()).max():.0e}",
        "100x",
    )
    fast, slow, mine, theirs = in_turn(
        lambda: network.predict(shown, PREDICTED), lambda: peer.predict(shown), repeats=3
    )
    yield Row(
        "alarm, predict a node of 1,000 rows",
        "pgmpy `predict`",
        fast,
        slow,
        f"{np.mean(mine == theirs[PREDICTED].to_numpy()):.1%} of states the same",
        "100x",
    )
    hidden = frame.mask(np.isin(frame.columns, HIDDEN)[None, :].repeat(len(frame), axis=0))
    fast, slow, mine, theirs = in_turn(
        lambda: network.impute(hidden),
        lambda: peer.predict(frame.drop(columns=HIDDEN)),
        repeats=3,
    )
    # Where two fillings are equally likely, either is right: what counts is how likely they are.
    both = [network.log_prob(filled[list(frame)].astype(str)) for filled in (mine, theirs)]
    yield Row(
        f"alarm, the likeliest states of {len(HIDDEN)} nodes together for 1,000 rows",
        "pgmpy `predict`",
        fast,
        slow,
        f"log probability ours - theirs: {np.min(both[0] - both[1]):.0e} to "
        f"{np.max(both[0] - both[1]):.0e}",
        "100x",
    )


def fitting(network: BayesianNetwork, peer: DiscreteBayesianNetwork) -> Row:
    """Fit all tables under the BDeu prior."""
    frame = drawn(network, FITTED, 2)
    edges, states = list(peer.edges()), {n: list(s or ()) for n, s in network.states_.items()}

    def theirs() -> DiscreteBayesianNetwork:
        estimator = DiscreteBayesianEstimator(
            prior_type="BDeu", equivalent_sample_size=10, state_names=states
        )
        return DiscreteBayesianNetwork(edges).fit(frame, estimator=estimator)

    fast, slow, mine, fitted = in_turn(
        lambda: BayesianNetwork(network.graph_, prior="bdeu").fit(frame), theirs, repeats=3
    )
    apart = 0.0
    for node, cpd in mine.cpds_.items():
        other = fitted.get_cpds(node)
        axes = [other.variables.index(name) for name in (*cpd.parents, node)]
        apart = max(apart, float(abs(cpd.values - other.values.transpose(axes)).max()))
    return Row(
        f"alarm, BDeu fit of {FITTED:,} rows",
        "pgmpy",
        fast,
        slow,
        f"tables within {apart:.0e}",
        "3x",
    )


def in_a_fresh_process(job: str, name: str, n: int, target: str) -> Row:
    """Read and ask in a new interpreter, imports and all; tell its largest memory."""
    network = BayesianNetwork.from_bif(text_of(name))
    questions = questions_of(network, n)
    times, answers = [], []
    for side in (OURS, THEIRS):
        parts = {key: part.format(path=str(path_of(name))) for key, part in side.items()}
        code = FRESH.format(questions=questions, **parts)
        runs = [fresh(code) for _ in range(4)][1:]  # the first fills file caches
        times.append(float(np.median([seconds for seconds, _ in runs])))
        answers.append(np.array(runs[-1][1].split(), dtype=float))
    peaks = [answer[0] for answer in answers]
    apart = float(abs(answers[0][1:] - answers[1][1:]).max())
    asked = f", {n} queries with {EVIDENCE} observed" if n > 1 else ""
    return Row(
        f"{job}{asked}, in a fresh process",
        "pgmpy `greedy`",
        *times,
        f"within {apart:.0e}; at most {peaks[0]:.0f} MiB, theirs {peaks[1]:.0f}",
        target,
    )
