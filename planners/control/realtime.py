"""What would disturb a fixed rate: Ctrl-C in the midst of a call, and the garbage collector."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupts:
    """What Ctrl-C does while this is `installed`: the first asks for a stop, a later one gets out of a call that hangs.

    Only where a call may hang (`escape`) it raises KeyboardInterrupt, and once, so that whatever brings the robot to
    rest on the way out is not interrupted itself.

    Args:
        request: Called by the first Ctrl-C; the call under way ends in order.
    """

    def __init__(self, request: Callable[[], None]) -> None:
        self._request = request
        self._pressed = self._raises = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle Ctrl-C inside. Only the main thread can do so; in another one nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._pressed = False
        before = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)

    @contextlib.contextmanager
    def escape(self) -> Iterator[None]:
        """Inside, every Ctrl-C but the first raises KeyboardInterrupt; the caller has to catch it around this."""
        before, self._raises = self._raises, True
        try:
            yield
        finally:
            self._raises = before

    def _handle(self, _: int, __: FrameType | None) -> None:
        if not self._pressed:
            self._pressed = True
            self._request()
        elif self._raises:
            self._raises = False
            raise KeyboardInterrupt


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """What exists now is left out of garbage collection, whose full passes over a large program take tens of ms."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
