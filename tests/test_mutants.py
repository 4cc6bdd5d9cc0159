"""The list of mutants cannot rot: each still applies, its tests exist, and the page in docs/ shows it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.mutants.catalogue import PAGE, ROOT, load, page

MUTANTS = load()
CONTRACTS = sorted((ROOT / "tests" / "contracts").glob("*.py"))


def names_in(path: Path) -> set[str]:
    """Names of all tests and classes in a file."""
    return set(re.findall(r"^ *(?:def|class) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_mutant_applies_exactly_once() -> None:
    counts = {mutant.name: (mutant.file, mutant.occurrences(ROOT)) for mutant in MUTANTS}
    assert {name: found for name, found in counts.items() if found[1] != 1} == {}
    assert [mutant.name for mutant in MUTANTS if mutant.snippet == mutant.replacement] == []


def test_tests_of_every_mutant_exist() -> None:
    known = {file: names_in(ROOT / file) for mutant in MUTANTS for file in mutant.tests}
    shared = set[str]().union(*(names_in(path) for path in CONTRACTS))
    for mutant in MUTANTS:
        names = shared.union(*(known[file] for file in mutant.tests))
        words = [word for word in mutant.select.split() if word not in ("or", "and")]
        assert words, mutant.name
        missing = [word for word in words if not any(word in name for name in names)]
        assert not missing, f"{mutant.name} is looked for by {missing}, which {', '.join(mutant.tests)} lacks"


def test_no_mutant_is_listed_twice() -> None:
    assert len({mutant.key for mutant in MUTANTS}) == len(MUTANTS)


def test_page_in_docs_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()
