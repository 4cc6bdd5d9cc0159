"""The arm and the cube, simulated by PyBullet so that what comes next depends on the state vector alone.

The arm's motors hold joint velocities. They come from the action, or from the tip's set-point by inverse kinematics:
damped least squares on the tip's Jacobian (Nakamura and Hanafusa 1986) from the present joints on.

Bullet keeps contacts from step to step, and no call writes or reads them. So every control step begins with the state
written into a world without contacts: what happens is a function of state and action, to the last bit.

Length unit: m; angles in rad; see `scene.py` for the axes.
"""

from __future__ import annotations

import math

import numpy as np

from wm.envs.arm.scene import CUBE_HEIGHT, HIGH, JOINTS, LOW, TOOL_LINK, Scene, Task

DT, SUBSTEPS = 1.0 / 240.0, 24
KP, KV = 100.0, 20.0
"""Of the set-point's PD control, 1/s^2 and 1/s: critically damped."""
SCALE = 0.1
"""Metres per action unit of the end-effector mode."""

_REST = np.array([0.0, 0.9, 0.0, -1.6, 0.0, 0.6, 0.0])  # the posture that spare freedom tends to, rad
_FORCE = 300.0  # N m, as in the URDF
_DAMPING = 1e-4  # of the least squares
_LEAN = {"reach": 1.6, "push": 0.0}  # 1/m, how the rod leans with the distance, so that the wrist keeps a middle one
_UPRIGHT_AT = 0.58  # m from the arm's axis
_GAIN, _REST_GAIN = 0.5, 0.05  # share of the error, and of the way to rest, that one substep makes good
_SOLVE_STEPS, _SOLVE_WAY, _SOLVE_STRIDE = 80, 48, 0.1  # of `joints_for`: in all, until at the place; rad
_BRAKING_S = 0.08  # s: a moving arm is stopped so long before its tip is at a wall
_FAR = (0.0, 0.0, 50.0)  # m, where the cube waits while its contacts are forgotten

TIP, TIP_VELOCITY, ANGLES, SPEEDS = slice(0, 3), slice(3, 6), slice(6, 13), slice(13, 20)
CUBE, TURN, CUBE_VELOCITY, CUBE_SPIN = slice(20, 23), slice(23, 26), slice(26, 29), slice(29, 32)
"""Parts of the state vector."""


class ArmPhysics:
    """The simulation; its state is one vector of 20 numbers, or 32 with the cube.

    The tip's x, y, z (in end-effector mode of its set-point) and velocity, the joints and their velocities, the cube's
    x, y, z, roll, pitch, yaw, velocity and angular velocity.

    Args:
        task: `"push"` has a cube.

    Attributes:
        low: ``(7,)`` lower limits of the joints, rad.
        high: ``(7,)`` upper limits, rad.
        speed: ``(7,)`` greatest joint velocities, rad/s, all as the URDF has them.
        state: The present state.
    """

    def __init__(self, task: Task) -> None:
        self.task: Task = task
        self.scene = Scene(task)
        self.bullet, self._where = self.scene.bullet, {"physicsClientId": self.scene.client}
        self.bullet.setTimeStep(DT, **self._where)
        self.bullet.setGravity(0, 0, -9.81, **self._where)
        self.bullet.setPhysicsEngineParameter(deterministicOverlappingPairs=1, **self._where)
        joints = [self.bullet.getJointInfo(self.scene.arm, joint, **self._where) for joint in range(JOINTS)]
        self.low, self.high, self.speed = (np.array([joint[field] for joint in joints]) for field in (8, 9, 11))
        self.workspace = np.array(LOW[task]), np.array(HIGH[task])
        self.state = np.zeros(20 if self.scene.cube is None else 32)

    def follow(self, path: np.ndarray) -> None:
        """One control step in which the tip follows a set-point.

        Args:
            path: ``(substeps, 6)`` place and velocity of the set-point at the end of each substep.
        """
        self.write()
        angles = self.state[ANGLES]
        for point in path:
            jacobian, place, rod = self._tip(angles)
            wanted = np.concatenate(
                [point[3:] + (point[:3] - point[3:] * DT - place) * _GAIN / DT, self._turning(place, rod)]
            )
            angles = self._substep(angles, self._inverse(jacobian, wanted, angles))
        self._read()
        self.state[TIP], self.state[TIP_VELOCITY] = path[-1, :3], path[-1, 3:]

    def drive(self, speeds: np.ndarray) -> None:
        """One control step at joint velocities ``(7,)`` rad/s; the arm stops before its tip leaves the workspace.

        At several rad/s it can come to rest a few centimetres too late.
        """
        self.write()
        angles, moving = self.state[ANGLES], self.state[SPEEDS]
        low, high = self.workspace
        for _ in range(SUBSTEPS):
            jacobian, place, _ = self._tip(angles)
            way = jacobian[:3] @ (speeds * DT + moving * _BRAKING_S)
            leaves = bool((((place + way < low) & (way < 0)) | ((place + way > high) & (way > 0))).any())
            before, angles = angles, self._substep(angles, np.zeros(JOINTS) if leaves else speeds)
            moving = (angles - before) / DT
        self._read()
        self._measure_tip()

    def joints_for(self, place: np.ndarray) -> np.ndarray:
        """Joints ``(7,)`` that hold the tip at a place ``(3,)``: always the same ones.

        The tip is led there from the workspace's middle, because a leap ends at the joints' limits now and then.
        """
        angles, middle = _REST, (self.workspace[0] + self.workspace[1]) / 2
        for step in range(_SOLVE_STEPS):
            self._put_joints(angles, np.zeros(JOINTS))
            jacobian, tip, rod = self._tip(angles)
            target = middle + min(1.0, step / _SOLVE_WAY) * (place - middle)
            wanted = np.concatenate([(target - tip) / DT, self._turning(tip, rod)])
            way = self._inverse(jacobian, wanted, angles) * DT
            way *= min(1.0, _SOLVE_STRIDE / np.abs(way).max())
            angles = np.clip(angles + way, self.low, self.high)
        return angles

    def place_arm(self, place: np.ndarray, velocity: np.ndarray) -> None:
        """Put the state's arm where `joints_for` has it, moving as fast."""
        self.state[TIP], self.state[TIP_VELOCITY] = place, velocity
        self.state[ANGLES] = angles = self.joints_for(place)
        self._put_joints(angles, np.zeros(JOINTS))
        wanted = np.concatenate([velocity, np.zeros(2)])
        self.state[SPEEDS] = self._inverse(self._tip(angles)[0], wanted, _REST)

    def place_cube(self, x: float, y: float, angle: float) -> None:
        """Put the state's cube on the table, at rest."""
        self.state[CUBE] = x, y, CUBE_HEIGHT / 2
        self.state[TURN], self.state[26:32] = (0.0, 0.0, angle), 0.0

    def write(self) -> None:
        """Put Bullet's world into the state, without contacts."""
        bullet, where, scene, state = self.bullet, self._where, self.scene, self.state
        if scene.cube is not None:
            bullet.resetBasePositionAndOrientation(scene.cube, _FAR, (0, 0, 0, 1), **where)
            bullet.performCollisionDetection(**where)
        self._put_joints(state[ANGLES], state[SPEEDS])
        if scene.cube is not None:
            turn = bullet.getQuaternionFromEuler(state[TURN])
            bullet.resetBasePositionAndOrientation(scene.cube, state[CUBE], turn, **where)
            bullet.resetBaseVelocity(scene.cube, state[CUBE_VELOCITY], state[CUBE_SPIN], **where)

    def _put_joints(self, angles: np.ndarray, speeds: np.ndarray) -> None:
        for joint, (angle, speed) in enumerate(zip(angles, speeds, strict=True)):
            self.bullet.resetJointState(self.scene.arm, joint, angle, speed, **self._where)

    def _read(self) -> None:
        bullet, where, scene, state = self.bullet, self._where, self.scene, self.state
        joints = bullet.getJointStates(scene.arm, range(JOINTS), **where)
        state[ANGLES], state[SPEEDS] = [joint[0] for joint in joints], [joint[1] for joint in joints]
        if scene.cube is not None:
            state[CUBE], turn = bullet.getBasePositionAndOrientation(scene.cube, **where)
            state[TURN] = bullet.getEulerFromQuaternion(turn)
            state[CUBE_VELOCITY], state[CUBE_SPIN] = bullet.getBaseVelocity(scene.cube, **where)

    def _measure_tip(self) -> None:
        jacobian, self.state[TIP], _ = self._tip(self.state[ANGLES])
        self.state[TIP_VELOCITY] = jacobian[:3] @ self.state[SPEEDS]

    def _substep(self, angles: np.ndarray, speeds: np.ndarray) -> np.ndarray:
        """Simulate `DT` at these joint velocities, as far as the limits allow, and return the joints."""
        speeds = np.clip(speeds, -self.speed, self.speed)
        speeds = np.clip(speeds, (self.low - angles) / DT, (self.high - angles) / DT)
        self.bullet.setJointMotorControlArray(
            self.scene.arm,
            range(JOINTS),
            self.bullet.VELOCITY_CONTROL,
            targetVelocities=speeds,
            forces=[_FORCE] * JOINTS,
            **self._where,
        )
        self.bullet.stepSimulation(**self._where)
        joints = self.bullet.getJointStates(self.scene.arm, range(JOINTS), **self._where)
        return np.array([joint[0] for joint in joints])

    def _tip(self, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Jacobian ``(6, 7)``, place ``(3,)`` and upward direction ``(3,)`` of the rod in Bullet's world as it is."""
        bullet, arm, still = self.bullet, self.scene.arm, [0.0] * JOINTS
        link = bullet.getLinkState(arm, TOOL_LINK, computeForwardKinematics=1, **self._where)
        jacobian = bullet.calculateJacobian(arm, TOOL_LINK, (0, 0, 0), list(angles), still, still, **self._where)
        x, y, z, w = link[5]
        return (
            np.vstack(jacobian),
            np.array(link[4]),
            np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]),
        )

    def _turning(self, place: np.ndarray, rod: np.ndarray) -> np.ndarray:
        """Turning rates about x and y, rad/s, that bring the rod to its direction at this place."""
        distance = math.hypot(place[0], place[1])
        lean = _LEAN[self.task] * (_UPRIGHT_AT - distance)
        x, y, z = *(lean * place[:2] / distance), math.sqrt(1.0 - lean * lean)
        return np.array([rod[1] * z - rod[2] * y, rod[2] * x - rod[0] * z]) * _GAIN / DT

    def _inverse(self, jacobian: np.ndarray, wanted: np.ndarray, angles: np.ndarray) -> np.ndarray:
        """Joint velocities ``(7,)`` for wanted ones of the tip: x, y, z [m/s] and turning rates about x and y [rad/s].

        What freedom is left goes towards the posture of rest.
        """
        matrix = jacobian[:5]
        spare = _REST_GAIN / DT * (_REST - angles)
        missing = wanted - matrix @ spare
        return spare + matrix.T @ np.linalg.solve(matrix @ matrix.T + _DAMPING * np.eye(5), missing)


def setpoint_path(state: np.ndarray, target: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The set-point's motion for one control step, as `wm.kinematics.PointKinematics` until it meets a wall.

    Args:
        state: ``(6,)`` place [m] and velocity [m/s].
        target: ``(3,)`` where it is drawn to, m.
        low: ``(3,)`` lower corner of the workspace, where it stops.
        high: ``(3,)`` upper corner.

    Returns:
        ``(substeps, 6)``.
    """
    place, velocity, path = state[:3], state[3:], np.empty((SUBSTEPS, 6))
    for substep in range(SUBSTEPS):
        velocity = velocity + (KP * (target - place) - KV * velocity) * DT
        free = place + velocity * DT
        place = np.clip(free, low, high)
        velocity = np.where(place == free, velocity, 0.0)
        path[substep, :3], path[substep, 3:] = place, velocity
    return path
