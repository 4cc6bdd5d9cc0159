"""What tests run in processes of their own. Standard library only, so that these start quickly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path


@dataclass(frozen=True)
class Writes:
    """Factory of a stopper that appends its process, and the monotonic time of each call [ns], to a file.

    It fails while a file named ``<path>.broken`` exists.
    """

    path: Path

    def __call__(self) -> Callable[[], None]:
        return self._stop

    def _stop(self) -> None:
        if self.path.with_suffix(".broken").exists():
            raise OSError("the robot does not answer")
        with self.path.open("a") as file:
            file.write(f"{os.getpid()} {time.monotonic_ns()}\n")

    def calls(self) -> list[tuple[int, int]]:
        """Process and time of each call so far."""
        if not self.path.exists():
            return []
        return [(int(a), int(b)) for a, b in (line.split() for line in self.path.read_text().splitlines())]


def broken() -> Callable[[], None]:
    raise OSError("no such robot")


def dies(*_: object) -> None:
    """Body of a process that ends without a word."""
    os._exit(3)


def deaf(ready: Connection) -> None:
    """Body of a process that does not end when it is asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready.send("")
    time.sleep(60)


def slow() -> Callable[[], None]:
    time.sleep(60)
    raise AssertionError
