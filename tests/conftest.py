"""Shared set-up: array shapes are checked at every call of `wm` during the test run, on one thread, reproducibly."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # worker processes inherit it

import hypothesis
import jaxtyping
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def _check_shapes() -> None:
    """Let beartype check every annotation of `wm` and its sub-packages; has to run before the first `import wm`."""
    early = sorted(name for name in sys.modules if name == "wm" or name.startswith("wm."))
    if early:
        raise RuntimeError(f"imported before its shapes could be checked: {', '.join(early)}")
    jaxtyping.install_import_hook(["wm"], "beartype.beartype")
    import wm

    # The hook sees only what the plain path search finds; an editable install maps `wm.planners` to `planners/` by a
    # finder of its own, which would bypass it.
    wm.__path__.append(str(ROOT))


_check_shapes()
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with Ctrl-C ignored
hypothesis.settings.register_profile("wm", deadline=None, derandomize=True)
hypothesis.settings.load_profile("wm")


@pytest.fixture
def rng() -> np.random.Generator:
    """A freshly seeded generator."""
    return np.random.default_rng(0)
