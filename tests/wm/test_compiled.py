"""In processes of their own: what the tests check annotations with cannot be compiled."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from wm.errors import BadInputError
from wm.experiments.assemble import make_model


def in_a_process(work: Callable[[], None], cache: Path) -> subprocess.CompletedProcess[str]:
    """Run a function's body by itself, with nothing compiled before."""
    body = textwrap.dedent(inspect.getsource(work).partition(":\n")[2])
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", body]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def compare() -> None:
    import torch

    from wm.experiments.assemble import make_model
    from wm.typical_inputs import typical_inputs

    plain, compiled = make_model("pusht", "pusht"), make_model("pusht", "pusht", "compiled")
    context, actions = typical_inputs(plain, observations=1, candidates=8)
    found, slopes = [], []
    for model in (plain, compiled):
        leaf = actions.clone().requires_grad_()
        model.imagine(context, leaf).tokens.square().sum().backward()
        found.append(model.imagine(context, actions).tokens)
        slopes.append(leaf.grad)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*slopes, atol=1e-3, rtol=1e-3)
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def compile_without_compiler() -> None:
    import torch._inductor.config

    torch._inductor.config.cpp.cxx = ("no-such-compiler",)
    from wm.experiments.assemble import make_model
    from wm.experiments.studies.launch import launch

    launch(lambda: make_model("pusht", "pusht", "compiled"))


@pytest.mark.timeout(400)  # of a compiler on a busy machine
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_rollouts_and_gradients_are_equal_to_rounding(tmp_path: Path) -> None:
    done = in_a_process(compare, tmp_path)
    assert done.returncode == 0, done.stderr


def test_another_form_is_refused() -> None:
    with pytest.raises(BadInputError, match="compiled rollouts: expected a model of form 'compact', came 'patch'"):
        make_model("pusht-patch", "pusht", "compiled")


def test_a_machine_without_a_compiler_is_refused(tmp_path: Path) -> None:
    done = in_a_process(compile_without_compiler, tmp_path)
    assert done.returncode == 2
    assert "compiled rollouts: torch cannot compile on this machine" in done.stderr
    assert "Traceback" not in done.stderr
