"""The watchdog: finds the async task that blocks the event loop of its process, and names it."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence

import anyio
import anyio.abc
import structlog

from pubsubflow.runner.flight_recorder import BEAT, BEGUN, RUNNING, RunnerRecorder
from pubsubflow.runner.log_lines import log_record
from pubsubflow.worker.assignment import Assignment
from pubsubflow.worker.processes.runner_process import RunnerProcess
from pubsubflow.worker.processes.stacks import user_place, user_stack

log = structlog.get_logger(__name__)

BLOCK_SECONDS = 1.0
"""After so long without a turn an event loop counts as blocked."""

START_SECONDS = 10.0
"""So long a process may take to its first turn. No user code is in its way, so it waits for the
machine, which another process in its place would do, too."""

_CHECK_SECONDS = 0.25
_STACK_SECONDS = 0.1
_MOST_FRAMES = 20
_REMEDY = (
    "the other tasks of its process wait; await instead, call what blocks with "
    "asyncio.to_thread(), or write the task as a plain def"
)


class LoopWatchdog:
    """Checks the processes of a pool from outside, while they have assignments.

    Args:
        runners: The processes.
        group: The task group in which stacks are read.
        on_blocked: Called with a process whose loop is blocked, once for each time.
        on_unblocked: Called when one turns again.
        on_output: Called with lines for the log of the task that blocks it.
    """

    def __init__(
        self,
        runners: Sequence[RunnerProcess],
        group: anyio.abc.TaskGroup,
        *,
        on_blocked: Callable[[RunnerProcess], None],
        on_unblocked: Callable[[], None],
        on_output: Callable[[Assignment, str], None],
    ) -> None:
        self._runners = runners
        self._group = group
        self._on_blocked = on_blocked
        self._on_unblocked = on_unblocked
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Start checking, until no process has an assignment."""
        if self._timer is None:
            self._timer = self._loop.call_later(_CHECK_SECONDS, self._check)

    def close(self) -> None:
        """Stop checking."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        for runner in tuple(self._runners):
            if runner.recorder is None or not (runner.assignments or runner.blocked):
                continue
            self.wake()
            seconds = _silent_seconds(runner, runner.recorder)
            limit = BLOCK_SECONDS if runner.recorder.page[BEGUN] else START_SECONDS
            if seconds < limit and runner.blocked:
                runner.unblock()
                log.info("worker.loop_unblocked", pid=runner.pid)
                self._on_unblocked()
            elif seconds >= limit and not runner.blocked and not runner.ending:
                self._group.start_soon(self._report, runner, runner.recorder, seconds)
                self._on_blocked(runner)

    async def _report(
        self, runner: RunnerProcess, recorder: RunnerRecorder, seconds: float
    ) -> None:
        """Write who blocks the loop, and where, to the task's log and the daemon's."""
        assignment = runner.assignments.get(recorder.page[RUNNING])
        frames = []
        if recorder.page[BEAT]:
            start = recorder.size
            # The interpreter writes its stacks on this signal, also while C code holds it.
            runner.interrupt(signal.SIGUSR1)
            await anyio.sleep(_STACK_SECONDS)
            # The process may have been killed meanwhile, and its recorder given up.
            frames = [] if recorder.closed else user_stack(recorder.stack(start))
        place = user_place(frames)
        fields = {} if assignment is None else assignment.log_fields()
        log.warning(
            "worker.loop_blocked", **fields, pid=runner.pid, seconds=round(seconds, 1), at=place
        )
        if assignment is not None and assignment.runner is runner:
            assignment.stack = "\n".join(frames[:_MOST_FRAMES])
            text = f"this task blocks the event loop for {seconds:.1f} s by now, at {place}"
            line = log_record("warning", text, {"remedy": _REMEDY, "stack": assignment.stack})
            self._on_output(assignment, line)


def _silent_seconds(runner: RunnerProcess, recorder: RunnerRecorder) -> float:
    """Return for how long the process's event loop has not turned."""
    beat = recorder.page[BEAT]
    if beat:
        return (time.monotonic_ns() - beat) / 1e9
    # It has not looked at its first assignment yet.
    return runner.assignments.front_seconds
