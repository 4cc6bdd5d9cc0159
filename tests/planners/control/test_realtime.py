from __future__ import annotations

import gc
import signal
import threading

import pytest

from wm.planners.control.realtime import interrupts, quiet_collector


def test_collector_leaves_out_what_exists_only_for_the_time() -> None:
    before = gc.get_freeze_count()
    with pytest.raises(ValueError, match="x"), quiet_collector():
        assert gc.get_freeze_count() > before
        raise ValueError("x")
    assert gc.get_freeze_count() == 0 and gc.isenabled()


def test_first_interrupt_asks_and_the_second_raises() -> None:
    asked: list[int] = []
    with pytest.raises(KeyboardInterrupt), interrupts(lambda: asked.append(1)):
        signal.raise_signal(signal.SIGINT)
        assert asked == [1]
        signal.raise_signal(signal.SIGINT)
    assert asked == [1] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_leaves_signals_alone() -> None:
    seen: list[object] = []

    def run() -> None:
        with interrupts(lambda: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
