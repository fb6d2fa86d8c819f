"""Means of losses over the rows of many batches."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ppl_gen.inference.training.parallel import Processes

__all__ = ["Means"]

#: Steps whose losses wait on the device before they are summed.
_PENDING = 256


class Means:
    """Running means of the parts of a loss; a device is waited for now and then only.

    Sums are taken in the order of the steps, so that one that was saved between two of them goes
    on to the same numbers.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._rows = 0.0 if state is None else state["rows"]
        self._totals: dict[str, float] = {} if state is None else dict(state["totals"])
        self._pending: list[tuple[int, dict[str, Tensor]]] = []

    def add(self, parts: Mapping[str, Tensor], rows: int) -> None:
        """Take the means over the rows of a batch."""
        self._pending.append((rows, {name: value.detach() for name, value in parts.items()}))
        if len(self._pending) == _PENDING:
            self._sum()

    def _sum(self) -> None:
        for name in dict.fromkeys(name for _, parts in self._pending for name in parts):
            found = [(rows, parts[name]) for rows, parts in self._pending if name in parts]
            total = self._totals.get(name, 0.0)
            values = torch.stack([value for _, value in found]).double().tolist()
            for (rows, _), value in zip(found, values, strict=True):
                total += rows * value
            self._totals[name] = total
        for rows, _ in self._pending:
            self._rows += rows
        self._pending = []

    def state(self, processes: Processes) -> dict[str, Any]:
        """Return the sums over all processes."""
        self._sum()
        names = sorted(self._totals)
        rows, *totals = processes.total([self._rows, *(self._totals[name] for name in names)])
        return {"rows": rows, "totals": dict(zip(names, totals, strict=True))}

    def read(self, processes: Processes) -> dict[str, float]:
        """Return the means over the rows of all processes; "loss" is the first."""
        state = self.state(processes)
        names = sorted(state["totals"], key=lambda name: (name != "loss", name))
        return {name: state["totals"][name] / state["rows"] for name in names}
