"""The robot's own motion where it is known exactly: no learned part, linear in state and actions.

Guardrails and the shield look at this path, so that "the pusher stays out of that disc" does not rest on a network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PointKinematics:
    """A point under PD control whose target is held for one control step.

    Semi-implicit Euler at ``dt``: v += (kp (target - x) - kv v) dt, then x += v dt, ``substeps`` times per control step.

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
        controls = actions.reshape(b, s, h * frameskip, 2) * self.scale
        free, forced = self._response(h * frameskip)
        free, forced = free.to(actions), forced.to(actions)
        state = start.reshape(b, 2, 2).to(actions)  # (B, [pos, vel], xy)
        offset = torch.einsum("kri,bix->bkrx", free, state)  # (B, K', [pos, vel], xy)
        driven = torch.einsum("krt,bstx->bskrx", forced, controls)
        full = driven + offset[:, None]  # (B, S, K', [pos, vel], xy)
        return full.reshape(b, s, h, frameskip * self.substeps, 4)

    def _response(self, steps: int) -> tuple[Tensor, Tensor]:
        """Linear response matrices: ``free (K', 2, 2)`` to the start, ``forced (K', 2, steps)`` to the controls."""
        free = torch.zeros(steps * self.substeps, 2, 2, dtype=torch.float64)
        forced = torch.zeros(steps * self.substeps, 2, steps, dtype=torch.float64)
        pos = torch.zeros(2 + steps, dtype=torch.float64)
        vel = torch.zeros(2 + steps, dtype=torch.float64)
        pos[0], vel[1] = 1.0, 1.0  # rows: coefficients of x0, v0, u_0 … u_{steps-1}
        for t in range(steps):
            target = pos.clone() if self.relative else torch.zeros_like(pos)
            target[2 + t] += 1.0
            for k in range(self.substeps):
                vel = vel + (self.kp * (target - pos) - self.kv * vel) * self.dt
                pos = pos + vel * self.dt
                row = t * self.substeps + k
                free[row, 0], free[row, 1] = pos[:2], vel[:2]
                forced[row, 0], forced[row, 1] = pos[2:], vel[2:]
        return free, forced
