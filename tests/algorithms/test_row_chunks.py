"""Work over rows in chunks."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from ppl_gen.algorithms import row_chunks
from ppl_gen.algorithms.row_chunks import map_rows, n_threads, row_slices, workers


@given(st.integers(0, 500), st.integers(1, 60))
def test_slices_cover_each_row_once_in_order(n_rows, chunk_rows):
    slices = list(row_slices(n_rows, chunk_rows))
    covered = [row for rows in slices for row in range(rows.start, rows.stop)]
    assert covered == list(range(n_rows))
    assert all(0 < rows.stop - rows.start <= chunk_rows for rows in slices)


@given(st.integers(1, 300), st.integers(1, 50))
def test_any_chunk_gives_the_same_sum_in_order(n_rows, chunk_rows):
    x = np.arange(float(n_rows))
    assert np.concatenate(map_rows(lambda rows: x[rows], n_rows, chunk_rows)).tolist() == (
        x.tolist()
    )


def test_one_chunk_stays_in_the_callers_thread():
    assert map_rows(lambda rows: threading.get_ident(), 10) == [threading.get_ident()]


def test_chunks_run_on_a_pool_with_one_blas_thread_each(monkeypatch):
    monkeypatch.setattr(row_chunks, "n_threads", lambda: 2)

    def look(rows):
        blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        return threading.get_ident(), max(blas, default=1)

    before = [pool["num_threads"] for pool in threadpool_info()]
    found = map_rows(look, 10, chunk_rows=2)
    assert all(ident != threading.get_ident() for ident, _ in found)
    assert all(threads == 1 for _, threads in found)
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_pools_that_overlap_restore_the_limit_once_all_are_done(monkeypatch):
    monkeypatch.setattr(row_chunks, "n_threads", lambda: 2)
    first_in, second_in, first_out, end = (threading.Event() for _ in range(4))
    found = []

    def first():
        with workers(list(row_slices(10, 5))):
            first_in.set()
            second_in.wait(10)
        first_out.set()
        end.wait(10)  # alive, as a thread of a pool is

    def second():
        first_in.wait(10)
        with workers(list(row_slices(10, 5))) as mapped:
            second_in.set()
            first_out.wait(10)
            found.extend(mapped(lambda rows: blas_threads()))

    limits = []
    # A limit to restore, whatever the machine and the environment: set by no living thread.
    in_thread(lambda: limits.append(threadpool_limits(2, user_api="blas")))
    before = blas_threads()
    early = threading.Thread(target=first)
    early.start()
    in_thread(second)
    after = blas_threads()
    end.set()
    early.join()
    in_thread(limits[0].restore_original_limits)
    assert all(threads == 1 for seen in found for threads in seen)
    assert len(found) == 2
    assert set(before) <= {2}
    assert after == before


def test_an_error_in_a_chunk_comes_out(monkeypatch):
    monkeypatch.setattr(row_chunks, "n_threads", lambda: 2)

    def fail(rows):
        raise ValueError(f"rows {rows.start}")

    with pytest.raises(ValueError, match="rows 0"), workers(list(row_slices(10, 5))) as mapped:
        mapped(fail)


def test_there_is_a_thread(monkeypatch):
    assert n_threads() >= 1
    monkeypatch.delattr("os.sched_getaffinity", raising=False)  # as on macOS
    assert n_threads() >= 1
