"""Joints stay inside their limits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.guardrails.base import Guardrail, finite
from wm.types import Trajectory


class JointLimits(Guardrail):
    """``margin = min_j min(q_j - low_j, high_j - q_j) >= 0``, j over the chosen numbers of proprioception.

    One rule has one unit: positions [rad] and velocities [rad/s, from -limit to limit] are two rules, two names::

        JointLimits((0, 1), (-2.9, -1.8), (2.9, 1.8))
        JointLimits((2, 3), (-2.0, -2.0), (2.0, 2.0), unit="rad/s", name="joint_velocities")

    Soft: planned proprioception is the model's prediction, after each latent step and not between two. The margin of a
    measured reading (`margin_of`) holds as far as the sensor does. Wrap the rule in `Tightened` for the model's error.

    Args:
        indices: Which numbers of proprioception, J >= 1, each once, counted from 0.
        low: ``(J,)`` lower limits, in the reading's raw unit.
        high: ``(J,)`` upper limits, above the lower ones.
        unit: Name of that unit.
        name: Key of the margins.

    Raises:
        BadInputError: an index is negative or repeated, a limit is not finite, or limits are misshapen or crossed.
    """

    soft = True

    def __init__(
        self, indices: Sequence[int], low: object, high: object, unit: str = "rad", name: str = "joints"
    ) -> None:
        self.name, self.unit, self.indices = name, unit, tuple(indices)
        self.low, self.high = finite(low, f"guardrail '{name}': low"), finite(high, f"guardrail '{name}': high")
        if not self.indices or min(self.indices) < 0 or len(set(self.indices)) < len(self.indices):
            raise BadInputError(f"guardrail '{name}': indices must be different numbers >= 0, came {self.indices}.")
        for what, limit in (("low", self.low), ("high", self.high)):
            if limit.shape != (len(self.indices),):
                raise BadInputError(
                    f"guardrail '{name}': expected {len(self.indices)} numbers as {what}, "
                    f"came the shape {tuple(limit.shape)}."
                )
        if not bool((self.low < self.high).all()):
            raise BadInputError(
                f"guardrail '{name}': low must be below high, came low {self.low.tolist()}, high {self.high.tolist()}."
            )

    def margin_of(self, proprio: Float[Tensor, "*n P"]) -> Float[Tensor, "*n"]:
        """Margin of each reading, measured or predicted.

        Raises:
            BadInputError: the reading has too few numbers.
        """
        if max(self.indices) >= proprio.shape[-1]:
            raise BadInputError(
                f"guardrail '{self.name}' looks at number {max(self.indices)} of proprioception, "
                f"which has {proprio.shape[-1]} numbers."
            )
        joints = proprio[..., list(self.indices)]
        return torch.minimum(joints - self.low.to(joints), self.high.to(joints) - joints).amin(-1)

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S H"]:
        """Margin after each latent step.

        Raises:
            BadInputError: the trajectory has no proprioception, or too few numbers of it.
        """
        if trajectory.proprio is None:
            raise BadInputError(f"guardrail '{self.name}' needs proprioception, but the robot reports none.")
        return self.margin_of(trajectory.proprio)
