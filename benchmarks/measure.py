"""Timing two sides of a job in turn, and the row that comes of it."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    job, peer : str
    ours, theirs : float
        Medians in seconds.
    agreement : str
        How far the two answers are apart.
    target : str
        What was to be reached.
    """

    job: str
    peer: str
    ours: float
    theirs: float
    agreement: str
    target: str

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.theirs / self.ours


def in_turn(
    ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int
) -> tuple[float, float, Any, Any]:
    """Run both sides in turn, and return the median of each and the last answers."""
    times: tuple[list[float], list[float]] = ([], [])
    answers: list[Any] = [None, None]
    for _ in range(repeats):
        for side, work in enumerate((ours, theirs)):
            start = time.perf_counter()
            answers[side] = work()
            times[side].append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1]), answers[0], answers[1]
