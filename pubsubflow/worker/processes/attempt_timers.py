"""Attempt timers: what runs for more than a moment is published as started, and ends in time."""

import asyncio
from collections.abc import Callable

from pubsubflow.worker.assignment import Assignment
from pubsubflow.worker.settings import WorkerSettings
from pubsubflow.worker.timeouts import TimeoutQueue

_TIMEOUT_SLACK = 1.5


class AttemptTimers:
    """The timers of the nodes that run.

    Args:
        settings: The worker's.
        is_sync: Whether each task has a process to itself.
        on_started: Called with an assignment whose node has run for a moment.
        on_timeout: Called with an assignment whose node has run too long, and its timeout.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        is_sync: bool,
        on_started: Callable[[Assignment], None],
        on_timeout: Callable[[Assignment, float], None],
    ) -> None:
        # An async runner enforces its timeouts itself, unless a task blocks its loop.
        self._slack = 0.0 if is_sync else _TIMEOUT_SLACK * settings.grace_seconds
        self._on_started = on_started
        self._on_timeout = on_timeout
        self._loop = asyncio.get_running_loop()
        self._started: TimeoutQueue[tuple[Assignment, int]] = TimeoutQueue(
            settings.started_seconds, self._check_started
        )

    def start(self, assignment: Assignment) -> None:
        """Start the timers of the node that runs now."""
        self._started.add((assignment, assignment.node))
        if assignment.timeout_timer is not None:
            assignment.timeout_timer.cancel()
            assignment.timeout_timer = None
        seconds = assignment.timeout_seconds
        if seconds is not None:
            assignment.timeout_timer = self._loop.call_later(
                seconds + self._slack, self._on_timeout, assignment, seconds
            )

    def stop(self) -> None:
        """Publish nothing more as started."""
        self._started.stop()

    def _check_started(self, started: tuple[Assignment, int]) -> None:
        assignment, node = started
        running = assignment.runner is not None and assignment.started_at
        if running and assignment.node == node:
            self._on_started(assignment)
