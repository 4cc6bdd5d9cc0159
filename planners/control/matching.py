"""Whether robot, planner, shield and settings are made for each other."""

from __future__ import annotations

from wm.errors import MismatchError
from wm.planners.control.parts import Certifier, Planner
from wm.planners.control.settings import LoopSettings
from wm.robot import Robot
from wm.specs import require_equal


def require_match(robot: Robot, planner: Planner, shield: Certifier, settings: LoopSettings) -> None:
    """Refuse parts that differ in action, proprioception, picture size, kinematics or rate.

    A robot without kinematics goes with a certifier without, and no other robot does.

    Raises:
        MismatchError: the first difference, with both values.
    """
    action, observation, spec = robot.action_spec, robot.observation_spec, planner.spec
    if shield.kinematics is not None and (robot.kinematics is None or observation.proprio is None):
        came = f"kinematics {robot.kinematics}, proprioception {observation.proprio}"
        raise MismatchError("what the shield certifies with", "kinematics and proprioception", came, "the robot")
    require_equal("control rate [Hz]", action.control_hz, settings.rate_hz, "the loop's settings")
    require_equal("action", action, shield.action_spec, "the shield")
    require_equal("action", action, spec.action, "the planner")
    require_equal("kinematics", robot.kinematics, shield.kinematics, "the shield")
    require_equal("proprioception", observation.proprio, spec.observation.proprio, "the planner")
    require_equal("picture size [px]", observation.image_size, spec.observation.image_size, "the planner")
    if robot.kinematics is None or observation.proprio is None:
        return  # nothing is certified, so it may feel whatever it does
    require_equal("numbers of proprioception (x, y, vx, vy)", 4, observation.proprio.width, "the robot")
