"""Margins reduced by a bound on the error of what was predicted, which grows with the horizon.

A constraint that holds with this distance for the prediction holds for the truth wherever the error stays within the
bound (constraint tightening of robust MPC: Chisci, Rossiter & Zappa 2001; Mayne, Seron & Raković 2005, "Robust model
predictive control of constrained linear systems with bounded disturbances").
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.guardrails.base import Guardrail, finite
from wm.types import Trajectory


class Tightened(Guardrail):
    """``margin_h = rule_h - lengths_h >= 0``, h over the latent steps of the horizon.

    For a hard rule the lengths bound the disturbance of the robot's path that has added up by then; for a soft one they
    are the calibrated error of what it looks at (rules on a calibrated read-out bring their own). They act on the
    margin as they are, so the rule's margin must not change by more than the predicted quantity does, in the same unit:
    true of distances to places, speed, acceleration, jerk and joints.

    A shield certifies one control step with bounds of its own, on the untightened ``rule``.

    Args:
        rule: The rule; its name, unit and softness are kept.
        lengths: ``(L,)`` [unit of the rule], >= 0 and never falling, for latent steps 1 … L ahead.

    Attributes:
        rule: As given.
        lengths: As given.

    Raises:
        BadInputError: the lengths are not finite numbers >= 0 that never fall; at the call, the horizon exceeds L.
    """

    def __init__(self, rule: Guardrail, lengths: object) -> None:
        self.name, self.unit, self.soft, self.rule = rule.name, rule.unit, rule.soft, rule
        self.lengths = finite(lengths, f"guardrail '{rule.name}': tightening")
        if self.lengths.ndim != 1 or len(self.lengths) == 0:
            raise BadInputError(
                f"guardrail '{rule.name}': tightening must have the shape (L,), L >= 1, "
                f"came {tuple(self.lengths.shape)}."
            )
        if bool((self.lengths < 0).any()) or bool((self.lengths.diff() < 0).any()):
            raise BadInputError(
                f"guardrail '{rule.name}': tightening must be >= 0 and must not fall with the horizon, "
                f"came {self.lengths.tolist()}."
            )

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S H"]:
        """The rule's margins less the lengths."""
        return tighten(self.rule(trajectory), self.lengths, self.name)


def tighten(margins: Float[Tensor, "B S H"], lengths: Float[Tensor, " L"], name: str) -> Float[Tensor, "B S H"]:
    """Margins less the first H lengths.

    Raises:
        BadInputError: there are fewer.
    """
    return margins - of_horizon(lengths, margins.shape[-1], name).to(margins)


def of_horizon(lengths: Float[Tensor, " L"], horizon: int, name: str) -> Float[Tensor, " H"]:
    """The first H lengths.

    Raises:
        BadInputError: there are fewer.
    """
    if horizon > len(lengths):
        raise BadInputError(
            f"guardrail '{name}' knows the error up to {len(lengths)} latent steps ahead, came a horizon of {horizon}."
        )
    return lengths[:horizon]
