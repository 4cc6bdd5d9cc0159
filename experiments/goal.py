"""`wm goal`: write a reachable goal picture."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from wm.errors import BadInputError
from wm.experiments.atomic import write_files
from wm.experiments.episode import Task
from wm.experiments.goals import sample_tasks
from wm.experiments.options import GoalKind, GoalOffset
from wm.experiments.worlds import find_world

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def write_goal(
    env: str, seed: int, out: Path, offset: int | None = None, image_size: int | None = None, kind: str | None = None
) -> Task:
    """Write the first held-out task of a seed: its goal picture, and beside it its states as JSON of the same name.

    Offset and kind are those of `World.sample_tasks`.

    Both files are written or neither. The JSON is for the start and for evaluation; a planner sees the picture alone.

    Raises:
        BadInputError: the suffix is not a picture's, a number is out of its range, or a file cannot be written.
        UnknownNameError: no such environment or kind of goal.
    """
    if out.suffix.lower() not in _FORMATS:
        raise BadInputError(f"--out {out}: expected a picture's name ending in .png or .jpg, came '{out.suffix}'.")
    task = sample_tasks(env, seed, 1, offset, image_size, kind)[0]
    assert task.goal_state is not None
    encoded = io.BytesIO()
    Image.fromarray(task.goal_image).save(encoded, _FORMATS[out.suffix.lower()], quality=95)
    states = {
        "env": find_world(env).name,
        "start_state": task.start_state.tolist(),
        "goal_state": task.goal_state.tolist(),
    }
    write_files({out: encoded.getvalue(), out.with_suffix(".json"): (json.dumps(states, indent=2) + "\n").encode()})
    return task


def main(
    out: Annotated[Path, typer.Option(help="Picture to write (.png or .jpg); its .json is written beside it.")],
    env: Annotated[str, typer.Option(help="Environment.")] = "pusht",
    seed: Annotated[int, typer.Option(help="Which goal.")] = 0,
    goals: GoalKind = None,
    offset: GoalOffset = None,
    image_size: Annotated[int, typer.Option(help="Side of the picture, pixels.")] = 96,
) -> None:
    """Write a goal picture that can be reached, and the states it starts from and shows."""
    write_goal(env, seed, out, offset, image_size, goals)
    world = find_world(env)
    steps = world.goal_offset if offset is None else offset
    what = f"'{goals or world.goal_kinds[0]}'" if steps is None else f"{steps} control steps from its start"
    print(f"{out}, {out.with_suffix('.json')}: a goal {what} (seed {seed})")
