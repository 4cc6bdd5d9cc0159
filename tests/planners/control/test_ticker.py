from __future__ import annotations

import numpy as np
import pytest

from tests.planners.control.fakes import FakeClock
from wm.planners.control.ticker import CHUNK_S, Ticker


def never() -> bool:
    return False


def test_deadlines_do_not_drift(rng: np.random.Generator) -> None:
    clock = FakeClock()
    ticker = Ticker(0.1, clock, lambda s: clock.sleep(s + rng.uniform(0, 0.0004)))
    k = 0
    for _ in range(1000):
        ticker.wait(k, never)
        assert 0 <= clock() - (1000.0 + 0.1 * k) < 0.002
        clock.sleep(rng.uniform(0, 0.09))
        k = ticker.next(k)
    assert k == 1000


@pytest.mark.parametrize(("busy", "following"), [(0.05, 6), (0.0999, 6), (0.1, 6), (0.1001, 7), (0.25, 8), (5.0, 55)])
def test_overrun_goes_on_at_the_next_grid_point(busy: float, following: int) -> None:
    clock = FakeClock()
    ticker = Ticker(0.1, clock, clock.sleep)
    ticker.wait(5, never)
    clock.now = ticker.due(5) + busy
    assert ticker.next(5) == following


def test_waiting_looks_around_often_and_can_be_ended() -> None:
    clock, looks = FakeClock(), []
    ticker = Ticker(1.0, clock, clock.sleep)
    assert ticker.wait(1, lambda: bool(looks.append(clock()))) is False
    assert np.diff(looks).max() <= CHUNK_S + 1e-9
    assert ticker.wait(2, lambda: clock() > 1001.3) is True
    assert clock() < 1001.3 + 2 * CHUNK_S


def test_waiting_looks_around_even_when_it_is_late() -> None:
    clock = FakeClock()
    ticker = Ticker(0.1, clock, clock.sleep)
    clock.now += 1
    assert ticker.wait(3, lambda: True) is True
