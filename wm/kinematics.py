"""The robot's own motion where it is known exactly: no learned part, linear in state and actions.

Guardrails and the shield look at this path, so that "the pusher stays out of that disc" does not rest on a network.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PointKinematics:
    """A point under PD control whose target is held for one control step.

    Semi-implicit Euler at ``dt``: v += (kp (target - x) - kv v) dt, then x += v dt, ``substeps`` times per control
    step.

    Attributes:
        kp: Proportional gain [1/s^2].
        kv: Damping gain [1/s].
        dt: Simulation step [s].
        substeps: Simulation steps per control step.
        scale: Length units per action unit (push-T: 100 px).
        relative: True: target = position at the start of the control step + scale * action; False: scale * action.
    """

    kp: float
    kv: float
    dt: float
    substeps: int
    scale: float
    relative: bool

    def path(
        self, start: Float[Tensor, "B 4"], actions: Float[Tensor, "B S H A"], frameskip: int
    ) -> Float[Tensor, "B S H K 4"]:
        """Positions and velocities at every simulation step of every candidate, K = frameskip * substeps.

        Args:
            start: x, y, vx, vy now (length unit, length unit per second).
            actions: Raw units; A = frameskip * 2, control step by control step.
            frameskip: Control steps per latent step.
        """
        b, s, h, a = actions.shape
        if a != 2 * frameskip:
            raise ValueError(f"PointKinematics.path: expected A = 2 * frameskip = {2 * frameskip}, came {a}.")
        free, forced = _response(self, h * frameskip, actions.dtype, actions.device)
        offset = start.to(actions) @ free  # (B, 4 * K')
        flat = torch.baddbmm(offset[:, None], actions.reshape(b, s, h * a), forced.expand(b, -1, -1))
        # Each component lies contiguous in memory, which is what guardrails read.
        return flat.reshape(b, s, 4, h, frameskip * self.substeps).permute(0, 1, 3, 4, 2)


@functools.lru_cache(maxsize=32)
def _response(
    robot: PointKinematics, steps: int, dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, "4 R"], Float[Tensor, "U R"]]:
    """Linear response of the path, R = 4 * K' numbers: x, y, vx, vy at K' = steps * substeps instants (fastest).

    Computed in float64. ``free (4, R)`` answers to the start, ``forced (steps * 2, R)`` to the raw actions.
    """
    row = torch.zeros(steps * robot.substeps, 2, 2 + steps, dtype=torch.float64)  # [pos, vel] of one axis
    pos = torch.zeros(2 + steps, dtype=torch.float64)
    vel = torch.zeros(2 + steps, dtype=torch.float64)
    pos[0], vel[1] = 1.0, 1.0  # coefficients of x0, v0, u_0 … u_{steps-1}
    for t in range(steps):
        target = pos.clone() if robot.relative else torch.zeros_like(pos)
        target[2 + t] += robot.scale
        for k in range(robot.substeps):
            vel = vel + (robot.kp * (target - pos) - robot.kv * vel) * robot.dt
            pos = pos + vel * robot.dt
            row[t * robot.substeps + k, 0], row[t * robot.substeps + k, 1] = pos, vel
    axes = torch.eye(2, dtype=torch.float64)
    both = torch.einsum("krc,xy->cxryk", row, axes).reshape(2 * (2 + steps), -1)  # the two axes do not interact
    free, forced = both[:4], both[4:]
    return free.to(device=device, dtype=dtype), forced.contiguous().to(device=device, dtype=dtype)
