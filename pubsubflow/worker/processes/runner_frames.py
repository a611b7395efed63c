"""The frames that a process of tasks sends: results, output, requests, and tasks it gives back."""

from collections.abc import Callable
from typing import Protocol

from pubsubflow.model.wire.messages import NO_NODE
from pubsubflow.runner.protocol import (
    LEFT,
    LOG,
    NUMBERED,
    RESULT,
    RESULT_HEADER,
    RETURNED,
    STORED,
    StoredObjects,
    split_stored,
)
from pubsubflow.runner.redaction import Redactor
from pubsubflow.worker.assignment import Assignment
from pubsubflow.worker.processes.process_output import ProcessOutput
from pubsubflow.worker.processes.sent import SentAssignments
from pubsubflow.worker.processes.task_requests import RequestEvents, TaskRequests


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


class RunnerFrames:
    """Passes on what a process sends.

    Args:
        assignments: Those of the process.
        output: Its output.
        events: Called with what its tasks do.
        redactor: Learns the secrets that its tasks request.
        reply: Sends a reply to the process: the number of its request, and an encoded Chunk.
        on_left: Called when no further task may begin in it.
    """

    def __init__(
        self,
        assignments: SentAssignments,
        output: ProcessOutput,
        events: RunnerEvents,
        *,
        redactor: Redactor,
        reply: Callable[[int, bytes], None],
        on_left: Callable[[], None],
    ) -> None:
        self._assignments = assignments
        self._output = output
        self._events = events
        self._requests = TaskRequests(assignments, events, redactor, reply)
        self._on_left = on_left

    def handle(self, frame: bytes) -> None:
        """Handle a frame; what concerns an assignment that is gone is dropped."""
        kind = frame[0]
        if kind == RESULT:
            _, number, _, then = RESULT_HEADER.unpack_from(frame)
            assignment = self._assignments.get(number)
            if assignment is not None:
                self._on_result(assignment, then, frame[RESULT_HEADER.size :])
        elif kind == STORED:
            number, payload, objects = split_stored(frame)
            assignment = self._assignments.get(number)
            if assignment is not None:
                self._on_result(assignment, NO_NODE, payload, objects)
        else:
            _, number = NUMBERED.unpack_from(frame)
            self._on_numbered(kind, number, frame[NUMBERED.size :])

    def _on_numbered(self, kind: int, number: int, body: bytes) -> None:
        if kind == LEFT:
            self._on_left()
        elif kind not in (LOG, RETURNED):
            self._requests.pass_on(kind, number, body)
        elif (assignment := self._assignments.get(number)) is not None:
            if kind == LOG:
                self._output.add(assignment, body.decode())
            else:
                self._events.on_unbegun(assignment)

    def _on_result(
        self,
        assignment: Assignment,
        then: int,
        payload: bytes,
        objects: StoredObjects | None = None,
    ) -> None:
        """Handle a result, and `objects` if these are to be stored first."""
        is_ahead = len(self._assignments) > 1
        # So that the node's last lines are published before its result.
        self._output.end_node(then)
        if objects is None:
            self._events.on_result(assignment, then, payload)
        else:
            self._events.on_large_result(assignment, payload, objects)
        self._output.begin_node(then, is_ahead=is_ahead)
