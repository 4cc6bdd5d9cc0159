"""What would disturb a fixed rate: Ctrl-C in the midst of a call, and the garbage collector."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def interrupts(request: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C calls ``request``, so that the call under way ends in order; a second one raises as usual.

    Only the main thread can do so; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def handler(_: int, __: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        request()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """What exists now is left out of garbage collection, whose full passes over a large program take tens of ms."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
