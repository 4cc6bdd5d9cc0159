"""Drawing without a display: which OpenGL MuJoCo uses, and pygame's dummy video driver."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

BACKENDS = ("egl", "osmesa")


def prepare_display(opengl: bool) -> None:
    """Choose, once in a process, how pictures of foreign environments are drawn; what the user has set himself stays.

    It has to be called before a package that draws is imported, and says nothing. The choice is kept in the
    environment's variables, so that worker processes inherit it.

    Args:
        opengl: OpenGL may be needed. Without it nothing is tried, which saves a second.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if opengl and "MUJOCO_GL" not in os.environ:
        works = working_opengl()
        if works is not None:
            os.environ["MUJOCO_GL"] = works


def opengl_backend() -> str:
    """What MuJoCo draws with: the variable `MUJOCO_GL`, else EGL, which then tells why it does not work."""
    return os.environ.get("MUJOCO_GL", BACKENDS[0])


@cache
def working_opengl() -> str | None:
    """The first of `BACKENDS` that works here, or None.

    Each is tried in a process of its own (a second or two): PyOpenGL cannot change its platform once it is loaded, and
    a broken driver may end the process that tries it.
    """
    return next((backend for backend in BACKENDS if _draws(backend)), None)


def _draws(backend: str) -> bool:
    attempt = f"from mujoco.{backend} import GLContext; GLContext(16, 16).make_current()"
    free = {name: value for name, value in os.environ.items() if name != "PYOPENGL_PLATFORM"}
    try:
        done = subprocess.run([sys.executable, "-c", attempt], env=free, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
