"""The list of mutants: guards that are deleted one at a time, each with its promise and a test that notices."""

from __future__ import annotations

import hashlib
import re
import textwrap
import tomllib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "mutants.md"
PARTS = {
    "shield": "Shield: the decision about an action",
    "futures": "Shield: futures, rules and margins",
    "loop": "Loop",
    "timing": "Loop: plans, observations and time",
    "supervision": "Loop: states, stops and the supervisor process",
    "bridge": "Bridge: guard, server and client",
    "wire": "Bridge: what comes over the wire",
    "robots": "Robots",
}
"""Name of each list, ``<name>.toml`` beside this file, and its title."""


@dataclass(frozen=True)
class Mutant:
    """One change that must not go unnoticed.

    Attributes:
        part: Name of its list.
        index: Place in that list, from 0.
        promise: What the guard promises.
        file: Source file, from the root.
        snippet: Text that occurs in it exactly once.
        replacement: What takes its place.
        tests: Test files, from the root.
        select: Which of their tests, as pytest's ``-k`` understands it.
    """

    part: str
    index: int
    promise: str
    file: str
    snippet: str
    replacement: str
    tests: tuple[str, ...]
    select: str

    @property
    def name(self) -> str:
        """As the command line takes it, e.g. ``loop:3``."""
        return f"{self.part}:{self.index}"

    @property
    def key(self) -> str:
        """Tells whether it is the same change, looked for by the same tests, wherever it stands in the list."""
        return hashlib.sha256(repr(astuple(self)[3:]).encode()).hexdigest()[:16]

    def occurrences(self, root: Path) -> int:
        """How often the snippet occurs in its file, 0 also when there is no such file."""
        path = root / self.file
        return path.read_text(encoding="utf-8").count(self.snippet) if path.is_file() else 0

    def mutated(self, source: str) -> str:
        """The source with the guard gone."""
        return source.replace(self.snippet, self.replacement, 1)


def load(parts: Sequence[str] = tuple(PARTS)) -> list[Mutant]:
    """All mutants of these parts, in the order of the lists."""
    mutants = []
    for part in parts:
        entries = tomllib.loads((Path(__file__).parent / f"{part}.toml").read_text(encoding="utf-8"))["mutant"]
        for index, entry in enumerate(entries):
            mutants.append(Mutant(part, index, **{**entry, "tests": tuple(entry["tests"])}))
    return mutants


def page() -> str:
    """The text of ``docs/mutants.md``."""
    mutants = load()
    lines = [
        "# Mutants",
        "",
        "Written from the lists in `tests/mutants/` by `.venv/bin/python -m tests.mutants.run --page`.",
        "",
        f"`make mutants` takes away one guard after another, {len(mutants)} in all, and a test has to fail each time:",
        "in a copy of the sources, after a run that shows that these tests pass when nothing is taken away. What was",
        "killed is remembered in `build/mutants.json` until a source or a test changes. One list or one mutant alone:",
        "`.venv/bin/python -m tests.mutants.run loop` or `… loop:3`; several at a time: `--jobs 4`.",
    ]
    for part, title in PARTS.items():
        lines += ["", f"## {title} (`{part}`)", "", "| | promise | what is changed | by | test that fails |"]
        lines += ["|---|---|---|---|---|"]
        lines += [_row(mutant) for mutant in mutants if mutant.part == part]
    return "\n".join(lines) + "\n"


def _row(mutant: Mutant) -> str:
    short = [Path(name).name.removeprefix("test_").removesuffix(".py") for name in mutant.tests]
    tests = f"{', '.join(short)}: {mutant.select.replace('test_', '').replace('_', ' ')}"
    cells = [str(mutant.index), mutant.promise, f"{Path(mutant.file).name}: {_code(mutant.snippet)}"]
    return "| " + " | ".join([*cells, _code(mutant.replacement), tests]) + " |"


def _code(text: str, width: int = 72) -> str:
    """Code on one line of a table."""
    line = re.sub(r"\s+", " ", text).strip()
    line = textwrap.shorten(line, width, placeholder=" …") if " " in line[:width] else line[:width]
    return f"`{line}`".replace("|", "\\|") if line else "nothing"
