from __future__ import annotations

import gc
import signal
import threading

import pytest

from wm.planners.control.realtime import Interrupts, quiet_collector

pytestmark = pytest.mark.real_time


def test_collector_leaves_out_what_exists_only_for_the_time() -> None:
    before = gc.get_freeze_count()
    with pytest.raises(ValueError, match="x"), quiet_collector():
        assert gc.get_freeze_count() > before
        raise ValueError("x")
    assert gc.get_freeze_count() == 0 and gc.isenabled()


def test_first_interrupt_asks_and_a_later_one_gets_out_where_a_call_may_hang() -> None:
    asked: list[int] = []
    interrupts = Interrupts(lambda: asked.append(1))
    with interrupts.installed():
        with interrupts.escape():
            signal.raise_signal(signal.SIGINT)
        assert asked == [1]
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupts.escape():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert asked == [1] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupt_that_raised_leaves_the_way_out_alone() -> None:
    interrupts, ended = Interrupts(lambda: None), []
    with interrupts.installed(), pytest.raises(KeyboardInterrupt), interrupts.escape():
        signal.raise_signal(signal.SIGINT)
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            ended.append(True)
    assert ended


def test_another_thread_leaves_signals_alone() -> None:
    seen: list[object] = []

    def run() -> None:
        with Interrupts(lambda: None).installed():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
