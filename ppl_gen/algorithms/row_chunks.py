"""Work over rows in chunks that fit the cache, on the threads there are.

NumPy releases the interpreter lock inside its kernels, so a pool of threads, each with a
single-threaded BLAS, uses every core and needs no compiling: on a 200,000 x 20 table it is
faster than one big product, because no intermediate leaves the cache.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")

#: Rows to a chunk: a few hundred kilobytes of doubles for tables of ordinary width.
CHUNK_ROWS = 2048


def chunk_rows_of(n_values: int) -> int:
    """Rows to a chunk, where each has so many intermediate values: narrow rows go further.

    Examples
    --------
    >>> chunk_rows_of(5), chunk_rows_of(100)
    (16384, 2048)
    """
    return max(CHUNK_ROWS, 40 * CHUNK_ROWS // n_values)


def n_threads() -> int:
    """Return the number of cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def row_slices(n_rows: int, chunk_rows: int = CHUNK_ROWS) -> Iterator[slice]:
    """Yield slices that cover ``range(n_rows)``, of at most ``chunk_rows`` rows each.

    Examples
    --------
    >>> list(row_slices(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, n_rows, chunk_rows):
        yield slice(start, min(start + chunk_rows, n_rows))


class _OneBlasThread:
    """A context with a single-threaded BLAS, which several threads may be in at once.

    The limit is the process's: whoever enters first sets it, and whoever leaves last restores
    what it was. Each restoring what it found itself would keep the limit of another for good.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.limits: Any = None

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self._in_passing(self._limit)
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self._in_passing(self.limits.restore_original_limits)

    def _limit(self) -> None:
        self.limits = threadpool_limits(1)

    def _in_passing(self, work: Callable[[], None]) -> None:
        # threadpoolctl lets one living thread alone change the limits of OpenBLAS, silently: had
        # the first to enter set them, no other could restore them.
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()


#: For work on small matrices, too: BLAS wakes its threads for them, and waits for them where other
#: processes have the cores.
one_blas_thread = _OneBlasThread()


class _Pool:
    """Threads for a piece of work and all that it divides into, started when first asked for."""

    def __init__(self) -> None:
        self.opened = ExitStack()
        self.pool: ThreadPoolExecutor | None = None

    def get(self) -> ThreadPoolExecutor:
        """Return the threads, which have a BLAS of one thread each."""
        if self.pool is None:
            self.opened.enter_context(one_blas_thread)
            threads = ThreadPoolExecutor(n_threads(), initializer=_become_worker)
            self.pool = self.opened.enter_context(threads)
        return self.pool


_here = threading.local()


def _become_worker() -> None:
    _here.is_worker = True


@contextmanager
def workers(slices: list[slice]) -> Iterator["MapRows[Any]"]:
    """Open a pool for work over slices, and yield the function that maps over them.

    One slice is worked on in the caller's thread, without a pool, and may be divided further
    there, by this function again, over the same pool. A worker divides no further: the cores are
    busy already.
    """
    if len(slices) > 1 and n_threads() > 1 and not getattr(_here, "is_worker", False):

        def mapped(function: Callable[[slice], Any]) -> list[Any]:
            return list(pool.get().map(function, slices))

    else:

        def mapped(function: Callable[[slice], Any]) -> list[Any]:
            return [function(rows) for rows in slices]

    outer = getattr(_here, "pool", None)
    if outer is not None:
        pool = outer
        yield mapped
        return
    pool = _here.pool = _Pool()
    try:
        with pool.opened:
            yield mapped
    finally:
        _here.pool = None


def map_rows(function: Callable[[slice], T], n_rows: int, chunk_rows: int = CHUNK_ROWS) -> list[T]:
    """Apply ``function`` to every slice of rows; results come in the order of the rows.

    Examples
    --------
    >>> map_rows(lambda rows: rows.stop - rows.start, 5000, chunk_rows=2048)
    [2048, 2048, 904]
    """
    with workers(list(row_slices(n_rows, chunk_rows))) as mapped:
        return mapped(function)


#: What `workers` yields: maps a function over the slices, in the order of the rows.
MapRows = Callable[[Callable[[slice], T]], list[T]]
