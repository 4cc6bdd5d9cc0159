"""The command line's own answers: usage errors are one line, nothing is a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

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


@pytest.mark.parametrize("handler", ["default_int_handler", "SIG_IGN"])  # ignored: what a script starts with `&`
def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path: Path, handler: str) -> None:
    words = ["collect", "--out", str(tmp_path / "data"), "--episodes", "100000", "--workers", "0"]
    program = f"import signal; signal.signal(signal.SIGINT, signal.{handler}); from wm.experiments.cli import"
    command = subprocess.Popen([sys.executable, "-c", f"{program} main; main()", *words], stderr=subprocess.PIPE)
    while not (tmp_path / "data" / "commits.jsonl").exists():
        time.sleep(0.1)
        assert command.poll() is None
    command.send_signal(signal.SIGTERM)
    assert command.communicate()[1].decode().splitlines()[-1] == "wm: interrupted."
    assert command.returncode == cli.INTERRUPTED
