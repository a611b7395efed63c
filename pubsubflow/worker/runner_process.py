"""A runner process as the worker sees it: its assignments, its code and its output."""

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import anyio
import msgspec
import structlog

from pubsubflow.model.wire.messages import NO_NODE, encode
from pubsubflow.runner.flight_recorder import (
    BEGUN,
    REVOKED_AFTER,
    REVOKED_UNTIL,
    RUNNING,
    RunnerRecorder,
)
from pubsubflow.runner.forked_process import ChildProcess
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.log_lines import split_records
from pubsubflow.runner.protocol import (
    AHEAD,
    CANCEL,
    DRAIN_FRAME,
    LEFT,
    LOG,
    NUMBERED,
    REPLY,
    RESULT,
    RESULT_HEADER,
    RETURNED,
    SOURCE_HEADER,
    STORED,
    TASK,
    RunnerSettings,
    StoredObjects,
    split_stored,
)
from pubsubflow.runner.redaction import Redactor
from pubsubflow.worker.assignment import Assignment, AttemptOutcome
from pubsubflow.worker.losses import RunAgain, judge_losses
from pubsubflow.worker.resources.confinement import Confinement
from pubsubflow.worker.source_cache import FetchedSource
from pubsubflow.worker.stdio import OutputPipe, open_output_pipes
from pubsubflow.worker.task_requests import RequestEvents, TaskRequests

log = structlog.get_logger(__name__)

_TARGET = "pubsubflow.runner.main:main"
_TAIL_LINES = 40
_STREAM_SECONDS = 1.0
_MOST_NAMED = 5
MOST_AHEAD = 4
"""How many short tasks a process has behind the one that runs, and a worker takes for it."""
_BEGIN_SECONDS = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class RunnerEvents(RequestEvents, Protocol):
    """Callbacks for what happens in a runner process."""

    def on_result(self, assignment: Assignment, then: int, payload: bytes) -> None:
        """Handle the result of a node; `then` is the next one, or NO_NODE."""

    def on_large_result(
        self, assignment: Assignment, payload: bytes, objects: StoredObjects
    ) -> None:
        """Store the result of a node, then handle it; no further node follows."""

    def on_output(self, assignment: Assignment, lines: str) -> None:
        """Handle lines of output."""

    def on_unbegun(self, assignment: Assignment) -> None:
        """Give an assignment that was revoked before it began to another process."""


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
        assignments: Position → assignment.
        free_slots: How many more assignments it can take; 0 before it is forked and once it ends.
        sources: Keys of the code it has.
        process: What code it runs, see `FetchedSource`; empty before its first assignment.
        served: How many assignments it has had.
        ending: It is retired or about to be killed, so it gets no more assignments.
        killed: The worker has killed it.
        blocked: A task blocks its event loop.
        recorder: The flight recorder of an async one.
        recycle_after: After how many assignments it is replaced.
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
        self.assignments: dict[int, Assignment] = {}
        self.free_slots = 0
        self.sources: set[str] = set()
        self.bundle = self.process = ""
        self.served = 0
        self.ending = self.killed = self.blocked = False
        self.idle_since = 0.0
        self.reserved_for = reserved_for
        self._confinement = confinement
        self._settings = settings
        self._slots = slots
        self.recycle_after = recycle_after
        self._events = events
        self._child: ChildProcess | None = None
        self._post: Callable[[bytes], None] = _lost
        self._ended = anyio.Event()
        self._redactor = Redactor()
        self._requests = TaskRequests(self._running, events, self._redactor, self._reply)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._is_sync = settings.kind == "sync"
        self.recorder: RunnerRecorder | None = None
        self._ahead: RunnerRecorder | None = None  # of one that gets tasks ahead
        self._front_since = 0.0  # by the loop's clock, which nobody sets
        self._loop = asyncio.get_running_loop()
        self._pipes: list[OutputPipe] = []

    @property
    def pid(self) -> int:
        """Its process id; 0 before it is forked."""
        return 0 if self._child is None else self._child.pid

    @property
    def output_tail(self) -> str:
        """The last lines that the process wrote outside its tasks."""
        return "\n".join(self._tail)

    async def run(self, fork_server: ForkServer, ready: Callable[[], None]) -> int:
        """Fork the process, call `ready`, and return its exit code when it is gone.

        Raises:
            OSError: The system refuses another process.
        """
        stdout, stderr = self._pipes = open_output_pipes(self._on_process_output)
        settings = self._settings
        try:
            if not self._is_sync:
                self.recorder = RunnerRecorder(fork_server.account)
                settings = msgspec.structs.replace(settings, recorder=self.recorder.path)
            elif self.reserved_for is None:
                settings = self._open_ahead(settings, fork_server)
            child = await fork_server.fork(
                _TARGET,
                encode(settings),
                on_frame=self._on_frame,
                on_end=self._ended.set,
                output=(stdout.writer, stderr.writer),
            )
            stdout.release_writer()
            stderr.release_writer()
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
            # The pipes outlive the process: what it wrote before a crash is still in them.
            for pipe in self._pipes:
                pipe.finish()
            return await child.wait()
        finally:
            self._end()
            for pipe in self._pipes:
                pipe.close()

    def _open_ahead(self, settings: RunnerSettings, fork_server: ForkServer) -> RunnerSettings:
        """Make the page that says which tasks have begun; none are sent ahead without one."""
        try:
            self._ahead = RunnerRecorder(fork_server.account)
        except OSError as error:
            log.warning("worker.none_sent_ahead", error=str(error))
            return settings
        return msgspec.structs.replace(settings, recorder=self._ahead.path)

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
        self.served += 1
        # It may have been here before, and be on its way back: a number of its own each time.
        assignment.position = self.served
        if not self.assignments:
            self._front_since = self._loop.time()
        self.assignments[assignment.position] = assignment
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

    @property
    def front(self) -> Assignment | None:
        """The oldest assignment: the one that runs, if it runs one task at a time."""
        return next(iter(self.assignments.values()), None)

    @property
    def front_seconds(self) -> float:
        """For how long the oldest assignment has been that; 0 without one."""
        return self._loop.time() - self._front_since if self.assignments else 0.0

    def takes_ahead(self, most_seconds: float) -> bool:
        """Return whether it may get another task behind the one that runs.

        Args:
            most_seconds: So long the one that runs may have run.
        """
        front = self.front
        return (
            front is not None
            and self._ahead is not None
            and not self.ending
            and front.decided_outcome is None
            and len(self.assignments) <= MOST_AHEAD
            and self.served < self.recycle_after
            and self.front_seconds < most_seconds
        )

    def release(self, assignment: Assignment) -> Assignment | None:
        """Give up an assignment of which nothing is left to run, and retire when it is due.

        Returns:
            The assignment that begins now, if it was sent ahead.
        """
        was_front = self.front is assignment
        del self.assignments[assignment.position]
        self._count_slots()
        following = self.front
        if was_front:
            self._front_since = self._loop.time()
        if following is not None and was_front and self._is_sync:
            following.started_at = time.time()
            return following
        if following is None:
            if self._is_sync:
                for pipe in self._pipes:
                    pipe.expect_no_mark()
            self.idle_since = self._loop.time()
            if self.ending or self.served >= self.recycle_after:
                self.retire()
        return None

    def revoke(self) -> list[Assignment]:
        """Return what was sent ahead and has not begun; it does not begin any more."""
        return [] if self._ahead is None else self._revoke(self._ahead)

    def unbegun(self) -> list[Assignment]:
        """Return what was sent ahead and has not begun, of a process that is gone."""
        if self._ahead is None:
            return []
        begun = self._ahead.page[BEGUN]
        return [each for each in self.assignments.values() if each.position > begun]

    def is_late(self, most_seconds: float) -> bool:
        """Return whether others wait behind a task that has run for too long.

        Args:
            most_seconds: So long it may run.
        """
        front = self.front
        if front is None or self._ahead is None or len(self.assignments) == 1:
            return False
        # One that has not begun waits for the machine, as all others do.
        begun = self._ahead.page[BEGUN] >= front.position
        return self.front_seconds > (most_seconds if begun else _BEGIN_SECONDS)

    def has_ended(self, assignment: Assignment) -> bool:
        """Return whether an assignment has ended, and its result is on its way."""
        return self._ahead is not None and self._ahead.page[BEGUN] > assignment.position

    def _revoke(self, recorder: RunnerRecorder) -> list[Assignment]:
        page = recorder.page
        page[REVOKED_AFTER], page[REVOKED_UNTIL] = page[BEGUN], self.served
        # Read once more, after that is written: one that began in between and saw it is sent back
        # by the runner.
        begun = page[BEGUN]
        return [each for each in self.assignments.values() if each.position > begun]

    def block(self) -> list[Assignment]:
        """Note that a task blocks the loop, and return what had not begun, which it gives up."""
        self.blocked = True
        self._count_slots()
        return [] if self.recorder is None else self._revoke(self.recorder)

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
            for each in self.assignments.values():
                each.peak_bytes = self._confinement.peak_bytes
                each.decided_outcome = each.decided_outcome or verdict
        recorder = self.recorder
        stack = "" if recorder is None else recorder.stack()
        return judge_losses(
            tuple(self.assignments.values()),
            running=0 if recorder is None else recorder.page[RUNNING],
            code=code,
            killed=self.killed,
            output="\n".join(filter(None, (self.output_tail, stack))),
        )

    def close(self) -> None:
        """Give up the flight recorder and the limits, once the process is gone."""
        for recorder in (self.recorder, self._ahead):
            if recorder is not None:
                recorder.close()
        if self._confinement is not None:
            self._confinement.close()

    def interrupt(self, number: int) -> None:
        """Send a signal to it alone."""
        if self._child is not None:
            self._child.interrupt(number)

    def cancel(self, assignment: Assignment) -> None:
        """Send the order to stop one async task."""
        self._post(NUMBERED.pack(CANCEL, assignment.position))

    def drain(self) -> None:
        """Send the order to start no further node of a chain."""
        self._post(DRAIN_FRAME)

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

    def resident_bytes(self) -> int:
        """Return how much memory it holds; 0 where the system does not say."""
        if sys.platform != "linux":
            return 0
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        except OSError:  # it is gone, or no file can be opened just now
            return 0

    def _end(self) -> None:
        self.ending, self.free_slots = True, 0

    def _count_slots(self) -> None:
        closed = self.ending or self.blocked or self.reserved_for is not None
        self.free_slots = 0 if closed else max(0, self._slots - len(self.assignments))

    def _running(self) -> Collection[Assignment]:
        """Return what runs: of a process for one task at a time only the oldest assignment."""
        return tuple(self.assignments.values())[: 1 if self._is_sync else None]

    def _on_frame(self, frame: bytes) -> None:
        kind = frame[0]
        if kind == RESULT:
            _, number, _, then = RESULT_HEADER.unpack_from(frame)
            assignment = self.assignments.get(number)
            if assignment is not None:
                self._on_result(assignment, then, frame[RESULT_HEADER.size :])
            return
        if kind == STORED:
            number, payload, objects = split_stored(frame)
            if number in self.assignments:
                self._on_result(self.assignments[number], NO_NODE, payload, objects)
            return
        _, number = NUMBERED.unpack_from(frame)
        body = frame[NUMBERED.size :]
        if kind == LOG and number in self.assignments:
            self._events.on_output(self.assignments[number], self._redactor.lines(body.decode()))
        elif kind == LEFT:
            self._end()
            if not self.assignments:
                self.retire()
        elif kind == RETURNED and number in self.assignments:
            self._events.on_unbegun(self.assignments[number])
        else:
            self._requests.pass_on(kind, number, body)

    def _on_result(
        self,
        assignment: Assignment,
        then: int,
        payload: bytes,
        objects: StoredObjects | None = None,
    ) -> None:
        """Handle a result, and `objects` if these are to be stored first."""
        if not self._is_sync:
            # What C code wrote beside the task's own output is its, if it was the only one.
            if len(self.assignments) == 1:
                for pipe in self._pipes:
                    pipe.drain()
            self._pass_result(assignment, then, payload, objects)
            return
        # The frame may overtake output that is still in the pipes: read them out first, so that
        # the node's last lines are published before its result.
        is_last = len(self.assignments) == 1
        for pipe in self._pipes:
            if then != NO_NODE:
                pipe.drain()
            else:
                pipe.finish() if is_last else pipe.end_task()
        self._pass_result(assignment, then, payload, objects)
        if then != NO_NODE:
            for pipe in self._pipes:
                pipe.next_node()
        elif not is_last and self._ahead is not None:
            for pipe in self._pipes:
                pipe.next_task()

    def _pass_result(
        self, assignment: Assignment, then: int, payload: bytes, objects: StoredObjects | None
    ) -> None:
        if objects is None:
            self._events.on_result(assignment, then, payload)
        else:
            self._events.on_large_result(assignment, payload, objects)

    def _reply(self, number: int, chunk: bytes) -> None:
        self._post(NUMBERED.pack(REPLY, number) + chunk)

    def _on_process_output(self, lines: str) -> None:
        """Add what was written to fd 1 and 2 to the only task, or to the daemon's log."""
        lines = self._redactor.lines(lines)
        running = self._running()
        if len(running) == 1:
            self._events.on_output(next(iter(running)), lines)
            return
        tasks = [each.header.task_id for each in self.assignments.values()][:_MOST_NAMED]
        for line in split_records(lines):
            text = str(msgspec.json.decode(line, type=dict)["m"])
            self._tail.append(text)
            log.info("runner.output_written", pid=self.pid, line=text, tasks=tasks)


def _lost(frame: bytes) -> None:
    """Drop a frame to a process that is not forked yet: it has no assignment that needs it."""
