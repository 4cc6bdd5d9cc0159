"""``python -m wm.envs.bridge --env pusht --port 5555``: a simulated robot in real time behind a bridge."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence

import gymnasium

from wm.envs import ENV_IDS
from wm.envs.bridge.server import BridgeServer
from wm.envs.gym_robot import GymRobot, Impairments
from wm.errors import WmError


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m wm.envs.bridge", description=__doc__)
    parser.add_argument("--env", choices=sorted(ENV_IDS), default="pusht", help="simulated environment")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer only)")
    parser.add_argument("--port", type=int, default=5555, help="TCP and UDP port; 0 picks a free one")
    parser.add_argument("--allow-remote", action="store_true", help="listen where other computers reach it (no login!)")
    parser.add_argument("--deadman-periods", type=float, default=3.0, help="control periods without an action to stop")
    parser.add_argument("--seed", type=int, default=0, help="seed of the start state, noise and drops")
    parser.add_argument("--image-size", type=int, default=96, help="side of the picture, pixels")
    parser.add_argument("--noise", type=float, default=0.0, help="bound of the error of proprioception, raw units")
    parser.add_argument("--drop-rate", type=float, default=0.0, help="probability that a reading is lost")
    parser.add_argument(
        "--delay", type=float, default=0.0, help="age of the world that a reading shows, s, beside up to a control step"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; returns the exit code."""
    args, ended = arguments(argv), threading.Event()
    logging.basicConfig(format="%(asctime)s %(message)s")
    before = {n: signal.signal(n, lambda *_: ended.set()) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        env = gymnasium.make(ENV_IDS[args.env], disable_env_checker=True, image_size=args.image_size)
        impairments = Impairments(
            observation_delay_s=args.delay, proprio_noise=args.noise, drop_rate=args.drop_rate, seed=args.seed
        )
        robot = GymRobot(env, impairments=impairments, free_running=True, reset_seed=args.seed)
        options = {"allow_remote": args.allow_remote, "deadman_periods": args.deadman_periods}
        with BridgeServer(robot, args.host, args.port, **options) as server:
            host, port = server.address
            print(f"listening on {host}:{port}", flush=True)
            ended.wait()
    except WmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
