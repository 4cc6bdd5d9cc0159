"""What a training run is made of, kept in its folder, so that it is not continued as another one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wm.errors import BadInputError, WmError
from wm.experiments.atomic import write_json
from wm.specs import require_equal

CONFIG_FILE = "config.json"


def claim(out: Path, config: dict[str, Any]) -> None:
    """Write `<out>/config.json`, or check that the run that is there is the same one.

    Args:
        out: Run folder; made where it is missing.
        config: JSON values that decide the result: settings, seed, fingerprints of data and encoder.

    Raises:
        MismatchError: the folder holds another run; names the first setting that differs.
        BadInputError: the folder cannot be written, or its configuration cannot be read.
    """
    path, config = out / CONFIG_FILE, json.loads(json.dumps(config))
    if not path.exists():
        write_json(path, config)
        return
    try:
        found = dict(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{path}: expected the configuration of a run, it cannot be read ({error}).") from error
    for name in sorted(found.keys() | config.keys()):
        require_equal(f"run folder of another run: {name}", found.get(name), config.get(name), path)


@contextlib.contextmanager
def claimed(out: Path, config: dict[str, Any]) -> Iterator[None]:
    """As `claim`, for the length of a run; one that is refused before it has written anything leaves nothing behind."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    claim(out, config)
    try:
        yield
    except WmError:
        if [path.name for path in out.iterdir()] == [CONFIG_FILE]:
            (out / CONFIG_FILE).unlink()
            for folder in made:
                folder.rmdir()
        raise
