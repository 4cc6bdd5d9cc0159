"""Guardrails: rules as margins, >= 0 is safe. One rule per file; a rule that rests on something learned is ``soft``."""

from wm.planners.guardrails.acceleration import AccelerationLimit
from wm.planners.guardrails.base import Guardrail, PathGuardrail, PlaceGuardrail
from wm.planners.guardrails.contact_energy import ContactEnergy
from wm.planners.guardrails.jerk import JerkLimit
from wm.planners.guardrails.joints import JointLimits
from wm.planners.guardrails.keep_out import KeepOutDiscs
from wm.planners.guardrails.keep_out_boxes import KeepOutBoxes
from wm.planners.guardrails.keep_out_polygons import KeepOutPolygons
from wm.planners.guardrails.motion import MotionGuardrail
from wm.planners.guardrails.object_distance import ObjectDistance
from wm.planners.guardrails.object_keep_out import ObjectKeepOut
from wm.planners.guardrails.objects import ObjectGuardrail
from wm.planners.guardrails.speed import SpeedLimit
from wm.planners.guardrails.tightening import Tightened
from wm.planners.guardrails.workspace import WorkspaceBox

__all__ = [
    "AccelerationLimit",
    "ContactEnergy",
    "Guardrail",
    "JerkLimit",
    "JointLimits",
    "KeepOutBoxes",
    "KeepOutDiscs",
    "KeepOutPolygons",
    "MotionGuardrail",
    "ObjectDistance",
    "ObjectGuardrail",
    "ObjectKeepOut",
    "PathGuardrail",
    "PlaceGuardrail",
    "SpeedLimit",
    "Tightened",
    "WorkspaceBox",
]
