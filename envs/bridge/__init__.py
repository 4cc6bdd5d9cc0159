"""Drive a robot in another process or on another computer: length-prefixed msgpack over TCP, a stop over UDP."""

from wm.envs.bridge.client import BridgeRobot
from wm.envs.bridge.server import BridgeServer, serve
from wm.envs.bridge.stopper import BridgeStopper

__all__ = ["BridgeRobot", "BridgeServer", "BridgeStopper", "serve"]
