"""Take away one guard after another; every time a test has to fail.

    python -m tests.mutants.run [PART | PART:INDEX ...] [--jobs N] [--again] [--page]

Exits with 1 when a mutant survives, does not apply any more or cannot be tested, with 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.mutants import copies
from tests.mutants.catalogue import PAGE, PARTS, ROOT, Mutant, load, page

RESULTS = ROOT / "build" / "mutants.json"
TEST_TIMEOUT_S = 60
"""A single test that takes longer has failed: what was taken away kept it from hanging."""

RUN_TIMEOUT_S = 300
"""The same of a test run whose own time limit no longer works."""

_PASSED, _FAILED, _INTERRUPTED = 0, 1, 2  # exit codes of pytest


@dataclass(frozen=True)
class Result:
    """What became of a mutant: "killed", "SURVIVED", "does not apply" or "broken" (no test could be run)."""

    mutant: Mutant
    verdict: str
    detail: str


class Runner:
    """Tests mutants in copies of the tree, as many at a time as there are copies.

    Args:
        folder: Where the copies are made.
        jobs: Number of copies.
    """

    def __init__(self, folder: Path, jobs: int) -> None:
        self._idle: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._running: dict[Path, subprocess.Popen[str]] = {}
        self._lock, self._stopped = threading.Lock(), False
        for job in range(jobs):
            self._idle.put(copies.make(folder / f"copy-{job}"))
        copies.check(folder / "copy-0")

    def unchanged(self, mutants: Sequence[Mutant]) -> str | None:
        """Run the tests of these mutants with nothing taken away; what failed, or None."""
        files = sorted({file for mutant in mutants for file in mutant.tests})
        code, output = self._pytest(files, " or ".join(f"({s})" for s in sorted({m.select for m in mutants})), None)
        return None if code == _PASSED else _last_words(output)

    def test(self, mutant: Mutant) -> Result:
        """Take its guard away and run its tests."""
        if (count := mutant.occurrences(ROOT)) != 1:
            return Result(mutant, "does not apply", f"the snippet occurs {count} times in {mutant.file}")
        code, output = self._pytest(mutant.tests, mutant.select, mutant)
        if code == _FAILED or code is None or (code == _INTERRUPTED and "KeyboardInterrupt" in output):
            return Result(mutant, "killed", "out of time" if code is None else _last_words(output))
        return Result(mutant, "SURVIVED" if code == _PASSED else "broken", _last_words(output))

    def stop(self) -> None:
        """End all test runs; none begins afterwards."""
        with self._lock:
            self._stopped = True
            for copy, process in self._running.items():
                copies.end(process, copy)

    def _pytest(self, files: Iterable[str], select: str, mutant: Mutant | None) -> tuple[int | None, str]:
        """Exit code, None when it ran out of time, and the output."""
        options = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", f"--timeout={TEST_TIMEOUT_S}"]
        command = [sys.executable, "-m", "pytest", *options, "-k", select, *files]
        copy = self._idle.get()
        path = None if mutant is None else copy / mutant.file
        source = "" if path is None else path.read_text(encoding="utf-8")
        try:
            if path is not None and mutant is not None:
                path.write_text(mutant.mutated(source), encoding="utf-8")
            process = self._start(command, copy)
            try:
                output, _ = process.communicate(timeout=RUN_TIMEOUT_S if mutant is not None else None)
                return process.returncode, output
            except subprocess.TimeoutExpired:
                return None, ""
            finally:
                copies.end(process, copy)
        finally:
            with self._lock:
                self._running.pop(copy, None)
            if path is not None:
                path.write_text(source, encoding="utf-8")
            self._idle.put(copy)

    def _start(self, command: list[str], copy: Path) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            self._running[copy] = subprocess.Popen(
                command,
                cwd=copy,
                env=copies.environment(copy),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            return self._running[copy]


def _last_words(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return (failed or lines or [""])[0 if failed else -1].split(" - ")[0].split("/")[-1]


class Killed:
    """Which mutants were killed in this very tree, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._tree, self._tests = path, copies.tree_hash(), dict[str, str]()
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["tree"] == self._tree:
                self._tests = known["killed"]

    def __contains__(self, mutant: Mutant) -> bool:
        return mutant.key in self._tests

    def add(self, result: Result) -> None:
        """Remember at once: a later run goes on from here."""
        self._tests[result.mutant.key] = result.detail
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps({"tree": self._tree, "killed": self._tests}, indent=1), encoding="utf-8")
        partial.replace(self._path)


def chosen(names: Sequence[str]) -> list[Mutant]:
    """The mutants of these parts and of names as ``loop:3``; all when there are none.

    Raises:
        SystemExit: there is no such part or mutant.
    """
    if unknown := [name for name in names if name.split(":")[0] not in PARTS]:
        raise SystemExit(f"unknown part '{unknown[0]}', choose from {', '.join(PARTS)}")
    found = [m for m in load() if not names or m.part in names or m.name in names]
    if missing := set(names) - {m.part for m in found} - {m.name for m in found}:
        raise SystemExit(f"there is no mutant {', '.join(sorted(missing))}")
    return found


def run_all(mutants: Sequence[Mutant], jobs: int, killed: Killed, console: Console) -> list[Result]:
    """Results of all these mutants, each printed as it comes."""
    results = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="wm-mutants-") as folder, Progress(*columns, console=console) as progress:
        task = progress.add_task("tests without a mutant", total=len(mutants))
        runner, pool = Runner(Path(folder).resolve(), jobs), ThreadPoolExecutor(jobs)
        try:
            first = pool.submit(runner.unchanged, mutants)
            if (failed := first.result()) is not None:
                raise SystemExit(f"a test fails although nothing was taken away: {failed}")
            progress.update(task, description="mutants")
            for future in as_completed([pool.submit(runner.test, mutant) for mutant in mutants]):
                results.append(result := future.result())
                if result.verdict == "killed":
                    killed.add(result)
                _print(result, console)
                progress.advance(task)
        finally:
            runner.stop()
            pool.shutdown(cancel_futures=True)
    return results


def _print(result: Result, console: Console) -> None:
    style = "green" if result.verdict == "killed" else "bold red"
    mutant = result.mutant
    words = f"{mutant.name:<15} [{style}]{result.verdict}[/] {escape(mutant.promise)} [dim]{escape(result.detail)}[/]"
    console.print(words, highlight=False, soft_wrap=True)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="PART[:INDEX]", help=f"of {', '.join(PARTS)}; all when left out")
    parser.add_argument("--jobs", type=int, default=1, help="mutants that are tested at a time (default 1)")
    parser.add_argument("--again", action="store_true", help="also those that were killed in this very tree before")
    parser.add_argument("--page", action="store_true", help=f"only write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    console, killed, wanted = Console(), Killed(RESULTS), chosen(options.names)
    left = [mutant for mutant in wanted if options.again or mutant not in killed]
    try:
        results = run_all(left, max(1, options.jobs), killed, console) if left else []
    except KeyboardInterrupt:
        console.print("interrupted; what was killed so far is remembered")
        return 130
    alive = [result for result in results if result.verdict != "killed"]
    console.print(f"{len(wanted) - len(alive)} of {len(wanted)} killed ({len(wanted) - len(left)} of them before)")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
