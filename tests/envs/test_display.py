from __future__ import annotations

import pytest

from wm.envs import display
from wm.envs.display import opengl_backend, prepare_display, working_opengl


@pytest.mark.parametrize(("working", "first"), [({"egl", "osmesa"}, "egl"), ({"osmesa"}, "osmesa"), (set[str](), None)])
def test_the_first_that_works_is_kept_and_what_the_user_has_set_stays(
    working: set[str], first: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(display, "_draws", lambda backend: tried.append(backend) or backend in working)
    for name in ("MUJOCO_GL", "SDL_VIDEODRIVER"):  # set before they are removed, so that both are put back
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    working_opengl.cache_clear()
    prepare_display(opengl=False)
    assert tried == [] and opengl_backend() == "egl"
    for _ in range(2):
        prepare_display(opengl=True)
        assert working_opengl() == first and opengl_backend() == (first or "egl")
    assert len(tried) == (1 if first == "egl" else 2)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    prepare_display(opengl=True)
    assert opengl_backend() == "glfw"
    working_opengl.cache_clear()


def test_a_backend_that_is_not_there_does_not_draw() -> None:
    assert not display._draws("nosuch")
