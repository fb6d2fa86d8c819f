"""Ctrl-C is held back in the main thread, and nowhere else."""

import signal
import threading

import pytest

from ppl_gen.inference.training.interrupts import held_back


def test_a_second_one_raises_and_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)

    def twice():
        with held_back() as interrupts:
            signal.raise_signal(signal.SIGINT)
            assert interrupts.pressed
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_left_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with held_back() as interrupts:
            seen.append((signal.getsignal(signal.SIGINT) is before, interrupts.pressed))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, False)]


def test_where_it_is_ignored_it_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back() as interrupts:
            signal.raise_signal(signal.SIGINT)
            assert not interrupts.pressed
    finally:
        signal.signal(signal.SIGINT, before)
