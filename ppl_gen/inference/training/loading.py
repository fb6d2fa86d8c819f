"""Minibatches: arrays by row to tensors, in an order that follows from the seed and the epoch."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from ppl_gen.inference.training.objective import Batch
from ppl_gen.inference.training.parallel import Processes

__all__ = ["Loading", "as_rows", "split"]

Rows = NDArray[np.int64]


def as_rows(data: Mapping[str, Any], who: str) -> dict[str, NDArray[Any]]:
    """Check arrays that have one common first axis; memory maps stay on the disk.

    Raises
    ------
    ValueError
        If there is no "x", a length differs, there are no rows, or weights are negative.
    TypeError
        If an array does not hold numbers.
    """
    if "x" not in data:
        raise ValueError(f"{who}: the data are {', '.join(data) or 'empty'}; expected an array 'x'")
    arrays = {name: np.asarray(array) for name, array in data.items()}
    n = len(arrays["x"]) if arrays["x"].ndim else 0
    if n == 0:
        raise ValueError(f"{who}: x has no rows; expected one at least")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{who}: {name} is of {array.dtype}; expected numbers")
        if array.ndim == 0 or len(array) != n:
            raise ValueError(
                f"{who}: {name} has the shape {array.shape}, but x has {n} rows; expected one "
                "entry for each"
            )
    weight = arrays.get("weight")
    if weight is not None and not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise ValueError(f"{who}: weight has negative or infinite entries; expected 0 or more")
    return arrays


def split(n: int, n_validation: int, seed: int, who: str) -> tuple[Rows, Rows]:
    """Return the rows to train on, and so many to validate on."""
    if n_validation >= n:
        raise ValueError(
            f"{who}: {n_validation} of {n} rows are for validation, which leaves none to train "
            "on; expected more rows, a smaller validation, or None"
        )
    if not n_validation:
        return np.arange(n), np.arange(0)
    order = np.random.default_rng([seed, 0]).permutation(n)
    return np.sort(order[n_validation:]), np.sort(order[:n_validation])


class Loading:
    """Batches of some rows of the data, as tensors on a device.

    Parameters
    ----------
    arrays : dict of arrays (n, ...)
    rows : (m,) array of int
        Those to take.
    batch_size : int
        Rows of a batch, at most; batches are of nearly equal size.
    processes : Processes
        Their device is that of the tensors, and each takes its share of every batch.
    dtype : torch.dtype
        Of floats; whole numbers become int64.
    who : str
        How messages begin.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        rows: Rows,
        batch_size: int,
        processes: Processes,
        dtype: torch.dtype,
        who: str,
    ) -> None:
        arrays = dict(arrays)
        if "weight" in arrays and len(rows):
            mean = arrays["weight"][rows].mean()
            if not mean > 0.0:
                raise ValueError(f"{who}: all weights are 0; expected some above")
            arrays["weight"] = arrays["weight"] / mean
        self.rows, self.dtype, self.processes = rows, dtype, processes
        self.n_batches = -(-len(rows) // batch_size)
        if 0 < len(rows) < self.n_batches * processes.count:
            raise ValueError(
                f"{who}: batches of {len(rows) // self.n_batches} rows cannot be shared by "
                f"{processes.count} processes; expected a row for each; raise batch_size"
            )
        self._sampler = _Batches()
        self._loader: DataLoader[Batch] = DataLoader(
            _Arrays(arrays, rows),
            sampler=self._sampler,
            batch_size=None,
            collate_fn=_as_it_is,
            pin_memory=processes.device.type == "cuda",
            # An epoch draws a number for its workers, which must not be from the noise's stream.
            generator=torch.Generator(),
        )

    def size(self, batch: int) -> int:
        """Return the rows of a batch, those of all processes together."""
        whole, left = divmod(len(self.rows), self.n_batches)
        return whole + (batch < left)

    def places(self, order: Rows | None) -> list[Rows]:
        """Return this process's places in `rows` of each batch, in an order of them."""
        places = np.arange(len(self.rows)) if order is None else order
        batches = np.array_split(places, self.n_batches)
        count, rank = self.processes.count, self.processes.rank
        if count > 1:
            batches = [np.array_split(b, count)[rank] for b in batches]
        return batches

    def batches(self, order: Rows | None = None, first: int = 0) -> Iterator[Batch]:
        """Yield the batches from number `first` on, in an order of `rows`."""
        self._sampler.batches = self.places(order)[first:]
        for batch in self._loader:
            yield {name: self._moved(tensor) for name, tensor in batch.items()}

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = self.dtype if tensor.is_floating_point() else torch.int64
        return tensor.to(self.processes.device, dtype, non_blocking=True)


class _Arrays(Dataset[Batch]):
    """Rows of arrays, many at once."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], rows: Rows) -> None:
        self.arrays = arrays
        self.rows = rows

    def __getitem__(self, places: Rows) -> Batch:
        rows = self.rows[places]
        return {name: torch.from_numpy(array[rows]) for name, array in self.arrays.items()}


class _Batches(Sampler[Rows]):
    """The batches of an epoch; a loader asks for them anew in each."""

    def __init__(self) -> None:
        self.batches: list[Rows] = []

    def __iter__(self) -> Iterator[Rows]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _as_it_is(batch: Any) -> Any:
    return batch
