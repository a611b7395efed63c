"""Assignments that wait for a process: first for their lease and their code, where needed."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from pubsubflow.model.wire.messages import Outcome, TaskError
from pubsubflow.model.wire.worker_requests import LeaseRequest, LeaseStatus
from pubsubflow.worker.assignment import Assignment, AttemptOutcome
from pubsubflow.worker.manager_client import ManagerClient
from pubsubflow.worker.processes.runner_set import RunnerSet
from pubsubflow.worker.resources.confinement import Confinements
from pubsubflow.worker.resources.parking import Parking
from pubsubflow.worker.settings import WorkerSettings
from pubsubflow.worker.source_cache import FetchedSource, SourceCache
from pubsubflow.worker.timeouts import TimeoutQueue

_TAKEN_DELAY_SECONDS = 2.0


class WaitingAssignments:
    """Keeps what waits, the oldest first, and gives up what has waited for too long.

    Args:
        settings: The worker's.
        worker: Its id.
        is_sync: Whether each task needs a free process.
        managers: Fetches leases.
        sources: Fetches code.
        confinements: What there is for tasks that declare resources.
        runners: The processes.
        on_ready: Called when one waits for a process alone.
        on_void: Called with one whose task has ended elsewhere.
        on_failed: Called with one that cannot run, and how it ends.
        on_parked: Called with one that waits for room, in whose place another may come.
        on_away: Called with one that goes back to its queue for so many seconds.
        on_overdue: Called with one that has waited for too long.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        worker: str,
        *,
        is_sync: bool,
        managers: ManagerClient,
        sources: SourceCache,
        confinements: Confinements,
        runners: RunnerSet,
        on_ready: Callable[[], None],
        on_void: Callable[[Assignment], None],
        on_failed: Callable[[Assignment, AttemptOutcome], None],
        on_parked: Callable[[Assignment], None],
        on_away: Callable[[Assignment, float], None],
        on_overdue: Callable[[Assignment], None],
    ) -> None:
        self._worker = worker
        self._is_sync = is_sync
        self._managers = managers
        self._sources = sources
        self._runners = runners
        self._on_ready = on_ready
        self._on_void = on_void
        self._on_failed = on_failed
        self._on_away = on_away
        self._on_overdue = on_overdue
        self._loop = asyncio.get_running_loop()
        self._found: dict[Assignment, FetchedSource | None] = {}
        self._parking = Parking(confinements, on_parked=on_parked, on_away=self._send_away)
        self._timeouts: TimeoutQueue[Assignment] = TimeoutQueue(
            settings.max_wait_seconds, self._give_up
        )

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._found)

    def __iter__(self) -> Iterator[Assignment]:
        """Iterate over those that wait, the oldest first."""
        return iter(tuple(self._found))

    @property
    def ready(self) -> list[tuple[Assignment, FetchedSource]]:
        """Those that wait for a process alone, with their code."""
        return [(each, source) for each, source in self._found.items() if source is not None]

    @property
    def bundles(self) -> set[str]:
        """Hashes of the bundles that they use."""
        return {source.bundle for _, source in self.ready}

    def add(self, assignment: Assignment) -> None:
        """Keep one that has come."""
        self._found[assignment] = None
        assignment.waits_since = self._loop.time()
        if assignment.redelivered:
            # Another worker may have finished it, or may still run it: the managers know.
            request = LeaseRequest(*assignment.fence, self._worker)
            self._managers.fetch_lease(request, partial(self._on_lease, assignment))
        else:
            self._fetch_source(assignment)

    def put_back(self, assignments: Sequence[Assignment]) -> None:
        """Keep what had left for a process and did not begin in it."""
        # They came before what waits already.
        self._found = dict.fromkeys(assignments) | self._found
        for assignment in assignments:
            assignment.waits_since = self._loop.time()
            self._fetch_source(assignment)

    def pop(self, assignment: Assignment) -> FetchedSource | None:
        """Remove one, if it waits, and return its code, if that is here."""
        return self._found.pop(assignment, None)

    def close(self) -> None:
        """Stop the timers."""
        self._timeouts.stop()
        self._parking.close()

    def _on_lease(self, assignment: Assignment, lease: LeaseStatus) -> None:
        if assignment not in self._found:
            return  # it was cancelled or returned meanwhile
        if lease is LeaseStatus.FREE:
            self._fetch_source(assignment)
            return
        del self._found[assignment]
        if lease is LeaseStatus.VOID:
            self._on_void(assignment)
        else:
            self._on_away(assignment, _TAKEN_DELAY_SECONDS)

    def _fetch_source(self, assignment: Assignment) -> None:
        source = self._sources.sources.get(assignment.header.source)
        if source is not None:
            self._enqueue(assignment, source)
        else:
            on_source = partial(self._on_source, assignment)
            self._sources.fetch(assignment.header.source, on_source)

    def _on_source(self, assignment: Assignment, source: FetchedSource) -> None:
        if assignment not in self._found:
            return  # it was cancelled or returned meanwhile
        if source.error is None:
            self._enqueue(assignment, source)
            return
        del self._found[assignment]
        failure = TaskError(type="SourceMissing", message=source.error)
        self._on_failed(assignment, AttemptOutcome(Outcome.FAILED, failure))

    def _enqueue(self, assignment: Assignment, source: FetchedSource) -> None:
        self._found[assignment] = source
        self._on_ready()
        if assignment.runner is not None:
            return
        if assignment.header.resources is not None:
            if not self._runners.has_own(assignment):
                self._parking.add(assignment, sum(each.parked for each in self._found))
        elif self._is_sync:
            self._timeouts.add(assignment)

    def _send_away(self, assignment: Assignment, seconds: float) -> None:
        if assignment in self._found and not self._runners.has_own(assignment):
            del self._found[assignment]
            self._on_away(assignment, seconds)

    def _give_up(self, assignment: Assignment) -> None:
        if assignment not in self._found:
            return
        if self._runners.starting:
            self._timeouts.add(assignment)
        else:
            self._on_overdue(assignment)
