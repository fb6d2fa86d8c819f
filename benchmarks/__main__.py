"""Measure every job, print the table, and write it to docs/benchmarks.md.

Run ``python -m benchmarks`` for all, or name some: ``python -m benchmarks startup``.
"""

import datetime
import importlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from benchmarks.measure import Row

JOBS = (
    "startup",
    "gaussian_mixture",
    "naive_bayes",
    "hidden_markov",
    "bayesian_network",
    "factor_analysis",
    "vae",
    "normalizing_flow",
    "autoregressive",
    "transformer",
)
PACKAGES = (
    "ppl_gen",
    "numpy",
    "scipy",
    "scikit-learn",
    "hmmlearn",
    "pgmpy",
    "jax",
    "numpyro",
    "torch",
    "pyro-ppl",
    "zuko",
)
HEAD = "| job | against | ours, s | theirs, s | ratio | to reach | same answer |"


def cpu_model() -> str:
    """Name of the processor, as Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def line(row: Row) -> str:
    """One row of the table in Markdown."""
    times = f"{row.ours:.3f} | {row.theirs:.3f} | {row.ratio:.2f}x"
    return f"| {row.job} | {row.peer} | {times} | {row.target} | {row.agreement} |"


def main() -> None:
    """Measure, print, write."""
    chosen = sys.argv[1:] or list(JOBS)
    lines = [HEAD, "|---|---|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    for name in chosen:
        for row in importlib.import_module(f"benchmarks.{name}").rows():
            lines.append(line(row))
            print(lines[-1], flush=True)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    today = datetime.date.today().isoformat()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    head = (
        "# Benchmarks\n\n"
        "Both sides run in turn in one process, on the same data, from the same start, to the "
        "same answer; times are medians. A ratio above 1 means that ours is faster.\n\n"
        f"{today}, {cpu_model()}, {cores} cores, Python {platform.python_version()}. "
        f"{versions}.\n\n"
    )
    if len(chosen) == len(JOBS):
        page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
        page.write_text(head + "\n".join(lines) + "\n\nMeasure again with `make bench`.\n")


if __name__ == "__main__":
    main()
