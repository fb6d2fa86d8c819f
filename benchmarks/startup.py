"""What a fresh process waits for: the import, and the first fitted model."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.measure import Row

OURS = """
from sklearn.datasets import load_iris
from ppl_gen import GaussianMixture
model = GaussianMixture(3, random_state=0).fit(load_iris().data)
print(model.score(load_iris().data))
"""
THEIRS = OURS.replace("ppl_gen", "sklearn.mixture")


def fresh(code: str) -> tuple[float, str]:
    """Seconds that a new interpreter takes for some code, and what it printed."""
    start = time.perf_counter()
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return time.perf_counter() - start, printed.strip()


def rows() -> Iterator[Row]:
    """Measure both jobs, seven processes a side."""
    for job, ours, theirs, peer in (
        ("first result in a fresh process: iris, GMM, EM", OURS, THEIRS, "scikit-learn"),
        ("import ppl_gen", "import ppl_gen", "import numpy", "import numpy"),
    ):
        runs = [(fresh(ours), fresh(theirs)) for _ in range(8)][1:]  # the first fills file caches
        mine = statistics.median(a[0] for a, _ in runs)
        peers = statistics.median(b[0] for _, b in runs)
        said = " / ".join(part for part in (runs[0][0][1], runs[0][1][1]) if part)
        agreement = f"scores {said}" if said else "-"
        yield Row(job, peer, mine, peers, agreement, "no slower than 1/1.5x")
