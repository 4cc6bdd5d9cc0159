"""Copies a store again and again, each time dying by SIGKILL one system call later, until a copy gets through.

Usage: crash_writer.py REFERENCE OUT. The copies are OUT/0, OUT/1, …; calls count from the third episode on. A file that
is about to be flushed loses its second half first, as after a power cut.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wm.datasets.reader import EpisodeStore
from wm.datasets.schema import Episode
from wm.datasets.writer import EpisodeWriter

CALLS = ("fsync", "replace", "pwrite", "ftruncate")


def episode(store: EpisodeStore, e: int) -> Episode:
    return Episode(store.frames(e), store.proprio(e), store.state(e), store.actions(e), int(store.seeds()[e]))


def die_at(fatal: int) -> None:
    """From now on, the fatal-th call of `CALLS` kills this process in the middle of it."""
    real = {name: getattr(os, name) for name in CALLS}
    count = 0

    def half(name: str, args: tuple[Any, ...]) -> None:
        status = os.fstat(args[0]) if name == "fsync" else None
        if name == "pwrite":
            real["pwrite"](args[0], args[1][: len(args[1]) // 2], args[2])
        elif status is not None and stat.S_ISREG(status.st_mode) and ".jsonl" not in _name(args[0]):
            real["ftruncate"](args[0], status.st_size // 2)

    def patched(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal count
            if count == fatal:
                half(name, args)
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return real[name](*args)

        return call

    for name in CALLS:
        setattr(os, name, patched(name))


def _name(handle: int) -> str:
    return os.readlink(f"/proc/self/fd/{handle}")


def main(reference: Path, out: Path) -> None:
    store = EpisodeStore(reference)
    episodes = [episode(store, e) for e in range(3)]
    for fatal in range(1000):
        child = os.fork()
        if child == 0:
            with EpisodeWriter(out / str(fatal), store.spec) as writer:
                writer.append(episodes[0])
                writer.append(episodes[1])
                die_at(fatal)
                writer.append(episodes[2])
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
