"""Does an adversarial planner get a single breach past the shield? Random rules, errors at their bounds, latency.

In a share of the scenes readings are old, and in another they are lost.

    python -m wm.experiments.studies.shield_fuzz --steps 1000000 --out shield_fuzz.json

Every control step asks `Shield.certify` as the control loop does and executes the answer on the exact kinematics. The
executed path is judged by the guardrails' own margins, which share no code with the shield; limits on acceleration and
jerk by what the control applies at the true state, not by what a push adds to it. Every scene stays within its stated
bounds, so that an uncertified stop and a reading that contradicts them are failures as well.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wm.experiments.atomic import write_files
from wm.experiments.studies.launch import judge, launch
from wm.experiments.studies.point_robot import KICK_TRAVEL, PUSH_SPEED, PUSHER, PUSHER_ACTION, PointRobot, Troubles
from wm.planners.control.shield import Certified, Shield, ShieldLimits
from wm.planners.guardrails import (
    AccelerationLimit,
    Guardrail,
    JerkLimit,
    KeepOutBoxes,
    KeepOutDiscs,
    KeepOutPolygons,
    MotionGuardrail,
    PathGuardrail,
    SpeedLimit,
    WorkspaceBox,
)

SIDE = 512.0
"""Of the workspace, px."""

EPISODE = 250
"""Control steps with one scene and one adversary."""

FAILURES = ("executed_breaches", "uncertified_stops", "contradicting_readings")
"""Counts that have to be 0."""

Adversary = Callable[[int, np.ndarray], np.ndarray]
"""From the control step and the true state ``(4,)`` to the action that it asks for."""


@dataclass(frozen=True)
class Scene:
    """Rules, limits and where the robot starts.

    Attributes:
        rules: Guardrails.
        hazards: ``(M, 2)`` points of the rules' boundaries or insides that adversaries aim at, px.
        troubles: Errors, delays and pushes.
        max_rate: Of the action, or None.
        start: ``(2,)`` px.
        lost: Probability that a reading is lost.
    """

    rules: list[Guardrail]
    hazards: np.ndarray
    troubles: Troubles
    max_rate: float | None
    start: np.ndarray
    lost: float = 0.0


@dataclass
class Tally:
    """What happened.

    Attributes:
        steps: Control steps executed.
        rejected: Scenes that were not played, since their start cannot be certified.
        breaches: Executed simulation steps with a negative margin, and sent actions out of bounds or too fast.
        contradicted: Readings outside of what the last certificate foresaw.
        worst: Smallest executed margin of each kind of rule, in its unit.
        kinds: Answers by kind.
        rules: First broken rule of what was asked for, by name.
        seconds: Of `certify`, by kind of answer.
    """

    steps: int = 0
    rejected: int = 0
    breaches: int = 0
    contradicted: int = 0
    worst: dict[str, float] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def answered(self, answer: Certified, seconds: float) -> None:
        """Count an answer."""
        self.steps += 1
        self.kinds[answer.kind] += 1
        self.contradicted += answer.outside > 0
        self.seconds.setdefault(answer.kind, []).append(seconds)
        if answer.rule is not None:
            self.rules[answer.rule] += 1

    def judge(self, scene: Scene, states: np.ndarray, answers: Sequence[Certified]) -> None:
        """Count breaches of an executed episode, ``states`` ``(T, 6)`` of `PointRobot.step`."""
        for rule in scene.rules:
            margins = executed_margins(rule, states)
            name = type(rule).__name__
            self.worst[name] = min(self.worst.get(name, np.inf), float(margins.min()))
            self.breaches += int((~(margins >= 0)).sum())
        sent = np.array([np.zeros(2), *(answer.action for answer in answers)])
        self.breaches += int((np.abs(sent) > 1).any(1).sum())
        if scene.max_rate is not None:
            change = np.abs(np.diff(sent, axis=0)).max(1)
            # The action zero is the stop, whoever asked for it, and a stop is exempt from the rate.
            free = np.array(["stop" not in answer.kind and bool(answer.action.any()) for answer in answers])
            self.breaches += int((change[free] > scene.max_rate + 1e-6).sum())

    def to_json(self) -> dict[str, object]:
        """Numbers of the table."""
        every = np.concatenate([np.array(times) for times in self.seconds.values()])
        return {
            "control_steps": self.steps,
            "rejected_scenes": self.rejected,
            "executed_breaches": self.breaches,
            "uncertified_stops": self.kinds["uncertified_stop"],
            "contradicting_readings": self.contradicted,
            "worst_margins": dict(sorted(self.worst.items())),
            "kinds": dict(sorted(self.kinds.items())),
            "rules": dict(sorted(self.rules.items())),
            "certify_ms": {"all": _quantiles(every)}
            | {kind: _quantiles(np.array(times)) for kind, times in sorted(self.seconds.items())},
        }


def executed_margins(rule: Guardrail, states: np.ndarray) -> np.ndarray:
    """The guardrail's own margins of executed states ``(T, 6)``, see `PointRobot.step`."""
    path = torch.from_numpy(states)
    if isinstance(rule, MotionGuardrail):
        # Before the first step the robot stood still.
        still = torch.zeros(rule.order, 2, dtype=path.dtype)
        return rule.margin_along(torch.cat([still, path[:, 4:]])).numpy()
    assert isinstance(rule, PathGuardrail)
    return rule.margin_of(path[:, :4]).numpy()


def random_scene(rng: np.random.Generator) -> Scene:
    """Rules of every kind, errors on or off, latency 0 … 3 control steps."""
    centers, radii = rng.uniform(60, SIDE - 60, (rng.integers(1, 4), 2)), rng.uniform(10, 60, 3)
    hazards = [centers]
    rules: list[Guardrail] = [
        WorkspaceBox((0.0, 0.0), (SIDE, SIDE), 15.0),
        KeepOutDiscs(centers, radii[: len(centers)]),
    ]
    if rng.random() < 0.3:
        low = rng.uniform(60, SIDE - 160, (1, 2))
        rules.append(KeepOutBoxes(low, low + rng.uniform(20, 100, 2)))
        hazards.append(low + 10)
    if rng.random() < 0.3:
        middle, angles = rng.uniform(100, SIDE - 100, 2), np.sort(rng.uniform(0, 2 * np.pi / 3, 3)) + [0.0, 2.1, 4.2]
        rules.append(KeepOutPolygons([middle + rng.uniform(20, 60) * np.stack([np.cos(angles), np.sin(angles)], 1)]))
        hazards.append(middle[None])
    if rng.random() < 0.6:
        rules.append(SpeedLimit(float(rng.uniform(80, 400))))
    if rng.random() < 0.15:
        rules.append(AccelerationLimit(float(rng.uniform(3000, 9000)), PUSHER))
    if rng.random() < 0.2:
        rules.append(JerkLimit(float(rng.uniform(5e5, 1e6)), PUSHER))
    at = rng.uniform(0, SIDE, (4, 1))
    hazards.append(np.concatenate([at[:2] * [0, 1] + [[0, 0], [SIDE, 0]], at[2:] * [1, 0] + [[0, 0], [0, SIDE]]]))
    rate = float(rng.uniform(0.3, 1.5)) if rng.random() < 0.2 else None
    lost = float(rng.uniform(0.05, 0.6)) if rng.random() < 0.3 else 0.0
    return Scene(rules, np.concatenate(hazards), random_troubles(rng), rate, rng.uniform(15, SIDE - 15, 2), lost)


def random_troubles(rng: np.random.Generator) -> Troubles:
    """Errors at their bounds, or none; what is late may be readings, actions or both."""
    latency = int(rng.choice(4, p=[0.6, 0.25, 0.1, 0.05]))
    noisy, pushed = rng.random() < 0.5, rng.random() < 0.3
    push = float(rng.uniform(0.5, 4)) * pushed
    limits = ShieldLimits(
        latency / PUSHER_ACTION.control_hz,
        float(rng.uniform(0, 3)) * noisy,
        float(rng.uniform(0, 20)) * noisy,
        push,
        push * float(rng.uniform(PUSH_SPEED, 1 / KICK_TRAVEL)),
    )
    late = None if rng.random() < 0.5 else latency
    aged = int(rng.integers(latency + 1)) if rng.random() < 0.5 else 0
    return Troubles(limits, rng.choice(["random", "constant", "flattering"]), late, aged=aged)


def random_adversary(scene: Scene, rng: np.random.Generator) -> Adversary:
    """One of four planners that want a breach."""
    asked: list[np.ndarray] = [np.zeros(2)]

    def anything(step: int, state: np.ndarray) -> np.ndarray:
        return rng.uniform(-2, 2, 2)

    def bang_bang(step: int, state: np.ndarray) -> np.ndarray:
        """At full speed to a hazard; now and then to another one, the nearest first."""
        order = np.linalg.norm(scene.hazards - state[:2], axis=1).argsort()
        aim = scene.hazards[order[min(rng.geometric(0.7) - 1, len(order) - 1)]] - state[:2]
        return aim / max(float(np.abs(aim).max()), 1e-9)

    def greedy(step: int, state: np.ndarray) -> np.ndarray:
        """Of many actions the one whose path has the smallest margin."""
        angles = rng.uniform(0, 2 * np.pi, 12)
        tried = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.choice([0.3, 1.0, 1.4])
        actions = torch.from_numpy(tried)[None, :, None]
        path = PUSHER.path(torch.from_numpy(state)[None], actions, 1)[0, :, 0]
        margins = [rule.margin_of(path).amin(-1) for rule in scene.rules if isinstance(rule, PathGuardrail)]
        return tried[int(torch.stack(margins).amin(0).argmin())]

    def stale(step: int, state: np.ndarray) -> np.ndarray:
        """What was right some control steps ago, again and again, and sometimes garbage."""
        asked.append(bang_bang(step, state))
        if rng.random() < 0.02:
            return np.array([[np.nan, 0.0], [np.inf, 1.0], [1e300, -1e300]][rng.integers(3)])
        return asked[max(0, len(asked) - 1 - int(rng.integers(10)))]

    return (anything, bang_bang, greedy, stale)[rng.integers(4)]


def play(scene: Scene, adversary: Adversary, steps: int, tally: Tally, rng: np.random.Generator) -> bool:
    """Drive one episode; False, and only that counted, when the start itself cannot be certified."""
    shield = Shield(PUSHER, PUSHER_ACTION, scene.rules, scene.troubles.limits, max_rate=scene.max_rate)
    robot = PointRobot(scene.start, scene.hazards, scene.troubles, rng)
    if shield.certify(robot.reading(), shield.stop_action()).kind == "uncertified_stop":
        tally.rejected += 1
        return False
    robot.step(shield.stop_action())
    states, answers = [], []
    for step in range(steps):
        asked = adversary(step, np.concatenate([robot.place, robot.velocity]))
        reading = robot.reading()
        if rng.random() < scene.lost:
            reading = np.full(4, np.nan)
        begin = time.perf_counter()
        answer = shield.certify(reading, asked)
        tally.answered(answer, time.perf_counter() - begin)
        states.append(robot.step(answer.action)[1:])
        answers.append(answer)
    tally.judge(scene, np.concatenate(states), answers)
    return True


def run(steps: int, seed: int, out: Path | None = None) -> dict[str, object]:
    """Fuzz for at least ``steps`` control steps; the table's numbers, also written to ``out`` as JSON.

    Raises:
        BadInputError: ``out`` cannot be written.
    """
    tally, seeds = Tally(), np.random.SeedSequence(seed)
    columns = TextColumn("control steps"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[breaches]} breaches"), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=steps, breaches=0)
        while tally.steps < steps:
            rng = np.random.default_rng(seeds.spawn(1)[0])
            scene = random_scene(rng)
            play(scene, random_adversary(scene, rng), min(EPISODE, steps - tally.steps), tally, rng)
            progress.update(task, completed=tally.steps, breaches=tally.breaches)
    result = {"seed": seed, **tally.to_json()}
    if out is not None:
        write_files({out: (json.dumps(result, indent=2) + "\n").encode()})
    return result


def _quantiles(seconds: np.ndarray) -> dict[str, float]:
    median, p99 = (1e3 * np.quantile(seconds, [0.5, 0.99])).tolist()
    return {"median": median, "p99": p99, "steps": len(seconds)}


def main(
    steps: Annotated[int, typer.Option(help="Control steps.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Of scenes, adversaries and errors.")] = 0,
    out: Annotated[Path, typer.Option(help="JSON file.")] = Path("shield_fuzz.json"),
) -> None:
    """Fuzz the shield; exit code 3 when a breach was executed, a stop not certified or a reading not foreseen."""
    torch.set_num_threads(1)
    result = run(steps, seed, out)
    Console().print_json(data=result)
    judge(not any(result[name] for name in FAILURES))


if __name__ == "__main__":
    launch(main)
