"""Guardrails: hard rules as margins, >= 0 is safe. One rule per file."""

from wm.planners.guardrails.base import Guardrail, PathGuardrail
from wm.planners.guardrails.keep_out import KeepOutDiscs
from wm.planners.guardrails.speed import SpeedLimit
from wm.planners.guardrails.workspace import WorkspaceBox

__all__ = ["Guardrail", "KeepOutDiscs", "PathGuardrail", "SpeedLimit", "WorkspaceBox"]
