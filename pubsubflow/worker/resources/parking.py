"""Parking: tasks that wait here for room, without the places of tasks that need none."""

from collections.abc import Callable

import structlog

from pubsubflow.worker.assignment import Assignment
from pubsubflow.worker.resources.budget import AWAY_SECONDS
from pubsubflow.worker.resources.confinement import Confinements
from pubsubflow.worker.timeouts import TimeoutQueue

log = structlog.get_logger(__name__)

_MOST = 100
_PARKED_SECONDS = 5.0
_ELSEWHERE_SECONDS = 0.5
"""What has waited here for long is offered to all workers for that long."""


class Parking:
    """Keeps assignments that declare resources while they lack room.

    Args:
        confinements: What the worker has.
        on_parked: Called with an assignment that is kept for the first time: another message may
            be pulled in its place.
        on_away: Called with an assignment that is to go back to its queue, and for how long.
    """

    def __init__(
        self,
        confinements: Confinements,
        *,
        on_parked: Callable[[Assignment], None],
        on_away: Callable[[Assignment, float], None],
    ) -> None:
        self._confinements = confinements
        self._on_parked = on_parked
        self._on_away = on_away
        self._timeouts: TimeoutQueue[Assignment] = TimeoutQueue(
            _PARKED_SECONDS, lambda assignment: on_away(assignment, _ELSEWHERE_SECONDS)
        )

    def add(self, assignment: Assignment, parked: int) -> None:
        """Keep an assignment, unless it is too large for this worker or many are kept.

        Args:
            assignment: One that declares resources.
            parked: How many are kept already.
        """
        wanted = assignment.header.resources
        could = wanted is None or self._confinements.could_ever(wanted)
        if not could and assignment.delivery.attempts == 1:
            log.warning("worker.task_too_large", **assignment.log_fields())
        if not could or parked > _MOST:
            self._on_away(assignment, AWAY_SECONDS)
            return
        if not assignment.parked:
            assignment.parked = True
            self._on_parked(assignment)
        self._timeouts.add(assignment)

    def close(self) -> None:
        """Stop the timers."""
        self._timeouts.stop()
