"""`wm bench`: rates and times of the parts, each the median of several runs, ratios taken in one run."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from wm.datasets.collect.pusht import BlockSeekingPolicy
from wm.datasets.collect.runner import record
from wm.datasets.reader import EpisodeStore
from wm.datasets.schema import DatasetSpec
from wm.datasets.writer import EpisodeWriter
from wm.envs.chips.physics import TABLE_HALF
from wm.envs.pusht.draw import draw
from wm.envs.pusht.physics import PushTPhysics
from wm.experiments.assemble import make_env, make_model, make_mpc
from wm.experiments.atomic import require_writable, write_json
from wm.experiments.episode import Controller
from wm.experiments.goals import sample_tasks
from wm.experiments.studies.race import processor
from wm.experiments.worlds import find_world
from wm.model import WorldModel

RUNS = 7


def seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    """Median wall time of a piece of work, after one run that is not counted."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def bench_push_t() -> dict[str, float]:
    """Physics and pictures of push-T on one core, beside gym-pusht's where it is installed."""
    physics, state, count = PushTPhysics(), np.array([200.0, 200.0, 256.0, 256.0, 0.7]), 300

    def steps() -> None:
        physics.set_state(state)
        for i in range(count):
            physics.step((256 + 100 * np.sin(i / 10), 256 + 100 * np.cos(i / 7)))

    figures = {
        "physics_steps_per_s": count / seconds(steps),
        "pictures_per_s_96px": count / seconds(lambda: [draw(state + i * 0.01, 96) for i in range(count)]),
    }
    with contextlib.suppress(ImportError):  # a test dependency: the ratio is left out where it is not installed
        figures |= _gym_pusht(state)
    return figures


def _gym_pusht(state: np.ndarray) -> dict[str, float]:
    import gym_pusht  # noqa: F401
    import gymnasium

    rival = gymnasium.make("gym_pusht/PushT-v0", obs_type="pixels", disable_env_checker=True).unwrapped
    ours, target = make_env("pusht"), np.array([300.0, 300.0], np.float32)
    rival.reset(options={"reset_to_state": state})
    ours.reset(options={"state": state})
    theirs = seconds(lambda: [rival.step(target) for _ in range(30)])
    mine = seconds(lambda: [ours.step(target / 512) for _ in range(30)])
    return {"env_step_with_picture_per_s": 30 / mine, "env_step_with_picture_vs_gym_pusht": theirs / mine}


def bench_chips(strokes: int = 60) -> dict[str, float]:
    """Strokes of the collection policy among fifty chips on one core, without and with pictures."""
    world = find_world("chips")
    env = world.make_env()
    policy, (_, info) = world.policy(0), env.reset(seed=0)
    starts = []
    for _ in range(strokes):  # states and strokes as a log has them
        starts.append((env.get_state(), policy(info["state"])))
        info = env.step(starts[-1][1])[4]

    def physics() -> None:
        for state, action in starts:
            env.physics.set_state(state)
            env.physics.stroke(TABLE_HALF * action[:2], TABLE_HALF * action[2:])

    def pictures() -> None:
        env.set_state(starts[0][0])
        for _, action in starts:
            env.step(action)

    return {
        "chips_strokes_per_s": strokes / seconds(physics),
        "chips_strokes_with_picture_per_s": strokes / seconds(pictures),
    }


def bench_arm(steps: int = 40) -> dict[str, float]:
    """Pictures of 96 px, and control steps with pictures, of both of the arm's tasks on one core."""
    figures = {}
    for name in ("arm-push", "arm-reach"):
        world = find_world(name)
        env = world.make_env()
        policy, (_, info) = world.policy(0), env.reset(seed=0)
        actions = []
        for _ in range(steps):
            actions.append(policy(info["state"]))
            info = env.step(actions[-1])[4]

        def control(env: Any = env, actions: list[np.ndarray] = actions) -> None:
            for action in actions:
                env.step(action)

        def pictures(env: Any = env) -> None:
            for _ in range(steps):
                env.render()

        figures[f"{name}_pictures_per_s"] = steps / seconds(pictures)
        figures[f"{name}_steps_with_picture_per_s"] = steps / seconds(control)
        env.close()
    return figures


def bench_store() -> dict[str, float]:
    """Append and read an episode of 100 control steps at 96 px."""
    env = make_env("pusht")
    episode = record(env, BlockSeekingPolicy(0), 100, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        with EpisodeWriter(path, DatasetSpec(env=env.env_spec, image_size=96)) as writer:
            append = seconds(lambda: writer.append(episode))
        store = EpisodeStore(path)
        return {
            "store_append_episode_ms": append * 1e3,
            "store_read_episode_ms": seconds(lambda: store.frames(0)) * 1e3,
            "store_read_window_16_ms": seconds(lambda: store.frames(0, 30, 46)) * 1e3,
        }


def bench_model(model: WorldModel) -> dict[str, float]:
    """Encoding rate, one rollout of 200 candidates, and whole searches, with torch's present threads."""
    task = sample_tasks("pusht", 1000, 1, 25)[0]
    frames = torch.from_numpy(np.repeat(task.goal_image[None, None], 64, axis=1))
    env = make_env("pusht")
    observation, _ = env.reset(options={"state": task.start_state})
    goal = model.encode(torch.from_numpy(task.goal_image)[None, None])
    figures = {"encode_frames_per_s": 64 / seconds(lambda: model.encode(frames))}
    frameskip, planning = model.spec.frameskip, find_world("pusht").planning
    for planner in ("icem", "cem"):
        controller = Controller(model, make_mpc(planner, frameskip, planning), goal, kinematics=env.kinematics)
        controller.observe(observation)
        figures[f"plan_ms_{planner}"] = seconds(lambda c=controller: c.plan()) * 1e3  # type: ignore[misc]
    context = controller.context()
    actions = torch.zeros(1, 200, 5, model.action_width)
    figures["rollout_200x5_ms"] = seconds(lambda: model.imagine(context, actions)) * 1e3
    return figures


def main(
    out: Annotated[Path, typer.Option(help="Folder of bench.json.")] = Path("bench"),
    model: Annotated[str, typer.Option(help="Shipped model or path.")] = "pusht",
) -> None:
    """Measure rates and times of the parts on this machine."""
    planned_with = make_model(model, "pusht")  # refused before anything is measured
    require_writable(out / "bench.json")
    machine = {"processor": processor(), "torch": torch.__version__}
    machine |= {"torch_threads": str(torch.get_num_threads()), "runs": str(RUNS), "statistic": "median"}
    figures: dict[str, Any] = {
        **bench_push_t(),
        **bench_chips(),
        **bench_arm(),
        **bench_store(),
        **bench_model(planned_with),
    }
    write_json(out / "bench.json", {"machine": machine, "figures": figures})
    table = Table("what", "figure", title=f"median of {RUNS}, {machine['torch_threads']} torch threads")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}")
    Console().print(table)
