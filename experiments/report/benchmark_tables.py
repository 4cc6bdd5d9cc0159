"""What the sections of the benchmarks' page are made of: a result, its machine, its command, a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]

STUDIES = "python -m wm.experiments.studies"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; the first column holds names, the others figures."""
    ruler = ["---", *["---:"] * (len(columns) - 1)]
    return [f"| {' | '.join(row)} |" for row in (columns, ruler, *rows)]


def on_machine(result: Result, more: str) -> list[str]:
    """What a result was measured on, and more of it."""
    about = result["machine"]
    threads = about["torch_threads"]
    threads = " and ".join(map(str, threads)) if isinstance(threads, list) else threads
    return [f"{about['processor']}, torch {about['torch']}, threads of torch: {threads}. {more}", ""]


def named(result: Result, usual: Sequence[str]) -> dict[str, str]:
    """The option that names a result's searches, where they are not the study's usual ones."""
    names = list(result["settings"])
    return {} if set(names) == set(usual) else {"settings": ",".join(names)}


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names) or "none"


def command(study: str, options: dict[str, Any], out: str | None = None) -> str:
    """What measures a study with these options; ``out`` is the file in the bench folder, if it has not its name."""
    words = [f"--{name} {value}" for name, value in options.items()]
    return " ".join([f"{STUDIES}.{study}", f"--out bench/{out or f'{study}.json'}", *words])
