"""A runner process as the worker sees it: its assignments, its code and its output."""

import asyncio
import signal
import time
from collections.abc import Callable

import anyio
import msgspec
import structlog

from pubsubflow.model.wire.messages import encode
from pubsubflow.runner.flight_recorder import RUNNING, RunnerRecorder
from pubsubflow.runner.forked_process import ChildProcess
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.protocol import (
    AHEAD,
    CANCEL,
    DRAIN_FRAME,
    NUMBERED,
    REPLY,
    SOURCE_HEADER,
    TASK,
    RunnerSettings,
)
from pubsubflow.runner.redaction import Redactor
from pubsubflow.runner.task_account import TaskAccount
from pubsubflow.worker.assignment import Assignment, AttemptOutcome
from pubsubflow.worker.processes.losses import RunAgain, judge_losses
from pubsubflow.worker.processes.process_output import ProcessOutput
from pubsubflow.worker.processes.runner_frames import RunnerEvents, RunnerFrames
from pubsubflow.worker.processes.sent import SentAssignments
from pubsubflow.worker.resources.confinement import Confinement
from pubsubflow.worker.source_cache import FetchedSource

log = structlog.get_logger(__name__)

_TARGET = "pubsubflow.runner.main:main"
_STREAM_SECONDS = 1.0


class RunnerProcess:
    """A process for user code with its assignments.

    Args:
        settings: What the process gets at its start.
        slots: How many assignments it may have at once.
        recycle_after: After how many assignments it is replaced.
        events: Called with what happens in it.
        reserved_for: The one assignment that it is for, if it is for one.
        confinement: The limits of that assignment, if it declares resources.

    Attributes:
        assignments: What it was sent and has not ended.
        free_slots: How many more assignments it can take; 0 before it is forked and once it ends.
        sources: Keys of the code it has.
        process: What code it runs, see `FetchedSource`; empty before its first assignment.
        ending: It is retired or about to be killed, so it gets no more assignments.
        killed: The worker has killed it.
        blocked: A task blocks its event loop.
        recorder: Its flight recorder: of a sync one the page of what has begun; None where it has
            none, and gets nothing ahead.
        idle_since: Time of the loop when its last assignment ended.
    """

    def __init__(
        self,
        settings: RunnerSettings,
        *,
        slots: int,
        recycle_after: int,
        events: RunnerEvents,
        reserved_for: Assignment | None = None,
        confinement: Confinement | None = None,
    ) -> None:
        self._is_sync = settings.kind == "sync"
        self.assignments = SentAssignments(one_at_a_time=self._is_sync)
        self.free_slots = 0
        self.sources: set[str] = set()
        self.bundle = self.process = ""
        self.ending = self.killed = self.blocked = False
        self.idle_since = 0.0
        self.reserved_for = reserved_for
        self.recorder: RunnerRecorder | None = None
        self._confinement = confinement
        self._settings = settings
        self._slots = slots
        self._recycle_after = recycle_after
        self._child: ChildProcess | None = None
        self._post: Callable[[bytes], None] = _lost
        self._ended = anyio.Event()
        redactor = Redactor()
        self._output = ProcessOutput(
            self.assignments,
            is_sync=self._is_sync,
            redactor=redactor,
            on_output=events.on_output,
        )
        self._frames = RunnerFrames(
            self.assignments,
            self._output,
            events,
            redactor=redactor,
            reply=self._reply,
            on_left=self._leave,
        )
        self._loop = asyncio.get_running_loop()

    @property
    def pid(self) -> int:
        """Its process id; 0 before it is forked."""
        return 0 if self._child is None else self._child.pid

    @property
    def is_due(self) -> bool:
        """Whether it has had so many assignments that another process is to replace it."""
        return self.assignments.count >= self._recycle_after

    async def run(self, fork_server: ForkServer, ready: Callable[[], None]) -> int:
        """Fork the process, call `ready`, and return its exit code when it is gone.

        Raises:
            OSError: The system refuses another process.
        """
        output = self._output.open()
        try:
            self._open_recorder(fork_server.account)
            settings = self._settings
            if self.recorder is not None:
                settings = msgspec.structs.replace(settings, recorder=self.recorder.path)
            child = await fork_server.fork(
                _TARGET,
                encode(settings),
                on_frame=self._frames.handle,
                on_end=self._ended.set,
                output=output,
            )
            self._output.start(child.pid)
            async with child, anyio.create_task_group() as group:
                self._child, self._post = child, child.channel.post
                self._count_slots()
                if self._confinement is not None:
                    self._confinement.enter(child.pid)
                ready()
                group.start_soon(self._end_with, child)
                if self._confinement is not None:
                    group.start_soon(self._confinement.watch, child.pid, self.kill)
                await self._ended.wait()
                with anyio.move_on_after(self._settings.grace_seconds):
                    await child.wait()
                group.cancel_scope.cancel()
            self._output.finish()
            return await child.wait()
        finally:
            self._end()
            self._output.close()

    def _open_recorder(self, account: TaskAccount | None) -> None:
        """Make the flight recorder; a process for one assignment alone, and sync, needs none."""
        if self._is_sync and self.reserved_for is not None:
            return
        try:
            self.recorder = RunnerRecorder(account)
        except OSError as error:
            if not self._is_sync:
                raise
            log.warning("worker.none_sent_ahead", error=str(error))
        else:
            self.assignments.page = self.recorder.page

    async def _end_with(self, child: ChildProcess) -> None:
        """Give up the stream after the process's end: what a task forked may hold it open."""
        await child.wait()
        await anyio.sleep(_STREAM_SECONDS)
        self._ended.set()

    def assign(self, assignment: Assignment, source: FetchedSource) -> None:
        """Send it an assignment, after the code if it does not have it yet."""
        is_ahead = self._is_sync and bool(self.assignments)
        # One that is for this assignment alone never had a free slot, nor has one that works ahead.
        self.free_slots = max(0, self.free_slots - 1)
        self.assignments.add(assignment)
        assignment.runner = self
        assignment.started_at = 0.0 if is_ahead else time.time()
        if assignment.header.source not in self.sources:
            self.sources.add(assignment.header.source)
            self.bundle, self.process = source.bundle, source.process
            self._post(SOURCE_HEADER + source.data)
        data = assignment.delivery.data
        if assignment.redelivered and not self._is_sync:
            data = assignment.encode_without_journal()
        kind = AHEAD if is_ahead else TASK
        self._post(NUMBERED.pack(kind, assignment.position) + data)

    def release(self, assignment: Assignment) -> Assignment | None:
        """Give up an assignment of which nothing is left to run, and retire when it is due.

        Returns:
            The assignment that begins now, if it was sent ahead.
        """
        was_front = self.assignments.remove(assignment)
        self._count_slots()
        following = self.assignments.front
        if following is None:
            self._output.rest()
            self.idle_since = self._loop.time()
            if self.ending or self.is_due:
                self.retire()
        elif was_front and self._is_sync:
            following.started_at = time.time()
            return following
        return None

    def stop(self, assignment: Assignment) -> list[Assignment]:
        """Stop an assignment, and return what has not begun, which it gives up."""
        if not self._is_sync:
            self._post(NUMBERED.pack(CANCEL, assignment.position))
            return []
        # A signal must not reach what would begin next.
        unbegun = self.assignments.revoke()
        # Its result may be on its way, and another task run: that is not to be hit.
        if assignment not in unbegun and not self.assignments.has_ended(assignment):
            self.kill(signal.SIGTERM)
        return unbegun

    def drain(self) -> list[Assignment]:
        """Have it begin nothing more; return what was sent ahead, which it gives up."""
        unbegun = self.assignments.revoke() if self._is_sync else []
        self._post(DRAIN_FRAME)
        return unbegun

    def unbegun(self) -> list[Assignment]:
        """Return what was sent ahead and has not begun, of a process that is gone."""
        return self.assignments.unbegun() if self._is_sync else []

    def block(self) -> list[Assignment]:
        """Note that a task blocks the loop, and return what had not begun, which it gives up."""
        self.blocked = True
        self._count_slots()
        return self.assignments.revoke()

    def unblock(self) -> None:
        """Note that the loop turns again."""
        self.blocked = False
        self._count_slots()

    def is_blocked_by_other(self, assignment: Assignment) -> bool:
        """Return whether another assignment blocks the event loop."""
        if self.recorder is None or not self.blocked:
            return False
        return self.recorder.page[RUNNING] not in (0, assignment.position)

    def judge_losses(self, code: int) -> list[tuple[Assignment, AttemptOutcome | RunAgain]]:
        """Return what follows for each assignment, once the process is gone."""
        if self._confinement is not None:
            verdict = self._confinement.verdict()
            for each in self.assignments:
                each.peak_bytes = self._confinement.peak_bytes
                each.decided_outcome = each.decided_outcome or verdict
        recorder = self.recorder
        stack = "" if recorder is None else recorder.stack()
        return judge_losses(
            tuple(self.assignments),
            running=0 if recorder is None else recorder.page[RUNNING],
            code=code,
            killed=self.killed,
            output="\n".join(filter(None, (self._output.tail, stack))),
        )

    def close(self) -> None:
        """Give up the flight recorder and the limits, once the process is gone."""
        if self.recorder is not None:
            self.recorder.close()
        if self._confinement is not None:
            self._confinement.close()

    def interrupt(self, number: int) -> None:
        """Send a signal to it alone."""
        if self._child is not None:
            self._child.interrupt(number)

    def retire(self) -> None:
        """Close the stream to an idle process, at which it exits."""
        self._end()
        if self._child is not None:
            self._child.channel.close()
            self._ended.set()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to it and to all that it started; it gets no more assignments."""
        self._end()
        self.killed = True
        if self._child is not None:
            self._child.kill(number)

    def _end(self) -> None:
        self.ending, self.free_slots = True, 0

    def _count_slots(self) -> None:
        closed = self.ending or self.blocked or self.reserved_for is not None
        self.free_slots = 0 if closed else max(0, self._slots - len(self.assignments))

    def _leave(self) -> None:
        """Send it no further assignment, and retire it when it has none."""
        self._end()
        if not self.assignments:
            self.retire()

    def _reply(self, number: int, chunk: bytes) -> None:
        self._post(NUMBERED.pack(REPLY, number) + chunk)


def _lost(frame: bytes) -> None:
    """Drop a frame to a process that is not forked yet: it has no assignment that needs it."""
