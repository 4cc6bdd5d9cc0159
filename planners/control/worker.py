"""The planner in a process of its own, so that planning never holds up the control loop."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from wm.errors import BadInputError, WmError
from wm.planners.control.messages import PlanFailure, PlannerSpec, PlanReply, PlanRequest

Plan = Callable[[PlanRequest], PlanReply]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class PlannerProcess:
    """A spawned process that answers one plan request at a time.

    Nothing here blocks the caller but `start` and `close`: a thread of this process moves requests and replies through
    the pipe. A plan that raises is answered with a `PlanFailure`; so is a request in whose course the process dies. A
    process that hangs stays `busy` (and `submit` returns False); whoever waits decides how long.

    Args:
        make: Picklable; builds the planner in its process, where it may also plan once to warm up.
        spec: What the planner was made for.
        threads: Threads of the numerics libraries in the process.

    Raises:
        BadInputError: fewer than one thread.
    """

    def __init__(self, make: Callable[[], Plan], spec: PlannerSpec, *, threads: int = 1) -> None:
        if threads < 1:
            raise BadInputError(f"PlannerProcess: threads must be >= 1, came {threads}.")
        self._make, self._spec, self._threads = make, spec, threads
        self._process: multiprocessing.process.BaseProcess | None = None
        self._requests: queue.SimpleQueue[PlanRequest | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[PlanReply | PlanFailure] = queue.SimpleQueue()
        self._busy = False

    @property
    def spec(self) -> PlannerSpec:
        """What the planner was made for."""
        return self._spec

    @property
    def alive(self) -> bool:
        """The process runs (it may hang); False before `start`, after `close`, and once it has died."""
        return self._process is not None and self._process.is_alive()

    @property
    def busy(self) -> bool:
        """A request has not been answered, or its answer not been polled."""
        return self._busy

    @property
    def pid(self) -> int | None:
        """Id of the process, None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self, timeout: float | int) -> None:
        """Spawn the process and wait until the planner is built.

        Raises:
            BadInputError: it was started before and not closed.
            WmError: ``make`` raised, the process died, or it took longer than ``timeout`` seconds.
        """
        if self._process is not None:
            raise BadInputError("the planner process was started before.")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._make, self._threads), name="wm-planner", daemon=True
        )
        with _thread_limit(self._threads):
            process.start()
        theirs.close()  # or its death would not close the pipe
        try:
            problem = ours.recv() if ours.poll(timeout) else f"no answer within {timeout} s"
        except (EOFError, OSError):
            problem = "the process died"
        if problem:
            _end(process)
            raise WmError(f"the planner did not start: {problem}.")
        self._requests, self._replies, self._busy = queue.SimpleQueue(), queue.SimpleQueue(), False
        self._process = process
        threading.Thread(
            target=_pump, args=(ours, process, self._requests, self._replies), name="wm-planner-pipe", daemon=True
        ).start()

    def submit(self, request: PlanRequest) -> bool:
        """Ask for a plan; False, and nothing is asked, while it is `busy` or not `alive`."""
        if self._busy or not self.alive:
            return False
        self._busy = True
        self._requests.put(request)
        return True

    def poll(self) -> PlanReply | PlanFailure | None:
        """The answer to the last request, once; None while there is none."""
        try:
            reply = self._replies.get_nowait()
        except queue.Empty:
            return None
        self._busy = False
        return reply

    def close(self) -> None:
        """End the process, even one that hangs; returns within about two seconds, harmless when repeated."""
        if self._process is None:
            return
        process, self._process = self._process, None
        self._requests.put(None)
        _end(process)


def _end(process: multiprocessing.process.BaseProcess) -> None:
    process.terminate()
    process.join(1.0)
    if process.is_alive():  # stopped or deaf
        process.kill()
        process.join(1.0)


@contextlib.contextmanager
def _thread_limit(threads: int) -> Iterator[None]:
    """Numerics libraries read these variables when they are loaded, which in a child is before any code of ours."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update({name: str(threads) for name in THREAD_VARIABLES})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _pump(
    connection: Connection,
    process: multiprocessing.process.BaseProcess,
    requests: queue.SimpleQueue[PlanRequest | None],
    replies: queue.SimpleQueue[PlanReply | PlanFailure],
) -> None:
    """Thread on the loop's side: the only one that waits at the pipe."""
    with connection:
        while (request := requests.get()) is not None:
            try:
                connection.send(request)
                replies.put(connection.recv())
            except Exception as error:
                process.join(0.5)  # for its exit code
                died = f"the planner process died (exit code {process.exitcode})"
                broke = f"the pipe to the planner broke ({type(error).__name__}: {error})"
                replies.put(PlanFailure(request.step, broke if process.exitcode is None else died))
                return


def _serve(connection: Connection, make: Callable[[], Plan], threads: int) -> None:
    """Body of the planner process: build, then answer until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the loop's, which stops the robot and then closes us
    try:
        plan = make()
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    connection.send("")
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(_answer(plan, connection.recv()))


def _answer(plan: Plan, request: PlanRequest) -> PlanReply | PlanFailure:
    started = time.monotonic()
    try:
        reply = plan(request)
    except Exception as error:
        after = 1000 * (time.monotonic() - started)
        return PlanFailure(request.step, f"{type(error).__name__}: {error} (after {after:.0f} ms)")
    if not isinstance(reply, PlanReply):
        return PlanFailure(request.step, f"expected a PlanReply, came {type(reply).__name__}")
    return reply
