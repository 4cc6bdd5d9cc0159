"""A folder of results that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from wm.errors import BadInputError


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A temporary folder whose files become `out`'s when the block ends without an error.

    The folder is made before any work starts, so that an `out` that cannot be written is known at once. Files that
    `out` holds under the same names are replaced, others stay. After an error nothing is left, not even new parents.

    Raises:
        BadInputError: `out` is a file, or cannot be written.
    """
    out = out.resolve()  # a link's target may lie on another disk, where a rename from here would fail
    if out.exists() and not out.is_dir():
        raise BadInputError(f"--out {out}: expected a folder, there is a file of that name.")
    created = [parent for parent in out.parents if not parent.exists()]  # nearest first
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Inside an existing folder, so that files are moved within one disk; beside it otherwise.
        temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=out if out.exists() else out.parent))
    except OSError as error:
        _remove_empty(created)
        raise BadInputError(f"--out {out}: cannot be written ({error.strerror or error}).") from error
    done = False
    try:
        yield temporary
        _move(temporary, out)
        done = True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not done:
            _remove_empty(created)


def _move(temporary: Path, out: Path) -> None:
    if not out.exists():
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)  # mkdtemp's is the owner's alone
        temporary.replace(out)
        return
    for file in sorted(temporary.iterdir()):
        if (out / file.name).is_dir():
            raise BadInputError(f"--out {out}: expected to write the file {file.name}, there is a folder of that name.")
    for file in sorted(temporary.iterdir()):
        file.replace(out / file.name)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
