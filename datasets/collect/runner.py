"""Record episodes in worker processes.

Every episode has a seed of its own, derived from the run's seed and the episode's index, and episodes are handed back
in order: the log does not depend on the number of workers.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from wm.datasets.schema import Episode
from wm.errors import StoreError
from wm.workers import end_with_parent

Policy = Callable[[np.ndarray], np.ndarray]
Item = TypeVar("Item")
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

    def recorder(self) -> Callable[[int], Episode]:
        """What records the index-th episode, in an environment of its own."""
        env = self.make_env()

        def play(index: int) -> Episode:
            seed = episode_seed(self.seed, index)
            return record(env, self.make_policy(seed), self.steps, seed)

        return play


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
    yield from in_order(recording.recorder, range(first, stop), workers)


def in_order(
    make: Callable[[], Callable[[Item], Episode]], items: Sequence[Item], workers: int
) -> Generator[Episode, None, None]:
    """The episode of each item, in the items' order; the number of workers changes nothing but the time.

    Args:
        make: Builds what plays an item's episode, once in each process. It travels to spawned processes, as items do.
        items: Each tells all that its episode depends on.
        workers: Spawned processes; 0 plays in this one.

    Raises:
        StoreError: a worker process died; every episode before was handed back.
    """
    if not items:
        return
    if workers == 0:
        play = make()
        for item in items:
            yield play(item)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (make,)) as pool:
        under_way: deque[Future[Episode]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(_play, item))
                if len(under_way) == _AHEAD * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise StoreError("a worker process died; the episodes recorded before are kept.") from error
        except (KeyboardInterrupt, GeneratorExit):  # nobody waits for the episodes under way, which may take minutes
            for process in list((pool._processes or {}).values()):  # from Python 3.14 on: pool.terminate_workers()
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker: list[Callable[[Any], Episode]] = []


def _start_worker(make: Callable[[], Callable[[Any], Episode]]) -> None:
    end_with_parent()
    _worker[:] = [make()]


def _play(item: Any) -> Episode:
    return _worker[0](item)
