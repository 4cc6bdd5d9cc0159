from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from wm.workers import end_with_parent

pytestmark = pytest.mark.real_time

PARENT = """
import multiprocessing, os, time
from wm.workers import end_with_parent

if __name__ == "__main__":
    pool = multiprocessing.get_context("spawn").Pool(2, initializer=end_with_parent)
    print(*{pool.apply(os.getpid) for _ in range(20)}, flush=True)
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_with_a_parent_that_is_killed(tmp_path: object) -> None:
    script = os.path.join(str(tmp_path), "parent.py")
    with open(script, "w", encoding="utf-8") as file:
        file.write(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers and all(alive(pid) for pid in workers)
        os.kill(parent.pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def test_a_process_without_a_parent_of_its_own_goes_on() -> None:
    end_with_parent()
