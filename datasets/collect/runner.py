"""Record episodes in worker processes.

Every episode has a seed of its own, derived from the run's seed and the episode's index, and episodes are handed back
in order: the log does not depend on the number of workers.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm.datasets.schema import Episode
from wm.errors import StoreError
from wm.workers import end_with_parent

Policy = Callable[[np.ndarray], np.ndarray]
_AHEAD = 4  # episodes under way per worker: a slow disk must not fill the memory


@dataclass(frozen=True)
class Recording:
    """What a worker needs to record an episode; all of it travels to spawned processes.

    Attributes:
        make_env: Builds the environment (its `info["state"]` is logged, its observation has `image`, maybe `proprio`).
        make_policy: Builds the policy from a seed; it maps the state to an action.
        steps: T, control steps per episode.
        seed: The run's seed.
    """

    make_env: Callable[[], Any]
    make_policy: Callable[[int], Policy]
    steps: int
    seed: int


def episode_seed(seed: int, index: int) -> int:
    """Seed of the index-th episode of a run."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def record(env: Any, policy: Policy, steps: int, seed: int) -> Episode:
    """Play one episode of `steps` control steps and keep everything."""
    observation, info = env.reset(seed=seed)
    frames, proprio, states, actions = [observation["image"]], [observation.get("proprio")], [info["state"]], []
    for _ in range(steps):
        action = policy(info["state"])
        observation, _, _, _, info = env.step(action)
        frames.append(observation["image"])
        proprio.append(observation.get("proprio"))
        states.append(info["state"])
        actions.append(action)
    return Episode(
        frames=np.stack(frames),
        proprio=None if proprio[0] is None else np.stack(proprio).astype(np.float32),
        state=np.stack(states).astype(np.float64),
        actions=np.stack(actions).astype(np.float32),
        seed=seed,
    )


def record_episodes(recording: Recording, first: int, stop: int, workers: int) -> Iterator[Episode]:
    """Episodes `first` to `stop - 1` of the run, in order.

    Args:
        recording: What to record.
        first: Index of the first episode (more than 0 when a run is resumed).
        stop: One past the last index.
        workers: Spawned processes; 0 records in this one.

    Raises:
        StoreError: a worker process died; every episode before was handed back.
    """
    if workers == 0:
        env = recording.make_env()
        for index in range(first, stop):
            seed = episode_seed(recording.seed, index)
            yield record(env, recording.make_policy(seed), recording.steps, seed)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (recording,)) as pool:
        under_way: deque[Future[Episode]] = deque()
        try:
            for index in range(first, stop):
                under_way.append(pool.submit(_record_index, index))
                if len(under_way) == _AHEAD * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise StoreError("collect: a worker process died; the episodes recorded before are kept.") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker: dict[str, Any] = {}


def _start_worker(recording: Recording) -> None:
    end_with_parent()
    _worker["recording"], _worker["env"] = recording, recording.make_env()


def _record_index(index: int) -> Episode:
    recording: Recording = _worker["recording"]
    seed = episode_seed(recording.seed, index)
    return record(_worker["env"], recording.make_policy(seed), recording.steps, seed)
