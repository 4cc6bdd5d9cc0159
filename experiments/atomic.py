"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm.errors import BadInputError


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together: every one under a temporary name first, then all renamed.

    Parent folders are created.

    Raises:
        BadInputError: a file cannot be written; what was there before is kept.
    """
    temporary = {path: path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, data in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(21, "is a folder, a file was expected", str(path))
            with temporary[path].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            temporary[path].replace(path)
    except OSError as error:
        for name in temporary.values():
            if name.parent.is_dir():
                name.unlink(missing_ok=True)
        raise BadInputError(f"cannot write {', '.join(map(str, contents))}: {error.strerror or error}.") from error


def require_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work that fills it; its folder is made, nothing else.

    Raises:
        BadInputError: as `write_files`.
    """
    trial = path.with_name(f"{path.name}.{os.getpid()}.trial")
    if path.is_dir():
        raise BadInputError(f"cannot write {path}: is a folder, a file was expected.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise BadInputError(f"cannot write {path}: {error.strerror or error}.") from error


def write_json(path: Path, data: Any) -> None:
    """Write JSON values, indented; NaN and infinity are refused.

    Raises:
        BadInputError: the file cannot be written.
    """
    write_files({path: (json.dumps(data, indent=2, allow_nan=False) + "\n").encode()})
