"""Ctrl-C between steps, never within one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupts", "held_back"]


class Interrupts:
    """Whether Ctrl-C was pressed.

    Attributes
    ----------
    pressed : bool
    """

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the first; a second one raises."""
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True


@contextmanager
def held_back() -> Iterator[Interrupts]:
    """Note Ctrl-C in place of raising it, so that a step is done whole or not at all.

    Only the main thread gets signals; elsewhere nothing changes, nor where Ctrl-C is ignored.

    Examples
    --------
    >>> with held_back() as interrupts:
    ...     signal.raise_signal(signal.SIGINT)
    ...     interrupts.pressed
    True
    """
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    here = threading.current_thread() is threading.main_thread()
    # None is a handler that is not Python's, which could not be put back.
    if not here or before in (None, signal.SIG_IGN):
        yield interrupts
        return
    signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
