"""Windows of a log, seen otherwise."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from wm.logs import LogWindows


def with_observations(windows: LogWindows, observations: Tensor) -> LogWindows:
    """The same windows over another encoding of the frames."""
    return replace(windows, log=replace(windows.log, observations=observations))
