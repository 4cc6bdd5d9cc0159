"""What the README shows has to run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from wm.experiments.cli import COMMANDS
from wm.experiments.goal import write_goal

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_python_example_moves_the_block_towards_the_goal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = write_goal("pusht", 12, Path("goal.png"))
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    state, goal = names["env"].get_state(), task.goal_state  # type: ignore[attr-defined]
    assert goal is not None
    before, after = (np.linalg.norm(goal[2:4] - each[2:4]) for each in (task.start_state, state))
    assert after < 20.0 < before


def test_the_commands_exist() -> None:
    shown = [shlex.split(line) for line in re.findall(r"^wm .*", README, re.MULTILINE)]
    assert len(shown) >= 5 and {words[1] for words in shown} <= set(COMMANDS)
