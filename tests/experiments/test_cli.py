"""The command line's own answers: usage errors are one line, nothing is a traceback."""

from __future__ import annotations

import sys

import pytest

from wm.experiments import cli


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["plam"], "plam"),
        (["plan", "--gaol", "goal.png"], "--gaol"),
        (["plan"], "--goal"),
        (["plan", "--goal"], "--goal"),
        (["eval", "--episodes", "many"], "--episodes"),
    ],
)
def test_usage_error_is_one_line_that_names_what_was_wrong(
    words: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wm", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert len(lines) == 1
    assert lines[0].startswith("wm: error: ")
    assert named in lines[0]


def test_without_a_command_the_help_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wm"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code in (0, None)
    shown = capsys.readouterr().out
    assert all(command in shown for command in cli.COMMANDS)
