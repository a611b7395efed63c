"""The output of a process: each line is passed on as that of the task which wrote it."""

from collections import deque
from collections.abc import Callable

import msgspec
import structlog

from pubsubflow.model.wire.messages import NO_NODE
from pubsubflow.runner.log_lines import split_records
from pubsubflow.runner.redaction import Redactor
from pubsubflow.worker.assignment import Assignment
from pubsubflow.worker.processes.sent import SentAssignments
from pubsubflow.worker.processes.stdio import OutputPipe, open_output_pipes

log = structlog.get_logger(__name__)

_TAIL_LINES = 40
_MOST_NAMED = 5


class ProcessOutput:
    """Passes on what a process and its tasks write, without secrets.

    Args:
        assignments: Those of the process.
        is_sync: Whether one of them runs at a time.
        redactor: Knows the secrets.
        on_output: Called with an assignment and lines of its output.
    """

    def __init__(
        self,
        assignments: SentAssignments,
        *,
        is_sync: bool,
        redactor: Redactor,
        on_output: Callable[[Assignment, str], None],
    ) -> None:
        self._assignments = assignments
        self._is_sync = is_sync
        self._redactor = redactor
        self._on_output = on_output
        self._pipes: list[OutputPipe] = []
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._pid = 0

    @property
    def tail(self) -> str:
        """The last lines that the process wrote outside its tasks."""
        return "\n".join(self._tail)

    def open(self) -> tuple[int, int]:
        """Return the descriptors that the process gets for stdout and stderr.

        Raises:
            OSError: No pipe can be opened now.
        """
        stdout, stderr = self._pipes = open_output_pipes(self._on_written)
        return stdout.writer, stderr.writer

    def start(self, pid: int) -> None:
        """Leave the writing ends to the process, which is forked."""
        self._pid = pid
        for pipe in self._pipes:
            pipe.release_writer()

    def add(self, assignment: Assignment, lines: str) -> None:
        """Pass on lines that the process sent as those of a task."""
        self._on_output(assignment, self._redactor.lines(lines))

    def end_node(self, then: int) -> None:
        """Pass on the last lines of a node whose result is here; `then` is the next one.

        The result may overtake output that is still in the pipes.
        """
        is_last = len(self._assignments) == 1
        if not self._is_sync:
            # What C code wrote beside the task's own output is its, if it was the only one.
            if is_last:
                for pipe in self._pipes:
                    pipe.drain()
            return
        for pipe in self._pipes:
            if then != NO_NODE:
                pipe.drain()
            else:
                pipe.finish() if is_last else pipe.end_task()

    def begin_node(self, then: int, *, is_ahead: bool) -> None:
        """Pass on what was written since: by the next node, or by a task that was sent ahead."""
        if not self._is_sync:
            return
        for pipe in self._pipes:
            if then != NO_NODE:
                pipe.next_node()
            elif is_ahead:
                pipe.next_task()

    def rest(self) -> None:
        """Note that no task runs, and none that was sent ahead begins."""
        if self._is_sync:
            for pipe in self._pipes:
                pipe.expect_no_mark()

    def finish(self) -> None:
        """Pass on what the process wrote before it ended; the pipes outlive it."""
        for pipe in self._pipes:
            pipe.finish()

    def close(self) -> None:
        """Close the pipes."""
        for pipe in self._pipes:
            pipe.close()

    def _on_written(self, lines: str) -> None:
        """Add what was written to fd 1 and 2 to the only task, or to the daemon's log."""
        lines = self._redactor.lines(lines)
        running = self._assignments.running
        if len(running) == 1:
            self._on_output(next(iter(running)), lines)
            return
        tasks = [each.header.task_id for each in running][:_MOST_NAMED]
        for line in split_records(lines):
            text = str(msgspec.json.decode(line, type=dict)["m"])
            self._tail.append(text)
            log.info("runner.output_written", pid=self._pid, line=text, tasks=tasks)
