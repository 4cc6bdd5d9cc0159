"""What the control loop and the planner process tell each other: plain numbers and numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8

from wm.robot import ObservationSpec
from wm.specs import ActionSpec


@dataclass(frozen=True)
class PlannerSpec:
    """What a planner was made for; the loop refuses a robot that differs.

    Attributes:
        action: The action it plans.
        observation: The pictures and sensors it takes.
        frames: T, pictures it looks at.
        stride: Control steps from one of these pictures to the next.
    """

    action: ActionSpec
    observation: ObservationSpec
    frames: int
    stride: int


@dataclass(frozen=True, eq=False)
class PlanRequest:
    """Ask for a plan.

    Attributes:
        step: Control step k of the newest picture.
        images: ``(T, side, side, 3)`` pictures of the steps k - (T - 1) * stride … k.
        proprio: ``(T, P)`` the robot's own sensors at these steps, raw units, or None.
        committed: ``(d, W)`` actions of the steps k … k + d - 1, raw units: sent, or to be sent while the planner
            works. The plan has to begin with them.
        deadline_ms: From now to the begin of step k + d, when a reply is too late; > 0.
    """

    step: int
    images: UInt8[np.ndarray, "T side side 3"]
    proprio: Float[np.ndarray, "T P"] | None
    committed: Float[np.ndarray, "d W"]
    deadline_ms: float


@dataclass(frozen=True, eq=False)
class PlanReply:
    """A plan.

    Attributes:
        step: The request's.
        actions: ``(n, W)`` for the control steps step … step + n - 1, raw units; the first d are the committed ones.
        energies: Weighted energy terms by name.
        margins: Smallest guardrail margin over the horizon by name; >= 0 is safe. Unit: the guardrail's.
        feasible: Every margin is >= 0.
        plan_ms: From the request to the plan, in the planner's process [ms].
        stopped_by: What ended the search.
    """

    step: int
    actions: Float[np.ndarray, "n W"]
    energies: dict[str, float] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)
    feasible: bool = True
    plan_ms: float = 0.0
    stopped_by: str = ""


@dataclass(frozen=True)
class PlanFailure:
    """Instead of a plan.

    Attributes:
        step: The request's.
        reason: What went wrong.
    """

    step: int
    reason: str
