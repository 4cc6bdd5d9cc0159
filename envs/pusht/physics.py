"""Push-T's physics: a T-shaped block pushed by a kinematic disc, simulated by pymunk.

Geometry, gains and step order are gym-pusht's (Chi et al. 2023, "Diffusion Policy"; gym-pusht 0.1.8), so that the same
state and actions give the same trajectory to rounding.

Length unit: px of a 512 × 512 world, y down. Angles in rad, clockwise on the screen.
"""

from __future__ import annotations

import numpy as np
import pymunk

WORLD_SIZE = 512.0
AGENT_RADIUS = 15.0
KP, KV = 100.0, 20.0
DT = 0.01
SUBSTEPS = 10
STATE_NAMES = ("agent_x", "agent_y", "block_x", "block_y", "block_angle", "agent_vx", "agent_vy")
FULL_STATE_NAMES = (*STATE_NAMES, "block_vx", "block_vy", "block_omega")

_SCALE = 30.0
_WALL_LOW, _WALL_HIGH, _WALL_RADIUS = 5.0, 506.0, 2.0
BAR = np.array([(-2, 1), (2, 1), (2, 0), (-2, 0)]) * _SCALE
STEM = np.array([(-0.5, 1), (-0.5, 4), (0.5, 4), (0.5, 1)]) * _SCALE


class PushTPhysics:
    """The simulation, stepped at 100 Hz under a PD-controlled pusher.

    The block slides without inertia (space damping 0 each step), but the velocity that a contact gave it in the last
    substep still moves it in the next one; that is why the full state has 10 numbers.
    """

    def __init__(self) -> None:
        self._build()

    def _build(self) -> None:
        space = pymunk.Space()
        space.gravity = 0, 0
        space.damping = 0.0
        low, high = _WALL_LOW, _WALL_HIGH
        corners = [((low, high), (low, low)), ((low, low), (high, low)), ((high, low), (high, high))]
        for a, b in [*corners, ((low, high), (high, high))]:
            space.add(pymunk.Segment(space.static_body, a, b, _WALL_RADIUS))
        self.agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        space.add(self.agent, pymunk.Circle(self.agent, AGENT_RADIUS))
        bar, stem = BAR.tolist(), STEM.tolist()
        # gym-pusht gives both rectangles the bar's moment; kept, or trajectories would differ.
        moment = 2 * pymunk.moment_for_poly(1, vertices=bar)
        self.block = pymunk.Body(1, moment)
        shapes = [pymunk.Poly(self.block, bar), pymunk.Poly(self.block, stem)]
        self.block.center_of_gravity = (shapes[0].center_of_gravity + shapes[1].center_of_gravity) / 2
        space.add(self.block, *shapes)
        self.space = space

    def step(self, target: tuple[float, float]) -> None:
        """One control step (0.1 s) towards the absolute ``target`` (x, y) in px."""
        agent, step, tx, ty = self.agent, self.space.step, float(target[0]), float(target[1])
        (x, y), (vx, vy) = agent.position, agent.velocity
        for _ in range(SUBSTEPS):
            vx += (KP * (tx - x) - KV * vx) * DT
            vy += (KP * (ty - y) - KV * vy) * DT
            agent.velocity = vx, vy
            step(DT)
            x, y = agent.position

    def state(self) -> np.ndarray:
        """The full state, ``(10,)`` float64 in the order of `FULL_STATE_NAMES`; the angle is not wrapped."""
        agent, block = self.agent, self.block
        values = [*agent.position, *block.position, block.angle, *agent.velocity, *block.velocity]
        return np.array([*values, block.angular_velocity])

    def set_state(self, state: np.ndarray) -> None:
        """Put the simulation into a state; nothing is stepped, no contact of before is remembered.

        Args:
            state: ``(5,)`` positions, ``(7,)`` with the pusher's velocity, or ``(10,)`` with the block's too; what is
                missing is zero.
        """
        full = np.zeros(10)
        full[: len(state)] = state
        self._build()  # a fresh space: the solver's cached contact impulses are state as well
        self.agent.position = full[0], full[1]
        self.agent.velocity = full[5], full[6]
        self.block.angle = full[4]  # before the position: setting an angle turns about the centre of gravity
        self.block.position = full[2], full[3]
        self.block.velocity = full[7], full[8]
        self.block.angular_velocity = full[9]
        self.space.reindex_shapes_for_body(self.agent)
        self.space.reindex_shapes_for_body(self.block)
