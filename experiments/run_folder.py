"""What a training run is made of, kept in its folder, so that it is not continued as another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wm.errors import BadInputError
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
